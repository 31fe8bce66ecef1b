//! `cargo xtask mutants`: changes the protocol's code at random, as cargo-mutants would, and sees whether a test
//! notices.
//!
//! Out of all mutants of the protocol's crates that cargo-mutants lists a seeded sample is drawn, so that two people
//! speak of the same ones. They are built together ([`crate::schemata`]), and each is tested by those tests of its own
//! crate, of stack-core and of netsim that enter the function which it changes, the fastest first, until one fails.
//! What came out is kept below cargo's target folder, and an interrupted run, or another shard, goes on from there; it
//! counts for as long as the list of all mutants, and the code and the tests of these crates, stay what they are.

use crate::schemata::{Edit, Ending, Fit, Program, Schemata, side_by_side};
use crate::scratch::Scratch;
use crate::tools::{self, CARGO_MUTANTS};
use anyhow::{Context, Result, bail};
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::hash::{Hash as _, Hasher as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Options of `cargo xtask mutants`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many mutants to draw.
    #[arg(long, default_value_t = 400)]
    sample: usize,
    /// What the sample is drawn with.
    #[arg(long, default_value_t = 8684)]
    seed: u64,
    /// Test only the I-th of N parts of the sample.
    #[arg(long, value_name = "I/N", default_value = "1/1")]
    shard: Shard,
    /// Test those again that were missed before.
    #[arg(long)]
    again: bool,
    /// Fail if fewer were caught, in percent of those that compile and end.
    #[arg(long, value_name = "PERCENT", default_value_t = 0)]
    at_least: u32,
    /// Test nothing; say what came out so far.
    #[arg(long)]
    report: bool,
}

/// The `part`-th of so many parts, from 1 on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Shard {
    part: usize,
    of: usize,
}

impl std::str::FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match numbers {
            Some((part, of)) if (1..=of).contains(&part) => Ok(Shard { part, of }),
            _ => Err(format!("{text} is not of the form I/N, with I from 1 to N")),
        }
    }
}

/// Whose mutants.
const FILES: &[&str] = &[
    "crates/stack-core/src/**/*.rs",
    "crates/congestion/src/**/*.rs",
    "crates/scheduler/src/**/*.rs",
    "crates/path-manager/src/**/*.rs",
    "crates/udp-driver/src/codec.rs",
    "crates/convert/src/**/*.rs",
];

/// The crates whose tests are asked beside a mutant's own: they run the whole protocol.
const WHOLE: &[&str] = &["stack-core", "netsim"];

/// The crate that those tests have their tools from.
const HELPERS: &str = "testkit";

/// Tests that use more of the processor with nothing changed are stopped and given to no mutant: each that is missed
/// would take all of them.
const LONGEST: Duration = Duration::from_secs(10);

/// What became of a mutant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Fate {
    /// A test failed.
    Caught,
    /// Every test passed.
    Missed,
    /// Some test did not end.
    Timeout,
    /// It does not compile.
    Unviable,
    /// It would take a build of its own, and was not tested.
    Alone,
}

/// A mutant, as cargo-mutants lists it.
#[derive(serde::Deserialize)]
struct Mutant {
    name: String,
    file: String,
    span: Span,
    replacement: String,
}

/// A piece of a file.
#[derive(serde::Deserialize)]
struct Span {
    start: Position,
    end: Position,
}

/// A place in a file.
#[derive(serde::Deserialize)]
struct Position {
    /// From 1 on.
    line: usize,
    /// In characters, from 1 on.
    column: usize,
}

impl Position {
    /// How many bytes of `text` are before it.
    fn in_bytes(&self, text: &str) -> Option<usize> {
        let before: usize = text.split_inclusive('\n').take(self.line - 1).map(str::len).sum();
        let columns: usize = text[before..].chars().take(self.column - 1).map(char::len_utf8).sum();
        Some(before + columns).filter(|at| *at <= text.len())
    }
}

impl Mutant {
    /// What it changes.
    fn edit(&self, root: &Path) -> Result<Edit> {
        let text = fs::read_to_string(root.join(&self.file))
            .with_context(|| format!("cannot read {}", self.file))?;
        let range = self.span.start.in_bytes(&text).zip(self.span.end.in_bytes(&text));
        let (start, end) = range.with_context(|| format!("{} is outside its file", self.name))?;
        let from = text[start..end].to_owned();
        let (file, to, what) = (self.file.clone(), self.replacement.clone(), self.name.clone());
        Ok(Edit { file, range: start..end, from, to, what })
    }
}

/// Tests the shard, or reports.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = tools::root()?;
    CARGO_MUTANTS.install()?;
    let mutants = list(root)?;
    let all: Vec<String> = mutants.keys().cloned().collect();
    let mut sample = draw(&all, options.sample, options.seed);
    let folder = Scratch::folder_of(root, "mutants");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let results = Results::read(&folder, &all, &sources(root)?)?;
    let results = Mutex::new(results);
    let Shard { part, of } = options.shard;
    sample = sample.into_iter().skip(part - 1).step_by(of).collect();
    if !options.report {
        test(root, &mutants, &sample, options.again, &results)?;
    }
    let share = report(&all, &sample, &results.into_inner().unwrap_or_else(PoisonError::into_inner));
    enough(share, options.at_least)
}

/// Whether `share`, in percent, is at least that. `None`, no mutant counts: nothing is known, and that is not enough.
fn enough(share: Option<f64>, at_least: u32) -> Result<()> {
    match share {
        _ if at_least == 0 => Ok(()),
        None => bail!("no mutant of the sample was caught or missed: draw a larger one"),
        Some(share) if share < f64::from(at_least) => {
            bail!("the tests notice only {share:.1} % of the mutants")
        }
        Some(_) => Ok(()),
    }
}

/// Every mutant, by the name that cargo-mutants gives it.
fn list(root: &Path) -> Result<BTreeMap<String, Mutant>> {
    let mut command = tools::cargo();
    command.current_dir(root).args(["mutants", "--workspace", "--list", "--json", "--colors", "never"]);
    for files in FILES {
        command.args(["--file", files]);
    }
    let output = command.output().context("cannot start cargo mutants")?;
    if !output.status.success() {
        bail!("cargo mutants --list failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let mutants: Vec<Mutant> =
        serde_json::from_slice(&output.stdout).context("the list is not as expected")?;
    Ok(mutants.into_iter().map(|mutant| (mutant.name.clone(), mutant)).collect())
}

/// `count` of `all`, in the order in which they are drawn.
fn draw(all: &[String], count: usize, seed: u64) -> Vec<&String> {
    let mut names: Vec<&String> = all.iter().collect();
    let mut state = seed;
    for i in 0..count.min(names.len()) {
        // SplitMix64 (Steele, Lea and Flood, 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let left = (names.len() - i) as u64;
        names.swap(i, i + (z % left) as usize);
    }
    names.truncate(count);
    names
}

/// Everything that a verdict rests on: the code and the tests of the crates whose mutants are drawn or whose tests are
/// asked. When one of the tests is weakened, or there is a new one, all verdicts are out of date.
fn sources(root: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let own = FILES.iter().filter_map(|files| files.split('/').nth(1));
    let crates: BTreeSet<&str> = own.chain(WHOLE.iter().copied()).chain([HELPERS]).collect();
    let mut found = BTreeMap::new();
    for name in crates {
        for folder in ["src", "tests"].map(|f| root.join("crates").join(name).join(f)) {
            if folder.is_dir() {
                read_all(&folder, &mut found).with_context(|| format!("cannot read {}", folder.display()))?;
            }
        }
    }
    Ok(found)
}

/// Adds every file in `folder`.
fn read_all(folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read_all(&path, found)?;
        } else {
            let content = fs::read(&path)?;
            found.insert(path, content);
        }
    }
    Ok(())
}

/// What came out so far.
struct Results {
    file: PathBuf,
    fates: BTreeMap<String, Fate>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Line {
    mutant: String,
    fate: Fate,
}

impl Results {
    /// Those that belong to this list of mutants and these sources.
    fn read(folder: &Path, all: &[String], sources: &BTreeMap<PathBuf, Vec<u8>>) -> Result<Results> {
        let mut hasher = DefaultHasher::new();
        (all, sources).hash(&mut hasher);
        let file = folder.join(format!("results-{:016x}", hasher.finish()));
        let text = if file.exists() { fs::read_to_string(&file)? } else { String::new() };
        // The last line may be half written.
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        Ok(Results { fates: lines.map(|line| (line.mutant, line.fate)).collect(), file })
    }

    fn add(&mut self, mutant: &str, fate: Fate) -> Result<()> {
        let line = serde_json::to_string(&Line { mutant: mutant.to_owned(), fate })?;
        let mut file = OpenOptions::new().create(true).append(true).open(&self.file)?;
        writeln!(file, "{line}")?;
        self.fates.insert(mutant.to_owned(), fate);
        Ok(())
    }
}

/// The programs of tests of a crate that run without privilege.
fn programs(root: &Path, name: &str) -> Result<Vec<Program>> {
    let folder = root.join("crates").join(name);
    let package = format!("umptcp-{name}");
    let mut targets = vec![None];
    if let Ok(entries) = fs::read_dir(folder.join("tests")) {
        for entry in entries {
            let path = entry?.path();
            let is_program = path.extension().is_some_and(|e| e == "rs") || path.join("main.rs").is_file();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            targets.extend(stem.filter(|_| is_program).map(|stem| Some(stem.to_owned())));
        }
    }
    Ok(targets.into_iter().map(|target| Program { package: package.clone(), target }).collect())
}

/// Tests those of `names` of which nothing is known; `again`: and those that were missed.
fn test(
    root: &Path,
    mutants: &BTreeMap<String, Mutant>,
    names: &[&String],
    again: bool,
    results: &Mutex<Results>,
) -> Result<()> {
    let fates = || results.lock().unwrap_or_else(PoisonError::into_inner);
    let is_open = |name: &String| match fates().fates.get(name) {
        None => true,
        Some(fate) => again && *fate == Fate::Missed,
    };
    let open: Vec<&String> = names.iter().copied().filter(|n| is_open(n)).collect();
    println!("mutants: {} to test, {} known", open.len(), names.len() - open.len());
    if open.is_empty() {
        return Ok(());
    }
    let edits: Vec<Edit> = open.iter().map(|name| mutants[*name].edit(root)).collect::<Result<_>>()?;
    let own = edits.iter().filter_map(|edit| edit.file.split('/').nth(1));
    let crates: BTreeSet<&str> = own.chain(WHOLE.iter().copied()).collect();
    let programs: Vec<Vec<Program>> = crates.iter().map(|c| programs(root, c)).collect::<Result<_>>()?;
    let mut built = Schemata::build(root, edits, &programs.into_iter().flatten().collect())?;
    let tests = built.tests()?;
    println!("mutants: built; {} tests with nothing changed", tests.len());
    for (test, ending) in built.run_unchanged(&tests, LONGEST)? {
        match ending {
            Ending::Hung => println!("left out, it takes too long: {test}"),
            _ => println!("left out, it fails with nothing changed: {test}"),
        }
    }
    let numbers: Vec<usize> = (0..open.len()).collect();
    side_by_side(&numbers, |_, number| {
        let (fate, by) = match built.fit(*number) {
            Fit::DoesNotCompile => (Fate::Unviable, String::new()),
            Fit::Alone => (Fate::Alone, String::new()),
            Fit::Woven(_) => fate(&built, *number)?,
        };
        println!("{fate:?}: {}{by}", open[*number]);
        fates().add(open[*number], fate)
    })
}

/// What becomes of a mutant, and by which test.
fn fate(built: &Schemata<'_>, number: usize) -> Result<(Fate, String)> {
    let concerned = built.concerned(number);
    for test in &concerned {
        match built.run(number, test)? {
            Some(Ending::Passed) => {}
            Some(Ending::Failed) => return Ok((Fate::Caught, format!(", by {test}"))),
            Some(Ending::Hung) => return Ok((Fate::Timeout, format!(", in {test}"))),
            None => println!("it fails with nothing changed, too: {test}"),
        }
    }
    Ok((Fate::Missed, format!(", by {} tests", concerned.len())))
}

/// Says how many of the sample were caught, and which were not. The share of those caught, in percent; `None`
/// when none was caught or missed.
fn report(all: &[String], sample: &[&String], results: &Results) -> Option<f64> {
    let of = |fate| -> Vec<&str> {
        let fitting = sample.iter().filter(|n| results.fates.get(**n) == Some(&fate));
        fitting.map(|n| n.as_str()).collect()
    };
    let (caught, missed) = (of(Fate::Caught), of(Fate::Missed));
    let (timeouts, unviable) = (of(Fate::Timeout), of(Fate::Unviable));
    let alone = of(Fate::Alone);
    let tested = caught.len() + missed.len() + timeouts.len() + unviable.len();
    println!("mutants: {} in all, {} drawn, {tested} tested", all.len(), sample.len());
    println!(
        "caught {}, missed {}, timed out {}, did not compile {}; not tested, because it takes a build of its own: {}",
        caught.len(),
        missed.len(),
        timeouts.len(),
        unviable.len(),
        alone.len()
    );

    let counted = caught.len() + missed.len();
    let share = (counted > 0).then(|| 100.0 * caught.len() as f64 / counted as f64);
    match share {
        Some(share) => println!("caught of those that compile and end: {share:.1} %"),
        None => println!("no mutant compiles and ends"),
    }
    for (what, names) in [("missed", missed), ("timed out", timeouts)] {
        for name in names {
            println!("{what}: {name}");
        }
    }
    share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_drawn_without_putting_back_and_the_same_each_time() {
        let all: Vec<String> = (0..50).map(|n| format!("mutant {n}")).collect();
        let drawn = draw(&all, 20, 7);
        assert_eq!(drawn, draw(&all, 20, 7));
        assert_ne!(drawn, draw(&all, 20, 8));
        assert_eq!(drawn.iter().collect::<std::collections::BTreeSet<_>>().len(), 20);
        // A smaller sample is the beginning of a larger one.
        assert_eq!(draw(&all, 5, 7), drawn[..5]);
        assert_eq!(draw(&all, 500, 7).len(), 50);
    }

    #[test]
    fn a_share_of_nothing_is_not_enough() {
        assert!(enough(None, 0).is_ok() && enough(None, 1).is_err());
        assert!(enough(Some(59.9), 60).is_err() && enough(Some(60.0), 60).is_ok());
    }

    #[test]
    fn verdicts_end_with_the_tests_that_they_rest_on() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut sources = sources(root).unwrap();
        let file = |sources: &_| Results::read(Path::new("/nowhere"), &[], sources).unwrap().file;
        let before = file(&sources);
        assert_eq!(before, file(&sources));
        let is_test = |path: &Path| path.starts_with(root.join("crates/netsim/tests"));
        let (_, text) = sources.iter_mut().find(|(path, _)| is_test(path)).unwrap();
        text.pop();
        assert_ne!(before, file(&sources));
    }

    #[test]
    fn shards_are_counted_from_one() {
        assert_eq!("2/3".parse(), Ok(Shard { part: 2, of: 3 }));
        for wrong in ["0/3", "4/3", "1", "a/b", "1/0"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn places_are_counted_in_characters() {
        let at = |line, column| Position { line, column }.in_bytes("a\nµ = 1\n");
        assert_eq!([at(1, 1), at(2, 1), at(2, 2), at(3, 1)], [Some(0), Some(2), Some(4), Some(9)]);
    }
}

//! `cargo xtask mutants`: changes the protocol's code at random with cargo-mutants, and sees whether a test
//! notices.
//!
//! Out of all mutants of the protocol's crates a seeded sample is drawn, so that two people speak of the same
//! ones. Each is tested by the tests of its own crate and, if these notice nothing, by those that simulate whole
//! networks. What came out is kept below cargo's target folder, and an interrupted run, or another shard, goes
//! on from there; it counts for as long as the list of all mutants stays what it is.

use crate::scratch::Scratch;
use crate::tools::{self, CARGO_MUTANTS};
use anyhow::{Context, Result, bail};
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::hash::{Hash as _, Hasher as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// The packages whose tests are asked when a mutant's own notice nothing: they run the whole protocol.
const LAST: &[&str] = &["umptcp-stack-core", "umptcp-netsim"];

/// Mutants per call of cargo-mutants: what is lost at most when a run is interrupted.
const AT_ONCE: usize = 5;

/// Seconds after which a test is taken not to end at all.
const PATIENCE: &str = "300";

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
}

/// The files in which cargo-mutants lists what came out.
const LISTS: &[(&str, Fate)] = &[
    ("caught.txt", Fate::Caught),
    ("missed.txt", Fate::Missed),
    ("timeout.txt", Fate::Timeout),
    ("unviable.txt", Fate::Unviable),
];

/// Tests the shard, or reports.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = tools::root()?;
    // Not among those that `cargo xtask tools` installs: few need it, and it takes minutes to build.
    CARGO_MUTANTS.install()?;
    let scratch = Scratch::make(root, "mutants")?;
    let all = list(&scratch)?;
    let sample = draw(&all, options.sample, options.seed);
    let mut results = Results::read(scratch.folder(), &all)?;
    if !options.report {
        let Shard { part, of } = options.shard;
        let mine: Vec<&String> = sample.iter().skip(part - 1).step_by(of).copied().collect();
        test(&scratch, &mine, &mut results)?;
    }
    report(&all, &sample, &results);
    Ok(())
}

/// Every mutant, by the name that cargo-mutants gives it.
fn list(scratch: &Scratch) -> Result<Vec<String>> {
    let mut command = mutants(scratch);
    command.args(["--list", "--colors", "never"]);
    for files in FILES {
        command.args(["--file", files]);
    }
    let output = command.output().context("cannot start cargo mutants")?;
    if !output.status.success() {
        bail!("cargo mutants --list failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8(output.stdout).context("the list is no text")?;
    let mut names: Vec<String> = text.lines().map(str::to_owned).collect();
    names.sort();
    Ok(names)
}

fn mutants(scratch: &Scratch) -> Command {
    let mut command = scratch.cargo();
    command.args(["mutants", "--workspace"]);
    command
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
    /// Those that belong to this list of mutants.
    fn read(folder: &Path, all: &[String]) -> Result<Results> {
        let mut hasher = DefaultHasher::new();
        all.hash(&mut hasher);
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

/// The file that a mutant changes.
fn file_of(name: &str) -> &str {
    name.split(':').next().unwrap_or(name)
}

/// Tests those of `names` of which nothing is known.
fn test(scratch: &Scratch, names: &[&String], results: &mut Results) -> Result<()> {
    let mut unknown: Vec<&String> =
        names.iter().copied().filter(|n| !results.fates.contains_key(*n)).collect();
    println!("mutants: {} to test, {} known", unknown.len(), names.len() - unknown.len());
    // Those of one file together: see `call`.
    unknown.sort();
    let mut sound = BTreeSet::new();
    let mut tested = 0;
    for chunk in unknown.chunk_by(|a, b| file_of(a) == file_of(b)).flat_map(|same| same.chunks(AT_ONCE)) {
        // Tests that fail with nothing changed would catch everything: each crate's are run once.
        let own = file_of(chunk[0]).split('/').nth(1).unwrap_or_default();
        let mut fates = call(scratch, chunk, &[], sound.insert(own))?;
        let missed: Vec<&String> =
            chunk.iter().copied().filter(|n| fates.get(*n) == Some(&Fate::Missed)).collect();
        if !missed.is_empty() {
            fates.extend(call(scratch, &missed, LAST, sound.insert("last"))?);
        }
        for name in chunk {
            let fate =
                *fates.get(*name).with_context(|| format!("cargo mutants says nothing about {name}"))?;
            println!("{fate:?}: {name}");
            results.add(name, fate)?;
        }
        tested += chunk.len();
        println!("mutants: {tested} of {} tested", unknown.len());
    }
    Ok(())
}

/// One call of cargo-mutants: the fates of `names`, which are of one file, by the tests of `packages`; none: by
/// those of their own. Of that file, because patterns do not hold back mutants that delete a field of a struct:
/// these are tested along.
fn call(
    scratch: &Scratch,
    names: &[&String],
    packages: &[&str],
    baseline: bool,
) -> Result<BTreeMap<String, Fate>> {
    let output = scratch.folder().join("output");
    if output.exists() {
        fs::remove_dir_all(&output)?;
    }
    fs::create_dir(&output)?;
    let mut command = mutants(scratch);
    command.arg("--in-place").arg("--output").arg(&output);
    command.args(["--no-shuffle", "--no-times", "--colors", "never", "--timeout", PATIENCE]);
    command.args(["--baseline", if baseline { "run" } else { "skip" }]);
    for package in packages {
        command.args(["--test-package", package]);
    }
    if let Some(name) = names.first() {
        command.args(["--file", file_of(name)]);
    }
    for name in names {
        command.args(["--re", &format!("^{}$", escape(name))]);
    }
    let done = command.output().context("cannot start cargo mutants")?;
    // 0: all caught, 2: some missed, 3: some timed out.
    if !matches!(done.status.code(), Some(0 | 2 | 3)) {
        let text = [done.stdout, done.stderr].concat();
        bail!("cargo mutants failed ({}):\n{}", done.status, String::from_utf8_lossy(&text));
    }
    let mut fates = BTreeMap::new();
    for (list, fate) in LISTS {
        let text = fs::read_to_string(output.join("mutants.out").join(list)).unwrap_or_default();
        fates.extend(text.lines().map(|name| (name.to_owned(), *fate)));
    }
    Ok(fates)
}

/// A regular expression for `text` itself.
fn escape(text: &str) -> String {
    // Not `<` and `>`, which have a meaning when escaped.
    let escaped = |c: char| if r"\.+*?()|[]{}^$#&-~".contains(c) { vec!['\\', c] } else { vec![c] };
    text.chars().flat_map(escaped).collect()
}

/// Says how many of the sample were caught, and which were not.
fn report(all: &[String], sample: &[&String], results: &Results) {
    let of = |fate| -> Vec<&str> {
        let fitting = sample.iter().filter(|n| results.fates.get(**n) == Some(&fate));
        fitting.map(|n| n.as_str()).collect()
    };
    let (caught, missed) = (of(Fate::Caught), of(Fate::Missed));
    let (timeouts, unviable) = (of(Fate::Timeout), of(Fate::Unviable));
    let tested = caught.len() + missed.len() + timeouts.len() + unviable.len();
    println!("mutants: {} in all, {} drawn, {tested} tested", all.len(), sample.len());
    println!(
        "caught {}, missed {}, timed out {}, did not compile {}",
        caught.len(),
        missed.len(),
        timeouts.len(),
        unviable.len()
    );
    let counted = caught.len() + missed.len();
    if counted > 0 {
        println!(
            "caught of those that compile and end: {:.1} %",
            100.0 * caught.len() as f64 / counted as f64
        );
    }
    for (what, names) in [("missed", missed), ("timed out", timeouts)] {
        for name in names {
            println!("{what}: {name}");
        }
    }
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
    fn shards_are_counted_from_one() {
        assert_eq!("2/3".parse(), Ok(Shard { part: 2, of: 3 }));
        for wrong in ["0/3", "4/3", "1", "a/b", "1/0"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_no_patterns() {
        assert_eq!(escape("a::b -> x + (1)"), r"a::b \-> x \+ \(1\)");
    }
}

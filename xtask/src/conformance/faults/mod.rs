//! `cargo xtask conformance --break`: whether the tests that a requirement cites notice when it is not met.
//!
//! For each requirement that is met, in whole or in part, the code is broken in a copy of the tree, and the cited
//! tests that need no privilege are run; many breaks are in one build ([`crate::schemata`]). A requirement may name
//! its breaks, each a piece of a cited function and what replaces it; then each of them must make a cited test fail.
//! For others the cited functions are emptied one by one, until a test fails; where none does, their conditions are
//! inverted, in a second build: most need no such thing, and each break makes the build larger.
//!
//! What came out is kept beside the copy, and counts for as long as neither the file that is broken nor the
//! file of the test has changed.

mod edits;
mod suite;

use super::table::{Requirement, State, Table};
use crate::schemata::{Edit, Ending, Fit, Program, Schemata, Test, side_by_side};
use crate::scratch::Scratch;
use anyhow::{Context, Result, bail};
use std::cell::RefCell;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::hash::{Hash as _, Hasher as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;
use suite::Cited;

/// The longest that a test may take with nothing broken, by the processor's clock.
const LONGEST: Duration = Duration::from_secs(600);

/// A requirement, how it can be broken, and what should notice.
struct Row<'a> {
    /// The RFC.
    number: u16,
    requirement: &'a Requirement,
    edits: Vec<Edit>,
    /// So many of the breaks, from the first, are tried before the others are built.
    first: usize,
    /// The requirement names its breaks: each of them must be noticed, not just any.
    all: bool,
    tests: Vec<Cited>,
}

/// The breaks that requirements name, as far as they can be found: errors, one line each.
pub(super) fn check(root: &Path, table: &Table) -> Vec<String> {
    let wrong = |r: &Requirement, e: anyhow::Error| format!("section {}, \"{}\": {e:#}", r.section, r.text);
    table.requirements.iter().filter_map(|r| named(root, table, r).err().map(|e| wrong(r, e))).collect()
}

/// The breaks that a requirement names.
fn named(root: &Path, table: &Table, r: &Requirement) -> Result<Vec<Edit>> {
    let find = |b: &super::table::Break| {
        let (file, item) = table.places.resolve(&b.at).map_err(anyhow::Error::msg)?;
        edits::named(file, &read(root, file)?, item, &b.from, &b.to)
    };
    r.breaks.iter().map(find).collect()
}

fn read(root: &Path, file: &str) -> Result<String> {
    fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {file}"))
}

/// What can be broken for a requirement, and the tests that should notice.
fn row<'a>(root: &Path, table: &'a Table, r: &'a Requirement) -> Result<Row<'a>> {
    let mut found = named(root, table, r)?;
    let mut first = found.len();
    let all = !found.is_empty();
    if !all {
        let mut inverted = Vec::new();
        for citation in &r.code {
            let (file, item) = table.places.resolve(citation).map_err(anyhow::Error::msg)?;
            let generated = edits::generated(file, &read(root, file)?, item)?;
            found.extend(generated.emptied);
            inverted.extend(generated.inverted);
        }
        first = found.len();
        found.extend(inverted);
    }
    let mut tests = Vec::new();
    for citation in &r.tests {
        let (file, name) = table.places.resolve(citation).map_err(anyhow::Error::msg)?;
        tests.extend(Cited::find(root, file, name)?);
    }
    Ok(Row { number: table.document.number, requirement: r, edits: found, first, all, tests })
}

impl Row<'_> {
    /// Why it cannot be tried at all.
    fn obstacle(&self) -> Option<&'static str> {
        if self.tests.is_empty() {
            return Some("no test that runs without privilege is cited");
        }
        self.edits.is_empty().then_some("nothing can be broken: no function is cited, and no break is named")
    }
}

/// What has come out so far: by break and test.
struct Results {
    file: PathBuf,
    known: BTreeMap<u64, Option<Ending>>,
    /// What the files of breaks and tests hash to.
    hashes: RefCell<BTreeMap<String, u64>>,
}

/// A line of the file of results; no ending: the break does not compile.
#[derive(serde::Serialize, serde::Deserialize)]
struct Line {
    key: u64,
    ending: Option<Ending>,
    what: String,
    test: String,
}

impl Results {
    fn read(file: PathBuf) -> Results {
        let text = fs::read_to_string(&file).unwrap_or_default();
        // The last line may be half written.
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        Results {
            file,
            known: lines.map(|line| (line.key, line.ending)).collect(),
            hashes: RefCell::default(),
        }
    }

    fn key(&self, root: &Path, edit: &Edit, test: &Cited) -> Result<u64> {
        let mut hasher = DefaultHasher::new();
        self.hash_of(root, &edit.file)?.hash(&mut hasher);
        (&edit.range, &edit.to, &test.file, &test.name).hash(&mut hasher);
        self.hash_of(root, &test.file)?.hash(&mut hasher);
        Ok(hasher.finish())
    }

    fn hash_of(&self, root: &Path, file: &str) -> Result<u64> {
        if let Some(hash) = self.hashes.borrow().get(file) {
            return Ok(*hash);
        }
        let mut hasher = DefaultHasher::new();
        read(root, file)?.hash(&mut hasher);
        let hash = hasher.finish();
        self.hashes.borrow_mut().insert(file.to_owned(), hash);
        Ok(hash)
    }

    fn get(&self, root: &Path, edit: &Edit, test: &Cited) -> Result<Option<Option<Ending>>> {
        Ok(self.known.get(&self.key(root, edit, test)?).copied())
    }

    /// Whether a test of `row` notices `edit`, as far as is known. `None`: nothing is decided yet.
    fn notice(&self, root: &Path, row: &Row<'_>, edit: &Edit) -> Result<Option<Notice>> {
        let mut all_known = true;
        for test in &row.tests {
            match self.get(root, edit, test)? {
                Some(None) => return Ok(Some(Notice::DoesNotCompile)),
                Some(Some(Ending::Failed | Ending::Hung)) => return Ok(Some(Notice::By(test.name.clone()))),
                Some(Some(Ending::Passed)) => {}
                None => all_known = false,
            }
        }
        Ok(all_known.then_some(Notice::Nothing))
    }

    fn add(&mut self, root: &Path, edit: &Edit, test: &Cited, ending: Option<Ending>) -> Result<()> {
        let key = self.key(root, edit, test)?;
        self.known.insert(key, ending);
        let line = Line { key, ending, what: edit.what.clone(), test: test.name.clone() };
        let mut file = OpenOptions::new().create(true).append(true).open(&self.file)?;
        writeln!(file, "{}", serde_json::to_string(&line)?)?;
        Ok(())
    }
}

/// Those of a requirement's breaks that are still to be tried: none, when what is `known` decides about it. `all`:
/// each of them must be noticed.
fn open(all: bool, edits: &[Edit], known: impl Fn(&Edit) -> Result<Option<Notice>>) -> Result<Vec<&Edit>> {
    let mut open = Vec::new();
    for edit in edits {
        match known(edit)? {
            None => open.push(edit),
            Some(Notice::By(_)) if !all => return Ok(Vec::new()),
            Some(Notice::Nothing | Notice::DoesNotCompile) if all => return Ok(Vec::new()),
            Some(_) => {}
        }
    }
    Ok(open)
}

/// Those of a requirement's `open` breaks that are built in a round: of its `first` ones alone, as long as one of these
/// is open.
fn of_round<'e>(round: Round, first: &[Edit], mut open: Vec<&'e Edit>) -> Vec<&'e Edit> {
    if round == Round::First && open.iter().any(|e| first.contains(e)) {
        open.retain(|e| first.contains(e));
    }
    open
}

/// Breaks everything in turn and says what nothing noticed. `only`: requirements of sections that begin so, or
/// whose text has it in it. `named`: only those that name their breaks.
///
/// # Errors
/// When a break went unnoticed, a requirement has nothing that could notice, or a test is not there.
pub(super) fn run(root: &Path, tables: &[Table], only: Option<&str>, named: bool) -> Result<()> {
    let met = |r: &&Requirement| matches!(r.state, State::Met | State::Partly);
    let wanted = |r: &&Requirement| {
        only.is_none_or(|o| r.section.starts_with(o) || r.text.contains(o)) && !(named && r.breaks.is_empty())
    };
    let of = |table| move |r| row(root, table, r);
    let rows: Vec<Row<'_>> = tables
        .iter()
        .flat_map(|table| table.requirements.iter().filter(met).filter(wanted).map(of(table)))
        .collect::<Result<_>>()?;
    let folder = Scratch::folder_of(root, "conformance");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut verdicts = BTreeMap::new();
    for round in [Round::First, Round::Last] {
        let undecided: Vec<usize> = (0..rows.len()).filter(|n| !verdicts.contains_key(n)).collect();
        let chosen: Vec<&Row<'_>> = undecided.iter().map(|n| &rows[*n]).collect();
        let bench = Bench::make(root, &chosen, Results::read(folder.join("results")), round)?;
        verdicts.extend(judge(&rows, &undecided, &bench, round)?);
    }
    report(&rows, &verdicts)
}

/// Breaks each of the requirements with these numbers, and says what came out, except for those that the next round
/// decides about.
fn judge(
    rows: &[Row<'_>],
    numbers: &[usize],
    bench: &Bench<'_>,
    round: Round,
) -> Result<BTreeMap<usize, Verdict>> {
    let verdicts = Mutex::new(BTreeMap::new());
    let look = |n: usize, alone: bool| {
        let (row, mut lines) = (&rows[n], Vec::new());
        let verdict = bench.look(row, alone, &mut lines)?;
        if verdict == Verdict::Later {
            return Ok(());
        }
        let r = row.requirement;
        println!("[{}/{}] RFC {}, {} {}", n + 1, rows.len(), row.number, r.section, r.text);
        lines.iter().for_each(|line| println!("    {line}"));
        if let Verdict::Unnoticed(why) = &verdict {
            println!("    {why}");
        }
        verdicts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(n, verdict);
        Ok(())
    };
    side_by_side(numbers, |_, n| look(*n, false))?;
    // What needs a build of its own, one after the other, when nothing else decides.
    for n in numbers.iter().filter(|_| round == Round::Last) {
        let done = verdicts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).contains_key(n);
        if !done {
            look(*n, true)?;
        }
    }
    Ok(verdicts.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// Says how many requirements of each RFC were tried and noticed, and which not.
///
/// # Errors
/// When there are such.
fn report(rows: &[Row<'_>], verdicts: &BTreeMap<usize, Verdict>) -> Result<()> {
    let mut counts: BTreeMap<u16, Count> = BTreeMap::new();
    let mut unnoticed = Vec::new();
    for (n, row) in rows.iter().enumerate() {
        let count = counts.entry(row.number).or_default();
        let why = match (row.obstacle(), verdicts.get(&n)) {
            (Some(why), _) => {
                count.not_triable += 1;
                why
            }
            (None, Some(Verdict::Noticed)) => {
                count.noticed += 1;
                continue;
            }
            (None, Some(Verdict::Unnoticed(why))) => {
                count.unnoticed += 1;
                why
            }
            (None, Some(Verdict::Later) | None) => {
                bail!("nothing is decided about \"{}\"", row.requirement.text)
            }
        };
        let r = row.requirement;
        unnoticed.push(format!("RFC {}, {} {}\n    {why}", row.number, r.section, r.text));
    }
    for (number, count) in &counts {
        println!("RFC {number}: {count}");
    }
    let all = counts.values().fold(Count::default(), |a, b| Count {
        noticed: a.noticed + b.noticed,
        unnoticed: a.unnoticed + b.unnoticed,
        not_triable: a.not_triable + b.not_triable,
    });
    println!("conformance: {all}");
    if !unnoticed.is_empty() {
        bail!("no cited test notices when these are not met:\n  {}", unnoticed.join("\n  "));
    }
    Ok(())
}

/// What came out for the requirements of an RFC.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Count {
    noticed: usize,
    unnoticed: usize,
    not_triable: usize,
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Count { noticed, unnoticed, not_triable } = self;
        write!(
            f,
            "{} requirements tried, {noticed} noticed, {unnoticed} not noticed; {not_triable} cannot be tried",
            noticed + unnoticed
        )
    }
}

/// Which breaks are built.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Round {
    /// The first ones of each requirement.
    First,
    /// What is left.
    Last,
}

/// What came out for a requirement.
#[derive(PartialEq, Eq, Debug)]
enum Verdict {
    Noticed,
    /// Why not.
    Unnoticed(String),
    /// It takes a build of its own, or the next round.
    Later,
}

enum Notice {
    /// This test failed.
    By(String),
    Nothing,
    DoesNotCompile,
    /// It takes a build of its own.
    Later,
}

/// All breaks in one build, as far as something is unknown, and what came out so far.
struct Bench<'a> {
    root: &'a Path,
    edits: Vec<Edit>,
    built: Option<(Schemata<'a>, Vec<Test>)>,
    results: Mutex<Results>,
}

impl<'a> Bench<'a> {
    fn make(root: &'a Path, rows: &[&Row<'_>], results: Results, round: Round) -> Result<Bench<'a>> {
        let mut edits: Vec<Edit> = Vec::new();
        for row in rows {
            let known = |edit: &Edit| results.notice(root, row, edit);
            for edit in of_round(round, &row.edits[..row.first], open(row.all, &row.edits, known)?) {
                if !edits.contains(edit) {
                    edits.push(edit.clone());
                }
            }
        }
        let mut bench = Bench { root, edits, built: None, results: Mutex::new(results) };
        if bench.edits.is_empty() {
            return Ok(bench);
        }
        let cited: BTreeSet<&Cited> = rows.iter().flat_map(|row| &row.tests).collect();
        let programs: BTreeSet<Program> = cited.iter().map(|t| t.program.clone()).collect();
        println!("{} ways to break something, {} tests", bench.edits.len(), cited.len());
        let mut built = Schemata::build(root, bench.edits.clone(), &programs)?;
        let tests = built.tests()?;
        let cited: Vec<Test> = cited.iter().map(|c| c.among(&tests).cloned()).collect::<Result<_>>()?;
        if let Some((test, _)) = built.run_unchanged(&cited, LONGEST)?.first() {
            bail!("{test} does not pass with nothing broken");
        }
        bench.built = Some((built, tests));
        Ok(bench)
    }

    fn results(&self) -> std::sync::MutexGuard<'_, Results> {
        self.results.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Breaks one requirement. `alone`: with builds for single breaks, where it takes them.
    fn look(&self, row: &Row<'_>, alone: bool, lines: &mut Vec<String>) -> Result<Verdict> {
        if let Some(why) = row.obstacle() {
            return Ok(Verdict::Unnoticed(why.to_owned()));
        }
        let (mut tried, mut later) = (0, false);
        // What is known comes first: where it decides, the others are not in the build.
        let mut edits = Vec::new();
        for edit in &row.edits {
            edits.push((self.results().notice(self.root, row, edit)?.is_none(), edit));
        }
        edits.sort_by_key(|(is_open, _)| *is_open);
        for (_, edit) in edits {
            match self.notice(row, edit, alone)? {
                Notice::By(name) => {
                    lines.push(format!("{}: {name} fails", edit.what));
                    if !row.all {
                        return Ok(Verdict::Noticed);
                    }
                }
                Notice::DoesNotCompile if row.all => {
                    return Ok(Verdict::Unnoticed(format!("does not compile: {}", edit.what)));
                }
                Notice::DoesNotCompile => {}
                Notice::Nothing if row.all => {
                    return Ok(Verdict::Unnoticed(format!("nothing fails: {}", edit.what)));
                }
                Notice::Nothing => tried += 1,
                Notice::Later => later = true,
            }
        }
        Ok(match (later, row.all) {
            (true, _) => Verdict::Later,
            (false, true) => Verdict::Noticed,
            (false, false) => Verdict::Unnoticed(format!("nothing fails in any of {tried} ways")),
        })
    }

    /// Whether a test of `row` notices `edit`.
    fn notice(&self, row: &Row<'_>, edit: &Edit, alone: bool) -> Result<Notice> {
        if let Some(known) = self.results().notice(self.root, row, edit)? {
            return Ok(known);
        }
        let mut unknown = Vec::new();
        for test in &row.tests {
            if self.results().get(self.root, edit, test)?.is_none() {
                unknown.push(test);
            }
        }
        // What is not in this build is in that of the next round.
        let Some(number) = self.edits.iter().position(|e| e == edit) else { return Ok(Notice::Later) };
        let (built, tests) = self.built.as_ref().context("something is unknown, and nothing was built")?;
        let of = |cited: &Cited| cited.among(tests);
        match built.fit(number) {
            Fit::DoesNotCompile => {
                for test in unknown {
                    self.results().add(self.root, edit, test, None)?;
                }
                return Ok(Notice::DoesNotCompile);
            }
            Fit::Alone if !alone => return Ok(Notice::Later),
            Fit::Alone => {
                let asked: Vec<&Test> = unknown.iter().map(|c| of(c)).collect::<Result<_>>()?;
                let endings = built.run_alone(number, &asked)?;
                let mut by = None;
                for (cited, test) in unknown.iter().zip(asked) {
                    let ending = match &endings {
                        None => None,
                        Some(endings) => match endings.get(test) {
                            Some(ending) => Some(*ending),
                            // It says nothing.
                            None => continue,
                        },
                    };
                    self.results().add(self.root, edit, cited, ending)?;
                    if ending.is_some_and(|e| e != Ending::Passed) {
                        by.get_or_insert_with(|| cited.name.clone());
                    }
                }
                return Ok(match (endings, by) {
                    (None, _) => Notice::DoesNotCompile,
                    (_, Some(name)) => Notice::By(name),
                    (_, None) => Notice::Nothing,
                });
            }
            Fit::Woven(_) => {}
        }
        let concerned = built.concerned(number);
        for cited in unknown {
            let test = of(cited)?;
            // Without entering the function it cannot notice.
            let ending =
                if concerned.contains(&test) { built.run(number, test)? } else { Some(Ending::Passed) };
            let Some(ending) = ending else {
                println!("it fails with nothing broken, too: {test}");
                continue;
            };
            self.results().add(self.root, edit, cited, Some(ending))?;
            if ending != Ending::Passed {
                return Ok(Notice::By(cited.name.clone()));
            }
        }
        Ok(Notice::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_inverted_when_nothing_was_noticed_of_what_was_emptied() {
        let edits = ["a", "b", "c", "d"].map(|what| Edit {
            file: String::new(),
            range: 0..0,
            from: String::new(),
            to: String::new(),
            what: what.to_owned(),
        });
        let built = |round, open: &[usize]| -> String {
            let open = open.iter().map(|n| &edits[*n]).collect();
            of_round(round, &edits[..2], open).into_iter().map(|e| e.what.clone()).collect()
        };
        assert_eq!(built(Round::First, &[0, 1, 2, 3]), "ab");
        assert_eq!(built(Round::First, &[1, 3]), "b");
        assert_eq!(built(Round::First, &[2, 3]), "cd");
        assert_eq!(built(Round::Last, &[1, 3]), "bd");
    }

    #[test]
    fn the_figures_add_up() {
        let count = Count { noticed: 5, unnoticed: 2, not_triable: 1 };
        let text = "7 requirements tried, 5 noticed, 2 not noticed; 1 cannot be tried";
        assert_eq!(count.to_string(), text);
    }

    #[test]
    fn a_break_is_tried_only_where_it_can_still_decide() {
        let edit = |what: &str| Edit {
            file: String::new(),
            range: 0..0,
            from: String::new(),
            to: String::new(),
            what: what.to_owned(),
        };
        let open = |all: bool, names: &[&str]| -> Vec<String> {
            let edits: Vec<Edit> = names.iter().map(|n| edit(n)).collect();
            let known = |edit: &Edit| {
                Ok(match edit.what.as_str() {
                    "noticed" => Some(Notice::By(String::new())),
                    "unnoticed" => Some(Notice::Nothing),
                    "no code" => Some(Notice::DoesNotCompile),
                    _ => None,
                })
            };
            open(all, &edits, known).unwrap().into_iter().map(|e| e.what.clone()).collect()
        };
        // Any break that is noticed will do.
        assert_eq!(open(false, &["a", "unnoticed", "no code", "b"]), ["a", "b"]);
        assert_eq!(open(false, &["a", "noticed"]), [""; 0]);
        // Each break must be noticed.
        assert_eq!(open(true, &["noticed", "a"]), ["a"]);
        assert_eq!(open(true, &["a", "unnoticed"]), [""; 0]);
        assert_eq!(open(true, &["a", "no code"]), [""; 0]);
    }
}

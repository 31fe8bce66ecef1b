//! `cargo xtask conformance --break`: whether the tests that a requirement cites notice when it is not met.
//!
//! For each requirement that is met, in whole or in part, the code is broken in a copy of the tree, and the cited
//! tests that need no privilege are run. A requirement may name its breaks, each a piece of a cited function and
//! what replaces it; then each of them must make a cited test fail. For others the cited functions are emptied
//! and their conditions inverted one by one, until a test fails.
//!
//! What came out is kept beside the copy, and counts for as long as neither the file that is broken nor the
//! file of the test has changed.

mod edits;
mod suite;

use super::table::{Requirement, State, Table};
use anyhow::{Context, Result, bail};
use edits::Edit;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::hash::{Hash as _, Hasher as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use suite::{Copy, Ending, Test};

/// A requirement, how it can be broken, and what should notice.
struct Row<'a> {
    requirement: &'a Requirement,
    edits: Vec<Edit>,
    /// The requirement names its breaks: each of them must be noticed, not just any.
    all: bool,
    tests: Vec<Test>,
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
    let all = !found.is_empty();
    if !all {
        for citation in &r.code {
            let (file, item) = table.places.resolve(citation).map_err(anyhow::Error::msg)?;
            found.extend(edits::generated(file, &read(root, file)?, item)?);
        }
    }
    let mut tests = Vec::new();
    for citation in &r.tests {
        let (file, name) = table.places.resolve(citation).map_err(anyhow::Error::msg)?;
        tests.extend(Test::find(root, file, name)?);
    }
    Ok(Row { requirement: r, edits: found, all, tests })
}

/// What has come out so far: by break and test.
struct Results {
    file: PathBuf,
    known: BTreeMap<u64, Option<Ending>>,
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
        Results { file, known: lines.map(|line| (line.key, line.ending)).collect() }
    }

    fn key(root: &Path, edit: &Edit, test: &Test) -> Result<u64> {
        let mut hasher = DefaultHasher::new();
        read(root, &edit.file)?.hash(&mut hasher);
        (&edit.range, &edit.to, &test.file, &test.name).hash(&mut hasher);
        read(root, &test.file)?.hash(&mut hasher);
        Ok(hasher.finish())
    }

    fn get(&self, root: &Path, edit: &Edit, test: &Test) -> Result<Option<Option<Ending>>> {
        Ok(self.known.get(&Results::key(root, edit, test)?).copied())
    }

    fn add(&mut self, root: &Path, edit: &Edit, test: &Test, ending: Option<Ending>) -> Result<()> {
        let key = Results::key(root, edit, test)?;
        self.known.insert(key, ending);
        let line = Line { key, ending, what: edit.what.clone(), test: test.name.clone() };
        let mut file = OpenOptions::new().create(true).append(true).open(&self.file)?;
        writeln!(file, "{}", serde_json::to_string(&line)?)?;
        Ok(())
    }
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
    let copy = Copy::make(root)?;
    let mut results = Results::read(copy.scratch().folder().join("results"));
    whole(root, &copy, &rows)?;
    let mut unnoticed = Vec::new();
    for (n, row) in rows.iter().enumerate() {
        let r = row.requirement;
        let head = format!("[{}/{}] {} {}", n + 1, rows.len(), r.section, r.text);
        println!("{head}");
        if let Some(why) = look(root, &copy, &rows, row, &mut results)? {
            println!("    {why}");
            unnoticed.push(format!("{} {}\n    {why}", r.section, r.text));
        }
    }
    println!("conformance: {} of {} requirements are noticed", rows.len() - unnoticed.len(), rows.len());
    if !unnoticed.is_empty() {
        bail!("nothing notices when these are broken:\n  {}", unnoticed.join("\n  "));
    }
    Ok(())
}

/// Runs every test once with nothing broken: one that fails then says nothing about what is.
fn whole(root: &Path, copy: &Copy, rows: &[Row<'_>]) -> Result<()> {
    let tests: BTreeSet<&Test> = rows.iter().flat_map(|row| &row.tests).collect();
    // An interrupted run may have left something broken.
    for file in rows.iter().flat_map(|row| &row.edits).map(|e| e.file.as_str()).collect::<BTreeSet<_>>() {
        copy.scratch().restore(root, file)?;
    }
    for (program, tests) in by_program(tests.into_iter()) {
        println!("{} tests with nothing broken: {program}", tests.len());
        let endings = copy.run(program, &tests)?.context("the tests do not compile")?;
        if let Some((test, _)) = endings.iter().find(|(_, ending)| **ending != Ending::Passed) {
            bail!("{} does not pass with nothing broken", test.name);
        }
    }
    Ok(())
}

fn by_program<'a>(tests: impl Iterator<Item = &'a Test>) -> BTreeMap<&'a suite::Program, Vec<&'a Test>> {
    let mut programs: BTreeMap<&suite::Program, Vec<&Test>> = BTreeMap::new();
    for test in tests {
        programs.entry(&test.program).or_default().push(test);
    }
    programs
}

/// Breaks one requirement. What is wrong with it, if anything.
fn look(
    root: &Path,
    copy: &Copy,
    rows: &[Row<'_>],
    row: &Row<'_>,
    results: &mut Results,
) -> Result<Option<String>> {
    if row.tests.is_empty() {
        return Ok(Some("no test that runs without privilege is cited".to_owned()));
    }
    if row.edits.is_empty() {
        return Ok(Some("nothing can be broken: no function is cited, and no break is named".to_owned()));
    }
    let mut tried = 0;
    for edit in &row.edits {
        match notice(root, copy, rows, row, edit, results)? {
            Notice::By(name) => {
                println!("    {}: {name} fails", edit.what);
                if !row.all {
                    return Ok(None);
                }
            }
            Notice::DoesNotCompile if row.all => {
                return Ok(Some(format!("does not compile: {}", edit.what)));
            }
            Notice::DoesNotCompile => {}
            Notice::Nothing if row.all => return Ok(Some(format!("nothing fails: {}", edit.what))),
            Notice::Nothing => tried += 1,
        }
    }
    Ok((!row.all).then(|| format!("nothing fails in any of {tried} ways")))
}

enum Notice {
    /// This test failed.
    By(String),
    Nothing,
    DoesNotCompile,
}

/// Whether a test of `row` notices `edit`. Tests of other rows that break the same are run along, since the
/// build takes longest.
fn notice(
    root: &Path,
    copy: &Copy,
    rows: &[Row<'_>],
    row: &Row<'_>,
    edit: &Edit,
    results: &mut Results,
) -> Result<Notice> {
    let mut unknown = Vec::new();
    for test in &row.tests {
        match results.get(root, edit, test)? {
            Some(None) => return Ok(Notice::DoesNotCompile),
            Some(Some(Ending::Passed)) => {}
            Some(Some(Ending::Failed | Ending::Hung)) => return Ok(Notice::By(test.name.clone())),
            None => unknown.push(test),
        }
    }
    if unknown.is_empty() {
        return Ok(Notice::Nothing);
    }
    copy.scratch().write(&edit.file, &edit.apply(&read(root, &edit.file)?)?)?;
    let found = notice_by(root, copy, rows, edit, &unknown, results);
    copy.scratch().restore(root, &edit.file)?;
    found
}

fn notice_by(
    root: &Path,
    copy: &Copy,
    rows: &[Row<'_>],
    edit: &Edit,
    unknown: &[&Test],
    results: &mut Results,
) -> Result<Notice> {
    for (program, tests) in by_program(unknown.iter().copied()) {
        let others = rows.iter().filter(|r| r.edits.contains(edit)).flat_map(|r| &r.tests);
        let along: BTreeSet<&Test> = others.filter(|t| &t.program == program).chain(tests.clone()).collect();
        let along: Vec<&Test> = along.into_iter().collect();
        let Some(endings) = copy.run(program, &along)? else {
            for test in tests {
                results.add(root, edit, test, None)?;
            }
            return Ok(Notice::DoesNotCompile);
        };
        for (test, ending) in &endings {
            results.add(root, edit, test, Some(*ending))?;
        }
        if let Some(test) = tests.iter().find(|t| endings.get(t).is_some_and(|e| *e != Ending::Passed)) {
            return Ok(Notice::By(test.name.clone()));
        }
    }
    Ok(Notice::Nothing)
}

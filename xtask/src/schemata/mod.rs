//! Many changes of the code, each to be tested alone, in one build: mutant schemata (Untch, Offutt and Harrold, 1993).
//!
//! To build takes far longer than to run the tests that a change can concern. So a changed function gets all its
//! changed bodies beside its own, and an environment variable says, when a test starts, which of them is in force:
//! none, or one. The changes for which the compiler finds an error are left out, and what is left is built again.
//! Each test is run once with nothing changed, and writes down which changed functions it enters: only these tests
//! can notice.
//!
//! What stands in no function cannot be chosen at run time, nor in a `const fn`, nor in one that returns `impl Trait`,
//! whose type it would change. Such a change [stands alone](Fit::Alone) and needs a build of its own.

mod edit;
mod programs;
mod weave;

pub(crate) use edit::Edit;
pub(crate) use programs::{Ending, Program, Test};

use crate::scratch::Scratch;
use anyhow::{Context, Result, bail};
use programs::{Built, CompilerError};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How a change can be tested.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fit {
    /// With the others, in the same build; it is in this function, counted through all files.
    Woven(usize),
    /// Only in a build of its own.
    Alone,
    /// Not at all.
    DoesNotCompile,
}

/// The copy of the tree with the changes in it, built.
pub(crate) struct Schemata<'a> {
    root: &'a Path,
    scratch: Scratch,
    edits: Vec<Edit>,
    fits: Vec<Fit>,
    built: Built,
    /// Which tests enter which changed functions, with the time that each took.
    entered: BTreeMap<Test, Entered>,
}

/// What a test did with nothing changed.
struct Entered {
    time: Duration,
    functions: BTreeSet<usize>,
}

/// The longest that a test may take by the processor's clock, in seconds: this, and
const PATIENCE: u64 = 5;
/// so many times what it took with nothing changed.
const TIMES: u32 = 10;

impl<'a> Schemata<'a> {
    /// The copy of `root` with all of `edits`, and `programs` built.
    ///
    /// # Errors
    /// When it does not compile whatever is left out, or another run has the copy.
    pub(crate) fn build(
        root: &'a Path,
        edits: Vec<Edit>,
        programs: &BTreeSet<Program>,
    ) -> Result<Schemata<'a>> {
        let scratch = Scratch::take(root, "broken")?;
        let mut fits = vec![Fit::Woven(0); edits.len()];
        loop {
            let woven = weave(root, &edits, &mut fits)?;
            let texts = woven.iter().map(|(file, w)| (file.clone(), w.text.clone())).collect();
            scratch.fill(root, &texts)?;
            match programs::build(&scratch, programs)? {
                Ok(mut built) => {
                    // For what stands alone there will be other builds.
                    built.keep(&scratch.folder().join("programs"))?;
                    let entered = BTreeMap::new();
                    return Ok(Schemata { root, scratch, edits, fits, built, entered });
                }
                Err(errors) => {
                    let blamed = blamed(&errors, &woven);
                    for number in &blamed {
                        fits[*number] = Fit::DoesNotCompile;
                    }
                    if blamed.is_empty() {
                        let first = errors.first().map_or("", |e| &e.text);
                        bail!("the tests do not compile:\n{first}");
                    }
                    let out = fits.iter().filter(|f| **f == Fit::DoesNotCompile).count();
                    println!("{out} of {} changes do not compile", edits.len());
                }
            }
        }
    }

    /// How a change can be tested.
    pub(crate) fn fit(&self, edit: usize) -> Fit {
        self.fits[edit]
    }

    /// Every test that was built.
    pub(crate) fn tests(&self) -> Result<Vec<Test>> {
        self.built.tests()
    }

    /// Runs tests with nothing changed, each with so much of the processor's time. Those that do not pass then say
    /// nothing about what is changed.
    pub(crate) fn run_unchanged(
        &mut self,
        tests: &[Test],
        patience: Duration,
    ) -> Result<Vec<(Test, Ending)>> {
        let failed = Mutex::new(Vec::new());
        let entered = Mutex::new(BTreeMap::new());
        let built = &self.built;
        side_by_side(tests, |worker, test| {
            let log = self.scratch.folder().join(format!("entered-{worker}"));
            let (ending, time) = built.run(test, None, Some(&log), patience)?;
            if ending == Ending::Passed {
                let text = fs::read_to_string(&log).unwrap_or_default();
                let functions = text.lines().filter_map(|line| line.parse().ok()).collect();
                lock(&entered).insert(test.clone(), Entered { time, functions });
            } else {
                lock(&failed).push((test.clone(), ending));
            }
            Ok(())
        })?;
        self.entered.extend(take(entered));
        Ok(take(failed))
    }

    /// Those of the tests that passed unchanged which a change can concern, the fastest first.
    pub(crate) fn concerned(&self, edit: usize) -> Vec<&Test> {
        let Fit::Woven(function) = self.fits[edit] else { return Vec::new() };
        let mut found: Vec<(&Test, Duration)> = self
            .entered
            .iter()
            .filter(|(_, e)| e.functions.contains(&function))
            .map(|(test, e)| (test, e.time))
            .collect();
        found.sort_by_key(|(_, time)| *time);
        found.into_iter().map(|(test, _)| test).collect()
    }

    /// Runs `test` with the change in force, which is woven in. `None`: it says nothing, because it now fails with
    /// nothing changed, too.
    pub(crate) fn run(&self, edit: usize, test: &Test) -> Result<Option<Ending>> {
        let ending = self.built.run(test, Some(edit), None, self.patience(test))?.0;
        self.confirmed(test, ending)
    }

    /// How long a test may take.
    fn patience(&self, test: &Test) -> Duration {
        let before = self.entered.get(test).map_or(Duration::ZERO, |e| e.time);
        Duration::from_secs(PATIENCE) + before * TIMES
    }

    /// How a test ended with a change, or `None`: it failed, and does so with nothing changed as well.
    fn confirmed(&self, test: &Test, ending: Ending) -> Result<Option<Ending>> {
        if ending != Ending::Failed {
            return Ok(Some(ending));
        }
        let unchanged = self.built.run(test, None, None, self.patience(test))?.0;
        Ok((unchanged == Ending::Passed).then_some(ending))
    }

    /// Builds with this change alone, and runs the tests; those that fail with nothing changed, too, are left out.
    /// `None`: it does not compile.
    pub(crate) fn run_alone(&self, edit: usize, tests: &[&Test]) -> Result<Option<BTreeMap<Test, Ending>>> {
        let edit = &self.edits[edit];
        let path = self.scratch.tree().join(&edit.file);
        let woven = fs::read_to_string(&path)?;
        let mut text = edit.apply(&fs::read_to_string(self.root.join(&edit.file))?)?;
        if let Some(at) = woven.find(weave::CHOOSER) {
            text += &woven[at..];
        }
        self.scratch.write(&edit.file, &text)?;
        let programs = tests.iter().map(|t| t.program.clone()).collect();
        let built = programs::build(&self.scratch, &programs);
        let endings = match built {
            Ok(Ok(built)) => {
                let run = |test: &&Test| {
                    let ending = built.run(test, None, None, self.patience(test))?.0;
                    Ok(self.confirmed(test, ending)?.map(|ending| ((*test).clone(), ending)))
                };
                tests.iter().filter_map(|test| run(test).transpose()).collect::<Result<_>>().map(Some)
            }
            Ok(Err(_)) => Ok(None),
            Err(e) => Err(e),
        };
        self.scratch.write(&edit.file, &woven)?;
        endings
    }
}

/// The changes that errors of the compiler are in. What an error speaks of besides is often the unchanged
/// neighbourhood, or another change: it counts only when no error is in any.
fn blamed(errors: &[CompilerError], woven: &BTreeMap<String, weave::Woven>) -> BTreeSet<usize> {
    let at = |spans: &Vec<(String, Range<usize>)>| -> Vec<usize> {
        spans.iter().filter_map(|(file, range)| woven.get(file)?.edit_at(range)).collect()
    };
    let primary: BTreeSet<usize> = errors.iter().flat_map(|e| at(&e.primary)).collect();
    if primary.is_empty() { errors.iter().flat_map(|e| at(&e.others)).collect() } else { primary }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn take<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Does `work` for each of `items`, on as many threads as there are processors. Stops at the first error.
///
/// # Errors
/// The first.
pub(crate) fn side_by_side<T: Sync>(
    items: &[T],
    work: impl Fn(usize, &T) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let failure = Mutex::new(None);
    std::thread::scope(|scope| {
        for worker in 0..threads {
            let (next, failure, work) = (&next, &failure, &work);
            scope.spawn(move || {
                while lock(failure).is_none() {
                    let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                    if let Err(error) = work(worker, item) {
                        *lock(failure) = Some(error);
                    }
                }
            });
        }
    });
    take(failure).map_or(Ok(()), Err)
}

/// The changed files, with all that is known to compile in them, and in each crate what chooses.
fn weave(root: &Path, edits: &[Edit], fits: &mut [Fit]) -> Result<BTreeMap<String, weave::Woven>> {
    let mut by_file: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (number, edit) in edits.iter().enumerate() {
        by_file.entry(&edit.file).or_default().push(number);
    }
    let read =
        |file: &str| fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {file}"));
    let mut woven = BTreeMap::new();
    let mut functions = 0;
    for (file, numbers) in &by_file {
        let chosen: Vec<(usize, &Edit)> =
            numbers.iter().filter(|n| matches!(fits[**n], Fit::Woven(_))).map(|n| (*n, &edits[*n])).collect();
        let result = weave::weave(&read(file)?, &chosen, &mut functions)?;
        for (number, fit) in &result.fits {
            fits[*number] = *fit;
        }
        woven.insert((*file).to_owned(), result);
    }
    let crates: BTreeSet<PathBuf> = by_file.keys().filter_map(|file| library_of(file)).collect();
    for library in crates {
        let name = library.to_str().context("a name of a file is no text")?.to_owned();
        let entry = match woven.remove(&name) {
            Some(w) => w,
            None => weave::Woven::unchanged(read(&name)?),
        };
        woven.insert(name, entry.with_chooser(functions));
    }
    Ok(woven)
}

/// The root module of the library that a file belongs to.
fn library_of(file: &str) -> Option<PathBuf> {
    let mut parts = file.split('/');
    let (folder, name) = (parts.next()?, parts.next()?);
    Some([folder, name, "src", "lib.rs"].iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_error_speaks_of_besides_counts_when_it_is_in_no_change() {
        let text = "fn f() -> u8 { 1 }\nfn g() -> u8 { 2 }\n";
        let edit = |from: &str, to: &str| {
            let start = text.find(from).unwrap();
            let range = start..start + from.len();
            let (file, from, to) = ("x.rs".to_owned(), from.to_owned(), to.to_owned());
            Edit { file, range, from, to, what: String::new() }
        };
        let edits = [edit("1", "300"), edit("2", "400")];
        let numbered: Vec<(usize, &Edit)> = edits.iter().enumerate().collect();
        let woven = weave::weave(text, &numbered, &mut 0).unwrap();
        let place = |what: &str| {
            let start = woven.text.find(what).unwrap();
            ("x.rs".to_owned(), start..start + what.len())
        };
        let error = |primary: &[&str], others: &[&str]| CompilerError {
            text: String::new(),
            primary: primary.iter().map(|p| place(p)).collect(),
            others: others.iter().map(|p| place(p)).collect(),
        };
        let (both, elsewhere) = (error(&["300"], &["400"]), error(&["fn g"], &["400"]));
        let woven = BTreeMap::from([("x.rs".to_owned(), woven)]);
        let only_elsewhere = blamed(std::slice::from_ref(&elsewhere), &woven);
        assert_eq!(only_elsewhere, BTreeSet::from([1]));
        assert_eq!(blamed(&[both, elsewhere], &woven), BTreeSet::from([0]));
    }
}

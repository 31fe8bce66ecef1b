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
use programs::Built;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
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
const TIMES: u64 = 10;

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
                Ok(built) => {
                    let entered = BTreeMap::new();
                    return Ok(Schemata { root, scratch, edits, fits, built, entered });
                }
                Err(errors) => {
                    let mut found = false;
                    for error in &errors {
                        let spans =
                            error.spans.iter().filter_map(|(file, range)| Some((woven.get(file)?, range)));
                        for number in spans.filter_map(|(w, range)| w.edit_at(range)) {
                            found = true;
                            fits[number] = Fit::DoesNotCompile;
                        }
                    }
                    if !found {
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

    /// Runs tests with nothing changed; those that fail then say nothing about what is.
    pub(crate) fn run_unchanged(&mut self, tests: &[Test]) -> Result<Vec<Test>> {
        let failed = Mutex::new(Vec::new());
        let entered = Mutex::new(BTreeMap::new());
        let built = &self.built;
        side_by_side(tests, |worker, test| {
            let log = self.scratch.folder().join(format!("entered-{worker}"));
            let (ending, time) = built.run(test, None, Some(&log), Duration::from_secs(600))?;
            if ending == Ending::Passed {
                let text = fs::read_to_string(&log).unwrap_or_default();
                let functions = text.lines().filter_map(|line| line.parse().ok()).collect();
                lock(&entered).insert(test.clone(), Entered { time, functions });
            } else {
                lock(&failed).push(test.clone());
            }
            Ok(())
        })?;
        self.entered.extend(take(entered));
        Ok(take(failed))
    }

    /// Those of the tests that ran unchanged which a change can concern, and that took no longer than `longest`, the
    /// fastest first.
    pub(crate) fn concerned(&self, edit: usize, longest: Duration) -> Vec<&Test> {
        let Fit::Woven(function) = self.fits[edit] else { return Vec::new() };
        let mut found: Vec<(&Test, Duration)> = self
            .entered
            .iter()
            .filter(|(_, e)| e.time <= longest && e.functions.contains(&function))
            .map(|(test, e)| (test, e.time))
            .collect();
        found.sort_by_key(|(_, time)| *time);
        found.into_iter().map(|(test, _)| test).collect()
    }

    /// Runs `test` with the change in force, which is woven in.
    pub(crate) fn run(&self, edit: usize, test: &Test) -> Result<Ending> {
        let before = self.entered.get(test).map_or(Duration::ZERO, |e| e.time);
        let patience = Duration::from_secs(PATIENCE + TIMES * before.as_secs());
        Ok(self.built.run(test, Some(edit), None, patience)?.0)
    }

    /// Builds with this change alone, and runs the tests. `None`: it does not compile.
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
                    let ending = built.run(test, None, None, Duration::from_secs(PATIENCE * TIMES))?.0;
                    Ok(((*test).clone(), ending))
                };
                tests.iter().map(run).collect::<Result<_>>().map(Some)
            }
            Ok(Err(_)) => Ok(None),
            Err(e) => Err(e),
        };
        self.scratch.write(&edit.file, &woven)?;
        endings
    }
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

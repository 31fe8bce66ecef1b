//! `cargo xtask digest`: whether a change alters a packet.

mod scenarios;
mod store;

use crate::tools;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::time::Instant;
use umptcp_testkit::simulation::cases::{self, Case, Outcome};

/// Cases that are named when they differ.
const NAMED: usize = 10;

/// Options of `cargo xtask digest`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Write the digests to tests/digest.txt instead of comparing with it.
    #[arg(long)]
    record: bool,
    /// Only cases with this in their name.
    #[arg(long)]
    only: Option<String>,
    /// Cases at a time; by default as many as there are processors.
    #[arg(long)]
    threads: Option<usize>,
    /// Print each case's line, as the file has it.
    #[arg(long)]
    verbose: bool,
}

/// Records every case and compares with what is stored.
pub(crate) fn run(options: &Options) -> Result<()> {
    if cfg!(debug_assertions) {
        return run_optimised(options);
    }
    let root = tools::root()?;
    let wanted = |name: &str| options.only.as_deref().is_none_or(|only| name.contains(only));
    let mut all = scenarios::cases(&root.join("scenarios"))?;
    all.extend(cases::middleboxes());
    all.extend(cases::properties());
    all.extend(cases::fuzzing(&root.join("fuzz/seeds")).context("cannot read the inputs in fuzz/seeds")?);
    all.retain(|case| wanted(&case.name));
    if all.is_empty() {
        bail!("no case has {:?} in its name", options.only);
    }
    let start = Instant::now();
    let outcomes = record_all(&all, options.threads);
    summarise(&outcomes, start.elapsed().as_secs_f64());
    if options.verbose {
        outcomes.iter().for_each(|(name, outcome)| println!("{}", store::line(name, &outcome.summary)));
    }
    let found = outcomes.into_iter().map(|(name, outcome)| (name, outcome.summary)).collect();
    let file = root.join("tests/digest.txt");
    if options.record {
        return store::write(&file, found, wanted);
    }
    let mut stored = store::read(&file)?;
    stored.retain(|name, _| wanted(name));
    compare(&stored, &found)
}

/// Runs this command in a release build.
fn run_optimised(options: &Options) -> Result<()> {
    let mut again = tools::optimised("digest");
    if options.record {
        again.arg("--record");
    }
    if options.verbose {
        again.arg("--verbose");
    }
    if let Some(only) = &options.only {
        again.args(["--only", only]);
    }
    if let Some(threads) = options.threads {
        again.args(["--threads", &threads.to_string()]);
    }
    tools::run(&mut again, "the digest")
}

/// Runs all cases on several threads.
fn record_all(cases: &[Case], threads: Option<usize>) -> BTreeMap<String, Outcome> {
    let outcomes = Mutex::new(BTreeMap::new());
    // A part that panics is counted and recorded as such; what it says is for the test that it is the body
    // of.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    tools::in_parallel(cases.len(), threads, |index| {
        let case = &cases[index];
        let outcome = case.run();
        if let Ok(mut outcomes) = outcomes.lock() {
            outcomes.insert(case.name.clone(), outcome);
            progress(outcomes.len(), cases.len());
        }
    });
    std::panic::set_hook(hook);
    outcomes.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn progress(done: usize, of: usize) {
    let mut output = std::io::stderr();
    if output.is_terminal() {
        let end = if done == of { "\n" } else { "" };
        let _ = write!(output, "\r{done} of {of} cases{end}");
    }
}

fn summarise(outcomes: &BTreeMap<String, Outcome>, seconds: f64) {
    let sum = |of: fn(&Outcome) -> u64| outcomes.values().map(of).sum::<u64>();
    println!(
        "digest: {} cases, {} packets, {} events and observations in {seconds:.0} s",
        outcomes.len(),
        sum(|o| o.summary.packets),
        sum(|o| o.summary.events)
    );
    // They are compared like all others: whether they are faults of the stack is for its tests to say.
    let faults: Vec<_> =
        outcomes.iter().flat_map(|(name, o)| o.faults.iter().map(move |f| (name, f))).collect();
    for (name, fault) in faults.iter().take(NAMED) {
        println!("  {name}: {}", fault.lines().next().unwrap_or_default());
    }
    if faults.len() > NAMED {
        println!("  and {} more that ended with an error or a panic", faults.len() - NAMED);
    }
}

/// Fails when anything differs.
fn compare(stored: &store::Digests, found: &store::Digests) -> Result<()> {
    let differences = store::differences(stored, found);
    if differences.is_empty() {
        println!("digest: every packet and event is as stored");
        return Ok(());
    }
    for difference in differences.iter().take(NAMED) {
        println!("  {difference}");
    }
    if differences.len() > NAMED {
        println!("  and {} more", differences.len() - NAMED);
    }
    bail!(
        "{} cases differ from tests/digest.txt: a refactoring changes no packet. \
         After a change that is meant to, write it anew with `cargo xtask digest --record`",
        differences.len()
    );
}

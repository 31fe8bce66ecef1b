//! `cargo xtask figures`: the book's chapter that compares congestion control with what was published.

use crate::tools;
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The scenarios of the chapter, in its order.
const SCENARIOS: [&str; 6] =
    ["olia-a", "olia-c", "shared-bottleneck", "triangle", "wireless", "responsiveness"];

/// Options of `cargo xtask figures`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Seeds 1 to N in the place of the scenarios'; fewer make a quicker, less certain chapter.
    #[arg(long)]
    seeds: Option<u64>,
    /// Run this program instead of building it.
    #[arg(long)]
    program: Option<PathBuf>,
}

/// Runs all shipped scenarios in full and writes the chapter with its figures.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = tools::root()?;
    let program = match &options.program {
        Some(program) => program.clone(),
        None => tools::build_program(true)?,
    };
    let source = root.join("docs/src");
    let chapter = source.join("congestion-control.md");
    // Figures that are no longer made do not stay behind.
    let folder = source.join("congestion-control");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    let scenario = |name: &&str| -> PathBuf { root.join("scenarios").join(format!("{name}.toml")) };
    let mut sim = Command::new(program);
    sim.arg("sim").args(SCENARIOS.iter().map(scenario)).arg("--markdown").arg(&chapter);
    if let Some(seeds) = options.seeds {
        sim.args(["--seeds", &seeds.to_string()]);
    }
    tools::run(&mut sim, "umptcp sim")?;
    let sections =
        fs::read_to_string(&chapter).with_context(|| format!("cannot read {}", chapter.display()))?;
    fs::write(&chapter, format!("{INTRODUCTION}\n{}\n", sections.trim_end()))
        .with_context(|| format!("cannot write {}", chapter.display()))?;
    println!("figures: {} is made anew", chapter.display());
    Ok(())
}

const INTRODUCTION: &str = "\
# Congestion control compared

This chapter is made by `cargo xtask figures` from the scenarios in `scenarios/`, which [the simulator](simulator.md) runs with the stack of
this repository. It shows what LIA (RFC 6356), OLIA, BALIA and others do where results were published, beside those results.

A result agrees when its mean is within 15 % of the published measurement, or between that and what the paper's own fluid model
predicts. In the figures a bar is the range that agrees, a line the published value, a dot our mean with its confidence interval.

*Goodput* is what the receiving applications get. *Throughput* is the same with the headers of full packets: an MPTCP packet of 1500 bytes has 1420 bytes
of data, one of TCP 1448. The published values of all users of a link add up to the link's rate and so count headers; they are
compared with throughput.
";

/// `cargo xtask own-algorithm`: somebody else's crate with an algorithm, a scheduler and a path policy of its own
/// builds, passes its tests and runs.
pub(crate) fn own_algorithm() -> Result<()> {
    let root = tools::root()?;
    let folder = root.join("examples/own-algorithm");
    let mut tests = tools::cargo();
    tests.args(["test", "--quiet", "--manifest-path"]).arg(folder.join("Cargo.toml"));
    tests.arg("--target-dir").arg(tools::target_directory()?);
    tools::run(&mut tests, "the tests of an algorithm, a scheduler and a path policy of one's own")?;
    let mut sim = tools::cargo();
    // In the target directory of the workspace, where most of it is compiled already.
    sim.args(["run", "--quiet", "--manifest-path"])
        .arg(folder.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(tools::target_directory()?)
        .args(["--", "sim", "--strict", "--quiet"])
        .arg(folder.join("scenario.toml"));
    tools::run(&mut sim, "the program with an algorithm of its own")
}

//! `cargo xtask fuzz`: the fuzz targets for a bounded time.

use crate::tools;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Every target; `umptcp_testkit::TARGETS` has the same names.
const TARGETS: [&str; 5] = ["options", "packet", "convert", "connection", "operations"];

/// Options of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long each target runs.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Only this target.
    #[arg(long)]
    target: Option<String>,
    /// Without cargo-fuzz even where it is installed: random mutations of the committed inputs, on any
    /// compiler.
    #[arg(long)]
    no_libfuzzer: bool,
}

/// Runs the targets; fails at the first finding, whose input is kept.
pub(crate) fn run(options: &Options) -> Result<()> {
    let targets: Vec<&str> =
        TARGETS.into_iter().filter(|t| options.target.as_deref().is_none_or(|o| o == *t)).collect();
    if targets.is_empty() {
        bail!("there is no target {:?}; there are {}", options.target, TARGETS.join(", "));
    }
    if options.no_libfuzzer || !works(&["fuzz", "--version"]) {
        println!("without cargo-fuzz: mutations without feedback (see fuzz/README.md)");
        return targets.into_iter().try_for_each(|target| mutations(target, options.seconds));
    }
    let nightly = works(&["+nightly", "--version"]);
    if !nightly {
        println!("without a nightly compiler: no AddressSanitizer (see fuzz/README.md)");
    }
    targets.into_iter().try_for_each(|target| libfuzzer(target, options.seconds, nightly))
}

/// Whether `cargo` with these arguments succeeds.
fn works(arguments: &[&str]) -> bool {
    let mut command = Command::new("cargo");
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|s| s.success())
}

/// Guided by coverage. Sanitizers take a nightly compiler; the code under test is safe Rust, which finds most by itself.
fn libfuzzer(target: &str, seconds: u64, nightly: bool) -> Result<()> {
    // Beside the build, so that runs build on one another and the repository stays clean.
    let corpus = Path::new("fuzz/target/corpus").join(target);
    fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
    let mut fuzz = Command::new("cargo");
    fuzz.args(if nightly {
        &["+nightly", "fuzz", "run"][..]
    } else {
        &["fuzz", "run", "--sanitizer", "none"]
    });
    fuzz.arg(target).arg(&corpus).arg(format!("fuzz/seeds/{target}"));
    fuzz.args(["--", &format!("-max_total_time={seconds}"), "-timeout=20", "-rss_limit_mb=1024"]);
    tools::run(&mut fuzz, &format!("cargo fuzz run {target}"))
}

fn mutations(target: &str, seconds: u64) -> Result<()> {
    let mut test = tools::cargo();
    test.args(["test", "--release", "--package", "umptcp-testkit", "--test", "replay", "--", "--nocapture"]);
    test.arg("mutations_of_committed_inputs_pass");
    test.env("UMPTCP_FUZZ_TARGET", target).env("UMPTCP_FUZZ_SECONDS", seconds.to_string());
    tools::run(&mut test, &format!("mutations for {target}"))
}

//! Arguments of `sim`.

use super::values::parse_duration;
use clap::{Args, ValueHint};
use std::path::PathBuf;
use std::time::Duration;

/// Run a scenario in the simulator: real stacks, virtual time.
///
/// A scenario is a TOML file with links, groups of connections and a route per subflow. It is run with every
/// combination of its parameters and every seed, and the results are means with 95 % confidence intervals
/// over the seeds. The same file and seeds give the same numbers on every machine. No privileges are needed.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  umptcp sim scenarios/shared-bottleneck.toml
  umptcp sim scenarios/olia-a.toml --set congestion=olia --set n1=10 --seeds 3
  umptcp sim scenarios/wireless.toml --csv results.csv --json results.json --html results.html
  umptcp sim scenarios/triangle.toml --check                   check the file without running it
  umptcp sim scenarios/triangle.toml --seeds 1 --pcap triangle.pcapng")]
pub(crate) struct SimArgs {
    /// The scenarios.
    #[arg(value_name = "SCENARIO.toml", required = true, value_hint = ValueHint::FilePath)]
    pub(crate) scenarios: Vec<PathBuf>,
    /// Override a parameter with a value or a comma-separated list of values; can be repeated.
    #[arg(long, value_name = "NAME=VALUE[,VALUE]...", value_parser = parse_set)]
    pub(crate) set: Vec<(String, String)>,
    /// Use seeds 1 to N instead of the scenario's.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) seeds: Option<u64>,
    /// Override the duration of the measurement.
    #[arg(long, value_name = "SECONDS", value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// Override the time before the measurement.
    #[arg(long, value_name = "SECONDS", value_parser = parse_duration)]
    pub(crate) warm_up: Option<Duration>,
    /// Number of simulations in parallel; 0 means one per processor.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Write a chapter in Markdown to FILE, with a section per scenario, and the figures to a folder next to
    /// it.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) markdown: Option<PathBuf>,
    /// Write the packets of every link in the first run to FILE (pcapng, one interface per link, at its first
    /// end).
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) pcap: Option<PathBuf>,
    /// Capture only the packets of this link; can be repeated.
    #[arg(long, value_name = "LINK", requires = "pcap")]
    pub(crate) pcap_link: Vec<String>,
    /// Only check the scenario; do not run it.
    #[arg(long)]
    pub(crate) check: bool,
    /// Fail if a result disagrees with a published one.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Do not report progress or run time.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Where results go.
#[derive(Args, Clone, Debug)]
pub(crate) struct OutputArgs {
    /// Show all measurements, including routes and links.
    #[arg(long)]
    pub(crate) all: bool,
    /// Write all numbers as CSV to FILE (`-`: standard output, instead of the table).
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) csv: Option<PathBuf>,
    /// Write all numbers as JSON to FILE (`-`: standard output, instead of the table).
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) json: Option<PathBuf>,
    /// Write the first run's time series (windows, round-trip times, queues, …) as CSV to FILE.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) series: Option<PathBuf>,
    /// Write figures of the first run, and comparisons with published results, as SVG to DIRECTORY.
    #[arg(long, value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
    pub(crate) figures: Option<PathBuf>,
    /// Write numbers and figures to FILE as a self-contained HTML page.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) html: Option<PathBuf>,
}

pub(super) fn parse_set(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_string(), value.to_string()))
        }
        _ => Err(format!("{text:?} is not NAME=VALUE")),
    }
}

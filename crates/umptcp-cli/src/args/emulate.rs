//! Arguments of `emulate`.

use super::sim::{OutputArgs, parse_set};
use super::values::parse_duration;
use clap::{Args, ValueEnum, ValueHint};
use std::path::PathBuf;
use std::time::Duration;

/// Run a scenario in real time, over umptcp or the kernel's MPTCP: the same measurements as `sim`.
///
/// Clients and servers are network namespaces, and the simulator's links lie between them: real packets, real
/// clocks. Each combination of parameters and each seed takes the time of the scenario, one after the other.
/// No root is needed where user namespaces are allowed, nothing on this machine is changed, and everything is
/// gone at the end. The kernel has its own scheduler, and its own algorithm where it lacks the scenario's.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  umptcp emulate scenarios/two-paths.toml
  umptcp emulate scenarios/two-paths.toml --stack kernel --seeds 1 --duration 10
  umptcp emulate scenarios/uneven.toml --stack umptcp --peer kernel --set buffer=300 --csv out.csv")]
pub(crate) struct EmulateArgs {
    /// The scenario.
    #[arg(value_name = "SCENARIO.toml", value_hint = ValueHint::FilePath)]
    pub(crate) scenario: PathBuf,
    /// The stack of the hosts that connect.
    #[arg(long, value_enum, value_name = "STACK", default_value_t = EmulatedStack::Umptcp)]
    pub(crate) stack: EmulatedStack,
    /// The stack of the hosts that listen; by default the same.
    #[arg(long, value_enum, value_name = "STACK")]
    pub(crate) peer: Option<EmulatedStack>,
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
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Do not report progress or run time.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// A stack of emulated hosts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum EmulatedStack {
    /// umptcp.
    Umptcp,
    /// The kernel's MPTCP, or its TCP for flows of plain TCP.
    Kernel,
}

impl EmulatedStack {
    /// As on the command line.
    #[cfg(all(target_os = "linux", not(umptcp_portable)))]
    pub(crate) fn name(self) -> &'static str {
        match self {
            EmulatedStack::Umptcp => "umptcp",
            EmulatedStack::Kernel => "kernel",
        }
    }
}

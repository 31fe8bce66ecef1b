//! Arguments of the daemon's commands.

use super::values::parse_duration;
use clap::{Args, ValueHint};
use std::path::PathBuf;
use std::time::Duration;

/// Where the daemon's configuration is when no other file is given.
pub(crate) const CONFIGURATION: &str = "/etc/umptcp/umptcp.toml";

/// Run the daemon: what its configuration says, until it is told to end.
///
/// It stays in the foreground, as systemd wants it. SIGHUP has it read its configuration again: connections
/// go on, and only what has changed is changed. SIGTERM, SIGINT and `umptcp down` end it in order.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  sudo umptcp up
  sudo umptcp up --config ./umptcp.toml -v
  sudo kill -HUP $(pidof umptcp)              read the configuration again")]
pub(crate) struct UpArgs {
    /// The configuration.
    #[arg(short, long, value_name = "FILE.toml", default_value = CONFIGURATION, value_hint = ValueHint::FilePath)]
    pub(crate) config: PathBuf,
}

/// End a daemon in order, and wait for it.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  sudo umptcp down
  sudo umptcp down web                        the one whose configuration says name = \"web\"")]
pub(crate) struct DownArgs {
    /// Its name; not needed when one runs only.
    pub(crate) name: Option<String>,
    /// How long to wait for its end.
    #[arg(long, value_name = "SECONDS", default_value = "90", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

/// Test the daemon's configuration without starting it.
///
/// Says what is in it. A mistake is named with its file and line, and what was expected.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  umptcp check
  umptcp check ./umptcp.toml")]
pub(crate) struct CheckArgs {
    /// The configuration.
    #[arg(value_name = "FILE.toml", default_value = CONFIGURATION, value_hint = ValueHint::FilePath)]
    pub(crate) config: PathBuf,
}

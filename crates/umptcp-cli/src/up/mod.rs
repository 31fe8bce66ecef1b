//! The daemon: `up`, `down` and `check`.

mod capture;
mod config;
mod daemon;
mod instance;
mod listen;
mod metrics;
mod notify;
mod opening;
mod programs;
mod proxy_protocol;
mod services;

use crate::args::{CheckArgs, DownArgs, UpArgs};
use crate::console::print;
use crate::logging::{self, Level, Log};
use crate::registry::Registry;
use config::Config;
use daemon::Daemon;
pub(crate) use instance::remove_dead;

/// Runs the daemon until it is told to end.
pub(crate) fn run(args: &UpArgs, registry: &Registry, verbose: u8) -> anyhow::Result<()> {
    let config = Config::load(&args.config, registry)?;
    // What is asked for on the command line goes before what the file says.
    let asked = (verbose > 0).then(|| Level::of_verbosity(verbose));
    let log = logging::start(Log { level: asked.unwrap_or(config.log.level), ..config.log })?;
    let log = asked.is_none().then_some(log);
    Daemon::start(args.config.clone(), config, registry, log)?.run(registry)
}

/// Ends a daemon, and waits for it.
pub(crate) fn down(args: &DownArgs) -> anyhow::Result<()> {
    let name = instance::end(args.name.as_deref(), args.timeout)?;
    print(&format!("{name} has ended"))
}

/// Says what is in a configuration, or what is wrong with it.
pub(crate) fn check(args: &CheckArgs, registry: &Registry) -> anyhow::Result<()> {
    let config = Config::load(&args.config, registry)?;
    print(&format!("{}: {}", args.config.display(), config.describe()))
}

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
mod relay;
mod services;

use crate::args::{CheckArgs, DownArgs, RelayArgs, UpArgs};
use crate::console::{print, say};
use crate::failure::usage;
use crate::logging::{self, Level, Log};
use crate::registry::Registry;
use config::relay::read_keys;
use config::{Config, Relay};
use daemon::Daemon;
pub(crate) use instance::remove_dead;
use std::path::PathBuf;
use umptcp_relay::{Destinations, Limits};

/// Runs the daemon until it is told to end.
pub(crate) fn run(args: &UpArgs, registry: &Registry, verbose: u8) -> anyhow::Result<()> {
    start(Some(args.config.clone()), Config::load(&args.config, registry)?, registry, verbose)
}

/// The same with a relay, by a file or by the command line.
pub(crate) fn relay(args: &RelayArgs, registry: &Registry, verbose: u8) -> anyhow::Result<()> {
    let config = match &args.config {
        Some(file) => {
            let config = Config::load(file, registry)?;
            if config.relay.is_none() {
                return Err(usage(format!("{} has no section [relay]", file.display())));
            }
            config
        }
        None => {
            let clients = args.keys.as_deref().map(read_keys).transpose().map_err(usage)?;
            let destinations = Destinations { allow: args.allow.clone(), ..Destinations::default() };
            let (publish, limits) = (args.allow_publish.clone(), Limits::default());
            let relay = Relay { at: args.listen, clients, destinations, publish, limits };
            Config::of_relay(relay, args.paths.clone())
        }
    };
    start(args.config.clone(), config, registry, verbose)
}

fn start(file: Option<PathBuf>, config: Config, registry: &Registry, verbose: u8) -> anyhow::Result<()> {
    // What is asked for on the command line goes before what the file says.
    let asked = (verbose > 0).then(|| Level::of_verbosity(verbose));
    let log = logging::start(Log { level: asked.unwrap_or(config.log.level), ..config.log })?;
    let log = asked.is_none().then_some(log);
    Daemon::start(file, config, registry, log)?.run(registry)
}

/// Ends a daemon, and waits for it.
pub(crate) fn down(args: &DownArgs) -> anyhow::Result<()> {
    let name = instance::end(args.name.as_deref(), args.timeout)?;
    print(&format!("{name} has ended"))
}

/// Says what is in a configuration, or what is wrong with it.
pub(crate) fn check(args: &CheckArgs, registry: &Registry) -> anyhow::Result<()> {
    let config = Config::load(&args.config, registry)?;
    print(&format!("{}: {}", args.config.display(), config.describe()))?;
    config.warnings().iter().for_each(|warning| say(&format!("warning: {warning}")));
    // The file may be for another host, or the device come later.
    for path in &config.settings.paths {
        if nix::net::if_::if_nametoindex(path.device.as_str()).is_err() {
            say(&format!(
                "warning: this host has no network device {:?} now: `umptcp up` would end with an error",
                path.device
            ));
        }
    }
    match config.fixed()[..] {
        [] => Ok(()),
        ref fixed => print(&format!(
            "A reload takes over what has changed, but for {}: to change that needs a restart",
            fixed.join(", ")
        )),
    }
}

//! `cargo xtask soak`: hours in the life of connections, in virtual time or over real namespaces.

mod real;
mod virtual_time;

use anyhow::{Result, ensure};
use std::path::PathBuf;

/// Options of `cargo xtask soak`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Hours in all: virtual ones, in runs of two hours with a seed each (default 24), or with --real those
    /// of all episodes together (default 1).
    #[arg(long)]
    hours: Option<f64>,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Without an optimised build: slower, and with the code's own assertions.
    #[arg(long, conflicts_with = "real")]
    debug: bool,
    /// In real time, between network namespaces: umptcp with the kernel's MPTCP and with itself. Needs root.
    #[arg(long)]
    real: bool,
    /// Episodes at the same time, each in namespaces of its own.
    #[arg(long, requires = "real", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    at_once: u16,
    /// Run this program instead of building it.
    #[arg(long, requires = "real")]
    program: Option<PathBuf>,
    /// Write what the programs log to this directory.
    #[arg(long, requires = "real")]
    logs: Option<PathBuf>,
}

/// Runs what is asked for.
pub(crate) fn run(options: &Options) -> Result<()> {
    let hours = options.hours.unwrap_or(if options.real { 1.0 } else { 24.0 });
    ensure!(hours > 0.0 && hours <= 100_000.0, "--hours is a number of hours, more than 0");
    if options.real {
        real::run(options, hours)
    } else {
        virtual_time::run(hours, options.seed, options.debug)
    }
}

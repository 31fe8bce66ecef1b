//! Hours in the life of connections, over real namespaces: NICs, addresses, routes, rules, firewalls and
//! peers that come and go at random, on both sides, while verified data flows both ways.
//!
//! What must hold: every usable NIC carries data again within five seconds after a disturbance that umptcp's
//! host can see, and within five seconds more than it lasted (a minute at most) after one that it cannot,
//! such as any at the kernel's end; every byte arrives, or an error says why.

mod episode;
mod tally;
mod traffic;
mod world;

use super::Options;
use crate::tools;
use anyhow::{Context as _, Result, ensure};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tally::Tally;

/// Runs episodes until their times add up, and prints what they have seen.
pub(super) fn run(options: &Options, hours: f64) -> Result<()> {
    ensure!(
        tools::is_root(),
        "this makes network namespaces and needs root: sudo -E cargo xtask soak --real"
    );
    tools::require(tools::SOAK)?;
    let program = match &options.program {
        Some(program) => program.clone(),
        None => tools::build_program(true)?,
    };
    if let Some(logs) = &options.logs {
        std::fs::create_dir_all(logs).with_context(|| format!("cannot make {}", logs.display()))?;
    }
    // Programs and namespaces end with the episodes that notice it.
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot watch for signals")?;
    }
    let tally = Mutex::new(Tally::default());
    let context =
        episode::Context { program: &program, logs: options.logs.as_deref(), stop: &stop, tally: &tally };
    let episodes = (hours * 3600.0 / episode::LENGTH.as_secs_f64()).ceil().max(1.0);
    let length = Duration::from_secs_f64(hours * 3600.0 / episodes);
    tools::in_parallel(episodes as usize, Some(options.at_once.into()), |index| {
        if !stop.load(Ordering::SeqCst) {
            let seed = options.seed + index as u64;
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                episode::run(&context, seed, length);
            }));
            if result.is_err() {
                tally.lock().unwrap_or_else(PoisonError::into_inner).violated("the soak itself failed", seed);
            }
        }
    });
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    tally.print();
    ensure!(!stop.load(Ordering::SeqCst), "ended by a signal");
    ensure!(tally.violations() == 0, "{} bounds were broken", tally.violations());
    Ok(())
}

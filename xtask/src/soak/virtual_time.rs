//! Hours in the life of connections, in virtual time.

use crate::tools;
use anyhow::{Result, bail};
use std::sync::Mutex;
use std::time::Instant;
use umptcp_testkit::simulation::soak::{self, Report};

/// Virtual hours of one run.
const RUN: f64 = 2.0;

/// Runs them, as many at a time as there are processors.
pub(super) fn run(hours: f64, seed: u64, debug: bool) -> Result<()> {
    if cfg!(debug_assertions) && !debug {
        let mut again = tools::optimised("soak");
        again.args(["--hours", &hours.to_string(), "--seed", &seed.to_string()]);
        return tools::run(&mut again, "the soak");
    }
    let runs = (hours / RUN).ceil() as usize;
    let length = hours / runs as f64;
    let failures = Mutex::new(Vec::new());
    let start = Instant::now();
    tools::in_parallel(runs, None, |run| {
        let seed = seed + run as u64;
        match soak::run(seed, length) {
            Ok(report) => print(seed, &report),
            Err(what) => {
                println!("{what}");
                failures.lock().unwrap_or_else(|e| e.into_inner()).push(seed);
            }
        }
    });
    let failures = failures.into_inner().unwrap_or_else(|e| e.into_inner());
    println!("{hours} virtual hours in {:.0} s", start.elapsed().as_secs_f64());
    if !failures.is_empty() {
        bail!(
            "seeds {failures:?} failed; one again: cargo xtask soak --hours {length} --seed {}",
            failures[0]
        );
    }
    Ok(())
}

fn print(seed: u64, r: &Report) {
    println!(
        "seed {seed}: {} s, {} connections, {} disturbances, {} MB both ways, {} packets; a path carried data again after \
         at most {} s when a host saw the end, {} s when none could",
        r.seconds,
        r.connections,
        r.disturbances,
        r.bytes / 1_000_000,
        r.packets,
        r.slowest_seen.as_secs(),
        r.slowest_unseen.as_secs(),
    );
}

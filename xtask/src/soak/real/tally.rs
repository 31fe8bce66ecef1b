//! What a soak has seen.

use super::world::Kind;
use std::collections::BTreeMap;
use std::time::Duration;

/// Counts of all episodes.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) seconds: u64,
    pub(super) connections: usize,
    pub(super) bytes: u64,
    kinds: BTreeMap<Kind, Recoveries>,
    violations: Vec<(u64, String)>,
    known: BTreeMap<&'static str, usize>,
    /// Ends of connections whose peer was killed, and the slowest.
    noticed: (usize, Duration),
}

/// What came after the disturbances of a kind.
#[derive(Debug, Default)]
struct Recoveries {
    begun: usize,
    recovered: usize,
    slowest: Duration,
}

impl Tally {
    pub(super) fn begun(&mut self, kind: Kind) {
        self.kinds.entry(kind).or_default().begun += 1;
    }

    pub(super) fn recovered(&mut self, kind: Kind, time: Duration) {
        let r = self.kinds.entry(kind).or_default();
        r.recovered += 1;
        r.slowest = r.slowest.max(time);
    }

    /// A program has ended that long after its peer was killed.
    pub(super) fn noticed(&mut self, after: Duration) {
        self.noticed = (self.noticed.0 + 1, self.noticed.1.max(after));
    }

    pub(super) fn violated(&mut self, kind: &str, seed: u64) {
        self.violations.push((seed, kind.to_owned()));
    }

    /// A bound was broken for a reason that is known.
    pub(super) fn known(&mut self, why: &'static str) {
        *self.known.entry(why).or_default() += 1;
    }

    /// How many bounds were broken.
    pub(super) fn violations(&self) -> usize {
        self.violations.len()
    }

    /// The table at the end.
    pub(super) fn print(&self) {
        println!("\n{:<16} {:>6} {:>12} {:>10}", "disturbance", "times", "recoveries", "slowest");
        for (kind, r) in &self.kinds {
            println!(
                "{:<16} {:>6} {:>12} {:>8.1} s",
                format!("{kind:?}"),
                r.begun,
                r.recovered,
                r.slowest.as_secs_f64()
            );
        }
        println!(
            "{:<16} {:>6} {:>12} {:>8.1} s",
            "Killed peer",
            self.noticed.0,
            "",
            self.noticed.1.as_secs_f64()
        );
        println!(
            "{:.2} hours, {} connections, {} disturbances, {} MB both ways, {} violations",
            self.seconds as f64 / 3600.0,
            self.connections,
            self.kinds.values().map(|r| r.begun).sum::<usize>(),
            self.bytes / 1_000_000,
            self.violations.len()
        );
        for (why, times) in &self.known {
            println!("  known, {times} times: {why}");
        }
        for (seed, kind) in &self.violations {
            println!("  seed {seed}: {kind}");
        }
    }
}

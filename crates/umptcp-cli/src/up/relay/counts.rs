//! What the relay has done, and lines about refusals, which are not to fill a disk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use umptcp_relay::Allowance;

/// Lines about refusals in each [`SPAN`]: whoever has no key can cause any number of refusals.
const LINES: u32 = 20;
const SPAN: Duration = Duration::from_secs(10);

/// What the relay has done since the daemon began.
#[derive(Default)]
pub(in crate::up) struct Counts {
    /// What each client uses.
    pub(super) allowance: Allowance,
    made: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    silent: AtomicU64,
    lines: Mutex<Lines>,
}

#[derive(Default)]
struct Lines {
    since: Option<Instant>,
    written: u32,
    left_out: u64,
}

/// How many of each there were.
#[derive(Clone, Debug, Default)]
pub(in crate::up) struct Figures {
    /// Connections that were made.
    pub(in crate::up) made: u64,
    /// Servers that were not reached.
    pub(in crate::up) failed: u64,
    /// Requests that were refused.
    pub(in crate::up) refused: u64,
    /// Clients that asked for nothing.
    pub(in crate::up) silent: u64,
    /// Each client's name, its connections and its bytes.
    pub(in crate::up) clients: Vec<(String, u64, u64)>,
}

impl Counts {
    pub(super) fn made(&self) {
        self.made.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn silent(&self) {
        self.silent.fetch_add(1, Ordering::Relaxed);
    }

    /// Has a line written unless there were too many; it says how many were left out before it.
    pub(super) fn audit(&self, write: impl FnOnce(u64)) {
        if let Some(left_out) = self.may_write(Instant::now()) {
            write(left_out);
        }
    }

    fn may_write(&self, now: Instant) -> Option<u64> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.since.is_none_or(|since| now.saturating_duration_since(since) >= SPAN) {
            (lines.since, lines.written) = (Some(now), 0);
        }
        if lines.written == LINES {
            lines.left_out += 1;
            return None;
        }
        lines.written += 1;
        Some(std::mem::take(&mut lines.left_out))
    }

    pub(in crate::up) fn figures(&self) -> Figures {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let clients = self.allowance.usage().into_iter().map(|usage| {
            let name = usage.client.map_or_else(String::new, |client| client.to_string());
            (name, u64::from(usage.open), usage.bytes)
        });
        Figures {
            made: of(&self.made),
            failed: of(&self.failed),
            refused: of(&self.refused),
            silent: of(&self.silent),
            clients: clients.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_what_is_left_out_is_said() {
        let (counts, start) = (Counts::default(), Instant::now());
        let written = (0..100).filter(|_| counts.may_write(start).is_some()).count();
        assert_eq!(written, LINES as usize);
        assert_eq!(counts.may_write(start + SPAN), Some(80));
        assert_eq!(counts.may_write(start + SPAN), Some(0));
    }
}

//! Memory that many connections have used goes back to the system.

use crate::control::StackSource;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use umptcp::Counter;
use umptcp_capture::{CaptureError, Periodic};

/// How often to look.
const LOOK: Duration = Duration::from_secs(5);

/// How many connections must have come and gone for it to be worth the time.
const MANY: u64 = 256;

/// When the last of them has left TIME_WAIT (a minute, RFC 9293 §3.4.2 in practice), and its memory is free.
const FORGOTTEN: Duration = Duration::from_secs(75);

/// Returns unused memory after many connections, and once more when nothing is left of them, until it is dropped.
/// `connections` counts them. glibc keeps what lies between pieces that are in use, for ever.
pub(crate) fn trim_after(connections: impl Fn() -> u64 + Send + 'static) -> Result<Periodic, CaptureError> {
    let mut trimming = Trimming::default();
    Periodic::start("umptcp-trim", LOOK, move || {
        if trimming.is_due(connections(), Instant::now()) {
            trim();
        }
        ControlFlow::Continue(())
    })
}

/// The same for the connections of a stack.
pub(crate) fn trim_after_connections_of(source: Arc<dyn StackSource>) -> Result<Periodic, CaptureError> {
    trim_after(move || {
        let mut count = 0;
        source.with(&mut |stack| {
            if let Ok(counters) = stack.counters() {
                count = counters.get(Counter::MPCapableSYNTX) + counters.get(Counter::MPCapableSYNRX);
            }
        });
        count
    })
}

/// When to do it.
#[derive(Debug, Default)]
struct Trimming {
    /// The count when memory was returned last.
    count: u64,
    /// When to do so once more.
    again: Option<Instant>,
}

impl Trimming {
    fn is_due(&mut self, count: u64, now: Instant) -> bool {
        if count >= self.count + MANY {
            self.count = count;
            self.again = Some(now + FORGOTTEN);
            return true;
        }
        self.again.take_if(|again| *again <= now).is_some()
    }
}

#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
fn trim() {
    // SAFETY: malloc_trim may be called at any time by any thread; it takes no pointer.
    unsafe { nix::libc::malloc_trim(0) };
}

/// Other allocators look after themselves.
#[cfg(not(target_env = "gnu"))]
fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_returned_after_many_connections_and_when_they_are_forgotten() {
        let start = Instant::now();
        let mut trimming = Trimming::default();
        let mut at = |seconds, count| trimming.is_due(count, start + Duration::from_secs(seconds));
        assert!(!at(0, 0) && !at(5, MANY - 1));
        assert!(at(10, MANY));
        assert!(!at(15, MANY) && !at(84, MANY + 9));
        assert!(at(85, MANY + 9), "the last has left TIME_WAIT");
        assert!(!at(90, MANY + 9) && !at(1000, MANY + 9), "there is nothing more to return");
        // Those that came later put it off.
        assert!(at(1005, 2 * MANY) && at(1010, 3 * MANY) && !at(1081, 3 * MANY) && at(1085, 3 * MANY));
    }
}

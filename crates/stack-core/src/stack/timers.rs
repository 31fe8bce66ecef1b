//! One deadline per connection in a heap: O(log n) to set, O(1) to ask.

use alloc::collections::BinaryHeap;
use core::cmp::Reverse;
use umptcp_types::{ConnectionId, Instant};

/// Deadlines of connections. An entry may be early, because a deadline that moves later leaves its old entry
/// in place; it is never late.
#[derive(Debug, Default)]
pub(crate) struct TimerQueue {
    heap: BinaryHeap<Reverse<(Instant, ConnectionId)>>,
}

impl TimerQueue {
    /// Adds a deadline.
    pub(crate) fn push(&mut self, at: Instant, connection: ConnectionId) {
        self.heap.push(Reverse((at, connection)));
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((t, _))| *t)
    }

    /// Takes the earliest deadline if it is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(Instant, ConnectionId)> {
        let Reverse((at, _)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

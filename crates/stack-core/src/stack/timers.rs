//! One deadline per connection in a heap: O(log n) to set, O(1) to ask.

use alloc::collections::BinaryHeap;
use core::cmp::Reverse;
use umptcp_types::{ConnectionId, Instant};

/// Entries beyond those of all connections before the heap is tidied.
const SLACK: usize = 64;

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

    /// Drops entries for which `valid` does not hold, when there are many more than the `connections` there
    /// are: a deadline that moves to and fro leaves one each time.
    pub(crate) fn tidy(&mut self, connections: usize, valid: impl Fn(Instant, ConnectionId) -> bool) {
        if self.heap.len() > 2 * connections + SLACK {
            let mut entries = core::mem::take(&mut self.heap).into_vec();
            entries.retain(|Reverse((at, id))| valid(*at, *id));
            entries.sort_unstable();
            entries.dedup();
            self.heap = entries.into();
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use umptcp_types::Duration;

    #[test]
    fn a_deadline_that_moves_to_and_fro_leaves_few_entries() {
        let mut q = TimerQueue::default();
        let (far, id) = (Instant::ZERO + Duration::from_secs(7200), ConnectionId(1));
        for n in 1..100_000 {
            let soon = Instant::from_millis(n);
            q.push(soon, id);
            assert_eq!(q.pop_due(soon), Some((soon, id)));
            q.push(far, id);
            q.tidy(1, |at, _| at == far);
            assert!(q.heap.len() <= 2 + SLACK);
        }
    }

    #[test]
    fn it_is_tidied_when_entries_are_twice_the_connections_and_some_more() {
        // To tidy looks at all entries: it must be worth it each time, however many connections there are.
        const CONNECTIONS: usize = 1_000;
        let mut q = TimerQueue::default();
        for n in 0..2 * CONNECTIONS + SLACK {
            q.push(Instant::from_millis(n as u64), ConnectionId(1));
        }
        q.tidy(CONNECTIONS, |_, _| false);
        assert_eq!(q.heap.len(), 2 * CONNECTIONS + SLACK, "not yet");
        q.push(Instant::ZERO, ConnectionId(1));
        q.tidy(CONNECTIONS, |_, _| false);
        assert_eq!(q.next(), None);
    }
}

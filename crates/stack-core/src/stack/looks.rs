//! Connections whose path manager is to look because a path has come or changed: some at a time, so that
//! thousands of connections do not send as many SYNs in one burst.

use alloc::collections::{BTreeSet, VecDeque};
use umptcp_types::{ConnectionId, Duration, Instant};

/// Connections in each period: 10,000 take a second.
const BATCH: usize = 100;
const PERIOD: Duration = Duration::from_millis(10);

/// Connections whose path manager is to look.
#[derive(Debug, Default)]
pub(super) struct Looks {
    queue: VecDeque<ConnectionId>,
    queued: BTreeSet<ConnectionId>,
    /// The period that began then, and the connections that had their turn in it.
    period: Option<(Instant, usize)>,
}

impl Looks {
    /// The connection is to look when its turn comes; `urgent`: before those that are not.
    pub(super) fn push(&mut self, id: ConnectionId, urgent: bool) {
        if !self.queued.insert(id) {
            return;
        }
        if urgent {
            self.queue.push_front(id);
        } else {
            self.queue.push_back(id);
        }
    }

    /// Those whose turn it is.
    pub(super) fn take(&mut self, now: Instant) -> impl Iterator<Item = ConnectionId> + use<> {
        let (since, served) = self.period.filter(|(since, _)| now < *since + PERIOD).unwrap_or((now, 0));
        let n = self.queue.len().min(BATCH - served);
        self.period = Some((since, served + n));
        let batch: VecDeque<ConnectionId> = self.queue.drain(..n).collect();
        for id in &batch {
            self.queued.remove(id);
        }
        batch.into_iter()
    }

    /// When the next batch is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.period.map(|(since, _)| since + PERIOD).filter(|_| !self.queue.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_turn_once_in_batches_and_the_urgent_first() {
        let mut looks = Looks::default();
        for id in (0..250).chain(0..250) {
            looks.push(ConnectionId(id), id == 249);
        }
        let mut now = Instant::ZERO;
        let mut seen = alloc::vec::Vec::new();
        for expected in [100, 100, 50] {
            let before = seen.len();
            seen.extend(looks.take(now));
            assert_eq!((seen.len() - before, looks.take(now).count()), (expected, 0));
            now += PERIOD;
        }
        assert_eq!((seen[0], looks.next_deadline()), (ConnectionId(249), None));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 250);
        // Nobody waits: the next one has its turn at once.
        looks.push(ConnectionId(7), false);
        assert_eq!(looks.take(now).count(), 1);
    }
}

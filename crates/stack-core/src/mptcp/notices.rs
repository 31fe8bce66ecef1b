//! What the peer is told without an answer: REMOVE_ADDR (RFC 8684 §3.4.2) and MP_PRIO (§3.3.8). Both mean the
//! same when they come again, so they are said some times, in case one is lost.

use alloc::vec::Vec;
use umptcp_types::{AddressId, Duration, Instant, SubflowId};

/// How often each is said again.
const REPEATS: u8 = 3;

/// Notices that wait to be said again, at most.
const KEPT: usize = 64;

/// Something said to the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Notice {
    /// An address of ours has gone.
    Removed(AddressId),
    /// A subflow is to be a backup, or not.
    Priority(SubflowId, bool),
}

impl Notice {
    /// It is about the same thing, so that the later one counts.
    fn replaces(self, earlier: Notice) -> bool {
        match (self, earlier) {
            (Notice::Removed(a), Notice::Removed(b)) => a == b,
            (Notice::Priority(a, _), Notice::Priority(b, _)) => a == b,
            _ => false,
        }
    }
}

#[derive(Debug)]
struct Entry {
    notice: Notice,
    next: Instant,
    said: u8,
}

/// What is to be said again.
#[derive(Debug, Default)]
pub(crate) struct PeerNotices {
    list: Vec<Entry>,
}

impl PeerNotices {
    /// It is being said for the first time; `rto`: how long an answer to anything takes at most.
    pub(crate) fn on_said(&mut self, now: Instant, notice: Notice, rto: Duration) {
        self.list.retain(|e| !notice.replaces(e.notice));
        if self.list.len() < KEPT {
            self.list.push(Entry { notice, next: now + rto, said: 0 });
        }
    }

    /// It does not hold any more: the ID stands for an address again.
    pub(crate) fn cancel_removal(&mut self, id: AddressId) {
        self.list.retain(|e| e.notice != Notice::Removed(id));
    }

    /// What is due, with how often it has been said again.
    pub(crate) fn take_due(&mut self, now: Instant, rto: Duration) -> Vec<(Notice, u8)> {
        let mut due = Vec::new();
        for e in self.list.iter_mut().filter(|e| e.next <= now) {
            e.said += 1;
            e.next = now + rto.saturating_mul(1 << e.said);
            due.push((e.notice, e.said));
        }
        self.list.retain(|e| e.said < REPEATS);
        due
    }

    /// When the next is due.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.list.iter().map(|e| e.next).min()
    }

    /// Nothing is said again.
    pub(crate) fn clear(&mut self) {
        self.list.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTO: Duration = Duration::from_secs(1);

    #[test]
    fn each_is_said_again_some_times_with_growing_pauses() {
        let mut n = PeerNotices::default();
        n.on_said(Instant::ZERO, Notice::Removed(AddressId(3)), RTO);
        let mut times = Vec::new();
        while let Some(at) = n.next_deadline() {
            assert_eq!(n.take_due(at, RTO).len(), 1);
            times.push((at - Instant::ZERO).as_secs());
        }
        assert_eq!(times, [1, 3, 7]);
    }

    #[test]
    fn what_no_longer_holds_is_not_said_again() {
        let mut n = PeerNotices::default();
        let prio = |backup| Notice::Priority(SubflowId(1), backup);
        n.on_said(Instant::ZERO, prio(true), RTO);
        n.on_said(Instant::ZERO, prio(false), RTO);
        n.on_said(Instant::ZERO, Notice::Removed(AddressId(3)), RTO);
        n.cancel_removal(AddressId(3));
        assert_eq!(n.take_due(Instant::ZERO + RTO, RTO), [(prio(false), 1)]);
        n.clear();
        assert_eq!(n.next_deadline(), None);
    }
}

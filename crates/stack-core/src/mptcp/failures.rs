//! Pairs of addresses between which subflows failed, and whether another is tried (RFC 8684 §3.4.1, §3.6,
//! §3.9.3).

use crate::event::LostSubflow;
use crate::info::LOST_KEPT;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use umptcp_types::Instant;

/// Pairs of addresses remembered for each reason, at most.
const PAIRS_KEPT: usize = 256;

/// The two addresses that a subflow runs between; a local port is chosen for each anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pair {
    pub(crate) local: IpAddr,
    pub(crate) remote: SocketAddr,
}

/// What went wrong between which addresses.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    /// No subflow is opened between these.
    lasting: Vec<Pair>,
    /// How often subflows between these were reset.
    resets: Vec<(Pair, u8)>,
    /// Not before then, as long as there are other subflows.
    paused: Vec<(Pair, Instant)>,
    /// The last subflows that did not end by FIN.
    lost: VecDeque<LostSubflow>,
}

impl Failures {
    /// No further subflow between these addresses.
    pub(crate) fn on_failed(&mut self, pair: Pair) {
        if !self.lasting.contains(&pair) && self.lasting.len() < PAIRS_KEPT {
            self.lasting.push(pair);
        }
    }

    /// No subflow between these addresses before `until`, while there are others.
    pub(crate) fn put_off(&mut self, pair: Pair, until: Instant) {
        if let Some((_, known)) = self.paused.iter_mut().find(|(p, _)| *p == pair) {
            *known = (*known).max(until);
        } else if self.paused.len() < PAIRS_KEPT {
            self.paused.push((pair, until));
        }
    }

    /// One more reset between two addresses; how many there have been.
    pub(crate) fn on_reset(&mut self, pair: Pair) -> u8 {
        if let Some((_, n)) = self.resets.iter_mut().find(|(p, _)| *p == pair) {
            *n = n.saturating_add(1);
            return *n;
        }
        if self.resets.len() < PAIRS_KEPT {
            self.resets.push((pair, 1));
        }
        1
    }

    /// A subflow did not end by FIN.
    pub(crate) fn on_lost(&mut self, lost: LostSubflow) {
        if self.lost.len() == LOST_KEPT {
            self.lost.pop_front();
        }
        self.lost.push_back(lost);
    }

    /// What happened between pairs of which `gone` holds says nothing about now.
    pub(crate) fn forget(&mut self, gone: impl Fn(&Pair) -> bool) {
        self.lasting.retain(|p| !gone(p));
        self.resets.retain(|(p, _)| !gone(p));
        self.paused.retain(|(p, _)| !gone(p));
    }

    /// Ends pauses that are over. True: some were.
    pub(crate) fn end_pauses(&mut self, now: Instant) -> bool {
        let before = self.paused.len();
        self.paused.retain(|(_, until)| *until > now);
        self.paused.len() < before
    }

    /// When the next pause is over.
    pub(crate) fn next_pause_end(&self) -> Option<Instant> {
        self.paused.iter().map(|(_, until)| *until).min()
    }

    /// Pairs between which no subflow may be opened now; `others`: there are subflows, so that pauses count.
    pub(crate) fn barred(&self, others: bool) -> Vec<(IpAddr, SocketAddr)> {
        let paused = self.paused.iter().map(|(p, _)| p).filter(|_| others);
        self.lasting.iter().chain(paused).map(|p| (p.local, p.remote)).collect()
    }

    /// A subflow with these very ends was lost: the peer, or something on the path, may still know it.
    pub(crate) fn was_lost(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        self.lost.iter().any(|l| l.local == local && l.remote == remote)
    }

    /// The last subflows that did not end by FIN, oldest first.
    pub(crate) fn lost(&self) -> Vec<LostSubflow> {
        self.lost.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use umptcp_types::Duration;

    fn pair(n: u16) -> Pair {
        Pair { local: IpAddr::from([10, 0, 0, 1]), remote: SocketAddr::from(([10, 0, 0, 2], n)) }
    }

    #[test]
    fn pauses_count_only_beside_other_subflows_and_end() {
        let second = |n| Instant::ZERO + Duration::from_secs(n);
        let mut f = Failures::default();
        f.put_off(pair(1), second(5));
        f.put_off(pair(1), second(3));
        f.on_failed(pair(2));
        f.on_failed(pair(2));
        assert_eq!((f.barred(true).len(), f.barred(false).len()), (2, 1));
        assert_eq!(f.next_pause_end(), Some(second(5)));
        assert!(!f.end_pauses(second(4)) && f.end_pauses(second(5)) && !f.end_pauses(second(6)));
        assert_eq!(f.barred(true).len(), 1);
        f.forget(|p| *p == pair(2));
        assert!(f.barred(true).is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut f = Failures::default();
        for n in 0..1000 {
            f.on_failed(pair(n));
            f.put_off(pair(n), Instant::ZERO);
            assert_eq!(f.on_reset(pair(n)), 1);
        }
        assert_eq!(f.on_reset(pair(7)), 2);
        assert_eq!(f.barred(true).len(), 2 * PAIRS_KEPT);
    }
}

//! Pairs of addresses between which subflows failed, and whether another is tried (RFC 8684 §3.4.1, §3.6,
//! §3.9.3).

use crate::event::LostSubflow;
use crate::info::LOST_KEPT;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use umptcp_types::{Duration, Instant};

/// Pairs of addresses remembered, at most.
const PAIRS_KEPT: usize = 512;

/// How often a pair may fail in a row before it is left alone for longer than [`USUAL_WAIT`].
const USUAL_FAILURES: u32 = 16;
/// Subflows in a row that did not live long, after which the pair waits even when there is no other subflow.
const SHORT_LIVES: u32 = 3;
/// The longest wait for a pair that has failed some times in a row: a path that comes back after some minutes
/// is used again within one.
const USUAL_WAIT: Duration = Duration::from_secs(60);
/// The longest wait for a pair that always fails (RFC 8684 §3.9.3).
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// With no subflow left, pairs that wait are tried at once, but not more often than this.
const LAST_RESORT: Duration = Duration::from_secs(10);

/// How long a pair is left alone that has failed so often in a row.
fn back_off(failures: u32) -> Duration {
    let doubled = |from: Duration, times: u32| from.saturating_mul(1 << times.min(10));
    if failures <= USUAL_FAILURES {
        doubled(Duration::from_secs(1), failures.saturating_sub(1)).min(USUAL_WAIT)
    } else {
        doubled(USUAL_WAIT, failures - USUAL_FAILURES).min(LONGEST_WAIT)
    }
}

/// The two addresses that a subflow runs between; a local port is chosen for each anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pair {
    pub(crate) local: IpAddr,
    pub(crate) remote: SocketAddr,
}

/// Whether a subflow may be opened between a pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bar {
    /// It may.
    None,
    /// Not before then, as long as there are other subflows.
    Pause(Instant),
    /// Not before then. From `others` on, the same address of the peer may be tried from another of ours;
    /// `None`: that is so already.
    Wait { until: Instant, others: Option<Instant> },
    /// Never, until something changes: the peer has said so.
    Lasting,
}

impl Bar {
    fn until(self) -> Option<Instant> {
        match self {
            Bar::None | Bar::Lasting => None,
            Bar::Pause(until) | Bar::Wait { until, .. } => Some(until),
        }
    }

    /// When something may be tried that may not be now.
    fn next_change(self) -> Option<Instant> {
        match self {
            Bar::Wait { until, others: Some(others) } => Some(until.min(others)),
            other => other.until(),
        }
    }

    /// What is left of it then.
    fn at(self, now: Instant) -> Bar {
        match self {
            bar if bar.until().is_some_and(|until| until <= now) => Bar::None,
            Bar::Wait { until, others } => Bar::Wait { until, others: others.filter(|others| *others > now) },
            bar => bar,
        }
    }
}

/// What happened between a pair.
#[derive(Clone, Copy, Debug)]
struct Entry {
    pair: Pair,
    /// Joins that failed and subflows that were lost, in a row.
    failures: u32,
    bar: Bar,
}

/// What went wrong between which addresses.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    entries: Vec<Entry>,
    /// Addresses of the peer to which a subflow has been established.
    reached: Vec<SocketAddr>,
    /// The last subflows that did not end by FIN.
    lost: VecDeque<LostSubflow>,
    /// When pairs that wait were last tried because no subflow was left.
    last_resort: Option<Instant>,
}

impl Failures {
    /// The entry of a pair; `None`: there is no room for another.
    fn entry(&mut self, pair: Pair) -> Option<&mut Entry> {
        let at = match self.entries.iter().position(|e| e.pair == pair) {
            Some(at) => at,
            None if self.entries.len() >= PAIRS_KEPT => return None,
            None => {
                self.entries.push(Entry { pair, failures: 0, bar: Bar::None });
                self.entries.len() - 1
            }
        };
        self.entries.get_mut(at)
    }

    /// A subflow to an address of the peer has been established: it leads to the peer.
    pub(crate) fn on_reached(&mut self, remote: SocketAddr) {
        if !self.reached.contains(&remote) && self.reached.len() < PAIRS_KEPT {
            self.reached.push(remote);
        }
    }

    /// Joins from this address of ours have failed in a row, or subflows were lost.
    pub(crate) fn has_failed_from(&self, local: IpAddr) -> bool {
        self.entries.iter().any(|e| e.pair.local == local && (e.failures > 0 || e.bar == Bar::Lasting))
    }

    /// A subflow to this address of the peer has once been established.
    pub(crate) fn is_reached(&self, remote: SocketAddr) -> bool {
        self.reached.contains(&remote)
    }

    /// A join of ours did not succeed. The address and port are not tried again at once, from no address of
    /// ours (RFC 8684 §3.4.1), and between these two later still.
    pub(crate) fn on_join_failed(&mut self, now: Instant, pair: Pair) {
        let Some(e) = self.entry(pair) else { return };
        e.failures += 1;
        let wait = back_off(e.failures);
        e.bar = Bar::Wait { until: now + wait, others: Some(now + wait / 2) };
    }

    /// The peer's host refused a join of ours, and no subflow is left: it is asked again after `pause`.
    pub(crate) fn ask_again(&mut self, now: Instant, pair: Pair, pause: Duration) {
        let Some(e) = self.entry(pair) else { return };
        let until = now + pause;
        e.bar = Bar::Wait { until, others: Some(until) };
    }

    /// A subflow that had carried data was lost, or closed by the peer. Another may follow after `pause`, or
    /// later if this goes on; at once when there is no other. `healthy`: it had worked well before.
    pub(crate) fn on_subflow_lost(&mut self, now: Instant, pair: Pair, pause: Duration, healthy: bool) {
        let Some(e) = self.entry(pair) else { return };
        e.failures = if healthy { 1 } else { e.failures + 1 };
        let pause = if e.failures > 1 { pause.max(back_off(e.failures)) } else { pause };
        let until = now + pause;
        // The application wants none for longer (`leave_alone`).
        if e.bar.until().is_some_and(|t| t > until) {
            return;
        }
        // Subflow after subflow that does not live: whatever breaks them will break the next, too.
        e.bar = if e.failures >= SHORT_LIVES { Bar::Wait { until, others: None } } else { Bar::Pause(until) };
    }

    /// The peer says that no subflow between these addresses is welcome.
    pub(crate) fn on_refused_for_good(&mut self, pair: Pair) {
        if let Some(e) = self.entry(pair) {
            e.bar = Bar::Lasting;
        }
    }

    /// The application wants no subflow between these addresses before `until`, while there are others.
    pub(crate) fn leave_alone(&mut self, pair: Pair, until: Instant) {
        if let Some(e) = self.entry(pair) {
            e.bar = match e.bar {
                Bar::None | Bar::Pause(_) => Bar::Pause(until),
                Bar::Wait { until: failed, others } => Bar::Wait { until: until.max(failed), others },
                Bar::Lasting => Bar::Lasting,
            };
        }
    }

    /// No subflow between these addresses before `until`, while there are others.
    pub(crate) fn put_off(&mut self, pair: Pair, until: Instant) {
        if let Some(e) = self.entry(pair)
            && e.bar == Bar::None
        {
            e.bar = Bar::Pause(until);
        }
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
        self.entries.retain(|e| !gone(&e.pair));
    }

    /// Ends waits that are over. True: some were, so that there may be something to try.
    pub(crate) fn end_waits(&mut self, now: Instant) -> bool {
        let mut any = false;
        for e in self.entries.iter_mut().filter(|e| e.bar.next_change().is_some_and(|t| t <= now)) {
            e.bar = e.bar.at(now);
            any = true;
        }
        any
    }

    /// No subflow is left: what failed may be tried at once. Its wait was for the sake of those that worked.
    pub(crate) fn on_none_left(&mut self, now: Instant) {
        if self.last_resort.is_some_and(|last| now - last < LAST_RESORT) {
            return;
        }
        self.last_resort = Some(now);
        for e in self.entries.iter_mut().filter(|e| e.bar.until().is_some()) {
            e.bar = Bar::None;
        }
    }

    /// When the next wait is over, for a pair or for others with the same address of the peer.
    pub(crate) fn next_wait_end(&self) -> Option<Instant> {
        self.entries.iter().filter_map(|e| e.bar.next_change()).min()
    }

    /// Pairs between which no subflow may be opened now; `others`: there are subflows, so that pauses count.
    pub(crate) fn barred(&self, others: bool) -> Vec<(IpAddr, SocketAddr)> {
        let counts = |e: &&Entry| match e.bar {
            Bar::None => false,
            Bar::Pause(_) => others,
            Bar::Wait { .. } | Bar::Lasting => true,
        };
        self.entries.iter().filter(counts).map(|e| (e.pair.local, e.pair.remote)).collect()
    }

    /// No address of ours is to try this one of the peer's now: a join to it has just failed, and it has
    /// never been shown to lead anywhere.
    pub(crate) fn bars_remote(&self, now: Instant, remote: SocketAddr) -> bool {
        if self.is_reached(remote) {
            return false;
        }
        let bars = |e: &Entry| match e.bar {
            Bar::Wait { others, .. } => others.is_some_and(|others| now < others),
            Bar::Lasting => true,
            Bar::None | Bar::Pause(_) => false,
        };
        self.entries.iter().any(|e| e.pair.remote == remote && bars(e))
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
    use crate::error::ConnectionError;
    use umptcp_types::SubflowId;

    fn pair(n: u16) -> Pair {
        Pair { local: IpAddr::from([10, 0, 0, 1]), remote: SocketAddr::from(([10, 0, 0, 2], n)) }
    }

    fn second(n: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(n)
    }

    #[test]
    fn pauses_count_only_beside_other_subflows_and_end() {
        let mut f = Failures::default();
        f.on_subflow_lost(second(0), pair(1), Duration::from_secs(5), true);
        f.put_off(pair(1), second(9));
        f.on_refused_for_good(pair(2));
        assert_eq!((f.barred(true).len(), f.barred(false).len()), (2, 1));
        assert_eq!(f.next_wait_end(), Some(second(5)));
        assert!(!f.end_waits(second(4)) && f.end_waits(second(5)) && !f.end_waits(second(6)));
        assert_eq!(f.barred(true).len(), 1);
        f.forget(|p| *p == pair(2));
        assert!(f.barred(true).is_empty());
    }

    #[test]
    fn a_pair_that_goes_on_failing_waits_longer_and_never_for_ever() {
        let mut f = Failures::default();
        let mut now = Instant::ZERO;
        let mut waits = Vec::new();
        for _ in 0..25 {
            f.on_join_failed(now, pair(1));
            let start = now;
            while f.barred(false).len() == 1 {
                now = f.next_wait_end().expect("a wait");
                assert!(f.end_waits(now), "something is new whenever there is a reason to look");
            }
            waits.push((now - start).as_secs());
            assert!(f.barred(true).is_empty());
        }
        assert_eq!(waits[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(waits[15..20], [60, 120, 240, 480, 600]);
        assert!(waits[20..].iter().all(|w| *w == 600));
        // Forgiven after a subflow that worked.
        f.on_subflow_lost(now, pair(1), Duration::from_secs(1), true);
        assert_eq!(f.next_wait_end(), Some(now + Duration::from_secs(1)));
    }

    #[test]
    fn an_address_that_failed_is_not_tried_at_once_from_another_of_ours() {
        let mut f = Failures::default();
        for _ in 0..3 {
            f.on_join_failed(second(0), pair(1));
        }
        assert!(f.bars_remote(second(1), pair(1).remote) && !f.bars_remote(second(2), pair(1).remote));
        assert!(!f.bars_remote(second(0), pair(2).remote));
        assert_eq!(f.next_wait_end(), Some(second(2)), "then it may be tried from others");
        assert!(f.end_waits(second(2)));
        assert_eq!(f.next_wait_end(), Some(second(4)));
        // One that has been reached is not to blame.
        f.on_reached(pair(1).remote);
        assert!(!f.bars_remote(second(1), pair(1).remote));
    }

    #[test]
    fn with_no_subflow_left_waits_end_at_once_but_not_again_and_again() {
        let mut f = Failures::default();
        f.on_refused_for_good(pair(2));
        for (at, barred) in [(0, 1), (9, 2), (10, 1)] {
            f.on_join_failed(second(at), pair(1));
            f.on_none_left(second(at));
            assert_eq!(f.barred(false).len(), barred, "{at}");
        }
    }

    #[test]
    fn only_the_same_two_ends_are_those_of_a_subflow_that_was_lost() {
        let mut f = Failures::default();
        let (local, other) = (SocketAddr::new(pair(1).local, 5_000), SocketAddr::new(pair(1).local, 5_001));
        f.on_lost(LostSubflow {
            at: second(0),
            subflow: SubflowId(0),
            local,
            remote: pair(1).remote,
            error: ConnectionError::TimedOut,
            reset: None,
            established: true,
        });
        assert!(f.was_lost(local, pair(1).remote));
        assert!(!f.was_lost(other, pair(1).remote), "another port of ours will do");
        assert!(!f.was_lost(local, pair(2).remote));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut f = Failures::default();
        for n in 0..1000 {
            f.on_join_failed(Instant::ZERO, pair(n));
            f.put_off(pair(n), Instant::ZERO);
        }
        assert_eq!(f.barred(true).len(), PAIRS_KEPT);
    }
}

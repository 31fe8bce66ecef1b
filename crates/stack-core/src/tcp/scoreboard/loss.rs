//! Which bytes are lost: by RACK (RFC 8985), the retransmission timeout, duplicate ACKs; and that they were
//! not after all.

use super::board::Scoreboard;
use super::episode::Phase;
use super::parts::{Sent, Transmission};
use crate::tcp::rtt::RttEstimator;
use crate::types::{Duration, Instant, SubflowOffset};
use alloc::vec::Vec;
use core::fmt::Debug;
use core::ops::Range;

/// RFC 5681's duplicate ACK threshold.
const DUP_THRESH: u64 = 3;

/// What became of a range. See [`Scoreboard::fate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tcp) enum Fate {
    /// None of it is lost.
    NotLost,
    /// Of what was sent, some of it is lost and nothing else.
    LostAlone,
    /// Something else is lost as well, or some of it for the second time.
    LostWithOthers,
}

impl<M: Clone + Debug> Scoreboard<M> {
    /// A recovery episode is in progress: something was judged lost, and not all sent by then is
    /// acknowledged.
    pub(in crate::tcp) fn in_recovery(&self) -> bool {
        self.recovery.is_on()
    }

    /// The present episode includes a retransmission timeout.
    #[cfg(test)]
    pub(in crate::tcp) fn in_rto_recovery(&self) -> bool {
        self.recovery.timed_out()
    }

    /// Where the episode ends.
    #[cfg(test)]
    pub(in crate::tcp) fn recovery_point(&self) -> Option<SubflowOffset> {
        self.recovery.point().map(SubflowOffset)
    }

    /// How far the sender's answer to losses is.
    #[inline]
    pub(in crate::tcp) fn phase(&self) -> Phase {
        self.recovery.phase()
    }

    /// Fast recovery begins: the window is reduced once for all that was sent so far.
    pub(in crate::tcp) fn begin_fast_recovery(&mut self) {
        self.recovery.answer(Phase::Fast { until: self.nxt() });
    }

    /// Recovery after a retransmission timeout begins, or begins anew.
    pub(in crate::tcp) fn begin_timeout_recovery(&mut self) {
        self.recovery.answer(Phase::Loss { until: self.nxt() });
    }

    /// Leaves the phase whose end has been acknowledged, and returns it.
    pub(in crate::tcp) fn end_phase(&mut self) -> Option<Phase> {
        self.recovery.end_phase(self.una())
    }

    /// Whether reordering was ever seen (RFC 8985 §6.2 step 3).
    #[cfg(test)]
    pub(in crate::tcp) fn reordering_seen(&self) -> bool {
        self.rack.reordering_seen()
    }

    /// The path's disorder is a good part of a round-trip time.
    pub(in crate::tcp) fn is_disordered(&self) -> bool {
        self.rack.is_disordered()
    }

    /// RecoverFS of RFC 9937 for the recovery that begins with the ACK whose outcome delivered `delivered`
    /// bytes: what was outstanding and not yet SACKed before that ACK.
    pub(in crate::tcp) fn recovery_flight(&self, delivered: u64) -> u64 {
        self.nxt - self.una - self.sacked.total() + delivered
    }

    /// Marks as lost what RACK judges lost (RFC 8985 §6.2 steps 4 and 5), and returns how many bytes these
    /// are.
    ///
    /// To be called after every ACK and at [`reorder_deadline`](Self::reorder_deadline). If something is lost
    /// and no recovery was on, one begins: [`in_recovery`](Self::in_recovery) turns true by this call.
    pub(in crate::tcp) fn detect_loss(&mut self, now: Instant, rtt: &RttEstimator) -> u64 {
        let mut newly = 0;
        if let Some(newest) = self.rack.begin_detection(rtt.min_rtt(), rtt.srtt()) {
            let allowance = self.rack.rtt() + self.reordering_window(rtt);
            while let Some(front) = self.sent.front().cloned() {
                let limit = match front.tx.id.cmp(&newest.tx.id) {
                    core::cmp::Ordering::Less => front.end,
                    core::cmp::Ordering::Equal => front.end.min(newest.end),
                    core::cmp::Ordering::Greater => break,
                };
                // The front has a live byte at its start.
                if front.start >= limit {
                    break;
                }
                let deadline = front.tx.at + allowance;
                if now < deadline {
                    self.rack.wait_until(deadline);
                    break;
                }
                newly += self.mark_lost(Sent { end: limit, ..front });
                self.prune();
            }
        }
        if !self.lost.is_empty() && !self.recovery.is_on() {
            self.begin_recovery(false);
        }
        newly
    }

    /// When [`detect_loss`](Self::detect_loss) must be called again if no ACK comes before (the RACK
    /// reordering timer).
    ///
    /// It is when the oldest range that awaits the reordering window will be judged lost. RFC 8985 §6.2
    /// recommends one time-out for all of them, the last one's; the first one's repairs sooner and costs more
    /// wake-ups only while ACKs are missing.
    pub(in crate::tcp) fn reorder_deadline(&self) -> Option<Instant> {
        self.rack.deadline()
    }

    /// Marks as lost all that is live of `sent`.
    fn mark_lost(&mut self, mut sent: Sent) -> u64 {
        let mut newly = 0;
        while let Some(r) = self.live(&sent) {
            sent.start = r.end;
            newly += self.lost.insert(r.clone());
            if !sent.first {
                self.resent.remove(r);
            }
        }
        newly
    }

    /// RACK_update_reo_wnd, its value.
    fn reordering_window(&self, rtt: &RttEstimator) -> Duration {
        if !self.rack.reordering_seen() {
            // "SACKed segments" in bytes as RFC 6675 §4 (IsLost) has it: more than two full ones, or three
            // apart.
            let threshold = (DUP_THRESH - 1) * u64::from(self.mss);
            let many = self.sacked.total() > threshold || self.sacked.len() as u64 >= DUP_THRESH;
            if many || self.recovery.is_on() {
                return Duration::ZERO;
            }
        }
        self.rack.window(rtt.srtt().unwrap_or(self.rack.rtt()), rtt.rttvar())
    }

    fn begin_recovery(&mut self, timeout: bool) {
        if self.recovery.begin(self.nxt, timeout) {
            self.undo.begin();
        }
    }

    /// The retransmission timer expired: everything not SACKed is lost, and an episode with a time-out
    /// begins.
    ///
    /// This is RFC 6675 §5.1's and RFC 5681's view, which suits a path that has been silent throughout;
    /// [`mark_lost_on_rto`](Self::mark_lost_on_rto) spares what was sent within the last round trip. If the
    /// very first byte is SACKed the peer has reneged and no SACK counts any longer (RFC 2018 §8).
    pub(in crate::tcp) fn mark_all_lost(&mut self) {
        self.check_reneging();
        let mut at = self.una;
        while let Some(gap) = self.sacked.first_gap(at..self.nxt) {
            at = gap.end;
            self.lost.insert(gap);
        }
        self.resent.clear();
        self.sent.clear();
        self.rack.stop_waiting();
        if !self.lost.is_empty() {
            self.begin_recovery(true);
        }
    }

    /// The retransmission timer expired: as [`mark_all_lost`](Self::mark_all_lost), but of what follows the
    /// first outstanding range only that is lost which was sent longer ago than a round trip and the
    /// reordering window (RFC 8985 §6.3). Returns the bytes newly lost.
    pub(in crate::tcp) fn mark_lost_on_rto(&mut self, now: Instant, rtt: &RttEstimator) -> u64 {
        let before = self.lost.total();
        self.check_reneging();
        if let Some(gap) = self.sacked.first_gap(self.una..self.nxt) {
            let index = self.segment_index(gap.start);
            let end = self.segments.get(index).map_or(gap.end, |s| s.end.min(gap.end));
            self.resent.remove(gap.start..end);
            self.lost.insert(gap.start..end);
            self.begin_recovery(true);
        }
        self.prune();
        let round_trip = self.rack.known_rtt().or(rtt.srtt());
        let allowance = round_trip.unwrap_or_default() + self.reordering_window(rtt);
        while let Some(front) = self.sent.front().filter(|s| s.tx.at + allowance <= now).cloned() {
            self.mark_lost(front);
            self.prune();
        }
        self.rack.stop_waiting();
        self.lost.total() - before
    }

    fn check_reneging(&mut self) {
        if self.sacked.covering(self.una).is_some() {
            self.forget_sacks();
        }
    }

    /// Whether `range` is among what is lost now and was never sent again, and whether anything else is.
    pub(in crate::tcp) fn fate(&self, range: &Range<SubflowOffset>) -> Fate {
        let range = range.start.0.max(self.una)..range.end.0;
        let Some(hit) = self.lost.next_from(range.start).filter(|r| r.start < range.end) else {
            return Fate::NotLost;
        };
        let within = self.lost.first().is_some_and(|r| range.start <= r.start)
            && self.lost.last().is_some_and(|r| r.end <= range.end);
        let once = self.retransmitted.first_gap(hit.clone()) == Some(hit);
        if within && once { Fate::LostAlone } else { Fate::LostWithOthers }
    }

    /// What is lost is no reason for recovery; it is only sent again. Losses found later begin a recovery.
    pub(in crate::tcp) fn forgive(&mut self) {
        self.recovery.forgive();
        self.undo.report();
    }

    /// What is being sent again is needed, even if the peer reports duplicates.
    pub(in crate::tcp) fn close_undo(&mut self) {
        self.undo.report();
    }

    /// The first `len` outstanding bytes are lost, as duplicate ACKs say of a peer without SACK, unless they
    /// were sent again less than a round trip ago. Returns how many bytes that adds.
    pub(in crate::tcp) fn mark_first_lost(&mut self, now: Instant, len: u64) -> u64 {
        let end = self.nxt.min(self.una + len);
        let recent = |tx: Transmission| self.rack.min_rtt().is_some_and(|min| now - tx.at < min);
        if self.una >= end || self.resent.covering(self.una).is_some_and(|(_, tx)| recent(tx)) {
            return 0;
        }
        self.resent.remove(self.una..end);
        let newly = self.lost.insert(self.una..end);
        self.prune();
        if !self.recovery.is_on() {
            self.begin_recovery(false);
        }
        newly
    }

    /// What the peer SACKed it no longer has (reneging, RFC 2018 §8): all of it is lost and will be sent
    /// again.
    pub(in crate::tcp) fn forget_sacks(&mut self) {
        for r in self.sacked.iter() {
            self.lost.insert(r);
        }
        self.sacked.clear();
        if !self.lost.is_empty() && !self.recovery.is_on() {
            self.begin_recovery(true);
        }
    }

    /// After [`spurious`](super::ack::AckOutcome::spurious), or when something else shows it: what was judged
    /// lost but not retransmitted yet is in flight again as it was sent first, so that it is not sent twice
    /// as well. The episode ends. Costs O(n log n); at most once per episode.
    pub(in crate::tcp) fn undo_losses(&mut self) {
        self.undo.report();
        let mut revived: Vec<Range<u64>> = Vec::new();
        for r in self.lost.iter() {
            let mut at = r.start;
            while let Some(once) = self.retransmitted.first_gap(at..r.end) {
                at = once.end;
                revived.push(once);
            }
        }
        for r in revived {
            self.lost.remove(r.clone());
            let mut start = r.start;
            for segment in self.segments.range(self.segment_index(r.start)..) {
                if start >= r.end {
                    break;
                }
                let end = segment.end.min(r.end);
                self.sent.push_back(Sent { start, end, tx: segment.tx, first: true });
                start = end;
            }
        }
        self.sent.make_contiguous().sort_by_key(|s| (s.tx.id, s.start));
        // A retransmission, if it was what was delivered last, must not condemn what was sent before it once
        // more.
        self.rack.forget();
        self.prune();
        self.recovery.undo(self.lost.is_empty());
    }
}

//! Loss detection: RACK (RFC 8985), the retransmission time-out, recovery episodes, and evidence that one was needless.

use super::{Scoreboard, Sent, Transmission};
use crate::buffers::ranges::RangeSet;
use crate::tcp::rtt::RttEstimator;
use crate::types::{Duration, Instant, SubflowOffset};
use alloc::vec::Vec;
use core::fmt::Debug;
use core::ops::Range;

/// Recoveries without D-SACK after which an inflated reordering window shrinks back (RFC 8985 §6.2 step 4).
const WINDOW_PERSISTS: u32 = 16;
/// RFC 5681's duplicate ACK threshold.
const DUP_THRESH: u64 = 3;
/// Ranges beyond which we no longer try to learn whether all retransmissions of an episode were needless.
const UNDO_RANGES: usize = 1_024;

/// What became of a range. See [`Scoreboard::fate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// None of it is lost.
    NotLost,
    /// Of what was sent, some of it is lost and nothing else.
    LostAlone,
    /// Something else is lost as well, or some of it for the second time.
    LostWithOthers,
}

/// A recovery episode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recovery {
    /// SND.NXT when it began; it ends when that is acknowledged (RFC 6675 §5).
    pub(super) point: u64,
    /// The retransmission timer expired in it.
    pub(super) rto: bool,
}

/// A delivered range: its last transmission and its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivered {
    pub(super) tx: Transmission,
    pub(super) end: u64,
}

impl Delivered {
    /// RACK_sent_after. The packets one large segment was split into left in the order of their sequence.
    pub(super) fn sent_after(&self, other: &Delivered) -> bool {
        (self.tx.id, self.end) > (other.tx.id, other.end)
    }
}

/// State of RFC 8985 §5.2 and §5.3.
#[derive(Clone, Debug)]
pub(super) struct Rack {
    /// RACK.segment: the most recently sent of what was delivered.
    segment: Option<Delivered>,
    /// RACK.rtt.
    rtt: Duration,
    /// RACK.min_RTT, as the estimator last had it.
    pub(super) min_rtt: Option<Duration>,
    /// RACK.fack: end of the highest delivered range.
    pub(super) fack: u64,
    pub(super) reordering_seen: bool,
    dsack_round: Option<u64>,
    window_multiplier: u32,
    window_persist: u32,
    deadline: Option<Instant>,
}

impl Rack {
    pub(super) fn new() -> Self {
        Rack {
            segment: None,
            rtt: Duration::ZERO,
            min_rtt: None,
            fack: 0,
            reordering_seen: false,
            dsack_round: None,
            window_multiplier: 1,
            window_persist: WINDOW_PERSISTS,
            deadline: None,
        }
    }

    /// How many quarters of the least round-trip time the reordering window is.
    #[cfg(test)]
    pub(super) fn multiplier(&self) -> u32 {
        self.window_multiplier
    }

    /// RACK_update, given the most recently sent of what an ACK delivered.
    pub(super) fn update(&mut self, now: Instant, delivered: Delivered) {
        self.rtt = now - delivered.tx.at;
        if self.segment.is_none_or(|s| delivered.sent_after(&s)) {
            self.segment = Some(delivered);
        }
    }

    /// The part of RACK_update_reo_wnd that adapts the multiplier; `exiting`: a recovery ended with this ACK.
    pub(super) fn adapt_window(&mut self, una: u64, nxt: u64, dsack: bool, exiting: bool) {
        if self.dsack_round.is_some_and(|round| una >= round) {
            self.dsack_round = None;
        }
        if self.dsack_round.is_none() && dsack {
            self.dsack_round = Some(nxt);
            self.window_multiplier = self.window_multiplier.saturating_add(1);
            self.window_persist = WINDOW_PERSISTS;
        } else if exiting {
            self.window_persist = self.window_persist.saturating_sub(1);
            if self.window_persist == 0 {
                self.window_multiplier = 1;
            }
        }
    }
}

/// Whether the retransmissions of an episode were needed.
#[derive(Clone, Debug)]
pub(super) struct Undo {
    /// When the episode's first retransmission was made.
    pub(super) first_retransmission: Option<Instant>,
    /// Retransmitted in this episode and not reported twice by a D-SACK.
    pending: RangeSet,
    /// Nothing more can be learned: reported already, or too many ranges to follow.
    closed: bool,
    retransmissions: u64,
    dsacks: u64,
}

impl Undo {
    pub(super) const fn new() -> Self {
        Undo {
            first_retransmission: None,
            pending: RangeSet::new(),
            closed: false,
            retransmissions: 0,
            dsacks: 0,
        }
    }

    fn begin(&mut self) {
        self.first_retransmission = None;
        self.pending.clear();
        self.closed = false;
    }

    /// Counts a retransmission; `episode`: it belongs to one.
    pub(super) fn retransmitted(&mut self, at: Instant, range: Range<u64>, episode: bool) {
        self.retransmissions += 1;
        if episode && !self.closed {
            self.first_retransmission.get_or_insert(at);
            self.pending.insert(range);
            if self.pending.len() > UNDO_RANGES {
                self.closed = true;
                self.pending.clear();
            }
        }
    }

    /// Counts a D-SACK; false when there are now more of them than retransmissions.
    pub(super) fn count_dsack(&mut self) -> bool {
        self.dsacks += 1;
        self.dsacks <= self.retransmissions
    }

    /// There was ever a D-SACK.
    pub(super) fn dsack_seen(&self) -> bool {
        self.dsacks > 0
    }

    /// A D-SACK reported `range`: whether every retransmission of the episode has now arrived twice.
    pub(super) fn all_duplicated(&mut self, range: Range<u64>) -> bool {
        !self.closed && self.pending.remove(range) > 0 && self.pending.is_empty()
    }

    /// The episode is found to be needless: true the first time.
    pub(super) fn report(&mut self) -> bool {
        !core::mem::replace(&mut self.closed, true)
    }
}

impl<M: Clone + Debug> Scoreboard<M> {
    /// A recovery episode is on: something was judged lost, and not all that had been sent by then is acknowledged.
    pub fn in_recovery(&self) -> bool {
        self.recovery.is_some()
    }

    /// The episode on includes a retransmission time-out.
    pub fn in_rto_recovery(&self) -> bool {
        self.recovery.is_some_and(|r| r.rto)
    }

    /// Where the episode ends.
    pub fn recovery_point(&self) -> Option<SubflowOffset> {
        self.recovery.map(|r| SubflowOffset(r.point))
    }

    /// Whether reordering was ever seen (RFC 8985 §6.2 step 3).
    pub fn reordering_seen(&self) -> bool {
        self.rack.reordering_seen
    }

    /// RecoverFS of RFC 9937 for the recovery that begins with the ACK whose outcome delivered `delivered` bytes: what
    /// was outstanding and not yet SACKed before that ACK.
    pub fn recovery_flight(&self, delivered: u64) -> u64 {
        self.nxt - self.una - self.sacked.total() + delivered
    }

    /// Marks as lost what RACK judges lost (RFC 8985 §6.2 steps 4 and 5), and returns how many bytes these are.
    ///
    /// To be called after every ACK and at [`reorder_deadline`](Self::reorder_deadline). If something is lost and no
    /// recovery was on, one begins: [`in_recovery`](Self::in_recovery) turns true by this call.
    pub fn detect_loss(&mut self, now: Instant, rtt: &RttEstimator) -> u64 {
        self.rack.min_rtt = rtt.min_rtt();
        self.rack.deadline = None;
        let mut newly = 0;
        if let Some(newest) = self.rack.segment {
            let allowance = self.rack.rtt + self.reordering_window(rtt);
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
                    self.rack.deadline = Some(deadline);
                    break;
                }
                newly += self.mark_lost(Sent { end: limit, ..front });
                self.prune();
            }
        }
        if !self.lost.is_empty() && self.recovery.is_none() {
            self.begin_recovery(false);
        }
        newly
    }

    /// When [`detect_loss`](Self::detect_loss) must be called again if no ACK comes before (the RACK reordering timer).
    ///
    /// It is when the oldest range that awaits the reordering window will be judged lost. RFC 8985 §6.2 recommends one time-out for all
    /// of them, the last one's; the first one's repairs sooner and costs more wake-ups only while ACKs are missing.
    pub fn reorder_deadline(&self) -> Option<Instant> {
        self.rack.deadline
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
        if !self.rack.reordering_seen {
            // "SACKed segments" in bytes as RFC 6675 §4 (IsLost) has it: more than two full ones, or three apart.
            let threshold = (DUP_THRESH - 1) * u64::from(self.mss);
            let many = self.sacked.total() > threshold || self.sacked.len() as u64 >= DUP_THRESH;
            if many || self.recovery.is_some() {
                return Duration::ZERO;
            }
        }
        let min = self.rack.min_rtt.unwrap_or(self.rack.rtt);
        let window = (min / 4).saturating_mul(self.rack.window_multiplier);
        window.min(rtt.srtt().unwrap_or(self.rack.rtt))
    }

    fn begin_recovery(&mut self, rto: bool) {
        // A time-out within a time-out's recovery is the same episode (RFC 5681 §3.1 reduces once).
        if !self.recovery.is_some_and(|r| r.rto) {
            self.undo.begin();
        }
        self.recovery = Some(Recovery { point: self.nxt, rto });
    }

    /// The retransmission timer expired: everything not SACKed is lost, and an episode with a time-out begins.
    ///
    /// This is RFC 6675 §5.1's and RFC 5681's view, which suits a path that has been silent throughout;
    /// [`mark_lost_on_rto`](Self::mark_lost_on_rto) spares what was sent within the last round trip. If the very first byte is SACKed
    /// the peer has reneged and no SACK counts any longer (RFC 2018 §8).
    pub fn mark_all_lost(&mut self) {
        self.check_reneging();
        let mut at = self.una;
        while let Some(gap) = self.sacked.first_gap(at..self.nxt) {
            at = gap.end;
            self.lost.insert(gap);
        }
        self.resent.clear();
        self.sent.clear();
        self.rack.deadline = None;
        if !self.lost.is_empty() {
            self.begin_recovery(true);
        }
    }

    /// The retransmission timer expired: as [`mark_all_lost`](Self::mark_all_lost), but of what follows the first outstanding range only
    /// that is lost which was sent longer ago than a round trip and the reordering window (RFC 8985 §6.3). Returns the bytes newly lost.
    pub fn mark_lost_on_rto(&mut self, now: Instant, rtt: &RttEstimator) -> u64 {
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
        let round_trip = if self.rack.segment.is_some() { Some(self.rack.rtt) } else { rtt.srtt() };
        let allowance = round_trip.unwrap_or_default() + self.reordering_window(rtt);
        while let Some(front) = self.sent.front().filter(|s| s.tx.at + allowance <= now).cloned() {
            self.mark_lost(front);
            self.prune();
        }
        self.rack.deadline = None;
        self.lost.total() - before
    }

    fn check_reneging(&mut self) {
        if self.sacked.covering(self.una).is_some() {
            self.forget_sacks();
        }
    }

    /// Whether `range` is among what is lost now and was never sent again, and whether anything else is.
    pub fn fate(&self, range: &Range<SubflowOffset>) -> Fate {
        let range = range.start.0.max(self.una)..range.end.0;
        let Some(hit) = self.lost.next_from(range.start).filter(|r| r.start < range.end) else {
            return Fate::NotLost;
        };
        let within = self.lost.first().is_some_and(|r| range.start <= r.start)
            && self.lost.last().is_some_and(|r| r.end <= range.end);
        let once = self.retransmitted.first_gap(hit.clone()) == Some(hit);
        if within && once { Fate::LostAlone } else { Fate::LostWithOthers }
    }

    /// What is lost is no reason for a recovery; it remains to be sent again. Should anything be found lost later, a recovery begins.
    pub fn forgive(&mut self) {
        self.recovery = None;
        self.undo.report();
    }

    /// Whatever the peer says, what is being sent again is not to be taken for needless.
    pub fn close_undo(&mut self) {
        self.undo.report();
    }

    /// The first `len` outstanding bytes are lost, as duplicate ACKs say of a peer without SACK, unless they were sent again less than a round trip
    /// ago. Returns how many bytes that adds.
    pub fn mark_first_lost(&mut self, now: Instant, len: u64) -> u64 {
        let end = self.nxt.min(self.una + len);
        let recent = |tx: Transmission| self.rack.min_rtt.is_some_and(|min| now - tx.at < min);
        if self.una >= end || self.resent.covering(self.una).is_some_and(|(_, tx)| recent(tx)) {
            return 0;
        }
        self.resent.remove(self.una..end);
        let newly = self.lost.insert(self.una..end);
        self.prune();
        if self.recovery.is_none() {
            self.begin_recovery(false);
        }
        newly
    }

    /// What the peer SACKed it no longer has (reneging, RFC 2018 §8): all of it is lost and will be sent again.
    pub fn forget_sacks(&mut self) {
        for r in self.sacked.iter() {
            self.lost.insert(r);
        }
        self.sacked.clear();
        if !self.lost.is_empty() && self.recovery.is_none() {
            self.begin_recovery(true);
        }
    }

    /// After [`spurious`](super::AckOutcome::spurious), or when something else shows it: what was judged lost but not retransmitted yet is in
    /// flight again as it was sent first, so that it is not sent twice as well. The episode ends. Costs O(n log n); at most once per episode.
    pub fn undo_losses(&mut self) {
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
        // A retransmission, if it was what was delivered last, must not condemn what was sent before it once more.
        self.rack.segment = None;
        self.rack.deadline = None;
        self.prune();
        if self.lost.is_empty() {
            self.recovery = None;
        }
    }
}

//! State of RACK (RFC 8985 §5.2, §5.3).
//!
//! Requirement by requirement: `docs/src/conformance-rfc8985.md`.

use super::parts::Transmission;
use crate::types::{Duration, Instant};

/// Recoveries without D-SACK after which an inflated reordering window shrinks back (RFC 8985 §6.2 step 4).
const WINDOW_PERSISTS: u32 = 16;
/// Packets that come later than others by this part of a round-trip time make delays hard to read. HyStart++
/// takes as much for a queue (RFC 9406 §4.3).
const DISORDER_DIVISOR: u32 = 8;

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
    /// RACK.min_RTT and SRTT, as the estimator last had them.
    min_rtt: Option<Duration>,
    srtt: Option<Duration>,
    /// RACK.fack: end of the highest delivered range.
    fack: u64,
    reordering_seen: bool,
    /// The longest that something sent once came after it was due, since the window was last reset.
    lateness: Duration,
    /// Since then something came so late behind what was sent after it that round-trip times say little about
    /// queues.
    disordered: bool,
    dsack_round: Option<u64>,
    window_multiplier: u32,
    window_persist: u32,
    deadline: Option<Instant>,
}

impl Rack {
    /// Nothing delivered.
    pub(super) fn new() -> Self {
        Rack {
            segment: None,
            rtt: Duration::ZERO,
            min_rtt: None,
            srtt: None,
            fack: 0,
            reordering_seen: false,
            lateness: Duration::ZERO,
            disordered: false,
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

    /// How late something came at most.
    #[cfg(test)]
    pub(super) fn lateness(&self) -> Duration {
        self.lateness
    }

    /// RACK.min_RTT.
    pub(super) fn min_rtt(&self) -> Option<Duration> {
        self.min_rtt
    }

    /// The round-trip time after which something is due: RACK.rtt.
    ///
    /// Where packets overtake one another by much it may be that of a packet which took a fraction of the
    /// usual time, and says little about those that it overtook. They are due after SRTT at the earliest.
    pub(super) fn rtt(&self) -> Duration {
        if self.disordered { self.usual_rtt() } else { self.rtt }
    }

    /// The same, if RACK.segment is known.
    pub(super) fn known_rtt(&self) -> Option<Duration> {
        self.segment.map(|_| self.rtt())
    }

    fn usual_rtt(&self) -> Duration {
        self.rtt.max(self.srtt.unwrap_or_default())
    }

    /// Whether reordering was ever seen (RFC 8985 §6.2 step 3).
    pub(super) fn reordering_seen(&self) -> bool {
        self.reordering_seen
    }

    /// Reordering was seen.
    pub(super) fn on_reordering(&mut self) {
        self.reordering_seen = true;
    }

    /// What was sent at `sent` and never again, or again for no reason, has come out of order. The window is
    /// to be as long as it was late: RFC 8985 §3.3.2 wants it to adapt to the measured duration of
    /// reordering, and a D-SACK per round trip would need many of these, and of a short least round-trip time
    /// most.
    pub(super) fn on_late(&mut self, now: Instant, sent: Instant) {
        let lateness = (now - sent).saturating_sub(self.usual_rtt());
        if lateness > self.lateness / 2 {
            self.window_persist = WINDOW_PERSISTS;
        }
        self.lateness = self.lateness.max(lateness);
        let behind = (now - sent).saturating_sub(self.rtt);
        self.disordered |= behind > self.usual_rtt() / DISORDER_DIVISOR;
    }

    /// The path's disorder is a good part of a round-trip time.
    pub(super) fn is_disordered(&self) -> bool {
        self.disordered
    }

    /// A range up to `end` was delivered. True: never sent again, and yet after something above it (RFC 8985
    /// §6.2 step 3).
    pub(super) fn on_delivered(&mut self, end: u64, retransmitted: bool) -> bool {
        if end > self.fack {
            self.fack = end;
        }
        end < self.fack && !retransmitted
    }

    /// RACK_update, given the most recently sent of what an ACK delivered.
    pub(super) fn update(&mut self, now: Instant, delivered: Delivered) {
        self.rtt = now - delivered.tx.at;
        if self.segment.is_none_or(|s| delivered.sent_after(&s)) {
            self.segment = Some(delivered);
        }
    }

    /// Loss detection begins, with the estimator's least and smoothed round-trip times. Returns RACK.segment.
    pub(super) fn begin_detection(
        &mut self,
        min_rtt: Option<Duration>,
        srtt: Option<Duration>,
    ) -> Option<Delivered> {
        self.min_rtt = min_rtt;
        self.srtt = srtt;
        self.deadline = None;
        self.segment
    }

    /// Something will be lost at `deadline` unless it is delivered before.
    pub(super) fn wait_until(&mut self, deadline: Instant) {
        self.deadline = Some(deadline);
    }

    /// Nothing is waited for.
    pub(super) fn stop_waiting(&mut self) {
        self.deadline = None;
    }

    /// When loss detection is to be done again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// What was delivered last does not condemn what was sent before it.
    pub(super) fn forget(&mut self) {
        self.segment = None;
        self.deadline = None;
    }

    /// RACK_update_reo_wnd, its value.
    ///
    /// RFC 8985 §3.3.2 has SRTT as its bound. That is for round-trip times which are much the same for all
    /// packets. Where disorder makes them differ by as much as they are long, what is only late comes later
    /// than that, so that the measured window may be longer by twice their variation.
    pub(super) fn window(&self, srtt: Duration, variation: Duration) -> Duration {
        let min = self.min_rtt.unwrap_or(self.rtt);
        // A quarter more than what was late last: the next may be a little later.
        let measured = self.lateness.saturating_add(self.lateness / 4);
        let stepwise = (min / 4).saturating_mul(self.window_multiplier).min(srtt);
        stepwise.max(measured.min(srtt.saturating_add(2 * variation)))
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
                self.lateness = Duration::ZERO;
                self.disordered = false;
            }
        }
    }
}

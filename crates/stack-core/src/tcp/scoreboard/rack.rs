//! State of RACK (RFC 8985 §5.2, §5.3).

use super::parts::Transmission;
use crate::types::{Duration, Instant};

/// Recoveries without D-SACK after which an inflated reordering window shrinks back (RFC 8985 §6.2 step 4).
const WINDOW_PERSISTS: u32 = 16;

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
    min_rtt: Option<Duration>,
    /// RACK.fack: end of the highest delivered range.
    fack: u64,
    reordering_seen: bool,
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

    /// RACK.min_RTT.
    pub(super) fn min_rtt(&self) -> Option<Duration> {
        self.min_rtt
    }

    /// RACK.rtt.
    pub(super) fn rtt(&self) -> Duration {
        self.rtt
    }

    /// RACK.rtt, if RACK.segment is known.
    pub(super) fn known_rtt(&self) -> Option<Duration> {
        self.segment.map(|_| self.rtt)
    }

    /// Whether reordering was ever seen (RFC 8985 §6.2 step 3).
    pub(super) fn reordering_seen(&self) -> bool {
        self.reordering_seen
    }

    /// Reordering was seen.
    pub(super) fn on_reordering(&mut self) {
        self.reordering_seen = true;
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

    /// Loss detection begins, with this least round-trip time. Returns RACK.segment.
    pub(super) fn begin_detection(&mut self, min_rtt: Option<Duration>) -> Option<Delivered> {
        self.min_rtt = min_rtt;
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

    /// RACK_update_reo_wnd, its value before bounds.
    pub(super) fn window(&self) -> Duration {
        let min = self.min_rtt.unwrap_or(self.rtt);
        (min / 4).saturating_mul(self.window_multiplier)
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

//! What loss recovery keeps besides the scoreboard: rate reduction, tail loss probe, F-RTO, duplicate ACKs.

use crate::tcp::frto::{Frto, Verdict};
use crate::tcp::prr::Prr;
use crate::tcp::tlp::TailProbe;
use umptcp_types::SubflowOffset;

/// State of loss recovery.
#[derive(Clone, Debug)]
pub(super) struct LossRecovery {
    prr: Prr,
    /// What proportional rate reduction lets us send until the next ACK.
    budget: u64,
    /// Bytes sent again before the present fast recovery.
    retransmitted_before: u64,
    /// The episode of a tail loss probe.
    pub(super) tail: TailProbe,
    /// Whether a timeout was needless, for a peer without timestamps.
    pub(super) frto: Frto,
    /// SND.NXT at the first timeout of the last episode that had one.
    timeout_point: Option<SubflowOffset>,
    /// After a spurious timeout: a measurement by data from here on makes the timer more conservative (RFC
    /// 4015 §3.6).
    adapt_rtt_after: Option<SubflowOffset>,
    /// Duplicate ACKs in a row, where the peer does without SACK (RFC 5681 §3.2).
    dup_acks: u32,
}

impl LossRecovery {
    /// Nothing lost.
    pub(super) fn new() -> Self {
        LossRecovery {
            prr: Prr::new(),
            budget: 0,
            retransmitted_before: 0,
            tail: TailProbe::new(),
            frto: Frto::new(),
            timeout_point: None,
            adapt_rtt_after: None,
            dup_acks: 0,
        }
    }

    /// Fast recovery begins with `flight` bytes outstanding (RFC 9937's RecoverFS) and `retransmitted` ever
    /// sent again.
    pub(super) fn begin_fast(&mut self, flight: u64, ssthresh: u64, mss: u32, retransmitted: u64) {
        self.retransmitted_before = retransmitted;
        self.prr.enter(flight, ssthresh);
        // RFC 6937 §3.1 leaves the first retransmission to the recovery algorithm: one segment at once.
        self.budget = u64::from(mss);
        self.timeout_point = None;
        self.tail.reset();
    }

    /// Fast recovery ends. Returns how many bytes were sent again in it, of `retransmitted` ever.
    pub(super) fn end_fast(&mut self, retransmitted: u64) -> u64 {
        self.prr.exit();
        retransmitted - self.retransmitted_before
    }

    /// An ACK in fast recovery (see [`Prr::on_ack`]); `began`: the one that it began with.
    pub(super) fn on_fast_ack(&mut self, delivered: u64, in_flight: u64, safe: bool, mss: u32, began: bool) {
        let budget = self.prr.on_ack(delivered, in_flight, safe, mss);
        self.budget = if began { self.budget.max(budget) } else { budget };
    }

    /// What may be sent in fast recovery.
    pub(super) fn budget(&self) -> u64 {
        self.budget
    }

    /// `len` bytes were sent, or sent again.
    pub(super) fn on_sent(&mut self, len: u64) {
        self.budget = self.budget.saturating_sub(len);
        self.prr.on_sent(len);
    }

    /// The first timeout of an episode, with `nxt` as SND.NXT.
    pub(super) fn on_first_timeout(&mut self, nxt: SubflowOffset) {
        self.timeout_point = Some(nxt);
    }

    /// Recovery after a timeout begins.
    pub(super) fn begin_timeout(&mut self) {
        self.prr.exit();
        self.dup_acks = 0;
    }

    /// There was a timeout in the last episode.
    pub(super) fn timed_out(&self) -> bool {
        self.timeout_point.is_some()
    }

    /// What was done turned out to be needless.
    pub(super) fn on_undone(&mut self) {
        self.frto.stop();
        self.prr.exit();
        self.adapt_rtt_after = self.timeout_point.take().or(self.adapt_rtt_after);
    }

    /// A round-trip time was measured by an ACK of `ack`. True: by the first data that were new when the
    /// timer expired needlessly (RFC 4015 §3.1 step 11).
    pub(super) fn on_rtt_sample(&mut self, ack: SubflowOffset) -> bool {
        self.tail.on_rtt_sample();
        self.adapt_rtt_after.take_if(|after| ack > *after).is_some()
    }

    /// F-RTO's verdict on an ACK: data in flight at the timeout arrive (see [`Frto::on_ack`]).
    pub(super) fn is_forwarded(
        &mut self,
        ack: SubflowOffset,
        advanced: bool,
        highest: SubflowOffset,
        delivered: u64,
        nxt: SubflowOffset,
    ) -> bool {
        self.frto.on_ack(ack, advanced, highest, delivered, nxt) == Verdict::Spurious
    }

    /// SND.UNA advanced.
    pub(super) fn on_advance(&mut self) {
        self.dup_acks = 0;
    }

    /// A duplicate ACK. Returns how many that makes in a row.
    pub(super) fn on_duplicate_ack(&mut self) -> u32 {
        self.dup_acks = self.dup_acks.saturating_add(1);
        self.dup_acks
    }

    /// Segments of new data that duplicate ACKs let out beyond the window (RFC 3042: for each of the first
    /// two).
    pub(super) fn limited_transmit(&self) -> u32 {
        self.dup_acks.min(2)
    }
}

//! What an acknowledgement brings about: round-trip time, loss recovery, undo of needless recovery, congestion control.

use super::frto::Verdict;
use super::input::Outcome;
use super::scoreboard::{AckOutcome, Evidence};
use super::{Recovery, Tcp};
use crate::wire::tcp::TcpRepr;
use core::fmt::Debug;
use core::ops::Range;
use smallvec::SmallVec;
use umptcp_congestion::{AckSample, CongestionController};
use umptcp_types::{Duration, Instant, SubflowOffset};

/// A recovery that turned out to be needless, by how that was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Undone {
    /// A retransmission timeout, by timestamps (RFC 3522) or because nothing had been sent again.
    TimeoutByTimestamp,
    /// A retransmission timeout, by F-RTO (RFC 5682).
    TimeoutByForwarding,
    /// Either, since all that was sent again arrived twice (RFC 3708).
    Duplicates {
        /// There was a timeout.
        timeout: bool,
    },
    /// A fast recovery, by timestamps or because nothing had been sent again.
    Recovery,
}

impl Undone {
    /// A retransmission timeout was needless, not only a fast retransmission.
    pub(crate) fn was_timeout(self) -> bool {
        !matches!(self, Undone::Recovery | Undone::Duplicates { timeout: false })
    }
}

impl<M: Copy + Debug> Tcp<M> {
    /// Scoreboard, RTT, recovery and congestion control for one ACK.
    pub(super) fn on_acknowledged(
        &mut self,
        now: Instant,
        seg: &TcpRepr,
        ack: SubflowOffset,
        cc: &mut dyn CongestionController,
        out: &mut Outcome,
    ) {
        let sacks = self.sack_blocks(seg, ack);
        if self.board.is_empty() {
            self.progress = now;
        }
        let echoed = seg.options.timestamps.filter(|t| self.timestamps && t.echo != 0).and_then(|t| {
            let age = self.timestamp_now(now).wrapping_sub(t.echo);
            (age < 1 << 31).then(|| Duration::from_millis(u64::from(age)))
        });
        let o = self.board.on_ack(now, ack, &sacks, echoed);
        if let Some(rtt) = o.rtt {
            self.take_rtt_sample(now, rtt, ack);
        }
        if let Some(larger) = self.pmtu.on_acked(now, ack) {
            self.set_packet_size(larger, cc);
            out.larger_packets = true;
        }
        out.acked = o.delivered;
        out.advanced = o.cumulative > 0;
        self.stats.bytes_acked += o.cumulative - u64::from(o.syn_acked) - u64::from(o.fin_acked);
        if out.advanced {
            self.progress = now;
            self.rtt.reset_back_off();
            self.resend_first = false;
        }
        if o.delivered > 0 {
            self.loss *= 0.98;
        }
        self.check_tail_probe(now, seg, ack, &o, cc, out);
        self.check_undo(now, seg, ack, &sacks, &o, cc, out);
        // RACK needs SACK (RFC 8985 §3.1): without, all that is behind a hole would look lost.
        let (lost, delivered) = if self.sack {
            (self.board.detect_loss(now, &self.rtt), o.delivered)
        } else {
            let (lost, left) = self.count_duplicates(now, ack, out);
            (lost, o.delivered + left)
        };
        out.recovery = self.on_lost(now, lost, delivered, cc);
        let recovering = self.recovery != Recovery::Open;
        if self.ecn.on_ack(seg.flags, ack, self.board.nxt(), recovering) {
            cc.on_ecn(now, self.id, self.board.in_flight());
            out.congestion_marked = true;
        }
        // RFC 9937's SafeACK: progress, and nothing more lost.
        let safe = out.advanced && lost == 0;
        match self.recovery {
            Recovery::Fast { until } => {
                if self.recovered(until) {
                    self.recovery = Recovery::Open;
                    self.prr.exit();
                    let retransmitted = self.stats.bytes_retransmitted - self.retransmitted_before;
                    cc.on_recovered(now, self.id, retransmitted);
                } else {
                    let budget = self.prr.on_ack(delivered, self.board.in_flight(), safe, self.send_mss);
                    self.prr_budget = if out.recovery { self.prr_budget.max(budget) } else { budget };
                }
            }
            Recovery::Loss { until } if self.recovered(until) => self.recovery = Recovery::Open,
            _ => {}
        }
        if o.delivered > 0 {
            let mut sample = AckSample::new(o.delivered, self.rtt.srtt().unwrap_or(Duration::from_secs(1)));
            sample.rtt = o.rtt;
            sample.min_rtt = self.rtt.min_rtt().unwrap_or(Duration::from_secs(1));
            sample.in_flight = self.board.in_flight();
            sample.app_limited = !self.window_limited(cc);
            sample.in_recovery = matches!(self.recovery, Recovery::Fast { .. });
            cc.on_ack(now, self.id, &sample);
        }
        if ack >= self.round_end && out.advanced {
            cc.on_round(now, self.id);
            self.round_end = self.board.nxt();
        }
        if out.advanced || o.delivered > 0 {
            self.arm_retransmit(now);
        }
        if o.fin_acked {
            self.on_fin_acked(now, out);
        }
    }

    /// The SACK blocks of a segment, as offsets.
    fn sack_blocks(&self, seg: &TcpRepr, ack: SubflowOffset) -> SmallVec<[Range<SubflowOffset>; 4]> {
        let mut sacks = SmallVec::new();
        if self.sack {
            let nxt = self.board.nxt();
            for (left, right) in &seg.options.sack {
                let l = SubflowOffset::from_wire(*left, self.config.isn, ack);
                let r = SubflowOffset::from_wire(*right, self.config.isn, ack);
                if let (Some(l), Some(r)) = (l, r)
                    && l < r
                    && r <= nxt
                {
                    sacks.push(l..r);
                }
            }
        }
        sacks
    }

    /// Fast retransmit and NewReno for a peer without SACK (RFC 5681 §3.2, RFC 6582 §3.2). Returns the bytes now taken for lost, and
    /// those that a duplicate ACK says have left the network.
    fn count_duplicates(&mut self, now: Instant, ack: SubflowOffset, out: &Outcome) -> (u64, u64) {
        if out.advanced {
            self.dup_acks = 0;
            // A partial acknowledgement: the next hole is where it ends.
            let partial = matches!(self.recovery, Recovery::Fast { until } if ack < until);
            return if partial {
                (self.board.mark_first_lost(now, u64::from(self.send_mss)), 0)
            } else {
                (0, 0)
            };
        }
        if !out.pure || out.window_changed || self.board.is_empty() {
            return (0, 0);
        }
        self.dup_acks = self.dup_acks.saturating_add(1);
        let packet = u64::from(self.send_mss).min(self.board.in_flight());
        let lost = if self.dup_acks == 3 && self.recovery == Recovery::Open {
            self.board.mark_first_lost(now, u64::from(self.send_mss))
        } else {
            0
        };
        (lost, packet)
    }

    fn take_rtt_sample(&mut self, now: Instant, rtt: Duration, ack: SubflowOffset) {
        self.tail.on_rtt_sample();
        if self.adapt_rtt_after.is_some_and(|after| ack > after) {
            // RFC 4015 §3.1 step 11: the first measurement by data that were new when the timer expired needlessly.
            self.adapt_rtt_after = None;
            self.rtt.sample_after_spurious_timeout(now, rtt);
        } else {
            self.rtt.sample(now, rtt);
        }
    }

    /// RFC 8985 §7.4.2: a probe that repaired a loss nothing else shows is answered like any loss.
    fn check_tail_probe(
        &mut self,
        now: Instant,
        seg: &TcpRepr,
        ack: SubflowOffset,
        o: &AckOutcome,
        cc: &mut dyn CongestionController,
        out: &mut Outcome,
    ) {
        let duplicate = out.pure && o.cumulative == 0 && seg.options.sack.is_empty();
        let dsack = o.dsack_range.as_ref();
        let echo = seg.options.timestamps.filter(|t| self.timestamps && t.echo != 0).map(|t| t.echo);
        if self.tail.on_ack(ack, dsack, duplicate, echo) && self.recovery == Recovery::Open {
            cc.on_loss(now, self.id, self.board.recovery_flight(o.delivered));
            out.probe_repaired = true;
        }
    }

    /// Takes back what a recovery did that turns out to have been needless (RFC 3522, RFC 3708, RFC 5682).
    #[allow(clippy::too_many_arguments)] // One ACK has that many sides.
    fn check_undo(
        &mut self,
        now: Instant,
        seg: &TcpRepr,
        ack: SubflowOffset,
        sacks: &[Range<SubflowOffset>],
        o: &AckOutcome,
        cc: &mut dyn CongestionController,
        out: &mut Outcome,
    ) {
        let highest = sacks.iter().map(|s| s.end).max().unwrap_or(ack).max(ack);
        let counts = out.advanced || o.delivered > 0 || out.pure;
        let forwarded = counts
            && self.frto.on_ack(ack, out.advanced, highest, o.delivered, self.board.nxt())
                == Verdict::Spurious;
        let timeout = self.timeout_point.is_some();
        let undone = match o.spurious {
            Some(Evidence::Timestamp | Evidence::Late) if timeout => Undone::TimeoutByTimestamp,
            Some(Evidence::Timestamp | Evidence::Late) => Undone::Recovery,
            Some(Evidence::Duplicates) => Undone::Duplicates { timeout },
            None if forwarded => Undone::TimeoutByForwarding,
            None => return,
        };
        self.stats.undone += 1;
        self.frto.stop();
        self.board.undo_losses();
        // RFC 4015 §3.1 step 9: a mark is a reason of its own to stay with the smaller window.
        if !(self.ecn.enabled() && seg.flags.ece) {
            cc.undo(now, self.id);
        }
        self.recovery = Recovery::Open;
        self.prr.exit();
        self.adapt_rtt_after = self.timeout_point.take().or(self.adapt_rtt_after);
        out.undone = Some(undone);
    }

    /// RFC 7661's question: did the congestion window limit us in this round? In slow start a window used by half
    /// may still grow, because growth per round doubles it.
    fn window_limited(&self, cc: &dyn CongestionController) -> bool {
        let window = cc.window(self.id);
        self.limited.full || (window < cc.ssthresh(self.id) && window < 2 * self.limited.max_in_flight)
    }
}

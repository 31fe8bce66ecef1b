//! Losses and timeouts, and the timers against them.

use super::half::{Moment, Sender};
use crate::tcp::rtt::pto;
use crate::tcp::scoreboard::{Fate, Phase};
use crate::tcp::timers::{Timer, Timers};
use core::fmt::Debug;
use umptcp_congestion::CongestionController;
use umptcp_types::{Duration, Instant};

/// How long the peer is taken to hold an ACK back (RFC 8985 §7.2's TLP.max_ack_delay): a round-trip time,
/// within these bounds. Linux holds one back for no longer than the greater of a round-trip time and 40 ms,
/// and never above 200 ms.
const MIN_ACK_DELAY: Duration = Duration::from_millis(50);
const MAX_ACK_DELAY: Duration = Duration::from_millis(200);
/// Least allowance for variation before a path is suspected to be silent: of a queue on the way, or of a
/// processor that has other things to do.
const SILENCE_ALLOWANCE: Duration = Duration::from_millis(20);
/// How fast the smoothed share of lost bytes rises.
const LOSS_GAIN: f32 = 0.1;

impl<M: Copy + Debug> Sender<M> {
    /// Losses were found: begin fast recovery unless one is under way. True when it began.
    pub(super) fn on_lost(
        &mut self,
        m: Moment,
        lost: u64,
        delivered: u64,
        timers: &mut Timers,
        cc: &mut dyn CongestionController,
    ) -> bool {
        if self.lost_only_size_probe(m.now, cc) {
            return false;
        }
        let open = self.board.phase() == Phase::Open;
        // An episode may also begin with losses that an earlier one marked and did not get to.
        if lost == 0 && !(open && self.board.in_recovery()) {
            return false;
        }
        self.loss += (lost as f32 / (lost as f32 + self.board.in_flight() as f32 + 1.0)) * LOSS_GAIN;
        self.loss = self.loss.min(1.0);
        if !open {
            return false;
        }
        let flight = self.board.recovery_flight(delivered);
        cc.on_loss(m.now, self.id, flight);
        self.ecn.on_reduction(self.board.nxt());
        self.board.begin_fast_recovery();
        let retransmitted = self.stats.bytes_retransmitted;
        self.recovery.begin_fast(flight, cc.ssthresh(self.id), self.mss(), retransmitted);
        self.stats.recoveries += 1;
        timers.stop(Timer::TailProbe);
        self.due.tail_probe = false;
        true
    }

    /// RACK's reordering timer fired (RFC 8985 §6.2). True: fast recovery began.
    pub(in crate::tcp) fn on_reorder_timer(
        &mut self,
        m: Moment,
        timers: &mut Timers,
        cc: &mut dyn CongestionController,
    ) -> bool {
        let lost = self.board.detect_loss(m.now, &self.rtt);
        self.on_lost(m, lost, 0, timers, cc)
    }

    /// The tail loss probe's timer fired (RFC 8985 §7.3). The retransmission timer runs anew from it.
    pub(in crate::tcp) fn on_tail_probe_timer(&mut self, m: Moment, timers: &mut Timers) {
        timers.stop(Timer::TailProbe);
        self.due.tail_probe = true;
        self.arm_retransmit(m, timers);
    }

    /// The retransmission timer fired (RFC 6298 §5.4–5.7, RFC 5681 §3.1). True: packets are smaller from now
    /// on.
    pub(in crate::tcp) fn on_retransmission_timer(
        &mut self,
        m: Moment,
        timers: &mut Timers,
        cc: &mut dyn CongestionController,
    ) -> bool {
        self.stats.timeouts += 1;
        timers.stop(Timer::TailProbe);
        self.due.tail_probe = false;
        self.recovery.tail.reset();
        let mut smaller = false;
        if m.synchronized {
            smaller = self.begin_timeout_recovery(m, cc);
        } else {
            self.board.mark_all_lost();
        }
        self.rtt.back_off();
        self.due.first = true;
        timers.start(Timer::Retransmit, m.now + self.rtt.rto());
        smaller
    }

    /// True: packets are smaller from now on.
    fn begin_timeout_recovery(&mut self, m: Moment, cc: &mut dyn CongestionController) -> bool {
        let nxt = self.board.nxt();
        // RFC 5682 §3.1 step 1: only outside recovery, or again for the same segment.
        match self.board.phase() {
            Phase::Open if !m.timestamps && m.sack => self.recovery.frto.on_timeout(nxt),
            Phase::Loss { until } if self.recovery.frto.is_repeating() => {
                self.recovery.frto.on_timeout(until)
            }
            _ => self.recovery.frto.stop(),
        }
        if matches!(self.board.phase(), Phase::Loss { .. }) {
            // A second timeout in a row: what was SACKed may have been reneged (RFC 2018 §8).
            self.board.forget_sacks();
        } else {
            cc.on_rto(m.now, self.id, self.board.in_flight());
            self.ecn.on_reduction(nxt);
            self.rtt.remember();
            self.recovery.on_first_timeout(nxt);
        }
        self.recovery.begin_timeout();
        self.board.begin_timeout_recovery();
        // RFC 4821 §7.7: silence may mean that the path swallows packets of this size.
        let count = self.rtt.backoff_count() + 1;
        let pause = self.size_probe_pause(cc);
        let smaller = self.pmtu.on_timeout(m.now, self.board.una(), count, pause);
        if let Some(mss) = smaller {
            self.packet_size_changed(m, mss, cc);
        }
        if m.sack {
            self.board.mark_lost_on_rto(m.now, &self.rtt);
        } else {
            self.board.mark_all_lost();
        }
        smaller.is_some()
    }

    /// Starts or restarts the timer that guards what is outstanding: a tail loss probe where RFC 8985 §7.2
    /// allows one, else the retransmission timer.
    pub(super) fn arm_retransmit(&self, m: Moment, timers: &mut Timers) {
        timers.stop(Timer::TailProbe);
        if self.board.is_empty() {
            timers.stop(Timer::Retransmit);
            return;
        }
        let rto = self.rtt.rto();
        timers.start(Timer::Retransmit, m.now + rto);
        // RFC 8985 §7.2 and §7.3. Where SACK blocks are known the reordering timer finds the losses.
        let probe_ok = m.sack
            && self.board.phase() == Phase::Open
            && self.board.sacked_bytes() == 0
            && m.synchronized
            && self.recovery.tail.may_send()
            && !self.due.tail_probe;
        if probe_ok && let Some(srtt) = self.rtt.srtt() {
            let delay = srtt.clamp(MIN_ACK_DELAY, MAX_ACK_DELAY);
            let pto = pto(Some(srtt), self.board.in_flight(), self.mss(), delay, rto);
            timers.start(Timer::TailProbe, m.now + pto);
        }
    }

    /// When acknowledgements are so late that the path may have fallen silent; `None`: nothing is awaited, or
    /// no round-trip time is known.
    ///
    /// That is when the oldest of what is in flight has been away for the time after which RFC 8985 §7.2
    /// probes, and the last sign of life is a round trip old. Both with an allowance for variation as RFC
    /// 6298 §2.3 has it, but without the least value of the retransmission timeout: that is for a sender to
    /// which a needless timeout costs its window.
    pub(in crate::tcp) fn silence_deadline(&self) -> Option<Instant> {
        let (oldest, srtt) = (self.board.oldest_sent()?, self.rtt.srtt()?);
        let allowance = self.rtt.rttvar().saturating_mul(4).max(SILENCE_ALLOWANCE);
        // Two packets, too, may be acknowledged late, if the second is not full.
        let (flight, few) = (self.board.in_flight(), self.mss().saturating_mul(2));
        let delay = srtt.clamp(MIN_ACK_DELAY, MAX_ACK_DELAY);
        let due = oldest + pto(Some(srtt), flight, few, delay, self.rtt.base_rto() + srtt);
        let heard = self.delivered_at + srtt;
        Some(due.max(heard) + allowance)
    }

    /// As [`arm_retransmit`](Self::arm_retransmit), unless the retransmission timer runs already.
    pub(super) fn ensure_retransmit(&self, m: Moment, timers: &mut Timers) {
        if !timers.is_running(Timer::Retransmit) {
            self.arm_retransmit(m, timers);
        }
    }

    /// The zero-window probe's timer fired.
    pub(in crate::tcp) fn on_persist_timer(&mut self, now: Instant, timers: &mut Timers) {
        self.due.window_probe = true;
        self.due.small = self.window_room() > 0;
        timers.window_probe_due(now, self.rtt.rto());
    }

    /// The window is open again.
    pub(super) fn stop_persist(&mut self, timers: &mut Timers) {
        timers.stop_persist();
        self.due.window_probe = false;
        self.due.small = false;
    }

    /// Looks whether a probe for larger packets is among what is lost now. True: nothing else is, which is no
    /// sign of congestion (RFC 4821 §7.6.2). It is sent again as soon as the window allows, and the recovery
    /// that the scoreboard has begun for it is none.
    fn lost_only_size_probe(&mut self, now: Instant, cc: &dyn CongestionController) -> bool {
        let Some(range) = self.pmtu.probe() else { return false };
        match self.board.fate(&range) {
            Fate::NotLost => {
                // It was sent again, and something else is lost now.
                if self.pmtu.is_probe_lost() && self.board.lost_bytes() > 0 {
                    self.pmtu.on_probe_inconclusive(now);
                }
                false
            }
            Fate::LostAlone if self.board.phase() == Phase::Open => {
                self.pmtu.on_probe_lost(self.size_probe_pause(cc));
                self.board.forgive();
                true
            }
            Fate::LostAlone | Fate::LostWithOthers => {
                self.pmtu.on_probe_inconclusive(now);
                false
            }
        }
    }
}

//! The timers of a subflow: one table, one place where they fire.

use super::state::Event;
use super::{CloseReason, Recovery, State, TIME_WAIT, Tcp};
use core::fmt::Debug;
use umptcp_congestion::CongestionController;
use umptcp_types::{Duration, Instant, SubflowOffset};

/// Longest interval between zero-window probes (RFC 9293 §3.8.6.1 leaves it open).
const MAX_PROBE_INTERVAL: Duration = Duration::from_secs(75);

/// When the timers fire; `None`: not running.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timers {
    /// RFC 6298 retransmission.
    pub(crate) retransmit: Option<Instant>,
    /// RFC 8985 tail loss probe.
    pub(crate) tail_probe: Option<Instant>,
    /// RFC 9293 §3.8.6.1 zero-window probe.
    pub(crate) persist: Option<Instant>,
    /// Probes sent since the window closed.
    pub(crate) persist_count: u32,
    /// Delayed ACK.
    pub(crate) delayed_ack: Option<Instant>,
    /// Keep-alive.
    pub(crate) keep_alive: Option<Instant>,
    /// Keep-alive probes without an answer.
    pub(crate) keep_alive_count: u32,
    /// End of TIME_WAIT, or of waiting for the peer's FIN.
    pub(crate) close: Option<Instant>,
}

/// What happened when timers fired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fired {
    /// A retransmission timeout: the subflow may be dead.
    pub(crate) timeout: bool,
    /// The subflow ended.
    pub(crate) ended: bool,
    /// A tail loss probe goes out.
    pub(crate) tail_probe: bool,
    /// RACK found losses and recovery began.
    pub(crate) recovery: bool,
    /// The path seems to swallow packets of the size so far: they are smaller from now on.
    pub(crate) smaller_packets: bool,
}

impl<M: Copy + Debug> Tcp<M> {
    /// When [`on_timer`](Self::on_timer) must be called next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        if self.state() == State::Closed {
            return None;
        }
        let t = &self.timers;
        let user = self.user_deadline();
        [
            t.retransmit,
            t.tail_probe,
            t.persist,
            t.delayed_ack,
            t.keep_alive,
            t.close,
            self.board.reorder_deadline(),
            user,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// When the user timeout expires, if something is waited for (RFC 5482).
    fn user_deadline(&self) -> Option<Instant> {
        let waiting = !self.board.is_empty() || self.timers.persist.is_some();
        waiting.then(|| self.progress + self.config.user_timeout)
    }

    /// Fires what is due at `now`.
    pub(crate) fn on_timer(&mut self, now: Instant, cc: &mut dyn CongestionController) -> Fired {
        let mut fired = Fired::default();
        if self.state() == State::Closed {
            return fired;
        }
        let due = |t: Option<Instant>| t.is_some_and(|t| t <= now);
        if due(self.user_deadline()) {
            self.terminate(CloseReason::TimedOut);
            fired.ended = true;
            return fired;
        }
        if due(self.timers.close) {
            self.timers.close = None;
            self.life.on(Event::TimeWaitOver);
            fired.ended = true;
            return fired;
        }
        if due(self.board.reorder_deadline()) {
            let lost = self.board.detect_loss(now, &self.rtt);
            fired.recovery = self.on_lost(now, lost, 0, cc);
        }
        if due(self.timers.tail_probe) {
            // RFC 8985 §7.2: where both are due at once the probe goes first, and the timer runs anew from it.
            self.timers.tail_probe = None;
            self.probe_wanted = true;
            fired.tail_probe = true;
            self.arm_retransmit(now);
        } else if due(self.timers.retransmit) {
            self.on_retransmission_timeout(now, cc, &mut fired);
            fired.timeout = true;
        }
        if due(self.timers.delayed_ack) {
            self.timers.delayed_ack = None;
            self.ack_now();
        }
        if due(self.timers.persist) {
            self.persist_wanted = true;
            self.small_allowed = self.window_room() > 0;
            self.timers.persist_count += 1;
            self.arm_persist(now);
        }
        if due(self.timers.keep_alive) {
            self.timers.keep_alive_count += 1;
            let settings = self.config.keep_alive.unwrap_or_default();
            if self.timers.keep_alive_count > settings.count {
                self.terminate(CloseReason::TimedOut);
                fired.ended = true;
            } else {
                self.keepalive_wanted = true;
                self.timers.keep_alive = Some(now + settings.interval);
            }
        }
        fired
    }

    /// RFC 6298 §5.4–5.7 and RFC 5681 §3.1.
    fn on_retransmission_timeout(
        &mut self,
        now: Instant,
        cc: &mut dyn CongestionController,
        fired: &mut Fired,
    ) {
        self.stats.timeouts += 1;
        self.timers.tail_probe = None;
        self.probe_wanted = false;
        self.tail.reset();
        if self.is_synchronized() {
            fired.smaller_packets = self.begin_timeout_recovery(now, cc);
        } else {
            self.board.mark_all_lost();
        }
        self.rtt.back_off();
        self.resend_first = true;
        self.timers.retransmit = Some(now + self.rtt.rto());
    }

    /// True: packets are smaller from now on.
    fn begin_timeout_recovery(&mut self, now: Instant, cc: &mut dyn CongestionController) -> bool {
        let nxt = self.board.nxt();
        // RFC 5682 §3.1 step 1: only outside recovery, or again for the same segment.
        match self.recovery {
            Recovery::Open if !self.timestamps && self.sack => self.frto.on_timeout(nxt),
            Recovery::Loss { until } if self.frto.is_repeating() => self.frto.on_timeout(until),
            _ => self.frto.stop(),
        }
        if matches!(self.recovery, Recovery::Loss { .. }) {
            // A second timeout in a row: what was SACKed may have been reneged (RFC 2018 §8).
            self.board.forget_sacks();
        } else {
            cc.on_rto(now, self.id, self.board.in_flight());
            self.ecn.on_reduction(nxt);
            self.rtt.remember();
            self.timeout_point = Some(nxt);
        }
        self.prr.exit();
        self.recovery = Recovery::Loss { until: nxt };
        // RFC 4821 §7.7: silence may mean that the path swallows packets of this size.
        let count = self.rtt.backoff_count() + 1;
        let pause = self.size_probe_pause(cc);
        let smaller = self.pmtu.on_timeout(now, self.board.una(), count, pause);
        if let Some(mss) = smaller {
            self.set_packet_size(mss, cc);
        }
        if self.sack {
            self.board.mark_lost_on_rto(now, &self.rtt);
        } else {
            self.board.mark_all_lost();
        }
        self.dup_acks = 0;
        smaller.is_some()
    }

    /// Losses were found: begin fast recovery unless one is under way. True when it began.
    pub(crate) fn on_lost(
        &mut self,
        now: Instant,
        lost: u64,
        delivered: u64,
        cc: &mut dyn CongestionController,
    ) -> bool {
        if self.lost_only_size_probe(now, cc) {
            return false;
        }
        // An episode may also begin with losses that an earlier one marked and did not get to.
        if lost == 0 && !(self.recovery == Recovery::Open && self.board.in_recovery()) {
            return false;
        }
        self.loss += (lost as f32 / (lost as f32 + self.board.in_flight() as f32 + 1.0)) * 0.1;
        self.loss = self.loss.min(1.0);
        if self.recovery != Recovery::Open {
            return false;
        }
        let flight = self.board.recovery_flight(delivered);
        cc.on_loss(now, self.id, flight);
        self.ecn.on_reduction(self.board.nxt());
        self.recovery = Recovery::Fast { until: self.board.nxt() };
        self.retransmitted_before = self.stats.bytes_retransmitted;
        self.prr.enter(flight, cc.ssthresh(self.id));
        // RFC 6937 §3.1 leaves the first retransmission to the recovery algorithm: one segment at once.
        self.prr_budget = u64::from(self.send_mss);
        self.stats.recoveries += 1;
        self.timeout_point = None;
        self.timers.tail_probe = None;
        self.probe_wanted = false;
        self.tail.reset();
        true
    }

    /// Starts or restarts the timer that guards what is outstanding: a tail loss probe where RFC 8985 §7.2 allows
    /// one, else the retransmission timer.
    pub(crate) fn arm_retransmit(&mut self, now: Instant) {
        self.timers.tail_probe = None;
        if self.board.is_empty() {
            self.timers.retransmit = None;
            return;
        }
        self.timers.retransmit = Some(now + self.rtt.rto());
        // RFC 8985 §7.2 and §7.3. Where SACK blocks are known the reordering timer finds the losses.
        let probe_ok = self.sack
            && self.recovery == Recovery::Open
            && self.board.sacked_bytes() == 0
            && self.is_synchronized()
            && self.tail.may_send()
            && !self.probe_wanted
            && self.rtt.srtt().is_some();
        if probe_ok {
            let (rto, flight) = (self.rtt.rto(), self.board.in_flight());
            let delay = self.rtt.srtt().unwrap_or_default().clamp(super::MIN_ACK_DELAY, super::MAX_ACK_DELAY);
            let pto = super::rtt::pto(self.rtt.srtt(), flight, self.send_mss, delay, rto);
            self.timers.tail_probe = Some(now + pto);
        }
    }

    /// Starts the zero-window probe timer (RFC 9293 §3.8.6.1: first after the RTO, then with exponential back-off).
    pub(crate) fn arm_persist(&mut self, now: Instant) {
        let interval = self.rtt.rto().saturating_mul(1 << self.timers.persist_count.min(10));
        self.timers.persist = Some(now + interval.min(MAX_PROBE_INTERVAL));
    }

    /// Starts that timer as if `probes` had been sent already, where it has not seen as many itself.
    pub(crate) fn arm_persist_after(&mut self, now: Instant, probes: u32) {
        self.timers.persist_count = self.timers.persist_count.max(probes);
        self.arm_persist(now);
    }

    /// The zero-window probe timer runs.
    pub(crate) fn is_window_probing(&self) -> bool {
        self.timers.persist.is_some()
    }

    /// A zero-window probe is due.
    pub(crate) fn window_probe_due(&self) -> bool {
        self.persist_wanted
    }

    /// A segment made small by the peer's window may go (RFC 9293 §3.8.6.2.1: its override timeout has passed).
    pub(crate) fn small_segment_allowed(&self) -> bool {
        self.small_allowed
    }

    /// If something is to be sent again, not later than `at`.
    pub(crate) fn retransmit_by(&mut self, at: Instant) {
        self.timers.retransmit = self.timers.retransmit.map(|t| t.min(at));
    }

    /// Nothing is due any more: the connection takes over.
    pub(crate) fn stop_timers(&mut self) {
        self.timers = Timers::default();
    }

    /// The window is open again.
    pub(crate) fn stop_persist(&mut self) {
        self.timers.persist = None;
        self.timers.persist_count = 0;
        self.persist_wanted = false;
        self.small_allowed = false;
    }

    /// Something arrived: the peer lives.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.timers.keep_alive_count = 0;
        self.timers.keep_alive = match self.config.keep_alive {
            Some(k) if self.is_synchronized() => Some(now + k.idle),
            _ => None,
        };
    }

    /// TIME_WAIT begins, or begins anew (RFC 9293 §3.6): 2 MSL from now.
    pub(crate) fn enter_time_wait(&mut self, now: Instant) {
        self.timers = Timers { close: Some(now + TIME_WAIT), ..Timers::default() };
    }

    /// Everything sent up to `until` has been acknowledged.
    pub(crate) fn recovered(&self, until: SubflowOffset) -> bool {
        self.board.una() >= until
    }
}

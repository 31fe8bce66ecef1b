//! The timers of a connection: each stands once in one list, from which both the next deadline and what fires
//! are taken.
//!
//! TCP's own timers are one entry here; which of them is due, TCP knows (see `tcp::timer`).

use super::connection::Connection;
use super::reset::reset_options;
use super::subflow::Subflow;
use crate::context::Context;
use crate::error::ConnectionError;
use crate::event::SubflowReset;
use crate::observe::Counter;
use crate::tcp::{CloseReason, State};
use crate::wire::mptcp::ResetReason;
use umptcp_scheduler::Health;
use umptcp_types::{Duration, Instant};

/// Times a SYN/ACK is sent again before the half-open connection is forgotten (Linux's tcp_synack_retries): a
/// minute, while the user timeout is for those who have completed a handshake.
const SYN_ACK_RETRIES: u64 = 5;

/// Times the SYN of a join is sent again: the connection works without it, its slot may serve another, and
/// the next attempt follows.
const JOIN_SYN_RETRIES: u64 = 2;

/// How often a subflow that does not answer is tried while there are others.
const STALE_PROBE: Duration = Duration::from_secs(1);
/// The same at first, and how often: a path that returns after some seconds is in use half a second later.
const FIRST_STALE_PROBES: (Duration, u32) = (Duration::from_millis(400), 25);

/// A timer of every subflow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SubflowTimer {
    /// The pause between ACKs that carry nothing but signals.
    Signal,
    /// TCP's.
    Tcp,
    /// Acknowledgements are late.
    Silence,
    /// The third ACK of a join is unanswered.
    Join,
    /// MP_FAIL is unanswered.
    Fail,
    /// The peer has removed the subflow's address.
    Removal,
    /// Data waits for its mapping.
    Unmapped,
}

/// A timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Timer {
    /// One of every subflow.
    Subflow(SubflowTimer),
    /// MP_FASTCLOSE is unanswered.
    FastClose,
    /// An ADD_ADDR is due, for the first time or again.
    Advert,
    /// A REMOVE_ADDR or MP_PRIO is due again.
    Notice,
    /// Data-level retransmission (RFC 8684 §3.3.6).
    Data,
    /// Pacing lets data leave.
    Pacing,
    /// Another subflow may be opened between addresses where one failed or was lost.
    Retry,
    /// The connection is given up.
    GiveUp,
    /// Nobody holds the connection, and it may have delivered nothing for long.
    Orphan,
}

/// Every timer, in the order in which those fire that are due at once.
const ORDER: [Timer; 15] = [
    Timer::Subflow(SubflowTimer::Signal),
    Timer::Subflow(SubflowTimer::Tcp),
    Timer::Subflow(SubflowTimer::Silence),
    Timer::Subflow(SubflowTimer::Join),
    Timer::Subflow(SubflowTimer::Fail),
    Timer::FastClose,
    Timer::Subflow(SubflowTimer::Removal),
    Timer::Subflow(SubflowTimer::Unmapped),
    Timer::Advert,
    Timer::Notice,
    Timer::Data,
    Timer::Pacing,
    Timer::Retry,
    Timer::GiveUp,
    Timer::Orphan,
];

impl SubflowTimer {
    const ALL: [SubflowTimer; 7] = [
        SubflowTimer::Signal,
        SubflowTimer::Tcp,
        SubflowTimer::Silence,
        SubflowTimer::Join,
        SubflowTimer::Fail,
        SubflowTimer::Removal,
        SubflowTimer::Unmapped,
    ];
}

impl Subflow {
    /// When `timer` fires.
    #[inline]
    fn deadline(&self, timer: SubflowTimer) -> Option<Instant> {
        match timer {
            SubflowTimer::Signal => self.signals.deadline(),
            SubflowTimer::Tcp => self.tcp.next_deadline(),
            SubflowTimer::Silence => self.silence_deadline(),
            SubflowTimer::Join => self.join.deadline(),
            SubflowTimer::Fail => self.incoming.fail_deadline(),
            SubflowTimer::Removal => self.removal_deadline(),
            SubflowTimer::Unmapped => self.incoming.unmapped_deadline(),
        }
    }
}

impl Connection {
    /// When `timer` fires.
    #[inline]
    fn deadline(&self, timer: Timer) -> Option<Instant> {
        match timer {
            Timer::Subflow(timer) => self.subflows.iter().filter_map(|m| m.deadline(timer)).min(),
            Timer::FastClose => self.life.fast_close().map(|f| f.resend),
            Timer::Advert => self.addresses.adverts.next_deadline(),
            Timer::Notice => self.addresses.notices.next_deadline(),
            Timer::Data => self.send.timeout(),
            Timer::Pacing => self.send.pacing_wake(),
            Timer::Retry => self.addresses.failures.next_wait_end().filter(|_| !self.life.has_ended()),
            Timer::GiveUp => self.life.give_up_at(),
            Timer::Orphan => self.orphan_deadline(),
        }
    }

    /// When something is due although nothing arrives.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        if self.life.has_ended() && self.subflows.is_empty() && !self.is_in_time_wait() {
            return None;
        }
        // Each subflow is looked at once.
        let subflows = self.subflows.iter().flat_map(|m| SubflowTimer::ALL.map(|timer| m.deadline(timer)));
        let own = ORDER.iter().filter(|t| !matches!(t, Timer::Subflow(_))).map(|timer| self.deadline(*timer));
        subflows.chain(own).flatten().min()
    }

    /// Fires what is due.
    pub(crate) fn handle_timeout(&mut self, ctx: &mut Context, now: Instant) {
        for timer in ORDER {
            self.fire(ctx, now, timer);
        }
        self.end_step(ctx, now);
        self.account(ctx, now);
    }

    /// Fires `timer` if it is due; those of subflows where they are.
    fn fire(&mut self, ctx: &mut Context, now: Instant, timer: Timer) {
        if !matches!(timer, Timer::Subflow(_)) && self.deadline(timer).is_none_or(|t| t > now) {
            return;
        }
        match timer {
            Timer::Subflow(timer) => self.fire_on_subflows(ctx, now, timer),
            Timer::FastClose => self.resend_fast_close(ctx, now),
            Timer::Advert => self.resend_adverts(ctx, now),
            Timer::Notice => self.repeat_notices(ctx, now),
            Timer::Data => self.on_data_timer(ctx, now),
            Timer::Pacing => self.send.stop_waiting_for_pacing(),
            Timer::Retry => {
                if self.addresses.failures.end_waits(now) && self.opens_subflows(ctx) {
                    self.manage_paths(ctx, now);
                }
            }
            Timer::GiveUp => self.give_up(ctx, now),
            Timer::Orphan => self.check_orphan(ctx, now),
        }
    }

    /// Fires `timer` on every subflow where it is due.
    fn fire_on_subflows(&mut self, ctx: &mut Context, now: Instant, timer: SubflowTimer) {
        match timer {
            // Over even when nothing can leave now (a busy device), or nothing waits.
            SubflowTimer::Signal => self.subflows.iter_mut().for_each(|m| m.signals.on_time(now)),
            SubflowTimer::Tcp => {
                for i in self.subflows.indices() {
                    self.on_tcp_timer(ctx, now, i);
                }
            }
            SubflowTimer::Silence => self.suspect_silent(ctx, now),
            SubflowTimer::Join => self.resend_join_acks(ctx, now),
            SubflowTimer::Fail => self.resend_fails(ctx, now),
            SubflowTimer::Removal => self.check_removals(ctx, now),
            SubflowTimer::Unmapped => {
                for i in self.subflows.indices().rev() {
                    if self.subflows.get(i).and_then(|m| m.deadline(timer)).is_some_and(|t| t <= now) {
                        self.on_unmapped(ctx, now, i);
                    }
                }
            }
        }
    }

    /// Fires what is due of TCP's timers on subflow `i`.
    fn on_tcp_timer(&mut self, ctx: &mut Context, now: Instant, i: usize) {
        let Some(m) = self.subflows.get_mut(i) else { return };
        let id = m.tcp.id();
        let fired = m.tcp.on_timer(now, self.cc.as_mut());
        if fired.smaller_packets {
            self.count(ctx, now, Some(id), Counter::TcpPmtuBlackHole);
        }
        self.count_failed_size_probes(ctx, now, i);
        if fired.recovery {
            self.count(ctx, now, Some(id), Counter::TcpFastRecovery);
        }
        if fired.timeout {
            self.on_subflow_timeout(ctx, now, i);
        }
        let m = &mut self.subflows[i];
        let half_open = m.tcp.state() == State::SynReceived && m.tcp.stats().timeouts > SYN_ACK_RETRIES;
        if half_open {
            m.tcp.terminate(CloseReason::TimedOut);
            let initial = m.join.is_initial();
            let what = if initial { Counter::TcpListenDrops } else { Counter::MPJoinHalfOpenDrop };
            self.count(ctx, now, Some(id), what);
        }
        let m = &mut self.subflows[i];
        let unanswered = m.join.is_syn_sent() && m.tcp.stats().timeouts > JOIN_SYN_RETRIES;
        if unanswered {
            m.tcp.terminate(CloseReason::TimedOut);
        }
        if !fired.ended && !half_open && !unanswered {
            return;
        }
        let timed_out = self.subflows[i].tcp.close_reason() == Some(CloseReason::TimedOut);
        if timed_out && self.is_mptcp() && self.subflows[i].is_joined() {
            // RFC 8684 §3.3.6: the path does not deliver, whatever else the peer may think.
            self.count(ctx, now, Some(id), Counter::MPRstTx);
            let reason = ResetReason::UnacceptablePerformance;
            self.send_subflow_reset(ctx, now, i, reset_options(reason, true));
            let reset = SubflowReset { by_peer: false, reason: Some(reason), transient: true };
            self.subflows[i].on_reset(reset);
        }
        self.end_subflow(ctx, now, i);
    }

    /// Subflow `i` had a retransmission timeout: others take over what it carries.
    fn on_subflow_timeout(&mut self, ctx: &mut Context, now: Instant, i: usize) {
        let id = Some(self.subflows[i].tcp.id());
        self.count(ctx, now, id, Counter::TcpTimeouts);
        self.relieve(now, i);
        self.on_late_syn(ctx, i);
        let m = &self.subflows[i];
        if m.tcp.timeouts_in_a_row() >= u32::from(self.config.stale_loss_count) {
            self.make_stale(ctx, now, i);
        }
    }

    /// Subflows whose acknowledgements are late are suspected: others that answer take over what they carry,
    /// long before their retransmission timers fire.
    fn suspect_silent(&mut self, ctx: &mut Context, now: Instant) {
        for i in self.subflows.indices() {
            let has_others = self.has_others(i);
            let Some(m) = self.subflows.get_mut(i) else { continue };
            if m.silence_deadline().is_none_or(|at| at > now) {
                continue;
            }
            m.suspect(now, has_others);
            if has_others {
                let id = m.tcp.id();
                self.count(ctx, now, Some(id), Counter::SubflowSuspect);
                self.relieve_suspects(ctx);
            }
        }
    }

    /// There are subflows that may take over from subflow `i`.
    pub(super) fn has_others(&self, i: usize) -> bool {
        self.is_mptcp() && self.subflows.enumerate().any(|(j, m)| j != i && m.can_send_data())
    }

    /// What suspected subflows carry goes to others, if there are any that answer.
    pub(super) fn relieve_suspects(&mut self, ctx: &Context) {
        let answers = |m: &Subflow| m.can_send_data() && m.is_healthy() && !m.is_out(ctx);
        if !self.subflows.iter().any(answers) {
            return;
        }
        for i in self.subflows.indices() {
            if self.subflows.get(i).is_some_and(Subflow::awaits_relief) {
                self.reinject_from(i);
                self.subflows[i].on_relieved();
            }
        }
    }

    /// A subflow has come: it carries what others have sent that do not answer, whose timers are backed off.
    pub(super) fn take_over(&mut self, ctx: &Context, now: Instant) {
        for i in self.subflows.indices() {
            if self
                .subflows
                .get(i)
                .is_some_and(|m| m.health() == Health::Stale && m.tcp.unacked().next().is_some())
            {
                self.relieve(now, i);
            }
        }
        self.relieve_suspects(ctx);
    }

    /// A router or a host says that what subflow `i` has sent cannot be delivered. RFC 8684 §3.3.6 would have
    /// the subflow failed; it is as one that has fallen silent, because such an error may be temporary, or
    /// forged: others take over, it is probed, and an acknowledgment brings it back. False: there are no
    /// others.
    pub(super) fn on_subflow_hindered(&mut self, ctx: &mut Context, now: Instant, i: usize) -> bool {
        let relieved = self.relieve(now, i);
        if relieved {
            self.make_stale(ctx, now, i);
        }
        relieved
    }

    /// Others take over what subflow `i` carries, which does not get through. False: there are no others.
    fn relieve(&mut self, now: Instant, i: usize) -> bool {
        let others = self.has_others(i);
        if others {
            self.reinject_from(i);
        }
        let m = &mut self.subflows[i];
        if others && m.tcp.is_synchronized() {
            // A path that comes back should not wait for a timer backed off to a minute: others deliver, so that the
            // connection as a whole is not congested, or all are silent, and whichever comes back goes on. One
            // segment a second is what keeping it costs.
            let (first, count) = FIRST_STALE_PROBES;
            let pause = if m.tcp.timeouts_in_a_row() <= count { first } else { STALE_PROBE };
            // An answer takes a round trip.
            m.tcp.retransmit_by(now + pause.max(m.tcp.base_rto()));
        }
        others
    }

    fn make_stale(&mut self, ctx: &mut Context, now: Instant, i: usize) {
        let m = &mut self.subflows[i];
        let id = Some(m.tcp.id());
        if m.on_stale() {
            self.count(ctx, now, id, Counter::SubflowStale);
            self.addresses.on_change();
            self.on_way_silent(ctx, now, i);
        }
    }

    /// Nothing has come that would let the connection go on, or end in order.
    fn give_up(&mut self, ctx: &mut Context, now: Instant) {
        self.life.go_on();
        if self.life.has_ended() {
            // As Linux does with FIN-WAIT-2: without a word. Whatever still comes is answered with RST.
            self.life.on_peer_knows_end();
            for i in self.subflows.indices() {
                if self.subflows.get(i).is_some() {
                    self.drop_subflow(ctx, now, i, CloseReason::TimedOut);
                }
            }
            return;
        }
        let error = match self.life.last_error() {
            Some(error) if !self.subflows.iter().any(|m| m.is_joined()) => error,
            _ => ConnectionError::TimedOut,
        };
        self.abort(ctx, now, error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The place of each timer in the order. A timer that is added must be added here too, or this does not
    /// compile.
    fn place(timer: Timer) -> usize {
        match timer {
            Timer::Subflow(SubflowTimer::Signal) => 0,
            Timer::Subflow(SubflowTimer::Tcp) => 1,
            Timer::Subflow(SubflowTimer::Silence) => 2,
            Timer::Subflow(SubflowTimer::Join) => 3,
            Timer::Subflow(SubflowTimer::Fail) => 4,
            Timer::FastClose => 5,
            Timer::Subflow(SubflowTimer::Removal) => 6,
            Timer::Subflow(SubflowTimer::Unmapped) => 7,
            Timer::Advert => 8,
            Timer::Notice => 9,
            Timer::Data => 10,
            Timer::Pacing => 11,
            Timer::Retry => 12,
            Timer::GiveUp => 13,
            Timer::Orphan => 14,
        }
    }

    #[test]
    fn every_timer_stands_in_the_order_once() {
        for (i, timer) in ORDER.iter().enumerate() {
            assert_eq!(place(*timer), i);
        }
        let of_subflows: alloc::vec::Vec<_> =
            ORDER.iter().filter(|t| matches!(t, Timer::Subflow(_))).collect();
        assert!(of_subflows.into_iter().copied().eq(SubflowTimer::ALL.map(Timer::Subflow)));
    }
}

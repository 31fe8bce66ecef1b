//! How subflows and connections end: FIN and RST, DATA_FIN, MP_FASTCLOSE (RFC 8684 §3.3.3, §3.5, §3.6), timers.

use super::connection::{Connection, Mode};
use super::member::Join;
use crate::error::ConnectionError;
use crate::event::Event;
use crate::observe::Counter;
use crate::stack::env::Env;
use crate::stack::time_wait::TimeWait;
use crate::tcp::{CloseReason, FourTuple, State, TIME_WAIT};
use crate::wire::mptcp::{MpFastClose, MpTcpRst, MptcpOption, ResetReason};
use crate::wire::tcp::{TcpFlags, TcpOptions, TcpRepr};
use umptcp_types::{Duration, Instant, PathId, SeqNumber};

/// How long a connection that the application has let go of waits for the peer to close (Linux's tcp_fin_timeout).
const ORPHAN_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a subflow that does not answer is tried while others deliver.
const STALE_PROBE: Duration = Duration::from_secs(1);

fn error_of(reason: CloseReason) -> ConnectionError {
    match reason {
        CloseReason::Refused => ConnectionError::Refused,
        CloseReason::Reset => ConnectionError::Reset,
        CloseReason::TimedOut => ConnectionError::TimedOut,
        CloseReason::Aborted => ConnectionError::NoPath,
        CloseReason::Unreachable => ConnectionError::Unreachable,
    }
}

/// Sends a RST for `tuple`.
#[allow(clippy::too_many_arguments)] // The fields of a TCP header are that many.
pub(crate) fn send_reset(
    env: &mut Env,
    now: Instant,
    path: PathId,
    tuple: &FourTuple,
    seq: SeqNumber,
    ack: Option<SeqNumber>,
    options: TcpOptions,
) {
    let flags = TcpFlags { rst: true, ack: ack.is_some(), ..TcpFlags::default() };
    let repr = TcpRepr {
        src_port: tuple.local.port(),
        dst_port: tuple.remote.port(),
        seq,
        ack: ack.unwrap_or(SeqNumber(0)),
        flags,
        window: 0,
        urgent: 0,
        options,
    };
    env.observe(now, None, None, Counter::TcpOutRsts);
    if let Some(t) = env.packet(now, path, tuple, &repr, crate::payload::Payload::new(), u32::MAX) {
        env.outbox.push_back(t);
    }
}

/// Options of a RST that gives `reason`.
pub(crate) fn reset_options(reason: ResetReason, transient: bool) -> TcpOptions {
    let mut options = TcpOptions::default();
    options.mptcp.push(MptcpOption::Reset(MpTcpRst { transient, reason: reason.into() }));
    options
}

impl Connection {
    /// RFC 9293 §3.10.7: a segment that fits no state is answered with a RST built from it.
    pub(crate) fn answer_with_reset(&mut self, env: &mut Env, now: Instant, i: usize, seg: &TcpRepr) {
        if !env.challenge_allowed(now) {
            return;
        }
        let m = &self.members[i];
        let (path, tuple) = (m.tcp.path, m.tcp.tuple);
        let (seq, ack) =
            if seg.flags.ack { (seg.ack, None) } else { (SeqNumber(0), Some(seg.seq.wrapping_add(1))) };
        send_reset(env, now, path, &tuple, seq, ack, TcpOptions::default());
    }

    /// Resets one subflow and tells the peer why.
    pub(crate) fn reset_member(&mut self, env: &mut Env, now: Instant, i: usize, reason: ResetReason) {
        self.reset_member_saying(env, now, i, reason, None);
    }

    /// The same with one more option on the RST.
    pub(crate) fn reset_member_saying(
        &mut self,
        env: &mut Env,
        now: Instant,
        i: usize,
        reason: ResetReason,
        also: Option<MptcpOption>,
    ) {
        let m = &self.members[i];
        if m.tcp.state() != State::SynSent && m.tcp.state() != State::Closed {
            let options = if self.is_mptcp() {
                self.count(env, now, Some(m.tcp.id), Counter::MPRstTx);
                let mut options = reset_options(reason, false);
                options.mptcp.extend(also);
                options
            } else {
                TcpOptions::default()
            };
            let m = &self.members[i];
            let (path, tuple) = (m.tcp.path, m.tcp.tuple);
            let (seq, ack) = (m.tcp.wire_seq(m.tcp.board.nxt()), m.tcp.wire_ack());
            send_reset(env, now, path, &tuple, seq, Some(ack), options);
        }
        self.drop_member(env, now, i, CloseReason::Reset);
        if matches!(reason, ResetReason::MiddleboxInterference | ResetReason::MptcpSpecific) {
            self.last_error = Some(ConnectionError::Broken);
        }
        self.after_progress(env, now);
    }

    /// Ends one subflow without a word; what it carried goes to others.
    pub(crate) fn drop_member(&mut self, env: &mut Env, now: Instant, i: usize, reason: CloseReason) {
        self.members[i].tcp.terminate(reason);
        self.remove_member(env, now, i);
    }

    /// Takes a finished subflow out of the connection.
    fn remove_member(&mut self, env: &mut Env, now: Instant, i: usize) {
        self.reinject_from(i);
        let m = self.members.remove(i);
        let id = m.tcp.id;
        env.demux.remove(&m.tcp.tuple);
        if m.tcp.state() == State::TimeWait {
            env.time_wait.insert(
                m.tcp.tuple,
                TimeWait {
                    path: m.tcp.path,
                    send_next: m.tcp.wire_seq(m.tcp.board.nxt()),
                    receive_next: m.tcp.wire_ack(),
                    timestamps: m.tcp.timestamps,
                    ts_recent: m.tcp.ts_recent,
                    timestamp_offset: m.tcp.config.timestamp_offset,
                    since: now,
                    until: now + TIME_WAIT,
                },
            );
        }
        let error = m.tcp.close_reason.map(error_of);
        if error.is_some() {
            self.last_error = error;
            if !matches!(m.join, Join::Initial) && !m.is_joined() {
                self.failed.push((m.tcp.tuple.local.ip(), m.tcp.tuple.remote));
            }
        }
        if m.announced {
            self.cc.subflow_removed(now, id);
            self.scheduler.subflow_removed(id);
            env.events.push_back(Event::SubflowClosed { connection: self.id, subflow: id, error });
        }
    }

    /// Both directions are done (RFC 8684 §3.3.3).
    fn finished(&self) -> bool {
        self.fin.acked && self.recv.finished()
    }

    /// Looks at what a segment, a timer or the application has changed: subflows to close or remove, the end.
    pub(crate) fn after_progress(&mut self, env: &mut Env, now: Instant) {
        if self.recv.finished() && !self.end_notified {
            self.end_notified = true;
            self.notify_readable(env);
        }
        if self.is_mptcp() && self.finished() {
            for m in &mut self.members {
                m.tcp.close();
            }
        }
        let mut i = 0;
        while i < self.members.len() {
            let m = &self.members[i];
            // A member in TIME_WAIT stays until its last ACK has left.
            let waiting_ack = m.tcp.state() == State::TimeWait && m.tcp.ack == crate::tcp::AckOwed::Now;
            if m.tcp.is_finished() && !waiting_ack {
                self.remove_member(env, now, i);
            } else {
                i += 1;
            }
        }
        if self.ended.is_none() {
            self.check_end(env, now);
        }
        if self.detached && self.ended.is_none() && self.fin.acked && self.give_up_at.is_none() {
            self.give_up_at = Some(now + ORPHAN_TIMEOUT);
        }
        if self.fully_established && self.client {
            // Cheap when there is nothing to do: compares a few addresses.
            if self.members.iter().filter(|m| !m.tcp.is_finished()).count() < self.config.max_subflows
                && self.paths_changed(env)
            {
                self.manage_paths(env, now);
            }
        }
    }

    /// Whether the path manager should look again: a path has no subflow of ours.
    fn paths_changed(&self, env: &Env) -> bool {
        self.ended.is_none() && self.members.len() < env.path_order.len().min(self.config.max_subflows)
    }

    /// Whether the connection has ended, now that subflows have.
    fn check_end(&mut self, env: &mut Env, now: Instant) {
        if self.finished() && (self.members.is_empty() || self.is_mptcp()) {
            self.end(env, None);
            return;
        }
        if !self.members.is_empty() {
            if self.members.iter().any(|m| m.is_joined()) {
                self.give_up_at = self.give_up_at.filter(|_| self.detached);
            }
            return;
        }
        let error = self.last_error.unwrap_or(ConnectionError::Reset);
        // RFC 8684 §3.3.3: break before make. A subflow lost to its path may be followed by another; a peer that
        // resets the last one means it, and the user timeout is the application's own limit.
        let may_return = self.is_mptcp()
            && self.established
            && matches!(error, ConnectionError::NoPath | ConnectionError::Unreachable);
        if may_return {
            if self.give_up_at.is_none() {
                self.give_up_at = Some(now + self.config.close_timeout);
            }
        } else {
            self.end(env, Some(error));
        }
    }

    /// The connection has ended.
    pub(crate) fn end(&mut self, env: &mut Env, error: Option<ConnectionError>) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(error);
        if self.is_mptcp() {
            env.counters.decrement(Counter::MPCurrEstab);
        }
        env.tokens.remove(&self.local_token);
        self.retransmit_at = None;
        self.pacing_wake = None;
        self.give_up_at = None;
        self.reinject.clear();
        if !self.detached {
            self.notify_readable(env);
            env.events.push_back(Event::Closed { connection: self.id, error });
        }
    }

    /// Ends everything at once: RST on every subflow, with MP_FASTCLOSE when it is MPTCP (RFC 8684 §3.5, RST form).
    pub(crate) fn abort(&mut self, env: &mut Env, now: Instant, error: ConnectionError) {
        while let Some(m) = self.members.first() {
            let (path, tuple) = (m.tcp.path, m.tcp.tuple);
            let (seq, ack) = (m.tcp.wire_seq(m.tcp.board.nxt()), m.tcp.wire_ack());
            let id = Some(m.tcp.id);
            let state = m.tcp.state();
            if !matches!(state, State::SynSent | State::Closed | State::TimeWait) {
                let mut options = TcpOptions::default();
                if self.is_mptcp() && m.is_joined() {
                    let fast_close = MpFastClose { receiver_key: self.remote_key };
                    options.mptcp.push(MptcpOption::FastClose(fast_close));
                    self.count(env, now, id, Counter::MPFastcloseTx);
                }
                send_reset(env, now, path, &tuple, seq, Some(ack), options);
            }
            self.members[0].tcp.terminate(CloseReason::Aborted);
            self.remove_member(env, now, 0);
        }
        self.end(env, Some(error));
    }

    /// The peer closed the connection at once (RFC 8684 §3.5): our subflows are reset without the option.
    pub(crate) fn on_fast_close(&mut self, env: &mut Env, now: Instant) {
        self.count(env, now, None, Counter::MPFastcloseRx);
        while let Some(m) = self.members.first() {
            let (path, tuple) = (m.tcp.path, m.tcp.tuple);
            let (seq, ack) = (m.tcp.wire_seq(m.tcp.board.nxt()), m.tcp.wire_ack());
            if !matches!(m.tcp.state(), State::SynSent | State::Closed | State::TimeWait) {
                send_reset(env, now, path, &tuple, seq, Some(ack), TcpOptions::default());
            }
            self.members[0].tcp.terminate(CloseReason::Reset);
            self.remove_member(env, now, 0);
        }
        self.end(env, Some(ConnectionError::Reset));
    }

    /// The application has finished writing.
    pub(crate) fn shutdown(&mut self) {
        self.fin.queued = true;
    }

    /// The application lets go: what it wrote is still delivered. Data it has not read, or that comes later, cannot be:
    /// unread data make it an abort, as in TCP (RFC 9293 §3.10.4 via RFC 2525 §2.17).
    pub(crate) fn detach(&mut self, env: &mut Env, now: Instant) {
        self.detached = true;
        if self.ended.is_some() {
            return;
        }
        if self.recv.readable_bytes() > 0 || !self.established {
            self.abort(env, now, ConnectionError::Aborted);
            return;
        }
        self.recv.discard();
        self.fin.queued = true;
        self.after_progress(env, now);
    }

    /// Nothing is left of it, and nobody asks.
    pub(crate) fn is_dead(&self) -> bool {
        self.ended.is_some() && self.detached && self.members.is_empty()
    }

    /// Fires what is due.
    pub(crate) fn on_timeout(&mut self, env: &mut Env, now: Instant) {
        let mut i = 0;
        while i < self.members.len() {
            let id = self.members[i].tcp.id;
            let fired = self.members[i].tcp.on_timer(now, self.cc.as_mut());
            if fired.recovery {
                self.count(env, now, Some(id), Counter::TcpFastRecovery);
            }
            if fired.timeout {
                self.on_member_timeout(env, now, i);
            }
            if fired.ended {
                self.remove_member(env, now, i);
            } else {
                i += 1;
            }
        }
        self.resend_join_acks(env, now);
        self.resend_fails(env, now);
        for i in (0..self.members.len()).rev() {
            if self.members.get(i).and_then(|m| m.unmapped_deadline()).is_some_and(|t| t <= now) {
                self.on_unmapped(env, now, i);
            }
        }
        self.resend_adverts(now);
        if self.retransmit_at.is_some_and(|t| t <= now) {
            self.on_data_timer(env, now);
        }
        if self.pacing_wake.is_some_and(|t| t <= now) {
            self.pacing_wake = None;
        }
        if self.give_up_at.is_some_and(|t| t <= now) {
            self.give_up_at = None;
            let error = if self.members.is_empty() {
                self.last_error.unwrap_or(ConnectionError::TimedOut)
            } else {
                ConnectionError::TimedOut
            };
            self.abort(env, now, error);
        }
        self.after_progress(env, now);
    }

    /// Member `i` had a retransmission timeout: others take over what it carries.
    fn on_member_timeout(&mut self, env: &mut Env, now: Instant, i: usize) {
        let m = &self.members[i];
        let id = Some(m.tcp.id);
        self.count(env, now, id, Counter::TcpTimeouts);
        let others = self.members.iter().enumerate().any(|(j, o)| j != i && o.can_send_data());
        if others && self.is_mptcp() {
            self.reinject_from(i);
        }
        let m = &mut self.members[i];
        if others {
            // The connection as a whole is not congested, since others deliver: a path that comes back should not
            // wait for a timer backed off to a minute. One segment a second is what keeping it costs.
            let soon = now + STALE_PROBE;
            m.tcp.timers.retransmit = m.tcp.timers.retransmit.map(|t| t.min(soon));
        }
        let m = &mut self.members[i];
        if !m.stale && m.tcp.rtt.backoff_count() >= u32::from(self.config.stale_loss_count) {
            m.stale = true;
            self.count(env, now, id, Counter::SubflowStale);
        }
        let _ = matches!(self.mode, Mode::Negotiating);
    }
}

//! How subflows and connections end (RFC 8684 §3.3.3).
//!
//! By example: `docs/src/by-example/data-fin.md`.

use super::connection::Connection;
use super::subflow::Subflow;
use crate::context::Context;
use crate::context::time_wait::TimeWait;
use crate::error::ConnectionError;
use crate::event::{Event, LostSubflow, SubflowReset, Traffic};
use crate::monitor::MonitorEvent;
use crate::observe::Counter;
use crate::tcp::{CloseReason, State, TIME_WAIT};
use crate::wire::mptcp::ResetReason;
use umptcp_types::{Duration, Instant};

/// How long a connection that the application has let go of waits for the peer to close, and one that has
/// ended for its subflows (Linux's tcp_fin_timeout).
const ORPHAN_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a client without subflows goes on asking a host that answers joins with RSTs which no MPTCP stack
/// has sent: a server's firewall that is loaded anew, or translation that is put back, has its host say so
/// for a moment.
const HOST_RETURNS: Duration = Duration::from_secs(5);
/// How often it asks meanwhile.
const HOST_ASKED: Duration = Duration::from_millis(500);

/// A subflow that has carried so much had worked: what failed before it is forgiven.
const HEALTHY_BYTES: u64 = 32 * 1024;
/// So had one that lived for so long.
const HEALTHY_LIFE: Duration = Duration::from_secs(60);

/// How long after a reset another subflow waits, while there are others (RFC 8684 §3.6: by the reason).
fn pause_after(reason: Option<ResetReason>) -> Duration {
    match reason {
        // The path was away for a while, and starting afresh is what the peer wants.
        Some(ResetReason::TooMuchOutstandingData) => Duration::ZERO,
        Some(ResetReason::LackOfResources) => Duration::from_secs(30),
        Some(ResetReason::UnacceptablePerformance) => Duration::from_secs(60),
        _ => Duration::from_secs(1),
    }
}

fn error_of(reason: CloseReason) -> ConnectionError {
    match reason {
        CloseReason::Refused => ConnectionError::Refused,
        CloseReason::Reset => ConnectionError::Reset,
        CloseReason::TimedOut => ConnectionError::TimedOut,
        CloseReason::Aborted => ConnectionError::NoPath,
        CloseReason::Unreachable(why) => ConnectionError::Unreachable(why),
    }
}

impl Connection {
    /// Ends one subflow without sending anything; what it carried is reinjected on others.
    pub(crate) fn drop_subflow(&mut self, ctx: &mut Context, now: Instant, i: usize, reason: CloseReason) {
        self.subflows[i].tcp.terminate(reason);
        self.end_subflow(ctx, now, i);
    }

    /// Subflow `i` has ended: it is marked, and leaves the connection when the step is over.
    pub(super) fn end_subflow(&mut self, ctx: &mut Context, now: Instant, i: usize) {
        if self.subflows[i].is_ended() {
            return;
        }
        self.reinject_from(i);
        self.subflows.mark_ended(i);
        let m = &self.subflows[i];
        self.addresses.on_change();
        let id = m.tcp.id();
        let waiting = (m.tcp.state() == State::TimeWait).then(|| TimeWait {
            path: m.tcp.path(),
            send_next: m.tcp.wire_seq(m.tcp.snd_nxt()),
            receive_next: m.tcp.wire_ack(),
            timestamps: m.tcp.timestamps(),
            ts_recent: m.tcp.ts_recent(),
            timestamp_offset: m.tcp.timestamp_offset(),
            since: now,
            until: now + TIME_WAIT,
        });
        ctx.close_tuple(m.tcp.tuple(), waiting);
        if m.tcp.close_reason() == Some(CloseReason::TimedOut) {
            self.count(ctx, now, Some(id), Counter::TcpAbortOnTimeout);
        }
        let error = m.tcp.close_reason().map(error_of);
        // A failed join is not why the connection ends if another subflow ended before, even if the join was
        // the last.
        self.life.on_subflow_ended(error, m.is_joined(), self.subflows.is_empty());
        let by_peer = matches!(error, None | Some(ConnectionError::Reset | ConnectionError::Refused));
        if by_peer && self.finished() {
            self.life.on_peer_knows_end();
        }
        if let Some(error) = error {
            self.note_lost(now, i, error);
            self.on_way_silent(ctx, now, i);
        } else if m.is_announced() && !self.life.has_ended() && !self.finished() {
            // The peer closed it. Without a pause, opening and closing could repeat forever.
            self.note_subflow_lost(now, i, pause_after(None));
        }
        let m = &self.subflows[i];
        let (connection, reset) = (self.id, m.reset());
        if m.is_announced() {
            self.cc.subflow_removed(now, id);
            self.scheduler.subflow_removed(id);
            let (path, stats) = (m.tcp.path(), m.tcp.stats());
            let traffic = Traffic { sent: stats.bytes_sent, received: stats.bytes_received };
            ctx.push_event(Event::SubflowClosed { connection, subflow: id, path, traffic, error, reset });
            self.tell_watchers_of(ctx, now, i, |connection, subflow| MonitorEvent::SubflowClosed {
                connection,
                subflow,
                error,
                reset,
            });
        } else if let Some(error) = error.filter(|_| m.join.is_ours_and_open()) {
            let (path, remote) = (m.tcp.path(), m.tcp.tuple().remote);
            ctx.push_event(Event::JoinFailed { connection, subflow: id, path, remote, error, reset });
            self.tell_watchers_of(ctx, now, i, |connection, subflow| MonitorEvent::JoinFailed {
                connection,
                subflow,
                error,
                reset,
            });
        }
    }

    /// Remembers a subflow that did not end by FIN, and decides whether its pair of addresses is tried again.
    fn note_lost(&mut self, now: Instant, i: usize, error: ConnectionError) {
        let m = &self.subflows[i];
        let pair = m.pair();
        self.addresses.failures.on_lost(LostSubflow {
            at: now,
            subflow: m.tcp.id(),
            local: m.tcp.tuple().local,
            remote: m.tcp.tuple().remote,
            error,
            reset: m.reset(),
            established: m.is_announced(),
        });
        let refused_for_good =
            matches!(m.reset(), Some(SubflowReset { by_peer: true, reason: Some(_), transient: false }));
        if m.is_joined() {
            match m.reset() {
                // RFC 8684 §3.6: the peer says that the condition is permanent.
                Some(_) if refused_for_good => self.addresses.failures.on_refused_for_good(pair),
                Some(reset) => self.note_subflow_lost(now, i, pause_after(reset.reason)),
                None if m.tcp.close_reason() == Some(CloseReason::Aborted) => {}
                None => self.note_subflow_lost(now, i, pause_after(None)),
            }
            return;
        }
        // Stacks that know MPTCP give a reason (RFC 8684 §3.2, §3.6). Without one it may be the host's word,
        // which does not know of the connection.
        let by_stack = matches!(m.reset(), Some(SubflowReset { by_peer: true, reason: Some(_), .. }));
        let refused = m.tcp.close_reason() == Some(CloseReason::Refused)
            && self.subflows.is_empty()
            && m.join.is_syn_sent();
        if refused && by_stack {
            self.life.on_refused();
        }
        let ours = m.join.is_ours_and_open() && m.tcp.close_reason() != Some(CloseReason::Aborted);
        if ours && refused_for_good {
            self.addresses.failures.on_refused_for_good(pair);
        } else if ours && refused && !by_stack {
            self.addresses.failures.ask_again(now, pair, HOST_ASKED);
        } else if ours {
            self.addresses.failures.on_join_failed(now, pair);
        }
    }

    /// Subflow `i`, which was joined, has been lost, or closed by the peer. Another waits for `pause`, and
    /// for longer if the last ones did not live long.
    fn note_subflow_lost(&mut self, now: Instant, i: usize, pause: Duration) {
        let m = &self.subflows[i];
        // One that we reset because of what came over it carried much and delivered little.
        let broken = matches!(m.reset(), Some(SubflowReset { by_peer: false, transient: false, .. }));
        let healthy = !broken && (m.has_carried(HEALTHY_BYTES) || m.age(now) >= HEALTHY_LIFE);
        self.addresses.failures.on_subflow_lost(now, m.pair(), pause, healthy);
    }

    /// Both directions are done (RFC 8684 §3.3.3).
    fn finished(&self) -> bool {
        self.send.is_fin_acked() && self.recv.is_finished()
    }

    /// There is nothing more to send now: updates the state of the connection. True if subflows were opened,
    /// whose SYNs wait.
    pub(super) fn on_nothing_to_send(&mut self, ctx: &mut Context, now: Instant) -> bool {
        let opened = self.subflows.opened();
        self.end_step(ctx, now);
        self.subflows.opened() != opened
    }

    /// The application lets go of it.
    pub(crate) fn handle_close(&mut self, ctx: &mut Context, now: Instant) {
        self.forget_application_queues();
        self.detach(ctx, now);
        self.subflows.sweep();
    }

    /// The end of a step: acts on what it has changed, and subflows that have ended go.
    pub(super) fn end_step(&mut self, ctx: &mut Context, now: Instant) {
        self.after_progress(ctx, now);
        self.subflows.sweep();
    }

    /// Acts on what a segment, a timer or the application has changed: closes and removes subflows, ends the
    /// connection.
    pub(crate) fn after_progress(&mut self, ctx: &mut Context, now: Instant) {
        self.notify_end_of_stream(ctx);
        if self.is_mptcp() {
            self.close_subflows(ctx, now);
        }
        for i in self.subflows.indices() {
            let Some(m) = self.subflows.get(i) else { continue };
            // A subflow in TIME_WAIT stays until its last ACK has left.
            let waiting_ack = m.tcp.state() == State::TimeWait && m.tcp.owes_ack();
            if m.tcp.is_finished() && !waiting_ack {
                self.end_subflow(ctx, now, i);
            }
        }
        if !self.life.has_ended() {
            self.check_end(ctx, now);
        }
        // The data level is complete; a peer that leaves its half of a subflow open must not hold the
        // connection forever.
        let over = match self.life.has_ended() {
            true => !self.subflows.is_empty() || self.is_in_time_wait(),
            false => self.life.is_orphan() && self.send.is_fin_acked(),
        };
        if over {
            self.life.give_up_by(now + ORPHAN_TIMEOUT);
        } else if self.life.has_ended() {
            ctx.forget_token(self.mptcp.local_token(), self.id);
        }
        if self.addresses.wants_look() && self.opens_subflows(ctx) {
            self.manage_paths(ctx, now);
        }
    }

    /// Closes the subflows that are of no more use (RFC 8684 §3.3.3).
    fn close_subflows(&mut self, ctx: &mut Context, now: Instant) {
        if self.finished() {
            for i in self.subflows.indices().rev() {
                let Some(m) = self.subflows.get_mut(i) else { continue };
                if m.tcp.state() == State::SynSent {
                    // RFC 9293 §3.10.4: an unanswered join is no longer needed.
                    m.tcp.terminate(CloseReason::Aborted);
                    continue;
                }
                // What it still carries has been acknowledged over others, and it does not get through. Only
                // beside another: the peer may not have our last DATA_ACK, which the FIN carries.
                let stuck = !m.tcp.is_all_acked()
                    && m.is_stale()
                    && self.can_be_reset(i)
                    && self.subflows.iter().any(|m| m.is_joined() && !m.is_stale());
                if stuck {
                    self.reset_subflow(ctx, now, i, ResetReason::TooMuchOutstandingData);
                } else {
                    self.subflows[i].tcp.close();
                }
            }
            return;
        }
        // The peer's FIN closes its direction of one subflow, as in regular TCP. Ours follows, but not while
        // it is the only one for what is left to send. After the peer's DATA_FIN that includes what may yet
        // be written: the peer has nothing more to say and waits. Without one it leaves this subflow for
        // another (break before make), and what is written later goes there.
        let done = if self.recv.is_finished() { self.send.is_fin_acked() } else { self.send.is_done() };
        let usable = self.subflows.iter().filter(|m| m.can_send_data() && !m.tcp.fin_received()).count();
        for m in self.subflows.iter_mut().filter(|m| m.tcp.fin_received()) {
            if done || usable > 0 {
                m.tcp.close();
            }
        }
    }

    /// Whether the connection has ended, now that subflows have.
    fn check_end(&mut self, ctx: &mut Context, now: Instant) {
        if self.finished() && (self.subflows.is_empty() || self.is_mptcp()) {
            self.end(ctx, now, None);
            return;
        }
        if !self.subflows.is_empty() {
            if self.subflows.iter().any(|m| m.is_joined()) && !self.is_stranded() {
                // Only an orphan that waits for the peer to close keeps its deadline.
                if !(self.life.is_orphan() && self.send.is_fin_acked()) {
                    self.life.go_on();
                }
            }
            return;
        }
        let error = self.life.last_error().unwrap_or(ConnectionError::Reset);
        // RFC 8684 §3.3.3: break before make. FIN and RST end a subflow, not the connection; another may
        // follow. A peer that refuses it has forgotten the connection, and the user timeout is the
        // application's own limit.
        let path_lost = self.client && error == ConnectionError::NoPath;
        let may_return = self.is_mptcp()
            && (self.mptcp.is_fully_established() || path_lost)
            && !self.life.is_refused()
            && error != ConnectionError::TimedOut;
        if !may_return {
            let error = if self.life.is_refused() { ConnectionError::Reset } else { error };
            self.end(ctx, now, Some(error));
            return;
        }
        if self.client {
            self.addresses.failures.on_none_left(now);
            self.manage_paths(ctx, now);
            let lasting = matches!(error, ConnectionError::Reset | ConnectionError::Broken);
            if lasting && self.subflows.is_empty() {
                // The paths are there, and every one has been tried.
                if self.addresses.failures.next_wait_end().is_none() {
                    self.end(ctx, now, Some(error));
                } else {
                    self.life.give_up_at_last(now + HOST_RETURNS);
                }
                return;
            }
        }
        self.life.give_up_by(now + self.config.close_timeout);
    }

    /// Data wait that no subflow will carry: those left have been closed by us, when others still could, and
    /// not by the peer.
    fn is_stranded(&self) -> bool {
        let open = |m: &Subflow| m.is_joined() && !m.tcp.is_closing();
        self.send.next() < self.send.end() && !self.subflows.iter().any(open)
    }

    /// Data wait for a subflow. With none that is open it is as without any (RFC 8684 §3.3.3): another may
    /// come, but no timer of those that are left would ever end it.
    pub(crate) fn wait_for_subflow(&mut self, now: Instant) {
        if self.is_stranded() {
            self.life.give_up_by(now + self.config.close_timeout);
        }
    }

    /// TIME_WAIT of the connection (RFC 8684 §3.3.3, appendix D): both DATA_FINs are acknowledged as far as
    /// we know, but no subflow is left to repeat our DATA_ACK, and the peer may not have it. It may join to
    /// ask.
    pub(crate) fn is_in_time_wait(&self) -> bool {
        self.is_mptcp() && self.subflow_count() == 0 && self.life.is_end_unconfirmed()
    }

    /// The connection has ended.
    pub(crate) fn end(&mut self, ctx: &mut Context, now: Instant, error: Option<ConnectionError>) {
        if self.life.has_ended() {
            return;
        }
        let admission = self.life.on_end(error);
        if let Some(listener) = admission.backlog {
            ctx.leave_half_open(listener);
        }
        if let Some(listener) = admission.fast_open {
            ctx.fast_open_abandoned(now, listener);
        }
        self.settle_end(ctx, now, error);
    }

    /// Releases what an ended connection holds, and tells the application.
    pub(super) fn settle_end(&mut self, ctx: &mut Context, now: Instant, error: Option<ConnectionError>) {
        if self.is_mptcp() {
            ctx.observe_end(now, self.id, Counter::MPCurrEstab);
        }
        if !self.life.is_end_unconfirmed() {
            ctx.forget_token(self.mptcp.local_token(), self.id);
        }
        self.send.on_end();
        self.addresses.adverts.clear();
        self.addresses.notices.clear();
        self.tell_watchers(ctx, now, |connection| MonitorEvent::ConnectionClosed { connection, error });
        if !self.life.is_orphan() {
            self.notify_readable(ctx);
            ctx.push_event(Event::Closed { connection: self.id, error });
        }
    }

    /// The application has finished writing. False: it has ended cleanly before.
    ///
    /// # Errors
    /// When it has ended otherwise.
    pub(crate) fn shutdown(&mut self) -> Result<bool, ConnectionError> {
        if let Some(error) = self.life.end() {
            return error.map_or(Ok(false), Err);
        }
        self.send.shutdown();
        self.life.on_syn_released();
        Ok(true)
    }

    /// The application lets go: what it wrote is still delivered. Data it has not read, or that comes later,
    /// cannot be: they make it an abort, as in TCP (RFC 9293 §3.6.1, SHLD-3; RFC 2525 §2.17).
    fn detach(&mut self, ctx: &mut Context, now: Instant) {
        self.life.on_let_go(now, self.send.bytes_acked());
        if self.life.has_ended() {
            return;
        }
        // With Fast Open the application may be done before the handshake is.
        if self.recv.readable_bytes() > 0 || !self.life.has_begun() {
            self.abort(ctx, now, ConnectionError::Aborted);
            return;
        }
        self.recv.discard();
        self.send.shutdown();
        self.after_progress(ctx, now);
    }

    /// Bytes that it has left to deliver; `None`: it has ended.
    pub(crate) fn left_to_deliver(&self) -> Option<u64> {
        (!self.life.has_ended()).then(|| self.send.end() - self.send.una())
    }

    /// When a connection that nobody holds is given up unless it delivers something before. When everything
    /// has been delivered, the deadline of the close counts instead.
    pub(crate) fn orphan_deadline(&self) -> Option<Instant> {
        let waits = !self.life.has_ended() && !self.send.is_fin_acked();
        self.life.orphan_since().filter(|_| waits).map(|since| since + self.config.orphan_timeout)
    }

    /// That time has come. A peer that answers probes of its closed window keeps a subflow alive for as long
    /// as it likes, but not the memory of a connection that nobody holds.
    pub(crate) fn check_orphan(&mut self, ctx: &mut Context, now: Instant) {
        if self.life.on_orphan_checked(now, self.send.bytes_acked()) {
            return;
        }
        self.count(ctx, now, None, Counter::TcpAbortOnTimeout);
        self.abort(ctx, now, ConnectionError::TimedOut);
    }

    /// It has ended, has no subflows, and the application has let go of it: it can be freed.
    pub(crate) fn is_dead(&self) -> bool {
        let over = self.subflows.is_empty() && !self.is_in_time_wait();
        self.life.has_ended() && self.life.is_orphan() && over
    }
}

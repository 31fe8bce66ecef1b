//! Ending a connection at once: MP_FASTCLOSE in both its forms (RFC 8684 §3.5).
//!
//! By example: `docs/src/by-example/fast-close.md`.

use super::connection::Connection;
use super::subflow::Subflow;
use crate::config::FastClose;
use crate::context::Context;
use crate::error::ConnectionError;
use crate::observe::Counter;
use crate::tcp::CloseReason;
use crate::wire::mptcp::{MpFastClose, MptcpOption};
use crate::wire::tcp::{TcpOptions, TcpRepr};
use umptcp_types::Instant;

/// MP_FASTCLOSEs on ACKs sent again before giving up (RFC 8684 §3.5 recommends 3).
const FAST_CLOSE_RETRIES: u8 = 3;

impl Connection {
    /// The application ends it at once.
    pub(crate) fn handle_abort(&mut self, ctx: &mut Context, now: Instant) {
        self.abort(ctx, now, ConnectionError::Aborted);
        self.subflows.sweep();
    }

    fn fast_close_option(&self) -> MptcpOption {
        MptcpOption::FastClose(MpFastClose { receiver_key: self.mptcp.remote_key() })
    }

    /// Ends everything at once, as configured: MP_FASTCLOSE on an ACK, or on a RST of every subflow (RFC 8684
    /// §3.5). Plain TCP is reset.
    pub(crate) fn abort(&mut self, ctx: &mut Context, now: Instant, error: ConnectionError) {
        let ack_form = self.config.fast_close == FastClose::Ack;
        if ack_form && !self.life.has_ended() && self.is_mptcp() && self.mptcp.is_fully_established() {
            let usable = |(_, m): &(usize, &Subflow)| m.can_acknowledge();
            let best =
                self.subflows.enumerate().filter(usable).min_by_key(|(_, m)| (m.is_stale(), m.tcp.srtt()));
            if let Some((i, _)) = best {
                self.abort_with_ack(ctx, now, i, error);
                return;
            }
        }
        self.abort_with_reset(ctx, now, error);
    }

    /// RFC 8684 §3.5, option R.
    fn abort_with_reset(&mut self, ctx: &mut Context, now: Instant, error: ConnectionError) {
        for i in self.subflows.indices() {
            let Some(m) = self.subflows.get(i) else { continue };
            let (id, joined) = (m.tcp.id(), m.is_joined());
            if self.can_be_reset(i) {
                let mut options = TcpOptions::default();
                if self.is_mptcp() && joined {
                    options.mptcp.push(self.fast_close_option());
                    self.count(ctx, now, Some(id), Counter::MPFastcloseTx);
                }
                self.send_subflow_reset(ctx, now, i, options);
            }
            self.drop_subflow(ctx, now, i, CloseReason::Aborted);
        }
        self.life.on_fast_close_over();
        self.end(ctx, now, Some(error));
    }

    /// RFC 8684 §3.5, option A: FASTCLOSE_WAIT on subflow `i`, a RST on every other.
    fn abort_with_ack(&mut self, ctx: &mut Context, now: Instant, i: usize, error: ConnectionError) {
        for j in self.subflows.indices().rev() {
            if j == i || self.subflows.get(j).is_none() {
                continue;
            }
            if self.can_be_reset(j) {
                self.send_subflow_reset(ctx, now, j, TcpOptions::default());
            }
            self.drop_subflow(ctx, now, j, CloseReason::Aborted);
        }
        let option = self.fast_close_option();
        let m = &mut self.subflows[i];
        m.tcp.stop_timers();
        m.signals.clear();
        m.signals.push(option);
        self.life.on_fast_close_sent(now + m.tcp.rto(), error);
        self.settle_end(ctx, now, Some(error));
    }

    /// Repeats MP_FASTCLOSE, and in the end gives up with a RST that carries it (RFC 8684 §3.5).
    pub(super) fn resend_fast_close(&mut self, ctx: &mut Context, now: Instant) {
        let Some(wait) = self.life.fast_close().filter(|f| f.resend <= now) else { return };
        let option = self.fast_close_option();
        let Some(m) = self.subflows.first_mut() else {
            self.life.on_fast_close_over();
            return;
        };
        if wait.tries > FAST_CLOSE_RETRIES {
            self.abort_with_reset(ctx, now, ConnectionError::Aborted);
            return;
        }
        m.signals.push(option);
        let resend = now + m.tcp.rto().saturating_mul(1 << wait.tries);
        self.life.on_fast_close_repeated(resend);
    }

    /// In FASTCLOSE_WAIT only a RST counts, which the subflow has dealt with already, and an MP_FASTCLOSE:
    /// both ends closed at the same time.
    pub(crate) fn on_segment_after_fast_close(&mut self, ctx: &mut Context, now: Instant, seg: &TcpRepr) {
        let key = self.mptcp.local_key();
        let closes = |o: &MptcpOption| matches!(o, MptcpOption::FastClose(f) if f.receiver_key == key);
        if seg.options.mptcp.iter().any(closes) {
            self.on_fast_close(ctx, now);
        }
    }

    /// The peer closed the connection at once (RFC 8684 §3.5): our subflows are reset without the option.
    pub(crate) fn on_fast_close(&mut self, ctx: &mut Context, now: Instant) {
        self.count(ctx, now, None, Counter::MPFastcloseRx);
        for i in self.subflows.indices() {
            if self.subflows.get(i).is_none() {
                continue;
            }
            if self.can_be_reset(i) {
                self.send_subflow_reset(ctx, now, i, TcpOptions::default());
            }
            self.drop_subflow(ctx, now, i, CloseReason::Reset);
        }
        self.life.on_fast_close_over();
        self.end(ctx, now, Some(ConnectionError::Reset));
    }
}

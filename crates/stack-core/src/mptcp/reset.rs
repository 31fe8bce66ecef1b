//! RSTs: of one subflow, with the reason that MP_TCPRST gives (RFC 8684 §3.6), and for segments that fit no
//! state.

use super::connection::Connection;
use super::join::Refusal;
use crate::context::challenges::Unasked;
use crate::context::{Context, Reset};
use crate::event::SubflowReset;
use crate::observe::Counter;
use crate::tcp::{CloseReason, State};
use crate::wire::mptcp::{MpTcpRst, MptcpOption, ResetReason};
use crate::wire::tcp::{TcpOptions, TcpRepr};
use umptcp_types::{Instant, SeqNumber};

/// The RST for a segment that fits no state (RFC 9293 §3.10.7.1); `len`: what it takes of the sequence space.
pub(crate) fn reset_for(seg: &TcpRepr, len: u32, options: TcpOptions) -> Reset {
    match seg.flags.ack {
        true => Reset { seq: seg.ack, ack: None, options, traffic_class: 0 },
        false => {
            let ack = Some(seg.seq.wrapping_add(len));
            Reset { seq: SeqNumber(0), ack, options, traffic_class: 0 }
        }
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
    pub(crate) fn answer_with_reset(&mut self, ctx: &mut Context, now: Instant, i: usize, seg: &TcpRepr) {
        if !ctx.allows(now, Unasked::Reset) {
            self.count(ctx, now, Some(self.subflows[i].tcp.id()), Counter::TcpACKSkippedChallenge);
            return;
        }
        let m = &self.subflows[i];
        let (path, tuple) = (m.tcp.path(), m.tcp.tuple());
        let traffic_class = self.config.traffic_class;
        let reset = Reset { traffic_class, ..reset_for(seg, 1, TcpOptions::default()) };
        ctx.send_reset(now, path, &tuple, reset);
    }

    /// Resets one subflow and tells the peer why.
    pub(crate) fn reset_subflow(&mut self, ctx: &mut Context, now: Instant, i: usize, reason: ResetReason) {
        self.reset_subflow_saying(ctx, now, i, Refusal { reason, transient: false }, None);
    }

    /// The same, for a join that may succeed later.
    pub(crate) fn refuse_subflow(&mut self, ctx: &mut Context, now: Instant, i: usize, refusal: Refusal) {
        self.reset_subflow_saying(ctx, now, i, refusal, None);
    }

    /// The same with one more option on the RST.
    pub(crate) fn reset_subflow_saying(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        i: usize,
        refusal: Refusal,
        also: Option<MptcpOption>,
    ) {
        let m = &self.subflows[i];
        if m.tcp.state() != State::SynSent && m.tcp.state() != State::Closed {
            let options = if self.is_mptcp() {
                self.count(ctx, now, Some(m.tcp.id()), Counter::MPRstTx);
                let mut options = reset_options(refusal.reason, refusal.transient);
                options.mptcp.extend(also);
                options
            } else {
                TcpOptions::default()
            };
            self.send_subflow_reset(ctx, now, i, options);
        }
        let reason_given = self.is_mptcp().then_some(refusal.reason);
        let transient = refusal.transient;
        self.subflows[i].on_reset(SubflowReset { by_peer: false, reason: reason_given, transient });
        self.drop_subflow(ctx, now, i, CloseReason::Reset);
        if matches!(refusal.reason, ResetReason::MiddleboxInterference | ResetReason::MptcpSpecific) {
            self.life.on_subflow_broken();
        }
        self.after_progress(ctx, now);
    }

    /// A RST with `options` on subflow `i`.
    pub(super) fn send_subflow_reset(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        i: usize,
        options: TcpOptions,
    ) {
        let m = &self.subflows[i];
        let (path, tuple) = (m.tcp.path(), m.tcp.tuple());
        let (seq, ack) = (m.tcp.wire_seq(m.tcp.snd_nxt()), Some(m.tcp.wire_ack()));
        ctx.send_reset(
            now,
            path,
            &tuple,
            Reset { seq, ack, options, traffic_class: self.config.traffic_class },
        );
    }

    /// Subflow `i` may be told of the end: its peer has state for it.
    pub(super) fn can_be_reset(&self, i: usize) -> bool {
        !matches!(self.subflows[i].tcp.state(), State::SynSent | State::Closed | State::TimeWait)
    }
}

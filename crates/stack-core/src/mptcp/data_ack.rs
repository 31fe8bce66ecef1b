//! DATA_ACK, the data-level retransmission timer and reinjection (RFC 8684 §3.3.2, §3.3.5, §3.3.6).
//!
//! By example: `docs/src/by-example/dss.md`.

use super::connection::Connection;
use crate::context::Context;
use crate::error::ConnectionError;
use crate::observe::Counter;
use crate::wire::mptcp::DataAck;
use smallvec::SmallVec;
use umptcp_types::{DataOffset, DataSeq, Duration, Instant, SubflowId};

impl Connection {
    /// Takes a DATA_ACK and the window that came with it.
    pub(crate) fn on_data_ack(&mut self, ctx: &mut Context, now: Instant, ack: DataAck, window: u64) {
        let near = self.send.una().to_wire(self.mptcp.local_idsn());
        let seq = match ack {
            DataAck::Long(v) => DataSeq(v),
            DataAck::Short(v) => DataSeq::from_low32(v, near),
        };
        let sent = self.send.sent_end();
        let Some(ack) = DataOffset::from_wire(seq, self.mptcp.local_idsn()).filter(|ack| *ack <= sent) else {
            // An acknowledgement of data never sent: ignored, as TCP does (RFC 9293 §3.10.7.4).
            self.count(ctx, now, None, Counter::DataAckInvalid);
            return;
        };
        let progress = self.send.on_data_ack(now, ack, window);
        if progress.freed > 0 {
            self.tune_send_buffer(ctx, progress.freed);
            self.notify_writable(ctx);
        }
        if progress.restart_timer {
            self.arm_data_timer(now, true);
        }
    }

    /// Starts the data-level timer if something is unacknowledged; `restart` even when it runs.
    pub(crate) fn arm_data_timer(&mut self, now: Instant, restart: bool) {
        if !self.is_mptcp() || !self.send.is_outstanding() {
            self.send.stop_timer();
            return;
        }
        if self.send.timeout().is_some() && !restart {
            return;
        }
        let rto = self.subflows.iter().filter(|m| m.tcp.is_synchronized()).map(|m| m.tcp.rto()).max();
        let rto = rto.unwrap_or(Duration::from_secs(1));
        self.send.start_timer(now, rto, self.config.user_timeout);
    }

    /// Every subflow but one, for data that was acknowledged by a subflow's peer and not by ours.
    fn all_but_rescuer(&mut self) -> SmallVec<[SubflowId; 2]> {
        let able: SmallVec<[SubflowId; 4]> =
            self.subflows.iter().filter(|m| m.can_send_data()).map(|m| m.tcp.id()).collect();
        if able.len() < 2 {
            return SmallVec::new();
        }
        let chosen = self.send.choose_rescuer(&able);
        able.into_iter().filter(|id| *id != chosen).collect()
    }

    /// The data-level timer fired: what every subflow has acknowledged but the data level has not is sent
    /// again (RFC 8684 §3.3.6: middleboxes that acknowledge by themselves), and so is a DATA_FIN.
    pub(crate) fn on_data_timer(&mut self, ctx: &mut Context, now: Instant) {
        self.send.stop_timer();
        if self.send.stalled_for(now) >= self.config.user_timeout {
            // RFC 5482, at the level the application sees: subflows may acknowledge while DATA_ACKs are lost
            // for good.
            self.abort(ctx, now, ConnectionError::TimedOut);
            return;
        }
        let una = self.send.una();
        let waits_for_data = una < self.send.next() && !self.is_carried(una);
        let waits_for_fin = self.send.awaits_fin_ack();
        if waits_for_fin {
            self.send.repeat_fin();
        }
        if waits_for_data || waits_for_fin {
            self.ask_for_data_ack(ctx, now);
        }
        // Only when there has been more than one subflow: a peer with one may have fallen back because its
        // DSS options are stripped, and would take what is sent again for new data.
        if waits_for_data && !self.send.is_reinjecting() && self.subflows.opened() > 1 {
            let end = self.send.next().min(una + 65_536);
            let carried_by = self.all_but_rescuer();
            self.send.reinject(una..end, &carried_by);
        }
        self.send.on_timeout();
        self.count(ctx, now, None, Counter::MPTCPTimeouts);
        self.arm_data_timer(now, true);
    }

    /// Whether a subflow still has the data at `at` outstanding, so that its own timers see to it.
    pub(super) fn is_carried(&self, at: DataOffset) -> bool {
        self.subflows.iter().any(|m| {
            m.tcp.unacked().any(|(range, tag)| {
                tag.is_some_and(|t| {
                    let start = t.data.0 + (range.start.0.saturating_sub(t.subflow.0));
                    start <= at.0 && at.0 < start + (range.end.0 - range.start.0)
                })
            })
        })
    }

    /// Makes the peer send its DATA_ACK. The subflows have acknowledged everything, so nothing of theirs
    /// makes it speak, and a DATA_ACK that was lost is not repeated unasked: an ACK below the window is
    /// answered at once (RFC 9293 §3.10.7.4), and the answer carries the current DATA_ACK. On every subflow,
    /// because one may be dead.
    fn ask_for_data_ack(&mut self, ctx: &mut Context, now: Instant) {
        let mut asked = false;
        for m in self.subflows.iter_mut().filter(|m| m.can_acknowledge()) {
            m.tcp.probe_peer();
            asked = true;
        }
        if asked {
            self.count(ctx, now, None, Counter::DataAckProbe);
        }
    }

    /// What subflow `i` carries and the peer has not DATA_ACKed goes to other subflows, but for what one that
    /// answers carries already.
    pub(crate) fn reinject_from(&mut self, i: usize) {
        if !self.is_mptcp() {
            return;
        }
        let id = self.subflows[i].tcp.id();
        let answering: SmallVec<[SubflowId; 4]> =
            self.subflows.iter().filter(|m| m.is_healthy() && !m.is_ended()).map(|m| m.tcp.id()).collect();
        for (range, tag) in self.subflows[i].tcp.unacked() {
            let Some(t) = tag else { continue };
            let start = DataOffset(t.data.0 + range.start.0.saturating_sub(t.subflow.0));
            let end = DataOffset(t.data.0 + range.end.0.saturating_sub(t.subflow.0));
            self.send.reinject_from(start..end, id, &answering);
        }
    }
}

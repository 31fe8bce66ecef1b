//! DATA_ACK, the data-level retransmission timer and reinjection (RFC 8684 §3.3.2, §3.3.5, §3.3.6).

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
        let near = self.send.una().to_wire(self.local_idsn);
        let seq = match ack {
            DataAck::Long(v) => DataSeq(v),
            DataAck::Short(v) => DataSeq::from_low32(v, near),
        };
        let sent = self.send_next + u64::from(self.fin.sent);
        let Some(ack) = DataOffset::from_wire(seq, self.local_idsn).filter(|ack| *ack <= sent) else {
            // An acknowledgement of data never sent: ignored, as TCP does (RFC 9293 §3.10.7.4).
            self.count(ctx, now, None, Counter::DataAckInvalid);
            return;
        };
        // RFC 8684 §3.3.5: the right edge only ever grows.
        if ack + window > self.send_edge {
            self.send_edge = ack + window;
            self.window_probes = 0;
        }
        let freed = self.send.acknowledge(ack);
        if freed > 0 {
            self.bytes_acked += freed;
            self.retransmit_count = 0;
            self.notify_writable(ctx);
        }
        if self.fin.sent && !self.fin.acked && ack > self.send.end() {
            self.fin.acked = true;
            self.fin.wanted = false;
        }
        if freed > 0 || self.fin.acked || self.send.una() == self.send_next {
            self.data_progress = now;
        }
        if freed > 0 || self.fin.acked {
            self.arm_data_timer(now, true);
        }
    }

    /// Starts the data-level timer if something is unacknowledged; `restart` even when it runs.
    pub(crate) fn arm_data_timer(&mut self, now: Instant, restart: bool) {
        let unacked = self.send.una() < self.send_next || (self.fin.sent && !self.fin.acked);
        // A closed window too waits for a DATA_ACK; the subflow's own probes ask for it.
        let outstanding = unacked || self.blocked;
        if !self.is_mptcp() || !outstanding {
            self.retransmit_at = None;
            return;
        }
        if self.retransmit_at.is_some() && !restart {
            return;
        }
        if self.retransmit_at.is_none() && self.retransmit_count == 0 {
            self.data_progress = now;
        }
        let rto = self.subflows.iter().filter(|m| m.tcp.is_synchronized()).map(|m| m.tcp.rto()).max();
        let rto = rto.unwrap_or(Duration::from_secs(1)).max(Duration::from_millis(200));
        self.retransmit_at = Some(now + rto.saturating_mul(1 << self.retransmit_count.min(6)));
    }

    /// Every subflow but one, for data that was acknowledged by a subflow's peer and not by ours. It is not known which one
    /// that was, and a box that answers at once may be what the scheduler likes best, so they take turns: the one that
    /// brought a DATA_ACK stays, after one that did not the next is tried.
    fn all_but_rescuer(&mut self) -> SmallVec<[SubflowId; 2]> {
        let able: SmallVec<[SubflowId; 4]> =
            self.subflows.iter().filter(|m| m.can_send_data()).map(|m| m.tcp.id()).collect();
        if able.len() < 2 {
            return SmallVec::new();
        }
        if self.retransmit_count > 0 {
            self.rescuer = self.rescuer.wrapping_add(1);
        }
        let chosen = able[self.rescuer % able.len()];
        able.into_iter().filter(|id| *id != chosen).collect()
    }

    /// The data-level timer fired: what every subflow has acknowledged but the data level has not is sent again
    /// (RFC 8684 §3.3.6: middleboxes that acknowledge by themselves), and so is a DATA_FIN.
    pub(crate) fn on_data_timer(&mut self, ctx: &mut Context, now: Instant) {
        self.retransmit_at = None;
        if now - self.data_progress >= self.config.user_timeout {
            // RFC 5482, at the level the application sees: subflows may acknowledge while DATA_ACKs are lost for good.
            self.abort(ctx, now, ConnectionError::TimedOut);
            return;
        }
        let una = self.send.una();
        let waits_for_data = una < self.send_next && !self.is_carried(una);
        let waits_for_fin = self.fin.sent && !self.fin.acked;
        if waits_for_fin {
            self.fin.wanted = true;
        }
        if waits_for_data || waits_for_fin {
            self.ask_for_data_ack(ctx, now);
        }
        // Only when there has been more than one subflow: a peer with one may have fallen back because its DSS options
        // are stripped, and would take what is sent again for new data.
        if waits_for_data && self.reinject.is_empty() && self.next_subflow > 1 {
            let end = self.send_next.min(una + 65_536);
            let carried_by = self.all_but_rescuer();
            self.reinject.push(una..end, &carried_by);
        }
        self.retransmit_count += 1;
        self.count(ctx, now, None, Counter::MPTCPTimeouts);
        self.arm_data_timer(now, true);
    }

    /// Whether a subflow still has the data at `at` outstanding, so that its own timers see to it.
    fn is_carried(&self, at: DataOffset) -> bool {
        self.subflows.iter().any(|m| {
            m.tcp.unacked().any(|(range, tag)| {
                tag.is_some_and(|t| {
                    let start = t.data.0 + (range.start.0.saturating_sub(t.subflow.0));
                    start <= at.0 && at.0 < start + (range.end.0 - range.start.0)
                })
            })
        })
    }

    /// Makes the peer send its DATA_ACK. The subflows have acknowledged everything, so nothing of theirs makes it speak, and a
    /// DATA_ACK that was lost is not repeated unasked: an ACK below the window is answered at once (RFC 9293 §3.10.7.4), and
    /// the answer carries the current DATA_ACK. On every subflow, because one may be dead.
    fn ask_for_data_ack(&mut self, ctx: &mut Context, now: Instant) {
        let mut asked = false;
        for m in self.subflows.iter_mut().filter(|m| m.is_joined() && m.tcp.is_synchronized()) {
            m.tcp.probe_peer();
            asked = true;
        }
        if asked {
            self.count(ctx, now, None, Counter::DataAckProbe);
        }
    }

    /// The timeout of `subflow` was spurious: what it carries need not be sent again elsewhere.
    pub(crate) fn withdraw_reinjection(&mut self, subflow: SubflowId) {
        self.reinject.withdraw(subflow);
    }

    /// What member `i` carries and the peer has not DATA_ACKed goes to other subflows.
    pub(crate) fn reinject_from(&mut self, i: usize) {
        if !self.is_mptcp() {
            return;
        }
        let una = self.send.una();
        let id = self.subflows[i].tcp.id();
        for (range, tag) in self.subflows[i].tcp.unacked() {
            let Some(t) = tag else { continue };
            let start = DataOffset(t.data.0 + range.start.0.saturating_sub(t.subflow.0)).max(una);
            let end = DataOffset(t.data.0 + range.end.0.saturating_sub(t.subflow.0));
            if start >= end {
                continue;
            }
            self.reinject.push(start..end, &[id]);
        }
    }
}

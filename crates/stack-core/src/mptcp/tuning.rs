//! Buffers that tune themselves (RFC 6182 §5.3): twice the sum of the subflows' rates times the longest
//! round-trip time, for while a packet of the slowest is sent again, all the others go on.

use super::connection::Connection;
use super::right_size::LEAST;
use super::subflow::Subflow;
use crate::context::{Context, Pressure};
use crate::observe::Counter;
use crate::wire::mptcp::MptcpOption;
use crate::wire::tcp::TcpRepr;
use umptcp_types::{DataOffset, Duration, Instant, SeqNumber};

/// In parts of what goes through in a round trip.
const STEADY: u128 = 2;

impl Connection {
    /// The subflows that carry data, as far as it is up to them: backups only where there are no others.
    fn carrying(&self) -> impl Iterator<Item = &Subflow> {
        let able = |m: &&Subflow| m.can_acknowledge() && !m.is_stale() && m.tcp.timeouts_in_a_row() == 0;
        let all_backups = self.subflows.iter().filter(able).all(Subflow::is_backup);
        self.subflows.iter().filter(able).filter(move |m| all_backups || !m.is_backup())
    }

    /// Data have come, or the application has read: the receive buffer becomes what it needs.
    pub(super) fn tune_receive_buffer(&mut self, ctx: &Context, now: Instant) {
        if !self.recv.may_grow() || ctx.pressure() > Pressure::None {
            // What goes through meanwhile does not go through in one round trip.
            self.recv.forget_measurement();
            return;
        }
        let rtt: Option<Duration> = self.carrying().filter_map(|m| m.tcp.receive_rtt(now)).max();
        if let Some(rtt) = rtt
            && self.recv.tune(now, rtt)
        {
            self.on_window_size();
        }
    }

    /// The receive buffer has another size: what subflows remember is bounded by it.
    pub(super) fn on_window_size(&mut self) {
        let most = self.recv.most_offered();
        self.subflows.iter_mut().for_each(|m| m.incoming.set_window(most));
    }

    /// `freed` bytes have left the send buffer: it becomes what the subflows need. What a congestion window
    /// allows in a round trip is the rate, so that the buffer is ahead of slow start.
    pub(super) fn tune_send_buffer(&mut self, ctx: &Context, freed: u64) {
        if !self.send.may_be_short(freed) || ctx.pressure() > Pressure::None {
            return;
        }
        let longest = self.carrying().filter_map(|m| m.tcp.srtt()).max().unwrap_or_default();
        let in_longest = |m: &Subflow| {
            let window = u128::from(self.cc.window(m.tcp.id()));
            m.tcp.srtt().map_or(0, |srtt| window * longest.as_nanos() / srtt.as_nanos().max(1))
        };
        let needed = STEADY.saturating_mul(self.carrying().map(in_longest).sum());
        self.send.grow(u64::try_from(needed).unwrap_or(u64::MAX));
    }
    // ---- the memory of all connections ----

    /// Bytes received that wait for the application, for those before them, or for their mapping.
    fn held_of_peer(&self) -> u64 {
        let waiting = |m: &Subflow| m.tcp.out_of_order() + m.incoming.waiting() as u64;
        self.recv.held() + self.subflows.iter().map(waiting).sum::<u64>()
    }

    /// Brings the account of all connections up to date, and the buffers to what that leaves them.
    pub(super) fn account(&mut self, ctx: &mut Context, now: Instant) {
        let held = self.send.held() + self.held_of_peer();
        let before = core::mem::replace(&mut self.charged, held);
        if ctx.charge(before, held) {
            self.count(ctx, now, None, Counter::TcpMemoryPressures);
        }
        let pressure = ctx.pressure();
        self.recv.on_pressure(pressure);
        if self.send.on_pressure(pressure) {
            self.notify_writable(ctx);
        }
    }

    /// It goes, and what it held.
    pub(crate) fn on_freed(&mut self, ctx: &mut Context) {
        ctx.charge(core::mem::take(&mut self.charged), 0);
    }

    /// All connections together hold what they may: a segment whose data would have to wait, for the
    /// application or for others, is as if lost, and this is what counts it. What does not have to wait is
    /// taken, and so are a few packets.
    pub(super) fn refuse_for_memory(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        i: usize,
        seg: &TcpRepr,
        len: usize,
    ) -> Option<Counter> {
        if len == 0 || ctx.pressure() < Pressure::Full || self.held_of_peer() + len as u64 <= LEAST as u64 {
            return None;
        }
        let tcp = &mut self.subflows[i].tcp;
        let next = tcp.wire_ack();
        if !SeqNumber(seg.seq.0.wrapping_add(len as u32)).after(next) {
            return None;
        }
        if seg.seq.after(next) {
            return Some(Counter::TcpOFODrop);
        }
        if self.recv.readable_bytes() > 0 {
            // It may be a probe of the closed window, which is to be answered.
            tcp.ack_now();
            return Some(Counter::TcpRcvQDrop);
        }
        if !self.waits_for_others(seg) {
            return None;
        }
        if self.recv.on_refused(now) {
            self.recv.prune();
            self.count(ctx, now, None, Counter::TcpOfoPruned);
            return None;
        }
        Some(Counter::TcpOFODrop)
    }

    /// Data that are in order on their subflow lie beyond what is expected next at the data level, says their
    /// mapping. What of the mapping comes before them has come.
    fn waits_for_others(&self, seg: &TcpRepr) -> bool {
        let mapping = seg.options.mptcp.iter().find_map(|option| match option {
            MptcpOption::Dss(dss) => dss.mapping,
            _ => None,
        });
        let idsn = self.mptcp.remote_idsn();
        let data = mapping.and_then(|m| DataOffset::from_wire(self.recv.whole_dsn(m.dsn, idsn), idsn));
        self.is_mptcp() && data.is_some_and(|at| at > self.recv.next_data())
    }
}

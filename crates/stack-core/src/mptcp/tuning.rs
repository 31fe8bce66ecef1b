//! Buffers that tune themselves (RFC 6182 §5.3): twice the sum of the subflows' rates times the longest
//! round-trip time, for while a packet of the slowest is sent again, all the others go on.

use super::connection::Connection;
use super::subflow::Subflow;
use crate::context::{Context, Pressure};
use umptcp_types::{Duration, Instant};

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
}

//! Data in the SYN (RFC 7413; RFC 8684 appendix B).
//!
//! They come before the data sequence space: the SYN still has its first number, the first byte after them
//! the second, on the wire of both levels. Here offsets count from the first byte of the stream, so the two
//! ends keep how many bytes the SYN carried and take them off data and subflow sequence numbers on the wire.

use super::connection::Connection;
use super::mapping::Segment;
use crate::context::Context;
use crate::context::fast_open::Advice;
use crate::event::Event;
use crate::observe::Counter;
use crate::tcp::default_mss;
use crate::wire::tcp::{MAX_OPTIONS, TcpRepr};
use bytes::Bytes;
use umptcp_types::{DataOffset, Instant};

/// Longest cookie that fits a SYN beside MSS, SACK, timestamps, window scale (20 bytes) and MP_CAPABLE (4),
/// and without the latter.
const LONGEST_COOKIE: usize = 14;
const LONGEST_PLAIN_COOKIE: usize = 16;

/// What a SYN carries at most, options included, whatever MSS the server offered (RFC 7413 §4.1.3).
fn longest_syn(v6: bool) -> u64 {
    if v6 { 1440 } else { 1460 }
}

impl Connection {
    /// Offset of the first byte that the SYN of subflow `i` did not carry to the peer.
    pub(crate) fn first_data(&self, i: usize) -> u64 {
        self.subflows[i].outgoing.first_data()
    }

    /// Server: data may be sent although the handshake is not through (RFC 7413 §4.2.2). In plain TCP always. In MPTCP
    /// a DATA_ACK cannot be given before the third ACK brings the client's key, and Linux falls back when the
    /// first data come without one: only to a client that is known to take them.
    pub(crate) fn answers_early(&self) -> bool {
        self.life.is_accepted_early() && (self.mptcp.is_plain() || self.mptcp.maps_early())
    }

    /// Server: the client is known to take data with a mapping and without a DATA_ACK, so that an answer need not wait
    /// for its key. Means nothing unless the SYN's data were taken, nor once the third ACK has come.
    pub(crate) fn answer_early(&mut self, ctx: &mut Context, now: Instant) {
        let waits = self.life.is_accepted_early() && self.mptcp.is_open() && !self.mptcp.maps_early();
        let Some(i) = self.subflows.first_index().filter(|_| waits) else { return };
        self.mptcp.on_early_mappings_taken();
        self.begin_early(ctx, now, i);
    }

    /// What follows the SYN/ACK keeps to the window of the SYN, and to the initial one.
    fn begin_early(&mut self, ctx: &mut Context, now: Instant, i: usize) {
        let tcp = &mut self.subflows[i].tcp;
        tcp.allow_early_data();
        self.send.on_handshake(DataOffset(tcp.send_edge().0));
        self.announce(ctx, now, i);
    }

    /// What the first SYN is to do.
    fn fast_open_advice(&self, ctx: &Context, now: Instant) -> Advice {
        if !self.config.fast_open || !self.client {
            return Advice::Leave;
        }
        let longest = if self.mptcp.is_open() { LONGEST_COOKIE } else { LONGEST_PLAIN_COOKIE };
        match ctx.fast_open_advice(now, self.initial_tuple.local.ip(), self.initial_tuple.remote) {
            // RFC 7413 §4.2.2: no room for the option, no Fast Open.
            Advice::Send(cookie, _) if cookie.len() > longest => Advice::Leave,
            advice => advice,
        }
    }

    /// Client: with a cookie at hand the SYN waits for data that it can carry.
    pub(crate) fn put_off_syn(&mut self, ctx: &Context, now: Instant) {
        if matches!(self.fast_open_advice(ctx, now), Advice::Send(..)) {
            self.life.await_data();
        }
    }

    /// Client: data for the first SYN if a cookie is known, else a request for one. A SYN sent again has
    /// neither (RFC 7413 §4.2.2).
    pub(crate) fn add_fast_open(&mut self, ctx: &mut Context, now: Instant, i: usize, segment: &mut Segment) {
        let m = &self.subflows[i];
        if !m.join.is_initial() || m.tcp.syn_follows_old_ack() {
            return;
        }
        if m.tcp.stats().timeouts > 0 {
            self.doubt_fast_open(ctx, now, i);
            return;
        }
        match self.fast_open_advice(ctx, now) {
            Advice::Leave => {}
            Advice::Ask => {
                self.subflows[i].outgoing.on_cookie_asked();
            }
            Advice::Send(cookie, mss) => {
                let m = &mut self.subflows[i];
                let mss = u64::from(mss).min(u64::from(m.tcp.own_mss()));
                let mss = mss.min(longest_syn(m.tcp.tuple().remote.is_ipv6()));
                let n = (self.send.end() - DataOffset(1)).min(mss.saturating_sub(MAX_OPTIONS as u64));
                if n == 0 {
                    return;
                }
                segment.payload = self.send.slice(DataOffset(1)..DataOffset(1 + n));
                m.tcp.syn_carries(n as u32);
                m.outgoing.on_cookie_used(cookie);
            }
        }
    }

    /// Client: a SYN with the option was not answered, or by an ICMP error. Maybe that is why (RFC 7413
    /// §4.1.3.1).
    pub(crate) fn doubt_fast_open(&mut self, ctx: &mut Context, now: Instant, i: usize) {
        let m = &self.subflows[i];
        if self.life.is_connecting() && (m.tcp.syn_data() > 0 || m.outgoing.asked_cookie()) {
            ctx.fast_open_in_doubt(now, m.tcp.tuple().local.ip(), m.tcp.tuple().remote);
        }
    }

    /// Client: what the SYN/ACK says of the data in the SYN. What it does not acknowledge is sent again as
    /// ordinary data.
    pub(crate) fn on_fast_open_answer(&mut self, ctx: &mut Context, now: Instant, i: usize, seg: &TcpRepr) {
        let m = &self.subflows[i];
        let id = Some(m.tcp.id());
        let (sent, acked) = (m.tcp.syn_data(), u64::from(m.tcp.syn_data_acked()));
        if sent == 0 && !m.outgoing.asked_cookie() {
            return;
        }
        let (local, remote) = (m.tcp.tuple().local.ip(), m.tcp.tuple().remote);
        match seg.options.fast_open.as_ref().filter(|c| !c.is_empty()) {
            Some(cookie) => {
                let mss = seg.options.mss.unwrap_or(default_mss(remote.is_ipv6()) as u16);
                ctx.fast_open_cookie_came(now, local, remote, cookie, mss);
            }
            None if acked > 0 => ctx.fast_open_works(now, local, remote),
            // RFC 7413 §4.1.3.1: neither a cookie nor the data taken, or the SYN lost: left alone for a
            // while.
            None => {
                ctx.fast_open_refused(now, local, remote);
                if m.tcp.stats().timeouts > 0 {
                    self.count(ctx, now, id, Counter::TcpFastOpenBlackhole);
                }
            }
        }
        if sent > 0 {
            let taken = acked > 0;
            let what = if taken { Counter::TcpFastOpenActive } else { Counter::TcpFastOpenActiveFail };
            self.count(ctx, now, id, what);
        }
        if acked == 0 {
            return;
        }
        let payload = self.send.slice(DataOffset(1)..DataOffset(1 + acked));
        let m = &mut self.subflows[i];
        m.tcp.syn_data_delivered(now, payload);
        m.outgoing.on_syn_data_acked(acked);
        self.mptcp.on_syn_data_acked(acked);
        self.send.on_syn_data_acked(acked);
        self.notify_writable(ctx);
    }

    /// Server: the SYN of the first subflow carried `data`, and its cookie was valid. The application has the
    /// connection at once.
    pub(crate) fn take_syn_data(&mut self, ctx: &mut Context, now: Instant, mut data: Bytes) {
        // What the receive buffer has no room for is not acknowledged and comes again.
        data.truncate(self.recv.syn_data_room());
        let n = data.len() as u64;
        let Some(i) = self.subflows.first_index().filter(|_| n > 0) else { return };
        let m = &mut self.subflows[i];
        let id = Some(m.tcp.id());
        m.tcp.syn_data_received(n);
        m.incoming.on_syn_data(n);
        self.recv.on_syn_data(n);
        self.life.on_syn_data_taken();
        if self.answers_early() {
            self.begin_early(ctx, now, i);
        }
        ctx.push_event(Event::Connected { connection: self.id });
        self.count(ctx, now, id, Counter::TcpFastOpenPassive);
        self.insert_data(ctx, now, i, DataOffset(1), data);
    }
}

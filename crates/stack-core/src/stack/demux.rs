//! From a packet to the connection it belongs to.

use super::segment::Stray;
use super::state::Stack;
use crate::context::Use;
use crate::context::challenges::Unasked;
use crate::context::time_wait::Verdict;
use crate::device::{ChecksumState, PathKind, RxPacket};
use crate::event::Traffic;
use crate::mptcp::handshake::sole_capable;
use crate::mptcp::join::{Refusal, join};
use crate::mptcp::reset::{reset_for, reset_options};
use crate::observe::Counter;
use crate::tcp::{Arrival, FourTuple};
use crate::wire::icmp::IcmpError;
use crate::wire::ip::{self, IpHeader, can_be_peer};
use crate::wire::mptcp::MpJoin;
use crate::wire::tcp::{TcpFlags, TcpOptions, TcpRepr, Timestamps};
use bytes::Bytes;
use core::net::{IpAddr, SocketAddr};
use umptcp_types::{Instant, PathId};

impl Stack {
    /// A packet, TCP or ICMP, came in on `path`. Anything malformed is counted and dropped.
    pub fn handle_packet(&mut self, now: Instant, path: PathId, packet: RxPacket) {
        let Ok(header) = IpHeader::parse(&packet.buffer) else {
            self.ctx.observe(now, None, None, Counter::TcpInErrs);
            return;
        };
        if !self.is_ours(path, header.dst) {
            self.ctx.observe(now, None, None, Counter::TcpInAddrErrors);
            return;
        }
        let bytes = packet.wire_len(header.header_len) as u64;
        self.count_on_path(now, path, Traffic::new(0, bytes));
        match header.protocol {
            ip::PROTOCOL_TCP if !header.fragment => self.handle_tcp(now, path, &header, &packet),
            ip::PROTOCOL_ICMP | ip::PROTOCOL_ICMPV6 => {
                let error = IcmpError::parse(&header, &packet.buffer).ok();
                if error.and_then(|e| self.handle_icmp(now, header.dst, &e)).is_none() {
                    self.ctx.observe(now, None, None, Counter::TcpIcmpInErrors);
                }
            }
            ip::PROTOCOL_TCP => self.ctx.observe(now, None, None, Counter::TcpReasmFails),
            _ => {}
        }
    }

    /// Whether packets to `address` on `path` concern this stack. Not bound to the very path (weak host
    /// model): the peer may answer by another device. One that has been removed cannot carry an answer.
    fn is_ours(&self, path: PathId, address: IpAddr) -> bool {
        let path = self.ctx.path(path);
        path.is_some_and(|p| p.kind == PathKind::Capture || self.ctx.path_of(address).is_some())
    }

    fn handle_tcp(&mut self, now: Instant, path: PathId, header: &IpHeader, packet: &RxPacket) {
        let segment = packet.buffer.slice(header.header_len..header.total_len);
        if packet.checksum == ChecksumState::Unverified
            && !TcpRepr::verify_checksum(header.src, header.dst, &segment)
        {
            self.ctx.observe(now, None, None, Counter::TcpInCsumErrors);
            return;
        }
        let Ok((seg, header_len)) = TcpRepr::parse(&segment) else {
            self.ctx.observe(now, None, None, Counter::TcpInErrs);
            return;
        };
        let payload = segment.slice(header_len..);
        let tuple = FourTuple {
            local: SocketAddr::new(header.dst, seg.dst_port),
            remote: SocketAddr::new(header.src, seg.src_port),
        };
        tracing::trace!(%path, "in  {}", seg.summary(header.src, header.dst, payload.len()));
        if let Some((connection, subflow)) = self.ctx.owner_of_tuple(&tuple) {
            if let Some(c) = self.connections.get_mut(&connection) {
                let marked = header.ecn == ip::ecn::CE;
                if marked {
                    self.ctx.observe(now, Some(connection), Some(subflow), Counter::TcpInCEPkts);
                }
                let signals = seg.options.has_signal();
                c.handle_segment(
                    &mut self.ctx,
                    now,
                    subflow,
                    Arrival { seg: &seg, payload, marked, signals },
                );
                let bytes = packet.wire_len(header.header_len) as u64;
                self.on_carried(now, path, connection, bytes);
                self.touched(connection);
            }
            return;
        }
        self.handle_unknown(now, Stray { path, tuple, seg: &seg, payload: &payload });
    }

    /// A segment for no existing subflow: TIME_WAIT, a join, a listener, or nothing.
    fn handle_unknown(&mut self, now: Instant, segment: Stray<'_>) {
        let Stray { tuple, seg, payload, .. } = segment;
        match self.ctx.on_time_wait_segment(now, &tuple, seg, payload.len()) {
            Some(Verdict::Drop) => return,
            Some(Verdict::Acknowledge) => {
                self.acknowledge_time_wait(now, &tuple);
                return;
            }
            Some(Verdict::NewConnection) | None => {}
        }
        if seg.flags.rst {
            self.withdraw(now, &tuple, seg);
            return;
        }
        let is_syn = seg.flags.syn && !seg.flags.ack && !seg.flags.fin;
        if is_syn && self.ctx.spent_on(segment.path) > Use::Open {
            // As if the path were not there: an answer would be paid for, too.
            return;
        }
        if is_syn && can_be_peer(tuple.remote) {
            // RFC 8684 §3.2: a join is demultiplexed by its token, not by the port. With an MP_CAPABLE beside
            // it it is no join: the listener's connection is plain TCP then.
            if let (Some(&MpJoin::Syn { token, .. }), Ok(None)) = (join(seg), sole_capable(seg)) {
                self.handle_join(now, segment, token);
                return;
            }
            if let Some(listener) =
                self.listeners.find(segment.path, self.ctx.captures(segment.path), tuple.local)
            {
                self.offer(now, listener, segment);
                return;
            }
        }
        if !seg.flags.syn
            && let Some(listener) =
                self.listeners.find(segment.path, self.ctx.captures(segment.path), tuple.local)
            && self.take_cookie(now, listener, segment)
        {
            return;
        }
        self.refuse_segment(now, segment, TcpOptions::default());
    }

    fn handle_join(&mut self, now: Instant, syn: Stray<'_>, token: u32) {
        let Stray { path, tuple, seg, .. } = syn;
        let Some(connection) = self.ctx.owner_of_token(token) else {
            self.ctx.observe(now, None, None, Counter::MPJoinSynRx);
            self.ctx.observe(now, None, None, Counter::MPJoinNoTokenFound);
            self.refuse_join(now, syn, Refusal::PROTOCOL);
            return;
        };
        let Some(c) = self.connections.get_mut(&connection) else { return };
        match c.on_join_syn(&mut self.ctx, now, path, tuple, seg) {
            Ok(()) => self.touched(connection),
            Err(refusal) => self.refuse_join(now, syn, refusal),
        }
    }

    /// RFC 8684 §3.2: an unknown token or a refused join is answered with a RST that says so.
    fn refuse_join(&mut self, now: Instant, syn: Stray<'_>, refusal: Refusal) {
        let Refusal { reason, transient } = refusal;
        tracing::debug!(tuple = ?syn.tuple, ?reason, transient, "join refused");
        self.ctx.observe(now, None, None, Counter::MPRstTx);
        // Data on a SYN are not acknowledged.
        let payload = &Bytes::new();
        self.refuse_segment(now, Stray { payload, ..syn }, reset_options(reason, transient));
    }

    /// RFC 9293 §3.10.7.1: nobody is there.
    pub(super) fn refuse_segment(&mut self, now: Instant, segment: Stray<'_>, options: TcpOptions) {
        let Stray { path, tuple, seg, payload } = segment;
        if !can_be_peer(tuple.remote) {
            self.ctx.observe(now, None, None, Counter::TcpInAddrErrors);
            return;
        }
        if !self.ctx.allows(now, Unasked::Reset) {
            self.ctx.observe(now, None, None, Counter::TcpACKSkippedChallenge);
            return;
        }
        let length = payload.len() as u32 + u32::from(seg.flags.syn) + u32::from(seg.flags.fin);
        self.ctx.send_reset(now, path, &tuple, reset_for(seg, length, options));
    }

    fn acknowledge_time_wait(&mut self, now: Instant, tuple: &FourTuple) {
        let Some(e) = self.ctx.time_wait(tuple) else { return };
        if !self.ctx.allows(now, Unasked::TimeWait) {
            self.ctx.observe(now, None, None, Counter::TcpACKSkippedChallenge);
            return;
        }
        let mut options = TcpOptions::default();
        if e.timestamps {
            let value = (now.as_millis() as u32).wrapping_add(e.timestamp_offset);
            options.timestamps = Some(Timestamps { value, echo: e.ts_recent });
        }
        let repr = TcpRepr {
            src_port: tuple.local.port(),
            dst_port: tuple.remote.port(),
            seq: e.send_next,
            ack: e.receive_next,
            flags: TcpFlags::ACK,
            window: 0,
            urgent: 0,
            options,
        };
        self.ctx.send_control(now, e.path, tuple, &repr, 0);
    }

    /// An ICMP error to `own` about one of our segments. `None`: no subflow of ours sent it.
    ///
    /// Errors go to the source of the quoted segment. A translation that keeps no state rewrites only the
    /// outer header, so the quoted source may be the public address; the outer destination is ours in any
    /// case.
    fn handle_icmp(&mut self, now: Instant, own: IpAddr, error: &IcmpError) -> Option<()> {
        let owner = |local: IpAddr| {
            let local = SocketAddr::new(local, error.src.port());
            self.ctx.owner_of_tuple(&FourTuple { local, remote: error.dst })
        };
        let (connection, subflow) = owner(error.src.ip()).or_else(|| owner(own))?;
        let c = self.connections.get_mut(&connection)?;
        if c.handle_icmp(&mut self.ctx, now, subflow, error)? {
            self.touched(connection);
        }
        Some(())
    }
}

//! From a packet to the connection it belongs to.

use super::Stack;
use super::listen::Pending;
use crate::context::time_wait::Verdict;
use crate::interface::{ChecksumState, PathKind, RxPacket};
use crate::mptcp::handshake::sole_capable;
use crate::mptcp::join::{Refusal, join};
use crate::mptcp::reset::{Rst, reset_options, send_reset};
use crate::observe::Counter;
use crate::tcp::{Arrival, FourTuple};
use crate::wire::icmp::IcmpError;
use crate::wire::ip::{self, IpHeader};
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
        match header.protocol {
            ip::PROTOCOL_TCP if !header.fragment => self.handle_tcp(now, path, &header, &packet),
            ip::PROTOCOL_ICMP | ip::PROTOCOL_ICMPV6 => {
                let error = IcmpError::parse(&header, &packet.buffer).ok();
                if error.and_then(|e| self.handle_icmp(now, &e)).is_none() {
                    self.ctx.observe(now, None, None, Counter::TcpIcmpInErrors);
                }
            }
            ip::PROTOCOL_TCP => self.ctx.observe(now, None, None, Counter::TcpReasmFails),
            _ => {}
        }
    }

    /// Whether packets to `address` on `path` concern this stack. Not bound to the very path (weak host model): the
    /// peer may answer by another device. One that has been removed cannot carry an answer.
    fn is_ours(&self, path: PathId, address: IpAddr) -> bool {
        let path = self.ctx.paths.get(&path);
        path.is_some_and(|p| p.config.kind == PathKind::Capture || self.ctx.path_of(address).is_some())
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
        if let Some(&(connection, subflow)) = self.ctx.demux.get(&tuple) {
            if let Some(c) = self.connections.get_mut(&connection) {
                let marked = header.ecn == ip::ecn::CE;
                if marked {
                    self.ctx.observe(now, Some(connection), Some(subflow), Counter::TcpInCEPkts);
                }
                c.handle_segment(&mut self.ctx, now, subflow, Arrival { seg: &seg, payload, marked });
                self.touched(now, connection);
            }
            return;
        }
        self.handle_unknown(now, path, tuple, &seg, &payload);
    }

    /// A segment for no existing subflow: TIME_WAIT, a join, a listener, or nothing.
    fn handle_unknown(
        &mut self,
        now: Instant,
        path: PathId,
        tuple: FourTuple,
        seg: &TcpRepr,
        payload: &Bytes,
    ) {
        if self.ctx.time_wait.get(&tuple).is_some() {
            match self.ctx.time_wait.on_segment(now, &tuple, seg, payload.len()) {
                Verdict::Drop => return,
                Verdict::Acknowledge => {
                    self.acknowledge_time_wait(now, &tuple);
                    return;
                }
                Verdict::NewConnection => {}
            }
        }
        if seg.flags.rst {
            self.withdraw(now, &tuple, seg);
            return;
        }
        let is_syn = seg.flags.syn && !seg.flags.ack && !seg.flags.fin;
        if is_syn && ip::can_be_peer(tuple.remote) {
            // RFC 8684 §3.2: a join is demultiplexed by its token, not by the port. With an MP_CAPABLE beside it it is
            // no join: the listener's connection is plain TCP then.
            if let (Some(&MpJoin::Syn { token, .. }), Ok(None)) = (join(seg), sole_capable(seg)) {
                self.handle_join(now, path, tuple, seg, token);
                return;
            }
            if let Some(listener) = self.listener_for(tuple.local) {
                self.offer(now, listener, Pending::new(path, tuple, seg.clone(), now), payload);
                return;
            }
        }
        if !seg.flags.syn
            && let Some(listener) = self.listener_for(tuple.local)
            && self.take_cookie(now, path, listener, tuple, seg, payload)
        {
            return;
        }
        self.refuse_segment(now, path, &tuple, seg, payload.len(), TcpOptions::default());
    }

    fn handle_join(&mut self, now: Instant, path: PathId, tuple: FourTuple, seg: &TcpRepr, token: u32) {
        let known = self.ctx.tokens.get(&token).copied();
        let Some(connection) = known else {
            self.ctx.observe(now, None, None, Counter::MPJoinSynRx);
            self.ctx.observe(now, None, None, Counter::MPJoinNoTokenFound);
            self.refuse_join(now, path, &tuple, seg, Refusal::PROTOCOL);
            return;
        };
        let Some(c) = self.connections.get_mut(&connection) else { return };
        match c.on_join_syn(&mut self.ctx, now, path, tuple, seg) {
            Ok(()) => self.touched(now, connection),
            Err(refusal) => self.refuse_join(now, path, &tuple, seg, refusal),
        }
    }

    /// RFC 8684 §3.2: an unknown token or a refused join is answered with a RST that says so.
    fn refuse_join(
        &mut self,
        now: Instant,
        path: PathId,
        tuple: &FourTuple,
        seg: &TcpRepr,
        refusal: Refusal,
    ) {
        tracing::debug!(?tuple, reason = ?refusal.reason, transient = refusal.transient, "join refused");
        self.ctx.observe(now, None, None, Counter::MPRstTx);
        let options = reset_options(refusal.reason, refusal.transient);
        self.refuse_segment(now, path, tuple, seg, 0, options);
    }

    /// RFC 9293 §3.10.7.1: nobody is there.
    pub(crate) fn refuse_segment(
        &mut self,
        now: Instant,
        path: PathId,
        tuple: &FourTuple,
        seg: &TcpRepr,
        len: usize,
        options: TcpOptions,
    ) {
        if !ip::can_be_peer(tuple.remote) {
            self.ctx.observe(now, None, None, Counter::TcpInAddrErrors);
            return;
        }
        if !self.ctx.challenge_allowed(now) {
            self.ctx.observe(now, None, None, Counter::TcpACKSkippedChallenge);
            return;
        }
        let length = len as u32 + u32::from(seg.flags.syn) + u32::from(seg.flags.fin);
        send_reset(&mut self.ctx, now, path, tuple, Rst::answer(seg, length, options));
    }

    fn acknowledge_time_wait(&mut self, now: Instant, tuple: &FourTuple) {
        let Some(&e) = self.ctx.time_wait.get(tuple) else { return };
        if !self.ctx.challenge_allowed(now) {
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
        let payload = crate::buffers::payload::Payload::new();
        if let Some(t) = self.ctx.packet(now, e.path, tuple, &repr, payload, u32::MAX) {
            self.ctx.outbox.push_back(t);
        }
    }

    /// An ICMP error about one of our segments. `None`: no subflow of ours sent it.
    fn handle_icmp(&mut self, now: Instant, error: &IcmpError) -> Option<()> {
        let tuple = FourTuple { local: error.src, remote: error.dst };
        let &(connection, subflow) = self.ctx.demux.get(&tuple)?;
        let c = self.connections.get_mut(&connection)?;
        if c.handle_icmp(&mut self.ctx, now, subflow, error)? {
            self.touched(now, connection);
        }
        Some(())
    }
}

//! From a segment to a packet.

use super::meter::Use;
use super::shared::Context;
use crate::buffers::payload::Payload;
use crate::device::{ChecksumRequest, HeaderBuf, MAX_HEADER, Transmit};
use crate::observe::Counter;
use crate::tcp::FourTuple;
use crate::wire::icmp::Unreachable;
use crate::wire::tcp::{self, TcpFlags, TcpOptions, TcpRepr};
use crate::wire::{checksum, ip};
use bytes::Bytes;
use core::num::NonZeroU16;
use umptcp_types::{Instant, PathId, SeqNumber};

/// A segment that is to become a packet.
pub(crate) struct Outgoing<'a> {
    pub(crate) path: PathId,
    pub(crate) tuple: &'a FourTuple,
    pub(crate) repr: &'a TcpRepr,
    pub(crate) payload: Payload,
    /// Payload bytes per packet if the device is to cut it.
    pub(crate) packet_payload: u32,
    /// DSCP and ECN codepoint (RFC 2474 §3, RFC 3168 §5).
    pub(crate) traffic_class: u8,
}

/// What is particular to a RST.
pub(crate) struct Reset {
    pub(crate) seq: SeqNumber,
    pub(crate) ack: Option<SeqNumber>,
    pub(crate) options: TcpOptions,
    /// Without the two lower bits: a RST is never ECN-capable.
    pub(crate) traffic_class: u8,
}

impl Context {
    /// Builds the packet for a segment. `None`: its path has gone.
    pub(crate) fn packet(&mut self, now: Instant, segment: Outgoing<'_>) -> Option<Transmit> {
        let Outgoing { path, tuple, repr, payload, packet_payload, traffic_class } = segment;
        let offload = self.paths.get(path)?.checksum_offload;
        let (src, dst) = (tuple.local.ip(), tuple.remote.ip());
        let ip_len = ip::ip_header_len(&src);
        let mut header = HeaderBuf::zeroed(MAX_HEADER);
        // Its length is known once it is written: to compute it before would take as long again.
        let tcp_len = repr.emit(&mut header.as_mut_slice()[ip_len..]);
        header.truncate(ip_len + tcp_len);
        let bytes = header.as_mut_slice();
        let ident = self.random.next_u32() as u16;
        ip::emit_ip_header(bytes, src, dst, tcp_len + payload.len(), traffic_class, ident)?;
        let tcp = &mut bytes[ip_len..];
        let gso_size = (payload.len() as u64 > u64::from(packet_payload))
            .then(|| NonZeroU16::new(packet_payload.min(65535) as u16))
            .flatten();
        let checksum = if offload {
            tcp::partial_checksum(tcp, src, dst, payload.len());
            ChecksumRequest::Partial { start: ip_len as u16, offset: tcp::CHECKSUM_OFFSET as u16 }
        } else {
            let sum = checksum::sum_slices(payload.slices().iter().map(|b| &b[..]), 0);
            tcp::complete_checksum(tcp, src, dst, sum, payload.len());
            ChecksumRequest::Complete
        };
        Some(Transmit { path, header, payload, gso_size, checksum, earliest: now })
    }

    /// Sends a segment without payload that belongs to no connection, before all others.
    pub(crate) fn send_control(
        &mut self,
        now: Instant,
        path: PathId,
        tuple: &FourTuple,
        repr: &TcpRepr,
        traffic_class: u8,
    ) {
        if self.spent_on(path) == Use::Spent {
            return;
        }
        let traffic_class = ip::traffic_class(traffic_class, ip::ecn::NOT_ECT);
        let payload = Payload::new();
        let segment = Outgoing { path, tuple, repr, payload, packet_payload: u32::MAX, traffic_class };
        if let Some(t) = self.packet(now, segment) {
            self.outbox.push_back(t);
        }
    }

    /// Sends a RST for `tuple`.
    pub(crate) fn send_reset(&mut self, now: Instant, path: PathId, tuple: &FourTuple, reset: Reset) {
        let Reset { seq, ack, options, traffic_class } = reset;
        let repr = TcpRepr {
            src_port: tuple.local.port(),
            dst_port: tuple.remote.port(),
            seq,
            ack: ack.unwrap_or(SeqNumber(0)),
            flags: TcpFlags { rst: true, ack: ack.is_some(), ..TcpFlags::default() },
            window: 0,
            urgent: 0,
            options,
        };
        self.observe(now, None, None, Counter::TcpOutRsts);
        self.send_control(now, path, tuple, &repr, traffic_class);
    }

    /// Tells the peer of `tuple` by ICMP that its SYN cannot be delivered.
    pub(crate) fn send_unreachable(
        &mut self,
        now: Instant,
        path: PathId,
        tuple: &FourTuple,
        syn: SeqNumber,
        why: Unreachable,
    ) {
        if self.spent_on(path) == Use::Spent {
            return;
        }
        let (src, dst) = (tuple.local.ip(), tuple.remote.ip());
        let Some(message) = why.message(tuple.remote, tuple.local, syn) else { return };
        let protocol = if src.is_ipv4() { ip::PROTOCOL_ICMP } else { ip::PROTOCOL_ICMPV6 };
        let mut header = HeaderBuf::zeroed(ip::ip_header_len(&src));
        let ident = self.random.next_u32() as u16;
        let written = ip::emit_ip_header_for(
            header.as_mut_slice(),
            (src, dst),
            protocol,
            message.len(),
            ip::traffic_class(0, ip::ecn::NOT_ECT),
            ident,
        );
        if written.is_some() {
            let payload = Payload::from(Bytes::from(message));
            let checksum = ChecksumRequest::Complete;
            self.outbox.push_back(Transmit {
                path,
                header,
                payload,
                gso_size: None,
                checksum,
                earliest: now,
            });
        }
    }

    /// The next packet that belongs to no connection.
    pub(crate) fn pop_control(&mut self) -> Option<Transmit> {
        self.outbox.pop_front()
    }
}

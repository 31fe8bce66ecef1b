//! Segments between a stack and a peer that is played by hand.
// Each test program is a crate of its own and uses a part of it.
#![allow(dead_code)]

use std::net::SocketAddr;
use umptcp_stack_core::interface::{ChecksumState, RxPacket, Transmit};
use umptcp_stack_core::wire::ip::{IpHeader, emit_ip_header, ip_header_len};
use umptcp_stack_core::wire::mptcp::{Dss, MpCapable, MpJoin, MptcpOption};
use umptcp_stack_core::wire::tcp::TcpRepr;

/// A segment as the stack's device receives it from `from`, a checksum found right. The ports are `seg`'s to name.
pub(crate) fn received(from: SocketAddr, to: SocketAddr, seg: &TcpRepr, payload: &[u8]) -> RxPacket {
    let (ip, tcp) = (ip_header_len(&from.ip()), seg.header_len());
    let mut packet = vec![0; ip + tcp];
    emit_ip_header(&mut packet, from.ip(), to.ip(), tcp + payload.len(), 0, 7).expect("one family");
    seg.emit(&mut packet[ip..]);
    packet.extend_from_slice(payload);
    RxPacket { buffer: packet.into(), gso_size: None, checksum: ChecksumState::Verified }
}

/// A segment that the stack sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) seg: TcpRepr,
    pub(crate) payload: Vec<u8>,
}

impl Sent {
    /// # Panics
    /// When it is not well-formed.
    pub(crate) fn parse(packet: &Transmit) -> Sent {
        let bytes = packet.to_vec();
        let header = IpHeader::parse(&bytes).expect("an IP packet");
        let segment = &bytes[header.header_len..header.total_len];
        let (seg, len) = TcpRepr::parse(segment).expect("a TCP segment");
        Sent {
            from: SocketAddr::new(header.src, seg.src_port),
            to: SocketAddr::new(header.dst, seg.dst_port),
            seg,
            payload: segment[len..].to_vec(),
        }
    }

    fn option<T>(&self, wanted: impl Fn(&MptcpOption) -> Option<T>) -> Option<T> {
        self.seg.options.mptcp.iter().find_map(wanted)
    }

    pub(crate) fn capable(&self) -> Option<MpCapable> {
        self.option(|o| if let MptcpOption::Capable(c) = o { Some(*c) } else { None })
    }

    pub(crate) fn join(&self) -> Option<MpJoin> {
        self.option(|o| if let MptcpOption::Join(j) = o { Some(*j) } else { None })
    }

    pub(crate) fn dss(&self) -> Option<Dss> {
        self.option(|o| if let MptcpOption::Dss(d) = o { Some(*d) } else { None })
    }

    /// Reason and T flag of the MP_TCPRST it carries.
    pub(crate) fn reset(&self) -> Option<(u8, bool)> {
        self.option(|o| if let MptcpOption::Reset(r) = o { Some((r.reason, r.transient)) } else { None })
    }

    /// Whether one of its options is as `wanted` says.
    pub(crate) fn has(&self, wanted: impl Fn(&MptcpOption) -> bool) -> bool {
        self.seg.options.mptcp.iter().any(wanted)
    }
}

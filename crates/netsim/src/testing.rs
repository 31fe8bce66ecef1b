//! Packets for unit tests.

use crate::packet::Packet;
use bytes::Bytes;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use umptcp_stack_core::device::ChecksumState;
use umptcp_stack_core::wire::header::TcpHeaderMut;
use umptcp_stack_core::wire::ip::{emit_ip_header, ip_header_len};
use umptcp_stack_core::wire::tcp::{MIN_HEADER, TcpFlags, TcpRepr};
use umptcp_types::SeqNumber;

/// A TCP packet with right checksums; `payload_len` bytes that count up from `first`.
pub(crate) struct Tcp<'a> {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) seq: u32,
    pub(crate) flags: TcpFlags,
    pub(crate) options: &'a [u8],
    pub(crate) payload_len: usize,
    pub(crate) first: u8,
    pub(crate) gso_size: u16,
}

/// MSS, NOP, NOP, an MPTCP option (DSS, 8 bytes), timestamps.
pub(crate) const OPTIONS: [u8; 24] =
    [2, 4, 5, 180, 1, 1, 30, 8, 0x20, 1, 9, 9, 9, 9, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];

impl Default for Tcp<'_> {
    fn default() -> Self {
        Tcp {
            source: SocketAddr::from(([10, 1, 0, 1], 1000)),
            destination: SocketAddr::from(([10, 2, 0, 1], 80)),
            seq: 1,
            flags: TcpFlags::ACK,
            options: &[],
            payload_len: 0,
            first: 0,
            gso_size: 0,
        }
    }
}

impl Tcp<'_> {
    /// The bytes, TCP checksum left 0.
    fn raw(&self) -> Vec<u8> {
        let (src, dst) = (self.source.ip(), self.destination.ip());
        let tcp_len = MIN_HEADER + self.options.len();
        let at = ip_header_len(&src);
        let mut b = vec![0; at + tcp_len];
        emit_ip_header(&mut b, src, dst, tcp_len + self.payload_len, 0, 0xabcd).expect("one family");
        let tcp = TcpRepr {
            src_port: self.source.port(),
            dst_port: self.destination.port(),
            seq: SeqNumber(self.seq),
            ack: SeqNumber(77),
            flags: self.flags,
            window: 256,
            ..TcpRepr::default()
        };
        tcp.emit(&mut b[at..]);
        b[at + MIN_HEADER..].copy_from_slice(self.options);
        TcpHeaderMut::new(&mut b[at..]).expect("a TCP header").set_data_offset();
        b.extend((0..self.payload_len).map(|i| self.first.wrapping_add(i as u8)));
        b
    }

    /// With a checksum that is complete.
    pub(crate) fn packet(&self) -> Packet {
        let mut p = self.partial();
        p.complete_checksum();
        p
    }

    /// With a checksum left to the device.
    pub(crate) fn partial(&self) -> Packet {
        let bytes = Bytes::from(self.raw());
        Packet::from_bytes(bytes, NonZeroU16::new(self.gso_size), ChecksumState::Verified)
    }
}

/// An IPv4 packet of `len` bytes in all.
pub(crate) fn sized(len: usize) -> Packet {
    Tcp { payload_len: len - 40, ..Tcp::default() }.packet()
}

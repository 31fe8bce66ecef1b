//! Packets for unit tests.

use crate::packet::{Packet, flags};
use bytes::Bytes;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use umptcp_stack_core::interface::ChecksumState;

/// A TCP packet with right checksums; `payload_len` bytes that count up from `first`.
pub(crate) struct Tcp<'a> {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) seq: u32,
    pub(crate) flags: u8,
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
            flags: flags::ACK,
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
        let tcp_len = 20 + self.options.len();
        let mut b = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(s), IpAddr::V4(d)) => {
                let mut h = vec![0x45, 0, 0, 0, 0xab, 0xcd, 0x40, 0, 64, 6, 0, 0];
                h.extend(s.octets());
                h.extend(d.octets());
                let total = 20 + tcp_len + self.payload_len;
                h[2..4].copy_from_slice(&(total as u16).to_be_bytes());
                h
            }
            (IpAddr::V6(s), IpAddr::V6(d)) => {
                let mut h = vec![0x60, 0, 0, 0, 0, 0, 6, 64];
                h[4..6].copy_from_slice(&((tcp_len + self.payload_len) as u16).to_be_bytes());
                h.extend(s.octets());
                h.extend(d.octets());
                h
            }
            _ => panic!("mixed families"),
        };
        b.extend(self.source.port().to_be_bytes());
        b.extend(self.destination.port().to_be_bytes());
        b.extend(self.seq.to_be_bytes());
        b.extend([0, 0, 0, 77, ((tcp_len / 4) << 4) as u8, self.flags, 1, 0, 0, 0, 0, 0]);
        b.extend(self.options);
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
        let mut p = Packet::from_bytes(bytes, NonZeroU16::new(self.gso_size), ChecksumState::Verified);
        // Makes the IP header's checksum right.
        p.rewrite(Some(self.source), None);
        p
    }
}

/// An IPv4 packet of `len` bytes in all.
pub(crate) fn sized(len: usize) -> Packet {
    Tcp { payload_len: len - 40, ..Tcp::default() }.packet()
}

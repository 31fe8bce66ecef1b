//! The 10-byte virtio-net header that precedes each packet of a TUN device with IFF_VNET_HDR.
//!
//! Layout as in the virtio specification 1.2, section 5.1.6 (`struct virtio_net_hdr` without `num_buffers`),
//! in the host's byte order, TUN's default.
#![cfg_attr(any(not(target_os = "linux"), umptcp_portable), allow(dead_code))]

use core::num::NonZeroU16;
use umptcp_stack_core::device::{ChecksumRequest, ChecksumState, Transmit};

/// Length of the header in bytes.
pub(crate) const LEN: usize = 10;

/// The checksum is partial: to be computed from `csum_start` and stored at `csum_start + csum_offset`.
const F_NEEDS_CSUM: u8 = 1;
/// The checksum has been verified.
const F_DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
/// Flag in the type: the segment has CWR set (ECN).
const GSO_ECN: u8 = 0x80;

/// The header's fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct VirtioHeader {
    flags: u8,
    gso_type: u8,
    /// Length of the IP and TCP headers, which are repeated in every packet of the segment.
    hdr_len: u16,
    /// Payload bytes of each packet.
    gso_size: u16,
    csum_start: u16,
    csum_offset: u16,
}

impl VirtioHeader {
    /// Decodes a header.
    pub(crate) fn decode(b: &[u8; LEN]) -> Self {
        let word = |i: usize| u16::from_ne_bytes([b[i], b[i + 1]]);
        VirtioHeader {
            flags: b[0],
            gso_type: b[1],
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
        }
    }

    /// Encodes the header.
    pub(crate) fn encode(&self) -> [u8; LEN] {
        let mut b = [0; LEN];
        b[0] = self.flags;
        b[1] = self.gso_type;
        for (i, word) in
            [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset].into_iter().enumerate()
        {
            b[2 + 2 * i..4 + 2 * i].copy_from_slice(&word.to_ne_bytes());
        }
        b
    }

    /// The header that tells the kernel what to do with an outgoing packet.
    pub(crate) fn for_transmit(packet: &Transmit) -> Self {
        let header = packet.header.as_slice();
        let mut h = VirtioHeader::default();
        if let ChecksumRequest::Partial { start, offset } = packet.checksum {
            h.flags = F_NEEDS_CSUM;
            h.csum_start = start;
            h.csum_offset = offset;
        }
        // A segment that fits one packet must not have a GSO type: some drivers further down reject it.
        if let Some(size) = packet.gso_size
            && packet.payload.len() > usize::from(size.get())
        {
            h.gso_type = if header.first().is_some_and(|b| b >> 4 == 6) { GSO_TCPV6 } else { GSO_TCPV4 };
            h.gso_size = size.get();
        }
        h.hdr_len = header.len() as u16;
        h
    }

    /// Payload bytes of each packet that a received segment was coalesced from.
    pub(crate) fn received_gso_size(&self) -> Option<NonZeroU16> {
        match self.gso_type & !GSO_ECN {
            GSO_TCPV4 | GSO_TCPV6 => NonZeroU16::new(self.gso_size),
            GSO_NONE => None,
            // Not TCP: the stack ignores it anyway.
            _ => None,
        }
    }

    /// Whether the transport checksum has to be verified. A packet that "needs" a checksum contains only the
    /// pseudo-header's sum: it comes from this host, or was verified when it was coalesced.
    pub(crate) fn received_checksum(&self) -> ChecksumState {
        if self.flags & (F_NEEDS_CSUM | F_DATA_VALID) != 0 {
            ChecksumState::Verified
        } else {
            ChecksumState::Unverified
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use umptcp_stack_core::device::HeaderBuf;
    use umptcp_stack_core::payload::Payload;
    use umptcp_types::PathId;

    fn transmit(version: u8, payload: usize, gso: u16) -> Transmit {
        let mut header = HeaderBuf::zeroed(if version == 6 { 60 } else { 40 });
        header.as_mut_slice()[0] = version << 4;
        let start = header.as_slice().len() as u16 - 20;
        Transmit::new(PathId(0), header, Payload::from(Bytes::from(vec![0; payload])))
            .with_gso_size(NonZeroU16::new(gso))
            .with_checksum(ChecksumRequest::Partial { start, offset: 16 })
    }

    #[test]
    fn fields_survive_the_wire() {
        let h = VirtioHeader {
            flags: 3,
            gso_type: 0x84,
            hdr_len: 1,
            gso_size: 0x1234,
            csum_start: 0xfedc,
            csum_offset: 16,
        };
        assert_eq!(VirtioHeader::decode(&h.encode()), h);
        assert_eq!(h.received_gso_size(), NonZeroU16::new(0x1234));
    }

    #[test]
    fn a_large_segment_is_to_be_cut_and_summed() {
        let h = VirtioHeader::for_transmit(&transmit(4, 3000, 1400));
        assert_eq!((h.gso_type, h.gso_size, h.hdr_len), (GSO_TCPV4, 1400, 40));
        assert_eq!((h.flags, h.csum_start, h.csum_offset), (F_NEEDS_CSUM, 20, 16));
        let h = VirtioHeader::for_transmit(&transmit(6, 3000, 1400));
        assert_eq!((h.gso_type, h.csum_start), (GSO_TCPV6, 40));
    }

    #[test]
    fn a_segment_of_one_packet_is_not() {
        let h = VirtioHeader::for_transmit(&transmit(4, 1400, 1400));
        assert_eq!((h.gso_type, h.gso_size), (GSO_NONE, 0));
        assert_eq!(VirtioHeader::default().received_checksum(), ChecksumState::Unverified);
    }
}

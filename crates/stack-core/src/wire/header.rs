//! Headers in place: views of any bytes that can be read, and edited, field by field.
//!
//! What only looks at packets or changes them on their way (middleboxes, devices, traces) uses these. They
//! find the fields and validate nothing: lengths and checksums may be wrong, and any value may be
//! written, even one that no stack would send.

use super::WireError;
use super::checksum;
use super::ip::{IPV4_HEADER, IPV6_HEADER};
use super::tcp::{CHECKSUM_OFFSET, MIN_HEADER, RawOptions, TcpFlags, kind};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use smallvec::SmallVec;
use umptcp_types::SeqNumber;

const IPV4_TOTAL_LEN: usize = 2;
const IPV4_IDENT: usize = 4;
const IPV4_FRAGMENT: usize = 6;
const IPV4_PROTOCOL: usize = 9;
const IPV4_CHECKSUM: usize = 10;
const IPV4_SRC: usize = 12;
const IPV4_DST: usize = 16;
const IPV6_PAYLOAD_LEN: usize = 4;
const IPV6_NEXT_HEADER: usize = 6;
const IPV6_SRC: usize = 8;
const IPV6_DST: usize = 24;

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(bytes, at))
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array(bytes, at))
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    if let Some(field) = bytes.get_mut(at..at + N) {
        field.copy_from_slice(&value);
    }
}

/// A view of the IP header at the start of any bytes. Only the header itself must be there.
///
/// Unlike [`IpHeader::parse`](super::ip::IpHeader::parse) it verifies no checksum and passes over no IPv6
/// extension header: [`protocol`](Self::protocol) is what follows the fixed header.
#[derive(Clone, Copy, Debug)]
pub struct IpView<T> {
    bytes: T,
    v6: bool,
}

impl<T: AsRef<[u8]>> IpView<T> {
    /// Views the header at the start of `bytes`.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when the header is longer than `bytes`, [`WireError::BadLength`] when an IPv4
    /// header claims fewer than 20 bytes, [`WireError::BadVersion`].
    pub fn new(bytes: T) -> Result<Self, WireError> {
        let b = bytes.as_ref();
        match b.first().map(|first| (first >> 4, usize::from(first & 0xf) * 4)) {
            None => Err(WireError::Truncated),
            Some((4, _)) if b.len() < IPV4_HEADER => Err(WireError::Truncated),
            Some((4, len)) if len < IPV4_HEADER => Err(WireError::BadLength),
            Some((4, len)) if len > b.len() => Err(WireError::Truncated),
            Some((4, _)) => Ok(IpView { bytes, v6: false }),
            Some((6, _)) if b.len() < IPV6_HEADER => Err(WireError::Truncated),
            Some((6, _)) => Ok(IpView { bytes, v6: true }),
            Some(_) => Err(WireError::BadVersion),
        }
    }

    fn b(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    /// It is IPv6, not IPv4.
    pub fn is_v6(&self) -> bool {
        self.v6
    }

    /// Length of the header in bytes: IPv4 options count, IPv6 extension headers do not.
    pub fn header_len(&self) -> usize {
        if self.v6 { IPV6_HEADER } else { usize::from(self.b()[0] & 0xf) * 4 }
    }

    /// Length of the packet in bytes, as the header states it.
    pub fn total_len(&self) -> usize {
        if self.v6 {
            IPV6_HEADER + usize::from(be16(self.b(), IPV6_PAYLOAD_LEN))
        } else {
            usize::from(be16(self.b(), IPV4_TOTAL_LEN))
        }
    }

    /// Protocol number of what follows the header.
    pub fn protocol(&self) -> u8 {
        self.b()[if self.v6 { IPV6_NEXT_HEADER } else { IPV4_PROTOCOL }]
    }

    /// Identification of an IPv4 packet; 0 for IPv6, whose header has none.
    pub fn ident(&self) -> u16 {
        if self.v6 { 0 } else { be16(self.b(), IPV4_IDENT) }
    }

    /// An IPv4 packet that is one fragment of several. IPv6 has an extension header for that.
    pub fn is_fragment(&self) -> bool {
        // Offset and the "more fragments" flag (RFC 791 §3.1).
        !self.v6 && be16(self.b(), IPV4_FRAGMENT) & 0x3fff != 0
    }

    /// ECN codepoint, see [`ecn`](super::ip::ecn).
    pub fn ecn(&self) -> u8 {
        // IPv6: the traffic class straddles the first two bytes (RFC 8200 §3).
        if self.v6 { self.b()[1] >> 4 & 3 } else { self.b()[1] & 3 }
    }

    /// Source address.
    pub fn src(&self) -> IpAddr {
        self.address(IPV4_SRC, IPV6_SRC)
    }

    /// Destination address.
    pub fn dst(&self) -> IpAddr {
        self.address(IPV4_DST, IPV6_DST)
    }

    fn address(&self, at4: usize, at6: usize) -> IpAddr {
        if self.v6 {
            Ipv6Addr::from(array::<16>(self.b(), at6)).into()
        } else {
            Ipv4Addr::from(array::<4>(self.b(), at4)).into()
        }
    }

    /// The IPv4 header checksum is right. IPv6 has none.
    pub fn checksum_ok(&self) -> bool {
        // Summed with its checksum, an intact header gives all ones.
        self.v6 || checksum::fold(checksum::sum(&self.b()[..self.header_len()], 0)) == 0xffff
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> IpView<T> {
    /// Sets the length of the packet, header included, and repairs the header checksum. More than the field
    /// can hold becomes the most that it can.
    pub fn set_total_len(&mut self, len: usize) {
        let (at, len) =
            if self.v6 { (IPV6_PAYLOAD_LEN, len.saturating_sub(IPV6_HEADER)) } else { (IPV4_TOTAL_LEN, len) };
        put(self.bytes.as_mut(), at, u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
        self.repair_checksum();
    }

    /// Sets the identification of an IPv4 packet and repairs the header checksum.
    pub fn set_ident(&mut self, ident: u16) {
        if !self.v6 {
            put(self.bytes.as_mut(), IPV4_IDENT, ident.to_be_bytes());
            self.repair_checksum();
        }
    }

    /// Sets the ECN codepoint and repairs the header checksum.
    pub fn set_ecn(&mut self, codepoint: u8) {
        let shift = if self.v6 { 4 } else { 0 };
        let field = &mut self.bytes.as_mut()[1];
        *field = *field & !(3 << shift) | (codepoint & 3) << shift;
        self.repair_checksum();
    }

    /// Sets the source address and repairs the header checksum. False, and nothing done: it is of the other
    /// family.
    pub fn set_src(&mut self, address: IpAddr) -> bool {
        self.set_address(address, IPV4_SRC, IPV6_SRC)
    }

    /// Sets the destination address and repairs the header checksum. False, and nothing done: it is of the
    /// other family.
    pub fn set_dst(&mut self, address: IpAddr) -> bool {
        self.set_address(address, IPV4_DST, IPV6_DST)
    }

    fn set_address(&mut self, address: IpAddr, at4: usize, at6: usize) -> bool {
        match address {
            IpAddr::V4(a) if !self.v6 => put(self.bytes.as_mut(), at4, a.octets()),
            IpAddr::V6(a) if self.v6 => put(self.bytes.as_mut(), at6, a.octets()),
            _ => return false,
        }
        self.repair_checksum();
        true
    }

    fn repair_checksum(&mut self) {
        if !self.v6 {
            let len = self.header_len();
            let header = &mut self.bytes.as_mut()[..len];
            put(header, IPV4_CHECKSUM, [0, 0]);
            let sum = !checksum::fold(checksum::sum(header, 0));
            put(header, IPV4_CHECKSUM, sum.to_be_bytes());
        }
    }
}

/// Exactly the bytes of one TCP header, to be edited in place. For
/// reading see [`TcpPacket`](super::tcp::TcpPacket). The checksum is left as it is.
#[derive(Debug)]
pub struct TcpHeaderMut<'a> {
    bytes: &'a mut [u8],
}

impl<'a> TcpHeaderMut<'a> {
    /// Edits `bytes`, a header with its options and nothing after it.
    ///
    /// # Errors
    /// [`WireError::Truncated`] below 20 bytes.
    pub fn new(bytes: &'a mut [u8]) -> Result<Self, WireError> {
        if bytes.len() < MIN_HEADER { Err(WireError::Truncated) } else { Ok(TcpHeaderMut { bytes }) }
    }

    /// Sets the source port.
    pub fn set_src_port(&mut self, port: u16) {
        put(self.bytes, 0, port.to_be_bytes());
    }

    /// Sets the destination port.
    pub fn set_dst_port(&mut self, port: u16) {
        put(self.bytes, 2, port.to_be_bytes());
    }

    /// Sets the sequence number.
    pub fn set_seq(&mut self, seq: SeqNumber) {
        put(self.bytes, 4, seq.0.to_be_bytes());
    }

    /// Sets the acknowledgment number.
    pub fn set_ack(&mut self, ack: SeqNumber) {
        put(self.bytes, 8, ack.0.to_be_bytes());
    }

    /// Sets the control bits.
    pub fn set_flags(&mut self, flags: TcpFlags) {
        self.bytes[13] = flags.bits();
    }

    /// Sets the window field.
    pub fn set_window(&mut self, window: u16) {
        put(self.bytes, 14, window.to_be_bytes());
    }

    /// Sets the checksum field.
    pub fn set_checksum(&mut self, checksum: u16) {
        put(self.bytes, CHECKSUM_OFFSET, checksum.to_be_bytes());
    }

    /// Makes the data offset say how long the header is: as many 32-bit words as there are bytes for.
    pub fn set_data_offset(&mut self) {
        // The upper half of the octet; the lower one is reserved.
        self.bytes[12] = self.bytes[12] & 0x0f | ((self.bytes.len() / 4) << 4) as u8;
    }

    /// Replaces each edge of every SACK block with the result of `f`.
    pub fn map_sack(&mut self, f: impl Fn(SeqNumber) -> SeqNumber) {
        let options = RawOptions::new(&self.bytes[MIN_HEADER..]).for_forwarding();
        let options = options.flatten().filter(|o| o.kind == kind::SACK);
        let edges = options.flat_map(|o| {
            let start = MIN_HEADER + o.offset + 2;
            (start..start + o.data().len() / 4 * 4).step_by(4)
        });
        // At most 9 edges fit a header.
        for at in edges.collect::<SmallVec<[usize; 9]>>() {
            let edge = f(SeqNumber(be32(self.bytes, at)));
            put(self.bytes, at, edge.0.to_be_bytes());
        }
    }

    /// All bytes of the header.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::ip::{PROTOCOL_TCP, ecn, emit_ip_header};
    use super::super::tcp::{TcpOptions, TcpPacket, TcpRepr};
    use super::*;
    use std::vec;
    use std::vec::Vec;

    fn addresses(v6: bool, last: u8) -> IpAddr {
        if v6 {
            IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)])
        } else {
            IpAddr::from([10, 0, 0, last])
        }
    }

    fn header(v6: bool) -> Vec<u8> {
        let mut buf = vec![0; 60];
        let len = emit_ip_header(&mut buf, addresses(v6, 1), addresses(v6, 2), 20, ecn::ECT_0, 7).unwrap();
        buf.truncate(len);
        buf
    }

    #[test]
    fn ip_fields_are_read_and_written_in_both_families() {
        for v6 in [false, true] {
            let mut bytes = header(v6);
            let mut ip = IpView::new(&mut bytes).unwrap();
            assert_eq!((ip.is_v6(), ip.protocol(), ip.is_fragment()), (v6, PROTOCOL_TCP, false));
            assert_eq!((ip.src(), ip.dst()), (addresses(v6, 1), addresses(v6, 2)));
            assert_eq!((ip.ecn(), ip.ident()), (ecn::ECT_0, if v6 { 0 } else { 7 }));
            assert_eq!(ip.total_len(), ip.header_len() + 20);
            ip.set_ecn(ecn::CE);
            ip.set_ident(0xbeef);
            ip.set_total_len(1234);
            assert!(ip.set_src(addresses(v6, 9)) && ip.set_dst(addresses(v6, 8)));
            assert!(!ip.set_src(addresses(!v6, 9)) && !ip.set_dst(addresses(!v6, 8)));
            assert_eq!((ip.src(), ip.dst()), (addresses(v6, 9), addresses(v6, 8)));
            assert_eq!((ip.ecn(), ip.ident()), (ecn::CE, if v6 { 0 } else { 0xbeef }));
            assert_eq!(ip.total_len(), 1234);
            assert!(ip.checksum_ok());
            ip.set_total_len(100_000);
            assert_eq!(ip.total_len(), if v6 { 65_575 } else { 65_535 });
        }
    }

    #[test]
    fn only_the_header_must_be_there() {
        for v6 in [false, true] {
            let bytes = header(v6);
            for cut in 0..bytes.len() {
                assert_eq!(IpView::new(&bytes[..cut]).unwrap_err(), WireError::Truncated);
            }
        }
        let mut wrong = header(false);
        wrong[10] ^= 1;
        assert!(!IpView::new(&wrong).unwrap().checksum_ok());
        wrong[0] = 0x44;
        assert_eq!(IpView::new(&wrong).unwrap_err(), WireError::BadLength);
        wrong[0] = 0x46;
        assert_eq!(IpView::new(&wrong).unwrap_err(), WireError::Truncated);
        wrong[0] = 0x55;
        assert_eq!(IpView::new(&wrong).unwrap_err(), WireError::BadVersion);
        for fragment in [[0x20, 0], [0, 1]] {
            let mut bytes = header(false);
            bytes[6..8].copy_from_slice(&fragment);
            assert!(IpView::new(&bytes).unwrap().is_fragment());
        }
    }

    #[test]
    fn tcp_fields_are_written() {
        let options = TcpOptions {
            sack: [(SeqNumber(10), SeqNumber(20)), (SeqNumber(30), SeqNumber(40))].into_iter().collect(),
            ..TcpOptions::default()
        };
        let mut bytes = [0u8; 40];
        let repr = TcpRepr { options, ..TcpRepr::default() };
        repr.emit(&mut bytes);
        assert!(TcpHeaderMut::new(&mut [0; 19]).is_err());
        let mut tcp = TcpHeaderMut::new(&mut bytes).unwrap();
        tcp.set_src_port(1);
        tcp.set_dst_port(2);
        tcp.set_seq(SeqNumber(3));
        tcp.set_ack(SeqNumber(4));
        tcp.set_flags(TcpFlags::SYN_ACK);
        tcp.set_window(5);
        tcp.set_checksum(6);
        tcp.bytes_mut()[12] = 0;
        tcp.set_data_offset();
        tcp.map_sack(|edge| edge.wrapping_add(1));
        let packet = TcpPacket::new(&bytes).unwrap();
        assert_eq!((packet.src_port(), packet.dst_port()), (1, 2));
        assert_eq!((packet.seq(), packet.ack()), (SeqNumber(3), SeqNumber(4)));
        assert_eq!((packet.flags(), packet.window()), (TcpFlags::SYN_ACK, 5));
        assert_eq!((packet.checksum(), packet.header_len()), (6, 40));
        let parsed = TcpOptions::parse(packet.options());
        assert_eq!(parsed.sack[..], [(SeqNumber(11), SeqNumber(21)), (SeqNumber(31), SeqNumber(41))]);
    }
}

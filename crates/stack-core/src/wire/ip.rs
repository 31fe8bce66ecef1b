//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers.

use super::WireError;
use super::checksum;
use core::net::{IpAddr, SocketAddr};
use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice, err};

/// IP protocol number of ICMP.
pub const PROTOCOL_ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// IP protocol number of ICMPv6.
pub const PROTOCOL_ICMPV6: u8 = 58;

/// Length of an IPv4 header without options, in bytes.
pub const IPV4_HEADER: usize = 20;
/// Length of the fixed IPv6 header, in bytes.
pub const IPV6_HEADER: usize = 40;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// The ECN field's codepoints (RFC 3168 §5).
pub mod ecn {
    /// Not ECN-capable.
    pub const NOT_ECT: u8 = 0;
    /// ECN-capable, codepoint ECT(1).
    pub const ECT_1: u8 = 1;
    /// ECN-capable, codepoint ECT(0).
    pub const ECT_0: u8 = 2;
    /// Congestion experienced.
    pub const CE: u8 = 3;
}

/// Whether packets from `remote` can be answered: it is a unicast address and a port.
pub(crate) fn can_be_peer(remote: SocketAddr) -> bool {
    let unicast = match remote.ip() {
        IpAddr::V4(a) => !a.is_multicast() && !a.is_broadcast() && !a.is_unspecified(),
        IpAddr::V6(a) => !a.is_multicast() && !a.is_unspecified(),
    };
    unicast && remote.port() != 0
}

/// What the stack needs from an IPv4 or IPv6 header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IpHeader {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Protocol of the payload (the last "next header" for IPv6).
    pub protocol: u8,
    /// Bytes before the payload: IPv4 options and IPv6 extension headers included.
    pub header_len: usize,
    /// Length of the packet in bytes, headers included. At most the buffer's; what follows is padding of the
    /// link.
    pub total_len: usize,
    /// ECN codepoint, see [`ecn`].
    pub ecn: u8,
    /// It is one fragment of several, so the payload is not a whole upper-layer packet.
    pub fragment: bool,
}

impl IpHeader {
    /// Reads the header at the start of `packet`.
    ///
    /// IPv6 hop-by-hop, destination-option, routing and atomic fragment headers (RFC 6946) are skipped.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when lengths exceed the buffer, [`WireError::BadLength`] when they contradict
    /// one another, [`WireError::BadVersion`], [`WireError::BadChecksum`] for the IPv4 header's own checksum,
    /// and [`WireError::Malformed`] for a routing header that sends the packet on to another host.
    pub fn parse(packet: &[u8]) -> Result<IpHeader, WireError> {
        match packet.first().map(|b| b >> 4) {
            None => Err(WireError::Truncated),
            Some(4) => parse_v4(packet),
            Some(6) => parse_v6(packet),
            Some(_) => Err(WireError::BadVersion),
        }
    }

    /// The IP payload within `packet`, the buffer that this header was parsed from.
    pub fn payload<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        packet.get(self.header_len..self.total_len).unwrap_or(&[])
    }
}

/// As [`IpHeader::parse`], for the packet quoted in an ICMP error: it may be cut anywhere after its header,
/// and a router may have changed it without updating the header's checksum, so neither is checked.
/// `total_len` is what the header says.
pub(super) fn parse_quoted(packet: &[u8]) -> Result<IpHeader, WireError> {
    match packet.first().map(|b| b >> 4) {
        None => Err(WireError::Truncated),
        Some(4) => v4_fields(&v4_slice(packet)?),
        Some(6) => v6_fields(packet, &v6_slice(packet)?, usize::MAX),
        Some(_) => Err(WireError::BadVersion),
    }
}

fn v4_slice(packet: &[u8]) -> Result<Ipv4HeaderSlice<'_>, WireError> {
    Ipv4HeaderSlice::from_slice(packet).map_err(|e| match e {
        err::ipv4::HeaderSliceError::Len(_) => WireError::Truncated,
        err::ipv4::HeaderSliceError::Content(err::ipv4::HeaderError::UnexpectedVersion { .. }) => {
            WireError::BadVersion
        }
        err::ipv4::HeaderSliceError::Content(_) => WireError::BadLength,
    })
}

fn v4_fields(header: &Ipv4HeaderSlice<'_>) -> Result<IpHeader, WireError> {
    let header_len = header.slice().len();
    let total_len = usize::from(header.total_len());
    if total_len < header_len {
        return Err(WireError::BadLength);
    }
    Ok(IpHeader {
        src: IpAddr::V4(header.source_addr()),
        dst: IpAddr::V4(header.destination_addr()),
        protocol: header.protocol().0,
        header_len,
        total_len,
        ecn: header.ecn().value(),
        fragment: header.is_fragmenting_payload(),
    })
}

fn parse_v4(packet: &[u8]) -> Result<IpHeader, WireError> {
    let slice = v4_slice(packet)?;
    let fields = v4_fields(&slice)?;
    if fields.total_len > packet.len() {
        return Err(WireError::Truncated);
    }
    // Summed with its checksum, an intact header gives all ones.
    if checksum::fold(checksum::sum(slice.slice(), 0)) != 0xffff {
        return Err(WireError::BadChecksum);
    }
    Ok(fields)
}

fn v6_slice(packet: &[u8]) -> Result<Ipv6HeaderSlice<'_>, WireError> {
    Ipv6HeaderSlice::from_slice(packet).map_err(|e| match e {
        err::ipv6::HeaderSliceError::Len(_) => WireError::Truncated,
        err::ipv6::HeaderSliceError::Content(_) => WireError::BadVersion,
    })
}

fn parse_v6(packet: &[u8]) -> Result<IpHeader, WireError> {
    let slice = v6_slice(packet)?;
    let total_len = IPV6_HEADER + usize::from(slice.payload_length());
    let packet = packet.get(..total_len).ok_or(WireError::Truncated)?;
    v6_fields(packet, &slice, total_len)
}

/// Walks the extension headers. `limit` is where the packet ends according to its header.
fn v6_fields(packet: &[u8], header: &Ipv6HeaderSlice<'_>, limit: usize) -> Result<IpHeader, WireError> {
    let mut next = header.next_header().0;
    let mut at = IPV6_HEADER;
    let mut fragment = false;
    // Each round passes at least 8 bytes, so the buffer's end bounds the loop.
    while !fragment && matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS) {
        let rest = packet.get(at..).unwrap_or(&[]);
        let Some(&[following, length, b2, b3]) = rest.first_chunk::<4>() else {
            return Err(WireError::Truncated);
        };
        let mut size = 8;
        match next {
            FRAGMENT => {
                // RFC 8200 §4.5: 13 bits of offset, two reserved, the M flag. RFC 6946: offset 0 and no more
                // fragments is a whole packet.
                fragment = u16::from_be_bytes([b2, b3]) & 0xfff9 != 0;
            }
            ROUTING if b3 != 0 => return Err(WireError::Malformed),
            _ => size = 8 + 8 * usize::from(length),
        }
        at += size;
        next = following;
        if at > packet.len() {
            return Err(if packet.len() == limit { WireError::BadLength } else { WireError::Truncated });
        }
    }
    Ok(IpHeader {
        src: IpAddr::V6(header.source_addr()),
        dst: IpAddr::V6(header.destination_addr()),
        protocol: next,
        header_len: at,
        total_len: IPV6_HEADER + usize::from(header.payload_length()),
        ecn: header.traffic_class() & 3,
        fragment,
    })
}

/// Length of the IP header that [`emit_ip_header`] writes for packets between addresses of this family: 20 or
/// 40 bytes.
pub fn ip_header_len(addr: &IpAddr) -> usize {
    match addr {
        IpAddr::V4(_) => IPV4_HEADER,
        IpAddr::V6(_) => IPV6_HEADER,
    }
}

/// The DSCP of `class` with this ECN codepoint.
pub(crate) fn traffic_class(class: u8, ecn: u8) -> u8 {
    class & !3 | ecn & 3
}

/// Writes the header of a TCP packet with `payload_len` bytes after the IP header (TCP header included) to
/// the start of `buf` and returns its length. DF is set, the TTL is 64; `traffic_class` is the DSCP with the
/// ECN codepoint in the lower two bits; `ident` is used by IPv4 only. `None`: the addresses are of different
/// families, and nothing was written.
///
/// # Panics
/// When `buf` is shorter than [`ip_header_len`] says.
pub fn emit_ip_header(
    buf: &mut [u8],
    src: IpAddr,
    dst: IpAddr,
    payload_len: usize,
    traffic_class: u8,
    ident: u16,
) -> Option<usize> {
    emit_ip_header_for(buf, (src, dst), PROTOCOL_TCP, payload_len, traffic_class, ident)
}

/// [`emit_ip_header`] for any protocol; the addresses are source and destination.
///
/// # Panics
/// When `buf` is shorter than [`ip_header_len`] says.
pub fn emit_ip_header_for(
    buf: &mut [u8],
    (src, dst): (IpAddr, IpAddr),
    protocol: u8,
    payload_len: usize,
    traffic_class: u8,
    ident: u16,
) -> Option<usize> {
    const TTL: u8 = 64;
    const DONT_FRAGMENT: [u8; 2] = [0x40, 0];
    let len16 = |len: usize| {
        debug_assert!(len <= 0xffff, "an IP packet of {len} bytes");
        u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes()
    };
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let header = &mut buf[..IPV4_HEADER];
            header[0] = 0x45;
            header[1] = traffic_class;
            header[2..4].copy_from_slice(&len16(IPV4_HEADER + payload_len));
            header[4..6].copy_from_slice(&ident.to_be_bytes());
            header[6..8].copy_from_slice(&DONT_FRAGMENT);
            header[8] = TTL;
            header[9] = protocol;
            header[10..12].fill(0);
            header[12..16].copy_from_slice(&src.octets());
            header[16..20].copy_from_slice(&dst.octets());
            let sum = !checksum::fold(checksum::sum(header, 0));
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            Some(IPV4_HEADER)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let header = &mut buf[..IPV6_HEADER];
            header[0] = 0x60 | traffic_class >> 4;
            header[1] = traffic_class << 4;
            header[2..4].fill(0);
            header[4..6].copy_from_slice(&len16(payload_len));
            header[6] = protocol;
            header[7] = TTL;
            header[8..24].copy_from_slice(&src.octets());
            header[24..40].copy_from_slice(&dst.octets());
            Some(IPV6_HEADER)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    const V4: (IpAddr, IpAddr) = (
        IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 1)),
        IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 2)),
    );

    fn v6() -> (IpAddr, IpAddr) {
        ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap())
    }

    #[test]
    fn ipv4_header_byte_by_byte() {
        let mut buf = [0xee; 24];
        assert_eq!(emit_ip_header(&mut buf, V4.0, V4.1, 4, ecn::ECT_0, 0x1234), Some(20));
        let header = [0x45, 2, 0, 24, 0x12, 0x34, 0x40, 0, 64, 6, 0x14, 0xa8, 10, 0, 0, 1, 10, 0, 0, 2];
        assert_eq!(buf[..20], header);
        let parsed = IpHeader::parse(&buf).unwrap();
        let expected = IpHeader {
            src: V4.0,
            dst: V4.1,
            protocol: PROTOCOL_TCP,
            header_len: 20,
            total_len: 24,
            ecn: ecn::ECT_0,
            fragment: false,
        };
        assert_eq!(parsed, expected);
        assert_eq!(parsed.payload(&buf), [0xee; 4]);
    }

    #[test]
    fn ipv6_header_byte_by_byte() {
        let (src, dst) = v6();
        let mut buf = [0xee; 44];
        assert_eq!(emit_ip_header(&mut buf, src, dst, 4, ecn::CE, 7), Some(40));
        assert_eq!(buf[..8], [0x60, 0x30, 0, 0, 0, 4, 6, 64]);
        assert_eq!(buf[8..24], [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(buf[24..40], [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        let parsed = IpHeader::parse(&buf).unwrap();
        let expected = IpHeader {
            src,
            dst,
            protocol: PROTOCOL_TCP,
            header_len: 40,
            total_len: 44,
            ecn: ecn::CE,
            fragment: false,
        };
        assert_eq!(parsed, expected);
        assert_eq!(parsed.payload(&buf), [0xee; 4]);
    }

    #[test]
    fn the_traffic_class_stands_where_each_family_has_it() {
        // Expedited forwarding, congestion experienced.
        let class = 46 << 2 | ecn::CE;
        let mut buf = [0; 44];
        emit_ip_header(&mut buf, V4.0, V4.1, 4, class, 0).unwrap();
        assert_eq!((buf[1], IpHeader::parse(&buf).unwrap().ecn), (0xbb, ecn::CE));
        let (src, dst) = v6();
        emit_ip_header(&mut buf, src, dst, 4, class, 0).unwrap();
        assert_eq!((&buf[..4], IpHeader::parse(&buf).unwrap().ecn), (&[0x6b, 0xb0, 0, 0][..], ecn::CE));
    }

    fn fix_checksum(packet: &mut [u8]) {
        let header = usize::from(packet[0] & 0xf) * 4;
        packet[10..12].fill(0);
        let sum = !checksum::fold(checksum::sum(&packet[..header], 0));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }

    #[test]
    fn ipv4_lengths_options_and_fragments() {
        let mut packet = vec![0u8; 32];
        emit_ip_header(&mut packet, V4.0, V4.1, 12, 0, 0).unwrap();
        // Padding of the link is not payload.
        packet.extend([0; 14]);
        assert_eq!(IpHeader::parse(&packet).unwrap().payload(&packet).len(), 12);
        assert_eq!(IpHeader::parse(&packet[..31]), Err(WireError::Truncated));
        assert_eq!(IpHeader::parse(&packet[..19]), Err(WireError::Truncated));
        assert_eq!(IpHeader::parse(&[]), Err(WireError::Truncated));
        let with = |edit: &dyn Fn(&mut [u8])| {
            let mut p = packet.clone();
            edit(&mut p);
            fix_checksum(&mut p);
            IpHeader::parse(&p)
        };
        assert_eq!(with(&|p| p[0] = 0x46).unwrap().header_len, 24);
        assert_eq!(with(&|p| p[0] = 0x44), Err(WireError::BadLength));
        assert_eq!(with(&|p| p[3] = 19), Err(WireError::BadLength));
        assert_eq!(with(&|p| p[3] = 20).unwrap().payload(&packet), [], "nothing but the header");
        assert!(with(&|p| p[6] = 0x20).unwrap().fragment, "more fragments");
        assert!(with(&|p| p[7] = 1).unwrap().fragment, "offset");
        assert_eq!(with(&|p| p[9] = 17).unwrap().protocol, 17);
        for version in (0..16).filter(|v| ![4, 6].contains(v)) {
            assert_eq!(with(&|p| p[0] = version << 4 | 5), Err(WireError::BadVersion));
        }
        for bit in 8..160 {
            let mut p = packet.clone();
            p[bit / 8] ^= 1 << (bit % 8);
            assert!(IpHeader::parse(&p).is_err(), "bit {bit} flipped under the checksum");
        }
    }

    /// An IPv6 packet with these extension headers (each its type and its bytes after the next-header octet),
    /// then 20 bytes of TCP.
    fn with_extensions(extensions: &[(u8, &[u8])]) -> Vec<u8> {
        let len: usize = extensions.iter().map(|(_, body)| 1 + body.len()).sum();
        let mut packet = vec![0; 40];
        let (src, dst) = v6();
        emit_ip_header(&mut packet, src, dst, len + 20, 0, 0).unwrap();
        let mut next = 6;
        for (i, (kind, body)) in extensions.iter().enumerate() {
            let field = if i == 0 { &mut packet[6] } else { &mut packet[next] };
            *field = *kind;
            next = packet.len();
            packet.push(PROTOCOL_TCP);
            packet.extend(*body);
        }
        packet.extend([0; 20]);
        packet
    }

    #[test]
    fn ipv6_extension_headers_are_skipped() {
        let hop = (HOP_BY_HOP, &[0, 1, 4, 0, 0, 0, 0][..]);
        let long = (DESTINATION_OPTIONS, &[1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..]);
        let routing = (ROUTING, &[0, 4, 0, 0, 0, 0, 0][..]);
        let packet = with_extensions(&[hop, long, routing]);
        let header = IpHeader::parse(&packet).unwrap();
        assert_eq!(
            (header.protocol, header.header_len, header.fragment),
            (PROTOCOL_TCP, 40 + 8 + 16 + 8, false)
        );
        assert_eq!(header.payload(&packet), [0; 20]);

        let atomic = with_extensions(&[(FRAGMENT, &[0, 0, 0, 1, 2, 3, 4])]);
        let header = IpHeader::parse(&atomic).unwrap();
        assert_eq!((header.protocol, header.header_len, header.fragment), (PROTOCOL_TCP, 48, false));
        for offset in [[0, 1], [0, 8], [0x80, 0]] {
            let fragment = with_extensions(&[(FRAGMENT, &[0, offset[0], offset[1], 1, 2, 3, 4])]);
            assert!(IpHeader::parse(&fragment).unwrap().fragment, "{offset:?}");
        }
        // Segments left: the destination is not the last one.
        let en_route = with_extensions(&[(ROUTING, &[0, 4, 1, 0, 0, 0, 0])]);
        assert_eq!(IpHeader::parse(&en_route), Err(WireError::Malformed));
        // An unknown header is the upper layer.
        let authentication = with_extensions(&[hop, (51, &[0; 7])]);
        assert_eq!(IpHeader::parse(&authentication).unwrap().protocol, 51);
    }

    #[test]
    fn ipv6_extension_headers_that_run_out() {
        let beyond = with_extensions(&[(DESTINATION_OPTIONS, &[200, 0, 0, 0, 0, 0, 0])]);
        assert_eq!(IpHeader::parse(&beyond), Err(WireError::BadLength));
        // A chain of headers that all announce another, to the end of the packet.
        let mut chain = with_extensions(&[(HOP_BY_HOP, &[0; 7])]);
        chain[40..].fill(0);
        assert!(IpHeader::parse(&chain).is_err());
        let fine = with_extensions(&[]);
        for cut in 0..fine.len() {
            assert_eq!(IpHeader::parse(&fine[..cut]), Err(WireError::Truncated), "{cut} bytes");
        }
        // The quoted form does not mind a cut after the header.
        assert_eq!(parse_quoted(&fine[..48]).unwrap().total_len, 60);
    }

    #[test]
    fn families_do_not_mix() {
        let mut buf = [0xee; 40];
        assert_eq!(emit_ip_header(&mut buf, V4.0, v6().1, 0, 0, 0), None);
        assert_eq!(emit_ip_header(&mut buf, v6().0, V4.1, 0, 0, 0), None);
        assert_eq!(buf, [0xee; 40]);
    }
}

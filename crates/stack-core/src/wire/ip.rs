//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers.

use super::WireError;
use super::checksum;
use core::net::IpAddr;
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

/// What the stack needs of an IPv4 or IPv6 header.
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
    /// Length of the packet in bytes, headers included. At most the buffer's; what follows is padding of the link.
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
    /// [`WireError::Truncated`] when lengths exceed the buffer, [`WireError::BadLength`] when they contradict one another,
    /// [`WireError::BadVersion`], [`WireError::BadChecksum`] for the IPv4 header's own checksum, and
    /// [`WireError::Malformed`] for a routing header that has the packet travel on to another host.
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

/// As [`IpHeader::parse`], for the packet quoted in an ICMP error: it may be cut anywhere after its header, and a router may
/// have changed it without mending the header's checksum, so neither is checked. `total_len` is what the header says.
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

/// Walks the extension headers. `limit` is where the packet ends by its own account.
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

/// Length of the IP header that [`emit_ip_header`] writes for packets between addresses of this family: 20 or 40 bytes.
pub fn ip_header_len(addr: &IpAddr) -> usize {
    match addr {
        IpAddr::V4(_) => IPV4_HEADER,
        IpAddr::V6(_) => IPV6_HEADER,
    }
}

/// Writes the header of a TCP packet with `payload_len` bytes after the IP header (TCP header included) to the start of
/// `buf` and returns its length. DF is set, the TTL is 64; `ecn` is the codepoint; `ident` is used by IPv4 only.
///
/// # Panics
/// When `buf` is shorter than the header, or `src` and `dst` are of different families.
pub fn emit_ip_header(
    buf: &mut [u8],
    src: IpAddr,
    dst: IpAddr,
    payload_len: usize,
    ecn: u8,
    ident: u16,
) -> usize {
    emit_ip_header_for(buf, src, dst, PROTOCOL_TCP, payload_len, ecn, ident)
}

/// [`emit_ip_header`] for any protocol.
///
/// # Panics
/// When `buf` is shorter than the header, or `src` and `dst` are of different families.
pub fn emit_ip_header_for(
    buf: &mut [u8],
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    payload_len: usize,
    ecn: u8,
    ident: u16,
) -> usize {
    const TTL: u8 = 64;
    const DONT_FRAGMENT: [u8; 2] = [0x40, 0];
    let ecn = ecn & 3;
    let len16 = |len: usize| {
        debug_assert!(len <= 0xffff, "an IP packet of {len} bytes");
        u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes()
    };
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let header = &mut buf[..IPV4_HEADER];
            header[0] = 0x45;
            header[1] = ecn;
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
            IPV4_HEADER
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let header = &mut buf[..IPV6_HEADER];
            header[0] = 0x60;
            header[1] = ecn << 4;
            header[2..4].fill(0);
            header[4..6].copy_from_slice(&len16(payload_len));
            header[6] = protocol;
            header[7] = TTL;
            header[8..24].copy_from_slice(&src.octets());
            header[24..40].copy_from_slice(&dst.octets());
            IPV6_HEADER
        }
        (src, dst) => panic!("no packet goes from {src} to {dst}: different address families"),
    }
}

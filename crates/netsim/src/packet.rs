//! An IP packet on its way through the simulated network.
//!
//! Headers are copied, payload is shared: cutting a 64 kB segment into packets of the MTU copies no payload byte.

use crate::checksum::{self, Sum};
use bytes::Bytes;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use umptcp_stack_core::interface::{
    ChecksumRequest, ChecksumState, HeaderBuf, MAX_HEADER, RxPacket, Transmit,
};
use umptcp_stack_core::payload::Payload;
use umptcp_types::{Instant, PathId};

/// TCP's number as an IP protocol.
const TCP: u8 = 6;
/// Where the checksum stands in a TCP header.
const TCP_CHECKSUM: usize = 16;

/// The flag bits of a TCP header (RFC 9293 §3.1).
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
    /// Congestion experienced, echoed (RFC 3168).
    pub const ECE: u8 = 0x40;
    /// Congestion window reduced (RFC 3168).
    pub const CWR: u8 = 0x80;
}

/// What the first bytes of a packet are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// IPv4 and then TCP, header as long as the header buffer; the number is the IP header's length.
    Tcp4(u8),
    /// IPv6 without extension headers, and then TCP.
    Tcp6,
    /// IPv4 with something else, or a TCP header too long or short to take apart: everything after the IP header is payload.
    Other4,
    /// The same of IPv6.
    Other6,
    /// Not IP at all: everything is payload.
    Unknown,
}

/// One IP packet, or a segment that is yet to be cut into packets.
#[derive(Clone)]
pub struct Packet {
    header: HeaderBuf,
    payload: Payload,
    gso_size: Option<NonZeroU16>,
    checksum: ChecksumRequest,
    kind: Kind,
}

fn be16(b: &[u8], at: usize) -> u16 {
    match b.get(at..at + 2) {
        Some(s) => u16::from_be_bytes([s[0], s[1]]),
        None => 0,
    }
}

fn be32(b: &[u8], at: usize) -> u32 {
    (u32::from(be16(b, at)) << 16) | u32::from(be16(b, at + 2))
}

fn put16(b: &mut [u8], at: usize, v: u16) {
    b[at..at + 2].copy_from_slice(&v.to_be_bytes());
}

fn put32(b: &mut [u8], at: usize, v: u32) {
    b[at..at + 4].copy_from_slice(&v.to_be_bytes());
}

/// Kind of the packet that starts with `b`, length of its headers, and its whole length as the IP header has it.
fn dissect(b: &[u8]) -> (Kind, usize, usize) {
    let tcp_length = |at: usize| {
        let len = usize::from(b.get(at + 12).copied().unwrap_or(0) >> 4) * 4;
        (len >= 20 && at + len <= b.len() && at + len <= MAX_HEADER).then_some(len)
    };
    match b.first().map(|v| v >> 4) {
        Some(4) if b.len() >= 20 => {
            let ihl = usize::from(b[0] & 0x0f) * 4;
            let total = usize::from(be16(b, 2));
            if ihl < 20 || ihl > b.len() || total < ihl {
                return (Kind::Unknown, 0, b.len());
            }
            let fragment = be16(b, 6) & 0x3fff != 0;
            match tcp_length(ihl) {
                Some(tcp) if b[9] == TCP && !fragment && ihl + tcp <= total => {
                    (Kind::Tcp4(ihl as u8), ihl + tcp, total)
                }
                _ => (Kind::Other4, ihl, total),
            }
        }
        Some(6) if b.len() >= 40 => {
            let total = 40 + usize::from(be16(b, 4));
            match tcp_length(40) {
                Some(tcp) if b[6] == TCP && 40 + tcp <= total => (Kind::Tcp6, 40 + tcp, total),
                _ => (Kind::Other6, 40, total),
            }
        }
        _ => (Kind::Unknown, 0, b.len()),
    }
}

impl Packet {
    /// The packet in `buffer`, which starts at the IP header. Bytes after the end that the IP header gives are cut off.
    ///
    /// `gso_size` is the payload per packet when `buffer` is a segment of several. With [`ChecksumState::Verified`]
    /// the checksum field need not be right; it is replaced by the pseudo-header's sum and completed by who needs it.
    pub fn from_bytes(buffer: Bytes, gso_size: Option<NonZeroU16>, checksum: ChecksumState) -> Packet {
        let (kind, header_len, total) = dissect(&buffer);
        let mut header = HeaderBuf::zeroed(header_len);
        header.as_mut_slice().copy_from_slice(&buffer[..header_len]);
        let end = total.min(buffer.len());
        let payload = Payload::from(buffer.slice(header_len..end.max(header_len)));
        let mut p = Packet { header, payload, gso_size, checksum: ChecksumRequest::Complete, kind };
        if checksum == ChecksumState::Verified && p.is_tcp() {
            p.make_partial();
        }
        p
    }

    /// The packet in `rx`, as it came from a device.
    pub fn from_rx(rx: RxPacket) -> Packet {
        Packet::from_bytes(rx.buffer, rx.gso_size, rx.checksum)
    }

    /// The packet that a stack wants to send.
    pub fn from_transmit(transmit: Transmit) -> Packet {
        let Transmit { path: _, header, payload, gso_size, checksum, earliest: _ } = transmit;
        let (kind, header_len, _) = dissect(header.as_slice());
        if header_len == header.as_slice().len() && !matches!(kind, Kind::Unknown) {
            return Packet { header, payload, gso_size, checksum, kind };
        }
        // The stack drew the line between header and payload elsewhere (ICMP, or an option-laden header).
        let mut whole = header.as_slice().to_vec();
        for s in payload.slices() {
            whole.extend_from_slice(s);
        }
        let state = match checksum {
            ChecksumRequest::Complete => ChecksumState::Unverified,
            ChecksumRequest::Partial { .. } => ChecksumState::Verified,
        };
        Packet::from_bytes(whole.into(), gso_size, state)
    }

    /// The packet as a device would hand it to a stack, copied into one buffer.
    pub fn to_rx(&self) -> RxPacket {
        RxPacket {
            buffer: self.to_vec().into(),
            gso_size: self.gso_size,
            checksum: match self.checksum {
                ChecksumRequest::Complete => ChecksumState::Unverified,
                ChecksumRequest::Partial { .. } => ChecksumState::Verified,
            },
        }
    }

    /// The packet as a device takes it for sending.
    pub fn into_transmit(self, path: PathId, now: Instant) -> Transmit {
        Transmit {
            path,
            header: self.header,
            payload: self.payload,
            gso_size: self.gso_size,
            checksum: self.checksum,
            earliest: now,
        }
    }

    /// All bytes, copied. The transport checksum is as [`Packet::checksum`] says.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut v = Vec::with_capacity(self.len());
        v.extend_from_slice(self.header.as_slice());
        for s in self.payload.slices() {
            v.extend_from_slice(s);
        }
        v
    }

    /// Length in bytes, IP header included.
    pub fn len(&self) -> usize {
        self.header.as_slice().len() + self.payload.len()
    }

    /// Whether it has no byte at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// IP and TCP header; of other protocols than TCP only the IP header.
    pub fn header(&self) -> &[u8] {
        self.header.as_slice()
    }

    /// TCP payload; of other protocols everything after the IP header.
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// Payload bytes per packet when this is a segment of several.
    pub fn gso_size(&self) -> Option<NonZeroU16> {
        self.gso_size
    }

    /// Whether the TCP checksum stands in the packet or is yet to be completed.
    pub fn checksum(&self) -> ChecksumRequest {
        self.checksum
    }

    /// Number of packets on the wire.
    pub fn packets(&self) -> usize {
        match self.gso_size {
            Some(size) => self.payload.len().div_ceil(usize::from(size.get())).max(1),
            None => 1,
        }
    }

    /// Whether it is a TCP packet that could be taken apart.
    pub fn is_tcp(&self) -> bool {
        matches!(self.kind, Kind::Tcp4(_) | Kind::Tcp6)
    }

    /// Sets congestion experienced in the IP header if the sender said that its transport understands it (RFC 3168 §5).
    /// Whether the packet is marked now.
    pub fn mark_congestion(&mut self) -> bool {
        let h = self.header.as_mut_slice();
        match self.kind {
            Kind::Tcp4(_) | Kind::Other4 => {
                if h[1] & 3 == 0 {
                    return false;
                }
                h[1] |= 3;
                put16(h, 10, 0);
                let sum = checksum::of(&h[..usize::from(h[0] & 0x0f) * 4]);
                put16(h, 10, sum);
                true
            }
            // The traffic class straddles the first two bytes (RFC 8200 §3).
            Kind::Tcp6 | Kind::Other6 => {
                let capable = h[1] & 0x30 != 0;
                if capable {
                    h[1] |= 0x30;
                }
                capable
            }
            Kind::Unknown => false,
        }
    }

    /// Source address, if it is IP.
    pub fn source(&self) -> Option<IpAddr> {
        self.address(12, 8)
    }

    /// Destination address, if it is IP.
    pub fn destination(&self) -> Option<IpAddr> {
        self.address(16, 24)
    }

    fn address(&self, at4: usize, at6: usize) -> Option<IpAddr> {
        let h = self.header();
        match self.kind {
            Kind::Tcp4(_) | Kind::Other4 => Some(IpAddr::V4(Ipv4Addr::from(be32(h, at4)))),
            Kind::Tcp6 | Kind::Other6 => {
                let bytes: [u8; 16] = h.get(at6..at6 + 16)?.try_into().ok()?;
                Some(IpAddr::V6(Ipv6Addr::from(bytes)))
            }
            Kind::Unknown => None,
        }
    }

    /// Length of the IP header of a TCP packet.
    fn tcp_offset(&self) -> Option<usize> {
        match self.kind {
            Kind::Tcp4(ihl) => Some(usize::from(ihl)),
            Kind::Tcp6 => Some(40),
            _ => None,
        }
    }

    /// The TCP header with its options, if it is TCP.
    pub fn tcp(&self) -> Option<TcpHeader<'_>> {
        self.tcp_offset().map(|at| TcpHeader { bytes: &self.header()[at..] })
    }

    /// Source address and port, if it is TCP.
    pub fn tcp_source(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.source()?, self.tcp()?.source_port()))
    }

    /// Destination address and port, if it is TCP.
    pub fn tcp_destination(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.destination()?, self.tcp()?.destination_port()))
    }

    /// Changes the TCP header in place, its length apart, and repairs the checksum. Nothing happens to other packets.
    pub fn edit_tcp(&mut self, edit: impl FnOnce(&mut [u8])) {
        let Some(at) = self.tcp_offset() else { return };
        let before = self.header.as_slice()[at..].to_vec();
        edit(&mut self.header.as_mut_slice()[at..]);
        // The data offset is the layout: it may not change here.
        self.header.as_mut_slice()[at + 12] = (before[12] & 0xf0) | (self.header.as_slice()[at + 12] & 0x0f);
        self.refresh_checksum();
    }

    /// Replaces the TCP options by `options`, padded with end-of-list to a multiple of 4 and cut at 40 bytes, and
    /// repairs lengths and checksum.
    pub fn set_tcp_options(&mut self, options: &[u8]) {
        let Some(at) = self.tcp_offset() else { return };
        let options = &options[..options.len().min(40)];
        let padded = options.len().next_multiple_of(4);
        let mut header = HeaderBuf::zeroed((at + 20 + padded).min(MAX_HEADER));
        let room = header.as_slice().len() - at - 20;
        let h = header.as_mut_slice();
        h[..at + 20].copy_from_slice(&self.header.as_slice()[..at + 20]);
        let n = options.len().min(room);
        h[at + 20..at + 20 + n].copy_from_slice(&options[..n]);
        h[at + 12] = (h[at + 12] & 0x0f) | (((20 + room) / 4) << 4) as u8;
        self.header = header;
        self.refresh_lengths();
        self.refresh_checksum();
    }

    /// Replaces the payload, and repairs lengths and checksum.
    pub fn set_payload(&mut self, payload: Payload) {
        self.payload = payload;
        if self.gso_size.is_some_and(|s| usize::from(s.get()) >= self.payload.len()) {
            self.gso_size = None;
        }
        self.refresh_lengths();
        self.refresh_checksum();
    }

    /// Replaces addresses, and ports of TCP, and repairs the checksums. An address of the other family is ignored.
    pub fn rewrite(&mut self, source: Option<SocketAddr>, destination: Option<SocketAddr>) {
        let tcp = self.tcp_offset();
        let v4 = matches!(self.kind, Kind::Tcp4(_) | Kind::Other4);
        let h = self.header.as_mut_slice();
        for (new, at4, at6, port) in [(source, 12, 8, 0), (destination, 16, 24, 2)] {
            match new.map(|a| a.ip()) {
                Some(IpAddr::V4(a)) if v4 => h[at4..at4 + 4].copy_from_slice(&a.octets()),
                Some(IpAddr::V6(a)) if !v4 && h.len() >= 40 => h[at6..at6 + 16].copy_from_slice(&a.octets()),
                _ => continue,
            }
            if let (Some(at), Some(new)) = (tcp, new) {
                put16(h, at + port, new.port());
            }
        }
        self.refresh_lengths();
        self.refresh_checksum();
    }

    /// Computes the TCP checksum when that was left to a device.
    pub fn complete_checksum(&mut self) {
        if matches!(self.checksum, ChecksumRequest::Partial { .. }) {
            self.checksum = ChecksumRequest::Complete;
            self.refresh_checksum();
        }
    }

    /// Whether the checksums in the packet are right; a TCP checksum that is yet to be completed counts as right.
    pub fn checksum_ok(&self) -> bool {
        if let Kind::Tcp4(_) | Kind::Other4 = self.kind
            && checksum::of(&self.header()[..usize::from(self.header()[0] & 0x0f) * 4]) != 0
        {
            return false;
        }
        match self.checksum {
            ChecksumRequest::Partial { .. } => true,
            ChecksumRequest::Complete => self.tcp_sum().is_none_or(|sum| sum.folded() == 0xffff),
        }
    }

    fn tcp_length(&self) -> Option<u32> {
        Some((self.header().len() - self.tcp_offset()? + self.payload.len()) as u32)
    }

    fn pseudo_header(&self) -> Option<Sum> {
        Some(checksum::pseudo_header(self.source()?, self.destination()?, TCP, self.tcp_length()?))
    }

    /// Sum of pseudo-header, TCP header and payload.
    fn tcp_sum(&self) -> Option<Sum> {
        let mut sum = self.pseudo_header()?;
        sum.add(&self.header()[self.tcp_offset()?..]);
        for s in self.payload.slices() {
            sum.add(s);
        }
        Some(sum)
    }

    /// Makes the checksum agree with the packet, in the form it has (complete or partial).
    fn refresh_checksum(&mut self) {
        let Some(at) = self.tcp_offset() else { return };
        match self.checksum {
            ChecksumRequest::Partial { .. } => self.make_partial(),
            ChecksumRequest::Complete => {
                put16(self.header.as_mut_slice(), at + TCP_CHECKSUM, 0);
                let sum = self.tcp_sum().map_or(0, |s| !s.folded());
                put16(self.header.as_mut_slice(), at + TCP_CHECKSUM, sum);
            }
        }
    }

    /// Puts the pseudo-header's sum where the checksum belongs.
    fn make_partial(&mut self) {
        let (Some(at), Some(sum)) = (self.tcp_offset(), self.pseudo_header()) else { return };
        put16(self.header.as_mut_slice(), at + TCP_CHECKSUM, sum.folded());
        self.checksum = ChecksumRequest::Partial { start: at as u16, offset: TCP_CHECKSUM as u16 };
    }

    /// Makes the IP header's length and checksum agree with the packet.
    fn refresh_lengths(&mut self) {
        let total = self.len();
        let kind = self.kind;
        let h = self.header.as_mut_slice();
        match kind {
            Kind::Tcp4(_) | Kind::Other4 => {
                put16(h, 2, total.min(65_535) as u16);
                put16(h, 10, 0);
                let sum = checksum::of(&h[..usize::from(h[0] & 0x0f) * 4]);
                put16(h, 10, sum);
            }
            Kind::Tcp6 | Kind::Other6 => put16(h, 4, (total - 40).min(65_535) as u16),
            Kind::Unknown => {}
        }
    }

    /// Cuts a segment into the packets it stands for and hands them to `each` in order, as a NIC does (TSO).
    ///
    /// Every packet carries the segment's options; sequence numbers and IPv4 identifications advance, FIN and PSH stay
    /// on the last packet only, CWR on the first (RFC 3168 §6.1.2: once per reduction). Lengths and checksums are right.
    pub fn split(self, mut each: impl FnMut(Packet)) {
        let size = match self.gso_size {
            Some(size) if self.payload.len() > usize::from(size.get()) && self.is_tcp() => {
                usize::from(size.get())
            }
            _ => {
                each(Packet { gso_size: None, ..self });
                return;
            }
        };
        let at = self.tcp_offset().unwrap_or(0);
        let seq = be32(self.header(), at + 4);
        let bits = self.header()[at + 13];
        let id = be16(self.header(), 4);
        let mut start = 0;
        let mut index = 0u16;
        while start < self.payload.len() {
            let end = (start + size).min(self.payload.len());
            let mut bits = bits;
            if end < self.payload.len() {
                bits &= !(flags::FIN | flags::PSH);
            }
            if start > 0 {
                bits &= !flags::CWR;
            }
            let mut part = Packet {
                header: self.header.clone(),
                payload: self.payload.slice(start..end),
                gso_size: None,
                ..self
            };
            let h = part.header.as_mut_slice();
            put32(h, at + 4, seq.wrapping_add(start as u32));
            h[at + 13] = bits;
            if matches!(self.kind, Kind::Tcp4(_)) {
                put16(h, 4, id.wrapping_add(index));
            }
            part.refresh_lengths();
            part.refresh_checksum();
            each(part);
            start = end;
            index = index.wrapping_add(1);
        }
    }

    /// Appends `next` to this packet when a receiving device could (GRO): the next bytes of the same flow with the same
    /// header and options, no packet shorter than the first but the last. Returns `next` when it does not fit.
    ///
    /// Packets with a complete checksum are verified first, as devices do; one that is wrong is left alone.
    pub fn coalesce(&mut self, next: Packet) -> Option<Packet> {
        if !self.mergeable(&next) {
            return Some(next);
        }
        if !(self.checksum_ok() && next.checksum_ok()) {
            return Some(next);
        }
        let size = self.gso_size.map_or(self.payload.len(), |s| usize::from(s.get()));
        let Some(size) = u16::try_from(size).ok().and_then(NonZeroU16::new) else { return Some(next) };
        let at = self.tcp_offset().unwrap_or(0);
        let last = next.header()[at + 13] & (flags::FIN | flags::PSH);
        self.gso_size = Some(size);
        for s in next.payload.slices() {
            self.payload.push(s.clone());
        }
        self.header.as_mut_slice()[at + 13] |= last;
        self.refresh_lengths();
        self.make_partial();
        None
    }

    /// Whether both are TCP packets with the same addresses and ports.
    pub(crate) fn same_flow(&self, other: &Packet) -> bool {
        let (Some(at), true) = (self.tcp_offset(), self.kind == other.kind) else { return false };
        let (a, b) = (self.header(), other.header());
        let addresses = if self.kind == Kind::Tcp6 { 8..40 } else { 12..20 };
        a[addresses.clone()] == b[addresses] && a[at..at + 4] == b[at..at + 4]
    }

    fn mergeable(&self, next: &Packet) -> bool {
        let (Some(at), true) = (self.tcp_offset(), self.kind == next.kind) else { return false };
        let (a, b) = (self.header(), next.header());
        let size = self.gso_size.map_or(self.payload.len(), |s| usize::from(s.get()));
        let len = next.payload.len();
        let last_only = flags::FIN | flags::PSH;
        let plain = flags::SYN | flags::RST | flags::URG;
        let same_ip = match self.kind {
            // All but length, identification and checksum.
            Kind::Tcp4(_) => a[..2] == b[..2] && a[6..10] == b[6..10] && a[12..at] == b[12..at],
            _ => a[..4] == b[..4] && a[6..40] == b[6..40],
        };
        same_ip
            && a.len() == b.len()
            && next.gso_size.is_none()
            && len > 0
            && size > 0
            && len <= size
            && self.payload.len().is_multiple_of(size)
            && a.len() + self.payload.len() + len <= 65_535
            && a[at..at + 4] == b[at..at + 4]
            && be32(b, at + 4) == be32(a, at + 4).wrapping_add(self.payload.len() as u32)
            && a[at + 8..at + 13] == b[at + 8..at + 13]
            && a[at + 13] & (plain | last_only) == 0
            && b[at + 13] & (plain | flags::CWR) == 0
            && (a[at + 13] ^ b[at + 13]) & !(last_only | flags::CWR) == 0
            && a[at + 14..at + 16] == b[at + 14..at + 16]
            && a[at + 18..] == b[at + 18..]
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::trace::describe(self.header(), self.payload.len()))
    }
}

/// A view of a TCP header of at least 20 bytes with its options.
#[derive(Clone, Copy, Debug)]
pub struct TcpHeader<'a> {
    bytes: &'a [u8],
}

impl<'a> TcpHeader<'a> {
    /// Source port.
    pub fn source_port(&self) -> u16 {
        be16(self.bytes, 0)
    }

    /// Destination port.
    pub fn destination_port(&self) -> u16 {
        be16(self.bytes, 2)
    }

    /// Sequence number.
    pub fn seq(&self) -> u32 {
        be32(self.bytes, 4)
    }

    /// Acknowledgement number.
    pub fn ack(&self) -> u32 {
        be32(self.bytes, 8)
    }

    /// The eight flags, as in [`flags`].
    pub fn flags(&self) -> u8 {
        self.bytes[13]
    }

    /// Window field, not scaled.
    pub fn window(&self) -> u16 {
        be16(self.bytes, 14)
    }

    /// The options as they stand, padding included.
    pub fn options(&self) -> &'a [u8] {
        &self.bytes[20..]
    }

    /// The options one by one: kind and the whole option, kind and length bytes included. Stops at the end-of-list
    /// option and at the first that is malformed.
    pub fn option_list(&self) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        let mut rest = self.options();
        std::iter::from_fn(move || {
            let kind = *rest.first()?;
            let len = match kind {
                0 => return None,
                1 => 1,
                _ => usize::from(*rest.get(1)?).max(2),
            };
            let option = rest.get(..len)?;
            rest = &rest[len..];
            Some((kind, option))
        })
    }

    /// The subtypes of the MPTCP options (RFC 8684 §3) in the header.
    pub fn mptcp_subtypes(&self) -> impl Iterator<Item = u8> + use<'a> {
        self.option_list().filter(|(kind, _)| *kind == OPTION_MPTCP).filter_map(|(_, o)| Some(o.get(2)? >> 4))
    }
}

/// The TCP option kind of MPTCP (RFC 8684 §8.1).
pub const OPTION_MPTCP: u8 = 30;

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;

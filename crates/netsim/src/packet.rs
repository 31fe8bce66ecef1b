//! An IP packet on its way through the simulated network.
//!
//! Headers are copied, payload is shared: cutting a 64 kB segment into packets of the MTU copies no payload
//! byte.

use bytes::Bytes;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use umptcp_stack_core::device::{ChecksumRequest, ChecksumState, HeaderBuf, MAX_HEADER, RxPacket, Transmit};
use umptcp_stack_core::payload::Payload;
use umptcp_stack_core::wire::header::{IpView, TcpHeaderMut};
use umptcp_stack_core::wire::ip::{PROTOCOL_TCP, ecn};
use umptcp_stack_core::wire::tcp::{
    CHECKSUM_OFFSET, MAX_OPTIONS, MIN_HEADER, TcpFlags, TcpPacket, complete_checksum, partial_checksum,
};
use umptcp_stack_core::wire::{PacketSummary, checksum};
use umptcp_types::{Instant, PathId, SeqNumber};

/// What the first bytes of a packet are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// IPv4 and then TCP, header as long as the header buffer; the number is the IP header's length.
    Tcp4(u8),
    /// IPv6 without extension headers, and then TCP.
    Tcp6,
    /// IPv4 with something else, or a TCP header too long or short to take apart: everything after the IP
    /// header is payload.
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

/// Kind of the packet that starts with `b`, length of its headers, and its whole length by the IP header's
/// account.
fn dissect(b: &[u8]) -> (Kind, usize, usize) {
    let Ok(ip) = IpView::new(b) else { return (Kind::Unknown, 0, b.len()) };
    let (at, total) = (ip.header_len(), ip.total_len());
    if total < at {
        return (Kind::Unknown, 0, b.len());
    }
    let tcp = if ip.protocol() == PROTOCOL_TCP && !ip.is_fragment() {
        // Headers that do not fit the buffer for headers stay in the payload.
        TcpPacket::new(&b[at..])
            .ok()
            .map(|tcp| at + tcp.header_len())
            .filter(|end| *end <= total.min(MAX_HEADER))
    } else {
        None
    };
    match tcp {
        Some(end) if ip.is_v6() => (Kind::Tcp6, end, total),
        Some(end) => (Kind::Tcp4(at as u8), end, total),
        None if ip.is_v6() => (Kind::Other6, at, total),
        None => (Kind::Other4, at, total),
    }
}

impl Packet {
    /// The packet in `buffer`, which starts at the IP header. Bytes after the end that the IP header gives
    /// are cut off.
    ///
    /// `gso_size` is the payload per packet when `buffer` is a segment of several. With
    /// [`ChecksumState::Verified`] the checksum field need not be right; that of TCP is replaced by the
    /// pseudo-header's sum and completed by who needs it, that of UDP is computed.
    pub fn from_bytes(buffer: Bytes, gso_size: Option<NonZeroU16>, checksum: ChecksumState) -> Packet {
        let (kind, header_len, total) = dissect(&buffer);
        let mut header = HeaderBuf::zeroed(header_len);
        header.as_mut_slice().copy_from_slice(&buffer[..header_len]);
        let end = total.min(buffer.len());
        let payload = Payload::from(buffer.slice(header_len..end.max(header_len)));
        let mut p = Packet { header, payload, gso_size, checksum: ChecksumRequest::Complete, kind };
        if checksum == ChecksumState::Verified {
            if p.is_tcp() {
                p.make_partial();
            } else {
                p.complete_udp();
            }
        }
        p
    }

    /// The packet in `rx`, as it came from a device.
    pub fn from_rx(rx: RxPacket) -> Packet {
        Packet::from_bytes(rx.buffer, rx.gso_size, rx.checksum)
    }

    /// The packet that a stack wants to send.
    pub fn from_transmit(transmit: Transmit) -> Packet {
        let Transmit { header, payload, gso_size, checksum, .. } = transmit;
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
        RxPacket::new(
            self.to_vec().into(),
            match self.checksum {
                ChecksumRequest::Complete => ChecksumState::Unverified,
                ChecksumRequest::Partial { .. } => ChecksumState::Verified,
            },
        )
        .with_gso_size(self.gso_size)
    }

    /// The packet as a device takes it for sending.
    pub fn into_transmit(self, path: PathId, now: Instant) -> Transmit {
        Transmit::new(path, self.header, self.payload)
            .with_gso_size(self.gso_size)
            .with_checksum(self.checksum)
            .with_earliest(now)
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

    /// Sets congestion experienced in the IP header if the sender said that its transport understands it (RFC
    /// 3168 §5). Whether the packet is marked now.
    pub fn mark_congestion(&mut self) -> bool {
        let Some(mut ip) = self.ip_mut().filter(|ip| ip.ecn() != ecn::NOT_ECT) else { return false };
        ip.set_ecn(ecn::CE);
        true
    }

    /// Source address, if it is IP.
    pub fn source(&self) -> Option<IpAddr> {
        self.ip().map(|ip| ip.src())
    }

    /// Destination address, if it is IP.
    pub fn destination(&self) -> Option<IpAddr> {
        self.ip().map(|ip| ip.dst())
    }

    fn ip(&self) -> Option<IpView<&[u8]>> {
        IpView::new(self.header.as_slice()).ok()
    }

    fn ip_mut(&mut self) -> Option<IpView<&mut [u8]>> {
        IpView::new(self.header.as_mut_slice()).ok()
    }

    /// Length of the IP header of a TCP packet.
    fn tcp_offset(&self) -> Option<usize> {
        match self.kind {
            Kind::Tcp4(ihl) => Some(usize::from(ihl)),
            Kind::Tcp6 => Some(40),
            _ => None,
        }
    }

    /// The TCP header with its options, if it is TCP. The payload is not in this view.
    pub fn tcp(&self) -> Option<TcpPacket<'_>> {
        TcpPacket::new(&self.header()[self.tcp_offset()?..]).ok()
    }

    /// Source address and port, if it is TCP.
    pub fn tcp_source(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.source()?, self.tcp()?.src_port()))
    }

    /// Destination address and port, if it is TCP.
    pub fn tcp_destination(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.destination()?, self.tcp()?.dst_port()))
    }

    /// Changes the TCP header in place and repairs the checksum. Its length, and so the data offset, stays as
    /// it is. Nothing happens to other packets.
    pub fn edit_tcp(&mut self, edit: impl FnOnce(&mut TcpHeaderMut<'_>)) {
        let Some(mut tcp) = self.tcp_mut() else { return };
        edit(&mut tcp);
        tcp.set_data_offset();
        self.refresh_checksum();
    }

    fn tcp_mut(&mut self) -> Option<TcpHeaderMut<'_>> {
        let at = self.tcp_offset()?;
        TcpHeaderMut::new(&mut self.header.as_mut_slice()[at..]).ok()
    }

    /// Replaces the TCP options by `options`, padded with end-of-list to a multiple of 4 and cut at 40 bytes,
    /// and repairs lengths and checksum.
    pub fn set_tcp_options(&mut self, options: &[u8]) {
        let Some(at) = self.tcp_offset() else { return };
        let fixed = at + MIN_HEADER;
        let options = &options[..options.len().min(MAX_OPTIONS)];
        let mut header = HeaderBuf::zeroed((fixed + options.len().next_multiple_of(4)).min(MAX_HEADER));
        let h = header.as_mut_slice();
        h[..fixed].copy_from_slice(&self.header()[..fixed]);
        let n = options.len().min(h.len() - fixed);
        h[fixed..fixed + n].copy_from_slice(&options[..n]);
        self.header = header;
        if let Some(mut tcp) = self.tcp_mut() {
            tcp.set_data_offset();
        }
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

    /// Replaces addresses, and ports of TCP, and repairs the checksums. An address of the other family is
    /// ignored.
    pub fn rewrite(&mut self, source: Option<SocketAddr>, destination: Option<SocketAddr>) {
        let Some(mut ip) = self.ip_mut() else { return };
        let source = source.filter(|new| ip.set_src(new.ip()));
        let destination = destination.filter(|new| ip.set_dst(new.ip()));
        if let Some(mut tcp) = self.tcp_mut() {
            if let Some(new) = source {
                tcp.set_src_port(new.port());
            }
            if let Some(new) = destination {
                tcp.set_dst_port(new.port());
            }
        }
        self.refresh_lengths();
        self.refresh_checksum();
    }

    /// Computes the checksum of a UDP datagram, which was left to a device: devices on the way know only TCP.
    fn complete_udp(&mut self) {
        const PROTOCOL_UDP: u8 = 17;
        const CHECKSUM: usize = 6;
        let Some(ip) = self.ip().filter(|ip| ip.protocol() == PROTOCOL_UDP && !ip.is_fragment()) else {
            return;
        };
        let mut datagram = self.payload.to_bytes().to_vec();
        let Some(field) = datagram.get_mut(CHECKSUM..CHECKSUM + 2) else { return };
        field.fill(0);
        let pseudo = checksum::pseudo_header(ip.src(), ip.dst(), PROTOCOL_UDP, datagram.len() as u32);
        // 0 would say that there is no checksum (RFC 768).
        let sum = Some(!checksum::fold(checksum::sum(&datagram, pseudo)))
            .filter(|sum| *sum != 0)
            .unwrap_or(u16::MAX);
        datagram[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
        self.payload = Payload::from(Bytes::from(datagram));
    }

    /// Computes the TCP checksum when that was left to a device.
    pub fn complete_checksum(&mut self) {
        if matches!(self.checksum, ChecksumRequest::Partial { .. }) {
            self.checksum = ChecksumRequest::Complete;
            self.refresh_checksum();
        }
    }

    /// Whether the checksums in the packet are right; a TCP checksum that is yet to be completed counts as
    /// right.
    pub fn checksum_ok(&self) -> bool {
        let Some(ip) = self.ip() else { return true };
        if !ip.checksum_ok() {
            return false;
        }
        match (self.checksum, self.tcp_offset()) {
            (ChecksumRequest::Partial { .. }, _) | (_, None) => true,
            (ChecksumRequest::Complete, Some(at)) => {
                let tcp = &self.header()[at..];
                let len = (tcp.len() + self.payload.len()) as u32;
                let pseudo = checksum::pseudo_header(ip.src(), ip.dst(), PROTOCOL_TCP, len);
                let sum = checksum::add(checksum::sum(tcp, pseudo), self.payload_sum());
                checksum::fold(sum) == 0xffff
            }
        }
    }

    fn payload_sum(&self) -> u64 {
        checksum::sum_slices(self.payload.slices().iter().map(|s| &s[..]), 0)
    }

    /// Makes the checksum agree with the packet, in the form it has (complete or partial).
    fn refresh_checksum(&mut self) {
        let Some((at, src, dst)) = self.transport() else { return };
        match self.checksum {
            ChecksumRequest::Partial { .. } => self.make_partial(),
            ChecksumRequest::Complete => {
                let (sum, len) = (self.payload_sum(), self.payload.len());
                if let Some(mut tcp) = self.tcp_mut() {
                    tcp.set_checksum(0);
                }
                complete_checksum(&mut self.header.as_mut_slice()[at..], src, dst, sum, len);
            }
        }
    }

    /// Where the TCP header starts, and the addresses.
    fn transport(&self) -> Option<(usize, IpAddr, IpAddr)> {
        Some((self.tcp_offset()?, self.source()?, self.destination()?))
    }

    /// Puts the pseudo-header's sum where the checksum belongs.
    fn make_partial(&mut self) {
        let Some((at, src, dst)) = self.transport() else { return };
        partial_checksum(&mut self.header.as_mut_slice()[at..], src, dst, self.payload.len());
        self.checksum = ChecksumRequest::Partial { start: at as u16, offset: CHECKSUM_OFFSET as u16 };
    }

    /// Makes the IP header's length and checksum agree with the packet.
    fn refresh_lengths(&mut self) {
        let total = self.len();
        if let Some(mut ip) = self.ip_mut() {
            ip.set_total_len(total);
        }
    }

    /// Cuts a segment into the packets it stands for and hands them to `each` in order, as a NIC does (TSO).
    ///
    /// Every packet carries the segment's options; sequence numbers and IPv4 identifications advance, FIN and
    /// PSH stay on the last packet only, CWR on the first (RFC 3168 §6.1.2: once per reduction). Lengths and
    /// checksums are right.
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
        let (seq, flags) = self.tcp().map_or_else(Default::default, |tcp| (tcp.seq(), tcp.flags()));
        let ident = self.ip().map_or(0, |ip| ip.ident());
        let mut start = 0;
        let mut index = 0u16;
        while start < self.payload.len() {
            let end = (start + size).min(self.payload.len());
            let (first, last) = (start == 0, end == self.payload.len());
            let mut part = Packet {
                header: self.header.clone(),
                payload: self.payload.slice(start..end),
                gso_size: None,
                ..self
            };
            if let Some(mut tcp) = part.tcp_mut() {
                tcp.set_seq(seq.wrapping_add(start as u32));
                tcp.set_flags(TcpFlags {
                    fin: flags.fin && last,
                    psh: flags.psh && last,
                    cwr: flags.cwr && first,
                    ..flags
                });
            }
            if let Some(mut ip) = part.ip_mut() {
                ip.set_ident(ident.wrapping_add(index));
            }
            part.refresh_lengths();
            part.refresh_checksum();
            each(part);
            start = end;
            index = index.wrapping_add(1);
        }
    }

    /// Appends `next` to this packet when a receiving device could (GRO): the next bytes of the same flow
    /// with the same header and options, no packet shorter than the first but the last. Returns `next` when
    /// it does not fit.
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
        let (Some(flags), Some(last)) = (self.tcp().map(|t| t.flags()), next.tcp().map(|t| t.flags())) else {
            return Some(next);
        };
        self.gso_size = Some(size);
        for s in next.payload.slices() {
            self.payload.push(s.clone());
        }
        if let Some(mut tcp) = self.tcp_mut() {
            tcp.set_flags(TcpFlags { fin: flags.fin || last.fin, psh: flags.psh || last.psh, ..flags });
        }
        self.refresh_lengths();
        self.make_partial();
        None
    }

    /// Whether both are TCP packets with the same addresses and ports.
    pub(crate) fn same_flow(&self, other: &Packet) -> bool {
        self.kind == other.kind
            && self.is_tcp()
            && self.tcp_source() == other.tcp_source()
            && self.tcp_destination() == other.tcp_destination()
    }

    fn mergeable(&self, next: &Packet) -> bool {
        let (Some(a), Some(b)) = (self.tcp(), next.tcp()) else { return false };
        let size = self.gso_size.map_or(self.payload.len(), |s| usize::from(s.get()));
        let len = next.payload.len();
        let (mine, theirs) = (a.flags(), b.flags());
        let plain = |f: TcpFlags| !(f.syn || f.rst || f.urg);
        next.gso_size.is_none()
            && len > 0
            && size > 0
            && len <= size
            && self.payload.len().is_multiple_of(size)
            && self.len() + len <= 65_535
            && b.seq() == a.seq().wrapping_add(self.payload.len() as u32)
            && plain(mine)
            && plain(theirs)
            // Both end a segment, and CWR begins one.
            && !(mine.fin || mine.psh || theirs.cwr)
            && (mine.ack, mine.ece) == (theirs.ack, theirs.ece)
            && self.kind == next.kind
            && self.template().as_slice() == next.template().as_slice()
    }

    /// The headers without what may differ between packets of one segment.
    fn template(&self) -> HeaderBuf {
        let mut bare = Packet { header: self.header.clone(), payload: Payload::new(), ..*self };
        if let Some(mut ip) = bare.ip_mut() {
            ip.set_total_len(0);
            ip.set_ident(0);
        }
        if let Some(mut tcp) = bare.tcp_mut() {
            tcp.set_seq(SeqNumber(0));
            tcp.set_flags(TcpFlags::default());
            tcp.set_checksum(0);
        }
        bare.header
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&PacketSummary { header: self.header(), payload_len: self.payload.len() }, f)
    }
}

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;

//! Packets as a peer makes them: any header, any options, well-formed or not; and those of the stack, taken
//! apart.

use bytes::Bytes;
use std::net::SocketAddr;
use umptcp_stack_core::device::{ChecksumState, RxPacket, Transmit};
use umptcp_stack_core::wire::checksum;
use umptcp_stack_core::wire::ip::{IpHeader, emit_ip_header, ip_header_len};
use umptcp_stack_core::wire::mptcp::{Dss, MpCapable, MpJoin, MptcpOption};
use umptcp_stack_core::wire::tcp::{MAX_HEADER, MAX_OPTIONS, TcpOptions, TcpRepr, Timestamps};

/// FIN, SYN, RST and ACK in octet 13 of a TCP header.
pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// One segment to be built.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its source.
    pub from: SocketAddr,
    /// Its destination.
    pub to: SocketAddr,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Octet 13 of the header.
    pub flags: u8,
    /// Window field.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// The option bytes, at most 40; padded when the packet is made.
    pub options: Vec<u8>,
    /// The payload, cut to what an IP packet holds.
    pub payload: Vec<u8>,
}

impl Segment {
    /// A well-formed one; its ports are `header`'s.
    pub fn of(from: SocketAddr, to: SocketAddr, header: &TcpRepr, payload: &[u8]) -> Segment {
        let mut bytes = [0; MAX_HEADER];
        let len = header.header_len();
        header.emit(&mut bytes);
        Segment {
            from: SocketAddr::new(from.ip(), header.src_port),
            to: SocketAddr::new(to.ip(), header.dst_port),
            seq: header.seq.0,
            ack: header.ack.0,
            flags: bytes[13],
            window: header.window,
            urgent: header.urgent,
            options: bytes[20..len].to_vec(),
            payload: payload.to_vec(),
        }
    }

    /// The IP packet. The TCP checksum is left 0: packets are handed in as verified by the device.
    pub fn packet(&self) -> Bytes {
        let ip = ip_header_len(&self.to.ip());
        let options = self.options.len().min(MAX_OPTIONS).next_multiple_of(4);
        let payload = self.payload.len().min(65_535 - ip - 20 - options);
        let mut b = vec![0; ip + 20 + options + payload];
        let written = emit_ip_header(&mut b, self.from.ip(), self.to.ip(), 20 + options + payload, 0, 1);
        assert_eq!(written, Some(ip), "{} and {} are of different families", self.from, self.to);
        let t = &mut b[ip..];
        t[0..2].copy_from_slice(&self.from.port().to_be_bytes());
        t[2..4].copy_from_slice(&self.to.port().to_be_bytes());
        t[4..8].copy_from_slice(&self.seq.to_be_bytes());
        t[8..12].copy_from_slice(&self.ack.to_be_bytes());
        t[12] = (((20 + options) / 4) << 4) as u8;
        t[13] = self.flags;
        t[14..16].copy_from_slice(&self.window.to_be_bytes());
        t[18..20].copy_from_slice(&self.urgent.to_be_bytes());
        let n = self.options.len().min(options);
        t[20..20 + n].copy_from_slice(&self.options[..n]);
        t[20 + options..].copy_from_slice(&self.payload[..payload]);
        b.into()
    }

    /// The packet as the stack's device receives it, its checksum found right.
    pub fn received(&self) -> RxPacket {
        RxPacket::new(self.packet(), ChecksumState::Verified)
    }
}

/// The bytes of some options, as many as fit.
pub(crate) fn encode(mptcp: &[MptcpOption], timestamps: Option<Timestamps>) -> Vec<u8> {
    let mut options = TcpOptions { timestamps, ..TcpOptions::default() };
    options.mptcp.extend(mptcp.iter().cloned());
    let mut b = [0; MAX_OPTIONS];
    let n = options.emit(&mut b);
    b[..n].to_vec()
}

/// The options of a SYN or SYN/ACK.
pub(crate) fn encode_syn(
    mptcp: Option<MptcpOption>,
    mss: u16,
    window_scale: Option<u8>,
    sack: bool,
    cookie: Option<&[u8]>,
) -> Vec<u8> {
    let mut options =
        TcpOptions { mss: Some(mss), window_scale, sack_permitted: sack, ..TcpOptions::default() };
    options.fast_open = cookie.map(|c| c.iter().copied().collect());
    options.mptcp.extend(mptcp);
    let mut b = [0; MAX_OPTIONS];
    let n = options.emit(&mut b);
    b[..n].to_vec()
}

/// A packet that the stack sent, taken apart.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Its source.
    pub from: SocketAddr,
    /// Its destination.
    pub to: SocketAddr,
    /// The TCP header.
    pub seg: TcpRepr,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Sent {
    /// Takes a packet apart.
    ///
    /// # Panics
    /// When it is malformed: the stack never sends such a thing.
    pub fn parse(packet: &Transmit) -> Sent {
        Sent::parse_bytes(&packet.to_vec())
    }

    pub(crate) fn parse_bytes(packet: &[u8]) -> Sent {
        let ip = IpHeader::parse(packet).expect("the stack sends well-formed IP packets");
        assert_eq!(ip.total_len, packet.len(), "the IP header's length is the packet's");
        let segment = ip.payload(packet);
        let (seg, header) = TcpRepr::parse(segment).expect("the stack sends well-formed TCP segments");
        assert_eq!(seg.options.malformed, 0, "the stack sends well-formed options");
        Sent {
            from: SocketAddr::new(ip.src, seg.src_port),
            to: SocketAddr::new(ip.dst, seg.dst_port),
            payload: segment[header..].to_vec(),
            seg,
        }
    }

    fn option<T>(&self, wanted: impl Fn(&MptcpOption) -> Option<T>) -> Option<T> {
        self.seg.options.mptcp.iter().find_map(wanted)
    }

    /// The MP_CAPABLE it carries.
    pub fn capable(&self) -> Option<MpCapable> {
        self.option(|o| if let MptcpOption::Capable(c) = o { Some(*c) } else { None })
    }

    /// The MP_JOIN it carries.
    pub fn join(&self) -> Option<MpJoin> {
        self.option(|o| if let MptcpOption::Join(j) = o { Some(*j) } else { None })
    }

    /// The DSS it carries.
    pub fn dss(&self) -> Option<Dss> {
        self.option(|o| if let MptcpOption::Dss(d) = o { Some(*d) } else { None })
    }

    /// Reason and T flag of the MP_TCPRST it carries.
    pub fn reset(&self) -> Option<(u8, bool)> {
        self.option(|o| if let MptcpOption::Reset(r) = o { Some((r.reason, r.transient)) } else { None })
    }

    /// Whether one of its options is as `wanted` says.
    pub fn has(&self, wanted: impl Fn(&MptcpOption) -> bool) -> bool {
        self.seg.options.mptcp.iter().any(wanted)
    }
}

/// An ICMP or ICMPv6 error about `packet`, with right checksums.
pub fn icmp_error(reporter: std::net::IpAddr, packet: &[u8], kind: u8, code: u8, rest: u32) -> Bytes {
    let Ok(quoted) = IpHeader::parse(packet) else { return Bytes::new() };
    let quote = &packet[..packet.len().min(quoted.header_len + 40)];
    let ip = ip_header_len(&quoted.src);
    let reporter = if reporter.is_ipv4() == quoted.src.is_ipv4() { reporter } else { quoted.dst };
    let protocol = if quoted.src.is_ipv4() { 1 } else { 58 };
    let mut b = vec![0; ip + 8 + quote.len()];
    let len = 8 + quote.len();
    umptcp_stack_core::wire::ip::emit_ip_header_for(&mut b, (reporter, quoted.src), protocol, len, 0, 1)
        .expect("the reporter has the family of the packet");
    b[ip] = kind;
    b[ip + 1] = code;
    b[ip + 4..ip + 8].copy_from_slice(&rest.to_be_bytes());
    b[ip + 8..].copy_from_slice(quote);
    let pseudo = match protocol {
        1 => 0,
        _ => checksum::pseudo_header(reporter, quoted.src, 58, len as u32),
    };
    let sum = !checksum::fold(checksum::sum(&b[ip..], pseudo));
    b[ip + 2..ip + 4].copy_from_slice(&sum.to_be_bytes());
    b.into()
}

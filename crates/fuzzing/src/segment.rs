//! Packets as the peer makes them: any header, any options, well-formed or not.

use bytes::Bytes;
use std::net::SocketAddr;
use umptcp_stack_core::wire::checksum;
use umptcp_stack_core::wire::ip::{IpHeader, emit_ip_header, ip_header_len};
use umptcp_stack_core::wire::mptcp::MptcpOption;
use umptcp_stack_core::wire::tcp::{MAX_OPTIONS, TcpOptions, TcpRepr, Timestamps};

/// FIN, SYN, RST and ACK in octet 13 of a TCP header.
pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// One segment to be built.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    /// The option bytes, at most 40; padded when the packet is made.
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Segment {
    /// The IP packet. The TCP checksum is left 0: packets are handed in as verified by the device.
    pub(crate) fn packet(&self) -> Bytes {
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
        let n = self.options.len().min(options);
        t[20..20 + n].copy_from_slice(&self.options[..n]);
        t[20 + options..].copy_from_slice(&self.payload[..payload]);
        b.into()
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
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) repr: TcpRepr,
    pub(crate) payload: Vec<u8>,
}

impl Sent {
    /// # Panics
    /// When the packet is malformed or its checksums are wrong: the stack never sends such a thing.
    pub(crate) fn parse(packet: &[u8]) -> Sent {
        let ip = IpHeader::parse(packet).expect("the stack sends well-formed IP packets");
        assert_eq!(ip.total_len, packet.len(), "the IP header's length is the packet's");
        let segment = ip.payload(packet);
        let (repr, header) = TcpRepr::parse(segment).expect("the stack sends well-formed TCP segments");
        assert_eq!(repr.options.malformed, 0, "the stack sends well-formed options");
        Sent {
            from: SocketAddr::new(ip.src, repr.src_port),
            to: SocketAddr::new(ip.dst, repr.dst_port),
            payload: segment[header..].to_vec(),
            repr,
        }
    }
}

/// An ICMP or ICMPv6 error about `packet`, with right checksums.
pub(crate) fn icmp_error(reporter: std::net::IpAddr, packet: &[u8], kind: u8, code: u8, rest: u32) -> Bytes {
    let Ok(quoted) = IpHeader::parse(packet) else { return Bytes::new() };
    let quote = &packet[..packet.len().min(quoted.header_len + 40)];
    let ip = ip_header_len(&quoted.src);
    let reporter = if reporter.is_ipv4() == quoted.src.is_ipv4() { reporter } else { quoted.dst };
    let protocol = if quoted.src.is_ipv4() { 1 } else { 58 };
    let mut b = vec![0; ip + 8 + quote.len()];
    let len = 8 + quote.len();
    umptcp_stack_core::wire::ip::emit_ip_header_for(&mut b, reporter, quoted.src, protocol, len, 0, 1)
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

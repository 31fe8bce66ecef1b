//! Packets of other protocols than TCP: what flow they belong to, and another address in them.
//!
//! Addresses are exchanged one for one, ports stay. Checksums are completed for whole packets, since a device
//! may have left them to us, and adjusted for fragments (RFC 1624).

use std::net::{IpAddr, SocketAddr};
use umptcp_stack_core::wire::checksum;
use umptcp_stack_core::wire::ip::{IpHeader, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP};

const PROTOCOL_UDP: u8 = 17;

/// What ICMP and ICMPv6 errors have before the packet that they quote.
const ICMP_HEADER: usize = 8;

/// Which of a packet's addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    Source,
    Destination,
}

impl End {
    fn other(self) -> End {
        match self {
            End::Source => End::Destination,
            End::Destination => End::Source,
        }
    }

    /// Where it is in a header.
    fn range(self, v6: bool) -> std::ops::Range<usize> {
        match (self, v6) {
            (End::Source, false) => 12..16,
            (End::Destination, false) => 16..20,
            (End::Source, true) => 8..24,
            (End::Destination, true) => 24..40,
        }
    }
}

/// What packets of one conversation have in common, whichever way they go. Of a protocol without ports, the
/// identifier of echo requests, or 0, stands for both.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Flow {
    protocol: u8,
    port: u16,
    remote: SocketAddr,
}

impl Flow {
    /// Where a datagram with this header wants to go. `None`: it is none, or has no port in this fragment.
    pub(super) fn datagram_to(&self, header: &IpHeader) -> Option<u16> {
        (header.protocol == PROTOCOL_UDP && !header.fragment).then(|| self.remote.port())
    }
}

/// Whether a packet says in its first header that it is TCP, without a look at anything else.
pub(super) fn is_plain_tcp(packet: &[u8]) -> bool {
    protocol(packet) == Some(PROTOCOL_TCP)
}

/// Whether a packet is none of the stack's: neither TCP nor an error about TCP.
pub(super) fn is_other(header: &IpHeader, packet: &[u8]) -> bool {
    if header.protocol == PROTOCOL_TCP {
        return false;
    }
    match quoted(header, packet).map(|q| protocol(&packet[q.start..])) {
        Some(protocol) => protocol != Some(PROTOCOL_TCP),
        None => true,
    }
}

/// The packet that an ICMP error quotes.
fn quoted(header: &IpHeader, packet: &[u8]) -> Option<std::ops::Range<usize>> {
    let icmp_type = *packet.get(header.header_len)?;
    let is_error = match header.protocol {
        PROTOCOL_ICMP => matches!(icmp_type, 3 | 4 | 5 | 11 | 12),
        PROTOCOL_ICMPV6 => icmp_type < 128,
        _ => false,
    };
    let start = header.header_len + ICMP_HEADER;
    let least = if header.src.is_ipv4() { 20 } else { 40 };
    let fits = !header.fragment && is_error && start + least <= header.total_len;
    // An error of one family quotes a packet of the same.
    let same = packet.get(start)? >> 4 == packet.first()? >> 4;
    (fits && same).then_some(start..header.total_len)
}

/// The protocol that a header names, whose extension headers are not looked through.
fn protocol(packet: &[u8]) -> Option<u8> {
    match packet.first()? >> 4 {
        4 => packet.get(9).copied(),
        _ => packet.get(6).copied(),
    }
}

/// The flow of a packet, of which `near` is the end on our side.
pub(super) fn flow(header: &IpHeader, packet: &[u8], near: End) -> Flow {
    if let Some(q) = quoted(header, packet) {
        // The quoted packet went the other way.
        return quoted_flow(&packet[q], near.other());
    }
    let remote = match near {
        End::Source => header.dst,
        End::Destination => header.src,
    };
    // Other fragments than the first have no ports: they go by the addresses alone.
    let (near_port, far_port) = match (header.protocol, header.fragment) {
        (PROTOCOL_UDP, false) => ports(packet, header.header_len, near),
        (PROTOCOL_ICMP | PROTOCOL_ICMPV6, false) => (word(packet, header.header_len + 4), 0),
        _ => (0, 0),
    };
    Flow { protocol: header.protocol, port: near_port, remote: SocketAddr::new(remote, far_port) }
}

fn quoted_flow(packet: &[u8], near: End) -> Flow {
    let v6 = packet[0] >> 4 == 6;
    let header_len = if v6 { 40 } else { usize::from(packet[0] & 0xf) * 4 };
    let protocol = protocol(packet).unwrap_or(0);
    let remote = address(packet, near.other(), v6);
    let (port, far) = match protocol {
        PROTOCOL_UDP => ports(packet, header_len, near),
        PROTOCOL_ICMP | PROTOCOL_ICMPV6 => (word(packet, header_len + 4), 0),
        _ => (0, 0),
    };
    Flow { protocol, port, remote: SocketAddr::new(remote, far) }
}

/// Ports of the near and the far end.
fn ports(packet: &[u8], at: usize, near: End) -> (u16, u16) {
    let (source, destination) = (word(packet, at), word(packet, at + 2));
    if near == End::Source { (source, destination) } else { (destination, source) }
}

fn word(packet: &[u8], at: usize) -> u16 {
    packet.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
}

fn address(packet: &[u8], end: End, v6: bool) -> IpAddr {
    let bytes = &packet[end.range(v6)];
    if v6 {
        <[u8; 16]>::try_from(bytes).map_or(IpAddr::from([0; 16]), IpAddr::from)
    } else {
        <[u8; 4]>::try_from(bytes).map_or(IpAddr::from([0; 4]), IpAddr::from)
    }
}

/// The packet with `new` in the place of one of the addresses; see [`readdress`].
pub(super) fn readdressed(header: &IpHeader, packet: &[u8], end: End, new: IpAddr) -> Option<Vec<u8>> {
    let mut packet = packet.get(..header.total_len)?.to_vec();
    readdress(header, &mut packet, end, new).then_some(packet)
}

/// Makes `new` the source of an ICMP error, and of nothing that it quotes. False: it is none, or `new` is of the other
/// family.
pub(super) fn come_from(packet: &mut [u8], new: IpAddr) -> bool {
    let Ok(header) = IpHeader::parse(packet) else { return false };
    let v6 = header.src.is_ipv6();
    if quoted(&header, packet).is_none() || new.is_ipv6() != v6 {
        return false;
    }
    put(packet, End::Source, new);
    if !v6 {
        // The checksum of ICMP is without the addresses.
        sum_v4_header(packet);
        return true;
    }
    let body = header.header_len..header.total_len;
    let initial = checksum::pseudo_header(new, header.dst, header.protocol, body.len() as u32);
    let Some(body) = packet.get_mut(body).filter(|b| b.len() >= 4) else { return false };
    body[2..4].fill(0);
    let sum = !checksum::fold(checksum::sum(body, initial));
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    true
}

/// Puts `new` in the place of one of the addresses, also in what an ICMP error quotes, where the packet went
/// the other way. The host that forwards the packet takes one hop, which this gives back, so that a route
/// looks as it would without us. False: `new` is of the other family.
fn readdress(header: &IpHeader, packet: &mut [u8], end: End, new: IpAddr) -> bool {
    let v6 = header.src.is_ipv6();
    if new.is_ipv6() != v6 {
        return false;
    }
    let old = if end == End::Source { header.src } else { header.dst };
    put(packet, end, new);
    let hops = if v6 { 7 } else { 8 };
    packet[hops] = packet[hops].saturating_add(1);
    if !v6 {
        sum_v4_header(packet);
    }
    let (src, dst) = if end == End::Source { (new, header.dst) } else { (header.src, new) };
    let quoted = quoted(header, packet);
    if let Some(q) = &quoted {
        let inner = &mut packet[q.clone()];
        put(inner, end.other(), new);
        if !v6 && inner.len() >= usize::from(inner[0] & 0xf) * 4 {
            sum_v4_header(inner);
        }
    }
    let body = header.header_len..header.total_len;
    let length = body.len() as u32;
    let field = match header.protocol {
        PROTOCOL_UDP => 6,
        PROTOCOL_ICMP | PROTOCOL_ICMPV6 => 2,
        _ => return true,
    };
    let has_pseudo_header = header.protocol != PROTOCOL_ICMP;
    let Some(body) = packet.get_mut(body).filter(|b| b.len() >= field + 2) else { return true };
    if !header.fragment {
        // RFC 768: 0 says that there is none, which IPv6 does not allow.
        if header.protocol == PROTOCOL_UDP && !v6 && body[field..field + 2] == [0, 0] {
            return true;
        }
        body[field..field + 2].fill(0);
        let initial =
            if has_pseudo_header { checksum::pseudo_header(src, dst, header.protocol, length) } else { 0 };
        let sum = !checksum::fold(checksum::sum(body, initial));
        let none = header.protocol == PROTOCOL_UDP && sum == 0;
        body[field..field + 2].copy_from_slice(&if none { 0xffff } else { sum }.to_be_bytes());
    } else if has_pseudo_header && is_first_fragment(packet, v6) {
        let at = header.header_len + field;
        let before = word(packet, at);
        if before != 0 {
            packet[at..at + 2].copy_from_slice(&adjusted(before, old, new).to_be_bytes());
        }
    }
    true
}

fn put(packet: &mut [u8], end: End, new: IpAddr) {
    match new {
        IpAddr::V4(a) => packet[end.range(false)].copy_from_slice(&a.octets()),
        IpAddr::V6(a) => packet[end.range(true)].copy_from_slice(&a.octets()),
    }
}

fn sum_v4_header(packet: &mut [u8]) {
    let length = (usize::from(packet[0] & 0xf) * 4).clamp(20, packet.len());
    packet[10..12].fill(0);
    let sum = !checksum::fold(checksum::sum(&packet[..length], 0));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn is_first_fragment(packet: &[u8], v6: bool) -> bool {
    // Only a fragment header that follows at once is looked at.
    if v6 { packet.get(6) == Some(&44) && word(packet, 42) & !7 == 0 } else { word(packet, 6) & 0x1fff == 0 }
}

/// RFC 1624 §3: HC' = ~(~HC + ~m + m').
fn adjusted(before: u16, old: IpAddr, new: IpAddr) -> u16 {
    let of = |a: IpAddr| u64::from(checksum::fold(checksum::pseudo_header(a, zero(a), 0, 0)));
    let sum = u64::from(!before) + (0xffff - of(old)) + of(new);
    match !checksum::fold(sum) {
        0 => 0xffff,
        sum => sum,
    }
}

fn zero(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use umptcp_stack_core::wire::ip::emit_ip_header_for;

    const INSIDE: [&str; 2] = ["192.0.2.7", "2001:db8::7"];
    const OUTSIDE: [&str; 2] = ["100.64.3.1", "fd00::3:1"];
    const REMOTE: [&str; 2] = ["198.51.100.9", "2001:db8:9::9"];

    fn at(list: [&str; 2], v6: bool) -> IpAddr {
        list[usize::from(v6)].parse().unwrap()
    }

    fn whole(src: IpAddr, dst: IpAddr, protocol: u8, body: &[u8]) -> Vec<u8> {
        let header = if src.is_ipv4() { 20 } else { 40 };
        let mut packet = vec![0; header];
        emit_ip_header_for(&mut packet, (src, dst), protocol, body.len(), 0, 1).unwrap();
        packet.extend(body);
        let field = if protocol == PROTOCOL_UDP { 6 } else { 2 };
        let initial = if protocol == PROTOCOL_ICMP {
            0
        } else {
            checksum::pseudo_header(src, dst, protocol, body.len() as u32)
        };
        let sum = !checksum::fold(checksum::sum(&packet[header..], initial));
        packet[header + field..header + field + 2].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    fn udp(src: IpAddr, dst: IpAddr, ports: [u16; 2]) -> Vec<u8> {
        let mut body = Vec::new();
        for word in [ports[0], ports[1], 13, 0] {
            body.extend(word.to_be_bytes());
        }
        body.extend(b"hello");
        whole(src, dst, PROTOCOL_UDP, &body)
    }

    fn moved(packet: &[u8], end: End, new: IpAddr) -> Vec<u8> {
        let mut packet = packet.to_vec();
        let header = IpHeader::parse(&packet).unwrap();
        assert!(readdress(&header, &mut packet, end, new));
        IpHeader::parse(&packet).expect("a right header");
        packet
    }

    /// As the packet would be if it had been made with the new address, but for the hop.
    #[test]
    fn what_is_readdressed_is_as_if_made_so() {
        for v6 in [false, true] {
            let [inside, outside, remote] = [INSIDE, OUTSIDE, REMOTE].map(|list| at(list, v6));
            let mut expected = udp(outside, remote, [4000, 53]);
            let hops = if v6 { 7 } else { 8 };
            expected[hops] += 1;
            if !v6 {
                sum_v4_header(&mut expected);
            }
            let packet = udp(inside, remote, [4000, 53]);
            assert_eq!(moved(&packet, End::Source, outside), expected);
            // A device may leave the sum to us: then the field holds anything.
            let mut partial = packet;
            let field = if v6 { 46 } else { 26 };
            partial[field..field + 2].copy_from_slice(&[0x12, 0x34]);
            assert_eq!(moved(&partial, End::Source, outside), expected);
        }
    }

    #[test]
    fn an_answer_and_an_error_belong_to_the_flow_of_the_question() {
        for v6 in [false, true] {
            let [inside, outside, remote] = [INSIDE, OUTSIDE, REMOTE].map(|list| at(list, v6));
            let flow_of = |packet: &[u8], near| flow(&IpHeader::parse(packet).unwrap(), packet, near);
            let question = udp(inside, remote, [4000, 53]);
            let sent = moved(&question, End::Source, outside);
            assert_eq!(flow_of(&question, End::Source), flow_of(&sent, End::Source));
            let answer = udp(remote, outside, [53, 4000]);
            assert_eq!(flow_of(&answer, End::Destination), flow_of(&question, End::Source));
            // Port unreachable, which quotes what was sent.
            let mut body = if v6 { vec![1, 4] } else { vec![3, 3] };
            body.extend([0; 6]);
            body.extend(&sent);
            let protocol = if v6 { PROTOCOL_ICMPV6 } else { PROTOCOL_ICMP };
            let error = whole(remote, outside, protocol, &body);
            assert_eq!(flow_of(&error, End::Destination), flow_of(&question, End::Source));
            assert!(is_other(&IpHeader::parse(&error).unwrap(), &error));
            // What it quotes is the program's own packet again.
            let inward = moved(&error, End::Destination, inside);
            let header = IpHeader::parse(&inward).unwrap();
            assert_eq!(header.dst, inside);
            let q = quoted(&header, &inward).unwrap();
            assert_eq!(address(&inward[q], End::Source, v6), inside);
            let body = &inward[header.header_len..];
            let initial =
                if v6 { checksum::pseudo_header(remote, inside, protocol, body.len() as u32) } else { 0 };
            assert_eq!(checksum::fold(checksum::sum(body, initial)), 0xffff, "a right checksum");
            // The same from another address: nothing else changes.
            let mut other = inward.clone();
            assert!(come_from(&mut other, outside));
            let after = IpHeader::parse(&other).unwrap();
            assert_eq!((after.src, after.dst), (outside, inside));
            assert_eq!(other[quoted(&after, &other).unwrap()], inward[quoted(&header, &inward).unwrap()]);
            let body = &other[after.header_len..];
            let initial =
                if v6 { checksum::pseudo_header(outside, inside, protocol, body.len() as u32) } else { 0 };
            assert_eq!(checksum::fold(checksum::sum(body, initial)), 0xffff, "a right checksum");
            assert!(!come_from(&mut question.clone(), outside), "no error");
        }
    }

    #[test]
    fn errors_about_tcp_are_the_stacks() {
        let [outside, remote] = [OUTSIDE, REMOTE].map(|list| at(list, false));
        let mut body = vec![3, 1, 0, 0, 0, 0, 0, 0];
        body.extend(whole(outside, remote, PROTOCOL_TCP, &[0; 20]));
        let error = whole(remote, outside, PROTOCOL_ICMP, &body);
        assert!(!is_other(&IpHeader::parse(&error).unwrap(), &error));
        let echo = whole(remote, outside, PROTOCOL_ICMP, &[0, 0, 0, 0, 0, 7, 0, 1]);
        assert!(is_other(&IpHeader::parse(&echo).unwrap(), &echo));
    }

    #[test]
    fn a_first_fragments_sum_is_adjusted() {
        let [inside, outside, remote] = [INSIDE, OUTSIDE, REMOTE].map(|list| at(list, false));
        let mut fragment = udp(inside, remote, [4000, 53]);
        fragment[6..8].copy_from_slice(&0x2000_u16.to_be_bytes());
        sum_v4_header(&mut fragment);
        let sent = moved(&fragment, End::Source, outside);
        let whole = udp(outside, remote, [4000, 53]);
        assert_eq!(sent[26..28], whole[26..28]);
    }

    #[test]
    fn nothing_short_or_strange_panics() {
        for v6 in [false, true] {
            let [outside, remote] = [OUTSIDE, REMOTE].map(|list| at(list, v6));
            for (icmp_type, protocol) in
                [(3, PROTOCOL_ICMP), (1, PROTOCOL_ICMPV6), (0, PROTOCOL_UDP), (0, 47)]
            {
                for length in 0..70 {
                    let mut body = vec![icmp_type; length];
                    if length > 8 {
                        body[8] = if v6 { 0x60 } else { 0x4f };
                    }
                    let header = if v6 { 40 } else { 20 };
                    let mut packet = vec![0; header];
                    emit_ip_header_for(&mut packet, (remote, outside), protocol, length, 0, 1).unwrap();
                    packet.extend(body);
                    let Ok(header) = IpHeader::parse(&packet) else { continue };
                    if is_other(&header, &packet) {
                        flow(&header, &packet, End::Destination);
                        readdress(&header, &mut packet, End::Destination, at(INSIDE, v6));
                    }
                }
            }
        }
    }
}

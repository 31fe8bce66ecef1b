//! IP packets, as the stack has them, from and for datagrams, which have none.

use crate::codec::{self, Ports, UDP_HEADER};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use umptcp_stack_core::types::SeqNumber;
use umptcp_stack_core::wire::checksum;
use umptcp_stack_core::wire::icmp::{self, Unreachable};
use umptcp_stack_core::wire::ip;

/// Longest IP packet.
const LONGEST: usize = 65_535;

/// Between which sockets a packet of the stack is to go, and where its TCP header begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Outgoing {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) sequence: u32,
    pub(crate) tcp_at: usize,
}

/// Reads the headers of a packet of the stack. `None`: it is not TCP.
pub(crate) fn read(header: &[u8]) -> Option<Outgoing> {
    let (source, destination, protocol, tcp_at): (IpAddr, IpAddr, u8, usize) = match header.first()? >> 4 {
        4 => {
            let tcp_at = usize::from(header[0] & 15) * 4;
            let address = |at: usize| header.get(at..at + 4).and_then(|b| b.first_chunk::<4>());
            let [source, destination] = [address(12)?, address(16)?].map(|a| Ipv4Addr::from(*a).into());
            (source, destination, *header.get(9)?, tcp_at)
        }
        6 => {
            let address = |at: usize| header.get(at..at + 16).and_then(|b| b.first_chunk::<16>());
            let [source, destination] = [address(8)?, address(24)?].map(|a| Ipv6Addr::from(*a).into());
            (source, destination, *header.get(6)?, ip::IPV6_HEADER)
        }
        _ => return None,
    };
    let tcp: &[u8; 8] = header.get(tcp_at..)?.first_chunk()?;
    let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    (protocol == ip::PROTOCOL_TCP).then(|| Outgoing {
        local: SocketAddr::new(source, port(0)),
        remote: SocketAddr::new(destination, port(2)),
        sequence: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
        tcp_at,
    })
}

/// Where in a buffer the body of a datagram to `local` is to be received, so that there is room for the
/// headers before it.
pub(crate) fn body_at(local: &SocketAddr) -> usize {
    ip::ip_header_len(&local.ip()) + UDP_HEADER
}

/// Writes the headers before a body that was received at [`body_at`]; `packet` ends with it. False: it is no
/// TCP segment, and nothing was written.
pub(crate) fn complete(packet: &mut [u8], remote: SocketAddr, local: SocketAddr) -> bool {
    let tcp_at = ip::ip_header_len(&local.ip());
    if packet.len() > LONGEST || packet.len() < tcp_at || remote.is_ipv4() != local.is_ipv4() {
        return false;
    }
    let (header, segment) = packet.split_at_mut(tcp_at);
    let ports = Ports { source: remote.port(), destination: local.port() };
    if codec::decode(segment, ports).is_err() {
        return false;
    }
    ip::emit_ip_header(header, remote.ip(), local.ip(), segment.len(), 0, 0).is_some()
}

#[cfg_attr(any(not(target_os = "linux"), umptcp_portable), allow(dead_code, reason = "nothing tells of it"))]
/// Completes the checksum of the IPv4 header that `packet` begins with, which has no options.
pub(crate) fn sum_v4_header(packet: &mut [u8]) {
    let Some(header) = packet.first_chunk_mut::<{ ip::IPV4_HEADER }>() else { return };
    header[10..12].fill(0);
    let sum = !checksum::fold(checksum::sum(header, 0));
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// What a router would answer to a segment that cannot be delivered.
pub(crate) fn undelivered(segment: &Outgoing, why: Unreachable) -> Option<Vec<u8>> {
    let Outgoing { local, remote, sequence, .. } = *segment;
    wrap(local.ip(), remote.ip(), &why.message(local, remote, SeqNumber(sequence))?)
}

#[cfg_attr(any(not(target_os = "linux"), umptcp_portable), allow(dead_code, reason = "nothing tells of it"))]
/// What a router would answer whose next link takes packets up to `mtu` bytes only.
pub(crate) fn too_big(segment: &Outgoing, mtu: u32) -> Option<Vec<u8>> {
    let Outgoing { local, remote, sequence, .. } = *segment;
    wrap(
        local.ip(),
        remote.ip(),
        &icmp::too_big_message(local, remote, SeqNumber(sequence), mtu.min(LONGEST as u32))?,
    )
}

/// An ICMP message to `local` as a packet, which `remote` seems to send.
pub(crate) fn wrap(local: IpAddr, remote: IpAddr, message: &[u8]) -> Option<Vec<u8>> {
    let protocol = if local.is_ipv4() { ip::PROTOCOL_ICMP } else { ip::PROTOCOL_ICMPV6 };
    let mut packet = vec![0; ip::ip_header_len(&local)];
    ip::emit_ip_header_for(&mut packet, (remote, local), protocol, message.len(), 0, 0)?;
    packet.extend(message);
    Some(packet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::BodyHeader;
    use umptcp_stack_core::wire::icmp::{IcmpCause, IcmpError};
    use umptcp_stack_core::wire::ip::IpHeader;

    fn ends(v6: bool) -> (SocketAddr, SocketAddr) {
        let [local, remote] =
            if v6 { ["[2001:db8::1]:9", "[2001:db8::2]:80"] } else { ["192.0.2.1:9", "192.0.2.2:80"] };
        (local.parse().unwrap(), remote.parse().unwrap())
    }

    /// IP and TCP header of a segment from `local` to `remote`.
    fn header(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
        let mut packet = vec![0; ip::ip_header_len(&local.ip())];
        ip::emit_ip_header(&mut packet, local.ip(), remote.ip(), 20, 0, 7).unwrap();
        packet.extend(local.port().to_be_bytes());
        packet.extend(remote.port().to_be_bytes());
        packet.extend([1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x10, 0x20, 0x30, 0, 0, 0, 0]);
        packet
    }

    #[test]
    fn what_the_stack_sends_is_what_the_other_stack_gets() {
        for v6 in [false, true] {
            let (local, remote) = ends(v6);
            let packet = header(local, remote);
            let outgoing = read(&packet).unwrap();
            assert_eq!((outgoing.local, outgoing.remote, outgoing.sequence), (local, remote, 0x0102_0304));
            let (_, body) = BodyHeader::of_segment(&packet[outgoing.tcp_at..]).unwrap();
            let mut received = vec![0xff; body_at(&remote)];
            received.extend_from_slice(body.as_slice());
            received.extend_from_slice(b"payload");
            assert!(complete(&mut received, local, remote));
            let parsed = IpHeader::parse(&received).unwrap();
            assert_eq!((parsed.src, parsed.dst, parsed.total_len), (local.ip(), remote.ip(), received.len()));
            assert_eq!(parsed.payload(&received)[..20], packet[outgoing.tcp_at..]);
            assert!(received.ends_with(b"payload"));
        }
    }

    #[test]
    fn nothing_else_is_read_or_completed() {
        let (local, remote) = ends(false);
        let mut packet = header(local, remote);
        packet[9] = 17;
        assert_eq!(read(&packet), None, "UDP");
        for end in 0..28 {
            assert_eq!(read(&header(local, remote)[..end]), None, "{end} bytes");
        }
        let mut short = vec![0; body_at(&local) + 11];
        assert!(!complete(&mut short, remote, local));
        assert!(!complete(&mut [0; 10], remote, local));
        let mut long = vec![0; LONGEST + 1];
        long[body_at(&local)] = 0x50;
        assert!(!complete(&mut long, remote, local));
        assert!(!complete(&mut long[..200], ends(true).1, local), "two families");
    }

    #[test]
    fn the_stack_reads_why_a_segment_was_not_delivered() {
        for v6 in [false, true] {
            let (local, remote) = ends(v6);
            let outgoing = read(&header(local, remote)).unwrap();
            let packet = undelivered(&outgoing, Unreachable::Port).unwrap();
            let error = IcmpError::parse(&IpHeader::parse(&packet).unwrap(), &packet).unwrap();
            assert_eq!((error.src, error.dst, error.seq), (local, remote, SeqNumber(0x0102_0304)));
            assert_eq!(error.cause, IcmpCause::PortUnreachable);
            let packet = too_big(&outgoing, 1400).unwrap();
            let error = IcmpError::parse(&IpHeader::parse(&packet).unwrap(), &packet).unwrap();
            assert_eq!((error.src, error.dst, error.seq), (local, remote, SeqNumber(0x0102_0304)));
            assert_eq!(
                (error.cause, error.next_hop_mtu()),
                (IcmpCause::PacketTooBig { mtu: Some(1400) }, Some(1400))
            );
        }
    }
}

//! ICMP (RFC 792, RFC 1191) and ICMPv6 (RFC 4443) errors about TCP segments that this host sent.

use super::cursor::Reader;
use super::ip::{self, IpHeader, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP};
use super::{WireError, checksum};
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use umptcp_types::SeqNumber;

/// What an ICMP error says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IcmpCause {
    /// The packet exceeds the next hop's MTU: IPv4 "fragmentation needed", ICMPv6 "packet too big".
    PacketTooBig {
        /// MTU of the next hop in bytes; `None` from a router older than RFC 1191, which sends 0.
        mtu: Option<u32>,
    },
    /// No route to the destination's network.
    NetworkUnreachable,
    /// The destination does not answer on its link.
    HostUnreachable,
    /// The destination does not support TCP.
    ProtocolUnreachable,
    /// No one listens on the destination port.
    PortUnreachable,
    /// A filter forbids it.
    Prohibited,
    /// Hop limit or reassembly time exceeded.
    TimeExceeded,
    /// A header field was not understood.
    ParameterProblem,
    /// Any other error.
    Other,
}

impl IcmpCause {
    fn unreachable(self) -> Option<Unreachable> {
        match self {
            IcmpCause::NetworkUnreachable => Some(Unreachable::Network),
            IcmpCause::HostUnreachable => Some(Unreachable::Host),
            IcmpCause::ProtocolUnreachable => Some(Unreachable::Protocol),
            IcmpCause::PortUnreachable => Some(Unreachable::Port),
            IcmpCause::Prohibited => Some(Unreachable::Prohibited),
            _ => None,
        }
    }
}

/// An ICMP error about a TCP segment. Unauthenticated: to be believed only as far as the quoted sequence
/// number is one in flight (RFC 5927 §4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IcmpError {
    /// Who reports it.
    pub reporter: IpAddr,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub code: u8,
    /// What type and code say.
    pub cause: IcmpCause,
    /// Source of the quoted segment: the local end.
    pub src: SocketAddr,
    /// Destination of the quoted segment: the remote end.
    pub dst: SocketAddr,
    /// Sequence number of the quoted segment.
    pub seq: SeqNumber,
    /// Length of the quoted packet as its IP header gives it, in bytes.
    pub quoted_len: usize,
}

/// Why a segment of somebody's could not be delivered: ICMP "destination unreachable" (RFC 792, RFC 1812
/// §5.2.7.1, RFC 4443 §3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unreachable {
    /// No route to the destination's network.
    Network,
    /// The destination does not answer on its link.
    Host,
    /// The destination does not support TCP.
    Protocol,
    /// Nobody listens on the destination port.
    Port,
    /// A filter forbids it.
    Prohibited,
}

impl core::fmt::Display for Unreachable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Unreachable::Network => "network unreachable",
            Unreachable::Host => "host unreachable",
            Unreachable::Protocol => "the destination does not support TCP",
            Unreachable::Port => "port unreachable: nothing listens at that address and port",
            Unreachable::Prohibited => "a filter on the way forbids it",
        })
    }
}

impl Unreachable {
    /// What the code of a message "destination unreachable" says, to whom the destination is of IPv4 or IPv6.
    /// Codes that are not known count as those of the host.
    pub fn of_code(code: u8, v4: bool) -> Unreachable {
        let cause = if v4 { cause_v4(3, code, 0) } else { cause_v6(1, code, 0) };
        cause.and_then(IcmpCause::unreachable).unwrap_or(Unreachable::Host)
    }

    /// Type and code of the message.
    fn numbers(self, v4: bool) -> [u8; 2] {
        match (self, v4) {
            (Unreachable::Network, true) => [3, 0],
            (Unreachable::Host, true) => [3, 1],
            (Unreachable::Protocol, true) => [3, 2],
            (Unreachable::Port, true) => [3, 3],
            (Unreachable::Prohibited, true) => [3, 13],
            (Unreachable::Network, false) => [1, 0],
            (Unreachable::Host, false) => [1, 3],
            // RFC 4443 §3.4: an unrecognised next header.
            (Unreachable::Protocol, false) => [4, 1],
            (Unreachable::Port, false) => [1, 4],
            (Unreachable::Prohibited, false) => [1, 1],
        }
    }

    /// The ICMP or ICMPv6 message from `dst` about a SYN from `src` with this sequence number. It quotes the
    /// IP header, and a TCP header as far as the sender needs it to find its connection. `None`: the
    /// addresses are of two families.
    pub fn message(self, src: SocketAddr, dst: SocketAddr, seq: SeqNumber) -> Option<Vec<u8>> {
        let syn = quotation(src, dst, seq, TCP_HEADER)?;
        Some(self.about(&syn, src.ip(), dst.ip()))
    }

    /// The ICMP or ICMPv6 message from `dst` about a packet that `src` sent to it, which starts with
    /// `quoted`.
    fn about(self, quoted: &[u8], src: IpAddr, dst: IpAddr) -> Vec<u8> {
        error_message(self.numbers(src.is_ipv4()), 0, quoted, src, dst)
    }

    /// The packet that tells the sender of `packet`, whose IP header is `header`, as its destination would.
    /// It quotes no more of it than any host takes (RFC 1812 §4.3.2.3, RFC 4443 §2.4 (c)). `None`: the
    /// addresses are of two families.
    pub fn answer(self, header: &IpHeader, packet: &[u8]) -> Option<Vec<u8>> {
        const MOST: usize = 576;
        let headers = ip::ip_header_len(&header.src);
        let quoted = &packet[..packet.len().min(header.total_len).min(MOST - headers - 8)];
        let message = self.about(quoted, header.src, header.dst);
        let protocol = if header.src.is_ipv4() { PROTOCOL_ICMP } else { PROTOCOL_ICMPV6 };
        let mut answer = vec![0; headers];
        ip::emit_ip_header_for(&mut answer, (header.dst, header.src), protocol, message.len(), 0, 0)?;
        answer.extend(message);
        Some(answer)
    }
}

/// Length of a TCP header without options.
const TCP_HEADER: usize = 20;

/// IP and TCP header of a SYN, of whose packet as many bytes follow its IP header as `len` says.
fn quotation(src: SocketAddr, dst: SocketAddr, seq: SeqNumber, len: usize) -> Option<Vec<u8>> {
    let mut syn = vec![0; ip::ip_header_len(&src.ip())];
    ip::emit_ip_header_for(&mut syn, (src.ip(), dst.ip()), PROTOCOL_TCP, len, 0, 0)?;
    syn.extend(src.port().to_be_bytes());
    syn.extend(dst.port().to_be_bytes());
    syn.extend(seq.0.to_be_bytes());
    syn.extend([0, 0, 0, 0, 0x50, 0x02, 0, 0, 0, 0, 0, 0]);
    Some(syn)
}

/// The ICMP or ICMPv6 message with this type and code, and this parameter, from `dst` about a packet of `src`,
/// which begins with `quoted` (RFC 792, RFC 4443 §2.1).
pub fn error_message(numbers: [u8; 2], parameter: u32, quoted: &[u8], src: IpAddr, dst: IpAddr) -> Vec<u8> {
    let mut message = numbers.to_vec();
    // The checksum.
    message.extend([0, 0]);
    message.extend(parameter.to_be_bytes());
    message.extend(quoted);
    let initial = match src {
        IpAddr::V4(_) => 0,
        IpAddr::V6(_) => checksum::pseudo_header(dst, src, PROTOCOL_ICMPV6, message.len() as u32),
    };
    let sum = !checksum::fold(checksum::sum(&message, initial));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// The ICMP or ICMPv6 message from `dst` that a segment of `src` with this sequence number, in an IP packet as
/// large as a link with `mtu` does not take, was too big (RFC 1191 §4, RFC 4443 §3.2). `None`: the addresses
/// are of two families, or IPv4 knows no such MTU.
pub fn too_big_message(src: SocketAddr, dst: SocketAddr, seq: SeqNumber, mtu: u32) -> Option<Vec<u8>> {
    let numbers = if src.is_ipv4() { [3, 4] } else { [2, 0] };
    let longest = u32::from(u16::MAX);
    if src.is_ipv4() && mtu > longest {
        return None;
    }
    let quoted = quotation(src, dst, seq, mtu.clamp(TCP_HEADER as u32, longest - 40) as usize)?;
    Some(error_message(numbers, mtu, &quoted, src.ip(), dst.ip()))
}

impl IcmpError {
    /// Parses `packet`, whose IP header is `header`.
    ///
    /// # Errors
    /// [`WireError::NotTcp`] for other protocols, for ICMP messages that are no errors and for errors about
    /// anything but the start of a TCP segment; [`WireError::BadChecksum`]; [`WireError::Truncated`] and the
    /// other errors of [`IpHeader::parse`] when the quotation does not reach the sequence number.
    pub fn parse(header: &IpHeader, packet: &[u8]) -> Result<IcmpError, WireError> {
        if header.fragment {
            return Err(WireError::NotTcp);
        }
        let message = header.payload(packet);
        let initial = match (header.protocol, header.src) {
            (PROTOCOL_ICMP, IpAddr::V4(_)) => 0,
            // RFC 4443 §2.3: only ICMPv6's checksum covers a pseudo-header.
            (PROTOCOL_ICMPV6, IpAddr::V6(_)) => {
                checksum::pseudo_header(header.src, header.dst, PROTOCOL_ICMPV6, message.len() as u32)
            }
            _ => return Err(WireError::NotTcp),
        };
        let mut r = Reader(message);
        let (icmp_type, code, _) = (r.u8()?, r.u8()?, r.u16()?);
        let parameter = r.u32()?;
        let cause = match header.src {
            IpAddr::V4(_) => cause_v4(icmp_type, code, parameter),
            IpAddr::V6(_) => cause_v6(icmp_type, code, parameter),
        };
        let cause = cause.ok_or(WireError::NotTcp)?;
        if checksum::fold(checksum::sum(message, initial)) != 0xffff {
            return Err(WireError::BadChecksum);
        }
        let quotation = r.rest();
        let quoted = ip::parse_quoted(quotation)?;
        if quoted.src.is_ipv4() != header.src.is_ipv4() {
            return Err(WireError::Malformed);
        }
        if quoted.protocol != PROTOCOL_TCP || quoted.fragment {
            return Err(WireError::NotTcp);
        }
        let mut r = Reader(quotation.get(quoted.header_len..).unwrap_or(&[]));
        Ok(IcmpError {
            reporter: header.src,
            icmp_type,
            code,
            cause,
            src: SocketAddr::new(quoted.src, r.u16()?),
            dst: SocketAddr::new(quoted.dst, r.u16()?),
            seq: SeqNumber(r.u32()?),
            quoted_len: quoted.total_len,
        })
    }

    /// Why the segment could not be delivered, if it says that.
    pub fn unreachable(&self) -> Option<Unreachable> {
        self.cause.unreachable()
    }

    /// The next hop's MTU in bytes, if this says that a packet was too big and by how much.
    pub fn next_hop_mtu(&self) -> Option<u32> {
        match self.cause {
            IcmpCause::PacketTooBig { mtu } => mtu,
            _ => None,
        }
    }
}

fn cause_v4(icmp_type: u8, code: u8, parameter: u32) -> Option<IcmpCause> {
    Some(match (icmp_type, code) {
        // RFC 1191 §4: the MTU is in the low 16 bits.
        (3, 4) => IcmpCause::PacketTooBig { mtu: Some(parameter & 0xffff).filter(|mtu| *mtu != 0) },
        (3, 0 | 6 | 11) => IcmpCause::NetworkUnreachable,
        (3, 1 | 7 | 8 | 12) => IcmpCause::HostUnreachable,
        (3, 2) => IcmpCause::ProtocolUnreachable,
        (3, 3) => IcmpCause::PortUnreachable,
        (3, 9 | 10 | 13) => IcmpCause::Prohibited,
        (3, _) => IcmpCause::Other,
        (11, _) => IcmpCause::TimeExceeded,
        (12, _) => IcmpCause::ParameterProblem,
        // Source quench (4) is deprecated (RFC 6633), redirects (5) are no errors, the rest are queries.
        _ => return None,
    })
}

fn cause_v6(icmp_type: u8, code: u8, parameter: u32) -> Option<IcmpCause> {
    Some(match (icmp_type, code) {
        (1, 0) => IcmpCause::NetworkUnreachable,
        (1, 1 | 5 | 6) => IcmpCause::Prohibited,
        (1, 2 | 3) => IcmpCause::HostUnreachable,
        (1, 4) => IcmpCause::PortUnreachable,
        (2, _) => IcmpCause::PacketTooBig { mtu: Some(parameter).filter(|mtu| *mtu != 0) },
        (3, _) => IcmpCause::TimeExceeded,
        // RFC 4443 §3.4: code 1 is an unrecognised next header.
        (4, 1) => IcmpCause::ProtocolUnreachable,
        (4, _) => IcmpCause::ParameterProblem,
        // RFC 4443 §2.1: types below 128 are errors.
        (0..=127, _) => IcmpCause::Other,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::ip::emit_ip_header_for;
    use super::*;
    use std::vec;
    use std::vec::Vec;

    fn addresses(v6: bool) -> [IpAddr; 3] {
        match v6 {
            false => ["10.0.0.1", "10.0.0.2", "10.9.9.9"],
            true => ["2001:db8::1", "2001:db8::2", "2001:db8:9::9"],
        }
        .map(|a| a.parse().unwrap())
    }

    /// An error from a router about a segment of 1500 bytes from port 1234 to port 80, of which `quoted`
    /// bytes after the IP header are quoted.
    fn error(v6: bool, icmp_type: u8, code: u8, parameter: u32, protocol: u8, quoted: usize) -> Vec<u8> {
        let [local, remote, router] = addresses(v6);
        let header_len = ip::ip_header_len(&local);
        let mut quotation = vec![0; header_len];
        emit_ip_header_for(&mut quotation, (local, remote), protocol, 1500 - header_len, 0, 0).unwrap();
        // A router decrements the TTL and may leave the checksum in its quotation as it was.
        quotation[if v6 { 7 } else { 8 }] = 1;
        quotation.extend(&[0x04, 0xd2, 0, 80, 0xa1, 0xa2, 0xa3, 0xa4][..quoted.min(8)]);
        quotation.resize(header_len + quoted, 0x77);
        let mut message = vec![icmp_type, code, 0, 0];
        message.extend(parameter.to_be_bytes());
        message.extend(quotation);
        let pseudo = if v6 { checksum::pseudo_header(router, local, 58, message.len() as u32) } else { 0 };
        let sum = !checksum::fold(checksum::sum(&message, pseudo));
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut packet = vec![0; header_len];
        let icmp = if v6 { PROTOCOL_ICMPV6 } else { PROTOCOL_ICMP };
        emit_ip_header_for(&mut packet, (router, local), icmp, message.len(), 0, 0).unwrap();
        packet.extend(message);
        packet
    }

    fn parse(packet: &[u8]) -> Result<IcmpError, WireError> {
        IcmpError::parse(&IpHeader::parse(packet).unwrap(), packet)
    }

    #[test]
    fn packet_too_big() {
        for (v6, icmp_type, code) in [(false, 3, 4), (true, 2, 0)] {
            let [local, remote, router] = addresses(v6);
            for quoted in [8, 20, 500] {
                let packet = error(v6, icmp_type, code, 1280, PROTOCOL_TCP, quoted);
                let expected = IcmpError {
                    reporter: router,
                    icmp_type,
                    code,
                    cause: IcmpCause::PacketTooBig { mtu: Some(1280) },
                    src: SocketAddr::new(local, 1234),
                    dst: SocketAddr::new(remote, 80),
                    seq: SeqNumber(0xa1a2_a3a4),
                    quoted_len: 1500,
                };
                assert_eq!(parse(&packet), Ok(expected));
                assert_eq!(expected.next_hop_mtu(), Some(1280));
            }
            assert_eq!(parse(&error(v6, icmp_type, code, 0, PROTOCOL_TCP, 8)).unwrap().next_hop_mtu(), None);
            assert_eq!(parse(&error(v6, icmp_type, code, 0, PROTOCOL_TCP, 7)), Err(WireError::Truncated));
            assert_eq!(parse(&error(v6, icmp_type, code, 0, 17, 8)), Err(WireError::NotTcp));
        }
        // Above the MTU there may be anything in IPv4 (RFC 4884 puts a length there).
        assert_eq!(parse(&error(false, 3, 4, 0x0011_0580, 6, 8)).unwrap().next_hop_mtu(), Some(0x580));
    }

    #[test]
    fn causes() {
        let cause = |v6, icmp_type, code| parse(&error(v6, icmp_type, code, 0, 6, 8)).map(|e| e.cause);
        for (icmp_type, code, expected) in [
            (3, 0, IcmpCause::NetworkUnreachable),
            (3, 1, IcmpCause::HostUnreachable),
            (3, 2, IcmpCause::ProtocolUnreachable),
            (3, 3, IcmpCause::PortUnreachable),
            (3, 5, IcmpCause::Other),
            (3, 13, IcmpCause::Prohibited),
            (11, 0, IcmpCause::TimeExceeded),
            (12, 0, IcmpCause::ParameterProblem),
        ] {
            assert_eq!(cause(false, icmp_type, code), Ok(expected));
        }
        for (icmp_type, code, expected) in [
            (1, 0, IcmpCause::NetworkUnreachable),
            (1, 1, IcmpCause::Prohibited),
            (1, 3, IcmpCause::HostUnreachable),
            (1, 4, IcmpCause::PortUnreachable),
            (3, 0, IcmpCause::TimeExceeded),
            (4, 1, IcmpCause::ProtocolUnreachable),
            (4, 0, IcmpCause::ParameterProblem),
            (100, 0, IcmpCause::Other),
        ] {
            assert_eq!(cause(true, icmp_type, code), Ok(expected));
        }
        // Echo, source quench, redirect; echo and router advertisement.
        for (v6, icmp_type) in [(false, 8), (false, 0), (false, 4), (false, 5), (true, 128), (true, 134)] {
            assert_eq!(cause(v6, icmp_type, 0), Err(WireError::NotTcp));
        }
    }

    #[test]
    fn damaged_messages() {
        for (v6, icmp_type) in [(false, 3), (true, 1)] {
            let packet = error(v6, icmp_type, 1, 0, 6, 8);
            let header = IpHeader::parse(&packet).unwrap();
            for bit in (header.header_len + 2) * 8..packet.len() * 8 {
                let mut flipped = packet.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(parse(&flipped), Err(WireError::BadChecksum));
            }
            for cut in header.header_len..packet.len() {
                let short = IpHeader { total_len: cut, ..header };
                assert!(IcmpError::parse(&short, &packet[..cut]).is_err());
            }
            let fragment = IpHeader { fragment: true, ..header };
            assert_eq!(IcmpError::parse(&fragment, &packet), Err(WireError::NotTcp));
            let other = IpHeader { protocol: 6, ..header };
            assert_eq!(IcmpError::parse(&other, &packet), Err(WireError::NotTcp));
        }
    }
}

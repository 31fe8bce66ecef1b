//! ICMP (RFC 792, RFC 1191) and ICMPv6 (RFC 4443) errors about TCP segments that this host sent.

use super::cursor::Reader;
use super::ip::{self, IpHeader, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP};
use super::{WireError, checksum};
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
    /// The destination has no TCP.
    ProtocolUnreachable,
    /// The destination takes nothing at that port.
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

/// An ICMP error about a TCP segment. Unauthenticated: to be believed only as far as the quoted sequence number is one
/// in flight (RFC 5927 §4.1).
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

impl IcmpError {
    /// Parses `packet`, whose IP header is `header`.
    ///
    /// # Errors
    /// [`WireError::NotTcp`] for other protocols, for ICMP messages that are no errors and for errors about anything but the start
    /// of a TCP segment; [`WireError::BadChecksum`]; [`WireError::Truncated`] and the other errors of
    /// [`IpHeader::parse`] when the quotation does not reach the sequence number.
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

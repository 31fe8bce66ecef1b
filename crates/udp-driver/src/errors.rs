//! What ICMP says of datagrams, from the error queue of a socket, as the stack would have it of its segments.

use crate::codec::{BODY_HEADER, TCP_HEADER};
use crate::packet::{self, Outgoing};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use rustix::net::sockopt::{set_ip_mtu_discover, set_ipv6_mtu_discover};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use umptcp_stack_core::wire::icmp::Unreachable;
use umptcp_stack_core::wire::ip;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const RST_ACK: u8 = 0x14;

/// Errors come from ICMP and not from this host (`SO_EE_ORIGIN_ICMP`, `SO_EE_ORIGIN_ICMP6`).
const FROM_ICMP: [u8; 2] = [2, 3];

/// Has the kernel send whole datagrams only, and keep what ICMP says of them.
pub(crate) fn enable(socket: &impl AsFd, v6: bool) -> io::Result<()> {
    let done = if v6 {
        setsockopt(socket, sockopt::Ipv6RecvErr, &true)
    } else {
        setsockopt(socket, sockopt::Ipv4RecvErr, &true)
    };
    done?;
    set_whole_only(socket, v6, true)
}

/// Has the kernel send whole datagrams only, or cut those that do not fit the path.
pub(crate) fn set_whole_only(socket: &impl AsFd, v6: bool, whole: bool) -> io::Result<()> {
    // DF is set, and the kernel's own idea of the path is left alone: the stack has one for each subflow.
    if v6 {
        let mode = if whole { Ipv6PathMtuDiscovery::PROBE } else { Ipv6PathMtuDiscovery::DONT };
        set_ipv6_mtu_discover(socket, mode)?;
    } else {
        let mode = if whole { Ipv4PathMtuDiscovery::PROBE } else { Ipv4PathMtuDiscovery::DONT };
        set_ip_mtu_discover(socket, mode)?;
    }
    Ok(())
}

/// An ICMP error about a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IcmpError {
    /// Where the datagram was sent to.
    remote: SocketAddr,
    icmp_type: u8,
    code: u8,
    /// What the next link takes, in bytes, where that is the matter.
    mtu: u32,
    /// The start of the datagram's body, as far as it was quoted.
    body: [u8; BODY_HEADER],
    quoted: usize,
}

/// An ICMP error in the queue of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reported {
    /// Where the datagram was sent to.
    pub(crate) remote: Option<SocketAddr>,
    /// Who says so.
    pub(crate) offender: Option<IpAddr>,
    pub(crate) icmp_type: u8,
    pub(crate) code: u8,
    /// What the next link takes, in bytes, where that is the matter.
    pub(crate) info: u32,
    /// How much of the datagram was quoted.
    pub(crate) quoted: usize,
}

/// The next error of a socket, and what it quotes of the datagram. `None`: there is none that came from the
/// network.
pub(crate) fn read(socket: &impl AsRawFd, body: &mut [u8]) -> Option<Reported> {
    let mut room = nix::cmsg_space!([u8; 64]);
    let mut slices = [IoSliceMut::new(body)];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    loop {
        let message =
            recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(&mut room), flags).ok()?;
        let quoted = message.bytes;
        let remote = message.address.as_ref().and_then(socket_address);
        let found = message.cmsgs().ok()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4RecvErr(error, by) => {
                Some((error, by.map(|a| Ipv4Addr::from(u32::from_be(a.sin_addr.s_addr)).into())))
            }
            ControlMessageOwned::Ipv6RecvErr(error, by) => {
                Some((error, by.map(|a| Ipv6Addr::from(a.sin6_addr.s6_addr).into())))
            }
            _ => None,
        });
        if let Some((error, by)) = found.filter(|(error, _)| FROM_ICMP.contains(&error.ee_origin)) {
            let (icmp_type, code, info) = (error.ee_type, error.ee_code, error.ee_info);
            // The system leaves it empty where it does not know.
            let offender = by.filter(|by: &IpAddr| !by.is_unspecified());
            return Some(Reported { remote, offender, icmp_type, code, info, quoted });
        }
    }
}

/// The next error of a socket of segments. `None`: there is none that came from the network.
pub(crate) fn next(socket: &UdpSocket) -> Option<IcmpError> {
    loop {
        let mut body = [0; BODY_HEADER];
        let Reported { remote, icmp_type, code, info: mtu, quoted, .. } = read(socket, &mut body)?;
        if let Some(remote) = remote {
            return Some(IcmpError { remote, icmp_type, code, mtu, body, quoted });
        }
    }
}

/// What the stack or a program is to be told when the system has refused a packet; `None`: nothing, as of a
/// loss in the network. So it is with what only ICMP can have caused: that is in the socket's queue, with what
/// tells whether to believe it.
pub(crate) fn refused(error: i32) -> Option<Unreachable> {
    match error {
        libc::ENETUNREACH | libc::ENETDOWN | libc::EADDRNOTAVAIL | libc::ENODEV | libc::ENXIO => {
            Some(Unreachable::Network)
        }
        libc::EHOSTUNREACH => Some(Unreachable::Host),
        libc::EPERM | libc::EACCES => Some(Unreachable::Prohibited),
        _ => None,
    }
}

/// The address that the system has written.
pub(crate) fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|a| SocketAddr::from(SocketAddrV4::from(*a)));
    v4.or_else(|| address.as_sockaddr_in6().map(|a| SocketAddr::from(SocketAddrV6::from(*a))))
}

impl IcmpError {
    /// What tells the stack of it. `None`: nothing does; too little of the segment was quoted to tell it from
    /// one that somebody else made up, or it is of no importance.
    pub(crate) fn to_packet(self, local: SocketAddr) -> Option<Vec<u8>> {
        let IcmpError { remote, icmp_type, code, mtu, body, quoted } = self;
        if quoted < BODY_HEADER || remote.is_ipv4() != local.is_ipv4() {
            return None;
        }
        let number = |at: usize| u32::from_be_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]]);
        let segment = Outgoing { local, remote, sequence: number(4), tcp_at: 0 };
        let why = match (local.is_ipv4(), icmp_type, code) {
            // Nobody has the port: where TCP would answer with a reset, UDP has this. The quotation makes it
            // as hard to forge: a reset must have the sequence number that is expected (RFC 5961 §3.2).
            (true, 3, 3) | (false, 1, 4) => return reset(&segment, body[1], number(8)),
            (true, 3, 0 | 6 | 11) | (false, 1, 0) => Unreachable::Network,
            (true, 3, 1 | 7 | 8 | 12) | (false, 1, 2 | 3) => Unreachable::Host,
            (true, 3, 4) | (false, 2, _) => return packet::too_big(&segment, mtu),
            (true, 3, 9 | 10 | 13) | (false, 1, 1 | 5 | 6) => Unreachable::Prohibited,
            _ => return None,
        };
        packet::undelivered(&segment, why)
    }
}

/// The reset that answers a segment with these flags and this acknowledgement (RFC 9293 §3.10.7.1).
fn reset(segment: &Outgoing, flags: u8, acknowledged: u32) -> Option<Vec<u8>> {
    let Outgoing { local, remote, sequence, .. } = *segment;
    let sequence = sequence.wrapping_add(u32::from(flags & SYN != 0));
    let headers = ip::ip_header_len(&local.ip());
    let mut packet = vec![0; headers];
    ip::emit_ip_header(&mut packet, remote.ip(), local.ip(), TCP_HEADER, 0, 0)?;
    packet.extend(remote.port().to_be_bytes());
    packet.extend(local.port().to_be_bytes());
    packet.extend(if flags & ACK != 0 { acknowledged } else { 0 }.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend([0x50, RST_ACK, 0, 0, 0, 0, 0, 0]);
    Some(packet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use umptcp_stack_core::types::SeqNumber;
    use umptcp_stack_core::wire::icmp::{self, IcmpCause};
    use umptcp_stack_core::wire::ip::IpHeader;

    fn ends(v6: bool) -> (SocketAddr, SocketAddr) {
        let [local, remote] = if v6 { ["[::1]:9", "[::1]:80"] } else { ["127.0.0.1:9", "127.0.0.1:80"] };
        (local.parse().unwrap(), remote.parse().unwrap())
    }

    fn error(v6: bool, icmp_type: u8, code: u8, flags: u8, quoted: usize) -> IcmpError {
        let body = [0x50, flags, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        IcmpError { remote: ends(v6).1, icmp_type, code, mtu: 1300, body, quoted }
    }

    #[test]
    fn where_nobody_has_the_port_the_stack_sees_a_reset() {
        for (v6, icmp_type, code) in [(false, 3, 3), (true, 1, 4)] {
            let (local, remote) = ends(v6);
            for (flags, sequence, acknowledged) in [(0x02, 0, 0x0102_0305), (0x18, 0x0506_0708, 0x0102_0304)]
            {
                let packet = error(v6, icmp_type, code, flags, 12).to_packet(local).unwrap();
                let parsed = IpHeader::parse(&packet).unwrap();
                assert_eq!((parsed.src, parsed.dst, parsed.protocol), (remote.ip(), local.ip(), 6));
                let tcp = parsed.payload(&packet);
                let number = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
                assert_eq!((number(0), number(4), number(8)), (80 << 16 | 9, sequence, acknowledged));
                assert_eq!(tcp[12..14], [0x50, 0x14]);
            }
        }
    }

    #[test]
    fn other_errors_stay_what_they_are() {
        for (v6, icmp_type, code, cause) in [
            (false, 3, 0, IcmpCause::NetworkUnreachable),
            (false, 3, 1, IcmpCause::HostUnreachable),
            (false, 3, 13, IcmpCause::Prohibited),
            (false, 3, 4, IcmpCause::PacketTooBig { mtu: Some(1300) }),
            (true, 2, 0, IcmpCause::PacketTooBig { mtu: Some(1300) }),
            (true, 1, 0, IcmpCause::NetworkUnreachable),
            (true, 1, 1, IcmpCause::Prohibited),
        ] {
            let (local, remote) = ends(v6);
            let packet = error(v6, icmp_type, code, 0x10, 12).to_packet(local).unwrap();
            let parsed = IpHeader::parse(&packet).unwrap();
            let seen = icmp::IcmpError::parse(&parsed, &packet).unwrap();
            assert_eq!((seen.src, seen.dst, seen.seq), (local, remote, SeqNumber(0x0102_0304)));
            assert_eq!(seen.cause, cause);
        }
    }

    #[test]
    fn a_short_quotation_proves_nothing() {
        let (local, _) = ends(false);
        for quoted in 0..BODY_HEADER {
            assert_eq!(error(false, 3, 3, 0x10, quoted).to_packet(local), None);
        }
        assert_eq!(error(false, 11, 0, 0x10, 12).to_packet(local), None, "time exceeded");
        assert_eq!(error(false, 3, 3, 0x10, 12).to_packet(ends(true).0), None, "two families");
    }

    /// The kernel's own answer, over the loopback device.
    #[test]
    fn the_kernel_says_so_when_a_port_is_closed() {
        for v6 in [false, true] {
            let any = if v6 { "[::1]:0" } else { "127.0.0.1:0" };
            let (Ok(socket), Ok(closed)) = (UdpSocket::bind(any), UdpSocket::bind(any)) else { continue };
            enable(&socket, v6).unwrap();
            let remote = closed.local_addr().unwrap();
            drop(closed);
            assert_eq!(next(&socket), None);
            socket.send_to(&[0x50, 0x02, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0], remote).unwrap();
            let seen = next(&socket).expect("an error in the queue");
            assert_eq!((seen.remote, seen.quoted), (remote, 12));
            assert!(seen.to_packet(socket.local_addr().unwrap()).is_some());
            assert_eq!(next(&socket), None);
        }
    }
}

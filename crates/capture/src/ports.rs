//! The ports that this host's servers have.

use crate::diag::Diag;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

/// Ports that somebody listens on (TCP) or has bound (UDP).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Ports {
    pub(crate) tcp: BTreeSet<u16>,
    pub(crate) udp: BTreeSet<u16>,
}

impl Ports {
    /// Those of the calling thread's network namespace.
    pub(crate) fn find() -> io::Result<Ports> {
        let mut ports = Ports::default();
        for family in [AF_INET, AF_INET6] {
            ports.tcp.extend(bound(family, IPPROTO_TCP, StateFlags::LISTEN)?);
            // What is connected talks to one peer only, and is no server.
            ports.udp.extend(bound(family, IPPROTO_UDP, StateFlags::CLOSE)?);
        }
        Ok(ports)
    }
}

/// Ports of the calling thread's network namespace on which a server listens for others than this host.
pub(crate) fn served() -> io::Result<BTreeSet<u16>> {
    let mut ports = BTreeSet::new();
    for family in [AF_INET, AF_INET6] {
        let sockets = sockets(family, IPPROTO_TCP, StateFlags::LISTEN)?;
        ports.extend(sockets.into_iter().filter(|(a, _)| !a.to_canonical().is_loopback()).map(|(_, p)| p));
    }
    Ok(ports)
}

fn bound(family: u8, protocol: u8, states: StateFlags) -> io::Result<impl Iterator<Item = u16>> {
    Ok(sockets(family, protocol, states)?.into_iter().map(|(_, port)| port))
}

/// Local ends of the sockets in that state.
fn sockets(family: u8, protocol: u8, states: StateFlags) -> io::Result<Vec<(IpAddr, u16)>> {
    let socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
    let request = InetRequest { family, protocol, extensions: ExtensionFlags::empty(), states, socket_id };
    let mut ports = Vec::new();
    Diag::open()?.list(request, |found| {
        let id = found.header.socket_id;
        ports.push((id.source_address, id.source_port));
    })?;
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn listeners_and_bound_sockets_are_found() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (t, u) = (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
        let ports = Ports::find().unwrap();
        assert!(ports.tcp.contains(&t) && ports.udp.contains(&u), "{ports:?}");
        drop((tcp, udp));
        let ports = Ports::find().unwrap();
        assert!(!ports.tcp.contains(&t));
    }
}

//! Whose a connection of this host is.

use crate::diag::Diag;
use crate::error::CaptureError;
use netlink_packet_core::Nla as _;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use std::io;
use std::net::SocketAddr;

/// Attribute of a socket: the number of its cgroup of version 2 (Linux 5.9).
const CGROUP: u16 = 21;

/// A socket's cookie that says that any will do.
const ANY: [u8; 8] = [0xff; 8];

/// Tells whose connections are, in the network namespace of the thread that has opened it.
#[derive(Debug)]
pub struct Owners(Diag);

impl Owners {
    /// Begins.
    ///
    /// # Errors
    /// When the kernel does not list sockets.
    pub fn open() -> Result<Owners, CaptureError> {
        Diag::open().map(Owners).map_err(CaptureError::set_up("list sockets"))
    }

    /// The number of the cgroup that the socket of this host belongs to which connects `local` with `remote`;
    /// `None` if there is no such socket (any more), or the kernel does not say.
    pub fn cgroup(&mut self, local: SocketAddr, remote: SocketAddr) -> Option<u64> {
        self.ask(local, remote).unwrap_or_else(|error| {
            tracing::debug!(%local, %remote, %error, "cannot ask whose a connection is");
            None
        })
    }

    fn ask(&mut self, local: SocketAddr, remote: SocketAddr) -> io::Result<Option<u64>> {
        let socket_id = SocketId {
            source_port: local.port(),
            destination_port: remote.port(),
            source_address: local.ip(),
            destination_address: remote.ip(),
            interface_id: 0,
            cookie: ANY,
        };
        let request = InetRequest {
            family: if local.is_ipv4() { AF_INET } else { AF_INET6 },
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::all(),
            socket_id,
        };
        let Some(socket) = self.0.find(request)? else { return Ok(None) };
        // Not one that listens at the port.
        if socket.header.socket_id.destination_port != remote.port() {
            return Ok(None);
        }
        Ok(socket.nlas.iter().find(|nla| nla.kind() == CGROUP).and_then(|nla: &Nla| {
            let mut value = vec![0; nla.value_len()];
            nla.emit_value(&mut value);
            Some(u64::from_ne_bytes(value.try_into().ok()?))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_connection_is_of_the_cgroup_of_its_program() {
        let Some(root) = umptcp_tun_driver::paths::cgroup_root() else {
            eprintln!("no cgroups of version 2 are mounted here");
            return;
        };
        let text = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
        let number = root.join(own).metadata().unwrap().ino();
        let mut owners = Owners::open().unwrap();
        for host in ["127.0.0.1", "::1"] {
            let Ok(listener) = TcpListener::bind((host, 0)) else { continue };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (local, remote) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
            assert_eq!(owners.cgroup(local, remote), Some(number));
            let other = SocketAddr::new(remote.ip(), 1);
            assert_eq!(owners.cgroup(local, other), None);
        }
    }
}

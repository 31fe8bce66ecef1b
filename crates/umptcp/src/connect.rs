//! Making connections.

use crate::addresses;
use crate::error::{Error, NoWay};
use crate::handle::Handle;
use crate::settings::connection_settings;
use crate::shared::{Phase, TimedOut, deadline};
use crate::stream::MptcpStream;
use crate::worker::Accepted;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;
use umptcp_stack_core::config::{ConnectOptions, ConnectionConfig, Ecn};
use umptcp_stack_core::error::ConnectionError;
use umptcp_types::PathId;

/// Settings for a new connection.
///
/// Starts from the stack's defaults.
#[derive(Clone, Debug)]
pub struct StreamBuilder {
    handle: Handle,
    paths: Vec<PathId>,
    local_address: Option<IpAddr>,
    local_port: u16,
    timeout: Option<Duration>,
    config: ConnectionConfig,
}

impl StreamBuilder {
    pub(crate) fn new(handle: Handle) -> Self {
        let config = (*handle.defaults).clone();
        StreamBuilder { handle, paths: Vec::new(), local_address: None, local_port: 0, timeout: None, config }
    }

    connection_settings!();

    /// Paths to use, the first one for the initial subflow. All paths if not set.
    pub fn paths(mut self, paths: impl IntoIterator<Item = PathId>) -> Self {
        self.paths = paths.into_iter().collect();
        self
    }

    /// Local address and port of the initial subflow. The stack chooses an unspecified address, or port 0,
    /// itself.
    pub fn local(mut self, local: SocketAddr) -> Self {
        self.local_address = Some(local.ip().to_canonical()).filter(|a| !a.is_unspecified());
        self.local_port = local.port();
        self
    }

    /// Whether to use TCP Fast Open (RFC 7413; the socket option TCP_FASTOPEN_CONNECT). The first connection
    /// to a server asks it for a cookie. Later connections of this stack are returned before anything is
    /// sent: the SYN carries the first data written, which saves a round trip. If the server cannot be
    /// reached, reading or writing reports it.
    ///
    /// If the network duplicates the SYN, the server may receive its data twice. Use only for idempotent
    /// requests.
    pub fn fast_open(mut self, on: bool) -> Self {
        self.config.fast_open = on;
        self
    }

    /// How long to wait for the connection to be established, per address tried.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Connects. Several addresses are tried in turn; the error is that of the last one.
    pub fn connect(self, address: impl ToSocketAddrs) -> io::Result<MptcpStream> {
        let mut last = None;
        for remote in address.to_socket_addrs()? {
            match self.connect_one(addresses::canonical(remote)) {
                Ok(stream) => return Ok(stream),
                Err(e) => last = Some(e),
            }
        }
        Err(last.map_or_else(
            || io::Error::new(io::ErrorKind::InvalidInput, "the name has no address"),
            io::Error::from,
        ))
    }

    fn connect_one(&self, remote: SocketAddr) -> Result<MptcpStream, Error> {
        if self.handle.nics.upgrade().is_some() && addresses::is_this_host(remote.ip()) {
            let own = if remote.ip().is_loopback() { NoWay::Loopback } else { NoWay::OwnAddress };
            return Err(Error::NoWay { remote, reason: own });
        }
        // The first path may not have a route to the peer.
        let routed = || self.handle.nics.upgrade().and_then(|n| n.address_towards(remote.ip()));
        let local_address = match self.local_address {
            None if self.paths.is_empty() => routed(),
            chosen => chosen,
        };
        let mut options = ConnectOptions::new(remote).with_config(self.config.clone());
        options.paths.clone_from(&self.paths);
        options.local_address = local_address;
        options.local_port = self.local_port;
        let (id, shared) = self.handle.commands.call(move |worker, cx| worker.connect(cx, options))??;
        match shared.wait_connected(deadline(self.timeout)) {
            Ok(Phase::Connected { local, remote }) => {
                Ok(MptcpStream::new(self.handle.clone(), Accepted { id, shared, local, remote }))
            }
            Ok(Phase::Failed(source)) => {
                let nics = self.handle.nics.upgrade().filter(|_| source == ConnectionError::Unreachable);
                let nics = nics.map(|n| n.without_route(remote.ip())).unwrap_or_default();
                Err(if nics.is_empty() {
                    Error::Connection { remote, source }
                } else {
                    Error::NoRoute { remote, nics }
                })
            }
            Ok(Phase::Connecting) | Err(TimedOut) => {
                self.handle.commands.call(move |worker, cx| worker.abort(cx, id))?;
                Err(Error::ConnectTimeout { remote })
            }
        }
    }
}

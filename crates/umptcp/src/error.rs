//! Errors, and the `io::ErrorKind` of each.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use thiserror::Error;
use umptcp_convert::ConvertError;
use umptcp_relay::AnswerError;
use umptcp_stack_core::error::{ConnectError, ConnectionError, ListenError, SetError, SignalError};
use umptcp_stack_core::wire::icmp::Unreachable;

/// What can go wrong. Operations return it inside an [`io::Error`] of the matching kind;
/// `e.get_ref().and_then(|e| e.downcast_ref::<umptcp::Error>())` retrieves it.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A connection could not be attempted.
    #[error("cannot connect to {remote}: {source}")]
    Connect {
        /// The peer.
        remote: SocketAddr,
        /// Why.
        source: ConnectError,
    },
    /// All local ports for connections to the peer are in use, and there are no more.
    #[error(
        "cannot connect to {remote}: all local ports for connections to it are in use, and there are no more: {reason}"
    )]
    NoPort {
        /// The peer.
        remote: SocketAddr,
        /// Why there are no more, and what to do.
        reason: String,
    },
    /// A connection could not be established, or has ended.
    #[error("connection with {remote}: {source}")]
    Connection {
        /// The peer.
        remote: SocketAddr,
        /// Why.
        source: ConnectionError,
    },
    /// No path leads to the peer, whatever the routes are.
    #[error("cannot connect to {remote}: {reason}")]
    NoWay {
        /// The peer.
        remote: SocketAddr,
        /// Why not, and what to do.
        reason: NoWay,
    },
    /// None of the usable NICs has a route to the peer.
    #[error(
        "no route to {} via {}: add one (ip route add {} via GATEWAY dev {}), or use another NIC", remote.ip(),
        nics.join(", "), remote.ip(), nics.first().map_or("NIC", String::as_str)
    )]
    NoRoute {
        /// The peer.
        remote: SocketAddr,
        /// The NICs' names.
        nics: Vec<String>,
    },
    /// The connection was not established within the time limit.
    #[error("connection with {remote}: not established within the time limit")]
    ConnectTimeout {
        /// The peer.
        remote: SocketAddr,
    },
    /// The relay does not make the connection.
    #[error("the relay {relay} does not connect to {remote}: {source}")]
    Relay {
        /// The relay.
        relay: SocketAddr,
        /// The server.
        remote: SocketAddr,
        /// What it says.
        source: AnswerError,
    },
    /// A relay cannot be asked for such a server.
    #[error("no relay can connect to {remote}: its address is multicast, loopback or unspecified")]
    NotByRelay {
        /// The server.
        remote: SocketAddr,
    },
    /// Listening failed.
    #[error("cannot listen on {local}: {source}")]
    Listen {
        /// The address and port.
        local: SocketAddr,
        /// Why.
        source: ListenError,
    },
    /// Connections cannot be captured.
    #[error("cannot capture connections: {source}")]
    Forward {
        /// Why.
        source: ListenError,
    },
    /// No path has the address to listen on.
    #[error("cannot listen on {local}: no path has this address; there are: {}", addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    NoSuchAddress {
        /// The address and port.
        local: SocketAddr,
        /// Those that the stack could listen on.
        addresses: Vec<IpAddr>,
    },
    /// A listener's settings are invalid.
    #[error("cannot listen on {local}: {source}")]
    ListenSettings {
        /// The address and port.
        local: SocketAddr,
        /// Why.
        source: ConnectError,
    },
    /// The signal cannot be sent to the peer.
    #[error("connection with {remote}: {source}")]
    Signal {
        /// The peer.
        remote: SocketAddr,
        /// Why.
        source: SignalError,
    },
    /// A setting of an established connection cannot be changed.
    #[error("connection with {remote}: {source}")]
    Set {
        /// The peer.
        remote: SocketAddr,
        /// Why.
        source: SetError,
    },
    /// The stack was stopped before the peers had acknowledged everything that was written.
    #[error(
        "{bytes} bytes of {connections} connections were not delivered: the peers did not acknowledge them within the linger time"
    )]
    Undelivered {
        /// Connections that had something left.
        connections: usize,
        /// Bytes without an acknowledgement.
        bytes: u64,
    },
    /// A stack without paths was to be started: it could never connect.
    #[error(
        "the stack has no path: give it this host's NICs with StackBuilder::all_nics or nics, or allow it to start without with paths_later"
    )]
    NoPaths,
    /// This process may not set up paths on the host's NICs.
    #[error(
        "no permission (CAP_NET_ADMIN) to set up paths on this host's NICs: run the program as root (`sudo`), or in a user and network namespace; paths inside UDP (mode=udp) need none, if the peer has them, too"
    )]
    NotPermitted,
    /// The stack has been stopped.
    #[error("the stack has been stopped")]
    Stopped,
    /// The listener has been closed.
    #[error("the listener has been closed")]
    ListenerClosed,
    /// A time limit of a stream or listener has passed, or it is not to wait at all.
    #[error("it would have to wait longer than it may")]
    WouldBlock,
}

/// Why no path leads to an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum NoWay {
    /// It is the host's own by definition.
    #[error(
        "it is this host's own loopback address, and paths lead away from the host; use a socket of the kernel, such as std::net::TcpStream or --stack kernel-mptcp"
    )]
    Loopback,
    /// The host or the stack has it.
    #[error(
        "it is an address of this host itself, and paths lead away from the host; use a socket of the kernel, such as std::net::TcpStream or --stack kernel-mptcp, which reaches listeners of umptcp on this host, too"
    )]
    OwnAddress,
    /// It is valid on one link only, where the stack has no such address.
    #[error(
        "it is a link-local address, and the stack has none on any path; use another address of the peer, or a socket of the kernel"
    )]
    LinkLocal,
}

impl Error {
    /// The matching kind of I/O error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Connect { source, .. } => connect_kind(source),
            Error::Connection { source, .. } => connection_kind(*source),
            Error::NoWay { .. } => ErrorKind::Unsupported,
            Error::Relay { source, .. } => relay_kind(source),
            Error::NotByRelay { .. } => ErrorKind::InvalidInput,
            Error::NoRoute { .. } => ErrorKind::NetworkUnreachable,
            Error::ConnectTimeout { .. } | Error::Undelivered { .. } => ErrorKind::TimedOut,
            Error::Listen { source, .. } | Error::Forward { source } => match source {
                ListenError::InUse(_) => ErrorKind::AddrInUse,
                ListenError::NoPort => ErrorKind::InvalidInput,
                ListenError::NoAddress(_) => ErrorKind::AddrNotAvailable,
            },
            Error::NoSuchAddress { .. } | Error::NoPort { .. } => ErrorKind::AddrNotAvailable,
            Error::ListenSettings { source, .. } => connect_kind(source),
            Error::Signal { source, .. } => match source {
                SignalError::NotFound => ErrorKind::NotConnected,
                SignalError::NotMptcp => ErrorKind::Unsupported,
                SignalError::NoSubflow => ErrorKind::NotFound,
                SignalError::NoAddressId => ErrorKind::QuotaExceeded,
            },
            Error::Set { source, .. } => match source {
                SetError::NotFound => ErrorKind::NotConnected,
                SetError::UnknownName { .. } => ErrorKind::InvalidInput,
            },
            Error::NoPaths => ErrorKind::InvalidInput,
            Error::NotPermitted => ErrorKind::PermissionDenied,
            Error::Stopped | Error::ListenerClosed => ErrorKind::NotConnected,
            Error::WouldBlock => ErrorKind::WouldBlock,
        }
    }
}

fn connect_kind(e: &ConnectError) -> ErrorKind {
    match e {
        ConnectError::NoPath(_) => ErrorKind::NetworkUnreachable,
        // Linux's EDQUOT.
        ConnectError::Spent(_) => ErrorKind::QuotaExceeded,
        ConnectError::LocalAddress(_) => ErrorKind::AddrNotAvailable,
        ConnectError::Families(..) => ErrorKind::InvalidInput,
        ConnectError::TupleInUse(..) => ErrorKind::AddrInUse,
        ConnectError::NoPort(_) => ErrorKind::AddrNotAvailable,
        ConnectError::BadRemote(_) => ErrorKind::InvalidInput,
        ConnectError::TooMany(_) => ErrorKind::QuotaExceeded,
        ConnectError::UnknownName { .. } => ErrorKind::InvalidInput,
        ConnectError::Gone => ErrorKind::NotConnected,
    }
}

fn relay_kind(e: &AnswerError) -> ErrorKind {
    match e {
        AnswerError::Refused(ConvertError::NotAuthorized) => ErrorKind::PermissionDenied,
        AnswerError::Refused(ConvertError::ResourceExceeded { .. }) => ErrorKind::QuotaExceeded,
        AnswerError::Refused(_) => ErrorKind::Unsupported,
        AnswerError::NoAnswer => ErrorKind::ConnectionReset,
        _ => ErrorKind::InvalidData,
    }
}

fn connection_kind(e: ConnectionError) -> ErrorKind {
    match e {
        ConnectionError::NotFound | ConnectionError::NotConnected => ErrorKind::NotConnected,
        ConnectionError::Refused => ErrorKind::ConnectionRefused,
        ConnectionError::Reset => ErrorKind::ConnectionReset,
        // As Linux has it for sockets.
        ConnectionError::Unreachable(why) => match why {
            Unreachable::Network => ErrorKind::NetworkUnreachable,
            Unreachable::Host | Unreachable::Prohibited => ErrorKind::HostUnreachable,
            Unreachable::Port => ErrorKind::ConnectionRefused,
            Unreachable::Protocol => ErrorKind::Unsupported,
        },
        ConnectionError::TimedOut => ErrorKind::TimedOut,
        ConnectionError::Aborted | ConnectionError::Broken => ErrorKind::ConnectionAborted,
        ConnectionError::SendClosed => ErrorKind::BrokenPipe,
        ConnectionError::NoPath => ErrorKind::NetworkDown,
        ConnectionError::Resources => ErrorKind::QuotaExceeded,
    }
}

impl From<Error> for io::Error {
    fn from(e: Error) -> io::Error {
        io::Error::new(e.kind(), e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_what_and_with_whom_and_survive_in_io_errors() {
        let remote = "192.0.2.1:80".parse().unwrap();
        let e: io::Error = Error::Connection { remote, source: ConnectionError::Refused }.into();
        assert_eq!(e.kind(), ErrorKind::ConnectionRefused);
        let text =
            "connection with 192.0.2.1:80: connection refused: nothing listens at that address and port";
        assert_eq!(e.to_string(), text);
        let back = e.get_ref().and_then(|e| e.downcast_ref::<Error>());
        assert!(matches!(back, Some(Error::Connection { .. })));
        let e = Error::NoRoute { remote, nics: vec!["eth0".into(), "wlan0".into()] };
        assert_eq!(
            e.to_string(),
            "no route to 192.0.2.1 via eth0, wlan0: add one (ip route add 192.0.2.1 via GATEWAY dev eth0), or use another NIC"
        );
        let local = "[::]:22".parse().unwrap();
        let e: io::Error = Error::Listen { local, source: ListenError::InUse(local) }.into();
        assert_eq!(e.kind(), ErrorKind::AddrInUse);
    }
}

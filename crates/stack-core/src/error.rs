//! Why something could not be done, or ended.

use crate::wire::icmp::Unreachable;
use alloc::string::String;
use core::net::{IpAddr, SocketAddr};
use thiserror::Error;

/// A connection could not even be tried.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ConnectError {
    /// No path has an address of the destination's family.
    #[error("no path has an address that can reach {0}: add a path with an address of its family")]
    NoPath(IpAddr),
    /// The requested local address belongs to no path.
    #[error("local address {0} belongs to no path")]
    LocalAddress(IpAddr),
    /// The requested local address and the destination are of different families.
    #[error("no connection goes from {0} to {1}: one is IPv4 and the other IPv6")]
    Families(IpAddr, IpAddr),
    /// What the only path there may carry is used up (`PathConfig::allowance`).
    #[error("what the path {0} may carry is used up")]
    Spent(String),
    /// The four-tuple exists already.
    #[error("a connection from {0} to {1} exists already")]
    TupleInUse(SocketAddr, SocketAddr),
    /// No ephemeral port is left towards that destination.
    #[error("no local port is left for connections to {0}")]
    NoPort(SocketAddr),
    /// The destination is not an address one can connect to.
    #[error("{0} is not a unicast address and port that one can connect to")]
    BadRemote(SocketAddr),
    /// The incoming connection is not pending any more.
    #[error("the incoming connection has gone")]
    Gone,
    /// The stack holds as many connections as it may.
    #[error("the stack holds its maximum of {0} connections")]
    TooMany(usize),
    /// A name that no registry has.
    #[error("there is no {kind} named {name:?}; known are: {known}")]
    UnknownName {
        /// "congestion control" or "scheduler".
        kind: &'static str,
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
}

/// Listening failed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ListenError {
    /// Another listener of this stack has that address and port.
    #[error("{0} is in use by another listener")]
    InUse(SocketAddr),
    /// Port 0 cannot be listened on.
    #[error("a listener needs a port number from 1 to 65535")]
    NoPort,
    /// No path has that address.
    #[error("no path has the address {0}")]
    NoAddress(IpAddr),
}

/// A signal to the peer could not be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum SignalError {
    /// No such connection.
    #[error("no such connection")]
    NotFound,
    /// The connection is plain TCP, or has ended.
    #[error("the connection is not MPTCP, or not any more")]
    NotMptcp,
    /// No such subflow.
    #[error("the connection has no such subflow")]
    NoSubflow,
    /// All 255 Address IDs are in use (RFC 8684 §3.4.1).
    #[error("every address ID of the connection is in use")]
    NoAddressId,
}

/// Why a subflow is not opened or closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum SubflowError {
    /// No such connection.
    #[error("no such connection")]
    NotFound,
    /// The connection is plain TCP, or has ended.
    #[error("the connection is not MPTCP, or not any more")]
    NotMptcp,
    /// The peer has not shown yet that it takes subflows (RFC 8684 §3.1).
    #[error("the connection is too young for another subflow: the peer has not confirmed it yet")]
    TooEarly,
    /// No such subflow.
    #[error("the connection has no such subflow")]
    NoSubflow,
    /// The path does not exist, is down, is not for this connection, or has no address of that family.
    #[error("the path has no address from which the connection may open a subflow to there")]
    NoAddress,
    /// The peer takes no subflows at its first address and port (RFC 8684 §3.1, the C flag).
    #[error("the peer takes no subflow at that address and port")]
    Unwelcome,
    /// `ConnectionConfig::max_subflows` are there.
    #[error("the connection has as many subflows as it may have")]
    Limit,
    /// No local port or no Address ID is left.
    #[error("no local port or no address ID is left for the subflow")]
    Exhausted,
    /// There is no other subflow that works.
    #[error("it is the only subflow that works")]
    Only,
}

/// Why a connection ended, or cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ConnectionError {
    /// No such connection (any more).
    #[error("no such connection")]
    NotFound,
    /// The peer answered the SYN with a RST.
    #[error("connection refused: nothing listens at that address and port")]
    Refused,
    /// The peer reset the connection.
    #[error("connection reset by peer")]
    Reset,
    /// ICMP says that the peer cannot be reached.
    #[error("{0}")]
    Unreachable(Unreachable),
    /// The peer did not answer within the user timeout.
    #[error("connection timed out: the peer stopped answering")]
    TimedOut,
    /// The local application aborted it.
    #[error("connection aborted")]
    Aborted,
    /// Sending after shutdown.
    #[error("the sending direction is shut down")]
    SendClosed,
    /// Not connected yet.
    #[error("not connected yet")]
    NotConnected,
    /// The data stream cannot be continued without risk of delivering wrong bytes (RFC 8684 §3.7).
    #[error("the MPTCP data stream was broken by a middlebox and cannot fall back to TCP")]
    Broken,
    /// Every path the connection used has been removed.
    #[error("no path is left")]
    NoPath,
    /// More was received or opened than the configured bounds allow.
    #[error("a resource limit was reached")]
    Resources,
}

/// Why a running connection could not be given another part.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SetError {
    /// There is no such connection (any more).
    #[error("no such connection")]
    NotFound,
    /// No algorithm of that name is registered.
    #[error("there is no {kind} named {name:?}; known are: {known}")]
    UnknownName {
        /// "congestion control" or "scheduler".
        kind: &'static str,
        /// The name asked for.
        name: alloc::string::String,
        /// Those there are.
        known: alloc::string::String,
    },
}

/// Why a connection is not, or no longer, MPTCP (RFC 8684 §3.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum FallbackReason {
    /// Switched off locally.
    #[error("MPTCP is switched off")]
    Disabled,
    /// The peer's SYN carried no MP_CAPABLE (§3.1).
    #[error("the peer's SYN carried no MP_CAPABLE option (RFC 8684 section 3.1)")]
    NoOptionInSyn,
    /// An MP_CAPABLE that must be ignored: its form, version, B flag, algorithm, or a checksum decision that
    /// was not confirmed (§3.1).
    #[error("the MP_CAPABLE offered nothing acceptable (RFC 8684 section 3.1)")]
    Unacceptable,
    /// The peer requires DSS checksums, which are refused here (§3.1).
    #[error("the peer requires checksums, which are refused here (RFC 8684 section 3.1)")]
    ChecksumRefused,
    /// The SYN/ACK carried no MP_CAPABLE (§3.1).
    #[error(
        "the SYN/ACK carried no MP_CAPABLE option: the peer or the path does not support MPTCP (RFC 8684 section 3.1)"
    )]
    NoOptionInSynAck,
    /// SYNs with the option were lost; the one without was answered (§3.9).
    #[error("SYNs with MP_CAPABLE went unanswered, one without was answered (RFC 8684 section 3.9)")]
    SynsLost,
    /// SYNs with the option were lost on the way to this network lately, so it was not tried (§3.9.3).
    #[error("SYNs with MP_CAPABLE were lost on the way to this network lately (RFC 8684 section 3.9.3)")]
    BlackHole,
    /// The SYN/ACK of a server that speaks MPTCP came without it, and nothing came inside UDP.
    #[error("native: options stripped; UDP: no answer")]
    StrippedAndNoUdp,
    /// SYNs with the option to a server that speaks MPTCP were lost, and nothing came inside UDP.
    #[error("native: SYNs with MPTCP swallowed; UDP: no answer")]
    SwallowedAndNoUdp,
    /// The third ACK repeated another key than ours (§3.1).
    #[error("the third ACK of the handshake repeated a wrong key (RFC 8684 section 3.1)")]
    KeyMismatch,
    /// The third ACK carried no MP_CAPABLE (§3.7).
    #[error("the third ACK of the handshake carried no MP_CAPABLE option (RFC 8684 section 3.7)")]
    NoOptionInAck,
    /// The first data carried no MPTCP option (§3.7).
    #[error("the first data carried no MPTCP option (RFC 8684 section 3.7)")]
    NoOptionInData,
    /// The first data we sent was acknowledged without a DATA_ACK (§3.7).
    #[error("the first data was acknowledged without a DATA_ACK (RFC 8684 section 3.7)")]
    NoDataAck,
    /// The peer declared an infinite mapping (§3.7).
    #[error("the peer declared an infinite mapping (RFC 8684 section 3.7)")]
    InfiniteMapping,
    /// Checksum failure on the only subflow (§3.7).
    #[error(
        "a middlebox changed the payload: DSS checksum failure on the only subflow (RFC 8684 section 3.7)"
    )]
    ChecksumFailure,
    /// The peer sent MP_FAIL on the only subflow (§3.7).
    #[error("the peer reported a checksum failure with MP_FAIL (RFC 8684 section 3.7)")]
    MpFail,
    /// Both ends sent a SYN (§3.1).
    #[error("simultaneous open: both ends sent a SYN (RFC 8684 section 3.1)")]
    SimultaneousOpen,
    /// No unique token could be made (§3.1).
    #[error("no unique token could be made for the connection (RFC 8684 section 3.1)")]
    NoToken,
}

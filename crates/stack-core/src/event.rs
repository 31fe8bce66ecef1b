//! What the application should know.

use crate::error::{ConnectionError, FallbackReason};
use crate::wire::icmp::Unreachable;
use crate::wire::mptcp::ResetReason;
use core::net::SocketAddr;
use umptcp_types::{ConnectionId, Instant, ListenerId, PathId, SubflowId};

/// Payload that went over a subflow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Traffic {
    /// Bytes sent for the first time.
    pub sent: u64,
    /// Bytes received in order.
    pub received: u64,
}

impl Traffic {
    /// So many bytes in each direction.
    pub fn new(sent: u64, received: u64) -> Traffic {
        Traffic { sent, received }
    }
}

/// An incoming connection that waits for the caller to accept or refuse it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IncomingId(pub u64);

/// How an incoming connection is refused: what its client sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RefuseWith {
    /// RST: "connection refused".
    #[default]
    Reset,
    /// An ICMP error, which names another cause.
    Unreachable(Unreachable),
    /// Nothing: the client asks again until it gives up.
    Silence,
}

/// The RST that ended a subflow, with what its MP_TCPRST option says (RFC 8684 §3.6).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct SubflowReset {
    /// The peer (or a middlebox in its name) sent it; otherwise we did.
    pub by_peer: bool,
    /// The reason given; `None`: the RST carried no MP_TCPRST.
    pub reason: Option<ResetReason>,
    /// T: another attempt on this path may succeed.
    pub transient: bool,
}

impl SubflowReset {
    /// Who sent it, and what its MP_TCPRST option says: the reason, and the flag T.
    pub fn new(by_peer: bool, reason: Option<ResetReason>, transient: bool) -> SubflowReset {
        SubflowReset { by_peer, reason, transient }
    }
}

impl core::fmt::Display for SubflowReset {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(if self.by_peer { "reset by peer" } else { "reset by us" })?;
        match self.reason {
            Some(reason) => {
                let lasting = if self.transient { "transient" } else { "permanent" };
                write!(f, ": {reason} ({lasting}; RFC 8684 section 3.6)")
            }
            None => f.write_str(" without a reason"),
        }
    }
}

/// A subflow that ended other than by FIN, or whose join failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LostSubflow {
    /// When.
    pub at: Instant,
    /// Its id.
    pub subflow: SubflowId,
    /// Its local end.
    pub local: SocketAddr,
    /// Its remote end.
    pub remote: SocketAddr,
    /// Why.
    pub error: ConnectionError,
    /// The RST that ended it, if one did.
    pub reset: Option<SubflowReset>,
    /// It had been established.
    pub established: bool,
}

/// One thing that happened. Readiness events are coalesced, so treat each as "look again". If events are not
/// taken, those go first whose contents can be asked for (`StackConfig::max_events`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A SYN came in for a listener. Answer with `accept` or `refuse`, or leave it pending.
    Incoming {
        /// The listener it came to.
        listener: ListenerId,
        /// Names it until accepted or refused.
        incoming: IncomingId,
        /// The peer.
        remote: SocketAddr,
        /// The address it came to.
        local: SocketAddr,
        /// The SYN carries MP_CAPABLE.
        mptcp: bool,
        /// The handshake is complete already, by SYN cookie: the connection is established when accepted.
        complete: bool,
    },
    /// A connection that waited for the caller's word waits no longer: its client has given up, its path has
    /// gone, or it has waited too long.
    IncomingGone {
        /// What named it.
        incoming: IncomingId,
    },
    /// The handshake is complete; data may be sent and received. A connection accepted with data in its SYN
    /// (Fast Open, RFC 7413) can be used before that.
    Connected {
        /// The connection.
        connection: ConnectionId,
    },
    /// There is data to receive, or the end of the stream.
    Readable {
        /// The connection.
        connection: ConnectionId,
    },
    /// There is room in the send buffer again.
    Writable {
        /// The connection.
        connection: ConnectionId,
    },
    /// The peer asks for a sign of life (RFC 9293 §3.8.4); it has been answered. Only where
    /// [`report_keep_alive`](crate::config::ConnectionConfig::report_keep_alive) is set.
    KeepAlive {
        /// The connection.
        connection: ConnectionId,
    },
    /// The connection continues as plain TCP.
    FellBack {
        /// The connection.
        connection: ConnectionId,
        /// Why.
        reason: FallbackReason,
    },
    /// A subflow is established and may carry data.
    SubflowEstablished {
        /// The connection.
        connection: ConnectionId,
        /// The subflow.
        subflow: SubflowId,
        /// The path it uses.
        path: PathId,
    },
    /// A subflow has ended.
    SubflowClosed {
        /// The connection.
        connection: ConnectionId,
        /// The subflow.
        subflow: SubflowId,
        /// The path it used.
        path: PathId,
        /// What it carried.
        traffic: Traffic,
        /// Why, when it did not end by FIN.
        error: Option<ConnectionError>,
        /// The RST that ended it, if one did.
        reset: Option<SubflowReset>,
    },
    /// A subflow that we tried to open was refused or not answered (RFC 8684 §3.2).
    JoinFailed {
        /// The connection.
        connection: ConnectionId,
        /// The subflow.
        subflow: SubflowId,
        /// The path it would have used.
        path: PathId,
        /// Where it was to lead.
        remote: SocketAddr,
        /// Why.
        error: ConnectionError,
        /// The RST that refused it, if one did.
        reset: Option<SubflowReset>,
    },
    /// The connection has ended: cleanly, with all data delivered both ways, or with an error. Data that
    /// remain can still be received; `Stack::close` frees the connection.
    Closed {
        /// The connection.
        connection: ConnectionId,
        /// Why, when it did not end cleanly.
        error: Option<ConnectionError>,
    },
}

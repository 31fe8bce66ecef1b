//! What the application should know.

use crate::error::{ConnectionError, FallbackReason};
use core::net::SocketAddr;
use umptcp_types::{ConnectionId, ListenerId, PathId, SubflowId};

/// An incoming connection that waits for the caller to accept or refuse it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IncomingId(pub u64);

/// One thing that happened. Bounded: readiness events are coalesced, so treat each as "look again".
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
    },
    /// The handshake is complete; data may be sent and received.
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
    /// A subflow has gone.
    SubflowClosed {
        /// The connection.
        connection: ConnectionId,
        /// The subflow.
        subflow: SubflowId,
        /// Why, when it did not end by FIN.
        error: Option<ConnectionError>,
    },
    /// The connection has ended: cleanly, with all data delivered both ways, or with an error. Its id is free of use
    /// once the data that remains has been received.
    Closed {
        /// The connection.
        connection: ConnectionId,
        /// Why, when it did not end cleanly.
        error: Option<ConnectionError>,
    },
}

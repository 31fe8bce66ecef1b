//! What happens to paths, listeners, connections and subflows, for programs that watch a stack as `ip mptcp
//! monitor` watches the kernel.
//!
//! Unlike [`Event`](crate::event::Event), none of it needs an answer, and nothing is done for it while nobody
//! watches (`Stack::watch`).

use crate::error::{ConnectionError, FallbackReason};
use crate::event::SubflowReset;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use umptcp_types::{AddressId, ConnectionId, Instant, ListenerId, PathId, SubflowId};

/// The connection that something happened to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct MonitoredConnection {
    /// Its id in the stack.
    pub id: ConnectionId,
    /// Our token (RFC 8684 §3.1); `None`: it is plain TCP.
    pub token: Option<u32>,
    /// Local end of the first subflow.
    pub local: SocketAddr,
    /// Remote end of the first subflow.
    pub remote: SocketAddr,
    /// The peer began it.
    pub server: bool,
}

impl MonitoredConnection {
    pub(crate) fn new(
        id: ConnectionId,
        token: Option<u32>,
        (local, remote): (SocketAddr, SocketAddr),
        server: bool,
    ) -> Self {
        MonitoredConnection { id, token, local, remote, server }
    }
}

/// The subflow that something happened to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct MonitoredSubflow {
    /// Its id in the connection.
    pub id: SubflowId,
    /// It is the first, which MP_CAPABLE began.
    pub initial: bool,
    /// The path it uses.
    pub path: PathId,
    /// Local end.
    pub local: SocketAddr,
    /// Remote end.
    pub remote: SocketAddr,
    /// Our Address ID of the local address (RFC 8684 §3.2).
    pub local_id: AddressId,
    /// The peer's Address ID of the remote address.
    pub remote_id: AddressId,
    /// Either end wants it as a backup.
    pub backup: bool,
}

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum MonitorEvent {
    /// A path was added.
    PathAdded {
        /// The path.
        path: PathId,
        /// Its name.
        name: String,
        /// The stack's addresses on it.
        addresses: Vec<IpAddr>,
    },
    /// The addresses of a path are others.
    PathReaddressed {
        /// The path.
        path: PathId,
        /// Its name.
        name: String,
        /// The stack's addresses on it now.
        addresses: Vec<IpAddr>,
    },
    /// A path was removed, or its device has gone.
    PathRemoved {
        /// The path.
        path: PathId,
        /// Its name.
        name: String,
    },
    /// A listener was opened (Linux: LISTENER_CREATED).
    ListenerCreated {
        /// The listener.
        listener: ListenerId,
        /// Where it listens.
        local: SocketAddr,
    },
    /// A listener was closed (Linux: LISTENER_CLOSED).
    ListenerClosed {
        /// The listener.
        listener: ListenerId,
        /// Where it listened.
        local: SocketAddr,
    },
    /// A connection was begun: we connect, or a SYN was accepted (Linux: CREATED).
    ConnectionCreated {
        /// The connection. The token shows that MPTCP is offered.
        connection: MonitoredConnection,
    },
    /// The handshake is complete (Linux: ESTABLISHED).
    ConnectionEstablished {
        /// The connection.
        connection: MonitoredConnection,
    },
    /// A connection goes on as plain TCP.
    FellBack {
        /// The connection, which has lost its token.
        connection: MonitoredConnection,
        /// Why.
        reason: FallbackReason,
    },
    /// A connection has ended (Linux: CLOSED): all data have arrived in both directions, or it failed. Its
    /// subflows may end after it.
    ConnectionClosed {
        /// The connection.
        connection: MonitoredConnection,
        /// Why, when it did not end cleanly.
        error: Option<ConnectionError>,
    },
    /// The peer has advertised an address (ADD_ADDR, RFC 8684 §3.4.1; Linux: ANNOUNCED). It may do so again.
    AddressAnnounced {
        /// The connection.
        connection: MonitoredConnection,
        /// The peer's ID of the address.
        id: AddressId,
        /// The address, with the port to join at.
        address: SocketAddr,
    },
    /// The peer has withdrawn an address (REMOVE_ADDR, RFC 8684 §3.4.2; Linux: REMOVED).
    AddressRemoved {
        /// The connection.
        connection: MonitoredConnection,
        /// The peer's ID of the address.
        id: AddressId,
    },
    /// A subflow is established and may carry data (Linux: SF_ESTABLISHED).
    SubflowEstablished {
        /// The connection.
        connection: MonitoredConnection,
        /// The subflow.
        subflow: MonitoredSubflow,
    },
    /// A subflow has ended that was established (Linux: SF_CLOSED).
    SubflowClosed {
        /// The connection.
        connection: MonitoredConnection,
        /// The subflow.
        subflow: MonitoredSubflow,
        /// Why, when it did not end by FIN.
        error: Option<ConnectionError>,
        /// The RST that ended it, if one did, with the reason that its MP_TCPRST gives (RFC 8684 §3.6).
        reset: Option<SubflowReset>,
    },
    /// A subflow that we tried to open was refused or not answered (Linux: SF_CLOSED with an error).
    JoinFailed {
        /// The connection.
        connection: MonitoredConnection,
        /// The subflow.
        subflow: MonitoredSubflow,
        /// Why.
        error: ConnectionError,
        /// The RST that refused it, if one did.
        reset: Option<SubflowReset>,
    },
    /// Either end wants a subflow as a backup, or not any more (MP_PRIO, RFC 8684 §3.3.8; Linux: SF_PRIO).
    PriorityChanged {
        /// The connection.
        connection: MonitoredConnection,
        /// The subflow, with what holds now.
        subflow: MonitoredSubflow,
        /// The peer wants it; otherwise we do.
        by_peer: bool,
    },
    /// Whoever watches was too slow: this many events in this place are lost.
    Missed {
        /// How many.
        events: u64,
    },
}

/// When something happened, and what.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Monitored {
    /// When. For [`MonitorEvent::Missed`], the first of them.
    pub at: Instant,
    /// What.
    pub event: MonitorEvent,
}

impl Monitored {
    /// `count` events do not fit into a queue: says so at its end.
    pub fn miss(queue: &mut VecDeque<Monitored>, at: Instant, count: u64) {
        if let Some(Monitored { event: MonitorEvent::Missed { events }, .. }) = queue.back_mut() {
            *events += count;
        } else {
            queue.push_back(Monitored { at, event: MonitorEvent::Missed { events: count } });
        }
    }

    /// How many events it stands for.
    pub fn count(&self) -> u64 {
        match self.event {
            MonitorEvent::Missed { events } => events,
            _ => 1,
        }
    }
}

//! What can go wrong in a simulation.

use crate::id::{FlowId, NodeId, Side};
use std::fmt;
use umptcp_stack_core::error::{ConnectError, ConnectionError, ListenError};
use umptcp_types::Instant;

/// Why a simulation could not go on, or did not do what was waited for.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SimError {
    /// Too many events without time passing: two parts keep each other busy, or one keeps asking to be called
    /// at once.
    Livelock {
        /// The instant that does not pass.
        at: Instant,
        /// What was busy last.
        who: String,
    },
    /// More events than the limit allows.
    TooManyEvents {
        /// The limit.
        limit: u64,
        /// How far the virtual time got.
        at: Instant,
    },
    /// A byte that an application received is not the one that was sent.
    Corrupt {
        /// The connection.
        flow: FlowId,
        /// Who received it.
        side: Side,
        /// Its position in the stream.
        offset: u64,
    },
    /// An application received more bytes than were sent, or the end of the stream before all of them.
    Length {
        /// The connection.
        flow: FlowId,
        /// Who received.
        side: Side,
        /// Bytes sent by the peer.
        sent: u64,
        /// Bytes received.
        received: u64,
    },
    /// What was waited for did not happen in the virtual time given for it.
    TimedOut {
        /// The time at which waiting ended.
        at: Instant,
        /// What was waited for.
        waiting_for: String,
    },
    /// Nothing more will happen, and what was waited for has not.
    Stalled {
        /// The time of the last event.
        at: Instant,
        /// What was waited for.
        waiting_for: String,
    },
    /// A connection ended with an error.
    Connection {
        /// Which.
        flow: FlowId,
        /// On which side.
        side: Side,
        /// With which.
        error: ConnectionError,
    },
    /// A stack refused to connect.
    Connect(ConnectError),
    /// A stack refused to listen.
    Listen(ListenError),
    /// The node is not a host with a stack.
    NotAHost(NodeId),
}

impl fmt::Display for SimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SimError::Livelock { at, who } => write!(f, "livelock at {at}: {who} keeps being busy"),
            SimError::TooManyEvents { limit, at } => {
                write!(f, "more than {limit} events; virtual time got to {at}")
            }
            SimError::Corrupt { flow, side, offset } => {
                write!(f, "{flow:?}: {side:?} received a wrong byte at offset {offset}")
            }
            SimError::Length { flow, side, sent, received } => {
                write!(f, "{flow:?}: {side:?} received {received} bytes where {sent} were sent")
            }
            SimError::TimedOut { at, waiting_for } => write!(f, "still waiting at {at} for {waiting_for}"),
            SimError::Stalled { at, waiting_for } => {
                write!(f, "nothing happens after {at}, while waiting for {waiting_for}")
            }
            SimError::Connection { flow, side, error } => write!(f, "{flow:?}: {side:?}: {error}"),
            SimError::Connect(e) => write!(f, "connect: {e}"),
            SimError::Listen(e) => write!(f, "listen: {e}"),
            SimError::NotAHost(node) => write!(f, "{node:?} has no stack"),
        }
    }
}

impl std::error::Error for SimError {}

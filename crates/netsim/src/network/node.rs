//! Nodes, their paths, and the cables between them.

use crate::cable::Cable;
use crate::direction::Direction;
use std::net::IpAddr;
use umptcp_stack_core::Stack;
use umptcp_stack_core::device::{RxPacket, Transmit};
use umptcp_types::{Instant, PathId};

/// A node that is not a host of this stack: another TCP implementation, or a hostile peer.
pub trait PacketNode: Send {
    /// A packet came in on `path` (the number of the path in order of
    /// [`Network::add_path`](super::Network::add_path) on this node).
    fn handle_packet(&mut self, now: Instant, path: PathId, packet: RxPacket);
    /// The next packet to send; called until `None`.
    fn poll_transmit(&mut self, now: Instant) -> Option<Transmit>;
    /// When to call [`PacketNode::handle_timeout`].
    fn poll_timeout(&self) -> Option<Instant>;
    /// The time of [`PacketNode::poll_timeout`] has come.
    fn handle_timeout(&mut self, now: Instant);
}

pub(super) enum NodeKind {
    Host(Box<Stack>),
    Router,
    Custom(Box<dyn PacketNode>),
}

/// A cable's end at a node: the cable, and the direction that leads away from the node.
pub(super) type CableEnd = (usize, Direction);

pub(super) struct NodePath {
    pub(super) id: PathId,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) cables: Vec<CableEnd>,
    /// Merge consecutive packets that arrive at the same instant (GRO).
    pub(super) gro: bool,
    pub(super) removed: bool,
}

pub(super) struct Node {
    pub(super) name: String,
    pub(super) kind: NodeKind,
    pub(super) paths: Vec<NodePath>,
    pub(super) cables: Vec<CableEnd>,
    pub(super) armed: Option<Instant>,
}

pub(super) struct CableSlot {
    pub(super) cable: Cable,
    /// The nodes at its first and second end.
    pub(super) ends: [usize; 2],
    pub(super) armed: Option<Instant>,
}

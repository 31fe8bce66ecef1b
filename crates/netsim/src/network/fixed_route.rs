//! Ways that are prescribed instead of computed.

use super::node::CableEnd;

/// The way prescribed for packets from one address to another.
#[derive(Debug)]
pub(super) struct FixedRoute {
    pub(super) cables: Vec<CableEnd>,
    /// The node and the number of its path that has the destination address.
    pub(super) owner: (usize, usize),
}

/// Where a packet on a prescribed way goes next.
pub(super) enum Hop {
    Cable(CableEnd),
    /// It is there: the node, and the number of its path.
    Node(usize, usize),
}

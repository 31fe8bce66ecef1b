//! Watching what goes into and out of the hosts' stacks.

use crate::id::NodeId;
use umptcp_stack_core::device::{RxPacket, Transmit};
use umptcp_stack_core::event::Event;
use umptcp_stack_core::observe::Observer;
use umptcp_types::{Instant, PathId};

/// Sees everything that passes between the network and the stacks of its hosts.
///
/// A [`Tap`](crate::trace::Tap) sees packets on cables; this sees them as the stack gives and takes them,
/// before segmentation and after coalescing.
pub trait Probe: Send {
    /// The observer for the stack of a host, asked for once per host.
    fn observer(&mut self, host: NodeId) -> Option<Box<dyn Observer>>;
    /// A stack sends a packet.
    fn sent(&mut self, now: Instant, host: NodeId, packet: &Transmit);
    /// A stack is about to be handed a packet.
    fn received(&mut self, now: Instant, host: NodeId, path: PathId, packet: &RxPacket);
    /// A stack tells the application something.
    fn event(&mut self, now: Instant, host: NodeId, event: &Event);
}

//! Why packets are lost.

/// Why a packet did not arrive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum DropReason {
    /// The link's queue was full.
    Queue,
    /// The link's loss model dropped it.
    Loss,
    /// The link was cut.
    Cut,
    /// Larger than the link's MTU.
    TooBig,
    /// No node has its destination address, or no cable leads there.
    NoRoute,
    /// RED or CoDel dropped it from a queue that had room.
    Early,
}

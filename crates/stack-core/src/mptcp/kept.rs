//! What was refused for want of memory and is kept, a packet of each subflow.

use crate::wire::tcp::TcpRepr;
use bytes::Bytes;
use umptcp_types::SubflowId;

/// A packet of a segment that was refused.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) subflow: SubflowId,
    pub(super) seg: TcpRepr,
    pub(super) payload: Bytes,
}

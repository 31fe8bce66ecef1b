//! A segment that belongs to no subflow.

use crate::tcp::FourTuple;
use crate::wire::tcp::TcpRepr;
use bytes::Bytes;
use umptcp_types::PathId;

/// Where it came from, and what it says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stray<'a> {
    pub(super) path: PathId,
    pub(super) tuple: FourTuple,
    pub(super) seg: &'a TcpRepr,
    pub(super) payload: &'a Bytes,
}

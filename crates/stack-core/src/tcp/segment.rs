//! Segments on their way in and out.

use crate::buffers::payload::Payload;
use crate::wire::tcp::{TcpFlags, TcpRepr};
use bytes::Bytes;
use umptcp_types::SubflowOffset;

/// A segment that came in.
#[derive(Debug)]
pub(crate) struct Arrival<'a> {
    /// Its header.
    pub(crate) seg: &'a TcpRepr,
    /// Its payload.
    pub(crate) payload: Bytes,
    /// The packet bears a congestion mark (RFC 3168 §5: CE).
    pub(crate) marked: bool,
    /// Its options carry a signal of the connection's, so that it is no duplicate ACK (RFC 8684 §3.4.1).
    pub(crate) signals: bool,
}

/// What a segment is for; decides which options of the connection's belong on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// SYN of the active side.
    Syn,
    /// SYN/ACK.
    SynAck,
    /// Carries payload.
    Data,
    /// Carries no payload; may carry FIN.
    Ack,
    /// An ACK below the peer's window, to make it answer. The peer takes nothing else from it (RFC 9293
    /// §3.10.7.4), so it carries no signal and settles no ACK that is owed.
    Probe,
}

/// A segment that is to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Segment<M> {
    pub(crate) kind: Kind,
    pub(crate) seq: SubflowOffset,
    pub(crate) flags: TcpFlags,
    pub(crate) payload: Payload,
    /// What the connection has attached to the payload.
    pub(crate) tag: Option<M>,
    /// It carries data for the first time.
    pub(crate) fresh: bool,
}

impl<M> Segment<M> {
    /// A segment without payload.
    pub(super) fn bare(kind: Kind, seq: SubflowOffset, flags: TcpFlags) -> Self {
        Segment { kind, seq, flags, payload: Payload::new(), tag: None, fresh: false }
    }
}

/// New data to be sent.
#[derive(Debug)]
pub(crate) struct NewData<M> {
    /// The bytes.
    pub(crate) payload: Payload,
    /// What the connection attaches to them.
    pub(crate) tag: Option<M>,
    /// Sets PSH: nothing follows for now.
    pub(crate) push: bool,
    /// There was no more to send, or no window from the peer for it (RFC 7661).
    pub(crate) app_limited: bool,
}

//! Segments, and their transmissions.

use crate::buffers::payload::Payload;
use crate::types::{Instant, SubflowOffset};
use core::ops::Range;

/// What is sent for the first time.
#[derive(Clone, Debug)]
pub(in crate::tcp) struct Outgoing<M> {
    /// Its payload.
    pub(in crate::tcp) payload: Payload,
    /// It starts with the SYN.
    pub(in crate::tcp) syn: bool,
    /// It ends with the FIN.
    pub(in crate::tcp) fin: bool,
    /// The tag to be kept with it.
    pub(in crate::tcp) tag: M,
    /// There was no more data to send or no window from the peer for it (RFC 7661).
    pub(in crate::tcp) app_limited: bool,
}

impl<M> Outgoing<M> {
    /// Data.
    pub(in crate::tcp) fn data(payload: Payload, tag: M, app_limited: bool) -> Self {
        Outgoing { payload, syn: false, fin: false, tag, app_limited }
    }

    /// A SYN by itself.
    pub(in crate::tcp) fn syn(tag: M) -> Self {
        Outgoing { payload: Payload::new(), syn: true, fin: false, tag, app_limited: false }
    }

    /// A FIN by itself.
    pub(in crate::tcp) fn fin(tag: M) -> Self {
        Outgoing { payload: Payload::new(), syn: false, fin: true, tag, app_limited: true }
    }
}

/// Part of a segment, to be sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::tcp) struct Chunk<M> {
    /// Sequence space it occupies, SYN and FIN included.
    pub(in crate::tcp) range: Range<SubflowOffset>,
    /// Its payload.
    pub(in crate::tcp) payload: Payload,
    /// It contains the SYN.
    pub(in crate::tcp) syn: bool,
    /// It contains the FIN.
    pub(in crate::tcp) fin: bool,
    /// The tag of the whole segment it is part of.
    pub(in crate::tcp) tag: M,
}

/// One sending of some bytes. Ids grow with each, so they order transmissions of the same instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transmission {
    pub(super) id: u64,
    pub(super) at: Instant,
}

/// A segment as it was first sent.
#[derive(Clone, Debug)]
pub(super) struct Segment<M> {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) payload: Payload,
    pub(super) syn: bool,
    pub(super) fin: bool,
    pub(super) tag: M,
    pub(super) app_limited: bool,
    pub(super) tx: Transmission,
}

impl<M> Segment<M> {
    /// Offsets of the payload, without SYN and FIN.
    pub(super) fn data(&self) -> Range<u64> {
        self.start + u64::from(self.syn)..self.end - u64::from(self.fin)
    }
}

/// An entry of the queue in order of sending.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) tx: Transmission,
    /// First transmission of these bytes: their segment holds `tx` too. Otherwise `resent` does.
    pub(super) first: bool,
}

impl<M: Clone> Segment<M> {
    /// The part `range` of this segment.
    pub(super) fn chunk(&self, range: Range<u64>) -> Chunk<M> {
        let data = self.data();
        let from = range.start.clamp(data.start, data.end) - data.start;
        let to = range.end.clamp(data.start, data.end) - data.start;
        Chunk {
            syn: self.syn && range.start <= self.start,
            fin: self.fin && range.end >= self.end,
            range: SubflowOffset(range.start)..SubflowOffset(range.end),
            payload: self.payload.slice(from as usize..to as usize),
            tag: self.tag.clone(),
        }
    }
}

//! What to send again.

use super::board::Scoreboard;
use super::parts::{Chunk, Sent};
use crate::types::{Instant, SubflowOffset};
use core::fmt::Debug;
use core::ops::Range;

impl<M: Clone + Debug> Scoreboard<M> {
    /// The lowest lost bytes, at most `max_len` of payload and of one segment only. A look, not a change:
    /// report the sending with [`retransmitted`](Self::retransmitted).
    ///
    /// `None` when nothing is lost, or when `max_len` is 0 and neither a SYN nor a FIN would fit by itself.
    pub(in crate::tcp) fn next_lost(&self, max_len: usize) -> Option<Chunk<M>> {
        self.front_chunk(self.lost.first()?, max_len)
    }

    /// The lowest bytes not SACKed, lost or not: for the retransmission timer, a SYN, or a probe. Cut like
    /// [`next_lost`](Self::next_lost).
    pub(in crate::tcp) fn first_unacked(&self, max_len: usize) -> Option<Chunk<M>> {
        self.front_chunk(self.sacked.first_gap(self.una..self.nxt)?, max_len)
    }

    /// The end of the last segment not SACKed, at most `max_len` bytes of payload: what a tail loss probe
    /// repeats when there is nothing new to send (RFC 8985 §7.3).
    pub(in crate::tcp) fn tail_probe(&self, max_len: usize) -> Option<Chunk<M>> {
        let gap = self.sacked.last_gap(self.una..self.nxt)?;
        let segment = self.segments.get(self.segment_index(gap.end - 1))?;
        let data = segment.data();
        let end = gap.end;
        let lowest = gap.start.max(segment.start);
        let by_len = end.min(data.end).max(data.start).saturating_sub(max_len as u64);
        // A SYN before the payload comes along when all of the payload does.
        let start = if by_len <= data.start { lowest } else { lowest.max(by_len) };
        (start < end).then(|| segment.chunk(start..end))
    }

    /// The start of `range`, within one segment and with at most `max_len` bytes of payload.
    fn front_chunk(&self, range: Range<u64>, max_len: usize) -> Option<Chunk<M>> {
        let segment = self.segments.get(self.segment_index(range.start))?;
        let data = segment.data();
        let limit = range.start.clamp(data.start, data.end).saturating_add(max_len as u64);
        // A FIN after the payload comes along when all of the payload does.
        let limit = if limit >= data.end { segment.end } else { limit };
        let end = range.end.min(limit);
        (range.start < end).then(|| segment.chunk(range.start..end))
    }

    /// `range` was sent again: a chunk from [`next_lost`](Self::next_lost),
    /// [`first_unacked`](Self::first_unacked) or
    /// [`tail_probe`](Self::tail_probe). Bytes acknowledged or SACKed in the meantime are left out.
    pub(in crate::tcp) fn retransmitted(&mut self, now: Instant, range: Range<SubflowOffset>) {
        let (start, end) = (range.start.0.max(self.una), range.end.0.min(self.nxt));
        if start >= end {
            return;
        }
        let tx = self.transmission(now);
        let episode = self.in_recovery();
        let mut at = start;
        while let Some(gap) = self.sacked.first_gap(at..end) {
            at = gap.end;
            self.lost.remove(gap.clone());
            self.resent.insert(gap.clone(), tx);
            self.retransmitted.insert(gap);
        }
        self.undo.retransmitted(tx.at, start..end, episode);
        self.sent.push_back(Sent { start, end, tx, first: false });
        self.prune();
    }
}

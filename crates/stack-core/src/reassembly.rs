//! Bytes that arrived out of order, at the level of a subflow or of the connection's data.
//!
//! Positions are unwrapped 64-bit offsets. Pieces stay the slices they arrived as, because payload is copied once only, in the
//! system call, but for two cases in which that would hold much memory for few bytes:
//! - a piece of less than [`COPY_BELOW`] bytes is copied out of its receive buffer, which may be 64 kB;
//! - copied pieces that adjoin are joined, in sizes that grow geometrically up to [`JOIN_UP_TO`], so that each byte is moved
//!   a bounded number of times and a million one-byte segments become some sixty pieces.
//!
//! So memory is at most 64 KiB / `COPY_BELOW` = 8 times the bytes for large pieces and about twice for small ones, and
//! [`PIECE_OVERHEAD`] per island of bytes with a gap on both sides, of which there are at most [`MAX_ISLANDS`].
//! [`Reassembly::buffered_bytes`] counts the latter two, so that a window computed from it shrinks for peers that send islands.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::Bytes;
use core::ops::Range;
use smallvec::SmallVec;

use crate::tcp::scoreboard::RangeSet;

/// Pieces shorter than this are copied.
pub const COPY_BELOW: usize = 8 * 1024;
/// Copied pieces are joined up to this size.
pub const JOIN_UP_TO: usize = 16 * 1024;
/// Book-keeping per piece, estimated.
pub const PIECE_OVERHEAD: usize = 128;
/// Most islands of contiguous bytes held; data that would make one more are refused, as if lost.
///
/// A flight of 128 MB that loses one packet in a hundred makes about a thousand.
pub const MAX_ISLANDS: usize = 16 * 1024;

/// How many recently changed ranges are remembered for SACK blocks: an option holds four at most.
const RECENT: usize = 8;

/// What [`Reassembly::insert`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Insertion {
    /// Bytes kept that were not there before.
    pub new_bytes: u64,
    /// The lowest contiguous part of the payload that had been received before: a D-SACK block (RFC 2883 §4).
    pub duplicate: Option<Range<u64>>,
    /// New bytes lie after everything that was held.
    pub tail: bool,
    /// New bytes adjoin bytes that were held.
    pub merged: bool,
    /// There are too many islands: new bytes were thrown away and the peer must send them again.
    pub refused: bool,
}

/// Bytes waiting for the gaps before them to be filled.
#[derive(Clone, Debug, Default)]
pub struct Reassembly {
    /// Disjoint, by position.
    pieces: BTreeMap<u64, Piece>,
    /// What `pieces` cover, with adjoining pieces joined.
    held: RangeSet,
    /// A position inside each recently changed range, latest first.
    recent: SmallVec<[u64; RECENT]>,
    memory: usize,
}

#[derive(Clone, Debug)]
enum Piece {
    /// A slice of a receive buffer.
    Shared(Bytes),
    /// Copied small payloads.
    Copied(Vec<u8>),
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Piece::Shared(b) => b.len(),
            Piece::Copied(v) => v.len(),
        }
    }

    fn memory(&self) -> usize {
        PIECE_OVERHEAD
            + match self {
                Piece::Shared(b) => b.len(),
                Piece::Copied(v) => v.capacity(),
            }
    }
}

impl Reassembly {
    /// Nothing held.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing is held.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Memory held in bytes: payload, the unused part of copies, and book-keeping.
    pub fn buffered_bytes(&self) -> usize {
        self.memory
    }

    /// Payload bytes held.
    pub fn len(&self) -> u64 {
        self.held.total()
    }

    /// End of the highest byte held.
    pub fn end(&self) -> Option<u64> {
        self.held.last().map(|r| r.end)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes `payload`, whose first byte has position `at`.
    ///
    /// `next` is the next position expected in order: what lies below was delivered before. Bytes at or above `limit_end`
    /// are outside the window and cut off. Of bytes that were received twice the first copy stays (RFC 8684 §3.3.1).
    pub fn insert(&mut self, next: u64, at: u64, payload: Bytes, limit_end: u64) -> Insertion {
        let mut out = Insertion::default();
        let end_received = at.saturating_add(payload.len() as u64);
        let start = at.max(next);
        let end = end_received.min(limit_end);
        if at < next && at < end_received {
            out.duplicate = Some(at..next.min(end_received));
        }
        if start >= end {
            return out;
        }
        let held = self.held.next_from(start).filter(|r| r.start < end);
        if let Some(r) = held {
            let again = r.start.max(start)..r.end.min(end);
            match &mut out.duplicate {
                // What was delivered and what is held are one block when they touch.
                Some(d) if d.end == again.start => d.end = again.end,
                Some(_) => {}
                none => *none = Some(again),
            }
        }
        let touches = self.held.next_from(start.saturating_sub(1)).is_some_and(|r| r.start <= end);
        if !touches && self.held.len() >= MAX_ISLANDS {
            out.refused = true;
            return out;
        }
        let highest = self.end();
        let mut from = start;
        while let Some(gap) = self.held.first_gap(from..end) {
            from = gap.end;
            out.new_bytes += gap.end - gap.start;
            out.tail |= highest.is_none_or(|h| gap.start >= h);
            self.add(gap.start, payload.slice((gap.start - at) as usize..(gap.end - at) as usize));
        }
        if out.new_bytes > 0 {
            out.merged = touches;
            self.held.insert(start..end);
        }
        self.touch(start);
        out
    }

    /// The bytes that start exactly at `next`, as far as they are one piece. Call again, with `next` advanced, until `None`.
    pub fn pop(&mut self, next: u64) -> Option<Bytes> {
        // Anything lower was delivered by other means.
        while self.pieces.first_key_value().is_some_and(|(&at, _)| at < next) {
            let (at, piece) = self.pieces.pop_first()?;
            self.memory -= piece.memory();
            let end = at + piece.len() as u64;
            self.held.remove(at..end.min(next));
            if end > next {
                let bytes = piece.into_bytes().slice((next - at) as usize..);
                self.add_piece(next, Piece::Shared(bytes));
            }
        }
        let piece = self.pieces.remove(&next)?;
        self.memory -= piece.memory();
        self.held.remove(next..next + piece.len() as u64);
        Some(piece.into_bytes())
    }

    /// The ranges held, for SACK blocks, at most `max`: first the one that changed last, then those that changed before it
    /// (RFC 2018 §4), and then the lowest of the others.
    pub fn sack_blocks(&self, max: usize) -> SmallVec<[Range<u64>; 4]> {
        let mut blocks: SmallVec<[Range<u64>; 4]> = SmallVec::new();
        let recent = self.recent.iter().filter_map(|&at| self.held.covering(at));
        for block in recent.chain(self.held.iter().take(max)) {
            if blocks.len() >= max {
                break;
            }
            if !blocks.contains(&block) {
                blocks.push(block);
            }
        }
        blocks
    }

    /// The range that contains position `at` moves to the front of `recent`, and other mentions of it go.
    fn touch(&mut self, at: u64) {
        let Some(range) = self.held.covering(at) else { return };
        self.recent.retain(|p| !range.contains(p));
        self.recent.truncate(RECENT - 1);
        self.recent.insert(0, at);
    }

    /// Keeps `bytes` at the free position `at`.
    fn add(&mut self, at: u64, bytes: Bytes) {
        if bytes.len() >= COPY_BELOW {
            self.add_piece(at, Piece::Shared(bytes));
            return;
        }
        let end = at + bytes.len() as u64;
        // In order behind a copied piece, the ordinary case: append.
        if let Some((_, before)) = self.copied_before(at)
            && before.len() + bytes.len() <= JOIN_UP_TO
        {
            let grown = before.capacity();
            before.extend_from_slice(&bytes);
            let grown = before.capacity() - grown;
            self.memory += grown;
            self.join_neighbours(at, end);
            return;
        }
        self.add_piece(at, Piece::Copied(bytes.to_vec()));
        self.join_neighbours(at, end);
    }

    fn add_piece(&mut self, at: u64, piece: Piece) {
        self.memory += piece.memory();
        self.pieces.insert(at, piece);
    }

    /// The copied piece that ends at `at`, and where it starts.
    fn copied_before(&mut self, at: u64) -> Option<(u64, &mut Vec<u8>)> {
        match self.pieces.range_mut(..at).next_back() {
            Some((&start, Piece::Copied(v))) if start + v.len() as u64 == at => Some((start, v)),
            _ => None,
        }
    }

    /// Joins the copied piece that contains `at` with the copied pieces next to it. A piece moves only into one at
    /// least a quarter as long as itself, so each move of a byte leaves it in a piece a quarter longer or more.
    fn join_neighbours(&mut self, at: u64, end: u64) {
        let Some((&start, Piece::Copied(own))) = self.pieces.range(..=at).next_back() else { return };
        let mut len = own.len();
        debug_assert_eq!(start + len as u64, end);
        // Followers move into it.
        while let Some(Piece::Copied(next)) = self.pieces.get(&(start + len as u64)) {
            if len + next.len() > JOIN_UP_TO || next.len() > 4 * len {
                break;
            }
            self.append(start, start + len as u64);
            len = self.pieces.get(&start).map_or(len, Piece::len);
        }
        // It moves into those before.
        let mut start = start;
        while let Some((before_start, before)) = self.copied_before(start) {
            if len + before.len() > JOIN_UP_TO || len > 4 * before.len() {
                break;
            }
            len += before.len();
            self.append(before_start, start);
            start = before_start;
        }
    }

    /// Moves the copied piece at `from` to the end of the copied piece at `into`.
    fn append(&mut self, into: u64, from: u64) {
        let Some(Piece::Copied(tail)) = self.pieces.remove(&from) else { return };
        self.memory -= PIECE_OVERHEAD + tail.capacity();
        if let Some(Piece::Copied(v)) = self.pieces.get_mut(&into) {
            let before = v.capacity();
            v.extend_from_slice(&tail);
            self.memory += v.capacity() - before;
        }
    }
}

impl Piece {
    fn into_bytes(self) -> Bytes {
        match self {
            Piece::Shared(b) => b,
            Piece::Copied(v) => v.into(),
        }
    }
}

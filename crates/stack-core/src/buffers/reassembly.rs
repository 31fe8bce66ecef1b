//! Bytes that arrived out of order, at the level of a subflow or of the connection's data.
//!
//! Positions are unwrapped 64-bit offsets. Pieces stay the slices they arrived as, because payload is copied
//! once only, in the system call, but for two cases in which that would hold much memory for few bytes:
//! - a piece of less than 8 KiB is copied out of its receive buffer, which may be 64 KiB;
//! - copied pieces that adjoin are joined, in sizes that grow geometrically up to 16 KiB, so that each byte
//!   is moved a bounded number of times and a million one-byte segments become some sixty pieces.
//!
//! So memory is at most 64 / 8 = 8 times the bytes for large pieces and about twice for small ones, and some
//! 128 bytes of bookkeeping for each island (bytes with a gap on both sides), of which there are at most
//! [`MAX_ISLANDS`]. The caller's window bounds the bytes: what lies beyond it is cut off.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::Bytes;
use core::ops::Range;
use smallvec::SmallVec;

use super::join::JoinRule;
use super::ranges::RangeSet;

/// Which pieces are copied, and how far the copies are joined.
const JOIN: JoinRule = JoinRule { copy_below: 8 * 1024, join_up_to: 16 * 1024 };
/// Most islands of contiguous bytes held; data that would make one more are refused, as if lost.
///
/// A flight of 128 MB that loses one packet in a hundred makes about a thousand.
pub(crate) const MAX_ISLANDS: usize = 16 * 1024;

/// How many recently changed ranges are remembered for SACK blocks: an option holds four at most.
const RECENT: usize = 8;

/// What [`Reassembly::insert`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Insertion {
    /// Bytes kept that were not there before.
    pub(crate) new_bytes: u64,
    /// The lowest contiguous part of the payload that had been received before: a D-SACK block (RFC 2883 §4).
    pub(crate) duplicate: Option<Range<u64>>,
    /// New bytes lie after everything that was held.
    pub(crate) tail: bool,
    /// New bytes adjoin bytes that were held.
    pub(crate) merged: bool,
    /// There are too many islands: new bytes were thrown away and the peer must send them again.
    pub(crate) refused: bool,
}

/// Bytes waiting for the gaps before them to be filled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reassembly {
    /// Disjoint, by position.
    pieces: BTreeMap<u64, Piece>,
    /// What `pieces` cover, with adjoining pieces joined.
    held: RangeSet,
    /// A position inside each recently changed range, latest first.
    recent: SmallVec<[u64; RECENT]>,
    /// Bytes in `pieces`.
    bytes: u64,
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

    fn into_bytes(self) -> Bytes {
        match self {
            Piece::Shared(b) => b,
            Piece::Copied(v) => v.into(),
        }
    }
}

impl Reassembly {
    /// Nothing held.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Nothing is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// End of the highest byte held.
    pub(crate) fn end(&self) -> Option<u64> {
        self.held.last().map(|r| r.end)
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes `payload`, whose first byte has position `at`.
    ///
    /// `next` is the next position expected in order: what lies below was delivered before. Bytes at or above
    /// `limit_end` are outside the window and cut off. Of bytes that were received twice the first copy stays
    /// (RFC 8684 §3.3.1).
    pub(crate) fn insert(&mut self, next: u64, at: u64, payload: Bytes, limit_end: u64) -> Insertion {
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
        self.bytes += out.new_bytes;
        if out.new_bytes > 0 {
            out.merged = touches;
            self.held.insert(start..end);
        }
        self.touch(start);
        out
    }

    /// The bytes that start exactly at `next`, as far as they are one piece. Call again, with `next`
    /// advanced, until `None`.
    pub(crate) fn pop(&mut self, next: u64) -> Option<Bytes> {
        // Anything lower was delivered by other means.
        while self.pieces.first_key_value().is_some_and(|(&at, _)| at < next) {
            let (at, piece) = self.pieces.pop_first()?;
            let end = at + piece.len() as u64;
            self.held.remove(at..end.min(next));
            self.bytes -= end.min(next) - at;
            if end > next {
                let bytes = piece.into_bytes().slice((next - at) as usize..);
                self.pieces.insert(next, Piece::Shared(bytes));
            }
        }
        let piece = self.pieces.remove(&next)?;
        self.held.remove(next..next + piece.len() as u64);
        self.bytes -= piece.len() as u64;
        Some(piece.into_bytes())
    }

    /// The ranges held, for SACK blocks, at most `max`: first the one that changed last, then those that
    /// changed before it (RFC 2018 §4), and then the lowest of the others.
    pub(crate) fn sack_blocks(&self, max: usize) -> SmallVec<[Range<u64>; 4]> {
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
        if !JOIN.copies(bytes.len()) {
            self.pieces.insert(at, Piece::Shared(bytes));
            return;
        }
        let end = at + bytes.len() as u64;
        // In order behind a copied piece, the ordinary case: append.
        if let Some((_, before)) = self.copied_before(at)
            && JOIN.joins(before.len(), bytes.len())
        {
            before.extend_from_slice(&bytes);
            self.join_neighbours(at, end);
            return;
        }
        self.pieces.insert(at, Piece::Copied(bytes.to_vec()));
        self.join_neighbours(at, end);
    }

    /// The copied piece that ends at `at`, and where it starts.
    fn copied_before(&mut self, at: u64) -> Option<(u64, &mut Vec<u8>)> {
        match self.pieces.range_mut(..at).next_back() {
            Some((&start, Piece::Copied(v))) if start + v.len() as u64 == at => Some((start, v)),
            _ => None,
        }
    }

    /// Joins the copied piece that contains `at` with the copied pieces next to it. A piece moves only into
    /// one at least a quarter as long as itself, so each move of a byte leaves it in a piece a quarter longer
    /// or more.
    fn join_neighbours(&mut self, at: u64, end: u64) {
        let Some((&start, Piece::Copied(own))) = self.pieces.range(..=at).next_back() else { return };
        let mut len = own.len();
        debug_assert_eq!(start + len as u64, end);
        // Followers move into it.
        while let Some(Piece::Copied(next)) = self.pieces.get(&(start + len as u64)) {
            if !JOIN.joins(len, next.len()) || next.len() > 4 * len {
                break;
            }
            self.append(start, start + len as u64);
            len = self.pieces.get(&start).map_or(len, Piece::len);
        }
        // It moves into those before.
        let mut start = start;
        while let Some((before_start, before)) = self.copied_before(start) {
            if !JOIN.joins(before.len(), len) || len > 4 * before.len() {
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
        if let Some(Piece::Copied(v)) = self.pieces.get_mut(&into) {
            v.extend_from_slice(&tail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use core::slice;
    use proptest::prelude::*;

    /// Bookkeeping per piece, estimated.
    const PIECE_OVERHEAD: usize = 128;

    impl Reassembly {
        /// Payload bytes held.
        fn len(&self) -> u64 {
            self.held.total()
        }

        /// Memory held in bytes: payload, the unused part of copies, and bookkeeping.
        fn buffered_bytes(&self) -> usize {
            let memory = |piece: &Piece| match piece {
                Piece::Shared(b) => b.len(),
                Piece::Copied(v) => v.capacity(),
            };
            self.pieces.values().map(|p| PIECE_OVERHEAD + memory(p)).sum()
        }
    }

    fn bytes(range: Range<u64>, salt: u8) -> Bytes {
        range.map(|at| (at as u8).wrapping_mul(31).wrapping_add(salt)).collect::<Vec<u8>>().into()
    }

    fn put(r: &mut Reassembly, next: u64, range: Range<u64>) -> Insertion {
        r.insert(next, range.start, bytes(range.clone(), 0), u64::MAX)
    }

    /// Everything that is deliverable from `next` on.
    fn drain(r: &mut Reassembly, next: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(b) = r.pop(next + out.len() as u64) {
            assert!(!b.is_empty());
            out.extend_from_slice(&b);
        }
        out
    }

    #[test]
    fn the_first_copy_of_a_byte_stays() {
        // RFC 8684 §3.3.1.
        let mut r = Reassembly::new();
        r.insert(0, 10, Bytes::from_static(b"BBBB"), u64::MAX);
        let i = r.insert(0, 8, Bytes::from_static(b"aaaaaaaa"), u64::MAX);
        assert_eq!((i.new_bytes, i.duplicate, i.merged, i.tail), (4, Some(10..14), true, true));
        assert_eq!(drain(&mut r, 8), b"aaBBBBaa");
        assert!(r.is_empty() && r.buffered_bytes() == 0);
    }

    #[test]
    fn what_lies_outside_the_window_is_cut_off() {
        let mut r = Reassembly::new();
        for (next, at, limit, kept, duplicate) in [
            (5, 0, 100, 0, Some(0..5)),
            (6, 0, 100, 0, Some(0..5)),
            (3, 0, 100, 2, Some(0..3)),
            (0, 10, 10, 0, None),
            (0, 10, 12, 2, None),
            (0, 10, 5, 0, None),
            (0, u64::MAX - 2, u64::MAX, 2, None),
            (u64::MAX, u64::MAX - 2, u64::MAX, 0, Some(u64::MAX - 2..u64::MAX)),
            (u64::MAX, u64::MAX, u64::MAX, 0, None),
        ] {
            r.clear();
            let i = r.insert(next, at, Bytes::from_static(b"12345"), limit);
            assert_eq!((i.new_bytes, i.duplicate, r.len()), (kept, duplicate, kept), "{next} {at} {limit}");
        }
        r.clear();
        assert_eq!(r.insert(0, 5, Bytes::new(), 100), Insertion::default());
    }

    #[test]
    fn duplicates_are_reported_as_one_block() {
        // RFC 2883 §4: a D-SACK block names one contiguous sequence.
        let mut r = Reassembly::new();
        put(&mut r, 0, 10..20);
        put(&mut r, 0, 30..40);
        for (next, range, expected) in [
            (0, 0..5, None),
            (0, 10..20, Some(10..20)),
            (0, 12..15, Some(12..15)),
            (5, 12..45, Some(12..20)),
            (10, 8..15, Some(8..15)),
            (9, 5..12, Some(5..9)),
        ] {
            let mut r = r.clone();
            assert_eq!(put(&mut r, next, range.clone()).duplicate, expected, "{next} {range:?}");
        }
    }

    #[test]
    fn tail_and_merged_say_where_bytes_went() {
        let mut r = Reassembly::new();
        for (range, tail, merged) in [
            (10..20, true, false),
            (30..40, true, false),
            (22..25, false, false),
            (40..45, true, true),
            (25..30, false, true),
            (5..10, false, true),
            (6..8, false, false),
            (44..50, true, true),
        ] {
            let i = put(&mut r, 0, range.clone());
            assert_eq!((i.tail, i.merged), (tail, merged), "{range:?}");
        }
    }

    #[test]
    fn sack_blocks_start_with_the_latest() {
        // RFC 2018 §4.
        let mut r = Reassembly::new();
        assert!(r.sack_blocks(4).is_empty());
        put(&mut r, 0, 10..20);
        put(&mut r, 0, 30..40);
        put(&mut r, 0, 50..60);
        assert_eq!(r.sack_blocks(4).as_slice(), [50..60, 30..40, 10..20]);
        put(&mut r, 0, 20..22);
        assert_eq!(r.sack_blocks(4).as_slice(), [10..22, 50..60, 30..40]);
        assert_eq!(r.sack_blocks(2).as_slice(), [10..22, 50..60]);
        assert!(r.sack_blocks(0).is_empty());
        // A duplicate counts as received, too.
        put(&mut r, 0, 32..34);
        assert_eq!(r.sack_blocks(4).as_slice(), [30..40, 10..22, 50..60]);
        // Joined blocks are named once; delivered ones no longer.
        put(&mut r, 0, 22..30);
        assert_eq!(r.sack_blocks(4).as_slice(), [10..40, 50..60]);
        put(&mut r, 0, 0..10);
        drain(&mut r, 0);
        assert_eq!(r.sack_blocks(4).as_slice(), slice::from_ref(&(50..60)));
        // Blocks that changed long ago fill the remaining places.
        for i in (100..200).step_by(2) {
            put(&mut r, 40, i..i + 1);
        }
        assert_eq!(r.sack_blocks(12).last(), Some(&(104..105)));
        assert_eq!(r.sack_blocks(12).len(), 12);
    }

    #[test]
    fn large_payloads_are_not_copied() {
        let mut r = Reassembly::new();
        let payload = bytes(0..50_000, 0);
        r.insert(0, 100, payload.clone(), u64::MAX);
        assert_eq!(r.buffered_bytes(), 50_000 + PIECE_OVERHEAD);
        let out = r.pop(100).unwrap();
        assert_eq!(out.as_ptr(), payload.as_ptr());
    }

    #[test]
    fn small_payloads_do_not_hold_their_buffers() {
        let mut r = Reassembly::new();
        let buffer = bytes(0..65_536, 0);
        r.insert(0, 100, buffer.slice(500..501), u64::MAX);
        let out = r.pop(100).unwrap();
        assert_ne!(out.as_ptr(), buffer.slice(500..501).as_ptr());
        assert_eq!(out[..], buffer[500..501]);
    }

    #[test]
    fn many_tiny_payloads_take_little_memory_in_any_order() {
        const N: u64 = 100_000;
        let in_order: Vec<u64> = (0..N).collect();
        let reverse: Vec<u64> = (0..N).rev().collect();
        let strided: Vec<u64> = (0..1_000).flat_map(|i| (0..100).map(move |j| j * 1_000 + i)).collect();
        // Never more islands than allowed: 2 × 8192 at a time.
        let odd_first: Vec<u64> = (0..N)
            .step_by(16_384)
            .flat_map(|s| (0..2).flat_map(move |p| (s + p..(s + 16_384).min(N)).step_by(2)))
            .collect();
        for (name, order) in
            [("in order", in_order), ("reverse", reverse), ("strided", strided), ("odd first", odd_first)]
        {
            let mut r = Reassembly::new();
            for at in order {
                assert_eq!(put(&mut r, 0, at + 1..at + 2).new_bytes, 1, "{name} {at}");
            }
            assert_eq!(r.len(), N);
            assert!(r.buffered_bytes() < 4 * N as usize, "{name}: {}", r.buffered_bytes());
            assert!(r.pieces.len() < 200, "{name}: {} pieces", r.pieces.len());
            assert_eq!(drain(&mut r, 1), bytes(1..N + 1, 0));
            assert_eq!(r.buffered_bytes(), 0);
        }
    }

    #[test]
    fn islands_are_bounded_and_refused_data_are_accepted_later() {
        let mut r = Reassembly::new();
        for i in 0..MAX_ISLANDS as u64 {
            assert!(!put(&mut r, 0, 2 * i + 1..2 * i + 2).refused);
        }
        let beyond = 4 * MAX_ISLANDS as u64;
        let i = put(&mut r, 0, beyond..beyond + 1);
        assert!(i.refused && i.new_bytes == 0);
        assert!(r.buffered_bytes() < MAX_ISLANDS * (PIECE_OVERHEAD + 16));
        // What closes a gap is welcome.
        assert_eq!(put(&mut r, 0, 2..3).new_bytes, 1);
        assert!(!put(&mut r, 0, beyond..beyond + 1).refused);
    }

    #[test]
    fn pop_forgets_what_was_delivered_by_other_means() {
        let mut r = Reassembly::new();
        put(&mut r, 0, 10..20);
        put(&mut r, 0, 30..40);
        assert_eq!(r.pop(5), None);
        assert_eq!(r.pop(15), Some(bytes(15..20, 0)));
        assert_eq!(r.pop(25), None);
        assert_eq!(r.pop(100), None);
        assert!(r.is_empty() && r.buffered_bytes() == 0 && r.end().is_none());
    }

    #[derive(Clone, Debug)]
    enum Op {
        /// Distance from the next expected position, length, and what distinguishes this copy.
        Put(i64, u64, u8),
        Pop,
        PopAll,
        Window(u64),
    }

    fn op(scale: u64) -> impl Strategy<Value = Op> {
        prop_oneof![
            10 => (-(scale as i64) / 4..scale as i64, 0..scale / 2, any::<u8>()).prop_map(|(d, l, s)| Op::Put(d, l, s)),
            2 => Just(Op::Pop),
            1 => Just(Op::PopAll),
            1 => (0..2 * scale).prop_map(Op::Window),
        ]
    }

    fn run(ops: Vec<Op>) {
        let mut r = Reassembly::new();
        let mut model: BTreeMap<u64, u8> = BTreeMap::new();
        let (mut next, mut limit) = (1_000_000u64, u64::MAX);
        for op in ops {
            match op {
                Op::Put(distance, len, salt) => {
                    let at = next.saturating_add_signed(distance);
                    let payload = bytes(at..at + len, salt);
                    let highest = model.last_key_value().map(|(&at, _)| at + 1);
                    let fresh: Vec<u64> =
                        (at.max(next)..(at + len).min(limit)).filter(|p| !model.contains_key(p)).collect();
                    let old: Vec<u64> = (at..at + len)
                        .filter(|p| *p < next || (*p < limit && model.contains_key(p)))
                        .collect();
                    let adjoins = fresh
                        .iter()
                        .any(|&p| model.contains_key(&(p + 1)) || p > 0 && model.contains_key(&(p - 1)));
                    for &p in &fresh {
                        model.insert(p, payload[(p - at) as usize]);
                    }
                    let got = r.insert(next, at, payload, limit);
                    assert_eq!(got.new_bytes, fresh.len() as u64);
                    assert_eq!(got.duplicate.clone().map(|d| d.start), old.first().copied());
                    if let Some(d) = got.duplicate {
                        assert!(
                            d.clone().all(|p| old.contains(&p)) && !old.contains(&d.end),
                            "{d:?} {old:?}"
                        );
                    }
                    assert_eq!(got.tail, fresh.iter().any(|&p| highest.is_none_or(|h| p >= h)));
                    assert_eq!(got.merged, adjoins);
                    assert!(!got.refused);
                }
                Op::Pop => {
                    if let Some(b) = r.pop(next) {
                        for &byte in &b {
                            assert_eq!(model.remove(&next), Some(byte));
                            next += 1;
                        }
                    } else {
                        assert!(!model.contains_key(&next));
                    }
                }
                Op::PopAll => {
                    for byte in drain(&mut r, next) {
                        assert_eq!(model.remove(&next), Some(byte));
                        next += 1;
                    }
                    assert!(!model.contains_key(&next));
                }
                Op::Window(size) => limit = next + size,
            }
            assert_eq!(r.len(), model.len() as u64);
            assert_eq!(r.is_empty(), model.is_empty());
            assert_eq!(r.end(), model.last_key_value().map(|(&at, _)| at + 1));
            let mut ranges: Vec<Range<u64>> = Vec::new();
            for &at in model.keys() {
                match ranges.last_mut() {
                    Some(last) if last.end == at => last.end += 1,
                    _ => ranges.push(at..at + 1),
                }
            }
            let mut blocks = r.sack_blocks(usize::MAX).to_vec();
            blocks.sort_by_key(|b| b.start);
            assert_eq!(blocks, ranges);
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_map_of_bytes(ops in proptest::collection::vec(op(60), 1..80)) {
            run(ops);
        }

    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 10))]

        /// Large enough for pieces that are not copied, and for the limit of joining.
        #[test]
        fn agrees_with_a_map_of_bytes_in_large_pieces(ops in proptest::collection::vec(op(40_000), 1..12)) {
            run(ops);
        }
    }
}

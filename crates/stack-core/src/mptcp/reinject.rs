//! Data to be sent again on another subflow (RFC 8684 §3.3.6).
//!
//! By example: `docs/src/by-example/reinjection.md`.

use alloc::collections::BTreeMap;
use core::ops::Range;
use smallvec::SmallVec;
use umptcp_types::{DataOffset, SubflowId};

/// A piece of data, and the subflows that carry it already and do not deliver it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reinject {
    pub(crate) range: Range<DataOffset>,
    pub(crate) carried_by: SmallVec<[SubflowId; 2]>,
}

#[derive(Clone, Debug)]
struct Piece {
    end: DataOffset,
    carried_by: SmallVec<[SubflowId; 2]>,
}

/// The pieces, lowest first: what the receiver waits for goes before what it cannot deliver yet. They are
/// disjoint, so none goes out twice, and finding the place of one costs O(log n) however many subflows time
/// out with however many segments.
#[derive(Debug, Default)]
pub(crate) struct ReinjectQueue {
    pieces: BTreeMap<DataOffset, Piece>,
    /// Pieces looked at, for tests of how much work a timeout makes.
    #[cfg(test)]
    visited: usize,
}

impl ReinjectQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
    }

    /// Adds what of `range` is not there yet.
    pub(crate) fn push(&mut self, range: Range<DataOffset>, carried_by: &[SubflowId]) {
        let mut at = range.start;
        if let Some((_, before)) = self.pieces.range(..=at).next_back() {
            at = at.max(before.end);
        }
        while at < range.end {
            #[cfg(test)]
            {
                self.visited += 1;
            }
            let next = self.pieces.range(at..range.end).next().map(|(start, piece)| (*start, piece.end));
            let (gap_end, resume) = next.unwrap_or((range.end, range.end));
            if at < gap_end {
                self.add(at..gap_end, carried_by);
            }
            at = resume;
        }
    }

    /// Adds `range`, which overlaps no piece, to the piece before it if that is carried by the same subflows.
    fn add(&mut self, range: Range<DataOffset>, carried_by: &[SubflowId]) {
        if let Some((_, before)) = self.pieces.range_mut(..range.start).next_back()
            && before.end == range.start
            && before.carried_by[..] == *carried_by
        {
            before.end = range.end;
            return;
        }
        let piece = Piece { end: range.end, carried_by: SmallVec::from_slice(carried_by) };
        self.pieces.insert(range.start, piece);
    }

    /// The lowest piece, without what precedes `una`: that the peer has acknowledged.
    pub(crate) fn front(&mut self, una: DataOffset) -> Option<Reinject> {
        while let Some(first) = self.pieces.first_entry().filter(|e| *e.key() < una) {
            let piece = first.remove();
            if piece.end > una {
                self.pieces.insert(una, piece);
            }
        }
        let (start, piece) = self.pieces.first_key_value()?;
        Some(Reinject { range: *start..piece.end, carried_by: piece.carried_by.clone() })
    }

    /// The lowest piece up to `end` is on its way.
    pub(crate) fn sent(&mut self, end: DataOffset) {
        if let Some((_, piece)) = self.pieces.pop_first()
            && piece.end > end
        {
            self.pieces.insert(end, piece);
        }
    }

    /// What only `subflow` carries need not be sent again after all.
    pub(crate) fn withdraw(&mut self, subflow: SubflowId) {
        self.pieces.retain(|_, piece| piece.carried_by[..] != [subflow]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const A: SubflowId = SubflowId(0);
    const B: SubflowId = SubflowId(1);

    fn range(r: Range<u64>) -> Range<DataOffset> {
        DataOffset(r.start)..DataOffset(r.end)
    }

    fn pieces(q: &ReinjectQueue) -> Vec<(u64, u64, SubflowId)> {
        q.pieces.iter().map(|(s, p)| (s.0, p.end.0, p.carried_by[0])).collect()
    }

    #[test]
    fn pieces_are_disjoint_in_order_and_joined() {
        let mut q = ReinjectQueue::default();
        q.push(range(50..60), &[A]);
        q.push(range(60..70), &[A]);
        q.push(range(10..20), &[B]);
        q.push(range(0..100), &[B]);
        assert_eq!(pieces(&q), [(0, 10, B), (10, 50, B), (50, 70, A), (70, 100, B)]);
        q.push(range(15..65), &[A]);
        assert_eq!(pieces(&q).len(), 4, "all known");
        assert_eq!(q.front(DataOffset(55)).map(|r| r.range), Some(range(55..70)));
        q.sent(DataOffset(58));
        assert_eq!(pieces(&q), [(58, 70, A), (70, 100, B)]);
        q.withdraw(A);
        assert_eq!(pieces(&q), [(70, 100, B)]);
        q.sent(DataOffset(100));
        assert!(q.is_empty() && q.front(DataOffset(0)).is_none());
    }

    #[test]
    fn a_timeout_with_many_segments_costs_one_look_each() {
        // Three subflows time out in turn, again and again; each carries every third segment, so no two
        // ranges of one adjoin.
        const N: u64 = 9_000;
        let mut q = ReinjectQueue::default();
        for round in 0..3 {
            for subflow in 0..3 {
                q.visited = 0;
                for i in (subflow..N).step_by(3) {
                    q.push(range(100 * i + 1..100 * i + 101), &[SubflowId(subflow as u32)]);
                }
                let looks = if round == 0 { N as usize / 3 } else { 0 };
                assert_eq!(q.visited, looks, "round {round}, subflow {subflow}");
            }
        }
        assert_eq!(q.pieces.len() as u64, N);
        // One segment over all of them sees each once.
        q.visited = 0;
        q.push(range(0..100 * N + 200), &[A]);
        assert_eq!(q.visited as u64, N + 1);
    }

    proptest! {
        #[test]
        fn agrees_with_a_map_of_bytes(
            ops in proptest::collection::vec((0..6_u8, 0..60_u64, 0..20_u64, 0..3_u32), 1..60)
        ) {
            let mut q = ReinjectQueue::default();
            let mut model: BTreeMap<u64, u32> = BTreeMap::new();
            let mut una = 0;
            for (op, at, len, id) in ops {
                match op {
                    0..3 => {
                        q.push(range(at..at + len), &[SubflowId(id)]);
                        for x in at..at + len {
                            model.entry(x).or_insert(id);
                        }
                    }
                    3 => {
                        una = una.max(at / 2);
                        model.retain(|x, _| *x >= una);
                        let front = q.front(DataOffset(una));
                        prop_assert_eq!(front.map(|f| f.range.start.0), model.keys().next().copied());
                    }
                    4 => {
                        model.retain(|x, _| *x >= una);
                        if let Some(front) = q.front(DataOffset(una)) {
                            let end = front.range.end.0.min(front.range.start.0 + 1 + len);
                            q.sent(DataOffset(end));
                            model.retain(|x, _| *x >= end);
                        }
                    }
                    _ => {
                        q.withdraw(SubflowId(id));
                        model.retain(|_, by| *by != id);
                    }
                }
                let held: Vec<_> = pieces(&q).into_iter().flat_map(|(s, e, by)| (s..e).map(move |x| (x, by.0))).collect();
                prop_assert_eq!(held, model.iter().map(|(x, by)| (*x, *by)).collect::<Vec<_>>());
            }
        }
    }
}

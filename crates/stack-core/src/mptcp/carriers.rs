//! Which subflows carry what of the data that have been sent and not DATA_ACKed.

use alloc::collections::BTreeMap;
use core::ops::Range;
use smallvec::SmallVec;
use umptcp_types::{DataOffset, SubflowId};

/// The subflows on which a piece has been sent.
pub(crate) type By = SmallVec<[SubflowId; 2]>;

#[derive(Clone, Debug)]
struct Piece {
    end: DataOffset,
    by: By,
}

/// The pieces in order: disjoint, each carried by other subflows than the one before it, unless copies have
/// left like ones side by side. Every step is O(log n), and of new data that go on the same subflow there is
/// one piece, however many segments they are.
#[derive(Debug, Default)]
pub(crate) struct Carriers {
    pieces: BTreeMap<DataOffset, Piece>,
}

impl Carriers {
    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
    }

    /// `range` is sent on `subflow`: new, or once more.
    pub(crate) fn on_sent(&mut self, range: Range<DataOffset>, subflow: SubflowId) {
        let known = self.pieces.last_key_value().map_or(range.start, |(_, piece)| piece.end);
        if range.start < known {
            self.add_carrier(range.start..range.end.min(known), subflow);
        }
        let start = range.start.max(known);
        if start >= range.end {
            return;
        }
        if let Some(mut last) = self.pieces.last_entry()
            && last.get().end == start
            && last.get().by[..] == [subflow]
        {
            last.get_mut().end = range.end;
            return;
        }
        self.pieces.insert(start, Piece { end: range.end, by: By::from_slice(&[subflow]) });
    }

    fn add_carrier(&mut self, range: Range<DataOffset>, subflow: SubflowId) {
        self.split(range.start);
        self.split(range.end);
        for (_, piece) in self.pieces.range_mut(range) {
            if !piece.by.contains(&subflow) {
                piece.by.push(subflow);
            }
        }
    }

    /// Makes the piece that contains `at` two.
    fn split(&mut self, at: DataOffset) {
        if let Some((_, piece)) = self.pieces.range_mut(..at).next_back()
            && at < piece.end
        {
            let rest = piece.clone();
            piece.end = at;
            self.pieces.insert(at, rest);
        }
    }

    /// What precedes `una` has been DATA_ACKed.
    pub(crate) fn on_acked(&mut self, una: DataOffset) {
        while let Some(first) = self.pieces.first_entry().filter(|e| *e.key() < una) {
            let piece = first.remove();
            if piece.end > una {
                self.pieces.insert(una, piece);
            }
        }
        if self.pieces.is_empty() {
            // It would keep a node: half a kilobyte of every idle connection.
            self.pieces = BTreeMap::new();
        }
    }

    /// The pieces that overlap `range`, in order, and who carries each.
    pub(crate) fn overlapping(
        &self,
        range: Range<DataOffset>,
    ) -> impl Iterator<Item = (Range<DataOffset>, &By)> + '_ {
        let before = self.pieces.range(..=range.start).next_back();
        let first =
            before.filter(|(_, piece)| piece.end > range.start).map_or(range.start, |(start, _)| *start);
        let last = range.end.max(first);
        self.pieces.range(first..last).map(|(start, piece)| (*start..piece.end, &piece.by))
    }

    /// The pieces in order, and who carries each.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (Range<DataOffset>, &By)> + '_ {
        self.pieces.iter().map(|(start, piece)| (*start..piece.end, &piece.by))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn bytes(c: &Carriers) -> Vec<(u64, Vec<u32>)> {
        c.iter()
            .flat_map(|(r, by)| {
                let mut by: Vec<_> = by.iter().map(|s| s.0).collect();
                by.sort_unstable();
                (r.start.0..r.end.0).map(move |at| (at, by.clone()))
            })
            .collect()
    }

    #[test]
    fn new_data_on_one_subflow_are_one_piece() {
        let mut c = Carriers::default();
        for at in 0..1_000 {
            c.on_sent(DataOffset(at)..DataOffset(at + 1), SubflowId(u32::from(at >= 500)));
        }
        let pieces: Vec<_> = c.iter().map(|(r, by)| (r.start.0, r.end.0, by[0].0)).collect();
        assert_eq!(pieces, [(0, 500, 0), (500, 1_000, 1)]);
        c.on_acked(DataOffset(700));
        assert_eq!(c.iter().next().map(|(r, _)| r), Some(DataOffset(700)..DataOffset(1_000)));
        c.on_acked(DataOffset(1_000));
        assert_eq!(c.iter().count(), 0);
    }

    proptest! {
        #[test]
        fn agrees_with_a_map_of_bytes(
            ops in proptest::collection::vec((0..4_u8, 0..60_u64, 1..20_u64, 0..3_u32), 1..60)
        ) {
            let (mut c, mut next, mut una) = (Carriers::default(), 0, 0);
            let mut model: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
            for (op, at, len, id) in ops {
                let range = match op {
                    0 | 1 => next..next + len,
                    2 if una < next => {
                        let start = una + at % (next - una);
                        start..next.min(start + len)
                    }
                    _ => {
                        una = next.min(una + len);
                        c.on_acked(DataOffset(una));
                        model.retain(|at, _| *at >= una);
                        continue;
                    }
                };
                next = next.max(range.end);
                c.on_sent(DataOffset(range.start)..DataOffset(range.end), SubflowId(id));
                for at in range {
                    let by = model.entry(at).or_default();
                    if !by.contains(&id) {
                        by.push(id);
                        by.sort_unstable();
                    }
                }
                prop_assert_eq!(bytes(&c), model.iter().map(|(at, by)| (*at, by.clone())).collect::<Vec<_>>());
            }
        }
    }
}

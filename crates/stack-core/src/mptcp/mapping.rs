//! Data sequence mappings (RFC 8684 §3.3.1): which subflow bytes are which data bytes.
//!
//! By example: `docs/src/by-example/dss.md`.

use alloc::collections::BTreeMap;
use smallvec::SmallVec;
use umptcp_types::{DataOffset, SubflowOffset};

/// A mapping we declared. Once sent it never changes: a retransmission repeats it verbatim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mapping {
    /// First data byte.
    pub(crate) data: DataOffset,
    /// First subflow byte.
    pub(crate) subflow: SubflowOffset,
    /// Number of bytes.
    pub(crate) len: u16,
    /// DSS checksum, when negotiated.
    pub(crate) checksum: Option<u16>,
}

/// A subflow's TCP: it keeps with each segment the mapping declared for it.
pub(crate) type Tcp = crate::tcp::Tcp<Mapping>;
/// A segment of it.
pub(crate) type Segment = crate::tcp::Segment<Mapping>;

/// A mapping the peer declared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RxMapping {
    /// First subflow byte.
    pub(crate) subflow: SubflowOffset,
    /// First data byte.
    pub(crate) data: DataOffset,
    /// Payload bytes; a DATA_FIN is not counted.
    pub(crate) len: u64,
    /// The Data-Level Length as declared, DATA_FIN counted: it enters the checksum.
    pub(crate) declared: u16,
    /// DSS checksum, when negotiated.
    pub(crate) checksum: Option<u16>,
}

impl RxMapping {
    /// What it says of the subflow bytes `from..to`, which it covers.
    fn part(&self, from: SubflowOffset, to: SubflowOffset) -> RxMapping {
        RxMapping { subflow: from, data: self.data + (from - self.subflow), len: to - from, ..*self }
    }

    /// First subflow offset after it.
    pub(crate) fn end(&self) -> SubflowOffset {
        self.subflow + self.len
    }

    /// Data offset minus subflow offset, modulo 2⁶⁴.
    fn shift(&self) -> u64 {
        self.data.0.wrapping_sub(self.subflow.0)
    }

    /// Whether it says of its bytes what `before`, which it adjoins, says of those before them.
    fn continues(&self, before: &RxMapping) -> bool {
        self.checksum.is_none() && before.checksum.is_none() && self.shift() == before.shift()
    }
}

/// What became of a received mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Inserted {
    /// It is new.
    New,
    /// It was known already, or maps only bytes already consumed.
    Known,
    /// It contradicts one that was declared before (RFC 8684 §3.3.1 forbids that).
    Conflict,
    /// More mappings than any sender within our window needs.
    TooMany,
}

/// Known mappings that a new one may overlap: a sender that cut its data anew would overlap a few, and the
/// work per packet must not depend on what a hostile peer declares.
const MAX_OVERLAPS: usize = 64;

/// Mappings that any connection may hold per subflow, however small its window.
const MIN_LIMIT: usize = 1024;

/// Bytes of window that allow one mapping more: several times what one takes in memory, so that the table
/// never outweighs the data.
const WINDOW_PER_MAPPING: usize = 512;

/// The mappings the peer declared on one subflow for bytes not consumed yet, in order of subflow offset.
///
/// Neighbours that say the same of their bytes are joined, unless a checksum covers each by itself. So what a
/// peer can make us hold is the number of times it changes from one place in the data to another, and a bound
/// on that (see [`RxMappings::new`]) troubles no sender that merely writes little at a time. Every operation
/// costs O(log n).
#[derive(Clone, Debug)]
pub(crate) struct RxMappings {
    /// By first subflow byte. Disjoint.
    map: BTreeMap<SubflowOffset, RxMapping>,
    limit: usize,
    /// Entries looked at, for tests of how much work a packet makes.
    #[cfg(test)]
    visited: usize,
}

impl RxMappings {
    /// An empty table for a subflow of a connection whose receive window is `window` bytes.
    pub(crate) fn new(window: usize) -> Self {
        RxMappings {
            map: BTreeMap::new(),
            limit: MIN_LIMIT + window / WINDOW_PER_MAPPING,
            #[cfg(test)]
            visited: 0,
        }
    }

    /// The connection's window is `window` bytes now.
    pub(crate) fn set_window(&mut self, window: usize) {
        self.limit = MIN_LIMIT + window / WINDOW_PER_MAPPING;
    }

    /// Remembers `m`. `consumed`: first subflow offset whose bytes have not been handed on yet.
    pub(crate) fn insert(&mut self, m: RxMapping, consumed: SubflowOffset) -> Inserted {
        if m.end() <= consumed || m.len == 0 {
            return Inserted::Known;
        }
        if m.checksum.is_some() && m.subflow < consumed {
            // Mappings with a checksum are consumed whole, so this one was not declared so before, and cannot
            // be verified.
            return Inserted::Conflict;
        }
        let shift = m.shift();
        let mut parts: SmallVec<[RxMapping; 4]> = SmallVec::new();
        let mut at = m.subflow;
        let first =
            self.last_from(m.subflow).filter(|x| x.end() > m.subflow).map_or(m.subflow, |x| x.subflow);
        for (overlaps, known) in self.map.range(first..m.end()).map(|(_, x)| x).enumerate() {
            #[cfg(test)]
            {
                self.visited += 1;
            }
            if known.shift() != shift {
                return Inserted::Conflict;
            }
            if overlaps >= MAX_OVERLAPS {
                return Inserted::TooMany;
            }
            if known.subflow > at {
                parts.push(m.part(at, known.subflow));
            }
            at = at.max(known.end());
        }
        if at < m.end() {
            parts.push(m.part(at, m.end()));
        }
        if parts.is_empty() {
            return Inserted::Known;
        }
        // A checksum covers a mapping as it was declared: what was declared otherwise before cannot be joined
        // to it.
        if m.checksum.is_some() && parts[0].len != m.len {
            return Inserted::Conflict;
        }
        for part in parts {
            if !self.add(part) {
                return Inserted::TooMany;
            }
        }
        Inserted::New
    }

    /// Adds `m`, which overlaps none, joined with its neighbours if they say the same. False: there are too
    /// many.
    fn add(&mut self, mut m: RxMapping) -> bool {
        if m.checksum.is_none()
            && let Some(after) = self.map.get(&m.end()).filter(|x| x.continues(&m)).copied()
        {
            self.map.remove(&after.subflow);
            m.len += after.len;
        }
        if let Some((_, before)) = self.map.range_mut(..m.subflow).next_back()
            && before.end() == m.subflow
            && m.continues(before)
        {
            before.len += m.len;
            return true;
        }
        if self.map.len() >= self.limit {
            return false;
        }
        self.map.insert(m.subflow, m);
        true
    }

    /// The last mapping that begins at `at` or before.
    fn last_from(&self, at: SubflowOffset) -> Option<&RxMapping> {
        self.map.range(..=at).next_back().map(|(_, m)| m)
    }

    /// The mapping that covers `at`.
    pub(crate) fn covering(&self, at: SubflowOffset) -> Option<RxMapping> {
        self.last_from(at).filter(|m| at < m.end()).copied()
    }

    /// Whether every mapping maps subflow offsets to data offsets that are larger by `shift` (modulo 2⁶⁴). It
    /// looks at them all, so it is for questions whose answer ends the subflow's MPTCP.
    pub(crate) fn all_shifted_by(&self, shift: u64) -> bool {
        self.map.values().all(|m| m.shift() == shift)
    }

    /// Forgets mappings whose bytes all precede `consumed`.
    pub(crate) fn consumed(&mut self, consumed: SubflowOffset) {
        while let Some(first) = self.map.first_entry().filter(|e| e.get().end() <= consumed) {
            first.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn m(subflow: u64, data: u64, len: u64) -> RxMapping {
        RxMapping {
            subflow: SubflowOffset(subflow),
            data: DataOffset(data),
            len,
            declared: len as u16,
            checksum: None,
        }
    }

    #[test]
    fn mappings_are_kept_in_order_and_retired() {
        let mut t = RxMappings::new(0);
        let zero = SubflowOffset(1);
        assert_eq!(t.insert(m(101, 501, 100), zero), Inserted::New);
        assert_eq!(t.insert(m(1, 301, 100), zero), Inserted::New);
        assert_eq!(t.insert(m(1, 301, 100), zero), Inserted::Known);
        assert_eq!(t.insert(m(1, 302, 100), zero), Inserted::Conflict);
        assert_eq!(t.insert(m(51, 351, 20), zero), Inserted::Known);
        assert_eq!(t.insert(m(51, 999, 20), zero), Inserted::Conflict);
        assert_eq!(t.covering(SubflowOffset(100)), Some(m(1, 301, 100)));
        t.consumed(SubflowOffset(101));
        assert_eq!(t.covering(SubflowOffset(101)), Some(m(101, 501, 100)));
        assert_eq!(t.insert(m(1, 301, 100), SubflowOffset(101)), Inserted::Known);
    }

    #[test]
    fn a_mapping_that_overlaps_known_ones_adds_what_they_lack() {
        let mut t = RxMappings::new(0);
        let one = SubflowOffset(1);
        assert_eq!(t.insert(m(101, 501, 50), one), Inserted::New);
        assert_eq!(t.insert(m(201, 601, 50), one), Inserted::New);
        assert_eq!(t.insert(m(51, 451, 250), one), Inserted::New);
        // All say the same of their bytes, so they have become one.
        let parts: Vec<_> = t.map.values().map(|x| (x.subflow.0, x.data.0, x.len)).collect();
        assert_eq!(parts, [(51, 451, 250)]);
        assert_eq!(t.insert(m(51, 451, 250), one), Inserted::Known);
        assert_eq!(t.insert(m(251, 651, 60), one), Inserted::New);
        assert_eq!(t.insert(m(300, 999, 60), one), Inserted::Conflict);
        // With a checksum the parts could not be verified.
        let whole = RxMapping { checksum: Some(1), ..m(1, 401, 100) };
        assert_eq!(t.insert(whole, one), Inserted::Conflict);
        let inside = RxMapping { checksum: Some(1), ..m(110, 510, 10) };
        assert_eq!(t.insert(inside, one), Inserted::Known);
    }

    /// Inserts mappings of ten bytes each, in the order of `order`; no two neighbours can be joined.
    fn insert_all(t: &mut RxMappings, order: impl Iterator<Item = u64>) -> Vec<Inserted> {
        order.map(|i| t.insert(m(10 * i + 1, 100 * i + 1, 10), SubflowOffset(1))).collect()
    }

    #[test]
    fn the_order_of_arrival_makes_no_work() {
        // A peer that declares its mappings backwards, or inwards from both ends, costs no more than one that
        // does so in order.
        const N: u64 = 10_000;
        let orders: [(&str, Vec<u64>); 3] = [
            ("in order", (0..N).collect()),
            ("backwards", (0..N).rev().collect()),
            ("inwards", (0..N).map(|i| if i % 2 == 0 { i / 2 } else { N - 1 - i / 2 }).collect()),
        ];
        for (name, order) in orders {
            let mut t = RxMappings::new(N as usize * WINDOW_PER_MAPPING);
            assert!(insert_all(&mut t, order.into_iter()).iter().all(|i| *i == Inserted::New), "{name}");
            assert_eq!(t.visited, 0, "{name}: mappings that do not overlap meet none");
            assert_eq!(t.map.len() as u64, N);
            for i in [0, 1, N / 2, N - 1] {
                assert_eq!(
                    t.covering(SubflowOffset(10 * i + 5)),
                    Some(m(10 * i + 1, 100 * i + 1, 10)),
                    "{name}"
                );
            }
            // Said again, each meets itself only.
            assert!(insert_all(&mut t, 0..N).iter().all(|i| *i == Inserted::Known), "{name}");
            assert_eq!(t.visited as u64, N, "{name}");
            t.consumed(SubflowOffset(10 * (N - 1) + 1));
            assert_eq!(t.map.len(), 1, "{name}");
        }
    }

    #[test]
    fn the_window_bounds_how_many_are_held() {
        for window in [0, 64 << 10, 8 << 20] {
            let mut t = RxMappings::new(window);
            let most = MIN_LIMIT + window / WINDOW_PER_MAPPING;
            let told = insert_all(&mut t, 0..most as u64 + 5);
            assert!(told[..most].iter().all(|i| *i == Inserted::New));
            assert!(told[most..].iter().all(|i| *i == Inserted::TooMany));
            assert_eq!(t.map.len(), most);
            assert!(most * size_of::<RxMapping>() <= MIN_LIMIT * 64 + window);
            // What continues one that is held needs no place.
            let last = most as u64 - 1;
            assert_eq!(t.insert(m(10 * last + 11, 100 * last + 11, 5), SubflowOffset(1)), Inserted::New);
        }
    }

    #[test]
    fn one_byte_after_the_other_is_one_mapping_but_not_with_checksums() {
        let mut t = RxMappings::new(0);
        for i in (0..100_000).rev() {
            assert_eq!(t.insert(m(i + 1, i + 501, 1), SubflowOffset(1)), Inserted::New);
        }
        assert_eq!(t.covering(SubflowOffset(1)).map(|x| x.len), Some(100_000));
        assert_eq!(t.insert(m(50_000, 50_501, 1), SubflowOffset(1)), Inserted::Conflict);
        let mut t = RxMappings::new(0);
        for i in 0..10 {
            let part = RxMapping { checksum: Some(7), ..m(i + 1, i + 501, 1) };
            assert_eq!(t.insert(part, SubflowOffset(1)), Inserted::New);
        }
        assert_eq!(t.map.len(), 10);
    }

    #[test]
    fn one_mapping_over_very_many_is_refused() {
        let mut t = RxMappings::new(0);
        let one = SubflowOffset(1);
        for i in 0..200 {
            assert_eq!(t.insert(m(2 * i + 1, 2 * i + 1, 1), one), Inserted::New);
        }
        t.visited = 0;
        assert_eq!(t.insert(m(1, 1, 400), one), Inserted::TooMany);
        assert!(t.visited <= MAX_OVERLAPS + 1);
        assert_eq!(t.insert(m(1, 1, 20), one), Inserted::New);
    }
}

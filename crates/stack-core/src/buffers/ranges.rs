//! Sets and maps of disjoint ranges of positions.

use alloc::collections::BTreeMap;
use core::ops::Range;

/// A set of positions, held as disjoint, non-adjacent ranges. Every operation costs O(log n) plus the ranges
/// it removes.
#[derive(Clone, Debug, Default)]
pub(crate) struct RangeSet {
    /// Start → end.
    map: BTreeMap<u64, u64>,
    total: u64,
}

impl RangeSet {
    pub(crate) const fn new() -> Self {
        RangeSet { map: BTreeMap::new(), total: 0 }
    }

    /// Number of positions in the set.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Number of ranges.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.map.clear();
        self.total = 0;
    }

    /// The lowest range.
    pub(crate) fn first(&self) -> Option<Range<u64>> {
        self.map.first_key_value().map(|(&s, &e)| s..e)
    }

    /// The highest range.
    pub(crate) fn last(&self) -> Option<Range<u64>> {
        self.map.last_key_value().map(|(&s, &e)| s..e)
    }

    /// The range that contains `at`.
    pub(crate) fn covering(&self, at: u64) -> Option<Range<u64>> {
        let (&s, &e) = self.map.range(..=at).next_back()?;
        (at < e).then_some(s..e)
    }

    /// The first range that ends after `at`: it contains `at` or follows it.
    pub(crate) fn next_from(&self, at: u64) -> Option<Range<u64>> {
        self.covering(at).or_else(|| self.map.range(at..).next().map(|(&s, &e)| s..e))
    }

    /// The lowest part of `within` that is not in the set.
    pub(crate) fn first_gap(&self, within: Range<u64>) -> Option<Range<u64>> {
        // Ranges are never adjacent, so the position after one is free.
        let start = self.covering(within.start).map_or(within.start, |r| r.end);
        if start >= within.end {
            return None;
        }
        let end = self.map.range(start..).next().map_or(within.end, |(&s, _)| s.min(within.end));
        Some(start..end)
    }

    /// The highest part of `within` that is not in the set.
    pub(crate) fn last_gap(&self, within: Range<u64>) -> Option<Range<u64>> {
        let mut end = within.end;
        if let Some((&s, &e)) = self.map.range(..end).next_back()
            && e >= end
        {
            end = s;
        }
        if end <= within.start {
            return None;
        }
        let start = self.map.range(..end).next_back().map_or(within.start, |(_, &e)| e.max(within.start));
        Some(start..end)
    }

    /// Adds `range`; returns how many positions were not in the set before.
    pub(crate) fn insert(&mut self, range: Range<u64>) -> u64 {
        let Range { mut start, mut end } = range;
        if start >= end {
            return 0;
        }
        let mut absorbed = 0;
        if let Some((&s, &e)) = self.map.range(..=start).next_back()
            && e >= start
        {
            if e >= end {
                return 0;
            }
            // `s` stays a key; its end is overwritten below.
            absorbed += e - s;
            start = s;
        }
        while let Some((&s, &e)) = self.map.range(start.saturating_add(1)..).next()
            && s <= end
        {
            self.map.remove(&s);
            absorbed += e - s;
            end = end.max(e);
        }
        self.map.insert(start, end);
        let added = (end - start) - absorbed;
        self.total += added;
        added
    }

    /// Takes `range` out; returns how many positions of it were in the set.
    pub(crate) fn remove(&mut self, range: Range<u64>) -> u64 {
        if range.start >= range.end {
            return 0;
        }
        let mut removed = 0;
        if let Some((&s, e)) = self.map.range_mut(..range.start).next_back()
            && *e > range.start
        {
            let end = *e;
            debug_assert!(s < range.start);
            *e = range.start;
            removed += end.min(range.end) - range.start;
            if end > range.end {
                self.map.insert(range.end, end);
            }
        }
        while let Some((&s, &e)) = self.map.range(range.start..range.end).next() {
            self.map.remove(&s);
            removed += e.min(range.end) - s;
            if e > range.end {
                self.map.insert(range.end, e);
            }
        }
        self.total -= removed;
        removed
    }

    /// The ranges, lowest first.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = Range<u64>> + '_ {
        self.map.iter().map(|(&s, &e)| s..e)
    }
}

/// Disjoint ranges of positions, each with a value. A later range overrides what it overlaps.
#[derive(Clone, Debug)]
pub(crate) struct RangeMap<V> {
    map: BTreeMap<u64, (u64, V)>,
}

impl<V: Copy> RangeMap<V> {
    pub(crate) const fn new() -> Self {
        RangeMap { map: BTreeMap::new() }
    }

    pub(crate) fn clear(&mut self) {
        self.map.clear();
    }

    /// The range that contains `at`, and its value.
    pub(crate) fn covering(&self, at: u64) -> Option<(Range<u64>, V)> {
        let (&s, &(e, v)) = self.map.range(..=at).next_back()?;
        (at < e).then_some((s..e, v))
    }

    /// The first range that ends after `at`, and its value.
    pub(crate) fn next_from(&self, at: u64) -> Option<(Range<u64>, V)> {
        self.covering(at).or_else(|| self.map.range(at..).next().map(|(&s, &(e, v))| (s..e, v)))
    }

    /// Gives all of `range` the value `v`.
    pub(crate) fn insert(&mut self, range: Range<u64>, v: V) {
        if range.start < range.end {
            self.remove(range.clone());
            self.map.insert(range.start, (range.end, v));
        }
    }

    /// Takes `range` out, cutting what it overlaps.
    pub(crate) fn remove(&mut self, range: Range<u64>) {
        if range.start >= range.end {
            return;
        }
        if let Some((_, (e, v))) = self.map.range_mut(..range.start).next_back()
            && *e > range.start
        {
            let (end, v) = (*e, *v);
            *e = range.start;
            if end > range.end {
                self.map.insert(range.end, (end, v));
            }
        }
        while let Some((&s, &(e, v))) = self.map.range(range.start..range.end).next() {
            self.map.remove(&s);
            if e > range.end {
                self.map.insert(range.end, (e, v));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const SIZE: u64 = 48;

    fn check(set: &RangeSet, model: &[bool]) {
        let mut last_end = None;
        for r in set.iter() {
            assert!(r.start < r.end);
            assert!(last_end.is_none_or(|e| e < r.start), "{set:?}");
            last_end = Some(r.end);
        }
        for at in 0..SIZE {
            assert_eq!(set.covering(at).is_some(), model[at as usize], "{at} {set:?}");
        }
        assert_eq!(set.total(), model.iter().filter(|&&b| b).count() as u64);
        assert_eq!(set.first(), set.iter().next());
        assert_eq!(set.last(), set.iter().next_back());
    }

    proptest! {
        #[test]
        fn set_agrees_with_a_bit_vector(
            ops in proptest::collection::vec((any::<bool>(), 0..SIZE, 0..SIZE), 1..60)
        ) {
            let mut set = RangeSet::new();
            let mut model = [false; SIZE as usize];
            for (add, a, b) in ops {
                let before = model.iter().filter(|&&b| b).count() as u64;
                for at in a..b {
                    model[at as usize] = add;
                }
                let after = model.iter().filter(|&&b| b).count() as u64;
                let changed = if add { set.insert(a..b) } else { set.remove(a..b) };
                prop_assert_eq!(changed, before.abs_diff(after));
                check(&set, &model);
                let free: Vec<u64> = (a..b).filter(|&x| !model[x as usize]).collect();
                let first = set.first_gap(a..b);
                prop_assert_eq!(first.clone().map(|r| r.start), free.first().copied());
                let last = set.last_gap(a..b);
                prop_assert_eq!(last.clone().map(|r| r.end - 1), free.last().copied());
                for r in [first, last].into_iter().flatten() {
                    prop_assert!(r.clone().all(|x| !model[x as usize]));
                    prop_assert!(r.start == a || model[r.start as usize - 1]);
                    prop_assert!(r.end == b || model[r.end as usize]);
                }
                let next = set.next_from(a).map(|r| r.start.max(a));
                prop_assert_eq!(next, (a..SIZE).find(|&x| model[x as usize]));
            }
        }

        #[test]
        fn map_agrees_with_a_vector(
            ops in proptest::collection::vec((any::<Option<u8>>(), 0..SIZE, 0..SIZE), 1..60)
        ) {
            let mut map = RangeMap::new();
            let mut model = [None; SIZE as usize];
            for (value, a, b) in ops {
                for at in a..b {
                    model[at as usize] = value;
                }
                match value {
                    Some(v) => map.insert(a..b, v),
                    None => map.remove(a..b),
                }
                for at in 0..SIZE {
                    prop_assert_eq!(map.covering(at).map(|(_, v)| v), model[at as usize]);
                    let next = map.next_from(at).map(|(r, _)| r.start.max(at));
                    prop_assert_eq!(next, (at..SIZE).find(|&x| model[x as usize].is_some()));
                }
            }
        }
    }
}

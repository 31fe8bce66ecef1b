//! Sets of ports.

use alloc::vec::Vec;

/// A set of ports, as its runs of consecutive ones: ports are taken in turn, so these are few.
#[derive(Clone, Debug, Default)]
pub(super) struct PortSet {
    /// First and last of each run, in order. Between two of them there is a port at least.
    runs: Vec<(u16, u16)>,
}

impl PortSet {
    /// The number of the run that has `port`, or the one that it would get.
    fn place(&self, port: u16) -> Result<usize, usize> {
        let after = self.runs.partition_point(|(_, last)| *last < port);
        if self.runs.get(after).is_some_and(|(first, _)| *first <= port) { Ok(after) } else { Err(after) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub(super) fn contains(&self, port: u16) -> bool {
        self.place(port).is_ok()
    }

    pub(super) fn insert(&mut self, port: u16) {
        let Err(i) = self.place(port) else { return };
        let joins_before =
            i.checked_sub(1).is_some_and(|before| u32::from(self.runs[before].1) + 1 == port.into());
        let joins_after = self.runs.get(i).is_some_and(|(first, _)| *first - 1 == port);
        match (joins_before, joins_after) {
            (true, true) => self.runs[i - 1].1 = self.runs.remove(i).1,
            (true, false) => self.runs[i - 1].1 = port,
            (false, true) => self.runs[i].0 = port,
            (false, false) => self.runs.insert(i, (port, port)),
        }
    }

    pub(super) fn remove(&mut self, port: u16) {
        let Ok(i) = self.place(port) else { return };
        match self.runs[i] {
            (first, last) if first == last => {
                self.runs.remove(i);
                // As many as there were once need not be kept for.
                if self.runs.len() < self.runs.capacity() / 4 {
                    self.runs.shrink_to(self.runs.len() * 2);
                }
            }
            (first, _) if first == port => self.runs[i].0 = port + 1,
            (_, last) if last == port => self.runs[i].1 = port - 1,
            (_, last) => {
                self.runs[i].1 = port - 1;
                self.runs.insert(i + 1, (port + 1, last));
            }
        }
    }

    /// The first port from `from` on that is not in the set.
    pub(super) fn gap(&self, from: u16) -> Option<u16> {
        match self.place(from) {
            Ok(i) => self.runs[i].1.checked_add(1),
            Err(_) => Some(from),
        }
    }

    /// The first port from `from` on that is in the set.
    pub(super) fn member(&self, from: u16) -> Option<u16> {
        let (Ok(i) | Err(i)) = self.place(from);
        self.runs.get(i).map(|(first, _)| from.max(*first))
    }
}

impl From<core::ops::RangeInclusive<u16>> for PortSet {
    fn from(range: core::ops::RangeInclusive<u16>) -> Self {
        let runs = if range.is_empty() { Vec::new() } else { alloc::vec![range.into_inner()] };
        PortSet { runs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    #[test]
    fn it_does_not_keep_the_memory_of_what_it_once_held() {
        let mut set = PortSet::default();
        let scattered = || (0u16..4_096).map(|n| 2 * n);
        scattered().for_each(|port| set.insert(port));
        assert!(set.runs.capacity() >= 4_096, "a run for each");
        scattered().skip(10).for_each(|port| set.remove(port));
        assert_eq!(set.runs.len(), 10);
        assert!(set.runs.capacity() <= 4 * 10 + 4, "{}", set.runs.capacity());
    }

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec((any::<bool>(), prop_oneof![0u16..40, 65_500u16..=65_535]), 0..200)) {
            let (mut set, mut model) = (PortSet::default(), BTreeSet::new());
            for (add, port) in steps {
                if add {
                    set.insert(port);
                    model.insert(port);
                } else {
                    set.remove(port);
                    model.remove(&port);
                }
                prop_assert!(set.runs.windows(2).all(|w| w[0].1 + 1 < w[1].0), "{set:?}");
            }
            prop_assert_eq!(set.is_empty(), model.is_empty());
            for port in (0..=50).chain(65_490..=65_535) {
                prop_assert_eq!(set.contains(port), model.contains(&port));
                prop_assert_eq!(set.gap(port), (port..=u16::MAX).find(|p| !model.contains(p)));
                prop_assert_eq!(set.member(port), model.range(port..).next().copied());
            }
        }
    }
}

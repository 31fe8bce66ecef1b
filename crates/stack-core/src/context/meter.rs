//! What may still be carried where there is a limit.

use crate::device::allowance_reserve;

/// How far a limit is used up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) enum Use {
    /// There is room.
    #[default]
    Open,
    /// There is room for what is under way, not for anything new.
    Ending,
    /// Nothing more may pass.
    Spent,
}

/// Counts against a limit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meter {
    used: u64,
    limit: Option<u64>,
    state: Use,
}

impl Meter {
    /// `limit` bytes may pass from now on; `None`: any number.
    pub(crate) fn new(limit: Option<u64>) -> Meter {
        let mut meter = Meter { used: 0, limit, state: Use::Open };
        meter.add(0);
        meter
    }

    /// So many more have passed. How far the limit is used up now, if that is new.
    #[inline]
    pub(crate) fn add(&mut self, bytes: u64) -> Option<Use> {
        let limit = self.limit?;
        self.used = self.used.saturating_add(bytes);
        let state = match limit.saturating_sub(self.used) {
            0 => Use::Spent,
            left if left <= allowance_reserve(limit) => Use::Ending,
            _ => Use::Open,
        };
        (core::mem::replace(&mut self.state, state) != state).then_some(state)
    }

    /// From now on the limit is another; what has passed counts against it.
    pub(crate) fn set_limit(&mut self, limit: Option<u64>) {
        self.limit = limit;
        self.state = Use::Open;
        self.add(0);
    }

    /// How far the limit is used up.
    #[inline]
    pub(crate) fn state(&self) -> Use {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_announced_before_it_is_reached() {
        let mut meter = Meter::new(Some(100 << 20));
        assert_eq!(meter.add((99 << 20) - 1), None);
        assert_eq!(meter.add(1), Some(Use::Ending));
        assert_eq!(meter.add((1 << 20) - 1), None);
        assert_eq!(meter.add(1), Some(Use::Spent));
        assert_eq!(meter.add(u64::MAX), None);
        assert_eq!(meter.state(), Use::Spent);
    }

    #[test]
    fn of_a_small_limit_three_quarters_are_for_what_is_new() {
        let mut meter = Meter::new(Some(1_000));
        assert_eq!(meter.add(749), None);
        assert_eq!(meter.add(1), Some(Use::Ending));
        assert_eq!(meter.add(1_000), Some(Use::Spent));
    }

    #[test]
    fn nothing_may_pass_where_nothing_is_allowed() {
        assert_eq!(Meter::new(Some(0)).state(), Use::Spent);
        let mut free = Meter::new(None);
        assert_eq!(free.add(u64::MAX), None);
        assert_eq!(free.state(), Use::Open);
    }
}

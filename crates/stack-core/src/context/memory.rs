//! What the buffers of all connections hold together, and whether that is too much.

/// How scarce memory is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Pressure {
    /// There is enough.
    None,
    /// Automatic buffers fall back to what they begin with.
    Pressed,
    /// Nothing is taken that has to wait.
    Full,
}

/// The account of all connections.
#[derive(Debug)]
pub(super) struct Memory {
    held: u64,
    bound: u64,
    pressed: bool,
}

impl Memory {
    /// Nothing held; `bound`: how much may be.
    pub(super) fn new(bound: u64) -> Self {
        Memory { held: 0, bound, pressed: false }
    }

    /// A connection holds `now` bytes, where it held `before`. True: from now on memory is scarce.
    ///
    /// As with Linux's net.ipv4.tcp_mem that begins at two thirds of the bound and ends at half of it.
    pub(super) fn change(&mut self, before: u64, now: u64) -> bool {
        self.held = self.held.saturating_sub(before).saturating_add(now);
        let was = self.pressed;
        self.pressed = if was { self.held > self.bound / 2 } else { self.held >= self.bound / 3 * 2 };
        self.pressed && !was
    }

    /// Bytes held by all connections.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// How many may be.
    pub(super) fn bound(&self) -> u64 {
        self.bound
    }

    /// How scarce memory is.
    #[inline]
    pub(super) fn pressure(&self) -> Pressure {
        match (self.held >= self.bound, self.pressed) {
            (true, _) => Pressure::Full,
            (_, true) => Pressure::Pressed,
            _ => Pressure::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_begins_at_two_thirds_and_ends_at_half() {
        let mut m = Memory::new(300);
        assert!(!m.change(0, 199) && m.pressure() == Pressure::None);
        assert!(m.change(199, 200) && m.pressure() == Pressure::Pressed);
        assert!(!m.change(0, 100) && m.pressure() == Pressure::Full);
        assert!(!m.change(149, 0) && m.pressure() == Pressure::Pressed);
        assert!(!m.change(1, 0) && m.pressure() == Pressure::None);
        assert_eq!((m.held(), m.bound()), (150, 300));
        assert!(m.change(0, 50), "once more");
    }
}

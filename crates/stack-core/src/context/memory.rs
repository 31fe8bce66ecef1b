//! What the buffers of all connections hold together, and whether that is too much.

use umptcp_types::{Duration, Instant};

/// While memory is full, all connections are looked at so often: what waits for a silent peer is given up, and what
/// was refused is taken when there is room.
const LOOK_EVERY: Duration = Duration::from_millis(200);

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
    /// When all connections are looked at next.
    look: Option<Instant>,
}

impl Memory {
    /// Nothing held; `bound`: how much may be.
    pub(super) fn new(bound: u64) -> Self {
        Memory { held: 0, bound, pressed: false, look: None }
    }

    /// A connection holds `held` bytes, where it held `before`. True: from now on memory is scarce.
    ///
    /// As with Linux's net.ipv4.tcp_mem that begins at two thirds of the bound and ends at half of it.
    pub(super) fn change(&mut self, now: Instant, before: u64, held: u64) -> bool {
        self.held = self.held.saturating_sub(before).saturating_add(held);
        if self.held >= self.bound {
            self.look.get_or_insert(now + LOOK_EVERY);
        }
        let was = self.pressed;
        self.pressed = if was { self.held > self.bound / 2 } else { self.held >= self.bound / 3 * 2 };
        self.pressed && !was
    }

    /// A connection that held `held` bytes has gone.
    pub(super) fn release(&mut self, held: u64) {
        self.held = self.held.saturating_sub(held);
        self.pressed &= self.held > self.bound / 2;
    }

    /// When all connections are to be looked at.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.look
    }

    /// They have been; `waits`: something of theirs waits for room.
    pub(super) fn on_looked_at(&mut self, now: Instant, waits: bool) {
        self.look = (waits || self.held >= self.bound).then_some(now + LOOK_EVERY);
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
        let now = Instant::ZERO;
        assert!(!m.change(now, 0, 199) && m.pressure() == Pressure::None);
        assert!(m.change(now, 199, 200) && m.pressure() == Pressure::Pressed);
        assert_eq!(m.next_look(), None);
        assert!(!m.change(now, 0, 100) && m.pressure() == Pressure::Full);
        assert!(!m.change(now, 149, 0) && m.pressure() == Pressure::Pressed);
        m.release(1);
        assert_eq!((m.pressure(), m.held(), m.bound()), (Pressure::None, 150, 300));
        assert!(m.change(now, 0, 50), "once more");
    }

    #[test]
    fn connections_are_looked_at_while_memory_is_full_or_something_waits_for_room() {
        let (mut m, now) = (Memory::new(300), Instant::ZERO);
        m.change(now, 0, 300);
        m.change(now + LOOK_EVERY / 2, 300, 310);
        assert_eq!(m.next_look(), Some(now + LOOK_EVERY));
        m.on_looked_at(now + LOOK_EVERY, false);
        assert_eq!(m.next_look(), Some(now + 2 * LOOK_EVERY));
        m.release(100);
        m.on_looked_at(now + 2 * LOOK_EVERY, true);
        m.on_looked_at(now + 3 * LOOK_EVERY, false);
        assert_eq!(m.next_look(), None);
    }
}

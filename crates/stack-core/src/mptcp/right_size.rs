//! How large a buffer is that tunes itself, and how much a receiver needs.

use crate::config::BufferSize;
use crate::context::Pressure;
use umptcp_types::{Duration, Instant};

/// What is needed in parts of what goes through in a round trip (RFC 6182 §5.3): a packet that is lost takes one
/// more round trip, in which as much comes again.
const STEADY: u64 = 2;
/// The same at most. What a sender in slow start sends doubles with each round trip; with less it would meet the
/// end of the window before it hears that this has grown.
const GROWING: u64 = 6;
/// What a buffer takes at most when all connections together hold what they may: enough for a few packets, so
/// that each goes on.
pub(crate) const LEAST: usize = 16 << 10;

/// The size of a buffer, fixed or automatic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    setting: BufferSize,
    now: usize,
}

impl Size {
    /// What `setting` begins with.
    pub(crate) fn new(setting: BufferSize) -> Self {
        Size { setting, now: setting.initial() }
    }

    /// Another setting. One that is automatic goes on from the present size.
    pub(crate) fn set(&mut self, setting: BufferSize) {
        self.now = if setting.is_automatic() { self.now.min(setting.limit()) } else { setting.limit() };
        self.setting = setting;
    }

    /// It tunes itself.
    pub(crate) fn is_automatic(&self) -> bool {
        self.setting.is_automatic()
    }

    /// It may become larger.
    pub(crate) fn may_grow(&self) -> bool {
        self.is_automatic() && self.now < self.setting.limit()
    }

    /// Bytes, unless memory is scarce.
    pub(crate) fn get(&self) -> usize {
        self.now
    }

    /// Memory is scarce, or not: how many bytes it is to take. True: an automatic buffer has fallen back.
    pub(crate) fn on_pressure(&mut self, pressure: Pressure) -> bool {
        let falls = pressure > Pressure::None && self.is_automatic() && self.now > self.setting.initial();
        if falls {
            self.now = self.setting.initial();
        }
        falls
    }

    /// Bytes that it takes.
    pub(crate) fn usable(&self, pressure: Pressure) -> usize {
        if pressure == Pressure::Full { self.now.min(LEAST) } else { self.now }
    }

    /// `needed` bytes are: an automatic buffer becomes as large, as far as it may. True: it does.
    pub(crate) fn grow(&mut self, needed: u64) -> bool {
        let wanted = usize::try_from(needed).unwrap_or(usize::MAX).min(self.setting.limit());
        let grows = self.is_automatic() && wanted > self.now;
        if grows {
            self.now = wanted;
        }
        grows
    }
}

/// Dynamic right-sizing (Fisk and Feng 2001; as Linux's tcp_rcv_space_adjust), at the data level: how much the
/// application takes in the round-trip time of the slowest subflow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RightSize {
    /// When the measurement that is under way began, and what had been taken and had arrived by then.
    begun: Option<Instant>,
    taken: u64,
    arrived: u64,
    /// The most there has been in a round trip.
    most: u64,
}

impl RightSize {
    /// A reader that is `behind` bytes behind is not the slow one: that is no more than half of what there has been
    /// in a round trip, which another thread needs some time to read.
    pub(crate) fn keeps_up(&self, behind: u64) -> bool {
        behind <= self.most / 2
    }

    /// The measurement begins anew with what comes next.
    pub(crate) fn restart(&mut self) {
        self.begun = None;
    }

    /// The application has taken `taken` bytes in all, and `arrived` have come. It has nothing left to read if
    /// `kept_up`: then what has come beyond that, and waits for slower subflows, shows how fast the paths are.
    /// Bytes that the buffer needs, when there is news: at once, since more than ever before in less than a
    /// round trip says as much.
    pub(crate) fn on_progress(
        &mut self,
        now: Instant,
        rtt: Duration,
        (taken, arrived): (u64, u64),
        kept_up: bool,
    ) -> Option<u64> {
        let begun = *self.begun.get_or_insert_with(|| {
            (self.taken, self.arrived) = (taken, arrived);
            now
        });
        let through = if kept_up { arrived.saturating_sub(self.arrived) } else { 0 };
        let amount = through.max(taken.saturating_sub(self.taken));
        let before = self.most;
        if now.saturating_duration_since(begun) >= rtt {
            (self.begun, self.taken, self.arrived) = (Some(now), taken, arrived);
            self.most = before.max(amount);
        }
        if amount <= before {
            return None;
        }
        // Doubled, it is as in slow start.
        let most_growth = amount.saturating_mul(GROWING - STEADY);
        let growth =
            u128::from(most_growth).saturating_mul((amount - before).into()) / u128::from(before.max(1));
        let growth = u64::try_from(growth).unwrap_or(u64::MAX).min(most_growth);
        Some(amount.saturating_mul(STEADY).saturating_add(growth))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(100);

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn an_automatic_buffer_grows_to_its_limit_and_not_back() {
        let mut size = Size::new(BufferSize::Auto { limit: 1 << 20 });
        assert_eq!(size.get(), BufferSize::INITIAL);
        assert!(!size.grow(1000) && size.grow(200_000) && !size.grow(150_000));
        assert_eq!(size.get(), 200_000);
        assert!(size.grow(u64::MAX) && !size.grow(u64::MAX));
        assert_eq!(size.get(), 1 << 20);
        size.set(BufferSize::Fixed(5000));
        assert!(!size.grow(1 << 20));
        assert_eq!(size.get(), 5000);
        size.set(BufferSize::Auto { limit: 10_000 });
        assert_eq!(size.get(), 5000, "goes on from there");
        assert!(size.grow(20_000));
        assert_eq!(size.get(), 10_000);
        size.set(BufferSize::Auto { limit: 0 });
        assert_eq!(size.get(), 1);
        assert_eq!(Size::new(BufferSize::Auto { limit: 4096 }).get(), 4096);
    }

    #[test]
    fn scarce_memory_takes_back_what_an_automatic_buffer_has_grown() {
        let mut size = Size::new(BufferSize::AUTO);
        assert!(!size.on_pressure(Pressure::Full));
        size.grow(1 << 20);
        assert!(!size.on_pressure(Pressure::None));
        assert_eq!(size.usable(Pressure::Pressed), 1 << 20);
        assert!(size.on_pressure(Pressure::Pressed));
        assert_eq!(size.usable(Pressure::Pressed), BufferSize::INITIAL);
        assert_eq!(size.usable(Pressure::Full), LEAST);
        let mut fixed = Size::new(BufferSize::Fixed(1 << 20));
        assert!(!fixed.on_pressure(Pressure::Pressed));
        assert_eq!([Pressure::Pressed, Pressure::Full].map(|p| fixed.usable(p)), [1 << 20, LEAST]);
        assert_eq!(Size::new(BufferSize::Fixed(5000)).usable(Pressure::Full), 5000);
    }

    #[test]
    fn twice_what_goes_through_in_a_round_trip_and_more_while_that_grows() {
        let mut r = RightSize::default();
        assert_eq!(r.on_progress(at(0), RTT, (10_000, 10_000), true), None);
        assert_eq!(r.on_progress(at(50), RTT, (15_000, 15_000), true), Some(30_000), "at once");
        assert_eq!(r.on_progress(at(100), RTT, (20_000, 20_000), true), Some(60_000));
        assert_eq!(r.on_progress(at(199), RTT, (30_000, 30_000), true), None, "as before");
        assert_eq!(r.on_progress(at(200), RTT, (40_000, 40_000), true), Some(120_000), "doubled");
        assert_eq!(r.on_progress(at(300), RTT, (65_000, 65_000), true), Some(50_000 + 25_000));
        assert_eq!(r.on_progress(at(400), RTT, (90_000, 90_000), true), None, "steady");
        // From nothing, the growth counts no more than in slow start.
        assert_eq!(r.on_progress(at(500), RTT, (u64::MAX, u64::MAX), true), Some(u64::MAX));
    }

    #[test]
    fn what_waits_for_a_slower_subflow_counts_unless_the_reader_is_the_slow_one() {
        let mut r = RightSize::default();
        assert_eq!(r.on_progress(at(0), RTT, (10_000, 10_000), true), None);
        assert_eq!(r.on_progress(at(50), RTT, (10_000, 110_000), false), None);
        assert_eq!(r.on_progress(at(60), RTT, (10_000, 110_000), true), Some(600_000));
    }
}

//! How much longer acknowledgements take on their way back than they did at best, by timestamps (RFC 7323).
//!
//! A download beside an upload fills the queue that the upload's acknowledgements pass. The round trip grows then, and
//! nothing is wrong with the direction that the data take.

use umptcp_types::{Duration, Instant};

/// What the peer's clock shows is up to so much old: it ticks every millisecond in all that is common today.
const TICK: Duration = Duration::from_millis(1);

/// The least difference between our clock and the peer's, as acknowledgements have shown it.
///
/// How fast the peer's clock ticks is for it to choose (RFC 7323 §5.4). A faster one than assumed makes every
/// difference the least one so far, a slower one makes the way back look longer and longer: the queue in the direction
/// of the data is overlooked at worst.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WayBack {
    /// The first difference in milliseconds, from which the others are counted, and the least one in nanoseconds.
    least: Option<(u32, i64)>,
}

impl WayBack {
    /// An acknowledgement came `now` with the peer's timestamp `value`. How much longer than at best it was on its way,
    /// at least.
    pub(super) fn sample(&mut self, now: Instant, value: u32) -> Duration {
        let difference = (now.as_millis() as u32).wrapping_sub(value);
        let (first, least) = *self.least.get_or_insert((difference, i64::MAX));
        let whole = i64::from(difference.wrapping_sub(first) as i32) * 1_000_000;
        let difference = whole + (now.as_nanos() % 1_000_000) as i64;
        self.least = Some((first, least.min(difference)));
        let longer = u64::try_from(difference.saturating_sub(least)).unwrap_or(0);
        Duration::from_nanos(longer).saturating_sub(TICK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// Samples by (our time in microseconds, time on the way in microseconds), with a peer whose clock ticks so often a
    /// second and starts near the end of its range.
    fn samples(ticks: u64, ways: &[(u64, u64)]) -> Vec<u64> {
        let mut back = WayBack::default();
        let of = |&(at, way): &(u64, u64)| {
            let value = (u64::from(u32::MAX) - 20 + (at - way) * ticks / 1_000_000) as u32;
            back.sample(Instant::from_nanos(at * 1000), value).as_micros() as u64
        };
        ways.iter().map(of).collect()
    }

    #[test]
    fn the_way_back_is_longer_by_what_it_was_at_best_and_no_more() {
        let ways =
            [(1_000_500, 300), (1_010_000, 20_300), (1_100_700, 40_300), (1_200_000, 300), (1_201_000, 900)];
        let longer = samples(1_000, &ways);
        for (longer, (_, way)) in longer.iter().zip(ways) {
            let truth = way - 300;
            assert!(*longer <= truth && longer + 2_000 >= truth, "{longer} instead of {truth}");
        }
    }

    /// A clock that is not as assumed never makes the way back look shorter than at best, nor wraps.
    #[test]
    fn clocks_that_tick_otherwise() {
        let ways: Vec<(u64, u64)> = (0..1000).map(|i| (1_000_000 + i * 1_000, 300)).collect();
        // Microseconds: nothing is ever longer.
        assert!(samples(1_000_000, &ways).iter().all(|l| *l == 0));
        // A tenth of a second: it looks as if the way became longer all the time.
        let slow = samples(10, &ways);
        assert!(slow.is_sorted_by(|a, b| a <= &(b + 100_000)) && slow[999] > 800_000);
    }
}

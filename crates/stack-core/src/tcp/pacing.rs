//! Pacing: a token bucket that spreads a window over the round trip, and the size of the next large segment.
//!
//! A TUN device has no back-pressure: what is written faster than the next queue drains is dropped silently.
//! Bursts are therefore about a millisecond at the current rate (RFC 9002 §7.7 asks for pacing or a bounded
//! burst).

use crate::types::{Duration, Instant};

const NANOS: i128 = 1_000_000_000;
/// Time at the current rate that one burst may take.
const BURST: Duration = Duration::from_millis(1);
/// Two MSS are sent together, so that a receiver that acknowledges every second segment does so at once,
/// unless they take longer than this.
const PAIR: Duration = Duration::from_millis(10);

/// A burst may be at least so long where the path is short: this where the round trip takes no time, and half of it for
/// each [`NEAR`] that it takes. Between a host and its neighbours such a burst waits in no queue that matters, while each
/// segment costs the same whatever its size: many connections, each slow because segments are small, would stay so. Linux
/// has the like since 5.18 (`tcp_tso_rtt_log`), with 64 kB on top; that much costs others behind a shaper their turn.
const NEAR_BURST: u64 = 16 << 10;
const NEAR: Duration = Duration::from_micros(512);

/// Token bucket. Sending is allowed while any token is left, and a segment larger than the tokens leaves a
/// debt, so that 64 kB segments need no bucket of that size.
#[derive(Clone, Debug)]
pub(super) struct Pacer {
    /// Bytes per second; `None`: no limit.
    rate: Option<u64>,
    mss: u32,
    /// Billionths of a byte at time `at`; negative: debt.
    tokens: i128,
    at: Instant,
}

impl Pacer {
    /// An unlimited pacer for segments of `mss` bytes.
    pub(super) fn new(mss: u32) -> Self {
        Pacer { rate: None, mss, tokens: 0, at: Instant::ZERO }
    }

    /// Sets the rate in bytes per second; 0 counts as 1. A debt stays, and is paid at the new rate.
    pub(super) fn set_rate(&mut self, rate: u64) {
        let first = self.rate.is_none();
        self.rate = Some(rate.max(1));
        if first {
            self.tokens = self.depth();
        }
    }

    /// Lifts the limit.
    #[cfg(test)]
    pub(super) fn set_unlimited(&mut self) {
        self.rate = None;
    }

    /// The rate in bytes per second, if there is a limit.
    #[cfg(test)]
    pub(super) fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// The segment size changed.
    pub(super) fn set_mss(&mut self, mss: u32) {
        self.mss = mss;
    }

    /// Bytes that may leave at once after a pause: a millisecond at the rate, at least two segments.
    /// `u64::MAX` without a limit.
    pub(super) fn burst(&self) -> u64 {
        match self.rate {
            None => u64::MAX,
            Some(rate) => (rate / 1_000).max(2 * u64::from(self.mss)),
        }
    }

    fn depth(&self) -> i128 {
        i128::from(self.burst()) * NANOS
    }

    fn tokens_at(&self, now: Instant, rate: u64) -> i128 {
        let elapsed = i128::from(now.as_nanos().saturating_sub(self.at.as_nanos()));
        self.tokens.saturating_add(elapsed.saturating_mul(i128::from(rate))).min(self.depth())
    }

    /// `bytes` were sent.
    pub(super) fn on_sent(&mut self, now: Instant, bytes: u64) {
        let Some(rate) = self.rate else { return };
        self.tokens = self.tokens_at(now, rate).saturating_sub(i128::from(bytes) * NANOS);
        self.at = self.at.max(now);
    }

    /// When the next segment may be sent: `now` if at once.
    pub(super) fn next_send(&self, now: Instant) -> Instant {
        let Some(rate) = self.rate else { return now };
        let tokens = self.tokens_at(now, rate);
        if tokens > 0 {
            return now;
        }
        // One billionth of a byte more than nothing.
        let wait = (1 - tokens + i128::from(rate) - 1) / i128::from(rate);
        now + Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX))
    }
}

/// Payload bytes of the next large segment at `rate` bytes per second: about a millisecond's worth, a
/// multiple of `mss`, at most `max`; at least two `mss` where these take no longer than ten milliseconds,
/// otherwise one.
///
/// `near` is the least round trip there was: where it is short, it is 16 kB at least, as far as the path's NIC, which sends
/// `line` bytes per second, takes that in a millisecond.
///
/// So a 3 Mbit/s path sends one or two packets at a time and a 10 Gbit/s path 64 kB. Without a limit (`None`)
/// it is the largest multiple of `mss` up to `max`. When `max` is below `mss` the answer is `max`.
pub(super) fn segment_size(
    rate: Option<u64>,
    line: Option<u64>,
    near: Option<Duration>,
    mss: u32,
    max: usize,
) -> usize {
    let mss = mss.max(1) as usize;
    if max < mss {
        return max;
    }
    let most = max / mss;
    let Some(rate) = rate.into_iter().chain(line).min() else { return most * mss };
    let bytes = |rate: u64, t: Duration| u128::from(rate) * t.as_nanos() / NANOS.unsigned_abs();
    let packets = |bytes: u128| usize::try_from(bytes).unwrap_or(usize::MAX) / mss;
    let least = if packets(bytes(rate, PAIR)) >= 2 { 2 } else { 1 };
    let near = near.map_or(0, |rtt| {
        let halves = rtt.as_nanos() / NEAR.as_nanos();
        NEAR_BURST.checked_shr(u32::try_from(halves).unwrap_or(u32::MAX)).unwrap_or(0)
    });
    let burst = bytes(rate, BURST).max(u128::from(near));
    let burst = burst.min(line.map_or(u128::MAX, |line| bytes(line, BURST)));
    packets(burst).max(least).min(most) * mss
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1_460;

    /// Sends segments of `size` as early as allowed for one second; returns bytes sent and the largest burst.
    fn run(rate: u64, size: u64) -> (u64, u64) {
        let mut p = Pacer::new(MSS);
        p.set_rate(rate);
        let (mut now, end) = (Instant::from_millis(7), Instant::from_millis(1_007));
        let (mut total, mut burst, mut largest) = (0, 0, 0);
        while now < end {
            p.on_sent(now, size);
            total += size;
            burst += size;
            largest = largest.max(burst);
            let next = p.next_send(now);
            if next > now {
                burst = 0;
            }
            now = next;
        }
        (total, largest)
    }

    #[test]
    fn keeps_the_rate_and_the_burst() {
        for (rate, size) in [
            (375_000, 1_460u64),
            (375_000, 2_920),
            (37_500_000, 36_500),
            (1_250_000_000, 64_240),
            (12_500_000_000, 64_240),
            (375_000, 64_240),
        ] {
            let (total, burst) = run(rate, size);
            let allowance = (rate / 1_000).max(2 * u64::from(MSS));
            assert!(total >= rate && total <= rate + allowance + 2 * size, "{rate} {size}: {total}");
            assert!(burst <= allowance + size, "{rate} {size}: burst {burst}");
        }
    }

    #[test]
    fn unlimited_until_a_rate_is_set_and_a_debt_is_paid_at_the_new_rate() {
        let now = Instant::from_millis(1);
        let mut p = Pacer::new(MSS);
        p.on_sent(now, 1_000_000);
        assert_eq!((p.next_send(now), p.burst(), p.rate()), (now, u64::MAX, None));
        p.set_rate(1_000_000);
        p.on_sent(now, 2_920 + 10_000);
        assert_eq!(p.next_send(now), now + Duration::from_millis(10) + Duration::from_nanos(1));
        p.set_rate(10_000_000);
        assert!(p.next_send(now) <= now + Duration::from_millis(1) + Duration::from_nanos(1));
        p.set_unlimited();
        assert_eq!(p.next_send(now), now);
    }

    #[test]
    fn idle_time_does_not_add_up_beyond_the_burst() {
        let mut p = Pacer::new(MSS);
        p.set_rate(1_000_000);
        p.on_sent(Instant::ZERO, 1);
        let later = Instant::from_millis(60_000);
        p.on_sent(later, 2_920);
        assert!(p.next_send(later) > later);
    }

    #[test]
    fn segment_size_follows_the_rate() {
        for (rate, max, expected) in [
            (Some(100_000), 65_000, 1_460),
            (Some(375_000), 65_000, 2_920),
            (Some(12_500_000), 65_000, 11_680),
            (Some(37_500_000), 65_000, 36_500),
            (Some(1_250_000_000), 65_000, 64_240),
            (None, 65_000, 64_240),
            (None, 1_460, 1_460),
            (Some(1_250_000_000), 1_000, 1_000),
            (Some(0), 65_000, 1_460),
            (Some(u64::MAX), usize::MAX, usize::MAX / 1_460 * 1_460),
        ] {
            let size = segment_size(rate, None, None, MSS, max);
            if rate != Some(u64::MAX) {
                assert_eq!(size, expected, "{rate:?} {max}");
            }
            assert!(size <= max);
        }
    }

    #[test]
    fn a_short_path_takes_larger_segments_as_far_as_its_nic_does() {
        let us = Duration::from_micros;
        for (near, line, expected) in [
            (us(80), None, 16_060),
            (us(600), None, 7_300),
            (us(1_100), None, 2_920),
            (us(3_000), None, 2_920),
            (Duration::from_secs(3_600), None, 2_920),
            (us(80), Some(12_500_000), 11_680),
            (us(80), Some(1_250_000), 2_920),
        ] {
            assert_eq!(
                segment_size(Some(1_500_000), line, Some(near), MSS, 65_000),
                expected,
                "{near:?} {line:?}"
            );
        }
        // The caller's limit counts, and without a rate there is no other.
        assert_eq!(segment_size(Some(1_500_000), None, Some(us(80)), MSS, 8_000), 7_300);
        assert_eq!(segment_size(Some(37_500_000), None, Some(us(80)), MSS, 65_000), 36_500);
        assert_eq!(segment_size(None, None, Some(us(80)), MSS, 65_000), 64_240);
    }

    #[test]
    fn extreme_values_do_not_panic() {
        for rate in [0, 1, u64::MAX] {
            let mut p = Pacer::new(u32::MAX);
            p.set_rate(rate);
            for now in [Instant::MAX, Instant::ZERO, Instant::from_millis(3)] {
                p.on_sent(now, u64::MAX);
                assert!(p.next_send(now) >= now);
            }
        }
    }
}

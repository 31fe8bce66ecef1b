//! Round-trip time estimation and the retransmission time-out (RFC 6298), and the probe time-out (RFC 8985
//! §7.2).

use crate::types::{Duration, Instant};

/// Time-out before the first measurement (RFC 6298 §2.1).
pub(super) const INITIAL_RTO: Duration = Duration::from_secs(1);
/// Timeout after the handshake if its SYN had to be retransmitted and gave no measurement (RFC 6298 §5.7).
const INITIAL_RTO_AFTER_SYN_TIMEOUT: Duration = Duration::from_secs(3);
/// Least allowance for variation: the time-out never falls below SRTT plus this.
///
/// RFC 6298 §2.4 asks for a minimum of one second but expects research to lower it. We do as Linux does and
/// count 200 ms on top of SRTT, because a receiver may delay its ACK by up to that much (Linux's longest
/// delayed ACK) whatever the path's RTT: a minimum of 200 ms for the whole sum would fire before such an ACK
/// on every path longer than nothing, and one second makes the loss of a lone segment cost five times as much
/// as needed.
pub(super) const MIN_RTO: Duration = Duration::from_millis(200);
/// Largest time-out; RFC 6298 §2.5 wants at least 60 seconds.
pub(super) const MAX_RTO: Duration = Duration::from_secs(60);
/// Clock granularity G (RFC 6298 §4): timestamp options and timers are assumed no finer than this.
pub(super) const CLOCK_GRANULARITY: Duration = Duration::from_millis(1);

/// Length of one window of the minimum filter.
const MIN_WINDOW: Duration = Duration::from_secs(10);

/// Smoothed round-trip time, its variation and the retransmission time-out of one subflow.
///
/// Every ACK may give a sample. With many samples per round trip the gains of RFC 6298 §2 would let the
/// variation forget within a fraction of a round trip (RFC 6298 §3, RFC 7323 appendix G). As Sarolahti and
/// Kuznetsov describe for Linux (USENIX 2002), the variation therefore follows the *largest* smoothed
/// deviation of a round trip at once upwards, and downwards by a quarter once per round trip; and a sample
/// below the smoothed value raises it only by an eighth of the usual gain, since a round trip that became
/// shorter is no reason for a longer time-out.
#[derive(Clone, Debug)]
pub(super) struct RttEstimator {
    /// Nanoseconds, as all below; `None` before the first sample.
    srtt: Option<u64>,
    /// Smoothed deviation, per sample.
    mdev: u64,
    /// Largest `mdev` since `round_start`.
    mdev_max: u64,
    rttvar: u64,
    round_start: Instant,
    latest: Option<Duration>,
    /// Minimum of the current window and of the one before it.
    min: MinFilter,
    /// Timeout before the first measurement.
    initial: Duration,
    backoff: u32,
    /// The next measurement takes the place of all before.
    renew: bool,
    /// SRTT and RTTVAR before a timeout that may be spurious (RFC 4015 §3.1 step 0).
    before_timeout: Option<(u64, u64)>,
}

impl Default for RttEstimator {
    fn default() -> Self {
        Self::new()
    }
}

impl RttEstimator {
    /// No measurement yet: the time-out is [`INITIAL_RTO`].
    pub(super) fn new() -> Self {
        RttEstimator {
            srtt: None,
            mdev: 0,
            mdev_max: 0,
            rttvar: 0,
            round_start: Instant::ZERO,
            latest: None,
            min: MinFilter::default(),
            initial: INITIAL_RTO,
            backoff: 0,
            renew: false,
            before_timeout: None,
        }
    }

    /// Takes a measurement that Karn's rule allows (RFC 6298 §3). It also ends back-off, as RFC 6298 §5 has
    /// it.
    pub(super) fn sample(&mut self, now: Instant, rtt: Duration) {
        let rtt = rtt.clamp(Duration::from_nanos(1), MAX_RTO);
        self.latest = Some(rtt);
        self.min.update(now, rtt);
        self.backoff = 0;
        let r = nanos(rtt);
        let known = self.srtt.filter(|_| !core::mem::take(&mut self.renew));
        let Some(srtt) = known else {
            // RFC 6298 §2.2.
            self.srtt = Some(r);
            self.mdev = r / 2;
            self.mdev_max = self.mdev;
            self.rttvar = self.mdev;
            self.round_start = now;
            return;
        };
        // RFC 6298 §2.3: the deviation is from the smoothed value before this sample enters it.
        let deviation = srtt.abs_diff(r);
        if deviation <= self.mdev || r >= srtt {
            self.mdev = self.mdev - self.mdev / 4 + deviation / 4;
        } else {
            self.mdev += (deviation - self.mdev) / 32;
        }
        self.srtt = Some(srtt - srtt / 8 + r / 8);
        self.mdev_max = self.mdev_max.max(self.mdev);
        self.rttvar = self.rttvar.max(self.mdev_max);
        if nanos(now.saturating_duration_since(self.round_start)) >= srtt {
            self.rttvar -= (self.rttvar - self.mdev_max) / 4;
            self.mdev_max = 0;
            self.round_start = now;
        }
    }

    /// What was measured is too old to be worth an average with the next measurement, which is as the first.
    pub(super) fn renew(&mut self) {
        self.renew = true;
    }

    /// How long ago the last measurement was, within a round trip; `None`: there was none.
    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        // A round lasts no longer than a round trip beyond the last measurement in it.
        let since = now.saturating_duration_since(self.round_start);
        self.srtt().map(|srtt| since.saturating_sub(srtt))
    }

    /// The retransmission timer expired: remembers what it was made of, should that turn out to be needless.
    pub(super) fn remember(&mut self) {
        self.before_timeout = self.srtt.map(|srtt| (srtt + 2 * nanos(CLOCK_GRANULARITY), self.rttvar));
    }

    /// As [`sample`](Self::sample), for the first data that were new when a timeout was spurious: the
    /// time-out becomes as conservative as before it or as after a first measurement, whichever is longer
    /// (RFC 4015 §3.1 step 11).
    pub(super) fn sample_after_spurious_timeout(&mut self, now: Instant, rtt: Duration) {
        self.sample(now, rtt);
        let Some((srtt, rttvar)) = self.before_timeout.take() else { return };
        let r = nanos(rtt.min(MAX_RTO));
        self.srtt = Some(srtt.max(r));
        self.rttvar = rttvar.max(r / 2);
        self.mdev = self.rttvar;
        self.mdev_max = self.rttvar;
        self.round_start = now;
    }

    /// The handshake is complete, and its SYN had timed out: until there is a measurement the timeout is
    /// three seconds (RFC 6298 §5.7).
    pub(super) fn syn_timed_out(&mut self) {
        self.initial = INITIAL_RTO_AFTER_SYN_TIMEOUT;
    }

    /// Smoothed round-trip time.
    pub(super) fn srtt(&self) -> Option<Duration> {
        self.srtt.map(Duration::from_nanos)
    }

    /// Round-trip time variation; zero before the first sample.
    pub(super) fn rttvar(&self) -> Duration {
        Duration::from_nanos(self.rttvar)
    }

    /// Least sample of the last 10 to 20 seconds in which there were samples, so that it adapts when a path
    /// becomes longer for good (RFC 8985 §6.2 step 1).
    pub(super) fn min_rtt(&self) -> Option<Duration> {
        self.min.get()
    }

    /// The last sample.
    pub(super) fn latest(&self) -> Option<Duration> {
        self.latest
    }

    /// Retransmission time-out with back-off applied, between [`MIN_RTO`] and [`MAX_RTO`].
    pub(super) fn rto(&self) -> Duration {
        self.base_rto().saturating_mul(1 << self.backoff.min(16)).min(MAX_RTO)
    }

    /// Retransmission time-out without back-off: how long an answer takes at most if both ways deliver.
    pub(super) fn base_rto(&self) -> Duration {
        let Some(srtt) = self.srtt else { return self.initial };
        let variation = self.rttvar.saturating_mul(4).max(nanos(CLOCK_GRANULARITY));
        Duration::from_nanos(srtt.saturating_add(variation.max(nanos(MIN_RTO)))).min(MAX_RTO)
    }

    /// The time-out expired: doubles it (RFC 6298 §5.5).
    pub(super) fn back_off(&mut self) {
        self.backoff = self.backoff.saturating_add(1);
    }

    /// Takes back all doublings, for instance because new data were acknowledged.
    pub(super) fn reset_back_off(&mut self) {
        self.backoff = 0;
    }

    /// Doublings in force.
    pub(super) fn backoff_count(&self) -> u32 {
        self.backoff
    }
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

/// Minimum over the current window of [`MIN_WINDOW`] and the one before.
#[derive(Clone, Debug, Default)]
struct MinFilter {
    current: Option<Duration>,
    previous: Option<Duration>,
    window_start: Instant,
}

impl MinFilter {
    fn update(&mut self, now: Instant, value: Duration) {
        let age = now.saturating_duration_since(self.window_start);
        if self.current.is_none() {
            self.window_start = now;
        } else if age >= MIN_WINDOW {
            // After two windows without a sample the old minimum is forgotten.
            self.previous = if age < 2 * MIN_WINDOW { self.current } else { None };
            self.current = None;
            self.window_start = now;
        }
        self.current = Some(self.current.map_or(value, |c| c.min(value)));
    }

    fn get(&self) -> Option<Duration> {
        match (self.current, self.previous) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

/// Time from now until a tail loss probe is due (RFC 8985 §7.2).
///
/// `flight` is the number of bytes in flight: with one segment or less (`mss`) the peer may be delaying its
/// ACK, by `max_ack_delay` at most. `rto` is the time left until the retransmission time-out, which the probe
/// never exceeds.
pub(super) fn pto(
    srtt: Option<Duration>,
    flight: u64,
    mss: u32,
    max_ack_delay: Duration,
    rto: Duration,
) -> Duration {
    let pto = match srtt {
        None => INITIAL_RTO,
        Some(srtt) => {
            let delay = if flight <= u64::from(mss) { max_ack_delay } else { Duration::ZERO };
            // No finer than the clock, or paths of a few microseconds would probe before the peer wakes up.
            srtt.saturating_mul(2).max(2 * CLOCK_GRANULARITY).saturating_add(delay)
        }
    };
    pto.min(rto)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn before_any_sample_the_rto_is_one_second_and_backs_off() {
        // RFC 6298 §2.1, §5.5, §2.5.
        let mut e = RttEstimator::new();
        assert_eq!((e.srtt(), e.min_rtt(), e.latest(), e.rttvar()), (None, None, None, Duration::ZERO));
        assert_eq!(e.rto(), Duration::from_secs(1));
        let mut expected = Duration::from_secs(1);
        for n in 1..40 {
            e.back_off();
            expected = (expected * 2).min(MAX_RTO);
            assert_eq!((e.rto(), e.backoff_count()), (expected, n));
        }
        e.reset_back_off();
        assert_eq!((e.rto(), e.backoff_count()), (Duration::from_secs(1), 0));
    }

    #[test]
    fn after_a_syn_time_out_the_initial_rto_is_three_seconds_until_a_sample() {
        // RFC 6298 §5.7.
        let mut e = RttEstimator::new();
        e.syn_timed_out();
        assert_eq!(e.rto(), Duration::from_secs(3));
        e.sample(Instant::from_millis(5), ms(50));
        assert_eq!(e.rto(), ms(250));
    }

    #[test]
    fn first_sample_sets_srtt_and_half_of_it_as_variation() {
        // RFC 6298 §2.2.
        let mut e = RttEstimator::new();
        e.sample(Instant::from_millis(1), ms(400));
        assert_eq!((e.srtt(), e.rttvar()), (Some(ms(400)), ms(200)));
        assert_eq!(e.rto(), ms(400 + 4 * 200));
    }

    #[test]
    fn smoothing_uses_one_eighth_and_one_quarter() {
        // RFC 6298 §2.3: deviation taken before SRTT moves.
        let mut e = RttEstimator::new();
        e.sample(Instant::from_millis(0), ms(400));
        e.sample(Instant::from_millis(500), ms(1200));
        assert_eq!(e.srtt(), Some(ms(500)));
        assert_eq!(e.rttvar(), ms(150 + 200));
    }

    #[test]
    fn a_steady_path_converges_to_srtt_plus_the_least_allowance() {
        let mut e = RttEstimator::new();
        for i in 0..2_000 {
            e.sample(Instant::from_millis(i * 10), ms(100));
        }
        assert!(e.srtt().unwrap().abs_diff(ms(100)) < Duration::from_micros(1));
        assert!(e.rto() >= ms(300) - Duration::from_micros(1) && e.rto() < ms(301), "{:?}", e.rto());
    }

    #[test]
    fn a_shorter_path_does_not_raise_the_time_out() {
        let mut e = RttEstimator::new();
        for i in 0..1_000 {
            e.sample(Instant::from_millis(i * 10), ms(1_000));
        }
        let before = e.rto();
        e.sample(Instant::from_millis(10_010), ms(10));
        assert!(e.rto() <= before, "{:?} > {before:?}", e.rto());
    }

    #[test]
    fn variation_outlives_many_quiet_samples_within_one_round_trip() {
        let mut e = RttEstimator::new();
        for i in 0..1_000 {
            e.sample(Instant::from_millis(i * 10), ms(100));
        }
        e.sample(Instant::from_millis(10_000), ms(900));
        let var = e.rttvar();
        assert!(var > ms(150));
        // RFC 6298 gains would have forgotten the spike after these fifty samples in half a round trip.
        for i in 0..50 {
            e.sample(Instant::from_millis(10_000 + i), ms(100));
        }
        assert!(e.rttvar() * 2 > var);
    }

    #[test]
    fn minimum_is_windowed() {
        // RFC 8985 §6.2 step 1: adapts when the path becomes longer.
        let mut e = RttEstimator::new();
        e.sample(Instant::from_millis(0), ms(10));
        e.sample(Instant::from_millis(5_000), ms(50));
        assert_eq!(e.min_rtt(), Some(ms(10)));
        e.sample(Instant::from_millis(10_500), ms(50));
        assert_eq!(e.min_rtt(), Some(ms(10)));
        e.sample(Instant::from_millis(20_600), ms(60));
        assert_eq!(e.min_rtt(), Some(ms(50)));
        e.sample(Instant::from_millis(90_000), ms(70));
        assert_eq!(e.min_rtt(), Some(ms(70)));
        assert_eq!(e.latest(), Some(ms(70)));
    }

    #[test]
    fn after_a_spurious_timeout_the_timer_is_as_conservative_as_after_a_first_sample() {
        // RFC 4015 §3.1 steps 0 and 11.
        for (rtt, srtt, rttvar) in [(900, 900, 450), (50, 102, 25), (150, 150, 75)] {
            let mut e = RttEstimator::new();
            for i in 0..2_000 {
                e.sample(Instant::from_millis(i * 10), ms(100));
            }
            e.remember();
            e.sample_after_spurious_timeout(Instant::from_millis(21_000), ms(rtt));
            let near = |a: Duration, b| a.abs_diff(ms(b)) < ms(1);
            assert!(near(e.srtt().unwrap(), srtt) && near(e.rttvar(), rttvar), "{rtt}: {e:?}");
        }
        // Without a timeout before, it is a sample like any other.
        let mut e = RttEstimator::new();
        e.sample_after_spurious_timeout(Instant::from_millis(5), ms(40));
        assert_eq!((e.srtt(), e.rttvar()), (Some(ms(40)), ms(20)));
    }

    #[test]
    fn absurd_samples_neither_panic_nor_exceed_the_bounds() {
        let mut e = RttEstimator::new();
        for (now, rtt) in [
            (Instant::MAX, Duration::MAX),
            (Instant::ZERO, Duration::ZERO),
            (Instant::MAX, Duration::MAX),
            (Instant::from_millis(1), Duration::from_nanos(1)),
        ] {
            e.sample(now, rtt);
            assert!(e.rto() >= MIN_RTO && e.rto() <= MAX_RTO);
        }
    }

    #[test]
    fn a_renewed_estimate_forgets_what_was_before() {
        let mut e = RttEstimator::new();
        let at = |n| Instant::ZERO + ms(n);
        assert_eq!(e.age(at(0)), None);
        for k in 0..100 {
            e.sample(at(k * 10), ms(500));
        }
        // The last measurement was at 990 ms.
        let age = e.age(at(6_000)).unwrap();
        assert!(age <= ms(5_010) && age >= ms(4_500), "{age:?}");
        e.renew();
        assert_eq!(e.srtt(), Some(ms(500)), "until there is another");
        e.sample(at(6_000), ms(20));
        assert_eq!((e.srtt(), e.rttvar()), (Some(ms(20)), ms(10)));
        e.sample(at(6_010), ms(28));
        assert_eq!(e.srtt(), Some(ms(21)), "an average from there on");
    }

    #[test]
    fn probe_time_out_follows_rfc_8985() {
        let rto = ms(1_000);
        for (srtt, flight, expected) in [
            (None, 10_000, ms(1_000)),
            (Some(ms(100)), 10_000, ms(200)),
            (Some(ms(100)), 1_460, ms(240)),
            (Some(ms(100)), 1, ms(240)),
            (Some(ms(700)), 10_000, ms(1_000)),
            (Some(Duration::from_micros(20)), 10_000, ms(2)),
        ] {
            assert_eq!(pto(srtt, flight, 1_460, ms(40), rto), expected, "{srtt:?} {flight}");
        }
    }
}

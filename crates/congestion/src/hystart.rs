//! HyStart++ (RFC 9406): leaves the first slow start when the RTT rises, before the queue overflows.

use alloc::vec::Vec;

/// Bounds of the RTT increase that counts, in seconds (RFC 9406 §4.3).
const MIN_RTT_THRESH: f64 = 0.004;
const MAX_RTT_THRESH: f64 = 0.016;
/// Between these bounds, the increase that counts is the RTT divided by this.
const MIN_RTT_DIVISOR: f64 = 8.0;
/// The number of samples a round needs before its minimum is used.
const N_RTT_SAMPLE: u32 = 8;
/// The same where packets overtake one another, and how many are kept. Any of fewer may be early by chance.
const N_DISORDERED: usize = 64;
/// How much more slowly the window grows in conservative slow start.
const CSS_GROWTH_DIVISOR: f64 = 4.0;
/// The number of rounds of conservative slow start before congestion avoidance.
const CSS_ROUNDS: u32 = 5;

/// HyStart++ on one subflow (RFC 9406 §4.2). Times are in seconds; infinity means "no value yet", as in the
/// RFC.
///
/// Call [`sample`](Self::sample) for every RTT sample and [`round`](Self::round) at the end of every round,
/// and multiply the growth of slow start by [`growth`](Self::growth). It is only for the first slow start
/// (RFC 9406 §4.3), because after a reduction the threshold is known.
#[derive(Clone, Debug)]
pub(crate) struct HyStart {
    last_round_min: f64,
    current_round_min: f64,
    samples: u32,
    /// The first samples of this round that were measured where packets overtake one another.
    kept: Vec<f64>,
    css: Option<Css>,
}

/// Conservative slow start: the RTT at which it was entered, and the number of rounds since.
#[derive(Clone, Copy, Debug)]
struct Css {
    baseline: f64,
    rounds: u32,
}

impl Default for HyStart {
    fn default() -> Self {
        HyStart {
            last_round_min: f64::INFINITY,
            current_round_min: f64::INFINITY,
            samples: 0,
            kept: Vec::new(),
            css: None,
        }
    }
}

impl HyStart {
    /// An RTT was measured in slow start.
    pub(crate) fn sample(&mut self, rtt: f64) {
        self.current_round_min = self.current_round_min.min(rtt);
        self.samples = self.samples.saturating_add(1);
        if self.samples >= N_RTT_SAMPLE {
            self.judge();
        }
    }

    /// The same where packets overtake one another.
    ///
    /// The least of a round is then that of the earliest packet, and the next round's may be longer without
    /// any queue. What two packets of three take at least is longer only if all take longer, so that stands
    /// for the round's minimum, once there are enough to tell.
    pub(crate) fn sample_disordered(&mut self, rtt: f64) {
        if self.kept.is_empty() {
            // The round's, or what was measured of it before, would be compared with something else.
            self.current_round_min = f64::INFINITY;
        }
        if self.kept.len() >= N_DISORDERED {
            return;
        }
        self.kept.push(rtt);
        if self.kept.len() == N_DISORDERED {
            self.current_round_min = lower_third(&mut self.kept).unwrap_or(f64::INFINITY);
            self.judge();
        }
    }

    /// The minimum of the round is known.
    fn judge(&mut self) {
        match self.css {
            None if self.last_round_min.is_finite() => {
                let threshold = (self.last_round_min / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH);
                if self.current_round_min >= self.last_round_min + threshold {
                    self.css = Some(Css { baseline: self.current_round_min, rounds: 0 });
                }
            }
            // The increase was jitter: back to normal slow start.
            Some(css) if self.current_round_min < css.baseline => self.css = None,
            _ => {}
        }
    }

    /// A round has ended. Returns `true` if conservative slow start is over and congestion avoidance begins.
    #[must_use]
    pub(crate) fn round(&mut self) -> bool {
        self.last_round_min = self.current_round_min;
        self.current_round_min = f64::INFINITY;
        self.samples = 0;
        self.kept.clear();
        match &mut self.css {
            Some(css) => {
                css.rounds += 1;
                css.rounds >= CSS_ROUNDS
            }
            None => false,
        }
    }

    /// The factor for the growth of slow start: 1, or a quarter in conservative slow start.
    ///
    /// The RFC's limit L on the bytes counted per ACK is infinite, as §4.3 recommends for a sender that
    /// paces.
    pub(crate) fn growth(&self) -> f64 {
        if self.css.is_some() { 1.0 / CSS_GROWTH_DIVISOR } else { 1.0 }
    }
}

/// The value that a third of `samples` lies below; their order is lost.
pub(crate) fn lower_third(samples: &mut [f64]) -> Option<f64> {
    let index = samples.len() / 3;
    (index < samples.len()).then(|| *samples.select_nth_unstable_by(index, f64::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_of(h: &mut HyStart, rtt: f64, samples: u32) -> bool {
        for _ in 0..samples {
            h.sample(rtt);
        }
        h.round()
    }

    /// RFC 9406 §4.2: the threshold is an eighth of the last round's minimum, within 4 and 16 ms.
    #[test]
    fn threshold_follows_the_round_trip_time_within_its_bounds() {
        let table = [
            // last round's minimum, this round's, conservative slow start entered
            (0.010, 0.013_9, false), // 10/8 ms < 4 ms: 14 ms needed
            (0.010, 0.014_1, true),
            (0.064, 0.071_9, false), // 8 ms
            (0.064, 0.072_1, true),
            (0.400, 0.415_9, false), // 50 ms > 16 ms: 416 ms needed
            (0.400, 0.416_1, true),
        ];
        for (last, current, entered) in table {
            let mut h = HyStart::default();
            assert!(!round_of(&mut h, last, N_RTT_SAMPLE));
            assert!(!round_of(&mut h, current, N_RTT_SAMPLE));
            assert_eq!(h.growth() < 1.0, entered, "{last} → {current}");
        }
    }

    #[test]
    fn too_few_samples_prove_nothing() {
        let mut h = HyStart::default();
        assert!(!round_of(&mut h, 0.010, N_RTT_SAMPLE));
        assert!(!round_of(&mut h, 0.100, N_RTT_SAMPLE - 1));
        assert_eq!(h.growth(), 1.0);
    }

    #[test]
    fn five_conservative_rounds_end_slow_start() {
        let mut h = HyStart::default();
        assert!(!round_of(&mut h, 0.010, N_RTT_SAMPLE));
        let ended: [bool; 5] = core::array::from_fn(|_| round_of(&mut h, 0.020, N_RTT_SAMPLE));
        assert_eq!(ended, [false, false, false, false, true]);
    }

    #[test]
    fn jitter_sends_it_back_to_slow_start() {
        let mut h = HyStart::default();
        assert!(!round_of(&mut h, 0.010, N_RTT_SAMPLE));
        assert!(!round_of(&mut h, 0.020, N_RTT_SAMPLE));
        assert_eq!(h.growth(), 0.25);
        assert!(!round_of(&mut h, 0.019, N_RTT_SAMPLE));
        assert_eq!(h.growth(), 1.0);
    }
}

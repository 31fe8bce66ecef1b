//! HyStart++ (RFC 9406): leaving the first slow start when the round-trip time rises, before the queue overflows.

/// Bounds in seconds of the rise that counts (RFC 9406 §4.3: MIN_RTT_THRESH, MAX_RTT_THRESH).
const MIN_RTT_THRESH: f64 = 0.004;
const MAX_RTT_THRESH: f64 = 0.016;
/// The rise that counts between these bounds, as a fraction of the round-trip time.
const MIN_RTT_DIVISOR: f64 = 8.0;
/// Samples a round needs before its minimum is believed.
const N_RTT_SAMPLE: u32 = 8;
/// How much slower conservative slow start grows.
const CSS_GROWTH_DIVISOR: f64 = 4.0;
/// Rounds of conservative slow start before congestion avoidance.
const CSS_ROUNDS: u32 = 5;

/// One subflow's HyStart++ (RFC 9406 §4.2). Times are in seconds; "no value yet" is infinity, as in the RFC.
///
/// Feed it with [`sample`](Self::sample) for every round-trip time and [`round`](Self::round) at the end of every
/// round, and multiply slow start's growth by [`growth`](Self::growth). It is for the first slow start only (RFC 9406
/// §4.3): after a reduction the threshold is known and there is nothing to search for.
#[derive(Clone, Debug)]
pub struct HyStart {
    last_round_min: f64,
    current_round_min: f64,
    samples: u32,
    /// Conservative slow start: the round-trip time that sent us there, and rounds spent there.
    css: Option<Css>,
}

#[derive(Clone, Copy, Debug)]
struct Css {
    baseline: f64,
    rounds: u32,
}

impl Default for HyStart {
    fn default() -> Self {
        HyStart { last_round_min: f64::INFINITY, current_round_min: f64::INFINITY, samples: 0, css: None }
    }
}

impl HyStart {
    /// A round-trip time measured in slow start.
    pub fn sample(&mut self, rtt: f64) {
        self.current_round_min = self.current_round_min.min(rtt);
        self.samples = self.samples.saturating_add(1);
        if self.samples < N_RTT_SAMPLE {
            return;
        }
        match self.css {
            None if self.last_round_min.is_finite() => {
                let threshold = (self.last_round_min / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH);
                if self.current_round_min >= self.last_round_min + threshold {
                    self.css = Some(Css { baseline: self.current_round_min, rounds: 0 });
                }
            }
            // The rise was jitter: back to slow start proper.
            Some(css) if self.current_round_min < css.baseline => self.css = None,
            _ => {}
        }
    }

    /// A round has ended. `true` when conservative slow start has run its course: congestion avoidance begins.
    #[must_use]
    pub fn round(&mut self) -> bool {
        self.last_round_min = self.current_round_min;
        self.current_round_min = f64::INFINITY;
        self.samples = 0;
        match &mut self.css {
            Some(css) => {
                css.rounds += 1;
                css.rounds >= CSS_ROUNDS
            }
            None => false,
        }
    }

    /// What to multiply slow start's growth by: 1, or a quarter in conservative slow start.
    ///
    /// The RFC's limit L on the bytes that one ACK may count for is infinite, as §4.3 asks of a sender that paces.
    pub fn growth(&self) -> f64 {
        if self.css.is_some() { 1.0 / CSS_GROWTH_DIVISOR } else { 1.0 }
    }
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

//! Congestion window validation (RFC 7661): whether the window was used recently, and how to react to a loss
//! if not.

use core::time::Duration;
use umptcp_types::Instant;

/// RFC 7661 §4.2: samples count for this many seconds, or for three round-trip times if that is longer.
const SAMPLING_PERIOD: f64 = 1.0;
/// RFC 7661 §4.5.1: the number of measurement periods in a sampling period. The largest sample of each is
/// kept.
const MEASUREMENTS: usize = 5;
/// RFC 7661 §4.4: the non-validated period, after which an unused window is halved.
const NON_VALIDATED_PERIOD: Duration = Duration::from_secs(300);

/// The largest sample of one measurement period.
#[derive(Clone, Copy, Debug)]
struct Sample {
    start: Instant,
    bytes: f64,
}

/// Congestion window validation of one subflow.
#[derive(Clone, Debug)]
pub(crate) struct Validation {
    /// Bytes acknowledged in the round trip being measured.
    volume: f64,
    /// Newest first.
    samples: [Option<Sample>; MEASUREMENTS],
    /// The largest of the samples that count, and when it expires. Cached because every packet needs it.
    largest: Option<(f64, Instant)>,
    /// pipeACK has a value: there was a measurement since the start or the last loss recovery.
    defined: bool,
    /// In loss recovery, during which nothing is measured.
    recovering: bool,
    /// When the window was last validated, or halved because it was not.
    validated: Instant,
    /// In the non-validated phase.
    unused: bool,
    /// The bytes in use at a loss in the non-validated phase: Max(pipeACK, LossFlightSize).
    lost_at: Option<f64>,
}

impl Validation {
    /// RFC 7661 §4.1: initially the window is validated and pipeACK is undefined.
    pub(crate) fn new(now: Instant) -> Self {
        Validation {
            volume: 0.0,
            samples: [None; MEASUREMENTS],
            largest: None,
            defined: false,
            recovering: false,
            validated: now,
            unused: false,
            lost_at: None,
        }
    }

    /// The sampling period, given the round-trip time in seconds.
    pub(crate) fn period(srtt: Option<f64>) -> Duration {
        // The upper bound keeps the conversion from panicking.
        Duration::from_secs_f64((3.0 * srtt.unwrap_or(0.0)).clamp(SAMPLING_PERIOD, 3_600.0))
    }

    /// pipeACK in bytes, `None` if undefined (RFC 7661 §4.2). Includes the measurement in progress.
    pub(crate) fn pipe_ack(&mut self, now: Instant, srtt: Option<f64>) -> Option<f64> {
        if !self.defined {
            return None;
        }
        let largest = match self.largest {
            Some((bytes, until)) if now <= until => bytes,
            _ => {
                let period = Self::period(srtt);
                let recent = self.samples.iter().flatten().filter(|s| now - s.start <= period);
                let largest = recent.max_by(|a, b| a.bytes.total_cmp(&b.bytes));
                self.largest = largest.map(|s| (s.bytes, s.start + period));
                largest.map_or(0.0, |s| s.bytes)
            }
        };
        Some(largest.max(self.volume))
    }

    pub(crate) fn on_ack(&mut self, bytes: f64, in_recovery: bool) {
        if self.recovering && !in_recovery {
            self.reset();
        }
        if !in_recovery {
            self.volume += bytes;
        }
    }

    /// The round trip being measured ended at `at`.
    pub(crate) fn on_round(&mut self, at: Instant, srtt: Option<f64>) {
        let bytes = core::mem::take(&mut self.volume);
        if self.recovering {
            return;
        }
        self.defined = true;
        self.largest = None;
        let length = Self::period(srtt) / MEASUREMENTS as u32;
        match &mut self.samples[0] {
            Some(newest) if at - newest.start < length => newest.bytes = newest.bytes.max(bytes),
            _ => {
                self.samples.rotate_right(1);
                self.samples[0] = Some(Sample { start: at, bytes });
            }
        }
    }

    /// Sending resumes after a pause with nothing in flight. The measurement in progress ended with the last
    /// ACK.
    pub(crate) fn on_resumed(&mut self, last_ack: Instant, srtt: Option<f64>) {
        if self.volume > 0.0 {
            self.on_round(last_ack, srtt);
        }
    }

    /// RFC 7661 §4.3: determines the phase. `limited` means that something other than the window limits the
    /// sender. The non-validated phase is only entered if so: a sender that fills its window uses it,
    /// although a sample taken while slow start doubled the window may be less than half of it.
    ///
    /// Returns how many non-validated periods have passed. Each halves the window (RFC 7661 §4.4.3, §4.5.2).
    pub(crate) fn assess(&mut self, now: Instant, cwnd: f64, srtt: Option<f64>, limited: bool) -> u32 {
        let may = self.unused || limited;
        self.unused = may && self.pipe_ack(now, srtt).is_some_and(|p| p < cwnd / 2.0);
        if !self.unused {
            self.validated = now;
            return 0;
        }
        let periods = (now - self.validated).as_secs() / NON_VALIDATED_PERIOD.as_secs();
        self.validated += NON_VALIDATED_PERIOD * u32::try_from(periods).unwrap_or(u32::MAX);
        u32::try_from(periods).unwrap_or(u32::MAX)
    }

    /// A loss was detected. In the non-validated phase, returns the bytes from which to reduce (RFC 7661
    /// §4.4.1).
    pub(crate) fn on_loss(&mut self, now: Instant, srtt: Option<f64>, in_flight: f64) -> Option<f64> {
        let used = self.unused.then(|| self.pipe_ack(now, srtt).unwrap_or(0.0).max(in_flight));
        self.reset();
        self.recovering = true;
        self.lost_at = used;
        used
    }

    /// A timeout, a congestion mark or a spurious recovery ends the non-validated phase (RFC 7661 §4.4).
    pub(crate) fn on_congestion(&mut self) {
        self.reset();
    }

    /// Fast recovery has ended. If it began in the non-validated phase, returns the bytes in use at that
    /// time.
    pub(crate) fn on_recovered(&mut self) -> Option<f64> {
        let used = self.lost_at;
        self.reset();
        used
    }

    /// RFC 7661 §4.4.1: pipeACK is undefined after a loss, because use before congestion does not validate
    /// the window after it.
    fn reset(&mut self) {
        *self = Validation::new(self.validated);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipe_ack_is_the_largest_sample_of_the_last_second_and_what_is_being_measured() {
        let at = Instant::from_millis;
        let mut v = Validation::new(at(0));
        assert_eq!(v.pipe_ack(at(0), Some(0.05)), None, "undefined");
        for (ms, bytes) in [(100, 3_000.0), (400, 9_000.0), (700, 5_000.0)] {
            v.on_ack(bytes, false);
            v.on_round(at(ms), Some(0.05));
        }
        v.on_ack(4_000.0, false);
        // By and by the samples expire; asked often or not, the answer is the same.
        for (ms, expected) in
            [(700, 9_000.0), (1_400, 9_000.0), (1_401, 5_000.0), (1_700, 5_000.0), (1_701, 4_000.0)]
        {
            assert_eq!(v.clone().pipe_ack(at(ms), Some(0.05)), Some(expected), "{ms}");
            assert_eq!(v.pipe_ack(at(ms), Some(0.05)), Some(expected), "{ms}");
        }
        v.on_ack(2_000.0, false);
        assert_eq!(v.pipe_ack(at(1_702), Some(0.05)), Some(6_000.0));
        // A longer round trip makes old samples count again, from the next one on.
        v.on_round(at(1_710), Some(0.5));
        assert_eq!(v.pipe_ack(at(1_900), Some(0.5)), Some(9_000.0));
        assert_eq!(v.pipe_ack(at(1_901), Some(0.5)), Some(6_000.0));
    }
}

//! Congestion window validation (RFC 7661): whether a window has been used lately, and what a loss means while it has not.

use core::time::Duration;
use umptcp_types::Instant;

/// RFC 7661 §4.2: samples count for so many seconds, or for three round-trip times.
const SAMPLING_PERIOD: f64 = 1.0;
/// RFC 7661 §4.5.1: measurement periods in a sampling period, of each of which the largest sample is kept.
const MEASUREMENTS: usize = 5;
/// RFC 7661 §4.4: the non-validated period, how long a window may stand unused.
const NON_VALIDATED_PERIOD: Duration = Duration::from_secs(300);

/// The largest sample of one measurement period.
#[derive(Clone, Copy, Debug)]
struct Sample {
    start: Instant,
    bytes: f64,
}

/// What RFC 7661 keeps of one subflow.
#[derive(Clone, Debug)]
pub(crate) struct Validation {
    /// Bytes acknowledged in the round trip being measured.
    volume: f64,
    /// The newest first.
    samples: [Option<Sample>; MEASUREMENTS],
    /// The largest of the samples that count, and until when it does. Found again at most once a round trip and when it expires, since it
    /// is asked for with every packet.
    largest: Option<(f64, Instant)>,
    /// There was a measurement since the start, or since the last loss recovery: pipeACK has a value.
    defined: bool,
    /// In loss recovery, when nothing is measured.
    recovering: bool,
    /// The window was last seen to be validated, or was adjusted because it was not.
    validated: Instant,
    /// In the non-validated phase.
    unused: bool,
    /// What a loss in the non-validated phase found in use: Max(pipeACK, LossFlightSize).
    lost_at: Option<f64>,
}

impl Validation {
    /// RFC 7661 §4.1: validated, and pipeACK is undefined.
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
        // As long as the longest timeouts at most, whatever the round-trip time: the conversion must not fail.
        Duration::from_secs_f64((3.0 * srtt.unwrap_or(0.0)).clamp(SAMPLING_PERIOD, 3_600.0))
    }

    /// pipeACK in bytes; `None`: undefined (RFC 7661 §4.2). The measurement that is under way counts as far as it has come.
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

    /// `bytes` were acknowledged, in loss recovery or not.
    pub(crate) fn on_ack(&mut self, bytes: f64, in_recovery: bool) {
        if self.recovering && !in_recovery {
            self.reset();
        }
        if !in_recovery {
            self.volume += bytes;
        }
    }

    /// The round trip that was measured has ended at `at`.
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

    /// Something is sent after a pause in which nothing was in flight; what the measurement under way has found it found by the
    /// last ACK, at `last_ack`.
    pub(crate) fn on_resumed(&mut self, last_ack: Instant, srtt: Option<f64>) {
        if self.volume > 0.0 {
            self.on_round(last_ack, srtt);
        }
    }

    /// RFC 7661 §4.3: finds out the phase. `limited`: the window is not what limits the sender. Without that the non-validated phase
    /// is not entered: a sender that fills its window uses it, though a sample may fall short of half of it, taken while slow start
    /// doubled the window.
    ///
    /// Returns how many non-validated periods have passed unused, each of which costs (RFC 7661 §4.4.3, §4.5.2).
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

    /// A loss with so many bytes in flight. In the non-validated phase: the bytes from which to reduce (RFC 7661 §4.4.1).
    pub(crate) fn on_loss(&mut self, now: Instant, srtt: Option<f64>, in_flight: f64) -> Option<f64> {
        let used = self.unused.then(|| self.pipe_ack(now, srtt).unwrap_or(0.0).max(in_flight));
        self.reset();
        self.recovering = true;
        self.lost_at = used;
        used
    }

    /// Congestion that is not repaired by fast recovery (a timeout, a mark), or recovery that was for nothing: the non-validated phase
    /// ends (RFC 7661 §4.4).
    pub(crate) fn on_congestion(&mut self) {
        self.reset();
    }

    /// Fast recovery has ended. What was in use when it began, if that was in the non-validated phase.
    pub(crate) fn on_recovered(&mut self) -> Option<f64> {
        let used = self.lost_at;
        self.reset();
        used
    }

    /// RFC 7661 §4.4.1: pipeACK is undefined after a loss: what was used before congestion validates nothing after it.
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

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
    pub(crate) fn pipe_ack(&self, now: Instant, srtt: Option<f64>) -> Option<f64> {
        let period = Self::period(srtt);
        let recent = self.samples.iter().flatten().filter(|s| now - s.start <= period).map(|s| s.bytes);
        self.defined.then(|| recent.fold(self.volume, f64::max))
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
        let small = self.pipe_ack(now, srtt).is_some_and(|p| p < cwnd / 2.0);
        self.unused = small && (self.unused || limited);
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

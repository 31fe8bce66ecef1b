//! The state per subflow that all algorithms share.

use crate::hystart::HyStart;
use crate::validation::Validation;
use crate::{AckSample, SubflowParams};
use umptcp_types::{Duration, Instant, SubflowId};

/// More than any TCP window can be (RFC 7323: 1 GiB). Keeps the arithmetic finite.
const MAX_WINDOW: f64 = (1u64 << 32) as f64;
/// The minimum RTT in seconds, so that rates stay finite.
const LEAST_RTT: f64 = 1e-6;

/// How long what is known of a path outlasts its silence.
const KNOWN_FOR: Duration = Duration::from_secs(30);
/// The least time between two silences after which a threshold is restored.
const RESTORED_ONCE_IN: Duration = Duration::from_secs(10);

/// Why a window is reduced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Congestion {
    /// ACKs revealed a loss (RFC 5681 §3.2).
    Loss,
    /// The peer echoed a congestion mark (RFC 3168).
    Ecn,
    /// The retransmission timer fired (RFC 5681 §3.1).
    Timeout,
}

/// One subflow as an [`Algorithm`](crate::Algorithm) sees it, with the algorithm's own state `S`.
///
/// Windows are in bytes and times in seconds, both as floating-point numbers. Fractions of a byte add up, so
/// the rule of RFC 5681 §3.1 and RFC 6356 §3 that an increase be at least one byte is not needed.
#[derive(Clone, Debug)]
pub struct Flow<S> {
    /// Identifies the subflow within its connection.
    pub id: SubflowId,
    /// Sender maximum segment size.
    pub mss: f64,
    /// Congestion window, at least one segment.
    pub cwnd: f64,
    /// Slow-start threshold; infinite before the first reduction.
    pub ssthresh: f64,
    /// Smoothed round-trip time; `None` before the first sample.
    pub srtt: Option<f64>,
    /// Minimum round-trip time; infinite before the first sample.
    pub min_rtt: f64,
    /// Bytes in flight after the last transmission, or before the last ACK if that is later.
    pub in_flight: f64,
    /// Something other than the congestion window limits this subflow.
    pub app_limited: bool,
    /// The subflow is in loss recovery.
    pub in_recovery: bool,
    /// Total time during which the window could grow: not in recovery, not idle, and not limited by something
    /// else.
    pub growing: f64,
    /// The algorithm's own state.
    pub state: S,
    /// Bytes in flight after the last ACK or transmission.
    outstanding: u64,
    initial_window: f64,
    hystart: Option<HyStart>,
    before: Option<Before<S>>,
    /// Maximum bytes in flight in this round and in the previous one.
    peak: [f64; 2],
    last_ack: Instant,
    last_sent: Instant,
    validation: Validation,
    penalised: Option<Instant>,
    silence: Silence,
}

/// What is known of a path that falls silent and comes back.
#[derive(Clone, Copy, Debug, Default)]
struct Silence {
    /// When the retransmission timer fired outside recovery, and what filled the path then without a queue:
    /// the window in use, less the share of the round-trip time that was spent waiting.
    before: Option<(Instant, f64)>,
    /// When a threshold was last restored.
    restored: Option<Instant>,
}

/// The state before a reduction.
#[derive(Clone, Debug)]
struct Before<S> {
    cwnd: f64,
    ssthresh: f64,
    hystart: Option<HyStart>,
    state: S,
}

impl<S: Clone + Default> Flow<S> {
    pub(crate) fn new(now: Instant, id: SubflowId, params: SubflowParams, hystart: bool) -> Self {
        let mss = f64::from(params.mss.max(1));
        let initial_window = (params.initial_window as f64).clamp(mss, MAX_WINDOW);
        Flow {
            id,
            mss,
            cwnd: initial_window,
            ssthresh: f64::INFINITY,
            srtt: None,
            min_rtt: f64::INFINITY,
            in_flight: 0.0,
            app_limited: true,
            in_recovery: false,
            growing: 0.0,
            state: S::default(),
            outstanding: 0,
            initial_window,
            hystart: hystart.then(HyStart::default),
            before: None,
            peak: [0.0; 2],
            last_ack: now,
            last_sent: now,
            validation: Validation::new(now),
            penalised: None,
            silence: Silence::default(),
        }
    }

    /// Slow start rather than congestion avoidance (RFC 5681 §3.1). When both are equal, congestion
    /// avoidance.
    pub fn in_slow_start(&self) -> bool {
        self.cwnd < self.ssthresh
    }

    /// The part of the window that is in use, for sums over subflows (RFC 6356 §3): all of it while the
    /// window limits the subflow, otherwise at most what is in flight. In recovery the window already equals
    /// ssthresh, because loss recovery handles inflation.
    pub fn window_in_use(&self) -> f64 {
        if self.app_limited { self.in_flight.min(self.cwnd) } else { self.cwnd }
    }

    /// The window in segments.
    pub fn segments(&self) -> f64 {
        self.cwnd / self.mss
    }

    /// Changes the window by `bytes`, which may be negative, within its bounds. When the window shrinks, so
    /// does the threshold: otherwise slow start would restore the window at once.
    pub fn grow(&mut self, bytes: f64) {
        if bytes.is_finite() {
            self.cwnd = (self.cwnd + bytes).clamp(self.mss, MAX_WINDOW.max(self.mss));
        }
        if bytes < 0.0 {
            self.ssthresh = self.ssthresh.min(self.cwnd);
        }
    }

    /// Ends slow start at the current window (RFC 9406 §4.2).
    pub fn leave_slow_start(&mut self) {
        self.ssthresh = self.cwnd;
        self.hystart = None;
    }

    /// Takes over the window and threshold of another algorithm.
    pub(crate) fn resume(&mut self, window: u64, ssthresh: u64) {
        self.cwnd = (window as f64).clamp(self.mss, MAX_WINDOW.max(self.mss));
        if ssthresh != u64::MAX {
            self.ssthresh = ssthresh as f64;
            self.hystart = None;
        }
    }

    pub(crate) fn set_mss(&mut self, mss: u32) {
        let mss = f64::from(mss.max(1));
        // RFC 5681 §3.1: an initial window shrinks with its segments. A window grown by ACKs measures the
        // path in bytes and stays.
        if mss < self.mss && self.cwnd <= self.initial_window && self.ssthresh.is_infinite() {
            self.cwnd *= mss / self.mss;
        }
        self.initial_window *= mss / self.mss;
        self.mss = mss;
        self.cwnd = self.cwnd.max(mss);
    }

    pub(crate) fn note_sent(&mut self, now: Instant, bytes: u64, in_flight: u64) {
        let mut limited = self.app_limited;
        if in_flight <= bytes {
            // The subflow was idle until now.
            self.validation.on_resumed(self.last_ack, self.srtt);
            let pause = now - self.last_sent.max(self.last_ack);
            limited |= pause.as_secs_f64() > self.srtt.unwrap_or(0.0);
            if pause > Validation::period(self.srtt) {
                self.peak = [0.0; 2];
            }
            // The window could not grow while idle (RFC 9438 §5.8).
            self.last_ack = self.last_ack.max(now);
        }
        self.validate(now, limited);
        self.outstanding = in_flight;
        self.in_flight = in_flight as f64;
        self.peak[0] = self.peak[0].max(self.in_flight);
        self.last_sent = now;
    }

    /// RFC 7661 §4.4.3: halves a window that has been unused for too long, and sets ssthresh from its former
    /// value.
    fn validate(&mut self, now: Instant, limited: bool) {
        let periods = self.validation.assess(now, self.cwnd, self.srtt, limited);
        for _ in 0..periods {
            if self.cwnd <= self.initial_window {
                break;
            }
            self.ssthresh = self.ssthresh.max(0.75 * self.cwnd);
            self.cwnd = (self.cwnd / 2.0).max(self.initial_window);
        }
    }

    pub(crate) fn note_ack(&mut self, now: Instant, ack: &AckSample) {
        self.srtt = Some(ack.srtt.as_secs_f64().max(LEAST_RTT));
        self.min_rtt = ack.min_rtt.as_secs_f64().max(LEAST_RTT);
        self.in_flight = ack.in_flight.saturating_add(ack.acked) as f64;
        self.outstanding = ack.in_flight;
        self.app_limited = ack.app_limited;
        self.in_recovery = ack.in_recovery;
        if !(ack.app_limited || ack.in_recovery) {
            self.growing += (now - self.last_ack).as_secs_f64();
        }
        self.last_ack = now;
        self.validation.on_ack(ack.acked as f64, ack.in_recovery);
        self.validate(now, ack.app_limited);
        if self.ssthresh.is_infinite()
            && let (Some(hystart), Some(rtt)) = (&mut self.hystart, ack.rtt)
        {
            // A queue that only the ACKs wait in has room for more data.
            let rtt = rtt.saturating_sub(ack.way_back).as_secs_f64().max(LEAST_RTT);
            if ack.disordered {
                hystart.sample_disordered(rtt);
            } else {
                hystart.sample(rtt);
            }
        }
    }

    /// A subflow with nothing in flight for a round-trip time does not use its window, even if its last ACK
    /// said so.
    pub(crate) fn note_silence(&mut self, now: Instant) {
        let silence = (now - self.last_ack.max(self.last_sent)).as_secs_f64();
        if self.outstanding == 0 && silence > self.srtt.unwrap_or(0.0) {
            self.app_limited = true;
            self.in_flight = 0.0;
        }
    }

    pub(crate) fn note_round(&mut self, now: Instant) {
        self.peak = [0.0, self.peak[0]];
        self.validation.on_round(now, self.srtt);
        if self.ssthresh.is_infinite() && self.hystart.as_mut().is_some_and(HyStart::round) {
            self.leave_slow_start();
        }
    }

    /// Slow start on `acked` bytes (RFC 5681 §3.1). Returns the bytes left over for congestion avoidance once
    /// the threshold is reached.
    ///
    /// The window grows by all bytes acknowledged, without RFC 3465's limit L: with segments of 64 kB one ACK
    /// covers many MSS. The limit guards against bursts, which pacing prevents (RFC 9406 §4.3 makes L
    /// infinite in this case), and against ACKs that jump over a repaired hole, where bytes already SACKed
    /// are not counted again here.
    pub(crate) fn slow_start(&mut self, acked: f64) -> f64 {
        if !self.in_slow_start() {
            return acked;
        }
        let factor = match &self.hystart {
            Some(hystart) if self.ssthresh.is_infinite() => hystart.growth(),
            _ => 1.0,
        };
        let step = (acked * factor).min(self.ssthresh - self.cwnd);
        self.grow(step);
        (acked - step / factor).max(0.0)
    }

    /// A loss was detected with `in_flight` bytes in flight. In the non-validated phase, returns the part of
    /// the window that was used, from which to reduce (RFC 7661 §4.4.1).
    pub(crate) fn lost_unused(&mut self, now: Instant, in_flight: u64) -> Option<f64> {
        let used = self.validation.on_loss(now, self.srtt, in_flight as f64)?;
        Some(self.cwnd.min(used).max(self.mss))
    }

    /// A timeout or a congestion mark also ends the non-validated phase.
    pub(crate) fn congested(&mut self) {
        self.validation.on_congestion();
    }

    /// RFC 7661 §4.4.1: after a recovery that began in the non-validated phase, the window is at most half of
    /// what was used less what was retransmitted. Returns whether the recovery was of that kind.
    pub(crate) fn recovered(&mut self, retransmitted: u64) -> bool {
        let Some(used) = self.validation.on_recovered() else { return false };
        let reset = ((used - retransmitted as f64) / 2.0).max(self.mss);
        self.cwnd = self.cwnd.min(reset);
        self.ssthresh = self.ssthresh.min(self.cwnd);
        true
    }

    /// The part of the window that was used, from which reductions start: FlightSize if there is enough data
    /// to send (RFC 5681 §3.1 equation 4), otherwise the maximum in flight during the last two rounds.
    pub(crate) fn used_window(&self, in_flight: u64) -> f64 {
        let flight = self.peak[0].max(self.peak[1]).max(in_flight as f64);
        self.cwnd.min(flight).max(self.mss)
    }

    pub(crate) fn remember(&mut self) {
        self.before = Some(Before {
            cwnd: self.cwnd,
            ssthresh: self.ssthresh,
            hystart: self.hystart.clone(),
            state: self.state.clone(),
        });
    }

    pub(crate) fn reduced(&mut self, cwnd: f64, ssthresh: f64) {
        self.ssthresh = ssthresh;
        self.cwnd = cwnd.clamp(self.mss, MAX_WINDOW.max(self.mss));
        self.hystart = None;
        // RFC 7661 §4.4.1: what was in flight before congestion does not validate the window after it.
        self.peak = [0.0; 2];
    }

    /// A window of which `used` was in use was reduced because the timer fired; `None`: for another reason,
    /// after which what was known before is of no use.
    pub(crate) fn note_timeout(&mut self, now: Instant, used: Option<f64>) {
        let unqueued = self.srtt.map_or(0.0, |srtt| (self.min_rtt / srtt).min(1.0));
        self.silence.before = used.map(|used| (now, used * unqueued));
    }

    /// The timeout was for a silence of the path: slow start leads to what filled the path before. Not if that
    /// was long ago, nor soon after another: a path that falls silent each time it is filled is congested.
    /// Returns whether the threshold is another.
    pub(crate) fn restore_threshold(&mut self, now: Instant) -> bool {
        let Some((since, unqueued)) = self.silence.before.take() else { return false };
        let again = self.silence.restored.is_some_and(|last| now - last < RESTORED_ONCE_IN);
        if again || now - since > KNOWN_FOR || self.ssthresh >= unqueued {
            return false;
        }
        self.silence.restored = Some(now);
        self.ssthresh = unqueued;
        true
    }

    /// Restores the state before the last reduction, unless the window has outgrown it (RFC 9438 §4.9.2).
    /// Returns whether there was a reduction to undo.
    pub(crate) fn restore(&mut self) -> bool {
        let Some(before) = self.before.take() else { return false };
        self.validation.on_congestion();
        if self.cwnd < before.cwnd {
            self.cwnd = before.cwnd;
            self.ssthresh = before.ssthresh;
            // The first slow start goes on.
            self.hystart = before.hystart;
            self.state = before.state;
        }
        true
    }

    /// Halves the window, at most once per round-trip time (Raiciu et al., NSDI 2012). Returns whether it
    /// did.
    pub(crate) fn penalise(&mut self, now: Instant) -> bool {
        let pause = self.srtt.unwrap_or(1.0);
        if self.penalised.is_some_and(|last| (now - last).as_secs_f64() < pause) {
            return false;
        }
        self.penalised = Some(now);
        self.cwnd = (self.cwnd / 2.0).max(self.mss);
        self.leave_slow_start();
        // A later undo of a reduction must not undo the penalty as well.
        self.before = None;
        true
    }
}

//! The timers of a subflow: one table.

use super::config::TIME_WAIT;
use umptcp_types::{Duration, Instant};

/// Longest interval between zero-window probes (RFC 9293 §3.8.6.1 leaves it open).
const MAX_PROBE_INTERVAL: Duration = Duration::from_secs(75);
/// Delayed ACKs wait this long at most (RFC 9293 §3.8.6.3 allows 500 ms; Linux starts at 40 ms).
const DELAYED_ACK: Duration = Duration::from_millis(40);

/// The timers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Timer {
    /// The user timeout (RFC 5482). It follows from when there was progress.
    User,
    /// End of TIME_WAIT.
    Close,
    /// RACK's reordering timer (RFC 8985 §6.2). The scoreboard has it.
    Reorder,
    /// Tail loss probe (RFC 8985 §7).
    TailProbe,
    /// Retransmission (RFC 6298).
    Retransmit,
    /// Delayed ACK.
    DelayedAck,
    /// Zero-window probe (RFC 9293 §3.8.6.1).
    Persist,
    /// Keep-alive (RFC 9293 §3.8.4).
    KeepAlive,
}

impl Timer {
    /// All of them, in the order in which they fire when several are due. RFC 8985 §7.2: a tail loss probe
    /// goes before a retransmission timeout, whose timer runs anew from it.
    pub(super) const ALL: [Timer; 8] = [
        Timer::User,
        Timer::Close,
        Timer::Reorder,
        Timer::TailProbe,
        Timer::Retransmit,
        Timer::DelayedAck,
        Timer::Persist,
        Timer::KeepAlive,
    ];
}

/// When the timers fire that run by themselves.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timers {
    at: [Option<Instant>; Timer::ALL.len()],
    /// Zero-window probes sent since the window closed.
    window_probes: u32,
    /// Keep-alive probes without an answer.
    keep_alive_probes: u32,
}

impl Timers {
    /// When `timer` fires; `None`: it does not run.
    #[inline]
    pub(super) fn deadline(&self, timer: Timer) -> Option<Instant> {
        self.at[timer as usize]
    }

    /// `timer` runs.
    pub(super) fn is_running(&self, timer: Timer) -> bool {
        self.deadline(timer).is_some()
    }

    /// `timer` fires at `at`; an earlier setting is replaced.
    pub(super) fn start(&mut self, timer: Timer, at: Instant) {
        self.at[timer as usize] = Some(at);
    }

    /// `timer` does not run.
    pub(super) fn stop(&mut self, timer: Timer) {
        self.at[timer as usize] = None;
    }

    /// `timer`, if it runs, fires at `at` at the latest.
    pub(super) fn hasten(&mut self, timer: Timer, at: Instant) {
        let slot = &mut self.at[timer as usize];
        *slot = slot.map(|t| t.min(at));
    }

    /// None runs any more.
    pub(super) fn stop_all(&mut self) {
        *self = Timers::default();
    }

    /// None but TIME_WAIT's (RFC 9293 §3.6): 2 MSL from now.
    pub(super) fn start_time_wait(&mut self, now: Instant) {
        self.stop_all();
        self.start(Timer::Close, now + TIME_WAIT);
    }

    /// An ACK may wait.
    pub(super) fn delay_ack(&mut self, now: Instant) {
        self.start(Timer::DelayedAck, now + DELAYED_ACK);
    }

    /// The next zero-window probe: first after the RTO, then with exponential back-off (RFC 9293 §3.8.6.1).
    pub(super) fn start_persist(&mut self, now: Instant, rto: Duration) {
        let interval = rto.saturating_mul(1 << self.window_probes.min(10));
        self.start(Timer::Persist, now + interval.min(MAX_PROBE_INTERVAL));
    }

    /// The same as if `probes` had been sent already, where as many have not.
    pub(super) fn start_persist_after(&mut self, now: Instant, rto: Duration, probes: u32) {
        self.window_probes = self.window_probes.max(probes);
        self.start_persist(now, rto);
    }

    /// A zero-window probe is due, and the next will be later.
    pub(super) fn window_probe_due(&mut self, now: Instant, rto: Duration) {
        self.window_probes += 1;
        self.start_persist(now, rto);
    }

    /// The window is open.
    pub(super) fn stop_persist(&mut self) {
        self.stop(Timer::Persist);
        self.window_probes = 0;
    }

    /// The peer lives; `idle`: keep-alive probes begin when it has been silent for so long.
    pub(super) fn peer_alive(&mut self, now: Instant, idle: Option<Duration>) {
        self.keep_alive_probes = 0;
        self.at[Timer::KeepAlive as usize] = idle.map(|idle| now + idle);
    }

    /// A keep-alive probe has no answer yet.
    pub(super) fn waits_for_life(&self) -> bool {
        self.keep_alive_probes > 0
    }

    /// Another keep-alive probe is due: how many there are now without an answer.
    pub(super) fn keep_alive_due(&mut self) -> u32 {
        self.keep_alive_probes += 1;
        self.keep_alive_probes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_timer_has_its_place_in_the_table() {
        let mut timers = Timers::default();
        for (i, timer) in Timer::ALL.into_iter().enumerate() {
            assert_eq!(timer as usize, i);
            let at = Instant::from_millis(i as u64);
            timers.start(timer, at);
            assert_eq!(timers.deadline(timer), Some(at));
        }
        timers.start_time_wait(Instant::ZERO);
        let running = Timer::ALL.into_iter().filter(|t| timers.is_running(*t));
        assert!(running.eq([Timer::Close]));
    }

    #[test]
    fn window_probes_back_off_until_the_window_opens() {
        let rto = Duration::from_secs(1);
        let mut timers = Timers::default();
        let due = |timers: &Timers| timers.deadline(Timer::Persist);
        let at = |s| Some(Instant::ZERO + Duration::from_secs(s));
        timers.start_persist(Instant::ZERO, rto);
        assert_eq!(due(&timers), at(1));
        for expected in [2, 4, 8, 16, 32, 64, 75, 75] {
            timers.window_probe_due(Instant::ZERO, rto);
            assert_eq!(due(&timers), at(expected));
        }
        timers.stop_persist();
        assert_eq!(due(&timers), None);
        timers.start_persist_after(Instant::ZERO, rto, 3);
        assert_eq!(due(&timers), at(8));
    }
}

//! A video that is played while it is fetched.

use super::log::Logged;
use std::time::Duration;
use umptcp_netsim::application::{Application, Plan, Progress};
use umptcp_types::Instant;

/// Fetches segments one by one, so far ahead of the playback as the buffer allows. The playback begins with
/// the first segment. It stands still when it has none, until the next has come.
#[derive(Debug)]
pub(super) struct Video {
    log: Logged,
    request: u64,
    segment: u64,
    /// Playing time of a segment.
    length: Duration,
    /// Playing time to have ahead.
    ahead: Duration,
    stop: Option<Instant>,
    asked: u64,
    got: u64,
    /// When what has been fetched will have been played; `None`: nothing has been.
    played_by: Option<Instant>,
}

impl Video {
    pub(super) fn new(
        log: Logged,
        (request, segment): (u64, u64),
        length: Duration,
        ahead: Duration,
        stop: Option<Instant>,
    ) -> Video {
        Video { log, request, segment, length, ahead, stop, asked: 0, got: 0, played_by: None }
    }

    /// A segment has come.
    fn fetched(&mut self, now: Instant) {
        self.got += 1;
        let from = match self.played_by {
            None => now,
            Some(end) if end >= now => end,
            Some(_) => now,
        };
        self.played_by = Some(from + self.length);
    }

    /// Notes that the playback stands still since what there was had been played, or that it goes on.
    fn note(&self, now: Instant, came: bool, before: Option<Instant>) {
        let mut log = self.log.get();
        if let Some(end) = before.filter(|end| *end < now)
            && log.stalls.last().is_none_or(|(from, _)| *from != end)
        {
            log.stalls.push((end, None));
        }
        if came && let Some((_, until)) = log.stalls.last_mut() {
            until.get_or_insert(now);
        }
    }
}

impl Application for Video {
    fn plan(&mut self, now: Instant, progress: &Progress) -> Plan {
        let before = self.played_by;
        let mut came = false;
        while self.got < self.asked && progress.received >= (self.got + 1) * self.segment {
            self.fetched(now);
            came = true;
        }
        let stopped = self.stop.is_some_and(|stop| now >= stop);
        if stopped {
            return Plan { send: self.asked * self.request, finish: true, wake: None };
        }
        self.note(now, came, before);
        let mut wake = self.stop;
        let mut look_at = |at: Instant| wake = Some(wake.map_or(at, |w| w.min(at)));
        if self.asked == self.got {
            // The buffer is to have room for it.
            let room_at = self.played_by.map_or(now, |end| end + self.length - self.ahead.max(self.length));
            if room_at <= now {
                self.asked += 1;
                self.log.get().made(self.asked * self.segment, now);
            } else {
                look_at(room_at);
            }
        }
        // A stall begins just after all has been played.
        if let Some(end) = self.played_by.filter(|end| *end >= now) {
            look_at(end + Duration::from_nanos(1));
        }
        Plan { send: self.asked * self.request, finish: false, wake }
    }
}

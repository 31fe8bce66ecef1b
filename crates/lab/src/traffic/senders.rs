//! Applications that send by themselves.

use super::log::Logged;
use std::time::Duration;
use umptcp_netsim::application::{Application, Plan, Progress};
use umptcp_netsim::random::Random;
use umptcp_types::Instant;

/// How much more than it has sent a sender without a known end offers.
const AHEAD: u64 = 1 << 20;

/// Sends a number of bytes, or as many as fit until a time has come, and shuts down.
#[derive(Debug)]
pub(super) struct Bulk {
    pub(super) size: Option<u64>,
    pub(super) stop: Option<Instant>,
}

impl Application for Bulk {
    fn plan(&mut self, now: Instant, progress: &Progress) -> Plan {
        if self.stop.is_some_and(|stop| now >= stop) {
            return Plan { send: progress.sent, finish: true, wake: None };
        }
        match self.size {
            Some(size) => Plan { send: size, finish: true, wake: self.stop },
            None => Plan { send: progress.sent + AHEAD, finish: false, wake: self.stop },
        }
    }
}

/// Makes messages, each when its time has come, whether the ones before have been sent or not.
#[derive(Debug)]
struct Maker {
    log: Logged,
    message: u64,
    interval: Duration,
    made: u64,
}

impl Maker {
    /// Makes those of the times from `next` on that have come by `now` and lie before `end`. The time of the
    /// one that follows.
    fn make(&mut self, mut next: Instant, now: Instant, end: Instant) -> Instant {
        let mut log = self.log.get();
        while next <= now && next < end {
            self.made += self.message;
            log.made(self.made, next);
            next += self.interval;
        }
        next
    }

    fn plan(&self, wake: Instant, stop: Option<Instant>, now: Instant) -> Plan {
        let finish = stop.is_some_and(|stop| now >= stop);
        let wake = if finish { None } else { Some(stop.map_or(wake, |stop| stop.min(wake))) };
        Plan { send: self.made, finish, wake }
    }
}

/// Sends a message at regular times, the first when the connection stands.
#[derive(Debug)]
pub(super) struct Constant {
    maker: Maker,
    stop: Option<Instant>,
    next: Option<Instant>,
}

impl Constant {
    pub(super) fn new(log: Logged, message: u64, interval: Duration, stop: Option<Instant>) -> Constant {
        Constant { maker: Maker { log, message, interval, made: 0 }, stop, next: None }
    }
}

impl Application for Constant {
    fn plan(&mut self, now: Instant, _progress: &Progress) -> Plan {
        let end = self.stop.unwrap_or(Instant::MAX);
        let next = self.maker.make(self.next.unwrap_or(now), now, end);
        self.next = Some(next);
        self.maker.plan(next, self.stop, now)
    }
}

/// Sends messages at regular times while it is active, with pauses between.
#[derive(Debug)]
pub(super) struct OnOff {
    maker: Maker,
    on: Duration,
    off: Duration,
    /// Draws the lengths, exponentially distributed with these means.
    random: Option<Random>,
    stop: Option<Instant>,
    /// The next message, and the end of the activity that it belongs to.
    next: Option<(Instant, Instant)>,
}

impl OnOff {
    pub(super) fn new(
        log: Logged,
        (message, interval): (u64, Duration),
        (on, off): (Duration, Duration),
        random: Option<Random>,
        stop: Option<Instant>,
    ) -> OnOff {
        OnOff { maker: Maker { log, message, interval, made: 0 }, on, off, random, stop, next: None }
    }

    fn length(random: &mut Option<Random>, mean: Duration) -> Duration {
        match random {
            // 1 - u is never 0.
            Some(random) => mean.mul_f64(-(1.0 - random.unit()).ln()),
            None => mean,
        }
    }
}

impl Application for OnOff {
    fn plan(&mut self, now: Instant, _progress: &Progress) -> Plan {
        let (mut next, mut end) = match self.next {
            Some(known) => known,
            None => (now, now + OnOff::length(&mut self.random, self.on)),
        };
        let stop = self.stop.unwrap_or(Instant::MAX);
        loop {
            next = self.maker.make(next, now, end.min(stop));
            if next < end || end > now || next >= stop {
                break;
            }
            next = end + OnOff::length(&mut self.random, self.off);
            // Both may be drawn next to nothing: time must pass all the same.
            end = next + OnOff::length(&mut self.random, self.on).max(Duration::from_nanos(1));
        }
        self.next = Some((next, end));
        // The activity's end is a time to look, too: the next one is drawn then.
        self.maker.plan(next.min(end), self.stop, now)
    }
}

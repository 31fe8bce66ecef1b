//! What applications do: how much they want to have sent by now, given the progress so far.
//!
//! The bytes themselves come from a seeded [`ByteStream`](crate::stream::ByteStream) and are verified on
//! receipt by the network; an application only says how many.

use std::any::Any;
use std::fmt;
use umptcp_types::{Duration, Instant};

/// The progress of one end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Bytes the stack has taken from the application.
    pub sent: u64,
    /// Bytes the application has received.
    pub received: u64,
    /// The peer has finished sending and everything was received.
    pub peer_finished: bool,
}

/// What an application wants to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Bytes to have sent in all, since the start.
    pub send: u64,
    /// Shut the sending direction down once they are sent.
    pub finish: bool,
    /// Ask again at this time, if nothing happens before.
    pub wake: Option<Instant>,
}

/// One end's application.
pub trait Application: Any + fmt::Debug + Send {
    /// Called when the connection is established, whenever something was received, sent or finished, and at
    /// the time the last plan asked for. The total to send never goes down.
    fn plan(&mut self, now: Instant, progress: &Progress) -> Plan;
}

/// Sends a number of bytes and shuts down. Zero bytes: only receives, and shuts down at once.
#[derive(Clone, Copy, Debug)]
pub struct Bulk(pub u64);

impl Application for Bulk {
    fn plan(&mut self, _now: Instant, _progress: &Progress) -> Plan {
        Plan { send: self.0, finish: true, wake: None }
    }
}

/// Sends without end.
#[derive(Clone, Copy, Debug)]
pub struct Endless;

impl Application for Endless {
    fn plan(&mut self, _now: Instant, _progress: &Progress) -> Plan {
        Plan { send: u64::MAX, finish: false, wake: None }
    }
}

/// Receives, and shuts down once the peer has.
#[derive(Clone, Copy, Debug)]
pub struct Sink;

impl Application for Sink {
    fn plan(&mut self, _now: Instant, progress: &Progress) -> Plan {
        Plan { send: 0, finish: progress.peer_finished, wake: None }
    }
}

/// Sends requests one after the other, each when the answer to the last is complete, and measures how long
/// each takes.
#[derive(Clone, Debug)]
pub struct Requests {
    count: u64,
    request: u64,
    response: u64,
    pause: Duration,
    asked: u64,
    asked_at: Instant,
    next_at: Option<Instant>,
    latencies: Vec<Duration>,
}

impl Requests {
    /// `count` requests of `request` bytes, each answered by `response` bytes (at least 1), with a `pause`
    /// after each answer.
    pub fn new(count: u64, request: u64, response: u64, pause: Duration) -> Requests {
        Requests {
            count,
            request: request.max(1),
            response: response.max(1),
            pause,
            asked: 0,
            asked_at: Instant::ZERO,
            next_at: None,
            latencies: Vec::new(),
        }
    }

    /// Time from handing each request to the stack until the last byte of its answer was received.
    pub fn latencies(&self) -> &[Duration] {
        &self.latencies
    }
}

impl Application for Requests {
    fn plan(&mut self, now: Instant, progress: &Progress) -> Plan {
        let answered = progress.received / self.response;
        if answered == self.asked && (self.latencies.len() as u64) < self.asked {
            self.latencies.push(now - self.asked_at);
            self.next_at = Some(now + self.pause);
        }
        let idle = answered == self.asked;
        if idle && self.asked < self.count && self.next_at.is_none_or(|t| t <= now) {
            self.asked += 1;
            self.asked_at = now;
            self.next_at = None;
        }
        let done = answered == self.count;
        Plan {
            send: self.asked * self.request,
            finish: done,
            wake: self.next_at.filter(|t| !done && *t > now),
        }
    }
}

/// Answers each request of the given size by a response of the given size, and shuts down once the peer has.
#[derive(Clone, Copy, Debug)]
pub struct Responder {
    /// Bytes of a request.
    pub request: u64,
    /// Bytes of a response.
    pub response: u64,
}

impl Application for Responder {
    fn plan(&mut self, _now: Instant, progress: &Progress) -> Plan {
        let requests = progress.received / self.request.max(1);
        Plan { send: requests * self.response, finish: progress.peer_finished, wake: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_go_one_by_one_with_pauses() {
        let mut m = Requests::new(2, 10, 100, Duration::from_millis(5));
        let at = Instant::from_millis;
        let got = |received| Progress { sent: 0, received, peer_finished: false };
        assert_eq!(m.plan(at(0), &got(0)), Plan { send: 10, finish: false, wake: None });
        assert_eq!(m.plan(at(3), &got(99)), Plan { send: 10, finish: false, wake: None });
        assert_eq!(m.plan(at(4), &got(100)), Plan { send: 10, finish: false, wake: Some(at(9)) });
        assert_eq!(m.plan(at(9), &got(100)), Plan { send: 20, finish: false, wake: None });
        assert_eq!(m.plan(at(20), &got(200)), Plan { send: 20, finish: true, wake: None });
        assert_eq!(m.latencies(), [Duration::from_millis(4), Duration::from_millis(11)]);
    }

    #[test]
    fn responder_answers_whole_requests_only() {
        let mut m = Responder { request: 10, response: 7 };
        let p = |received, peer_finished| Progress { sent: 0, received, peer_finished };
        assert_eq!(m.plan(Instant::ZERO, &p(29, false)).send, 14);
        assert_eq!(m.plan(Instant::ZERO, &p(30, true)), Plan { send: 21, finish: true, wake: None });
    }
}

//! What applications note.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use umptcp_netsim::application::{Application, Plan, Progress};
use umptcp_types::Instant;

/// A message, an answer, an object or a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Message {
    /// When it was there to be sent; what is asked for: when it was asked for.
    pub(crate) made: Instant,
    /// When its last byte had been received; `None`: not yet.
    pub(crate) received: Option<Instant>,
}

/// The notes of the applications at the two ends of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    /// Messages that have arrived, in this order.
    arrived: Vec<Message>,
    /// Where in the data each message ends that has not arrived, and when it was made.
    under_way: VecDeque<(u64, Instant)>,
    /// Pages of which all objects have arrived.
    pub(crate) pages: Vec<Message>,
    /// When a playback stood still, and until when; the last may not have ended.
    pub(crate) stalls: Vec<(Instant, Option<Instant>)>,
    /// From when on pauses count.
    begin: Instant,
    /// When the last byte came, or the receiver began to wait.
    last: Option<Instant>,
    received: u64,
    longest: Duration,
    /// Nothing more will come.
    ended: bool,
}

impl Log {
    /// A message that ends at the data's byte `end` was made.
    pub(crate) fn made(&mut self, end: u64, at: Instant) {
        self.under_way.push_back((end, at));
    }

    /// All up to the data's byte `received` has been received by `now`. Whether a message ended with it.
    pub(crate) fn arrived(&mut self, received: u64, now: Instant) -> bool {
        let before = self.arrived.len();
        while let Some((end, made)) = self.under_way.front().copied()
            && end <= received
        {
            self.under_way.pop_front();
            self.arrived.push(Message { made, received: Some(now) });
        }
        self.arrived.len() > before
    }

    /// All messages, those that have not arrived last.
    pub(crate) fn messages(&self) -> impl Iterator<Item = Message> + '_ {
        let missing = self.under_way.iter().map(|(_, made)| Message { made: *made, received: None });
        self.arrived.iter().copied().chain(missing)
    }

    fn look(&mut self, now: Instant, progress: &Progress) {
        let last = *self.last.get_or_insert(now);
        if progress.received > self.received {
            self.received = progress.received;
            self.longest = self.longest.max(self.pause(last, now));
            self.last = Some(now);
        }
        self.ended |= progress.peer_finished;
    }

    fn pause(&self, from: Instant, to: Instant) -> Duration {
        to.saturating_duration_since(from.max(self.begin))
    }

    /// The longest time until `end` in which the receiver got nothing. `None`: it was never there.
    pub(crate) fn silence(&self, end: Instant) -> Option<Duration> {
        let last = self.last?;
        Some(if self.ended { self.longest } else { self.longest.max(self.pause(last, end)) })
    }
}

/// A [`Log`] that both ends write to.
#[derive(Clone, Debug)]
pub(crate) struct Logged(Arc<Mutex<Log>>);

impl Logged {
    /// Empty. Pauses count from `begin` on.
    pub(crate) fn new(begin: Instant) -> Logged {
        Logged(Arc::new(Mutex::new(Log {
            arrived: Vec::new(),
            under_way: VecDeque::new(),
            pages: Vec::new(),
            stalls: Vec::new(),
            begin,
            last: None,
            received: 0,
            longest: Duration::ZERO,
            ended: false,
        })))
    }

    /// To read it or to write to it.
    pub(crate) fn get(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A receiver of whose bytes and messages note is taken.
#[derive(Debug)]
pub(super) struct Noting {
    log: Logged,
    receiver: Box<dyn Application>,
}

impl Noting {
    pub(super) fn new(log: Logged, receiver: Box<dyn Application>) -> Noting {
        Noting { log, receiver }
    }
}

impl Application for Noting {
    fn plan(&mut self, now: Instant, progress: &Progress) -> Plan {
        {
            let mut log = self.log.get();
            log.look(now, progress);
            log.arrived(progress.received, now);
        }
        self.receiver.plan(now, progress)
    }
}

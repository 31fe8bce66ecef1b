//! Applications that ask for what the other end sends.

use super::log::{Logged, Message};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use umptcp_netsim::application::{Application, Plan, Progress};
use umptcp_types::Instant;

/// What an [`Asker`] is to ask for.
pub(super) trait Work: Send + fmt::Debug + 'static {
    /// It is idle: whether it is to ask now, and otherwise when it may look again.
    fn next(&mut self, now: Instant) -> Next;

    /// The answer has come.
    fn answered(&mut self, now: Instant);
}

/// What an idle [`Asker`] does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    Ask,
    Wait(Instant),
    /// There will be nothing more to ask for.
    End,
}

/// Asks for one thing at a time, each of the same size.
#[derive(Debug)]
pub(super) struct Asker<W> {
    log: Logged,
    work: W,
    request: u64,
    response: u64,
    stop: Option<Instant>,
    asked: u64,
    answered: u64,
}

impl<W: Work> Asker<W> {
    pub(super) fn new(log: Logged, work: W, request: u64, response: u64, stop: Option<Instant>) -> Asker<W> {
        Asker { log, work, request, response, stop, asked: 0, answered: 0 }
    }
}

impl<W: Work> Application for Asker<W> {
    fn plan(&mut self, now: Instant, progress: &Progress) -> Plan {
        while self.answered < self.asked && progress.received >= (self.answered + 1) * self.response {
            self.answered += 1;
            self.work.answered(now);
        }
        let stopped = self.stop.is_some_and(|stop| now >= stop);
        let (mut wake, mut finish) = (None, stopped);
        if self.asked == self.answered && !stopped {
            match self.work.next(now) {
                Next::Ask => {
                    self.asked += 1;
                    self.log.get().made(self.asked * self.response, now);
                }
                Next::Wait(until) => wake = Some(until),
                Next::End => finish = true,
            }
        }
        let wake = [wake, self.stop.filter(|_| !stopped)].into_iter().flatten().min();
        Plan { send: self.asked * self.request, finish, wake }
    }
}

/// One question after the other, with a pause after each answer.
#[derive(Debug)]
pub(super) struct Rounds {
    left: Option<u64>,
    pause: Duration,
    not_before: Option<Instant>,
}

impl Rounds {
    /// So many questions; `None`: without end.
    pub(super) fn new(count: Option<u64>, pause: Duration) -> Rounds {
        Rounds { left: count, pause, not_before: None }
    }
}

impl Work for Rounds {
    fn next(&mut self, now: Instant) -> Next {
        if self.left == Some(0) {
            return Next::End;
        }
        if let Some(until) = self.not_before.filter(|t| *t > now) {
            return Next::Wait(until);
        }
        self.left = self.left.map(|n| n - 1);
        Next::Ask
    }

    fn answered(&mut self, now: Instant) {
        self.not_before = Some(now + self.pause);
    }
}

/// The pages that several connections load together.
#[derive(Clone, Debug)]
pub(super) struct Pages(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    objects: u64,
    every: Option<Duration>,
    /// Pages begun in all.
    begun: u64,
    /// When the newest began.
    newest: Option<Instant>,
    /// Pages of which something is missing, oldest first.
    open: VecDeque<Open>,
}

/// A page under way.
#[derive(Clone, Copy, Debug)]
struct Open {
    number: u64,
    began: Instant,
    /// Objects that nobody has asked for.
    left: u64,
    /// Objects that have not arrived.
    missing: u64,
}

impl Pages {
    /// Pages of so many objects, one each time `every` has passed, whether the one before is complete or not;
    /// `None`: one only.
    pub(super) fn new(objects: u64, every: Option<Duration>) -> Pages {
        let state = State { objects, every, begun: 0, newest: None, open: VecDeque::new() };
        Pages(Arc::new(Mutex::new(state)))
    }

    fn get(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn begin(&mut self, began: Instant) {
        self.newest = Some(began);
        let (number, objects) = (self.begun, self.objects);
        self.begun += 1;
        self.open.push_back(Open { number, began, left: objects, missing: objects });
    }

    /// When the next page begins; `None`: there will be none.
    fn next_page(&self) -> Option<Instant> {
        self.newest.zip(self.every).map(|(began, every)| began + every)
    }
}

/// What one connection does for the pages.
#[derive(Debug)]
pub(super) struct Page {
    pages: Pages,
    log: Logged,
    /// The page whose object is under way.
    asking: u64,
}

impl Page {
    pub(super) fn new(pages: Pages, log: Logged) -> Page {
        Page { pages, log, asking: 0 }
    }
}

impl Work for Page {
    fn next(&mut self, now: Instant) -> Next {
        let mut state = self.pages.get();
        if state.newest.is_none() {
            state.begin(now);
        }
        while let Some(at) = state.next_page().filter(|at| *at <= now) {
            // It counts from when it was due.
            state.begin(at);
        }
        if let Some(page) = state.open.iter_mut().find(|p| p.left > 0) {
            page.left -= 1;
            self.asking = page.number;
            return Next::Ask;
        }
        state.next_page().map_or(Next::End, Next::Wait)
    }

    fn answered(&mut self, now: Instant) {
        let mut state = self.pages.get();
        let Some(at) = state.open.iter().position(|p| p.number == self.asking) else { return };
        state.open[at].missing -= 1;
        if state.open[at].missing == 0
            && let Some(page) = state.open.remove(at)
        {
            self.log.get().pages.push(Message { made: page.began, received: Some(now) });
        }
    }
}

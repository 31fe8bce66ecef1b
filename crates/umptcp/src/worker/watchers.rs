//! Who is told what happens in the stack.

use super::context::Context;
use crate::descriptor::{Descriptor, State};
use crate::queue::{Queue, TimedOut};
#[cfg(feature = "tokio")]
use crate::wakers::Key;
use std::collections::VecDeque;
use std::sync::Arc;
#[cfg(feature = "tokio")]
use std::task::Poll;
use umptcp_stack_core::monitor::Monitored;

/// Most events that wait in the stack for the worker, which takes them after every packet or so.
const MOST_IN_STACK: usize = 4096;

#[derive(Debug, Default)]
struct Waiting {
    queue: VecDeque<Monitored>,
    /// The worker has ended.
    closed: bool,
}

/// The queue of one that watches.
#[derive(Debug)]
pub(crate) struct Watcher {
    waiting: Queue<Waiting>,
    descriptor: Descriptor,
    most: usize,
}

impl Watcher {
    /// At most so many events wait.
    pub(crate) fn new(most: usize) -> Self {
        let waiting = Queue::new(Waiting::default());
        Watcher { waiting, descriptor: Descriptor::default(), most: most.max(1) }
    }

    fn push(&self, event: Monitored) {
        self.waiting.change(|w| {
            if w.queue.len() < self.most {
                w.queue.push_back(event);
            } else {
                Monitored::miss(&mut w.queue, event.at, event.count());
            }
        });
        self.show();
    }

    fn close(&self) {
        self.waiting.change(|w| w.closed = true);
        self.show();
    }

    /// Waits for the next event. `None`: there will be none any more.
    pub(crate) fn take(&self, deadline: Option<std::time::Instant>) -> Result<Option<Monitored>, TimedOut> {
        let taken = self.waiting.wait(deadline, |w| match w.queue.pop_front() {
            None if !w.closed => None,
            next => Some(next),
        })?;
        self.show();
        Ok(taken)
    }

    /// Ready when `take` does not have to wait; otherwise the task is woken then.
    #[cfg(feature = "tokio")]
    pub(crate) fn poll_ready(&self, cx: &mut std::task::Context<'_>, key: &mut Key) -> Poll<()> {
        self.waiting.poll_ready(cx, key, |w| !w.queue.is_empty() || w.closed)
    }

    /// Whether `take` would not have to wait.
    pub(crate) fn state(&self) -> State {
        State { readable: self.waiting.with(|w| !w.queue.is_empty() || w.closed), writable: false }
    }

    pub(crate) fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Something has changed that the descriptor shows, if there is one.
    pub(crate) fn show(&self) {
        self.descriptor.update(|| self.state());
    }
}

/// All that watch.
#[derive(Debug, Default)]
pub(super) struct Watchers(Vec<Arc<Watcher>>);

impl Watchers {
    pub(super) fn add(&mut self, cx: &mut Context<'_>, watcher: Arc<Watcher>) {
        // What happened before is not for this one.
        self.pass_on(cx);
        self.0.push(watcher);
        cx.stack.watch(MOST_IN_STACK);
    }

    /// One that watched has gone.
    pub(super) fn remove(&mut self, cx: &mut Context<'_>, watcher: &Arc<Watcher>) {
        self.0.retain(|w| !Arc::ptr_eq(w, watcher));
        if self.0.is_empty() {
            cx.stack.watch(0);
        }
    }

    /// Passes on what has happened.
    pub(super) fn pass_on(&self, cx: &mut Context<'_>) {
        if self.0.is_empty() {
            return;
        }
        while let Some(event) = cx.stack.poll_monitor() {
            for watcher in &self.0 {
                watcher.push(event.clone());
            }
        }
    }

    /// The worker ends.
    pub(super) fn close_all(&self) {
        for watcher in &self.0 {
            watcher.close();
        }
    }
}

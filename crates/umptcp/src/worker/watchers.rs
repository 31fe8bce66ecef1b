//! Who is told what happens in the stack.

use super::context::Context;
use crate::mailbox::Mailbox;
use std::sync::Arc;
use umptcp_stack_core::monitor::Monitored;

/// Most events that wait in the stack for the worker, which takes them after every packet or so.
const MOST_IN_STACK: usize = 4096;

/// The queue of one that watches.
#[derive(Debug)]
pub(crate) struct Watcher {
    events: Mailbox<Monitored>,
    most: usize,
}

impl Watcher {
    /// At most so many events wait.
    pub(crate) fn new(most: usize) -> Self {
        Watcher { events: Mailbox::default(), most: most.max(1) }
    }

    /// Where events wait.
    pub(crate) fn events(&self) -> &Mailbox<Monitored> {
        &self.events
    }

    fn push(&self, event: Monitored) {
        self.events.add(|waiting| {
            if waiting.len() < self.most {
                waiting.push_back(event);
            } else {
                Monitored::miss(waiting, event.at, event.count());
            }
        });
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
            watcher.events.close();
        }
    }
}

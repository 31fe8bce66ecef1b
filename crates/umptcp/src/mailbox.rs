//! What the worker has for an application, one after the other.

use crate::descriptor::{Descriptor, State};
use crate::queue::{Queue, TimedOut};
#[cfg(feature = "tokio")]
use crate::wakers::Key;
use std::collections::VecDeque;
#[cfg(feature = "tokio")]
use std::task::{Context, Poll};
use std::time::Instant;

#[derive(Debug)]
struct Inner<T> {
    waiting: VecDeque<T>,
    /// There will be no more.
    closed: bool,
}

/// A queue that threads, tasks and event loops take from.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    inner: Queue<Inner<T>>,
    descriptor: Descriptor,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        let inner = Queue::new(Inner { waiting: VecDeque::new(), closed: false });
        Mailbox { inner, descriptor: Descriptor::default() }
    }
}

impl<T> Mailbox<T> {
    /// Waits for the next of those that `is_wanted`; others are dropped. `Ok(None)`: it is closed and empty.
    pub(crate) fn take(
        &self,
        deadline: Option<Instant>,
        is_wanted: impl Fn(&T) -> bool,
    ) -> Result<Option<T>, TimedOut> {
        let taken = self.inner.wait(deadline, |inner| {
            while let Some(next) = inner.waiting.pop_front() {
                if is_wanted(&next) {
                    return Some(Some(next));
                }
            }
            inner.closed.then_some(None)
        });
        // Also when nothing wanted was there.
        self.show();
        taken
    }

    /// Adds to what waits.
    pub(crate) fn add(&self, add: impl FnOnce(&mut VecDeque<T>)) {
        self.inner.change(|inner| add(&mut inner.waiting));
        self.show();
    }

    /// Adds one.
    pub(crate) fn push(&self, next: T) {
        self.add(|waiting| waiting.push_back(next));
    }

    /// There will be no more. What waits can still be taken.
    pub(crate) fn close(&self) {
        self.inner.change(|inner| inner.closed = true);
        self.show();
    }

    /// Takes all that waits, for nobody.
    pub(crate) fn clear(&self) -> VecDeque<T> {
        let all = self.inner.with(|inner| std::mem::take(&mut inner.waiting));
        self.show();
        all
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.inner.with(|inner| inner.closed)
    }

    /// Calls `look` with how many wait, while nobody can take any.
    pub(crate) fn with_len<R>(&self, look: impl FnOnce(usize) -> R) -> R {
        self.inner.with(|inner| look(inner.waiting.len()))
    }

    /// Ready when `take` does not have to wait; otherwise the task is woken then.
    #[cfg(feature = "tokio")]
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>, key: &mut Key) -> Poll<()> {
        self.inner.poll_ready(cx, key, |inner| inner.is_ready())
    }

    /// A task waits no longer.
    #[cfg(feature = "tokio")]
    pub(crate) fn forget(&self, key: Key) {
        self.inner.forget(key);
    }

    /// Whether `take` would not have to wait.
    pub(crate) fn state(&self) -> State {
        State { readable: self.inner.with(|inner| inner.is_ready()), writable: false }
    }

    #[cfg(all(target_os = "linux", not(umptcp_portable)))]
    pub(crate) fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Something has changed that the descriptor shows, if there is one.
    pub(crate) fn show(&self) {
        self.descriptor.update(|| self.state());
    }
}

impl<T> Inner<T> {
    fn is_ready(&self) -> bool {
        !self.waiting.is_empty() || self.closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_is_not_wanted_is_passed_over() {
        let mailbox = Mailbox::default();
        (1..=4).for_each(|n| mailbox.push(n));
        let now = || Some(Instant::now());
        assert_eq!(mailbox.take(now(), |n| n % 2 == 0), Ok(Some(2)));
        assert_eq!(mailbox.take(now(), |n| *n > 4), Err(TimedOut));
        assert!(!mailbox.state().readable);
        mailbox.push(5);
        mailbox.close();
        assert!(mailbox.is_closed());
        assert_eq!(mailbox.take(None, |_| true), Ok(Some(5)), "what waits can still be taken");
        assert_eq!(mailbox.take(None, |_| true), Ok(None));
    }

    #[test]
    fn a_thread_is_woken_by_the_next_and_by_the_end() {
        let mailbox = Mailbox::default();
        let limit = || Some(Instant::now() + Duration::from_secs(30));
        std::thread::scope(|scope| {
            let taker = scope.spawn(|| [mailbox.take(limit(), |_| true), mailbox.take(limit(), |_| true)]);
            mailbox.push(1);
            mailbox.close();
            assert_eq!(taker.join().unwrap(), [Ok(Some(1)), Ok(None)]);
        });
    }
}

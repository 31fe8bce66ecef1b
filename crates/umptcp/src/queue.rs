//! A value behind a mutex whose changes threads and tasks wait for.

#[cfg(feature = "tokio")]
use crate::wakers::Key;
use crate::wakers::Wakers;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
#[cfg(feature = "tokio")]
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Locks, ignoring poisoning: the data is valid between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A time limit has passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TimedOut;

/// A mutex with a condition variable that knows whether a thread is waiting.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    data: Mutex<Waiting<T>>,
    changed: Condvar,
    /// Counts changes, for readers that poll without the lock.
    changes: AtomicU32,
}

#[derive(Debug)]
struct Waiting<T> {
    value: T,
    /// Threads.
    waiters: usize,
    /// Tasks.
    wakers: Wakers,
}

impl<T> Queue<T> {
    pub(crate) fn new(value: T) -> Self {
        let data = Mutex::new(Waiting { value, waiters: 0, wakers: Wakers::default() });
        Queue { data, changed: Condvar::new(), changes: AtomicU32::new(0) }
    }

    /// Changes the value and wakes the threads and tasks that wait for a change.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        self.change_and_wake(|value| (change(value), true))
    }

    /// Changes the value, and wakes the threads and tasks that wait for a change if `change` says that it is
    /// one.
    pub(crate) fn change_and_wake<R>(&self, change: impl FnOnce(&mut T) -> (R, bool)) -> R {
        let mut data = lock(&self.data);
        let (result, wake) = change(&mut data.value);
        if wake {
            self.changes.fetch_add(1, Ordering::Release);
            self.wake(data);
        }
        result
    }

    /// Threads that wait.
    #[cfg(test)]
    pub(crate) fn waiters(&self) -> usize {
        lock(&self.data).waiters
    }

    /// Wakes the threads and tasks that wait for a change.
    fn wake(&self, mut data: MutexGuard<'_, Waiting<T>>) {
        let (threads, tasks) = (data.waiters > 0, data.wakers.take());
        drop(data);
        if threads {
            self.changed.notify_all();
        }
        tasks.wake();
    }

    /// Ready when `is_ready` says so; otherwise the task is woken by the next change.
    #[cfg(feature = "tokio")]
    pub(crate) fn poll_ready(
        &self,
        cx: &mut Context<'_>,
        key: &mut Key,
        is_ready: impl FnOnce(&mut T) -> bool,
    ) -> Poll<()> {
        let mut data = lock(&self.data);
        if is_ready(&mut data.value) {
            return Poll::Ready(());
        }
        let replaced = data.wakers.add(key, cx.waker());
        drop(data);
        drop(replaced);
        Poll::Pending
    }

    /// A task waits no longer.
    #[cfg(feature = "tokio")]
    pub(crate) fn forget(&self, key: Key) {
        let removed = lock(&self.data).wakers.remove(key);
        drop(removed);
    }

    /// Reads the value, or changes it in a way that no thread waits for.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&mut T) -> R) -> R {
        look(&mut lock(&self.data).value)
    }

    /// Waits until `take` returns something.
    pub(crate) fn wait<R>(
        &self,
        deadline: Option<Instant>,
        mut take: impl FnMut(&mut T) -> Option<R>,
    ) -> Result<R, TimedOut> {
        self.wait_asleep(lock(&self.data), deadline, &mut take)
    }

    /// Like `wait`, but polls for a while before it sleeps, if that has paid off.
    pub(crate) fn wait_spinning<R>(
        &self,
        deadline: Option<Instant>,
        spin: &Spin,
        mut take: impl FnMut(&mut T) -> Option<R>,
    ) -> Result<R, TimedOut> {
        let mut data = lock(&self.data);
        if let Some(result) = take(&mut data.value) {
            return Ok(result);
        }
        let start = Instant::now();
        if spin.worthwhile.load(Ordering::Relaxed) {
            let seen = self.changes.load(Ordering::Acquire);
            drop(data);
            let end = deadline.map_or(start + spin.limit, |d| d.min(start + spin.limit));
            while self.changes.load(Ordering::Acquire) == seen && Instant::now() < end {
                // Other threads may need this processor, the worker above all.
                std::thread::yield_now();
            }
            data = lock(&self.data);
        }
        let result = self.wait_asleep(data, deadline, &mut take);
        spin.worthwhile.store(start.elapsed() < 4 * spin.limit, Ordering::Relaxed);
        result
    }

    fn wait_asleep<R>(
        &self,
        mut data: MutexGuard<'_, Waiting<T>>,
        deadline: Option<Instant>,
        take: &mut impl FnMut(&mut T) -> Option<R>,
    ) -> Result<R, TimedOut> {
        loop {
            if let Some(result) = take(&mut data.value) {
                return Ok(result);
            }
            data.waiters += 1;
            data = match deadline {
                None => self.changed.wait(data).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        data.waiters -= 1;
                        return Err(TimedOut);
                    }
                    self.changed.wait_timeout(data, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            data.waiters -= 1;
        }
    }
}

/// How long a reader polls for data before it sleeps.
///
/// Waking up on another processor often takes longer than the wait itself: for a one-byte request and
/// response over a local link, several times as long as everything else. Where waits turn out to be long
/// there is nothing to gain, and readers do not spin.
#[derive(Debug)]
pub(crate) struct Spin {
    limit: Duration,
    /// Whether the last wait was short enough.
    worthwhile: AtomicBool,
}

impl Spin {
    pub(crate) fn new(limit: Duration) -> Self {
        Spin { limit, worthwhile: AtomicBool::new(!limit.is_zero()) }
    }
}

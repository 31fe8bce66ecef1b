//! Ways to wait: a thread that blocks, or a task of an asynchronous runtime. Code that is generic over them
//! exists once.

use crate::error::Error;
use crate::shared::lock;
use crate::worker::{Commands, Context, Worker};
use std::future::{self, Future};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

/// A way to wait.
pub(crate) trait Waits: Sync {
    /// Runs `job` on the worker's thread and waits for its result.
    fn call<T: Send + 'static>(
        &self,
        commands: &Commands,
        job: impl FnOnce(&mut Worker, &mut Context<'_>) -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, Error>> + Send;

    /// Waits until then; with `None`, for ever.
    fn until(&self, at: Option<Instant>) -> impl Future<Output = ()> + Send;
}

/// A thread that blocks, in [`block_on`].
#[derive(Debug, Default)]
pub(crate) struct Blocking {
    /// When to poll again at the latest.
    wake_at: Mutex<Option<Instant>>,
}

impl Waits for Blocking {
    fn call<T: Send + 'static>(
        &self,
        commands: &Commands,
        job: impl FnOnce(&mut Worker, &mut Context<'_>) -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, Error>> + Send {
        future::ready(commands.call(job))
    }

    fn until(&self, at: Option<Instant>) -> impl Future<Output = ()> + Send {
        *lock(&self.wake_at) = at;
        future::poll_fn(move |_| match at {
            Some(at) if Instant::now() >= at => Poll::Ready(()),
            _ => Poll::Pending,
        })
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs `future`, which waits by `blocking` only, on this thread.
pub(crate) fn block_on<T>(blocking: &Blocking, future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = std::task::Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut cx) {
            return result;
        }
        match *lock(&blocking.wake_at) {
            None => thread::park(),
            Some(at) => thread::park_timeout(at.saturating_duration_since(Instant::now())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_thread_waits_for_a_waker_or_a_point_in_time() {
        let blocking = Blocking::default();
        let at = Instant::now() + Duration::from_millis(5);
        block_on(&blocking, blocking.until(Some(at)));
        assert!(Instant::now() >= at);
        let mut woken = false;
        let waiting = blocking.until(None);
        let told = future::poll_fn(move |cx| {
            if woken {
                return Poll::Ready(7);
            }
            woken = true;
            let waker = cx.waker().clone();
            thread::spawn(move || waker.wake());
            Poll::Pending
        });
        assert_eq!(block_on(&blocking, told), 7);
        drop(waiting);
    }
}

//! An event loop on a thread of its own, for stacks that are only looked at from outside.

use super::{AttachedPath, Context, EventLoop, Handler, LoopOptions, NetworkStack, Waker};
use crate::clock::Clock;
use std::io;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use umptcp_stack_core::event::Event;
use umptcp_types::Instant;

/// What other threads want done on the loop's thread. False: the loop is to end.
type Call<E> = Box<dyn FnOnce(&mut E, Instant) -> bool + Send>;
type Calls<E> = Arc<Mutex<Vec<Call<E>>>>;

/// A stack with its devices, running on a thread of its own until it is stopped or dropped. The stack's
/// events are ignored.
pub struct EventLoopThread<E: NetworkStack> {
    name: String,
    calls: Calls<E>,
    waker: Waker,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl<E: NetworkStack + Send + 'static> EventLoopThread<E> {
    /// Starts a thread called `name` for `stack`, which gets the paths in their order.
    ///
    /// # Errors
    ///
    /// When the event loop or its thread cannot be made, or a device cannot be waited for.
    pub fn start(
        name: &str,
        stack: E,
        paths: impl IntoIterator<Item = AttachedPath>,
    ) -> io::Result<EventLoopThread<E>> {
        let calls = Calls::<E>::default();
        let handler = Caller(Arc::clone(&calls));
        let mut event_loop = EventLoop::new(stack, handler, Clock::new(), LoopOptions::default())?;
        for path in paths {
            event_loop.add_path(path)?;
        }
        let waker = event_loop.waker();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || event_loop.run())?;
        Ok(EventLoopThread { name: name.to_owned(), calls, waker, thread: Some(thread) })
    }

    /// Looks at the stack, or changes it, on its thread. `None` when the loop has failed.
    pub fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut E, Instant) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = sync_channel(1);
        self.call(Box::new(move |stack, now| {
            // The channel has room for the one answer, and whoever asked is waiting for it.
            let _ = answer.try_send(work(stack, now));
            true
        }));
        answered.recv().ok()
    }
}

impl<E: NetworkStack> EventLoopThread<E> {
    /// Ends the loop. Does nothing the second time.
    ///
    /// # Errors
    ///
    /// The error that the loop ended with.
    pub fn stop(&mut self) -> io::Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.call(Box::new(|_, _| false));
        let panicked = || io::Error::other(format!("the thread {:?} has panicked", self.name));
        thread.join().unwrap_or_else(|_| Err(panicked()))
    }

    fn call(&self, call: Call<E>) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
        self.waker.wake();
    }
}

impl<E: NetworkStack> Drop for EventLoopThread<E> {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::error!(thread = %self.name, %error, "the event loop has failed");
        }
    }
}

impl<E: NetworkStack> std::fmt::Debug for EventLoopThread<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventLoopThread")
            .field("name", &self.name)
            .field("running", &self.thread.is_some())
            .finish_non_exhaustive()
    }
}

/// Does what other threads ask for.
struct Caller<E>(Calls<E>);

impl<E: NetworkStack> Handler<E> for Caller<E> {
    fn on_wake(&mut self, cx: &mut Context<'_, E>) {
        let calls = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for call in calls {
            if !call(cx.stack, cx.now) {
                cx.stop();
            }
        }
    }

    fn on_event(&mut self, _cx: &mut Context<'_, E>, _event: Event) {}
}

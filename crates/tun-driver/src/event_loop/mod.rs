//! One thread that owns a stack and the devices it uses.
//!
//! [`EventLoop::run`] waits for packets, timers and wake-ups and calls the stack in the order its interface
//! asks for. The program's part is a [`Handler`], which runs on the same thread and may therefore call the
//! stack freely. Other threads pass work in shared memory and then use the [`Waker`].

mod backlog;
mod io_driver;
mod options;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod poller;
#[cfg(any(not(target_os = "linux"), umptcp_portable))]
mod portable;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod slice;
mod thread;
mod traces;
mod waker;

#[cfg(all(target_os = "linux", not(umptcp_portable)))]
use poller::{Bell, Poller};
#[cfg(any(not(target_os = "linux"), umptcp_portable))]
use portable::{Bell, Poller};

pub use io_driver::{AttachedPath, Guard};
pub use options::{Capture, LoopOptions};
pub use thread::EventLoopThread;
pub use umptcp_stack_core::network_stack::NetworkStack;
pub use waker::Waker;

use crate::clock::Clock;
use io_driver::IoDriver;
use std::io;
use std::time::Duration;
use umptcp_stack_core::event::Event;
use umptcp_types::{Instant, PathId};

/// Maximum number of events handled before packets are processed again.
const EVENT_BATCH: usize = 256;

/// Borrows the parts of a loop that a handler may use, but not the handler itself.
macro_rules! context {
    ($self:ident, $now:expr) => {
        Context { now: $now, stack: &mut $self.stack, io: &mut $self.io, stop: &mut $self.stop }
    };
}

/// What the program does on the loop's thread.
pub trait Handler<E: NetworkStack> {
    /// [`Waker::wake`] was called: take the work that was passed.
    fn on_wake(&mut self, cx: &mut Context<'_, E>);
    /// The stack reports an event.
    fn on_event(&mut self, cx: &mut Context<'_, E>, event: Event);
    /// A device has vanished; its path has been removed from the stack. `guard` undoes the path's set-up when
    /// dropped.
    fn on_path_lost(&mut self, _cx: &mut Context<'_, E>, _path: PathId, _error: io::Error, _guard: Guard) {}
    /// Packets and events have been processed; the loop may sleep next.
    fn after_poll(&mut self, _cx: &mut Context<'_, E>) {}
    /// The latest time for the next call of `after_poll`.
    fn deadline(&self) -> Option<Instant> {
        None
    }
}

/// What a handler may use while it runs.
pub struct Context<'a, E: NetworkStack> {
    /// The current time.
    pub now: Instant,
    /// The stack.
    pub stack: &'a mut E,
    io: &'a mut IoDriver,
    stop: &'a mut bool,
}

impl<E: NetworkStack> Context<'_, E> {
    /// Adds a path: its device is polled from now on, and the stack may use it.
    pub fn add_path(&mut self, path: AttachedPath) -> io::Result<PathId> {
        self.io.add(self.now, self.stack, path)
    }

    /// Removes a path; its subflows end. The returned path can be added again, or dropped to undo its set-up,
    /// which may take long enough to be worth another thread. `None` if there is no such path.
    pub fn remove_path(&mut self, path: PathId) -> Option<AttachedPath> {
        self.io.remove(self.now, self.stack, path)
    }

    /// All paths.
    pub fn paths(&self) -> Vec<PathId> {
        self.io.paths()
    }

    /// A device has no room, so that packets wait.
    pub fn is_blocked(&self) -> bool {
        self.io.is_blocked()
    }

    /// Makes [`EventLoop::run`] return once the handler has returned.
    pub fn stop(&mut self) {
        *self.stop = true;
    }
}

/// A stack, its devices and the handler, driven by one thread.
pub struct EventLoop<E: NetworkStack, H: Handler<E>> {
    stack: E,
    handler: H,
    io: IoDriver,
    clock: Clock,
    busy_poll: Duration,
    stop: bool,
}

impl<E: NetworkStack, H: Handler<E>> EventLoop<E, H> {
    /// A loop without paths. Fails if the process cannot open any more descriptors.
    pub fn new(stack: E, handler: H, clock: Clock, options: LoopOptions) -> io::Result<Self> {
        let busy_poll = options.busy_poll;
        Ok(EventLoop { stack, handler, io: IoDriver::new(clock, options)?, clock, busy_poll, stop: false })
    }

    /// The stack, accessible while the loop is not running.
    pub fn stack(&self) -> &E {
        &self.stack
    }

    /// The handler, accessible while the loop is not running.
    pub fn handler(&self) -> &H {
        &self.handler
    }

    /// Wakes this loop from other threads.
    pub fn waker(&self) -> Waker {
        self.io.waker.clone()
    }

    /// Adds a path before the loop runs; see [`Context::add_path`].
    pub fn add_path(&mut self, path: AttachedPath) -> io::Result<PathId> {
        self.io.add(self.clock.now(), &mut self.stack, path)
    }

    /// Runs until the handler calls [`Context::stop`] or waiting fails. Dropping the loop afterwards drops
    /// the devices and then the paths' guards.
    pub fn run(&mut self) -> io::Result<()> {
        #[cfg(all(target_os = "linux", not(umptcp_portable)))]
        on_time();
        while !self.stop {
            let timeout = if self.turn() { Some(Duration::ZERO) } else { self.timeout() };
            if self.stop {
                break;
            }
            self.sleep(timeout)?;
        }
        self.io.flush_traces();
        Ok(())
    }

    /// Does all pending work, in the order that the stack requires. `true` if there may be more.
    fn turn(&mut self) -> bool {
        let mut now = self.clock.now();
        if self.io.waker.take() {
            self.handler.on_wake(&mut context!(self, now));
        }
        let mut more = self.io.receive(&mut self.stack);
        while let Some(lost) = self.io.lost.pop() {
            let mut cx = context!(self, now);
            self.handler.on_path_lost(&mut cx, lost.path, lost.error, lost.guard);
        }
        now = self.clock.now();
        self.io.look_again(now, &mut self.stack);
        if self.stack.poll_timeout().is_some_and(|t| t <= now) {
            self.stack.handle_timeout(now);
        }
        let mut events = 0;
        while let Some(event) = self.stack.poll_event() {
            self.handler.on_event(&mut context!(self, now), event);
            events += 1;
            if events == EVENT_BATCH {
                more = true;
                break;
            }
        }
        self.handler.after_poll(&mut context!(self, now));
        more |= self.io.transmit(&mut self.stack);
        // Sending may have caused an event, or shown that a device is gone.
        more |= !self.io.lost.is_empty();
        // So may a device have an answer to what was sent.
        more |= self.io.any_ready();
        if let Some(event) = self.stack.poll_event() {
            self.handler.on_event(&mut context!(self, now), event);
            more = true;
        }
        more
    }

    /// Time until the next timer.
    fn timeout(&self) -> Option<Duration> {
        let next = [self.stack.poll_timeout(), self.handler.deadline(), self.io.deadline()];
        let next = next.into_iter().flatten().min()?;
        Some(next - self.clock.now())
    }

    fn sleep(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) {
            return self.io.wait(&mut self.stack, timeout);
        }
        if !self.busy_poll.is_zero() {
            let start = self.clock.now();
            let end = start + self.busy_poll.min(timeout.unwrap_or(Duration::MAX));
            while self.clock.now() < end {
                self.io.wait(&mut self.stack, Some(Duration::ZERO))?;
                if self.io.waker.is_notified() || self.io.any_ready() {
                    return Ok(());
                }
                std::hint::spin_loop();
            }
        }
        if !self.io.waker.fall_asleep() {
            return Ok(());
        }
        self.io.before_sleep(self.clock.now());
        self.io.wait(&mut self.stack, timeout)
    }
}

/// Has Linux wake this thread on time.
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
fn on_time() {
    // The default timer slack of 50 µs would undo the effect of pacing.
    let _ = nix::sys::prctl::set_timerslack(1);
    if let Err(error) = slice::shorten() {
        tracing::debug!(%error, "on a busy host this thread is woken late");
    }
}

//! One thread that owns a stack and the devices it uses.
//!
//! [`EventLoop::run`] waits for packets, timers and wake-ups and calls the stack in the order its interface asks for.
//! The program takes part through a [`Handler`], which runs on the same thread and so may call the stack freely;
//! other threads hand work over in memory of their own and then use the [`Waker`].

mod engine;
mod io_driver;
mod poller;
mod waker;

pub use engine::Engine;
pub use io_driver::{AttachedPath, Capture, Guard};
pub use waker::Waker;

use crate::clock::Clock;
use io_driver::IoDriver;
use std::io;
use std::time::Duration;
use umptcp_stack_core::event::Event;
use umptcp_types::{Instant, PathId};

/// Events handled before packets are looked at again.
const EVENT_BATCH: usize = 256;

/// Borrows the parts of a loop that a handler may use, leaving the handler itself free.
macro_rules! context {
    ($self:ident, $now:expr) => {
        Context { now: $now, engine: &mut $self.engine, io: &mut $self.io, stop: &mut $self.stop }
    };
}

/// What the program does on the loop's thread.
pub trait Handler<E: Engine> {
    /// Somebody called [`Waker::wake`]: take the work that was handed over.
    fn on_wake(&mut self, cx: &mut Context<'_, E>);
    /// The stack reports something.
    fn on_event(&mut self, cx: &mut Context<'_, E>, event: Event);
    /// A device vanished; the stack has been told that its path is gone. `guard` undoes the path's set-up when dropped.
    fn on_path_lost(&mut self, _cx: &mut Context<'_, E>, _path: PathId, _error: io::Error, _guard: Guard) {}
    /// Packets and events have been dealt with; the loop may sleep next.
    fn after_poll(&mut self, _cx: &mut Context<'_, E>) {}
    /// When `after_poll` should be called next at the latest.
    fn deadline(&self) -> Option<Instant> {
        None
    }
}

/// What a handler may use while it runs.
pub struct Context<'a, E: Engine> {
    /// The current time.
    pub now: Instant,
    /// The stack.
    pub engine: &'a mut E,
    io: &'a mut IoDriver,
    stop: &'a mut bool,
}

impl<E: Engine> Context<'_, E> {
    /// Adds a path: its device is polled from now on, and the stack may use it.
    pub fn add_path(&mut self, path: AttachedPath) -> io::Result<PathId> {
        self.io.add(self.now, self.engine, path)
    }

    /// Removes a path; its subflows end. Returns it, to be dropped, which undoes its set-up and may take long enough to be worth
    /// another thread, or to be added again; `None` when there is no such path.
    pub fn remove_path(&mut self, path: PathId) -> Option<AttachedPath> {
        self.io.remove(self.now, self.engine, path)
    }

    /// The paths there are.
    pub fn paths(&self) -> Vec<PathId> {
        self.io.paths()
    }

    /// Makes [`EventLoop::run`] return when the handler does.
    pub fn stop(&mut self) {
        *self.stop = true;
    }
}

/// Settings of an event loop.
#[derive(Debug)]
pub struct LoopOptions {
    /// Packets read from one device before the others and the stack's timers have their turn.
    pub receive_batch: usize,
    /// Packets sent before received ones are looked at again.
    pub transmit_batch: usize,
    /// How long to look for work before sleeping. Saves the time of waking up and costs processor time; zero by default.
    pub busy_poll: Duration,
    /// Most memory for received packets, in bytes.
    pub buffer_limit: usize,
    /// Where to write every packet to.
    pub capture: Option<Capture>,
}

impl Default for LoopOptions {
    fn default() -> Self {
        LoopOptions {
            receive_batch: 32,
            transmit_batch: 64,
            busy_poll: Duration::ZERO,
            buffer_limit: crate::device::BufferPool::DEFAULT_LIMIT,
            capture: None,
        }
    }
}

/// A stack, its devices and the handler, driven by one thread.
pub struct EventLoop<E: Engine, H: Handler<E>> {
    engine: E,
    handler: H,
    io: IoDriver,
    clock: Clock,
    busy_poll: Duration,
    stop: bool,
}

impl<E: Engine, H: Handler<E>> EventLoop<E, H> {
    /// A loop without paths. Fails when the process may open no more descriptors.
    pub fn new(engine: E, handler: H, clock: Clock, options: LoopOptions) -> io::Result<Self> {
        let busy_poll = options.busy_poll;
        Ok(EventLoop { engine, handler, io: IoDriver::new(clock, options)?, clock, busy_poll, stop: false })
    }

    /// The stack it drives, while it is not running.
    pub fn engine(&self) -> &E {
        &self.engine
    }

    /// What wakes this loop.
    pub fn waker(&self) -> Waker {
        self.io.waker.clone()
    }

    /// Adds a path before the loop runs; see [`Context::add_path`].
    pub fn add_path(&mut self, path: AttachedPath) -> io::Result<PathId> {
        self.io.add(self.clock.now(), &mut self.engine, path)
    }

    /// Runs until the handler calls [`Context::stop`], or waiting fails. Dropping the loop afterwards drops the devices
    /// and then the paths' guards.
    pub fn run(&mut self) -> io::Result<()> {
        // The default slack of 50 µs would bunch what pacing spreads out.
        let _ = nix::sys::prctl::set_timerslack(1);
        while !self.stop {
            let timeout = if self.turn() { Some(Duration::ZERO) } else { self.timeout() };
            if self.stop {
                break;
            }
            self.sleep(timeout)?;
        }
        self.io.flush_capture();
        Ok(())
    }

    /// Does what there is to do, in the order the stack asks for. `true` when there may be more.
    fn turn(&mut self) -> bool {
        let mut now = self.clock.now();
        if self.io.waker.take() {
            self.handler.on_wake(&mut context!(self, now));
        }
        let mut more = self.io.receive(&mut self.engine);
        while let Some(lost) = self.io.lost.pop() {
            let mut cx = context!(self, now);
            self.handler.on_path_lost(&mut cx, lost.path, lost.error, lost.guard);
        }
        now = self.clock.now();
        if self.engine.poll_timeout().is_some_and(|t| t <= now) {
            self.engine.handle_timeout(now);
        }
        let mut events = 0;
        while let Some(event) = self.engine.poll_event() {
            self.handler.on_event(&mut context!(self, now), event);
            events += 1;
            if events == EVENT_BATCH {
                more = true;
                break;
            }
        }
        self.handler.after_poll(&mut context!(self, now));
        more |= self.io.transmit(&mut self.engine);
        // Sending may have given cause for more: an event, or a path that turned out to be gone.
        more |= !self.io.lost.is_empty();
        if let Some(event) = self.engine.poll_event() {
            self.handler.on_event(&mut context!(self, now), event);
            more = true;
        }
        more
    }

    /// How long nothing is going to happen by itself.
    fn timeout(&self) -> Option<Duration> {
        let next = [self.engine.poll_timeout(), self.handler.deadline()].into_iter().flatten().min()?;
        Some(next - self.clock.now())
    }

    fn sleep(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) {
            return self.io.wait(&mut self.engine, timeout);
        }
        if !self.busy_poll.is_zero() {
            let start = self.clock.now();
            let end = start + self.busy_poll.min(timeout.unwrap_or(Duration::MAX));
            while self.clock.now() < end {
                self.io.wait(&mut self.engine, Some(Duration::ZERO))?;
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
        self.io.wait(&mut self.engine, timeout)
    }
}

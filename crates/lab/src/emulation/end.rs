//! One end of a real connection with its application.

use super::Wire;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use umptcp_netsim::application::{Application, Plan, Progress};
use umptcp_netsim::stream::ByteStream;
use umptcp_types::Instant;

/// Bytes written at a time.
const CHUNK: usize = 64 * 1024;
/// Bytes read at a time.
const READ: usize = 256 * 1024;
/// How often a writer that has nothing to do looks whether all is over.
const LOOK: Duration = Duration::from_millis(100);

/// The time of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(pub(super) std::time::Instant);

impl Clock {
    pub(super) fn now(self) -> Instant {
        Instant::ZERO + self.0.elapsed()
    }
}

/// What is wrong with a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// It has ended with an error.
    Ended(String),
    /// It has delivered what was not sent.
    Corrupt(String),
}

/// An end, with two threads: one reads, one writes.
pub(super) struct End {
    wire: Box<dyn Wire>,
    clock: Clock,
    sending: ByteStream,
    receiving: ByteStream,
    state: Mutex<State>,
    changed: Condvar,
    received: AtomicU64,
}

struct State {
    application: Box<dyn Application>,
    progress: Progress,
    plan: Plan,
    last_received_at: Option<Instant>,
    fault: Option<Fault>,
    ended: bool,
}

impl End {
    pub(super) fn new(
        wire: Box<dyn Wire>,
        clock: Clock,
        application: Box<dyn Application>,
        (sending, receiving): (ByteStream, ByteStream),
    ) -> End {
        let state = State {
            application,
            progress: Progress::default(),
            plan: Plan::default(),
            last_received_at: None,
            fault: None,
            ended: false,
        };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        End { wire, clock, sending, receiving, state, changed, received: AtomicU64::new(0) }
    }

    pub(super) fn wire(&self) -> &dyn Wire {
        &*self.wire
    }

    /// Bytes that the application has received.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(super) fn last_received_at(&self) -> Option<Instant> {
        self.state().last_received_at
    }

    pub(super) fn fault(&self) -> Option<Fault> {
        self.state().fault.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, state: &mut State) {
        let plan = state.application.plan(self.clock.now(), &state.progress);
        state.plan = Plan { send: plan.send.max(state.plan.send), ..plan };
    }

    fn fail(&self, fault: Fault) {
        let mut state = self.state();
        state.ended = true;
        state.fault.get_or_insert(fault);
        self.changed.notify_all();
    }

    /// Reads until the end, or until all is `over`.
    pub(super) fn read(&self, over: &AtomicBool) {
        let mut buffer = vec![0; READ];
        while !over.load(Ordering::Relaxed) {
            let n = match self.wire.receive(&mut buffer) {
                Ok(n) => n,
                Err(e) if is_pause(e.kind()) => continue,
                Err(_) if over.load(Ordering::Relaxed) => return,
                Err(e) => return self.fail(Fault::Ended(e.to_string())),
            };
            let at = self.received();
            if let Some(wrong) = self.receiving.first_difference(at, &buffer[..n]) {
                return self.fail(Fault::Corrupt(format!("byte {wrong} is not what was sent")));
            }
            let mut state = self.state();
            if n == 0 {
                state.progress.peer_finished = true;
            } else {
                self.received.store(at + n as u64, Ordering::Relaxed);
                state.progress.received = at + n as u64;
                state.last_received_at = Some(self.clock.now());
            }
            self.ask(&mut state);
            self.changed.notify_all();
            if n == 0 {
                return;
            }
        }
    }

    /// Writes what the application wants, until it has finished or all is `over`.
    pub(super) fn write(&self, over: &AtomicBool) {
        let mut chunk = Vec::new();
        let mut state = self.state();
        while !over.load(Ordering::Relaxed) && !state.ended {
            self.ask(&mut state);
            let left = state.plan.send.saturating_sub(state.progress.sent);
            if left == 0 {
                if state.plan.finish {
                    drop(state);
                    if let Err(e) = self.wire.finish()
                        && !over.load(Ordering::Relaxed)
                    {
                        self.fail(Fault::Ended(e.to_string()));
                    }
                    return;
                }
                let wake = state.plan.wake.map_or(LOOK, |at| (at - self.clock.now()).min(LOOK));
                // What the reader tells while this is on its way is not missed: it needs the lock.
                let waited = self.changed.wait_timeout(state, wake);
                (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let at = state.progress.sent;
            drop(state);
            chunk.resize((left.min(CHUNK as u64)) as usize, 0);
            self.sending.fill(at, &mut chunk);
            let sent = self.wire.send(&chunk);
            state = self.state();
            match sent {
                Ok(n) => state.progress.sent += n as u64,
                Err(e) if is_pause(e.kind()) => {}
                Err(_) if over.load(Ordering::Relaxed) => return,
                Err(e) => {
                    drop(state);
                    return self.fail(Fault::Ended(e.to_string()));
                }
            }
        }
    }
}

fn is_pause(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

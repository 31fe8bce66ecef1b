//! Waking the loop from other threads.

use super::Bell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// The loop is running and has seen everything passed to it so far.
const AWAKE: u8 = 0;
/// Something has been passed since the loop last looked.
const NOTIFIED: u8 = 1;
/// The loop is asleep, or about to be, and must be woken by the bell.
const ASLEEP: u8 = 2;

/// Wakes an event loop. Cheap to clone, and cheap to call while the loop is awake: only waking a sleeping
/// loop takes a system call.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: AtomicU8,
    bell: Bell,
}

impl Waker {
    pub(super) fn new(bell: Bell) -> Self {
        Waker(Arc::new(Shared { state: AtomicU8::new(AWAKE), bell }))
    }

    /// Makes the loop call its handler's `on_wake` soon. Everything the caller has written to shared memory
    /// is visible there.
    #[inline]
    pub fn wake(&self) {
        // A read-modify-write without a preceding load: it guarantees that either this thread sees the loop's
        // latest state or the loop sees what this thread wrote.
        if self.0.state.swap(NOTIFIED, Ordering::AcqRel) == ASLEEP {
            self.0.bell.ring();
        }
    }

    /// Whether [`Waker::wake`] has been called since the last time. Marks the loop as awake.
    pub(super) fn take(&self) -> bool {
        self.0.state.swap(AWAKE, Ordering::AcqRel) == NOTIFIED
    }

    /// Like `take`, but without changing the state.
    pub(super) fn is_notified(&self) -> bool {
        self.0.state.load(Ordering::Relaxed) == NOTIFIED
    }

    /// Announces that the loop is going to sleep. `false` if it must not, because it has been notified.
    pub(super) fn fall_asleep(&self) -> bool {
        self.0.state.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

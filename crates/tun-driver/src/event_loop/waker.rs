//! Waking the loop from other threads.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// The loop is at work and has looked at everything that was handed over before.
const AWAKE: u8 = 0;
/// Something has been handed over since the loop last looked.
const NOTIFIED: u8 = 1;
/// The loop sleeps, or is about to, and must be woken through the descriptor.
const ASLEEP: u8 = 2;

/// Wakes an event loop. Cheap to clone, and to call when the loop is awake: only a sleeping loop costs a system call.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: AtomicU8,
    event: OwnedFd,
}

impl Waker {
    pub(super) fn new() -> io::Result<Self> {
        let flags = nix::sys::eventfd::EfdFlags::EFD_CLOEXEC | nix::sys::eventfd::EfdFlags::EFD_NONBLOCK;
        let event = nix::sys::eventfd::EventFd::from_value_and_flags(0, flags)?;
        Ok(Waker(Arc::new(Shared { state: AtomicU8::new(AWAKE), event: event.into() })))
    }

    /// Makes the loop call its handler's `on_wake` soon. What the caller wrote to shared memory before is visible there.
    #[inline]
    pub fn wake(&self) {
        // A read-modify-write, not a load first: only so is it certain that either this thread sees the loop's
        // latest state or the loop sees what this thread wrote.
        if self.0.state.swap(NOTIFIED, Ordering::AcqRel) == ASLEEP {
            // It can fail only when the counter is about to overflow, and then the loop is being woken already.
            let _ = nix::unistd::write(&self.0.event, &1u64.to_ne_bytes());
        }
    }

    /// Whether somebody called [`Waker::wake`] since the last time; the loop is awake from here on.
    pub(super) fn take(&self) -> bool {
        self.0.state.swap(AWAKE, Ordering::AcqRel) == NOTIFIED
    }

    /// A look without consequences.
    pub(super) fn is_notified(&self) -> bool {
        self.0.state.load(Ordering::Relaxed) == NOTIFIED
    }

    /// Announces that the loop is going to sleep. `false`: it must not, for it has been notified.
    pub(super) fn fall_asleep(&self) -> bool {
        self.0.state.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}

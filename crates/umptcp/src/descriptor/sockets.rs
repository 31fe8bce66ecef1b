//! The descriptor, made of two sockets.

use super::State;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::unistd::{read, write};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Two connected sockets whose buffers say what there is to do: unlike an eventfd, they can be neither
/// readable nor writable.
#[derive(Debug)]
struct Sockets {
    /// The application's.
    outer: OwnedFd,
    inner: OwnedFd,
    /// What `outer` shows.
    shown: Mutex<State>,
}

impl Sockets {
    fn new() -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let (outer, inner) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)?;
        // The least that the kernel allows: it is filled while there is nothing to write to.
        setsockopt(&outer, sockopt::SndBuf, &1)?;
        let shown = Mutex::new(State { readable: false, writable: true });
        Ok(Sockets { outer, inner, shown })
    }

    /// Shows what `look` finds. It looks under the lock, so that of several threads the last shows the latest
    /// state.
    fn update(&self, look: impl FnOnce() -> State) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let now = look();
        if now.readable && !shown.readable {
            repeat(|| write(&self.inner, &[0]), true);
        } else if !now.readable && shown.readable {
            repeat(|| read(&self.outer, &mut [0; 8]), true);
        }
        if now.writable && !shown.writable {
            repeat(|| read(&self.inner, &mut [0; 4096]), false);
        } else if !now.writable && shown.writable {
            repeat(|| write(&self.outer, &[0; 4096]), false);
        }
        *shown = now;
    }
}

/// Makes a system call once, or as long as it does something.
fn repeat(mut call: impl FnMut() -> nix::Result<usize>, once: bool) {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            Ok(n) if n > 0 && !once => {}
            // Mostly EAGAIN. Others come only where the application does with its socket what it must not.
            _ => return,
        }
    }
}

/// The descriptor of a stream or listener, if the application has asked for it.
#[derive(Debug, Default)]
pub(crate) struct Descriptor(OnceLock<Sockets>);

impl Descriptor {
    /// Shows what `look` finds, if there is a descriptor.
    pub(crate) fn update(&self, look: impl FnOnce() -> State) {
        if let Some(sockets) = self.0.get() {
            sockets.update(look);
        }
    }

    /// Makes the descriptor unless there is one.
    pub(crate) fn open(&self) -> io::Result<()> {
        if self.0.get().is_none() {
            let sockets = Sockets::new()?;
            // Another thread may have been faster.
            let _ = self.0.set(sockets);
        }
        Ok(())
    }

    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.get()?.outer.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    #[test]
    fn all_four_states_can_be_shown_in_any_order() {
        let descriptor = Descriptor::default();
        descriptor.update(|| unreachable!("nobody has asked for it"));
        descriptor.open().unwrap();
        let both = PollFlags::POLLIN | PollFlags::POLLOUT;
        for n in 0..200u32 {
            let x = n.wrapping_mul(2_654_435_761) >> 16;
            let (readable, writable) = (x & 1 == 1, x & 2 == 2);
            descriptor.update(|| State { readable, writable });
            let mut fds = [PollFd::new(descriptor.fd().unwrap(), both)];
            poll(&mut fds, PollTimeout::ZERO).unwrap();
            let mut expected = PollFlags::empty();
            expected.set(PollFlags::POLLIN, readable);
            expected.set(PollFlags::POLLOUT, writable);
            assert_eq!(fds[0].revents().unwrap(), expected, "step {n}");
        }
    }
}

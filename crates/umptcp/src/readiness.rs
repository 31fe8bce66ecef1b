//! Readiness for other event loops.

use crate::descriptor::State;
use crate::shared::Shared;
use crate::worker::{ListenerShared, Watcher};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

/// What a descriptor belongs to.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Stream(Arc<Shared>),
    Listener(Arc<ListenerShared>),
    Events(Arc<Watcher>),
}

/// A descriptor that tells poll(2), epoll(7) and what is built on them whether a stream or listener is ready;
/// from [`MptcpStream::readiness`](crate::MptcpStream::readiness),
/// [`MptcpListener::readiness`](crate::MptcpListener::readiness) and
/// [`Events::readiness`](crate::Events::readiness).
///
/// It shows the same as the descriptor of a socket of the kernel, and goes on doing so (it is
/// level-triggered):
///
/// | | readable (`POLLIN`) while | writable (`POLLOUT`) while |
/// |---|---|---|
/// | stream | a read would not wait: there are data, or the end of the stream, or an error | a write would not wait: there is room, or an error |
/// | listener | `accept` would not wait: there is a connection, or the stack has been stopped | never |
/// | events | `recv` would not wait: something has happened, or the stack has been stopped | never |
///
/// For loops that are edge-triggered, as mio is: there is a new edge when what was not ready becomes ready,
/// so read, write or accept until that fails with [`WouldBlock`](std::io::ErrorKind::WouldBlock), which
/// [`set_nonblocking`](crate::MptcpStream::set_nonblocking) makes it do.
///
/// The descriptor is for waiting only: do not read from it, write to it or change its options. It costs two
/// of the process's descriptors, which are closed when the stream or listener and all its `Readiness` have
/// been dropped. It does not keep the connection open: when that ends, it is readable and writable.
///
/// ```
/// # #[cfg(target_os = "linux")]
/// # mod pipe { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/pipe.rs")); }
/// use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
/// use std::io::{ErrorKind, Read, Write};
/// use std::os::fd::AsFd;
///
/// # #[cfg(target_os = "linux")]
/// # fn main() -> std::io::Result<()> {
/// # let (here, there) = pipe::two_stacks(1, |s| s);
/// # let listener = there.listen("10.0.0.2:80")?;
/// let mut stream = here.connect("10.0.0.2:80")?;
/// # let (mut peer, _) = listener.accept()?;
/// stream.set_nonblocking(true)?;
/// let readiness = stream.readiness()?;
///
/// assert_eq!(stream.read(&mut [0; 100]).unwrap_err().kind(), ErrorKind::WouldBlock);
/// peer.write_all(b"hello")?;
/// let mut waiting = [PollFd::new(readiness.as_fd(), PollFlags::POLLIN)]; // beside others
/// poll(&mut waiting, PollTimeout::NONE)?;
/// assert_eq!(waiting[0].revents(), Some(PollFlags::POLLIN));
/// assert!(stream.read(&mut [0; 100])? > 0);
/// # Ok(())
/// # }
/// # #[cfg(not(target_os = "linux"))]
/// # fn main() {}
/// ```
#[derive(Clone, Debug)]
pub struct Readiness(Source);

impl Readiness {
    /// `source` must have opened its descriptor.
    pub(crate) fn new(source: Source) -> Self {
        Readiness(source)
    }

    fn state(&self) -> State {
        match &self.0 {
            Source::Stream(shared) => shared.state(),
            Source::Listener(shared) => shared.ready().state(),
            Source::Events(watcher) => watcher.events().state(),
        }
    }

    /// Whether a read, `accept` or `recv` would not wait.
    pub fn is_readable(&self) -> bool {
        self.state().readable
    }

    /// Whether a write would not wait. Never of listeners and events.
    pub fn is_writable(&self) -> bool {
        self.state().writable
    }
}

impl AsFd for Readiness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let descriptor = match &self.0 {
            Source::Stream(shared) => shared.descriptor(),
            Source::Listener(shared) => shared.ready().descriptor(),
            Source::Events(watcher) => watcher.events().descriptor(),
        };
        descriptor.fd().expect("it is opened before a Readiness is made, and stays")
    }
}

impl AsRawFd for Readiness {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

//! Who is at the other end of a connection.

#[cfg(unix)]
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
#[cfg(target_os = "linux")]
use nix::sys::socket::{getsockopt, sockopt};
#[cfg(unix)]
use std::os::fd::{AsFd, OwnedFd};
#[cfg(unix)]
use std::os::unix::net::UnixStream;

/// Who has connected, as the kernel says: nothing of it comes from the client.
#[derive(Debug)]
pub struct Peer {
    /// The process that has connected; `None` where it is in another PID namespace, or the system does not
    /// tell.
    pub process: Option<u32>,
    /// Its user at that time; `None` where the system does not tell.
    pub user: Option<u32>,
    /// The process itself, whose number may be another's by now.
    #[cfg(unix)]
    pidfd: Option<OwnedFd>,
}

#[cfg(unix)]
impl Peer {
    /// Whoever has connected this stream.
    #[cfg(target_os = "linux")]
    pub(crate) fn of(stream: &UnixStream) -> Peer {
        let told = getsockopt(stream, sockopt::PeerCredentials).ok();
        let process = told.and_then(|c| u32::try_from(c.pid()).ok()).filter(|pid| *pid != 0);
        // Linux 6.5.
        let pidfd = getsockopt(stream, sockopt::PeerPidfd).ok();
        Peer { process, user: told.map(|c| c.uid()), pidfd }
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn of(_: &UnixStream) -> Peer {
        Peer { process: None, user: None, pidfd: None }
    }

    /// Whether the process has ended. `false` also where the kernel is too old to say (before Linux 6.5).
    pub fn has_ended(&self) -> bool {
        let Some(pidfd) = &self.pidfd else { return false };
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0)
    }
}

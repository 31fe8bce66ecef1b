//! Who is at the other end of a connection.

#[cfg(all(unix, not(umptcp_portable)))]
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
use nix::sys::socket::{getsockopt, sockopt};
#[cfg(all(unix, not(umptcp_portable)))]
use std::os::fd::{AsFd, OwnedFd};
#[cfg(all(unix, not(umptcp_portable)))]
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
    #[cfg(all(unix, not(umptcp_portable)))]
    pidfd: Option<OwnedFd>,
}

#[cfg(all(unix, not(umptcp_portable)))]
impl Peer {
    /// Whoever has connected this stream.
    #[cfg(all(target_os = "linux", not(umptcp_portable)))]
    pub(crate) fn of(stream: &UnixStream) -> Peer {
        let told = getsockopt(stream, sockopt::PeerCredentials).ok();
        let process = told.and_then(|c| u32::try_from(c.pid()).ok()).filter(|pid| *pid != 0);
        // Linux 6.5.
        let pidfd = getsockopt(stream, sockopt::PeerPidfd).ok();
        Peer { process, user: told.map(|c| c.uid()), pidfd }
    }

    #[cfg(any(not(target_os = "linux"), umptcp_portable))]
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

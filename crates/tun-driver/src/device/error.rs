//! Why a device could not be opened.

use std::io;
use thiserror::Error;

/// Opening a TUN device failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The kernel's TUN driver is missing.
    #[error(
        "no /dev/net/tun: the kernel lacks the TUN driver (try `modprobe tun`), or this container has no access to it"
    )]
    NoTun,
    /// Not permitted to open the control device or to create an interface.
    #[error(
        "no permission to create a TUN device{}: requires CAP_NET_ADMIN and write access to /dev/net/tun (run as root; in a user namespace, which `run` makes by itself, the device's mode must be 0666: `chmod 0666 /dev/net/tun`, or `umptcp setup`)",
        .name.as_ref().map(|n| format!(" named {n}")).unwrap_or_default()
    )]
    Permission {
        /// The requested name, if any.
        name: Option<String>,
    },
    /// Another interface has that name.
    #[error("the interface name {0} is already in use")]
    NameInUse(String),
    /// Not a valid interface name.
    #[error("{0:?} is not a valid interface name: 1 to 15 bytes, without '/', ':' or white space")]
    BadName(String),
    /// Anything else.
    #[error("cannot {what}: {source}")]
    Io {
        /// The operation that failed.
        what: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// Whether an error of a [`Device`](super::Device) says that the device has vanished (interface deleted,
/// driver unloaded).
pub fn is_gone(error: &io::Error) -> bool {
    #[cfg(all(target_os = "linux", not(umptcp_portable)))]
    {
        matches!(error.raw_os_error(), Some(libc::EBADFD | libc::EBADF | libc::ENODEV | libc::ENXIO))
    }
    #[cfg(any(not(target_os = "linux"), umptcp_portable))]
    {
        error.kind() == io::ErrorKind::NotConnected
    }
}

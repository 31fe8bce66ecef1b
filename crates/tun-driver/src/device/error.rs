//! Why a device could not be opened.

use std::io;
use thiserror::Error;

/// Opening a TUN device failed.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// The TUN driver is not there.
    #[error(
        "there is no /dev/net/tun: the kernel lacks the TUN driver (try `modprobe tun`), or this container was given no access to it"
    )]
    NoTun,
    /// Not allowed to open the control device or to make an interface.
    #[error(
        "no permission to make a TUN device{}: it takes CAP_NET_ADMIN and write access to /dev/net/tun (run as root, or in a user namespace)",
        .name.as_ref().map(|n| format!(" named {n}")).unwrap_or_default()
    )]
    Permission {
        /// The name asked for, if any.
        name: Option<String>,
    },
    /// An interface of that name exists and belongs to somebody else.
    #[error("the interface name {0} is taken")]
    NameInUse(String),
    /// Not a name an interface can have.
    #[error("{0:?} cannot be an interface's name: 1 to 15 bytes, without '/' or white space")]
    BadName(String),
    /// Anything else.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

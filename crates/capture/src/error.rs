//! What can go wrong.

use std::io;
use thiserror::Error;
use umptcp_tun_driver::device::DeviceError;
use umptcp_tun_driver::error::DriverError;

/// Why programs cannot be captured, or not be run.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// The kernel refuses a network namespace.
    #[error(
        "cannot create a network namespace: {0}; run as root, or in a container allow it (Docker: \
         --cap-add=SYS_ADMIN --cap-add=NET_ADMIN --device /dev/net/tun)"
    )]
    Namespace(io::Error),
    /// The TUN device could not be made.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Part of the set-up inside failed.
    #[error("cannot set up the captured programs' network: {what}: {source}")]
    SetUp {
        /// Which part.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// `nft` failed, or is missing.
    #[error("cannot set up the captured programs' network: {0}")]
    Nft(#[from] DriverError),
    /// The host's own connections cannot be captured.
    #[error("cannot capture connections of this host: {0}")]
    Host(DriverError),
    /// A process cannot be taken into a cgroup of its own.
    #[error("cannot capture the process: {0}")]
    Process(DriverError),
    /// The command does not exist.
    #[error("{command}: command not found")]
    NotFound {
        /// As it was given.
        command: String,
    },
    /// The command exists and cannot be executed.
    #[error("{command}: cannot execute: {source}")]
    NotExecutable {
        /// As it was given.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// The thread that lives in the namespace has ended.
    #[error("the network namespace is gone")]
    Gone,
}

impl CaptureError {
    /// A part of the set-up that failed.
    pub(crate) fn set_up(what: &'static str) -> impl FnOnce(io::Error) -> CaptureError {
        move |source| CaptureError::SetUp { what, source }
    }
}

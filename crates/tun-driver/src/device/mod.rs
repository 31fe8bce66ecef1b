//! Devices: what packets come in and go out by.
//!
//! [`Device`] is all the event loop knows of one, so that something other than TUN can take its place.

mod error;
mod pool;
#[cfg(target_os = "linux")]
mod tun;
mod virtio;

pub use error::DeviceError;
pub use pool::{BufferPool, PACKET_ROOM};
#[cfg(target_os = "linux")]
pub use tun::{Offload, Tun, TunOptions};

use std::io;
#[cfg(unix)]
use std::os::fd::BorrowedFd;
use umptcp_stack_core::interface::{RxPacket, Transmit};

/// What became of a packet handed to a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransmitOutcome {
    /// The device took it.
    Sent,
    /// The device takes nothing now; the packet is to be offered again once the descriptor is writable.
    Full,
}

/// A device that IP packets come in and go out by. Never blocks.
pub trait Device: Send {
    /// The next packet that came in, in a buffer of `pool`; `None` when there is none now.
    ///
    /// An error for which [`is_gone`] holds means that the device does not exist any more.
    fn receive(&mut self, pool: &mut BufferPool) -> io::Result<Option<RxPacket>>;

    /// Sends a packet. A packet that the device can never take (malformed, too large) is an error, and dropped.
    fn transmit(&mut self, packet: &Transmit) -> io::Result<TransmitOutcome>;

    /// The descriptor to wait on.
    #[cfg(unix)]
    fn fd(&self) -> BorrowedFd<'_>;

    /// Whether it cuts large segments, hands out coalesced ones, and completes TCP checksums.
    fn offload(&self) -> bool;
}

/// Whether an error of a [`Device`] says that the device has vanished (interface deleted, driver unloaded).
pub fn is_gone(error: &io::Error) -> bool {
    #[cfg(target_os = "linux")]
    {
        matches!(error.raw_os_error(), Some(libc::EBADFD | libc::EBADF | libc::ENODEV | libc::ENXIO))
    }
    #[cfg(not(target_os = "linux"))]
    {
        error.kind() == io::ErrorKind::NotConnected
    }
}

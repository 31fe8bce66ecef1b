//! What the event loop needs of a device.

use super::pool::BufferPool;
#[cfg(any(not(target_os = "linux"), umptcp_portable))]
use super::sources::Sources;
use std::io;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
use std::os::fd::BorrowedFd;
use umptcp_stack_core::device::{RxPacket, Transmit};

/// Result of handing a packet to a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransmitOutcome {
    /// The device accepted it.
    Sent,
    /// The device is full; offer the packet again once the descriptor is writable.
    Full,
}

/// The state of the queue of the NIC behind a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QueueState {
    /// Bytes that have left the queue since the NIC has it, with link headers.
    pub sent: u64,
    /// Bytes in it.
    pub waiting: u64,
}

/// A device that IP packets are received from and sent to. Never blocks.
pub trait Device: Send {
    /// The next received packet, in a buffer of `pool`; `None` if there is none at the moment.
    ///
    /// An error for which [`is_gone`](super::is_gone) holds means that the device no longer exists.
    fn receive(&mut self, pool: &mut BufferPool) -> io::Result<Option<RxPacket>>;

    /// Sends a packet. A packet that the device can never accept (malformed, too large) is dropped, and an
    /// error returned.
    fn transmit(&mut self, packet: &Transmit) -> io::Result<TransmitOutcome>;

    /// Waits for room from now on, after [`transmit`](Self::transmit) has found none, or does so no longer.
    /// True: the descriptor is readable as long as there may be room, whatever is [received](Self::receive).
    /// False, as by default: it is writable then.
    fn signals_room(&mut self, _wanted: bool) -> bool {
        false
    }

    /// The descriptor to wait on.
    #[cfg(all(target_os = "linux", not(umptcp_portable)))]
    fn fd(&self) -> BorrowedFd<'_>;

    /// From now on an event loop waits for the device's sockets, which it [adds](Sources::add) to these, also those
    /// that it makes later. `None`: no longer.
    #[cfg(any(not(target_os = "linux"), umptcp_portable))]
    fn watch(&mut self, sources: Option<Sources>) -> io::Result<()>;

    /// The socket with this token can be read. It is told of once, so the device reads until there is nothing left
    /// ([`receive`](Self::receive) returns `None`).
    #[cfg(any(not(target_os = "linux"), umptcp_portable))]
    fn is_readable(&mut self, token: usize);

    /// Whether [`receive`](Self::receive) has something that nothing the device waits for tells of: an answer to what
    /// was sent, or what was not read to the end.
    fn has_more(&self) -> bool {
        false
    }

    /// What waits in the queue of the NIC behind it. `None` if there is none, or nobody knows.
    fn nic_queue(&mut self) -> Option<QueueState> {
        None
    }

    /// Whether it splits large segments, delivers coalesced ones, and fills in TCP checksums.
    fn offload(&self) -> bool;
}

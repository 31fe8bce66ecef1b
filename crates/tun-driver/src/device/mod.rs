//! Devices that packets are received from and sent to.
//!
//! The event loop knows devices only as [`Device`], so that something other than a TUN device can take its
//! place.

mod error;
#[cfg(target_os = "linux")]
mod nic_queue;
mod pool;
mod traits;
#[cfg(target_os = "linux")]
mod tun;
mod virtio;

pub use error::{DeviceError, is_gone};
pub use pool::{BufferPool, PACKET_ROOM};
pub use traits::{Device, QueueState, TransmitOutcome};
#[cfg(target_os = "linux")]
pub use tun::{Offload, Tun, TunOptions};

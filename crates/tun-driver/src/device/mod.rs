//! Devices that packets are received from and sent to.
//!
//! The event loop knows devices only as [`Device`], so that something other than a TUN device can take its
//! place.

mod error;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod nic_queue;
mod offload;
mod pool;
#[cfg(any(not(target_os = "linux"), umptcp_portable))]
mod sources;
mod traits;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod tun;
mod virtio;

pub use error::{DeviceError, is_gone};
pub use offload::Offload;
pub use pool::{BufferPool, PACKET_ROOM};
#[cfg(any(not(target_os = "linux"), umptcp_portable))]
pub use sources::Sources;
pub use traits::{Device, QueueState, TransmitOutcome};
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
pub use tun::{Tun, TunOptions};

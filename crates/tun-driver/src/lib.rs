//! The part of umptcp that depends on the operating system: TUN devices, the paths set up on them, and the
//! loop that runs a stack.
//!
//! | module | contents |
//! |---|---|
//! | [`device`] | TUN devices and the memory packets are received into |
//! | [`paths`] | a TUN device bound to each NIC: addresses, routes, translation, forwarding |
//! | [`error`] | why a path could not be set up, and the remedy |
//! | [`event_loop`] | one thread that owns a stack and its devices |
//! | [`clock`] | the monotonic clock that drives it |
//! | [`lock`] | files that instances lock in turn |
//! | `portable` | in place of `paths` in the portable build: no TUN device, and an address stands for a NIC |
//! | [`pcap`] | packet traces, one interface per path |
//!
//! This is the only crate of the workspace with unsafe code; each unsafe block says why it is sound.

pub mod clock;
mod described;
pub mod device;
pub mod error;
pub mod event_loop;
pub mod lock;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
pub mod paths;
pub mod pcap;
#[cfg(any(not(target_os = "linux"), umptcp_portable))]
pub mod portable;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
pub mod privilege;

#[cfg(any(not(target_os = "linux"), umptcp_portable))]
pub use portable as paths;

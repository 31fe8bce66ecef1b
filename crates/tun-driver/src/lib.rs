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
//! | [`pcap`] | packet traces, one interface per path |
//!
//! This is the only crate of the workspace with unsafe code; each unsafe block says why it is sound.

pub mod clock;
pub mod device;
#[cfg(target_os = "linux")]
pub mod error;
#[cfg(target_os = "linux")]
pub mod event_loop;
#[cfg(target_os = "linux")]
pub mod lock;
#[cfg(target_os = "linux")]
pub mod paths;
pub mod pcap;
#[cfg(target_os = "linux")]
pub mod privilege;

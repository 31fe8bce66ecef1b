//! What ties umptcp to an operating system: TUN devices, the paths set up on them, and the loop that runs a stack.
//!
//! | module | what is in it |
//! |---|---|
//! | [`device`] | TUN devices and the memory packets are received into |
//! | [`paths`] | a TUN device bound to each NIC: addresses, routes, translation, forwarding |
//! | [`error`] | why paths could not be set up, and what to do |
//! | [`event_loop`] | one thread that owns a stack and its devices |
//! | [`clock`] | the monotonic clock that drives it |
//! | [`pcap`] | packets written down, one interface per path |
//!
//! It is the only crate of the workspace that holds unsafe code, each piece of which says why it is sound.

pub mod clock;
pub mod device;
#[cfg(target_os = "linux")]
pub mod error;
#[cfg(target_os = "linux")]
pub mod event_loop;
#[cfg(target_os = "linux")]
pub mod paths;
pub mod pcap;

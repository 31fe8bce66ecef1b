//! Paths inside UDP, which need sockets and nothing else: no TUN device, no translation, no privilege.
//!
//! | module | contents |
//! |---|---|
//! | [`codec`] | a TCP segment as a UDP datagram, and back; without a system call |
//! | [`device`] | the sockets of one path, as a device of the event loop |
//! | [`path`] | a path over a NIC: its description for the stack, and what becomes of the NIC |
//!
//! Captured programs also send what is not TCP: UDP and echo requests go by sockets of their own
//! ([`path::set_up`]).
//!
//! A path has one socket for each local port of its subflows, bound to the NIC and to the NIC's address. The
//! kernel chooses the route, and fills in and verifies UDP's checksum, which covers what TCP's would.
#![forbid(unsafe_code)]

#[cfg(target_os = "linux")]
mod carried;
pub mod codec;
#[cfg(target_os = "linux")]
mod credit;
#[cfg(target_os = "linux")]
pub mod device;
#[cfg(target_os = "linux")]
mod errors;
#[cfg(target_os = "linux")]
mod fragments;
#[cfg(target_os = "linux")]
mod packet;
#[cfg(target_os = "linux")]
pub mod path;
#[cfg(target_os = "linux")]
mod sockets;
#[cfg(target_os = "linux")]
mod trains;

#[cfg(target_os = "linux")]
pub use carried::may_send_echoes;

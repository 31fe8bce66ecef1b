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
//! In the portable build `device` makes do with what every system has: a datagram a call, no ICMP, and an address in
//! place of a NIC.
//!
//! A path has one socket for each local port of its subflows, bound to the NIC and to the NIC's address. The
//! kernel chooses the route, and fills in and verifies UDP's checksum, which covers what TCP's would.
#![forbid(unsafe_code)]

#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod carried;
pub mod codec;
mod credit;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
pub mod device;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod errors;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod fragments;
mod packet;
pub mod path;
#[cfg(any(not(target_os = "linux"), umptcp_portable))]
mod portable;
mod sockets;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod trains;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod watched;

#[cfg(all(target_os = "linux", not(umptcp_portable)))]
pub use carried::may_send_echoes;
#[cfg(any(not(target_os = "linux"), umptcp_portable))]
pub use portable::device;

//! Paths inside UDP, which need sockets and nothing else: no TUN device, no translation, no privilege.
//!
//! | module | contents |
//! |---|---|
//! | [`codec`] | a TCP segment as a UDP datagram, and back |
#![forbid(unsafe_code)]

pub mod codec;

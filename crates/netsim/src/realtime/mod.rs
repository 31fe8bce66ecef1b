//! Links in real time, between packet queues that the caller brings.
//!
//! [`Emulation`] is a network without clock or thread: cables between ports, and a routing table. It
//! implements [`NetworkStack`](umptcp_stack_core::network_stack::NetworkStack), so an event loop that drives
//! a stack on its devices drives an emulated network as well: this is how TUN devices of several network
//! namespaces are joined. [`Emulator`] runs one without an event loop, in threads: one per port to read, and
//! one for the links. Nothing here knows an operating system; a port is anything that implements
//! [`PortReader`] and [`PortWriter`].
//!
//! A segment of 64 kB comes in whole, is cut into packets of the MTU that share its payload, and packets that
//! are due together leave as one segment again.

mod emulation;
mod threads;

pub use emulation::{Emulation, PortId};
pub use threads::{Emulator, EmulatorStats, PortReader, PortWriter};

#[cfg(test)]
mod tests;

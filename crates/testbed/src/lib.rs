//! Networks of namespaces, and what end-to-end tests and benchmarks do on them.
//!
//! [`Netns`] is a network namespace. [`topology`] builds networks from several of them, [`emulated_link`] one
//! with a link emulated by netsim. [`kernel`] has the kernel's MPTCP sockets and counters, [`exchange`]
//! verified transfers of random data, and [`capture`] reads packets with tshark.
//!
//! Namespaces have no name: they live as long as somebody holds them open, so nothing is left behind on the
//! host even if a process is killed. Creating them requires root or a user namespace; `cargo xtask test` sets
//! one up where it can.

pub mod capture;
pub mod command;
pub mod emulated_link;
pub mod endpoint;
pub mod exchange;
pub mod host;
pub mod inject;
pub mod kernel;
pub mod limit;
pub mod netns;
pub mod path_manager;
pub mod program;
pub mod topology;
pub mod traffic;

pub use netns::Netns;

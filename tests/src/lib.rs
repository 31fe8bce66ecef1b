//! End-to-end tests of umptcp: real packets between network namespaces, with the Linux kernel's MPTCP as the peer.
//!
//! This library is the laboratory: [`Netns`] is a namespace, [`topology`] the networks that tests are made on, [`emulation`] one with a link of netsim's, [`kernel`]
//! the kernel's MPTCP sockets and counters, [`exchange`] the transfer of seeded random bytes with its proof, [`capture`]
//! what tshark makes of the packets. The tests themselves are in `tests/`.
//!
//! Namespaces have no name: they live as long as somebody holds them open, so that nothing stays behind on the host,
//! not even when a test is killed. Making them needs root, or a user namespace in which the tests run (which
//! `cargo xtask test` makes where it may).

pub mod capture;
pub mod command;
pub mod emulation;
pub mod endpoint;
pub mod exchange;
pub mod host;
pub mod inject;
pub mod kernel;
pub mod netns;
pub mod path_manager;
pub mod program;
pub mod topology;

pub use netns::Netns;

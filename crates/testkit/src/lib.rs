//! What tests of several crates share.
//!
//! - [`script`]: a stack and a peer played by hand, segment by segment; [`segment`]: how a peer's packets are
//!   built, and the stack's taken apart.
//! - [`tcp_in_udp`]: a decoder of TCP in UDP that shares nothing with the driver's.
//! - What the fuzz targets do, as functions of the bytes a fuzzer chose; and, with the feature `simulation`,
//!   what netsim's property tests and matrix of middleboxes do, as functions of what a test chose. Both can
//!   be recorded in a [`digest`].
//!
//! `fuzz/` wraps each of them for libFuzzer, which needs a nightly compiler; [`driver`] runs them on any,
//! over the committed inputs and random mutations of them. A function returns when all is well and panics
//! when not.
//!
//! | function | what the bytes are |
//! |---|---|
//! | [`options`](options::options) | the options of a TCP header |
//! | [`packet`](packet::packet) | an IP packet |
//! | [`convert`](convert::convert) | the start of a stream of Convert |
//! | [`connection`](connection::connection) | packets into a live connection, from a peer that knows its keys |
//! | [`operations`](operations::operations) | what applications and the network do to a stack with a hostile peer |
#![forbid(unsafe_code)]

#[cfg(feature = "simulation")]
pub mod by_example;
pub mod connection;
pub mod convert;
pub mod digest;
pub mod driver;
pub mod input;
pub mod operations;
pub mod options;
pub mod packet;
mod peer;
pub mod script;
pub mod segment;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod tcp_in_udp;
mod world;

/// A target: its name, which is that of its directory of seeds, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 5] = [
    ("options", options::options),
    ("packet", packet::packet),
    ("convert", convert::convert),
    ("connection", connection::connection),
    ("operations", operations::operations),
];

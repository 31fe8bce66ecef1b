//! Multipath TCP (RFC 8684, version 1) without input, output or clock.
//!
//! [`Stack`] holds many connections. Its caller feeds it packets and time and takes packets and events from
//! it. The same inputs give the same packets, bit for bit: time enters as `now`, randomness as a seed.
//!
//! | module | what is in it |
//! |---|---|
//! | [`wire`] | codecs: IPv4, IPv6, ICMP, TCP and its options, MPTCP options |
//! | [`buffers`] | payload slices, reassembly, joining small pieces |
//! | `tcp` | one subflow: states, queues, RTT, loss recovery, timers |
//! | `context` | what all connections share: paths, four-tuples, tokens, budgets, randomness, observation |
//! | `mptcp` | one connection: handshake, mappings, reassembly, retransmission, fallback, close |
//! | [`stack`] | many connections: demultiplexing, listeners, timers, the poll interface |
//! | [`device`] | what passes between a stack and the device that carries its packets |
//! | [`config`], [`error`], [`event`], [`info`], [`monitor`], [`observe`] | what passes between a stack and the program that drives it |
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod buffers;
pub mod config;
pub(crate) mod context;
pub mod device;
pub mod error;
pub mod event;
pub mod info;
pub mod monitor;
pub(crate) mod mptcp;
pub mod network_stack;
pub mod observe;
pub mod stack;
pub(crate) mod tcp;
pub mod wire;

pub use buffers::payload;
pub use stack::Stack;
pub use umptcp_congestion as congestion;
pub use umptcp_path_manager as path_manager;
pub use umptcp_scheduler as scheduler;
pub use umptcp_types as types;

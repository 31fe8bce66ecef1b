//! A deterministic network simulator that runs the real umptcp stack.
//!
//! Links with rate, delay, queue, loss, reordering and duplication ([`Link`], [`LinkQueue`]), cables made of
//! two of them with middleboxes on them ([`Cable`], [`Middlebox`]), and two ways to run them:
//!
//! - [`Network`], and [`Pair`] for the common case: hosts with a real `Stack` each under a virtual clock.
//!   Nothing reads a real clock, and all randomness derives from one seed: the same seed gives the same
//!   packets, bit for bit.
//! - [`realtime`]: the same links between packet queues under a real clock, for demonstrations and tests with
//!   real devices.
//!
//! Packets on links are never larger than the MTU: segments (GSO) are cut before any queue sees them, so that
//! a queue of 25 packets means 25 packets.
//!
//! # Example
//!
//! ```
//! use umptcp_netsim::{Duration, Instant, Link, Pair, Side};
//!
//! let mut net = Pair::builder()
//!     .path(Link::mbit(50).delay_ms(10))
//!     .path(Link::mbit(50).delay_ms(20))
//!     .seed(7)
//!     .build();
//! let flow = net.connect().unwrap();
//! net.cut_path_at(Instant::from_millis(2_000), 1);
//! net.transfer(flow, Side::Client, 20_000_000).unwrap(); // every byte is compared on receipt
//! assert!(net.path_payload(Side::Client, 0) > net.path_payload(Side::Client, 1));
//! net.close(flow).unwrap();
//! ```
#![forbid(unsafe_code)]

pub mod application;
pub mod aqm;
mod cable;
pub mod capture;
mod direction;
mod drop_reason;
mod error;
mod gro;
mod id;
mod link;
mod link_queue;
pub mod middlebox;
pub mod network;
pub mod packet;
mod pair;
pub mod random;
pub mod rate_trace;
pub mod realtime;
pub mod stream;
#[cfg(test)]
mod testing;
pub mod trace;

pub use aqm::{Aqm, CoDel, Red};
pub use cable::Cable;
pub use direction::Direction;
pub use drop_reason::DropReason;
pub use error::SimError;
pub use id::{CableId, FlowId, NodeId, Side};
pub use link::{Link, Loss, Queue, Reorder};
pub use link_queue::{LinkQueue, LinkStats};
pub use middlebox::Middlebox;
pub use network::{FlowSpec, Limits, Network, Probe};
pub use packet::Packet;
pub use pair::{Pair, PairBuilder};
pub use rate_trace::RateTrace;
pub use umptcp_types::{Duration, Instant};

//! The few types that every umptcp crate shares.
//!
//! Nothing here knows a packet or a connection. The crate is `no_std`.
#![no_std]
#![forbid(unsafe_code)]

mod id;
mod instant;
mod seq;

pub use id::{AddressId, ConnectionId, ListenerId, PathId, SubflowId};
pub use instant::Instant;
pub use seq::{DataOffset, DataSeq, SeqNumber, SubflowOffset};

pub use core::time::Duration;

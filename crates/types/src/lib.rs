//! Types that every umptcp crate shares: ids, instants, sequence numbers, and the [`Registry`] of named
//! plug-ins.
//!
//! Nothing here depends on packets or connections. The crate is `no_std` and needs `alloc`.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod id;
mod instant;
mod registry;
mod seq;
pub mod units;

pub use id::{AddressId, ConnectionId, ListenerId, PathId, SubflowId};
pub use instant::Instant;
pub use registry::{Factory, Registry};
pub use seq::{DataOffset, DataSeq, SeqNumber, SubflowOffset};

pub use core::time::Duration;

//! How tools ask and steer a running umptcp: newline-delimited JSON over a Unix stream socket.
//!
//! A [`Client`] speaks to an instance that [`find`] has found, and a [`Server`] lets an [`Instance`] be
//! spoken to. The types of [`message`], [`call`] and [`state`] are the protocol; the book's page on the
//! control socket describes it for programs in other languages. This crate knows nothing of the stack.
//!
//! ```no_run
//! # #[cfg(all(unix, not(umptcp_portable)))]
//! # fn main() -> Result<(), umptcp_control::ControlError> {
//! let address = umptcp_control::directory::choose(None)?;
//! let mut client = umptcp_control::Client::connect(&address.socket)?;
//! for connection in client.call(&umptcp_control::call::ListConnections {})?.connections {
//!     println!("{} to {}: {} subflows", connection.local, connection.remote, connection.subflows.len());
//! }
//! # Ok(())
//! # }
//! # #[cfg(any(not(unix), umptcp_portable))]
//! # fn main() {}
//! ```
//!
//! [`find`]: directory::find
#![forbid(unsafe_code)]
#![cfg_attr(any(not(unix), umptcp_portable), allow(dead_code, reason = "clients and servers read more"))]

pub mod call;
#[cfg(all(unix, not(umptcp_portable)))]
mod client;
#[cfg(all(unix, not(umptcp_portable)))]
pub mod directory;
mod error;
pub mod instance;
mod lines;
#[cfg(all(unix, not(umptcp_portable)))]
mod lock;
pub mod message;
mod peer;
#[cfg(all(unix, not(umptcp_portable)))]
mod server;
#[cfg(all(unix, not(umptcp_portable)))]
mod socket;
pub mod state;

#[cfg(all(unix, not(umptcp_portable)))]
pub use client::{Client, Subscription};
pub use error::ControlError;
pub use instance::{Events, Instance, Next};
pub use message::{Code, Failure, Greeting, Kind};
pub use peer::Peer;
#[cfg(all(unix, not(umptcp_portable)))]
pub use server::{Server, ServerOptions};

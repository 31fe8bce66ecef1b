//! How tools ask and steer a running umptcp: newline-delimited JSON over a Unix stream socket.
//!
//! A [`Client`] speaks to an instance that [`find`] has found, and a [`Server`] lets an [`Instance`] be
//! spoken to. The types of [`message`], [`call`] and [`state`] are the protocol; the book's page on the
//! control socket describes it for programs in other languages. This crate knows nothing of the stack.
//!
//! ```no_run
//! # #[cfg(unix)]
//! # fn main() -> Result<(), umptcp_control::ControlError> {
//! let address = umptcp_control::directory::choose(None)?;
//! let mut client = umptcp_control::Client::connect(&address.socket)?;
//! for connection in client.call(&umptcp_control::call::ListConnections {})?.connections {
//!     println!("{} to {}: {} subflows", connection.local, connection.remote, connection.subflows.len());
//! }
//! # Ok(())
//! # }
//! # #[cfg(not(unix))]
//! # fn main() {}
//! ```
//!
//! [`find`]: directory::find
#![forbid(unsafe_code)]

pub mod call;
#[cfg(unix)]
mod client;
#[cfg(unix)]
pub mod directory;
mod error;
pub mod instance;
mod lines;
#[cfg(unix)]
mod lock;
pub mod message;
mod peer;
#[cfg(unix)]
mod server;
#[cfg(unix)]
mod socket;
pub mod state;

#[cfg(unix)]
pub use client::{Client, Subscription};
pub use error::ControlError;
pub use instance::{Events, Instance, Next};
pub use message::{Code, Failure, Greeting, Kind};
pub use peer::Peer;
#[cfg(unix)]
pub use server::{Server, ServerOptions};

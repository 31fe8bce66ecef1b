//! What the two ends of a relay agree on: a relay is a converter (RFC 8803) that serves those who have a key.
//!
//! This crate opens no connection and reads no clock. The client's end is in `umptcp`, the relay's in
//! `umptcp-cli`.
//!
//! | module | contents |
//! |---|---|
//! | [`key`] | keys, clients' names, and the files that have them |
//! | [`cookie`] | the Cookie TLV, by which a client shows that it has a key |
//! | [`request`] | what a client asks, and how it reads the answer |
//! | [`gate`] | who is let in: keys, times, and requests that have been seen |
//! | [`publish`] | which ports of the relay lead to which client |
//! | [`destinations`] | where connections may go |
//! | [`allowance`] | what each client may use |
#![forbid(unsafe_code)]

pub mod allowance;
pub mod cookie;
pub mod destinations;
pub mod gate;
pub mod key;
pub mod publish;
pub mod request;

pub use allowance::{Allowance, Exceeded, Limits, Share, Usage, Used};
pub use cookie::{Challenge, Cookie};
pub use destinations::{Destinations, Forbidden};
pub use gate::{Admitted, Gate, Refusal};
#[cfg(unix)]
pub use key::is_open_to_all;
pub use key::{ClientName, Credential, Key, KeyFileError};
pub use publish::MayPublish;
pub use request::{AnswerError, AnswerReader, Request};

/// The port of a relay where no other is given.
pub const PORT: u16 = 8803;

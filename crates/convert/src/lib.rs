//! The messages of the 0-RTT TCP Convert Protocol (RFC 8803), with which a client asks a converter for a
//! connection to a server that need not speak MPTCP.
//!
//! A message is what a byte stream begins with, in either direction: four bytes, and TLVs. This crate writes
//! and reads them; it opens no connection and keeps nothing.
//!
//! | module | contents |
//! |---|---|
//! | [`message`] | a whole message, and how it is found at the start of a stream |
//! | [`tlv`] | the TLVs |
//! | [`error`] | what the Error TLV says, and what is wrong with a message |
#![forbid(unsafe_code)]

pub mod error;
pub mod message;
pub mod tlv;

pub use error::{ConvertError, DecodeError, EncodeError};
pub use message::Message;
pub use tlv::{Connect, ConnectName, TcpOption, Tlv};

//! Codecs: IPv4, IPv6, ICMP errors, TCP with its options, and the options of RFC 8684.
//!
//! Nothing here knows about connections. Each format has up to two forms:
//!
//! - a *view* ([`header::IpView`], [`tcp::TcpPacket`], [`tcp::RawOptions`], [`mptcp::MptcpPacket`]) over any
//!   bytes, which finds fields and validates nothing; [`header`] edits them in place;
//! - a *repr* ([`tcp::TcpRepr`], [`tcp::TcpOptions`], [`mptcp::MptcpOption`], …), which holds legal values
//!   only and is parsed from bytes or emitted as bytes.
//!
//! Parsing never panics, whatever the bytes, and allocates only for option lists that no ordinary sender
//! emits (more than two MPTCP options in one segment, more than eight addresses removed at once).

pub mod checksum;
mod cursor;
pub mod header;
pub mod icmp;
pub mod ip;
pub mod mptcp;
mod summary;
pub mod tcp;

#[cfg(test)]
mod properties;

pub use summary::PacketSummary;

use thiserror::Error;

/// Why bytes could not be parsed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum WireError {
    /// The bytes end before the format does.
    #[error("the packet is truncated")]
    Truncated,
    /// A length field contradicts the format or its surroundings.
    #[error("a length field is wrong")]
    BadLength,
    /// Neither IPv4 nor IPv6.
    #[error("the IP version is neither 4 nor 6")]
    BadVersion,
    /// A checksum does not match.
    #[error("a checksum is wrong")]
    BadChecksum,
    /// A well-formed packet of another protocol.
    #[error("the packet is not TCP, nor an error about TCP")]
    NotTcp,
    /// A field has a value that the format does not allow.
    #[error("the packet is malformed")]
    Malformed,
}

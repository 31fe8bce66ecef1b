//! Errors: those that peers tell one another, and those of messages.

use thiserror::Error;

/// What an Error TLV says (RFC 8803 §6.2.8).
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// 0: the peer does not speak this version, but these. Zeros are padding.
    #[error("unsupported version; it speaks {supported:?}")]
    UnsupportedVersion {
        /// The versions that it speaks.
        supported: Vec<u8>,
    },
    /// 1: a message could not be parsed, or has an address that it must not have.
    #[error("malformed message")]
    MalformedMessage {
        /// The message, as far as it fits; padded with zeros to 32 bits.
        echo: Vec<u8>,
    },
    /// 2: a message has a TLV of a type that is not supported.
    #[error("unsupported message")]
    UnsupportedMessage {
        /// The message, as far as it fits; padded with zeros to 32 bits.
        echo: Vec<u8>,
    },
    /// 3: a Cookie TLV is wanted, and this is one for the client.
    #[error("a cookie of its own is missing")]
    MissingCookie {
        /// The cookie; padded with zeros to 32 bits.
        cookie: Vec<u8>,
    },
    /// 32: the client may not do that, or its cookie is not valid.
    #[error("not authorized")]
    NotAuthorized,
    /// 33: options of TCP that cannot be used safely. Zeros are padding.
    #[error("unsupported options of TCP: {kinds:?}")]
    UnsupportedTcpOption {
        /// Their kinds.
        kinds: Vec<u8>,
    },
    /// 64: the converter lacks the resources.
    #[error("its resources are exceeded")]
    ResourceExceeded {
        /// Seconds to wait before the next request; 0: 30 at least.
        delay: u8,
    },
    /// 65: the converter's network fails.
    #[error("its network fails, or the server does not answer")]
    NetworkFailure {
        /// Seconds to wait before the next request; 0: 30 at least.
        delay: u8,
    },
    /// 96: the server answered with RST.
    #[error("the server has reset the connection")]
    ConnectionReset,
    /// 97: an ICMP message said that the server cannot be reached.
    #[error("the server cannot be reached (ICMP code {code})")]
    DestinationUnreachable {
        /// The ICMP message's code.
        code: u8,
    },
    /// 192, in the range for private use: the converter finds no address of the name.
    #[error("the name has no address there")]
    NoSuchName,
    /// A code that RFC 8803 does not define.
    #[error("error {code}")]
    Other {
        /// The code.
        code: u8,
        /// What follows it.
        value: Vec<u8>,
    },
}

/// Largest echo of a message, in bytes, with which the message that has it keeps its bounds.
const LONGEST_ECHO: usize = 1012;

impl ConvertError {
    /// "Malformed Message" about what was received.
    pub fn malformed(received: &[u8]) -> ConvertError {
        ConvertError::MalformedMessage { echo: received[..received.len().min(LONGEST_ECHO)].to_vec() }
    }

    /// "Unsupported Message" about what was received.
    pub fn unsupported(received: &[u8]) -> ConvertError {
        ConvertError::UnsupportedMessage { echo: received[..received.len().min(LONGEST_ECHO)].to_vec() }
    }

    /// The error code.
    pub fn code(&self) -> u8 {
        match self {
            ConvertError::UnsupportedVersion { .. } => 0,
            ConvertError::MalformedMessage { .. } => 1,
            ConvertError::UnsupportedMessage { .. } => 2,
            ConvertError::MissingCookie { .. } => 3,
            ConvertError::NotAuthorized => 32,
            ConvertError::UnsupportedTcpOption { .. } => 33,
            ConvertError::ResourceExceeded { .. } => 64,
            ConvertError::NetworkFailure { .. } => 65,
            ConvertError::ConnectionReset => 96,
            ConvertError::DestinationUnreachable { .. } => 97,
            ConvertError::NoSuchName => 192,
            ConvertError::Other { code, .. } => *code,
        }
    }

    /// What follows the code, without padding.
    pub(crate) fn value(&self) -> Vec<u8> {
        match self {
            ConvertError::UnsupportedVersion { supported } => supported.clone(),
            // A byte of zeros keeps what is echoed, and the cookie, on a boundary of 32 bits.
            ConvertError::MalformedMessage { echo: aligned }
            | ConvertError::UnsupportedMessage { echo: aligned }
            | ConvertError::MissingCookie { cookie: aligned } => [&[0], &aligned[..]].concat(),
            ConvertError::NotAuthorized | ConvertError::ConnectionReset | ConvertError::NoSuchName => vec![0],
            ConvertError::UnsupportedTcpOption { kinds } => kinds.clone(),
            ConvertError::ResourceExceeded { delay } | ConvertError::NetworkFailure { delay } => vec![*delay],
            ConvertError::DestinationUnreachable { code } => vec![*code],
            ConvertError::Other { value, .. } => value.clone(),
        }
    }

    /// Reads code and value; there is one byte of value at least.
    pub(crate) fn read(code: u8, value: &[u8]) -> ConvertError {
        let first = value.first().copied().unwrap_or(0);
        let aligned = || value.get(1..).unwrap_or_default().to_vec();
        let list = || value.iter().copied().filter(|byte| *byte != 0).collect();
        match code {
            0 => ConvertError::UnsupportedVersion { supported: list() },
            1 => ConvertError::MalformedMessage { echo: aligned() },
            2 => ConvertError::UnsupportedMessage { echo: aligned() },
            3 => ConvertError::MissingCookie { cookie: aligned() },
            32 => ConvertError::NotAuthorized,
            33 => ConvertError::UnsupportedTcpOption { kinds: list() },
            64 => ConvertError::ResourceExceeded { delay: first },
            65 => ConvertError::NetworkFailure { delay: first },
            96 => ConvertError::ConnectionReset,
            97 => ConvertError::DestinationUnreachable { code: first },
            192 => ConvertError::NoSuchName,
            _ => ConvertError::Other { code, value: value.to_vec() },
        }
    }
}

/// Why a message cannot be read, and what RFC 8803 has a receiver do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum DecodeError {
    /// The stream does not begin with a message of Convert (§6.1): the magic number is another. To be ignored
    /// or reset.
    #[error("the magic number is not that of Convert")]
    NotConvert,
    /// The total length is zero (§6.1): the connection is to be reset.
    #[error("the total length is zero")]
    ZeroLength,
    /// Another version than 1. A converter answers "Unsupported Version".
    #[error("version {0} of Convert is not supported")]
    UnsupportedVersion(u8),
    /// A TLV of this type is not defined. A converter answers "Unsupported Message".
    #[error("TLV type {0} is not supported")]
    UnsupportedTlv(u8),
    /// A TLV that there may be once is there twice (§6.2.1). A client resets; a converter answers "Malformed
    /// Message".
    #[error("TLV type {0} is there twice")]
    Twice(u8),
    /// Something else is wrong. A converter answers "Malformed Message".
    #[error("malformed: {0}")]
    Malformed(&'static str),
}

/// Why a message cannot be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum EncodeError {
    /// It would be longer than 1,020 bytes (§6.1), or has a part too long for its TLV.
    #[error("a Convert message has at most 1,020 bytes")]
    TooLong,
    /// The address of a Connect TLV is multicast, broadcast, loopback (§6.2.5) or unspecified.
    #[error("a Connect TLV cannot have a multicast, broadcast, loopback or unspecified address")]
    Address,
    /// An option of TCP that has no length, or is too long (§6.2.5).
    #[error("an option of TCP in a Connect TLV must have a kind above 1 and at most 253 bytes of value")]
    Option,
    /// The name of a ConnectName TLV is none of a host.
    #[error("the name of a host has 1 to 253 letters, digits, and characters of \"-._\"")]
    Name,
    /// The same TLV twice (§6.2.1).
    #[error("a TLV can be in a message once")]
    Twice,
}

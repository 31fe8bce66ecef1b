//! Whole messages.

use crate::error::{DecodeError, EncodeError};
use crate::tlv::Tlv;
use std::net::SocketAddr;

/// The version that this crate speaks.
pub const VERSION: u8 = 1;

/// What tells a message from other data.
pub const MAGIC: u16 = 0x2263;

/// Length of the fixed header, in bytes.
pub const HEADER: usize = 4;

/// Longest message, in bytes.
pub const LONGEST: usize = 255 * 4;

/// A message: the TLVs that a stream begins with (RFC 8803 §6.1).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Message {
    /// Its TLVs, each type once at most.
    pub tlvs: Vec<Tlv>,
}

impl Message {
    /// A message of these.
    pub fn new(tlvs: impl Into<Vec<Tlv>>) -> Message {
        Message { tlvs: tlvs.into() }
    }

    /// Whether it has a Cookie TLV.
    pub fn has_cookie(&self) -> bool {
        self.tlvs.iter().any(|tlv| matches!(tlv, Tlv::Cookie(_)))
    }

    /// The address in its Connect TLV, if it has one.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.tlvs.iter().find_map(|tlv| match tlv {
            Tlv::Connect(connect) => Some(connect.peer),
            _ => None,
        })
    }

    /// The message's bytes; data of the application follow them.
    ///
    /// # Errors
    /// When a TLV cannot be written, is there twice, or all are too long together.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let [high, low] = MAGIC.to_be_bytes();
        let mut bytes = vec![VERSION, 0, high, low];
        for (i, tlv) in self.tlvs.iter().enumerate() {
            if self.tlvs[..i].iter().any(|other| other.type_number() == tlv.type_number()) {
                return Err(EncodeError::Twice);
            }
            tlv.write(&mut bytes)?;
        }
        bytes[1] = u8::try_from(bytes.len() / 4).map_err(|_| EncodeError::TooLong)?;
        Ok(bytes)
    }

    /// Reads the message that `stream` begins with, and says how many bytes it has. `Ok(None)`: it may be the
    /// start of one, and more bytes are needed.
    ///
    /// # Errors
    /// What is wrong, as soon as that can be seen.
    pub fn decode(stream: &[u8]) -> Result<Option<(Message, usize)>, DecodeError> {
        let magic = MAGIC.to_be_bytes();
        let seen = &stream[stream.len().min(2)..stream.len().min(HEADER)];
        if seen != &magic[..seen.len()] {
            return Err(DecodeError::NotConvert);
        }
        let &[version, words, ..] = stream else { return Ok(None) };
        if stream.len() < HEADER {
            return Ok(None);
        }
        if version != VERSION {
            return Err(DecodeError::UnsupportedVersion(version));
        }
        if words == 0 {
            return Err(DecodeError::ZeroLength);
        }
        let length = usize::from(words) * 4;
        let Some(mut rest) = stream.get(HEADER..length) else { return Ok(None) };
        let (mut message, mut seen) = (Message::default(), [false; 256]);
        while let Some(&[number, words, ..]) = rest.first_chunk::<4>() {
            let length = usize::from(words) * 4;
            if length == 0 || length > rest.len() {
                return Err(DecodeError::Malformed("the length of a TLV"));
            }
            let (tlv, after) = rest.split_at(length);
            let tlv = Tlv::read(number, &tlv[2..])?;
            if std::mem::replace(&mut seen[usize::from(number)], true) {
                return Err(DecodeError::Twice(number));
            }
            message.tlvs.push(tlv);
            rest = after;
        }
        Ok(Some((message, length)))
    }
}

//! The TLVs of RFC 8803 §6.2.

use crate::error::{ConvertError, DecodeError, EncodeError};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

const INFO: u8 = 0x01;
const CONNECT: u8 = 0x0a;
const EXTENDED_TCP_HEADER: u8 = 0x14;
const SUPPORTED_TCP_EXTENSIONS: u8 = 0x15;
const COOKIE: u8 = 0x16;
const ERROR: u8 = 0x1e;
// RFC 8803 §9.2.2: 192 to 255 are for private use.
const CONNECT_NAME: u8 = 0xc0;
const PUBLISH: u8 = 0xc1;
const EARLY_ANSWER: u8 = 0xc2;

/// Longest name of a host, in bytes (RFC 1035 §2.3.4).
const LONGEST_NAME: usize = 253;

/// A TLV. Values that RFC 8803 pads with zeros to 32 bits are read with the padding where nothing tells it from
/// the value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tlv {
    /// The client asks what the converter supports (§6.2.3).
    Info,
    /// A connection is wanted, or has come in (§6.2.5).
    Connect(Connect),
    /// The options of TCP that the server's SYN/ACK had (§6.2.6), as they were there; with padding.
    ExtendedTcpHeader(Vec<u8>),
    /// Kinds of the options of TCP that the converter supports (§6.2.4), neither 0, 1 nor 2.
    SupportedTcpExtensions(Vec<u8>),
    /// What authorises a client (§6.2.7); with padding.
    Cookie(Vec<u8>),
    /// Why a request failed (§6.2.8).
    Error(ConvertError),
    /// A connection is wanted to a server whose name the converter resolves. Ours, in the range for private use: port,
    /// length of the name in a byte, name, padding.
    ConnectName(ConnectName),
    /// A connection is wanted that comes in at this port of the converter's. Ours, as well: port.
    Publish(u16),
    /// The client takes an answer before its key of MPTCP has come, with a mapping and without a DATA_ACK (RFC 8684
    /// appendix B.3). Ours, as well: two bytes of zeros.
    EarlyAnswer,
}

/// A server by its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectName {
    /// The name: 1 to 253 letters, digits, and characters of `-._`.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// The Connect TLV.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Connect {
    /// The server; for a connection that has come in, who it is from.
    pub peer: SocketAddr,
    /// Options of TCP for the SYN to the server. None: the Base Connect TLV.
    pub options: Vec<TcpOption>,
}

/// An option of TCP in a Connect TLV.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TcpOption {
    /// Its kind, above 1.
    pub kind: u8,
    /// What the SYN is to have. Empty: the converter chooses it.
    pub value: Vec<u8>,
}

impl Tlv {
    /// The number of its type.
    pub fn type_number(&self) -> u8 {
        match self {
            Tlv::Info => INFO,
            Tlv::Connect(_) => CONNECT,
            Tlv::ExtendedTcpHeader(_) => EXTENDED_TCP_HEADER,
            Tlv::SupportedTcpExtensions(_) => SUPPORTED_TCP_EXTENSIONS,
            Tlv::Cookie(_) => COOKIE,
            Tlv::Error(_) => ERROR,
            Tlv::ConnectName(_) => CONNECT_NAME,
            Tlv::Publish(_) => PUBLISH,
            Tlv::EarlyAnswer => EARLY_ANSWER,
        }
    }

    pub(crate) fn write(&self, bytes: &mut Vec<u8>) -> Result<(), EncodeError> {
        let start = bytes.len();
        bytes.extend([self.type_number(), 0]);
        match self {
            Tlv::Info | Tlv::EarlyAnswer => bytes.extend([0, 0]),
            Tlv::Connect(connect) => connect.write(bytes)?,
            Tlv::ConnectName(name) => name.write(bytes)?,
            Tlv::Publish(port) => bytes.extend(port.to_be_bytes()),
            Tlv::ExtendedTcpHeader(value) | Tlv::SupportedTcpExtensions(value) | Tlv::Cookie(value) => {
                bytes.extend([0, 0]);
                bytes.extend_from_slice(value);
            }
            Tlv::Error(error) => {
                bytes.push(error.code());
                bytes.extend(error.value());
            }
        }
        let length = (bytes.len() - start).next_multiple_of(4);
        bytes.resize(start + length, 0);
        bytes[start + 1] = u8::try_from(length / 4).map_err(|_| EncodeError::TooLong)?;
        Ok(())
    }

    /// Reads a TLV of this type; `rest` follows its length, and has two bytes at least.
    pub(crate) fn read(number: u8, rest: &[u8]) -> Result<Tlv, DecodeError> {
        let value = rest.get(2..).unwrap_or_default();
        Ok(match number {
            INFO if value.is_empty() => Tlv::Info,
            INFO => return Err(DecodeError::Malformed("the length of the Info TLV")),
            CONNECT => Tlv::Connect(Connect::read(rest)?),
            EXTENDED_TCP_HEADER => Tlv::ExtendedTcpHeader(value.to_vec()),
            SUPPORTED_TCP_EXTENSIONS => {
                Tlv::SupportedTcpExtensions(value.iter().copied().filter(|kind| *kind != 0).collect())
            }
            COOKIE => Tlv::Cookie(value.to_vec()),
            CONNECT_NAME => Tlv::ConnectName(ConnectName::read(rest)?),
            PUBLISH => match *rest {
                [high, low] => Tlv::Publish(u16::from_be_bytes([high, low])),
                _ => return Err(DecodeError::Malformed("the length of the Publish TLV")),
            },
            EARLY_ANSWER if *rest == [0, 0] => Tlv::EarlyAnswer,
            EARLY_ANSWER => return Err(DecodeError::Malformed("the EarlyAnswer TLV")),
            ERROR => {
                let code = rest.first().copied().unwrap_or(0);
                Tlv::Error(ConvertError::read(code, rest.get(1..).unwrap_or_default()))
            }
            _ => return Err(DecodeError::UnsupportedTlv(number)),
        })
    }
}

impl ConnectName {
    fn write(&self, bytes: &mut Vec<u8>) -> Result<(), EncodeError> {
        if !is_name(&self.host) {
            return Err(EncodeError::Name);
        }
        bytes.extend(self.port.to_be_bytes());
        // No longer than `LONGEST_NAME`.
        bytes.push(self.host.len() as u8);
        bytes.extend(self.host.as_bytes());
        Ok(())
    }

    /// Reads what follows the TLV's length.
    fn read(rest: &[u8]) -> Result<ConnectName, DecodeError> {
        let malformed = DecodeError::Malformed("the name of a server");
        let &[high, low, length, ref rest @ ..] = rest else { return Err(malformed) };
        let (host, padding) = rest.split_at_checked(usize::from(length)).ok_or(malformed)?;
        let host = std::str::from_utf8(host).ok().filter(|host| is_name(host)).ok_or(malformed)?;
        if padding.len() > 3 || padding.iter().any(|byte| *byte != 0) {
            return Err(malformed);
        }
        Ok(ConnectName { host: host.to_owned(), port: u16::from_be_bytes([high, low]) })
    }
}

/// Whether it may be the name of a host.
fn is_name(host: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (1..=LONGEST_NAME).contains(&host.len()) && host.bytes().all(fits)
}

impl Connect {
    /// To `peer`, with the options that the converter chooses.
    pub fn new(peer: SocketAddr) -> Connect {
        Connect { peer, options: Vec::new() }
    }

    fn write(&self, bytes: &mut Vec<u8>) -> Result<(), EncodeError> {
        if !may_be_peer(self.peer.ip()) {
            return Err(EncodeError::Address);
        }
        bytes.extend(self.peer.port().to_be_bytes());
        let address = match self.peer.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        bytes.extend(address.octets());
        for TcpOption { kind, value } in &self.options {
            let length = u8::try_from(value.len() + 2).map_err(|_| EncodeError::Option)?;
            if *kind <= 1 {
                return Err(EncodeError::Option);
            }
            bytes.extend([*kind, length]);
            bytes.extend_from_slice(value);
        }
        Ok(())
    }

    /// Reads what follows the TLV's length.
    fn read(rest: &[u8]) -> Result<Connect, DecodeError> {
        let malformed = DecodeError::Malformed("the length of the Connect TLV");
        let (port, rest) = rest.split_first_chunk::<2>().ok_or(malformed)?;
        let (address, options) = rest.split_first_chunk::<16>().ok_or(malformed)?;
        let address = Ipv6Addr::from(*address);
        let address = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4);
        if !may_be_peer(address) {
            return Err(DecodeError::Malformed("a multicast, broadcast, loopback or unspecified address"));
        }
        let peer = SocketAddr::new(address, u16::from_be_bytes(*port));
        Ok(Connect { peer, options: read_options(options)? })
    }
}

fn read_options(mut rest: &[u8]) -> Result<Vec<TcpOption>, DecodeError> {
    let mut options = Vec::new();
    loop {
        match *rest {
            // Less than a word of padding.
            [] | [0] | [0, 0] | [0, 0, 0] => return Ok(options),
            [0 | 1, ..] => return Err(DecodeError::Malformed("an option of TCP without a length")),
            [kind, length, ..] if length >= 2 && usize::from(length) <= rest.len() => {
                let (option, after) = rest.split_at(usize::from(length));
                options.push(TcpOption { kind, value: option[2..].to_vec() });
                rest = after;
            }
            _ => return Err(DecodeError::Malformed("the length of an option of TCP")),
        }
    }
}

/// RFC 8803 §6.2.5: neither multicast nor broadcast nor loopback. A connection to the unspecified address is one to
/// loopback on some systems.
fn may_be_peer(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !(address.is_multicast() || broadcast || address.is_loopback() || address.is_unspecified())
}

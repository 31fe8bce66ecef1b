//! What goes over the socket: one JSON object a line, in either direction.
//!
//! The server begins with a [`Greeting`]. Each [`Request`] is answered by one [`Reply`] with its id. After
//! `monitor`, an [`EventLine`] follows for each thing that happens. Fields that are not known are ignored.

use crate::state::Event;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// The name of the protocol, in every greeting.
pub const PROTOCOL: &str = "umptcp-control";

/// The version of the protocol. It grows when an older client would misunderstand something; new methods and
/// new fields leave it.
pub const VERSION: u32 = 1;

/// Most bytes of a line that a client sends, the end of the line not counted.
pub const MAX_REQUEST: usize = 64 << 10;

/// Most bytes of a line that a server sends. A connection takes about a kilobyte with two subflows.
pub const MAX_REPLY: usize = 256 << 20;

/// Longest name of an instance, in bytes. The path of a Unix socket has room for 107.
pub const MAX_NAME: usize = 64;

/// Whether an instance may have that name: letters, digits, '-', '_' and '.', the first a letter or digit.
pub fn is_name(name: &str) -> bool {
    name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.len() <= MAX_NAME
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// The first line from the server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Greeting {
    /// [`PROTOCOL`].
    pub protocol: String,
    /// [`VERSION`] of the server.
    pub version: u32,
    /// The name of the instance.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// What it is.
    pub kind: Kind,
    /// Version of the program.
    pub software: String,
}

/// What an instance is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// `umptcp run`: one program.
    Run,
    /// `umptcp up`: the daemon.
    Up,
    /// `umptcp proxy`: a proxy for programs of this host.
    Proxy,
    /// `umptcp relay`, or a daemon with `[relay]` that takes no programs: a relay for others.
    Relay,
    /// Something newer.
    #[serde(other)]
    Other,
}

impl Kind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Run => "run",
            Kind::Up => "up",
            Kind::Proxy => "proxy",
            Kind::Relay => "relay",
            Kind::Other => "other",
        }
    }
}

/// What a client wants.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the client; the reply repeats it.
    pub id: u64,
    /// Name of the method ([`Call::METHOD`](crate::call::Call::METHOD)).
    pub method: String,
    /// Its parameters, an object; may be left out if all have defaults.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub params: Value,
}

/// The answer to a request: one of `result` and `error`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    /// The request's; `None` when the request could not be read.
    #[serde(default)]
    pub id: Option<u64>,
    /// What was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Why it was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// Something that happened, after `monitor`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EventLine {
    /// That of the request.
    pub id: u64,
    /// What happened.
    pub event: Event,
}

/// Why something was not done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// For programs.
    pub code: Code,
    /// For people.
    pub message: String,
}

impl Failure {
    /// With this text.
    pub fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The kind of a failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Code {
    /// The line is not a request. The connection goes on.
    BadRequest,
    /// The line is too long. The connection ends.
    TooLong,
    /// There is no such method.
    UnknownMethod,
    /// The parameters do not fit the method.
    BadParameters,
    /// What the parameters name is not there.
    NotFound,
    /// It is there already.
    Exists,
    /// This instance cannot do it.
    NotSupported,
    /// It is not for this user.
    Denied,
    /// It was tried, and failed.
    Failed,
    /// Too many clients. The connection ends.
    TooManyClients,
    /// The client does not read what it has asked for. The connection ends.
    TooSlow,
    /// The instance ends, and the connection with it.
    Ending,
    /// Something newer.
    #[serde(other)]
    Other,
}

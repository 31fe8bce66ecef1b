//! The protocol between `bench` client and server.
//!
//! The client starts with a [`Header`] of fixed length. The server responds with a status byte: [`ACCEPTED`],
//! or
//! [`REFUSED`] followed by a text. The rest depends on the mode:
//!
//! - throughput: each sender sends chunks, each a 4-byte length and that many bytes, and finally a length of
//!   zero. When both directions are done, the server sends its [`Report`]: a 4-byte length and JSON.
//! - latency: requests and responses of the agreed sizes until the client closes its direction; then the
//!   report.
//! - connections: one connection with this mode lasts as long as the measurement; the client sends a byte now
//!   and then, and closes its direction at the end; then the report. Meanwhile connections of mode
//!   connection: nothing more, and both sides close.
//!
//! Numbers are big-endian.

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};

/// First bytes of every measurement.
pub(crate) const MAGIC: [u8; 8] = *b"umptcp\xb5\x01";
/// Version of what follows the magic.
pub(crate) const VERSION: u16 = 2;
/// Status byte: the measurement starts.
pub(crate) const ACCEPTED: u8 = 0;
/// Status byte: a 4-byte length and a text follow, then the stream ends.
pub(crate) const REFUSED: u8 = 1;
/// Longest chunk, and longest request or response.
pub(crate) const MAX_CHUNK: usize = 1 << 20;
/// Longest report or refusal.
const MAX_TEXT: usize = 1 << 16;

/// The parameters of a measurement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// Bytes in one direction or both.
    Throughput {
        /// The client sends.
        up: bool,
        /// The server sends.
        down: bool,
        /// Hash everything at both ends.
        verify: bool,
        /// Bytes per direction; `None`: until `milliseconds` have passed.
        bytes: Option<u64>,
        /// How long to send if `bytes` is `None`.
        milliseconds: u32,
        /// Seed of the data.
        seed: u64,
    },
    /// Requests and responses.
    Latency {
        /// Bytes per request.
        request: u32,
        /// Bytes per response.
        response: u32,
    },
    /// Connections that are closed immediately, for as long as this one lasts.
    Connections,
    /// One of them.
    Connection,
}

/// The client's request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) mode: Mode,
}

impl Header {
    /// Length in bytes.
    pub(crate) const LEN: usize = 48;

    pub(crate) fn encode(&self) -> [u8; Self::LEN] {
        let mut out = Vec::with_capacity(Self::LEN);
        out.extend(MAGIC);
        out.extend(VERSION.to_be_bytes());
        match self.mode {
            Mode::Throughput { up, down, verify, bytes, milliseconds, seed } => {
                let flags = u8::from(up)
                    | u8::from(down) << 1
                    | u8::from(verify) << 2
                    | u8::from(bytes.is_some()) << 3;
                out.extend([0, flags]);
                out.extend(milliseconds.to_be_bytes());
                out.extend(bytes.unwrap_or(0).to_be_bytes());
                out.extend(seed.to_be_bytes());
            }
            Mode::Latency { request, response } => {
                out.extend([1, 0]);
                out.extend(request.to_be_bytes());
                out.extend(response.to_be_bytes());
            }
            Mode::Connection => out.extend([2, 0]),
            Mode::Connections => out.extend([3, 0]),
        }
        let mut fixed = [0; Self::LEN];
        fixed[..out.len()].copy_from_slice(&out);
        fixed
    }

    pub(crate) fn decode(bytes: &[u8; Self::LEN]) -> anyhow::Result<Header> {
        let u32_at = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) << 32 | u64::from(u32_at(at + 4));
        ensure!(bytes[..8] == MAGIC, "the peer is not `umptcp bench client`");
        let version = u16::from_be_bytes([bytes[8], bytes[9]]);
        ensure!(
            version == VERSION,
            "the peer speaks version {version} of the bench protocol, this program version {VERSION}: use the same umptcp at both ends"
        );
        let flags = bytes[11];
        let mode = match bytes[10] {
            0 => Mode::Throughput {
                up: flags & 1 != 0,
                down: flags & 2 != 0,
                verify: flags & 4 != 0,
                bytes: (flags & 8 != 0).then(|| u64_at(16)),
                milliseconds: u32_at(12),
                seed: u64_at(24),
            },
            1 => Mode::Latency { request: u32_at(12), response: u32_at(16) },
            2 => Mode::Connection,
            3 => Mode::Connections,
            other => bail!("the peer requests measurement {other}, which this version does not know"),
        };
        if let Mode::Latency { request, response } = mode {
            let sizes = 1..=MAX_CHUNK as u32;
            ensure!(
                sizes.contains(&request) && sizes.contains(&response),
                "requests and responses must have 1 to {MAX_CHUNK} bytes, not {request} and {response}"
            );
        }
        if let Mode::Throughput { up, down, .. } = mode {
            ensure!(up || down, "the peer requests a transfer in no direction");
        }
        Ok(Header { mode })
    }
}

/// Accepts the measurement.
pub(crate) fn accept(mut to: impl Write) -> io::Result<()> {
    to.write_all(&[ACCEPTED])?;
    to.flush()
}

/// Refuses the measurement with a reason.
pub(crate) fn refuse(mut to: impl Write, why: &str) -> io::Result<()> {
    to.write_all(&[REFUSED])?;
    write_text(to, why.as_bytes())
}

/// Reads the server's response to the header.
pub(crate) fn read_status(mut from: impl Read) -> anyhow::Result<()> {
    let mut status = [0];
    from.read_exact(&mut status).context("the server closed the connection without a response")?;
    match status[0] {
        ACCEPTED => Ok(()),
        REFUSED => bail!("the server refused: {}", String::from_utf8_lossy(&read_text(from)?)),
        _ => bail!("the server is not `umptcp bench server`"),
    }
}

fn write_text(mut to: impl Write, text: &[u8]) -> io::Result<()> {
    let text = &text[..text.len().min(MAX_TEXT)];
    let mut message = (text.len() as u32).to_be_bytes().to_vec();
    message.extend_from_slice(text);
    to.write_all(&message)?;
    to.flush()
}

fn read_text(mut from: impl Read) -> anyhow::Result<Vec<u8>> {
    let len = read_length(&mut from, MAX_TEXT)?;
    let mut text = vec![0; len];
    from.read_exact(&mut text)?;
    Ok(text)
}

/// A 4-byte length that may not exceed `max`.
pub(crate) fn read_length(mut from: impl Read, max: usize) -> anyhow::Result<usize> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes).context("the stream ended too early")?;
    let len = u32::from_be_bytes(bytes) as usize;
    ensure!(
        len <= max,
        "the peer announces {len} bytes where at most {max} are allowed: the stream is corrupt"
    );
    Ok(len)
}

/// The transfer in one direction.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Transfer {
    /// Payload bytes, chunk lengths not counted.
    pub(crate) bytes: u64,
    /// From the first byte to the last, seconds.
    pub(crate) seconds: f64,
    /// SHA-256 of the bytes, in hexadecimal, if verification was requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sha256: Option<String>,
}

impl Transfer {
    /// Bits per second.
    pub(crate) fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.bytes as f64 * 8.0 / self.seconds } else { 0.0 }
    }
}

/// The server's results.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Version of the server's program.
    pub(crate) version: String,
    /// The server's `--stack`.
    pub(crate) stack: String,
    /// Whether the server's end of the connection is MPTCP; `None` if unknown.
    pub(crate) mptcp: Option<bool>,
    /// Its congestion control, if known.
    pub(crate) congestion: Option<String>,
    /// Received from the client.
    pub(crate) received: Option<Transfer>,
    /// Sent to the client.
    pub(crate) sent: Option<Transfer>,
    /// Number of requests answered.
    pub(crate) requests: Option<u64>,
    /// Number of connections served while a measurement of connections lasted.
    #[serde(default)]
    pub(crate) connections: Option<u64>,
}

impl Report {
    pub(crate) fn write(&self, to: impl Write) -> anyhow::Result<()> {
        write_text(to, &serde_json::to_vec(self)?).context("sending the report")
    }

    pub(crate) fn read(from: impl Read) -> anyhow::Result<Report> {
        let text = read_text(from).context("reading the server's report")?;
        serde_json::from_slice(&text).context("the server's report is not what this version expects")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip() {
        let throughput = |bytes| Mode::Throughput {
            up: true,
            down: false,
            verify: true,
            bytes,
            milliseconds: 7,
            seed: u64::MAX - 3,
        };
        for mode in [
            throughput(None),
            throughput(Some(0)),
            throughput(Some(1 << 40)),
            Mode::Latency { request: 1, response: MAX_CHUNK as u32 },
            Mode::Connection,
            Mode::Connections,
        ] {
            let header = Header { mode };
            assert_eq!(Header::decode(&header.encode()).unwrap(), header);
        }
    }

    #[test]
    fn strange_headers_are_refused_with_a_reason() {
        let good = Header { mode: Mode::Latency { request: 1, response: 1 } }.encode();
        let damaged = |at: usize, value: u8| {
            let mut bytes = good;
            bytes[at] = value;
            Header::decode(&bytes).unwrap_err().to_string()
        };
        assert!(damaged(0, b'G').contains("not `umptcp bench client`"));
        assert!(damaged(9, 9).contains("version 9"));
        assert!(damaged(10, 77).contains("measurement 77"));
        assert!(damaged(15, 0).contains("1 to 1048576 bytes"));
        let mut nothing = Header { mode: Mode::Connection }.encode();
        nothing[10] = 0;
        assert!(Header::decode(&nothing).unwrap_err().to_string().contains("no direction"));
    }

    #[test]
    fn refusals_and_reports_arrive() {
        let mut wire = Vec::new();
        refuse(&mut wire, "too many").unwrap();
        assert!(read_status(&wire[..]).unwrap_err().to_string().contains("too many"));
        assert!(read_status(&b""[..]).is_err());
        assert!(read_status(&b"HTTP"[..]).unwrap_err().to_string().contains("umptcp bench server"));

        let report = Report {
            stack: "kernel-tcp".to_owned(),
            received: Some(Transfer { bytes: 5, seconds: 0.5, sha256: Some("ab".to_owned()) }),
            ..Report::default()
        };
        let mut wire = Vec::new();
        report.write(&mut wire).unwrap();
        assert_eq!(Report::read(&wire[..]).unwrap(), report);
        assert!(Report::read(&wire[..wire.len() - 1]).is_err());
        wire[0] = 0xff;
        assert!(format!("{:#}", Report::read(&wire[..]).unwrap_err()).contains("corrupt"));
    }
}

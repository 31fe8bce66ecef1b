//! What is known about a connection, whichever stack carries it.

use crate::units;
use std::fmt::Write as _;
use std::net::SocketAddr;
use umptcp_stack_core::stack::SubflowInfo;

/// Numbers of SYNs with data (RFC 7413).
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub(crate) struct FastOpen {
    /// Those of which the server accepted at least some data.
    pub(crate) taken: u64,
    /// Those whose data had to be sent again after the handshake.
    pub(crate) refused: u64,
}

/// Facts about a connection.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// Whether it is MPTCP; `None` if unknown.
    pub(crate) mptcp: Option<bool>,
    /// The same in words, with the reason if it is not.
    pub(crate) description: String,
    pub(crate) congestion: Option<String>,
    pub(crate) scheduler: Option<String>,
}

/// A snapshot of a subflow.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Subflow {
    /// Unique within the connection, never reused.
    pub(crate) id: u32,
    /// The path's name, usually that of the NIC.
    pub(crate) path: String,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// Its state, as named in RFC 9293.
    pub(crate) state: String,
    pub(crate) backup: bool,
    pub(crate) stale: bool,
    /// Payload bytes acknowledged by the peer.
    pub(crate) bytes_sent: u64,
    /// Payload bytes received.
    pub(crate) bytes_received: u64,
    pub(crate) bytes_retransmitted: u64,
    /// Smoothed round-trip time, milliseconds.
    pub(crate) srtt_ms: Option<f64>,
    /// Congestion window, bytes.
    pub(crate) window: u64,
}

impl Subflow {
    /// From the stack's information and the name of the path.
    pub(crate) fn new(path: String, info: SubflowInfo) -> Subflow {
        Subflow {
            id: info.id.0,
            path,
            local: info.local,
            remote: info.remote,
            state: info.state.to_owned(),
            backup: info.backup,
            stale: info.stale,
            bytes_sent: info.bytes_acked,
            bytes_received: info.bytes_received,
            bytes_retransmitted: info.bytes_retransmitted,
            srtt_ms: info.srtt.map(|rtt| rtt.as_secs_f64() * 1e3),
            window: info.window,
        }
    }

    /// A one-line description.
    pub(crate) fn describe(&self) -> String {
        let Subflow { id, path, local, remote, state, .. } = self;
        let mut line = format!("subflow {id} on {path}: {local} to {remote}, {state}");
        for (what, bytes) in [
            ("sent", self.bytes_sent),
            ("received", self.bytes_received),
            ("retransmitted", self.bytes_retransmitted),
        ] {
            let _ = write!(line, ", {what} {}", units::bytes(bytes));
        }
        if let Some(ms) = self.srtt_ms {
            let _ = write!(line, ", round trip {ms:.1} ms");
        }
        for (holds, what) in [(self.backup, "backup"), (self.stale, "silent")] {
            if holds {
                let _ = write!(line, ", {what}");
            }
        }
        line
    }
}

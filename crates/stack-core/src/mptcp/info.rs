//! What can be asked about a connection.

use super::connection::Connection;
use super::negotiation::Mode;
use super::subflow::Subflow;
use crate::error::{ConnectionError, FallbackReason};
use crate::event::LostSubflow;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::SocketAddr;
use umptcp_types::{Duration, Instant, PathId, SubflowId};

/// What `receive` found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Received {
    /// Bytes, in order.
    Data(Bytes),
    /// Nothing yet; [`Event::Readable`](crate::event::Event::Readable) follows when there is.
    Empty,
    /// The peer has finished sending and everything was received.
    End,
}

/// Whether a connection is MPTCP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MptcpStatus {
    /// The handshake is not far enough to tell.
    Negotiating,
    /// MPTCP is in use.
    Active {
        /// Since then.
        since: Instant,
    },
    /// Plain TCP.
    Plain {
        /// Why.
        reason: FallbackReason,
    },
}

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionState {
    /// The handshake is under way.
    Connecting,
    /// Data flow.
    Established,
    /// One direction or both have been closed.
    Closing,
    /// It has ended.
    Closed,
}

/// One connection, as `ss -M` would show it.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// How far it is.
    pub state: ConnectionState,
    /// Local end of the first subflow.
    pub local: SocketAddr,
    /// Remote end of the first subflow.
    pub remote: SocketAddr,
    /// Whether it is MPTCP.
    pub mptcp: MptcpStatus,
    /// Our token (RFC 8684 §3.1), while MPTCP is active.
    pub token: Option<u32>,
    /// DSS checksums are in use.
    pub checksum: bool,
    /// Congestion control algorithm.
    pub congestion: String,
    /// Scheduler.
    pub scheduler: String,
    /// Bytes sent for the first time.
    pub bytes_sent: u64,
    /// Bytes acknowledged at the data level.
    pub bytes_acked: u64,
    /// Bytes received in order.
    pub bytes_received: u64,
    /// Bytes that can be received right now.
    pub readable: usize,
    /// Bytes that send would take right now.
    pub writable: usize,
    /// Why it ended, when not cleanly.
    pub error: Option<ConnectionError>,
    /// Subflows that ended other than by FIN, and joins that failed: the last [`LOST_KEPT`](crate::stack::LOST_KEPT), oldest first.
    pub lost_subflows: Vec<LostSubflow>,
}

/// One subflow.
#[derive(Clone, Debug)]
pub struct SubflowInfo {
    /// Its id.
    pub id: SubflowId,
    /// The path it uses.
    pub path: PathId,
    /// Local end.
    pub local: SocketAddr,
    /// Remote end.
    pub remote: SocketAddr,
    /// RFC 9293 state name, such as "ESTABLISHED".
    pub state: &'static str,
    /// Either end wants it as a backup.
    pub backup: bool,
    /// It does not answer.
    pub stale: bool,
    /// Smoothed round-trip time.
    pub srtt: Option<Duration>,
    /// Round-trip time variation.
    pub rttvar: Duration,
    /// Least round-trip time seen.
    pub min_rtt: Option<Duration>,
    /// Retransmission timeout.
    pub rto: Duration,
    /// Payload bytes per packet of data.
    pub mss: u32,
    /// Congestion window in bytes.
    pub window: u64,
    /// Slow-start threshold in bytes.
    pub ssthresh: u64,
    /// Bytes in flight.
    pub in_flight: u64,
    /// Pacing rate in bytes per second; 0 before the first RTT sample.
    pub pacing_rate: u64,
    /// Payload bytes sent for the first time.
    pub bytes_sent: u64,
    /// Payload bytes acknowledged.
    pub bytes_acked: u64,
    /// Where in the connection's data the last byte ends that was sent on it for the first time; 0 before there is one.
    pub data_sent: u64,
    /// Payload bytes received in order.
    pub bytes_received: u64,
    /// Payload bytes sent again.
    pub bytes_retransmitted: u64,
    /// Retransmission timeouts.
    pub timeouts: u64,
    /// Loss episodes repaired without a timeout.
    pub recoveries: u64,
    /// Loss episodes and timeouts that turned out to be needless and were undone.
    pub undone: u64,
}

impl Connection {
    pub(crate) fn info(&self) -> ConnectionInfo {
        let state = if self.life.has_ended() {
            ConnectionState::Closed
        } else if self.life.is_connecting() {
            ConnectionState::Connecting
        } else if self.send.is_shut() || self.recv.is_finished() {
            ConnectionState::Closing
        } else {
            ConnectionState::Established
        };
        let mptcp = match self.mptcp.mode() {
            Mode::Negotiating => MptcpStatus::Negotiating,
            Mode::Mptcp { since } => MptcpStatus::Active { since },
            Mode::Plain { reason } => MptcpStatus::Plain { reason },
        };
        ConnectionInfo {
            state,
            local: self.initial_tuple.local,
            remote: self.initial_tuple.remote,
            mptcp,
            token: self.is_mptcp().then_some(self.mptcp.local_token()),
            checksum: self.mptcp.checksum() && self.is_mptcp(),
            congestion: self.cc.name().into(),
            scheduler: self.scheduler.name().into(),
            bytes_sent: self.send.bytes_sent(),
            bytes_acked: self.send.bytes_acked(),
            bytes_received: self.recv.bytes_received(),
            readable: self.recv.readable_bytes(),
            writable: if self.send.is_shut() || self.life.has_ended() { 0 } else { self.send.room() },
            error: self.life.end().flatten(),
            lost_subflows: self.addresses.failures.lost(),
        }
    }

    pub(crate) fn subflow_infos(&self) -> Vec<SubflowInfo> {
        let info = |(i, m): (usize, &Subflow)| {
            let tcp = &m.tcp;
            SubflowInfo {
                id: tcp.id(),
                path: tcp.path(),
                local: tcp.tuple().local,
                remote: tcp.tuple().remote,
                state: tcp.state().name(),
                backup: m.is_backup(),
                stale: m.is_stale(),
                srtt: tcp.srtt(),
                rttvar: tcp.rttvar(),
                min_rtt: tcp.min_rtt(),
                rto: tcp.rto(),
                mss: self.packet_payload(i),
                window: self.cc.window(tcp.id()),
                ssthresh: self.cc.ssthresh(tcp.id()),
                in_flight: tcp.in_flight(),
                pacing_rate: tcp.srtt().and_then(|_| tcp.pacing_rate(self.cc.as_ref())).unwrap_or(0),
                bytes_sent: tcp.stats().bytes_sent,
                bytes_acked: tcp.stats().bytes_acked,
                data_sent: m.data_sent(),
                bytes_received: tcp.stats().bytes_received,
                bytes_retransmitted: tcp.stats().bytes_retransmitted,
                timeouts: tcp.stats().timeouts,
                recoveries: tcp.stats().recoveries,
                undone: tcp.stats().undone,
            }
        };
        self.subflows.enumerate().map(info).collect()
    }
}

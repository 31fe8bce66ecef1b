//! What can be asked about a connection, and of a stack.

use crate::error::{ConnectionError, FallbackReason};
use crate::event::LostSubflow;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::{IpAddr, SocketAddr};
use core::ops::RangeInclusive;
use umptcp_scheduler::Health;
use umptcp_types::{AddressId, Duration, Instant, PathId, SubflowId};

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

/// The state of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionState {
    /// The handshake is under way.
    Connecting,
    /// Data may flow both ways.
    Established,
    /// One direction or both have been closed.
    Closing,
    /// It has ended.
    Closed,
}

/// Data sequence numbers of a connection (RFC 8684 §3.3), as the wire has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct DataSequence {
    /// Of the byte that the application writes next.
    pub write_next: u64,
    /// Of the first byte that the peer has not acknowledged.
    pub send_unacknowledged: u64,
    /// Of the byte that is expected next from the peer.
    pub receive_next: u64,
}

/// One connection, as `ss -M` would show it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Its state.
    pub state: ConnectionState,
    /// Local end of the first subflow.
    pub local: SocketAddr,
    /// Remote end of the first subflow.
    pub remote: SocketAddr,
    /// Whether it is MPTCP.
    pub mptcp: MptcpStatus,
    /// Our token (RFC 8684 §3.1), while MPTCP is active.
    pub token: Option<u32>,
    /// The peer's token, while MPTCP is active.
    pub remote_token: Option<u32>,
    /// Where the data stand, while MPTCP is active.
    pub sequence: Option<DataSequence>,
    /// Most subflows at once, the initial one included (`ConnectionConfig::max_subflows`).
    pub max_subflows: usize,
    /// Most addresses of the peer's ADD_ADDRs to act on (`ConnectionConfig::max_add_addr_accepted`).
    pub max_add_addr_accepted: usize,
    /// DSS checksums are in use.
    pub checksum: bool,
    /// Congestion control algorithm.
    pub congestion: String,
    /// Scheduler.
    pub scheduler: String,
    /// Path policy.
    pub path_policy: String,
    /// Bytes sent for the first time.
    pub bytes_sent: u64,
    /// Bytes acknowledged at the data level.
    pub bytes_acked: u64,
    /// Bytes received in order.
    pub bytes_received: u64,
    /// Bytes that can be received right now.
    pub readable: usize,
    /// Bytes received that wait for others before them, on a subflow or at the data level.
    pub out_of_order: u64,
    /// Bytes that send would take right now.
    pub writable: usize,
    /// Bytes written that the peer has not acknowledged (SIOCOUTQ).
    pub send_queue: u64,
    /// Bytes of new data that the peer's window still takes.
    pub send_window: u64,
    /// The peer sends nothing more: all its data have arrived, and the DATA_FIN or FIN after them.
    pub peer_finished: bool,
    /// Bytes sent again on another subflow, because the one that carried them did not deliver them.
    pub bytes_reinjected: u64,
    /// Those of them that it delivered nevertheless: its acknowledgements were only late.
    pub bytes_reinjected_needlessly: u64,
    /// Bytes that the send buffer takes at present (`ConnectionConfig::send_buffer`).
    pub send_buffer: u64,
    /// Bytes that the receive buffer takes at present (`ConnectionConfig::receive_buffer`). The peer may have
    /// been offered more before.
    pub receive_buffer: u64,
    /// Why it ended, when not cleanly.
    pub error: Option<ConnectionError>,
    /// Subflows that ended other than by FIN, and joins that failed: the last [`LOST_KEPT`], oldest first.
    pub lost_subflows: Vec<LostSubflow>,
}

/// What an application's own queues of a connection hold, between it and the stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ApplicationQueues {
    /// Bytes that the stack has handed out and the application has not read. From then on, what is handed out is
    /// unread until it is said otherwise. `None`: what is handed out is read.
    pub unread: Option<u64>,
    /// Bytes that the application has written and the stack has not taken.
    pub unsent: u64,
}

/// The memory of all connections' buffers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MemoryInfo {
    /// Bytes held: written and not acknowledged, received and not read, and what waits for others; with what
    /// applications' own queues hold, as far as the stack is told.
    pub held: u64,
    /// How many may be (`StackConfig::buffer_memory`).
    pub bound: u64,
    /// They are so many that automatic buffers have fallen back to what they begin with.
    pub pressure: bool,
    /// They are all that may be held.
    pub full: bool,
}

/// How many lost subflows a connection remembers.
pub const LOST_KEPT: usize = 8;

/// One subflow.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SubflowInfo {
    /// Its id.
    pub id: SubflowId,
    /// The path it uses.
    pub path: PathId,
    /// Local end.
    pub local: SocketAddr,
    /// Remote end.
    pub remote: SocketAddr,
    /// Our Address ID of the local address (RFC 8684 §3.2).
    pub local_id: AddressId,
    /// The peer's Address ID of the remote address.
    pub remote_id: AddressId,
    /// It is the first, which MP_CAPABLE began.
    pub initial: bool,
    /// RFC 9293 state name, such as "ESTABLISHED".
    pub state: &'static str,
    /// Either end wants it as a backup.
    pub backup: bool,
    /// It does not answer (`ConnectionConfig::stale_loss_count`).
    pub stale: bool,
    /// Whether it answers, as schedulers see it.
    pub health: Health,
    /// When an acknowledgement last showed that something had arrived; before the first, when it was opened.
    pub last_ack: Instant,
    /// When something that has to be acknowledged was sent last, also again: data, or the SYN.
    pub last_sent: Option<Instant>,
    /// When data came last, also such as had come before.
    pub last_received: Option<Instant>,
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
    /// Where in the connection's data the last byte ends that was sent on it for the first time; 0 before
    /// there is one.
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
    /// The DSS mapping of what arrived last; `None` before the first, and without MPTCP.
    pub received_mapping: Option<ReceivedMapping>,
}

/// A DSS mapping that the peer has declared (RFC 8684 §3.3.1), as `ss -Mni` shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ReceivedMapping {
    /// Its data sequence number (`seq`).
    pub data_sequence: u64,
    /// Its subflow sequence number, which counts from the SYN (`sfseq`).
    pub subflow_sequence: u32,
    /// The sequence number of the peer's SYN, from which that counts (`ssnoff`).
    pub initial_sequence: u32,
    /// Its length in bytes (`maplen`). Mappings that continue one another are one.
    pub length: u32,
}

/// What a client has learned of a server's Fast Open (RFC 7413 §4.1.3), for keeping beyond the life of a
/// stack: Linux keeps the same per destination. See `Stack::fast_open_servers` and
/// `Stack::remember_fast_open_server`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FastOpenServer {
    /// The address of ours that the cookie was given to.
    pub local: IpAddr,
    /// The server.
    pub remote: SocketAddr,
    /// Its cookie, of 4 to 16 bytes; empty if it has given none.
    pub cookie: Vec<u8>,
    /// Its MSS, which limits what goes with a SYN.
    pub mss: u16,
    /// For how long it is not to be tried, after a failure (RFC 7413 §4.1.3.1).
    pub left_alone: Option<Duration>,
}

impl FastOpenServer {
    /// A server, seen from an address of ours, of which nothing is known yet: no cookie, and the MSS of who
    /// names none (RFC 9293 §3.7.1).
    pub fn new(local: IpAddr, remote: SocketAddr) -> FastOpenServer {
        let mss = if remote.is_ipv4() { 536 } else { 1220 };
        FastOpenServer { local, remote, cookie: Vec::new(), mss, left_alone: None }
    }

    /// Its cookie, and the MSS that came with it.
    pub fn with_cookie(self, cookie: Vec<u8>, mss: u16) -> FastOpenServer {
        FastOpenServer { cookie, mss, ..self }
    }

    /// For how long it is not to be tried.
    pub fn with_left_alone(self, left_alone: Option<Duration>) -> FastOpenServer {
        FastOpenServer { left_alone, ..self }
    }

    /// How long a cookie may be (RFC 7413 §4.1.1).
    pub const COOKIE_LENGTHS: RangeInclusive<usize> = 4..=16;
}

/// What a native path does to packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NativeTrouble {
    /// It takes options of MPTCP away, or changes packets.
    Stripped,
    /// SYNs are not answered.
    Swallowed,
}

//! What an instance tells of itself. Bytes are payload, times are in the unit that the name ends with.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Reply to `connections`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ConnectionList {
    /// In the order in which they began.
    pub connections: Vec<Connection>,
}

/// A connection.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Connection {
    /// Never used again by the same instance.
    pub id: u64,
    /// `connecting`, `established`, `closing` or `closed`.
    pub state: String,
    /// It is the side between the program and umptcp, which never leaves the host.
    #[serde(default)]
    pub captured: bool,
    /// Local end of the first subflow, as the network sees it.
    pub local: SocketAddr,
    /// Remote end of the first subflow.
    pub remote: SocketAddr,
    /// It is MPTCP; null while that is being negotiated.
    pub mptcp: Option<bool>,
    /// Why it is plain TCP.
    #[serde(default)]
    pub why_tcp: Option<String>,
    /// Our token (RFC 8684 §3.1), while it is MPTCP.
    #[serde(default)]
    pub token: Option<u32>,
    /// The peer's token.
    #[serde(default)]
    pub remote_token: Option<u32>,
    /// Data sequence number of what the program writes next.
    #[serde(default)]
    pub write_seq: Option<u64>,
    /// Data sequence number of the first byte that the peer has not acknowledged.
    #[serde(default)]
    pub snd_una: Option<u64>,
    /// Data sequence number of the byte that is expected next.
    #[serde(default)]
    pub rcv_nxt: Option<u64>,
    /// DSS checksums are used.
    #[serde(default)]
    pub checksum: bool,
    /// Congestion control.
    pub congestion: String,
    /// The scheduler.
    pub scheduler: String,
    /// The path policy.
    #[serde(default)]
    pub path_policy: String,
    /// Most subflows, beside the initial one.
    pub subflows_max: u32,
    /// Most addresses of the peer's to act on.
    pub add_addr_accepted_max: u32,
    /// Sent for the first time.
    pub bytes_sent: u64,
    /// Acknowledged by the peer.
    pub bytes_acked: u64,
    /// Received in order.
    pub bytes_received: u64,
    /// Written and not acknowledged.
    pub send_queue: u64,
    /// Received and not read.
    pub receive_queue: u64,
    /// Bytes that the send buffer takes at present.
    #[serde(default)]
    pub send_buffer: u64,
    /// Bytes that the receive buffer takes at present.
    #[serde(default)]
    pub receive_buffer: u64,
    /// Why it ended.
    #[serde(default)]
    pub error: Option<String>,
    /// Its subflows.
    #[serde(default)]
    pub subflows: Vec<Subflow>,
    /// The last subflows that were lost or could not be opened, as text.
    #[serde(default)]
    pub lost_subflows: Vec<String>,
}

/// A DSS mapping that the peer has declared (RFC 8684 section 3.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mapping {
    /// Data sequence number.
    pub seq: u64,
    /// Subflow sequence number, counted from the SYN.
    pub sfseq: u32,
    /// Sequence number of the SYN, from which that counts.
    pub ssnoff: u32,
    /// Bytes. Mappings that continue one another are one.
    pub maplen: u32,
}

/// A subflow.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Subflow {
    /// Never used again within the connection.
    pub id: u32,
    /// Name of the path, usually that of the NIC.
    pub path: String,
    /// Local end, as the network sees it.
    pub local: SocketAddr,
    /// Local end before translation, if there is one.
    #[serde(default)]
    pub own: Option<SocketAddr>,
    /// Remote end.
    pub remote: SocketAddr,
    /// Our Address ID of the local address.
    #[serde(default)]
    pub local_id: u8,
    /// The peer's Address ID of the remote address.
    #[serde(default)]
    pub remote_id: u8,
    /// It is the first.
    #[serde(default)]
    pub initial: bool,
    /// The DSS mapping of what arrived last, while MPTCP is active.
    #[serde(default)]
    pub mapping: Option<Mapping>,
    /// Name of the state (RFC 9293).
    pub state: String,
    /// Either end wants it as a backup.
    pub backup: bool,
    /// `answers`, `suspect` (acknowledgements are late, others take over what it carries), `silent` (it does
    /// not answer), or `opening`.
    pub health: String,
    /// Smoothed round-trip time.
    pub rtt_ms: Option<f64>,
    /// Its variation.
    pub rttvar_ms: f64,
    /// Least round-trip time.
    #[serde(default)]
    pub min_rtt_ms: Option<f64>,
    /// Retransmission timeout.
    pub rto_ms: f64,
    /// Payload of a packet.
    pub mss: u32,
    /// Congestion window.
    pub window: u64,
    /// Slow-start threshold.
    pub ssthresh: u64,
    /// In flight.
    pub in_flight: u64,
    /// Bytes per second that may leave; 0 before the first round-trip time is known.
    pub pacing_rate: u64,
    /// Sent for the first time.
    pub bytes_sent: u64,
    /// Acknowledged.
    pub bytes_acked: u64,
    /// Received in order.
    pub bytes_received: u64,
    /// Sent again.
    pub bytes_retrans: u64,
    /// Retransmission timeouts.
    pub timeouts: u64,
    /// Loss episodes repaired without one.
    pub recoveries: u64,
    /// Time since something that has to be acknowledged was sent.
    #[serde(default)]
    pub lastsnd_ms: Option<u64>,
    /// Time since data came.
    #[serde(default)]
    pub lastrcv_ms: Option<u64>,
    /// Time since an acknowledgement showed that something had arrived.
    #[serde(default)]
    pub lastack_ms: Option<u64>,
}

/// Reply to `counters`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CounterList {
    /// By their names in `nstat`, zeros included.
    pub counters: BTreeMap<String, u64>,
}

/// Reply to `paths`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PathList {
    /// Oldest first.
    pub paths: Vec<Path>,
}

/// A path, usually a NIC.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Path {
    /// Its name, usually that of the NIC.
    pub name: String,
    /// It leads to the program that is captured, not to the network.
    #[serde(default)]
    pub captured: bool,
    /// Its addresses, as the network sees them.
    pub addresses: Vec<IpAddr>,
    /// Only for when no other path works.
    #[serde(default)]
    pub backup: bool,
    /// Payload sent over it since the start.
    pub bytes_sent: u64,
    /// Payload received over it.
    pub bytes_received: u64,
}

/// Reply to `endpoints`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct EndpointList {
    /// By id.
    pub endpoints: Vec<Endpoint>,
}

/// An address that connections use; fields as in `ip -j mptcp endpoint show`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// The address.
    pub address: IpAddr,
    /// Its id within the instance, from 1. One that was chosen is the Address ID of connections that begin to use the
    /// address later (RFC 8684 §3.2), and are not begun from it; others are not.
    pub id: u32,
    /// It is advertised: by servers in any case.
    #[serde(default, skip_serializing_if = "is_false")]
    pub signal: bool,
    /// Clients open subflows from it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub subflow: bool,
    /// Only for when no other works.
    #[serde(default, skip_serializing_if = "is_false")]
    pub backup: bool,
    /// Clients open subflows from it to every address of the peer.
    #[serde(default, skip_serializing_if = "is_false")]
    pub fullmesh: bool,
    /// Clients reach addresses that the peer advertises from it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub laminar: bool,
    /// The port that it is advertised with, if it is not the connection's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The NIC.
    pub dev: String,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// The limits of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Most addresses of the peer's to act on.
    pub add_addr_accepted: u32,
    /// Most subflows, beside the initial one.
    pub subflows: u32,
}

/// Reply to `warnings`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct WarningList {
    /// What will not happen, each as text.
    pub warnings: Vec<String>,
}

/// What became of the connections of programs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RunSummary {
    /// How many there were.
    pub connections: u64,
    /// Of these, those that were MPTCP.
    pub mptcp: u64,
    /// Those that were plain TCP, by the reason.
    pub tcp: BTreeMap<String, u64>,
    /// Those that could not be established, by the reason.
    pub not_established: BTreeMap<String, u64>,
    /// Those that have not ended.
    pub open: u64,
    /// Bytes from clients to servers.
    pub up: u64,
    /// Bytes from servers to clients.
    pub down: u64,
    /// What each path carried of them.
    pub paths: Vec<PathTraffic>,
    /// The last connections; those that have ended first.
    pub last: Vec<RunConnection>,
}

/// Payload that a path has carried. What was sent again by another path counts for both.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PathTraffic {
    /// Its name.
    pub path: String,
    /// Sent over it.
    pub sent: u64,
    /// Received over it.
    pub received: u64,
}

/// A connection of a program.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RunConnection {
    /// `out`: the program has opened it; `in`: it came from outside.
    pub direction: String,
    /// Who has opened it.
    pub client: SocketAddr,
    /// Where the client wanted to go.
    pub server: SocketAddr,
    /// It is MPTCP outside; null: not known yet.
    pub mptcp: Option<bool>,
    /// Why it is plain TCP.
    #[serde(default)]
    pub why_tcp: Option<String>,
    /// Bytes from client to server.
    pub up: u64,
    /// Bytes from server to client.
    pub down: u64,
    /// How it failed, if its streams did not arrive in full.
    #[serde(default)]
    pub error: Option<String>,
}

/// Something that happened. The names are those of `ip mptcp monitor`, and some more; which fields there are
/// depends on them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Microseconds since 1970.
    pub time_us: u64,
    /// `CREATED`, `ESTABLISHED`, `CLOSED`, `ANNOUNCED`, `REMOVED`, `SF_ESTABLISHED`, `SF_CLOSED`, `SF_PRIO`,
    /// `LISTENER_CREATED`, `LISTENER_CLOSED`; `FALLBACK`, `PATH_ADDED`, `PATH_CHANGED`, `PATH_REMOVED`,
    /// `MISSED`. There may be others.
    pub event: String,
    /// The connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<u64>,
    /// Its token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<u32>,
    /// The peer began it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_side: Option<bool>,
    /// The subflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subflow: Option<u32>,
    /// The peer's Address ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_id: Option<u8>,
    /// Our Address ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_id: Option<u8>,
    /// Local end; for listeners, where they listen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
    /// Remote end; for `ANNOUNCED`, the address and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<SocketAddr>,
    /// The subflow is a backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<bool>,
    /// Name of the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Index of the NIC of that name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ifindex: Option<u32>,
    /// Addresses of the path.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// Why, as an error number of Linux.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<i32>,
    /// Why, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Reason of the RST (RFC 8684 §3.6).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_reason: Option<u8>,
    /// Flags of the RST: 1: the cause may pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_flags: Option<u8>,
    /// How many events the client was too slow for, in this place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
}

//! The stack's words in those of the protocol.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use umptcp::{
    ConnectionConfig, ConnectionError, ConnectionId, ConnectionInfo, ConnectionState, Counter, Direction,
    ForwardSummary, Forwarded, Health, MptcpStatus, PathId, PathInfo, SubflowInfo, Traffic, Unreachable,
};
use umptcp_control::state::{
    Connection, Limits, Mapping, Path, PathTraffic, RunConnection, RunSummary, Subflow,
};
use umptcp_types::Instant;

/// The number of a connection.
pub(super) fn connection_number(id: ConnectionId) -> u64 {
    id.0
}

/// The connection of a number.
pub(super) fn connection_id(number: u64) -> Option<ConnectionId> {
    Some(ConnectionId(number))
}

/// The name of a path; one that has gone has none any more.
pub(super) fn path_name(paths: &[PathInfo], id: PathId) -> String {
    let known = paths.iter().find(|p| p.id == id).map(|p| p.name.clone());
    known.unwrap_or_else(|| format!("path{}", id.0))
}

/// The end of a subflow as the network sees it.
pub(super) fn public(paths: &[PathInfo], path: PathId, own: SocketAddr) -> SocketAddr {
    let address = paths.iter().find(|p| p.id == path).and_then(|p| p.public_address(own.ip()));
    SocketAddr::new(address.unwrap_or(own.ip()), own.port())
}

/// The same where the path is not known: each of the stack's addresses is on one.
pub(super) fn public_anywhere(paths: &[PathInfo], own: SocketAddr) -> SocketAddr {
    let address = paths.iter().find_map(|p| p.public_address(own.ip()));
    SocketAddr::new(address.unwrap_or(own.ip()), own.port())
}

/// The connection is the side between the program and umptcp.
pub(super) fn is_captured(paths: &[PathInfo], subflows: &[SubflowInfo]) -> bool {
    subflows.first().is_some_and(|s| paths.iter().any(|p| p.id == s.path && p.captures))
}

pub(super) fn connection(
    paths: &[PathInfo],
    id: ConnectionId,
    info: ConnectionInfo,
    subflows: Vec<SubflowInfo>,
    since: impl Fn(Instant) -> u64,
) -> Connection {
    let (mptcp, why_tcp) = match info.mptcp {
        MptcpStatus::Negotiating => (None, None),
        MptcpStatus::Active { .. } => (Some(true), None),
        MptcpStatus::Plain { reason } => (Some(false), Some(reason.to_string())),
    };
    Connection {
        id: connection_number(id),
        state: state(info.state).to_owned(),
        captured: is_captured(paths, &subflows),
        local: public_anywhere(paths, info.local),
        remote: info.remote,
        mptcp,
        why_tcp,
        token: info.token,
        remote_token: info.remote_token,
        write_seq: info.sequence.map(|s| s.write_next),
        snd_una: info.sequence.map(|s| s.send_unacknowledged),
        rcv_nxt: info.sequence.map(|s| s.receive_next),
        checksum: info.checksum,
        congestion: info.congestion,
        scheduler: info.scheduler,
        path_policy: info.path_policy,
        subflows_max: as_u32(info.max_subflows.saturating_sub(1)),
        add_addr_accepted_max: as_u32(info.max_add_addr_accepted),
        bytes_sent: info.bytes_sent,
        bytes_acked: info.bytes_acked,
        bytes_received: info.bytes_received,
        send_queue: info.send_queue,
        receive_queue: info.readable as u64,
        send_buffer: info.send_buffer,
        receive_buffer: info.receive_buffer,
        error: info.error.map(|e| e.to_string()),
        subflows: subflows.into_iter().map(|s| subflow(paths, s, &since)).collect(),
        lost_subflows: info.lost_subflows.iter().map(|lost| lost_subflow(paths, lost)).collect(),
    }
}

fn lost_subflow(paths: &[PathInfo], lost: &umptcp::LostSubflow) -> String {
    let local = public_anywhere(paths, lost.local);
    let reset = lost.reset.map(|r| format!(" ({r})")).unwrap_or_default();
    format!("{} from {local} to {}: {}{reset}", lost.subflow.0, lost.remote, lost.error)
}

fn state(state: ConnectionState) -> &'static str {
    match state {
        ConnectionState::Connecting => "connecting",
        ConnectionState::Established => "established",
        ConnectionState::Closing => "closing",
        ConnectionState::Closed => "closed",
    }
}

/// `since`: milliseconds since a time of the stack's.
fn subflow(paths: &[PathInfo], s: SubflowInfo, since: impl Fn(Instant) -> u64) -> Subflow {
    let local = public(paths, s.path, s.local);
    let health = match s.state {
        "SYN-SENT" | "SYN-RECEIVED" => "opening",
        _ if s.stale => "silent",
        _ if s.health != Health::Good => "suspect",
        _ => "answers",
    };
    Subflow {
        id: s.id.0,
        path: path_name(paths, s.path),
        local,
        own: (local != s.local).then_some(s.local),
        remote: s.remote,
        local_id: s.local_id.0,
        remote_id: s.remote_id.0,
        initial: s.initial,
        mapping: s.received_mapping.map(|m| Mapping {
            seq: m.data_sequence,
            sfseq: m.subflow_sequence,
            ssnoff: m.initial_sequence,
            maplen: m.length,
        }),
        state: s.state.to_owned(),
        backup: s.backup,
        health: health.to_owned(),
        rtt_ms: s.srtt.map(millis),
        rttvar_ms: millis(s.rttvar),
        min_rtt_ms: s.min_rtt.map(millis),
        rto_ms: millis(s.rto),
        mss: s.mss,
        window: s.window,
        ssthresh: s.ssthresh,
        in_flight: s.in_flight,
        pacing_rate: s.pacing_rate,
        bytes_sent: s.bytes_sent,
        bytes_acked: s.bytes_acked,
        bytes_received: s.bytes_received,
        bytes_retrans: s.bytes_retransmitted,
        timeouts: s.timeouts,
        recoveries: s.recoveries,
        lastsnd_ms: s.last_sent.map(&since),
        lastrcv_ms: s.last_received.map(&since),
        lastack_ms: Some(since(s.last_ack)),
    }
}

/// Microseconds are as fine as anybody reads.
fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

pub(super) fn path(path: &PathInfo, traffic: &BTreeMap<String, Traffic>) -> Path {
    let carried = traffic.get(&path.name).copied().unwrap_or_default();
    Path {
        name: path.name.clone(),
        captured: path.captures,
        addresses: path.public_addresses.clone(),
        backup: path.backup,
        bytes_sent: carried.sent,
        bytes_received: carried.received,
    }
}

/// The limits, as Linux counts them: without the initial subflow.
pub(super) fn limits(config: &ConnectionConfig) -> Limits {
    Limits {
        subflows: as_u32(config.max_subflows.saturating_sub(1)),
        add_addr_accepted: as_u32(config.max_add_addr_accepted),
    }
}

/// The name of a counter in `nstat`.
pub(super) fn counter_name(counter: Counter) -> String {
    match counter.name() {
        name if name.starts_with("Tcp") => name.to_owned(),
        name => format!("MPTcpExt{name}"),
    }
}

fn as_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The number by which Linux reports an error.
pub(super) fn error_number(error: &ConnectionError) -> i32 {
    use nix::errno::Errno;

    let number = match error {
        ConnectionError::Refused | ConnectionError::Unreachable(Unreachable::Port) => Errno::ECONNREFUSED,
        ConnectionError::Reset => Errno::ECONNRESET,
        ConnectionError::TimedOut => Errno::ETIMEDOUT,
        ConnectionError::Unreachable(Unreachable::Network) | ConnectionError::NoPath => Errno::ENETUNREACH,
        ConnectionError::Unreachable(Unreachable::Protocol) => Errno::ENOPROTOOPT,
        ConnectionError::Unreachable(_) => Errno::EHOSTUNREACH,
        ConnectionError::Aborted => Errno::ECONNABORTED,
        ConnectionError::SendClosed => Errno::EPIPE,
        ConnectionError::NotConnected | ConnectionError::NotFound => Errno::ENOTCONN,
        ConnectionError::Resources => Errno::ENOBUFS,
        ConnectionError::Broken => Errno::EPROTO,
    };
    number as i32
}

/// What became of connections that were captured, those that have ended and those that go on, and what they have
/// sent and received by each path.
pub(crate) fn run_summary(
    total: &ForwardSummary,
    open: &[Forwarded],
    carried: BTreeMap<String, Traffic>,
) -> RunSummary {
    let path = |(path, t): (String, Traffic)| PathTraffic { path, sent: t.sent, received: t.received };
    let mut tcp = total.tcp.clone();
    for why in open.iter().filter_map(|c| c.mptcp?.err()) {
        *tcp.entry(why.to_string()).or_default() += 1;
    }
    RunSummary {
        connections: total.joined,
        mptcp: total.mptcp + open.iter().filter(|c| c.mptcp == Some(Ok(()))).count() as u64,
        tcp,
        not_established: total.failed.clone(),
        open: open.len() as u64,
        up: total.up + open.iter().map(|c| c.up).sum::<u64>(),
        down: total.down + open.iter().map(|c| c.down).sum::<u64>(),
        paths: carried.into_iter().map(path).collect(),
        last: total.last.iter().chain(open).map(forwarded).collect(),
    }
}

fn forwarded(c: &Forwarded) -> RunConnection {
    RunConnection {
        direction: match c.direction {
            Direction::Out => "out",
            Direction::In => "in",
        }
        .to_owned(),
        client: c.client,
        server: c.server,
        mptcp: c.mptcp.map(|m| m.is_ok()),
        why_tcp: c.mptcp.and_then(|m| m.err()).map(|why| why.to_string()),
        up: c.up,
        down: c.down,
        error: c.failed.map(|error| error.to_string()),
    }
}

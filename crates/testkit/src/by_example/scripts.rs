//! What the examples do. Each asserts that it went as its text says.

use super::exchange::{Exchange, Script};
use umptcp_netsim::middlebox::{RewritePayload, StripMptcp, StripWhere};
use umptcp_netsim::{Direction, FlowId, Link, Pair, PairBuilder, Side};
use umptcp_stack_core::config::{ConnectionConfig, FastClose};
use umptcp_stack_core::error::ConnectionError;
use umptcp_stack_core::stack::MptcpStatus;
use umptcp_stack_core::types::{PathId, SubflowId};

/// Bytes that applications send where the number does not matter.
const SOME: u64 = 100;

/// A path of 10 ms and one of 15 ms each way, without a limit of rate.
fn paths(count: usize) -> PairBuilder {
    [10, 15]
        .iter()
        .take(count)
        .fold(Pair::builder().seed(8684), |b, ms| b.path(Link::unlimited().delay_ms(*ms)))
}

fn status(s: &Script, flow: FlowId, side: Side) -> MptcpStatus {
    let end = s.net.flow(flow).end(side);
    let info = end.connection.and_then(|c| s.net.stack(end.node)?.info(c));
    info.expect("the connection is there").mptcp
}

fn assert_mptcp(s: &Script, flow: FlowId) {
    for side in [Side::Client, Side::Server] {
        let status = status(s, flow, side);
        assert!(matches!(status, MptcpStatus::Active { .. }), "{side:?}: {status:?}");
    }
}

/// Connects, sends `bytes` each way, lets that come to rest, and begins.
fn established(builder: PairBuilder, bytes: u64, subflows: usize) -> (Script, FlowId) {
    let mut s = Script::new(builder);
    let flow = s.net.connect().expect("a connection");
    s.net.transfer(flow, Side::Client, bytes).expect("data");
    s.net.transfer(flow, Side::Server, bytes).expect("data");
    s.net.await_subflows(flow, subflows).expect("subflows");
    s.wait_ms(500);
    assert_mptcp(&s, flow);
    s.begin();
    (s, flow)
}

/// The subflow of `side` on one of its paths.
fn subflow_on(s: &Script, flow: FlowId, side: Side, path: PathId) -> SubflowId {
    let records = &s.net.flow(flow).end(side).subflows;
    records.iter().find(|r| r.path == path && r.closed.is_none()).expect("a subflow on that path").id
}

pub(super) fn handshake() -> Vec<Exchange> {
    let mut s = Script::new(paths(1));
    let flow = s.net.connect().expect("a connection");
    s.net.transfer(flow, Side::Client, SOME).expect("data");
    s.wait_ms(200);
    assert_mptcp(&s, flow);
    vec![s.exchange()]
}

pub(super) fn join() -> Vec<Exchange> {
    let mut s = Script::new(paths(2));
    let flow = s.net.connect().expect("a connection");
    s.begin_with(4);
    s.net.await_subflows(flow, 2).expect("a second subflow");
    s.wait_ms(200);
    assert_mptcp(&s, flow);
    vec![s.exchange()]
}

pub(super) fn dss() -> Vec<Exchange> {
    let config = ConnectionConfig::default().with_scheduler("round-robin").with_checksum(true);
    let (mut s, flow) = established(paths(2).config(config), SOME, 2);
    s.net.transfer(flow, Side::Client, 2800).expect("data");
    s.wait_ms(100);
    assert_eq!(s.net.flow(flow).server.progress.received, SOME + 2800);
    vec![s.exchange()]
}

pub(super) fn reinjection() -> Vec<Exchange> {
    let (mut s, flow) = established(paths(2), SOME, 2);
    let cable = s.net.path_cable(0);
    s.net.cut(cable);
    s.net.transfer(flow, Side::Client, SOME).expect("the data come by the other path");
    s.net.restore(cable);
    s.wait_ms(1000);
    let exchange = s.exchange();
    assert_eq!(exchange.lost(), [1, 2], "what was sent while the path was cut");
    vec![exchange]
}

pub(super) fn data_fin() -> Vec<Exchange> {
    let (mut s, flow) = established(paths(2), SOME, 2);
    s.net.finish(flow, Side::Client);
    s.wait_ms(100);
    assert!(!s.net.flow(flow).is_closed());
    s.net.finish(flow, Side::Server);
    s.net.await_closed(flow).expect("a clean end");
    s.wait_ms(200);
    vec![s.exchange()]
}

pub(super) fn add_addr() -> Vec<Exchange> {
    let server = ConnectionConfig::default().with_advertise_addresses(true);
    let mut s = Script::new(paths(2).multihomed(true).server_config(server));
    let mut spec = s.net.flow_spec();
    spec.paths = vec![PathId(0)];
    let flow = s.net.connect_with(spec).expect("a connection");
    s.begin_with(4);
    s.net.await_subflows(flow, 2).expect("a second subflow");
    s.wait_ms(200);
    assert_mptcp(&s, flow);
    vec![s.exchange()]
}

pub(super) fn remove_addr() -> Vec<Exchange> {
    let (mut s, flow) = established(paths(2), SOME, 2);
    let (client, cable) = (s.net.client(), s.net.path_cable(1));
    s.net.cut(cable);
    s.net.with_stack(client, |now, stack| stack.path_removed(now, PathId(1)));
    s.wait_ms(3000);
    assert_mptcp(&s, flow);
    let server = &s.net.flow(flow).server;
    assert_eq!(server.subflows.iter().filter(|r| r.closed.is_none()).count(), 1);
    let exchange = s.exchange();
    assert_eq!(exchange.lost(), [2, 4, 6, 8], "what the server sends to the address that is gone");
    vec![exchange]
}

pub(super) fn mp_prio() -> Vec<Exchange> {
    let (mut s, flow) = established(paths(2), SOME, 2);
    let subflow = subflow_on(&s, flow, Side::Client, PathId(0));
    let (client, connection) = (s.net.client(), s.net.flow(flow).client.connection.expect("a connection"));
    let asked = s.net.with_stack(client, |now, stack| stack.set_backup(now, connection, subflow, true));
    assert_eq!(asked, Some(Ok(())));
    s.wait_ms(100);
    s.net.transfer(flow, Side::Server, SOME).expect("data");
    s.wait_ms(200);
    vec![s.exchange()]
}

/// A firewall takes MPTCP off the handshake.
fn stripped() -> Exchange {
    let mut s = Script::new(paths(1));
    s.net.middlebox(0, StripMptcp::new(StripWhere::Syn));
    let flow = s.net.connect().expect("a connection");
    s.net.transfer(flow, Side::Client, SOME).expect("data");
    s.wait_ms(200);
    for side in [Side::Client, Side::Server] {
        assert!(matches!(status(&s, flow, side), MptcpStatus::Plain { .. }), "{side:?}");
    }
    s.exchange()
}

/// A box changes the payload of the only subflow.
fn corrupted() -> Exchange {
    let config = ConnectionConfig::default().with_checksum(true);
    let mut s = Script::new(paths(1).config(config));
    // Bytes of the second segment.
    s.net.middlebox(0, RewritePayload::new(Direction::Forward, SOME as u32, 4, *b"ALG!"));
    let flow = s.net.connect().expect("a connection");
    s.net.transfer(flow, Side::Client, SOME).expect("data");
    s.wait_ms(200);
    assert_mptcp(&s, flow);
    s.begin();
    // The network compares what applications read, and would stop at the changed bytes.
    s.net.pause_reading(flow, Side::Server, true);
    s.net.send(flow, Side::Client, SOME);
    s.wait_ms(50);
    s.net.send(flow, Side::Client, SOME);
    s.net.send(flow, Side::Server, SOME);
    s.wait_ms(50);
    s.net.send(flow, Side::Client, SOME);
    s.wait_ms(50);
    for side in [Side::Client, Side::Server] {
        assert!(matches!(status(&s, flow, side), MptcpStatus::Plain { .. }), "{side:?}");
    }
    s.exchange()
}

pub(super) fn fallback() -> Vec<Exchange> {
    vec![stripped(), corrupted()]
}

/// The client aborts.
fn aborted(how: FastClose) -> Exchange {
    let config = ConnectionConfig::default().with_fast_close(how);
    let (mut s, flow) = established(paths(2).config(config), SOME, 2);
    s.net.abort(flow, Side::Client);
    s.wait_ms(500);
    let (_, error) = s.net.flow(flow).server.closed.expect("the server's end is closed");
    assert_eq!(error, Some(ConnectionError::Reset));
    s.exchange()
}

pub(super) fn fast_close() -> Vec<Exchange> {
    vec![aborted(FastClose::Reset), aborted(FastClose::Ack)]
}

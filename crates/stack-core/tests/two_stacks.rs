//! Two stacks joined by perfect wires of a fixed delay: the shortest way from a SYN to a file over two paths.
//! Everything a network can do wrong is netsim's business.

mod common;

use bytes::Bytes;
use common::{Wire, address, listen};
use std::collections::BTreeSet;
use umptcp_stack_core::config::{ConnectOptions, ConnectionConfig, ConnectionOption, Ecn, SynCookiePolicy};
use umptcp_stack_core::device::PathConfig;
use umptcp_stack_core::stack::MptcpStatus;
use umptcp_stack_core::types::{Duration, PathId};

fn bytes(n: usize, seed: u64) -> Vec<u8> {
    let mut x = seed | 1;
    (0..n)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x as u8
        })
        .collect()
}

fn transfer(client_paths: u8, client: ConnectionConfig, server: ConnectionConfig) -> Wire {
    transfer_by(Wire::new(client_paths), client, server)
}

fn transfer_by(mut w: Wire, client: ConnectionConfig, server: ConnectionConfig) -> Wire {
    w.accept = server;
    let remote = listen(&mut w);
    let mut options = ConnectOptions::new(remote);
    options.config = client;
    let c = w.hosts[0].stack.connect(w.now, options).expect("connect");
    w.hosts[0].conn = Some(c);
    w.run(Duration::from_secs(1));
    let s = w.hosts[1].conn.expect("accepted");
    let (up, down) = (bytes(3_000_000, 1), bytes(2_000_000, 2));
    w.write(0, c, up.clone(), true);
    w.write(1, s, down.clone(), false);
    w.run(Duration::from_secs(3));
    assert!(w.hosts[1].ended && !w.hosts[0].ended);
    let now = w.now;
    w.hosts[1].stack.shutdown(now, s).expect("shutdown");
    w.run(Duration::from_secs(100));
    assert!(w.hosts[0].received == down, "downstream bytes differ");
    assert!(w.hosts[1].received == up, "upstream bytes differ");
    assert_eq!(w.hosts[0].closed, Some(None));
    assert_eq!(w.hosts[1].closed, Some(None));
    w
}

#[test]
fn a_file_over_two_paths_both_ways() {
    let w = transfer(2, ConnectionConfig::default(), ConnectionConfig::default());
    let counters = w.hosts[0].stack.counters();
    for (name, value) in counters.iter_nonzero() {
        println!("{name} {value}");
    }
    use umptcp_stack_core::observe::Counter;
    assert_eq!(counters.get(Counter::MPJoinSynAckRx), 1);
    assert_eq!(counters.get(Counter::TcpRetransSegs), 0);
    assert_eq!(counters.get(Counter::TcpTimeouts), 0);
}

#[test]
fn every_packet_of_every_subflow_has_the_connection_s_traffic_class() {
    // Each end's own: expedited forwarding and class selector 1. The two lower bits are not the
    // application's.
    let (client, server) = (0xb8, 0x20);
    let config = |class: u8| ConnectionConfig::default().with_ecn(Ecn::Request).with_traffic_class(class | 3);
    let cookies = [SynCookiePolicy::UnderPressure, SynCookiePolicy::Always];
    for (cookies, mptcp) in cookies.into_iter().flat_map(|cookies| [(cookies, true), (cookies, false)]) {
        for wire in [Wire::new(2), Wire::v6(2)] {
            let wire = Wire { syn_cookies: cookies, ..wire };
            let w = transfer_by(wire, config(client).with_mptcp(mptcp), config(server));
            let paths = if mptcp { 3 } else { 2 };
            assert_eq!(w.classes.len(), paths, "those of the client and one of the server");
            for ((host, path), classes) in &w.classes {
                let class = [client, server][*host];
                // A SYN cookie does not remember that ECN was offered.
                let without_ecn = cookies == SynCookiePolicy::Always && path.0 == 0;
                let ecn = if without_ecn { vec![0] } else { vec![0, 2] };
                let expected: BTreeSet<u8> = ecn.into_iter().map(|ecn| class | ecn).collect();
                assert!(classes.is_subset(&[class, class | 2].into()), "{host} {path} {classes:x?}");
                assert!(classes.is_superset(&expected), "{host} {path} {classes:x?}");
            }
        }
    }
    let w = transfer(2, ConnectionConfig::default(), ConnectionConfig::default());
    assert!(w.classes.values().all(|classes| *classes == [0].into()), "{:x?}", w.classes);
}

#[test]
fn the_traffic_class_changes_while_the_connection_runs() {
    let mut w = Wire::new(2);
    let remote = listen(&mut w);
    let c = w.hosts[0].stack.connect(w.now, ConnectOptions::new(remote)).expect("connect");
    w.hosts[0].stack.send(w.now, c, Bytes::from_static(b"first")).expect("send");
    w.run(Duration::from_secs(1));
    w.classes.clear();
    w.hosts[0].stack.set_option(w.now, c, ConnectionOption::TrafficClass(0x28)).expect("set");
    w.hosts[0].stack.send(w.now, c, bytes(1_000_000, 3).into()).expect("send");
    w.run(Duration::from_secs(3));
    let of_client: Vec<_> = w.classes.iter().filter(|((host, _), _)| *host == 0).map(|(_, c)| c).collect();
    assert_eq!(of_client, [&BTreeSet::from([0x28]), &BTreeSet::from([0x28])]);
    // An abort is of the connection, too.
    w.classes.clear();
    w.hosts[0].stack.abort(w.now, c);
    w.run(Duration::from_secs(1));
    assert_eq!(w.classes[&(0, PathId(0))], [0x28].into());
}

#[test]
fn checksums_when_one_side_asks() {
    let checksum = ConnectionConfig::default().with_checksum(true);
    let w = transfer(2, ConnectionConfig::default(), checksum);
    use umptcp_stack_core::observe::Counter;
    assert_eq!(w.hosts[0].stack.counters().get(Counter::DataCsumErr), 0);
    assert_eq!(w.hosts[1].stack.counters().get(Counter::MPJoinAckRx), 1);
}

#[test]
fn plain_tcp_when_either_side_wants_it() {
    let plain = ConnectionConfig::default().with_mptcp(false);
    for (client, server) in
        [(plain.clone(), ConnectionConfig::default()), (ConnectionConfig::default(), plain.clone())]
    {
        let w = transfer(2, client, server);
        for h in &w.hosts {
            let info = h.stack.info(h.conn.expect("connection")).expect("info");
            assert!(matches!(info.mptcp, MptcpStatus::Plain { .. }), "{:?}", info.mptcp);
        }
    }
}

/// One connection over one path with DSS checksums; the middlebox `change` does its work.
fn transfer_changed(change: fn(usize, u64, &mut Vec<u8>)) -> Wire {
    let config = ConnectionConfig::default().with_checksum(true);
    let mut w = Wire::new(1);
    w.accept = config.clone();
    w.change = change;
    let remote = listen(&mut w);
    let mut options = ConnectOptions::new(remote);
    options.config = config;
    let c = w.hosts[0].stack.connect(w.now, options).expect("connect");
    w.hosts[0].conn = Some(c);
    w.run(Duration::from_secs(1));
    let s = w.hosts[1].conn.expect("accepted");
    for (h, conn, seed) in [(0, c, 1), (1, s, 2)] {
        w.write(h, conn, bytes(400_000, seed), true);
    }
    w.run(Duration::from_secs(100));
    w
}

#[test]
fn a_payload_changed_on_the_only_path_ends_in_plain_tcp_on_both_sides() {
    use umptcp_stack_core::error::FallbackReason;
    // One byte of one packet of the client's, early or late; of the server's; and of both.
    let cases: [fn(usize, u64, &mut Vec<u8>); 4] = [
        |h, n, p| flip(h == 0 && n > 10, p),
        |h, n, p| flip(h == 0 && n > 60, p),
        |h, n, p| flip(h == 1 && n > 20, p),
        |_, n, p| flip(n > 30, p),
    ];
    for change in cases {
        let w = transfer_changed(change);
        let reasons = w.hosts.each_ref().map(|h| match h.stack.info(h.conn.expect("connection")) {
            Some(info) => match info.mptcp {
                MptcpStatus::Plain { reason } => reason,
                other => panic!("{other:?}"),
            },
            None => panic!("no connection"),
        });
        let expected =
            [FallbackReason::ChecksumFailure, FallbackReason::MpFail, FallbackReason::InfiniteMapping];
        assert!(reasons.iter().all(|r| expected.contains(r)), "{reasons:?}");
        // What plain TCP would have delivered: every byte in its place, and the changed ones changed.
        for (h, seed) in [(0, 2), (1, 1)] {
            let (got, sent) = (&w.hosts[h].received, bytes(400_000, seed));
            assert_eq!(got.len(), sent.len(), "{reasons:?}");
            assert!(got.iter().zip(&sent).all(|(g, s)| g == s || g ^ s == 0x20));
            assert_eq!(w.hosts[h].closed, Some(None), "{reasons:?}");
        }
    }
}

/// Changes the middle byte of a large payload.
fn flip(when: bool, payload: &mut [u8]) {
    if when && payload.len() > 1000 {
        let at = payload.len() / 2;
        payload[at] ^= 0x20;
    }
}

#[test]
fn a_server_without_memory_speaks_mptcp_all_the_same() {
    use umptcp_stack_core::observe::Counter;
    let checksum = ConnectionConfig::default().with_checksum(true);
    let plain = ConnectionConfig::default().with_mptcp(false);
    for (client, joins) in [(ConnectionConfig::default(), 1), (checksum, 1), (plain, 0)] {
        let w = transfer_by(
            Wire { syn_cookies: SynCookiePolicy::Always, ..Wire::new(2) },
            client,
            ConnectionConfig::default(),
        );
        let counters = w.hosts[1].stack.counters();
        assert_eq!(counters.get(Counter::TcpSyncookiesSent), 1);
        assert_eq!(counters.get(Counter::TcpSyncookiesRecv), 1);
        assert_eq!(counters.get(Counter::MPJoinAckRx), joins);
        assert_eq!(counters.get(Counter::TcpTimeouts), 0);
    }
}

#[test]
fn a_path_that_comes_is_used_by_many_connections_some_at_a_time() {
    let mut w = Wire::new(1);
    let remote = listen(&mut w);
    let mut connections = Vec::new();
    for _ in 0..250 {
        let c = w.hosts[0].stack.connect(w.now, ConnectOptions::new(remote)).expect("connect");
        connections.push(c);
        w.run(Duration::from_millis(20));
        assert_eq!(w.hosts[0].stack.send(w.now, c, Bytes::from_static(b"x")), Ok(1));
        w.run(Duration::from_millis(20));
    }
    assert!(w.in_flight.is_empty());
    w.hosts[0].stack.path_added(w.now, PathConfig::new("nic1", address(1, 1)));
    w.poll(0);
    assert_eq!(w.in_flight.len(), 100, "SYNs in the first moment");
    w.run(Duration::from_millis(100));
    assert!(connections.iter().all(|c| w.hosts[0].stack.subflows(*c).len() == 2));
}

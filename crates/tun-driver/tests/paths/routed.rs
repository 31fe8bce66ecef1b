//! Mode `routed`: an address of its own, no NAT.

use crate::network::{
    Flow, Ns, PATIENCE, QUIET, Segment, TestNetwork, assert_unchanged, echo_client, options, send,
};
use std::net::IpAddr;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Routes on the server to the paths' addresses.
fn route_to_paths(server: &Ns) {
    for n in 0..2 {
        server.ip(&format!("route add 198.51.100.{n} via 10.{n}.0.2"));
        server.ip(&format!("route add 2001:db8:10::1{n} via 2001:db8:a{n}::2"));
    }
}

const SPECS: [&str; 2] = [
    "eth0,address=198.51.100.0,address=2001:db8:10::10,mode=routed",
    "eth1,address=198.51.100.1,address=2001:db8:10::11,mode=routed",
];

#[test]
fn each_path_s_packets_leave_by_its_nic_and_answers_come_back() {
    let network = TestNetwork::new();
    route_to_paths(&network.server);
    network.server.echo_server("[::]:80");
    let before = network.client.state();
    let set = network.client.set_up(&SPECS, &options()).unwrap();
    let tap = network.server.tap();
    for (n, path) in set.paths.iter().enumerate() {
        let index = network.server.index(&format!("eth{n}"));
        for (local, remote) in [
            (format!("198.51.100.{n}"), "192.0.2.9:80".to_owned()),
            (format!("198.51.100.{n}"), format!("10.{n}.0.1:80")),
            (format!("2001:db8:10::1{n}"), "[2001:db8:9::9]:80".to_owned()),
            (format!("2001:db8:10::1{n}"), format!("[2001:db8:a{n}::1]:80")),
        ] {
            tap.clear();
            let mut flow = Flow::connect(&path.tun, (ip(&local), 5000 + n as u16), &remote);
            flow.echo("over this NIC");
            let (by, syn) = tap.find(PATIENCE, |s| s.flags == "S").unwrap();
            assert_eq!((by, syn.source.ip()), (index, ip(&local)), "{remote}");
        }
    }
    drop(set);
    assert_unchanged(&network.client, &before);
}

#[test]
fn takes_connections_from_the_network_and_from_this_host() {
    let network = TestNetwork::new();
    route_to_paths(&network.server);
    let set = network.client.set_up(&SPECS, &options()).unwrap();
    for (ns, address) in [
        (&network.server, "198.51.100.0:22"),
        (&network.server, "[2001:db8:10::10]:22"),
        (&network.client, "198.51.100.0:22"),
        (&network.client, "[2001:db8:10::10]:22"),
    ] {
        let client = echo_client(ns, address);
        let mut flow = Flow::accept(&set.paths[0].tun, 22);
        assert_eq!(flow.answer(), b"hello");
        client.join().unwrap();
    }
}

#[test]
fn a_wrong_source_does_not_leave() {
    let network = TestNetwork::new();
    route_to_paths(&network.server);
    let set = network.client.set_up(&SPECS, &options()).unwrap();
    let tap = network.server.tap();
    let tun = &set.paths[0].tun;
    for source in ["203.0.113.7:1", "[2001:db8:77::7]:1"] {
        let destination = if source.starts_with('[') { "[2001:db8:9::9]:80" } else { "192.0.2.9:80" };
        let stray = Segment {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            sequence: 1,
            acknowledgment: 0,
            flags: "S".into(),
            payload: Vec::new(),
        };
        send(tun, &stray);
        assert_eq!(tap.find(QUIET, |s| s.source == stray.source), None);
        // Without the rule that drops it, it follows the main table.
        let family = if source.starts_with('[') { "-6" } else { "-4" };
        network.client.ip(&format!("{family} rule add iif {} priority 1401 lookup main", tun.name()));
        send(tun, &stray);
        assert!(tap.find(PATIENCE, |s| s.source == stray.source).is_some());
    }
}

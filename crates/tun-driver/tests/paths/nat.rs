//! Mode `nat`: a private address, masqueraded to the NIC's.

use crate::lab::{Flow, Lab, PATIENCE, assert_unchanged, echo_client, options};
use std::net::SocketAddr;
use umptcp_stack_core::interface::PathKind;
use umptcp_tun_driver::paths::SetupOptions;

#[test]
fn packets_leave_by_the_nic_with_its_address_and_a_reserved_port() {
    let lab = Lab::new();
    lab.server.echo_server("[::]:80");
    let before = lab.client.state();
    let set = lab.client.set_up(&["eth0", "eth1"], &options()).unwrap();
    let range = set.port_range().unwrap();
    let tap = lab.server.tap();
    for (n, path) in set.paths.iter().enumerate() {
        let index = lab.server.index(&format!("eth{n}"));
        assert_eq!(path.config.kind, PathKind::Nat);
        assert_eq!(path.config.addresses.len(), 2);
        let advertised: Vec<String> = path.config.advertise.iter().map(ToString::to_string).collect();
        assert_eq!(advertised, [format!("10.{n}.0.2"), format!("2001:db8:a{n}::2")]);
        for (own, nic, remotes) in [
            (
                path.config.addresses[0],
                advertised[0].clone(),
                ["192.0.2.9:80".to_owned(), format!("10.{n}.0.1:80")],
            ),
            (
                path.config.addresses[1],
                advertised[1].clone(),
                ["[2001:db8:9::9]:80".to_owned(), format!("[2001:db8:a{n}::1]:80")],
            ),
        ] {
            for (remote, port) in remotes.iter().zip([*range.start() + 5, 1234]) {
                tap.clear();
                let mut flow = Flow::connect(&path.tun, (own, port), remote);
                flow.echo("translated");
                let (by, syn) = tap.find(PATIENCE, |s| s.flags == "S").unwrap();
                assert_eq!((by, syn.source.ip().to_string()), (index, nic.clone()));
                assert!(range.contains(&syn.source.port()), "{syn:?} not in {range:?}");
                if range.contains(&port) {
                    assert_eq!(syn.source.port(), port, "a port of the range stays as it is");
                }
            }
        }
    }
    drop(set);
    assert_unchanged(&lab.client, &before);
}

#[test]
fn takes_connections_to_the_nic_s_address_from_the_network_and_from_this_host() {
    let lab = Lab::new();
    let options = SetupOptions { listen_ports: vec![22], ..options() };
    let set = lab.client.set_up(&["eth0"], &options).unwrap();
    set.listen(23).unwrap();
    for (ns, address) in [
        (&lab.server, "10.0.0.2:22"),
        (&lab.server, "[2001:db8:a0::2]:22"),
        (&lab.client, "10.0.0.2:22"),
        (&lab.client, "[2001:db8:a0::2]:22"),
        (&lab.server, "10.0.0.2:23"),
        (&lab.client, "[2001:db8:a0::2]:23"),
    ] {
        let address: SocketAddr = address.parse().unwrap();
        let client = echo_client(ns, &address.to_string());
        let mut flow = Flow::accept(&set.paths[0].tun, address.port());
        assert!(set.paths[0].config.addresses.contains(&flow.local.ip()));
        assert_eq!(flow.answer(), b"hello");
        client.join().unwrap();
    }
}

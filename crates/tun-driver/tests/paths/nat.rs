//! Mode `nat`: a private address, masqueraded to the NIC's.

use crate::network::{Flow, PATIENCE, TestNetwork, assert_unchanged, echo_client, options};
use std::net::{IpAddr, SocketAddr};
use umptcp_stack_core::device::PathKind;
use umptcp_tun_driver::device::Offload;

#[test]
fn packets_leave_by_the_nic_with_its_address_and_a_reserved_port() {
    let network = TestNetwork::new();
    network.server.echo_server("[::]:80");
    let before = network.client.state();
    let set = network.client.set_up(&["eth0", "eth1"], &options()).unwrap();
    let range = set.port_range().unwrap();
    // One range, of which the last ones are for connections from other ports.
    let reserved = network.client.read("net/ipv4/ip_local_reserved_ports");
    let (first, last) = reserved.split_once('-').unwrap();
    let reserved = first.parse().unwrap()..=last.parse().unwrap();
    assert!(reserved.start() == range.start() && reserved.end() > range.end(), "{range:?} of {reserved:?}");
    let tap = network.server.tap();
    for (n, path) in set.paths.iter().enumerate() {
        let index = network.server.index(&format!("eth{n}"));
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
                assert!(reserved.contains(&syn.source.port()), "{syn:?} not in {reserved:?}");
                if range.contains(&port) {
                    assert_eq!(syn.source.port(), port, "a port of the range stays as it is");
                }
            }
        }
    }
    drop(set);
    assert_unchanged(&network.client, &before);
}

#[test]
fn takes_connections_to_the_nic_s_address_from_the_network_and_from_this_host() {
    let network = TestNetwork::new();
    let options = options().listen_ports(vec![22]);
    let set = network.client.set_up(&["eth0"], &options).unwrap();
    set.listen(23).unwrap();
    for (ns, address) in [
        (&network.server, "10.0.0.2:22"),
        (&network.server, "[2001:db8:a0::2]:22"),
        (&network.client, "10.0.0.2:22"),
        (&network.client, "[2001:db8:a0::2]:22"),
        (&network.server, "10.0.0.2:23"),
        (&network.client, "[2001:db8:a0::2]:23"),
    ] {
        let address: SocketAddr = address.parse().unwrap();
        let client = echo_client(ns, &address.to_string());
        let mut flow = Flow::accept(&set.paths[0].tun, address.port());
        assert!(set.paths[0].config.addresses.contains(&flow.local.ip()));
        assert_eq!(flow.answer(), b"hello");
        client.join().unwrap();
    }
}

/// The weak host model of RFC 1122 §3.3.4.2, which is Linux's: subflows of a Linux client come that way if an
/// endpoint names a device.
#[test]
fn takes_connections_to_the_nic_s_address_by_another_path_s_nic() {
    let network = TestNetwork::new();
    let set = network.client.set_up(&["eth0", "eth1"], &options().listen_ports(vec![22])).unwrap();
    network.server.ip("route add 10.0.0.2/32 via 10.1.0.2 dev eth1");
    network.server.ip("-6 route add 2001:db8:a0::2/128 via 2001:db8:a1::2 dev eth1");
    for address in ["10.0.0.2:22", "[2001:db8:a0::2]:22"] {
        let client = echo_client(&network.server, address);
        let mut flow = Flow::accept(&set.paths[0].tun, 22);
        assert_eq!(flow.answer(), b"hello");
        client.join().unwrap();
    }
}

/// The same by a NIC that has no path, on a host that forwards what it receives there.
#[test]
fn takes_connections_to_the_nic_s_address_by_a_nic_without_a_path() {
    for stateless in [true, false] {
        let network = TestNetwork::new();
        network.client.sysctl("net/ipv4/conf/eth1/forwarding", "1");
        network.client.sysctl("net/ipv6/conf/all/forwarding", "1");
        let options = options().listen_ports(vec![22]).stateless(stateless);
        let set = network.client.set_up(&["eth0"], &options).unwrap();
        network.server.ip("route add 10.0.0.2/32 via 10.1.0.2 dev eth1");
        network.server.ip("-6 route add 2001:db8:a0::2/128 via 2001:db8:a1::2 dev eth1");
        for address in ["10.0.0.2:22", "[2001:db8:a0::2]:22"] {
            let client = echo_client(&network.server, address);
            assert_eq!(Flow::accept(&set.paths[0].tun, 22).answer(), b"hello");
            client.join().unwrap();
        }
    }
}

#[test]
fn takes_the_families_that_the_nic_has() {
    let network = TestNetwork::new();
    network.client.ip("-6 address flush dev eth0 scope global");
    network.client.ip("-4 address flush dev eth1");
    network.server.echo_server("[::]:80");
    let set = network.client.set_up(&["eth0", "eth1"], &options()).unwrap();
    let [v4, v6] = &set.paths[..] else { panic!("not two paths") };
    assert!(
        v4.config.addresses.iter().all(IpAddr::is_ipv4) && v6.config.addresses.iter().all(IpAddr::is_ipv6)
    );
    Flow::connect(&v4.tun, (v4.config.addresses[0], 5000), "10.0.0.1:80").echo("IPv4 only");
    Flow::connect(&v6.tun, (v6.config.addresses[0], 5000), "[2001:db8:a1::1]:80").echo("IPv6 only");
    assert!(!v4.has_route("2001:db8:9::9".parse().unwrap()).unwrap());
    // Listening applies only to the path's families: no ports are held on the others.
    set.listen(22).unwrap();
}

#[test]
fn what_is_said_of_a_path_is_passed_on() {
    let network = TestNetwork::new();
    network.server.echo_server("[::]:80");
    let set = network
        .client
        .set_up(&["eth0,address=10.77.0.1,advertise=203.0.113.5,backup,weight=7", "eth1"], &options())
        .unwrap();
    let config = &set.paths[0].config;
    assert_eq!(config.name, "eth0");
    assert_eq!(config.addresses, ["10.77.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(config.advertise, ["203.0.113.5".parse::<IpAddr>().unwrap()]);
    assert!(config.backup && config.weight == 7 && config.mtu == 1500 && config.max_packet == 1500);
    assert!(!set.paths[1].config.backup && set.paths[1].config.weight == 1);
    Flow::connect(&set.paths[0].tun, (config.addresses[0], 5000), "10.0.0.1:80").echo("chosen address");
    drop(set);
    let set = network.client.set_up(&["eth0"], &options().offload(Offload::Auto)).unwrap();
    assert!(set.paths[0].config.checksum_offload && set.paths[0].config.max_packet == 65535);
}

/// If the kernel is configured to pass small segments or single packets to a NIC, we do so too.
#[test]
fn segments_are_no_larger_than_the_nic_is_given_by_the_kernel() {
    let network = TestNetwork::new();
    for (limit, expected) in
        [("gso_max_size 20000", 20_000), ("gso_max_segs 4", 4 * 1_500), ("gso_max_segs 1", 1_500)]
    {
        network.client.ip(&format!("link set eth0 {limit}"));
        let set = network.client.set_up(&["eth0"], &options().offload(Offload::Auto)).unwrap();
        assert_eq!(set.paths[0].config.max_packet, expected, "{limit}");
    }
}

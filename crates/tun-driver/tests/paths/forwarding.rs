//! Forwarding is enabled between a path and its NIC and nowhere else, and restored when the path is removed.

use crate::network::{
    Flow, Ns, PATIENCE, QUIET, Segment, TestNetwork, assert_unchanged, options, wait_until,
};
use std::net::IpAddr;

/// A segment from the server that the client would have to forward through its other NIC.
fn through_client(v6: bool) -> Segment {
    let (source, destination) =
        if v6 { ("[2001:db8:a0::1]:5", "[2001:db8:77::7]:6") } else { ("10.0.0.1:5", "203.0.113.7:6") };
    Segment {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        sequence: 1,
        acknowledgment: 0,
        flags: "S".into(),
        payload: Vec::new(),
    }
}

/// A third host behind the client's second NIC, to which the server sends via the client.
fn network() -> (TestNetwork, Ns) {
    let network = TestNetwork::new();
    let third = Ns::new();
    network.client.link("eth2", &third, "eth2");
    for (ns, host) in [(&network.client, 2), (&third, 3)] {
        ns.address("eth2", &format!("10.2.0.{host}/24"));
        ns.address("eth2", &format!("2001:db8:a2::{host}/64"));
    }
    network.client.ip("route add 203.0.113.0/24 via 10.2.0.3");
    network.client.ip("route add 2001:db8:77::/64 via 2001:db8:a2::3");
    network.server.ip("route add 203.0.113.0/24 via 10.0.0.2");
    network.server.ip("route add 2001:db8:77::/64 via 2001:db8:a0::2");
    (network, third)
}

fn passes(network: &TestNetwork, third: &Ns, v6: bool) -> bool {
    let tap = third.tap();
    let segment = through_client(v6);
    network.server.inject(&segment);
    tap.find(QUIET, |s| s.destination == segment.destination).is_some()
}

const ROUTED: &str = "eth0,address=198.51.100.1,address=2001:db8:10::1,mode=routed";

#[test]
fn a_host_that_did_not_forward_still_forwards_nothing_else() {
    for spec in ["eth0", ROUTED] {
        let (network, third) = network();
        let before = network.client.state();
        for v6 in [false, true] {
            assert!(!passes(&network, &third, v6));
        }
        let set = network.client.set_up(&[spec], &options()).unwrap();
        for v6 in [false, true] {
            assert!(!passes(&network, &third, v6), "{spec}, IPv6: {v6}");
        }
        // Without the rule it does.
        if spec == "eth0" {
            network.client.delete_rules(set.paths[0].tun.name(), "forward", "closed");
        } else {
            // Overtaken: it would be put back if it were deleted.
            network.client.ip("-4 rule add iif eth0 priority 1401 lookup main");
            network.client.ip("-6 rule add iif eth0 priority 1401 lookup main");
        }
        for v6 in [false, true] {
            assert!(passes(&network, &third, v6), "this test shows nothing for {spec}, IPv6: {v6}");
        }
        if spec != "eth0" {
            network.client.ip("-4 rule del iif eth0 priority 1401");
            network.client.ip("-6 rule del iif eth0 priority 1401");
        }
        drop(set);
        assert_unchanged(&network.client, &before);
    }
}

#[test]
fn a_router_goes_on_forwarding() {
    for spec in ["eth0", ROUTED] {
        let (network, third) = network();
        network.client.sysctl("net/ipv4/ip_forward", "1");
        network.client.sysctl("net/ipv6/conf/all/forwarding", "1");
        let before = network.client.state();
        let set = network.client.set_up(&[spec], &options()).unwrap();
        for v6 in [false, true] {
            assert!(passes(&network, &third, v6), "{spec}, IPv6: {v6}");
        }
        drop(set);
        assert_unchanged(&network.client, &before);
    }
}

#[test]
fn a_host_made_a_router_meanwhile_stays_one() {
    let (network, third) = network();
    let set = network.client.set_up(&["eth0"], &options()).unwrap();
    // Like Docker when it starts.
    network.client.sysctl("net/ipv4/ip_forward", "1");
    drop(set);
    assert!(passes(&network, &third, false));
}

#[test]
fn a_strict_reverse_path_filter_is_no_hindrance() {
    for spec in ["eth1", "eth1,address=198.51.100.1,address=2001:db8:10::1,mode=routed"] {
        let network = TestNetwork::new();
        network.client.sysctl("net/ipv4/conf/all/rp_filter", "1");
        network.client.sysctl("net/ipv4/conf/default/rp_filter", "1");
        network.server.echo_server("[::]:80");
        network.server.ip("route add 198.51.100.1 via 10.1.0.2");
        let options = options().listen_ports(vec![22]);
        let set = network.client.set_up(&[spec], &options).unwrap();
        let path = &set.paths[0];
        // The host itself would reach this server through the other NIC.
        let own = path.config.addresses[0];
        Flow::connect(&path.tun, (own, 44000), "192.0.2.9:80").echo("by the second NIC");
        let seen = path.config.advertise.first().unwrap_or(&own);
        let client =
            crate::network::echo_client(&network.server, &std::net::SocketAddr::new(*seen, 22).to_string());
        Flow::accept(&path.tun, 22).answer();
        client.join().unwrap();
    }
}

#[test]
fn only_the_nic_s_own_setting_changes() {
    let network = TestNetwork::new();
    let _set = network.client.set_up(&["eth0"], &options()).unwrap();
    let is = |name: &str, value: &str| {
        assert_eq!(network.client.read(&format!("net/{name}")), value, "{name}");
    };
    is("ipv4/conf/eth0/forwarding", "1");
    is("ipv6/conf/eth0/force_forwarding", "1");
    for device in ["all", "default", "eth1"] {
        is(&format!("ipv4/conf/{device}/forwarding"), "0");
        is(&format!("ipv6/conf/{device}/forwarding"), "0");
    }
    is("ipv6/conf/eth0/forwarding", "0");
    is("ipv6/conf/eth1/force_forwarding", "0");
}

#[test]
fn without_forwarding_nothing_comes_through() {
    let network = TestNetwork::new();
    network.server.echo_server("[::]:80");
    let set = network.client.set_up(&["eth0"], &options()).unwrap();
    let path = &set.paths[0];
    for (i, server, settings) in [
        (0, "10.0.0.1:80", ["net/ipv4/conf/eth0/forwarding", "net/ipv4/conf/TUN/forwarding"]),
        (
            1,
            "[2001:db8:a0::1]:80",
            ["net/ipv6/conf/eth0/force_forwarding", "net/ipv6/conf/TUN/force_forwarding"],
        ),
    ] {
        for (n, setting) in settings.into_iter().enumerate() {
            let setting = setting.replace("TUN", path.tun.name());
            let local = |port| (path.config.addresses[i], port).into();
            let remote = server.parse().unwrap();
            let port = 42000 + 2 * n as u16;
            network.client.sysctl(&setting, "0");
            assert!(
                Flow::try_connect(&path.tun, local(port), remote, QUIET).is_none(),
                "{setting} is of no use"
            );
            network.client.sysctl(&setting, "1");
            assert!(Flow::try_connect(&path.tun, local(port + 1), remote, PATIENCE).is_some());
        }
    }
}

/// Sends a router advertisement that makes the server the client's default router.
fn advertise(server: &Ns) {
    server.run(|| {
        use nix::sys::socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, sendto, setsockopt,
            socket, sockopt,
        };
        use std::os::fd::AsRawFd;
        let fd = socket(AddressFamily::Inet6, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::IcmpV6)
            .unwrap();
        // RFC 4861 §6.1.2: a hop limit of 255, and a link-local source.
        setsockopt(&fd, sockopt::Ipv6MulticastHops, &255).unwrap();
        let index = nix::net::if_::if_nametoindex("eth0").unwrap();
        let everybody =
            SockaddrIn6::from(std::net::SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, index));
        let message = [134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
        sendto(fd.as_raw_fd(), &message, &everybody, MsgFlags::empty()).unwrap();
    });
}

#[test]
fn before_linux_6_17_all_interfaces_forward_ipv6_and_still_learn_from_routers() {
    let old = options().force_forwarding(false);
    for spec in ["eth0", ROUTED] {
        let (network, third) = network();
        network.server.echo_server("[::]:80");
        network.server.ip("route add 2001:db8:10::1 via 2001:db8:a0::2");
        network.client.ip("-6 route flush default");
        let learnt = || network.client.ip("-6 route show default table main").contains("proto ra");
        wait_until("a route is learnt", || {
            advertise(&network.server);
            learnt()
        });
        let before = network.client.state();
        let set = network.client.set_up(&[spec], &old).unwrap();
        assert!(learnt(), "the route learnt from the router is gone");
        let path = &set.paths[0];
        let own = path.config.addresses[1];
        Flow::connect(&path.tun, (own, 43000), "[2001:db8:9::9]:80").echo("by the router");
        assert!(!passes(&network, &third, true), "the host forwards other packets too");
        network.client.ip("-6 route flush default");
        wait_until("a route is learnt while forwarding", || {
            advertise(&network.server);
            learnt()
        });
        // Overtakes the rule that drops them, which would be put back if it were deleted.
        network.client.ip("-6 rule add priority 1402 lookup main");
        if spec == "eth0" {
            network.client.delete_rules(path.tun.name(), "forward", "drop");
        }
        assert!(passes(&network, &third, true), "otherwise this test proves nothing");
        network.client.ip("-6 rule del priority 1402 lookup main");
        drop(set);
        assert!(learnt());
        assert_unchanged(&network.client, &before);
    }
    // Without accept_ra=2 the route disappears as soon as the host forwards.
    let network = TestNetwork::new();
    network.client.ip("-6 route flush default");
    wait_until("a route is learnt", || {
        advertise(&network.server);
        network.client.ip("-6 route show default").contains("proto ra")
    });
    network.client.sysctl("net/ipv6/conf/all/forwarding", "1");
    assert!(
        !network.client.ip("-6 route show default").contains("proto ra"),
        "otherwise this test proves nothing"
    );
}

#[test]
fn a_nic_that_answers_for_an_ipv6_address_still_learns_from_routers() {
    let network = TestNetwork::new();
    network.client.ip("-6 route flush default");
    let learnt = || network.client.ip("-6 route show default table main").contains("proto ra");
    wait_until("a route is learnt", || {
        advertise(&network.server);
        learnt()
    });
    let before = network.client.state();
    let set = network.client.set_up(&["eth0,address=2001:db8:a0::7,mode=routed"], &options()).unwrap();
    assert!(learnt(), "the route learnt from the router is gone");
    network.client.ip("-6 route flush default");
    wait_until("a route is learnt", || {
        advertise(&network.server);
        learnt()
    });
    drop(set);
    assert!(learnt());
    assert_unchanged(&network.client, &before);
}

#[test]
fn a_stranger_cannot_reach_the_private_address_by_way_of_the_host() {
    let network = TestNetwork::new();
    for stateless in [true, false] {
        let set = network.client.set_up(&["eth0"], &options().stateless(stateless)).unwrap();
        let path = &set.paths[0];
        let reaches = || {
            path.config.addresses.iter().any(|own: &IpAddr| {
                let gateway = if own.is_ipv6() { "2001:db8:a0::2" } else { "10.0.0.2" };
                network.server.ip(&format!("route replace {own} via {gateway}"));
                let source = if own.is_ipv6() { "2001:db8:a0::1" } else { "10.0.0.1" };
                let source = std::net::SocketAddr::new(source.parse().unwrap(), 5);
                let segment = Segment { source, destination: (*own, 6).into(), ..through_client(false) };
                network.server.inject(&segment);
                crate::network::receive(&path.tun, QUIET, |s| s.source == source).is_some()
            })
        };
        assert!(!reaches());
        // Without connection tracking, two rules prevent it.
        if stateless {
            network.client.delete_rules(path.tun.name(), "private", "drop");
            assert!(!reaches());
        }
        network.client.delete_rules(path.tun.name(), "forward", "oifname");
        assert!(reaches(), "otherwise this test proves nothing");
    }
}

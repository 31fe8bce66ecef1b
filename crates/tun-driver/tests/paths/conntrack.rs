//! Where translation uses conntrack: packets that it does not translate must reach neither the host's TCP nor
//! the network, and nothing else uses the ports it translates to.

use crate::network::{Flow, Ns, PATIENCE, QUIET, Segment, Tap, TestNetwork, send};
use std::net::{SocketAddr, TcpListener};
use umptcp_tun_driver::paths::{PathSet, SetupOptions};

fn options() -> SetupOptions {
    crate::network::options().stateless(false)
}

const SERVERS: [&str; 2] = ["10.0.0.1:80", "[2001:db8:a0::1]:80"];

/// The path's flow to a server, and the NIC's address and port as seen by the server.
fn connect<'a>(set: &'a PathSet, tap: &Tap, server: &str, port: u16) -> (Flow<'a>, SocketAddr) {
    let path = &set.paths[0];
    let v6 = server.starts_with('[');
    tap.clear();
    let flow = Flow::connect(&path.tun, (path.config.addresses[usize::from(v6)], port), server);
    let (_, syn) = tap.find(PATIENCE, |s| s.flags == "S").unwrap();
    (flow, syn.source)
}

/// A segment from the server, but far outside the window.
fn outside(flow: &Flow<'_>, nic: SocketAddr) -> Segment {
    Segment {
        source: flow.remote,
        destination: nic,
        sequence: flow.acknowledgment.wrapping_add(1_000_000_000),
        acknowledgment: flow.sequence,
        flags: "PA".into(),
        payload: b"late".to_vec(),
    }
}

fn reset_by(tap: &Tap, nic: SocketAddr) -> bool {
    tap.find(QUIET, |s| s.source == nic && s.flags.contains('R')).is_some()
}

#[test]
fn an_invalid_segment_does_not_make_the_host_reset_the_connection() {
    let network = TestNetwork::new();
    network.server.echo_server("[::]:80");
    let set = network.client.set_up(&["eth0"], &options()).unwrap();
    let tap = network.server.tap();
    let first = *set.port_range().unwrap().start();
    for server in SERVERS {
        let (mut flow, nic) = connect(&set, &tap, server, first + 1);
        tap.clear();
        network.server.inject(&outside(&flow, nic));
        assert!(!reset_by(&tap, nic), "the host answered for {server}");
        flow.echo("still there");
    }
    // Without the rule it does, and the server aborts the connection.
    network.client.delete_rules(set.paths[0].tun.name(), "invalid", "inward");
    for server in SERVERS {
        let (flow, nic) = connect(&set, &tap, server, first + 2);
        tap.clear();
        network.server.inject(&outside(&flow, nic));
        assert!(reset_by(&tap, nic), "this test shows nothing for {server}");
    }
}

#[test]
fn an_invalid_segment_to_a_port_the_stack_listens_on_does_not_either() {
    let network = TestNetwork::new();
    let set = network.client.set_up(&["eth0"], &options().listen_ports(vec![22])).unwrap();
    let tun = &set.paths[0].tun;
    let tap = network.server.tap();
    for nic in ["10.0.0.2:22", "[2001:db8:a0::2]:22"] {
        for with_rule in [true, false] {
            if !with_rule && nic.starts_with('1') {
                network.client.delete_rules(tun.name(), "invalid", "@listen");
            }
            if !with_rule && nic.starts_with('[') {
                continue;
            }
            let client = crate::network::echo_client(&network.server, nic);
            let mut flow = Flow::accept(tun, 22);
            tap.clear();
            let nic: SocketAddr = nic.parse().unwrap();
            network.server.inject(&outside(&flow, nic));
            assert_eq!(reset_by(&tap, nic), !with_rule, "{nic}, with the rule: {with_rule}");
            if with_rule {
                flow.answer();
                client.join().unwrap();
            } else {
                let _ = client.join();
            }
        }
        if nic.starts_with('1') {
            // Restore the rules.
            set.unlisten(22).unwrap();
            set.listen(22).unwrap();
            network.client.nft(&format!(
                "add rule inet {} invalid iifname eth0 ip6 daddr @nic6 tcp dport @listen ct state invalid drop",
                tun.name()
            ));
        }
    }
}

#[test]
fn an_invalid_segment_of_the_stack_does_not_leave_with_its_private_address() {
    let network = TestNetwork::new();
    network.server.echo_server("[::]:80");
    let set = network.client.set_up(&["eth0"], &options()).unwrap();
    let tun = &set.paths[0].tun;
    let tap = network.server.tap();
    let first = *set.port_range().unwrap().start();
    let leaks = |server: &str, port: u16| {
        let (mut flow, _) = connect(&set, &tap, server, port);
        tap.clear();
        let sequence = flow.sequence;
        flow.sequence = sequence.wrapping_add(1_000_000_000);
        send(tun, &flow.segment("PA", b"out of window"));
        let leaked = tap.find(QUIET, |s| s.payload == b"out of window").is_some();
        flow.sequence = sequence;
        if !leaked {
            flow.echo("still there");
        }
        leaked
    };
    for server in SERVERS {
        assert!(!leaks(server, first + 1), "{server}");
    }
    // Either of two rules prevents it: the one against invalid packets, and the one against private
    // addresses.
    network.client.delete_rules(tun.name(), "leak", "drop");
    for server in SERVERS {
        assert!(!leaks(server, first + 2), "{server}");
    }
    network.client.delete_rules(tun.name(), "invalid", "outward");
    for server in SERVERS {
        assert!(leaks(server, first + 3), "this test shows nothing for {server}");
    }
}

#[test]
fn a_host_that_exempts_packets_from_tracking_does_not_make_private_addresses_leak() {
    let network = TestNetwork::new();
    let set = network.client.set_up(&["eth0"], &options()).unwrap();
    let path = &set.paths[0];
    network.client.nft("add table inet fast");
    network.client.nft("add chain inet fast raw { type filter hook prerouting priority raw ; }");
    network.client.nft("add rule inet fast raw tcp dport 80 notrack");
    let tap = network.server.tap();
    let leaks = || {
        let flow = Flow {
            tun: &path.tun,
            local: (path.config.addresses[0], 2000).into(),
            remote: "10.0.0.1:80".parse().unwrap(),
            sequence: 1,
            acknowledgment: 0,
        };
        tap.clear();
        send(&path.tun, &flow.segment("S", &[]));
        tap.find(QUIET, |s| s.source == flow.local).is_some()
    };
    assert!(!leaks());
    network.client.delete_rules(path.tun.name(), "leak", "drop");
    assert!(leaks(), "otherwise this test proves nothing");
}

/// The NIC goes down and up again, which makes conntrack forget masqueraded connections.
fn flap(client: &Ns) {
    client.ip("link set eth0 down");
    client.ip("link set eth0 up");
    crate::network::wait_until("the NIC is up", || client.ip("link show eth0").contains("LOWER_UP"));
    crate::network::wait_until("routes are mirrored again", || {
        client.ip("route show table all").matches("10.0.0.0/24 dev eth0").count() == 2
    });
}

#[test]
fn a_segment_of_a_connection_conntrack_has_forgotten_is_not_the_host_s() {
    let network = TestNetwork::new();
    network.server.echo_server("[::]:80");
    let set = network.client.set_up(&["eth0"], &options()).unwrap();
    let tap = network.server.tap();
    let first = *set.port_range().unwrap().start();
    let resets = |port: u16| {
        let (mut flow, nic) = connect(&set, &tap, SERVERS[0], port);
        flap(&network.client);
        tap.clear();
        let next = Segment { sequence: flow.acknowledgment, ..outside(&flow, nic) };
        network.server.inject(&next);
        let reset = reset_by(&tap, nic);
        if !reset {
            // The stack's next packet creates the entry again, with the same port.
            flow.echo("known again");
        }
        reset
    };
    assert!(!resets(first + 1));
    network.client.delete_rules(set.paths[0].tun.name(), "invalid", "forgotten");
    assert!(resets(first + 2), "otherwise this test proves nothing");
}

#[test]
fn the_host_s_sockets_do_not_choose_the_reserved_ports() {
    let network = TestNetwork::new();
    network.client.sysctl("net/ipv4/ip_local_port_range", "40000 40999");
    network.client.sysctl("net/ipv4/ip_local_reserved_ports", "40990-40995");
    let options = options().port_range(40000..=40899);
    let before = network.client.state();
    let set = network.client.set_up(&["eth0"], &options).unwrap();
    assert_eq!(set.port_range(), Some(40000..=40899));
    let chosen = || {
        network.client.run(|| {
            let sockets: Vec<TcpListener> =
                (0..40).map(|_| TcpListener::bind("0.0.0.0:0").unwrap()).collect();
            sockets.iter().filter(|s| s.local_addr().unwrap().port() < 40900).count()
        })
    };
    assert_eq!(chosen(), 0);
    // Without the reservation, most are used.
    network.client.sysctl("net/ipv4/ip_local_reserved_ports", "40990-40995\n");
    assert!(chosen() > 0, "otherwise this test proves nothing");
    network.client.sysctl("net/ipv4/ip_local_reserved_ports", "40000-40899,40990-40995\n");
    drop(set);
    crate::network::assert_unchanged(&network.client, &before);
    for (range, reason) in [
        (30000..=40100, "not within"),
        (40900..=40992, "already reserved"),
        (std::ops::RangeInclusive::new(5, 4), "empty"),
    ] {
        let options = options.clone().port_range(range);
        let error = network.client.set_up(&["eth0"], &options).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        crate::network::assert_unchanged(&network.client, &before);
    }
}

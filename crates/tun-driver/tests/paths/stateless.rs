//! Mode `nat` without connection tracking.

use crate::network::{
    Flow, PATIENCE, QUIET, Segment, TestNetwork, assert_unchanged, echo_client, options, send, wait_until,
};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Instant;
use umptcp_tun_driver::paths::PathSet;

const SERVERS: [&str; 2] = ["10.0.0.1:80", "[2001:db8:a0::1]:80"];
/// The NIC's addresses.
const NIC: [&str; 2] = ["10.0.0.2", "2001:db8:a0::2"];

fn nic(own: &IpAddr) -> IpAddr {
    NIC[usize::from(own.is_ipv6())].parse().unwrap()
}

/// A flow to each server from a port that the stack would choose.
fn connect(set: &PathSet, n: u16) -> Vec<Flow<'_>> {
    let (path, first) = (&set.paths[0], *set.port_range().unwrap().start());
    SERVERS
        .iter()
        .zip(&path.config.addresses)
        .map(|(server, own)| Flow::connect(&path.tun, (*own, first + n), server))
        .collect()
}

/// Conntrack's table is full, an entry is lost or times out, or the host exempts packets from tracking: none
/// of this matters.
#[test]
fn connections_go_on_without_an_entry_in_conntrack_in_both_roles() {
    let network = TestNetwork::new();
    network.server.echo_server("[::]:80");
    let before = network.client.state();
    let set = network.client.set_up(&["eth0"], &options().listen_ports(vec![22])).unwrap();
    let mut flows = connect(&set, 1);
    network.client.nft("add table inet fast");
    network.client.nft("add chain inet fast raw { type filter hook prerouting priority -400 ; }");
    network.client.nft("add rule inet fast raw notrack");
    flows.iter_mut().for_each(|flow| flow.echo("known before"));
    connect(&set, 2).iter_mut().for_each(|flow| flow.echo("never known"));
    for address in NIC {
        let address = SocketAddr::new(address.parse().unwrap(), 22);
        let client = echo_client(&network.server, &address.to_string());
        assert_eq!(Flow::accept(&set.paths[0].tun, 22).answer(), b"hello");
        client.join().unwrap();
    }
    network.client.nft("delete table inet fast");
    drop(flows);
    drop(set);
    assert_unchanged(&network.client, &before);
}

/// A masqueraded connection is forgotten when its NIC goes down. Afterwards the peer may be the first to
/// speak.
#[test]
fn a_segment_after_the_nic_was_down_reaches_the_stack() {
    let network = TestNetwork::new();
    network.server.echo_server("[::]:80");
    let set = network.client.set_up(&["eth0"], &options()).unwrap();
    let flow = connect(&set, 1).remove(0);
    network.client.ip("link set eth0 down");
    network.client.ip("link set eth0 up");
    let (source, destination) = (flow.remote, SocketAddr::new(nic(&flow.local.ip()), flow.local.port()));
    wait_until("a segment arrives", || {
        let (sequence, acknowledgment) = (flow.acknowledgment, flow.sequence);
        let payload = b"first".to_vec();
        network.server.inject(&Segment {
            source,
            destination,
            sequence,
            acknowledgment,
            flags: "PA".into(),
            payload,
        });
        let mine = |s: &Segment| s.destination == flow.local && s.payload == b"first";
        crate::network::receive(&set.paths[0].tun, QUIET, mine).is_some()
    });
}

#[test]
fn a_program_that_insists_on_a_reserved_port_keeps_it() {
    let network = TestNetwork::new();
    let set = network.client.set_up(&["eth0"], &options()).unwrap();
    let tun = set.paths[0].tun.name().to_owned();
    let port = set.port_range().unwrap().start() + 7;
    let listener = network.client.run(move || TcpListener::bind(("::", port)).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut text = [0; 5];
            stream.read_exact(&mut text).unwrap();
            stream.write_all(&text).unwrap();
        }
    });
    for address in NIC {
        let address = SocketAddr::new(address.parse().unwrap(), port);
        echo_client(&network.server, &address.to_string()).join().unwrap();
    }
    for n in [4, 6] {
        network.client.delete_rules(&tun, &format!("answers{n}"), "socket");
    }
    for address in NIC {
        let address = SocketAddr::new(address.parse().unwrap(), port);
        let result = network.server.run(move || TcpStream::connect_timeout(&address, QUIET));
        assert!(result.is_err(), "otherwise this test proves nothing");
    }
}

/// The quoted header keeps the NIC's address: the stack looks connections up by the outer one.
#[test]
fn icmp_errors_reach_the_stack_by_the_port_that_they_quote() {
    let network = TestNetwork::new();
    let set = network.client.set_up(&["eth0"], &options().listen_ports(vec![22])).unwrap();
    let (path, first) = (&set.paths[0], *set.port_range().unwrap().start());
    network.server.nft("add table inet r");
    network.server.nft("add chain inet r c { type filter hook input priority 0 ; }");
    network.server.nft("add rule inet r c tcp dport 81 reject with icmpx type admin-prohibited");
    for port in [first + 1, 22] {
        // The last has no neighbour: the host itself reports it.
        let remotes = [(0, "10.0.0.1:81"), (1, "[2001:db8:a0::1]:81"), (0, "10.0.0.99:81")];
        for (own, remote) in remotes {
            let local = SocketAddr::new(path.config.addresses[own], port);
            let remote: SocketAddr = remote.parse().unwrap();
            let flow = Flow { tun: &path.tun, local, remote, sequence: 7, acknowledgment: 0 };
            send(&path.tun, &flow.segment("S", &[]));
            let (header, inner, protocol) = if own == 0 { (20, 28, 1) } else { (40, 48, 58) };
            let until = Instant::now() + PATIENCE;
            let found = loop {
                let packet = crate::network::receive_raw(&path.tun, until)
                    .unwrap_or_else(|| panic!("no ICMP error for {local} to {remote}"));
                if packet[if own == 0 { 9 } else { 6 }] == protocol && packet.len() > inner + header {
                    break packet;
                }
            };
            let bytes = |ip: IpAddr| match ip {
                IpAddr::V4(a) => a.octets().to_vec(),
                IpAddr::V6(a) => a.octets().to_vec(),
            };
            let (destination, source) = (bytes(local.ip()), bytes(nic(&local.ip())));
            assert_eq!(found[header - destination.len()..header], destination, "{local} to {remote}");
            let quoted = inner - 8 + if own == 0 { 8 + 12 } else { 8 + 8 };
            assert_eq!(found[quoted..quoted + source.len()], source, "{local} to {remote}");
        }
    }
}

#[test]
fn a_nic_with_several_addresses_takes_connections_to_each_and_opens_them_from_the_nearest() {
    let network = TestNetwork::new();
    let (client, server) = (&network.client, &network.server);
    client.address("eth0", "10.0.0.3/24");
    client.address("eth0", "10.5.0.2/24");
    client.address("eth0", "2001:db8:a0::3/64");
    server.address("eth0", "10.5.0.1/24");
    server.echo_server("[::]:80");
    let set = client.set_up(&["eth0"], &options().listen_ports(vec![22])).unwrap();
    let (path, first) = (&set.paths[0], *set.port_range().unwrap().start());
    let tap = server.tap();
    for (n, remote) in ["10.0.0.1:80", "10.5.0.1:80"].iter().enumerate() {
        tap.clear();
        let own = path.config.addresses[0];
        Flow::connect(&path.tun, (own, first + n as u16), remote).echo("from the nearest");
        let (_, syn) = tap.find(PATIENCE, |s| s.flags == "S").unwrap();
        assert_eq!(syn.source.to_string(), format!("10.{}.0.2:{}", 5 * n, first + n as u16));
    }
    // An address that comes later is taken, too.
    client.address("eth0", "2001:db8:a0::4/64");
    let table = format!("list map inet {} in6", path.tun.name());
    wait_until("the new address is known", || client.nft(&table).contains("2001:db8:a0::4"));
    let mut locals = std::collections::BTreeSet::new();
    for address in ["10.0.0.2", "10.0.0.3", "10.5.0.2", "2001:db8:a0::2", "2001:db8:a0::3", "2001:db8:a0::4"]
    {
        let remote = SocketAddr::new(address.parse().unwrap(), 22).to_string();
        for from in [server, client] {
            let peer = echo_client(from, &remote);
            let mut flow = Flow::accept(&path.tun, 22);
            assert_eq!(flow.answer(), b"hello");
            peer.join().unwrap();
            locals.insert(flow.local.ip());
        }
    }
    let config = &path.config;
    assert!(locals.iter().all(|l| config.addresses.contains(l) || config.aliases.contains(l)), "{locals:?}");
    assert_eq!(locals.len(), 6, "each has one of its own: {locals:?}");
}

#[test]
fn two_instances_on_one_host_reach_each_other() {
    let network = TestNetwork::new();
    let server = network.client.set_up(&["eth0"], &options().listen_ports(vec![22])).unwrap();
    let client = network.client.set_up(&["eth1"], &options()).unwrap();
    let first = *client.port_range().unwrap().start();
    for (own, nic) in client.paths[0].config.addresses.iter().zip(NIC) {
        let remote = SocketAddr::new(nic.parse().unwrap(), 22).to_string();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| Flow::accept(&server.paths[0].tun, 22).answer());
            Flow::connect(&client.paths[0].tun, (*own, first), &remote).echo("neighbours");
            assert_eq!(other.join().unwrap(), b"neighbours");
        });
    }
}

/// Such a firewall accepts what is tracked, and nothing else that comes in.
#[test]
fn behind_a_firewall_that_drops_what_is_not_tracked_conntrack_translates() {
    for later in [false, true] {
        let network = TestNetwork::new();
        network.server.echo_server("[::]:80");
        let firewall = || {
            network.client.nft("add table inet fence");
            network
                .client
                .nft("add chain inet fence f { type filter hook forward priority 0 ; policy drop ; }");
            network.client.nft("add rule inet fence f ct state established,related accept");
            network.client.nft("add rule inet fence f oifname eth0 accept");
            network.client.nft("add rule inet fence f ct status dnat accept");
        };
        if !later {
            firewall();
        }
        let set = network.client.set_up(&["eth0"], &options().listen_ports(vec![22])).unwrap();
        let path = &set.paths[0];
        let rewrites =
            || network.client.nft(&format!("list table inet {}", path.tun.name())).contains("notrack");
        assert_eq!(rewrites(), later);
        let mut flows = connect(&set, 1);
        if later {
            firewall();
            wait_until("conntrack translates", || !rewrites());
        }
        flows.iter_mut().for_each(|flow| flow.echo("through the fence"));
        for address in NIC {
            let address = SocketAddr::new(address.parse().unwrap(), 22);
            let client = echo_client(&network.server, &address.to_string());
            assert_eq!(Flow::accept(&path.tun, 22).answer(), b"hello");
            client.join().unwrap();
        }
    }
}

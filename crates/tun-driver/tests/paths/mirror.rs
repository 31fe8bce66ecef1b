//! The path's table mirrors the NIC's routes, follows their changes, and ends with `unreachable`.

use crate::network::{
    Flow, Ns, PATIENCE, QUIET, TestNetwork, assert_unchanged, options, receive_raw, wait_until,
};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};
use umptcp_tun_driver::device::Tun;
use umptcp_tun_driver::paths::PathChange;

const SPECS: [&str; 2] = [
    "eth0,address=198.51.100.1,address=2001:db8:10::1,mode=routed",
    "eth1,address=198.51.100.2,address=2001:db8:10::2,mode=routed",
];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn syn(tun: &Tun, source: &str, destination: &str) {
    let flow = Flow {
        tun,
        local: SocketAddr::new(ip(source), 999),
        remote: SocketAddr::new(ip(destination), 80),
        sequence: 1,
        acknowledgment: 0,
    };
    crate::network::send(tun, &flow.segment("S", &[]));
}

#[test]
fn what_the_nic_has_no_route_for_is_refused_and_goes_by_no_other() {
    let network = TestNetwork::new();
    // Without its default route the first NIC reaches only its own subnet.
    network.client.ip("route del default dev eth0");
    network.client.ip("-6 route del default dev eth0");
    let set = network.client.set_up(&SPECS, &options()).unwrap();
    let path = &set.paths[0];
    for (source, near, far, icmp) in [
        ("198.51.100.1", "10.0.0.1", "192.0.2.9", vec![(9, 1u8), (20, 3)]),
        ("2001:db8:10::1", "2001:db8:a0::1", "2001:db8:9::9", vec![(6, 58), (40, 1)]),
    ] {
        assert!(path.has_route(ip(near)).unwrap() && !path.has_route(ip(far)).unwrap());
        assert!(set.paths[1].has_route(ip(far)).unwrap());
        assert!(!set.paths[1].has_route(ip("10.0.0.2")).unwrap(), "the host's own address is no destination");
        let tap = network.server.tap();
        syn(&path.tun, source, near);
        assert!(tap.find(PATIENCE, |s| s.source.ip() == ip(source)).is_some(), "on-link {near}");
        // Another rule would drop what falls through; this test is about the table. The rule would be put
        // back if it were deleted.
        let family = if source.contains(':') { "-6" } else { "-4" };
        network.client.ip(&format!("{family} rule add iif {} priority 1401 lookup main", path.tun.name()));
        tap.clear();
        syn(&path.tun, source, far);
        assert_eq!(tap.find(QUIET, |s| s.source.ip() == ip(source)), None);
        // The stack is told (ICMP destination unreachable).
        let until = Instant::now() + PATIENCE;
        let told = std::iter::from_fn(|| receive_raw(&path.tun, until))
            .any(|p| icmp.iter().all(|(at, value)| p.get(*at) == Some(value)));
        assert!(told, "no ICMP message about {far}");
        // Without the last route of the table, packets leave through the other NIC, like the host's own.
        let rules = network.client.ip(&format!("{family} rule"));
        let rule = rules.lines().find(|l| l.contains(&format!("from {source} "))).unwrap();
        let table = rule.split(" lookup ").nth(1).unwrap().split_whitespace().next().unwrap();
        network.client.ip(&format!("{family} route del unreachable default table {table} metric 4294967295"));
        tap.clear();
        syn(&path.tun, source, far);
        let (by, _) =
            tap.find(PATIENCE, |s| s.source.ip() == ip(source)).expect("otherwise this test proves nothing");
        assert_eq!(by, network.server.index("eth1"));
    }
}

#[test]
fn follows_routes_that_come_and_go() {
    let network = TestNetwork::new();
    let mut set = network.client.set_up(&SPECS, &options()).unwrap();
    let changes = set.changes().unwrap();
    let (eth0, eth1) = (&set.paths[0], &set.paths[1]);
    let far = |v6: bool| ip(if v6 { "2001:db8:9::9" } else { "192.0.2.9" });
    for v6 in [false, true] {
        let (family, gateway) = if v6 { ("-6", "2001:db8:a0::1") } else { ("-4", "10.0.0.1") };
        assert!(eth0.has_route(far(v6)).unwrap());
        network.client.ip(&format!("{family} route del default dev eth0"));
        wait_until("the route is gone", || !eth0.has_route(far(v6)).unwrap());
        let host = if v6 { "2001:db8:9::/48" } else { "192.0.2.0/24" };
        // One of several next hops, and an MTU, are copied.
        network.client.ip(&format!(
            "{family} route add {host} mtu 1400 nexthop via {gateway} dev eth0 nexthop via {} dev eth1",
            gateway.replace("a0", "a1").replace("10.0", "10.1")
        ));
        wait_until("the route is there", || eth0.has_route(far(v6)).unwrap());
        let tables = network.client.ip(&format!("{family} route show table all {host}"));
        assert_eq!(tables.matches("mtu 1400").count(), 3, "{tables}");
        network.client.ip(&format!("{family} route del {host}"));
        wait_until("the route is gone", || !eth0.has_route(far(v6)).unwrap());
        // A host with a separate table for each NIC.
        network.client.ip(&format!("{family} route add default via {gateway} dev eth0 table 77"));
        wait_until("the route is there", || eth0.has_route(far(v6)).unwrap());
        assert!(eth1.has_route(far(v6)).unwrap());
    }
    let routes = PathChange::Routes { tun: eth0.tun.name().into() };
    assert!(changes.try_iter().filter(|c| *c == routes).count() >= 4);
}

#[test]
fn follows_a_nic_that_goes_down_and_comes_back() {
    let network = TestNetwork::new();
    network.server.echo_server("[::]:80");
    let mut set = network.client.set_up(&["eth0", "eth1"], &options()).unwrap();
    let changes = set.changes().unwrap();
    let path = &set.paths[0];
    let tun = path.tun.name().to_owned();
    let await_change = |wanted: PathChange| {
        let until = Instant::now() + PATIENCE;
        while let Ok(change) = changes.recv_timeout(until.saturating_duration_since(Instant::now())) {
            if change == wanted {
                return;
            }
        }
        panic!("no {wanted:?}");
    };
    let own = path.config.addresses[0];
    // As the stack has it: others would be translated to one of these, by connection tracking.
    let ports: Vec<u16> = set.port_range().unwrap().take(3).collect();
    Flow::connect(&path.tun, (own, ports[0]), "192.0.2.9:80").echo("before");
    network.client.ip("link set eth0 down");
    await_change(PathChange::Down { tun: tun.clone(), gone: false });
    wait_until("no route", || !path.has_route(ip("10.0.0.1")).unwrap());
    network.client.ip("link set eth0 up");
    await_change(PathChange::Up { tun: tun.clone() });
    network.client.ip("route add default via 10.0.0.1 metric 100");
    wait_until("a route", || path.has_route(ip("192.0.2.9")).unwrap());
    Flow::connect(&path.tun, (own, ports[1]), "192.0.2.9:80").echo("after");
    // No carrier: the peer goes down.
    network.server.ip("link set eth0 down");
    await_change(PathChange::Down { tun: tun.clone(), gone: false });
    network.server.ip("link set eth0 up");
    await_change(PathChange::Up { tun: tun.clone() });
    // The MTU.
    network.client.ip("link set eth0 mtu 1400");
    await_change(PathChange::Mtu { tun: tun.clone(), mtu: 1400 });
    assert!(network.client.ip(&format!("link show {tun}")).contains("mtu 1400"));
    // Unplugged and plugged in again: a new device with the same name and another address.
    network.client.ip("link del eth0");
    await_change(PathChange::Down { tun: tun.clone(), gone: true });
    network.client.link("eth0", &network.server, "eth0");
    await_change(PathChange::Up { tun: tun.clone() });
    network.client.address("eth0", "10.0.0.77/24");
    network.server.address("eth0", "10.0.0.1/24");
    let advertise = vec![ip("10.0.0.77")];
    await_change(PathChange::Addresses { tun, before: vec![], nic: advertise.clone(), advertise });
    wait_until("a route", || path.has_route(ip("10.0.0.1")).unwrap());
    wait_until("forwarding", || {
        let local = SocketAddr::new(own, ports[2]);
        Flow::try_connect(&path.tun, local, "10.0.0.1:80".parse().unwrap(), Duration::from_secs(1)).is_some()
    });
}

/// Addresses in the NIC's own subnet, for which it answers: the kernel forgets that when the NIC goes down.
#[test]
fn a_nic_that_was_down_answers_for_the_stacks_addresses_again() {
    let network = TestNetwork::new();
    network.server.echo_server("[::]:80");
    let spec = "eth0,address=10.0.0.7,address=2001:db8:a0::7,mode=routed";
    let set = network.client.set_up(&[spec], &options()).unwrap();
    let path = &set.paths[0];
    let echo = |port: u16| {
        for (own, server) in [("10.0.0.7", "10.0.0.1:80"), ("2001:db8:a0::7", "[2001:db8:a0::1]:80")] {
            Flow::connect(&path.tun, (ip(own), port), server).echo("there");
        }
    };
    echo(41000);
    for round in 1..4 {
        network.client.ip("link set eth0 down");
        if round == 1 {
            wait_until("no route", || !path.has_route(ip("10.0.0.1")).unwrap());
        }
        network.client.ip("link set eth0 up");
        network.client.address("eth0", "2001:db8:a0::2/64");
        // The server has known where the addresses are.
        network.server.ip("neighbour flush all");
        wait_until("a route", || path.has_route(ip("2001:db8:a0::1")).unwrap());
        echo(41000 + round);
    }
}

/// With the last address of a family the kernel forgets the entries, too, and a NIC may come into the subnet of
/// the stack's addresses only later.
#[test]
fn a_nic_answers_for_the_stacks_addresses_whatever_its_own_were() {
    let network = TestNetwork::new();
    network.server.echo_server("[::]:80");
    let specs = [
        "eth0,address=10.0.0.7,address=2001:db8:a0::7,mode=routed",
        // In the subnet of the other NIC only.
        "eth1,address=10.0.0.8,address=2001:db8:a0::8,mode=routed",
    ];
    let set = network.client.set_up(&specs, &options()).unwrap();
    let proxies =
        || network.client.ip("neighbour show proxy") + &network.client.ip("-6 neighbour show proxy");
    let answers = |device: &str, address: &str| {
        proxies().lines().any(|line| line.starts_with(&format!("{address} dev {device} ")))
    };
    for (address, own, server) in [
        ("10.0.0.2/24", "10.0.0.7", "10.0.0.1:80"),
        ("2001:db8:a0::2/64", "2001:db8:a0::7", "[2001:db8:a0::1]:80"),
    ] {
        for port in 41000..41003 {
            Flow::connect(&set.paths[0].tun, (ip(own), port), server).echo("there");
            network.client.ip(&format!("address del {address} dev eth0"));
            let far = server.parse::<SocketAddr>().unwrap().ip();
            if port == 41001 {
                // Seen, and not over before anybody has looked.
                std::thread::sleep(QUIET);
            }
            network.client.address("eth0", address);
            wait_until("a route", || set.paths[0].has_route(far).unwrap());
            wait_until("eth0 answers", || answers("eth0", own));
            network.server.ip("neighbour flush all");
        }
    }
    let moved = ["10.0.0.8", "2001:db8:a0::8"];
    assert!(!moved.iter().any(|a| answers("eth1", a)), "{}", proxies());
    network.client.address("eth1", "10.0.0.3/24");
    network.client.address("eth1", "2001:db8:a0::3/64");
    wait_until("eth1 answers", || moved.iter().all(|a| answers("eth1", a)));
    drop(set);
    wait_until("nothing is left", || proxies().is_empty());
}

/// `advertise=` says what to advertise whatever the NIC's address is, and further addresses change nothing.
#[test]
fn what_is_advertised_by_choice_stays_when_addresses_change() {
    let network = TestNetwork::new();
    let mut set = network.client.set_up(&["eth0,advertise=203.0.113.5"], &options()).unwrap();
    let changes = set.changes().unwrap();
    let tun = set.paths[0].tun.name().to_owned();
    let next = || {
        let end = Instant::now() + PATIENCE;
        loop {
            match changes.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(change @ PathChange::Addresses { .. }) => return change,
                Ok(_) => {}
                Err(_) => panic!("no word of the addresses"),
            }
        }
    };
    assert_eq!(set.paths[0].config.advertise, [ip("203.0.113.5")]);
    let shown = network.client.ip("-4 -o address show dev eth0");
    let address = shown.split_whitespace().skip_while(|w| *w != "inet").nth(1).unwrap().to_owned();
    network.client.ip("address add 10.0.0.78/24 dev eth0");
    network.client.ip(&format!("address del {address} dev eth0"));
    // The second address of the subnet has gone with the first, unless the host promotes it.
    let gone = next();
    let PathChange::Addresses { advertise, nic, .. } = &gone else { unreachable!() };
    assert_eq!(advertise, &[ip("203.0.113.5")]);
    if nic.is_empty() {
        network.client.ip("address add 10.0.0.79/24 dev eth0");
        let (nic, advertise) = (vec![ip("10.0.0.79")], vec![ip("203.0.113.5")]);
        assert_eq!(next(), PathChange::Addresses { tun, before: vec![], nic, advertise });
    }
}

#[test]
fn tells_of_a_nic_that_appears() {
    let network = TestNetwork::new();
    let mut set = network.client.set_up(&["eth0"], &options()).unwrap();
    let changes = set.changes().unwrap();
    network.client.link("eth7", &network.server, "eth7");
    network.client.address("eth7", "10.7.0.2/24");
    let until = Instant::now() + PATIENCE;
    let nic = loop {
        match changes.recv_timeout(until.saturating_duration_since(Instant::now())).expect("no word of eth7")
        {
            PathChange::NewNic(nic) if nic.name == "eth7" => break nic,
            _ => {}
        }
    };
    assert_eq!(nic.addresses, [ip("10.7.0.2")]);
    assert!(nic.has_route(ip("10.7.0.9")) && !nic.has_route(ip("10.8.0.9")) && !nic.has_default_route());
    let path = set.add(&nic.name.parse().unwrap()).unwrap();
    assert!(path.has_route(ip("10.7.0.1")).unwrap());
}

#[test]
fn a_nic_that_is_renamed_keeps_its_path_and_its_settings_are_restored() {
    let network = TestNetwork::new();
    network.server.echo_server("[::]:80");
    let rename = |from: &str, to: &str| {
        network.client.ip(&format!("link set {from} down"));
        network.client.ip(&format!("link set {from} name {to}"));
        network.client.ip(&format!("link set {to} up"));
        wait_until("the NIC is up", || network.client.ip(&format!("link show {to}")).contains("LOWER_UP"));
    };
    // The kernel forgets some addresses and routes each time.
    rename("eth0", "wan0");
    let before = network.client.state();
    rename("wan0", "eth0");
    let routed = "eth0,address=10.0.0.7,mode=routed";
    let set = network.client.set_up(&["eth0", routed], &options()).unwrap();
    let first = *set.port_range().unwrap().start();
    rename("eth0", "wan0");
    let remote = "10.0.0.1".parse().unwrap();
    wait_until("the routes are back", || set.paths.iter().all(|p| p.has_route(remote).unwrap()));
    for (path, port) in set.paths.iter().zip([first, 5000]) {
        Flow::connect(&path.tun, (path.config.addresses[0], port), "10.0.0.1:80").echo("another name");
    }
    assert!(network.client.ip("rule").contains("iif wan0 blackhole"), "strangers' packets are not forwarded");
    let table = network.client.nft(&format!("list table inet {}", set.paths[0].tun.name()));
    assert!(table.contains("wan0") && !table.contains("eth0"), "{table}");
    drop(set);
    assert_unchanged(&network.client, &before);
}

#[test]
fn a_change_of_a_nic_while_another_instance_holds_the_host_is_not_lost() {
    let network = TestNetwork::new();
    let client = &network.client;
    let rename = |from: &str, to: &str| {
        client.ip(&format!("link set {from} down"));
        client.ip(&format!("link set {from} name {to}"));
        client.ip(&format!("link set {to} up"));
        wait_until("the NIC is up", || client.ip(&format!("link show {to}")).contains("LOWER_UP"));
    };
    // The kernel forgets some addresses and routes each time.
    rename("eth0", "wan0");
    rename("wan0", "eth0");
    let before = client.state();
    let set = client
        .set_up(&["eth0,address=10.0.0.7,mode=routed", "eth1,address=10.1.0.7,mode=routed"], &options());
    let set = set.unwrap();
    // As a process does that is stopped in the middle of its own set-up.
    let held = std::fs::File::open(client.records.join("lock")).unwrap();
    held.lock().unwrap();
    rename("eth0", "wan0");
    let [first, second] = &set.paths[..] else { panic!() };
    // Requests are answered meanwhile, and the other path follows its NIC.
    wait_until("the renamed NIC's routes are mirrored", || first.has_route(ip("10.0.0.1")).unwrap());
    client.ip("route add 10.7.7.0/24 via 10.1.0.1");
    wait_until("the other NIC's routes are mirrored", || second.has_route(ip("10.7.7.1")).unwrap());
    assert!(!client.ip("rule").contains("iif wan0 blackhole"), "it is under the other's lock");
    drop(held);
    wait_until("strangers' packets are not forwarded", || client.ip("rule").contains("iif wan0 blackhole"));
    drop(set);
    rename("wan0", "eth0");
    client.ip("route del 10.7.7.0/24");
    wait_until("the host is as before", || client.state() == before);
}

/// A program in place of `nft`, which fails as long as the file that is returned exists.
fn moody_nft(client: &Ns) -> (PathBuf, PathBuf) {
    let own = |name: &str| PathBuf::from(format!("{}-{name}", client.records.display()));
    let (program, mood) = (own("nft"), own("busy"));
    let text = format!(
        "#!/bin/sh\nif [ -e {0} ]; then cat >> {0}; echo 'Error: Device or resource busy' >&2; exit 1; fi\n\
         PATH=$PATH:/usr/sbin:/sbin exec nft \"$@\"\n",
        mood.display()
    );
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    (program, mood)
}

#[test]
fn addresses_reach_a_firewall_that_was_busy_when_they_changed() {
    let network = TestNetwork::new();
    let client = &network.client;
    let (program, busy) = moody_nft(client);
    let set = client.set_up(&["eth0"], &options().nft_program(&program)).unwrap();
    let table = || client.nft(&format!("list table inet {}", set.paths[0].tun.name()));
    std::fs::write(&busy, "").unwrap();
    client.address("eth0", "10.0.0.77/24");
    wait_until("it has been tried", || std::fs::read_to_string(&busy).unwrap().contains("10.0.0.77"));
    assert!(!table().contains("10.0.0.77"));
    std::fs::remove_file(&busy).unwrap();
    wait_until("the table has the address", || table().contains("10.0.0.77"));
    drop(set);
    std::fs::remove_file(program).unwrap();
}

#[test]
fn what_cannot_be_undone_at_exit_is_tried_again() {
    let network = TestNetwork::new();
    let client = &network.client;
    let (program, busy) = moody_nft(client);
    let before = client.state();
    let set = client.set_up(&["eth0"], &options().nft_program(&program)).unwrap();
    std::fs::write(&busy, "").unwrap();
    thread::scope(|scope| {
        scope.spawn(|| drop(set));
        wait_until("it has been tried", || std::fs::read_to_string(&busy).unwrap().contains("delete table"));
        std::fs::remove_file(&busy).unwrap();
    });
    assert_unchanged(client, &before);
    let left = std::fs::read_dir(&client.records).unwrap().flatten();
    assert_eq!(left.filter(|e| e.path().extension().is_some()).count(), 0, "no record is left");
    std::fs::remove_file(program).unwrap();
}

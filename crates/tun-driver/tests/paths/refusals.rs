//! Errors name the cause and the remedy, and nothing is left behind.

use crate::network::{Flow, Ns, TestNetwork, assert_unchanged, options, wait_until};
use std::net::TcpListener;
use std::path::PathBuf;
use umptcp_tun_driver::paths::{NicInfo, SetupOptions, discover};

/// Returns the error of a set-up that must fail and leave everything unchanged.
fn refusal(ns: &Ns, specs: &[&str], options: &SetupOptions) -> String {
    let before = ns.state();
    let error = ns.set_up(specs, options).expect_err("it was set up").to_string();
    assert_unchanged(ns, &before);
    assert_eq!(
        std::fs::read_dir(&ns.records)
            .map_or(0, |d| d.flatten().filter(|e| e.path().extension().is_some()).count()),
        0
    );
    error
}

#[test]
fn devices_that_cannot_carry_a_path() {
    let network = TestNetwork::new();
    let client = &network.client;
    client.link("bare0", &network.server, "bare0");
    client.ip("link add br9 type bridge");
    client.ip("link add down0 type veth peer name down1");
    for (spec, text) in [
        ("eth9", "no network device is called \"eth9\""),
        ("lo", "loopback"),
        ("down0", "ip link set down0 up"),
        ("bare0", "no address"),
        ("bare0,address=198.51.100.7,mode=routed", "no route for IPv4"),
        ("eth0,address=10.0.0.2,mode=routed", "already taken"),
        ("eth0,address=10.0.0.255,mode=routed", "broadcast"),
        ("eth0,address=10.1.0.2", "already taken"),
        ("eth0,address=8.8.8.8", "public address"),
    ] {
        // The first path is set up and then undone.
        let error = refusal(client, &["eth1", spec], &options());
        assert!(error.contains(text), "{spec}: {error}");
    }
    client.ip("link set down0 up");
    let error = refusal(client, &["down0"], &options());
    assert!(error.contains("no carrier"), "{error}");
    let error = refusal(client, &["eth0", "eth0"], &options());
    assert!(error.contains("already"), "{error}");
    let twice = ["eth0,address=198.51.100.7,mode=routed", "eth1,address=198.51.100.7,mode=routed"];
    let error = refusal(client, &twice, &options());
    assert!(error.contains("already taken") && error.contains("umptcp"), "{error}");
    // An address without a route.
    client.ip("address add 10.9.0.2/32 dev bare0");
    let error = refusal(client, &["bare0"], &options());
    assert!(error.contains("has no route"), "{error}");
}

#[test]
fn an_address_that_another_host_of_the_subnet_has() {
    let network = TestNetwork::new();
    for (address, own) in [("10.0.0.8", "10.0.0.9"), ("2001:db8:a0::8", "2001:db8:a0::9")] {
        network.server.address("eth0", &format!("{address}/32"));
        let error = refusal(&network.client, &[&format!("eth0,address={address},mode=routed")], &options());
        assert!(error.contains("another host on the link of eth0"), "{error}");
        // Translated, and by way of another NIC: nobody on the link would notice.
        let error = refusal(&network.client, &[&format!("eth1,address={address}")], &options());
        assert!(error.contains("another host on the link of eth0"), "{error}");
        // Only a fresh answer counts, not an old neighbour entry.
        network.client.ip(&format!("neighbour replace {own} dev eth0 lladdr 02:00:00:00:00:01 nud stale"));
        drop(network.client.set_up(&[&format!("eth0,address={own},mode=routed")], &options()).unwrap());
    }
}

#[test]
fn finds_the_devices_that_can() {
    let network = TestNetwork::new();
    let client = &network.client;
    client.link("bare0", &network.server, "bare0");
    client.link("noroute0", &network.server, "noroute0");
    client.ip("address add 10.9.0.2/32 dev noroute0");
    client.ip("link add br9 type bridge");
    client.ip("link set br9 up");
    client.ip("address add 10.8.0.2/24 dev br9");
    client.ip("tuntap add mode tun tun9");
    client.ip("link set tun9 up");
    let found: Vec<NicInfo> = client.run(|| discover().unwrap());
    let names: Vec<&str> = found.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(names, ["eth0", "eth1"]);
    assert!(found[0].has_default_route() && found[0].has_route("10.0.0.9".parse().unwrap()));
    let set = client.set_up(&[], &options()).unwrap();
    let devices: Vec<&str> = set.paths.iter().map(|p| p.config.name.as_str()).collect();
    assert_eq!(devices, ["eth0", "eth1"]);
    // Not its own.
    assert_eq!(client.run(|| discover().unwrap()).len(), 2);
    drop(set);
    for device in ["eth0", "eth1"] {
        client.ip(&format!("link set {device} down"));
    }
    let error = refusal(client, &[], &options());
    assert!(
        error.contains("eth0: down")
            && error.contains("br9: a bridge")
            && error.contains("bare0: no address"),
        "{error}"
    );
    assert!(error.contains("noroute0: no route"), "{error}");
}

#[test]
fn a_port_that_a_program_listens_on() {
    let network = TestNetwork::new();
    // A copy of the socket closed above may survive for a moment in a program that another test is starting.
    let listen = |address: &'static str| {
        let mut listener = None;
        wait_until("the port is free", || {
            listener = network.client.run(move || TcpListener::bind(address).ok());
            listener.is_some()
        });
        listener.unwrap()
    };
    let options = options().listen_ports(vec![2222]);
    for address in ["0.0.0.0:2222", "10.0.0.2:2222", "[2001:db8:a0::2]:2222", "[::]:2222"] {
        let program = listen(address);
        let error = refusal(&network.client, &["eth0"], &options);
        let pid = std::process::id();
        assert!(
            error.contains("port 2222") && error.contains(&format!("(process {pid})")),
            "{address}: {error}"
        );
        drop(program);
    }
    let other_address = listen("127.0.0.1:2222");
    let mut set = None;
    wait_until("the port is free", || {
        set = network.client.set_up(&["eth0"], &options).ok();
        set.is_some()
    });
    let set = set.unwrap();
    drop(other_address);
    // Held for us now.
    let taken = network.client.run(|| TcpListener::bind("10.0.0.2:2222").map(|_| ()).unwrap_err().kind());
    assert_eq!(taken, std::io::ErrorKind::AddrInUse);
    let program = listen("0.0.0.0:2223");
    let error = set.listen(2223).unwrap_err().to_string();
    assert!(error.contains("port 2223"), "{error}");
    drop(program);
    wait_until("the port is free", || set.listen(2223).is_ok());
    set.unlisten(2223).unwrap();
    drop(listen("0.0.0.0:2223"));
    set.unlisten(2222).unwrap();
    drop(listen("0.0.0.0:2222"));
}

#[test]
fn a_firewall_that_would_drop_the_packets_is_named() {
    let network = TestNetwork::new();
    let client = &network.client;
    client.nft("add table inet corporate");
    client.nft("add chain inet corporate fence { type filter hook forward priority 10 ; policy drop ; }");
    let routed = "eth0,address=198.51.100.1,mode=routed";
    for spec in ["eth0", routed] {
        let error = refusal(client, &[spec], &options());
        assert!(error.contains("`inet corporate fence` (policy drop)"), "{error}");
        // The remedy works.
        for command in error.split('`').filter(|c| c.starts_with("nft insert")) {
            for command in command.split("; ") {
                client.program("sh", &["-c", command]);
            }
        }
        let set = client.set_up(&[spec], &options()).unwrap();
        drop(set);
        client.nft("flush chain inet corporate fence");
    }
    client.nft("delete table inet corporate");
    // Rules that reject in a chain that accepts otherwise.
    client.nft("add table ip filter");
    client.nft("add chain ip filter FORWARD { type filter hook forward priority 0 ; policy accept ; }");
    client.nft("add rule ip filter FORWARD reject");
    let error = refusal(client, &["eth0"], &options());
    assert!(error.contains("iptables -I FORWARD"), "{error}");
    let unchecked = options().check_firewall(false);
    client.set_up(&["eth0"], &unchecked).unwrap();
    client.nft("flush chain ip filter FORWARD");
    // A firewall that accepts only replies, and everything that leaves through a NIC, is no obstacle.
    client.nft("chain ip filter FORWARD { policy drop ; }");
    client.nft("add rule ip filter FORWARD ct state established,related accept");
    client.nft("add rule ip filter FORWARD oifname eth0 accept");
    network.server.echo_server("[::]:80");
    let set = client.set_up(&["eth0"], &options()).unwrap();
    Flow::connect(&set.paths[0].tun, (set.paths[0].config.addresses[0], 5000), "10.0.0.1:80").echo("through");
}

/// A script that replaces `nft`.
fn fake_nft(ns: &Ns, script: &str) -> SetupOptions {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(&ns.records).unwrap();
    let program = ns.records.join("nft");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    options().nft_program(program)
}

#[test]
fn nftables_missing_or_incomplete() {
    let network = TestNetwork::new();
    let client = &network.client;
    let without = options().nft_program(PathBuf::from("/nowhere/nft"));
    let error = refusal(client, &["eth0"], &without);
    assert!(error.contains("apt install nftables") && error.contains("mode=routed"), "{error}");
    // Routed paths do not need it.
    drop(client.set_up(&["eth0,address=198.51.100.1,mode=routed"], &without).unwrap());
    // A kernel with nftables but without NAT: only scripts without NAT succeed.
    let incomplete = fake_nft(
        client,
        "script=$(cat); case \"$script\" in *'type nat'*|*masquerade*|*dnat*)\n\
         echo 'Error: Could not process rule: No such file or directory' >&2; exit 1;; esac",
    );
    let error = client.set_up(&["eth0"], &incomplete).unwrap_err().to_string();
    assert!(error.contains("CONFIG_NFT_NAT") && error.contains("CONFIG_NFT_MASQ"), "{error}");
    assert!(!error.contains("CONFIG_NFT_CT"), "{error}");
    let refusing = fake_nft(client, "cat >/dev/null; echo 'Error: Operation not permitted' >&2; exit 1");
    let error = client.set_up(&["eth0"], &refusing).unwrap_err().to_string();
    assert!(error.contains("no permission to change the nftables ruleset"), "{error}");
}

#[test]
fn a_kernel_that_cannot_do_without_connection_tracking_translates_with_it() {
    let network = TestNetwork::new();
    network.server.echo_server("[::]:80");
    let incomplete = fake_nft(
        &network.client,
        "script=$(cat); case \"$script\" in *'socket '*)\n\
         echo 'Error: Could not process rule: No such file or directory' >&2; exit 1;; esac\n\
         printf '%s\\n' \"$script\" | nft \"$@\"",
    );
    let set = network.client.set_up(&["eth0"], &incomplete).unwrap();
    let (path, first) = (&set.paths[0], *set.port_range().unwrap().start());
    let table = network.client.nft(&format!("list table inet {}", path.tun.name()));
    assert!(table.contains("masquerade") && !table.contains("notrack"), "{table}");
    Flow::connect(&path.tun, (path.config.addresses[0], first), "10.0.0.1:80").echo("tracked");
}

#[test]
fn an_address_that_is_a_duplicate_is_none() {
    // Failed duplicate address detection leaves an unusable address.
    let network = TestNetwork::new();
    network.client.sysctl("net/ipv6/conf/eth1/accept_dad", "1");
    network.client.ip("-4 address flush dev eth1");
    network.client.ip("-6 address flush dev eth1 scope global");
    network.client.ip("address add 2001:db8:a1::1/64 dev eth1");
    wait_until("the duplicate is found", || network.client.ip("address").contains("dadfailed"));
    let error = refusal(&network.client, &["eth1"], &options());
    assert!(error.contains("no address"), "{error}");
}

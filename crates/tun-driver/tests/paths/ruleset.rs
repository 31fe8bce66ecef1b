//! The host's ruleset changes while paths are in use.

use crate::network::{
    Flow, PATIENCE, QUIET, TestNetwork, assert_unchanged, options, receive, send, wait_until,
};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use umptcp_tun_driver::paths::PathChange;

#[test]
fn a_table_that_a_flush_removed_is_back_within_a_second_and_connections_go_on() {
    let network = TestNetwork::new();
    network.server.echo_server("[::]:80");
    let before = network.client.state();
    let set = network.client.set_up(&["eth0", "eth1"], &options()).unwrap();
    let first = *set.port_range().unwrap().start();
    let mut flows = Vec::new();
    for (n, path) in set.paths.iter().enumerate() {
        for (own, remote) in [(0, format!("10.{n}.0.1:80")), (1, format!("[2001:db8:a{n}::1]:80"))] {
            let mut flow = Flow::connect(&path.tun, (path.config.addresses[own], first + 1), &remote);
            flow.echo("before");
            flows.push(flow);
        }
    }
    let rules = |table: &str| network.client.nft(&format!("list table inet {table}")).lines().count();
    let names: Vec<String> = set.paths.iter().map(|p| p.tun.name().to_owned()).collect();
    let lines: Vec<usize> = names.iter().map(|n| rules(n)).collect();
    for _ in 0..2 {
        network.client.nft("flush ruleset");
        are_back_within_a_second(&network, &names);
        assert_eq!(lines, names.iter().map(|n| rules(n)).collect::<Vec<_>>());
        flows.iter_mut().for_each(|flow| flow.echo("after"));
    }
    drop(flows);
    drop(set);
    assert_unchanged(&network.client, &before);
}

/// The program `nft`, before which something else can be run.
struct HookedNft(PathBuf);

impl HookedNft {
    fn new() -> HookedNft {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let nft = HookedNft(std::env::temp_dir().join(format!("umptcp-nft-{}-{n}", std::process::id())));
        std::fs::create_dir_all(&nft.0).unwrap();
        nft.first("");
        let script = format!("#!/bin/sh\n. {}/hook\nexec nft \"$@\"\n", nft.0.display());
        std::fs::write(nft.program(), script).unwrap();
        std::fs::set_permissions(nft.program(), std::fs::Permissions::from_mode(0o755)).unwrap();
        nft
    }

    fn program(&self) -> PathBuf {
        self.0.join("nft")
    }

    /// What the shell does first from now on.
    fn first(&self, script: &str) {
        std::fs::write(self.0.join("hook"), format!("{script}\n")).unwrap();
    }
}

impl Drop for HookedNft {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn are_back_within_a_second(network: &TestNetwork, tables: &[String]) {
    let start = Instant::now();
    wait_until("the tables are back", || {
        let there = network.client.nft("list tables");
        tables.iter().all(|n| there.contains(n.as_str()))
    });
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

/// A firewall that dropped everything is reloaded: looking for what it drops has just taken long.
#[test]
fn a_table_that_is_removed_after_a_slow_look_at_the_firewall_is_put_back_at_once() {
    let network = TestNetwork::new();
    let set = network.client.set_up(&["eth0", "eth1"], &options()).unwrap();
    let names: Vec<String> = set.paths.iter().map(|p| p.tun.name().to_owned()).collect();
    network.client.nft("add table inet fw");
    network.client.nft("add chain inet fw forward { type filter hook forward priority 0; policy drop; }");
    // For each path, until it is sure that nothing arrives.
    std::thread::sleep(Duration::from_millis(1500));
    network.client.nft("flush ruleset");
    are_back_within_a_second(&network, &names);
}

/// Each family: its name in the kernel's settings, where a path has its address, and a server.
const FAMILIES: [(&str, usize, &str); 2] = [("ipv4", 0, "10.0.0.1:80"), ("ipv6", 1, "[2001:db8:a0::1]:80")];

/// What makes the client forward what comes in by `eth0`. Before Linux 6.17, IPv6 knows no such setting of one
/// NIC.
fn forwarding_setting(network: &TestNetwork, ip: &str) -> String {
    if ip == "ipv4" {
        return "net/ipv4/conf/eth0/forwarding".into();
    }
    let forced = network.client.run(|| Path::new("/proc/sys/net/ipv6/conf/eth0/force_forwarding").exists());
    if forced { "net/ipv6/conf/eth0/force_forwarding" } else { "net/ipv6/conf/all/forwarding" }.into()
}

/// Without the table's forward chain, a host that forwards would forward anybody's packets.
#[test]
fn forwarding_ends_while_a_removed_table_cannot_be_put_back() {
    let network = TestNetwork::new();
    network.server.echo_server("[::]:80");
    let nft = HookedNft::new();
    let before = network.client.state();
    let set = network.client.set_up(&["eth0"], &options().nft_program(nft.program())).unwrap();
    let path = &set.paths[0];
    let mut flows =
        FAMILIES.map(|(_, own, server)| Flow::connect(&path.tun, (path.config.addresses[own], 5000), server));
    let settings = FAMILIES.map(|(ip, ..)| forwarding_setting(&network, ip));
    let forwarding = |value: &str| settings.iter().all(|name| network.client.read(name) == value);
    assert!(forwarding("1"), "{settings:?}");
    nft.first("exit 1");
    network.client.nft("flush ruleset");
    wait_until("forwarding is off", || forwarding("0"));
    nft.first("");
    wait_until("forwarding is on again", || forwarding("1"));
    assert!(network.client.nft("list tables").contains(path.tun.name()));
    flows.iter_mut().for_each(|flow| flow.echo("after"));
    drop(set);
    assert_unchanged(&network.client, &before);
}

/// Segments that leave while the table is missing make entries of conntrack that are not translated, and a
/// connection's translation is that of its entry.
#[test]
fn what_left_while_the_table_was_missing_does_not_spoil_the_connection() {
    // Before and after the firewall that is loaded: the second is one that makes us use conntrack.
    for (stateless, strict) in [(false, false), (false, true), (true, true)] {
        let network = TestNetwork::new();
        network.server.echo_server("[::]:80");
        let nft = HookedNft::new();
        let options = options().stateless(stateless).nft_program(nft.program());
        let set = network.client.set_up(&["eth0"], &options).unwrap();
        let (path, first) = (&set.paths[0], *set.port_range().unwrap().start());
        let ends = [(0, "10.0.0.1:80"), (1, "[2001:db8:a0::1]:80")];
        let mut before: Vec<Flow<'_>> = ends
            .map(|(own, remote)| Flow::connect(&path.tun, (path.config.addresses[own], first + 1), remote))
            .into();
        before.iter_mut().for_each(|flow| flow.echo("translated"));
        let tap = network.server.tap();
        nft.first("sleep 0.7");
        let rules = "ct state established,related accept; oifname eth0 accept; ct status dnat accept;";
        let policy = if strict { "drop" } else { "accept" };
        let chain = format!("chain f {{ type filter hook forward priority 0; policy {policy}; {rules} }}");
        network.client.nft(&format!("flush ruleset; table inet fence {{ {chain}; }}"));
        let left = |own: IpAddr| tap.find(PATIENCE, |s| s.source.ip() == own).is_some();
        for ((own, remote), flow) in ends.iter().zip(&mut before) {
            let own = path.config.addresses[*own];
            send(&path.tun, &flow.segment("PA", b"after"));
            assert!(left(own), "the table is back already: this test shows nothing");
            let local = (own, first + 2).into();
            let syn = Flow {
                tun: &path.tun,
                local,
                remote: remote.parse().unwrap(),
                sequence: 1,
                acknowledgment: 0,
            };
            send(&path.tun, &syn.segment("S", &[]));
            assert!(left(own), "the table is back already: this test shows nothing");
        }
        nft.first("");
        are_back_within_a_second(&network, &[path.tun.name().to_owned()]);
        wait_until("conntrack translates", || {
            !network.client.nft(&format!("list table inet {}", path.tun.name())).contains("notrack")
        });
        for ((own, remote), flow) in ends.iter().zip(&mut before) {
            // Again and again, as the stack does.
            wait_until("an echo", || {
                send(&path.tun, &flow.segment("PA", b"after"));
                receive(&path.tun, QUIET, |s| s.destination == flow.local && s.payload == b"after").is_some()
            });
            let (local, remote) = ((path.config.addresses[*own], first + 2).into(), remote.parse().unwrap());
            wait_until("a connection from the same port", || {
                Flow::try_connect(&path.tun, local, remote, QUIET).is_some()
            });
        }
    }
}

#[test]
fn routing_rules_that_are_removed_or_overtaken_are_put_back_and_connections_go_on() {
    let network = TestNetwork::new();
    network.server.echo_server("[::]:80");
    let before = network.client.state();
    let set = network.client.set_up(&["eth0"], &options()).unwrap();
    let path = &set.paths[0];
    let mut flows: Vec<Flow<'_>> = [(0, "10.0.0.1:80"), (1, "[2001:db8:a0::1]:80")]
        .map(|(own, remote)| Flow::connect(&path.tun, (path.config.addresses[own], 5000), remote))
        .into();
    let restored = |what: &str| {
        let remotes = ["10.0.0.1", "2001:db8:a0::1"].map(|r| r.parse().unwrap());
        wait_until(what, || remotes.iter().all(|r| path.has_route(*r).unwrap()));
    };
    // As `wg-quick up` adds them: without a priority, which puts them ahead of ours.
    network.client.ip("tuntap add wg0 mode tun");
    network.client.ip("link set wg0 up");
    for family in ["-4", "-6"] {
        network.client.ip(&format!("{family} route add default dev wg0 table 51820"));
        network.client.ip(&format!("{family} rule add not fwmark 51820 table 51820"));
        network.client.ip(&format!("{family} rule add table main suppress_prefixlength 0"));
    }
    restored("the rules are ahead again");
    flows.iter_mut().for_each(|flow| flow.echo("beside a VPN"));
    for family in ["-4", "-6"] {
        network.client.ip(&format!("{family} rule delete not fwmark 51820 table 51820"));
        network.client.ip(&format!("{family} rule delete table main suppress_prefixlength 0"));
    }
    network.client.ip("link delete wg0");
    wait_until("the rules are where they were", || network.client.ip("rule").contains("1400:"));
    for family in ["-4", "-6"] {
        network.client.ip(&format!("{family} rule delete priority 1401"));
    }
    restored("the rules are back");
    flows.iter_mut().for_each(|flow| flow.echo("after"));
    drop(set);
    assert_unchanged(&network.client, &before);
}

/// Repeats `send` until a path is reported as silent, and returns the cause.
fn cause_of_silence(changes: &Receiver<PathChange>, send: impl Fn()) -> String {
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < Duration::from_secs(60), "no cause is named");
        send();
        if let Ok(PathChange::Silent { cause, .. }) = changes.recv_timeout(Duration::from_millis(500)) {
            return cause;
        }
    }
}

/// When a path falls silent, the host is tested in both directions.
#[test]
fn the_cause_of_silence_is_named() {
    for (ip, own, server) in FAMILIES {
        let network = TestNetwork::new();
        network.server.echo_server("[::]:80");
        let mut set = network.client.set_up(&["eth0"], &options()).unwrap();
        let changes = set.changes().unwrap();
        let (path, first) = (&set.paths[0], *set.port_range().unwrap().start());
        let mut flow = Flow::connect(&path.tun, (path.config.addresses[own], first), server);
        let text = "is anybody there?";
        let question = flow.segment("PA", text.as_bytes());
        let ask = || crate::network::send(&path.tun, &question);
        let setting = forwarding_setting(&network, ip);
        network.client.sysctl(&setting, "0");
        let cause = cause_of_silence(&changes, ask);
        assert!(cause.contains(&format!("{setting} is 0")), "{cause}");
        network.client.sysctl(&setting, "1");
        flow.echo(text);
        // Longer than it takes to notice that the path is heard again.
        std::thread::sleep(Duration::from_secs(4));
        network.server.nft("add table inet deaf");
        network.server.nft("add chain inet deaf c { type filter hook input priority 0 ; policy drop ; }");
        let cause = cause_of_silence(&changes, ask);
        assert!(cause.contains("the cause is in the network"), "{cause}");
    }
}

#[test]
fn a_firewall_that_begins_to_drop_a_path_s_packets_is_named() {
    let network = TestNetwork::new();
    network.server.echo_server("[::]:80");
    let mut set = network.client.set_up(&["eth0"], &options()).unwrap();
    let changes = set.changes().unwrap();
    let (path, first) = (&set.paths[0], *set.port_range().unwrap().start());
    let flow = Flow::connect(&path.tun, (path.config.addresses[0], first), "10.0.0.1:80");
    let question = flow.segment("PA", b"is anybody there?");
    network.client.nft("add table inet fence");
    network.client.nft("add chain inet fence f { type filter hook forward priority 0 ; policy drop ; }");
    let cause = cause_of_silence(&changes, || crate::network::send(&path.tun, &question));
    assert!(cause.contains("chain `inet fence f` (policy drop)"), "{cause}");
}

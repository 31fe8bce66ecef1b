//! The firewalls that others set up on the client: `umptcp run` works beside them or names the chain that is in its way
//! and the remedy, and their rules are afterwards what they were before, byte for byte.

use crate::programs::{HTTP, assert_same, prepare, serve, sh};
use crate::run::{LIMIT, RESTORED_WITHIN, captured, network, run};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::time::Instant;
use umptcp_testbed::Netns;
use umptcp_testbed::limit::within;
use umptcp_testbed::program::{self, Background};

/// The rules without their counters.
fn rules(ns: &Netns) -> String {
    ns.sh("nft -s list ruleset")
}

/// Waits until the rules are those again.
fn assert_restored(ns: &Netns, before: &str) {
    let end = Instant::now() + RESTORED_WITHIN;
    while rules(ns) != before {
        assert!(Instant::now() < end, "the rules were\n{before}\nand are\n{}", rules(ns));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Runs the commands that an error names. Those of iptables are done by nft, as iptables-nft does them: it takes tables
/// for its own only where it has made them itself, and these rules are not its own.
fn follow(ns: &Netns, said: &str) {
    // Each path's error names them.
    let commands: BTreeSet<&str> = said
        .split('`')
        .flat_map(|quoted| quoted.split("; "))
        .filter(|line| ["nft insert", "iptables -I", "ip6tables -I"].iter().any(|c| line.starts_with(c)))
        .collect();
    assert!(!commands.is_empty(), "no remedy in: {said}");
    for command in commands {
        let words: Vec<&str> = command.split_whitespace().collect();
        let command = match words[..] {
            ["nft", ..] => command.to_owned(),
            [program, "-I", chain, side, device, "-j", "ACCEPT"] => {
                let family = if program == "ip6tables" { "ip6" } else { "ip" };
                let key = if side == "-i" { "iifname" } else { "oifname" };
                let prefix = device.strip_suffix('+').expect("a prefix");
                format!("nft insert rule {family} filter {chain} {key} '\"{prefix}*\"' accept")
            }
            _ => panic!("another remedy: {command}"),
        };
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &command]);
        assert!(ns.run(|| shell.status()).expect("sh starts").success(), "{command}");
    }
}

/// With these rules on the client; if they are in the way, the error names these `chains`, all at once.
fn beside(name: &'static str, rule_set: &'static str, chains: &'static [&'static str]) {
    within(LIMIT * 2, move || {
        let net = network(2);
        let ns = &net.client.ns;
        ns.nft(rule_set);
        let folder = prepare(&net, name);
        sh(&net.server.ns, &folder, &format!("sed -i 's/listen {HTTP};/& listen [::]:{HTTP};/' nginx.conf"));
        let _nginx = serve(&net, &folder);
        let (path, server) = (folder.path().display(), &net.server.nics[0]);
        let script = format!(
            "cd {path}; set -e; curl -sS -o copy http://{}:{HTTP}/big; curl -sS -o copy6 http://[{}]:{HTTP}/big",
            server.v4, server.v6
        );
        let mut before = rules(ns);
        let mut refused = false;
        loop {
            let (said, code) = run(ns, "--summary", &script);
            assert_restored(ns, &before);
            if code == Some(0) {
                assert!(said.contains("2 connections: 2 MPTCP, 0 TCP"), "{said}");
                break;
            }
            assert!(chains.iter().all(|chain| said.contains(&format!("`{chain}`"))), "{code:?}: {said}");
            assert!(!refused, "the remedy does not help: {said}\n{before}");
            refused = true;
            follow(ns, &said);
            before = rules(ns);
        }
        ["copy", "copy6"].iter().for_each(|copy| assert_same(&folder, "www/big", copy));

        // It is killed, and `clean-up` takes away what is its own.
        let mut killed = Background::spawn(ns, captured("", "echo started; exec sleep 60"));
        assert_eq!(killed.next_line(), "started");
        assert_ne!(rules(ns), before, "it has rules of its own");
        killed.process().signal(Signal::SIGKILL);
        drop(killed.finish());
        assert!(program::run(ns, "clean-up").status.success());
        assert_restored(ns, &before);
    });
}

#[test]
fn beside_docker() {
    beside("docker", include_str!("firewalls/docker.nft"), &["ip filter FORWARD", "ip6 filter FORWARD"]);
}

#[test]
fn beside_firewalld() {
    beside("firewalld", include_str!("firewalls/firewalld.nft"), &["inet firewalld filter_FORWARD"]);
}

#[test]
fn beside_ufw() {
    beside("ufw", include_str!("firewalls/ufw.nft"), &["ip filter FORWARD", "ip6 filter FORWARD"]);
}

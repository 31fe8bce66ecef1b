//! `umptcp doctor`: each thing in the way is found, and nothing else.

use crate::programs::{HTTP, prepare, serve, serve_with};
use crate::run::{LIMIT, RESTORED_WITHIN, network};
use serde_json::Value;
use std::process::Command;
use umptcp_testbed::Netns;
use umptcp_testbed::host::Snapshot;
use umptcp_testbed::limit::within;
use umptcp_testbed::program;
use umptcp_testbed::topology::Routed;

/// The findings, and the exit code.
fn doctor(ns: &Netns, arguments: &str) -> (Vec<Value>, Option<i32>) {
    doctor_with(ns, arguments, &[])
}

/// The same, with arguments that have spaces in them.
fn doctor_with(ns: &Netns, arguments: &str, more: &[&str]) -> (Vec<Value>, Option<i32>) {
    let mut command = program::command(&format!("doctor --json {arguments}"));
    command.args(more);
    let output = ns.run(|| command.output()).expect("the program starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let findings = serde_json::from_str(text.trim());
    (
        findings.unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr))),
        output.status.code(),
    )
}

/// The one finding about this; panics where there is another number of them.
fn about<'a>(findings: &'a [Value], what: &str) -> &'a Value {
    let found: Vec<&Value> = findings.iter().filter(|f| f["about"] == what).collect();
    assert_eq!(found.len(), 1, "{what}: {findings:#?}");
    found[0]
}

fn assert_finding(findings: &[Value], what: &str, level: &str, part: &str) {
    let finding = about(findings, what);
    let text = finding["what"].as_str().expect("text");
    assert!(
        finding["level"] == level && text.contains(part),
        "{what} is not {level} for {part:?}: {finding:#}"
    );
}

fn server(net: &Routed) -> String {
    format!("{}:{HTTP}", net.server.nics[0].v4)
}

#[test]
fn a_healthy_host_is_healthy_and_stays_as_it_was() {
    within(LIMIT, || {
        let net = network(2);
        let before = Snapshot::take(&net.client.ns);
        let (findings, code) = doctor(&net.client.ns, "");
        assert_eq!(code, Some(0), "{findings:#?}");
        for what in ["privilege", "tun", "nftables", "firewall", "c0", "c1"] {
            assert_finding(&findings, what, "ok", "");
        }
        assert_finding(&findings, "c1", "ok", &net.client.nics[1].v4.to_string());
        assert_finding(&findings, "kernel", "ok", "MPTCP switched off");
        before.assert_restored(&net.client.ns, RESTORED_WITHIN);
    });
}

#[test]
fn what_is_in_the_way_on_the_host_is_named_with_what_mends_it() {
    within(LIMIT, || {
        let net = network(2);
        let ns = &net.client.ns;
        ns.sh("ip link set c1 down");
        let (findings, code) = doctor(ns, "");
        assert_finding(&findings, "c1", "note", "carries no path");
        assert_finding(&findings, "NICs", "note", "only one");
        assert_eq!(code, Some(0), "{findings:#?}");
        ns.sh("ip rule add from 192.0.2.0/24 lookup 77 priority 100");
        ns.nft("table inet strict {\nchain f {\ntype filter hook forward priority 0\npolicy drop\n}\n}");
        let (findings, code) = doctor(ns, "");
        assert_finding(&findings, "policy rules", "note", "from 192.0.2.0/24 lookup 77");
        assert_finding(&findings, "firewall", "note", "dropped by default");
        assert_finding(&findings, "c0", "problem", "strict");
        assert_eq!(code, Some(3), "{findings:#?}");
        ns.sh("ip link set c0 down");
        let (findings, code) = doctor(ns, "");
        assert_finding(&findings, "c0", "note", "carries no path");
        assert!(
            findings.iter().any(|f| f["about"] == "NICs" && f["level"] == "problem" && f["mend"].is_string())
        );
        assert_eq!(code, Some(3), "{findings:#?}");
        let mut command = Command::new("unshare");
        let script = "mount -t tmpfs none /dev/net && exec \"$0\" doctor";
        command.args(["-m", "sh", "-c", script]).arg(program::path());
        let output = ns.run(|| command.output()).expect("unshare starts");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("/dev/net/tun is missing") && text.contains("mend: modprobe tun"), "{text}");
    });
}

#[test]
fn what_paths_to_a_server_do_is_told_apart() {
    within(LIMIT, || {
        let net = network(2);
        let folder = prepare(&net, "doctor");
        let nginx = serve(&net, &folder);
        let probe = || doctor(&net.client.ns, &format!("{} --timeout 8", server(&net)));
        let (findings, code) = probe();
        for path in ["c0", "c1"] {
            assert!(findings.iter().any(
                |f| f["about"] == path && f["what"].as_str().is_some_and(|w| w.contains("speaks MPTCP"))
            ));
        }
        assert_finding(&findings, "together", "ok", "c0, c1");
        assert_eq!(code, Some(0), "{findings:#?}");

        let far = &net.client.nics[1].far_device;
        let problem = |part: &str| {
            let (findings, code) = probe();
            let of = |path: &str| findings.iter().filter(|f| f["about"] == path).collect::<Vec<_>>();
            assert!(of("c0").iter().all(|f| f["level"] == "ok"), "{findings:#?}");
            let found =
                |f: &&Value| f["level"] == "problem" && f["what"].as_str().is_some_and(|w| w.contains(part));
            assert!(of("c1").iter().any(found) && code == Some(3), "{part}: {findings:#?}");
        };
        rewritten(&net, far, &probe);
        net.silence(1, true);
        problem("is not reached");
        net.silence(1, false);
        drop(nginx);
        // The router may still say for a while that hosts on the link that was silent are not reached.
        let mut last = Vec::new();
        let both_refuse = (0..5).any(|_| {
            let (findings, code) = probe();
            let refuses = |f: &&Value| f["what"].as_str().is_some_and(|w| w.contains("refused"));
            let all = findings.iter().filter(refuses).count() == 2 && code == Some(3);
            last = findings;
            all
        });
        assert!(both_refuse, "{last:#?}");
    });
}

/// A path that takes MPTCP options out, or drops what has them: in the SYN, later, or of joins; in each direction.
#[test]
fn what_a_path_does_is_told_with_its_direction() {
    // What is dropped is waited for.
    within(4 * LIMIT, || {
        let net = network(2);
        let folder = prepare(&net, "directions");
        let _nginx = serve(&net, &folder);
        let far = &net.client.nics[1].far_device;
        const SYN: &str = "tcp flags & (syn | ack) == syn";
        const SYN_ACK: &str = "tcp flags & (syn | ack) == (syn | ack)";
        const LATER: &str = "tcp flags & syn == 0";
        const STRIP: &str = "reset tcp option mptcp";
        const DROP: &str = "tcp option mptcp exists drop";
        const JOINS: &str = "tcp option mptcp subtype 1 reset tcp option mptcp";
        const NO_JOINS: &str = "tcp flags & syn == syn tcp option mptcp subtype 1 drop";
        for (what, rule, part, direction) in [
            ("up", format!("iifname {far} {SYN} {STRIP}"), "out of the SYN,", "to-server"),
            ("down", format!("oifname {far} {SYN_ACK} {STRIP}"), "out of the SYN/ACK,", "from-server"),
            ("later up", format!("iifname {far} {LATER} {STRIP}"), "after the handshake", "to-server"),
            ("later down", format!("oifname {far} {LATER} {STRIP}"), "after the handshake", "from-server"),
            ("drops up", format!("iifname {far} {SYN} {DROP}"), "drops SYNs with", "to-server"),
            ("drops down", format!("oifname {far} {SYN_ACK} {DROP}"), "drops SYN/ACKs with", "from-server"),
            ("joins up", format!("iifname {far} {SYN} {JOINS}"), "out of joins", "to-server"),
            (
                "joins down",
                format!("oifname {far} {SYN_ACK} {JOINS}"),
                "of joins out of the SYN/ACK",
                "from-server",
            ),
            ("no joins", format!("iifname {far} {NO_JOINS}"), "drops joins", "untold"),
        ] {
            net.router.nft(&format!(
                "table inet middlebox {{\nchain f {{\ntype filter hook forward priority 0\n{rule}\n}}\n}}"
            ));
            let (findings, code) = doctor(&net.client.ns, &format!("{} --timeout 8", server(&net)));
            let is_it = |f: &&Value| {
                f["about"] == "c1"
                    && f["level"] == "problem"
                    && f["direction"] == direction
                    && f["what"].as_str().is_some_and(|w| w.contains(part))
                    && f["mend"].as_str().is_some_and(|m| m.contains("--path c0"))
            };
            assert_eq!((findings.iter().filter(is_it).count(), code), (1, Some(3)), "{what}: {findings:#?}");
            // The other path is not accused, nor is the server.
            let others = findings.iter().filter(|f| f["about"] == "c0" && f["level"] == "problem").count();
            assert_eq!(others, 0, "{what}: {findings:#?}");
            let text = serde_json::to_string(&findings).expect("JSON");
            assert!(!text.contains("its limits"), "{what}: {findings:#?}");
            net.router.nft("delete table inet middlebox");
        }
        // What the server refuses is no path's fault.
        net.server.ns.sh("ip mptcp limits set subflow 0 add_addr_accepted 0");
        let (findings, code) = doctor(&net.client.ns, &server(&net));
        assert_finding(&findings, "together", "problem", "the server refuses joins by any path");
        assert_eq!(code, Some(3), "{findings:#?}");
        let accused = |f: &&Value| ["c0", "c1"].iter().any(|p| f["about"] == *p) && f["level"] == "problem";
        assert_eq!(findings.iter().filter(accused).count(), 0, "{findings:#?}");
    });
}

/// A path that changes some bytes of what connections carry, so that TCP's checksum stays right.
#[test]
fn a_rewritten_payload_is_told_with_its_direction() {
    within(2 * LIMIT, || {
        let net = network(2);
        let folder = prepare(&net, "payload");
        let _nginx = serve(&net, &folder);
        let far = &net.client.nics[1].far_device;
        // The 69th and 70th byte of the segment, "bc", become "AB"; the urgent pointer, which counts for nothing, makes up for it
        // in the checksum.
        let up = format!(
            "iifname {far} tcp dport {HTTP} tcp doff 11 @th,544,16 0x6263 @th,544,16 set 0x4142 @th,144,16 set 0x2121"
        );
        // The server's checksums are made by the device at the end of the way.
        let down = format!("oifname {far} tcp sport {HTTP} meta length > 200 @th,800,8 set 0x58");
        let request = &["--request", r"HEAD / HTTP/1.0\r\nHost: abcd\r\n\r\n"];
        for (rule, direction) in [(up, "to-server"), (down, "from-server")] {
            net.router.nft(&format!(
                "table inet middlebox {{\nchain f {{\ntype filter hook forward priority 0\n{rule}\n}}\n}}"
            ));
            let (findings, code) =
                doctor_with(&net.client.ns, &format!("{} --timeout 8", server(&net)), request);
            let is_it = |f: &&Value| {
                f["about"] == "c1"
                    && f["level"] == "problem"
                    && f["direction"] == direction
                    && f["what"].as_str().is_some_and(|w| w.contains("rewrites what is sent"))
                    && f["mend"].as_str().is_some_and(|m| m.contains("TLS"))
            };
            assert_eq!((findings.iter().filter(is_it).count(), code), (1, Some(3)), "{rule}: {findings:#?}");
            let others = findings.iter().filter(|f| f["about"] == "c0" && f["level"] == "problem").count();
            assert_eq!(others, 0, "{rule}: {findings:#?}");
            net.router.nft("delete table inet middlebox");
        }
    });
}

/// A box that adds 2³¹ to the sequence numbers of what leaves by the second NIC. Only its router sees it.
fn rewritten(net: &Routed, far: &str, probe: &impl Fn() -> (Vec<Value>, Option<i32>)) {
    let all = |findings: &[Value], path: &str, part: &str| {
        findings.iter().any(|f| f["about"] == path && f["what"].as_str().is_some_and(|w| w.contains(part)))
    };
    net.router.nft(&format!(
        "table inet sequence {{
chain towards {{
type filter hook prerouting priority 0
iifname {far} tcp flags & (syn | ack) == syn tcp option sack-perm exists reset tcp option sack-perm
iifname {far} meta l4proto tcp tcp sequence set tcp sequence xor 0x80000000
}}
chain back {{
type filter hook postrouting priority 0
oifname {far} meta l4proto tcp tcp ackseq set tcp ackseq xor 0x80000000
}}
}}"
    ));
    let (findings, code) = probe();
    assert!(all(&findings, "c0", "sequence numbers are as they were sent at router 1"), "{findings:#?}");
    assert!(all(&findings, "c1", "something before router 1"), "{findings:#?}");
    assert!(all(&findings, "c1", "speaks MPTCP"), "{findings:#?}");
    assert_eq!(code, Some(0), "that is no problem: {findings:#?}");
    net.router.nft("delete table inet sequence");
}

#[test]
fn a_server_of_plain_tcp_is_told_from_a_path_that_strips() {
    within(LIMIT, || {
        let net = network(2);
        let folder = prepare(&net, "plain");
        let _nginx = serve_with(&net, &folder, &mut Command::new("nginx"));
        let (findings, code) = doctor(&net.client.ns, &server(&net));
        let plain = |f: &&Value| {
            f["what"].as_str().is_some_and(|w| w.contains("the server does not speak MPTCP"))
                && f["mend"].as_str().is_some_and(|m| m.contains("mptcpize"))
        };
        assert_eq!((findings.iter().filter(plain).count(), code), (2, Some(3)), "{findings:#?}");
    });
}

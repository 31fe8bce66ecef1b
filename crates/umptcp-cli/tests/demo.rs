//! `demo`, in virtual time and with real packets.
#![cfg(all(target_os = "linux", not(umptcp_portable)))]

mod common;

use common::{Output, TempDir, run, umptcp};
use std::process::{Command, Stdio};

const INTACT: &str = "Every byte arrived intact";

/// Goodput in bits per second and percentage per NIC in the table row that starts with `name`.
fn row(out: &Output, name: &str) -> (f64, [f64; 2]) {
    let line =
        out.stdout.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {out:?}"));
    assert!(line.ends_with("intact"), "{line}");
    // Values have a unit: "<value> bit/s|kbit/s|...", "<share> %".
    let words: Vec<&str> = line.split_whitespace().collect();
    let unit = words.iter().position(|w| w.ends_with("bit/s")).expect("a rate");
    let factor = match words[unit] {
        "kbit/s" => 1e3,
        "Mbit/s" => 1e6,
        "Gbit/s" => 1e9,
        _ => 1.0,
    };
    let rate = words[unit - 1].parse::<f64>().unwrap() * factor;
    let mut shares = words[unit + 1..].iter().filter(|w| **w != "%").map(|w| w.parse().unwrap_or(0.0));
    (rate, [shares.next().unwrap(), shares.next().unwrap()])
}

/// Checks the output of a run of the demo, independently of its speed.
fn check(out: &Output) {
    assert_eq!(out.code, 0, "{}\n{}", out.stdout, out.stderr);
    assert!(out.stdout.contains(INTACT), "{}", out.stdout);
    assert_eq!(row(out, "nic0 alone").1, [100.0, 0.0]);
    let (_, [first, second]) = row(out, "both NICs");
    assert!(first >= 10.0 && second >= 10.0, "{first} % and {second} %:\n{}", out.stdout);
    let (_, [_, second]) = row(out, "both, nic0");
    assert!(second >= 10.0, "{}", out.stdout);
    for note in ["<- nic0 goes silent", "<- nic0 is back"] {
        assert!(out.stdout.contains(note), "{}", out.stdout);
    }
}

#[test]
fn simulated_it_is_the_same_every_time() {
    let arguments = ["demo", "--sim", "--seconds", "4", "--rates", "30,20"];
    let out = run(umptcp().args(arguments));
    check(&out);
    let (one, _) = row(&out, "nic0 alone");
    let (both, _) = row(&out, "both NICs");
    assert!(one > 0.8 * 30e6 && one < 30e6, "{one}");
    assert!(both > 0.8 * 50e6 && both < 50e6, "{both}");
    assert_eq!(run(umptcp().args(arguments)).stdout, out.stdout);
    let other = run(umptcp().args(arguments).args(["--scheduler", "round-robin", "--congestion", "cubic"]));
    check(&other);
    assert_ne!(other.stdout, out.stdout);
}

#[test]
fn simulated_from_server_to_client() {
    let out =
        run(umptcp().args(["demo", "--sim", "--seconds", "4", "--rates", "30,20", "--down", "--checksum"]));
    check(&out);
}

/// Slow links, so that a loaded machine can keep up.
const SLOW: [&str; 7] = ["demo", "--seconds", "4", "--rates", "16,12", "--delay", "5ms"];

#[test]
fn real_packets_to_the_kernel() {
    let dir = TempDir::new("demo");
    let pcap = dir.path().join("demo.pcapng");
    let out = run(umptcp().args(SLOW).arg("--pcap").arg(&pcap));
    check(&out);
    assert!(out.stdout.contains("receiver: the kernel's MPTCP"), "{}", out.stdout);
    assert!(
        out.stdout.contains("3 MPTCP connections, 2 subflows joined to them, 0 fallbacks"),
        "{}",
        out.stdout
    );
    let decode = |filter: &str| -> Vec<String> {
        let mut tshark = Command::new("tshark");
        tshark.arg("-r").arg(&pcap).args(["-Y", filter, "-T", "fields"]);
        let out = run(tshark.args(["-e", "frame.number", "-e", "frame.protocols", "-e", "_ws.col.Info"]));
        assert_eq!(out.code, 0, "{}", out.stderr);
        out.stdout.lines().map(str::to_owned).collect()
    };
    assert!(decode("tcp.options.mptcp.subtype == 2").len() > 100, "DSS in the trace");
    // The payload is random bytes, and a few of some ten thousand packets look to tshark like those of another
    // protocol (seen: thrift). What it makes of them is not about us.
    let ours = ["raw", "ip", "ipv6", "tcp", "mptcp", "data", "_ws.malformed"];
    let about_us = |line: &&String| {
        line.split('\t').nth(1).is_none_or(|layers| layers.split(':').all(|layer| ours.contains(&layer)))
    };
    let malformed = decode("_ws.malformed");
    let malformed: Vec<&String> = malformed.iter().filter(about_us).collect();
    assert!(malformed.is_empty(), "{malformed:?}");
}

#[test]
fn real_packets_to_umptcp_and_back() {
    let out = run(umptcp().args(SLOW).args(["--server", "umptcp", "--down"]));
    check(&out);
    assert!(out.stdout.contains("sender: umptcp; receiver: umptcp"), "{}", out.stdout);
}

/// A shell in a private mount namespace, in which `script` can hide files.
fn shell(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", script, "sh", env!("CARGO_BIN_EXE_umptcp")]);
    command.env_remove("UMPTCP_LOG").stdin(Stdio::null());
    command
}

const AS_USER: &str = "setpriv --reuid 1234 --regid 1234 --clear-groups";

/// Copies the program to where an ordinary user can run it.
const COPY: &str = "d=$(mktemp -d); trap 'rm -rf $d' EXIT; chmod 755 $d; cp $1 $d/umptcp";

#[test]
fn an_ordinary_user_can_run_it() {
    let script = format!(
        "{COPY}; mknod $d/tun c 10 200; chmod 666 $d/tun; mount --bind $d/tun /dev/net/tun; {AS_USER} $d/umptcp {}",
        SLOW.join(" ")
    );
    let out = run(&mut shell(&script));
    check(&out);
}

#[test]
fn without_tun_it_says_how_to_proceed() {
    let script = format!(
        "{COPY}; touch $d/no; chmod 0 $d/no; mount --bind $d/no /dev/net/tun; {AS_USER} $d/umptcp demo"
    );
    let out = run(&mut shell(&script));
    assert_eq!(out.code, 1, "{}", out.stdout);
    assert!(out.stderr.contains("/dev/net/tun") && out.stderr.contains("demo --sim"), "{}", out.stderr);
}

#[test]
fn where_user_namespaces_are_forbidden_it_says_how_to_proceed() {
    // In a user namespace with many users, whose root can set its limits. Capabilities become effective only
    // with the exec after the ids are mapped.
    let script = format!(
        "{COPY}; mknod $d/tun c 10 200; chmod 666 $d/tun; mount --bind $d/tun /dev/net/tun; mkfifo $d/go; export d
         unshare --user sh -c 'read go < $d/go; exec sh -c \"$INNER\"' & p=$!
         while [ $(readlink /proc/$p/ns/user) = $(readlink /proc/self/ns/user) ]; do sleep 0.05; done
         echo 0 0 65536 > /proc/$p/uid_map; echo 0 0 65536 > /proc/$p/gid_map
         echo go > $d/go; wait $p"
    );
    let inner = format!(
        "echo 0 > /proc/sys/user/max_user_namespaces; {AS_USER} $d/umptcp demo && exit 1; $d/umptcp {}",
        SLOW.join(" ")
    );
    let out = run(shell(&script).env("INNER", inner));
    // First as a user, who is refused, then as root, who does not need a user namespace.
    assert!(out.stderr.contains("user.max_user_namespaces=10000 (it is 0 now)"), "{}", out.stderr);
    assert!(out.stderr.contains("demo --sim"), "{}", out.stderr);
    check(&out);
}

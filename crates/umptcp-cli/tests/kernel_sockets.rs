//! `bench`, `listen` and `connect` over the kernel's TCP and MPTCP, inside a network namespace.
#![cfg(all(target_os = "linux", not(umptcp_portable)))]

mod common;

use common::{Namespace, Server, run};
use serde_json::Value;
use std::io::Write as _;
use std::process::Stdio;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in\n{text}"))
}

#[test]
fn throughput_both_ways_is_verified_at_both_ends() {
    let net = Namespace::new();
    for (server_stack, client_stack, host) in [
        ("kernel-tcp", "kernel-tcp", "127.0.0.1"),
        ("kernel-mptcp", "kernel-tcp", "::1"),
        ("kernel-mptcp", "kernel-mptcp", "127.0.0.1"),
    ] {
        let server = Server::start(net.umptcp().args([
            "bench",
            "server",
            "0",
            "--json",
            "--once",
            "--stack",
            server_stack,
        ]));
        let port = server.address.rsplit(':').next().unwrap();
        let arguments =
            ["--direction", "both", "--bytes", "3000001", "--verify", "--json", "--stack", client_stack];
        let out = run(net.umptcp().args(["bench", "client", host, port]).args(arguments));
        assert_eq!(out.code, 0, "{}", out.stderr);
        let found = json(&out.stdout);
        for direction in ["up", "down"] {
            assert_eq!(found[direction]["bytes"], 3_000_001, "{found}");
            assert_eq!(found[direction]["sha256"].as_str().unwrap().len(), 64);
            assert!(found[direction]["bits_per_second"].as_f64().unwrap() > 0.0);
        }
        assert_ne!(found["up"]["sha256"], found["down"]["sha256"]);
        assert_eq!((&found["verified"], &found["stack"]), (&Value::Bool(true), &client_stack.into()));
        assert_eq!(found["server"]["stack"], server_stack);
        let (code, report) = server.wait();
        assert_eq!(code, Some(0));
        let report = json(&report);
        assert_eq!(report["report"]["received"]["sha256"], found["up"]["sha256"]);
        assert_eq!(report["report"]["sent"]["bytes"], 3_000_001);
    }
}

#[test]
fn time_bounds_a_measurement_and_progress_is_reported() {
    let net = Namespace::new();
    let server = Server::start(net.umptcp().args([
        "bench",
        "server",
        "127.0.0.1:0",
        "--stack",
        "kernel-tcp",
        "--count",
        "2",
    ]));
    let port = server.address.rsplit(':').next().unwrap().to_owned();
    for direction in ["up", "down"] {
        let arguments =
            ["--direction", direction, "--seconds", "0.5", "--interval", "0.1", "--stack", "kernel-tcp"];
        let out = run(net.umptcp().args(["bench", "client", "127.0.0.1", &port]).args(arguments));
        assert_eq!(out.code, 0, "{}", out.stderr);
        let progress = out.stdout.lines().filter(|l| l.contains(&format!(" s   {direction}"))).count();
        assert!(progress >= 2, "{}", out.stdout);
        assert!(out.stdout.contains(&format!("\n{direction}")), "{}", out.stdout);
    }
    assert_eq!(server.wait().0, Some(0));
}

#[test]
fn latency_and_connection_rate() {
    let net = Namespace::new();
    let server = Server::start(net.umptcp().args(["bench", "server", "0", "--stack", "kernel-mptcp"]));
    let port = server.address.rsplit(':').next().unwrap().to_owned();
    let client = |arguments: &[&str]| {
        let out =
            run(net.umptcp().args(["bench", "client", "localhost", &port, "-4", "--json"]).args(arguments));
        assert_eq!(out.code, 0, "{}", out.stderr);
        json(&out.stdout)
    };
    let latency = ["--mode", "latency", "--request", "100", "--response", "5000", "--count", "50"];
    let found = client(&[&latency[..], &["--stack", "kernel-mptcp"]].concat());
    assert_eq!((&found["latency"]["count"], &found["server"]["requests"]), (&50.into(), &50.into()));
    let times: Vec<f64> = ["min_us", "median_us", "p99_us", "max_us"]
        .iter()
        .map(|name| found["latency"][name].as_f64().unwrap())
        .collect();
    assert!(times[0] > 0.0 && times.is_sorted(), "{times:?}");

    let found =
        client(&["--mode", "connections", "--count", "40", "--parallel", "4", "--stack", "kernel-tcp"]);
    assert_eq!(found["latency"]["count"], 40);
    assert!(found["per_second"].as_f64().unwrap() > 0.0);
    server.signal("-TERM");
    assert_eq!(server.wait().0, Some(128 + 15));
}

#[test]
fn a_bad_client_does_not_end_the_server() {
    let net = Namespace::new();
    let mut command = net.umptcp();
    let server = Server::start(
        command
            .args(["bench", "server", "127.0.0.1:0", "--stack", "kernel-tcp", "--count", "3"])
            .stderr(Stdio::null()),
    );
    let port = server.address.rsplit(':').next().unwrap().to_owned();
    for talk in [&b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: everything there is\r\n\r\n"[..], b"short"] {
        let mut nc = net
            .umptcp()
            .args(["connect", "127.0.0.1", &port, "--stack", "kernel-tcp"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        nc.stdin.take().unwrap().write_all(talk).unwrap();
        let out = nc.wait_with_output().unwrap();
        if talk.len() > 48 {
            assert!(String::from_utf8_lossy(&out.stdout).contains("not `umptcp bench client`"));
        }
    }
    let out = run(net.umptcp().args([
        "bench",
        "client",
        "127.0.0.1",
        &port,
        "--bytes",
        "10k",
        "--stack",
        "kernel-tcp",
    ]));
    assert_eq!(out.code, 0, "{}", out.stderr);
    assert_eq!(server.wait().0, Some(1), "two of three measurements failed");
}

#[test]
fn netcat_carries_both_directions_and_half_closes() {
    let net = Namespace::new();
    let sent: Vec<u8> = (0..5_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for stack in ["kernel-tcp", "kernel-mptcp"] {
        let start = |arguments: &[&str]| {
            net.umptcp()
                .args(arguments)
                .args(["-v", "--stack", stack])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let mut listener = start(&["listen", "127.0.0.1:0"]);
        let mut said = std::io::BufReader::new(listener.stderr.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut said, &mut line).unwrap();
        let port = line.trim().rsplit(':').next().unwrap().to_owned();
        let mut client = start(&["connect", "127.0.0.1", &port]);

        // The client sends everything first; only then does the server answer.
        let mut to = client.stdin.take().unwrap();
        let data = sent.clone();
        let writer = std::thread::spawn(move || to.write_all(&data));
        let mut received = vec![0; sent.len()];
        let mut from = listener.stdout.take().unwrap();
        std::io::Read::read_exact(&mut from, &mut received).unwrap();
        writer.join().unwrap().unwrap();
        assert!(received == sent);
        listener.stdin.take().unwrap().write_all(b"all of it").unwrap();
        let out = client.wait_with_output().unwrap();
        assert_eq!((out.status.code(), &out.stdout[..]), (Some(0), &b"all of it"[..]));
        assert_eq!(listener.wait().unwrap().code(), Some(0));
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(said.contains("sent 5000000 bytes") && said.contains("received 9 bytes"), "{said}");
    }
}

#[test]
fn failures_say_what_to_do() {
    let net = Namespace::new();
    let fails = |arguments: &str, names: &str, code: i32| {
        let out = run(net.umptcp().args(arguments.split(' ')));
        assert_eq!(out.code, code, "{arguments}: {}", out.stderr);
        assert!(out.stderr.contains(names), "{arguments}: {}", out.stderr);
    };
    fails("connect 127.0.0.1 9 --stack kernel-tcp", "nothing listens", 5);
    fails("connect 192.0.2.1 9 --stack kernel-mptcp", "route", 5);
    fails("connect 192.0.2.1 9 --stack kernel-tcp -6", "no IPv6 address", 4);
    fails("connect no-such-host.invalid 9 --stack kernel-tcp", "no-such-host.invalid", 4);
    fails("listen 192.0.2.1:9 --stack kernel-tcp", "no interface of this host", 3);
    let server =
        Server::start(net.umptcp().args(["bench", "server", "127.0.0.1:0", "--stack", "kernel-tcp"]));
    fails(&format!("listen {} --stack kernel-tcp", server.address), "in use", 3);
    assert!(net.command("sysctl").args(["-qw", "net.mptcp.enabled=0"]).status().unwrap().success());
    fails("connect 127.0.0.1 9 --stack kernel-mptcp", "net.mptcp.enabled=1", 3);
}

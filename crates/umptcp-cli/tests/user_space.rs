//! `bench`, `listen` and `connect` over umptcp itself, with the kernel as the peer, in two network
//! namespaces.
#![cfg(all(target_os = "linux", not(umptcp_portable)))]

mod common;

use common::{Namespace, Server, run};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};

const KERNEL: &str = "10.77.1.9";
const STACK: &str = "10.77.1.2";

/// A client and a server with one NIC each, connected.
struct TestNetwork {
    client: Namespace,
    server: Namespace,
}

impl TestNetwork {
    fn new() -> TestNetwork {
        let network = TestNetwork { client: Namespace::new(), server: Namespace::new() };
        network.client.ip(&[
            "link",
            "add",
            "nic",
            "type",
            "veth",
            "peer",
            "name",
            "eth",
            "netns",
            network.server.name(),
        ]);
        for (net, device, address) in
            [(&network.client, "nic", "10.77.1.1/24"), (&network.server, "eth", "10.77.1.9/24")]
        {
            net.ip(&["address", "add", address, "dev", device]);
            net.ip(&["link", "set", device, "up"]);
        }
        network
    }

    /// The program in the client's namespace, with a path over its NIC.
    fn user_space(&self, arguments: &[&str]) -> Command {
        let mut command = self.client.umptcp();
        command.args(arguments).args(["--path", "nic,address=10.77.1.2,mode=routed"]);
        command
    }

    /// Asserts that nothing of ours is left in the client's namespace.
    fn assert_clean(&self) {
        let links = run(self.client.command("ip").args(["-o", "link"])).stdout;
        assert!(!links.contains(": umptcp"), "{links}");
        let rules = run(self.client.command("ip").args(["rule"])).stdout;
        assert_eq!(rules.lines().count(), 3, "{rules}");
    }
}

fn json(out: &common::Output) -> Value {
    assert_eq!(out.code, 0, "{}", out.stderr);
    serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e} in\n{}", out.stdout))
}

#[test]
fn bench_against_the_kernel() {
    let network = TestNetwork::new();
    let server = Server::start(network.server.umptcp().args(["bench", "server", "--stack", "kernel-mptcp"]));
    let client = |arguments: &[&str]| {
        json(&run(network.user_space(&["bench", "client", KERNEL, "--json"]).args(arguments)))
    };
    let found = client(&["--direction", "both", "--bytes", "8Mi", "--verify"]);
    assert_eq!((&found["verified"], &found["mptcp"]), (&true.into(), &true.into()), "{found}");
    assert_eq!(found["up"]["bytes"], 8 << 20);
    assert_eq!((&found["congestion"], &found["scheduler"]), (&"lia".into(), &"min-rtt".into()));

    let found = client(&["--bytes", "1Mi", "--verify", "--no-mptcp", "--congestion", "cubic"]);
    assert_eq!((&found["verified"], &found["mptcp"]), (&true.into(), &false.into()), "{found}");
    assert!(found["description"].as_str().unwrap().contains("switched off"), "{found}");

    let found = client(&["--seconds", "1", "--interval", "0.2", "--checksum"]);
    let subflows = &found["intervals"][1]["subflows"];
    assert_eq!(subflows[0]["path"], "nic", "{found}");

    let found = client(&["--mode", "latency", "--count", "200"]);
    assert_eq!((&found["latency"]["count"], &found["server"]["requests"]), (&200.into(), &200.into()));
    let found = client(&["--mode", "connections", "--count", "50", "--parallel", "5"]);
    assert_eq!(found["latency"]["count"], 50);
    drop(server);
    network.assert_clean();
}

#[test]
fn bench_as_the_server() {
    let network = TestNetwork::new();
    let server = Server::start(&mut network.user_space(&["bench", "server", "--json", "--count", "2"]));
    for stack in ["kernel-mptcp", "kernel-tcp"] {
        let arguments = ["--direction", "both", "--bytes", "4Mi", "--verify", "--json", "--stack", stack];
        let found = json(&run(network.server.umptcp().args(["bench", "client", STACK]).args(arguments)));
        assert_eq!(found["verified"], true, "{found}");
        assert_eq!(
            (&found["server"]["stack"], &found["server"]["mptcp"]),
            (&"umptcp".into(), &(stack == "kernel-mptcp").into())
        );
    }
    let (code, reports) = server.wait();
    assert_eq!((code, reports.lines().count()), (Some(0), 2), "{reports}");
    network.assert_clean();
}

#[test]
fn netcat_with_the_kernel() {
    let network = TestNetwork::new();
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for user_space_listens in [false, true] {
        let kernel = |arguments: &[&str]| {
            let mut command = network.server.umptcp();
            command.args(arguments).args(["--stack", "kernel-mptcp"]);
            command
        };
        let mut listener = match user_space_listens {
            true => network.user_space(&["-v", "listen", "9000"]),
            false => kernel(&["-v", "listen", "9000"]),
        };
        let mut listener =
            listener.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(listener.stderr.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().starts_with("listening on ")));
        let mut client = match user_space_listens {
            true => kernel(&["connect", STACK, "9000"]),
            false => network.user_space(&["connect", KERNEL, "9000"]),
        };
        let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut to = client.stdin.take().unwrap();
        let data = sent.clone();
        let writer = std::thread::spawn(move || to.write_all(&data));
        let mut received = vec![0; sent.len()];
        listener.stdout.take().unwrap().read_exact(&mut received).unwrap();
        writer.join().unwrap().unwrap();
        assert!(received == sent);
        listener.stdin.take().unwrap().write_all(b"all of it").unwrap();
        let out = client.wait_with_output().unwrap();
        assert_eq!((out.status.code(), &out.stdout[..]), (Some(0), &b"all of it"[..]));
        assert_eq!(listener.wait().unwrap().code(), Some(0));
        network.assert_clean();
    }
}

#[test]
fn signals_and_failures_leave_nothing_behind() {
    let network = TestNetwork::new();
    let server = Server::start(&mut network.user_space(&["bench", "server"]));
    assert!(run(network.client.command("ip").args(["-o", "link"])).stdout.contains("umptcp"));
    server.signal("-INT");
    assert_eq!(server.wait().0, Some(128 + 2));
    network.assert_clean();

    // `timeout` sends two at once, and an impatient user more: of those that wait together, any may be the first.
    let several: [(&[&str], &[i32]); 3] =
        [(&["-TERM", "-TERM", "-INT"], &[15, 2]), (&["-USR1"], &[10]), (&["-QUIT", "-QUIT"], &[3])];
    for (signals, codes) in several {
        let server = Server::start(&mut network.user_space(&["bench", "server"]));
        signals.iter().for_each(|signal| server.signal(signal));
        let code = server.wait().0;
        assert!(codes.iter().any(|signal| code == Some(128 + signal)), "{signals:?}: {code:?}");
        network.assert_clean();
    }
    // One that is ignored stays so, as with nohup.
    let mut command = network.client.command("sh");
    let program = env!("CARGO_BIN_EXE_umptcp");
    let script = format!("trap '' HUP; exec {program} bench server --path nic,address={STACK},mode=routed");
    let server = Server::start(command.args(["-c", &script]));
    server.signal("-HUP");
    server.signal("-TERM");
    assert_eq!(server.wait().0, Some(128 + 15));

    // SIGKILL leaves everything, which is what clean-up is for.
    let clean_up = || run(network.client.umptcp().arg("clean-up"));
    // Daemons elsewhere on this host may have left files.
    clean_up();
    assert_eq!(clean_up().stdout, "nothing was left behind\n");
    let server = Server::start(&mut network.user_space(&["bench", "server"]));
    server.signal("-KILL");
    assert_eq!(server.wait().0, None);
    assert_ne!(run(network.client.command("ip").args(["rule"])).stdout.lines().count(), 3);
    let out = clean_up();
    assert_eq!((out.code, out.stdout.lines().count()), (0, 1), "{}{}", out.stdout, out.stderr);
    network.assert_clean();
    assert_eq!(clean_up().stdout, "nothing was left behind\n");

    let fails = |arguments: &[&str], names: &str, code: i32| {
        let out = run(network.client.umptcp().args(arguments));
        assert_eq!(out.code, code, "{arguments:?}: {}", out.stderr);
        assert!(out.stderr.contains(names), "{arguments:?}: {names:?} is missing in {}", out.stderr);
        network.assert_clean();
    };
    let path = "nic,address=10.77.1.2,mode=routed";
    fails(&["connect", KERNEL, "9", "--path", path], "nothing listens", 5);
    fails(&["connect", "10.77.1.77", "9", "--path", path, "--timeout", "5"], "10.77.1.77", 5);
    fails(&["connect", KERNEL, "9", "--path", "nix0,address=10.77.1.2,mode=routed"], "available: lo, nic", 3);
    fails(&["connect", KERNEL, "9", "--path", "nic,address=10.77.1.1,mode=routed"], "taken", 3);
    fails(&["connect", KERNEL, "9", "--path", path, "--pcap", "/nowhere/x.pcapng"], "/nowhere/x.pcapng", 3);
    fails(&["connect", "fd00::1", "9", "--path", path], "fd00::1", 5);
}

#[test]
fn a_server_that_serves_once_serves_any_measurement_and_no_second() {
    let network = TestNetwork::new();
    for mode in [&["--mode", "connections", "--count", "30"][..], &["--bytes", "100k"]] {
        let mut command = network.server.umptcp();
        command.args(["bench", "server", "--stack", "kernel-mptcp", "--once", "--json"]);
        let server = Server::start(&mut command);
        // The port beside the host, in the same argument.
        let target = format!("{KERNEL}:8684");
        let found = json(&run(network.user_space(&["bench", "client", &target, "--json"]).args(mode)));
        let connections = &found["server"]["connections"];
        assert_eq!(connections, &if mode.contains(&"connections") { 30.into() } else { Value::Null });
        assert_eq!(found["error"], Value::Null);
        let (code, reports) = server.wait();
        assert_eq!((code, reports.lines().count()), (Some(0), 1), "{reports}");
    }
}

#[test]
fn a_failed_measurement_is_reported_as_json() {
    let network = TestNetwork::new();
    let mut command = network.server.umptcp();
    command.args(["bench", "server", "--stack", "kernel-tcp", "--once", "--json"]);
    let server = Server::start(&mut command);
    let mut client = network.server.umptcp();
    client.args(["connect", "--stack", "kernel-tcp", "127.0.0.1:8684"]).stdin(Stdio::piped());
    let mut client = client.stdout(Stdio::null()).spawn().unwrap();
    client.stdin.take().unwrap().write_all(&[b'x'; 48]).unwrap();
    client.wait().unwrap();
    let (code, report) = server.wait();
    // Then comes the reason for the exit code.
    let report: Value = serde_json::from_str(report.lines().next().unwrap()).unwrap();
    assert_eq!((code, &report["error"]["class"]), (Some(1), &"other".into()), "{report}");
    assert!(report["client"].as_str().unwrap().contains("127.0.0.1"), "{report}");
}

#[test]
fn little_is_said_unless_it_was_asked_for() {
    let network = TestNetwork::new();
    let server = Server::start(network.server.umptcp().args(["bench", "server", "--stack", "kernel-mptcp"]));
    let connect = ["connect", "10.77.1.9:8684"];
    let out = run(network.user_space(&connect).args(["--timeout", "5"]));
    assert_eq!(out.stderr, "");
    let out = run(network.user_space(&connect).arg("-v"));
    let lines: Vec<&str> = out.stderr.lines().collect();
    assert_eq!(lines[0], "connecting to 10.77.1.9:8684 over nic");
    assert!(lines[1].starts_with("connected: 10.77.1.2:"), "{}", out.stderr);
    assert!(!out.stderr.contains("setting"), "what is changed on the host is a detail: {}", out.stderr);
    drop(server);
}

#[test]
fn a_nic_without_a_route_is_named_and_colours_are_left_out_if_unwanted() {
    let network = TestNetwork::new();
    network.client.ip(&["link", "add", "spare", "type", "veth", "peer", "name", "other"]);
    network.client.ip(&["link", "set", "spare", "up"]);
    network.client.ip(&["link", "set", "other", "up"]);
    network.client.ip(&["address", "add", "10.99.0.1/32", "dev", "spare"]);
    let program = env!("CARGO_BIN_EXE_umptcp");
    // On a terminal, so that there would be colours.
    let on_terminal = |no_colour: &str| {
        let mut command = network.client.command("script");
        command.args(["-qec", &format!("{program} connect {KERNEL}:9"), "/dev/null"]);
        let out = run(command.env("NO_COLOR", no_colour).env_remove("UMPTCP_LOG"));
        let text = out.stdout;
        assert!(text.contains("spare") && text.contains("it has no route"), "{text}");
        text.contains('\u{1b}')
    };
    assert_eq!((on_terminal(""), on_terminal("1")), (true, false));
}

#[test]
fn without_privileges_one_line_says_what_to_do() {
    let network = TestNetwork::new();
    let program = env!("CARGO_BIN_EXE_umptcp");
    let mut command = network.client.command("setpriv");
    let out = run(command.args(["--bounding-set=-net_admin", program, "connect", "10.77.1.9:9"]));
    assert_eq!(out.code, 3, "{}", out.stderr);
    assert_eq!(out.stderr.lines().count(), 1, "{}", out.stderr);
    assert!(out.stderr.contains("sudo"), "{}", out.stderr);
}

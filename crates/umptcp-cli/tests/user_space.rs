//! `bench`, `listen` and `connect` over umptcp itself, with the kernel as the peer, in two network
//! namespaces.
#![cfg(target_os = "linux")]

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

    let fails = |arguments: &[&str], names: &str| {
        let out = run(network.client.umptcp().args(arguments));
        assert_eq!(out.code, 1, "{arguments:?}: {}", out.stderr);
        assert!(out.stderr.contains(names), "{arguments:?}: {names:?} is missing in {}", out.stderr);
        network.assert_clean();
    };
    let path = "nic,address=10.77.1.2,mode=routed";
    fails(&["connect", KERNEL, "9", "--path", path], "nothing listens");
    fails(&["connect", "10.77.1.77", "9", "--path", path, "--timeout", "5"], "10.77.1.77");
    fails(&["connect", KERNEL, "9", "--path", "nix0,address=10.77.1.2,mode=routed"], "available: lo, nic");
    fails(&["connect", KERNEL, "9", "--path", "nic,address=10.77.1.1,mode=routed"], "taken");
    fails(&["connect", KERNEL, "9", "--path", path, "--pcap", "/nowhere/x.pcapng"], "/nowhere/x.pcapng");
    fails(&["connect", "fd00::1", "9", "--path", path], "fd00::1");
}

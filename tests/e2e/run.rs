//! `umptcp run`: programs that know nothing of MPTCP, with the kernel's MPTCP at the other end.

use nix::sys::signal::Signal;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use umptcp_testbed::Netns;
use umptcp_testbed::command::Running;
use umptcp_testbed::host::Snapshot;
use umptcp_testbed::kernel::Counters;
use umptcp_testbed::limit::within;
use umptcp_testbed::program::{self, Background};
use umptcp_testbed::topology::{self, Family, Routed};

pub(crate) const LIMIT: Duration = Duration::from_secs(90);
pub(crate) const RESTORED_WITHIN: Duration = Duration::from_secs(5);
const PORT: u16 = 8684;

/// `umptcp run` with these options, of a shell script.
pub(crate) fn captured(options: &str, script: &str) -> Command {
    let mut command = program::command(&format!("run {options} --"));
    command.args(["sh", "-c", script]);
    command
}

/// Runs a script to its end. Returns what it printed on both outputs, and its exit code.
pub(crate) fn run(ns: &Netns, options: &str, script: &str) -> (String, Option<i32>) {
    let output = ns.run(|| captured(options, script).spawn()).map(Running::new).expect("it starts").wait();
    both(&output)
}

pub(crate) fn both(output: &Output) -> (String, Option<i32>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let all = text(&output.stdout) + &text(&output.stderr);
    assert!(!all.contains("panicked"), "{all}");
    (all, output.status.code())
}

/// A network whose server speaks MPTCP and measures for `clients` of them.
pub(crate) fn network(nics: u8) -> Routed {
    let net = Routed::new(nics, 1);
    net.server.use_kernel_mptcp();
    // The hosts that this is for.
    net.client.ns.sysctl("net.mptcp.enabled", "0");
    net
}

/// A server of measurements on the server, as the kernel's sockets of that kind have it.
fn serve(net: &Routed, kind: &str, count: u32) -> Background {
    let address = net.server.nics[0].socket_address(Family::V4, PORT);
    let arguments = format!("bench server --stack kernel-{kind} {address} --count {count}");
    let server = Background::start(&net.server.ns, &arguments);
    wait_for_port(&net.server.ns, PORT);
    server
}

pub(crate) fn wait_for_port(ns: &Netns, port: u16) {
    let end = Instant::now() + Duration::from_secs(20);
    while !ns.listens(port) {
        assert!(Instant::now() < end, "nobody listens on port {port}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A client of plain TCP, inside, that checks every byte.
fn measure(net: &Routed, options: &str) -> String {
    let address = net.server.nics[0].socket_address(Family::V4, PORT);
    format!("{} bench client --stack kernel-tcp {address} {options}", program::path().display())
}

#[test]
fn a_program_uses_both_nics_and_every_byte_arrives() {
    within(LIMIT, || {
        let net = network(2);
        // One NIC alone must not be enough.
        [0, 1].iter().for_each(|nic| net.shape_client(*nic, 40.0));
        let before = Snapshot::take(&net.client.ns);
        let server = serve(&net, "mptcp", 1);
        let script = measure(&net, "--bytes 16Mi --direction both --verify");
        let (said, code) = run(&net.client.ns, "--json", &script);
        assert_eq!(code, Some(0), "{said}");
        let (_, _, errors) = server.finish();
        let summary =
            said.lines().find_map(|l| serde_json::from_str::<serde_json::Value>(l).ok()).expect("JSON");
        assert_eq!((&summary["connections"], &summary["mptcp"]), (&1.into(), &1.into()), "{said}\n{errors}");
        for path in summary["paths"].as_array().expect("paths") {
            let both = [&path["sent"], &path["received"]].map(|n| n.as_u64().expect("a number"));
            assert!(both.iter().all(|n| *n > 1 << 20), "{said}");
        }
        let counters = Counters::read(&net.server.ns);
        assert!(counters.mptcp("MPCapableACKRX") >= 1 && counters.mptcp("MPJoinAckRx") >= 1);
        before.assert_restored(&net.client.ns, RESTORED_WITHIN);
    });
}

#[test]
fn a_server_without_mptcp_is_reached_by_tcp_and_the_reason_is_said() {
    within(LIMIT, || {
        let net = network(2);
        let server = serve(&net, "tcp", 1);
        let (said, code) =
            run(&net.client.ns, "--summary", &measure(&net, "--bytes 1Mi --direction both --verify"));
        assert_eq!(code, Some(0), "{said}");
        drop(server);
        assert!(said.contains("0 MPTCP, 1 TCP") && said.contains("carried no MP_CAPABLE"), "{said}");
    });
}

#[test]
fn a_server_inside_is_reached_at_its_port_by_mptcp_and_sees_its_client() {
    within(LIMIT, || {
        let net = network(2);
        let before = Snapshot::take(&net.client.ns);
        // A server of the host keeps its port, whatever happens inside.
        let own = net.client.ns.spawn(|| std::net::TcpListener::bind("0.0.0.0:8700")).join();
        let own = own.expect("a thread").expect("a listener");
        let script = "\
import socket, sys
own = socket.create_server(('0.0.0.0', 8700))
s = socket.create_server(('0.0.0.0', 8701))
for _ in range(2):
    c, peer = s.accept()
    data = b''
    while True:
        piece = c.recv(65536)
        if not piece: break
        data += piece
    c.sendall(('%s %d' % (peer[0], len(data))).encode())
    c.close()
";
        let mut command = program::command("run --summary -- python3 -c");
        command.arg(script);
        let inside = Background::spawn(&net.client.ns, command);
        let client = &net.client.nics[0];
        for kind in ["mptcp", "tcp"] {
            let line = format!("connect --stack kernel-{kind} --timeout 2 {} 8701", client.v4);
            let answer = until_connected(&net.server.ns, &line);
            let expected = format!("{} 0", net.server.nics[0].v4);
            assert_eq!(String::from_utf8_lossy(&answer.stdout), expected, "{kind}: {}", both(&answer).0);
        }
        let (code, _, said) = inside.finish();
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("2 connections: 1 MPTCP, 1 TCP"), "{said}");
        drop(own);
        before.assert_restored(&net.client.ns, RESTORED_WITHIN);
    });
}

/// A client of this host has one of the addresses that the server's side has, too: there it would be dropped as its own.
#[test]
fn a_server_inside_is_reached_from_this_host_at_its_own_addresses() {
    within(LIMIT, || {
        let net = network(2);
        let before = Snapshot::take(&net.client.ns);
        let script = "\
import socket
s = socket.create_server(('::', 8701), family=socket.AF_INET6, dualstack_ipv6=True)
for _ in range(4):
    c, peer = s.accept()
    data = b''
    while True:
        piece = c.recv(65536)
        if not piece: break
        data += piece
    c.sendall(str(len(data)).encode())
    c.close()
";
        let mut command = program::command("run -- python3 -c");
        command.arg(script);
        let inside = Background::spawn(&net.client.ns, command);
        for nic in &net.client.nics {
            for address in [nic.v4.to_string(), format!("{}", nic.v6)] {
                let line = format!("connect --stack kernel-tcp --timeout 2 {address} 8701");
                let answer = until_connected(&net.client.ns, &line);
                assert_eq!(String::from_utf8_lossy(&answer.stdout), "0", "{address}: {}", both(&answer).0);
            }
        }
        let (code, _, said) = inside.finish();
        assert_eq!(code, Some(0), "{said}");
        before.assert_restored(&net.client.ns, RESTORED_WITHIN);
    });
}

/// This host has no route there, and says so from an address that the program's side has, too. (Without IP_RECVERR Linux
/// tells a socket of UDP nothing of that.)
#[test]
fn a_datagram_that_has_no_way_is_an_error_inside() {
    within(LIMIT, || {
        let net = topology::bridged();
        let before = Snapshot::take(&net.client.ns);
        let script = "\
import socket
for family, to, recverr in (2, '203.0.113.9', (0, 11)), (10, '2001:db8:9::9', (41, 25)):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.setsockopt(*recverr, 1)
    s.settimeout(20)
    try:
        s.connect((to, 9))
        s.send(b'?')
        print('sent', s.recv(9))
    except OSError as e:
        print(type(e).__name__, e.errno)
";
        let mut command = program::command("run -- python3 -c");
        command.arg(script);
        let (code, out, said) = Background::spawn(&net.client.ns, command).finish();
        assert_eq!(code, Some(0), "{said}");
        // EHOSTUNREACH or ENETUNREACH, as the host's own ICMP says.
        let out = String::from_utf8_lossy(&out);
        let lines: Vec<&str> = out.lines().collect();
        assert!(
            lines.len() == 2 && lines.iter().all(|line| ["OSError 113", "OSError 101"].contains(line)),
            "{out}{said}"
        );
        before.assert_restored(&net.client.ns, RESTORED_WITHIN);
    });
}

/// Repeats a command until its server is there.
pub(crate) fn until_connected(ns: &Netns, arguments: &str) -> Output {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let output = program::run(ns, arguments);
        if output.status.success() || Instant::now() > end {
            return output;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn failures_reach_the_program_as_they_are() {
    within(LIMIT, || {
        let net = network(2);
        net.server.ns.nft(
            "table inet t {
             chain c {
             type filter hook input priority 0;
             tcp dport 7001 reject with icmpx host-unreachable
             tcp dport 7002 reject with icmpx no-route
             tcp dport 7003 reject with icmpx port-unreachable
             tcp dport 7004 drop
             }
             }",
        );
        let server = net.server.nics[0].v4;
        let script = format!(
            "python3 -c '\n\
import socket\n\
for port in 7000, 7001, 7002, 7003, 7004:\n    \
try: socket.create_connection((\"{server}\", port), 2)\n    \
except Exception as e: print(port, e.errno or type(e).__name__)\n'"
        );
        let (said, _) = run(&net.client.ns, "", &script);
        let mut direct = Command::new("sh");
        direct.args(["-c", &script]);
        let direct = net.client.ns.run(|| direct.output()).expect("sh starts");
        assert_eq!(said, String::from_utf8_lossy(&direct.stdout), "inside, and without us");
        assert!(said.contains("7000 111") && said.contains("7001 113") && said.contains("7004 "), "{said}");
    });
}

#[test]
fn exit_codes_are_the_programs_and_nothing_is_left_behind() {
    within(LIMIT, || {
        let net = network(1);
        let ns = &net.client.ns;
        let before = Snapshot::take(ns);
        for (script, code) in [("exit 3", 3), ("kill -9 $$", 137), ("true", 0), ("nosuchcommand", 127)] {
            assert_eq!(run(ns, "", script).1, Some(code), "{script}");
        }
        for (command, code, why) in
            [("run -- /etc/passwd", 126, "cannot execute"), ("run -- nosuchcommand", 127, "not found")]
        {
            let (said, got) = both(&program::run(ns, command));
            assert!(got == Some(code) && said.contains(why), "{said}");
        }
        before.assert_restored(ns, RESTORED_WITHIN);
    });
}

#[test]
fn datagrams_and_echoes_pass_and_errors_come_back() {
    within(LIMIT, || {
        let net = network(2);
        let server = net.server.nics[0].clone();
        let echo = net.server.ns.spawn(|| {
            let socket = std::net::UdpSocket::bind("[::]:7000").expect("a socket");
            socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
            let mut room = vec![0; 70_000];
            for _ in 0..6 {
                let (n, from) = socket.recv_from(&mut room).expect("a datagram");
                socket.send_to(&room[..n], from).expect("sent");
            }
        });
        std::thread::sleep(Duration::from_millis(100));
        let script = format!(
            "ping -c 2 -i 0.2 -W 2 {v4} | grep '2 received'\n\
             ping -c 2 -i 0.2 -W 2 {v6} | grep '2 received'\n\
             python3 -c '\n\
import socket\n\
for family, host in (socket.AF_INET, \"{v4}\"), (socket.AF_INET6, \"{v6}\"):\n    \
s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(5); s.connect((host, 7000))\n    \
for n in 1, 1400, 9000:\n        \
s.send(bytes(n)); print(\"datagram\", len(s.recv(70000)))\n    \
s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(5); s.connect((host, 7001)); s.send(b\"x\")\n    \
try: s.recv(9)\n    \
except Exception as e: print(\"refused\", e.errno)\n'",
            v4 = server.v4,
            v6 = server.v6
        );
        let (said, code) = run(&net.client.ns, "", &script);
        assert_eq!(code, Some(0), "{said}");
        let count = |part: &str| said.matches(part).count();
        assert_eq!((count("2 received"), count("refused 111")), (2, 2), "{said}");
        for n in [1, 1400, 9000] {
            assert_eq!(count(&format!("datagram {n}\n")), 2, "{said}");
        }
        echo.join().expect("six datagrams");
    });
}

/// One hop more or less would be one that we add or hide.
#[test]
fn traceroute_sees_the_same_hops_as_outside() {
    within(LIMIT, || {
        let net = network(2);
        // No hop is missing only because it has said too much already.
        for ns in [&net.client.ns, &net.router, &net.server.ns] {
            ns.sysctl("net.ipv4.icmp_ratelimit", "0");
            ns.sysctl("net.ipv6.icmp.ratelimit", "0");
        }
        let (server, gateway) = (&net.server.nics[0], &net.client.nics[0]);
        // The lines of hops without their times, which are never the same.
        let script: String = [("udp", "-U -p 33500"), ("udp", "-p 33434"), ("icmp", "-I")]
            .iter()
            .flat_map(|(name, how)| {
                [server.v4.to_string(), server.v6.to_string()].map(|address| {
                    format!(
                        "echo {name}; traceroute -n -q 1 -N 1 -w 5 -m 6 {how} {address} | awk 'NR > 1 {{print $1, $2}}'\n"
                    )
                })
            })
            .collect();
        let mut direct = Command::new("sh");
        direct.args(["-c", &script]);
        let direct = both(&net.client.ns.run(|| direct.output()).expect("sh starts"));
        let hops = |name: &str| {
            format!(
                "{name}\n1 {}\n2 {}\n{name}\n1 {}\n2 {}\n",
                gateway.gateway_v4, server.v4, gateway.gateway_v6, server.v6
            )
        };
        assert_eq!(direct, (hops("udp").repeat(2) + &hops("icmp"), Some(0)), "outside");
        assert_eq!(run(&net.client.ns, "", &script), direct, "inside, and outside");
    });
}

#[test]
fn without_quic_programs_are_told_so_at_once() {
    within(LIMIT, || {
        let net = network(1);
        let script = format!(
            "python3 -c '\n\
import socket\n\
for host in \"{v4}\", \"{v6}\":\n    \
family = socket.AF_INET6 if \":\" in host else socket.AF_INET\n    \
s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(5); s.connect((host, 443))\n    \
try: s.send(b\"x\"); s.recv(9)\n    \
except Exception as e: print(type(e).__name__)\n'",
            v4 = net.server.nics[0].v4,
            v6 = net.server.nics[0].v6
        );
        net.server
            .ns
            .nft("table inet t {\nchain c {\ntype filter hook input priority 0\nudp dport 443 drop\n}\n}");
        let (said, _) = run(&net.client.ns, "--no-quic", &script);
        assert_eq!(said, "ConnectionRefusedError\n".repeat(2));
        let (said, _) = run(&net.client.ns, "", &script);
        assert_eq!(said, "TimeoutError\n".repeat(2), "it is sent on, and dropped there");
    });
}

#[test]
fn this_hosts_own_servers_are_reached_at_localhost_and_at_its_addresses() {
    within(LIMIT, || {
        let net = network(2);
        let serve = "
import socket, threading
def tcp(host, name):
    s = socket.create_server((host, 7100))
    while True:
        c, _ = s.accept(); c.sendall(name); c.close()
def udp():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('127.0.0.53', 53))
    while True:
        d, a = s.recvfrom(9000); s.sendto(b'answer to ' + d, a)
for t in (tcp, '127.0.0.1', b'loopback'), (tcp, 'ADDRESS', b'address'), (udp,):
    threading.Thread(target=t[0], args=t[1:]).start()
";
        let second = net.client.nics[1].v4.to_string();
        let mut host = Command::new("python3");
        host.arg("-c").arg(serve.replace("ADDRESS", &second));
        let _host = net.client.ns.run(|| host.spawn()).map(Running::new).expect("python3 starts");
        wait_for_port(&net.client.ns, 7100);
        let script = format!(
            "python3 -c '\n\
import socket\n\
for host in \"127.0.0.1\", \"{second}\":\n    \
c = socket.create_connection((host, 7100), 5); print(c.recv(99))\n\
try: socket.create_connection((\"127.0.0.1\", 7101), 5)\n\
except Exception as e: print(\"refused\", e.errno)\n\
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); s.connect((\"127.0.0.53\", 53))\n\
for q in b\"one\", b\"two\": s.send(q); print(s.recv(99))\n\
own = socket.create_server((\"127.0.0.1\", 7100))\n\
c = socket.create_connection((\"127.0.0.1\", 7100), 5); own.accept()[0].sendall(b\"inside\"); print(c.recv(99))\n'"
        );
        let (said, code) = run(&net.client.ns, "", &script);
        assert_eq!(code, Some(0), "{said}");
        let expected =
            "b'loopback'\nb'address'\nrefused 111\nb'answer to one'\nb'answer to two'\nb'inside'\n";
        assert_eq!(said, expected);
        // A firewall is loaded inside, which begins by removing every table.
        let reloaded = "nft flush ruleset; for i in $(seq 100); do sleep 0.1; \
             python3 -c 'import socket; print(socket.create_connection((\"127.0.0.1\", 7100), 5).recv(99))' \
             2>/dev/null && break; done";
        assert_eq!(run(&net.client.ns, "", reloaded), ("b'loopback'\n".to_owned(), Some(0)));
        let isolated = "python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 7100), 5)' 2>&1";
        let (said, code) = run(&net.client.ns, "--isolate-localhost", isolated);
        assert!(code == Some(1) && said.contains("refused"), "{said}");
    });
}

/// The paths fail in turn, and both at once for a moment; the program sees a pause at most.
#[test]
fn a_path_that_dies_goes_unnoticed() {
    within(LIMIT, || {
        let net = network(2);
        net.shape_client(0, 60.0);
        net.shape_client(1, 60.0);
        let server = serve(&net, "mptcp", 1);
        let script = measure(&net, "--bytes 32Mi --verify");
        let transfer = Background::spawn(&net.client.ns, captured("--summary", &script));
        net.wait_server_bytes(4 << 20);
        net.silence(0, true);
        net.wait_server_bytes(8 << 20);
        net.silence(1, true);
        std::thread::sleep(Duration::from_millis(500));
        net.silence(0, false);
        net.wait_server_bytes(14 << 20);
        net.silence(1, false);
        net.client.ns.sh(&format!("ip link set {} down", net.client.nics[0].device));
        let (code, _, said) = transfer.finish();
        assert_eq!(code, Some(0), "{said}");
        drop(server);
    });
}

/// A third path of a fiftieth of the others' rate, which loses one packet in twenty, holds up nothing: every byte
/// arrives both ways, and few of them come by it. That it makes nothing slower is a benchmark's to show.
#[test]
fn a_path_that_is_slow_and_loses_packets_carries_little() {
    within(LIMIT, || {
        let net = network(3);
        // Slow enough for one NIC not to be enough on a busy machine, with single packets.
        [0, 1].iter().for_each(|nic| net.shape_client(*nic, 10.0));
        net.shape_client(2, 0.2);
        net.lose_at_random_on_links(&[0.0, 0.0, 0.05]);
        let server = serve(&net, "mptcp", 1);
        let before = topology::both_ways(&net.client_link_bytes());
        let (said, code) =
            run(&net.client.ns, "--summary", &measure(&net, "--bytes 12Mi --direction both --verify"));
        assert!(code == Some(0) && said.contains("1 connection: 1 MPTCP, 0 TCP"), "{said}");
        drop(server);
        let after = topology::both_ways(&net.client_link_bytes());
        let carried: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        assert!(carried[..4].iter().all(|bytes| *bytes > 1 << 20), "{carried:?}\n{said}");
        // Downwards it is the kernel that chooses.
        assert!(carried[4] < 1 << 20 && carried[5] < 5 << 19, "{carried:?}\n{said}");
        assert!(carried[5] > 0 && net.lost_at_random() > 0, "{carried:?}\n{said}");
    });
}

#[test]
fn signals_are_the_programs_and_a_killed_run_takes_it_along() {
    within(LIMIT, || {
        let net = network(1);
        let ns = &net.client.ns;
        let before = Snapshot::take(ns);
        let waits = "trap 'echo took it; exit 5' TERM; echo ready; while :; do sleep 0.1; done";
        let mut running = Background::spawn(ns, captured("", waits));
        assert_eq!(running.next_line(), "ready");
        running.process().signal(Signal::SIGTERM);
        assert_eq!(running.next_line(), "took it");
        assert_eq!(running.finish().0, Some(5));
        before.assert_restored(ns, RESTORED_WITHIN);

        let mut running = Background::spawn(ns, captured("", "echo $$; exec sleep 60"));
        let child = running.next_line();
        running.process().signal(Signal::SIGKILL);
        drop(running.finish());
        let end = Instant::now() + RESTORED_WITHIN;
        while std::fs::exists(format!("/proc/{child}")).unwrap_or(false) {
            assert!(Instant::now() < end, "the command goes on without a network");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(program::run(ns, "clean-up").status.success());
        before.assert_restored(ns, RESTORED_WITHIN);
    });
}

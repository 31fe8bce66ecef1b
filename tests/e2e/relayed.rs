//! `umptcp relay`: names that it resolves, ports that lead to clients, and networks that go and come.

use crate::programs::{python, sh};
use crate::relay::{PORT, SERVER, World};
use crate::run::{LIMIT, both, wait_for_port};
use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;
use umptcp_testbed::Netns;
use umptcp_testbed::command::Running;
use umptcp_testbed::limit::within;
use umptcp_testbed::program::{Background, Folder};

/// A service in Python at localhost that sends much, and gets it back reversed and hashed: what it has got.
const SERVICE: &str = "
import hashlib, socket, struct, sys, threading
def serve(c, header):
    who = ''
    if header:
        head = c.recv(16, socket.MSG_WAITALL)
        assert head[:12] == b'\\r\\n\\r\\n\\0\\r\\nQUIT\\n' and head[12] == 0x21, head
        body = c.recv(struct.unpack('>H', head[14:])[0], socket.MSG_WAITALL)
        if head[13] == 0x11: who = socket.inet_ntoa(body[:4])
        else: who = socket.inet_ntop(socket.AF_INET6, body[:16])
    h = hashlib.sha256()
    while True:
        more = c.recv(65536)
        if not more: break
        h.update(more)
    c.sendall((h.hexdigest() + ' ' + who).encode())
    c.close()
def listen(port, header):
    s = socket.create_server(('127.0.0.1', port))
    while True:
        threading.Thread(target=serve, args=(s.accept()[0], header), daemon=True).start()
threading.Thread(target=listen, args=(9001, True), daemon=True).start()
listen(9000, False)
";

/// Visits a port of the relay with so many bytes, and says whether they came whole and what was said beside.
fn visit(ns: &Netns, to: &str, port: u16, bytes: usize) -> Running {
    let script = format!(
        "
import hashlib, socket
s = socket.create_connection(('{to}', {port}), 30)
data = bytes(range(256)) * {}
s.sendall(data); s.shutdown(socket.SHUT_WR)
said = s.makefile().read().split()
print('whole', said[0] == hashlib.sha256(data).hexdigest(), *said[1:])
",
        bytes / 256
    );
    let mut command = Command::new("python3");
    command.args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Running::new(ns.run(|| command.spawn()).expect("it starts"))
}

#[test]
fn a_published_port_leads_to_a_service_behind_the_client() {
    within(LIMIT, || {
        let rules = "--allow-publish laptop=8080-8082";
        let mut world = World::new(rules, "");
        let _service = python(&world.net.client.ns, SERVICE);
        wait_for_port(&world.net.client.ns, 9000);
        wait_for_port(&world.net.client.ns, 9001);
        let line = format!(
            "proxy 0 -v {} --publish 8080=127.0.0.1:9000 --publish 8081=localhost:9001,proxy-protocol \
             --publish 8082=127.0.0.1:9 --publish 8083",
            world.via()
        );
        let mut proxy = Background::start(&world.net.client.ns, &line);
        // All that it may have.
        proxy.wait_for_all(&[
            "leads here port=8080",
            "leads here port=8081",
            "leads here port=8082",
            "does not lead here port=8083",
        ]);
        let whole = |world: &World, to: &str, port: u16, who: &str| {
            let said = both(&visit(&world.server, to, port, 1 << 20).wait());
            assert_eq!(said, (format!("whole True {who}\n").replace(" \n", "\n"), Some(0)), "{port}");
        };
        whole(&world, "203.0.113.1", 8080, "");
        whole(&world, "203.0.113.1", 8081, SERVER);
        whole(&world, "2001:db8:113::1", 8081, "2001:db8:113::2");
        // More at once than wait for them.
        let all: Vec<Running> = (0..20).map(|_| visit(&world.server, "203.0.113.1", 8080, 65_536)).collect();
        for one in all {
            assert_eq!(both(&one.wait()).0, "whole True\n");
        }
        // Nobody is behind it; it is not the client's; nobody has it.
        for port in [8082, 8083, 8084] {
            let (said, code) = both(&visit(&world.server, "203.0.113.1", port, 256).wait());
            assert_ne!(code, Some(0), "{port}: {said}");
        }
        // One line dies.
        let before = world.net.client_link_bytes()[0].to_client;
        let large = visit(&world.server, "203.0.113.1", 8080, 24 << 20);
        world.net.wait_client_link(0, before + (2 << 20));
        world.net.silence(0, true);
        assert_eq!(both(&large.wait()), ("whole True\n".to_owned(), Some(0)));
        world.net.silence(0, false);
        // The relay is begun again, and the client comes back by itself.
        let log = world.restart(rules);
        for part in
            ["relayed inwards", "visitor=203.0.113.2:", "port=8081", "the port 8083 is not this client's"]
        {
            assert!(log.contains(part), "{part}: {log}");
        }
        proxy.wait_for_all(&["leads here port=8080", "leads here port=8081"]);
        whole(&world, "203.0.113.1", 8080, "");
        whole(&world, "203.0.113.1", 8081, SERVER);
        proxy.process().signal(nix::sys::signal::Signal::SIGTERM);
        let (code, _, said) = proxy.finish();
        assert_eq!(code, Some(0), "{said}");
        assert!(!said.contains("panicked"), "{said}");
        world.end();
    });
}

/// The servers have only localhost, inside.
#[test]
fn a_published_port_leads_to_a_server_under_run() {
    within(LIMIT, || {
        let rules = "--path s0 --path s0,mode=udp --allow-publish laptop=8080-8082";
        let mut world = World::new(rules, "");
        let folder = Folder::new("published");
        let script = folder.path().join("service.py");
        fs::write(&script, SERVICE).expect("a file");
        for mode in ["nat", "udp"] {
            let line = format!(
                "run -v {} --path c0,mode={mode} --path c1,mode={mode} --publish 8080=127.0.0.1:9000 \
                 --publish 8081=localhost:9001,proxy-protocol --publish 8082=127.0.0.1:9 -- python3 {}",
                world.via(),
                script.display()
            );
            let mut run = Background::start(&world.net.client.ns, &line);
            run.wait_for_all(&["leads here port=8080", "leads here port=8081", "leads here port=8082"]);
            // The program has begun some time after.
            let whole = |to: &str, port: u16, who: &str| {
                for _ in 0..100 {
                    let (said, code) = both(&visit(&world.server, to, port, 1 << 20).wait());
                    if code == Some(0) {
                        return assert_eq!(
                            said,
                            format!("whole True {who}\n").replace(" \n", "\n"),
                            "{port}"
                        );
                    }
                    sleep(Duration::from_millis(100));
                }
                panic!("no server answers at {port}");
            };
            whole("203.0.113.1", 8080, "");
            whole("203.0.113.1", 8081, SERVER);
            whole("2001:db8:113::1", 8081, "2001:db8:113::2");
            // Nobody is behind it.
            let (said, code) = both(&visit(&world.server, "203.0.113.1", 8082, 256).wait());
            assert_ne!(code, Some(0), "{said}");
            // One line dies.
            let before = world.net.client_link_bytes()[0].to_client;
            let large = visit(&world.server, "203.0.113.1", 8080, 24 << 20);
            world.net.wait_client_link(0, before + (2 << 20));
            world.net.silence(0, true);
            assert_eq!(both(&large.wait()), ("whole True\n".to_owned(), Some(0)));
            world.net.silence(0, false);
            run.process().signal(nix::sys::signal::Signal::SIGTERM);
            let (code, _, said) = run.finish();
            assert_eq!(code, Some(128 + 15), "{said}");
            assert!(!said.contains("panicked"), "{said}");
            // The relay knows that the client has gone.
            let (said, code) = both(&visit(&world.server, "203.0.113.1", 8080, 256).wait());
            assert_ne!(code, Some(0), "{said}");
        }
        // Of the relay's own accord nobody gets it.
        let log = world.restart(rules);
        assert!(log.contains("relayed inwards"), "{log}");
        world.end();
    });
}

#[test]
fn names_are_resolved_at_the_relay_and_what_is_private_is_refused_at_once_and_after() {
    within(LIMIT, || {
        // Names that only the relay knows.
        let folder = Folder::new("names");
        let hosts = folder.path().join("hosts");
        let write = |good: &str| {
            let text = format!(
                "{good} good.example\n127.0.0.1 bad.example\n10.1.0.2 lan.example\n203.0.113.1 own.example\n\
                 10.9.9.9 mixed.example\n{SERVER} mixed.example\n"
            );
            // In place: it is mounted.
            fs::write(&hosts, text).expect("a file");
        };
        write(SERVER);
        let start = folder.path().join("start");
        // A name that is not there is none: no resolver is asked that nobody reaches.
        let switch = folder.path().join("nsswitch.conf");
        fs::write(&switch, "hosts: files\n").expect("a file");
        let script = format!(
            "#!/bin/sh\nmount --bind {} /etc/hosts && mount --bind {} /etc/nsswitch.conf && exec \"$@\"\n",
            hosts.display(),
            switch.display()
        );
        fs::write(&start, script).expect("a file");
        let world = World::new("", &format!("unshare -m sh {}", start.display()));
        let _server = python(
            &world.server,
            "
import http.server, os, tempfile
os.chdir(tempfile.mkdtemp())
open('f', 'w').write('it is here')
http.server.ThreadingHTTPServer(('203.0.113.2', 8684), http.server.SimpleHTTPRequestHandler).serve_forever()
",
        );
        wait_for_port(&world.server, PORT);
        let connect =
            |name: &str| world.client("", &format!("connect {} --via-resolve {name} {PORT}", world.via()));
        for (name, says) in [
            ("good.example", ""),
            ("mixed.example", ""),
            ("bad.example", "not authorized"),
            ("lan.example", "not authorized"),
            ("own.example", "not authorized"),
            ("2130706433", "not authorized"),
            ("none.example", "no address there"),
            ("not/a/name", "no name of a host"),
        ] {
            let (said, code) = connect(name);
            assert_eq!(code == Some(0), says.is_empty(), "{name}: {said}");
            assert!(said.contains(says), "{name}: {said}");
        }
        let mut proxy =
            Background::start(&world.net.client.ns, &format!("proxy {} --via-resolve", world.via()));
        proxy.wait_for("SOCKS 5 and HTTP CONNECT");
        let curl = |name: &str| {
            ["--proxy socks5h://127.0.0.1:1080", "--proxytunnel --proxy http://127.0.0.1:1080"].map(|by| {
                let line = format!("curl -sS -m 20 {by} http://{name}:{PORT}/f 2>&1 || true");
                sh(&world.net.client.ns, &folder, &line)
            })
        };
        assert!(curl("good.example").iter().all(|got| got == "it is here"), "{:?}", curl("good.example"));
        assert!(curl("bad.example").iter().all(|got| got.starts_with("curl: ")), "{:?}", curl("bad.example"));
        // The name leads elsewhere now.
        write("127.0.0.1");
        let (said, code) = connect("good.example");
        assert_ne!(code, Some(0), "{said}");
        assert!(said.contains("not authorized"), "{said}");
        assert!(
            curl("good.example").iter().all(|got| got.starts_with("curl: ")),
            "{:?}",
            curl("good.example")
        );
        drop(proxy);
        let log = world.end();
        for part in
            ["127.0.0.1: not a public address", "own host", "name=good.example:8684", "to=bad.example:8684"]
        {
            assert!(log.contains(part), "{part}: {log}");
        }
    });
}

#[test]
fn a_relay_that_is_away_for_a_second_is_waited_for() {
    within(LIMIT, || {
        let world = World::new("", "");
        let server = world.measures(SERVER);
        let line =
            format!("bench client {} {SERVER}:{PORT} --bytes 24Mi --direction both --verify", world.via());
        let client = Background::start(&world.net.client.ns, &line);
        world.net.wait_client_link(0, 3 << 20);
        [0, 1].iter().for_each(|nic| world.net.silence(*nic, true));
        sleep(Duration::from_secs(1));
        [0, 1].iter().for_each(|nic| world.net.silence(*nic, false));
        let (code, _, said) = client.finish();
        assert_eq!(code, Some(0), "{said}");
        drop(server);
        world.end();
    });
}

#[test]
fn a_client_with_ipv6_alone_reaches_servers_of_either_family() {
    within(LIMIT, || {
        let world = World::new("--path s0,mode=udp --path s0", "");
        for nic in &world.net.client.nics {
            world.net.client.ns.script(&format!("ip -4 addr flush dev {}", nic.device));
        }
        let via =
            format!("--via {} --via-key {}", world.net.server.nics[0].v6, world.key("laptop").display());
        for paths in ["", "--path c0,mode=udp --path c1,mode=udp"] {
            for server in [SERVER.to_owned(), "[2001:db8:113::2]".to_owned()] {
                let served = world.measures(&server);
                let line = format!(
                    "bench client {via} {paths} {server}:{PORT} --bytes 4Mi --direction both --verify"
                );
                let (said, code) = world.client("", &line);
                assert_eq!(code, Some(0), "{paths} {server}: {said}");
                drop(served);
            }
        }
        world.end();
    });
}

#[test]
fn what_a_translator_has_forgotten_goes_on() {
    within(LIMIT, || {
        let world = World::new("--path s0,mode=udp", "");
        // It forgets a flow after a second, and then gives it another port.
        world.net.router.sysctl("net.netfilter.nf_conntrack_udp_timeout", "1");
        world.net.router.sysctl("net.netfilter.nf_conntrack_udp_timeout_stream", "1");
        world.net.router.nft(
            "table ip nat {
               chain post {
                 type nat hook postrouting priority 100;
                 udp dport 8803 masquerade random
               }
             }",
        );
        // From which ports the relay has heard.
        world.net.server.ns.nft(
            "table ip heard {
               set ports { type inet_service; size 1024; flags dynamic; }
               chain pre {
                 type filter hook prerouting priority -300;
                 udp dport 8803 add @ports { udp sport }
               }
             }",
        );
        let ports = || {
            let list = world.net.server.ns.sh("nft list set ip heard ports");
            let elements = list.split_once("elements = {").map_or("", |(_, elements)| elements);
            elements
                .split('}')
                .next()
                .unwrap_or_default()
                .split(',')
                .filter(|port| !port.trim().is_empty())
                .count()
        };
        let _server = python(
            &world.server,
            "
import socket
s = socket.create_server(('203.0.113.2', 8684))
c, _ = s.accept()
while True:
    data = c.recv(65536)
    if not data: break
    c.sendall(data)
",
        );
        wait_for_port(&world.server, PORT);
        let mut command = umptcp_testbed::program::command(&format!(
            "connect {} --path c0,mode=udp --path c1,mode=udp {SERVER} {PORT}",
            world.via()
        ));
        command.stdin(Stdio::piped());
        let mut client = Background::spawn(&world.net.client.ns, command);
        for round in 0..3 {
            let line = format!("round {round}");
            client.write_line(&line);
            assert_eq!(client.next_line(), line);
            // Far longer than the translator remembers.
            sleep(Duration::from_secs(4));
        }
        // Two lines, and more ports than one for each.
        assert!(ports() > 2, "{} ports", ports());
        drop(client);
        world.end();
    });
}

/// What the relay answers to a request in a SYN does not wait for the client's third ACK, on which a round trip depends:
/// here none gets through before the answer has.
fn the_answer_comes_before_the_third_ack(mode: &str) {
    let world = World::new(&format!("--path s0,mode={mode}"), "");
    let _server = python(
        &world.server,
        "
import socket
s = socket.create_server(('203.0.113.2', 8684))
while True:
    c, _ = s.accept()
    while c.recv(65536): pass
    c.sendall(b'well asked')
    c.close()
",
    );
    wait_for_port(&world.server, PORT);
    let cookies = world.key("cookies");
    let line = format!(
        "connect -v {} --path c0,mode={mode} --fast-open-cookies {} {SERVER} {PORT}",
        world.via(),
        cookies.display()
    );
    let (said, code) = world.client("", &line);
    assert!(code == Some(0) && said.contains("well asked"), "{code:?}: {said}");
    // Inside UDP the flags are the second byte behind the header of UDP.
    let (protocol, no_syn) = match mode {
        "udp" => ("udp", "@th,72,8 & 0x02 == 0"),
        _ => ("tcp", "tcp flags & syn == 0"),
    };
    // The longest header and no data has 80 bytes.
    world.net.router.nft(&format!(
        "table inet early {{
           counter answers {{ }}
           chain forward {{
             type filter hook forward priority 0;
             {protocol} dport 8803 {no_syn} drop
             {protocol} sport 8803 {no_syn} meta length > 80 counter name answers
           }}
         }}"
    ));
    let mut command = umptcp_testbed::program::command(&line);
    let client = Running::new(world.net.client.ns.run(|| command.spawn()).expect("it starts"));
    let answered = || !world.net.router.sh("nft list counter inet early answers").contains("packets 0 ");
    while !answered() {
        sleep(Duration::from_millis(20));
    }
    world.net.router.sh("nft delete table inet early");
    let (said, code) = both(&client.wait());
    assert!(code == Some(0) && said.contains("well asked"), "{code:?}: {said}");
    assert!(said.contains("MPTCP"), "{said}");
    world.end();
}

#[test]
fn a_relay_answers_before_the_third_ack() {
    within(LIMIT, || the_answer_comes_before_the_third_ack("nat"));
}

#[test]
fn a_relay_answers_before_the_third_ack_inside_udp() {
    within(LIMIT, || the_answer_comes_before_the_third_ack("udp"));
}

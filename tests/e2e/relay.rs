//! `umptcp relay` and `--via`: a client over two NICs, the relay, and a server behind it that knows TCP only.

use crate::programs::python;
use crate::run::{LIMIT, RESTORED_WITHIN, both, captured, wait_for_port};
use crate::up::{Daemon, file};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use umptcp_testbed::Netns;
use umptcp_testbed::command::Running;
use umptcp_testbed::host::Snapshot;
use umptcp_testbed::limit::within;
use umptcp_testbed::netns::veth;
use umptcp_testbed::program::{self, Background, Folder};
use umptcp_testbed::topology::Routed;

/// The server behind the relay, and the relay's address there.
pub(crate) const SERVER: &str = "203.0.113.2";
const SERVER_V6: &str = "2001:db8:113::2";
pub(crate) const PORT: u16 = 8684;

/// Without a capability, even for root.
const NO_CAPABILITY: &str = "setpriv --bounding-set=-all --inh-caps=-all";

/// A client, a relay that runs, and a server that the client cannot reach without it.
pub(crate) struct World {
    pub(crate) net: Routed,
    pub(crate) server: Netns,
    keys: Folder,
    relay: Option<Background>,
}

impl World {
    /// A relay with these options and this way to start it.
    pub(crate) fn new(options: &str, who: &str) -> World {
        let net = Routed::new(2, 1);
        [0, 1].iter().for_each(|nic| net.shape_client(*nic, 60.0));
        net.client.ns.sysctl("net.mptcp.enabled", "0");
        let server = Netns::new("behind");
        server.sysctl("net.mptcp.enabled", "0");
        veth(&net.server.ns, "behind", &server, "b0");
        net.server
            .ns
            .script("ip addr add 203.0.113.1/24 dev behind\nip addr add 2001:db8:113::1/64 dev behind nodad");
        server.script(&format!("ip addr add {SERVER}/24 dev b0\nip addr add {SERVER_V6}/64 dev b0 nodad"));
        server.settle("b0");
        let keys = Folder::new("relay");
        let lines: Vec<String> = ["laptop", "phone"]
            .iter()
            .map(|name| both(&program::run(&net.client.ns, &format!("relay key {name}"))).0)
            .collect();
        for (name, text) in [("relay.keys", lines.concat()), ("laptop", lines[0].clone())] {
            let file = keys.path().join(name);
            fs::write(&file, text).expect("a file");
            fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("a mode");
        }
        let relay = start(&net, &keys, options, who);
        World { net, server, keys, relay: Some(relay) }
    }

    /// Ends the relay and begins it again. Returns what it has logged.
    pub(crate) fn restart(&mut self, options: &str) -> String {
        let log = self.end_relay();
        self.relay = Some(start(&self.net, &self.keys, options, ""));
        log
    }

    /// Options of a client with its key.
    pub(crate) fn via(&self) -> String {
        format!("--via {} --via-key {}", self.net.server.nics[0].v4, self.key("laptop").display())
    }

    pub(crate) fn key(&self, name: &str) -> PathBuf {
        self.keys.path().join(name)
    }

    /// Runs the program on the client; what it says, and its exit code.
    pub(crate) fn client(&self, who: &str, line: &str) -> (String, Option<i32>) {
        both(&self.net.client.ns.run(|| by(who, line).spawn()).map(Running::new).expect("it starts").wait())
    }

    /// A server of measurements behind the relay.
    pub(crate) fn measures(&self, at: &str) -> Background {
        let server = Background::start(
            &self.server,
            &format!("bench server --stack kernel-tcp {at}:{PORT} --count 1"),
        );
        wait_for_port(&self.server, PORT);
        server
    }

    /// Both NICs have carried their part, each way.
    fn both_carried(&self, least: u64) {
        for (i, link) in self.net.client_link_bytes().iter().enumerate() {
            let both = [link.to_server, link.to_client];
            assert!(both.iter().all(|bytes| *bytes > least), "NIC {i}: {both:?}");
        }
    }

    /// Ends the relay. Returns what it has logged.
    pub(crate) fn end(mut self) -> String {
        self.end_relay()
    }

    fn end_relay(&mut self) -> String {
        let relay = self.relay.take().expect("it runs");
        relay.process().signal(nix::sys::signal::Signal::SIGTERM);
        let (code, _, log) = relay.finish();
        // 6: a client that has been killed was still owed data.
        assert!(matches!(code, Some(0 | 6)), "{code:?}: {log}");
        assert!(!log.contains("panicked"), "{log}");
        log
    }
}

fn start(net: &Routed, keys: &Folder, options: &str, who: &str) -> Background {
    let line = format!("relay -v --keys {} {options}", keys.path().join("relay.keys").display());
    let mut relay = Background::spawn(&net.server.ns, by(who, &line));
    relay.wait_for("ready: ");
    relay
}

/// The program with these arguments, as `who` starts it.
fn by(who: &str, line: &str) -> Command {
    if who.is_empty() {
        return program::command(line);
    }
    let mut words = who.split(' ');
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words).arg(program::path()).args(line.split_whitespace());
    command.env_remove("RUST_BACKTRACE").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn a_server_without_mptcp_is_reached_over_both_nics() {
    within(LIMIT, || {
        let world = World::new("", "");
        let before = Snapshot::take(&world.net.client.ns);
        let server = world.measures(SERVER);
        let (said, code) = world.client(
            "",
            &format!("bench client {} {SERVER}:{PORT} --bytes 12Mi --direction both --verify", world.via()),
        );
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("MPTCP"), "{said}");
        drop(server);
        world.both_carried(1 << 20);
        before.assert_restored(&world.net.client.ns, RESTORED_WITHIN);
        let log = world.end();
        let line = log.lines().find(|line| line.contains("relayed")).expect("an audit line");
        for part in ["laptop", SERVER, "up=", "down="] {
            assert!(line.contains(part), "{line}");
        }
    });
}

#[test]
fn without_a_capability_inside_udp_and_to_ipv6() {
    within(LIMIT, || {
        let world = World::new("--path s0,mode=udp", NO_CAPABILITY);
        let server = world.measures(&format!("[{SERVER_V6}]"));
        let line = format!(
            "bench client {} --path c0,mode=udp --path c1,mode=udp [{SERVER_V6}]:{PORT} --bytes 12Mi --direction both --verify",
            world.via()
        );
        let (said, code) = world.client(NO_CAPABILITY, &line);
        assert_eq!(code, Some(0), "{said}");
        drop(server);
        world.both_carried(1 << 20);
        world.end();
    });
}

/// A server in Python that answers with what it has read up to its end, and is closed by the client's reset.
const ECHO_AFTER_END: &str = "
import socket, threading
s = socket.create_server(('203.0.113.2', 8684))
def serve(c):
    data = b''
    try:
        while True:
            more = c.recv(65536)
            if not more: break
            data += more
        c.sendall(data[::-1])
    except OSError: pass
    c.close()
while True:
    c, _ = s.accept()
    threading.Thread(target=serve, args=(c,), daemon=True).start()
";

#[test]
fn a_program_sees_half_closes_and_the_errors_that_it_would_see_directly() {
    within(LIMIT, || {
        let world = World::new("", "");
        let _server = python(&world.server, ECHO_AFTER_END);
        wait_for_port(&world.server, PORT);
        // 198.51.100.0/24: nobody has a route. .9: a filter forbids it. .99: nobody answers on the link.
        world.net.router.nft(
            "table inet f {
               chain c {
                 type filter hook forward priority 0;
                 ip daddr 198.51.100.9 reject with icmp type admin-prohibited
                 ip daddr 198.51.100.10 reject with tcp reset
               }
             }",
        );
        world.net.router.script("ip route add 198.51.100.8/29 via 10.1.0.2");
        let script = "
import errno, socket
def code(host, port):
    try: socket.create_connection((host, port), 30).close()
    except OSError as e: return errno.errorcode.get(e.errno, repr(e))
s = socket.create_connection(('203.0.113.2', 8684), 30)
peer = s.getpeername()[0]
data = bytes(range(256)) * 8000
s.sendall(data); s.shutdown(socket.SHUT_WR)
got = b''
while True:
    more = s.recv(65536)
    if not more: break
    got += more
print('whole', got == data[::-1], peer)
print(code('203.0.113.2', 9), code('198.51.100.1', 9), code('203.0.113.99', 9), code('198.51.100.9', 9), code('198.51.100.10', 9))
";
        let run = |options: &str| {
            let mut command = captured(options, "exec python3 -");
            command.stdin(Stdio::piped());
            let mut child = world.net.client.ns.run(|| command.spawn()).expect("it starts");
            std::io::Write::write_all(&mut child.stdin.take().expect("standard input"), script.as_bytes())
                .expect("a script");
            both(&Running::new(child).wait())
        };
        let (said, code) = run(&world.via());
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("whole True 203.0.113.2"), "{said}");
        let codes = "ECONNREFUSED ENETUNREACH EHOSTUNREACH EHOSTUNREACH ECONNREFUSED";
        assert!(said.contains(codes), "{said}\n{}", world.end());
    });
}

#[test]
fn who_has_no_key_and_what_is_private_is_refused() {
    within(LIMIT, || {
        let world = World::new("", "");
        let connect = |options: &str, to: &str| world.client("", &format!("connect {options} {to} 80"));
        let stranger = world.key("stranger");
        fs::write(&stranger, format!("laptop {}\n", "ab".repeat(32))).expect("a file");
        fs::set_permissions(&stranger, Permissions::from_mode(0o600)).expect("a mode");
        let relay = world.net.server.nics[0].v4;
        let none = world.key("none");
        fs::write(&none, "").expect("a file");
        for (options, to, says) in [
            (format!("--via {relay} --via-key {}", stranger.display()), SERVER, "not authorized"),
            (format!("--via {relay}"), SERVER, "not authorized"),
            (world.via(), "10.1.0.1", "not authorized"),
            (world.via(), "169.254.169.254", "not authorized"),
            (world.via(), "fd00:1::1", "not authorized"),
            (world.via(), "203.0.113.1", "not authorized"),
            (world.via(), "127.0.0.1", "no relay can connect"),
            (world.via(), "224.0.0.5", "no relay can connect"),
            (format!("--via {relay} --via-key {}", none.display()), SERVER, "chmod 600"),
        ] {
            let (said, code) = connect(&options, to);
            assert_ne!(code, Some(0), "{said}");
            assert!(said.contains(says), "{options} {to}: {said}");
        }
        let log = world.end();
        for why in ["wrong key of client laptop", "no key", "not a public address", "own host"] {
            assert!(log.contains(why), "{why}: {log}");
        }
    });
}

#[test]
fn a_daemon_captures_by_the_relay_and_a_relay_is_a_daemon() {
    within(LIMIT, || {
        let world = World::new("--allow 10.0.0.0/8", "");
        let server = world.measures(SERVER);
        let text = format!(
            "[via]\nrelay = \"{}\"\nkey = \"{}\"\n[[capture]]\nto = [\"203.0.113.0/24\"]\n",
            world.net.server.nics[0].v4,
            world.key("laptop").display()
        );
        let ns = &world.net.client.ns;
        let daemon = Daemon::start(ns, &text);
        let (said, code) = world.client(
            "",
            &format!("bench client --stack kernel-tcp {SERVER}:{PORT} --bytes 8Mi --direction both --verify"),
        );
        assert_eq!(code, Some(0), "{said}");
        drop(server);
        world.both_carried(1 << 20);
        daemon.down(ns);
        world.end();
        // By a file, which is read again; and with metrics.
        let net = Routed::new(1, 1);
        let keys = Folder::new("relay-keys");
        let list = keys.path().join("keys");
        let line = |name: &str| both(&program::run(&net.client.ns, &format!("relay key {name}"))).0;
        fs::write(&list, line("a")).expect("a file");
        let text = format!("[relay]\nkeys = \"{}\"\n[metrics]\nat = \"127.0.0.1:9103\"\n", list.display());
        let mut daemon = Daemon::start_by(&net.server.ns, &text, |folder| {
            let mut command = program::command("relay --config");
            command.arg(file(folder));
            command
        });
        fs::write(&list, line("a") + &line("b")).expect("a file");
        daemon.reload(&text, "relay at *:8803 for 2 clients");
        fs::write(&list, line("a") + "b 12\n").expect("a file");
        daemon.reload(&text, "keys: line 2: this is no key");
        let figures = net.server.ns.sh("curl -sS http://127.0.0.1:9103/metrics");
        assert!(figures.contains("umptcp_relay_requests_total{outcome=\"made\"} 0"), "{figures}");
        daemon.down(&net.server.ns);
    });
}

/// A client in Python, over the kernel's TCP, written from RFC 8803 and the chapter about the relay alone.
const STRANGER: &str = "
import hashlib, hmac, socket, struct, sys, time
relay, server, keys = sys.argv[1], sys.argv[2], dict(l.split() for l in open(sys.argv[3]))
def message(*tlvs):
    body = b''.join(tlvs)
    return bytes([1, 1 + len(body) // 4, 0x22, 0x63]) + body
def connect(ip, port=8684, options=b''):
    address = b'\\0' * 10 + b'\\xff\\xff' + socket.inet_aton(ip)
    return bytes([0x0a, 5 + len(options) // 4]) + struct.pack('>H', port) + address + options
def cookie(rest, at, name='laptop', key=None, challenge=None):
    key, name = bytes.fromhex(key or keys[name]), name.encode()
    at = struct.pack('>Q', at)
    proven = name + at + (b'challenge' + challenge if challenge else b'') + rest
    value = bytes([len(name)]) + name + at + hmac.new(key, proven, hashlib.sha256).digest()
    value += b'\\0' * (-len(value) % 4)
    return bytes([0x16, 1 + len(value) // 4, 0, 0]) + value
def signed(rest, at=None, **more):
    return message(cookie(rest, time.time_ns() if at is None else at, **more), rest)
def hear(s):
    head = s.recv(4, socket.MSG_WAITALL)
    if not head: return None
    assert head[0] == 1 and head[2:] == b'\\x22\\x63', head
    return s.recv(4 * head[1] - 4, socket.MSG_WAITALL) if head[1] > 1 else b''
def ask(data, port=8803):
    s = socket.create_connection((relay, port), 20)
    s.sendall(data)
    return s, hear(s)
def open_to(rest, port=8803, **more):
    s, answer = ask(signed(rest, **more), port)
    if answer and answer[0] == 0x16:
        # It has not been there for long: is this request a new one?
        assert len(answer) == 20, answer
        s.sendall(signed(rest, challenge=answer[4:], **more))
        answer = hear(s)
    return s, answer
def code(answer):
    assert answer and answer[0] == 0x1e, answer
    return answer[2]
def refused(data, port=8803):
    return code(ask(data, port)[1])
def declined(rest, port=8803, **more):
    return code(open_to(rest, port, **more)[1])
def works(port=8803, **more):
    s, answer = open_to(connect(server), port, **more)
    assert answer == b'', (port, more, answer)
    s.sendall(b'abc'); s.sendall(b'def'); s.shutdown(socket.SHUT_WR)
    assert s.recv(6, socket.MSG_WAITALL) == b'fedcba' and s.recv(1) == b''
";

/// Runs a script after [`STRANGER`] on the client.
fn stranger(world: &World, script: &str) -> (String, Option<i32>) {
    let mut command = Command::new("python3");
    command.args(["-u", "-c", &format!("{STRANGER}{script}")]);
    command.args([world.net.server.nics[0].v4.to_string(), SERVER.to_owned()]).arg(world.key("relay.keys"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    both(&Running::new(world.net.client.ns.run(|| command.spawn()).expect("it starts")).wait())
}

#[test]
fn another_implementation_is_served_and_attacks_are_answered_as_rfc_8803_has_it() {
    within(LIMIT, || {
        let world = World::new("", "");
        let _server = python(&world.server, ECHO_AFTER_END);
        wait_for_port(&world.server, PORT);
        let script = "
works(); works(name='phone')
now, second = time.time_ns, 10 ** 9
begun = now()
once = signed(connect(server), begun)
s, answer = ask(once)
assert answer[0] == 0x16, 'challenged'
proof = signed(connect(server), begun, challenge=answer[4:])
s.sendall(proof)
assert hear(s) == b''
assert refused(proof) == 32, 'the answer to another challenge'
# By somebody who has recorded it, before the relay began or after.
s, answer = ask(once); s.sendall(once)
assert code(hear(s)) == 32, 'replayed'
assert refused(once + b'data') == 32, 'no place for a challenge'
early = signed(connect(server), now() + 60 * second)
assert ask(early)[1][0] == 0x16, 'ahead, and perhaps from before the start'
assert refused(signed(connect(server), now() - 200 * second)) == 32, 'old'
assert refused(signed(connect(server), now() + 200 * second)) == 32, 'from the future'
assert refused(signed(connect(server), name='nobody', key='00' * 32)) == 32, 'unknown'
assert refused(signed(connect(server), key='00' * 32)) == 32, 'wrong key'
assert refused(message(connect(server))) == 32, 'no key'
changed = bytearray(signed(connect(server))); changed[-1] ^= 1
assert refused(bytes(changed)) == 32, 'another destination'
for ip in ['10.1.0.2', '192.168.1.1', '169.254.169.254', '100.64.0.1', '203.0.113.1']:
    assert declined(connect(ip)) == 32, ip
for ip in ['127.0.0.1', '224.0.0.1', '255.255.255.255', '0.0.0.0']:
    assert refused(signed(connect(ip))) == 1, ip
assert declined(connect(server, options=bytes([30, 2, 0, 0]))) == 33
s, answer = open_to(connect(server, options=bytes([2, 4, 5, 180])))
assert answer == bytes([0x14, 1, 0, 0]), answer
assert refused(b'\\x02\\x01\\x22\\x63') == 0
assert refused(message(bytes([0x77, 1, 0, 0]))) == 2
assert declined(connect(server, 9)) == 96
s, answer = open_to(bytes([1, 1, 0, 0]))
assert answer == bytes([0x15, 1, 0, 0]), answer
for garbage in [b'GET / HTTP/1.1\\r\\n\\r\\n', b'\\x16\\x03\\x01\\x02\\x00']:
    s = socket.create_connection((relay, 8803), 20)
    s.sendall(garbage)
    try: assert s.recv(1) is None, 'it says something'
    except ConnectionResetError: pass
print('all well')
";
        let (said, code) = stranger(&world, script);
        let log = world.end();
        assert_eq!((said.as_str(), code), ("all well\n", Some(0)), "{log}");
        for why in [
            "relay's start",
            "laptop is 200 s old",
            "laptop is -199 s old",
            "unknown client nobody",
            "options of TCP: [30]",
        ] {
            assert!(log.contains(why), "{why}: {log}");
        }
    });
}

#[test]
fn floods_and_greedy_clients_disturb_nobody_else() {
    within(LIMIT, || {
        let world = World::new("", "");
        let _server = python(&world.server, ECHO_AFTER_END);
        wait_for_port(&world.server, PORT);
        let limits = "[relay.limits]\nrate = 1\nconnections = 3\nbytes-per-day = 100000\n";
        let text = format!("[relay]\nat = 8804\nkeys = \"{}\"\n{limits}", world.key("relay.keys").display());
        let daemon = Daemon::start_by(&world.net.server.ns, &text, |folder| {
            let mut command = program::command("relay --config");
            command.arg(file(folder));
            command
        });
        let script = "
silent = [socket.create_connection((relay, 8803), 20) for _ in range(300)]
half = [socket.create_connection((relay, 8803), 20) for _ in range(100)]
for s in half: s.sendall(signed(connect(server))[:-1])
wrong = [socket.create_connection((relay, 8803), 20) for _ in range(100)]
for s in wrong: s.sendall(signed(connect(server), key='00' * 32))
works(); works(name='phone')
def ends(s):
    s.settimeout(30)
    try: return s.recv(1) == b''
    except ConnectionResetError: return True
assert all(ends(s) for s in silent + half), 'who does not ask is not kept'
# One client with all that it may have.
held = []
for _ in range(3):
    s, answer = open_to(connect(server), 8804)
    assert answer == b'', answer
    held.append(s)
assert declined(connect(server), 8804) == 64, 'a fourth connection'
works(8804, name='phone')
held[0].sendall(b'x' * 150000)
assert ends(held[0]), 'too many bytes'
for s in held[1:]: s.close()
time.sleep(1)
assert declined(connect(server), 8804) == 64, 'no bytes left'
codes = set()
for _ in range(20):
    s, answer = open_to(connect(server), 8804, name='phone')
    s.close()
    codes.add(answer[2] if answer else None)
assert codes == {None, 64}, codes
print('all well')
";
        let (said, code) = stranger(&world, script);
        let relay_log = world.end();
        assert_eq!((said.as_str(), code), ("all well\n", Some(0)), "{relay_log}");
        let refusals = relay_log.lines().filter(|line| line.contains("wrong key")).count();
        assert!((1..=60).contains(&refusals), "{refusals} lines about a hundred refusals");
        drop(daemon);
    });
}

#[test]
fn a_reset_is_passed_on_while_the_other_side_does_not_read() {
    within(LIMIT, || {
        let world = World::new("", "");
        // A server that reads nothing and says when its client has gone; one that says much and then resets.
        let mut server = python(
            &world.server,
            "
import select, socket, struct, sys, threading
def gone(c):
    p = select.poll(); p.register(c, 0)
    return p.poll(30000) != []
def deaf(c):
    print('gone', gone(c), file=sys.stderr, flush=True)
def loud(c):
    c.setblocking(False)
    idle = 0
    while idle < 20:
        try: c.send(bytes(65536)); idle = 0
        except BlockingIOError: idle += 1; select.select([], [c], [], 0.05)
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); c.close()
def serve(port, what):
    s = socket.create_server(('203.0.113.2', port))
    while True: threading.Thread(target=what, args=(s.accept()[0],), daemon=True).start()
threading.Thread(target=serve, args=(8685, loud), daemon=True).start()
serve(8684, deaf)
",
        );
        wait_for_port(&world.server, PORT);
        let script = "
import select
# The client goes.
s, answer = open_to(connect(server))
assert answer == b'', answer
s.setblocking(False)
idle = 0
while idle < 20:
    try: s.send(bytes(65536)); idle = 0
    except BlockingIOError: idle += 1; select.select([], [s], [], 0.05)
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); s.close()
# The server goes.
s, answer = open_to(connect(server, 8685))
assert answer == b'', answer
p = select.poll(); p.register(s, 0)
assert p.poll(30000), 'the reset of the server does not come'
print('all well')
";
        let (said, code) = stranger(&world, script);
        assert_eq!((said.as_str(), code), ("all well\n", Some(0)));
        server.wait_for("gone True");
        world.end();
    });
}

//! The SOCKS proxy.

use super::{Daemon, LIMIT, RESTORED_WITHIN, both, file, network, python, wait_for_port};
use std::process::{Command, Stdio};
use umptcp_testbed::Netns;
use umptcp_testbed::command::Running;
use umptcp_testbed::host::Snapshot;
use umptcp_testbed::kernel::Counters;
use umptcp_testbed::limit::within;
use umptcp_testbed::program;
use umptcp_testbed::topology::Routed;

const SOCKS: &str = "[socks]\nat = \"127.0.0.1:1080\"\n";

/// Runs curl there; what it prints and its exit code.
fn curl(ns: &Netns, arguments: &str) -> (String, Option<i32>) {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "30"]).args(arguments.split_whitespace());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    both(&Running::new(ns.run(|| command.spawn()).expect("curl starts")).wait())
}

/// A server of HTTP at the other end, by the kernel's MPTCP, that says who has asked and answers with 3 MB.
fn serve(net: &Routed) -> umptcp_testbed::program::Background {
    let server = python(
        &net.server.ns,
        "
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 262)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('::', 8000)); s.listen()
while True:
    c, _ = s.accept()
    request = b''
    while b'\\r\\n\\r\\n' not in request: request += c.recv(65536)
    body = bytes(range(256)) * 12000
    c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n' % len(body) + body)
    c.close()
",
    );
    wait_for_port(&net.server.ns, 8000);
    server
}

#[test]
fn names_and_addresses_are_reached_over_both_nics() {
    within(LIMIT, || {
        let net = network(2);
        [0, 1].iter().for_each(|nic| net.shape_client(*nic, 40.0));
        let (ns, server) = (&net.client.ns, &net.server.nics[0]);
        let before = Snapshot::take(ns);
        let _server = serve(&net);
        // The name is known to the daemon only: it is the one that looks it up.
        let daemon = Daemon::start_by(ns, SOCKS, |folder| {
            let hosts = folder.path().join("hosts");
            std::fs::write(&hosts, format!("{} server.test\n", server.v4)).expect("a file");
            let mut command = Command::new("sh");
            let script = "mount --bind \"$1\" /etc/hosts && exec \"$2\" up --config \"$3\"";
            command.args(["-c", script, "sh"]).args([&hosts, &program::path(), &file(folder)]);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command
        });
        let saved = daemon.folder().path().join("saved");
        for (proxy, host) in [
            ("--socks5-hostname", "server.test".to_owned()),
            ("--socks5", server.v4.to_string()),
            ("--socks5", format!("[{}]", server.v6)),
        ] {
            let line = format!("{proxy} 127.0.0.1:1080 -o {} http://{host}:8000/", saved.display());
            assert_eq!(curl(ns, &line), (String::new(), Some(0)), "{host}");
            let got = std::fs::read(&saved).expect("it was saved");
            assert!(
                got.len() == 3_072_000 && got.chunks(256).all(|c| c.iter().copied().eq(0..=255)),
                "{host}"
            );
        }
        let counters = Counters::read(&net.server.ns);
        assert!(counters.mptcp("MPCapableACKRX") >= 3 && counters.mptcp("MPJoinAckRx") >= 1);
        daemon.down(ns);
        before.assert_restored(ns, RESTORED_WITHIN);
    });
}

/// RFC 1928 §6: each cause has its code.
#[test]
fn failures_are_told_apart() {
    within(LIMIT, || {
        let net = network(1);
        let (ns, server) = (&net.client.ns, net.server.nics[0].v4);
        net.server.ns.nft(
            "table inet t { chain c { type filter hook input priority 0;
             tcp dport 7001 reject with icmpx host-unreachable
             tcp dport 7002 reject with icmpx no-route
             }
             }",
        );
        let daemon = Daemon::start(ns, SOCKS);
        let own = net.client.nics[0].v4;
        let script = format!(
            "
import socket
def ask(request, greeting=b'\\5\\1\\0'):
    s = socket.create_connection(('127.0.0.1', 1080), 20)
    s.sendall(greeting)
    said = s.recv(2)
    if said != b'\\5\\0': return list(said) + list(s.recv(9))
    s.sendall(request)
    answer = b''
    while piece := s.recv(99): answer += piece
    assert answer[:1] == b'\\5' and len(answer) == 10, answer
    return answer[1]
def to(host, port, command=1):
    name = host.encode()
    return ask(b'\\5%c\\0\\3%c' % (command, len(name)) + name + port.to_bytes(2))
print(*[to('{server}', port) for port in (7000, 7001, 7002)])
print(to('nosuch.invalid', 80), to('localhost', 80), to('{own}', 80), to('224.0.0.1', 80))
print(to('{server}', 80, 2), to('{server}', 80, 3), ask(b'\\5\\1\\0\\x09'))
print(ask(b'', b'\\5\\1\\2'))
"
        );
        let (code, said, errors) = python(ns, &script).finish();
        assert_eq!(code, Some(0), "{errors}");
        assert_eq!(String::from_utf8_lossy(&said), "5 4 3\n4 2 2 2\n7 7 8\n[5, 255]\n");
        daemon.down(ns);
    });
}

#[test]
fn only_those_may_use_it_who_are_named_and_that_can_change() {
    within(LIMIT, || {
        let net = network(1);
        let (ns, server) = (&net.client.ns, net.server.nics[0].v4);
        let _server = serve(&net);
        let socks = |allow: &str| format!("[socks]\nat = \"0.0.0.0:1080\"\nallow = [\"{allow}\"]\n");
        let mut daemon = Daemon::start(ns, &socks("192.0.2.0/24"));
        let get = || {
            let line = format!("--socks5 127.0.0.1:1080 -o /dev/null http://{server}:8000/");
            curl(ns, &line).1
        };
        assert_ne!(get(), Some(0));
        daemon.wait_for("may not use the proxy");
        daemon.reload(&socks("127.0.0.0/8"), "ready: ");
        assert_eq!(get(), Some(0));
        // The same port at another address, and then none.
        daemon.reload(SOCKS, "SOCKS at 127.0.0.1:1080");
        assert_eq!(get(), Some(0));
        daemon.reload("", "every usable NIC, 0 listeners");
        assert_eq!(get(), Some(7), "curl: cannot connect to the proxy");
        daemon.down(ns);
    });
}

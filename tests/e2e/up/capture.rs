//! Connections of this host's programs that the daemon takes.

use super::{Daemon, LIMIT, RESTORED_WITHIN, both, network, python, wait_for_port};
use nix::sys::signal::Signal;
use umptcp_testbed::Netns;
use umptcp_testbed::host::Snapshot;
use umptcp_testbed::kernel::Counters;
use umptcp_testbed::limit::within;
use umptcp_testbed::program::{self, Background};
use umptcp_testbed::topology::Routed;

/// A server of measurements at the other end, by the kernel's MPTCP.
fn serve(net: &Routed) -> Background {
    let server = Background::start(&net.server.ns, "bench server --stack kernel-mptcp [::]:8684");
    wait_for_port(&net.server.ns, 8684);
    server
}

/// How many connections the server has had by MPTCP.
pub(crate) fn by_mptcp(net: &Routed) -> u64 {
    Counters::read(&net.server.ns).mptcp("MPCapableACKRX")
}

/// A program of plain TCP, that checks every byte.
fn measure(ns: &Netns, to: &str, options: &str) {
    let (said, code) = both(&program::run(ns, &format!("bench client --stack kernel-tcp {to} {options}")));
    assert_eq!(code, Some(0), "{to}: {said}");
}

/// With a strict reverse-path filter, as many hosts have it.
#[test]
fn connections_to_a_destination_go_over_both_nics_and_others_do_not() {
    within(LIMIT, || {
        let net = network(2);
        let (ns, server) = (&net.client.ns, &net.server.nics[0]);
        ns.sysctl("net.ipv4.conf.all.rp_filter", "1");
        // One NIC alone must not be enough.
        [0, 1].iter().for_each(|nic| net.shape_client(*nic, 40.0));
        let before = Snapshot::take(ns);
        let _server = serve(&net);
        let mut daemon = Daemon::start(
            ns,
            &format!("[[capture]]\nto = [\"{}\", \"{}\"]\nports = [8684]\n", server.v4, server.v6),
        );
        assert_eq!(by_mptcp(&net), 0);
        for (n, to) in [server.v4.to_string(), server.v6.to_string()].iter().enumerate() {
            measure(ns, to, "--bytes 8Mi --direction both --verify");
            assert_eq!(by_mptcp(&net), n as u64 + 1, "{to}");
        }
        assert!(Counters::read(&net.server.ns).mptcp("MPJoinAckRx") >= 1);
        // No more of it, and then nothing.
        daemon.reload(&format!("[[capture]]\nto = [\"{}\"]\nports = [1]\n", server.v4), "ready: ");
        measure(ns, &server.v4.to_string(), "--bytes 64Ki --verify");
        daemon.reload("", "ready: ");
        measure(ns, &server.v4.to_string(), "--bytes 64Ki --verify");
        assert_eq!(by_mptcp(&net), 2);
        daemon.down(ns);
        before.assert_restored(ns, RESTORED_WITHIN);
    });
}

/// Servers, this host itself, connections that there were before, other devices, and the daemon's own: all as
/// it was.
#[test]
fn all_of_a_host_is_captured_but_nothing_that_must_not_be() {
    within(LIMIT, || {
        let net = network(2);
        let (ns, server) = (&net.client.ns, &net.server.nics[0]);
        // A container, say.
        let other = Netns::new("other");
        umptcp_testbed::netns::veth(ns, "v0", &other, "v1");
        ns.sh("ip addr add 172.31.0.1/24 dev v0");
        other.sh("ip addr add 172.31.0.2/24 dev v1");
        let echo = "
import socket, threading
s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, KIND)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('::', PORT)); s.listen()
print('listening')
def serve(c):
    while data := c.recv(65536): c.sendall(data)
    c.close()
while True: threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
";
        let mut servers: Vec<Background> =
            [(ns, 7, 0), (&other, 7, 0), (&net.server.ns, 7, 262), (&net.server.ns, 8, 262)]
                .iter()
                .map(|(at, port, kind)| {
                    python(at, &echo.replace("PORT", &port.to_string()).replace("KIND", &kind.to_string()))
                })
                .collect();
        servers.iter_mut().for_each(|s| assert_eq!(s.next_line(), "listening"));
        let ask = |host: &str, port: u16| {
            format!(
                "
s = socket.create_connection(('{host}', {port}), 20)
s.sendall(b'{host}'); print(s.recv(99).decode() == '{host}')
"
            )
        };
        let mut old = python(
            ns,
            &format!(
                "
import socket, os, time
s = socket.create_connection(('{}', 7), 20)
print('connected')
for n in range(400):
    s.sendall(b'x')
    assert s.recv(9) == b'x'
    time.sleep(0.02)
    if n % 100 == 99: print(n)
",
                server.v4
            ),
        );
        assert_eq!(old.next_line(), "connected");
        let before = Snapshot::take(ns);
        // The daemon connects to a service at the other end: this must not be captured.
        let daemon = Daemon::start(
            ns,
            &format!("[[capture]]\nall = true\n[[listen]]\nat = 80\nto = \"{}:8\"\n", server.v4),
        );
        let own = net.client.nics[0].v4.to_string();
        let hosts = [
            server.v4.to_string(),
            server.v6.to_string(),
            own.clone(),
            "127.0.0.1".into(),
            "::1".into(),
            "172.31.0.2".into(),
        ];
        let script = hosts.iter().map(|host| ask(host, 7)).collect::<String>();
        let (code, said, errors) = python(ns, &format!("import socket\n{script}")).finish();
        assert_eq!(
            (code, String::from_utf8_lossy(&said).trim()),
            (Some(0), ["True"; 6].join("\n").as_str()),
            "{errors}"
        );
        assert_eq!(by_mptcp(&net), 2, "those to the server, of both families");
        // A server of this host, and a service behind the daemon, asked from outside.
        let outside = format!("import socket\n{}{}", ask(&own, 7), ask(&own, 80));
        let (code, said, errors) = python(&net.server.ns, &outside).finish();
        assert_eq!((code, String::from_utf8_lossy(&said).trim()), (Some(0), "True\nTrue"), "{errors}");
        assert_eq!(by_mptcp(&net), 2);
        // Each failure is as without us.
        let refused = format!(
            "import socket\ntry: socket.create_connection(('{}', 9), 20)\nexcept OSError as e: print(e.errno)",
            server.v4
        );
        assert_eq!(python(ns, &refused).next_line(), "111");
        for n in [99, 199, 299, 399] {
            assert_eq!(old.next_line(), n.to_string(), "the connection from before goes on");
        }
        assert_eq!(old.finish().0, Some(0));
        daemon.down(ns);
        before.assert_restored(ns, RESTORED_WITHIN);
    });
}

#[test]
fn only_one_captures_and_a_crash_is_put_right() {
    within(LIMIT, || {
        let net = network(1);
        let ns = &net.client.ns;
        let before = Snapshot::take(ns);
        let _server = serve(&net);
        let to = net.server.nics[0].v4.to_string();
        let all = "[[capture]]\nall = true\n";
        let daemon = Daemon::start(ns, all);
        let (second_name, folder) = super::configuration(all);
        let second = Background::spawn(ns, super::up(&folder));
        let (code, _, said) = second.finish();
        // It is told who it is, and how to end that.
        let first = format!("(process {}) captures on this host already", daemon.running.process().id());
        let told = said.contains(&first) && said.contains(&format!("`umptcp down {}`", daemon.name));
        assert!(code == Some(3) && told && !said.contains(&second_name), "{said}");
        measure(ns, &to, "--bytes 64Ki --verify");
        assert_eq!(by_mptcp(&net), 1);
        daemon.signal(Signal::SIGKILL);
        daemon.finish();
        // Nobody is cut off meanwhile.
        measure(ns, &to, "--bytes 64Ki --verify");
        assert_eq!(by_mptcp(&net), 1);
        // The next start puts it right, and then captures itself.
        let daemon = Daemon::start(ns, all);
        measure(ns, &to, "--bytes 64Ki --verify");
        assert_eq!(by_mptcp(&net), 2);
        daemon.signal(Signal::SIGKILL);
        daemon.finish();
        assert!(program::run(ns, "clean-up").status.success());
        before.assert_restored(ns, RESTORED_WITHIN);
    });
}

/// At the end of the daemon, and however soon it is wanted.
#[test]
fn captured_connections_have_their_time_to_end_and_new_ones_are_not_captured() {
    within(LIMIT, || {
        let net = network(1);
        let ns = &net.client.ns;
        let before = Snapshot::take(ns);
        let mut server = python(
            &net.server.ns,
            "
import socket, threading
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('', 7)); s.listen()
print('listening')
def serve(c):
    try:
        while data := c.recv(65536): c.sendall(data)
    except OSError: pass
    c.close()
while True: threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
",
        );
        assert_eq!(server.next_line(), "listening");
        // Two connections, one of which does not end; the second word is waited for by its file.
        let client = |folder: &std::path::Path| {
            format!(
                "
import os, socket, time
a, b = (socket.create_connection(('{to}', 7), 20) for _ in range(2))
for s in a, b: s.sendall(b'x'); s.recv(1)
print('connected')
while not os.path.exists('{go}'): time.sleep(0.02)
a.sendall(b'word'); print(a.recv(9)); a.close()
c = socket.create_connection(('{to}', 7), 20)
c.sendall(b'new'); print(c.recv(9))
try: print(b.recv(1))
except OSError as e: print(type(e).__name__)
",
                to = net.server.nics[0].v4,
                go = folder.join("go").display()
            )
        };
        for twice in [false, true] {
            let text = "[stack]\ndrain = \"3 s\"\n[[capture]]\nall = true\n";
            let mut daemon = Daemon::start(ns, text);
            let captured = by_mptcp(&net);
            let mut program = python(ns, &client(daemon.folder().path()));
            assert_eq!(program.next_line(), "connected");
            assert_eq!(by_mptcp(&net), captured + 2);
            daemon.signal(Signal::SIGTERM);
            daemon.wait_for("ending");
            std::fs::write(daemon.folder().path().join("go"), "").expect("a file");
            assert_eq!(program.next_line(), "b'word'", "it has its time");
            assert_eq!(program.next_line(), "b'new'", "it goes without the daemon");
            if twice {
                daemon.signal(Signal::SIGTERM);
            }
            assert_eq!(program.next_line(), "ConnectionResetError");
            assert_eq!(by_mptcp(&net), captured + 2);
            assert_eq!(daemon.finish(), Some(if twice { 128 + 15 } else { 0 }));
            before.assert_restored(ns, RESTORED_WITHIN);
        }
    });
}

//! `umptcp proxy` over paths inside UDP: no privilege, no TUN device. At the other end a daemon with such paths,
//! without privilege, too, and behind it a server of plain TCP.

use crate::inside_udp::{NO_CAPABILITY, command, unchanged, wait_for_datagrams};
use crate::programs::python;
use crate::run::{LIMIT, both, wait_for_port};
use nix::sys::signal::Signal;
use std::process::{Command, Stdio};
use umptcp_testbed::Netns;
use umptcp_testbed::command::Running;
use umptcp_testbed::limit::within;
use umptcp_testbed::program::{self, Background, Folder};
use umptcp_testbed::topology::Routed;

/// Where clients of the daemon come in.
pub(crate) const PORT: u16 = 8000;
/// Bytes that the server answers with.
pub(crate) const LENGTH: usize = 12_288_000;

/// What serves the downloads of a test.
pub(crate) struct Site {
    proxy: Background,
    daemon: Background,
    _server: Background,
    folder: Folder,
}

impl Site {
    /// Starts all of it, as `who` starts programs.
    pub(crate) fn start(net: &Routed, who: &str) -> Site {
        let server = python(
            &net.server.ns,
            "
import socket
s = socket.create_server(('127.0.0.1', 8080))
while True:
    c, _ = s.accept()
    request = b''
    while b'\\r\\n\\r\\n' not in request:
        piece = c.recv(65536)
        if not piece: break
        request += piece
    if not request: continue
    body = bytes(range(256)) * 48000
    c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n' % len(body) + body)
    c.close()
",
        );
        wait_for_port(&net.server.ns, 8080);
        let folder = Folder::new("proxy");
        let file = folder.path().join("umptcp.toml");
        let name = folder.path().file_name().and_then(|name| name.to_str()).expect("a name");
        let text = format!(
            "name = \"{name}\"\n[[path]]\ndevice = \"s0\"\nmode = \"udp\"\n[[listen]]\nat = {PORT}\nto = \"127.0.0.1:8080\"\n"
        );
        std::fs::write(&file, text).expect("a file");
        let up = command(who, &format!("up --config {}", file.display()));
        let mut daemon = Background::spawn(&net.server.ns, up);
        daemon.wait_for("ready: ");
        wait_for_datagrams(&net.server.ns, PORT);
        let paths: Vec<String> =
            net.client.nics.iter().map(|nic| format!("--path {},mode=udp", nic.device)).collect();
        let mut proxy =
            Background::spawn(&net.client.ns, command(who, &format!("proxy {}", paths.join(" "))));
        proxy.wait_for("SOCKS 5 and HTTP CONNECT at 127.0.0.1:1080, over c0/udp");
        Site { proxy, daemon, _server: server, folder }
    }

    /// Downloads by the proxy; `meanwhile` runs when that has begun.
    pub(crate) fn download(&self, net: &Routed, by: &str, meanwhile: impl FnOnce(&Routed)) {
        let before = net.client_link_bytes()[0].to_client;
        let url = format!("http://{}:{PORT}/", net.server.nics[0].v4);
        let saved = self.folder.path().join("saved");
        let curl = curl(&net.client.ns, &format!("{by} -o {} {url}", saved.display()));
        net.wait_client_link(0, before + (1 << 20));
        meanwhile(net);
        let said = both(&curl.wait());
        assert_eq!(said, (String::new(), Some(0)));
        let got = std::fs::read(saved).expect("it was saved");
        assert!(got.len() == LENGTH && got.chunks(256).all(|c| c.iter().copied().eq(0..=255)));
    }

    /// Ends both programs by a signal, in order.
    pub(crate) fn end(self) {
        for program in [self.proxy, self.daemon] {
            program.process().signal(Signal::SIGTERM);
            let (code, _, said) = program.finish();
            assert!(code == Some(0) && !said.contains("panicked"), "{said}");
        }
    }
}

const SOCKS: &str = "--socks5-hostname 127.0.0.1:1080";
const CONNECT: &str = "--proxytunnel --proxy http://127.0.0.1:1080";

/// curl, with its errors only.
fn curl(ns: &Netns, arguments: &str) -> Running {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "60"]).args(arguments.split_whitespace());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Running::new(ns.run(|| command.spawn()).expect("curl starts"))
}

/// By either protocol, over both NICs.
pub(crate) fn both_protocols(who: &str) {
    let net = Routed::new(2, 1);
    [0, 1].iter().for_each(|nic| net.shape_client(*nic, 40.0));
    unchanged(&net, || {
        let site = Site::start(&net, who);
        for by in [SOCKS, CONNECT] {
            let before = net.client_link_bytes();
            site.download(&net, by, |_| {});
            for (i, (now, before)) in net.client_link_bytes().iter().zip(before).enumerate() {
                let got = now.to_client - before.to_client;
                assert!(got > LENGTH as u64 / 8, "{by}: {got} bytes over NIC {i}");
            }
        }
        site.end();
    });
}

#[test]
fn two_nics_without_a_capability() {
    within(LIMIT, || both_protocols(NO_CAPABILITY));
}

#[test]
fn a_nic_dies_and_the_download_goes_on() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        [0, 1].iter().for_each(|nic| net.shape_client(*nic, 40.0));
        let site = Site::start(&net, NO_CAPABILITY);
        site.download(&net, SOCKS, |net| {
            net.client.ns.sh("ip link set c0 down");
        });
        net.client.ns.sh("ip link set c0 up");
        site.end();
    });
}

/// RFC 9209 §2.3: each cause has its word, and RFC 1928 §6 its code.
#[test]
fn failures_are_told_apart() {
    within(LIMIT, || {
        let net = Routed::new(1, 1);
        let site = Site::start(&net, NO_CAPABILITY);
        let server = net.server.nics[0].v4;
        net.server.ns.nft(
            "table inet t { chain c { type filter hook input priority 0;
             udp dport 7001 reject with icmpx host-unreachable
             udp dport 7002 reject with icmpx no-route
             }
             }",
        );
        let script = format!(
            "
import socket
def ask(line):
    s = socket.create_connection(('127.0.0.1', 1080), 20)
    s.sendall(line.encode() + b'\\r\\nHost: a\\r\\n\\r\\n')
    answer = b''
    while piece := s.recv(9999): answer += piece
    head = answer.split(b'\\r\\n\\r\\n')[0].decode().split('\\r\\n')
    why = [l.split('error=')[1] for l in head if l.startswith('Proxy-Status')]
    return head[0].split()[1], *why
for to in ['{server}:7000', '{server}:7001', '{server}:7002', 'nosuch.invalid:80', 'localhost:80', '{server}']:
    print(*ask('CONNECT %s HTTP/1.1' % to))
print(*ask('GET http://{server}:8000/ HTTP/1.1'), *ask('X'))
def socks(port):
    s = socket.create_connection(('127.0.0.1', 1080), 20)
    s.sendall(b'\\5\\1\\0\\5\\1\\0\\1' + socket.inet_aton('{server}') + port.to_bytes(2))
    return s.recv(2) + s.recv(99)
print(*[socks(port)[3] for port in (7000, 7001, 7002)])
"
        );
        let (code, said, errors) = python(&net.client.ns, &script).finish();
        assert_eq!(code, Some(0), "{errors}");
        let expected = "502 connection_refused
502 destination_unavailable
502 destination_ip_unroutable
502 destination_unavailable
403 destination_ip_prohibited
400 http_request_error
405 http_request_error 400 http_request_error
5 4 3
";
        assert_eq!(String::from_utf8_lossy(&said), expected);
        site.end();
    });
}

/// Data that is sent before the answer belongs to the connection.
#[test]
fn what_is_sent_early_is_not_lost() {
    within(LIMIT, || {
        let net = Routed::new(1, 1);
        let site = Site::start(&net, NO_CAPABILITY);
        let script = format!(
            "
import socket
s = socket.create_connection(('127.0.0.1', 1080), 20)
s.sendall(b'CONNECT {}:{PORT} HTTP/1.1\\r\\n\\r\\nGET / HTTP/1.0\\r\\n\\r\\n')
answer = b''
while piece := s.recv(1 << 20): answer += piece
parts = answer.split(b'\\r\\n\\r\\n', 2)
print(parts[0].split()[1], parts[1].split()[1], len(parts[2]))
",
            net.server.nics[0].v4
        );
        let (code, said, errors) = python(&net.client.ns, &script).finish();
        assert_eq!(code, Some(0), "{errors}");
        assert_eq!(String::from_utf8_lossy(&said), format!("b'200' b'200' {LENGTH}\n"));
        site.end();
    });
}

/// A client that stays silent, and one whose connection goes on, do not keep the proxy from its end; and tools
/// find it.
#[test]
fn a_signal_ends_it_and_tools_find_it() {
    within(LIMIT, || {
        let net = Routed::new(1, 1);
        let site = Site::start(&net, NO_CAPABILITY);
        let script = format!(
            "
import socket
silent = socket.create_connection(('127.0.0.1', 1080), 20)
s = socket.create_connection(('127.0.0.1', 1080), 20)
s.sendall(b'CONNECT {}:{PORT} HTTP/1.1\\r\\n\\r\\n')
print(s.recv(99).split()[1], flush=True)
for c in (s, silent):
    try: print(len(c.recv(1)))
    except ConnectionResetError: print('reset')
",
            net.server.nics[0].v4
        );
        let mut client = python(&net.client.ns, &script);
        assert_eq!(client.next_line(), "b'200'");
        let name = format!("proxy-{}", site.proxy.process().id());
        let (said, code) = both(&program::run(&net.client.ns, &format!("ss --instance {name}")));
        assert!(code == Some(0) && said.contains(&format!("{}:{PORT}", net.server.nics[0].v4)), "{said}");
        site.end();
        let (code, said, errors) = client.finish();
        assert_eq!(code, Some(0), "{errors}");
        assert_eq!(String::from_utf8_lossy(&said).lines().next(), Some("reset"));
    });
}

#[test]
fn others_may_not_use_it_unless_it_is_said() {
    within(LIMIT, || {
        let net = Routed::new(1, 1);
        let ns = &net.client.ns;
        for arguments in ["proxy --path c0,mode=udp 0.0.0.0:1080", "proxy --path c0,mode=udp [::]:1080"] {
            let (said, code) = both(&program::run(ns, arguments));
            assert!(code == Some(2) && said.contains("say who may use it (--allow"), "{said}");
        }
        let arguments = "proxy --path c0,mode=udp --allow 192.0.2.0/24 0.0.0.0:1080";
        let mut proxy = Background::start(ns, arguments);
        proxy.wait_for("at 0.0.0.0:1080");
        let (_, code) = both(&curl(ns, &format!("{SOCKS} http://192.0.2.1/")).wait());
        assert_ne!(code, Some(0));
        proxy.wait_for("may not use the proxy");
    });
}

//! The portable build, which is without calls that only Linux has: a proxy over two paths inside UDP to a relay.
//! `cargo xtask portable` builds it and runs these tests.

use crate::programs::python;
use crate::relay::{PORT, SERVER, World};
use crate::run::{LIMIT, both, wait_for_port};
use nix::sys::signal::Signal;
use std::process::{Command, Stdio};
use umptcp_testbed::command::Running;
use umptcp_testbed::host::Snapshot;
use umptcp_testbed::limit::within;
use umptcp_testbed::program::{Background, Folder};

/// Bytes that the server answers with.
const LENGTH: usize = 12_288_000;

/// Without a capability, even for root.
const NO_CAPABILITY: [&str; 3] = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];

/// A relay, two lines, and a server of downloads behind the relay.
struct Site {
    world: World,
    _server: Background,
    folder: Folder,
}

impl Site {
    fn new() -> Site {
        let world = World::new("--path s0,mode=udp", "");
        // As on any host with two lines: what is sent from an address leaves by its line. The portable build
        // does not ask the kernel for that.
        for (i, nic) in world.net.client.nics.iter().enumerate() {
            world.net.client.ns.script(&format!(
                "ip rule add from {} lookup {table}
                 ip route add default via {} dev {} table {table}",
                nic.v4,
                nic.gateway_v4,
                nic.device,
                table = 100 + i
            ));
        }
        let server = python(
            &world.server,
            &format!(
                "
import socket, threading
s = socket.create_server(('{SERVER}', {PORT}))
def serve(c):
    request = b''
    while b'\\r\\n\\r\\n' not in request:
        piece = c.recv(65536)
        if not piece: return
        request += piece
    body = bytes(range(256)) * {}
    c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n' % len(body) + body)
    c.close()
while True:
    c, _ = s.accept()
    threading.Thread(target=serve, args=(c,), daemon=True).start()
",
                LENGTH / 256
            ),
        );
        wait_for_port(&world.server, PORT);
        Site { world, _server: server, folder: Folder::new("portable") }
    }

    /// The portable program, without a capability.
    fn command(line: &str) -> Command {
        let program =
            std::env::var_os("UMPTCP_PORTABLE_PROGRAM").expect("`cargo xtask portable` says where it is");
        let mut command = Command::new(NO_CAPABILITY[0]);
        command.args(&NO_CAPABILITY[1..]).arg(program).args(line.split_whitespace());
        command
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// A proxy that is ready, over both lines.
    fn proxy(&self) -> Background {
        let nics = &self.world.net.client.nics;
        let paths: Vec<String> = nics.iter().map(|nic| format!("--path {},mode=udp", nic.v4)).collect();
        let line = format!("proxy -v {} {}", self.world.via(), paths.join(" "));
        let mut proxy = Background::spawn(&self.world.net.client.ns, Site::command(&line));
        proxy.wait_for("SOCKS 5 and HTTP CONNECT at 127.0.0.1:1080");
        proxy
    }

    /// Downloads by the proxy; `meanwhile` runs when that has begun.
    fn download(&self, by: &str, meanwhile: impl FnOnce()) {
        let net = &self.world.net;
        let before = net.client_link_bytes()[0].to_client;
        let saved = self.folder.path().join("saved");
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "120"]).args(by.split_whitespace()).arg("-o").arg(&saved);
        curl.arg(format!("http://{SERVER}:{PORT}/"));
        curl.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let curl = Running::new(net.client.ns.run(|| curl.spawn()).expect("curl starts"));
        net.wait_client_link(0, before + (1 << 20));
        meanwhile();
        assert_eq!(both(&curl.wait()), (String::new(), Some(0)));
        let got = std::fs::read(saved).expect("it was saved");
        assert!(got.len() == LENGTH && got.chunks(256).all(|c| c.iter().copied().eq(0..=255)));
    }
}

/// Ends it by a signal, in order. Returns what it has said.
fn end(proxy: Background) -> String {
    proxy.process().signal(Signal::SIGTERM);
    let (code, _, said) = proxy.finish();
    assert!(code == Some(0) && !said.contains("panicked"), "{code:?}: {said}");
    said
}

const SOCKS: &str = "--socks5-hostname 127.0.0.1:1080";
const CONNECT: &str = "--proxytunnel --proxy http://127.0.0.1:1080";

#[test]
#[ignore = "cargo xtask portable"]
fn both_protocols_over_both_lines_by_a_relay() {
    within(LIMIT, || {
        let site = Site::new();
        let before = Snapshot::take(&site.world.net.client.ns);
        let proxy = site.proxy();
        for by in [SOCKS, CONNECT] {
            let before = site.world.net.client_link_bytes();
            site.download(by, || ());
            for (i, (now, before)) in site.world.net.client_link_bytes().iter().zip(before).enumerate() {
                let got = now.to_client - before.to_client;
                assert!(got > LENGTH as u64 / 8, "{by}: {got} bytes over NIC {i}");
            }
        }
        end(proxy);
        before.assert_restored(&site.world.net.client.ns, crate::run::RESTORED_WITHIN);
        site.world.end();
    });
}

#[test]
#[ignore = "cargo xtask portable"]
fn one_line_dies_or_loses_its_address_and_the_download_goes_on() {
    within(LIMIT, || {
        let site = Site::new();
        let mut proxy = site.proxy();
        let net = &site.world.net;
        // Silently.
        site.download(SOCKS, || net.silence(0, true));
        net.silence(0, false);
        // And so that the host notices; then it comes back.
        let nic = &net.client.nics[0];
        site.download(SOCKS, || {
            drop(net.client.ns.sh(&format!("ip addr del {}/24 dev {}", nic.v4, nic.device)))
        });
        net.client.ns.script(&format!(
            "ip addr add {}/24 dev {device}
             ip route replace default via {gateway} dev {device} table 100",
            nic.v4,
            device = nic.device,
            gateway = nic.gateway_v4
        ));
        proxy.wait_for("the NIC is usable again");
        // The first line has its part again, which is waited for.
        site.download(SOCKS, || ());
        end(proxy);
        site.world.end();
    });
}

#[test]
#[ignore = "cargo xtask portable"]
fn what_needs_linux_is_refused_with_a_reason() {
    within(LIMIT, || {
        let site = Site::new();
        for (line, says) in [
            ("proxy --path c0", "ADDRESS,mode=udp"),
            ("proxy --path c0,mode=udp", "no address"),
            ("proxy --path 192.0.2.77,mode=udp", "does not have that address"),
            ("proxy", "ADDRESS,mode=udp"),
            ("up --config /none", "not in the portable build"),
            ("run -- true", "not in the portable build"),
            ("ss", "not in the portable build"),
        ] {
            let mut command = Site::command(line);
            let running =
                site.world.net.client.ns.run(|| command.spawn()).map(Running::new).expect("it starts");
            let (said, code) = both(&running.wait());
            assert!(!matches!(code, Some(0) | None), "{line}: {said}");
            assert!(said.contains(says) && !said.contains("panicked"), "{line}: {said}");
        }
        site.world.end();
    });
}

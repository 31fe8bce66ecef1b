//! Programs in other languages under `umptcp run`, each with its own way to speak to the network: Go's
//! runtime is linked statically and makes its own system calls, Java's sockets are of IPv6, Node's do not
//! block.

use crate::programs::{HTTP, assert_same, prepare, serve, sh};
use crate::run::{LIMIT, captured, network, run};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::time::Duration;
use umptcp_testbed::kernel::Counters;
use umptcp_testbed::limit::within;
use umptcp_testbed::program::{Background, Folder};
use umptcp_testbed::topology::{Family, Routed};

const ECHO: u16 = 9100;

/// A client that must start slowly: Java compiles its program first.
const SLOW: Duration = Duration::from_secs(180);

/// The program of `tests/e2e/go`, which `cargo xtask test` builds.
fn go() -> PathBuf {
    std::env::var_os("UMPTCP_GO_PROGRAM")
        .expect("UMPTCP_GO_PROGRAM says where the program of tests/e2e/go is: `cargo xtask test` builds it and says so")
        .into()
}

/// The source of a test's program.
fn source(file: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e").join(file).display().to_string()
}

/// Has `client` fetch a large file inside, by both NICs; FOLDER, URL and FILE stand for what they name.
fn fetches(word: &str, client: &str) {
    let net = network(2);
    // One NIC alone must not be enough.
    [0, 1].iter().for_each(|nic| net.shape_client(*nic, 100.0));
    let folder = prepare(&net, word);
    let _nginx = serve(&net, &folder);
    let path = folder.path().display().to_string();
    let url = format!("http://{}:{HTTP}/big", net.server.nics[0].v4);
    let client =
        client.replace("FOLDER", &path).replace("URL", &url).replace("FILE", &format!("{path}/copy"));
    let before = net.client_link_bytes();
    let (said, code) = run(&net.client.ns, "--summary", &client);
    assert!(code == Some(0) && said.contains("1 connection: 1 MPTCP, 0 TCP"), "{said}");
    for (before, after) in before.iter().zip(net.client_link_bytes()) {
        assert!(after.to_client - before.to_client > 4 << 20, "each NIC carries its part");
    }
    assert_same(&folder, "www/big", "copy");
}

#[test]
fn a_static_go_program_fetches() {
    within(LIMIT, || fetches("go", &format!("{} fetch URL FILE", go().display())));
}

#[test]
fn node_fetches() {
    let script = "require('http').get('URL', answer => answer.pipe(require('fs').createWriteStream('FILE')))";
    within(LIMIT, move || fetches("node", &format!("exec node -e \"{script}\"")));
}

#[test]
fn java_fetches() {
    within(SLOW, || fetches("java", &format!("exec java {} URL FILE", source("java/Fetch.java"))));
}

#[test]
fn apt_s_downloader_fetches() {
    // As root it would become another user, who may not write to the test's folder.
    let helper = "/usr/lib/apt/apt-helper -o APT::Sandbox::User=root download-file URL FILE";
    within(LIMIT, || fetches("apt", helper));
}

/// Has a client outside fetch a large file from a server inside, by MPTCP and by TCP.
fn serves(word: &str, server: &str) {
    let net = network(2);
    let folder = prepare(&net, word);
    let server = server.replace("FOLDER", &format!("{}/www", folder.path().display()));
    let inside = Background::spawn(&net.client.ns, captured("--summary", &server));
    let address = net.client.nics[0].v4;
    for (how, name) in [("mptcpize run ", "one"), ("", "two")] {
        let retry = "--retry 40 --retry-connrefused --retry-delay 1";
        sh(&net.server.ns, &folder, &format!("{how}curl -sS {retry} -o {name} http://{address}:{HTTP}/big"));
        assert_same(&folder, "www/big", name);
    }
    inside.process().signal(Signal::SIGTERM);
    let (_, _, said) = inside.finish();
    assert!(said.contains("2 connections: 1 MPTCP, 1 TCP"), "{said}");
}

#[test]
fn a_static_go_program_serves() {
    within(LIMIT, || serves("goserver", &format!("exec {} serve :{HTTP} FOLDER", go().display())));
}

#[test]
fn python_serves() {
    within(LIMIT, || serves("python", &format!("exec python3 -m http.server --directory FOLDER {HTTP}")));
}

/// Sends a file to the echo server by Go's own MPTCP sockets or TCP sockets. Returns what the client printed.
fn send(net: &Routed, folder: &Folder, options: &str, kind: &str) -> String {
    let address = net.client.nics[0].socket_address(Family::V4, ECHO);
    let path = folder.path().display();
    let client = format!("{} send {address} {path}/www/big {path}/copy {kind}", go().display());
    let (said, code) = run(&net.server.ns, options, &client);
    assert_eq!(code, Some(0), "{said}");
    assert_same(folder, "www/big", "copy");
    said
}

/// A program that asks for MPTCP (`ListenConfig.SetMultipathTCP`, `Dialer.SetMultipathTCP`) is told that it
/// has it, at both ends, both under `run`; for a client of plain TCP the server is told that it has not.
#[test]
fn go_is_told_whether_its_connection_is_multipath() {
    within(LIMIT, || {
        let net = network(2);
        let folder = prepare(&net, "echo");
        let script = format!("exec {} echo :{ECHO}", go().display());
        let mut inside = Background::spawn(&net.client.ns, captured("", &script));
        // The server is reachable a moment after it listens.
        let address = net.client.nics[0].v4;
        let reached =
            format!("for i in $(seq 200); do nc -z {address} {ECHO} && exit; sleep 0.1; done; exit 1");
        sh(&net.server.ns, &folder, &reached);
        let client = net.server.nics[0].v4;
        assert_eq!(inside.next_line(), format!("{client} multipath=false"), "the look whether it listens");
        assert!(send(&net, &folder, "", "mptcp").contains("multipath=true"));
        assert_eq!(inside.next_line(), format!("{client} multipath=true"));
        // Without `run`: plain TCP by the kernel.
        let path = folder.path().display();
        let plain = format!("{} send {address}:{ECHO} {path}/www/big {path}/copy tcp", go().display());
        assert!(sh(&net.server.ns, &folder, &plain).contains("multipath=false"));
        assert_eq!(inside.next_line(), format!("{client} multipath=false"));
        // None of it was the kernel's MPTCP.
        assert_eq!(Counters::read(&net.server.ns).mptcp("MPCapableSYNTX"), 0);
        inside.process().signal(Signal::SIGTERM);
        inside.finish();
    });
}

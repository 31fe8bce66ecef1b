//! The library against the Linux kernel's MPTCP, over TUN devices in network namespaces.
//!
//! Each test creates two namespaces, each of which belongs to a thread and disappears with it. The paths are
//! set up manually, to test the library and the devices without path set-up.
#![cfg(all(target_os = "linux", not(umptcp_portable)))]

mod common;

use common::pattern;
use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;
use umptcp::{AttachedPath, FallbackReason, MptcpStream, PathConfig, Stack, StackBuilder};
use umptcp_tun_driver::device::{Tun, TunOptions};

fn ip(arguments: &str) {
    let out = Command::new("ip").args(arguments.split_whitespace()).output().expect("ip is installed");
    assert!(out.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&out.stderr));
}

fn sysctl(name: &str, value: &str) {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    std::fs::write(&path, value).unwrap_or_else(|e| panic!("{path}: {e}"));
}

/// The server's namespace: runs closures on its thread.
struct Server {
    jobs: mpsc::Sender<Box<dyn FnOnce() + Send>>,
}

impl Server {
    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> mpsc::Receiver<T> {
        let (tx, rx) = mpsc::channel();
        self.jobs.send(Box::new(move || drop(tx.send(job())))).unwrap();
        rx
    }
}

/// Runs `test` in a client's namespace with two NICs, c0 and c1, connected to a server at 192.168.N.2. The
/// stack's address on path N is 10.100.N.2. Skips the test if this process cannot create namespaces.
fn with_server(test: impl FnOnce(&Server, Vec<AttachedPath>) + Send + 'static) {
    let client = std::thread::spawn(move || {
        if let Err(e) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("skipped: cannot make a network namespace: {e}");
            return;
        }
        let (jobs, queue) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (tid_tx, tid_rx) = mpsc::channel();
        let server = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tid_tx.send(nix::unistd::gettid()).unwrap();
            queue.into_iter().for_each(|job| job());
        });
        let tid = tid_rx.recv().unwrap();
        let paths = (0..2).map(|n| cable(n, tid)).collect();
        let server_side = Server { jobs };
        server_side
            .run(|| {
                ip("link set lo up");
                for n in 0..2 {
                    ip(&format!("addr add 192.168.{n}.2/24 dev s{n}"));
                    ip(&format!("link set s{n} up"));
                    ip(&format!("route add 10.100.{n}.0/24 via 192.168.{n}.1"));
                    sysctl(&format!("net.ipv4.conf.s{n}.rp_filter"), "0");
                }
                sysctl("net.ipv4.conf.all.rp_filter", "0");
            })
            .recv()
            .unwrap();
        test(&server_side, paths);
        drop(server_side);
        server.join().unwrap();
    });
    if let Err(panic) = client.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A NIC of the client, its far end in the server's namespace, and a path bound to it.
fn cable(n: u32, server: nix::unistd::Pid) -> AttachedPath {
    ip(&format!("link add c{n} type veth peer name s{n} netns {server}"));
    ip(&format!("addr add 192.168.{n}.1/24 dev c{n}"));
    ip(&format!("link set c{n} up"));
    let tun = Tun::open(&TunOptions::named(format!("u{n}"))).unwrap();
    ip(&format!("addr add 10.100.{n}.1/24 dev u{n}"));
    ip(&format!("link set u{n} up"));
    ip(&format!("rule add from 10.100.{n}.2 lookup {}", 100 + n));
    ip(&format!("route add default via 192.168.{n}.2 dev c{n} table {}", 100 + n));
    for device in [format!("c{n}"), format!("u{n}"), "all".to_owned()] {
        sysctl(&format!("net.ipv4.conf.{device}.rp_filter"), "0");
    }
    sysctl("net.ipv4.ip_forward", "1");
    let mut config = PathConfig::new(format!("c{n}"), format!("10.100.{n}.2").parse().unwrap());
    tun.describe(&mut config);
    AttachedPath { device: Box::new(tun), config, guard: Box::new(()) }
}

const SERVER: &str = "192.168.0.2:5001";

fn kernel_socket(mptcp: bool) -> Socket {
    let protocol = if mptcp { Protocol::MPTCP } else { Protocol::TCP };
    Socket::new(Domain::IPV4, Type::STREAM, Some(protocol)).unwrap()
}

/// Listens in this namespace, and serves one connection.
fn serve<T>(mptcp: bool, ready: &mpsc::Sender<()>, work: impl FnOnce(TcpStream) -> T) -> T {
    let listener = kernel_socket(mptcp);
    listener.set_reuse_address(true).unwrap();
    listener.bind(&SERVER.parse::<SocketAddr>().unwrap().into()).unwrap();
    listener.listen(8).unwrap();
    ready.send(()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    work(stream.into())
}

/// The kernel's counters in this namespace.
fn counter(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    lines
        .chunks(2)
        .find_map(|pair| Some(pair[1][pair[0].iter().position(|n| *n == name)?].parse().unwrap()))
        .unwrap_or_else(|| panic!("no counter {name}"))
}

/// Starts `work` on a kernel connection in the server's namespace and returns once it listens.
fn start<T: Send + 'static>(
    server: &Server,
    mptcp: bool,
    work: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> mpsc::Receiver<T> {
    let (tx, rx) = mpsc::channel();
    let result = server.run(move || serve(mptcp, &tx, work));
    rx.recv_timeout(Duration::from_secs(10)).unwrap();
    result
}

fn builder(paths: Vec<AttachedPath>) -> StackBuilder {
    Stack::builder().paths(paths)
}

#[test]
fn both_directions_at_once_with_the_kernel_as_server() {
    with_server(|server, paths| {
        const LEN: usize = 64 << 20;
        let stack = builder(paths).start().unwrap();
        let result = start(server, true, |mut stream| {
            let mut writer = stream.try_clone().unwrap();
            let sender = std::thread::spawn(move || {
                writer.write_all(&pattern(LEN, 2)).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            sender.join().unwrap();
            let names = [
                "MPTcpExtMPCapableACKRX",
                "MPTcpExtMPJoinAckRx",
                "MPTcpExtDSSNotMatching",
                "MPTcpExtMPCapableFallbackACK",
                "MPTcpExtDssFallback",
                "MPTcpExtMPRstRx",
            ];
            (got == pattern(LEN, 1), names.map(|n| counter(&n[8..])))
        });
        let client = stack.connect(SERVER).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (&client).write_all(&pattern(LEN, 1)).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
            });
            let mut got = Vec::new();
            (&client).read_to_end(&mut got).unwrap();
            assert!(got == pattern(LEN, 2), "every byte from the server, in order");
        });
        assert!(client.protocol().unwrap().is_mptcp());
        let (intact, counters) = result.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(intact, "every byte to the server, in order");
        assert_eq!(counters, [1, 1, 0, 0, 0, 0]);
    });
}

#[test]
fn a_plain_tcp_server_is_a_fallback() {
    with_server(|server, paths| {
        let stack = builder(paths).start().unwrap();
        let result = start(server, false, |mut stream| {
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            stream.write_all(&got).unwrap();
        });
        let mut client = stack.connect(SERVER).unwrap();
        let data = pattern(8 << 20, 3);
        client.write_all(&data).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        assert!(got == data);
        let reason = FallbackReason::NoOptionInSynAck;
        assert_eq!(client.protocol().unwrap(), umptcp::Protocol::Tcp { reason });
        result.recv_timeout(Duration::from_secs(10)).unwrap();
    });
}

#[test]
fn the_kernel_as_client() {
    with_server(|server, paths| {
        let stack = builder(paths).start().unwrap();
        let listener = stack.listen("0.0.0.0:5002").unwrap();
        let result = server.run(|| {
            let socket = kernel_socket(true);
            socket.connect(&"10.100.0.2:5002".parse::<SocketAddr>().unwrap().into()).unwrap();
            let mut stream: TcpStream = socket.into();
            let data = pattern(16 << 20, 4);
            let mut writer = stream.try_clone().unwrap();
            let sent = data.clone();
            let sender = std::thread::spawn(move || {
                writer.write_all(&sent).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            sender.join().unwrap();
            got == data
        });
        let (stream, from) = listener.accept_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(from.ip().to_string(), "192.168.0.2");
        assert!(stream.protocol().unwrap().is_mptcp());
        std::io::copy(&mut &stream, &mut &stream).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(result.recv_timeout(Duration::from_secs(30)).unwrap());
    });
}

#[test]
fn kernel_and_library_refuse_alike() {
    with_server(|_server, paths| {
        let stack = builder(paths).start().unwrap();
        let e = stack.connect("192.168.0.2:9").unwrap_err();
        assert_eq!(e.kind(), std::io::ErrorKind::ConnectionRefused);
        ip("route add unreachable 203.0.113.0/24 table 100");
        let e = MptcpStream::builder(&stack)
            .connect_timeout(Duration::from_secs(5))
            .connect("203.0.113.1:9")
            .unwrap_err();
        assert_eq!(e.kind(), std::io::ErrorKind::HostUnreachable, "{e}");
    });
}

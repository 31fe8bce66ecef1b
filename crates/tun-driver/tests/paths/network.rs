//! Network namespaces, links between them, and packets.

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recvfrom, sendto,
    setsockopt, socket, sockopt,
};
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use umptcp_tun_driver::device::{Offload, Tun};
use umptcp_tun_driver::error::DriverError;
use umptcp_tun_driver::paths::{PathSet, PathSpec, SetupOptions, set_up};

/// Time limit for something that must happen, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait for something that must not happen.
pub(crate) const QUIET: Duration = Duration::from_millis(300);

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace, owned by a thread that runs closures in it. It disappears with the thread.
pub(crate) struct Ns {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    file: String,
    /// Directory for the records of paths set up in it.
    pub(crate) records: PathBuf,
}

impl Ns {
    pub(crate) fn new() -> Ns {
        let (jobs, received) = channel::<Job>();
        let (started, ready) = channel();
        let thread = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("these tests need root");
            let file = format!("/proc/{}/task/{}/ns/net", std::process::id(), nix::unistd::gettid());
            started.send(file).unwrap();
            for job in received {
                job();
            }
        });
        let file = ready.recv().unwrap();
        let records = std::env::temp_dir().join(format!("umptcp-test{}", file.replace('/', "-")));
        let ns = Ns { jobs: Some(jobs), thread: Some(thread), file, records };
        // Do not wait for duplicate address detection.
        ns.sysctl("net/ipv6/conf/default/accept_dad", "0");
        ns.sysctl("net/ipv6/conf/all/accept_dad", "0");
        ns.ip("link set lo up");
        ns
    }

    /// Runs `work` in the namespace.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (reply, answer) = channel();
        let work = std::panic::AssertUnwindSafe(work);
        let job = Box::new(move || {
            let work = work;
            let _ = reply.send(std::panic::catch_unwind(work));
        });
        self.jobs.as_ref().unwrap().send(job).unwrap();
        match answer.recv().unwrap() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Moves the calling thread into the namespace.
    pub(crate) fn enter(&self) {
        let file = std::fs::File::open(&self.file).unwrap();
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    }

    /// Runs a program and returns its output; panics if it fails.
    pub(crate) fn program(&self, program: &str, arguments: &[&str]) -> String {
        let (program, arguments): (String, Vec<String>) =
            (program.into(), arguments.iter().map(|a| (*a).to_owned()).collect());
        self.run(move || {
            let output = Command::new(&program).args(&arguments).output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{program} {arguments:?}: {error}");
            String::from_utf8(output.stdout).unwrap()
        })
    }

    pub(crate) fn ip(&self, arguments: &str) -> String {
        self.program("ip", &arguments.split_whitespace().collect::<Vec<_>>())
    }

    pub(crate) fn nft(&self, arguments: &str) -> String {
        self.program("nft", &arguments.split(' ').collect::<Vec<_>>())
    }

    pub(crate) fn sysctl(&self, name: &str, value: &str) {
        let (name, value) = (format!("/proc/sys/{name}"), value.to_owned());
        self.run(move || std::fs::write(&name, value).unwrap_or_else(|e| panic!("{name}: {e}")));
    }

    pub(crate) fn read(&self, name: &str) -> String {
        let path = PathBuf::from("/proc/sys").join(name);
        self.run(move || read_setting(&path).unwrap().trim().to_owned())
    }

    /// A link to a device of another namespace, both ends up. Checksums are computed and not left to a
    /// virtual NIC, because packets are inspected on the way.
    pub(crate) fn link(&self, name: &str, peer: &Ns, peer_name: &str) {
        let peer_file = &peer.file;
        self.program(
            "ip",
            &["link", "add", name, "type", "veth", "peer", "name", peer_name, "netns", peer_file],
        );
        for (ns, name) in [(self, name), (peer, peer_name)] {
            ns.ip(&format!("link set {name} up"));
        }
        // IPv6 addresses are usable, and routes shown as alive, only once the carrier is known.
        wait_until("the link has carrier", || self.ip(&format!("link show {name}")).contains("LOWER_UP"));
    }

    pub(crate) fn address(&self, device: &str, address: &str) {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        self.ip(&format!("address add {address} dev {device} {nodad}"));
    }

    /// Everything in the namespace that a path could change.
    pub(crate) fn state(&self) -> String {
        // The kernel adds IPv6 addresses to its tables with a delay.
        wait_until("addresses have settled", || {
            let text = self.ip("-6 -o address");
            let text = text.lines().filter(|l| !l.contains("dadfailed")).collect::<Vec<_>>().join("\n");
            let local = self.ip("-6 route show table local");
            !text.contains("tentative")
                && text.lines().all(|line| {
                    let address = line.split(" inet6 ").nth(1).unwrap().split('/').next().unwrap();
                    local.contains(&format!("local {address} "))
                })
                && self.ip("-6 route").matches("fe80::/64").count() == text.matches("scope link").count()
        });
        let mut state = String::new();
        for arguments in [
            "rule",
            "-6 rule",
            "route show table all",
            "-6 route show table all",
            "neighbour show proxy",
            "-6 neighbour show proxy",
        ] {
            // Lifetimes decrease.
            let text = self.ip(arguments);
            let lines: Vec<&str> = text.lines().map(|l| l.split(" expires ").next().unwrap()).collect();
            state.push_str(&format!("# ip {arguments}\n{}\n", lines.join("\n")));
        }
        state.push_str(&format!("# nft\n{}", self.nft("list ruleset")));
        state.push_str(&self.run(|| {
            let mut settings = Vec::new();
            let mut directories =
                vec![PathBuf::from("/proc/sys/net/ipv4"), PathBuf::from("/proc/sys/net/ipv6")];
            while let Some(directory) = directories.pop() {
                for entry in std::fs::read_dir(&directory).unwrap().flatten() {
                    if entry.file_type().unwrap().is_dir() {
                        directories.push(entry.path());
                    } else if let Ok(value) = read_setting(&entry.path()) {
                        settings.push(format!("{} = {}", entry.path().display(), value.trim()));
                    }
                }
            }
            settings.sort();
            settings.join("\n")
        }));
        state
    }

    /// Runs an echo server.
    pub(crate) fn echo_server(&self, address: &str) {
        let address: SocketAddr = address.parse().unwrap();
        self.run(move || {
            let listener = TcpListener::bind(address).unwrap();
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let Ok(mut stream) = stream else { return };
                    std::thread::spawn(move || {
                        let mut buffer = [0; 1024];
                        while let Ok(n @ 1..) = stream.read(&mut buffer) {
                            if stream.write_all(&buffer[..n]).is_err() {
                                return;
                            }
                        }
                        let _ = stream.shutdown(Shutdown::Both);
                    });
                }
            });
        });
    }

    /// Deletes the rules of an nftables chain that contain `text`.
    pub(crate) fn delete_rules(&self, table: &str, chain: &str, text: &str) {
        let listing = self.nft(&format!("-a list chain inet {table} {chain}"));
        let mut deleted = 0;
        for line in listing.lines().filter(|l| l.contains(text) && !l.contains("hook ")) {
            let handle = line.rsplit("# handle ").next().unwrap();
            self.nft(&format!("delete rule inet {table} {chain} handle {handle}"));
            deleted += 1;
        }
        assert!(deleted > 0, "no rule with {text:?} in {listing}");
    }

    /// Sends a segment through a raw socket.
    pub(crate) fn inject(&self, segment: &Segment) {
        let segment = segment.clone();
        self.run(move || {
            let packet = segment.packet();
            let (family, to) = match segment.destination {
                SocketAddr::V4(a) => (AddressFamily::Inet, SockaddrStorage::from(a)),
                SocketAddr::V6(a) => (
                    AddressFamily::Inet6,
                    SockaddrStorage::from(std::net::SocketAddrV6::new(*a.ip(), 0, 0, 0)),
                ),
            };
            let fd = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw).unwrap();
            let sent = sendto(fd.as_raw_fd(), &packet, &to, MsgFlags::empty()).unwrap();
            assert_eq!(sent, packet.len());
        });
    }

    /// Captures all packets, received and sent.
    pub(crate) fn tap(&self) -> Tap {
        self.run(|| {
            let fd = socket(
                AddressFamily::Packet,
                SockType::Datagram,
                SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
                SockProtocol::EthAll,
            )
            .unwrap();
            setsockopt(&fd, sockopt::RcvBuf, &(4 << 20)).unwrap();
            Tap { fd, without: Vec::new() }
        })
    }

    pub(crate) fn index(&self, device: &str) -> usize {
        let text = self.ip(&format!("link show {device}"));
        text.split(':').next().unwrap().trim().parse().unwrap()
    }

    /// Sets up paths.
    pub(crate) fn set_up(&self, specs: &[&str], options: &SetupOptions) -> Result<PathSet, DriverError> {
        let specs: Vec<String> = specs.iter().map(|s| (*s).to_owned()).collect();
        let options = options.clone().record_directory(self.records.clone());
        self.run(move || {
            let specs = specs.iter().map(|s| s.parse()).collect::<Result<Vec<PathSpec>, _>>()?;
            set_up(&specs, &options)
        })
    }
}

impl Drop for Ns {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_dir_all(&self.records);
    }
}

/// Reads a kernel setting in a single read: a list of ports would be truncated after the first.
fn read_setting(path: &Path) -> std::io::Result<String> {
    let mut buffer = vec![0; 65536];
    let length = std::fs::File::open(path)?.read(&mut buffer)?;
    buffer.truncate(length);
    Ok(String::from_utf8(buffer).unwrap())
}

/// Waits for `condition`.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Options for tests: plain packets, without the virtio header.
pub(crate) fn options() -> SetupOptions {
    SetupOptions::default().offload(Offload::Off)
}

fn readable(fd: &impl AsFd, until: Instant) -> bool {
    let left = until.saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout).unwrap() > 0
}

/// A TCP segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Segment {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) sequence: u32,
    pub(crate) acknowledgment: u32,
    pub(crate) flags: String,
    pub(crate) payload: Vec<u8>,
}

impl Segment {
    /// The segment in an IP packet, `None` if it is something else.
    pub(crate) fn parse(packet: &[u8]) -> Option<Segment> {
        let sliced = SlicedPacket::from_ip(packet).ok()?;
        let (source, destination): (IpAddr, IpAddr) = match sliced.net? {
            NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            NetSlice::Arp(_) => return None,
        };
        let TransportSlice::Tcp(tcp) = sliced.transport? else { return None };
        let mut flags = String::new();
        for (set, letter) in
            [(tcp.syn(), 'S'), (tcp.fin(), 'F'), (tcp.rst(), 'R'), (tcp.psh(), 'P'), (tcp.ack(), 'A')]
        {
            if set {
                flags.push(letter);
            }
        }
        Some(Segment {
            source: (source, tcp.source_port()).into(),
            destination: (destination, tcp.destination_port()).into(),
            sequence: tcp.sequence_number(),
            acknowledgment: tcp.acknowledgment_number(),
            flags,
            payload: tcp.payload().to_vec(),
        })
    }

    pub(crate) fn packet(&self) -> Vec<u8> {
        let ip = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => PacketBuilder::ipv4(a.octets(), b.octets(), 64),
            (IpAddr::V6(a), IpAddr::V6(b)) => PacketBuilder::ipv6(a.octets(), b.octets(), 64),
            _ => panic!("mixed families"),
        };
        let mut tcp = ip.tcp(self.source.port(), self.destination.port(), self.sequence, 65000);
        for flag in self.flags.chars() {
            tcp = match flag {
                'S' => tcp.syn(),
                'F' => tcp.fin(),
                'R' => tcp.rst(),
                'P' => tcp.psh(),
                'A' => tcp.ack(self.acknowledgment),
                _ => panic!("unknown flag"),
            };
        }
        let mut packet = vec![0; tcp.size(self.payload.len())];
        tcp.write_to_slice(&mut packet, &self.payload).unwrap();
        packet
    }
}

/// Captures the packets of a namespace.
pub(crate) struct Tap {
    fd: OwnedFd,
    /// Devices whose packets are ignored.
    pub(crate) without: Vec<usize>,
}

impl Tap {
    /// The next packet, with the index of its device.
    fn next(&self, until: Instant) -> Option<(usize, Vec<u8>)> {
        let mut buffer = vec![0; 66000];
        loop {
            if !readable(&self.fd, until) {
                return None;
            }
            let Ok((n, from)) = recvfrom::<LinkAddr>(self.fd.as_raw_fd(), &mut buffer) else { continue };
            let index = from.map_or(0, |a| a.ifindex());
            return Some((index, buffer[..n].to_vec()));
        }
    }

    /// Waits for a segment that satisfies `wanted`. Also returns its device's index.
    pub(crate) fn find(&self, wait: Duration, wanted: impl Fn(&Segment) -> bool) -> Option<(usize, Segment)> {
        let until = Instant::now() + wait;
        while let Some((index, packet)) = self.next(until) {
            if self.without.contains(&index) {
                continue;
            }
            if let Some(segment) = Segment::parse(&packet).filter(&wanted) {
                return Some((index, segment));
            }
        }
        None
    }

    /// Discards what has been captured so far.
    pub(crate) fn clear(&self) {
        let mut buffer = [0; 64];
        while nix::sys::socket::recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).is_ok() {}
    }
}

/// Sends a segment into a TUN device.
pub(crate) fn send(tun: &Tun, segment: &Segment) {
    send_raw(tun, &segment.packet());
}

/// Sends a packet into a TUN device.
pub(crate) fn send_raw(tun: &Tun, packet: &[u8]) {
    assert_eq!(nix::unistd::write(tun.as_fd(), packet).unwrap(), packet.len());
}

/// The next packet out of a TUN device.
pub(crate) fn receive_raw(tun: &Tun, until: Instant) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 66000];
    while readable(tun, until) {
        match nix::unistd::read(tun.as_fd(), &mut buffer) {
            Ok(n) => return Some(buffer[..n].to_vec()),
            Err(nix::errno::Errno::EAGAIN) => {}
            Err(error) => panic!("{error}"),
        }
    }
    None
}

/// Waits for a segment from a TUN device that satisfies `wanted`.
pub(crate) fn receive(tun: &Tun, wait: Duration, wanted: impl Fn(&Segment) -> bool) -> Option<Segment> {
    let until = Instant::now() + wait;
    while let Some(packet) = receive_raw(tun, until) {
        if let Some(segment) = Segment::parse(&packet).filter(&wanted) {
            return Some(segment);
        }
    }
    None
}

/// A minimal TCP endpoint at a TUN device, for tests.
pub(crate) struct Flow<'a> {
    pub(crate) tun: &'a Tun,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) sequence: u32,
    pub(crate) acknowledgment: u32,
}

impl<'a> Flow<'a> {
    pub(crate) fn segment(&self, flags: &str, payload: &[u8]) -> Segment {
        Segment {
            source: self.local,
            destination: self.remote,
            sequence: self.sequence,
            acknowledgment: self.acknowledgment,
            flags: flags.into(),
            payload: payload.into(),
        }
    }

    fn send(&mut self, flags: &str, payload: &[u8]) {
        send(self.tun, &self.segment(flags, payload));
        let extra = u32::from(flags.contains('S')) + u32::from(flags.contains('F'));
        self.sequence = self.sequence.wrapping_add(payload.len() as u32 + extra);
    }

    fn receive(&mut self, what: &str, wanted: impl Fn(&Segment) -> bool) -> Segment {
        let answer = self.next(PATIENCE, wanted);
        answer.unwrap_or_else(|| panic!("{} did not answer {} with {what}", self.remote, self.local))
    }

    /// The next segment of this flow that satisfies `wanted`.
    fn next(&mut self, wait: Duration, wanted: impl Fn(&Segment) -> bool) -> Option<Segment> {
        let (local, remote) = (self.local, self.remote);
        let mine = |s: &Segment| s.source == remote && s.destination == local;
        let segment = receive(self.tun, wait, |s| mine(s) && wanted(s))?;
        let extra = u32::from(segment.flags.contains('S')) + u32::from(segment.flags.contains('F'));
        self.acknowledgment = segment.sequence.wrapping_add(segment.payload.len() as u32 + extra);
        Some(segment)
    }

    /// Sends a SYN; `None` if nothing answers it.
    pub(crate) fn try_connect(
        tun: &'a Tun,
        local: SocketAddr,
        remote: SocketAddr,
        wait: Duration,
    ) -> Option<Flow<'a>> {
        let mut flow = Flow { tun, local, remote, sequence: 1000, acknowledgment: 0 };
        flow.send("S", &[]);
        let answer =
            receive(tun, wait, |s| s.source == remote && s.destination == local && s.flags.starts_with('S'))?;
        flow.acknowledgment = answer.sequence.wrapping_add(1);
        flow.send("A", &[]);
        Some(flow)
    }

    /// Connects from the path's side. Like any TCP it repeats the SYN: a device that has just come up may
    /// drop packets until the kernel has activated its queue, later than it says that it is up.
    pub(crate) fn connect(tun: &'a Tun, local: (IpAddr, u16), remote: &str) -> Flow<'a> {
        let (local, remote) = (SocketAddr::from(local), remote.parse().unwrap());
        (0..PATIENCE.as_secs())
            .find_map(|_| Flow::try_connect(tun, local, remote, Duration::from_secs(1)))
            .unwrap_or_else(|| panic!("{remote} does not answer {local}"))
    }

    /// Accepts a connection to `port` of the path's address.
    pub(crate) fn accept(tun: &'a Tun, port: u16) -> Flow<'a> {
        let syn = receive(tun, PATIENCE, |s| s.destination.port() == port && s.flags == "S")
            .expect("nobody connects");
        let mut flow = Flow {
            tun,
            local: syn.destination,
            remote: syn.source,
            sequence: 7000,
            acknowledgment: syn.sequence.wrapping_add(1),
        };
        flow.send("SA", &[]);
        flow.receive("an ACK", |s| s.flags.contains('A') && !s.flags.contains('S'));
        flow
    }

    /// Sends data and receives it back from an echo server. Repeats it while nothing comes back, as a TCP
    /// does.
    pub(crate) fn echo(&mut self, text: &str) {
        let data = self.segment("PA", text.as_bytes());
        self.sequence = self.sequence.wrapping_add(text.len() as u32);
        let expected = self.acknowledgment;
        let answer = (0..PATIENCE.as_secs()).find_map(|_| {
            send(self.tun, &data);
            self.next(Duration::from_secs(1), |s| !s.payload.is_empty() && s.sequence == expected)
        });
        let answer = answer.unwrap_or_else(|| panic!("{} did not echo to {}", self.remote, self.local));
        assert_eq!(answer.payload, text.as_bytes());
        self.send("A", &[]);
    }

    /// Echoes what arrives.
    pub(crate) fn answer(&mut self) -> Vec<u8> {
        let payload = self.receive("data", |s| !s.payload.is_empty()).payload;
        self.send("PA", &payload);
        payload
    }
}

/// Connects to an echo server from a namespace with a kernel socket, and exchanges one line.
pub(crate) fn echo_client(ns: &Ns, remote: &str) -> JoinHandle<()> {
    let remote: SocketAddr = remote.parse().unwrap();
    ns.run(move || {
        std::thread::spawn(move || {
            let mut stream = TcpStream::connect_timeout(&remote, PATIENCE).expect("connection to the path");
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(b"hello").unwrap();
            let mut buffer = [0; 5];
            stream.read_exact(&mut buffer).unwrap();
            assert_eq!(&buffer, b"hello");
        })
    })
}

/// A client and a server with two NICs each, in two subnets. Each NIC has a default route via the server, the
/// first one with the lower metric. The server also has the addresses 192.0.2.9 and 2001:db8:9::9.
pub(crate) struct TestNetwork {
    pub(crate) client: Ns,
    pub(crate) server: Ns,
}

impl TestNetwork {
    pub(crate) fn new() -> TestNetwork {
        let (client, server) = (Ns::new(), Ns::new());
        for n in 0..2 {
            let device = format!("eth{n}");
            client.link(&device, &server, &device);
            client.address(&device, &format!("10.{n}.0.2/24"));
            client.address(&device, &format!("2001:db8:a{n}::2/64"));
            server.address(&device, &format!("10.{n}.0.1/24"));
            server.address(&device, &format!("2001:db8:a{n}::1/64"));
            let metric = 100 * (n + 1);
            client.ip(&format!("route add default via 10.{n}.0.1 metric {metric}"));
            client.ip(&format!("route add default via 2001:db8:a{n}::1 metric {metric}"));
        }
        server.address("lo", "192.0.2.9/32");
        server.address("lo", "2001:db8:9::9/128");
        TestNetwork { client, server }
    }
}

/// Checks that a namespace has been restored ([`Ns::state`]).
///
/// Programs started by other tests hold copies of all descriptors until they exec, so a device or socket may
/// outlive its last owner for a moment.
pub(crate) fn assert_unchanged(ns: &Ns, before: &str) {
    let start = Instant::now();
    loop {
        let after = ns.state();
        let missing = |a: &str, b: &str, sign: char| {
            let other: Vec<&str> = b.lines().collect();
            a.lines().filter(|l| !other.contains(l)).map(|l| format!("{sign} {l}\n")).collect::<String>()
        };
        let difference = missing(before, &after, '-') + &missing(&after, before, '+');
        if difference.is_empty() {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(2), "left behind:\n{difference}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

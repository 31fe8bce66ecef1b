//! Captured connections, sent on by the worker: a program's stack, the one between, and a server's.
#![cfg(all(target_os = "linux", not(umptcp_portable)))]

mod common;

use common::{PipeDevice, captured_program, path, pattern, wait_for};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use umptcp::{
    ConnectionConfig, Counter, Direction, Forwarder, KeepAlive, MptcpListener, MptcpStream, PathId, Stack,
    Traffic,
};

const PROGRAM: &str = "192.168.7.5";
const SERVER: &str = "10.0.0.2:80";

/// A program whose packets are captured, the stack that captures them, and a server that two links lead to.
struct World {
    program: Stack,
    between: Stack,
    server: Stack,
    /// The links to the server. Where `true`, packets are lost.
    cut: Vec<Arc<AtomicBool>>,
}

impl World {
    fn new() -> World {
        let (program, captured) = captured_program(PROGRAM);
        let (mut between, mut server) = (Stack::builder().path(captured), Stack::builder());
        let mut cut = Vec::new();
        for n in 0..2 {
            let (x, y) = PipeDevice::pair();
            cut.push(x.cut.clone());
            between = between.path(path(&format!("out{n}"), &format!("10.{n}.0.1"), x));
            server = server.path(path(&format!("s{n}"), &format!("10.{n}.0.2"), y));
        }
        World { program, between: between.start().unwrap(), server: server.start().unwrap(), cut }
    }

    fn path(&self, name: &str) -> PathId {
        self.between.paths().unwrap().iter().find(|p| p.name == name).unwrap().id
    }

    fn outward(&self) -> Forwarder {
        Forwarder::outward(&self.between, self.path("capture"), ConnectionConfig::default()).unwrap()
    }

    fn inward(&self) -> Forwarder {
        let inside: IpAddr = PROGRAM.parse().unwrap();
        let config = ConnectionConfig::default();
        Forwarder::inward(&self.between, self.path("capture"), [inside], config).unwrap()
    }

    /// A program's plain TCP.
    fn dial(&self, remote: &str) -> std::io::Result<MptcpStream> {
        let limit = Duration::from_secs(20);
        MptcpStream::builder(&self.program).mptcp(false).connect_timeout(limit).connect(remote)
    }
}

/// Sends `up` one way and `down` the other, both with their ends.
fn exchange(client: &MptcpStream, server: &MptcpStream, up: &[u8], down: &[u8]) {
    std::thread::scope(|s| {
        for (mut stream, data) in [(client, up), (server, down)] {
            s.spawn(move || {
                stream.write_all(data).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
            });
        }
        for (mut stream, data) in [(client, down), (server, up)] {
            s.spawn(move || {
                let mut got = Vec::new();
                stream.read_to_end(&mut got).unwrap();
                assert!(got == *data, "every byte, in order");
            });
        }
    });
}

#[test]
fn a_plain_connection_becomes_mptcp_over_every_path() {
    let w = World::new();
    let forwarder = w.outward();
    let listener = w.server.listen(SERVER).unwrap();
    let client = w.dial(SERVER).unwrap();
    let (server, _) = listener.accept().unwrap();
    assert!(server.protocol().unwrap().is_mptcp());
    (&client).write_all(b"x").unwrap();
    (&server).read_exact(&mut [0]).unwrap();
    (&server).write_all(b"y").unwrap();
    (&client).read_exact(&mut [0]).unwrap();
    wait_for(|| server.subflows().unwrap().len() >= 2);
    let now = forwarder.connections().unwrap();
    assert!(matches!(&now[..], [c] if c.mptcp == Some(Ok(())) && (c.up, c.down) == (1, 1)), "{now:?}");
    exchange(&client, &server, &pattern(16 << 20, 1), &pattern(8 << 20, 2));
    let peer = client.local_addr().unwrap();
    drop((client, server));
    wait_for(|| forwarder.summary().ended == 1);
    let summary = forwarder.summary();
    assert_eq!((summary.captured, summary.joined, summary.mptcp), (1, 1, 1));
    assert_eq!((summary.up, summary.down), ((16 << 20) + 1, (8 << 20) + 1));
    let last = &summary.last[0];
    assert_eq!((last.direction, last.client, last.server), (Direction::Out, peer, SERVER.parse().unwrap()));
    assert_eq!(last.failed, None);
    let traffic = w.between.traffic().unwrap();
    let of = |name: &str| traffic[name];
    assert_eq!((of("capture").received, of("capture").sent), (summary.up, summary.down));
    // What was sent again over the other path counts for both.
    assert!(of("out0").sent + of("out1").sent >= summary.up && of("out1").sent > 0, "{traffic:?}");
    wait_for(|| w.between.connections().unwrap().is_empty());
}

#[test]
fn a_server_without_mptcp_gets_tcp_and_the_summary_says_why() {
    let w = World::new();
    let forwarder = w.outward();
    let listener = MptcpListener::builder(&w.server).mptcp(false).listen(SERVER).unwrap();
    let client = w.dial(SERVER).unwrap();
    let (server, _) = listener.accept().unwrap();
    exchange(&client, &server, b"question", b"answer");
    drop((client, server));
    wait_for(|| forwarder.summary().ended == 1);
    let summary = forwarder.summary();
    let reasons: Vec<_> = summary.tcp.into_iter().collect();
    assert!(matches!(&reasons[..], [(why, 1)] if !why.is_empty()), "{reasons:?}");
    assert_eq!(summary.mptcp, 0);
}

#[test]
fn connections_are_told_apart_by_what_tags_them() {
    let w = World::new();
    let forwarder = w.outward();
    // Even ports of the client have the tag 0, odd ones 1; those to another server have none.
    let to = |port: u16| format!("10.0.0.2:{port}");
    forwarder.tag_by(|client, server| (server.port() < 90).then_some(u64::from(client.port() % 2))).unwrap();
    assert_eq!(forwarder.counted(0).unwrap(), None);
    (0..2).for_each(|tag| forwarder.count(tag));
    let listeners = [80, 90].map(|port| w.server.listen(&*to(port)).unwrap());
    let mut expected = [0, 0];
    for port in [80, 90, 80, 90, 80] {
        let client = w.dial(&to(port)).unwrap();
        let (server, _) = listeners[usize::from(port == 90)].accept().unwrap();
        let tag = client.local_addr().unwrap().port() % 2;
        let open = forwarder.counted(u64::from(tag)).unwrap().unwrap().open;
        assert_eq!(open.len(), usize::from(port == 80));
        exchange(&client, &server, b"question", b"answer");
        expected[usize::from(tag)] += u64::from(port == 80);
    }
    wait_for(|| forwarder.summary().ended == 5);
    // One that is refused.
    w.dial(&to(81)).unwrap_err();
    let counted = [0, 1].map(|tag| forwarder.counted(tag).unwrap().unwrap());
    for (counted, expected) in counted.iter().zip(expected) {
        // Whatever has ended by now, and by whichever path it went; what was sent again counts again.
        let sums = [|t: &Traffic| t.sent, |t: &Traffic| t.received];
        let sums = sums.map(|part| counted.carried.values().map(part).sum::<u64>());
        assert!(sums[0] >= 8 * expected && sums[1] >= 6 * expected, "{counted:?}");
        assert!(counted.carried.keys().all(|name| name.starts_with("out")), "{counted:?}");
    }
    let counted = counted.map(|counted| counted.summary);
    for (counted, expected) in counted.iter().zip(expected) {
        assert_eq!((counted.ended, counted.joined, counted.mptcp), (expected, expected, expected));
        assert_eq!((counted.up, counted.down), (8 * expected, 6 * expected));
    }
    assert_eq!(counted.iter().map(|c| c.failed.len()).sum::<usize>(), 1);
    assert_eq!(counted.iter().map(|c| c.captured).sum::<u64>(), 4);
    forwarder.stop_counting(0);
    assert_eq!(forwarder.counted(0).unwrap(), None);
}

#[test]
fn a_program_that_asks_for_mptcp_gets_it() {
    let w = World::new();
    let _forwarder = w.outward();
    let listener = w.server.listen(SERVER).unwrap();
    let client = w.program.connect(SERVER).unwrap();
    let (server, _) = listener.accept().unwrap();
    assert!(client.protocol().unwrap().is_mptcp());
    exchange(&client, &server, &pattern(1 << 20, 1), &pattern(1 << 20, 2));
}

#[test]
fn a_refusal_reaches_the_program() {
    let w = World::new();
    let forwarder = w.outward();
    // A listener of the stack is for those outside: where the program wants to go is another host.
    let _own = w.between.listen("0.0.0.0:80").unwrap();
    assert_eq!(w.dial(SERVER).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(forwarder.summary().failed.values().sum::<u64>(), 1);
    assert!(w.between.connections().unwrap().is_empty());
}

/// The first path does not answer: the second is tried beside it.
#[test]
fn a_silent_path_holds_nothing_up() {
    let w = World::new();
    let forwarder = w.outward();
    let listener = w.server.listen("0.0.0.0:80").unwrap();
    w.cut[0].store(true, Ordering::Relaxed);
    let client = w.dial("10.1.0.2:80").unwrap();
    drop((client, listener.accept().unwrap()));
    wait_for(|| forwarder.summary().ended == 1);
    assert!(forwarder.summary().failed.is_empty());
}

/// The other path leads to the same peer, and would wait for its answer for minutes.
#[test]
fn a_refusal_by_one_path_is_the_peers() {
    let w = World::new();
    let forwarder = w.outward();
    w.cut[0].store(true, Ordering::Relaxed);
    assert_eq!(w.dial("10.1.0.2:80").unwrap_err().kind(), ErrorKind::ConnectionRefused);
    wait_for(|| w.between.connections().unwrap().is_empty());
    assert_eq!(forwarder.summary().joined, 0);
}

/// Nobody answers: nor do we. When the program gives up, nothing is left of it.
#[test]
fn silence_passes_and_whoever_gives_up_is_forgotten() {
    let w = World::new();
    let forwarder = w.outward();
    w.cut.iter().for_each(|cut| cut.store(true, Ordering::Relaxed));
    let dial = MptcpStream::builder(&w.program).mptcp(false).connect_timeout(Duration::from_secs(1));
    let start = Instant::now();
    assert_eq!(dial.connect(SERVER).unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(start.elapsed() >= Duration::from_secs(1), "no answer of our own");
    assert_eq!(forwarder.summary().joined, 0);
    drop(forwarder);
    wait_for(|| w.between.connections().unwrap().is_empty());
}

#[test]
fn a_reset_passes_each_way() {
    let w = World::new();
    let forwarder = w.outward();
    let listener = w.server.listen(SERVER).unwrap();
    for by_client in [true, false] {
        let client = w.dial(SERVER).unwrap();
        let (server, _) = listener.accept().unwrap();
        (&client).write_all(b"x").unwrap();
        (&server).read_exact(&mut [0]).unwrap();
        let (ends, other) = if by_client { (client, server) } else { (server, client) };
        ends.abort();
        assert_eq!((&other).read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    wait_for(|| forwarder.summary().ended == 2);
    assert!(forwarder.summary().last.iter().all(|c| c.failed.is_some()));
}

/// A reader that stops is felt by the writer at the other end, and no more than the buffers is held.
/// A program that asks whether its peer lives is not content with our word.
#[test]
fn keep_alive_probes_pass_each_way() {
    let w = World::new();
    let _forwarders = (w.outward(), w.inward());
    let probed = |stack: &Stack| stack.counters().unwrap().get(Counter::TcpChallengeAck);
    let listener = w.server.listen(SERVER).unwrap();
    let out = w.dial(SERVER).unwrap();
    let (server, _) = listener.accept().unwrap();
    let listener = w.program.listen((PROGRAM, 80)).unwrap();
    let client = w.server.connect(("10.0.0.1", 80)).unwrap();
    let (inside, _) = listener.accept().unwrap();
    let often = KeepAlive::default().with_idle(Duration::from_secs(1));
    let before = [probed(&w.server), probed(&w.program)];
    out.set_keep_alive(Some(often)).unwrap();
    wait_for(|| probed(&w.server) > before[0]);
    client.set_keep_alive(Some(often)).unwrap();
    wait_for(|| probed(&w.program) > before[1]);
    drop((out, server, client, inside));
}

#[test]
fn a_reader_that_stops_holds_the_writer_back() {
    let w = World::new();
    let _forwarder = w.outward();
    let listener = MptcpListener::builder(&w.server).receive_buffer(256 << 10).listen(SERVER).unwrap();
    let client = w.dial(SERVER).unwrap();
    let (server, _) = listener.accept().unwrap();
    let data = pattern(96 << 20, 3);
    let mut sent = 0;
    client.set_write_timeout(Some(Duration::from_millis(700))).unwrap();
    while let Ok(n) = (&client).write(&data[sent..]) {
        sent += n;
    }
    client.set_write_timeout(None).unwrap();
    assert!(sent < 48 << 20, "{sent} bytes of 96 MB were taken");
    std::thread::scope(|s| {
        s.spawn(|| {
            (&client).write_all(&data[sent..]).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        });
        let mut got = Vec::new();
        (&server).read_to_end(&mut got).unwrap();
        assert!(got == data);
    });
}

#[test]
fn a_server_inside_is_reached_at_its_port_and_sees_its_client() {
    let w = World::new();
    let forwarder = w.inward();
    // On a port of its own, the stack between serves itself.
    let own = w.between.listen("0.0.0.0:22").unwrap();
    let listener = MptcpListener::builder(&w.program).mptcp(false).listen((PROGRAM, 8080)).unwrap();
    let client = w.server.connect("10.0.0.1:8080").unwrap();
    assert!(client.protocol().unwrap().is_mptcp());
    let (server, from) = listener.accept().unwrap();
    assert_eq!(from, client.local_addr().unwrap());
    exchange(&client, &server, &pattern(2 << 20, 1), &pattern(2 << 20, 2));
    assert_eq!(w.server.connect("10.0.0.1:8081").unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let to_own = w.server.connect("10.0.0.1:22").unwrap();
    assert_eq!(own.accept().unwrap().1, to_own.local_addr().unwrap());
    drop((client, server));
    wait_for(|| forwarder.summary().ended == 1);
    let summary = forwarder.summary();
    let last = &summary.last[0];
    assert_eq!((last.direction, last.mptcp), (Direction::In, Some(Ok(()))));
    assert_eq!(last.server, "10.0.0.1:8080".parse::<SocketAddr>().unwrap());
}

/// Dead destinations hold up nobody, and are bounded in number.
#[test]
fn dials_to_the_dead_leave_room_for_the_living() {
    let w = World::new();
    let forwarder = w.outward();
    let listener = w.server.listen(SERVER).unwrap();
    let limit = Duration::from_millis(300);
    std::thread::scope(|s| {
        for n in 0..20 {
            let program = &w.program;
            s.spawn(move || {
                let dial = MptcpStream::builder(program).mptcp(false).connect_timeout(limit);
                assert!(dial.connect(format!("203.0.113.{n}:9")).is_err());
            });
        }
        drop((w.dial(SERVER).unwrap(), listener.accept().unwrap()));
    });
    wait_for(|| forwarder.summary().ended == 1);
}

#[test]
fn two_forwarders_cannot_capture_the_same() {
    let w = World::new();
    let first = w.outward();
    let second = Forwarder::outward(&w.between, w.path("capture"), ConnectionConfig::default());
    assert_eq!(second.unwrap_err().kind(), ErrorKind::AddrInUse);
    drop(first);
    let _second = w.outward();
}

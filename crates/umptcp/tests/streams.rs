//! Streams and listeners between two stacks in one process.
#![cfg(all(target_os = "linux", not(umptcp_portable)))]

mod common;

use bytes::Bytes;
use common::{PipeDevice, path, pattern, two_stacks, wait_for};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use umptcp::{
    ConnectionState, Counter, FallbackReason, MptcpListener, MptcpStream, Observation, Observer, Protocol,
    Stack,
};

const SERVER: &str = "10.0.0.2:80";

/// Both ends of a connection between the two.
fn connected(a: &Stack, b: &Stack) -> (MptcpStream, MptcpStream) {
    let listener = b.listen(SERVER).unwrap();
    let client = a.connect(SERVER).unwrap();
    let (server, from) = listener.accept().unwrap();
    assert_eq!(from, client.local_addr().unwrap());
    assert_eq!(server.local_addr().unwrap(), client.peer_addr().unwrap());
    (client, server)
}

#[test]
fn both_directions_at_once_over_two_paths() {
    let (a, b) = two_stacks(2, |s| s);
    let (client, server) = connected(&a, &b);
    assert!(client.protocol().unwrap().is_mptcp());
    // Joins start once the server is known to have both keys, as shown by its first DATA_ACK (RFC 8684 §3.1).
    (&client).write_all(b"x").unwrap();
    (&server).read_exact(&mut [0]).unwrap();
    wait_for(|| client.subflows().unwrap().len() >= 2);
    std::thread::scope(|scope| {
        for (stream, seed) in [(&client, 1), (&server, 2)] {
            scope.spawn(move || {
                let data = pattern(32 << 20, seed);
                let mut stream = stream;
                stream.write_all(&data).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
            });
            scope.spawn(move || {
                let mut got = Vec::new();
                let mut stream = stream;
                stream.read_to_end(&mut got).unwrap();
                assert!(got == pattern(32 << 20, 3 - seed), "every byte, in order");
            });
        }
    });
    wait_for(|| client.info().unwrap().state == ConnectionState::Closed);
    let info = client.info().unwrap();
    assert_eq!((info.bytes_acked, info.error), ((32 << 20) + 1, None));
    assert!(client.protocol().unwrap().is_mptcp(), "known after the end, too");
}

#[test]
fn algorithms_are_changed_while_data_flow() {
    let (a, b) = two_stacks(2, |s| s);
    let (client, server) = connected(&a, &b);
    let names = |stream: &MptcpStream| {
        let info = stream.info().unwrap();
        (info.congestion, info.scheduler)
    };
    assert_eq!(names(&client), ("lia".to_owned(), "min-rtt".to_owned()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut got = Vec::new();
            (&server).read_to_end(&mut got).unwrap();
            assert!(got == pattern(8 << 20, 5), "every byte, in order");
        });
        let data = pattern(8 << 20, 5);
        for (piece, (congestion, scheduler)) in data.chunks(2 << 20).zip([
            ("cubic", "round-robin"),
            ("olia", "min-rtt"),
            ("reno", "round-robin"),
            ("lia", "min-rtt"),
        ]) {
            (&client).write_all(piece).unwrap();
            client.set_congestion(congestion).unwrap();
            client.set_scheduler(scheduler).unwrap();
            assert_eq!(names(&client), (congestion.to_owned(), scheduler.to_owned()));
        }
        client.shutdown(Shutdown::Write).unwrap();
    });
    for (error, known) in [
        (client.set_congestion("fastest").unwrap_err(), "cubic"),
        (client.set_scheduler("best").unwrap_err(), "min-rtt"),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(known), "{error}");
    }
    assert_eq!(names(&client), ("lia".to_owned(), "min-rtt".to_owned()), "as it was");
    assert_eq!(names(&server), ("lia".to_owned(), "min-rtt".to_owned()), "each end has its own");
}

#[test]
fn bytes_cross_without_copies_in_the_library() {
    let (a, b) = two_stacks(1, |s| s);
    let (client, server) = connected(&a, &b);
    let data: Bytes = pattern(4 << 20, 7).into();
    let sent = data.clone();
    let sender = std::thread::spawn(move || {
        for piece in sent.chunks(300_000) {
            client.send_bytes(sent.slice_ref(piece)).unwrap();
        }
    });
    let mut got = Vec::new();
    loop {
        let bytes = server.recv_bytes().unwrap();
        if bytes.is_empty() {
            break;
        }
        got.extend_from_slice(&bytes);
    }
    sender.join().unwrap();
    assert!(got == data);
}

#[test]
fn single_bytes_go_to_and_fro() {
    for busy_poll in [Duration::ZERO, Duration::from_micros(50)] {
        let (a, b) = two_stacks(1, |s| s.busy_poll(busy_poll));
        let (mut client, mut server) = connected(&a, &b);
        let echo = std::thread::spawn(move || {
            let mut byte = [0];
            while server.read(&mut byte).unwrap() == 1 {
                server.write_all(&byte).unwrap();
            }
        });
        for i in 0..2000u32 {
            let mut byte = [i as u8];
            client.write_all(&byte).unwrap();
            client.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [i as u8]);
        }
        drop(client);
        echo.join().unwrap();
    }
}

#[test]
fn mptcp_can_be_switched_off_at_either_end() {
    let (a, b) = two_stacks(2, |s| s);
    let plain = MptcpListener::builder(&b).mptcp(false).listen("0.0.0.0:1").unwrap();
    let multi = MptcpListener::builder(&b).listen("0.0.0.0:2").unwrap();
    let off = FallbackReason::Disabled;
    for (port, mptcp, client_says, server_says) in [
        (1, true, Some(FallbackReason::NoOptionInSynAck), Some(off)),
        (2, false, Some(off), Some(FallbackReason::NoOptionInSyn)),
        (2, true, None, None),
    ] {
        let client = MptcpStream::builder(&a).mptcp(mptcp).connect(("10.0.0.2", port)).unwrap();
        let listener = if port == 1 { &plain } else { &multi };
        let (server, _) = listener.accept().unwrap();
        (&client).write_all(b"hello").unwrap();
        let mut got = [0; 5];
        (&server).read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
        for (stream, says) in [(&client, client_says), (&server, server_says)] {
            match (stream.protocol().unwrap(), says) {
                (Protocol::Mptcp { since }, None) => {
                    assert!(since.elapsed().unwrap() < Duration::from_secs(60))
                }
                (Protocol::Tcp { reason }, Some(expected)) => assert_eq!(reason, expected),
                (status, expected) => panic!("{status:?}, not {expected:?}"),
            }
        }
    }
}

#[test]
fn dropping_a_stream_still_delivers_what_was_written() {
    let (a, b) = two_stacks(1, |s| s);
    let (mut client, mut server) = connected(&a, &b);
    let data = pattern(6 << 20, 5);
    // Nobody reads yet, so that an automatic buffer need not become as large.
    client.set_send_buffer(8 << 20).unwrap();
    client.write_all(&data).unwrap();
    drop(client);
    let mut got = Vec::new();
    server.read_to_end(&mut got).unwrap();
    assert!(got == data);
}

#[test]
fn dropping_the_stack_still_delivers_what_was_written() {
    for keep_stream in [false, true] {
        let (a, b) = two_stacks(1, |s| s);
        let (mut client, mut server) = connected(&a, &b);
        let data = pattern(6 << 20, 5);
        // Nobody reads yet, so that an automatic buffer need not become as large.
        client.set_send_buffer(8 << 20).unwrap();
        client.write_all(&data).unwrap();
        let kept = keep_stream.then(|| client.try_clone().unwrap());
        drop(client);
        let reader = std::thread::spawn(move || {
            let mut got = Vec::new();
            server.read_to_end(&mut got).map(|_| got)
        });
        let start = Instant::now();
        drop(a);
        assert!(start.elapsed() < Duration::from_millis(2500), "no linger without need");
        assert!(reader.join().unwrap().unwrap() == data);
        if let Some(mut kept) = kept {
            assert!(kept.write(b"x").is_err());
            assert!(kept.read(&mut [0]).is_err());
            assert!(kept.protocol().is_err() || kept.info().is_ok());
        }
    }
}

#[test]
fn a_stack_that_cannot_deliver_gives_up_after_the_linger_time() {
    let (x, y) = PipeDevice::pair();
    let cut = x.cut.clone();
    let a =
        Stack::builder().linger(Duration::from_millis(300)).path(path("a", "10.0.0.1", x)).start().unwrap();
    let b = Stack::builder().path(path("b", "10.0.0.2", y)).start().unwrap();
    let (mut client, _server) = connected(&a, &b);
    cut.store(true, Ordering::Relaxed);
    client.write_all(&[0; 1000]).unwrap();
    let blocked = std::thread::spawn(move || client.read(&mut [0]).unwrap_err().kind());
    let start = Instant::now();
    drop(a);
    let took = start.elapsed();
    assert!((Duration::from_millis(290)..Duration::from_secs(2)).contains(&took), "{took:?}");
    assert_eq!(blocked.join().unwrap(), ErrorKind::ConnectionAborted);
}

#[test]
fn errors_have_kinds_and_say_what_is_wrong() {
    let (a, b) = two_stacks(1, |s| s);
    let refused = a.connect("10.0.0.2:9").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(refused.to_string().contains("10.0.0.2:9"), "{refused}");
    assert_eq!(a.connect("[2001:db8::1]:9").unwrap_err().kind(), ErrorKind::NetworkUnreachable);
    let unknown = MptcpStream::builder(&a).congestion("nosuch").connect(SERVER).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::InvalidInput);
    assert!(unknown.to_string().contains("cubic"), "names what there is: {unknown}");
    let unknown = MptcpListener::builder(&b).scheduler("nosuch").listen(SERVER).unwrap_err();
    assert!(unknown.to_string().contains("min-rtt"), "{unknown}");
    let _first = b.listen(SERVER).unwrap();
    assert_eq!(b.listen(SERVER).unwrap_err().kind(), ErrorKind::AddrInUse);
    let chosen = b.listen("10.0.0.2:0").unwrap().local_addr().unwrap();
    assert!(chosen.port() >= 49_152, "{chosen}");
    assert_eq!(b.listen("10.9.9.9:80").unwrap_err().kind(), ErrorKind::AddrNotAvailable);
    let local = "10.9.9.9:0".parse().unwrap();
    let e = MptcpStream::builder(&a).local(local).connect(SERVER).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::AddrNotAvailable);
}

#[test]
fn addresses_where_no_path_leads_are_refused_at_once_with_advice() {
    let (a, b) = two_stacks(1, |s| s);
    for (address, says) in [
        ("127.0.0.1:80", "loopback"),
        ("[::1]:80", "loopback"),
        ("[::ffff:127.0.0.1]:80", "loopback"),
        ("[fe80::1]:80", "link-local"),
        ("10.0.0.1:80", "this host itself"),
    ] {
        let e = a.connect(address).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsupported, "{address}: {e}");
        assert!(e.to_string().contains(says) && e.to_string().contains("use "), "{address}: {e}");
    }
    // An IPv4 address that comes as IPv6 is IPv4, at both ends.
    let listener = b.listen("[::ffff:10.0.0.2]:80").unwrap();
    assert_eq!(listener.local_addr().unwrap(), SERVER.parse().unwrap());
    let client = a.connect("[::ffff:10.0.0.2]:80").unwrap();
    assert_eq!(client.peer_addr().unwrap(), SERVER.parse().unwrap());
}

#[test]
fn of_several_addresses_a_silent_one_does_not_hold_up_the_others() {
    let (mut a, mut b) = (Stack::builder(), Stack::builder());
    let mut cut = Vec::new();
    for n in 0..3 {
        let (x, y) = PipeDevice::pair();
        cut.push(x.cut.clone());
        a = a.path(path(&format!("a{n}"), &format!("10.{n}.0.1"), x));
        b = b.path(path(&format!("b{n}"), &format!("10.{n}.0.2"), y));
    }
    let (a, b) = (a.start().unwrap(), b.start().unwrap());
    let listener = b.listen("0.0.0.0:80").unwrap();
    cut[0].store(true, Ordering::Relaxed);
    let name = [SERVER.parse().unwrap(), "10.1.0.2:80".parse().unwrap()];
    // The default time limit is 180 s, so a test that waits for the first address would not end in time.
    let client = a.connect(&name[..]).unwrap();
    assert_eq!(client.peer_addr().unwrap(), name[1]);
    let (server, from) = listener.accept().unwrap();
    assert_eq!(from, client.local_addr().unwrap());
    // The loser is gone at once; where its SYN arrives late, nothing comes of it.
    assert_eq!(a.connections().unwrap().len(), 1);
    cut[0].store(false, Ordering::Relaxed);
    assert_eq!(listener.accept_timeout(Duration::from_millis(50)).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop((client, server));
    // One that refuses costs no time, nor is it asked again by every other path.
    let name = ["10.0.0.2:81".parse().unwrap(), "10.1.0.2:80".parse().unwrap()];
    let before = b.counters().unwrap().get(Counter::MPCapableSYNRX);
    let client = a.connect(&name[..]).unwrap();
    assert_eq!(client.peer_addr().unwrap(), name[1]);
    assert_eq!(b.counters().unwrap().get(Counter::MPCapableSYNRX), before + 1);
    let refused = a.connect("10.0.0.2:81").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(a.connections().unwrap().len(), 1);
}

#[test]
fn a_server_that_is_slow_to_answer_does_not_accept_the_loser() {
    /// Holds the server's stack up at the first SYN, until the client has made a second attempt.
    struct Slow(bool);
    impl Observer for Slow {
        fn observe(&mut self, observation: &Observation) {
            if observation.what == Counter::MPCapableSYNRX && !std::mem::replace(&mut self.0, true) {
                std::thread::sleep(Duration::from_millis(700));
            }
        }
    }
    let (mut a, mut b) = (Stack::builder(), Stack::builder().observer(Box::new(Slow(false))));
    for n in 0..2 {
        let (x, y) = PipeDevice::pair();
        a = a.path(path(&format!("a{n}"), &format!("10.{n}.0.1"), x));
        b = b.path(path(&format!("b{n}"), &format!("10.{n}.0.2"), y));
    }
    let (a, b) = (a.start().unwrap(), b.start().unwrap());
    let listener = b.listen("0.0.0.0:80").unwrap();
    let name = [SERVER.parse().unwrap(), "10.1.0.2:80".parse().unwrap()];
    let client = a.connect(&name[..]).unwrap();
    assert!(a.counters().unwrap().get(Counter::MPCapableSYNTX) >= 2, "there was a second attempt");
    let (mut server, from) = listener.accept().unwrap();
    assert_eq!(from, client.local_addr().unwrap());
    (&client).write_all(b"the winner").unwrap();
    server.read_exact(&mut [0; 10]).unwrap();
    assert_eq!(
        listener.accept_timeout(Duration::from_millis(200)).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
}

#[test]
fn the_time_limit_holds_for_all_addresses_together() {
    let (x, _y) = PipeDevice::pair();
    let a = Stack::builder().path(path("a", "10.0.0.1", x)).start().unwrap();
    let name: Vec<std::net::SocketAddr> = (2..250).map(|n| ([10, 0, 0, n], 80).into()).collect();
    let start = Instant::now();
    let e =
        MptcpStream::builder(&a).connect_timeout(Duration::from_millis(600)).connect(&name[..]).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::TimedOut);
    assert!((Duration::from_millis(600)..Duration::from_secs(20)).contains(&start.elapsed()));
    assert_eq!(a.connections().unwrap().len(), 0);
}

#[test]
fn nobody_waits_longer_than_allowed() {
    let (x, y) = PipeDevice::pair();
    let cut = x.cut.clone();
    let a = Stack::builder().linger(Duration::ZERO).path(path("a", "10.0.0.1", x)).start().unwrap();
    let b = Stack::builder().linger(Duration::ZERO).path(path("b", "10.0.0.2", y)).start().unwrap();
    let listener = b.listen(SERVER).unwrap();
    assert_eq!(listener.accept_timeout(Duration::from_millis(20)).unwrap_err().kind(), ErrorKind::WouldBlock);
    let mut client = a.connect(SERVER).unwrap();
    let limit = Some(Duration::from_millis(30));
    client.set_read_timeout(limit).unwrap();
    client.set_write_timeout(limit).unwrap();
    assert_eq!((client.read_timeout().unwrap(), client.write_timeout().unwrap()), (limit, limit));
    assert!(client.set_read_timeout(Some(Duration::ZERO)).is_err());
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    cut.store(true, Ordering::Relaxed);
    let stuck = loop {
        if let Err(e) = client.write(&[0; 65536]) {
            break e;
        }
    };
    assert_eq!(stuck.kind(), ErrorKind::WouldBlock);
    let start = Instant::now();
    let e = MptcpStream::builder(&a).connect_timeout(Duration::from_millis(50)).connect(SERVER).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::TimedOut);
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(a.connections().unwrap().len(), 1, "the attempt is forgotten");
    client.abort();
    assert_eq!(a.connections().unwrap().len(), 0);
}

#[test]
fn shutdown_and_abort_reach_both_ends() {
    let (a, b) = two_stacks(1, |s| s);
    let listener = b.listen(SERVER).unwrap();
    let client = a.connect(SERVER).unwrap();
    let (server, _) = listener.accept().unwrap();

    // Shutting down its own side wakes a waiting reader.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| (&server).read(&mut [0; 9]).unwrap());
        std::thread::sleep(Duration::from_millis(20));
        server.shutdown(Shutdown::Read).unwrap();
        assert_eq!(waiting.join().unwrap(), 0);
    });
    // Half-closed: the other direction continues.
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!((&client).write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    (&server).write_all(b"still").unwrap();
    let mut got = [0; 5];
    (&client).read_exact(&mut got).unwrap();
    assert_eq!(&got, b"still");

    let second = a.connect(SERVER).unwrap();
    let (other, _) = listener.accept().unwrap();
    second.abort();
    assert_eq!((&other).read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!((&other).write(b"x").unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_reader_that_sleeps_bounds_what_the_peer_sends() {
    let (a, b) = two_stacks(1, |s| s);
    let listener = MptcpListener::builder(&b).receive_buffer(64 * 1024).listen(SERVER).unwrap();
    // The send buffer is at least as large as the receive buffer (RFC 8684 §3.3.5).
    let client = MptcpStream::builder(&a).send_buffer(64 * 1024).receive_buffer(64 * 1024);
    let mut client = client.connect(SERVER).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let data = pattern(8 << 20, 11);
    client.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut written = 0;
    while written < data.len()
        && let Ok(n) = client.write(&data[written..])
    {
        written += n;
    }
    assert!(written < 400 * 1024, "{written} bytes accepted although nobody reads");
    client.set_write_timeout(None).unwrap();
    let rest = data.clone();
    let writer = std::thread::spawn(move || client.write_all(&rest[written..]).unwrap());
    let mut got = Vec::new();
    server.read_to_end(&mut got).unwrap();
    writer.join().unwrap();
    assert!(got == data);
}

#[test]
fn a_listener_holds_back_what_nobody_accepts() {
    let (a, b) = two_stacks(1, |s| s);
    let listener = MptcpListener::builder(&b).backlog(3).listen(SERVER).unwrap();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..12)
            .map(|i: u8| {
                let a = &a;
                scope.spawn(move || {
                    let mut s = a.connect(SERVER).unwrap();
                    s.write_all(&[i]).unwrap();
                    assert_eq!(s.read(&mut [0]).unwrap(), 0);
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(100));
        let held = b.connections().unwrap();
        let mut seen: Vec<u8> = listener
            .incoming()
            .take(12)
            .map(|s| {
                let mut byte = [0];
                s.unwrap().read_exact(&mut byte).unwrap();
                byte[0]
            })
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..12).collect::<Vec<u8>>());
        clients.into_iter().for_each(|c| c.join().unwrap());
        // Up to three that wait, and up to three whose handshakes were in progress when others were completed
        // by SYN cookie.
        assert!((3..=6).contains(&held.len()), "{held:?}");
    });
    // Closing a listener resets waiting connections.
    let waiting = a.connect(SERVER).unwrap();
    drop(listener);
    assert_eq!((&waiting).read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(a.connect(SERVER).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn paths_come_and_go_under_a_connection() {
    let (x, y) = PipeDevice::pair();
    let a = Stack::builder().path(path("a0", "10.0.0.1", x)).start().unwrap();
    let b = Stack::builder().path(path("b0", "10.0.0.2", y)).start().unwrap();
    let (mut client, mut server) = connected(&a, &b);
    let first = a.paths().unwrap();
    assert_eq!(first.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["a0"]);

    let data = pattern(24 << 20, 3);
    let expected = data.clone();
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        server.read_to_end(&mut got).unwrap();
        assert!(got == expected);
    });
    client.write_all(&data[..8 << 20]).unwrap();
    let (x, y) = PipeDevice::pair();
    // The second path of each. In this network the client's second path also leads to the server's first
    // address.
    b.add_path(path("b1", "10.1.0.2", y)).unwrap();
    let second = a.add_path(path("a1", "10.1.0.1", x)).unwrap();
    wait_for(|| client.subflows().unwrap().iter().any(|s| s.path == second && s.state == "ESTABLISHED"));
    client.write_all(&data[8 << 20..16 << 20]).unwrap();
    assert!(a.remove_path(first[0].id).unwrap());
    assert!(!a.remove_path(first[0].id).unwrap());
    // The path worked, so its subflow ended in order. A join over it may have been in progress.
    let lost = client.info().unwrap().lost_subflows;
    assert!(lost.iter().all(|s| !s.established), "{lost:?}");
    client.write_all(&data[16 << 20..]).unwrap();
    drop(client);
    reader.join().unwrap();
}

#[test]
fn an_observer_that_panics_ends_nothing_but_itself() {
    struct Fragile(Arc<AtomicUsize>);
    impl Observer for Fragile {
        fn observe(&mut self, _: &Observation) {
            if self.0.fetch_add(1, Ordering::Relaxed) == 2 {
                panic!("this panic is part of the test");
            }
        }
    }
    impl Drop for Fragile {
        fn drop(&mut self) {
            panic!("and so is this");
        }
    }
    let calls = Arc::new(AtomicUsize::new(0));
    let (a, b) = two_stacks(1, |s| s.observer(Box::new(Fragile(calls.clone()))));
    let (mut client, mut server) = connected(&a, &b);
    client.write_all(b"still here").unwrap();
    drop(client);
    let mut got = String::new();
    server.read_to_string(&mut got).unwrap();
    assert_eq!(got, "still here");
    assert!(calls.load(Ordering::Relaxed) >= 3, "it was called until it panicked");
}

#[test]
fn a_stack_without_paths_is_a_mistake_unless_it_is_meant() {
    let error = Stack::builder().start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("all_nics"), "{error}");
    let stack = Stack::builder().paths_later().start().unwrap();
    assert_eq!(stack.connect(SERVER).unwrap_err().kind(), ErrorKind::NetworkUnreachable);
    let (x, _y) = PipeDevice::pair();
    stack.add_path(path("late", "10.0.0.1", x)).unwrap();
    assert_eq!(stack.paths().unwrap().len(), 1);
}

#[test]
fn many_threads_use_one_stack() {
    let (a, b) = two_stacks(2, |s| s);
    let listener = b.listen("0.0.0.0:7").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let (mut s, _) = listener.accept().unwrap();
                    std::thread::spawn(move || {
                        let mut data = Vec::new();
                        s.read_to_end(&mut data).unwrap();
                        data.reverse();
                        s.write_all(&data).unwrap();
                    });
                }
            });
        }
        for t in 0..4u64 {
            let a = &a;
            scope.spawn(move || {
                for i in 0..10 {
                    let mut s = a.connect("10.0.0.2:7").unwrap();
                    let data = pattern(50_000 + i * 1000, t * 100 + i as u64);
                    s.write_all(&data).unwrap();
                    s.shutdown(Shutdown::Write).unwrap();
                    let mut got = Vec::new();
                    s.read_to_end(&mut got).unwrap();
                    got.reverse();
                    assert!(got == data);
                }
            });
        }
    });
    wait_for(|| a.connections().unwrap().is_empty() && b.connections().unwrap().is_empty());
}

/// Sends a question and receives the server's answer. Returns the server's end.
fn ask(client: &mut MptcpStream, listener: &MptcpListener) -> MptcpStream {
    client.write_all(b"question").unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let mut got = [0; 8];
    server.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"question");
    server.write_all(b"answered").unwrap();
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"answered");
    server
}

/// Cookies in a file: the first connection of a later stack sends data with its SYN.
#[test]
fn cookies_outlive_the_stack() {
    let file = std::env::temp_dir().join(format!("umptcp-streams-cookies-{}", std::process::id()));
    let _ = std::fs::remove_file(&file);
    // With the same key, so that the server recognises its cookies.
    let run = || {
        let (a, b) = two_stacks(1, |s| s.seed([3; 32]).fast_open_cookies(&file));
        let listener = MptcpListener::builder(&b).fast_open(8).listen(SERVER).unwrap();
        let mut client = MptcpStream::builder(&a).fast_open(true).connect(SERVER).unwrap();
        let server = ask(&mut client, &listener);
        let taken = a.counters().unwrap().get(Counter::TcpFastOpenActive);
        drop((client, server, listener));
        a.stop(Duration::from_secs(5)).unwrap();
        taken
    };
    assert_eq!(run(), 0);
    assert_eq!(
        std::fs::read_to_string(&file).unwrap().lines().filter(|l| l.starts_with("10.0.0.1 ")).count(),
        1
    );
    assert_eq!((run(), run()), (1, 1));
    // Without the file, or with an invalid one, the stack starts afresh.
    std::fs::write(&file, "no cookie at all\n").unwrap();
    assert_eq!((run(), run()), (0, 1));
    std::fs::remove_file(&file).unwrap();
    let nowhere =
        Stack::builder().paths_later().fast_open_cookies("/nonexistent/cookies").start().unwrap_err();
    assert!(nowhere.to_string().contains("/nonexistent/cookies"), "{nowhere}");
}

/// Fast Open: after a first connection, the first data written goes with the SYN.
#[test]
fn a_request_goes_with_the_syn() {
    let (a, b) = two_stacks(1, |s| s);
    let listener = MptcpListener::builder(&b).fast_open(8).listen(SERVER).unwrap();
    let connect = || MptcpStream::builder(&a).fast_open(true).connect(SERVER).unwrap();
    for _ in 0..3 {
        let mut client = connect();
        let server = ask(&mut client, &listener);
        assert!([client, server].iter().all(|end| end.protocol().unwrap().is_mptcp()));
    }
    assert_eq!(a.counters().unwrap().get(Counter::TcpFastOpenActive), 2);
    assert_eq!(b.counters().unwrap().get(Counter::TcpFastOpenPassive), 2);

    // Written and dropped immediately.
    connect().write_all(b"one-way").unwrap();
    let mut got = Vec::new();
    listener.accept().unwrap().0.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"one-way");

    // The server speaks first: reading sends the SYN without data.
    let mut client = connect();
    std::thread::scope(|scope| {
        scope.spawn(|| listener.accept().unwrap().0.write_all(b"greeting").unwrap());
        let mut got = [0; 8];
        client.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"greeting");
    });

    // Problems with the server show up later than usual.
    drop(listener);
    let mut client = connect();
    let _ = client.write_all(b"question");
    assert_eq!(client.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

/// RFC 9293 §3.6.1, SHLD-3; RFC 2525 §2.17.
#[test]
fn dropping_a_stream_with_unread_data_resets_the_connection() {
    // Data may wait in the reader's own queue, in the one it shares with the worker, and in the stack.
    for (len, read) in [(1000, 1), (1000, 0), (12 << 20, 0)] {
        let (a, b) = two_stacks(1, |s| s);
        let (client, server) = connected(&a, &b);
        let sender = std::thread::spawn(move || {
            (&client).write_all(&pattern(len, 1)).and_then(|()| (&client).read(&mut [0]))
        });
        let mut first = vec![0; read];
        (&server).read_exact(&mut first).unwrap();
        wait_for(|| server.info().unwrap().bytes_received >= 1000);
        drop(server);
        let error = sender.join().unwrap().expect_err("the peer learns of it");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{len} bytes, {read} read");
    }
}

#[test]
fn a_stream_dropped_before_the_peer_has_read_everything_still_delivers_it() {
    let (a, b) = two_stacks(1, |s| s);
    let (client, server) = connected(&a, &b);
    let data = pattern(12 << 20, 3);
    let expected = data.clone();
    (&client).write_all(b"hello").unwrap();
    (&server).read_exact(&mut [0; 5]).unwrap();
    let sender = std::thread::spawn(move || (&server).write_all(&data).unwrap());
    std::thread::sleep(Duration::from_millis(100));
    let mut got = Vec::new();
    (&client).read_to_end(&mut got).unwrap();
    sender.join().unwrap();
    assert!(got == expected, "every byte, in order");
}

#[test]
fn stopping_says_what_was_not_delivered_and_the_peers_learn_of_it() {
    let (a, b) = two_stacks(1, |s| s);
    let (client, server) = connected(&a, &b);
    // More than the peer's buffers take.
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let written = (&client).write_all(&pattern(64 << 20, 1));
    assert_eq!(written.unwrap_err().kind(), ErrorKind::WouldBlock);
    let error = a.stop(Duration::from_millis(100)).expect_err("the peer has not read it");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<umptcp::Error>());
    assert!(
        matches!(inner, Some(umptcp::Error::Undelivered { connections: 1, bytes }) if *bytes > 1 << 20),
        "{error}"
    );
    let mut got = Vec::new();
    assert_eq!((&server).read_to_end(&mut got).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(client.shutdown(Shutdown::Write).is_err(), "the stack has stopped");
    b.stop(Duration::ZERO).unwrap();
}

#[test]
fn stopping_with_many_connections_names_those_with_something_left_and_resets_them_all() {
    const MANY: usize = 30;
    let (a, b) = two_stacks(1, |s| s);
    // A small one, or the test would write hundreds of megabytes.
    let listener = MptcpListener::builder(&b).receive_buffer(1 << 20).listen(SERVER).unwrap();
    let pairs: Vec<(MptcpStream, MptcpStream)> = (0..MANY)
        .map(|i| {
            // Plain TCP among them.
            let client =
                MptcpStream::builder(&a).mptcp(i % 5 != 0).send_buffer(1 << 20).connect(SERVER).unwrap();
            (client, listener.accept().unwrap().0)
        })
        .collect();
    // One in three has written more than the peer's buffers take, one has delivered everything and goes on,
    // and one has ended.
    let (much, mut undelivered) = (vec![7; 32 << 20], 0);
    for (i, (client, server)) in pairs.iter().enumerate() {
        match i % 3 {
            0 => {
                client.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
                let written = (&*client).write_all(&much);
                assert_eq!(written.unwrap_err().kind(), ErrorKind::WouldBlock);
                undelivered += 1;
            }
            1 => {
                (&*client).write_all(b"all of it").unwrap();
                (&*server).read_exact(&mut [0; 9]).unwrap();
            }
            _ => {
                client.shutdown(Shutdown::Write).unwrap();
                server.shutdown(Shutdown::Write).unwrap();
                assert_eq!((&*server).read(&mut [0]).unwrap(), 0);
                assert_eq!((&*client).read(&mut [0]).unwrap(), 0);
            }
        }
    }
    let error = a.stop(Duration::from_millis(200)).expect_err("the peers have not read it");
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<umptcp::Error>());
    assert!(
        matches!(inner, Some(umptcp::Error::Undelivered { connections, .. }) if *connections == undelivered),
        "{error}"
    );
    // Every reset has left before the stack was gone.
    for (i, (_, server)) in pairs.iter().enumerate() {
        let end = (&*server).read_to_end(&mut Vec::new());
        match i % 3 {
            0 => assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset, "connection {i}"),
            _ => {
                end.unwrap_or_else(|e| panic!("connection {i}: {e}"));
            }
        }
    }
    b.stop(Duration::ZERO).unwrap();
}

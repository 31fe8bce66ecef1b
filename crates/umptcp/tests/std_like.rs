//! What the standard library's sockets can do: options at run time, peeking, vectored input and output,
//! iterators over connections.
#![cfg(all(target_os = "linux", not(umptcp_portable)))]

mod common;

use bytes::Bytes;
use common::{PipeDevice, path, pattern, two_stacks};
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use umptcp::{KeepAlive, MptcpStream, Stack};

const SERVER: &str = "10.0.0.2:80";
const LONG: Duration = Duration::from_secs(20);

fn connected(a: &Stack, b: &Stack) -> (MptcpStream, MptcpStream) {
    let listener = b.listen(SERVER).unwrap();
    let client = a.connect(SERVER).unwrap();
    let (server, _) = listener.accept().unwrap();
    (client, server)
}

#[test]
fn addresses_have_the_signatures_of_std() {
    let (a, b) = two_stacks(1, |s| s);
    let listener = b.listen(SERVER).unwrap();
    let client = a.connect(SERVER).unwrap();
    let pairs: [std::io::Result<std::net::SocketAddr>; 2] = [listener.local_addr(), client.peer_addr()];
    assert!(pairs.into_iter().all(|address| address.unwrap() == SERVER.parse().unwrap()));
    assert_eq!(client.local_addr().unwrap().ip().to_string(), "10.0.0.1");
}

#[test]
fn peeking_removes_nothing() {
    let (a, b) = two_stacks(1, |s| s);
    let (client, server) = connected(&a, &b);
    client.set_nodelay(true).unwrap();
    (&client).write_all(b"first").unwrap();
    let mut buffer = [0; 20];
    assert_eq!(server.peek(&mut buffer[..3]).unwrap(), 3);
    assert_eq!(&buffer[..3], b"fir");
    assert_eq!(server.peek(&mut []).unwrap(), 0);
    assert_eq!((&server).read(&mut buffer[..2]).unwrap(), 2);
    assert_eq!(server.peek(&mut buffer).unwrap(), 3, "after what was read");
    assert_eq!(&buffer[..3], b"rst");
    assert_eq!(server.recv_bytes().unwrap(), "rst");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(server.peek(&mut buffer).unwrap(), 0);
    server.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!((&server).read(&mut buffer).unwrap(), 0);
}

#[test]
fn several_buffers_are_written_and_read_at_once() {
    let (a, b) = two_stacks(1, |s| s);
    let (client, server) = connected(&a, &b);
    for parts in [vec![3, 0, 5], vec![10_000, 1, 70_000], vec![200_000, 5]] {
        let data = pattern(parts.iter().sum(), 3);
        let sent = data.clone();
        let sender = client.try_clone().unwrap();
        let sending = std::thread::spawn(move || {
            let mut rest = &sent[..];
            let mut slices: Vec<IoSlice<'_>> = Vec::new();
            for n in parts {
                let (part, after) = rest.split_at(n);
                slices.push(IoSlice::new(part));
                rest = after;
            }
            let mut slices = &mut slices[..];
            let mut calls = 0;
            while !slices.is_empty() {
                let n = (&sender).write_vectored(slices).unwrap();
                IoSlice::advance_slices(&mut slices, n);
                calls += 1;
            }
            calls
        });
        let mut got = vec![0; data.len()];
        let mut done = 0;
        while done < got.len() {
            let (one, two) = got[done..].split_at_mut(2.min(data.len() - done));
            done += (&server).read_vectored(&mut [IoSliceMut::new(one), IoSliceMut::new(two)]).unwrap();
        }
        assert!(got == data);
        let calls = sending.join().unwrap();
        assert!(data.len() > 100 || calls == 1, "{calls} calls for {} bytes", data.len());
    }
    assert_eq!((&client).write_vectored(&[IoSlice::new(&[])]).unwrap(), 0);
    assert_eq!((&server).read_vectored(&mut []).unwrap(), 0);
}

#[test]
fn options_can_be_set_and_asked_for_while_the_connection_runs() {
    let (a, b) = two_stacks(1, |s| s);
    let _listener = b.listen(SERVER).unwrap();
    let client = MptcpStream::builder(&a).traffic_class(0x20).connect(SERVER).unwrap();
    assert!(!client.nodelay().unwrap());
    client.set_nodelay(true).unwrap();
    assert!(client.nodelay().unwrap());
    assert_eq!(client.keep_alive().unwrap(), None);
    let keep_alive = Some(KeepAlive::default().with_idle(Duration::from_secs(30)));
    client.set_keep_alive(keep_alive).unwrap();
    assert_eq!(client.keep_alive().unwrap(), keep_alive);
    assert_eq!(client.traffic_class().unwrap(), 0x20, "as the builder had it");
    client.set_traffic_class(0xb8).unwrap();
    assert_eq!(client.traffic_class().unwrap(), 0xb8);
    client.set_user_timeout(Duration::from_secs(7)).unwrap();
    assert_eq!(client.user_timeout().unwrap(), Duration::from_secs(7));
    client.set_send_buffer(100_000).unwrap();
    client.set_receive_buffer(200_000).unwrap();
    assert_eq!(
        (client.send_buffer().unwrap(), client.receive_buffer().unwrap()),
        (100_000.into(), 200_000.into())
    );
    assert_eq!(client.linger().unwrap(), None);
    client.set_linger(Some(LONG)).unwrap();
    assert_eq!(client.try_clone().unwrap().linger().unwrap(), Some(LONG));
    for refused in [
        client.set_user_timeout(Duration::ZERO),
        client.set_send_buffer(0),
        client.set_receive_buffer(0),
        client.set_write_timeout(Some(Duration::ZERO)),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    client.set_linger(None).unwrap();
    let other = client.try_clone().unwrap();
    client.abort();
    // The worker frees the connection when the reset has left.
    let end = Instant::now() + LONG;
    while other.nodelay().is_ok() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(other.set_nodelay(true).unwrap_err().kind(), ErrorKind::NotConnected);
    assert_eq!(other.nodelay().unwrap_err().kind(), ErrorKind::NotConnected);
}

/// Two stacks that do not linger when they are dropped, and what cuts the wire between them.
fn cuttable() -> (Stack, Stack, Arc<AtomicBool>) {
    let (x, y) = PipeDevice::pair();
    let cut = x.cut.clone();
    let start = |name, address, device| {
        Stack::builder().linger(Duration::ZERO).path(path(name, address, device)).start().unwrap()
    };
    (start("a", "10.0.0.1", x), start("b", "10.0.0.2", y), cut)
}

#[test]
fn a_smaller_send_buffer_bounds_what_is_taken() {
    let (a, b, cut) = cuttable();
    let (mut client, _server) = connected(&a, &b);
    cut.store(true, Ordering::Relaxed);
    // It is at least as large as the receive buffer.
    client.set_receive_buffer(80_000).unwrap();
    client.set_send_buffer(80_000).unwrap();
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut taken = 0;
    while let Ok(n) = client.write(&[0; 1000]) {
        taken += n;
    }
    // The buffer, and a quarter of it on the way there, which is counted twice at most.
    assert!((80_000..=125_000).contains(&taken), "{taken}");
}

#[test]
fn linger_zero_aborts_and_another_time_waits_for_delivery() {
    let (x, y) = PipeDevice::pair();
    let cut = x.cut.clone();
    let a = Stack::builder().linger(Duration::ZERO).path(path("a", "10.0.0.1", x)).start().unwrap();
    let b = Stack::builder().path(path("b", "10.0.0.2", y)).start().unwrap();
    let (client, mut server) = connected(&a, &b);
    client.set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(server.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);

    let (mut client, mut server) = connected(&a, &b);
    client.set_linger(Some(LONG)).unwrap();
    let data = pattern(3 << 20, 8);
    // Without a reader, buffers that tune themselves need not take all of it.
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; 3 << 20];
        server.read_exact(&mut got).unwrap();
        got
    });
    client.write_all(&data).unwrap();
    drop(client);
    // Everything has been acknowledged: nothing is lost although the stack has no time to linger.
    cut.store(true, Ordering::Relaxed);
    drop(a);
    assert!(reader.join().unwrap() == data);
}

#[test]
fn lingering_ends_when_its_time_is_over() {
    let (a, b, cut) = cuttable();
    let (mut client, _server) = connected(&a, &b);
    cut.store(true, Ordering::Relaxed);
    client.write_all(b"lost").unwrap();
    client.set_linger(Some(Duration::from_millis(100))).unwrap();
    let start = Instant::now();
    drop(client);
    assert!((Duration::from_millis(100)..LONG).contains(&start.elapsed()));
}

#[test]
fn the_error_that_ended_a_connection_is_told_once() {
    let (a, b) = two_stacks(1, |s| s);
    let (client, server) = connected(&a, &b);
    assert!(client.take_error().unwrap().is_none());
    server.abort();
    let end = Instant::now() + LONG;
    let error = loop {
        match client.take_error().unwrap() {
            Some(error) => break error,
            None => assert!(Instant::now() < end, "no error"),
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(client.take_error().unwrap().is_none());
    // One that a read has reported is not told again.
    let (client, server) = connected(&a, &b);
    server.abort();
    assert_eq!((&client).read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(client.take_error().unwrap().is_none());
}

#[test]
fn iterators_over_connections_report_why_they_end() {
    let (a, b) = two_stacks(1, |s| s);
    let mut connections = b.listen(SERVER).unwrap().into_incoming();
    let client = a.connect(SERVER).unwrap();
    let server = connections.next().unwrap().unwrap();
    assert_eq!(server.peer_addr().unwrap(), client.local_addr().unwrap());
    let listener = b.listen("10.0.0.2:81").unwrap();
    assert!(listener.take_error().unwrap().is_none());
    drop((client, server, b));
    for mut connections in
        [Box::new(connections) as Box<dyn Iterator<Item = _>>, Box::new(listener.incoming())]
    {
        let last: std::io::Result<MptcpStream> = connections.next().unwrap();
        assert_eq!(last.unwrap_err().kind(), ErrorKind::NotConnected);
        assert!(connections.next().is_none());
    }
    assert_eq!(listener.take_error().unwrap().unwrap().kind(), ErrorKind::NotConnected);
}

#[test]
fn a_reader_with_a_time_limit_need_not_wait_for_one_without() {
    let (a, b) = two_stacks(1, |s| s);
    let (client, server) = connected(&a, &b);
    std::thread::scope(|scope| {
        // Should it begin only after the limit is set, it tries again.
        let patient = scope.spawn(|| {
            loop {
                match server.recv_bytes() {
                    Ok(bytes) => return bytes,
                    Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
                }
            }
        });
        std::thread::sleep(Duration::from_millis(50));
        server.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let start = Instant::now();
        assert_eq!((&server).read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(start.elapsed() < LONG);
        (&client).write_all(b"for the patient one").unwrap();
        assert_eq!(patient.join().unwrap(), "for the patient one");
    });
}

#[test]
fn a_writer_with_a_time_limit_need_not_wait_for_one_without() {
    let (a, b) = two_stacks(1, |s| s);
    let (client, server) = connected(&a, &b);
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    // Nobody reads, so this fills every buffer.
    while (&client).write(&[0; 60_000]).is_ok() {}
    client.set_write_timeout(None).unwrap();
    std::thread::scope(|scope| {
        // Should it begin only after the limit is set, it tries again.
        let patient = scope.spawn(|| {
            while let Err(e) = client.send_bytes(Bytes::from_static(b"last")) {
                assert_eq!(e.kind(), ErrorKind::WouldBlock);
            }
        });
        std::thread::sleep(Duration::from_millis(50));
        client.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        let start = Instant::now();
        let refused = (&client).write(&[0; 60_000]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::WouldBlock);
        assert!(start.elapsed() < LONG);
        let mut got = Vec::new();
        while !got.ends_with(b"last") {
            got.extend_from_slice(&server.recv_bytes().unwrap());
        }
        patient.join().unwrap();
    });
}

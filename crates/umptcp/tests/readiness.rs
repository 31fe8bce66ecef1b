//! Readiness for other event loops: poll(2), epoll(7) and tokio's own.
#![cfg(all(target_os = "linux", not(umptcp_portable)))]

mod common;

use common::{pattern, two_stacks, wait_for};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;
use umptcp::{MptcpListener, MptcpStream, Readiness, Stack};

const SERVER: &str = "10.0.0.2:80";

/// Longer than anything here takes, in milliseconds.
const PATIENCE: u16 = 60_000;

fn connected(a: &Stack, b: &Stack) -> (MptcpStream, MptcpStream) {
    let listener = b.listen(SERVER).unwrap();
    let client = a.connect(SERVER).unwrap();
    (client, listener.accept().unwrap().0)
}

/// What poll(2) says now: readable, writable. The same as the library says.
fn shown(readiness: &Readiness) -> (bool, bool) {
    let mut fds = [PollFd::new(readiness.as_fd(), PollFlags::POLLIN | PollFlags::POLLOUT)];
    poll(&mut fds, PollTimeout::ZERO).unwrap();
    let events = fds[0].revents().unwrap();
    assert!((PollFlags::POLLIN | PollFlags::POLLOUT).contains(events), "{events:?}");
    (events.contains(PollFlags::POLLIN), events.contains(PollFlags::POLLOUT))
}

fn wait(readiness: &Readiness, flags: PollFlags) {
    let mut fds = [PollFd::new(readiness.as_fd(), flags)];
    assert_eq!(poll(&mut fds, PollTimeout::from(PATIENCE)).unwrap(), 1, "a change was not shown");
}

#[test]
fn a_stream_is_readable_while_there_is_something_to_read() {
    let (a, b) = two_stacks(1, |s| s);
    let (mut client, mut server) = connected(&a, &b);
    client.set_nonblocking(true).unwrap();
    let readiness = client.readiness().unwrap();
    assert_eq!(client.try_clone().unwrap().readiness().unwrap().as_raw_fd(), readiness.as_raw_fd());
    assert_eq!(shown(&readiness), (false, true));
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    server.write_all(b"hello").unwrap();
    wait(&readiness, PollFlags::POLLIN);
    assert_eq!(client.peek(&mut [0; 2]).unwrap(), 2);
    assert_eq!(client.read(&mut [0; 2]).unwrap(), 2);
    assert_eq!(shown(&readiness), (true, true), "there is more");
    assert!(readiness.is_readable() && readiness.is_writable());
    assert_eq!(client.read(&mut [0; 10]).unwrap(), 3);
    assert_eq!(shown(&readiness), (false, true));
    assert!(!readiness.is_readable());
    server.shutdown(Shutdown::Write).unwrap();
    wait(&readiness, PollFlags::POLLIN);
    for _ in 0..2 {
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        assert_eq!(shown(&readiness), (true, true), "the end stays");
    }
    // Whoever asks later is told the same.
    let (mut other, mut peer) = connected(&a, &b);
    peer.write_all(b"x").unwrap();
    other.peek(&mut [0]).unwrap();
    assert_eq!(shown(&other.readiness().unwrap()), (true, true));
    other.read_exact(&mut [0]).unwrap();
    assert_eq!(shown(&other.readiness().unwrap()), (false, true));
}

#[test]
fn a_stream_is_writable_while_there_is_room() {
    let (a, b) = two_stacks(1, |s| s);
    let (mut client, mut server) = connected(&a, &b);
    client.set_nonblocking(true).unwrap();
    let readiness = client.readiness().unwrap();
    let mut written = 0;
    loop {
        match client.write(&[1; 5000]) {
            Ok(n) => written += n,
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::WouldBlock);
                let mut fds = [PollFd::new(readiness.as_fd(), PollFlags::POLLOUT)];
                // The worker may still make room.
                if poll(&mut fds, PollTimeout::from(200u8)).unwrap() == 0 {
                    break;
                }
            }
        }
    }
    assert_eq!(shown(&readiness), (false, false));
    server.read_exact(&mut vec![0; written]).unwrap();
    wait(&readiness, PollFlags::POLLOUT);
    assert!(client.write(&[1; 5000]).unwrap() > 0);
    // Waiting again, as before.
    client.set_nonblocking(false).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn errors_make_a_stream_readable_and_writable() {
    let (a, b) = two_stacks(1, |s| s);
    let (mut client, server) = connected(&a, &b);
    let readiness = client.readiness().unwrap();
    server.abort();
    wait(&readiness, PollFlags::POLLIN);
    wait_for(|| shown(&readiness) == (true, true));
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(client.write(&[0]).is_err());
    assert_eq!(shown(&readiness), (true, true));
    // Without the stack, and without the stream.
    let (client, _server) = connected(&a, &b);
    let readiness = client.readiness().unwrap();
    assert_eq!(shown(&readiness), (false, true));
    drop(client);
    wait_for(|| shown(&readiness) == (true, true));
    let (client, _server) = connected(&a, &b);
    let readiness = client.readiness().unwrap();
    drop(a);
    assert_eq!(shown(&readiness), (true, true));
}

#[test]
fn a_listener_is_readable_while_a_connection_waits() {
    let (a, b) = two_stacks(1, |s| s);
    let listener = MptcpListener::bind(&b, SERVER).unwrap();
    listener.set_nonblocking(true).unwrap();
    let readiness = listener.readiness().unwrap();
    assert_eq!(shown(&readiness), (false, false));
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    let _clients = [a.connect(SERVER).unwrap(), a.connect(SERVER).unwrap()];
    for left in [1, 0] {
        wait(&readiness, PollFlags::POLLIN);
        wait_for(|| left == 0 || readiness.is_readable());
        listener.accept().unwrap();
    }
    assert_eq!(shown(&readiness), (false, false));
    drop(b);
    assert_eq!(shown(&readiness), (true, false));
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::NotConnected);
}

/// Sends back what each client sends, in one thread, by edge-triggered epoll.
fn echo_server(listener: &MptcpListener, clients: usize) {
    const LISTENER: u64 = u64::MAX;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
    listener.set_nonblocking(true).unwrap();
    epoll.add(listener.readiness().unwrap(), EpollEvent::new(flags, LISTENER)).unwrap();
    let mut streams: Vec<(MptcpStream, Vec<u8>, bool)> = Vec::new();
    let mut finished = 0;
    while finished < clients {
        let mut events = [EpollEvent::empty(); 16];
        let n = epoll.wait(&mut events, EpollTimeout::from(PATIENCE)).unwrap();
        assert!(n > 0, "a change was not shown; {finished} have finished");
        for event in &events[..n] {
            if event.data() == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true).unwrap();
                    let event = EpollEvent::new(flags, streams.len() as u64);
                    epoll.add(stream.readiness().unwrap(), event).unwrap();
                    streams.push((stream, Vec::new(), false));
                }
                continue;
            }
            let (stream, pending, ended) = &mut streams[event.data() as usize];
            loop {
                let mut buf = [0; 3000];
                if !pending.is_empty() {
                    match stream.write(pending) {
                        Ok(n) => drop(pending.drain(..n)),
                        Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                        Err(e) => panic!("{e}"),
                    }
                } else if *ended {
                    break;
                } else {
                    match stream.read(&mut buf) {
                        Ok(0) => {
                            stream.shutdown(Shutdown::Write).unwrap();
                            *ended = true;
                            finished += 1;
                        }
                        Ok(n) => pending.extend_from_slice(&buf[..n]),
                        Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                        Err(e) => panic!("{e}"),
                    }
                }
            }
        }
    }
}

#[test]
fn one_thread_serves_many_streams_by_epoll() {
    const CLIENTS: usize = 20;
    const BYTES: usize = 200_000;
    // Small buffers, so that either end often waits for the other.
    let (a, b) = two_stacks(1, |s| {
        let config = umptcp::ConnectionConfig::default().with_send_buffer(20_000).with_receive_buffer(20_000);
        s.connection_config(config)
    });
    let listener = b.listen(SERVER).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| echo_server(&listener, CLIENTS));
        for number in 0..CLIENTS as u64 {
            let client = a.connect(SERVER).unwrap();
            let reader = client.try_clone().unwrap();
            // Should the server fail.
            client.set_read_timeout(Some(Duration::from_millis(PATIENCE.into()))).unwrap();
            client.set_write_timeout(Some(Duration::from_millis(PATIENCE.into()))).unwrap();
            scope.spawn(move || {
                (&client).write_all(&pattern(BYTES, number)).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
            });
            scope.spawn(move || {
                let mut got = Vec::new();
                (&reader).read_to_end(&mut got).unwrap();
                assert!(got == pattern(BYTES, number), "every byte of client {number}");
            });
        }
    });
}

#[test]
fn another_runtime_can_wait_for_it() {
    let (a, b) = two_stacks(1, |s| s);
    let (client, mut server) = connected(&a, &b);
    client.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        #[allow(deprecated, reason = "its successor is unsafe")]
        let readiness = tokio::io::unix::AsyncFd::new(client.readiness().unwrap()).unwrap();
        let writer = std::thread::spawn(move || {
            for piece in pattern(300_000, 3).chunks(700) {
                server.write_all(piece).unwrap();
            }
        });
        let mut got = Vec::new();
        let mut buf = [0; 1000];
        loop {
            let mut guard = readiness.readable().await.unwrap();
            match guard.try_io(|_| (&client).read(&mut buf)) {
                Ok(Ok(0)) => break,
                Ok(n) => got.extend_from_slice(&buf[..n.unwrap()]),
                Err(_would_block) => {}
            }
        }
        assert!(got == pattern(300_000, 3), "every byte");
        writer.join().unwrap();
    });
}

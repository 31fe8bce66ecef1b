//! Streams and listeners for tokio, between two stacks in one process.
#![cfg(all(target_os = "linux", not(umptcp_portable)))]

mod common;

use bytes::Bytes;
use common::{PipeDevice, path, pattern, two_stacks, wait_for};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use std::future::{Future, poll_fn};
use std::io::{ErrorKind, Read, Write};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use umptcp::tokio::{MptcpListener, MptcpStream};
use umptcp::{ListenScope, Stack};

const SERVER: &str = "10.0.0.2:80";

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn two_threads() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Both ends of a connection between the two.
async fn connected(a: &Stack, b: &Stack) -> (MptcpStream, MptcpStream) {
    let listener = MptcpListener::bind(b, SERVER).await.unwrap();
    let client = MptcpStream::connect(a, SERVER).await.unwrap();
    let (server, from) = listener.accept().await.unwrap();
    assert_eq!(from, client.local_addr().unwrap());
    assert_eq!(server.local_addr().unwrap(), client.peer_addr().unwrap());
    (client, server)
}

/// Polls once, and drops what is not ready.
async fn once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[test]
fn a_failure_is_noticed_by_who_neither_reads_nor_writes() {
    let (a, b) = two_stacks(1, |s| s);
    one_thread().block_on(async {
        let (mut client, server) = connected(&a, &b).await;
        client.shutdown().await.unwrap();
        assert_eq!(server.recv_bytes().await.unwrap().len(), 0);
        assert!(once(server.failed()).await.is_none());
        let reset = async { client.abort() };
        let (noticed, ()) = tokio::join!(timeout(PATIENCE, server.failed()), reset);
        noticed.unwrap();
        assert_eq!(server.try_write(b"x").unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn both_directions_at_once_on_either_runtime() {
    for runtime in [one_thread(), two_threads()] {
        let (a, b) = two_stacks(2, |s| s);
        runtime.block_on(async {
            let (client, server) = connected(&a, &b).await;
            assert!(client.protocol().await.unwrap().is_mptcp());
            let mut tasks = Vec::new();
            for (stream, seed) in [(client, 1), (server, 2)] {
                let (mut from, mut to) = stream.into_split();
                tasks.push(tokio::spawn(async move {
                    to.write_all(&pattern(4 << 20, seed)).await.unwrap();
                    to.shutdown().await.unwrap();
                }));
                tasks.push(tokio::spawn(async move {
                    let mut got = Vec::new();
                    from.read_to_end(&mut got).await.unwrap();
                    assert!(got == pattern(4 << 20, 3 - seed), "every byte, in order");
                }));
            }
            for task in tasks {
                timeout(PATIENCE, task).await.unwrap().unwrap();
            }
        });
    }
}

#[test]
fn halves_end_their_direction_and_come_together_again() {
    let (a, b) = two_stacks(1, |s| s);
    one_thread().block_on(async {
        let (mut client, mut server) = connected(&a, &b).await;
        {
            // Borrowed ones end nothing by themselves.
            let (mut reading, mut writing) = client.split();
            writing.write_all(b"one").await.unwrap();
            let mut got = [0; 3];
            server.read_exact(&mut got).await.unwrap();
            server.write_all(&got).await.unwrap();
            reading.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"one");
        }
        let (reading, writing) = client.into_split();
        let client = reading.reunite(writing).unwrap();
        let (mut reading, mut writing) = client.into_split();
        writing.write_all(b"two").await.unwrap();
        let (other_reading, other_writing) = server.into_split();
        let error = reading.reunite(other_writing).unwrap_err();
        assert!(error.to_string().contains("not of one stream"));
        reading = error.0;
        let mut server = other_reading.reunite(error.1).unwrap();
        drop(writing);
        let mut got = String::new();
        server.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "two", "and then the end");
        // The other direction goes on.
        server.write_all(b"three").await.unwrap();
        server.shutdown().await.unwrap();
        server.shutdown().await.unwrap();
        assert_eq!(server.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        got.clear();
        reading.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "three");
    });
}

#[test]
fn a_writer_waits_for_the_reader() {
    let (a, b) = two_stacks(1, |s| s);
    one_thread().block_on(async {
        let (client, mut server) = connected(&a, &b).await;
        let piece = [7; 10_000];
        let mut written = 0;
        loop {
            match client.try_write(&piece) {
                Ok(n) => written += n,
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::WouldBlock);
                    // The worker may still make room.
                    match timeout(Duration::from_millis(200), client.writable()).await {
                        Ok(ready) => ready.unwrap(),
                        Err(_) => break,
                    }
                }
            }
        }
        let mut left = written;
        let mut buf = vec![0; 1 << 16];
        while left > 0 {
            timeout(PATIENCE, server.readable()).await.unwrap().unwrap();
            match server.try_read(&mut buf) {
                Ok(n) => left -= n,
                Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
            }
        }
        assert_eq!(server.try_read(&mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
        timeout(PATIENCE, client.writable()).await.unwrap().unwrap();
        assert_eq!(client.try_write(&piece).unwrap(), piece.len());
        client.send_bytes(Bytes::from_static(b"end")).await.unwrap();
        let mut peeked = [0; 100];
        let n = timeout(PATIENCE, server.peek(&mut peeked)).await.unwrap().unwrap();
        assert!(n > 0 && peeked[..n].iter().all(|b| *b == 7));
        drop(client);
        let mut rest = Vec::new();
        while let Some(bytes) = Some(server.recv_bytes().await.unwrap()).filter(|b| !b.is_empty()) {
            rest.extend_from_slice(&bytes);
        }
        assert_eq!(rest, [&piece[..], b"end"].concat());
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
    });
}

/// Does something, but drops the future at random before it is ready, and begins again.
async fn with_cancellations<T, F: Future<Output = T>>(
    random: &mut ChaCha8Rng,
    mut begin: impl FnMut(usize) -> F,
) -> (usize, T) {
    loop {
        let len = 1 + random.next_u32() as usize % 30_000;
        match random.next_u32() % 4 {
            0 => {
                if let Some(result) = once(begin(len)).await {
                    return (len, result);
                }
            }
            1 => tokio::select! {
                biased;
                result = begin(len) => return (len, result),
                () = tokio::task::yield_now() => {}
            },
            2 => tokio::select! {
                () = tokio::time::sleep(Duration::from_micros(u64::from(random.next_u32() % 500))) => {}
                result = begin(len) => return (len, result),
            },
            _ => return (len, timeout(PATIENCE, begin(len)).await.expect("a wake was lost")),
        }
    }
}

#[test]
fn futures_dropped_at_random_lose_no_byte() {
    const TOTAL: usize = 3 << 20;
    for seed in 0..4 {
        let (a, b) = two_stacks(1, |s| s);
        let runtime = if seed % 2 == 0 { one_thread() } else { two_threads() };
        runtime.block_on(async {
            let (client, server) = connected(&a, &b).await;
            let data = pattern(TOTAL, seed);
            let expected = data.clone();
            let (_keep, mut to) = client.into_split();
            let writer = tokio::spawn(async move {
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                let mut done = 0;
                while done < TOTAL {
                    let to = tokio::sync::Mutex::new(&mut to);
                    let (to, piece) = (&to, &data[done..]);
                    let (_, n) = with_cancellations(&mut random, |len| async move {
                        let len = len.min(piece.len());
                        to.lock().await.write(&piece[..len]).await.unwrap()
                    })
                    .await;
                    done += n;
                }
                to.shutdown().await.unwrap();
            });
            let (mut from, _keep_too) = server.into_split();
            let mut random = ChaCha8Rng::seed_from_u64(100 + seed);
            let mut done = 0;
            loop {
                let from = &tokio::sync::Mutex::new(&mut from);
                let (_, got) = with_cancellations(&mut random, |len| async move {
                    let mut buf = vec![0; len];
                    let n = from.lock().await.read(&mut buf).await.unwrap();
                    buf.truncate(n);
                    buf
                })
                .await;
                if got.is_empty() {
                    break;
                }
                assert!(got == expected[done..done + got.len()], "seed {seed}, at {done}");
                done += got.len();
            }
            assert_eq!(done, TOTAL, "seed {seed}");
            writer.await.unwrap();
        });
    }
}

#[test]
fn futures_dropped_at_random_lose_no_connection() {
    const CONNECTIONS: u32 = 300;
    for (seed, runtime) in [(1, one_thread()), (2, two_threads())] {
        let (a, b) = two_stacks(1, |s| s);
        runtime.block_on(async {
            let listener = Arc::new(MptcpListener::bind(&b, SERVER).await.unwrap());
            // Two tasks that accept.
            let acceptors: Vec<_> = (0..2)
                .map(|n| {
                    let listener = listener.clone();
                    tokio::spawn(async move {
                        let mut random = ChaCha8Rng::seed_from_u64(seed + 10 * n);
                        let mut numbers = Vec::new();
                        loop {
                            let (_, accepted) = with_cancellations(&mut random, |_| listener.accept()).await;
                            let mut stream = accepted.unwrap().0;
                            match stream.read_u32().await.unwrap() {
                                u32::MAX => return numbers,
                                number => numbers.push(number),
                            }
                        }
                    })
                })
                .collect();
            for number in (0..CONNECTIONS).chain([u32::MAX; 2]) {
                let mut stream = MptcpStream::connect(&a, SERVER).await.unwrap();
                stream.write_u32(number).await.unwrap();
            }
            let mut numbers = Vec::new();
            for acceptor in acceptors {
                numbers.extend(timeout(PATIENCE, acceptor).await.unwrap().unwrap());
            }
            numbers.sort_unstable();
            assert_eq!(numbers, (0..CONNECTIONS).collect::<Vec<_>>());
        });
    }
}

#[test]
fn a_connect_that_is_dropped_leaves_nothing() {
    let (a, b) = two_stacks(1, |s| s);
    let listener = b.listen(SERVER).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(5);
    for runtime in [one_thread(), two_threads()] {
        runtime.block_on(async {
            for n in 0..200 {
                let connect = MptcpStream::connect(&a, SERVER);
                if n % 4 == 0 {
                    once(connect).await;
                } else {
                    let limit = Duration::from_micros(u64::from(random.next_u32() % 2000));
                    let _ = timeout(limit, connect).await;
                }
            }
        });
        wait_for(|| a.connections().unwrap().is_empty());
    }
    // The peer has learned of it: no stream that it got lasts.
    while let Ok((mut stream, _)) = listener.accept_timeout(Duration::from_millis(500)) {
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    }
}

#[test]
fn errors_come_to_the_tasks_that_wait() {
    let (a, b) = two_stacks(1, |s| s);
    two_threads().block_on(async {
        let refused = MptcpStream::connect(&a, "10.0.0.2:9").await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let taken = MptcpListener::bind(&b, "10.9.9.9:80").await.unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AddrNotAvailable);
        let (client, server) = connected(&a, &b).await;
        let (mut from, mut to) = client.into_split();
        let reader = tokio::spawn(async move { (from.read(&mut [0]).await, from) });
        let writer = tokio::spawn(async move {
            loop {
                if let Err(error) = to.write_all(&[0; 100_000]).await {
                    return error;
                }
            }
        });
        server.abort();
        let (read, from) = timeout(PATIENCE, reader).await.unwrap().unwrap();
        assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
        let error = timeout(PATIENCE, writer).await.unwrap().unwrap();
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
        let stream: &MptcpStream = from.as_ref();
        assert!(stream.info().await.unwrap().error.is_some());
    });
}

#[test]
fn a_stack_that_is_dropped_wakes_every_task() {
    let (x, y) = PipeDevice::pair();
    let cut = x.cut.clone();
    let a = Stack::builder().linger(Duration::ZERO).path(path("a", "10.0.0.1", x)).start().unwrap();
    let b = Stack::builder().linger(Duration::ZERO).path(path("b", "10.0.0.2", y)).start().unwrap();
    let runtime = two_threads();
    let (a, b) = (Arc::new(a), b);
    runtime.block_on(async {
        let (client, server) = connected(&a, &b).await;
        let listener = MptcpListener::bind(&a, "10.0.0.1:81").await.unwrap();
        cut.store(true, Ordering::Relaxed);
        let (mut from, mut to) = client.into_split();
        let reading = tokio::spawn(async move { from.read(&mut [0]).await.map(drop) });
        let writing = tokio::spawn(async move {
            loop {
                to.write_all(&[0; 100_000]).await?;
            }
        });
        let accepting = tokio::spawn(async move { listener.accept().await.map(drop) });
        let connecting = {
            let builder = umptcp::MptcpStream::builder(&a);
            tokio::spawn(async move { MptcpStream::connect_with(builder, "10.0.0.2:80").await.map(drop) })
        };
        while a.connections().unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
        tokio::task::spawn_blocking(move || drop(a)).await.unwrap();
        for task in [reading, writing, accepting, connecting] {
            let result = timeout(PATIENCE, task).await.expect("it is woken").unwrap();
            result.expect_err("the stack has gone");
        }
        drop(server);
    });
}

#[test]
fn blocking_streams_and_listeners_become_asynchronous_and_back() {
    let (a, b) = two_stacks(1, |s| s);
    let listener = MptcpListener::from(b.listen(SERVER).unwrap());
    let client = a.connect(SERVER).unwrap();
    let runtime = one_thread();
    let server = runtime.block_on(async {
        let mut client = MptcpStream::from(client);
        client.write_all(b"hello").await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let mut polled = umptcp::MptcpStream::from(client);
        polled.write_all(b", world").unwrap();
        drop(polled);
        server
    });
    let mut text = String::new();
    umptcp::MptcpStream::from(server).read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello, world");
    let listener = umptcp::MptcpListener::from(listener);
    let _client = a.connect(SERVER).unwrap();
    listener.accept().unwrap();
}

#[test]
fn a_server_that_speaks_first_is_heard_with_fast_open() {
    let (a, b) = two_stacks(1, |s| s);
    one_thread().block_on(async {
        let builder = umptcp::MptcpListener::builder(&b).fast_open(16);
        let listener = MptcpListener::bind_with(builder, SERVER).await.unwrap();
        for n in 0..3 {
            let builder = umptcp::MptcpStream::builder(&a).fast_open(true);
            let mut client = MptcpStream::connect_with(builder, SERVER).await.unwrap();
            let (mut reading, mut writing) = client.split();
            if n == 2 {
                // With data in the SYN.
                writing.write_all(b"hello").await.unwrap();
            }
            let mut got = [0; 7];
            let read = timeout(PATIENCE, reading.read_exact(&mut got));
            let (read, ()) = tokio::join!(read, async {
                let (mut server, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
                server.write_all(b"welcome").await.unwrap();
                if n == 2 {
                    server.read_exact(&mut [0; 5]).await.unwrap();
                }
            });
            assert_eq!((read.unwrap().unwrap(), &got), (7, b"welcome"));
        }
    });
}

#[test]
fn connections_wait_for_the_word_of_a_task() {
    let (a, b) = two_stacks(1, |s| s);
    let scope = ListenScope::at(SERVER.parse().unwrap());
    let held = umptcp::MptcpListener::builder(&b).hold(scope).unwrap();
    let held = umptcp::tokio::HoldingListener::from(held);
    one_thread().block_on(async {
        assert!(once(held.next()).await.is_none());
        let client = MptcpStream::connect(&a, SERVER);
        let (client, server) = tokio::join!(timeout(PATIENCE, client), async {
            umptcp::tokio::accept(held.next().await.unwrap()).await.unwrap()
        });
        let (mut client, mut server) = (client.unwrap().unwrap(), server);
        client.write_all(b"x").await.unwrap();
        server.read_exact(&mut [0]).await.unwrap();
        // Refused, and dropped while it is being accepted.
        for accept in [false, true] {
            let client = MptcpStream::connect(&a, SERVER);
            // The worker may be so quick that it is accepted at once, and dropped as any other stream.
            let (client, done) = tokio::join!(timeout(PATIENCE, client), async {
                let incoming = held.next().await.unwrap();
                accept && once(umptcp::tokio::accept(incoming)).await.is_some()
            });
            match client.unwrap() {
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
                Ok(mut client) => {
                    assert!(accept, "nobody has accepted");
                    let ended = timeout(PATIENCE, client.read(&mut [0])).await.unwrap();
                    assert!(ended.is_err() || done, "{ended:?}");
                }
            }
        }
        let ids = vec![server.id()];
        let left = || b.connections().unwrap().into_iter().map(|(id, ..)| id).collect::<Vec<_>>();
        wait_for(|| left() == ids);
        drop((client, server));
        drop(b);
        assert_eq!(held.next().await.unwrap_err().kind(), ErrorKind::NotConnected);
    });
}

//! What waits between the stack and its program is part of the account of all connections.
#![cfg(all(target_os = "linux", not(umptcp_portable)))]

mod common;

use common::{pattern, two_stacks, wait_for};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use umptcp::{MptcpStream, Stack};
use umptcp_stack_core::config::{BufferSize, StackConfig};

const SERVER: &str = "10.0.0.2:80";

fn connected(a: &Stack, b: &Stack, n: usize) -> Vec<(MptcpStream, MptcpStream)> {
    let listener = b.listen(SERVER).unwrap();
    let connect = || {
        let client = a.connect(SERVER).unwrap();
        (client, listener.accept().unwrap().0)
    };
    std::iter::repeat_with(connect).take(n).collect()
}

/// Writes what there is room for.
fn write_some(mut stream: &MptcpStream, data: &[u8]) -> usize {
    match stream.write(data) {
        Ok(n) => n,
        Err(e) if e.kind() == ErrorKind::WouldBlock => 0,
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn what_a_program_does_not_read_counts_and_makes_no_buffer_grow() {
    let (a, b) = two_stacks(1, |s| s);
    let (client, server) = connected(&a, &b, 1).pop().unwrap();
    client.set_nonblocking(true).unwrap();
    let data = pattern(6 << 20, 1);
    let mut written = 0;
    // Its queue is full, and so is its window.
    wait_for(|| {
        let before = written;
        written += write_some(&client, &data[written..]);
        let acked = client.info().unwrap().bytes_acked;
        written == before && acked > 1 << 20 && b.memory().unwrap().held == acked
    });
    let buffer = server.info().unwrap().receive_buffer;
    assert!(buffer < 2 * BufferSize::INITIAL as u64, "{buffer}");
    // What it reads is not held any longer.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            client.set_nonblocking(false).unwrap();
            (&client).write_all(&data[written..]).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        });
        let mut read = Vec::new();
        (&server).read_to_end(&mut read).unwrap();
        assert!(read == data, "every byte, in order");
    });
    wait_for(|| a.memory().unwrap().held == 0 && b.memory().unwrap().held == 0);
}

/// Programs that do not read, and peers that therefore do not take what is written, hold what is allowed, in their
/// queues as well; and when they read, everything arrives.
#[test]
fn queues_hold_no_more_than_all_connections_may() {
    const BOUND: u64 = 3 << 20;
    const STREAMS: usize = 24;
    const EACH: usize = 1 << 20;
    let (a, b) = two_stacks(1, |s| s.stack_config(StackConfig::default().with_buffer_memory(BOUND)));
    let pairs = connected(&a, &b, STREAMS);
    let data = pattern(EACH, 1);
    let mut written = vec![0; STREAMS];
    pairs.iter().for_each(|(client, _)| client.set_nonblocking(true).unwrap());
    // Until nothing moves for a while.
    let mut still = 0;
    while still < 20 {
        let before = written.iter().sum::<usize>();
        for ((client, _), written) in pairs.iter().zip(&mut written) {
            *written += write_some(client, &data[*written..]);
        }
        still = if written.iter().sum::<usize>() == before { still + 1 } else { 0 };
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let acked: u64 = pairs.iter().map(|(client, _)| client.info().unwrap().bytes_acked).sum();
    let unacked = written.iter().sum::<usize>() as u64 - acked;
    // What each may hold in any case, in the stack and in its queue, and a segment.
    let bound = BOUND + STREAMS as u64 * (2 * (16 << 10) + 65_536);
    assert!(acked <= bound && unacked <= bound, "{acked} and {unacked} of {bound}");
    assert!(acked > BOUND / 2 && b.memory().unwrap().pressure);
    std::thread::scope(|scope| {
        for ((client, server), written) in pairs.iter().zip(&written) {
            let data = &data;
            scope.spawn(move || {
                client.set_nonblocking(false).unwrap();
                let mut writer = client;
                writer.write_all(&data[*written..]).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
            });
            scope.spawn(move || {
                let (mut reader, mut read) = (server, Vec::new());
                reader.read_to_end(&mut read).unwrap();
                assert!(read == *data, "every byte, in order");
            });
        }
    });
    wait_for(|| a.memory().unwrap().held == 0 && b.memory().unwrap().held == 0);
}

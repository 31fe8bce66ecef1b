//! Two stacks that hand each other their packets in memory, for counting instructions: `cargo xtask
//! instructions`.
//!
//! `in_memory bulk|single BYTES` sends that many bytes from one to the other, in segments of up to 64 kB as
//! an offloading device takes them or in single packets, and prints how many packets both stacks sent.

use bytes::Bytes;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use umptcp_stack_core::Stack;
use umptcp_stack_core::config::{ConnectOptions, ConnectionConfig, ListenOptions, StackConfig};
use umptcp_stack_core::device::{ChecksumState, PathConfig, RxPacket};
use umptcp_stack_core::event::Event;
use umptcp_stack_core::stack::Received;
use umptcp_stack_core::types::{ConnectionId, Duration, Instant, PathId};

/// One way.
const DELAY: Duration = Duration::from_millis(1);
/// Bytes given to the stack at a time.
const WRITE: usize = 1 << 18;

struct Host {
    stack: Stack,
    conn: Option<ConnectionId>,
    received: u64,
    /// Packets on their way here, in order of arrival.
    arriving: VecDeque<(Instant, RxPacket)>,
}

fn host(n: u8, max_packet: u32) -> Host {
    let mut stack = Stack::new(StackConfig::default(), [n; 32]);
    let mut path = PathConfig::new("memory", IpAddr::from([10, 0, 0, n]));
    path.max_packet = max_packet;
    path.checksum_offload = true;
    stack.path_added(Instant::ZERO, path);
    Host { stack, conn: None, received: 0, arriving: VecDeque::new() }
}

/// What `from` has to send goes to `to`; returns how many packets.
fn poll(now: Instant, from: &mut Host, to: &mut Host, data: &mut u64) -> u64 {
    let mut packets = 0;
    loop {
        while let Some(t) = from.stack.poll_transmit(now) {
            packets += 1;
            let mut buffer = Vec::with_capacity(t.len());
            buffer.extend_from_slice(t.header.as_slice());
            t.payload.slices().iter().for_each(|s| buffer.extend_from_slice(s));
            let packet =
                RxPacket::new(Bytes::from(buffer), ChecksumState::Verified).with_gso_size(t.gso_size);
            to.arriving.push_back((now + DELAY, packet));
        }
        let Some(event) = from.stack.poll_event() else { return packets };
        match event {
            Event::Incoming { incoming, .. } => {
                let config = ConnectionConfig::default();
                from.conn = Some(from.stack.accept(now, incoming, &config).expect("a pending connection"));
            }
            Event::Readable { connection } => {
                while let Ok(Received::Data(bytes)) = from.stack.receive(now, connection, 1 << 20) {
                    from.received += bytes.len() as u64;
                }
            }
            Event::Connected { connection } | Event::Writable { connection } => {
                while *data > 0 {
                    let piece = Bytes::from_static(&[7; WRITE]).slice(..WRITE.min(*data as usize));
                    let taken = from.stack.send(now, connection, piece).expect("an open connection");
                    *data -= taken as u64;
                    if taken == 0 {
                        break;
                    }
                }
            }
            _ => {}
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let (max_packet, bytes) = match arguments.get(1..) {
        Some([kind, bytes]) if kind == "bulk" || kind == "single" => {
            (if kind == "bulk" { 65_535 } else { 1500 }, bytes.parse::<u64>().ok())
        }
        _ => (0, None),
    };
    let Some(bytes) = bytes else {
        eprintln!("usage: in_memory bulk|single BYTES");
        std::process::exit(2);
    };
    let (mut client, mut server) = (host(1, max_packet), host(2, max_packet));
    let local = SocketAddr::from(([10, 0, 0, 2], 80));
    server.stack.listen(ListenOptions::new(local, 8)).expect("a free port");
    let mut now = Instant::ZERO;
    client.stack.connect(now, ConnectOptions::new(local)).expect("a path");
    let (mut packets, mut data, mut nothing) = (0, bytes, 0);
    while server.received < bytes {
        packets += poll(now, &mut client, &mut server, &mut data);
        packets += poll(now, &mut server, &mut client, &mut nothing);
        let arrivals = [&client, &server].into_iter().filter_map(|h| h.arriving.front().map(|(at, _)| *at));
        let timers = [&client, &server].into_iter().filter_map(|h| h.stack.poll_timeout());
        now = now.max(arrivals.chain(timers).min().expect("the transfer goes on"));
        for host in [&mut client, &mut server] {
            while host.arriving.front().is_some_and(|(at, _)| *at <= now) {
                if let Some((_, packet)) = host.arriving.pop_front() {
                    host.stack.handle_packet(now, PathId(0), packet);
                }
            }
            if host.stack.poll_timeout().is_some_and(|at| at <= now) {
                host.stack.handle_timeout(now);
            }
        }
    }
    println!("{packets}");
}

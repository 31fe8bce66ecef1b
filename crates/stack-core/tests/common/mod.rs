//! Two stacks joined by perfect wires of a fixed delay.

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use umptcp_stack_core::Stack;
use umptcp_stack_core::config::{ConnectionConfig, ListenOptions, StackConfig, SynCookiePolicy};
use umptcp_stack_core::device::{ChecksumState, PathConfig, RxPacket};
use umptcp_stack_core::error::ConnectionError;
use umptcp_stack_core::event::Event;
use umptcp_stack_core::stack::Received;
use umptcp_stack_core::types::{ConnectionId, Duration, Instant, PathId};

const DELAY: Duration = Duration::from_millis(5);

pub(crate) struct Host {
    pub(crate) stack: Stack,
    pub(crate) conn: Option<ConnectionId>,
    pub(crate) received: Vec<u8>,
    pub(crate) ended: bool,
    pub(crate) closed: Option<Option<ConnectionError>>,
    /// What is to be written as there is room, and whether that is all.
    outgoing: Option<(ConnectionId, Bytes, bool)>,
}

impl Host {
    /// Writes what there is room for.
    fn write_on(&mut self, now: Instant) {
        let Some((connection, rest, last)) = &mut self.outgoing else { return };
        let taken = self.stack.send(now, *connection, rest.clone()).expect("send");
        *rest = rest.split_off(taken);
        if rest.is_empty() {
            if *last {
                self.stack.shutdown(now, *connection).expect("shutdown");
            }
            self.outgoing = None;
        }
    }
}

pub(crate) struct Wire {
    pub(crate) now: Instant,
    pub(crate) hosts: [Host; 2],
    /// Packets under way, by time of arrival and number: destination host, path and packet.
    pub(crate) in_flight: BTreeMap<(Instant, u64), (usize, PathId, RxPacket)>,
    pub(crate) number: u64,
    pub(crate) accept: ConnectionConfig,
    /// A middlebox: changes the payload of the packets of a host, with their TCP checksum.
    pub(crate) change: fn(host: usize, number: u64, payload: &mut Vec<u8>),
    pub(crate) syn_cookies: SynCookiePolicy,
    /// The traffic classes of each host's packets by each path.
    pub(crate) classes: BTreeMap<(usize, PathId), BTreeSet<u8>>,
    pub(crate) server: SocketAddr,
}

pub(crate) fn address(host: u8, path: u8) -> IpAddr {
    IpAddr::from([10, 0, path, host])
}

#[allow(dead_code, reason = "not every test uses it")]
fn address6(host: u8, path: u8) -> IpAddr {
    IpAddr::from([0xfd00, 0, 0, u16::from(path), 0, 0, 0, u16::from(host)])
}

impl Wire {
    pub(crate) fn new(client_paths: u8) -> Wire {
        Wire::of(client_paths, address)
    }

    /// The same in IPv6.
    #[allow(dead_code, reason = "not every test uses it")]
    pub(crate) fn v6(client_paths: u8) -> Wire {
        Wire::of(client_paths, address6)
    }

    fn of(client_paths: u8, address: fn(u8, u8) -> IpAddr) -> Wire {
        let host = |n: u8, paths: u8| {
            let mut stack = Stack::new(StackConfig::default(), [n; 32]);
            for p in 0..paths {
                stack.path_added(Instant::ZERO, PathConfig::new(format!("nic{p}"), address(n, p)));
            }
            Host { stack, conn: None, received: Vec::new(), ended: false, closed: None, outgoing: None }
        };
        Wire {
            now: Instant::ZERO,
            hosts: [host(1, client_paths), host(2, 1)],
            in_flight: BTreeMap::new(),
            number: 0,
            accept: ConnectionConfig::default(),
            change: |_, _, _| {},
            syn_cookies: SynCookiePolicy::default(),
            classes: BTreeMap::new(),
            server: SocketAddr::new(address(2, 0), 80),
        }
    }

    pub(crate) fn poll(&mut self, h: usize) {
        let now = self.now;
        loop {
            let host = &mut self.hosts[h];
            while let Some(t) = host.stack.poll_transmit(now) {
                self.number += 1;
                self.classes.entry((h, t.path)).or_default().insert(class_of(t.header.as_slice()));
                let mut payload = t.payload.to_bytes().to_vec();
                (self.change)(h, self.number, &mut payload);
                let changed = payload[..] != t.payload.to_bytes()[..];
                let mut buffer = t.header.as_slice().to_vec();
                buffer.extend(payload);
                let packet = RxPacket::new(
                    Bytes::from(buffer),
                    if changed { ChecksumState::Verified } else { ChecksumState::Unverified },
                )
                .with_gso_size(t.gso_size);
                // The server has one path; what the client sends by any path arrives there, and back by
                // address.
                let path = if h == 0 { PathId(0) } else { path_of(&t.to_vec()) };
                self.in_flight.insert((now + DELAY, self.number), (1 - h, path, packet));
            }
            let Some(event) = host.stack.poll_event() else { break };
            match event {
                Event::Incoming { incoming, .. } => {
                    host.conn = Some(host.stack.accept(now, incoming, &self.accept).expect("accept"));
                }
                Event::Readable { connection } => loop {
                    match host.stack.receive(now, connection, 1 << 20) {
                        Ok(Received::Data(b)) => host.received.extend_from_slice(&b),
                        Ok(Received::End) => {
                            host.ended = true;
                            break;
                        }
                        Ok(Received::Empty) | Err(_) => break,
                    }
                },
                Event::Writable { .. } => host.write_on(now),
                Event::Closed { error, .. } => host.closed = Some(error),
                _ => {}
            }
        }
    }

    /// The application of host `h` writes `data`, as the send buffer takes them; with `last` it shuts down.
    pub(crate) fn write(&mut self, h: usize, connection: ConnectionId, data: Vec<u8>, last: bool) {
        self.hosts[h].outgoing = Some((connection, data.into(), last));
        self.hosts[h].write_on(self.now);
    }

    /// Runs until nothing is due any more, or `limit` has passed.
    pub(crate) fn run(&mut self, limit: Duration) {
        let end = self.now + limit;
        for _ in 0..2_000_000 {
            self.poll(0);
            self.poll(1);
            let arrival = self.in_flight.keys().next().map(|k| k.0);
            let timeout = self.hosts.iter().filter_map(|h| h.stack.poll_timeout()).min();
            let Some(next) = [arrival, timeout].into_iter().flatten().min().filter(|t| *t <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            while let Some((&key, _)) = self.in_flight.iter().next()
                && key.0 <= self.now
                && let Some((h, path, packet)) = self.in_flight.remove(&key)
            {
                self.hosts[h].stack.handle_packet(self.now, path, packet);
            }
            for h in &mut self.hosts {
                if h.stack.poll_timeout().is_some_and(|t| t <= self.now) {
                    h.stack.handle_timeout(self.now);
                }
            }
        }
        panic!("the stacks never come to rest");
    }
}

fn path_of(packet: &[u8]) -> PathId {
    PathId(u32::from(if is_ipv6(packet) { packet[31] } else { packet[18] }))
}

fn is_ipv6(packet: &[u8]) -> bool {
    packet[0] >> 4 == 6
}

/// RFC 791 §3.1 and RFC 8200 §3.
fn class_of(packet: &[u8]) -> u8 {
    if is_ipv6(packet) { packet[0] << 4 | packet[1] >> 4 } else { packet[1] }
}

pub(crate) fn listen(w: &mut Wire) -> SocketAddr {
    let local = w.server;
    let mut options = ListenOptions::new(local, 8);
    options.syn_cookies = w.syn_cookies;
    options.config = w.accept.clone();
    w.hosts[1].stack.listen(options).expect("listen");
    local
}

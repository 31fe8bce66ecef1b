//! What connections cost in memory, by a counting allocator.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use umptcp_stack_core::Stack;
use umptcp_stack_core::config::{ConnectOptions, ConnectionConfig, ListenOptions, StackConfig};
use umptcp_stack_core::device::{ChecksumState, PathConfig, RxPacket};
use umptcp_stack_core::event::Event;
use umptcp_stack_core::types::{ConnectionId, Duration, Instant, PathId};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const PAIRS: u16 = 50;
const DELAY: Duration = Duration::from_millis(5);

/// Two stacks on one wire; what arrives is read at once.
struct Wire {
    now: Instant,
    stacks: [Stack; 2],
    in_flight: BTreeMap<(Instant, u64), (usize, Bytes)>,
    number: u64,
    accepted: Vec<ConnectionId>,
    received: usize,
}

fn address(host: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, host])
}

impl Wire {
    fn new() -> Wire {
        let stacks = [1, 2].map(|n| {
            let mut stack = Stack::new(StackConfig::default(), [n; 32]);
            stack.path_added(Instant::ZERO, PathConfig::new("nic", address(n)));
            stack
        });
        let in_flight = BTreeMap::new();
        Wire { now: Instant::ZERO, stacks, in_flight, number: 0, accepted: Vec::new(), received: 0 }
    }

    fn poll(&mut self) {
        for h in 0..2 {
            let stack = &mut self.stacks[h];
            loop {
                while let Some(t) = stack.poll_transmit(self.now) {
                    self.number += 1;
                    let packet = Bytes::from(t.to_vec());
                    self.in_flight.insert((self.now + DELAY, self.number), (1 - h, packet));
                }
                match stack.poll_event() {
                    Some(Event::Incoming { incoming, .. }) => {
                        let config = ConnectionConfig::default();
                        self.accepted.push(stack.accept(self.now, incoming, &config).expect("accept"));
                    }
                    Some(Event::Readable { connection }) => {
                        while let Ok(umptcp_stack_core::stack::Received::Data(b)) =
                            stack.receive(self.now, connection, 1 << 20)
                        {
                            self.received += b.len();
                        }
                    }
                    Some(_) => {}
                    None => break,
                }
            }
        }
    }

    /// Runs for `time`; a bounded number of steps.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..1_000_000 {
            self.poll();
            let arrival = self.in_flight.keys().next().map(|k| k.0);
            let timeouts = self.stacks.iter().filter_map(Stack::poll_timeout);
            let Some(next) = timeouts.chain(arrival).min().filter(|t| *t <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            while let Some(entry) = self.in_flight.first_entry()
                && entry.key().0 <= self.now
            {
                let (h, buffer) = entry.remove();
                let packet = RxPacket { buffer, gso_size: None, checksum: ChecksumState::Unverified };
                self.stacks[h].handle_packet(self.now, PathId(0), packet);
            }
            self.stacks.iter_mut().for_each(|s| s.handle_timeout(self.now));
        }
        panic!("the stacks never come to rest");
    }
}

/// Bytes on the heap now.
fn held() -> usize {
    dhat::HeapStats::get().curr_bytes
}

#[test]
fn an_idle_connection_is_small_before_and_after_traffic() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let mut w = Wire::new();
    let remote = SocketAddr::new(address(2), 80);
    w.stacks[1].listen(ListenOptions::new(remote, PAIRS.into())).expect("listen");
    let before = held();
    let per_end = |w: &mut Wire| {
        w.run(Duration::from_secs(5));
        held().saturating_sub(before) / (2 * usize::from(PAIRS))
    };
    let connections: Vec<ConnectionId> = (0..PAIRS)
        .map(|_| {
            let c = w.stacks[0].connect(w.now, ConnectOptions::new(remote)).expect("connect");
            w.run(Duration::from_millis(20));
            c
        })
        .collect();
    let fresh = per_end(&mut w);
    for round in 0..10 {
        let ends = if round % 2 == 0 { (0, &connections) } else { (1, &w.accepted) };
        for c in ends.1 {
            assert_eq!(w.stacks[ends.0].send_slice(w.now, *c, &[7; 100]), Ok(100));
        }
        w.run(Duration::from_millis(100));
    }
    let small = per_end(&mut w);
    // Half a megabyte each, one after the other.
    for c in &connections {
        let data = Bytes::from(vec![7; 500_000]);
        assert_eq!(w.stacks[0].send(w.now, *c, data), Ok(500_000));
        w.run(Duration::from_secs(1));
    }
    let bulk = per_end(&mut w);
    assert_eq!(w.received, usize::from(PAIRS) * (10 * 100 + 500_000));
    println!("bytes for each end: {fresh} fresh, {small} after small messages, {bulk} after a transfer");
    assert!(fresh <= 8_000 && small <= 8_000 && bulk <= 8_000, "{fresh} {small} {bulk}");
}

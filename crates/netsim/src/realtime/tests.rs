use super::*;
use crate::direction::Direction;
use crate::link::Link;
use crate::packet::Packet;
use crate::testing::Tcp;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time;
use umptcp_stack_core::device::PathConfig;
use umptcp_stack_core::network_stack::NetworkStack;
use umptcp_types::{Duration, Instant, PathId};

/// A queue that tests push to or read from.
#[derive(Clone, Default)]
struct Queue(Arc<(Mutex<VecDeque<Packet>>, Condvar)>);

impl Queue {
    fn push(&self, packet: Packet) {
        self.0.0.lock().unwrap().push_back(packet);
        self.0.1.notify_all();
    }

    fn pop(&self, timeout: Duration) -> Option<Packet> {
        let queue = self.0.0.lock().unwrap();
        let (mut queue, _) = self.0.1.wait_timeout_while(queue, timeout, |q| q.is_empty()).unwrap();
        queue.pop_front()
    }
}

impl PortReader for Queue {
    fn receive(&mut self, timeout: Duration, packets: &mut Vec<Packet>) -> io::Result<()> {
        packets.extend(self.pop(timeout));
        Ok(())
    }
}

impl PortWriter for Queue {
    fn send(&mut self, packet: Packet) -> io::Result<()> {
        self.push(packet);
        Ok(())
    }
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 1000))
}

fn segment(from: u8, to: u8, payload_len: usize) -> Packet {
    Tcp {
        source: address(from),
        destination: address(to),
        payload_len,
        gso_size: if payload_len > 1400 { 1400 } else { 0 },
        ..Tcp::default()
    }
    .partial()
}

/// Two clients' interfaces (ports 0 and 1), one server's (port 2).
fn star(link: Link) -> Emulation {
    let mut e = Emulation::new(1);
    let ports = [e.add_port(), e.add_port(), e.add_port()];
    for i in 0..2u8 {
        let cable = e.add_cable(ports[usize::from(i)], ports[2], link.clone(), link.clone());
        e.add_route(ports[2], address(1 + i).ip(), cable);
    }
    e
}

fn collect(e: &mut Emulation, until: Instant) -> Vec<(u64, PortId, Packet)> {
    let mut out = Vec::new();
    while let Some(at) = e.next_deadline().filter(|t| *t <= until) {
        e.output(at, |port, p| out.push((at.as_micros(), port, p)));
    }
    out
}

#[test]
fn routes_by_destination_and_merges_what_is_due_together() {
    let mut e = star(Link::unlimited().delay_ms(1));
    let now = Instant::ZERO;
    e.input(now, PortId(0), segment(1, 9, 60_000));
    e.input(now, PortId(1), segment(2, 9, 100));
    e.input(now, PortId(2), segment(9, 2, 200));
    e.input(now, PortId(2), segment(9, 7, 200));
    assert_eq!(e.unroutable(), 1);
    let out = collect(&mut e, Instant::MAX);
    let seen: Vec<_> = out.iter().map(|(t, port, p)| (*t, port.0, p.payload().len())).collect();
    assert_eq!(seen, [(1_000, 2, 60_000), (1_000, 2, 100), (1_000, 1, 200)]);
    assert_eq!(out[0].2.to_vec(), segment(1, 9, 60_000).to_vec());
    assert_eq!(out[0].2.gso_size(), segment(1, 9, 60_000).gso_size());

    e.set_coalescing(false);
    e.input(now, PortId(0), segment(1, 9, 60_000));
    assert_eq!(collect(&mut e, Instant::MAX).len(), 43);
}

#[test]
fn late_output_merges_more() {
    // 1,440-byte packets at 11.52 Mbit/s: 1 ms each. Looked at every 5 ms, five are due together.
    let mut e = star(Link::bps(11_520_000));
    e.input(Instant::ZERO, PortId(0), segment(1, 9, 28_000));
    let mut sizes = Vec::new();
    for ms in [5, 10, 15, 20] {
        e.output(Instant::from_millis(ms), |_, p| sizes.push(p.payload().len()));
    }
    assert_eq!(sizes, [7_000; 4]);
    assert_eq!(e.next_deadline(), None);
}

#[test]
fn an_event_loop_gets_batches_a_granularity_apart() {
    // 1,440-byte packets at 11.52 Mbit/s: 1 ms each.
    let mut e = star(Link::bps(11_520_000));
    e.set_granularity(Duration::from_millis(5));
    let paths = [1, 2, 9].map(|last| {
        NetworkStack::path_added(&mut e, Instant::ZERO, PathConfig::new("port", address(last).ip()))
    });
    assert_eq!(paths, [PathId(0), PathId(1), PathId(2)]);
    e.handle_packet(Instant::ZERO, paths[0], segment(1, 9, 28_000).to_rx());
    let mut sent = Vec::new();
    while let Some(at) = e.poll_timeout() {
        e.handle_timeout(at);
        while let Some(transmit) = e.poll_transmit(at) {
            assert_eq!(transmit.path, paths[2]);
            sent.push((at.as_millis(), transmit.payload.len()));
        }
    }
    assert_eq!(sent, [(1, 1_400), (6, 7_000), (11, 7_000), (16, 7_000), (21, 5_600)]);
    assert!(e.poll_event().is_none());
}

#[test]
fn a_cut_cable_is_silent() {
    let mut e = star(Link::unlimited().delay_ms(1));
    e.set_cut(Instant::ZERO, 0, true);
    e.input(Instant::ZERO, PortId(0), segment(1, 9, 100));
    e.input(Instant::ZERO, PortId(2), segment(9, 1, 100));
    e.input(Instant::ZERO, PortId(2), segment(9, 2, 100));
    assert_eq!(collect(&mut e, Instant::MAX).len(), 1);
    assert_eq!(e.cable(0).stats(Direction::Forward).dropped_cut, 1);
    e.set_cut(Instant::ZERO, 0, false);
    e.input(Instant::ZERO, PortId(0), segment(1, 9, 100));
    assert_eq!(collect(&mut e, Instant::MAX).len(), 1);
}

#[test]
fn runs_in_threads() {
    let queues: Vec<[Queue; 2]> = (0..3).map(|_| Default::default()).collect();
    let ports = || {
        let halves = queues.iter().map(|[r, w]| {
            (Box::new(r.clone()) as Box<dyn PortReader>, Box::new(w.clone()) as Box<dyn PortWriter>)
        });
        halves.collect::<Vec<_>>()
    };
    let delay = Duration::from_millis(30);
    assert!(Emulator::start(star(Link::default()), ports().split_off(1)).is_err());
    let mut emulation = star(Link::mbit(1000).delay(delay));
    emulation.set_granularity(Duration::from_micros(200));
    let emulator = Emulator::start(emulation, ports()).unwrap();
    let start = time::Instant::now();
    let patience = Duration::from_secs(20);
    for _ in 0..10 {
        queues[0][0].push(segment(1, 9, 14_000));
    }
    let mut received = 0;
    while received < 140_000 {
        let p = queues[2][1].pop(patience).expect("the packets arrive");
        assert_eq!(p.tcp_source(), Some(address(1)));
        received += p.payload().len();
    }
    assert!(start.elapsed() >= delay);
    queues[2][0].push(segment(9, 2, 77));
    assert_eq!(queues[1][1].pop(patience).map(|p| p.payload().len()), Some(77));
    assert_eq!(emulator.with(|_, e| e.cable(0).stats(Direction::Forward).delivered_packets), Some(100));
    assert_eq!(emulator.with(|now, e| e.set_cut(now, 1, true)), Some(()));
    queues[2][0].push(segment(9, 2, 78));
    // A cut cable shows only in its count; the count is bound to come.
    let cut = || emulator.with(|_, e| e.cable(1).stats(Direction::Reverse).dropped_cut);
    while cut() == Some(0) && start.elapsed() < patience {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(cut(), Some(1));
    let (_, stats) = emulator.stop().unwrap();
    assert_eq!((stats.received, stats.send_errors), (12, 0));
    assert!(stats.sent >= 2);
}

#[test]
fn prescribed_ways_lead_along_several_cables() {
    use crate::direction::Direction::{Forward, Reverse};
    let link = |ms| Link::unlimited().delay_ms(ms);
    let mut e = Emulation::new(1);
    let ports = [e.add_port(), e.add_port(), e.add_port()];
    let cables = [1, 2, 4].map(|ms| e.add_loose_cable(link(ms), link(10 * ms)));
    let mut way = |from, to, cables: &[_], port: PortId| {
        e.set_route(address(from).ip(), address(to).ip(), cables, port);
    };
    // The second cable first, then back to one with a lower number.
    way(1, 9, &[(cables[1], Forward), (cables[0], Reverse)], ports[2]);
    way(9, 1, &[(cables[0], Forward), (cables[1], Reverse)], ports[0]);
    way(2, 9, &[(cables[2], Forward)], ports[2]);
    e.input(Instant::ZERO, ports[0], segment(1, 9, 100));
    e.input(Instant::ZERO, ports[1], segment(2, 9, 200));
    e.input(Instant::ZERO, ports[2], segment(9, 1, 300));
    // No way is known.
    e.input(Instant::ZERO, ports[2], segment(9, 2, 400));
    assert_eq!(e.unroutable(), 1);
    let seen: Vec<_> =
        collect(&mut e, Instant::MAX).iter().map(|(t, port, p)| (*t, port.0, p.payload().len())).collect();
    assert_eq!(seen, [(4_000, 2, 200), (12_000, 2, 100), (21_000, 0, 300)]);
    // Cables without delay, against their order: all within one call.
    let cables = [0, 1].map(|_| e.add_loose_cable(link(0), link(0)));
    e.set_route(address(9).ip(), address(2).ip(), &[(cables[1], Forward), (cables[0], Forward)], ports[1]);
    e.input(Instant::ZERO, ports[2], segment(9, 2, 500));
    let mut out = Vec::new();
    e.output(Instant::ZERO, |port, p| out.push((port, p.payload().len())));
    assert_eq!(out, [(ports[1], 500)]);
}

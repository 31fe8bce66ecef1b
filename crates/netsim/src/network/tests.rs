//! The network itself, with nodes that are not stacks.

use super::*;
use crate::middlebox::{DropIf, OneWay, StripMptcp, StripWhere};
use crate::packet::Packet;
use crate::testing::{OPTIONS, Tcp};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use umptcp_stack_core::device::{RxPacket, Transmit};
use umptcp_stack_core::wire::tcp::TcpFlags;

/// When and on which path something came in, and what.
type Log = Arc<Mutex<Vec<(u64, u32, Packet)>>>;

/// Sends what it was told to, at given times, and logs what it gets; may echo it back.
#[derive(Default)]
struct Script {
    plan: VecDeque<(Instant, PathId, Packet)>,
    log: Log,
    echo: bool,
    spin: bool,
}

impl PacketNode for Script {
    fn handle_packet(&mut self, now: Instant, path: PathId, packet: RxPacket) {
        let packet = Packet::from_rx(packet);
        if self.echo {
            let mut back = packet.clone();
            back.rewrite(packet.tcp_destination(), packet.tcp_source());
            self.plan.push_back((now, path, back));
        }
        self.log.lock().unwrap().push((now.as_micros(), path.0, packet));
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        let due = self.plan.front().is_some_and(|(at, _, _)| *at <= now);
        let (_, path, packet) = due.then(|| self.plan.pop_front())??;
        Some(packet.into_transmit(path, now))
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.spin {
            return Some(Instant::ZERO);
        }
        self.plan.front().map(|(at, _, _)| *at)
    }

    fn handle_timeout(&mut self, _now: Instant) {}
}

fn address(net: u8, host: u8) -> SocketAddr {
    SocketAddr::from(([10, net, 0, host], 99))
}

fn config(net: u8, host: u8) -> PathConfig {
    PathConfig::new("if", address(net, host).ip())
}

fn tcp(from: SocketAddr, to: SocketAddr, payload_len: usize) -> Packet {
    Tcp { source: from, destination: to, payload_len, ..Tcp::default() }.packet()
}

fn script(plan: Vec<(u64, u32, Packet)>) -> (Script, Log) {
    let plan =
        plan.into_iter().map(|(at, p, packet)| (Instant::from_micros(at), PathId(p), packet)).collect();
    let s = Script { plan, ..Script::default() };
    let log = s.log.clone();
    (s, log)
}

fn lengths(log: &Log) -> Vec<(u64, u32, usize)> {
    log.lock().unwrap().iter().map(|(t, path, p)| (*t, *path, p.payload().len())).collect()
}

#[test]
fn packets_cross_routers_by_the_shortest_way() {
    // a — r1 — r2 — b, and a longer way r1 — r3 — r2; a second interface of a goes to r3.
    let mut net = Network::new(1);
    let plan =
        vec![(0, 0, tcp(address(1, 1), address(9, 1), 10)), (0, 1, tcp(address(2, 1), address(9, 1), 20))];
    let (a, _) = script(plan);
    let (b, log) = script(vec![]);
    let (a, b) = (net.add_custom("a", Box::new(a)), net.add_custom("b", Box::new(b)));
    let [r1, r2, r3] = ["r1", "r2", "r3"].map(|n| net.add_router(n));
    let ms = |n| Link::unlimited().delay_ms(n);
    let cable = |net: &mut Network, x, y, n| net.add_cable(x, y, ms(n), ms(n));
    let a1 = cable(&mut net, a, r1, 1);
    let _long1 = cable(&mut net, r1, r3, 16);
    let long2 = cable(&mut net, r3, r2, 4);
    let short = cable(&mut net, r1, r2, 2);
    let a3 = cable(&mut net, a, r3, 32);
    let b2 = cable(&mut net, r2, b, 8);
    net.add_path(a, config(1, 1), &[a1], true);
    net.add_path(a, config(2, 1), &[a3], true);
    net.add_path(b, config(9, 1), &[b2], true);
    net.run_until_idle(Duration::from_secs(1)).unwrap();
    assert_eq!(lengths(&log), [(11_000, 0, 10), (44_000, 0, 20)]);
    assert_eq!(net.stats(short, Direction::Forward).delivered_packets, 1);
    assert_eq!(net.stats(long2, Direction::Forward).delivered_packets, 1);
    assert_eq!(net.unroutable(), 0);
}

#[test]
fn switched_interfaces_pick_the_cable_and_the_path() {
    // Two interfaces of a; two of b, each behind a switch that both cables reach.
    let mut net = Network::new(1);
    let (mut a, log_a) = script(vec![
        (0, 0, tcp(address(1, 1), address(9, 2), 10)),
        (0, 1, tcp(address(2, 1), address(9, 1), 20)),
        (5, 1, tcp(address(2, 1), address(7, 7), 30)),
    ]);
    a.echo = false;
    let (mut b, log_b) = script(vec![]);
    b.echo = true;
    let (a, b) = (net.add_custom("a", Box::new(a)), net.add_custom("b", Box::new(b)));
    let c1 = net.add_cable(a, b, Link::unlimited().delay_ms(1), Link::unlimited().delay_ms(2));
    let c2 = net.add_cable(a, b, Link::unlimited().delay_ms(4), Link::unlimited().delay_ms(8));
    net.add_path(a, config(1, 1), &[c1], false);
    net.add_path(a, config(2, 1), &[c2], false);
    net.add_path(b, config(9, 1), &[c1, c2], false);
    net.add_path(b, config(9, 2), &[c1, c2], false);
    net.run_until_idle(Duration::from_secs(1)).unwrap();
    assert_eq!(lengths(&log_b), [(1_000, 1, 10), (4_000, 0, 20)]);
    assert_eq!(lengths(&log_a), [(3_000, 0, 10), (12_000, 1, 20)]);
    assert_eq!(net.unroutable(), 1);
    assert!(net.trace().is_empty());
}

/// A network of one cable with `plan` at its first end; the log of the second.
fn line(link: Link, plan: Vec<(u64, u32, Packet)>, gro: bool) -> (Network, CableId, Log) {
    let mut net = Network::new(3);
    let (a, _) = script(plan);
    let (b, log) = script(vec![]);
    let (a, b) = (net.add_custom("a", Box::new(a)), net.add_custom("b", Box::new(b)));
    let cable = net.add_cable(a, b, link.clone(), link);
    net.add_path(b, config(2, 1), &[cable], gro);
    net.add_path(a, config(1, 1), &[cable], gro);
    (net, cable, log)
}

fn gso(payload_len: usize) -> Packet {
    let (source, destination) = (address(1, 1), address(2, 1));
    Tcp { source, destination, payload_len, gso_size: 1000, ..Tcp::default() }.packet()
}

#[test]
fn merging_changes_no_arrival_time() {
    let arrivals = |link: Link, gro| {
        let (mut net, _, log) = line(link, vec![(0, 0, gso(4500))], gro);
        net.run_until_idle(Duration::from_secs(1)).unwrap();
        let got = lengths(&log);
        (got, net.packet_hash())
    };
    let fast = Link::unlimited().delay_ms(1);
    let (merged, hash1) = arrivals(fast.clone(), true);
    let (single, hash2) = arrivals(fast, false);
    assert_eq!(merged, [(1_000, 0, 4_500)]);
    assert_eq!(
        single,
        [(1_000, 0, 1000), (1_000, 0, 1000), (1_000, 0, 1000), (1_000, 0, 1000), (1_000, 0, 500)]
    );
    // On the wire it is all the same.
    assert_eq!(hash1, hash2);
    // With a rate nothing arrives together: 1,040 bytes at 8.32 Mbit/s take 1 ms.
    let (merged, _) = arrivals(Link::bps(8_320_000), true);
    let single = [(1_000, 0, 1000), (2_000, 0, 1000), (3_000, 0, 1000), (4_000, 0, 1000), (4_519, 0, 500)];
    assert_eq!(merged, single);
}

#[test]
fn cuts_and_actions_come_when_told() {
    let plan = (0..10).map(|i| (i * 1_000, 0, tcp(address(1, 1), address(2, 1), i as usize))).collect();
    let (mut net, cable, log) = line(Link::unlimited().delay_ms(3), plan, true);
    net.set_trace(TraceMode::All);
    net.at(Instant::from_micros(3_500), move |net| net.set_cut(cable, Direction::Forward, true));
    net.at(Instant::from_micros(6_500), move |net| net.restore(cable));
    net.run_until(Instant::from_micros(2_999)).unwrap();
    assert!(log.lock().unwrap().is_empty());
    assert_eq!(net.now(), Instant::from_micros(2_999));
    net.run_until_idle(Duration::from_secs(1)).unwrap();
    // Number 0 has arrived before the cut; 1, 2 and 3 were on the wire, 4, 5 and 6 came to a dead end.
    assert_eq!(lengths(&log), [(3_000, 0, 0), (10_000, 0, 7), (11_000, 0, 8), (12_000, 0, 9)]);
    assert_eq!(net.stats(cable, Direction::Forward).dropped_cut, 6);
    let trace = net.trace();
    assert_eq!(trace.len(), 10 + 4 + 6);
    assert_eq!(trace[0], "0.000000 0> sent 10.1.0.1:99 > 10.2.0.1:99 [.] seq 1 ack 77 win 256 len 0");
    assert_eq!(trace.iter().filter(|l| l.contains("DROP cut")).count(), 6);
}

#[test]
fn same_seed_same_packets() {
    let run = |seed| {
        let plan = (0..200).map(|i| (i * 100, 0, tcp(address(1, 1), address(2, 1), 100))).collect();
        let (a, _) = script(plan);
        let (mut b, _) = script(vec![]);
        b.echo = true;
        let mut net = Network::new(seed);
        let (a, b) = (net.add_custom("a", Box::new(a)), net.add_custom("b", Box::new(b)));
        let link = Link::mbit(5).loss(0.1).jitter(Duration::from_millis(1)).duplicate(0.1);
        let cable = net.add_cable(a, b, link.clone(), link);
        net.add_path(b, config(2, 1), &[cable], true);
        net.add_path(a, config(1, 1), &[cable], true);
        net.run_until_idle(Duration::from_secs(10)).unwrap();
        (net.packet_hash(), net.packet_events())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).0, run(2).0);
}

#[test]
fn livelock_is_an_error() {
    let (mut s, _) = script(vec![]);
    s.spin = true;
    let mut net = Network::new(0);
    let n = net.add_custom("spinner", Box::new(s));
    net.add_path(n, config(1, 1), &[], true);
    net.set_limits(Limits { events_per_instant: 500, ..Limits::default() });
    let e = net.run_until(Instant::from_millis(1)).unwrap_err();
    assert_eq!(e, SimError::Livelock { at: Instant::ZERO, who: "the timer of spinner".to_string() });

    // The error stays.
    assert_eq!(net.run_until(Instant::from_millis(2)), Err(e));

    // Two nodes that echo one another: over a cable without delay, and over one with.
    let ping_pong = |forward: Link, limits: Limits| {
        let (mut a, _) = script(vec![(0, 0, tcp(address(1, 1), address(2, 1), 1))]);
        let (mut b, _) = script(vec![]);
        (a.echo, b.echo) = (true, true);
        let mut net = Network::new(0);
        net.set_limits(limits);
        let (a, b) = (net.add_custom("a", Box::new(a)), net.add_custom("b", Box::new(b)));
        let cable = net.add_cable(a, b, forward, Link::default());
        net.add_path(b, config(2, 1), &[cable], true);
        net.add_path(a, config(1, 1), &[cable], true);
        net.run_until(Instant::MAX)
    };
    assert!(matches!(ping_pong(Link::default(), Limits::default()), Err(SimError::Livelock { .. })));
    let limits = Limits { events: 20_000, ..Limits::default() };
    let slow = ping_pong(Link::unlimited().delay(Duration::from_nanos(1)), limits);
    assert!(matches!(slow, Err(SimError::TooManyEvents { limit: 20_000, .. })));
}

fn syn(flags: TcpFlags) -> Packet {
    let (source, destination) = (address(1, 1), address(2, 1));
    Tcp { source, destination, flags, options: &OPTIONS, payload_len: 5, ..Tcp::default() }.packet()
}

#[test]
fn middleboxes_strip_and_drop() {
    let flags = [TcpFlags::SYN, TcpFlags::SYN_ACK, TcpFlags::ACK];
    let stripped = |which, overwrite| {
        let plan = flags.iter().enumerate().map(|(i, f)| (i as u64, 0, syn(*f))).collect();
        let (mut net, cable, log) = line(Link::unlimited(), plan, true);
        net.add_middlebox(cable, StripMptcp { overwrite, ..StripMptcp::new(which) });
        net.run_until_idle(Duration::from_secs(1)).unwrap();
        let log = log.lock().unwrap();
        assert!(log.iter().all(|(_, _, p)| p.checksum_ok() && p.payload().len() == 5));
        log.iter()
            .map(|(_, _, p)| {
                (p.tcp().unwrap().mptcp_subtypes().count() == 0, p.tcp().unwrap().options().len())
            })
            .collect::<Vec<_>>()
    };
    let (kept, nops, cut) = ((false, 24), (true, 24), (true, 16));
    assert_eq!(stripped(StripWhere::Syn, true), [nops, nops, kept]);
    assert_eq!(stripped(StripWhere::Syn, false), [cut, cut, kept]);
    assert_eq!(stripped(StripWhere::InitialSyn, false), [cut, kept, kept]);
    assert_eq!(stripped(StripWhere::SynAck, true), [kept, nops, kept]);
    assert_eq!(stripped(StripWhere::AfterSyn, true), [kept, kept, nops]);
    assert_eq!(stripped(StripWhere::Everything, false), [cut, cut, cut]);

    // A chain, one way only; large segments reach the boxes as packets.
    let (mut net, cable, log) = line(Link::unlimited(), vec![(0, 0, gso(4000)), (1, 0, gso(1000))], true);
    net.add_middlebox(
        cable,
        OneWay { direction: Direction::Reverse, inner: DropIf::new(|_, _, _: &Packet| true) },
    );
    net.add_middlebox(cable, DropIf::new(|_, _, p: &Packet| p.tcp().is_some_and(|t| t.seq().0 == 1001)));
    net.run_until_idle(Duration::from_secs(1)).unwrap();
    assert_eq!(lengths(&log), [(0, 0, 1000), (0, 0, 2000), (1, 0, 1000)]);
    assert_eq!(net.cable(cable).boxed(), (5, 4));
}

/// Answers every packet by a copy and forwards nothing; says something on its own after 5 ms.
#[derive(Debug)]
struct Mirror(Option<Instant>);

impl Middlebox for Mirror {
    fn process(
        &mut self,
        _now: Instant,
        direction: Direction,
        mut packet: Packet,
        out: &mut crate::middlebox::Output,
    ) {
        packet.rewrite(packet.tcp_destination(), packet.tcp_source());
        out.send(direction.opposite(), packet);
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.0
    }

    fn handle_timeout(&mut self, _now: Instant, out: &mut crate::middlebox::Output) {
        self.0 = None;
        out.send(Direction::Forward, tcp(address(1, 1), address(2, 1), 55));
    }
}

#[test]
fn middleboxes_answer_and_have_timers() {
    let (a, log_a) = script(vec![(0, 0, tcp(address(1, 1), address(2, 1), 10))]);
    let (b, log_b) = script(vec![(0, 0, tcp(address(2, 1), address(1, 1), 20))]);
    let mut net = Network::new(3);
    let (a, b) = (net.add_custom("a", Box::new(a)), net.add_custom("b", Box::new(b)));
    let link = Link::unlimited().delay_ms(1);
    let cable = net.add_cable(a, b, link.clone(), link);
    net.add_middlebox(cable, Mirror(Some(Instant::from_millis(5))));
    net.add_path(b, config(2, 1), &[cable], true);
    net.add_path(a, config(1, 1), &[cable], true);
    net.run_until_idle(Duration::from_secs(1)).unwrap();
    // The box stands at a's end: a gets its own back at once, b after the way there and back.
    assert_eq!(lengths(&log_a), [(0, 0, 10)]);
    assert_eq!(lengths(&log_b), [(2_000, 0, 20), (6_000, 0, 55)]);
}

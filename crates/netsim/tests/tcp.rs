//! Loss recovery of one TCP connection, mechanism by mechanism, with what happened as a snapshot.
//!
//! The snapshots are the files in `snapshots/`: what the sender counted, and the packets of data that were
//! lost or sent again, with their offsets. After a change that is meant, `UPDATE_SNAPSHOTS=1 cargo test -p
//! umptcp-netsim --test tcp` writes them anew.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use umptcp_netsim::middlebox::{Middlebox, Output};
use umptcp_netsim::trace::{PacketEvent, PacketEventKind, Tap};
use umptcp_netsim::{
    Direction, Duration, FlowId, Instant, Link, Loss, Packet, Pair, PairBuilder, Queue, Side,
};
use umptcp_stack_core::config::ConnectionConfig;
use umptcp_stack_core::observe::{Counter, Observation, Observer};
use umptcp_stack_core::stack::SubflowInfo;
use umptcp_stack_core::wire::tcp::kind;

const MB: u64 = 1_000_000;

/// What happened to the client's data, as lines.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    lines: Vec<(Instant, String)>,
    isn: Option<u32>,
    highest: u32,
}

impl Observer for Events {
    fn observe(&mut self, o: &Observation) {
        self.0.lock().unwrap().lines.push((o.now, o.what.name().to_string()));
    }
}

impl Tap for Events {
    fn packet(&mut self, event: &PacketEvent<'_>) {
        let Some(tcp) = event.packet.tcp().filter(|_| event.direction == Direction::Forward) else { return };
        let mut state = self.0.lock().unwrap();
        if tcp.flags().syn {
            state.isn = Some(tcp.seq().0);
            return;
        }
        let len = event.packet.payload().len() as u32;
        let start = tcp.seq().0.wrapping_sub(state.isn.unwrap_or_default()).wrapping_sub(1);
        if len == 0 {
            return;
        }
        let end = start + len;
        match event.what {
            PacketEventKind::Sent if start < state.highest => {
                state.lines.push((event.at, format!("again {start}..{end}")));
            }
            PacketEventKind::Sent => state.highest = end,
            PacketEventKind::Dropped(_) => state.lines.push((event.at, format!("lost {start}..{end}"))),
            PacketEventKind::Delivered => {}
        }
    }
}

/// One connection and what happens to it.
struct Lab {
    net: Pair,
    flow: FlowId,
    events: Events,
    began: Instant,
}

/// One path of plain TCP: the mechanisms are the subflow's own.
fn plain(up: Link, down: Link) -> PairBuilder {
    let config = ConnectionConfig::default().with_mptcp(false).with_congestion("reno");
    Pair::builder().path_both(up, down).config(config).seed(11)
}

impl Lab {
    fn new(net: Pair) -> Lab {
        Lab::with(net, |_| {})
    }

    fn with(mut net: Pair, prepare: impl FnOnce(&mut Pair)) -> Lab {
        let events = Events::default();
        net.set_tap(Some(Box::new(events.clone())));
        prepare(&mut net);
        let flow = net.connect().unwrap();
        let client = net.client();
        net.with_stack(client, |_, stack| stack.set_observer(Box::new(events.clone())));
        let began = net.now();
        Lab { net, flow, events, began }
    }

    fn send(&mut self, bytes: u64) -> Duration {
        self.net.transfer(self.flow, Side::Client, bytes).unwrap()
    }

    /// Runs until everything sent is acknowledged, too.
    fn rest(&mut self) {
        let (client, flow) = (self.net.client(), self.flow);
        let connection = self.net.flow(flow).client.connection.unwrap();
        self.net
            .run_until_true("all acknowledged", Duration::from_secs(60), |net| {
                net.stack(client).unwrap().subflows(connection).iter().all(|s| s.in_flight == 0)
            })
            .unwrap();
    }

    fn subflow(&self) -> SubflowInfo {
        let end = &self.net.flow(self.flow).client;
        self.net.stack(end.node).unwrap().subflows(end.connection.unwrap()).remove(0)
    }

    fn counter(&self, counter: Counter) -> u64 {
        self.net.stack(self.net.client()).unwrap().counters().get(counter)
    }

    /// How many lines of the trace start with `what`.
    fn count(&self, what: &str) -> usize {
        self.events.0.lock().unwrap().lines.iter().filter(|(_, l)| l.starts_with(what)).count()
    }

    fn text(&self) -> String {
        let mut lines = self.events.0.lock().unwrap().lines.clone();
        lines.sort_by_key(|(at, _)| *at);
        let mut text = String::new();
        for (at, line) in lines.iter().filter(|(at, _)| *at >= self.began) {
            writeln!(text, "{:9.3} {line}", (*at - self.began).as_secs_f64() * 1e3).unwrap();
        }
        text
    }

    /// Compares the trace with the file of this name.
    #[track_caller]
    fn snapshot(&self, name: &str) {
        let text = self.text();
        let path = format!("{}/tests/snapshots/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(text, expected, "{path} differs");
    }
}

fn link() -> Link {
    Link::mbit(10).delay_ms(20)
}

#[test]
fn mild_reordering_is_no_loss() {
    // RFC 8985 §6.2: fewer than three packets overtake a late one, and it comes within the reordering window.
    let late = link().reorder(0.02, Duration::from_millis(2));
    let mut lab = Lab::new(plain(late, link()).gro(false).build());
    lab.send(2 * MB);
    assert!(lab.net.stats(lab.net.path_cable(0), Direction::Forward).reordered > 20);
    assert_eq!(lab.subflow().bytes_retransmitted, 0);
    lab.snapshot("mild_reordering");
}

#[test]
fn strong_reordering_is_learned_and_undone() {
    // Packets late by a quarter of the round trip look lost at first; that is found out, undone and not
    // repeated.
    let late = link().reorder(0.02, Duration::from_millis(9));
    let mut lab = Lab::new(plain(late, link()).gro(false).build());
    lab.send(2 * MB);
    lab.rest();
    let reordered = lab.net.stats(lab.net.path_cable(0), Direction::Forward).reordered;
    assert!(reordered > 20, "{reordered}");
    let s = lab.subflow();
    assert!(s.recoveries <= 1 && s.undone == s.recoveries && s.timeouts == 0, "{s:?}");
    assert_eq!((lab.counter(Counter::TcpFullUndo), s.recoveries), (1, 1), "by timestamps");
    assert!(lab.count("again") <= 1);
    lab.snapshot("strong_reordering");
}

/// Lets packets of data pass a certain one of them, the first being 1.
#[derive(Debug)]
struct Overtaken {
    number: usize,
    by: usize,
    seen: usize,
    held: Option<Packet>,
}

impl Middlebox for Overtaken {
    fn process(&mut self, _: Instant, direction: Direction, packet: Packet, out: &mut Output) {
        if direction == Direction::Forward && !packet.payload().is_empty() {
            self.seen += 1;
            if self.seen == self.number {
                self.held = Some(packet);
                return;
            }
        }
        out.send(direction, packet);
        if self.seen == self.number + self.by {
            self.held.take().into_iter().for_each(|held| out.send(direction, held));
        }
    }
}

#[test]
fn what_was_only_late_and_is_not_sent_again_costs_no_window() {
    // It is judged lost, since three packets have overtaken it, and arrives while pacing still holds back
    // what would be sent again.
    let mut undone_in_time = 0;
    for number in 1..=10 {
        let link = || Link::mbit(50).delay_ms(10).queue(Queue::Time(Duration::from_millis(20)));
        let mut lab = Lab::with(plain(link(), link()).gro(false).build(), |net| {
            net.middlebox(0, Overtaken { number, by: 4, seen: 0, held: None });
        });
        lab.net.send(lab.flow, Side::Client, 20 * MB);
        lab.net.run_until(Instant::from_millis(100)).unwrap();
        let s = lab.subflow();
        assert!(s.undone == s.recoveries && s.ssthresh == u64::MAX, "{number}: {s:?}\n{}", lab.text());
        assert!(s.window >= 50_000, "{number}: {s:?}");
        undone_in_time += u64::from(s.undone > 0 && s.bytes_retransmitted == 0);
    }
    assert!(undone_in_time > 0);
}

#[test]
fn a_needless_recovery_is_undone_by_the_duplicates_it_made() {
    // RFC 3708: without timestamps nothing but D-SACK (RFC 2883) says that what was sent again was not lost.
    let late = link().reorder(0.02, Duration::from_millis(9));
    let mut lab = Lab::with(plain(late, link()).gro(false).build(), |net| net.middlebox(0, NoTimestamps));
    lab.send(2 * MB);
    lab.rest();
    let s = lab.subflow();
    assert!(s.recoveries >= 1 && s.timeouts == 0, "{s:?}");
    assert_eq!((lab.counter(Counter::TcpDSACKUndo), lab.counter(Counter::TcpFullUndo)), (s.undone, 0));
    // A recovery that begins while the last one's duplicates are still on their way may miss them.
    assert!(4 * s.undone >= 3 * s.recoveries, "{s:?}\n{}", lab.text());
}

#[test]
fn a_lost_tail_costs_two_round_trips_not_a_timeout() {
    // RFC 8985 §7: of 32 packets the last two are lost. The handshake's SYN and ACK are packets 0 and 1.
    let lossless = Lab::new(plain(link(), link()).build()).send(32 * 1448);
    let mut lab = Lab::new(plain(link().loss_model(Loss::Exactly(vec![32, 33])), link()).build());
    let time = lab.send(32 * 1448);
    lab.rest();
    let s = lab.subflow();
    assert_eq!((lab.count("lost"), s.timeouts, lab.counter(Counter::TcpLossProbes)), (2, 0, 1));
    // Half a round trip for the last ACK, two of silence before the probe, and one until its ACK shows what
    // else is missing.
    let rtt = s.srtt.unwrap();
    assert!(time - lossless < 4 * rtt, "{time:?}, without loss {lossless:?}, {rtt:?}\n{}", lab.text());
    lab.snapshot("lost_tail");
}

#[test]
fn a_lost_last_packet_repaired_by_the_probe_still_reduces_the_window() {
    // RFC 8985 §7.4.2: nothing but the silence shows that loss.
    let mut lab = Lab::new(plain(link().loss_model(Loss::Exactly(vec![31])), link()).build());
    lab.send(30 * 1448);
    lab.rest();
    assert_eq!(lab.subflow().ssthresh, u64::MAX);
    lab.send(10 * 1448);
    lab.rest();
    assert_eq!((lab.count("lost"), lab.count("again")), (1, 1));
    assert_eq!(lab.counter(Counter::TcpLossProbeRecovery), 1);
    assert!(lab.subflow().ssthresh < u64::MAX);
    lab.snapshot("probe_repairs");
}

#[test]
fn half_a_window_lost_is_repaired_in_one_recovery() {
    // About 100 packets are in flight when 50 in a row are lost.
    let up = Link::mbit(30)
        .delay_ms(20)
        .queue(Queue::Packets(200))
        .loss_model(Loss::Exactly((300..350).collect()));
    let mut lab = Lab::new(plain(up, link()).build());
    lab.send(MB);
    lab.rest();
    let s = lab.subflow();
    assert_eq!((s.recoveries, s.timeouts, s.undone), (1, 0, 0));
    assert_eq!(lab.count("lost"), 50);
    assert_eq!(s.bytes_retransmitted, 50 * 1448, "each lost packet is sent again once, and nothing else");
    lab.snapshot("half_a_window");
}

/// Takes the timestamp option out of SYNs, so that neither end uses it.
#[derive(Debug)]
struct NoTimestamps;

impl Middlebox for NoTimestamps {
    fn process(&mut self, _: Instant, direction: Direction, mut packet: Packet, out: &mut Output) {
        if packet.tcp().is_some_and(|t| t.flags().syn) {
            let mut options = Vec::new();
            for option in packet.tcp().into_iter().flat_map(|t| t.raw_options().for_forwarding().flatten()) {
                if option.kind == kind::TIMESTAMPS {
                    options.resize(options.len() + option.bytes.len(), kind::NOP);
                } else {
                    options.extend_from_slice(option.bytes);
                }
            }
            packet.set_tcp_options(&options);
        }
        out.send(direction, packet);
    }
}

/// The path becomes longer by 0.6 s at one blow while data flow.
fn delay_spike(timestamps: bool) -> Lab {
    let mut lab = Lab::with(plain(link(), link()).build(), |net| {
        if !timestamps {
            net.middlebox(0, NoTimestamps);
        }
    });
    lab.send(MB);
    let at = lab.net.now() + Duration::from_millis(500);
    let cable = lab.net.path_cable(0);
    lab.net.at(at, move |net| net.set_link(cable, Direction::Forward, link().delay_ms(1620)));
    lab
}

#[test]
fn a_spurious_timeout_is_undone() {
    // RFC 3522 and RFC 4015 with timestamps; RFC 5682 without.
    for (timestamps, name) in [(true, "spurious_timeout_timestamps"), (false, "spurious_timeout_frto")] {
        let mut lab = delay_spike(timestamps);
        lab.net.send(lab.flow, Side::Client, 4 * MB);
        lab.net.run_for(Duration::from_millis(490)).unwrap();
        let before = lab.subflow();
        assert_eq!((before.timeouts, before.bytes_retransmitted), (0, 0));
        lab.net.run_for(Duration::from_secs(8)).unwrap();
        let s = lab.subflow();
        assert!(s.timeouts >= 1, "{name}: {s:?}\n{}", lab.text());
        let how = if timestamps { Counter::TcpLossUndo } else { Counter::TcpSpuriousRTOs };
        assert_eq!((lab.counter(how), s.undone), (1, 1), "{name}");
        assert!(s.window >= before.window, "{name}: {} after {}", s.window, before.window);
        assert!(lab.count("again") <= 3, "{name}: a probe and the first segment, no more");
        // RFC 4015 §3.1 step 11: it will not be so hasty again.
        assert!(s.rto > Duration::from_millis(2000), "{name}: {:?}", s.rto);
        lab.snapshot(name);
    }
}

#[test]
fn a_genuine_timeout_stays_one() {
    // Everything is lost for a second: no evidence may be made of what comes afterwards.
    for timestamps in [true, false] {
        let mut lab = Lab::with(plain(link(), link()).build(), |net| {
            if !timestamps {
                net.middlebox(0, NoTimestamps);
            }
        });
        lab.send(MB);
        let start = lab.net.now();
        lab.net.cut_path_at(start + Duration::from_millis(300), 0);
        lab.net.restore_path_at(start + Duration::from_millis(1300), 0);
        lab.send(2 * MB);
        lab.rest();
        let s = lab.subflow();
        assert!(s.timeouts >= 1 && s.undone == 0, "{s:?}\n{}", lab.text());
    }
}

#[test]
fn two_ways_over_slow_links_with_long_queues() {
    // Three paths of 3 Mbit/s with 0.7 s of queue, filled in both directions: acknowledgements wait behind
    // data. Each direction's standing queue is the other's round-trip time, so that full use of both is not
    // to be had.
    let rate = |paths: usize, seed| {
        let slow = Link::bps(3_000_000).delay_ms(1).queue(Queue::Time(Duration::from_millis(700)));
        let mut builder = Pair::builder().seed(seed);
        for _ in 0..paths {
            builder = builder.path(slow.clone());
        }
        let mut net = builder.build();
        let flow = net.connect().unwrap();
        let start = net.now();
        let bytes = paths as u64 * 4 * MB;
        net.send(flow, Side::Client, bytes);
        net.send(flow, Side::Server, bytes);
        net.run_until_true("both streams", Duration::from_secs(100), |net| {
            let f = net.flow(flow);
            f.client.progress.received >= bytes && f.server.progress.received >= bytes
        })
        .unwrap();
        bytes as f64 / (net.now() - start).as_secs_f64()
    };
    for seed in 0..3 {
        let (one, three) = (rate(1, seed), rate(3, seed));
        assert!(three > 2.0 * one, "one path {one:.0} B/s, three paths {three:.0} B/s");
    }
}

/// A download fills the queue that the upload's acknowledgements pass: round trips grow from 2 to 52 ms while the upload
/// starts, and its own queue is empty. That is no reason to leave slow start.
#[test]
fn a_queue_in_the_other_direction_ends_no_slow_start() {
    let link = Link::mbit(200).delay_ms(1).queue(Queue::Time(Duration::from_millis(50)));
    let mut net = Pair::builder().path(link).build();
    let downs: Vec<FlowId> = (0..12).map(|_| net.connect().unwrap()).collect();
    let up = net.connect().unwrap();
    for down in downs {
        net.send(down, Side::Server, 20 * MB);
    }
    net.send(up, Side::Client, 200 * MB);
    net.run_for(Duration::from_secs(3)).unwrap();
    // 25 Mbit/s when round-trip times alone decide.
    let got = net.flow(up).server.progress.received as f64 * 8.0 / 3.0 / 1e6;
    assert!(got > 80.0, "the upload had {got:.0} of 200 Mbit/s");
}

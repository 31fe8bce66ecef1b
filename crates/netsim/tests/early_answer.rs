//! Answers that do not wait for the third ACK ([`Stack::answer_early`](umptcp_stack_core::stack::Stack::answer_early)),
//! where packets are lost and boxes interfere: they save a round trip, and whatever becomes of the handshake, every byte
//! arrives once and the connection ends in order.

use umptcp_netsim::middlebox::{
    DropIf, Duplicate, JoinSegments, Middlebox, OneWay, Options, RandomiseSequence, Reorder, SplitSegments,
    StripMptcp, StripWhere,
};
use umptcp_netsim::{Direction, Duration, Link, Packet, Pair, Side};
use umptcp_stack_core::config::ConnectionConfig;
use umptcp_stack_core::observe::Counter;

/// A question that fits a SYN, and one that does not; answers within the initial window, and beyond.
const SIZES: [(u64, u64); 5] = [(300, 8), (300, 20_000), (300, 200_000), (20_000, 8), (20_000, 20_000)];

const ROUND_TRIP: Duration = Duration::from_millis(20);

/// Enough for what is sent on links of 20 Mbit/s before the first byte of an answer.
const SLACK: Duration = Duration::from_millis(8);

type Make = Box<dyn Fn() -> Box<dyn Middlebox>>;

fn is_syn_ack(packet: &Packet) -> bool {
    packet.tcp().is_some_and(|t| t.flags().syn && t.flags().ack)
}

fn is_ack(packet: &Packet) -> bool {
    packet.tcp().is_some_and(|t| !t.flags().syn && packet.payload().is_empty())
}

fn is_data(packet: &Packet) -> bool {
    packet.tcp().is_some_and(|t| !t.flags().syn) && !packet.payload().is_empty()
}

/// Loses the first `count` packets in a direction that are meant.
fn lose(count: usize, way: Direction, meant: fn(&Packet) -> bool) -> Make {
    Box::new(move || {
        let mut left = count;
        Box::new(DropIf::new(move |_, direction, packet: &Packet| {
            let lost = left > 0 && direction == way && meant(packet);
            left -= usize::from(lost);
            lost
        }))
    })
}

/// A client with a cookie and a server that answers early.
struct Lab {
    net: Pair,
    name: String,
}

impl Lab {
    fn new(name: impl Into<String>, checksum: bool, seed: u64, link: &dyn Fn() -> Link) -> Lab {
        let config =
            ConnectionConfig::default().with_fast_open(true).with_no_delay(true).with_checksum(checksum);
        let net = Pair::builder().path(link()).path(link()).config(config).seed(seed).build();
        Lab { net, name: format!("{}, checksum {checksum}, seed {seed}", name.into()) }
    }

    /// One that loses nothing, with a cookie at hand.
    fn ready(name: impl Into<String>, checksum: bool) -> Lab {
        let mut lab = Lab::new(name, checksum, 7, &|| Link::mbit(20).delay_ms(10));
        lab.exchange(SIZES[0], true);
        lab
    }

    fn middlebox(&mut self, middlebox: Box<dyn Middlebox>) {
        let cable = self.net.path_cable(0);
        self.net.add_middlebox(cable, middlebox);
    }

    fn count(&self, side: Side, counter: Counter) -> u64 {
        self.net.stack(self.net.node(side)).expect("a stack").counters().get(counter)
    }

    /// One connection, whose bytes must all arrive, each once. Returns the time until the client had the first byte of
    /// the answer.
    fn exchange(&mut self, (question, answer): (u64, u64), early: bool) -> Duration {
        let name = format!("{}, {question} and {answer} bytes", self.name);
        let start = self.net.now();
        let mut spec = self.net.flow_spec();
        spec.port = Some(4000);
        let spec = if early { spec.answers_early() } else { spec };
        let flow = self.net.add_flow(spec).expect("a connection can be tried");
        for (side, bytes) in [(Side::Client, question), (Side::Server, answer)] {
            self.net.send(flow, side, bytes);
            self.net.finish(flow, side);
        }
        let answered = self.net.run_until_true("the answer's first byte", Duration::from_secs(300), |net| {
            net.flow(flow).client.progress.received > 0
        });
        answered.unwrap_or_else(|e| panic!("{name}: {e}\n{}", self.net.trace().join("\n")));
        let time = self.net.now() - start;
        self.net.run_until_idle(Duration::from_secs(1200)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let f = self.net.flow(flow);
        assert!(f.is_closed() && f.error().is_none(), "{name}: {f:?}\n{}", self.net.trace().join("\n"));
        for (end, sent, received) in [(&f.client, question, answer), (&f.server, answer, question)] {
            assert_eq!((end.progress.sent, end.progress.received), (sent, received), "{name}");
        }
        // Nor does it take long to be through: nobody waits for somebody who has nothing to say.
        for end in [&f.client, &f.server] {
            let took = end.closed.map(|(at, _)| at - start);
            assert!(took.is_some_and(|took| took < Duration::from_secs(100)), "{name}: {took:?}");
        }
        time
    }

    fn fell_back(&self) -> bool {
        let flow = self.net.flow(umptcp_netsim::FlowId(self.net.flow_count() - 1));
        flow.client.fell_back.is_some() || flow.server.fell_back.is_some()
    }
}

#[test]
fn they_save_a_round_trip() {
    for checksum in [false, true] {
        for sizes in SIZES {
            let mut lab = Lab::ready("nothing in the way", checksum);
            let with = lab.exchange(sizes, true);
            assert!(with >= ROUND_TRIP && with < ROUND_TRIP + SLACK, "{}: {with:?}", lab.name);
            assert!(!lab.fell_back());
            let without = lab.exchange(sizes, false);
            assert!(without >= ROUND_TRIP.saturating_mul(2), "{}: {without:?}", lab.name);
            assert!(!lab.fell_back());
        }
    }
}

/// The joins come as ever, and everything has its DATA_ACK.
#[test]
fn what_follows_is_mptcp() {
    let mut lab = Lab::ready("joins", false);
    let joins = lab.count(Side::Server, Counter::MPJoinAckRx);
    lab.exchange((300, 2_000_000), true);
    assert_eq!(lab.count(Side::Server, Counter::MPJoinAckRx), joins + 1);
    assert!(!lab.fell_back());
}

/// Through each box, at each size, with checksums and without: `kept` says whether it stays MPTCP, if that is known.
fn through(boxes: Vec<(String, Make, Option<bool>)>) {
    for (name, make, kept) in boxes {
        for checksum in [false, true] {
            for sizes in SIZES {
                let mut lab = Lab::ready(name.clone(), checksum);
                lab.middlebox(make());
                lab.exchange(sizes, true);
                if let Some(kept) = kept {
                    assert_eq!(!lab.fell_back(), kept, "{}, {sizes:?}", lab.name);
                }
                assert_eq!(lab.count(Side::Client, Counter::DSSNotMatching), 0, "{}", lab.name);
            }
        }
    }
}

#[test]
fn lost_packets_come_again() {
    let forward = Direction::Forward;
    let reverse = Direction::Reverse;
    let mut boxes: Vec<(String, Make, Option<bool>)> = Vec::new();
    for n in [1, 2] {
        boxes.push((format!("{n} SYN/ACKs lost"), lose(n, reverse, is_syn_ack), Some(true)));
        boxes.push((format!("{n} packets of the answer lost"), lose(n, reverse, is_data), Some(true)));
        boxes.push((format!("{n} of the server's ACKs lost"), lose(n, reverse, is_ack), Some(true)));
        boxes.push((format!("{n} packets of the question lost"), lose(n, forward, is_data), Some(true)));
    }
    for n in 1..6 {
        boxes.push((format!("{n} of the client's ACKs lost"), lose(n, forward, is_ack), Some(true)));
    }
    boxes.push((
        "all of the server's first five packets lost".into(),
        lose(5, reverse, |_| true),
        Some(true),
    ));
    through(boxes);
}

#[test]
fn boxes_that_take_options_out_mean_plain_tcp() {
    let mut boxes: Vec<(String, Make, Option<bool>)> = Vec::new();
    let places = [
        StripWhere::Syn,
        StripWhere::InitialSyn,
        StripWhere::SynAck,
        StripWhere::AfterSyn,
        StripWhere::Everything,
    ];
    for which in places {
        for overwrite in [true, false] {
            let strip = move || StripMptcp { overwrite, ..StripMptcp::new(which) };
            boxes.push((format!("{which:?} stripped"), Box::new(move || Box::new(strip())), Some(false)));
            for direction in [Direction::Forward, Direction::Reverse] {
                let name = format!("{which:?} stripped {direction:?}");
                boxes.push((name, Box::new(move || Box::new(OneWay { direction, inner: strip() })), None));
            }
        }
    }
    // MP_CAPABLE and DSS alone.
    for subtype in [0, 2] {
        let strip = move || StripMptcp::subtype(subtype);
        boxes.push((format!("subtype {subtype} stripped"), Box::new(move || Box::new(strip())), Some(false)));
        for direction in [Direction::Forward, Direction::Reverse] {
            let name = format!("subtype {subtype} stripped {direction:?}");
            boxes.push((name, Box::new(move || Box::new(OneWay { direction, inner: strip() })), None));
        }
    }
    through(boxes);
}

/// What a box takes out and what is lost beside it.
#[test]
fn boxes_that_take_options_out_and_losses_change_no_byte() {
    type Meant = fn(&Packet) -> bool;
    let meant: [(&str, Meant); 3] = [("SYN/ACK", is_syn_ack), ("ACK", is_ack), ("data", is_data)];
    for which in [StripWhere::SynAck, StripWhere::AfterSyn, StripWhere::Everything] {
        for (what, meant) in meant {
            for way in [Direction::Forward, Direction::Reverse] {
                for direction in [Direction::Forward, Direction::Reverse] {
                    for sizes in SIZES {
                        let name = format!("{which:?} stripped {direction:?}, first {what} lost {way:?}");
                        let mut lab = Lab::ready(name, sizes.0 == 300);
                        lab.middlebox(lose(1, way, meant)());
                        lab.middlebox(Box::new(OneWay { direction, inner: StripMptcp::new(which) }));
                        lab.exchange(sizes, true);
                    }
                }
            }
        }
    }
}

#[test]
fn boxes_that_rearrange_change_no_byte() {
    let hold = Duration::from_millis(15);
    let mut boxes: Vec<(String, Make, Option<bool>)> = vec![
        ("sequence numbers replaced".into(), Box::new(|| Box::new(RandomiseSequence::new(3))), Some(true)),
        ("every packet twice".into(), Box::new(|| Box::new(Duplicate::new(1))), Some(true)),
        ("all cut".into(), Box::new(|| Box::new(SplitSegments::new(500, Options::Copied))), Some(true)),
        (
            "all cut, options on the first".into(),
            Box::new(|| Box::new(SplitSegments::new(500, Options::First))),
            None,
        ),
        (
            "all cut, without options".into(),
            Box::new(|| Box::new(SplitSegments::new(500, Options::Dropped))),
            None,
        ),
    ];
    for every in 1..5 {
        let make: Make = Box::new(move || Box::new(Reorder::new(every, hold)));
        boxes.push((format!("every packet of {every} late"), make, Some(true)));
    }
    for options in [Options::Copied, Options::First, Options::Dropped] {
        let make: Make =
            Box::new(move || Box::new(JoinSegments::new(4_000, Duration::from_millis(2), options)));
        boxes.push((format!("joined, {options:?}"), make, None));
    }
    through(boxes);
}

#[test]
fn random_loss_changes_no_byte() {
    let lossy = || Link::mbit(20).delay_ms(10).loss(0.2).duplicate(0.1);
    for seed in 0..60 {
        let mut lab = Lab::new("random loss", seed % 2 == 0, seed, &lossy);
        for sizes in SIZES {
            lab.exchange(sizes, true);
        }
    }
}

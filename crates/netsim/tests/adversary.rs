//! Two live ends never wait for each other for ever, whatever single packet an adversary drops, and whatever
//! kind of MPTCP option it takes away for a while. What is waited for, and which timer makes the peer speak:
//! docs/src/waiting.md.

use umptcp_netsim::middlebox::{Middlebox, Output, StripMptcp, StripWhere};
use umptcp_netsim::network::FlowEnd;
use umptcp_netsim::{Direction, Duration, Instant, Link, Packet, Pair, Side};
use umptcp_stack_core::config::ConnectionConfig;
use umptcp_stack_core::wire::mptcp::{MptcpPacket, subtype};
use umptcp_stack_core::wire::tcp::kind;

/// Bytes each way: some round trips of the initial window.
const BYTES: u64 = 40_000;
/// Longer than any back-off and any limit but the user timeout, which must not be what ends the wait.
const LONG: Duration = Duration::from_secs(400);
const USER_TIMEOUT: Duration = Duration::from_secs(7200);

fn pair(mptcp: bool, paths: usize, seed: u64) -> Pair {
    let config = ConnectionConfig::default()
        .with_mptcp(mptcp)
        .with_advertise_addresses(true)
        .with_user_timeout(USER_TIMEOUT);
    let link = || Link::mbit(20).delay_ms(10);
    let builder = (0..paths).fold(Pair::builder(), |b, _| b.path(link()));
    builder.config(config).seed(seed).build()
}

/// What both ends do: send, and then finish or fall silent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    Finish,
    Silence,
}

/// Both ends send; the network must come to rest, with all data delivered and acknowledged. Says whether it
/// did; an end that an error told of is all right only where `may_fail`.
fn exchange(mut net: Pair, then: Then, name: &str, may_fail: bool) -> bool {
    let spec = net.flow_spec();
    let flow = net.add_flow(spec).unwrap_or_else(|e| panic!("{name}: {e}"));
    for side in [Side::Client, Side::Server] {
        net.send(flow, side, BYTES);
        if then == Then::Finish {
            net.finish(flow, side);
        }
    }
    net.run_until_idle(LONG).unwrap_or_else(|e| panic!("{name}, {then:?}: {e}"));
    let f = net.flow(flow);
    let acknowledged = |end: &FlowEnd| {
        let info = end.connection.and_then(|c| net.stack(end.node)?.info(c));
        then == Then::Finish || info.is_some_and(|i| i.bytes_acked == BYTES)
    };
    let complete = [&f.client, &f.server].iter().all(|e| e.progress.received == BYTES && acknowledged(e));
    if complete && f.error().is_none() {
        return true;
    }
    assert!(may_fail, "{name}, {then:?}: {f:?}");
    assert!(f.error().is_some(), "{name}, {then:?}: data are missing, and nobody was told: {f:?}");
    false
}

/// Drops the packet of that number in one direction.
#[derive(Debug)]
struct DropOne {
    direction: Direction,
    number: u64,
    seen: u64,
}

impl Middlebox for DropOne {
    fn process(&mut self, _: Instant, direction: Direction, packet: Packet, out: &mut Output) {
        if direction == self.direction {
            self.seen += 1;
            if self.seen == self.number {
                return;
            }
        }
        out.send(direction, packet);
    }
}

#[test]
fn no_single_packet_is_one_that_both_ends_wait_for() {
    for (mptcp, paths) in [(true, 1), (true, 2), (false, 1)] {
        for direction in [Direction::Forward, Direction::Reverse] {
            for path in 0..paths {
                for (number, then) in (1..=70).flat_map(|n| [(n, Then::Finish), (n, Then::Silence)]) {
                    let mut net = pair(mptcp, paths, number);
                    net.middlebox(path, DropOne { direction, number, seen: 0 });
                    let name =
                        format!("mptcp {mptcp}, {direction:?}, packet {number} on path {path} of {paths}");
                    exchange(net, then, &name, false);
                }
            }
        }
    }
}

/// What is done to packets with the option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Deed {
    Strip,
    Drop,
}

/// For a while, options of one subtype (or of any) are stripped, or the packets dropped that carry them.
#[derive(Debug)]
struct ForAWhile {
    from: Instant,
    to: Instant,
    direction: Option<Direction>,
    subtype: Option<u8>,
    deed: Deed,
}

impl ForAWhile {
    fn carries(&self, packet: &Packet) -> bool {
        let wanted = |bytes: &[u8]| {
            self.subtype.is_none_or(|s| MptcpPacket::new(bytes).is_ok_and(|o| o.subtype() == s))
        };
        packet
            .tcp()
            .is_some_and(|t| t.raw_options().flatten().any(|o| o.kind == kind::MPTCP && wanted(o.bytes)))
    }
}

impl Middlebox for ForAWhile {
    fn process(&mut self, now: Instant, direction: Direction, packet: Packet, out: &mut Output) {
        let meant = self.direction.is_none_or(|d| d == direction) && self.from <= now && now < self.to;
        if !meant || !self.carries(&packet) {
            out.send(direction, packet);
        } else if self.deed == Deed::Strip {
            let mut strip = StripMptcp::new(StripWhere::Everything);
            strip.subtype = self.subtype;
            strip.process(now, direction, packet, out);
        }
    }
}

#[test]
fn no_kind_of_option_that_is_missing_for_a_while_makes_both_ends_wait() {
    let subtypes = [
        None,
        Some(subtype::MP_CAPABLE),
        Some(subtype::MP_JOIN),
        Some(subtype::DSS),
        Some(subtype::ADD_ADDR),
        Some(subtype::REMOVE_ADDR),
        Some(subtype::MP_FAIL),
        Some(subtype::MP_FASTCLOSE),
    ];
    let (mut runs, mut complete) = (0, 0);
    for subtype in subtypes {
        for deed in [Deed::Strip, Deed::Drop] {
            for direction in [None, Some(Direction::Forward), Some(Direction::Reverse)] {
                for (from, long) in [(0, 40), (25, 60), (45, 3000), (65, 300), (90, 50), (110, 30_000)] {
                    for (paths, then) in
                        [(1, Then::Finish), (2, Then::Finish), (1, Then::Silence), (2, Then::Silence)]
                    {
                        let from = Instant::ZERO + Duration::from_millis(from);
                        let to = from + Duration::from_millis(long);
                        let name = format!("{subtype:?} {deed:?} {direction:?} {from}..{to}, {paths} paths");
                        let mut net = pair(true, paths, runs);
                        for path in 0..paths {
                            net.middlebox(path, ForAWhile { from, to, direction, subtype, deed });
                        }
                        runs += 1;
                        complete += u64::from(exchange(net, then, &name, true));
                    }
                }
            }
        }
    }
    // Options that a box takes away in mid-connection may end it with an error (RFC 8684 §3.7); that is the
    // exception.
    assert!(complete * 10 >= runs * 9, "only {complete} of {runs} transfers were completed");
}

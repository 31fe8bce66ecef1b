//! Two live ends never wait for each other for ever, whatever single packet an adversary drops, and whatever
//! kind of option, of MPTCP or of TCP, it takes away for a while. What is waited for, and which timer makes the
//! peer speak: docs/src/waiting.md.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use umptcp_netsim::middlebox::{Middlebox, Output};
use umptcp_netsim::network::{FlowEnd, Network};
use umptcp_netsim::{Direction, Duration, FlowId, Instant, Link, Packet, Pair, Side};
use umptcp_stack_core::Stack;
use umptcp_stack_core::config::ConnectionConfig;
use umptcp_stack_core::wire::mptcp::{MptcpPacket, subtype};
use umptcp_stack_core::wire::tcp::{RawOption, kind};
use umptcp_types::ConnectionId;

/// Bytes each way: some round trips of the initial window.
const BYTES: u64 = 40_000;
/// Longer than any back-off and any limit but the user timeout, which must not be what ends the wait.
const LONG: Duration = Duration::from_secs(400);
const USER_TIMEOUT: Duration = Duration::from_secs(7200);

/// What connects the two ends.
#[derive(Clone, Copy, Debug)]
struct Between {
    mptcp: bool,
    paths: usize,
    ipv6: bool,
}

const MPTCP: Between = Between { mptcp: true, paths: 1, ipv6: false };
const TWO_PATHS: Between = Between { paths: 2, ..MPTCP };
const PLAIN: Between = Between { mptcp: false, ..MPTCP };
const EVERY_KIND: [Between; 6] = [
    MPTCP,
    TWO_PATHS,
    PLAIN,
    Between { ipv6: true, ..MPTCP },
    Between { ipv6: true, ..TWO_PATHS },
    Between { ipv6: true, ..PLAIN },
];

impl Between {
    fn config(self) -> ConnectionConfig {
        ConnectionConfig::default()
            .with_mptcp(self.mptcp)
            .with_advertise_addresses(true)
            .with_user_timeout(USER_TIMEOUT)
    }

    fn pair_over(self, link: &Link, config: ConnectionConfig, seed: u64) -> Pair {
        let builder = (0..self.paths).fold(Pair::builder(), |b, _| b.path(link.clone()));
        builder.config(config).ipv6(self.ipv6).seed(seed).build()
    }

    fn pair(self, seed: u64) -> Pair {
        self.pair_over(&Link::mbit(20).delay_ms(10), self.config(), seed)
    }
}

/// What both ends do: send, and then finish or fall silent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    Finish,
    Silence,
}

/// Both ends send; the network must come to rest, with all data delivered and acknowledged. Says whether it
/// did; an end that an error told of is all right only where `may_fail`.
fn exchange(net: Pair, then: Then, name: &str, may_fail: bool) -> bool {
    exchange_while(net, then, name, may_fail, |_, _| ())
}

/// The same, and `plan` says what else happens to the connection.
fn exchange_while(
    mut net: Pair,
    then: Then,
    name: &str,
    may_fail: bool,
    plan: impl FnOnce(&mut Pair, FlowId),
) -> bool {
    let spec = net.flow_spec();
    let flow = net.add_flow(spec).unwrap_or_else(|e| panic!("{name}: {e}"));
    plan(&mut net, flow);
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
    for between in EVERY_KIND {
        for direction in [Direction::Forward, Direction::Reverse] {
            for path in 0..between.paths {
                for (number, then) in (1..=70).flat_map(|n| [(n, Then::Finish), (n, Then::Silence)]) {
                    let mut net = between.pair(number);
                    net.middlebox(path, DropOne { direction, number, seen: 0 });
                    let name = format!("{between:?}, {direction:?}, packet {number} on path {path}");
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

/// Which options are meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wanted {
    /// Those of a kind of TCP's.
    Kind(u8),
    /// Those of a subtype of MPTCP.
    Subtype(u8),
    /// All but what only fills up.
    All,
}

impl Wanted {
    fn means(self, option: &RawOption<'_>) -> bool {
        match self {
            Wanted::Kind(kind) => option.kind == kind,
            Wanted::Subtype(subtype) => {
                option.kind == kind::MPTCP
                    && MptcpPacket::new(option.bytes).is_ok_and(|o| o.subtype() == subtype)
            }
            Wanted::All => option.kind != kind::NOP && option.kind != kind::END,
        }
    }
}

/// For a while, options are overwritten with NOPs, or the packets dropped that carry them.
#[derive(Clone, Debug)]
struct ForAWhile {
    from: Instant,
    to: Instant,
    direction: Option<Direction>,
    wanted: Wanted,
    deed: Deed,
    /// Packets that this was done to.
    done: Arc<AtomicU64>,
}

impl ForAWhile {
    /// The options without those meant, if there are any of these.
    fn stripped(&self, packet: &Packet) -> Option<Vec<u8>> {
        let (mut left, mut found) = (Vec::with_capacity(40), false);
        for option in packet.tcp()?.raw_options().for_forwarding().flatten() {
            if self.wanted.means(&option) {
                found = true;
                left.resize(left.len() + option.bytes.len(), kind::NOP);
            } else {
                left.extend_from_slice(option.bytes);
            }
        }
        found.then_some(left)
    }
}

impl Middlebox for ForAWhile {
    fn process(&mut self, now: Instant, direction: Direction, mut packet: Packet, out: &mut Output) {
        let meant = self.direction.is_none_or(|d| d == direction) && self.from <= now && now < self.to;
        if meant && let Some(left) = self.stripped(&packet) {
            self.done.fetch_add(1, Ordering::Relaxed);
            if self.deed == Deed::Drop {
                return;
            }
            packet.set_tcp_options(&left);
        }
        out.send(direction, packet);
    }
}

/// In which directions, from when on and for how long, in milliseconds: a handshake takes 40, all data some 50
/// more.
const WHILES: [(u64, u64); 6] = [(0, 40), (25, 60), (45, 3000), (65, 300), (90, 50), (110, 30_000)];
const DIRECTIONS: [Option<Direction>; 3] = [None, Some(Direction::Forward), Some(Direction::Reverse)];

/// Calls `exchange` with a network for each way to take `wanted` options away, and with what is to follow. Says how many of the exchanges
/// were complete and how many there were; the box must have met the option.
fn take_away(
    wanted: Wanted,
    whiles: &[(u64, u64)],
    pair: impl Fn(u64) -> Pair,
    exchange: impl Fn(Pair, Then, &str) -> bool,
) -> (u64, u64) {
    let (mut runs, mut complete) = (0, 0);
    let done = Arc::new(AtomicU64::new(0));
    let ways = DIRECTIONS.into_iter().flat_map(|d| whiles.iter().map(move |w| (d, *w)));
    for (direction, (from, long)) in ways {
        for (deed, then) in [
            (Deed::Strip, Then::Finish),
            (Deed::Strip, Then::Silence),
            (Deed::Drop, Then::Finish),
            (Deed::Drop, Then::Silence),
        ] {
            let (from, to) = (ms(from), ms(from + long));
            let mut net = pair(runs);
            for path in 0..net.cables().len() {
                let done = done.clone();
                net.middlebox(path, ForAWhile { from, to, direction, wanted, deed, done });
            }
            runs += 1;
            let name = format!("{wanted:?} {deed:?} {direction:?} {from}..{to}, {then:?}");
            complete += u64::from(exchange(net, then, &name));
        }
    }
    assert_ne!(done.load(Ordering::Relaxed), 0, "{wanted:?}: no packet carries it");
    (complete, runs)
}

fn ms(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

/// What befalls a connection besides.
type Story = fn(&mut Pair, FlowId);

fn quiet(_: &mut Pair, _: FlowId) {}

/// Does something to the stack of one side, and the connection's id in it.
fn on_stack(
    net: &mut Network,
    flow: FlowId,
    side: Side,
    act: impl FnOnce(Instant, &mut Stack, ConnectionId),
) {
    let (node, connection) = (net.flow(flow).end(side).node, net.flow(flow).end(side).connection);
    if let Some(connection) = connection {
        net.with_stack(node, |now, stack| act(now, stack, connection));
    }
}

/// Both ends call the newest subflow a backup, and a moment later the client loses its last path.
fn steered(net: &mut Pair, flow: FlowId) {
    net.at(ms(110), move |net| {
        for side in [Side::Client, Side::Server] {
            on_stack(net, flow, side, |now, stack, connection| {
                if let Some(newest) = stack.subflows(connection).last() {
                    // In plain TCP, after a fallback, this is an error.
                    let _ = stack.set_backup(now, connection, newest.id, true);
                }
            });
        }
    });
    let client = net.client();
    net.at(ms(250), move |net| {
        if let [_, .., last] = net.paths(client)[..] {
            net.remove_path(client, last);
        }
    });
}

/// A box changes checksums of DSS options for some milliseconds (not payload, which the last subflow would fall
/// back for, and deliver as it is: RFC 8684 §3.7).
fn corrupted(net: &mut Pair, _: FlowId) {
    for path in 0..net.cables().len() {
        net.middlebox(path, Corrupt { from: ms(90), to: ms(120) });
    }
}

#[derive(Debug)]
struct Corrupt {
    from: Instant,
    to: Instant,
}

impl Middlebox for Corrupt {
    fn process(&mut self, now: Instant, direction: Direction, mut packet: Packet, out: &mut Output) {
        if self.from <= now && now < self.to {
            let mut options = Vec::with_capacity(40);
            for option in packet.tcp().iter().flat_map(|t| t.raw_options().for_forwarding().flatten()) {
                options.extend_from_slice(option.bytes);
                // RFC 8684 §3.3: with the flag M there is a mapping, and the checksum comes last.
                if Wanted::Subtype(subtype::DSS).means(&option) && option.bytes[3] & 4 != 0 {
                    *options.last_mut().expect("the option") ^= 1;
                }
            }
            packet.set_tcp_options(&options);
        }
        out.send(direction, packet);
    }
}

#[test]
fn no_option_of_mptcp_that_is_missing_for_a_while_makes_both_ends_wait() {
    let of = Wanted::Subtype;
    let (mut complete, mut runs) = (0, 0);
    for (wanted, story, paths, mbit) in [
        (Wanted::Kind(kind::MPTCP), quiet as Story, 1..=2, 20),
        (of(subtype::MP_CAPABLE), quiet, 1..=2, 20),
        (of(subtype::MP_JOIN), quiet, 2..=2, 20),
        (of(subtype::DSS), quiet, 1..=2, 20),
        (of(subtype::ADD_ADDR), quiet, 2..=2, 20),
        (of(subtype::REMOVE_ADDR), steered, 2..=2, 1),
        (of(subtype::MP_PRIO), steered, 2..=2, 1),
        (of(subtype::MP_FAIL), corrupted, 1..=2, 1),
        (of(subtype::MP_TCPRST), corrupted, 2..=2, 1),
    ] {
        for (paths, ipv6) in paths.flat_map(|paths| [(paths, false), (paths, true)]) {
            let between = Between { paths, ipv6, ..MPTCP };
            let corrupts = [of(subtype::MP_FAIL), of(subtype::MP_TCPRST)].contains(&wanted);
            let config = between.config().with_checksum(corrupts);
            let pair = |seed| between.pair_over(&Link::mbit(mbit).delay_ms(10), config.clone(), seed);
            let (c, r) = take_away(wanted, &WHILES, pair, |net, then, name| {
                exchange_while(net, then, &format!("{between:?} {name}"), true, story)
            });
            (complete, runs) = (complete + c, runs + r);
        }
    }
    // Options that a box takes away in mid-connection may end it with an error (RFC 8684 §3.7); that is the
    // exception.
    assert!(complete * 10 >= runs * 9, "only {complete} of {runs} transfers were completed");
}

#[test]
fn no_option_of_tcp_that_is_missing_for_a_while_makes_both_ends_wait() {
    // SACK blocks are there only where something is lost.
    let link = Link::mbit(20).delay_ms(10).loss(0.05);
    let (mut complete, mut runs) = (0, 0);
    for wanted in [
        Wanted::Kind(kind::MSS),
        Wanted::Kind(kind::WINDOW_SCALE),
        Wanted::Kind(kind::SACK_PERMITTED),
        Wanted::Kind(kind::SACK),
        Wanted::Kind(kind::TIMESTAMPS),
        Wanted::All,
    ] {
        for between in EVERY_KIND {
            let pair = |seed| between.pair_over(&link, between.config(), seed);
            let (c, r) = take_away(wanted, &WHILES, pair, |net, then, name| {
                exchange(net, then, &format!("{between:?} {name}"), true)
            });
            (complete, runs) = (complete + c, runs + r);
        }
    }
    assert!(complete * 10 >= runs * 9, "only {complete} of {runs} transfers were completed");
}

#[test]
fn a_fast_close_of_which_options_or_packets_are_missing_is_learnt_of() {
    for between in [MPTCP, TWO_PATHS, Between { ipv6: true, ..MPTCP }, Between { ipv6: true, ..TWO_PATHS }] {
        let whiles = [(65, 20), (65, 300), (65, 5_000)];
        take_away(
            Wanted::Subtype(subtype::MP_FASTCLOSE),
            &whiles,
            |seed| between.pair(seed),
            |mut net, _, name| {
                let spec = net.flow_spec();
                let flow = net.add_flow(spec).unwrap_or_else(|e| panic!("{name}: {e}"));
                net.send(flow, Side::Server, 10_000_000);
                net.at(ms(75), move |net| net.abort(flow, Side::Client));
                net.run_until_idle(LONG).unwrap_or_else(|e| panic!("{between:?} {name}: {e}"));
                let server = &net.flow(flow).server;
                let error = server.closed.and_then(|(_, error)| error);
                assert!(error.is_some(), "{between:?} {name}: the server was not told: {server:?}");
                true
            },
        );
    }
}

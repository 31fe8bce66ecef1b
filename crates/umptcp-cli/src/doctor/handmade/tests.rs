//! Handmade segments against a server of ours behind each middlebox of the simulator, in each direction.

use super::link::{Link, Site};
use super::open::Later;
use super::probe::{Seen, Syn, examine};
use super::{Join, Way, join, of_syn};
use bytes::Bytes;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use umptcp_netsim::Direction;
use umptcp_netsim::Packet;
use umptcp_netsim::middlebox::{
    AcknowledgingProxy, Aim, DropIf, Duplicate, DuplicateOptions, InjectReset, JoinSegments, Middlebox, Nat,
    OneWay, Options, Output, RandomiseSequence, Reorder, RewritePayload, SplitSegments, StripMptcp,
    StripWhere,
};
use umptcp_stack_core::Stack;
use umptcp_stack_core::config::{ConnectionConfig, ListenOptions, StackConfig};
use umptcp_stack_core::device::{ChecksumState, HeaderBuf, PathConfig};
use umptcp_stack_core::event::Event;
use umptcp_stack_core::info::Received;
use umptcp_stack_core::wire::mptcp::subtype;
use umptcp_types::{Instant, PathId};

const REQUEST: &[u8] = b"HEAD / HTTP/1.0\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.0 200 OK\r\n\r\n";
/// One way.
const DELAY: Duration = Duration::from_millis(10);

/// A server, and the time.
struct World {
    now: Instant,
    server: Stack,
    config: ConnectionConfig,
}

impl World {
    fn new(config: ConnectionConfig, address: IpAddr) -> Arc<Mutex<World>> {
        let mut server = Stack::new(StackConfig::default(), [7; 32]);
        server.path_added(Instant::ZERO, PathConfig::new("server", address));
        let listen = ListenOptions::new(SocketAddr::new(address, 80), 16).with_config(config.clone());
        server.listen(listen).expect("the port is free");
        Arc::new(Mutex::new(World { now: Instant::ZERO, server, config }))
    }

    /// The program at the server: it answers each request, and ends when its client ends.
    fn serve(&mut self) {
        let now = self.now;
        while let Some(event) = self.server.poll_event() {
            match event {
                Event::Incoming { incoming, .. } => {
                    let _ = self.server.accept(now, incoming, &self.config);
                }
                Event::Readable { connection } => {
                    while let Ok(received) = self.server.receive(now, connection, 1 << 16) {
                        match received {
                            Received::Data(_) => {
                                let _ = self.server.send(now, connection, Bytes::from_static(ANSWER));
                            }
                            Received::End => {
                                let _ = self.server.shutdown(now, connection);
                                break;
                            }
                            Received::Empty => break,
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

/// A path to the server, with a box on it.
struct Cable {
    world: Arc<Mutex<World>>,
    middlebox: Box<dyn Middlebox>,
    /// On their way: when they arrive, where.
    way: VecDeque<(Instant, Direction, Packet)>,
    /// The client's address: what the server sends elsewhere is another path's.
    own: IpAddr,
    others: Arc<Mutex<Vec<Packet>>>,
}

impl Cable {
    fn put(&mut self, now: Instant, direction: Direction, packet: Packet) {
        let mut out = Output::default();
        self.middlebox.process(now, direction, packet, &mut out);
        self.take(now, out);
    }

    fn take(&mut self, now: Instant, mut out: Output) {
        while let Some((direction, packet)) = out.take() {
            self.way.push_back((now + DELAY, direction, packet));
        }
    }

    /// What the server sends, of which this path takes its own.
    fn collect(&mut self) {
        let world = Arc::clone(&self.world);
        let mut world = world.lock().expect("one thread");
        let now = world.now;
        loop {
            world.serve();
            let Some(transmit) = world.server.poll_transmit(now) else { break };
            self.others.lock().expect("one thread").push(Packet::from_transmit(transmit));
        }
        drop(world);
        let all = std::mem::take(&mut *self.others.lock().expect("one thread"));
        let (mine, others) = all.into_iter().partition::<Vec<_>, _>(|p| p.destination() == Some(self.own));
        *self.others.lock().expect("one thread") = others;
        for packet in mine {
            let mut single = Vec::new();
            packet.split(|packet| single.push(packet));
            for packet in single {
                self.put(now, Direction::Reverse, packet);
            }
        }
    }
}

impl Link for Cable {
    fn now(&self) -> Duration {
        self.world.lock().expect("one thread").now.saturating_duration_since(Instant::ZERO)
    }

    fn send(&mut self, header: HeaderBuf, payload: Bytes) {
        let bytes = [header.as_slice(), &payload].concat();
        let packet = Packet::from_bytes(Bytes::from(bytes), None, ChecksumState::Unverified);
        let now = self.world.lock().expect("one thread").now;
        self.put(now, Direction::Forward, packet);
    }

    fn receive(&mut self, until: Duration) -> Option<Bytes> {
        let until = Instant::ZERO + until;
        loop {
            self.collect();
            let now = self.world.lock().expect("one thread").now;
            if let Some(at) = self.way.iter().position(|(at, _, _)| *at <= now) {
                let (_, direction, mut packet) = self.way.remove(at).expect("it is there");
                if direction == Direction::Reverse {
                    packet.complete_checksum();
                    return Some(Bytes::from(packet.to_vec()));
                }
                self.world.lock().expect("one thread").server.handle_packet(now, PathId(0), packet.to_rx());
                continue;
            }
            let mut world = self.world.lock().expect("one thread");
            let timeout = world.server.poll_timeout();
            let arrival = self.way.iter().map(|(at, _, _)| *at).min();
            let next = [timeout, arrival, self.middlebox.next_deadline()].into_iter().flatten().min();
            let next = next.filter(|next| *next < until);
            world.now = next.unwrap_or(until).max(now);
            let now = world.now;
            next?;
            if timeout.is_some_and(|at| at <= now) {
                world.server.handle_timeout(now);
            }
            drop(world);
            if self.middlebox.next_deadline().is_some_and(|at| at <= now) {
                let mut out = Output::default();
                self.middlebox.handle_timeout(now, &mut out);
                self.take(now, out);
            }
        }
    }
}

/// Something on the way that does nothing.
#[derive(Debug)]
struct Nothing;

impl Middlebox for Nothing {
    fn process(&mut self, _now: Instant, direction: Direction, packet: Packet, out: &mut Output) {
        out.send(direction, packet);
    }
}

fn address(family: u8, host: u8) -> IpAddr {
    match family {
        4 => IpAddr::from([10, 0, 0, host]),
        _ => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(host)]),
    }
}

/// Paths to one server, each with its box.
fn sites(config: ConnectionConfig, family: u8, boxes: Vec<Box<dyn Middlebox>>) -> Vec<Site> {
    let server = address(family, 200);
    let world = World::new(config, server);
    let others = Arc::new(Mutex::new(Vec::new()));
    let site = |(n, middlebox): (usize, Box<dyn Middlebox>)| {
        let own = address(family, n as u8 + 1);
        let (world, others) = (Arc::clone(&world), Arc::clone(&others));
        let cable = Cable { world, middlebox, way: VecDeque::new(), own, others };
        Site::new(format!("p{n}"), Box::new(cable), own, SocketAddr::new(server, 80), 40_000..=50_000)
    };
    boxes.into_iter().enumerate().map(site).collect()
}

/// What is seen of one box: with a request, and without; by IPv4, and by IPv6.
#[track_caller]
fn assert_seen<M: Middlebox + 'static>(make: impl Fn() -> M, with: Seen, without: Seen) {
    for family in [4, 6] {
        for (request, expected) in [(REQUEST, with), (&[][..], without)] {
            let mut sites = sites(ConnectionConfig::default(), family, vec![Box::new(make())]);
            let seen = examine(&mut sites[0], request);
            assert_eq!(seen, expected, "IPv{family}, a request of {} bytes", request.len());
        }
    }
}

const fn early(syn: Syn) -> Seen {
    Seen { syn, later: Later::Untried }
}

const fn after(later: Later) -> Seen {
    Seen { syn: Syn::Passes, later }
}

const FINE: Seen = after(Later::Passes);

/// Only what goes one way.
fn way<M: Middlebox>(direction: Direction, middlebox: M) -> OneWay<M> {
    OneWay { direction, inner: middlebox }
}

#[test]
fn nothing_is_found_where_nothing_is() {
    assert_seen(|| Nothing, FINE, FINE);
}

#[test]
fn a_server_that_does_without_mptcp_is_no_path_s_fault() {
    let config = ConnectionConfig::default().with_mptcp(false);
    let mut sites = sites(config, 4, vec![Box::new(Nothing)]);
    let Seen { syn, .. } = examine(&mut sites[0], REQUEST);
    // Our stack refuses joins all the same.
    assert_eq!(syn, Syn::Plain(Way::FromServer));
    let text = of_syn(syn, false).expect("it is something");
    assert!(text.what.contains("or its program does without"), "{text:?}");
    assert!(of_syn(syn, true).is_some_and(|text| text.what.contains("something on this path")));
    // A kernel without MPTCP knows no option, as if it were taken out of what is sent to it.
    assert_eq!(of_syn(Syn::Plain(Way::ToServer), false), None);
}

#[test]
fn what_strips_the_handshake_is_told_with_its_direction() {
    let up = early(Syn::Plain(Way::ToServer));
    let down = early(Syn::Plain(Way::FromServer));
    for overwrite in [true, false] {
        let strip = |which| StripMptcp { overwrite, ..StripMptcp::new(which) };
        assert_seen(|| strip(StripWhere::InitialSyn), up, up);
        assert_seen(|| strip(StripWhere::SynAck), down, down);
        assert_seen(|| strip(StripWhere::Syn), up, up);
        assert_seen(|| strip(StripWhere::Everything), up, up);
        assert_seen(|| way(Direction::Forward, strip(StripWhere::Everything)), up, up);
        assert_seen(|| way(Direction::Reverse, strip(StripWhere::Everything)), down, down);
    }
}

#[test]
fn what_strips_later_is_told_with_its_direction() {
    let up = after(Later::Stripped(Way::ToServer));
    let down = after(Later::Stripped(Way::FromServer));
    let strip = || StripMptcp::new(StripWhere::AfterSyn);
    assert_seen(|| way(Direction::Forward, strip()), up, up);
    assert_seen(|| way(Direction::Reverse, strip()), down, down);
    assert_seen(strip, up, up);
}

/// Takes the option out of segments with data.
#[derive(Debug)]
struct StripData;

impl Middlebox for StripData {
    fn process(&mut self, now: Instant, direction: Direction, packet: Packet, out: &mut Output) {
        if packet.payload().is_empty() {
            out.send(direction, packet);
        } else {
            StripMptcp::new(StripWhere::Everything).process(now, direction, packet, out);
        }
    }
}

#[test]
fn what_strips_data_only_is_told_with_its_direction() {
    let down = after(Later::StrippedFromData(Way::FromServer));
    // Nothing is found without data.
    assert_seen(|| way(Direction::Reverse, StripData), down, FINE);
    // The server has seen that we speak MPTCP, and data without it.
    for family in [4, 6] {
        let strip: Box<dyn Middlebox> = Box::new(way(Direction::Forward, StripData));
        let mut sites = sites(ConnectionConfig::default(), family, vec![strip]);
        let Seen { syn: Syn::Passes, later } = examine(&mut sites[0], REQUEST) else {
            panic!("it passes the SYN")
        };
        let found =
            matches!(later, Later::Stripped(_) | Later::StrippedFromData(Way::ToServer) | Later::Reset(_));
        assert!(found, "{later:?}");
    }
}

#[test]
fn what_drops_the_handshake_is_told_with_its_direction() {
    let with_option = |_now: Instant, _: Direction, packet: &Packet| {
        packet.tcp().is_some_and(|tcp| tcp.flags().syn && tcp.mptcp_subtypes().next().is_some())
    };
    let drops = |direction| move || way(direction, DropIf::new(with_option));
    let up = early(Syn::Dropped(Way::ToServer));
    let down = early(Syn::Dropped(Way::FromServer));
    assert_seen(drops(Direction::Forward), up, up);
    assert_seen(drops(Direction::Reverse), down, down);
    let all = || DropIf::new(|_now: Instant, _: Direction, _: &Packet| true);
    assert_seen(all, early(Syn::Unreached), early(Syn::Unreached));
}

/// Answers a SYN with the SYN's own option, as some boxes do that do not know it (RFC 8684 section 3.1).
#[derive(Debug)]
struct Echo(Vec<u8>);

impl Middlebox for Echo {
    fn process(&mut self, _now: Instant, direction: Direction, mut packet: Packet, out: &mut Output) {
        let of_syn = packet.tcp().filter(|tcp| tcp.flags().syn).map(|tcp| tcp.options().to_vec());
        match of_syn {
            Some(options) if direction == Direction::Forward => self.0 = options,
            Some(_) => packet.set_tcp_options(&self.0),
            None => {}
        }
        out.send(direction, packet);
    }
}

#[test]
fn an_option_that_comes_back_is_no_answer() {
    assert_seen(|| Echo(Vec::new()), early(Syn::Changed), early(Syn::Changed));
}

#[test]
fn boxes_that_leave_options_alone_are_not_accused() {
    assert_seen(|| RandomiseSequence::new(3), FINE, FINE);
    assert_seen(|| Duplicate::new(2), FINE, FINE);
    assert_seen(DuplicateOptions::default, FINE, FINE);
    assert_seen(|| Reorder::new(3, Duration::from_millis(50)), FINE, FINE);
    assert_seen(|| SplitSegments::new(8, Options::Copied), FINE, FINE);
    assert_seen(|| JoinSegments::new(1000, Duration::from_millis(5), Options::First), FINE, FINE);
    // One packet of seven is lost.
    let lossy = || {
        let mut n = 0;
        DropIf::new(move |_now: Instant, _: Direction, _: &Packet| {
            n += 1;
            n % 7 == 1
        })
    };
    assert_seen(lossy, FINE, FINE);
}

#[test]
fn rewritten_payload_is_told_with_its_direction() {
    for direction in [Direction::Forward, Direction::Reverse] {
        let way = if direction == Direction::Forward { Way::ToServer } else { Way::FromServer };
        // In place, longer, and shorter; at the first byte, and later.
        for (at, remove, insert) in
            [(0, 1, &b"X"[..]), (5, 3, b"abc"), (5, 3, b"abcdef"), (5, 0, b"new"), (5, 3, b"a"), (5, 3, b"")]
        {
            let rewrite = || RewritePayload::new(direction, at, remove, insert);
            for family in [4, 6] {
                let mut sites = sites(ConnectionConfig::default(), family, vec![Box::new(rewrite())]);
                let seen = examine(&mut sites[0], REQUEST);
                assert_eq!(seen, after(Later::Rewritten(way)), "{direction:?} {at} {remove} {insert:?}");
            }
        }
        // Nothing is found without data.
        let mut sites =
            sites(ConnectionConfig::default(), 4, vec![Box::new(RewritePayload::new(direction, 0, 1, "X"))]);
        assert_eq!(examine(&mut sites[0], &[]), FINE);
    }
}

#[test]
fn translated_addresses_and_ports_are_no_finding() {
    assert_seen(Nat::new, FINE, FINE);
    // It is started again, and the connection that there is breaks, once.
    for ms in [5, 15, 25, 35, 45, 60] {
        assert_seen(|| Nat::new().rebinding(Instant::ZERO + Duration::from_millis(ms)), FINE, FINE);
    }
    assert_eq!(joined(Nat::new()), Join::Works);
}

#[test]
fn resets_of_others_are_not_blamed_on_options() {
    for direction in [Direction::Forward, Direction::Reverse] {
        for aim in [Aim::InWindow, Aim::Blind] {
            assert_seen(|| InjectReset::new(direction, aim, 0), FINE, FINE);
        }
        // Whoever sees the packets ends the connection.
        let inject = || InjectReset::new(direction, Aim::Exact, 0);
        assert_seen(inject, after(Later::Reset(None)), FINE);
    }
}

#[test]
fn segments_that_are_cut_and_put_together_are_no_finding() {
    for direction in [Direction::Forward, Direction::Reverse] {
        for options in [Options::Copied, Options::First] {
            for size in [1, 3, 8] {
                assert_seen(|| way(direction, SplitSegments::new(size, options)), FINE, FINE);
            }
            let join = || way(direction, JoinSegments::new(1000, Duration::from_millis(5), options));
            assert_seen(join, FINE, FINE);
        }
    }
    assert_eq!(joined(SplitSegments::new(3, Options::Copied)), Join::Works);
    assert_eq!(joined(JoinSegments::new(1000, Duration::from_millis(5), Options::First)), Join::Works);
}

#[test]
fn data_that_were_acknowledged_and_not_delivered_are_not_taken_for_options_that_passed() {
    let proxy = AcknowledgingProxy::new(Direction::Forward, 0);
    let mut sites = sites(ConnectionConfig::default(), 4, vec![Box::new(proxy)]);
    assert_ne!(examine(&mut sites[0], REQUEST), FINE);
}

/// The join by the second path, whose box this is.
fn joined(middlebox: impl Middlebox + 'static) -> Join {
    let mut sites = sites(ConnectionConfig::default(), 4, vec![Box::new(Nothing), Box::new(middlebox)]);
    let joins = join(&mut sites, 0);
    assert_eq!(joins[0].1, Join::Works, "by the path of the connection itself");
    joins[1].1
}

#[test]
fn joins_that_a_path_ate_are_not_blamed_on_the_server() {
    assert_eq!(joined(Nothing), Join::Works);
    let joins = || StripMptcp::subtype(subtype::MP_JOIN);
    assert_eq!(joined(joins()), Join::Plain(Way::ToServer));
    assert_eq!(joined(way(Direction::Forward, joins())), Join::Plain(Way::ToServer));
    assert_eq!(joined(way(Direction::Reverse, joins())), Join::Plain(Way::FromServer));
    let third = way(Direction::Forward, StripMptcp::new(StripWhere::AfterSyn));
    assert!(matches!(joined(third), Join::ThirdRefused(_)));
    // What takes options out of the server's later segments takes nothing of the join.
    let answers = way(Direction::Reverse, StripMptcp::new(StripWhere::AfterSyn));
    assert_eq!(joined(answers), Join::Works);
    let has_join = |_now: Instant, _: Direction, packet: &Packet| {
        packet.tcp().is_some_and(|tcp| tcp.mptcp_subtypes().any(|s| s == subtype::MP_JOIN))
    };
    assert_eq!(joined(DropIf::new(has_join)), Join::Dropped);
}

#[test]
fn a_server_that_takes_no_joins_is_told_from_a_path() {
    let config = ConnectionConfig::default().with_max_subflows(1);
    let mut sites = sites(config, 4, vec![Box::new(Nothing), Box::new(Nothing)]);
    let joins = join(&mut sites, 0);
    let refused = |join: &Join| matches!(join, Join::Refused(_) | Join::ThirdRefused(_));
    assert!(joins.iter().all(|(_, join)| refused(join)), "{joins:?}");
}

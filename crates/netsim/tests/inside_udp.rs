//! The matrix of middleboxes with the client's packets inside UDP, as the driver of such paths has them on the wire:
//! no box that is after TCP sees any, MPTCP stands, and each byte arrives as it was sent. And with both kinds of path over
//! each interface: whatever a box does on a path, the connection stays MPTCP, natively or inside UDP.

use std::collections::BTreeSet;
use std::net::IpAddr;
use umptcp_netsim::application::Bulk;
use umptcp_netsim::middlebox::{DropIf, Middlebox, OneWay, Output, StripMptcp, StripWhere};
use umptcp_netsim::packet::Packet;
use umptcp_netsim::{CableId, Direction, Duration, FlowSpec, Instant, Link, Network, NodeId, Side};
use umptcp_stack_core::config::{ConnectOptions, StackConfig};
use umptcp_stack_core::device::{ChecksumState, PathConfig};
use umptcp_stack_core::error::FallbackReason;
use umptcp_stack_core::stack::MptcpStatus;
use umptcp_stack_core::types::{ConnectionId, PathId};
use umptcp_testkit::simulation::matrix::{Outcome, Place, Row, Want, Ways, check, rows};
use umptcp_udp_driver::codec::{BodyHeader, Ports, TCP_HEADER, decode};

const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;

/// One end of a stretch of network where packets of TCP are datagrams of UDP.
#[derive(Debug)]
struct End {
    /// Packets that go this way enter the stretch here.
    enters: Direction,
    /// Only those from or to the client's addresses for which it holds.
    which: fn(IpAddr) -> bool,
}

/// Where the transport header begins, and where the IP header has its protocol.
fn places(packet: &[u8]) -> (usize, usize) {
    if packet[0] >> 4 == 4 { (usize::from(packet[0] & 0x0f) * 4, 9) } else { (40, 6) }
}

/// Changes the protocol, and the checksum of the IP header with it.
fn set_protocol(packet: &mut [u8], protocol: u8) {
    let (transport, at) = places(packet);
    packet[at] = protocol;
    if at == 9 {
        packet[10..12].fill(0);
        let words = packet[..transport].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
        let sum = words.sum::<u32>();
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        packet[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    }
}

fn to_datagram(packet: &Packet) -> Packet {
    let mut bytes = packet.to_vec();
    let (at, _) = places(&bytes);
    let (ports, header) = BodyHeader::of_segment(&bytes[at..]).expect("the stack sets no URG");
    let length = (bytes.len() - at) as u16;
    bytes[at..at + 2].copy_from_slice(&ports.source.to_be_bytes());
    bytes[at + 2..at + 4].copy_from_slice(&ports.destination.to_be_bytes());
    bytes[at + 4..at + 6].copy_from_slice(&length.to_be_bytes());
    bytes[at + 6..at + 8].fill(0);
    bytes[at + 8..at + 8 + header.as_slice().len()].copy_from_slice(header.as_slice());
    set_protocol(&mut bytes, PROTOCOL_UDP);
    Packet::from_bytes(bytes.into(), None, ChecksumState::Unverified)
}

fn to_segment(packet: &Packet) -> Packet {
    let mut bytes = packet.to_vec();
    let (at, _) = places(&bytes);
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let ports = Ports { source: word(at), destination: word(at + 2) };
    let header = decode(&mut bytes[at..], ports).expect("a segment has become of it");
    assert!(header >= TCP_HEADER);
    set_protocol(&mut bytes, PROTOCOL_TCP);
    Packet::from_bytes(bytes.into(), None, ChecksumState::Verified)
}

/// Whether it is a datagram of UDP.
fn is_datagram(packet: &Packet) -> bool {
    let bytes = packet.to_vec();
    bytes[places(&bytes).1] == PROTOCOL_UDP
}

impl Middlebox for End {
    fn process(&mut self, _now: Instant, direction: Direction, mut packet: Packet, out: &mut Output) {
        let meant = [packet.source(), packet.destination()].into_iter().flatten().any(self.which);
        if meant && direction == self.enters && packet.is_tcp() {
            packet.complete_checksum();
            packet = to_datagram(&packet);
        } else if meant && direction != self.enters && is_datagram(&packet) {
            packet = to_segment(&packet);
        }
        out.send(direction, packet);
    }
}

fn ends_of(which: fn(IpAddr) -> bool) -> [Box<dyn Middlebox>; 2] {
    [Box::new(End { enters: Direction::Forward, which }), Box::new(End { enters: Direction::Reverse, which })]
}

/// Every cell of these rows stays MPTCP, with each byte as it was sent.
#[track_caller]
fn check_all(rows: Vec<Row>, auto: bool) {
    for row in rows {
        for cell in row.cells() {
            let ends = || ends_of(if auto { Ways::is_inside } else { |_| true });
            let known: &'static [usize] = if cell.place.first() { &[0] } else { &[] };
            let ways = Ways::Inside { ends: &ends, auto: auto.then_some(known) };
            check(&row.cell_name(cell), &row.run_by(cell, None, ways), &Want::Mptcp);
        }
    }
}

/// A test for each group of rows and each way.
macro_rules! matrix {
    ($($group:ident),* $(,)?) => {
        mod inside {
            $(#[test] fn $group() { super::check_all(super::rows::$group(), false); })*
        }
        mod auto {
            $(#[test] fn $group() { super::check_all(super::rows::$group(), true); })*
        }
    };
}

matrix!(
    options_stripped_from_syns,
    options_stripped_after_the_syns,
    options_stripped_from_some_point_on,
    addresses_and_sequence_numbers_translated,
    segments_cut,
    segments_joined,
    payload_rewritten_and_checksums_on,
    payload_rewritten_and_checksums_strict,
    acknowledged_by_a_proxy,
    resets_injected,
    options_doubled_and_packets_disordered,
    nat_forgets_during_a_pause,
    nat_kept_by_keep_alives,
);

#[test]
fn payload_is_rewritten_without_checksums_only_where_it_is_seen() {
    check_all(rows::payload_rewritten_and_checksums_off(), false);
}

/// Where joins are stripped on the second interface, that one is used inside UDP, and the first natively.
#[test]
fn a_stripped_path_is_used_inside_udp_and_the_other_natively() {
    for row in rows::options_stripped_from_syns() {
        for cell in row.cells().into_iter().filter(|cell| cell.place == Place::SecondPath) {
            let ends = || ends_of(Ways::is_inside);
            let ways = Ways::Inside { ends: &ends, auto: Some(&[]) };
            let seen = row.run_by(cell, None, ways);
            check(&row.cell_name(cell), &seen, &Want::Mptcp);
            let used = BTreeSet::from(["client0", "client1/udp"].map(String::from));
            assert_eq!(seen.paths, used, "{}", row.cell_name(cell));
            assert!(matches!(seen.outcome, Outcome::Mptcp { .. }));
        }
    }
}

/// A client with both kinds of path over one interface or two, and a server.
struct World {
    net: Network,
    client: NodeId,
    server: NodeId,
    cables: Vec<CableId>,
}

impl World {
    fn new(seed: u64, interfaces: u8) -> World {
        let mut net = Network::new(seed);
        let client = net.add_host("client", StackConfig::default());
        let server = net.add_host("server", StackConfig::default());
        let mut cables = Vec::new();
        for i in 0..interfaces {
            let cable =
                net.add_cable(client, server, Link::mbit(10).delay_ms(10), Link::mbit(10).delay_ms(10));
            let native = PathConfig::new(format!("c{i}"), [10, 1, i, 1].into());
            net.add_path(client, native, &[cable], true);
            let udp = PathConfig::new(format!("c{i}/udp"), [10, 3, i, 1].into());
            net.add_path(client, udp.standing_in_for(format!("c{i}")), &[cable], true);
            cables.push(cable);
        }
        net.add_path(server, PathConfig::new("server", [10, 2, 0, 1].into()), &cables, true);
        World { net, client, server, cables }
    }

    /// Puts a box on an interface, between the ends of the stretch with datagrams.
    fn put(&mut self, interface: usize, boxes: Vec<Box<dyn Middlebox>>) {
        let [near, far] = ends_of(Ways::is_inside);
        let all = [vec![near], boxes, vec![far]].concat_boxes();
        all.into_iter().for_each(|b| self.net.add_middlebox(self.cables[interface], b));
    }

    /// Connects to port 5000 of the server, over these paths only if there are any, and waits until that stands.
    fn connect(&mut self, paths: Vec<PathId>) -> ConnectionId {
        let mut spec = FlowSpec::new(self.client, self.server).start(self.net.now());
        spec.paths = paths;
        spec.port = Some(5_000);
        let flow = self.net.add_flow(spec).expect("a connection can be tried");
        self.net.run_for(Duration::from_millis(500)).expect("it goes on");
        self.net.flow(flow).client.connection.expect("it was begun")
    }

    /// Runs a transfer. The names of the paths it used, and why it was plain TCP.
    fn transfer(
        &mut self,
        bytes: u64,
        during: impl FnOnce(&mut World),
    ) -> (Vec<String>, Option<FallbackReason>) {
        let spec = FlowSpec::new(self.client, self.server).applications(Bulk(bytes), Bulk(bytes));
        let start = self.net.now();
        let flow = self.net.add_flow(spec.start(start)).expect("a connection can be tried");
        during(self);
        self.net.run_until_idle(Duration::from_secs(3_600)).expect("it ends");
        let f = self.net.flow(flow);
        assert_eq!(f.error(), None, "{f:#?}");
        assert_eq!(f.end(Side::Client).progress.received, bytes);
        assert_eq!(f.end(Side::Server).progress.received, bytes);
        let stack = self.net.stack(self.client).expect("a host");
        let names = f.client.subflows.iter().filter_map(|s| stack.path(s.path)).map(|p| p.name.clone());
        (names.collect(), f.client.fell_back)
    }
}

trait Concat {
    fn concat_boxes(self) -> Vec<Box<dyn Middlebox>>;
}

impl Concat for [Vec<Box<dyn Middlebox>>; 3] {
    fn concat_boxes(self) -> Vec<Box<dyn Middlebox>> {
        self.into_iter().flatten().collect()
    }
}

fn strip() -> Box<dyn Middlebox> {
    Box::new(StripMptcp::new(StripWhere::Everything))
}

fn block_datagrams() -> Box<dyn Middlebox> {
    Box::new(DropIf::new(|_, _, p: &Packet| is_datagram(p)))
}

#[test]
fn a_network_that_blocks_udp_is_used_natively() {
    let mut world = World::new(1, 2);
    [0, 1].iter().for_each(|i| world.put(*i, vec![block_datagrams()]));
    let (paths, why) = world.transfer(300_000, |_| {});
    assert_eq!((paths, why), (vec!["c0".into(), "c1".into()], None));
}

/// Joins are stripped, then the box goes; UDP is blocked from the start, or from some time on.
#[test]
fn one_path_that_takes_neither_leaves_the_other() {
    let mut world = World::new(2, 2);
    world.put(1, vec![strip(), block_datagrams()]);
    let (paths, why) = world.transfer(1_000_000, |_| {});
    assert_eq!((paths, why), (vec!["c0".into()], None));
}

/// Datagrams are lost from the middle of a connection on: what is native carries it to its end, though it was stripped when
/// the connection began and is not any more.
#[test]
fn datagrams_that_stop_in_the_middle_are_replaced_by_what_is_native() {
    for seed in 1..5 {
        let mut world = World::new(seed, 2);
        world.put(1, vec![strip()]);
        let (paths, why) = world.transfer(12_000_000, |world| {
            let cable = world.cables[1];
            world.net.at(Instant::from_millis(800), move |net| {
                net.with_cable(cable, |_, c| c.clear_middleboxes());
                let [near, far] = ends_of(Ways::is_inside);
                for b in [near, block_datagrams(), far] {
                    net.add_middlebox(cable, b);
                }
            });
        });
        assert_eq!(why, None);
        assert_eq!(paths[..2], ["c0".to_owned(), "c1/udp".to_owned()], "{seed}");
        assert_eq!(paths.last().map(String::as_str), Some("c1"), "{seed}: {paths:?}");
    }
}

/// The SYNs of joins are swallowed on the second interface.
#[test]
fn syns_that_are_swallowed_come_inside_udp() {
    let mut world = World::new(3, 2);
    let swallow = DropIf::new(|_, _, p: &Packet| p.tcp().is_some_and(|tcp| tcp.flags().syn));
    world.put(1, vec![Box::new(OneWay { direction: Direction::Forward, inner: swallow })]);
    let (paths, why) = world.transfer(4_000_000, |_| {});
    assert_eq!((paths, why), (vec!["c0".into(), "c1/udp".into()], None));
}

/// What whoever makes connections does: it holds a plain answer while it asks inside UDP, and tells the stack what came of
/// that. Later connections go inside UDP at once, until the network is another one.
#[test]
fn a_plain_answer_is_asked_about_inside_udp_and_remembered() {
    let mut world = World::new(4, 1);
    world.put(0, vec![strip()]);
    let remote = ([10, 2, 0, 1], 5_000).into();
    let (paths, why) = world.transfer(100_000, |_| {});
    assert_eq!((paths, why), (vec!["c0".into()], Some(FallbackReason::NoOptionInSynAck)));
    let client = world.client;
    let plain = world.connect(Vec::new());
    let asked = world.net.with_stack(client, |now, stack| stack.stand_in_to_ask(now, plain)).expect("a host");
    let udp = asked.expect("a way inside UDP");
    let inside = world.connect(vec![udp]);
    let stack = world.net.stack(client).expect("a host");
    assert!(matches!(stack.info(inside).expect("it stands").mptcp, MptcpStatus::Active { .. }));
    world.net.with_stack(client, |now, stack| {
        assert!(stack.is_known_to_speak_mptcp(now, remote));
        stack.stand_in_answered(now, inside, plain);
        stack.abort(now, plain);
        stack.abort(now, inside);
    });
    let (paths, why) = world.transfer(100_000, |_| {});
    assert_eq!((paths, why), (vec!["c0/udp".into()], None));
    // Another network.
    let native = world.net.paths(client)[0];
    world.net.with_stack(client, |now, stack| stack.path_changed(now, native));
    let (paths, _) = world.transfer(100_000, |_| {});
    assert_eq!(paths, ["c0"]);
}

/// An answer inside UDP says that a native SYN is lost only when that has waited for much longer than the answer took.
#[test]
fn a_native_syn_is_late_only_beside_an_answer_inside_udp() {
    let mut world = World::new(6, 1);
    let swallow = DropIf::new(|_, _, p: &Packet| p.tcp().is_some_and(|tcp| tcp.flags().syn));
    world.put(0, vec![Box::new(swallow)]);
    let client = world.client;
    let remote = ([10, 2, 0, 1], 5_000).into();
    let [native, udp] = world.net.paths(client)[..] else { panic!("two paths") };
    let inside = world.connect(vec![udp]);
    let waiting = world.net.with_stack(client, |now, stack| {
        let mut options = ConnectOptions::new(remote);
        options.paths = vec![native];
        stack.connect(now, options).expect("it is begun")
    });
    let waiting = waiting.expect("a host");
    // The answer took 20 ms.
    for (wait, first) in [(100, native), (200, udp)] {
        world.net.run_for(Duration::from_millis(wait)).expect("it goes on");
        world.net.with_stack(client, |now, stack| {
            stack.stand_in_answered(now, inside, waiting);
            assert_eq!(stack.ways_to(now, remote, &[native, udp])[0], first, "{wait} ms more");
        });
    }
}

/// Stripped natively, and without an answer inside UDP: the reason says both, and nobody asks again for a while.
#[test]
fn a_network_that_takes_neither_is_said() {
    let mut world = World::new(5, 1);
    world.put(0, vec![strip(), block_datagrams()]);
    world.transfer(100_000, |_| {});
    let client = world.client;
    let id = world.connect(Vec::new());
    world.net.with_stack(client, |now, stack| {
        assert!(stack.stand_in_to_ask(now, id).is_some());
        stack.stand_in_silent(now, id, true);
        assert_eq!(stack.stand_in_to_ask(now, id), None);
        let reason = FallbackReason::StrippedAndNoUdp;
        assert_eq!(stack.info(id).expect("it stands").mptcp, MptcpStatus::Plain { reason });
        assert_eq!(reason.to_string(), "native: options stripped; UDP: no answer");
    });
}

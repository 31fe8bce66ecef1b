use super::*;
use crate::direction::Direction;
use crate::packet::Packet;
use crate::testing::Tcp;
use std::net::SocketAddr;
use umptcp_stack_core::wire::tcp::{TcpFlags, TcpOptions};
use umptcp_types::{Duration, Instant, SeqNumber};

const CLIENT: ([u8; 4], u16) = ([10, 1, 0, 1], 1000);
const SERVER: ([u8; 4], u16) = ([10, 2, 0, 1], 80);

fn packet(direction: Direction, seq: u32, flags: TcpFlags, options: &[u8], payload_len: usize) -> Packet {
    let (client, server) = (SocketAddr::from(CLIENT), SocketAddr::from(SERVER));
    let (source, destination) = match direction {
        Direction::Forward => (client, server),
        Direction::Reverse => (server, client),
    };
    let tcp = Tcp { source, destination, seq, flags, options, payload_len, ..Tcp::default() };
    tcp.packet()
}

fn acknowledging(mut packet: Packet, ack: u32) -> Packet {
    packet.edit_tcp(|tcp| tcp.set_ack(SeqNumber(ack)));
    packet
}

fn pass(b: &mut impl Middlebox, direction: Direction, packet: Packet) -> Vec<(Direction, Packet)> {
    let mut out = Output::default();
    b.process(Instant::from_millis(1), direction, packet, &mut out);
    let all: Vec<_> = out.packets.into();
    for (_, p) in &all {
        assert!(p.checksum_ok(), "{p:?}");
    }
    all
}

fn one(b: &mut impl Middlebox, direction: Direction, packet: Packet) -> Packet {
    let mut all = pass(b, direction, packet);
    assert_eq!(all.len(), 1);
    all.remove(0).1
}

/// SACK of 200 to 300, with NOPs before it.
fn sack(left: u32, right: u32) -> Vec<u8> {
    [&[1, 1, 5, 10][..], &left.to_be_bytes(), &right.to_be_bytes()].concat()
}

fn sack_of(packet: &Packet) -> (u32, u32) {
    let options = TcpOptions::parse(packet.tcp().unwrap().options());
    let (left, right) = options.sack[0];
    (left.0, right.0)
}

#[test]
fn sequence_numbers_change_consistently() {
    let mut b = RandomiseSequence::new(7);
    let syn = one(&mut b, Direction::Forward, packet(Direction::Forward, 100, TcpFlags::SYN, &[], 0));
    let seen = syn.tcp().unwrap().seq().0;
    assert_ne!(seen, 100);
    let answer =
        acknowledging(packet(Direction::Reverse, 500, TcpFlags::SYN | TcpFlags::ACK, &[], 0), seen + 1);
    let answer = one(&mut b, Direction::Reverse, answer);
    assert_eq!(answer.tcp().unwrap().ack().0, 101);
    let peer = answer.tcp().unwrap().seq().0;
    assert_ne!(peer, 500);
    let data = acknowledging(packet(Direction::Forward, 101, TcpFlags::ACK, &[], 10), peer + 1);
    let data = one(&mut b, Direction::Forward, data);
    assert_eq!((data.tcp().unwrap().seq().0, data.tcp().unwrap().ack().0), (seen + 1, 501));
    let ack = packet(Direction::Reverse, 501, TcpFlags::ACK, &sack(seen + 20, seen + 30), 0);
    let ack = one(&mut b, Direction::Reverse, acknowledging(ack, seen + 11));
    assert_eq!(ack.tcp().unwrap().ack().0, 111);
    assert_eq!(sack_of(&ack), (120, 130));
}

#[test]
fn nat_translates_back_and_forgets() {
    let mut b = Nat::new().expiring(Duration::from_secs(60)).rebinding(Instant::from_millis(50));
    let at = |b: &mut Nat, ms, d, p| {
        let mut out = Output::default();
        b.process(Instant::from_millis(ms), d, p, &mut out);
        out.packets.pop_front().map(|(_, p)| p)
    };
    let forward = || packet(Direction::Forward, 1, TcpFlags::ACK, &[], 0);
    let back = |to: SocketAddr| {
        let mut p = packet(Direction::Reverse, 1, TcpFlags::ACK, &[], 0);
        p.rewrite(None, Some(to));
        p
    };
    let first = at(&mut b, 1, Direction::Forward, forward()).unwrap().tcp_source().unwrap();
    assert_ne!(first, SocketAddr::from(CLIENT));
    let answer = at(&mut b, 2, Direction::Reverse, back(first)).unwrap();
    assert_eq!(answer.tcp_destination(), Some(SocketAddr::from(CLIENT)));
    // The box restarts.
    assert!(at(&mut b, 51, Direction::Reverse, back(first)).is_none());
    let second = at(&mut b, 52, Direction::Forward, forward()).unwrap().tcp_source().unwrap();
    assert_ne!(second, first);
    // Idle for a minute.
    assert!(at(&mut b, 61_000, Direction::Reverse, back(second)).is_none());
    assert_eq!(b.unsolicited, 2);
}

#[test]
fn split_keeps_the_options_it_is_told_to() {
    let options = [30, 8, 0x20, 1, 9, 9, 9, 9];
    for (fate, expected) in
        [(Options::Copied, [1, 1, 1]), (Options::First, [1, 0, 0]), (Options::Dropped, [0, 0, 0])]
    {
        let mut b = SplitSegments::new(40, fate);
        let p = packet(Direction::Forward, 1, TcpFlags::ACK | TcpFlags::PSH, &options, 100);
        let bytes = p.payload_bytes();
        let pieces = pass(&mut b, Direction::Forward, p);
        let counts: Vec<usize> =
            pieces.iter().map(|(_, p)| p.tcp().unwrap().mptcp_subtypes().count()).collect();
        assert_eq!(counts, expected);
        let seqs: Vec<u32> = pieces.iter().map(|(_, p)| p.tcp().unwrap().seq().0).collect();
        assert_eq!(seqs, [1, 41, 81]);
        let joined: Vec<u8> = pieces.iter().flat_map(|(_, p)| p.payload_bytes()).collect();
        assert_eq!(joined, bytes);
        let pushed: Vec<bool> = pieces.iter().map(|(_, p)| p.tcp().unwrap().flags().psh).collect();
        assert_eq!(pushed, [false, false, true]);
    }
}

#[test]
fn join_holds_and_appends() {
    let mut b = JoinSegments::new(1400, Duration::from_millis(5), Options::First);
    let options = [30, 8, 0x20, 1, 9, 9, 9, 9];
    assert!(
        pass(&mut b, Direction::Forward, packet(Direction::Forward, 1, TcpFlags::ACK, &options, 100))
            .is_empty()
    );
    assert!(
        pass(&mut b, Direction::Forward, packet(Direction::Forward, 101, TcpFlags::ACK, &[], 50)).is_empty()
    );
    assert_eq!(b.next_deadline(), Some(Instant::from_millis(6)));
    let mut out = Output::default();
    b.handle_timeout(Instant::from_millis(6), &mut out);
    let (_, p) = out.packets.pop_front().unwrap();
    assert!(p.checksum_ok());
    assert_eq!((p.payload().len(), p.tcp().unwrap().mptcp_subtypes().count()), (150, 1));
    assert_eq!(b.next_deadline(), None);
    // Not the next byte: no joining.
    assert!(
        pass(&mut b, Direction::Forward, packet(Direction::Forward, 1, TcpFlags::ACK, &[], 10)).is_empty()
    );
    let out = pass(&mut b, Direction::Forward, packet(Direction::Forward, 99, TcpFlags::ACK, &[], 10));
    assert_eq!(out.len(), 1);
}

#[test]
fn rewriting_adjusts_both_directions() {
    let mut b = RewritePayload::new(Direction::Forward, 10, 2, *b"longer");
    one(&mut b, Direction::Forward, packet(Direction::Forward, 0, TcpFlags::SYN, &[], 0));
    let first = one(&mut b, Direction::Forward, packet(Direction::Forward, 1, TcpFlags::ACK, &[], 20));
    assert_eq!(first.payload().len(), 24);
    assert_eq!(first.tcp().unwrap().seq().0, 1);
    let second = one(&mut b, Direction::Forward, packet(Direction::Forward, 21, TcpFlags::ACK, &[], 20));
    assert_eq!((second.tcp().unwrap().seq().0, second.payload().len()), (25, 20));
    let ack = acknowledging(packet(Direction::Reverse, 1, TcpFlags::ACK, &sack(30, 45), 0), 25);
    let ack = one(&mut b, Direction::Reverse, ack);
    assert_eq!(ack.tcp().unwrap().ack().0, 21);
    assert_eq!(sack_of(&ack), (26, 41));
    assert_eq!(b.changed, 1);
}

#[test]
fn the_proxy_acknowledges_and_swallows() {
    let mut b = AcknowledgingProxy::new(Direction::Forward, 100);
    pass(&mut b, Direction::Forward, packet(Direction::Forward, 0, TcpFlags::SYN, &[], 0));
    let all = pass(&mut b, Direction::Forward, packet(Direction::Forward, 1, TcpFlags::ACK, &[], 100));
    assert_eq!(all.len(), 2);
    let (direction, ack) = &all[0];
    assert_eq!((*direction, ack.tcp().unwrap().ack().0), (Direction::Reverse, 101));
    assert_eq!(ack.tcp_destination(), Some(SocketAddr::from(CLIENT)));
    let all = pass(&mut b, Direction::Forward, packet(Direction::Forward, 101, TcpFlags::ACK, &[], 100));
    assert_eq!(all.len(), 1, "acknowledged, not delivered");
    assert_eq!(all[0].1.tcp().unwrap().ack().0, 201);
    let late = acknowledging(packet(Direction::Reverse, 1, TcpFlags::ACK, &[], 0), 101);
    assert_eq!(one(&mut b, Direction::Reverse, late).tcp().unwrap().ack().0, 201);
    assert_eq!(b.swallowed, 100);
}

#[test]
fn resets_differ_in_aim() {
    for (aim, seq) in [(Aim::Exact, 11), (Aim::InWindow, 1_011), (Aim::Blind, 0x8000_000b)] {
        let mut b = InjectReset::new(Direction::Forward, aim, 1);
        assert_eq!(
            pass(&mut b, Direction::Forward, packet(Direction::Forward, 1, TcpFlags::ACK, &[], 10)).len(),
            1
        );
        let all = pass(&mut b, Direction::Forward, packet(Direction::Forward, 1, TcpFlags::ACK, &[], 10));
        let tcp = all[1].1.tcp().unwrap();
        assert_eq!((tcp.flags(), tcp.seq().0), (TcpFlags::RST, seq));
        assert_eq!(
            pass(&mut b, Direction::Forward, packet(Direction::Forward, 1, TcpFlags::ACK, &[], 10)).len(),
            1
        );
    }
}

#[test]
fn options_are_doubled_where_there_is_room() {
    let mut b = DuplicateOptions::default();
    let options = [30, 8, 0x20, 1, 9, 9, 9, 9];
    let p = one(&mut b, Direction::Forward, packet(Direction::Forward, 1, TcpFlags::ACK, &options, 10));
    assert_eq!(p.tcp().unwrap().mptcp_subtypes().count(), 2);
    let long: Vec<u8> = [30, 24].into_iter().chain([0x10; 22]).collect();
    let p = one(&mut b, Direction::Forward, packet(Direction::Forward, 1, TcpFlags::ACK, &long, 10));
    assert_eq!(p.tcp().unwrap().mptcp_subtypes().count(), 1);
    assert_eq!(b.changed, 1);
}

#[test]
fn held_packets_are_overtaken_and_doubled_ones_come_twice() {
    let mut b = Reorder::new(2, Duration::from_millis(3));
    assert_eq!(
        pass(&mut b, Direction::Forward, packet(Direction::Forward, 1, TcpFlags::ACK, &[], 1)).len(),
        1
    );
    assert!(
        pass(&mut b, Direction::Forward, packet(Direction::Forward, 2, TcpFlags::ACK, &[], 1)).is_empty()
    );
    assert_eq!(
        pass(&mut b, Direction::Reverse, packet(Direction::Reverse, 2, TcpFlags::ACK, &[], 1)).len(),
        1
    );
    assert_eq!(b.next_deadline(), Some(Instant::from_millis(4)));
    let mut b = Duplicate::new(2);
    let counts: Vec<usize> = (0..4)
        .map(|_| pass(&mut b, Direction::Forward, packet(Direction::Forward, 1, TcpFlags::ACK, &[], 1)).len())
        .collect();
    assert_eq!(counts, [1, 2, 1, 2]);
}

#[test]
fn strips_one_subtype_and_begins_when_told() {
    let options = [30, 8, 0x20, 1, 9, 9, 9, 9, 30, 4, 0x51, 0];
    for overwrite in [true, false] {
        let inner = StripMptcp { overwrite, ..StripMptcp::subtype(5) };
        let mut b = Since { at: Instant::from_millis(1), inner };
        let mut out = Output::default();
        let p = packet(Direction::Forward, 1, TcpFlags::ACK, &options, 0);
        b.process(Instant::ZERO, Direction::Forward, p.clone(), &mut out);
        assert_eq!(out.packets[0].1.tcp().unwrap().mptcp_subtypes().count(), 2);
        let p = one(&mut b, Direction::Forward, p);
        assert_eq!(p.tcp().unwrap().mptcp_subtypes().collect::<Vec<_>>(), [2]);
        assert_eq!(p.tcp().unwrap().options().len(), if overwrite { 12 } else { 8 });
    }
}

#[test]
fn malformed_options_are_forwarded_as_they_are() {
    let options = [99, 0, 30, 4, 0x51, 0, 98, 1, 3, 3, 7, 1];
    let mut b = StripMptcp::new(StripWhere::Everything);
    let p = one(&mut b, Direction::Forward, packet(Direction::Forward, 1, TcpFlags::ACK, &options, 0));
    assert_eq!(p.tcp().unwrap().options(), [99, 0, 1, 1, 1, 1, 98, 1, 3, 3, 7, 1]);
}

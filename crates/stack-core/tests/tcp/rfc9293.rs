//! Requirements of RFC 9293 that nothing else looks at, by their numbers.

use crate::script::{ACK, MSS, PEER, Script, ms};
use std::net::{IpAddr, SocketAddr};
use umptcp_stack_core::config::{ConnectOptions, ListenOptions};
use umptcp_stack_core::device::PathConfig;
use umptcp_stack_core::error::{ConnectError, ConnectionError};
use umptcp_stack_core::event::Event;
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::types::{Duration, SeqNumber};
use umptcp_stack_core::wire::tcp::{TcpFlags, TcpOptions, TcpRepr};
use umptcp_testkit::segment::{Segment, Sent};

/// A connection of ours to a peer whose SYN/ACK names this MSS, or none.
fn connected_to(mss: Option<u16>) -> Script {
    let mut s = Script::new();
    s.connect(Script::config().with_no_delay(true));
    s.wait(ms(20));
    s.ack = 1;
    s.inject(TcpFlags { syn: true, ..ACK }, &[], TcpOptions { mss, ..Default::default() });
    s.seq = 1;
    s.take();
    s
}

/// MUST-14, MUST-15, MUST-16: the peer's MSS, 536 if it names none, and never more than the path takes.
#[test]
fn segments_are_as_large_as_the_peer_and_the_path_take() {
    for (mss, largest) in [(Some(700), 700), (None, 536), (Some(9_000), 1_460)] {
        let mut s = connected_to(mss);
        s.write(5 * largest);
        s.wait(ms(5));
        let sizes: Vec<usize> = s.take_data().iter().map(|(_, n)| *n).collect();
        assert!(!sizes.is_empty() && sizes.iter().all(|n| *n == largest), "{mss:?}: {sizes:?}");
    }
}

/// SHLD-5, MUST-65, MUST-67: every SYN names what a packet holds beside the headers, and nothing but a SYN does.
#[test]
fn an_mss_is_in_every_syn_and_nowhere_else() {
    let mut s = Script::new();
    s.connect(Script::config());
    s.wait(Duration::from_secs(10));
    let repeated = s.take();
    assert!(repeated.len() > 2 && repeated.iter().all(|(_, seg, _)| seg.options.mss == Some(1_460)));
    // A SYN/ACK, and what follows it.
    let mut s = Script::new();
    s.segment(TcpFlags { syn: true, ack: false, ..ACK }, &[]);
    let (_, syn_ack, _) = s.take().remove(0);
    assert_eq!((syn_ack.flags.syn, syn_ack.options.mss), (true, Some(1_460)));
    s.isn = syn_ack.seq.0;
    (s.seq, s.ack) = (1, 1);
    s.segment(ACK, b"data");
    s.write(3_000);
    let sent = s.take();
    assert!(!sent.is_empty() && sent.iter().all(|(_, seg, _)| seg.options.mss.is_none()));
}

/// MUST-46: addresses that no host has alone.
#[test]
fn nobody_is_connected_to_a_group_or_to_no_address() {
    let mut s = Script::new();
    for remote in
        ["224.0.0.1:80", "255.255.255.255:80", "0.0.0.0:80", "[ff02::1]:80", "[::]:80", "10.0.0.2:0"]
    {
        let remote: SocketAddr = remote.parse().unwrap();
        let refused = s.stack.connect(s.now, ConnectOptions::new(remote));
        assert_eq!(refused, Err(ConnectError::BadRemote(remote)));
    }
}

/// MUST-57, MUST-63: nothing at all answers a SYN to a group, or one that nobody could be answered at.
#[test]
fn a_syn_to_or_from_a_group_is_dropped_in_silence() {
    let (own, peer) = ("10.0.0.1:80", "10.0.0.2:5000");
    for (from, to, answers) in [
        (peer, own, 1),
        (peer, "224.0.0.1:80", 0),
        (peer, "255.255.255.255:80", 0),
        ("224.0.0.1:5000", own, 0),
        ("255.255.255.255:5000", own, 0),
        ("0.0.0.0:5000", own, 0),
    ] {
        let mut s = Script::new();
        let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let syn = TcpRepr {
            src_port: from.port(),
            dst_port: to.port(),
            seq: SeqNumber(PEER),
            ack: SeqNumber(0),
            flags: TcpFlags { syn: true, ack: false, ..ACK },
            window: 60_000,
            urgent: 0,
            options: TcpOptions::default(),
        };
        let packet = Segment::of(from, to, &syn, &[]).received();
        s.stack.handle_packet(s.now, s.path, packet);
        s.poll();
        assert_eq!(s.take().len(), answers, "{from} to {to}");
        assert_eq!(s.counter(Counter::TcpInAddrErrors), 1 - answers as u64, "{from} to {to}");
    }
}

/// MUST-60, MUST-61: there is no PUSH call; what is written goes out by itself, PSH on its last segment.
#[test]
fn the_last_segment_of_what_is_written_carries_psh() {
    let mut s = Script::connected(Script::config());
    s.write(2 * MSS + 500);
    let at_once: Vec<_> = s.take().into_iter().map(|(_, seg, p)| (p.len(), seg.flags.psh)).collect();
    assert_eq!(at_once, [(MSS, false), (MSS, false)], "the rest waits (Nagle)");
    s.wait(ms(5));
    s.acknowledge(2 * MSS as u32);
    let rest: Vec<_> = s.take().into_iter().map(|(_, seg, p)| (p.len(), seg.flags.psh)).collect();
    assert_eq!(rest, [(500, true)]);
}

/// MUST-66, SHLD-2: a RST counts while our window is shut, and may carry data.
#[test]
fn a_reset_counts_in_front_of_a_closed_window_and_with_data() {
    for (full, payload) in [(true, &b""[..]), (false, b"why")] {
        let mut s = Script::connected(Script::config().with_receive_buffer(2 * MSS));
        if full {
            for _ in 0..2 {
                s.segment(ACK, &[1; MSS]);
                s.seq += MSS as u32;
            }
            s.wait(ms(100));
            assert_eq!(s.take().last().map(|(_, seg, _)| seg.window), Some(0));
        }
        s.segment(TcpFlags { rst: true, ..ACK }, payload);
        assert_eq!((s.state(), s.error()), ("gone", Some(ConnectionError::Reset)), "window shut: {full}");
    }
}

/// MUST-12: an end by FIN and one by RST are told apart.
#[test]
fn the_application_learns_whether_the_end_was_a_clean_one() {
    for rst in [false, true] {
        let mut s = Script::connected(Script::config());
        s.stack.shutdown(s.now, s.connection.unwrap()).unwrap();
        s.poll();
        s.ack = 2;
        s.segment(TcpFlags { fin: !rst, rst, ..ACK }, &[]);
        let ends: Vec<_> = s.events.iter().filter(|e| matches!(e, Event::Closed { .. })).collect();
        let expected = rst.then_some(ConnectionError::Reset);
        assert!(matches!(ends[..], [Event::Closed { error, .. }] if *error == expected), "{ends:?}");
    }
}

/// MUST-58, MUST-59: segments that are processed together are acknowledged together.
#[test]
fn segments_that_come_together_are_acknowledged_by_one_ack() {
    let mut s = Script::connected(Script::config());
    for k in 0..4u32 {
        let seg = TcpRepr {
            src_port: s.remote.port(),
            dst_port: s.local.port(),
            seq: SeqNumber(PEER + s.seq + k * MSS as u32),
            ack: SeqNumber(s.isn.wrapping_add(s.ack)),
            flags: ACK,
            window: s.window,
            urgent: 0,
            options: TcpOptions::default(),
        };
        let packet = Segment::of(s.remote, s.local, &seg, &[1; MSS]).received();
        s.stack.handle_packet(s.now, s.path, packet);
    }
    s.poll();
    let acks: Vec<u32> = s.take().iter().map(|(_, seg, _)| seg.ack.0).collect();
    assert_eq!(acks, [PEER + s.seq + 4 * MSS as u32]);
}

/// MUST-34, SHLD-15, SHLD-16: a peer that takes its window back.
#[test]
fn a_window_that_shrinks_holds_new_data_back_and_old_ones_are_repeated() {
    let mut s = Script::connected(Script::config().with_no_delay(true));
    s.write(4 * MSS);
    s.wait(ms(15));
    assert_eq!(s.take_data().iter().map(|(_, n)| n).sum::<usize>(), 4 * MSS);
    s.wait(ms(5));
    s.window = 2 * MSS as u16;
    s.segment(ACK, &[]);
    s.write(MSS);
    assert_eq!(s.take_data(), [], "nothing new beyond the edge");
    s.wait(Duration::from_secs(2));
    let repeated = s.take_data();
    assert!(repeated.iter().any(|(at, _)| *at == 0), "{repeated:?}");
    assert!(repeated.iter().all(|(at, _)| *at < 4 * MSS as u32), "{repeated:?}");
    // It opens again.
    s.window = 60_000;
    s.acknowledge(4 * MSS as u32);
    s.wait(ms(300));
    let fresh = s.take_data();
    assert!(fresh.iter().any(|(at, _)| *at == 4 * MSS as u32), "{fresh:?}");
    assert_eq!((s.state(), s.error()), ("ESTABLISHED", None));
}

/// SHLD-31: what comes out of order is kept for later.
#[test]
fn what_comes_early_is_kept() {
    let mut s = Script::connected(Script::config());
    s.seq = 1 + MSS as u32;
    s.segment(ACK, &[2; MSS]);
    assert_eq!(s.take().last().map(|(_, seg, _)| seg.ack.0), Some(PEER + 1));
    s.seq = 1;
    s.segment(ACK, &[1; MSS]);
    assert_eq!(s.take().last().map(|(_, seg, _)| seg.ack.0), Some(PEER + 1 + 2 * MSS as u32));
}

/// MUST-41, MUST-42: a port may be listened on while a connection is opened from it, which is not disturbed by
/// that, nor by an attempt that fails.
#[test]
fn a_port_is_listened_on_beside_the_connections_that_use_it() {
    let mut s = Script::new();
    s.connect(Script::config());
    assert_eq!(s.state(), "SYN-SENT");
    s.stack.listen(ListenOptions::new(s.local, 8)).expect("the connection's own port");
    assert!(s.stack.listen(ListenOptions::new(s.local, 8)).is_err(), "twice");
    // The connection's SYN/ACK is its own; somebody else's SYN is the listener's.
    s.wait(ms(20));
    s.ack = 1;
    s.segment(TcpFlags { syn: true, ..ACK }, &[]);
    s.seq = 1;
    assert_eq!(s.state(), "ESTABLISHED");
    s.take();
    let own = s.connection;
    s.remote.set_port(6_000);
    s.seq = 0;
    s.segment(TcpFlags { syn: true, ack: false, ..ACK }, &[]);
    let (_, answer, _) = s.take().remove(0);
    assert!(answer.flags.syn && answer.flags.ack && answer.dst_port == 6_000);
    assert_ne!(s.connection, own);
    assert_eq!(s.stack.connection_count(), 2);
}

/// MUST-43, MUST-44, MUST-45: the address that a connection is opened from can be given; otherwise one is chosen
/// before the SYN, and stays.
#[test]
fn a_connection_has_the_local_address_it_was_given_or_one_that_was_chosen() {
    let (first, second) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 1, 1]));
    for (given, used) in [(None, first), (Some(first), first), (Some(second), second)] {
        let mut s = Script::new();
        s.stack.path_added(s.now, PathConfig::new("second", second));
        let mut options = ConnectOptions::new(s.remote);
        options.config = Script::config();
        options.local_address = given;
        s.stack.connect(s.now, options).expect("connect");
        let mut from = Vec::new();
        for _ in 0..4 {
            while let Some(t) = s.stack.poll_transmit(s.now) {
                from.push(Sent::parse(&t).from.ip());
            }
            s.now = s.stack.poll_timeout().expect("a timer");
            s.stack.handle_timeout(s.now);
        }
        assert!(from.len() > 2 && from.iter().all(|a| *a == used), "{given:?}: {from:?}");
    }
    let mut s = Script::new();
    let mut options = ConnectOptions::new(s.remote);
    options.local_address = Some(second);
    assert_eq!(s.stack.connect(s.now, options), Err(ConnectError::LocalAddress(second)), "not ours");
}

//! TCP rule by rule, against a peer that is a script: what RFC 9293 and its companions ask of a single
//! connection.

mod endings;
mod rfc5961;
mod rfc7323;
mod rfc8985;
mod rfc9293;
mod script;

use script::*;
use std::net::{IpAddr, SocketAddr};
use umptcp_stack_core::config::{BufferSize, ConnectOptions, ConnectionOption, KeepAlive, ListenOptions};
use umptcp_stack_core::device::{ChecksumState, PathConfig, RxPacket};
use umptcp_stack_core::error::{ConnectError, ConnectionError, SetError};
use umptcp_stack_core::event::Event;
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::stack::Received;
use umptcp_stack_core::types::{ConnectionId, Duration, Instant, SeqNumber};
use umptcp_stack_core::wire::icmp::Unreachable;
use umptcp_stack_core::wire::tcp::{TcpFlags, TcpOptions, Timestamps};
use umptcp_stack_core::wire::{checksum, ip};

#[test]
fn a_closed_window_is_probed_with_back_off_and_never_given_up_while_answered() {
    // RFC 9293 §3.8.6.1.
    let mut s = Script::connected(Script::config());
    s.write(20_000);
    s.wait(ms(20));
    let sent: usize = s.take_data().iter().map(|(_, n)| n).sum();
    s.window = 0;
    s.acknowledge(sent as u32);
    let closed = s.now;
    let mut probes = Vec::new();
    while s.now - closed < Duration::from_secs(400) {
        s.wait(ms(10));
        for (at, seg, payload) in s.take() {
            assert!(payload.is_empty() && seg.seq.0 == s.isn.wrapping_add(sent as u32), "below the window");
            probes.push(at - closed);
            s.segment(ACK, &[]);
        }
    }
    let gaps: Vec<_> = probes.windows(2).map(|p| p[1] - p[0]).collect();
    assert!(probes[0] >= ms(200) && probes[0] <= ms(300), "{probes:?}");
    for pair in gaps.windows(2) {
        let expected = (pair[0] * 2).min(Duration::from_secs(75));
        assert!(pair[1].abs_diff(expected) < ms(50), "{gaps:?}");
    }
    assert_eq!(s.state(), "ESTABLISHED", "far beyond the user timeout of 180 s");
    s.window = 60_000;
    s.segment(ACK, &[]);
    s.wait(ms(300));
    assert!(!s.take_data().is_empty());
}

/// RFC 9293 §3.8.3, MUST-23.
#[test]
fn a_syn_is_repeated_for_three_minutes() {
    let mut s = Script::new();
    s.connect(Script::config());
    s.wait(Duration::from_secs(179));
    let last = s.take().into_iter().filter(|(_, seg, _)| seg.flags.syn).map(|(at, ..)| at).max();
    assert!(last.is_some_and(|at| at > Instant::from_millis(120_000)), "{last:?}");
    assert_eq!(s.state(), "SYN-SENT");
    s.wait(Duration::from_secs(2));
    assert_eq!(s.error(), Some(ConnectionError::TimedOut));
}

#[test]
fn a_peer_that_leaves_data_or_probes_unanswered_is_given_up() {
    // RFC 5482, RFC 9293 §3.8.3.
    for window in [60_000, 0] {
        let user_timeout = Duration::from_secs(30);
        let mut s = Script::connected(Script::config().with_user_timeout(user_timeout));
        s.window = window;
        s.segment(ACK, &[]);
        s.write(500);
        s.wait(Duration::from_secs(29));
        assert_eq!((s.state(), s.error()), ("ESTABLISHED", None), "{window}");
        s.wait(Duration::from_secs(2));
        assert_eq!(s.error(), Some(ConnectionError::TimedOut), "{window}");
    }
}

#[test]
fn a_window_open_by_a_little_is_not_filled_at_once() {
    // RFC 9293 §3.8.6.2.1: not before the override timeout; half the largest window is enough.
    for (window, at_once) in [(300, false), (700, true), (5_000, true)] {
        let mut s = Script::new();
        s.window = 1_200;
        s.connect(Script::config());
        s.wait(ms(20));
        s.ack = 1;
        s.inject(TcpFlags { syn: true, ..ACK }, &[], TcpOptions { mss: Some(1_000), ..Default::default() });
        s.seq = 1;
        s.take();
        s.window = window;
        s.segment(ACK, &[]);
        s.write(9_000);
        let first = s.take_data();
        assert_eq!(!first.is_empty(), at_once, "{window}: {first:?}");
        s.wait(ms(500));
        let later: usize = first.iter().chain(&s.take_data()).map(|(_, n)| n).sum();
        assert!(later >= usize::from(window.min(1_000)), "{window}: {later}");
    }
}

#[test]
fn small_writes_wait_for_the_acknowledgement_of_earlier_ones_unless_told_otherwise() {
    // RFC 9293 §3.7.4.
    for (no_delay, expected) in [(false, vec![(0, 10)]), (true, vec![(0, 10), (10, 10), (20, 10)])] {
        let mut s = Script::connected(Script::config().with_no_delay(no_delay));
        for _ in 0..3 {
            s.write(10);
        }
        assert_eq!(s.take_data(), expected);
        s.wait(ms(5));
        s.acknowledge(10);
        assert_eq!(s.take_data(), if no_delay { vec![] } else { vec![(10, 20)] });
    }
}

#[test]
fn keep_alive_probes_end_a_silent_connection_and_spare_a_living_one() {
    // RFC 9293 §3.8.4.
    let settings = KeepAlive::default()
        .with_idle(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_count(3);
    let config = Script::config().with_keep_alive(Some(settings));
    let mut s = Script::connected(config.clone());
    let start = s.now;
    s.wait(Duration::from_secs(85));
    let probes: Vec<_> = s.take().into_iter().map(|(at, seg, _)| ((at - start).as_secs(), seg)).collect();
    assert_eq!(probes.iter().map(|p| p.0).collect::<Vec<_>>(), [60, 70, 80]);
    assert!(probes.iter().all(|(_, seg)| seg.seq.0 == s.isn), "one below SND.NXT");
    s.wait(Duration::from_secs(6));
    assert_eq!(s.error(), Some(ConnectionError::TimedOut));
    let mut s = Script::connected(config);
    for _ in 0..10 {
        s.wait(Duration::from_secs(61));
        assert_eq!(s.take().len(), 1);
        s.segment(ACK, &[]);
    }
    assert_eq!(s.state(), "ESTABLISHED");
}

/// For relays: what one end wants to know, the other is asked.
#[test]
fn a_probe_is_reported_where_that_is_wanted_and_a_peer_is_asked_on_demand() {
    let asked = |s: &Script| s.events.iter().filter(|e| matches!(e, Event::KeepAlive { .. })).count();
    for wanted in [false, true] {
        let mut s = Script::connected(Script::config().with_report_keep_alive(wanted));
        s.wait(Duration::from_secs(60));
        s.seq -= 1;
        s.segment(ACK, &[]);
        assert_eq!(s.take().len(), 1, "it is answered");
        assert_eq!(asked(&s), usize::from(wanted));
        s.seq += 1;
        s.segment(ACK, b"data");
        assert_eq!(asked(&s), usize::from(wanted));
    }
    let mut s = Script::connected(Script::config());
    let ask = |s: &mut Script| {
        s.stack.ask_for_life(s.now, s.connection.unwrap()).unwrap();
        s.poll();
        s.wait(ms(1));
        let probes = s.take();
        assert!(
            matches!(&probes[..], [(_, seg, data)] if seg.seq.0 == s.isn && data.is_empty()),
            "{probes:?}"
        );
    };
    ask(&mut s);
    s.segment(ACK, &[]);
    s.wait(Duration::from_secs(600));
    assert_eq!(s.take().len(), 0, "its answer is enough");
    ask(&mut s);
    s.wait(Duration::from_secs(100));
    assert_eq!(s.take().len(), 6, "every 15 s");
    // Asking again meanwhile brings no other and no delay.
    s.stack.ask_for_life(s.now, s.connection.unwrap()).unwrap();
    s.poll();
    s.wait(Duration::from_secs(19));
    assert_eq!((s.take().len(), s.error()), (1, None));
    s.wait(Duration::from_secs(2));
    assert_eq!(s.error(), Some(ConnectionError::TimedOut));
}

/// What waits to be sent is limited apart from what waits for an acknowledgement (TCP_NOTSENT_LOWAT).
#[test]
fn no_more_is_taken_ahead_of_what_is_sent_than_the_limit() {
    const LIMIT: usize = 8_000;
    let mut s = Script::connected(Script::config().with_not_sent_limit(LIMIT));
    let write = |s: &mut Script| {
        let n = s.stack.send_slice(s.now, s.connection.unwrap(), &vec![7; 100_000]).unwrap();
        s.poll();
        // Pacing.
        s.wait(ms(10));
        n
    };
    let writable = |s: &mut Script| {
        let n = s.events.iter().filter(|e| matches!(e, Event::Writable { .. })).count();
        s.events.clear();
        n
    };
    let (mut written, mut sent) = (0, 0);
    // The congestion window is open: what is taken is sent, and that makes room.
    for _ in 0..5 {
        let n = write(&mut s);
        assert!(n <= LIMIT);
        written += n;
        sent += s.take_data().iter().map(|(_, n)| n).sum::<usize>();
        assert!(written - sent <= LIMIT, "{written} written, {sent} sent");
        if writable(&mut s) == 0 {
            break;
        }
    }
    assert!(sent > LIMIT && written - sent > LIMIT / 2, "{written} written, {sent} sent");
    assert_eq!(write(&mut s), LIMIT - (written - sent));
    // Acknowledgements open the window.
    s.acknowledge(sent as u32);
    s.wait(ms(20));
    assert_eq!((writable(&mut s), s.take_data().iter().map(|(_, n)| n).sum::<usize>()), (1, LIMIT));
    assert_eq!(write(&mut s), LIMIT);
}

#[test]
fn keep_alive_without_time_between_probes_neither_floods_nor_kills() {
    let none = KeepAlive::default().with_idle(Duration::ZERO).with_interval(Duration::ZERO).with_count(0);
    let mut s = Script::connected(Script::config().with_keep_alive(Some(none)));
    for _ in 0..5 {
        s.wait(ms(1_001));
        assert_eq!(s.take().len(), 1, "a probe a second");
        s.segment(ACK, &[]);
    }
    assert_eq!(s.state(), "ESTABLISHED");
    s.wait(ms(2_500));
    assert_eq!(s.error(), Some(ConnectionError::TimedOut));
}

#[test]
fn options_change_while_the_connection_runs() {
    let mut s = Script::connected(Script::config());
    // Nagle holds back the second and third write until it is switched off.
    (0..3).for_each(|_| s.write(10));
    assert_eq!(s.take_data(), [(0, 10)]);
    s.set(ConnectionOption::NoDelay(true));
    assert_eq!(s.take_data(), [(10, 20)]);
    s.acknowledge(30);
    // Probes begin, and end, when the option says so.
    let seconds = |n| KeepAlive::default().with_idle(Duration::from_secs(n));
    s.wait(Duration::from_secs(100));
    s.set(ConnectionOption::KeepAlive(Some(seconds(50))));
    s.wait(Duration::from_secs(49));
    assert_eq!(s.take().len(), 0);
    s.wait(Duration::from_secs(2));
    assert_eq!(s.take().len(), 1);
    s.set(ConnectionOption::KeepAlive(None));
    s.wait(Duration::from_secs(10_000));
    assert_eq!(s.take().len(), 0);
    let settings = s.stack.settings(s.connection.unwrap()).unwrap();
    assert_eq!((settings.no_delay, settings.keep_alive), (true, None));
    // The user timeout counts from the last progress.
    s.write(10);
    s.wait(Duration::from_secs(20));
    s.set(ConnectionOption::UserTimeout(Duration::from_secs(30)));
    s.wait(Duration::from_secs(9));
    assert_eq!(s.error(), None);
    s.wait(Duration::from_secs(2));
    assert_eq!(s.error(), Some(ConnectionError::TimedOut));
    let gone = ConnectionId(u64::MAX);
    let refused = s.stack.set_option(s.now, gone, ConnectionOption::NoDelay(true));
    assert_eq!(refused, Err(SetError::NotFound));
    assert!(s.stack.settings(gone).is_none());
}

#[test]
fn buffers_change_while_the_connection_runs() {
    let mut s = Script::connected(Script::config().with_send_buffer(1_000).with_receive_buffer(10_000));
    let id = s.connection.unwrap();
    assert_eq!(s.stack.send_slice(s.now, id, &[7; 3_000]).unwrap(), 1_000);
    s.set(ConnectionOption::SendBuffer(BufferSize::Fixed(2_000)));
    assert!(s.events.contains(&Event::Writable { connection: id }), "there is room for who waited");
    assert_eq!(s.stack.send_slice(s.now, id, &[7; 3_000]).unwrap(), 1_000);
    // What the buffer holds stays when it becomes smaller.
    s.set(ConnectionOption::SendBuffer(BufferSize::Fixed(0)));
    assert_eq!(s.stack.send_slice(s.now, id, &[7; 1]).unwrap(), 0);
    let sent: u32 = s.take_data().iter().map(|(_, n)| *n as u32).sum();
    assert_eq!(sent, 2_000);
    s.acknowledge(sent);
    assert_eq!(s.stack.send_slice(s.now, id, &[7; 9]).unwrap(), 1);
    // Pacing may hold it back for a little.
    s.poll();
    s.wait(ms(20));
    assert_eq!(s.take_data(), [(2_000, 1)]);
    s.acknowledge(sent + 1);
    s.take();
    // A larger window is offered at once; a smaller one only as the peer uses up the larger.
    s.set(ConnectionOption::ReceiveBuffer(BufferSize::Fixed(40_000)));
    let windows: Vec<u16> = s.take().iter().map(|(_, seg, _)| seg.window).collect();
    assert_eq!(windows, [40_000]);
    s.set(ConnectionOption::ReceiveBuffer(BufferSize::Fixed(5_000)));
    s.segment(TcpFlags { psh: true, ..ACK }, &[1; 1_000]);
    s.seq += 1_000;
    s.segment(TcpFlags { psh: true, ..ACK }, &[1; 1_000]);
    s.seq += 1_000;
    s.wait(ms(500));
    assert_eq!(s.take().last().unwrap().1.window, 38_000);
    for _ in 0..38 {
        s.segment(TcpFlags { psh: true, ..ACK }, &[1; 1_000]);
        s.seq += 1_000;
    }
    assert_eq!(s.take().last().unwrap().1.window, 0);
    while let Ok(Received::Data(_)) = s.stack.receive(s.now, id, usize::MAX) {}
    s.poll();
    assert_eq!(s.take().last().unwrap().1.window, 5_000);
}

#[test]
fn asking_for_no_bytes_gets_none_and_takes_nothing() {
    let mut s = Script::connected(Script::config());
    let id = s.connection.unwrap();
    let receive = |s: &mut Script, max| s.stack.receive(s.now, id, max).unwrap();
    assert_eq!(receive(&mut s, 0), Received::Empty);
    s.segment(TcpFlags { psh: true, fin: true, ..ACK }, b"last");
    assert_eq!(receive(&mut s, 0), Received::Empty, "not data of no bytes, which would never end");
    assert_eq!(receive(&mut s, 9), Received::Data(bytes::Bytes::from_static(b"last")));
    assert_eq!(receive(&mut s, 0), Received::End);
}

#[test]
fn both_ends_close_at_once() {
    // RFC 9293 figure 13.
    let mut s = Script::connected(Script::config());
    s.stack.shutdown(s.now, s.connection.unwrap()).unwrap();
    s.poll();
    assert_eq!(s.state(), "FIN-WAIT-1");
    let (_, fin, _) = s.take().remove(0);
    assert!(fin.flags.fin);
    // The peer's FIN does not know of ours.
    s.segment(TcpFlags { fin: true, ..ACK }, &[]);
    assert_eq!(s.state(), "CLOSING");
    assert_eq!(s.take().last().unwrap().1.ack.0, PEER + 2);
    s.seq = 2;
    s.ack = 2;
    s.segment(ACK, &[]);
    assert_eq!((s.state(), s.error()), ("gone", None));
    assert!(s.events.iter().any(|e| matches!(e, Event::Closed { error: None, .. })));
    // TIME-WAIT answers a FIN that comes again, for two minutes from the last one on if need be.
    s.take();
    s.seq = 1;
    s.segment(TcpFlags { fin: true, ..ACK }, &[]);
    assert_eq!(s.take().len(), 1);
}

#[test]
fn both_ends_open_at_once() {
    // RFC 9293 figure 8.
    let mut s = Script::new();
    s.connect(Script::config());
    s.inject(
        TcpFlags { syn: true, ack: false, ..ACK },
        &[],
        TcpOptions { mss: Some(1_000), ..Default::default() },
    );
    assert_eq!(s.state(), "SYN-RECEIVED");
    let (_, answer, _) = s.take().remove(0);
    assert!(answer.flags.syn && answer.flags.ack && answer.seq.0 == s.isn && answer.ack.0 == PEER + 1);
    s.ack = 1;
    s.inject(TcpFlags { syn: true, ..ACK }, &[], TcpOptions::default());
    assert_eq!(s.state(), "ESTABLISHED");
    s.seq = 1;
    s.take();
    s.write(100);
    assert_eq!(s.take_data(), [(0, 100)]);
}

#[test]
fn segments_from_a_guesser_are_challenged() {
    // RFC 5961 §3.2, §4.2, §5.2: flags, offset of the sequence number, offset of the acknowledgement,
    // challenged.
    let rst = TcpFlags { rst: true, ack: false, ..ACK };
    let syn = TcpFlags { syn: true, ack: false, ..ACK };
    for (name, flags, seq, ack, challenged, alive) in [
        ("exact RST", rst, 0, 0, false, false),
        ("RST within the window", rst, 100, 0, true, true),
        ("RST outside the window", rst, 1 << 30, 0, false, true),
        ("SYN within the window", syn, 5, 0, true, true),
        ("SYN at the old number", syn, -1, 0, true, true),
        ("ACK of the future", ACK, 0, 5_000, true, true),
        ("ACK of the distant past", ACK, 0, -(1 << 30), true, true),
        ("outside the window", ACK, 1 << 30, 0, true, true),
    ] {
        let mut s = Script::connected(Script::config());
        s.seq = s.seq.wrapping_add_signed(seq);
        s.ack = s.ack.wrapping_add_signed(ack);
        s.segment(flags, &[]);
        assert_eq!(s.counter(Counter::TcpChallengeAck), u64::from(challenged), "{name}");
        let acks = s.take();
        assert_eq!(acks.len(), usize::from(challenged), "{name}: {acks:?}");
        assert!(acks.iter().all(|(_, seg, _)| seg.ack.0 == PEER + 1 && !seg.flags.rst), "{name}");
        assert_eq!(s.state() == "ESTABLISHED", alive, "{name}");
    }
}

#[test]
fn a_reset_behind_missing_segments_counts() {
    // RFC 5961 §3.2, extended by the right edge of what SACK has reported: that is the next number of a peer
    // whose last segments were lost or overtaken. SACK, FIN at the end, offset of the RST from the end,
    // alive.
    for (sack, fin, offset, alive) in [
        (true, false, 0, false),
        (true, false, -1, true),
        (true, false, 1, true),
        (true, false, -500, true),
        (true, true, 1, false),
        (true, true, 0, true),
        (false, false, 0, true),
    ] {
        let mut s = Script::connected_with(Script::config(), sack);
        s.seq = 1_001;
        s.segment(TcpFlags { fin, ..ACK }, &[1; 500]);
        s.take();
        s.seq = 1_501u32.wrapping_add_signed(offset);
        s.segment(TcpFlags { rst: true, ..ACK }, &[]);
        let case = (sack, fin, offset);
        assert_eq!(s.error(), (!alive).then_some(ConnectionError::Reset), "{case:?}");
        assert_eq!(s.counter(Counter::TcpChallengeAck), u64::from(alive), "{case:?}");
    }
}

#[test]
fn a_connection_has_addresses_of_one_family() {
    let mut s = Script::new();
    let remote: SocketAddr = "[2001:db8::2]:80".parse().unwrap();
    let mut options = ConnectOptions::new(remote);
    options.local_address = Some(s.local.ip());
    let refused = s.stack.connect(s.now, options);
    assert_eq!(refused, Err(ConnectError::Families(s.local.ip(), remote.ip())));
    assert_eq!((s.stack.poll_transmit(s.now).is_none(), s.stack.connection_count()), (true, 0));
}

#[test]
fn challenges_are_rationed() {
    // RFC 5961 §7.
    let mut s = Script::connected(Script::config());
    s.seq = 100;
    for _ in 0..10 {
        s.segment(TcpFlags { rst: true, ack: false, ..ACK }, &[]);
        s.wait(ms(10));
    }
    assert_eq!(s.counter(Counter::TcpChallengeAck), 1);
    assert_eq!(s.counter(Counter::TcpACKSkippedChallenge), 9);
    s.wait(ms(500));
    s.segment(TcpFlags { rst: true, ack: false, ..ACK }, &[]);
    assert_eq!(s.counter(Counter::TcpChallengeAck), 2);
    // For all connections together the number per second cannot be known beforehand.
    let mut counts = Vec::new();
    for _ in 0..4 {
        s.wait(Duration::from_secs(1));
        let before = s.counter(Counter::TcpOutRsts);
        for port in 1..3_000 {
            s.remote.set_port(port);
            s.segment(ACK, &[]);
        }
        counts.push(s.counter(Counter::TcpOutRsts) - before);
    }
    assert!(counts.iter().all(|n| (500..1_500).contains(n)), "{counts:?}");
    counts.dedup();
    assert!(counts.len() > 1, "{counts:?}");
}

#[test]
fn packets_that_lead_nowhere_are_counted() {
    let mut s = Script::connected(Script::config());
    let (local, remote) = (s.local, s.remote);
    s.local = "10.0.0.77:4000".parse().unwrap();
    s.segment(ACK, &[]);
    s.local = local;
    s.remote = "224.0.0.1:5000".parse().unwrap();
    s.segment(ACK, &[]);
    s.remote = remote;
    assert_eq!(s.counter(Counter::TcpInAddrErrors), 2);
    // A fragment, and an ICMP message of one byte.
    let mut put = |protocol, fragment: u8| {
        let mut packet = vec![0; 21];
        let (from, to) = (remote.ip(), local.ip());
        ip::emit_ip_header_for(&mut packet, (from, to), protocol, 1, 0, 9).unwrap();
        packet[6] = fragment;
        packet[10..12].fill(0);
        let sum = !checksum::fold(checksum::sum(&packet[..20], 0));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        let rx = RxPacket::new(packet.into(), ChecksumState::Verified);
        s.stack.handle_packet(s.now, s.path, rx);
    };
    put(ip::PROTOCOL_TCP, 0x20);
    put(ip::PROTOCOL_ICMP, 0x40);
    assert_eq!((s.counter(Counter::TcpReasmFails), s.counter(Counter::TcpIcmpInErrors)), (1, 1));
    assert_eq!((s.counter(Counter::TcpInErrs), s.state()), (0, "ESTABLISHED"));
    assert!(s.take().is_empty());
}

#[test]
fn time_wait_gives_way_to_what_is_newer() {
    // RFC 9293 §3.10.7.4 (TIME-WAIT), RFC 6191 §2, RFC 1337. Timestamp of the SYN, its sequence number,
    // accepted.
    for (stamp, seq, accepted) in [
        (Some(101), 0, true),
        (Some(99), 90_000, false),
        (Some(100), 90_000, true),
        (Some(100), 0, false),
        (None, 90_000, true),
        (None, 0, false),
    ] {
        let mut s = Script::new();
        // The peer connects and we close first, so that TIME-WAIT is ours.
        s.stamp = Some(100);
        let syn = TcpFlags { syn: true, ack: false, ..ACK };
        s.segment(syn, &[]);
        s.isn = s.take().remove(0).1.seq.0;
        (s.seq, s.ack) = (1, 1);
        s.segment(ACK, &[]);
        s.stack.shutdown(s.now, s.connection.unwrap()).unwrap();
        s.poll();
        s.ack = 2;
        s.segment(TcpFlags { fin: true, ..ACK }, &[]);
        s.poll();
        s.seq = 2;
        assert_eq!(s.state(), "gone");
        s.take();
        // A RST does not end it.
        s.segment(TcpFlags { rst: true, ..ACK }, &[]);
        s.stamp = stamp;
        s.seq = seq;
        s.wait(ms(10));
        s.segment(syn, &[]);
        let answers = s.take();
        let accepts = answers.iter().any(|(_, seg, _)| seg.flags.syn && seg.flags.ack);
        assert_eq!((answers.len(), accepts), (1, accepted), "{stamp:?} {seq}: {answers:?}");
    }
}

/// RFC 9293 §3.6.1, MUST-13: two maximum segment lifetimes, for which this is a minute as with Linux.
#[test]
fn time_wait_lasts_a_minute() {
    for (after, answered) in [(59, true), (61, false)] {
        let mut s = Script::connected(Script::config());
        s.stack.shutdown(s.now, s.connection.unwrap()).unwrap();
        s.poll();
        s.ack = 2;
        s.segment(TcpFlags { fin: true, ..ACK }, &[]);
        assert_eq!(s.state(), "gone");
        s.take();
        s.wait(Duration::from_secs(after));
        // The same FIN again: our last ACK was lost.
        s.segment(TcpFlags { fin: true, ..ACK }, &[]);
        let sent = s.take();
        let [(_, seg, _)] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!((seg.flags.rst, seg.flags.ack && !seg.flags.rst), (!answered, answered), "{after} s");
    }
}

#[test]
fn every_second_full_segment_is_acknowledged_at_once_and_one_alone_a_little_later() {
    // RFC 9293 §3.8.6.3, RFC 5681 §4.2. The segments are full, though options make them shorter than the MSS.
    let mut s = Script::connected(Script::config());
    let full = [1; 988];
    let send = |s: &mut Script| {
        s.segment(ACK, &full);
        s.seq += full.len() as u32;
        s.take().len()
    };
    // The first ones are acknowledged one by one, for the peer's slow start.
    while send(&mut s) == 1 {
        assert!(s.seq < 20 * 988);
    }
    assert_eq!([send(&mut s), send(&mut s), send(&mut s)], [1, 0, 1]);
    assert_eq!(send(&mut s), 0);
    s.wait(ms(39));
    assert_eq!(s.take().len(), 0);
    s.wait(ms(2));
    assert_eq!(s.take().len(), 1);
    // Out of order: at once.
    s.seq += 988;
    assert_eq!(send(&mut s), 1);
}

#[test]
fn without_sack_three_duplicates_repeat_one_segment_and_partial_acknowledgements_the_next() {
    // RFC 5681 §3.2, RFC 6582 §3.2, RFC 3042.
    let mut s = Script::connected_with(Script::config(), false);
    s.write(40 * MSS);
    s.wait(ms(20));
    let first = s.take_data();
    let sent = first.iter().map(|(at, n)| at + *n as u32).max().unwrap();
    assert!(sent >= 9 * MSS as u32, "{first:?}");
    // Two segments are lost: 0 and 3000.
    let mut fresh = Vec::new();
    for _ in 0..2 {
        s.segment(ACK, &[]);
        s.wait(ms(4));
        fresh.extend(s.take_data());
    }
    assert!(!fresh.is_empty() && fresh.iter().all(|(at, _)| *at >= sent), "limited transmit: {fresh:?}");
    s.segment(ACK, &[]);
    s.wait(ms(1));
    assert_eq!(s.take_data().first(), Some(&(0, MSS)));
    for _ in 0..4 {
        s.segment(ACK, &[]);
    }
    s.wait(ms(12));
    s.take_data();
    s.acknowledge(3 * MSS as u32);
    s.wait(ms(10));
    let again: Vec<_> = s.take_data().into_iter().filter(|(at, _)| *at < sent).collect();
    assert_eq!(again, [(3 * MSS as u32, MSS)]);
    s.acknowledge(sent + fresh.iter().map(|(_, n)| *n as u32).sum::<u32>());
    let info = s.stack.subflows(s.connection.unwrap()).remove(0);
    assert_eq!((info.recoveries, info.timeouts, info.bytes_retransmitted), (1, 0, 2 * MSS as u64));
}

#[test]
fn what_pacing_holds_back_of_a_repair_goes_when_its_time_has_come() {
    // The path has become much faster than its smoothed round-trip time: every acknowledgement is there
    // before the pacer lets the next retransmission out, and nothing else happens that would wake the stack.
    for backlog in [0, 20] {
        let mut s = Script::connected(Script::config().with_congestion("reno"));
        s.write((9 + backlog) * MSS);
        s.wait(ms(25));
        let sent = s.take_data().iter().map(|(at, n)| at + *n as u32).max().unwrap();
        assert_eq!(sent, 9 * MSS as u32);
        // Six of nine are lost.
        let edge = |at: u32| SeqNumber(s.isn.wrapping_add(1 + at));
        let sack = [(edge(6 * MSS as u32), edge(sent))].into_iter().collect();
        s.inject(ACK, &[], TcpOptions { sack, ..Default::default() });
        let mut acknowledged = 0;
        let began = s.now;
        while acknowledged < sent && s.now - began < ms(150) {
            s.wait(Duration::from_micros(100));
            let end = s.take_data().iter().map(|(at, n)| at + *n as u32).max().unwrap_or(0);
            if end > acknowledged {
                acknowledged = if end >= 6 * MSS as u32 { end.max(sent) } else { end };
                s.acknowledge(acknowledged);
            }
        }
        let info = s.stack.subflows(s.connection.unwrap()).remove(0);
        assert_eq!((info.recoveries, info.timeouts, info.bytes_retransmitted), (1, 0, 6 * MSS as u64));
        // Three more than the two and one that may go at once, 3.5 ms apart: a segment at 1.25 windows per
        // round trip.
        assert!(s.now - began < ms(15), "{:?} with {backlog} more to send", s.now - began);
    }
}

#[test]
fn a_path_that_was_only_down_gets_its_packet_size_back_even_with_a_small_window() {
    // RFC 4821 §7.4 wants packets to follow a probe. A window of four small ones has too little for that; the
    // size is known to pass.
    let mut s = Script::connected(Script::config().with_congestion("reno"));
    s.write(60 * MSS);
    s.wait(ms(20));
    let mut edge = s.take_data().iter().map(|(at, n)| at + *n as u32).max().unwrap();
    s.acknowledge(edge);
    s.wait(ms(3_000));
    let sizes: Vec<usize> = s.take_data().iter().map(|(_, n)| *n).collect();
    let small = *sizes.last().unwrap();
    assert!(sizes.contains(&MSS) && small < MSS, "{sizes:?}");
    s.window = (4 * small) as u16;
    let mut largest = 0;
    for _ in 0..60 {
        s.acknowledge(edge);
        s.wait(ms(20));
        let data = s.take_data();
        largest = largest.max(data.iter().map(|(_, n)| *n).max().unwrap_or(0));
        edge = data.iter().map(|(at, n)| at + *n as u32).max().unwrap_or(edge).max(edge);
    }
    assert_eq!(largest, MSS);
}

#[test]
fn one_late_acknowledgement_does_not_slow_what_follows() {
    // A receiver delays the ACK of a tail loss probe by more than the round trip. SRTT remembers it for long;
    // pacing must not.
    let mut s = Script::connected(Script::config().with_congestion("reno").with_send_buffer(1 << 20));
    s.write(200 * MSS);
    let all = |s: &mut Script| s.take_data().iter().map(|(at, n)| at + *n as u32).max().unwrap();
    for rtt in [ms(20), ms(150), ms(2)] {
        s.wait(rtt);
        let edge = all(&mut s);
        s.acknowledge(edge);
    }
    let info = s.stack.subflows(s.connection.unwrap()).remove(0);
    assert!(info.srtt.unwrap() > ms(20) && info.timeouts == 0, "{info:?}");
    s.wait(ms(3));
    let sent: usize = s.take_data().iter().map(|(_, n)| n).sum();
    assert!(sent as u64 >= info.window / 2, "{sent} of {} bytes in one and a half round trips", info.window);
}

#[test]
fn a_large_segment_is_at_most_a_quarter_of_the_window() {
    let config = Script::config().with_congestion("reno").with_send_buffer(2 << 20);
    let mut s = Script::with_packets(65_535).establish(config, true);
    s.write(1_000 * MSS);
    // Round trips of half a millisecond: what the rate allows to send at once is more than a window.
    let mut largest = 0;
    for _ in 0..20 {
        s.wait(Duration::from_micros(500));
        let window = s.stack.subflows(s.connection.unwrap()).remove(0).window as usize;
        let data = s.take_data();
        let most = data.iter().map(|(_, n)| *n).max().unwrap_or(0);
        assert!(most <= window / 4, "{most} of {window}");
        largest = largest.max(most);
        if let Some(edge) = data.iter().map(|(at, n)| at + *n as u32).max() {
            s.acknowledge(edge);
        }
    }
    assert!(largest > 4 * MSS, "{largest}");
}

#[test]
fn what_is_refused_as_too_old_is_not_reported_as_received() {
    // RFC 7323 §5.3, RFC 2883 §4: a packet that a retransmission with a newer timestamp has overtaken.
    let mut s = Script::new();
    s.stamp = Some(100);
    s.remote.set_port(5_001);
    s.connect(Script::config());
    s.wait(ms(20));
    s.ack = 1;
    let timestamps = Some(Timestamps { value: 100, echo: 0 });
    let options =
        TcpOptions { mss: Some(MSS as u16), sack_permitted: true, timestamps, ..Default::default() };
    s.inject(TcpFlags { syn: true, ..ACK }, &[], options);
    s.seq = 1;
    s.stamp = Some(200);
    s.segment(ACK, &[1; 100]);
    s.seq = 101;
    s.take();
    let reported = |s: &mut Script, seq: u32, len: usize, stamp: u32| {
        (s.seq, s.stamp) = (seq, Some(stamp));
        s.segment(ACK, &vec![1; len]);
        let (_, ack, _) = s.take().pop().expect("it is answered");
        assert_eq!(ack.ack.0.wrapping_sub(PEER), 101);
        let relative = |n: SeqNumber| n.0.wrapping_sub(PEER);
        ack.options.sack.iter().map(|(l, r)| (relative(*l), relative(*r))).collect::<Vec<_>>()
    };
    assert_eq!(reported(&mut s, 1_101, 1_000, 150), [], "refused: not there");
    assert_eq!(reported(&mut s, 51, 1_000, 150), [(51, 101)], "what is there of it");
    assert_eq!(s.counter(Counter::TcpPawsRejected), 2);
    assert_eq!(reported(&mut s, 1_101, 1_000, 200), [(1_101, 2_101)], "taken");
    assert_eq!(s.counter(Counter::TcpPawsRejected), 2);
}

#[test]
fn after_a_lost_syn_the_first_data_wait_three_seconds_for_an_acknowledgement() {
    // RFC 6298 §5.7: the retransmitted SYN gives no round-trip time.
    let mut s = Script::new();
    s.connect(Script::config());
    s.wait(ms(1_500));
    assert_eq!(s.take().len(), 1, "the SYN again, after a second");
    s.ack = 1;
    let options = TcpOptions { mss: Some(MSS as u16), sack_permitted: true, ..Default::default() };
    s.inject(TcpFlags { syn: true, ..ACK }, &[], options);
    s.seq = 1;
    s.write(500);
    assert_eq!(s.take_data(), [(0, 500)]);
    s.wait(ms(2_990));
    assert_eq!(s.take_data(), []);
    s.wait(ms(20));
    assert_eq!(s.take_data(), [(0, 500)]);
}

/// RFC 9293 §3.6.1, SHLD-3.
#[test]
fn segments_to_closed_ports_do_not_keep_a_connection_from_answering() {
    // Each of the two is rationed, and not one at the cost of the other (RFC 5961 §7).
    let mut s = Script::connected(Script::config());
    s.wait(Duration::from_secs(1));
    let local = s.local;
    s.local.set_port(9);
    for _ in 0..3_000 {
        s.segment(TcpFlags { syn: true, ack: false, ..ACK }, &[]);
    }
    let resets = s.take();
    assert!(resets.len() < 3_000 && resets.iter().all(|(_, seg, _)| seg.flags.rst), "{}", resets.len());
    s.local = local;
    // A keep-alive probe, and a RST in the window.
    for (seq, flags) in [(0, ACK), (100, TcpFlags { rst: true, ack: false, ..ACK })] {
        s.seq = seq;
        s.wait(ms(600));
        s.segment(flags, &[]);
        assert_eq!(s.take().len(), 1, "{flags:?}");
    }
}

#[test]
fn data_that_come_to_a_closed_window_still_acknowledge() {
    // RFC 9293 §3.10.7.4: valid ACKs are taken.
    let mut s = Script::connected(Script::config().with_receive_buffer(4096));
    s.write(1_000);
    s.wait(ms(20));
    s.take();
    while s.stack.info(s.connection.unwrap()).unwrap().readable < 4096 {
        s.segment(ACK, &[1; 512]);
        s.seq += 512;
        assert!(s.seq < 10_000);
    }
    s.wait(ms(300));
    s.take();
    s.ack = 1_001;
    s.segment(ACK, &[1; 512]);
    s.wait(Duration::from_secs(10));
    assert!(s.take_data().is_empty(), "what was acknowledged is sent again");
}

#[test]
fn a_peer_with_tiny_segments_holds_a_bounded_number_of_them() {
    // CVE-2019-11479: the records of segments of 36 bytes would take many times the memory of the data.
    let mut s = Script::new();
    s.connect(Script::config().with_send_buffer(100_000));
    s.wait(ms(20));
    s.ack = 1;
    s.window = u16::MAX;
    s.inject(TcpFlags { syn: true, ..ACK }, &[], TcpOptions { mss: Some(1), ..Default::default() });
    s.seq = 1;
    let (mut sent, mut largest) = (0, 0);
    for _ in 0..12 {
        let room = s.stack.info(s.connection.unwrap()).unwrap().writable;
        s.write(room);
        s.wait(ms(20));
        let flight = s.take_data();
        largest = largest.max(flight.len());
        sent = flight.last().map_or(sent, |(at, n)| *at as usize + n);
        s.acknowledge(sent as u32);
    }
    assert!((150..=200).contains(&largest), "{largest} segments in flight");
}

/// A translation without state rewrites only the outer header of an ICMP error: the quoted source is the
/// public address.
#[test]
fn an_icmp_error_that_quotes_a_public_address_reaches_the_connection_it_is_about() {
    for (quoted, port, heard) in
        [([10, 0, 0, 1], 4_000, true), ([192, 0, 2, 7], 4_000, true), ([192, 0, 2, 7], 4_001, false)]
    {
        let mut s = Script::new();
        s.connect(Script::config());
        let (own, remote) = (s.local.ip(), s.remote.ip());
        let mut quotation = vec![0; 20];
        ip::emit_ip_header_for(&mut quotation, (quoted.into(), remote), ip::PROTOCOL_TCP, 20, 0, 9).unwrap();
        quotation.extend(u16::to_be_bytes(port));
        quotation.extend(s.remote.port().to_be_bytes());
        quotation.extend(s.isn.to_be_bytes());
        // Destination unreachable: the port.
        let mut message = vec![3, 3, 0, 0, 0, 0, 0, 0];
        message.extend(quotation);
        let sum = !checksum::fold(checksum::sum(&message, 0));
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut packet = vec![0; 20];
        ip::emit_ip_header_for(&mut packet, (remote, own), ip::PROTOCOL_ICMP, message.len(), 0, 9).unwrap();
        packet.extend(message);
        let rx = RxPacket::new(packet.into(), ChecksumState::Verified);
        s.stack.handle_packet(s.now, s.path, rx);
        s.poll();
        assert_eq!(s.counter(Counter::TcpIcmpInErrors), u64::from(!heard), "{quoted:?} {port}");
        let said = s.events.iter().find_map(|e| match e {
            Event::Closed { error, .. } => *error,
            _ => None,
        });
        let expected = heard.then_some(ConnectionError::Unreachable(Unreachable::Port));
        assert_eq!(said, expected, "{quoted:?} {port}");
    }
}

#[test]
fn connections_to_an_alias_are_answered_from_it_and_none_is_opened_from_it() {
    let mut s = Script::new();
    s.stack.path_removed(s.now, s.path);
    let alias = IpAddr::from([10, 0, 0, 9]);
    let mut config = PathConfig::new("wire", s.local.ip());
    config.aliases = vec![alias];
    s.path = s.stack.path_added(s.now, config);
    s.stack.listen(ListenOptions::new("0.0.0.0:81".parse().unwrap(), 8)).unwrap();
    s.local = SocketAddr::new(alias, 81);
    s.segment(TcpFlags { syn: true, ack: false, ..ACK }, &[]);
    let (_, answer, _) = s.take().remove(0);
    assert!(answer.flags.syn && answer.flags.ack, "{answer:?}");
    (s.isn, s.seq, s.ack) = (answer.seq.0, 1, 1);
    s.segment(ACK, &[]);
    assert_eq!(s.state(), "ESTABLISHED");
    let mut options = ConnectOptions::new(s.remote);
    options.local_address = Some(alias);
    assert!(matches!(s.stack.connect(s.now, options), Err(ConnectError::LocalAddress(a)) if a == alias));
}

#[test]
fn an_acknowledgement_that_another_has_overtaken_is_no_old_duplicate() {
    // RFC 7323 §5.3 refuses it, since TS.Recent follows the ACKs of a peer that sends no data. Its SACK
    // blocks are taken all the same, and nothing else.
    let mut s = Script::new();
    (s.stamp, s.echo) = (Some(1_000), 0);
    let mut s = s.establish(Script::config(), true);
    s.write(10 * MSS);
    s.take();
    s.wait(ms(20));
    let isn = s.isn.wrapping_add(1);
    let block = |from: usize, to: usize| {
        let edge = |n: usize| SeqNumber(isn.wrapping_add((n * MSS) as u32));
        TcpOptions { sack: [(edge(from), edge(to))].into_iter().collect(), ..Default::default() }
    };
    let info = |s: &Script| s.stack.subflows(s.connection.unwrap()).remove(0);
    // The newer comes first: 2 segments in order, and the fifth.
    (s.stamp, s.ack) = (Some(1_030), 1 + 2 * MSS as u32);
    s.inject(ACK, &[], block(4, 5));
    let before = info(&s);
    s.take();
    // The older had only the first, and the fourth.
    (s.stamp, s.ack, s.window) = (Some(1_020), 1 + MSS as u32, 10);
    s.inject(ACK, &[], block(3, 4));
    let after = info(&s);
    assert_eq!(before.in_flight - after.in_flight, MSS as u64, "the fourth has left the network");
    assert_eq!(s.counter(Counter::TcpPawsRejected), 0);
    assert!(s.take().iter().all(|(_, _, payload)| !payload.is_empty()), "it is not answered");
    // Its window is not the latest.
    s.write(MSS);
    s.wait(ms(5));
    assert!(!s.take_data().is_empty());
    let flight = info(&s).in_flight;
    // One that would acknowledge more than its successors have, one with data, and one that is older than any
    // reordering are refused.
    for (stamp, ack, len) in [(1_020, 3 * MSS, 0), (1_020, MSS, 10), (1_030_u32.wrapping_sub(10_000), MSS, 0)]
    {
        let refused = s.counter(Counter::TcpPawsRejected);
        (s.stamp, s.ack, s.window) = (Some(stamp), 1 + ack as u32, 60_000);
        s.inject(ACK, &vec![1; len], block(5, 6));
        assert_eq!(s.counter(Counter::TcpPawsRejected), refused + 1, "{stamp} {ack} {len}");
        assert_eq!(info(&s).in_flight, flight);
    }
}

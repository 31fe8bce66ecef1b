//! Requirements of RFC 7323: scaled windows and timestamps.

use crate::script::{ACK, MSS, PEER, Script, ms};
use umptcp_stack_core::config::ConnectionConfig;
use umptcp_stack_core::error::ConnectionError;
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::stack::Received;
use umptcp_stack_core::types::{Duration, SeqNumber};
use umptcp_stack_core::wire::tcp::{TcpFlags, TcpOptions, Timestamps};

const SYN: TcpFlags = TcpFlags { syn: true, ack: false, ..ACK };
const SYN_ACK: TcpFlags = TcpFlags { syn: true, ..ACK };

fn options(window_scale: Option<u8>, stamp: Option<(u32, u32)>) -> TcpOptions {
    TcpOptions {
        mss: Some(MSS as u16),
        sack_permitted: true,
        window_scale,
        timestamps: stamp.map(|(value, echo)| Timestamps { value, echo }),
        ..Default::default()
    }
}

/// A connection of ours whose SYN/ACK has these options, and a window of `window` in it.
fn connected(config: ConnectionConfig, window: u16, answer: TcpOptions) -> Script {
    let mut s = Script::new();
    s.connect(config);
    s.wait(ms(20));
    (s.ack, s.window) = (1, window);
    s.inject(SYN_ACK, &[], answer);
    s.seq = 1;
    s
}

/// A client whose SYN has these options: our SYN/ACK.
fn answered(syn: TcpOptions) -> (Script, TcpOptions, u16) {
    let mut s = Script::new();
    s.inject(SYN, &[], syn);
    let (_, answer, _) = s.take().remove(0);
    assert!(answer.flags.syn && answer.flags.ack);
    (s.isn, s.seq, s.ack) = (answer.seq.0, 1, 1);
    (s, answer.options, answer.window)
}

fn stamps(s: &mut Script) -> Vec<Option<Timestamps>> {
    s.take().into_iter().map(|(_, seg, _)| seg.options.timestamps).collect()
}

/// What the application gets now.
fn read(s: &mut Script) -> Vec<u8> {
    match s.stack.receive(s.now, s.connection.expect("a connection"), 1 << 20) {
        Ok(Received::Data(d)) => d.to_vec(),
        _ => Vec::new(),
    }
}

/// §2.2, §2.3: the peer's windows are scaled if both SYNs had the option, save those of SYNs.
#[test]
fn the_peers_windows_are_scaled_by_what_its_syn_said() {
    for (scale, bytes) in [(Some(3), 8 * 500), (Some(0), 500), (None, 500)] {
        let mut s = connected(Script::config().with_no_delay(true), 500, options(scale, None));
        s.take();
        s.write(20_000);
        s.wait(ms(5));
        let sent = |s: &mut Script| s.take_data().iter().map(|(_, n)| n).sum::<usize>();
        assert_eq!(sent(&mut s), 500, "{scale:?}: the window of a SYN is not scaled");
        s.acknowledge(500);
        s.wait(ms(5));
        assert_eq!(sent(&mut s), bytes, "{scale:?}");
    }
}

/// §2.2: elsewhere than in a SYN the option says nothing.
#[test]
fn a_window_scale_without_syn_is_ignored() {
    let mut s = connected(Script::config().with_no_delay(true), 500, options(None, None));
    s.inject(ACK, &[], TcpOptions { window_scale: Some(5), ..Default::default() });
    s.take();
    s.write(20_000);
    s.wait(ms(5));
    assert_eq!(s.take_data().iter().map(|(_, n)| n).sum::<usize>(), 500);
}

/// §2.3: more than 14 counts as 14.
#[test]
fn a_scale_of_more_than_14_is_taken_for_14() {
    // How far back an acknowledgement may reach (RFC 5961 §5.2) shows the largest window.
    for (back, taken) in [(16_384, true), (16_385, false)] {
        let mut s = connected(Script::config(), 1, options(Some(15), None));
        s.segment(ACK, &[]);
        s.carry(20_000, 2_000);
        s.ack -= back;
        s.segment(ACK, b"data");
        assert_eq!(s.counter(Counter::TcpChallengeAck), u64::from(!taken), "{back}");
    }
}

/// §2.2, §2.3: we offer scaling in our SYN, and in a SYN/ACK if the SYN offered it; our own windows are scaled then.
#[test]
fn our_windows_are_scaled_by_what_our_syn_says() {
    let config = || Script::config().with_receive_buffer(1 << 20);
    for theirs in [Some(0), None] {
        let mut s = Script::new();
        s.connect(config());
        s.wait(Duration::from_secs(2));
        let (_, syn, _) = s.take().remove(0);
        let ours = syn.options.window_scale.expect("an offer in every SYN");
        assert!(ours > 0 && syn.window == 65_535, "not scaled: {} {}", ours, syn.window);
        s.ack = 1;
        s.inject(SYN_ACK, &[], options(theirs, None));
        s.seq = 1;
        s.segment(ACK, &[1; 100]);
        s.seq = 101;
        s.segment(ACK, &[1; 100]);
        let (_, ack, _) = s.take().pop().expect("an ACK");
        let window = u64::from(ack.window) << if theirs.is_some() { ours } else { 0 };
        let all = (1 << 20) - 200;
        // Rounded to what the scale can say.
        let unit = 1 << ours;
        let expected = if theirs.is_some() { all - unit..=all + unit } else { 65_535..=65_535 };
        assert!(expected.contains(&window), "{theirs:?}: {window}");
    }
    for theirs in [Some(0), Some(7), None] {
        let (_, answer, window) = answered(options(theirs, None));
        assert_eq!(answer.window_scale.is_some(), theirs.is_some(), "{theirs:?}");
        assert_eq!(window, 65_535, "{theirs:?}: not scaled");
    }
}

/// §2.4: what was in a window that has been offered is taken, although rounding to the scale moves the next one back.
#[test]
fn a_window_once_offered_is_honoured() {
    let config = Script::config().with_receive_buffer(1 << 20);
    let mut s = Script::new();
    s.connect(config);
    s.wait(Duration::from_secs(2));
    let scale = s.take()[0].1.options.window_scale.expect("an offer");
    s.ack = 1;
    s.inject(SYN_ACK, &[], options(Some(0), None));
    s.seq = 1;
    let edge = |s: &mut Script| {
        s.wait(ms(500));
        let (_, ack, _) = s.take().pop().expect("an ACK");
        ack.ack.0.wrapping_sub(PEER).wrapping_add(u32::from(ack.window) << scale)
    };
    let mut furthest = edge(&mut s);
    // A byte at a time, until the edge moves back.
    let shrunk = (0..200).any(|_| {
        s.segment(ACK, &[1]);
        s.seq += 1;
        let next = edge(&mut s);
        let back = next < furthest;
        furthest = furthest.max(next);
        back
    });
    assert!(shrunk, "the window has not shrunk");
    s.seq = furthest - 10;
    s.segment(ACK, &[2; 10]);
    let (_, answer, _) = s.take().pop().expect("it is answered");
    let relative = |n: SeqNumber| n.0.wrapping_sub(PEER);
    let blocks: Vec<(u32, u32)> =
        answer.options.sack.iter().map(|(l, r)| (relative(*l), relative(*r))).collect();
    assert_eq!(blocks, [(s.seq, s.seq + 10)], "taken to its last byte");
}

/// §3.2: the option is sent if both SYNs had it, then in every segment; it echoes what came last.
#[test]
fn timestamps_are_in_every_segment_or_in_none() {
    for agreed in [true, false] {
        let mut s = Script::new();
        s.connect(Script::config());
        s.wait(Duration::from_secs(2));
        let syns = stamps(&mut s);
        assert!(!syns.is_empty() && syns.iter().all(|t| t.is_some_and(|t| t.echo == 0)), "{syns:?}");
        s.ack = 1;
        s.inject(SYN_ACK, &[], options(None, agreed.then_some((700, 1))));
        s.seq = 1;
        s.write(3 * MSS);
        s.segment(ACK, b"data");
        s.seq = 5;
        s.wait(Duration::from_secs(1));
        s.stack.shutdown(s.now, s.connection.expect("a connection")).expect("shut");
        s.poll();
        let sent = stamps(&mut s);
        assert!(sent.len() >= 4, "{sent:?}");
        assert!(sent.iter().all(|t| t.map(|t| t.echo) == agreed.then_some(700)), "{agreed}: {sent:?}");
    }
    // A SYN/ACK has it if the SYN had.
    for stamp in [Some((900, 0)), None] {
        let (_, answer, _) = answered(options(None, stamp));
        assert_eq!(answer.timestamps.map(|t| t.echo), stamp.map(|(value, _)| value));
    }
}

/// §3.2: a segment without the option does not end the connection, nor does one with it where it was not agreed on,
/// which is treated as any other.
#[test]
fn a_missing_or_needless_timestamp_does_no_harm() {
    let mut s = connected(Script::config(), 60_000, options(None, Some((700, 1))));
    s.segment(ACK, b"without");
    assert_eq!((s.state(), s.error()), ("ESTABLISHED", None));
    assert_eq!(read(&mut s), b"without");
    let mut s = connected(Script::config(), 60_000, options(None, None));
    for (value, seq) in [(1_000, 1), (10, 5)] {
        s.seq = seq;
        s.inject(ACK, b"with", options(None, Some((value, 77))));
        assert_eq!(read(&mut s), b"with", "{value}");
    }
    assert_eq!(s.counter(Counter::TcpPawsRejected), 0);
}

/// §4.1: an acknowledgement that moves nothing measures nothing.
#[test]
fn only_what_acknowledges_something_new_is_measured() {
    let mut s = connected(Script::config(), 60_000, options(None, Some((700, 1))));
    s.take();
    s.write(100);
    let echo = stamps(&mut s)[0].expect("a timestamp").value;
    s.wait(ms(40));
    (s.stamp, s.echo) = (Some(740), echo);
    s.acknowledge(100);
    let srtt = |s: &Script| s.stack.subflows(s.connection.expect("a connection"))[0].srtt;
    let before = srtt(&s);
    assert!(before.is_some_and(|t| t > ms(20) && t <= ms(40)), "{before:?}");
    s.wait(Duration::from_secs(3));
    s.stamp = Some(3_740);
    s.segment(ACK, &[]);
    s.segment(ACK, b"data");
    assert_eq!(srtt(&s), before);
}

/// §4.3: the timestamp that is echoed.
#[test]
fn what_is_echoed_is_the_stamp_of_the_earliest_segment_that_is_not_acknowledged() {
    let mut s = connected(Script::config(), 60_000, options(None, Some((700, 1))));
    s.stamp = Some(705);
    // At the start every segment is acknowledged at once.
    for _ in 0..40 {
        s.segment(ACK, &[1; 100]);
        s.seq += 100;
    }
    s.wait(ms(300));
    s.take();
    let base = s.seq - 1;
    let echo = |s: &mut Script| stamps(s).pop().flatten().expect("a timestamp").echo;
    // A delayed ACK is for the first of two segments.
    s.stamp = Some(710);
    s.segment(ACK, &[1; 100]);
    (s.seq, s.stamp) = (base + 101, Some(715));
    s.segment(ACK, &[1; 100]);
    s.wait(ms(300));
    assert_eq!(echo(&mut s), 710, "the earliest");
    // Out of order: that of the last that came in order.
    (s.seq, s.stamp) = (base + 201, Some(720));
    s.segment(ACK, &[1; 100]);
    s.wait(ms(300));
    s.take();
    (s.seq, s.stamp) = (base + 401, Some(730));
    s.segment(ACK, &[1; 100]);
    assert_eq!(echo(&mut s), 720, "not that of what came out of order");
    // What fills the hole.
    (s.seq, s.stamp) = (base + 301, Some(740));
    s.segment(ACK, &[1; 100]);
    s.wait(ms(300));
    assert_eq!(echo(&mut s), 740, "that of what filled the hole");
    // Never an older one (§5.2).
    (s.seq, s.stamp) = (base + 501, Some(735));
    s.segment(ACK, &[1; 100]);
    s.wait(ms(300));
    assert_eq!(echo(&mut s), 740, "what is older is refused");
}

/// §5.3: PAWS comes before the check of the sequence number, and is about the arrival alone.
#[test]
fn an_old_duplicate_is_refused_by_its_stamp() {
    let mut s = connected(Script::config(), 60_000, options(None, Some((700, 1))));
    s.stamp = Some(800);
    s.segment(ACK, &[1; 100]);
    s.take();
    // In the window, and from before the last wrap.
    (s.seq, s.stamp) = (101, Some(799));
    s.segment(ACK, b"old");
    let (_, answer, _) = s.take().pop().expect("it is acknowledged");
    assert_eq!((answer.ack.0, s.counter(Counter::TcpPawsRejected)), (PEER + 101, 1));
    assert_eq!(read(&mut s), [1; 100]);
    // Out of the window: still PAWS's business.
    s.seq = 1 << 30;
    s.segment(ACK, b"old");
    assert_eq!((s.counter(Counter::TcpPawsRejected), s.counter(Counter::TcpChallengeAck)), (2, 0));
    // What waits in the queue is not looked at again when its time has come.
    (s.seq, s.stamp) = (111, Some(810));
    s.segment(ACK, &[3; 10]);
    (s.seq, s.stamp) = (101, Some(900));
    s.segment(ACK, &[2; 10]);
    assert_eq!(read(&mut s), [[2; 10], [3; 10]].concat());
}

/// §5.2: a RST is obeyed whatever its timestamp, and none is taken from it.
#[test]
fn the_stamp_of_a_reset_is_not_looked_at() {
    let rst = TcpFlags { rst: true, ..ACK };
    let mut s = connected(Script::config(), 60_000, options(None, Some((700, 1))));
    // One in the window is challenged; had its stamp been taken, what follows would be too old.
    (s.seq, s.stamp) = (50, Some(1_000_000));
    s.segment(rst, &[]);
    assert_eq!(s.counter(Counter::TcpChallengeAck), 1);
    (s.seq, s.stamp) = (1, Some(710));
    s.segment(ACK, b"data");
    assert_eq!(read(&mut s), b"data");
    (s.seq, s.stamp) = (5, Some(1));
    s.segment(rst, &[]);
    assert_eq!(s.error(), Some(ConnectionError::Reset));
}

/// §5.4: the clock ticks once a millisecond; §7.1: where it begins differs from peer to peer.
#[test]
fn the_timestamp_clock_ticks_every_millisecond_from_a_start_of_its_own() {
    let mut s = connected(Script::config().with_no_delay(true), 60_000, options(None, Some((700, 1))));
    s.take();
    let mut last = None;
    for _ in 0..3 {
        s.wait(ms(7));
        s.write(100);
        let value = stamps(&mut s)[0].expect("a timestamp").value;
        assert!(last.is_none_or(|last: u32| value.wrapping_sub(last) == 7));
        last = Some(value);
    }
    let mut starts: Vec<u32> = (2..=21)
        .map(|host| {
            let mut s = Script::new();
            s.remote.set_ip([10, 0, 0, host].into());
            s.inject(SYN, &[], options(None, Some((900, 0))));
            stamps(&mut s)[0].expect("a timestamp").value
        })
        .collect();
    starts.sort_unstable();
    starts.dedup();
    assert_eq!(starts.len(), 20);
    assert!(starts.windows(2).any(|w| w[1] - w[0] > 1 << 24), "{starts:?}");
}

/// §5.5: after more than 24 days of silence the stamp that was kept says nothing any more.
#[test]
fn a_stamp_from_long_ago_is_not_compared() {
    for (days, taken) in [(23, false), (25, true)] {
        let mut s = connected(Script::config(), 60_000, options(None, Some((700, 1))));
        s.wait(Duration::from_secs(days * 86_400));
        s.stamp = Some(699);
        s.segment(ACK, b"data");
        assert_eq!(!read(&mut s).is_empty(), taken, "after {days} days");
    }
}

//! Requirements of RFC 8985: tail loss probes.

use crate::script::{ACK, MSS, Script, ms};
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::types::{Duration, Instant, SeqNumber};
use umptcp_stack_core::wire::tcp::TcpOptions;

/// What is sent within `time`: when, from where on, and how much.
fn sent(s: &mut Script, time: Duration) -> Vec<(Instant, u32, usize)> {
    s.wait(time);
    let first = s.isn.wrapping_add(1);
    let data = s.take().into_iter().filter(|(.., p)| !p.is_empty());
    data.map(|(at, seg, p)| (at, seg.seq.0.wrapping_sub(first), p.len())).collect()
}

/// §7.2, §7.3: one probe, of the last segment, and then the retransmission timeout, which runs anew from the probe.
#[test]
fn an_unanswered_tail_is_probed_once_before_the_timeout() {
    let mut s = Script::connected(Script::config().with_no_delay(true));
    // The round-trip time is 20 ms, by the handshake.
    let start = s.now;
    s.write(3 * MSS);
    let sent = sent(&mut s, ms(600));
    let sizes: Vec<_> = sent.iter().map(|(_, at, n)| (*at, *n)).collect();
    let m = MSS as u32;
    assert_eq!(sizes[..4], [(0, MSS), (m, MSS), (2 * m, MSS), (2 * m, MSS)], "{sent:?}");
    let probe = sent[3].0;
    let waited = probe - start;
    assert!(waited >= ms(40) && waited <= ms(45), "two round trips: {waited:?}");
    let (timeout, at, _) = sent[4];
    assert_eq!(at, 0, "the timeout begins at the front");
    assert!(timeout - probe >= ms(200), "{:?}", timeout - probe);
    assert_eq!(s.counter(Counter::TcpLossProbes), 1);
}

/// §7.3: new data are the better probe, also beyond the congestion window.
#[test]
fn a_probe_carries_new_data_if_there_are_any() {
    let mut s = Script::connected(Script::config().with_no_delay(true));
    s.window = u16::MAX;
    s.segment(ACK, &[]);
    s.write(15 * MSS);
    let sent = sent(&mut s, ms(100));
    let window: Vec<u32> = sent.iter().map(|(_, at, _)| *at).collect();
    let m = MSS as u32;
    assert_eq!(window, (0..10).map(|i| i * m).collect::<Vec<_>>(), "the window, and one more");
    assert!(sent[9].0 - sent[8].0 >= ms(40), "{sent:?}");
    assert_eq!(s.counter(Counter::TcpLossProbes), 1);
}

/// §7.2: the probe's time counts from the last acknowledgement of something new, and there is none while SACK blocks
/// tell what is missing.
#[test]
fn the_time_of_the_probe_begins_anew_with_each_acknowledgement() {
    let mut s = Script::connected(Script::config().with_no_delay(true));
    s.write(3 * MSS);
    assert_eq!(sent(&mut s, ms(30)).len(), 3);
    let m = MSS as u32;
    s.acknowledge(m);
    let acked = s.now;
    let probe = sent(&mut s, ms(150))[0];
    assert_eq!(probe.1, 2 * m);
    assert!(probe.0 - acked >= ms(40), "{:?}", probe.0 - acked);
    // The second of three has come: the reordering timer finds the first, not a probe the last.
    let mut s = Script::connected(Script::config().with_no_delay(true));
    s.write(3 * MSS);
    s.wait(ms(20));
    s.take();
    let edge = |n: u32| SeqNumber(s.isn.wrapping_add(1 + n));
    let options = TcpOptions { sack: [(edge(m), edge(2 * m))].into_iter().collect(), ..Default::default() };
    s.inject(ACK, &[], options);
    let again = sent(&mut s, ms(100));
    assert_eq!(again.first().map(|(_, at, _)| *at), Some(0), "{again:?}");
    assert_eq!(s.counter(Counter::TcpLossProbes), 0);
}

/// §7.3: no second probe before a round-trip time has been measured since the first.
#[test]
fn probes_do_not_follow_one_another_without_a_measurement() {
    let mut s = Script::connected(Script::config().with_no_delay(true));
    let m = MSS as u32;
    s.write(2 * MSS);
    assert_eq!(sent(&mut s, ms(60)).last().map(|(_, at, _)| *at), Some(m), "the probe");
    // What was sent twice gives no time (Karn's rule).
    s.acknowledge(2 * m);
    s.write(2 * MSS);
    let then: Vec<u32> = sent(&mut s, ms(150)).iter().map(|(_, at, _)| *at).collect();
    assert_eq!(then, [2 * m, 3 * m], "no probe");
    assert_eq!(s.counter(Counter::TcpLossProbes), 1);
}

//! The coupled algorithms, against numbers worked out from their papers.

use super::*;

/// A controller with subflows in congestion avoidance: (window in segments, RTT in ms).
fn coupled(name: &str, subflows: &[(u64, u64)]) -> Bench {
    let mut b = Bench::new(name, subflows.len() as u32);
    for (id, (segments, rtt)) in (0..).zip(subflows) {
        b.avoid(SubflowId(id), *segments, *rtt);
    }
    b
}

/// What one ACK of `acked` bytes on subflow `i` adds, in bytes.
fn increase(b: &mut Bench, i: u32, acked: u64, rtt_ms: u64) -> i64 {
    let id = SubflowId(i);
    let before = b.window(id);
    b.ack(id, acked, rtt_ms);
    b.window(id) as i64 - before as i64
}

/// RFC 6356 §3, equations 1 and 2.
#[test]
fn lia_increases() {
    // One subflow: alpha = 1, plain Reno. 1,000 · 10,000 / 40,000.
    assert_eq!(increase(&mut coupled("lia", &[(40, 50)]), 0, 10_000, 50), 250);
    // Two alike: alpha = 2w · (w/r²) / (2w/r)² = 1/2. min(0.5 · 10⁷ / 80,000, 10⁷ / 40,000) = 62.5.
    assert_eq!(increase(&mut coupled("lia", &[(40, 50), (40, 50)]), 1, 10_000, 50), 62);
    // 40 segments at 50 ms, 10 at 100 ms: in segments and seconds max w/r² = 16,000, Σ w/r = 900;
    // alpha = 50 · 16,000 / 810,000 = 0.98765. On either: 0.98765 · 10⁷ / 50,000 = 197.53.
    assert_eq!(increase(&mut coupled("lia", &[(40, 50), (10, 100)]), 0, 10_000, 50), 197);
    assert_eq!(increase(&mut coupled("lia", &[(40, 50), (10, 100)]), 1, 10_000, 100), 197);
    // 4 at 10 ms, 40 at 200 ms: max = 40,000, Σ = 600, alpha = 44 · 40,000 / 360,000 = 4.889. The coupled increase on the
    // second, 4.889 · 10⁷ / 44,000 = 1,111, would beat TCP's 10⁷ / 40,000 = 250: TCP's it is.
    assert_eq!(increase(&mut coupled("lia", &[(4, 10), (40, 200)]), 1, 10_000, 200), 250);
}

/// RFC 6356 §3: a subflow that does not use its window counts with what it uses.
#[test]
fn lia_counts_what_is_in_use() {
    let mut b = coupled("lia", &[(40, 50), (40, 50)]);
    let limited = AckSample { app_limited: true, in_flight: 0, ..b.sample(B, 1, 50) };
    b.cc.on_ack(b.now, B, &limited);
    b.cc.on_round(b.now, B);
    // With next to nothing on the other, 250 as if alone.
    assert_eq!(increase(&mut b, 0, 10_000, 50), 249);
}

/// A subflow that was busy and then got nothing more to do stops counting after a round-trip time.
#[test]
fn lia_forgets_the_idle() {
    let mut b = coupled("lia", &[(40, 50), (40, 50)]);
    let drained = AckSample { in_flight: 0, in_recovery: true, ..b.sample(B, 40_000, 50) };
    b.cc.on_ack(b.now, B, &drained);
    b.cc.on_round(b.now, A);
    assert_eq!(increase(&mut b, 0, 10_000, 50), 62);
    b.now += Duration::from_millis(51);
    b.cc.on_round(b.now, A);
    let alone = increase(&mut b, 0, 10_000, 50);
    assert!((248..=250).contains(&alone), "{alone}");
}

/// RFC 6356 §4.1: alpha is refreshed on a drop and once per round trip, and when the set of subflows changes.
#[test]
fn lia_refreshes_alpha() {
    let mut b = coupled("lia", &[(40, 50), (40, 50)]);
    assert_eq!(increase(&mut b, 0, 10_000, 50), 62);
    b.cc.subflow_removed(b.now, B);
    let alone = increase(&mut b, 0, 10_000, 50);
    assert!((248..=250).contains(&alone), "{alone}");

    // The other one's window falls from 40 to 20: max = 16,000, Σ = 1,200, alpha = 60 · 16,000 / 1.44 M = 2/3,
    // increase 2/3 · 10⁷ / 60,000 = 111.
    let mut b = coupled("lia", &[(40, 50), (40, 50)]);
    assert_eq!(increase(&mut b, 0, 10_000, 50), 62);
    b.cc.on_loss(b.now, B, 40_000);
    let after = increase(&mut b, 0, 10_000, 50);
    assert!((110..=112).contains(&after), "{after}");

    // The other one's round-trip time doubles: noticed at the end of a round. max = 16,000, Σ = 1,200 → as above,
    // but of 80 segments in total: alpha 0.889, increase 0.889 · 10⁷ / 80,000 = 111.
    let mut b = coupled("lia", &[(40, 50), (40, 50)]);
    assert_eq!(increase(&mut b, 0, 10_000, 50), 62);
    let slower = AckSample { in_recovery: true, ..b.sample(B, 1, 100) };
    b.cc.on_ack(b.now, B, &slower);
    assert!((61..=63).contains(&increase(&mut b, 0, 10_000, 50)));
    b.cc.on_round(b.now, B);
    let after = increase(&mut b, 0, 10_000, 50);
    assert!((110..=112).contains(&after), "{after}");
}

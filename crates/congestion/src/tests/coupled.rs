//! The coupled algorithms, against numbers calculated from their papers.

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
    // 4 at 10 ms, 40 at 200 ms: max = 40,000, Σ = 600, alpha = 44 · 40,000 / 360,000 = 4.889. The coupled
    // increase on the second, 4.889 · 10⁷ / 44,000 = 1,111, is more than TCP's 10⁷ / 40,000 = 250, so TCP's
    // applies.
    assert_eq!(increase(&mut coupled("lia", &[(4, 10), (40, 200)]), 1, 10_000, 200), 250);
}

/// RFC 6356 §3: an increase of less than a byte is not lost. The RFC makes one byte of it, for windows in whole bytes;
/// here it is kept in full.
#[test]
fn lia_adds_up_what_is_less_than_a_byte() {
    // alpha = 1/2. An ACK of 100 bytes: 0.5 · 10⁵ / 8·10⁶ = 0.00625.
    let mut b = coupled("lia", &[(4_000, 50), (4_000, 50)]);
    let before = b.window(A);
    assert_eq!(increase(&mut b, 0, 100, 50), 0);
    (0..10_000).for_each(|_| b.ack(A, 100, 50));
    let grown = b.window(A) - before;
    assert!((62..=63).contains(&grown), "{grown}");
}

/// RFC 6356 §3: if a subflow does not use its window, only the part in use counts.
#[test]
fn lia_counts_what_is_in_use() {
    let mut b = coupled("lia", &[(40, 50), (40, 50)]);
    let limited = AckSample { app_limited: true, in_flight: 0, ..b.sample(B, 1, 50) };
    b.cc.on_ack(b.now, B, &limited);
    b.cc.on_round(b.now, B);
    // With almost nothing on the other, 250, as if alone.
    assert_eq!(increase(&mut b, 0, 10_000, 50), 249);
}

/// A subflow that was busy and then became idle stops counting after a round-trip time.
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

    // The other one's window falls from 40 to 20: max = 16,000, Σ = 1,200, alpha = 60 · 16,000 / 1.44 M =
    // 2/3, increase 2/3 · 10⁷ / 60,000 = 111.
    let mut b = coupled("lia", &[(40, 50), (40, 50)]);
    assert_eq!(increase(&mut b, 0, 10_000, 50), 62);
    b.cc.on_loss(b.now, B, 40_000);
    let after = increase(&mut b, 0, 10_000, 50);
    assert!((110..=112).contains(&after), "{after}");

    // The other one's round-trip time doubles: noticed at the end of a round. max = 16,000, Σ = 1,200 → as
    // above, but of 80 segments in total: alpha 0.889, increase 0.889 · 10⁷ / 80,000 = 111.
    let mut b = coupled("lia", &[(40, 50), (40, 50)]);
    assert_eq!(increase(&mut b, 0, 10_000, 50), 62);
    let slower = AckSample { in_recovery: true, ..b.sample(B, 1, 100) };
    b.cc.on_ack(b.now, B, &slower);
    assert!((61..=63).contains(&increase(&mut b, 0, 10_000, 50)));
    b.cc.on_round(b.now, B);
    let after = increase(&mut b, 0, 10_000, 50);
    assert!((110..=112).contains(&after), "{after}");
}

/// draft-khalili-mptcp-congestion-control-05.
#[test]
fn olia_increases() {
    // One subflow: (w/r²)/(w/r)² = 1/w, no alpha: Reno.
    assert_eq!(increase(&mut coupled("olia", &[(40, 50)]), 0, 10_000, 50), 250);
    // Two alike: 1/(4w), no better path. 10⁷ / 160,000.
    let mut b = coupled("olia", &[(40, 50), (40, 50)]);
    assert_eq!(increase(&mut b, 0, 10_000, 50), 62);

    // 40 and 10 segments at 50 ms, of which the smaller has delivered more since its loss: B = C = {1}, M =
    // {0}.
    let mut b = coupled("olia", &[(40, 50), (10, 50)]);
    let delivered = AckSample { in_recovery: true, ..b.sample(B, 100_000, 50) };
    b.cc.on_ack(b.now, B, &delivered);
    // First term w/(Σw)² = 40,000 / 50,000² = 16 · 10⁻⁶, alpha = −1/2: 10⁷ · (16 − 12.5) · 10⁻⁶ = 35.
    assert_eq!(increase(&mut b, 0, 10_000, 50), 35);
    // 10,000 / 50,035² = 4 · 10⁻⁶ and alpha = 1/2 of 10,000: 10⁷ · (4 + 50) · 10⁻⁶ = 540, a little less for
    // the 35.
    assert_eq!(increase(&mut b, 1, 10_000, 50), 539);

    // The larger is also the best: C is empty.
    let mut b = coupled("olia", &[(40, 50), (10, 50)]);
    let delivered = AckSample { in_recovery: true, ..b.sample(A, 100_000, 50) };
    b.cc.on_ack(b.now, A, &delivered);
    assert_eq!(increase(&mut b, 0, 10_000, 50), 160);
    assert_eq!(increase(&mut b, 1, 10_000, 50), 39, "40, a little less for the 160");
}

/// A path that has lost nothing for 200 round trips is tried, although the other carries more between
/// losses.
#[test]
fn olia_tries_what_loses_nothing() {
    let mut b = coupled("olia", &[(40, 50), (10, 50)]);
    let delivered = AckSample { in_recovery: true, ..b.sample(A, 100_000, 50) };
    b.cc.on_ack(b.now, A, &delivered);
    let rounds = |b: &mut Bench, n| (0..n).for_each(|_| b.cc.on_round(b.now, B));
    rounds(&mut b, 195);
    assert_eq!(increase(&mut b, 1, 10_000, 50), 40);
    rounds(&mut b, 10);
    // It gains as one of the best would, and the larger loses nothing for it.
    assert_eq!(increase(&mut b, 0, 10_000, 50), 159);
    assert_eq!(increase(&mut b, 1, 10_000, 50), 537);
    // A timeout of the window that is being repaired is no second loss.
    for timeout in [false, true] {
        b.cc.on_loss(b.now, B, 10_000);
        if timeout {
            b.cc.on_rto(b.now, B, 10_000);
        }
        b.avoid(B, 10, 50);
        assert!(increase(&mut b, 1, 10_000, 50) < 50, "the loss has ended it");
    }
}

/// OLIA moves no traffic to an idle path, however good it was.
#[test]
fn olia_ignores_the_idle() {
    let mut b = coupled("olia", &[(40, 50), (10, 50)]);
    for (acked, app_limited) in [(100_000, false), (0, true)] {
        let sample = AckSample { app_limited, in_flight: 0, in_recovery: true, ..b.sample(B, acked, 50) };
        b.cc.on_ack(b.now, B, &sample);
    }
    assert_eq!(increase(&mut b, 0, 10_000, 50), 250);
}

/// When OLIA shrinks a window right after a loss, slow start must not restore it.
#[test]
fn olia_shrinks_below_the_threshold() {
    let mut b = coupled("olia", &[(40, 50), (39, 50)]);
    let delivered = AckSample { in_recovery: true, ..b.sample(B, 100_000, 50) };
    b.cc.on_ack(b.now, B, &delivered);
    // 40 / 79² − 1/2 / 40 = −0.00609 per segment acknowledged.
    for _ in 0..3 {
        let change = increase(&mut b, 0, 10_000, 50);
        assert!((-62..=-60).contains(&change), "{change}");
    }
    assert_eq!(b.ssthresh(A), b.window(A));
}

/// l/rtt², not l²/rtt: 90 kB at 50 ms are better than 300 kB at 100 ms (36 against 30 Mbyte/s²), though the
/// square of 300 kB over 100 ms is more than that of 90 kB over 50 ms.
#[test]
fn olia_ranks_by_bytes_over_the_square_of_the_round_trip_time() {
    let mut b = coupled("olia", &[(10, 50), (40, 100)]);
    for (id, bytes, rtt) in [(A, 89_999, 50), (B, 299_999, 100)] {
        let delivered = AckSample { in_recovery: true, ..b.sample(id, bytes, rtt) };
        b.cc.on_ack(b.now, id, &delivered);
    }
    // Σ w/r = 600; first term 4,000 / 360,000 per segment; alpha = 1/2 / 10: 10⁴ · (0.01111 + 0.05) = 611.
    assert_eq!(increase(&mut b, 0, 10_000, 50), 611);
    // 4,000 / 360,000 − 1/2 / 40 = −0.00139, little changed by the above.
    let shrunk = increase(&mut b, 1, 10_000, 100);
    assert!((-20..=-12).contains(&shrunk), "{shrunk}");
}

/// What counts is the larger of the last two intervals between losses, and a loss starts a new one.
#[test]
fn olia_remembers_the_interval_before_the_last_loss() {
    let mut b = coupled("olia", &[(40, 50), (10, 50)]);
    let delivered = AckSample { in_recovery: true, ..b.sample(B, 100_000, 50) };
    b.cc.on_ack(b.now, B, &delivered);
    b.cc.on_loss(b.now, B, 10_000);
    assert_eq!(b.window(B), 5_000);
    // w/(Σw)² = 40,000 / 45,000² = 19.75 · 10⁻⁶, alpha still −1/2: 10⁷ · (19.75 − 12.5) · 10⁻⁶ = 72.5.
    assert_eq!(increase(&mut b, 0, 10_000, 50), 72);
    // Another loss with almost nothing delivered in between: now the other path is better.
    b.cc.on_loss(b.now, B, 10_000);
    // With 2,500 left there: 40,072 / 42,572² = 22.1 · 10⁻⁶.
    assert_eq!(increase(&mut b, 0, 10_000, 50), 221);
}

/// draft-walid-mptcp-congestion-control-04.
#[test]
fn balia_increases() {
    assert_eq!(increase(&mut coupled("balia", &[(40, 50)]), 0, 10_000, 50), 250);
    // Two alike: alpha = 1, x/(r (2x)²) = 1/(4w).
    assert_eq!(increase(&mut coupled("balia", &[(40, 50), (40, 50)]), 0, 10_000, 50), 62);
    // x = 800 and 533 segments per second. On the second alpha = 1.5: x/(r·Σ²) = 533.3 / (0.05 · 1,333.3²) =
    // 0.006 per segment, times 1.25 · 1.1: 10⁴ · 0.00825 = 82.5. Cut to the integer 1, it would be 60.
    let mut b = Bench::new("balia", 2);
    b.avoid(A, 42, 50);
    b.avoid(B, 28, 50);
    // In these: 28 / 70² · 1.25 · 1.1 = 0.0078571.
    assert_eq!(increase(&mut b, 1, 10_000, 50), 78);
    // On the faster one, alpha = 1: 42,000 / 70,078² · 10⁷ = 85.5.
    assert_eq!(increase(&mut b, 0, 10_000, 50), 85);
}

#[test]
fn balia_decreases_by_up_to_three_quarters() {
    let after_loss = |a, b: u64| {
        let mut bench = coupled("balia", &[(a, 50), (b, 50)]);
        bench.cc.on_loss(bench.now, B, b * MSS);
        bench.window(B)
    };
    assert_eq!(after_loss(20, 40), 20_000, "alpha 1: half");
    assert_eq!(after_loss(40, 40), 20_000, "alpha 1: half");
    assert_eq!(after_loss(48, 40), 16_000, "alpha 1.2: six tenths");
    assert_eq!(after_loss(400, 40), 10_000, "alpha 10, bounded by 1.5: three quarters");
    let mut bench = coupled("balia", &[(400, 50), (40, 50)]);
    bench.ack(B, 1, 50);
    bench.cc.on_rto(bench.now, B, 40 * MSS);
    assert_eq!(bench.ssthresh(B), 20_000, "a timeout: half");
}

/// Both drafts allow a threshold of one segment if there is another path. Otherwise it is two (RFC 5681).
#[test]
fn least_threshold_with_several_paths() {
    for (name, subflows, least) in
        [("olia", 2, 1), ("balia", 2, 1), ("lia", 2, 2), ("olia", 1, 2), ("balia", 1, 2)]
    {
        let mut b = Bench::new(name, subflows);
        for _ in 0..8 {
            b.cc.on_loss(b.now, A, b.window(A));
        }
        assert_eq!((b.window(A), b.ssthresh(A)), (least * MSS, least * MSS), "{name}, {subflows}");
    }
}

/// A round with a given mean round-trip time, in ten ACKs.
fn vegas_round(b: &mut Bench, id: SubflowId, rtt_ms: u64, base_ms: u64) {
    let window = b.window(id);
    b.cc.on_sent(b.now, id, window, window);
    b.now += Duration::from_millis(rtt_ms);
    for _ in 0..10 {
        let sample =
            AckSample { min_rtt: Duration::from_millis(base_ms), ..b.sample(id, window / 10, rtt_ms) };
        b.cc.on_ack(b.now, id, &sample);
    }
    b.cc.on_round(b.now, id);
}

/// draft-xu-mptcp-congestion-control-05.
#[test]
fn wvegas_keeps_a_few_segments_queued() {
    // Slow start: 10 → 20 → 40 without delay; then 52 ms instead of 50, diff = 80 · 2/52 = 3.1 > 1, but less
    // than an eighth of a round trip; then 57, diff = 160 · 7/57 = 19.6. It is one still when the window has
    // been the same for a whole round.
    let mut b = Bench::new("wvegas", 1);
    for rtt in [50, 50, 52] {
        vegas_round(&mut b, A, rtt, 50);
    }
    assert_eq!((b.window(A), b.ssthresh(A)), (80_000, u64::MAX));
    vegas_round(&mut b, A, 57, 50);
    for _ in 0..2 {
        assert_eq!((b.window(A), b.ssthresh(A)), (160_000, 160_000), "paused");
        vegas_round(&mut b, A, 57, 50);
    }
    assert_eq!((b.window(A), b.ssthresh(A)), (160_000, 159_000));
    // diff = 160 · 2/52 = 6.15 ≥ 2: it is the only path, alpha becomes 10, one more.
    vegas_round(&mut b, A, 52, 50);
    assert_eq!(b.window(A), 161_000);
    // diff = 161 · 3/53 = 9.1 < 10, and 162 · 5/55 = 14.7 > 10. The delay, 5 ms, has doubled: 161,000 ·
    // 50/110.
    vegas_round(&mut b, A, 53, 50);
    assert_eq!(b.window(A), 162_000);
    vegas_round(&mut b, A, 55, 50);
    assert_eq!(b.window(A), 161_000 * 50 / 110);
    // Little to queue: one up per round.
    let drained = b.window(A);
    vegas_round(&mut b, A, 50, 50);
    assert_eq!(b.window(A), drained + 1_000);
    // Fewer than three round-trip times measured: a Reno step.
    b.cc.on_round(b.now, A);
    assert_eq!(b.window(A), drained + 2_000);
}

#[test]
fn a_delay_that_passes_only_pauses_wvegas_slow_start() {
    let paused = || {
        let mut b = Bench::new("wvegas", 1);
        for rtt in [50, 50, 60] {
            vegas_round(&mut b, A, rtt, 50);
        }
        assert_eq!((b.window(A), b.ssthresh(A)), (80_000, 80_000));
        b
    };
    let mut b = paused();
    for rtt in [60, 50] {
        vegas_round(&mut b, A, rtt, 50);
        assert_eq!(b.window(A), 80_000);
    }
    assert_eq!(b.ssthresh(A), u64::MAX);
    vegas_round(&mut b, A, 50, 50);
    assert_eq!(b.window(A), 160_000);
    // Nor does it outlast a loss: that was the queue.
    let mut b = paused();
    b.cc.on_loss(b.now, A, 80_000);
    for rtt in [50, 50, 50] {
        vegas_round(&mut b, A, rtt, 50);
        assert_eq!(b.ssthresh(A), 40_000);
    }
    assert!(b.window(A) <= 43_000, "{}", b.window(A));
    // An undo brings it back.
    let mut b = paused();
    b.cc.on_loss(b.now, A, 80_000);
    b.cc.undo(b.now, A);
    for rtt in [50, 50] {
        vegas_round(&mut b, A, rtt, 50);
    }
    assert_eq!((b.window(A), b.ssthresh(A)), (80_000, u64::MAX));
}

/// A round of `n` ACKs whose packets overtake one another: of the first `early` the round trip took `short`
/// ms, of the others `usual`.
fn disordered_round(b: &mut Bench, id: SubflowId, n: u64, early: u64, short: u64, usual: u64) {
    let window = b.window(id);
    b.cc.on_sent(b.now, id, window, window);
    b.now += Duration::from_millis(usual);
    for k in 0..n {
        let rtt = if k < early { short } else { usual };
        let sample = AckSample {
            min_rtt: Duration::from_millis(short),
            srtt: Duration::from_millis(usual),
            disordered: true,
            ..b.sample(id, window / n, rtt)
        };
        b.cc.on_ack(b.now, id, &sample);
    }
    b.cc.on_round(b.now, id);
}

/// Where a few packets take half as long as the others, neither the least round-trip time nor the mean tells
/// of a queue; that all take longer does.
#[test]
fn early_packets_are_no_queue() {
    for name in ["wvegas", "cubic", "reno", "lia"] {
        let mut b = Bench::new(name, 1);
        // Rounds with and without an early packet in turn.
        for (round, early) in [10, 0, 3, 0, 7, 0, 0].into_iter().enumerate() {
            let before = b.window(A);
            disordered_round(&mut b, A, 100, early, 20, 40);
            assert_eq!((b.window(A), b.ssthresh(A)), (2 * before, u64::MAX), "{name}, round {round}");
        }
        let before = b.window(A);
        for _ in 0..2 {
            disordered_round(&mut b, A, 100, 10, 20, 50);
        }
        let slow_start_goes_on = b.window(A) == 4 * before && b.ssthresh(A) == u64::MAX;
        assert!(!slow_start_goes_on, "{name}: that is a queue");
    }
}

/// The targets are weighted by rate, 3 : 1 of ten segments here.
#[test]
fn wvegas_weighs_its_targets_by_rate() {
    let mut b = coupled("wvegas", &[(90, 50), (30, 50)]);
    for _ in 0..2 {
        vegas_round(&mut b, A, 52, 50);
        vegas_round(&mut b, B, 52, 50);
    }
    // diff of A: 90 · 2/52 = 3.5 ≥ 2: its target becomes 10 · 1.73 / (1.73 + 0.6) = 7.4. Of B: 1.15 < 2. Both
    // grow.
    assert_eq!((b.window(A), b.window(B)), (92_000, 32_000));
    // A: 92 · 5/55 = 8.4 > 7.3, one less; the delay has more than doubled, so the queue is drained: by
    // 50/110.
    vegas_round(&mut b, A, 55, 50);
    assert_eq!(b.window(A), 91_000 * 50 / 110);
    // B: 32 · 5/55 = 2.9 ≥ 2: its target becomes 10 · 32 / (32 + 41.4) = 4.4. One more, and no part in the
    // draining.
    vegas_round(&mut b, B, 55, 50);
    assert_eq!(b.window(B), 33_000);
}

#[test]
fn wvegas_never_goes_below_two_segments() {
    let mut b = coupled("wvegas", &[(3, 50)]);
    for rtt in [100, 200, 400, 800, 1_600] {
        vegas_round(&mut b, A, rtt, 50);
        assert!(b.window(A) >= 2_000);
    }
}

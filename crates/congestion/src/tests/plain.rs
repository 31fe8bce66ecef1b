//! Slow start, reductions and undo, which all algorithms share, and Reno and CUBIC.

use super::*;

/// The algorithms that react to loss as in RFC 5681, apart from the factor.
const EVERY: [&str; 5] = ["reno", "cubic", "lia", "olia", "balia"];

/// RFC 5681 §3.1: the window grows by what is acknowledged, however much one ACK covers.
#[test]
fn slow_start_doubles_per_round_trip_whatever_the_size_of_acks() {
    for name in EVERY {
        for acks in [1, 5, 10] {
            let mut b = Bench::new(name, 1);
            assert_eq!((b.window(A), b.ssthresh(A)), (10 * MSS, u64::MAX), "RFC 6928");
            b.round(A, acks, 50);
            b.round(A, acks, 50);
            assert_eq!(b.window(A), 40 * MSS, "{name}, {acks} ACKs per round");
        }
    }
}

/// RFC 5681 §3.1 equation 3: one segment per window acknowledged.
#[test]
fn reno_grows_by_a_segment_per_round_trip() {
    let mut b = Bench::new("reno", 1);
    b.avoid(A, 20, 50);
    b.ack(A, 5_000, 50);
    assert_eq!(b.window(A), 20_250, "20,000 + 1,000 · 5,000 / 20,000");
    b.ack(A, 90_000, 50);
    assert_eq!(b.window(A), 21_250, "one segment at most, whatever the ACK covers");
}

#[test]
fn what_slow_start_does_not_need_counts_for_congestion_avoidance() {
    let mut b = Bench::new("reno", 1);
    b.start(A, 20_000, 50);
    b.cc.on_rto(b.now, A, 20_000);
    assert_eq!(
        (b.window(A), b.ssthresh(A)),
        (1_000, 10_000),
        "RFC 5681 §3.1: the loss window, half the flight"
    );
    b.ack(A, 9_000 + 5_000, 50);
    assert_eq!(b.window(A), 10_500, "9,000 to the threshold, then 1,000 · 5,000 / 10,000");
}

/// RFC 5681 §3.1 equation 4, RFC 9438 §4.6: from what was in flight, at least two segments.
#[test]
fn reductions() {
    struct Case {
        name: &'static str,
        window: u64,
        in_flight: u64,
        ssthresh: u64,
    }
    let case = |name, window, in_flight, ssthresh| Case { name, window, in_flight, ssthresh };
    let table = [
        case("reno", 40_000, 40_000, 20_000),
        case("reno", 40_000, 30_000, 15_000), // the window was not all in use
        case("reno", 40_000, 44_000, 20_000), // limited transmit does not count (RFC 5681 §3.2)
        case("reno", 12_000, 3_000, 2_000),
        case("lia", 40_000, 40_000, 20_000),
        case("cubic", 40_000, 40_000, 28_000),
        case("cubic", 40_000, 20_000, 14_000),
        case("cubic", 12_000, 1_500, 2_000),
    ];
    for Case { name, window, in_flight, ssthresh } in table {
        let at = |cause: fn(&mut Bench, u64)| {
            let mut b = Bench::new(name, 1);
            b.start(A, window, 50);
            cause(&mut b, in_flight);
            (b.window(A), b.ssthresh(A))
        };
        let what = alloc::format!("{name} {window} {in_flight}");
        assert_eq!(at(|b, f| b.cc.on_loss(b.now, A, f)), (ssthresh, ssthresh), "{what}");
        assert_eq!(at(|b, f| b.cc.on_rto(b.now, A, f)), (MSS, ssthresh), "{what}");
        let (after_mark, threshold) = at(|b, f| b.cc.on_ecn(b.now, A, f));
        assert_eq!(threshold, ssthresh, "{what}");
        assert!(after_mark <= ssthresh && after_mark >= MSS, "{what}");
    }
}

/// RFC 5681 §3.1: FlightSize is that of the start of recovery, so a lost retransmission does not lower the
/// threshold again. A later timeout does.
#[test]
fn a_timeout_in_recovery_keeps_the_threshold() {
    for name in EVERY {
        let mut b = Bench::new(name, 1);
        b.start(A, 40_000, 50);
        b.cc.on_loss(b.now, A, 40_000);
        let threshold = b.ssthresh(A);
        let sample = AckSample { in_recovery: true, ..b.sample(A, 5_000, 50) };
        b.cc.on_ack(b.now, A, &sample);
        b.cc.on_rto(b.now, A, 3_000);
        assert_eq!((b.window(A), b.ssthresh(A)), (MSS, threshold), "{name}");
        b.ack(A, 1_000, 50);
        b.cc.on_rto(b.now, A, 20_000);
        assert!(b.ssthresh(A) < threshold, "{name}");
    }
}

/// RFC 9438 §4.6, RFC 3168 §6.1.2: marks reduce the window to one segment, though the threshold stays at two.
#[test]
fn marks_reduce_to_one_segment() {
    let mut b = Bench::new("reno", 1);
    for _ in 0..5 {
        b.cc.on_ecn(b.now, A, b.window(A));
    }
    assert_eq!((b.window(A), b.ssthresh(A)), (1_000, 2_000));
}

/// RFC 7661 §4.4.1: when the end of a burst is lost, the reduction starts from the burst, not from the few
/// bytes left.
#[test]
fn a_loss_at_the_end_of_a_burst_halves_the_burst() {
    let mut b = Bench::new("reno", 1);
    b.start(A, 40_000, 50);
    b.cc.on_sent(b.now, A, 40_000, 40_000);
    b.ack(A, 38_000, 50);
    let used = b.window(A).min(40_000);
    b.cc.on_loss(b.now, A, 2_000);
    assert_eq!(b.window(A), used / 2);
    // That burst does not count for a later loss.
    b.cc.on_loss(b.now, A, 6_000);
    assert_eq!(b.window(A), 3_000);
}

#[test]
fn undo_restores_what_the_last_reduction_took() {
    for name in EVERY {
        let mut b = Bench::new(name, 1);
        b.avoid(A, 20, 50);
        for _ in 0..3 {
            b.round(A, 10, 50);
        }
        let before = (b.window(A), b.ssthresh(A));
        let causes: [fn(&mut Bench); 3] = [
            |b| b.cc.on_loss(b.now, A, b.window(A)),
            |b| b.cc.on_rto(b.now, A, b.window(A)),
            |b| b.cc.on_ecn(b.now, A, b.window(A)),
        ];
        for cause in causes {
            cause(&mut b);
            assert!(b.window(A) < before.0);
            b.cc.undo(b.now, A);
            assert_eq!((b.window(A), b.ssthresh(A)), before, "{name}");
            b.cc.undo(b.now, A);
            assert_eq!((b.window(A), b.ssthresh(A)), before, "{name}: once only");
        }
        // RFC 9438 §4.9.2: not if the window has outgrown the one before the reduction.
        b.cc.on_loss(b.now, A, b.window(A));
        for _ in 0..40 {
            b.round(A, 10, 50);
        }
        let now = (b.window(A), b.ssthresh(A));
        assert!(now.0 > before.0);
        b.cc.undo(b.now, A);
        assert_eq!((b.window(A), b.ssthresh(A)), now, "{name}");
    }
}

#[test]
fn a_penalty_halves_once_per_round_trip() {
    let mut b = Bench::new("lia", 1);
    b.start(A, 40_000, 100);
    b.cc.penalise(b.now, A);
    assert_eq!((b.window(A), b.ssthresh(A)), (20_000, 20_000));
    b.now += Duration::from_millis(99);
    b.cc.penalise(b.now, A);
    assert_eq!(b.window(A), 20_000);
    b.now += Duration::from_millis(1);
    b.cc.penalise(b.now, A);
    assert_eq!(b.window(A), 10_000);
    b.cc.undo(b.now, A);
    assert_eq!(b.window(A), 10_000, "a penalty is not a mistake about loss");
    b.cc.on_loss(b.now, A, 10_000);
    b.now += Duration::from_millis(100);
    b.cc.penalise(b.now, A);
    b.cc.undo(b.now, A);
    assert_eq!(b.window(A), 2_500, "nor is it forgiven with one");
}

#[test]
fn no_growth_in_recovery_or_while_the_application_is_the_limit() {
    for name in EVERY {
        let mut b = Bench::new(name, 1);
        for _ in 0..2 {
            let before = b.window(A);
            let limited = AckSample { app_limited: true, ..b.sample(A, 5_000, 50) };
            b.cc.on_ack(b.now, A, &limited);
            let recovering = AckSample { in_recovery: true, ..b.sample(A, 5_000, 50) };
            b.cc.on_ack(b.now, A, &recovering);
            assert_eq!(b.window(A), before, "{name}");
            b.avoid(A, 20, 50);
        }
    }
}

/// RFC 5681 §3.1: if the segments prove too large, an initial window shrinks with them, but a grown one does
/// not.
#[test]
fn segment_size_changes() {
    let mut b = Bench::new("reno", 2);
    b.cc.mss_changed(A, 500);
    assert_eq!(b.window(A), 5_000);
    b.start(B, 30_000, 50);
    b.cc.mss_changed(B, 500);
    assert_eq!(b.window(B), 30_000);
    b.cc.on_rto(b.now, B, 0);
    assert_eq!((b.window(B), b.ssthresh(B)), (500, 1_000));
    b.cc.mss_changed(B, 9_000);
    assert_eq!(b.window(B), 9_000, "never less than a segment");
}

#[test]
fn unknown_subflows_are_ignored() {
    let mut b = Bench::new("lia", 1);
    let stranger = SubflowId(77);
    assert_eq!((b.window(stranger), b.ssthresh(stranger)), (0, u64::MAX));
    let sample = b.sample(A, 1_000, 50);
    b.cc.on_ack(b.now, stranger, &sample);
    b.cc.on_loss(b.now, stranger, 1);
    b.cc.on_rto(b.now, stranger, 1);
    b.cc.undo(b.now, stranger);
    b.cc.penalise(b.now, stranger);
    b.cc.mss_changed(stranger, 1);
    b.cc.subflow_removed(b.now, stranger);
    assert_eq!(b.window(A), 10_000);
    b.cc.subflow_removed(b.now, A);
    assert_eq!(b.window(A), 0);
}

/// RFC 7661 §4.4.3: five minutes without use halve the window, but ssthresh remembers it.
#[test]
fn a_window_unused_for_five_minutes_is_halved() {
    let mut b = Bench::new("reno", 1);
    b.start(A, 80_000, 50);
    b.cc.on_loss(b.now, A, 80_000);
    b.cc.on_sent(b.now, A, 40_000, 40_000);
    b.ack(A, 40_000, 50);
    let window = b.window(A);
    b.now += Duration::from_secs(299);
    b.cc.on_sent(b.now, A, 1_000, 1_000);
    assert_eq!(b.window(A), window);
    b.now += Duration::from_secs(2);
    b.cc.on_sent(b.now, A, 1_000, 2_000);
    assert_eq!((b.window(A), b.ssthresh(A)), (20_500, 40_000), "41,000 / 2; threshold already above 3/4");
}

/// RFC 9406: slow start ends without a loss when the round-trip time rises and stays up.
#[test]
fn rising_delay_ends_slow_start() {
    let mut b = Bench::new("cubic", 1);
    b.round(A, 10, 50);
    b.round(A, 10, 50);
    assert_eq!(b.window(A), 40_000);
    b.round(A, 10, 60);
    // The eighth sample of that round, 60 ≥ 50 + 6.25 ms, reduced growth to a quarter from then on.
    let conservative = 40_000 + 28_000 + 12_000 / 4;
    assert_eq!(b.window(A), conservative);
    for _ in 0..4 {
        b.round(A, 10, 60);
    }
    let end = b.window(A);
    assert_eq!(b.ssthresh(A), end, "five rounds, the one it began in included");
    assert_eq!(end, 71_000 * 625 / 256 + 1 - 1, "times 1.25 per round");
}

/// RFC 9438 with W_max 300, window 210 segments, RTT 100 ms: K = ∛(90/0.4) = 6.0822 s.
#[test]
fn cubic_follows_its_curve() {
    let mut b = Bench::new("cubic", 1);
    b.start(A, 300_000, 100);
    b.cc.on_loss(b.now, A, 300_000);
    assert_eq!(b.window(A), 210_000);
    // §4.3: the first ACK starts the epoch, where W_cubic(0) is the window. Reno's estimate leads by 0.529 /
    // 10 segments.
    b.now += Duration::from_millis(100);
    b.ack(A, 21_000, 100);
    assert_eq!(b.window(A), 210_052);
    // §4.2: 100 ms later W_cubic(0.1 + 0.1) = 0.4 · (0.2 − 6.0822)³ + 300 = 218.59 segments. The target is
    // for a whole window; an ACK of a tenth of it goes a tenth of the way from 210.053.
    b.now += Duration::from_millis(100);
    b.ack(A, 21_005, 100);
    assert_eq!(b.window(A), 210_906);
    // Every 100 ms a window is acknowledged, so that the window is where the curve is: at K it is W_max.
    for _ in 0..60 {
        b.round(A, 20, 100);
    }
    let at_k = b.window(A);
    assert!((299_000..300_100).contains(&at_k), "{at_k}");
    // Convex: 2 s after K, 0.4 · 2³ = 3.2 segments above.
    for _ in 0..20 {
        b.round(A, 20, 100);
    }
    let convex = b.window(A);
    assert!((302_500..303_900).contains(&convex), "{convex}");
}

/// RFC 9438 §4.3: on a short round-trip time the estimate of Reno leads: 3 · 0.3 / 1.7 = 0.529 segments per
/// round trip, and 1 from the old window on.
#[test]
fn cubic_is_as_fast_as_reno_on_short_paths() {
    let mut b = Bench::new("cubic", 1);
    b.avoid(A, 20, 2);
    for _ in 0..10 {
        b.round(A, 20, 2);
    }
    let grown = b.window(A) - 20_000;
    assert!((5_150..5_294).contains(&grown), "ten times 0.529: {grown}");
    while b.window(A) < 28_571 {
        b.round(A, 20, 2);
    }
    let old = b.window(A);
    for _ in 0..10 {
        b.round(A, 20, 2);
    }
    let grown = b.window(A) - old;
    assert!((9_700..10_000).contains(&grown), "ten times 1: {grown}");
}

/// RFC 9438 §4.7: 1,000, then a loss at 800 < W_max: aim at 800 · 0.85 = 680 instead of 800.
#[test]
fn cubic_converges_fast() {
    let mut b = Bench::new("cubic", 1);
    b.start(A, 1_000_000, 100);
    b.cc.on_loss(b.now, A, 1_000_000);
    while b.window(A) < 800_000 {
        b.round(A, 20, 100);
    }
    let w = b.window(A);
    b.cc.on_loss(b.now, A, w);
    assert_eq!(b.window(A), (w as f64 * 0.7) as u64);
    // K = ∛(0.15 · 800 / 0.4) = 6.7 s, at the end of which the window is 0.85 w and flat.
    for _ in 0..67 {
        b.round(A, 20, 100);
    }
    let plateau = b.window(A) as f64 / w as f64;
    assert!((0.845..0.855).contains(&plateau), "{plateau}");
}

/// RFC 9438 §4.8: after a timeout the curve starts flat where slow start ends.
#[test]
fn cubic_after_a_timeout_starts_from_where_it_is() {
    let mut b = Bench::new("cubic", 1);
    b.start(A, 200_000, 100);
    b.cc.on_loss(b.now, A, 200_000);
    b.round(A, 20, 100);
    b.cc.on_rto(b.now, A, 100_000);
    let (window, threshold) = (b.window(A), b.ssthresh(A));
    assert_eq!((window, threshold / 1_000), (1_000, 98), "0.7 · 140.5");
    while b.window(A) < threshold {
        b.round(A, 20, 100);
    }
    let start = b.window(A);
    b.round(A, 20, 100);
    // K = 0: W_cubic(0.1 + 0.1) = 0.4 · 0.008 segments above; the Reno estimate of half a segment leads.
    let grown = b.window(A) - start;
    assert!((490..=530).contains(&grown), "{grown}");
}

/// RFC 9438 §4.2: however far ahead the curve is, the window grows by at most half per round trip. Window 70,
/// W_max 100, K = 4.217 s, RTT 10 s: W_cubic(1 + 10) = 0.4 · 6.783³ + 100 = 225 segments.
#[test]
fn cubic_grows_no_faster_than_half_a_window_per_round_trip() {
    let mut b = Bench::new("cubic", 1);
    b.start(A, 100_000, 10_000);
    b.cc.on_loss(b.now, A, 100_000);
    b.ack(A, 1, 10_000);
    b.now += Duration::from_secs(1);
    b.ack(A, 7_000, 10_000);
    assert_eq!(b.window(A), 73_500);
}

/// After a penalty the curve starts anew. Otherwise the next ACK would restore the window.
#[test]
fn cubic_does_not_jump_back_after_a_penalty() {
    let mut b = Bench::new("cubic", 1);
    b.avoid(A, 70, 100);
    for _ in 0..20 {
        b.round(A, 20, 100);
    }
    b.cc.penalise(b.now, A);
    let window = b.window(A);
    b.now += Duration::from_millis(1);
    b.ack(A, 1_000, 100);
    assert!(b.window(A) - window < 50, "{} after {window}", b.window(A));
}

/// RFC 9438 §5.8: a pause, idle or limited by the application, does not let the curve run ahead.
#[test]
fn cubic_does_not_count_pauses() {
    let run = |pause: fn(&mut Bench)| {
        let mut b = Bench::new("cubic", 1);
        b.avoid(A, 70, 100);
        for _ in 0..10 {
            b.round(A, 20, 100);
        }
        pause(&mut b);
        for _ in 0..10 {
            b.round(A, 20, 100);
        }
        b.window(A)
    };
    let steady = run(|_| {});
    let idle = run(|b| b.now += Duration::from_secs(60));
    let limited = run(|b| {
        for _ in 0..100 {
            b.now += Duration::from_millis(100);
            let sample = AckSample { app_limited: true, ..b.sample(A, 5_000, 100) };
            b.cc.on_ack(b.now, A, &sample);
        }
    });
    assert_eq!(idle, steady);
    assert_eq!(limited, steady);
}

/// After the undo of a needless reduction the first slow start goes on as before, and a queue ends it.
#[test]
fn undo_restores_the_search_for_a_queue() {
    let mut b = Bench::new("cubic", 1);
    b.round(A, 10, 50);
    b.cc.on_loss(b.now, A, b.window(A));
    b.cc.undo(b.now, A);
    assert_eq!(b.ssthresh(A), u64::MAX);
    for _ in 0..2 {
        b.round(A, 10, 50);
    }
    let before = b.window(A);
    for _ in 0..2 {
        b.round(A, 10, 70);
    }
    assert!(b.window(A) < 4 * before, "conservative slow start (RFC 9406 §4.2)");
}

/// A path that falls silent with 60 segments in flight, a third of whose round-trip time is spent in the
/// queue. The threshold after the timeout, and once it answers again after `pause`.
fn silence(b: &mut Bench, pause: Duration) -> [u64; 2] {
    b.avoid(A, 60, 60);
    let queued = AckSample { min_rtt: Duration::from_millis(40), ..b.sample(A, MSS, 60) };
    b.cc.on_ack(b.now, A, &queued);
    b.cc.on_rto(b.now, A, 60 * MSS);
    let halved = b.ssthresh(A) / MSS;
    b.now += pause;
    b.cc.on_silence_over(b.now, A);
    assert_eq!(b.window(A), MSS, "slow start leads there");
    [halved, b.ssthresh(A) / MSS]
}

#[test]
fn after_a_silence_the_threshold_is_what_filled_the_path() {
    for name in EVERY {
        let mut b = Bench::new(name, 1);
        let [halved, restored] = silence(&mut b, Duration::from_secs(5));
        assert!(halved < restored || name == "cubic", "{name}: {halved} {restored}");
        assert!((40..=42).contains(&restored), "{name}: {restored}");
        // Of no use after long, twice, or if a loss says otherwise.
        b.cc.on_silence_over(b.now, A);
        assert!((40..=42).contains(&(b.ssthresh(A) / MSS)), "{name}");
        let [halved, late] = silence(&mut Bench::new(name, 1), Duration::from_secs(31));
        assert_eq!(halved, late, "{name}");
        let mut b = Bench::new(name, 1);
        b.avoid(A, 60, 60);
        b.cc.on_rto(b.now, A, 60 * MSS);
        b.cc.on_loss(b.now, A, 10 * MSS);
        let before = b.ssthresh(A);
        b.cc.on_silence_over(b.now, A);
        assert_eq!(b.ssthresh(A), before, "{name}");
    }
}

//! RFC 7661: unused windows.

use super::*;

/// The algorithms that differ only in their factors.
const EVERY: [&str; 5] = ["reno", "cubic", "lia", "olia", "balia"];

/// A round trip of 50 ms in which the application has only `bytes` to send.
fn limited(b: &mut Bench, bytes: u64) {
    b.cc.on_sent(b.now, A, bytes, bytes);
    b.now += Duration::from_millis(50);
    let sample = AckSample { app_limited: true, in_flight: 0, ..b.sample(A, bytes, 50) };
    b.cc.on_ack(b.now, A, &sample);
    b.cc.on_round(b.now, A);
}

/// A window of at least 80 segments that was full for two round trips, then `rounds` that used ten segments
/// of it.
fn after(name: &str, rounds: u32) -> Bench {
    let mut b = Bench::new(name, 1);
    let before = if name == "cubic" { 114_286 } else { 160_000 };
    b.start(A, before, 50);
    b.cc.on_loss(b.now, A, before);
    b.cc.on_recovered(b.now, A, 1_000);
    b.round(A, 10, 50);
    b.round(A, 10, 50);
    for _ in 0..rounds {
        limited(&mut b, 10_000);
    }
    b
}

/// §4.3, §4.4.1: within the sampling period of a second the full window still counts. After that, a loss
/// halves what was used, whatever the algorithm's own factor is.
#[test]
fn a_loss_with_an_unused_window_halves_what_was_used() {
    for name in EVERY {
        let mut b = after(name, 30);
        let window = b.window(A);
        assert!(window >= 80_000, "{name}: preserved, {window}");
        b.cc.on_loss(b.now, A, 4_000);
        assert_eq!((b.window(A), b.ssthresh(A)), (5_000, 5_000), "{name}: Max(pipeACK, LossFlightSize) / 2");
        // Two of the ten segments were lost and retransmitted.
        b.cc.on_recovered(b.now, A, 2_000);
        assert_eq!((b.window(A), b.ssthresh(A)), (4_000, 4_000), "{name}: (Max(…) − R) / 2");
        b.cc.on_recovered(b.now, A, 2_000);
        assert_eq!(b.window(A), 4_000, "{name}: once");
    }
}

/// §4.4.1: a burst larger than what was used before counts fully.
#[test]
fn the_flight_counts_when_it_is_more_than_what_was_used_before() {
    let mut b = after("reno", 30);
    b.cc.on_sent(b.now, A, 60_000, 60_000);
    b.cc.on_loss(b.now, A, 60_000);
    assert_eq!(b.window(A), 30_000);
    b.cc.on_recovered(b.now, A, 59_900);
    assert_eq!(b.window(A), MSS, "not below one segment");
}

/// §4.3: the largest sample of the last second decides.
#[test]
fn a_pause_shorter_than_the_sampling_period_leaves_the_window_validated() {
    let mut b = after("cubic", 10);
    let window = b.window(A);
    b.cc.on_loss(b.now, A, window);
    assert_eq!(b.window(A), (window as f64 * 0.7) as u64, "CUBIC's own factor");
    let before = b.window(A);
    b.cc.on_recovered(b.now, A, 20_000);
    assert_eq!(b.window(A), before, "and nothing more afterwards");
}

/// §4.4: the phase ends when more than half of the window is used again.
#[test]
fn using_the_window_validates_it() {
    let mut b = after("cubic", 30);
    b.round(A, 10, 50);
    let window = b.window(A);
    b.cc.on_loss(b.now, A, window);
    assert_eq!(b.window(A), (window as f64 * 0.7) as u64);
}

/// §4.2: after a loss pipeACK is undefined. Until it is measured again, the standard reduction applies.
#[test]
fn after_recovery_the_standard_answer_is_given() {
    let mut b = after("cubic", 30);
    b.cc.on_loss(b.now, A, 10_000);
    b.cc.on_recovered(b.now, A, 0);
    let window = b.window(A);
    b.ack(A, 1_000, 50);
    b.cc.on_loss(b.now, A, window);
    assert_eq!(b.window(A), (window as f64 * 0.7) as u64);
}

/// §4.4: a timeout ends the phase. Undoing a recovery restores the window, and its end then changes nothing.
#[test]
fn timeouts_and_undo_end_the_phase() {
    let mut b = after("reno", 30);
    b.cc.on_rto(b.now, A, 10_000);
    assert_eq!((b.window(A), b.ssthresh(A)), (MSS, 5_000));
    b.cc.on_recovered(b.now, A, 5_000);
    assert_eq!(b.window(A), MSS);

    let mut b = after("reno", 30);
    let window = b.window(A);
    b.cc.on_loss(b.now, A, 10_000);
    b.cc.undo(b.now, A);
    assert_eq!(b.window(A), window);
    b.cc.on_recovered(b.now, A, 5_000);
    assert_eq!(b.window(A), window);
}

/// §4.4.3, §4.5.2: every five minutes of little or no use halve the window, down to the initial one.
#[test]
fn every_five_minutes_unused_cost_half_the_window() {
    for idle in [true, false] {
        let mut b = after("reno", 30);
        let window = b.window(A);
        let end = b.now + Duration::from_secs(610);
        if idle {
            b.now = end;
        }
        while b.now < end {
            limited(&mut b, 10_000);
        }
        b.cc.on_sent(b.now, A, 1_000, 1_000);
        assert_eq!(b.window(A), window / 4, "idle: {idle}");
        assert!(b.ssthresh(A) >= window * 3 / 4, "idle: {idle}, {}", b.ssthresh(A));
        b.now += Duration::from_secs(86_400);
        b.cc.on_sent(b.now, A, 1_000, 1_000);
        assert_eq!(b.window(A), 10 * MSS, "idle: {idle}");
    }
}

/// A sender that always has data never enters the phase, although slow start doubles the window between two
/// samples.
#[test]
fn a_busy_sender_in_slow_start_is_never_taken_for_an_idle_one() {
    for rounds in 1..6 {
        let mut b = Bench::new("cubic", 1);
        for _ in 0..rounds {
            b.round(A, 7, 50);
        }
        let window = b.window(A);
        b.cc.on_sent(b.now, A, window, window);
        b.cc.on_loss(b.now, A, window);
        assert_eq!(b.window(A), (window as f64 * 0.7) as u64, "{rounds} rounds");
    }
}

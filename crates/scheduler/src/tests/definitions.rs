//! Each scheduler against its definition, with numbers worked out by hand.

use super::*;

/// As the definitions have it: pacing below the scheduler, and `window` full or not.
fn unpaced(id: u32, srtt_ms: u64, window: u64, in_flight: u64) -> SubflowView {
    SubflowView {
        window: window * MSS,
        in_flight: in_flight * MSS,
        pacing_rate: u64::MAX,
        ..subflow(id, srtt_ms, (window - in_flight) * MSS)
    }
}

fn with_window(subflows: &[SubflowView], whole: u64, backlog: u64) -> Snapshot<'_> {
    Snapshot { whole_window: whole, ..snapshot(subflows, backlog) }
}

// ---- Linux's default ----

#[test]
fn linux_takes_the_subflow_on_which_data_lingers_least() {
    let at = |rate| move |s| SubflowView { pacing_rate: rate, ..s };
    // 10 kB at 1 MB/s linger 10 ms; 10 kB at 5 MB/s 2 ms: the round-trip time does not matter.
    let (a, b) = (at(1_000_000)(subflow(0, 10, 20_000)), at(5_000_000)(subflow(1, 90, 20_000)));
    assert_eq!(Linux::default().schedule(&snapshot(&[a.clone(), b.clone()], 1_000_000)), send(1, 20_000));
    // 60 kB more that wait there make it 14 ms.
    let queued = SubflowView { queued: 60_000, ..b.clone() };
    assert_eq!(Linux::default().schedule(&snapshot(&[a.clone(), queued], 1_000_000)), send(0, 20_000));
    let full = SubflowView { room: 0, ..b };
    assert_eq!(Linux::default().schedule(&snapshot(&[a, full], 1_000_000)), send(0, 20_000));
}

#[test]
fn linux_stays_for_a_burst() {
    let at = |id, rate| SubflowView { pacing_rate: rate, ..subflow(id, 10, 500_000) };
    let subflows = [at(0, 1_000_000), at(1, 1_500_000)];
    let mut scheduler = Linux::default();
    assert_eq!(scheduler.schedule(&snapshot(&subflows, 1_000_000)), send(1, 65_428));
    scheduler.on_sent(NOW, SubflowId(1), 60_000);
    // By now the other has less to linger, but the turn goes on.
    let sent = [at(0, 1_000_000), SubflowView { in_flight: 70_000, ..at(1, 1_500_000) }];
    assert_eq!(scheduler.schedule(&snapshot(&sent, 1_000_000)), send(1, 5_428));
    scheduler.on_sent(NOW, SubflowId(1), 5_428);
    assert_eq!(scheduler.schedule(&snapshot(&sent, 1_000_000)), send(0, 65_428));
    // Nor does it hold up others when its window is full.
    scheduler.on_sent(NOW, SubflowId(0), 30_000);
    let full = [SubflowView { room: 0, ..at(0, 1_000_000) }, at(1, 1_500_000)];
    assert_eq!(scheduler.schedule(&snapshot(&full, 1_000_000)), send(1, 65_428));
}

// ---- redundant ----

#[test]
fn redundant_sends_everything_on_every_subflow_that_has_room() {
    let mut s = [subflow(0, 10, 30_000), subflow(1, 50, 12_000), backup(subflow(2, 5, 30_000))];
    let turns = drain(&mut Redundant, &mut s, 20_000);
    assert_eq!(turns, [(0, 20_000), (1, 12_000)]);
    assert_eq!((s[1].behind, s[2].behind), (8_000, 20_000));
    // With nothing new, what is left of the copy goes when there is room.
    s[1].room = 5_000;
    assert_eq!(drain(&mut Redundant, &mut s, 0), [(1, 5_000)]);
    // The one that is behind does not take new data before that.
    s[1].room = 5_000;
    s[0].room = 0;
    assert_eq!(drain(&mut Redundant, &mut s, 1_000), [(1, 3_000), (1, 1_000)]);
    assert_eq!(s[0].behind, 1_000);
}

// ---- interactive ----

#[test]
fn interactive_sends_what_is_small_on_every_subflow_and_the_rest_as_min_rtt() {
    let all = || [subflow(0, 10, 30_000), subflow(1, 50, 30_000), backup(subflow(2, 5, 30_000))];
    let mut s = all();
    assert_eq!(drain(&mut Interactive, &mut s, 1_000), [(0, 1_000), (1, 1_000)]);
    // More than an initial window goes once.
    let mut s = all();
    assert_eq!(drain(&mut Interactive, &mut s, 20_000), [(0, 20_000)]);
    // Where windows are full, on both, as min-RTT has it.
    let mut s = all();
    let turns = drain(&mut Interactive, &mut s, 60_000);
    assert_eq!(turns, drain(&mut MinRtt, &mut all(), 60_000));
}

// ---- weighted ----

/// Bytes on each subflow when all have room for everything.
fn shares(weights: &[u32], total: u64) -> Vec<u64> {
    let mut s: Vec<_> = (0u32..)
        .zip(weights)
        .map(|(id, weight)| SubflowView { weight: *weight, ..subflow(id, 10 * u64::from(id) + 10, 1 << 40) })
        .collect();
    let turns = drain(&mut Weighted::default(), &mut s, total);
    (0..weights.len()).map(|id| turns.iter().filter(|t| t.0 == id as u32).map(|t| t.1).sum()).collect()
}

#[test]
fn weighted_shares_by_weight() {
    let turn = 2 * 65_535;
    for weights in [&[1, 1][..], &[3, 1], &[1, 10], &[5, 3, 2]] {
        let total = 100_000_000;
        let sum: u32 = weights.iter().sum();
        for (share, weight) in shares(weights, total).into_iter().zip(weights) {
            let due = total * u64::from(*weight) / u64::from(sum);
            assert!(share.abs_diff(due) <= 2 * turn, "{weights:?}: {share} instead of {due}");
        }
    }
}

#[test]
fn weighted_gives_others_what_one_has_no_room_for_and_does_not_owe_it() {
    let weight = |s, weight| SubflowView { weight, ..s };
    let mut scheduler = Weighted::default();
    let mut s = [weight(subflow(0, 10, 0), 9), weight(subflow(1, 50, 1 << 40), 1)];
    assert_eq!(drain(&mut scheduler, &mut s, 10_000_000).iter().map(|t| t.1).sum::<u64>(), 10_000_000);
    s[0].room = 1 << 40;
    let turns = drain(&mut scheduler, &mut s, 10_000_000);
    let on_light: u64 = turns.iter().filter(|t| t.0 == 1).map(|t| t.1).sum();
    assert!((800_000..=1_200_000).contains(&on_light), "{on_light} is a tenth, as if nothing had been");
}

// ---- BLEST ----

fn blest_at(lambda_rounds: u64, blocked: bool, subflows: &[SubflowView], whole: u64) -> Decision {
    let mut scheduler = Blest::default();
    for round in 1..=lambda_rounds {
        if blocked {
            scheduler.on_blocked(NOW);
        }
        let now = NOW + Duration::from_millis(10 * round);
        scheduler.schedule(&Snapshot { now, ..with_window(subflows, whole, 1_000_000) });
    }
    let now = NOW + Duration::from_millis(10 * lambda_rounds);
    scheduler.schedule(&Snapshot { now, ..with_window(subflows, whole, 1_000_000) })
}

/// f: 10 segments, 10 ms, full. s: 40 ms, 3 of 8 segments in flight. X = (10 + 3/2)·4 = 46 segments. λ starts
/// at 1.2, so 55.2 segments are compared with the window less 4 segments.
#[test]
fn blest_skips_the_slow_subflow_when_the_window_is_too_small_for_both() {
    let s = [unpaced(0, 10, 10, 10), unpaced(1, 40, 8, 3)];
    assert_eq!(blest_at(1, false, &s, 59_190), Decision::Wait);
    assert_eq!(blest_at(1, false, &s, 59_210), send(1, 5_000));
    // The fast one has room: no question.
    let room = [unpaced(0, 10, 10, 8), s[1].clone()];
    assert_eq!(blest_at(1, false, &room, 20_000), send(0, 2_000));
    // Nothing would end the waiting.
    let idle = [SubflowView { in_flight: 0, room: 0, ..s[0].clone() }, s[1].clone()];
    assert_eq!(blest_at(1, false, &idle, 20_000), send(1, 5_000));
}

/// After 30 round trips without blocking λ is 1.0 and not less: 46 segments. After 10 with, 1.3 and not more:
/// 59.8 segments.
#[test]
fn blest_learns_from_blocking() {
    let s = [unpaced(0, 10, 10, 10), unpaced(1, 40, 8, 3)];
    assert_eq!(blest_at(30, false, &s, 49_990), Decision::Wait);
    assert_eq!(blest_at(30, false, &s, 50_010), send(1, 5_000));
    assert_eq!(blest_at(10, true, &s, 63_790), Decision::Wait);
    assert_eq!(blest_at(10, true, &s, 63_810), send(1, 5_000));
}

// ---- ECF ----

fn ecf(waiting: bool, subflows: &[SubflowView], backlog: u64) -> Decision {
    let mut scheduler = Ecf::default();
    if waiting {
        assert_eq!(scheduler.schedule(&snapshot(subflows, 10_000)), Decision::Wait);
    }
    scheduler.schedule(&snapshot(subflows, backlog))
}

/// f: 10 segments, 10 ms, full. s: 10 segments, 50 ms. δ = 5 ms. On f: (1 + k/10)·10 ms < 55 ms up to 44
/// segments; from 4.5 ((2·10 + 5)/50·10 = 5) segments on s is not quick either.
#[test]
fn ecf_waits_when_the_fast_subflow_is_through_sooner() {
    let slow = SubflowView { rttvar: Duration::from_millis(5), ..unpaced(1, 50, 10, 4) };
    let s = [unpaced(0, 10, 10, 10), slow];
    assert_eq!(ecf(false, &s, 44_000), Decision::Wait);
    assert_eq!(ecf(false, &s, 46_000), send(1, 6_000));
    // It takes a quarter more to change its mind: 68.75 ms, up to 58 segments.
    assert_eq!(ecf(true, &s, 58_000), Decision::Wait);
    assert_eq!(ecf(true, &s, 59_000), send(1, 6_000));
    // So little that s has sent it before f could: (k/10)·50 ms < 25 ms.
    assert_eq!(ecf(false, &s, 4_900), send(1, 4_900));
    assert_eq!(ecf(false, &s, 5_000), Decision::Wait);
    // f has room.
    assert_eq!(ecf(false, &[unpaced(0, 10, 10, 8), s[1].clone()], 44_000), send(0, 2_000));
}

#[test]
fn ecf_begins_anew_once_the_slow_subflow_was_worth_it() {
    let slow = SubflowView { rttvar: Duration::from_millis(5), ..unpaced(1, 50, 10, 4) };
    let s = [unpaced(0, 10, 10, 10), slow];
    let mut scheduler = Ecf::default();
    assert_eq!(scheduler.schedule(&snapshot(&s, 10_000)), Decision::Wait);
    assert_eq!(scheduler.schedule(&snapshot(&s, 100_000)), send(1, 6_000));
    assert_eq!(scheduler.schedule(&snapshot(&s, 50_000)), send(1, 6_000), "not waiting any more");
}

/// What is paid for comes after everything else that may still answer.
#[test]
fn a_metered_subflow_is_used_only_when_nothing_else_answers() {
    let metered = |s: SubflowView| SubflowView { metered: true, ..s };
    let suspect = |s: SubflowView| SubflowView { health: Health::Suspect, ..s };
    let chosen = |subflows: &[SubflowView]| {
        let ids: Vec<u32> =
            preferred(&Snapshot::new(NOW, subflows, 100 * MSS, MSS)).map(|s| s.id.0).collect();
        ids
    };
    let (a, b, c) = (subflow(0, 100, MSS), subflow(1, 10, MSS), subflow(2, 10, MSS));
    assert_eq!(chosen(&[a.clone(), metered(b.clone())]), [0]);
    assert_eq!(chosen(&[backup(a.clone()), metered(b.clone())]), [0]);
    assert_eq!(chosen(&[suspect(a.clone()), metered(b.clone())]), [0]);
    assert_eq!(chosen(&[stale(a.clone()), metered(b.clone())]), [1]);
    assert_eq!(chosen(&[suspect(a.clone()), metered(b.clone()), backup(c)]), [2]);
    assert_eq!(chosen(&[stale(a), suspect(metered(b))]), [1]);
}

/// At three times the cost a third of the bytes.
#[test]
fn weighted_divides_shares_by_cost() {
    let mut subflows = [subflow(0, 10, 400 * MSS), subflow(1, 10, 400 * MSS)];
    subflows[1].cost = 3;
    let mut scheduler = Weighted::default();
    let turns = drain(&mut scheduler, &mut subflows, 400 * MSS);
    let on = |id| turns.iter().filter(|t| t.0 == id).map(|t| t.1).sum::<u64>() as f64;
    let ratio = on(0) / on(1);
    assert!((2.0..4.5).contains(&ratio), "{ratio}");
}

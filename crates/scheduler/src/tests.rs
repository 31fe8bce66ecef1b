//! Tables of snapshots and the decision of each scheduler.

mod definitions;

use crate::*;
use alloc::vec::Vec;
use proptest::prelude::*;

const NOW: Instant = Instant::from_millis(1_000);
const MSS: u64 = 1_000;

/// A good regular subflow with `room` of 20 segments, 10 in flight, at 10 Mbyte/s.
fn subflow(id: u32, srtt_ms: u64, room: u64) -> SubflowView {
    SubflowView {
        id: SubflowId(id),
        srtt: Some(Duration::from_millis(srtt_ms)),
        rttvar: Duration::from_millis(1),
        mss: MSS as u32,
        window: 10 * MSS + room,
        in_flight: 10 * MSS,
        room,
        queued: 0,
        behind: 0,
        pacing_rate: 10_000_000,
        next_send: NOW,
        loss: 0.0,
        backup: false,
        metered: false,
        weight: 1,
        cost: 1,
        health: Health::Good,
    }
}

fn backup(s: SubflowView) -> SubflowView {
    SubflowView { backup: true, ..s }
}

fn stale(s: SubflowView) -> SubflowView {
    SubflowView { health: Health::Stale, ..s }
}

fn unmeasured(s: SubflowView) -> SubflowView {
    SubflowView { srtt: None, ..s }
}

fn paced(s: SubflowView, micros: u64) -> SubflowView {
    SubflowView { next_send: NOW + Duration::from_micros(micros), ..s }
}

fn idle(s: SubflowView) -> SubflowView {
    SubflowView { in_flight: 0, window: s.room, ..s }
}

fn snapshot(subflows: &[SubflowView], backlog: u64) -> Snapshot<'_> {
    Snapshot::new(NOW, subflows, 1_000_000, backlog)
}

fn send(id: u32, limit: u64) -> Decision {
    Decision::Send { subflow: SubflowId(id), limit }
}

fn ask(subflows: &[SubflowView], backlog: u64) -> Decision {
    MinRtt.schedule(&snapshot(subflows, backlog))
}

fn ask_again(subflows: &[SubflowView], length: u64, carried_by: &[u32]) -> Decision {
    let carried_by: Vec<_> = carried_by.iter().map(|id| SubflowId(*id)).collect();
    let range = DataOffset(5_000)..DataOffset(5_000 + length);
    MinRtt.reinject(&snapshot(subflows, 1_000_000), &Reinjection { range, carried_by: &carried_by })
}

#[test]
fn min_rtt_takes_the_fastest_that_has_room() {
    let (fast, slow) = (subflow(0, 10, 20_000), subflow(1, 50, 30_000));
    assert_eq!(ask(&[fast.clone(), slow.clone()], 1_000_000), send(0, 20_000));
    let full = SubflowView { room: 0, ..fast.clone() };
    assert_eq!(ask(&[full.clone(), slow.clone()], 1_000_000), send(1, 30_000));
    assert_eq!(ask(&[full.clone(), SubflowView { room: 0, ..slow.clone() }], 1_000_000), Decision::Wait);
    assert_eq!(ask(&[], 1_000_000), Decision::Wait);
    // Equal: the older one.
    assert_eq!(ask(&[subflow(3, 10, 5_000), subflow(7, 10, 5_000)], 1_000_000), send(3, 5_000));
}

#[test]
fn subflows_without_a_sample_come_after_those_with_one() {
    let new = unmeasured(subflow(0, 1, 20_000));
    let old = subflow(1, 900, 20_000);
    assert_eq!(ask(&[new.clone(), old.clone()], 1_000_000), send(1, 20_000));
    assert_eq!(ask(&[new, SubflowView { room: 0, ..old }], 1_000_000), send(0, 20_000));
}

#[test]
fn backups_wait_until_no_regular_subflow_answers() {
    let regular = subflow(0, 100, 20_000);
    let spare = backup(subflow(1, 10, 20_000));
    assert_eq!(ask(&[regular.clone(), spare.clone()], 1_000_000), send(0, 20_000));
    let full = SubflowView { room: 0, ..regular.clone() };
    assert_eq!(ask(&[full, spare.clone()], 1_000_000), Decision::Wait);
    assert_eq!(ask(&[stale(regular.clone()), spare.clone()], 1_000_000), send(1, 20_000));
    assert_eq!(ask(&[stale(regular), stale(spare)], 1_000_000), send(1, 20_000));
}

#[test]
fn stale_subflows_only_when_there_is_nothing_else() {
    let a = stale(subflow(0, 10, 20_000));
    let b = subflow(1, 100, 0);
    assert_eq!(ask(&[a.clone(), b], 1_000_000), Decision::Wait);
    assert_eq!(ask(&[a, stale(subflow(1, 100, 9_000))], 1_000_000), send(0, 20_000));
}

#[test]
fn sends_no_more_than_there_is_or_the_peer_takes_and_whole_segments_before_that() {
    let s = [subflow(0, 10, 20_300)];
    assert_eq!(ask(&s, 1_000_000), send(0, 20_000));
    assert_eq!(ask(&s, 20_100), send(0, 20_100));
    assert_eq!(ask(&s, 77), send(0, 77));
    assert_eq!(ask(&s, 0), Decision::Wait);
    let narrow = Snapshot { send_window: 1_500, ..snapshot(&s, 1_000_000) };
    assert_eq!(MinRtt.schedule(&narrow), send(0, 1_500));
    let shut = Snapshot { send_window: 0, ..snapshot(&s, 1_000_000) };
    assert_eq!(MinRtt.schedule(&shut), Decision::Wait);
}

/// RFC 9293 §3.8.6.2: no fraction of a segment, unless nothing would be sent at all otherwise.
#[test]
fn room_for_a_fraction_of_a_segment_is_no_room_while_something_is_in_flight() {
    let sliver = subflow(0, 10, 300);
    assert_eq!(ask(&[sliver.clone(), subflow(1, 50, 5_000)], 1_000_000), send(1, 5_000));
    assert_eq!(ask(core::slice::from_ref(&sliver), 1_000_000), Decision::Wait);
    assert_eq!(ask(core::slice::from_ref(&sliver), 200), send(0, 200));
    assert_eq!(ask(&[idle(sliver)], 1_000_000), send(0, 300));
}

/// The fast subflow (10 ms) may send in 1 ms. Half the round trip of the slow one is 20 ms longer. So 19 ms
/// at 10 Mbyte/s, 190 kB, would reach the peer sooner on the fast one, and 20 kB of that fit into its window.
#[test]
fn pacing_reserves_for_the_fast_subflow_what_it_delivers_sooner() {
    let fast = paced(subflow(0, 10, 20_000), 1_000);
    let slow = subflow(1, 50, 30_000);
    let both = [fast.clone(), slow.clone()];
    assert_eq!(ask(&both, 1_000_000), send(1, 30_000));
    assert_eq!(ask(&both, 20_000), Decision::Wait);
    assert_eq!(ask(&both, 24_000), send(1, 4_000));
    // 100 kbyte/s: 1,900 bytes in 19 ms. Of the rest, the whole segments are sent.
    let trickle = SubflowView { pacing_rate: 100_000, ..fast.clone() };
    assert_eq!(ask(&[trickle, slow.clone()], 24_000), send(1, 22_000));
    // Paced for longer than it is faster: ignored.
    assert_eq!(ask(&[paced(fast.clone(), 21_000), slow.clone()], 20_000), send(1, 20_000));
    // As fast as the other: nothing is gained by waiting.
    assert_eq!(ask(&[fast, subflow(1, 10, 30_000)], 20_000), send(1, 20_000));
    // The slow one does not hold up the fast one.
    assert_eq!(ask(&[subflow(0, 10, 20_000), paced(slow, 1_000)], 20_000), send(0, 20_000));
}

#[test]
fn reinjection_goes_where_the_range_has_not_been() {
    let s = [subflow(0, 10, 20_000), subflow(1, 50, 20_000), subflow(2, 90, 20_000)];
    assert_eq!(ask_again(&s, 3_000, &[]), send(0, 3_000));
    assert_eq!(ask_again(&s, 3_000, &[0]), send(1, 3_000));
    assert_eq!(ask_again(&s, 30_000, &[1, 0]), send(2, 20_000));
    assert_eq!(ask_again(&s, 3_000, &[0, 1, 2]), Decision::Wait);
    assert_eq!(ask_again(&s, 0, &[]), Decision::Wait);
    let paced_first = [paced(s[0].clone(), 100), s[1].clone()];
    assert_eq!(ask_again(&paced_first, 3_000, &[]), send(1, 3_000));
    // A backup is not used while a regular subflow responds, but replaces a stale one.
    assert_eq!(ask_again(&[s[0].clone(), backup(s[1].clone())], 3_000, &[0]), Decision::Wait);
    assert_eq!(ask_again(&[stale(s[0].clone()), backup(s[1].clone())], 3_000, &[0]), send(1, 3_000));
}

/// Applies the decisions to the subflows until the scheduler waits; returns the bytes each was given, in
/// turn.
fn drain(scheduler: &mut dyn Scheduler, subflows: &mut [SubflowView], mut backlog: u64) -> Vec<(u32, u64)> {
    let mut turns = Vec::new();
    loop {
        let (subflow, limit, new) = match scheduler.schedule(&snapshot(subflows, backlog)) {
            Decision::Send { subflow, limit } => (subflow, limit, true),
            Decision::Repeat { subflow, limit } => (subflow, limit, false),
            Decision::Wait => break,
        };
        for other in subflows.iter_mut().filter(|s| new && s.id != subflow) {
            other.behind += limit;
        }
        let s = subflows.iter_mut().find(|s| s.id == subflow).unwrap();
        let left = if new { &mut backlog } else { &mut s.behind };
        assert!(limit > 0 && limit <= s.room && limit <= *left, "{limit} of {left} on {subflow:?}");
        *left -= limit;
        if new {
            s.behind = 0;
        }
        s.room -= limit;
        s.in_flight += limit;
        scheduler.on_sent(NOW, subflow, limit);
        turns.push((subflow.0, limit));
        assert!(turns.len() < 10_000, "never waits");
    }
    turns
}

#[test]
fn round_robin_takes_turns_of_one_large_segment() {
    let mut s = [subflow(0, 10, 100_000), subflow(4, 50, 100_000), subflow(9, 90, 20_000)];
    let turns = drain(&mut RoundRobin::default(), &mut s, 300_000);
    assert_eq!(turns, [(0, 65_000), (4, 65_000), (9, 20_000), (0, 35_000), (4, 35_000)]);
}

#[test]
fn round_robin_alternates_between_messages() {
    let s = [subflow(0, 10, 100_000), subflow(1, 50, 100_000)];
    let mut scheduler = RoundRobin::default();
    let turns: Vec<_> = (0..4).map(|_| scheduler.schedule(&snapshot(&s, 500))).collect();
    assert_eq!(turns, [send(0, 500), send(1, 500), send(0, 500), send(1, 500)]);
}

#[test]
fn round_robin_skips_the_full_the_paced_the_backup_and_the_stale() {
    let mut s = [
        subflow(0, 10, 0),
        paced(subflow(1, 10, 9_000), 1),
        subflow(2, 10, 9_000),
        backup(subflow(3, 10, 9_000)),
        stale(subflow(4, 10, 9_000)),
    ];
    assert_eq!(drain(&mut RoundRobin::default(), &mut s, 100_000), [(2, 9_000)]);
    let what = Reinjection { range: DataOffset(1)..DataOffset(901), carried_by: &[SubflowId(2)] };
    let decision = RoundRobin::default().reinject(&snapshot(&s, 0), &what);
    assert_eq!(decision, Decision::Wait);
}

#[test]
fn round_robin_survives_the_subflow_whose_turn_it_was() {
    let mut scheduler = RoundRobin::default();
    assert_eq!(scheduler.schedule(&snapshot(&[subflow(0, 1, 9_000), subflow(5, 1, 9_000)], 10)), send(0, 10));
    scheduler.subflow_removed(SubflowId(0));
    assert_eq!(scheduler.schedule(&snapshot(&[subflow(5, 1, 9_000), subflow(6, 1, 9_000)], 10)), send(5, 10));
    assert_eq!(scheduler.schedule(&snapshot(&[subflow(1, 1, 9_000)], 10)), send(1, 10));
}

#[test]
fn registry_knows_all_and_takes_more() {
    let mut registry = built_in();
    assert!(registry.create(DEFAULT_NAME).is_some());
    for name in registry.names() {
        assert_eq!(registry.create(name).unwrap().name(), name);
    }
    let names = ["min-rtt", "round-robin", "linux", "redundant", "weighted", "blest", "ecf", "interactive"];
    assert_eq!(registry.names().collect::<Vec<_>>(), names);
    assert!(registry.create("blest-of-all").is_none());
    registry.register("min-rtt", || alloc::boxed::Box::<RoundRobin>::default());
    assert_eq!(registry.create("min-rtt").unwrap().name(), "round-robin");
    assert!(alloc::format!("{registry:?}").ends_with(r#""interactive", "min-rtt"]"#));
}

fn any_subflow(id: u32) -> impl Strategy<Value = SubflowView> {
    (
        prop::option::of(1u64..500),
        0u64..100_000,
        0u64..100_000,
        0u64..5_000,
        (any::<bool>(), any::<bool>()),
        0u64..20_000_000,
        0u32..9_000,
    )
        .prop_map(move |(srtt, room, in_flight, pause, (is_backup, is_stale), pacing_rate, mss)| {
            SubflowView {
                srtt: srtt.map(Duration::from_millis),
                in_flight,
                // Half of them unpaced.
                next_send: NOW + Duration::from_micros(pause.saturating_sub(2_500)),
                backup: is_backup,
                health: if is_stale { Health::Stale } else { Health::Good },
                pacing_rate,
                mss,
                ..subflow(id, 1, room)
            }
        })
}

fn any_subflows() -> impl Strategy<Value = Vec<SubflowView>> {
    (0usize..6).prop_flat_map(|n| (0..n as u32).map(any_subflow).collect::<Vec<_>>())
}

proptest! {
    /// For any snapshot, decisions are legal (checked in `drain`) and come to an end, and subflows in good
    /// health are used before any others.
    #[test]
    fn decisions_are_legal_and_end(subflows in any_subflows(), backlog in 0u64..500_000) {
        let registry = built_in();
        for name in registry.names() {
            let mut scheduler = registry.create(name).unwrap();
            let mut after = subflows.clone();
            let turns = drain(scheduler.as_mut(), &mut after, backlog);
            let good = subflows.iter().any(|s| s.health == Health::Good);
            let regular = subflows.iter().any(|s| s.health == Health::Good && !s.backup);
            for (id, _) in &turns {
                let s = subflows.iter().find(|s| s.id.0 == *id).unwrap();
                prop_assert!(s.next_send <= NOW);
                prop_assert!(!good || s.health == Health::Good);
                prop_assert!(!regular || !s.backup);
            }
        }
    }

    /// With more backlog than all windows take, min-RTT leaves less than a segment of room on every usable
    /// subflow.
    #[test]
    fn enough_backlog_fills_every_window(subflows in any_subflows()) {
        let mut after = subflows.clone();
        drain(&mut MinRtt, &mut after, 1_000_000);
        let left = snapshot(&after, 1_000_000);
        for s in preferred(&left).filter(|s| s.next_send <= NOW) {
            prop_assert!(s.room < u64::from(s.mss.max(1)), "{s:?}");
        }
    }

    /// Reinjection never repeats a range on a subflow that carries it.
    #[test]
    fn reinjection_is_legal(subflows in any_subflows(), carried in prop::collection::vec(0u32..6, 0..4), length in 0u64..100_000) {
        let carried_by: Vec<_> = carried.into_iter().map(SubflowId).collect();
        let what = Reinjection { range: DataOffset(9)..DataOffset(9 + length), carried_by: &carried_by };
        let registry = built_in();
        for mut scheduler in registry.names().filter_map(|name| registry.create(name)) {
            if let Decision::Send { subflow, limit } = scheduler.reinject(&snapshot(&subflows, 0), &what) {
                let s = subflows.iter().find(|s| s.id == subflow).unwrap();
                prop_assert!(!carried_by.contains(&subflow) && limit > 0 && limit <= s.room.min(length) && s.next_send <= NOW);
            }
        }
    }
}

//! Properties of every algorithm after any sequence of events.

use super::*;
use alloc::vec;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
enum Op {
    Add(u32),
    Remove(u32),
    Mss(u32),
    Sent(u64),
    Ack { acked: u64, rtt: Duration, in_flight: u64, app_limited: bool, in_recovery: bool },
    Round,
    Loss(u64),
    Recovered(u64),
    Ecn(u64),
    Rto(u64),
    Undo,
    Penalise,
    Pass(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let bytes = || prop_oneof![4 => 0u64..200_000, 1 => 0u64..u64::from(u32::MAX), 1 => Just(u64::MAX)];
    let rtt = || {
        prop_oneof![
            8 => (0u64..2_000_000).prop_map(Duration::from_micros),
            1 => Just(Duration::ZERO),
            1 => Just(Duration::MAX),
        ]
    };
    prop_oneof![
        1 => (0u32..10_000).prop_map(Op::Add),
        1 => (0u32..3).prop_map(Op::Remove),
        1 => (0u32..70_000).prop_map(Op::Mss),
        5 => bytes().prop_map(Op::Sent),
        20 => (bytes(), rtt(), bytes(), any::<bool>(), any::<bool>()).prop_map(
            |(acked, rtt, in_flight, app_limited, in_recovery)| Op::Ack { acked, rtt, in_flight, app_limited, in_recovery }
        ),
        5 => Just(Op::Round),
        1 => bytes().prop_map(Op::Loss),
        1 => bytes().prop_map(Op::Recovered),
        1 => bytes().prop_map(Op::Ecn),
        1 => bytes().prop_map(Op::Rto),
        1 => Just(Op::Undo),
        1 => Just(Op::Penalise),
        5 => (0u64..1_000_000_000).prop_map(Op::Pass),
    ]
}

fn apply(cc: &mut dyn CongestionController, now: &mut Instant, id: SubflowId, op: Op) {
    match op {
        Op::Add(mss) => {
            cc.subflow_added(*now, id, SubflowParams { mss, initial_window: 10 * u64::from(mss) })
        }
        Op::Remove(n) => cc.subflow_removed(*now, SubflowId(n)),
        Op::Mss(mss) => cc.mss_changed(id, mss),
        Op::Sent(n) => cc.on_sent(*now, id, n, n),
        Op::Ack { acked, rtt, in_flight, app_limited, in_recovery } => {
            let sample = AckSample {
                acked,
                way_back: Duration::ZERO,
                rtt: Some(rtt),
                srtt: rtt,
                min_rtt: rtt / 2,
                in_flight,
                app_limited,
                disordered: acked % 3 == 0,
                in_recovery,
            };
            cc.on_ack(*now, id, &sample);
        }
        Op::Round => cc.on_round(*now, id),
        Op::Loss(n) => cc.on_loss(*now, id, n),
        Op::Recovered(n) => cc.on_recovered(*now, id, n),
        Op::Ecn(n) => cc.on_ecn(*now, id, n),
        Op::Rto(n) => cc.on_rto(*now, id, n),
        Op::Undo => cc.undo(*now, id),
        Op::Penalise => cc.penalise(*now, id),
        Op::Pass(micros) => *now += Duration::from_micros(micros),
    }
}

proptest! {
    /// A known subflow's window is at least one byte (one segment, in fact) and finite; an unknown one's is
    /// 0.
    #[test]
    fn windows_stay_within_bounds(ops in prop::collection::vec((0u32..3, op()), 1..200)) {
        for name in built_in().names() {
            let mut cc = built_in().create(name).unwrap();
            let mut now = T0;
            let mut known = [None; 3];
            for (i, op) in &ops {
                apply(cc.as_mut(), &mut now, SubflowId(*i), *op);
                match op {
                    Op::Add(mss) => known[*i as usize] = Some((*mss).max(1)),
                    Op::Mss(mss) => known[*i as usize] = known[*i as usize].map(|_| (*mss).max(1)),
                    Op::Remove(n) => known[*n as usize] = None,
                    _ => {}
                }
                for (n, mss) in (0..).zip(known) {
                    let (window, ssthresh) = (cc.window(SubflowId(n)), cc.ssthresh(SubflowId(n)));
                    match mss {
                        None => prop_assert_eq!(window, 0),
                        Some(mss) => {
                            prop_assert!(window >= u64::from(mss), "{} {:?}: {:?}", name, op, cc);
                            prop_assert!(window <= 1 << 32, "{} {:?}: {:?}", name, op, cc);
                            prop_assert!(ssthresh > 0);
                        }
                    }
                }
            }
        }
    }

    /// RFC 6356 §3, goal 2: on no path does LIA grow faster than TCP would there, and all together, in bytes
    /// per second gained per second, no faster than TCP on the best path.
    #[test]
    fn lia_never_outgrows_reno(paths in prop::collection::vec((2u64..2_000, 1u64..1_000), 1..6)) {
        // Windows are visible in whole bytes only, so a window is acknowledged at once, which adds alpha ·
        // w/w_total segments. Each path has its own controller, so that all start from the same state.
        let mut gained = 0.0;
        let mut best = 0.0f64;
        for (i, (segments, rtt)) in (0..).zip(&paths) {
            let mut b = Bench::new("lia", paths.len() as u32);
            for (k, (segments, rtt)) in (0..).zip(&paths) {
                b.avoid(SubflowId(k), *segments, *rtt);
            }
            let id = SubflowId(i);
            let before = b.window(id);
            b.ack(id, segments * MSS, *rtt);
            let growth = b.window(id) - before;
            prop_assert!(growth <= MSS, "{growth} on {segments} segments");
            // A window per RTT: this is the growth per RTT; rate gained per second is growth / rtt².
            let seconds = *rtt as f64 / 1_000.0;
            gained += growth as f64 / (seconds * seconds);
            best = best.max(MSS as f64 / (seconds * seconds));
        }
        prop_assert!(gained <= best * 1.001 + 1.0, "{gained} > {best}: {paths:?}");
    }

    /// The same inputs give the same windows.
    #[test]
    fn deterministic(ops in prop::collection::vec((0u32..3, op()), 1..100)) {
        for name in built_in().names() {
            let run = || {
                let mut cc = built_in().create(name).unwrap();
                let mut now = T0;
                ops.iter().map(|(i, op)| {
                    apply(cc.as_mut(), &mut now, SubflowId(*i), *op);
                    cc.window(SubflowId(*i))
                }).collect::<Vec<_>>()
            };
            prop_assert_eq!(run(), run());
        }
    }
}

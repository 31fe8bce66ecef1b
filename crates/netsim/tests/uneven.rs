//! Paths that are not alike: the second never makes the connection slower than the better one alone.
//! `cargo xtask uneven` prints the figures, and tries a thousand pairs.

use std::thread;
use umptcp_netsim::application::{Endless, Sink};
use umptcp_netsim::{Duration, Pair};
use umptcp_stack_core::config::{BufferSize, ConnectionConfig, StackConfig};
use umptcp_stack_core::observe::Counter;
use umptcp_testkit::simulation::uneven::{BUFFERS, Case, NSDI, Shape, TRICKLE};

/// Runs `check` for each case, on two threads.
fn for_each(cases: &[Case], check: impl Fn(&Case) + Sync) {
    thread::scope(|scope| {
        for half in cases.chunks(cases.len().div_ceil(2)) {
            let check = &check;
            scope.spawn(move || half.iter().for_each(check));
        }
    });
}

fn table(paths: [Shape; 2]) -> Vec<Case> {
    let duration = Duration::from_secs(40);
    BUFFERS.map(|kb| Case { duration, ..Case::new(paths, kb * 1000) }).to_vec()
}

/// Raiciu et al., NSDI 2012: without what is done there, 150 to 600 kB make it slower than Wi-Fi alone.
#[test]
fn wifi_and_3g_are_never_slower_than_wifi_alone() {
    for_each(&table(NSDI), |case| {
        let (both, alone) = (case.run().unwrap(), case.alone(0).unwrap().goodput);
        let goodput = both.goodput;
        // A DSS takes 1.4 % of each packet.
        assert!(goodput >= 0.97 * alone, "{case}: {goodput:.2} of {alone:.2} Mbit/s");
        let least = match case.buffer.limit() {
            600_000.. => 9.0,
            300_000.. => 8.5,
            _ => 0.0,
        };
        assert!(goodput >= least, "{case}: {goodput:.2} Mbit/s");
        assert!(both.copies < 0.02, "{case}: {:.3} of the bytes twice", both.copies);
    });
}

#[test]
fn a_trickle_beside_wifi_costs_nothing() {
    for_each(&table(TRICKLE), |case| {
        let goodput = case.run().unwrap().goodput;
        assert!(goodput >= 7.0, "{case}: {goodput:.2} Mbit/s");
    });
}

/// Fifty of the pairs of `cargo xtask uneven`.
#[test]
fn no_scheduler_makes_a_pair_of_paths_worse_than_the_better_one() {
    let schedulers = StackConfig::default().schedulers;
    let names = Case::comparable(schedulers.names());
    let duration = Duration::from_secs(40);
    let cases: Vec<Case> = (0..50).map(|seed| Case { duration, ..Case::random(seed, &names) }).collect();
    for_each(&cases, |case| {
        let found = case.compare().unwrap();
        assert!(found.ratio() >= case.least().0, "{:.3} {case}: {found:.3?}", found.ratio());
    });
}

/// Some of them with buffers that tune themselves, and the pairs of the tables.
#[test]
fn nor_do_buffers_that_tune_themselves() {
    let schedulers = StackConfig::default().schedulers;
    let names = Case::comparable(schedulers.names());
    let duration = Duration::from_secs(40);
    let random = (0..10).map(|seed| Case { duration, ..Case::random(seed, &names).automatic() });
    let tables = [NSDI, TRICKLE].map(|paths| Case { duration, ..Case::new(paths, BufferSize::AUTO) });
    let cases: Vec<Case> = random.chain(tables).collect();
    for_each(&cases, |case| {
        let found = case.compare().unwrap();
        assert!(found.ratio() >= case.least().0, "{:.3} {case}: {found:.3?}", found.ratio());
    });
}

/// Goodput over the pair of NSDI 2012 with a receive buffer of 300 kB, and how often the oldest data went out
/// once more and the slow subflow's window was halved.
fn with_switches(spare: bool, opportunistic: bool, penalise: bool) -> (f64, u64, u64) {
    let config = ConnectionConfig::default()
        .with_receive_buffer(300_000)
        .with_spare_window(spare)
        .with_opportunistic_retransmission(opportunistic)
        .with_penalisation(penalise);
    let mut net = Pair::builder().seed(1).config(config);
    for path in NSDI {
        net = net.path(path.link());
    }
    let mut net = net.build();
    let spec = net.flow_spec().applications(Endless, Sink);
    let flow = net.add_flow(spec).unwrap();
    net.run_for(Duration::from_secs(40)).unwrap();
    let received = net.flow(flow).server.progress.received;
    let counters = net.stack(net.client()).unwrap().counters();
    let [copies, halved] = [Counter::MPTCPOpportunistic, Counter::SubflowPenalised].map(|c| counters.get(c));
    (received as f64 * 8.0 / 40e6, copies, halved)
}

#[test]
fn each_remedy_for_blocking_can_be_turned_off_and_is_worth_something() {
    let (none, copies, halved) = with_switches(false, false, false);
    assert_eq!((copies, halved), (0, 0));
    let (resent, copies, halved) = with_switches(false, true, false);
    assert!(copies > 0 && halved == 0 && resent >= none, "{resent:.2} {none:.2}, {copies} copies");
    let (penalised, copies, halved) = with_switches(false, true, true);
    assert!(copies > 0 && halved > 0 && penalised > 1.2 * none, "{penalised:.2} {none:.2}, {halved}");
    let (spared, ..) = with_switches(true, false, false);
    assert!(spared > 1.1 * none, "{spared:.2} {none:.2}");
    let (all, ..) = with_switches(true, true, true);
    assert!(all >= 0.98 * spared.max(penalised) && all >= 8.5, "{all:.2} {spared:.2} {penalised:.2}");
}

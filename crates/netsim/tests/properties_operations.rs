//! Any sequence of what applications, links and boxes do to a connection between two stacks, and a case that
//! such sequences do not reach.

use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, RngSeed};
use umptcp_netsim::{Duration, Link, Pair, Side};
use umptcp_stack_core::config::ConnectionConfig;
use umptcp_testkit::simulation::operations::{WINDOW_UNIT, ops, run, shape};

/// A byte at a time to a reader that does not read: rounding the window up, lest its edge move back, must not
/// have the buffer grow as fast as the bytes come.
#[test]
fn single_bytes_do_not_push_the_window_on() {
    let buffer = 1_000_000;
    let config = ConnectionConfig::default().with_receive_buffer(buffer).with_no_delay(true);
    let mut net = Pair::builder().seed(1).path(Link::mbit(100).delay_ms(1)).config(config).build();
    let flow = net.connect().expect("a connection");
    net.pause_reading(flow, Side::Server, true);
    net.send(flow, Side::Client, 997_000);
    net.run_for(Duration::from_secs(1)).expect("a transfer");
    for _ in 0..6_000 {
        net.send(flow, Side::Client, 1);
        net.run_for(Duration::from_millis(3)).expect("a transfer");
    }
    let end = &net.flow(flow).server;
    let info = net.stack(end.node).and_then(|s| s.info(end.connection?)).expect("the connection lives");
    assert!(
        (997_000..=buffer + WINDOW_UNIT).contains(&info.readable),
        "{} bytes are buffered",
        info.readable
    );
}

fn config() -> ProptestConfig {
    let number = |name| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    ProptestConfig {
        cases: number("PROPTEST_CASES").unwrap_or(64) as u32,
        rng_seed: RngSeed::Fixed(number("PROPTEST_RNG_SEED").unwrap_or(1)),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions"))),
        max_shrink_iters: 400,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn operations_never_break_a_stream(shape in shape(), ops in ops()) {
        if let Err(told) = run(&shape, &ops, None) {
            return Err(TestCaseError::fail(told));
        }
    }
}

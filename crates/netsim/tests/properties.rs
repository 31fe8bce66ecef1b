//! Any paths, any seed: every byte arrives, and then there is silence.

use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, RngSeed};
use umptcp_testkit::simulation::transfers::{Plan, fail, plan, run, survive, troubles};

/// So many cases from a fixed seed, so that a run shows what a change did. `PROPTEST_CASES` and
/// `PROPTEST_RNG_SEED` (a number) ask for others. What failed once is tried first: its seed goes to the file
/// beside this one, to be committed.
fn config(share: u32) -> ProptestConfig {
    let number = |name| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    ProptestConfig {
        cases: number("PROPTEST_CASES").unwrap_or(48) as u32 / share + 1,
        rng_seed: RngSeed::Fixed(number("PROPTEST_RNG_SEED").unwrap_or(1)),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions"))),
        max_shrink_iters: 400,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(1))]

    #[test]
    fn every_byte_arrives_and_then_there_is_silence(plan in plan()) {
        if let Err(failure) = run(&plan, None) {
            fail(failure);
        }
    }
}

proptest! {
    #![proptest_config(config(8))]

    #[test]
    fn the_same_seed_gives_the_same_packets(plan in plan()) {
        let hash = |p: &Plan| run(p, None).map_err(|(e, _)| e);
        prop_assert_eq!(hash(&plan), hash(&plan));
    }
}

proptest! {
    #![proptest_config(config(1))]

    #[test]
    fn trouble_never_delivers_a_wrong_byte(plan in plan(), troubles in troubles()) {
        if let Err(failure) = survive(&plan, &troubles, None) {
            fail(failure);
        }
    }
}

//! Hours in the life of connections, in virtual time: see `umptcp_testkit::simulation::soak`.

use umptcp_testkit::simulation::soak;

/// Two hours each, on average 1 Mbit/s.
#[test]
fn paths_addresses_and_boxes_come_and_go_and_every_usable_path_carries_data_again() {
    for seed in [1, 2] {
        let report = soak::run(seed, 2.0).unwrap_or_else(|what| panic!("{what}"));
        assert!(report.disturbances > 50 && report.bytes > 500_000_000, "{report:?}");
    }
}

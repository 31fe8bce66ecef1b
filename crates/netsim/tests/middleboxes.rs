//! Middleboxes of every kind, at every place, acting on either side's packets: what becomes of the
//! connection, and that no byte is wrong. The matrix and what it asks for is
//! `umptcp_testkit::simulation::matrix`.

use umptcp_testkit::simulation::matrix::{Row, check, rows};

/// Every cell of these rows is as it should be.
#[track_caller]
fn check_all(rows: Vec<Row>) {
    for row in rows {
        for cell in row.cells() {
            check(&row.cell_name(cell), &row.run(cell, None), &row.want(cell));
        }
    }
}

#[test]
fn options_stripped_from_syns() {
    check_all(rows::options_stripped_from_syns());
}

#[test]
fn options_stripped_after_the_syns() {
    check_all(rows::options_stripped_after_the_syns());
}

#[test]
fn options_stripped_from_some_point_on() {
    check_all(rows::options_stripped_from_some_point_on());
}

#[test]
fn addresses_and_sequence_numbers_translated() {
    check_all(rows::addresses_and_sequence_numbers_translated());
}

#[test]
fn segments_cut() {
    check_all(rows::segments_cut());
}

#[test]
fn segments_joined() {
    check_all(rows::segments_joined());
}

#[test]
fn payload_rewritten_and_checksums_on() {
    check_all(rows::payload_rewritten_and_checksums_on());
}

#[test]
fn payload_rewritten_and_checksums_strict() {
    check_all(rows::payload_rewritten_and_checksums_strict());
}

#[test]
fn payload_rewritten_and_checksums_off() {
    check_all(rows::payload_rewritten_and_checksums_off());
}

#[test]
fn acknowledged_by_a_proxy() {
    check_all(rows::acknowledged_by_a_proxy());
}

#[test]
fn resets_injected() {
    check_all(rows::resets_injected());
}

#[test]
fn options_doubled_and_packets_disordered() {
    check_all(rows::options_doubled_and_packets_disordered());
}

#[test]
fn nat_forgets_during_a_pause() {
    check_all(rows::nat_forgets_during_a_pause());
    check_all(rows::nat_kept_by_keep_alives());
}

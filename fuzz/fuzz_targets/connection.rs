//! `umptcp_testkit::connection`, for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| umptcp_testkit::connection::connection(data));

//! `umptcp_testkit::operations`, for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| umptcp_testkit::operations::operations(data));

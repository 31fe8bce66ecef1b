//! `umptcp_testkit::packet`, for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| umptcp_testkit::packet::packet(data));

//! `umptcp_testkit::convert`, for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| umptcp_testkit::convert::convert(data));

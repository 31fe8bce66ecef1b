//! `umptcp_testkit::options`, for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| umptcp_testkit::options::options(data));

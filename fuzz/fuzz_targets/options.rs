//! `umptcp_fuzzing::options`, for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| umptcp_fuzzing::options::options(data));

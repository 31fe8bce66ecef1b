//! `umptcp_fuzzing::connection`, for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| umptcp_fuzzing::connection::connection(data));

//! `umptcp_fuzzing::packet`, for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| umptcp_fuzzing::packet::packet(data));

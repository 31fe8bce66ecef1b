//! `umptcp_fuzzing::operations`, for libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| umptcp_fuzzing::operations::operations(data));

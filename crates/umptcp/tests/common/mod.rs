//! Two stacks in one process, connected by datagram sockets instead of TUN devices: no privileges needed.
#![allow(dead_code, reason = "not every test uses all of it")]

mod pipe;

#[allow(unused_imports, reason = "not every test uses all of it")]
pub(crate) use pipe::{PipeDevice, captured_program, path, two_stacks};

/// Bytes that depend on their position.
pub(crate) fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed | 1;
    (0..len)
        .map(|_| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (x >> 56) as u8
        })
        .collect()
}

/// Waits for ten seconds at most.
pub(crate) fn wait_for(mut condition: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !condition() {
        assert!(std::time::Instant::now() < end, "it did not happen");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

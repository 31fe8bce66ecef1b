//! `bench`: throughput, latency and connection rate, between any two of umptcp, kernel MPTCP and kernel TCP.

pub(crate) mod client;
pub(crate) mod histogram;
pub(crate) mod measure;
pub(crate) mod meter;
pub(crate) mod protocol;
pub(crate) mod server;
pub(crate) mod transfer;

use std::time::Duration;

/// A peer without progress for this long is considered gone.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The result of a scoped thread; its panic is propagated.
fn join<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

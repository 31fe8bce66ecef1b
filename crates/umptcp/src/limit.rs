//! Time limits of reads and writes.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A time limit that any thread may change.
#[derive(Debug, Default)]
pub(crate) struct Limit {
    /// 0 means none.
    nanoseconds: AtomicU64,
}

impl Limit {
    pub(crate) fn get(&self) -> Option<Duration> {
        match self.nanoseconds.load(Ordering::Relaxed) {
            0 => None,
            nanoseconds => Some(Duration::from_nanos(nanoseconds)),
        }
    }

    pub(crate) fn set(&self, limit: Option<Duration>) -> io::Result<()> {
        if limit == Some(Duration::ZERO) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a time limit must not be zero"));
        }
        let nanoseconds = limit.map_or(0, |l| u64::try_from(l.as_nanos()).unwrap_or(u64::MAX));
        self.nanoseconds.store(nanoseconds, Ordering::Relaxed);
        Ok(())
    }
}

//! The monotonic clock that drives a stack.

use std::time::{Duration, SystemTime};
use umptcp_types::Instant;

/// What the kernel calls this start of the host, the same for every process; empty where it does not tell.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// A monotonic clock that knows the wall-clock time of its epoch.
///
/// The epoch is one second before the clock was created, so that no instant it returns is [`Instant::ZERO`],
/// which code may use as "never". Clones share the epoch, so their instants can be compared.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: std::time::Instant,
    wall: SystemTime,
}

/// Time from the epoch to the creation of the clock.
const HEAD_START: Duration = Duration::from_secs(1);

impl Clock {
    /// A clock that starts now.
    pub fn new() -> Self {
        Clock { base: std::time::Instant::now(), wall: SystemTime::now() }
    }

    /// The current time. Never goes backwards.
    #[inline]
    pub fn now(&self) -> Instant {
        Instant::ZERO + HEAD_START + self.base.elapsed()
    }

    /// What the wall clock would have shown at `instant` if it had not been set since the clock was created.
    pub fn wall_time(&self, instant: Instant) -> SystemTime {
        self.wall - HEAD_START + Duration::from_nanos(instant.as_nanos())
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_map_to_wall_time_and_never_go_back() {
        let clock = Clock::new();
        let a = clock.now();
        let b = clock.now();
        assert!(a > Instant::ZERO && b >= a);
        let wall = clock.wall_time(a);
        assert!(wall > SystemTime::now() - Duration::from_secs(60) && wall < SystemTime::now() + HEAD_START);
    }
}

//! Waiting for what links carry. On a busy machine traffic comes late, and what a test is about may take a moment to
//! show: these wait for it, as long as a transfer goes on.

use std::fmt::Debug;
use std::thread::sleep;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// Waits up to a minute until each link has carried `bytes`; `carried` says how much each has by now.
///
/// # Panics
/// On timeout.
pub fn until_each(carried: impl Fn() -> Vec<u64>, bytes: u64) {
    wait(&carried, |now| now.iter().all(|link| *link >= bytes), Instant::now() + PATIENCE);
}

/// Waits up to a minute for a time in which the other links carry `bytes`, and `idle` less than an eighth of that.
///
/// # Panics
/// On timeout.
pub fn until_idle(carried: impl Fn() -> Vec<u64>, idle: usize, bytes: u64) {
    let deadline = Instant::now() + PATIENCE;
    let others = |now: &[u64]| now.iter().sum::<u64>() - now[idle];
    loop {
        let before = carried();
        let now = wait(&carried, |now| others(now) >= others(&before) + bytes, deadline);
        if now[idle] - before[idle] < bytes / 8 {
            return;
        }
        assert!(Instant::now() < deadline, "link {idle} is still in use: {before:?}, then {now:?}");
    }
}

/// Waits until what the links have carried is enough, and returns it.
pub(crate) fn wait<T: Debug>(
    carried: impl Fn() -> Vec<T>,
    done: impl Fn(&[T]) -> bool,
    deadline: Instant,
) -> Vec<T> {
    loop {
        let now = carried();
        if done(&now) {
            return now;
        }
        assert!(Instant::now() < deadline, "the links have carried only {now:?}");
        sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_link_is_idle_once_the_others_carry_the_traffic() {
        // The first link stops after 100 steps.
        let step = Cell::new(0_u64);
        let carried = || {
            step.set(step.get() + 1);
            vec![step.get().min(100) * 10, step.get() * 10]
        };
        until_each(carried, 500);
        assert!(step.get() < 60, "it waited for more than was asked for");
        until_idle(carried, 0, 200);
        assert!(step.get() >= 100, "the first link was still in use after {} steps", step.get());
    }
}

//! A future that waits for a stream, and does not stay behind when it is dropped.

use crate::shared::Shared;
use crate::wakers::Key;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// What a task waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Direction {
    Read,
    Write,
    /// The failure of the connection.
    Failure,
}

/// Waits until reading or writing does not have to wait. Any number of them may wait at once.
#[derive(Debug)]
pub(super) struct Ready<'a> {
    shared: &'a Shared,
    direction: Direction,
    key: Key,
}

impl<'a> Ready<'a> {
    pub(super) fn new(shared: &'a Shared, direction: Direction) -> Self {
        Ready { shared, direction, key: Key::default() }
    }
}

/// Ready when the direction is; otherwise the task is woken then.
pub(super) fn poll_ready(
    shared: &Shared,
    direction: Direction,
    key: &mut Key,
    cx: &mut Context<'_>,
) -> Poll<()> {
    match direction {
        Direction::Read => shared.poll_read_ready(cx, key),
        Direction::Write => shared.poll_write_ready(cx, key),
        Direction::Failure => shared.poll_failed(cx, key),
    }
}

impl Future for Ready<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Ready { shared, direction, key } = &mut *self;
        poll_ready(shared, *direction, key, cx)
    }
}

impl Drop for Ready<'_> {
    fn drop(&mut self) {
        match self.direction {
            _ if self.key == Key::default() => {}
            Direction::Read => self.shared.forget_reader(self.key),
            Direction::Write | Direction::Failure => self.shared.forget_writer(self.key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::Most;
    use std::sync::Arc;
    use std::task::{Wake, Waker};
    use std::time::Duration;
    use umptcp_stack_core::config::ConnectionConfig;

    struct Nobody;

    impl Wake for Nobody {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn what_is_dropped_leaves_no_waker_behind() {
        let shared = Shared::new(&ConnectionConfig::default(), Duration::ZERO, &Most::default());
        let task = Arc::new(Nobody);
        for direction in [Direction::Read, Direction::Write, Direction::Failure] {
            let mut ready = Ready::new(&shared, direction);
            let waker = Waker::from(task.clone());
            let polled = Pin::new(&mut ready).poll(&mut Context::from_waker(&waker));
            assert_eq!(
                polled.is_ready(),
                direction == Direction::Write,
                "there is room, and nothing to read"
            );
            drop(waker);
            assert_eq!(Arc::strong_count(&task), 1 + usize::from(polled.is_pending()));
            drop(ready);
            assert_eq!(Arc::strong_count(&task), 1);
        }
    }
}

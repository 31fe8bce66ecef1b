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
            Direction::Write => self.shared.forget_writer(self.key),
        }
    }
}

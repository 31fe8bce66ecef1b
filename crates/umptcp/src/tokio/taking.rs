//! A future that waits for a mailbox, and does not stay behind when it is dropped.

use crate::mailbox::Mailbox;
use crate::wakers::Key;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use tokio::task::coop;

struct Waiting<'a, T> {
    mailbox: &'a Mailbox<T>,
    key: Key,
}

impl<T> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        if self.key != Key::default() {
            self.mailbox.forget(self.key);
        }
    }
}

/// Waits until `take` returns something, which takes it from `mailbox`. Any number of tasks may wait at once.
pub(super) async fn take<T, R>(mailbox: &Mailbox<T>, take: impl Fn() -> Option<R>) -> R {
    let mut waiting = Waiting { mailbox, key: Key::default() };
    poll_fn(|cx| poll_take(mailbox, &mut waiting.key, cx, &take)).await
}

/// The same for a poll function.
pub(super) fn poll_take<T, R>(
    mailbox: &Mailbox<T>,
    key: &mut Key,
    cx: &mut Context<'_>,
    take: impl Fn() -> Option<R>,
) -> Poll<R> {
    let progress = ready!(coop::poll_proceed(cx));
    loop {
        if let Some(taken) = take() {
            progress.made_progress();
            return Poll::Ready(taken);
        }
        ready!(mailbox.poll_ready(cx, key));
    }
}

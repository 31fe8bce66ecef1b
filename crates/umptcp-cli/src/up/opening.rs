//! Connections that are being opened: bounded, and the oldest makes room for one more.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// What is being opened by one listener. Whoever has not got through while so many others came will not:
/// clients that never answer, as in a flood of SYNs, must not keep out those that do. Dropping it gives up
/// all of them.
#[derive(Default)]
pub(super) struct Openings(Shared);

type Shared = Arc<Mutex<Waiting>>;

#[derive(Default)]
struct Waiting {
    next: u64,
    /// Dropped to give one up, in the order in which they came.
    all: BTreeMap<u64, oneshot::Sender<()>>,
}

/// One of them.
pub(super) struct Opening {
    of: Shared,
    number: u64,
    given_up: oneshot::Receiver<()>,
}

impl Openings {
    /// Begins one; with more than `most` of them, the oldest is given up.
    pub(super) fn begin(&self, most: usize) -> Opening {
        let (keep, given_up) = oneshot::channel();
        let mut waiting = lock(&self.0);
        let number = waiting.next;
        waiting.next += 1;
        waiting.all.insert(number, keep);
        if waiting.all.len() > most {
            waiting.all.pop_first();
        }
        drop(waiting);
        Opening { of: self.0.clone(), number, given_up }
    }
}

impl Drop for Openings {
    fn drop(&mut self) {
        lock(&self.0).all.clear();
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Opening {
    /// Does what it takes to open it.
    ///
    /// # Errors
    /// That of `open`; [`io::ErrorKind::TimedOut`] when it was given up.
    pub(super) async fn run<T>(mut self, open: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        tokio::select! {
            opened = open => opened,
            _ = &mut self.given_up => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        lock(&self.of).all.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    #[test]
    fn the_oldest_makes_room() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let openings = Openings::default();
            let [first, second] = [(); 2].map(|()| openings.begin(2));
            let done = openings.begin(3);
            assert_eq!(done.run(ready(Ok(7))).await.unwrap(), 7);
            // The one that is done has left its place.
            let third = openings.begin(2);
            let given_up = first.run(pending::<io::Result<()>>()).await;
            assert_eq!(given_up.unwrap_err().kind(), io::ErrorKind::TimedOut);
            for other in [second, third] {
                assert_eq!(other.run(ready(Ok(1))).await.unwrap(), 1);
            }
            assert!(lock(&openings.0).all.is_empty());
            let last = openings.begin(2);
            drop(openings);
            assert!(last.run(pending::<io::Result<()>>()).await.is_err());
        });
    }
}

//! Tasks that wait for a change.

use smallvec::SmallVec;
use std::mem;
use std::task::Waker;

/// Names one that waits. A poll function has no place to keep one, and all of them use the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Key(u64);

impl Key {
    /// That of the poll functions: the task that polled last is woken, as with tokio's sockets.
    pub(crate) const POLL: Key = Key(1);
}

/// The tasks that wait for a change of something behind a mutex. Wakers run code of the application when they
/// are woken or dropped, so both happen after the mutex has been released.
#[derive(Debug)]
pub(crate) struct Wakers {
    waiting: SmallVec<[(Key, Waker); 1]>,
    last: Key,
}

impl Default for Wakers {
    fn default() -> Self {
        Wakers { waiting: SmallVec::new(), last: Key::POLL }
    }
}

/// What is to be woken or dropped once the mutex has been released.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Taken(SmallVec<[(Key, Waker); 1]>);

impl Taken {
    pub(crate) fn wake(self) {
        for (_, waker) in self.0 {
            waker.wake();
        }
    }
}

impl Wakers {
    /// `waker` is woken at the next change. What it replaces must be dropped later.
    pub(crate) fn add(&mut self, key: &mut Key, waker: &Waker) -> Option<Waker> {
        let known = self.waiting.iter_mut().find(|(k, _)| k == key);
        if let Some((_, known)) = known {
            return (!known.will_wake(waker)).then(|| mem::replace(known, waker.clone()));
        }
        if *key == Key::default() {
            self.last = Key(self.last.0 + 1);
            *key = self.last;
        }
        self.waiting.push((*key, waker.clone()));
        None
    }

    /// It waits no longer. What is returned must be dropped later.
    pub(crate) fn remove(&mut self, key: Key) -> Option<Waker> {
        let at = self.waiting.iter().position(|(k, _)| *k == key)?;
        Some(self.waiting.swap_remove(at).1)
    }

    /// All of them, to be woken.
    pub(crate) fn take(&mut self) -> Taken {
        Taken(mem::take(&mut self.waiting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn each_is_woken_once_and_what_waits_no_longer_is_not() {
        let counts: [Arc<Count>; 4] = Default::default();
        let woken = || counts.each_ref().map(|c| c.0.load(Ordering::Relaxed));
        let wakers = counts.clone().map(Waker::from);
        let mut w = Wakers::default();
        let mut keys = [Key::POLL, Key::POLL, Key::default(), Key::default()];
        for (key, waker) in keys.iter_mut().zip(&wakers) {
            assert_eq!(w.add(key, waker).is_some(), waker.will_wake(&wakers[1]), "the last poll counts");
            assert!(w.add(key, waker).is_none());
        }
        assert!(w.remove(keys[3]).is_some() && w.remove(keys[3]).is_none());
        w.take().wake();
        assert_eq!(woken(), [0, 1, 1, 0]);
        assert!(w.waiting.is_empty());
        // With the same key again.
        assert!(w.add(&mut keys[2], &wakers[2]).is_none());
        w.take().wake();
        assert_eq!(woken(), [0, 1, 2, 0]);
    }
}

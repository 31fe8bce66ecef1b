//! Which connections may have something to send, and which would but for a path that takes nothing.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use umptcp_types::{ConnectionId, PathId};

/// A connection is in the queue because something happened to it, and stays in it, in turn with the others,
/// until it has nothing to send. One that was asked while one of its paths was blocked is remembered with
/// that path, which is why it may have more: when the path takes packets again, it and no others are asked
/// again.
#[derive(Debug, Default)]
pub(super) struct ReadyQueue {
    queue: VecDeque<ConnectionId>,
    held: BTreeSet<(PathId, ConnectionId)>,
}

impl ReadyQueue {
    /// Something happened to it, or it has just sent: its turn comes after the others'.
    pub(super) fn push(&mut self, id: ConnectionId) {
        self.queue.push_back(id);
    }

    /// Whose turn it is.
    pub(super) fn pop(&mut self) -> Option<ConnectionId> {
        self.queue.pop_front()
    }

    /// `path` is blocked, and the connection was asked for packets without it.
    pub(super) fn hold(&mut self, id: ConnectionId, path: PathId) {
        self.held.insert((path, id));
    }

    /// The connections that `path` held back, in order of id. It does so no longer.
    pub(super) fn release(&mut self, path: PathId) -> Vec<ConnectionId> {
        let range = (path, ConnectionId(0))..=(path, ConnectionId(u64::MAX));
        let ids: Vec<ConnectionId> = self.held.range(range).map(|(_, id)| *id).collect();
        for id in &ids {
            self.held.remove(&(path, *id));
        }
        ids
    }

    /// The connection is over.
    pub(super) fn forget(&mut self, id: ConnectionId, paths: impl Iterator<Item = PathId>) {
        if !self.held.is_empty() {
            for path in paths {
                self.held.remove(&(path, id));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_takes_packets_again_wakes_those_it_held_back() {
        let mut ready = ReadyQueue::default();
        let [a, b, c] = [1, 2, 3].map(ConnectionId);
        let [wired, wireless] = [PathId(0), PathId(1)];
        for (id, path) in [(c, wired), (a, wired), (b, wireless), (a, wireless), (c, wired)] {
            ready.hold(id, path);
        }
        assert_eq!(ready.release(wired), [a, c]);
        assert_eq!(ready.release(wired), []);
        ready.forget(a, [wired, wireless].into_iter());
        assert_eq!(ready.release(wireless), [b]);
        assert_eq!(ready.pop(), None);
    }
}

//! Accepted connections whose third ACK has not come.

use alloc::collections::BTreeMap;
use umptcp_types::ListenerId;

/// How many there are, by listener.
#[derive(Debug, Default)]
pub(super) struct HalfOpen {
    counts: BTreeMap<ListenerId, usize>,
}

impl HalfOpen {
    pub(super) fn enter(&mut self, listener: ListenerId) {
        *self.counts.entry(listener).or_default() += 1;
    }

    pub(super) fn leave(&mut self, listener: ListenerId) {
        if let Some(n) = self.counts.get_mut(&listener) {
            *n -= 1;
            if *n == 0 {
                self.counts.remove(&listener);
            }
        }
    }

    pub(super) fn count(&self, listener: ListenerId) -> usize {
        self.counts.get(&listener).copied().unwrap_or(0)
    }
}

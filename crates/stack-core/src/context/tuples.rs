//! Four-tuples in use, by connections or by TIME_WAIT.

use super::hash::Seeded;
use super::ports::Standing;
use super::time_wait::{TimeWait, TimeWaitTable, Verdict};
use crate::tcp::FourTuple;
use crate::wire::tcp::TcpRepr;
use hashbrown::HashMap;
use umptcp_types::{ConnectionId, Instant, SubflowId};

#[derive(Debug)]
pub(super) struct Tuples {
    open: HashMap<FourTuple, (ConnectionId, SubflowId), Seeded>,
    time_wait: TimeWaitTable,
}

impl Tuples {
    pub(super) fn new(open: Seeded, waiting: Seeded) -> Self {
        Tuples { open: HashMap::with_hasher(open), time_wait: TimeWaitTable::new(waiting) }
    }

    /// A subflow takes `tuple`, also out of TIME_WAIT.
    pub(super) fn open(&mut self, tuple: FourTuple, connection: ConnectionId, subflow: SubflowId) {
        self.time_wait.remove(&tuple);
        self.open.insert(tuple, (connection, subflow));
    }

    /// The subflow has ended; `waiting`: in TIME_WAIT.
    pub(super) fn close(&mut self, tuple: FourTuple, waiting: Option<TimeWait>) {
        self.open.remove(&tuple);
        if let Some(entry) = waiting {
            self.time_wait.insert(tuple, entry);
        }
    }

    pub(super) fn owner(&self, tuple: &FourTuple) -> Option<(ConnectionId, SubflowId)> {
        self.open.get(tuple).copied()
    }

    pub(super) fn count(&self) -> usize {
        self.open.len()
    }

    /// Whether a connection of ours may use `tuple` now.
    pub(super) fn is_free(&self, now: Instant, tuple: &FourTuple) -> bool {
        !self.open.contains_key(tuple) && self.time_wait.may_reuse(now, tuple)
    }

    pub(super) fn standing(&self, now: Instant, tuple: &FourTuple) -> Standing {
        if !self.is_free(now, tuple) {
            return Standing::Taken;
        }
        self.time_wait.get(tuple).map_or(Standing::Free, |entry| Standing::Waiting(entry.since))
    }

    pub(super) fn waiting(&self, tuple: &FourTuple) -> Option<&TimeWait> {
        self.time_wait.get(tuple)
    }

    /// A segment for `tuple`. `None`: it is not in TIME_WAIT.
    pub(super) fn on_segment(
        &mut self,
        now: Instant,
        tuple: &FourTuple,
        seg: &TcpRepr,
        len: usize,
    ) -> Option<Verdict> {
        self.time_wait.on_segment(now, tuple, seg, len)
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.time_wait.expire(now);
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.time_wait.next_deadline()
    }
}

//! The one place where what happens is reported: to the counters, to `tracing` and to the observer.

use crate::observe::{Counter, CounterChange, Counters, Observation, Observer};
use alloc::boxed::Box;
use umptcp_types::{ConnectionId, Instant, SubflowId};

#[derive(Default)]
pub(super) struct Observed {
    counters: Counters,
    observer: Option<Box<dyn Observer>>,
}

impl Observed {
    pub(super) fn set_observer(&mut self, observer: Box<dyn Observer>) {
        self.observer = Some(observer);
    }

    pub(super) fn happened(
        &mut self,
        now: Instant,
        connection: Option<ConnectionId>,
        subflow: Option<SubflowId>,
        what: Counter,
    ) {
        self.counters.increment(what);
        tracing::trace!(connection = ?connection, subflow = ?subflow, what = what.name());
        if let Some(o) = &mut self.observer {
            o.observe(&Observation { now, connection, subflow, what, change: CounterChange::Up });
        }
    }

    /// One fewer of what a gauge counts.
    pub(super) fn over(&mut self, now: Instant, connection: ConnectionId, gauge: Counter) {
        self.counters.decrement(gauge);
        tracing::trace!(?connection, over = gauge.name());
        if let Some(o) = &mut self.observer {
            let (connection, change) = (Some(connection), CounterChange::Down);
            o.observe(&Observation { now, connection, subflow: None, what: gauge, change });
        }
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }
}

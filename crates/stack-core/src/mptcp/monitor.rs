//! What who watches the stack is told of a connection.

use super::connection::Connection;
use super::subflow::Subflow;
use crate::context::Context;
use crate::monitor::{MonitorEvent, MonitoredConnection, MonitoredSubflow};
use umptcp_types::{Instant, SubflowId};

impl Connection {
    /// How the connection is named.
    pub(crate) fn monitored(&self) -> MonitoredConnection {
        let token = (!self.mptcp.is_plain()).then_some(self.mptcp.local_token());
        let ends = (self.initial_tuple.local, self.initial_tuple.remote);
        MonitoredConnection::new(self.id, token, ends, !self.client)
    }

    /// Something happened to the connection.
    pub(crate) fn tell_watchers(
        &self,
        ctx: &mut Context,
        now: Instant,
        event: impl FnOnce(MonitoredConnection) -> MonitorEvent,
    ) {
        ctx.tell_watchers(now, || event(self.monitored()));
    }

    /// Something happened to its subflow `i`.
    pub(crate) fn tell_watchers_of(
        &self,
        ctx: &mut Context,
        now: Instant,
        i: usize,
        event: impl FnOnce(MonitoredConnection, MonitoredSubflow) -> MonitorEvent,
    ) {
        ctx.tell_watchers(now, || event(self.monitored(), monitored(&self.subflows[i])));
    }

    /// The application wants a subflow as a backup, or not any more.
    pub(crate) fn tell_watchers_of_priority(&self, ctx: &mut Context, now: Instant, subflow: SubflowId) {
        if let Some(i) = self.subflows.find(subflow) {
            self.tell_watchers_of(ctx, now, i, |connection, subflow| MonitorEvent::PriorityChanged {
                connection,
                subflow,
                by_peer: false,
            });
        }
    }
}

fn monitored(m: &Subflow) -> MonitoredSubflow {
    MonitoredSubflow {
        id: m.tcp.id(),
        initial: m.join.is_initial(),
        path: m.tcp.path(),
        local: m.tcp.tuple().local,
        remote: m.tcp.tuple().remote,
        local_id: m.local_id(),
        remote_id: m.remote_id(),
        backup: m.is_backup(),
    }
}

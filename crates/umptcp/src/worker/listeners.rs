//! The worker's side of listeners.

use super::connections::{Accepted, Connections};
use super::context::Context;
use crate::error::Error;
use crate::mailbox::Mailbox;
use crate::shared::TimedOut;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use umptcp_stack_core::config::{ConnectionConfig, ListenOptions, StackConfig};
use umptcp_stack_core::error::ConnectError;
use umptcp_stack_core::event::{IncomingId, RefuseWith};
use umptcp_types::{ConnectionId, ListenerId};

/// The part of a listener that its handle and the worker share.
#[derive(Debug)]
pub(crate) struct ListenerShared {
    ready: Mailbox<Accepted>,
    /// The worker is holding connections back until there is room.
    full: AtomicBool,
    backlog: usize,
}

impl ListenerShared {
    pub(crate) fn new(backlog: usize) -> Self {
        ListenerShared { ready: Mailbox::default(), full: AtomicBool::new(false), backlog: backlog.max(1) }
    }

    /// Waits for a connection. The flag says that the worker must be told of the room. `Ok(None)` if the
    /// listener is closed.
    pub(crate) fn take(&self, deadline: Option<Instant>) -> Result<Option<(Accepted, bool)>, TimedOut> {
        let accepted = self.ready.take(deadline, |_| true)?;
        Ok(accepted.map(|accepted| (accepted, self.full.swap(false, Ordering::AcqRel))))
    }

    /// Where connections wait.
    pub(crate) fn ready(&self) -> &Mailbox<Accepted> {
        &self.ready
    }

    /// Closes the queue. Returns the connections that were waiting.
    pub(crate) fn close(&self) -> VecDeque<Accepted> {
        self.ready.close();
        self.ready.clear()
    }

    /// Whether there is room for one more in addition to `handshaking` others; takes note if not.
    fn has_room(&self, handshaking: usize) -> bool {
        // Nobody takes one meanwhile, so that whoever takes the next finds the note.
        self.ready.with_len(|ready| {
            let room = ready + handshaking < self.backlog;
            // If only handshakes fill the backlog, their completion makes the worker look again.
            self.full.store(!room, Ordering::Release);
            room
        })
    }
}

/// A listener, as the worker knows it.
struct Entry {
    shared: Arc<ListenerShared>,
    config: ConnectionConfig,
    /// SYNs not yet answered because the queue is full.
    waiting: VecDeque<IncomingId>,
    /// Handshakes completed by SYN cookie, not yet accepted for the same reason.
    complete: VecDeque<IncomingId>,
    /// Number of answered SYNs whose handshake is not complete.
    handshaking: usize,
    /// The one of `complete` that was accepted last and has not reached the queue yet.
    arriving: Option<ConnectionId>,
}

/// All listeners of a worker.
pub(super) struct Listeners {
    entries: HashMap<ListenerId, Entry>,
    /// The stack's configuration, for the names of algorithms.
    names: StackConfig,
}

impl Listeners {
    pub(super) fn new(names: StackConfig) -> Self {
        Listeners { entries: HashMap::new(), names }
    }

    pub(super) fn ids(&self) -> Vec<ListenerId> {
        self.entries.keys().copied().collect()
    }

    /// Opens a listener.
    pub(super) fn listen(
        &mut self,
        cx: &mut Context<'_>,
        options: ListenOptions,
        shared: Arc<ListenerShared>,
    ) -> Result<ListenerId, Error> {
        let (local, config) = (options.local, options.config.clone());
        // Otherwise accepting would fail for every connection, with nobody to report it to.
        self.check_names(&config).map_err(|source| Error::ListenSettings { local, source })?;
        let id = cx.stack.listen_at(cx.now, options).map_err(|source| Error::Listen { local, source })?;
        let (waiting, complete) = (VecDeque::new(), VecDeque::new());
        let entry = Entry { shared, config, waiting, complete, handshaking: 0, arriving: None };
        self.entries.insert(id, entry);
        Ok(id)
    }

    /// Whether the stack has the algorithms that `config` names.
    fn check_names(&self, config: &ConnectionConfig) -> Result<(), ConnectError> {
        let kinds: [(_, _, Vec<&str>); 3] = [
            ("congestion control", &config.congestion, self.names.congestion.names().collect()),
            ("scheduler", &config.scheduler, self.names.schedulers.names().collect()),
            ("path policy", &config.path_policy, self.names.path_policies.names().collect()),
        ];
        for (kind, name, known) in kinds {
            if !known.contains(&name.as_str()) {
                let (name, known) = (name.clone(), known.join(", "));
                return Err(ConnectError::UnknownName { kind, name, known });
            }
        }
        Ok(())
    }

    /// A SYN has arrived, or the third ACK of a stateless handshake.
    pub(super) fn incoming(
        &mut self,
        cx: &mut Context<'_>,
        connections: &mut Connections,
        listener: ListenerId,
        incoming: IncomingId,
        complete: bool,
    ) {
        let Some(entry) = self.entries.get_mut(&listener) else {
            return cx.stack.refuse(cx.now, incoming, RefuseWith::Reset);
        };
        let queue = if complete { &mut entry.complete } else { &mut entry.waiting };
        queue.push_back(incoming);
        self.refill(cx, connections, listener);
    }

    /// A connection that was offered is not any more.
    pub(super) fn incoming_gone(&mut self, incoming: IncomingId) {
        for l in self.entries.values_mut() {
            l.waiting.retain(|id| *id != incoming);
            l.complete.retain(|id| *id != incoming);
        }
    }

    /// Answers SYNs while there is room.
    pub(super) fn refill(
        &mut self,
        cx: &mut Context<'_>,
        connections: &mut Connections,
        listener: ListenerId,
    ) {
        let Some(l) = self.entries.get_mut(&listener) else { return };
        loop {
            // Handshakes that do not complete must not block those that have. One at a time: only when this
            // one is in the queue is it known whether there is room for the next.
            let arrives = !l.complete.is_empty() && l.arriving.is_none() && l.shared.has_room(0);
            let next = if arrives {
                l.complete.pop_front()
            } else if !l.waiting.is_empty() && l.shared.has_room(l.handshaking) {
                l.waiting.pop_front()
            } else {
                None
            };
            let Some(incoming) = next else { break };
            match connections.accept(cx, incoming, &l.config, listener) {
                Ok(id) => {
                    l.handshaking += 1;
                    if arrives {
                        l.arriving = Some(id);
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "incoming connection not accepted");
                    cx.stack.refuse(cx.now, incoming, RefuseWith::Reset);
                }
            }
        }
    }

    /// A handshake of this listener is complete.
    pub(super) fn accepted(
        &mut self,
        cx: &mut Context<'_>,
        connections: &mut Connections,
        listener: ListenerId,
        accepted: Accepted,
    ) {
        let id = accepted.id;
        let Some(l) = self.entries.get_mut(&listener) else { return connections.abort(cx, id) };
        l.handshaking = l.handshaking.saturating_sub(1);
        l.shared.ready.push(accepted);
        if l.arriving == Some(id) {
            l.arriving = None;
            self.refill(cx, connections, listener);
        }
    }

    /// A handshake of this listener failed.
    pub(super) fn not_accepted(
        &mut self,
        cx: &mut Context<'_>,
        connections: &mut Connections,
        listener: ListenerId,
        id: ConnectionId,
    ) {
        let Some(l) = self.entries.get_mut(&listener) else { return };
        l.handshaking = l.handshaking.saturating_sub(1);
        l.arriving = l.arriving.filter(|arriving| *arriving != id);
        self.refill(cx, connections, listener);
    }

    /// Closes a listener. Connections that nobody accepted are reset, as with the kernel's sockets.
    pub(super) fn unlisten(
        &mut self,
        cx: &mut Context<'_>,
        connections: &mut Connections,
        listener: ListenerId,
    ) {
        let Some(l) = self.entries.remove(&listener) else { return };
        for incoming in l.waiting.into_iter().chain(l.complete) {
            cx.stack.refuse(cx.now, incoming, RefuseWith::Reset);
        }
        cx.stack.unlisten(cx.now, listener);
        let unaccepted = l.shared.close().into_iter().map(|accepted| accepted.id);
        for id in connections.handshaking(listener).into_iter().chain(unaccepted) {
            connections.abort(cx, id);
        }
    }

    /// The worker ends: nobody may wait for it any longer.
    pub(super) fn close_all(&self) {
        for listener in self.entries.values() {
            listener.shared.close();
        }
    }
}

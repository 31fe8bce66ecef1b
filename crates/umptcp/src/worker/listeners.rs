//! The worker's side of listeners.

use super::connections::Entry;
use super::{Context, Worker};
use crate::error::Error;
use crate::shared::{Shared, TimedOut, lock};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;
use umptcp_stack_core::config::{ConnectionConfig, ListenOptions};
use umptcp_stack_core::error::ConnectError;
use umptcp_stack_core::event::IncomingId;
use umptcp_stack_core::stack::ConnectionInfo;
use umptcp_types::{ConnectionId, ListenerId};

/// An established connection that waits to be accepted.
pub(crate) struct Accepted {
    pub(crate) id: ConnectionId,
    pub(crate) shared: Arc<Shared>,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<Accepted>,
    waiters: usize,
    closed: bool,
    /// The worker holds connections back until there is room.
    full: bool,
}

/// A listener, as its handles and the worker share it.
pub(crate) struct ListenerShared {
    queue: Mutex<Queue>,
    changed: Condvar,
    backlog: usize,
}

impl ListenerShared {
    pub(crate) fn new(backlog: usize) -> Self {
        ListenerShared { queue: Mutex::default(), changed: Condvar::new(), backlog: backlog.max(1) }
    }

    /// Waits for a connection. The flag says that the worker is to be told of the room; `Ok(None)`: closed.
    pub(crate) fn take(&self, deadline: Option<Instant>) -> Result<Option<(Accepted, bool)>, TimedOut> {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(accepted) = queue.ready.pop_front() {
                return Ok(Some((accepted, std::mem::take(&mut queue.full))));
            }
            if queue.closed {
                return Ok(None);
            }
            queue.waiters += 1;
            queue = match deadline {
                None => self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        queue.waiters -= 1;
                        return Err(TimedOut);
                    }
                    self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            queue.waiters -= 1;
        }
    }

    /// Nobody is going to be accepted any more. Returns what waited.
    pub(crate) fn close(&self) -> VecDeque<Accepted> {
        let mut queue = lock(&self.queue);
        queue.closed = true;
        self.changed.notify_all();
        std::mem::take(&mut queue.ready)
    }

    fn push(&self, accepted: Accepted) {
        let mut queue = lock(&self.queue);
        queue.ready.push_back(accepted);
        let wake = queue.waiters > 0;
        drop(queue);
        if wake {
            self.changed.notify_one();
        }
    }

    /// Whether one more may be accepted beside `handshaking` others; notes it when not.
    fn has_room(&self, handshaking: usize) -> bool {
        let mut queue = lock(&self.queue);
        let room = queue.ready.len() + handshaking < self.backlog;
        // With handshakes alone filling the backlog, their completion makes the worker look again.
        queue.full = !room;
        room
    }
}

/// A listener, as the worker knows it.
pub(super) struct ListenerEntry {
    pub(super) shared: Arc<ListenerShared>,
    config: ConnectionConfig,
    /// SYNs not answered yet because the queue is full.
    waiting: VecDeque<IncomingId>,
    /// Complete handshakes (by SYN cookie) not accepted yet for the same reason.
    complete: VecDeque<IncomingId>,
    /// Answered SYNs whose handshake is not complete.
    handshaking: usize,
    /// Of the `complete` ones, that which was accepted last and is on its way into the queue.
    arriving: Option<ConnectionId>,
}

impl Worker {
    /// Opens a listener.
    pub(crate) fn listen(
        &mut self,
        cx: &mut Context<'_>,
        options: ListenOptions,
        shared: Arc<ListenerShared>,
    ) -> Result<ListenerId, Error> {
        let (local, config) = (options.local, options.config.clone());
        // Accepting would fail for every connection, when nobody is there to be told.
        self.check_names(&config).map_err(|source| Error::ListenSettings { local, source })?;
        let id = cx.engine.listen(options).map_err(|source| Error::Listen { local, source })?;
        let (waiting, complete) = (VecDeque::new(), VecDeque::new());
        let entry = ListenerEntry { shared, config, waiting, complete, handshaking: 0, arriving: None };
        self.listeners.insert(id, entry);
        Ok(id)
    }

    /// Whether the stack has the algorithms that `config` names.
    fn check_names(&self, config: &ConnectionConfig) -> Result<(), ConnectError> {
        let unknown = |kind, name: &str, known: Vec<&'static str>| ConnectError::UnknownName {
            kind,
            name: name.to_owned(),
            known: known.join(", "),
        };
        let (congestion, schedulers) = (&self.names.congestion, &self.names.schedulers);
        if !congestion.names().any(|n| n == config.congestion) {
            return Err(unknown("congestion control", &config.congestion, congestion.names().collect()));
        }
        if !schedulers.names().any(|n| n == config.scheduler) {
            return Err(unknown("scheduler", &config.scheduler, schedulers.names().collect()));
        }
        Ok(())
    }

    /// A SYN came in, or the third ACK of a handshake that went without state.
    pub(super) fn incoming(
        &mut self,
        cx: &mut Context<'_>,
        listener: ListenerId,
        incoming: IncomingId,
        complete: bool,
    ) {
        match self.listeners.get_mut(&listener) {
            Some(l) if self.stopping.is_none() => {
                let queue = if complete { &mut l.complete } else { &mut l.waiting };
                queue.push_back(incoming);
            }
            _ => return cx.engine.refuse(cx.now, incoming),
        }
        self.refill(cx, listener);
    }

    /// Answers SYNs as long as there is room.
    pub(super) fn refill(&mut self, cx: &mut Context<'_>, listener: ListenerId) {
        let Some(l) = self.listeners.get_mut(&listener) else { return };
        loop {
            // Handshakes that do not complete must not keep those out that have. One at a time: the queue shows whether there is room
            // for the next when this one has arrived there.
            let arrives = !l.complete.is_empty() && l.arriving.is_none() && l.shared.has_room(0);
            let next = if arrives {
                l.complete.pop_front()
            } else if !l.waiting.is_empty() && l.shared.has_room(l.handshaking) {
                l.waiting.pop_front()
            } else {
                None
            };
            let Some(incoming) = next else { break };
            match cx.engine.accept(cx.now, incoming, &l.config) {
                Ok(id) => {
                    l.handshaking += 1;
                    if arrives {
                        l.arriving = Some(id);
                    }
                    let shared = Arc::new(Shared::new(&l.config, self.spin));
                    self.connections.insert(id, Entry::new(shared, Some(listener)));
                }
                Err(error) => {
                    tracing::debug!(%error, "incoming connection not accepted");
                    cx.engine.refuse(cx.now, incoming);
                }
            }
        }
    }

    /// A handshake that came by this listener is complete.
    pub(super) fn accepted(
        &mut self,
        cx: &mut Context<'_>,
        listener: ListenerId,
        id: ConnectionId,
        shared: Arc<Shared>,
        info: &ConnectionInfo,
    ) {
        match self.listeners.get_mut(&listener) {
            Some(l) => {
                l.handshaking = l.handshaking.saturating_sub(1);
                l.shared.push(Accepted { id, shared, local: info.local, remote: info.remote });
                if l.arriving == Some(id) {
                    l.arriving = None;
                    self.refill(cx, listener);
                }
            }
            None => self.abort(cx, id),
        }
    }

    /// A handshake that came by this listener failed.
    pub(super) fn not_accepted(&mut self, cx: &mut Context<'_>, listener: ListenerId, id: ConnectionId) {
        if let Some(l) = self.listeners.get_mut(&listener) {
            l.handshaking = l.handshaking.saturating_sub(1);
            l.arriving = l.arriving.filter(|arriving| *arriving != id);
            self.refill(cx, listener);
        }
    }

    /// Closes a listener. Connections that nobody accepted are reset, as with the kernel's sockets.
    pub(super) fn unlisten(&mut self, cx: &mut Context<'_>, id: ListenerId) {
        let Some(l) = self.listeners.remove(&id) else { return };
        for incoming in l.waiting.into_iter().chain(l.complete) {
            cx.engine.refuse(cx.now, incoming);
        }
        cx.engine.unlisten(cx.now, id);
        let handshaking = self.connections.iter().filter(|(_, e)| e.listener == Some(id)).map(|(id, _)| *id);
        let unaccepted: Vec<ConnectionId> =
            handshaking.chain(l.shared.close().into_iter().map(|a| a.id)).collect();
        for id in unaccepted {
            self.abort(cx, id);
        }
    }
}

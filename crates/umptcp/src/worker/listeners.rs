//! The worker's side of listeners.

use super::connections::{Accepted, Connections};
use super::context::Context;
use crate::descriptor::{Descriptor, State};
use crate::error::Error;
use crate::shared::{TimedOut, lock};
#[cfg(feature = "tokio")]
use crate::wakers::Key;
use crate::wakers::Wakers;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
#[cfg(feature = "tokio")]
use std::task::Poll;
use std::time::Instant;
use umptcp_stack_core::config::{ConnectionConfig, ListenOptions, StackConfig};
use umptcp_stack_core::error::ConnectError;
use umptcp_stack_core::event::{IncomingId, RefuseWith};
use umptcp_types::{ConnectionId, ListenerId};

#[derive(Default)]
struct Queue {
    ready: VecDeque<Accepted>,
    waiters: usize,
    /// Tasks that wait for a connection.
    wakers: Wakers,
    closed: bool,
    /// The worker is holding connections back until there is room.
    full: bool,
}

/// The part of a listener that its handle and the worker share.
pub(crate) struct ListenerShared {
    queue: Mutex<Queue>,
    changed: Condvar,
    descriptor: Descriptor,
    backlog: usize,
}

impl ListenerShared {
    pub(crate) fn new(backlog: usize) -> Self {
        ListenerShared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            descriptor: Descriptor::default(),
            backlog: backlog.max(1),
        }
    }

    /// Waits for a connection. The flag says that the worker must be told of the room. `Ok(None)` if the
    /// listener is closed.
    pub(crate) fn take(&self, deadline: Option<Instant>) -> Result<Option<(Accepted, bool)>, TimedOut> {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(accepted) = queue.ready.pop_front() {
                let full = std::mem::take(&mut queue.full);
                drop(queue);
                self.show();
                return Ok(Some((accepted, full)));
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

    /// Ready when `take` does not have to wait; otherwise the task is woken then.
    #[cfg(feature = "tokio")]
    pub(crate) fn poll_ready(&self, cx: &mut std::task::Context<'_>, key: &mut Key) -> Poll<()> {
        let mut queue = lock(&self.queue);
        if !queue.ready.is_empty() || queue.closed {
            return Poll::Ready(());
        }
        let replaced = queue.wakers.add(key, cx.waker());
        drop(queue);
        drop(replaced);
        Poll::Pending
    }

    /// A task waits no longer.
    #[cfg(feature = "tokio")]
    pub(crate) fn forget(&self, key: Key) {
        let removed = lock(&self.queue).wakers.remove(key);
        drop(removed);
    }

    /// Whether `take` would not have to wait.
    pub(crate) fn state(&self) -> State {
        let queue = lock(&self.queue);
        State { readable: !queue.ready.is_empty() || queue.closed, writable: false }
    }

    pub(crate) fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Something has changed that the descriptor shows, if there is one.
    pub(crate) fn show(&self) {
        self.descriptor.update(|| self.state());
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.queue).closed
    }

    /// Closes the queue. Returns the connections that were waiting.
    pub(crate) fn close(&self) -> VecDeque<Accepted> {
        let mut queue = lock(&self.queue);
        queue.closed = true;
        self.changed.notify_all();
        let (ready, tasks) = (std::mem::take(&mut queue.ready), queue.wakers.take());
        drop(queue);
        tasks.wake();
        self.show();
        ready
    }

    fn push(&self, accepted: Accepted) {
        let mut queue = lock(&self.queue);
        queue.ready.push_back(accepted);
        let (wake, tasks) = (queue.waiters > 0, queue.wakers.take());
        drop(queue);
        if wake {
            self.changed.notify_one();
        }
        // All of them: one that is woken may be dropped before it takes the connection.
        tasks.wake();
        self.show();
    }

    /// Whether there is room for one more in addition to `handshaking` others; takes note if not.
    fn has_room(&self, handshaking: usize) -> bool {
        let mut queue = lock(&self.queue);
        let room = queue.ready.len() + handshaking < self.backlog;
        // If only handshakes fill the backlog, their completion makes the worker look again.
        queue.full = !room;
        room
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
        l.shared.push(accepted);
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

impl std::fmt::Debug for ListenerShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListenerShared").field("backlog", &self.backlog).finish_non_exhaustive()
    }
}

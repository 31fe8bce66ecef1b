//! The worker's side of connections that wait for a program's word.

use super::connections::Connections;
use super::context::Context;
use crate::shared::{Shared, TimedOut, lock};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;
use umptcp_stack_core::config::{ConnectionConfig, ListenOptions};
use umptcp_stack_core::error::{ConnectError, ListenError};
use umptcp_stack_core::event::{IncomingId, RefuseWith};
use umptcp_types::{ConnectionId, ListenerId};

/// A SYN that has been answered in no way yet.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) id: IncomingId,
    pub(crate) remote: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) mptcp: bool,
    /// Its client has given up, or the listener has gone.
    pub(crate) gone: Arc<AtomicBool>,
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<Offer>,
    closed: bool,
}

/// The part of a listener for such connections that its handle and the worker share.
#[derive(Default)]
pub(crate) struct OffersShared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl OffersShared {
    /// Waits for a connection. `Ok(None)`: the listener is closed.
    pub(crate) fn take(&self, deadline: Option<Instant>) -> Result<Option<Offer>, TimedOut> {
        let mut queue = lock(&self.queue);
        loop {
            // Nobody needs to hear of one that has given up meanwhile.
            while let Some(offer) = queue.ready.pop_front() {
                if !offer.gone.load(Ordering::Acquire) {
                    return Ok(Some(offer));
                }
            }
            if queue.closed {
                return Ok(None);
            }
            queue = match deadline {
                None => self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(TimedOut);
                    }
                    self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn push(&self, offer: Offer) {
        lock(&self.queue).ready.push_back(offer);
        self.changed.notify_one();
    }

    fn close(&self) {
        lock(&self.queue).closed = true;
        self.changed.notify_all();
    }
}

/// All listeners of a worker whose connections wait for a program's word.
#[derive(Default)]
pub(super) struct Offers {
    listeners: HashMap<ListenerId, Arc<OffersShared>>,
    waiting: HashMap<IncomingId, (ListenerId, Arc<AtomicBool>)>,
}

impl Offers {
    pub(super) fn listen(
        &mut self,
        cx: &mut Context<'_>,
        options: ListenOptions,
        shared: Arc<OffersShared>,
    ) -> Result<ListenerId, ListenError> {
        let id = cx.stack.listen_at(cx.now, options)?;
        self.listeners.insert(id, shared);
        Ok(id)
    }

    /// Closes a listener. What waits there is refused.
    pub(super) fn unlisten(&mut self, cx: &mut Context<'_>, listener: ListenerId) {
        let Some(shared) = self.listeners.remove(&listener) else { return };
        shared.close();
        self.waiting.retain(|_, (of, gone)| {
            gone.fetch_or(*of == listener, Ordering::AcqRel);
            *of != listener
        });
        cx.stack.unlisten(cx.now, listener);
    }

    pub(super) fn ids(&self) -> Vec<ListenerId> {
        self.listeners.keys().copied().collect()
    }

    /// A SYN has come. False: the listener is none of these.
    pub(super) fn on_incoming(
        &mut self,
        listener: ListenerId,
        id: IncomingId,
        (local, remote): (SocketAddr, SocketAddr),
        mptcp: bool,
    ) -> bool {
        let Some(shared) = self.listeners.get(&listener) else { return false };
        let gone = Arc::new(AtomicBool::new(false));
        self.waiting.insert(id, (listener, gone.clone()));
        shared.push(Offer { id, remote, local, mptcp, gone });
        true
    }

    /// Its client has given up. False: it is none of these.
    pub(super) fn on_incoming_gone(&mut self, id: IncomingId) -> bool {
        let Some((_, gone)) = self.waiting.remove(&id) else { return false };
        gone.store(true, Ordering::Release);
        true
    }

    /// The program accepts.
    pub(super) fn accept(
        &mut self,
        cx: &mut Context<'_>,
        connections: &mut Connections,
        id: IncomingId,
        config: &ConnectionConfig,
    ) -> Result<(ConnectionId, Arc<Shared>), ConnectError> {
        self.waiting.remove(&id).ok_or(ConnectError::Gone)?;
        let accepted = connections.accept_for(cx, id, config);
        if accepted.is_err() {
            cx.stack.refuse(cx.now, id, RefuseWith::Reset);
        }
        accepted
    }

    /// The program refuses.
    pub(super) fn refuse(&mut self, cx: &mut Context<'_>, id: IncomingId, with: RefuseWith) {
        if self.waiting.remove(&id).is_some() {
            cx.stack.refuse(cx.now, id, with);
        }
    }

    /// The worker ends: nobody may wait for it any longer.
    pub(super) fn close_all(&self) {
        self.listeners.values().for_each(|shared| shared.close());
    }
}

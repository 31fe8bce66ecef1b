//! The worker's side of connections that wait for a program's word.

use super::connections::Connections;
use super::context::Context;
use crate::mailbox::Mailbox;
use crate::shared::Shared;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// The part of a listener for such connections that its handle and the worker share.
pub(crate) type OffersShared = Mailbox<Offer>;

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

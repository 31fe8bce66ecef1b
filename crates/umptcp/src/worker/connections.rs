//! The worker's side of connections.

use super::{Context, Worker};
use crate::shared::{End, Phase, Shared};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use umptcp_stack_core::config::ConnectOptions;
use umptcp_stack_core::error::{ConnectError, ConnectionError};
use umptcp_stack_core::stack::{ConnectionInfo, Received, SubflowInfo};
use umptcp_types::{ConnectionId, ListenerId};

/// One connection that an application holds, or that still has bytes on their way to the stack.
pub(super) struct Entry {
    pub(super) shared: Arc<Shared>,
    /// Taken from the application, and not yet taken by the stack.
    pending: VecDeque<Bytes>,
    /// Bytes handed to readers since the beginning.
    put: u64,
    /// The listener it came by, until it is established.
    pub(super) listener: Option<ListenerId>,
    /// No application holds it any more.
    detached: bool,
    /// The stack knows that no more will be sent.
    shut: bool,
    /// The reading side has been told of the end.
    read_ended: bool,
    /// The stack has reported the end.
    ended: bool,
}

impl Entry {
    pub(super) fn new(shared: Arc<Shared>, listener: Option<ListenerId>) -> Self {
        Entry {
            shared,
            pending: VecDeque::new(),
            put: 0,
            listener,
            detached: false,
            shut: false,
            read_ended: false,
            ended: false,
        }
    }
}

impl Worker {
    /// Begins a connection.
    pub(crate) fn connect(
        &mut self,
        cx: &mut Context<'_>,
        options: ConnectOptions,
    ) -> Result<(ConnectionId, Arc<Shared>), ConnectError> {
        let shared = Arc::new(Shared::new(&options.config, self.spin));
        let id = cx.engine.connect(cx.now, options)?;
        if let Some(info) = cx.engine.info(id).filter(|_| cx.engine.awaits_data(id)) {
            // Fast Open: the application writes first.
            shared.set_phase(Phase::Connected { local: info.local, remote: info.remote });
            shared.set_awaits_data();
        }
        self.connections.insert(id, Entry::new(shared.clone(), None));
        Ok((id, shared))
    }

    pub(super) fn connected(&mut self, cx: &mut Context<'_>, id: ConnectionId) {
        let Some(entry) = self.connections.get_mut(&id) else { return };
        let Some(info) = cx.engine.info(id) else { return };
        entry.shared.set_phase(Phase::Connected { local: info.local, remote: info.remote });
        if let Some(listener) = entry.listener.take() {
            let shared = entry.shared.clone();
            self.accepted(cx, listener, id, shared, &info);
        }
        // What came with the handshake, and what was written before it was through.
        self.receive(cx, id);
        self.send(cx, id);
    }

    /// The application did something with this connection.
    pub(super) fn look(&mut self, cx: &mut Context<'_>, id: ConnectionId) {
        let Some(entry) = self.connections.get(&id) else { return };
        entry.shared.clear_dirty();
        self.receive(cx, id);
        self.send(cx, id);
    }

    /// Moves what the application wrote to the stack, as far as there is room.
    pub(super) fn send(&mut self, cx: &mut Context<'_>, id: ConnectionId) {
        let Some(entry) = self.connections.get_mut(&id) else { return };
        let finished = loop {
            while let Some(mut bytes) = entry.pending.pop_front() {
                match cx.engine.send(cx.now, id, bytes.clone()) {
                    Ok(n) if n == bytes.len() => {}
                    Ok(n) => {
                        // Event::Writable follows.
                        bytes::Buf::advance(&mut bytes, n);
                        entry.pending.push_front(bytes);
                        return;
                    }
                    Err(ConnectionError::NotConnected) => {
                        // Event::Connected follows.
                        entry.pending.push_front(bytes);
                        return;
                    }
                    Err(e) => {
                        entry.pending.clear();
                        entry.shared.end_writing(End::Error(e));
                        break;
                    }
                }
            }
            let finished = entry.shared.collect(&mut entry.pending);
            if entry.pending.is_empty() {
                break finished;
            }
        };
        if entry.detached {
            self.release(cx, id);
        } else if finished && !entry.shut {
            entry.shut = true;
            if let Err(error) = cx.engine.shutdown(cx.now, id) {
                tracing::debug!(connection = %id, %error, "shutting down");
            }
        }
    }

    /// Moves what the stack has received to the application, as far as there is room.
    pub(super) fn receive(&mut self, cx: &mut Context<'_>, id: ConnectionId) {
        let Some(entry) = self.connections.get_mut(&id) else { return };
        if entry.read_ended && !entry.ended {
            return;
        }
        if entry.detached {
            // Nobody reads, but the peer may wait for its bytes to be taken before it takes ours.
            while let Ok(Received::Data(_)) = cx.engine.receive(cx.now, id, usize::MAX) {}
            return;
        }
        loop {
            let mut room = entry.shared.read_room(entry.put);
            let mut end = None;
            let mut stalled = false;
            while end.is_none() {
                if room == 0 {
                    stalled = true;
                    break;
                }
                match cx.engine.receive(cx.now, id, room) {
                    Ok(Received::Data(bytes)) => {
                        room = room.saturating_sub(bytes.len());
                        entry.put += bytes.len() as u64;
                        self.batch.push(bytes);
                    }
                    Ok(Received::Empty) | Err(ConnectionError::NotConnected) => break,
                    Ok(Received::End) => end = Some(End::Finished),
                    Err(e) => {
                        // Before a reader learns of it: whoever writes after that must fail, too.
                        entry.shared.end_writing(End::Error(e));
                        end = Some(End::Error(e));
                    }
                }
            }
            entry.read_ended |= end.is_some();
            if self.batch.is_empty() && end.is_none() && !stalled {
                break;
            }
            if !entry.shared.deliver(&mut self.batch, end, stalled, entry.put) {
                break;
            }
        }
        if entry.ended && entry.read_ended {
            // Nothing is left to be had of it.
            cx.engine.close(cx.now, id);
            self.connections.remove(&id);
        }
    }

    /// The stack reports the end of a connection. What was received before may still be read.
    pub(super) fn ended(&mut self, cx: &mut Context<'_>, id: ConnectionId, error: Option<ConnectionError>) {
        let Some(entry) = self.connections.get_mut(&id) else { return };
        entry.ended = true;
        entry.pending.clear();
        if let Some(info) = cx.engine.info(id) {
            entry.shared.set_last((info, cx.engine.subflows(id)));
        }
        let error = error.unwrap_or(ConnectionError::SendClosed);
        // One that was never established has no stream that could read from it.
        let stillborn = entry.shared.is_connecting();
        let listener = entry.listener;
        entry.shared.fail_connecting(error);
        entry.shared.end_writing(End::Error(error));
        if entry.detached || stillborn {
            cx.engine.close(cx.now, id);
            self.connections.remove(&id);
        } else {
            self.receive(cx, id);
        }
        if let Some(listener) = listener {
            self.not_accepted(cx, listener, id);
        }
    }

    /// No application holds this connection any more: what was written is still delivered.
    pub(super) fn detach(&mut self, cx: &mut Context<'_>, id: ConnectionId) {
        let Some(entry) = self.connections.get_mut(&id) else { return };
        entry.detached = true;
        entry.shared.end_writing(End::Finished);
        if entry.ended {
            cx.engine.close(cx.now, id);
            self.connections.remove(&id);
        } else {
            self.send(cx, id);
        }
    }

    /// The stack is being stopped: the connection is closed as if the application had let go of it.
    pub(super) fn finish(&mut self, cx: &mut Context<'_>, id: ConnectionId) {
        let Some(entry) = self.connections.get_mut(&id) else { return };
        if entry.shared.is_connecting() {
            self.abort(cx, id);
        } else {
            self.detach(cx, id);
        }
    }

    /// Everything written is in the stack's hands and nobody is interested any more.
    fn release(&mut self, cx: &mut Context<'_>, id: ConnectionId) {
        cx.engine.close(cx.now, id);
        if let Some(entry) = self.connections.remove(&id) {
            entry.shared.fail(ConnectionError::Aborted);
            self.add_orphan(cx, id);
        }
    }

    /// Ends a connection at once.
    pub(crate) fn abort(&mut self, cx: &mut Context<'_>, id: ConnectionId) {
        let Some(entry) = self.connections.remove(&id) else { return };
        if let Some(info) = cx.engine.info(id) {
            entry.shared.set_last((info, cx.engine.subflows(id)));
        }
        cx.engine.abort(cx.now, id);
        cx.engine.close(cx.now, id);
        entry.shared.fail(ConnectionError::Aborted);
    }

    /// What the stack knows of a connection; what it last knew when it has ended.
    pub(crate) fn describe(
        &self,
        cx: &mut Context<'_>,
        id: ConnectionId,
        shared: &Shared,
    ) -> Option<(ConnectionInfo, Vec<SubflowInfo>)> {
        match cx.engine.info(id) {
            Some(info) if self.connections.get(&id).is_some_and(|e| !e.ended) => {
                Some((info, cx.engine.subflows(id)))
            }
            _ => shared.last(),
        }
    }
    /// What the stack knows of every connection that an application holds.
    pub(crate) fn describe_all(
        &self,
        cx: &mut Context<'_>,
    ) -> Vec<(ConnectionId, ConnectionInfo, Vec<SubflowInfo>)> {
        let mut all: Vec<_> = self
            .connections
            .keys()
            .filter_map(|id| Some((*id, cx.engine.info(*id)?, cx.engine.subflows(*id))))
            .collect();
        all.sort_by_key(|(id, ..)| *id);
        all
    }
}

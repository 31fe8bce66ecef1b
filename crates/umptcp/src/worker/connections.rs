//! The worker's side of connections.

use super::context::Context;
use crate::shared::{End, Most, Phase, Shared};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use umptcp_relay::AnswerError;
use umptcp_stack_core::config::{ConnectOptions, ConnectionConfig};
use umptcp_stack_core::error::{ConnectError, ConnectionError};
use umptcp_stack_core::event::IncomingId;
use umptcp_stack_core::stack::{ApplicationQueues, ConnectionInfo, Received, SubflowInfo};
use umptcp_types::{ConnectionId, Instant, ListenerId};

/// An established connection that nobody has accepted yet.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) id: ConnectionId,
    pub(crate) shared: Arc<Shared>,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

/// One connection that an application holds, or that still has bytes to hand to the stack.
struct Entry {
    shared: Arc<Shared>,
    /// Taken from the application, not yet taken by the stack.
    pending: VecDeque<Bytes>,
    /// Bytes handed to readers so far.
    put: u64,
    /// Bytes written that the stack does not have, as far as it knows.
    unsent: u64,
    /// It is among those of which the stack may know something old.
    unsettled: bool,
    /// The listener it belongs to until it is established.
    listener: Option<ListenerId>,
    /// Whoever began it may try another path.
    may_doubt: bool,
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
    fn new(shared: Arc<Shared>, listener: Option<ListenerId>) -> Self {
        Entry {
            shared,
            pending: VecDeque::new(),
            put: 0,
            unsent: 0,
            unsettled: false,
            listener,
            may_doubt: false,
            detached: false,
            shut: false,
            read_ended: false,
            ended: false,
        }
    }

    /// Bytes written that the stack has not taken.
    fn unsent(&self) -> u64 {
        let pending: usize = self.pending.iter().map(Bytes::len).sum();
        (pending + self.shared.written()) as u64
    }

    /// Tells the stack what waits between it and the application. `watch`: it is to be told as soon as the
    /// application reads.
    fn tell_queues(&mut self, cx: &mut Context<'_>, id: ConnectionId, watch: bool) {
        self.unsent = self.unsent();
        let unread = self.shared.unread(self.put, watch);
        let queues = ApplicationQueues { unread: Some(unread), unsent: self.unsent };
        if let Err(error) = cx.stack.set_application_queues(cx.now, id, queues) {
            tracing::trace!(connection = %id, %error, "no account of its queues");
        }
    }
}

/// What an application hands over of a connection.
pub(super) struct HandedOver {
    pub(super) id: ConnectionId,
    /// Written, and not yet taken by the stack.
    pub(super) written: VecDeque<Bytes>,
    /// Received, and not read.
    pub(super) unread: VecDeque<Bytes>,
    /// The end of the stream has been received.
    pub(super) read_ended: bool,
}

/// Bytes that the stack has and the peer has not acknowledged.
pub(super) fn in_stack(cx: &mut Context<'_>, id: ConnectionId) -> u64 {
    cx.stack.info(id).map_or(0, |info| info.send_queue)
}

/// What was written and had to be given up when the stack was stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Undelivered {
    /// Connections that had something left.
    pub(crate) connections: usize,
    /// Bytes that the peers have not acknowledged.
    pub(crate) bytes: u64,
}

impl Undelivered {
    /// A connection ends with so many bytes left.
    pub(super) fn add(&mut self, bytes: u64) {
        self.connections += usize::from(bytes > 0);
        self.bytes += bytes;
    }
}

/// How long the stack may take what has been read for unread. More often costs more; readers that were told to say
/// at once when they read pay a system call.
const SETTLE: Duration = Duration::from_secs(1);

/// How many closed connections to collect before checking which of them have ended.
const FEW_ORPHANS: usize = 64;

/// All connections of a worker.
pub(super) struct Connections {
    entries: HashMap<ConnectionId, Entry>,
    /// Connections that no application holds any more but whose data the stack may still be delivering.
    orphans: Vec<ConnectionId>,
    orphans_checked_at: usize,
    /// Connections that are being established of which the first to succeed stays: for each, the others.
    rivals: HashMap<ConnectionId, Vec<ConnectionId>>,
    /// How long readers poll for data before they sleep.
    spin: Duration,
    /// What the queues of each may hold.
    most: Most,
    /// The memory of all connections is scarce.
    scarce: bool,
    /// Connections to which something was delivered: the stack does not know yet when it is read.
    unsettled: Vec<ConnectionId>,
    /// When it is told.
    settle_at: Option<Instant>,
    /// Connections that the stack has closed, of which something is left to be read; and how much was delivered.
    unread: Vec<(Arc<Shared>, u64)>,
    /// Scratch space for received data.
    batch: Vec<Bytes>,
}

impl Connections {
    pub(super) fn new(spin: Duration) -> Self {
        Connections {
            entries: HashMap::new(),
            orphans: Vec::new(),
            orphans_checked_at: FEW_ORPHANS,
            rivals: HashMap::new(),
            spin,
            most: Most::default(),
            scarce: false,
            unsettled: Vec::new(),
            settle_at: None,
            unread: Vec::new(),
            batch: Vec::new(),
        }
    }

    /// Starts a connection; `relayed`: to a relay, which is asked first.
    pub(super) fn connect(
        &mut self,
        cx: &mut Context<'_>,
        options: ConnectOptions,
        relayed: bool,
    ) -> Result<(ConnectionId, Arc<Shared>), ConnectError> {
        let shared = Arc::new(Shared::new(&options.config, self.spin, &self.most));
        let id = cx.stack.connect(cx.now, options)?;
        if let Some(info) = cx.stack.info(id).filter(|_| !relayed && cx.stack.awaits_data(id)) {
            // Fast Open: the application writes first.
            shared.set_phase(Phase::Connected { local: info.local, remote: info.remote });
            shared.set_awaits_data();
        }
        self.entries.insert(id, Entry::new(shared.clone(), None));
        Ok((id, shared))
    }

    /// Whoever began it may try another path, if the answer over this one is in doubt.
    pub(super) fn allow_doubt(&mut self, id: ConnectionId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.may_doubt = true;
        }
    }

    /// The handshake is complete, but the answer is in doubt. Those with which it is in a race go on. False: there is
    /// nobody to ask over another path, or the application has the connection already (Fast Open).
    pub(super) fn hold(&mut self, id: ConnectionId, local: SocketAddr, remote: SocketAddr) -> bool {
        let can_wait = |entry: &&Entry| entry.may_doubt && matches!(entry.shared.phase(), Phase::Connecting);
        let Some(entry) = self.entries.get(&id).filter(can_wait) else { return false };
        entry.shared.set_phase(Phase::Doubtful { local, remote });
        true
    }

    /// The answer to a connection is not in doubt any more.
    pub(super) fn end_doubt(&mut self, id: ConnectionId) {
        if let Some(entry) = self.entries.get(&id) {
            // One that has failed is told of elsewhere.
            let _ = entry.shared.end_doubt();
        }
    }

    /// Those that it is in a race with and that are established, and in doubt.
    pub(super) fn doubtful_rivals(&self, id: ConnectionId) -> Vec<ConnectionId> {
        let rivals = self.rivals.get(&id).into_iter().flatten().copied();
        rivals
            .filter(|rival| self.entries.get(rival).is_some_and(|entry| entry.shared.is_doubtful()))
            .collect()
    }

    /// Those that it is in a race with.
    pub(super) fn rivals_of(&self, id: ConnectionId) -> Vec<ConnectionId> {
        self.rivals.get(&id).cloned().unwrap_or_default()
    }

    /// Of `id` and `others`, the first that is established stays. Told here, because the application may be
    /// slow to choose, and a rival that is established meanwhile would be accepted by the peer.
    pub(super) fn add_rivals(&mut self, id: ConnectionId, others: &[ConnectionId]) {
        for other in others.iter().filter(|other| self.entries.contains_key(other)) {
            self.rivals.entry(*other).or_default().push(id);
            self.rivals.entry(id).or_default().push(*other);
        }
    }

    /// The handshake of a connection has succeeded: nobody waits for the others.
    fn abort_rivals(&mut self, cx: &mut Context<'_>, id: ConnectionId) -> Vec<ConnectionId> {
        let rivals = self.rivals.remove(&id).unwrap_or_default();
        for rival in &rivals {
            let given_up = |entry: &Entry| entry.shared.fail_connecting(ConnectionError::Aborted);
            if self.entries.get(rival).is_some_and(given_up) {
                self.abort(cx, *rival);
            }
        }
        rivals
    }

    /// The relay by which a connection is made has been reached. It is asked no second time: returns the
    /// rivals, which are given up.
    pub(super) fn reached(&mut self, cx: &mut Context<'_>, id: ConnectionId) -> Vec<ConnectionId> {
        if let Some(entry) = self.entries.get(&id) {
            entry.shared.set_asked();
        }
        self.abort_rivals(cx, id)
    }

    /// A relay has refused a connection, which fails next.
    pub(super) fn refused(&self, id: ConnectionId, why: AnswerError) {
        if let Some(entry) = self.entries.get(&id) {
            entry.shared.set_refusal(why);
        }
    }

    /// Answers a SYN, or takes over a handshake that a SYN cookie completed.
    pub(super) fn accept(
        &mut self,
        cx: &mut Context<'_>,
        incoming: IncomingId,
        config: &ConnectionConfig,
        listener: ListenerId,
    ) -> Result<ConnectionId, ConnectError> {
        let id = cx.stack.accept(cx.now, incoming, config)?;
        let shared = Arc::new(Shared::new(config, self.spin, &self.most));
        self.entries.insert(id, Entry::new(shared, Some(listener)));
        Ok(id)
    }

    /// The same, for a program that waits for just this one.
    pub(super) fn accept_for(
        &mut self,
        cx: &mut Context<'_>,
        incoming: IncomingId,
        config: &ConnectionConfig,
    ) -> Result<(ConnectionId, Arc<Shared>), ConnectError> {
        let id = cx.stack.accept(cx.now, incoming, config)?;
        let shared = Arc::new(Shared::new(config, self.spin, &self.most));
        self.entries.insert(id, Entry::new(shared.clone(), None));
        Ok((id, shared))
    }

    /// The handshake is complete. Returns the listener that the connection came in on, if any.
    pub(super) fn connected(
        &mut self,
        cx: &mut Context<'_>,
        id: ConnectionId,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Option<(ListenerId, Accepted)> {
        self.abort_rivals(cx, id);
        let entry = self.entries.get_mut(&id)?;
        entry.shared.set_phase(Phase::Connected { local, remote });
        let listener = entry.listener.take()?;
        Some((listener, Accepted { id, shared: entry.shared.clone(), local, remote }))
    }

    /// The application has done something with this connection.
    pub(super) fn look(&mut self, cx: &mut Context<'_>, id: ConnectionId) {
        let Some(entry) = self.entries.get(&id) else { return };
        entry.shared.clear_dirty();
        self.receive(cx, id);
        self.send(cx, id);
    }

    /// Memory has become scarce, or is not any more: queues hold less, or what they held before. What the stack
    /// knows of them may be old, too.
    pub(super) fn on_memory(&mut self, cx: &mut Context<'_>) {
        let scarce = cx.stack.memory().pressure;
        if scarce == std::mem::replace(&mut self.scarce, scarce) {
            return;
        }
        self.most.set_scarce(scarce);
        for (id, entry) in &mut self.entries {
            entry.tell_queues(cx, *id, scarce);
            if !scarce {
                entry.shared.on_room();
            }
        }
    }

    /// Tells the stack what of that which was delivered is not read, if it is time. Who has not read it by now says
    /// so when it does.
    pub(super) fn settle(&mut self, cx: &mut Context<'_>) {
        if self.settle_at.is_none_or(|at| cx.now < at) {
            return;
        }
        self.settle_at = None;
        if !self.unread.is_empty() {
            self.tell_unread(cx);
        }
        for id in std::mem::take(&mut self.unsettled) {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.unsettled = false;
                entry.tell_queues(cx, id, true);
            }
        }
    }

    /// When it is time.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.settle_at
    }

    /// Moves data from the application to the stack, as far as there is room.
    pub(super) fn send(&mut self, cx: &mut Context<'_>, id: ConnectionId) {
        self.move_out(cx, id);
        if let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.unsent() != entry.unsent) {
            entry.tell_queues(cx, id, self.scarce);
        }
    }

    fn move_out(&mut self, cx: &mut Context<'_>, id: ConnectionId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let finished = loop {
            while let Some(mut bytes) = entry.pending.pop_front() {
                match cx.stack.send(cx.now, id, bytes.clone()) {
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
            if let Err(error) = cx.stack.shutdown(cx.now, id) {
                tracing::debug!(connection = %id, %error, "cannot shut down");
            }
        }
    }

    /// Moves data from the stack to the application, as far as there is room.
    pub(super) fn receive(&mut self, cx: &mut Context<'_>, id: ConnectionId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.read_ended && !entry.ended {
            return;
        }
        if entry.detached {
            // Nobody will ever read it, and the peer must know (RFC 9293 §3.6.1, SHLD-3).
            if matches!(cx.stack.receive(cx.now, id, 1), Ok(Received::Data(_))) {
                self.abort(cx, id);
            }
            return;
        }
        entry.tell_queues(cx, id, self.scarce);
        let before = entry.put;
        loop {
            let mut room = entry.shared.read_room(entry.put);
            let mut end = None;
            let mut stalled = false;
            while end.is_none() {
                if room == 0 {
                    stalled = true;
                    break;
                }
                match cx.stack.receive(cx.now, id, room) {
                    Ok(Received::Data(bytes)) => {
                        room = room.saturating_sub(bytes.len());
                        entry.put += bytes.len() as u64;
                        self.batch.push(bytes);
                    }
                    Ok(Received::Empty) | Err(ConnectionError::NotConnected) => break,
                    Ok(Received::End) => end = Some(End::Finished),
                    Err(e) => {
                        // Before readers learn of it: a write after that must fail too.
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
        if entry.put > before && !std::mem::replace(&mut entry.unsettled, true) {
            self.unsettled.push(id);
            self.settle_at.get_or_insert(cx.now + SETTLE);
        }
        if entry.ended && entry.read_ended {
            // Nothing is left to read in the stack.
            cx.stack.close(cx.now, id);
            if let Some(entry) = self.entries.remove(&id)
                && entry.shared.unread(entry.put, false) > 0
            {
                self.unread.push((entry.shared, entry.put));
                self.tell_unread(cx);
            }
        }
    }

    /// Tells the stack what is left to be read of connections that it has closed. As long as there is something, it
    /// is told again.
    fn tell_unread(&mut self, cx: &mut Context<'_>) {
        // Nobody reads what the worker alone holds.
        self.unread.retain(|(shared, put)| Arc::strong_count(shared) > 1 && shared.unread(*put, false) > 0);
        let left = self.unread.iter().map(|(shared, put)| shared.unread(*put, false)).sum();
        cx.stack.set_kept_of_closed(cx.now, left);
        if !self.unread.is_empty() {
            self.settle_at.get_or_insert(cx.now + SETTLE);
        }
    }

    /// The stack reports the end of a connection. What was received before may still be read. Returns the
    /// listener whose handshake this ends, if it does.
    pub(super) fn ended(
        &mut self,
        cx: &mut Context<'_>,
        id: ConnectionId,
        error: Option<ConnectionError>,
    ) -> Option<ListenerId> {
        self.rivals.remove(&id);
        let entry = self.entries.get_mut(&id)?;
        entry.ended = true;
        entry.pending.clear();
        if let Some(info) = cx.stack.info(id) {
            entry.shared.set_last((info, cx.stack.subflows(id)));
        }
        let error = error.unwrap_or(ConnectionError::SendClosed);
        // A connection that was never established has no stream that could read from it.
        let stillborn = entry.shared.fail_connecting(error);
        let listener = entry.listener;
        entry.shared.end_writing(End::Error(error));
        if entry.detached || stillborn {
            cx.stack.close(cx.now, id);
            self.entries.remove(&id);
        } else {
            self.receive(cx, id);
        }
        listener
    }

    /// No application holds this connection any more. What was written is still delivered, unless the peer
    /// has sent data that nobody has read: it must not believe that they were (RFC 2525 §2.17, as Linux).
    pub(super) fn detach(&mut self, cx: &mut Context<'_>, id: ConnectionId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.detached = true;
        if entry.ended {
            cx.stack.close(cx.now, id);
            self.entries.remove(&id);
            return;
        }
        let unread = entry.shared.has_unread();
        entry.shared.end_writing(End::Finished);
        if unread {
            self.abort(cx, id);
        } else {
            // What waits in the stack is unread, too.
            self.receive(cx, id);
            self.send(cx, id);
        }
    }

    /// Whether the connection can become one of a pair: it is established, and can still send.
    pub(super) fn may_hand_over(&self, id: ConnectionId) -> bool {
        let fit =
            |e: &Entry| !e.detached && !e.ended && !e.shared.is_connecting() && !e.shared.is_write_ended();
        self.entries.get(&id).is_some_and(fit)
    }

    /// The application hands a connection over, which becomes one of a pair.
    pub(super) fn hand_over(&mut self, id: ConnectionId) -> Option<HandedOver> {
        let entry = self.entries.remove(&id)?;
        let (mut written, mut rest) = (entry.pending, VecDeque::new());
        entry.shared.collect(&mut rest);
        written.append(&mut rest);
        let (unread, end) = entry.shared.take_unread();
        entry.shared.fail(ConnectionError::NotFound);
        Some(HandedOver { id, written, unread, read_ended: end == Some(End::Finished) })
    }

    /// Bytes written that the peer has not acknowledged.
    pub(super) fn unacknowledged(&self, cx: &mut Context<'_>, id: ConnectionId) -> u64 {
        self.entries.get(&id).map_or(0, Entry::unsent) + in_stack(cx, id)
    }

    /// The stack is being stopped: closes the connection as if the application had dropped it. Returns the
    /// bytes that this gives up.
    pub(super) fn finish(&mut self, cx: &mut Context<'_>, id: ConnectionId) -> u64 {
        let left = self.unacknowledged(cx, id);
        let Some(entry) = self.entries.get_mut(&id) else { return 0 };
        if entry.shared.is_connecting() {
            self.abort(cx, id);
            return left;
        }
        self.detach(cx, id);
        let goes_on = self.entries.contains_key(&id) || self.orphans.last() == Some(&id);
        if goes_on { 0 } else { left }
    }

    /// The stack has everything that was written, and nobody holds the connection any more.
    fn release(&mut self, cx: &mut Context<'_>, id: ConnectionId) {
        cx.stack.close(cx.now, id);
        if let Some(entry) = self.entries.remove(&id) {
            entry.shared.fail(ConnectionError::Aborted);
            self.add_orphan(cx, id);
        }
    }

    /// Ends a connection at once.
    pub(super) fn abort(&mut self, cx: &mut Context<'_>, id: ConnectionId) {
        self.rivals.remove(&id);
        let Some(entry) = self.entries.remove(&id) else { return };
        if let Some(info) = cx.stack.info(id) {
            entry.shared.set_last((info, cx.stack.subflows(id)));
        }
        cx.stack.abort(cx.now, id);
        cx.stack.close(cx.now, id);
        entry.shared.fail(ConnectionError::Aborted);
    }

    /// State and statistics of a connection; the final ones if it has ended.
    pub(super) fn describe(
        &self,
        cx: &mut Context<'_>,
        id: ConnectionId,
        shared: &Shared,
    ) -> Option<(ConnectionInfo, Vec<SubflowInfo>)> {
        match cx.stack.info(id) {
            Some(info) if self.entries.get(&id).is_some_and(|e| !e.ended) => {
                Some((info, cx.stack.subflows(id)))
            }
            _ => shared.last(),
        }
    }

    /// State and statistics of every connection that an application holds.
    pub(super) fn describe_all(
        &self,
        cx: &mut Context<'_>,
    ) -> Vec<(ConnectionId, ConnectionInfo, Vec<SubflowInfo>)> {
        let ids = self.entries.keys();
        ids.filter_map(|id| Some((*id, cx.stack.info(*id)?, cx.stack.subflows(*id)))).collect()
    }

    pub(super) fn ids(&self) -> Vec<ConnectionId> {
        self.entries.keys().copied().collect()
    }

    /// Connections whose handshake a listener has answered and that are not established.
    pub(super) fn handshaking(&self, listener: ListenerId) -> Vec<ConnectionId> {
        let of_listener = self.entries.iter().filter(|(_, e)| e.listener == Some(listener));
        of_listener.map(|(id, _)| *id).collect()
    }

    /// Whether every connection is done, closed ones that were still delivering included.
    pub(super) fn all_done(&mut self, cx: &mut Context<'_>) -> bool {
        self.orphans.retain(|id| cx.stack.info(*id).is_some());
        self.entries.is_empty() && self.orphans.is_empty()
    }

    /// Aborts all that is left, and adds up what could not be delivered.
    pub(super) fn abort_all(&mut self, cx: &mut Context<'_>, lost: &mut Undelivered) {
        for (id, entry) in self.entries.drain() {
            lost.add(entry.unsent() + in_stack(cx, id));
            cx.stack.abort(cx.now, id);
            entry.shared.fail(ConnectionError::Aborted);
        }
        for id in self.orphans.drain(..) {
            lost.add(in_stack(cx, id));
            cx.stack.abort(cx.now, id);
        }
    }

    /// The worker ends: nobody may wait for it any longer.
    pub(super) fn fail_all(&self) {
        for entry in self.entries.values() {
            entry.shared.fail(ConnectionError::Aborted);
        }
    }

    /// Remembers a closed connection, so that stopping can wait for it.
    fn add_orphan(&mut self, cx: &mut Context<'_>, id: ConnectionId) {
        self.orphans.push(id);
        if self.orphans.len() >= self.orphans_checked_at {
            self.orphans.retain(|id| cx.stack.info(*id).is_some());
            self.orphans_checked_at = FEW_ORPHANS.max(2 * self.orphans.len());
        }
    }
}

//! Pairs of connections whose streams are joined, on the worker's thread and without a copy.

use super::connections::{HandedOver, Undelivered, in_stack};
use super::context::Context;
use crate::forwarded::spoken;
use bytes::{Buf, Bytes};
use crossbeam_channel::Sender;
use std::collections::{HashMap, VecDeque};
use umptcp_stack_core::error::{ConnectionError, FallbackReason};
use umptcp_stack_core::stack::{ApplicationQueues, Received};
use umptcp_types::ConnectionId;

/// Most bytes moved at a time, and so what is on its way between the two connections.
const PIECE: usize = 64 << 10;

/// How a splice ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Outcome {
    /// Bytes moved from each to the other.
    pub(crate) moved: [u64; 2],
    /// Which of the two failed, and how. `None`: both have ended in order.
    pub(crate) error: Option<(usize, ConnectionError)>,
}

/// One of the two connections.
struct Half {
    id: ConnectionId,
    /// Came from the other; the stack has not taken it yet.
    pending: VecDeque<Bytes>,
    /// Bytes of it that the stack knows of.
    told: u64,
    /// The end of its stream has been read.
    read_ended: bool,
    /// The stack knows that no more will be sent.
    shut: bool,
    /// Bytes that came from it.
    received: u64,
    /// The stack has reported the end.
    ended: bool,
}

impl Half {
    /// What is left of `own` goes first, then what was received on the other.
    fn new(own: &mut HandedOver, other: &mut HandedOver) -> Half {
        let mut pending = std::mem::take(&mut own.written);
        let received = own.unread.iter().map(|b| b.len() as u64).sum();
        pending.extend(other.unread.iter().cloned());
        Half { pending, read_ended: own.read_ended, received, ..Half::fresh(own.id) }
    }

    /// Tells the stack what waits to be sent: what it hands out is read at once.
    fn tell_queues(&self, cx: &mut Context<'_>) {
        let queues = ApplicationQueues { unread: None, unsent: self.told };
        if let Err(error) = cx.stack.set_application_queues(cx.now, self.id, queues) {
            tracing::trace!(connection = %self.id, %error, "no account of its queues");
        }
    }

    fn fresh(id: ConnectionId) -> Half {
        Half {
            id,
            pending: VecDeque::new(),
            told: 0,
            read_ended: false,
            shut: false,
            received: 0,
            ended: false,
        }
    }
}

struct Splice {
    halves: [Half; 2],
    /// Who is told of the end; `None`: the worker.
    done: Option<Sender<Outcome>>,
}

/// A pair of the worker's own that has ended.
pub(super) struct Ended {
    pub(super) ids: [ConnectionId; 2],
    pub(super) outcome: Outcome,
    /// Whether each was MPTCP, and why not.
    pub(super) mptcp: [Option<Result<(), FallbackReason>>; 2],
}

/// Names a splice of a worker.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct SpliceId(u64);

/// All pairs of a worker.
#[derive(Default)]
pub(super) struct Splices {
    all: HashMap<SpliceId, Splice>,
    /// For each connection, its splice and which of the two it is.
    members: HashMap<ConnectionId, (SpliceId, usize)>,
    next: u64,
    ended: Vec<Ended>,
}

impl Splices {
    /// Joins two that applications have handed over.
    pub(super) fn add(
        &mut self,
        cx: &mut Context<'_>,
        [mut a, mut b]: [HandedOver; 2],
        done: Sender<Outcome>,
    ) {
        let halves = [Half::new(&mut a, &mut b), Half::new(&mut b, &mut a)];
        self.insert(cx, Splice { halves, done: Some(done) });
    }

    /// Joins two that no application has seen. They may still be being established.
    pub(super) fn join(&mut self, cx: &mut Context<'_>, ids: [ConnectionId; 2]) {
        self.insert(cx, Splice { halves: ids.map(Half::fresh), done: None });
    }

    fn insert(&mut self, cx: &mut Context<'_>, splice: Splice) {
        let id = SpliceId(self.next);
        self.next += 1;
        for (side, half) in splice.halves.iter().enumerate() {
            self.members.insert(half.id, (id, side));
            // An application's queues are no more.
            half.tell_queues(cx);
        }
        self.all.insert(id, splice);
        for from in [0, 1] {
            self.pump(cx, id, from);
        }
    }

    /// Something has come on a connection, or there is room for more. False: it is none of a pair.
    pub(super) fn on_ready(&mut self, cx: &mut Context<'_>, connection: ConnectionId) -> bool {
        let Some(&(id, side)) = self.members.get(&connection) else { return false };
        self.pump(cx, id, side);
        self.pump(cx, id, 1 - side);
        true
    }

    /// A program asks whether its peer lives: the peer is asked.
    pub(super) fn on_keep_alive(&mut self, cx: &mut Context<'_>, connection: ConnectionId) {
        let Some((id, side)) = self.members.get(&connection) else { return };
        let Some(splice) = self.all.get(id) else { return };
        let other = splice.halves[1 - side].id;
        if let Err(error) = cx.stack.ask_for_life(cx.now, other) {
            tracing::debug!(connection = %other, %error, "cannot ask for a sign of life");
        }
    }

    /// The stack reports the end of a connection. False: it is none of a pair.
    pub(super) fn on_ended(
        &mut self,
        cx: &mut Context<'_>,
        connection: ConnectionId,
        error: Option<ConnectionError>,
    ) -> bool {
        let Some(&(id, side)) = self.members.get(&connection) else { return false };
        if let Some(splice) = self.all.get_mut(&id) {
            splice.halves[side].ended = true;
        }
        self.on_half_ended(cx, id, side, error);
        true
    }

    fn on_half_ended(
        &mut self,
        cx: &mut Context<'_>,
        id: SpliceId,
        side: usize,
        error: Option<ConnectionError>,
    ) {
        if let Some(error) = error {
            // As TCP does: what came before a reset need not arrive, but nobody must take it for all there
            // was.
            return self.finish(cx, id, Some((side, error)));
        }
        self.pump(cx, id, side);
        let both =
            self.all.get(&id).is_some_and(|s| s.halves.iter().all(|h| h.ended && h.pending.is_empty()));
        if both {
            self.finish(cx, id, None);
        }
    }

    /// Moves what side `from` has received to the other, as far as that has room.
    fn pump(&mut self, cx: &mut Context<'_>, id: SpliceId, from: usize) {
        self.move_bytes(cx, id, from);
        let Some(sink) = self.all.get_mut(&id).map(|splice| &mut splice.halves[1 - from]) else { return };
        let pending = sink.pending.iter().map(|b| b.len() as u64).sum();
        if std::mem::replace(&mut sink.told, pending) != pending {
            sink.tell_queues(cx);
        }
    }

    fn move_bytes(&mut self, cx: &mut Context<'_>, id: SpliceId, from: usize) {
        let Some(splice) = self.all.get_mut(&id) else { return };
        let [a, b] = &mut splice.halves;
        let (source, sink) = if from == 0 { (a, b) } else { (b, a) };
        loop {
            while let Some(mut bytes) = sink.pending.pop_front() {
                match cx.stack.send(cx.now, sink.id, bytes.clone()) {
                    Ok(n) if n == bytes.len() => {}
                    Ok(n) => {
                        // Event::Writable follows.
                        bytes.advance(n);
                        sink.pending.push_front(bytes);
                        return;
                    }
                    // Its end is being reported.
                    Err(_) => return sink.pending.clear(),
                }
            }
            if source.read_ended {
                if !std::mem::replace(&mut sink.shut, true)
                    && let Err(error) = cx.stack.shutdown(cx.now, sink.id)
                {
                    tracing::debug!(connection = %sink.id, %error, "cannot shut down");
                }
                return;
            }
            match cx.stack.receive(cx.now, source.id, PIECE) {
                Ok(Received::Data(bytes)) => {
                    source.received += bytes.len() as u64;
                    sink.pending.push_back(bytes);
                }
                Ok(Received::Empty) => return,
                Ok(Received::End) => source.read_ended = true,
                // Its end is being reported.
                Err(_) => return,
            }
        }
    }

    /// The splice is over. With an error, the other connection is reset, as an application would see it
    /// without us.
    fn finish(&mut self, cx: &mut Context<'_>, id: SpliceId, error: Option<(usize, ConnectionError)>) {
        let Some(splice) = self.all.remove(&id) else { return };
        let ids = splice.halves.each_ref().map(|h| h.id);
        let mptcp = ids.map(|id| cx.stack.info(id).and_then(|info| spoken(&info.mptcp)));
        for half in &splice.halves {
            self.members.remove(&half.id);
            if !half.ended {
                cx.stack.abort(cx.now, half.id);
            }
            cx.stack.close(cx.now, half.id);
        }
        let outcome = Outcome { moved: splice.halves.map(|h| h.received), error };
        match splice.done {
            // Nobody may be waiting.
            Some(done) => drop(done.send(outcome)),
            None => self.ended.push(Ended { ids, outcome, mptcp }),
        }
    }

    /// Ends the pair of a connection by resetting both. False: it is none of a pair.
    pub(super) fn abort(&mut self, cx: &mut Context<'_>, connection: ConnectionId) -> bool {
        let Some(&(id, side)) = self.members.get(&connection) else { return false };
        self.finish(cx, id, Some((side, ConnectionError::Aborted)));
        true
    }

    /// Resets every pair, and adds up what could not be delivered.
    pub(super) fn abort_all(&mut self, cx: &mut Context<'_>, lost: &mut Undelivered) {
        let ids: Vec<SpliceId> = self.all.keys().copied().collect();
        for id in ids {
            for half in self.all.get(&id).iter().flat_map(|s| &s.halves) {
                let pending: usize = half.pending.iter().map(Bytes::len).sum();
                lost.add(pending as u64 + in_stack(cx, half.id));
            }
            self.finish(cx, id, Some((0, ConnectionError::Aborted)));
        }
    }

    /// Pairs of the worker's own that have ended since this was asked last.
    pub(super) fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// The pair that a connection belongs to, and what has come from each so far.
    pub(super) fn look(&self, connection: ConnectionId) -> Option<([ConnectionId; 2], [u64; 2])> {
        let (id, _) = self.members.get(&connection)?;
        let halves = &self.all.get(id)?.halves;
        Some((halves.each_ref().map(|h| h.id), halves.each_ref().map(|h| h.received)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The connections that are part of a pair.
    pub(super) fn connections(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        self.members.keys().copied()
    }
}

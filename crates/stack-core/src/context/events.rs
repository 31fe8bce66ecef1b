//! Events that wait for the application.

use crate::event::Event;
use alloc::collections::VecDeque;

/// A queue that the network cannot fill without bound: see `StackConfig::max_events`.
#[derive(Debug)]
pub(super) struct Events {
    queue: VecDeque<Event>,
    max: usize,
}

impl Events {
    pub(super) fn new(max: usize) -> Self {
        // With room for none, no connection would ever be offered.
        Events { queue: VecDeque::new(), max: max.max(1) }
    }

    /// The application does not keep up: nothing more is offered to it.
    pub(super) fn is_full(&self) -> bool {
        self.queue.len() >= self.max
    }

    pub(super) fn push(&mut self, event: Event) {
        if !(self.is_full() && can_be_asked(&event)) {
            self.queue.push_back(event);
        }
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        self.queue.pop_front()
    }
}

/// The same can be learned from `Stack::info` and `Stack::subflows`, or the peer says it again. All others
/// come once in the life of a connection, or are not repeated before they have been taken; or, as for
/// Incoming, a full queue keeps them from coming up.
fn can_be_asked(event: &Event) -> bool {
    match event {
        Event::KeepAlive { .. }
        | Event::FellBack { .. }
        | Event::SubflowEstablished { .. }
        | Event::SubflowClosed { .. }
        | Event::JoinFailed { .. } => true,
        Event::Incoming { .. }
        | Event::IncomingGone { .. }
        | Event::Connected { .. }
        | Event::Readable { .. }
        | Event::Writable { .. }
        | Event::Closed { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Traffic;
    use umptcp_types::{ConnectionId, PathId, SubflowId};

    #[test]
    fn a_full_queue_takes_only_what_cannot_be_asked() {
        let connection = ConnectionId(1);
        let lost = Event::SubflowClosed {
            connection,
            subflow: SubflowId(0),
            path: PathId(0),
            traffic: Traffic::default(),
            error: None,
            reset: None,
        };
        let closed = Event::Closed { connection, error: None };
        let mut events = Events::new(2);
        for event in [&lost, &lost, &lost, &closed] {
            events.push(event.clone());
        }
        assert!(events.is_full());
        assert_eq!([events.pop(), events.pop()], [Some(lost.clone()), Some(lost.clone())]);
        events.push(lost.clone());
        assert_eq!([events.pop(), events.pop(), events.pop()], [Some(closed), Some(lost), None]);
        assert!(!Events::new(0).is_full());
    }
}

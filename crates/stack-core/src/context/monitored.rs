//! Events that wait for who watches the stack.

use crate::monitor::{MonitorEvent, Monitored};
use alloc::collections::VecDeque;
use umptcp_types::Instant;

/// A queue that exists only while somebody watches, and is bounded.
#[derive(Debug, Default)]
pub(super) struct Watched {
    queue: VecDeque<Monitored>,
    /// Most that wait; 0: nobody watches.
    most: usize,
}

impl Watched {
    /// Somebody watches from now on, or (0) nobody.
    pub(super) fn watch(&mut self, most: usize) {
        self.most = most;
        if most == 0 {
            self.queue = VecDeque::new();
        }
    }

    pub(super) fn push(&mut self, at: Instant, event: impl FnOnce() -> MonitorEvent) {
        if self.most == 0 {
            return;
        }
        if self.queue.len() < self.most {
            self.queue.push_back(Monitored { at, event: event() });
        } else {
            Monitored::miss(&mut self.queue, at, 1);
        }
    }

    pub(super) fn pop(&mut self) -> Option<Monitored> {
        self.queue.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use umptcp_types::ListenerId;

    fn event(n: u32) -> MonitorEvent {
        let local = "10.0.0.1:80".parse().unwrap();
        MonitorEvent::ListenerClosed { listener: ListenerId(n), local }
    }

    #[test]
    fn what_does_not_fit_is_counted_in_its_place() {
        let mut w = Watched::default();
        w.push(Instant::ZERO, || unreachable!("nobody watches"));
        w.watch(2);
        (0..5).for_each(|n| w.push(Instant::from_millis(n.into()), || event(n)));
        assert_eq!(w.pop().unwrap().event, event(0));
        w.push(Instant::from_millis(5), || event(5));
        assert_eq!(w.pop().unwrap().event, event(1));
        let missed = MonitorEvent::Missed { events: 4 };
        assert_eq!(w.pop(), Some(Monitored { at: Instant::from_millis(2), event: missed }));
        w.push(Instant::ZERO, || event(6));
        assert_eq!(w.pop().unwrap().event, event(6));
        w.push(Instant::ZERO, || event(7));
        w.watch(0);
        assert_eq!(w.pop(), None);
    }
}

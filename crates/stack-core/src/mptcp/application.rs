//! What the application has been told and waits for, and the connection's place in the stack's queues.

use umptcp_types::Instant;

/// Events that the application has not taken yet, each at most once in the queue, and what it waits for.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    readable_queued: bool,
    writable_queued: bool,
    /// It has been told of the end of the stream.
    end_told: bool,
    /// It has tried to write more than there was room for.
    wants_room: bool,
}

impl Notices {
    /// There is something to read. True: it is to be told.
    pub(crate) fn on_readable(&mut self) -> bool {
        !core::mem::replace(&mut self.readable_queued, true)
    }

    /// The stream has ended. True: it has not been told before.
    pub(crate) fn on_end_of_stream(&mut self) -> bool {
        !core::mem::replace(&mut self.end_told, true)
    }

    /// It wrote more than there was room for.
    pub(crate) fn on_short_write(&mut self) {
        self.wants_room = true;
    }

    /// There is room in the send buffer. True: it is to be told.
    pub(crate) fn on_room(&mut self) -> bool {
        let tell = self.wants_room && !self.writable_queued;
        if tell {
            self.wants_room = false;
            self.writable_queued = true;
        }
        tell
    }

    /// It has taken the event that there is something to read.
    pub(crate) fn on_readable_taken(&mut self) {
        self.readable_queued = false;
    }

    /// It has taken the event that there is room.
    pub(crate) fn on_writable_taken(&mut self) {
        self.writable_queued = false;
    }
}

/// The connection's place in the stack's queues.
#[derive(Debug, Default)]
pub(crate) struct Attention {
    /// It is in the queue of those that may have something to send.
    ready: bool,
    /// The deadline that its entry among the timers stands for.
    armed: Option<Instant>,
}

impl Attention {
    /// It may have something to send. True: it is to be queued.
    pub(crate) fn on_ready(&mut self) -> bool {
        !core::mem::replace(&mut self.ready, true)
    }

    /// It has nothing to send, and has left the queue.
    pub(crate) fn on_served(&mut self) {
        self.ready = false;
    }

    /// Its next deadline is `at`. True: a timer is to be set.
    pub(crate) fn on_deadline(&mut self, at: Instant) -> bool {
        let earlier = self.armed.is_none_or(|armed| at < armed);
        if earlier {
            self.armed = Some(at);
        }
        earlier
    }

    /// A timer that was set for `at` stands for its next deadline.
    pub(crate) fn is_armed_for(&self, at: Instant) -> bool {
        self.armed == Some(at)
    }

    /// A timer set for `at` fired. False: another has taken its place.
    pub(crate) fn on_timer(&mut self, at: Instant) -> bool {
        let valid = self.armed == Some(at);
        if valid {
            self.armed = None;
        }
        valid
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use umptcp_types::Duration;

    #[test]
    fn each_event_is_queued_once_until_taken() {
        let mut n = Notices::default();
        assert!(n.on_readable() && !n.on_readable());
        n.on_readable_taken();
        assert!(n.on_readable());
        assert!(!n.on_room());
        n.on_short_write();
        assert!(n.on_room() && !n.on_room());
        n.on_short_write();
        assert!(!n.on_room());
        n.on_writable_taken();
        assert!(n.on_room());
        assert!(n.on_end_of_stream() && !n.on_end_of_stream());
    }

    #[test]
    fn only_the_earliest_deadline_counts() {
        let (soon, later) = (Instant::ZERO + Duration::from_secs(1), Instant::ZERO + Duration::from_secs(2));
        let mut a = Attention::default();
        assert!(a.on_deadline(later) && !a.on_deadline(later) && a.on_deadline(soon));
        assert!(!a.on_timer(later) && a.on_timer(soon) && !a.on_timer(soon));
        assert!(a.on_ready() && !a.on_ready());
        a.on_served();
        assert!(a.on_ready());
    }
}

//! The poll interface: what goes out, and when.

use super::state::Stack;
use crate::device::Transmit;
use crate::event::Event;
use alloc::vec::Vec;
use umptcp_types::Instant;

impl Stack {
    /// Fires every timer that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.ctx.expire_time_wait(now);
        self.expire_pending(now);
        self.look_at_paths(now);
        self.look_at_memory(now);
        // Bounded: a connection that asks for the present again is served next time.
        let mut due = Vec::new();
        while let Some((at, id)) = self.timers.pop_due(now) {
            if let Some(c) = self.connections.get_mut(&id)
                && c.on_timer(at)
            {
                due.push(id);
            }
        }
        for id in due {
            if let Some(c) = self.connections.get_mut(&id) {
                if c.next_deadline().is_some_and(|d| d <= now) {
                    c.handle_timeout(&mut self.ctx, now);
                }
                self.touched(id);
            }
        }
    }

    /// Memory is full, or was a moment ago: looks at what connections hold.
    fn look_at_memory(&mut self, now: Instant) {
        if self.ctx.memory_deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        let mut waits = false;
        for id in self.sorted_connections() {
            let Some(c) = self.connections.get_mut(&id) else { continue };
            let looked = c.look_at_memory(&mut self.ctx, now);
            waits |= looked == Some(false);
            if looked == Some(true) {
                self.touched(id);
            }
        }
        self.ctx.memory_looked_at(now, waits);
    }

    /// The next packet to send. Call until `None`.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        if let Some(t) = self.ctx.pop_control() {
            self.on_transmit(now, &t, None);
            return Some(t);
        }
        while let Some(id) = self.ready.pop() {
            let Some(c) = self.connections.get_mut(&id) else { continue };
            if let Some(t) = c.poll_transmit(&mut self.ctx, now) {
                self.ready.push(id);
                self.on_transmit(now, &t, Some(id));
                return Some(t);
            }
            let opened = c.on_served(&mut self.ctx, now);
            self.settle(id);
            if opened {
                // Their SYNs wait, and have no timer yet.
                self.touched(id);
            }
            if let Some(t) = self.ctx.pop_control() {
                self.on_transmit(now, &t, None);
                return Some(t);
            }
        }
        None
    }

    /// What the application should know. Call until `None`.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.ctx.pop_event()?;
        if let Event::Readable { connection } | Event::Writable { connection } = event
            && let Some(c) = self.connections.get_mut(&connection)
        {
            c.on_event_taken(&event);
        }
        Some(event)
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called; may be earlier than needed, never later.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let [timers, looks, memory] =
            [self.timers.next(), self.looks.next_deadline(), self.ctx.memory_deadline()];
        let deadlines =
            [timers, self.ctx.time_wait_deadline(), looks, self.listeners.next_deadline(), memory];
        deadlines.into_iter().flatten().min()
    }
}

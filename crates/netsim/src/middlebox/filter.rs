//! Boxes that limit other boxes, or only drop.

use super::interface::{Middlebox, Output};
use crate::direction::Direction;
use crate::packet::Packet;
use std::fmt;
use umptcp_types::Instant;

/// A middlebox for one direction: what goes the other way passes untouched.
#[derive(Debug)]
pub struct OneWay<M> {
    /// The direction the box sees.
    pub direction: Direction,
    /// The box.
    pub inner: M,
}

impl<M: Middlebox> Middlebox for OneWay<M> {
    fn process(&mut self, now: Instant, direction: Direction, packet: Packet, out: &mut Output) {
        if direction == self.direction {
            self.inner.process(now, direction, packet, out);
        } else {
            out.send(direction, packet);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.inner.next_deadline()
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut Output) {
        self.inner.handle_timeout(now, out);
    }
}

/// A middlebox that begins at some instant: before, everything passes untouched.
#[derive(Debug)]
pub struct Since<M> {
    /// When it begins.
    pub at: Instant,
    /// The box.
    pub inner: M,
}

impl<M: Middlebox> Middlebox for Since<M> {
    fn process(&mut self, now: Instant, direction: Direction, packet: Packet, out: &mut Output) {
        if now >= self.at {
            self.inner.process(now, direction, packet, out);
        } else {
            out.send(direction, packet);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.inner.next_deadline()
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut Output) {
        self.inner.handle_timeout(now, out);
    }
}

/// Drops the packets for which a function says so: for tests that lose one particular packet.
pub struct DropIf<F> {
    predicate: F,
    /// Packets dropped so far.
    pub dropped: u64,
}

impl<F: FnMut(Instant, Direction, &Packet) -> bool + Send> DropIf<F> {
    /// Drops what `predicate` is true of.
    pub fn new(predicate: F) -> Self {
        DropIf { predicate, dropped: 0 }
    }
}

impl<F> fmt::Debug for DropIf<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DropIf({} dropped)", self.dropped)
    }
}

impl<F: FnMut(Instant, Direction, &Packet) -> bool + Send> Middlebox for DropIf<F> {
    fn process(&mut self, now: Instant, direction: Direction, packet: Packet, out: &mut Output) {
        if (self.predicate)(now, direction, &packet) {
            self.dropped += 1;
        } else {
            out.send(direction, packet);
        }
    }
}

//! Devices in the middle that look into packets and change them.
//!
//! | box | what it does |
//! |---|---|
//! | [`StripMptcp`] | removes options: from SYNs, from the rest, of one subtype |
//! | [`Nat`] | translates addresses and ports; forgets mappings that are idle, or all at once |
//! | [`RandomiseSequence`] | replaces initial sequence numbers |
//! | [`SplitSegments`], [`JoinSegments`] | cut and join segments, with three fates of their options |
//! | [`RewritePayload`] | replaces bytes of the stream by as many, fewer or more |
//! | [`AcknowledgingProxy`] | acknowledges in the receiver's place, and may not deliver |
//! | [`DuplicateOptions`] | puts every option into the header twice |
//! | [`InjectReset`] | forges RSTs with exact, near and blind aim |
//! | [`Reorder`], [`Duplicate`] | hold packets back, send them twice |
//! | [`DropIf`] | drops the packets that a function chooses |
//!
//! [`OneWay`] limits a box to one direction, [`Since`] to the time from some instant on; boxes on one cable form a chain.

mod disorder;
mod edit;
mod nat;
mod proxy;
mod reset;
mod rewrite;
mod segments;
mod sequence;
mod strip;
#[cfg(test)]
mod tests;

pub use disorder::{Duplicate, DuplicateOptions, Reorder};
pub use nat::Nat;
pub use proxy::AcknowledgingProxy;
pub use reset::{Aim, InjectReset};
pub use rewrite::RewritePayload;
pub use segments::{JoinSegments, Options, SplitSegments};
pub use sequence::RandomiseSequence;
pub use strip::{StripMptcp, StripWhere};

use crate::cable::Direction;
use crate::packet::Packet;
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use umptcp_types::Instant;

/// A TCP connection as a box knows it: the end that forward packets come from, and the other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Flow {
    near: SocketAddr,
    far: SocketAddr,
}

impl Flow {
    /// The connection of a packet that goes `direction`; `None` when it is not TCP.
    pub(crate) fn of(packet: &Packet, direction: Direction) -> Option<Flow> {
        let (source, destination) = (packet.tcp_source()?, packet.tcp_destination()?);
        Some(match direction {
            Direction::Forward => Flow { near: source, far: destination },
            Direction::Reverse => Flow { near: destination, far: source },
        })
    }
}

/// Something on a cable that sees every packet, both ways.
///
/// It stands at the cable's first end: packets going [`Direction::Forward`] meet it before the link's queue, those going
/// [`Direction::Reverse`] after the wire. It sees packets of the MTU, never larger segments. Several form a chain; a box
/// that is to see one direction only is wrapped in [`OneWay`].
pub trait Middlebox: fmt::Debug + Send {
    /// A packet comes by. What is to go on is given to `out`; what is not is dropped.
    fn process(&mut self, now: Instant, direction: Direction, packet: Packet, out: &mut Output);

    /// When [`Middlebox::handle_timeout`] is to be called, for boxes that hold packets or make their own.
    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// The time of [`Middlebox::next_deadline`] has come.
    fn handle_timeout(&mut self, _now: Instant, _out: &mut Output) {}
}

impl<M: Middlebox + ?Sized> Middlebox for Box<M> {
    fn process(&mut self, now: Instant, direction: Direction, packet: Packet, out: &mut Output) {
        (**self).process(now, direction, packet, out);
    }

    fn next_deadline(&self) -> Option<Instant> {
        (**self).next_deadline()
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut Output) {
        (**self).handle_timeout(now, out);
    }
}

/// Where a middlebox puts what goes on.
#[derive(Debug, Default)]
pub struct Output {
    pub(crate) packets: VecDeque<(Direction, Packet)>,
}

impl Output {
    /// Sends `packet` on its way from this box in `direction`: a box may also answer, or forge packets, the other way.
    pub fn send(&mut self, direction: Direction, packet: Packet) {
        self.packets.push_back((direction, packet));
    }
}

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

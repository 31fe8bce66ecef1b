//! What a middlebox is.

use crate::direction::Direction;
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
/// It stands at the cable's first end: packets going [`Direction::Forward`] meet it before the link's queue,
/// those going [`Direction::Reverse`] after the wire. It sees packets of the MTU, never larger segments.
/// Several form a chain; a box that is to see one direction only is wrapped in [`OneWay`](super::OneWay).
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
    /// Sends `packet` on its way from this box in `direction`: a box may also answer, or forge packets, the
    /// other way.
    pub fn send(&mut self, direction: Direction, packet: Packet) {
        self.packets.push_back((direction, packet));
    }

    /// Takes the first of what the box has sent: for a harness that carries packets itself.
    pub fn take(&mut self) -> Option<(Direction, Packet)> {
        self.packets.pop_front()
    }
}

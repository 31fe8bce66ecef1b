//! Devices in the middle that look into packets and change them.

use crate::cable::Direction;
use crate::packet::{OPTION_MPTCP, Packet, flags};
use std::collections::VecDeque;
use std::fmt;
use umptcp_types::Instant;

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

/// From which packets [`StripMptcp`] takes the option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StripWhere {
    /// Those with SYN set, as firewalls do that "normalise" handshakes.
    Syn,
    /// Those with SYN and not ACK set: the peer's answer keeps what it says.
    InitialSyn,
    /// Those with SYN and ACK set.
    SynAck,
    /// All but those with SYN set.
    AfterSyn,
    /// All.
    Everything,
}

/// Removes MPTCP options: replaces them by NOPs, or shortens the header.
#[derive(Clone, Debug)]
pub struct StripMptcp {
    /// From which packets.
    pub which: StripWhere,
    /// Overwrite the option with NOPs (as Linux's `nft … reset tcp option mptcp` does) instead of shortening the header.
    pub overwrite: bool,
    /// Options removed so far.
    pub removed: u64,
}

impl StripMptcp {
    /// Strips from `which` packets, overwriting with NOPs.
    pub fn new(which: StripWhere) -> Self {
        StripMptcp { which, overwrite: true, removed: 0 }
    }

    fn applies(&self, bits: u8) -> bool {
        let (syn, ack) = (bits & flags::SYN != 0, bits & flags::ACK != 0);
        match self.which {
            StripWhere::Syn => syn,
            StripWhere::InitialSyn => syn && !ack,
            StripWhere::SynAck => syn && ack,
            StripWhere::AfterSyn => !syn,
            StripWhere::Everything => true,
        }
    }
}

impl Middlebox for StripMptcp {
    fn process(&mut self, _now: Instant, direction: Direction, mut packet: Packet, out: &mut Output) {
        let found =
            packet.tcp().filter(|t| self.applies(t.flags())).map_or(0, |t| t.mptcp_subtypes().count());
        if found > 0 {
            self.removed += found as u64;
            let mut options = Vec::with_capacity(40);
            for (kind, bytes) in packet.tcp().into_iter().flat_map(|t| t.option_list()) {
                if kind != OPTION_MPTCP {
                    options.extend_from_slice(bytes);
                } else if self.overwrite {
                    options.resize(options.len() + bytes.len(), 1);
                }
            }
            packet.set_tcp_options(&options);
        }
        out.send(direction, packet);
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

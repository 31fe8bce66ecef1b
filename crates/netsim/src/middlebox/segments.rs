//! Boxes that cut and join segments without regard to their options.

use super::interface::{Flow, Middlebox, Output};
use crate::direction::Direction;
use crate::packet::Packet;
use umptcp_stack_core::wire::tcp::{TcpPacket, kind};
use umptcp_types::{Duration, Instant};

/// What becomes of MPTCP options when segments are cut or joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Options {
    /// Every piece carries them, as from a NIC (TSO). Of joined segments the first one's stay, and only such
    /// are joined as carry the same (GRO).
    Copied,
    /// The first piece alone carries them; of joined segments the first one's stay, whatever the others
    /// carried.
    First,
    /// They are removed.
    Dropped,
}

/// Cuts payload into smaller segments.
#[derive(Clone, Debug)]
pub struct SplitSegments {
    /// Most payload bytes of a piece.
    pub size: usize,
    /// What the pieces carry.
    pub options: Options,
    /// Segments cut so far.
    pub cut: u64,
}

impl SplitSegments {
    /// Cuts into pieces of `size` bytes.
    pub fn new(size: usize, options: Options) -> Self {
        SplitSegments { size: size.max(1), options, cut: 0 }
    }
}

impl Middlebox for SplitSegments {
    fn process(&mut self, _now: Instant, direction: Direction, packet: Packet, out: &mut Output) {
        if packet.tcp().is_none() || packet.payload().len() <= self.size {
            return out.send(direction, packet);
        }
        self.cut += 1;
        let mut rest = packet;
        let mut first = true;
        while rest.payload().len() > self.size {
            let (mut piece, tail) = rest.halve(self.size);
            if self.options == Options::Dropped || (self.options == Options::First && !first) {
                piece.remove_options(kind::MPTCP);
            }
            out.send(direction, piece);
            rest = tail;
            first = false;
        }
        if self.options != Options::Copied {
            rest.remove_options(kind::MPTCP);
        }
        out.send(direction, rest);
    }
}

/// Joins segments that follow one another, and holds each for a while in the hope of another.
#[derive(Debug)]
pub struct JoinSegments {
    /// Most payload bytes of a joined segment: no more than the link carries.
    pub size: usize,
    /// How long a segment waits for the next.
    pub wait: Duration,
    /// What is kept.
    pub options: Options,
    /// Segments that went into another so far.
    pub joined: u64,
    held: Vec<(Instant, Direction, Flow, Packet)>,
}

impl JoinSegments {
    /// Joins up to `size` bytes, waiting up to `wait`.
    pub fn new(size: usize, wait: Duration, options: Options) -> Self {
        JoinSegments { size, wait, options, joined: 0, held: Vec::new() }
    }

    fn fits(&self, held: &Packet, next: &Packet) -> bool {
        let (Some(a), Some(b)) = (held.tcp(), next.tcp()) else { return false };
        let length = held.payload().len();
        let mptcp = |tcp: &TcpPacket<'_>| -> Vec<u8> {
            let options = tcp.raw_options().for_forwarding().flatten();
            options
                .filter(|option| option.kind == kind::MPTCP)
                .flat_map(|option| option.bytes.to_vec())
                .collect()
        };
        let flags = b.flags();
        a.seq().wrapping_add(length as u32) == b.seq()
            && length + next.payload().len() <= self.size
            && !next.payload().is_empty()
            && !(flags.syn || flags.rst || flags.urg)
            && (self.options != Options::Copied || mptcp(&a) == mptcp(&b))
    }
}

impl Middlebox for JoinSegments {
    fn process(&mut self, now: Instant, direction: Direction, mut packet: Packet, out: &mut Output) {
        let Some(flow) = Flow::of(&packet, direction) else { return out.send(direction, packet) };
        let held = self.held.iter().position(|(_, d, f, _)| *d == direction && *f == flow);
        if let Some(i) = held {
            let (since, _, _, first) = self.held.remove(i);
            if self.fits(&first, &packet) {
                self.joined += 1;
                let joined = first.append(&packet);
                let done = packet.tcp().is_some_and(|t| t.flags().fin || t.flags().psh);
                if done {
                    return out.send(direction, joined);
                }
                self.held.push((since, direction, flow, joined));
                return;
            }
            out.send(direction, first);
        }
        if self.options == Options::Dropped && packet.tcp().is_some_and(|t| !t.flags().syn) {
            packet.remove_options(kind::MPTCP);
        }
        let flags = packet.tcp().map(|tcp| tcp.flags());
        let waits = flags.is_some_and(|flags| !(flags.syn || flags.rst || flags.fin));
        if waits && !packet.payload().is_empty() {
            self.held.push((now, direction, flow, packet));
        } else {
            out.send(direction, packet);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.held.iter().map(|(since, ..)| *since + self.wait).min()
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut Output) {
        let wait = self.wait;
        for (since, direction, flow, packet) in std::mem::take(&mut self.held) {
            if since + wait <= now {
                out.send(direction, packet);
            } else {
                self.held.push((since, direction, flow, packet));
            }
        }
    }
}

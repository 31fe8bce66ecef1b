//! Boxes that hold packets back, or send them twice.

use super::interface::{Middlebox, Output};
use crate::direction::Direction;
use crate::packet::Packet;
use umptcp_stack_core::wire::tcp::kind;
use umptcp_types::{Duration, Instant};

/// Holds back every nth packet for a while, so that others overtake it.
#[derive(Debug)]
pub struct Reorder {
    /// Every how many packets, in each direction.
    pub every: u64,
    /// For how long.
    pub hold: Duration,
    seen: [u64; 2],
    held: Vec<(Instant, Direction, Packet)>,
}

impl Reorder {
    /// Holds one packet of `every` for `hold`.
    pub fn new(every: u64, hold: Duration) -> Self {
        Reorder { every: every.max(1), hold, seen: [0; 2], held: Vec::new() }
    }
}

impl Middlebox for Reorder {
    fn process(&mut self, now: Instant, direction: Direction, packet: Packet, out: &mut Output) {
        let seen = &mut self.seen[direction as usize];
        *seen += 1;
        if seen.is_multiple_of(self.every) {
            self.held.push((now + self.hold, direction, packet));
        } else {
            out.send(direction, packet);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.held.iter().map(|(until, ..)| *until).min()
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut Output) {
        for (until, direction, packet) in std::mem::take(&mut self.held) {
            if until <= now {
                out.send(direction, packet);
            } else {
                self.held.push((until, direction, packet));
            }
        }
    }
}

/// Sends every nth packet twice.
#[derive(Clone, Debug)]
pub struct Duplicate {
    /// Every how many packets, in each direction.
    pub every: u64,
    seen: [u64; 2],
}

impl Duplicate {
    /// Doubles one packet of `every`.
    pub fn new(every: u64) -> Self {
        Duplicate { every: every.max(1), seen: [0; 2] }
    }
}

impl Middlebox for Duplicate {
    fn process(&mut self, _now: Instant, direction: Direction, packet: Packet, out: &mut Output) {
        let seen = &mut self.seen[direction as usize];
        *seen += 1;
        if seen.is_multiple_of(self.every) {
            out.send(direction, packet.clone());
        }
        out.send(direction, packet);
    }
}

/// Puts every MPTCP option into the header twice where there is room: the receiver must not act on it twice.
#[derive(Clone, Debug, Default)]
pub struct DuplicateOptions {
    /// Headers changed so far.
    pub changed: u64,
}

impl Middlebox for DuplicateOptions {
    fn process(&mut self, _now: Instant, direction: Direction, mut packet: Packet, out: &mut Output) {
        let doubled = packet.tcp().map(|tcp| {
            let mut options = Vec::with_capacity(80);
            let kept = tcp.raw_options().for_forwarding().flatten();
            for option in kept.filter(|option| option.kind != kind::NOP) {
                options.extend_from_slice(option.bytes);
                if option.kind == kind::MPTCP {
                    options.extend_from_slice(option.bytes);
                }
            }
            (options, tcp.mptcp_subtypes().count() > 0)
        });
        if let Some((options, true)) = doubled
            && options.len() <= 40
        {
            self.changed += 1;
            packet.set_tcp_options(&options);
        }
        out.send(direction, packet);
    }
}

//! Firewalls that replace initial sequence numbers.

use super::interface::{Flow, Middlebox, Output};
use crate::direction::Direction;
use crate::packet::Packet;
use std::collections::HashMap;
use umptcp_types::Instant;

/// Adds a number of its own to the sequence numbers of each direction of each connection, and takes it off
/// acknowledgements and SACK blocks. RFC 8684 §3.3.1 has subflow sequence numbers relative because of such
/// boxes.
///
/// A connection whose SYN it has not seen passes untouched.
#[derive(Debug)]
pub struct RandomiseSequence {
    /// Leave SACK blocks as they are, as some old firewalls did.
    pub ignore_sack: bool,
    seed: u32,
    /// What is added to the sequence numbers of each direction.
    offsets: HashMap<Flow, [u32; 2]>,
}

impl RandomiseSequence {
    /// Draws its offsets from `seed`.
    pub fn new(seed: u32) -> Self {
        RandomiseSequence { ignore_sack: false, seed, offsets: HashMap::new() }
    }

    fn draw(&mut self) -> u32 {
        // A full-period generator; every offset differs from 0 in practice.
        self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.seed ^ 0x5bd1_e995
    }
}

impl Middlebox for RandomiseSequence {
    fn process(&mut self, _now: Instant, direction: Direction, mut packet: Packet, out: &mut Output) {
        let (Some(flow), Some(tcp)) = (Flow::of(&packet, direction), packet.tcp()) else {
            return out.send(direction, packet);
        };
        let flags = tcp.flags();
        if flags.syn && !flags.ack && !self.offsets.contains_key(&flow) {
            let fresh = [self.draw(), self.draw()];
            self.offsets.insert(flow, fresh);
        }
        if let Some(offsets) = self.offsets.get(&flow) {
            let own = offsets[direction as usize];
            let peer = offsets[direction.opposite() as usize];
            let sack = !self.ignore_sack;
            packet.translate(|seq| seq.wrapping_add(own), |ack| ack.wrapping_sub(peer), sack);
        }
        out.send(direction, packet);
    }
}

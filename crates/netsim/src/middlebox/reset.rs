//! Attackers that inject resets.

use super::interface::{Flow, Middlebox, Output};
use crate::direction::Direction;
use crate::packet::Packet;
use std::collections::HashSet;
use umptcp_stack_core::payload::Payload;
use umptcp_stack_core::wire::tcp::TcpFlags;
use umptcp_types::{Instant, SeqNumber};

/// How much the attacker knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aim {
    /// It sees the packets: the sequence number is the next expected, and the reset counts (RFC 5961 §3.2).
    Exact,
    /// It hits the window but not the number: a challenge ACK is all it gets (RFC 5961 §3.2).
    InWindow,
    /// It guesses: the packet is dropped.
    Blind,
}

/// Sends a RST after a number of packets with payload of each connection went by, as if it came from their
/// sender.
#[derive(Debug)]
pub struct InjectReset {
    /// Which packets count, and whose sender the RST seems to come from.
    pub direction: Direction,
    /// How good the attacker's aim is.
    pub aim: Aim,
    /// How many packets with payload go by first.
    pub after: u64,
    /// RSTs sent so far.
    pub sent: u64,
    seen: u64,
    done: HashSet<Flow>,
}

impl InjectReset {
    /// Resets once per connection, after `after` packets with payload in `direction`, counted over all
    /// connections.
    pub fn new(direction: Direction, aim: Aim, after: u64) -> Self {
        InjectReset { direction, aim, after, sent: 0, seen: 0, done: HashSet::new() }
    }
}

impl Middlebox for InjectReset {
    fn process(&mut self, _now: Instant, direction: Direction, packet: Packet, out: &mut Output) {
        if let (Some(flow), Some(tcp)) = (Flow::of(&packet, direction), packet.tcp())
            && tcp.flags().syn
        {
            // Another connection of the same ports.
            self.done.remove(&flow);
        }
        let forged = match (Flow::of(&packet, direction), packet.tcp()) {
            (Some(flow), Some(tcp)) if direction == self.direction && !packet.payload().is_empty() => {
                self.seen += 1;
                (self.seen > self.after && self.done.insert(flow)).then(|| {
                    let next = tcp.seq().wrapping_add(packet.payload().len() as u32);
                    let seq = match self.aim {
                        Aim::Exact => next,
                        Aim::InWindow => next.wrapping_add(1_000),
                        Aim::Blind => SeqNumber(next.0 ^ 0x8000_0000),
                    };
                    let mut forged = packet.clone();
                    forged.set_payload(Payload::new());
                    forged.set_tcp_options(&[]);
                    forged.edit_tcp(|tcp| {
                        tcp.set_seq(seq);
                        tcp.set_flags(TcpFlags::RST);
                    });
                    forged
                })
            }
            _ => None,
        };
        out.send(direction, packet);
        if let Some(forged) = forged {
            self.sent += 1;
            out.send(direction, forged);
        }
    }
}

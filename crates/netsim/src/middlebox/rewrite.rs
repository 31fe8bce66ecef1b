//! Application-level gateways that change what a connection carries.

use super::interface::{Flow, Middlebox, Output};
use crate::direction::Direction;
use crate::packet::Packet;
use std::collections::HashMap;
use umptcp_stack_core::payload::Payload;
use umptcp_types::Instant;

/// Replaces some bytes of each connection's stream, in one direction, by others.
///
/// With other bytes of the same number it is a box that patches text in place; with more or fewer it adjusts
/// sequence and acknowledgement numbers and SACK blocks from there on, as the gateway for FTP does. What is
/// retransmitted is changed in the same way, so plain TCP sees a consistent stream. MPTCP options are not
/// understood and left alone.
#[derive(Debug)]
pub struct RewritePayload {
    /// The direction whose payload is changed.
    pub direction: Direction,
    /// Position in the TCP stream of the first byte replaced; 0 is the first byte after the SYN.
    pub at: u32,
    /// How many bytes are taken out there.
    pub remove: u32,
    /// What is put there instead.
    pub insert: Vec<u8>,
    /// Packets changed so far.
    pub changed: u64,
    /// Initial sequence number of the changed direction of each connection.
    isn: HashMap<Flow, u32>,
}

impl RewritePayload {
    /// Replaces `remove` bytes at `at` by `insert` in what goes `direction`.
    pub fn new(direction: Direction, at: u32, remove: u32, insert: impl Into<Vec<u8>>) -> Self {
        RewritePayload { direction, at, remove, insert: insert.into(), changed: 0, isn: HashMap::new() }
    }

    /// What a plain TCP receiver gets of `sent`.
    pub fn applied(&self, sent: &[u8]) -> Vec<u8> {
        let at = (self.at as usize).min(sent.len());
        let after = (at + self.remove as usize).min(sent.len());
        if at == sent.len() { sent.to_vec() } else { [&sent[..at], &self.insert, &sent[after..]].concat() }
    }

    fn inserted(&self) -> u32 {
        self.insert.len() as u32
    }

    /// Where a position of the stream that was sent lies in the one that is delivered.
    fn forward(&self, position: u32) -> u32 {
        if position <= self.at {
            position
        } else if position >= self.at + self.remove {
            position - self.remove + self.inserted()
        } else {
            self.at + self.inserted()
        }
    }

    /// Where a position of the stream that is delivered lies in the one that was sent.
    fn backward(&self, position: u32) -> u32 {
        if position <= self.at {
            position
        } else if position >= self.at + self.inserted() {
            position - self.inserted() + self.remove
        } else {
            self.at
        }
    }

    /// Payload of a packet that starts at `position`, changed.
    fn payload(&self, position: u32, sent: &[u8]) -> Vec<u8> {
        let end = position + sent.len() as u32;
        let part = |from: u32, to: u32| {
            let (from, to) = (from.clamp(position, end) - position, to.clamp(position, end) - position);
            &sent[from as usize..to.max(from) as usize]
        };
        let replaced = position <= self.at && self.at < end;
        let middle: &[u8] = if replaced { &self.insert } else { &[] };
        [part(position, self.at), middle, part(self.at + self.remove, end)].concat()
    }
}

/// Whether `p`, relative to the initial sequence number, lies behind the SYN rather than far before it.
fn in_stream(p: u32) -> bool {
    (1..1 << 31).contains(&p)
}

impl Middlebox for RewritePayload {
    fn process(&mut self, _now: Instant, direction: Direction, mut packet: Packet, out: &mut Output) {
        let (Some(flow), Some(tcp)) = (Flow::of(&packet, direction), packet.tcp()) else {
            return out.send(direction, packet);
        };
        let seq = tcp.seq().0;
        if direction == self.direction && tcp.flags().syn {
            self.isn.insert(flow, seq);
        }
        let Some(isn) = self.isn.get(&flow).copied() else { return out.send(direction, packet) };
        let first = isn.wrapping_add(1);
        if direction != self.direction {
            let translate = |n: u32| {
                let p = n.wrapping_sub(isn);
                if in_stream(p) { first.wrapping_add(self.backward(p - 1)) } else { n }
            };
            packet.translate(|seq| seq, translate, true);
            return out.send(direction, packet);
        }
        let p = seq.wrapping_sub(isn);
        if !in_stream(p) {
            return out.send(direction, packet);
        }
        let position = p - 1;
        let sent = packet.payload_bytes();
        let changed = self.payload(position, &sent);
        let seq = first.wrapping_add(self.forward(position));
        packet.translate(|_| seq, |ack| ack, false);
        if changed != sent {
            self.changed += 1;
            packet.set_payload(Payload::from(bytes::Bytes::from(changed)));
        }
        // What has grown beyond the packet that came goes out as two.
        let (limit, total) = (sent.len().max(1), packet.payload().len());
        if total > limit && sent.len() > 536 {
            let (first, second) = packet.halve(limit);
            out.send(direction, first);
            out.send(direction, second);
        } else {
            out.send(direction, packet);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_of_the_stream_gives_the_same_result() {
        let sent: Vec<u8> = (0..100).collect();
        for (remove, insert) in [(5u32, &b"abc"[..]), (3, b"abcdefgh"), (4, b"wxyz"), (0, b"new"), (7, b"")] {
            let b = RewritePayload::new(Direction::Forward, 40, remove, insert);
            let expected = b.applied(&sent);
            for cut in [1, 7, 40, 41, 43, 60, 100] {
                let mut got = vec![None; expected.len()];
                for (i, piece) in sent.chunks(cut).enumerate() {
                    let position = (i * cut) as u32;
                    for (k, byte) in b.payload(position, piece).into_iter().enumerate() {
                        got[b.forward(position) as usize + k] = Some(byte);
                    }
                }
                let got: Option<Vec<u8>> = got.into_iter().collect();
                assert_eq!(got.as_ref(), Some(&expected), "{remove} by {insert:?}, cut {cut}");
            }
            assert_eq!(b.backward(b.forward(100)), 100);
            assert_eq!(b.backward(b.forward(40)), 40);
        }
    }
}

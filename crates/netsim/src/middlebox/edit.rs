//! What boxes do to packets.

use crate::packet::{Packet, flags};
use umptcp_stack_core::payload::Payload;

/// The TCP option kind of SACK blocks (RFC 2018 §3).
const SACK: u8 = 5;

fn word(b: &[u8], at: usize) -> u32 {
    b.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

impl Packet {
    /// Translates the sequence number, the acknowledgement number if the ACK flag is set, and with `sack` the edges of SACK
    /// blocks like the latter.
    pub(crate) fn translate(&mut self, seq: impl Fn(u32) -> u32, ack: impl Fn(u32) -> u32, sack: bool) {
        self.edit_tcp(|h| {
            let number = seq(word(h, 4));
            h[4..8].copy_from_slice(&number.to_be_bytes());
            if h[13] & flags::ACK == 0 {
                return;
            }
            let number = ack(word(h, 8));
            h[8..12].copy_from_slice(&number.to_be_bytes());
            if !sack {
                return;
            }
            let mut at = 20;
            while let Some(&kind) = h.get(at) {
                let len = match kind {
                    0 => return,
                    1 => 1,
                    _ => usize::from(h.get(at + 1).copied().unwrap_or(0)).max(2),
                };
                if kind == SACK {
                    for edge in (at + 2..(at + len).min(h.len())).step_by(4) {
                        let number = ack(word(h, edge));
                        if let Some(bytes) = h.get_mut(edge..edge + 4) {
                            bytes.copy_from_slice(&number.to_be_bytes());
                        }
                    }
                }
                at += len;
            }
        });
    }

    /// The payload in one piece, copied.
    pub(crate) fn payload_bytes(&self) -> Vec<u8> {
        self.payload().slices().iter().flat_map(|s| s.iter().copied()).collect()
    }

    /// Cuts after `at` bytes of payload. Both pieces keep the options; FIN and PSH stay with the second.
    pub(crate) fn halve(self, at: usize) -> (Packet, Packet) {
        let (mut first, mut second) = (self.clone(), self);
        let length = second.payload().len();
        first.set_payload(first.payload().slice(0..at.min(length)));
        first.edit_tcp(|h| h[13] &= !(flags::FIN | flags::PSH));
        second.set_payload(second.payload().slice(at.min(length)..length));
        second.translate(|seq| seq.wrapping_add(at as u32), |ack| ack, false);
        (first, second)
    }

    /// Appends the payload of `next`, and takes over its FIN and PSH, acknowledgement and window: they are newer.
    pub(crate) fn append(mut self, next: &Packet) -> Packet {
        let mut payload: Payload = self.payload().clone();
        for s in next.payload().slices() {
            payload.push(s.clone());
        }
        self.set_payload(payload);
        if let Some(tcp) = next.tcp() {
            let (ack, window) = (tcp.ack(), tcp.window());
            let last = tcp.flags() & (flags::FIN | flags::PSH);
            self.edit_tcp(|h| {
                h[8..12].copy_from_slice(&ack.to_be_bytes());
                h[14..16].copy_from_slice(&window.to_be_bytes());
                h[13] |= last;
            });
        }
        self
    }

    /// Removes the options of one kind.
    pub(crate) fn remove_options(&mut self, kind: u8) {
        let Some(tcp) = self.tcp() else { return };
        let kept: Vec<u8> =
            tcp.option_list().filter(|(k, _)| *k != kind).flat_map(|(_, o)| o.iter().copied()).collect();
        self.set_tcp_options(&kept);
    }
}

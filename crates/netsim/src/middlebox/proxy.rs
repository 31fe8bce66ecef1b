//! Boxes that answer in the receiver's place.

use super::interface::{Flow, Middlebox, Output};
use crate::direction::Direction;
use crate::packet::Packet;
use std::collections::HashMap;
use umptcp_stack_core::payload::Payload;
use umptcp_stack_core::wire::tcp::TcpFlags;
use umptcp_types::{Instant, SeqNumber};

/// Acknowledges payload going one way as soon as it sees it, as proxies that shield a long link do, and from
/// some point of the stream on fails to deliver what it has acknowledged: the reason for DATA_ACKs and for
/// the retransmission of data whose subflow sender was told that it had arrived (RFC 8684 §3.3.2, §3.3.6).
#[derive(Debug)]
pub struct AcknowledgingProxy {
    /// The direction of the payload.
    pub direction: Direction,
    /// Position in the TCP stream from which on payload is not delivered; `u32::MAX`: all is.
    pub swallow_from: u32,
    /// Payload bytes acknowledged and not delivered so far, repetitions included.
    pub swallowed: u64,
    flows: HashMap<Flow, Proxied>,
}

#[derive(Debug)]
struct Proxied {
    isn: u32,
    /// Acknowledged up to here: a sequence number.
    next: u32,
    /// What the receiver last said: acknowledgement of the other direction's is its sequence number.
    receiver_seq: u32,
    window: u16,
}

impl AcknowledgingProxy {
    /// Acknowledges what goes `direction`, delivers none of it from `swallow_from` on.
    pub fn new(direction: Direction, swallow_from: u32) -> Self {
        AcknowledgingProxy { direction, swallow_from, swallowed: 0, flows: HashMap::new() }
    }
}

impl Middlebox for AcknowledgingProxy {
    fn process(&mut self, _now: Instant, direction: Direction, mut packet: Packet, out: &mut Output) {
        let (Some(flow), Some(tcp)) = (Flow::of(&packet, direction), packet.tcp()) else {
            return out.send(direction, packet);
        };
        let (seq, flags) = (tcp.seq().0, tcp.flags());
        if direction == self.direction && flags.syn {
            let next = seq.wrapping_add(1);
            let fresh = Proxied { isn: seq, next, receiver_seq: tcp.ack().0, window: 0xffff };
            self.flows.entry(flow).or_insert(fresh);
            return out.send(direction, packet);
        }
        let Some(p) = self.flows.get_mut(&flow).filter(|_| !(flags.syn || flags.rst)) else {
            return out.send(direction, packet);
        };
        if direction != self.direction {
            let length = packet.payload().len() as u32 + u32::from(flags.fin);
            p.receiver_seq = seq.wrapping_add(length);
            p.window = tcp.window();
            // What the proxy acknowledged stays acknowledged.
            let next = p.next;
            packet.translate(
                |s| s,
                |ack| if (ack.wrapping_sub(next) as i32) < 0 { next } else { ack },
                false,
            );
            return out.send(direction, packet);
        }
        let length = packet.payload().len() as u32;
        if length == 0 {
            return out.send(direction, packet);
        }
        let end = seq.wrapping_add(length);
        if (seq.wrapping_sub(p.next) as i32) <= 0 && (end.wrapping_sub(p.next) as i32) > 0 {
            p.next = end;
        }
        let (receiver_seq, next, window) = (p.receiver_seq.max(tcp.ack().0), p.next, p.window);
        let mut answer = packet.clone();
        answer.set_payload(Payload::new());
        answer.set_tcp_options(&[]);
        let (source, destination) = (packet.tcp_source(), packet.tcp_destination());
        answer.rewrite(destination, source);
        answer.edit_tcp(|tcp| {
            tcp.set_seq(SeqNumber(receiver_seq));
            tcp.set_ack(SeqNumber(next));
            tcp.set_flags(TcpFlags::ACK);
            tcp.set_window(window);
        });
        out.send(direction.opposite(), answer);
        let position = seq.wrapping_sub(p.isn).wrapping_sub(1);
        if position.saturating_add(length) > self.swallow_from {
            self.swallowed += u64::from(length);
        } else {
            out.send(direction, packet);
        }
    }
}

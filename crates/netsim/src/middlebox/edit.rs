//! What boxes do to packets.

use crate::packet::Packet;
use umptcp_stack_core::payload::Payload;
use umptcp_stack_core::wire::tcp::TcpFlags;
use umptcp_types::SeqNumber;

impl Packet {
    /// Translates the sequence number, the acknowledgment number if the ACK flag is set, and with `sack` the
    /// edges of SACK blocks as well, in the same way as the acknowledgment number.
    pub(crate) fn translate(&mut self, seq: impl Fn(u32) -> u32, ack: impl Fn(u32) -> u32, sack: bool) {
        let Some(tcp) = self.tcp() else { return };
        let (old_seq, old_ack, acknowledges) = (tcp.seq(), tcp.ack(), tcp.flags().ack);
        self.edit_tcp(|tcp| {
            tcp.set_seq(SeqNumber(seq(old_seq.0)));
            if acknowledges {
                tcp.set_ack(SeqNumber(ack(old_ack.0)));
                if sack {
                    tcp.map_sack(|edge| SeqNumber(ack(edge.0)));
                }
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
        if let Some(flags) = first.tcp().map(|tcp| tcp.flags()) {
            first.edit_tcp(|tcp| tcp.set_flags(TcpFlags { fin: false, psh: false, ..flags }));
        }
        second.set_payload(second.payload().slice(at.min(length)..length));
        second.translate(|seq| seq.wrapping_add(at as u32), |ack| ack, false);
        (first, second)
    }

    /// Appends the payload of `next`, and takes over its FIN and PSH, acknowledgement and window: they are
    /// newer.
    pub(crate) fn append(mut self, next: &Packet) -> Packet {
        let mut payload: Payload = self.payload().clone();
        for s in next.payload().slices() {
            payload.push(s.clone());
        }
        self.set_payload(payload);
        if let (Some(old), Some(new)) = (self.tcp(), next.tcp()) {
            let (flags, last) = (old.flags(), new.flags());
            self.edit_tcp(|tcp| {
                tcp.set_ack(new.ack());
                tcp.set_window(new.window());
                tcp.set_flags(TcpFlags { fin: flags.fin || last.fin, psh: flags.psh || last.psh, ..flags });
            });
        }
        self
    }

    /// Removes the options of one kind.
    pub(crate) fn remove_options(&mut self, kind: u8) {
        let Some(tcp) = self.tcp() else { return };
        let kept = tcp.raw_options().for_forwarding().flatten().filter(|option| option.kind != kind);
        let kept: Vec<u8> = kept.flat_map(|option| option.bytes.iter().copied()).collect();
        self.set_tcp_options(&kept);
    }
}

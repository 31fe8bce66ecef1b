//! What the SYNs agreed on and carried.

use super::config::MAX_WINDOW_SCALE;
use crate::wire::tcp::TcpRepr;

/// SYNs sent again at once after answering an old ACK with RST. Once is enough for a peer that holds an old
/// connection; the limit stops a peer that answers every SYN like this from making us flood it.
const SYNS_AFTER_OLD_ACK: u8 = 3;

/// The handshake of a subflow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Handshake {
    /// Payload bytes that our SYN carried, and those of them that the SYN/ACK acknowledged (RFC 7413).
    syn_data: u32,
    syn_data_acked: u32,
    /// Data of the peer's SYN were taken, and ours may follow the SYN/ACK (RFC 7413 §4.2.2).
    fast_opened: bool,
    /// SYNs sent again at once because the peer acknowledged something older.
    syns_after_old_ack: u8,
    /// Both ends can handle SACK (RFC 2018).
    sack: bool,
    /// Both ends scale windows (RFC 7323 §2).
    scaling: bool,
}

impl Handshake {
    /// The peer's SYN or SYN/ACK. Returns the scale of its windows.
    pub(super) fn on_syn(&mut self, syn: &TcpRepr) -> u8 {
        self.sack = syn.options.sack_permitted;
        self.scaling = syn.options.window_scale.is_some();
        syn.options.window_scale.unwrap_or(0).min(MAX_WINDOW_SCALE)
    }

    /// Both ends can handle SACK.
    #[inline]
    pub(super) fn sack(&self) -> bool {
        self.sack
    }

    /// Both ends scale windows.
    pub(super) fn scaling(&self) -> bool {
        self.scaling
    }

    /// Our SYN carries `n` bytes of data.
    pub(super) fn syn_carries(&mut self, n: u32) {
        self.syn_data = n;
    }

    /// How many bytes of data our SYN carried.
    pub(super) fn syn_data(&self) -> u32 {
        self.syn_data
    }

    /// The SYN/ACK acknowledged `n` of them.
    pub(super) fn on_syn_data_acked(&mut self, n: u32) {
        self.syn_data_acked = n;
    }

    /// How many of them the SYN/ACK acknowledged.
    pub(super) fn syn_data_acked(&self) -> u32 {
        self.syn_data_acked
    }

    /// Data of the peer's SYN were taken.
    pub(super) fn fast_open(&mut self) {
        self.fast_opened = true;
    }

    /// Data may follow our SYN/ACK.
    pub(super) fn fast_opened(&self) -> bool {
        self.fast_opened
    }

    /// The peer answers our SYN by acknowledging something older. True: another SYN may go at once.
    pub(super) fn on_old_ack(&mut self) -> bool {
        let again = self.syns_after_old_ack < SYNS_AFTER_OLD_ACK;
        self.syns_after_old_ack += u8::from(again);
        again
    }

    /// A SYN went again at once for that.
    pub(super) fn old_ack_seen(&self) -> bool {
        self.syns_after_old_ack > 0
    }
}

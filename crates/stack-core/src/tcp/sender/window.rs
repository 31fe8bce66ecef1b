//! The peer's window (RFC 9293 §3.10.7.4, fifth check).

use umptcp_types::SubflowOffset;

/// What the peer allows us to send on this subflow.
#[derive(Clone, Copy, Debug)]
pub(super) struct SendWindow {
    /// First offset that it does not allow.
    edge: SubflowOffset,
    /// Largest window it has offered (RFC 9293 §3.8.6.2.1).
    max: u64,
    /// SND.WL1: sequence number of the segment that the window was taken from.
    snd_wl1: SubflowOffset,
    /// SND.WL2: its acknowledgement number.
    snd_wl2: SubflowOffset,
    /// Scale of the peer's window fields (RFC 7323 §2).
    scale: u8,
}

impl SendWindow {
    /// Nothing but our SYN.
    pub(super) fn new() -> Self {
        SendWindow {
            edge: SubflowOffset(1),
            max: 0,
            snd_wl1: SubflowOffset(0),
            snd_wl2: SubflowOffset(0),
            scale: 0,
        }
    }

    /// The peer's SYN or SYN/ACK, whose own window is never scaled (RFC 7323 §2.2).
    pub(super) fn on_syn(&mut self, window: u16, scale: u8) {
        let window = u64::from(window);
        let edge = SubflowOffset(1) + window;
        *self = SendWindow { edge, max: window, scale, ..Self::new() };
    }

    /// A SYN/ACK that acknowledges up to `ack`, after [`on_syn`](Self::on_syn).
    pub(super) fn on_syn_ack(&mut self, ack: SubflowOffset, window: u16) {
        self.edge = ack + u64::from(window);
        self.snd_wl2 = ack;
    }

    /// First offset that it does not allow.
    #[inline]
    pub(super) fn edge(&self) -> SubflowOffset {
        self.edge
    }

    /// Largest window the peer has offered.
    pub(super) fn max(&self) -> u64 {
        self.max
    }

    /// The window that a window field of the peer's stands for.
    pub(super) fn scaled(&self, field: u16) -> u64 {
        u64::from(field) << self.scale
    }

    /// A segment that starts at `start` and acknowledges `ack` is newer than what the window was taken from.
    pub(super) fn is_newer(&self, start: SubflowOffset, ack: SubflowOffset) -> bool {
        start > self.snd_wl1 || (start == self.snd_wl1 && ack >= self.snd_wl2)
    }

    /// Takes the window `field` of such a segment. True: the edge moved.
    pub(super) fn take(&mut self, start: SubflowOffset, ack: SubflowOffset, field: u16) -> bool {
        let window = self.scaled(field);
        let edge = ack + window;
        let moved = self.edge != edge;
        self.max = self.max.max(window);
        self.edge = edge;
        (self.snd_wl1, self.snd_wl2) = (start, ack);
        moved
    }
}

//! The receiving half: sequence numbers, the window we offered, reassembly, the peer's FIN.

use super::outcome::Delivered;
use crate::buffers::reassembly::Reassembly;
use bytes::Bytes;
use core::ops::Range;
use smallvec::SmallVec;
use umptcp_types::{SeqNumber, SubflowOffset};

/// The receiving half of a subflow.
#[derive(Debug)]
pub(super) struct Receiver {
    /// Initial receive sequence number.
    irs: SeqNumber,
    /// RCV.NXT.
    next: SubflowOffset,
    /// First offset not covered by any window we advertised.
    edge: SubflowOffset,
    queue: Reassembly,
    /// Offset of the peer's FIN, once seen.
    fin: Option<SubflowOffset>,
    /// It is in order.
    fin_received: bool,
    /// The duplicate that the next ACK reports (RFC 2883).
    duplicate: Option<Range<SubflowOffset>>,
    /// Payload bytes received in order.
    bytes: u64,
}

/// What became of a segment's payload and FIN.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    /// It came after the peer's FIN: an old duplicate.
    pub(super) after_fin: bool,
    /// Something was missing before it, or still is.
    pub(super) out_of_order: bool,
    /// It was dropped: too many pieces are held.
    pub(super) refused: bool,
    /// The FIN is in order now.
    pub(super) fin: bool,
}

impl Receiver {
    /// Before the peer's SYN.
    pub(super) fn new() -> Self {
        Receiver {
            irs: SeqNumber(0),
            next: SubflowOffset(0),
            edge: SubflowOffset(0),
            queue: Reassembly::new(),
            fin: None,
            fin_received: false,
            duplicate: None,
            bytes: 0,
        }
    }

    /// The peer's SYN or SYN/ACK, with its sequence number.
    pub(super) fn on_syn(&mut self, irs: SeqNumber) {
        self.irs = irs;
        self.next = SubflowOffset(1);
        self.edge = self.edge.max(SubflowOffset(1));
    }

    /// The SYN carried `n` bytes, which are accepted (RFC 7413).
    pub(super) fn on_syn_data(&mut self, n: u64) {
        self.next += n;
        self.edge = self.edge.max(self.next);
        self.bytes += n;
    }

    /// RCV.NXT.
    #[inline]
    pub(super) fn next(&self) -> SubflowOffset {
        self.next
    }

    /// First offset not covered by any window we advertised.
    pub(super) fn edge(&self) -> SubflowOffset {
        self.edge
    }

    /// The peer's FIN has come, and everything before it.
    pub(super) fn fin_received(&self) -> bool {
        self.fin_received
    }

    /// Payload bytes received in order.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that wait for those before them.
    pub(super) fn out_of_order(&self) -> u64 {
        self.queue.bytes()
    }

    /// The offset that a sequence number of the peer's stands for, near what is expected next.
    pub(super) fn offset_of(&self, seq: SeqNumber) -> Option<SubflowOffset> {
        SubflowOffset::from_wire(seq, self.irs, self.next)
    }

    /// The ACK number to send.
    pub(super) fn irs(&self) -> SeqNumber {
        self.irs
    }

    pub(super) fn wire_ack(&self) -> SeqNumber {
        self.next.to_wire(self.irs)
    }

    /// RFC 9293 §3.10.7.4, first check: table of acceptable segments.
    pub(super) fn sequence_acceptable(&self, start: SubflowOffset, len: u64) -> bool {
        let window = self.edge - self.next;
        match (len, window) {
            (0, 0) => start == self.next,
            (0, _) => self.next <= start && start <= self.edge,
            (_, 0) => false,
            _ => start < self.edge && start + len > self.next,
        }
    }

    /// A RST with the sequence number `start` is the peer's (RFC 5961 §3.2: only the exact number resets).
    ///
    /// If segments are missing, a peer that resets uses the end of what it has sent as sequence number, not
    /// what we expect next. Answering that with a challenge ACK would lose the reason that the RST gives
    /// (MP_TCPRST, MP_FAIL): the peer has forgotten the connection by then. So the end of what was received
    /// is accepted too. It gives an off-path attacker one more valid number out of 2³². Only with SACK, which
    /// has told the peer of this edge; Linux does the same.
    pub(super) fn may_reset(&self, start: SubflowOffset, sack: bool) -> bool {
        let end = match self.fin {
            Some(fin) => Some(fin + 1),
            None => self.queue.end().map(SubflowOffset),
        };
        start == self.next || (sack && end == Some(start))
    }

    /// RFC 2883 §4: the duplicate that the next ACK reports, as far as it is one: what was refused as too old
    /// (PAWS) or beyond the window was not received, and the sender would take the block for a SACK.
    pub(super) fn note_duplicate(&mut self, start: SubflowOffset, len: u64, sack: bool) {
        let end = (start + len).min(self.next);
        if sack && start < end {
            self.duplicate = Some(start..end);
        }
    }

    /// There is a duplicate to report.
    pub(super) fn has_duplicate(&self) -> bool {
        self.duplicate.is_some()
    }

    /// An ACK went out that could report the duplicate.
    pub(super) fn on_ack_sent(&mut self) {
        self.duplicate = None;
    }

    /// A segment offered `window` bytes.
    pub(super) fn on_window_sent(&mut self, window: u64) {
        self.edge = self.edge.max(self.next + window);
    }

    /// A SYN was sent before the peer's has come, with this window.
    pub(super) fn on_first_window_sent(&mut self, window: u64) {
        self.edge = self.edge.max(SubflowOffset(1) + window);
    }

    /// `window` bytes had been offered before there was any state.
    pub(super) fn offered_before(&mut self, window: u64) {
        self.edge = self.next + window;
    }

    /// RFC 9293 §3.10.7.4, seventh and eighth: payload, and the FIN if `fin`.
    pub(super) fn take(
        &mut self,
        start: SubflowOffset,
        payload: Bytes,
        fin: bool,
        sack: bool,
        delivered: &mut Delivered,
    ) -> Taken {
        let mut taken = Taken::default();
        let len = payload.len() as u64;
        let end = start + len;
        if fin && self.fin.is_none() && end < self.edge + 1 {
            self.fin = Some(end);
        }
        if len > 0 && self.fin_received {
            self.note_duplicate(start, len, sack);
            taken.after_fin = true;
            return taken;
        }
        // Nothing may follow the FIN, nor lie beyond the window.
        let limit = self.fin.unwrap_or(self.edge).min(self.edge);
        let before = self.next;
        let had_holes = !self.queue.is_empty();
        if len > 0 {
            if start <= self.next && !had_holes && end <= limit {
                // The ordinary case: in order, nothing queued.
                let skip = self.next - start;
                if skip > 0 {
                    self.note_duplicate(start, skip.min(len), sack);
                }
                if skip < len {
                    delivered.push((self.next, payload.slice(skip as usize..)));
                    self.next = end;
                }
            } else {
                taken.refused = self.enqueue(start, payload, limit, sack, delivered);
            }
        }
        self.bytes += self.next - before;
        if self.fin == Some(self.next) {
            self.next += 1;
            self.edge = self.edge.max(self.next);
            self.fin_received = true;
            taken.fin = true;
        }
        taken.out_of_order = !self.queue.is_empty() || had_holes || self.next == before;
        taken
    }

    /// Puts payload in its place and takes out what is in order now. True: it was dropped for the number of
    /// pieces held.
    fn enqueue(
        &mut self,
        start: SubflowOffset,
        payload: Bytes,
        limit: SubflowOffset,
        sack: bool,
        delivered: &mut Delivered,
    ) -> bool {
        let inserted = self.queue.insert(self.next.0, start.0, payload, limit.0);
        if let Some(d) = inserted.duplicate
            && sack
        {
            self.duplicate = Some(SubflowOffset(d.start)..SubflowOffset(d.end));
        }
        while let Some(bytes) = self.queue.pop(self.next.0) {
            let at = self.next;
            self.next += bytes.len() as u64;
            delivered.push((at, bytes));
        }
        inserted.refused
    }

    /// The subflow has ended: what is out of order will never be read.
    pub(super) fn discard(&mut self) {
        self.queue.clear();
    }

    /// At most `max` SACK blocks, a D-SACK first (RFC 2018 §3, RFC 2883 §4).
    pub(super) fn sack_blocks(&self, max: usize) -> SmallVec<[(SeqNumber, SeqNumber); 4]> {
        let mut blocks = SmallVec::new();
        let wire = |o: SubflowOffset| o.to_wire(self.irs);
        if max > 0
            && let Some(d) = &self.duplicate
        {
            blocks.push((wire(d.start), wire(d.end)));
        }
        for r in self.queue.sack_blocks(max.saturating_sub(blocks.len())) {
            blocks.push((wire(SubflowOffset(r.start)), wire(SubflowOffset(r.end))));
        }
        blocks
    }

    /// There is something to report by SACK.
    pub(super) fn has_sack_blocks(&self) -> bool {
        !self.queue.is_empty() || self.duplicate.is_some()
    }

    /// How many blocks there are to report.
    pub(super) fn sack_count(&self) -> usize {
        usize::from(self.duplicate.is_some()) + self.queue.sack_blocks(4).len()
    }
}

//! The struct, and what was sent.

use super::episode::Recovery;
use super::parts::{Outgoing, Segment, Sent, Transmission};
use super::rack::Rack;
use super::undo::Undo;
use crate::buffers::give_back::give_back;
use crate::buffers::ranges::{RangeMap, RangeSet};
use crate::types::{Instant, SubflowOffset};
use alloc::collections::VecDeque;
use core::fmt::Debug;
use core::ops::Range;

/// Until [`Scoreboard::set_mss`] says otherwise: an Ethernet's, IPv4 without options.
const DEFAULT_MSS: u32 = 1_460;

/// The send side of one subflow between SND.UNA and SND.NXT. See the documentation of [the module](super).
///
/// `M` is a tag kept with each segment: the MPTCP mapping declared for its bytes.
///
/// Order of calls per ACK: [`on_ack`](Self::on_ack), then [`detect_loss`](Self::detect_loss).
#[derive(Clone, Debug)]
pub(in crate::tcp) struct Scoreboard<M> {
    pub(super) una: u64,
    pub(super) nxt: u64,
    /// In order of sequence, adjoining, the first contains `una`.
    pub(super) segments: VecDeque<Segment<M>>,
    /// In order of `tx.id`; the front has a live byte.
    pub(super) sent: VecDeque<Sent>,
    pub(super) next_tx: u64,
    /// The four sets hold positions in `una..nxt` only; `sacked`, `lost` and `resent` are disjoint.
    pub(super) sacked: RangeSet,
    pub(super) lost: RangeSet,
    /// Retransmitted and in flight: the latest transmission.
    pub(super) resent: RangeMap<Transmission>,
    /// Ever retransmitted, whatever its state now (Karn's rule).
    pub(super) retransmitted: RangeSet,
    pub(super) last_sent: Option<Instant>,
    pub(super) mss: u32,
    /// Most segments at once since nothing was outstanding last, and how many are expected the next time.
    peak: u16,
    expected: u16,
    pub(super) rack: Rack,
    pub(super) recovery: Recovery,
    pub(super) undo: Undo,
}

impl<M: Clone + Debug> Default for Scoreboard<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Clone + Debug> Scoreboard<M> {
    /// Nothing sent: the next offset is the SYN's, 0.
    pub(in crate::tcp) fn new() -> Self {
        Scoreboard {
            una: 0,
            nxt: 0,
            segments: VecDeque::new(),
            sent: VecDeque::new(),
            next_tx: 0,
            sacked: RangeSet::new(),
            lost: RangeSet::new(),
            resent: RangeMap::new(),
            retransmitted: RangeSet::new(),
            last_sent: None,
            mss: DEFAULT_MSS,
            peak: 0,
            expected: 0,
            rack: Rack::new(),
            recovery: Recovery::default(),
            undo: Undo::new(),
        }
    }

    /// Segments that are not acknowledged.
    pub(in crate::tcp) fn unacked_segments(&self) -> usize {
        self.segments.len()
    }

    /// Sets the sender maximum segment size, by which "three segments SACKed" is judged.
    pub(in crate::tcp) fn set_mss(&mut self, mss: u32) {
        self.mss = mss.max(1);
    }

    /// Lowest offset not cumulatively acknowledged (SND.UNA).
    pub(in crate::tcp) fn una(&self) -> SubflowOffset {
        SubflowOffset(self.una)
    }

    /// Next offset to be used for new data (SND.NXT).
    pub(in crate::tcp) fn nxt(&self) -> SubflowOffset {
        SubflowOffset(self.nxt)
    }

    /// Bytes believed to be in the network: neither acknowledged nor SACKed nor lost. Lost bytes count again
    /// once retransmitted.
    pub(in crate::tcp) fn in_flight(&self) -> u64 {
        self.nxt - self.una - self.sacked.total() - self.lost.total()
    }

    /// Everything sent was cumulatively acknowledged.
    pub(in crate::tcp) fn is_empty(&self) -> bool {
        self.una == self.nxt
    }

    /// Bytes lost and not retransmitted since.
    pub(in crate::tcp) fn lost_bytes(&self) -> u64 {
        self.lost.total()
    }

    /// Bytes SACKed above the cumulative acknowledgement.
    pub(in crate::tcp) fn sacked_bytes(&self) -> u64 {
        self.sacked.total()
    }

    /// When the earliest transmission was made of which some byte is still in flight.
    pub(in crate::tcp) fn oldest_sent(&self) -> Option<Instant> {
        self.sent.front().map(|s| s.tx.at)
    }

    /// When something was last sent or retransmitted.
    pub(in crate::tcp) fn last_sent(&self) -> Option<Instant> {
        self.last_sent
    }

    /// Records what was sent at [`nxt`](Self::nxt) and returns the offsets it occupies. A segment with
    /// nothing in it is not recorded, and the range is empty.
    pub(in crate::tcp) fn push(&mut self, now: Instant, outgoing: Outgoing<M>) -> Range<SubflowOffset> {
        let Outgoing { payload, syn, fin, tag, app_limited } = outgoing;
        let start = self.nxt;
        let end = start + payload.len() as u64 + u64::from(syn) + u64::from(fin);
        if start < end {
            let tx = self.transmission(now);
            if self.segments.capacity() == 0 {
                // As many as the last time: growing step by step copies what is there again and again.
                let expected = usize::from(self.expected.max(1));
                self.segments.reserve_exact(expected);
                self.sent.reserve_exact(expected);
            }
            self.segments.push_back(Segment { start, end, payload, syn, fin, tag, app_limited, tx });
            self.sent.push_back(Sent { start, end, tx, first: true });
            self.nxt = end;
            self.peak = self.peak.max(u16::try_from(self.segments.len()).unwrap_or(u16::MAX));
        }
        SubflowOffset(start)..SubflowOffset(end)
    }

    /// What is not yet cumulatively acknowledged, lowest first, with its tag: the first range starts at
    /// [`una`](Self::una) even when that is inside a segment. Meant for reinjection on another subflow, not
    /// for every packet.
    pub(in crate::tcp) fn unacked_iter(&self) -> impl Iterator<Item = (Range<SubflowOffset>, &M)> + '_ {
        self.segments.iter().map(|s| (SubflowOffset(s.start.max(self.una))..SubflowOffset(s.end), &s.tag))
    }

    pub(super) fn transmission(&mut self, now: Instant) -> Transmission {
        let at = self.last_sent.map_or(now, |t| t.max(now));
        self.last_sent = Some(at);
        let id = self.next_tx;
        self.next_tx += 1;
        Transmission { id, at }
    }

    /// Index of the segment that contains `at`, which is in `una..nxt`.
    pub(super) fn segment_index(&self, at: u64) -> usize {
        self.segments.partition_point(|s| s.end <= at)
    }

    /// The lowest bytes of `sent` that are in flight by that very transmission.
    pub(super) fn live(&self, sent: &Sent) -> Option<Range<u64>> {
        let mut at = sent.start.max(self.una);
        if sent.first {
            while at < sent.end {
                let unsacked = self.sacked.first_gap(at..sent.end)?;
                at = unsacked.end;
                let Some(not_lost) = self.lost.first_gap(unsacked) else { continue };
                at = not_lost.end;
                if let Some(once) = self.retransmitted.first_gap(not_lost) {
                    return Some(once);
                }
            }
            return None;
        }
        while let Some((r, tx)) = self.resent.next_from(at).filter(|(r, _)| r.start < sent.end) {
            if tx.id == sent.tx.id {
                return Some(r.start.max(at)..r.end.min(sent.end));
            }
            at = r.end;
        }
        None
    }

    /// Drops entries without live bytes from the front of the queue. A byte that is dead for a transmission
    /// stays so, hence what was passed over once is never looked at again.
    pub(super) fn prune(&mut self) {
        while let Some(front) = self.sent.front() {
            let live = self.live(front);
            match (live, self.sent.front_mut()) {
                (Some(r), Some(front)) => {
                    front.start = r.start;
                    return;
                }
                _ => self.sent.pop_front(),
            };
        }
    }

    /// Nothing is outstanding: an idle subflow holds no memory for what it once sent.
    pub(super) fn shrink(&mut self) {
        self.prune();
        self.expected = self.peak.max(self.expected / 2);
        self.peak = 0;
        give_back(&mut self.segments);
        give_back(&mut self.sent);
    }

    /// Positions the peer may make us distinguish by SACK blocks. Each costs some tens of bytes; a peer that
    /// SACKs every second byte must not make that outgrow the data themselves.
    pub(super) fn sack_range_limit(&self) -> usize {
        256 + self.segments.len() + ((self.nxt - self.una) / 512) as usize
    }
}

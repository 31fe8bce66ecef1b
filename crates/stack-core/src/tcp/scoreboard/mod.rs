//! What was sent and not yet acknowledged, and what is known of its fate.
//!
//! Everything is a range of bytes, never a count of segments: a segment of up to 64 kB is split by the kernel or the
//! NIC, so an ACK, a SACK block or a loss may cut it anywhere. Segments themselves are never cut, because the mapping
//! they were sent with (the tag) must be repeated verbatim; only the *state* of their bytes is, in sets of ranges:
//!
//! | state | where | counted in flight |
//! |---|---|---|
//! | in flight, sent once | nowhere: the default | yes |
//! | retransmitted, in flight | `resent` | yes, once |
//! | SACKed | `sacked` | no |
//! | lost, not retransmitted since | `lost` | no |
//!
//! Without loss all the sets are empty, and sending and acknowledging are operations at the ends of two queues.
//! Each transmission also stands in the queue `sent`, in order of time; entries whose bytes were delivered, lost or sent
//! again are dropped only when they reach its front, so loss detection (RFC 8985) costs amortised O(1) per transmission and
//! O(log n) per range.
//!
//! A SYN occupies offset 0 and a FIN the offset after the last byte. Both count as one byte in every figure here.

mod ack;
mod loss;
mod retransmit;
#[cfg(test)]
mod tests;

pub use ack::{AckOutcome, Evidence};
pub use loss::Fate;

use crate::buffers::payload::Payload;
use crate::buffers::ranges::{RangeMap, RangeSet};
use crate::types::{Duration, Instant, SubflowOffset};
use alloc::collections::VecDeque;
use core::fmt::Debug;
use core::ops::Range;
use loss::{Rack, Recovery, Undo};

/// Until [`Scoreboard::set_mss`] says otherwise: an Ethernet's, IPv4 without options.
const DEFAULT_MSS: u32 = 1_460;

/// Part of a segment, to be sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk<M> {
    /// Sequence space it occupies, SYN and FIN included.
    pub range: Range<SubflowOffset>,
    /// Its payload.
    pub payload: Payload,
    /// It contains the SYN.
    pub syn: bool,
    /// It contains the FIN.
    pub fin: bool,
    /// The tag of the whole segment it is part of.
    pub tag: M,
}

/// One sending of some bytes. Ids grow with each, so they order transmissions of the same instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Transmission {
    id: u64,
    at: Instant,
}

/// A segment as it was first sent.
#[derive(Clone, Debug)]
struct Segment<M> {
    start: u64,
    end: u64,
    payload: Payload,
    syn: bool,
    fin: bool,
    tag: M,
    app_limited: bool,
    tx: Transmission,
}

impl<M> Segment<M> {
    /// Offsets of the payload, without SYN and FIN.
    fn data(&self) -> Range<u64> {
        self.start + u64::from(self.syn)..self.end - u64::from(self.fin)
    }
}

/// An entry of the queue in order of sending.
#[derive(Clone, Debug)]
struct Sent {
    start: u64,
    end: u64,
    tx: Transmission,
    /// First transmission of these bytes: their segment holds `tx` too. Otherwise `resent` does.
    first: bool,
}

/// The send side of one subflow between SND.UNA and SND.NXT. See the module's documentation.
///
/// `M` is a tag kept with each segment: the MPTCP mapping declared for its bytes.
///
/// Order of calls per ACK: [`on_ack`](Self::on_ack), then [`detect_loss`](Self::detect_loss).
#[derive(Clone, Debug)]
pub struct Scoreboard<M> {
    una: u64,
    nxt: u64,
    /// In order of sequence, adjoining, the first contains `una`.
    segments: VecDeque<Segment<M>>,
    /// In order of `tx.id`; the front has a live byte.
    sent: VecDeque<Sent>,
    next_tx: u64,
    /// The four sets hold positions in `una..nxt` only; `sacked`, `lost` and `resent` are disjoint.
    sacked: RangeSet,
    lost: RangeSet,
    /// Retransmitted and in flight: the latest transmission.
    resent: RangeMap<Transmission>,
    /// Ever retransmitted, whatever its state now (Karn's rule).
    retransmitted: RangeSet,
    last_sent: Option<Instant>,
    mss: u32,
    rack: Rack,
    recovery: Option<Recovery>,
    undo: Undo,
}

impl<M: Clone + Debug> Default for Scoreboard<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Clone + Debug> Scoreboard<M> {
    /// Nothing sent: the next offset is the SYN's, 0.
    pub fn new() -> Self {
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
            rack: Rack::new(),
            recovery: None,
            undo: Undo::new(),
        }
    }

    /// Sets the sender maximum segment size, by which "three segments SACKed" is judged.
    pub fn set_mss(&mut self, mss: u32) {
        self.mss = mss.max(1);
    }

    /// Lowest offset not cumulatively acknowledged (SND.UNA).
    pub fn una(&self) -> SubflowOffset {
        SubflowOffset(self.una)
    }

    /// Next offset to be used for new data (SND.NXT).
    pub fn nxt(&self) -> SubflowOffset {
        SubflowOffset(self.nxt)
    }

    /// Bytes believed to be in the network: neither acknowledged nor SACKed nor lost. Lost bytes count again once retransmitted.
    pub fn in_flight(&self) -> u64 {
        self.nxt - self.una - self.sacked.total() - self.lost.total()
    }

    /// Everything sent was cumulatively acknowledged.
    pub fn is_empty(&self) -> bool {
        self.una == self.nxt
    }

    /// Bytes lost and not retransmitted since.
    pub fn lost_bytes(&self) -> u64 {
        self.lost.total()
    }

    /// Bytes SACKed above the cumulative acknowledgement.
    pub fn sacked_bytes(&self) -> u64 {
        self.sacked.total()
    }

    /// When the earliest transmission was made of which some byte is still in flight.
    pub fn oldest_sent(&self) -> Option<Instant> {
        self.sent.front().map(|s| s.tx.at)
    }

    /// When something was last sent or retransmitted.
    pub fn last_sent(&self) -> Option<Instant> {
        self.last_sent
    }

    /// Records new data sent at [`nxt`](Self::nxt) and returns the offsets it occupies.
    ///
    /// `app_limited`: there was no more data to send or no window from the peer for it (RFC 7661). A segment with nothing in it is not
    /// recorded and the range is empty.
    pub fn push(
        &mut self,
        now: Instant,
        payload: Payload,
        syn: bool,
        fin: bool,
        tag: M,
        app_limited: bool,
    ) -> Range<SubflowOffset> {
        let start = self.nxt;
        let end = start + payload.len() as u64 + u64::from(syn) + u64::from(fin);
        if start < end {
            let tx = self.transmission(now);
            self.segments.push_back(Segment { start, end, payload, syn, fin, tag, app_limited, tx });
            self.sent.push_back(Sent { start, end, tx, first: true });
            self.nxt = end;
        }
        SubflowOffset(start)..SubflowOffset(end)
    }

    /// What is not yet cumulatively acknowledged, lowest first, with its tag: the first range starts at
    /// [`una`](Self::una) even when that is inside a segment. Meant for reinjection on another subflow, not for every packet.
    pub fn unacked_iter(&self) -> impl Iterator<Item = (Range<SubflowOffset>, &M)> + '_ {
        self.segments.iter().map(|s| (SubflowOffset(s.start.max(self.una))..SubflowOffset(s.end), &s.tag))
    }

    fn transmission(&mut self, now: Instant) -> Transmission {
        let at = self.last_sent.map_or(now, |t| t.max(now));
        self.last_sent = Some(at);
        let id = self.next_tx;
        self.next_tx += 1;
        Transmission { id, at }
    }

    /// Index of the segment that contains `at`, which is in `una..nxt`.
    fn segment_index(&self, at: u64) -> usize {
        self.segments.partition_point(|s| s.end <= at)
    }

    /// The lowest bytes of `sent` that are in flight by that very transmission.
    fn live(&self, sent: &Sent) -> Option<Range<u64>> {
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

    /// Drops entries without live bytes from the front of the queue. A byte that is dead for a transmission stays so,
    /// hence what was passed over once is never looked at again.
    fn prune(&mut self) {
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

    /// Positions the peer may make us distinguish by SACK blocks. Each costs some tens of bytes; a peer that
    /// SACKs every second byte must not make that outgrow the data themselves.
    fn sack_range_limit(&self) -> usize {
        256 + self.segments.len() + ((self.nxt - self.una) / 512) as usize
    }
}

/// `now − rtt`, compared with a slack of one tick of the timestamp clock: the ACK was caused by something sent before `at`.
fn echo_precedes(now: Instant, rtt: Option<Duration>, at: Instant) -> bool {
    rtt.is_some_and(|rtt| now - rtt + super::rtt::CLOCK_GRANULARITY < at)
}

//! When an ACK goes out (RFC 5681 §4.2), and how many.

use umptcp_types::{Duration, Instant, SubflowOffset};

/// Segments acknowledged at once when a subflow is new, so that the peer's slow start is not held up.
const QUICK_ACKS: u32 = 16;
/// Packets with less payload than this do not count as full (RFC 9293 §3.7.1: the default MSS).
const LEAST_FULL_SEGMENT: u32 = 536;
/// Challenge ACKs of one subflow are at least this far apart (RFC 5961 §7; as Linux's tcp_invalid_ratelimit).
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(500);
/// ACKs owed at once, at most.
const MAX_ACKS_NOW: u32 = 4;

/// How urgently an ACK is owed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owed {
    /// None.
    No,
    /// By the delayed-ACK timer or with the next data.
    Later,
    /// Now.
    Now,
}

/// The ACKs that a subflow owes its peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acker {
    owed: Owed,
    /// ACKs owed at once: more than one matters to a peer without SACK.
    acks_now: u32,
    /// Segments that will still be acknowledged at once.
    quick_acks: u32,
    /// Payload that came since the last ACK.
    unacked_bytes: u64,
    /// Payload of the largest single packet received: the peer's full segment, options taken off.
    full_segment: u32,
    /// Last.ACK.sent (RFC 7323 §4.3).
    last_ack_sent: SubflowOffset,
    /// When a challenge ACK was last sent.
    challenged: Option<Instant>,
}

impl Acker {
    /// Nothing owed.
    pub(super) fn new() -> Self {
        Acker {
            owed: Owed::No,
            acks_now: 0,
            quick_acks: QUICK_ACKS,
            unacked_bytes: 0,
            full_segment: LEAST_FULL_SEGMENT,
            last_ack_sent: SubflowOffset(0),
            challenged: None,
        }
    }

    /// An ACK is owed at once.
    pub(super) fn owe_now(&mut self) {
        self.owed = Owed::Now;
        self.acks_now = self.acks_now.saturating_add(1).min(MAX_ACKS_NOW);
    }

    /// Whether an ACK is owed at once.
    #[inline]
    pub(super) fn owes_now(&self) -> bool {
        self.owed == Owed::Now
    }

    /// Last.ACK.sent.
    pub(super) fn last_ack_sent(&self) -> SubflowOffset {
        self.last_ack_sent
    }

    /// `len` bytes of payload came, in order or not. The ACK is owed at once for anything out of order, for
    /// every second full segment, while the subflow is new, and for a while after a loss (RFC 5681 §4.2).
    /// True: it may wait, and the delayed-ACK timer is to be started.
    pub(super) fn on_payload(&mut self, len: usize, mss: u32, out_of_order: bool, duplicate: bool) -> bool {
        self.unacked_bytes += len as u64;
        // A full segment of the peer's is less than the MSS by its options; more than an MSS was merged from
        // several.
        let merged = len > mss as usize;
        if !merged {
            self.full_segment = self.full_segment.max(len as u32);
        }
        let enough = merged || self.unacked_bytes >= 2 * u64::from(self.full_segment);
        if out_of_order {
            // After a loss the sender's window is small: a delayed ACK would stall it, and a coupled
            // controller would underestimate the path.
            self.quick_acks = QUICK_ACKS;
            self.owe_now();
            false
        } else if enough || self.quick_acks > 0 || duplicate {
            self.quick_acks = self.quick_acks.saturating_sub(1);
            self.owed = Owed::Now;
            false
        } else if self.owed == Owed::No {
            self.owed = Owed::Later;
            true
        } else {
            false
        }
    }

    /// A SYN/ACK went out, or a SYN that acknowledges: what was received up to `next` is acknowledged by it.
    pub(super) fn on_syn_sent(&mut self, next: SubflowOffset) {
        self.last_ack_sent = next;
    }

    /// A segment with the ACK number `next` went out. `silent`: it had no room for SACK blocks that there
    /// are. False: an ACK of its own is still owed for these.
    pub(super) fn on_sent(&mut self, next: SubflowOffset, sack: bool, silent: bool) -> bool {
        self.last_ack_sent = next;
        self.unacked_bytes = 0;
        if silent && self.owes_now() {
            return false;
        }
        // Without SACK the peer counts duplicate ACKs, so each is sent (RFC 5681 §3.2); with it one says
        // everything.
        self.acks_now = if sack { 0 } else { self.acks_now.saturating_sub(1) };
        self.owed = if self.acks_now > 0 { Owed::Now } else { Owed::No };
        true
    }

    /// Whether an unacceptable segment may be answered now; if so it is taken to be.
    pub(super) fn may_challenge(&mut self, now: Instant) -> bool {
        if self.challenged.is_some_and(|last| now - last < CHALLENGE_INTERVAL) {
            return false;
        }
        self.challenged = Some(now);
        true
    }
}

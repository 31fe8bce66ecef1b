//! Acknowledgements: what they deliver, and what they say about round-trip time, reordering and needless
//! retransmission.

use super::board::Scoreboard;
use super::parts::Transmission;
use super::rack::{Delivered, Rack};
use crate::tcp::rtt::CLOCK_GRANULARITY;
use crate::types::{Duration, Instant, SubflowOffset};
use core::fmt::Debug;
use core::ops::Range;
use smallvec::SmallVec;

/// A tick of the timestamp clock.
const TIMESTAMP_TICK: Duration = Duration::from_millis(1);

/// How we know that retransmissions were needless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tcp) enum Evidence {
    /// The timestamp echo is older than the first retransmission: the original arrived (RFC 3522).
    Timestamp,
    /// Everything that was sent again arrived twice, as D-SACKs say (RFC 3708).
    Duplicates,
    /// What was judged lost arrived before anything was sent again.
    Late,
}

/// What one acknowledgement said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::tcp) struct AckOutcome {
    /// Bytes by which the cumulative acknowledgement advanced, SYN and FIN included.
    pub(in crate::tcp) cumulative: u64,
    /// Bytes newly acknowledged or newly SACKed.
    pub(in crate::tcp) delivered: u64,
    /// Round-trip time that Karn's rule allows to measure: from the latest range newly delivered that was
    /// never retransmitted, else from the timestamp if the cumulative acknowledgement advanced (RFC 7323
    /// §4.1).
    pub(in crate::tcp) rtt: Option<Duration>,
    /// The newest transmission among the delivered was made when the application limited the sender.
    pub(in crate::tcp) app_limited: bool,
    /// There was a D-SACK block (RFC 2883): the peer received something twice.
    pub(in crate::tcp) dsack: bool,
    /// The D-SACK block.
    pub(in crate::tcp) dsack_range: Option<Range<SubflowOffset>>,
    /// By that block everything that this episode sent again has arrived twice.
    pub(in crate::tcp) duplicated: bool,
    /// The SYN was acknowledged by this.
    pub(in crate::tcp) syn_acked: bool,
    /// The FIN was acknowledged by this.
    pub(in crate::tcp) fin_acked: bool,
    /// Something never retransmitted was delivered after something above it (RFC 8985 §6.2 step 3).
    pub(in crate::tcp) reordering: bool,
    /// The retransmissions of the current or last recovery episode turn out to have been needless: the
    /// controller's reduction may be undone. Reported once per episode. See [`Scoreboard::undo_losses`].
    pub(in crate::tcp) spurious: Option<Evidence>,
    /// Something delivered had been retransmitted.
    pub(in crate::tcp) retransmitted_acked: bool,
    /// The cumulative acknowledgement reached the recovery point: the episode is over.
    pub(in crate::tcp) recovery_ended: bool,
}

/// What is gathered while going through the newly delivered ranges.
struct Tally {
    now: Instant,
    /// The round-trip time that the timestamp echo gives.
    echo_rtt: Option<Duration>,
    /// Latest transmission delivered: id and whether application-limited.
    newest: Option<(u64, bool)>,
    /// Latest transmission of bytes sent only once: id and time; acknowledged cumulatively, and by SACK.
    once: [Option<(u64, Instant)>; 2],
    /// Candidate for RACK.segment.
    rack: Option<Delivered>,
    /// Something acknowledged cumulatively, not SACKed before, had been retransmitted.
    cumulative_retransmitted: bool,
    /// Something was judged lost that had never been sent again.
    late: bool,
}

/// One newly delivered range of a single transmission.
struct Piece {
    end: u64,
    /// `None`: it was judged lost since it was last sent, so its transmission is no longer known.
    tx: Option<Transmission>,
    retransmitted: bool,
    app_limited: bool,
    cumulative: bool,
}

impl<M: Clone + Debug> Scoreboard<M> {
    /// Takes an acknowledgement: cumulative number, SACK blocks in the order of the option, and the
    /// round-trip time that its timestamp echo gives, if any.
    ///
    /// An `ack` above [`nxt`](Self::nxt) counts as `nxt`; the caller should have refused it (RFC 5961 §5).
    /// SACK blocks that are empty or reach above `nxt` are ignored. Call [`detect_loss`](Self::detect_loss)
    /// afterwards.
    pub(in crate::tcp) fn on_ack(
        &mut self,
        now: Instant,
        ack: SubflowOffset,
        sacks: &[Range<SubflowOffset>],
        rtt_from_timestamp: Option<Duration>,
    ) -> AckOutcome {
        let mut out = AckOutcome::default();
        let mut tally = Tally::new(now, rtt_from_timestamp);
        let old_una = self.una;
        // One that a later ACK has overtaken has its blocks below SND.UNA for what was missing then.
        self.take_dsack(ack.0.min(self.nxt), sacks, &mut out);
        let ack = ack.0.clamp(self.una, self.nxt);

        self.deliver(old_una..ack, true, &mut tally, &mut out);
        let mut blocks: SmallVec<[Range<u64>; 4]> = sacks
            .iter()
            .filter(|b| b.start < b.end && b.end.0 <= self.nxt && b.end.0 > ack)
            .map(|b| b.start.0.max(ack)..b.end.0)
            .collect();
        // Ascending, so that blocks of the same ACK do not look like reordering.
        blocks.sort_unstable_by_key(|b| b.start);
        for block in blocks {
            if self.may_sack(&block) {
                self.deliver(block.clone(), false, &mut tally, &mut out);
                self.sacked.insert(block);
            }
        }
        self.advance(ack, &mut out);

        out.app_limited = tally.newest.is_some_and(|(_, limited)| limited);
        out.rtt = tally.round_trip_time(out.cumulative > 0);
        if let Some(delivered) = tally.rack {
            self.rack.update(now, delivered);
        }
        if out.reordering {
            self.rack.on_reordering();
        }
        // Eifel detection (RFC 3522 §3.2): the echo tells that the original transmission filled the hole. In
        // fast recovery other holes may be genuine, so nothing else may be believed lost. Step 5: a D-SACK,
        // or an ACK of everything from a peer not known to send any, may mean that only the ACKs of the
        // originals were lost.
        let acks_lost = out.dsack_range.is_some() || (self.una == self.nxt && !self.undo.dsack_seen());
        if out.cumulative > 0
            && !acks_lost
            && tally.cumulative_retransmitted
            && self.undo.first_retransmission().is_some_and(|t| echo_precedes(now, rtt_from_timestamp, t))
            && (self.recovery.timed_out() || self.lost.is_empty())
            && self.undo.report()
        {
            out.spurious = Some(Evidence::Timestamp);
            // What was taken for a loss was late: a fast retransmission is to wait longer from now on.
            if !self.recovery.timed_out() {
                self.rack.on_reordering();
            }
        }
        // No timestamp is needed where there was no retransmission that could have caused this. Pacing may
        // hold back the first.
        let nothing_sent_again = self.recovery.is_on() && self.undo.first_retransmission().is_none();
        if tally.late && nothing_sent_again && self.lost.is_empty() && self.undo.report() {
            out.spurious = Some(Evidence::Late);
        }
        // RFC 3708: what was judged lost and not sent again yet may be genuine, so none of that may be left.
        if out.duplicated && self.lost.is_empty() && self.undo.report() {
            out.spurious = Some(Evidence::Duplicates);
        }
        let ended = self.recovery.on_ack(self.una);
        out.recovery_ended = ended;
        self.rack.adapt_window(self.una, self.nxt, out.dsack, ended);
        self.prune();
        out
    }

    /// Recognises a D-SACK (RFC 2883 §4): only the first block can be one, and it lies below the cumulative
    /// acknowledgement or inside the second block.
    fn take_dsack(&mut self, ack: u64, sacks: &[Range<SubflowOffset>], out: &mut AckOutcome) {
        let Some(first) = sacks.first().filter(|b| b.start < b.end && b.end.0 <= self.nxt) else { return };
        let below = first.end.0 <= ack;
        let inside =
            sacks.get(1).is_some_and(|second| second.start <= first.start && first.end <= second.end);
        if !(below || inside) {
            return;
        }
        out.dsack_range = Some(first.clone());
        // More duplicates than we ever sent are the network's doing and say nothing about our reordering
        // window.
        out.dsack = self.undo.count_dsack();
        out.duplicated = self.undo.all_duplicated(first.start.0..first.end.0);
    }

    fn may_sack(&self, block: &Range<u64>) -> bool {
        self.sacked.len() < self.sack_range_limit()
            || self.sacked.covering(block.start.saturating_sub(1)).is_some()
            || self.sacked.next_from(block.start).is_some_and(|r| r.start <= block.end)
    }

    /// Accounts for those bytes of `range` that were not known to be delivered.
    fn deliver(&mut self, range: Range<u64>, cumulative: bool, tally: &mut Tally, out: &mut AckOutcome) {
        let mut at = range.start;
        while let Some(gap) = self.sacked.first_gap(at..range.end) {
            at = gap.end;
            out.delivered += gap.end - gap.start;
            let mut index = self.segment_index(gap.start);
            let mut from = gap.start;
            while from < gap.end {
                let Some(segment) = self.segments.get(index) else { break };
                let to = segment.end.min(gap.end);
                while from < to {
                    let (end, tx, retransmitted) = self.transmission_of(from, to, segment.tx);
                    let piece =
                        Piece { end, tx, retransmitted, app_limited: segment.app_limited, cumulative };
                    out.retransmitted_acked |= retransmitted;
                    let reordered = self.rack.on_delivered(end, retransmitted);
                    out.reordering |= reordered;
                    if (reordered && !tally.may_be_old_news(&piece))
                        || (!self.recovery.timed_out() && tally.shows_original(&piece, segment.tx))
                    {
                        self.rack.on_late(tally.now, segment.tx.at);
                    }
                    tally.take_piece(&piece, &self.rack);
                    from = end;
                }
                index += 1;
            }
            if self.lost.remove(gap.clone()) > 0 {
                // What a tail loss probe had sent again may have come by that.
                tally.late |= self.retransmitted.next_from(gap.start).is_none_or(|r| r.start >= gap.end);
            }
            self.resent.remove(gap);
        }
    }

    /// The latest transmission of the bytes from `at` on, how far it goes (at most to `end`), and whether it
    /// was a retransmission. `first` is that of the segment.
    fn transmission_of(&self, at: u64, end: u64, first: Transmission) -> (u64, Option<Transmission>, bool) {
        match self.retransmitted.next_from(at).filter(|r| r.start < end) {
            None => (end, Some(first), false),
            Some(r) if r.start > at => (r.start, Some(first), false),
            Some(r) => {
                let end = r.end.min(end);
                match self.resent.next_from(at).filter(|(r, _)| r.start < end) {
                    None => (end, None, true),
                    Some((r, _)) if r.start > at => (r.start, None, true),
                    Some((r, tx)) => (r.end.min(end), Some(tx), true),
                }
            }
        }
    }

    /// Moves SND.UNA to `ack` and forgets what is below.
    fn advance(&mut self, ack: u64, out: &mut AckOutcome) {
        let below = self.una..ack;
        out.cumulative = ack - self.una;
        if below.is_empty() {
            return;
        }
        self.una = ack;
        self.sacked.remove(below.clone());
        self.retransmitted.remove(below);
        while self.segments.front().is_some_and(|s| s.end <= ack) {
            let Some(s) = self.segments.pop_front() else { break };
            out.syn_acked |= s.syn;
            out.fin_acked |= s.fin;
        }
        if let Some(s) = self.segments.front() {
            out.syn_acked |= s.syn && below_syn(s.start, out.cumulative, ack);
        } else {
            self.shrink();
        }
    }
}

/// `now − rtt`, compared with a slack of one tick of the timestamp clock: the ACK was caused by something
/// sent before `at`.
fn echo_precedes(now: Instant, rtt: Option<Duration>, at: Instant) -> bool {
    rtt.is_some_and(|rtt| now - rtt + CLOCK_GRANULARITY < at)
}

/// A segment that starts with the SYN at `start` had it acknowledged by the advance of `by` up to `ack`.
fn below_syn(start: u64, by: u64, ack: u64) -> bool {
    start < ack && ack - by <= start
}

impl Tally {
    fn new(now: Instant, echo_rtt: Option<Duration>) -> Self {
        Tally {
            now,
            echo_rtt,
            newest: None,
            once: [None; 2],
            rack: None,
            cumulative_retransmitted: false,
            late: false,
        }
    }

    /// The piece may have arrived long ago behind a hole that was repaired just now, if the ACKs that told of
    /// it were lost.
    fn may_be_old_news(&self, piece: &Piece) -> bool {
        piece.cumulative && self.cumulative_retransmitted
    }

    /// The timestamp echo is that of the first transmission, `first`, of a piece that was sent again: the
    /// original arrived (RFC 3522 §3.2).
    fn shows_original(&self, piece: &Piece, first: Transmission) -> bool {
        let Some(again) = piece.tx.filter(|_| piece.retransmitted && piece.cumulative) else { return false };
        let echo_of =
            |at: Instant| self.echo_rtt.is_some_and(|rtt| (self.now - at).abs_diff(rtt) <= CLOCK_GRANULARITY);
        echo_of(first.at) && echo_precedes(self.now, self.echo_rtt, again.at)
    }

    fn take_piece(&mut self, piece: &Piece, rack: &Rack) {
        self.cumulative_retransmitted |= piece.retransmitted && piece.cumulative;
        let Some(tx) = piece.tx else { return };
        if self.newest.is_none_or(|(id, _)| id <= tx.id) {
            self.newest = Some((tx.id, piece.app_limited));
        }
        if piece.retransmitted {
            // RFC 8985 §6.2 step 2: an ACK that the retransmission cannot have caused says nothing about it.
            // The RFC compares the timestamp echo for SACKed data as well, but what arrives above a hole does
            // not change the echo (RFC 7323 §4.3): the SACK of a tail loss probe would be ignored and a
            // time-out needed after all.
            let echo_rtt = self.echo_rtt.filter(|_| piece.cumulative);
            let too_soon = rack.min_rtt().is_some_and(|min| self.now - tx.at < min);
            if echo_precedes(self.now, echo_rtt, tx.at) || too_soon {
                return;
            }
        } else {
            let once = &mut self.once[usize::from(!piece.cumulative)];
            *once = (*once).max(Some((tx.id, tx.at)));
        }
        let candidate = Delivered { tx, end: piece.end };
        if self.rack.is_none_or(|best| candidate.sent_after(&best)) {
            self.rack = Some(candidate);
        }
    }

    /// `advanced`: the cumulative acknowledgement did.
    fn round_trip_time(&self, advanced: bool) -> Option<Duration> {
        let [cumulative, sacked] = self.once;
        // Without SACK, data behind a hole are acknowledged only once it is filled: their age is no
        // round-trip time.
        let cumulative = cumulative.filter(|_| !self.cumulative_retransmitted);
        match cumulative.max(sacked) {
            Some((_, at)) => Some(self.now - at),
            // The timestamp clock counts milliseconds: within one of them, no time at all may seem to have
            // passed.
            None => self.echo_rtt.filter(|_| advanced).map(|rtt| rtt.max(TIMESTAMP_TICK)),
        }
    }
}

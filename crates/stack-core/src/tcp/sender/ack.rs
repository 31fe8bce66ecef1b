//! What an acknowledgement brings about: round-trip time, loss recovery, undo of needless recovery,
//! congestion control.

use super::half::{Moment, Sender};
use crate::tcp::outcome::{News, Outcome};
use crate::tcp::scoreboard::{AckOutcome, Evidence, Phase};
use crate::tcp::timers::{Timer, Timers};
use crate::wire::tcp::TcpRepr;
use core::fmt::Debug;
use core::ops::Range;
use smallvec::SmallVec;
use umptcp_congestion::{AckSample, CongestionController};
use umptcp_types::{Duration, SubflowOffset};

/// Round-trip time told to the controller before any was measured.
const UNKNOWN_RTT: Duration = Duration::from_secs(1);

/// An acceptable acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(in crate::tcp) struct Ack<'a> {
    /// The segment it came on.
    pub(in crate::tcp) seg: &'a TcpRepr,
    /// Where that starts in the peer's sequence.
    pub(in crate::tcp) start: SubflowOffset,
    /// Its number.
    pub(in crate::tcp) number: SubflowOffset,
    /// What it echoes of our timestamp clock.
    pub(in crate::tcp) echo: Option<u32>,
    /// Its segment carries neither payload nor SYN nor FIN nor a signal of the connection's.
    pub(in crate::tcp) pure: bool,
    /// It completes the handshake.
    pub(in crate::tcp) first: bool,
    /// A later one has come before it. Its SACK blocks are still true; window and timestamp echo are not the
    /// latest.
    pub(in crate::tcp) overtaken: bool,
}

/// An acknowledgement, and what the scoreboard says of it.
struct Acked<'a> {
    ack: Ack<'a>,
    sacks: SmallVec<[Range<SubflowOffset>; 4]>,
    /// It changed the peer's window.
    window_changed: bool,
    board: AckOutcome,
}

impl Acked<'_> {
    /// SND.UNA advanced.
    fn advanced(&self) -> bool {
        self.board.cumulative > 0
    }
}

impl<M: Copy + Debug> Sender<M> {
    /// Takes an acknowledgement (RFC 9293 §3.10.7.4, fifth check). One below SND.UNA is taken for its SACK
    /// blocks. True: our FIN is acknowledged by it.
    pub(in crate::tcp) fn on_ack(
        &mut self,
        m: Moment,
        ack: Ack<'_>,
        timers: &mut Timers,
        cc: &mut dyn CongestionController,
        out: &mut Outcome,
    ) -> bool {
        if ack.first {
            self.handshake_done();
        }
        let window_changed = self.take_window(m, &ack, timers);
        let sacks = self.sack_blocks(m, &ack);
        if self.board.is_empty() {
            self.progress = m.now;
        }
        let echoed = ack.echo.and_then(|echo| {
            let age = m.stamp().wrapping_sub(echo);
            (age < 1 << 31).then(|| Duration::from_millis(u64::from(age)))
        });
        let board = self.board.on_ack(m.now, ack.number, &sacks, echoed);
        let acked = Acked { ack, sacks, window_changed, board };
        self.on_acked(m, &acked, timers, cc, out);
        acked.board.fin_acked
    }

    /// The window that comes with an acknowledgement. True: it is another than before.
    fn take_window(&mut self, m: Moment, ack: &Ack<'_>, timers: &mut Timers) -> bool {
        if ack.overtaken || (!self.window.is_newer(ack.start, ack.number) && !ack.first) {
            return false;
        }
        let changed = self.window.take(ack.start, ack.number, ack.seg.window);
        if ack.seg.window > 0 && self.window.edge() > self.board.nxt() {
            self.stop_persist(timers);
        } else if timers.is_running(Timer::Persist) {
            // RFC 9293 §3.8.6.1: a peer that answers probes is alive, however long its window stays shut.
            self.progress = m.now;
        }
        changed
    }

    /// The SACK blocks of a segment, as offsets.
    fn sack_blocks(&self, m: Moment, ack: &Ack<'_>) -> SmallVec<[Range<SubflowOffset>; 4]> {
        let mut sacks = SmallVec::new();
        if m.sack {
            let nxt = self.board.nxt();
            for (left, right) in &ack.seg.options.sack {
                let l = SubflowOffset::from_wire(*left, self.isn, ack.number);
                let r = SubflowOffset::from_wire(*right, self.isn, ack.number);
                if let (Some(l), Some(r)) = (l, r)
                    && l < r
                    && r <= nxt
                {
                    sacks.push(l..r);
                }
            }
        }
        sacks
    }

    fn on_acked(
        &mut self,
        m: Moment,
        acked: &Acked<'_>,
        timers: &mut Timers,
        cc: &mut dyn CongestionController,
        out: &mut Outcome,
    ) {
        let (now, ack, o) = (m.now, acked.ack.number, &acked.board);
        if let Some(rtt) = o.rtt {
            if self.recovery.on_rtt_sample(ack) {
                self.rtt.sample_after_spurious_timeout(now, rtt);
            } else {
                self.rtt.sample(now, rtt);
            }
        }
        if let Some(larger) = self.pmtu.on_acked(now, ack) {
            self.packet_size_changed(m, larger, cc);
            out.news.add(News::LargerPackets);
        }
        let advanced = acked.advanced();
        out.acked = o.delivered;
        out.advanced = advanced;
        self.stats.bytes_acked += o.cumulative - u64::from(o.syn_acked) - u64::from(o.fin_acked);
        if advanced {
            self.progress = now;
            self.rtt.reset_back_off();
            self.due.first = false;
        }
        if o.delivered > 0 {
            self.loss *= 0.98;
            self.delivered_at = now;
        }
        self.check_tail_probe(m, acked, cc, out);
        self.check_undo(m, acked, cc, out);
        // RACK needs SACK (RFC 8985 §3.1): without, all that is behind a hole would look lost.
        let (lost, delivered) = if m.sack {
            (self.board.detect_loss(now, &self.rtt), o.delivered)
        } else {
            let (lost, left) = self.count_duplicates(m, acked);
            (lost, o.delivered + left)
        };
        let began = self.on_lost(m, lost, delivered, timers, cc);
        if began {
            out.news.add(News::RecoveryBegan);
        }
        let recovering = self.board.phase() != Phase::Open;
        if self.ecn.on_ack(acked.ack.seg.flags, ack, self.board.nxt(), recovering) {
            cc.on_ecn(now, self.id, self.board.in_flight());
            out.news.add(News::EcnReduction);
        }
        match self.board.end_phase() {
            Some(Phase::Fast { .. }) => {
                let retransmitted = self.recovery.end_fast(self.stats.bytes_retransmitted);
                cc.on_recovered(now, self.id, retransmitted);
            }
            None if matches!(self.board.phase(), Phase::Fast { .. }) => {
                // RFC 9937's SafeACK: progress, and nothing more lost.
                let safe = advanced && lost == 0;
                self.recovery.on_fast_ack(delivered, self.board.in_flight(), safe, self.mss(), began);
            }
            _ => {}
        }
        self.tell_controller(m, acked, cc);
        if advanced || o.delivered > 0 {
            self.arm_retransmit(m, timers);
        }
    }

    /// Congestion control's share of an acknowledgement.
    fn tell_controller(&mut self, m: Moment, acked: &Acked<'_>, cc: &mut dyn CongestionController) {
        let o = &acked.board;
        if o.delivered > 0 {
            let mut sample = AckSample::new(o.delivered, self.rtt.srtt().unwrap_or(UNKNOWN_RTT));
            sample.rtt = o.rtt;
            sample.min_rtt = self.rtt.min_rtt().unwrap_or(UNKNOWN_RTT);
            // An overtaken one tells of the past.
            if let Some(stamps) = acked.ack.seg.options.timestamps
                && m.timestamps
                && !acked.ack.overtaken
            {
                // Not more than the round trip was longer than at best: the clocks may run apart.
                let longer = o.rtt.map_or(Duration::ZERO, |rtt| rtt.saturating_sub(sample.min_rtt));
                sample.way_back = self.way_back.sample(m.now, stamps.value).min(longer);
            }
            sample.in_flight = self.board.in_flight();
            sample.app_limited = !self.rounds.window_limited(cc, self.id);
            sample.disordered = self.board.is_disordered();
            sample.in_recovery = matches!(self.board.phase(), Phase::Fast { .. });
            cc.on_ack(m.now, self.id, &sample);
        }
        if acked.advanced() && self.rounds.is_over(acked.ack.number) {
            cc.on_round(m.now, self.id);
            self.rounds.begin(self.board.nxt());
        }
    }

    /// Fast retransmit and NewReno for a peer without SACK (RFC 5681 §3.2, RFC 6582 §3.2). Returns the bytes
    /// now taken for lost, and those that a duplicate ACK says have left the network.
    fn count_duplicates(&mut self, m: Moment, acked: &Acked<'_>) -> (u64, u64) {
        let mss = u64::from(self.mss());
        if acked.advanced() {
            self.recovery.on_advance();
            // A partial acknowledgement: the next hole is where it ends.
            let partial = matches!(self.board.phase(), Phase::Fast { until } if acked.ack.number < until);
            return if partial { (self.board.mark_first_lost(m.now, mss), 0) } else { (0, 0) };
        }
        if !acked.ack.pure || acked.window_changed || self.board.is_empty() {
            return (0, 0);
        }
        let third = self.recovery.on_duplicate_ack() == 3;
        let packet = mss.min(self.board.in_flight());
        let lost = if third && self.board.phase() == Phase::Open {
            self.board.mark_first_lost(m.now, mss)
        } else {
            0
        };
        (lost, packet)
    }

    /// RFC 8985 §7.4.2: a probe that repaired a loss nothing else shows is answered like any loss.
    fn check_tail_probe(
        &mut self,
        m: Moment,
        acked: &Acked<'_>,
        cc: &mut dyn CongestionController,
        out: &mut Outcome,
    ) {
        let (ack, o) = (&acked.ack, &acked.board);
        let duplicate = ack.pure && o.cumulative == 0 && ack.seg.options.sack.is_empty();
        let dsack = o.dsack_range.as_ref();
        let repaired = self.recovery.tail.on_ack(ack.number, dsack, duplicate, ack.echo);
        if repaired && self.board.phase() == Phase::Open {
            cc.on_loss(m.now, self.id, self.board.recovery_flight(o.delivered));
            out.news.add(News::TailProbeRepaired);
        }
    }

    /// Takes back what a recovery did that turns out to have been needless (RFC 3522, RFC 3708, RFC 5682).
    fn check_undo(
        &mut self,
        m: Moment,
        acked: &Acked<'_>,
        cc: &mut dyn CongestionController,
        out: &mut Outcome,
    ) {
        let (ack, o, advanced) = (&acked.ack, &acked.board, acked.advanced());
        let highest = acked.sacks.iter().map(|s| s.end).max().unwrap_or(ack.number).max(ack.number);
        let counts = advanced || o.delivered > 0 || ack.pure;
        let nxt = self.board.nxt();
        let forwarded = counts && self.recovery.is_forwarded(ack.number, advanced, highest, o.delivered, nxt);
        let timeout = self.recovery.timed_out();
        let undone = match o.spurious {
            Some(Evidence::Timestamp | Evidence::Late) if timeout => News::TimeoutUndone,
            Some(Evidence::Timestamp | Evidence::Late) => News::RecoveryUndone,
            Some(Evidence::Duplicates) if timeout => News::TimeoutDuplicated,
            Some(Evidence::Duplicates) => News::RecoveryDuplicated,
            None if forwarded => News::SpuriousTimeout,
            None => return,
        };
        self.stats.undone += 1;
        self.board.undo_losses();
        // RFC 4015 §3.1 step 9: a mark is a reason of its own to stay with the smaller window.
        if !(self.ecn.enabled() && ack.seg.flags.ece) {
            cc.undo(m.now, self.id);
        }
        self.recovery.on_undone();
        out.news.add(undone);
    }
}

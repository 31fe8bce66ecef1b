//! What is sent, and sent again.

use super::half::{Moment, Sender};
use crate::config::Ecn;
use crate::tcp::pacing;
use crate::tcp::scoreboard::{Chunk, Outgoing};
use crate::tcp::segment::{Kind, NewData, Segment};
use crate::tcp::timers::{Timer, Timers};
use crate::wire::tcp::TcpFlags;
use core::fmt::Debug;
use umptcp_congestion::CongestionController;
use umptcp_types::{Instant, SubflowOffset};

/// How many of the largest segments a congestion window holds, at least.
const SEGMENTS_PER_WINDOW: u64 = 4;

/// How much goes out at once.
#[derive(Clone, Copy, Debug)]
pub(in crate::tcp) struct Sizes {
    /// Payload of one packet with the options that data segments carry.
    pub(in crate::tcp) packet: u32,
    /// Largest payload handed to the device at once.
    pub(in crate::tcp) max_segment: u32,
}

impl<M: Copy + Debug> Sender<M> {
    /// The SYN or SYN/ACK, for the first time or again. False: none is due.
    pub(in crate::tcp) fn poll_handshake(&mut self, m: Moment, timers: &mut Timers) -> bool {
        if self.board.nxt() == SubflowOffset(0) {
            // It may have waited for data (RFC 7413).
            self.progress = m.now;
            self.board.push(m.now, Outgoing::syn(None));
        } else if self.due.first {
            let Some(chunk) = self.board.first_unacked(0) else { return false };
            self.board.retransmitted(m.now, chunk.range);
        } else {
            return false;
        }
        self.due.first = false;
        self.ensure_retransmit(m, timers);
        true
    }

    /// The flags that ask for ECN, on our SYN.
    pub(in crate::tcp) fn mark_syn(&mut self, config: Ecn, flags: &mut TcpFlags) {
        self.ecn.mark_syn(config, self.stats.timeouts > 0, flags);
    }

    /// The flags that agree to ECN, on our SYN/ACK.
    pub(in crate::tcp) fn mark_syn_ack(&self, flags: &mut TcpFlags) {
        self.ecn.mark_syn_ack(flags);
    }

    /// The SYN or SYN/ACK goes out again at once.
    pub(in crate::tcp) fn repeat_syn(&mut self) {
        self.board.mark_all_lost();
        self.due.first = true;
    }

    /// The SYN/ACK went out before there was any state (SYN cookies). When is not known, so that its ACK
    /// gives no round-trip time: it counts as sent twice (Karn's rule).
    pub(in crate::tcp) fn syn_ack_sent_before(&mut self, m: Moment, timers: &mut Timers) {
        self.poll_handshake(m, timers);
        self.due.first = true;
        self.poll_handshake(m, timers);
    }

    /// The next segment of what was lost, or a tail loss probe, if window and pacing allow.
    pub(in crate::tcp) fn poll_retransmit(
        &mut self,
        m: Moment,
        timers: &mut Timers,
        cc: &mut dyn CongestionController,
        sizes: Sizes,
    ) -> Option<Segment<M>> {
        if core::mem::take(&mut self.due.tail_probe)
            && let Some(chunk) = self.board.tail_probe(sizes.packet as usize)
        {
            self.recovery.tail.sent(self.board.nxt(), true, m.stamp());
            return Some(self.retransmit(m, chunk, timers, cc));
        }
        if self.recovery.frto.holds_back() {
            return None;
        }
        let room = self.congestion_room(cc);
        let packet = u64::from(sizes.packet);
        let budget = if self.due.first { room.max(packet) } else { room };
        if budget < packet && self.board.in_flight() > 0 {
            return None;
        }
        if !self.due.first && self.pacer.next_send(m.now) > m.now {
            return None;
        }
        let max = self.segment_limit(cc, sizes);
        let max = u64::from(max).min(budget.max(packet) / packet * packet);
        let chunk = self.board.next_lost(max as usize)?;
        self.due.first = false;
        Some(self.retransmit(m, chunk, timers, cc))
    }

    fn retransmit(
        &mut self,
        m: Moment,
        chunk: Chunk<Option<M>>,
        timers: &mut Timers,
        cc: &mut dyn CongestionController,
    ) -> Segment<M> {
        self.board.retransmitted(m.now, chunk.range.clone());
        let len = chunk.payload.len() as u64;
        self.recovery.on_sent(len);
        self.stats.bytes_retransmitted += len;
        cc.on_sent(m.now, self.id, len, self.board.in_flight());
        self.pace(m.now, cc, len);
        self.ensure_retransmit(m, timers);
        let kind = if chunk.payload.is_empty() { Kind::Ack } else { Kind::Data };
        Segment {
            kind,
            seq: chunk.range.start,
            flags: TcpFlags { fin: chunk.fin, psh: len > 0, ..TcpFlags::ACK },
            payload: chunk.payload,
            tag: chunk.tag,
            fresh: false,
        }
    }

    /// A tail loss probe or F-RTO asks for a segment of new data, before retransmissions and regardless of
    /// the congestion window (RFC 8985 §7.3, RFC 5682 §3.1 step 2b).
    pub(in crate::tcp) fn wants_new_data(&self) -> bool {
        self.due.tail_probe || self.recovery.frto.wants_new_data()
    }

    /// That segment was sent.
    pub(in crate::tcp) fn new_data_sent(&mut self, m: Moment, timers: &mut Timers) {
        if core::mem::take(&mut self.due.tail_probe) {
            self.recovery.tail.sent(self.board.nxt(), false, m.stamp());
            self.arm_retransmit(m, timers);
        } else {
            self.recovery.frto.new_data_sent();
        }
    }

    /// No new data, or no window for it: a tail loss probe repeats old data instead, and F-RTO ends.
    pub(in crate::tcp) fn no_new_data(&mut self) {
        self.recovery.frto.no_new_data();
    }

    fn pace(&mut self, now: Instant, cc: &dyn CongestionController, bytes: u64) {
        if let Some(rate) = self.pacing_rate(cc) {
            self.pacer.set_rate(rate);
            self.pacer.on_sent(now, bytes);
        }
    }

    /// Payload bytes of the largest segment worth sending at the current rate: whole packets.
    ///
    /// A millisecond of the slower one of pacing and the path's NIC: a window may be far above what the NIC sends, as
    /// long as what waits in front of it is no part of the round trip. Shapers cut what is longer than their bucket into
    /// single packets, which cost everybody behind them ten times as much. Short paths take more.
    ///
    /// It is never more than a quarter of the congestion window. A segment becomes a burst that the receiver
    /// may answer with one ACK; if a window were one or two such bursts, a single lost ACK would stop the ACK
    /// clock.
    pub(in crate::tcp) fn segment_limit(&self, cc: &dyn CongestionController, sizes: Sizes) -> u32 {
        let Sizes { packet, max_segment } = sizes;
        // A device that takes single packets needs no rate to be asked.
        if self.ecn.owes_cwr() || max_segment < 2 * packet {
            return packet;
        }
        let share = u32::try_from(cc.window(self.id) / SEGMENTS_PER_WINDOW).unwrap_or(u32::MAX);
        let max = (max_segment.min(share) / packet * packet).max(packet);
        let near = self.rtt.min_rtt();
        pacing::segment_size(self.pacing_rate(cc), self.line_rate, near, packet, max as usize) as u32
    }

    /// Sends new data. The caller has checked windows and pacing.
    pub(in crate::tcp) fn send_data(
        &mut self,
        m: Moment,
        data: NewData<M>,
        timers: &mut Timers,
        cc: &mut dyn CongestionController,
    ) -> Segment<M> {
        let NewData { payload, tag, push, app_limited } = data;
        let len = payload.len() as u64;
        if self.board.is_empty() {
            self.progress = m.now;
        }
        self.due.small = false;
        let range = self.board.push(m.now, Outgoing::data(payload.clone(), tag, app_limited));
        self.stats.bytes_sent += len;
        self.recovery.on_sent(len);
        let in_flight = self.board.in_flight();
        self.rounds.on_sent(range.start, self.board.nxt(), in_flight, self.mss(), cc.window(self.id));
        cc.on_sent(m.now, self.id, len, in_flight);
        self.pace(m.now, cc, len);
        if !timers.is_running(Timer::Retransmit) || timers.is_running(Timer::TailProbe) {
            self.arm_retransmit(m, timers);
        }
        self.pmtu.on_sent(range.end, len);
        let flags = TcpFlags { psh: push, ..TcpFlags::ACK };
        Segment { kind: Kind::Data, seq: range.start, flags, payload, tag, fresh: true }
    }

    /// A FIN is to be sent, as far as the sender is concerned.
    pub(in crate::tcp) fn fin_due(&self) -> bool {
        self.fin.wanted && !self.fin.sent
    }

    /// Sends the FIN.
    pub(in crate::tcp) fn send_fin(&mut self, m: Moment, timers: &mut Timers) -> Segment<M> {
        if self.board.is_empty() {
            self.progress = m.now;
        }
        let range = self.board.push(m.now, Outgoing::fin(None));
        self.fin.sent = true;
        self.stop_persist(timers);
        self.ensure_retransmit(m, timers);
        Segment::bare(Kind::Ack, range.start, TcpFlags { fin: true, ..TcpFlags::ACK })
    }

    /// A zero-window or keep-alive probe that is due: an ACK just below the window makes the peer acknowledge
    /// (RFC 9293 §3.8.4).
    pub(in crate::tcp) fn poll_probe(&mut self) -> Option<Segment<M>> {
        let window = core::mem::take(&mut self.due.window_probe);
        let keep_alive = core::mem::take(&mut self.due.keep_alive);
        (window || keep_alive).then(|| {
            let seq = SubflowOffset(self.board.una().0.saturating_sub(1));
            Segment::bare(Kind::Probe, seq, TcpFlags::ACK)
        })
    }

    /// A pure ACK, due or not.
    pub(in crate::tcp) fn pure_ack(&self) -> Segment<M> {
        Segment::bare(Kind::Ack, self.board.nxt(), TcpFlags::ACK)
    }
}

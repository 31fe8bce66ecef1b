//! What a subflow sends next, apart from MPTCP options, which the connection adds.

use super::state::Event;
use super::{AckOwed, State, Tcp};
use crate::buffers::payload::Payload;
use crate::wire::tcp::{TcpFlags, TcpOptions, TcpRepr, Timestamps};
use core::fmt::Debug;
use umptcp_congestion::CongestionController;
use umptcp_types::{Instant, SeqNumber, SubflowOffset};

/// What a segment is for; decides which MPTCP options belong on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// SYN of the active side.
    Syn,
    /// SYN/ACK.
    SynAck,
    /// Carries payload.
    Data,
    /// Carries no payload; may carry FIN.
    Ack,
    /// An ACK below the peer's window, to make it answer. The peer takes nothing else from it (RFC 9293 §3.10.7.4), so it carries
    /// no signal and stands for no ACK that is owed.
    Probe,
}

/// A segment that is to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Segment<M> {
    pub(crate) kind: Kind,
    pub(crate) seq: SubflowOffset,
    pub(crate) flags: TcpFlags,
    pub(crate) payload: Payload,
    /// What the connection has attached to the payload.
    pub(crate) tag: Option<M>,
    /// It carries data for the first time.
    pub(crate) fresh: bool,
}

/// How many of the largest segments a congestion window holds, at least.
const SEGMENTS_PER_WINDOW: u64 = 4;

impl<M: Copy + Debug> Tcp<M> {
    /// The SYN or SYN/ACK, for the first time or again. `None` when none is due.
    pub(crate) fn poll_handshake(&mut self, now: Instant) -> Option<Segment<M>> {
        let (kind, mut flags) = match self.state() {
            State::SynSent => (Kind::Syn, TcpFlags::SYN),
            State::SynReceived => (Kind::SynAck, TcpFlags::SYN_ACK),
            _ => return None,
        };
        if self.board.nxt() == SubflowOffset(0) {
            // It may have waited for data (RFC 7413).
            self.progress = now;
            self.board.push(now, Payload::new(), true, false, None, false);
        } else if self.resend_first {
            let chunk = self.board.first_unacked(0)?;
            self.board.retransmitted(now, chunk.range);
        } else {
            return None;
        }
        self.resend_first = false;
        if self.timers.retransmit.is_none() {
            self.arm_retransmit(now);
        }
        match kind {
            Kind::Syn => self.ecn.mark_syn(self.config.ecn, self.stats.timeouts > 0, &mut flags),
            _ => self.ecn.mark_syn_ack(&mut flags),
        }
        Some(Segment { kind, seq: SubflowOffset(0), flags, payload: Payload::new(), tag: None, fresh: false })
    }

    /// The SYN/ACK went out with this window before there was any state (SYN cookies). When is not known, so that its ACK gives
    /// no round-trip time: it counts as sent twice (Karn's rule).
    pub(crate) fn syn_ack_sent_before(&mut self, now: Instant, window: u16) {
        self.poll_handshake(now);
        self.resend_first = true;
        self.poll_handshake(now);
        self.rcv_edge = self.rcv_next + u64::from(window);
        self.last_ack_sent = self.rcv_next;
    }

    /// The next segment of what was lost, or a tail loss probe, if window and pacing allow. `packet` is the payload
    /// of one packet with the options that data segments carry.
    pub(crate) fn poll_retransmit(
        &mut self,
        now: Instant,
        cc: &mut dyn CongestionController,
        packet: u32,
    ) -> Option<Segment<M>> {
        if !self.is_synchronized() && self.state() != State::TimeWait {
            return None;
        }
        if self.probe_wanted {
            self.probe_wanted = false;
            if let Some(chunk) = self.board.tail_probe(packet as usize) {
                self.tail.sent(self.board.nxt(), true, self.timestamp_now(now));
                return Some(self.retransmit(now, chunk, cc));
            }
        }
        if self.frto.holds_back() {
            return None;
        }
        let room = self.congestion_room(cc);
        let packet = u64::from(packet);
        let budget = if self.resend_first { room.max(packet) } else { room };
        if budget < packet && self.board.in_flight() > 0 {
            return None;
        }
        if !self.resend_first && self.pacer.next_send(now) > now {
            return None;
        }
        let max = self.segment_limit(cc, packet as u32);
        let max = u64::from(max).min(budget.max(packet) / packet * packet);
        let chunk = self.board.next_lost(max as usize)?;
        self.resend_first = false;
        Some(self.retransmit(now, chunk, cc))
    }

    fn retransmit(
        &mut self,
        now: Instant,
        chunk: super::scoreboard::Chunk<Option<M>>,
        cc: &mut dyn CongestionController,
    ) -> Segment<M> {
        self.board.retransmitted(now, chunk.range.clone());
        let len = chunk.payload.len() as u64;
        self.prr_budget = self.prr_budget.saturating_sub(len);
        self.prr.on_sent(len);
        self.stats.bytes_retransmitted += len;
        cc.on_sent(now, self.id, len, self.board.in_flight());
        self.pace(now, cc, len);
        if self.timers.retransmit.is_none() {
            self.arm_retransmit(now);
        }
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

    /// A segment of new data should go out now, before anything is sent again and whatever the congestion window: as a
    /// tail loss probe (RFC 8985 §7.3) or for F-RTO (RFC 5682 §3.1 step 2b).
    pub(crate) fn wants_new_data(&self) -> bool {
        self.can_send_data() && (self.probe_wanted || self.frto.wants_new_data())
    }

    /// That segment was sent.
    pub(crate) fn new_data_sent(&mut self, now: Instant) {
        if core::mem::take(&mut self.probe_wanted) {
            self.tail.sent(self.board.nxt(), false, self.timestamp_now(now));
            self.arm_retransmit(now);
        } else {
            self.frto.new_data_sent();
        }
    }

    /// There is none, or no window for it: a tail loss probe repeats old data instead, and F-RTO ends.
    pub(crate) fn no_new_data(&mut self) {
        self.frto.no_new_data();
    }

    fn pace(&mut self, now: Instant, cc: &dyn CongestionController, bytes: u64) {
        if let Some(rate) = self.pacing_rate(cc) {
            self.pacer.set_rate(rate);
            self.pacer.on_sent(now, bytes);
        }
    }

    /// Payload bytes of the largest segment worth sending at the current rate: a multiple of `packet`.
    ///
    /// It is never more than a quarter of the congestion window. A segment becomes a burst that the receiver may answer with
    /// one ACK, and where a window is one or two such bursts, a single lost ACK leaves nothing to be clocked by.
    pub(crate) fn segment_limit(&self, cc: &dyn CongestionController, packet: u32) -> u32 {
        if self.ecn.owes_cwr() {
            return packet;
        }
        let share = u32::try_from(cc.window(self.id) / SEGMENTS_PER_WINDOW).unwrap_or(u32::MAX);
        let max = (self.config.max_segment.min(share) / packet * packet).max(packet);
        super::pacing::segment_size(self.pacing_rate(cc), packet, max as usize) as u32
    }

    /// When new data may leave, as pacing has it.
    pub(crate) fn next_send(&self, now: Instant) -> Instant {
        self.pacer.next_send(now)
    }

    /// Sends new data. The caller has checked windows and pacing.
    pub(crate) fn send_data(
        &mut self,
        now: Instant,
        payload: Payload,
        tag: Option<M>,
        push: bool,
        app_limited: bool,
        cc: &mut dyn CongestionController,
    ) -> Segment<M> {
        let len = payload.len() as u64;
        if self.board.is_empty() {
            self.progress = now;
        }
        self.small_allowed = false;
        let range = self.board.push(now, payload.clone(), false, false, tag, app_limited);
        self.stats.bytes_sent += len;
        self.prr_budget = self.prr_budget.saturating_sub(len);
        self.prr.on_sent(len);
        let in_flight = self.board.in_flight();
        if range.start >= self.limited.until {
            self.limited = super::WindowUse { max_in_flight: 0, full: false, until: self.board.nxt() };
        }
        self.limited.max_in_flight = self.limited.max_in_flight.max(in_flight);
        self.limited.full |= in_flight + u64::from(self.send_mss) > cc.window(self.id);
        cc.on_sent(now, self.id, len, in_flight);
        self.pace(now, cc, len);
        if self.timers.retransmit.is_none() || self.timers.tail_probe.is_some() {
            self.arm_retransmit(now);
        }
        self.pmtu.on_sent(range.end, len);
        let flags = TcpFlags { psh: push, ..TcpFlags::ACK };
        Segment { kind: Kind::Data, seq: range.start, flags, payload, tag, fresh: true }
    }

    /// The FIN, once everything given to the subflow has been sent at least once.
    pub(crate) fn poll_fin(&mut self, now: Instant) -> Option<Segment<M>> {
        if !self.fin_wanted || self.fin_sent || !matches!(self.state(), State::Established | State::CloseWait)
        {
            return None;
        }
        if self.board.is_empty() {
            self.progress = now;
        }
        let range = self.board.push(now, Payload::new(), false, true, None, true);
        self.fin_sent = true;
        self.life.on(Event::FinSent);
        self.stop_persist();
        if self.timers.retransmit.is_none() {
            self.arm_retransmit(now);
        }
        Some(Segment {
            kind: Kind::Ack,
            seq: range.start,
            flags: TcpFlags { fin: true, ..TcpFlags::ACK },
            payload: Payload::new(),
            tag: None,
            fresh: false,
        })
    }

    /// A pure ACK that is due, or a probe that makes the peer send one.
    pub(crate) fn poll_ack(&mut self) -> Option<Segment<M>> {
        if matches!(self.state(), State::SynSent | State::SynReceived | State::Closed) {
            return None;
        }
        if self.ack == AckOwed::Now {
            return Some(self.pure_ack());
        }
        if self.persist_wanted || self.keepalive_wanted {
            self.persist_wanted = false;
            self.keepalive_wanted = false;
            // A sequence number just below the window makes the peer acknowledge (RFC 9293 §3.8.4).
            let seq = SubflowOffset(self.board.una().0.saturating_sub(1));
            return Some(self.without_payload(Kind::Probe, seq));
        }
        None
    }

    /// A pure ACK, due or not.
    pub(crate) fn pure_ack(&self) -> Segment<M> {
        self.without_payload(Kind::Ack, self.board.nxt())
    }

    fn without_payload(&self, kind: Kind, seq: SubflowOffset) -> Segment<M> {
        Segment { kind, seq, flags: TcpFlags::ACK, payload: Payload::new(), tag: None, fresh: false }
    }

    /// Notes that a segment carrying the current ACK and `window` (already scaled down) left. `silent`: it had no room for SACK
    /// blocks that there are. An ACK of its own follows then where one was due: the sender's recovery lives on these blocks,
    /// and where data flow both ways there may be hardly any other ACK.
    pub(crate) fn on_ack_sent(&mut self, window: u16, silent: bool) {
        self.on_window_sent(window);
        self.last_ack_sent = self.rcv_next;
        self.unacked_bytes = 0;
        if silent && self.ack == AckOwed::Now {
            return;
        }
        self.timers.delayed_ack = None;
        self.duplicate = None;
        // Without SACK the peer counts duplicate ACKs, so each is sent (RFC 5681 §3.2); with it one says everything.
        self.acks_now = if self.sack { 0 } else { self.acks_now.saturating_sub(1) };
        self.ack = if self.acks_now > 0 { AckOwed::Now } else { AckOwed::No };
    }

    /// Notes that a SYN/ACK, or the SYN of a simultaneous open, left with `window`, which is never scaled (RFC 7323 §2.2).
    pub(crate) fn on_syn_window_sent(&mut self, window: u16) {
        self.last_ack_sent = self.rcv_next;
        self.rcv_edge = self.rcv_edge.max(self.rcv_next + u64::from(window));
    }

    /// Notes that a segment offered `window` (already scaled down).
    pub(crate) fn on_window_sent(&mut self, window: u16) {
        let window = u64::from(window) << self.receive_scale();
        self.rcv_edge = self.rcv_edge.max(self.rcv_next + window);
    }

    /// The scale that applies to windows we send (RFC 7323 §2.2: only when both SYNs carried the option).
    pub(crate) fn receive_scale(&self) -> u8 {
        if self.peer_scale_ok { self.config.window_scale } else { 0 }
    }

    /// TCP options other than MPTCP's and SACK's.
    pub(crate) fn base_options(&self, now: Instant, kind: Kind) -> TcpOptions {
        let mut o = TcpOptions::default();
        let stamp = Timestamps { value: self.timestamp_now(now), echo: self.ts_recent };
        match kind {
            Kind::Syn => {
                o.mss = Some(self.config.mss.min(65535) as u16);
                o.window_scale = Some(self.config.window_scale);
                o.sack_permitted = true;
                o.timestamps = Some(Timestamps { echo: 0, ..stamp });
            }
            Kind::SynAck => {
                o.mss = Some(self.config.mss.min(65535) as u16);
                o.window_scale = self.peer_scale_ok.then_some(self.config.window_scale);
                o.sack_permitted = self.sack;
                o.timestamps = self.timestamps.then_some(stamp);
            }
            Kind::Data | Kind::Ack | Kind::Probe => o.timestamps = self.timestamps.then_some(stamp),
        }
        o
    }

    /// Adds as many SACK blocks as `space` bytes of options hold, a D-SACK first (RFC 2018 §3, RFC 2883 §4).
    pub(crate) fn add_sack(&self, options: &mut TcpOptions, space: usize) {
        if !self.sack || (self.rcv_queue.is_empty() && self.duplicate.is_none()) {
            return;
        }
        let max = (space.saturating_sub(4) / 8).min(4);
        let wire = |o: SubflowOffset| o.to_wire(self.irs);
        if max > 0
            && let Some(d) = &self.duplicate
        {
            options.sack.push((wire(d.start), wire(d.end)));
        }
        for r in self.rcv_queue.sack_blocks(max.saturating_sub(options.sack.len())) {
            options.sack.push((wire(SubflowOffset(r.start)), wire(SubflowOffset(r.end))));
        }
    }

    /// How many SACK blocks there are to report.
    pub(crate) fn sack_count(&self) -> usize {
        if !self.sack {
            return 0;
        }
        usize::from(self.duplicate.is_some()) + self.rcv_queue.sack_blocks(4).len()
    }

    /// The TCP header of a planned segment, without options.
    pub(crate) fn repr(&self, segment: &Segment<M>, window: u16, options: TcpOptions) -> TcpRepr {
        TcpRepr {
            src_port: self.tuple.local.port(),
            dst_port: self.tuple.remote.port(),
            seq: self.wire_seq(segment.seq),
            ack: if segment.flags.ack { self.wire_ack() } else { SeqNumber(0) },
            flags: segment.flags,
            window,
            urgent: 0,
            options,
        }
    }
}

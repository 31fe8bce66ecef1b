//! What a subflow sends next, apart from MPTCP options, which the connection adds.

use super::control_block::Tcp;
use super::segment::{Kind, NewData, Segment};
use super::sender::transmit::Sizes;
use super::state::{Event, State};
use super::timers::Timer;
use crate::wire::tcp::{TcpFlags, TcpOptions, TcpRepr};
use core::fmt::Debug;
use umptcp_congestion::CongestionController;
use umptcp_types::{Instant, SeqNumber, SubflowOffset};

/// SACK blocks that options have room for at most, and bytes of each, after the option's padded header.
const MAX_SACK_BLOCKS: usize = 4;
const SACK_BLOCK: usize = 8;
const SACK_HEADER: usize = 4;

impl<M: Copy + Debug> Tcp<M> {
    /// The SYN or SYN/ACK, for the first time or again. `None` when none is due.
    pub(crate) fn poll_handshake(&mut self, now: Instant) -> Option<Segment<M>> {
        let (kind, mut flags) = match self.state() {
            State::SynSent => (Kind::Syn, TcpFlags::SYN),
            State::SynReceived => (Kind::SynAck, TcpFlags::SYN_ACK),
            _ => return None,
        };
        if !self.sender.poll_handshake(self.moment(now), &mut self.timers) {
            return None;
        }
        match kind {
            Kind::Syn => self.sender.mark_syn(self.config.ecn, &mut flags),
            _ => self.sender.mark_syn_ack(&mut flags),
        }
        Some(Segment::bare(kind, SubflowOffset(0), flags))
    }

    /// The SYN/ACK went out with this window before there was any state (SYN cookies).
    pub(crate) fn syn_ack_sent_before(&mut self, now: Instant, window: u16) {
        self.sender.syn_ack_sent_before(self.moment(now), &mut self.timers);
        self.receiver.offered_before(u64::from(window));
        self.acker.on_syn_sent(self.receiver.next());
    }

    /// The next segment of what was lost, or a tail loss probe, if window and pacing allow. `packet` is the
    /// payload of one packet with the options that data segments carry.
    pub(crate) fn poll_retransmit(
        &mut self,
        now: Instant,
        cc: &mut dyn CongestionController,
        packet: u32,
    ) -> Option<Segment<M>> {
        if !self.is_synchronized() && self.state() != State::TimeWait {
            return None;
        }
        let sizes = self.sizes(packet);
        self.sender.poll_retransmit(self.moment(now), &mut self.timers, cc, sizes)
    }

    /// Payload bytes of the largest segment worth sending at the current rate: a multiple of `packet`.
    pub(crate) fn segment_limit(&self, cc: &dyn CongestionController, packet: u32) -> u32 {
        self.sender.segment_limit(cc, self.sizes(packet))
    }

    fn sizes(&self, packet: u32) -> Sizes {
        Sizes { packet, max_segment: self.config.max_segment }
    }

    /// Sends new data. The caller has checked windows and pacing.
    pub(crate) fn send_data(
        &mut self,
        now: Instant,
        data: NewData<M>,
        cc: &mut dyn CongestionController,
    ) -> Segment<M> {
        self.sender.send_data(self.moment(now), data, &mut self.timers, cc)
    }

    /// The FIN, once everything given to the subflow has been sent at least once.
    pub(crate) fn poll_fin(&mut self, now: Instant) -> Option<Segment<M>> {
        if !self.sender.fin_due() || !matches!(self.state(), State::Established | State::CloseWait) {
            return None;
        }
        let segment = self.sender.send_fin(self.moment(now), &mut self.timers);
        self.life.on(Event::FinSent);
        Some(segment)
    }

    /// A pure ACK that is due, or a probe that makes the peer send one.
    pub(crate) fn poll_ack(&mut self) -> Option<Segment<M>> {
        if matches!(self.state(), State::SynSent | State::SynReceived | State::Closed) {
            return None;
        }
        if self.acker.owes_now() { Some(self.pure_ack()) } else { self.sender.poll_probe() }
    }

    /// A pure ACK, due or not.
    pub(crate) fn pure_ack(&self) -> Segment<M> {
        self.sender.pure_ack()
    }

    /// A segment with the current ACK and `window` (already scaled down) was sent. `silent`: it had no room
    /// for the SACK blocks we have. If an ACK was due, a separate one follows then: the peer's recovery
    /// depends on these blocks, and if data flow both ways there may be hardly any other ACK.
    pub(crate) fn on_ack_sent(&mut self, window: u16, silent: bool) {
        self.on_window_sent(window);
        if self.acker.on_sent(self.receiver.next(), self.handshake.sack(), silent) {
            self.timers.stop(Timer::DelayedAck);
            self.receiver.on_ack_sent();
        }
    }

    /// A SYN/ACK, or the SYN of a simultaneous open, was sent with `window`, which is never scaled (RFC 7323
    /// §2.2).
    pub(crate) fn on_syn_window_sent(&mut self, window: u16) {
        self.acker.on_syn_sent(self.receiver.next());
        self.receiver.on_window_sent(u64::from(window));
    }

    /// The SYN of a client was sent, whose window is for what follows the SYN/ACK: data may come with that, before an
    /// ACK of ours (RFC 7413 §4.2.2).
    pub(crate) fn on_first_window_sent(&mut self, window: u16) {
        self.receiver.on_first_window_sent(u64::from(window));
    }

    /// A segment was sent that offers `window` (already scaled down).
    pub(crate) fn on_window_sent(&mut self, window: u16) {
        self.receiver.on_window_sent(u64::from(window) << self.receive_scale());
    }

    /// The scale that applies to windows we send (RFC 7323 §2.2: only when both SYNs carried the option).
    pub(crate) fn receive_scale(&self) -> u8 {
        if self.handshake.scaling() { self.config.window_scale } else { 0 }
    }

    /// TCP options other than MPTCP's and SACK's.
    pub(crate) fn base_options(&self, now: Instant, kind: Kind) -> TcpOptions {
        let mut o = TcpOptions::default();
        match kind {
            Kind::Syn => {
                o.mss = Some(self.config.mss.min(65535) as u16);
                o.window_scale = Some(self.config.window_scale);
                o.sack_permitted = true;
                o.timestamps = Some(self.timestamps.first_option(now));
            }
            Kind::SynAck => {
                o.mss = Some(self.config.mss.min(65535) as u16);
                o.window_scale = self.handshake.scaling().then_some(self.config.window_scale);
                o.sack_permitted = self.handshake.sack();
                o.timestamps = self.timestamps.option(now);
            }
            Kind::Data | Kind::Ack | Kind::Probe => o.timestamps = self.timestamps.option(now),
        }
        o
    }

    /// Adds as many SACK blocks as `space` bytes of options hold.
    pub(crate) fn add_sack(&self, options: &mut TcpOptions, space: usize) {
        if self.handshake.sack() && self.receiver.has_sack_blocks() {
            let max = (space.saturating_sub(SACK_HEADER) / SACK_BLOCK).min(MAX_SACK_BLOCKS);
            options.sack = self.receiver.sack_blocks(max);
        }
    }

    /// How many SACK blocks there are to report.
    pub(crate) fn sack_count(&self) -> usize {
        if self.handshake.sack() { self.receiver.sack_count() } else { 0 }
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

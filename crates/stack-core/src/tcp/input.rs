//! Processing of a received segment, in the order of RFC 9293 §3.10.7.

use super::control_block::Tcp;
use super::outcome::{Disposition, News, Outcome};
use super::segment::Arrival;
use super::sender::ack::Ack;
use super::state::{CloseReason, Event, State};
use crate::wire::tcp::TcpRepr;
use core::fmt::Debug;
use umptcp_congestion::CongestionController;
use umptcp_types::{Duration, Instant, SubflowOffset};

/// A segment, and where it lies in the peer's sequence.
struct Placed<'a> {
    seg: &'a TcpRepr,
    start: SubflowOffset,
    payload: u64,
    /// It carries a signal of the connection's.
    signals: bool,
}

impl Placed<'_> {
    /// SEG.LEN: SYN and FIN count.
    fn len(&self) -> u64 {
        self.payload + u64::from(self.seg.flags.syn) + u64::from(self.seg.flags.fin)
    }

    /// It is nothing but an ACK.
    fn is_pure(&self) -> bool {
        self.len() == 0 && !self.signals
    }
}

impl<M: Copy + Debug> Tcp<M> {
    /// A subflow made by a SYN that came in. The SYN/ACK is sent when the subflow is polled.
    pub(crate) fn accept(mut self, now: Instant, syn: &TcpRepr) -> Self {
        self.life.on(Event::Syn);
        self.take_syn(now, syn);
        self
    }

    /// Learns what the peer's SYN or SYN/ACK says.
    fn take_syn(&mut self, now: Instant, syn: &TcpRepr) {
        self.receiver.on_syn(syn.seq);
        let scale = self.handshake.on_syn(syn);
        self.sender.on_syn(&self.config, self.tuple.remote.is_ipv6(), syn, scale);
        self.timestamps.on_syn(now, syn);
    }

    /// Processes one segment (RFC 9293 §3.10.7).
    pub(crate) fn on_segment(
        &mut self,
        now: Instant,
        arrival: Arrival<'_>,
        cc: &mut dyn CongestionController,
    ) -> Outcome {
        let mut out = Outcome::default();
        out.disposition = match self.state() {
            State::Closed if arrival.seg.flags.rst => Disposition::Dropped,
            State::Closed => Disposition::Reset,
            State::SynSent => self.on_segment_syn_sent(now, arrival.seg, &mut out),
            _ => self.on_segment_synchronized(now, arrival, cc, &mut out),
        };
        if self.sender.has_failed_size_probes() {
            out.news.add(News::SizeProbesFailed);
        }
        out
    }

    /// RFC 9293 §3.10.7.3.
    fn on_segment_syn_sent(&mut self, now: Instant, seg: &TcpRepr, out: &mut Outcome) -> Disposition {
        let sent = self.sender.nxt() > SubflowOffset(0);
        let limit = SubflowOffset(1 + u64::from(self.handshake.syn_data()));
        let ack = self.sender.offset_of(seg.ack).filter(|a| *a >= SubflowOffset(1) && *a <= limit && sent);
        if seg.flags.ack && ack.is_none() {
            if seg.flags.rst {
                return Disposition::Dropped;
            }
            if sent && self.handshake.on_old_ack() {
                // RFC 9293 §3.5.1, figure 9: the peer still has an old connection of these ports (TIME_WAIT,
                // LAST_ACK), which our RST ends. The SYN follows it at once, not when its timer has run out.
                self.sender.repeat_syn();
            }
            return Disposition::Reset;
        }
        let ack = ack.filter(|_| seg.flags.ack);
        if seg.flags.rst {
            if ack.is_none() {
                return Disposition::Dropped;
            }
            self.terminate(CloseReason::Refused);
            return Disposition::Ended;
        }
        if !seg.flags.syn {
            return Disposition::Dropped;
        }
        self.take_syn(now, seg);
        let Some(ack) = ack else {
            // RFC 9293 §3.5, figure 8: simultaneous open.
            self.life.on(Event::Syn);
            self.sender.repeat_syn();
            return Disposition::SimultaneousOpen;
        };
        self.sender.on_syn_ack(now, ack, seg.window, &mut self.timers);
        self.handshake.on_syn_data_acked((ack - SubflowOffset(1)) as u32);
        self.life.on(Event::SynAck);
        out.advanced = true;
        self.acker.owe_now();
        self.heard(now);
        Disposition::Established
    }

    /// RFC 9293 §3.10.7.4.
    fn on_segment_synchronized(
        &mut self,
        now: Instant,
        arrival: Arrival<'_>,
        cc: &mut dyn CongestionController,
        out: &mut Outcome,
    ) -> Disposition {
        let seg = arrival.seg;
        let Some(start) = self.receiver.offset_of(seg.seq) else {
            // Before the SYN: an old duplicate.
            if !seg.flags.rst {
                out.news.add(News::Challenge);
            }
            return Disposition::Dropped;
        };
        let payload = arrival.payload.len() as u64;
        let placed = Placed { seg, start, payload, signals: arrival.signals };
        // RFC 7323 §5.3 R1: PAWS comes before the sequence check, and never for RST.
        let outdated = self.timestamps.outdated(now, seg).filter(|_| !seg.flags.rst && !seg.flags.syn);
        if let Some(age) = outdated
            && !self.is_overtaken_ack(&placed, age)
        {
            out.news.add(News::PawsRejected);
            self.receiver.note_duplicate(start, payload, self.handshake.sack());
            self.acker.owe_now();
            return Disposition::Dropped;
        }
        if self.state() == State::SynReceived && seg.flags.syn && start == SubflowOffset(0) {
            if !seg.flags.ack {
                self.sender.repeat_syn();
                return Disposition::RepeatSynAck;
            }
            // RFC 9293 figure 8: the answer to our SYN of a simultaneous open.
            let disposition = self.process_ack(now, &placed, cc, out);
            if is_acceptable(disposition) {
                self.acker.owe_now();
            }
            return disposition;
        }
        if !self.receiver.sequence_acceptable(start, placed.len()) {
            return self.on_unacceptable(now, &placed, cc, out);
        }
        if seg.flags.rst {
            return self.on_reset(start, out);
        }
        if seg.flags.syn {
            // RFC 5961 §4.2.
            out.news.add(News::Challenge);
            return Disposition::Dropped;
        }
        if !seg.flags.ack {
            return Disposition::Dropped;
        }
        let disposition = self.process_ack(now, &placed, cc, out);
        if !is_acceptable(disposition) {
            return disposition;
        }
        self.timestamps.remember(now, seg, start, self.acker.last_ack_sent());
        self.heard(now);
        if self.state() == State::TimeWait {
            // RFC 9293: a retransmitted FIN restarts the timer and is acknowledged again.
            if seg.flags.fin {
                self.acker.owe_now();
                self.timers.start_time_wait(now);
            }
            return disposition;
        }
        self.take_payload(now, start, arrival, out);
        disposition
    }

    /// A pure ACK with a timestamp that is `age` ticks old was sent before what it comes after, and is no old
    /// duplicate.
    ///
    /// RFC 7323 §5.3 refuses it, since TS.Recent follows the ACKs of a peer that sends no data. But what PAWS
    /// protects from, a sequence number from before the last wrap, such an ACK cannot do: it carries no data,
    /// nor does it acknowledge anything that its successors have not, and its window is older than theirs. On
    /// a path that reorders, though, its SACK blocks are often the only ones that tell of some packets'
    /// arrival, as MPTCP's options leave room for one or two; without them these packets are sent again. It
    /// must be recent: a retransmission timeout is allowed, in ticks as short as ours. With a signal of the
    /// connection's it is refused, since a later one may have revoked that.
    fn is_overtaken_ack(&self, placed: &Placed<'_>, age: u32) -> bool {
        let nothing_new =
            || self.sender.offset_of(placed.seg.ack).is_some_and(|number| number <= self.sender.una());
        self.is_synchronized()
            && placed.is_pure()
            && placed.seg.flags.ack
            && u128::from(age) <= self.sender.rtt().base_rto().as_millis()
            && nothing_new()
    }

    /// RFC 9293 §3.10.7.4, first: a segment outside the window.
    fn on_unacceptable(
        &mut self,
        now: Instant,
        placed: &Placed<'_>,
        cc: &mut dyn CongestionController,
        out: &mut Outcome,
    ) -> Disposition {
        let seg = placed.seg;
        if seg.flags.rst {
            return Disposition::Dropped;
        }
        if placed.payload == 0 {
            let probe = placed.start + 1 == self.receiver.next();
            out.news.add(if probe { News::Probe } else { News::Challenge });
        } else {
            self.receiver.note_duplicate(placed.start, placed.payload, self.handshake.sack());
            self.acker.owe_now();
        }
        let mut disposition = Disposition::Dropped;
        // The ACK of an old duplicate still counts when it is in range: a probe may carry news. So does that
        // of data which come to a closed window (RFC 9293 §3.10.7.4).
        let old = placed.start + placed.len() <= self.receiver.next() || placed.start == self.receiver.next();
        if seg.flags.ack
            && old
            && self.is_synchronized()
            && self.process_ack(now, placed, cc, out) == Disposition::Ended
        {
            disposition = Disposition::Ended;
        }
        self.heard(now);
        disposition
    }

    /// RFC 9293 §3.10.7.4, second: an acceptable RST.
    fn on_reset(&mut self, start: SubflowOffset, out: &mut Outcome) -> Disposition {
        if !self.receiver.may_reset(start, self.handshake.sack()) {
            out.news.add(News::Challenge);
            return Disposition::Dropped;
        }
        match self.state() {
            // Only our FIN is outstanding; the peer has merely forgotten us.
            State::Closing | State::LastAck if self.sender.nxt() - self.sender.una() <= 1 => {
                self.life.on(Event::Ended);
            }
            State::SynReceived => self.terminate(CloseReason::Refused),
            _ => self.terminate(CloseReason::Reset),
        }
        Disposition::Ended
    }

    /// RFC 9293 §3.10.7.4, fifth check.
    fn process_ack(
        &mut self,
        now: Instant,
        placed: &Placed<'_>,
        cc: &mut dyn CongestionController,
        out: &mut Outcome,
    ) -> Disposition {
        let Some(number) = self.sender.offset_of(placed.seg.ack) else {
            out.news.add(News::Challenge);
            return Disposition::Dropped;
        };
        let first = self.state() == State::SynReceived;
        if first {
            // More than the SYN only with Fast Open.
            if number < SubflowOffset(1) || number > self.sender.nxt() {
                return Disposition::Reset;
            }
            self.life.on(Event::AckOfSyn);
        } else if !self.sender.ack_acceptable(number) {
            // RFC 5961 §5.2.
            out.news.add(News::Challenge);
            return Disposition::Dropped;
        }
        let (seg, start) = (placed.seg, placed.start);
        let overtaken = number < self.sender.una() || self.timestamps.outdated(now, seg).is_some();
        if overtaken && !first && seg.options.sack.is_empty() {
            return Disposition::Accepted;
        }
        let echo = self.timestamps.echo(seg).filter(|_| !overtaken);
        let pure = placed.is_pure() && !overtaken;
        let ack = Ack { seg, start, number, echo, pure, first, overtaken };
        if self.sender.on_ack(self.moment(now), ack, &mut self.timers, cc, out) {
            match self.life.on(Event::AckOfFin) {
                State::TimeWait => self.timers.start_time_wait(now),
                State::Closed => return Disposition::Ended,
                _ => {}
            }
        }
        if first { Disposition::Established } else { Disposition::Accepted }
    }

    /// RFC 9293 §3.10.7.4, seventh and eighth: payload and FIN.
    fn take_payload(&mut self, now: Instant, start: SubflowOffset, arrival: Arrival<'_>, out: &mut Outcome) {
        let Arrival { seg, payload, marked, .. } = arrival;
        let len = payload.len();
        if len > 0 {
            self.payload_at = Some(now);
        }
        if len > 0 && self.sender.on_ecn_data(marked, seg.flags) {
            self.acker.owe_now();
        }
        let sack = self.handshake.sack();
        let taken = self.receiver.take(start, payload, seg.flags.fin, sack, &mut out.delivered);
        if taken.refused {
            out.news.add(News::PayloadRefused);
        }
        if taken.after_fin {
            self.acker.owe_now();
            return;
        }
        if taken.fin {
            out.fin = true;
            if self.life.on(Event::Fin) == State::TimeWait {
                self.timers.start_time_wait(now);
            }
            self.acker.owe_now();
        }
        if len > 0 {
            if let Some(echo) = self.timestamps.echo(seg) {
                let age = Duration::from_millis(u64::from(self.timestamps.stamp(now).wrapping_sub(echo)));
                self.receive_rtt.on_payload(now, echo, age);
            }
            let mss = self.sender.mss().min(self.config.mss);
            let duplicate = self.receiver.has_duplicate();
            if self.acker.on_payload(len, mss, taken.out_of_order, duplicate) {
                self.timers.delay_ack(now);
            }
        }
    }
}

/// The segment is acceptable as far as its ACK goes. One that acknowledges the last FIN still is, and its
/// payload is looked at.
fn is_acceptable(disposition: Disposition) -> bool {
    matches!(disposition, Disposition::Accepted | Disposition::Established | Disposition::Ended)
}

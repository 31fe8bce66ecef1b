//! Processing of a received segment, in the order of RFC 9293 §3.10.7.

use super::acknowledge::Undone;
use super::pmtu::PathMtu;
use super::state::Event;
use super::{AckOwed, CloseReason, State, Tcp, default_mss};
use crate::buffers::payload::Payload;
use crate::wire::tcp::TcpRepr;
use bytes::Bytes;
use core::fmt::Debug;
use smallvec::SmallVec;
use umptcp_congestion::CongestionController;
use umptcp_types::{Duration, Instant, SubflowOffset};

/// A segment that came in.
#[derive(Debug)]
pub(crate) struct Arrival<'a> {
    /// Its header.
    pub(crate) seg: &'a TcpRepr,
    /// Its payload.
    pub(crate) payload: Bytes,
    /// The packet bears a congestion mark (RFC 3168 §5: CE).
    pub(crate) marked: bool,
    /// Its options carry a signal of the connection's, so that it is no duplicate ACK (RFC 8684 §3.4.1).
    pub(crate) signals: bool,
}

/// What a segment brought about.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Neither payload nor SYN nor FIN nor a signal of the connection's.
    pub(crate) pure: bool,
    /// It changes the window.
    pub(crate) window_changed: bool,
    /// The segment was acceptable: its MPTCP options count.
    pub(crate) acceptable: bool,
    /// The handshake is complete with this segment.
    pub(crate) established: bool,
    /// Bytes that are now in order, with their offsets.
    pub(crate) delivered: SmallVec<[(SubflowOffset, Bytes); 4]>,
    /// The peer's FIN is in order now.
    pub(crate) fin: bool,
    /// Bytes newly acknowledged or SACKed.
    pub(crate) acked: u64,
    /// SND.UNA advanced.
    pub(crate) advanced: bool,
    /// The subflow ended (see `close_reason`).
    pub(crate) ended: bool,
    /// Answer with a RST whose sequence number is the segment's ACK.
    pub(crate) reset: bool,
    /// A challenge ACK (RFC 5961) is due, if the rate limit allows.
    pub(crate) challenge: bool,
    /// Out-of-order payload was dropped: too many pieces are held.
    pub(crate) refused: bool,
    /// Counted by the caller: PAWS rejection.
    pub(crate) paws: bool,
    /// Fast recovery began.
    pub(crate) recovery: bool,
    /// A recovery turned out to be needless and was undone.
    pub(crate) undone: Option<Undone>,
    /// The window was reduced because the peer reports congestion marks.
    pub(crate) congestion_marked: bool,
    /// A tail loss probe repaired a loss.
    pub(crate) probe_repaired: bool,
    /// A probe showed that the path carries larger packets.
    pub(crate) larger_packets: bool,
    /// A duplicate SYN of a half-open subflow: answer it again.
    pub(crate) repeat_syn_ack: bool,
    /// Both ends sent a SYN (RFC 9293 §3.5).
    pub(crate) simultaneous_open: bool,
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
        self.irs = syn.seq;
        self.rcv_next = SubflowOffset(1);
        self.rcv_edge = self.rcv_edge.max(SubflowOffset(1));
        let o = &syn.options;
        let peer_mss = o.mss.map_or(default_mss(self.tuple.remote.is_ipv6()), u32::from);
        // A hostile MSS of a few bytes would make us send almost nothing but headers; Linux's floor is 48.
        self.send_mss = peer_mss.min(self.config.mss).max(48);
        self.pmtu = PathMtu::new(self.send_mss, self.tuple.remote.is_ipv6(), self.config.mtu_probe_interval);
        self.ecn.on_syn(self.config.ecn, syn.flags);
        self.board.set_mss(self.send_mss);
        self.pacer.set_mss(self.send_mss);
        self.peer_scale_ok = o.window_scale.is_some();
        self.send_scale = o.window_scale.unwrap_or(0).min(super::MAX_WINDOW_SCALE);
        self.sack = o.sack_permitted;
        if let Some(ts) = o.timestamps {
            self.timestamps = true;
            self.ts_recent = ts.value;
            self.ts_recent_at = now;
        }
        // RFC 7323 §2.2: the window of a SYN is never scaled.
        self.max_send_window = u64::from(syn.window);
        self.window_update = (SubflowOffset(0), SubflowOffset(0));
        self.send_edge = SubflowOffset(1) + u64::from(syn.window);
    }

    /// The SYN that came in carried `n` bytes, which are accepted (RFC 7413).
    pub(crate) fn syn_data_received(&mut self, n: u64) {
        self.rcv_next += n;
        self.rcv_edge = self.rcv_edge.max(self.rcv_next);
        self.stats.bytes_received += n;
    }

    /// Our SYN carried `payload`, and the SYN/ACK acknowledged it (RFC 7413). The scoreboard hears of it only now, so that what
    /// is not acknowledged needs no taking back.
    pub(crate) fn syn_data_delivered(&mut self, now: Instant, payload: Payload) {
        let n = payload.len() as u64;
        let end = self.board.push(now, payload, false, false, None, true).end;
        self.board.on_ack(now, end, &[], None);
        self.round_end = end;
        self.stats.bytes_sent += n;
        self.stats.bytes_acked += n;
    }

    /// Processes one segment (RFC 9293 §3.10.7).
    pub(crate) fn on_segment(
        &mut self,
        now: Instant,
        arrival: Arrival<'_>,
        cc: &mut dyn CongestionController,
    ) -> Outcome {
        let Arrival { seg, payload, marked, signals } = arrival;
        let pure = payload.is_empty() && !seg.flags.syn && !seg.flags.fin && !signals;
        let mut out = Outcome { pure, ..Outcome::default() };
        match self.state() {
            State::Closed => out.reset = !seg.flags.rst,
            State::SynSent => self.on_segment_syn_sent(now, seg, cc, &mut out),
            _ => self.on_segment_synchronized(now, Arrival { seg, payload, marked, signals }, cc, &mut out),
        }
        out
    }

    /// RFC 9293 §3.10.7.3.
    fn on_segment_syn_sent(
        &mut self,
        now: Instant,
        seg: &TcpRepr,
        cc: &mut dyn CongestionController,
        out: &mut Outcome,
    ) {
        let ack = SubflowOffset::from_wire(seg.ack, self.config.isn, self.board.una());
        let limit = SubflowOffset(1 + u64::from(self.syn_data));
        let in_range = ack.is_some_and(|a| a >= SubflowOffset(1) && a <= limit);
        let ack_ok = seg.flags.ack && in_range && self.board.nxt() >= SubflowOffset(1);
        if seg.flags.ack && !ack_ok {
            out.reset = !seg.flags.rst;
            if out.reset
                && self.board.nxt() > SubflowOffset(0)
                && self.syns_after_old_ack < super::SYNS_AFTER_OLD_ACK
            {
                // RFC 9293 §3.5.1, figure 9: the peer still has an old connection of these ports (TIME_WAIT, LAST_ACK),
                // which our RST ends. The SYN follows it at once, not when its timer has run out.
                self.syns_after_old_ack += 1;
                self.board.mark_all_lost();
                self.resend_first = true;
            }
            return;
        }
        if seg.flags.rst {
            if ack_ok {
                self.terminate(CloseReason::Refused);
                out.ended = true;
            }
            return;
        }
        if !seg.flags.syn {
            return;
        }
        self.take_syn(now, seg);
        out.acceptable = true;
        if seg.flags.ack {
            let o = self.board.on_ack(now, SubflowOffset(1), &[], None);
            if let Some(rtt) = o.rtt {
                self.rtt.sample(now, rtt);
            }
            self.rtt.reset_back_off();
            self.progress = now;
            self.timers.retransmit = None;
            self.resend_first = false;
            // With Fast Open it may acknowledge data too (RFC 7413 §4.2.2).
            let ack = ack.unwrap_or(SubflowOffset(1));
            self.syn_data_acked = (ack - SubflowOffset(1)) as u32;
            self.send_edge = ack + u64::from(seg.window);
            self.window_update = (SubflowOffset(0), ack);
            self.life.on(Event::SynAck);
            out.established = true;
            out.advanced = true;
            self.round_end = self.board.nxt();
            self.ack_now();
            self.heard(now);
            let _ = cc;
        } else {
            // RFC 9293 §3.5, figure 8: simultaneous open.
            self.life.on(Event::Syn);
            self.resend_first = true;
            self.board.mark_all_lost();
            out.simultaneous_open = true;
        }
    }

    /// RFC 9293 §3.10.7.4.
    fn on_segment_synchronized(
        &mut self,
        now: Instant,
        arrival: Arrival<'_>,
        cc: &mut dyn CongestionController,
        out: &mut Outcome,
    ) {
        let Arrival { seg, payload, marked, signals } = arrival;
        let Some(start) = SubflowOffset::from_wire(seg.seq, self.irs, self.rcv_next) else {
            // Before the SYN: an old duplicate.
            if !seg.flags.rst {
                out.challenge = true;
            }
            return;
        };
        let len = payload.len() as u64 + u64::from(seg.flags.syn) + u64::from(seg.flags.fin);
        // RFC 7323 §5.3 R1: PAWS comes before the sequence check, and never for RST.
        if self.paws_rejects(now, seg) && !seg.flags.rst && !seg.flags.syn {
            out.paws = true;
            self.note_duplicate(start, payload.len() as u64);
            self.ack_now();
            return;
        }
        if self.state() == State::SynReceived && seg.flags.syn && !seg.flags.ack && start == SubflowOffset(0)
        {
            out.repeat_syn_ack = true;
            self.board.mark_all_lost();
            self.resend_first = true;
            return;
        }
        if self.state() == State::SynReceived && seg.flags.syn && seg.flags.ack && start == SubflowOffset(0) {
            // RFC 9293 figure 8: the answer to our SYN of a simultaneous open.
            if self.process_ack(now, seg, start, cc, out) {
                out.acceptable = true;
                self.ack_now();
            }
            return;
        }
        if !self.sequence_acceptable(start, len) {
            if seg.flags.rst {
                return;
            }
            if payload.is_empty() {
                // Keep-alive and window probes end here too; the answer is the same.
                out.challenge = true;
            } else {
                self.note_duplicate(start, payload.len() as u64);
                self.ack_now();
            }
            // The ACK of an old duplicate still counts when it is in range: a probe may carry news.
            if seg.flags.ack && start + len <= self.rcv_next && self.is_synchronized() {
                self.process_ack(now, seg, start, cc, out);
            }
            self.heard(now);
            return;
        }
        if seg.flags.rst {
            // RFC 5961 §3.2: only the exact sequence number resets.
            if start == self.rcv_next || self.heard_up_to() == Some(start) {
                out.acceptable = true;
                match self.state() {
                    // RFC 9293 §3.10.7.4, second: only our FIN is outstanding; the peer has merely forgotten us.
                    State::Closing | State::LastAck if self.board.nxt() - self.board.una() <= 1 => {
                        self.life.on(Event::Ended);
                    }
                    State::SynReceived => self.terminate(CloseReason::Refused),
                    _ => self.terminate(CloseReason::Reset),
                }
                out.ended = true;
            } else {
                out.challenge = true;
            }
            return;
        }
        if seg.flags.syn {
            // RFC 5961 §4.2.
            out.challenge = true;
            return;
        }
        if !seg.flags.ack {
            return;
        }
        if !self.process_ack(now, seg, start, cc, out) {
            return;
        }
        out.acceptable = true;
        self.remember_timestamp(now, seg, start);
        self.heard(now);
        if self.state() == State::TimeWait {
            // RFC 9293: a retransmitted FIN restarts the timer and is acknowledged again.
            if seg.flags.fin {
                self.ack_now();
                self.enter_time_wait(now);
            }
            return;
        }
        self.take_payload(now, start, Arrival { seg, payload, marked, signals }, out);
    }

    /// RFC 9293 §3.10.7.4, first check: table of acceptable segments.
    fn sequence_acceptable(&self, start: SubflowOffset, len: u64) -> bool {
        let window = self.rcv_edge - self.rcv_next;
        match (len, window) {
            (0, 0) => start == self.rcv_next,
            (0, _) => self.rcv_next <= start && start <= self.rcv_edge,
            (_, 0) => false,
            _ => start < self.rcv_edge && start + len > self.rcv_next,
        }
    }

    /// Where the peer's next segment would begin, when some before it are missing. A peer that resets has that for its next
    /// number, not ours: taken for one of a stranger's, its RST would be lost together with the reason it gives (MP_TCPRST,
    /// MP_FAIL), since it knows no connection any more when the challenge reaches it. To somebody off the path it is one more number
    /// of 2³² that hits. Only with SACK, which has shown this edge to the peer; Linux does the same.
    fn heard_up_to(&self) -> Option<SubflowOffset> {
        let end = match self.rcv_fin {
            Some(fin) => Some(fin + 1),
            None => self.rcv_queue.end().map(SubflowOffset),
        };
        end.filter(|_| self.sack)
    }

    fn paws_rejects(&self, now: Instant, seg: &TcpRepr) -> bool {
        let (true, Some(ts)) = (self.timestamps, seg.options.timestamps) else { return false };
        // RFC 7323 §5.5: after 24 idle days TS.Recent is invalid.
        let fresh = now - self.ts_recent_at < Duration::from_secs(24 * 24 * 3600);
        fresh && (ts.value.wrapping_sub(self.ts_recent) as i32) < 0
    }

    /// RFC 7323 §4.3: TS.Recent comes from segments that span Last.ACK.sent.
    fn remember_timestamp(&mut self, now: Instant, seg: &TcpRepr, start: SubflowOffset) {
        let (true, Some(ts)) = (self.timestamps, seg.options.timestamps) else { return };
        if start <= self.last_ack_sent && (ts.value.wrapping_sub(self.ts_recent) as i32) >= 0 {
            self.ts_recent = ts.value;
            self.ts_recent_at = now;
        }
    }

    /// RFC 2883 §4: the duplicate that the next ACK reports, as far as it is one: what was refused as too old (PAWS) or beyond the
    /// window was not received, and the sender would take the block for a SACK.
    fn note_duplicate(&mut self, start: SubflowOffset, len: u64) {
        let end = (start + len).min(self.rcv_next);
        if self.sack && start < end {
            self.duplicate = Some(start..end);
        }
    }

    /// RFC 9293 §3.10.7.4, fifth check. False: the segment is dropped.
    fn process_ack(
        &mut self,
        now: Instant,
        seg: &TcpRepr,
        start: SubflowOffset,
        cc: &mut dyn CongestionController,
        out: &mut Outcome,
    ) -> bool {
        let una = self.board.una();
        let Some(ack) = SubflowOffset::from_wire(seg.ack, self.config.isn, una) else {
            out.challenge = true;
            return false;
        };
        if self.state() == State::SynReceived {
            // More than the SYN only with Fast Open.
            if ack < SubflowOffset(1) || ack > self.board.nxt() {
                out.reset = true;
                return false;
            }
            self.life.on(Event::AckOfSyn);
            out.established = true;
            self.window_update = (start, ack);
            self.round_end = self.board.nxt();
        } else if ack > self.board.nxt() || ack.0 + self.max_send_window < una.0 {
            // RFC 5961 §5.2.
            out.challenge = true;
            return false;
        }
        if ack < una {
            return true;
        }
        let (wl1, wl2) = self.window_update;
        if start > wl1 || (start == wl1 && ack >= wl2) || out.established {
            let window = u64::from(seg.window) << self.send_scale;
            out.window_changed = self.send_edge != ack + window;
            self.max_send_window = self.max_send_window.max(window);
            self.send_edge = ack + window;
            self.window_update = (start, ack);
            if window > 0 && self.send_edge > self.board.nxt() {
                self.stop_persist();
            } else if self.timers.persist.is_some() {
                // RFC 9293 §3.8.6.1: a peer that answers probes is alive, however long its window stays shut.
                self.progress = now;
            }
        }
        self.on_acknowledged(now, seg, ack, cc, out);
        true
    }

    pub(super) fn on_fin_acked(&mut self, now: Instant, out: &mut Outcome) {
        match self.life.on(Event::AckOfFin) {
            State::TimeWait => self.enter_time_wait(now),
            State::Closed => out.ended = true,
            _ => {}
        }
    }

    /// RFC 9293 §3.10.7.4, seventh and eighth: payload and FIN.
    fn take_payload(&mut self, now: Instant, start: SubflowOffset, arrival: Arrival<'_>, out: &mut Outcome) {
        let Arrival { seg, payload, marked, .. } = arrival;
        let end = start + payload.len() as u64;
        if !payload.is_empty() && self.ecn.on_data(marked, seg.flags) {
            self.ack_now();
        }
        if seg.flags.fin && self.rcv_fin.is_none() && end < self.rcv_edge + 1 {
            self.rcv_fin = Some(end);
        }
        // Nothing may follow the FIN, nor lie beyond the window.
        let limit = self.rcv_fin.unwrap_or(self.rcv_edge).min(self.rcv_edge);
        if !payload.is_empty() && self.rcv_fin_received() {
            self.note_duplicate(start, payload.len() as u64);
            self.ack_now();
            return;
        }
        let before = self.rcv_next;
        let had_holes = !self.rcv_queue.is_empty();
        if !payload.is_empty() {
            if start <= self.rcv_next && !had_holes && end <= limit {
                // The ordinary case: in order, nothing queued.
                let skip = (self.rcv_next - start) as usize;
                if skip > 0 {
                    self.note_duplicate(start, skip.min(payload.len()) as u64);
                }
                if skip < payload.len() {
                    out.delivered.push((self.rcv_next, payload.slice(skip..)));
                    self.rcv_next = end;
                }
            } else {
                self.queue_payload(start, payload.clone(), limit, out);
            }
            self.unacked_bytes += payload.len() as u64;
        }
        self.stats.bytes_received += self.rcv_next - before;
        if let Some(fin) = self.rcv_fin
            && self.rcv_next == fin
        {
            self.rcv_next += 1;
            self.rcv_edge = self.rcv_edge.max(self.rcv_next);
            self.fin_received = true;
            out.fin = true;
            if self.life.on(Event::Fin) == State::TimeWait {
                self.enter_time_wait(now);
            }
            self.ack_now();
        }
        self.decide_ack(now, payload.len(), had_holes, before);
    }

    fn rcv_fin_received(&self) -> bool {
        self.fin_received
    }

    fn queue_payload(
        &mut self,
        start: SubflowOffset,
        payload: Bytes,
        limit: SubflowOffset,
        out: &mut Outcome,
    ) {
        let inserted = self.rcv_queue.insert(self.rcv_next.0, start.0, payload, limit.0);
        out.refused = inserted.refused;
        if let Some(d) = inserted.duplicate
            && self.sack
        {
            self.duplicate = Some(SubflowOffset(d.start)..SubflowOffset(d.end));
        }
        while let Some(bytes) = self.rcv_queue.pop(self.rcv_next.0) {
            let at = self.rcv_next;
            self.rcv_next += bytes.len() as u64;
            out.delivered.push((at, bytes));
        }
    }

    /// When the ACK goes out (RFC 5681 §4.2): at once for anything out of order, for every second full segment,
    /// while the subflow is new, and for a while after a loss.
    fn decide_ack(&mut self, now: Instant, len: usize, had_holes: bool, before: SubflowOffset) {
        if len == 0 {
            return;
        }
        let out_of_order = !self.rcv_queue.is_empty() || had_holes || self.rcv_next == before;
        // A full segment of the peer's is less than the MSS by its options; more than an MSS was merged from several.
        let mss = self.send_mss.min(self.config.mss);
        let merged = len > mss as usize;
        if !merged {
            self.full_segment = self.full_segment.max(len as u32);
        }
        let enough = merged || self.unacked_bytes >= 2 * u64::from(self.full_segment);
        if out_of_order || enough || self.quick_acks > 0 || self.duplicate.is_some() {
            self.quick_acks = self.quick_acks.saturating_sub(1);
            if out_of_order {
                // After a loss the sender's window is small: to hold an ACK back would stall it, and a coupled
                // controller would take the path for a slower one than it is.
                self.quick_acks = super::QUICK_ACKS;
            }
            if out_of_order { self.ack_now() } else { self.ack = AckOwed::Now }
        } else if self.ack == AckOwed::No {
            self.ack = AckOwed::Later;
            self.timers.delayed_ack = Some(now + super::DELAYED_ACK);
        }
    }
}

//! What a connection sends next, and what goes on it. Which MPTCP options a segment carries is the table in
//! `options`.

use super::connection::Connection;
use super::mapping::{Mapping, Segment};
use super::negotiation::Mode;
use super::options::{Fit, Item, Situation, row};
use crate::context::{Context, Outgoing};
use crate::device::Transmit;
use crate::observe::Counter;
use crate::tcp::Kind;
use crate::wire::mptcp::{Dsn, Dss, DssMapping, MpCapable, MptcpOption, VERSION, dss_pseudo_header};
use crate::wire::tcp::{MAX_OPTIONS, TcpOptions};
use crate::wire::{checksum, ip};
use umptcp_types::{Instant, SubflowOffset};

impl Connection {
    /// The next packet of this connection, or `None` when there is none to send now.
    pub(crate) fn poll_transmit(&mut self, ctx: &mut Context, now: Instant) -> Option<Transmit> {
        self.send.stop_waiting_for_pacing();
        let count = self.subflows.len();
        for k in 0..count {
            let i = self.subflows.in_turn(k);
            if self.subflows[i].is_held_back(ctx) {
                continue;
            }
            let line_rate = ctx.path_rate(self.subflows[i].tcp.path());
            self.subflows[i].tcp.set_line_rate(line_rate);
            if let Some(segment) = self.poll_subflow(ctx, now, i) {
                self.subflows.on_served(i);
                return self.emit(ctx, now, i, segment);
            }
        }
        if let Some((i, segment)) = self.poll_data(ctx, now) {
            return self.emit(ctx, now, i, segment);
        }
        self.poll_fin(now);
        for k in 0..count {
            let i = self.subflows.in_turn(k);
            // A NIC's queue that holds enough of our data takes ACKs: the peer's data depend on them, and they add
            // little. Linux's sockets do not hold theirs back either.
            let busy = self.subflows[i].is_busy(ctx);
            if !busy && self.subflows[i].is_held_back(ctx) {
                continue;
            }
            let m = &mut self.subflows[i];
            let fin = if busy { None } else { m.tcp.poll_fin(now) };
            let segment = match fin {
                Some(segment) => Some(segment),
                None => {
                    let window_probe = m.tcp.window_probe_due();
                    let segment = m.tcp.poll_ack();
                    if window_probe && segment.as_ref().is_some_and(|p| p.kind == Kind::Probe) {
                        let id = Some(m.tcp.id());
                        self.count(ctx, now, id, Counter::WinProbe);
                    }
                    segment
                }
            };
            if let Some(segment) = segment {
                self.subflows.on_served(i);
                return self.emit(ctx, now, i, segment);
            }
        }
        None
    }

    /// Handshake, retransmissions and signals of one subflow.
    fn poll_subflow(&mut self, ctx: &mut Context, now: Instant, i: usize) -> Option<Segment> {
        let packet = self.packet_payload(i);
        let m = &mut self.subflows[i];
        let id = Some(m.tcp.id());
        if self.life.is_awaiting_data() {
            return None;
        }
        if let Some(mut segment) = m.tcp.poll_handshake(now) {
            if segment.kind == Kind::Syn {
                self.add_fast_open(ctx, now, i, &mut segment);
            }
            return Some(segment);
        }
        if self.life.fast_close().is_some() {
            // RFC 8684 §3.5: FASTCLOSE_WAIT. Nothing is left to say but that.
            return (!m.signals.is_empty()).then(|| m.tcp.pure_ack());
        }
        if m.tcp.wants_new_data() {
            if m.tcp.tail_probe_due() {
                self.count(ctx, now, id, Counter::TcpLossProbes);
            }
            if let Some(segment) = self.poll_forward(now, i) {
                return Some(segment);
            }
        }
        let m = &mut self.subflows[i];
        let probe = m.tcp.tail_probe_due();
        if let Some(segment) = m.tcp.poll_retransmit(now, self.cc.as_mut(), packet) {
            if !probe {
                self.count(ctx, now, id, Counter::TcpRetransSegs);
            }
            return Some(segment);
        }
        if m.tcp.has_lost() {
            let next = m.tcp.next_send(now);
            if next > now {
                self.send.wake_at(next);
            }
        }
        let m = &self.subflows[i];
        // The third ACK goes before the first data, so that both would have to be lost for the peer to miss
        // our key.
        let third = m.tcp.snd_nxt() == SubflowOffset(self.first_data(i)) && m.tcp.owes_ack();
        if third && self.needs_capable(i, true) && !self.send.is_fin_sent() {
            return Some(m.tcp.pure_ack());
        }
        // Only where the options of an ACK leave room for it: not before the handshakes are through.
        let joining = m.join.is_ack_sent();
        let at_start = m.tcp.snd_nxt() <= SubflowOffset(self.first_data(i));
        if !m.signals.is_empty() && m.tcp.is_synchronized() && !joining && !self.needs_capable(i, at_start) {
            let m = &mut self.subflows[i];
            if m.signals.may_send() {
                m.signals.on_sent(now, m.tcp.srtt());
                return Some(m.tcp.pure_ack());
            }
        }
        None
    }

    /// Our end of data: DATA_FIN, or FIN in plain TCP, once everything has been sent.
    fn poll_fin(&mut self, now: Instant) {
        if !self.life.is_established() || !self.send.is_fin_due() {
            return;
        }
        match self.mptcp.mode() {
            Mode::Negotiating => {}
            Mode::Plain { .. } => {
                if self.send.on_fin_sent() {
                    self.send.take_wanted_fin();
                }
                if let Some(m) = self.subflows.first_mut() {
                    m.tcp.close();
                }
            }
            Mode::Mptcp { .. } => {
                if self.send.on_fin_sent() {
                    self.arm_data_timer(now, true);
                }
                if self.send.take_wanted_fin() {
                    // On every subflow: one may be dead, and a DATA_FIN is a few bytes.
                    for m in self.subflows.iter_mut() {
                        if m.can_acknowledge() {
                            m.tcp.ack_now();
                        }
                    }
                }
            }
        }
    }

    /// Completes a planned segment with options and window, and builds the packet.
    pub(crate) fn emit(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        i: usize,
        mut segment: Segment,
    ) -> Option<Transmit> {
        let mut options = self.subflows[i].tcp.base_options(now, segment.kind);
        // A signal took the place of a DATA_ACK with news: that goes on an ACK of its own.
        let left_out = self.add_mptcp_options(ctx, now, i, &segment, &mut options);
        let syn = matches!(segment.kind, Kind::Syn | Kind::SynAck);
        let tcp = &self.subflows[i].tcp;
        let window = if syn {
            self.recv.syn_window(tcp.mss())
        } else {
            self.recv.advertise(tcp.mss(), tcp.receive_scale())
        };
        let aligned = self.subflows[i].has_mapped_unacked().then(|| self.packet_payload(i));
        let m = &mut self.subflows[i];
        let mut ecn = ip::ecn::NOT_ECT;
        if !syn && m.tcp.mark_ecn(segment.fresh, &mut segment.flags) {
            ecn = ip::ecn::ECT_0;
        }
        if segment.kind == Kind::Ack {
            let room = MAX_OPTIONS.saturating_sub(options.len());
            m.tcp.add_sack(&mut options, room);
        }
        let packet_payload = if syn {
            // What a SYN carries is one packet, whatever the MSS assumed before the peer has named its own.
            options.fast_open = m.outgoing.take_cookie();
            u32::MAX
        } else if segment.fresh && m.tcp.is_size_probe(segment.seq) {
            segment.payload.len() as u32
        } else {
            aligned.unwrap_or(u32::MAX).min(m.tcp.packet_payload(options.len()))
        };
        let repr = m.tcp.repr(&segment, window, options);
        if segment.flags.ack {
            if syn {
                m.tcp.on_syn_window_sent(window);
            } else if segment.kind == Kind::Probe {
                m.tcp.on_window_sent(window);
            } else {
                m.tcp.on_ack_sent(window, segment.kind == Kind::Data && m.tcp.sack_count() > 0);
                if left_out {
                    m.tcp.ack_now();
                }
                let keys = |o: &MptcpOption| matches!(o, MptcpOption::Capable(MpCapable::Ack { .. }));
                if m.outgoing.on_ack_sent(repr.options.mptcp.iter().any(keys)) {
                    m.tcp.ack_now();
                }
            }
        } else if syn {
            m.tcp.on_first_window_sent(window);
        }
        let (path, tuple) = (m.tcp.path(), m.tcp.tuple());
        let (tuple, repr, payload) = (&tuple, &repr, segment.payload);
        let traffic_class = ip::traffic_class(self.config.traffic_class, ecn);
        ctx.packet(now, Outgoing { path, tuple, repr, payload, packet_payload, traffic_class })
    }

    /// Adds the MPTCP options of `segment`, as the table has them. True: a DATA_ACK with news had no room.
    fn add_mptcp_options(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        i: usize,
        segment: &Segment,
        options: &mut TcpOptions,
    ) -> bool {
        let situation = self.situation(i, segment);
        let mut left_out = false;
        for &(item, fit) in row(segment.kind, situation) {
            let Some(option) = self.option(ctx, now, i, item, segment) else { continue };
            let m = &mut self.subflows[i];
            if fit == Fit::IfRoom && option.len() > options.room() {
                left_out |= item == Item::DataAck && m.outgoing.owes_data_ack(self.recv.next());
                continue;
            }
            match item {
                Item::Signal => self.count_signal(ctx, now, i, &option),
                // A probe may be dropped unread: its DATA_ACK does not count as sent.
                Item::DataAck | Item::Mapping | Item::DataFin if segment.kind != Kind::Probe => {
                    m.outgoing.on_data_ack_sent(self.recv.next());
                }
                _ => {}
            }
            options.mptcp.push(option);
        }
        left_out
    }

    /// What `segment` of subflow `i` is sent in the midst of.
    fn situation(&mut self, i: usize, segment: &Segment) -> Situation {
        let kind = segment.kind;
        match kind {
            Kind::Syn | Kind::SynAck if self.subflows[i].join.is_initial() => Situation::FirstHandshake,
            Kind::Syn | Kind::SynAck => Situation::JoinHandshake,
            Kind::Data if self.mptcp.maps_early() && segment.tag.is_some() => {
                self.subflows[i].outgoing.on_options_sent();
                Situation::Early
            }
            _ if !self.is_mptcp() => Situation::Plain,
            Kind::Probe if self.mptcp.is_fully_established() => Situation::Quiet,
            Kind::Probe => Situation::Unconfirmed,
            Kind::Data | Kind::Ack => self.established_situation(i, segment),
        }
    }

    /// The same after the handshake.
    fn established_situation(&mut self, i: usize, segment: &Segment) -> Situation {
        let ack = segment.kind == Kind::Ack;
        let first = self.subflows[i].outgoing.on_options_sent();
        if self.subflows[i].join.is_ack_sent() {
            return Situation::Joining;
        }
        // A DATA_FIN without data needs a DSS option; its DATA_ACK will show that the peer has the keys.
        // Should the third ACK be lost, every other repetition carries the keys instead: both do not fit. The
        // third ACK always does, even if a busy device kept it back until the application had closed (RFC
        // 8684 §3.1).
        let fin_sent = segment.tag.is_none() && self.send.is_fin_sent();
        let only_fin = fin_sent && !first && self.send.timeouts().is_multiple_of(2);
        let follow_up = ack && self.subflows[i].outgoing.follows_keys();
        let at_start = segment.seq <= SubflowOffset(self.first_data(i));
        if !only_fin && !follow_up && self.needs_capable(i, at_start) {
            if fin_sent && first {
                self.send.repeat_fin();
            }
            return Situation::Keys;
        }
        let m = &self.subflows[i];
        if ack && !follow_up && !m.signals.is_empty() {
            return Situation::Signal;
        }
        if segment.tag.is_some() {
            return Situation::Mapped;
        }
        if ack && self.send.awaits_fin_ack() {
            return Situation::Finishing;
        }
        // Not before both sides know that options pass: a missing DATA_ACK would be taken for a middlebox
        // (RFC 8684 §3.7).
        let displaced = ack
            && self.mptcp.is_dss_seen()
            && m.tcp.sack_count() > 1
            && !m.outgoing.owes_data_ack(self.recv.next());
        if displaced { Situation::SackFirst } else { Situation::Quiet }
    }

    /// The option that `item` stands for on `segment` of subflow `i`, if there is one.
    fn option(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        i: usize,
        item: Item,
        segment: &Segment,
    ) -> Option<MptcpOption> {
        let dss = |data_fin, mapping| {
            let ack = Some(self.recv.data_ack(self.mptcp.remote_idsn()));
            MptcpOption::Dss(Dss { data_fin, ack, mapping })
        };
        let of_segment = |m: Mapping| {
            let dsn = Dsn::Long(m.data.to_wire(self.mptcp.local_idsn()).0);
            let ssn = self.subflows[i].outgoing.ssn(m.subflow);
            DssMapping { dsn, ssn, len: m.len, checksum: m.checksum }
        };
        Some(match item {
            Item::Capable => return self.capable_option(ctx, now, i, segment),
            Item::Join => {
                if segment.kind == Kind::Syn {
                    self.count(ctx, now, Some(self.subflows[i].tcp.id()), Counter::MPJoinSynTx);
                }
                return self.join_option(i);
            }
            Item::Signal => return self.subflows[i].signals.pop(),
            Item::DataAck => dss(false, None),
            Item::Mapping => dss(false, segment.tag.map(of_segment)),
            Item::EarlyMapping => {
                let mapping = segment.tag.map(of_segment);
                MptcpOption::Dss(Dss { data_fin: false, ack: None, mapping })
            }
            Item::DataFin => {
                // RFC 8684 §3.3.3: a DATA_FIN of its own has subflow sequence 0 and length 1.
                let at = self.send.end().to_wire(self.mptcp.local_idsn()).0;
                let sum = || !checksum::fold(dss_pseudo_header(at, 0, 1));
                let checksum = self.mptcp.checksum().then(sum);
                dss(true, Some(DssMapping { dsn: Dsn::Long(at), ssn: 0, len: 1, checksum }))
            }
            Item::Infinite => {
                return self.infinite_option(ctx, now, segment.tag, segment.kind == Kind::Ack);
            }
        })
    }

    /// MP_CAPABLE, in the form of `segment`.
    fn capable_option(
        &self,
        ctx: &mut Context,
        now: Instant,
        i: usize,
        segment: &Segment,
    ) -> Option<MptcpOption> {
        let (version, flags) = (VERSION, self.own_flags());
        let (sender_key, receiver_key) = (self.mptcp.local_key(), self.mptcp.remote_key());
        let form = match (segment.kind, segment.tag) {
            (Kind::Syn, _) => {
                let tcp = &self.subflows[i].tcp;
                let option = self.syn_option(tcp.stats().timeouts)?;
                self.count(ctx, now, Some(tcp.id()), Counter::MPCapableSYNTX);
                return Some(option);
            }
            (Kind::SynAck, _) => return self.syn_ack_option(),
            (_, Some(Mapping { len, checksum, .. })) => {
                MpCapable::Data { version, flags, sender_key, receiver_key, len, checksum }
            }
            (_, None) => MpCapable::Ack { version, flags, sender_key, receiver_key },
        };
        Some(MptcpOption::Capable(form))
    }
}

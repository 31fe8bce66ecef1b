//! A received segment on its way from the subflow to the data level (RFC 8684 §3.3).

use super::connection::Connection;
use super::handshake::capable;
use super::incoming::Ready;
use super::join::Refusal;
use super::join_state::Join;
use super::mapping::{Inserted, RxMapping};
use super::subflow::Subflow;
use crate::context::Context;
use crate::context::challenges::Unasked;
use crate::event::{Event, SubflowReset};
use crate::monitor::MonitorEvent;
use crate::observe::Counter;
use crate::tcp::{Arrival, CloseReason, Disposition, IcmpOutcome, News, NewsSet, Outcome, State};
use crate::wire::checksum;
use crate::wire::icmp::IcmpError;
use crate::wire::mptcp::{Dss, MptcpOption, ResetReason, dss_pseudo_header};
use crate::wire::tcp::TcpRepr;
use bytes::Bytes;
use umptcp_types::{DataOffset, Instant, SubflowId};

/// Most that all subflows together hold of what cannot be handed on yet, in windows of the connection.
const WAITING_WINDOWS: usize = 2;

impl Connection {
    /// A segment of subflow `id` has come.
    pub(crate) fn handle_segment(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        id: SubflowId,
        arrival: Arrival<'_>,
    ) {
        self.on_segment(ctx, now, id, arrival);
        self.after_segments(ctx, now);
        self.take_kept(ctx, now);
    }

    /// An ICMP error about a segment of subflow `id` has come. Whether it changed something; `None`: there is
    /// no such subflow.
    pub(crate) fn handle_icmp(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        id: SubflowId,
        error: &IcmpError,
    ) -> Option<bool> {
        let i = self.subflows.find(id)?;
        let what = match self.subflows[i].tcp.on_icmp(now, error, self.cc.as_mut()) {
            IcmpOutcome::Noted => return Some(false),
            IcmpOutcome::Hindered => return Some(self.on_subflow_hindered(ctx, now, i)),
            IcmpOutcome::OutOfWindow => Counter::TcpOutOfWindowIcmps,
            IcmpOutcome::Smaller => Counter::TcpPmtuReduced,
            IcmpOutcome::Refused(why) => {
                self.doubt_fast_open(ctx, now, i);
                self.drop_subflow(ctx, now, i, CloseReason::Unreachable(why));
                self.end_step(ctx, now);
                return Some(true);
            }
        };
        self.count(ctx, now, Some(id), what);
        Some(true)
    }

    /// Processes a segment of subflow `id`.
    pub(super) fn on_segment(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        id: SubflowId,
        arrival: Arrival<'_>,
    ) {
        let seg = arrival.seg;
        let Some(i) = self.subflows.find(id) else { return };
        if self.overtakes_third_ack(i, seg, arrival.payload.is_empty()) {
            self.count(ctx, now, Some(id), Counter::MPCapableAckOvertaken);
            return;
        }
        if self.has_no_room(i, seg, arrival.payload.len()) {
            self.count(ctx, now, Some(id), Counter::TcpOFODrop);
            return;
        }
        if let Some(dropped) = self.refuse_for_memory(ctx, i, &arrival) {
            self.count(ctx, now, Some(id), dropped);
            return;
        }
        let was_fully_established = self.mptcp.is_fully_established();
        let len = arrival.payload.len();
        let mut out = self.subflows[i].tcp.on_segment(now, arrival, self.cc.as_mut());
        self.on_tcp_news(ctx, now, i, out.news);
        match out.disposition {
            Disposition::Reset => {
                self.answer_with_reset(ctx, now, i, seg);
                return;
            }
            Disposition::RepeatSynAck => return,
            Disposition::Ended => {
                self.on_subflow_ended(ctx, now, i, seg);
                return;
            }
            Disposition::SimultaneousOpen if !self.on_simultaneous_open(ctx, now, i, seg) => return,
            _ => {}
        }
        let established = out.disposition == Disposition::Established;
        if out.advanced && self.subflows[i].on_recovered() {
            self.count(ctx, now, Some(id), Counter::SubflowRecover);
            self.on_way_recovered(ctx, now, i);
            self.keep_recovered(ctx, now, i);
        }
        if out.acked > 0 {
            self.on_subflow_delivers(ctx, now, i);
        }
        if established && let Err(refusal) = self.on_subflow_established(ctx, now, i, seg) {
            self.refuse_subflow(ctx, now, i, refusal);
            return;
        }
        if out.disposition == Disposition::Dropped {
            // A duplicate SYN/ACK means that the peer did not get our third ACK.
            if seg.flags.syn && self.subflows[i].join.is_ack_sent() {
                self.subflows[i].tcp.ack_now();
            }
            // A duplicate may still acknowledge the last data or the FIN.
            if out.advanced && self.mptcp.is_plain() {
                self.on_plain_progress(ctx, i, &out);
                self.after_progress(ctx, now);
            }
            return;
        }
        if self.life.fast_close().is_some() {
            self.on_segment_after_fast_close(ctx, now, seg);
            return;
        }
        if !established && !seg.flags.syn {
            self.on_join_confirmed(ctx, now, i);
        }
        let m = &mut self.subflows[i];
        m.on_heard(now);
        if out.advanced || len > 0 {
            m.signals.on_interrupted();
        }
        if out.acked > 0 {
            self.scheduler.on_ack(now, id, out.acked);
        }
        let fell_back = self.check_first_options(ctx, now, seg, len, out.advanced);
        if !fell_back && self.is_mptcp() {
            if !seg.flags.syn && self.check_subflow_options(ctx, now, i, seg) {
                return;
            }
            if !self.on_options(ctx, now, i, seg, len) {
                return;
            }
        }
        if self.subflows[i].is_ended() {
            return;
        }
        self.hand_over(ctx, now, i, &mut out);
        if len > 0 {
            self.tune_receive_buffer(ctx, now);
        }
        if self.subflows[i].is_ended() {
            return;
        }
        if self.mptcp.is_plain() {
            self.on_plain_progress(ctx, i, &out);
        }
        self.after_progress(ctx, now);
        if self.mptcp.is_fully_established() && !was_fully_established {
            // What the path manager had to put off: joins, also to addresses advertised before, and our own
            // advertisements.
            self.manage_paths(ctx, now);
            self.tell_first_priority(now);
        }
    }

    /// An acknowledgement shows that something has arrived over subflow `i`.
    fn on_subflow_delivers(&mut self, ctx: &mut Context, now: Instant, i: usize) {
        let m = &mut self.subflows[i];
        let id = m.tcp.id();
        if let Some(cleared) = m.on_delivered(now) {
            self.send.withdraw_reinjection(id);
            if (cleared.relieved || cleared.outage) && !cleared.needless {
                self.cc.on_silence_over(now, id);
            }
            if cleared.needless {
                self.send.on_reinjected_needlessly(cleared.reinjected);
                self.count(ctx, now, Some(id), Counter::SubflowSuspectNeedless);
            }
        }
        if self.subflows.iter().any(Subflow::awaits_relief) {
            self.relieve_suspects(ctx);
        }
    }

    /// A segment of subflow `i` would have to wait for others, and the subflows hold too much that waits
    /// already: it is as if lost. Each may fill the connection's window by itself; a peer that sends what it
    /// may, once over one subflow and once again over another, needs twice that.
    fn has_no_room(&self, i: usize, seg: &TcpRepr, len: usize) -> bool {
        let m = &self.subflows[i];
        if len == 0 || self.subflows.len() < 2 || !seg.seq.after(m.tcp.wire_ack()) {
            return false;
        }
        let held = |m: &Subflow| m.tcp.out_of_order() as usize + m.incoming.waiting();
        self.subflows.iter().map(held).sum::<usize>() + len > WAITING_WINDOWS * self.recv.most_offered()
    }

    /// Counts what the TCP of subflow `i` reports, and reacts to it.
    fn on_tcp_news(&mut self, ctx: &mut Context, now: Instant, i: usize, news: NewsSet) {
        let id = self.subflows[i].tcp.id();
        for what in news {
            let counter = match what {
                News::PawsRejected => Counter::TcpPawsRejected,
                News::Challenge | News::Probe => {
                    let tcp = &mut self.subflows[i].tcp;
                    // Whoever knows the sequence number of a probe is on the path or the peer.
                    let others = what == News::Challenge;
                    let allowed = tcp.may_challenge(now) && (!others || ctx.allows(now, Unasked::Challenge));
                    if allowed {
                        tcp.ack_now();
                    }
                    if allowed && !others && self.config.report_keep_alive {
                        ctx.push_event(Event::KeepAlive { connection: self.id });
                    }
                    if allowed { Counter::TcpChallengeAck } else { Counter::TcpACKSkippedChallenge }
                }
                News::PayloadRefused => Counter::TcpOFODrop,
                News::RecoveryBegan => Counter::TcpFastRecovery,
                News::EcnReduction => Counter::TcpECNReductions,
                News::TailProbeRepaired => Counter::TcpLossProbeRecovery,
                News::LargerPackets => Counter::TcpMTUPSuccess,
                News::SizeProbesFailed => {
                    self.count_failed_size_probes(ctx, now, i);
                    continue;
                }
                News::TimeoutUndone => Counter::TcpLossUndo,
                News::SpuriousTimeout => Counter::TcpSpuriousRTOs,
                News::TimeoutDuplicated | News::RecoveryDuplicated => Counter::TcpDSACKUndo,
                News::RecoveryUndone => Counter::TcpFullUndo,
            };
            self.count(ctx, now, Some(id), counter);
            if what.is_needless_timeout() {
                self.send.withdraw_reinjection(id);
            }
        }
    }

    /// Probes for larger packets that have failed on a subflow.
    pub(crate) fn count_failed_size_probes(&mut self, ctx: &mut Context, now: Instant, i: usize) {
        let tcp = &mut self.subflows[i].tcp;
        let id = Some(tcp.id());
        for _ in 0..tcp.take_failed_size_probes() {
            self.count(ctx, now, id, Counter::TcpMTUPFail);
        }
    }

    /// Server: data with a DSS option that overtook the third ACK, or whose third ACK was lost. It shows that
    /// options pass and that the client is MPTCP, but lacks its key; the client repeats MP_CAPABLE with the
    /// first data, so this segment is dropped rather than the connection's MPTCP (RFC 8684 §3.1). Data
    /// without a mapping is another matter: Linux as a client sends data of its SYN that were not
    /// acknowledged again that way, and means plain TCP. So does one that maps everything, after data of ours have
    /// lost their options on the way: it says so a few times only.
    fn overtakes_third_ack(&self, i: usize, seg: &TcpRepr, pure: bool) -> bool {
        let waiting = self.mptcp.is_open() && self.subflows[i].tcp.state() == State::SynReceived;
        waiting
            && capable(seg).is_none()
            && seg.options.mptcp.iter().any(
                |o| matches!(o, MptcpOption::Dss(d) if !d.is_infinite() && (pure || d.mapping.is_some())),
            )
    }

    /// Subflow `i` completed its TCP handshake. An error says why it must be reset.
    fn on_subflow_established(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        i: usize,
        seg: &TcpRepr,
    ) -> Result<(), Refusal> {
        match self.subflows[i].join.step() {
            Join::Initial => {
                if self.client {
                    self.on_syn_ack(ctx, now, i, seg);
                } else {
                    self.on_third_ack(ctx, now, i, seg);
                }
                let (admission, early) = self.life.on_handshake_complete();
                if let Some(listener) = admission.backlog {
                    ctx.leave_half_open(listener);
                }
                if let Some(listener) = admission.fast_open {
                    ctx.fast_open_settled(listener);
                }
                self.tell_watchers(ctx, now, |connection| MonitorEvent::ConnectionEstablished { connection });
                self.announce(ctx, now, i);
                if !early {
                    ctx.push_event(Event::Connected { connection: self.id });
                }
                Ok(())
            }
            Join::SynSent { .. } => self.on_join_syn_ack(ctx, now, i, seg),
            Join::SynReceived { .. } => self.on_join_ack(ctx, now, i, seg),
            _ => Ok(()),
        }
    }

    /// Processes the MPTCP options of an acceptable segment. False: the subflow or connection has gone.
    fn on_options(&mut self, ctx: &mut Context, now: Instant, i: usize, seg: &TcpRepr, len: usize) -> bool {
        let id = self.subflows[i].tcp.id();
        for option in &seg.options.mptcp {
            // An option before this one may have ended the subflow.
            if self.subflows[i].is_ended() {
                return false;
            }
            match option {
                MptcpOption::Dss(dss) => {
                    if let Some(ack) = dss.ack {
                        if !self.mptcp.is_dss_seen() {
                            self.on_options_pass(ctx, i);
                        }
                        self.mptcp.on_data_ack();
                        let window = self.subflows[i].tcp.scaled_window(seg.window);
                        self.on_data_ack(ctx, now, ack, window);
                    }
                    if !self.on_dss_mapping(ctx, now, i, dss, len > 0) {
                        return false;
                    }
                }
                MptcpOption::AddAddr(a) => self.on_add_addr(ctx, now, i, a),
                MptcpOption::RemoveAddr(r) => self.on_remove_addr(ctx, now, i, r),
                MptcpOption::Prio(p) => self.on_prio(ctx, now, i, p),
                MptcpOption::FastClose(f) => {
                    if f.receiver_key == self.mptcp.local_key() {
                        self.on_fast_close(ctx, now);
                        return false;
                    }
                    self.count(ctx, now, Some(id), Counter::MPFastcloseKeyMismatch);
                }
                MptcpOption::Fail(f) => {
                    if !self.on_fail(ctx, now, i, *f) {
                        return false;
                    }
                }
                MptcpOption::Capable(_) | MptcpOption::Join(_) | MptcpOption::Reset(_) => {}
            }
        }
        self.on_capable_data(ctx, now, i, seg)
    }

    /// The mapping of a DSS option, if it has one; `with_data`: it came on a segment with data. False: the
    /// subflow was reset.
    fn on_dss_mapping(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        i: usize,
        dss: &Dss,
        with_data: bool,
    ) -> bool {
        let Some(m) = dss.mapping else { return true };
        if dss.is_infinite() {
            return self.on_infinite_mapping(ctx, now, i, &m);
        }
        if m.checksum.is_some() != self.mptcp.checksum() {
            return self.on_wrong_checksum_use(ctx, now, i);
        }
        let seq = self.recv.on_dsn(m.dsn, self.mptcp.remote_idsn());
        let Some(data) = DataOffset::from_wire(seq, self.mptcp.remote_idsn()) else {
            self.count(ctx, now, Some(self.subflows[i].tcp.id()), Counter::NoDSSInWindow);
            return true;
        };
        let payload_len = u64::from(m.len) - u64::from(dss.data_fin && m.len > 0);
        if dss.data_fin {
            // Acknowledged also when it is repeated: our DATA_ACK was lost.
            self.subflows[i].tcp.ack_now();
            if payload_len > 0 && self.mptcp.checksum() {
                // It counts when the checksum of its mapping has been verified.
            } else if m.checksum.is_none_or(|sum| bare_checksum_holds(seq.0, m.ssn, m.len, sum)) {
                self.on_data_fin(ctx, now, i, data + payload_len);
            } else {
                self.count(ctx, now, Some(self.subflows[i].tcp.id()), Counter::DataCsumErr);
            }
        }
        if payload_len == 0 || (m.ssn == 0 && !with_data) {
            return true;
        }
        let Some(subflow) = self.subflows[i].incoming.offset_of(m.ssn) else {
            self.count(ctx, now, Some(self.subflows[i].tcp.id()), Counter::NoDSSInWindow);
            return true;
        };
        let mapping = RxMapping { subflow, data, len: payload_len, declared: m.len, checksum: m.checksum };
        self.on_mapping(ctx, now, i, mapping)
    }

    /// The peer's data end at `at`; a DATA_FIN that contradicts what has come is ignored.
    fn on_data_fin(&mut self, ctx: &mut Context, now: Instant, i: usize, at: DataOffset) {
        if !self.recv.on_data_fin(at) {
            self.count(ctx, now, Some(self.subflows[i].tcp.id()), Counter::DSSNotMatching);
        }
    }

    /// Remembers a mapping. False: the subflow was reset because of it.
    pub(crate) fn on_mapping(&mut self, ctx: &mut Context, now: Instant, i: usize, m: RxMapping) -> bool {
        let subflow = &mut self.subflows[i];
        let id = Some(subflow.tcp.id());
        if m.subflow > subflow.tcp.rcv_edge() + u64::from(u16::MAX) {
            // It maps nothing that may come now (RFC 8684 §3.3.1: some of the segment that carries it).
            self.count(ctx, now, id, Counter::NoDSSInWindow);
            return true;
        }
        if m.checksum.is_some() && m.len > self.recv.most_offered() as u64 {
            // It could not be verified without holding more than we offered.
            self.count(ctx, now, id, Counter::DSSCorruptionReset);
            self.reset_subflow(ctx, now, i, ResetReason::LackOfResources);
            return false;
        }
        match subflow.incoming.on_mapping(m) {
            Inserted::New | Inserted::Known => true,
            Inserted::Conflict => {
                self.count(ctx, now, id, Counter::DSSNotMatching);
                self.count(ctx, now, id, Counter::DSSCorruptionReset);
                self.reset_subflow(ctx, now, i, ResetReason::MptcpSpecific);
                false
            }
            Inserted::TooMany => {
                self.count(ctx, now, id, Counter::DSSTooMany);
                self.reset_subflow(ctx, now, i, ResetReason::LackOfResources);
                false
            }
        }
    }

    /// RFC 8684 §3.3: a checksum that was not negotiated, or none where one was. Always false: the subflow is
    /// reset.
    pub(crate) fn on_wrong_checksum_use(&mut self, ctx: &mut Context, now: Instant, i: usize) -> bool {
        self.count(ctx, now, Some(self.subflows[i].tcp.id()), Counter::DSSCorruptionReset);
        self.reset_subflow(ctx, now, i, ResetReason::MptcpSpecific);
        false
    }

    /// Passes in-order subflow bytes to the data level, through their mappings.
    fn hand_over(&mut self, ctx: &mut Context, now: Instant, i: usize, out: &mut Outcome) {
        if self.mptcp.is_plain() {
            while let Some((at, bytes)) = self.subflows[i].incoming.next_plain() {
                self.insert_data(ctx, now, i, self.plain.received(at), bytes);
            }
            for (at, bytes) in out.delivered.drain(..) {
                self.insert_data(ctx, now, i, self.plain.received(at), bytes);
            }
            return;
        }
        let m = &mut self.subflows[i];
        for (at, bytes) in out.delivered.drain(..) {
            m.incoming.push(at, bytes);
        }
        let idsn = self.mptcp.remote_idsn();
        while let Some(ready) = self.subflows[i].incoming.next(now, idsn) {
            match ready {
                Ready::Data(at, bytes) => self.insert_data(ctx, now, i, at, bytes),
                Ready::DataFin(at) => self.on_data_fin(ctx, now, i, at),
                Ready::Corrupt(at) => {
                    self.on_checksum_failure(ctx, now, i, at);
                    if self.subflows[i].is_ended() {
                        return;
                    }
                }
            }
        }
        let window = self.recv.most_offered();
        let waiting = || self.subflows.iter().map(|m| m.incoming.waiting()).sum::<usize>();
        let incoming = &self.subflows[i].incoming;
        let too_much = incoming.waiting() > 0 && waiting() > WAITING_WINDOWS * window;
        if too_much || incoming.is_overfull(window) {
            self.on_unmapped(ctx, now, i);
        }
    }

    /// Data on subflow `i` came without a mapping, and none will come (RFC 8684 §3.3.1, §3.7).
    pub(crate) fn on_unmapped(&mut self, ctx: &mut Context, now: Instant, i: usize) {
        self.count(ctx, now, Some(self.subflows[i].tcp.id()), Counter::DSSNoMatchTCP);
        self.reset_subflow(ctx, now, i, ResetReason::MiddleboxInterference);
    }

    pub(crate) fn insert_data(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        i: usize,
        at: DataOffset,
        bytes: Bytes,
    ) {
        let id = Some(self.subflows[i].tcp.id());
        let d = self.recv.insert(at, bytes);
        if d.readable > 0 {
            self.notify_readable(ctx);
        }
        let happened = [
            (d.out_of_order, Counter::OFOQueue),
            (d.tail && d.out_of_order, Counter::OFOQueueTail),
            (d.merged, Counter::OFOMerge),
            (d.duplicate && self.is_mptcp(), Counter::DuplicateData),
            (d.outside, Counter::NoDSSInWindow),
            (d.refused, Counter::TcpOFODrop),
        ];
        for (yes, what) in happened {
            if yes {
                self.count(ctx, now, id, what);
            }
        }
    }

    /// Plain TCP: subflow acknowledgements are data acknowledgements, FIN is the end of data.
    fn on_plain_progress(&mut self, ctx: &mut Context, i: usize, out: &Outcome) {
        let m = &self.subflows[i];
        let una = m.tcp.snd_una();
        let fin_acked = m.tcp.fin_sent() && una >= m.tcp.snd_nxt();
        let edge = self.plain.sent(m.tcp.send_edge());
        self.plain.on_ack(una);
        let freed = self.send.on_plain_ack(self.plain.sent(una), edge);
        if freed > 0 {
            self.tune_send_buffer(ctx, freed);
            self.notify_writable(ctx);
        }
        if fin_acked {
            self.send.on_fin_acked();
        }
        if out.fin && self.recv.on_fin() {
            self.notify_readable(ctx);
        }
    }

    /// Subflow `i` ended by a segment.
    fn on_subflow_ended(&mut self, ctx: &mut Context, now: Instant, i: usize, seg: &TcpRepr) {
        let mut reset = SubflowReset { by_peer: true, reason: None, transient: false };
        for option in &seg.options.mptcp {
            match option {
                MptcpOption::Reset(r) => {
                    self.count(ctx, now, Some(self.subflows[i].tcp.id()), Counter::MPRstRx);
                    reset = SubflowReset { reason: Some(r.reason.into()), transient: r.transient, ..reset };
                }
                // RFC 8684 §3.7: what it carried goes to the other subflows, as with any reset.
                MptcpOption::Fail(_) => {
                    self.count(ctx, now, Some(self.subflows[i].tcp.id()), Counter::MPFailRx);
                }
                // RFC 8684 §3.5: the RST form closes the whole connection.
                MptcpOption::FastClose(f) if self.is_mptcp() && f.receiver_key == self.mptcp.local_key() => {
                    self.on_fast_close(ctx, now);
                    return;
                }
                MptcpOption::FastClose(_) => {
                    self.count(ctx, now, Some(self.subflows[i].tcp.id()), Counter::MPFastcloseKeyMismatch);
                }
                _ => {}
            }
        }
        let m = &mut self.subflows[i];
        m.on_end(seg.flags.rst.then_some(reset));
        let m = &self.subflows[i];
        if self.mptcp.is_plain() && m.tcp.close_reason().is_none() {
            // LAST-ACK is over: our FIN is acknowledged.
            self.send.on_plain_end(self.plain.sent(m.tcp.snd_una()));
        }
        self.after_progress(ctx, now);
    }
}

/// Whether the checksum of a DATA_FIN alone, which covers the pseudo-header only (RFC 8684 §3.3.3), is right.
fn bare_checksum_holds(dsn: u64, ssn: u32, len: u16, sum: u16) -> bool {
    checksum::fold(checksum::add(dss_pseudo_header(dsn, ssn, len), u64::from(sum))) == 0xffff
}

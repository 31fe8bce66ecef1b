//! Falling back to plain TCP, and subflows that cannot (RFC 8684 §3.7).
//!
//! | what happens | one subflow, data in flight contiguous | otherwise |
//! |---|---|---|
//! | data or its first acknowledgement comes without options | plain TCP, announced by an infinite mapping | subflow reset, reason 6 |
//! | a checksum fails | MP_FAIL on ACKs until it is answered, then plain TCP | RST with MP_FAIL, reason 6 |
//! | MP_FAIL comes | MP_FAIL in answer, infinite mapping, plain TCP | RST with MP_FAIL, reason 6 |
//! | MP_FAIL comes, and no checksums are in use | ignored | ignored |
//! | an infinite mapping comes | plain TCP | subflow reset, reason 6 |
//!
//! With [`strict_checksums`](crate::config::ConnectionConfig::strict_checksums) the last column holds for one
//! subflow too.
//!
//! By example: `docs/src/by-example/fallback.md`.

use super::connection::Connection;
use super::incoming::Unanswered;
use super::join::Refusal;
use super::mapping::Mapping;
use crate::context::Context;
use crate::error::FallbackReason;
use crate::event::Event;
use crate::monitor::MonitorEvent;
use crate::observe::Counter;
use crate::wire::mptcp::{Dsn, Dss, DssMapping, MpFail, MptcpOption, ResetReason};
use crate::wire::tcp::TcpRepr;
use umptcp_types::{DataOffset, DataSeq, Instant, SubflowOffset};

impl Connection {
    /// Index of the only subflow, if there is one only, able to carry data, and no other is being opened.
    fn sole_subflow(&self) -> Option<usize> {
        self.subflows.sole().filter(|i| {
            let m = &self.subflows[*i];
            m.can_acknowledge() && !m.tcp.fin_sent()
        })
    }

    /// Whether plain TCP is an option for a connection that is MPTCP.
    fn may_fall_back(&self) -> bool {
        !(self.mptcp.checksum() && self.config.strict_checksums)
    }

    /// Whether everything we sent and the peer has not DATA_ACKed lies on subflow `i`, in one piece.
    fn contiguous_out(&self, i: usize) -> bool {
        let m = &self.subflows[i];
        let shift = self.send.next().0.wrapping_sub(m.tcp.snd_nxt().0);
        let una = SubflowOffset(self.send.una().0.min(self.send.next().0).wrapping_sub(shift));
        let since = |at: SubflowOffset| m.outgoing.is_shifted_since(at, shift);
        let data = self.send.una() >= self.send.next() || since(una);
        // What the subflow may still send again must be new to the peer too, or it would be taken for other
        // data.
        let subflow = m.tcp.is_all_acked() || since(m.tcp.snd_una());
        !self.send.is_reinjecting() && data && subflow
    }

    /// Whether what subflow `i` brings next is what the data level waits for, and nothing lies beyond it.
    fn contiguous_in(&self, i: usize) -> bool {
        self.recv.is_contiguous() && self.subflows[i].incoming.continues(self.recv.next_data())
    }

    /// Data without an MPTCP option before any DSS has come, or an acknowledgement without one of the first
    /// data we sent, means that a middlebox removes options, or that the peer has fallen back for that reason
    /// (RFC 8684 §3.7). True: the connection is plain TCP now. Sound because only the initial subflow has
    /// carried data, so that data offsets and subflow offsets are the same.
    pub(crate) fn check_first_options(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        seg: &TcpRepr,
        payload: usize,
        advanced: bool,
    ) -> bool {
        if !self.is_mptcp() || !self.may_fall_back() || self.subflows.opened() > 1 {
            return false;
        }
        let Some(i) = self.subflows.first_index() else { return false };
        // A piece of a segment that was cut on its way is covered by the mapping that came with the first
        // piece.
        let m = &self.subflows[i];
        let covered = m.tcp.offset_of(seg.seq).is_some_and(|at| payload > 0 && (m.incoming.is_mapped(at)));
        let data = (payload > 0 || seg.flags.fin) && !self.mptcp.is_dss_seen() && !covered;
        let first = DataOffset(self.first_data(i));
        let first_ack = advanced && self.send.next() > first && self.send.una() == first;
        if carries_signal(seg) || !(data || first_ack) {
            return false;
        }
        let what = if data { Counter::MPCapableDataFallback } else { Counter::DssFallback };
        self.count(ctx, now, None, what);
        self.fall_back(
            ctx,
            now,
            if data { FallbackReason::NoOptionInData } else { FallbackReason::NoDataAck },
        );
        true
    }

    /// The same on a connection that has, or has had, other subflows: the first data on subflow `i` was
    /// acknowledged without a DATA_ACK. RFC 8684 §3.7 has the subflow reset. True: it was.
    pub(crate) fn check_subflow_options(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        i: usize,
        seg: &TcpRepr,
    ) -> bool {
        let m = &mut self.subflows[i];
        if carries_signal(seg) {
            m.incoming.on_option();
            return false;
        }
        // A SACK may have taken a DATA_ACK's place.
        if m.incoming.options_seen()
            || m.tcp.stats().bytes_acked <= m.outgoing.syn_data()
            || !seg.options.sack.is_empty()
        {
            return false;
        }
        let id = Some(m.tcp.id());
        self.count(ctx, now, id, Counter::FallbackFailed);
        self.reset_subflow(ctx, now, i, ResetReason::MiddleboxInterference);
        true
    }

    /// From here on plain TCP.
    pub(crate) fn fall_back(&mut self, ctx: &mut Context, now: Instant, reason: FallbackReason) {
        if self.mptcp.is_plain() {
            return;
        }
        if self.is_mptcp() {
            ctx.observe_end(now, self.id, Counter::MPCurrEstab);
        }
        tracing::info!(connection = ?self.id, %reason, "falling back to TCP");
        let was_mptcp = self.is_mptcp();
        // A client that has been answered early has had mappings, and knows of no other kind of data.
        let mapped = self.mptcp.maps();
        if was_mptcp {
            self.on_fallback_underway(ctx, now, reason);
        }
        self.mptcp.fall_back(reason);
        ctx.forget_token(self.mptcp.local_token(), self.id);
        self.addresses.adverts.clear();
        self.recv.on_fallback();
        ctx.push_event(Event::FellBack { connection: self.id, reason });
        self.tell_watchers(ctx, now, |connection| MonitorEvent::FellBack { connection, reason });
        let una = self.send.una();
        let next = self.recv.next_data();
        let mut edge = None;
        if let Some(m) = self.subflows.first_mut() {
            m.on_fallback();
            if mapped {
                self.plain.on_fallback((self.send.next(), m.tcp.snd_nxt()), (next, m.incoming.consumed()));
                // RFC 8684 §3.7: the peer is told, should options pass in our direction only. When the peer
                // began it, it knows.
                if m.outgoing.options_sent() && reason != FallbackReason::InfiniteMapping {
                    self.plain.announce(una, una.min(self.send.next()));
                    m.tcp.ack_now();
                }
            }
            edge = Some(self.plain.sent(m.tcp.send_edge()));
        }
        self.send.on_fallback(edge);
    }

    /// The option that announces plain TCP, for a segment of data with `mapping`, or for a pure ACK.
    pub(crate) fn infinite_option(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        mapping: Option<Mapping>,
        ack_only: bool,
    ) -> Option<MptcpOption> {
        let (data, subflow) = match mapping {
            Some(m) if m.len == 0 => (m.data, m.subflow),
            None if ack_only => self.plain.take_for_ack()?,
            _ => return None,
        };
        self.count(ctx, now, None, Counter::InfiniteMapTx);
        let dsn = Dsn::Long(data.to_wire(self.mptcp.local_idsn()).0);
        let checksum = self.mptcp.checksum().then_some(0);
        let ssn = self.subflows.first().map_or(subflow.0 as u32, |m| m.outgoing.ssn(subflow));
        let mapping = DssMapping { dsn, ssn, len: 0, checksum };
        Some(MptcpOption::Dss(Dss { data_fin: false, ack: None, mapping: Some(mapping) }))
    }

    /// RFC 8684 §3.7: from `ssn`, which is data byte `dsn`, on the subflow's bytes are the data. False: it
    /// cannot be, and the subflow was reset.
    pub(crate) fn on_infinite_mapping(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        i: usize,
        map: &DssMapping,
    ) -> bool {
        let id = Some(self.subflows[i].tcp.id());
        self.count(ctx, now, id, Counter::InfiniteMapRx);
        let m = &self.subflows[i];
        let seq = self.recv.whole_dsn(map.dsn, self.mptcp.remote_idsn());
        let data = seq.0.wrapping_sub(self.mptcp.remote_idsn().0) as u32;
        let expected = self.recv.next_data().0.wrapping_sub(m.incoming.consumed().0) as u32;
        let ssn = m.incoming.counted(map.ssn);
        let fits = data.wrapping_sub(ssn) == expected;
        if fits
            && self.may_fall_back()
            && self.contiguous_in(i)
            && self.contiguous_out(i)
            && let Some(_) = self.alone(ctx, now, i)
        {
            self.fall_back(ctx, now, FallbackReason::InfiniteMapping);
            return true;
        }
        self.count(ctx, now, id, Counter::FallbackFailed);
        self.reset_subflow(ctx, now, i, ResetReason::MiddleboxInterference);
        false
    }

    /// RFC 8684 §3.3.1, §3.7: the checksum of the mapping that begins at `data` failed on subflow `i`.
    pub(crate) fn on_checksum_failure(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        i: usize,
        data: DataOffset,
    ) {
        let id = Some(self.subflows[i].tcp.id());
        self.count(ctx, now, id, Counter::DataCsumErr);
        if data == self.recv.next_data()
            && self.may_fall_back()
            && self.contiguous_in(i)
            && let Some(i) = self.alone(ctx, now, i)
        {
            let resend = now + self.subflows[i].tcp.rto();
            self.subflows[i].incoming.on_fail_sent(data, resend);
            self.say_fail(i, data);
            return;
        }
        self.count(ctx, now, id, Counter::DSSCorruptionReset);
        self.reset_with_fail(ctx, now, i, data);
    }

    fn say_fail(&mut self, i: usize, data: DataOffset) {
        let dsn = data.to_wire(self.mptcp.remote_idsn()).0;
        let m = &mut self.subflows[i];
        m.signals.replace(MptcpOption::Fail(MpFail { dsn }));
    }

    fn reset_with_fail(&mut self, ctx: &mut Context, now: Instant, i: usize, data: DataOffset) {
        let dsn = data.to_wire(self.mptcp.remote_idsn()).0;
        self.count(ctx, now, Some(self.subflows[i].tcp.id()), Counter::MPFailTx);
        self.life.on_subflow_broken();
        let interference = Refusal { reason: ResetReason::MiddleboxInterference, transient: false };
        let fail = MptcpOption::Fail(MpFail { dsn });
        self.reset_subflow_saying(ctx, now, i, interference, Some(fail));
    }

    /// MP_FAIL came (RFC 8684 §3.7): the peer's answer to ours, or the news that what we sent was changed.
    /// False: the subflow was reset.
    pub(crate) fn on_fail(&mut self, ctx: &mut Context, now: Instant, i: usize, fail: MpFail) -> bool {
        let id = Some(self.subflows[i].tcp.id());
        self.count(ctx, now, id, Counter::MPFailRx);
        if !self.mptcp.checksum() {
            // RFC 8684 §3.7: without checksums nothing tells the peer of a change. Anybody who sees the
            // connection could have sent it to take the other subflows away; a peer that means it can send an
            // infinite mapping, or reset the subflow.
            self.count(ctx, now, id, Counter::MPFailUnexpected);
            return true;
        }
        let next = self.recv.next_data();
        let answer = self.subflows[i].incoming.awaits_fail();
        let about = DataOffset::from_wire(DataSeq(fail.dsn), self.mptcp.local_idsn());
        if !answer && about.is_none_or(|d| d > self.send.next()) {
            // About data never sent: not from our peer, or of no use.
            return true;
        }
        if self.may_fall_back()
            && self.contiguous_out(i)
            && self.contiguous_in(i)
            && let Some(i) = self.alone(ctx, now, i)
        {
            let reason = if answer { FallbackReason::ChecksumFailure } else { FallbackReason::MpFail };
            if answer {
                self.count(ctx, now, id, Counter::DSSCorruptionFallback);
            }
            self.fall_back(ctx, now, reason);
            if !answer {
                // RFC 8684 §3.7: answered in kind, so that both directions become plain TCP.
                self.say_fail(i, next);
            }
            return true;
        }
        self.count(ctx, now, id, Counter::FallbackFailed);
        self.reset_with_fail(ctx, now, i, next);
        false
    }

    /// Repeats MP_FAILs that nobody answered; in the end the subflow goes.
    pub(crate) fn resend_fails(&mut self, ctx: &mut Context, now: Instant) {
        for i in self.subflows.indices().rev() {
            match self.subflows.get(i).and_then(|m| m.incoming.unanswered_fail(now)) {
                None => {}
                Some(Unanswered::GiveUp(data)) => {
                    self.count(ctx, now, Some(self.subflows[i].tcp.id()), Counter::FallbackFailed);
                    self.reset_with_fail(ctx, now, i, data);
                }
                Some(Unanswered::Repeat(data, tries)) => {
                    let m = &mut self.subflows[i];
                    m.incoming.on_fail_repeated(now + m.tcp.rto().saturating_mul(1 << tries));
                    self.say_fail(i, data);
                }
            }
        }
    }

    /// Whether subflow `i` alone carries data, so that the connection may fall back on it; its index.
    /// Subflows that are still being opened have no place in a connection that falls back, and are reset.
    fn alone(&mut self, ctx: &mut Context, now: Instant, i: usize) -> Option<usize> {
        if self.subflows.enumerate().any(|(j, m)| j != i && m.is_joined()) {
            return None;
        }
        for j in self.subflows.indices().rev() {
            if j != i && self.subflows.get(j).is_some() {
                self.reset_subflow(ctx, now, j, ResetReason::MptcpSpecific);
            }
        }
        self.sole_subflow().filter(|sole| *sole == i)
    }
}

/// The segment carries an MPTCP option that only an MPTCP peer, not one that has fallen back, sends.
fn carries_signal(seg: &TcpRepr) -> bool {
    seg.options.mptcp.iter().any(|o| !matches!(o, MptcpOption::Reset(_) | MptcpOption::Fail(_)))
}

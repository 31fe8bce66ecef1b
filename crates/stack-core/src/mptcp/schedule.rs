//! Which bytes go on which subflow next: snapshots for the scheduler, and the cutting of segments.
//!
//! By example: `docs/src/by-example/dss.md`, `docs/src/by-example/mp-prio.md`.

use super::connection::Connection;
use super::mapping::{Mapping, Segment};
use super::reinject::Reinject;
use crate::context::Context;
use crate::observe::Counter;
use crate::tcp::{NewData, SizeProbe};
use core::ops::Range;
use smallvec::SmallVec;
use umptcp_scheduler::{Decision, Reinjection, Snapshot, SubflowView, preferred};
use umptcp_types::{DataOffset, Instant, SubflowId, SubflowOffset};

/// Bytes that TCP options take on a data segment of an MPTCP connection: timestamps 12, DSS 28 (RFC 8684
/// figure 9 with 8-byte fields, padded).
const DSS_OPTIONS: usize = 28;
const TIMESTAMP_OPTIONS: usize = 12;

/// The subflows that may carry data now: what the scheduler sees of each, and its index.
#[derive(Default)]
pub(super) struct Candidates {
    pub(super) views: SmallVec<[SubflowView; 4]>,
    pub(super) places: SmallVec<[usize; 4]>,
}

impl Candidates {
    /// The one that the scheduler chose.
    pub(super) fn find(&self, id: SubflowId) -> Option<(usize, &SubflowView)> {
        let k = self.views.iter().position(|v| v.id == id)?;
        Some((self.places[k], &self.views[k]))
    }
}

impl Connection {
    /// Payload bytes per packet of data on subflow `i`.
    pub(crate) fn packet_payload(&self, i: usize) -> u32 {
        let m = &self.subflows[i];
        let timestamps = if m.tcp.timestamps() { TIMESTAMP_OPTIONS } else { 0 };
        // Packets that repeat what was sent with mappings have the bounds of those before: a peer that has fallen back
        // meanwhile may not know what to do with one that it has half of (Linux 6.18 takes the half that it has for
        // new data, and delivers wrong bytes).
        let dss = if self.mptcp.maps() || m.has_mapped_unacked() { DSS_OPTIONS } else { 0 };
        m.tcp.packet_payload(timestamps + dss)
    }

    /// What the scheduler sees, and where the subflows are.
    fn candidates(&self, ctx: &Context, now: Instant) -> Candidates {
        let mut candidates = Candidates::default();
        for (i, m) in self.subflows.enumerate() {
            if !m.can_send_data() || m.is_out(ctx) || self.is_ending_on(ctx, m.tcp.path()) {
                continue;
            }
            let packet = u64::from(self.packet_payload(i));
            let in_flight = m.tcp.in_flight();
            let congestion = m.tcp.congestion_room(self.cc.as_ref());
            // A window with room for less than a packet waits, unless nothing is in flight (RFC 9293
            // §3.8.6.2.1).
            let congestion = match congestion {
                c if c >= packet => c,
                _ if in_flight == 0 => packet,
                _ => 0,
            };
            // What was lost goes first.
            let lost = m.tcp.has_lost();
            let mut room = if lost || m.is_busy(ctx) { 0 } else { congestion.min(m.tcp.window_room()) };
            // RFC 4821 §7.4: where a probe is due ordinary data wait until there is room for that.
            let narrow = |p: SizeProbe| room.min(self.send.window()) < p.payload;
            if in_flight > 0 && self.size_probe(now, i).is_some_and(narrow) {
                room = 0;
            }
            let mut view = SubflowView::new(m.tcp.id(), packet as u32);
            view.srtt = m.tcp.srtt();
            view.rttvar = m.tcp.rttvar();
            view.window = self.cc.window(m.tcp.id());
            view.pacing_rate = m.tcp.pacing_rate(self.cc.as_ref()).unwrap_or(u64::MAX);
            // What the NIC holds back is no part of the round trip, and makes no loss: the window grows without
            // meaning. Schedulers that believed in it would wait for a path that has no more to give.
            if let Some(rate) = ctx.path_rate(m.tcp.path()) {
                view.pacing_rate = view.pacing_rate.min(rate);
                if let Some(srtt) = view.srtt {
                    let line = u128::from(rate) * srtt.as_nanos() / 1_000_000_000;
                    view.window = view.window.min(u64::try_from(line).unwrap_or(u64::MAX).max(packet));
                }
            }
            view.in_flight = in_flight;
            if self.is_mptcp() {
                view.behind = self.send.next() - m.outgoing.data_end().max(self.send.una());
            }
            view.room = room;
            view.next_send = m.tcp.next_send(now).max(m.join.data_from());
            view.loss = m.tcp.loss_rate();
            view.backup = m.is_backup();
            let priority = m.priority();
            view.metered = priority.metered;
            view.weight = priority.weight;
            view.cost = priority.cost;
            view.health = m.health();
            candidates.views.push(view);
            candidates.places.push(i);
        }
        candidates
    }

    /// The next segment of data: reinjection first, then new data.
    pub(crate) fn poll_data(&mut self, ctx: &mut Context, now: Instant) -> Option<(usize, Segment)> {
        let through = self.life.is_established() && !self.mptcp.is_open();
        if !(through || self.answers_early()) {
            return None;
        }
        let backlog = self.send.backlog();
        let again = self.send.next_reinject();
        let repeats = self.scheduler.repeats() && self.is_mptcp() && self.send.una() < self.send.next();
        let full = self.is_buffer_blocking();
        let measures = self.is_measurement_due(now);
        let tail = self.is_tail_slow(now);
        if backlog == 0 && again.is_none() && !repeats && !full && !measures && !tail {
            return None;
        }
        let mut candidates = self.candidates(ctx, now);
        if candidates.views.is_empty() {
            self.wait_for_subflow(now);
            return None;
        }
        if let Some(front) = again
            && let Some(found) = self.poll_reinject(ctx, now, &front, &candidates)
        {
            return Some(found);
        }
        if measures && let Some(found) = self.poll_measurement(ctx, now, &candidates) {
            return Some(found);
        }
        if backlog == 0 && !repeats && !full && !tail {
            return None;
        }
        let send_window = self.send.window();
        let closed =
            send_window == 0 || candidates.places.iter().all(|i| self.subflows[*i].tcp.window_room() == 0);
        if backlog > 0 && !closed {
            self.send.on_window_open();
        }
        self.spare_window(&mut candidates);
        if (repeats || backlog > 0 && !closed)
            && let Some(found) = self.poll_scheduler(ctx, now, &candidates)
        {
            return Some(found);
        }
        if tail && let Some(found) = self.poll_tail(ctx, now, &candidates) {
            return Some(found);
        }
        if let Some(found) = self.poll_opportunistic(ctx, now, &candidates) {
            return Some(found);
        }
        if backlog > 0 && closed {
            self.on_window_closed(now);
            return None;
        }
        self.note_pacing(now, &candidates.views);
        if backlog > 0 {
            self.note_small_window(now, &candidates, send_window, backlog);
            self.probe_closed_windows(now);
        }
        None
    }

    /// What the scheduler sees.
    pub(super) fn snapshot<'a>(&self, now: Instant, candidates: &'a Candidates) -> Snapshot<'a> {
        let mut snapshot = Snapshot::new(now, &candidates.views, self.send.window(), self.send.backlog());
        snapshot.whole_window = self.send.whole_window();
        snapshot
    }

    /// The next segment as the scheduler has it, apart from reinjection.
    fn poll_scheduler(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        candidates: &Candidates,
    ) -> Option<(usize, Segment)> {
        let snapshot = self.snapshot(now, candidates);
        match self.scheduler.schedule(&snapshot) {
            Decision::Send { subflow, limit } => {
                self.send_new(ctx, now, &snapshot, candidates.find(subflow)?, limit)
            }
            Decision::Repeat { subflow, limit } => self.repeat(ctx, now, candidates.find(subflow)?, limit),
            Decision::Wait => None,
        }
    }

    /// A segment of new data on the subflow that the scheduler chose for at most `limit` bytes.
    fn send_new(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        snapshot: &Snapshot<'_>,
        (i, view): (usize, &SubflowView),
        limit: u64,
    ) -> Option<(usize, Segment)> {
        let available = snapshot.sendable();
        let room = limit.min(view.room).min(available);
        let probe = self.size_probe(now, i).filter(|p| p.payload <= room);
        let n = match probe {
            Some(probe) => probe.payload,
            None => self.segment_size(i, view, limit, available, snapshot.backlog)?,
        };
        let range = self.send.take_next(n);
        if self.send.limits_not_sent() {
            self.notify_writable(ctx);
        }
        let segment = self.cut(now, i, range);
        if let Some(probe) = probe {
            self.subflows[i].tcp.size_probe_sent(now, segment.seq, probe);
        }
        Some((i, segment))
    }

    /// A segment of what the subflow that the scheduler chose is behind the others.
    fn repeat(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        (i, view): (usize, &SubflowView),
        limit: u64,
    ) -> Option<(usize, Segment)> {
        let start = DataOffset(self.send.next().0 - view.behind);
        let n = self.copy_size(i, view, limit.min(view.behind))?;
        self.count(ctx, now, Some(view.id), Counter::MPTCPRepeat);
        Some((i, self.cut(now, i, start..start + n)))
    }

    /// How many of `wanted` bytes that others carry already the next segment on subflow `i` takes.
    pub(super) fn copy_size(&self, i: usize, view: &SubflowView, wanted: u64) -> Option<u64> {
        let packet = u64::from(view.mss);
        let segment = u64::from(self.subflows[i].tcp.segment_limit(self.cc.as_ref(), view.mss));
        let n = wanted.min(view.room).min(segment);
        let n = if n >= packet { n - n % packet } else { n };
        (n > 0).then_some(n)
    }

    /// If only pacing holds data back, wake up when it no longer does.
    pub(super) fn note_pacing(&mut self, now: Instant, views: &[SubflowView]) {
        let paced = views.iter().filter(|v| v.room > 0 && v.next_send > now).map(|v| v.next_send).min();
        // A retransmission that is held back on another subflow, or on this one, may be due earlier.
        if let Some(at) = paced {
            self.send.wake_at(at);
        }
    }

    /// A window that is open by less than a packet: that little goes once the override timeout has passed
    /// (RFC 9293 §3.8.6.2.1), for which the timer of the zero window serves.
    fn note_small_window(&mut self, now: Instant, candidates: &Candidates, send_window: u64, backlog: u64) {
        for (&i, view) in candidates.places.iter().zip(&candidates.views) {
            let packet = u64::from(view.mss);
            let tcp = &mut self.subflows[i].tcp;
            let open = tcp.window_room().min(send_window);
            let small = open < packet && open < backlog;
            if small && view.in_flight == 0 && view.room > 0 && !tcp.is_window_probing() {
                tcp.arm_persist(now);
            }
        }
    }

    /// The peer's window stops us: ask it now and then (RFC 9293 §3.8.6.1).
    fn on_window_closed(&mut self, now: Instant) {
        if self.send.on_window_closed() {
            self.scheduler.on_blocked(now);
            self.arm_data_timer(now, false);
        }
        if self.send.una() < self.send.next() {
            return;
        }
        let (probes, mut armed) = (self.send.window_probes(), false);
        for m in self.subflows.iter_mut() {
            if m.can_send_data() && m.tcp.in_flight() == 0 && !m.tcp.is_window_probing() {
                m.tcp.arm_persist_after(now, probes);
                armed = true;
            }
        }
        if armed {
            self.send.on_window_probed();
        }
    }

    /// A subflow that the scheduler waits for may be one whose own window is closed while others' are not:
    /// nothing but a probe brings the news that it opened (RFC 9293 §3.8.6.1).
    fn probe_closed_windows(&mut self, now: Instant) {
        for m in self.subflows.iter_mut() {
            let closed = m.can_send_data() && m.tcp.in_flight() == 0 && m.tcp.window_room() == 0;
            if closed && !m.tcp.is_window_probing() {
                m.tcp.arm_persist(now);
            }
        }
    }

    /// The probe for larger packets that the next new data on subflow `i` should be, if one is due.
    fn size_probe(&self, now: Instant, i: usize) -> Option<SizeProbe> {
        let tcp = &self.subflows[i].tcp;
        let due = tcp.size_probe_due(now);
        // Not where the next segment needs options of its own.
        let first = due && self.needs_capable(i, self.send.next() == DataOffset(self.first_data(i)));
        if !due || first || !tcp.is_synchronized() {
            return None;
        }
        let enough = self.send.backlog().min(self.send.whole_window());
        tcp.size_probe(now, self.cc.as_ref(), self.packet_payload(i), enough)
    }

    /// How many bytes the next segment on subflow `i` carries; `None`: better wait.
    fn segment_size(
        &self,
        i: usize,
        view: &SubflowView,
        limit: u64,
        available: u64,
        backlog: u64,
    ) -> Option<u64> {
        if view.room == 0 || limit == 0 {
            return None;
        }
        let packet = u64::from(view.mss);
        let tcp = &self.subflows[i].tcp;
        // The scheduler's limit is a turn, not a window: it may end with a packet, but not within one.
        let mut n = available.min(limit.max(packet)).min(view.room);
        n = n.min(u64::from(tcp.segment_limit(self.cc.as_ref(), view.mss)));
        // The first data repeats MP_CAPABLE, which some peers take on one packet only.
        if self.needs_capable(i, self.send.next() == DataOffset(self.first_data(i))) {
            n = n.min(packet);
        }
        if n >= packet {
            n -= n % packet;
        } else if n < backlog {
            // A window, not the lack of data, makes it small (RFC 9293 §3.8.6.2.1).
            let worth_it =
                n >= tcp.max_send_window() / 2 || (view.in_flight == 0 && tcp.small_segment_allowed());
            if !worth_it {
                return None;
            }
        } else if !self.config.no_delay && view.in_flight > 0 && !self.send.is_shut() {
            // Nagle (RFC 9293 §3.7.4). A SYN/ACK is no data.
            let syn_ack_only = self.answers_early() && tcp.snd_nxt() == SubflowOffset(1);
            return syn_ack_only.then_some(n);
        }
        Some(n)
    }

    /// One packet of new data that subflow `i` wants whatever its congestion window: as a tail loss probe or
    /// for F-RTO.
    ///
    /// Only when it is the only subflow: new data on a path that may be dead would hold up the whole
    /// connection.
    pub(crate) fn poll_forward(&mut self, now: Instant, i: usize) -> Option<Segment> {
        let alone = self.subflows.iter().filter(|m| m.can_send_data()).count() == 1;
        let backlog = self.send.backlog();
        let window = self.send.window().min(self.subflows[i].tcp.window_room());
        let n = backlog.min(window).min(u64::from(self.packet_payload(i)));
        let ready = self.life.is_established() && !self.mptcp.is_open();
        let may = ready && alone && self.subflows[i].can_send_data() && n > 0;
        if !may {
            self.subflows[i].tcp.no_new_data();
            return None;
        }
        let range = self.send.take_next(n);
        let segment = self.cut(now, i, range);
        self.subflows[i].tcp.new_data_sent(now);
        Some(segment)
    }

    /// Cuts `range` out of the send queue and gives it to subflow `i`.
    pub(super) fn cut(&mut self, now: Instant, i: usize, range: Range<DataOffset>) -> Segment {
        let payload = self.send.slice(range.clone());
        let last = range.end >= self.send.end();
        let app_limited = last && range.end >= self.send.next();
        let mapping = if self.mptcp.maps() {
            self.send.on_mapped(range.clone(), self.subflows[i].tcp.id());
            Some(self.declare(i, range.start, &payload))
        } else {
            self.plain.mapping(self.subflows[i].tcp.snd_nxt() + payload.len() as u64, self.mptcp.checksum())
        };
        let data = NewData { payload, tag: mapping, push: last, app_limited };
        self.scheduler.on_sent(now, self.subflows[i].tcp.id(), data.payload.len() as u64);
        let segment = self.subflows[i].tcp.send_data(now, data, self.cc.as_mut());
        self.subflows[i].on_data(now);
        self.subflows[i].signals.on_interrupted();
        self.arm_data_timer(now, false);
        segment
    }

    /// Declares the mapping of `payload`, which is about to be sent on subflow `i` (RFC 8684 §3.3.1).
    fn declare(&mut self, i: usize, data: DataOffset, payload: &crate::buffers::payload::Payload) -> Mapping {
        let m = &mut self.subflows[i];
        let subflow = m.tcp.snd_nxt();
        m.outgoing.on_mapping(data, payload.len() as u64, subflow);
        let len = payload.len().min(usize::from(u16::MAX)) as u16;
        let ssn = m.outgoing.ssn(subflow);
        let checksum = self.mptcp.checksum().then(|| {
            use crate::wire::{checksum, mptcp::dss_pseudo_header};
            let sum = checksum::sum_slices(payload.slices().iter().map(|b| &b[..]), 0);
            let dsn = data.to_wire(self.mptcp.local_idsn()).0;
            !checksum::fold(checksum::add(sum, dss_pseudo_header(dsn, ssn, len)))
        });
        Mapping { data, subflow, len, checksum }
    }

    /// No subflow that a scheduler prefers may carry `front`, and no subflow's own timer sees to it: what was
    /// acknowledged by a subflow's peer, or a box on the way, and not at the data level.
    fn needs_rescue(&self, snapshot: &Snapshot<'_>, front: &Reinject) -> bool {
        preferred(snapshot).all(|s| front.carried_by.contains(&s.id)) && !self.is_carried(front.range.start)
    }

    /// Who sends it then: one that has not carried it, whatever its rank; or any, if none is left.
    fn rescue(&mut self, now: Instant, front: &Reinject, candidates: &Candidates) -> Decision {
        let others = candidates.views.iter().filter(|view| !front.carried_by.contains(&view.id));
        let mut able = Candidates { views: others.cloned().collect(), places: SmallVec::new() };
        if able.views.is_empty() {
            able.views = candidates.views.clone();
        }
        let snapshot = self.snapshot(now, &able);
        self.scheduler.reinject(&snapshot, &Reinjection::new(front.range.clone(), &[]))
    }

    /// A segment of `front`: data that other subflows carry already but do not deliver.
    fn poll_reinject(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        front: &Reinject,
        candidates: &Candidates,
    ) -> Option<(usize, Segment)> {
        let what = Reinjection::new(front.range.clone(), &front.carried_by);
        let snapshot = self.snapshot(now, candidates);
        let mut decision = self.scheduler.reinject(&snapshot, &what);
        if matches!(decision, Decision::Wait) && self.needs_rescue(&snapshot, front) {
            decision = self.rescue(now, front, candidates);
        }
        let Decision::Send { subflow, limit } = decision else {
            self.note_pacing(now, &candidates.views);
            return None;
        };
        let range = front.range.clone();
        let (i, view) = candidates.find(subflow)?;
        let n = self.copy_size(i, view, limit.min(range.end - range.start))?;
        let piece = range.start..range.start + n;
        self.send.on_reinjected(piece.end, n);
        for m in self.subflows.iter_mut().filter(|m| front.carried_by.contains(&m.tcp.id())) {
            m.on_reinjected(n);
        }
        self.count(ctx, now, Some(subflow), Counter::MPTCPRetrans);
        Some((i, self.cut(now, i, piece)))
    }
}

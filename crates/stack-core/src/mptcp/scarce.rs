//! The memory of all connections: what a connection is charged for, and what it does when all together hold what
//! they may.
//!
//! A segment is then refused if its data would have to wait, and it is as if the network had lost it. A window that
//! was offered is not taken back (RFC 9293 §3.8.6), so the peer sends into it, and repeats what was refused ever more
//! seldom. So the beginning of what was refused is kept, and taken as soon as there is room: the acknowledgement of
//! it makes the peer go on at once.

use super::connection::Connection;
use super::kept::Kept;
use super::right_size::LEAST;
use crate::context::{Context, Pressure};
use crate::error::ConnectionError;
use crate::info::ApplicationQueues;
use crate::observe::Counter;
use crate::tcp::Arrival;
use crate::wire::mptcp::MptcpOption;
use crate::wire::tcp::TcpRepr;
use bytes::Bytes;
use umptcp_types::{DataOffset, Instant, SeqNumber};

/// Where the next byte of a subflow belongs.
enum Place {
    /// There, and nothing on the subflow waits before it.
    At(DataOffset),
    /// No mapping says it, or something before it waits for its own.
    Unknown,
}

impl Connection {
    /// Bytes received that wait for the application, for those before them, or for their mapping.
    fn held_of_peer(&self) -> u64 {
        let waiting = |m: &super::subflow::Subflow| m.tcp.out_of_order() + m.incoming.waiting() as u64;
        self.recv.held() + self.recv.unread() + self.subflows.iter().map(waiting).sum::<u64>()
    }

    /// Brings the account of all connections up to date, and the buffers to what that leaves them.
    pub(super) fn account(&mut self, ctx: &mut Context, now: Instant) {
        let kept: usize = self.kept.iter().map(|k| k.payload.len()).sum();
        let held = self.send.held() + self.unsent + self.held_of_peer() + kept as u64;
        let before = core::mem::replace(&mut self.charged, held);
        if ctx.charge(now, before, held) {
            self.count(ctx, now, None, Counter::TcpMemoryPressures);
        }
        let pressure = ctx.pressure();
        self.recv.on_pressure(pressure);
        if self.send.on_pressure(pressure) {
            self.notify_writable(ctx);
        }
    }

    /// It goes, and what it held.
    pub(crate) fn on_freed(&mut self, ctx: &mut Context) {
        ctx.release(core::mem::take(&mut self.charged));
    }

    /// What the application's own queues hold now.
    pub(crate) fn set_application_queues(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        queues: ApplicationQueues,
    ) {
        self.recv.set_unread(queues.unread);
        self.unsent = queues.unsent;
        self.account(ctx, now);
        self.take_kept(ctx, now);
    }

    /// The application has let go of it.
    pub(super) fn forget_application_queues(&mut self) {
        self.recv.set_unread(None);
        self.unsent = 0;
    }

    /// All connections together hold what they may: a segment whose data would have to wait is as if lost, and
    /// this is what counts it. What does not have to wait is taken, and so are a few packets.
    pub(super) fn refuse_for_memory(
        &mut self,
        ctx: &Context,
        i: usize,
        arrival: &Arrival<'_>,
    ) -> Option<Counter> {
        let refused = self.would_wait(ctx, i, arrival.seg, arrival.payload.len())?;
        self.keep(i, arrival);
        if refused == Counter::TcpRcvQDrop {
            // It may be a probe of the closed window, which is to be answered.
            self.subflows[i].tcp.ack_now();
        }
        Some(refused)
    }

    /// Bytes of a mapping whose checksum is not known yet.
    fn whole_mappings_wait(&self, i: usize) -> u64 {
        if self.mptcp.checksum() { self.subflows[i].incoming.waiting() as u64 } else { 0 }
    }

    /// What counts a segment that is refused; `None`: it is taken.
    fn would_wait(&self, ctx: &Context, i: usize, seg: &TcpRepr, len: usize) -> Option<Counter> {
        if len == 0 || ctx.pressure() < Pressure::Full || self.held_of_peer() + len as u64 <= LEAST as u64 {
            return None;
        }
        let next = self.subflows[i].tcp.wire_ack();
        if !SeqNumber(seg.seq.0.wrapping_add(len as u32)).after(next) {
            return None;
        }
        if seg.seq.after(next) {
            return Some(Counter::TcpOFODrop);
        }
        if self.recv.readable_bytes() > 0 || self.recv.unread() > 0 {
            return Some(Counter::TcpRcvQDrop);
        }
        if !self.is_mptcp() || !self.subflows[i].incoming.options_seen() {
            return None;
        }
        match self.place(i, seg) {
            // With checksums a mapping waits as a whole: what belongs to the next one goes on it.
            Place::At(at) if at <= self.recv.next_data() + self.whole_mappings_wait(i) => None,
            _ => Some(Counter::TcpOFODrop),
        }
    }

    /// Where the next byte of subflow `i` belongs, which `seg` carries, says its mapping or one that came before.
    fn place(&self, i: usize, seg: &TcpRepr) -> Place {
        let m = &self.subflows[i];
        if m.incoming.is_unmapped() {
            return Place::Unknown;
        }
        let at = m.incoming.consumed() + m.incoming.waiting() as u64;
        let idsn = self.mptcp.remote_idsn();
        let own = seg.options.mptcp.iter().find_map(|option| match option {
            MptcpOption::Dss(dss) => dss.mapping,
            _ => None,
        });
        let own = own.and_then(|own| {
            let from = m.incoming.offset_of(own.ssn)?;
            let data = DataOffset::from_wire(self.recv.whole_dsn(own.dsn, idsn), idsn)?;
            (from <= at && at < from + u64::from(own.len)).then(|| data + (at - from))
        });
        own.or_else(|| m.incoming.place_of(at)).map_or(Place::Unknown, Place::At)
    }

    /// A segment is refused: if it has the next bytes of its subflow, those are kept.
    fn keep(&mut self, i: usize, arrival: &Arrival<'_>) {
        let m = &self.subflows[i];
        let (subflow, next) = (m.tcp.id(), m.tcp.wire_ack());
        let skip = next.0.wrapping_sub(arrival.seg.seq.0) as usize;
        if arrival.seg.seq.after(next) || skip >= arrival.payload.len() {
            return;
        }
        let fresh = &arrival.payload[skip..];
        // A copy, since the segment may be 64 KiB.
        let payload = Bytes::copy_from_slice(&fresh[..fresh.len().min(m.tcp.mss() as usize)]);
        let mut seg = arrival.seg.clone();
        seg.seq = next;
        seg.flags.fin &= payload.len() == fresh.len();
        if let Some(timestamps) = &mut seg.options.timestamps {
            // By then it is too old to tell of the round-trip time.
            timestamps.echo = 0;
        }
        // The latest has the latest timestamp (RFC 7323 §5).
        self.kept.retain(|kept| kept.subflow != subflow);
        self.kept.push(Kept { subflow, seg, payload });
    }

    /// What was kept and does not have to wait any more is taken.
    pub(super) fn take_kept(&mut self, ctx: &mut Context, now: Instant) {
        let mut some = false;
        while !self.kept.is_empty() {
            let subflows = &self.subflows;
            self.kept.retain(|kept| subflows.find(kept.subflow).is_some());
            let fits = |kept: &Kept| {
                let i = self.subflows.find(kept.subflow);
                i.is_some_and(|i| self.would_wait(ctx, i, &kept.seg, kept.payload.len()).is_none())
            };
            let Some(k) = self.kept.iter().position(fits) else { break };
            let Kept { subflow, seg, payload } = self.kept.remove(k);
            let signals = seg.options.has_signal();
            self.on_segment(ctx, now, subflow, Arrival { seg: &seg, payload, marked: false, signals });
            if let Some(i) = self.subflows.find(subflow) {
                // The peer waits.
                self.subflows[i].tcp.ack_now();
            }
            self.account(ctx, now);
            some = true;
        }
        if some {
            self.after_segments(ctx, now);
        }
    }

    /// From time to time while memory is full: what waits for a peer that has fallen silent is given up, and what
    /// was kept is taken if there is room. True: it may have something to send. `None`: nothing of its waits.
    pub(crate) fn look_at_memory(&mut self, ctx: &mut Context, now: Instant) -> Option<bool> {
        if self.charged == 0 {
            return None;
        }
        self.account(ctx, now);
        self.give_up_waiting(ctx, now);
        let before = self.kept.len();
        self.take_kept(ctx, now);
        (before > 0).then_some(self.kept.len() < before)
    }

    /// Drops what has waited for others for long, at the data level and on subflows. It has not been acknowledged
    /// (RFC 8684 §3.3.5; RFC 2018 §8: what was only SACKed may be dropped when buffers are full), so it comes again.
    fn give_up_waiting(&mut self, ctx: &mut Context, now: Instant) {
        let received: u64 = self.subflows.iter().map(|m| m.tcp.stats().bytes_received).sum();
        let waiting = |m: &super::subflow::Subflow| m.tcp.out_of_order() > 0;
        let waits = self.recv.out_of_order_bytes() > 0 || self.subflows.iter().any(waiting);
        // What a reader is slow to read cannot go on whatever comes, and what is dropped at the data level comes again
        // by the peer's timer alone.
        let unread = self.recv.readable_bytes() > 0 || self.recv.unread() > 0;
        if ctx.pressure() < Pressure::Full || !waits || unread {
            self.recv.forget_waiting();
        } else if self.recv.has_waited(now, received) {
            self.recv.prune();
            self.subflows.iter_mut().for_each(|m| m.tcp.prune());
            self.count(ctx, now, None, Counter::TcpOfoPruned);
            self.account(ctx, now);
        }
    }

    /// Segments have been worked off.
    pub(super) fn after_segments(&mut self, ctx: &mut Context, now: Instant) {
        if self.recv.has_discarded() && !self.life.has_ended() {
            // RFC 9293 §3.6.1, SHLD-3: the peer learns that nobody reads what it sends.
            self.abort(ctx, now, ConnectionError::Aborted);
        }
        self.subflows.sweep();
        self.account(ctx, now);
    }
}

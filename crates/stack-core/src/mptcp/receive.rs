//! The receiving half of the data level (RFC 8684 §3.3): what has come, the window we offer, and how we
//! acknowledge.
//!
//! By example: `docs/src/by-example/dss.md`.

use super::receive_queue::{Delivered, ReceiveQueue};
use super::right_size::{RightSize, Size};
use crate::config::BufferSize;
use crate::context::Pressure;
use crate::wire::mptcp::{DataAck, Dsn};
use bytes::Bytes;
use umptcp_types::{DataOffset, DataSeq, Duration, Instant};

/// Data wait for others for so long while memory is full and nothing comes in order, before they are dropped: what
/// is missing may be sent behind what was refused, or the peer may have gone.
const PRUNE_AFTER: Duration = Duration::from_secs(1);

/// What the application's own queue holds.
#[derive(Clone, Copy, Debug)]
struct Unread {
    now: u64,
    /// When it was asked last, before more was handed out.
    then: u64,
}

/// The receiving half of the data level.
#[derive(Debug)]
pub(crate) struct ReceiveState {
    queue: ReceiveQueue,
    size: Size,
    right_size: RightSize,
    /// Since when data wait for others while memory is full, and what had come in order then: at the data level,
    /// and on all subflows.
    waiting: Option<(Instant, DataOffset, u64)>,
    /// What the application's own queue holds, if there is one.
    application: Option<Unread>,
    /// The largest window there has been.
    most_offered: usize,
    /// DATA_ACKs go out in 8 bytes, as is owed for 8-byte DSNs (RFC 8684 §3.3.2); in 4 once the peer has sent
    /// shorter ones only.
    long_data_acks: bool,
    long_dsn_seen: bool,
    /// Bytes of the stream that came in the SYN, before the peer's data sequence space (RFC 8684 appendix
    /// B.2).
    syn_data: u64,
    bytes_received: u64,
}

impl ReceiveState {
    /// Nothing received; the window is what `buffer` begins with, as far as there is memory.
    pub(crate) fn new(buffer: BufferSize, pressure: Pressure) -> Self {
        let size = Size::new(buffer);
        ReceiveState {
            queue: ReceiveQueue::new(size.usable(pressure)),
            size,
            right_size: RightSize::default(),
            waiting: None,
            application: None,
            most_offered: size.get(),
            long_data_acks: true,
            long_dsn_seen: false,
            syn_data: 0,
            bytes_received: 0,
        }
    }

    /// The window is what `buffer` says from now on. What was offered stays.
    pub(crate) fn set_buffer(&mut self, buffer: BufferSize, pressure: Pressure) {
        self.size.set(buffer);
        // What a larger buffer let through is no measure for one that has to grow again.
        self.right_size = RightSize::default();
        self.apply_size(pressure);
    }

    /// Memory is scarce, or is not any more.
    pub(crate) fn on_pressure(&mut self, pressure: Pressure) {
        if self.size.on_pressure(pressure) {
            // It grows again by what is measured from then on.
            self.right_size = RightSize::default();
        }
        self.apply_size(pressure);
    }

    /// Data wait for others while memory is full; `received` bytes have come in order on subflows. True: they have
    /// waited for long, and nothing has come that was missing.
    pub(crate) fn has_waited(&mut self, now: Instant, received: u64) -> bool {
        let next = self.queue.next();
        let same = |(_, data, subflows): &(Instant, DataOffset, u64)| (*data, *subflows) == (next, received);
        let since = self.waiting.filter(same).map_or(now, |(since, ..)| since);
        let long = now.saturating_duration_since(since) >= PRUNE_AFTER;
        self.waiting = (!long).then_some((since, next, received));
        long
    }

    /// Nothing waits, or there is memory for it.
    pub(crate) fn forget_waiting(&mut self) {
        self.waiting = None;
    }

    /// The application's own queue holds so many bytes that it has not read. `None`: it has no queue.
    pub(crate) fn set_unread(&mut self, bytes: Option<u64>) {
        self.application = bytes.map(|bytes| Unread { now: bytes, then: bytes });
    }

    /// Bytes that were handed out and that the application has not read, as far as that is known.
    pub(crate) fn unread(&self) -> u64 {
        self.application.map_or(0, |unread| unread.now)
    }

    /// Drops what waits for others: it has not been DATA_ACKed, so it comes again.
    pub(crate) fn prune(&mut self) {
        self.queue.prune();
    }

    /// Bytes that were received and not read.
    pub(crate) fn held(&self) -> u64 {
        self.queue.readable_bytes() as u64 + self.queue.out_of_order_bytes()
    }

    /// Data have come, or the application has read; the connection's slowest round trip takes `rtt`. True: the
    /// buffer has become larger.
    pub(crate) fn tune(&mut self, now: Instant, rtt: Duration) -> bool {
        let readable = self.queue.readable_bytes() as u64;
        let taken = self.bytes_received.saturating_sub(readable + self.unread());
        let arrived = self.bytes_received + self.queue.out_of_order_bytes();
        let behind = self.application.map_or(0, |unread| unread.then);
        let kept_up = readable == 0 && self.right_size.keeps_up(behind);
        let needed = self.right_size.on_progress(now, rtt, (taken, arrived), kept_up);
        let grows = needed.is_some_and(|needed| self.size.grow(needed));
        if grows {
            self.apply_size(Pressure::None);
        }
        grows
    }

    /// The measurement that is under way begins anew.
    pub(crate) fn forget_measurement(&mut self) {
        self.right_size.restart();
    }

    /// The buffer tunes itself, and has not reached its limit.
    pub(crate) fn may_grow(&self) -> bool {
        self.size.may_grow()
    }

    /// Bytes that the buffer takes.
    pub(crate) fn capacity(&self) -> usize {
        self.queue.capacity()
    }

    fn apply_size(&mut self, pressure: Pressure) {
        let capacity = self.size.usable(pressure);
        // What it is to be when memory is free again counts, too: nobody is told of that change.
        self.most_offered = self.most_offered.max(self.size.get());
        self.queue.set_capacity(capacity);
    }

    /// The largest window there has been: the peer may send as much at once.
    pub(crate) fn most_offered(&self) -> usize {
        self.most_offered
    }

    // ---- data ----

    /// The peer's SYN carries `n` bytes that we take (RFC 7413).
    pub(crate) fn on_syn_data(&mut self, n: u64) {
        self.syn_data = n;
    }

    /// Bytes of the stream that came in the SYN.
    pub(crate) fn syn_data(&self) -> u64 {
        self.syn_data
    }

    /// How many bytes of data in a SYN there is room for.
    pub(crate) fn syn_data_room(&self) -> usize {
        usize::try_from(self.queue.window_edge() - DataOffset(1)).unwrap_or(usize::MAX)
    }

    /// The sequence number of a mapping that has come, of which the length decides how we acknowledge.
    pub(crate) fn on_dsn(&mut self, dsn: Dsn, idsn: DataSeq) -> DataSeq {
        match dsn {
            Dsn::Long(_) => {
                self.long_data_acks = true;
                self.long_dsn_seen = true;
            }
            // RFC 8684 §3.3.2: short DATA_ACKs only while nothing that came with a long number may be
            // unacknowledged.
            Dsn::Short(_) => self.long_data_acks &= self.long_dsn_seen,
        }
        self.whole_dsn(dsn, idsn)
    }

    /// The whole of a sequence number of the peer's.
    pub(crate) fn whole_dsn(&self, dsn: Dsn, idsn: DataSeq) -> DataSeq {
        match dsn {
            Dsn::Long(v) => DataSeq(v),
            Dsn::Short(v) => DataSeq::from_low32(v, self.queue.next().to_wire(idsn)),
        }
    }

    /// Takes `bytes` that belong at `at`.
    pub(crate) fn insert(&mut self, at: DataOffset, bytes: Bytes) -> Delivered {
        let delivered = self.queue.insert(at, bytes);
        self.bytes_received += delivered.readable;
        delivered
    }

    /// The peer's DATA_FIN stands at `at`. False: it contradicts data or an earlier DATA_FIN and is ignored.
    pub(crate) fn on_data_fin(&mut self, at: DataOffset) -> bool {
        self.queue.data_fin(at)
    }

    /// Plain TCP: the FIN is in order. False: the end was known.
    pub(crate) fn on_fin(&mut self) -> bool {
        self.queue.data_fin(self.queue.next())
    }

    /// From here on plain TCP, where the FIN says where the data end.
    pub(crate) fn on_fallback(&mut self) {
        self.queue.forget_fin();
    }

    /// Next data offset expected, a DATA_FIN that is in order counted.
    pub(crate) fn next(&self) -> DataOffset {
        self.queue.next()
    }

    /// Next data byte expected, a DATA_FIN not counted.
    pub(crate) fn next_data(&self) -> DataOffset {
        self.queue.next_data()
    }

    /// Nothing lies beyond the first byte that is missing.
    pub(crate) fn is_contiguous(&self) -> bool {
        self.queue.is_contiguous()
    }

    /// All data and the DATA_FIN have been received.
    pub(crate) fn is_finished(&self) -> bool {
        self.queue.finished()
    }

    /// Bytes at the data level that lie beyond the first that is missing.
    pub(crate) fn out_of_order_bytes(&self) -> u64 {
        self.queue.out_of_order_bytes()
    }

    /// Bytes the application could read now.
    pub(crate) fn readable_bytes(&self) -> usize {
        self.queue.readable_bytes()
    }

    /// Bytes received in order.
    pub(crate) fn bytes_received(&self) -> u64 {
        self.bytes_received
    }

    /// At most `max` bytes for the application.
    pub(crate) fn read(&mut self, max: usize) -> Option<Bytes> {
        let bytes = self.queue.read(max)?;
        if let Some(unread) = &mut self.application {
            unread.now += bytes.len() as u64;
        }
        Some(bytes)
    }

    /// The application will not read any more.
    pub(crate) fn discard(&mut self) {
        self.queue.discard();
    }

    /// Data were dropped because the application does not read any more.
    pub(crate) fn has_discarded(&self) -> bool {
        self.queue.has_discarded()
    }

    // ---- acknowledgements and the window ----

    /// The DATA_ACK to send.
    pub(crate) fn data_ack(&self, idsn: DataSeq) -> DataAck {
        let v = self.queue.next().to_wire(idsn).0;
        if self.long_data_acks { DataAck::Long(v) } else { DataAck::Short(v as u32) }
    }

    /// Reading has opened the window enough for an update (RFC 9293 §3.8.6.2.2: not for a few bytes).
    pub(crate) fn owes_window_update(&self, mss: u64) -> bool {
        let now_open = self.queue.advertised_edge() - self.queue.next();
        let could_be = self.queue.window_edge() - self.queue.next();
        could_be >= 2 * now_open && could_be - now_open >= mss.min(self.capacity() as u64 / 2)
    }

    /// The window to offer. RFC 9293 §3.8.6.2.2: the edge does not move for a few bytes.
    fn window(&self, mss: u64) -> u64 {
        let (offered, edge) = (self.queue.advertised_edge(), self.queue.window_edge());
        let edge = if edge - offered < mss.min(self.capacity() as u64 / 2) { offered } else { edge };
        edge - self.queue.next()
    }

    /// The window field of a SYN, which is never scaled (RFC 7323 §2.2).
    pub(crate) fn syn_window(&self, mss: u32) -> u16 {
        self.window(u64::from(mss)).min(u64::from(u16::MAX)) as u16
    }

    /// The window field of a segment that leaves; notes what is advertised.
    pub(crate) fn advertise(&mut self, mss: u32, scale: u8) -> u16 {
        let free = self.window(u64::from(mss));
        let (next, offered) = (self.queue.next(), self.queue.advertised_edge());
        let mut field = free >> scale;
        if next + (field << scale) < offered
            && next + ((field + 1) << scale) <= self.queue.room_edge() + (1 << scale)
        {
            // Rounding down would move the edge back. Rounding up moves it on, though, and a peer that sends
            // a byte at a time would have it move as fast as it sends: so no further than a unit beyond the
            // buffer, where the edge moves back by less than a unit instead, which senders must expect of
            // scaled windows (RFC 7323 §2.4).
            field += 1;
        }
        let field = field.min(u64::from(u16::MAX));
        self.queue.advertised(next + (field << scale));
        field as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_numbers_are_acknowledged_in_short_until_a_long_one_comes() {
        let idsn = DataSeq(1 << 40);
        let mut r = ReceiveState::new(1000.into(), Pressure::None);
        assert!(matches!(r.data_ack(idsn), DataAck::Long(_)));
        assert_eq!(r.on_dsn(Dsn::Short(5), idsn), DataSeq((1 << 40) + 5));
        assert!(matches!(r.data_ack(idsn), DataAck::Short(1)));
        r.on_dsn(Dsn::Long((1 << 40) + 9), idsn);
        r.on_dsn(Dsn::Short(5), idsn);
        assert!(matches!(r.data_ack(idsn), DataAck::Long(_)));
    }

    #[test]
    fn the_window_is_offered_in_whole_steps() {
        let mut r = ReceiveState::new(10_000.into(), Pressure::None);
        assert_eq!(r.syn_window(1000), 10_000);
        assert_eq!(r.advertise(1000, 2), 2500);
        r.insert(DataOffset(1), Bytes::from_static(&[0; 900]));
        assert!(r.read(900).is_some() && !r.owes_window_update(1000));
        // The edge stays where it was: 900 bytes are less than a segment.
        assert_eq!(r.advertise(1000, 0), 9_100);
        assert_eq!(r.advertise(500, 0), 10_000);
    }
}

//! The sending half of the data level (RFC 8684 §3.3): what has been written, sent and DATA_ACKed, how far
//! the peer's window reaches, the DATA_FIN, what is to be sent again on another subflow, and the data-level
//! retransmission timer.

use super::carriers::Carriers;
use super::reinject::{Reinject, ReinjectQueue};
use super::right_size::Size;
use super::send_queue::SendQueue;
use crate::buffers::payload::Payload;
use crate::config::BufferSize;
use crate::context::Pressure;
use bytes::Bytes;
use core::ops::Range;
use umptcp_types::{DataOffset, Duration, Instant, SubflowId};

/// Shortest data-level retransmission timeout.
const MIN_TIMEOUT: Duration = Duration::from_millis(200);
/// Data-level timeouts double at most this many times.
const MAX_DOUBLINGS: u32 = 6;

/// How far our DATA_FIN is, or our FIN in plain TCP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fin {
    /// The application may write more.
    Open,
    /// The application has finished writing.
    Queued,
    /// It has been sent.
    Sent {
        /// It is to go out (again) with the next ACK.
        wanted: bool,
    },
    /// The peer has acknowledged it.
    Acked,
    /// The FIN of the only subflow was acknowledged although the application may write more: the subflow was
    /// being closed when the connection fell back to plain TCP.
    Cut,
}

impl Fin {
    /// The application has finished writing.
    fn on_shutdown(self) -> Fin {
        match self {
            Fin::Open => Fin::Queued,
            Fin::Cut => Fin::Acked,
            later => later,
        }
    }

    fn on_acked(self) -> Fin {
        match self {
            Fin::Open | Fin::Cut => Fin::Cut,
            _ => Fin::Acked,
        }
    }
}

/// The data-level retransmission timer (RFC 8684 §3.3.6).
#[derive(Debug)]
struct DataTimer {
    at: Option<Instant>,
    /// Timeouts since the last progress.
    count: u32,
    /// When the peer last DATA_ACKed something new, or something became outstanding.
    progress: Instant,
}

/// What a DATA_ACK brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Progress {
    /// Bytes it freed in the send buffer.
    pub(crate) freed: u64,
    /// The data-level timer starts anew.
    pub(crate) restart_timer: bool,
}

/// The sending half of the data level.
#[derive(Debug)]
pub(crate) struct SendState {
    queue: SendQueue,
    size: Size,
    /// Next data offset to be sent for the first time.
    next: DataOffset,
    /// First data offset the peer's window does not allow.
    edge: DataOffset,
    /// The most that could be outstanding so far, and when that grew last.
    most: (u64, Instant),
    fin: Fin,
    reinject: ReinjectQueue,
    carriers: Carriers,
    timer: DataTimer,
    /// Most bytes that are written and not sent.
    not_sent_limit: usize,
    /// Whose turn it is to carry what some subflow acknowledged and the data level did not: counts up.
    rescuer: u32,
    /// The window stopped us, and the scheduler has been told.
    blocked: bool,
    /// Probes asked for since the data-level window closed. Kept here, because a subflow whose own window is
    /// open forgets with every answer that it has probed.
    window_probes: u32,
    /// When pacing lets the next data leave.
    pacing_wake: Option<Instant>,
    bytes_sent: u64,
    bytes_acked: u64,
    /// Bytes sent again on another subflow.
    reinjected: u64,
    /// Those of them that arrived twice, because the subflow was only late.
    reinjected_needlessly: u64,
}

impl SendState {
    /// Nothing written yet; of what the buffer takes at most `not_sent_limit` bytes wait to be sent.
    pub(crate) fn new(buffer: BufferSize, not_sent_limit: usize) -> Self {
        let size = Size::new(buffer);
        SendState {
            queue: SendQueue::new(size.get()),
            size,
            not_sent_limit,
            next: DataOffset(1),
            edge: DataOffset(1),
            most: (0, Instant::ZERO),
            fin: Fin::Open,
            reinject: ReinjectQueue::default(),
            carriers: Carriers::default(),
            timer: DataTimer { at: None, count: 0, progress: Instant::ZERO },
            rescuer: 0,
            blocked: false,
            window_probes: 0,
            pacing_wake: None,
            bytes_sent: 0,
            bytes_acked: 0,
            reinjected: 0,
            reinjected_needlessly: 0,
        }
    }

    /// The buffer takes what `buffer` says from now on. What it holds stays.
    pub(crate) fn set_buffer(&mut self, buffer: BufferSize, pressure: Pressure) {
        self.size.set(buffer);
        self.queue.set_capacity(self.size.usable(pressure));
    }

    /// Memory is scarce, or is not any more. True: there is more room by it.
    pub(crate) fn on_pressure(&mut self, pressure: Pressure) -> bool {
        self.size.on_pressure(pressure);
        let (before, now) = (self.queue.capacity(), self.size.usable(pressure));
        self.queue.set_capacity(now);
        now > before
    }

    /// The buffer needs `bytes`, as far as it tunes itself.
    pub(crate) fn grow(&mut self, needed: u64) {
        if self.size.grow(needed) {
            self.queue.set_capacity(self.size.get());
        }
    }

    /// The buffer tunes itself, and the application uses it: it was half full before the last `freed` bytes
    /// were acknowledged.
    pub(crate) fn may_be_short(&self, freed: u64) -> bool {
        self.size.may_grow() && 2 * (self.held() + freed) >= self.capacity()
    }

    /// Bytes written and not DATA_ACKed.
    pub(crate) fn held(&self) -> u64 {
        self.queue.end() - self.queue.una()
    }

    // ---- what there is to send ----

    /// First offset not DATA_ACKed.
    pub(crate) fn una(&self) -> DataOffset {
        self.queue.una()
    }

    /// Next offset to be sent for the first time.
    pub(crate) fn next(&self) -> DataOffset {
        self.next
    }

    /// Offset after the last byte written, which is where the DATA_FIN stands.
    pub(crate) fn end(&self) -> DataOffset {
        self.queue.end()
    }

    /// Bytes the send buffer would take now.
    pub(crate) fn room(&self) -> usize {
        self.queue.room().min(self.not_sent_limit.saturating_sub(self.backlog() as usize))
    }

    /// There is room enough to say so: not for each segment that is sent.
    pub(crate) fn has_new_room(&self) -> bool {
        self.queue.room() > 0 && self.backlog() as usize <= self.not_sent_limit / 2
    }

    /// What has been sent makes room, and not only what has been acknowledged.
    pub(crate) fn limits_not_sent(&self) -> bool {
        self.not_sent_limit < usize::MAX
    }

    /// Bytes written and never sent.
    pub(crate) fn backlog(&self) -> u64 {
        self.queue.end() - self.next
    }

    /// Bytes of new data that the peer's window allows.
    pub(crate) fn window(&self) -> u64 {
        self.edge - self.next
    }

    /// Bytes beyond the first not DATA_ACKed that the peer's window allows.
    pub(crate) fn whole_window(&self) -> u64 {
        self.edge - self.queue.una()
    }

    /// When more could be outstanding than ever before: the last time that the peer's window or our buffer grew.
    pub(crate) fn grew(&self) -> Instant {
        self.most.1
    }

    /// Everything written has been DATA_ACKed, and the DATA_FIN too if the application has finished.
    pub(crate) fn is_done(&self) -> bool {
        self.queue.una() >= self.queue.end() && (!self.is_shut() || self.is_fin_acked())
    }

    /// Bytes that the send buffer takes.
    pub(crate) fn capacity(&self) -> u64 {
        self.queue.capacity() as u64
    }

    /// The application could write nothing now.
    pub(crate) fn is_full(&self) -> bool {
        self.queue.room() == 0
    }

    /// Data or a DATA_FIN wait for a DATA_ACK. So does a closed window, for which the subflows' own probes
    /// ask.
    pub(crate) fn is_outstanding(&self) -> bool {
        self.queue.una() < self.next || self.awaits_fin_ack() || self.blocked
    }

    /// Bytes sent for the first time.
    pub(crate) fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }

    /// Bytes DATA_ACKed.
    pub(crate) fn bytes_acked(&self) -> u64 {
        self.bytes_acked
    }

    /// Takes as much of `data` as fits, shared if large; returns how much.
    pub(crate) fn write(&mut self, mut data: Bytes) -> usize {
        data.truncate(self.room());
        self.queue.push(data)
    }

    /// Takes as much of `data` as fits, copied; returns how much.
    pub(crate) fn write_slice(&mut self, data: &[u8]) -> usize {
        self.queue.push_slice(&data[..data.len().min(self.room())])
    }

    /// The bytes `range`, which must not have been DATA_ACKed yet.
    pub(crate) fn slice(&mut self, range: Range<DataOffset>) -> Payload {
        self.queue.slice(range)
    }

    /// The next `n` bytes of new data are sent; where they lie.
    pub(crate) fn take_next(&mut self, n: u64) -> Range<DataOffset> {
        let range = self.next..self.next + n;
        self.next = range.end;
        self.bytes_sent += n;
        range
    }

    // ---- acknowledgements and the window ----

    /// First data offset, the DATA_FIN counted, that has not been sent: no DATA_ACK can be beyond it.
    pub(crate) fn sent_end(&self) -> DataOffset {
        let fin = matches!(self.fin, Fin::Sent { .. } | Fin::Acked);
        self.next + u64::from(fin)
    }

    /// The first subflow's handshake is complete: the window reaches to `edge`.
    pub(crate) fn on_handshake(&mut self, edge: DataOffset) {
        self.edge = edge;
    }

    /// The SYN/ACK acknowledged `n` bytes that the SYN carried (RFC 7413).
    pub(crate) fn on_syn_data_acked(&mut self, n: u64) {
        self.next = DataOffset(1 + n);
        self.bytes_sent += n;
        self.bytes_acked += self.queue.acknowledge(self.next);
    }

    /// A DATA_ACK, not beyond [`sent_end`](Self::sent_end), with a window.
    pub(crate) fn on_data_ack(&mut self, now: Instant, ack: DataOffset, window: u64) -> Progress {
        // RFC 8684 §3.3.5: the right edge only ever grows.
        if ack + window > self.edge {
            self.edge = ack + window;
            self.window_probes = 0;
        }
        let freed = self.queue.acknowledge(ack);
        let outstanding = self.whole_window().min(self.capacity());
        // The window of a peer that reads in pieces goes up and down.
        if outstanding > self.most.0 + self.most.0 / 8 {
            self.most = (outstanding, now);
        }
        if freed > 0 {
            self.carriers.on_acked(self.queue.una());
            self.bytes_acked += freed;
            self.timer.count = 0;
        }
        if self.awaits_fin_ack() && ack > self.queue.end() {
            self.fin = self.fin.on_acked();
        }
        let restart_timer = freed > 0 || self.is_fin_acked();
        if restart_timer || self.queue.una() == self.next {
            self.timer.progress = now;
        }
        Progress { freed, restart_timer }
    }

    /// Plain TCP: the subflow's acknowledgement and window, as data offsets. Returns the bytes freed.
    pub(crate) fn on_plain_ack(&mut self, una: DataOffset, edge: DataOffset) -> u64 {
        self.edge = edge;
        let freed = self.queue.acknowledge(una);
        self.bytes_acked += freed;
        freed
    }

    /// Plain TCP: our FIN is acknowledged, and with it the data up to `una`.
    pub(crate) fn on_plain_end(&mut self, una: DataOffset) {
        self.queue.acknowledge(una);
        self.on_fin_acked();
    }

    /// From here on plain TCP: nothing is sent again on another subflow. `edge`: how far the window of the
    /// subflow that is left reaches.
    pub(crate) fn on_fallback(&mut self, edge: Option<DataOffset>) {
        self.timer.at = None;
        self.reinject.clear();
        self.carriers.clear();
        self.edge = edge.map_or(self.edge, |edge| self.edge.max(edge));
    }

    /// The connection has ended: nothing more is sent.
    pub(crate) fn on_end(&mut self) {
        self.timer.at = None;
        self.pacing_wake = None;
        self.reinject.clear();
        self.carriers.clear();
    }

    /// The peer's window stops us. True: it did not before.
    pub(crate) fn on_window_closed(&mut self) -> bool {
        !core::mem::replace(&mut self.blocked, true)
    }

    /// The peer's window has room for new data.
    pub(crate) fn on_window_open(&mut self) {
        self.blocked = false;
    }

    /// Window probes asked for since the window closed.
    pub(crate) fn window_probes(&self) -> u32 {
        self.window_probes
    }

    /// Subflows have been told to probe the closed window.
    pub(crate) fn on_window_probed(&mut self) {
        self.window_probes += 1;
    }

    // ---- the end of the data ----

    /// The application has finished writing.
    pub(crate) fn shutdown(&mut self) {
        self.fin = self.fin.on_shutdown();
    }

    /// The application has finished writing.
    pub(crate) fn is_shut(&self) -> bool {
        !matches!(self.fin, Fin::Open | Fin::Cut)
    }

    /// The application has finished writing, and everything has been sent but the DATA_FIN, or that too.
    pub(crate) fn is_fin_due(&self) -> bool {
        self.is_shut() && self.next >= self.queue.end()
    }

    /// The DATA_FIN, or FIN, has been sent.
    pub(crate) fn is_fin_sent(&self) -> bool {
        matches!(self.fin, Fin::Sent { .. } | Fin::Acked)
    }

    /// It has been acknowledged.
    pub(crate) fn is_fin_acked(&self) -> bool {
        matches!(self.fin, Fin::Acked | Fin::Cut)
    }

    /// It has been sent and not acknowledged.
    pub(crate) fn awaits_fin_ack(&self) -> bool {
        matches!(self.fin, Fin::Sent { .. })
    }

    /// The DATA_FIN goes out for the first time if it has not yet. True: it does.
    pub(crate) fn on_fin_sent(&mut self) -> bool {
        let first = self.fin == Fin::Queued;
        if first {
            self.fin = Fin::Sent { wanted: true };
        }
        first
    }

    /// The DATA_FIN did not get through, or had no room: it goes out again.
    pub(crate) fn repeat_fin(&mut self) {
        if let Fin::Sent { wanted } = &mut self.fin {
            *wanted = true;
        }
    }

    /// Whether ACKs with the DATA_FIN are to go out now; from then on they have been asked for.
    pub(crate) fn take_wanted_fin(&mut self) -> bool {
        let wanted = self.fin == Fin::Sent { wanted: true };
        if wanted {
            self.fin = Fin::Sent { wanted: false };
        }
        wanted
    }

    /// Plain TCP: our FIN is acknowledged.
    pub(crate) fn on_fin_acked(&mut self) {
        self.fin = self.fin.on_acked();
    }

    // ---- sending again on another subflow ----

    /// `range` is sent on `subflow` with a mapping.
    pub(crate) fn on_mapped(&mut self, range: Range<DataOffset>, subflow: SubflowId) {
        self.carriers.on_sent(range, subflow);
    }

    /// Which subflows carry what is outstanding.
    pub(crate) fn carriers(&self) -> &Carriers {
        &self.carriers
    }

    /// Something waits to be sent again on another subflow.
    pub(crate) fn is_reinjecting(&self) -> bool {
        !self.reinject.is_empty()
    }

    /// `range`, which `carried_by` do not deliver, goes to other subflows, as far as it has not been
    /// DATA_ACKed.
    pub(crate) fn reinject(&mut self, range: Range<DataOffset>, carried_by: &[SubflowId]) {
        let start = range.start.max(self.queue.una());
        if start < range.end {
            self.reinject.push(start..range.end, carried_by);
        }
    }

    /// The same for what `subflow` does not deliver, but for what one of `answering` other subflows carries.
    pub(crate) fn reinject_from(
        &mut self,
        range: Range<DataOffset>,
        subflow: SubflowId,
        answering: &[SubflowId],
    ) {
        let start = range.start.max(self.queue.una());
        let mut at = start;
        for (piece, by) in self.carriers.overlapping(start..range.end) {
            if by.iter().any(|id| *id != subflow && answering.contains(id)) {
                if at < piece.start {
                    self.reinject.push(at..piece.start, &[subflow]);
                }
                at = at.max(piece.end);
            }
        }
        if at < range.end {
            self.reinject.push(at..range.end, &[subflow]);
        }
    }

    /// `bytes` were sent again although what carried them first delivers them.
    pub(crate) fn on_reinjected_needlessly(&mut self, bytes: u64) {
        self.reinjected_needlessly += bytes;
    }

    /// Bytes sent again on another subflow, and those of them that the first delivered nevertheless.
    pub(crate) fn reinjected(&self) -> (u64, u64) {
        (self.reinjected, self.reinjected_needlessly)
    }

    /// The first piece that is to be sent again.
    pub(crate) fn next_reinject(&mut self) -> Option<Reinject> {
        self.reinject.front(self.queue.una())
    }

    /// The first piece, `bytes` of it up to `end`, is on its way.
    pub(crate) fn on_reinjected(&mut self, end: DataOffset, bytes: u64) {
        self.reinject.sent(end);
        self.reinjected += bytes;
    }

    /// The timeout of `subflow` was spurious: what it carries need not be sent again elsewhere.
    pub(crate) fn withdraw_reinjection(&mut self, subflow: SubflowId) {
        self.reinject.withdraw(subflow);
    }

    /// Who of `able` is not sent what some subflow acknowledged and the data level did not. It is not known
    /// which one that was, and a box that answers at once may be what the scheduler likes best, so they take
    /// turns: the one that brought a DATA_ACK stays, after one that did not the next is tried. `able` is not
    /// empty.
    pub(crate) fn choose_rescuer(&mut self, able: &[SubflowId]) -> SubflowId {
        if self.timer.count > 0 {
            self.rescuer = self.rescuer.wrapping_add(1);
        }
        able[self.rescuer as usize % able.len()]
    }

    // ---- timers ----

    /// When the data-level timer fires.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        self.timer.at
    }

    /// Timeouts since the last progress.
    pub(crate) fn timeouts(&self) -> u32 {
        self.timer.count
    }

    /// How long the peer has DATA_ACKed nothing new although something was outstanding.
    pub(crate) fn stalled_for(&self, now: Instant) -> Duration {
        now - self.timer.progress
    }

    pub(crate) fn stop_timer(&mut self) {
        self.timer.at = None;
    }

    /// Starts the data-level timer from the longest timeout of the subflows, backed off; not beyond `limit`
    /// without progress, when the connection is to be given up.
    pub(crate) fn start_timer(&mut self, now: Instant, rto: Duration, limit: Duration) {
        if self.timer.at.is_none() && self.timer.count == 0 {
            self.timer.progress = now;
        }
        let rto = rto.max(MIN_TIMEOUT);
        let at = now + rto.saturating_mul(1 << self.timer.count.min(MAX_DOUBLINGS));
        let end = (self.timer.progress + limit).max(now + MIN_TIMEOUT);
        self.timer.at = Some(at.min(end));
    }

    /// The data-level timer fired.
    pub(crate) fn on_timeout(&mut self) {
        self.timer.count += 1;
    }

    /// When pacing lets data leave that it has held back.
    pub(crate) fn pacing_wake(&self) -> Option<Instant> {
        self.pacing_wake
    }

    /// Pacing holds data back until `at`.
    pub(crate) fn wake_at(&mut self, at: Instant) {
        self.pacing_wake = self.pacing_wake.into_iter().chain([at]).min();
    }

    /// Pacing holds nothing back, as far as is known.
    pub(crate) fn stop_waiting_for_pacing(&mut self) {
        self.pacing_wake = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(n: usize) -> SendState {
        let mut s = SendState::new((1 << 20).into(), usize::MAX);
        assert_eq!(s.write_slice(&alloc::vec![7; n]), n);
        s
    }

    #[test]
    fn the_fin_goes_through_its_states() {
        let mut s = written(10);
        s.on_handshake(DataOffset(100));
        assert!(!s.is_shut() && !s.is_fin_due() && !s.is_done());
        s.shutdown();
        assert!(s.is_shut() && !s.is_fin_due());
        s.take_next(10);
        assert!(s.is_fin_due() && !s.is_fin_sent());
        assert!(s.on_fin_sent() && !s.on_fin_sent());
        assert!(s.take_wanted_fin() && !s.take_wanted_fin());
        s.repeat_fin();
        assert!(s.take_wanted_fin());
        assert_eq!(s.sent_end(), DataOffset(12));
        let p = s.on_data_ack(Instant::ZERO, DataOffset(11), 50);
        assert_eq!(p, Progress { freed: 10, restart_timer: true });
        assert!(s.awaits_fin_ack() && !s.is_done());
        assert!(s.on_data_ack(Instant::ZERO, DataOffset(12), 50).restart_timer);
        assert!(s.is_fin_acked() && s.is_done() && s.is_shut());
        s.repeat_fin();
        assert!(!s.take_wanted_fin());
    }

    #[test]
    fn a_fin_of_the_subflow_alone_does_not_shut_the_stream() {
        let mut s = written(3);
        s.on_fin_acked();
        assert!(s.is_fin_acked() && !s.is_shut() && !s.is_fin_sent());
        s.shutdown();
        assert!(s.is_fin_acked() && s.is_shut());
    }

    #[test]
    fn the_window_only_grows_and_counts_probes_until_it_does() {
        let mut s = written(100);
        s.on_handshake(DataOffset(51));
        s.take_next(50);
        assert_eq!((s.window(), s.backlog()), (0, 50));
        assert!(s.on_window_closed() && !s.on_window_closed());
        s.on_window_probed();
        s.on_data_ack(Instant::ZERO, DataOffset(41), 5);
        assert_eq!((s.window(), s.window_probes()), (0, 1));
        s.on_data_ack(Instant::ZERO, DataOffset(51), 20);
        assert_eq!((s.window(), s.window_probes()), (20, 0));
        s.on_window_open();
        assert!(s.on_window_closed());
    }

    #[test]
    fn the_timer_backs_off_until_there_is_progress() {
        let mut s = written(100);
        let (rto, at, limit) = (Duration::from_secs(1), Instant::ZERO, Duration::from_secs(180));
        for n in 0..9 {
            s.stop_timer();
            s.start_timer(at, rto, limit);
            assert_eq!(s.timeout(), Some(at + rto.saturating_mul(1 << n.min(6))));
            s.on_timeout();
        }
        // It does not sleep over the time when the connection is to be given up.
        let late = at + Duration::from_secs(170);
        s.start_timer(late, rto, limit);
        assert_eq!(s.timeout(), Some(at + limit));
        s.start_timer(at + limit, rto, limit);
        assert_eq!(s.timeout(), Some(at + limit + MIN_TIMEOUT));
        s.take_next(100);
        s.on_data_ack(at, DataOffset(2), 100);
        s.start_timer(at, Duration::ZERO, limit);
        assert_eq!(s.timeout(), Some(at + MIN_TIMEOUT));
    }

    #[test]
    fn what_was_acknowledged_is_not_reinjected() {
        let mut s = written(100);
        s.take_next(100);
        s.on_data_ack(Instant::ZERO, DataOffset(51), 100);
        s.reinject(DataOffset(1)..DataOffset(40), &[SubflowId(0)]);
        assert!(!s.is_reinjecting());
        s.reinject(DataOffset(40)..DataOffset(61), &[SubflowId(0)]);
        assert_eq!(s.next_reinject().map(|r| r.range), Some(DataOffset(51)..DataOffset(61)));
        s.withdraw_reinjection(SubflowId(0));
        assert!(!s.is_reinjecting());
    }
}

//! The part of a connection that the application's threads and the worker share.
//!
//! Each direction is a queue behind a mutex that is held for a few instructions, once per batch. Each side
//! takes the whole queue at once and works on it alone, so that neither waits while the other copies. Threads
//! are notified only when one is waiting: notifying a condition variable may cost a system call even without
//! waiters.

use crate::descriptor::{Descriptor, State};
use crate::queue::{Queue, Spin};
#[cfg(feature = "tokio")]
use crate::wakers::Key;
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use umptcp_relay::AnswerError;
use umptcp_stack_core::buffers::join::{JoinRule, Joiner};
use umptcp_stack_core::config::ConnectionConfig;
use umptcp_stack_core::error::ConnectionError;
use umptcp_stack_core::stack::{ConnectionInfo, SubflowInfo};

pub(crate) use crate::queue::{TimedOut, lock};

/// Maximum number of bytes queued between the application and the stack, per direction.
const MOST_QUEUED: usize = 1 << 20;

/// Writes up to this length are joined.
pub(crate) const SMALL_WRITE: usize = 4096;

/// Larger writes are copied in pieces of at most this length, so that the worker sends the first while the
/// next is copied.
pub(crate) const PIECE: usize = 64 * 1024;

/// How small writes are joined.
const JOIN: JoinRule = JoinRule { copy_below: SMALL_WRITE + 1, join_up_to: 16 * 1024 };

/// The same at most while the memory of all connections is scarce: what waits is left in the stack and at the
/// application, so that windows close.
const MOST_WHEN_SCARCE: usize = 16 << 10;

/// What the queues of all connections of a stack may hold, each.
#[derive(Clone, Debug)]
pub(crate) struct Most(Arc<AtomicUsize>);

impl Default for Most {
    fn default() -> Self {
        Most(Arc::new(AtomicUsize::new(MOST_QUEUED)))
    }
}

impl Most {
    /// Memory is scarce, or not any more.
    pub(crate) fn set_scarce(&self, scarce: bool) {
        self.0.store(if scarce { MOST_WHEN_SCARCE } else { MOST_QUEUED }, Ordering::Relaxed);
    }

    fn of(&self, ahead: usize) -> usize {
        ahead.min(self.0.load(Ordering::Relaxed))
    }
}

/// Bytes that may wait between the application and the stack, where the stack's own buffer has `buffer`.
/// Received data counts against the window only while it is in the stack, so this is small compared with what
/// the application asked for.
fn queue_for(buffer: usize) -> usize {
    (buffer / 4).clamp(1, MOST_QUEUED)
}

/// How far a connection has got.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    Connecting,
    /// Established, without MPTCP, and perhaps not with the server: whoever began it may ask over another path.
    Doubtful {
        local: SocketAddr,
        remote: SocketAddr,
    },
    Connected {
        local: SocketAddr,
        remote: SocketAddr,
    },
    Failed(ConnectionError),
}

/// The handshake, and who waits for its end.
#[derive(Debug)]
struct Handshake {
    phase: Phase,
    watcher: Option<Waker>,
}

/// How a direction has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Cleanly: the peer or the application has finished sending.
    Finished,
    Error(ConnectionError),
}

/// Data received and not yet taken by a reader.
#[derive(Debug, Default)]
struct Inbound {
    queue: VecDeque<Bytes>,
    end: Option<End>,
    /// The worker left data in the stack because the queue was full.
    stalled: bool,
}

/// Data written and not yet taken by the worker.
#[derive(Debug)]
struct Outbound {
    queue: VecDeque<Bytes>,
    /// Joined small writes; they follow `queue`.
    tail: Joiner,
    bytes: usize,
    /// Bytes for which writers have been promised room: they copy outside the lock.
    promised: usize,
    end: Option<End>,
}

impl Outbound {
    fn new() -> Self {
        Outbound { queue: VecDeque::new(), tail: Joiner::in_blocks(JOIN), bytes: 0, promised: 0, end: None }
    }

    fn room(&self, write_ahead: usize) -> usize {
        write_ahead.saturating_sub(self.bytes + self.promised)
    }

    fn seal_tail(&mut self) {
        self.queue.extend(self.tail.seal());
    }

    /// What has ended the connection, if that was an error.
    fn error(&self) -> Option<ConnectionError> {
        match self.end {
            Some(End::Error(e)) if e != ConnectionError::SendClosed => Some(e),
            _ => None,
        }
    }
}

/// What a reader has taken and the application has not.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    pieces: VecDeque<Bytes>,
    /// How many there are in them.
    bytes: usize,
}

impl Unread {
    fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The next piece.
    pub(crate) fn pop_front(&mut self) -> Option<Bytes> {
        let piece = self.pieces.pop_front()?;
        self.bytes -= piece.len();
        Some(piece)
    }

    /// Copies data to `buf`, and leaves it.
    pub(crate) fn copy_out(&self, buf: &mut [u8]) -> usize {
        let mut done = 0;
        for piece in &self.pieces {
            let n = piece.len().min(buf.len() - done);
            buf[done..done + n].copy_from_slice(&piece[..n]);
            done += n;
        }
        done
    }

    /// Moves data to `buf` until there is no more, or that is full.
    pub(crate) fn fill(&mut self, buf: &mut [u8]) -> usize {
        let mut done = 0;
        self.give(buf.len(), |bytes| {
            buf[done..done + bytes.len()].copy_from_slice(bytes);
            done += bytes.len();
        });
        done
    }

    /// Moves at most `most` bytes to `take`.
    pub(crate) fn give(&mut self, most: usize, mut take: impl FnMut(&[u8])) {
        let mut left = most;
        while let Some(front) = self.pieces.front_mut().filter(|_| left > 0) {
            let n = front.len().min(left);
            take(&front[..n]);
            left -= n;
            self.bytes -= n;
            if n < front.len() {
                front.advance(n);
            } else {
                self.pieces.pop_front();
            }
        }
    }
}

/// The shared part of one connection.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The worker has been told to look at this connection but has not done so yet.
    dirty: AtomicBool,
    /// The SYN is waiting for data (Fast Open).
    awaits_data: AtomicBool,
    handshake: Mutex<Handshake>,
    /// The relay by which it is made has been reached, and is asked.
    asked: AtomicBool,
    /// What the relay has answered instead of making the connection.
    refusal: OnceLock<AnswerError>,
    inbound: Queue<Inbound>,
    /// What a reader has taken from `inbound` and not handed to the application yet. Locked only while it is
    /// copied, never while waiting.
    reading: Mutex<Unread>,
    /// `reading` is not empty: whoever waits for `inbound` finds data there.
    leftover: AtomicBool,
    descriptor: Descriptor,
    spin: Spin,
    /// Bytes that readers have taken from `inbound` so far.
    taken: AtomicU64,
    /// Bytes that the application has read so far, or that nobody will.
    read: AtomicU64,
    /// The worker is to be told when something is read.
    watched: AtomicBool,
    outbound: Queue<Outbound>,
    /// What `outbound` holds, for whoever looks without its lock.
    written: AtomicUsize,
    most: Most,
    read_ahead: AtomicUsize,
    write_ahead: AtomicUsize,
    /// Its final state and statistics.
    last: Mutex<Option<(ConnectionInfo, Vec<SubflowInfo>)>>,
}

/// Result of reading.
pub(crate) enum Taken<T> {
    /// What the reader has made of the data. `true` if the worker must be told that there is room again.
    Data(T, bool),
    End(End),
}

/// Result of writing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Put {
    /// Number of bytes taken; `true` if the worker must be told.
    Taken(usize, bool),
    End(End),
}

impl Shared {
    pub(crate) fn new(config: &ConnectionConfig, spin: Duration, most: &Most) -> Self {
        Shared {
            spin: Spin::new(spin),
            dirty: AtomicBool::new(false),
            awaits_data: AtomicBool::new(false),
            handshake: Mutex::new(Handshake { phase: Phase::Connecting, watcher: None }),
            asked: AtomicBool::new(false),
            refusal: OnceLock::new(),
            inbound: Queue::new(Inbound::default()),
            reading: Mutex::default(),
            leftover: AtomicBool::new(false),
            descriptor: Descriptor::default(),
            taken: AtomicU64::new(0),
            read: AtomicU64::new(0),
            watched: AtomicBool::new(false),
            outbound: Queue::new(Outbound::new()),
            written: AtomicUsize::new(0),
            most: most.clone(),
            read_ahead: AtomicUsize::new(queue_for(config.receive_buffer.limit())),
            write_ahead: AtomicUsize::new(queue_for(config.send_buffer.limit())),
            last: Mutex::new(None),
        }
    }

    /// The connection's receive buffer has at most `bytes` now.
    pub(crate) fn set_receive_buffer(&self, bytes: usize) {
        self.read_ahead.store(queue_for(bytes), Ordering::Relaxed);
    }

    /// The connection's send buffer has at most `bytes` now.
    pub(crate) fn set_send_buffer(&self, bytes: usize) {
        self.write_ahead.store(queue_for(bytes), Ordering::Relaxed);
        self.on_room();
    }

    /// There may be room to write now.
    pub(crate) fn on_room(&self) {
        self.outbound.change(|_| ());
        self.show();
    }

    /// What may wait between the application and the worker.
    fn write_ahead(&self) -> usize {
        self.most.of(self.write_ahead.load(Ordering::Relaxed))
    }

    /// Bytes that have been written and that the worker has not taken.
    pub(crate) fn written(&self) -> usize {
        self.written.load(Ordering::Relaxed)
    }

    /// Bytes that the application has not read, of the `put` that were delivered. `watch`: the worker is told when
    /// it reads some of them.
    pub(crate) fn unread(&self, put: u64, watch: bool) -> u64 {
        if watch {
            // A reader counts first and looks for this then: one of the two sees the other.
            self.watched.store(true, Ordering::SeqCst);
        }
        put.saturating_sub(self.read.load(Ordering::SeqCst))
    }

    /// Nobody will read these bytes of `inbound`.
    fn give_up(&self, bytes: usize) {
        self.taken.fetch_add(bytes as u64, Ordering::AcqRel);
        self.read.fetch_add(bytes as u64, Ordering::SeqCst);
    }

    /// What would not have to wait.
    pub(crate) fn state(&self) -> State {
        State {
            readable: self.inbound.with(|i| self.would_read(i)),
            writable: self.outbound.with(|o| self.would_write(o)),
        }
    }

    #[cfg(all(target_os = "linux", not(umptcp_portable)))]
    pub(crate) fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Something has changed that the descriptor shows, if there is one. No lock is held.
    pub(crate) fn show(&self) {
        self.descriptor.update(|| self.state());
    }

    /// Notes that the worker must look. `true` if it has not been told yet and the caller must do so.
    pub(crate) fn mark_dirty(&self) -> bool {
        !self.dirty.swap(true, Ordering::AcqRel)
    }

    /// Called by the worker before it looks.
    pub(crate) fn clear_dirty(&self) {
        self.dirty.swap(false, Ordering::AcqRel);
    }

    // ---- phase ----

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.end_handshake(lock(&self.handshake), phase);
    }

    fn end_handshake(&self, mut handshake: MutexGuard<'_, Handshake>, phase: Phase) {
        handshake.phase = phase;
        let watcher = handshake.watcher.take();
        drop(handshake);
        if let Some(watcher) = watcher {
            watcher.wake();
        }
    }

    /// Ready once the connection is established or has failed. Of several tasks, the last to ask is woken.
    pub(crate) fn poll_handshake(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut handshake = lock(&self.handshake);
        if !matches!(handshake.phase, Phase::Connecting) {
            return Poll::Ready(());
        }
        let replaced = handshake.watcher.replace(cx.waker().clone());
        drop(handshake);
        drop(replaced);
        Poll::Pending
    }

    pub(crate) fn phase(&self) -> Phase {
        lock(&self.handshake).phase.clone()
    }

    /// Nothing is sent until something is written (Fast Open).
    pub(crate) fn set_awaits_data(&self) {
        self.awaits_data.store(true, Ordering::Release);
    }

    /// Called by readers: whether the connection was waiting for the first write. True only once.
    pub(crate) fn stop_awaiting_data(&self) -> bool {
        self.awaits_data.load(Ordering::Acquire) && self.awaits_data.swap(false, Ordering::AcqRel)
    }

    /// The relay by which the connection is made has been reached.
    pub(crate) fn set_asked(&self) {
        self.asked.store(true, Ordering::Release);
    }

    /// Whether a relay is asked, or was.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// The relay has refused the connection, which fails.
    pub(crate) fn set_refusal(&self, why: AnswerError) {
        // The first one, which has ended it.
        let _ = self.refusal.set(why);
    }

    /// What the relay has answered instead of making the connection.
    pub(crate) fn refusal(&self) -> Option<&AnswerError> {
        self.refusal.get()
    }

    /// Whether it is neither established for whoever began it, nor failed.
    pub(crate) fn is_connecting(&self) -> bool {
        matches!(lock(&self.handshake).phase, Phase::Connecting | Phase::Doubtful { .. })
    }

    /// Whether it is established and in doubt.
    pub(crate) fn is_doubtful(&self) -> bool {
        matches!(lock(&self.handshake).phase, Phase::Doubtful { .. })
    }

    /// It is in doubt no longer, but a relay has yet to answer by it. False: it was not in doubt.
    pub(crate) fn ask_on(&self) -> bool {
        let mut handshake = lock(&self.handshake);
        let doubtful = matches!(handshake.phase, Phase::Doubtful { .. });
        if doubtful {
            handshake.phase = Phase::Connecting;
        }
        doubtful
    }

    /// It is not in doubt any more. Where from and where to; an error: it has failed meanwhile.
    pub(crate) fn end_doubt(&self) -> Result<(SocketAddr, SocketAddr), ConnectionError> {
        let mut handshake = lock(&self.handshake);
        match handshake.phase {
            Phase::Doubtful { local, remote } | Phase::Connected { local, remote } => {
                handshake.phase = Phase::Connected { local, remote };
                Ok((local, remote))
            }
            Phase::Failed(error) => Err(error),
            Phase::Connecting => Err(ConnectionError::Aborted),
        }
    }

    /// The connection cannot be established. Has no effect once it is.
    /// Returns whether it had any: whoever began it may end a doubt at the same time.
    pub(crate) fn fail_connecting(&self, error: ConnectionError) -> bool {
        let handshake = lock(&self.handshake);
        let connecting = matches!(handshake.phase, Phase::Connecting | Phase::Doubtful { .. });
        if connecting {
            self.end_handshake(handshake, Phase::Failed(error));
        }
        connecting
    }

    // ---- receiving ----

    /// How many bytes the worker may add to the queue, given how many it has added so far.
    pub(crate) fn read_room(&self, put: u64) -> usize {
        let waiting = usize::try_from(put - self.taken.load(Ordering::Acquire)).unwrap_or(usize::MAX);
        self.most.of(self.read_ahead.load(Ordering::Relaxed)).saturating_sub(waiting)
    }

    /// Called by the worker: appends received data; `put` counts all of it so far. `stalled`: there is more
    /// for which there was no room. `true` if a reader has made room in the meantime and the worker should
    /// continue.
    pub(crate) fn deliver(&self, batch: &mut Vec<Bytes>, end: Option<End>, stalled: bool, put: u64) -> bool {
        let again = self.inbound.change(|i| {
            if i.end.is_some() {
                // Nobody will read it.
                self.give_up(batch.drain(..).map(|b| b.len()).sum());
            }
            i.queue.extend(batch.drain(..));
            i.end = i.end.or(end);
            // Readers take data under this lock, so a later one finds the flag and tells the worker.
            let again = stalled && self.read_room(put) > 0;
            i.stalled = stalled && !again;
            again
        });
        self.show();
        again
    }

    /// Waits for data and gives it to `take`, which removes what it uses.
    pub(crate) fn read<T>(
        &self,
        deadline: Option<Instant>,
        mut take: impl FnMut(&mut Unread) -> T,
    ) -> Result<Taken<T>, TimedOut> {
        loop {
            if let Some(taken) = self.read_now(&mut take) {
                return Ok(taken);
            }
            // Nobody else is kept from reading meanwhile, nor has to wait as long as this reader.
            self.inbound.wait_spinning(deadline, &self.spin, |i| self.would_read(i).then_some(()))?;
        }
    }

    /// Reading would not have to wait.
    fn would_read(&self, i: &Inbound) -> bool {
        !i.queue.is_empty() || i.end.is_some() || self.leftover.load(Ordering::Acquire)
    }

    /// Ready when reading does not have to wait.
    #[cfg(feature = "tokio")]
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>, key: &mut Key) -> Poll<()> {
        self.inbound.poll_ready(cx, key, |i| self.would_read(i))
    }

    /// The task that waited to read waits no longer.
    #[cfg(feature = "tokio")]
    pub(crate) fn forget_reader(&self, key: Key) {
        self.inbound.forget(key);
    }

    /// Like `read`, but returns `None` instead of waiting.
    pub(crate) fn read_now<T>(&self, mut take: impl FnMut(&mut Unread) -> T) -> Option<Taken<T>> {
        let mut queue = lock(&self.reading);
        let mut tell = false;
        if queue.is_empty() {
            match self.inbound.with(|i| self.swap(i, &mut queue))? {
                Taken::Data((), stalled) => tell = stalled,
                Taken::End(end) => return Some(Taken::End(end)),
            }
        }
        let before = queue.bytes;
        let result = take(&mut queue);
        let read = before - queue.bytes;
        if read > 0 {
            self.read.fetch_add(read as u64, Ordering::SeqCst);
            tell |= self.watched.load(Ordering::SeqCst) && self.watched.swap(false, Ordering::AcqRel);
        }
        self.set_leftover(!queue.is_empty());
        drop(queue);
        self.show();
        Some(Taken::Data(result, tell))
    }

    /// Moves all data into `queue`, which must be empty.
    fn swap(&self, i: &mut Inbound, queue: &mut Unread) -> Option<Taken<()>> {
        if i.queue.is_empty() {
            return i.end.map(Taken::End);
        }
        std::mem::swap(&mut queue.pieces, &mut i.queue);
        queue.bytes = queue.pieces.iter().map(Bytes::len).sum();
        self.taken.fetch_add(queue.bytes as u64, Ordering::AcqRel);
        Some(Taken::Data((), std::mem::take(&mut i.stalled)))
    }

    fn set_leftover(&self, left: bool) {
        if self.leftover.swap(left, Ordering::AcqRel) != left && left {
            // Under the lock, so that a reader either sees the flag or is woken.
            self.inbound.change(|_| ());
        }
    }

    /// Data waits for a reader.
    pub(crate) fn has_unread(&self) -> bool {
        self.leftover.load(Ordering::Acquire) || self.inbound.with(|i| !i.queue.is_empty())
    }

    /// Takes everything that nobody has read, and how reading ends after it, if that is known.
    pub(crate) fn take_unread(&self) -> (VecDeque<Bytes>, Option<End>) {
        let mut reading = lock(&self.reading);
        let Unread { pieces: mut all, bytes } = std::mem::take(&mut *reading);
        self.read.fetch_add(bytes as u64, Ordering::SeqCst);
        let end = self.inbound.change(|i| {
            self.give_up(i.queue.iter().map(Bytes::len).sum());
            all.append(&mut i.queue);
            i.end
        });
        drop(reading);
        self.set_leftover(false);
        self.show();
        (all, end)
    }

    /// Nothing can be written any more.
    pub(crate) fn is_write_ended(&self) -> bool {
        self.outbound.with(|o| o.end.is_some())
    }

    /// Ends reading. `discard`: data that has arrived is dropped.
    pub(crate) fn end_reading(&self, end: End, discard: bool) {
        if discard {
            let left = std::mem::take(&mut *lock(&self.reading));
            self.read.fetch_add(left.bytes as u64, Ordering::SeqCst);
            self.set_leftover(false);
        }
        self.inbound.change(|i| {
            if discard {
                self.give_up(i.queue.drain(..).map(|b| b.len()).sum());
            }
            i.end = i.end.or(Some(end));
        });
        self.show();
    }

    // ---- sending ----

    /// Waits for room and queues a copy of as much of `data` as fits, one buffer after the other. `copy`
    /// copies the first bytes of larger ones.
    pub(crate) fn put_slices(
        &self,
        data: &[IoSlice<'_>],
        deadline: Option<Instant>,
        copy: impl FnOnce(&[IoSlice<'_>], usize) -> Bytes,
    ) -> Result<Put, TimedOut> {
        let len = data.iter().fold(0usize, |sum, slice| sum.saturating_add(slice.len()));
        if !JOIN.copies(len) {
            let promise = |o: &mut Outbound| {
                let n = len.min(PIECE).min(o.room(self.write_ahead()));
                o.promised += n;
                (n > 0).then_some(n)
            };
            return match self.when_open(deadline, promise)? {
                Ok(n) => {
                    let put = self.put_promised(n, copy(data, n));
                    self.show();
                    Ok(put)
                }
                Err(end) => Ok(Put::End(end)),
            };
        }
        let put = self.when_open(deadline, |o| {
            let n = len.min(o.room(self.write_ahead()));
            let mut left = n;
            for slice in data {
                let part = &slice[..slice.len().min(left)];
                o.queue.extend(o.tail.push(part));
                left -= part.len();
            }
            self.add(o, n);
            (n > 0).then(|| Put::Taken(n, self.mark_dirty()))
        })?;
        self.show();
        Ok(put.unwrap_or_else(Put::End))
    }

    /// Waits until there is room for at least one byte and queues all of `data`.
    pub(crate) fn put(&self, data: Bytes, deadline: Option<Instant>) -> Result<Put, TimedOut> {
        let mut data = Some(data);
        let put = self.when_open(deadline, |o| {
            let data = data.take_if(|_| o.room(self.write_ahead()) > 0)?;
            Some(self.queue(o, data))
        })?;
        self.show();
        Ok(put.unwrap_or_else(Put::End))
    }

    /// Writing would not have to wait.
    fn would_write(&self, o: &Outbound) -> bool {
        o.end.is_some() || o.room(self.write_ahead()) > 0
    }

    /// Ready when writing does not have to wait.
    #[cfg(feature = "tokio")]
    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>, key: &mut Key) -> Poll<()> {
        self.outbound.poll_ready(cx, key, |o| self.would_write(o))
    }

    /// Ready when an error has ended the connection.
    #[cfg(feature = "tokio")]
    pub(crate) fn poll_failed(&self, cx: &mut Context<'_>, key: &mut Key) -> Poll<()> {
        self.outbound.poll_ready(cx, key, |o| o.error().is_some())
    }

    /// The task that waited to write waits no longer.
    #[cfg(feature = "tokio")]
    pub(crate) fn forget_writer(&self, key: Key) {
        self.outbound.forget(key);
    }

    /// Waits until `act` returns something, or writing has ended.
    fn when_open<T>(
        &self,
        deadline: Option<Instant>,
        mut act: impl FnMut(&mut Outbound) -> Option<T>,
    ) -> Result<Result<T, End>, TimedOut> {
        self.outbound.wait(deadline, |o| match o.end {
            Some(end) => Some(Err(end)),
            None => act(o).map(Ok),
        })
    }

    /// Queues bytes for which room has been promised.
    fn put_promised(&self, promised: usize, data: Bytes) -> Put {
        self.outbound.with(|o| {
            o.promised -= promised;
            match o.end {
                Some(end) => Put::End(end),
                None => self.queue(o, data),
            }
        })
    }

    fn queue(&self, o: &mut Outbound, data: Bytes) -> Put {
        let n = data.len();
        o.seal_tail();
        self.add(o, n);
        o.queue.push_back(data);
        Put::Taken(n, self.mark_dirty())
    }

    /// `n` bytes more are in `outbound`.
    fn add(&self, o: &mut Outbound, n: usize) {
        o.bytes += n;
        self.written.store(o.bytes, Ordering::Relaxed);
    }

    /// Called by the worker: moves everything written into `queue`, which must be empty. `true` if there will
    /// be no more.
    pub(crate) fn collect(&self, queue: &mut VecDeque<Bytes>) -> bool {
        let (full, finished) = self.outbound.change_and_wake(|o| {
            o.seal_tail();
            // An idle stream holds no memory for what it once wrote.
            o.tail.release();
            std::mem::swap(queue, &mut o.queue);
            let full = std::mem::take(&mut o.bytes) > 0;
            self.written.store(0, Ordering::Relaxed);
            ((full, o.end == Some(End::Finished)), full)
        });
        if full {
            self.show();
        }
        finished
    }

    /// Ends writing. Data written before is still sent, unless `end` is an error. Returns how it ends now:
    /// with an error if there was one before.
    pub(crate) fn end_writing(&self, end: End) -> End {
        let end = self.outbound.change(|o| {
            if matches!(end, End::Error(_)) {
                o.queue.clear();
                o.tail.clear();
                o.bytes = 0;
                self.written.store(0, Ordering::Relaxed);
                o.end = Some(end);
            }
            *o.end.get_or_insert(end)
        });
        self.show();
        end
    }

    // ---- the end ----

    /// The error that has ended the connection. It has none while it lasts and when both ends have closed it.
    pub(crate) fn error(&self) -> Option<ConnectionError> {
        self.outbound.with(|o| o.error())
    }

    /// The connection is over: wakes every waiting thread.
    pub(crate) fn fail(&self, error: ConnectionError) {
        self.fail_connecting(error);
        self.end_reading(End::Error(error), false);
        self.end_writing(End::Error(error));
    }

    pub(crate) fn set_last(&self, last: (ConnectionInfo, Vec<SubflowInfo>)) {
        *lock(&self.last) = Some(last);
    }

    pub(crate) fn last(&self) -> Option<(ConnectionInfo, Vec<SubflowInfo>)> {
        lock(&self.last).clone()
    }
}

/// The point in time at which a relative limit ends.
pub(crate) fn deadline(limit: Option<Duration>) -> Option<Instant> {
    limit.and_then(|l| Instant::now().checked_add(l))
}

#[cfg(test)]
mod tests;

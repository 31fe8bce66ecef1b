//! The part of a connection that the application's threads and the worker share.
//!
//! Each direction is a queue behind a mutex that is held for a few instructions, once per batch. Each side
//! takes the whole queue at once and works on it alone, so that neither waits while the other copies. Threads
//! are notified only when one is waiting: notifying a condition variable may cost a system call even without
//! waiters.

use bytes::Bytes;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use umptcp_stack_core::buffers::join::{JoinRule, Joiner};
use umptcp_stack_core::config::ConnectionConfig;
use umptcp_stack_core::error::ConnectionError;
use umptcp_stack_core::stack::{ConnectionInfo, SubflowInfo};

/// Maximum number of bytes queued between the application and the stack, per direction.
const MOST_QUEUED: usize = 1 << 20;

/// Writes up to this length are joined.
pub(crate) const SMALL_WRITE: usize = 4096;

/// Larger writes are copied in pieces of at most this length, so that the worker sends the first while the
/// next is copied.
pub(crate) const PIECE: usize = 64 * 1024;

/// How small writes are joined.
const JOIN: JoinRule = JoinRule { copy_below: SMALL_WRITE + 1, join_up_to: 16 * 1024 };

/// Locks, ignoring poisoning: the data is valid between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How far a connection has got.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    Connecting,
    Connected { local: SocketAddr, remote: SocketAddr },
    Failed(ConnectionError),
}

/// How a direction has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Cleanly: the peer or the application has finished sending.
    Finished,
    Error(ConnectionError),
}

/// A time limit has passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TimedOut;

/// A mutex with a condition variable that knows whether a thread is waiting.
#[derive(Debug)]
struct Queue<T> {
    data: Mutex<Waiting<T>>,
    changed: Condvar,
    /// Counts changes, for readers that poll without the lock.
    changes: AtomicU32,
}

#[derive(Debug)]
struct Waiting<T> {
    value: T,
    waiters: usize,
}

impl<T> Queue<T> {
    fn new(value: T) -> Self {
        let data = Mutex::new(Waiting { value, waiters: 0 });
        Queue { data, changed: Condvar::new(), changes: AtomicU32::new(0) }
    }

    /// Changes the value and wakes the threads that wait for a change.
    fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let mut data = lock(&self.data);
        let result = change(&mut data.value);
        let wake = data.waiters > 0;
        self.changes.fetch_add(1, Ordering::Release);
        drop(data);
        if wake {
            self.changed.notify_all();
        }
        result
    }

    /// Reads the value, or changes it in a way that no thread waits for.
    fn with<R>(&self, look: impl FnOnce(&mut T) -> R) -> R {
        look(&mut lock(&self.data).value)
    }

    /// Waits until `take` returns something.
    fn wait<R>(
        &self,
        deadline: Option<Instant>,
        mut take: impl FnMut(&mut T) -> Option<R>,
    ) -> Result<R, TimedOut> {
        self.wait_asleep(lock(&self.data), deadline, &mut take)
    }

    /// Like `wait`, but polls for a while before it sleeps, if that has paid off.
    fn wait_spinning<R>(
        &self,
        deadline: Option<Instant>,
        spin: &Spin,
        mut take: impl FnMut(&mut T) -> Option<R>,
    ) -> Result<R, TimedOut> {
        let mut data = lock(&self.data);
        if let Some(result) = take(&mut data.value) {
            return Ok(result);
        }
        let start = Instant::now();
        if spin.worthwhile.load(Ordering::Relaxed) {
            let seen = self.changes.load(Ordering::Acquire);
            drop(data);
            let end = deadline.map_or(start + spin.limit, |d| d.min(start + spin.limit));
            while self.changes.load(Ordering::Acquire) == seen && Instant::now() < end {
                // Other threads may need this processor, the worker above all.
                std::thread::yield_now();
            }
            data = lock(&self.data);
        }
        let result = self.wait_asleep(data, deadline, &mut take);
        spin.worthwhile.store(start.elapsed() < 4 * spin.limit, Ordering::Relaxed);
        result
    }

    fn wait_asleep<R>(
        &self,
        mut data: MutexGuard<'_, Waiting<T>>,
        deadline: Option<Instant>,
        take: &mut impl FnMut(&mut T) -> Option<R>,
    ) -> Result<R, TimedOut> {
        loop {
            if let Some(result) = take(&mut data.value) {
                return Ok(result);
            }
            data.waiters += 1;
            data = match deadline {
                None => self.changed.wait(data).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        data.waiters -= 1;
                        return Err(TimedOut);
                    }
                    self.changed.wait_timeout(data, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            data.waiters -= 1;
        }
    }
}

/// How long a reader polls for data before it sleeps.
///
/// Waking up on another processor often takes longer than the wait itself: for a one-byte request and
/// response over a local link, several times as long as everything else. Where waits turn out to be long
/// there is nothing to gain, and readers do not spin.
#[derive(Debug)]
struct Spin {
    limit: Duration,
    /// Whether the last wait was short enough.
    worthwhile: AtomicBool,
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
    end: Option<End>,
}

impl Outbound {
    fn new() -> Self {
        Outbound { queue: VecDeque::new(), tail: Joiner::in_blocks(JOIN), bytes: 0, end: None }
    }

    fn seal_tail(&mut self) {
        self.queue.extend(self.tail.seal());
    }
}

/// The shared part of one connection.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The worker has been told to look at this connection but has not done so yet.
    dirty: AtomicBool,
    /// The SYN is waiting for data (Fast Open).
    awaits_data: AtomicBool,
    phase: Queue<Phase>,
    inbound: Queue<Inbound>,
    spin: Spin,
    /// Bytes that readers have taken so far.
    taken: AtomicU64,
    outbound: Queue<Outbound>,
    read_ahead: u64,
    write_ahead: usize,
    /// Its final state and statistics.
    last: Mutex<Option<(ConnectionInfo, Vec<SubflowInfo>)>>,
}

/// Result of reading.
pub(crate) enum Taken {
    /// Data, in the reader's own queue. `true` if the worker must be told that there is room again.
    Data(bool),
    End(End),
}

/// Result of writing.
pub(crate) enum Put {
    /// Number of bytes taken; `true` if the worker must be told.
    Taken(usize, bool),
    End(End),
}

impl Shared {
    pub(crate) fn new(config: &ConnectionConfig, spin: Duration) -> Self {
        Shared {
            spin: Spin { limit: spin, worthwhile: AtomicBool::new(!spin.is_zero()) },
            dirty: AtomicBool::new(false),
            awaits_data: AtomicBool::new(false),
            phase: Queue::new(Phase::Connecting),
            inbound: Queue::new(Inbound::default()),
            taken: AtomicU64::new(0),
            outbound: Queue::new(Outbound::new()),
            // Received data counts against the window only while it is in the stack, so keep this queue small
            // compared with the buffer that the application asked for.
            read_ahead: (config.receive_buffer / 4).clamp(1, MOST_QUEUED) as u64,
            write_ahead: (config.send_buffer / 4).clamp(1, MOST_QUEUED),
            last: Mutex::new(None),
        }
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
        self.phase.change(|p| *p = phase);
    }

    /// Nothing is sent until something is written (Fast Open).
    pub(crate) fn set_awaits_data(&self) {
        self.awaits_data.store(true, Ordering::Release);
    }

    /// Called by readers: whether the connection was waiting for the first write. True only once.
    pub(crate) fn stop_awaiting_data(&self) -> bool {
        self.awaits_data.load(Ordering::Acquire) && self.awaits_data.swap(false, Ordering::AcqRel)
    }

    /// Whether it is neither established nor failed.
    pub(crate) fn is_connecting(&self) -> bool {
        self.phase.with(|p| matches!(p, Phase::Connecting))
    }

    /// The connection cannot be established. Has no effect once it is.
    pub(crate) fn fail_connecting(&self, error: ConnectionError) {
        self.phase.change(|p| {
            if matches!(p, Phase::Connecting) {
                *p = Phase::Failed(error);
            }
        });
    }

    /// Waits until the connection is established or has failed.
    pub(crate) fn wait_connected(&self, deadline: Option<Instant>) -> Result<Phase, TimedOut> {
        self.phase.wait(deadline, |p| match p {
            Phase::Connecting => None,
            other => Some(other.clone()),
        })
    }

    // ---- receiving ----

    /// How many bytes the worker may add to the queue, given how many it has added so far.
    pub(crate) fn read_room(&self, put: u64) -> usize {
        let waiting = put - self.taken.load(Ordering::Acquire);
        self.read_ahead.saturating_sub(waiting) as usize
    }

    /// Called by the worker: appends received data; `put` counts all of it so far. `stalled`: there is more
    /// for which there was no room. `true` if a reader has made room in the meantime and the worker should
    /// continue.
    pub(crate) fn deliver(&self, batch: &mut Vec<Bytes>, end: Option<End>, stalled: bool, put: u64) -> bool {
        self.inbound.change(|i| {
            if i.end.is_some() {
                // Nobody will read it.
                let bytes: usize = batch.drain(..).map(|b| b.len()).sum();
                self.taken.fetch_add(bytes as u64, Ordering::AcqRel);
            }
            i.queue.extend(batch.drain(..));
            i.end = i.end.or(end);
            // Readers take data under this lock, so a later one finds the flag and tells the worker.
            let again = stalled && self.read_room(put) > 0;
            i.stalled = stalled && !again;
            again
        })
    }

    /// Waits for data and moves all of it into `queue`, which must be empty.
    pub(crate) fn take(
        &self,
        queue: &mut VecDeque<Bytes>,
        deadline: Option<Instant>,
    ) -> Result<Taken, TimedOut> {
        self.inbound.wait_spinning(deadline, &self.spin, |i| {
            if i.queue.is_empty() {
                return i.end.map(Taken::End);
            }
            std::mem::swap(queue, &mut i.queue);
            let bytes: usize = queue.iter().map(Bytes::len).sum();
            self.taken.fetch_add(bytes as u64, Ordering::AcqRel);
            Some(Taken::Data(std::mem::take(&mut i.stalled)))
        })
    }

    /// Data waits for a reader.
    pub(crate) fn has_unread(&self) -> bool {
        self.inbound.with(|i| !i.queue.is_empty())
    }

    /// Bytes written that the worker has not taken.
    pub(crate) fn uncollected(&self) -> usize {
        self.outbound.with(|o| o.bytes)
    }

    /// Ends reading. `discard`: data that has arrived is dropped.
    pub(crate) fn end_reading(&self, end: End, discard: bool) {
        self.inbound.change(|i| {
            if discard {
                let bytes: usize = i.queue.drain(..).map(|b| b.len()).sum();
                self.taken.fetch_add(bytes as u64, Ordering::AcqRel);
            }
            i.end = i.end.or(Some(end));
        });
    }

    // ---- sending ----

    /// Waits for room and queues a copy of as much of `data` as fits. `copy` copies the larger pieces.
    pub(crate) fn put_slice(
        &self,
        data: &[u8],
        deadline: Option<Instant>,
        copy: impl FnOnce(&[u8]) -> Bytes,
    ) -> Result<Put, TimedOut> {
        if !JOIN.copies(data.len()) {
            // Writers exclude one another, so the room found cannot shrink while the copy is made outside the
            // lock.
            let room = match self.wait_room(deadline)? {
                Ok(room) => room,
                Err(end) => return Ok(Put::End(end)),
            };
            return Ok(self.put(copy(&data[..data.len().min(room).min(PIECE)])));
        }
        self.outbound.wait(deadline, |o| {
            if let Some(end) = o.end {
                return Some(Put::End(end));
            }
            let n = data.len().min(self.write_ahead.saturating_sub(o.bytes));
            if n == 0 {
                return None;
            }
            o.queue.extend(o.tail.push(&data[..n]));
            o.bytes += n;
            Some(Put::Taken(n, self.mark_dirty()))
        })
    }

    /// Waits until there is room for at least one byte and returns how much there is.
    pub(crate) fn wait_room(&self, deadline: Option<Instant>) -> Result<Result<usize, End>, TimedOut> {
        self.outbound.wait(deadline, |o| match o.end {
            Some(end) => Some(Err(end)),
            None => Some(self.write_ahead.saturating_sub(o.bytes)).filter(|room| *room > 0).map(Ok),
        })
    }

    /// Queues all of `data`.
    pub(crate) fn put(&self, data: Bytes) -> Put {
        self.outbound.with(|o| {
            if let Some(end) = o.end {
                return Put::End(end);
            }
            let n = data.len();
            o.seal_tail();
            o.bytes += n;
            o.queue.push_back(data);
            Put::Taken(n, self.mark_dirty())
        })
    }

    /// Called by the worker: moves everything written into `queue`, which must be empty. `true` if there will
    /// be no more.
    pub(crate) fn collect(&self, queue: &mut VecDeque<Bytes>) -> bool {
        let mut data = lock(&self.outbound.data);
        let o = &mut data.value;
        o.seal_tail();
        std::mem::swap(queue, &mut o.queue);
        let full = std::mem::take(&mut o.bytes) > 0;
        let finished = o.end == Some(End::Finished);
        let wake = full && data.waiters > 0;
        drop(data);
        if wake {
            self.outbound.changed.notify_all();
        }
        finished
    }

    /// Ends writing. Data written before is still sent, unless `end` is an error. Returns how it ends now:
    /// with an error if there was one before.
    pub(crate) fn end_writing(&self, end: End) -> End {
        self.outbound.change(|o| {
            if matches!(end, End::Error(_)) {
                o.queue.clear();
                o.tail.clear();
                o.bytes = 0;
                o.end = Some(end);
            }
            *o.end.get_or_insert(end)
        })
    }

    // ---- the end ----

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
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn shared(buffer: usize) -> Shared {
        let (send_buffer, receive_buffer) = (4 * buffer, 4 * buffer);
        let config =
            ConnectionConfig::default().with_send_buffer(send_buffer).with_receive_buffer(receive_buffer);
        Shared::new(&config, Duration::from_micros(20))
    }

    /// A worker that echoes what is written, as far as there is room, and looks only when told.
    fn loop_back(shared: &Shared, looks: mpsc::Receiver<()>) {
        let (mut pending, mut batch, mut put) = (VecDeque::new(), Vec::new(), 0);
        let mut finished = false;
        for () in looks {
            shared.clear_dirty();
            loop {
                if pending.is_empty() {
                    finished |= shared.collect(&mut pending);
                }
                let mut room = shared.read_room(put);
                let mut stalled = false;
                while let Some(mut bytes) = pending.pop_front() {
                    if room == 0 {
                        stalled = true;
                        pending.push_front(bytes);
                        break;
                    }
                    let part = bytes.split_to(bytes.len().min(room));
                    room -= part.len();
                    put += part.len() as u64;
                    batch.push(part);
                    if !bytes.is_empty() {
                        pending.push_front(bytes);
                    }
                }
                let moved = !batch.is_empty();
                let again = shared.deliver(&mut batch, None, stalled, put);
                if !again && (stalled || !moved) {
                    break;
                }
            }
            if finished && pending.is_empty() {
                shared.deliver(&mut batch, Some(End::Finished), false, put);
                return;
            }
        }
    }

    #[test]
    fn no_wake_is_lost_however_small_the_queues_are() {
        for (room, total) in [(1, 3_000), (7, 30_000), (100_000, 5_000_000)] {
            let shared = shared(room);
            let (look_tx, looks) = mpsc::channel();
            std::thread::scope(|scope| {
                scope.spawn(|| loop_back(&shared, looks));
                let (shared, look) = (&shared, look_tx.clone());
                scope.spawn(move || {
                    let mut written = 0;
                    while written < total {
                        // Small and large writes in turn.
                        let len = [1, 3, SMALL_WRITE, PIECE + 5][written % 4].min(total - written);
                        let data: Vec<u8> = (written..written + len).map(|i| (i % 251) as u8).collect();
                        let limit = deadline(Some(Duration::from_secs(20)));
                        match shared.put_slice(&data, limit, Bytes::copy_from_slice) {
                            Ok(Put::Taken(n, tell)) => {
                                assert!(n > 0 && n <= len);
                                written += n;
                                if tell {
                                    let _ = look.send(());
                                }
                            }
                            _ => panic!("a write was not taken"),
                        }
                    }
                    shared.end_writing(End::Finished);
                    shared.mark_dirty();
                    let _ = look.send(());
                });
                let mut queue = VecDeque::new();
                let mut read = 0;
                loop {
                    match shared.take(&mut queue, deadline(Some(Duration::from_secs(20)))) {
                        Ok(Taken::Data(tell)) => {
                            for b in queue.drain(..).flatten() {
                                assert_eq!(b, (read % 251) as u8);
                                read += 1;
                            }
                            if tell && shared.mark_dirty() {
                                let _ = look_tx.send(());
                            }
                        }
                        Ok(Taken::End(end)) => {
                            assert_eq!(end, End::Finished);
                            break;
                        }
                        Err(TimedOut) => panic!("a wake was lost after {read} of {total} bytes"),
                    }
                }
                assert_eq!(read, total);
                drop(look_tx);
            });
        }
    }

    #[test]
    fn small_writes_are_joined_and_keep_their_order() {
        let shared = shared(1 << 20);
        for i in 0..100u8 {
            assert!(matches!(shared.put_slice(&[i], None, |_| Bytes::new()), Ok(Put::Taken(1, _))));
        }
        shared.put(Bytes::from_static(b"large"));
        assert!(matches!(shared.put_slice(b"!", None, |_| Bytes::new()), Ok(Put::Taken(1, false))));
        let mut queue = VecDeque::new();
        assert!(!shared.collect(&mut queue));
        assert_eq!(queue.len(), 3, "a hundred writes in one piece");
        assert_eq!(queue[0], (0..100).collect::<Vec<u8>>());
        assert_eq!((&queue[1][..], &queue[2][..]), (&b"large"[..], &b"!"[..]));
    }

    #[test]
    fn the_worker_is_told_once_until_it_looks() {
        let shared = shared(1 << 20);
        let tell = || matches!(shared.put_slice(b"x", None, |_| Bytes::new()), Ok(Put::Taken(1, true)));
        assert!(tell());
        assert!(!tell());
        shared.clear_dirty();
        assert!(tell());
    }

    #[test]
    fn an_error_ends_both_directions_but_not_what_has_arrived() {
        let shared = shared(1 << 20);
        shared.deliver(&mut vec![Bytes::from_static(b"last")], None, false, 4);
        shared.put(Bytes::from_static(b"lost"));
        shared.fail(ConnectionError::Reset);
        assert!(matches!(shared.put(Bytes::new()), Put::End(End::Error(ConnectionError::Reset))));
        let mut queue = VecDeque::new();
        assert!(!shared.collect(&mut queue) && queue.is_empty());
        assert!(matches!(shared.take(&mut queue, None), Ok(Taken::Data(false))));
        queue.clear();
        assert!(matches!(shared.take(&mut queue, None), Ok(Taken::End(End::Error(ConnectionError::Reset)))));
        assert!(matches!(shared.wait_connected(None), Ok(Phase::Failed(ConnectionError::Reset))));
    }
}

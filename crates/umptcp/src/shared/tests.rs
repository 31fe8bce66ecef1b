//! Tests of what threads, tasks and the worker share.

use super::*;
use std::sync::{Arc, mpsc};
use std::task::Wake;

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn counting_waker() -> (Arc<Count>, Waker) {
    let count = Arc::new(Count(AtomicUsize::new(0)));
    (count.clone(), count.into())
}

fn shared(buffer: usize) -> Shared {
    let (send_buffer, receive_buffer) = (4 * buffer, 4 * buffer);
    let config =
        ConnectionConfig::default().with_send_buffer(send_buffer).with_receive_buffer(receive_buffer);
    Shared::new(&config, Duration::from_micros(20), &Most::default())
}

fn put_slice(shared: &Shared, data: &[u8], deadline: Option<Instant>) -> Result<Put, TimedOut> {
    shared.put_slices(&[IoSlice::new(data)], deadline, |data, n| Bytes::copy_from_slice(&data[0][..n]))
}

fn take_all(queue: &mut Unread) -> Vec<Bytes> {
    std::iter::from_fn(|| queue.pop_front()).collect()
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
                    match put_slice(shared, &data, limit) {
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
            let mut read = 0;
            loop {
                match shared.read(deadline(Some(Duration::from_secs(20))), take_all) {
                    Ok(Taken::Data(pieces, tell)) => {
                        for b in pieces.into_iter().flatten() {
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
        assert!(matches!(put_slice(&shared, &[i], None), Ok(Put::Taken(1, _))));
    }
    assert!(matches!(shared.put(Bytes::from_static(b"large"), None), Ok(Put::Taken(5, false))));
    assert!(matches!(put_slice(&shared, b"!", None), Ok(Put::Taken(1, false))));
    let mut queue = VecDeque::new();
    assert!(!shared.collect(&mut queue));
    assert_eq!(queue.len(), 3, "a hundred writes in one piece");
    assert_eq!(queue[0], (0..100).collect::<Vec<u8>>());
    assert_eq!((&queue[1][..], &queue[2][..]), (&b"large"[..], &b"!"[..]));
}

#[test]
fn the_worker_is_told_once_until_it_looks() {
    let shared = shared(1 << 20);
    let tell = || matches!(put_slice(&shared, b"x", None), Ok(Put::Taken(1, true)));
    assert!(tell());
    assert!(!tell());
    shared.clear_dirty();
    assert!(tell());
}

#[test]
fn a_watcher_is_told_of_the_end_of_the_handshake_once() {
    let shared = shared(1);
    let (told, waker) = counting_waker();
    let mut cx = Context::from_waker(&waker);
    assert!(shared.poll_handshake(&mut cx).is_pending());
    shared.fail_connecting(ConnectionError::Refused);
    shared.fail_connecting(ConnectionError::Reset);
    assert!(matches!(shared.phase(), Phase::Failed(ConnectionError::Refused)));
    assert!(shared.poll_handshake(&mut cx).is_ready());
    assert_eq!(told.0.load(Ordering::Relaxed), 1);
}

#[test]
fn an_error_ends_both_directions_but_not_what_has_arrived() {
    let shared = shared(1 << 20);
    shared.deliver(&mut vec![Bytes::from_static(b"last")], None, false, 4);
    assert!(matches!(shared.put(Bytes::from_static(b"lost"), None), Ok(Put::Taken(4, _))));
    shared.fail(ConnectionError::Reset);
    assert!(matches!(shared.put(Bytes::new(), None), Ok(Put::End(End::Error(ConnectionError::Reset)))));
    let mut queue = VecDeque::new();
    assert!(!shared.collect(&mut queue) && queue.is_empty());
    assert!(matches!(shared.read(None, take_all), Ok(Taken::Data(_, false))));
    assert!(matches!(shared.read(None, take_all), Ok(Taken::End(End::Error(ConnectionError::Reset)))));
    assert!(matches!(shared.phase(), Phase::Failed(ConnectionError::Reset)));
}

#[test]
fn whoever_waits_finds_what_another_reader_has_left() {
    let shared = shared(1 << 20);
    std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| shared.read(deadline(Some(Duration::from_secs(20))), |queue| queue.pop_front()));
        while shared.inbound.waiters() == 0 {
            std::thread::yield_now();
        }
        // Another reader takes both pieces, and leaves one.
        let mut batch = vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        let mut queue: VecDeque<Bytes> = batch.drain(..).collect();
        assert_eq!(queue.pop_front().unwrap(), "one");
        *shared.reading.lock().unwrap() = Unread { bytes: queue.iter().map(Bytes::len).sum(), pieces: queue };
        shared.set_leftover(true);
        assert!(matches!(waiting.join().unwrap(), Ok(Taken::Data(Some(piece), false)) if piece == "two"));
    });
    assert!(!shared.has_unread());
}

#[test]
fn what_the_application_has_not_read_is_known_and_a_read_is_told_once() {
    let shared = shared(1 << 20);
    shared.deliver(&mut vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")], None, false, 6);
    let read = |n: usize| match shared.read_now(|queue| queue.fill(&mut vec![0; n])) {
        Some(Taken::Data(read, tell)) => (read, tell),
        _ => panic!("there is something to read"),
    };
    assert_eq!((read(2), shared.unread(6, false)), ((2, false), 4));
    assert_eq!(shared.unread(6, true), 4);
    assert!(matches!(shared.read_now(|queue| queue.copy_out(&mut [0; 9])), Some(Taken::Data(4, false))));
    assert_eq!((read(1), read(1), shared.unread(6, false)), ((1, true), (1, false), 2));
    shared.deliver(&mut vec![Bytes::from_static(b"three")], None, false, 11);
    let (left, _) = shared.take_unread();
    assert_eq!((left.len(), shared.unread(11, false)), (2, 0));
    shared.deliver(&mut vec![Bytes::from_static(b"four")], None, false, 15);
    shared.end_reading(End::Finished, true);
    assert_eq!(shared.unread(15, false), 0);
}

#[test]
fn queues_hold_little_while_memory_is_scarce() {
    let most = Most::default();
    let shared = Shared::new(&ConnectionConfig::default(), Duration::ZERO, &most);
    assert_eq!(shared.read_room(0), MOST_QUEUED);
    most.set_scarce(true);
    assert_eq!((shared.read_room(0), shared.read_room(20_000)), (MOST_WHEN_SCARCE, 0));
    let put = || put_slice(&shared, &[7; PIECE], deadline(Some(Duration::ZERO)));
    assert!(matches!(put(), Ok(Put::Taken(MOST_WHEN_SCARCE, _))));
    assert!(matches!(put(), Err(TimedOut)) && shared.written() == MOST_WHEN_SCARCE);
    most.set_scarce(false);
    assert!(matches!(put(), Ok(Put::Taken(PIECE, _))));
    assert!(!shared.collect(&mut VecDeque::new()) && shared.written() == 0);
}

#[test]
fn room_that_is_promised_to_one_writer_is_not_given_to_another() {
    let shared = shared(SMALL_WRITE + 10);
    let data = [7; SMALL_WRITE + 1];
    let put = shared.put_slices(&[IoSlice::new(&data)], None, |data, n| {
        // Nine bytes are left while this one copies.
        assert!(matches!(put_slice(&shared, &[1; 20], None), Ok(Put::Taken(9, _))));
        assert!(matches!(put_slice(&shared, &[1; 20], deadline(Some(Duration::ZERO))), Err(TimedOut)));
        Bytes::copy_from_slice(&data[0][..n])
    });
    assert!(matches!(put, Ok(Put::Taken(n, _)) if n == data.len()));
    let mut queue = VecDeque::new();
    shared.collect(&mut queue);
    assert_eq!(queue.iter().map(Bytes::len).sum::<usize>(), SMALL_WRITE + 10);
    assert!(matches!(put_slice(&shared, &[1; 20], None), Ok(Put::Taken(20, _))));
}

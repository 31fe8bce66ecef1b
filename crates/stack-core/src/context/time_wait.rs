//! TIME_WAIT (RFC 9293 §3.6) in a compact table, so that a closed subflow costs tens of bytes, not a
//! connection.

use super::hash::Seeded;
use crate::tcp::{FourTuple, TIME_WAIT};
use crate::wire::tcp::TcpRepr;
use alloc::collections::BTreeMap;
use hashbrown::HashMap;
use umptcp_types::{Duration, Instant, PathId, SeqNumber};

/// RFC 6191: a four-tuple whose last segment is this old may be reused by us when timestamps protect it.
const REUSE_AFTER: Duration = Duration::from_secs(1);
/// A retransmitted FIN restarts the wait, but not more often than this.
const RESTART_AFTER: Duration = Duration::from_millis(500);
/// Most entries; the oldest goes first. Linux has the same kind of bound (tcp_max_tw_buckets).
const MAX_ENTRIES: usize = 65_536;

/// What is left of a subflow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeWait {
    pub(crate) path: PathId,
    /// Our next sequence number.
    pub(crate) send_next: SeqNumber,
    /// The ACK to repeat.
    pub(crate) receive_next: SeqNumber,
    pub(crate) timestamps: bool,
    pub(crate) ts_recent: u32,
    pub(crate) timestamp_offset: u32,
    pub(crate) since: Instant,
    pub(crate) until: Instant,
}

/// What to do with a segment for a four-tuple in TIME_WAIT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Drop it.
    Drop,
    /// Repeat the last ACK.
    Acknowledge,
    /// A SYN that may start a new connection (RFC 9293 §3.6.1, RFC 6191): the entry is gone.
    NewConnection,
}

#[derive(Debug)]
pub(crate) struct TimeWaitTable {
    entries: HashMap<FourTuple, Entry, Seeded>,
    /// By expiry; the number tells those apart that expire together. As many as entries.
    order: BTreeMap<(Instant, u64), FourTuple>,
    next_number: u64,
}

#[derive(Debug)]
struct Entry {
    wait: TimeWait,
    /// Its number in the order of expiry.
    number: u64,
}

impl TimeWaitTable {
    pub(crate) fn new(hasher: Seeded) -> Self {
        TimeWaitTable { entries: HashMap::with_hasher(hasher), order: BTreeMap::new(), next_number: 0 }
    }

    /// Returns what has been forgotten for it, if the table is full.
    pub(crate) fn insert(&mut self, tuple: FourTuple, wait: TimeWait) -> Option<(FourTuple, TimeWait)> {
        self.remove(&tuple);
        let mut forgotten = None;
        if self.entries.len() >= MAX_ENTRIES
            && let Some((_, oldest)) = self.order.pop_first()
        {
            forgotten = self.entries.remove(&oldest).map(|e| (oldest, e.wait));
        }
        let number = self.next_number;
        self.next_number += 1;
        self.order.insert((wait.until, number), tuple);
        self.entries.insert(tuple, Entry { wait, number });
        forgotten
    }

    pub(crate) fn get(&self, tuple: &FourTuple) -> Option<&TimeWait> {
        self.entries.get(tuple).map(|e| &e.wait)
    }

    /// Whether a connection of ours may use `tuple`.
    pub(crate) fn may_reuse(&self, now: Instant, tuple: &FourTuple) -> bool {
        self.get(tuple).is_none_or(|e| e.timestamps && now - e.since >= REUSE_AFTER)
    }

    /// Forgets `tuple` because a new connection takes it.
    pub(crate) fn remove(&mut self, tuple: &FourTuple) -> Option<TimeWait> {
        let e = self.entries.remove(tuple)?;
        self.order.remove(&(e.wait.until, e.number));
        Some(e.wait)
    }

    /// A segment for `tuple`. `None`: it is not in TIME_WAIT.
    pub(crate) fn on_segment(
        &mut self,
        now: Instant,
        tuple: &FourTuple,
        seg: &TcpRepr,
        len: usize,
    ) -> Option<Verdict> {
        let Entry { wait: e, number } = self.entries.get_mut(tuple)?;
        // RFC 1337: a RST must not cut TIME_WAIT short.
        if seg.flags.rst {
            return Some(Verdict::Drop);
        }
        if seg.flags.syn && !seg.flags.ack {
            let newer = match seg.options.timestamps {
                // RFC 6191 §2: at an equal timestamp the sequence number decides.
                Some(ts) if e.timestamps && ts.value != e.ts_recent => {
                    (ts.value.wrapping_sub(e.ts_recent) as i32) > 0
                }
                _ => seg.seq.after(e.receive_next),
            };
            if newer {
                self.remove(tuple);
                return Some(Verdict::NewConnection);
            }
            return Some(Verdict::Acknowledge);
        }
        // RFC 9293 §3.10.7.4, eighth: our last ACK was lost, and the wait begins anew. Not for any FIN: only
        // the peer, or somebody who sees its packets, knows the number of its own.
        let again = seg.flags.fin && seg.seq.wrapping_add(len as u32 + 1) == e.receive_next;
        if again && now - e.since >= RESTART_AFTER {
            self.order.remove(&(e.until, *number));
            e.since = now;
            e.until = now + TIME_WAIT;
            self.order.insert((e.until, *number), *tuple);
        }
        Some(if seg.flags.fin || len > 0 { Verdict::Acknowledge } else { Verdict::Drop })
    }

    /// When the next entry expires.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.order.first_key_value().map(|((until, _), _)| *until)
    }

    /// Drops what has expired, and tells what that was.
    pub(crate) fn expire(&mut self, now: Instant, mut gone: impl FnMut(&FourTuple, &TimeWait)) {
        while let Some(first) = self.order.first_entry()
            && first.key().0 <= now
        {
            let tuple = first.remove();
            if let Some(entry) = self.entries.remove(&tuple) {
                gone(&tuple, &entry.wait);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tcp::{TcpFlags, TcpOptions};
    use core::net::SocketAddr;

    fn tuple(port: u16) -> FourTuple {
        let at = |last, port| SocketAddr::from(([10, 0, 0, last], port));
        FourTuple { local: at(1, port), remote: at(2, 80) }
    }

    fn wait(since: Instant) -> TimeWait {
        TimeWait {
            path: PathId(0),
            send_next: SeqNumber(100),
            receive_next: SeqNumber(200),
            timestamps: false,
            ts_recent: 0,
            timestamp_offset: 0,
            since,
            until: since + TIME_WAIT,
        }
    }

    fn fin(seq: u32) -> TcpRepr {
        TcpRepr {
            src_port: 80,
            dst_port: 1,
            seq: SeqNumber(seq),
            ack: SeqNumber(100),
            flags: TcpFlags { fin: true, ..TcpFlags::ACK },
            window: 0,
            urgent: 0,
            options: TcpOptions::default(),
        }
    }

    fn seeded() -> Seeded {
        Seeded::new((1, 2))
    }

    fn second(n: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(n)
    }

    #[test]
    fn only_the_fin_of_the_peer_restarts_the_wait() {
        for (seq, restarts) in [(199, true), (198, false), (200, false), (5_000, false)] {
            let mut t = TimeWaitTable::new(seeded());
            t.insert(tuple(1), wait(second(0)));
            assert_eq!(t.on_segment(second(10), &tuple(1), &fin(seq), 0), Some(Verdict::Acknowledge));
            let until = second(if restarts { 10 } else { 0 }) + TIME_WAIT;
            assert_eq!(t.next_deadline(), Some(until), "{seq}");
            t.expire(until, |_, _| {});
            assert!(t.get(&tuple(1)).is_none() && t.next_deadline().is_none());
        }
    }

    #[test]
    fn the_order_of_expiry_is_as_long_as_the_table() {
        let mut t = TimeWaitTable::new(seeded());
        for n in 0..1_000 {
            t.insert(tuple(1), wait(second(n)));
            t.insert(tuple(2), wait(second(n)));
            t.remove(&tuple(2));
            t.on_segment(second(n + 1), &tuple(1), &fin(199), 0);
            assert_eq!((t.order.len(), t.entries.len()), (1, 1));
        }
        // A full table drops the oldest.
        for port in 0..=u16::MAX {
            t.insert(tuple(port), wait(second(2_000)));
        }
        assert_eq!((t.order.len(), t.entries.len()), (MAX_ENTRIES, MAX_ENTRIES));
    }
}

//! TIME_WAIT (RFC 9293 §3.6) in a compact table, so that a closed subflow costs tens of bytes, not a
//! connection.

use super::hash::Seeded;
use crate::tcp::{FourTuple, TIME_WAIT};
use crate::wire::tcp::TcpRepr;
use alloc::collections::VecDeque;
use hashbrown::HashMap;
use umptcp_types::{Duration, Instant, PathId, SeqNumber};

/// RFC 6191: a four-tuple whose last segment is this old may be reused by us when timestamps protect it.
const REUSE_AFTER: Duration = Duration::from_secs(1);
/// A retransmitted FIN restarts the wait, but not more often than this, so that the order of expiry stays
/// short.
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
    entries: HashMap<FourTuple, TimeWait, Seeded>,
    /// By expiry; every entry waits equally long, so this is the order of arrival.
    order: VecDeque<(Instant, FourTuple)>,
}

impl TimeWaitTable {
    pub(crate) fn new(hasher: Seeded) -> Self {
        TimeWaitTable { entries: HashMap::with_hasher(hasher), order: VecDeque::new() }
    }

    pub(crate) fn insert(&mut self, tuple: FourTuple, entry: TimeWait) {
        if self.entries.len() >= MAX_ENTRIES
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
        self.order.push_back((entry.until, tuple));
        self.entries.insert(tuple, entry);
    }

    pub(crate) fn get(&self, tuple: &FourTuple) -> Option<&TimeWait> {
        self.entries.get(tuple)
    }

    /// Whether a connection of ours may use `tuple`.
    pub(crate) fn may_reuse(&self, now: Instant, tuple: &FourTuple) -> bool {
        self.entries.get(tuple).is_none_or(|e| e.timestamps && now - e.since >= REUSE_AFTER)
    }

    /// Forgets `tuple` because a new connection takes it.
    pub(crate) fn remove(&mut self, tuple: &FourTuple) {
        self.entries.remove(tuple);
    }

    /// A segment for `tuple`. `None`: it is not in TIME_WAIT.
    pub(crate) fn on_segment(
        &mut self,
        now: Instant,
        tuple: &FourTuple,
        seg: &TcpRepr,
        len: usize,
    ) -> Option<Verdict> {
        let e = self.entries.get_mut(tuple)?;
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
                self.entries.remove(tuple);
                return Some(Verdict::NewConnection);
            }
            return Some(Verdict::Acknowledge);
        }
        if seg.flags.fin && now - e.since >= RESTART_AFTER {
            // RFC 9293 §3.10.7.4, eighth: our last ACK was lost, and the wait begins anew.
            e.since = now;
            e.until = now + TIME_WAIT;
            self.order.push_back((e.until, *tuple));
        }
        Some(if seg.flags.fin || len > 0 { Verdict::Acknowledge } else { Verdict::Drop })
    }

    /// When the next entry expires.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.order.front().map(|(t, _)| *t)
    }

    /// Drops what has expired.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((until, tuple)) = self.order.front().copied()
            && until <= now
        {
            self.order.pop_front();
            if self.entries.get(&tuple).is_some_and(|e| e.until <= now) {
                self.entries.remove(&tuple);
            }
        }
    }
}

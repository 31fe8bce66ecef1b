//! Local ports for connections that name none.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use core::net::SocketAddr;
use core::ops::RangeInclusive;
use umptcp_types::Instant;

/// Ports in TIME_WAIT, or kept, that are passed over in search of one that is neither.
const MAX_PASSED_OVER: u32 = 64;

/// Whether a connection of ours may use a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    Free,
    /// Its four-tuple has been in TIME_WAIT since then, and may be used if no other is free.
    Waiting(Instant),
    Taken,
}

#[derive(Debug)]
pub(super) struct Ports {
    range: RangeInclusive<u16>,
    next: u16,
    /// Local ports that joins to these addresses are to come from, whatever the local address (RFC 8684
    /// §3.9.1), and how many connections each is that port of.
    kept: BTreeMap<(u16, SocketAddr), u32>,
}

impl Ports {
    /// The search starts at a port that `random` chooses.
    pub(super) fn new(range: RangeInclusive<u16>, random: u32) -> Self {
        let first = *range.start();
        let span = range.end().saturating_sub(first).max(1);
        let next = first + (random % u32::from(span)) as u16;
        Ports { range, next, kept: BTreeMap::new() }
    }

    /// Keeps the local port of a connection to `remote` for its joins, from other local addresses.
    pub(super) fn keep(&mut self, port: u16, remote: SocketAddr) {
        *self.kept.entry((port, remote)).or_default() += 1;
    }

    /// The connection is over.
    pub(super) fn release(&mut self, port: u16, remote: SocketAddr) {
        if let Entry::Occupied(mut kept) = self.kept.entry((port, remote)) {
            *kept.get_mut() -= 1;
            if *kept.get() == 0 {
                kept.remove();
            }
        }
    }

    /// A free local port for a connection to `remote` (RFC 6056 in spirit: a random start, then in turn, so
    /// that ports used lately come last). Four-tuples in TIME_WAIT come after the others, the oldest first:
    /// the peer may not have forgotten them. Ports kept for the joins of other connections come last of all.
    pub(super) fn find(
        &mut self,
        remote: SocketAddr,
        mut standing: impl FnMut(u16) -> Standing,
    ) -> Option<u16> {
        let (first, last) = (*self.range.start(), *self.range.end());
        let mut waiting: Option<(Instant, u16)> = None;
        let (mut passed_over, mut kept) = (0, None);
        for _ in first..=last {
            let port = self.next;
            self.next = if port >= last { first } else { port + 1 };
            let standing = standing(port);
            if standing == Standing::Taken {
                continue;
            }
            if self.kept.contains_key(&(port, remote)) {
                kept.get_or_insert(port);
            } else {
                let Standing::Waiting(since) = standing else { return Some(port) };
                if waiting.is_none_or(|(oldest, _)| since < oldest) {
                    waiting = Some((since, port));
                }
            }
            passed_over += 1;
            if passed_over >= MAX_PASSED_OVER {
                break;
            }
        }
        waiting.map(|(_, port)| port).or(kept)
    }
}

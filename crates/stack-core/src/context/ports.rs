//! Local ports for connections that name none.
//!
//! Choosing one costs the same few steps whatever the number of connections and of four-tuples in TIME_WAIT:
//! which ports are in use towards an address is kept as a set ([`PortSet`]), not looked for port by port.

use super::hash::Seeded;
use super::port_set::PortSet;
use crate::tcp::FourTuple;
use alloc::collections::{BTreeMap, BTreeSet};
use core::net::{IpAddr, SocketAddr};
use core::ops::RangeInclusive;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use umptcp_types::Instant;

/// Steps that a search takes before it is content with a port that is not the best.
const MAX_STEPS: u32 = 64;

/// Whether a connection of ours may use a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    Free,
    /// Its four-tuple is in TIME_WAIT, and may be used if no other is free.
    Waiting,
    Taken,
}

/// Local ports that joins to an address are to come from, whatever the local address (RFC 8684 §3.9.1).
#[derive(Debug, Default)]
struct Kept {
    ports: PortSet,
    /// Those that more than one connection keeps, and how many more.
    again: BTreeMap<u16, u32>,
}

/// Our ports in use between a local address and a remote address and port.
#[derive(Debug, Default)]
struct Uses {
    /// By connections, or in TIME_WAIT.
    busy: PortSet,
    /// Those in TIME_WAIT, by its beginning.
    waiting: BTreeSet<(Instant, u16)>,
}

#[derive(Debug)]
pub(super) struct Ports {
    /// Those to choose from.
    own: PortSet,
    next: u16,
    kept: BTreeMap<SocketAddr, Kept>,
    uses: HashMap<(IpAddr, SocketAddr), Uses, Seeded>,
}

impl Ports {
    /// The search starts at a port that `random` chooses.
    pub(super) fn new(range: RangeInclusive<u16>, random: u32, hasher: Seeded) -> Self {
        let first = *range.start();
        let span = range.end().saturating_sub(first).max(1);
        let next = first + (random % u32::from(span)) as u16;
        Ports { own: range.into(), next, kept: BTreeMap::new(), uses: HashMap::with_hasher(hasher) }
    }

    /// Chooses from these, too.
    pub(super) fn add(&mut self, range: RangeInclusive<u16>) {
        range.for_each(|port| self.own.insert(port));
    }

    /// Keeps the local port of a connection to `remote` for its joins, from other local addresses.
    pub(super) fn keep(&mut self, port: u16, remote: SocketAddr) {
        let kept = self.kept.entry(remote).or_default();
        if kept.ports.contains(port) {
            *kept.again.entry(port).or_default() += 1;
        } else {
            kept.ports.insert(port);
        }
    }

    /// The connection is over.
    pub(super) fn release(&mut self, port: u16, remote: SocketAddr) {
        let Some(kept) = self.kept.get_mut(&remote) else { return };
        match kept.again.get_mut(&port) {
            Some(1) => drop(kept.again.remove(&port)),
            Some(more) => *more -= 1,
            None => kept.ports.remove(port),
        }
        if kept.ports.is_empty() {
            self.kept.remove(&remote);
        }
    }

    /// A connection uses `tuple`, which has been in TIME_WAIT since `waiting`.
    pub(super) fn take(&mut self, tuple: &FourTuple, waiting: Option<Instant>) {
        let port = tuple.local.port();
        if self.own.contains(port) {
            let uses = self.uses.entry((tuple.local.ip(), tuple.remote)).or_default();
            uses.busy.insert(port);
            if let Some(since) = waiting {
                uses.waiting.remove(&(since, port));
            }
        }
    }

    /// No connection uses `tuple`: it is in TIME_WAIT from now on, since `waiting`.
    pub(super) fn wait(&mut self, tuple: &FourTuple, since: Instant) {
        let port = tuple.local.port();
        if self.own.contains(port) {
            let uses = self.uses.entry((tuple.local.ip(), tuple.remote)).or_default();
            uses.busy.insert(port);
            uses.waiting.insert((since, port));
        }
    }

    /// Nothing uses `tuple`, which was in TIME_WAIT since `waiting`.
    pub(super) fn leave(&mut self, tuple: &FourTuple, waiting: Option<Instant>) {
        let port = tuple.local.port();
        let Entry::Occupied(mut entry) = self.uses.entry((tuple.local.ip(), tuple.remote)) else { return };
        let uses = entry.get_mut();
        uses.busy.remove(port);
        if let Some(since) = waiting {
            uses.waiting.remove(&(since, port));
        }
        if uses.busy.is_empty() {
            entry.remove();
        }
    }

    /// The first of our ports from `from` on that is in neither set.
    fn gap(&self, from: u16, busy: &PortSet, kept: &PortSet) -> Option<u16> {
        let mut port = from;
        for _ in 0..MAX_STEPS {
            let own = self.own.member(port)?;
            let next = kept.gap(busy.gap(own)?)?;
            if next == own {
                return Some(own);
            }
            port = next;
        }
        None
    }

    /// A port of ours that is in neither set, in turn. `standing` has the last word.
    fn free(&self, busy: &PortSet, kept: &PortSet, standing: impl Fn(u16) -> Standing) -> Option<u16> {
        let (mut from, mut turned) = (self.next, false);
        for _ in 0..MAX_STEPS {
            match self.gap(from, busy, kept) {
                Some(port) if standing(port) == Standing::Free => return Some(port),
                // A connection's that named its port before that was ours.
                Some(port) if port < u16::MAX => from = port + 1,
                _ if turned => return None,
                _ => (from, turned) = (0, true),
            }
        }
        None
    }

    /// A free local port for a connection from `local` to `remote` (RFC 6056 in spirit: a random start, then
    /// in turn, so that ports used lately come last). Four-tuples in TIME_WAIT come after the others, the
    /// oldest first: the peer may not have forgotten them. Ports kept for the joins of other connections come
    /// last of all.
    pub(super) fn find(
        &mut self,
        local: IpAddr,
        remote: SocketAddr,
        standing: impl Fn(u16) -> Standing,
    ) -> Option<u16> {
        let none = (Uses::default(), PortSet::default());
        let uses = self.uses.get(&(local, remote)).unwrap_or(&none.0);
        let kept = self.kept.get(&remote).map_or(&none.1, |k| &k.ports);
        let waiting = || {
            let oldest = uses.waiting.iter().take(MAX_STEPS as usize).map(|(_, port)| *port);
            let mut usable = oldest.filter(|port| standing(*port) == Standing::Waiting);
            let mut kept_one = None;
            let best = usable.find(|port| {
                if kept.contains(*port) {
                    kept_one.get_or_insert(*port);
                }
                !kept.contains(*port)
            });
            (best, kept_one)
        };
        let port = self.free(&uses.busy, kept, &standing).or_else(|| {
            let (best, kept_one) = waiting();
            best.or_else(|| self.free(&uses.busy, &none.1, &standing)).or(kept_one)
        })?;
        self.next = port.checked_add(1).unwrap_or(0);
        Some(port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use core::cell::Cell;
    use proptest::prelude::*;
    use umptcp_types::Duration;

    const LOCAL: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 1));

    fn remote() -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 2], 80))
    }

    fn tuple(port: u16) -> FourTuple {
        FourTuple { local: SocketAddr::new(LOCAL, port), remote: remote() }
    }

    fn second(n: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(n)
    }

    fn ports(range: RangeInclusive<u16>) -> Ports {
        Ports::new(range, 7, Seeded::new((1, 2)))
    }

    /// What it finds, and how many ports it looks at for that.
    fn find(ports: &mut Ports, standing: impl Fn(u16) -> Standing) -> (Option<u16>, u32) {
        let looks = Cell::new(0);
        let found = ports.find(LOCAL, remote(), |port| {
            looks.set(looks.get() + 1);
            standing(port)
        });
        (found, looks.get())
    }

    #[test]
    fn a_port_costs_few_looks_however_many_are_in_use_or_wait() {
        let range = 32_768..=60_999;
        let mut ports = ports(range.clone());
        // All in TIME_WAIT, in an order of their own.
        for (n, port) in range.clone().enumerate() {
            ports.wait(&tuple(port), second((n as u64 * 7_919) % 28_232));
        }
        assert_eq!(find(&mut ports, |_| Standing::Waiting), (Some(32_768), 1), "the oldest");
        // One is free.
        ports.leave(&tuple(40_000), Some(second((40_000 - 32_768) * 7_919 % 28_232)));
        let standing = |port| if port == 40_000 { Standing::Free } else { Standing::Waiting };
        assert_eq!(find(&mut ports, standing), (Some(40_000), 1));
        // All in use.
        range.clone().for_each(|port| ports.take(&tuple(port), None));
        let (found, looks) = find(&mut ports, |_| Standing::Taken);
        assert!(found.is_none() && looks <= MAX_STEPS, "{looks}");
        ports.leave(&tuple(50_000), None);
        let standing = |port| if port == 50_000 { Standing::Free } else { Standing::Taken };
        assert_eq!(find(&mut ports, standing), (Some(50_000), 1));
        // All but one kept by others, from another address.
        let mut ports = self::ports(range.clone());
        range.filter(|port| *port != 45_000).for_each(|port| ports.keep(port, remote()));
        assert_eq!(find(&mut ports, |_| Standing::Free), (Some(45_000), 1));
    }

    proptest! {
        /// A free port that nobody keeps, else the one that has waited longest, else one that is kept.
        #[test]
        fn the_best_is_found(steps in prop::collection::vec((0u8..6, 100u16..108), 0..120)) {
            let mut ports = ports(100..=107);
            let mut standing = BTreeMap::from_iter((100..108).map(|port| (port, (Standing::Free, None))));
            let mut kept = Vec::new();
            for (now, (step, port)) in steps.into_iter().enumerate() {
                let since = standing[&port].1;
                match step {
                    0 | 1 => {
                        ports.take(&tuple(port), since);
                        standing.insert(port, (Standing::Taken, None));
                    }
                    2 if standing[&port].0 == Standing::Taken => {
                        ports.wait(&tuple(port), second(now as u64));
                        standing.insert(port, (Standing::Waiting, Some(second(now as u64))));
                    }
                    3 => {
                        ports.leave(&tuple(port), since);
                        standing.insert(port, (Standing::Free, None));
                    }
                    4 => {
                        ports.keep(port, remote());
                        kept.push(port);
                    }
                    _ => if let Some(at) = kept.iter().position(|p| *p == port) {
                        kept.remove(at);
                        ports.release(port, remote());
                    }
                }
                let best = standing.iter().filter(|(_, (s, _))| *s != Standing::Taken);
                let rank = |port: &u16| {
                    let (s, since) = standing[port];
                    match (s, kept.contains(port)) {
                        (Standing::Free, false) => (0, None),
                        (Standing::Waiting, false) => (1, since),
                        (Standing::Free, true) => (2, None),
                        _ => (3, since),
                    }
                };
                let best = best.map(|(port, _)| rank(port)).min();
                let found = find(&mut ports, |port| standing[&port].0).0;
                prop_assert_eq!(found.as_ref().map(rank), best);
            }
            (100..108).for_each(|port| ports.leave(&tuple(port), standing[&port].1));
            kept.iter().for_each(|port| ports.release(*port, remote()));
            prop_assert!(ports.uses.is_empty() && ports.kept.is_empty(), "nothing is left over");
        }
    }
}

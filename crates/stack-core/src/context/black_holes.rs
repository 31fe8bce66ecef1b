//! Networks that lose SYNs with MP_CAPABLE (RFC 8684 §3.9.3 suggests such a memory; Linux keeps one per
//! host).

use super::hash::Seeded;
use core::net::IpAddr;
use hashbrown::HashMap;
use umptcp_types::{Duration, Instant};

/// Most networks remembered; the one that expires first makes room.
const MAX_NETWORKS: usize = 1024;
/// The period doubles this often at most, as Linux's.
const MAX_DOUBLINGS: u32 = 6;

/// A destination network: /24 in IPv4, /48 in IPv6, what a site usually has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Network {
    V4([u8; 3]),
    V6([u8; 6]),
}

impl Network {
    fn of(address: IpAddr) -> Network {
        match address {
            IpAddr::V4(a) => {
                let [a, b, c, _] = a.octets();
                Network::V4([a, b, c])
            }
            IpAddr::V6(a) => {
                let [a, b, c, d, e, f, ..] = a.octets();
                Network::V6([a, b, c, d, e, f])
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct BlackHole {
    /// How often in a row it was found.
    times: u32,
    until: Instant,
}

/// Networks towards which MPTCP is not tried for a while.
#[derive(Debug)]
pub(crate) struct BlackHoles {
    networks: HashMap<Network, BlackHole, Seeded>,
}

impl BlackHoles {
    pub(crate) fn new(hasher: Seeded) -> Self {
        BlackHoles { networks: HashMap::with_hasher(hasher) }
    }

    /// Whether MPTCP is not to be tried now towards `address`.
    pub(crate) fn avoid(&self, now: Instant, address: IpAddr) -> bool {
        self.networks.get(&Network::of(address)).is_some_and(|b| now < b.until)
    }

    /// SYNs with the option were lost, and the first without it was answered. False: not remembered, since
    /// `period` is zero or it is known.
    pub(crate) fn found(&mut self, now: Instant, address: IpAddr, period: Duration) -> bool {
        if period == Duration::ZERO || self.avoid(now, address) {
            // Connections that began at the same time find it at the same time: that counts once.
            return false;
        }
        let network = Network::of(address);
        if self.networks.len() >= MAX_NETWORKS && !self.networks.contains_key(&network) {
            let first = self.networks.iter().min_by_key(|(_, b)| b.until).map(|(n, _)| *n);
            if let Some(first) = first {
                self.networks.remove(&first);
            }
        }
        let b = self.networks.entry(network).or_insert(BlackHole { times: 0, until: now });
        b.until = now + period.saturating_mul(1 << b.times.min(MAX_DOUBLINGS));
        b.times += 1;
        true
    }

    /// A SYN/ACK with the option came from `address`.
    pub(crate) fn works(&mut self, address: IpAddr) {
        if !self.networks.is_empty() {
            self.networks.remove(&Network::of(address));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn table() -> BlackHoles {
        BlackHoles::new(Seeded::new((1, 2)))
    }

    #[test]
    fn the_period_doubles_up_to_64_fold_and_success_ends_it() {
        let mut t = table();
        let (a, neighbour) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 200]));
        let mut now = Instant::from_millis(5);
        for doublings in [0, 1, 2, 3, 4, 5, 6, 6, 6] {
            assert!(!t.avoid(now, a));
            assert!(t.found(now, a, HOUR));
            assert!(!t.found(now, neighbour, HOUR), "found twice in one period");
            let end = now + HOUR.saturating_mul(1 << doublings);
            assert!(t.avoid(now, neighbour), "the whole network");
            assert!(!t.avoid(now, IpAddr::from([192, 0, 3, 1])));
            assert!(t.avoid(Instant::from_millis(end.as_millis() - 1), a));
            now = end;
        }
        t.works(neighbour);
        assert!(t.found(now, a, HOUR));
        assert!(!t.avoid(now + HOUR, a), "success did not end the doubling");
    }

    #[test]
    fn switched_off_it_remembers_nothing_and_otherwise_not_without_bound() {
        let mut t = table();
        assert!(!t.found(Instant::ZERO, IpAddr::from([10, 0, 0, 1]), Duration::ZERO));
        assert!(!t.avoid(Instant::ZERO, IpAddr::from([10, 0, 0, 1])));
        for n in 0..3000u32 {
            let [_, _, b, c] = n.to_be_bytes();
            assert!(t.found(Instant::from_millis(u64::from(n)), IpAddr::from([10, b, c, 1]), HOUR));
        }
        assert_eq!(t.networks.len(), MAX_NETWORKS);
        // The oldest made room.
        let now = Instant::from_millis(3000);
        assert!(!t.avoid(now, IpAddr::from([10, 0, 0, 1])));
        assert!(t.avoid(now, IpAddr::from([10, 2999u16.to_be_bytes()[0], 2999u16.to_be_bytes()[1], 1])));
    }
}

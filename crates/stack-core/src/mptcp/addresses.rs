//! What a connection knows about addresses: those of its own with their IDs, those of the peer, and which
//! paths it may use.

use super::adverts::Adverts;
use super::failures::Failures;
use super::notices::PeerNotices;
use crate::path_manager::{Command, PathPolicy, RemoteAddress, View, default_policy};
use crate::tcp::FourTuple;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use umptcp_types::{AddressId, Duration, Instant, PathId};

/// Addresses remembered for having been taken back: one for each Address ID.
const WITHDRAWN_KEPT: usize = 256;

/// Most joins that one connection begins within this time.
const JOINS_PER_PERIOD: u32 = 16;
pub(crate) const JOINS_PERIOD: Duration = Duration::from_secs(1);

/// The joins of ours in the period that began then.
#[derive(Debug)]
struct JoinRate {
    since: Instant,
    count: u32,
}

/// What a connection knows about addresses.
pub(crate) struct Addresses {
    /// Paths that the application allows; empty: all.
    allowed: Vec<PathId>,
    policy: Box<dyn PathPolicy>,
    remotes: Vec<RemoteAddress>,
    local_ids: Vec<(IpAddr, AddressId)>,
    /// Addresses of ours that the application has taken back: no subflow is opened from them.
    withdrawn: Vec<IpAddr>,
    /// The path manager is to look again: a subflow has gone, or it has not looked yet.
    look: bool,
    joins: JoinRate,
    pub(super) adverts: Adverts,
    pub(super) notices: PeerNotices,
    pub(super) failures: Failures,
}

impl core::fmt::Debug for Addresses {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (local, remote) = (&self.local_ids, &self.remotes);
        f.debug_struct("Addresses").field("local", local).field("remote", remote).finish_non_exhaustive()
    }
}

impl Addresses {
    /// Those of the first subflow: both have ID 0 (RFC 8684 §3.2).
    pub(crate) fn new(first: &FourTuple) -> Self {
        Addresses {
            allowed: Vec::new(),
            policy: default_policy(),
            remotes: alloc::vec![RemoteAddress::new(AddressId(0), first.remote)],
            local_ids: alloc::vec![(first.local.ip(), AddressId(0))],
            withdrawn: Vec::new(),
            look: true,
            joins: JoinRate { since: Instant::ZERO, count: 0 },
            adverts: Adverts::new(first.local.ip()),
            notices: PeerNotices::default(),
            failures: Failures::default(),
        }
    }

    // ---- paths ----

    /// The application allows these paths only; empty: all.
    pub(crate) fn allow(&mut self, paths: Vec<PathId>) {
        self.allowed = paths;
    }

    pub(crate) fn allows(&self, path: PathId) -> bool {
        self.allowed.is_empty() || self.allowed.contains(&path)
    }

    /// What the path manager wants done.
    pub(crate) fn decide(&mut self, view: &View<'_>) -> Vec<Command> {
        self.policy.decide(view)
    }

    /// Something has changed that the path manager is to look at.
    pub(crate) fn on_change(&mut self) {
        self.look = true;
    }

    /// The path manager looks. `again`: it is to look once more later, whatever happens.
    pub(crate) fn on_look(&mut self, again: bool) {
        self.look = again;
    }

    /// The path manager is to look.
    pub(crate) fn wants_look(&self) -> bool {
        self.look
    }

    /// One more join is wanted. RFC 8684 §3.9.2 has the rate of new subflows limited, and §5 the use that a
    /// peer can make of us against others: each ADD_ADDR with another port, or anew, may be cause for a SYN.
    pub(crate) fn may_join(&mut self, now: Instant) -> bool {
        if now - self.joins.since >= JOINS_PERIOD {
            self.joins = JoinRate { since: now, count: 0 };
        }
        self.joins.count += 1;
        self.joins.count <= JOINS_PER_PERIOD
    }

    /// A path with these addresses came: what failed from them before may work now.
    pub(crate) fn on_path_added(&mut self, addresses: &[IpAddr]) {
        self.failures.forget(|pair| addresses.contains(&pair.local));
        self.withdrawn.retain(|local| !addresses.contains(local));
    }

    // ---- our own ----

    /// Our Address ID for a local address: the same address always gets the same ID (RFC 8684 §3.2). When
    /// every number has been given out, one is used again whose address has neither subflow (`used`) nor
    /// advertisement.
    pub(crate) fn local_id(
        &mut self,
        address: IpAddr,
        used: impl Fn(AddressId) -> bool,
    ) -> Option<AddressId> {
        if let Some((_, id)) = self.local_ids.iter().find(|(a, _)| *a == address) {
            return Some(*id);
        }
        let highest = self.local_ids.iter().map(|(_, id)| id.0).max()?;
        if let Some(next) = highest.checked_add(1) {
            self.local_ids.push((address, AddressId(next)));
            return Some(AddressId(next));
        }
        let adverts = &self.adverts;
        let free = |id: AddressId| id != AddressId(0) && !used(id) && !adverts.has_id(id);
        let slot = self.local_ids.iter_mut().find(|(_, id)| free(*id))?;
        slot.0 = address;
        Some(slot.1)
    }

    /// The application takes addresses back: no subflow is opened from them.
    pub(crate) fn withdraw(&mut self, ids: &[AddressId]) {
        for (address, id) in &self.local_ids {
            let kept = self.withdrawn.len() < WITHDRAWN_KEPT;
            if ids.contains(id) && !self.withdrawn.contains(address) && kept {
                self.withdrawn.push(*address);
            }
        }
    }

    /// The application tells the peer of an address again, by either name: it may be used again.
    pub(crate) fn on_advertised(&mut self, address: IpAddr, local: Option<IpAddr>) {
        self.withdrawn.retain(|a| *a != address && Some(*a) != local);
        self.look = true;
    }

    pub(crate) fn is_withdrawn(&self, address: IpAddr) -> bool {
        self.withdrawn.contains(&address)
    }

    // ---- the peer's ----

    pub(crate) fn remotes(&self) -> &[RemoteAddress] {
        &self.remotes
    }

    /// The peer has told us of an address. At most `limit` are kept. False: it is of no use, or contradicts
    /// what its ID stands for.
    pub(crate) fn learn(&mut self, id: AddressId, address: SocketAddr, limit: usize) -> bool {
        let advertised = self.remotes.iter().filter(|r| r.id != AddressId(0)).count();
        match self.remotes.iter_mut().find(|r| r.id == id) {
            // RFC 8684 §3.4.1: an ID keeps its address until it is removed; the port may change.
            Some(r) if r.address.ip() == address.ip() => r.address = address,
            Some(_) => return false,
            None if advertised >= limit => return false,
            None => self.remotes.push(RemoteAddress::new(id, address)),
        }
        true
    }

    /// The peer takes an address back. False: it was not known.
    pub(crate) fn forget_remote(&mut self, id: AddressId) -> bool {
        let known = self.remotes.len();
        self.remotes.retain(|r| r.id != id);
        self.remotes.len() < known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Addresses {
        let local = SocketAddr::from(([10, 0, 0, 1], 1));
        Addresses::new(&FourTuple { local, remote: SocketAddr::from(([10, 0, 0, 2], 2)) })
    }

    #[test]
    fn ids_are_given_out_once_and_used_again_when_there_is_none_left() {
        let mut a = addresses();
        let v4 = |n: u32| IpAddr::from(n.to_be_bytes());
        for n in 1..=255 {
            assert_eq!(a.local_id(v4(n), |_| false), Some(AddressId(n as u8)));
            assert_eq!(a.local_id(v4(n), |_| false), Some(AddressId(n as u8)));
        }
        assert_eq!(a.local_id(v4(300), |_| true), None);
        assert_eq!(a.local_id(v4(300), |id| id != AddressId(9)), Some(AddressId(9)));
        assert_eq!(a.local_id(v4(9), |_| true), None);
    }

    #[test]
    fn an_id_of_the_peer_keeps_its_address() {
        let mut a = addresses();
        let at = |last, port| SocketAddr::from(([10, 0, 1, last], port));
        assert!(a.learn(AddressId(1), at(1, 5), 2) && a.learn(AddressId(1), at(1, 6), 2));
        assert!(!a.learn(AddressId(1), at(2, 5), 2));
        assert!(a.learn(AddressId(2), at(2, 5), 2) && !a.learn(AddressId(3), at(3, 5), 2));
        assert!(a.forget_remote(AddressId(1)) && !a.forget_remote(AddressId(1)));
        assert!(a.learn(AddressId(3), at(3, 5), 2));
    }

    #[test]
    fn joins_are_limited_per_period() {
        let mut a = addresses();
        let now = Instant::ZERO + JOINS_PERIOD;
        assert_eq!((0..50).filter(|_| a.may_join(now)).count(), JOINS_PER_PERIOD as usize);
        assert!(a.may_join(now + JOINS_PERIOD));
    }

    #[test]
    fn what_was_withdrawn_comes_back_with_its_path_or_a_new_advertisement() {
        let mut a = addresses();
        let address = IpAddr::from([10, 0, 0, 1]);
        a.withdraw(&[AddressId(0)]);
        assert!(a.is_withdrawn(address));
        a.on_path_added(&[address]);
        assert!(!a.is_withdrawn(address));
        a.withdraw(&[AddressId(0)]);
        a.on_advertised(IpAddr::from([1, 1, 1, 1]), Some(address));
        assert!(!a.is_withdrawn(address));
    }
}

//! What a connection knows about addresses: those of its own with their IDs, those of the peer, and which
//! paths it may use.
//!
//! By example: `docs/src/by-example/add-addr.md`, `docs/src/by-example/remove-addr.md`.

use super::adverts::Adverts;
use super::failures::Failures;
use super::notices::PeerNotices;
use crate::context::Chosen;
use crate::path_manager::{Command, LocalAddress, PathPolicy, RemoteAddress, View};
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
    /// IDs of addresses that were advertised when the ID of their path stood for another address, and of those
    /// that are advertised with a port.
    advert_ids: Vec<(IpAddr, Option<u16>, AddressId)>,
    /// IDs that the peer has been told to forget, and that stand for nothing since: one bit each.
    removed_ids: [u64; 4],
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
    pub(crate) fn new(first: &FourTuple, policy: Box<dyn PathPolicy>) -> Self {
        Addresses {
            allowed: Vec::new(),
            policy,
            remotes: alloc::vec![RemoteAddress::new(AddressId(0), first.remote)],
            local_ids: alloc::vec![(first.local.ip(), AddressId(0))],
            advert_ids: Vec::new(),
            removed_ids: [0; 4],
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

    /// Another policy decides from now on.
    pub(crate) fn set_policy(&mut self, policy: Box<dyn PathPolicy>) {
        self.policy = policy;
        self.look = true;
    }

    /// The policy.
    pub(crate) fn policy(&self) -> &dyn PathPolicy {
        self.policy.as_ref()
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

    /// Our Address ID for a local address: the same address always gets the same ID (RFC 8684 §3.2), the one
    /// that is chosen for it if no other has that. When
    /// every number has been given out, one is used again that the peer has been told to forget (§3.4.1) and
    /// that has neither subflow (`used`) nor advertisement.
    pub(crate) fn local_id(
        &mut self,
        address: IpAddr,
        chosen: &[Chosen],
        used: impl Fn(AddressId) -> bool,
    ) -> Option<AddressId> {
        if let Some((_, id)) = self.local_ids.iter().find(|(a, _)| *a == address) {
            let id = *id;
            self.on_id_used(id);
            return Some(id);
        }
        let id = self.chosen_id(address, None, chosen).or_else(|| self.new_id(chosen, used))?;
        self.local_ids.push((address, id));
        Some(id)
    }

    /// The ID for an advertisement of `address`, which stands for `local`, an address of a path of ours. It
    /// is that of the path, which joins carry, unless that has been advertised for another address: an ID
    /// stands for one (RFC 8684 §3.4.1).
    pub(crate) fn advert_id(
        &mut self,
        address: IpAddr,
        local: IpAddr,
        chosen: &[Chosen],
        used: impl Fn(AddressId) -> bool,
    ) -> Option<AddressId> {
        if let Some(id) = self.known_advert_id(address, None) {
            return Some(id);
        }
        let id = self.local_id(local, chosen, &used)?;
        if !self.adverts.is_of_another(id, address) {
            return Some(id);
        }
        let id = self.new_id(chosen, used)?;
        self.advert_ids.push((address, None, id));
        Some(id)
    }

    /// The ID for an advertisement of `local` with a port. It is not that of the address alone: the peer may
    /// know that for the first subflow's, and the two are taken back apart.
    pub(crate) fn port_id(
        &mut self,
        local: &LocalAddress,
        port: u16,
        chosen: &[Chosen],
        used: impl Fn(AddressId) -> bool,
    ) -> Option<AddressId> {
        let known = self.known_advert_id(local.advertise, Some(port));
        known.or_else(|| {
            let id = self.chosen_id(local.address, Some(port), chosen);
            let id = id.or_else(|| self.new_id(chosen, used))?;
            self.advert_ids.push((local.advertise, Some(port), id));
            Some(id)
        })
    }

    fn known_advert_id(&mut self, address: IpAddr, port: Option<u16>) -> Option<AddressId> {
        let id = self.advert_ids.iter().find(|(a, p, _)| (*a, *p) == (address, port))?.2;
        self.on_id_used(id);
        Some(id)
    }

    /// The ID that is chosen for this, unless it stands for something else on this connection.
    fn chosen_id(&mut self, address: IpAddr, port: Option<u16>, chosen: &[Chosen]) -> Option<AddressId> {
        let id = chosen.iter().find(|c| (c.address, c.port) == (address, port))?.id;
        if self.is_given_out(id) {
            return None;
        }
        self.on_id_used(id);
        Some(id)
    }

    fn is_given_out(&self, id: AddressId) -> bool {
        let local = self.local_ids.iter().any(|(_, i)| *i == id);
        local || self.advert_ids.iter().any(|(.., i)| *i == id)
    }

    /// One that stands for nothing, and that nobody has chosen.
    fn new_id(&mut self, chosen: &[Chosen], used: impl Fn(AddressId) -> bool) -> Option<AddressId> {
        let free = |id: &AddressId| chosen.iter().all(|c| c.id != *id);
        let mut all = (1..=u8::MAX).map(AddressId).filter(free);
        if let Some(new) = all.clone().find(|id| !self.is_given_out(*id) && !self.is_removed(*id)) {
            return Some(new);
        }
        let id = all.find(|id| self.is_removed(*id) && self.is_idle(*id, &used))?;
        self.local_ids.retain(|(_, i)| *i != id);
        self.advert_ids.retain(|(.., i)| *i != id);
        self.on_id_used(id);
        Some(id)
    }

    /// Neither subflow nor advertisement has this ID.
    fn is_idle(&self, id: AddressId, used: impl Fn(AddressId) -> bool) -> bool {
        !used(id) && !self.adverts.has_id(id)
    }

    fn is_removed(&self, id: AddressId) -> bool {
        self.removed_ids[usize::from(id.0 / 64)] & (1 << (id.0 % 64)) != 0
    }

    /// It stands for an address again, which the peer is not to take for removed.
    fn on_id_used(&mut self, id: AddressId) {
        self.notices.cancel_removal(id);
        self.removed_ids[usize::from(id.0 / 64)] &= !(1 << (id.0 % 64));
    }

    /// The peer has been told that these stand for nothing any more.
    pub(crate) fn on_removed(&mut self, ids: &[AddressId]) {
        for id in ids {
            self.removed_ids[usize::from(id.0 / 64)] |= 1 << (id.0 % 64);
        }
    }

    /// IDs that stand for nothing and of which the peer does not know that yet.
    pub(crate) fn idle_ids(&self, used: impl Fn(AddressId) -> bool) -> Vec<AddressId> {
        (1..=u8::MAX).map(AddressId).filter(|id| !self.is_removed(*id) && self.is_idle(*id, &used)).collect()
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
    use crate::mptcp::adverts::Advertised;

    fn addresses() -> Addresses {
        let local = SocketAddr::from(([10, 0, 0, 1], 1));
        Addresses::new(
            &FourTuple { local, remote: SocketAddr::from(([10, 0, 0, 2], 2)) },
            Box::new(umptcp_path_manager::Aggregate),
        )
    }

    #[test]
    fn ids_are_given_out_once_and_again_only_when_the_peer_has_been_told() {
        let mut a = addresses();
        let v4 = |n: u32| IpAddr::from(n.to_be_bytes());
        for n in 1..=255 {
            assert_eq!(a.local_id(v4(n), &[], |_| false), Some(AddressId(n as u8)));
            assert_eq!(a.local_id(v4(n), &[], |_| false), Some(AddressId(n as u8)));
        }
        assert_eq!(a.local_id(v4(300), &[], |_| false), None);
        let used = |id| id != AddressId(9) && id != AddressId(200);
        assert_eq!(a.idle_ids(used), [AddressId(9), AddressId(200)]);
        a.on_removed(&[AddressId(9), AddressId(10), AddressId(200)]);
        assert!(a.idle_ids(used).is_empty());
        assert_eq!(a.local_id(v4(300), &[], used), Some(AddressId(9)));
        assert_eq!(a.local_id(v4(301), &[], used), Some(AddressId(200)));
        assert_eq!((a.local_id(v4(302), &[], used), a.local_id(v4(9), &[], used)), (None, None));
        // An address that comes back has its own again, which then counts as used.
        assert_eq!(a.local_id(v4(10), &[], used), Some(AddressId(10)));
        assert_eq!(a.local_id(v4(302), &[], |_| false), None);
    }

    #[test]
    fn a_chosen_id_is_its_addresss_and_no_others() {
        let mut a = addresses();
        let [one, two, three] = [1, 2, 3].map(|n| IpAddr::from([10, 0, 1, n]));
        let chosen = [
            Chosen { address: two, port: None, id: AddressId(1) },
            Chosen { address: two, port: Some(80), id: AddressId(2) },
            Chosen { address: three, port: None, id: AddressId(255) },
        ];
        let id = |a: &mut Addresses, address| a.local_id(address, &chosen, |_| false).map(|id| id.0);
        assert_eq!([one, three, two].map(|address| id(&mut a, address)), [Some(3), Some(255), Some(1)]);
        let at = LocalAddress::new(PathId(0), two);
        assert_eq!(a.port_id(&at, 80, &chosen, |_| false), Some(AddressId(2)));
        assert_eq!(a.port_id(&at, 81, &chosen, |_| false), Some(AddressId(4)));
        assert_eq!(a.port_id(&at, 80, &[], |_| false), Some(AddressId(2)), "it stays");
        // Too late: the number stands for something else.
        let late = [Chosen { address: at.address, port: Some(82), id: AddressId(3) }];
        assert_eq!(a.port_id(&at, 82, &late, |_| false), Some(AddressId(5)));
    }

    #[test]
    fn an_id_is_advertised_for_one_address_only() {
        let mut a = addresses();
        let [own, public] = [[10, 0, 1, 1], [192, 0, 2, 1]].map(IpAddr::from);
        let advertise = |a: &mut Addresses, address| {
            let id = a.advert_id(address, own, &[], |_| false).expect("an ID");
            a.adverts.push(Instant::ZERO, Advertised { id, address, port: None }, Some(own));
            id.0
        };
        assert_eq!([own, public, own, public].map(|address| advertise(&mut a, address)), [1, 2, 1, 2]);
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

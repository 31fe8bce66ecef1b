//! The paths of a stack: which there are, in which order, and which take no packets for now.

use super::meter::{Meter, Use};
use crate::device::{Families, PathConfig, SignalPort};
use crate::event::Traffic;
use alloc::vec::Vec;
use core::net::IpAddr;
use smallvec::SmallVec;
use umptcp_path_manager::Uses;
use umptcp_types::{AddressId, PathId};

/// An Address ID that is chosen for an address of a path, or for that with a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Chosen {
    pub(crate) address: IpAddr,
    pub(crate) port: Option<u16>,
    pub(crate) id: AddressId,
}

#[derive(Debug)]
struct Path {
    id: PathId,
    config: PathConfig,
    /// The device takes nothing for now.
    blocked: bool,
    /// Enough waits in its NIC's queue: it takes no data for some milliseconds.
    busy: bool,
    /// Bytes per second that its NIC sends, where they were measured.
    rate: Option<u64>,
    /// Nothing gets through for now from addresses of these families: its link is down, or its NIC has no
    /// such address.
    down: Families,
    /// Bytes of IP packets that have passed.
    carried: Traffic,
    /// What may still pass.
    meter: Meter,
}

impl Path {
    /// Nothing can be sent on it now, or nothing from some address.
    fn holds_back(&self) -> bool {
        self.blocked || self.busy || !self.down().is_empty()
    }

    /// Families of which nothing gets through, or may.
    fn down(&self) -> Families {
        if self.meter.state() == Use::Spent { Families::BOTH } else { self.down }
    }
}

/// The paths, in the order in which they were added. They are few, and each packet asks for one: looking
/// through a list takes less than hashing.
#[derive(Debug, Default)]
pub(super) struct Paths {
    paths: Vec<Path>,
    next: u32,
    /// How many hold packets back.
    blocked: usize,
}

impl Paths {
    pub(super) fn add(&mut self, config: PathConfig) -> PathId {
        let id = PathId(self.next);
        self.next += 1;
        let meter = Meter::new(config.allowance);
        let (carried, down) = (Traffic::default(), Families::default());
        let path = Path { id, config, blocked: false, busy: false, rate: None, down, carried, meter };
        self.blocked += usize::from(path.holds_back());
        self.paths.push(path);
        id
    }

    fn find(&self, path: PathId) -> Option<&Path> {
        self.paths.iter().find(|p| p.id == path)
    }

    /// False: there is no such path.
    pub(super) fn remove(&mut self, path: PathId) -> bool {
        let Some(at) = self.paths.iter().position(|p| p.id == path) else { return false };
        let gone = self.paths.remove(at);
        self.blocked -= usize::from(gone.holds_back());
        true
    }

    /// Gives a path other addresses, and others to tell the peer. Of which families something has changed;
    /// none without such a path.
    pub(super) fn readdress(
        &mut self,
        path: PathId,
        addresses: Vec<IpAddr>,
        advertise: Vec<IpAddr>,
    ) -> Families {
        let Some(p) = self.paths.iter_mut().find(|p| p.id == path) else { return Families::default() };
        let changed = |v6: bool| {
            let differ = |a: &[IpAddr], b: &[IpAddr]| {
                !a.iter().filter(|x| x.is_ipv6() == v6).eq(b.iter().filter(|x| x.is_ipv6() == v6))
            };
            differ(&p.config.addresses, &addresses) || differ(&p.config.advertise, &advertise)
        };
        let changed = Families { ipv4: changed(false), ipv6: changed(true) };
        p.config.addresses = addresses;
        p.config.advertise = advertise;
        changed
    }

    /// Subflows on it are to be backups, or not. False: there is no such path.
    pub(super) fn set_backup(&mut self, path: PathId, backup: bool) -> bool {
        let found = self.paths.iter_mut().find(|p| p.id == path);
        found.map(|p| p.config.backup = backup).is_some()
    }

    /// What policies use its addresses for. False: there is no such path.
    pub(super) fn set_uses(&mut self, path: PathId, uses: Uses) -> bool {
        let found = self.paths.iter_mut().find(|p| p.id == path);
        found.map(|p| p.config.uses = uses).is_some()
    }

    /// The ports that its addresses are advertised with. Those that are not any more; `None`: there is no such
    /// path.
    pub(super) fn set_signal_ports(
        &mut self,
        path: PathId,
        ports: Vec<SignalPort>,
    ) -> Option<Vec<(IpAddr, u16)>> {
        let config = &mut self.paths.iter_mut().find(|p| p.id == path)?.config;
        let before = core::mem::replace(&mut config.signal_ports, ports);
        let gone = before.into_iter().filter(|p| !config.signal_ports.contains(p));
        let at = |p: SignalPort| {
            config.addresses.iter().filter(move |a| a.is_ipv6() == p.ipv6).map(move |a| (*a, p.port))
        };
        Some(gone.flat_map(at).collect())
    }

    /// The Address IDs that are chosen for addresses, and for those with a port.
    pub(super) fn chosen_ids(&self) -> SmallVec<[Chosen; 8]> {
        let of_path = |p: &Path| {
            let mut chosen: SmallVec<[Chosen; 4]> = SmallVec::new();
            for &address in &p.config.addresses {
                let v6 = address.is_ipv6();
                chosen.extend(p.config.ids.of(v6).map(|id| Chosen { address, port: None, id }));
                for port in p.config.signal_ports.iter().filter(|port| port.ipv6 == v6) {
                    chosen.extend(port.id.map(|id| Chosen { address, port: Some(port.port), id }));
                }
            }
            chosen
        };
        self.paths.iter().flat_map(of_path).filter(|chosen| chosen.id != AddressId(0)).collect()
    }

    /// What each connection may carry on it. False: there is no such path.
    pub(super) fn set_connection_cap(&mut self, path: PathId, bytes: Option<u64>) -> bool {
        let found = self.paths.iter_mut().find(|p| p.id == path);
        found.map(|p| p.config.connection_cap = bytes).is_some()
    }

    /// True: it was blocked and is not any more.
    pub(super) fn set_blocked(&mut self, path: PathId, blocked: bool) -> bool {
        self.change(path, |p| core::mem::replace(&mut p.blocked, blocked)).is_some_and(|was| was && !blocked)
    }

    /// True: it was busy and is not any more.
    pub(super) fn set_busy(&mut self, path: PathId, busy: bool) -> bool {
        self.change(path, |p| core::mem::replace(&mut p.busy, busy)).is_some_and(|was| was && !busy)
    }

    pub(super) fn set_rate(&mut self, path: PathId, rate: Option<u64>) {
        if let Some(p) = self.paths.iter_mut().find(|p| p.id == path) {
            p.rate = rate;
        }
    }

    pub(super) fn rate(&self, path: PathId) -> Option<u64> {
        self.find(path)?.rate
    }

    /// From now on nothing gets through from addresses of these families, and something does from those of
    /// the others. Which were down before; `None`: there is no such path.
    pub(super) fn set_down(&mut self, path: PathId, down: Families) -> Option<Families> {
        self.change(path, |p| core::mem::replace(&mut p.down, down))
    }

    fn change<T>(&mut self, path: PathId, change: impl FnOnce(&mut Path) -> T) -> Option<T> {
        let p = self.paths.iter_mut().find(|p| p.id == path)?;
        let was = p.holds_back();
        let before = change(p);
        self.blocked = self.blocked + usize::from(p.holds_back()) - usize::from(was);
        Some(before)
    }

    /// The families of which nothing gets through, or may; none without such a path.
    pub(super) fn down(&self, path: PathId) -> Families {
        self.find(path).map(Path::down).unwrap_or_default()
    }

    /// The same as [`set_down`](Self::set_down) was told.
    pub(super) fn link_down(&self, path: PathId) -> Families {
        self.find(path).map(|p| p.down).unwrap_or_default()
    }

    /// So much has passed. How far what may pass is used up, if that is new.
    #[inline]
    pub(super) fn carry(&mut self, path: PathId, traffic: Traffic) -> Option<Use> {
        let p = self.paths.iter_mut().find(|p| p.id == path)?;
        p.carried.sent += traffic.sent;
        p.carried.received += traffic.received;
        p.config.allowance?;
        self.spend(path, traffic.sent + traffic.received)
    }

    /// So much less may pass. How far it is used up, if that is new.
    pub(super) fn spend(&mut self, path: PathId, bytes: u64) -> Option<Use> {
        self.change(path, |p| p.meter.add(bytes)).flatten()
    }

    /// So much may pass from now on. How far what might pass before was used up; `None`: there is no such
    /// path.
    pub(super) fn allow(&mut self, path: PathId, bytes: Option<u64>) -> Option<Use> {
        self.change(path, |p| {
            p.config.allowance = bytes;
            core::mem::replace(&mut p.meter, Meter::new(bytes)).state()
        })
    }

    /// How far what may pass is used up.
    #[inline]
    pub(super) fn spent(&self, path: PathId) -> Use {
        self.find(path).map(|p| p.meter.state()).unwrap_or_default()
    }

    /// What has passed. `None`: there is no such path.
    pub(super) fn carried(&self, path: PathId) -> Option<Traffic> {
        self.find(path).map(|p| p.carried)
    }

    /// Nothing can be sent on it now from an address of the family of `like`: its device takes nothing, the
    /// family is down, or the path has gone.
    pub(super) fn is_blocked(&self, path: PathId, like: IpAddr) -> bool {
        self.find(path).is_none_or(|p| p.blocked || p.busy || p.down().has(like.is_ipv6()))
    }

    /// The same, but for a moment only: nobody else is to take over for that.
    pub(super) fn is_busy(&self, path: PathId, like: IpAddr) -> bool {
        self.find(path).is_some_and(|p| p.busy && !p.blocked && !p.down().has(like.is_ipv6()))
    }

    /// Some path holds packets back.
    pub(super) fn any_blocked(&self) -> bool {
        self.blocked > 0
    }

    pub(super) fn get(&self, path: PathId) -> Option<&PathConfig> {
        self.find(path).map(|p| &p.config)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PathId, &PathConfig)> {
        self.paths.iter().map(|p| (p.id, &p.config))
    }

    /// The path that owns `address`, if any.
    pub(super) fn owner_of(&self, address: IpAddr) -> Option<PathId> {
        let has =
            |config: &PathConfig| config.addresses.contains(&address) || config.aliases.contains(&address);
        self.iter().find(|(_, config)| has(config)).map(|(id, _)| id)
    }

    /// The path's first address of the same family as `like`.
    pub(super) fn address_on(&self, path: PathId, like: IpAddr) -> Option<IpAddr> {
        self.get(path)?.addresses.iter().copied().find(|a| a.is_ipv4() == like.is_ipv4())
    }
}

//! The paths of a stack: which there are, in which order, and which take no packets for now.

use super::hash::Seeded;
use crate::device::PathConfig;
use alloc::vec::Vec;
use core::net::IpAddr;
use hashbrown::HashMap;
use umptcp_types::PathId;

#[derive(Debug)]
struct Path {
    config: PathConfig,
    /// The device takes nothing for now.
    blocked: bool,
}

/// The paths, in the order in which they were added.
#[derive(Debug)]
pub(super) struct Paths {
    paths: HashMap<PathId, Path, Seeded>,
    order: Vec<PathId>,
    next: u32,
    /// How many are blocked.
    blocked: usize,
}

impl Paths {
    pub(super) fn new(hasher: Seeded) -> Self {
        Paths { paths: HashMap::with_hasher(hasher), order: Vec::new(), next: 0, blocked: 0 }
    }

    pub(super) fn add(&mut self, config: PathConfig) -> PathId {
        let id = PathId(self.next);
        self.next += 1;
        self.paths.insert(id, Path { config, blocked: false });
        self.order.push(id);
        id
    }

    /// False: there is no such path.
    pub(super) fn remove(&mut self, path: PathId) -> bool {
        let Some(gone) = self.paths.remove(&path) else { return false };
        self.blocked -= usize::from(gone.blocked);
        self.order.retain(|p| *p != path);
        true
    }

    /// True: it was blocked and is not any more.
    pub(super) fn set_blocked(&mut self, path: PathId, blocked: bool) -> bool {
        let Some(p) = self.paths.get_mut(&path) else { return false };
        let was = core::mem::replace(&mut p.blocked, blocked);
        self.blocked = self.blocked + usize::from(blocked) - usize::from(was);
        was && !blocked
    }

    /// Nothing can be sent on it now: its device takes nothing, or it has gone.
    pub(super) fn is_blocked(&self, path: PathId) -> bool {
        self.paths.get(&path).is_none_or(|p| p.blocked)
    }

    /// Some path is blocked.
    pub(super) fn any_blocked(&self) -> bool {
        self.blocked > 0
    }

    pub(super) fn get(&self, path: PathId) -> Option<&PathConfig> {
        self.paths.get(&path).map(|p| &p.config)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PathId, &PathConfig)> {
        self.order.iter().filter_map(|id| Some((*id, self.get(*id)?)))
    }

    /// The path that owns `address`, if any.
    pub(super) fn owner_of(&self, address: IpAddr) -> Option<PathId> {
        self.iter().find(|(_, config)| config.addresses.contains(&address)).map(|(id, _)| id)
    }

    /// The path's first address of the same family as `like`.
    pub(super) fn address_on(&self, path: PathId, like: IpAddr) -> Option<IpAddr> {
        self.get(path)?.addresses.iter().copied().find(|a| a.is_ipv4() == like.is_ipv4())
    }
}

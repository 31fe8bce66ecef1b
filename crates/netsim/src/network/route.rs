//! Where packets go: shortest ways, by number of cables, ties to the cable made first; or as prescribed for a
//! pair of addresses.

use super::Network;
use super::fixed_route::{FixedRoute, Hop};
use super::node::{CableEnd, Node, NodeKind};
use crate::direction::Direction;
use crate::id::CableId;
use crate::packet::Packet;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

impl Network {
    /// Prescribes the way of all packets from `source` to `destination`: along these cables in this order,
    /// wherever the cables' ends are attached. Each cable may occur once. Nothing happens between one cable
    /// and the next.
    ///
    /// So subflows take routes of their own when each has an address of its own. The way back is prescribed
    /// separately.
    ///
    /// # Panics
    ///
    /// When `cables` is empty or no path has the address `destination`.
    pub fn set_route(&mut self, source: IpAddr, destination: IpAddr, cables: &[(CableId, Direction)]) {
        assert!(!cables.is_empty(), "a route needs a cable");
        let has = |(n, node): (usize, &Node)| {
            let p = node.paths.iter().position(|p| !p.removed && p.addresses.contains(&destination))?;
            Some((n, p))
        };
        let owner = self.nodes.iter().enumerate().find_map(has);
        let owner = owner.expect("a route's destination is the address of a path");
        let cables = cables.iter().map(|(c, d)| (c.0, *d)).collect();
        self.fixed.insert((source, destination), FixedRoute { cables, owner });
    }

    /// The first cable of the way prescribed for a packet, if one is.
    pub(super) fn fixed_start(&self, packet: &Packet) -> Option<CableEnd> {
        if self.fixed.is_empty() {
            return None;
        }
        let route = self.fixed.get(&(packet.source()?, packet.destination()?))?;
        route.cables.first().copied()
    }

    /// Where a packet that has come by `end` goes on its prescribed way, if one is.
    pub(super) fn fixed_hop(&self, end: CableEnd, packet: &Packet) -> Option<Hop> {
        if self.fixed.is_empty() {
            return None;
        }
        let route = self.fixed.get(&(packet.source()?, packet.destination()?))?;
        let at = route.cables.iter().position(|c| *c == end)?;
        Some(match route.cables.get(at + 1) {
            Some(next) => Hop::Cable(*next),
            None => Hop::Node(route.owner.0, route.owner.1),
        })
    }

    /// The cable by which `node` (on its path number `path`; 0 for routers) sends to `destination`.
    pub(super) fn route(&mut self, node: usize, path: usize, destination: IpAddr) -> Option<CableEnd> {
        if self.routes.is_none() {
            self.routes = Some(self.compute_routes());
        }
        self.routes.as_ref()?.get(&(node, path, destination)).copied()
    }

    /// The node at the end that `direction` leads to.
    pub(super) fn far_end(&self, cable: usize, direction: Direction) -> usize {
        self.cables[cable].ends[match direction {
            Direction::Forward => 1,
            Direction::Reverse => 0,
        }]
    }

    fn compute_routes(&self) -> HashMap<(usize, usize, IpAddr), CableEnd> {
        let mut routes = HashMap::new();
        for (owner, node) in self.nodes.iter().enumerate() {
            for path in node.paths.iter().filter(|p| !p.removed) {
                let distance = self.distances(owner, &path.cables);
                for address in &path.addresses {
                    self.routes_to(*address, owner, &path.cables, &distance, &mut routes);
                }
            }
        }
        routes
    }

    /// Cables from each router to the interface of `owner` that is attached to `cables`.
    fn distances(&self, owner: usize, cables: &[CableEnd]) -> Vec<Option<usize>> {
        let mut distance = vec![None; self.nodes.len()];
        let mut queue = VecDeque::new();
        for (cable, direction) in cables {
            let far = self.far_end(*cable, *direction);
            if far != owner && matches!(self.nodes[far].kind, NodeKind::Router) && distance[far].is_none() {
                distance[far] = Some(1);
                queue.push_back(far);
            }
        }
        while let Some(at) = queue.pop_front() {
            for (cable, direction) in &self.nodes[at].cables {
                let far = self.far_end(*cable, *direction);
                // Hosts do not forward.
                if matches!(self.nodes[far].kind, NodeKind::Router) && distance[far].is_none() {
                    distance[far] = distance[at].map(|d: usize| d + 1);
                    queue.push_back(far);
                }
            }
        }
        distance
    }

    fn routes_to(
        &self,
        address: IpAddr,
        owner: usize,
        attached: &[CableEnd],
        distance: &[Option<usize>],
        routes: &mut HashMap<(usize, usize, IpAddr), CableEnd>,
    ) {
        let cost = |(cable, direction): &CableEnd| {
            if attached.contains(&(*cable, direction.opposite())) {
                Some(0)
            } else {
                distance[self.far_end(*cable, *direction)]
            }
        };
        let best = |cables: &[CableEnd]| {
            cables.iter().filter_map(|end| Some((cost(end)?, *end))).min().map(|(_, end)| end)
        };
        for (n, node) in self.nodes.iter().enumerate().filter(|(n, _)| *n != owner) {
            if matches!(node.kind, NodeKind::Router) {
                if let Some(end) = best(&node.cables) {
                    routes.insert((n, 0, address), end);
                }
                continue;
            }
            for (p, path) in node.paths.iter().enumerate().filter(|(_, p)| !p.removed) {
                if let Some(end) = best(&path.cables) {
                    routes.insert((n, p, address), end);
                }
            }
        }
    }
}

//! Which of a NIC's addresses stands for which of the stack's, in mode `nat`.
//!
//! Without a record of connections, an answer can only leave with the right address if its source says which
//! one that is. So each address of the NIC has one of the stack: the first of a family the path's own
//! address, the others an alias, at which connections arrive and from which none is opened.

use super::netlink::{HostAddress, Route};
use ipnet::IpNet;
use std::net::IpAddr;

/// More routes than this are not looked through for the address to use towards them.
const MOST_SOURCES: usize = 256;

#[derive(Debug)]
struct Slot {
    own: IpAddr,
    nic: Option<IpAddr>,
}

/// Pairs of an address of the stack and one of the NIC.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
}

impl Slots {
    pub(super) fn new(addresses: &[IpAddr], aliases: &[IpAddr]) -> Slots {
        let slots = addresses.iter().chain(aliases).map(|own| Slot { own: *own, nic: None }).collect();
        Slots { slots }
    }

    /// Assigns the NIC's addresses, preferred ones first. The path's own address stands for the first; any
    /// other keeps its alias for as long as it exists, because connections to it do.
    pub(super) fn assign(&mut self, nic: &[IpAddr]) {
        for v6 in [false, true] {
            let mut wanted: Vec<IpAddr> = nic.iter().copied().filter(|a| a.is_ipv6() == v6).collect();
            let mut slots: Vec<&mut Slot> = self.slots.iter_mut().filter(|s| s.own.is_ipv6() == v6).collect();
            let Some((own, aliases)) = slots.split_first_mut() else { continue };
            own.nic = if wanted.is_empty() { None } else { Some(wanted.remove(0)) };
            for slot in aliases.iter_mut() {
                match wanted.iter().position(|w| Some(*w) == slot.nic) {
                    Some(at) => {
                        wanted.remove(at);
                    }
                    None => slot.nic = None,
                }
            }
            let mut free = aliases.iter_mut().filter(|s| s.nic.is_none());
            for address in wanted {
                match free.next() {
                    Some(slot) => slot.nic = Some(address),
                    None => tracing::debug!(%address, "the NIC has more addresses than the stack listens on"),
                }
            }
        }
    }

    /// The stack's address and the NIC's.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> + '_ {
        self.slots.iter().filter_map(|s| Some((s.own, s.nic?)))
    }
}

/// Destinations towards which connections leave with another address than the NIC's first: with the one in
/// whose subnet the next hop is, as the kernel chooses. Longest prefixes first; empty if the first serves
/// all.
pub(super) fn sources(routes: &[Route], addresses: &[HostAddress], nic: &[IpAddr]) -> Vec<(IpNet, IpAddr)> {
    let mut found = Vec::new();
    for v6 in [false, true] {
        let family: Vec<IpAddr> = nic.iter().copied().filter(|a| a.is_ipv6() == v6).collect();
        let [first, _, ..] = family[..] else { continue };
        let mut routes: Vec<&Route> =
            routes.iter().filter(|r| r.is_v6() == v6 && r.device.is_some()).take(MOST_SOURCES).collect();
        routes.sort_by_key(|r| (u8::MAX - r.destination.prefix_len(), r.priority));
        routes.dedup_by_key(|r| r.destination);
        let source = |route: &Route| {
            let hop = route.gateway.unwrap_or(route.destination.addr());
            let near = |a: &&IpAddr| addresses.iter().any(|h| h.address() == **a && h.net.contains(&hop));
            family.iter().find(near).copied().unwrap_or(first)
        };
        let list: Vec<(IpNet, IpAddr)> = routes.iter().map(|r| (r.destination, source(r))).collect();
        if list.iter().any(|(_, source)| *source != first) {
            found.extend(list);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_own_address_stands_for_the_first_and_the_others_keep_their_alias() {
        let mut slots = Slots::new(&[ip("100.64.0.1"), ip("fd00::1")], &[ip("100.64.0.2"), ip("100.64.0.3")]);
        slots.assign(&[ip("10.0.0.1"), ip("10.0.0.2"), ip("10.0.0.3"), ip("2001:db8::1"), ip("2001:db8::2")]);
        let pairs = |s: &Slots| s.pairs().map(|(a, b)| format!("{a}={b}")).collect::<Vec<_>>();
        let all =
            ["100.64.0.1=10.0.0.1", "fd00::1=2001:db8::1", "100.64.0.2=10.0.0.2", "100.64.0.3=10.0.0.3"];
        assert_eq!(pairs(&slots), all);
        slots.assign(&[ip("10.0.0.1"), ip("10.0.0.3"), ip("10.0.0.4")]);
        assert_eq!(pairs(&slots), ["100.64.0.1=10.0.0.1", "100.64.0.2=10.0.0.4", "100.64.0.3=10.0.0.3"]);
        slots.assign(&[ip("10.0.0.3")]);
        assert_eq!(pairs(&slots), ["100.64.0.1=10.0.0.3"]);
    }

    #[test]
    fn the_address_in_the_next_hop_s_subnet_is_used() {
        let route = |destination: &str, gateway: Option<&str>| {
            let destination: IpNet = destination.parse().unwrap();
            Route { gateway: gateway.map(ip), ..Route::to(destination, 2) }
        };
        let routes = [
            route("0.0.0.0/0", Some("10.5.0.1")),
            route("10.0.0.0/24", None),
            route("10.5.0.0/24", None),
            route("192.0.2.0/25", Some("10.0.0.9")),
        ];
        let addresses = ["10.0.0.2/24", "10.5.0.2/24"].map(HostAddress::ordinary);
        let nic = [ip("10.0.0.2"), ip("10.5.0.2")];
        let list: Vec<String> =
            sources(&routes, &addresses, &nic).iter().map(|(net, a)| format!("{net} {a}")).collect();
        let expected =
            ["192.0.2.0/25 10.0.0.2", "10.0.0.0/24 10.0.0.2", "10.5.0.0/24 10.5.0.2", "0.0.0.0/0 10.5.0.2"];
        assert_eq!(list, expected);
        assert_eq!(sources(&routes, &addresses, &nic[..1]), []);
        assert_eq!(sources(&routes[1..2], &addresses, &nic), []);
    }
}

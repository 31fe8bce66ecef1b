//! Finding the network devices that can carry a path.

use super::netlink::{HostAddress, Link, Netlink, Route, TABLE_LOCAL};
use super::nft::TUN_PREFIX;
use crate::described::NicInfo;
use crate::error::DriverError;
use ipnet::IpNet;
use rtnetlink::packet_route::link::InfoKind;
use std::net::IpAddr;

/// The host's devices, addresses and routes at one moment.
pub(super) struct Snapshot {
    pub(super) links: Vec<Link>,
    pub(super) addresses: Vec<HostAddress>,
    /// Of both families, with their tables.
    pub(super) routes: Vec<(u32, Route)>,
}

impl Snapshot {
    pub(super) async fn take(netlink: &Netlink) -> Result<Snapshot, DriverError> {
        let error = |what: &'static str| move |e| DriverError::netlink(what, e);
        let mut routes = netlink.routes(false).await.map_err(error("list routes"))?;
        routes.extend(netlink.routes(true).await.map_err(error("list IPv6 routes"))?);
        Ok(Snapshot {
            links: netlink.links().await.map_err(error("list network devices"))?,
            addresses: netlink.addresses().await.map_err(error("list addresses"))?,
            routes,
        })
    }

    /// A device's addresses that packets can be translated to, preferred ones first.
    pub(super) fn translatable(&self, index: u32) -> Vec<IpAddr> {
        translatable(&self.addresses, index)
    }

    /// A device's routes, from all tables.
    pub(super) fn routes_of(&self, index: u32) -> Vec<Route> {
        self.routes.iter().filter(|(_, r)| r.device == Some(index)).map(|(_, r)| r.clone()).collect()
    }

    /// Destinations of a device's routes.
    pub(super) fn destinations(&self, index: u32) -> Vec<IpNet> {
        destinations(self.routes.iter().filter(|(_, r)| r.device == Some(index)))
    }
}

/// Destinations of routes, without link-local ones, which the stack cannot talk to.
pub(super) fn destinations<'a>(routes: impl Iterator<Item = &'a (u32, Route)>) -> Vec<IpNet> {
    let link_local = |r: &Route| match r.destination.addr() {
        IpAddr::V6(a) => a.is_unicast_link_local() || a.is_multicast(),
        IpAddr::V4(_) => false,
    };
    routes
        .filter(|(table, r)| *table != TABLE_LOCAL && r.device.is_some() && !link_local(r))
        .map(|(_, r)| r.destination)
        .collect()
}

/// See [`Snapshot::translatable`].
pub(super) fn translatable(addresses: &[HostAddress], index: u32) -> Vec<IpAddr> {
    let mut found: Vec<&HostAddress> =
        addresses.iter().filter(|a| a.index == index && a.universal && !a.tentative && !a.failed).collect();
    found.sort_by_key(|a| (a.deprecated, a.secondary));
    found.iter().map(|a| a.address()).collect()
}

/// Why a device is used only if named; `None` if there is no reason.
fn passed_over(link: &Link) -> Option<&'static str> {
    if link.loopback {
        return Some("loopback");
    }
    if link.name.starts_with(TUN_PREFIX) {
        return Some("the TUN device of a path");
    }
    let virtual_nic = match &link.kind {
        // Hardware, or an equivalent.
        None
        | Some(
            InfoKind::Veth
            | InfoKind::Vlan
            | InfoKind::Bond
            | InfoKind::Team
            | InfoKind::MacVlan
            | InfoKind::MacVtap
            | InfoKind::IpVlan
            | InfoKind::IpVtap
            | InfoKind::VirtWifi
            | InfoKind::Ipoib
            | InfoKind::Wwan
            | InfoKind::RmNet
            | InfoKind::Dsa
            | InfoKind::Netkit
            | InfoKind::Netdevsim,
        ) => true,
        Some(_) => false,
    };
    (!virtual_nic).then_some("a bridge, tunnel or other virtual device, used only when named")
}

/// Why a device cannot be used, apart from routes; `None` if it can.
fn lacking(link: &Link, addresses: &[IpAddr]) -> Option<&'static str> {
    match passed_over(link) {
        Some(reason) => Some(reason),
        None if !link.up => Some("down"),
        None if !link.carrier => Some("no carrier"),
        None if addresses.is_empty() => Some("no address"),
        None => None,
    }
}

/// A device that cannot carry a path, or does so only if named.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct UnusedNic {
    /// Its name.
    pub name: String,
    /// What it lacks, or is.
    pub reason: &'static str,
}

impl UnusedNic {
    /// It has everything but a route, which its user may not know to be missing.
    pub(super) fn lacks_only_a_route(&self) -> bool {
        self.reason == NO_ROUTE
    }
}

const NO_ROUTE: &str = "no route";

/// The devices that can carry a path, and why the others cannot.
pub(super) fn usable(snapshot: &Snapshot) -> (Vec<NicInfo>, Vec<UnusedNic>) {
    let (mut found, mut others) = (Vec::new(), Vec::new());
    for link in &snapshot.links {
        let addresses = snapshot.translatable(link.index);
        let destinations = snapshot.destinations(link.index);
        match lacking(link, &addresses).or_else(|| destinations.is_empty().then_some(NO_ROUTE)) {
            Some(reason) => others.push(UnusedNic { name: link.name.clone(), reason }),
            None => found.push(info(link, addresses, destinations)),
        }
    }
    (found, others)
}

/// What is known of a device, be it enough for a path or not.
pub(super) fn info(link: &Link, addresses: Vec<IpAddr>, destinations: Vec<IpNet>) -> NicInfo {
    NicInfo { name: link.name.clone(), index: link.index, mtu: link.mtu, addresses, destinations }
}

/// One device, if it can carry a path. Fetches only its own routes, because tables can be long.
pub(super) async fn usable_now(
    netlink: &Netlink,
    link: &Link,
    addresses: &[HostAddress],
) -> Result<Option<NicInfo>, DriverError> {
    let addresses = translatable(addresses, link.index);
    if lacking(link, &addresses).is_some() {
        return Ok(None);
    }
    let mut routes = Vec::new();
    for v6 in [false, true] {
        let found = netlink.routes_by(v6, link.index).await;
        routes.extend(found.map_err(|e| DriverError::netlink("list routes", e))?);
    }
    let destinations = destinations(routes.iter());
    Ok((!destinations.is_empty()).then(|| info(link, addresses, destinations)))
}

/// Checks that a device named by the user can carry a path.
pub(super) fn named<'a>(snapshot: &'a Snapshot, device: &str) -> Result<&'a Link, DriverError> {
    named_among(&snapshot.links, device)
}

/// The same, of these devices.
pub(super) fn named_among<'a>(links: &'a [Link], device: &str) -> Result<&'a Link, DriverError> {
    let Some(link) = links.iter().find(|l| l.name == device) else {
        let known = links.iter().map(|l| l.name.clone()).collect();
        return Err(DriverError::UnknownDevice { device: device.to_owned(), known });
    };
    let unsuitable =
        |reason: &str| DriverError::UnsuitableDevice { device: device.to_owned(), reason: reason.into() };
    if link.loopback {
        return Err(unsuitable("it is the loopback device"));
    }
    if link.name.starts_with(TUN_PREFIX) {
        return Err(unsuitable("it is the TUN device of a path"));
    }
    let down = |reason: String| Err(DriverError::DeviceDown { device: device.to_owned(), reason });
    if !link.up {
        return down(format!("bring it up with `ip link set {device} up`"));
    }
    if !link.carrier {
        return down("it has no carrier (cable, access point or peer)".into());
    }
    Ok(link)
}

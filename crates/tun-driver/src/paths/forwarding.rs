//! Settings that allow forwarding between a TUN device and its NIC, and nothing else.

use super::host::{ALL_FORWARDING_V6, Changes};
use super::netlink::{HostAddress, Link};
use super::record::{HostChange, prior_value};
use super::sysctl;
use crate::error::DriverError;
use ipnet::{IpNet, Ipv4Net};
use std::net::IpAddr;

/// Per family: whether the host forwarded before, and how forwarding is enabled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Forwarding {
    /// The host did not forward IPv4 packets received on the NIC.
    pub(super) closed_v4: bool,
    /// The same for IPv6.
    pub(super) closed_v6: bool,
    /// Enable IPv6 forwarding on the TUN device and the NIC only.
    pub(super) force_v6: bool,
    /// Enable IPv6 forwarding on all interfaces.
    pub(super) all_v6: bool,
}

/// Sets a setting that is not set right yet: /proc/sys may be read-only.
fn write(name: &str, value: &str) -> Result<(), DriverError> {
    sysctl::ensure(name, value).map_err(|source| DriverError::Sysctl {
        name: name.to_owned(),
        value: value.to_owned(),
        source,
    })
}

/// Settings of a TUN device that is still down. They disappear with it.
pub(super) fn prepare_tun(tun: &str, v6: bool) -> Result<(), DriverError> {
    write(&format!("net/ipv4/conf/{tun}/forwarding"), "1")?;
    let setting = |name: &str| format!("net/ipv6/conf/{tun}/{name}");
    if !v6 {
        // Keeps neighbour discovery away from the stack, which would have to ignore it.
        let _ = sysctl::ensure(&setting("disable_ipv6"), "1");
        return Ok(());
    }
    write(&setting("disable_ipv6"), "0")?;
    // No link-local address, no router solicitations. The stack ignores both, so it does without if it must.
    for (name, value) in [("addr_gen_mode", "1"), ("accept_ra", "0")] {
        match sysctl::ensure(&setting(name), value) {
            Err(error) if error.raw_os_error() == Some(libc::EROFS) => {
                tracing::debug!(%error, tun, name, "left a setting of the TUN device as it is");
            }
            other => other.map_err(|source| DriverError::Sysctl {
                name: setting(name),
                value: value.into(),
                source,
            })?,
        }
    }
    Ok(())
}

/// The value of a setting before any instance changed it; -1 if the kernel has no such setting.
fn original(changes: &Changes<'_>, name: &str) -> i64 {
    let shared = prior_value(changes.record.entries().iter().chain(changes.others.iter().flatten()), name);
    shared.and_then(|v| v.parse().ok()).or_else(|| sysctl::number(name)).unwrap_or(-1)
}

fn force(device: &str) -> String {
    format!("net/ipv6/conf/{device}/force_forwarding")
}

/// Finds out what is forwarded already, and hence what must be dropped once forwarding is enabled.
pub(super) fn plan(
    changes: &Changes<'_>,
    tun: &str,
    nic: &Link,
    (v4, v6): (bool, bool),
    never_force: bool,
) -> Forwarding {
    let closed_v4 = v4 && original(changes, &format!("net/ipv4/conf/{}/forwarding", nic.name)) == 0;
    let mut plan = Forwarding { closed_v4, ..Forwarding::default() };
    if v6 {
        // An instance of ours may have enabled forwarding on all interfaces.
        let ours = changes
            .record
            .entries()
            .iter()
            .chain(changes.others.iter().flatten())
            .any(|e| matches!(e.change, HostChange::Ipv6Forwarding { .. }));
        let all = !ours && sysctl::number(ALL_FORWARDING_V6) == Some(1);
        if !never_force && sysctl::number(&force(tun)).is_some() {
            plan.closed_v6 = !all && original(changes, &force(&nic.name)) == 0;
            // A host that forwards on all interfaces does without, if it must.
            plan.force_v6 = !(all && sysctl::read_only(&force(tun)));
        } else {
            plan.all_v6 = !all;
        }
    }
    plan
}

/// Enables forwarding between `tun` and `nic`.
pub(super) fn enable(
    changes: &mut Changes<'_>,
    tun: &str,
    nic: &Link,
    (v4, _): (bool, bool),
    links: &[Link],
    plan: &Forwarding,
) -> Result<(), DriverError> {
    if v4 {
        changes.sysctl(&format!("net/ipv4/conf/{}/forwarding", nic.name), "1")?;
    }
    if plan.force_v6 {
        // Since Linux 6.17, single interfaces can forward.
        write(&force(tun), "1")?;
        changes.sysctl(&force(&nic.name), "1")?;
    }
    if plan.all_v6 {
        // Before that, an interface's `forwarding` makes it a router for its neighbours, but the host
        // forwards only if all interfaces do.
        let names: Vec<String> =
            links.iter().filter(|l| !l.loopback && l.name != tun).map(|l| l.name.clone()).collect();
        changes.forward_all_v6(&names)?;
    }
    Ok(())
}

/// Other devices with an IPv4 address in one of the NIC's subnets.
pub(super) fn neighbours_in_subnet<'a>(
    nic: &Link,
    links: &'a [Link],
    addresses: &[HostAddress],
) -> Vec<&'a Link> {
    let subnets = |index: u32| {
        addresses.iter().filter(move |a| a.index == index).filter_map(|a| match a.net {
            IpNet::V4(net) if net.prefix_len() < 32 => Some(net),
            _ => None,
        })
    };
    let overlap = |a: Ipv4Net, b: Ipv4Net| a.contains(&b.network()) || b.contains(&a.network());
    links
        .iter()
        .filter(|link| link.index != nic.index && !link.loopback)
        .filter(|link| subnets(link.index).any(|a| subnets(nic.index).any(|own| overlap(a, own))))
        .collect()
}

fn effective(device: &str, name: &str) -> i64 {
    let of = |d: &str| sysctl::number(&format!("net/ipv4/conf/{d}/{name}")).unwrap_or(0);
    of("all").max(of(device))
}

/// For two NICs in one subnet: each must answer ARP only for its own address, send ARP requests with its own
/// address, and accept packets from hosts that the main table reaches via the other NIC.
pub(super) fn separate(changes: &mut Changes<'_>, nic: &Link, others: &[&Link]) -> Result<(), DriverError> {
    if others.is_empty() {
        return Ok(());
    }
    for device in others.iter().copied().chain([nic]) {
        let setting = |name: &str| format!("net/ipv4/conf/{}/{name}", device.name);
        // By default a host answers ARP requests for any of its addresses on any interface, so the server
        // would use whichever NIC answered last.
        if effective(&device.name, "arp_ignore") == 0 || owned(changes, &setting("arp_ignore")) {
            changes.sysctl(&setting("arp_ignore"), "1")?;
        }
        if effective(&device.name, "arp_announce") < 2 || owned(changes, &setting("arp_announce")) {
            changes.sysctl(&setting("arp_announce"), "2")?;
        }
        // Strict filtering looks up the reverse path for the host's own addresses in the main table, which
        // has one NIC per subnet; it would even drop ARP requests for this NIC's address. Packets for the
        // stack pass strict filtering, because their reverse path is looked up from the stack's address.
        if effective(&device.name, "rp_filter") == 1 || owned(changes, &setting("rp_filter")) {
            changes.sysctl(&setting("rp_filter"), "2")?;
        }
    }
    Ok(())
}

/// Whether one of our instances has changed a setting, in which case we depend on it as well.
fn owned(changes: &Changes<'_>, name: &str) -> bool {
    prior_value(changes.record.entries().iter().chain(changes.others.iter().flatten()), name).is_some()
}

/// Makes the NIC answer for an address in its own subnet (proxy ARP, proxy neighbour discovery).
pub(super) async fn answer_for(
    changes: &mut Changes<'_>,
    nic: &Link,
    address: IpAddr,
) -> Result<(), DriverError> {
    let (ip, setting) = match address {
        IpAddr::V4(_) => ("ipv4", None),
        IpAddr::V6(_) => ("ipv6", Some(format!("net/ipv6/conf/{}", nic.name))),
    };
    if let Some(conf) = setting {
        // Only routers answer for others (RFC 4861 §7.2.8), and for the kernel only a forwarding interface is
        // a router. Such an interface ignores router advertisements by default, and drops what it learnt from
        // them immediately.
        if sysctl::number(&format!("{conf}/accept_ra")) == Some(1)
            || owned(changes, &format!("{conf}/accept_ra"))
        {
            changes.sysctl(&format!("{conf}/accept_ra"), "2")?;
        }
        changes.sysctl(&format!("{conf}/forwarding"), "1")?;
        changes.sysctl(&format!("{conf}/proxy_ndp"), "1")?;
    }
    // The delay of up to 0.8 s is meant for several hosts that answer for the same address.
    changes.sysctl(&format!("net/{ip}/neigh/{}/proxy_delay", nic.name), "0")?;
    changes.proxy(nic, address).await
}

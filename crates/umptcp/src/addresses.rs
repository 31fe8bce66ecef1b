//! The stack's addresses and those that its peers see.

use crate::error::NoWay;
use std::net::{IpAddr, UdpSocket};
use umptcp_stack_core::device::{PathConfig, PathKind};

/// The addresses under which peers know a path's: those of the NIC if the path is translated.
pub(crate) fn public(path: &PathConfig) -> Vec<IpAddr> {
    if path.kind == PathKind::Nat {
        return path.advertise.clone();
    }
    let told = |v6: bool| path.advertise.iter().find(|a| a.is_ipv6() == v6);
    let own = path.addresses.iter().filter(|a| told(a.is_ipv6()).is_none());
    path.advertise.iter().chain(own).copied().collect()
}

/// The address under which the peer knows `own`, if `path` has it.
pub(crate) fn public_of(path: &PathConfig, own: IpAddr) -> Option<IpAddr> {
    let known = path.advertise.iter().find(|a| a.is_ipv6() == own.is_ipv6()).copied();
    known.or((path.kind != PathKind::Nat).then_some(own))
}

/// The stack's own address that packets to `address` reach, by one of `paths`.
pub(crate) fn own<'a>(
    paths: impl Iterator<Item = &'a PathConfig> + Clone,
    address: IpAddr,
) -> Option<IpAddr> {
    if paths.clone().any(|path| path.addresses.contains(&address)) {
        return Some(address);
    }
    let mut translated = paths.filter(|path| path.kind == PathKind::Nat);
    let path = translated.find(|path| path.advertise.contains(&address))?;
    path.addresses.iter().find(|a| a.is_ipv6() == address.is_ipv6()).copied()
}

/// The device of this host that has `address`.
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
pub(crate) fn nic_with(address: IpAddr) -> Option<String> {
    let mut all = nix::ifaddrs::getifaddrs().ok()?;
    let with = all.find(|interface| {
        let storage = interface.address.as_ref();
        let v4 = storage.and_then(|s| s.as_sockaddr_in()).map(|a| IpAddr::V4(a.ip()));
        let v6 = storage.and_then(|s| s.as_sockaddr_in6()).map(|a| IpAddr::V6(a.ip()));
        v4.or(v6) == Some(address)
    });
    with.map(|interface| interface.interface_name)
}

/// Why no path leads to `remote`, if that is known beforehand. A path that has an address of the same kind
/// may lead there all the same: devices of the program's own are not this host's NICs.
pub(crate) fn no_way<'a>(
    mut paths: impl Iterator<Item = &'a PathConfig> + Clone,
    remote: IpAddr,
) -> Option<NoWay> {
    let own = paths.clone().any(|path| path.addresses.contains(&remote) || public(path).contains(&remote));
    if own {
        return Some(NoWay::OwnAddress);
    }
    let (is, reason): (fn(&IpAddr) -> bool, _) = match remote {
        _ if remote.is_loopback() => (IpAddr::is_loopback, NoWay::Loopback),
        IpAddr::V6(a) if a.is_unicast_link_local() => (is_link_local, NoWay::LinkLocal),
        _ => return None,
    };
    (!paths.any(|path| path.addresses.iter().any(is))).then_some(reason)
}

fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(a) if a.is_unicast_link_local())
}

/// Whether a device of this host has `address`. Quick where none has, which is the rule.
pub(crate) fn is_this_host(address: IpAddr) -> bool {
    let bound = UdpSocket::bind((address, 0)).is_ok();
    // A host may allow to bind other addresses, too.
    #[cfg(all(target_os = "linux", not(umptcp_portable)))]
    let bound = bound && nic_with(address).is_some();
    bound
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn path(name: &str, own: &[&str], advertise: &[&str], kind: PathKind) -> PathConfig {
        let mut config = PathConfig::with_addresses(name, own.iter().map(|a| ip(a)).collect());
        config.advertise = advertise.iter().map(|a| ip(a)).collect();
        config.kind = kind;
        config
    }

    #[test]
    fn both_ways_through_translation() {
        let nat = path("eth0", &["100.109.112.1", "fd00::1"], &["192.0.2.1"], PathKind::Nat);
        let routed = path("eth1", &["198.51.100.7", "2001:db8::7"], &[], PathKind::Routed);
        let behind = path("eth2", &["10.0.0.2", "2001:db8::8"], &["203.0.113.5"], PathKind::Routed);
        assert_eq!(public(&nat), [ip("192.0.2.1")]);
        assert_eq!(public(&routed), [ip("198.51.100.7"), ip("2001:db8::7")]);
        assert_eq!(public(&behind), [ip("203.0.113.5"), ip("2001:db8::8")]);
        assert_eq!(public_of(&nat, ip("100.109.112.1")), Some(ip("192.0.2.1")));
        assert_eq!(public_of(&nat, ip("fd00::1")), None, "the NIC has no such address");
        assert_eq!(public_of(&behind, ip("10.0.0.2")), Some(ip("203.0.113.5")));
        let paths = [nat, routed, behind];
        for (address, found) in [
            ("192.0.2.1", Some("100.109.112.1")),
            ("192.0.2.2", None),
            ("198.51.100.7", Some("198.51.100.7")),
            ("203.0.113.5", None),
        ] {
            assert_eq!(own(paths.iter(), ip(address)), found.map(ip), "{address}");
        }
    }

    #[cfg(all(target_os = "linux", not(umptcp_portable)))]
    #[test]
    fn devices_of_this_host_are_found_by_address() {
        // A namespace of a test may have its loopback device down, without an address.
        assert!(nic_with(ip("127.0.0.1")).is_none_or(|name| name == "lo"));
        assert_eq!(nic_with(ip("192.0.2.77")), None);
    }

    #[test]
    fn where_no_path_leads() {
        let nat = path("eth0", &["100.109.112.1"], &["192.0.2.1"], PathKind::Nat);
        let odd = path("wire", &["fe80::1", "127.0.0.5"], &[], PathKind::Routed);
        for (address, reason) in [
            ("127.0.0.1", Some(NoWay::Loopback)),
            ("::1", Some(NoWay::Loopback)),
            ("fe80::2", Some(NoWay::LinkLocal)),
            ("192.0.2.1", Some(NoWay::OwnAddress)),
            ("100.109.112.1", Some(NoWay::OwnAddress)),
            ("192.0.2.2", None),
            ("2001:db8::1", None),
        ] {
            assert_eq!(no_way([&nat].into_iter(), ip(address)), reason, "{address}");
        }
        for address in ["127.0.0.1", "fe80::2"] {
            assert_eq!(no_way([&nat, &odd].into_iter(), ip(address)), None, "{address}");
        }
        #[cfg(all(target_os = "linux", not(umptcp_portable)))]
        assert!(is_this_host(ip("127.0.0.1")) || nic_with(ip("127.0.0.1")).is_none());
        assert!(!is_this_host(ip("192.0.2.77")));
    }
}

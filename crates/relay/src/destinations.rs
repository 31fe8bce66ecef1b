//! Where connections may go: not to what only the relay can reach, unless that is allowed.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use thiserror::Error;

/// Where connections may go.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Destinations {
    /// Allowed, whatever they are.
    pub allow: Vec<IpNet>,
    /// Forbidden, even when they are allowed.
    pub deny: Vec<IpNet>,
    /// Ports that may be dialled; empty: all.
    pub ports: Vec<u16>,
}

/// Why a connection may not go somewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum Forbidden {
    /// It is not of the public internet.
    #[error("not a public address")]
    NotPublic,
    /// It is an address of the relay's host.
    #[error("an address of the relay's own host")]
    Own,
    /// The configuration forbids it.
    #[error("denied by the configuration")]
    Denied,
    /// Its port is not among those that are allowed.
    #[error("a port that is not allowed")]
    Port,
}

impl Destinations {
    /// Whether a connection may go there. `own` says whether the relay's host has an address.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, to: SocketAddr, own: impl Fn(IpAddr) -> bool) -> Result<(), Forbidden> {
        let ip = to.ip().to_canonical();
        let within = |nets: &[IpNet], ip: IpAddr| nets.iter().any(|net| net.contains(&ip));
        if to.port() == 0 || !(self.ports.is_empty() || self.ports.contains(&to.port())) {
            return Err(Forbidden::Port);
        }
        // What a translator (NAT64, 6to4) makes of it counts as well.
        let inner = match ip {
            IpAddr::V6(ip) => embedded(ip).map(IpAddr::V4),
            IpAddr::V4(_) => None,
        };
        if within(&self.deny, ip) || inner.is_some_and(|inner| within(&self.deny, inner)) {
            return Err(Forbidden::Denied);
        }
        if within(&self.allow, ip) {
            return Ok(());
        }
        if !is_public(ip) {
            return Err(Forbidden::NotPublic);
        }
        // What a service of the host takes for local, such a connection would be.
        if own(ip) || inner.is_some_and(&own) {
            return Err(Forbidden::Own);
        }
        Ok(())
    }
}

/// Not public, of the special-purpose addresses of RFC 6890 and its registry.
const NOT_PUBLIC_V4: [Ipv4Net; 13] = [
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    v4([169, 254, 0, 0], 16),
    // Not in the registry: the metadata of rented machines at one large provider (WireServer).
    v4([168, 63, 129, 16], 32),
    v4([172, 16, 0, 0], 12),
    v4([192, 0, 0, 0], 24),
    v4([192, 168, 0, 0], 16),
    // Relays of 6to4, which nobody has any more.
    v4([192, 88, 99, 0], 24),
    v4([198, 18, 0, 0], 15),
    // Multicast.
    v4([224, 0, 0, 0], 4),
    // Reserved, and broadcast.
    v4([240, 0, 0, 0], 4),
];

const NOT_PUBLIC_V6: [Ipv6Net; 8] = [
    // Unspecified, loopback, and IPv4 addresses in IPv6's clothes.
    v6([0, 0], 32),
    // Translation of IPv4 within a site (RFC 8215).
    v6([0x64, 0xff9b], 47),
    v6([0x100, 0], 64),
    // Teredo, and other protocols' (RFC 2928).
    v6([0x2001, 0], 23),
    v6([0xfc00, 0], 7),
    v6([0xfe80, 0], 10),
    // Site-local, once (RFC 3879).
    v6([0xfec0, 0], 10),
    v6([0xff00, 0], 8),
];

const fn v4([a, b, c, d]: [u8; 4], length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6([a, b]: [u16; 2], length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), length)
}

/// Whether an address is of the public internet: neither private nor loopback, link-local, multicast, or
/// otherwise special. An IPv6 address that stands for one of IPv4 is what that is.
pub fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => !NOT_PUBLIC_V4.iter().any(|net| net.contains(&ip)),
        IpAddr::V6(ip) => match embedded(ip) {
            Some(inner) => is_public(IpAddr::V4(inner)),
            None => !NOT_PUBLIC_V6.iter().any(|net| net.contains(&ip)),
        },
    }
}

/// The IPv4 address to which packets for this address of IPv6 go: by NAT64 (RFC 6052), or by 6to4 (RFC 3056).
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = ip.octets();
    let at = |i: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(&octets[i..i + 4]).ok()?));
    match ip.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => at(12),
        [0x2002, ..] => at(2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(text: &str) -> bool {
        is_public(text.parse().unwrap())
    }

    #[test]
    fn what_is_public() {
        for text in [
            "1.1.1.1",
            "192.0.2.1",
            "203.0.113.9",
            "172.15.255.255",
            "172.32.0.0",
            "100.128.0.0",
            "223.255.255.255",
            "2600::1",
            "2001:db8::1",
            "2a00:1450::5",
            "64:ff9b::101:101",
            "2002:101:101::1",
            "::ffff:1.1.1.1",
        ] {
            assert!(public(text), "{text}");
        }
        for text in [
            "0.0.0.0",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "239.1.1.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "fc00::1",
            "fdff::1",
            "ff02::1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::1",
            "2002:c0a8:101::1",
            "2001::1",
            "100::1",
        ] {
            assert!(!public(text), "{text}");
        }
    }

    #[test]
    fn the_configuration_goes_before_that() {
        let nets = |all: &[&str]| all.iter().map(|net| net.parse().unwrap()).collect();
        let all = Destinations {
            allow: nets(&["10.1.0.0/16"]),
            deny: nets(&["10.1.2.0/24", "8.8.8.0/24"]),
            ports: vec![],
        };
        let check =
            |d: &Destinations, to: &str| d.check(to.parse().unwrap(), |ip| ip.to_string() == "9.9.9.9");
        assert_eq!(check(&all, "10.1.1.1:80"), Ok(()));
        assert_eq!(check(&all, "[::ffff:10.1.1.1]:80"), Ok(()));
        assert_eq!(check(&all, "10.1.2.1:80"), Err(Forbidden::Denied));
        assert_eq!(check(&all, "[::ffff:8.8.8.8]:80"), Err(Forbidden::Denied));
        assert_eq!(check(&all, "10.2.1.1:80"), Err(Forbidden::NotPublic));
        assert_eq!(check(&all, "9.9.9.9:80"), Err(Forbidden::Own));
        assert_eq!(check(&all, "1.1.1.1:0"), Err(Forbidden::Port));
        let some = Destinations { ports: vec![443], ..Destinations::default() };
        assert_eq!(check(&some, "1.1.1.1:443"), Ok(()));
        assert_eq!(check(&some, "1.1.1.1:80"), Err(Forbidden::Port));
        let own = Destinations { allow: nets(&["9.9.9.9/32"]), ..Destinations::default() };
        assert_eq!(check(&own, "9.9.9.9:80"), Ok(()));
    }

    #[test]
    fn what_a_translator_makes_of_an_address_is_looked_at() {
        let deny = vec!["198.51.100.0/24".parse().unwrap()];
        let destinations = Destinations { deny, ..Destinations::default() };
        let own = |ip: IpAddr| ip.to_string() == "203.0.113.7";
        let check = |text: &str| destinations.check(text.parse().unwrap(), own);
        for text in ["198.51.100.7:80", "[64:ff9b::c633:6407]:80", "[2002:c633:6407::1]:80"] {
            assert_eq!(check(text), Err(Forbidden::Denied), "{text}");
        }
        for text in ["203.0.113.7:80", "[64:ff9b::cb00:7107]:80", "[::ffff:203.0.113.7]:80"] {
            assert_eq!(check(text), Err(Forbidden::Own), "{text}");
        }
        assert_eq!(check("[64:ff9b::cb00:7108]:80"), Ok(()));
    }
}

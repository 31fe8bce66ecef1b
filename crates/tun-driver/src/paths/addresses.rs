//! Choosing and checking the addresses of the stack.

use super::netlink::{HostAddress, Link, Netlink, Route, TABLE_LOCAL};
use crate::described::unusable_because;
use crate::error::DriverError;
use ipnet::IpNet;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Ranges for private IPv4 addresses: first the shared address space (RFC 6598), which hosts seldom use, then
/// parts of the private ranges (RFC 1918) and of the benchmarking range (RFC 2544).
const CANDIDATES: [Ipv4Addr; 5] = [
    Ipv4Addr::new(100, 109, 112, 0),
    Ipv4Addr::new(10, 255, 112, 0),
    Ipv4Addr::new(172, 31, 112, 0),
    Ipv4Addr::new(192, 168, 255, 0),
    Ipv4Addr::new(198, 18, 112, 0),
];

/// A block of private addresses for a path: one that connections are opened from, and its aliases.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) net: IpNet,
    pub(super) own: IpAddr,
    pub(super) aliases: Vec<IpAddr>,
}

impl Block {
    fn v4(base: u32) -> Block {
        let address = |n| IpAddr::from(Ipv4Addr::from_bits(base + n));
        // The length is valid.
        let net = IpNet::new_assert(address(0), 30);
        Block { net, own: address(1), aliases: vec![address(2), address(3), address(0)] }
    }

    /// More of them: a host often has several addresses, some of them temporary (RFC 8981).
    fn v6(prefix: u128) -> Block {
        let address = |n| IpAddr::from(Ipv6Addr::from_bits(prefix + n));
        let net = IpNet::new_assert(address(0), 125);
        Block { net, own: address(1), aliases: (2..8).map(address).collect() }
    }
}

/// The addresses and networks that the host knows.
pub(super) struct Known<'a> {
    pub(super) links: &'a [Link],
    pub(super) addresses: &'a [HostAddress],
    /// Of both families, with their tables.
    pub(super) routes: &'a [(u32, Route)],
}

impl Known<'_> {
    fn name(&self, index: u32) -> &str {
        self.links.iter().find(|l| l.index == index).map_or("a device that is gone", |l| &l.name)
    }

    /// Whether a network known to the host overlaps `block`. Default routes do not count, nor do the two
    /// halves that VPNs install.
    fn overlapped(&self, block: &IpNet) -> bool {
        let overlaps = |net: &IpNet| net.contains(block) || block.contains(net);
        self.addresses.iter().any(|a| overlaps(&a.net))
            || self.routes.iter().any(|(_, r)| r.destination.prefix_len() > 1 && overlaps(&r.destination))
    }

    /// A free block of private IPv4 addresses.
    fn private_v4(&self) -> Option<Block> {
        let blocks = CANDIDATES.iter().flat_map(|base| (0..64).map(|n| base.to_bits() + 4 * n));
        blocks.map(Block::v4).find(|block| !self.overlapped(&block.net))
    }

    /// A free block of unique local IPv6 addresses, with a random global identifier (RFC 4193 §3.2.2).
    fn private_v6(&self) -> Option<Block> {
        (0..16)
            .map(|_| {
                let random = u128::from(RandomState::new().build_hasher().finish());
                Block::v6(0xfd << 120 | (random & 0xff_ffff_ffff) << 80)
            })
            .find(|block| !self.overlapped(&block.net))
    }

    /// A free block of private addresses for the path over `nic`.
    pub(super) fn private(&self, nic: &Link, v6: bool) -> Result<Block, DriverError> {
        let found = if v6 { self.private_v6() } else { self.private_v4() };
        found.ok_or_else(|| DriverError::NoPrivateAddress { device: nic.name.clone() })
    }

    /// Checks an address that the user has chosen for the stack. `translated`: the network never sees it.
    pub(super) fn check(&self, nic: &Link, address: IpAddr, translated: bool) -> Result<(), DriverError> {
        if let Some(reason) = unusable_because(&address) {
            return Err(DriverError::BadAddress { address, reason: reason.into() });
        }
        if translated && !is_private(&address) {
            let reason = "it is a public address, and its owner could not be reached any more; with mode=nat choose a \
                          private one, or leave address= out";
            return Err(DriverError::BadAddress { address, reason: reason.into() });
        }
        if let Some(own) = self.addresses.iter().find(|a| a.address() == address) {
            let holder = format!(
                "it belongs to this host, on {}; the stack needs an additional one (or use mode=nat without address=)",
                self.name(own.index)
            );
            return Err(DriverError::AddressTaken { address, holder });
        }
        let exact = |(table, r): &&(u32, Route)| {
            *table != TABLE_LOCAL && r.destination == IpNet::from(address) && r.device != Some(nic.index)
        };
        if let Some((_, route)) = self.routes.iter().find(exact) {
            let holder = match route.device {
                Some(device) => format!("this host has a route to it via {}", self.name(device)),
                None => "this host has a route that makes it unreachable".into(),
            };
            return Err(DriverError::AddressTaken { address, holder });
        }
        if let Some(reason) = self.subnets(nic, &address).find_map(|a| edge(&a.net, &address)) {
            return Err(DriverError::BadAddress { address, reason: reason.into() });
        }
        Ok(())
    }

    fn subnets(&self, nic: &Link, address: &IpAddr) -> impl Iterator<Item = &HostAddress> {
        let (index, address) = (nic.index, *address);
        self.addresses.iter().filter(move |a| a.index == index && a.net.contains(&address))
    }

    /// The devices that are up and have a subnet with `address`, where another host may have it.
    pub(super) fn links_of(&self, address: &IpAddr) -> impl Iterator<Item = &Link> {
        let up = self.links.iter().filter(|l| l.up && l.carrier && !l.loopback);
        up.filter(move |l| self.in_subnet(l, address))
    }

    /// Whether `address` is in one of the NIC's subnets, where hosts will resolve it by ARP or neighbour
    /// discovery.
    pub(super) fn in_subnet(&self, nic: &Link, address: &IpAddr) -> bool {
        self.subnets(nic, address).next().is_some()
    }
}

/// Whether nobody owns the address in the internet: for private use (RFC 1918, RFC 6598, RFC 4193),
/// benchmarks (RFC 2544, RFC 5180) or documentation (RFC 5737, RFC 3849).
fn is_private(address: &IpAddr) -> bool {
    const V4: [(Ipv4Addr, u32); 8] = [
        (Ipv4Addr::new(10, 0, 0, 0), 8),
        (Ipv4Addr::new(100, 64, 0, 0), 10),
        (Ipv4Addr::new(172, 16, 0, 0), 12),
        (Ipv4Addr::new(192, 168, 0, 0), 16),
        (Ipv4Addr::new(198, 18, 0, 0), 15),
        (Ipv4Addr::new(192, 0, 2, 0), 24),
        (Ipv4Addr::new(198, 51, 100, 0), 24),
        (Ipv4Addr::new(203, 0, 113, 0), 24),
    ];
    match address {
        IpAddr::V4(a) => V4.iter().any(|(net, bits)| (a.to_bits() ^ net.to_bits()) >> (32 - bits) == 0),
        IpAddr::V6(a) => {
            let s = a.segments();
            a.is_unique_local() || (s[0] == 0x2001 && (s[1] == 0x0db8 || (s[1], s[2]) == (2, 0)))
        }
    }
}

/// How long to wait for another host on the link to claim an address.
const ANSWER: Duration = Duration::from_secs(1);

/// Checks that no host on the NIC's link has an address that we will answer for: like RFC 5227 and RFC 4862
/// §5.4, by probing for it before using it.
pub(super) async fn check_link(netlink: &Netlink, nic: &Link, address: IpAddr) -> Result<(), DriverError> {
    let error = |e| DriverError::netlink(format!("probe for {address} on {}", nic.name), e);
    netlink.solicit(nic.index, address).await.map_err(error)?;
    let step = Duration::from_millis(20);
    let mut holder = None;
    for _ in 0..ANSWER.as_millis() / step.as_millis() {
        tokio::time::sleep(step).await;
        holder = netlink.neighbour(nic.index, address).await.map_err(error)?;
        if holder.is_some() {
            break;
        }
    }
    netlink.forget_neighbour(nic.index, address).await.map_err(error)?;
    let Some(bytes) = holder else { return Ok(()) };
    let bytes: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let holder = format!("another host on the link of {} has it, {}", nic.name, bytes.join(":"));
    Err(DriverError::AddressTaken { address, holder })
}

/// Why an address at the edge of a subnet cannot be used by a host.
fn edge(subnet: &IpNet, address: &IpAddr) -> Option<&'static str> {
    match subnet {
        // In a 31-bit subnet both addresses are hosts (RFC 3021).
        IpNet::V4(subnet) if subnet.prefix_len() < 31 => match address {
            IpAddr::V4(a) if *a == subnet.network() => Some("it is the network's own address"),
            IpAddr::V4(a) if *a == subnet.broadcast() => Some("it is the subnet's broadcast address"),
            _ => None,
        },
        // RFC 4291 §2.6.1.
        IpNet::V6(subnet) if subnet.prefix_len() < 127 && *address == subnet.network() => {
            Some("it is the subnet's router anycast address")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nic() -> Link {
        Link {
            index: 2,
            name: "eth0".into(),
            up: true,
            carrier: true,
            loopback: false,
            kind: None,
            mtu: 1500,
            gso_max_size: 65_536,
            gso_max_segments: 65_535,
        }
    }

    fn route(destination: &str) -> (u32, Route) {
        let destination: IpNet = destination.parse().unwrap();
        (254, Route { destination, ..Route::host(destination.addr(), 3) })
    }

    #[test]
    fn private_addresses_avoid_networks_the_host_knows() {
        let links = [nic()];
        let known = Known { links: &links, addresses: &[], routes: &[route("0.0.0.0/0")] };
        let own = |known: &Known<'_>| known.private(&links[0], false).unwrap().own.to_string();
        assert_eq!(own(&known), "100.109.112.1");
        let routes = [route("100.64.0.0/10"), route("10.255.112.1/32")];
        let known = Known { links: &links, addresses: &[], routes: &routes };
        assert_eq!(own(&known), "10.255.112.5");
        let addresses = [HostAddress::ordinary("100.70.0.1/10"), HostAddress::ordinary("10.1.1.1/8")];
        let known = Known { links: &links, addresses: &addresses, routes: &[] };
        assert_eq!(own(&known), "172.31.112.1");
        let block = known.private(&links[0], true).unwrap();
        let inside = |block: &Block| block.aliases.iter().chain([&block.own]).all(|a| block.net.contains(a));
        assert!(inside(&block) && inside(&known.private(&links[0], false).unwrap()));
        let IpAddr::V6(v6) = block.own else { panic!("not IPv6") };
        assert!(v6.is_unique_local() && v6.segments()[4..] == [0, 0, 0, 1]);
        let all: Vec<_> = CANDIDATES.iter().map(|c| route(&format!("{c}/16"))).collect();
        let known = Known { links: &links, addresses: &[], routes: &all };
        assert!(matches!(known.private(&links[0], false), Err(DriverError::NoPrivateAddress { .. })));
    }

    #[test]
    fn addresses_that_cannot_be_the_stack_s() {
        let links = [nic()];
        let addresses = [HostAddress::ordinary("192.0.2.1/24"), HostAddress::ordinary("2001:db8::1/64")];
        let routes = [route("192.0.2.9/32")];
        let known = Known { links: &links, addresses: &addresses, routes: &routes };
        for (address, text) in [
            ("192.0.2.1", "to this host, on eth0"),
            ("192.0.2.9", "has a route to it"),
            ("192.0.2.0", "network's own"),
            ("192.0.2.255", "broadcast"),
            ("2001:db8::", "anycast"),
            ("127.0.0.1", "loopback"),
        ] {
            for translated in [false, true] {
                let error = known.check(&links[0], address.parse().unwrap(), translated).unwrap_err();
                assert!(error.to_string().contains(text), "{address}: {error}");
            }
        }
        for address in ["192.0.2.2", "198.51.100.0", "2001:db8::2"] {
            known.check(&links[0], address.parse().unwrap(), false).unwrap();
        }
    }

    #[test]
    fn only_addresses_that_nobody_owns_are_hidden_behind_translation() {
        let links = [nic()];
        let known = Known { links: &links, addresses: &[], routes: &[] };
        for address in ["8.8.8.8", "100.128.0.1", "172.32.0.1", "192.0.3.1", "2606:4700::1", "2001:3::1"] {
            let error = known.check(&links[0], address.parse().unwrap(), true).unwrap_err().to_string();
            assert!(error.contains("public address"), "{address}: {error}");
            known.check(&links[0], address.parse().unwrap(), false).unwrap();
        }
        for address in ["10.9.8.7", "100.127.0.1", "172.31.0.1", "198.19.0.1", "203.0.113.7", "fd00::1"] {
            known.check(&links[0], address.parse().unwrap(), true).unwrap();
        }
    }

    #[test]
    fn a_subnet_counts_where_it_is() {
        let links = [nic(), Link { up: false, ..nic() }, Link { index: 3, ..nic() }];
        let addresses = [HostAddress::ordinary("192.0.2.1/24")];
        let known = Known { links: &links[1..], addresses: &addresses, routes: &[] };
        assert_eq!(known.links_of(&"192.0.2.2".parse().unwrap()).count(), 0, "a device that is down");
        let known = Known { links: &links, addresses: &addresses, routes: &[] };
        assert_eq!(known.links_of(&"192.0.2.2".parse().unwrap()).count(), 1);
        assert!(known.in_subnet(&links[0], &"192.0.2.2".parse().unwrap()));
        assert!(!known.in_subnet(&links[0], &"198.51.100.1".parse().unwrap()));
    }
}

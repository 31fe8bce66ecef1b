//! What a NIC is like.

use ipnet::IpNet;
use std::net::IpAddr;

/// A network device that can carry a path.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct NicInfo {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Largest IP packet it carries, in bytes.
    pub mtu: u32,
    /// Its addresses of universal scope, preferred ones first.
    pub addresses: Vec<IpAddr>,
    /// Destinations of its routes.
    pub destinations: Vec<IpNet>,
}

impl NicInfo {
    /// A NIC without a route.
    pub fn new(name: impl Into<String>, index: u32, mtu: u32, addresses: Vec<IpAddr>) -> NicInfo {
        NicInfo { name: name.into(), index, mtu, addresses, destinations: Vec::new() }
    }

    /// Whether it has a route to `destination`, including on-link routes.
    pub fn has_route(&self, destination: IpAddr) -> bool {
        self.destinations.iter().any(|net| net.contains(&destination))
    }

    /// Whether it has a default route.
    pub fn has_default_route(&self) -> bool {
        self.destinations.iter().any(|net| net.prefix_len() == 0)
    }
}

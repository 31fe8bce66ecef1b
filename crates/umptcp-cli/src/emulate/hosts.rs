//! The hosts of a pair: their namespaces, interfaces and addresses.

use super::site::Site;
use crate::namespace::{self, Setting};
use anyhow::Context as _;
use std::net::{IpAddr, Ipv4Addr};
use umptcp_lab::emulation::Pair;
use umptcp_tun_driver::device::{Tun, TunOptions};

/// Pairs that have addresses.
pub(super) const MOST_PAIRS: usize = 64;

/// The addresses on an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Addresses {
    /// The kernel's.
    pub(super) host: Ipv4Addr,
    /// That of a user-space stack, which the network routes there.
    pub(super) stack: Ipv4Addr,
}

impl Addresses {
    /// Of the client of pair `pair`, on its interface for `route`.
    pub(super) fn client(pair: usize, route: usize) -> Addresses {
        let of = |last| Ipv4Addr::new(10, pair as u8, route as u8, last);
        Addresses { host: of(1), stack: of(2) }
    }

    /// Of the server of pair `pair`.
    pub(super) fn server(pair: usize) -> Addresses {
        let of = |last| Ipv4Addr::new(172, 16, pair as u8, last);
        Addresses { host: of(1), stack: of(2) }
    }

    pub(super) fn all(self) -> [IpAddr; 2] {
        [self.host.into(), self.stack.into()]
    }
}

/// Name of the client's interface for a route.
pub(super) fn nic_name(route: usize) -> String {
    format!("nic{route}")
}

/// Name of the server's interface.
pub(super) const SERVER_NIC: &str = "eth0";

/// The far ends of a pair's interfaces: the client's, one per route, and the server's.
pub(super) struct FarEnds {
    pub(super) nics: Vec<Tun>,
    pub(super) server: Tun,
}

/// The two namespaces of a pair.
pub(super) struct Hosts {
    pub(super) client: Site,
    pub(super) server: Site,
}

impl Hosts {
    /// Makes them with their interfaces.
    pub(super) fn new(number: usize, pair: &Pair) -> anyhow::Result<(Hosts, FarEnds)> {
        let hosts = Hosts { client: Site::new()?, server: Site::new()? };
        let mut nics = Vec::new();
        for (route, plan) in pair.routes.iter().enumerate() {
            let address = Addresses::client(number, route).host;
            nics.push(interface(&hosts.client, nic_name(route), address, plan.mtu, route as u32 + 1)?);
        }
        let mtu = pair.routes.iter().map(|r| r.mtu).max().unwrap_or(1500);
        let address = Addresses::server(number).host;
        let server = interface(&hosts.server, SERVER_NIC.to_owned(), address, mtu, 1)?;
        Ok((hosts, FarEnds { nics, server }))
    }

    /// The link of the client's interface for a route is down, or up again with what it had.
    pub(super) fn set_link(&self, route: usize, up: bool) -> anyhow::Result<()> {
        let device = nic_name(route);
        self.client.run(move || {
            let metric = Some(route as u32 + 1);
            let result = match up {
                true => namespace::set_up(&[Setting { device: &device, address: None, metric }]),
                false => namespace::set_down(&device),
            };
            result.with_context(|| format!("cannot change the link of {device}"))
        })
    }
}

/// Makes an interface with its address and a default route; returns its far end.
fn interface(site: &Site, device: String, address: Ipv4Addr, mtu: u16, metric: u32) -> anyhow::Result<Tun> {
    site.run(move || {
        let mut options = TunOptions::named(device.clone());
        options.mtu = mtu;
        let tun = Tun::open(&options).with_context(|| format!("cannot create the interface {device}"))?;
        namespace::set_up(&[Setting { device: &device, address: Some((address, 24)), metric: Some(metric) }])
            .with_context(|| format!("cannot set up {device}"))?;
        Ok(tun)
    })
}

//! Network topologies.
//!
//! [`Routed`]: a client and a server with one or more NICs each; every NIC has its own link to one router.
//!
//! ```text
//!   client                    router                     server
//!   c0 10.1.0.2/24 ───── r-c0 10.1.0.1
//!   c1 10.1.1.2/24 ───── r-c1 10.1.1.1   r-s0 10.2.0.1 ───── s0 10.2.0.2/24
//! ```
//!
//! IPv6 has `fd00:1:<i>::2/64` and `fd00:2:<i>::2/64` in the same places. The router routes 10.11.i.0/24 and
//! `fd00:11:<i>::/64` (10.12 and `fd00:12` for the server) to NIC i, for stacks with their own addresses.
//!
//! [`bridged`]: every NIC of both sides in one subnet, 192.168.140.0/24, without a gateway.

use crate::kernel;
use crate::netns::{Netns, device_bytes, shape, veth};
use crate::traffic;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

/// IPv4 or IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A host's network interface.
#[derive(Clone, Debug)]
pub struct Nic {
    /// Device name on the host.
    pub device: String,
    /// Name of the device at the other end of its link, in the router or bridge.
    pub far_device: String,
    /// The host's IPv4 address on it.
    pub v4: Ipv4Addr,
    /// The host's IPv6 address on it.
    pub v6: Ipv6Addr,
    /// An IPv4 address that the network routes to the host through this NIC, for a stack in `routed` mode.
    pub routed_v4: Ipv4Addr,
    /// The same for IPv6.
    pub routed_v6: Ipv6Addr,
    /// The gateway, IPv4.
    pub gateway_v4: Ipv4Addr,
    /// The gateway, IPv6.
    pub gateway_v6: Ipv6Addr,
}

impl Nic {
    /// The host's address on it.
    pub fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }

    /// The address for a stack in `routed` mode.
    pub fn routed_address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.routed_v4.into(),
            Family::V6 => self.routed_v6.into(),
        }
    }

    /// The host's address on it, with a port.
    pub fn socket_address(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(family), port)
    }
}

/// A host and its NICs.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its namespace.
    pub ns: Netns,
    /// Its NICs, in order.
    pub nics: Vec<Nic>,
}

impl Site {
    /// Makes the kernel's MPTCP use every NIC: limits, a `subflow` endpoint per additional NIC, and
    /// source-based routing as on multihomed hosts.
    pub fn use_kernel_mptcp(&self) {
        kernel::set_limits(&self.ns, 8);
        for (i, nic) in self.nics.iter().enumerate() {
            let (table, device) = (100 + i, &nic.device);
            self.ns.script(&format!(
                "ip rule add from {v4} lookup {table}
                 ip route add default via {g4} dev {device} table {table}
                 ip -6 rule add from {v6} lookup {table}
                 ip -6 route add default via {g6} dev {device} table {table}",
                v4 = nic.v4,
                g4 = nic.gateway_v4,
                v6 = nic.v6,
                g6 = nic.gateway_v6,
            ));
            if i > 0 {
                self.add_endpoints(nic);
            }
        }
    }

    fn add_endpoints(&self, nic: &Nic) {
        let device = &nic.device;
        self.ns.script(&format!(
            "ip mptcp endpoint add {} dev {device} subflow
             ip mptcp endpoint add {} dev {device} subflow",
            nic.v4, nic.v6
        ));
    }
}

/// A client and a server with a router between them; each NIC has its own link to the router.
#[derive(Debug)]
pub struct Routed {
    /// The client.
    pub client: Site,
    /// The server.
    pub server: Site,
    /// The router.
    pub router: Netns,
}

impl Routed {
    /// Creates it with these numbers of NICs.
    pub fn new(client_nics: u8, server_nics: u8) -> Self {
        let router = Netns::new("router");
        router.sysctl("net.ipv4.ip_forward", "1");
        router.sysctl("net.ipv6.conf.all.forwarding", "1");
        let client = site(&router, "client", 1, client_nics);
        let server = site(&router, "server", 2, server_nics);
        Routed { client, server, router }
    }

    /// Limits NIC `nic` of the client to `mbit` Mbit/s in both directions.
    pub fn shape_client(&self, nic: usize, mbit: f64) {
        self.shape_client_upwards(nic, mbit);
        shape(&self.router, &self.client.nics[nic].far_device, mbit);
    }

    /// The same, only for what the client sends.
    pub fn shape_client_upwards(&self, nic: usize, mbit: f64) {
        shape(&self.client.ns, &self.client.nics[nic].device, mbit);
    }

    /// Makes the router drop this share of the packets in each direction, at random. From then on the links
    /// carry single packets, as without segmentation offload, so that packets are dropped and not 64 kB
    /// aggregates.
    pub fn lose_at_random(&self, share: f64) {
        self.carry_single_packets();
        self.lose(&[(share, String::new())]);
    }

    /// The same, with a share per link of the client.
    pub fn lose_at_random_on_links(&self, shares: &[f64]) {
        self.carry_single_packets();
        let rules = shares.iter().zip(&self.client.nics).flat_map(|(&share, nic)| {
            ["iifname", "oifname"].map(|side| (share, format!("{side} {}", nic.far_device)))
        });
        self.lose(&rules.collect::<Vec<_>>());
    }

    /// Limits all devices to single packets.
    fn carry_single_packets(&self) {
        for (ns, devices) in [
            (&self.client.ns, self.client.nics.iter().map(|n| &n.device).collect::<Vec<_>>()),
            (&self.server.ns, self.server.nics.iter().map(|n| &n.device).collect()),
            (&self.router, self.client.nics.iter().chain(&self.server.nics).map(|n| &n.far_device).collect()),
        ] {
            for device in devices {
                // The size limits forwarded segments, the number the host's own.
                ns.sh(&format!("ip link set {device} gso_max_size 1500 gso_max_segs 1"));
            }
        }
    }

    /// Makes the router drop each share of the packets that match its condition.
    fn lose(&self, rules: &[(f64, String)]) {
        let rules = rules.iter().map(|(share, when)| {
            let lost = (share * 1e6).round();
            format!("{when} meta l4proto tcp numgen random mod 1000000 < {lost} counter drop")
        });
        self.router.nft(&format!(
            "table inet loss {{
               chain forward {{
                 type filter hook forward priority 0;
                 {}
               }}
             }}",
            rules.collect::<Vec<_>>().join("\n")
        ));
    }

    /// Packets dropped so far by [`lose_at_random`](Self::lose_at_random) or
    /// [`lose_at_random_on_links`](Self::lose_at_random_on_links).
    ///
    /// # Panics
    /// Without such a rule.
    pub fn lost_at_random(&self) -> u64 {
        let rules = self.router.sh("nft list table inet loss");
        let counts = rules.split("counter packets ").skip(1);
        let counts: Option<Vec<u64>> = counts.map(|rest| rest.split(' ').next()?.parse().ok()).collect();
        let counts = counts.filter(|c| !c.is_empty());
        counts.unwrap_or_else(|| panic!("no counter in {rules}")).iter().sum()
    }

    /// Bytes that have crossed each link of the client, in both directions.
    pub fn client_link_bytes(&self) -> Vec<LinkBytes> {
        self.client
            .nics
            .iter()
            .map(|nic| {
                let bytes = device_bytes(&self.router, &nic.far_device);
                LinkBytes { to_server: bytes.received, to_client: bytes.sent }
            })
            .collect()
    }

    /// Waits up to 30 seconds until the client has received `bytes` over its link `nic`.
    ///
    /// # Panics
    /// On timeout.
    pub fn wait_client_link(&self, nic: usize, bytes: u64) {
        self.wait_links(|links| links[nic].to_client >= bytes);
    }

    /// Waits up to 30 seconds until a total of `bytes` have crossed the client's links towards the server.
    ///
    /// # Panics
    /// On timeout.
    pub fn wait_server_bytes(&self, bytes: u64) {
        self.wait_links(|links| links.iter().map(|link| link.to_server).sum::<u64>() >= bytes);
    }

    fn wait_links(&self, done: impl Fn(&[LinkBytes]) -> bool) {
        traffic::wait(|| self.client_link_bytes(), done, Instant::now() + Duration::from_secs(30));
    }

    /// Makes the router strip the MPTCP option from every SYN of the client's NIC `nic`, as some middleboxes
    /// do.
    pub fn strip_mptcp_from_syn(&self, nic: usize) {
        let far = &self.client.nics[nic].far_device;
        self.router.nft(&format!(
            "table inet strip-{nic} {{
               chain forward {{
                 type filter hook forward priority 0;
                 iifname {far} tcp flags & (syn | ack) == syn reset tcp option mptcp
               }}
             }}"
        ));
    }

    /// Cuts the client's link `nic` silently, or restores it: packets are dropped in both directions, without
    /// a link-down event.
    pub fn silence(&self, nic: usize, silent: bool) {
        let far = &self.client.nics[nic].far_device;
        if silent {
            self.router.nft(&format!(
                "table netdev silence-{nic} {{
                   chain in {{ type filter hook ingress device {far} priority 0; drop; }}
                 }}
                 table inet silence-{nic} {{
                   chain out {{ type filter hook postrouting priority 0; oifname {far} drop; }}
                 }}"
            ));
        } else {
            self.router.nft(&format!("delete table netdev silence-{nic}; delete table inet silence-{nic}"));
        }
    }
}

/// Bytes that have crossed a link, including link headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkBytes {
    /// Towards the server.
    pub to_server: u64,
    /// Towards the client.
    pub to_client: u64,
}

/// What each link has carried in each direction.
pub fn both_ways(links: &[LinkBytes]) -> Vec<u64> {
    links.iter().flat_map(|link| [link.to_server, link.to_client]).collect()
}

/// What each link has carried towards the client.
pub fn to_client(links: &[LinkBytes]) -> Vec<u64> {
    links.iter().map(|link| link.to_client).collect()
}

fn site(router: &Netns, name: &str, number: u8, nics: u8) -> Site {
    let ns = Netns::new(name);
    let nics: Vec<_> = (0..nics)
        .map(|i| {
            let device = format!("{}{i}", &name[..1]);
            let n = u16::from(number);
            let v6 = |net: u16, host: u16| Ipv6Addr::new(0xfd00, net, u16::from(i), 0, 0, 0, 0, host);
            let nic = Nic {
                far_device: format!("r-{device}"),
                v4: Ipv4Addr::new(10, number, i, 2),
                v6: v6(n, 2),
                routed_v4: Ipv4Addr::new(10, 10 + number, i, 2),
                // 0x10 + n, so that it reads fd00:11 and fd00:12, like the IPv4 addresses.
                routed_v6: v6(0x10 + n, 2),
                gateway_v4: Ipv4Addr::new(10, number, i, 1),
                gateway_v6: v6(n, 1),
                device,
            };
            attach(router, &ns, &nic, i);
            nic
        })
        .collect();
    Site { ns, nics }
}

/// Creates the link of `nic`, with addresses and routes at both ends. With `nodad`, addresses are usable
/// immediately.
fn attach(router: &Netns, ns: &Netns, nic: &Nic, index: u8) {
    let (device, far) = (&nic.device, &nic.far_device);
    veth(ns, device, router, far);
    let metric = 100 + u32::from(index);
    ns.script(&format!(
        "ip addr add {v4}/24 dev {device}
         ip addr add {v6}/64 dev {device} nodad
         ip route add default via {g4} dev {device} metric {metric}
         ip -6 route add default via {g6} dev {device} metric {metric}",
        v4 = nic.v4,
        v6 = nic.v6,
        g4 = nic.gateway_v4,
        g6 = nic.gateway_v6,
    ));
    router.script(&format!(
        "ip addr add {g4}/24 dev {far}
         ip addr add {g6}/64 dev {far} nodad
         ip route add {r4}/24 via {v4} dev {far}
         ip -6 route add {r6}/64 via {v6} dev {far}",
        g4 = nic.gateway_v4,
        g6 = nic.gateway_v6,
        r4 = Ipv4Addr::from(u32::from(nic.routed_v4) & 0xffff_ff00),
        r6 = Ipv6Addr::from(u128::from(nic.routed_v6) >> 64 << 64),
        v4 = nic.v4,
        v6 = nic.v6,
    ));
    ns.settle(device);
}

/// A client and a server on one link without a router: 10.1.0.2/24 and 10.1.0.1/24.
#[derive(Debug)]
pub struct Direct {
    /// The client.
    pub client: Site,
    /// The server.
    pub server: Site,
}

impl Direct {
    /// Creates it.
    pub fn new() -> Self {
        let server = Netns::new("server");
        let client = site(&server, "client", 1, 1);
        let there = &client.nics[0];
        let nic = Nic {
            device: there.far_device.clone(),
            far_device: there.device.clone(),
            v4: there.gateway_v4,
            v6: there.gateway_v6,
            routed_v4: Ipv4Addr::new(10, 12, 0, 2),
            routed_v6: Ipv6Addr::new(0xfd00, 0x12, 0, 0, 0, 0, 0, 2),
            gateway_v4: there.v4,
            gateway_v6: there.v6,
        };
        Direct { client, server: Site { ns: server, nics: vec![nic] } }
    }
}

impl Default for Direct {
    fn default() -> Self {
        Self::new()
    }
}

/// A client with two NICs (192.168.140.231 and .232) and a server with one (.110) on one bridge, without
/// gateways.
#[derive(Debug)]
pub struct Bridged {
    /// The client.
    pub client: Site,
    /// The server.
    pub server: Site,
    /// The namespace with the bridge.
    pub switch: Netns,
}

/// Creates the one-subnet network.
pub fn bridged() -> Bridged {
    let switch = Netns::new("switch");
    switch.script("ip link add br0 type bridge\nip link set br0 up");
    let host = |name: &str, last_bytes: &[u8]| {
        let ns = Netns::new(name);
        let nics = last_bytes
            .iter()
            .enumerate()
            .map(|(i, last)| {
                let device = format!("{}{i}", &name[..1]);
                let far = format!("b-{device}");
                let v4 = Ipv4Addr::new(192, 168, 140, *last);
                let v6 = Ipv6Addr::new(0xfd00, 0x140, 0, 0, 0, 0, 0, u16::from(*last));
                veth(&ns, &device, &switch, &far);
                switch.sh(&format!("ip link set {far} master br0"));
                ns.script(&format!(
                    "ip addr add {v4}/24 dev {device}\nip addr add {v6}/64 dev {device} nodad"
                ));
                ns.settle(&device);
                Nic {
                    device,
                    far_device: far,
                    v4,
                    v6,
                    // Free addresses of the subnet, for which the host would answer ARP.
                    routed_v4: Ipv4Addr::new(192, 168, 140, last - 100),
                    routed_v6: Ipv6Addr::new(0xfd00, 0x140, 0, 0, 0, 0, 1, u16::from(*last)),
                    gateway_v4: Ipv4Addr::UNSPECIFIED,
                    gateway_v6: Ipv6Addr::UNSPECIFIED,
                }
            })
            .collect();
        Site { ns, nics }
    };
    Bridged { client: host("client", &[231, 232]), server: host("server", &[110]), switch }
}

impl Bridged {
    /// Makes the kernel's MPTCP use both client NICs, each for packets from its own address.
    pub fn use_kernel_mptcp(&self) {
        let ns = &self.client.ns;
        kernel::set_limits(ns, 8);
        kernel::set_limits(&self.server.ns, 8);
        for (i, nic) in self.client.nics.iter().enumerate() {
            let (table, device) = (100 + i, &nic.device);
            ns.script(&format!(
                "ip rule add from {v4} lookup {table}
                 ip route add 192.168.140.0/24 dev {device} src {v4} table {table}
                 ip -6 rule add from {v6} lookup {table}
                 ip -6 route add fd00:140::/64 dev {device} table {table}",
                v4 = nic.v4,
                v6 = nic.v6,
            ));
            ns.sysctl(&format!("net.ipv4.conf.{device}.arp_ignore"), "1");
            ns.sysctl(&format!("net.ipv4.conf.{device}.arp_announce"), "2");
        }
        self.client.add_endpoints(&self.client.nics[1]);
    }

    /// Limits both client NICs to `mbit` Mbit/s in both directions.
    pub fn shape(&self, mbit: f64) {
        for nic in &self.client.nics {
            shape(&self.client.ns, &nic.device, mbit);
            shape(&self.switch, &nic.far_device, mbit);
        }
    }

    /// Bytes that have crossed each client link.
    pub fn client_link_bytes(&self) -> Vec<LinkBytes> {
        let bytes = |nic: &Nic| device_bytes(&self.switch, &nic.far_device);
        self.client
            .nics
            .iter()
            .map(bytes)
            .map(|b| LinkBytes { to_server: b.received, to_client: b.sent })
            .collect()
    }
}

//! The network of an episode, and what is done to it.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::Duration;
use umptcp_testbed::kernel;
use umptcp_testbed::netns::veth;
use umptcp_testbed::topology::{Family, Nic, Routed, Site};

/// NICs of each host.
pub(super) const NICS: usize = 2;
/// Between a link that is up again and the routes over it, as with a slow DHCP server.
const LATE: Duration = Duration::from_secs(1);

/// The client or the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Client,
    Server,
}

impl Side {
    pub(super) const BOTH: [Side; 2] = [Side::Client, Side::Server];
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Side::Client { "client" } else { "server" })
    }
}

/// What a host talks with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stack {
    Kernel,
    UmptcpNat,
    UmptcpRouted,
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stack::Kernel => "kernel",
            Stack::UmptcpNat => "umptcp (nat)",
            Stack::UmptcpRouted => "umptcp (routed)",
        })
    }
}

/// A kind of disturbance.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A link goes down and comes up; its routes are back at once.
    Link,
    /// The same, but its routes come back a second later.
    LinkLateRoute,
    /// A NIC's addresses go and come back.
    Address,
    /// A NIC's default routes go and come back.
    Route,
    /// The NIC is removed and made anew.
    Device,
    /// The router drops what crosses a link.
    Silence,
    /// The firewall's policy becomes to drop; then the firewall is reloaded with the old one.
    Firewall,
    /// `nft flush ruleset`.
    Flush,
    /// One of the path's routing rules is deleted.
    Rule,
    /// Connection tracking forgets everything.
    Conntrack,
}

impl Kind {
    /// All of them, those of single NICs more often.
    pub(super) const DRAWN: &[Kind] = &[
        Kind::Link,
        Kind::Link,
        Kind::LinkLateRoute,
        Kind::Address,
        Kind::Address,
        Kind::Route,
        Kind::Device,
        Kind::Device,
        Kind::Silence,
        Kind::Silence,
        Kind::Firewall,
        Kind::Flush,
        Kind::Rule,
        Kind::Conntrack,
    ];

    /// It concerns the host, not one NIC.
    pub(super) fn everywhere(self) -> bool {
        matches!(self, Kind::Firewall | Kind::Flush | Kind::Rule | Kind::Conntrack)
    }

    /// It is over at once.
    pub(super) fn momentary(self) -> bool {
        matches!(self, Kind::Flush | Kind::Rule | Kind::Conntrack)
    }

    /// A host can see that it ends.
    pub(super) fn visible(self) -> bool {
        !matches!(self, Kind::Silence | Kind::Conntrack)
    }
}

/// The addresses of a stack in mode `routed` on a NIC, for the first connection of an episode or the second:
/// the survivor of the first keeps its own.
pub(super) fn routed(nic: &Nic, life: u8) -> [IpAddr; 2] {
    let v4 = Ipv4Addr::from(u32::from(nic.routed_v4) + u32::from(life));
    let v6 = Ipv6Addr::from(u128::from(nic.routed_v6) + u128::from(life));
    [v4.into(), v6.into()]
}

/// One disturbance.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Disturbance {
    pub(super) kind: Kind,
    pub(super) side: Side,
    /// The NIC, unless it concerns the host.
    pub(super) nic: usize,
    /// How long it lasts.
    pub(super) length: Duration,
    /// Chooses among what it could hit.
    pub(super) choice: usize,
}

impl fmt::Display for Disturbance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at the {}", self.kind, self.side)?;
        if !self.kind.everywhere() {
            write!(f, "'s NIC {}", self.nic)?;
        }
        if !self.kind.momentary() {
            write!(f, " for {:.1} s", self.length.as_secs_f64())?;
        }
        Ok(())
    }
}

/// Two hosts with two NICs each, and the router between them.
#[derive(Debug)]
pub(super) struct World {
    net: Routed,
    stacks: [Stack; 2],
    pub(super) family: Family,
}

impl World {
    pub(super) fn new(stacks: [Stack; 2], family: Family) -> World {
        let world = World { net: Routed::new(NICS as u8, NICS as u8), stacks, family };
        for side in Side::BOTH {
            world.site(side).ns.nft(&ruleset("accept"));
            if world.stack(side) == Stack::Kernel {
                world.prepare_kernel(side);
            }
        }
        world
    }

    pub(super) fn site(&self, side: Side) -> &Site {
        match side {
            Side::Client => &self.net.client,
            Side::Server => &self.net.server,
        }
    }

    pub(super) fn stack(&self, side: Side) -> Stack {
        self.stacks[side as usize]
    }

    fn nic(&self, side: Side, nic: usize) -> &Nic {
        &self.site(side).nics[nic]
    }

    /// Bytes that have crossed the link of each NIC, client's first; none for one that is not there.
    pub(super) fn link_bytes(&self) -> Vec<Option<u64>> {
        let table = self.net.router.read("/proc/thread-self/net/dev");
        let bytes: HashMap<&str, u64> = table
            .lines()
            .filter_map(|line| {
                let (name, counters) = line.split_once(':')?;
                let mut counters = counters.split_whitespace().map(|c| c.parse::<u64>().unwrap_or(0));
                Some((name.trim(), counters.next()? + counters.nth(7)?))
            })
            .collect();
        Side::BOTH
            .iter()
            .flat_map(|side| &self.site(*side).nics)
            .map(|nic| bytes.get(nic.far_device.as_str()).copied())
            .collect()
    }

    /// Whether it can happen there: the kernel as an endpoint has no rules of a path.
    pub(super) fn can(&self, d: &Disturbance) -> bool {
        d.kind != Kind::Rule || self.stack(d.side) != Stack::Kernel
    }

    /// Why umptcp is known not to recover from it, if it is.
    pub(super) fn limit(&self, d: &Disturbance) -> Option<&'static str> {
        let [client, server] = self.stacks;
        match d.kind {
            // docs/decisions/lost-tables.md: reset by the host before the table is back; a kernel client does
            // not open anew.
            Kind::Flush | Kind::Firewall
                if d.side == Side::Server && server == Stack::UmptcpNat && client == Stack::Kernel =>
            {
                Some("the host resets what arrives while a server's nftables table is missing")
            }
            _ => None,
        }
    }

    /// Has a kernel client join again from a NIC, as somebody would who notices that it carries nothing.
    pub(super) fn rejoin(&self, nic: usize) {
        if self.stack(Side::Client) == Stack::Kernel {
            self.remove_endpoint(Side::Client, nic);
            thread::sleep(Duration::from_millis(300));
            self.add_endpoint(Side::Client, nic);
        }
    }

    pub(super) fn begin(&self, d: &Disturbance) {
        let (ns, nic) = (&self.site(d.side).ns, self.nic(d.side, d.nic));
        let device = &nic.device;
        if self.loses_addresses(d) {
            self.remove_endpoint(d.side, d.nic);
        }
        match d.kind {
            Kind::Link | Kind::LinkLateRoute => drop(ns.sh(&format!("ip link set {device} down"))),
            Kind::Address => ns.script(&format!(
                "ip addr del {}/24 dev {device}
                 ip addr del {}/64 dev {device}",
                nic.v4, nic.v6
            )),
            Kind::Route => ns.script(&format!(
                "ip route del default dev {device}
                 ip -6 route del default dev {device}"
            )),
            Kind::Device => drop(ns.sh(&format!("ip link del {device}"))),
            Kind::Silence => {
                let far = &nic.far_device;
                self.net.router.nft(&format!(
                    "table netdev silence-{far} {{
                       chain in {{ type filter hook ingress device {far} priority 0; drop; }}
                     }}
                     table inet silence-{far} {{
                       chain out {{ type filter hook postrouting priority 0; oifname {far} drop; }}
                     }}"
                ));
            }
            Kind::Firewall => ns.nft(&ruleset("drop")),
            Kind::Flush => ns.nft("flush ruleset"),
            Kind::Rule => self.remove_rule(d),
            Kind::Conntrack => drop(ns.sh("conntrack -F")),
        }
    }

    pub(super) fn end(&self, d: &Disturbance) {
        let (ns, nic) = (&self.site(d.side).ns, self.nic(d.side, d.nic));
        let device = &nic.device;
        match d.kind {
            Kind::Link => drop(ns.sh(&format!("ip link set {device} up"))),
            Kind::LinkLateRoute => {
                ns.sh(&format!("ip link set {device} up"));
                thread::sleep(LATE);
            }
            Kind::Device => veth(ns, device, &self.net.router, &nic.far_device),
            Kind::Silence => {
                let far = &nic.far_device;
                self.net
                    .router
                    .nft(&format!("delete table netdev silence-{far}; delete table inet silence-{far}"));
            }
            // As /etc/nftables.conf of most distributions.
            Kind::Firewall => ns.nft(&format!("flush ruleset\n{}", ruleset("accept"))),
            Kind::Flush => ns.nft(&ruleset("accept")),
            Kind::Address | Kind::Route | Kind::Rule | Kind::Conntrack => {}
        }
        if !d.kind.everywhere() && d.kind != Kind::Silence {
            self.restore(d.side, d.nic);
        }
        if self.loses_addresses(d) {
            self.add_endpoint(d.side, d.nic);
        }
    }

    /// The host has no address of the family on that NIC while it lasts: Linux takes those of IPv6 from a
    /// link that goes down.
    fn loses_addresses(&self, d: &Disturbance) -> bool {
        match d.kind {
            Kind::Address | Kind::Device => true,
            Kind::Link | Kind::LinkLateRoute => self.family == Family::V6,
            _ => false,
        }
    }

    /// Whatever is missing of a NIC's addresses and routes, at both ends of its link.
    fn restore(&self, side: Side, index: usize) {
        let (site, nic) = (self.site(side), self.nic(side, index));
        let (device, far, metric) = (&nic.device, &nic.far_device, 100 + index);
        let Nic { v4, v6, gateway_v4: g4, gateway_v6: g6, .. } = nic;
        self.net.router.script(&format!(
            "ip addr replace {g4}/24 dev {far}
             ip addr replace {g6}/64 dev {far} nodad
             ip route replace {r4}/24 via {v4} dev {far}
             ip -6 route replace {r6}/64 via {v6} dev {far}",
            r4 = Ipv4Addr::from(u32::from(nic.routed_v4) & 0xffff_ff00),
            r6 = Ipv6Addr::from(u128::from(nic.routed_v6) >> 64 << 64),
        ));
        site.ns.script(&format!(
            "ip addr replace {v4}/24 dev {device}
             ip addr replace {v6}/64 dev {device} nodad
             ip route replace default via {g4} dev {device} metric {metric}
             ip -6 route replace default via {g6} dev {device} metric {metric}"
        ));
        if self.stack(side) == Stack::Kernel {
            let table = 100 + index;
            site.ns.script(&format!(
                "ip route replace default via {g4} dev {device} table {table}
                 ip -6 route replace default via {g6} dev {device} table {table}"
            ));
        }
    }

    fn prepare_kernel(&self, side: Side) {
        let site = self.site(side);
        kernel::set_limits(&site.ns, 8);
        for (i, nic) in site.nics.iter().enumerate() {
            site.ns.script(&format!(
                "ip rule add from {} lookup {table}
                 ip -6 rule add from {} lookup {table}",
                nic.v4,
                nic.v6,
                table = 100 + i
            ));
            self.restore(side, i);
            self.add_endpoint(side, i);
        }
    }

    /// Has the kernel use a NIC, as NetworkManager does when it gets its address.
    fn add_endpoint(&self, side: Side, index: usize) {
        let nic = self.nic(side, index);
        let how = match side {
            Side::Client => "subflow fullmesh",
            // The first one is connected to without being announced.
            Side::Server if index > 0 => "signal",
            Side::Server => return,
        };
        if self.stack(side) == Stack::Kernel {
            let address = nic.address(self.family);
            self.site(side).ns.sh(&format!("ip mptcp endpoint add {address} dev {} {how}", nic.device));
        }
    }

    fn remove_endpoint(&self, side: Side, index: usize) {
        if self.stack(side) != Stack::Kernel {
            return;
        }
        let ns = &self.site(side).ns;
        let address = self.nic(side, index).address(self.family).to_string();
        let endpoints = ns.sh("ip mptcp endpoint show");
        for line in endpoints.lines() {
            let mut words = line.split_whitespace();
            if words.next() == Some(&*address)
                && let (Some("id"), Some(id)) = (words.next(), words.next())
            {
                ns.sh(&format!("ip mptcp endpoint delete id {id}"));
            }
        }
    }

    /// Deletes one of those rules that are not there on every host.
    fn remove_rule(&self, d: &Disturbance) {
        let ip = if self.family == Family::V4 { "ip" } else { "ip -6" };
        let ns = &self.site(d.side).ns;
        let rules = ns.sh(&format!("{ip} rule show"));
        let preferences: Vec<&str> = rules
            .lines()
            .filter_map(|rule| rule.split_once(':').map(|(preference, _)| preference.trim()))
            .filter(|preference| !["0", "32766", "32767"].contains(preference))
            .collect();
        if !preferences.is_empty() {
            ns.sh(&format!("{ip} rule del pref {}", preferences[d.choice % preferences.len()]));
        }
    }

    /// What the host looks like, for messages.
    pub(super) fn describe(&self, side: Side) -> String {
        let ip = if self.family == Family::V4 { "ip" } else { "ip -6" };
        let ns = &self.site(side).ns;
        ["addr show", "rule show", "route show table all"]
            .iter()
            .map(|what| format!("$ {ip} {what}\n{}", ns.sh(&format!("{ip} {what}"))))
            .chain(["nft list ruleset", "ss -tnMai"].map(|c| format!("$ {c}\n{}", ns.sh(c))))
            .collect()
    }
}

/// A host's firewall.
fn ruleset(policy: &str) -> String {
    format!(
        "table inet filter {{
           chain input {{
             type filter hook input priority 0; policy {policy};
           }}
           chain forward {{
             type filter hook forward priority 0; policy {policy};
           }}
         }}
         flush table inet filter
         add rule inet filter input meta l4proto ipv6-icmp accept"
    )
}

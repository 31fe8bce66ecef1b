//! The nftables ruleset of a translated path.
//!
//! Each path has its own table, named after its TUN device, which is added and removed as a whole.
//!
//! Addresses are rewritten packet by packet, without connection tracking, wherever the ports say that a
//! packet is the stack's. Connection tracking serves the rest: connections of this host itself, and those
//! from a port that the host has not reserved. It serves everything if the host's firewall drops what is not
//! tracked.

use super::conntrack::Translated;
use super::nft::{PROBE_PORT, TUN_PREFIX};
use super::ports::Ports;
use ipnet::IpNet;
use std::fmt::Write as _;
use std::net::IpAddr;

/// How many of the reserved ports connection tracking translates to, if it serves only the rest.
const TRACKED: u16 = 32;

/// How long a connection that others have translated may be idle: longer than RFC 5382 asks of translators.
const GUEST: &str = "150m";

/// Splits a range of ports into those that keep their number, which the stack uses, and those that
/// connection tracking translates to.
fn split((first, last): Ports) -> (Ports, Ports) {
    let tracked = TRACKED.min((last - first) / 4).max(1);
    ((first, last - tracked), (last - tracked + 1, last))
}

/// Those of the reserved ports from which the stack chooses.
pub(super) fn stack_ports(ranges: &[Ports], stateless: bool) -> Vec<Ports> {
    let mut ranges = ranges.to_vec();
    if let Some(first) = ranges.first_mut().filter(|_| stateless) {
        *first = split(*first).0;
    }
    ranges
}

/// Ranges in a form that a rule can match.
fn any_of(ranges: &[Ports]) -> String {
    match ranges {
        [(first, last)] => format!("{first}-{last}"),
        _ => format!("{{ {} }}", list(ranges.iter().map(|(first, last)| format!("{first}-{last}")))),
    }
}

/// What a path's ruleset depends on.
#[derive(Clone, Debug)]
pub(super) struct Ruleset<'a> {
    pub(super) tun: &'a str,
    pub(super) nic: &'a str,
    /// The stack's own addresses, at most one of each family.
    pub(super) addresses: &'a [IpAddr],
    /// Networks that contain all of the stack's addresses, aliases too.
    pub(super) nets: &'a [IpNet],
    /// Addresses of the stack and of the NIC that stand for each other.
    pub(super) pairs: Vec<(IpAddr, IpAddr)>,
    /// The NIC's addresses.
    pub(super) nic_addresses: &'a [IpAddr],
    /// Destinations with another source than the NIC's first address.
    pub(super) sources: &'a [(IpNet, IpAddr)],
    /// The ports reserved for translated connections, in ranges, at least one.
    pub(super) ports: &'a [Ports],
    /// Ports on which the stack listens.
    pub(super) listen: Vec<u16>,
    /// Families (nfproto) for which the host did not forward packets received on the NIC, and must not start
    /// to.
    pub(super) closed: Vec<&'static str>,
    /// Whether to do without connection tracking where possible.
    pub(super) stateless: bool,
    /// Whether other protocols than TCP are translated, too.
    pub(super) carry: bool,
}

/// A family of addresses for which the path has one.
struct Family {
    v6: bool,
    /// As nft names it.
    ip: &'static str,
    /// 4 or 6, the end of names in the table.
    n: &'static str,
    own: IpAddr,
}

impl Family {
    /// Matches ICMP errors about a TCP segment. Offsets are in bits, from the start of the ICMP message: 8
    /// bytes, then the quoted IP header. Ours has no options.
    fn errors(&self) -> &'static str {
        if self.v6 {
            "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } @th,112,8 6"
        } else {
            "icmp type { destination-unreachable, time-exceeded, parameter-problem } @th,136,8 6"
        }
    }

    /// The source port of the quoted segment.
    fn quoted_port(&self) -> &'static str {
        if self.v6 { "@th,384,16" } else { "@th,224,16" }
    }
}

fn list<T: ToString>(items: impl Iterator<Item = T>) -> String {
    items.map(|i| i.to_string()).collect::<Vec<_>>().join(", ")
}

fn elements(list: &str) -> String {
    if list.is_empty() { String::new() } else { format!(" elements = {{ {list} }};") }
}

impl Ruleset<'_> {
    fn families(&self) -> Vec<Family> {
        let family = |v6: bool| {
            let own = self.addresses.iter().copied().find(|a| a.is_ipv6() == v6)?;
            let (ip, n) = if v6 { ("ip6", "6") } else { ("ip", "4") };
            Some(Family { v6, ip, n, own })
        };
        [false, true].into_iter().filter_map(family).collect()
    }

    /// The sets and maps of addresses and ports, with their types and elements.
    fn sets(&self) -> Vec<(String, &'static str, String)> {
        let mut sets = vec![("set listen".to_owned(), "inet_service", list(self.listen.iter()))];
        for (v6, n) in [(false, "4"), (true, "6")] {
            let (one, two) = if v6 {
                ("ipv6_addr", "ipv6_addr : ipv6_addr")
            } else {
                ("ipv4_addr", "ipv4_addr : ipv4_addr")
            };
            let nic = self.nic_addresses.iter().filter(|a| a.is_ipv6() == v6);
            sets.push((format!("set nic{n}"), one, list(nic)));
            let pairs = || self.pairs.iter().filter(|(own, _)| own.is_ipv6() == v6);
            sets.push((format!("map in{n}"), two, list(pairs().map(|(own, nic)| format!("{nic} : {own}")))));
            sets.push((format!("map out{n}"), two, list(pairs().map(|(own, nic)| format!("{own} : {nic}")))));
        }
        sets
    }

    /// The stack's addresses of a family, in a form that a rule can match.
    fn stack(&self, v6: bool) -> String {
        format!("{{ {} }}", list(self.nets.iter().filter(|net| net.addr().is_ipv6() == v6)))
    }

    /// Ports that the stack chooses from, and that keep their number.
    fn kept(&self) -> String {
        any_of(&stack_ports(self.ports, true))
    }

    /// Ports that connection tracking translates to.
    fn tracked(&self) -> Vec<Ports> {
        match self.ports.first() {
            Some(first) if self.stateless => vec![split(*first).1],
            _ => self.ports.to_vec(),
        }
    }

    /// The script that installs the table, replacing any table of the same name.
    pub(super) fn script(&self) -> String {
        let tun = self.tun;
        let mut s = format!("add table inet {tun}\ndelete table inet {tun}\ntable inet {tun} {{\n");
        // Writing to a String cannot fail.
        for (name, kind, items) in self.sets() {
            let _ = writeln!(s, "{name} {{ type {kind};{} }}", elements(&items));
        }
        if self.stateless {
            self.rewriting(&mut s);
        }
        self.tracking(&mut s);
        self.forwarding(&mut s);
        s.push_str("}\n");
        s
    }

    /// Rewrites addresses without connection tracking.
    fn rewriting(&self, s: &mut String) {
        let (tun, kept) = (self.tun, self.kept());
        let families = self.families();
        for f in &families {
            let Family { v6, ip, n, own } = f;
            let kind = if *v6 { "ipv6_addr" } else { "ipv4_addr" };
            // Sockets of the host keep the ports that they have. `transparent` is asked for only because,
            // unlike `wildcard`, it also finds a connection whose handshake is not over. So do connections of
            // hosts behind this one that somebody else translates: masquerading keeps a port where it can,
            // whoever has reserved it.
            let _ = write!(
                s,
                "set guests{n} {{ type inet_service . {kind} . inet_service; size 65535; flags dynamic,timeout; \
                 timeout {GUEST}; }}\n\
                 chain answers{n} {{ socket transparent {{ 0, 1 }} return\n\
                 tcp dport . {ip} saddr . tcp sport @guests{n} return\nnotrack {ip} daddr set {own} accept\n}}\n\
                 chain errors{n} {{\n{}}}\nchain source{n} {{\n{}}}\n",
                self.error_rules(f, "\n"),
                self.source_rules(f, "\n"),
            );
        }
        // Before conntrack. `accept` ends this chain only, for a packet that the rules after it are not for:
        // each costs. What the stack sends to this host itself is tracked, for its firewall's sake.
        let _ = write!(
            s,
            "chain rewrite_inward {{ type filter hook prerouting priority raw; policy accept;\n\
             iifname \"{tun}\" tcp sport @listen fib daddr type != local notrack accept\n\
             iifname \"{tun}\" tcp sport {kept} fib daddr type != local notrack accept\n\
             iifname \"{tun}\" tcp sport {PROBE_PORT} notrack accept\n"
        );
        for Family { ip, n, .. } in &families {
            let _ = write!(
                s,
                "{ip} daddr @nic{n} tcp dport @listen notrack {ip} daddr set {ip} daddr map @in{n} accept\n\
                 {ip} daddr @nic{n} tcp dport {kept} jump answers{n}\n"
            );
        }
        self.jump_to_errors(s, &families);
        // Errors of this host itself, for example when the next hop does not answer.
        s.push_str("}\nchain rewrite_local { type route hook output priority raw; policy accept;\n");
        self.jump_to_errors(s, &families);
        // Also towards other instances, whose addresses are private too.
        s.push_str(
            "}\nchain rewrite_outward { type filter hook postrouting priority srcnat; policy accept;\n",
        );
        for f in &families {
            let Family { v6, ip, n, own, .. } = f;
            let stack = self.stack(*v6);
            let _ = write!(
                s,
                "oifname \"{tun}\" accept\n\
                 {ip} saddr {own} tcp sport {kept} jump source{n}\n\
                 {ip} saddr {stack} tcp sport {kept} {ip} saddr set {ip} saddr map @out{n} accept\n\
                 {ip} saddr {stack} tcp sport @listen {ip} saddr set {ip} saddr map @out{n} accept\n"
            );
        }
        s.push_str("}\n");
        self.guests(s);
    }

    /// Notes which connections others have translated to ports that the stack uses, when that is done.
    fn guests(&self, s: &mut String) {
        let (nic, kept) = (self.nic, self.kept());
        s.push_str("chain guests { type filter hook postrouting priority 101; policy accept;\n");
        for Family { ip, n, .. } in self.families() {
            let _ = writeln!(
                s,
                "oifname \"{nic}\" iifname != \"{TUN_PREFIX}*\" {ip} saddr @nic{n} tcp sport {kept} \
                 update @guests{n} {{ tcp sport . {ip} daddr . tcp dport }}"
            );
        }
        s.push_str("}\n");
    }

    fn jump_to_errors(&self, s: &mut String, families: &[Family]) {
        for f in families {
            let _ = writeln!(s, "{} daddr @nic{} {} jump errors{}", f.ip, f.n, f.errors(), f.n);
        }
    }

    /// Directs ICMP errors to the stack's address by the port that they quote.
    fn error_rules(&self, f: &Family, end: &str) -> String {
        let Family { ip, n, own, .. } = f;
        let kept = self.kept();
        let port = f.quoted_port();
        let mut s = String::new();
        if !self.listen.is_empty() {
            let listen = list(self.listen.iter());
            let _ = write!(s, "{port} {{ {listen} }} notrack {ip} daddr set {ip} daddr map @in{n}{end}");
        }
        let _ = write!(s, "{port} {kept} notrack {ip} daddr set {own}{end}");
        s
    }

    /// Chooses the source by the destination, where it is not the NIC's first address.
    fn source_rules(&self, f: &Family, end: &str) -> String {
        let Family { v6, ip, .. } = f;
        let mut s = String::new();
        for (net, source) in self.sources.iter().filter(|(_, source)| source.is_ipv6() == *v6) {
            let _ = if net.prefix_len() == 0 {
                write!(s, "{ip} saddr set {source} accept{end}")
            } else {
                write!(s, "{ip} daddr {net} {ip} saddr set {source} accept{end}")
            };
        }
        s
    }

    /// Connection tracking: for everything, or for what is not rewritten.
    fn tracking(&self, s: &mut String) {
        let Ruleset { tun, nic, .. } = self;
        let tracked = self.tracked();
        let dports = any_of(&tracked);
        let families = self.families();
        // Packets that conntrack considers invalid are not translated. Inbound, they would reach the host's
        // own TCP, which would reset the connection; outbound, they would leave with the private address.
        // Likewise, a segment of a connection that conntrack has forgotten must not be picked up as a new
        // connection of the host.
        let _ = write!(
            s,
            "chain invalid {{ type filter hook prerouting priority mangle; policy accept;\n\
             iifname \"{tun}\" ct state invalid counter drop comment \"outward\"\n\
             iifname \"{nic}\" tcp dport {dports} ct state invalid counter drop comment \"inward\"\n\
             iifname \"{nic}\" tcp dport {dports} tcp flags & (fin|syn|rst|ack) != syn ct state new counter drop comment \"forgotten\"\n"
        );
        for Family { ip, n, .. } in &families {
            let _ = writeln!(
                s,
                "{ip} daddr @nic{n} tcp dport @listen ct state invalid counter drop comment \"inward\""
            );
        }
        s.push_str("}\nchain invalid_local { type filter hook output priority mangle; policy accept;\n");
        for Family { ip, n, .. } in &families {
            let _ = writeln!(s, "{ip} daddr @nic{n} tcp dport @listen ct state invalid counter drop");
        }
        // By whichever NIC they come, as Linux does for its own sockets (weak host model, RFC 1122 §3.3.4.2).
        s.push_str("}\nchain inward { type nat hook prerouting priority dstnat; policy accept;\n");
        for Family { ip, n, .. } in &families {
            let _ = writeln!(s, "{ip} daddr @nic{n} tcp dport @listen dnat {ip} to {ip} daddr map @in{n}");
        }
        // At this hook, dstnat has no symbolic name.
        s.push_str("}\nchain inward_local { type nat hook output priority -100; policy accept;\n");
        for Family { ip, n, .. } in &families {
            let _ = writeln!(s, "{ip} daddr @nic{n} tcp dport @listen dnat {ip} to {ip} daddr map @in{n}");
        }
        s.push_str("}\nchain outward { type nat hook postrouting priority srcnat; policy accept;\n");
        for Family { v6, ip, n, own, .. } in &families {
            // First, a connection to a listener that conntrack has forgotten: it keeps its address and port.
            let _ = writeln!(
                s,
                "{ip} saddr {} oifname \"{nic}\" tcp sport @listen snat {ip} to {ip} saddr map @out{n}",
                self.stack(*v6)
            );
            // A port keeps its number where it can, so each range is translated to itself.
            for (first, last) in tracked.iter().skip(1) {
                let range = format!("{first}-{last}");
                let _ = writeln!(
                    s,
                    "{ip} saddr {own} oifname \"{nic}\" tcp sport {range} masquerade to :{range}"
                );
            }
            let (first, last) = tracked.first().copied().unwrap_or_default();
            let _ = writeln!(
                s,
                "{ip} saddr {own} oifname \"{nic}\" meta l4proto tcp masquerade to :{first}-{last}"
            );
            if self.carry {
                let icmp = if *v6 { "icmpv6" } else { "icmp" };
                let _ = writeln!(
                    s,
                    "{ip} saddr {own} oifname \"{nic}\" meta l4proto {{ udp, {icmp} }} masquerade"
                );
            }
        }
        // After NAT (100): drops packets that still have a private address, for example because the host
        // exempts the port from tracking.
        s.push_str("}\nchain leak { type filter hook postrouting priority 110; policy accept;\n");
        for Family { v6, ip, .. } in &families {
            let _ = writeln!(s, "{ip} saddr {} oifname != \"{TUN_PREFIX}*\" counter drop", self.stack(*v6));
        }
        s.push_str("}\n");
    }

    /// What may pass between the NIC and the TUN device.
    fn forwarding(&self, s: &mut String) {
        let Ruleset { tun, nic, .. } = self;
        if self.stateless {
            // What is addressed to the stack on the wire is a stranger's: nobody knows these addresses.
            // Before anything is rewritten.
            s.push_str("chain private { type filter hook prerouting priority -310; policy accept;\n");
            for Family { v6, ip, .. } in self.families() {
                let stack = self.stack(v6);
                let _ = writeln!(s, "iifname != \"{TUN_PREFIX}*\" {ip} daddr {stack} counter drop");
            }
            s.push_str("}\n");
        }
        s.push_str("chain forward { type filter hook forward priority filter; policy accept;\n");
        for Family { v6, ip, .. } in self.families() {
            let stack = self.stack(v6);
            let _ = write!(
                s,
                "iifname \"{tun}\" oifname \"{nic}\" {ip} saddr {stack} meta l4proto tcp accept\n\
                 iifname \"{tun}\" oifname \"{nic}\" {ip} saddr {stack} ct state related accept\n\
                 iifname \"{nic}\" oifname \"{tun}\" {ip} daddr {stack} ct state established,related accept\n\
                 oifname \"{tun}\" {ip} daddr {stack} ct status dnat accept\n"
            );
            if self.carry {
                let _ = writeln!(
                    s,
                    "iifname \"{tun}\" oifname \"{nic}\" {ip} saddr {stack} meta l4proto {{ udp, icmp, icmpv6 }} accept"
                );
            }
            if self.stateless {
                let _ = write!(
                    s,
                    "oifname \"{tun}\" {ip} daddr {stack} ct state untracked meta l4proto {{ tcp, icmp, icmpv6 }} accept\n\
                     iifname \"{tun}\" oifname \"{TUN_PREFIX}*\" {ip} saddr {stack} meta l4proto tcp accept\n"
                );
            }
        }
        let _ = writeln!(s, "iifname \"{tun}\" counter drop\noifname \"{tun}\" counter drop");
        for family in &self.closed {
            let _ = writeln!(
                s,
                "iifname \"{nic}\" meta nfproto {family} oifname != \"{TUN_PREFIX}*\" counter drop comment \"closed\""
            );
        }
        // After every other chain: counts and drops the probe.
        let _ = write!(
            s,
            "}}\ncounter probe {{ }}\n\
             chain probe {{ type filter hook forward priority 2147483646; policy accept;\n\
             iifname \"{tun}\" tcp sport {PROBE_PORT} counter name \"probe\" drop\n}}\n"
        );
    }

    /// The script that adds connections that others have translated before the table was there.
    pub(super) fn known_guests(&self, guests: &[Translated]) -> String {
        let mut s = String::new();
        for f in self.families() {
            let own = guests.iter().filter(|g| g.seen.0.is_ipv6() == f.v6);
            let all = list(own.map(|g| format!("{} . {} . {}", g.seen.1, g.remote.0, g.remote.1)));
            if !all.is_empty() {
                let _ = writeln!(s, "add element inet {} guests{} {{ {all} }}", self.tun, f.n);
            }
        }
        s
    }

    /// Whether somebody else's connection comes to the stack by its port, unless it is known.
    pub(super) fn is_guest(&self, connection: &Translated) -> bool {
        let (address, port) = connection.seen;
        let kept = stack_ports(self.ports, self.stateless);
        self.nic_addresses.contains(&address)
            && kept.iter().any(|(first, last)| (*first..=*last).contains(&port))
            && !self.nets.iter().any(|net| net.contains(&connection.source))
    }

    /// The script that updates addresses and ports in the installed table without affecting connections.
    pub(super) fn update(&self) -> String {
        let tun = self.tun;
        let mut s = String::new();
        for (name, _, items) in self.sets() {
            let (kind, name) = name.split_once(' ').unwrap_or(("set", &name));
            let _ = writeln!(s, "flush {kind} inet {tun} {name}");
            if !items.is_empty() {
                let _ = writeln!(s, "add element inet {tun} {name} {{ {items} }}");
            }
        }
        if self.stateless {
            for f in self.families() {
                for (chain, rules) in
                    [("errors", self.error_rules(&f, "\n")), ("source", self.source_rules(&f, "\n"))]
                {
                    let _ = writeln!(s, "flush chain inet {tun} {chain}{}", f.n);
                    for rule in rules.lines() {
                        let _ = writeln!(s, "add rule inet {tun} {chain}{} {rule}", f.n);
                    }
                }
            }
        }
        s
    }
}

//! Detects whether something else on this host would drop a path's packets.

use super::netlink::Route;
use super::nfnetlink;
use super::nft::{Nft, PROBE_PORT, TUN_PREFIX};
use crate::device::Tun;
use crate::error::DriverError;
use nix::errno::Errno;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// A chain at the forward hook that could drop packets of a path.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Suspect {
    /// In the syntax of `nft list chain`.
    chain: String,
    /// Its policy is to drop.
    policy: bool,
    /// Has rules that accept something, or that continue in chains that may.
    accepts: bool,
    /// Has rules that drop or reject.
    drops: bool,
    /// The remedy: a command that lets the path's packets through.
    remedy: String,
}

/// Chains at the forward hook, other than ours, that may drop packets.
fn suspects(ruleset: &Value) -> Vec<Suspect> {
    let empty = Vec::new();
    let items = ruleset["nftables"].as_array().unwrap_or(&empty);
    let mut found = Vec::new();
    for chain in items.iter().filter_map(|i| i.get("chain")) {
        let text = |key: &str| chain[key].as_str().unwrap_or_default();
        if text("hook") != "forward" || text("table").starts_with(TUN_PREFIX) {
            continue;
        }
        let (family, table, name) = (text("family"), text("table"), text("name"));
        let (mut accepts, mut drops) = (false, false);
        for rule in items.iter().filter_map(|i| i.get("rule")) {
            if rule["family"] != chain["family"]
                || rule["table"] != chain["table"]
                || rule["chain"] != chain["name"]
            {
                continue;
            }
            for statement in rule["expr"].as_array().unwrap_or(&empty) {
                let has = |key: &str| statement.get(key).is_some();
                // A verdict map or a jump may lead to either.
                accepts |= has("accept") || has("jump") || has("goto") || has("vmap");
                drops |= has("drop") || has("reject") || has("jump") || has("goto") || has("vmap");
            }
        }
        let policy = text("policy") == "drop";
        if policy || drops {
            // Tables managed by iptables are better changed with iptables.
            let remedy = if table == "filter" && name == "FORWARD" {
                let program = if family == "ip6" { "ip6tables" } else { "iptables" };
                format!(
                    "accept them with `{program} -I FORWARD -i {TUN_PREFIX}+ -j ACCEPT; {program} -I FORWARD -o {TUN_PREFIX}+ -j ACCEPT`"
                )
            } else {
                format!(
                    "accept them with `nft insert rule {family} {table} {name} iifname '\"{TUN_PREFIX}*\"' accept; nft insert rule {family} {table} {name} oifname '\"{TUN_PREFIX}*\"' accept`"
                )
            };
            found.push(Suspect { chain: format!("{family} {table} {name}"), policy, accepts, drops, remedy });
        }
    }
    found
}

/// Whether a rule's statements match the state that conntrack knows, and which value if it is a single one.
fn state_matched(statements: &[Value]) -> Option<&str> {
    let matched = statements.iter().find(|s| s["match"]["left"]["ct"]["key"] == "state")?;
    Some(matched["match"]["right"].as_str().unwrap_or_default())
}

/// Whether a rule accepts everything from or to our TUN devices, by the given key (`iifname` or `oifname`).
fn accepts_ours(statements: &[Value], key: &str) -> bool {
    let ours = statements.first().is_some_and(|s| {
        let right = s["match"]["right"].as_str();
        s["match"]["left"]["meta"]["key"] == key
            && s["match"]["op"] == "=="
            && right.is_some_and(|r| r.strip_suffix('*').is_some_and(|r| TUN_PREFIX.starts_with(r)))
    });
    let harmless = |s: &Value| s.get("counter").is_some() || s.get("accept").is_some();
    ours && statements[1..].iter().all(harmless) && statements.iter().any(|s| s.get("accept").is_some())
}

/// The first chain, other than ours, that may drop packets that are not tracked: at the forward hook one that
/// drops anything, unless it first accepts what is from and to our TUN devices; at other hooks that a
/// forwarded packet passes, one that drops by the state that conntrack knows.
fn drops_untracked(ruleset: &Value) -> Option<String> {
    let empty = Vec::new();
    let items = ruleset["nftables"].as_array().unwrap_or(&empty);
    let rules: Vec<&Value> = items.iter().filter_map(|i| i.get("rule")).collect();
    let foreign = items
        .iter()
        .filter_map(|i| i.get("chain"))
        .filter(|c| !c["table"].as_str().unwrap_or_default().starts_with(TUN_PREFIX));
    for chain in foreign {
        let hook = chain["hook"].as_str().unwrap_or_default();
        let own = rules.iter().filter(|r| {
            r["family"] == chain["family"] && r["table"] == chain["table"] && r["chain"] == chain["name"]
        });
        let (mut inward, mut outward, mut drops) = (false, false, false);
        for rule in own {
            let statements = rule["expr"].as_array().unwrap_or(&empty);
            inward |= !drops && accepts_ours(statements, "oifname");
            outward |= !drops && accepts_ours(statements, "iifname");
            let state = state_matched(statements);
            // What is not tracked is not invalid.
            if state == Some("invalid") || (hook != "forward" && state.is_none()) {
                continue;
            }
            let may_drop =
                |s: &Value| ["drop", "reject", "jump", "goto", "vmap"].iter().any(|v| s.get(v).is_some());
            drops |= statements.iter().any(may_drop);
        }
        drops |= hook == "forward" && chain["policy"] == "drop";
        if ["prerouting", "ingress", "forward", "postrouting"].contains(&hook)
            && drops
            && !(inward && outward)
        {
            let text = |key: &str| chain[key].as_str().unwrap_or_default();
            return Some(format!("{} {} {}", text("family"), text("table"), text("name")));
        }
    }
    None
}

/// The chain of this host that may drop packets that are not tracked, if there is one. A packet from the
/// network cannot be made up to try, so the host's rules are read.
pub(super) fn drops_what_is_untracked(nft: &Nft) -> Option<String> {
    // nftables does not show the rules of the older iptables.
    let legacy = ["ip_tables_names", "ip6_tables_names"].iter().any(|file| {
        let names = std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
        names.lines().any(|table| table == "filter")
    });
    if legacy {
        return Some("filter (iptables)".to_owned());
    }
    match nft.foreign_ruleset() {
        Ok(ruleset) => drops_untracked(&ruleset),
        Err(error) => Some(format!("(unknown: {error})")),
    }
}

/// Whether nothing on this host would drop packets that are not tracked.
pub(super) fn untracked_pass(nft: &Nft, device: &str) -> bool {
    let chain = drops_what_is_untracked(nft);
    if let Some(chain) = &chain {
        tracing::info!(
            device,
            chain,
            "the firewall may drop what is not tracked; translation uses conntrack"
        );
    }
    chain.is_none()
}

fn blocked(device: &str, suspects: &[Suspect]) -> DriverError {
    let (by, remedy) = match suspects {
        [] => (
            "a firewall of this host that nftables does not show (legacy iptables, or a BPF program)"
                .to_owned(),
            format!("allow forwarding from and to devices named {TUN_PREFIX}*"),
        ),
        some => {
            let chains: Vec<String> = some
                .iter()
                .map(|s| format!("`{}`{}", s.chain, if s.policy { " (policy drop)" } else { "" }))
                .collect();
            let remedies: Vec<&str> = some.iter().map(|s| s.remedy.as_str()).collect();
            (format!("this host's firewall, chain {}", chains.join(", ")), remedies.join("; "))
        }
    };
    DriverError::Blocked { device: device.to_owned(), by, remedy }
}

/// The Internet checksum (RFC 1071) of the concatenated `parts`. All but the last must have an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A SYN from `source` to `destination` that the path's ruleset recognises and drops before it leaves this
/// host.
fn probe_packet(source: IpAddr, destination: IpAddr) -> Option<Vec<u8>> {
    let mut tcp = [0u8; 20];
    tcp[..2].copy_from_slice(&PROBE_PORT.to_be_bytes());
    tcp[2..4].copy_from_slice(&443u16.to_be_bytes());
    tcp[12] = 5 << 4;
    tcp[13] = 0x02;
    tcp[14..16].copy_from_slice(&1024u16.to_be_bytes());
    let fill = |tcp: &mut [u8; 20], source: &[u8], destination: &[u8]| {
        let sum = checksum(&[source, destination, &[0, 6, 0, 20], tcp]);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    };
    let mut packet;
    match (source, destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            fill(&mut tcp, &s.octets(), &d.octets());
            packet = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
            packet.extend(s.octets());
            packet.extend(d.octets());
            let sum = checksum(&[&packet]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            fill(&mut tcp, &s.octets(), &d.octets());
            packet = vec![0x60, 0, 0, 0, 0, 20, 6, 64];
            packet.extend(s.octets());
            packet.extend(d.octets());
        }
        _ => return None,
    }
    packet.extend(tcp);
    Some(packet)
}

/// An address to which the NIC has a route, preferably behind a gateway.
pub(super) fn some_destination(routes: &[Route], v6: bool, taken: &[IpAddr]) -> Option<IpAddr> {
    let mut routes: Vec<&Route> = routes.iter().filter(|r| r.is_v6() == v6 && r.device.is_some()).collect();
    routes.sort_by_key(|r| r.destination.prefix_len());
    routes.iter().find_map(|route| {
        if route.destination.prefix_len() == 0 {
            // Documentation addresses (RFC 5737, RFC 3849), which nobody uses.
            return Some(match v6 {
                false => IpAddr::from(Ipv4Addr::new(198, 51, 100, 1)),
                true => IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1)),
            });
        }
        if matches!(route.destination.addr(), IpAddr::V6(a) if a.is_unicast_link_local() || a.is_multicast())
        {
            return None;
        }
        // `hosts` leaves out IPv4's network and broadcast addresses, but not IPv6's router anycast address.
        let anycast =
            |a: &IpAddr| v6 && route.destination.prefix_len() < 127 && *a == route.destination.network();
        route.destination.hosts().take(4).find(|a| !anycast(a) && !taken.contains(a))
    })
}

/// Sends packets into a path's TUN device, as the stack does.
#[derive(Debug)]
pub(super) struct Prober {
    /// A copy: the device itself belongs to the path's owner.
    device: OwnedFd,
    offload: bool,
}

impl Prober {
    pub(super) fn new(tun: &Tun) -> Result<Prober, DriverError> {
        let device = tun.as_fd().try_clone_to_owned();
        let device = device.map_err(|e| DriverError::netlink(format!("write to {}", tun.name()), e))?;
        Ok(Prober { device, offload: tun.has_offload() })
    }

    /// False: the device takes nothing now.
    fn send(&self, packet: &[u8]) -> Result<bool, DriverError> {
        let mut frame = if self.offload { vec![0u8; 10] } else { Vec::new() };
        frame.extend(packet);
        match nix::unistd::write(&self.device, &frame) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN) => Ok(false),
            Err(error) => Err(DriverError::netlink("write to a TUN device", error.into())),
        }
    }
}

/// Sends a packet into a translated path and checks whether it reaches the end of the forward hook, where the
/// path's own ruleset drops it.
pub(super) fn probe(
    nft: &Nft,
    (tun, prober): (&str, &Prober),
    device: &str,
    addresses: &[IpAddr],
    routes: &[Route],
    taken: &[IpAddr],
) -> Result<(), DriverError> {
    for &source in addresses {
        let Some(destination) = some_destination(routes, source.is_ipv6(), taken) else { continue };
        let Some(packet) = probe_packet(source, destination) else { continue };
        let probes = || {
            nfnetlink::counted(tun, "probe")
                .map_err(|e| DriverError::netlink("read a counter of nftables", e))
        };
        let before = probes()?;
        if !prober.send(&packet)? {
            continue;
        }
        // The kernel processes it immediately, in a softirq; the waits are for a busy machine.
        let mut arrived = false;
        for wait in [0, 1, 5, 20, 50, 100, 200] {
            std::thread::sleep(Duration::from_millis(wait));
            if probes()? > before {
                arrived = true;
                break;
            }
        }
        if !arrived {
            let suspects = nft.foreign_ruleset().map(|r| suspects(&r)).unwrap_or_default();
            return Err(blocked(device, &suspects));
        }
    }
    Ok(())
}

/// Looks for a firewall that drops everything forwarded, and warns of one that may. For routed paths, which
/// cannot be probed; without `nft`, finds nothing.
pub(super) fn inspect(nft: Option<&Nft>, device: &str, warn: bool) -> Result<(), DriverError> {
    let Some(Ok(ruleset)) = nft.map(Nft::foreign_ruleset) else { return Ok(()) };
    let suspects = suspects(&ruleset);
    let certain: Vec<Suspect> = suspects.iter().filter(|s| s.policy && !s.accepts).cloned().collect();
    if !certain.is_empty() {
        return Err(blocked(device, &certain));
    }
    for suspect in suspects.iter().filter(|_| warn) {
        tracing::warn!(
            chain = suspect.chain,
            device,
            "a firewall may drop packets of this path; {}",
            suspect.remedy
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn finds_chains_that_may_drop() {
        let chain = |table: &str, name: &str, hook: &str, policy: &str| json!({"chain": {"family": "ip", "table": table, "name": name, "hook": hook, "policy": policy}});
        let rule = |table: &str, name: &str, verdict: &str| json!({"rule": {"family": "ip", "table": table, "chain": name, "expr": [{verdict: null}]}});
        let ruleset = json!({"nftables": [
            {"metainfo": {}},
            chain("filter", "FORWARD", "forward", "drop"),
            chain("filter", "INPUT", "input", "drop"),
            chain("umptcp0", "forward", "forward", "drop"),
            chain("mine", "open", "forward", "accept"),
            chain("mine", "picky", "forward", "accept"),
            rule("mine", "picky", "reject"),
            rule("filter", "FORWARD", "accept"),
        ]});
        let found = suspects(&ruleset);
        assert_eq!(found.len(), 2);
        assert!(
            found[0].chain == "ip filter FORWARD" && found[0].policy && found[0].accepts && !found[0].drops
        );
        assert!(found[0].remedy.contains("iptables -I FORWARD"));
        assert!(found[1].chain == "ip mine picky" && !found[1].policy && found[1].drops);
        assert!(blocked("eth0", &found).to_string().contains("nft insert rule ip mine picky"));
        assert!(suspects(&json!(null)).is_empty());
    }

    #[test]
    fn what_is_not_tracked_passes_unless_a_chain_may_drop_it() {
        let chain = |hook: &str, policy: &str| json!({"chain": {"family": "ip", "table": "t", "name": hook, "hook": hook, "policy": policy}});
        let rule = |hook: &str, expr: &Value| json!({"rule": {"family": "ip", "table": "t", "chain": hook, "expr": expr}});
        let state =
            |state: &Value| json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": state}});
        let device = |key: &str, name: &str| json!({"match": {"op": "==", "left": {"meta": {"key": key}}, "right": name}});
        let passes = |items: &[Value]| drops_untracked(&json!({"nftables": items})).is_none();
        let (drop, accept) = (json!({"drop": null}), json!({"accept": null}));
        let known = json!(["established", "related"]);
        assert!(passes(&[]) && passes(&[chain("forward", "accept"), chain("input", "drop")]));
        let invalid = rule("forward", &json!([state(&json!("invalid")), drop]));
        assert!(passes(&[chain("forward", "accept"), invalid]));
        let docker = [chain("forward", "drop"), rule("forward", &json!([state(&known), accept]))];
        assert_eq!(drops_untracked(&json!({"nftables": docker})).unwrap(), "ip t forward");
        assert!(!passes(&[chain("forward", "accept"), rule("forward", &json!([drop]))]));
        let ours =
            ["iifname", "oifname"].map(|key| rule("forward", &json!([device(key, "umptcp*"), accept])));
        let one = [chain("forward", "drop"), ours[0].clone()];
        assert!(!passes(&one) && passes(&[&one[..], &ours[1..]].concat()));
        let late = [chain("forward", "drop"), rule("forward", &json!([{"reject": null}]))];
        assert!(!passes(&[&late[..], &ours[..]].concat()));
        let by_address = rule("prerouting", &json!([device("iifname", "eth0"), drop]));
        assert!(passes(&[chain("prerouting", "accept"), by_address]));
        let by_state = rule("prerouting", &json!([state(&json!("untracked")), drop]));
        assert!(!passes(&[chain("prerouting", "accept"), by_state]));
    }

    #[test]
    fn probes_are_well_formed() {
        for (a, b) in [("100.64.0.1", "198.51.100.1"), ("fd00::1", "2001:db8::1")] {
            let packet = probe_packet(a.parse().unwrap(), b.parse().unwrap()).unwrap();
            let parsed = etherparse::SlicedPacket::from_ip(&packet).unwrap();
            let Some(etherparse::TransportSlice::Tcp(tcp)) = parsed.transport else { panic!("no TCP") };
            let sum = match parsed.net.unwrap() {
                etherparse::NetSlice::Ipv4(ip) => {
                    assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
                    tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination())
                }
                etherparse::NetSlice::Ipv6(ip) => {
                    tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination())
                }
                etherparse::NetSlice::Arp(_) => panic!("no IP"),
            };
            assert_eq!(sum.unwrap(), tcp.checksum());
            assert!(tcp.syn() && tcp.source_port() == PROBE_PORT);
        }
        assert!(probe_packet("10.0.0.1".parse().unwrap(), "::1".parse().unwrap()).is_none());
    }

    #[test]
    fn a_destination_is_one_the_nic_has_a_route_to() {
        let route = |destination: &str, address: &str| {
            let destination = destination.parse().unwrap();
            Route { destination, ..Route::host(address.parse().unwrap(), 2) }
        };
        let net = route("192.0.2.0/24", "192.0.2.0");
        let taken = ["192.0.2.1".parse().unwrap()];
        assert_eq!(
            some_destination(std::slice::from_ref(&net), false, &taken),
            Some("192.0.2.2".parse().unwrap())
        );
        let v6 = route("2001:db8::/64", "2001:db8::");
        assert_eq!(some_destination(&[v6], true, &[]), Some("2001:db8::1".parse().unwrap()));
        let default = route("0.0.0.0/0", "0.0.0.0");
        assert_eq!(some_destination(&[net, default], false, &[]), Some("198.51.100.1".parse().unwrap()));
        assert_eq!(some_destination(&[Route::unreachable(false)], false, &[]), None);
    }
}

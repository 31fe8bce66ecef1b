//! Keeps a path's policy rules in force while others change the host's.

use super::check::some_destination;
use super::netlink::{HostRule, Netlink, Rule};
use super::record::{HostChange, Record};
use std::io;
use std::net::IpAddr;

/// Where packets of a path must go.
pub(super) struct Direction<'a> {
    pub(super) tun: &'a str,
    pub(super) tun_index: u32,
    pub(super) nic_index: u32,
    pub(super) table: u32,
    pub(super) addresses: &'a [IpAddr],
}

impl Direction<'_> {
    /// Whether packets to or from the stack take another way.
    pub(super) async fn is_lost(&self, netlink: &Netlink) -> io::Result<bool> {
        for &own in self.addresses {
            let routes = netlink.routes_in(own.is_ipv6(), self.table).await?;
            let by_nic: Vec<_> = routes.into_iter().filter(|r| r.device == Some(self.nic_index)).collect();
            let Some(remote) = some_destination(&by_nic, own.is_ipv6(), self.addresses) else { continue };
            let outward = netlink.route_of(own, remote, self.tun_index).await?;
            let inward = netlink.route_of(remote, own, self.nic_index).await?;
            if outward != Some(self.nic_index) || inward != Some(self.tun_index) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The priority for the first of a path's rules, now at `current`, normally at `usual`: ahead of others'
/// rules only if those take the path's packets. `None` if there is no room.
fn place(rules: &[HostRule], current: u32, usual: u32, lost: bool) -> Option<u32> {
    let ahead = |limit: u32| {
        // The kernel's `local` table has priority 0 and stays first.
        rules.iter().filter(|r| !r.ours && r.priority > 0 && r.priority <= limit).map(|r| r.priority).min()
    };
    match ahead(current + 1) {
        Some(first) if lost => first.checked_sub(2).filter(|place| *place > 0),
        _ if current != usual && ahead(usual + 1).is_none() => Some(usual),
        _ => Some(current),
    }
}

/// Puts back those of the path's rules that something has removed, and moves the ones that select its table
/// ahead of others' that take its packets. Returns the priority of the first.
pub(super) async fn keep(
    netlink: &Netlink,
    record: &mut Record,
    direction: &Direction<'_>,
    current: u32,
    usual: u32,
) -> io::Result<u32> {
    let tun = direction.tun;
    let rules: Vec<(u64, Rule)> = record
        .entries()
        .iter()
        .filter(|e| e.path.as_deref() == Some(tun))
        .filter_map(|e| {
            if let HostChange::Rule(rule) = &e.change { Some((e.number, rule.clone())) } else { None }
        })
        .collect();
    let mut missing = 0;
    for (_, rule) in &rules {
        missing += usize::from(netlink.ensure_rule(rule).await?);
    }
    if missing > 0 {
        tracing::warn!(
            tun,
            missing,
            "something on this host removed routing rules of this path; put them back"
        );
    }
    let others = netlink.rules().await?;
    let lost = direction.is_lost(netlink).await?;
    let Some(place) = place(&others, current, usual, lost) else {
        tracing::warn!(
            tun,
            "a routing rule of this host takes the path's packets, and no priority ahead of it is free"
        );
        return Ok(current);
    };
    if place == current {
        return Ok(current);
    }
    // New ones first, so that the path is never without.
    let moved: Vec<&(u64, Rule)> = rules.iter().filter(|(_, rule)| rule.table.is_some()).collect();
    for (_, rule) in &moved {
        let rule = Rule { priority: rule.priority - current + place, ..rule.clone() };
        record.note(Some(tun), HostChange::Rule(rule.clone())).map_err(io::Error::other)?;
        netlink.add_rule(&rule).await?;
    }
    for (number, rule) in &moved {
        netlink.delete_rule(rule).await?;
        record.strike(*number).map_err(io::Error::other)?;
    }
    if place < current {
        tracing::warn!(
            tun,
            priority = place,
            "a routing rule of this host (a VPN's?) took the path's packets; moved the path's rules ahead of it"
        );
    } else {
        tracing::info!(tun, priority = place, "the path's routing rules are back at their usual priority");
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_move_ahead_only_of_others_that_take_the_packets_and_move_back() {
        let rule = |priority, ours| HostRule { priority, ours };
        let usual = [rule(0, false), rule(1400, true), rule(32766, false)];
        assert_eq!(place(&usual, 1400, 1400, true), Some(1400), "nothing is ahead");
        let vpn = [rule(0, false), rule(1398, false), rule(1399, false), rule(1400, true)];
        assert_eq!(place(&vpn, 1400, 1400, false), Some(1400), "it takes other packets");
        assert_eq!(place(&vpn, 1400, 1400, true), Some(1396));
        assert_eq!(place(&vpn, 1396, 1400, false), Some(1396), "it is still there");
        assert_eq!(place(&usual, 1396, 1400, false), Some(1400));
        assert_eq!(place(&[rule(2, false)], 1400, 1400, true), None);
    }
}

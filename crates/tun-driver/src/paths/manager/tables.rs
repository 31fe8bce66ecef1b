//! The nftables tables of translated paths, and the ports on which the stack listens.

use super::{Installed, Manager};
use crate::described::Mode;
use crate::error::DriverError;
use crate::paths::check;
use crate::paths::conntrack;
use crate::paths::nfnetlink;
use crate::paths::nft::Nft;
use crate::paths::nics::Snapshot;
use crate::paths::ports::{self, Ports};
use crate::paths::record::HostChange;
use crate::paths::ruleset::Ruleset;
use std::collections::{BTreeMap, BTreeSet};

/// Most connections that are known from the beginning: no more than have room.
const MOST_GUESTS: usize = 30_000;

impl Manager {
    /// Starts or stops forwarding a port to the stack.
    pub(super) fn listen(&mut self, port: u16, on: bool) -> Result<(), DriverError> {
        let mut listen = self.listen.clone();
        let changed = if on { listen.insert(port) } else { listen.remove(&port) };
        if !changed {
            return Ok(());
        }
        for path in self.paths.iter_mut().filter(|p| p.mode == Mode::Nat) {
            if on && let Err(error) = hold_ports(path, &listen) {
                self.release_ports();
                return Err(error);
            }
            let Some(nft) = &self.nft else { continue };
            let script = ruleset(path, &self.ranges, &listen).update();
            if let Err(error) = nft.apply(&path.nic, &script) {
                self.release_ports();
                return Err(error);
            }
        }
        self.listen = listen;
        self.release_ports();
        Ok(())
    }

    /// Releases ports on which the stack does not listen.
    pub(super) fn release_ports(&mut self) {
        for path in &mut self.paths {
            path.held.retain(|h| self.listen.contains(&h.port) && path.nic_addresses.contains(&h.address));
        }
    }

    /// Puts back the tables of translated paths that something else on this host has removed.
    pub(super) async fn restore_tables(&mut self) -> Result<(), DriverError> {
        if !std::mem::take(&mut self.tables_lost) {
            return Ok(());
        }
        let Some(nft) = self.nft.clone() else { return Ok(()) };
        let translated: Vec<usize> =
            (0..self.paths.len()).filter(|i| self.paths[*i].mode == Mode::Nat).collect();
        if translated.is_empty() {
            return Ok(());
        }
        let mut result = Ok(());
        match nfnetlink::tables() {
            Ok(tables) => {
                let is_there = |own: &str| tables.iter().any(|(f, name)| *f == "inet" && name == own);
                let missing: Vec<usize> =
                    translated.iter().copied().filter(|i| !is_there(&self.paths[*i].tun)).collect();
                let together = self.restore_together(&nft, &missing);
                for i in translated {
                    let present = together || !missing.contains(&i);
                    if let Err(error) = self.restore_table(i, &nft, present).await {
                        self.shut(i, &error).await;
                        result = Err(error);
                    } else if missing.contains(&i) {
                        self.forget_untranslated(i).await;
                    }
                }
            }
            Err(error) => {
                let error = DriverError::netlink("list the tables of nftables", error);
                for i in translated {
                    self.shut(i, &error).await;
                }
                result = Err(error);
            }
        }
        // Tried again soon.
        self.tables_lost = result.is_err();
        result
    }

    /// Puts back several tables at once: connections that are reset over one path as its table is missing
    /// would otherwise be opened anew over another whose table is missing, too. False: each is to be tried by
    /// itself.
    fn restore_together(&mut self, nft: &Nft, missing: &[usize]) -> bool {
        let [first, _, ..] = missing else { return false };
        let scripts = missing.iter().map(|i| ruleset(&self.paths[*i], &self.ranges, &self.listen).script());
        let restored = nft.apply(&self.paths[*first].nic, &scripts.collect::<String>()).is_ok();
        for i in missing.iter().filter(|_| restored) {
            say_restored(&self.paths[*i]);
        }
        restored
    }

    /// Makes conntrack forget what it has learnt of a path's packets while its table was missing. It
    /// translates a connection as it did the first packet, so these would leave with the private address (and
    /// are dropped) for as long as the stack repeats them. Without connection tracking, too: the firewall
    /// that has just been loaded may be one that makes us use it.
    async fn forget_untranslated(&self, i: usize) {
        let path = &self.paths[i];
        let mut entries = match conntrack::untranslated(&path.nets) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::debug!(%error, "cannot list the entries of conntrack");
                return;
            }
        };
        // Connections to this host itself, and to other instances, are not translated.
        let mut by_nic = BTreeMap::new();
        for entry in &entries {
            let ends = (entry.source, entry.destination);
            if by_nic.contains_key(&ends) {
                continue;
            }
            let device = self.netlink.route_of(ends.0, ends.1, path.tun_index).await;
            by_nic.insert(ends, device.is_ok_and(|d| d.is_some() && d == path.nic_index));
        }
        entries.retain(|e| by_nic.get(&(e.source, e.destination)) == Some(&true));
        match conntrack::delete(&entries) {
            Ok(()) => tracing::debug!(tun = path.tun, entries = entries.len(), "untranslated: forgotten"),
            Err(error) => tracing::warn!(
                %error, device = path.nic,
                "cannot delete entries of conntrack; some connections of this path will not be translated"
            ),
        }
    }

    pub(super) async fn restore_table(
        &mut self,
        i: usize,
        nft: &Nft,
        present: bool,
    ) -> Result<(), DriverError> {
        let path = &mut self.paths[i];
        if !present {
            install_table(nft, path, &self.ranges, &self.listen)?;
            say_restored(path);
        }
        if path.shut {
            let links = self.netlink.links().await.map_err(|e| DriverError::netlink("list devices", e))?;
            // A NIC that is gone gets its settings when it is back.
            if let Some(nic) = links.iter().find(|l| l.name == self.paths[i].nic) {
                self.reapply(i, nic).await?;
            }
            self.paths[i].shut = false;
        }
        Ok(())
    }

    /// After a change of the host's firewall: translates with connection tracking if it drops what is not
    /// tracked, and says so once if it drops a path's packets in any case.
    pub(super) async fn follow_firewall(&mut self) -> Result<(), DriverError> {
        if !std::mem::take(&mut self.firewall_changed) || !self.options.check_firewall {
            return Ok(());
        }
        let looked = self.look_at_firewall().await;
        self.firewall_changed = looked.is_err();
        looked
    }

    async fn look_at_firewall(&mut self) -> Result<(), DriverError> {
        let snapshot = Snapshot::take(&self.netlink).await?;
        if let Some(nft) = self.nft.clone()
            && let Some(first) = self.paths.iter().find(|p| p.stateless)
            && !check::untracked_pass(&nft, &first.nic)
        {
            for path in self.paths.iter_mut().filter(|p| p.stateless) {
                path.stateless = false;
                tracing::warn!(
                    device = path.nic,
                    "the firewall has changed and may drop what is not tracked; translation uses connection tracking now"
                );
                if let Err(error) = install_table(&nft, path, &self.ranges, &self.listen) {
                    path.stateless = true;
                    return Err(error);
                }
            }
        }
        for i in 0..self.paths.len() {
            if !self.paths[i].usable {
                continue;
            }
            let result = self.check(i, &snapshot, false);
            let path = &mut self.paths[i];
            match &result {
                Err(error) if !path.blocked => tracing::warn!("{error}"),
                Ok(()) if path.blocked => {
                    tracing::info!(device = path.nic, "the firewall accepts the path's packets again");
                }
                _ => {}
            }
            path.blocked = result.is_err();
        }
        Ok(())
    }

    /// Ends forwarding for a path whose table is lost: without it, the host would forward others' packets.
    pub(super) async fn shut(&mut self, i: usize, error: &DriverError) {
        let tun = self.paths[i].tun.clone();
        if !std::mem::replace(&mut self.paths[i].shut, true) {
            tracing::error!(
                %error, device = self.paths[i].nic, table = tun,
                "cannot make sure of the path's nftables table; forwarding is off until it is back"
            );
        }
        // Each time anew: the last attempt may have failed.
        self.undo(|e| {
            e.path.as_deref() == Some(tun.as_str())
                && match &e.change {
                    HostChange::Sysctl { name, .. } => name.ends_with("forwarding"),
                    HostChange::Ipv6Forwarding { .. } => true,
                    _ => false,
                }
        })
        .await;
    }
}

fn say_restored(path: &Installed) {
    tracing::warn!(
        device = path.nic,
        table = path.tun,
        "something on this host removed the path's nftables table (`nft flush ruleset`?); put it back"
    );
}

pub(super) fn ruleset<'a>(path: &'a Installed, ranges: &'a [Ports], listen: &BTreeSet<u16>) -> Ruleset<'a> {
    Ruleset {
        tun: &path.tun,
        nic: &path.nic,
        addresses: &path.addresses,
        nets: &path.nets,
        pairs: path.slots.pairs().collect(),
        nic_addresses: &path.nic_addresses,
        sources: &path.sources,
        ports: ranges,
        listen: listen.iter().copied().collect(),
        closed: path.closed(),
        stateless: path.stateless,
        carry: path.carry,
    }
}

/// Installs the path's table, with connection tracking if the kernel cannot do without.
pub(super) fn install_table(
    nft: &Nft,
    path: &mut Installed,
    ranges: &[Ports],
    listen: &BTreeSet<u16>,
) -> Result<(), DriverError> {
    let rules = ruleset(path, ranges, listen);
    // At once: the next packet may be one of theirs.
    let result = nft.apply(&path.nic, &(rules.script() + &guests(&rules)));
    let Err(error) = result else { return Ok(()) };
    if !std::mem::take(&mut path.stateless) {
        return Err(error);
    }
    tracing::debug!(%error, device = path.nic, "cannot translate without connection tracking");
    nft.apply(&path.nic, &ruleset(path, ranges, listen).script())
}

/// What leaves connections alone that others have translated before, to ports that are the stack's now.
fn guests(ruleset: &Ruleset<'_>) -> String {
    if !ruleset.stateless {
        return String::new();
    }
    match conntrack::translated(|connection| ruleset.is_guest(connection)) {
        Ok(guests) => ruleset.known_guests(&guests[..guests.len().min(MOST_GUESTS)]),
        Err(error) => {
            // Then nobody translates by it.
            tracing::debug!(%error, "cannot list the entries of conntrack");
            String::new()
        }
    }
}

/// Holds every port to listen on, on every address of the NIC.
pub(super) fn hold_ports(path: &mut Installed, listen: &BTreeSet<u16>) -> Result<(), DriverError> {
    for address in path.nic_addresses.clone() {
        if !path.has(address.is_ipv6()) {
            continue;
        }
        for &port in listen {
            if !path.held.iter().any(|h| h.address == address && h.port == port) {
                path.held.push(ports::hold(address, port)?);
            }
        }
    }
    Ok(())
}

//! Keeping paths in sync with their NICs.

use super::tables::{hold_ports, install_table, ruleset};
use super::{Manager, TO_STACK, advertised, apply_settings, first_of_each};
use crate::described::Mode;
use crate::described::PathChange;
use crate::error::DriverError;
use crate::paths::addresses::Known;
use crate::paths::host::Changes;
use crate::paths::mirror;
use crate::paths::netlink::{HostAddress, Link};
use crate::paths::nft;
use crate::paths::nics::{self, Snapshot};
use crate::paths::{rules, translate};
use std::net::IpAddr;
use std::time::Duration;

/// How long another instance's change of settings is waited for here.
const MOMENT: Duration = Duration::from_secs(1);

impl Manager {
    /// Updates all paths to match their NICs.
    pub(super) async fn follow(&mut self) -> Result<(), DriverError> {
        // First: until then, the host may forward packets that are none of ours.
        let restored = self.restore_tables().await;
        self.follow_nics().await?;
        restored?;
        self.follow_firewall().await
    }

    pub(super) async fn follow_nics(&mut self) -> Result<(), DriverError> {
        let links =
            self.netlink.links().await.map_err(|e| DriverError::netlink("list network devices", e))?;
        let addresses =
            self.netlink.addresses().await.map_err(|e| DriverError::netlink("list addresses", e))?;
        let mut result = Ok(());
        for i in 0..self.paths.len() {
            // What fails for one path is tried again soon, and no reason to leave the others as they are.
            result = result.and(self.follow_nic(i, &links, &addresses).await);
        }
        result.and(self.follow_newcomers(&links, &addresses).await)
    }

    async fn follow_nic(
        &mut self,
        i: usize,
        links: &[Link],
        addresses: &[HostAddress],
    ) -> Result<(), DriverError> {
        let path = &self.paths[i];
        // A device that was renamed is the same; one that was made anew has another index.
        let same = links.iter().find(|l| Some(l.index) == path.nic_index);
        let nic = same.or_else(|| links.iter().find(|l| l.name == path.nic)).cloned();
        if let Some(nic) = nic.as_ref().filter(|nic| nic.name != path.nic) {
            self.rename(i, nic).await?;
        }
        self.follow_device(i, nic.as_ref()).await?;
        self.follow_addresses(i, nic.as_ref(), addresses).await?;
        self.keep_rules(i).await?;
        self.answer_in_subnet(i, nic.as_ref(), links, addresses);
        if let Some(nic) = &nic {
            self.apply_what_is_due(i, nic).await?;
        }
        self.keep_proxies(i).await;
        Ok(())
    }

    /// The path's NIC has another name. Rules that name it must not stop to match: they keep strangers'
    /// packets from being forwarded.
    async fn rename(&mut self, i: usize, nic: &Link) -> Result<(), DriverError> {
        let path = &mut self.paths[i];
        tracing::info!(from = path.nic, to = nic.name, "a NIC has been renamed");
        let before = std::mem::replace(&mut path.nic, nic.name.clone());
        if let Some(nft) = self.nft.as_ref().filter(|_| path.mode == Mode::Nat) {
            let installed = nft::check_name(&nic.name)
                .and_then(|()| install_table(nft, path, &self.ranges, &self.listen));
            if let Err(error) = installed {
                path.nic = before;
                self.shut(i, &error).await;
                return Err(error);
            }
        }
        // The table is there.
        (path.shut, path.unapplied) = (false, true);
        Ok(())
    }

    pub(super) async fn follow_device(&mut self, i: usize, nic: Option<&Link>) -> Result<(), DriverError> {
        let index = nic.map(|n| n.index);
        if let Some(nic) = nic
            && self.paths[i].nic_index != Some(nic.index)
        {
            // A device that was recreated has lost its settings and proxy entries. It is not used before.
            self.paths[i].unapplied = true;
            self.apply_what_is_due(i, nic).await?;
        }
        let path = &mut self.paths[i];
        path.nic_index = index;
        let running = nic.is_some_and(|n| n.up && n.carrier);
        let mirrored =
            mirror::synchronise(&self.netlink, path.table, index.filter(|_| running), &path.own_routes())
                .await;
        let (changed, refused) = mirrored.map_err(|e| DriverError::netlink("mirror routes", e))?;
        for (route, error) in refused {
            tracing::debug!(?route, %error, "cannot mirror a route of the NIC");
        }
        let mtu = nic.map_or(path.mtu, |n| n.mtu.min(u32::from(u16::MAX)));
        let mut news = Vec::new();
        if mtu != path.mtu {
            path.mtu = mtu;
            if let Err(error) = self.netlink.bring_up(path.tun_index, mtu).await {
                tracing::warn!(%error, tun = path.tun, "cannot set the MTU of the TUN device");
            }
            news.push(PathChange::Mtu { tun: path.tun.clone(), mtu: u16::try_from(mtu).unwrap_or(u16::MAX) });
        }
        if changed {
            news.push(PathChange::Routes { tun: path.tun.clone() });
        }
        if running != path.usable {
            path.usable = running;
            let tun = path.tun.clone();
            news.push(if running {
                PathChange::Up { tun }
            } else {
                PathChange::Down { tun, gone: nic.is_none() }
            });
        }
        news.into_iter().for_each(|n| self.tell(n));
        Ok(())
    }

    /// Puts back the path's rules, and ahead of others' that take its packets.
    pub(super) async fn keep_rules(&mut self, i: usize) -> Result<(), DriverError> {
        let (Some(record), path) = (self.record.as_mut(), &mut self.paths[i]) else { return Ok(()) };
        let Some(nic_index) = path.nic_index.filter(|_| path.usable) else { return Ok(()) };
        let direction = path.direction(nic_index);
        let kept = rules::keep(&self.netlink, record, &direction, path.rules_at, TO_STACK).await;
        path.rules_at = kept.map_err(|e| DriverError::netlink("keep the routing rules", e))?;
        Ok(())
    }

    /// A NIC whose addresses have changed may be in the subnet of an address of the path now.
    fn answer_in_subnet(&mut self, i: usize, nic: Option<&Link>, links: &[Link], addresses: &[HostAddress]) {
        let path = &mut self.paths[i];
        let Some(nic) = nic.filter(|_| path.mode == Mode::Routed) else { return };
        let known = Known { links, addresses, routes: &[] };
        let new = |a: &&IpAddr| !path.proxied.contains(a) && known.in_subnet(nic, a);
        let new: Vec<IpAddr> = path.addresses.iter().filter(new).copied().collect();
        path.unapplied |= !new.is_empty();
        path.proxied.extend(new);
    }

    /// Has the NIC answer for the path's addresses in its subnet. The kernel forgets proxy entries when the
    /// NIC goes down or loses its last address of their family, which may be over before anybody has looked.
    async fn keep_proxies(&self, i: usize) {
        let path = &self.paths[i];
        let Some(nic) = path.nic_index.filter(|_| path.usable) else { return };
        for &address in &path.proxied {
            if let Err(error) = self.netlink.add_proxy(nic, address).await {
                tracing::warn!(nic = path.nic, %address, %error, "the NIC does not answer for this address");
            }
        }
    }

    /// Applies the path's settings to its NIC if they must be. Not while its table is lost, since they enable forwarding.
    async fn apply_what_is_due(&mut self, i: usize, nic: &Link) -> Result<(), DriverError> {
        let path = &self.paths[i];
        if path.unapplied && !path.shut { self.reapply(i, nic).await } else { Ok(()) }
    }

    /// Applies the path's settings to its NIC. If that fails, [`follow_nic`](Self::follow_nic) does it when it is possible.
    pub(super) async fn reapply(&mut self, i: usize, nic: &Link) -> Result<(), DriverError> {
        self.paths[i].unapplied = true;
        let snapshot = Snapshot::take(&self.netlink).await?;
        // Tried again soon, and meanwhile other paths and the owner's requests have their turn.
        let lock = self.registry.lock_within(MOMENT)?;
        let record = self.record.as_mut().ok_or(DriverError::Gone)?;
        let others = self.registry.survey(&lock, Some(record))?.0;
        let path = &mut self.paths[i];
        let tun = path.tun.clone();
        let mut changes =
            Changes { netlink: &self.netlink, record, others: &others, path: &tun, _lock: &lock };
        apply_settings(&mut changes, path, nic, &snapshot.links, &snapshot, &self.options).await?;
        path.unapplied = false;
        Ok(())
    }

    pub(super) async fn follow_addresses(
        &mut self,
        i: usize,
        nic: Option<&Link>,
        addresses: &[HostAddress],
    ) -> Result<(), DriverError> {
        let path = &mut self.paths[i];
        let Some(nic) = nic.filter(|_| path.mode == Mode::Nat) else { return Ok(()) };
        let now = nics::translatable(addresses, nic.index);
        let before = (path.nic_addresses.clone(), path.sources.clone());
        if now != path.nic_addresses {
            path.nic_addresses = now;
            // Skip addresses on which a program of the host already listens.
            while let Err(error) = hold_ports(path, &self.listen) {
                tracing::warn!(%error, "connections to this address will not be accepted");
                let DriverError::PortInUse { address, .. } = error else { break };
                path.nic_addresses.retain(|a| *a != address);
            }
        }
        path.sources.clear();
        // With one address of each family there is no choice.
        if first_of_each(&path.nic_addresses).len() < path.nic_addresses.len() {
            let mut routes = Vec::new();
            for v6 in [false, true] {
                let found = self.netlink.routes_by(v6, nic.index).await;
                let found = found.map_err(|e| DriverError::netlink("list routes", e))?;
                routes.extend(found.into_iter().map(|(_, route)| route));
            }
            path.sources = translate::sources(&routes, addresses, &path.nic_addresses);
        }
        if (&path.nic_addresses, &path.sources) == (&before.0, &before.1) {
            return Ok(());
        }
        path.slots.assign(&path.nic_addresses);
        if let Some(nft) = &self.nft
            && let Err(error) = nft.apply(&path.nic, &ruleset(path, &self.ranges, &self.listen).update())
        {
            // The table has the addresses of before still: as if nothing had been seen, so that it is tried again.
            (path.nic_addresses, path.sources) = before;
            return Err(error);
        }
        if path.nic_addresses == before.0 {
            return Ok(());
        }
        // Connections keep the address that theirs is translated to, the first of each family.
        let (before, nic) = (first_of_each(&before.0), first_of_each(&path.nic_addresses));
        let change = (before != nic).then(|| {
            let (tun, advertise) = (path.tun.clone(), advertised(path));
            PathChange::Addresses { tun, before, nic, advertise }
        });
        self.release_ports();
        if let Some(change) = change {
            self.tell(change);
        }
        Ok(())
    }

    /// Reports NICs that have become able to carry a path.
    pub(super) async fn follow_newcomers(
        &mut self,
        links: &[Link],
        addresses: &[HostAddress],
    ) -> Result<(), DriverError> {
        let mut names = Vec::new();
        for link in links {
            let Some(nic) = nics::usable_now(&self.netlink, link, addresses).await? else { continue };
            names.push(nic.name.clone());
            if !self.nics.contains(&nic.name) && !self.paths.iter().any(|p| p.nic == nic.name) {
                self.tell(PathChange::NewNic(nic));
            }
        }
        self.nics = names;
        Ok(())
    }
}

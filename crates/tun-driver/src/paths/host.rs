//! Changes to the host, each recorded before it is made, and undoing them.

use super::cgroup;
use super::netlink::{Link, Netlink, Rule};
use super::nft::Nft;
use super::ports;
use super::record::{Entry, HostChange, Record, Registry, RegistryLock, prior_value};
use super::sysctl;
use crate::error::DriverError;
use std::io;
use std::net::IpAddr;

/// Setting that enables IPv6 forwarding on the host.
pub(super) const ALL_FORWARDING_V6: &str = "net/ipv6/conf/all/forwarding";

/// Setting that enables or disables IPv4 forwarding on every interface when written.
const ALL_FORWARDING_V4: &str = "net/ipv4/conf/all/forwarding";

/// What is needed to make changes: the kernel, our record, and the changes of other running instances.
pub(super) struct Changes<'a> {
    pub(super) netlink: &'a Netlink,
    pub(super) record: &'a mut Record,
    pub(super) others: &'a [Vec<Entry>],
    /// The path (name of its TUN device) that the changes are made for.
    pub(super) path: &'a str,
    /// Proof that no other instance is changing settings.
    pub(super) _lock: &'a RegistryLock,
}

impl Changes<'_> {
    /// Changes a setting. Returns the value it had before any instance changed it.
    pub(super) fn sysctl(&mut self, name: &str, value: &str) -> Result<String, DriverError> {
        let error = |source| DriverError::Sysctl { name: name.to_owned(), value: value.to_owned(), source };
        let current = sysctl::read(name).map_err(error)?;
        let noted = self
            .record
            .entries()
            .iter()
            .any(|e| e.path.as_deref() == Some(self.path) && e.change.is_of(name));
        let shared = prior_value(self.record.entries().iter().chain(self.others.iter().flatten()), name);
        let prior = shared.clone().unwrap_or_else(|| current.clone());
        if shared.is_none() && current == value {
            return Ok(prior);
        }
        if !noted {
            // If somebody turns the host into a router with conf/all/forwarding, which sets every
            // interface's, the value must stay.
            let unless = (name.starts_with("net/ipv4/conf/") && name.ends_with("/forwarding"))
                .then(|| ALL_FORWARDING_V4.to_owned())
                .filter(|all| sysctl::number(all) == Some(0));
            let change = HostChange::Sysctl {
                name: name.to_owned(),
                prior: prior.clone(),
                set: value.to_owned(),
                unless,
                device: sysctl::device_of(name),
            };
            self.record.note(Some(self.path), change)?;
        }
        if current != value {
            sysctl::write(name, value).map_err(error)?;
            tracing::info!(setting = name, from = current, to = value, "changed a kernel setting until exit");
        }
        Ok(prior)
    }

    /// Adds a rule.
    pub(super) async fn rule(&mut self, rule: Rule) -> Result<(), DriverError> {
        self.record.note(Some(self.path), HostChange::Rule(rule.clone()))?;
        self.netlink.add_rule(&rule).await.map_err(|e| DriverError::netlink("add a routing rule", e))
    }

    /// Makes the host answer for `address` on a device.
    pub(super) async fn proxy(&mut self, nic: &Link, address: IpAddr) -> Result<(), DriverError> {
        self.record.note(
            Some(self.path),
            HostChange::Proxy { device: nic.name.clone(), address, index: Some(nic.index) },
        )?;
        let what = || format!("answer for {address} on {}", nic.name);
        self.netlink.add_proxy(nic.index, address).await.map_err(|e| DriverError::netlink(what(), e))
    }

    /// Enables IPv6 forwarding on all interfaces, which is necessary before Linux 6.17.
    ///
    /// A forwarding host ignores router advertisements by default. Where they were accepted, they continue to
    /// be.
    pub(super) fn forward_all_v6(&mut self, interfaces: &[String]) -> Result<(), DriverError> {
        let entries = self.record.entries().iter().chain(self.others.iter().flatten());
        let shared = entries.into_iter().find_map(|e| match &e.change {
            HostChange::Ipv6Forwarding { interfaces } => Some(interfaces.clone()),
            _ => None,
        });
        let mut priors = Vec::new();
        for interface in interfaces.iter().map(String::as_str).chain(["default"]) {
            let setting = |name: &str| format!("net/ipv6/conf/{interface}/{name}");
            let Ok(forwarding) = sysctl::read(&setting("forwarding")) else { continue };
            // Must come before forwarding is enabled, which drops routes learnt from advertisements where
            // accept_ra is not 2.
            if sysctl::number(&setting("accept_ra")) == Some(1) && forwarding == "0" {
                self.sysctl(&setting("accept_ra"), "2")?;
            }
            priors.push((interface.to_owned(), forwarding));
        }
        let noted = self.record.entries().iter().any(|e| {
            e.path.as_deref() == Some(self.path) && matches!(e.change, HostChange::Ipv6Forwarding { .. })
        });
        if !noted {
            let interfaces = shared.unwrap_or(priors);
            self.record.note(Some(self.path), HostChange::Ipv6Forwarding { interfaces })?;
        }
        let error =
            |source| DriverError::Sysctl { name: ALL_FORWARDING_V6.into(), value: "1".into(), source };
        if sysctl::read(ALL_FORWARDING_V6).map_err(error)? != "1" {
            sysctl::write(ALL_FORWARDING_V6, "1").map_err(error)?;
            tracing::info!("this host forwards IPv6 on all interfaces, until the end");
        }
        Ok(())
    }
}

/// Undoes those changes of a record for which `which` holds, in reverse order, except settings that another
/// instance or path still needs. Returns what could not be undone, which stays in the record.
pub(super) async fn undo(
    netlink: &Netlink,
    record: &mut Record,
    others: &[Vec<Entry>],
    nft: Option<&Nft>,
    which: impl Fn(&Entry) -> bool,
) -> Vec<DriverError> {
    let mut errors = Vec::new();
    let entries: Vec<Entry> = record.entries().iter().filter(|e| which(e)).cloned().collect();
    for entry in entries.into_iter().rev() {
        let rest: Vec<&Entry> = record
            .entries()
            .iter()
            .filter(|e| e.number != entry.number)
            .chain(others.iter().flatten())
            .collect();
        match undo_one(netlink, &entry.change, &rest, nft).await.and_then(|()| record.strike(entry.number)) {
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(%error, change = ?entry.change, "could not undo a change to the host");
                errors.push(error);
            }
        }
    }
    errors
}

async fn undo_one(
    netlink: &Netlink,
    change: &HostChange,
    rest: &[&Entry],
    nft: Option<&Nft>,
) -> Result<(), DriverError> {
    // Another path over the same NIC, or another instance, still needs it, such as a rule that drops stray
    // packets.
    if rest.iter().any(|e| e.change == *change) {
        return Ok(());
    }
    match change {
        HostChange::Sysctl { name, prior, set, unless, device } => {
            let name = &sysctl::current_name(name, *device);
            let needed = prior_value(rest.iter().copied(), name).is_some();
            if needed || unless.as_ref().is_some_and(|other| sysctl::number(other) == Some(1)) {
                return Ok(());
            }
            restore(name, prior, Some(set))
        }
        HostChange::Ipv6Forwarding { interfaces } => {
            if rest.iter().any(|e| matches!(e.change, HostChange::Ipv6Forwarding { .. })) {
                return Ok(());
            }
            // This sets every interface's to 0, including those that were 1 before.
            restore(ALL_FORWARDING_V6, "0", Some("1"))?;
            for (interface, value) in interfaces {
                restore(&format!("net/ipv6/conf/{interface}/forwarding"), value, None)?;
            }
            Ok(())
        }
        HostChange::ReservedPorts { first, last } => ports::release(*first, *last),
        HostChange::UsedPorts { .. } => Ok(()),
        HostChange::Rule(rule) => {
            netlink.delete_rule(rule).await.map_err(|e| DriverError::netlink("remove a routing rule", e))
        }
        HostChange::Table(table) => {
            netlink.flush_table(*table).await.map_err(|e| DriverError::netlink("empty a routing table", e))
        }
        HostChange::NftTable(table) => match nft {
            Some(nft) => nft.delete_table(table),
            None => Nft::find(None)?.delete_table(table),
        },
        HostChange::Cgroup(path) => remove_cgroup(path),
        HostChange::Proxy { device, address, index } => {
            let links = netlink.links().await.map_err(|e| DriverError::netlink("list network devices", e))?;
            // By its index, if it is still there; it may have been made anew.
            let same = links.iter().find(|l| Some(l.index) == *index);
            match same.or_else(|| links.iter().find(|l| l.name == *device)) {
                Some(link) => netlink
                    .delete_proxy(link.index, *address)
                    .await
                    .map_err(|e| DriverError::netlink(format!("stop answering for {address}"), e)),
                None => Ok(()),
            }
        }
    }
}

/// Removes a cgroup, with its processes moved to the one above.
pub(super) fn remove_cgroup(path: &str) -> Result<(), DriverError> {
    let folder = cgroup::folder(path).and_then(|folder| cgroup::dissolve(&folder));
    folder.map_err(|source| DriverError::Cgroup { path: path.to_owned(), source })
}

/// Restores a setting to `prior`, unless somebody else has changed it from `set` since, or its device is
/// gone.
fn restore(name: &str, prior: &str, set: Option<&str>) -> Result<(), DriverError> {
    let current = match sysctl::read(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other,
    };
    let error = |source| DriverError::Sysctl { name: name.to_owned(), value: prior.to_owned(), source };
    let current = current.map_err(error)?;
    if current == prior {
        return Ok(());
    }
    if set.is_some_and(|set| set != current) {
        tracing::info!(
            setting = name,
            value = current,
            "left a kernel setting unchanged that somebody else has changed since"
        );
        return Ok(());
    }
    sysctl::write(name, prior).map_err(error)?;
    tracing::info!(setting = name, value = prior, "restored a kernel setting");
    Ok(())
}

/// Undoes what crashed instances have left in this network namespace. Returns a line per record.
pub(super) async fn clean_up_leftovers(
    netlink: &Netlink,
    registry: &Registry,
    nft: Option<&Nft>,
) -> Result<Vec<String>, DriverError> {
    let lock = registry.lock()?;
    let (held, left) = registry.survey(&lock, None)?;
    let mut report = Vec::new();
    let mut left = left.into_iter();
    while let Some(mut record) = left.next() {
        // Crashed instances may have shared settings with each other: the last one undone restores them.
        let mut others = held.clone();
        others.extend(left.as_slice().iter().map(|r| r.entries().to_vec()));
        let count = record.entries().len();
        let errors = undo(netlink, &mut record, &others, nft, |_| true).await;
        let mut line =
            format!("undid {} changes of an instance that has crashed", count - record.entries().len());
        if errors.is_empty() {
            record.remove();
        } else {
            let errors: Vec<String> = errors.iter().map(DriverError::to_string).collect();
            line = format!("{line}; not undone: {} (see {})", errors.join("; "), record.path().display());
        }
        tracing::info!("{line}");
        report.push(line);
    }
    Ok(report)
}

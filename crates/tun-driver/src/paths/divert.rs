//! Packets of this host that carry a mark, directed to a TUN device: a rule, a table with the device as its
//! only way, and a table of nftables that sets the mark.
//!
//! Changes are recorded as those of paths are, so that what a crash leaves is undone in the same way.

use super::cgroup;
use super::host::{self, Changes};
use super::manager::free_table;
use super::netlink::{Netlink, Route, Rule};
use super::nfnetlink;
use super::nft::{Nft, TUN_PREFIX};
use super::nics::Snapshot;
use super::record::{HostChange, Record, Registry};
use super::set::{apart, connect};
use super::sysctl;
use crate::device::Tun;
use crate::error::DriverError;
use ipnet::IpNet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LockResult, Mutex, PoisonError};

/// Before the rules of paths, and of VPN software.
const PRIORITY: u32 = 1399;

/// The kernel's table of ordinary routes.
const MAIN: u32 = 254;

/// What is directed to a device.
#[derive(Clone, Debug)]
pub struct Diversion<'a> {
    /// The bits of the mark that packets for the device carry.
    pub mark: u32,
    /// Name of the table of nftables (family inet) that sets the mark; one that begins like the names of TUN
    /// devices.
    pub table: &'a str,
    /// What is in it.
    pub rules: &'a str,
}

/// Keeps packets directed to a device. Dropping it undoes that.
#[derive(Debug)]
pub struct Diverted {
    registry: Registry,
    /// `None` once it has been undone.
    record: Mutex<Option<Record>>,
    nft: Nft,
    table: String,
}

/// A cgroup that was made for a process.
#[derive(Debug)]
pub struct Cgroup {
    path: String,
    folder: PathBuf,
    id: u64,
    /// Of the record.
    entry: u64,
}

impl Cgroup {
    /// Its path below the root of cgroups.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its number, as the kernel gives it with sockets of its processes.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Moves a process into it. What it starts from then on is in it, too.
    ///
    /// # Errors
    /// What the kernel objects to.
    pub fn take(&self, process: u32) -> Result<(), DriverError> {
        cgroup::enter(&self.folder, process)
            .map_err(|source| DriverError::Cgroup { path: self.path.clone(), source })
    }
}

fn unpoisoned<T>(guarded: LockResult<T>) -> T {
    guarded.unwrap_or_else(PoisonError::into_inner)
}

/// Directs packets to `tun`, which is brought up. Everything happens in the network namespace of the calling
/// thread.
///
/// # Errors
/// When another instance has a table of that name, or what the kernel or nftables object to; nothing is left
/// then.
pub fn divert(tun: &Tun, mtu: u16, diversion: &Diversion<'_>) -> Result<Diverted, DriverError> {
    let nft = Nft::find(None)?;
    apart(async || {
        let netlink = connect()?;
        let registry = Registry::open(None)?;
        host::clean_up_leftovers(&netlink, &registry, Some(&nft)).await?;
        let tables =
            nfnetlink::tables().map_err(|e| DriverError::netlink("list the tables of nftables", e))?;
        if tables.iter().any(|(_, name)| name == diversion.table) {
            let table = diversion.table.to_owned();
            let process =
                registry.holder_of(|change| matches!(change, HostChange::NftTable(t) if *t == table));
            return Err(DriverError::Diverted { table, process });
        }
        let lock = registry.lock()?;
        let record = registry.create(&lock)?;
        drop(lock);
        let (record, table) = (Mutex::new(Some(record)), diversion.table.to_owned());
        let mut diverted = Diverted { registry, record, nft: nft.clone(), table };
        let result = diverted.install(&netlink, tun, mtu, diversion).await;
        if let Err(error) = result {
            diverted.undo(&netlink).await;
            return Err(error);
        }
        Ok(diverted)
    })
}

impl Diverted {
    async fn install(
        &mut self,
        netlink: &Netlink,
        tun: &Tun,
        mtu: u16,
        diversion: &Diversion<'_>,
    ) -> Result<(), DriverError> {
        prepare(tun.name())?;
        let lock = self.registry.lock()?;
        let record = unpoisoned(self.record.get_mut()).as_mut().ok_or(DriverError::Gone)?;
        let table = free_table(netlink, tun.index(), &Snapshot::take(netlink).await?).await?;
        record.note(Some(tun.name()), HostChange::Table(table))?;
        let up = netlink.bring_up(tun.index(), u32::from(mtu)).await;
        up.map_err(|e| DriverError::netlink(format!("bring {} up", tun.name()), e))?;
        let v6 = sysctl::number(&format!("net/ipv6/conf/{}/disable_ipv6", tun.name())) == Some(0);
        for net in [any(false), any(true)].into_iter().take(1 + usize::from(v6)) {
            let route = netlink.replace_route(table, &Route::to(net, tun.index())).await;
            route.map_err(|e| DriverError::netlink(format!("add a route to {}", tun.name()), e))?;
        }
        let others = self.registry.survey(&lock, Some(record))?.0;
        let mut changes = Changes { netlink, record, others: &others, path: tun.name(), _lock: &lock };
        for v6 in [false, true].into_iter().take(1 + usize::from(v6)) {
            // What comes by the device goes to whoever is to have it, not back.
            let (input, mark) = (Some(tun.name().to_owned()), Some(diversion.mark));
            changes.rule(Rule { input, table: Some(MAIN), ..Rule::new(v6, PRIORITY - 1) }).await?;
            changes.rule(Rule { mark, table: Some(table), ..Rule::new(v6, PRIORITY) }).await?;
        }
        record.note(Some(tun.name()), HostChange::NftTable(diversion.table.to_owned()))?;
        self.set_rules(diversion.rules)
    }

    /// Replaces what is in the table of nftables, at once.
    ///
    /// # Errors
    /// What nftables objects to; the table stays as it was then.
    pub fn set_rules(&self, rules: &str) -> Result<(), DriverError> {
        let table = &self.table;
        let script =
            format!("add table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n{rules}}}\n");
        self.nft.apply(table, &script)
    }

    /// Makes a cgroup below that of a process. It is taken away with all that this has changed, at the latest.
    ///
    /// # Errors
    /// When the process has no cgroup of version 2, or the kernel refuses to make one there.
    pub fn make_cgroup(&self, process: u32) -> Result<Cgroup, DriverError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let failed = |path: &str, source| DriverError::Cgroup { path: path.to_owned(), source };
        let above = cgroup::of_process(process).map_err(|e| failed(&format!("of process {process}"), e))?;
        loop {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path =
                format!("{}/{TUN_PREFIX}-{}-{number}", above.trim_end_matches('/'), std::process::id());
            let folder = cgroup::folder(&path).map_err(|e| failed(&path, e))?;
            let entry = self.with_record(|record| record.note(None, HostChange::Cgroup(path.clone())))?;
            let made = std::fs::create_dir(&folder).and_then(|()| folder.metadata());
            match made {
                Ok(metadata) => return Ok(Cgroup { path, folder, id: metadata.ino(), entry }),
                Err(source) => {
                    self.with_record(|record| record.strike(entry))?;
                    // That of a process with our number in another PID namespace.
                    if source.kind() != io::ErrorKind::AlreadyExists {
                        return Err(failed(&path, source));
                    }
                }
            }
        }
    }

    /// Removes a cgroup if all of its processes have ended. Returns whether it is gone.
    pub fn remove_ended(&self, cgroup: &Cgroup) -> bool {
        let gone = match std::fs::remove_dir(&cgroup.folder) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        // What stays in the record is found gone later.
        gone && self.with_record(|record| record.strike(cgroup.entry)).is_ok()
    }

    /// Removes a cgroup; its processes are again in the one that they came from.
    ///
    /// # Errors
    /// What the kernel objects to.
    pub fn remove_cgroup(&self, cgroup: &Cgroup) -> Result<(), DriverError> {
        host::remove_cgroup(&cgroup.path)?;
        self.with_record(|record| record.strike(cgroup.entry))
    }

    fn with_record<T>(
        &self,
        work: impl FnOnce(&mut Record) -> Result<T, DriverError>,
    ) -> Result<T, DriverError> {
        work(unpoisoned(self.record.lock()).as_mut().ok_or(DriverError::Gone)?)
    }

    async fn undo(&mut self, netlink: &Netlink) {
        let Some(mut record) = unpoisoned(self.record.get_mut()).take() else { return };
        let undone = async {
            let lock = self.registry.lock()?;
            let others = self.registry.survey(&lock, Some(&record))?.0;
            Ok::<_, DriverError>(host::undo(netlink, &mut record, &others, Some(&self.nft), |_| true).await)
        };
        match undone.await {
            // What could not be undone stays in the record, for the next start.
            Ok(errors) if errors.is_empty() => record.remove(),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "cannot undo what directs packets to umptcp"),
        }
    }
}

impl Drop for Diverted {
    fn drop(&mut self) {
        let undone = apart(async || {
            let netlink = connect()?;
            self.undo(&netlink).await;
            Ok(())
        });
        if let Err(error) = undone {
            tracing::warn!(%error, "cannot undo what directs packets to umptcp");
        }
    }
}

fn any(v6: bool) -> IpNet {
    if v6 {
        IpNet::new_assert(Ipv6Addr::UNSPECIFIED.into(), 0)
    } else {
        IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0)
    }
}

/// Settings of a device that is still down. They disappear with it.
fn prepare(tun: &str) -> Result<(), DriverError> {
    // Packets that come by it are from everywhere. They are marked, too: looked at with their mark, this is
    // the way back, and a strict reverse-path filter of the host is content. Some go on to other hosts; only
    // the stack can send any.
    for setting in ["src_valid_mark", "forwarding"] {
        let name = format!("net/ipv4/conf/{tun}/{setting}");
        sysctl::ensure(&name, "1").map_err(|source| DriverError::Sysctl {
            name,
            value: "1".into(),
            source,
        })?;
    }
    // Neither addresses nor routers: nobody else is there. A host without IPv6 does without.
    for (name, value) in [("addr_gen_mode", "1"), ("accept_ra", "0")] {
        let _ = sysctl::ensure(&format!("net/ipv6/conf/{tun}/{name}"), value);
    }
    Ok(())
}

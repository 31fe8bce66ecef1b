//! Records of what running instances have changed on the host, so that what a crashed one leaves behind can
//! be undone.
//!
//! Each instance keeps one file, locked as long as the instance lives, with a line for each change about to
//! be made and one for each change undone. If a file can be locked, its owner is gone. Changes to shared
//! settings are made under a lock common to all instances, because two of them may want the same setting: the
//! last to exit restores the value from before the first.

use super::cgroup;
use super::holders::{Holders, namespace_name};
use super::netlink::Rule;
use super::sysctl;
use crate::clock;
use crate::error::DriverError;
use crate::lock::{self, Lock, LockError, PATIENCE, pids_shown};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A change to the host that must be undone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum HostChange {
    /// A setting, changed from `prior` to `set`. Not restored if the setting `unless`, which was 0, has
    /// become 1.
    Sysctl {
        name: String,
        prior: String,
        set: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unless: Option<String>,
        /// Index of the device whose setting it is, which may be renamed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<u32>,
    },
    /// net.ipv6.conf.all.forwarding, changed from 0 to 1, which sets every interface's; with their previous
    /// values.
    Ipv6Forwarding { interfaces: Vec<(String, String)> },
    /// Ports added to ip_local_reserved_ports.
    ReservedPorts { first: u16, last: u16 },
    /// Ports that the instance uses and others must not. Changes nothing on the host.
    UsedPorts { first: u16, last: u16 },
    /// A policy rule.
    Rule(Rule),
    /// Routes in one of our tables.
    Table(u32),
    /// An nftables table of family inet.
    NftTable(String),
    /// A cgroup, by its path below the root of cgroups. Its processes go to the one above.
    Cgroup(String),
    /// A proxy neighbour entry.
    Proxy {
        device: String,
        address: IpAddr,
        /// The device may be renamed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        index: Option<u32>,
    },
}

impl HostChange {
    /// Whether this changes a setting, given by its name of now.
    pub(super) fn is_of(&self, setting: &str) -> bool {
        match self {
            HostChange::Sysctl { name, device, .. } => {
                sysctl::same_kind(name, setting) && sysctl::current_name(name, *device) == setting
            }
            _ => false,
        }
    }
}

/// A change made by an instance.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Identifies the change within its record.
    pub(super) number: u64,
    /// The path (name of its TUN device) it was made for; `None` if for all paths of the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<String>,
    // The name in records of earlier versions.
    #[serde(rename = "deed")]
    pub(super) change: HostChange,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Instance {
        version: u32,
        pid: u32,
        boot: String,
        namespace: String,
        /// The namespace as shown by /proc/PID/ns/net; empty if unknown.
        #[serde(default)]
        shown: String,
        /// The PID namespace in which `pid` is valid; empty if unknown.
        #[serde(default)]
        pids: String,
    },
    Done(Entry),
    Undone(u64),
}

const VERSION: u32 = 1;

/// The network namespace of the calling thread in the form `net:[INODE]`.
fn namespace_shown() -> String {
    fs::read_link("/proc/thread-self/ns/net").map(|l| l.display().to_string()).unwrap_or_default()
}

/// A directory that only this user can write to, created if necessary. Others may look into it: control
/// sockets are there, too, some of them for the users who have called `sudo`.
fn private_directory(path: &Path) -> io::Result<PathBuf> {
    match fs::DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Records are acted on with our privileges, so nobody else may be able to write them.
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() || metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the directory belongs to another user"));
    }
    if metadata.mode() & 0o022 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o755))?;
    }
    // Root in a user namespace may own a directory on a file system it cannot write to.
    nix::unistd::access(path, nix::unistd::AccessFlags::W_OK | nix::unistd::AccessFlags::X_OK)?;
    Ok(path.to_owned())
}

/// Where root's are.
pub(super) const OF_ROOT: &str = "/run/umptcp";

/// Where records are: `chosen`, or the first of the usual places that will do.
pub(super) fn directory(chosen: Option<&Path>) -> Result<PathBuf, DriverError> {
    if let Some(path) = chosen {
        return private_directory(path)
            .map_err(|source| DriverError::Record { path: path.to_owned(), source });
    }
    let mut candidates = vec![PathBuf::from(OF_ROOT)];
    candidates.extend(
        std::env::var_os("XDG_RUNTIME_DIR")
            .filter(|d| !d.is_empty())
            .map(|d| PathBuf::from(d).join("umptcp")),
    );
    candidates.push(std::env::temp_dir().join(format!("umptcp-{}", nix::unistd::geteuid())));
    let mut last = None;
    for path in candidates {
        match private_directory(&path) {
            Ok(path) => return Ok(path),
            Err(source) => last = Some(DriverError::Record { path, source }),
        }
    }
    Err(last.unwrap_or(DriverError::Gone))
}

/// The records of this network namespace.
#[derive(Clone, Debug)]
pub(super) struct Registry {
    directory: PathBuf,
    namespace: String,
    boot: String,
}

/// Held while shared settings are read and changed.
pub(super) struct RegistryLock {
    _lock: Lock,
}

impl Registry {
    /// The registry of the calling thread's network namespace, in `chosen` or one of the default directories.
    pub(super) fn open(chosen: Option<&Path>) -> Result<Registry, DriverError> {
        let directory = directory(chosen)?;
        let namespace =
            namespace_name().map_err(|source| DriverError::Record { path: directory.clone(), source })?;
        Ok(Registry { directory, namespace, boot: clock::boot_id() })
    }

    fn error(&self, path: &Path) -> impl Fn(io::Error) -> DriverError + use<> {
        let path = path.to_owned();
        move |source| DriverError::Record { path: path.clone(), source }
    }

    /// Waits until no other instance is changing settings, in any namespace: a single lock file, so that only
    /// one is left behind. Not for ever: a process may have been stopped meanwhile.
    pub(super) fn lock(&self) -> Result<RegistryLock, DriverError> {
        self.lock_within(PATIENCE)
    }

    /// The same, for so long.
    pub(super) fn lock_within(&self, patience: Duration) -> Result<RegistryLock, DriverError> {
        let path = self.directory.join("lock");
        match lock::lock(&path, patience, "changing this host's settings") {
            Ok(lock) => Ok(RegistryLock { _lock: lock }),
            Err(LockError::Io(error)) => Err(self.error(&path)(error)),
            Err(LockError::Held { holder, waited }) => Err(DriverError::Held { holder, waited, path }),
        }
    }

    /// Creates our record.
    pub(super) fn create(&self, _lock: &RegistryLock) -> Result<Record, DriverError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let pid = std::process::id();
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = self.directory.join(format!("{}-{pid}-{count}.record", self.namespace));
            let created = OpenOptions::new().create_new(true).append(true).mode(0o600).open(&path);
            let file = match created {
                // Belongs to a process in another PID namespace, or to one that is gone.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other.map_err(self.error(&path))?,
            };
            file.lock().map_err(self.error(&path))?;
            let mut record = Record { file, path, entries: Vec::new(), next: 0 };
            record.append(&Line::Instance {
                version: VERSION,
                pid,
                boot: self.boot.clone(),
                namespace: self.namespace.clone(),
                shown: namespace_shown(),
                pids: pids_shown(),
            })?;
            return Ok(record);
        }
    }

    /// Processes that have died and left records of this namespace in a directory that another user keeps them in. Their
    /// contents are not ours to read; their names say whose they are.
    pub(super) fn left_to_others(&self, theirs: &Path) -> Vec<u32> {
        if self.directory == theirs {
            return Vec::new();
        }
        let dead = |path: PathBuf| {
            let of_here = path.file_name()?.to_str()?.strip_prefix(self.namespace.as_str())?;
            let (pid, _) = of_here.strip_prefix('-')?.strip_suffix(".record")?.split_once('-')?;
            let pid: i32 = pid.parse().ok().filter(|pid| *pid > 0)?;
            let gone = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None)
                == Err(nix::errno::Errno::ESRCH);
            gone.then_some(pid as u32)
        };
        let listing = fs::read_dir(theirs).into_iter().flatten();
        let found: BTreeSet<u32> = listing.filter_map(|entry| dead(entry.ok()?.path())).collect();
        found.into_iter().collect()
    }

    /// The process that has made such a change in this namespace, and lives.
    pub(super) fn holder_of(&self, is_it: impl Fn(&HostChange) -> bool) -> Option<u32> {
        let listing = fs::read_dir(&self.directory).ok()?;
        listing.filter_map(|entry| Some(entry.ok()?.path())).find_map(|path| {
            let text = fs::read_to_string(path).ok()?;
            let (origin, entries) = parse(&text)?;
            let here = origin.boot == self.boot && origin.namespace == self.namespace;
            let known = here && origin.pids == pids_shown() && !origin.has_ended();
            (known && entries.iter().any(|entry| is_it(&entry.change))).then_some(origin.pid)
        })
    }

    /// Records of this namespace except `own`: the changes of running instances, and the records of crashed
    /// ones, locked for us. Records from before a reboot, or of a namespace that is gone, are deleted: there
    /// is nothing to undo but cgroups, which are of no network namespace.
    pub(super) fn survey(
        &self,
        _lock: &RegistryLock,
        own: Option<&Record>,
    ) -> Result<(Vec<Vec<Entry>>, Vec<Record>), DriverError> {
        let (mut held, mut left) = (Vec::new(), Vec::new());
        let mut holders = Holders::default();
        let listing = fs::read_dir(&self.directory).map_err(self.error(&self.directory))?;
        for path in listing.filter_map(|entry| entry.ok().map(|e| e.path())) {
            if path.extension().is_none_or(|e| e != "record") || own.is_some_and(|r| r.path == path) {
                continue;
            }
            let Ok(mut file) = OpenOptions::new().read(true).append(true).open(&path) else { continue };
            let mut text = String::new();
            if file.read_to_string(&mut text).is_err() {
                continue;
            }
            let Some((origin, entries)) = parse(&text) else {
                tracing::warn!(record = %path.display(), "ignoring an unreadable record");
                continue;
            };
            let locked = origin.try_lock(&file);
            if origin.boot == self.boot && origin.namespace == self.namespace {
                if locked {
                    let next = entries.iter().map(|e| e.number + 1).max().unwrap_or(0);
                    left.push(Record { file, path, entries, next });
                } else {
                    held.push(entries);
                }
            } else if locked {
                if origin.boot == self.boot {
                    remove_empty_cgroups(&entries);
                }
                let gone = origin.boot != self.boot || holders.is_gone(&origin.namespace, &origin.shown);
                if gone {
                    let _ = fs::remove_file(&path);
                }
            }
        }
        Ok((held, left))
    }
}

/// Removes the cgroups among these changes whose processes have ended. The others wait for somebody in the network
/// namespace of these processes.
fn remove_empty_cgroups(entries: &[Entry]) {
    for entry in entries {
        if let HostChange::Cgroup(path) = &entry.change
            && let Ok(folder) = cgroup::folder(path)
        {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Where a record comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Origin {
    boot: String,
    namespace: String,
    shown: String,
    pid: u32,
    pids: String,
}

/// How long a lock may outlive its process.
const INHERITED: Duration = Duration::from_secs(2);

impl Origin {
    /// Whether the owner is certainly gone.
    fn has_ended(&self) -> bool {
        let pid = i32::try_from(self.pid).map(nix::unistd::Pid::from_raw);
        self.pids == pids_shown()
            && !self.pids.is_empty()
            && pid.is_ok_and(|pid| nix::sys::signal::kill(pid, None) == Err(nix::errno::Errno::ESRCH))
    }

    /// Locks the record, unless its owner lives.
    ///
    /// A process that is killed while it starts another (`nft`) leaves a copy of its lock with that one until
    /// it has loaded its program. Whoever then took the record for that of a running instance would undo
    /// nothing.
    fn try_lock(&self, file: &File) -> bool {
        let start = Instant::now();
        loop {
            if file.try_lock().is_ok() {
                return true;
            }
            if !self.has_ended() || start.elapsed() > INHERITED {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Origin, and changes not yet undone; `None` if it is not a record of this version. A last line truncated by
/// a crash belongs to a change that was not made.
fn parse(text: &str) -> Option<(Origin, Vec<Entry>)> {
    let mut lines = text.lines();
    let first = serde_json::from_str(lines.next()?).ok()?;
    let Line::Instance { version: VERSION, boot, namespace, shown, pid, pids } = first else { return None };
    let mut entries: Vec<Entry> = Vec::new();
    for line in lines {
        match serde_json::from_str(line) {
            Ok(Line::Done(entry)) => entries.push(entry),
            Ok(Line::Undone(number)) => entries.retain(|e| e.number != number),
            _ => {}
        }
    }
    Some((Origin { boot, namespace, shown, pid, pids }, entries))
}

/// The record of one instance, locked.
#[derive(Debug)]
pub(super) struct Record {
    file: File,
    path: PathBuf,
    entries: Vec<Entry>,
    next: u64,
}

impl Record {
    fn append(&mut self, line: &Line) -> Result<(), DriverError> {
        let error = |source| DriverError::Record { path: self.path.clone(), source };
        let mut text = serde_json::to_string(line).map_err(|e| error(e.into()))?;
        text.push('\n');
        self.file.write_all(text.as_bytes()).map_err(error)
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Changes that have not been undone.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Records a change before it is made.
    pub(super) fn note(&mut self, path: Option<&str>, change: HostChange) -> Result<u64, DriverError> {
        let entry = Entry { number: self.next, path: path.map(str::to_owned), change };
        self.append(&Line::Done(entry.clone()))?;
        self.next += 1;
        self.entries.push(entry);
        Ok(self.next - 1)
    }

    /// Records that a change has been undone.
    pub(super) fn strike(&mut self, number: u64) -> Result<(), DriverError> {
        self.append(&Line::Undone(number))?;
        self.entries.retain(|e| e.number != number);
        Ok(())
    }

    /// Deletes the record once all its changes have been undone.
    pub(super) fn remove(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(record = %self.path.display(), %error, "cannot remove the record");
        }
    }
}

/// The value a setting had before any instance changed it, if one of `entries` is such a change.
pub(super) fn prior_value<'a>(entries: impl Iterator<Item = &'a Entry>, setting: &str) -> Option<String> {
    entries.into_iter().find_map(|entry| match &entry.change {
        change @ HostChange::Sysctl { prior, .. } if change.is_of(setting) => Some(prior.clone()),
        _ => None,
    })
}

/// The ports that `entries` say are used.
pub(super) fn used_ports<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<(u16, u16)> {
    let ports = |entry: &Entry| match entry.change {
        HostChange::ReservedPorts { first, last } | HostChange::UsedPorts { first, last } => {
            Some((first, last))
        }
        _ => None,
    };
    entries.filter_map(ports).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(name: &str) -> (Registry, PathBuf) {
        let path = std::env::temp_dir().join(format!("umptcp-record-test-{}-{name}", std::process::id()));
        (Registry::open(Some(&path)).unwrap(), path)
    }

    #[test]
    fn a_record_is_held_until_its_file_is_closed() {
        let (registry, path) = registry("held");
        let lock = registry.lock().unwrap();
        let mut record = registry.create(&lock).unwrap();
        let first = record.note(Some("umptcp0"), HostChange::Table(7)).unwrap();
        record.note(None, HostChange::ReservedPorts { first: 1, last: 2 }).unwrap();
        record.strike(first).unwrap();
        let (held, left) = registry.survey(&lock, None).unwrap();
        assert_eq!(held.len(), 1);
        assert_eq!(held[0].len(), 1);
        assert!(left.is_empty());
        drop(record);
        let (held, mut left) = registry.survey(&lock, None).unwrap();
        assert!(held.is_empty());
        assert_eq!(left[0].entries()[0].change, HostChange::ReservedPorts { first: 1, last: 2 });
        left.remove(0).remove();
        assert!(registry.survey(&lock, None).unwrap().1.is_empty());
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_lock_is_waited_for_and_not_for_ever() {
        let (registry, path) = registry("patience");
        let lock = registry.lock().unwrap();
        let error = registry.lock_within(Duration::from_millis(20)).err().unwrap().to_string();
        assert!(error.contains(&format!("process {} (", std::process::id())), "{error}");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| registry.lock_within(Duration::from_secs(60)).map(drop));
            std::thread::sleep(Duration::from_millis(20));
            drop(lock);
            waiting.join().unwrap().unwrap();
        });
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_lock_that_outlives_its_process_does_not_make_its_record_one_of_a_running_instance() {
        let (registry, path) = registry("inherited");
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let lock = registry.lock().unwrap();
        let record = registry.create(&lock).unwrap();
        let text = fs::read_to_string(record.path()).unwrap();
        let own = format!("\"pid\":{}", std::process::id());
        assert!(text.contains(&own), "{text}");
        fs::write(record.path(), text.replace(&own, &format!("\"pid\":{}", ended.id()))).unwrap();
        let copy = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(record);
        });
        let (held, left) = registry.survey(&lock, None).unwrap();
        assert_eq!((held.len(), left.len()), (0, 1));
        copy.join().unwrap();
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn who_may_not_undo_what_others_left_is_told_of_it() {
        let (registry, path) = registry("others");
        let theirs = path.join("theirs");
        fs::create_dir(&theirs).unwrap();
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let (own, dead) = (&registry.namespace, ended.id());
        let name = |namespace: &str, pid: u32| theirs.join(format!("{namespace}-{pid}-0.record"));
        for file in
            [name(own, dead), name(own, std::process::id()), name("other", dead), theirs.join("x.sock")]
        {
            fs::write(file, "").unwrap();
        }
        assert_eq!(registry.left_to_others(&theirs), [dead], "not of who lives, nor of another namespace");
        assert!(registry.left_to_others(&path.join("none")).is_empty());
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn records_of_namespaces_and_kernels_that_are_gone_are_removed() {
        let (registry, path) = registry("gone");
        let lock = registry.lock().unwrap();
        let put = |name: &str, boot: &str, shown: &str| {
            let line = Line::Instance {
                version: VERSION,
                pid: 1,
                boot: boot.into(),
                namespace: "elsewhere".into(),
                shown: shown.into(),
                pids: String::new(),
            };
            fs::write(path.join(name), serde_json::to_string(&line).unwrap() + "\n").unwrap();
        };
        put("a.record", "another boot", &namespace_shown());
        put("b.record", &registry.boot, "net:[1]");
        // Of a namespace that exists, but is not ours by name.
        put("c.record", &registry.boot, &namespace_shown());
        let (held, left) = registry.survey(&lock, None).unwrap();
        assert!(held.is_empty() && left.is_empty());
        assert!(!path.join("a.record").exists() && path.join("c.record").exists());
        assert_eq!(path.join("b.record").exists(), !Holders::default().is_gone("elsewhere", "net:[1]"));
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_record_stays_as_long_as_a_descriptor_holds_its_namespace() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let (registry, path) = registry("descriptor");
        let chosen = path.clone();
        let elsewhere = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let registry = Registry::open(Some(&chosen)).unwrap();
            let record = registry.create(&registry.lock().unwrap()).unwrap();
            (File::open("/proc/thread-self/ns/net").unwrap(), record.path().to_owned())
        });
        let (held, record) = elsewhere.join().unwrap();
        let stays = || {
            let (held, left) = registry.survey(&registry.lock().unwrap(), None).unwrap();
            assert!(held.is_empty() && left.is_empty());
            record.exists()
        };
        assert!(stays());
        drop(held);
        // Only the kernel can say so, unless nothing on this host is hidden.
        if Holders::default().is_gone(&format!("{:x}", u64::MAX), "net:[1]") {
            let end = Instant::now() + Duration::from_secs(60);
            while stays() {
                assert!(Instant::now() < end);
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_setting_goes_by_the_present_name_of_its_device() {
        let lo = nix::net::if_::if_nametoindex("lo").unwrap();
        let change = |name: &str, device| HostChange::Sysctl {
            name: name.into(),
            prior: "0".into(),
            set: "1".into(),
            unless: None,
            device,
        };
        let renamed = change("net/ipv4/conf/old0/forwarding", Some(lo));
        assert!(renamed.is_of("net/ipv4/conf/lo/forwarding"));
        assert!(!renamed.is_of("net/ipv4/conf/old0/forwarding"), "another device has this name now");
        assert!(
            !renamed.is_of("net/ipv6/conf/lo/forwarding") && !renamed.is_of("net/ipv4/conf/lo/rp_filter")
        );
        for device in [None, Some(0x7fff_fff0)] {
            assert!(change("net/ipv4/conf/old0/forwarding", device).is_of("net/ipv4/conf/old0/forwarding"));
        }
    }

    #[test]
    fn a_truncated_line_is_a_change_not_made() {
        let header = serde_json::to_string(&Line::Instance {
            version: VERSION,
            pid: 1,
            boot: "b".into(),
            namespace: "n".into(),
            shown: "net:[1]".into(),
            pids: String::new(),
        })
        .unwrap();
        let (_, entries) = parse(&format!(
            "{header}\n{{\"done\":{{\"number\":0,\"deed\":{{\"table\":5}}}}}}\n{{\"done\":{{\"num"
        ))
        .unwrap();
        assert_eq!(entries, [Entry { number: 0, path: None, change: HostChange::Table(5) }]);
        assert!(parse("").is_none());
        assert!(
            parse(
                "{\"instance\":{\"version\":99,\"pid\":1,\"boot\":\"\",\"namespace\":\"\",\"shown\":\"\"}}"
            )
            .is_none()
        );
    }

    #[test]
    fn a_stranger_s_directory_is_refused() {
        let path = std::env::temp_dir().join(format!("umptcp-record-test-{}-link", std::process::id()));
        let _ = fs::remove_file(&path);
        std::os::unix::fs::symlink("/tmp", &path).unwrap();
        assert!(matches!(Registry::open(Some(&path)), Err(DriverError::Record { .. })));
        fs::remove_file(path).unwrap();
    }
}

//! Network namespaces that exist as long as they are held.

use crate::command;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A network namespace. Clones refer to the same namespace. The kernel removes it, with every device in it,
/// once the last clone, thread and process in it is gone.
#[derive(Clone, Debug)]
pub struct Netns {
    name: String,
    file: Arc<File>,
}

impl Netns {
    /// Creates a namespace with its loopback device up. `name` is for messages.
    ///
    /// # Panics
    /// Without the privileges to create one.
    pub fn new(name: &str) -> Self {
        let file = thread::scope(|scope| {
            scope
                .spawn(|| {
                    unshare(CloneFlags::CLONE_NEWNET).unwrap_or_else(|e| {
                        panic!("cannot create a network namespace ({e}): run the tests with `cargo xtask test`, as root")
                    });
                    File::open("/proc/thread-self/ns/net").expect("/proc is mounted")
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let ns = Netns { name: name.to_owned(), file: Arc::new(file) };
        ns.sh("ip link set lo up");
        // Makes link-local addresses usable immediately; otherwise snapshots of the first second would differ
        // from later ones.
        ns.sysctl("net.ipv6.conf.default.accept_dad", "0");
        ns
    }

    /// Its name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path for `ip link ... netns PATH`, valid as long as this process holds the namespace.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Waits up to 30 seconds until the kernel has done what follows from `device` being up with an IPv6 address: a
    /// link-local address, and a local route for each address. It does that in the background.
    ///
    /// # Panics
    /// On timeout.
    pub fn settle(&self, device: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let shown = self.sh(&format!("ip -6 -o addr show dev {device}"));
            let routes = self.sh(&format!("ip -6 route show table local type local dev {device}"));
            let addresses: Vec<&str> = shown
                .split_whitespace()
                .skip_while(|word| *word != "inet6")
                .filter_map(|word| word.split_once('/').map(|(address, _)| address))
                .collect();
            let has_route = |address: &&str| routes.split_whitespace().any(|word| word == *address);
            if addresses.iter().any(|a| a.starts_with("fe80:")) && addresses.iter().all(has_route) {
                return;
            }
            assert!(Instant::now() < deadline, "{device} is not ready:\n{shown}{routes}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Moves the calling thread into the namespace.
    fn enter_network(&self) {
        setns(&*self.file, CloneFlags::CLONE_NEWNET)
            .unwrap_or_else(|e| panic!("cannot enter namespace {}: {e}", self.name));
    }

    /// Moves the calling thread, and the threads and processes it starts, into the namespace, with a matching
    /// /sys, like `ip netns exec`.
    fn enter(&self) {
        self.enter_network();
        unshare(CloneFlags::CLONE_NEWNS)
            .expect("a mount namespace can be made where a network namespace can");
        mount::<str, str, str, str>(None, "/", None, MsFlags::MS_REC | MsFlags::MS_SLAVE, None)
            .expect("mounts can be made private in a new mount namespace");
        mount::<str, str, str, str>(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None)
            .expect("/sys of the namespace can be mounted");
    }

    /// Runs `work` on a thread in the namespace and returns its result. Panics are propagated.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.run_after(Self::enter, work)
    }

    fn run_after<T: Send>(&self, enter: impl FnOnce(&Self) + Send, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    enter(self);
                    work()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts `work` on a thread in the namespace.
    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let ns = self.clone();
        thread::Builder::new()
            .name(self.name.clone())
            .spawn(move || {
                ns.enter();
                work()
            })
            .expect("a thread can be started")
    }

    /// Runs a command, split at white space, in the namespace and returns its output.
    ///
    /// # Panics
    /// When it fails.
    pub fn sh(&self, line: &str) -> String {
        self.run_after(Self::enter_network, || command::run(line))
    }

    /// Whether somebody listens on the TCP port.
    ///
    /// # Panics
    /// When `ss` fails.
    pub fn listens(&self, port: u16) -> bool {
        !self.sh(&format!("ss -Hltn sport = :{port}")).trim().is_empty()
    }

    /// Runs each non-empty line as a command.
    ///
    /// # Panics
    /// At the first command that fails.
    pub fn script(&self, lines: &str) {
        self.run_after(Self::enter_network, || {
            for line in lines.lines().map(str::trim).filter(|l| !l.is_empty()) {
                command::run(line);
            }
        });
    }

    /// Adds nftables rules.
    ///
    /// # Panics
    /// When nft refuses it.
    pub fn nft(&self, rules: &str) {
        self.run_after(Self::enter_network, || command::run_with_input("nft", &["-f", "-"], rules));
    }

    /// Writes a sysctl of the namespace, named with dots or slashes (slashes if a device name contains dots).
    ///
    /// # Panics
    /// When there is no such sysctl, or the kernel refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) {
        let path = if key.contains('/') {
            format!("/proc/sys/{key}")
        } else {
            format!("/proc/sys/{}", key.replace('.', "/"))
        };
        self.run_after(Self::enter_network, || {
            std::fs::write(&path, value)
                .unwrap_or_else(|e| panic!("cannot set {key} to {value} in namespace {}: {e}", self.name));
        });
    }

    /// Reads a file of /proc as seen in the namespace, such as `/proc/thread-self/net/dev`.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn read(&self, path: &str) -> String {
        self.run_after(Self::enter_network, || {
            std::fs::read_to_string(path).unwrap_or_else(|e| panic!("cannot read {path}: {e}"))
        })
    }
}

/// Connects two namespaces with a pair of veth devices, both up.
///
/// # Panics
/// When a name is taken.
pub fn veth(a: &Netns, a_device: &str, b: &Netns, b_device: &str) {
    a.sh(&format!("ip link add {a_device} type veth peer name {b_device} netns {}", b.path()));
    a.sh(&format!("ip link set {a_device} up"));
    b.sh(&format!("ip link set {b_device} up"));
}

/// Limits the sending rate of `device` to `mbit` Mbit/s with a token bucket, like the project's benchmarks.
///
/// # Panics
/// When tc refuses.
pub fn shape(ns: &Netns, device: &str, mbit: f64) {
    // Fast links pass 64 kB segments whole, like a NIC with segmentation offload: the bucket holds one
    // segment, the queue 20 ms but at least four segments. Slow links split them into packets, or a queue of
    // four segments would be a second long.
    let bytes_per_second = mbit * 1e6 / 8.0;
    let (burst, limit) = if mbit < 20.0 {
        (3_100, ((bytes_per_second * 0.120) as u64).max(16 * 1_514))
    } else {
        (66_000, ((bytes_per_second * 0.020) as u64).max(4 * 65_536))
    };
    let kbit = (mbit * 1000.0) as u64;
    ns.sh(&format!("tc qdisc replace dev {device} root tbf rate {kbit}kbit burst {burst} limit {limit}"));
}

/// The same with a class of a hierarchical token bucket, as people shape their NICs by hand.
///
/// # Panics
/// When tc refuses.
pub fn shape_by_class(ns: &Netns, device: &str, mbit: f64) {
    let kbit = (mbit * 1000.0) as u64;
    ns.sh(&format!("tc qdisc replace dev {device} root handle 1: htb default 1"));
    ns.sh(&format!("tc class add dev {device} parent 1: classid 1:1 htb rate {kbit}kbit"));
}

/// Bytes received and sent, from the device's counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DeviceBytes {
    /// Bytes received, link headers included.
    pub received: u64,
    /// Bytes sent, link headers included.
    pub sent: u64,
}

/// Reads the byte counters of `device`.
///
/// # Panics
/// When there is no such device.
pub fn device_bytes(ns: &Netns, device: &str) -> DeviceBytes {
    let table = ns.read("/proc/thread-self/net/dev");
    parse_device_bytes(&table, device)
        .unwrap_or_else(|| panic!("no device {device} in namespace {}", ns.name()))
}

fn parse_device_bytes(table: &str, device: &str) -> Option<DeviceBytes> {
    let row = table.lines().find_map(|l| l.trim_start().strip_prefix(device)?.strip_prefix(':'))?;
    let fields: Vec<u64> = row.split_whitespace().filter_map(|f| f.parse().ok()).collect();
    Some(DeviceBytes { received: *fields.first()?, sent: *fields.get(8)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_table_is_parsed() {
        let table = "Inter-|   Receive\n face |bytes\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  \
                     eth1:17 18 0 0 0 0 0 0 19 20 0 0 0 0 0 0\n";
        assert_eq!(parse_device_bytes(table, "eth1"), Some(DeviceBytes { received: 17, sent: 19 }));
        assert_eq!(parse_device_bytes(table, "eth"), None);
    }
}

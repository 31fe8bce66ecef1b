//! What can go wrong while paths are set up, and the remedy.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use thiserror::Error;

/// An error of the driver. Its text names the cause and, if there is one, the remedy.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DriverError {
    /// A path description could not be read.
    #[error("path {text:?}: {reason}")]
    Spec {
        /// The description as given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No network device has this name.
    #[error("no network device is called {device:?}; available: {}", .known.join(", "))]
    UnknownDevice {
        /// The name given.
        device: String,
        /// Names of the existing devices.
        known: Vec<String>,
    },
    /// A cgroup cannot be made, entered or removed.
    #[error("cgroup {path}: {source}")]
    Cgroup {
        /// Its path below the root of cgroups.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The device is down.
    #[error("{device} is down: {reason}")]
    DeviceDown {
        /// Name of the device.
        device: String,
        /// Why, or the remedy.
        reason: String,
    },
    /// The same device was named twice, or is not a NIC.
    #[error("{device} cannot carry a path: {reason}")]
    UnsuitableDevice {
        /// Name of the device.
        device: String,
        /// Why not.
        reason: String,
    },
    /// The NIC has no address for NAT.
    #[error(
        "{device} has no address to translate to; add one (`ip address add ... dev {device}`), or use mode=routed"
    )]
    NoAddress {
        /// Name of the NIC.
        device: String,
    },
    /// The NIC has no route.
    #[error(
        "{device} has no route{family}, so nothing can be sent over this path; add one (`ip route add ... dev {device}`)"
    )]
    NoRoute {
        /// Name of the NIC.
        device: String,
        /// Which family, with a leading space, or nothing.
        family: &'static str,
    },
    /// No NIC is usable.
    #[error("no usable network device: a device must be up and have carrier, an address and a route ({})", .seen.join("; "))]
    NoDevice {
        /// Each device with the reason why it was not used.
        seen: Vec<String>,
    },
    /// A routed path needs an address of its own.
    #[error(
        "{device}: mode=routed requires address=A, an address that the network routes to this host or a free one of the NIC's subnet"
    )]
    AddressRequired {
        /// Name of the NIC.
        device: String,
    },
    /// The requested address is in use.
    #[error("address {address} is already taken: {holder}")]
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// Who uses it.
        holder: String,
    },
    /// The requested address cannot be used for connections.
    #[error("address {address} cannot be used: {reason}")]
    BadAddress {
        /// The address.
        address: IpAddr,
        /// Why not.
        reason: String,
    },
    /// No private address is free.
    #[error(
        "found no free private address for {device}: every candidate range is in use; choose one with address=A"
    )]
    NoPrivateAddress {
        /// Name of the NIC.
        device: String,
    },
    /// A port to listen on is in use.
    #[error(
        "port {port} of {address} is already in use{by}; stop the program that uses it, or listen on another port"
    )]
    PortInUse {
        /// The NIC's address.
        address: IpAddr,
        /// The port.
        port: u16,
        /// Who uses it, as a phrase with a leading space, or nothing.
        by: String,
    },
    /// The range of local ports is unsuitable.
    #[error("port range {first}-{last}: {reason}")]
    PortRange {
        /// First port.
        first: u16,
        /// Last port.
        last: u16,
        /// What is wrong with it.
        reason: String,
    },
    /// A TUN device could not be made.
    #[error(transparent)]
    Device(#[from] crate::device::DeviceError),
    /// Not permitted.
    #[error("no permission to {what}: requires root, CAP_NET_ADMIN, or a user and network namespace")]
    Permission {
        /// The operation that failed.
        what: String,
    },
    /// Another instance has been changing this host's settings for long: settings are changed by one at a time.
    #[error(
        "{holder} has been changing this host's settings for {} s, and others wait for it: if it is stopped, let it go on (kill -CONT) or end it; \
         the lock is {}",
        .waited.as_secs(), .path.display()
    )]
    Held {
        /// Who it is, as far as is known.
        holder: String,
        /// How long it was waited for.
        waited: std::time::Duration,
        /// The file that is locked.
        path: PathBuf,
    },
    /// Packets are directed to another instance already.
    #[error(
        "another umptcp has the table {table} of nftables{}",
        .process.map_or_else(String::new, |id| format!(": process {id}"))
    )]
    Diverted {
        /// The table.
        table: String,
        /// The process of the other instance, where it is known and of this PID namespace.
        process: Option<u32>,
    },
    /// The `nft` program is missing.
    #[error(
        "the program `nft` was not found ({searched}): mode=nat requires it (Debian: `apt install nftables`), mode=routed does not"
    )]
    NoNft {
        /// Where it was looked for.
        searched: String,
    },
    /// The kernel lacks a part of nftables that NAT requires.
    #[error(
        "this kernel lacks parts of nftables that mode=nat requires: {missing}; load or build the modules, or use mode=routed"
    )]
    NatUnsupported {
        /// The missing parts with their kernel options.
        missing: String,
    },
    /// `nft` refused a ruleset.
    #[error("nft refused the ruleset for {device}: {message}")]
    Nft {
        /// Name of the NIC.
        device: String,
        /// Its message.
        message: String,
    },
    /// Something on this host would drop the packets of a path.
    #[error("packets of the path over {device} would be dropped by {by}; {remedy}")]
    Blocked {
        /// Name of the NIC.
        device: String,
        /// What drops them.
        by: String,
        /// The remedy.
        remedy: String,
    },
    /// A kernel setting could not be read or written.
    #[error("cannot set {name} to {value}: {source}{}", sysctl_hint(.source))]
    Sysctl {
        /// Name of the setting, relative to /proc/sys.
        name: String,
        /// The value wanted.
        value: String,
        /// The system's error.
        source: io::Error,
    },
    /// A request to the kernel's routing failed.
    #[error("cannot {what}: {source}")]
    Netlink {
        /// The operation that failed.
        what: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// The record of what was set up could not be kept.
    #[error("cannot keep a record of what is set up at {}: {source}", .path.display())]
    Record {
        /// File or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The portable build has no such path.
    #[error(
        "{device}: {reason}; without what only Linux has, a path is ADDRESS,mode=udp, with an address of this host"
    )]
    NotPortable {
        /// What was named as the NIC.
        device: String,
        /// What is not to be had.
        reason: &'static str,
    },
    /// The paths' thread has ended: the paths have been removed.
    #[error("the paths have already been removed")]
    Gone,
}

impl DriverError {
    /// A failed request to the kernel; a lack of permission gets its own variant.
    #[cfg(all(target_os = "linux", not(umptcp_portable)))]
    pub(crate) fn netlink(what: impl Into<String>, source: io::Error) -> Self {
        let what = what.into();
        match source.kind() {
            io::ErrorKind::PermissionDenied => DriverError::Permission { what },
            _ => DriverError::Netlink { what, source },
        }
    }
}

fn sysctl_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            " (/proc/sys is mounted read-only, as in many containers: set it from outside)"
        }
        io::ErrorKind::PermissionDenied => " (requires root, or a user and network namespace)",
        io::ErrorKind::NotFound => " (this kernel has no such setting)",
        _ => "",
    }
}

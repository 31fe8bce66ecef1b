//! What can go wrong while paths are set up, and what to do about it.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use thiserror::Error;

/// An error of the driver. Its text names the cause and, where there is one, the remedy.
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
    #[error("there is no network device {device:?} here (there are: {})", .known.join(", "))]
    UnknownDevice {
        /// The name given.
        device: String,
        /// Names of the devices there are.
        known: Vec<String>,
    },
    /// The device is down.
    #[error("{device} is down: {reason}")]
    DeviceDown {
        /// Name of the device.
        device: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The same device was named twice, or is no NIC one could bind to.
    #[error("{device} cannot carry a path: {reason}")]
    UnsuitableDevice {
        /// Name of the device.
        device: String,
        /// Why not.
        reason: String,
    },
    /// The NIC has no address to translate to.
    #[error(
        "{device} has no address that packets could be translated to; give it one (`ip address add ... dev {device}`), or use mode=routed"
    )]
    NoAddress {
        /// Name of the NIC.
        device: String,
    },
    /// The NIC has no route.
    #[error(
        "{device} has no route{family}: packets of this path could go nowhere; add one (`ip route add ... dev {device}`)"
    )]
    NoRoute {
        /// Name of the NIC.
        device: String,
        /// Which family, with a leading space, or nothing.
        family: &'static str,
    },
    /// No NIC is usable.
    #[error("no usable network device: none is up, with carrier, an address and a route ({})", .seen.join("; "))]
    NoDevice {
        /// Each device with the reason it was passed over.
        seen: Vec<String>,
    },
    /// A routed path needs an address of its own.
    #[error(
        "{device}: mode=routed takes address=A, an address that the network routes to this host or one free in the NIC's own subnet"
    )]
    AddressRequired {
        /// Name of the NIC.
        device: String,
    },
    /// The address asked for belongs to somebody else.
    #[error("address {address} is already taken: {holder}")]
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// By whom.
        holder: String,
    },
    /// The address asked for cannot be an end of a connection.
    #[error("address {address} cannot be used: {reason}")]
    BadAddress {
        /// The address.
        address: IpAddr,
        /// Why not.
        reason: String,
    },
    /// No private address is free.
    #[error(
        "found no free private address for {device}: every candidate range is in use; name one with address=A"
    )]
    NoPrivateAddress {
        /// Name of the NIC.
        device: String,
    },
    /// A port to listen on is taken.
    #[error(
        "port {port} of {address} is already in use{by}; stop the program that holds it, or listen on another port"
    )]
    PortInUse {
        /// The NIC's address.
        address: IpAddr,
        /// The port.
        port: u16,
        /// By whom, with leading words, or nothing.
        by: String,
    },
    /// The range of local ports does not do.
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
    /// The kernel refused for want of privilege.
    #[error(
        "no permission to {what}: run as root, with CAP_NET_ADMIN, or within a user and network namespace"
    )]
    Permission {
        /// What was tried.
        what: String,
    },
    /// The `nft` program is missing.
    #[error(
        "the program `nft` was not found ({searched}): mode=nat needs it (Debian: `apt install nftables`); mode=routed does not"
    )]
    NoNft {
        /// Where it was sought.
        searched: String,
    },
    /// The kernel lacks a part of nftables that translation needs.
    #[error(
        "this kernel lacks what mode=nat needs of nftables: {missing}; load or build the modules, or use mode=routed"
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
        /// What it said.
        message: String,
    },
    /// Something on this host would drop the packets of a path.
    #[error("packets of the path over {device} would be dropped by {by}; {remedy}")]
    Blocked {
        /// Name of the NIC.
        device: String,
        /// What drops them.
        by: String,
        /// What to do.
        remedy: String,
    },
    /// A kernel setting could not be read or written.
    #[error("cannot set {name} to {value}: {source}{}", sysctl_hint(.source))]
    Sysctl {
        /// Name of the setting, relative to /proc/sys.
        name: String,
        /// The value wanted.
        value: String,
        /// What the system said.
        source: io::Error,
    },
    /// A request to the kernel's routing failed.
    #[error("cannot {what}: {source}")]
    Netlink {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The record of what was set up could not be kept.
    #[error("cannot keep a record of what is set up at {}: {source}", .path.display())]
    Record {
        /// File or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The thread that keeps the paths is gone: clean-up has run.
    #[error("the paths have been removed already")]
    Gone,
}

impl DriverError {
    /// A failed request to the kernel: want of privilege is told apart.
    pub(crate) fn netlink(what: impl Into<String>, source: io::Error) -> Self {
        let what = what.into();
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => DriverError::Permission { what },
            _ => DriverError::Netlink { what, source },
        }
    }
}

fn sysctl_hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EROFS) => " (/proc/sys is mounted read-only, as in many containers: set it from outside)",
        Some(libc::EPERM | libc::EACCES) => " (run as root, or within a user and network namespace)",
        Some(libc::ENOENT) => " (this kernel has no such setting)",
        _ => "",
    }
}

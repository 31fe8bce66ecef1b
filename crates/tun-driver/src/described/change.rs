//! What happens to paths and NICs.

use super::nic::NicInfo;
use std::net::IpAddr;

/// A change of a path or its NIC. Paths are identified by the name of their TUN device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PathChange {
    /// Its NIC is up and has carrier again.
    Up {
        /// The path.
        tun: String,
    },
    /// Its NIC is down or without carrier.
    Down {
        /// The path.
        tun: String,
        /// Whether the device no longer exists.
        gone: bool,
    },
    /// The NIC's first address of a family changed (mode `nat`): connections translated to the old one are
    /// lost.
    Addresses {
        /// The path.
        tun: String,
        /// The NIC's first address of each family that it had before.
        before: Vec<IpAddr>,
        /// The same now.
        nic: Vec<IpAddr>,
        /// The addresses to advertise now.
        advertise: Vec<IpAddr>,
    },
    /// The NIC's routes changed: destinations may have become reachable or unreachable.
    Routes {
        /// The path.
        tun: String,
    },
    /// The NIC's MTU changed; the TUN device's has followed.
    Mtu {
        /// The path.
        tun: String,
        /// Largest IP packet, in bytes.
        mtu: u16,
    },
    /// Packets leave over it, and nothing comes back.
    Silent {
        /// The path.
        tun: String,
        /// Why, as far as this host is concerned.
        cause: String,
    },
    /// A device without a path has become usable.
    NewNic(NicInfo),
}

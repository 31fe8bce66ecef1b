//! Paths: for each NIC, a TUN device and an address of the stack that is bound to the NIC.
//!
//! In mode [`Mode::Nat`] the address is private, and an nftables ruleset translates it to the NIC's, without
//! connection tracking where the host's firewall allows it. In mode [`Mode::Routed`] it is an address that
//! the network routes to this host, or one in the NIC's subnet for which the host answers (proxy ARP and
//! neighbour discovery); this mode does not use nftables.
//!
//! In both modes a policy rule `from ADDRESS` selects a table that mirrors the NIC's routes and ends with
//! `unreachable`, so that packets from the address leave through that NIC or not at all. Rules and tables
//! that others remove are put back, and rules move ahead of others' that take the path's packets.
//!
//! A path changes the following on the host:
//!
//! | change | purpose |
//! |---|---|
//! | rules 1400 `to ADDRESS` and 1401 `from ADDRESS`, pointing to the path's table | packets to the stack go to its TUN device, packets from it through its NIC |
//! | that table | a copy of the NIC's routes, kept up to date; the stack's address; `unreachable` |
//! | rule 1402, `blackhole` for other packets from the TUN device or (mode `routed`) from the NIC | a host that did not forward does not start to |
//! | `forwarding` of the NIC (IPv4), `force_forwarding` (IPv6; before Linux 6.17: `forwarding` of all interfaces, with accept_ra=2 where router advertisements were accepted, and rule 1403, `blackhole` for the rest) | packets pass between NIC and TUN device |
//! | `arp_ignore`, `arp_announce`, `rp_filter` | another device has an address in the same IPv4 subnet |
//! | a proxy neighbour entry, `proxy_delay`, for IPv6 also `proxy_ndp`, `forwarding`, `accept_ra` of the NIC | the host answers for an address in the NIC's subnet (mode `routed`) |
//! | an nftables table named after the TUN device | translation, and dropping what could not be translated; connections that others translate keep their ports (mode `nat`) |
//! | `ip_local_reserved_ports` | the host's sockets do not use the ports of translated connections (mode `nat`) |
//! | a bound TCP socket per port and address of the NIC | no other program listens on a port that is forwarded to the stack (mode `nat`) |
//!
//! Each change is recorded before it is made. It is undone when the path is dropped, by [`clean_up`], or,
//! after a crash, at the next start. Among several instances, the last one restores settings to their values
//! from before the first, unless somebody else has changed them in the meantime.

mod addresses;
mod cgroup;
mod check;
mod conntrack;
mod divert;
mod forwarding;
mod holders;
mod host;
mod look;
mod manager;
mod mirror;
mod netlink;
mod nfnetlink;
mod nft;
mod nics;
mod ports;
mod record;
mod rules;
mod ruleset;
mod set;
mod sysctl;
mod translate;
mod watch;

pub use crate::described::{Caps, Mode, NicInfo, PathChange, PathSpec, SetupOptions, check_uses};
pub use cgroup::cgroup_root;
pub use divert::{Cgroup, Diversion, Diverted, divert};
pub use look::{NicWatch, look_at};
pub use nfnetlink::has_table;
pub use nft::Nft;
pub use nics::UnusedNic;
pub use set::{
    Path, PathGuard, PathSet, clean_up, clean_up_leftovers, discover, leftovers_of_root, set_up,
    state_directory, survey,
};

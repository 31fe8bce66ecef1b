//! Path management for umptcp: which subflows should exist, and which addresses the peer is told about.
//!
//! A [`PathPolicy`] sees a read-only [`View`] of a connection and answers with [`Command`]s, which the
//! connection carries out. Most policies make a [`Plan`], which knows what every one of them must heed.
//!
//! | name | subflows |
//! |---|---|
//! | `aggregate` | one over each path, and one to each address that the peer advertises; the default |
//! | `handover` | the same, but only the first path that works carries data: the others are backups |
//! | `interactive` | those of `aggregate`; small writes go on all of them |
//! | `fullmesh` | one from each of our addresses to each of the peer's |
//! | `ndiffports` | two between the same addresses, from different ports |
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod aggregate;
mod full_mesh;
mod handover;
mod interactive;
mod ndiffports;
mod plan;

pub use aggregate::Aggregate;
pub use full_mesh::FullMesh;
pub use handover::Handover;
pub use interactive::Interactive;
pub use ndiffports::NDiffPorts;
pub use plan::Plan;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, SocketAddr};
use umptcp_types::{AddressId, PathId};

/// Path policies by name. A program adds its own with [`register`](umptcp_types::Registry::register).
pub type Registry = umptcp_types::Registry<dyn PathPolicy>;

/// The policy that a connection uses by default.
pub const DEFAULT_NAME: &str = Aggregate::NAME;

/// Every policy of this crate, the default first.
pub fn built_in() -> Registry {
    let mut registry = Registry::empty();
    registry.register(Aggregate::NAME, || Box::new(Aggregate));
    registry.register(Handover::NAME, || Box::new(Handover));
    registry.register(Interactive::NAME, || Box::new(Interactive));
    registry.register(FullMesh::NAME, || Box::new(FullMesh));
    registry.register(NDiffPorts::NAME, || Box::<NDiffPorts>::default());
    registry
}

/// What a local address is for, in the words of `ip mptcp endpoint`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Uses {
    /// The peer is told about it (ADD_ADDR), whether or not the connection advertises its addresses.
    pub signal: bool,
    /// Subflows are opened from it to the peer's first address.
    pub subflow: bool,
    /// Subflows are opened from it to every address of the peer.
    pub full_mesh: bool,
    /// Addresses that the peer advertises are reached from it, one subflow each.
    pub laminar: bool,
}

impl Uses {
    /// As the words of `ip mptcp endpoint add` say; without any of them subflows are opened from the address.
    /// One for a full mesh is for subflows in any case.
    pub fn of_words(signal: bool, subflow: bool, full_mesh: bool, laminar: bool) -> Self {
        let none = !(signal || subflow || full_mesh || laminar);
        Uses { signal, subflow: none || subflow || full_mesh, full_mesh, laminar }
    }

    /// For nothing.
    pub const NONE: Uses = Uses { signal: false, subflow: false, full_mesh: false, laminar: false };

    /// The words that say so.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        let words = [
            (self.signal, "signal"),
            (self.subflow, "subflow"),
            (self.full_mesh, "fullmesh"),
            (self.laminar, "laminar"),
        ];
        words.into_iter().filter(|(holds, _)| *holds).map(|(_, word)| word)
    }
}

impl Default for Uses {
    /// Subflows are opened from it. Which to addresses that the peer advertises is left to the policy.
    fn default() -> Self {
        Uses { signal: false, subflow: true, full_mesh: false, laminar: false }
    }
}

/// One local address a connection may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LocalAddress {
    /// The path that has this address.
    pub path: PathId,
    /// The source address of packets as the stack sends them.
    pub address: IpAddr,
    /// The address as the peer sees it: the NIC's own, where the path translates addresses.
    pub advertise: IpAddr,
    /// The port that the peer is told with it; without one it is that of the subflow which carries ADD_ADDR (RFC 8684
    /// §3.4.1). No subflow has been told by such an address, even one between the same addresses.
    pub port: Option<u16>,
    /// Subflows from this address ask to be backups.
    pub backup: bool,
    /// What it is for.
    pub uses: Uses,
}

impl LocalAddress {
    /// An address for regular subflows that the peer sees as it is.
    pub fn new(path: PathId, address: IpAddr) -> Self {
        LocalAddress { path, address, advertise: address, port: None, backup: false, uses: Uses::default() }
    }
}

/// One address of the peer: the one that was connected to first (ID 0), or one that the peer advertised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RemoteAddress {
    /// The peer's Address ID.
    pub id: AddressId,
    /// Where to connect.
    pub address: SocketAddr,
}

impl RemoteAddress {
    /// The address to which the peer has given this ID.
    pub const fn new(id: AddressId, address: SocketAddr) -> Self {
        RemoteAddress { id, address }
    }
}

/// A subflow that exists or is being opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SubflowEnds {
    /// The path it uses.
    pub path: PathId,
    /// Its local address.
    pub local: IpAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
    /// It is established and can carry data.
    pub works: bool,
    /// We ask for it to be a backup.
    pub backup: bool,
    /// It is being opened to an address that the peer has advertised, and nobody has answered yet. It gives
    /// way to a subflow from another path of ours.
    pub tentative: bool,
    /// It has not answered for some time. Something between the ends may have forgotten it, or its remote
    /// address gone, so that another beside it would work.
    pub stale: bool,
}

impl SubflowEnds {
    /// A regular subflow on `path` between these addresses that is being opened.
    pub const fn new(path: PathId, local: IpAddr, remote: SocketAddr) -> Self {
        SubflowEnds { path, local, remote, works: false, backup: false, tentative: false, stale: false }
    }
}

/// What a policy sees of a connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct View<'a> {
    /// This side opened the connection.
    pub client: bool,
    /// This side opens subflows. True on the client, and on a server configured to do so once it has received
    /// a DSS option (RFC 8684 §3.1).
    pub opens: bool,
    /// Usable local addresses, in order of path.
    pub local: &'a [LocalAddress],
    /// Addresses of the peer that may be connected to.
    pub remote: &'a [RemoteAddress],
    /// Existing subflows, including those whose handshake is still in progress.
    pub subflows: &'a [SubflowEnds],
    /// Pairs of local and remote address that were tried without success.
    pub failed: &'a [(IpAddr, SocketAddr)],
    /// The maximum number of subflows.
    pub max_subflows: usize,
    /// The application asked to advertise addresses.
    pub advertise: bool,
    /// Local addresses that were already advertised, with the ports that were told with them.
    pub advertised: &'a [(IpAddr, Option<u16>)],
}

impl<'a> View<'a> {
    /// A connection between these addresses, with all other fields zero, false or empty.
    pub const fn new(local: &'a [LocalAddress], remote: &'a [RemoteAddress]) -> Self {
        View {
            client: false,
            opens: false,
            local,
            remote,
            subflows: &[],
            failed: &[],
            max_subflows: 0,
            advertise: false,
            advertised: &[],
        }
    }
}

/// What a policy wants done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// Open a subflow from a local address to one of the peer's.
    Open {
        /// Index into `View::local`.
        local: usize,
        /// Index into `View::remote`.
        remote: usize,
        /// It asks to be a backup (B bit of MP_JOIN).
        backup: bool,
    },
    /// Make a subflow a backup, or a regular one again, and tell the peer (MP_PRIO, RFC 8684 §3.3.8).
    SetBackup {
        /// Index into `View::subflows`.
        subflow: usize,
        /// Whether it is to be a backup.
        backup: bool,
    },
    /// Tell the peer about a local address (ADD_ADDR).
    Advertise {
        /// Index into `View::local`.
        local: usize,
    },
}

/// Decides which subflows should exist.
///
/// Asked once the connection is fully established, and again whenever an address or a path comes or goes, and
/// when a subflow begins to work, falls silent or ends.
pub trait PathPolicy: fmt::Debug + Send {
    /// The name of the policy.
    fn name(&self) -> &'static str;
    /// The scheduler that goes with it. It is used where the connection is to have the default one.
    fn scheduler(&self) -> Option<&'static str> {
        None
    }
    /// What to do now. Commands that cannot be carried out, because of a limit or for want of a port, are
    /// skipped.
    fn decide(&mut self, view: &View<'_>) -> Vec<Command>;
}

#[cfg(test)]
mod tests;

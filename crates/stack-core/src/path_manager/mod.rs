//! Which subflows should exist, and which addresses the peer is told.
//!
//! A [`PathPolicy`] is told of events and answers with [`Command`]s; the connection carries them out. Policies are
//! replaceable: the default opens one subflow per local path.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use umptcp_types::{AddressId, PathId};

/// One local address a connection may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocalAddress {
    /// The path.
    pub path: PathId,
    /// The address on it.
    pub address: IpAddr,
    /// What the peer sees of it (the NIC's address behind NAT).
    pub advertise: IpAddr,
    /// Subflows from it ask to be backups.
    pub backup: bool,
}

/// One address of the peer: the one first connected to (ID 0), or one it advertised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RemoteAddress {
    /// The peer's Address ID.
    pub id: AddressId,
    /// Where to connect.
    pub address: SocketAddr,
}

/// A subflow that exists or is being opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubflowEnds {
    /// The path it uses.
    pub path: PathId,
    /// Local address.
    pub local: IpAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
}

/// What a policy may look at.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// Our side opened the connection.
    pub client: bool,
    /// This side opens subflows: the client, and a server whose settings say so, once a DSS has come (RFC 8684 §3.1).
    pub opens: bool,
    /// Local addresses that may be used, in order of path.
    pub local: &'a [LocalAddress],
    /// Addresses of the peer that may be connected to.
    pub remote: &'a [RemoteAddress],
    /// Subflows there are, handshakes under way included.
    pub subflows: &'a [SubflowEnds],
    /// Pairs that were tried and failed.
    pub failed: &'a [(IpAddr, SocketAddr)],
    /// Most subflows allowed.
    pub max_subflows: usize,
    /// The application asked to advertise addresses.
    pub advertise: bool,
    /// Local addresses advertised already.
    pub advertised: &'a [IpAddr],
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
    },
    /// Tell the peer about a local address (ADD_ADDR).
    Advertise {
        /// Index into `View::local`.
        local: usize,
    },
}

/// Decides which subflows should exist. Called when the connection is fully established and whenever an address, a path
/// or a subflow comes or goes.
pub trait PathPolicy: core::fmt::Debug + Send {
    /// The name of the policy.
    fn name(&self) -> &'static str;
    /// What to do now. Commands that cannot be carried out (limits, no port) are skipped.
    fn decide(&mut self, view: &View<'_>) -> Vec<Command>;
}

/// The default: the client opens one subflow from every local address to the peer's first address, and one to every
/// address the peer advertises; the server opens none, unless its settings have it do the same, and, if asked to, advertises its
/// other addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnePerPath;

impl PathPolicy for OnePerPath {
    fn name(&self) -> &'static str {
        "one-per-path"
    }

    fn decide(&mut self, view: &View<'_>) -> Vec<Command> {
        let mut commands = Vec::new();
        if view.advertise {
            for (i, l) in view.local.iter().enumerate() {
                let used = view.subflows.iter().any(|s| s.local == l.address);
                if !used && !view.advertised.contains(&l.advertise) {
                    commands.push(Command::Advertise { local: i });
                }
            }
        }
        if !view.opens {
            return commands;
        }
        let mut count = view.subflows.len();
        let mut used: Vec<SubflowEnds> = view.subflows.to_vec();
        let mut open =
            |commands: &mut Vec<Command>, used: &mut Vec<SubflowEnds>, local: usize, remote: usize| {
                let (l, r) = (&view.local[local], &view.remote[remote]);
                let pair_used = used.iter().any(|s| s.local == l.address && s.remote == r.address);
                let failed = view.failed.contains(&(l.address, r.address));
                if count < view.max_subflows
                    && !pair_used
                    && !failed
                    && l.address.is_ipv4() == r.address.is_ipv4()
                {
                    count += 1;
                    used.push(SubflowEnds { path: l.path, local: l.address, remote: r.address });
                    commands.push(Command::Open { local, remote });
                }
            };
        // Every path once, towards the first address of a fitting family.
        for (i, l) in view.local.iter().enumerate() {
            if used.iter().any(|s| s.path == l.path) {
                continue;
            }
            let fitting = view.remote.iter().position(|r| r.address.is_ipv4() == l.address.is_ipv4());
            if let Some(r) = fitting {
                open(&mut commands, &mut used, i, r);
            }
        }
        // Every advertised address once, from the path that carries the fewest subflows.
        for (j, r) in view.remote.iter().enumerate() {
            if used.iter().any(|s| s.remote == r.address) {
                continue;
            }
            let least = view
                .local
                .iter()
                .enumerate()
                .filter(|(_, l)| l.address.is_ipv4() == r.address.is_ipv4())
                .filter(|(_, l)| !view.failed.contains(&(l.address, r.address)))
                .min_by_key(|(_, l)| used.iter().filter(|s| s.path == l.path).count())
                .map(|(i, _)| i);
            if let Some(i) = least {
                open(&mut commands, &mut used, i, j);
            }
        }
        commands
    }
}

/// The policy a connection starts with.
pub fn default_policy() -> Box<dyn PathPolicy> {
    Box::new(OnePerPath)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn local(path: u32, last: u8) -> LocalAddress {
        let a = IpAddr::from([10, 0, path as u8, last]);
        LocalAddress { path: PathId(path), address: a, advertise: a, backup: false }
    }

    fn remote(id: u8, last: u8) -> RemoteAddress {
        RemoteAddress { id: AddressId(id), address: SocketAddr::from(([192, 0, 2, last], 80)) }
    }

    #[test]
    fn client_opens_one_subflow_per_path_and_per_advertised_address() {
        let locals = [local(0, 1), local(1, 1)];
        let remotes = [remote(0, 1), remote(1, 2)];
        let first = SubflowEnds { path: PathId(0), local: locals[0].address, remote: remotes[0].address };
        let mut view = View {
            client: true,
            opens: true,
            local: &locals,
            remote: &remotes[..1],
            subflows: &[first],
            failed: &[],
            max_subflows: 8,
            advertise: false,
            advertised: &[],
        };
        assert_eq!(OnePerPath.decide(&view), vec![Command::Open { local: 1, remote: 0 }]);
        view.remote = &remotes;
        assert_eq!(
            OnePerPath.decide(&view),
            vec![Command::Open { local: 1, remote: 0 }, Command::Open { local: 0, remote: 1 }]
        );
        view.max_subflows = 1;
        assert_eq!(OnePerPath.decide(&view), vec![]);
        view.max_subflows = 8;
        let failed = [(locals[1].address, remotes[0].address)];
        view.failed = &failed;
        view.remote = &remotes[..1];
        assert_eq!(OnePerPath.decide(&view), vec![]);
    }

    #[test]
    fn server_only_advertises() {
        let locals = [local(0, 1), local(1, 1)];
        let remotes = [remote(0, 1)];
        let first = SubflowEnds { path: PathId(0), local: locals[0].address, remote: remotes[0].address };
        let view = View {
            client: false,
            opens: false,
            local: &locals,
            remote: &remotes,
            subflows: &[first],
            failed: &[],
            max_subflows: 8,
            advertise: true,
            advertised: &[],
        };
        assert_eq!(OnePerPath.decide(&view), vec![Command::Advertise { local: 1 }]);
        let view = View { advertised: &[locals[1].address], ..view };
        assert_eq!(OnePerPath.decide(&view), vec![]);
        let view = View { opens: true, advertise: false, ..view };
        assert_eq!(OnePerPath.decide(&view), vec![Command::Open { local: 1, remote: 0 }]);
    }
}

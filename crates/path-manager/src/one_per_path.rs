//! The default policy.

use crate::{Command, LocalAddress, PathPolicy, RemoteAddress, SubflowEnds, View};
use alloc::vec::Vec;

/// A subflow on every local path and to every address the peer advertises.
///
/// The client opens one subflow from every local path to the peer's first address, and one to every address
/// the peer advertises, and another beside one that does not answer any more. The server opens none unless it
/// is configured to, in which case it does the same. Either side, if asked to, advertises its other
/// addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnePerPath;

/// The subflows that there are and that will be opened.
struct Plan<'a> {
    view: &'a View<'a>,
    subflows: Vec<SubflowEnds>,
    opened: usize,
    commands: Vec<Command>,
}

impl Plan<'_> {
    /// The two can be connected, as far as is known.
    fn fits(&self, local: &LocalAddress, remote: &RemoteAddress) -> bool {
        local.address.is_ipv4() == remote.address.is_ipv4()
            && !self.view.failed.contains(&(local.address, remote.address))
    }

    /// Opens a subflow, unless there is one or all are taken: `occupied` by those that there were before.
    fn open(&mut self, local: usize, remote: usize, occupied: usize) {
        let (l, r) = (&self.view.local[local], &self.view.remote[remote]);
        let used = self.subflows.iter().any(|s| s.local == l.address && s.remote == r.address && !s.stale);
        if !used && occupied + self.opened < self.view.max_subflows {
            self.opened += 1;
            self.subflows.push(SubflowEnds::new(l.path, l.address, r.address));
            self.commands.push(Command::Open { local, remote });
        }
    }
}

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
        let mut plan = Plan { view, subflows: view.subflows.to_vec(), opened: 0, commands };
        let tentative = view.subflows.iter().filter(|s| s.tentative).count();
        // One subflow per path, to the first remote address of the same family that has not failed. Subflows
        // of which it is not known whether they lead anywhere are no reason against it, nor are those that do
        // not answer any more.
        for (i, l) in view.local.iter().enumerate() {
            if plan.subflows.iter().any(|s| s.path == l.path && !s.tentative && !s.stale) {
                continue;
            }
            // The address may be why a subflow does not answer: another first, if there is one.
            let silent = |r: &RemoteAddress| view.subflows.iter().any(|s| s.stale && s.remote == r.address);
            let other = view.remote.iter().position(|r| plan.fits(l, r) && !silent(r));
            if let Some(j) = other.or_else(|| view.remote.iter().position(|r| plan.fits(l, r))) {
                plan.open(i, j, view.subflows.len() - tentative);
            }
        }
        // One subflow per advertised address, from the path with the fewest subflows.
        for (j, r) in view.remote.iter().enumerate() {
            if plan.subflows.iter().any(|s| s.remote == r.address) {
                continue;
            }
            let least = view
                .local
                .iter()
                .enumerate()
                .filter(|(_, l)| plan.fits(l, r))
                .min_by_key(|(_, l)| plan.subflows.iter().filter(|s| s.path == l.path).count())
                .map(|(i, _)| i);
            if let Some(i) = least {
                plan.open(i, j, view.subflows.len());
            }
        }
        plan.commands
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use core::net::{IpAddr, SocketAddr};
    use umptcp_types::{AddressId, PathId};

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
        let first = SubflowEnds::new(PathId(0), locals[0].address, remotes[0].address);
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
    fn another_is_opened_beside_one_that_does_not_answer() {
        let locals = [local(0, 1)];
        let remotes = [remote(0, 1), remote(1, 2)];
        let mut view = View::new(&locals, &remotes);
        (view.client, view.opens, view.max_subflows) = (true, true, 8);
        let mut ends = [SubflowEnds::new(PathId(0), locals[0].address, remotes[0].address)];
        ends[0].stale = true;
        view.subflows = &ends;
        view.remote = &remotes[..1];
        assert_eq!(OnePerPath.decide(&view), vec![Command::Open { local: 0, remote: 0 }]);
        let failed = [(locals[0].address, remotes[0].address)];
        view.failed = &failed;
        assert_eq!(OnePerPath.decide(&view), vec![]);
        view.failed = &[];
        // To another address, if there is one.
        view.remote = &remotes;
        assert_eq!(OnePerPath.decide(&view), vec![Command::Open { local: 0, remote: 1 }]);
        let both = [ends[0], SubflowEnds::new(PathId(0), locals[0].address, remotes[1].address)];
        view.subflows = &both;
        assert_eq!(OnePerPath.decide(&view), vec![]);
    }

    #[test]
    fn server_only_advertises() {
        let locals = [local(0, 1), local(1, 1)];
        let remotes = [remote(0, 1)];
        let first = SubflowEnds::new(PathId(0), locals[0].address, remotes[0].address);
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

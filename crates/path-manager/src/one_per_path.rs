//! The default policy.

use crate::{Command, PathPolicy, SubflowEnds, View};
use alloc::vec::Vec;

/// A subflow on every local path and to every address the peer advertises.
///
/// The client opens one subflow from every local path to the peer's first address, and one to every address
/// the peer advertises. The server opens none unless it is configured to, in which case it does the same.
/// Either side, if asked to, advertises its other addresses.
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
        let mut count = view.subflows.iter().filter(|s| !s.tentative).count();
        let mut used: Vec<SubflowEnds> = view.subflows.to_vec();
        let open = |commands: &mut Vec<Command>,
                    used: &mut Vec<SubflowEnds>,
                    count: &mut usize,
                    local: usize,
                    remote: usize| {
            let (l, r) = (&view.local[local], &view.remote[remote]);
            let pair_used = used.iter().any(|s| s.local == l.address && s.remote == r.address);
            let failed = view.failed.contains(&(l.address, r.address));
            if *count < view.max_subflows
                && !pair_used
                && !failed
                && l.address.is_ipv4() == r.address.is_ipv4()
            {
                *count += 1;
                used.push(SubflowEnds::new(l.path, l.address, r.address));
                commands.push(Command::Open { local, remote });
            }
        };
        // One subflow per path, to the first remote address of the same family that has not failed. Subflows
        // of which it is not known whether they lead anywhere are no reason against it.
        for (i, l) in view.local.iter().enumerate() {
            if used.iter().any(|s| s.path == l.path && !s.tentative) {
                continue;
            }
            let fitting = view.remote.iter().position(|r| {
                let failed = view.failed.contains(&(l.address, r.address));
                r.address.is_ipv4() == l.address.is_ipv4() && !failed
            });
            if let Some(r) = fitting {
                open(&mut commands, &mut used, &mut count, i, r);
            }
        }
        count += view.subflows.iter().filter(|s| s.tentative).count();
        // One subflow per advertised address, from the path with the fewest subflows.
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
                open(&mut commands, &mut used, &mut count, i, j);
            }
        }
        commands
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LocalAddress, RemoteAddress};
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

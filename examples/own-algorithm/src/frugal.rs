//! A path policy: a second path only when the first does not answer.

use umptcp_path_manager::{Command, PathPolicy, Plan, View};

/// One subflow, over the first path that there is. While it does not answer, one over the next path beside it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frugal;

impl Frugal {
    /// The name it is registered under.
    pub const NAME: &str = "frugal";
}

impl PathPolicy for Frugal {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn decide(&mut self, view: &View<'_>) -> Vec<Command> {
        // Tells the peer of addresses, if the connection does.
        let mut plan = Plan::new(view);
        let healthy = view.subflows.iter().any(|s| !s.stale);
        if view.opens && !healthy {
            let unused =
                |l: &umptcp_path_manager::LocalAddress| !view.subflows.iter().any(|s| s.path == l.path);
            let mut pairs = (0..view.local.len()).flat_map(|i| (0..view.remote.len()).map(move |j| (i, j)));
            let next =
                pairs.find(|(i, j)| unused(&view.local[*i]) && plan.fits(&view.local[*i], &view.remote[*j]));
            if let Some((local, remote)) = next {
                plan.open(local, remote);
            }
        }
        plan.into_commands()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, SocketAddr};
    use umptcp_path_manager::{LocalAddress, RemoteAddress, SubflowEnds};
    use umptcp_types::{AddressId, PathId};

    #[test]
    fn opens_the_second_path_when_the_first_falls_silent() {
        let local = [1, 2].map(|n| LocalAddress::new(PathId(n), IpAddr::from([10, 0, 0, n as u8])));
        let remote = [RemoteAddress::new(AddressId(0), SocketAddr::from(([192, 0, 2, 1], 80)))];
        let mut first = SubflowEnds::new(local[0].path, local[0].address, remote[0].address);
        let mut view = View::new(&local, &remote);
        (view.client, view.opens, view.max_subflows) = (true, true, 8);
        let alive = [first];
        view.subflows = &alive;
        assert_eq!(Frugal.decide(&view), []);
        first.stale = true;
        let silent = [first];
        view.subflows = &silent;
        assert_eq!(Frugal.decide(&view), [Command::Open { local: 1, remote: 0, backup: false }]);
    }
}

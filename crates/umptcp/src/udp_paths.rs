//! Paths inside UDP, beside those that the driver sets up with TUN devices.

use crate::shared::lock;
use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, Weak};
use umptcp_stack_core::device::PathConfig;
use umptcp_tun_driver::error::DriverError;
use umptcp_tun_driver::event_loop::AttachedPath;
use umptcp_tun_driver::paths::{NicWatch, PathChange, PathSpec};
use umptcp_udp_driver::path::{self, UdpGuard, UdpPath};

/// Changes of NICs that wait to be read. More are of no use: the state that counts is the last.
const CHANGES: usize = 1024;

/// The paths of a stack inside UDP.
pub(crate) struct UdpPaths {
    /// They carry more than TCP.
    carry: bool,
    state: Mutex<State>,
    sender: SyncSender<PathChange>,
    changes: Mutex<Option<Receiver<PathChange>>>,
}

#[derive(Default)]
struct State {
    guards: Vec<Weak<UdpGuard>>,
    /// Ports on which each of them listens.
    ports: BTreeSet<u16>,
    /// NICs that are not usable yet, by the names of their paths.
    awaited: Vec<(String, NicWatch)>,
}

impl State {
    /// Those that are still there.
    fn guards(&mut self) -> Vec<Arc<UdpGuard>> {
        self.guards.retain(|guard| guard.strong_count() > 0);
        self.guards.iter().filter_map(Weak::upgrade).collect()
    }

    /// Takes out those of `awaited` with such names. They are dropped without the lock: that waits for their
    /// threads, which may be reporting.
    #[must_use]
    fn no_longer_awaited(&mut self, which: impl Fn(&String) -> bool) -> Vec<(String, NicWatch)> {
        let all = std::mem::take(&mut self.awaited).into_iter();
        let (found, others) = all.partition(|(name, _)| which(name));
        self.awaited = others;
        found
    }
}

impl UdpPaths {
    pub(crate) fn new(ports: &[u16], carry: bool) -> UdpPaths {
        let (sender, changes) = mpsc::sync_channel(CHANGES);
        let state = State { ports: ports.iter().copied().collect(), ..State::default() };
        UdpPaths { carry, state: Mutex::new(state), sender, changes: Mutex::new(Some(changes)) }
    }

    /// Sets up a path, which listens on the same ports as the others.
    pub(crate) fn set_up(
        &self,
        spec: &PathSpec,
    ) -> Result<(PathConfig, AttachedPath, Arc<UdpGuard>), DriverError> {
        let UdpPath { config, device, guard } = path::set_up(spec, self.carry, self.sender.clone())?;
        let guard = Arc::new(guard);
        let mut state = lock(&self.state);
        state.ports.iter().try_for_each(|port| guard.listen(*port))?;
        state.guards.push(Arc::downgrade(&guard));
        let name = spec.name();
        let found = state.no_longer_awaited(|awaited| *awaited == name);
        drop(state);
        drop(found);
        let attached = AttachedPath { device: Box::new(device), config: config.clone(), guard: Box::new(()) };
        Ok((config, attached, guard))
    }

    /// Reports a NIC as new when it can carry the path, which may be at once.
    pub(crate) fn await_nic(&self, spec: &PathSpec) {
        let sender = self.sender.clone();
        let watch = NicWatch::start(&spec.device, move |nic| {
            if let Ok(nic) = nic
                && !nic.addresses.is_empty()
                && !nic.destinations.is_empty()
            {
                let _ = sender.try_send(PathChange::NewNic(nic));
            }
        });
        match watch {
            Ok(watch) => {
                let name = spec.name();
                let mut state = lock(&self.state);
                let before = state.no_longer_awaited(|awaited| *awaited == name);
                state.awaited.push((name, watch));
                drop(state);
                drop(before);
            }
            Err(error) => tracing::warn!(device = spec.device, %error, "cannot wait for the network device"),
        }
    }

    /// Nobody waits any more for NICs that none of these paths is over.
    pub(crate) fn await_only(&self, specs: &[PathSpec]) {
        let wanted: HashSet<String> = specs.iter().map(PathSpec::name).collect();
        let others = lock(&self.state).no_longer_awaited(|awaited| !wanted.contains(awaited));
        drop(others);
    }

    /// Whether there is any, now or later.
    pub(crate) fn is_empty(&self) -> bool {
        let mut state = lock(&self.state);
        state.guards().is_empty() && state.awaited.is_empty()
    }

    /// Takes what comes to a port, on all of them.
    pub(crate) fn listen(&self, port: u16) -> Result<(), DriverError> {
        let mut state = lock(&self.state);
        let guards = state.guards();
        let listening = guards.iter().try_for_each(|guard| guard.listen(port));
        match listening {
            Ok(()) => drop(state.ports.insert(port)),
            Err(_) => guards.iter().for_each(|guard| guard.unlisten(port)),
        }
        listening
    }

    /// Nobody listens on a port any more.
    pub(crate) fn unlisten(&self, port: u16) {
        let mut state = lock(&self.state);
        state.ports.remove(&port);
        state.guards().iter().for_each(|guard| guard.unlisten(port));
    }

    /// Closes sockets that are not needed any more; `used` tells the stack's own addresses.
    pub(crate) fn close_unused(&self, used: impl Fn() -> HashSet<SocketAddr>) {
        let guards = lock(&self.state).guards();
        guards.iter().for_each(|guard| guard.close_unused(&used));
    }

    /// What happens to their NICs. Can be taken once.
    pub(crate) fn changes(&self) -> Option<Receiver<PathChange>> {
        lock(&self.changes).take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nic_is_awaited_once_and_as_long_as_it_is_wanted() {
        let udp = UdpPaths::new(&[], false);
        let [one, other] = ["none0,mode=udp", "none1,mode=udp"].map(|text| text.parse().unwrap());
        for spec in [&one, &other, &one] {
            udp.await_nic(spec);
        }
        let awaited = || lock(&udp.state).awaited.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(awaited(), ["none1/udp", "none0/udp"]);
        udp.await_only(std::slice::from_ref(&one));
        assert_eq!(awaited(), ["none0/udp"]);
        udp.await_only(&[]);
        assert!(udp.is_empty());
    }
}

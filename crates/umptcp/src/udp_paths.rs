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
}

impl UdpPaths {
    pub(crate) fn new(ports: &[u16]) -> UdpPaths {
        let (sender, changes) = mpsc::sync_channel(CHANGES);
        let state = State { ports: ports.iter().copied().collect(), ..State::default() };
        UdpPaths { state: Mutex::new(state), sender, changes: Mutex::new(Some(changes)) }
    }

    /// Sets up a path, which listens on the same ports as the others.
    pub(crate) fn set_up(
        &self,
        spec: &PathSpec,
    ) -> Result<(PathConfig, AttachedPath, Arc<UdpGuard>), DriverError> {
        let UdpPath { config, device, guard } = path::set_up(spec, self.sender.clone())?;
        let guard = Arc::new(guard);
        let mut state = lock(&self.state);
        state.ports.iter().try_for_each(|port| guard.listen(*port))?;
        state.guards.push(Arc::downgrade(&guard));
        let name = spec.name();
        let (found, others) = std::mem::take(&mut state.awaited).into_iter().partition(|(n, _)| *n == name);
        state.awaited = others;
        drop(state);
        // Its thread may be reporting.
        let _: Vec<(String, NicWatch)> = found;
        let attached = AttachedPath { device: Box::new(device), config: config.clone(), guard: Box::new(()) };
        Ok((config, attached, guard))
    }

    /// Reports a NIC as new when it can carry the path.
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
            Ok(watch) => lock(&self.state).awaited.push((spec.name(), watch)),
            Err(error) => tracing::warn!(device = spec.device, %error, "cannot wait for the network device"),
        }
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

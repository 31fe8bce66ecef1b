//! What can be asked about the stack.

use super::state::Stack;
use crate::device::PathConfig;
use crate::info::{ConnectionInfo, MemoryInfo, SubflowInfo};
use crate::monitor::Monitored;
use crate::observe::{Counters, Observer};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::IpAddr;
use umptcp_types::{ConnectionId, PathId};

impl Stack {
    /// What there is to know about a connection.
    pub fn info(&self, connection: ConnectionId) -> Option<ConnectionInfo> {
        self.connections.get(&connection).map(|c| c.info())
    }

    /// Its subflows, in order of id.
    pub fn subflows(&self, connection: ConnectionId) -> Vec<SubflowInfo> {
        self.connections.get(&connection).map(|c| c.subflow_infos()).unwrap_or_default()
    }

    /// What a path was added as.
    pub fn path(&self, path: PathId) -> Option<&PathConfig> {
        self.ctx.path(path)
    }

    /// Nothing gets through by the path from an address of the family of `like`
    /// ([`path_down`](Self::path_down)).
    pub fn is_path_down(&self, path: PathId, like: IpAddr) -> bool {
        self.ctx.is_path_down(path, like)
    }

    /// All connections, in no order.
    pub fn connection_ids(&self) -> impl Iterator<Item = ConnectionId> {
        self.connections.keys().copied()
    }

    /// All paths, oldest first.
    pub fn path_ids(&self) -> impl Iterator<Item = PathId> {
        self.ctx.paths().map(|(id, _)| id)
    }

    /// What the buffers of all connections hold together, and may hold.
    pub fn memory(&self) -> MemoryInfo {
        self.ctx.memory()
    }

    /// Counters of everything that happened, named as Linux names them.
    pub fn counters(&self) -> &Counters {
        self.ctx.counters()
    }

    /// Watches everything that happens, where it happens.
    pub fn set_observer(&mut self, observer: Box<dyn Observer>) {
        self.ctx.set_observer(observer);
    }

    /// Keeps what happens to paths, listeners, connections and subflows for
    /// [`poll_monitor`](Self::poll_monitor): at most `most` events, and what did not fit is counted in its
    /// place ([`MonitorEvent::Missed`]). 0, the default: nothing is kept, and nothing is done for it.
    ///
    /// [`MonitorEvent::Missed`]: crate::monitor::MonitorEvent::Missed
    pub fn watch(&mut self, most: usize) {
        self.ctx.watch(most);
    }

    /// What has happened since [`watch`](Self::watch) was called, in order. Call until `None`.
    pub fn poll_monitor(&mut self) -> Option<Monitored> {
        self.ctx.pop_watched()
    }

    /// Some connection began with this local port or has told its peer of it, so that the peer may join to
    /// it.
    pub fn uses_port(&self, port: u16) -> bool {
        self.connections.values().any(|c| c.offers_port(port))
    }

    /// Connections there are, those the application has let go of included.
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }
}

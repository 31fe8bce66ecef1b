//! The stack: its parts, and what wakes and frees a connection.

use super::listeners::Listeners;
use super::looks::Looks;
use super::orphans::Orphans;
use super::ready::ReadyQueue;
use super::timers::TimerQueue;
use crate::config::StackConfig;
use crate::context::{Context, Seeded};
use crate::mptcp::Connection;
use alloc::boxed::Box;
use alloc::vec::Vec;
use hashbrown::HashMap;
use umptcp_types::ConnectionId;

/// Many MPTCP and TCP connections, without input, output or clock.
#[derive(Debug)]
pub struct Stack {
    pub(super) ctx: Context,
    pub(super) connections: HashMap<ConnectionId, Box<Connection>, Seeded>,
    pub(super) listeners: Listeners,
    pub(super) ready: ReadyQueue,
    pub(super) timers: TimerQueue,
    pub(super) orphans: Orphans,
    pub(super) looks: Looks,
    next_connection: u64,
}

impl Stack {
    /// A stack without paths. All its randomness (keys, nonces, ports, sequence numbers) comes from `seed`,
    /// which must be unpredictable outside tests.
    pub fn new(config: StackConfig, seed: [u8; 32]) -> Stack {
        let orphans = Orphans::new(&config);
        let mut ctx = Context::new(config, seed);
        let (connections, pending) = (ctx.hasher(), ctx.hasher());
        Stack {
            ctx,
            connections: HashMap::with_hasher(connections),
            listeners: Listeners::new(pending),
            ready: ReadyQueue::default(),
            timers: TimerQueue::default(),
            orphans,
            looks: Looks::default(),
            next_connection: 0,
        }
    }

    pub(super) fn next_id(&mut self) -> ConnectionId {
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        id
    }

    /// Connections in order of id: hash order must not show in the packets.
    pub(super) fn sorted_connections(&self) -> Vec<ConnectionId> {
        let mut ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Something happened to a connection: it may have packets to send and other deadlines.
    pub(super) fn touched(&mut self, id: ConnectionId) {
        let Some(c) = self.connections.get_mut(&id) else { return };
        if c.on_touched() {
            self.ready.push(id);
        }
    }

    /// A connection has nothing to send: sets its deadline and notes which paths hold it back, or frees it.
    pub(super) fn settle(&mut self, id: ConnectionId) {
        let Some(c) = self.connections.get_mut(&id) else { return };
        if c.is_dead() {
            if let Some((port, remote)) = c.kept_port() {
                self.ctx.release_port(port, remote);
            }
            c.on_freed(&mut self.ctx);
            self.connections.remove(&id);
            self.orphans.forget(id);
            self.ready.forget(id, self.ctx.paths().map(|(path, _)| path));
            return;
        }
        if let Some(deadline) = c.next_timer() {
            self.timers.push(deadline, id);
        }
        if self.ctx.any_path_blocked() {
            for (path, _) in c.ways_out().filter(|(path, local)| self.ctx.is_path_blocked(*path, *local)) {
                self.ready.hold(id, path);
            }
        }
        let connections = &self.connections;
        self.timers
            .tidy(connections.len(), |at, id| connections.get(&id).is_some_and(|c| c.is_armed_for(at)));
    }
}

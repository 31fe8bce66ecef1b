//! What paths carry, and what they may.

use super::state::Stack;
use crate::context::Use;
use crate::device::{Families, Transmit};
use crate::event::Traffic;
use crate::observe::Counter;
use umptcp_types::{ConnectionId, Instant, PathId};

impl Stack {
    /// Bytes of IP packets that have passed on a path, headers and what was sent again included. `None`: there
    /// is no such path.
    pub fn path_traffic(&self, path: PathId) -> Option<Traffic> {
        self.ctx.carried_on(path)
    }

    /// What is left of a path's allowance is used up: nothing passes there.
    pub fn is_path_spent(&self, path: PathId) -> bool {
        self.ctx.spent_on(path) == Use::Spent
    }

    /// So many bytes of IP packets may pass on a path from now on, in both directions together; `None`: any
    /// number. False: there is no such path.
    ///
    /// A little before the limit (1 MiB, but at most a quarter of it) nothing new is begun on the path: no
    /// connection, no subflow, no data. Connections that have other subflows leave it, with REMOVE_ADDR and
    /// FIN (RFC 8684 §3.4.2). At the limit it is as if its link were [down](Self::path_down): no packet is
    /// sent, and what was under way goes on over other paths. Connections without any wait for one, or for
    /// more to be allowed. What the peer sends all the same counts and cannot be kept from coming.
    pub fn set_path_allowance(&mut self, now: Instant, path: PathId, bytes: Option<u64>) -> bool {
        let Some(before) = self.ctx.allow_on(path, bytes) else { return false };
        let after = self.ctx.spent_on(path);
        if after > Use::Open {
            self.on_path_use(now, path, after);
        } else if before > Use::Open {
            self.reopen(now, path, Families::BOTH);
        }
        true
    }

    /// What each connection may carry on a path (`PathConfig::connection_cap`) is this from now on. What connections
    /// have carried since there is such a limit counts against it: those that may carry more than before use the
    /// path again, and what waits goes on; those that have carried what they may leave it. False: there is no such
    /// path.
    pub fn set_connection_cap(&mut self, now: Instant, path: PathId, bytes: Option<u64>) -> bool {
        if !self.ctx.set_connection_cap(path, bytes) {
            return false;
        }
        for c in self.ready.release(path) {
            self.touched(c);
        }
        for id in self.sorted_connections() {
            if let Some(c) = self.connections.get_mut(&id) {
                c.on_connection_cap(&mut self.ctx, now, path, bytes);
                self.looks.push(id, c.is_cut_off());
                self.touched(id);
            }
        }
        self.look_at_paths(now);
        true
    }

    /// Others have used so much of a path's allowance: it is less now.
    pub fn spend_path_allowance(&mut self, now: Instant, path: PathId, bytes: u64) {
        if let Some(new) = self.ctx.spend(path, bytes) {
            self.on_path_use(now, path, new);
        }
    }

    /// A packet that is not the stack's has passed on a path.
    pub fn count_on_path(&mut self, now: Instant, path: PathId, traffic: Traffic) {
        if let Some(new) = self.ctx.carry(path, traffic) {
            self.on_path_use(now, path, new);
        }
    }

    /// A packet is handed out, of that connection if of any.
    #[inline]
    pub(super) fn on_transmit(&mut self, now: Instant, t: &Transmit, connection: Option<ConnectionId>) {
        let bytes = t.wire_len() as u64;
        if let Some(id) = connection {
            self.on_carried(now, t.path, id, bytes);
        }
        self.count_on_path(now, t.path, Traffic::new(bytes, 0));
    }

    /// A connection has carried so much on a path.
    #[inline]
    pub(super) fn on_carried(&mut self, now: Instant, path: PathId, id: ConnectionId, bytes: u64) {
        if let Some(limit) = self.ctx.path(path).and_then(|p| p.connection_cap)
            && let Some(c) = self.connections.get_mut(&id)
        {
            c.on_carried(&mut self.ctx, now, path, bytes, limit);
        }
    }

    /// A limit is used up, or nearly.
    fn on_path_use(&mut self, now: Instant, path: PathId, new: Use) {
        if new == Use::Open {
            return;
        }
        if new == Use::Ending {
            self.ctx.observe(now, None, None, Counter::PathCapReached);
        }
        for id in self.sorted_connections() {
            if let Some(c) = self.connections.get_mut(&id) {
                match new {
                    Use::Spent => c.on_path_down(&mut self.ctx, now),
                    Use::Ending | Use::Open => c.on_path_leaving(&mut self.ctx, now, path),
                }
                self.touched(id);
            }
        }
    }
}

//! Subflows and paths that the application steers while connections run.

use super::state::Stack;
use crate::device::SignalPort;
use crate::error::SubflowError;
use alloc::vec::Vec;
use core::net::SocketAddr;
use umptcp_path_manager::Uses;
use umptcp_types::{ConnectionId, Instant, PathId, SubflowId};

impl Stack {
    /// Opens one more subflow of a connection over a path, beside those of the path manager: to `remote`, or
    /// to the peer's first address. What becomes of it, events tell. `ConnectionConfig::max_subflows` holds.
    ///
    /// # Errors
    /// When the connection may not open one there.
    pub fn open_subflow(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        path: PathId,
        remote: Option<SocketAddr>,
    ) -> Result<SubflowId, SubflowError> {
        let c = self.connections.get_mut(&connection).ok_or(SubflowError::NotFound)?;
        let id = c.open_subflow(&mut self.ctx, now, path, remote)?;
        self.touched(connection);
        Ok(id)
    }

    /// Closes a subflow of a connection, by FIN if it works, while others go on. The path manager opens none
    /// in its place for ten minutes, unless no other is left, its path changes, or the peer advertises its
    /// address anew.
    ///
    /// # Errors
    /// When there is no such subflow, or no other that works.
    pub fn close_subflow(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        subflow: SubflowId,
    ) -> Result<(), SubflowError> {
        let c = self.connections.get_mut(&connection).ok_or(SubflowError::NotFound)?;
        c.close_subflow(&mut self.ctx, now, subflow)?;
        self.touched(connection);
        Ok(())
    }

    /// What path policies use the addresses of a path for (`PathConfig::uses`), from now on: what they want is
    /// opened or told at once, and subflows that there are stay. False: there is no such path.
    pub fn set_path_uses(&mut self, now: Instant, path: PathId, uses: Uses) -> bool {
        if !self.ctx.set_path_uses(path, uses) {
            return false;
        }
        self.have_paths_looked_at(now);
        true
    }

    fn have_paths_looked_at(&mut self, now: Instant) {
        for c in self.sorted_connections() {
            if let Some(connection) = self.connections.get(&c) {
                self.looks.push(c, connection.is_cut_off());
            }
        }
        self.look_at_paths(now);
    }

    /// The ports that peers are told with the addresses of a path (`PathConfig::signal_ports`), from now on. Those
    /// that are new are told at once. Those that are no more are taken back (REMOVE_ADDR, RFC 8684 §3.4.2), and
    /// what has joined to them ends if there are other subflows. False: there is no such path.
    pub fn set_signal_ports(&mut self, now: Instant, path: PathId, ports: Vec<SignalPort>) -> bool {
        let Some(gone) = self.ctx.set_signal_ports(path, ports) else { return false };
        if !gone.is_empty() {
            for id in self.sorted_connections() {
                if let Some(c) = self.connections.get_mut(&id) {
                    c.on_ports_withdrawn(&mut self.ctx, now, &gone);
                    self.touched(id);
                }
            }
        }
        self.have_paths_looked_at(now);
        true
    }

    /// Subflows on a path are to be backups from now on (`PathConfig::backup`), or not any more. Those that
    /// there are follow, and their peers are told (MP_PRIO, RFC 8684 §3.3.8). To peers those on a metered path
    /// are always backups. False: there is no such path.
    pub fn set_path_backup(&mut self, now: Instant, path: PathId, backup: bool) -> bool {
        let backup = backup || self.ctx.path(path).is_some_and(|p| p.metered);
        if !self.ctx.set_path_backup(path, backup) {
            return false;
        }
        for id in self.sorted_connections() {
            if let Some(c) = self.connections.get_mut(&id) {
                c.on_path_backup(&mut self.ctx, now, path, backup);
                self.touched(id);
            }
        }
        true
    }
}

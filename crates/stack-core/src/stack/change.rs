//! Changing congestion control, scheduler, path policy and options while a connection runs.

use super::state::Stack;
use crate::config::{ConnectionConfig, ConnectionOption};
use crate::error::SetError;
use umptcp_types::{ConnectionId, Instant};

impl Stack {
    /// Gives a connection another congestion control algorithm of the registry. Windows and slow-start
    /// thresholds are kept, everything else starts anew.
    ///
    /// # Errors
    /// When there is no such connection or no such algorithm.
    pub fn set_congestion(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        name: &str,
    ) -> Result<(), SetError> {
        let c = self.connections.get_mut(&connection).ok_or(SetError::NotFound)?;
        c.set_congestion(now, self.ctx.congestion(name)?);
        self.touched(connection);
        Ok(())
    }

    /// Gives a connection another scheduler of the registry, which starts without memory.
    ///
    /// # Errors
    /// When there is no such connection or no such scheduler.
    pub fn set_scheduler(
        &mut self,
        _now: Instant,
        connection: ConnectionId,
        name: &str,
    ) -> Result<(), SetError> {
        let c = self.connections.get_mut(&connection).ok_or(SetError::NotFound)?;
        c.set_scheduler(self.ctx.scheduler(name)?);
        self.touched(connection);
        Ok(())
    }

    /// Gives a connection another path policy of the registry, and the scheduler that goes with it, unless
    /// another was chosen. What the policy wants is opened at once; subflows that it would not have opened
    /// stay.
    ///
    /// # Errors
    /// When there is no such connection or no such policy.
    pub fn set_path_policy(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        name: &str,
    ) -> Result<(), SetError> {
        let c = self.connections.get_mut(&connection).ok_or(SetError::NotFound)?;
        let policy = self.ctx.path_policy(name)?;
        let scheduler = c.scheduler_for(policy.as_ref()).map(|name| self.ctx.scheduler(name)).transpose()?;
        if let Some(scheduler) = scheduler {
            c.set_scheduler(scheduler);
        }
        c.set_path_policy(policy);
        c.look_at_paths(&mut self.ctx, now);
        self.touched(connection);
        Ok(())
    }

    /// Asks the peer of a connection for a sign of life on every subflow, now. Subflows on which none comes
    /// within two minutes end; with [keep-alive](crate::config::KeepAlive) set, its interval and count apply.
    /// A relay uses it to pass on what a program asks ([`Event::KeepAlive`](crate::event::Event::KeepAlive)).
    ///
    /// # Errors
    /// When there is no such connection.
    pub fn ask_for_life(&mut self, now: Instant, connection: ConnectionId) -> Result<(), SetError> {
        let c = self.connections.get_mut(&connection).ok_or(SetError::NotFound)?;
        c.ask_for_life(now);
        self.touched(connection);
        Ok(())
    }

    /// Changes a setting of a connection, also for subflows that it opens later.
    ///
    /// # Errors
    /// When there is no such connection.
    pub fn set_option(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        option: ConnectionOption,
    ) -> Result<(), SetError> {
        let c = self.connections.get_mut(&connection).ok_or(SetError::NotFound)?;
        c.set_option(now, option, self.ctx.pressure());
        if matches!(option, ConnectionOption::MaxSubflows(_)) {
            c.look_at_paths(&mut self.ctx, now);
        }
        // There may be room for the application now.
        c.notify_writable(&mut self.ctx);
        self.touched(connection);
        Ok(())
    }

    /// The settings of a connection, as they are now; `None`: there is no such connection.
    pub fn settings(&self, connection: ConnectionId) -> Option<&ConnectionConfig> {
        self.connections.get(&connection).map(|c| c.settings())
    }
}

//! Changing a connection's congestion control and scheduler while it runs.

use super::Stack;
use crate::error::SetError;
use alloc::string::{String, ToString};
use umptcp_types::{ConnectionId, Instant};

impl Stack {
    /// Gives a connection another congestion control algorithm of the registry. Windows and slow-start thresholds are kept,
    /// everything else starts anew.
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
        let registry = &self.env.config.congestion;
        let cc =
            registry.create(name).ok_or_else(|| unknown("congestion control", name, registry.names()))?;
        c.set_congestion(now, cc);
        self.touched(now, connection);
        Ok(())
    }

    /// Gives a connection another scheduler of the registry, which starts without memory.
    ///
    /// # Errors
    /// When there is no such connection or no such scheduler.
    pub fn set_scheduler(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        name: &str,
    ) -> Result<(), SetError> {
        let c = self.connections.get_mut(&connection).ok_or(SetError::NotFound)?;
        let registry = &self.env.config.schedulers;
        let scheduler = registry.create(name).ok_or_else(|| unknown("scheduler", name, registry.names()))?;
        c.set_scheduler(scheduler);
        self.touched(now, connection);
        Ok(())
    }
}

fn unknown<'a>(kind: &'static str, name: &str, known: impl Iterator<Item = &'a str>) -> SetError {
    let mut list = String::new();
    for name in known {
        if !list.is_empty() {
            list.push_str(", ");
        }
        list.push_str(name);
    }
    SetError::UnknownName { kind, name: name.to_string(), known: list }
}

//! Finding congestion control and scheduler by name, and changing them while a connection runs.

use super::Stack;
use crate::context::Context;
use crate::error::{ConnectError, SetError};
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use umptcp_congestion::CongestionController;
use umptcp_scheduler::Scheduler;
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
        c.set_congestion(now, self.ctx.congestion(name)?);
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
        c.set_scheduler(self.ctx.scheduler(name)?);
        self.touched(now, connection);
        Ok(())
    }
}

/// A name that no registry has.
pub(crate) struct Unknown {
    kind: &'static str,
    name: String,
    known: String,
}

impl Unknown {
    fn new(kind: &'static str, name: &str, known: impl Iterator<Item = &'static str>) -> Self {
        Unknown { kind, name: name.to_string(), known: known.collect::<Vec<_>>().join(", ") }
    }
}

impl From<Unknown> for SetError {
    fn from(Unknown { kind, name, known }: Unknown) -> Self {
        SetError::UnknownName { kind, name, known }
    }
}

impl From<Unknown> for ConnectError {
    fn from(Unknown { kind, name, known }: Unknown) -> Self {
        ConnectError::UnknownName { kind, name, known }
    }
}

impl Context {
    /// The congestion control algorithm of that name.
    pub(crate) fn congestion(&self, name: &str) -> Result<Box<dyn CongestionController>, Unknown> {
        let registry = &self.config.congestion;
        registry.create(name).ok_or_else(|| Unknown::new("congestion control", name, registry.names()))
    }

    /// The scheduler of that name.
    pub(crate) fn scheduler(&self, name: &str) -> Result<Box<dyn Scheduler>, Unknown> {
        let registry = &self.config.schedulers;
        registry.create(name).ok_or_else(|| Unknown::new("scheduler", name, registry.names()))
    }
}

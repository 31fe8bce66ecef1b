//! Congestion control, schedulers and path policies by name.

use super::shared::Context;
use crate::error::{ConnectError, SetError};
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use umptcp_congestion::CongestionController;
use umptcp_path_manager::PathPolicy;
use umptcp_scheduler::Scheduler;

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

    /// The path policy of that name.
    pub(crate) fn path_policy(&self, name: &str) -> Result<Box<dyn PathPolicy>, Unknown> {
        let registry = &self.config.path_policies;
        registry.create(name).ok_or_else(|| Unknown::new("path policy", name, registry.names()))
    }
}

//! What every stream and listener of a stack has in common.

use crate::copies::CopyPool;
use crate::nics::Nics;
use crate::via::Via;
use crate::worker::Commands;
use std::sync::{Arc, Weak};
use umptcp_stack_core::config::ConnectionConfig;
use umptcp_tun_driver::clock::Clock;

/// A running stack, as its streams and listeners know it. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    pub(crate) commands: Commands,
    pub(crate) clock: Clock,
    pub(crate) defaults: Arc<ConnectionConfig>,
    pub(crate) copies: Arc<CopyPool>,
    /// Weak, because a stream must not keep the paths of a stack that has been dropped.
    pub(crate) nics: Weak<Nics>,
    /// The relay of connections that do not say otherwise.
    pub(crate) via: Option<Via>,
}

impl Handle {
    pub(crate) fn new(
        commands: Commands,
        clock: Clock,
        defaults: ConnectionConfig,
        nics: Weak<Nics>,
        via: Option<Via>,
    ) -> Self {
        Handle { commands, clock, defaults: Arc::new(defaults), copies: Arc::default(), nics, via }
    }
}

//! What every stream and listener of a stack has in common.

use crate::copies::CopyPool;
use crate::nics::Nics;
use crate::shared::lock;
use crate::via::Via;
use crate::worker::Commands;
use std::sync::{Arc, Mutex, Weak};
use umptcp_stack_core::config::ConnectionConfig;
use umptcp_tun_driver::clock::Clock;

/// A running stack, as its streams and listeners know it. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    pub(crate) commands: Commands,
    pub(crate) clock: Clock,
    defaults: Arc<Mutex<ConnectionConfig>>,
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
        let defaults = Arc::new(Mutex::new(defaults));
        Handle { commands, clock, defaults, copies: Arc::default(), nics, via }
    }

    /// The settings of a connection of which nothing else is said.
    pub(crate) fn defaults(&self) -> ConnectionConfig {
        lock(&self.defaults).clone()
    }

    /// Others from now on.
    pub(crate) fn change_defaults(&self, change: impl FnOnce(&mut ConnectionConfig)) {
        change(&mut lock(&self.defaults));
    }

    /// The same for connections that come in: a server advertises its other addresses and leaves joining to the
    /// client, which may be behind a NAT.
    pub(crate) fn server_defaults(&self) -> ConnectionConfig {
        self.defaults().with_advertise_addresses(true)
    }
}

//! A connection that is being established.

use crate::shared::Shared;
use crate::worker::{Accepted, Command, Commands};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use umptcp_types::ConnectionId;

/// A connection that is being established. Dropping it aborts it.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) id: ConnectionId,
    pub(crate) shared: Arc<Shared>,
    pub(crate) remote: SocketAddr,
    /// Where from, if that was chosen.
    pub(crate) local: Option<IpAddr>,
    /// `None`: it is not to be aborted any more.
    abort_by: Option<Commands>,
}

impl Attempt {
    pub(crate) fn new(
        commands: Commands,
        id: ConnectionId,
        shared: Arc<Shared>,
        (remote, local): (SocketAddr, Option<IpAddr>),
    ) -> Self {
        Attempt { id, shared, remote, local, abort_by: Some(commands) }
    }

    /// It has succeeded.
    pub(crate) fn won(mut self, local: SocketAddr, remote: SocketAddr) -> Accepted {
        self.abort_by = None;
        Accepted { id: self.id, shared: self.shared.clone(), local, remote }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(commands) = self.abort_by.take() {
            let id = self.id;
            // If the worker has ended, so has the connection. One that has failed is not there any more.
            commands.send(Command::Run(Box::new(move |worker, cx| worker.abort(cx, id))));
        }
    }
}

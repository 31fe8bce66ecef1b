//! An instance that tools can speak to.

use crate::session::Session;
use std::sync::{Arc, Mutex, PoisonError};
use umptcp_capture::Caller;
use umptcp_control::{Instance, Kind, Server, ServerOptions};

/// The socket of an instance, until it is dropped or a signal ends the process.
pub(crate) struct Served(Arc<Mutex<Option<Server>>>);

impl Drop for Served {
    fn drop(&mut self) {
        drop(take(&self.0));
    }
}

/// Lets tools speak to an instance, as long as what is returned is there. Members of `group` may look, and ask
/// to be captured. An instance works without it, so a socket that cannot be made is a warning.
pub(crate) fn start(
    name: &str,
    kind: Kind,
    instance: Arc<dyn Instance>,
    group: Option<u32>,
    session: &Session,
) -> Option<Served> {
    let owner = match Caller::find() {
        Caller::Same => None,
        Caller::User { uid, .. } => Some(uid.as_raw()),
    };
    match Server::start_with(name, kind, instance, ServerOptions::default().owner(owner).group(group)) {
        Ok(server) => {
            tracing::debug!(socket = %server.socket().display(), "tools can speak to this instance");
            let server = Arc::new(Mutex::new(Some(server)));
            let on_signal = server.clone();
            session.on_signal(move || drop(take(&on_signal)));
            Some(Served(server))
        }
        Err(error) => {
            tracing::warn!(%error, "`umptcp ss`, `monitor` and the like cannot speak to this instance");
            None
        }
    }
}

fn take(server: &Mutex<Option<Server>>) -> Option<Server> {
    server.lock().unwrap_or_else(PoisonError::into_inner).take()
}

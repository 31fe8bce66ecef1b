//! An instance that tools can speak to.

use crate::failure::{Class, usage};
use crate::session::Session;
use std::sync::{Arc, Mutex, PoisonError};
use umptcp_capture::Caller;
use umptcp_control::{ControlError, Instance, Kind, Server, ServerOptions};

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
    serve(name, kind, instance, group, session).unwrap_or_else(|error| {
        warn(&error);
        None
    })
}

/// The same, under a name that was asked for: tools would reach another instance by it.
///
/// # Errors
/// When another instance has the name, or it cannot be one.
pub(crate) fn start_as(
    name: &str,
    kind: Kind,
    instance: Arc<dyn Instance>,
    session: &Session,
) -> anyhow::Result<Option<Served>> {
    match serve(name, kind, instance, None, session) {
        Err(error @ ControlError::NameTaken { .. }) => {
            let text = format!(
                "{error}; give this one another --name, or leave it out: then it is named after its process"
            );
            Err(Class::Host.failure(text).into())
        }
        Err(error @ ControlError::BadName { .. }) => Err(usage(error.to_string())),
        Err(error) => {
            warn(&error);
            Ok(None)
        }
        Ok(served) => Ok(served),
    }
}

fn warn(error: &ControlError) {
    tracing::warn!(%error, "`umptcp ss`, `monitor` and the like cannot speak to this instance");
}

fn serve(
    name: &str,
    kind: Kind,
    instance: Arc<dyn Instance>,
    group: Option<u32>,
    session: &Session,
) -> Result<Option<Served>, ControlError> {
    let owner = match Caller::find() {
        Caller::Same => None,
        Caller::User { uid, .. } => Some(uid.as_raw()),
    };
    let options = ServerOptions::default().owner(owner).group(group);
    let server = Server::start_with(name, kind, instance, options)?;
    tracing::debug!(socket = %server.socket().display(), "tools can speak to this instance");
    let server = Arc::new(Mutex::new(Some(server)));
    let on_signal = server.clone();
    session.on_signal(move || drop(take(&on_signal)));
    Ok(Some(Served(server)))
}

fn take(server: &Mutex<Option<Server>>) -> Option<Server> {
    server.lock().unwrap_or_else(PoisonError::into_inner).take()
}

//! Connections to a port of this host, by MPTCP or TCP, that go to a service of the kernel's.

use super::config::{Listen, Service};
use super::opening::Openings;
use crate::failure::Class;
use crate::serving::bridge::{Bridge, write_all};
use crate::serving::proxy_protocol;
use crate::serving::service::{self, Origin};
use crate::serving::tasks::{Task, Tasks};
use crate::transport::user_space::UserSpace;
use anyhow::Context as _;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use umptcp::tokio::HoldingListener;
use umptcp::{Incoming, ListenScope, MptcpListener, RefuseWith, Unreachable};

/// Connections of one listener that may be on their way to the service, or in the client's handshake, at
/// once. For one more, the oldest is given up.
const MOST_OPENING: usize = 1_024;

/// A listener that runs. Dropping it closes it; its connections go on.
pub(super) struct Listening {
    about: Arc<About>,
    _task: Task,
}

/// What a listener and its connections share.
struct About {
    listen: Mutex<Listen>,
    /// The service did not answer, and that has been said.
    silent: AtomicBool,
}

impl About {
    fn listen(&self) -> Listen {
        self.listen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Listening {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the port is in use, or no path has the address.
    pub(super) fn start(stack: &UserSpace, listen: &Listen, tasks: &Tasks) -> anyhow::Result<Listening> {
        let at = listen.at;
        // The unspecified address means every address of every path, in both families.
        let ip = at.address.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        // The stack's bound is not to be reached: it would not answer anybody then.
        let scope = ListenScope::at(SocketAddr::new(ip, at.port));
        let listener = stack
            .with_stack(|stack| MptcpListener::builder(stack).backlog(2 * MOST_OPENING).hold(scope))?
            .with_context(|| Class::Host.failure(format!("cannot listen on {at}")))?;
        let about = Arc::new(About { listen: Mutex::new(listen.clone()), silent: AtomicBool::new(false) });
        let (of_task, tracker) = (about.clone(), tasks.clone());
        let run = async move {
            let error = accept_all(listener.into(), &of_task, &tracker).await;
            tracker.fail(format!("cannot listen on {at} any more: {error}"));
        };
        let task = tasks.spawn_service(run);
        tasks.spawn(test(about.clone()));
        Ok(Listening { about, _task: task })
    }

    /// From now on connections go where this says; those that there are go on.
    pub(super) fn redirect(&self, listen: &Listen, tasks: &Tasks) {
        *self.about.listen.lock().unwrap_or_else(PoisonError::into_inner) = listen.clone();
        tasks.spawn(test(self.about.clone()));
    }

    /// What it does.
    pub(super) fn listen(&self) -> Listen {
        self.about.listen()
    }
}

/// Says whether the service answers: a mistake is known before the first client comes.
async fn test(about: Arc<About>) {
    let Listen { to, proxy_protocol, .. } = about.listen();
    let tested = async {
        let service = service::dial(&Origin::Host, &to.host, to.port).await?;
        if proxy_protocol { write_all(&service, &proxy_protocol::of_ourselves()).await } else { Ok(()) }
    };
    about.note(&to, tested.await.as_ref().err());
}

impl About {
    /// Says that the service does not answer, or does again: once each.
    fn note(&self, to: &Service, error: Option<&io::Error>) {
        let silent = error.is_some();
        match (self.silent.swap(silent, Ordering::Relaxed), error) {
            (false, Some(error)) => tracing::warn!(service = %to, %error, "the service does not answer"),
            (true, None) => tracing::info!(service = %to, "the service answers"),
            _ => {}
        }
    }
}

/// Runs until the stack has ended.
async fn accept_all(listener: HoldingListener, about: &Arc<About>, tasks: &Tasks) -> io::Error {
    let openings = Openings::default();
    loop {
        let incoming = match listener.next().await {
            Ok(incoming) => incoming,
            Err(error) => return error,
        };
        let (about, opening) = (about.clone(), openings.begin(MOST_OPENING));
        tasks.spawn(async move {
            let (client, at) = (incoming.remote(), incoming.local());
            let result = match opening.run(open(incoming, &about)).await {
                Ok(bridge) => bridge.run().await,
                Err(error) => Err(error),
            };
            match result {
                Ok(()) => tracing::debug!(%client, %at, "the connection has ended"),
                Err(error) => tracing::debug!(%client, %at, %error, "the connection has ended"),
            }
        });
    }
}

/// Connects to the service, and answers the client as that turns out.
async fn open(incoming: Incoming, about: &About) -> io::Result<Bridge> {
    let Listen { to, proxy_protocol, .. } = about.listen();
    let (client, at) = (incoming.remote(), incoming.local());
    let dialled = service::dial(&Origin::Host, &to.host, to.port).await;
    about.note(&to, dialled.as_ref().err());
    let inside = match dialled {
        Ok(inside) => inside,
        Err(error) => {
            // It may have given up.
            let _ = incoming.refuse(refusal(&error));
            return Err(error);
        }
    };
    let outside = umptcp::tokio::accept(incoming).await?;
    let bridge = Bridge::new(outside, inside);
    if proxy_protocol {
        let at = bridge.public_address().await.unwrap_or(at);
        bridge.greet(&proxy_protocol::header(client, at)).await?;
    }
    Ok(bridge)
}

/// What the client is told instead of the service's answer.
fn refusal(error: &io::Error) -> RefuseWith {
    match error.kind() {
        io::ErrorKind::HostUnreachable => RefuseWith::Unreachable(Unreachable::Host),
        io::ErrorKind::NetworkUnreachable => RefuseWith::Unreachable(Unreachable::Network),
        io::ErrorKind::TimedOut => RefuseWith::Silence,
        _ => RefuseWith::Reset,
    }
}

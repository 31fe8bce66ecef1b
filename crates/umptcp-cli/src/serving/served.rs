//! A service behind a listening socket of the kernel's.

use super::tasks::{Task, Tasks};
use crate::failure::Class;
use anyhow::Context as _;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// How long to wait when the process or the host has no descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// A service that runs. Dropping it closes its socket; its connections go on.
pub(crate) struct Served {
    at: SocketAddr,
    local: SocketAddr,
    _task: Task,
}

impl Served {
    /// Begins to listen; each connection is given to `serve`.
    ///
    /// # Errors
    /// When the address is in use, or not of this host.
    pub(crate) fn start<F: Future<Output = ()> + Send + 'static>(
        at: SocketAddr,
        what: &str,
        tasks: &Tasks,
        serve: impl Fn(TcpStream, SocketAddr) -> F + Send + 'static,
    ) -> anyhow::Result<Served> {
        let bind = || -> io::Result<TcpListener> {
            let listener = std::net::TcpListener::bind(at)?;
            listener.set_nonblocking(true)?;
            let _runtime = tasks.enter();
            TcpListener::from_std(listener)
        };
        let listener =
            bind().with_context(|| Class::Host.failure(format!("cannot listen on {at} for {what}")))?;
        let local = listener.local_addr().unwrap_or(at);
        let tracker = tasks.clone();
        let run = async move {
            loop {
                match listener.accept().await {
                    Ok((stream, client)) => tracker.spawn(serve(stream, client)),
                    // The client is gone already.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => {
                        tracing::warn!(%at, %error, "cannot accept");
                        tokio::time::sleep(EXHAUSTED).await;
                    }
                }
            }
        };
        Ok(Served { at, local, _task: tasks.spawn_service(run) })
    }

    /// Where it was told to listen.
    pub(crate) fn at(&self) -> SocketAddr {
        self.at
    }

    /// Where it listens, with the port that the system has chosen.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }
}

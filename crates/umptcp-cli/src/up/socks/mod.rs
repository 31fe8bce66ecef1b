//! A SOCKS 5 proxy: what its clients ask for goes out by MPTCP.

mod protocol;

use super::bridge::{Bridge, write_all};
use super::config::Socks;
use super::served::Served;
use super::tasks::Tasks;
use crate::transport::user_space::UserSpace;
use protocol::{Reply, Target, answer, request};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use umptcp::StreamBuilder;
use umptcp::tokio::MptcpStream;

/// How long a client may take to say where it wants to go.
const REQUEST: Duration = Duration::from_secs(10);

/// How long a server may take to answer, as long as a kernel's connect.
const DIAL: Duration = Duration::from_secs(130);

/// A proxy that runs. Dropping it closes it; its connections go on.
pub(super) struct Proxy {
    settings: Arc<Mutex<Socks>>,
    _served: Served,
}

impl Proxy {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the address is in use, or not of this host.
    pub(super) fn start(stack: &UserSpace, socks: &Socks, tasks: &Tasks) -> anyhow::Result<Proxy> {
        let builder = stack.with_stack(umptcp::MptcpStream::builder)?.connect_timeout(DIAL);
        let settings = Arc::new(Mutex::new(socks.clone()));
        let known = settings.clone();
        let served = Served::start(socks.at, "SOCKS", tasks, move |inside, client| {
            let allowed = lock(&known).allows(client.ip());
            let builder = builder.clone();
            async move {
                if !allowed {
                    return tracing::warn!(%client, "this client may not use the SOCKS proxy");
                }
                match serve(inside, builder).await {
                    Ok(()) => tracing::debug!(%client, "the connection has ended"),
                    Err(error) => tracing::debug!(%client, %error, "the connection has ended"),
                }
            }
        })?;
        Ok(Proxy { settings, _served: served })
    }

    /// Who may use it changes, if that is all that is different.
    pub(super) fn becomes(&self, socks: &Socks) -> bool {
        let mut settings = lock(&self.settings);
        let same = settings.at == socks.at;
        if same {
            settings.clone_from(socks);
        }
        same
    }
}

fn lock(settings: &Mutex<Socks>) -> std::sync::MutexGuard<'_, Socks> {
    settings.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One client, to the end.
async fn serve(mut inside: TcpStream, builder: StreamBuilder) -> io::Result<()> {
    inside.set_nodelay(true)?;
    let asked = timeout(REQUEST, request(&mut inside)).await??;
    let connected = match asked {
        Ok(target) => tokio::select! {
            connected = connect(target, builder) => connected.map_err(|error| (Reply::of(&error), error)),
            error = gave_up(&inside) => return Err(error),
        },
        Err(reply) => Err((reply, io::Error::new(io::ErrorKind::Unsupported, format!("{reply:?}")))),
    };
    match connected {
        Ok(outside) => {
            let bound = outside.local_addr()?;
            let bridge = Bridge::new(outside, inside);
            let bound = bridge.public_address().await.unwrap_or(bound);
            bridge.greet(&answer(Reply::Succeeded, Some(bound))).await?;
            bridge.run().await
        }
        Err((reply, error)) => {
            write_all(&inside, &answer(reply, None)).await?;
            Err(error)
        }
    }
}

/// A connection to the first address that answers. Names are looked up here.
async fn connect(target: Target, builder: StreamBuilder) -> io::Result<MptcpStream> {
    let addresses: Vec<SocketAddr> = match target {
        Target::Address(address) => vec![address],
        // That there is no such name is all that a client can be told.
        Target::Name(name, port) => {
            let found = lookup_host((name.as_str(), port)).await;
            found.map_err(|error| io::Error::new(io::ErrorKind::HostUnreachable, error))?.collect()
        }
    };
    MptcpStream::connect_with(builder, &addresses[..]).await
}

/// Waits until the client does not want its connection any more.
async fn gave_up(inside: &TcpStream) -> io::Error {
    match inside.peek(&mut [0]).await {
        Ok(0) => io::ErrorKind::ConnectionAborted.into(),
        Err(error) => error,
        // It has sent something already: that it ends shows later.
        Ok(_) => std::future::pending().await,
    }
}

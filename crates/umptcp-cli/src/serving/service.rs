//! Connections of the kernel's to services of this host, or of one near.

use std::io;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
use umptcp_capture::Namespace;

/// How long a service may take to accept a connection.
const DIAL: Duration = Duration::from_secs(30);

/// From where services are dialled.
#[derive(Clone)]
pub(crate) enum Origin {
    /// This host.
    Host,
    /// The network namespace of a program.
    #[cfg(all(target_os = "linux", not(umptcp_portable)))]
    Inside(Arc<Namespace>),
}

impl Origin {
    async fn socket(&self, v4: bool) -> io::Result<TcpSocket> {
        let new = move || if v4 { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        match self {
            Origin::Host => {
                let socket = new()?;
                mark(&socket)?;
                Ok(socket)
            }
            #[cfg(all(target_os = "linux", not(umptcp_portable)))]
            Origin::Inside(namespace) => {
                let namespace = namespace.clone();
                // Its thread may be at something else.
                let made = tokio::task::spawn_blocking(move || namespace.run(new));
                made.await?.map_err(io::Error::other)?
            }
        }
    }
}

/// A connection to the first address of a service that answers.
pub(crate) async fn dial(from: &Origin, host: &str, port: u16) -> io::Result<TcpStream> {
    let connect = async {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in lookup_host((host, port)).await? {
            let socket = from.socket(address.is_ipv4()).await?;
            socket.set_nodelay(true)?;
            match socket.connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    timeout(DIAL, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Keeps the connection from being captured. Without the privilege for it this daemon captures nothing, and
/// that of another is not of its own.
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
fn mark(socket: &TcpSocket) -> io::Result<()> {
    match umptcp_capture::mark_own(socket) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        marked => marked,
    }
}

/// Nothing is captured in the portable build.
#[cfg(any(not(target_os = "linux"), umptcp_portable))]
#[allow(clippy::unnecessary_wraps, reason = "Linux may refuse")]
fn mark(_socket: &TcpSocket) -> io::Result<()> {
    Ok(())
}

//! Listeners.

use super::stream::MptcpStream;
use super::taking::{poll_take, take};
use super::tasks::Tasks;
use crate::incoming::{HoldingListener as BlockingHolder, Incoming};
use crate::listener::{ListenerBuilder, MptcpListener as BlockingListener};
use crate::stack::Stack;
use crate::wakers::Key;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use tokio::net::{ToSocketAddrs, lookup_host};

/// A listener for connections, MPTCP and plain TCP alike, for tasks of tokio.
///
/// Several tasks may accept at once. Dropping it closes it and resets connections that have not been
/// accepted.
#[derive(Debug)]
pub struct MptcpListener(BlockingListener);

impl From<BlockingListener> for MptcpListener {
    fn from(listener: BlockingListener) -> Self {
        MptcpListener(listener)
    }
}

impl From<MptcpListener> for BlockingListener {
    fn from(listener: MptcpListener) -> Self {
        listener.0
    }
}

fn try_accept(listener: &BlockingListener) -> Option<io::Result<(MptcpStream, SocketAddr)>> {
    Some(listener.try_accept()?.map(|(stream, from)| (stream.into(), from)))
}

impl MptcpListener {
    /// Listens on `address` with the stack's default settings.
    ///
    /// # Errors
    /// See [`ListenerBuilder::listen`](crate::ListenerBuilder::listen).
    pub async fn bind(stack: &Stack, address: impl ToSocketAddrs) -> io::Result<MptcpListener> {
        Self::bind_with(BlockingListener::builder(stack), address).await
    }

    /// Listens on `address` with the settings of `builder`.
    ///
    /// # Errors
    /// See [`ListenerBuilder::listen`](crate::ListenerBuilder::listen).
    pub async fn bind_with(
        builder: ListenerBuilder,
        address: impl ToSocketAddrs,
    ) -> io::Result<MptcpListener> {
        let addresses: Vec<SocketAddr> = lookup_host(address).await?.collect();
        // Where addresses are translated, this changes the host's set-up.
        let listening = tokio::task::spawn_blocking(move || builder.listen(&addresses[..]));
        Ok(MptcpListener(listening.await.map_err(io::Error::other)??))
    }

    /// Waits for the next connection. A future that is dropped has accepted none.
    ///
    /// # Errors
    /// When the stack has been stopped.
    pub async fn accept(&self) -> io::Result<(MptcpStream, SocketAddr)> {
        take(self.0.ready(), || try_accept(&self.0)).await
    }

    /// Polls for the next connection. Of several tasks that use this function, the last is woken.
    ///
    /// # Errors
    /// When the stack has been stopped.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(MptcpStream, SocketAddr)>> {
        poll_take(self.0.ready(), &mut { Key::POLL }, cx, || try_accept(&self.0))
    }

    /// The address it listens on, with the port that was chosen if none was given.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// The same listener with the blocking API.
    pub fn get_ref(&self) -> &BlockingListener {
        &self.0
    }
}

/// A listener whose connections are answered one by one, each as the program says, for tasks of tokio. It is
/// made from a [`umptcp::HoldingListener`](crate::HoldingListener).
#[derive(Debug)]
pub struct HoldingListener(BlockingHolder);

impl From<BlockingHolder> for HoldingListener {
    fn from(listener: BlockingHolder) -> Self {
        HoldingListener(listener)
    }
}

impl HoldingListener {
    /// Waits for the next connection. A future that is dropped has taken none.
    ///
    /// # Errors
    /// When the stack has been stopped.
    pub async fn next(&self) -> io::Result<Incoming> {
        take(self.0.waiting(), || self.0.try_next()).await
    }
}

/// Answers the SYN of a connection that waits for the program's word, and waits until the handshake is
/// complete. If the future is dropped, the connection is refused or reset.
///
/// # Errors
/// As with [`Incoming::accept`].
pub async fn accept(incoming: Incoming) -> io::Result<MptcpStream> {
    Ok(incoming.accept_by(&Tasks).await?.into())
}

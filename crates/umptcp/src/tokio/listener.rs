//! Listeners.

use super::stream::MptcpStream;
use crate::listener::{ListenerBuilder, MptcpListener as BlockingListener};
use crate::stack::Stack;
use crate::wakers::Key;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};
use tokio::net::{ToSocketAddrs, lookup_host};
use tokio::task::coop;

/// A listener for connections, MPTCP and plain TCP alike, for tasks of tokio.
///
/// Several tasks may accept at once. Dropping it closes it and resets connections that have not been accepted.
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

/// A task that waits for a connection, and does not stay behind when it is dropped.
struct Accepting<'a> {
    listener: &'a BlockingListener,
    key: Key,
}

impl Accepting<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(MptcpStream, SocketAddr)>> {
        poll_accept(self.listener, &mut self.key, cx)
    }
}

impl Drop for Accepting<'_> {
    fn drop(&mut self) {
        if self.key != Key::default() {
            self.listener.ready().forget(self.key);
        }
    }
}

fn poll_accept(
    listener: &BlockingListener,
    key: &mut Key,
    cx: &mut Context<'_>,
) -> Poll<io::Result<(MptcpStream, SocketAddr)>> {
    let progress = ready!(coop::poll_proceed(cx));
    loop {
        if let Some(accepted) = listener.try_accept() {
            progress.made_progress();
            return Poll::Ready(accepted.map(|(stream, from)| (stream.into(), from)));
        }
        ready!(listener.ready().poll_ready(cx, key));
    }
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
        let mut accepting = Accepting { listener: &self.0, key: Key::default() };
        poll_fn(|cx| accepting.poll(cx)).await
    }

    /// Polls for the next connection. Of several tasks that use this function, the last is woken.
    ///
    /// # Errors
    /// When the stack has been stopped.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(MptcpStream, SocketAddr)>> {
        poll_accept(&self.0, &mut { Key::POLL }, cx)
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

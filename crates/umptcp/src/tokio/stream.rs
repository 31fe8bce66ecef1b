//! Connections.

use super::ready::{Direction, Ready, poll_ready};
use super::tasks::Tasks;
use crate::connect::StreamBuilder;
use crate::error::Error;
use crate::protocol::Protocol;
use crate::shared::Unread;
use crate::stack::Stack;
use crate::stream::{FAST_OPEN_PATIENCE, MptcpStream as BlockingStream};
use crate::wakers::Key;
use crate::worker::Command;
use bytes::Bytes;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{ToSocketAddrs, lookup_host};
use tokio::task::coop;
use umptcp_relay::Request;
use umptcp_stack_core::error::ConnectionError;
use umptcp_stack_core::stack::{ConnectionInfo, SubflowInfo};
use umptcp_types::ConnectionId;

/// A connection, MPTCP or plain TCP, for tasks of tokio.
///
/// It is used like [`tokio::net::TcpStream`]. One that was made by the blocking API can be converted
/// ([`From`]), and back. Dropping it closes the connection as dropping a [blocking
/// stream](crate::MptcpStream) does.
///
/// ```
/// # #[cfg(target_os = "linux")]
/// # mod pipe { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/pipe.rs")); }
/// # use umptcp::tokio::{MptcpListener, MptcpStream};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[cfg(target_os = "linux")]
/// # fn main() -> std::io::Result<()> {
/// # let (here, there) = pipe::two_stacks(1, |s| s);
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # runtime.block_on(async {
/// # let listener = MptcpListener::bind(&there, "10.0.0.2:80").await?;
/// let stream = MptcpStream::connect(&here, "10.0.0.2:80").await?;
/// # let (peer, _) = listener.accept().await?;
/// let (mut reading, mut writing) = stream.into_split();
/// let writer = tokio::spawn(async move {
///     writing.write_all(b"both directions").await // dropping it ends this direction
/// });
/// let echo = tokio::spawn(async move {
///     let (mut from, mut to) = peer.into_split();
///     tokio::io::copy(&mut from, &mut to).await
/// });
/// let mut text = String::new();
/// reading.read_to_string(&mut text).await?;
/// assert_eq!(text, "both directions");
/// # assert_eq!(echo.await??, 15);
/// # writer.await?
/// # })
/// # }
/// # #[cfg(not(target_os = "linux"))]
/// # fn main() {}
/// ```
#[derive(Debug)]
pub struct MptcpStream(BlockingStream);

impl From<BlockingStream> for MptcpStream {
    /// Clones of the blocking stream remain usable, and share the connection.
    fn from(stream: BlockingStream) -> Self {
        MptcpStream(stream)
    }
}

impl From<MptcpStream> for BlockingStream {
    fn from(stream: MptcpStream) -> Self {
        stream.0
    }
}

impl MptcpStream {
    /// Connects to `address` with the stack's default settings; see
    /// [`StreamBuilder::connect`](crate::StreamBuilder::connect). Dropping the future aborts the attempt.
    ///
    /// # Panics
    /// Outside of a runtime, and on one whose timer is not enabled.
    pub async fn connect(stack: &Stack, address: impl ToSocketAddrs) -> io::Result<MptcpStream> {
        Self::connect_with(BlockingStream::builder(stack), address).await
    }

    /// Connects with the settings of `builder`.
    ///
    /// # Panics
    /// Outside of a runtime, and on one whose timer is not enabled.
    pub async fn connect_with(
        builder: StreamBuilder,
        address: impl ToSocketAddrs,
    ) -> io::Result<MptcpStream> {
        let addresses: Vec<SocketAddr> = lookup_host(address).await?.collect();
        Ok(MptcpStream(builder.connect_by(addresses.into_iter(), &Tasks).await?))
    }

    /// Connects to a server by its name; see [`StreamBuilder::connect_name`].
    ///
    /// # Panics
    /// Outside of a runtime, and on one whose timer is not enabled.
    pub async fn connect_name(builder: StreamBuilder, host: &str, port: u16) -> io::Result<MptcpStream> {
        match builder.asks_for(host, port) {
            Some(wanted) => Ok(MptcpStream(builder.elsewhere(wanted, &Tasks).await?)),
            None => Self::connect_with(builder, (host, port)).await,
        }
    }

    /// A connection to the relay that waits for somebody to come in there; see [`StreamBuilder::publish`].
    ///
    /// # Panics
    /// Outside of a runtime, and on one whose timer is not enabled.
    pub async fn publish(builder: StreamBuilder, port: u16) -> io::Result<MptcpStream> {
        Ok(MptcpStream(builder.elsewhere(Request::Publish(port), &Tasks).await?))
    }

    /// The same connection with the blocking API, for its options. Most of them ask the worker and block
    /// until it answers, which it does within microseconds as a rule. Reads and writes would block the task's
    /// thread.
    ///
    /// With a linger time ([`set_linger`](crate::MptcpStream::set_linger)), dropping the stream blocks.
    pub fn get_ref(&self) -> &BlockingStream {
        &self.0
    }

    /// The connection's id within its stack.
    pub fn id(&self) -> ConnectionId {
        self.0.id()
    }

    /// The remote address of the initial subflow.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr()
    }

    /// The local address of the initial subflow.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Whether the connection is MPTCP, since when, or why not.
    pub async fn protocol(&self) -> io::Result<Protocol> {
        Ok(self.0.protocol_of(&self.describe().await?.0))
    }

    /// State and statistics of the connection; the final ones if it has ended.
    pub async fn info(&self) -> io::Result<ConnectionInfo> {
        Ok(self.describe().await?.0)
    }

    /// State and statistics of each subflow; the final ones if the connection has ended.
    pub async fn subflows(&self) -> io::Result<Vec<SubflowInfo>> {
        Ok(self.describe().await?.1)
    }

    async fn describe(&self) -> Result<(ConnectionInfo, Vec<SubflowInfo>), Error> {
        self.0.describe_by(&Tasks).await
    }

    /// The error that has ended the connection, if nothing has reported it yet; see
    /// [`take_error`](crate::MptcpStream::take_error).
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.0.take_error()
    }

    /// Aborts the connection: data in flight is lost, and the peer gets a reset.
    pub fn abort(self) {
        let id = self.0.id();
        self.0.0.handle.commands.send(Command::Run(Box::new(move |worker, cx| worker.abort(cx, id))));
    }

    /// Waits until a read does not have to wait: there are data, the end of the stream or an error. Another
    /// reader may be faster.
    pub async fn readable(&self) -> io::Result<()> {
        self.open_without_data();
        Ready::new(&self.0.0.shared, Direction::Read).await;
        Ok(())
    }

    /// Waits until a write does not have to wait: there is room, or an error. Another writer may be faster.
    pub async fn writable(&self) -> io::Result<()> {
        Ready::new(&self.0.0.shared, Direction::Write).await;
        Ok(())
    }

    /// Waits until an error has ended the connection, such as a reset by the peer, which a read or write
    /// would report; for who neither reads nor writes at the moment. Never returns when both ends close it in
    /// order.
    pub async fn failed(&self) {
        Ready::new(&self.0.0.shared, Direction::Failure).await;
    }

    /// Reads what there is, without waiting; 0 means the end of the stream.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there is nothing yet.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let read = self.0.try_read_with(|queue| queue.fill(buf));
        Ok(read.unwrap_or(Err(Error::WouldBlock))?.unwrap_or(0))
    }

    /// Writes what there is room for, without waiting.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there is no room.
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        Ok(self.0.try_write(&[IoSlice::new(buf)]).unwrap_or(Err(Error::WouldBlock))?)
    }

    /// Receives some data without copying it; empty at the end of the stream. See
    /// [`recv_bytes`](crate::MptcpStream::recv_bytes).
    pub async fn recv_bytes(&self) -> io::Result<Bytes> {
        let taken = self.read_with(Unread::pop_front).await?;
        Ok(taken.flatten().unwrap_or_default())
    }

    /// Reads without removing what is read. Waits if there is nothing yet; 0 means the end of the stream.
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        Ok(self.read_with(|queue| queue.copy_out(buf)).await?.unwrap_or(0))
    }

    /// Sends `data` without copying it. Returns once it is queued, which may have to wait for earlier data to
    /// be sent. If the future is dropped before, nothing of it is sent.
    pub async fn send_bytes(&self, data: Bytes) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        loop {
            if let Some(sent) = self.0.try_send(data.clone()) {
                coop::consume_budget().await;
                return Ok(sent.map(drop)?);
            }
            self.writable().await?;
        }
    }

    async fn read_with<T>(&self, mut take: impl FnMut(&mut Unread) -> T) -> io::Result<Option<T>> {
        // Before anything is taken: a future dropped at this point loses nothing.
        coop::consume_budget().await;
        loop {
            if let Some(taken) = self.0.try_read_with(&mut take) {
                return Ok(taken?);
            }
            self.readable().await?;
        }
    }

    /// A reader waits. With Fast Open, and if nothing has been written, the server may have to speak first;
    /// or another task is about to write.
    fn open_without_data(&self) {
        if !self.0.0.shared.stop_awaiting_data() {
            return;
        }
        let (id, commands) = (self.0.id(), self.0.0.handle.commands.clone());
        let open = move || {
            commands.send(Command::Run(Box::new(move |_, cx| {
                cx.stack.open(cx.now, id);
            })));
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(async move {
                    tokio::time::sleep(FAST_OPEN_PATIENCE).await;
                    open();
                });
            }
            Err(_) => open(),
        }
    }

    pub(super) fn poll_read_by(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let progress = ready!(coop::poll_proceed(cx));
        loop {
            if let Some(read) =
                self.0.try_read_with(|queue| queue.give(buf.remaining(), |bytes| buf.put_slice(bytes)))
            {
                progress.made_progress();
                return Poll::Ready(Ok(read.map(drop)?));
            }
            self.open_without_data();
            ready!(poll_ready(&self.0.0.shared, Direction::Read, &mut { Key::POLL }, cx));
        }
    }

    pub(super) fn poll_write_by(
        &self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let progress = ready!(coop::poll_proceed(cx));
        loop {
            if let Some(written) = self.0.try_write(bufs) {
                progress.made_progress();
                return Poll::Ready(Ok(written?));
            }
            ready!(poll_ready(&self.0.0.shared, Direction::Write, &mut { Key::POLL }, cx));
        }
    }

    /// Ends the writing direction: the peer reads the end of the stream.
    pub(super) fn end_writing(&self) -> io::Result<()> {
        match self.0.shutdown(Shutdown::Write) {
            // As with tokio's own: there is nothing left to shut down.
            Err(e) if e.get_ref().and_then(|e| e.downcast_ref()).is_some_and(is_over) => Ok(()),
            result => result,
        }
    }
}

fn is_over(error: &Error) -> bool {
    matches!(error, Error::Connection { source: ConnectionError::SendClosed, .. })
}

impl AsyncRead for MptcpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_read_by(cx, buf)
    }
}

impl AsyncWrite for MptcpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_by(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_by(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Does nothing: data is sent as soon as the windows allow.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends the writing direction, after what was written: the peer reads the end of the stream. Does not
    /// wait for it.
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.end_writing())
    }
}

//! Connections.

use crate::error::Error;
use crate::handle::Handle;
use crate::protocol::Protocol;
use crate::settings::connection_settings;
use crate::shared::{End, Phase, Put, Shared, Taken, TimedOut, deadline, lock};
use crate::stack::Stack;
use crate::worker::{Accepted, Command, Context, Worker};
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use umptcp_stack_core::config::{ConnectOptions, ConnectionConfig, Ecn};
use umptcp_stack_core::error::{ConnectionError, SetError, SignalError};
use umptcp_stack_core::stack::{ConnectionInfo, MptcpStatus, SubflowInfo};
use umptcp_types::{AddressId, ConnectionId, PathId, SubflowId};

/// A connection: MPTCP, or plain TCP when the peer or the path does not support it.
///
/// It works like [`std::net::TcpStream`] and can be read and written from several threads, through
/// `&MptcpStream` or a clone made by [`MptcpStream::try_clone`]. Dropping the last handle closes the
/// connection; data written before that is still delivered in the background. As with the kernel's sockets,
/// data of the peer's that nobody has read, or that comes later, ends the connection with a reset instead, so
/// that the peer does not believe that they were read: read until the end of the stream if it matters.
#[derive(Debug, Clone)]
pub struct MptcpStream(Arc<Inner>);

/// How long a reader waits for another thread to write something that can go with the SYN.
const FAST_OPEN_PATIENCE: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct Inner {
    handle: Handle,
    id: ConnectionId,
    shared: Arc<Shared>,
    local: SocketAddr,
    remote: SocketAddr,
    reader: Mutex<VecDeque<Bytes>>,
    /// Held while writing, so that the bytes of one write stay together.
    writer: Mutex<()>,
    /// In nanoseconds; 0 means none.
    read_timeout: AtomicU64,
    write_timeout: AtomicU64,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let unread = self.reader.get_mut().is_ok_and(|queue| !queue.is_empty());
        self.handle.commands.send(Command::Close { id: self.id, unread });
    }
}

/// Settings for a new connection.
///
/// Starts from the stack's defaults.
#[derive(Clone, Debug)]
pub struct StreamBuilder {
    handle: Handle,
    paths: Vec<PathId>,
    local_address: Option<IpAddr>,
    local_port: u16,
    timeout: Option<Duration>,
    config: ConnectionConfig,
}

impl StreamBuilder {
    pub(crate) fn new(handle: Handle) -> Self {
        let config = (*handle.defaults).clone();
        StreamBuilder { handle, paths: Vec::new(), local_address: None, local_port: 0, timeout: None, config }
    }

    connection_settings!();

    /// Paths to use, the first one for the initial subflow. All paths if not set.
    pub fn paths(mut self, paths: impl IntoIterator<Item = PathId>) -> Self {
        self.paths = paths.into_iter().collect();
        self
    }

    /// Local address and port of the initial subflow. The stack chooses an unspecified address, or port 0,
    /// itself.
    pub fn local(mut self, local: SocketAddr) -> Self {
        self.local_address = Some(local.ip()).filter(|a| !a.is_unspecified());
        self.local_port = local.port();
        self
    }

    /// Whether to use TCP Fast Open (RFC 7413; the socket option TCP_FASTOPEN_CONNECT). The first connection
    /// to a server asks it for a cookie. Later connections of this stack are returned before anything is
    /// sent: the SYN carries the first data written, which saves a round trip. If the server cannot be
    /// reached, reading or writing reports it.
    ///
    /// If the network duplicates the SYN, the server may receive its data twice. Use only for idempotent
    /// requests.
    pub fn fast_open(mut self, on: bool) -> Self {
        self.config.fast_open = on;
        self
    }

    /// How long to wait for the connection to be established, per address tried.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Connects. Several addresses are tried in turn; the error is that of the last one.
    pub fn connect(self, address: impl ToSocketAddrs) -> io::Result<MptcpStream> {
        let mut last = None;
        for remote in address.to_socket_addrs()? {
            match self.connect_one(remote) {
                Ok(stream) => return Ok(stream),
                Err(e) => last = Some(e),
            }
        }
        Err(last.map_or_else(
            || io::Error::new(io::ErrorKind::InvalidInput, "the name has no address"),
            io::Error::from,
        ))
    }

    fn connect_one(&self, remote: SocketAddr) -> Result<MptcpStream, Error> {
        // The first path may not have a route to the peer.
        let routed = || self.handle.nics.upgrade().and_then(|n| n.address_towards(remote.ip()));
        let local_address = match self.local_address {
            None if self.paths.is_empty() => routed(),
            chosen => chosen,
        };
        let mut options = ConnectOptions::new(remote).with_config(self.config.clone());
        options.paths.clone_from(&self.paths);
        options.local_address = local_address;
        options.local_port = self.local_port;
        let (id, shared) = self
            .handle
            .commands
            .call(move |worker, cx| worker.connect(cx, options))?
            .map_err(|source| Error::Connect { remote, source })?;
        match shared.wait_connected(deadline(self.timeout)) {
            Ok(Phase::Connected { local, remote }) => {
                Ok(MptcpStream::new(self.handle.clone(), Accepted { id, shared, local, remote }))
            }
            Ok(Phase::Failed(source)) => {
                let nics = self.handle.nics.upgrade().filter(|_| source == ConnectionError::Unreachable);
                let nics = nics.map(|n| n.without_route(remote.ip())).unwrap_or_default();
                Err(if nics.is_empty() {
                    Error::Connection { remote, source }
                } else {
                    Error::NoRoute { remote, nics }
                })
            }
            Ok(Phase::Connecting) | Err(TimedOut) => {
                self.handle.commands.call(move |worker, cx| worker.abort(cx, id))?;
                Err(Error::ConnectTimeout { remote })
            }
        }
    }
}

impl Stack {
    /// Connects to `address` with the default settings.
    pub fn connect(&self, address: impl ToSocketAddrs) -> io::Result<MptcpStream> {
        MptcpStream::connect(self, address)
    }
}

impl MptcpStream {
    pub(crate) fn new(handle: Handle, connection: Accepted) -> Self {
        let Accepted { id, shared, local, remote } = connection;
        MptcpStream(Arc::new(Inner {
            handle,
            id,
            shared,
            local,
            remote,
            reader: Mutex::default(),
            writer: Mutex::default(),
            read_timeout: AtomicU64::new(0),
            write_timeout: AtomicU64::new(0),
        }))
    }

    /// Connects to `address` with the stack's default settings.
    pub fn connect(stack: &Stack, address: impl ToSocketAddrs) -> io::Result<MptcpStream> {
        Self::builder(stack).connect(address)
    }

    /// Settings for a connection.
    pub fn builder(stack: &Stack) -> StreamBuilder {
        StreamBuilder::new(stack.handle().clone())
    }

    /// The connection's id within its stack.
    pub fn id(&self) -> ConnectionId {
        self.0.id
    }

    /// The remote address of the initial subflow.
    pub fn peer_addr(&self) -> SocketAddr {
        self.0.remote
    }

    /// The local address of the initial subflow.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local
    }

    /// Another handle to the same connection.
    pub fn try_clone(&self) -> io::Result<MptcpStream> {
        Ok(self.clone())
    }

    /// Whether the connection is MPTCP, since when, or why not.
    pub fn protocol(&self) -> io::Result<Protocol> {
        Ok(match self.info()?.mptcp {
            MptcpStatus::Negotiating => Protocol::Negotiating,
            MptcpStatus::Active { since } => Protocol::Mptcp { since: self.0.handle.clock.wall_time(since) },
            MptcpStatus::Plain { reason } => Protocol::Tcp { reason },
        })
    }

    /// State and statistics of the connection; the final ones if it has ended.
    pub fn info(&self) -> io::Result<ConnectionInfo> {
        Ok(self.describe()?.0)
    }

    /// State and statistics of each subflow; the final ones if the connection has ended.
    pub fn subflows(&self) -> io::Result<Vec<SubflowInfo>> {
        Ok(self.describe()?.1)
    }

    fn describe(&self) -> Result<(ConnectionInfo, Vec<SubflowInfo>), Error> {
        let (id, shared) = (self.0.id, self.0.shared.clone());
        let found = match self.0.handle.commands.call(move |worker, cx| worker.describe(cx, id, &shared)) {
            Err(Error::Stopped) => self.0.shared.last(),
            other => other?,
        };
        found.ok_or(self.error(ConnectionError::NotFound))
    }

    /// Makes a subflow a backup, to be used only when no other works, or a regular one again. Applies to both
    /// directions: the peer is told (MP_PRIO, RFC 8684 §3.3.8).
    pub fn set_backup(&self, subflow: SubflowId, backup: bool) -> io::Result<()> {
        let id = self.0.id;
        let set =
            move |_: &mut Worker, cx: &mut Context<'_>| cx.stack.set_backup(cx.now, id, subflow, backup);
        self.signalled(self.0.handle.commands.call(set)?)
    }

    /// Advertises to the peer an address that it may open subflows to, with a port if it differs from the one
    /// in use (ADD_ADDR, RFC 8684 §3.4.1). The caller must make sure that packets to it reach this stack.
    pub fn advertise_address(&self, address: IpAddr, port: Option<u16>) -> io::Result<AddressId> {
        let id = self.0.id;
        let tell =
            move |_: &mut Worker, cx: &mut Context<'_>| cx.stack.advertise_address(cx.now, id, address, port);
        self.signalled(self.0.handle.commands.call(tell)?)
    }

    /// Tells the peer that an address is no longer available (REMOVE_ADDR, RFC 8684 §3.4.2). Subflows from it
    /// are closed as long as others remain.
    pub fn withdraw_address(&self, address: AddressId) -> io::Result<()> {
        let id = self.0.id;
        let tell =
            move |_: &mut Worker, cx: &mut Context<'_>| cx.stack.withdraw_addresses(cx.now, id, &[address]);
        self.signalled(self.0.handle.commands.call(tell)?)
    }

    /// Switches the connection to another congestion control algorithm of the stack's registry (the socket
    /// option TCP_CONGESTION). Windows and slow-start thresholds are kept. [`info`](Self::info) tells which
    /// one is in use.
    pub fn set_congestion(&self, name: &str) -> io::Result<()> {
        let (id, name) = (self.0.id, name.to_owned());
        self.changed(move |_, cx| cx.stack.set_congestion(cx.now, id, &name))
    }

    /// Switches the connection to another scheduler of the stack's registry.
    pub fn set_scheduler(&self, name: &str) -> io::Result<()> {
        let (id, name) = (self.0.id, name.to_owned());
        self.changed(move |_, cx| cx.stack.set_scheduler(cx.now, id, &name))
    }

    fn changed(
        &self,
        set: impl FnOnce(&mut Worker, &mut Context<'_>) -> Result<(), SetError> + Send + 'static,
    ) -> io::Result<()> {
        let remote = self.0.remote;
        Ok(self.0.handle.commands.call(set)?.map_err(|source| Error::Set { remote, source })?)
    }

    fn signalled<T>(&self, result: Result<T, SignalError>) -> io::Result<T> {
        let remote = self.0.remote;
        Ok(result.map_err(|source| Error::Signal { remote, source })?)
    }

    /// Shuts down reading, writing or both. Data written before that is still delivered.
    ///
    /// # Errors
    /// When the connection has ended with an error: what was written may not have arrived.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if matches!(how, Shutdown::Read | Shutdown::Both) {
            self.0.shared.end_reading(End::Finished, true);
        }
        let end = match how {
            Shutdown::Write | Shutdown::Both => self.0.shared.end_writing(End::Finished),
            Shutdown::Read => End::Finished,
        };
        self.look(self.0.shared.mark_dirty());
        match end {
            End::Finished | End::Error(ConnectionError::SendClosed) => Ok(()),
            End::Error(source) => Err(self.error(source).into()),
        }
    }

    /// Aborts the connection: data in flight is lost, and the peer gets a reset.
    pub fn abort(self) {
        let id = self.0.id;
        // If the worker has ended, so has the connection.
        let _ = self.0.handle.commands.call(move |worker, cx| worker.abort(cx, id));
    }

    /// Time limit for reads; `None` means no limit. A read that exceeds it fails with
    /// [`io::ErrorKind::WouldBlock`].
    pub fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        set_timeout(&self.0.read_timeout, limit)
    }

    /// Time limit for writes; `None` means no limit. A write that exceeds it fails with
    /// [`io::ErrorKind::WouldBlock`].
    pub fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        set_timeout(&self.0.write_timeout, limit)
    }

    /// Time limit for reads.
    pub fn read_timeout(&self) -> Option<Duration> {
        timeout(&self.0.read_timeout)
    }

    /// Time limit for writes.
    pub fn write_timeout(&self) -> Option<Duration> {
        timeout(&self.0.write_timeout)
    }

    /// Receives some data without copying it; empty at the end of the stream.
    ///
    /// The data shares memory with the packets that carried it, so do not keep it longer than necessary.
    pub fn recv_bytes(&self) -> io::Result<Bytes> {
        let mut queue = lock(&self.0.reader);
        if queue.is_empty() && !self.fill(&mut queue)? {
            return Ok(Bytes::new());
        }
        Ok(queue.pop_front().unwrap_or_default())
    }

    /// Sends `data` without copying it. Returns once it is queued, which may have to wait for earlier data to
    /// be sent.
    pub fn send_bytes(&self, data: Bytes) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let _writer = lock(&self.0.writer);
        let room = self.0.shared.wait_room(deadline(self.write_timeout())).map_err(|_| Error::WouldBlock)?;
        room.map_err(|end| self.write_error(end))?;
        match self.0.shared.put(data) {
            Put::Taken(_, tell) => self.look(tell),
            Put::End(end) => return Err(self.write_error(end).into()),
        }
        Ok(())
    }

    /// Waits for data and takes it. Returns `false` at the end of the stream.
    fn fill(&self, queue: &mut VecDeque<Bytes>) -> Result<bool, Error> {
        let limit = deadline(self.read_timeout());
        if self.0.shared.stop_awaiting_data() {
            // Fast Open, and nothing has been written: the server may have to speak first. Or another thread
            // is about to write.
            let patience = deadline(Some(FAST_OPEN_PATIENCE));
            match self.0.shared.take(queue, limit.into_iter().chain(patience).min()) {
                Err(TimedOut) => {
                    let id = self.0.id;
                    self.0.handle.commands.call(move |_, cx| cx.stack.open(cx.now, id))?;
                }
                taken => return self.filled(taken),
            }
        }
        self.filled(self.0.shared.take(queue, limit))
    }

    fn filled(&self, taken: Result<Taken, TimedOut>) -> Result<bool, Error> {
        match taken {
            Ok(Taken::Data(tell)) => {
                self.look(tell && self.0.shared.mark_dirty());
                Ok(true)
            }
            Ok(Taken::End(End::Finished)) => Ok(false),
            Ok(Taken::End(End::Error(e))) => Err(self.error(e)),
            Err(TimedOut) => Err(Error::WouldBlock),
        }
    }

    fn look(&self, tell: bool) {
        self.0.handle.commands.look(self.0.id, tell);
    }

    fn error(&self, source: ConnectionError) -> Error {
        Error::Connection { remote: self.0.remote, source }
    }

    fn write_error(&self, end: End) -> Error {
        self.error(match end {
            End::Finished => ConnectionError::SendClosed,
            End::Error(e) => e,
        })
    }
}

impl Read for &MptcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let mut queue = lock(&self.0.reader);
        if queue.is_empty() && !self.fill(&mut queue)? {
            return Ok(0);
        }
        let mut done = 0;
        while let Some(front) = queue.front_mut() {
            let n = front.len().min(buf.len() - done);
            buf[done..done + n].copy_from_slice(&front[..n]);
            done += n;
            if n < front.len() {
                front.advance(n);
                break;
            }
            queue.pop_front();
        }
        Ok(done)
    }
}

impl Write for &MptcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let _writer = lock(&self.0.writer);
        let limit = deadline(self.write_timeout());
        match self.0.shared.put_slice(buf, limit, |piece| self.0.handle.copies.copy(piece)) {
            Ok(Put::Taken(n, tell)) => {
                self.look(tell);
                Ok(n)
            }
            Ok(Put::End(end)) => Err(self.write_error(end).into()),
            Err(TimedOut) => Err(Error::WouldBlock.into()),
        }
    }

    /// Does nothing: data is sent as soon as the windows allow.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for MptcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }
}

impl Write for MptcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn set_timeout(to: &AtomicU64, limit: Option<Duration>) -> io::Result<()> {
    if limit == Some(Duration::ZERO) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a time limit must not be zero"));
    }
    let nanos = limit.map_or(0, |l| u64::try_from(l.as_nanos()).unwrap_or(u64::MAX));
    to.store(nanos, Ordering::Relaxed);
    Ok(())
}

fn timeout(of: &AtomicU64) -> Option<Duration> {
    match of.load(Ordering::Relaxed) {
        0 => None,
        nanos => Some(Duration::from_nanos(nanos)),
    }
}

//! Connections.

use crate::addresses;
use crate::error::Error;
use crate::handle::Handle;
use crate::limit::Limit;
use crate::protocol::Protocol;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
use crate::readiness::{Readiness, Source};
use crate::shared::{End, Put, Shared, Taken, TimedOut, Unread, deadline, lock};
use crate::waits::{Blocking, Waits, block_on};
use crate::worker::{Accepted, Context, Worker};
use bytes::Bytes;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use umptcp_stack_core::error::{ConnectionError, SetError, SignalError};
use umptcp_stack_core::stack::{ConnectionInfo, MptcpStatus, SubflowInfo};
use umptcp_types::{AddressId, ConnectionId, SubflowId};

/// A connection: MPTCP, or plain TCP when the peer or the path does not support it.
///
/// It works like [`std::net::TcpStream`] and can be read and written from several threads, through
/// `&MptcpStream` or a clone made by [`MptcpStream::try_clone`]. Dropping the last handle closes the
/// connection; data written before that is still delivered in the background. As with the kernel's sockets,
/// data of the peer's that nobody has read, or that comes later, ends the connection with a reset instead, so
/// that the peer does not believe that they were read: read until the end of the stream if it matters.
#[derive(Debug, Clone)]
pub struct MptcpStream(pub(crate) Arc<Inner>);

/// How long a reader waits for another thread to write something that can go with the SYN.
pub(crate) const FAST_OPEN_PATIENCE: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) handle: Handle,
    pub(crate) id: ConnectionId,
    pub(crate) shared: Arc<Shared>,
    local: SocketAddr,
    remote: SocketAddr,
    pub(crate) read_timeout: Limit,
    pub(crate) write_timeout: Limit,
    pub(crate) nonblocking: AtomicBool,
    pub(crate) linger: Mutex<Option<Duration>>,
    /// A read, a write or [`MptcpStream::take_error`] has reported the error that ended the connection.
    error_reported: AtomicBool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let linger = *lock(&self.linger);
        self.close(linger);
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
            read_timeout: Limit::default(),
            write_timeout: Limit::default(),
            nonblocking: AtomicBool::new(false),
            linger: Mutex::default(),
            error_reported: AtomicBool::new(false),
        }))
    }

    /// The connection's id within its stack.
    pub fn id(&self) -> ConnectionId {
        self.0.id
    }

    /// The remote address of the initial subflow. Never fails; the signature is that of
    /// [`std::net::TcpStream::peer_addr`].
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0.remote)
    }

    /// The local address of the initial subflow. Never fails; the signature is that of
    /// [`std::net::TcpStream::local_addr`].
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0.local)
    }

    /// The local address of the initial subflow as the peer sees it, as far as this host knows: that of the
    /// NIC where the stack's own is translated. The port is the same, unless another translation changes it.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrNotAvailable`] when the path or the NIC's address is gone.
    pub fn public_addr(&self) -> io::Result<SocketAddr> {
        let local = self.0.local;
        let pairs = self.0.handle.nics.upgrade().map(|nics| nics.translations()).unwrap_or_default();
        if let Some((_, nic)) = pairs.into_iter().find(|(own, _)| *own == local.ip()) {
            return Ok(SocketAddr::new(nic, local.port()));
        }
        let public = self.0.handle.commands.call(move |_, cx| {
            let ids = cx.paths();
            let mut paths = ids.iter().filter_map(|id| cx.stack.path(*id));
            addresses::public_of(paths.find(|path| path.addresses.contains(&local.ip()))?, local.ip())
        })?;
        let gone = || io::Error::new(io::ErrorKind::AddrNotAvailable, format!("{} is gone", local.ip()));
        Ok(SocketAddr::new(public.ok_or_else(gone)?, local.port()))
    }

    /// Another handle to the same connection.
    pub fn try_clone(&self) -> io::Result<MptcpStream> {
        Ok(self.clone())
    }

    /// Whether the connection is MPTCP, since when, or why not.
    pub fn protocol(&self) -> io::Result<Protocol> {
        Ok(self.protocol_of(&self.info()?))
    }

    pub(crate) fn protocol_of(&self, info: &ConnectionInfo) -> Protocol {
        match info.mptcp {
            MptcpStatus::Negotiating => Protocol::Negotiating,
            MptcpStatus::Active { since } => Protocol::Mptcp { since: self.0.handle.clock.wall_time(since) },
            MptcpStatus::Plain { reason } => Protocol::Tcp { reason },
        }
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
        let blocking = Blocking::default();
        block_on(&blocking, self.describe_by(&blocking))
    }

    pub(crate) async fn describe_by(
        &self,
        waits: &impl Waits,
    ) -> Result<(ConnectionInfo, Vec<SubflowInfo>), Error> {
        let (id, shared) = (self.0.id, self.0.shared.clone());
        let describe = move |worker: &mut Worker, cx: &mut Context<'_>| worker.describe(cx, id, &shared);
        let found = match waits.call(&self.0.handle.commands, describe).await {
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
    /// in use (ADD_ADDR, RFC 8684 §3.4.1). The caller must make sure that packets to it reach this host. On
    /// paths that the stack has set up itself, the port is the stack's from then on, as long as the
    /// connection offers it.
    ///
    /// # Errors
    /// Besides those of the connection, when another program of the host uses the port.
    pub fn advertise_address(&self, address: IpAddr, port: Option<u16>) -> io::Result<AddressId> {
        let id = self.0.id;
        let tell =
            move |_: &mut Worker, cx: &mut Context<'_>| cx.stack.advertise_address(cx.now, id, address, port);
        let commands = &self.0.handle.commands;
        let tell = || self.signalled(commands.call(tell)?);
        let nics = self.0.handle.nics.upgrade();
        let Some((nics, port)) = nics.zip(port) else { return tell() };
        nics.listen(port)?;
        let result = tell();
        nics.unlisten(port, |port| commands.uses_port(port));
        result
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

    /// Has another path policy of the stack's registry decide which subflows there are to be. What it wants
    /// is opened at once; subflows that it would not have opened stay.
    pub fn set_path_policy(&self, name: &str) -> io::Result<()> {
        let (id, name) = (self.0.id, name.to_owned());
        self.changed(move |_, cx| cx.stack.set_path_policy(cx.now, id, &name))
    }

    pub(crate) fn changed(
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

    /// Receives some data without copying it; empty at the end of the stream.
    ///
    /// The data shares memory with the packets that carried it, so do not keep it longer than necessary.
    pub fn recv_bytes(&self) -> io::Result<Bytes> {
        Ok(self.read_with(Unread::pop_front)?.flatten().unwrap_or_default())
    }

    /// Reads without removing what is read: the next read returns it again. Waits if there is nothing yet; 0
    /// means the end of the stream.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        Ok(self.read_with(|queue| queue.copy_out(buf))?.unwrap_or(0))
    }

    /// Sends `data` without copying it. Returns once it is queued, which may have to wait for earlier data to
    /// be sent.
    pub fn send_bytes(&self, data: Bytes) -> io::Result<()> {
        if !data.is_empty() {
            self.written(self.0.shared.put(data, self.until(&self.0.write_timeout)))?;
        }
        Ok(())
    }

    /// A descriptor that is readable while a read would not wait and writable while a write would not, for
    /// event loops. It belongs to the connection: every call returns the same, for every handle.
    ///
    /// # Errors
    /// When the process has too many descriptors.
    #[cfg(all(target_os = "linux", not(umptcp_portable)))]
    pub fn readiness(&self) -> io::Result<Readiness> {
        self.0.shared.descriptor().open()?;
        self.0.shared.show();
        Ok(Readiness::new(Source::Stream(self.0.shared.clone())))
    }

    /// The error that has ended the connection, if no read, write or earlier call has reported it (the socket
    /// option SO_ERROR). `None` while the connection lasts and when both ends have closed it.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        let Some(source) = self.0.shared.error() else { return Ok(None) };
        let reported = self.0.error_reported.swap(true, Ordering::Relaxed);
        Ok((!reported).then(|| self.error(source).into()))
    }

    /// Until when a read or write may wait.
    fn until(&self, limit: &Limit) -> Option<Instant> {
        if self.0.nonblocking.load(Ordering::Relaxed) { at_once() } else { deadline(limit.get()) }
    }

    /// Waits for data and gives it to `take`. `None` at the end of the stream.
    fn read_with<T>(&self, mut take: impl FnMut(&mut Unread) -> T) -> Result<Option<T>, Error> {
        let limit = self.until(&self.0.read_timeout);
        let shared = &self.0.shared;
        if shared.stop_awaiting_data() {
            // Fast Open, and nothing has been written: the server may have to speak first. Or another thread
            // is about to write.
            let patience = deadline(Some(FAST_OPEN_PATIENCE));
            match shared.read(limit.into_iter().chain(patience).min(), &mut take) {
                Err(TimedOut) => {
                    let id = self.0.id;
                    self.0.handle.commands.call(move |_, cx| cx.stack.open(cx.now, id))?;
                }
                taken => return self.taken(taken),
            }
        }
        self.taken(shared.read(limit, take))
    }

    /// Like `read_with`, but returns `None` instead of waiting.
    #[cfg(feature = "tokio")]
    pub(crate) fn try_read_with<T>(
        &self,
        take: impl FnMut(&mut Unread) -> T,
    ) -> Option<Result<Option<T>, Error>> {
        Some(self.taken(Ok(self.0.shared.read_now(take)?)))
    }

    /// Writes what there is room for; `None` if there is none.
    #[cfg(feature = "tokio")]
    pub(crate) fn try_write(&self, bufs: &[IoSlice<'_>]) -> Option<Result<usize, Error>> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Some(Ok(0));
        }
        let copies = &self.0.handle.copies;
        let put = self.0.shared.put_slices(bufs, at_once(), |data, n| copies.copy(data, n));
        (put != Err(TimedOut)).then(|| self.written(put))
    }

    /// Queues `data` if there is room; `None` if there is none.
    #[cfg(feature = "tokio")]
    pub(crate) fn try_send(&self, data: Bytes) -> Option<Result<usize, Error>> {
        let put = self.0.shared.put(data, at_once());
        (put != Err(TimedOut)).then(|| self.written(put))
    }

    fn taken<T>(&self, taken: Result<Taken<T>, TimedOut>) -> Result<Option<T>, Error> {
        match taken {
            Ok(Taken::Data(result, tell)) => {
                self.look(tell && self.0.shared.mark_dirty());
                Ok(Some(result))
            }
            Ok(Taken::End(End::Finished)) => Ok(None),
            Ok(Taken::End(End::Error(e))) => Err(self.reported(e)),
            Err(TimedOut) => Err(Error::WouldBlock),
        }
    }

    fn written(&self, put: Result<Put, TimedOut>) -> Result<usize, Error> {
        match put {
            Ok(Put::Taken(n, tell)) => {
                self.look(tell);
                Ok(n)
            }
            Ok(Put::End(End::Finished)) => Err(self.error(ConnectionError::SendClosed)),
            Ok(Put::End(End::Error(e))) => Err(self.reported(e)),
            Err(TimedOut) => Err(Error::WouldBlock),
        }
    }

    /// The application learns of the connection's error.
    fn reported(&self, source: ConnectionError) -> Error {
        self.0.error_reported.store(true, Ordering::Relaxed);
        self.error(source)
    }

    fn look(&self, tell: bool) {
        self.0.handle.commands.look(self.0.id, tell);
    }

    pub(crate) fn error(&self, source: ConnectionError) -> Error {
        Error::Connection { remote: self.0.remote, source }
    }
}

impl Read for &MptcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_vectored(&mut [IoSliceMut::new(buf)])
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Ok(0);
        }
        let read = self.read_with(|queue| bufs.iter_mut().map(|buf| queue.fill(buf)).sum())?;
        Ok(read.unwrap_or(0))
    }
}

/// The time limit of what must not wait.
fn at_once() -> Option<Instant> {
    deadline(Some(Duration::ZERO))
}

impl Write for &MptcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Ok(0);
        }
        let limit = self.until(&self.0.write_timeout);
        let copies = &self.0.handle.copies;
        Ok(self.written(self.0.shared.put_slices(bufs, limit, |data, n| copies.copy(data, n)))?)
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

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }
}

impl Write for MptcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

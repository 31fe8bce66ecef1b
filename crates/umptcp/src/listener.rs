//! Listeners.

use crate::attempts;
use crate::error::Error;
use crate::handle::Handle;
#[cfg(feature = "tokio")]
use crate::mailbox::Mailbox;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
use crate::readiness::{Readiness, Source};
use crate::settings::connection_settings;
use crate::shared::{TimedOut, deadline};
use crate::stack::{PathInfo, Stack, path_infos};
use crate::stream::MptcpStream;
use crate::worker::{Command, Context, ListenerShared, Worker};
use std::fmt;
use std::io;
use std::iter::FusedIterator;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use umptcp_stack_core::config::{ConnectionConfig, Ecn, ListenOptions, SynCookiePolicy};
use umptcp_types::ListenerId;

/// A listener for connections, MPTCP and plain TCP alike. Usable from several threads at once.
///
/// Dropping the listener closes it and resets connections that have not been accepted.
pub struct MptcpListener {
    handle: Handle,
    id: ListenerId,
    shared: Arc<ListenerShared>,
    local: SocketAddr,
    nonblocking: AtomicBool,
}

impl fmt::Debug for MptcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MptcpListener").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Drop for MptcpListener {
    fn drop(&mut self) {
        let commands = &self.handle.commands;
        commands.send(Command::Unlisten(self.id));
        if let Some(nics) = self.handle.nics.upgrade() {
            nics.unlisten(self.local.port(), |port| commands.uses_port(port));
        }
    }
}

/// Settings for a listener and the connections it accepts.
///
/// Starts from the stack's defaults, except that the addresses of the other paths are advertised.
#[derive(Clone, Debug)]
pub struct ListenerBuilder {
    handle: Handle,
    backlog: usize,
    syn_cookies: SynCookiePolicy,
    fast_open: usize,
    config: ConnectionConfig,
}

/// How many ports to try when none is given: each may have been taken in the meantime.
const PORT_TRIES: usize = 32;

/// Default backlog.
const BACKLOG: usize = 128;

impl ListenerBuilder {
    pub(crate) fn new(handle: Handle) -> Self {
        let config = handle.server_defaults();
        ListenerBuilder {
            handle,
            backlog: BACKLOG,
            syn_cookies: SynCookiePolicy::default(),
            fast_open: 0,
            config,
        }
    }

    connection_settings!();

    /// Whether to advertise the addresses of the other paths to clients (ADD_ADDR, RFC 8684 §3.4.1), so that
    /// they can join them. Otherwise the stack itself joins the client's address from its other paths.
    pub fn advertise_addresses(mut self, on: bool) -> Self {
        self.config.advertise_addresses = on;
        self.config.server_joins = !on;
        self
    }

    /// Maximum number of connections that carried data in the SYN and have not completed the handshake (TCP
    /// Fast Open, RFC 7413; the socket option TCP_FASTOPEN). The default, 0, disables Fast Open. Such
    /// connections are accepted before the handshake is complete.
    ///
    /// If the network duplicates a SYN, its data may be received twice, on two connections. Use only for
    /// idempotent requests.
    pub fn fast_open(mut self, queue: usize) -> Self {
        self.fast_open = queue;
        self
    }

    /// When to answer SYNs without keeping state (SYN cookies, RFC 8684 §3.1). By default when the backlog is
    /// full of handshakes that do not complete, as in a SYN flood.
    pub fn syn_cookies(mut self, policy: SynCookiePolicy) -> Self {
        self.syn_cookies = policy;
        self
    }

    /// Maximum number of connections waiting to be accepted; further SYNs are answered only when there is
    /// room again. Up to as many again may be added by handshakes that were in progress while others were
    /// completed by SYN cookie.
    pub fn backlog(mut self, connections: usize) -> Self {
        self.backlog = connections;
        self
    }

    /// Listens on `address`; an unspecified address stands for every address of every path. Where the stack's
    /// addresses are translated, `address` is one of the NIC's. Of several addresses, the first that works is
    /// used. Port 0 stands for a free one, which [`MptcpListener::local_addr`] tells.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrNotAvailable`] when no path has the address, [`io::ErrorKind::AddrInUse`] when a
    /// listener of the stack or a program of this host uses the port.
    pub fn listen(self, address: impl ToSocketAddrs) -> io::Result<MptcpListener> {
        let mut last = None;
        for local in address.to_socket_addrs()? {
            match self.listen_one(attempts::canonical(local)) {
                Ok(listener) => return Ok(listener),
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the name has no address")))
    }

    /// The stack, the backlog and the settings of connections.
    pub(crate) fn into_parts(self) -> (Handle, usize, ConnectionConfig) {
        (self.handle, self.backlog, self.config)
    }

    fn listen_one(&self, local: SocketAddr) -> io::Result<MptcpListener> {
        if local.port() != 0 {
            return self.listen_on(local);
        }
        let mut tries = PORT_TRIES;
        loop {
            match self.listen_on(SocketAddr::new(local.ip(), self.free_port()?)) {
                Err(e) if e.kind() == io::ErrorKind::AddrInUse && tries > 1 => tries -= 1,
                result => return result,
            }
        }
    }

    /// A port that is probably free.
    fn free_port(&self) -> io::Result<u16> {
        if self.handle.nics.upgrade().is_some() {
            // Programs of this host must not use it either. The kernel keeps clear of the ports that are
            // reserved for connections of the stack.
            let any = |ip: IpAddr| TcpListener::bind((ip, 0)).and_then(|socket| socket.local_addr());
            let found = any(Ipv6Addr::UNSPECIFIED.into()).or_else(|_| any(Ipv4Addr::UNSPECIFIED.into()));
            return Ok(found?.port());
        }
        let mut random = [0; 2];
        getrandom::fill(&mut random).map_err(io::Error::from)?;
        // The dynamic ports (RFC 6335 §6).
        Ok(u16::from_be_bytes(random) | 0xc000)
    }

    fn listen_on(&self, local: SocketAddr) -> io::Result<MptcpListener> {
        let shared = Arc::new(ListenerShared::new(self.backlog));
        let to = shared.clone();
        let mut options = ListenOptions::new(local, self.backlog.max(1));
        options.syn_cookies = self.syn_cookies;
        options.fast_open = self.fast_open;
        options.config = self.config.clone();
        let nics = self.handle.nics.upgrade();
        let own = nics.as_ref().and_then(|nics| nics.own_address(local.ip()));
        let listen = move |worker: &mut Worker, cx: &mut Context<'_>| worker.listen(cx, options, own, to);
        let id = self.handle.commands.call(listen)??;
        if let Some(nics) = nics
            && let Err(e) = nics.listen(local.port())
        {
            self.handle.commands.send(Command::Unlisten(id));
            return Err(e);
        }
        let nonblocking = AtomicBool::new(false);
        Ok(MptcpListener { handle: self.handle.clone(), id, shared, local, nonblocking })
    }
}

impl Stack {
    /// Listens on `address` with the default settings.
    pub fn listen(&self, address: impl ToSocketAddrs) -> io::Result<MptcpListener> {
        MptcpListener::bind(self, address)
    }
}

impl MptcpListener {
    /// Listens on `address` with the stack's default settings.
    pub fn bind(stack: &Stack, address: impl ToSocketAddrs) -> io::Result<MptcpListener> {
        Self::builder(stack).listen(address)
    }

    /// Settings for a listener.
    pub fn builder(stack: &Stack) -> ListenerBuilder {
        ListenerBuilder::new(stack.handle().clone())
    }

    /// Waits for the next connection.
    pub fn accept(&self) -> io::Result<(MptcpStream, SocketAddr)> {
        self.accept_within(self.nonblocking.load(Ordering::Relaxed).then_some(Duration::ZERO))
    }

    /// Waits for the next connection for at most `limit`; after that, fails with
    /// [`io::ErrorKind::WouldBlock`].
    pub fn accept_timeout(&self, limit: Duration) -> io::Result<(MptcpStream, SocketAddr)> {
        self.accept_within(Some(limit))
    }

    fn accept_within(&self, limit: Option<Duration>) -> io::Result<(MptcpStream, SocketAddr)> {
        self.accept_by(deadline(limit)).unwrap_or(Err(Error::WouldBlock.into()))
    }

    /// A connection that has come in already, or the end of the listener.
    #[cfg(feature = "tokio")]
    pub(crate) fn try_accept(&self) -> Option<io::Result<(MptcpStream, SocketAddr)>> {
        self.accept_by(deadline(Some(Duration::ZERO)))
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn ready(&self) -> &Mailbox<crate::worker::Accepted> {
        self.shared.ready()
    }

    fn accept_by(&self, deadline: Option<Instant>) -> Option<io::Result<(MptcpStream, SocketAddr)>> {
        match self.shared.take(deadline) {
            Ok(Some((accepted, tell))) => {
                if tell {
                    self.handle.commands.send(Command::Refill(self.id));
                }
                let remote = accepted.remote;
                Some(Ok((MptcpStream::new(self.handle.clone(), accepted), remote)))
            }
            Ok(None) => Some(Err(Error::ListenerClosed.into())),
            Err(TimedOut) => None,
        }
    }

    /// Whether [`accept`](Self::accept) fails with [`io::ErrorKind::WouldBlock`] instead of waiting. The
    /// streams that it returns wait, whatever is set here.
    pub fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        self.nonblocking.store(on, Ordering::Relaxed);
        Ok(())
    }

    /// A descriptor that is readable while [`accept`](Self::accept) would not wait, for event loops. Every
    /// call returns the same.
    ///
    /// # Errors
    /// When the process has too many descriptors.
    #[cfg(all(target_os = "linux", not(umptcp_portable)))]
    pub fn readiness(&self) -> io::Result<Readiness> {
        self.shared.ready().descriptor().open()?;
        self.shared.ready().show();
        Ok(Readiness::new(Source::Listener(self.shared.clone())))
    }

    /// Iterates over incoming connections. When the stack has been stopped, it returns the error once and
    /// then ends.
    pub fn incoming(&self) -> Streams<'_> {
        Streams { listener: self, ended: false }
    }

    /// Like [`incoming`](Self::incoming), but keeps the listener.
    pub fn into_incoming(self) -> IntoStreams {
        IntoStreams { listener: self, ended: false }
    }

    /// The address it listens on, with the port that was chosen if none was given. Never fails; the signature
    /// is that of [`std::net::TcpListener::local_addr`].
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    /// The addresses at which clients reach it: those of the NICs where the stack's own are translated. They
    /// change as NICs come and go.
    pub fn public_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        let paths = self.handle.commands.call(|_, cx| path_infos(cx))?;
        let (ip, port) = (self.local.ip(), self.local.port());
        let hidden = |path: &PathInfo| path.addresses.contains(&ip) && !path.public_addresses.contains(&ip);
        let addresses: Vec<IpAddr> = if ip.is_unspecified() {
            paths.into_iter().flat_map(|path| path.public_addresses).collect()
        } else if let Some(path) = paths.into_iter().find(hidden) {
            path.public_addresses.into_iter().filter(|a| a.is_ipv6() == ip.is_ipv6()).collect()
        } else {
            vec![ip]
        };
        Ok(addresses.into_iter().map(|a| SocketAddr::new(a, port)).collect())
    }

    /// The error that has ended the listener, which is that of [`accept`](Self::accept) from then on (the
    /// socket option SO_ERROR). `None` while it listens.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(self.shared.ready().is_closed().then(|| Error::ListenerClosed.into()))
    }
}

/// The connections of a listener; see [`MptcpListener::incoming`].
#[derive(Debug)]
pub struct Streams<'a> {
    listener: &'a MptcpListener,
    ended: bool,
}

impl Iterator for Streams<'_> {
    type Item = io::Result<MptcpStream>;

    fn next(&mut self) -> Option<Self::Item> {
        next(self.listener, &mut self.ended)
    }
}

impl FusedIterator for Streams<'_> {}

/// The connections of a listener; see [`MptcpListener::into_incoming`].
#[derive(Debug)]
pub struct IntoStreams {
    listener: MptcpListener,
    ended: bool,
}

impl Iterator for IntoStreams {
    type Item = io::Result<MptcpStream>;

    fn next(&mut self) -> Option<Self::Item> {
        next(&self.listener, &mut self.ended)
    }
}

impl FusedIterator for IntoStreams {}

/// The next connection; the error that ends the listener, once; then nothing.
fn next(listener: &MptcpListener, ended: &mut bool) -> Option<io::Result<MptcpStream>> {
    if *ended {
        return None;
    }
    let next = listener.accept().map(|(stream, _)| stream);
    *ended = next.is_err();
    Some(next)
}

//! Connections that wait for the program's word: for relays, which know only later whether to accept.

use crate::attempt::Attempt;
use crate::error::Error;
use crate::handle::Handle;
use crate::listener::ListenerBuilder;
use crate::shared::{Phase, TimedOut, deadline};
use crate::stream::MptcpStream;
use crate::waits::{Blocking, Waits, block_on};
use crate::worker::{Context, Offer, OffersShared, Worker};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use umptcp_stack_core::config::{ConnectionConfig, ListenOptions, SynCookiePolicy};
use umptcp_stack_core::error::ConnectError;
use umptcp_stack_core::event::RefuseWith;
use umptcp_types::{ListenerId, PathId};

/// A listener whose connections are answered one by one, each as the program says. See
/// [`ListenerBuilder::hold`].
///
/// Dropping it refuses what waits.
pub struct HoldingListener {
    handle: Handle,
    id: ListenerId,
    shared: Arc<OffersShared>,
    /// `None`: the stack's defaults of the time.
    config: Option<ConnectionConfig>,
    /// Directed to the stack on this host's NICs.
    port: Option<u16>,
}

impl fmt::Debug for HoldingListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HoldingListener").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What a [`HoldingListener`] is for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ListenScope {
    /// The address, or an unspecified one for all, and the port; 0 for every port that has no listener of its
    /// own.
    pub local: Option<SocketAddr>,
    /// Only what comes in by these paths; empty: by any that leads outside.
    pub paths: Vec<PathId>,
}

impl ListenScope {
    /// Every port of these paths; without any, of all that lead outside.
    pub fn every_port(paths: impl IntoIterator<Item = PathId>) -> ListenScope {
        ListenScope { local: None, paths: paths.into_iter().collect() }
    }

    /// An address (or an unspecified one for all) and port, of every path that leads outside.
    pub fn at(local: SocketAddr) -> ListenScope {
        ListenScope { local: Some(local), paths: Vec::new() }
    }

    /// Only what comes in by these paths.
    pub fn by(mut self, paths: impl IntoIterator<Item = PathId>) -> ListenScope {
        self.paths = paths.into_iter().collect();
        self
    }

    fn options(&self, backlog: usize) -> ListenOptions {
        match self.local {
            Some(local) => {
                let mut options = ListenOptions::new(local, backlog);
                options.paths.clone_from(&self.paths);
                options
            }
            None => ListenOptions::every_port(self.paths.clone(), backlog),
        }
    }
}

impl ListenerBuilder {
    /// Listens without answering: each connection waits for [`Incoming::accept`] or [`Incoming::refuse`]. It
    /// waits for 150 s at most, longer than clients do. No more than the backlog wait; further SYNs are not
    /// answered until there is room.
    ///
    /// A port on paths that lead outside is directed to the stack on this host's NICs, as with
    /// [`listen`](Self::listen), and an address is then one of theirs. For every port, each has to be
    /// [opened](crate::Forwarder::open).
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] when another listener has the port on one of the paths, or a program of
    /// this host uses it; [`io::ErrorKind::AddrNotAvailable`] when no path has the address.
    ///
    /// ```
    /// # #[cfg(target_os = "linux")]
    /// # mod pipe { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/pipe.rs")); }
    /// use umptcp::{ListenScope, MptcpListener, RefuseWith};
    ///
    /// # #[cfg(target_os = "linux")]
    /// # fn main() -> std::io::Result<()> {
    /// # let (stack, there) = pipe::two_stacks(1, |s| s);
    /// # let (program, path) = pipe::captured_program("192.0.2.7");
    /// # let server = there.listen("10.0.0.2:80")?;
    /// let captured = stack.add_path(path)?;
    /// let listener = MptcpListener::builder(&stack).hold(ListenScope::every_port([captured]))?;
    /// # let refused = std::thread::spawn(move || {
    /// #     program.connect("10.0.0.2:80").expect("accepted");
    /// #     program.connect("10.0.0.2:81").expect_err("refused").kind()
    /// # });
    /// for _ in 0..2 {
    ///     let incoming = listener.next()?;
    ///     // Where the client wants to go.
    ///     match stack.connect(incoming.local()) {
    ///         Ok(onward) => drop(umptcp::splice(incoming.accept()?, onward)?),
    ///         Err(_) => incoming.refuse(RefuseWith::Reset)?,
    ///     }
    /// }
    /// # assert_eq!(refused.join().unwrap(), std::io::ErrorKind::ConnectionRefused);
    /// # Ok(())
    /// # }
    /// # #[cfg(not(target_os = "linux"))]
    /// # fn main() {}
    /// ```
    pub fn hold(self, scope: ListenScope) -> io::Result<HoldingListener> {
        let (handle, backlog, config) = self.into_parts();
        let shared = Arc::new(OffersShared::default());
        let mut options = scope.options(backlog.max(1));
        // An answer without state would be an answer.
        options.syn_cookies = SynCookiePolicy::Never;
        options.config = config.clone();
        let (local, to) = (options.local, shared.clone());
        let nics = handle.nics.upgrade().filter(|_| scope.paths.is_empty());
        let own = nics.as_ref().and_then(|nics| nics.own_address(local.ip()));
        let id = handle.commands.call(move |worker, cx| worker.hold(cx, options, own, to))?;
        let id = id.map_err(|source| Error::Listen { local, source })?;
        let config = (config != handle.server_defaults()).then_some(config);
        let mut listener = HoldingListener { handle, id, shared, config, port: None };
        if let (Some(nics), Some(at)) = (nics, scope.local.filter(|at| at.port() != 0)) {
            nics.listen(at.port())?;
            listener.port = Some(at.port());
        }
        Ok(listener)
    }
}

impl HoldingListener {
    /// Waits for the next connection.
    ///
    /// # Errors
    /// When the stack has been stopped.
    pub fn next(&self) -> io::Result<Incoming> {
        self.next_within(None)
    }

    /// Waits for at most `limit`; after that, fails with [`io::ErrorKind::WouldBlock`].
    ///
    /// # Errors
    /// When nothing comes in time, or the stack has been stopped.
    pub fn next_timeout(&self, limit: Duration) -> io::Result<Incoming> {
        self.next_within(Some(limit))
    }

    fn next_within(&self, limit: Option<Duration>) -> io::Result<Incoming> {
        match self.shared.take(deadline(limit), is_wanted) {
            Ok(Some(offer)) => Ok(Incoming {
                handle: self.handle.clone(),
                offer,
                config: self.config.clone().unwrap_or_else(|| self.handle.server_defaults()),
                decided: false,
            }),
            Ok(None) => Err(Error::ListenerClosed.into()),
            Err(TimedOut) => Err(Error::WouldBlock.into()),
        }
    }

    /// One that waits already, or the end of the listener.
    #[cfg(feature = "tokio")]
    pub(crate) fn try_next(&self) -> Option<io::Result<Incoming>> {
        match self.next_within(Some(Duration::ZERO)) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => None,
            next => Some(next),
        }
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn waiting(&self) -> &OffersShared {
        &self.shared
    }
}

/// Nobody needs to hear of one that has given up meanwhile.
fn is_wanted(offer: &Offer) -> bool {
    !offer.gone.load(Ordering::Acquire)
}

impl Drop for HoldingListener {
    fn drop(&mut self) {
        let (id, commands) = (self.id, &self.handle.commands);
        commands.run(move |worker, cx| worker.hold_no_more(cx, id));
        if let (Some(port), Some(nics)) = (self.port, self.handle.nics.upgrade()) {
            nics.unlisten(port, |port| commands.uses_port(port));
        }
    }
}

/// A connection whose SYN has not been answered. Dropping it refuses it by a reset.
#[derive(Debug)]
pub struct Incoming {
    handle: Handle,
    offer: Offer,
    config: ConnectionConfig,
    decided: bool,
}

impl Incoming {
    /// Who wants to connect.
    pub fn remote(&self) -> SocketAddr {
        self.offer.remote
    }

    /// Where to. By a path that captures, that may be any address.
    pub fn local(&self) -> SocketAddr {
        self.offer.local
    }

    /// The client asks for MPTCP (RFC 8684 §3.1).
    pub fn is_mptcp(&self) -> bool {
        self.offer.mptcp
    }

    /// The client has given up, or the listener has been dropped: nobody waits for an answer.
    pub fn is_gone(&self) -> bool {
        self.offer.gone.load(Ordering::Acquire)
    }

    /// Answers the SYN, and waits until the handshake is complete.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotConnected`] when the client has given up; the reason when the handshake fails.
    pub fn accept(self) -> io::Result<MptcpStream> {
        let blocking = Blocking::default();
        block_on(&blocking, self.accept_by(&blocking))
    }

    /// The same. If the future is dropped, the connection is refused or aborted.
    pub(crate) async fn accept_by(mut self, waits: &impl Waits) -> io::Result<MptcpStream> {
        let (id, remote, config) = (self.offer.id, self.offer.remote, self.config.clone());
        let (handle, commands) = (self.handle.clone(), self.handle.commands.clone());
        self.decided = true;
        let accept = move |worker: &mut Worker, cx: &mut Context<'_>| {
            let (id, shared) = worker.accept_offer(cx, id, &config)?;
            Ok(Attempt::new(commands, id, shared, (remote, None)))
        };
        let accepted = waits.call(&handle.commands, accept).await?;
        let attempt = accepted.map_err(|source: ConnectError| Error::Connect { remote, source })?;
        poll_fn(|cx| attempt.shared.poll_handshake(cx)).await;
        match attempt.shared.phase() {
            Phase::Connected { local, remote } => Ok(MptcpStream::new(handle, attempt.won(local, remote))),
            Phase::Failed(source) => Err(Error::Connection { remote, source }.into()),
            // It has been waited for.
            Phase::Connecting | Phase::Doubtful { .. } => Err(Error::Stopped.into()),
        }
    }

    /// Refuses it. Nothing happens when the client has given up.
    ///
    /// # Errors
    /// When the stack has been stopped.
    pub fn refuse(mut self, with: RefuseWith) -> io::Result<()> {
        self.decided = true;
        let id = self.offer.id;
        Ok(self.handle.commands.call(move |worker, cx| worker.refuse_offer(cx, id, with))?)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.decided {
            let id = self.offer.id;
            self.handle.commands.run(move |worker, cx| worker.refuse_offer(cx, id, RefuseWith::Reset));
        }
    }
}

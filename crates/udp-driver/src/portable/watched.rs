//! Sockets bound to an address, and which of them have something.

use mio::net::UdpSocket;
use socket2::{Domain, Type};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use umptcp_tun_driver::device::Sources;

/// Room that is asked for, in bytes, in each direction of a socket. The host may grant less.
const ROOM: usize = 4 << 20;

/// A socket.
#[derive(Debug)]
pub(crate) struct Socket(Mutex<UdpSocket>);

impl Socket {
    /// It is held for one call at a time.
    pub(crate) fn held(&self) -> MutexGuard<'_, UdpSocket> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.held().local_addr()
    }
}

/// A path has as many sockets as it may.
pub(crate) fn too_many() -> io::Error {
    io::Error::other("too many ports are in use")
}

/// A socket that is bound to an address, whatever NIC has it.
pub(crate) fn bind(_device: &str, address: SocketAddr) -> io::Result<Socket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    // The system cuts this down to what it allows, or refuses.
    let _ = socket.set_recv_buffer_size(ROOM);
    let _ = socket.set_send_buffer_size(ROOM);
    socket.bind(&address.into())?;
    Ok(Socket(Mutex::new(UdpSocket::from_std(socket.into()))))
}

/// Which sockets the event loop waits for, and what it has told of them.
#[derive(Debug)]
pub(crate) struct Watched(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// `None` as long as no event loop has the device.
    sources: Option<Sources>,
    /// By their tokens here, those that the event loop knows them by; and back.
    outer: HashMap<u64, usize>,
    inner: HashMap<usize, u64>,
    /// Can be read.
    ready: Vec<u64>,
}

/// What has something.
#[derive(Debug)]
pub(crate) struct Found {
    /// Tokens of sockets, and whether there is an error: that comes from reading.
    pub(crate) sockets: Vec<(u64, bool)>,
    /// Nothing else is waited for.
    pub(crate) other: bool,
}

impl State {
    fn add(&mut self, socket: &Socket, token: u64) -> io::Result<()> {
        let Some(sources) = &self.sources else { return Ok(()) };
        let outer = sources.add(&mut *socket.held())?;
        self.outer.insert(token, outer);
        self.inner.insert(outer, token);
        Ok(())
    }

    fn remove(&mut self, socket: &Socket, token: u64) {
        if let (Some(outer), Some(sources)) = (self.outer.remove(&token), &self.sources) {
            sources.remove(&mut *socket.held(), outer);
            self.inner.remove(&outer);
        }
    }
}

impl Watched {
    #[allow(clippy::unnecessary_wraps, reason = "Linux's own may fail")]
    pub(crate) fn new() -> io::Result<Watched> {
        Ok(Watched(Mutex::default()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the event loop waits for all of these; with `None`, for none.
    pub(crate) fn begin<'a>(
        &self,
        sources: Option<Sources>,
        all: impl Iterator<Item = (&'a Socket, u64)>,
    ) -> io::Result<()> {
        let mut state = self.state();
        let all: Vec<_> = all.collect();
        all.iter().for_each(|(socket, token)| state.remove(socket, *token));
        state.sources = sources;
        all.iter().try_for_each(|(socket, token)| state.add(socket, *token))
    }

    /// The event loop looks at the device while it has something to say ([`Device::has_more`]).
    ///
    /// [`Device::has_more`]: umptcp_tun_driver::device::Device::has_more
    #[allow(clippy::unused_self, reason = "Linux's own has something to do")]
    pub(crate) fn wake(&self) {}

    pub(crate) fn add(&self, socket: &Socket, token: u64) -> io::Result<()> {
        self.state().add(socket, token)
    }

    pub(crate) fn remove(&self, socket: &Socket, token: u64) {
        self.state().remove(socket, token);
    }

    /// The event loop says that a socket can be read.
    pub(crate) fn is_readable(&self, outer: usize) {
        let mut state = self.state();
        if let Some(token) = state.inner.get(&outer).copied() {
            state.ready.push(token);
        }
    }

    /// What has something now. Each is told of once.
    #[allow(clippy::unnecessary_wraps, reason = "Linux's own may fail")]
    pub(crate) fn ready(&self) -> io::Result<Found> {
        let mut sockets = std::mem::take(&mut self.state().ready);
        sockets.dedup();
        Ok(Found { sockets: sockets.into_iter().map(|token| (token, false)).collect(), other: false })
    }
}

//! Sockets bound to a NIC, and the descriptor that tells which of them have something.

use crate::errors;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{setsockopt, sockopt};
use smallvec::SmallVec;
use socket2::{Domain, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

/// A socket.
pub(crate) type Socket = std::net::UdpSocket;

/// Room that is asked for, in bytes, in each direction of a socket. The host may grant less.
const ROOM: usize = 4 << 20;

/// Token of the descriptor that wakes the device. Sockets have the others.
const WAKE: u64 = 0;

/// Token of a descriptor that is [watched](Watched::watch) for somebody else.
const OTHER: u64 = u64::MAX;

/// Maximum number of events fetched from the kernel at once.
const EVENTS: usize = 64;

/// A path has as many sockets as it may.
pub(crate) fn too_many() -> io::Error {
    Errno::EMFILE.into()
}

/// A socket that is bound to a NIC and to an address of it.
pub(crate) fn bind(device: &str, address: SocketAddr) -> io::Result<Socket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Its address alone would not keep packets from leaving by the NIC with the best route.
    socket.bind_device(Some(device.as_bytes()))?;
    // The kernel cuts this down to what it allows.
    let _ = socket.set_recv_buffer_size(ROOM);
    let _ = socket.set_send_buffer_size(ROOM);
    socket.bind(&address.into())?;
    let socket = socket.into();
    errors::enable(&socket, address.is_ipv6())?;
    // Trains that have come together are received so. Linux 5.0 and later.
    if let Err(error) = setsockopt(&socket, sockopt::UdpGroSegment, &true) {
        tracing::debug!(%error, "datagrams are received one by one");
    }
    Ok(socket)
}

/// The descriptor.
#[derive(Debug)]
pub(crate) struct Watched {
    epoll: Epoll,
    wake: EventFd,
}

/// What has something.
#[derive(Debug)]
pub(crate) struct Found {
    /// Tokens of sockets, and whether there is an error.
    pub(crate) sockets: SmallVec<[(u64, bool); EVENTS]>,
    /// So has what is watched beside them.
    pub(crate) other: bool,
}

impl Watched {
    pub(crate) fn new() -> io::Result<Watched> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wake = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        Ok(Watched { epoll, wake })
    }

    /// The descriptor that is readable when [`ready`](Self::ready) would find something.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    /// Makes it readable.
    pub(crate) fn wake(&self) {
        // Fails only when it is readable already.
        let _ = self.wake.write(1);
    }

    /// From now on the descriptor of this is readable, too, when `other` is.
    pub(crate) fn watch(&self, other: BorrowedFd<'_>) -> io::Result<()> {
        Ok(self.epoll.add(other, EpollEvent::new(EpollFlags::EPOLLIN, OTHER))?)
    }

    pub(crate) fn add(&self, socket: &Socket, token: u64) -> io::Result<()> {
        Ok(self.epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, token))?)
    }

    pub(crate) fn remove(&self, socket: &Socket, _token: u64) {
        let _ = self.epoll.delete(socket);
    }

    /// Whether there is room in a socket's queue counts, too.
    pub(crate) fn watch_room(&self, socket: &Socket, token: u64, wanted: bool) -> io::Result<()> {
        let flags = if wanted { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
        Ok(self.epoll.modify(socket, &mut EpollEvent::new(flags, token))?)
    }

    /// What has something now.
    pub(crate) fn ready(&self) -> io::Result<Found> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        let mut found = Found { sockets: SmallVec::new(), other: false };
        for event in &events[..count] {
            match event.data() {
                WAKE => drop(self.wake.read()),
                OTHER => found.other = true,
                token => {
                    let failed = event.events().contains(EpollFlags::EPOLLERR);
                    if failed || event.events().contains(EpollFlags::EPOLLIN) {
                        found.sockets.push((token, failed));
                    }
                }
            }
        }
        Ok(found)
    }
}

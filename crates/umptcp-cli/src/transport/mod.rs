//! Connections over the selected stack, behind one type.

mod facts;
pub(crate) mod kernel;
mod race;
pub(crate) mod user_space;
pub(crate) mod via;

pub(crate) use facts::{Facts, FastOpen, Subflow};

use crate::args::{ListenAddress, StackArgs, StackKind, TargetArgs, ViaArgs};
use crate::failure::{Class, usage};
use crate::registry::Registry;
use crate::session::Session;
use anyhow::Context as _;
use bytes::Buf as _;
use bytes::Bytes;
use kernel::Kernel;
use std::io::{self, BufRead, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::time::Duration;
use user_space::{Connection, Settings, UserSpace, UserSpaceListener};

/// Bytes read from the kernel at once.
const READ: usize = 512 << 10;

/// A stack to open connections with.
pub(crate) enum Transport {
    /// The kernel's.
    Kernel(Kernel),
    /// umptcp.
    UserSpace(Box<UserSpace>),
}

impl Transport {
    /// Opens the stack selected by `args`.
    pub(crate) fn open(
        args: &StackArgs,
        registry: &Registry,
        session: &Session,
    ) -> anyhow::Result<Transport> {
        Transport::open_via(args, &ViaArgs::default(), registry, session)
    }

    /// The same, for connections by a relay.
    pub(crate) fn open_via(
        args: &StackArgs,
        via: &ViaArgs,
        registry: &Registry,
        session: &Session,
    ) -> anyhow::Result<Transport> {
        match args.stack {
            StackKind::KernelMptcp | StackKind::KernelTcp if via.via.is_some() => {
                Err(usage("--via is for umptcp's own stack: leave out --stack"))
            }
            StackKind::KernelMptcp | StackKind::KernelTcp => Ok(Transport::Kernel(Kernel::new(args)?)),
            StackKind::Umptcp => Transport::open_user_space(args, via, registry, session),
        }
    }

    fn open_user_space(
        args: &StackArgs,
        via: &ViaArgs,
        registry: &Registry,
        session: &Session,
    ) -> anyhow::Result<Transport> {
        let settings = Settings {
            checksum: args.paths.checksum || args.strict_checksums,
            strict_checksums: args.strict_checksums,
            fast_open: args.fast_open || args.fast_open_cookies.is_some(),
            fast_open_cookies: args.fast_open_cookies.clone(),
            via: via::of(via)?,
            ..Settings::of(&args.paths)
        };
        UserSpace::open(&settings, registry, session).map(|stack| Transport::UserSpace(Box::new(stack)))
    }

    /// Connects to the first of `remotes` that answers.
    pub(crate) fn connect(&self, remotes: &[SocketAddr], timeout: Duration) -> anyhow::Result<Stream> {
        let kernel = match self {
            Transport::Kernel(kernel) => kernel,
            Transport::UserSpace(stack) => {
                return stack.connect(remotes, timeout, &[]).map(Stream::UserSpace);
            }
        };
        let connect = {
            let kernel = kernel.clone();
            move |remote, left| kernel.connect(remote, left, timeout)
        };
        Ok(Stream::Kernel(race::first_to_connect(remotes, timeout, connect)?, kernel.is_mptcp()))
    }

    /// Connects to a server by its name, which the relay resolves.
    pub(crate) fn connect_name(&self, host: &str, port: u16, timeout: Duration) -> anyhow::Result<Stream> {
        match self {
            Transport::Kernel(_) => Err(usage("the kernel's stacks use no relay")),
            Transport::UserSpace(stack) => stack.connect_name(host, port, timeout).map(Stream::UserSpace),
        }
    }

    /// Names of the paths that connections can use; none if the kernel chooses.
    pub(crate) fn paths(&self) -> Vec<String> {
        match self {
            Transport::Kernel(_) => Vec::new(),
            Transport::UserSpace(stack) => stack.paths(),
        }
    }

    /// Statistics of data in SYNs; `None` if Fast Open is off.
    pub(crate) fn fast_open(&self) -> Option<FastOpen> {
        match self {
            Transport::Kernel(_) => None,
            Transport::UserSpace(stack) => stack.fast_open(),
        }
    }

    /// Waits until everything sent has arrived, then removes what was set up.
    pub(crate) fn close(self) -> anyhow::Result<()> {
        match self {
            Transport::Kernel(_) => Ok(()),
            Transport::UserSpace(stack) => stack.close(),
        }
    }

    /// Listens.
    pub(crate) fn listen(&self, address: ListenAddress) -> anyhow::Result<Listener> {
        match self {
            Transport::Kernel(kernel) => Ok(Listener::Kernel(kernel.listen(address)?, kernel.is_mptcp())),
            Transport::UserSpace(stack) => stack.listen(address).map(|l| Listener::UserSpace(Box::new(l))),
        }
    }
}

/// The addresses of `host` in the requested families, in the resolver's order.
pub(crate) fn resolve(host: &str, port: u16, target: &TargetArgs) -> anyhow::Result<Vec<SocketAddr>> {
    let all: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .with_context(|| Class::Name.failure(format!("cannot resolve {host:?}")))?
        .collect();
    let fitting: Vec<SocketAddr> =
        all.iter().copied().filter(|a| !(target.ipv4 && a.is_ipv6() || target.ipv6 && a.is_ipv4())).collect();
    if fitting.is_empty() {
        let family = if target.ipv4 { "IPv4" } else { "IPv6" };
        return Err(Class::Name.failure(format!("{host:?} has no {family} address")).into());
    }
    Ok(fitting)
}

/// Waits for connections.
pub(crate) enum Listener {
    /// The kernel's, and whether it is an MPTCP socket.
    Kernel(TcpListener, bool),
    /// umptcp's.
    UserSpace(Box<UserSpaceListener>),
}

impl Listener {
    pub(crate) fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Kernel(listener, mptcp) => loop {
                match listener.accept() {
                    Ok((stream, _)) => return Ok(Stream::Kernel(stream, *mptcp)),
                    // The client is gone already: wait for the next one.
                    Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(e) => return Err(e),
                }
            },
            Listener::UserSpace(listener) => listener.accept().map(Stream::UserSpace),
        }
    }

    /// The address, with the port chosen by the system if none was given.
    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        match self {
            Listener::Kernel(listener, _) => listener.local_addr(),
            Listener::UserSpace(listener) => listener.local_address(),
        }
    }
}

/// A connection. Reads and writes through shared references, so that one thread can read while another
/// writes.
pub(crate) enum Stream {
    /// The kernel's, and whether it is an MPTCP socket.
    Kernel(TcpStream, bool),
    /// umptcp's.
    UserSpace(Connection),
}

impl Stream {
    /// Disables the Nagle algorithm: small writes are sent immediately.
    pub(crate) fn set_no_delay(&self) -> io::Result<()> {
        match self {
            Stream::Kernel(stream, _) => stream.set_nodelay(true),
            // Always disabled: see `Settings::connection`.
            Stream::UserSpace(_) => Ok(()),
        }
    }

    /// Sets the time limit for a read or write without progress.
    pub(crate) fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Kernel(stream, _) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
            Stream::UserSpace(connection) => {
                connection.stream.set_read_timeout(timeout)?;
                connection.stream.set_write_timeout(timeout)
            }
        }
    }

    /// Closes the sending direction; receiving continues.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Stream::Kernel(stream, _) => match stream.shutdown(Shutdown::Write) {
                // The peer has already closed both directions.
                Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(()),
                other => other,
            },
            Stream::UserSpace(connection) => connection.stream.shutdown(Shutdown::Write),
        }
    }

    pub(crate) fn facts(&self) -> io::Result<Facts> {
        match self {
            Stream::Kernel(stream, mptcp) => Ok(Facts {
                local: stream.local_addr()?,
                remote: stream.peer_addr()?,
                mptcp: if *mptcp { None } else { Some(false) },
                description: match mptcp {
                    true => "the kernel's MPTCP, or TCP if it fell back (`ss -M` shows which)".to_owned(),
                    false => "the kernel's TCP".to_owned(),
                },
                congestion: kernel::congestion(stream),
                scheduler: None,
            }),
            Stream::UserSpace(connection) => connection.facts(),
        }
    }

    /// Bytes acknowledged by the peer at connection level, if known.
    pub(crate) fn bytes_acknowledged(&self) -> Option<u64> {
        match self {
            Stream::Kernel(..) => None,
            Stream::UserSpace(connection) => connection.bytes_acknowledged(),
        }
    }

    /// The subflows, if the stack reports them.
    pub(crate) fn subflows(&self) -> Vec<Subflow> {
        match self {
            Stream::Kernel(..) => Vec::new(),
            Stream::UserSpace(connection) => connection.subflows(),
        }
    }
}

impl Stream {
    /// Sends all of `data`, without a copy if the stack supports it.
    pub(crate) fn send_bytes(&self, data: Bytes) -> io::Result<()> {
        match self {
            Stream::Kernel(stream, _) => (&*stream).write_all(&data),
            Stream::UserSpace(connection) => connection.stream.send_bytes(data),
        }
    }
}

/// Buffered reader of a [`Stream`] that avoids copies if the stack supports it.
pub(crate) struct Incoming<'a> {
    stream: &'a Stream,
    piece: Piece,
}

enum Piece {
    /// Filled by reading; the unread part is between the two indices.
    Buffer(Vec<u8>, usize, usize),
    /// The stack's own memory.
    Shared(Bytes),
}

impl<'a> Incoming<'a> {
    pub(crate) fn new(stream: &'a Stream) -> Incoming<'a> {
        let piece = match stream {
            Stream::Kernel(..) => Piece::Buffer(vec![0; READ], 0, 0),
            Stream::UserSpace(_) => Piece::Shared(Bytes::new()),
        };
        Incoming { stream, piece }
    }
}

impl BufRead for Incoming<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match (&mut self.piece, self.stream) {
            (Piece::Buffer(buffer, start, end), mut stream) => {
                if start == end {
                    (*start, *end) = (0, 0);
                    *end = stream.read(buffer)?;
                }
                Ok(&buffer[*start..*end])
            }
            (Piece::Shared(bytes), stream) => {
                if let (true, Stream::UserSpace(connection)) = (bytes.is_empty(), stream) {
                    *bytes = connection.stream.recv_bytes()?;
                }
                Ok(bytes)
            }
        }
    }

    fn consume(&mut self, amount: usize) {
        match &mut self.piece {
            Piece::Buffer(_, start, end) => *start = (*start + amount).min(*end),
            Piece::Shared(bytes) => bytes.advance(amount.min(bytes.len())),
        }
    }
}

impl Read for Incoming<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let n = bytes.len().min(into.len());
        into[..n].copy_from_slice(&bytes[..n]);
        self.consume(n);
        Ok(n)
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Kernel(stream, _) => (&*stream).read(buffer),
            Stream::UserSpace(connection) => (&connection.stream).read(buffer),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Kernel(stream, _) => (&*stream).write(bytes),
            Stream::UserSpace(connection) => (&connection.stream).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Kernel(stream, _) => (&*stream).flush(),
            Stream::UserSpace(connection) => (&connection.stream).flush(),
        }
    }
}

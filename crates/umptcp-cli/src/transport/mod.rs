//! Connections by whichever stack was asked for, behind one type.

pub(crate) mod kernel;
#[cfg(target_os = "linux")]
pub(crate) mod user_space;

use crate::args::{ListenAddress, StackArgs, StackKind, TargetArgs};
use crate::session::Session;
use crate::{Registry, units};
use anyhow::{Context as _, anyhow, bail};
#[cfg(target_os = "linux")]
use bytes::Buf as _;
use bytes::Bytes;
use kernel::Kernel;
use std::fmt::Write as _;
use std::io::{self, BufRead, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::time::Duration;
use umptcp_stack_core::stack::SubflowInfo;
#[cfg(target_os = "linux")]
use user_space::{Connection, Settings, UserSpace, UserSpaceListener};

/// Bytes read from the kernel at once.
const READ: usize = 512 << 10;

/// A stack to open connections with.
pub(crate) enum Transport {
    /// The kernel's.
    Kernel(Kernel),
    /// umptcp.
    #[cfg(target_os = "linux")]
    UserSpace(UserSpace),
}

impl Transport {
    /// Sets up what `args` ask for.
    pub(crate) fn open(
        args: &StackArgs,
        registry: &Registry,
        session: &Session,
    ) -> anyhow::Result<Transport> {
        match args.stack {
            StackKind::KernelMptcp | StackKind::KernelTcp => Ok(Transport::Kernel(Kernel::new(args)?)),
            StackKind::Umptcp => Transport::open_user_space(args, registry, session),
        }
    }

    #[cfg(target_os = "linux")]
    fn open_user_space(
        args: &StackArgs,
        registry: &Registry,
        session: &Session,
    ) -> anyhow::Result<Transport> {
        let settings = Settings {
            paths: args.paths.clone(),
            congestion: args.congestion.clone(),
            scheduler: args.scheduler.clone(),
            checksum: args.checksum || args.strict_checksums,
            strict_checksums: args.strict_checksums,
            no_mptcp: args.no_mptcp,
            fast_open: args.fast_open || args.fast_open_cookies.is_some(),
            fast_open_cookies: args.fast_open_cookies.clone(),
            pcap: args.pcap.clone(),
            record: None,
        };
        UserSpace::open(&settings, registry, session).map(Transport::UserSpace)
    }

    #[cfg(not(target_os = "linux"))]
    fn open_user_space(_: &StackArgs, _: &Registry, _: &Session) -> anyhow::Result<Transport> {
        bail!("--stack umptcp needs Linux; `umptcp demo --sim` works everywhere")
    }

    /// Connects to the first of `remotes` that answers.
    pub(crate) fn connect(&self, remotes: &[SocketAddr], timeout: Duration) -> anyhow::Result<Stream> {
        let mut last = None;
        for remote in remotes {
            let result = match self {
                Transport::Kernel(kernel) => {
                    kernel.connect(*remote, timeout).map(|s| Stream::Kernel(s, kernel.is_mptcp()))
                }
                #[cfg(target_os = "linux")]
                Transport::UserSpace(stack) => stack.connect(*remote, timeout, &[]).map(Stream::UserSpace),
            };
            match result {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    tracing::info!("{error:#}");
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| anyhow!("there is no address to connect to")))
    }

    /// What became of data in SYNs; `None`: Fast Open is off.
    pub(crate) fn fast_open(&self) -> Option<FastOpen> {
        match self {
            Transport::Kernel(_) => None,
            #[cfg(target_os = "linux")]
            Transport::UserSpace(stack) => stack.fast_open(),
        }
    }

    /// Waits until what was sent has arrived, then takes down what was set up.
    pub(crate) fn close(self) -> anyhow::Result<()> {
        match self {
            Transport::Kernel(_) => Ok(()),
            #[cfg(target_os = "linux")]
            Transport::UserSpace(stack) => stack.close(),
        }
    }

    /// Listens.
    pub(crate) fn listen(&self, address: ListenAddress) -> anyhow::Result<Listener> {
        match self {
            Transport::Kernel(kernel) => Ok(Listener::Kernel(kernel.listen(address)?, kernel.is_mptcp())),
            #[cfg(target_os = "linux")]
            Transport::UserSpace(stack) => stack.listen(address).map(|l| Listener::UserSpace(Box::new(l))),
        }
    }
}

/// SYNs with data (RFC 7413).
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub(crate) struct FastOpen {
    /// Those whose data the server took, some at least.
    pub(crate) taken: u64,
    /// Those whose data came again in the connection.
    pub(crate) refused: u64,
}

/// The addresses of `host`, of the families asked for, in the resolver's order.
pub(crate) fn resolve(host: &str, port: u16, target: &TargetArgs) -> anyhow::Result<Vec<SocketAddr>> {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let all: Vec<SocketAddr> = (bare, port)
        .to_socket_addrs()
        .with_context(|| format!("cannot find the address of {host:?}"))?
        .collect();
    let fitting: Vec<SocketAddr> =
        all.iter().copied().filter(|a| !(target.ipv4 && a.is_ipv6() || target.ipv6 && a.is_ipv4())).collect();
    if fitting.is_empty() {
        let family = if target.ipv4 { "IPv4" } else { "IPv6" };
        bail!("{host:?} has no {family} address");
    }
    Ok(fitting)
}

/// Waits for connections.
pub(crate) enum Listener {
    /// The kernel's, and whether it is an MPTCP socket.
    Kernel(TcpListener, bool),
    /// umptcp's.
    #[cfg(target_os = "linux")]
    UserSpace(Box<UserSpaceListener>),
}

impl Listener {
    pub(crate) fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Kernel(listener, mptcp) => loop {
                match listener.accept() {
                    Ok((stream, _)) => return Ok(Stream::Kernel(stream, *mptcp)),
                    // The client has gone already: that concerns nobody but it.
                    Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(e) => return Err(e),
                }
            },
            #[cfg(target_os = "linux")]
            Listener::UserSpace(listener) => listener.accept().map(Stream::UserSpace),
        }
    }

    /// The address, with the port the system chose when none was named.
    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        match self {
            Listener::Kernel(listener, _) => listener.local_addr(),
            #[cfg(target_os = "linux")]
            Listener::UserSpace(listener) => Ok(listener.local_address()),
        }
    }
}

/// A connection. Reading and writing work on shared references, so that two threads can do one each.
pub(crate) enum Stream {
    /// The kernel's, and whether it is an MPTCP socket.
    Kernel(TcpStream, bool),
    /// umptcp's.
    #[cfg(target_os = "linux")]
    UserSpace(Connection),
}

/// What can be told about a connection.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// Whether it is MPTCP; `None` when the kernel does not say.
    pub(crate) mptcp: Option<bool>,
    /// The same in words, with the reason when it is not.
    pub(crate) description: String,
    pub(crate) congestion: Option<String>,
    pub(crate) scheduler: Option<String>,
}

/// One subflow at one moment.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Subflow {
    /// Distinguishes it from the connection's others, for good.
    pub(crate) id: u32,
    /// The path's name, usually the NIC's.
    pub(crate) path: String,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// RFC 9293's name of its state.
    pub(crate) state: String,
    pub(crate) backup: bool,
    pub(crate) stale: bool,
    /// Payload bytes acknowledged by the peer.
    pub(crate) bytes_sent: u64,
    /// Payload bytes received.
    pub(crate) bytes_received: u64,
    pub(crate) bytes_retransmitted: u64,
    /// Smoothed round-trip time, milliseconds.
    pub(crate) srtt_ms: Option<f64>,
    /// Congestion window, bytes.
    pub(crate) window: u64,
}

impl Subflow {
    /// What the stack says of one, and the name of its path.
    pub(crate) fn new(path: String, info: SubflowInfo) -> Subflow {
        Subflow {
            id: info.id.0,
            path,
            local: info.local,
            remote: info.remote,
            state: info.state.to_owned(),
            backup: info.backup,
            stale: info.stale,
            bytes_sent: info.bytes_acked,
            bytes_received: info.bytes_received,
            bytes_retransmitted: info.bytes_retransmitted,
            srtt_ms: info.srtt.map(|rtt| rtt.as_secs_f64() * 1e3),
            window: info.window,
        }
    }

    /// One line for people.
    pub(crate) fn describe(&self) -> String {
        let Subflow { id, path, local, remote, state, .. } = self;
        let mut line = format!("subflow {id} on {path}: {local} to {remote}, {state}");
        for (what, bytes) in [
            ("sent", self.bytes_sent),
            ("received", self.bytes_received),
            ("retransmitted", self.bytes_retransmitted),
        ] {
            let _ = write!(line, ", {what} {}", units::bytes(bytes));
        }
        if let Some(ms) = self.srtt_ms {
            let _ = write!(line, ", round trip {ms:.1} ms");
        }
        for (holds, what) in [(self.backup, "backup"), (self.stale, "silent")] {
            if holds {
                let _ = write!(line, ", {what}");
            }
        }
        line
    }
}

impl Stream {
    /// No Nagle: small writes leave at once.
    pub(crate) fn set_no_delay(&self) -> io::Result<()> {
        match self {
            Stream::Kernel(stream, _) => stream.set_nodelay(true),
            // Connections are made so: see `Settings::connection`.
            #[cfg(target_os = "linux")]
            Stream::UserSpace(_) => Ok(()),
        }
    }

    /// Most time a read or write may take without moving a byte.
    pub(crate) fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Kernel(stream, _) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
            #[cfg(target_os = "linux")]
            Stream::UserSpace(connection) => {
                connection.stream.set_read_timeout(timeout)?;
                connection.stream.set_write_timeout(timeout)
            }
        }
    }

    /// No more will be sent; receiving goes on.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Stream::Kernel(stream, _) => match stream.shutdown(Shutdown::Write) {
                // The peer has closed both ways already.
                Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(()),
                other => other,
            },
            #[cfg(target_os = "linux")]
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
            #[cfg(target_os = "linux")]
            Stream::UserSpace(connection) => connection.facts(),
        }
    }

    /// Bytes sent that the peer has acknowledged, at the level of the connection, where that is known.
    pub(crate) fn bytes_acknowledged(&self) -> Option<u64> {
        match self {
            Stream::Kernel(..) => None,
            #[cfg(target_os = "linux")]
            Stream::UserSpace(connection) => connection.bytes_acknowledged(),
        }
    }

    /// The subflows, as far as the stack tells.
    pub(crate) fn subflows(&self) -> Vec<Subflow> {
        match self {
            Stream::Kernel(..) => Vec::new(),
            #[cfg(target_os = "linux")]
            Stream::UserSpace(connection) => connection.subflows(),
        }
    }
}

impl Stream {
    /// Sends all of `data`, without copying it where the stack can do without.
    pub(crate) fn send_bytes(&self, data: Bytes) -> io::Result<()> {
        match self {
            Stream::Kernel(stream, _) => (&*stream).write_all(&data),
            #[cfg(target_os = "linux")]
            Stream::UserSpace(connection) => connection.stream.send_bytes(data),
        }
    }
}

/// What arrives on a [`Stream`], in pieces as large as they come and without a copy where the stack can do without.
pub(crate) struct Incoming<'a> {
    stream: &'a Stream,
    piece: Piece,
}

enum Piece {
    /// Filled by reading; what is left is between the two numbers.
    Buffer(Vec<u8>, usize, usize),
    /// The stack's own memory.
    #[cfg(target_os = "linux")]
    Shared(Bytes),
}

impl<'a> Incoming<'a> {
    pub(crate) fn new(stream: &'a Stream) -> Incoming<'a> {
        let piece = match stream {
            Stream::Kernel(..) => Piece::Buffer(vec![0; READ], 0, 0),
            #[cfg(target_os = "linux")]
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
            #[cfg(target_os = "linux")]
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
            #[cfg(target_os = "linux")]
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
            #[cfg(target_os = "linux")]
            Stream::UserSpace(connection) => (&connection.stream).read(buffer),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Kernel(stream, _) => (&*stream).write(bytes),
            #[cfg(target_os = "linux")]
            Stream::UserSpace(connection) => (&connection.stream).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Kernel(stream, _) => (&*stream).flush(),
            #[cfg(target_os = "linux")]
            Stream::UserSpace(connection) => (&connection.stream).flush(),
        }
    }
}

//! The stack as programs hold it.

use crate::cookies::CookieFile;
use crate::listener::{ListenerBuilder, MptcpListener};
use crate::nics::Nics;
use crate::stream::{MptcpStream, StreamBuilder};
use crate::worker::{Handle, Worker};
use std::fs::File;
use std::io::{self, BufWriter};
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use umptcp_stack_core::config::{ConnectionConfig, StackConfig};
use umptcp_stack_core::interface::PathConfig;
use umptcp_stack_core::observe::{Counters, Observer};
use umptcp_stack_core::stack::{ConnectionInfo, SubflowInfo};
use umptcp_tun_driver::clock::Clock;
use umptcp_tun_driver::device::Device;
use umptcp_tun_driver::event_loop::{AttachedPath, Capture, EventLoop, LoopOptions};
use umptcp_tun_driver::paths::{PathSpec, SetupOptions};
use umptcp_tun_driver::pcap::PcapWriter;
use umptcp_types::{ConnectionId, PathId};

pub use umptcp_tun_driver::event_loop::Guard;

/// How long connections get to deliver what was written when the stack is dropped, unless told otherwise.
const LINGER: Duration = Duration::from_secs(3);

/// How long a reader looks for data before it sleeps, unless told otherwise: about what being woken on another processor takes.
const READER_SPIN: Duration = Duration::from_micros(50);

/// An MPTCP stack, running on a thread of its own. Can be used from any thread.
///
/// Dropping it closes all its connections, gives them up to the linger time (3 s unless set) to deliver what was written, aborts those
/// that are left, and undoes what was set up for its paths.
#[derive(Debug)]
pub struct Stack {
    handle: Handle,
    thread: Option<JoinHandle<io::Result<()>>>,
    linger: Duration,
    nics: Option<Arc<Nics>>,
}

/// A path of a stack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathInfo {
    /// Names it in the stack, and in [`SubflowInfo`].
    pub id: PathId,
    /// Its name, usually the NIC's.
    pub name: String,
}

/// Settings for a stack.
pub struct StackBuilder {
    paths: Vec<AttachedPath>,
    /// NICs to set up paths on; empty: all. `None`: no NIC.
    nics: Option<Vec<PathSpec>>,
    setup: SetupOptions,
    stack: StackConfig,
    connections: ConnectionConfig,
    linger: Duration,
    reader_spin: Duration,
    event_loop: LoopOptions,
    capture: Option<PathBuf>,
    observer: Option<Box<dyn Observer>>,
    seed: Option<[u8; 32]>,
    cookies: Option<PathBuf>,
}

impl std::fmt::Debug for StackBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StackBuilder")
            .field("paths", &self.paths)
            .field("nics", &self.nics)
            .field("setup", &self.setup)
            .field("stack", &self.stack)
            .field("connections", &self.connections)
            .field("linger", &self.linger)
            .finish_non_exhaustive()
    }
}

impl Default for StackBuilder {
    fn default() -> Self {
        StackBuilder {
            paths: Vec::new(),
            nics: None,
            setup: SetupOptions::default(),
            stack: StackConfig::default(),
            connections: ConnectionConfig::default(),
            linger: LINGER,
            reader_spin: READER_SPIN,
            event_loop: LoopOptions::default(),
            capture: None,
            observer: None,
            seed: None,
            cookies: None,
        }
    }
}

impl StackBuilder {
    /// Sets up a path on each of these NICs of this host, or on every usable one if there are none; takes the privilege to make
    /// TUN devices. The stack follows NICs that go down, come back, or change their addresses, and takes up new ones if it uses all.
    /// [`Stack::listen`] lets connections to the NICs' addresses through. With translated paths, local ports
    /// are taken from the range reserved for them.
    pub fn nics<S: Into<PathSpec>>(mut self, nics: impl IntoIterator<Item = S>) -> Self {
        self.nics.get_or_insert_default().extend(nics.into_iter().map(Into::into));
        self
    }

    /// How paths are set up on NICs.
    pub fn setup(mut self, options: SetupOptions) -> Self {
        self.setup = options;
        self
    }

    /// Adds a path that is set up already.
    pub fn path(mut self, path: impl Into<AttachedPath>) -> Self {
        self.paths.push(path.into());
        self
    }

    /// Adds paths that are set up already.
    pub fn paths<P: Into<AttachedPath>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.paths.extend(paths.into_iter().map(Into::into));
        self
    }

    /// Settings of the stack: algorithms, schedulers, local ports, limits.
    pub fn stack_config(mut self, config: StackConfig) -> Self {
        self.stack = config;
        self
    }

    /// What connections and listeners start with.
    pub fn connection_config(mut self, config: ConnectionConfig) -> Self {
        self.connections = config;
        self
    }

    /// How long connections get to deliver what was written when the stack is dropped.
    pub fn linger(mut self, limit: Duration) -> Self {
        self.linger = limit;
        self
    }

    /// How long a reader looks for data before it sleeps, as long as its waits turn out to be short; 50 µs unless set. Zero: not at all.
    pub fn reader_spin(mut self, duration: Duration) -> Self {
        self.reader_spin = duration;
        self
    }

    /// How long the worker looks for work before it sleeps; not at all unless set. Makes answers faster, at the price of processor time.
    pub fn busy_poll(mut self, duration: Duration) -> Self {
        self.event_loop.busy_poll = duration;
        self
    }

    /// Most memory for received packets, in bytes.
    pub fn packet_memory(mut self, bytes: usize) -> Self {
        self.event_loop.buffer_limit = bytes;
        self
    }

    /// Writes every packet to this file in pcapng, one interface per path.
    pub fn pcap(mut self, file: impl Into<PathBuf>) -> Self {
        self.capture = Some(file.into());
        self
    }

    /// Has everything reported that the stack counts, on the worker's thread.
    pub fn observer(mut self, observer: Box<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Keeps the cookies of [`StreamBuilder::fast_open`] in this file, so that a later stack's first connection to a server can
    /// send data with its SYN. It is made if there is none, read when the stack starts and written, readable by its owner only,
    /// when the stack stops. Several stacks may share it. Cookies belong to the stack's own addresses; a server that has another by
    /// now refuses it and gives a new one.
    pub fn fast_open_cookies(mut self, file: impl Into<PathBuf>) -> Self {
        self.cookies = Some(file.into());
        self
    }

    /// Makes the stack's random choices repeatable: for tests only, since keys and sequence numbers become predictable.
    pub fn seed(mut self, seed: [u8; 32]) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Starts the stack.
    pub fn start(self) -> io::Result<Stack> {
        let StackBuilder {
            paths,
            nics,
            setup,
            mut stack,
            connections,
            linger,
            reader_spin,
            mut event_loop,
            capture,
            observer,
            seed,
            cookies,
        } = self;
        let cookies = cookies.map(CookieFile::open).transpose()?;
        let nics = nics.map(|specs| Nics::set_up(&specs, &setup)).transpose()?;
        if let Some(range) = nics.as_ref().and_then(|n| n.port_range()) {
            stack.ephemeral_ports = range;
        }
        let seed = match seed {
            Some(seed) => seed,
            None => random_seed()?,
        };
        if let Some(file) = capture {
            event_loop.capture = Some(open_capture(&file)?);
        }
        let clock = Clock::new();
        let (tx, rx) = crossbeam_channel::unbounded();
        let worker = Worker::new(rx, stack.clone(), reader_spin);
        let mut engine = umptcp_stack_core::Stack::new(stack, seed);
        if let Some(observer) = observer {
            engine.set_observer(observer);
        }
        let (cookies, known) = cookies.unzip();
        for server in known.iter().flatten() {
            engine.remember_fast_open_server(clock.now(), server);
        }
        let mut event_loop = EventLoop::new(engine, worker, clock, event_loop)?;
        let handle = Handle::new(
            tx,
            event_loop.waker(),
            clock,
            connections,
            nics.as_ref().map(Arc::downgrade).unwrap_or_default(),
        );
        let thread = std::thread::Builder::new().name("umptcp".into()).spawn(move || {
            let result = event_loop.run();
            let learned = event_loop.engine().fast_open_servers(clock.now());
            if let Some(Err(error)) = cookies.map(|file| file.save(learned)) {
                tracing::warn!(%error, "Fast Open cookies are not kept");
            }
            if let Err(error) = &result {
                tracing::error!(%error, "the worker cannot go on");
            }
            result
        })?;
        let stack = Stack { handle, thread: Some(thread), linger, nics };
        for path in paths {
            stack.add_path(path)?;
        }
        if let Some(nics) = &stack.nics {
            nics.attach(&stack.handle)?;
        }
        Ok(stack)
    }
}

impl Stack {
    /// Settings for a stack.
    pub fn builder() -> StackBuilder {
        StackBuilder::default()
    }

    /// Starts a stack over these paths: each a device, what the stack is to know of it, and something that undoes its set-up
    /// when dropped.
    pub fn start(
        paths: Vec<(Box<dyn Device>, PathConfig, Guard)>,
        stack: StackConfig,
        connections: ConnectionConfig,
    ) -> io::Result<Stack> {
        let paths = paths.into_iter().map(|(device, config, guard)| AttachedPath { device, config, guard });
        Self::builder().paths(paths).stack_config(stack).connection_config(connections).start()
    }

    /// Connects to `address` with the default settings.
    pub fn connect(&self, address: impl ToSocketAddrs) -> io::Result<MptcpStream> {
        StreamBuilder::new(self.handle.clone()).connect(address)
    }

    /// Listens on `address` with the default settings.
    pub fn listen(&self, address: impl ToSocketAddrs) -> io::Result<MptcpListener> {
        ListenerBuilder::new(self.handle.clone()).listen(address)
    }

    /// Adds a path while the stack runs.
    pub fn add_path(&self, path: impl Into<AttachedPath>) -> io::Result<PathId> {
        self.handle.add_path(path.into())
    }

    /// Removes a path: its subflows end, connections go on over the others, and its set-up is undone before this returns. `false`:
    /// there is no such path.
    pub fn remove_path(&self, path: PathId) -> io::Result<bool> {
        let removed = self.handle.remove_path(path)?;
        if let Some(nics) = &self.nics {
            nics.forget(path);
        }
        // Dropped here, not on the worker's thread: undoing may take long.
        Ok(removed.is_some())
    }

    /// The paths there are.
    pub fn paths(&self) -> io::Result<Vec<PathInfo>> {
        Ok(self.handle.call(|worker, cx| {
            cx.paths().into_iter().map(|id| PathInfo { id, name: worker.path_name(id) }).collect()
        })?)
    }

    /// Every connection that a program holds, with its subflows.
    pub fn connections(&self) -> io::Result<Vec<(ConnectionId, ConnectionInfo, Vec<SubflowInfo>)>> {
        Ok(self.handle.call(|worker, cx| worker.describe_all(cx))?)
    }

    /// What the stack has counted since it started.
    pub fn counters(&self) -> io::Result<Counters> {
        Ok(self.handle.call(|_, cx| cx.engine.counters().clone())?)
    }

    /// Stops the stack as dropping it does, with another linger time, and reports what the worker died of, if it did.
    pub fn stop(mut self, linger: Duration) -> io::Result<()> {
        self.linger = linger;
        self.end()
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    fn end(&mut self) -> io::Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let linger = self.linger;
        // If the worker is gone, joining tells why.
        let _ = self.handle.call(move |worker, cx| worker.stop(cx, linger));
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the worker's thread panicked")))
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, "the stack ended badly");
        }
    }
}

fn random_seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(io::Error::from)?;
    Ok(seed)
}

fn open_capture(file: &std::path::Path) -> io::Result<Capture> {
    let open = || PcapWriter::new(Box::new(BufWriter::new(File::create(file)?)) as Box<dyn io::Write + Send>);
    open().map_err(|e| {
        io::Error::new(e.kind(), format!("cannot write the packet trace {}: {e}", file.display()))
    })
}

//! The stack, as programs use it.

use crate::addresses;
use crate::caps::{self, Accounts};
use crate::carry::Front;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
use crate::clean_up::Registered;
use crate::cookies::CookieFile;
use crate::error::Error;
use crate::handle::Handle;
use crate::memory::default_buffer_memory;
use crate::nics::Nics;
use crate::observer::Guarded;
use crate::via::Via;
use crate::worker::{Commands, Context, Undelivered, Worker};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use umptcp_stack_core::config::{ConnectionConfig, StackConfig, TimestampClock};
use umptcp_stack_core::device::{ChosenIds, PathConfig, PathKind, SignalPort};
use umptcp_stack_core::event::Traffic;
use umptcp_stack_core::observe::{Counters, Observer};
use umptcp_stack_core::path_manager::Uses;
use umptcp_stack_core::stack::{ConnectionInfo, MemoryInfo, SubflowInfo};
use umptcp_tun_driver::clock::{self, Clock};
use umptcp_tun_driver::device::Device;
use umptcp_tun_driver::event_loop::{AttachedPath, Capture, EventLoop, LoopOptions};
use umptcp_tun_driver::paths::{PathSpec, SetupOptions};
use umptcp_tun_driver::pcap::PcapWriter;
use umptcp_types::{ConnectionId, PathId};

pub use umptcp_tun_driver::event_loop::Guard;

/// Default time for connections to deliver what was written when the stack is dropped.
const LINGER: Duration = Duration::from_secs(3);

/// How long subflows get to end in order when their path is removed.
const LEAVE: Duration = Duration::from_millis(500);

/// Default time for a reader to poll for data before it sleeps: about as long as waking up on another
/// processor takes.
const READER_SPIN: Duration = Duration::from_micros(50);

/// An MPTCP stack, running on its own thread. Can be used from any thread.
///
/// Dropping it closes all its connections, gives them up to the linger time (3 s by default) to deliver what
/// was written, aborts those that are left, and undoes the set-up of its paths. A signal that ends the
/// process drops nothing: see [`clean_up_on_signals`](crate::clean_up_on_signals).
#[derive(Debug)]
pub struct Stack {
    handle: Handle,
    thread: Option<JoinHandle<io::Result<()>>>,
    linger: Duration,
    nics: Option<Arc<Nics>>,
    /// Signals stop it, if the program wants that.
    #[cfg(all(target_os = "linux", not(umptcp_portable)))]
    registered: Option<Registered>,
}

/// A path of a stack.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PathInfo {
    /// Its id in the stack and in [`SubflowInfo`].
    pub id: PathId,
    /// Its name, usually that of the NIC.
    pub name: String,
    /// The stack's addresses on it.
    pub addresses: Vec<IpAddr>,
    /// The addresses under which peers know it: the NIC's where the stack's are translated, otherwise the
    /// same.
    pub public_addresses: Vec<IpAddr>,
    /// Its subflows are backups.
    pub backup: bool,
    /// It is used only when nothing else answers.
    pub metered: bool,
    /// What path policies use its addresses for.
    pub uses: Uses,
    /// Address IDs that are chosen for its addresses.
    pub ids: ChosenIds,
    /// Ports that its addresses are advertised with, beside that.
    pub signal_ports: Vec<SignalPort>,
    /// It faces programs that are captured, not the network
    /// ([`PathKind::Capture`](crate::PathKind::Capture)).
    pub captures: bool,
}

impl PathInfo {
    /// The address under which peers know `own`, one of the stack's on this path.
    pub fn public_address(&self, own: IpAddr) -> Option<IpAddr> {
        let known = self.addresses.contains(&own);
        self.public_addresses.iter().copied().find(|a| known && a.is_ipv6() == own.is_ipv6())
    }
}

/// Settings for a stack.
pub struct StackBuilder {
    paths: Vec<AttachedPath>,
    /// NICs to set up paths on; all of them if empty, none if `None`.
    nics: Option<Vec<PathSpec>>,
    setup: SetupOptions,
    stack: StackConfig,
    connections: ConnectionConfig,
    linger: Duration,
    reader_spin: Duration,
    event_loop: LoopOptions,
    capture: Option<PathBuf>,
    inner_capture: Option<PathBuf>,
    observer: Option<Box<dyn Observer>>,
    seed: Option<[u8; 32]>,
    cookies: Option<PathBuf>,
    state: Option<PathBuf>,
    paths_later: bool,
    via: Option<Via>,
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
            stack: StackConfig::default().with_buffer_memory(default_buffer_memory()),
            connections: ConnectionConfig::default(),
            linger: LINGER,
            reader_spin: READER_SPIN,
            event_loop: LoopOptions::default(),
            capture: None,
            inner_capture: None,
            observer: None,
            seed: None,
            cookies: None,
            state: None,
            paths_later: false,
            via: None,
        }
    }
}

impl StackBuilder {
    /// Sets up a path on each of these NICs of this host, or on every usable NIC if the list is empty.
    /// Requires CAP_NET_ADMIN, unless each is inside UDP (`mode=udp`); a stack that began with such paths only
    /// takes no others later. The stack follows NICs that go down, come back or change their addresses, and
    /// uses new ones if it was given an empty list. [`Stack::listen`] accepts connections to the NICs'
    /// addresses. With translated paths, local ports are taken from the range reserved for them.
    ///
    /// Of several NICs, those that are down or have no address or route yet are used once they can be; a
    /// warning says so.
    pub fn nics<S: Into<PathSpec>>(mut self, nics: impl IntoIterator<Item = S>) -> Self {
        self.nics.get_or_insert_default().extend(nics.into_iter().map(Into::into));
        self
    }

    /// How paths are set up on NICs.
    pub fn setup(mut self, options: SetupOptions) -> Self {
        self.setup = options;
        self
    }

    /// Adds a path that has already been set up.
    pub fn path(mut self, path: impl Into<AttachedPath>) -> Self {
        self.paths.push(path.into());
        self
    }

    /// Adds paths that have already been set up.
    pub fn paths<P: Into<AttachedPath>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.paths.extend(paths.into_iter().map(Into::into));
        self
    }

    /// Settings of the stack: algorithms, schedulers, local ports, limits. The memory for buffers is then what
    /// they say; without it, that of [`default_buffer_memory`].
    pub fn stack_config(mut self, config: StackConfig) -> Self {
        self.stack = config;
        self
    }

    /// Default settings of connections and listeners.
    pub fn connection_config(mut self, config: ConnectionConfig) -> Self {
        self.connections = config;
        self
    }

    /// How long connections get to deliver what was written when the stack is dropped.
    pub fn linger(mut self, limit: Duration) -> Self {
        self.linger = limit;
        self
    }

    /// How long a reader polls for data before it sleeps, as long as its waits turn out to be short; 50 µs by
    /// default. Zero disables polling.
    pub fn reader_spin(mut self, duration: Duration) -> Self {
        self.reader_spin = duration;
        self
    }

    /// How long the worker polls for work before it sleeps; zero by default. Reduces latency at the price of
    /// CPU time.
    pub fn busy_poll(mut self, duration: Duration) -> Self {
        self.event_loop.busy_poll = duration;
        self
    }

    /// Maximum memory for received packets, in bytes.
    pub fn packet_memory(mut self, bytes: usize) -> Self {
        self.event_loop.buffer_limit = bytes;
        self
    }

    /// Writes every packet that goes or comes by a path outside to this pcapng file, one interface per path.
    pub fn pcap(mut self, file: impl Into<PathBuf>) -> Self {
        self.capture = Some(file.into());
        self
    }

    /// Writes every packet of paths that capture ([`PathKind::Capture`](crate::PathKind::Capture)) to this
    /// pcapng file.
    pub fn inner_pcap(mut self, file: impl Into<PathBuf>) -> Self {
        self.inner_capture = Some(file.into());
        self
    }

    /// Reports everything that the stack counts to `observer`, on the worker's thread. One that panics is
    /// told nothing more.
    pub fn observer(mut self, observer: Box<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Keeps the cookies of [`StreamBuilder::fast_open`](crate::StreamBuilder::fast_open) in this file, so
    /// that even the first connection of a later stack can send data with its SYN. The file is read when the
    /// stack starts and written when it stops; it is created if necessary, readable by its owner only.
    /// Several stacks may share it. A cookie is valid for one local address; a server that no longer accepts
    /// it sends a new one.
    pub fn fast_open_cookies(mut self, file: impl Into<PathBuf>) -> Self {
        self.cookies = Some(file.into());
        self
    }

    /// Where to keep what has to survive the program: what NICs with a monthly cap have carried
    /// ([`PathSpec::caps`]). It is made if necessary, and several stacks may share it. By default `$STATE_DIRECTORY`
    /// (systemd), `/var/lib/umptcp` for root, or else `umptcp` in `$XDG_STATE_HOME` or `~/.local/state`.
    pub fn state_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.state = Some(directory.into());
        self
    }

    /// Makes connections by a relay: those of programs, unless [`StreamBuilder::via`](crate::StreamBuilder::via)
    /// says otherwise, and captured ones ([`Forwarder::outward`](crate::Forwarder::outward)).
    pub fn via(mut self, relay: Via) -> Self {
        self.via = Some(relay);
        self
    }

    /// Makes the stack's random choices repeatable. Use only in tests: keys and sequence numbers become
    /// predictable.
    pub fn seed(mut self, seed: [u8; 32]) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Uses every usable NIC; see [`nics`](Self::nics).
    pub fn all_nics(self) -> Self {
        self.nics([""; 0])
    }

    /// Allows the stack to start without a path, for programs that call [`Stack::add_path`] later.
    pub fn paths_later(mut self) -> Self {
        self.paths_later = true;
        self
    }

    /// Starts the stack.
    ///
    /// # Errors
    /// [`Error::NoPaths`] when it was given neither paths nor NICs; [`Error::NotPermitted`] when paths are to
    /// be set up on NICs and the process may not do that; otherwise what keeps a path from being set up.
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
            inner_capture,
            observer,
            seed,
            cookies,
            state,
            paths_later,
            via,
        } = self;
        if paths.is_empty() && nics.is_none() && !paths_later {
            return Err(Error::NoPaths.into());
        }
        let cookies = cookies.map(CookieFile::open).transpose()?;
        let accounts =
            Arc::new(Accounts::new(state.map_or_else(caps::directories, |directory| vec![directory])));
        let nics = nics.map(|specs| Nics::set_up(&specs, &setup, Arc::clone(&accounts))).transpose()?;
        if let Some(range) = nics.as_ref().and_then(|n| n.port_range()) {
            stack.ephemeral_ports = range;
        }
        let seed = match seed {
            Some(seed) => seed,
            None => {
                stack.timestamp_clock = stack.timestamp_clock.or_else(host_clock);
                random_seed()?
            }
        };
        if let Some(file) = capture {
            event_loop.capture = Some(open_capture(&file)?);
        }
        if let Some(file) = inner_capture {
            event_loop.inner_capture = Some(open_capture(&file)?);
        }
        let clock = Clock::new();
        let (tx, rx) = crossbeam_channel::unbounded();
        let worker = Worker::new(rx, stack.clone(), reader_spin);
        let mut core = umptcp_stack_core::Stack::new(stack, seed);
        if let Some(observer) = observer {
            core.set_observer(Box::new(Guarded::new(observer)));
        }
        let (cookies, known) = cookies.unzip();
        for server in known.iter().flatten() {
            core.remember_fast_open_server(clock.now(), server);
        }
        let mut event_loop = EventLoop::new(Front::new(core), worker, clock, event_loop)?;
        let handle = Handle::new(
            Commands::new(tx, event_loop.waker()),
            clock,
            connections,
            nics.as_ref().map(Arc::downgrade).unwrap_or_default(),
            via,
        );
        let thread = std::thread::Builder::new().name("umptcp".into()).spawn(move || {
            let result = event_loop.run();
            let learned = event_loop.stack().fast_open_servers(clock.now());
            accounts.finish(&event_loop.handler().passed(event_loop.stack()));
            if let Some(Err(error)) = cookies.map(|file| file.save(learned)) {
                tracing::warn!(%error, "cannot save Fast Open cookies");
            }
            if let Err(error) = &result {
                tracing::error!(%error, "the worker failed");
            }
            let Undelivered { connections, bytes } = event_loop.handler().undelivered();
            result.and_then(|()| match connections {
                0 => Ok(()),
                _ => Err(Error::Undelivered { connections, bytes }.into()),
            })
        })?;
        #[cfg(all(target_os = "linux", not(umptcp_portable)))]
        let registered = Some(Registered::new(handle.commands.clone()));
        let stack = Stack {
            handle,
            thread: Some(thread),
            linger,
            nics,
            #[cfg(all(target_os = "linux", not(umptcp_portable)))]
            registered,
        };
        for path in paths {
            stack.add_path(path)?;
        }
        if let Some(nics) = &stack.nics {
            nics.attach(&stack.handle.commands)?;
        }
        Ok(stack)
    }
}

impl Stack {
    /// Settings for a stack.
    pub fn builder() -> StackBuilder {
        StackBuilder::default()
    }

    /// Starts a stack over these paths. Each consists of a device, its description for the stack, and a guard
    /// that undoes its set-up when dropped.
    pub fn start(
        paths: Vec<(Box<dyn Device>, PathConfig, Guard)>,
        stack: StackConfig,
        connections: ConnectionConfig,
    ) -> io::Result<Stack> {
        let paths = paths.into_iter().map(|(device, config, guard)| AttachedPath { device, config, guard });
        Self::builder().paths(paths).stack_config(stack).connection_config(connections).start()
    }

    /// Adds a path while the stack runs.
    pub fn add_path(&self, path: impl Into<AttachedPath>) -> io::Result<PathId> {
        self.handle.commands.add_path(path.into())
    }

    /// Removes a path: its subflows end, by FIN where connections have others and the path still works, and
    /// its set-up is undone before this returns. Returns `false` if there is no such path.
    pub fn remove_path(&self, path: PathId) -> io::Result<bool> {
        self.handle.commands.call(move |_, cx| cx.stack.path_leaving(cx.now, path))?;
        let end = Instant::now() + LEAVE;
        while self.handle.commands.call(move |_, cx| cx.stack.subflows_closing(path))? > 0
            && Instant::now() < end
        {
            std::thread::sleep(LEAVE / 100);
        }
        let removed = self.handle.commands.remove_path(path)?;
        if let Some(nics) = &self.nics {
            nics.forget(path, &self.handle.commands);
        }
        // Dropped here and not on the worker's thread, because undoing the set-up may take long.
        Ok(removed.is_some())
    }

    /// Changes which NICs of this host have a path: from now on these, or every usable one when there are
    /// none, as with [`StackBuilder::nics`]. Paths that are described as before stay, with everything on
    /// them. The others end as with [`remove_path`](Self::remove_path), those whose NIC stays without a path
    /// only after the new ones are there.
    ///
    /// # Errors
    /// What keeps a path from being set up, after the others have been changed; [`Error::NoPaths`] when the
    /// stack was started without [`nics`](StackBuilder::nics).
    pub fn set_nics<S: Into<PathSpec>>(&self, nics: impl IntoIterator<Item = S>) -> io::Result<()> {
        let specs: Vec<PathSpec> = nics.into_iter().map(Into::into).collect();
        let Some(nics) = &self.nics else { return Err(Error::NoPaths.into()) };
        nics.change(&specs, &self.handle.commands, |path| self.remove_path(path))
    }

    /// All paths.
    pub fn paths(&self) -> io::Result<Vec<PathInfo>> {
        Ok(self.handle.commands.call(|_, cx| path_infos(cx))?)
    }

    /// Every connection that the program holds, with its subflows.
    pub fn connections(&self) -> io::Result<Vec<(ConnectionId, ConnectionInfo, Vec<SubflowInfo>)>> {
        Ok(self.handle.commands.call(|worker, cx| worker.describe_all(cx))?)
    }

    /// Payload that went over each path since the stack started, by the path's name.
    pub fn traffic(&self) -> io::Result<BTreeMap<String, Traffic>> {
        Ok(self.handle.commands.call(|worker, cx| worker.traffic(cx))?)
    }

    /// What the buffers of all connections hold together, and may hold, with what waits between the stack and the
    /// program. What was read a second ago or less may still count.
    pub fn memory(&self) -> io::Result<MemoryInfo> {
        Ok(self.handle.commands.call(|_, cx| cx.stack.memory())?)
    }

    /// The stack's time now: that of what it tells, such as [`SubflowInfo::last_ack`].
    pub fn now(&self) -> umptcp_types::Instant {
        self.handle.clock.now()
    }

    /// The stack's counters since it started.
    pub fn counters(&self) -> io::Result<Counters> {
        Ok(self.handle.commands.call(|_, cx| cx.stack.counters().clone())?)
    }

    /// Stops the stack as dropping it does, with this linger time.
    ///
    /// # Errors
    /// [`Error::Undelivered`] when peers have not acknowledged everything that was written; an error of the
    /// worker.
    pub fn stop(mut self, linger: Duration) -> io::Result<()> {
        self.linger = linger;
        self.end()
    }

    pub(crate) fn nics(&self) -> Option<&Arc<Nics>> {
        self.nics.as_ref()
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    fn end(&mut self) -> io::Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        #[cfg(all(target_os = "linux", not(umptcp_portable)))]
        {
            self.registered = None;
        }
        let linger = self.linger;
        // If the worker has ended, joining it tells why.
        let _ = self.handle.commands.call(move |worker, cx| worker.stop(cx, linger));
        let result = thread.join().unwrap_or_else(|_| Err(io::Error::other("the worker's thread panicked")));
        if let Some(nics) = self.nics.take() {
            Nics::undo(nics);
        }
        result
    }
}

pub(crate) fn path_infos(cx: &Context<'_>) -> Vec<PathInfo> {
    let path = |id| {
        let config = cx.stack.path(id)?;
        let up = |mut addresses: Vec<IpAddr>| {
            addresses.retain(|address| !cx.stack.is_path_down(id, *address));
            addresses
        };
        let addresses = up(config.addresses.clone());
        // Whoever captures needs no address of his own.
        if addresses.is_empty() && !config.addresses.is_empty() {
            return None;
        }
        let public_addresses = up(addresses::public(config));
        let (name, captures) = (config.name.clone(), config.kind == PathKind::Capture);
        Some(PathInfo {
            id,
            name,
            addresses,
            public_addresses,
            backup: config.backup,
            metered: config.metered,
            uses: config.uses,
            ids: config.ids,
            signal_ports: config.signal_ports.clone(),
            captures,
        })
    };
    cx.paths().into_iter().filter_map(path).collect()
}

impl Drop for Stack {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, "the stack ended with an error");
        }
    }
}

/// The clock of this host for timestamps, the same in every process: it goes on until the host is started
/// again. `None` where /proc does not tell.
fn host_clock() -> Option<TimestampClock> {
    let boot = u128::from_str_radix(&clock::boot_id().replace('-', ""), 16).ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let seconds: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    Some(TimestampClock::new(((boot >> 64) as u64, boot as u64), (seconds * 1000.0) as u64 as u32))
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

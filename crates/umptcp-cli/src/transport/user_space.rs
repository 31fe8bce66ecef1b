//! Connections of umptcp itself.

use super::facts::{Facts, FastOpen, Subflow};
use crate::args::{ListenAddress, PathArgs};
use crate::control::StackSource;
use crate::failure::Class;
use crate::registry::{Names, Registry};
use crate::session::Session;
use crate::warnings;
use anyhow::{Context as _, anyhow};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use umptcp::{
    AttachedPath, BufferSize, ConnectionConfig, ConnectionId, ConnectionOption, Counter, Counters, Forwarder,
    MptcpListener, MptcpStream, PathConfig, PathId, PathKind, Protocol, StackConfig, Traffic,
};
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
use umptcp_tun_driver::device::Tun;
use umptcp_tun_driver::paths::{self, PathSpec, SetupOptions};

/// Name of the path by which captured connections of this host come.
pub(crate) const CAPTURED: &str = "captured";

/// How long the program waits at exit for everything sent to arrive. The user timeout ends connections to a
/// peer that does not respond at all.
const LINGER: Duration = Duration::from_secs(60);
/// The same if the program fails or a signal ends it.
const LINGER_ON_FAILURE: Duration = Duration::from_millis(500);
/// How long connections get to end in order that have nothing left to deliver.
const FINISHED_LINGER: Duration = Duration::from_secs(1);
/// The same where the peer has closed its direction, and its window stays closed: Linux keeps such a connection for a
/// minute when the program that had it has closed it, without anybody to read.
/// A program that reads slowly and has closed its own direction looks the same for a while.
const UNREAD_LINGER: Duration = Duration::from_secs(10);
/// How often to look whether connections have ended.
const FINISH_CHECK: Duration = Duration::from_millis(10);
/// Maximum number of connections that carried data in the SYN and have not completed the handshake.
const FAST_OPEN_QUEUE: usize = 64;

/// Settings of the stack and its connections.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) paths: Vec<PathSpec>,
    pub(crate) congestion: Option<String>,
    pub(crate) scheduler: Option<String>,
    pub(crate) path_policy: Option<String>,
    pub(crate) checksum: bool,
    pub(crate) strict_checksums: bool,
    pub(crate) no_mptcp: bool,
    /// The send and the receive buffer of each connection.
    pub(crate) buffer: Option<BufferSize>,
    /// Most subflows of a connection beside the initial one.
    pub(crate) subflows: Option<u8>,
    /// Most addresses of the peer's to act on.
    pub(crate) add_addr_accepted: Option<u8>,
    pub(crate) fast_open: bool,
    pub(crate) fast_open_cookies: Option<PathBuf>,
    /// The relay by which connections are made.
    pub(crate) via: Option<umptcp::Via>,
    pub(crate) pcap: Option<PathBuf>,
    /// The same for the captured side.
    pub(crate) inner_pcap: Option<PathBuf>,
    /// Translate what is not TCP, too.
    pub(crate) carry: bool,
    /// Where to keep the record of changes to the host; `None` uses the directory common to all instances.
    pub(crate) record: Option<PathBuf>,
}

impl Settings {
    /// What the command line says of paths and connections.
    pub(crate) fn of(args: &PathArgs) -> Settings {
        Settings {
            paths: args.paths.clone(),
            congestion: args.congestion.clone(),
            scheduler: args.scheduler.clone(),
            path_policy: args.path_policy.clone(),
            checksum: args.checksum,
            no_mptcp: args.no_mptcp,
            pcap: args.pcap.clone(),
            ..Settings::default()
        }
    }

    /// What these settings have, and a running stack with the settings `now` cannot become, in the words of the daemon's file.
    pub(crate) fn beyond(&self, now: &Settings) -> Vec<&'static str> {
        // All fields, so that none that is added is forgotten.
        let Settings {
            paths: _,
            congestion: _,
            scheduler: _,
            path_policy: _,
            checksum: _,
            strict_checksums: _,
            no_mptcp: _,
            buffer: _,
            subflows: _,
            add_addr_accepted: _,
            fast_open: _,
            fast_open_cookies,
            via,
            pcap,
            inner_pcap,
            carry,
            record,
        } = self;
        let fixed = [
            (*pcap != now.pcap || *inner_pcap != now.inner_pcap, "pcap of [stack]"),
            (*via != now.via, "[via]"),
            (
                (fast_open_cookies, carry, record) != (&now.fast_open_cookies, &now.carry, &now.record),
                "what the command line says",
            ),
        ];
        fixed.into_iter().filter(|(differs, _)| *differs).map(|(_, what)| what).collect()
    }

    /// What connections are told.
    pub(crate) fn connection(&self) -> ConnectionConfig {
        let mut config = ConnectionConfig::default();
        if let Some(name) = &self.congestion {
            config.congestion.clone_from(name);
        }
        if let Some(name) = &self.scheduler {
            config.scheduler.clone_from(name);
        }
        if let Some(name) = &self.path_policy {
            config.path_policy.clone_from(name);
        }
        config.checksum = self.checksum;
        config.strict_checksums = self.strict_checksums;
        config.mptcp = !self.no_mptcp;
        if let Some(size) = self.buffer {
            (config.send_buffer, config.receive_buffer) = (size, size);
        }
        if let Some(most) = self.subflows {
            // Linux does not count the initial one.
            config.max_subflows = usize::from(most) + 1;
        }
        if let Some(most) = self.add_addr_accepted {
            config.max_add_addr_accepted = usize::from(most);
        }
        config.fast_open = self.fast_open;
        // Data is written in blocks as large as possible, so small writes should be sent immediately.
        config.no_delay = true;
        config
    }
}

/// A running stack with its paths.
pub(crate) struct UserSpace {
    shared: Arc<Shared>,
    connection: Mutex<ConnectionConfig>,
    /// The paths that were asked for at the start.
    asked: Vec<PathSpec>,
}

/// What it shares with its connections and the clean-up on signals.
struct Shared {
    /// `None` once it has been stopped.
    stack: Mutex<Option<umptcp::Stack>>,
    /// Names of the paths, including removed ones.
    names: Mutex<HashMap<PathId, String>>,
}

impl Shared {
    /// Adds the names of new paths, and returns the current paths.
    fn look(&self) -> Vec<umptcp::PathInfo> {
        let paths = lock(&self.stack).as_ref().and_then(|stack| stack.paths().ok()).unwrap_or_default();
        lock(&self.names).extend(paths.iter().map(|path| (path.id, path.name.clone())));
        paths
    }

    fn name(&self, path: PathId) -> String {
        let known = |names: &HashMap<_, String>| names.get(&path).cloned();
        let name = known(&lock(&self.names));
        let name = name.or_else(|| {
            self.look();
            known(&lock(&self.names))
        });
        name.unwrap_or_else(|| format!("path{}", path.0))
    }
}

impl StackSource for Shared {
    fn with(&self, f: &mut dyn FnMut(&umptcp::Stack)) {
        if let Some(stack) = &*lock(&self.stack) {
            f(stack);
        }
    }
}

/// Whether the peer seems to have been left by its program.
fn is_unread(info: &umptcp::ConnectionInfo) -> bool {
    info.peer_finished && info.send_window == 0
}

impl UserSpace {
    /// The stack, for its control socket.
    pub(crate) fn source(&self) -> Arc<dyn StackSource> {
        self.shared.clone()
    }

    /// Sets up paths and starts a stack over them.
    pub(crate) fn open(
        settings: &Settings,
        registry: &Registry,
        session: &Session,
    ) -> anyhow::Result<UserSpace> {
        registry.check(Names {
            congestion: settings.congestion.as_deref(),
            scheduler: settings.scheduler.as_deref(),
            path_policy: settings.path_policy.as_deref(),
        })?;
        let mut setup = SetupOptions::default();
        setup.record_directory.clone_from(&settings.record);
        setup.carry = settings.carry;
        let connection = settings.connection();
        let config = StackConfig::default()
            .with_buffer_memory(umptcp::default_buffer_memory())
            .with_congestion(registry.congestion.clone())
            .with_schedulers(registry.schedulers.clone())
            .with_path_policies(registry.path_policies.clone());
        let mut builder = umptcp::Stack::builder()
            .nics(settings.paths.iter().cloned())
            .setup(setup)
            .stack_config(config)
            .connection_config(connection.clone())
            .linger(LINGER);
        if let Some(via) = &settings.via {
            builder = builder.via(via.clone());
        }
        if let Some(file) = &settings.pcap {
            builder = builder.pcap(file);
        }
        if let Some(file) = &settings.inner_pcap {
            builder = builder.inner_pcap(file);
        }
        if let Some(file) = &settings.fast_open_cookies {
            builder = builder.fast_open_cookies(file);
        }
        let shared = Arc::new(Shared { stack: Mutex::new(None), names: Mutex::default() });
        let on_signal = Arc::clone(&shared);
        // Before anything is set up, because a signal may arrive at any time.
        session.on_signal(move || {
            let stack = lock(&on_signal.stack).take();
            if let Some(stack) = stack {
                let _ = stack.stop(LINGER_ON_FAILURE);
            }
            for error in paths::clean_up() {
                tracing::error!(%error, "cannot undo a change");
            }
        });
        *lock(&shared.stack) =
            Some(builder.start().context(Class::Host.failure("cannot start umptcp's stack"))?);
        shared.look();
        Ok(UserSpace { shared, connection: Mutex::new(connection), asked: settings.paths.clone() })
    }

    /// Connects to the first of `remotes` that answers, only over the paths named in `over` unless it is
    /// empty.
    pub(crate) fn connect(
        &self,
        remotes: &[SocketAddr],
        timeout: Duration,
        over: &[&str],
    ) -> anyhow::Result<Connection> {
        let builder = self.with_stack(MptcpStream::builder)?;
        let paths = self.shared.look().into_iter();
        let paths = paths.filter(|path| over.contains(&path.name.as_str())).map(|path| path.id);
        let stream = builder
            .paths(paths)
            .connect_timeout(timeout)
            .connect(remotes)
            .with_context(|| Class::Connect.failure(cannot_connect(remotes)))?;
        Ok(Connection::new(stream, &self.shared, &self.connection()))
    }

    /// Connects to a server by its name, which the relay resolves.
    pub(crate) fn connect_name(
        &self,
        host: &str,
        port: u16,
        timeout: Duration,
    ) -> anyhow::Result<Connection> {
        let builder = self.with_stack(MptcpStream::builder)?.connect_timeout(timeout);
        let stream = builder
            .connect_name(host, port)
            .with_context(|| Class::Connect.failure(format!("cannot connect to {host} port {port}")))?;
        Ok(Connection::new(stream, &self.shared, &self.connection()))
    }

    /// Captures what comes in by a path, and sends it on over all others; and sends what comes from outside
    /// on to `inside` by that path. Returns who does the one and the other.
    pub(crate) fn capture(
        &self,
        captured: AttachedPath,
        inside: &[IpAddr],
    ) -> anyhow::Result<(Forwarder, Forwarder)> {
        self.with_stack(|stack| {
            let path = stack.add_path(captured)?;
            let outward = Forwarder::outward(stack, path, self.connection())?;
            outward.carry(path, inside.iter().copied())?;
            let inward = Forwarder::inward(stack, path, inside.iter().copied(), self.connection())?;
            Ok((outward, inward))
        })?
    }

    /// Captures what comes in by a path, and sends it on over all others.
    pub(crate) fn capture_outward(&self, captured: AttachedPath) -> anyhow::Result<Forwarder> {
        self.with_stack(|stack| {
            let path = stack.add_path(captured)?;
            Ok(Forwarder::outward(stack, path, self.connection())?)
        })?
    }

    fn connection(&self) -> ConnectionConfig {
        lock(&self.connection).clone()
    }

    /// Connections have these settings from now on: new ones all of them, and those that there are what can be changed.
    /// What is the same stays as it is, also where somebody has changed it since.
    pub(crate) fn set_connection(
        &self,
        settings: &Settings,
        forwarders: &[Arc<Forwarder>],
    ) -> anyhow::Result<()> {
        let config = settings.connection();
        let before = std::mem::replace(&mut *lock(&self.connection), config.clone());
        self.with_stack(|stack| -> io::Result<()> {
            let (old, new) = (before.clone(), config.clone());
            stack.change_defaults(|c| change_to(c, &old, &new));
            for forwarder in forwarders {
                let (old, new) = (before.clone(), config.clone());
                forwarder.change(move |c| change_to(c, &old, &new))?;
            }
            let outside: BTreeSet<PathId> =
                stack.paths()?.iter().filter(|path| !path.captures).map(|path| path.id).collect();
            for (id, _, subflows) in stack.connections()? {
                if !subflows.iter().any(|s| !outside.contains(&s.path)) {
                    change_connection(stack, id, &before, &config)?;
                }
            }
            Ok(())
        })??;
        Ok(())
    }

    /// Does something with the stack.
    pub(crate) fn with_stack<T>(&self, work: impl FnOnce(&umptcp::Stack) -> T) -> anyhow::Result<T> {
        lock(&self.shared.stack).as_ref().map(work).ok_or_else(stopped)
    }

    /// Who looks at it, from any thread.
    pub(crate) fn view(&self) -> View {
        View(Arc::clone(&self.shared))
    }

    /// The paths.
    pub(crate) fn path_infos(&self) -> Vec<umptcp::PathInfo> {
        self.shared.look()
    }

    /// What will not happen over them, although it may be expected.
    pub(crate) fn warnings(&self, role: warnings::Role) -> Vec<String> {
        let paths: Vec<warnings::Path> = self.asked.iter().map(warnings::Path::of_spec).collect();
        warnings::of(&paths, &self.connection(), role)
    }

    /// Payload that went over each path.
    pub(crate) fn traffic(&self) -> BTreeMap<String, Traffic> {
        lock(&self.shared.stack).as_ref().and_then(|stack| stack.traffic().ok()).unwrap_or_default()
    }

    /// Waits until the connections that have been sent on have ended, for as long as at exit; for a moment
    /// only where nothing is left to deliver, or nobody reads it.
    pub(crate) fn finish(&self) {
        let (start, connections) = (Instant::now(), || {
            let stack = lock(&self.shared.stack);
            stack.as_ref().and_then(|stack| stack.connections().ok()).unwrap_or_default()
        });
        let (mut acknowledged, mut progress) = (0, start);
        loop {
            let open = connections();
            let sum = open.iter().map(|(_, info, _)| info.bytes_acked).sum::<u64>();
            if sum != acknowledged {
                (acknowledged, progress) = (sum, Instant::now());
            }
            let held: Vec<_> =
                open.iter().map(|(_, info, _)| info).filter(|info| info.send_queue > 0).collect();
            if !held.is_empty()
                && held.iter().all(|info| is_unread(info))
                && progress.elapsed() >= UNREAD_LINGER
            {
                return;
            }
            let undelivered = !held.is_empty() || open.iter().any(|(_, info, _)| info.readable > 0);
            let limit = if undelivered { LINGER } else { FINISHED_LINGER };
            if open.is_empty() || start.elapsed() >= limit {
                return;
            }
            std::thread::sleep(FINISH_CHECK);
        }
    }

    /// Removes the paths after [`finish`](Self::finish): what is still there is reset.
    pub(crate) fn close_finished(self) -> anyhow::Result<()> {
        self.close_within(Duration::ZERO)
    }

    /// Removes the paths. Connections get this long to deliver what was written; what is still there then is
    /// reset.
    pub(crate) fn close_within(self, linger: Duration) -> anyhow::Result<()> {
        let stack = lock(&self.shared.stack).take().ok_or_else(stopped)?;
        stack.stop(linger).context(Class::Connection.failure("umptcp's stack failed"))
    }

    /// Names of the paths.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.shared.look().into_iter().map(|path| path.name).collect()
    }

    pub(crate) fn listen(&self, address: ListenAddress) -> anyhow::Result<UserSpaceListener> {
        // The unspecified address means every address of every path, in both families.
        let ip = address.address.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        let builder = self.with_stack(MptcpListener::builder)?;
        let listener = builder
            .fast_open(if self.connection().fast_open { FAST_OPEN_QUEUE } else { 0 })
            .listen(SocketAddr::new(ip, address.port))
            .with_context(|| Class::Host.failure(format!("cannot listen on {address}")))?;
        Ok(UserSpaceListener { listener, shared: Arc::clone(&self.shared), config: self.connection() })
    }

    /// What became of data in SYNs; `None`: Fast Open is off.
    pub(crate) fn fast_open(&self) -> Option<FastOpen> {
        let counters = lock(&self.shared.stack).as_ref().and_then(|stack| stack.counters().ok());
        let counters = counters.filter(|_| self.connection().fast_open)?;
        let taken = counters.get(Counter::TcpFastOpenActive);
        Some(FastOpen { taken, refused: counters.get(Counter::TcpFastOpenActiveFail) })
    }

    /// Waits until everything sent has arrived, then removes the paths.
    pub(crate) fn close(self) -> anyhow::Result<()> {
        self.close_within(LINGER)
    }
}

/// Takes over what differs between two settings.
fn change_to(config: &mut ConnectionConfig, before: &ConnectionConfig, now: &ConnectionConfig) {
    fn set<T: PartialEq + Clone>(field: &mut T, before: &T, now: &T) {
        if before != now {
            field.clone_from(now);
        }
    }
    set(&mut config.congestion, &before.congestion, &now.congestion);
    set(&mut config.scheduler, &before.scheduler, &now.scheduler);
    set(&mut config.path_policy, &before.path_policy, &now.path_policy);
    set(&mut config.checksum, &before.checksum, &now.checksum);
    set(&mut config.mptcp, &before.mptcp, &now.mptcp);
    set(&mut config.send_buffer, &before.send_buffer, &now.send_buffer);
    set(&mut config.receive_buffer, &before.receive_buffer, &now.receive_buffer);
    set(&mut config.max_subflows, &before.max_subflows, &now.max_subflows);
    set(&mut config.max_add_addr_accepted, &before.max_add_addr_accepted, &now.max_add_addr_accepted);
}

/// The same of a connection that there is, as far as that can be. It may have ended since.
fn change_connection(
    stack: &umptcp::Stack,
    id: ConnectionId,
    before: &ConnectionConfig,
    now: &ConnectionConfig,
) -> io::Result<()> {
    if before.congestion != now.congestion {
        let _ = stack.set_congestion(id, &now.congestion)?;
    }
    if before.scheduler != now.scheduler {
        let _ = stack.set_scheduler(id, &now.scheduler)?;
    }
    if before.path_policy != now.path_policy {
        let _ = stack.set_path_policy(id, &now.path_policy)?;
    }
    let options = [
        (before.send_buffer != now.send_buffer, ConnectionOption::SendBuffer(now.send_buffer)),
        (before.receive_buffer != now.receive_buffer, ConnectionOption::ReceiveBuffer(now.receive_buffer)),
        (before.max_subflows != now.max_subflows, ConnectionOption::MaxSubflows(now.max_subflows)),
        (
            before.max_add_addr_accepted != now.max_add_addr_accepted,
            ConnectionOption::MaxAddAddrAccepted(now.max_add_addr_accepted),
        ),
    ];
    for (_, option) in options.into_iter().filter(|(differs, _)| *differs) {
        let _ = stack.set_option(id, option)?;
    }
    Ok(())
}

/// The captured side, as a path of the stack.
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
pub(crate) fn captured(name: &str, tun: Tun) -> AttachedPath {
    let mut config = PathConfig::with_addresses(name, Vec::new());
    config.kind = PathKind::Capture;
    tun.describe(&mut config);
    AttachedPath { device: Box::new(tun), config, guard: Box::new(()) }
}

/// The paths that lead outside.
fn outside(stack: &umptcp::Stack) -> Option<Vec<umptcp::PathInfo>> {
    let paths = stack.paths().ok()?;
    Some(paths.into_iter().filter(|path| path.name != CAPTURED).collect())
}

/// A stack, to look at. It does not keep it running.
#[derive(Clone)]
pub(crate) struct View(Arc<Shared>);

/// What there is to know of a stack at one time.
#[derive(Clone, Default, Debug)]
pub(crate) struct Figures {
    /// What it has counted.
    pub(crate) counters: Counters,
    /// Names of the paths that can be used.
    pub(crate) paths: BTreeSet<String>,
    /// Payload that went over each path, also over those that are gone.
    pub(crate) traffic: BTreeMap<String, Traffic>,
    /// Established subflows of each path.
    pub(crate) subflows: BTreeMap<String, u64>,
    /// How many connections there are.
    pub(crate) connections: usize,
    /// Bytes that their buffers hold together, and may hold.
    pub(crate) memory: [u64; 2],
}

impl View {
    /// Names of the paths that can be used.
    pub(crate) fn paths(&self) -> Vec<String> {
        let paths = lock(&self.0.stack).as_ref().and_then(outside);
        paths.unwrap_or_default().into_iter().map(|path| path.name).collect()
    }

    /// Names of their NICs.
    pub(crate) fn nics(&self) -> Vec<String> {
        let nics: BTreeSet<String> =
            self.paths().iter().map(|name| PathSpec::device_of(name).to_owned()).collect();
        nics.into_iter().collect()
    }

    /// All of it; `None` when the stack has ended.
    pub(crate) fn figures(&self) -> Option<Figures> {
        let guard = lock(&self.0.stack);
        let stack = guard.as_ref()?;
        let connections = stack.connections().ok()?;
        let paths = outside(stack)?;
        let mut subflows: BTreeMap<String, u64> = paths.iter().map(|path| (path.name.clone(), 0)).collect();
        let established = connections.iter().flat_map(|(_, _, s)| s).filter(|s| s.state == "ESTABLISHED");
        for subflow in established {
            if let Some(path) = paths.iter().find(|path| path.id == subflow.path) {
                *subflows.entry(path.name.clone()).or_default() += 1;
            }
        }
        Some(Figures {
            counters: stack.counters().ok()?,
            traffic: stack.traffic().ok()?.into_iter().filter(|(path, _)| path != CAPTURED).collect(),
            paths: paths.into_iter().map(|path| path.name).collect(),
            subflows,
            connections: connections.len(),
            memory: stack.memory().map(|m| [m.held, m.bound]).ok()?,
        })
    }
}

impl Drop for UserSpace {
    /// If [`UserSpace::close`] was not called, something has failed. The paths must still be removed, even
    /// though connections and the clean-up on signals also hold the stack.
    fn drop(&mut self) {
        let stack = lock(&self.shared.stack).take();
        if let Some(stack) = stack {
            let _ = stack.stop(LINGER_ON_FAILURE);
        }
    }
}

fn cannot_connect(remotes: &[SocketAddr]) -> String {
    let names: Vec<String> = remotes.iter().map(ToString::to_string).collect();
    format!("cannot connect to {}", names.join(", "))
}

fn stopped() -> anyhow::Error {
    anyhow!("the program is exiting")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for connections.
pub(crate) struct UserSpaceListener {
    listener: MptcpListener,
    shared: Arc<Shared>,
    config: ConnectionConfig,
}

impl UserSpaceListener {
    pub(crate) fn accept(&self) -> io::Result<Connection> {
        let (stream, _) = self.listener.accept()?;
        Ok(Connection::new(stream, &self.shared, &self.config))
    }

    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection, with what is needed to describe it.
pub(crate) struct Connection {
    pub(crate) stream: MptcpStream,
    shared: Arc<Shared>,
    congestion: String,
    scheduler: String,
}

impl Connection {
    fn new(stream: MptcpStream, shared: &Arc<Shared>, config: &ConnectionConfig) -> Self {
        let (congestion, scheduler) = (config.congestion.clone(), config.scheduler.clone());
        Connection { stream, shared: Arc::clone(shared), congestion, scheduler }
    }

    pub(crate) fn facts(&self) -> io::Result<Facts> {
        let status = self.stream.protocol()?;
        Ok(Facts {
            local: self.stream.local_addr()?,
            remote: self.stream.peer_addr()?,
            mptcp: match status {
                Protocol::Negotiating => None,
                other => Some(other.is_mptcp()),
            },
            description: status.to_string(),
            congestion: Some(self.congestion.clone()),
            scheduler: Some(self.scheduler.clone()),
        })
    }

    /// Bytes the peer has acknowledged.
    pub(crate) fn bytes_acknowledged(&self) -> Option<u64> {
        self.stream.info().ok().map(|info| info.bytes_acked)
    }

    /// The subflows; none once the connection has ended.
    pub(crate) fn subflows(&self) -> Vec<Subflow> {
        let subflows = self.stream.subflows().unwrap_or_default();
        subflows.into_iter().map(|s| Subflow::new(self.shared.name(s.path), s)).collect()
    }
}

//! Connections by umptcp itself.

use super::{Facts, Subflow};
use crate::args::{ListenAddress, PathArg, PathMode};
use crate::session::Session;
use crate::{Registry, usage};
use anyhow::{Context as _, anyhow};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use umptcp::{AttachedPath, ConnectionConfig, MptcpListener, MptcpStream, PathId, StackConfig};
use umptcp_tun_driver::paths::{self, Mode, PathChange, PathSet, PathSpec, SetupOptions};

/// How long the end of the program waits for what was sent to arrive. A peer that does not answer at all is given up by the
/// user timeout.
const LINGER: Duration = Duration::from_secs(60);
/// The same when a signal ends the program.
const LINGER_ON_SIGNAL: Duration = Duration::from_millis(500);

/// How connections are made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) paths: Vec<PathArg>,
    pub(crate) congestion: Option<String>,
    pub(crate) scheduler: Option<String>,
    pub(crate) checksum: bool,
    pub(crate) no_mptcp: bool,
    pub(crate) pcap: Option<PathBuf>,
    /// Ports to be listened on, which translation must let through.
    pub(crate) listen: Vec<u16>,
    /// Where the record of what was set up is kept; `None`: where all instances of this host have it.
    pub(crate) record: Option<PathBuf>,
}

impl Settings {
    pub(crate) fn connection(&self) -> ConnectionConfig {
        let mut config = ConnectionConfig::default();
        if let Some(name) = &self.congestion {
            config.congestion.clone_from(name);
        }
        if let Some(name) = &self.scheduler {
            config.scheduler.clone_from(name);
        }
        config.checksum = self.checksum;
        config.mptcp = !self.no_mptcp;
        // Bytes are written in blocks as large as they come; what is small is wanted at once.
        config.no_delay = true;
        // A server tells its other addresses and leaves joining to the client, which may be behind translation.
        config.advertise_addresses = !self.listen.is_empty();
        config
    }
}

/// A running stack with its paths. The clean-up on signals shares it.
pub(crate) struct UserSpace {
    stack: Arc<Mutex<Option<umptcp::Stack>>>,
    connection: ConnectionConfig,
    names: Names,
    /// Watches the NICs as long as it lives.
    _paths: Arc<Mutex<PathSet>>,
}

impl UserSpace {
    /// Sets paths up and starts a stack over them.
    pub(crate) fn open(
        settings: &Settings,
        registry: &Registry,
        session: &Session,
    ) -> anyhow::Result<UserSpace> {
        registry.check(settings.congestion.as_deref(), settings.scheduler.as_deref())?;
        let specs: Vec<PathSpec> = settings.paths.iter().map(spec).collect::<anyhow::Result<_>>()?;
        let options = SetupOptions {
            listen_ports: settings.listen.clone(),
            record_directory: settings.record.clone(),
            ..SetupOptions::default()
        };
        let mut set = paths::set_up(&specs, &options).context("cannot set the paths up")?;
        let paths = std::mem::take(&mut set.paths);
        let nics = paths.iter().map(|path| (path.tun.name().to_owned(), path.config.name.clone())).collect();
        let connection = settings.connection();
        let mut config = StackConfig {
            congestion: registry.congestion.clone(),
            schedulers: registry.schedulers.clone(),
            ..StackConfig::default()
        };
        if let Some(ports) = set.port_range() {
            // Then translation does not change them.
            config.ephemeral_ports = ports;
        }
        let mut builder = umptcp::Stack::builder()
            .stack_config(config)
            .connection_config(connection.clone())
            .linger(LINGER)
            .paths(paths.into_iter().map(attach));
        if let Some(file) = &settings.pcap {
            builder = builder.pcap(file);
        }
        let stack = builder.start().context("cannot start the stack")?;
        let names = stack.paths()?.into_iter().map(|path| (path.id, path.name)).collect();
        let names: Names = Arc::new(Mutex::new(names));
        let stack = Arc::new(Mutex::new(Some(stack)));
        let changes = set.changes();
        let set = Arc::new(Mutex::new(set));
        let keeper = Keeper {
            stack: Arc::downgrade(&stack),
            set: Arc::downgrade(&set),
            names: Arc::clone(&names),
            specs,
            nics,
        };
        if let Some(changes) = changes {
            std::thread::Builder::new()
                .name("paths".to_owned())
                .spawn(move || keeper.run(&changes))
                .context("cannot start a thread")?;
        }
        let on_signal = Arc::clone(&stack);
        session.on_signal(move || {
            if let Some(stack) = lock(&on_signal).take() {
                let _ = stack.stop(LINGER_ON_SIGNAL);
            }
            for error in paths::clean_up() {
                tracing::error!(%error, "not everything could be undone");
            }
        });
        Ok(UserSpace { stack, connection, names, _paths: set })
    }

    /// Connects, over the named paths only if there are names.
    pub(crate) fn connect(
        &self,
        remote: SocketAddr,
        timeout: Duration,
        over: &[&str],
    ) -> anyhow::Result<Connection> {
        let builder = match &*lock(&self.stack) {
            Some(stack) => MptcpStream::builder(stack),
            None => return Err(ending()),
        };
        let paths: Vec<PathId> = lock(&self.names)
            .iter()
            .filter(|(_, name)| over.contains(&name.as_str()))
            .map(|(id, _)| *id)
            .collect();
        let stream = builder
            .paths(paths)
            .connect_timeout(timeout)
            .connect(remote)
            .with_context(|| format!("cannot connect to {remote}"))?;
        Ok(Connection { stream, names: Arc::clone(&self.names), config: self.connection.clone() })
    }

    pub(crate) fn listen(&self, address: ListenAddress) -> anyhow::Result<UserSpaceListener> {
        if address.port == 0 {
            return Err(usage(
                "umptcp listens on a port from 1 to 65535: its ports are not the kernel's to choose",
            ));
        }
        let ip = address.address.unwrap_or_else(|| self.any_address());
        let stack = lock(&self.stack);
        let stack = stack.as_ref().ok_or_else(ending)?;
        let listener = stack
            .listen(SocketAddr::new(ip, address.port))
            .with_context(|| format!("cannot listen on {address}"))?;
        Ok(UserSpaceListener { listener, names: Arc::clone(&self.names), config: self.connection.clone() })
    }

    /// Stands for every address of every path.
    fn any_address(&self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    }

    /// Waits until what was sent has arrived, then takes the paths down.
    pub(crate) fn close(self) -> anyhow::Result<()> {
        let stack = lock(&self.stack).take();
        match stack {
            Some(stack) => stack.stop(LINGER).context("the stack ended badly"),
            None => Err(ending()),
        }
    }
}

impl Drop for UserSpace {
    /// Without [`UserSpace::close`] something has failed: the paths must go all the same, and the clean-up on signals
    /// holds the stack, too.
    fn drop(&mut self) {
        let stack = lock(&self.stack).take();
        if let Some(stack) = stack {
            let _ = stack.stop(LINGER_ON_SIGNAL);
        }
    }
}

/// Names of the stack's paths.
type Names = Arc<Mutex<HashMap<PathId, String>>>;

/// Makes paths come and go with their NICs.
struct Keeper {
    stack: Weak<Mutex<Option<umptcp::Stack>>>,
    set: Weak<Mutex<PathSet>>,
    names: Names,
    /// What was asked for; empty: every NIC.
    specs: Vec<PathSpec>,
    /// The paths' names by those of their TUN devices.
    nics: HashMap<String, String>,
}

impl Keeper {
    /// Until the paths are taken down.
    fn run(mut self, changes: &Receiver<PathChange>) {
        for change in changes {
            if let Err(error) = self.follow(change) {
                tracing::warn!("{error:#}");
            }
        }
    }

    fn follow(&mut self, change: PathChange) -> anyhow::Result<()> {
        match change {
            PathChange::Down { tun, gone: true } => self.remove(&tun),
            PathChange::NewNic(nic) => {
                let named = self.specs.iter().find(|spec| spec.device == nic.name);
                match named.cloned().or_else(|| self.specs.is_empty().then(|| PathSpec::new(&nic.name))) {
                    Some(spec) => self.add(&spec).with_context(|| format!("cannot use {}", nic.name)),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn add(&mut self, spec: &PathSpec) -> anyhow::Result<()> {
        let (Some(stack), Some(set)) = (self.stack.upgrade(), self.set.upgrade()) else { return Ok(()) };
        let path = lock(&set).add(spec)?;
        let (tun, name) = (path.tun.name().to_owned(), path.config.name.clone());
        if let Some(stack) = &*lock(&stack) {
            let id = stack.add_path(attach(path))?;
            tracing::info!(path = name, "a NIC has come: its path is in use");
            lock(&self.names).insert(id, name.clone());
            self.nics.insert(tun, name);
        }
        Ok(())
    }

    fn remove(&mut self, tun: &str) -> anyhow::Result<()> {
        let Some(name) = self.nics.remove(tun) else { return Ok(()) };
        let Some(stack) = self.stack.upgrade() else { return Ok(()) };
        let id = lock(&self.names).iter().find(|(_, n)| **n == name).map(|(id, _)| *id);
        if let (Some(id), Some(stack)) = (id, &*lock(&stack)) {
            tracing::info!(path = name, "a NIC has gone, and its path with it");
            stack.remove_path(id)?;
            lock(&self.names).remove(&id);
        }
        Ok(())
    }
}

fn attach(path: paths::Path) -> AttachedPath {
    let paths::Path { config, guard, tun } = path;
    AttachedPath { device: Box::new(tun), config, guard: Box::new(guard) }
}

fn ending() -> anyhow::Error {
    anyhow!("the program is ending")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spec(path: &PathArg) -> anyhow::Result<PathSpec> {
    if path.advertise.len() > 1 {
        return Err(usage(format!("{}: advertise= is given twice", path.device)));
    }
    Ok(PathSpec {
        addresses: path.addresses.clone(),
        mode: match path.mode {
            PathMode::Nat => Mode::Nat,
            PathMode::Routed => Mode::Routed,
        },
        advertise: path.advertise.first().copied(),
        backup: path.backup,
        weight: path.weight,
        ..PathSpec::new(&path.device)
    })
}

/// Waits for connections.
pub(crate) struct UserSpaceListener {
    listener: MptcpListener,
    names: Names,
    config: ConnectionConfig,
}

impl UserSpaceListener {
    pub(crate) fn accept(&self) -> io::Result<Connection> {
        let (stream, _) = self.listener.accept()?;
        Ok(Connection { stream, names: Arc::clone(&self.names), config: self.config.clone() })
    }

    pub(crate) fn local_address(&self) -> SocketAddr {
        self.listener.local_addr()
    }
}

/// A connection, with what is needed to describe it.
pub(crate) struct Connection {
    pub(crate) stream: MptcpStream,
    names: Names,
    config: ConnectionConfig,
}

impl Connection {
    pub(crate) fn facts(&self) -> io::Result<Facts> {
        let status = self.stream.mptcp_status()?;
        Ok(Facts {
            local: self.stream.local_addr(),
            remote: self.stream.peer_addr(),
            mptcp: match status {
                umptcp::MptcpStatus::Negotiating => None,
                other => Some(other.is_active()),
            },
            description: status.to_string(),
            congestion: Some(self.config.congestion.clone()),
            scheduler: Some(self.config.scheduler.clone()),
        })
    }

    /// Bytes the peer has acknowledged.
    pub(crate) fn bytes_acknowledged(&self) -> Option<u64> {
        self.stream.info().ok().map(|info| info.bytes_acked)
    }

    /// The subflows; none once the connection has ended.
    pub(crate) fn subflows(&self) -> Vec<Subflow> {
        let subflows = self.stream.subflows().unwrap_or_default();
        let names = lock(&self.names);
        let name = |path: PathId| names.get(&path).cloned().unwrap_or_else(|| format!("path {}", path.0));
        subflows.into_iter().map(|s| Subflow::new(name(s.path), s)).collect()
    }
}

//! Sets of paths, and the threads that maintain them.

use super::host;
use super::manager::{Command, Manager};
use super::netlink::Netlink;
use super::nft::Nft;
use super::nics::{self, UnusedNic};
use super::record::{self, Registry};
use crate::described::NicInfo;
use crate::described::PathChange;
use crate::described::PathSpec;
use crate::described::SetupOptions;
use crate::device::Tun;
use crate::error::DriverError;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use umptcp_stack_core::device::PathConfig;

/// A path that has been set up.
#[derive(Debug)]
pub struct Path {
    /// Its description for the stack.
    pub config: PathConfig,
    /// Undoes the set-up when dropped.
    pub guard: PathGuard,
    /// Its TUN device.
    pub tun: Tun,
}

impl Path {
    /// Whether its NIC has a route to `destination`; see [`PathGuard::has_route`].
    pub fn has_route(&self, destination: IpAddr) -> Result<bool, DriverError> {
        self.guard.has_route(destination)
    }
}

/// Keeps a path set up. Dropping it undoes the set-up.
#[derive(Debug)]
pub struct PathGuard {
    inner: Arc<Inner>,
    tun: String,
}

impl PathGuard {
    /// Name of the path's TUN device.
    pub fn name(&self) -> &str {
        &self.tun
    }

    /// Whether packets of the stack to `destination`, on-link ones included, would leave through the path's
    /// NIC. Asks the kernel, which takes tens of microseconds.
    pub fn has_route(&self, destination: IpAddr) -> Result<bool, DriverError> {
        self.inner.ask(|reply| Command::HasRoute(self.tun.clone(), destination, reply))?
    }

    /// Which addresses of the stack stand for which of the NIC, in mode `nat`. They change with the NIC's.
    pub fn translations(&self) -> Result<Vec<(IpAddr, IpAddr)>, DriverError> {
        self.inner.ask(|reply| Command::Translations(self.tun.clone(), reply))
    }
}

impl Drop for PathGuard {
    fn drop(&mut self) {
        // Already done if `clean_up` has run.
        let _ = self.inner.ask(|reply| Command::Remove(self.tun.clone(), reply));
    }
}

/// Paths that were set up together.
#[derive(Debug)]
pub struct PathSet {
    /// The paths, in the requested order. They can be moved out and live as long as their guards.
    pub paths: Vec<Path>,
    inner: Arc<Inner>,
    changes: Option<Receiver<PathChange>>,
}

impl PathSet {
    /// Sets up another path. It is returned, not added to `paths`.
    pub fn add(&self, spec: &PathSpec) -> Result<Path, DriverError> {
        let (config, tun) = self.inner.ask(|reply| Command::Add(spec.clone(), reply))??;
        let guard = PathGuard { inner: Arc::clone(&self.inner), tun: tun.name().to_owned() };
        Ok(Path { config, guard, tun })
    }

    /// Ports that translated connections use, reserved on this host. The stack should choose its local ports
    /// from them, so that NAT does not have to change them. `None` if no path is translated.
    ///
    /// They are the first range only: see [`more_ports`](Self::more_ports).
    pub fn port_range(&self) -> Option<RangeInclusive<u16>> {
        self.inner.ask(Command::PortRanges).ok()?.first().map(|(first, last)| *first..=*last)
    }

    /// Reserves more ports for translated connections: as many again as there are, or what is left for
    /// instances of umptcp. Connections go on. Takes some milliseconds.
    ///
    /// # Errors
    /// [`DriverError::PortRange`] if a range was asked for ([`SetupOptions::port_range`]), or none is left.
    pub fn more_ports(&self) -> Result<RangeInclusive<u16>, DriverError> {
        self.inner.ask(Command::MorePorts)?.map(|(first, last)| first..=last)
    }

    /// Directs connections to `port` on the NICs' addresses to the stack, on all translated paths.
    ///
    /// Fails if a program of this host uses the port.
    pub fn listen(&self, port: u16) -> Result<(), DriverError> {
        self.inner.ask(|reply| Command::Listen(port, true, reply))?
    }

    /// Undoes [`PathSet::listen`]. Established connections continue.
    pub fn unlisten(&self, port: u16) -> Result<(), DriverError> {
        self.inner.ask(|reply| Command::Listen(port, false, reply))?
    }

    /// Changes of the paths and NICs. Can be taken only once.
    pub fn changes(&mut self) -> Option<Receiver<PathChange>> {
        self.changes.take()
    }
}

/// Keeps the paths that were set up together as long as one of them is held.
#[derive(Debug)]
struct Inner(Arc<Keeper>);

/// Handle to the thread that maintains paths.
#[derive(Debug)]
struct Keeper {
    commands: UnboundedSender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// All keepers of this process, for [`clean_up`]. Each stays here until everything it did has been undone:
/// the process must not end while another thread is dropping one, or while one is starting.
static KEEPERS: Mutex<Keepers> = Mutex::new(Keepers { all: Vec::new(), ending: false });

struct Keepers {
    all: Vec<Arc<Keeper>>,
    /// No more may start: the process is about to end.
    ending: bool,
}

fn keepers() -> MutexGuard<'static, Keepers> {
    KEEPERS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn start(options: SetupOptions) -> Result<(Arc<Inner>, Receiver<PathChange>), DriverError> {
        let (commands, received) = unbounded();
        // Reading them is optional.
        let (change_sender, changes) = mpsc::sync_channel(1024);
        let (ready_sender, ready) = mpsc::channel();
        let mut keepers = keepers();
        if keepers.ending {
            return Err(DriverError::Gone);
        }
        let thread = std::thread::Builder::new()
            .name("umptcp-paths".into())
            .spawn(move || keep(options, received, change_sender, &ready_sender))
            .map_err(|source| DriverError::Netlink { what: "start a thread".into(), source })?;
        let inner = Inner(Arc::new(Keeper { commands, thread: Mutex::new(Some(thread)) }));
        keepers.all.push(Arc::clone(&inner.0));
        drop(keepers);
        ready.recv().unwrap_or(Err(DriverError::Gone))?;
        Ok((Arc::new(inner), changes))
    }

    fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Result<T, DriverError> {
        self.0.ask(command)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.0.stop();
        keepers().all.retain(|keeper| !Arc::ptr_eq(keeper, &self.0));
    }
}

impl Keeper {
    fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Result<T, DriverError> {
        let (reply, answer) = mpsc::channel();
        self.commands.unbounded_send(command(reply)).map_err(|_| DriverError::Gone)?;
        answer.recv().map_err(|_| DriverError::Gone)
    }

    /// Undoes everything. Returns when that is done, even if another thread has requested it too.
    fn stop(&self) -> Vec<DriverError> {
        let errors = self.ask(Command::Stop).unwrap_or_default();
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            let _ = thread.join();
        }
        errors
    }
}

/// A runtime for this thread: rtnetlink is asynchronous.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, DriverError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|source| DriverError::Netlink { what: "wait for the kernel".into(), source })
}

fn keep(
    options: SetupOptions,
    commands: UnboundedReceiver<Command>,
    changes: SyncSender<PathChange>,
    ready: &Sender<Result<(), DriverError>>,
) {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    runtime.block_on(async {
        match Manager::start(options, changes).await {
            Ok(manager) => {
                let _ = ready.send(Ok(()));
                manager.run(commands).await;
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        }
    });
}

/// Runs `work` on a new thread in the same network namespace: the calling thread may already have a runtime.
pub(super) fn apart<T: Send>(
    work: impl AsyncFnOnce() -> Result<T, DriverError> + Send,
) -> Result<T, DriverError> {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| runtime()?.block_on(work()));
        worker.join().unwrap_or(Err(DriverError::Gone))
    })
}

/// The network devices that can carry a path: those that are up and have carrier, an address and a route.
/// Loopback devices, bridges and tunnels are left out.
pub fn discover() -> Result<Vec<NicInfo>, DriverError> {
    Ok(survey()?.0)
}

/// All network devices: those that can carry a path ([`discover`]), and the others with what they lack.
pub fn survey() -> Result<(Vec<NicInfo>, Vec<UnusedNic>), DriverError> {
    apart(async || {
        let netlink = connect()?;
        Ok(nics::usable(&nics::Snapshot::take(&netlink).await?))
    })
}

pub(super) fn connect() -> Result<Netlink, DriverError> {
    Netlink::connect().map_err(|e| DriverError::netlink("open a netlink connection to the kernel", e))
}

/// Sets up a path for each of `specs`; if one fails, none is set up. With empty `specs`, sets up a path for
/// every usable NIC; those that fail are skipped with a warning as long as one succeeds.
///
/// Leftovers of crashed instances are removed first. Everything happens in the network namespace of the
/// calling thread.
pub fn set_up(specs: &[PathSpec], options: &SetupOptions) -> Result<PathSet, DriverError> {
    let chosen: Vec<PathSpec>;
    let all_or_nothing = !specs.is_empty();
    let specs = if all_or_nothing {
        specs
    } else {
        let (usable, others) = survey()?;
        if usable.is_empty() {
            let seen = others.iter().map(|other| format!("{}: {}", other.name, other.reason)).collect();
            return Err(DriverError::NoDevice { seen });
        }
        for other in others.iter().filter(|other| other.lacks_only_a_route()) {
            let device = &other.name;
            tracing::warn!(
                device,
                "not used, because it has no route; add one (`ip route add ... dev {device}`)"
            );
        }
        chosen = usable.iter().map(|nic| PathSpec::new(&nic.name)).collect();
        &chosen
    };
    let (inner, changes) = Inner::start(options.clone())?;
    let mut set = PathSet { paths: Vec::new(), inner, changes: Some(changes) };
    let mut first_error = None;
    for spec in specs {
        match set.add(spec) {
            Ok(path) => set.paths.push(path),
            Err(error) if all_or_nothing => return Err(error),
            Err(error) => {
                tracing::warn!(device = spec.device, %error, "cannot set up a path over this device");
                first_error = first_error.or(Some(error));
            }
        }
    }
    match first_error {
        Some(error) if set.paths.is_empty() => Err(error),
        _ => Ok(set),
    }
}

/// The directory of what running instances know of one another, which nobody else can write to; made if
/// necessary.
///
/// # Errors
/// [`DriverError::Record`] when none of the places for it will do.
pub fn state_directory() -> Result<PathBuf, DriverError> {
    record::directory(None)
}

/// Undoes what crashed instances have left in this network namespace. Running instances are not affected.
/// Returns a line of text for each record found. [`set_up`] does this first.
pub fn clean_up_leftovers() -> Result<Vec<String>, DriverError> {
    apart(async || {
        let netlink = connect()?;
        let registry = Registry::open(None)?;
        let nft = Nft::find(None).ok();
        host::clean_up_leftovers(&netlink, &registry, nft.as_ref()).await
    })
}

/// Processes that have died and left changes in this network namespace that root alone may undo, when this user is
/// somebody else.
///
/// # Errors
/// [`DriverError::Record`] when none of the places for records will do.
pub fn leftovers_of_root() -> Result<Vec<u32>, DriverError> {
    Ok(Registry::open(None)?.left_to_others(record::OF_ROOT.as_ref()))
}

/// Removes all paths of this process, whoever holds them, and prevents new ones: for signal handling threads,
/// and before `std::process::exit`, which drops nothing. Returns what could not be undone.
pub fn clean_up() -> Vec<DriverError> {
    let all = {
        let mut keepers = keepers();
        keepers.ending = true;
        keepers.all.clone()
    };
    all.iter().flat_map(|keeper| keeper.stop()).collect()
}

//! Paths: for each NIC a TUN device, an address of the stack on it, and that address bound to the NIC.
//!
//! In mode [`Mode::Nat`] the address is private, and packets are masqueraded to the NIC's by a ruleset of nftables. In mode
//! [`Mode::Routed`] it is an address that the network routes to this host, or one in the NIC's own subnet, for which the
//! host then answers (proxy ARP and neighbour discovery); that takes no nftables.
//!
//! Either way a policy rule `from ADDRESS` selects a table that mirrors the NIC's own routes and ends in `unreachable`, so
//! that what is sent from the address leaves by that NIC or not at all.
//!
//! What a path changes on the host:
//!
//! | what | for |
//! |---|---|
//! | rule 1400 `to ADDRESS` and 1401 `from ADDRESS`, to a table of the path's own | packets to the stack go to its TUN device, packets from it by its NIC |
//! | that table | a copy of the NIC's routes, kept in agreement with them; the stack's address; `unreachable` |
//! | rule 1402, `blackhole` for what came in by the TUN device or (mode `routed`) by the NIC otherwise | a host that did not forward does not begin to |
//! | `forwarding` of the NIC (IPv4), `force_forwarding` (IPv6; before Linux 6.17: `forwarding` of all, with accept_ra=2 where router advertisements were accepted, and rule 1403, `blackhole` for the rest) | packets pass between NIC and TUN device |
//! | `arp_ignore`, `arp_announce`, `rp_filter` | another device has an address in the same IPv4 subnet |
//! | a proxy neighbour entry, `proxy_delay`, for IPv6 also `proxy_ndp`, `forwarding`, `accept_ra` of the NIC | an address in the NIC's own subnet is answered for (mode `routed`) |
//! | a table of nftables named after the TUN device | translation, and dropping what conntrack calls invalid (mode `nat`) |
//! | `ip_local_reserved_ports` | the host's sockets leave the ports of translated connections alone (mode `nat`) |
//! | a bound TCP socket per port and address of the NIC | nobody else listens on a port that is forwarded to the stack (mode `nat`) |
//!
//! All of it is noted in a record before it is done, and undone when the path is dropped, by [`clean_up`], or at the next
//! start if the process could not. Settings are put back to what they were before the first of several instances, by the last
//! of them, and only if nobody else has changed them meanwhile.

mod addresses;
mod check;
mod discover;
mod forwarding;
mod host;
mod manager;
mod mirror;
mod netlink;
mod nft;
mod ports;
mod record;
mod spec;
mod sysctl;

pub use discover::NicInfo;
pub use spec::{Mode, PathSpec};

use crate::device::{Offload, Tun};
use crate::error::DriverError;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use manager::{Command, Manager};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use umptcp_stack_core::interface::PathConfig;

/// How paths are set up.
#[derive(Clone, Debug)]
pub struct SetupOptions {
    /// Ports of the NICs' addresses whose connections go to the stack (mode `nat`). Others can be added later:
    /// [`PathSet::listen`].
    pub listen_ports: Vec<u16>,
    /// Segmentation and checksum offload of the TUN devices.
    pub offload: Offload,
    /// Ports that translated connections are to use, within ip_local_port_range. `None`: a free part of it is chosen.
    pub port_range: Option<RangeInclusive<u16>>,
    /// Find out whether a firewall of this host would drop the paths' packets, and fail if so. In mode `nat` a packet is
    /// sent into the path to try, which does not leave the host.
    pub check_firewall: bool,
    /// Let single interfaces forward IPv6, where the kernel can (Linux 6.17). Otherwise all of them do.
    pub force_forwarding: bool,
    /// The `nft` program. `None`: looked for.
    pub nft_program: Option<PathBuf>,
    /// Where the record is kept. `None`: /run/umptcp, $XDG_RUNTIME_DIR/umptcp or a directory beneath that for temporary files,
    /// the first that can be written to.
    pub record_directory: Option<PathBuf>,
}

impl Default for SetupOptions {
    fn default() -> Self {
        SetupOptions {
            listen_ports: Vec::new(),
            offload: Offload::default(),
            port_range: None,
            check_firewall: true,
            force_forwarding: true,
            nft_program: None,
            record_directory: None,
        }
    }
}

/// Something that happened to a path or its NIC. Paths are known by the name of their TUN device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PathChange {
    /// Its NIC is up and has carrier again.
    Up {
        /// The path.
        tun: String,
    },
    /// Its NIC is down or without carrier.
    Down {
        /// The path.
        tun: String,
        /// The device is not there any more.
        gone: bool,
    },
    /// The NIC's addresses changed (mode `nat`).
    Addresses {
        /// The path.
        tun: String,
        /// What peers are to be told now, unless `advertise=` says otherwise.
        advertise: Vec<IpAddr>,
    },
    /// The NIC's routes changed: destinations may have become reachable, or not be any more.
    Routes {
        /// The path.
        tun: String,
    },
    /// The NIC's MTU changed; the TUN device's has followed.
    Mtu {
        /// The path.
        tun: String,
        /// Largest IP packet, in bytes.
        mtu: u16,
    },
    /// A device became usable that carries no path yet.
    NewNic(NicInfo),
}

/// A path that is set up.
#[derive(Debug)]
pub struct Path {
    /// What the stack is to know of it.
    pub config: PathConfig,
    /// Keeps the path: when it is dropped everything is undone.
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

/// What keeps a path set up.
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

    /// Whether packets of the stack to `destination` would leave by the path's NIC, on-link destinations included. Asks the
    /// kernel: tens of microseconds.
    pub fn has_route(&self, destination: IpAddr) -> Result<bool, DriverError> {
        self.inner.ask(|reply| Command::HasRoute(self.tun.clone(), destination, reply))?
    }
}

impl Drop for PathGuard {
    fn drop(&mut self) {
        // Gone already if clean-up has run.
        let _ = self.inner.ask(|reply| Command::Remove(self.tun.clone(), reply));
    }
}

/// Paths that were set up together, and what more can be done.
#[derive(Debug)]
pub struct PathSet {
    /// The paths, in the order they were asked for. They may be taken out, and live as long as their guards.
    pub paths: Vec<Path>,
    inner: Arc<Inner>,
    changes: Option<Receiver<PathChange>>,
}

impl PathSet {
    /// Adds a path. It is returned, not put into `paths`.
    pub fn add(&self, spec: &PathSpec) -> Result<Path, DriverError> {
        let (config, tun) = self.inner.ask(|reply| Command::Add(spec.clone(), reply))??;
        let guard = PathGuard { inner: Arc::clone(&self.inner), tun: tun.name().to_owned() };
        Ok(Path { config, guard, tun })
    }

    /// Ports that translated connections use, reserved on this host: the stack's own local ports are best from the same
    /// range, then they are not changed on the way. `None` without a translated path.
    pub fn port_range(&self) -> Option<RangeInclusive<u16>> {
        self.inner.ask(Command::PortRange).ok().flatten().map(|(first, last)| first..=last)
    }

    /// Lets connections to `port` of the NICs' addresses go to the stack, from now on and on all translated paths.
    ///
    /// Fails if a program of this host listens there.
    pub fn listen(&self, port: u16) -> Result<(), DriverError> {
        self.inner.ask(|reply| Command::Listen(port, true, reply))?
    }

    /// Ends what [`PathSet::listen`] began. Connections that stand go on.
    pub fn unlisten(&self, port: u16) -> Result<(), DriverError> {
        self.inner.ask(|reply| Command::Listen(port, false, reply))?
    }

    /// What happens to the paths and NICs. Can be taken once.
    pub fn changes(&mut self) -> Option<Receiver<PathChange>> {
        self.changes.take()
    }
}

/// Keeps the paths that were set up together until nobody holds one any more.
#[derive(Debug)]
struct Inner(Arc<Keeper>);

/// The thread that keeps paths, from outside.
#[derive(Debug)]
struct Keeper {
    commands: UnboundedSender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// All that live in this process, for [`clean_up`]. Each stays until everything it did has been undone: also one whose last
/// holder is just letting go of it in another thread, or that has only begun, must not be cut short by the end of the process.
static KEEPERS: Mutex<Keepers> = Mutex::new(Keepers { all: Vec::new(), ending: false });

struct Keepers {
    all: Vec<Arc<Keeper>>,
    /// No more may begin: the process is about to end.
    ending: bool,
}

fn keepers() -> MutexGuard<'static, Keepers> {
    KEEPERS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn start(options: SetupOptions) -> Result<(Arc<Inner>, Receiver<PathChange>), DriverError> {
        let (commands, received) = unbounded();
        // Nobody need read them.
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

    /// Undoes everything. Returns when that is done, whoever else has asked for it too.
    fn stop(&self) -> Vec<DriverError> {
        let errors = self.ask(Command::Stop).unwrap_or_default();
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            let _ = thread.join();
        }
        errors
    }
}

/// A runtime of this thread's own: rtnetlink is asynchronous.
fn runtime() -> Result<tokio::runtime::Runtime, DriverError> {
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

/// Runs `work` in a thread of its own, in this thread's network namespace: the caller's may have a runtime already.
fn apart<T: Send>(work: impl AsyncFnOnce() -> Result<T, DriverError> + Send) -> Result<T, DriverError> {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| runtime()?.block_on(work()));
        worker.join().unwrap_or(Err(DriverError::Gone))
    })
}

/// The network devices that can carry a path: up, with carrier, an address and a route; no loopback device, bridge or tunnel.
pub fn discover() -> Result<Vec<NicInfo>, DriverError> {
    apart(async || {
        let netlink = connect()?;
        Ok(discover::usable(&discover::Snapshot::take(&netlink).await?).0)
    })
}

fn connect() -> Result<netlink::Netlink, DriverError> {
    netlink::Netlink::connect()
        .map_err(|e| DriverError::netlink("connect to the kernel's routing (netlink)", e))
}

/// Sets up a path for each of `specs`, or none of them. With no `specs`, a path for every usable NIC: one that cannot have
/// a path after all is left out, with a warning, as long as another can.
///
/// What a crashed instance left is removed first. Everything is done in the network namespace of the calling thread.
pub fn set_up(specs: &[PathSpec], options: &SetupOptions) -> Result<PathSet, DriverError> {
    let chosen: Vec<PathSpec>;
    let all_or_nothing = !specs.is_empty();
    let specs = if all_or_nothing {
        specs
    } else {
        let (usable, seen) = apart(async || {
            let netlink = connect()?;
            Ok(discover::usable(&discover::Snapshot::take(&netlink).await?))
        })?;
        if usable.is_empty() {
            return Err(DriverError::NoDevice { seen });
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
                tracing::warn!(device = spec.device, %error, "no path over this device");
                first_error = first_error.or(Some(error));
            }
        }
    }
    match first_error {
        Some(error) if set.paths.is_empty() => Err(error),
        _ => Ok(set),
    }
}

/// Undoes, in this network namespace, what instances have set up that are gone without having done so themselves. Those that
/// still run are left alone. Answers a line for each record found, for the user to read. [`set_up`] does this first.
pub fn clean_up_leftovers() -> Result<Vec<String>, DriverError> {
    apart(async || {
        let netlink = connect()?;
        let registry = record::Registry::open(None)?;
        let nft = nft::Nft::find(None).ok();
        host::clean_up_leftovers(&netlink, &registry, nft.as_ref()).await
    })
}

/// Takes down all paths of this process, at once, whoever holds them, and lets no more be set up: for a thread that handles
/// signals, and before `std::process::exit`, which drops nothing. Answers what could not be undone.
pub fn clean_up() -> Vec<DriverError> {
    let all = {
        let mut keepers = keepers();
        keepers.ending = true;
        keepers.all.clone()
    };
    all.iter().flat_map(|keeper| keeper.stop()).collect()
}

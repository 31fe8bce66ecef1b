//! Paths that the library itself sets up on this host's NICs and keeps up to date as NICs come and go.

use crate::caps::{Accounts, Capped, LOOK};
use crate::error::Error;
use crate::shared::lock;
use crate::udp_paths::UdpPaths;
use crate::worker::Commands;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::{Duration, Instant};
use umptcp_stack_core::device::Families;
use umptcp_stack_core::device::{PathConfig, SignalPort};
use umptcp_stack_core::path_manager::Uses;
use umptcp_tun_driver::device::DeviceError;
use umptcp_tun_driver::error::DriverError;
use umptcp_tun_driver::event_loop::AttachedPath;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
use umptcp_tun_driver::paths::Path;
use umptcp_tun_driver::paths::{self, Mode, PathChange, PathGuard, PathSet, PathSpec, SetupOptions};
use umptcp_types::PathId;
use umptcp_udp_driver::path::UdpGuard;

/// The paths of a stack on this host's NICs.
pub(crate) struct Nics {
    // Dropped before the set, whose thread undoes their set-up.
    paths: Mutex<Vec<NicPath>>,
    /// What was set up with TUN devices. `None`: nothing, and nothing will be.
    set: Option<Mutex<PathSet>>,
    udp: UdpPaths,
    /// Whoever follows the NICs reaches both by this.
    attached: OnceLock<(Weak<Nics>, Commands)>,
    /// How many listeners use each port. None: it is kept for connections.
    ports: Mutex<HashMap<u16, usize>>,
    /// Those that paths are advertised with, which have one user more for it.
    signal_ports: Mutex<BTreeSet<u16>>,
    /// NICs that become usable later and then get paths, too.
    wanted: Mutex<Wanted>,
    fetching_ports: Mutex<()>,
    /// What has been carried where there is a monthly cap.
    accounts: Arc<Accounts>,
    /// A thread looks at that.
    counting: AtomicBool,
}

/// Reserves more local ports, one thread at a time.
pub(crate) struct FetchingPorts<'a> {
    nics: &'a Nics,
    _alone: MutexGuard<'a, ()>,
}

impl FetchingPorts<'_> {
    pub(crate) fn more(&mut self) -> Result<RangeInclusive<u16>, String> {
        let Some(set) = &self.nics.set else { return Err("every local port is in use".into()) };
        lock(set).more_ports().map_err(|e| e.to_string())
    }
}

/// How often to look whether a port that was kept for connections can be released.
const LOOK_AT_PORTS: Duration = Duration::from_secs(5);
/// How long to wait for other threads to let go of the paths.
const OTHERS_DONE: Duration = Duration::from_secs(5);

/// NICs that have no path yet.
enum Wanted {
    /// Any.
    All,
    /// These, which were named and not usable.
    Named(Vec<PathSpec>),
}

impl Wanted {
    /// Notes one that was named.
    fn add(&mut self, spec: &PathSpec) {
        if let Wanted::Named(specs) = self {
            specs.push(spec.clone());
        }
    }

    /// What to set up on `nic`, which has become usable, if it is wanted.
    fn take(&mut self, nic: &str) -> Vec<PathSpec> {
        match self {
            Wanted::All => vec![PathSpec::new(nic)],
            Wanted::Named(specs) => {
                let (taken, others) = std::mem::take(specs).into_iter().partition(|spec| spec.device == nic);
                *specs = others;
                taken
            }
        }
    }
}

struct NicPath {
    /// What was asked for.
    spec: PathSpec,
    keeper: Keeper,
    config: PathConfig,
    /// The stack's addresses on it, also those that nothing of the NIC's stands for at the moment.
    addresses: Vec<IpAddr>,
    place: Place,
    /// Whether its NIC is up and has carrier.
    up: bool,
    /// The addresses of its NIC that those of the stack stand for; of a family that the NIC has lost, the last
    /// one. `None` until they have changed for the first time.
    nic: Option<Vec<IpAddr>>,
    /// Addresses that the NIC has now, and what to tell peers, while the stack does not know of them.
    news: Option<(Vec<IpAddr>, Vec<IpAddr>)>,
    /// Families of which its NIC has lost its addresses.
    lost: Families,
}

/// Who keeps a path set up.
enum Keeper {
    /// The driver with TUN devices.
    #[cfg_attr(any(not(target_os = "linux"), umptcp_portable), allow(dead_code, reason = "there are none"))]
    Tun(Arc<PathGuard>),
    /// Its sockets.
    Udp(Arc<UdpGuard>),
}

impl Keeper {
    /// The name that changes of the path come with.
    fn name(&self) -> &str {
        match self {
            Keeper::Tun(guard) => guard.name(),
            Keeper::Udp(guard) => guard.name(),
        }
    }

    fn has_route(&self, remote: IpAddr) -> Result<bool, DriverError> {
        match self {
            Keeper::Tun(guard) => guard.has_route(remote),
            Keeper::Udp(guard) => Ok(guard.has_route(remote)),
        }
    }

    /// Which addresses of the stack stand for which of the NIC.
    fn translations(&self) -> Vec<(IpAddr, IpAddr)> {
        match self {
            Keeper::Tun(guard) => guard.translations().unwrap_or_default(),
            Keeper::Udp(_) => Vec::new(),
        }
    }
}

/// Who holds a path.
enum Place {
    /// The stack uses it.
    Attached(PathId),
    /// Kept here, because its NIC is not usable at the moment. `None` while it is being handed to the stack.
    Aside(Option<Box<AttachedPath>>),
}

impl Nics {
    /// Sets up a path for each of `specs`, or for each usable NIC when there are none. Of several `specs`,
    /// those whose NIC is not usable now get their path when it is.
    pub(crate) fn set_up(
        specs: &[PathSpec],
        options: &SetupOptions,
        accounts: Arc<Accounts>,
    ) -> io::Result<Arc<Nics>> {
        let is_udp = |spec: &PathSpec| spec.mode == Mode::Udp;
        let specs = &ways_of(specs, may_administer())[..];
        if !(may_administer() || !specs.is_empty() && specs.iter().all(is_udp)) {
            return Err(Error::NotPermitted.into());
        }
        let udp = UdpPaths::new(&options.listen_ports, options.carry);
        let (set, paths, wanted) = match specs {
            [] => {
                let (set, paths) = set_up_all(options).map_err(io_error)?;
                (Some(set), paths, Wanted::All)
            }
            specs => {
                let Named { set, paths, missing } = set_up_named(specs, options, &udp).map_err(io_error)?;
                (set, paths, Wanted::Named(missing))
            }
        };
        let ports = options.listen_ports.iter().map(|p| (*p, 1)).collect();
        Ok(Arc::new(Nics {
            paths: Mutex::new(paths),
            set: set.map(Mutex::new),
            udp,
            attached: OnceLock::new(),
            ports: Mutex::new(ports),
            signal_ports: Mutex::default(),
            wanted: Mutex::new(wanted),
            fetching_ports: Mutex::new(()),
            accounts,
            counting: AtomicBool::new(false),
        }))
    }

    /// Local ports that the stack should use, so that NAT does not have to change them.
    pub(crate) fn port_range(&self) -> Option<RangeInclusive<u16>> {
        lock(self.set.as_ref()?).port_range()
    }

    /// Waits until nobody else is fetching more of them.
    pub(crate) fn fetching_ports(&self) -> FetchingPorts<'_> {
        FetchingPorts { nics: self, _alone: lock(&self.fetching_ports) }
    }

    /// Gives all paths to the stack and starts a thread that follows changes of the NICs.
    pub(crate) fn attach(self: &Arc<Self>, commands: &Commands) -> io::Result<()> {
        for path in lock(&self.paths).iter_mut() {
            path.attach(commands)?;
        }
        self.open_signal_ports(&ports_of(&lock(&self.paths)))?;
        let _ = self.attached.set((Arc::downgrade(self), commands.clone()));
        self.count(&lock(&self.paths), commands)?;
        if let Some(changes) = self.set.as_ref().and_then(|set| lock(set).changes()) {
            self.follow(changes)?;
        }
        self.follow_udp()
    }

    /// Starts a thread that follows changes.
    fn follow(&self, changes: Receiver<PathChange>) -> io::Result<()> {
        let Some((nics, commands)) = self.attached.get().cloned() else { return Ok(()) };
        let thread = std::thread::Builder::new().name("umptcp-nics".into());
        thread.spawn(move || follow(&nics, &commands, &changes)).map(drop)
    }

    /// Says to the stack what may be carried over NICs with a monthly cap. The first time, starts a thread that does
    /// so from then on.
    fn count(&self, paths: &[NicPath], commands: &Commands) -> io::Result<()> {
        let capped: Vec<Capped> = paths.iter().filter_map(NicPath::capped).collect();
        if capped.is_empty() && self.accounts.is_idle() {
            return Ok(());
        }
        let orders = self.accounts.update(&capped, &commands.passed()?);
        if !orders.is_empty() {
            commands.allow(orders)?;
        }
        if !self.counting.load(Ordering::Relaxed)
            && let Some((nics, commands)) = self.attached.get().cloned()
        {
            let thread = std::thread::Builder::new().name("umptcp-caps".into());
            thread.spawn(move || keep_count(&nics, &commands))?;
            self.counting.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Starts one for paths inside UDP, if there are any and it does not run yet.
    fn follow_udp(&self) -> io::Result<()> {
        if self.udp.is_empty() || self.attached.get().is_none() {
            return Ok(());
        }
        self.udp.changes().map_or(Ok(()), |changes| self.follow(changes))
    }

    /// The stack's addresses on the paths whose NICs have a route to `remote`, in their order; at most
    /// `most`, because each takes a question to the kernel.
    pub(crate) fn addresses_towards(&self, remote: IpAddr, most: usize) -> Vec<IpAddr> {
        let paths = lock(&self.paths);
        let usable = paths.iter().filter(|p| p.is_usable(remote.is_ipv6()));
        let routed = usable.filter_map(|p| {
            let address = p.config.addresses.iter().find(|a| a.is_ipv4() == remote.is_ipv4())?;
            p.keeper.has_route(remote).unwrap_or(false).then_some(*address)
        });
        routed.take(most).collect()
    }

    /// Whether some NIC has two paths, of which one stands in for the other.
    pub(crate) fn has_stand_ins(&self) -> bool {
        lock(&self.paths).iter().any(|path| path.config.stands_in_for.is_some())
    }

    /// Which addresses of the stack stand for which of the NICs.
    pub(crate) fn translations(&self) -> Vec<(IpAddr, IpAddr)> {
        lock(&self.paths).iter().flat_map(|p| p.keeper.translations()).collect()
    }

    /// The stack's address that stands for that of a NIC.
    pub(crate) fn own_address(&self, of_nic: IpAddr) -> Option<IpAddr> {
        if of_nic.is_unspecified() {
            return None;
        }
        self.translations().into_iter().find_map(|(own, nic)| (nic == of_nic).then_some(own))
    }

    /// From now on paths are over these NICs; over every usable one when there are none. Those that are as
    /// they should be stay. `remove` takes a path from the stack and has it forgotten here.
    pub(crate) fn change(
        &self,
        specs: &[PathSpec],
        commands: &Commands,
        remove: impl Fn(PathId) -> io::Result<bool>,
    ) -> io::Result<()> {
        let all = specs.is_empty();
        let usable = if all { paths::discover().map_err(io_error)? } else { Vec::new() };
        let usable: Vec<PathSpec> = usable.iter().map(|nic| PathSpec::new(&nic.name)).collect();
        let specs = ways_of(specs, self.set.is_some());
        let target = if all { &usable[..] } else { &specs[..] };
        self.change_caps(target, commands)?;
        let stays = |path: &NicPath| {
            target.contains(&path.spec) || all && path.spec == PathSpec::new(&path.spec.device)
        };
        // Whoever follows the NICs adds none of the old choice meanwhile.
        *lock(&self.wanted) = Wanted::Named(Vec::new());
        self.udp.await_only(target);
        let leaving = |also: &dyn Fn(&NicPath) -> bool| {
            let mut ids = Vec::new();
            lock(&self.paths).retain(|path| match path.place {
                _ if stays(path) || !also(path) => true,
                Place::Attached(id) => {
                    ids.push(id);
                    true
                }
                Place::Aside(_) => false,
            });
            ids.into_iter().try_for_each(|id| remove(id).map(drop))
        };
        // A path that is to be another one over the same NIC makes room first. The others go last, so that
        // connections have a path all the time.
        leaving(&|path| target.iter().any(|spec| spec.name() == path.spec.name()))?;
        let mut failed = None;
        for spec in target {
            let mut paths = lock(&self.paths);
            if paths.iter().any(|path| path.spec == *spec) {
                continue;
            }
            match self.set_up_path(&mut paths, spec, commands) {
                Ok(_) => {}
                Err(error) if may_pass(&error) => {
                    tracing::warn!(device = spec.device, %error, "this device is used once it can be");
                    // It may be reported at once.
                    lock(&self.wanted).add(spec);
                    self.await_nic(spec);
                }
                Err(error) if spec.of_auto && spec.mode != Mode::Udp => without_native(spec, &error),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        leaving(&|_| true)?;
        match &mut *lock(&self.wanted) {
            wanted if all => *wanted = Wanted::All,
            // One of the old choice may have failed meanwhile.
            Wanted::Named(specs) => specs.retain(|spec| target.contains(spec)),
            Wanted::All => {}
        }
        failed.map_or(Ok(()), |error| Err(io_error(error)))
    }

    /// Paths of which nothing but the caps differs stay, with those: connections go on over them, and what waited
    /// because of a cap goes on with a larger one.
    fn change_caps(&self, target: &[PathSpec], commands: &Commands) -> io::Result<()> {
        let mut paths = lock(&self.paths);
        for path in paths.iter_mut() {
            let but_for_caps = |spec: &&PathSpec| {
                let mut other = (*spec).clone();
                other.caps = path.spec.caps;
                other == path.spec
            };
            let Some(caps) = target.iter().find(but_for_caps).map(|spec| spec.caps) else { continue };
            let before = std::mem::replace(&mut path.spec.caps, caps);
            path.config.connection_cap = caps.connection;
            let Place::Attached(id) = path.place else { continue };
            if before.connection != caps.connection {
                commands.set_connection_cap(id, caps.connection)?;
            }
            if before.month.is_some() && caps.month.is_none() {
                commands.unlimit(id)?;
            }
        }
        self.count(&paths, commands)
    }

    /// Sets up a path and gives it to the stack.
    fn set_up_path(
        &self,
        paths: &mut Vec<NicPath>,
        spec: &PathSpec,
        commands: &Commands,
    ) -> Result<PathId, DriverError> {
        let mut path = self.prepare(spec)?;
        self.open_ports(&ports_of(std::slice::from_ref(&path)))?;
        path.attach(commands).map_err(|_| DriverError::Gone)?;
        let Place::Attached(id) = path.place else { return Err(DriverError::Gone) };
        paths.push(path);
        self.count(paths, commands).map_err(|_| DriverError::Gone)?;
        Ok(id)
    }

    /// Sets up a path that the stack does not know yet.
    fn prepare(&self, spec: &PathSpec) -> Result<NicPath, DriverError> {
        if spec.mode != Mode::Udp {
            let Some(set) = &self.set else { return Err(began_with_udp_only(spec)) };
            return add_to(&mut lock(set), spec);
        }
        let path = NicPath::inside_udp(spec, &self.udp)?;
        self.follow_udp().map_err(|source| DriverError::Netlink { what: "start a thread".into(), source })?;
        Ok(path)
    }

    /// Has a NIC reported when it can carry a path, where the driver with TUN devices does not do it.
    fn await_nic(&self, spec: &PathSpec) {
        if spec.mode == Mode::Udp {
            self.udp.await_nic(spec);
            if let Err(error) = self.follow_udp() {
                tracing::warn!(%error, "cannot follow network devices");
            }
        }
    }

    /// Names of the NICs in use that have an address of `remote`'s family but no route to it.
    pub(crate) fn without_route(&self, remote: IpAddr) -> Vec<String> {
        let paths = lock(&self.paths);
        let fitting = paths
            .iter()
            .filter(|p| p.is_usable(remote.is_ipv6()))
            .filter(|p| p.config.addresses.iter().any(|a| a.is_ipv4() == remote.is_ipv4()));
        let cut_off = fitting.filter(|p| matches!(p.keeper.has_route(remote), Ok(false)));
        cut_off.map(|p| p.config.name.clone()).collect()
    }

    /// Directs connections to a port on the NICs' addresses to the stack.
    pub(crate) fn listen(&self, port: u16) -> io::Result<()> {
        self.use_port(port).map_err(io_error)
    }

    fn use_port(&self, port: u16) -> Result<(), DriverError> {
        let mut ports = lock(&self.ports);
        match ports.get_mut(&port) {
            Some(users) => *users += 1,
            None => {
                self.direct(port)?;
                ports.insert(port, 1);
            }
        }
        Ok(())
    }

    fn direct(&self, port: u16) -> Result<(), DriverError> {
        self.set.as_ref().map_or(Ok(()), |set| lock(set).listen(port))?;
        self.udp.listen(port).inspect_err(|_| self.let_go(port))
    }

    fn let_go(&self, port: u16) {
        self.udp.unlisten(port);
        if let Some(Err(error)) = self.set.as_ref().map(|set| lock(set).unlisten(port)) {
            tracing::warn!(port, %error, "the port stays reserved");
        }
    }

    /// A listener on the port has gone. Connections that it accepted go on, and their peers may join to it:
    /// what is sent to the port comes to the stack as long as there are any (`is_used`).
    pub(crate) fn unlisten(&self, port: u16, is_used: impl Fn(u16) -> bool) {
        if let Some(users) = lock(&self.ports).get_mut(&port) {
            *users = users.saturating_sub(1);
        }
        self.release(is_used);
    }

    /// Has what is sent to ports that paths are advertised with come to the stack. What fails undoes nothing of
    /// what there was.
    fn open_ports(&self, ports: &BTreeSet<u16>) -> Result<(), DriverError> {
        let mut open = lock(&self.signal_ports);
        for port in ports {
            if !open.contains(port) {
                self.use_port(*port)?;
                open.insert(*port);
            }
        }
        Ok(())
    }

    fn open_signal_ports(&self, ports: &BTreeSet<u16>) -> io::Result<()> {
        self.open_ports(ports).map_err(io_error)
    }

    /// No path is advertised any more with ports that are not among these.
    fn close_signal_ports(&self, but: &BTreeSet<u16>, commands: &Commands) {
        let mut gone = Vec::new();
        lock(&self.signal_ports).retain(|port| {
            let stays = but.contains(port);
            gone.extend((!stays).then_some(*port));
            stays
        });
        gone.into_iter().for_each(|port| self.unlisten(port, |port| commands.uses_port(port)));
    }

    /// A path is advertised with these ports from now on.
    pub(crate) fn set_signal_ports(
        &self,
        id: PathId,
        ports: &[SignalPort],
        commands: &Commands,
    ) -> io::Result<()> {
        self.open_signal_ports(&ports.iter().map(|port| port.port).collect())?;
        self.change_config(id, |config| config.signal_ports = ports.to_vec());
        self.close_signal_ports(&ports_of(&lock(&self.paths)), commands);
        Ok(())
    }

    /// Releases ports on which nobody listens, and that no connection needs any more.
    fn release(&self, is_used: impl Fn(u16) -> bool) {
        lock(&self.ports).retain(|port, users| {
            let kept = *users > 0 || is_used(*port);
            if !kept {
                self.let_go(*port);
            }
            kept
        });
    }

    /// Undoes the set-up of all paths. The thread that follows the NICs may be handling a change just now,
    /// and must not be the one to do it, after this has returned.
    pub(crate) fn undo(mut nics: Arc<Nics>) {
        let end = Instant::now() + OTHERS_DONE;
        while Instant::now() < end {
            match Arc::try_unwrap(nics) {
                Ok(_undone_when_dropped) => return,
                Err(shared) => nics = shared,
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sets up a path on one more NIC and gives it to the stack; in mode `auto` two, of which it returns the native one if
    /// there is one.
    pub(crate) fn add(&self, spec: &PathSpec, commands: &Commands) -> io::Result<PathId> {
        let mut first = None;
        for way in ways_of(std::slice::from_ref(spec), self.set.is_some()) {
            match self.add_one(&way, commands) {
                Ok(id) => first = first.or(Some(id)),
                Err(error)
                    if way.of_auto
                        && way.mode != Mode::Udp
                        && error.kind() != io::ErrorKind::AlreadyExists =>
                {
                    tracing::warn!(device = way.device, %error, "mode=auto: this path is inside UDP only");
                }
                Err(error) => return Err(error),
            }
        }
        first.ok_or_else(|| io_error(DriverError::Gone))
    }

    fn add_one(&self, spec: &PathSpec, commands: &Commands) -> io::Result<PathId> {
        let mut paths = lock(&self.paths);
        if paths.iter().any(|p| p.config.name == spec.name()) {
            let text = format!("{} has a path already", spec.device);
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        let id = self.set_up_path(&mut paths, spec, commands).map_err(io_error)?;
        if let Wanted::Named(specs) = &mut *lock(&self.wanted) {
            specs.retain(|wanted| wanted.name() != spec.name());
        }
        Ok(id)
    }

    /// What a path is added as when its NIC comes back.
    pub(crate) fn set_backup(&self, id: PathId, backup: bool) {
        self.change_config(id, |config| config.backup = backup);
    }

    /// The same of what its addresses are for.
    pub(crate) fn set_uses(&self, id: PathId, uses: Uses) {
        self.change_config(id, |config| config.uses = uses);
    }

    fn change_config(&self, id: PathId, change: impl FnOnce(&mut PathConfig)) {
        let mut paths = lock(&self.paths);
        if let Some(path) = paths.iter_mut().find(|p| matches!(p.place, Place::Attached(at) if at == id)) {
            change(&mut path.config);
        }
    }

    /// Forgets a path that the program has removed.
    pub(crate) fn forget(&self, id: PathId, commands: &Commands) {
        let mut paths = lock(&self.paths);
        paths.retain(|p| !matches!(p.place, Place::Attached(at) if at == id));
        let ports = ports_of(&paths);
        drop(paths);
        self.close_signal_ports(&ports, commands);
    }

    /// Sets up what is wanted on a NIC that has become usable. A path that fails keeps none of the others from
    /// theirs, and stays wanted.
    fn on_new_nic(
        &self,
        paths: &mut Vec<NicPath>,
        nic: &str,
        mut set_up: impl FnMut(&mut Vec<NicPath>, &PathSpec) -> Result<PathId, DriverError>,
    ) -> io::Result<()> {
        let specs = lock(&self.wanted).take(nic);
        let mut failed = None;
        for spec in specs {
            // Both drivers may have reported it.
            if paths.iter().any(|path| path.spec == spec) {
                continue;
            }
            tracing::info!(nic, path = spec.name(), "a NIC has become usable");
            if let Err(error) = set_up(paths, &spec) {
                lock(&self.wanted).add(&spec);
                failed = failed.or(Some(error));
            }
        }
        failed.map_or(Ok(()), |error| Err(io_error(error)))
    }

    fn on_change(&self, change: PathChange, commands: &Commands) -> io::Result<()> {
        let mut paths = lock(&self.paths);
        self.on_change_of(&mut paths, change, commands)?;
        // One that has come back waits to be told what it may carry.
        self.count(&paths, commands)
    }

    fn on_change_of(
        &self,
        paths: &mut Vec<NicPath>,
        change: PathChange,
        commands: &Commands,
    ) -> io::Result<()> {
        let find = |paths: &mut Vec<NicPath>, tun: &str| paths.iter().position(|p| p.keeper.name() == tun);
        match change {
            PathChange::Down { tun, gone } => {
                let Some(at) = find(paths, &tun) else { return Ok(()) };
                tracing::info!(path = paths[at].config.name, gone, "the NIC is not usable");
                paths[at].up = false;
                if gone { paths[at].detach(commands) } else { paths[at].settle(commands) }
            }
            PathChange::Up { tun } => {
                let Some(at) = find(paths, &tun) else { return Ok(()) };
                tracing::info!(path = paths[at].config.name, "the NIC is usable again");
                paths[at].up = true;
                paths[at].settle(commands)
            }
            PathChange::Addresses { tun, before, nic, advertise } => {
                let Some(at) = find(paths, &tun) else { return Ok(()) };
                let path = &mut paths[at];
                tracing::info!(path = path.config.name, ?nic, "the NIC's addresses have changed");
                path.nic.get_or_insert(before);
                path.take_over(&nic);
                path.lost = Families::of(&path.addresses).and(Families::of(&nic).others());
                path.news = Some((nic, advertise));
                path.settle(commands)
            }
            PathChange::Mtu { tun, mtu } => {
                // Established subflows learn by ICMP from the kernel that their packets no longer fit.
                if let Some(at) = find(paths, &tun) {
                    let config = &mut paths[at].config;
                    if config.max_packet == u32::from(config.mtu) {
                        config.max_packet = u32::from(mtu);
                    }
                    config.mtu = mtu;
                }
                Ok(())
            }
            PathChange::NewNic(nic) => {
                self.on_new_nic(paths, &nic.name, |paths, spec| self.set_up_path(paths, spec, commands))
            }
            // A NIC may get its routes some seconds after its address (DHCP): what could not be reached then
            // is tried again now.
            PathChange::Routes { tun } => match find(paths, &tun).map(|at| &paths[at].place) {
                Some(Place::Attached(id)) => commands.path_changed(*id),
                _ => Ok(()),
            },
            // The stack notices silence by itself; the driver has logged the cause.
            PathChange::Silent { .. } => Ok(()),
        }
    }
}

/// The ports that paths are advertised with.
fn ports_of(paths: &[NicPath]) -> BTreeSet<u16> {
    paths.iter().flat_map(|path| &path.config.signal_ports).map(|port| port.port).collect()
}

impl std::fmt::Debug for Nics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nics").field("ports", &self.ports).finish_non_exhaustive()
    }
}

impl NicPath {
    #[cfg(all(target_os = "linux", not(umptcp_portable)))]
    fn new(spec: PathSpec, path: Path) -> Self {
        let Path { config, guard, tun } = path;
        let guard = Arc::new(guard);
        let attached = AttachedPath {
            device: Box::new(tun),
            config: config.clone(),
            // The set-up is undone when the last of the two is dropped.
            guard: Box::new(Arc::clone(&guard)),
        };
        NicPath::keeping(spec, Keeper::Tun(guard), config, attached)
    }

    /// A path inside UDP.
    fn inside_udp(spec: &PathSpec, udp: &UdpPaths) -> Result<NicPath, DriverError> {
        let (config, attached, guard) = udp.set_up(spec)?;
        Ok(NicPath::keeping(spec.clone(), Keeper::Udp(guard), config, attached))
    }

    fn keeping(spec: PathSpec, keeper: Keeper, config: PathConfig, attached: AttachedPath) -> NicPath {
        let addresses = config.addresses.clone();
        NicPath {
            spec,
            keeper,
            config,
            addresses,
            place: Place::Aside(Some(Box::new(attached))),
            up: true,
            nic: None,
            news: None,
            lost: Families::default(),
        }
    }

    /// Where the stack has the NIC's own addresses, it has these now, and still the last one of a family that
    /// the NIC has lost.
    fn take_over(&mut self, nic: &[IpAddr]) {
        if let Keeper::Udp(_) = self.keeper {
            let lost = Families::of(nic).others();
            self.addresses.retain(|address| lost.has(address.is_ipv6()));
            self.addresses.extend(nic);
        }
    }

    /// The stack's addresses of those families of which its NIC has one: the others would be neither
    /// translated nor known to anybody.
    fn translated(&self, nic: &[IpAddr]) -> Vec<IpAddr> {
        let fits = |own: &&IpAddr| nic.iter().any(|a| a.is_ipv6() == own.is_ipv6());
        self.addresses.iter().filter(fits).copied().collect()
    }

    /// The stack has it, and its NIC works for addresses of this family.
    fn is_usable(&self, v6: bool) -> bool {
        !self.down().has(v6) && matches!(self.place, Place::Attached(_))
    }

    /// The families of which nothing gets through by its NIC.
    fn down(&self) -> Families {
        if self.up { self.lost } else { Families::BOTH }
    }

    /// Gives the path to the stack, or has the stack do without it for now, or without addresses of a family,
    /// as its NIC is usable or not. The link and the addresses come and go independently of each other, so
    /// what was before does not matter.
    fn settle(&mut self, commands: &Commands) -> io::Result<()> {
        let down = self.down();
        let useless = Families::of(&self.addresses).and(down.others()).is_empty();
        let attached = match self.place {
            Place::Attached(id) => Some(id),
            Place::Aside(_) => None,
        };
        if useless {
            return attached.map_or(Ok(()), |id| commands.path_down(id, down));
        }
        let changed = self.take_news(attached.is_some());
        let Some(id) = attached else { return self.attach(commands) };
        if let Some(moved) = changed {
            commands.readdress_path(id, &self.config, moved)?;
        }
        commands.path_down(id, down)
    }

    /// Takes over the addresses that the NIC has now. Connections translated to another address than before
    /// are lost in any case. Those of the other family are not: with a link that comes up, IPv6's address
    /// follows IPv4's by a moment. One that comes back as it was is the same: connections go on. Those of a
    /// family of which the NIC has lost its address are kept for that, if the stack has any (`keep`).
    fn take_news(&mut self, keep: bool) -> Option<Families> {
        let (mut nic, mut advertise) = self.news.take()?;
        let before = self.nic.take().unwrap_or_default();
        let moved = |v6| {
            let of = |a: &[IpAddr]| a.iter().copied().find(|a| a.is_ipv6() == v6);
            !self.lost.has(v6) && of(&before) != of(&nic)
        };
        let moved = Families { ipv4: moved(false), ipv6: moved(true) };
        if keep {
            let lost = |a: &&IpAddr| self.lost.has(a.is_ipv6());
            nic.extend(before.iter().filter(lost));
            advertise.extend(self.config.advertise.iter().filter(lost));
        }
        let addresses = self.translated(&nic);
        self.nic = Some(nic);
        if moved.is_empty() && (&addresses, &advertise) == (&self.config.addresses, &self.config.advertise) {
            return None;
        }
        self.config.addresses = addresses;
        self.config.advertise = advertise;
        Some(moved)
    }

    /// Gives the path to the stack, unless the stack has it already.
    fn attach(&mut self, commands: &Commands) -> io::Result<()> {
        let Place::Aside(aside) = &mut self.place else { return Ok(()) };
        let Some(mut path) = aside.take() else { return Ok(()) };
        path.config = self.config.clone();
        // None, until it is known how much has been carried in this month.
        path.config.allowance = self.spec.caps.month.map(|_| 0);
        self.place = Place::Attached(commands.add_path(*path)?);
        Ok(())
    }

    /// It is one with a monthly cap, and the stack has it.
    fn capped(&self) -> Option<Capped> {
        match self.place {
            Place::Attached(id) => {
                Some(Capped { id, name: self.config.name.clone(), cap: self.spec.caps.month? })
            }
            Place::Aside(_) => None,
        }
    }

    /// Takes the path back from the stack, if the stack has it.
    fn detach(&mut self, commands: &Commands) -> io::Result<()> {
        let Place::Attached(id) = self.place else { return Ok(()) };
        self.place = Place::Aside(commands.remove_path(id)?.map(Box::new));
        Ok(())
    }
}

/// The paths to set up for these: in mode `auto` two each, or without the privilege for native ones the one inside UDP.
fn ways_of(specs: &[PathSpec], native: bool) -> Vec<PathSpec> {
    for spec in specs.iter().filter(|spec| spec.mode == Mode::Auto && !native) {
        tracing::info!(
            device = spec.device,
            "mode=auto: native packets take CAP_NET_ADMIN, so this path is inside UDP only"
        );
    }
    specs.iter().flat_map(|spec| spec.ways(native)).collect()
}

/// Of a path in mode `auto` the native one cannot be had.
fn without_native(spec: &PathSpec, error: &DriverError) {
    tracing::warn!(device = spec.device, %error, "mode=auto: this path is inside UDP only");
}

/// What was set up on NICs that were named.
struct Named {
    set: Option<PathSet>,
    paths: Vec<NicPath>,
    /// Those whose NIC is not usable yet.
    missing: Vec<PathSpec>,
}

/// Sets up a path for each of `specs` whose NIC is usable now, at least for one.
fn set_up_named(specs: &[PathSpec], options: &SetupOptions, udp: &UdpPaths) -> Result<Named, DriverError> {
    let (mut set, mut paths): (Option<PathSet>, Vec<NicPath>) = (None, Vec::new());
    let mut missing: Vec<(&PathSpec, DriverError)> = Vec::new();
    for spec in specs {
        let is_udp = spec.mode == Mode::Udp;
        if is_udp && paths.iter().any(|path| path.spec.name() == spec.name()) {
            let reason = "mode=udp is given twice for it".into();
            return Err(DriverError::UnsuitableDevice { device: spec.device.clone(), reason });
        }
        let added = match &mut set {
            _ if is_udp => NicPath::inside_udp(spec, udp),
            Some(set) => add_to(set, spec),
            None => set_up_first(spec, options).map(|(first, path)| {
                set = Some(first);
                path
            }),
        };
        match added {
            Ok(path) => paths.push(path),
            Err(error) if may_pass(&error) => missing.push((spec, error)),
            Err(error) if spec.of_auto && !is_udp => without_native(spec, &error),
            Err(error) => return Err(error),
        }
    }
    if paths.is_empty() {
        let first = missing.into_iter().next().map(|(_, error)| error);
        return Err(first.unwrap_or(DriverError::NoDevice { seen: Vec::new() }));
    }
    for (spec, error) in &missing {
        tracing::warn!(device = spec.device, %error, "starting without this device; it is used once it can be");
        if spec.mode == Mode::Udp {
            udp.await_nic(spec);
        }
    }
    Ok(Named { set, paths, missing: missing.into_iter().map(|(spec, _)| spec.clone()).collect() })
}

/// One more path with a TUN device.
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
fn add_to(set: &mut PathSet, spec: &PathSpec) -> Result<NicPath, DriverError> {
    Ok(NicPath::new(spec.clone(), set.add(spec)?))
}

/// There is none in the portable build, as there is no set.
#[cfg(any(not(target_os = "linux"), umptcp_portable))]
fn add_to(set: &mut PathSet, _spec: &PathSpec) -> Result<NicPath, DriverError> {
    match *set {}
}

/// The first path with a TUN device, and the set that others are added to.
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
fn set_up_first(spec: &PathSpec, options: &SetupOptions) -> Result<(PathSet, NicPath), DriverError> {
    let mut set = paths::set_up(std::slice::from_ref(spec), options)?;
    let path = set.paths.pop().ok_or(DriverError::Gone)?;
    Ok((set, NicPath::new(spec.clone(), path)))
}

#[cfg(any(not(target_os = "linux"), umptcp_portable))]
fn set_up_first(spec: &PathSpec, options: &SetupOptions) -> Result<(PathSet, NicPath), DriverError> {
    match paths::set_up(std::slice::from_ref(spec), options)? {}
}

/// A path with a TUN device for every usable NIC.
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
fn set_up_all(options: &SetupOptions) -> Result<(PathSet, Vec<NicPath>), DriverError> {
    let mut set = paths::set_up(&[], options)?;
    let all = set.paths.drain(..);
    let paths = all.map(|path| NicPath::new(PathSpec::new(&path.config.name), path)).collect();
    Ok((set, paths))
}

#[cfg(any(not(target_os = "linux"), umptcp_portable))]
fn set_up_all(options: &SetupOptions) -> Result<(PathSet, Vec<NicPath>), DriverError> {
    match paths::set_up(&[], options)? {}
}

fn began_with_udp_only(spec: &PathSpec) -> DriverError {
    let reason = "this instance began with paths of mode=udp only".into();
    DriverError::UnsuitableDevice { device: spec.device.clone(), reason }
}

/// Whether the NIC is as it should be at another time: down, unplugged, without a lease.
fn may_pass(error: &DriverError) -> bool {
    matches!(
        error,
        DriverError::DeviceDown { .. } | DriverError::NoAddress { .. } | DriverError::NoRoute { .. }
    )
}

/// Whether this thread has CAP_NET_ADMIN, without which each step would fail with its own message. True if
/// that cannot be found out.
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
fn may_administer() -> bool {
    const NET_ADMIN: u32 = 12;
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    effective.is_none_or(|set| set >> NET_ADMIN & 1 == 1)
}

/// There is nothing to administer.
#[cfg(any(not(target_os = "linux"), umptcp_portable))]
fn may_administer() -> bool {
    true
}

/// Runs until the set of paths is dropped.
fn follow(nics: &Weak<Nics>, commands: &Commands, changes: &Receiver<PathChange>) {
    let mut looked = Instant::now();
    loop {
        let change = match changes.recv_timeout(LOOK_AT_PORTS) {
            Ok(change) => Some(change),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let Some(nics) = nics.upgrade() else { return };
        if let Some(change) = change
            && let Err(error) = nics.on_change(change, commands)
        {
            tracing::warn!(%error, "cannot handle a NIC change");
        }
        if looked.elapsed() >= LOOK_AT_PORTS {
            looked = Instant::now();
            nics.release(|port| commands.uses_port(port));
            nics.udp.close_unused(|| commands.local_addresses());
        }
    }
}

/// Runs until the set of paths is dropped, or the worker ends.
fn keep_count(nics: &Weak<Nics>, commands: &Commands) {
    loop {
        std::thread::sleep(LOOK);
        let Some(nics) = nics.upgrade() else { return };
        let paths = lock(&nics.paths);
        if nics.count(&paths, commands).is_err() {
            return;
        }
    }
}

/// Not a `From`: programs that set up paths themselves see the `DriverError`.
pub(crate) fn io_error(e: DriverError) -> io::Error {
    use io::ErrorKind as Kind;
    let kind = match &e {
        DriverError::Spec { .. } | DriverError::BadAddress { .. } | DriverError::AddressRequired { .. } => {
            Kind::InvalidInput
        }
        DriverError::UnknownDevice { .. } | DriverError::NoDevice { .. } | DriverError::NoNft { .. } => {
            Kind::NotFound
        }
        DriverError::DeviceDown { .. } => Kind::NetworkDown,
        DriverError::NoAddress { .. } => Kind::AddrNotAvailable,
        DriverError::NoRoute { .. } => Kind::NetworkUnreachable,
        DriverError::AddressTaken { .. } | DriverError::PortInUse { .. } => Kind::AddrInUse,
        DriverError::Permission { .. } | DriverError::Device(DeviceError::Permission { .. }) => {
            Kind::PermissionDenied
        }
        DriverError::NatUnsupported { .. } => Kind::Unsupported,
        DriverError::Gone => Error::Stopped.kind(),
        _ => Kind::Other,
    };
    io::Error::new(kind, e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_fails_keeps_none_of_the_others_over_its_nic_from_theirs() {
        let spec = |text: &str| text.parse::<PathSpec>().unwrap();
        let wanted =
            ["nic0,weight=2", "nic1", "nic0,mode=udp", "nic0,address=192.0.2.1,mode=routed"].map(spec);
        let nics = Nics {
            paths: Mutex::new(Vec::new()),
            set: None,
            udp: UdpPaths::new(&[], false),
            attached: OnceLock::new(),
            ports: Mutex::new(HashMap::new()),
            wanted: Mutex::new(Wanted::Named(wanted.to_vec())),
            fetching_ports: Mutex::new(()),
            accounts: Arc::new(Accounts::new(Vec::new())),
            counting: AtomicBool::new(false),
            signal_ports: Mutex::default(),
        };
        let left = |nics: &Nics| match &*lock(&nics.wanted) {
            Wanted::Named(specs) => specs.iter().map(PathSpec::to_string).collect(),
            Wanted::All => Vec::new(),
        };
        let mut seen = Vec::new();
        let result = nics.on_new_nic(&mut Vec::new(), "nic0", |_, spec| {
            seen.push(spec.to_string());
            match spec.mode {
                Mode::Nat => Err(DriverError::NoAddress { device: spec.device.clone() }),
                Mode::Routed => Err(DriverError::Gone),
                Mode::Udp | Mode::Auto => Ok(PathId(1)),
            }
        });
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable, "the first");
        assert_eq!(seen, [0, 2, 3].map(|i| wanted[i].to_string()));
        assert_eq!(left(&nics), [1, 0, 3].map(|i| wanted[i].to_string()));
        nics.on_new_nic(&mut Vec::new(), "nic0", |_, _| Ok(PathId(2))).unwrap();
        assert_eq!(left(&nics), ["nic1"]);
    }
}

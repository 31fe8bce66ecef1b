//! The thread that sets up paths, keeps them in sync with their NICs, and removes them.
//!
//! Everything happens on one thread, which stays in the network namespace of the thread that started it:
//! netlink sockets, /proc/sys and the `nft` program all depend on it.

mod follow;
mod share;
mod silence;
mod tables;

use crate::described::PathChange;
use crate::described::SetupOptions;
use crate::described::{Mode, PathSpec};
use crate::device::{Tun, TunOptions};
use crate::error::DriverError;
use crate::paths::addresses::{self, Known};
use crate::paths::check::{self, Prober};
use crate::paths::forwarding::{self, Forwarding};
use crate::paths::host::{self, Changes};
use crate::paths::mirror;
use crate::paths::netlink::{self, Link, Netlink, Notifications, Route, Rule};
use crate::paths::nft::{self, Nft};
use crate::paths::nics::{self, Snapshot};
use crate::paths::ports::{HeldPort, Ports};
use crate::paths::record::{Entry, HostChange, Record, Registry, RegistryLock};
use crate::paths::rules;
use crate::paths::translate::{self, Slots};
use crate::paths::watch::{self, RulesetChange};
use futures::channel::mpsc::UnboundedReceiver;
use futures::stream::{self, StreamExt};
use ipnet::IpNet;
use rtnetlink::packet_core::NetlinkPayload;
use silence::{TICK, Traffic};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::mpsc::{Sender, SyncSender};
use std::time::Duration;
use tables::{hold_ports, install_table};
use tokio::time::Instant;
use umptcp_stack_core::device::{PathConfig, PathKind};

/// Priorities of our rules, before `main` (32766) and the rules of VPN software. For packets to an address of
/// the stack.
const TO_STACK: u32 = 1400;
/// For packets from it.
const FROM_STACK: u32 = 1401;
/// For other packets from a TUN device, or from a NIC that did not forward before: these are dropped.
const STRAY: u32 = 1402;
/// Base of our table numbers. The TUN device's index is added, which differs between instances.
const TABLES: u32 = 0x756d_0000;
/// How long to wait for duplicate address detection.
const DAD_PATIENCE: Duration = Duration::from_secs(3);
/// How long to try to undo everything at exit, and how often.
const LAST_PATIENCE: Duration = Duration::from_secs(3);
const BREATH: Duration = Duration::from_millis(200);
/// How long to wait for more changes, which come in bursts.
const SETTLE: Duration = Duration::from_millis(20);
/// How often to check without a notification: one may have been lost.
const RECHECK: Duration = Duration::from_secs(30);

/// A request of the paths' owner; each is answered once.
pub(super) enum Command {
    Add(PathSpec, Sender<Result<(PathConfig, Tun), DriverError>>),
    Remove(String, Sender<()>),
    HasRoute(String, IpAddr, Sender<Result<bool, DriverError>>),
    Translations(String, Sender<Vec<(IpAddr, IpAddr)>>),
    Listen(u16, bool, Sender<Result<(), DriverError>>),
    PortRanges(Sender<Vec<Ports>>),
    MorePorts(Sender<Result<Ports, DriverError>>),
    Stop(Sender<Vec<DriverError>>),
}

/// A path that is set up.
struct Installed {
    /// Name of the TUN device, which identifies the path.
    tun: String,
    tun_index: u32,
    nic: String,
    /// `None` while the device does not exist.
    nic_index: Option<u32>,
    mode: Mode,
    /// The address to advertise, whatever the NIC's are.
    advertise: Option<IpAddr>,
    addresses: Vec<IpAddr>,
    /// Networks that contain all the stack's addresses, aliases too.
    nets: Vec<IpNet>,
    /// Those of `addresses` that the NIC answers for.
    proxied: Vec<IpAddr>,
    table: u32,
    /// The NIC's addresses that packets are translated to.
    nic_addresses: Vec<IpAddr>,
    /// Which of the stack's addresses each of them stands for.
    slots: Slots,
    /// Destinations with another source than the NIC's first address.
    sources: Vec<(IpNet, IpAddr)>,
    /// Translation does without connection tracking.
    stateless: bool,
    /// Other protocols than TCP are translated, too.
    carry: bool,
    forwarding: Forwarding,
    held: Vec<HeldPort>,
    usable: bool,
    mtu: u32,
    /// Tests whether its packets pass the host's firewall.
    prober: Prober,
    /// The firewall drops its packets, as the last test says.
    blocked: bool,
    /// Its table was lost and could not be put back: forwarding is off until it is.
    shut: bool,
    /// Its settings must be applied to the NIC once more: it has been renamed, say.
    unapplied: bool,
    /// Priority of its first rule.
    rules_at: u32,
    traffic: Traffic,
}

impl Installed {
    /// Routes to the stack's addresses via the TUN device.
    fn own_routes(&self) -> Vec<Route> {
        self.nets.iter().map(|net| Route::to(*net, self.tun_index)).collect()
    }

    /// Where its packets must go, by the NIC that has this index.
    fn direction(&self, nic_index: u32) -> rules::Direction<'_> {
        rules::Direction {
            tun: &self.tun,
            tun_index: self.tun_index,
            nic_index,
            table: self.table,
            addresses: &self.addresses,
        }
    }

    fn has(&self, v6: bool) -> bool {
        self.addresses.iter().any(|a| a.is_ipv6() == v6)
    }

    fn closed(&self) -> Vec<&'static str> {
        let mut closed = Vec::new();
        if self.forwarding.closed_v4 {
            closed.push("ipv4");
        }
        if self.forwarding.closed_v6 {
            closed.push("ipv6");
        }
        closed
    }
}

/// The thread's state.
pub(super) struct Manager {
    netlink: Netlink,
    notifications: Option<Notifications>,
    registry: Registry,
    record: Option<Record>,
    options: SetupOptions,
    nft: Option<Nft>,
    listen: BTreeSet<u16>,
    /// The ports of translated connections, in ranges: the first one, and what had to be added.
    ranges: Vec<Ports>,
    paths: Vec<Installed>,
    changes: SyncSender<PathChange>,
    /// NICs that could carry a path when last checked.
    nics: Vec<String>,
    /// The ruleset may no longer contain our tables.
    tables_lost: bool,
    /// The host's firewall may treat our packets differently.
    firewall_changed: bool,
}

/// Addresses chosen for a path; see [`Installed`].
#[derive(Default)]
struct Chosen {
    addresses: Vec<IpAddr>,
    aliases: Vec<IpAddr>,
    nets: Vec<IpNet>,
}

enum Turn {
    Command(Command),
    Changed,
    /// The nftables ruleset changed.
    Ruleset(RulesetChange),
    Closed,
}

impl Manager {
    /// Connects to the kernel. Must be called in a tokio runtime.
    pub(super) async fn start(
        options: SetupOptions,
        changes: SyncSender<PathChange>,
    ) -> Result<Manager, DriverError> {
        let connect = |e| DriverError::netlink("connect to the kernel's routing (netlink)", e);
        let netlink = Netlink::connect().map_err(connect)?;
        let notifications = Netlink::subscribe().map_err(connect)?;
        let registry = Registry::open(options.record_directory.as_deref())?;
        // `nft` may be missing: it is needed only for leftovers of translated paths.
        let nft = Nft::find(options.nft_program.as_deref()).ok();
        host::clean_up_leftovers(&netlink, &registry, nft.as_ref()).await?;
        let lock = registry.lock()?;
        let record = registry.create(&lock)?;
        drop(lock);
        let usable = nics::usable(&Snapshot::take(&netlink).await?).0;
        let listen = options.listen_ports.iter().copied().collect();
        Ok(Manager {
            netlink,
            notifications: Some(notifications),
            registry,
            record: Some(record),
            options,
            nft,
            listen,
            ranges: Vec::new(),
            paths: Vec::new(),
            changes,
            nics: usable.into_iter().map(|nic| nic.name).collect(),
            tables_lost: false,
            firewall_changed: false,
        })
    }

    /// Executes commands and follows the kernel's notifications until told to stop.
    pub(super) async fn run(mut self, commands: UnboundedReceiver<Command>) {
        let Some(notifications) = self.notifications.take() else { return };
        let changed = notifications.filter_map(|(message, _)| async move {
            // Ignore changes of our own routes.
            let ours = matches!(&message.payload, NetlinkPayload::InnerMessage(m) if netlink::is_ours(m));
            (!ours).then_some(Turn::Changed)
        });
        let commands = commands.map(Turn::Command).chain(stream::iter([Turn::Closed]));
        let ruleset = match watch::ruleset_changes() {
            Ok(changes) => changes.map(Turn::Ruleset).left_stream(),
            // A kernel without nftables. It can have no translated paths either.
            Err(error) => {
                tracing::debug!(%error, "cannot watch the nftables ruleset");
                stream::empty().right_stream()
            }
        };
        let changed = stream::select(changed, ruleset);
        let mut turns = std::pin::pin!(stream::select(commands, changed));
        let (mut next_check, mut settle) = (Instant::now() + RECHECK, SETTLE);
        let mut next_look = Instant::now() + TICK;
        loop {
            match tokio::time::timeout_at(next_check.min(next_look), turns.next()).await {
                Ok(Some(Turn::Command(Command::Stop(reply)))) => {
                    let _ = reply.send(self.stop().await);
                    return;
                }
                Ok(Some(Turn::Command(command))) => self.serve(command).await,
                Ok(Some(Turn::Changed)) => next_check = next_check.min(Instant::now() + settle),
                Ok(Some(Turn::Ruleset(change))) => {
                    let lost = self.paths.iter().any(|p| change.deleted.contains(&p.tun));
                    // A flush may be the beginning of other rules.
                    self.tables_lost |= lost || change.foreign;
                    self.firewall_changed |= change.foreign;
                    if lost {
                        // Whatever came before took: until the table is back, the host resets what arrives.
                        next_check = Instant::now();
                    } else if change.foreign {
                        next_check = next_check.min(Instant::now() + settle);
                    }
                }
                Ok(Some(Turn::Closed) | None) => {
                    self.stop().await;
                    return;
                }
                Err(_) if next_look < next_check => {
                    self.look_for_silence().await;
                    next_look = Instant::now() + TICK;
                }
                Err(_) => {
                    let start = Instant::now();
                    next_check = start + RECHECK;
                    if let Err(error) = self.follow().await {
                        tracing::warn!(%error, "cannot update paths to match their NICs");
                        next_check = start + Duration::from_secs(1);
                    }
                    // Limits the time spent here when there are many routes that change constantly.
                    settle = SETTLE.max(4 * start.elapsed());
                }
            }
        }
    }

    async fn serve(&mut self, command: Command) {
        // The requester may be gone by now.
        match command {
            Command::Add(spec, reply) => {
                let _ = reply.send(self.add(&spec).await);
            }
            Command::Remove(tun, reply) => {
                self.remove(&tun).await;
                let _ = reply.send(());
            }
            Command::Translations(tun, reply) => {
                let path = self.paths.iter().find(|p| p.tun == tun);
                let _ = reply.send(path.map(|p| p.slots.pairs().collect()).unwrap_or_default());
            }
            Command::HasRoute(tun, destination, reply) => {
                let _ = reply.send(self.has_route(&tun, destination).await);
            }
            Command::Listen(port, on, reply) => {
                let _ = reply.send(self.listen(port, on));
            }
            Command::PortRanges(reply) => {
                let _ = reply.send(self.stack_ranges());
            }
            Command::MorePorts(reply) => {
                let _ = reply.send(self.more_ports().await);
            }
            Command::Stop(_) => {}
        }
    }

    /// A snapshot in which the addresses of `device` have passed duplicate address detection.
    async fn settled_snapshot(&self, device: &str) -> Result<Snapshot, DriverError> {
        let mut waited = Duration::ZERO;
        loop {
            let snapshot = Snapshot::take(&self.netlink).await?;
            let index = nics::named(&snapshot, device)?.index;
            let unsettled = snapshot.addresses.iter().any(|a| a.index == index && a.universal && a.tentative);
            if !unsettled || waited >= DAD_PATIENCE {
                return Ok(snapshot);
            }
            let step = Duration::from_millis(100);
            tokio::time::sleep(step).await;
            waited += step;
        }
    }

    /// The stack's addresses for `spec`.
    fn choose_addresses(
        &self,
        spec: &PathSpec,
        nic: &Link,
        snapshot: &Snapshot,
    ) -> Result<Chosen, DriverError> {
        let known =
            Known { links: &snapshot.links, addresses: &snapshot.addresses, routes: &snapshot.routes };
        let device = || spec.device.clone();
        let destinations = snapshot.destinations(nic.index);
        let routed = |v6: bool| destinations.iter().any(|net| net.addr().is_ipv6() == v6);
        let translatable = snapshot.translatable(nic.index);
        let mut chosen = Chosen { addresses: spec.addresses.clone(), ..Chosen::default() };
        for &address in &spec.addresses {
            known.check(nic, address, spec.mode == Mode::Nat)?;
            if !routed(address.is_ipv6()) {
                let family = if address.is_ipv6() { " for IPv6" } else { " for IPv4" };
                return Err(DriverError::NoRoute { device: device(), family });
            }
            if spec.mode == Mode::Nat && !translatable.iter().any(|a| a.is_ipv6() == address.is_ipv6()) {
                return Err(DriverError::NoAddress { device: device() });
            }
        }
        chosen.nets = spec.addresses.iter().map(|a| IpNet::from(*a)).collect();
        if spec.mode == Mode::Routed {
            let missing = chosen.addresses.is_empty();
            return if missing { Err(DriverError::AddressRequired { device: device() }) } else { Ok(chosen) };
        }
        if chosen.addresses.is_empty() && translatable.is_empty() {
            return Err(DriverError::NoAddress { device: device() });
        }
        for v6 in [false, true] {
            let given = spec.addresses.iter().any(|a| a.is_ipv6() == v6);
            let usable = routed(v6) && translatable.iter().any(|a| a.is_ipv6() == v6);
            if !given && (!usable || !spec.addresses.is_empty()) {
                continue;
            }
            let block = known.private(nic, v6)?;
            if !given {
                chosen.addresses.push(block.own);
            }
            chosen.aliases.extend(block.aliases);
            chosen.nets.push(block.net);
        }
        if chosen.addresses.is_empty() {
            return Err(DriverError::NoRoute { device: device(), family: "" });
        }
        Ok(chosen)
    }

    /// Checks that no other host has an address that was chosen for the stack. Also with translation, where
    /// nobody on the link would notice: packets to the owner of the address would come to the stack instead.
    /// This takes a second, so other instances are not kept waiting meanwhile.
    async fn check_links(&self, spec: &PathSpec, snapshot: &Snapshot) -> Result<(), DriverError> {
        let nic = nics::named(snapshot, &spec.device)?;
        // What is wrong on this host is said before anybody is asked.
        self.choose_addresses(spec, nic, snapshot)?;
        let known =
            Known { links: &snapshot.links, addresses: &snapshot.addresses, routes: &snapshot.routes };
        let given = spec.addresses.iter();
        let links = given.flat_map(|address| known.links_of(address).map(move |link| (link, *address)));
        let checks = links.map(async |(link, address)| {
            match addresses::check_link(&self.netlink, link, address).await {
                Err(error @ DriverError::AddressTaken { .. }) => Err(error),
                // The NIC will have to answer for it. Other devices need not know neighbours.
                Err(error) if link.index == nic.index && spec.mode == Mode::Routed => Err(error),
                _ => Ok(()),
            }
        });
        futures::future::try_join_all(checks).await.map(drop)
    }

    /// Sets up a path. On failure, everything done for it is undone.
    async fn add(&mut self, spec: &PathSpec) -> Result<(PathConfig, Tun), DriverError> {
        if self.record.is_none() {
            return Err(DriverError::Gone);
        }
        if matches!(spec.mode, Mode::Udp | Mode::Auto) {
            let reason = format!("a path in mode {} has no TUN device of its own", spec.mode);
            return Err(DriverError::UnsuitableDevice { device: spec.device.clone(), reason });
        }
        let twice = |p: &Installed| p.nic == spec.device && (p.mode, spec.mode) == (Mode::Nat, Mode::Nat);
        if self.paths.iter().any(twice) {
            let reason = "it already has a translated path".into();
            return Err(DriverError::UnsuitableDevice { device: spec.device.clone(), reason });
        }
        if spec.mode == Mode::Nat {
            nft::check_name(&spec.device)?;
            if self.nft.is_none() {
                self.nft = Some(Nft::find(self.options.nft_program.as_deref())?);
            }
        }
        let settled = self.settled_snapshot(&spec.device).await?;
        self.check_links(spec, &settled).await?;
        // No other instance may choose an address until this one is in use.
        let registry = self.registry.clone();
        let lock = registry.lock()?;
        let snapshot = Snapshot::take(&self.netlink).await?;
        let nic = nics::named(&snapshot, &spec.device)?.clone();
        let Chosen { addresses, aliases, nets } = self.choose_addresses(spec, &nic, &snapshot)?;
        let nat = spec.mode == Mode::Nat;
        let known =
            Known { links: &snapshot.links, addresses: &snapshot.addresses, routes: &snapshot.routes };
        let proxied: Vec<IpAddr> =
            addresses.iter().copied().filter(|a| !nat && known.in_subnet(&nic, a)).collect();
        if nat {
            self.reserve_ports(&lock)?;
        }
        let mtu = nic.mtu.min(u32::from(u16::MAX));
        let config_mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        let mut tun = Tun::open(&TunOptions { name: None, offload: self.options.offload, mtu: config_mtu })?;
        tun.leads_to(nic.index);
        let path = Installed {
            tun: tun.name().to_owned(),
            tun_index: tun.index(),
            nic: nic.name.clone(),
            nic_index: Some(nic.index),
            mode: spec.mode,
            advertise: spec.advertise,
            proxied,
            slots: Slots::new(&addresses, &aliases),
            addresses,
            nets,
            sources: Vec::new(),
            stateless: false,
            carry: self.options.carry,
            table: free_table(&self.netlink, tun.index(), &snapshot).await?,
            nic_addresses: if nat { snapshot.translatable(nic.index) } else { Vec::new() },
            forwarding: Forwarding::default(),
            held: Vec::new(),
            usable: true,
            mtu,
            prober: Prober::new(&tun)?,
            blocked: false,
            shut: false,
            unapplied: false,
            rules_at: TO_STACK,
            traffic: Traffic::default(),
        };
        let result = self.install(path, &nic, &snapshot, &lock).await;
        drop(lock);
        let result = match result {
            Ok(path) => {
                self.paths.push(path);
                match self.keep_rules(self.paths.len() - 1).await {
                    Ok(()) => self.check(self.paths.len() - 1, &snapshot, true),
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            self.remove(tun.name()).await;
            return Err(error);
        }
        let path = self.paths.last().ok_or(DriverError::Gone)?;
        let mut config = PathConfig::with_addresses(spec.device.clone(), path.addresses.clone())
            .with_max_packet(u32::from(config_mtu));
        config.aliases = aliases;
        config.advertise = advertised(path);
        config.kind = if nat { PathKind::Nat } else { PathKind::Routed };
        config.mtu = config_mtu;
        spec.describe(&mut config);
        tun.describe(&mut config);
        config.max_packet = config.max_packet.min(nic.largest_segment());
        tracing::info!(
            device = spec.device, tun = path.tun, mode = %path.mode, addresses = ?path.addresses,
            advertise = ?config.advertise, "path set up"
        );
        Ok((config, tun))
    }

    /// Makes all changes for a path, in an order in which no packet can leave the wrong way.
    async fn install(
        &mut self,
        mut path: Installed,
        nic: &Link,
        snapshot: &Snapshot,
        lock: &RegistryLock,
    ) -> Result<Installed, DriverError> {
        let record = self.record.as_mut().ok_or(DriverError::Gone)?;
        let others: Vec<Vec<Entry>> = self.registry.survey(lock, Some(record))?.0;
        let tun = path.tun.clone();
        let netlink = &self.netlink;
        forwarding::prepare_tun(&tun, path.has(true))?;
        if path.mode == Mode::Nat {
            hold_ports(&mut path, &self.listen)?;
        }
        record.note(Some(&tun), HostChange::Table(path.table))?;
        let up = netlink.bring_up(path.tun_index, path.mtu).await;
        up.map_err(|e| DriverError::netlink(format!("bring {tun} up"), e))?;
        let mirrored = mirror::synchronise(netlink, path.table, Some(nic.index), &path.own_routes()).await;
        let (_, refused) =
            mirrored.map_err(|e| DriverError::netlink(format!("mirror the routes of {}", nic.name), e))?;
        for (route, error) in refused {
            // The path cannot work without its own routes; an unusual route of the NIC may be missing.
            let own = path.nets.contains(&route.destination) || route == Route::unreachable(route.is_v6());
            if own || matches!(error.raw_os_error(), Some(libc::EPERM)) {
                return Err(DriverError::netlink(
                    format!("add a route for {}", route.destination.addr()),
                    error,
                ));
            }
            tracing::warn!(?route, %error, "cannot mirror a route of the NIC");
        }
        let mut changes = Changes { netlink, record, others: &others, path: &tun, _lock: lock };
        add_rules(&mut changes, &path).await?;
        apply_settings(&mut changes, &mut path, nic, &snapshot.links, snapshot, &self.options).await?;
        if path.mode == Mode::Nat {
            let nft = self.nft.as_ref().ok_or_else(|| DriverError::NoNft { searched: String::new() })?;
            changes.record.note(Some(&tun), HostChange::NftTable(tun.clone()))?;
            path.slots.assign(&path.nic_addresses);
            path.sources =
                translate::sources(&snapshot.routes_of(nic.index), &snapshot.addresses, &path.nic_addresses);
            path.stateless = self.options.stateless && check::untracked_pass(nft, &path.nic);
            install_table(nft, &mut path, &self.ranges, &self.listen)?;
        }
        Ok(path)
    }

    /// Checks that the host's firewall accepts a path's packets. `warn`: of chains that may drop them, too.
    fn check(&self, i: usize, snapshot: &Snapshot, warn: bool) -> Result<(), DriverError> {
        if !self.options.check_firewall {
            return Ok(());
        }
        let path = &self.paths[i];
        if path.mode == Mode::Routed {
            return check::inspect(self.nft.as_ref(), &path.nic, warn);
        }
        let Some(nft) = &self.nft else { return Ok(()) };
        let routes = path.nic_index.map(|nic| snapshot.routes_of(nic)).unwrap_or_default();
        let taken: Vec<IpAddr> = snapshot.addresses.iter().map(|a| a.address()).collect();
        check::probe(nft, (&path.tun, &path.prober), &path.nic, &path.addresses, &routes, &taken)
    }

    /// Removes a path.
    async fn remove(&mut self, tun: &str) {
        self.paths.retain(|p| p.tun != tun);
        self.undo(|e| e.path.as_deref() == Some(tun)).await;
    }

    async fn undo(&mut self, which: impl Fn(&Entry) -> bool) -> Vec<DriverError> {
        let Some(record) = self.record.as_mut() else { return Vec::new() };
        let begun = self.registry.lock().and_then(|lock| {
            let others = self.registry.survey(&lock, Some(record))?.0;
            Ok((lock, others))
        });
        match begun {
            Ok((_lock, others)) => host::undo(&self.netlink, record, &others, self.nft.as_ref(), which).await,
            Err(error) => {
                tracing::warn!(%error, "cannot undo changes to the host");
                vec![error]
            }
        }
    }

    /// Removes everything.
    async fn stop(&mut self) -> Vec<DriverError> {
        self.paths.clear();
        // Nobody else does it before the next start: what the kernel or `nft` refuses, because it is busy or short of memory,
        // it may do a moment later.
        let start = Instant::now();
        let mut errors = self.undo(|_| true).await;
        while !errors.is_empty() && start.elapsed() < LAST_PATIENCE {
            tokio::time::sleep(BREATH).await;
            errors = self.undo(|_| true).await;
        }
        if let Some(record) = self.record.take()
            && errors.is_empty()
        {
            record.remove();
        }
        errors
    }

    async fn has_route(&self, tun: &str, destination: IpAddr) -> Result<bool, DriverError> {
        let path = self.paths.iter().find(|p| p.tun == tun).ok_or(DriverError::Gone)?;
        let Some(source) = path.addresses.iter().find(|a| a.is_ipv6() == destination.is_ipv6()) else {
            return Ok(false);
        };
        let answer = self.netlink.route_of(*source, destination, path.tun_index).await;
        let device =
            answer.map_err(|e| DriverError::netlink(format!("look up the route to {destination}"), e))?;
        Ok(device.is_some() && device == path.nic_index)
    }

    fn tell(&self, change: PathChange) {
        tracing::info!(?change, "a path changed");
        if self.changes.try_send(change).is_err() {
            tracing::debug!("path changes are not being read");
        }
    }
}

fn first_of_each(addresses: &[IpAddr]) -> Vec<IpAddr> {
    [false, true].iter().filter_map(|v6| addresses.iter().find(|a| a.is_ipv6() == *v6).copied()).collect()
}

/// The addresses to advertise instead of the path's own.
fn advertised(path: &Installed) -> Vec<IpAddr> {
    match (path.advertise, path.mode) {
        (Some(address), _) => vec![address],
        (None, Mode::Nat) => {
            first_of_each(&path.nic_addresses).into_iter().filter(|a| path.has(a.is_ipv6())).collect()
        }
        (None, Mode::Routed | Mode::Udp | Mode::Auto) => Vec::new(),
    }
}

/// Adds the rules that bind the path's addresses to its table.
async fn add_rules(changes: &mut Changes<'_>, path: &Installed) -> Result<(), DriverError> {
    for &net in &path.nets {
        let v6 = net.addr().is_ipv6();
        let table = Some(path.table);
        changes.rule(Rule { to: Some(net), table, ..Rule::new(v6, TO_STACK) }).await?;
        changes.rule(Rule { from: Some(net), table, ..Rule::new(v6, FROM_STACK) }).await?;
    }
    for v6 in [false, true] {
        if path.has(v6) {
            changes.rule(Rule { input: Some(path.tun.clone()), ..Rule::new(v6, STRAY) }).await?;
        }
    }
    Ok(())
}

/// Kernel settings and what depends on them. They must be applied again when a NIC is recreated.
async fn apply_settings(
    changes: &mut Changes<'_>,
    path: &mut Installed,
    nic: &Link,
    links: &[Link],
    snapshot: &Snapshot,
    options: &SetupOptions,
) -> Result<(), DriverError> {
    // Anything else that would be forwarded must be dropped before forwarding is enabled. Translated paths
    // use nftables for that.
    let tun = path.tun.clone();
    let families = (path.has(false), path.has(true));
    let plan = forwarding::plan(changes, &tun, nic, families, !options.force_forwarding);
    if path.mode == Mode::Routed {
        for (v6, closed) in [(false, plan.closed_v4), (true, plan.closed_v6)] {
            if closed {
                changes.rule(Rule { input: Some(nic.name.clone()), ..Rule::new(v6, STRAY) }).await?;
            }
        }
    }
    if plan.all_v6 {
        // No interface forwarded before.
        let rule = Rule { input: Some("lo".into()), invert: true, ..Rule::new(true, STRAY + 1) };
        changes.rule(rule).await?;
    }
    forwarding::enable(changes, &tun, nic, families, links, &plan)?;
    path.forwarding = plan;
    let neighbours = forwarding::neighbours_in_subnet(nic, links, &snapshot.addresses);
    forwarding::separate(changes, nic, &neighbours)?;
    for &address in &path.proxied {
        forwarding::answer_for(changes, nic, address).await?;
    }
    Ok(())
}

/// A table number that no route or rule uses, for a TUN device with this index.
pub(super) async fn free_table(
    netlink: &Netlink,
    index: u32,
    snapshot: &Snapshot,
) -> Result<u32, DriverError> {
    let mut taken: BTreeSet<u32> = snapshot.routes.iter().map(|(table, _)| *table).collect();
    let of_rules = netlink.tables_of_rules().await;
    taken.extend(of_rules.map_err(|e| DriverError::netlink("list routing rules", e))?);
    let first = TABLES + index % 0x1_0000;
    Ok((first..u32::MAX).find(|t| !taken.contains(t)).unwrap_or(first))
}

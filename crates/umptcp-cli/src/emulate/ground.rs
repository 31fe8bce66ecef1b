//! A network in which a scenario runs.

use super::hosts::{Addresses, Hosts, MOST_PAIRS};
use super::kernel::{self, Sockets};
use super::network::Links;
use super::user_space::Host;
use crate::args::EmulatedStack;
use crate::console;
use crate::failure::Class;
use crate::registry::Registry;
use anyhow::{Context as _, ensure};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use umptcp::MptcpListener;
use umptcp_lab::emulation::{Ground, Happening, Pair, Plan, Wire};
use umptcp_netsim::LinkStats;

/// The port on which servers listen.
const PORT: u16 = crate::args::BENCH_PORT;

/// The stacks of the two sides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stacks {
    pub(super) client: EmulatedStack,
    pub(super) server: EmulatedStack,
}

impl Stacks {
    /// As it stands in reports.
    pub(super) fn name(self) -> String {
        match (self.client.name(), self.server.name()) {
            (client, server) if client == server => client.to_owned(),
            (client, server) => format!("{client}-to-{server}"),
        }
    }

    /// What of the scenario the kernel does not have, for people.
    pub(super) fn differences(self, plan: &Plan) -> Vec<String> {
        if ![self.client, self.server].contains(&EmulatedStack::Kernel) {
            return Vec::new();
        }
        let lacking = plan.pairs.iter().filter(|pair| !Sockets::new(pair).has_algorithm());
        let mut names: Vec<&str> = lacking.map(|pair| pair.config.congestion.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let line = |name| format!("the kernel has no {name}: its connections use its default algorithm");
        names.into_iter().map(line).collect()
    }

    /// Whether the kernel has what is asked of it.
    pub(super) fn check(self) -> anyhow::Result<()> {
        if [self.client, self.server].contains(&EmulatedStack::Kernel) {
            crate::transport::kernel::Kernel::mptcp().check()?;
            let program = std::process::Command::new("ip").arg("-V").output();
            program.context(Class::Host.failure("the kernel's MPTCP is set up by `ip` (iproute2)"))?;
        }
        Ok(())
    }
}

/// What makes the connections of one side of a pair.
enum Side {
    Kernel(Sockets),
    UserSpace(Box<Host>),
}

enum Listener {
    Kernel(TcpListener),
    UserSpace(MptcpListener),
}

/// A pair of hosts. In the order in which they are dropped: connections before namespaces.
struct Place {
    client: Side,
    /// Connections are made one after the other, so that it is known which one is accepted.
    listener: Mutex<Listener>,
    server: Side,
    server_address: SocketAddr,
    backups: Mutex<Vec<bool>>,
    /// Which of the client's interfaces are up.
    up: Mutex<Vec<bool>>,
    hosts: Hosts,
}

/// The hosts and the links between them.
pub(super) struct Network {
    places: Vec<Place>,
    /// For each link, the client interfaces on it: pair and route.
    near: Vec<Vec<(usize, usize)>>,
    links: Links,
}

impl Network {
    /// Builds the network of `plan`.
    pub(super) fn build(
        plan: &Plan,
        stacks: Stacks,
        registry: &Registry,
        record: &Path,
    ) -> anyhow::Result<Network> {
        ensure!(
            plan.pairs.len() <= MOST_PAIRS,
            "the scenario has {} pairs of hosts; in real time there are at most {MOST_PAIRS}",
            plan.pairs.len()
        );
        let (mut hosts, mut ends) = (Vec::new(), Vec::new());
        for (number, pair) in plan.pairs.iter().enumerate() {
            let (host, end) = Hosts::new(number, pair)?;
            hosts.push(host);
            ends.push(end);
        }
        let links = Links::start(plan, ends)?;
        // Each takes some seconds, most of them waiting.
        let places = std::thread::scope(|scope| {
            let start = |(number, (hosts, pair)): (usize, (Hosts, &Pair))| {
                let name = pair.name.clone();
                let pair = pair.clone();
                let make = move || Place::new(number, &pair, hosts, stacks, registry, record);
                (name, scope.spawn(make))
            };
            let threads: Vec<_> = hosts.into_iter().zip(&plan.pairs).enumerate().map(start).collect();
            let join =
                |(name, thread): (String, std::thread::ScopedJoinHandle<'_, anyhow::Result<Place>>)| {
                    let place = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                    place.with_context(|| format!("hosts of flow {name}"))
                };
            threads.into_iter().map(join).collect::<anyhow::Result<_>>()
        })?;
        let mut near = vec![Vec::new(); plan.links.len()];
        for (number, pair) in plan.pairs.iter().enumerate() {
            for (route, link) in pair.routes.iter().enumerate().filter_map(|(r, p)| Some((r, p.link?))) {
                near[link].push((number, route));
            }
        }
        Ok(Network { places, near, links })
    }

    fn change(&self, what: &Happening) -> anyhow::Result<()> {
        match *what {
            Happening::Link(ref change) => {
                self.links.change(change)?;
                if let Some(up) = change.seen() {
                    for (pair, route) in &self.near[change.link()] {
                        self.places[*pair].set_link(*route, up)?;
                    }
                }
                Ok(())
            }
            Happening::AddressRemoved { pair, route } => self.places[pair].remove_address(pair, route),
            Happening::AddressAdded { pair, route } => self.places[pair].add_address(pair, route),
            Happening::Backup { pair, route, backup } => self.places[pair].set_backup(route, backup),
        }
    }
}

impl Ground for Network {
    fn connect(&self, pair: usize) -> Result<[Box<dyn Wire>; 2], String> {
        self.places[pair].connect().map_err(|e| console::describe(&e))
    }

    fn happen(&self, what: &Happening) -> Result<(), String> {
        self.change(what).map_err(|e| console::describe(&e))
    }

    fn links(&self) -> Option<Vec<[(LinkStats, usize); 2]>> {
        self.links.stats()
    }
}

impl Place {
    fn new(
        number: usize,
        pair: &Pair,
        hosts: Hosts,
        stacks: Stacks,
        registry: &Registry,
        record: &Path,
    ) -> anyhow::Result<Place> {
        let addresses = Addresses::server(number);
        let (server, listener, address) = match stacks.server {
            EmulatedStack::Kernel => {
                kernel::set_up_server(&hosts.server, pair)?;
                let sockets = Sockets::new(pair);
                let listener = Listener::Kernel(sockets.listen(&hosts.server, PORT)?);
                (Side::Kernel(sockets), listener, addresses.host)
            }
            EmulatedStack::Umptcp => {
                let host = Host::server(&hosts.server, number, pair, registry, record)?;
                let listener = host.listen(SocketAddr::from((addresses.stack, PORT)))?;
                (Side::UserSpace(Box::new(host)), Listener::UserSpace(listener), addresses.stack)
            }
        };
        let client = match stacks.client {
            EmulatedStack::Kernel => {
                kernel::set_up_client(&hosts.client, number, pair)?;
                Side::Kernel(Sockets::new(pair))
            }
            EmulatedStack::Umptcp => {
                let host = Host::client(&hosts.client, number, pair, registry, record)?;
                Side::UserSpace(Box::new(host))
            }
        };
        Ok(Place {
            client,
            listener: Mutex::new(listener),
            server,
            server_address: SocketAddr::from((address, PORT)),
            backups: Mutex::new(pair.routes.iter().map(|r| r.backup).collect()),
            up: Mutex::new(vec![true; pair.routes.len()]),
            hosts,
        })
    }

    fn connect(&self) -> anyhow::Result<[Box<dyn Wire>; 2]> {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        let client: Box<dyn Wire> = match &self.client {
            Side::Kernel(sockets) => Box::new(sockets.connect(&self.hosts.client, self.server_address)?),
            Side::UserSpace(host) => Box::new(host.connect(self.server_address)?),
        };
        let server: Box<dyn Wire> = match (&*listener, &self.server) {
            (Listener::Kernel(listener), Side::Kernel(sockets)) => {
                Box::new(sockets.wire(listener.accept().context("cannot accept")?.0)?)
            }
            (Listener::UserSpace(listener), Side::UserSpace(host)) => {
                let (stream, _) = listener.accept_timeout(kernel::PATIENCE).context("cannot accept")?;
                Box::new(host.wire(stream)?)
            }
            _ => anyhow::bail!("the listener is of another stack"),
        };
        Ok([client, server])
    }

    fn set_link(&self, route: usize, up: bool) -> anyhow::Result<()> {
        {
            let mut states = self.up.lock().unwrap_or_else(PoisonError::into_inner);
            // One that was silent has been up all the time.
            if states[route] == up {
                return Ok(());
            }
            states[route] = up;
        }
        self.hosts.set_link(route, up)?;
        match &self.client {
            Side::Kernel(_) if up => kernel::link_up(&self.hosts.client, route),
            Side::Kernel(_) | Side::UserSpace(_) => Ok(()),
        }
    }

    fn remove_address(&self, pair: usize, route: usize) -> anyhow::Result<()> {
        match &self.client {
            Side::Kernel(_) => kernel::remove_address(&self.hosts.client, pair, route),
            Side::UserSpace(host) => host.remove_address(route),
        }
    }

    fn add_address(&self, pair: usize, route: usize) -> anyhow::Result<()> {
        let backup = self.backups.lock().unwrap_or_else(PoisonError::into_inner)[route];
        match &self.client {
            Side::Kernel(_) => kernel::add_address(&self.hosts.client, pair, route, backup),
            Side::UserSpace(host) => host.add_address(route),
        }
    }

    fn set_backup(&self, route: usize, backup: bool) -> anyhow::Result<()> {
        self.backups.lock().unwrap_or_else(PoisonError::into_inner)[route] = backup;
        match &self.client {
            Side::Kernel(_) => kernel::set_backup(&self.hosts.client, route, backup),
            Side::UserSpace(host) => host.set_backup(route, backup),
        }
    }
}

//! From a checked scenario to a network with hosts, links, routes and connections.

use crate::error::LabError;
use crate::registries::Registries;
use crate::setup::{Change, EventSetup, FlowSetup, LinkState, RouteChange, Setup, Way};
use crate::traffic::{self, Ends, Logged};
use std::net::IpAddr;
use umptcp_netsim::Direction;
use umptcp_netsim::SimError;
use umptcp_netsim::network::{CableId, FlowId, FlowSpec, Limits, Network, NodeId, Probe, Side};
use umptcp_netsim::random::{Purpose, Random, derive};
use umptcp_netsim::trace::TraceMode;
use umptcp_stack_core::config::StackConfig;
use umptcp_stack_core::device::{Families, PathConfig};
use umptcp_types::{Instant, PathId};

/// Events of a run: a day of simulated traffic, and a bound for bugs.
const MOST_EVENTS: u64 = 20_000_000_000;

/// One connection of a group.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    /// Which group.
    pub(crate) group: usize,
    pub(crate) flow: FlowId,
    /// The end that sends.
    pub(crate) sender: Side,
    /// The client's path for each route: a subflow's path names its route, on either side by the client's
    /// address.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) start: Instant,
    /// What its applications note.
    pub(crate) log: Logged,
}

/// A network with everything in it, ready to run.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) network: Network,
    pub(crate) cables: Vec<CableId>,
    pub(crate) instances: Vec<Instance>,
    hosts: Vec<Hosts>,
}

/// Builds the network of `setup` for one seed.
pub(crate) fn build(
    setup: &Setup,
    seed: u64,
    registries: &Registries,
    probe: Option<Box<dyn Probe>>,
) -> Result<Built, SimError> {
    let mut network = Network::new(seed);
    if let Some(probe) = probe {
        network.set_probe(probe);
    }
    network.set_recording(false);
    network.set_trace(TraceMode::Off);
    network.set_limits(Limits::default().events(MOST_EVENTS));
    // Routes are prescribed, so that the cables' ends are attached to nothing that matters.
    let fabric = network.add_router("fabric");
    let cables: Vec<CableId> = setup
        .links
        .iter()
        .map(|l| network.add_cable(fabric, fabric, l.forward.clone(), l.reverse.clone()))
        .collect();
    let mut built = Built { network, cables, instances: Vec::new(), hosts: Vec::new() };
    for (group, (flow, starts)) in setup.flows.iter().zip(setup.starts(seed)).enumerate() {
        for start in starts {
            built.add(setup, group, flow, start, registries)?;
        }
    }
    for event in &setup.events {
        built.add_event(event);
    }
    Ok(built)
}

impl Built {
    fn add(
        &mut self,
        setup: &Setup,
        group: usize,
        flow: &FlowSetup,
        start: Instant,
        registries: &Registries,
    ) -> Result<(), SimError> {
        let number = self.hosts.len();
        // Checked before: fewer than 4096 connections and 33 routes.
        let [high, low] = [(number >> 8) as u8, number as u8];
        let server_address = IpAddr::from([172, 16 + high, low, 1]);
        let stack = StackConfig::default()
            .with_congestion(registries.congestion.clone())
            .with_schedulers(registries.schedulers.clone())
            .with_path_policies(registries.path_policies.clone());
        let net = &mut self.network;
        let client = net.add_host(&format!("{}-{number}-client", flow.name), stack.clone());
        let server = net.add_host(&format!("{}-{number}-server", flow.name), stack);
        let server_mtu = flow.routes.iter().map(|r| setup.mtu(r)).max().unwrap_or(1500);
        net.add_path(server, path_config(server_address, server_mtu), &[], false);
        let mut hosts = Hosts { group, client, server_address, nics: Vec::new() };
        for (number, route) in flow.routes.iter().enumerate() {
            let address = IpAddr::from([10, high, low, number as u8 + 1]);
            let of = |way: Way| way.into_iter().map(|(l, d)| (self.cables[l], d)).collect();
            let (up, down) = flow.ways(number);
            let (up, down) = (of(up), of(down));
            let link = flow.client_link(number);
            let nic = Nic { address, mtu: setup.mtu(route), backup: flow.backup[number], link, up, down };
            nic.attach(net, client, server_address);
            hosts.nics.push(nic);
        }
        let addresses: Vec<IpAddr> = hosts.nics.iter().map(|nic| nic.address).collect();
        self.hosts.push(hosts);
        let stop = flow.stop.map(|s| Instant::ZERO + s);
        let random = Random::new(derive(net.seed(), Purpose::Scenario, 1 + number as u64));
        let sender_side = if flow.down { Side::Server } else { Side::Client };
        for Ends { sender, receiver, log } in traffic::ends(&flow.source, setup.begin(), stop, random) {
            let mut spec = FlowSpec::new(client, server).config(flow.config()).start(start);
            let (at_client, at_server) = if flow.down { (receiver, sender) } else { (sender, receiver) };
            (spec.client_application, spec.server_application) = (Some(at_client), Some(at_server));
            let id = net.add_flow(spec)?;
            let addresses = addresses.clone();
            self.instances.push(Instance { group, flow: id, sender: sender_side, addresses, start, log });
        }
        Ok(())
    }

    fn add_event(&mut self, event: &EventSetup) {
        let at = Instant::ZERO + event.at;
        match event.what.clone() {
            Change::Link(change) => {
                let cable = self.cables[change.link];
                // Those whose own link it is.
                let near = |h: &Hosts| {
                    let on = h.nics.iter().filter(|nic| nic.link == Some(change.link));
                    on.map(|nic| (h.client, nic.address)).collect::<Vec<_>>()
                };
                let near: Vec<_> = self.hosts.iter().flat_map(near).collect();
                self.network.at(at, move |net| {
                    net.with_cable(cable, |now, cable| change.apply(now, cable));
                    if let Some(state) = change.state {
                        for (client, address) in near {
                            tell_of_link(net, client, address, state);
                        }
                    }
                });
            }
            Change::Flow { group, congestion, scheduler } => {
                for instance in self.instances.iter().filter(|i| i.group == group) {
                    let (flow, sides) = (instance.flow, [Side::Client, Side::Server]);
                    let (congestion, scheduler) = (congestion.clone(), scheduler.clone());
                    self.network.at(at, move |net| {
                        for side in sides {
                            net.change_algorithms(flow, side, congestion.as_deref(), scheduler.as_deref());
                        }
                    });
                }
            }
            Change::Route { group, route, what } => {
                for hosts in self.hosts.iter().filter(|h| h.group == group) {
                    let (client, server, nic) =
                        (hosts.client, hosts.server_address, hosts.nics[route].clone());
                    self.network.at(at, move |net| change_nic(net, client, server, &nic, what));
                }
            }
        }
    }
}

/// The hosts of a connection, or of several that belong together.
#[derive(Debug)]
struct Hosts {
    group: usize,
    client: NodeId,
    server_address: IpAddr,
    /// One for each route.
    nics: Vec<Nic>,
}

/// A client's interface, with the way from it to the server and back.
#[derive(Clone, Debug)]
struct Nic {
    address: IpAddr,
    mtu: u16,
    backup: bool,
    /// The link that it is attached to.
    link: Option<usize>,
    up: Vec<(CableId, Direction)>,
    down: Vec<(CableId, Direction)>,
}

impl Nic {
    fn attach(&self, net: &mut Network, client: NodeId, server: IpAddr) {
        let mut config = path_config(self.address, self.mtu);
        config.backup = self.backup;
        net.add_path(client, config, &[], false);
        net.set_route(self.address, server, &self.up);
        net.set_route(server, self.address, &self.down);
    }
}

/// The path of `node` that has the address. Each has one.
fn path_of(net: &Network, node: NodeId, address: IpAddr) -> Option<PathId> {
    let at = net.addresses(node).iter().position(|a| *a == address)?;
    net.paths(node).get(at).copied()
}

fn change_nic(net: &mut Network, client: NodeId, server: IpAddr, nic: &Nic, what: RouteChange) {
    match (what, path_of(net, client, nic.address)) {
        (RouteChange::Removed, Some(path)) => net.remove_path(client, path),
        (RouteChange::Added, None) => nic.attach(net, client, server),
        (RouteChange::Backup(backup), Some(path)) => {
            net.with_stack(client, |now, stack| stack.set_path_backup(now, path, backup));
        }
        // It is that way already.
        (RouteChange::Removed | RouteChange::Backup(_), None) | (RouteChange::Added, Some(_)) => {}
    }
}

/// A host sees that its link is down, or up again.
fn tell_of_link(net: &mut Network, client: NodeId, address: IpAddr, state: LinkState) {
    let Some(path) = path_of(net, client, address) else { return };
    net.with_stack(client, |now, stack| match state {
        LinkState::Down => stack.path_down(now, path, Families::BOTH),
        LinkState::Up => stack.path_up(now, path, Families::BOTH),
        LinkState::Silent => {}
    });
}

fn path_config(address: IpAddr, mtu: u16) -> PathConfig {
    let mut config = PathConfig::new(format!("{address}"), address);
    config.mtu = mtu;
    config.max_packet = 65_535;
    config.checksum_offload = true;
    config
}

/// An error of the simulator with what was simulated.
pub(crate) fn failed(point: &str, seed: u64) -> impl Fn(SimError) -> LabError {
    let point = point.to_string();
    move |error| LabError::Simulation { point: point.clone(), seed, error }
}

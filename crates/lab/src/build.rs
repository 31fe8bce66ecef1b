//! From a checked scenario to a network with hosts, links, routes and connections.

use crate::error::LabError;
use crate::registries::Registries;
use crate::setup::{Change, EventSetup, FlowSetup, Leg, LinkChange, Setup};
use crate::traffic::{self, Ends, Logged};
use std::net::IpAddr;
use umptcp_netsim::Direction;
use umptcp_netsim::Loss;
use umptcp_netsim::SimError;
use umptcp_netsim::network::{CableId, FlowId, FlowSpec, Limits, Network, NodeId, Probe, Side};
use umptcp_netsim::random::{Purpose, Random, derive};
use umptcp_netsim::trace::TraceMode;
use umptcp_stack_core::config::{ConnectionConfig, Ecn, StackConfig};
use umptcp_stack_core::device::PathConfig;
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
    /// Pairs of hosts so far.
    hosts: usize,
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
    let mut random = Random::new(derive(seed, Purpose::Scenario, 0));
    let mut built = Built { network, cables, instances: Vec::new(), hosts: 0 };
    for (group, flow) in setup.flows.iter().enumerate() {
        for _ in 0..flow.count {
            let spread = flow.spread.mul_f64(random.unit());
            built.add(setup, group, flow, Instant::ZERO + flow.start + spread, registries)?;
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
        let number = self.hosts;
        self.hosts += 1;
        // Checked before: fewer than 4096 connections and 33 routes.
        let [high, low] = [(number >> 8) as u8, number as u8];
        let server_address = IpAddr::from([172, 16 + high, low, 1]);
        let addresses: Vec<IpAddr> =
            (0..flow.routes.len()).map(|r| IpAddr::from([10, high, low, r as u8 + 1])).collect();
        let stack = StackConfig::default()
            .with_congestion(registries.congestion.clone())
            .with_schedulers(registries.schedulers.clone())
            .with_path_policies(registries.path_policies.clone());
        let mtu = |legs: &[Leg]| {
            let of = |l: &Leg| setup.links[l.link].forward.mtu.min(setup.links[l.link].reverse.mtu);
            legs.iter().map(of).min().unwrap_or(1500)
        };
        let net = &mut self.network;
        let client = net.add_host(&format!("{}-{number}-client", flow.name), stack.clone());
        let server = net.add_host(&format!("{}-{number}-server", flow.name), stack);
        let server_mtu = flow.routes.iter().map(|r| mtu(r)).max().unwrap_or(1500);
        add_path(net, server, server_address, server_mtu);
        for (route, address) in flow.routes.iter().zip(&addresses) {
            add_path(net, client, *address, mtu(route));
            let along: Vec<_> = route.iter().map(|leg| (self.cables[leg.link], direction(leg))).collect();
            let back: Vec<_> = along.iter().rev().map(|(c, d)| (*c, d.opposite())).collect();
            let (up, down) = if flow.down { (back, along) } else { (along, back) };
            net.set_route(*address, server_address, &up);
            net.set_route(server_address, *address, &down);
        }
        let stop = flow.stop.map(|s| Instant::ZERO + s);
        let random = Random::new(derive(net.seed(), Purpose::Scenario, 1 + number as u64));
        let sender_side = if flow.down { Side::Server } else { Side::Client };
        for Ends { sender, receiver, log } in traffic::ends(&flow.source, setup.begin(), stop, random) {
            let mut spec = FlowSpec::new(client, server).config(config(flow)).start(start);
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
                self.network.at(at, move |net| change_link(net, cable, &change));
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
        }
    }
}

fn change_link(net: &mut Network, cable: CableId, change: &LinkChange) {
    for d in Direction::BOTH {
        let mut link = net.cable(cable).queue(d).link().clone();
        if change.rate.is_some() {
            (link.rate, link.trace) = (change.rate, None);
        }
        link.delay = change.delay.unwrap_or(link.delay);
        if let Some(p) = change.loss {
            link.loss = if p > 0.0 { Loss::Random(p) } else { Loss::None };
        }
        net.set_link(cable, d, link);
        if let Some(cut) = change.cut {
            net.set_cut(cable, d, cut);
        }
    }
}

fn direction(leg: &Leg) -> Direction {
    if leg.backward { Direction::Reverse } else { Direction::Forward }
}

fn add_path(net: &mut Network, host: NodeId, address: IpAddr, mtu: u16) -> PathId {
    let mut config = PathConfig::new(format!("{address}"), address);
    config.mtu = mtu;
    config.max_packet = 65_535;
    config.checksum_offload = true;
    net.add_path(host, config, &[], false)
}

fn config(flow: &FlowSetup) -> ConnectionConfig {
    ConnectionConfig::default()
        .with_mptcp(flow.mptcp)
        .with_checksum(flow.checksum)
        .with_ecn(if flow.ecn { Ecn::Request } else { Ecn::default() })
        .with_congestion(flow.congestion.clone())
        .with_scheduler(flow.scheduler.clone())
        .with_path_policy(flow.path_policy.clone())
        // As programs do that wait for messages.
        .with_no_delay(flow.source.has_messages())
        .with_send_buffer(flow.send_buffer)
        .with_receive_buffer(flow.receive_buffer)
        .with_max_subflows(flow.routes.len())
}

/// An error of the simulator with what was simulated.
pub(crate) fn failed(point: &str, seed: u64) -> impl Fn(SimError) -> LabError {
    let point = point.to_string();
    move |error| LabError::Simulation { point: point.clone(), seed, error }
}

//! The demo in virtual time: two real stacks on a simulated network.

use super::act::Act;
use super::plan::{Nic, Plan, TICK};
use super::view::{Part, View};
use crate::args::DemoArgs;
use crate::bench::meter::{Interval, Meter};
use crate::registry::Registry;
use crate::transport::Subflow;
use anyhow::{Context as _, bail};
use std::time::Duration;
use umptcp_netsim::application::{Application, Bulk, Plan as Wanted, Progress, Sink};
use umptcp_netsim::network::FlowSpec;
use umptcp_netsim::{CableId, Direction, FlowId, Network, NodeId, Side};
use umptcp_stack_core::config::{ConnectionConfig, StackConfig};
use umptcp_stack_core::device::PathConfig;
use umptcp_types::{Instant, PathId};

/// Limit of virtual time for one transfer; beyond it, something is wrong.
const PATIENCE: Duration = Duration::from_secs(3600);
/// How much data a sender without a fixed size offers beyond what it has sent.
const AHEAD: u64 = 1 << 20;

/// Sends until a point in time, then closes.
#[derive(Debug)]
struct Timed {
    until: Instant,
}

impl Application for Timed {
    fn plan(&mut self, now: Instant, progress: &Progress) -> Wanted {
        if now < self.until {
            Wanted { send: progress.sent + AHEAD, finish: false, wake: Some(self.until) }
        } else {
            Wanted { send: progress.sent, finish: true, wake: None }
        }
    }
}

/// The simulated network and its parts.
struct Simulation<'a> {
    plan: &'a Plan,
    view: &'a View<'a>,
    network: Network,
    hosts: [NodeId; 2],
    cables: Vec<CableId>,
    paths: Vec<PathId>,
    config: ConnectionConfig,
}

pub(super) fn run(
    args: &DemoArgs,
    plan: &Plan,
    view: &View<'_>,
    registry: &Registry,
) -> anyhow::Result<Vec<Part>> {
    let mut config = ConnectionConfig::default().with_checksum(args.checksum);
    if let Some(name) = &args.congestion {
        config.congestion.clone_from(name);
    }
    if let Some(name) = &args.scheduler {
        config.scheduler.clone_from(name);
    }
    let mut simulation = Simulation::new(plan, view, registry, config);
    Act::ALL.into_iter().map(|act| simulation.transfer(act)).collect()
}

impl<'a> Simulation<'a> {
    fn new(
        plan: &'a Plan,
        view: &'a View<'a>,
        registry: &Registry,
        config: ConnectionConfig,
    ) -> Simulation<'a> {
        let mut network = Network::new(plan.seed);
        let stack = StackConfig::default()
            .with_congestion(registry.congestion.clone())
            .with_schedulers(registry.schedulers.clone());
        let client = network.add_host("client", stack.clone());
        let server = network.add_host("server", stack);
        let cables: Vec<CableId> =
            plan.nics.iter().map(|nic| network.add_cable(client, server, nic.link(), nic.link())).collect();
        let path = |name: &str, address: std::net::Ipv4Addr| {
            let mut path = PathConfig::new(name, address.into()).with_max_packet(65_535);
            path.checksum_offload = true;
            path
        };
        let add = |(nic, cable): (&Nic, &CableId)| {
            network.add_path(client, path(&nic.name, nic.stack_address), &[*cable], true)
        };
        let paths = plan.nics.iter().zip(&cables).map(add).collect();
        network.add_path(server, path("eth0", super::plan::SERVER_STACK), &cables, true);
        Simulation { plan, view, network, hosts: [client, server], cables, paths, config }
    }

    fn transfer(&mut self, act: Act) -> anyhow::Result<Part> {
        self.view.heading(&act.title(self.plan))?;
        let start = self.network.now();
        let [client, server] = self.hosts;
        let mut spec = FlowSpec::new(client, server).config(self.config.clone()).start(start);
        if act == Act::One {
            spec.paths = self.paths[..1].to_vec();
        }
        let sender: Box<dyn Application> = match act {
            Act::Silence => Box::new(Timed { until: start + self.plan.last }),
            Act::One | Act::Both => Box::new(Bulk(self.plan.bytes)),
        };
        let receiver: Box<dyn Application> = Box::new(Sink);
        let (client_application, server_application) =
            if self.plan.down { (receiver, sender) } else { (sender, receiver) };
        spec.client_application = Some(client_application);
        spec.server_application = Some(server_application);
        if act == Act::Silence {
            let cable = self.cables[0];
            let (from, to) = self.plan.silent;
            self.network.at(start + from, move |network| network.cut(cable));
            self.network.at(start + to, move |network| network.restore(cable));
        }
        let before = self.payload();
        let flow = self.network.add_flow(spec).context("cannot start the simulated connection")?;
        self.watch(flow, start, act)?;
        let ended = self.network.flow(flow);
        if let Some((side, error)) = ended.error() {
            bail!("the simulated connection failed at the {side:?}'s end: {error}");
        }
        if let Some(reason) = ended.client.fell_back {
            bail!("the simulated connection fell back to TCP: {reason}");
        }
        let receiver = ended.end(if self.plan.down { Side::Client } else { Side::Server });
        let finished = receiver.last_received_at.unwrap_or(start);
        let by_nic = self.payload().iter().zip(before).map(|(after, before)| after - before).collect();
        Ok(Part {
            name: act.name(self.plan),
            bytes: receiver.progress.received,
            seconds: (finished - start).as_secs_f64(),
            by_nic,
            // The network checks every byte on receipt and the total at the end; otherwise it would have
            // failed.
            intact: true,
        })
    }

    /// Shows progress until both ends have closed.
    fn watch(&mut self, flow: FlowId, start: Instant, act: Act) -> anyhow::Result<()> {
        let mut meter = Meter::default();
        loop {
            self.network.run_for(TICK).context("the simulation failed")?;
            let elapsed = self.network.now() - start;
            let ended = self.network.flow(flow).is_closed() || self.network.flow(flow).error().is_some();
            if ended {
                return Ok(());
            }
            if elapsed > PATIENCE {
                bail!("the simulated connection does not end");
            }
            let interval = self.look(flow, elapsed, &mut meter);
            self.view.progress(&interval, &act.note(self.plan, elapsed))?;
        }
    }

    /// The rates since the previous reading, from the client's subflows.
    fn look(&mut self, flow: FlowId, elapsed: Duration, meter: &mut Meter) -> Interval {
        let end = &self.network.flow(flow).client;
        let (connection, received) = (end.connection, end.progress.received);
        let stack = self.network.stack(self.hosts[0]);
        let known = stack.zip(connection);
        let sent = known.and_then(|(stack, id)| stack.info(id)).map_or(0, |info| info.bytes_acked);
        let subflows = known.map(|(stack, id)| stack.subflows(id)).unwrap_or_default();
        let name = |path: PathId| {
            let at = self.paths.iter().position(|p| *p == path);
            at.map_or_else(String::new, |at| self.plan.nics[at].name.clone())
        };
        let subflows: Vec<Subflow> = subflows.into_iter().map(|s| Subflow::new(name(s.path), s)).collect();
        meter.look(elapsed.as_secs_f64(), sent, received, &subflows)
    }

    /// Payload delivered over each NIC's link.
    fn payload(&self) -> Vec<u64> {
        let direction = if self.plan.down { Direction::Reverse } else { Direction::Forward };
        self.cables.iter().map(|cable| self.network.stats(*cable, direction).delivered_payload).collect()
    }
}

//! The links between the hosts' interfaces.

use super::hosts::{Addresses, FarEnds};
use anyhow::Context as _;
use std::time::Duration;
use umptcp_lab::emulation::{ChangedLink, Plan};
use umptcp_netsim::realtime::Emulation;
use umptcp_netsim::{Direction, LinkStats};
use umptcp_tun_driver::event_loop::{AttachedPath, EventLoopThread};

/// Minimum time between batches of packets.
const GRANULARITY: Duration = Duration::from_micros(100);

/// The running links. They stop when this is dropped.
pub(super) struct Links {
    network: EventLoopThread<Emulation>,
    count: usize,
}

impl Links {
    /// Starts the links of `plan` between the interfaces of its pairs.
    pub(super) fn start(plan: &Plan, pairs: Vec<FarEnds>) -> anyhow::Result<Links> {
        let mut emulation = Emulation::new(plan.seed);
        emulation.set_granularity(GRANULARITY);
        for (forward, reverse) in &plan.links {
            emulation.add_loose_cable(forward.clone(), reverse.clone());
        }
        let mut paths = Vec::new();
        for (number, (pair, ends)) in plan.pairs.iter().zip(pairs).enumerate() {
            let servers = Addresses::server(number);
            let server_port = emulation.add_port();
            paths.push(AttachedPath::unmanaged(ends.server, servers.host.into()));
            for (route_number, (route, tun)) in pair.routes.iter().zip(ends.nics).enumerate() {
                let clients = Addresses::client(number, route_number);
                let port = emulation.add_port();
                paths.push(AttachedPath::unmanaged(tun, clients.host.into()));
                for client in clients.all() {
                    for server in servers.all() {
                        emulation.set_route(client, server, &route.up, server_port);
                        emulation.set_route(server, client, &route.down, port);
                    }
                }
            }
        }
        let network = EventLoopThread::start("network", emulation, paths);
        let network = network.context("cannot start the emulated network")?;
        Ok(Links { network, count: plan.links.len() })
    }

    /// Changes a link.
    pub(super) fn change(&self, change: &ChangedLink) -> anyhow::Result<()> {
        let change = change.clone();
        let done = self.network.with(move |e, now| change.apply(now, e.cable_mut(change.link())));
        done.context("the emulated network has failed")
    }

    /// What each link has done, and the packets that wait.
    pub(super) fn stats(&self) -> Option<Vec<[(LinkStats, usize); 2]>> {
        let count = self.count;
        self.network.with(move |e, _| {
            let one = |cable| {
                Direction::BOTH.map(|d| {
                    let queue = e.cable(cable).queue(d);
                    (queue.stats(), queue.queued().0)
                })
            };
            (0..count).map(one).collect()
        })
    }
}

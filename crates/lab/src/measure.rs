//! What is measured while a network runs.

use crate::build::{Built, Instance};
use crate::setup::Setup;
use crate::traffic::Log;
use umptcp_netsim::Direction;
use umptcp_netsim::LinkStats;
use umptcp_netsim::network::Network;
use umptcp_stack_core::stack::SubflowInfo;
use umptcp_types::Instant;

/// A subflow at one instant, all its incarnations together (one that was closed may have been replaced).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RouteState {
    /// Payload bytes acknowledged to the sender.
    pub(crate) acked: u64,
    pub(crate) sent: u64,
    pub(crate) retransmitted: u64,
    pub(crate) timeouts: u64,
    /// Window in bytes, 0 when there is no subflow.
    pub(crate) window: u64,
    /// Smoothed round-trip time in seconds; `NaN` when not known.
    pub(crate) srtt: f64,
    /// Where in the connection's data the last byte sent on it ends.
    pub(crate) data_sent: u64,
    /// Payload bytes of a full packet; 0 when there is no subflow.
    pub(crate) mss: u32,
    /// The sender does not say.
    pub(crate) unknown: bool,
}

/// One direction of a link at one instant.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LinkState {
    pub(crate) stats: LinkStats,
    pub(crate) queued: usize,
}

/// Everything at one instant.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) at: Instant,
    /// Bytes that each connection's receiving application has got.
    pub(crate) received: Vec<u64>,
    /// Bytes that wait at each connection's receiver for others before them; `None`: not known.
    pub(crate) out_of_order: Vec<Option<u64>>,
    /// Per connection, per route.
    pub(crate) routes: Vec<Vec<RouteState>>,
    /// Per link, per direction.
    pub(crate) links: Vec<[LinkState; 2]>,
}

impl Snapshot {
    /// The state of the network now.
    pub(crate) fn take(built: &mut Built) -> Snapshot {
        let Built { network, cables, instances, .. } = built;
        let received = instances.iter().map(|i| network.flow(i.flow).end(i.sender.peer()).progress.received);
        let received = received.collect();
        let out_of_order = instances.iter().map(|i| Some(out_of_order(network, i))).collect();
        let routes = instances.iter().map(|i| routes(network, i)).collect();
        let link = |c| {
            Direction::BOTH.map(|d| {
                let queue = network.cable(c).queue(d);
                LinkState { stats: queue.stats(), queued: queue.queued().0 }
            })
        };
        let links = cables.iter().map(|c| link(*c)).collect();
        Snapshot { at: network.now(), received, out_of_order, routes, links }
    }
}

/// What the receiver's stack holds that is not in order; nothing once the connection has gone.
fn out_of_order(network: &Network, instance: &Instance) -> u64 {
    let end = network.flow(instance.flow).end(instance.sender.peer());
    let info = end.connection.and_then(|c| network.stack(end.node)?.info(c));
    info.map_or(0, |info| info.out_of_order)
}

/// What the sender's stack says of each route's subflows.
fn routes(network: &mut Network, instance: &Instance) -> Vec<RouteState> {
    network.refresh(instance.flow);
    let end = network.flow(instance.flow).end(instance.sender);
    let mut states = vec![RouteState { srtt: f64::NAN, ..RouteState::default() }; instance.addresses.len()];
    for record in &end.subflows {
        let Some(info) = &record.last else { continue };
        let Some(route) =
            instance.addresses.iter().position(|a| *a == info.local.ip() || *a == info.remote.ip())
        else {
            continue;
        };
        states[route].add(info, record.closed.is_none());
    }
    states
}

impl RouteState {
    /// Of a sender that does not say.
    pub(crate) fn unknown() -> RouteState {
        RouteState { unknown: true, srtt: f64::NAN, ..RouteState::default() }
    }

    pub(crate) fn add(&mut self, info: &SubflowInfo, alive: bool) {
        self.acked += info.bytes_acked;
        self.sent += info.bytes_sent;
        self.retransmitted += info.bytes_retransmitted;
        self.timeouts += info.timeouts;
        if alive {
            self.window = info.window;
            self.mss = info.mss;
            self.data_sent = info.data_sent;
            self.srtt = info.srtt.map_or(f64::NAN, |t| t.as_secs_f64());
        }
    }
}

/// A run's snapshots, at regular intervals from the start on, and when connections ended.
#[derive(Clone, Debug)]
pub(crate) struct Recording {
    pub(crate) snapshots: Vec<Snapshot>,
    /// The group of each connection.
    pub(crate) groups: Vec<usize>,
    /// Seconds from a connection's start until its last byte was received, for those with a known size.
    pub(crate) completions: Vec<Option<f64>>,
    /// What each connection's applications noted.
    pub(crate) logs: Vec<Log>,
}

impl Recording {
    /// The snapshots of the measurement: the first at its beginning, the last at its end.
    pub(crate) fn measured(&self, setup: &Setup) -> &[Snapshot] {
        let from = self.snapshots.partition_point(|s| s.at < setup.begin());
        &self.snapshots[from.min(self.snapshots.len().saturating_sub(2))..]
    }

    /// Bits per second that all connections of `group` together received between two snapshots.
    pub(crate) fn group_rate(&self, group: usize, from: &Snapshot, to: &Snapshot) -> f64 {
        let members = self.groups.iter().enumerate().filter(|(_, g)| **g == group);
        let bytes: u64 = members.map(|(i, _)| to.received[i].saturating_sub(from.received[i])).sum();
        per_second(bytes * 8, from, to)
    }

    /// The snapshot at `at` or the next one.
    pub(crate) fn index_at(&self, at: Instant) -> usize {
        self.snapshots.partition_point(|s| s.at < at).min(self.snapshots.len().saturating_sub(1))
    }
}

/// A count of what happened between two snapshots, per second.
pub(crate) fn per_second(count: u64, from: &Snapshot, to: &Snapshot) -> f64 {
    let time = (to.at - from.at).as_secs_f64();
    if time > 0.0 { count as f64 / time } else { 0.0 }
}

//! A scenario that was checked: plain values, indices instead of names.

use crate::traffic::SourceSetup;
use std::time::Duration;
use umptcp_netsim::random::{Purpose, Random, derive};
use umptcp_netsim::{Cable, Direction, Link, Loss};
use umptcp_stack_core::config::{BufferSize, ConnectionConfig, Ecn};
use umptcp_types::Instant;

/// One combination of parameters, ready to run.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    pub(crate) seeds: Vec<u64>,
    pub(crate) sample: Duration,
    pub(crate) links: Vec<LinkSetup>,
    pub(crate) flows: Vec<FlowSetup>,
    pub(crate) events: Vec<EventSetup>,
    pub(crate) references: Vec<ReferenceSetup>,
    pub(crate) recoveries: Vec<RecoverySetup>,
}

impl Setup {
    /// When the measurement begins.
    pub(crate) fn begin(&self) -> Instant {
        Instant::ZERO + self.warm_up
    }

    /// When it ends.
    pub(crate) fn end(&self) -> Instant {
        self.begin() + self.duration
    }
}

#[derive(Clone, Debug)]
pub(crate) struct LinkSetup {
    pub(crate) name: String,
    pub(crate) forward: Link,
    pub(crate) reverse: Link,
}

/// A link of a route, and whether it is taken against its direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leg {
    pub(crate) link: usize,
    pub(crate) backward: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct FlowSetup {
    pub(crate) name: String,
    pub(crate) count: u32,
    pub(crate) mptcp: bool,
    pub(crate) congestion: String,
    pub(crate) scheduler: String,
    pub(crate) path_policy: String,
    /// From the sender to the receiver, one per subflow.
    pub(crate) routes: Vec<Vec<Leg>>,
    /// Whether the client wants the subflow on each route as a backup (RFC 8684 §3.3.8).
    pub(crate) backup: Vec<bool>,
    /// The side that listens sends.
    pub(crate) down: bool,
    pub(crate) start: Duration,
    pub(crate) spread: Duration,
    pub(crate) stop: Option<Duration>,
    pub(crate) source: SourceSetup,
    pub(crate) send_buffer: BufferSize,
    pub(crate) receive_buffer: BufferSize,
    /// Whether the scenario says how large they are.
    pub(crate) buffers_given: (bool, bool),
    pub(crate) checksum: bool,
    /// Ask for explicit congestion notification; otherwise it is used when the peer asks, which it does not.
    pub(crate) ecn: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct EventSetup {
    pub(crate) at: Duration,
    pub(crate) what: Change,
}

/// What an event changes.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Link(LinkChange),
    /// A group gets another congestion control algorithm, another scheduler, or both.
    Flow {
        group: usize,
        congestion: Option<String>,
        scheduler: Option<String>,
    },
    /// Something happens to the clients' end of a route of a group.
    Route {
        group: usize,
        route: usize,
        what: RouteChange,
    },
}

/// What happens to a client's end of a route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RouteChange {
    /// The host loses the address.
    Removed,
    /// It has it again.
    Added,
    /// Subflows from it are to be backups, or not any more.
    Backup(bool),
}

/// The state of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LinkState {
    Up,
    /// Nothing gets through, and the clients whose own link it is see that.
    Down,
    /// Nothing gets through, and nobody is told.
    Silent,
}

/// Cables in order, with the direction in which each is taken.
pub(crate) type Way = Vec<(usize, Direction)>;

impl LinkChange {
    /// Changes both directions of the link.
    pub(crate) fn apply(&self, now: Instant, cable: &mut Cable) {
        for d in Direction::BOTH {
            let queue = cable.queue_mut(d);
            let mut link = queue.link().clone();
            if self.rate.is_some() {
                (link.rate, link.trace) = (self.rate, None);
            }
            link.delay = self.delay.unwrap_or(link.delay);
            if let Some(p) = self.loss {
                link.loss = if p > 0.0 { Loss::Random(p) } else { Loss::None };
            }
            queue.set_link(now, link);
            if let Some(state) = self.state {
                queue.set_cut(now, state != LinkState::Up);
            }
        }
    }
}

impl Setup {
    /// The largest packet that all links of a route take.
    pub(crate) fn mtu(&self, route: &[Leg]) -> u16 {
        let of = |l: &Leg| self.links[l.link].forward.mtu.min(self.links[l.link].reverse.mtu);
        route.iter().map(of).min().unwrap_or(1500)
    }

    /// When the connections of each group begin, in order; the draws are those of `seed`.
    pub(crate) fn starts(&self, seed: u64) -> Vec<Vec<Instant>> {
        let mut random = Random::new(derive(seed, Purpose::Scenario, 0));
        let mut start = |flow: &FlowSetup| {
            let spread = flow.spread.mul_f64(random.unit());
            Instant::ZERO + flow.start + spread
        };
        self.flows.iter().map(|flow| (0..flow.count).map(|_| start(flow)).collect()).collect()
    }
}

impl FlowSetup {
    /// The way from the client to the server on a route, and back.
    pub(crate) fn ways(&self, route: usize) -> (Way, Way) {
        let legs = self.routes.get(route).into_iter().flatten();
        let direction = |leg: &Leg| if leg.backward { Direction::Reverse } else { Direction::Forward };
        let along: Way = legs.map(|leg| (leg.link, direction(leg))).collect();
        let back: Way = along.iter().rev().map(|(l, d)| (*l, d.opposite())).collect();
        if self.down { (back, along) } else { (along, back) }
    }

    /// The settings of its connections.
    pub(crate) fn config(&self) -> ConnectionConfig {
        ConnectionConfig::default()
            .with_mptcp(self.mptcp)
            .with_checksum(self.checksum)
            .with_ecn(if self.ecn { Ecn::Request } else { Ecn::default() })
            .with_congestion(self.congestion.clone())
            .with_scheduler(self.scheduler.clone())
            .with_path_policy(self.path_policy.clone())
            // As programs do that wait for messages.
            .with_no_delay(self.source.has_messages())
            .with_send_buffer(self.send_buffer)
            .with_receive_buffer(self.receive_buffer)
            .with_max_subflows(self.routes.len())
    }

    /// The link at the client's end of a route.
    pub(crate) fn client_link(&self, route: usize) -> Option<usize> {
        let legs = self.routes.get(route)?;
        let leg = if self.down { legs.last() } else { legs.first() };
        leg.map(|leg| leg.link)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct LinkChange {
    pub(crate) link: usize,
    pub(crate) state: Option<LinkState>,
    pub(crate) rate: Option<u64>,
    pub(crate) delay: Option<Duration>,
    pub(crate) loss: Option<f64>,
}

/// Published values that apply to this combination of parameters.
#[derive(Clone, Debug)]
pub(crate) struct ReferenceSetup {
    /// The mean over these groups.
    pub(crate) flows: Vec<String>,
    pub(crate) per: Option<String>,
    pub(crate) quantity: String,
    pub(crate) published: Option<f64>,
    pub(crate) predicted: Option<f64>,
    pub(crate) at_least: Option<f64>,
    pub(crate) tolerance: f64,
    pub(crate) source: String,
}

#[derive(Clone, Debug)]
pub(crate) struct RecoverySetup {
    pub(crate) flow: usize,
    pub(crate) after: Duration,
    pub(crate) compare: (Duration, Duration),
    pub(crate) share: f64,
    pub(crate) window: Duration,
}

//! Scenarios in real time, on real connections: the same applications, the same measurements.
//!
//! What the connections are made of is the caller's: it builds a [`Ground`] from a [`Plan`], with links from
//! `umptcp_netsim::realtime`, hosts and a stack. Nothing here knows an operating system.

mod end;
mod run;

use crate::error::LabError;
use crate::experiment::{Experiment, RunOptions};
use crate::run::evaluate;
use crate::setup::{Change, LinkChange, LinkState, RouteChange, Setup, Way};
use std::io;
use std::time::Duration;
use umptcp_netsim::{Cable, Link, LinkStats};
use umptcp_stack_core::config::ConnectionConfig;
use umptcp_stack_core::stack::SubflowInfo;
use umptcp_types::Instant;

/// A network to build.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Plan {
    /// For what the links leave to chance.
    pub seed: u64,
    /// Both directions of each link, forward first.
    pub links: Vec<(Link, Link)>,
    /// Pairs of a client and a server.
    pub pairs: Vec<Pair>,
}

/// A client with an interface per route, and its server, which has one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Pair {
    /// The name of the group of connections.
    pub name: String,
    /// The routes between them.
    pub routes: Vec<Route>,
    /// The settings of their connections. Buffers for which the scenario has no size are those that a stack
    /// has by itself.
    pub config: ConnectionConfig,
    /// The size of the send buffer, if the scenario has one.
    pub send_buffer: Option<usize>,
    /// The same of the receive buffer.
    pub receive_buffer: Option<usize>,
}

/// A route between a client's interface and the server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Route {
    /// Links from the client to the server, in order, with their directions.
    pub up: Way,
    /// The way back.
    pub down: Way,
    /// Largest packet.
    pub mtu: u16,
    /// The client wants it as a backup.
    pub backup: bool,
    /// The link that the client's interface is attached to.
    pub link: Option<usize>,
}

/// What happens to the network while connections run.
#[derive(Clone, Debug)]
pub enum Happening {
    /// A link changes.
    Link(ChangedLink),
    /// The client of a pair loses its address on a route.
    AddressRemoved {
        /// Which pair.
        pair: usize,
        /// Which route.
        route: usize,
    },
    /// It has it again.
    AddressAdded {
        /// Which pair.
        pair: usize,
        /// Which route.
        route: usize,
    },
    /// It wants subflows on a route as backups, or like the others.
    Backup {
        /// Which pair.
        pair: usize,
        /// Which route.
        route: usize,
        /// As backups.
        backup: bool,
    },
}

/// A change of a link.
#[derive(Clone, Debug)]
pub struct ChangedLink(LinkChange);

impl ChangedLink {
    /// Which link.
    pub fn link(&self) -> usize {
        self.0.link
    }

    /// Changes its cable.
    pub fn apply(&self, now: Instant, cable: &mut Cable) {
        self.0.apply(now, cable);
    }

    /// Whether those whose own link it is see that it is down (`Some(false)`) or up (`Some(true)`).
    pub fn seen(&self) -> Option<bool> {
        match self.0.state? {
            LinkState::Up => Some(true),
            LinkState::Down => Some(false),
            LinkState::Silent => None,
        }
    }
}

/// A network that stands.
pub trait Ground: Send + Sync {
    /// Connects the client of a pair to its server: both ends, the client's first.
    ///
    /// # Errors
    ///
    /// Why it cannot, as text.
    fn connect(&self, pair: usize) -> Result<[Box<dyn Wire>; 2], String>;

    /// Does what is to happen now.
    ///
    /// # Errors
    ///
    /// Why it cannot, as text.
    fn happen(&self, what: &Happening) -> Result<(), String>;

    /// What both directions of each link have done, and the packets that wait; `None` when the network has
    /// failed.
    fn links(&self) -> Option<Vec<[(LinkStats, usize); 2]>>;
}

/// One end of a real connection. Reads and writes return with `WouldBlock` or `TimedOut` after some tenths of
/// a second without progress.
pub trait Wire: Send + Sync {
    /// Reads; 0 at the end.
    ///
    /// # Errors
    ///
    /// What the connection reports.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes.
    ///
    /// # Errors
    ///
    /// What the connection reports.
    fn send(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Nothing more will be written.
    ///
    /// # Errors
    ///
    /// What the connection reports.
    fn finish(&self) -> io::Result<()>;

    /// The subflows with the numbers of their routes; `None`: this stack does not say.
    fn subflows(&self) -> Option<Vec<(usize, SubflowInfo)>>;

    /// Bytes received that wait for others before them; `None`: this stack does not say.
    fn out_of_order(&self) -> Option<u64>;
}

impl Plan {
    fn new(setup: &Setup, seed: u64) -> Plan {
        let pairs = setup.flows.iter().flat_map(|flow| {
            let routes = (0..flow.routes.len()).map(|number| {
                let (up, down) = flow.ways(number);
                let (mtu, link) = (setup.mtu(&flow.routes[number]), flow.client_link(number));
                Route { up, down, mtu, backup: flow.backup[number], link }
            });
            let (mut config, usual) = (flow.config(), ConnectionConfig::default());
            if !flow.buffers_given.0 {
                config.send_buffer = usual.send_buffer;
            }
            if !flow.buffers_given.1 {
                config.receive_buffer = usual.receive_buffer;
            }
            let pair = Pair {
                name: flow.name.clone(),
                routes: routes.collect(),
                config,
                send_buffer: flow.buffers_given.0.then_some(flow.send_buffer.limit()),
                receive_buffer: flow.buffers_given.1.then_some(flow.receive_buffer.limit()),
            };
            std::iter::repeat_n(pair, flow.count as usize)
        });
        let links = setup.links.iter().map(|l| (l.forward.clone(), l.reverse.clone())).collect();
        Plan { seed, links, pairs: pairs.collect() }
    }
}

/// What is to happen, in order of time. `groups`: the group of each pair.
fn happenings(setup: &Setup, groups: &[usize]) -> Result<Vec<(Duration, Happening)>, String> {
    let mut all = Vec::new();
    for event in &setup.events {
        match &event.what {
            Change::Link(change) => all.push((event.at, Happening::Link(ChangedLink(change.clone())))),
            Change::Route { group, route, what } => {
                let route = *route;
                for pair in (0..groups.len()).filter(|p| groups[*p] == *group) {
                    all.push((
                        event.at,
                        match *what {
                            RouteChange::Removed => Happening::AddressRemoved { pair, route },
                            RouteChange::Added => Happening::AddressAdded { pair, route },
                            RouteChange::Backup(backup) => Happening::Backup { pair, route, backup },
                        },
                    ));
                }
            }
            Change::Flow { .. } => {
                let what = "events that change algorithms happen in the simulator only";
                return Err(what.to_string());
            }
        }
    }
    all.sort_by_key(|(at, _)| *at);
    Ok(all)
}

impl Experiment {
    /// Runs every combination of parameters with every seed in real time, one after the other. `stack` is
    /// named in the report, as a parameter. `build` builds each network, which is dropped when its run is
    /// over. `progress` is told how many runs of how many are done.
    ///
    /// # Errors
    ///
    /// The first run that could not be done, or a connection that delivered wrong bytes.
    pub fn emulate<G: Ground>(
        &self,
        options: &RunOptions,
        stack: &str,
        build: impl Fn(&Plan) -> Result<G, String>,
        progress: impl Fn(usize, usize),
    ) -> Result<crate::Report, LabError> {
        let mut points = self.points_with(options);
        for point in &mut points {
            point.parameters.push(("stack".to_string(), stack.to_string()));
        }
        let jobs = Experiment::jobs(&points);
        let mut results = Vec::with_capacity(jobs.len());
        let mut faults = Vec::new();
        for (done, (point, seed)) in jobs.iter().enumerate() {
            let point = &points[*point];
            let wrong = |message: String| LabError::Emulation { point: point.name(), seed: *seed, message };
            if options.is_stopped() {
                results.push(None);
                continue;
            }
            let ground = build(&Plan::new(&point.setup, *seed)).map_err(wrong)?;
            let ran = run::run(&point.setup, *seed, &ground, &|| options.is_stopped()).map_err(wrong)?;
            drop(ground);
            results.push(ran.map(|(recording, ended)| {
                let where_it_was = |text: String| format!("{}, seed {seed}: {text}", point.name());
                faults.extend(ended.into_iter().map(where_it_was));
                let keep = point.setup.seeds.first() == Some(seed);
                (evaluate(&point.setup, &recording), keep.then_some(recording))
            }));
            progress(done + 1, jobs.len());
        }
        let mut report = self.report(options, points, &jobs, results);
        report.faults = faults;
        Ok(report)
    }
}

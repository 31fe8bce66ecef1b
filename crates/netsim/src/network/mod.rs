//! Hosts, routers and cables under one virtual clock.
//!
//! # Order
//!
//! The clock jumps to the next thing that is due. Within one instant: actions ([`Network::at`]) in the order
//! they were added; arrivals, cable by cable; stacks' timers, node by node; applications' timers, flow by
//! flow; samples. After each of these the nodes it concerned are settled: events go to the applications,
//! applications act, packets go to the cables, until a node has neither. The same calls with the same seed
//! give the same packets at the same times.

mod agenda;
mod fixed_route;
mod flow;
mod node;
mod probe;
mod route;
mod run;
mod sample;
mod sampling;

pub use crate::id::{CableId, FlowId, NodeId, Side};
pub use flow::{Flow, FlowEnd, FlowSpec, SubflowRecord};
pub use node::PacketNode;
pub use probe::Probe;
pub use sample::{CableSample, EndSample, Sample};

use crate::cable::Cable;
use crate::direction::Direction;
use crate::error::SimError;
use crate::link::Link;
use crate::link_queue::LinkStats;
use crate::middlebox::Middlebox;
use crate::random::{Purpose, derive};
use crate::stream::ByteStream;
use crate::trace::{Recorder, Tap, TraceMode};
use agenda::Agenda;
use fixed_route::FixedRoute;
use node::{CableEnd, CableSlot, Node, NodeKind, NodePath};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use umptcp_stack_core::Stack;
use umptcp_stack_core::config::{ConnectOptions, ListenOptions, StackConfig};
use umptcp_stack_core::device::PathConfig;
use umptcp_types::{ConnectionId, Duration, Instant, ListenerId, PathId};

type Action = Box<dyn FnOnce(&mut Network) + Send>;

/// Bounds of a simulation, so that a bug ends in an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Events (arrivals, timers, actions) in all.
    pub events: u64,
    /// Events within one instant.
    pub events_per_instant: u64,
    /// Packets that one node may send without time passing.
    pub packets_per_settling: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { events: 100_000_000, events_per_instant: 100_000, packets_per_settling: 1_000_000 }
    }
}

impl Limits {
    /// With so many events in all.
    pub fn events(self, events: u64) -> Limits {
        Limits { events, ..self }
    }
}

/// Connections at once that may have brought data with the SYN and not completed the handshake, per listener.
const FAST_OPEN_QUEUE: usize = 16;

/// A network in virtual time. Starts empty, at time zero.
pub struct Network {
    seed: u64,
    now: Instant,
    nodes: Vec<Node>,
    cables: Vec<CableSlot>,
    flows: Vec<Flow>,
    flow_wake: Vec<[Option<Instant>; 2]>,
    connections: HashMap<(usize, ConnectionId), (usize, Side)>,
    /// The flows that are to be accepted where a host listens, in the order in which they were added.
    listeners: HashMap<(usize, ListenerId), Vec<usize>>,
    /// The listener of each port of a host.
    ports: HashMap<(usize, u16), ListenerId>,
    actions: BTreeMap<u64, Action>,
    action_count: u64,
    agenda: Agenda,
    /// Per path of per node, and per router (with path 0): where a destination lies.
    routes: Option<HashMap<(usize, usize, IpAddr), CableEnd>>,
    /// Ways prescribed by [`Network::set_route`].
    fixed: HashMap<(IpAddr, IpAddr), FixedRoute>,
    recorder: Recorder,
    recording: bool,
    probe: Option<Box<dyn Probe>>,
    limits: Limits,
    events: u64,
    instant_events: u64,
    failed: Option<SimError>,
    no_route: u64,
    sample_interval: Option<Duration>,
    samples: Vec<Sample>,
    touched: Vec<usize>,
}

impl Network {
    /// An empty network. All randomness (links, stacks, payload) derives from `seed`.
    pub fn new(seed: u64) -> Network {
        Network {
            seed,
            now: Instant::ZERO,
            nodes: Vec::new(),
            cables: Vec::new(),
            flows: Vec::new(),
            flow_wake: Vec::new(),
            connections: HashMap::new(),
            listeners: HashMap::new(),
            ports: HashMap::new(),
            actions: BTreeMap::new(),
            action_count: 0,
            agenda: Agenda::default(),
            routes: None,
            fixed: HashMap::new(),
            recorder: Recorder::default(),
            recording: true,
            probe: None,
            limits: Limits::default(),
            events: 0,
            instant_events: 0,
            failed: None,
            no_route: 0,
            sample_interval: None,
            samples: Vec::new(),
            touched: Vec::new(),
        }
    }

    fn add_node(&mut self, name: &str, kind: NodeKind) -> NodeId {
        let node = Node { name: name.to_string(), kind, paths: Vec::new(), cables: Vec::new(), armed: None };
        self.nodes.push(node);
        let id = NodeId(self.nodes.len() - 1);
        self.attach_probe(id.0);
        id
    }

    /// Adds a host with a stack of its own. It has no path yet.
    pub fn add_host(&mut self, name: &str, config: StackConfig) -> NodeId {
        let seed = derive(self.seed, Purpose::Stack, self.nodes.len() as u64);
        self.add_node(name, NodeKind::Host(Box::new(Stack::new(config, seed))))
    }

    /// Adds a router: it forwards packets along the shortest way, in no time. Queues and delays belong to
    /// cables.
    pub fn add_router(&mut self, name: &str) -> NodeId {
        self.add_node(name, NodeKind::Router)
    }

    /// Adds a node of another kind.
    pub fn add_custom(&mut self, name: &str, node: Box<dyn PacketNode>) -> NodeId {
        self.add_node(name, NodeKind::Custom(node))
    }

    /// Joins two nodes by a cable: `forward` leads from `first` to `second`.
    pub fn add_cable(&mut self, first: NodeId, second: NodeId, forward: Link, reverse: Link) -> CableId {
        let id = self.cables.len();
        let mut cable = Cable::new(forward, reverse, self.seed, id as u64);
        cable.keep_dropped(self.recording);
        self.cables.push(CableSlot { cable, ends: [first.0, second.0], armed: None });
        self.nodes[first.0].cables.push((id, Direction::Forward));
        self.nodes[second.0].cables.push((id, Direction::Reverse));
        self.routes = None;
        CableId(id)
    }

    /// Adds a path (a network interface with its addresses) to a host or custom node, attached to `cables` of
    /// that node.
    ///
    /// With several cables the interface stands for one behind an ideal switch: each packet takes the cable
    /// that leads to its destination. With `gro`, consecutive packets that arrive at the same instant reach
    /// the stack as one segment; it never delays a packet.
    pub fn add_path(&mut self, node: NodeId, config: PathConfig, cables: &[CableId], gro: bool) -> PathId {
        let addresses = config.addresses.clone();
        let now = self.now;
        let n = &mut self.nodes[node.0];
        let id = match &mut n.kind {
            NodeKind::Host(stack) => stack.path_added(now, config),
            _ => PathId(n.paths.len() as u32),
        };
        let ends = n.cables.iter().copied().filter(|(c, _)| cables.contains(&CableId(*c))).collect();
        n.paths.push(NodePath { id, addresses, cables: ends, gro, removed: false });
        self.routes = None;
        self.wake(node.0);
        id
    }

    /// Takes a path away from a host, as when its interface disappears.
    pub fn remove_path(&mut self, node: NodeId, path: PathId) {
        let now = self.now;
        let n = &mut self.nodes[node.0];
        if let Some(p) = n.paths.iter_mut().find(|p| p.id == path) {
            p.removed = true;
        }
        if let NodeKind::Host(stack) = &mut n.kind {
            stack.path_removed(now, path);
        }
        self.routes = None;
        self.wake(node.0);
    }

    /// The present.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Changes the bounds.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Events so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Packets that were dropped because no node has their destination address, or no cable leads there.
    pub fn unroutable(&self) -> u64 {
        self.no_route
    }

    /// Whether packets are recorded at all (hash, trace, tap). On by default; off is faster.
    pub fn set_recording(&mut self, recording: bool) {
        self.recording = recording;
        for c in &mut self.cables {
            c.cable.keep_dropped(recording);
        }
    }

    /// How much of what happens is kept as text.
    pub fn set_trace(&mut self, mode: TraceMode) {
        self.recorder.set_mode(mode);
    }

    /// Shows every packet event to `tap` from now on.
    pub fn set_tap(&mut self, tap: Option<Box<dyn Tap>>) {
        self.recorder.set_tap(tap);
    }

    /// Shows everything that passes between the network and its stacks to `probe` from now on.
    pub fn set_probe(&mut self, probe: Box<dyn Probe>) {
        self.probe = Some(probe);
        for node in 0..self.nodes.len() {
            self.attach_probe(node);
        }
    }

    /// Gives the stack of a host the probe's observer.
    fn attach_probe(&mut self, node: usize) {
        if let (Some(probe), NodeKind::Host(stack)) = (&mut self.probe, &mut self.nodes[node].kind)
            && let Some(observer) = probe.observer(NodeId(node))
        {
            stack.set_observer(observer);
        }
    }

    /// The kept packet events as text, in order of time: time, cable and direction, what happened, the
    /// packet.
    pub fn trace(&self) -> Vec<String> {
        self.recorder.lines()
    }

    /// A hash of every packet event so far, time, bytes and fate. Equal hashes: the same packets.
    pub fn packet_hash(&self) -> u64 {
        self.recorder.hash()
    }

    /// Number of packet events so far.
    pub fn packet_events(&self) -> u64 {
        self.recorder.count()
    }

    /// A host's stack. `None` for other nodes.
    pub fn stack(&self, node: NodeId) -> Option<&Stack> {
        match &self.nodes[node.0].kind {
            NodeKind::Host(stack) => Some(stack),
            _ => None,
        }
    }

    /// Lets `f` act on a host's stack, and then sends what it has to send. `None` for other nodes.
    pub fn with_stack<R>(&mut self, node: NodeId, f: impl FnOnce(Instant, &mut Stack) -> R) -> Option<R> {
        let now = self.now;
        let result = match &mut self.nodes[node.0].kind {
            NodeKind::Host(stack) => Some(f(now, stack)),
            _ => None,
        };
        self.settle(node.0);
        result
    }

    /// The paths of a node that were not removed.
    pub fn paths(&self, node: NodeId) -> Vec<PathId> {
        self.nodes[node.0].paths.iter().filter(|p| !p.removed).map(|p| p.id).collect()
    }

    /// The addresses of a node's paths, in order.
    pub fn addresses(&self, node: NodeId) -> Vec<IpAddr> {
        let paths = self.nodes[node.0].paths.iter().filter(|p| !p.removed);
        paths.flat_map(|p| p.addresses.iter().copied()).collect()
    }

    /// Does `action` at `at`, or at once (when next run) if that has passed.
    pub fn at(&mut self, at: Instant, action: impl FnOnce(&mut Network) + Send + 'static) {
        let serial = self.action_count;
        self.action_count += 1;
        self.actions.insert(serial, Box::new(action));
        self.agenda.push_action(at.max(self.now), serial);
    }

    /// A cable, to look at.
    pub fn cable(&self, cable: CableId) -> &Cable {
        &self.cables[cable.0].cable
    }

    /// What one direction of a cable has done so far.
    pub fn stats(&self, cable: CableId, direction: Direction) -> LinkStats {
        self.cable(cable).stats(direction)
    }

    /// Lets `f` act on a cable: change a link, add a middlebox.
    pub fn with_cable<R>(&mut self, cable: CableId, f: impl FnOnce(Instant, &mut Cable) -> R) -> R {
        let result = f(self.now, &mut self.cables[cable.0].cable);
        self.touch(cable.0);
        self.rearm_touched();
        result
    }

    /// Cuts both directions: the cable goes silent.
    pub fn cut(&mut self, cable: CableId) {
        for d in Direction::BOTH {
            self.set_cut(cable, d, true);
        }
    }

    /// Mends both directions.
    pub fn restore(&mut self, cable: CableId) {
        for d in Direction::BOTH {
            self.set_cut(cable, d, false);
        }
    }

    /// Cuts or mends one direction.
    pub fn set_cut(&mut self, cable: CableId, direction: Direction, cut: bool) {
        self.with_cable(cable, |now, c| c.queue_mut(direction).set_cut(now, cut));
    }

    /// Changes one direction of a cable.
    pub fn set_link(&mut self, cable: CableId, direction: Direction, link: Link) {
        self.with_cable(cable, |now, c| c.queue_mut(direction).set_link(now, link));
    }

    /// Adds a middlebox to a cable (see [`Middlebox`] for where it stands).
    pub fn add_middlebox(&mut self, cable: CableId, middlebox: impl Middlebox + 'static) {
        self.with_cable(cable, |_, c| c.push_middlebox(Box::new(middlebox)));
    }

    /// Sets a connection up: listens at once, connects at `spec.start`. Several to one port have one
    /// listener, that of the first, and are accepted in the order in which they were added. With `fast_open`
    /// in a side's settings the client asks for cookies and writes before it is connected, and the listener
    /// gives cookies (RFC 7413).
    pub fn add_flow(&mut self, spec: FlowSpec) -> Result<FlowId, SimError> {
        let index = self.flows.len();
        let FlowSpec { client, server, server_address, port, paths, client_config, server_config, .. } = spec;
        let port = port.unwrap_or(5000 + (index % 40_000) as u16);
        let server_ip = server_address.or_else(|| self.addresses(server).first().copied());
        let remote = SocketAddr::new(server_ip.ok_or(SimError::NotAHost(server))?, port);
        let any = match remote {
            SocketAddr::V4(_) => IpAddr::from([0u8; 4]),
            SocketAddr::V6(_) => IpAddr::from([0u8; 16]),
        };
        let mut options = ListenOptions::new(SocketAddr::new(any, port), 16);
        options.fast_open = if server_config.fast_open { FAST_OPEN_QUEUE } else { 0 };
        let listener = match self.ports.get(&(server.0, port)) {
            Some(listener) => *listener,
            None => self
                .with_stack(server, |_, stack| stack.listen(options))
                .ok_or(SimError::NotAHost(server))?
                .map_err(SimError::Listen)?,
        };
        self.ports.insert((server.0, port), listener);
        self.listeners.entry((server.0, listener)).or_default().push(index);
        let streams = [0, 1].map(|d| ByteStream::new(self.seed, index as u64 * 2 + d));
        self.flows.push(Flow {
            client: FlowEnd::new(client, spec.client_application, streams[0], streams[1]),
            server: FlowEnd::new(server, spec.server_application, streams[1], streams[0]),
            port,
            server_config,
            answers_early: spec.answers_early,
        });
        // With Fast Open the SYN may wait for what is written.
        self.flows[index].client.writes_early = client_config.fast_open;
        self.flow_wake.push([None; 2]);
        let mut connect = ConnectOptions::new(remote);
        connect.paths = paths;
        connect.config = client_config;
        let flow = FlowId(index);
        if spec.start <= self.now {
            self.connect_flow(flow, connect)?;
        } else {
            self.at(spec.start, move |net| {
                if let Err(e) = net.connect_flow(flow, connect) {
                    net.failed.get_or_insert(e);
                }
            });
        }
        Ok(flow)
    }

    fn connect_flow(&mut self, flow: FlowId, options: ConnectOptions) -> Result<(), SimError> {
        let node = self.flows[flow.0].client.node;
        let now = self.now;
        let NodeKind::Host(stack) = &mut self.nodes[node.0].kind else {
            return Err(SimError::NotAHost(node));
        };
        let connection = stack.connect(now, options).map_err(SimError::Connect)?;
        self.flows[flow.0].client.connection = Some(connection);
        self.connections.insert((node.0, connection), (flow.0, Side::Client));
        self.run_end(flow, Side::Client);
        Ok(())
    }

    /// A connection and the applications at its ends.
    pub fn flow(&self, flow: FlowId) -> &Flow {
        &self.flows[flow.0]
    }

    /// Number of flows.
    pub fn flow_count(&self) -> usize {
        self.flows.len()
    }

    /// The application at `side` is to send `bytes` more. Only for ends without an
    /// [`Application`](crate::application::Application).
    pub fn send(&mut self, flow: FlowId, side: Side, bytes: u64) {
        let plan = &mut self.flows[flow.0].end_mut(side).plan;
        plan.send = plan.send.saturating_add(bytes);
        self.run_end(flow, side);
    }

    /// The application at `side` is to shut down once it has sent everything. Only for ends without an
    /// [`Application`](crate::application::Application).
    pub fn finish(&mut self, flow: FlowId, side: Side) {
        self.flows[flow.0].end_mut(side).plan.finish = true;
        self.run_end(flow, side);
    }

    /// The application at `side` aborts the connection.
    pub fn abort(&mut self, flow: FlowId, side: Side) {
        let end = self.flows[flow.0].end(side);
        if let Some(connection) = end.connection.filter(|_| !end.freed) {
            self.with_stack(end.node, |now, stack| stack.abort(now, connection));
        }
    }

    /// The application at `side` stops or resumes reading.
    pub fn pause_reading(&mut self, flow: FlowId, side: Side, paused: bool) {
        self.flows[flow.0].end_mut(side).reading_paused = paused;
        self.run_end(flow, side);
    }

    /// Gives one end of a connection another congestion control algorithm, another scheduler, or both, by the
    /// names in its stack's registries. An end that is not connected, or a name that does not exist, changes
    /// nothing.
    pub fn change_algorithms(
        &mut self,
        flow: FlowId,
        side: Side,
        congestion: Option<&str>,
        scheduler: Option<&str>,
    ) -> bool {
        let end = self.flows[flow.0].end(side);
        let Some(connection) = end.connection.filter(|_| !end.freed) else { return false };
        let change = |now, stack: &mut Stack| {
            congestion.is_none_or(|name| stack.set_congestion(now, connection, name).is_ok())
                && scheduler.is_none_or(|name| stack.set_scheduler(now, connection, name).is_ok())
        };
        self.with_stack(end.node, change).unwrap_or(false)
    }

    /// Asks the stack about the subflows of both ends and updates [`FlowEnd::subflows`].
    pub fn refresh(&mut self, flow: FlowId) {
        for side in [Side::Client, Side::Server] {
            let end = self.flows[flow.0].end_mut(side);
            if let NodeKind::Host(stack) = &self.nodes[end.node.0].kind {
                end.refresh(stack);
            }
        }
    }
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Network({} nodes, {} cables, {} flows, at {}, {:?})",
            self.nodes.len(),
            self.cables.len(),
            self.flows.len(),
            self.now,
            self.recorder
        )
    }
}

#[cfg(test)]
mod tests;

//! The common case: one client with several paths, one server.

use crate::direction::Direction;
use crate::error::SimError;
use crate::id::{CableId, FlowId, NodeId, Side};
use crate::link::Link;
use crate::middlebox::Middlebox;
use crate::network::{FlowSpec, Network};
use crate::trace::TraceMode;
use std::net::IpAddr;
use std::ops::{Deref, DerefMut};
use umptcp_stack_core::config::{ConnectionConfig, StackConfig};
use umptcp_stack_core::device::PathConfig;
use umptcp_types::{Duration, Instant};

/// A client and a server joined by one cable per path of the client.
///
/// The client has one address per cable. The server has one address, reachable by every cable, unless
/// [`PairBuilder::multihomed`] gives it one per cable; then too every cable leads to all of them, so that a
/// cable always stands for the client's interface.
#[derive(Debug)]
pub struct Pair {
    net: Network,
    client: NodeId,
    server: NodeId,
    cables: Vec<CableId>,
    client_config: ConnectionConfig,
    server_config: ConnectionConfig,
}

/// A change of a path's settings.
type PathOption = fn(&mut PathConfig);

/// Describes a [`Pair`].
#[derive(Clone, Debug)]
pub struct PairBuilder {
    paths: Vec<(Link, Link)>,
    options: Vec<(usize, PathOption)>,
    seed: u64,
    ipv6: bool,
    multihomed: bool,
    segmentation: bool,
    checksum_offload: bool,
    gro: bool,
    longest_silence: Option<Duration>,
    trace: TraceMode,
    stack_config: StackConfig,
    client_config: ConnectionConfig,
    server_config: ConnectionConfig,
}

impl Default for PairBuilder {
    fn default() -> Self {
        PairBuilder {
            paths: Vec::new(),
            options: Vec::new(),
            seed: 0,
            ipv6: false,
            multihomed: false,
            segmentation: true,
            checksum_offload: true,
            gro: true,
            longest_silence: None,
            trace: TraceMode::Last(200),
            stack_config: StackConfig::default(),
            client_config: ConnectionConfig::default(),
            server_config: ConnectionConfig::default(),
        }
    }
}

impl PairBuilder {
    /// Adds a path whose two directions are alike.
    pub fn path(self, link: Link) -> Self {
        self.path_both(link.clone(), link)
    }

    /// Adds a path: `up` leads from client to server, `down` back.
    pub fn path_both(mut self, up: Link, down: Link) -> Self {
        self.paths.push((up, down));
        self
    }

    /// Changes the settings of the client's path `index` (in the order of [`path`](Self::path)).
    pub fn path_options(mut self, index: usize, change: PathOption) -> Self {
        self.options.push((index, change));
        self
    }

    /// The seed; 0 by default.
    pub fn seed(self, seed: u64) -> Self {
        PairBuilder { seed, ..self }
    }

    /// IPv6 instead of IPv4.
    pub fn ipv6(self, ipv6: bool) -> Self {
        PairBuilder { ipv6, ..self }
    }

    /// Gives the server one interface and address per path instead of one in all.
    pub fn multihomed(self, multihomed: bool) -> Self {
        PairBuilder { multihomed, ..self }
    }

    /// Whether the interfaces cut segments of up to 64 kB (on by default).
    pub fn segmentation(self, on: bool) -> Self {
        PairBuilder { segmentation: on, ..self }
    }

    /// Whether the interfaces complete and verify checksums (on by default); off, both stacks do it.
    pub fn checksum_offload(self, on: bool) -> Self {
        PairBuilder { checksum_offload: on, ..self }
    }

    /// Whether consecutive packets that arrive at the same instant reach the stack as one segment (on by
    /// default: it delays nothing, and on links with a rate it merges nothing).
    pub fn gro(self, on: bool) -> Self {
        PairBuilder { gro: on, ..self }
    }

    /// Longest silence on paths of the client (`PathConfig::longest_silence`); any by default.
    pub fn longest_silence(self, silence: Option<Duration>) -> Self {
        PairBuilder { longest_silence: silence, ..self }
    }

    /// How many packet events are kept as text; the last 200 by default.
    pub fn trace(self, trace: TraceMode) -> Self {
        PairBuilder { trace, ..self }
    }

    /// Settings of both stacks.
    pub fn stack_config(self, stack_config: StackConfig) -> Self {
        PairBuilder { stack_config, ..self }
    }

    /// Settings of connections, on both sides.
    pub fn config(self, config: ConnectionConfig) -> Self {
        PairBuilder { client_config: config.clone(), server_config: config, ..self }
    }

    /// Settings of the client's connections.
    pub fn client_config(self, client_config: ConnectionConfig) -> Self {
        PairBuilder { client_config, ..self }
    }

    /// Settings of the server's connections.
    pub fn server_config(self, server_config: ConnectionConfig) -> Self {
        PairBuilder { server_config, ..self }
    }

    fn address(&self, server: bool, index: usize) -> IpAddr {
        let [block, index] = [u8::from(server) + 1, index as u8];
        if self.ipv6 {
            IpAddr::from([0xfd00, 0, 0, u16::from(block), u16::from(index), 0, 0, 1])
        } else {
            IpAddr::from([10, block, index, 1])
        }
    }

    fn path_config(&self, name: String, address: IpAddr, mtu: u16) -> PathConfig {
        let mut config = PathConfig::new(name, address);
        config.mtu = mtu;
        config.max_packet = if self.segmentation { 65_535 } else { u32::from(mtu) };
        config.checksum_offload = self.checksum_offload;
        config
    }

    /// Makes the network. At least one path is needed; without any, one over an unlimited link is made.
    pub fn build(mut self) -> Pair {
        if self.paths.is_empty() {
            self.paths.push((Link::default(), Link::default()));
        }
        let mut net = Network::new(self.seed);
        net.set_trace(self.trace);
        let client = net.add_host("client", self.stack_config.clone());
        let server = net.add_host("server", self.stack_config.clone());
        let cables: Vec<CableId> = self
            .paths
            .iter()
            .map(|(up, down)| net.add_cable(client, server, up.clone(), down.clone()))
            .collect();
        let mtu = |i: usize| self.paths[i].0.mtu.min(self.paths[i].1.mtu);
        for (i, cable) in cables.iter().enumerate() {
            let mut config = self.path_config(format!("client{i}"), self.address(false, i), mtu(i));
            config.longest_silence = self.longest_silence;
            self.options.iter().filter(|(index, _)| *index == i).for_each(|(_, change)| change(&mut config));
            net.add_path(client, config, &[*cable], self.gro);
        }
        let count = if self.multihomed { cables.len() } else { 1 };
        let server_mtu = (0..cables.len()).map(mtu).max().unwrap_or(1500);
        for i in 0..count {
            let mtu = if self.multihomed { mtu(i) } else { server_mtu };
            let config = self.path_config(format!("server{i}"), self.address(true, i), mtu);
            net.add_path(server, config, &cables, self.gro);
        }
        let PairBuilder { client_config, server_config, .. } = self;
        Pair { net, client, server, cables, client_config, server_config }
    }
}

/// Virtual time that the convenience methods of [`Pair`] wait at most.
const PATIENCE: Duration = Duration::from_secs(3600);

impl Pair {
    /// Begins a description.
    pub fn builder() -> PairBuilder {
        PairBuilder::default()
    }

    /// The client.
    pub fn client(&self) -> NodeId {
        self.client
    }

    /// The server.
    pub fn server(&self) -> NodeId {
        self.server
    }

    /// The node of a side.
    pub fn node(&self, side: Side) -> NodeId {
        match side {
            Side::Client => self.client,
            Side::Server => self.server,
        }
    }

    /// The cable of path `index`: forward is from client to server.
    pub fn path_cable(&self, index: usize) -> CableId {
        self.cables[index]
    }

    /// All cables, in order of the paths.
    pub fn cables(&self) -> &[CableId] {
        &self.cables
    }

    /// Path `index` goes silent at `at`, in both directions.
    pub fn cut_path_at(&mut self, at: Instant, index: usize) {
        let cable = self.cables[index];
        self.net.at(at, move |net| net.cut(cable));
    }

    /// Path `index` is mended at `at`.
    pub fn restore_path_at(&mut self, at: Instant, index: usize) {
        let cable = self.cables[index];
        self.net.at(at, move |net| net.restore(cable));
    }

    /// Puts a middlebox on path `index`, at the client's end.
    pub fn middlebox(&mut self, index: usize, middlebox: impl Middlebox + 'static) {
        self.net.add_middlebox(self.cables[index], middlebox);
    }

    /// The description of a connection between the two with the settings given to the builder.
    pub fn flow_spec(&self) -> FlowSpec {
        let mut spec = FlowSpec::new(self.client, self.server);
        spec.client_config = self.client_config.clone();
        spec.server_config = self.server_config.clone();
        spec
    }

    /// Makes a connection and runs until both sides are connected.
    pub fn connect(&mut self) -> Result<FlowId, SimError> {
        let spec = self.flow_spec();
        self.connect_with(spec)
    }

    /// The same with a description of one's own.
    pub fn connect_with(&mut self, spec: FlowSpec) -> Result<FlowId, SimError> {
        let flow = self.net.add_flow(spec)?;
        self.net.run_until_true("the connection", PATIENCE, |net| {
            let f = net.flow(flow);
            f.client.closed.is_some() || (f.client.connected_at.is_some() && f.server.connected_at.is_some())
        })?;
        self.check(flow)?;
        Ok(flow)
    }

    fn check(&self, flow: FlowId) -> Result<(), SimError> {
        match self.net.flow(flow).error() {
            Some((side, error)) => Err(SimError::Connection { flow, side, error }),
            None => Ok(()),
        }
    }

    /// Runs until the connection has this many subflows on both sides.
    pub fn await_subflows(&mut self, flow: FlowId, count: usize) -> Result<(), SimError> {
        self.net.run_until_true(&format!("{count} subflows"), PATIENCE, |net| {
            let alive = |side| {
                net.flow(flow).end(side).subflows.iter().filter(|s| s.closed.is_none()).count() >= count
            };
            alive(Side::Client) && alive(Side::Server)
        })
    }

    /// Sends `bytes` more from `side`, runs until the other side has received everything, and returns the
    /// time it took.
    pub fn transfer(&mut self, flow: FlowId, side: Side, bytes: u64) -> Result<Duration, SimError> {
        let start = self.net.now();
        self.net.send(flow, side, bytes);
        let goal = self.net.flow(flow).end(side).plan().send;
        self.net.run_until_true(&format!("{bytes} bytes from {side:?}"), PATIENCE, |net| {
            let f = net.flow(flow);
            f.end(side.peer()).progress.received >= goal || f.error().is_some()
        })?;
        self.check(flow)?;
        Ok(self.net.now() - start)
    }

    /// Shuts both directions down and runs until both sides have closed cleanly.
    pub fn close(&mut self, flow: FlowId) -> Result<(), SimError> {
        self.net.finish(flow, Side::Client);
        self.net.finish(flow, Side::Server);
        self.await_closed(flow)
    }

    /// Runs until both sides have closed cleanly.
    pub fn await_closed(&mut self, flow: FlowId) -> Result<(), SimError> {
        self.net.run_until_true("both sides to close", PATIENCE, |net| {
            net.flow(flow).is_closed() || net.flow(flow).error().is_some()
        })?;
        self.check(flow)
    }

    /// TCP payload, retransmissions included, that arrived over path `index` from `side`.
    pub fn path_payload(&self, side: Side, index: usize) -> u64 {
        let direction = match side {
            Side::Client => Direction::Forward,
            Side::Server => Direction::Reverse,
        };
        self.net.stats(self.cables[index], direction).delivered_payload
    }
}

impl Deref for Pair {
    type Target = Network;
    fn deref(&self) -> &Network {
        &self.net
    }
}

impl DerefMut for Pair {
    fn deref_mut(&mut self) -> &mut Network {
        &mut self.net
    }
}

//! Cables between ports under a clock that the caller brings.

use crate::cable::Cable;
use crate::direction::Direction;
use crate::gro::Coalescer;
use crate::link::Link;
use crate::packet::Packet;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use umptcp_stack_core::device::{PathConfig, RxPacket, Transmit};
use umptcp_stack_core::event::Event;
use umptcp_stack_core::network_stack::NetworkStack;
use umptcp_types::{Duration, Instant, PathId};

/// A place where packets enter and leave the emulated network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortId(pub usize);

/// A way that is prescribed.
#[derive(Clone, Debug)]
struct Way {
    cables: Vec<(usize, Direction)>,
    port: PortId,
}

impl Way {
    /// What follows a cable: the next one, or the port at the end. `None`: the cable is not on this way.
    fn after(&self, cable: (usize, Direction)) -> Option<Result<(usize, Direction), PortId>> {
        let at = self.cables.iter().position(|c| *c == cable)?;
        Some(self.cables.get(at + 1).copied().ok_or(self.port))
    }
}

/// Cables between ports, without clock or thread.
///
/// As a [`NetworkStack`] its paths are its ports: the first path added is port 0, and so on.
#[derive(Debug)]
pub struct Emulation {
    seed: u64,
    /// Each with the ports at its ends, if it has any.
    cables: Vec<(Cable, Option<[PortId; 2]>)>,
    /// Cables at each port, with the direction that leads away from it.
    ports: Vec<Vec<(usize, Direction)>>,
    routes: HashMap<(PortId, IpAddr), usize>,
    /// Ways prescribed from one address to another.
    prescribed: HashMap<(IpAddr, IpAddr), Way>,
    coalesce: bool,
    unroutable: u64,
    coalescer: Coalescer<PortId>,
    granularity: Duration,
    /// No batch leaves before this instant.
    earliest: Instant,
    /// The rest of the batch that is leaving.
    batch: VecDeque<(PortId, Packet)>,
    /// Paths added so far.
    paths: u32,
}

impl Emulation {
    /// An empty network whose draws derive from `seed`.
    pub fn new(seed: u64) -> Emulation {
        Emulation {
            seed,
            cables: Vec::new(),
            ports: Vec::new(),
            routes: HashMap::new(),
            prescribed: HashMap::new(),
            coalesce: true,
            unroutable: 0,
            coalescer: Coalescer::new(),
            granularity: Duration::ZERO,
            earliest: Instant::ZERO,
            batch: VecDeque::new(),
            paths: 0,
        }
    }

    /// Packets leave in batches at least this far apart, so that fast links cost few wake-ups and their
    /// packets merge into segments. A packet after a pause is not delayed by it. Zero, the default: each
    /// leaves as soon as it is due.
    pub fn set_granularity(&mut self, granularity: Duration) {
        self.granularity = granularity;
    }

    /// Whether packets that leave together are merged into segments (on by default).
    pub fn set_coalescing(&mut self, on: bool) {
        self.coalesce = on;
    }

    /// Adds a port.
    pub fn add_port(&mut self) -> PortId {
        self.ports.push(Vec::new());
        PortId(self.ports.len() - 1)
    }

    /// Number of ports.
    pub fn port_count(&self) -> usize {
        self.ports.len()
    }

    /// Joins two ports; `forward` leads from `first` to `second`. Returns the cable's number. Panics when a
    /// port is not of this network.
    pub fn add_cable(&mut self, first: PortId, second: PortId, forward: Link, reverse: Link) -> usize {
        let id = self.cables.len();
        self.cables.push((Cable::new(forward, reverse, self.seed, id as u64), Some([first, second])));
        self.ports[first.0].push((id, Direction::Forward));
        self.ports[second.0].push((id, Direction::Reverse));
        id
    }

    /// Adds a cable that is attached to nothing, for [`Emulation::set_route`]. Returns its number.
    pub fn add_loose_cable(&mut self, forward: Link, reverse: Link) -> usize {
        let id = self.cables.len();
        self.cables.push((Cable::new(forward, reverse, self.seed, id as u64), None));
        id
    }

    /// Prescribes the way of all packets from `source` to `destination`, wherever they enter: along these
    /// cables in this order, and out at `port`. Each cable may occur once. The way back is prescribed
    /// separately. Panics when a cable is not of this network, or there is none.
    pub fn set_route(
        &mut self,
        source: IpAddr,
        destination: IpAddr,
        cables: &[(usize, Direction)],
        port: PortId,
    ) {
        assert!(!cables.is_empty() && cables.iter().all(|(c, _)| *c < self.cables.len()), "{cables:?}");
        self.prescribed.insert((source, destination), Way { cables: cables.to_vec(), port });
    }

    fn way(&self, packet: &Packet) -> Option<&Way> {
        if self.prescribed.is_empty() {
            return None;
        }
        self.prescribed.get(&(packet.source()?, packet.destination()?))
    }

    /// Packets to `destination` that enter at `port` take `cable`. Not needed at ports with only one cable,
    /// which takes all.
    pub fn add_route(&mut self, port: PortId, destination: IpAddr, cable: usize) {
        self.routes.insert((port, destination), cable);
    }

    /// A cable, to look at. Panics when there is none of that number.
    pub fn cable(&self, cable: usize) -> &Cable {
        &self.cables[cable].0
    }

    /// A cable, to change it.
    pub fn cable_mut(&mut self, cable: usize) -> &mut Cable {
        &mut self.cables[cable].0
    }

    /// Cuts a cable in both directions (it goes silent), or mends it.
    pub fn set_cut(&mut self, now: Instant, cable: usize, cut: bool) {
        for d in Direction::BOTH {
            self.cable_mut(cable).queue_mut(d).set_cut(now, cut);
        }
    }

    /// Packets dropped because no route leads to their destination.
    pub fn unroutable(&self) -> u64 {
        self.unroutable
    }

    /// A packet or segment entered at `port`.
    pub fn input(&mut self, now: Instant, port: PortId, packet: Packet) {
        if let Some((cable, direction)) = self.way(&packet).and_then(|way| way.cables.first().copied()) {
            self.cables[cable].0.enqueue(now, direction, packet);
            return;
        }
        let ends = self.ports.get(port.0).map_or(&[][..], Vec::as_slice);
        let routed = || {
            let cable = self.routes.get(&(port, packet.destination()?))?;
            ends.iter().find(|(c, _)| c == cable)
        };
        let end = match ends {
            [only] => Some(only),
            _ => routed(),
        };
        match end {
            Some(&(cable, direction)) => self.cables[cable].0.enqueue(now, direction, packet),
            None => self.unroutable += 1,
        }
    }

    /// Hands over everything that has arrived by `now`, merged where possible.
    pub fn output(&mut self, now: Instant, mut deliver: impl FnMut(PortId, Packet)) {
        let mut at = 0;
        while at < self.cables.len() {
            // A cable that another one leads to may come before it.
            let mut again = self.cables.len();
            while let Some((direction, packet)) = self.cables[at].0.poll(now) {
                let port = match self.way(&packet) {
                    Some(way) => match way.after((at, direction)) {
                        Some(Ok((next, direction))) => {
                            self.cables[next].0.enqueue(now, direction, packet);
                            again = again.min(next);
                            continue;
                        }
                        Some(Err(port)) => Some(port),
                        None => None,
                    },
                    None => self.cables[at].1.map(|ends| match direction {
                        Direction::Forward => ends[1],
                        Direction::Reverse => ends[0],
                    }),
                };
                match port {
                    Some(port) if self.coalesce => self.coalescer.push(port, packet, &mut deliver),
                    Some(port) => deliver(port, packet),
                    None => self.unroutable += 1,
                }
            }
            at = again.min(at + 1);
        }
        self.coalescer.flush(deliver);
    }

    /// When [`Emulation::output`] should be called next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.cables.iter().filter_map(|(c, _)| c.next_deadline()).min()
    }

    /// The next packet of the batch that is due at `now`. Call until `None`.
    pub(super) fn poll_batch(&mut self, now: Instant) -> Option<(PortId, Packet)> {
        if self.batch.is_empty() && now >= self.earliest {
            let mut batch = std::mem::take(&mut self.batch);
            self.output(now, |port, packet| batch.push_back((port, packet)));
            if !batch.is_empty() {
                self.earliest = now + self.granularity;
            }
            self.batch = batch;
        }
        self.batch.pop_front()
    }
}

impl NetworkStack for Emulation {
    fn path_added(&mut self, _now: Instant, _config: PathConfig) -> PathId {
        self.paths += 1;
        PathId(self.paths - 1)
    }

    fn path_removed(&mut self, _now: Instant, _path: PathId) {}

    fn path_blocked(&mut self, _now: Instant, _path: PathId, _blocked: bool) {}

    fn path_busy(&mut self, _now: Instant, _path: PathId, _busy: bool) {}

    fn path_rate(&mut self, _now: Instant, _path: PathId, _rate: Option<u64>) {}

    fn handle_packet(&mut self, now: Instant, path: PathId, packet: RxPacket) {
        self.input(now, PortId(path.0 as usize), Packet::from_rx(packet));
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        let (port, packet) = self.poll_batch(now)?;
        Some(packet.into_transmit(PathId(port.0 as u32), now))
    }

    fn poll_event(&mut self) -> Option<Event> {
        None
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if !self.batch.is_empty() {
            return Some(Instant::ZERO);
        }
        self.next_deadline().map(|deadline| deadline.max(self.earliest))
    }
}

//! What captured programs send other than TCP: carried between the captured side and a path outside.
//!
//! UDP, ICMP and ICMPv6 pass packet by packet, with the program's address exchanged for that of a path; what
//! happens to it there is the path's affair, as for TCP. There is no socket for a flow, and nothing to run
//! out of.

mod packet;

use packet::{End, Flow};
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::ops::{Deref, DerefMut};
use std::time::Duration;
use umptcp_stack_core::Stack;
use umptcp_stack_core::device::{HeaderBuf, PathConfig, PathKind, RxPacket, Transmit};
use umptcp_stack_core::event::{Event, Traffic};
use umptcp_stack_core::network_stack::NetworkStack;
use umptcp_stack_core::payload::Payload;
use umptcp_stack_core::wire::icmp::Unreachable;
use umptcp_stack_core::wire::ip::IpHeader;
use umptcp_types::{Instant, PathId};

/// Packets that wait for their device; more are lost, as in any queue.
const QUEUE: usize = 512;

/// Flows that are remembered. With more, those that are idle go.
const FLOWS: usize = 8_192;

/// How long a flow that is remembered may be idle before another may take its place.
const IDLE: Duration = Duration::from_secs(120);

/// The stack, with a carrier in front of it if programs are captured.
pub(crate) struct Front {
    stack: Stack,
    carrier: Option<Carrier>,
}

/// Carries what is not TCP.
struct Carrier {
    /// The path that captures.
    captured: PathId,
    /// The addresses on it, at most one of a family.
    own: Vec<IpAddr>,
    /// Datagrams to these ports are refused.
    refused: Vec<u16>,
    /// Which path each flow takes, and when it was last used.
    flows: HashMap<Flow, (PathId, Instant)>,
    /// Paths that do not answer.
    silent: HashSet<PathId>,
    queue: VecDeque<Transmit>,
}

impl Front {
    pub(crate) fn new(stack: Stack) -> Front {
        Front { stack, carrier: None }
    }

    /// From now on, carries what is not TCP between the path that captures, with these addresses, and the
    /// others.
    pub(crate) fn carry(&mut self, captured: PathId, own: Vec<IpAddr>) {
        let (flows, silent, queue) = (HashMap::new(), HashSet::new(), VecDeque::new());
        self.carrier = Some(Carrier { captured, own, refused: Vec::new(), flows, silent, queue });
    }

    /// Refuses datagrams to a port from now on. Without effect where nothing is carried.
    pub(crate) fn refuse_datagrams(&mut self, port: u16) {
        if let Some(carrier) = &mut self.carrier {
            carrier.refused.push(port);
        }
    }

    /// Carries no more.
    pub(crate) fn carry_no_more(&mut self, captured: PathId) {
        self.carrier.take_if(|c| c.captured == captured);
    }

    /// Something is carried.
    pub(crate) fn carries(&self) -> bool {
        self.carrier.is_some()
    }

    /// The paths that do not answer. Flows take others.
    pub(crate) fn set_silent(&mut self, paths: HashSet<PathId>) {
        if let Some(carrier) = &mut self.carrier {
            carrier.silent = paths;
        }
    }
}

impl Deref for Front {
    type Target = Stack;

    fn deref(&self) -> &Stack {
        &self.stack
    }
}

impl DerefMut for Front {
    fn deref_mut(&mut self) -> &mut Stack {
        &mut self.stack
    }
}

impl NetworkStack for Front {
    fn path_added(&mut self, now: Instant, config: PathConfig) -> PathId {
        self.stack.path_added(now, config)
    }

    fn path_removed(&mut self, now: Instant, path: PathId) {
        self.carry_no_more(path);
        self.stack.path_removed(now, path);
    }

    fn path_blocked(&mut self, now: Instant, path: PathId, blocked: bool) {
        self.stack.path_blocked(now, path, blocked);
    }

    fn path_busy(&mut self, now: Instant, path: PathId, busy: bool) {
        self.stack.path_busy(now, path, busy);
    }

    fn path_rate(&mut self, now: Instant, path: PathId, rate: Option<u64>) {
        self.stack.path_rate(now, path, rate);
    }

    fn handle_packet(&mut self, now: Instant, path: PathId, packet: RxPacket) {
        if let Some(carrier) = &mut self.carrier
            && carrier.take(&self.stack, now, path, &packet)
        {
            self.stack.count_on_path(now, path, Traffic::new(0, packet.buffer.len() as u64));
            return;
        }
        self.stack.handle_packet(now, path, packet);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.stack.handle_timeout(now);
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        while let Some(carried) = self.carrier.as_mut().and_then(|c| c.queue.pop_front()) {
            // What the path may carry may have been used up since.
            if !self.stack.is_path_spent(carried.path) {
                self.stack.count_on_path(now, carried.path, Traffic::new(carried.wire_len() as u64, 0));
                return Some(carried);
            }
        }
        self.stack.poll_transmit(now)
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.stack.poll_event()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.stack.poll_timeout()
    }
}

impl Carrier {
    /// Takes a packet that is none of the stack's. False: it is for the stack.
    fn take(&mut self, stack: &Stack, now: Instant, from: PathId, packet: &RxPacket) -> bool {
        // Nearly all is TCP, which the stack parses.
        if packet::is_plain_tcp(&packet.buffer) {
            return false;
        }
        // What is not understood is the stack's to count.
        let Ok(header) = IpHeader::parse(&packet.buffer) else { return false };
        if !packet::is_other(&header, &packet.buffer) {
            return false;
        }
        if from == self.captured {
            self.outward(stack, now, &header, &packet.buffer);
        } else {
            self.inward(now, from, &header, &packet.buffer);
        }
        true
    }

    fn outward(&mut self, stack: &Stack, now: Instant, header: &IpHeader, packet: &[u8]) {
        // Neighbour discovery and the like end at the link, which is this device.
        if !self.own.contains(&header.src) || is_local(header.dst) {
            return;
        }
        let flow = packet::flow(header, packet, End::Source);
        if flow.datagram_to(header).is_some_and(|port| self.refused.contains(&port)) {
            if let Some(answer) = Unreachable::Port.answer(header, packet) {
                self.send(now, self.captured, &answer);
            }
            return;
        }
        let Some((path, address)) = self.path_for(stack, now, flow, header.src.is_ipv6()) else { return };
        if let Some(packet) = packet::readdressed(header, packet, End::Source, address) {
            self.send(now, path, &packet);
        }
    }

    fn inward(&mut self, now: Instant, from: PathId, header: &IpHeader, packet: &[u8]) {
        let Some(own) = self.own.iter().copied().find(|a| a.is_ipv6() == header.dst.is_ipv6()) else {
            return;
        };
        // What comes from outside first is answered by the same path.
        let flow = packet::flow(header, packet, End::Destination);
        self.remember(now, flow, from);
        let Some(mut packet) = packet::readdressed(header, packet, End::Destination, own) else { return };
        // This host itself says that there is no way: from an address that the program's side has, too, and would drop
        // as its own.
        if self.own.contains(&header.src) && !packet::come_from(&mut packet, header.dst) {
            return;
        }
        self.send(now, self.captured, &packet);
    }

    /// The path of a flow, with its address there: the one that it has as long as that is good, or else the
    /// first.
    fn path_for(&mut self, stack: &Stack, now: Instant, flow: Flow, v6: bool) -> Option<(PathId, IpAddr)> {
        let address_on = |path: PathId| {
            let config = stack.path(path).filter(|p| p.kind != PathKind::Capture)?;
            let fits = |a: &IpAddr| a.is_ipv6() == v6 && !stack.is_path_down(path, *a);
            config.addresses.iter().copied().find(fits)
        };
        let used = self.flows.get(&flow).map(|(path, _)| *path).filter(|path| !self.silent.contains(path));
        let chosen = used.and_then(|path| Some((path, address_on(path)?))).or_else(|| {
            let all = || stack.path_ids().filter_map(|path| Some((path, address_on(path)?)));
            all().find(|(path, _)| !self.silent.contains(path)).or_else(|| all().next())
        })?;
        self.remember(now, flow, chosen.0);
        Some(chosen)
    }

    fn remember(&mut self, now: Instant, flow: Flow, path: PathId) {
        if self.flows.len() >= FLOWS && !self.flows.contains_key(&flow) {
            self.flows.retain(|_, (_, used)| now - *used < IDLE);
            if self.flows.len() >= FLOWS {
                // A flood: who is forgotten takes the first path.
                self.flows.clear();
            }
        }
        self.flows.insert(flow, (path, now));
    }

    fn send(&mut self, now: Instant, path: PathId, packet: &[u8]) {
        if self.queue.len() >= QUEUE {
            return;
        }
        let (first, rest) = packet.split_at(if packet[0] >> 4 == 4 { 20 } else { 40 });
        let mut header = HeaderBuf::zeroed(first.len());
        header.as_mut_slice().copy_from_slice(first);
        self.queue.push_back(
            Transmit::new(path, header, Payload::from(bytes::Bytes::copy_from_slice(rest)))
                .with_earliest(now),
        );
    }
}

/// Does not leave the link.
fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.is_multicast() || a.is_broadcast() || a.is_link_local(),
        IpAddr::V6(a) => a.is_multicast() || a.is_unicast_link_local(),
    }
}

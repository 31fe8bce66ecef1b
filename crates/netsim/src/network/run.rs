//! The event loop.

use super::Network;
use super::agenda::Due;
use super::fixed_route::Hop;
use super::node::{CableEnd, NodeKind};
use crate::drop_reason::DropReason;
use crate::error::SimError;
use crate::gro::Coalescer;
use crate::id::{FlowId, NodeId, Side};
use crate::packet::Packet;
use crate::trace::{PacketEvent, PacketEventKind};
use std::cmp::Reverse;
use umptcp_stack_core::event::{Event, RefuseWith};
use umptcp_types::{Duration, Instant, PathId};

impl Network {
    /// The next thing that is due.
    fn next_due(&mut self) -> Option<(Instant, Due)> {
        while let Some(Reverse((at, due))) = self.agenda.0.peek().copied() {
            let valid = match due {
                Due::Action(serial) => self.actions.contains_key(&serial),
                Due::Cable(c) => self.cables[c].armed == Some(at),
                Due::Node(n) => self.nodes[n].armed == Some(at),
                Due::Application(f, side) => self.flow_wake[f][side as usize] == Some(at),
                Due::Sample => self.sample_interval.is_some(),
            };
            if valid {
                return Some((at, due));
            }
            self.agenda.0.pop();
        }
        None
    }

    /// When the next thing happens, samples apart. `None`: nothing will, unless somebody acts.
    pub fn next_event_at(&mut self) -> Option<Instant> {
        let idle = self.cables.iter().all(|c| c.armed.is_none())
            && self.nodes.iter().all(|n| n.armed.is_none())
            && self.flow_wake.iter().flatten().all(Option::is_none)
            && self.actions.is_empty();
        if idle { None } else { self.next_due().map(|(at, _)| at) }
    }

    /// Whether nothing will happen any more: no packet under way, no timer, no action.
    pub fn is_idle(&mut self) -> bool {
        self.next_event_at().is_none()
    }

    /// Does the next thing, if it is due by `until`. Returns whether there was one.
    fn step(&mut self, until: Instant) -> Result<bool, SimError> {
        if let Some(e) = &self.failed {
            return Err(e.clone());
        }
        let Some((at, due)) = self.next_due().filter(|(at, _)| *at <= until) else { return Ok(false) };
        self.agenda.0.pop();
        if at > self.now {
            self.now = at;
            self.instant_events = 0;
        }
        self.events += 1;
        self.instant_events += 1;
        if self.events > self.limits.events {
            return Err(self.fail(SimError::TooManyEvents { limit: self.limits.events, at: self.now }));
        }
        if self.instant_events > self.limits.events_per_instant {
            let who = match due {
                Due::Node(n) => format!("the timer of {}", self.nodes[n].name),
                Due::Cable(c) => format!("cable {c}"),
                other => format!("{other:?}"),
            };
            return Err(self.fail(SimError::Livelock { at: self.now, who }));
        }
        match due {
            Due::Action(serial) => {
                if let Some(action) = self.actions.remove(&serial) {
                    action(self);
                }
            }
            Due::Cable(c) => {
                self.cables[c].armed = None;
                self.arrivals(c);
            }
            Due::Node(n) => {
                self.nodes[n].armed = None;
                let due = |timeout: Option<Instant>| timeout.is_some_and(|t| t <= at);
                match &mut self.nodes[n].kind {
                    NodeKind::Host(stack) if due(stack.poll_timeout()) => stack.handle_timeout(at),
                    NodeKind::Custom(node) if due(node.poll_timeout()) => node.handle_timeout(at),
                    _ => {}
                }
                self.settle(n);
            }
            Due::Application(f, side) => {
                self.flow_wake[f][side as usize] = None;
                self.run_end(FlowId(f), side);
            }
            Due::Sample => self.take_sample(),
        }
        match &self.failed {
            Some(e) => Err(e.clone()),
            None => Ok(true),
        }
    }

    /// From now on every run ends with the first error there was.
    fn fail(&mut self, error: SimError) -> SimError {
        self.failed.get_or_insert(error).clone()
    }

    /// Runs until `until`, which is then the present.
    pub fn run_until(&mut self, until: Instant) -> Result<(), SimError> {
        while self.step(until)? {}
        self.now = self.now.max(until);
        self.instant_events = 0;
        Ok(())
    }

    /// Runs for `time`.
    pub fn run_for(&mut self, time: Duration) -> Result<(), SimError> {
        self.run_until(self.now + time)
    }

    /// Runs until `done` says so, checked after every event; at most for `time`. `what` names it in the
    /// error.
    pub fn run_until_true(
        &mut self,
        what: &str,
        time: Duration,
        mut done: impl FnMut(&Network) -> bool,
    ) -> Result<(), SimError> {
        let limit = self.now + time;
        while !done(self) {
            if !self.step(limit)? {
                let (at, waiting_for) = (self.now, what.to_string());
                return Err(match self.next_event_at() {
                    None => SimError::Stalled { at, waiting_for },
                    Some(_) => SimError::TimedOut { at: limit, waiting_for },
                });
            }
        }
        Ok(())
    }

    /// Runs until nothing will happen any more; at most for `time`.
    pub fn run_until_idle(&mut self, time: Duration) -> Result<(), SimError> {
        let limit = self.now + time;
        while self.next_event_at().is_some() {
            if !self.step(limit)? {
                let waiting_for = match self.next_due() {
                    Some((_, Due::Node(n))) => {
                        format!("silence; {} still has a timer running", self.nodes[n].name)
                    }
                    _ => "silence".to_string(),
                };
                return Err(SimError::TimedOut { at: limit, waiting_for });
            }
        }
        Ok(())
    }

    pub(super) fn touch(&mut self, cable: usize) {
        if !self.touched.contains(&cable) {
            self.touched.push(cable);
        }
    }

    /// Enters the next deadlines of the cables that changed.
    pub(super) fn rearm_touched(&mut self) {
        while let Some(c) = self.touched.pop() {
            let slot = &mut self.cables[c];
            if self.recording {
                let recorder = &mut self.recorder;
                slot.cable.take_dropped(|at, direction, reason, packet| {
                    let what = PacketEventKind::Dropped(reason);
                    recorder.record(&PacketEvent { at, cable: c, direction, what, packet: &packet });
                });
            }
            let next = slot.cable.next_deadline().map(|t| t.max(self.now));
            if next != slot.armed {
                slot.armed = next;
                if let Some(at) = next {
                    self.agenda.push(at, Due::Cable(c));
                }
            }
        }
    }

    fn record(&mut self, cable: CableEnd, what: PacketEventKind, packet: &Packet) {
        if self.recording {
            let (cable, direction) = cable;
            self.recorder.record(&PacketEvent { at: self.now, cable, direction, what, packet });
        }
    }

    /// Hands a packet to a cable, cut into packets of the MTU.
    fn send_by(&mut self, end: CableEnd, packet: Packet) {
        packet.split(|p| {
            self.record(end, PacketEventKind::Sent, &p);
            self.cables[end.0].cable.enqueue(self.now, end.1, p);
        });
        self.touch(end.0);
    }

    /// Takes what has arrived from a cable to where it goes.
    fn arrivals(&mut self, cable: usize) {
        let mut settle = Vec::new();
        let mut merge = Coalescer::new();
        let mut ready = Vec::new();
        while let Some((direction, packet)) = self.cables[cable].cable.poll(self.now) {
            self.record((cable, direction), PacketEventKind::Delivered, &packet);
            match self.fixed_hop((cable, direction), &packet) {
                Some(Hop::Cable(next)) => {
                    self.send_by(next, packet);
                    continue;
                }
                Some(Hop::Node(node, path)) => {
                    if !settle.contains(&node) {
                        settle.push(node);
                    }
                    self.hand_over(node, path, &packet);
                    continue;
                }
                None => {}
            }
            let node = self.far_end(cable, direction);
            if matches!(self.nodes[node].kind, NodeKind::Router) {
                let destination = packet.destination();
                match destination.and_then(|d| self.route(node, 0, d)) {
                    Some(end) => self.send_by(end, packet),
                    None => self.unroutable_packet((cable, direction), &packet),
                }
                continue;
            }
            let Some(path) = self.path_for((cable, direction.opposite()), node, &packet) else {
                self.unroutable_packet((cable, direction), &packet);
                continue;
            };
            if !settle.contains(&node) {
                settle.push(node);
            }
            if self.nodes[node].paths[path].gro {
                merge.push((node, path), packet, |to, p| ready.push((to, p)));
            } else {
                ready.push(((node, path), packet));
            }
            for ((node, path), packet) in ready.drain(..) {
                self.hand_over(node, path, &packet);
            }
        }
        merge.flush(|to, p| ready.push((to, p)));
        for ((node, path), packet) in ready {
            self.hand_over(node, path, &packet);
        }
        self.touch(cable);
        for node in settle {
            self.settle(node);
        }
        self.rearm_touched();
    }

    fn unroutable_packet(&mut self, end: CableEnd, packet: &Packet) {
        self.no_route += 1;
        self.record(end, PacketEventKind::Dropped(DropReason::NoRoute), packet);
    }

    /// The path of `node` that a packet from `end` belongs to: of those attached there, the one that has the
    /// address.
    fn path_for(&self, end: CableEnd, node: usize, packet: &Packet) -> Option<usize> {
        let destination = packet.destination()?;
        let mut attached = self.nodes[node]
            .paths
            .iter()
            .enumerate()
            .filter(|(_, p)| !p.removed && p.cables.contains(&end))
            .map(|(i, p)| (i, p.addresses.contains(&destination)));
        let first = attached.next()?;
        if first.1 {
            return Some(first.0);
        }
        Some(attached.find(|(_, has)| *has).map_or(first.0, |(i, _)| i))
    }

    fn hand_over(&mut self, node: usize, path: usize, packet: &Packet) {
        let id = self.nodes[node].paths[path].id;
        let now = self.now;
        match &mut self.nodes[node].kind {
            NodeKind::Host(stack) => {
                let packet = packet.to_rx();
                if let Some(probe) = &mut self.probe {
                    probe.received(now, NodeId(node), id, &packet);
                }
                stack.handle_packet(now, id, packet);
            }
            NodeKind::Custom(custom) => custom.handle_packet(now, id, packet.to_rx()),
            NodeKind::Router => {}
        }
    }

    /// Has a node settled when the network next runs: it may have something to say, but the network is being
    /// built.
    pub(super) fn wake(&mut self, node: usize) {
        self.nodes[node].armed = Some(self.now);
        self.agenda.push(self.now, Due::Node(node));
    }

    /// Lets a node finish: events to the applications, packets to the cables, until there are neither.
    pub(super) fn settle(&mut self, node: usize) {
        if let Err(e) = self.try_settle(node) {
            self.fail(e);
        }
        let next = match &self.nodes[node].kind {
            NodeKind::Host(stack) => stack.poll_timeout(),
            NodeKind::Custom(custom) => custom.poll_timeout(),
            NodeKind::Router => None,
        };
        let next = next.map(|t| t.max(self.now));
        if next != self.nodes[node].armed {
            self.nodes[node].armed = next;
            if let Some(at) = next {
                self.agenda.push(at, Due::Node(node));
            }
        }
        self.rearm_touched();
    }

    fn try_settle(&mut self, node: usize) -> Result<(), SimError> {
        let now = self.now;
        let mut sent = 0u64;
        loop {
            let mut busy = false;
            while let NodeKind::Host(stack) = &mut self.nodes[node].kind
                && let Some(event) = stack.poll_event()
            {
                busy = true;
                sent += 1;
                if let Some(probe) = &mut self.probe {
                    probe.event(now, NodeId(node), &event);
                }
                self.handle_event(node, event)?;
                self.check_settling(node, sent)?;
            }
            while let Some(transmit) = match &mut self.nodes[node].kind {
                NodeKind::Host(stack) => {
                    let transmit = stack.poll_transmit(now);
                    if let (Some(probe), Some(packet)) = (&mut self.probe, &transmit) {
                        probe.sent(now, NodeId(node), packet);
                    }
                    transmit
                }
                NodeKind::Custom(custom) => custom.poll_transmit(now),
                NodeKind::Router => None,
            } {
                busy = true;
                sent += 1;
                let path = transmit.path;
                self.transmit(node, path, Packet::from_transmit(transmit));
                self.check_settling(node, sent)?;
            }
            if !busy {
                return Ok(());
            }
        }
    }

    fn check_settling(&self, node: usize, sent: u64) -> Result<(), SimError> {
        if sent <= self.limits.packets_per_settling {
            return Ok(());
        }
        Err(SimError::Livelock {
            at: self.now,
            who: format!("{}, which sends without end,", self.nodes[node].name),
        })
    }

    /// A node sends a packet by one of its paths.
    fn transmit(&mut self, node: usize, path: PathId, packet: Packet) {
        let index = self.nodes[node].paths.iter().position(|p| p.id == path && !p.removed);
        let destination = packet.destination();
        let end = self
            .fixed_start(&packet)
            .or_else(|| index.zip(destination).and_then(|(i, d)| self.route(node, i, d)));
        match end {
            Some(end) => self.send_by(end, packet),
            None => {
                let first = index.and_then(|i| self.nodes[node].paths[i].cables.first().copied());
                match first {
                    Some(first) => self.unroutable_packet(first, &packet),
                    None => self.no_route += 1,
                }
            }
        }
    }

    fn handle_event(&mut self, node: usize, event: Event) -> Result<(), SimError> {
        let now = self.now;
        let connection = match event {
            Event::Incoming { listener, incoming, .. } => {
                let NodeKind::Host(stack) = &mut self.nodes[node].kind else { return Ok(()) };
                let flows = self.listeners.get(&(node, listener)).into_iter().flatten();
                match flows.copied().find(|f| self.flows[*f].server.connection.is_none()) {
                    Some(f) => {
                        let config = &self.flows[f].server_config;
                        let connection = stack.accept(now, incoming, config).map_err(SimError::Connect)?;
                        if self.flows[f].answers_early {
                            stack.answer_early(now, connection);
                        }
                        self.flows[f].server.connection = Some(connection);
                        self.connections.insert((node, connection), (f, Side::Server));
                    }
                    None => stack.refuse(now, incoming, RefuseWith::Reset),
                }
                return Ok(());
            }
            Event::IncomingGone { .. } => return Ok(()),
            Event::Connected { connection }
            | Event::Readable { connection }
            | Event::Writable { connection }
            | Event::KeepAlive { connection }
            | Event::FellBack { connection, .. }
            | Event::SubflowEstablished { connection, .. }
            | Event::SubflowClosed { connection, .. }
            | Event::JoinFailed { connection, .. }
            | Event::Closed { connection, .. } => connection,
        };
        let Some((f, side)) = self.connections.get(&(node, connection)).copied() else { return Ok(()) };
        let NodeKind::Host(stack) = &mut self.nodes[node].kind else { return Ok(()) };
        let end = self.flows[f].end_mut(side);
        match event {
            Event::Connected { .. } => {
                end.connected_at.get_or_insert(now);
            }
            Event::FellBack { reason, .. } => end.fell_back = Some(reason),
            Event::SubflowEstablished { subflow, path, .. } => end.established(now, subflow, path),
            Event::SubflowClosed { subflow, error, .. } => {
                end.refresh(stack);
                end.subflow_closed(now, subflow, error);
            }
            Event::Closed { error, .. } => {
                end.refresh(stack);
                end.closed = Some((now, error));
            }
            Event::Incoming { .. }
            | Event::IncomingGone { .. }
            | Event::Readable { .. }
            | Event::Writable { .. }
            | Event::KeepAlive { .. }
            | Event::JoinFailed { .. } => {}
        }
        self.run_end_inner(f, side)?;
        let end = self.flows[f].end_mut(side);
        if end.closed.is_some()
            && !end.freed
            && !end.reading_paused
            && let NodeKind::Host(stack) = &mut self.nodes[node].kind
        {
            end.freed = true;
            stack.close(now, connection);
            self.connections.remove(&(node, connection));
        }
        Ok(())
    }

    /// Lets the application at one end act, and its host send what comes of it.
    pub(super) fn run_end(&mut self, flow: FlowId, side: Side) {
        if let Err(e) = self.run_end_inner(flow.0, side) {
            self.fail(e);
        }
        let node = self.flows[flow.0].end(side).node;
        self.settle(node.0);
    }

    fn run_end_inner(&mut self, f: usize, side: Side) -> Result<(), SimError> {
        let peer_sent = self.flows[f].end(side.peer()).progress.sent;
        let end = self.flows[f].end_mut(side);
        let NodeKind::Host(stack) = &mut self.nodes[end.node.0].kind else { return Ok(()) };
        end.run(self.now, stack, FlowId(f), side, peer_sent)?;
        let wake = end.plan.wake.filter(|_| end.closed.is_none()).map(|t| t.max(self.now));
        let armed = &mut self.flow_wake[f][side as usize];
        if wake != *armed {
            *armed = wake;
            if let Some(at) = wake {
                self.agenda.push(at, Due::Application(f, side));
            }
        }
        Ok(())
    }
}

//! A day in the life of a connection: paths, addresses and boxes that come and go at random while data flows
//! both ways.
//!
//! What must hold: every byte arrives or an error says why (the simulator compares on receipt), and every
//! usable path carries data again soon after a disturbance has ended: within five seconds if a host can see
//! its end (a path removed and added), and within five seconds more than the disturbance lasted, a minute at
//! most, if none can (silence, loss, a box).

use super::directions;
use std::fmt::Write as _;
use std::net::IpAddr;
use umptcp_netsim::middlebox::{Nat, Output};
use umptcp_netsim::random::{Purpose, Random, derive};
use umptcp_netsim::trace::TraceMode;
use umptcp_netsim::{
    CableId, Direction, Duration, FlowId, Instant, Limits, Link, Middlebox, NodeId, Packet, Pair, Side,
};
use umptcp_stack_core::config::ConnectionConfig;
use umptcp_stack_core::device::PathConfig;
use umptcp_stack_core::payload::Payload;
use umptcp_stack_core::types::{PathId, SeqNumber};
use umptcp_stack_core::wire::tcp::TcpFlags;

/// How soon a usable path must carry data again.
const SOON: Duration = Duration::from_secs(5);
/// The most that is added for a disturbance nobody could see.
const UNSEEN: Duration = Duration::from_secs(60);
/// Bytes that each side sends in a second: with both, 1 Mbit/s.
const RATE: u64 = 62_500;
/// Paths of the client, each over a cable of its own.
const PATHS: usize = 3;
/// Events of the log that an error shows.
const LAST: usize = 12;

/// What a soak has seen.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Virtual seconds.
    pub seconds: u64,
    /// Disturbances.
    pub disturbances: usize,
    /// Connections that were opened.
    pub connections: usize,
    /// Bytes that arrived, both ways.
    pub bytes: u64,
    /// Packets that were sent.
    pub packets: u64,
    /// The longest time after a disturbance whose end a host could see until a path carried data again.
    pub slowest_seen: Duration,
    /// The same for the others.
    pub slowest_unseen: Duration,
}

/// What happens to the network.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Disturbance {
    /// A cable takes nothing, one way or both.
    Silence(Option<Direction>),
    /// A cable loses one packet of five.
    Loss,
    /// A box answers each packet with a RST.
    Resets,
    /// The translator on a cable forgets its mappings.
    Rebind,
    /// A path of a side goes, and comes back with the address it had or another.
    Remove(Side, bool),
    /// An application does not read.
    Pause(Side),
    /// No application writes.
    Idle,
}

impl Disturbance {
    /// A host learns when it ends.
    fn seen(self) -> bool {
        matches!(self, Disturbance::Remove(..) | Disturbance::Pause(_) | Disturbance::Idle)
    }

    /// It concerns the connection and not a path.
    fn everywhere(self) -> bool {
        matches!(self, Disturbance::Pause(_) | Disturbance::Idle)
    }
}

/// A disturbance that is going on.
#[derive(Clone, Copy, Debug)]
struct Current {
    what: Disturbance,
    path: usize,
    since: Instant,
    until: Instant,
}

/// Answers every segment with a RST, as a router does that has lost its state.
#[derive(Debug)]
struct Resets;

impl Middlebox for Resets {
    fn process(&mut self, _now: Instant, direction: Direction, packet: Packet, out: &mut Output) {
        let Some(tcp) = packet.tcp() else { return };
        let (flags, seq, ack) = (tcp.flags(), tcp.seq(), tcp.ack());
        if flags.rst {
            return;
        }
        let len = packet.payload().len() as u32 + u32::from(flags.syn) + u32::from(flags.fin);
        let mut reset = packet.clone();
        reset.rewrite(packet.tcp_destination(), packet.tcp_source());
        reset.set_payload(Payload::new());
        reset.set_tcp_options(&[]);
        reset.edit_tcp(|tcp| {
            // RFC 9293 §3.5.2: the number comes from the segment's acknowledgment if it has one.
            if flags.ack {
                tcp.set_seq(ack);
                tcp.set_flags(TcpFlags::RST);
            } else {
                tcp.set_seq(SeqNumber(0));
                tcp.set_ack(seq.wrapping_add(len));
                tcp.set_flags(TcpFlags { rst: true, ..TcpFlags::ACK });
            }
        });
        out.send(direction.opposite(), reset);
    }
}

/// What is known of one cable and the client's path over it.
#[derive(Clone, Copy, Debug)]
struct Watch {
    /// Payload that the cable had delivered when last looked at.
    payload: u64,
    /// When it last delivered any.
    carried: Instant,
    /// From when on it must: the end of the last disturbance and what is allowed after it.
    due: Instant,
    /// The last disturbance that ended, until the path carries data again: when, and whether a host saw it.
    ended: Option<(Instant, bool)>,
}

/// A path of a host as it is now.
#[derive(Clone, Copy, Debug)]
struct HostPath {
    id: PathId,
    address: IpAddr,
}

struct Soak {
    net: Pair,
    random: Random,
    flow: Option<FlowId>,
    watches: [Watch; PATHS],
    /// The paths of client and server.
    paths: [Vec<HostPath>; 2],
    current: Vec<Current>,
    renumbered: u8,
    report: Report,
    log: Vec<String>,
}

/// Runs `hours` of virtual time; `seed` decides all that happens.
///
/// # Errors
/// What did not hold, with what happened before it.
pub fn run(seed: u64, hours: f64) -> Result<Report, String> {
    let mut soak = Soak::new(seed);
    soak.net.set_limits(Limits::default().events(u64::MAX));
    let end = Instant::ZERO + Duration::from_secs_f64(hours * 3600.0);
    soak.run(end).map_err(|what| soak.explain(seed, &what))?;
    soak.report.seconds = end.saturating_duration_since(Instant::ZERO).as_secs();
    soak.report.packets = soak.net.packet_events();
    Ok(soak.report)
}

impl Soak {
    fn new(seed: u64) -> Soak {
        let config = ConnectionConfig::default()
            // Every path carries something, so that one which does not is noticed.
            .with_scheduler("round-robin")
            // Without an address left, the server is found at another.
            .with_advertise_addresses(true)
            .with_send_buffer(1 << 20)
            .with_receive_buffer(1 << 20);
        let mut builder =
            Pair::builder().seed(seed).multihomed(true).trace(TraceMode::Last(30)).config(config);
        for path in 0..PATHS {
            builder = builder.path(link(path));
        }
        let mut net = builder.build();
        let paths = [Side::Client, Side::Server].map(|side| {
            let node = net.node(side);
            let (ids, addresses) = (net.paths(node), net.addresses(node));
            ids.into_iter().zip(addresses).map(|(id, address)| HostPath { id, address }).collect()
        });
        let translated = net.path_cable(NAT);
        net.add_middlebox(translated, Nat::new());
        let watch = Watch { payload: 0, carried: Instant::ZERO, due: Instant::ZERO, ended: None };
        Soak {
            net,
            random: Random::new(derive(seed, Purpose::Scenario, 0)),
            flow: None,
            watches: [watch; PATHS],
            paths,
            current: Vec::new(),
            renumbered: 0,
            report: Report::default(),
            log: Vec::new(),
        }
    }

    fn run(&mut self, end: Instant) -> Result<(), String> {
        while self.net.now() < end {
            let life = Duration::from_secs_f64(self.draw(60.0, 2.0 * 3600.0));
            let until = (self.net.now() + life).min(end);
            let flow = self.connect()?;
            while self.net.now() < until {
                self.disturb();
                self.tick(flow)?;
            }
            self.close(flow)?;
        }
        Ok(())
    }

    /// One second: what is to be written is written, what is over is undone, and every path is looked at.
    fn tick(&mut self, flow: FlowId) -> Result<(), String> {
        if !self.is_on(|what| what == Disturbance::Idle) {
            for side in [Side::Client, Side::Server] {
                self.net.send(flow, side, RATE);
            }
        }
        self.second()?;
        if let Some((side, error)) = self.net.flow(flow).error() {
            return Err(format!("the {side:?} ended with: {error}"));
        }
        self.check()
    }

    fn second(&mut self) -> Result<(), String> {
        let now = self.net.now();
        let over: Vec<Current> = self.current.iter().copied().filter(|c| c.until <= now).collect();
        self.current.retain(|c| c.until > now);
        over.into_iter().for_each(|c| self.undo(c));
        self.net.run_for(Duration::from_secs(1)).map_err(|e| e.to_string())
    }

    fn connect(&mut self) -> Result<FlowId, String> {
        // Which path a connection begins on, and what it falls back to when that is silent, is tried
        // elsewhere.
        while !self.current.is_empty() {
            self.second()?;
        }
        let now = self.net.now();
        let spec = self.net.flow_spec().start(now);
        let flow = self.net.add_flow(spec).map_err(|e| e.to_string())?;
        self.flow = Some(flow);
        self.report.connections += 1;
        self.note("a connection is opened");
        for _ in 0..MAX_WAIT {
            self.second()?;
            let f = self.net.flow(flow);
            if let Some((side, error)) = f.error() {
                return Err(format!("no connection, the {side:?} says: {error}"));
            }
            if f.client.connected_at.is_some() && f.server.connected_at.is_some() {
                let due = self.net.now() + SOON;
                self.watches.iter_mut().for_each(|w| w.due = w.due.max(due));
                return Ok(flow);
            }
        }
        Err(format!("not connected after {MAX_WAIT} s"))
    }

    fn close(&mut self, flow: FlowId) -> Result<(), String> {
        for side in [Side::Client, Side::Server] {
            self.net.finish(flow, side);
        }
        self.note("both sides finish");
        for _ in 0..MAX_WAIT {
            self.second()?;
            let f = self.net.flow(flow);
            if let Some((side, error)) = f.error() {
                return Err(format!("while closing, the {side:?} ended with: {error}"));
            }
            // An application that does not read will find the rest later.
            let paused = self.is_on(|what| matches!(what, Disturbance::Pause(_)));
            if f.is_closed() && !paused {
                for side in [Side::Client, Side::Server] {
                    let (sent, received) = (f.end(side).progress.sent, f.end(side.peer()).progress.received);
                    if sent != received {
                        return Err(format!("{side:?} sent {sent} bytes and {received} arrived"));
                    }
                    self.report.bytes += received;
                }
                self.flow = None;
                return Ok(());
            }
        }
        Err(format!("not closed after {MAX_WAIT} s"))
    }

    /// Begins a disturbance, once a minute or so.
    fn disturb(&mut self) {
        if !self.random.chance(1.0 / 45.0) || self.current.len() >= 2 {
            return;
        }
        let path = (self.random.unit() * PATHS as f64) as usize;
        let side = if self.random.chance(0.5) { Side::Client } else { Side::Server };
        let what = match (self.random.unit() * 10.0) as u32 {
            0 => Disturbance::Silence(Some(Direction::Forward)),
            1 => Disturbance::Silence(Some(Direction::Reverse)),
            2 | 3 => Disturbance::Silence(None),
            4 => Disturbance::Loss,
            5 if path != NAT => Disturbance::Resets,
            5 | 6 if path == NAT => Disturbance::Rebind,
            7 => Disturbance::Pause(side),
            8 if self.random.chance(0.3) => Disturbance::Idle,
            _ => Disturbance::Remove(side, self.random.chance(0.5)),
        };
        if self.current.iter().any(|c| c.path == path || c.what.everywhere()) {
            return;
        }
        let seconds = self.draw(0.2, if what == Disturbance::Idle { 900.0 } else { 300.0 });
        // What is not about one path must leave no time for the user timeout.
        let seconds = if matches!(what, Disturbance::Pause(_)) { seconds.min(60.0) } else { seconds };
        let since = self.net.now();
        let c = Current { what, path, since, until: since + Duration::from_secs_f64(seconds) };
        self.note(&format!("{what:?} on path {path} for {seconds:.1} s"));
        self.report.disturbances += 1;
        self.apply(&c);
        self.current.push(c);
    }

    fn apply(&mut self, c: &Current) {
        let cable = self.net.path_cable(c.path);
        match c.what {
            Disturbance::Silence(direction) => self.silence(cable, direction, true),
            Disturbance::Loss => self.set_link(c.path, link(c.path).loss(0.2)),
            Disturbance::Resets => self.net.add_middlebox(cable, Resets),
            Disturbance::Rebind => self.net.with_cable(cable, |_, c| {
                c.clear_middleboxes();
                c.push_middlebox(Box::new(Nat::new()));
            }),
            Disturbance::Remove(side, _) => {
                let (node, id) = (self.net.node(side), self.paths[side as usize][c.path].id);
                self.net.remove_path(node, id);
            }
            Disturbance::Pause(side) => {
                if let Some(flow) = self.flow {
                    self.net.pause_reading(flow, side, true);
                }
            }
            Disturbance::Idle => {}
        }
    }

    fn undo(&mut self, c: Current) {
        let cable = self.net.path_cable(c.path);
        match c.what {
            Disturbance::Silence(direction) => self.silence(cable, direction, false),
            Disturbance::Loss => self.set_link(c.path, link(c.path)),
            Disturbance::Resets => self.net.with_cable(cable, |_, c| c.clear_middleboxes()),
            Disturbance::Rebind | Disturbance::Idle => {}
            Disturbance::Remove(side, renumber) => self.come_back(side, c.path, renumber),
            Disturbance::Pause(side) => {
                if let Some(flow) = self.flow {
                    self.net.pause_reading(flow, side, false);
                }
            }
        }
        self.note(&format!("over: {:?} on path {}", c.what, c.path));
        let (now, seen) = (self.net.now(), c.what.seen());
        let all = c.what.everywhere() || matches!(c.what, Disturbance::Remove(Side::Server, _));
        for (i, w) in self.watches.iter_mut().enumerate() {
            if all || i == c.path {
                // Two are one if the path had not recovered between them.
                let since = c.since.min(w.carried);
                let lasted =
                    if seen { Duration::ZERO } else { now.saturating_duration_since(since).min(UNSEEN) };
                w.due = w.due.max(now + SOON + lasted);
                w.ended = Some((now, seen));
            }
        }
    }

    /// Every usable path whose time has come has carried data within the last seconds.
    fn check(&mut self) -> Result<(), String> {
        let now = self.net.now();
        let quiet = self.current.iter().any(|c| c.what.everywhere());
        for i in 0..PATHS {
            let cable = self.net.path_cable(i);
            let payload: u64 =
                Direction::BOTH.iter().map(|d| self.net.stats(cable, *d).delivered_payload).sum();
            let usable = !quiet && !self.current.iter().any(|c| c.path == i && hits_client_path(c.what));
            let w = &mut self.watches[i];
            if payload > w.payload {
                (w.payload, w.carried) = (payload, now);
                if let Some((ended, seen)) = w.ended.filter(|_| usable) {
                    let took = now.saturating_duration_since(ended);
                    let slowest =
                        if seen { &mut self.report.slowest_seen } else { &mut self.report.slowest_unseen };
                    *slowest = took.max(*slowest);
                    w.ended = None;
                }
            }
            if !usable {
                (w.due, w.ended) = (w.due.max(now + SOON), None);
            } else if now > w.due && now > w.carried + SOON {
                let silent = now.saturating_duration_since(w.carried).as_secs();
                return Err(format!("path {i} is usable and has carried nothing for {silent} s"));
            }
        }
        Ok(())
    }

    fn is_on(&self, which: impl Fn(Disturbance) -> bool) -> bool {
        self.current.iter().any(|c| which(c.what))
    }

    fn silence(&mut self, cable: CableId, direction: Option<Direction>, cut: bool) {
        for d in directions(direction) {
            self.net.set_cut(cable, d, cut);
        }
    }

    fn set_link(&mut self, path: usize, link: Link) {
        let cable = self.net.path_cable(path);
        for d in Direction::BOTH {
            self.net.set_link(cable, d, link.clone());
        }
    }

    /// The path is there again, with another address if `renumber`.
    fn come_back(&mut self, side: Side, path: usize, renumber: bool) {
        let node: NodeId = self.net.node(side);
        let mut address = self.paths[side as usize][path].address;
        if renumber {
            self.renumbered = self.renumbered % 250 + 1;
            address = IpAddr::from([10, 1 + side as u8, path as u8, 1 + self.renumbered]);
        }
        let cables = match side {
            Side::Client => vec![self.net.path_cable(path)],
            Side::Server => self.net.cables().to_vec(),
        };
        let id = self.net.add_path(node, PathConfig::new(format!("{side:?}{path}"), address), &cables, true);
        self.paths[side as usize][path] = HostPath { id, address };
    }

    /// A number between the two, small ones as likely as large ones.
    fn draw(&mut self, low: f64, high: f64) -> f64 {
        low * (high / low).powf(self.random.unit())
    }

    fn note(&mut self, what: &str) {
        self.log.push(format!("{} {what}", self.net.now()));
    }

    fn explain(&self, seed: u64, what: &str) -> String {
        let mut text = format!("seed {seed}, {}: {what}", self.net.now());
        for line in &self.log[self.log.len().saturating_sub(LAST)..] {
            let _ = write!(text, "\n  {line}");
        }
        if let Some(flow) = self.flow {
            let f = self.net.flow(flow);
            for side in [Side::Client, Side::Server] {
                let end = f.end(side);
                let (Some(id), Some(stack)) = (end.connection, self.net.stack(end.node)) else { continue };
                let _ = write!(text, "\n{side:?}: {:?}", stack.info(id));
                for s in stack.subflows(id) {
                    let _ = write!(text, "\n  {s:?}");
                }
            }
        }
        let _ = write!(text, "\nlast packets:\n{}", self.net.trace().join("\n"));
        text
    }
}

/// The path that a translator is on.
const NAT: usize = 2;
/// Seconds that a connection may take to open, or to close, whatever is disturbed.
const MAX_WAIT: u32 = 900;

fn link(path: usize) -> Link {
    Link::mbit(4).delay_ms([10, 25, 60][path])
}

/// The client's path is not usable while this is going on. (When an address of the server's is gone, the
/// others can be reached over each of the client's paths.)
fn hits_client_path(what: Disturbance) -> bool {
    !matches!(what, Disturbance::Remove(Side::Server, _) | Disturbance::Rebind)
}

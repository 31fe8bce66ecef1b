//! The link model under a real clock, between packet queues that the caller brings.
//!
//! [`Emulation`] is the network without clock or thread: cables between ports, and a routing table. A program with an event
//! loop of its own calls it directly. [`Emulator`] runs one in threads: a reader per port, and one for the links. Nothing here
//! knows an operating system; a port is anything that implements [`PortReader`] and [`PortWriter`], TUN devices of several
//! network namespaces for example.
//!
//! A segment of 64 kB comes in whole, is cut into packets of the MTU that share its payload, and packets that are due
//! together leave as one segment again.

use crate::cable::{Cable, Direction};
use crate::gro::Coalescer;
use crate::link::Link;
use crate::packet::Packet;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time;
use umptcp_types::{Duration, Instant};

/// A place where packets enter and leave the emulated network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortId(pub usize);

/// The receiving half of a port.
pub trait PortReader: Send {
    /// Waits for packets from outside, at most for `timeout`, and appends those there are to `packets`.
    ///
    /// # Errors
    ///
    /// Any error ends reading from this port.
    fn receive(&mut self, timeout: Duration, packets: &mut Vec<Packet>) -> io::Result<()>;
}

/// The sending half of a port.
pub trait PortWriter: Send {
    /// Sends a packet, or a segment with a `gso_size`, to the outside. Must not block for long.
    ///
    /// # Errors
    ///
    /// An error loses the packet, is counted, and changes nothing else.
    fn send(&mut self, packet: Packet) -> io::Result<()>;
}

/// Cables between ports, without clock or thread.
#[derive(Debug)]
pub struct Emulation {
    seed: u64,
    cables: Vec<(Cable, [PortId; 2])>,
    /// Cables at each port, with the direction that leads away from it.
    ports: Vec<Vec<(usize, Direction)>>,
    routes: HashMap<(PortId, IpAddr), usize>,
    coalesce: bool,
    unroutable: u64,
    coalescer: Coalescer<PortId>,
}

impl Emulation {
    /// An empty network whose draws derive from `seed`.
    pub fn new(seed: u64) -> Emulation {
        Emulation {
            seed,
            cables: Vec::new(),
            ports: Vec::new(),
            routes: HashMap::new(),
            coalesce: true,
            unroutable: 0,
            coalescer: Coalescer::new(),
        }
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

    /// Joins two ports; `forward` leads from `first` to `second`. Returns the cable's number. Panics when a port is not of
    /// this network.
    pub fn add_cable(&mut self, first: PortId, second: PortId, forward: Link, reverse: Link) -> usize {
        let id = self.cables.len();
        self.cables.push((Cable::new(forward, reverse, self.seed, id as u64), [first, second]));
        self.ports[first.0].push((id, Direction::Forward));
        self.ports[second.0].push((id, Direction::Reverse));
        id
    }

    /// Packets to `destination` that enter at `port` take `cable`. Not needed at ports with only one cable, which takes all.
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
            self.cable_mut(cable).engine_mut(d).set_cut(now, cut);
        }
    }

    /// Packets dropped because no route leads to their destination.
    pub fn unroutable(&self) -> u64 {
        self.unroutable
    }

    /// A packet or segment entered at `port`.
    pub fn input(&mut self, now: Instant, port: PortId, packet: Packet) {
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
        for (cable, ends) in &mut self.cables {
            while let Some((direction, packet)) = cable.poll(now) {
                let port = match direction {
                    Direction::Forward => ends[1],
                    Direction::Reverse => ends[0],
                };
                if self.coalesce {
                    self.coalescer.push(port, packet, &mut deliver);
                } else {
                    deliver(port, packet);
                }
            }
        }
        self.coalescer.flush(deliver);
    }

    /// When [`Emulation::output`] should be called next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.cables.iter().filter_map(|(c, _)| c.next_deadline()).min()
    }
}

/// Something to be done to the network at the present time.
type Control = Box<dyn FnOnce(Instant, &mut Emulation) + Send>;

/// What the threads of an [`Emulator`] tell the one that has the links.
enum Message {
    Packets(PortId, Vec<Packet>),
    Control(Control),
}

/// How an [`Emulator`] runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EmulatorConfig {
    /// Packets leave in batches at least this far apart, so that fast links cost few wake-ups and their packets merge into
    /// segments. A packet after a pause is not delayed by it.
    pub granularity: Duration,
}

impl Default for EmulatorConfig {
    fn default() -> Self {
        EmulatorConfig { granularity: Duration::from_micros(200) }
    }
}

/// What an [`Emulator`] has seen of its ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EmulatorStats {
    /// Packets and segments that came in.
    pub received: u64,
    /// Packets and segments that went out.
    pub sent: u64,
    /// Those that a port could not send.
    pub send_errors: u64,
}

/// How often readers look whether they are to stop.
const READ_TIMEOUT: Duration = Duration::from_millis(50);
/// Batches of packets that may wait for the links: beyond, readers wait, and their devices' queues fill.
const BACKLOG: usize = 256;
/// Messages taken before arrivals are looked at again.
const MESSAGES_PER_TURN: usize = 64;

/// An [`Emulation`] that runs in threads of its own, under the system's monotonic clock.
#[derive(Debug)]
pub struct Emulator {
    messages: SyncSender<Message>,
    stop: Arc<AtomicBool>,
    links: Option<JoinHandle<(Emulation, EmulatorStats)>>,
    readers: Vec<JoinHandle<()>>,
}

impl Emulator {
    /// Starts `emulation`, whose ports are `ports` in order of their numbers.
    ///
    /// # Errors
    ///
    /// When the number of ports differs, or a thread cannot be started.
    pub fn start(
        emulation: Emulation,
        ports: Vec<(Box<dyn PortReader>, Box<dyn PortWriter>)>,
        config: EmulatorConfig,
    ) -> io::Result<Emulator> {
        if ports.len() != emulation.ports.len() {
            let text = format!("{} ports given for {}", ports.len(), emulation.ports.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let (messages, receiver) = sync_channel(BACKLOG);
        let stop = Arc::new(AtomicBool::new(false));
        let mut emulator =
            Emulator { messages: messages.clone(), stop: stop.clone(), links: None, readers: Vec::new() };
        let mut writers = Vec::new();
        for (i, (reader, writer)) in ports.into_iter().enumerate() {
            writers.push(writer);
            let (messages, stop) = (messages.clone(), stop.clone());
            let thread = std::thread::Builder::new().name(format!("netsim-port{i}"));
            emulator.readers.push(thread.spawn(move || read_port(PortId(i), reader, &messages, &stop))?);
        }
        let thread = std::thread::Builder::new().name("netsim-links".to_string());
        emulator.links =
            Some(thread.spawn(move || run_links(emulation, writers, &receiver, &stop, config.granularity))?);
        Ok(emulator)
    }

    /// Lets `f` act on the network at the present time, and waits for its answer. `None` when the emulator has ended.
    pub fn with<R: Send + 'static>(
        &self,
        f: impl FnOnce(Instant, &mut Emulation) -> R + Send + 'static,
    ) -> Option<R> {
        let (sender, answer) = sync_channel(1);
        let control = move |now, emulation: &mut Emulation| {
            // The asker is waiting; if not, nobody wants the answer.
            let _ = sender.send(f(now, emulation));
        };
        self.messages.send(Message::Control(Box::new(control))).ok()?;
        answer.recv().ok()
    }

    /// Stops all threads and returns the network and what its ports saw. `None` when the links' thread panicked.
    pub fn stop(mut self) -> Option<(Emulation, EmulatorStats)> {
        self.halt()
    }

    fn halt(&mut self) -> Option<(Emulation, EmulatorStats)> {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the links' thread; if it has ended already there is nothing to wake.
        let _ = self.messages.try_send(Message::Control(Box::new(|_, _| {})));
        let result = self.links.take().and_then(|t| t.join().ok());
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        result
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.halt();
    }
}

fn read_port(
    port: PortId,
    mut reader: Box<dyn PortReader>,
    messages: &SyncSender<Message>,
    stop: &AtomicBool,
) {
    let mut packets = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        if reader.receive(READ_TIMEOUT, &mut packets).is_err() {
            return;
        }
        if !packets.is_empty() && messages.send(Message::Packets(port, std::mem::take(&mut packets))).is_err()
        {
            return;
        }
    }
}

fn run_links(
    mut emulation: Emulation,
    mut writers: Vec<Box<dyn PortWriter>>,
    messages: &Receiver<Message>,
    stop: &AtomicBool,
    granularity: Duration,
) -> (Emulation, EmulatorStats) {
    let start = time::Instant::now();
    let clock = || Instant::ZERO + start.elapsed();
    let mut stats = EmulatorStats::default();
    let mut earliest = Instant::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let now = clock();
        if now >= earliest {
            let before = stats.sent;
            emulation.output(now, |port, packet| match writers[port.0].send(packet) {
                Ok(()) => stats.sent += 1,
                Err(_) => stats.send_errors += 1,
            });
            if stats.sent > before {
                earliest = now + granularity;
            }
        }
        // Without a deadline only a message matters; the bound is for a waker that found the channel full.
        let wait = match emulation.next_deadline() {
            Some(deadline) => deadline.max(earliest) - clock(),
            None => READ_TIMEOUT,
        };
        let mut next = match messages.recv_timeout(wait) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let mut turn = 0;
        while let Some(message) = next {
            match message {
                Message::Packets(port, packets) => {
                    let now = clock();
                    stats.received += packets.len() as u64;
                    for packet in packets {
                        emulation.input(now, port, packet);
                    }
                }
                Message::Control(f) => f(clock(), &mut emulation),
            }
            turn += 1;
            next = if turn < MESSAGES_PER_TURN { messages.try_recv().ok() } else { None };
        }
    }
    (emulation, stats)
}

#[cfg(test)]
#[path = "realtime_tests.rs"]
mod tests;

//! An emulated network in threads, under the system's monotonic clock.

use super::emulation::{Emulation, PortId};
use crate::packet::Packet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time;
use umptcp_stack_core::network_stack::NetworkStack;
use umptcp_types::{Duration, Instant};

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

/// Something to be done to the network at the present time.
type Control = Box<dyn FnOnce(Instant, &mut Emulation) + Send>;

/// What the threads of an [`Emulator`] tell the one that has the links.
enum Message {
    Packets(PortId, Vec<Packet>),
    Control(Control),
}

/// What an [`Emulator`] has seen of its ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
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
    ) -> io::Result<Emulator> {
        if ports.len() != emulation.port_count() {
            let text = format!("{} ports given for {}", ports.len(), emulation.port_count());
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
        emulator.links = Some(thread.spawn(move || run_links(emulation, writers, &receiver, &stop))?);
        Ok(emulator)
    }

    /// Lets `f` act on the network at the present time, and waits for its answer. `None` when the emulator
    /// has ended.
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

    /// Stops all threads and returns the network and what its ports saw. `None` when the links' thread
    /// panicked.
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
) -> (Emulation, EmulatorStats) {
    let start = time::Instant::now();
    let clock = || Instant::ZERO + start.elapsed();
    let mut stats = EmulatorStats::default();
    while !stop.load(Ordering::Relaxed) {
        let now = clock();
        while let Some((port, packet)) = emulation.poll_batch(now) {
            match writers[port.0].send(packet) {
                Ok(()) => stats.sent += 1,
                Err(_) => stats.send_errors += 1,
            }
        }
        // Without a deadline only a message matters; the bound is for a waker that found the channel full.
        let wait = match emulation.poll_timeout() {
            Some(deadline) => deadline - clock(),
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

//! A network of netsim's links in real time, between devices of tun-driver's: what the demo and the end-to-end tests put between
//! two hosts.
//!
//! Packets come out of a TUN device, go into the emulated cable at its port, and leave by the TUN device at the cable's other end.
//! Segments are cut into packets before anything can happen to them.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use umptcp_netsim::Packet;
use umptcp_netsim::realtime::{Emulation, PortId};
use umptcp_stack_core::event::Event;
use umptcp_stack_core::interface::{PathConfig, RxPacket, Transmit};
use umptcp_tun_driver::clock::Clock;
use umptcp_tun_driver::device::Tun;
use umptcp_tun_driver::event_loop::{
    AttachedPath, Context, EventLoop, Handler, LoopOptions, NetworkStack, Waker,
};
use umptcp_types::{Duration, Instant, PathId};

/// Something to do on the network's thread; false: the thread is to end.
type Order = Box<dyn FnOnce(&mut Emulation, Instant) -> bool + Send>;

/// A running network. Stops when dropped.
pub struct Network {
    orders: Arc<Mutex<Vec<Order>>>,
    waker: Waker,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Network {
    /// Starts `emulation` on a thread of its own. `devices` are those at its ports, in their order, each with an address that its
    /// path is described by.
    ///
    /// `granularity`: packets leave in batches at least this far apart. They cost fewer wake-ups then and merge into segments; zero has
    /// each leave as soon as it is due.
    ///
    /// # Errors
    ///
    /// When the event loop or its thread cannot be made, or a device cannot be waited for.
    pub fn start(
        emulation: Emulation,
        devices: impl IntoIterator<Item = (Tun, IpAddr)>,
        granularity: Duration,
    ) -> io::Result<Network> {
        let links = Links { emulation, granularity, paths: 0, out: VecDeque::new(), earliest: Instant::ZERO };
        let orders = Arc::<Mutex<Vec<Order>>>::default();
        let operator = Operator(Arc::clone(&orders));
        let mut event_loop = EventLoop::new(links, operator, Clock::new(), LoopOptions::default())?;
        for (tun, address) in devices {
            let mut config = PathConfig::new(tun.name(), address);
            tun.describe(&mut config);
            event_loop.add_path(AttachedPath { device: Box::new(tun), config, guard: Box::new(()) })?;
        }
        let waker = event_loop.waker();
        let thread =
            std::thread::Builder::new().name("network".to_owned()).spawn(move || event_loop.run())?;
        Ok(Network { orders, waker, thread: Some(thread) })
    }

    /// Looks at the network, or changes it, on its thread. `None` when it has failed.
    pub fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Emulation, Instant) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = sync_channel(1);
        self.order(Box::new(move |emulation, now| {
            // Who asked is waiting.
            let _ = answer.try_send(work(emulation, now));
            true
        }));
        answered.recv().ok()
    }

    /// Ends it. Without effect the second time.
    ///
    /// # Errors
    ///
    /// What the network failed of.
    pub fn stop(&mut self) -> io::Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.order(Box::new(|_, _| false));
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the emulated network's thread has panicked")))
    }

    fn order(&self, order: Order) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).push(order);
        self.waker.wake();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::error!(%error, "the emulated network has failed");
        }
    }
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").field("running", &self.thread.is_some()).finish_non_exhaustive()
    }
}

/// What tun-driver's event loop drives instead of a stack. Paths are ports, by their numbers.
struct Links {
    emulation: Emulation,
    granularity: Duration,
    paths: u32,
    out: VecDeque<(PortId, Packet)>,
    earliest: Instant,
}

impl NetworkStack for Links {
    fn path_added(&mut self, _now: Instant, _config: PathConfig) -> PathId {
        self.paths += 1;
        PathId(self.paths - 1)
    }

    fn path_removed(&mut self, _now: Instant, _path: PathId) {}

    fn path_blocked(&mut self, _now: Instant, _path: PathId, _blocked: bool) {}

    fn handle_packet(&mut self, now: Instant, path: PathId, packet: RxPacket) {
        self.emulation.input(now, PortId(path.0 as usize), Packet::from_rx(packet));
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        if self.out.is_empty() && now >= self.earliest {
            let out = &mut self.out;
            self.emulation.output(now, |port, packet| out.push_back((port, packet)));
            if !self.out.is_empty() {
                self.earliest = now + self.granularity;
            }
        }
        let (port, packet) = self.out.pop_front()?;
        Some(packet.into_transmit(PathId(port.0 as u32), now))
    }

    fn poll_event(&mut self) -> Option<Event> {
        None
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if !self.out.is_empty() {
            return Some(Instant::ZERO);
        }
        self.emulation.next_deadline().map(|deadline| deadline.max(self.earliest))
    }
}

/// Carries the orders out.
struct Operator(Arc<Mutex<Vec<Order>>>);

impl Handler<Links> for Operator {
    fn on_wake(&mut self, cx: &mut Context<'_, Links>) {
        let orders = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for order in orders {
            if !order(&mut cx.stack.emulation, cx.now) {
                cx.stop();
            }
        }
    }

    fn on_event(&mut self, _cx: &mut Context<'_, Links>, _event: Event) {}
}

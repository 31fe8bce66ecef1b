//! The network between client and server: netsim's links in real time, between TUN devices that stand for NICs.

use super::plan::{Plan, SERVER};
use anyhow::Context as _;
use std::collections::VecDeque;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use umptcp_netsim::realtime::{Emulation, PortId};
use umptcp_netsim::{Direction, Packet};
use umptcp_stack_core::event::Event;
use umptcp_stack_core::interface::{PathConfig, RxPacket, Transmit};
use umptcp_tun_driver::clock::Clock;
use umptcp_tun_driver::device::Tun;
use umptcp_tun_driver::event_loop::{AttachedPath, Context, Engine, EventLoop, Handler, LoopOptions, Waker};
use umptcp_types::{Instant, PathId};

/// Packets leave in batches at least this far apart: they cost fewer wake-ups and merge into segments, and against the
/// links' delays it is nothing.
const GRANULARITY: Duration = Duration::from_micros(200);

/// What tun-driver's event loop drives instead of a stack. Paths are ports, by their numbers.
struct Links {
    emulation: Emulation,
    cables: usize,
    paths: u32,
    out: VecDeque<(PortId, Packet)>,
    earliest: Instant,
}

impl Engine for Links {
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
                self.earliest = now + GRANULARITY;
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

/// What the demo asks of the loop's thread.
#[derive(Default)]
struct Orders {
    cuts: Vec<(usize, bool)>,
    /// Who wants to know what payload has arrived over each cable, and in which direction.
    questions: Vec<(Direction, SyncSender<Vec<u64>>)>,
    stop: bool,
}

struct Operator(Arc<Mutex<Orders>>);

impl Handler<Links> for Operator {
    fn on_wake(&mut self, cx: &mut Context<'_, Links>) {
        let mut orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (cable, cut) in orders.cuts.drain(..) {
            cx.engine.emulation.set_cut(cx.now, cable, cut);
        }
        for (direction, answer) in orders.questions.drain(..) {
            let cables = 0..cx.engine.cables;
            let payload = |cable| cx.engine.emulation.cable(cable).stats(direction).delivered_payload;
            // Who asked is waiting.
            let _ = answer.try_send(cables.map(payload).collect());
        }
        if orders.stop {
            cx.stop();
        }
    }

    fn on_event(&mut self, _cx: &mut Context<'_, Links>, _event: Event) {}
}

/// The running network. Stops when dropped.
pub(super) struct Network {
    orders: Arc<Mutex<Orders>>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Network {
    /// Starts it between the other ends of the client's NICs, in the plan's order, and of the server's.
    pub(super) fn start(plan: &Plan, nics: Vec<Tun>, server: Tun) -> anyhow::Result<Network> {
        let mut emulation = Emulation::new(plan.seed);
        let ports: Vec<PortId> = nics.iter().map(|_| emulation.add_port()).collect();
        let server_port = emulation.add_port();
        for (nic, port) in plan.nics.iter().zip(&ports) {
            let cable = emulation.add_cable(*port, server_port, nic.link(), nic.link());
            for address in [nic.address, nic.stack_address] {
                emulation.add_route(server_port, address.into(), cable);
            }
        }
        let links = Links {
            emulation,
            cables: plan.nics.len(),
            paths: 0,
            out: VecDeque::new(),
            earliest: Instant::ZERO,
        };
        let orders = Arc::<Mutex<Orders>>::default();
        let operator = Operator(Arc::clone(&orders));
        let options = LoopOptions::default();
        let mut event_loop = EventLoop::new(links, operator, Clock::new(), options)
            .context("cannot start the emulated network")?;
        let addresses = plan.nics.iter().map(|nic| nic.address).chain([SERVER]);
        for (tun, address) in nics.into_iter().chain([server]).zip(addresses) {
            let mut config = PathConfig::new(tun.name(), address.into());
            tun.describe(&mut config);
            event_loop
                .add_path(AttachedPath { device: Box::new(tun), config, guard: Box::new(()) })
                .context("cannot attach a NIC to the emulated network")?;
        }
        let waker = event_loop.waker();
        let thread = std::thread::Builder::new()
            .name("network".to_owned())
            .spawn(move || {
                if let Err(error) = event_loop.run() {
                    tracing::error!(%error, "the emulated network has failed");
                }
            })
            .context("cannot start a thread")?;
        Ok(Network { orders, waker, thread: Some(thread) })
    }

    /// Silences a NIC's link in both directions, or lets it speak again.
    pub(super) fn set_silent(&self, nic: usize, silent: bool) {
        self.order(|orders| orders.cuts.push((nic, silent)));
    }

    /// Payload that has arrived over each NIC's link, retransmissions included; `down`: at the client.
    pub(super) fn payload(&self, down: bool) -> anyhow::Result<Vec<u64>> {
        let (answer, answered) = sync_channel(1);
        let direction = if down { Direction::Reverse } else { Direction::Forward };
        self.order(|orders| orders.questions.push((direction, answer)));
        answered.recv().context("the emulated network has failed")
    }

    fn order(&self, give: impl FnOnce(&mut Orders)) {
        give(&mut self.orders.lock().unwrap_or_else(PoisonError::into_inner));
        self.waker.wake();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.order(|orders| orders.stop = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

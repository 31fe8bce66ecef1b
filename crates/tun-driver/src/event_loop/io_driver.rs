//! The devices of a loop: receiving, sending, and what to do when one is full or gone.

use super::backlog::Backlog;
use super::options::LoopOptions;
use super::traces::{Traced, Traces};
use super::waker::Waker;
use super::{NetworkStack, Poller};
use crate::clock::Clock;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
use crate::device::Tun;
use crate::device::{BufferPool, Device, TransmitOutcome, is_gone};
use std::any::Any;
use std::io;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
use std::net::IpAddr;
use std::time::Duration;
use umptcp_stack_core::device::{PathConfig, Transmit};
use umptcp_types::{Instant, PathId};

/// Something that undoes a path's set-up when it is dropped.
pub type Guard = Box<dyn Any + Send>;

/// How often unused memory is freed.
const TRIM_INTERVAL: Duration = Duration::from_secs(1);

/// A path with its device and guard.
// Fields are dropped in this order: no packet may leave once NAT has been undone.
pub struct AttachedPath {
    /// Its device.
    pub device: Box<dyn Device>,
    /// Its description for the stack.
    pub config: PathConfig,
    /// Dropped after the device when the path is removed.
    pub guard: Guard,
}

impl std::fmt::Debug for AttachedPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AttachedPath").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(all(target_os = "linux", not(umptcp_portable)))]
impl AttachedPath {
    /// A TUN device that somebody else has set up and will clean up, with its `address`.
    pub fn unmanaged(tun: Tun, address: IpAddr) -> AttachedPath {
        let mut config = PathConfig::new(tun.name(), address);
        tun.describe(&mut config);
        AttachedPath { device: Box::new(tun), config, guard: Box::new(()) }
    }
}

#[cfg(all(target_os = "linux", not(umptcp_portable)))]
impl From<crate::paths::Path> for AttachedPath {
    fn from(path: crate::paths::Path) -> Self {
        let crate::paths::Path { config, guard, tun } = path;
        AttachedPath { device: Box::new(tun), config, guard: Box::new(guard) }
    }
}

/// A path whose device vanished.
pub(super) struct LostPath {
    pub(super) path: PathId,
    pub(super) error: io::Error,
    pub(super) guard: Guard,
}

struct Slot {
    path: PathId,
    device: Box<dyn Device>,
    config: PathConfig,
    guard: Guard,
    /// Input was reported and has not been read to the end.
    readable: bool,
    /// A packet that the device had no room for. The path is blocked while there is one.
    pending: Option<Transmit>,
    /// What waits in the NIC's queue. The path is blocked while it is too much.
    backlog: Backlog,
    /// The device is readable when it may have room for it.
    room_is_input: bool,
    traced: Option<Traced>,
    errors: u64,
}

pub(super) struct IoDriver {
    pub(super) waker: Waker,
    /// Lost paths that the handler has not been told of.
    pub(super) lost: Vec<LostPath>,
    clock: Clock,
    poller: Poller,
    pool: BufferPool,
    slots: Vec<Slot>,
    /// The device to read first; rotates.
    first: usize,
    receive_batch: usize,
    transmit_batch: usize,
    traces: Traces,
    last_trim: Instant,
}

impl IoDriver {
    pub(super) fn new(clock: Clock, options: LoopOptions) -> io::Result<Self> {
        let LoopOptions { receive_batch, transmit_batch, busy_poll: _, buffer_limit, capture, inner_capture } =
            options;
        let poller = Poller::new()?;
        let waker = Waker::new(poller.bell()?);
        Ok(IoDriver {
            waker,
            lost: Vec::new(),
            clock,
            poller,
            pool: BufferPool::new(buffer_limit),
            slots: Vec::new(),
            first: 0,
            receive_batch: receive_batch.max(1),
            transmit_batch: transmit_batch.max(1),
            traces: Traces::new(capture, inner_capture),
            last_trim: Instant::ZERO,
        })
    }

    pub(super) fn add<E: NetworkStack>(
        &mut self,
        now: Instant,
        stack: &mut E,
        path: AttachedPath,
    ) -> io::Result<PathId> {
        let AttachedPath { mut device, config, guard } = path;
        let id = stack.path_added(now, config.clone());
        if let Err(e) = self.poller.watch(&mut *device, id.0) {
            stack.path_removed(now, id);
            return Err(e);
        }
        let traced = self.traces.add(&config);
        self.slots.push(Slot {
            path: id,
            device,
            config,
            guard,
            readable: true,
            pending: None,
            backlog: Backlog::default(),
            room_is_input: false,
            traced,
            errors: 0,
        });
        Ok(id)
    }

    pub(super) fn remove<E: NetworkStack>(
        &mut self,
        now: Instant,
        stack: &mut E,
        path: PathId,
    ) -> Option<AttachedPath> {
        let at = self.slots.iter().position(|s| s.path == path)?;
        let mut slot = self.slots.remove(at);
        self.poller.unwatch(&mut *slot.device);
        if slot.pending.is_some() {
            // What waited for room is lost. Whoever takes the device next does not wait for it.
            slot.device.signals_room(false);
        }
        stack.path_removed(now, path);
        Some(AttachedPath { device: slot.device, config: slot.config, guard: slot.guard })
    }

    pub(super) fn paths(&self) -> Vec<PathId> {
        self.slots.iter().map(|s| s.path).collect()
    }

    /// Packets wait for room in a device.
    pub(super) fn is_blocked(&self) -> bool {
        self.slots.iter().any(Slot::is_blocked)
    }

    /// When a NIC's queue is to be looked at again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.slots.iter().filter_map(|s| s.backlog.blocked_until()).min()
    }

    /// Looks whether NICs whose queues were full have sent what was in them.
    pub(super) fn look_again<E: NetworkStack>(&mut self, now: Instant, stack: &mut E) {
        for slot in &mut self.slots {
            let is_due = slot.backlog.blocked_until().is_some_and(|until| until <= now);
            if is_due {
                slot.look(stack, &self.clock, now);
            }
        }
    }

    pub(super) fn any_ready(&self) -> bool {
        self.slots.iter().any(|s| s.readable)
    }

    /// Hands received packets to the stack, a batch from each device in turn. `true` if there may be more.
    pub(super) fn receive<E: NetworkStack>(&mut self, stack: &mut E) -> bool {
        let count = self.slots.len();
        let mut gone = None;
        for turn in 0..count {
            let at = (self.first + turn) % count;
            if self.slots[at].readable
                && let Err(e) = self.receive_batch(stack, at)
            {
                gone = Some((at, e));
                break;
            }
        }
        self.first = self.first.wrapping_add(1);
        if let Some((at, error)) = gone {
            self.lose(stack, at, error);
        }
        self.any_ready()
    }

    /// An error means that the device is gone.
    fn receive_batch<E: NetworkStack>(&mut self, stack: &mut E, at: usize) -> io::Result<()> {
        let now = self.clock.now();
        for _ in 0..self.receive_batch {
            let slot = &mut self.slots[at];
            match slot.device.receive(&mut self.pool) {
                Ok(Some(packet)) => {
                    self.traces.inbound(slot.traced, || self.clock.wall_time(now), &packet);
                    stack.handle_packet(now, self.slots[at].path, packet);
                }
                Ok(None) => {
                    slot.readable = slot.device.has_more();
                    return Ok(());
                }
                Err(e) if is_gone(&e) => return Err(e),
                Err(e) => {
                    // Level-triggered: if the condition persists, the next wait reports it again.
                    slot.readable = false;
                    slot.report("receive from", &e);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Sends what the stack has to send. `true` if the batch is full and there may be more.
    pub(super) fn transmit<E: NetworkStack>(&mut self, stack: &mut E) -> bool {
        for _ in 0..self.transmit_batch {
            let now = self.clock.now();
            let Some(packet) = stack.poll_transmit(now) else { return false };
            let Some(at) = self.slots.iter().position(|s| s.path == packet.path) else { continue };
            if self.slots[at].pending.is_some() {
                // Sent before the stack knew that the path is blocked: dropped, as in any full queue.
                continue;
            }
            self.send(stack, now, at, packet);
        }
        true
    }

    fn send<E: NetworkStack>(&mut self, stack: &mut E, now: Instant, at: usize, packet: Transmit) {
        let slot = &mut self.slots[at];
        match slot.device.transmit(&packet) {
            Ok(TransmitOutcome::Sent) => {
                // ACKs pass while enough of ours waits, so that they count as others': otherwise those of a large download
                // would keep data out of a slow uplink for ever.
                let counts = !packet.payload.is_empty();
                if counts {
                    slot.backlog.wrote(packet.header.as_slice().len() + packet.payload.len());
                }
                if counts && slot.backlog.is_due(now) {
                    slot.look(stack, &self.clock, now);
                }
                slot.readable |= slot.device.has_more();
                self.traces.outbound(slot.traced, || self.clock.wall_time(now), &packet);
            }
            Ok(TransmitOutcome::Full) => {
                slot.pending = Some(packet);
                stack.path_blocked(now, slot.path, true);
                slot.room_is_input = slot.device.signals_room(true);
                slot.watch_writable(&self.poller, true);
            }
            Err(e) if is_gone(&e) => self.lose(stack, at, e),
            Err(e) => slot.report("send to", &e),
        }
    }

    /// A full device has room again.
    fn unblock<E: NetworkStack>(&mut self, stack: &mut E, now: Instant, at: usize) {
        let slot = &mut self.slots[at];
        slot.device.signals_room(false);
        slot.watch_writable(&self.poller, false);
        let (path, pending) = (slot.path, slot.pending.take());
        if let Some(packet) = pending {
            self.send(stack, now, at, packet);
            if self.slots.get(at).is_some_and(|s| s.path == path && s.pending.is_none()) {
                stack.path_blocked(now, path, false);
            }
        }
    }

    fn lose<E: NetworkStack>(&mut self, stack: &mut E, at: usize, error: io::Error) {
        let mut slot = self.slots.remove(at);
        tracing::warn!(path = slot.config.name, %error, "the device has vanished");
        self.poller.unwatch(&mut *slot.device);
        stack.path_removed(self.clock.now(), slot.path);
        let Slot { path, device, guard, .. } = slot;
        drop(device);
        self.lost.push(LostPath { path, error, guard });
    }

    /// Waits, and notes which devices have input. Room on full devices is used immediately.
    pub(super) fn wait<E: NetworkStack>(
        &mut self,
        stack: &mut E,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        self.poller.wait(timeout)?;
        let mut writable = Vec::new();
        for ready in self.poller.ready() {
            let Some(slot) = self.slots.iter_mut().find(|s| u64::from(s.path.0) == ready.token) else {
                continue;
            };
            slot.readable |= ready.readable;
            #[cfg(any(not(target_os = "linux"), umptcp_portable))]
            if ready.readable {
                slot.device.is_readable(ready.source);
            }
            if (ready.writable || slot.room_is_input) && slot.pending.is_some() {
                writable.push(slot.path);
            }
        }
        for path in writable {
            if let Some(at) = self.slots.iter().position(|s| s.path == path) {
                self.unblock(stack, self.clock.now(), at);
            }
        }
        Ok(())
    }

    /// Housekeeping before the loop sleeps.
    pub(super) fn before_sleep(&mut self, now: Instant) {
        if now - self.last_trim >= TRIM_INTERVAL {
            self.last_trim = now;
            self.pool.trim();
            self.flush_traces();
        }
    }

    pub(super) fn flush_traces(&mut self) {
        self.traces.flush();
    }
}

impl Slot {
    fn is_blocked(&self) -> bool {
        self.pending.is_some() || self.backlog.blocked_until().is_some()
    }

    /// Looks at the NIC's queue, and tells the stack when there is enough in it, or no longer.
    fn look<E: NetworkStack>(&mut self, stack: &mut E, clock: &Clock, now: Instant) {
        let was = self.backlog.blocked_until().is_some();
        let start = clock.now();
        let state = self.device.nic_queue();
        let is = self.backlog.look(now, clock.now() - start, state);
        if is != was {
            stack.path_busy(now, self.path, is);
        }
        if let Some(rate) = self.backlog.new_rate() {
            stack.path_rate(now, self.path, rate);
        }
    }

    /// Waits for room, or does so no longer, where the device does not see to it.
    fn watch_writable(&mut self, poller: &Poller, wanted: bool) {
        if !self.room_is_input
            && let Err(e) = poller.watch_room(&*self.device, self.path.0, wanted)
        {
            self.report("poll", &e);
        }
    }

    /// Logs a transient error: the first one of a path, then every 1,024th.
    fn report(&mut self, what: &str, error: &io::Error) {
        if self.errors.is_multiple_of(1024) {
            tracing::warn!(path = self.config.name, %error, times = self.errors + 1, "cannot {what} the device");
        }
        self.errors += 1;
    }
}

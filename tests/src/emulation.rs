//! A client and a server joined by a link of netsim's in real time: rate, delay, queue, loss and disorder as one describes them.
//!
//! Both NICs are TUN devices. What the hosts send comes out of them and goes into the link, which cuts segments into packets
//! before anything can happen to them.

use crate::netns::Netns;
use crate::topology::{Nic, Site};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use umptcp_netsim::realtime::{Emulation, PortId};
use umptcp_netsim::{Link, Packet};
use umptcp_stack_core::event::Event;
use umptcp_stack_core::interface::{PathConfig, RxPacket, Transmit};
use umptcp_tun_driver::clock::Clock;
use umptcp_tun_driver::device::{Tun, TunOptions};
use umptcp_tun_driver::event_loop::{AttachedPath, Context, Engine, EventLoop, Handler, LoopOptions, Waker};
use umptcp_types::{Instant, PathId};

/// A client (c0, 10.1.0.2/24) and a server (s0, 10.1.0.1/24) at the ends of one emulated link. Stops when dropped.
pub struct Emulated {
    /// The client.
    pub client: Site,
    /// The server.
    pub server: Site,
    stop: Arc<AtomicBool>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Emulated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Emulated").field("client", &self.client).field("server", &self.server).finish()
    }
}

impl Emulated {
    /// Makes it. `up` leads from the client to the server, `down` back; `seed` determines what is random in them.
    ///
    /// # Panics
    /// Without the privilege to make namespaces and TUN devices.
    pub fn new(up: Link, down: Link, seed: u64) -> Self {
        let client = nic("c0", 2, "s0", 1, 1);
        let server = nic("s0", 1, "c0", 2, 2);
        let [client, server] = [("client", client), ("server", server)].map(|(name, nic)| {
            let ns = Netns::new(name);
            let tun = attach(&ns, &nic);
            (Site { ns, nics: vec![nic] }, tun)
        });
        let mut emulation = Emulation::new(seed);
        let ports = [emulation.add_port(), emulation.add_port()];
        emulation.add_cable(ports[0], ports[1], up, down);
        let stop = Arc::<AtomicBool>::default();
        let links = Links { emulation, paths: 0, out: VecDeque::new() };
        let mut event_loop =
            EventLoop::new(links, Stop(Arc::clone(&stop)), Clock::new(), LoopOptions::default())
                .expect("an event loop can be made");
        for (site, tun) in [(&client.0, client.1), (&server.0, server.1)] {
            let mut config = PathConfig::new(tun.name(), site.nics[0].v4.into());
            tun.describe(&mut config);
            event_loop
                .add_path(AttachedPath { device: Box::new(tun), config, guard: Box::new(()) })
                .expect("a TUN device can be waited for");
        }
        let waker = event_loop.waker();
        let thread = std::thread::Builder::new()
            .name("link".to_owned())
            .spawn(move || event_loop.run().expect("the emulated link works"))
            .expect("a thread can be started");
        Emulated { client: client.0, server: server.0, stop, waker, thread: Some(thread) }
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let failed = thread.join().is_err();
            assert!(!failed || std::thread::panicking(), "the emulated link has failed");
        }
    }
}

/// The NIC of side `number`; `host` and `gateway` are the last bytes of the addresses.
fn nic(device: &str, host: u8, far_device: &str, gateway: u8, number: u8) -> Nic {
    let v6 = |net: u16, host: u8| Ipv6Addr::new(0xfd00, net, 0, 0, 0, 0, 0, u16::from(host));
    Nic {
        device: device.to_owned(),
        far_device: far_device.to_owned(),
        v4: Ipv4Addr::new(10, 1, 0, host),
        v6: v6(1, host),
        routed_v4: Ipv4Addr::new(10, 10 + number, 0, 2),
        routed_v6: v6(0x10 + u16::from(number), 2),
        gateway_v4: Ipv4Addr::new(10, 1, 0, gateway),
        gateway_v6: v6(1, gateway),
    }
}

/// Makes the NIC in `ns`; returns its other end. Everything that is not local goes there.
fn attach(ns: &Netns, nic: &Nic) -> Tun {
    let options = TunOptions { name: Some(nic.device.clone()), ..TunOptions::default() };
    let tun = ns.run(|| Tun::open(&options)).expect("a TUN device can be made");
    ns.script(&format!(
        "ip link set {device} up
         ip addr add {v4}/24 dev {device}
         ip addr add {v6}/64 dev {device} nodad
         ip route add default dev {device}
         ip -6 route add default dev {device}",
        device = nic.device,
        v4 = nic.v4,
        v6 = nic.v6,
    ));
    tun
}

/// The link, as tun-driver's event loop drives a stack. Paths are ports, by their numbers.
struct Links {
    emulation: Emulation,
    paths: u32,
    out: VecDeque<(PortId, Packet)>,
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
        if self.out.is_empty() {
            let out = &mut self.out;
            self.emulation.output(now, |port, packet| out.push_back((port, packet)));
        }
        let (port, packet) = self.out.pop_front()?;
        Some(packet.into_transmit(PathId(port.0 as u32), now))
    }

    fn poll_event(&mut self) -> Option<Event> {
        None
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.out.is_empty() { self.emulation.next_deadline() } else { Some(Instant::ZERO) }
    }
}

/// Ends the loop when it is woken and this is set.
struct Stop(Arc<AtomicBool>);

impl Handler<Links> for Stop {
    fn on_wake(&mut self, cx: &mut Context<'_, Links>) {
        if self.0.load(Ordering::Relaxed) {
            cx.stop();
        }
    }

    fn on_event(&mut self, _cx: &mut Context<'_, Links>, _event: Event) {}
}

//! A client and a server connected by an emulated link: one of netsim's in real time, with any rate, delay,
//! queue, loss and reordering.
//!
//! Both NICs are TUN devices. What the hosts send is read from them and passed to the link, which splits
//! segments into packets first.

use crate::netns::Netns;
use crate::topology::{Nic, Site};
use std::net::{Ipv4Addr, Ipv6Addr};
use umptcp_netsim::Link;
use umptcp_netsim::realtime::Emulation;
use umptcp_tun_driver::device::{Tun, TunOptions};
use umptcp_tun_driver::event_loop::{AttachedPath, EventLoopThread};

/// A client (c0, 10.1.0.2/24) and a server (s0, 10.1.0.1/24) at the ends of one emulated link. Stops when
/// dropped.
#[derive(Debug)]
pub struct EmulatedLink {
    /// The client.
    pub client: Site,
    /// The server.
    pub server: Site,
    network: EventLoopThread<Emulation>,
}

impl EmulatedLink {
    /// Creates it. `up` leads from the client to the server, `down` back; `seed` determines their random
    /// choices.
    ///
    /// # Panics
    /// Without the privileges to create namespaces and TUN devices.
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
        let ((client, client_tun), (server, server_tun)) = (client, server);
        let address = |site: &Site| site.nics[0].v4.into();
        let paths = [
            AttachedPath::unmanaged(client_tun, address(&client)),
            AttachedPath::unmanaged(server_tun, address(&server)),
        ];
        let network = EventLoopThread::start("network", emulation, paths).expect("the link can be emulated");
        EmulatedLink { client, server, network }
    }
}

impl Drop for EmulatedLink {
    fn drop(&mut self) {
        let end = self.network.stop();
        assert!(end.is_ok() || std::thread::panicking(), "the emulated link has failed: {end:?}");
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

/// Creates the NIC in `ns` and returns its far end. Everything that is not local is routed there.
fn attach(ns: &Netns, nic: &Nic) -> Tun {
    let options = TunOptions::named(nic.device.clone());
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

//! The network between client and server: netsim's links in real time, between TUN devices that act as NICs.

use super::plan::{Plan, SERVER};
use anyhow::Context as _;
use std::time::Duration;
use umptcp_netsim::Direction;
use umptcp_netsim::realtime::{Emulation, PortId};
use umptcp_tun_driver::device::Tun;

/// Minimum time between batches of packets, negligible compared with the links' delays.
const GRANULARITY: Duration = Duration::from_micros(200);

/// The running network. Stops when dropped.
pub(super) struct Network {
    network: umptcp_emulation::Network,
    cables: usize,
}

impl Network {
    /// Starts it between the far ends of the client's NICs, in the plan's order, and of the server's NIC.
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
        let addresses = plan.nics.iter().map(|nic| nic.address).chain([SERVER]);
        let devices = nics.into_iter().chain([server]).zip(addresses.map(Into::into));
        let network = umptcp_emulation::Network::start(emulation, devices, GRANULARITY)
            .context("cannot start the emulated network")?;
        Ok(Network { network, cables: plan.nics.len() })
    }

    /// Cuts a NIC's link in both directions, or restores it.
    pub(super) fn set_silent(&self, nic: usize, silent: bool) {
        // If the network has failed, the transfer will fail too.
        let _ = self.network.with(move |emulation, now| emulation.set_cut(now, nic, silent));
    }

    /// Payload delivered over each NIC's link, including retransmissions; at the client if `down`.
    pub(super) fn payload(&self, down: bool) -> anyhow::Result<Vec<u64>> {
        let direction = if down { Direction::Reverse } else { Direction::Forward };
        let cables = 0..self.cables;
        let payload = move |emulation: &mut Emulation, _| {
            cables.map(|cable| emulation.cable(cable).stats(direction).delivered_payload).collect()
        };
        self.network.with(payload).context("the emulated network has failed")
    }
}

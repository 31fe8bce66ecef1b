//! What the demo shows, real or simulated.

use crate::args::DemoArgs;
use crate::failure::usage;
use crate::units;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use umptcp_netsim::{Link, Queue};

/// How often progress is shown.
pub(super) const TICK: Duration = Duration::from_millis(500);

/// The third transfer, relative to the duration of the first: start and end of the silence, and total
/// duration.
const SILENT_FROM: f64 = 0.25;
const SILENT_UNTIL: f64 = 0.625;
const LAST_LENGTH: f64 = 1.25;

/// One of the client's NICs with its link.
#[derive(Clone, Debug)]
pub(super) struct Nic {
    pub(super) name: String,
    /// The kernel's address on it.
    #[cfg_attr(any(not(target_os = "linux"), umptcp_portable), allow(dead_code))]
    pub(super) address: Ipv4Addr,
    /// The client stack's address on it, routed to it by the network.
    pub(super) stack_address: Ipv4Addr,
    /// Bits per second.
    pub(super) rate: u64,
    pub(super) delay: Duration,
}

impl Nic {
    /// One direction of its link, with a queue of one bandwidth-delay product.
    pub(super) fn link(&self) -> Link {
        let product = (self.rate as f64 * self.delay.as_secs_f64() * 2.0 / 8.0) as u64;
        Link::bps(self.rate).delay(self.delay).queue(Queue::Bytes(product.max(30_000)))
    }
}

/// The server's address, and the port it listens on.
pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
pub(super) const PORT: u16 = crate::args::BENCH_PORT;
/// The server stack's address, if the server is umptcp.
pub(super) const SERVER_STACK: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

/// The parameters of the demo.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) nics: Vec<Nic>,
    /// Size of the first two transfers.
    pub(super) bytes: u64,
    /// Duration of the third.
    pub(super) last: Duration,
    /// Part of the third during which the first NIC is silent.
    pub(super) silent: (Duration, Duration),
    /// From server to client.
    pub(super) down: bool,
    pub(super) seed: u64,
}

impl Plan {
    pub(super) fn new(args: &DemoArgs) -> anyhow::Result<Plan> {
        let [first, second] = args.rates[..] else {
            return Err(usage("--rates must be two numbers, for two NICs, such as 300,200"));
        };
        if first == 0 || second == 0 {
            return Err(usage("--rates must be at least 1"));
        }
        let nics = [first, second].into_iter().zip(1u8..).map(|(mbit, block)| Nic {
            name: format!("nic{}", block - 1),
            address: Ipv4Addr::new(10, block, 0, 1),
            stack_address: Ipv4Addr::new(10, block, 0, 2),
            rate: u64::from(mbit) * 1_000_000,
            delay: args.delay,
        });
        let nics: Vec<Nic> = nics.collect();
        // Headers use some of the rate, and TCP needs some round trips to reach it.
        let goodput = nics[0].rate as f64 * 0.94;
        let bytes = (args.seconds.as_secs_f64() * goodput / 8.0).max(1e5) as u64;
        Ok(Plan {
            nics,
            bytes,
            last: args.seconds.mul_f64(LAST_LENGTH),
            silent: (args.seconds.mul_f64(SILENT_FROM), args.seconds.mul_f64(SILENT_UNTIL)),
            down: args.down,
            seed: args.seed,
        })
    }

    /// Describes the demo. `server` is the server's implementation.
    pub(super) fn describe(&self, server: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for (i, nic) in self.nics.iter().enumerate() {
            lines.push(format!(
                "  {} {} {}, {} ms each way {}",
                if i == 0 { "client" } else { "      " },
                nic.name,
                units::rate(nic.rate as f64),
                nic.delay.as_secs_f64() * 1e3,
                if i == 0 { "--+--  server" } else { "--+" },
            ));
        }
        let (from, to) = if self.down { (server, "umptcp") } else { ("umptcp", server) };
        lines.push(format!("  sender: {from}; receiver: {to}"));
        lines
    }

    /// The server's address.
    #[cfg_attr(any(not(target_os = "linux"), umptcp_portable), allow(dead_code))]
    pub(super) fn server_address(kernel: bool) -> IpAddr {
        if kernel { SERVER.into() } else { SERVER_STACK.into() }
    }
}

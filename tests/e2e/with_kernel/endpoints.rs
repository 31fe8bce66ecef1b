//! Endpoints of every flag, added and deleted in mid-transfer at either end, twice; and a NIC that loses its link. The
//! kernel's counters agree with ours.

use super::*;
use crate::umptcp_host::spec;
use crate::umptcp_host::{Mode, with_nics};
use umptcp::ConnectionConfig;
use umptcp_testbed::kernel;
use umptcp_testbed::limit::within;
use umptcp_testbed::netns::device_bytes;
use umptcp_testbed::topology::{Nic, Site};
use umptcp_testbed::traffic::{until_each, until_idle};
use umptcp_tun_driver::paths::PathSpec;

/// What both ends count of endpoints.
const OF_ENDPOINTS: &[(&str, &str)] = &[
    ("MPJoinSynTx", "MPJoinSynRx"),
    ("AddAddrTx", "AddAddr"),
    ("EchoAddTx", "EchoAdd"),
    ("RmAddrTx", "RmAddr"),
];

/// Both ends have counted the same. Some may get lost: in a full queue, on a link that is down, or since the address has
/// just been deleted.
fn about_agree(us: &UmptcpHost, kernel: &Netns) {
    let theirs = Counters::read(kernel);
    for (sent, received) in OF_ENDPOINTS {
        for (tx, rx) in
            [(us.counter(sent), theirs.mptcp(received)), (theirs.mptcp(sent), us.counter(received))]
        {
            assert!(
                rx <= tx && tx <= rx + 4,
                "{sent} {tx}, {received} {rx}; ours: {}; the kernel's: {theirs}",
                us.counters()
            );
        }
    }
}

/// Whose endpoint it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Whose {
    OurClients,
    OurServers,
    KernelClients,
    KernelServers,
}

impl Whose {
    fn is_clients(self) -> bool {
        matches!(self, Whose::OurClients | Whose::KernelClients)
    }

    fn is_ours(self) -> bool {
        matches!(self, Whose::OurClients | Whose::OurServers)
    }
}

/// What is to be seen of an endpoint.
#[derive(Clone, Copy, Debug)]
struct Cell {
    /// Its words: of `ip mptcp endpoint add`, or of `--path`.
    words: &'static str,
    /// Subflows that are opened because of it.
    joins: u64,
    /// They carry data.
    carries: bool,
    /// The peer is told of it.
    told: bool,
    /// The other end has a second address and tells of it.
    other: bool,
}

const SUBFLOW: Cell = Cell { words: "subflow", joins: 1, carries: true, told: false, other: false };
const SIGNAL: Cell = Cell { words: "signal", joins: 1, carries: true, told: true, other: false };

fn site(net: &Routed, clients: bool) -> &Site {
    if clients { &net.client } else { &net.server }
}

/// Waits until a counter of the kernel's or ours has grown.
fn until_more(read: impl Fn() -> u64, more: u64, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(40);
    while read() < more {
        assert!(Instant::now() < deadline, "{what}: {} of {more}", read());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn run(whose: Whose, cell: Cell, first: Family, second: Family) {
    let others = if cell.other { 2 } else { 1 };
    let net = if whose.is_clients() { Routed::new(2, others) } else { Routed::new(others, 2) };
    for site in [&net.client, &net.server] {
        for nic in &site.nics {
            umptcp_testbed::netns::shape(&net.router, &nic.far_device, 60.0);
        }
    }
    let (kernels, ours) = match whose {
        Whose::OurClients | Whose::KernelServers => (&net.server, &net.client),
        Whose::OurServers | Whose::KernelClients => (&net.client, &net.server),
    };
    kernels.use_kernel_mptcp();
    kernels.ns.sh("ip mptcp endpoint flush");
    let kernel = BothFamilies(kernels.ns.clone());
    let own = whose.is_ours();
    let paths: Vec<PathSpec> =
        ours.nics.iter().take(if own { 1 } else { 2 }).map(|nic| spec(nic, Mode::Nat)).collect();
    // The other end's second address, where it takes one.
    if cell.other && own {
        kernels.ns.sh(&format!(
            "ip mptcp endpoint add {} dev {} signal",
            kernels.nics[1].address(second),
            kernels.nics[1].device
        ));
    }
    let config = ConnectionConfig::default().with_advertise_addresses(cell.other && !own);
    let us = with_nics(ours, &paths, config);
    let pair = match whose {
        Whose::OurClients | Whose::KernelServers => connected_over(&net, &us, &kernel, first),
        Whose::OurServers | Whose::KernelClients => connected_over(&net, &kernel, &us, first),
    };

    let nic = &site(&net, whose.is_clients()).nics[1];
    let theirs = |name: &str| Counters::read(&kernels.ns).mptcp(name);
    let opened = || us.counter("MPJoinSynAckRx") + us.counter("MPJoinAckRx");
    let removed = || if own { theirs("RmAddr") } else { us.counter("RmAddr") };
    let carried = || -> Vec<u64> {
        let of = &site(&net, whose.is_clients()).nics;
        of.iter()
            .map(|nic| {
                let bytes = device_bytes(&net.router, &nic.far_device);
                bytes.sent + bytes.received
            })
            .collect()
    };
    pair.exchange_while(4 * MIB, || {
        if cell.other {
            // That of the other end is joined first, from the first NIC.
            until_more(opened, 1, "the other end's second address");
        }
        for round in 0..2 {
            let what = format!("{whose:?} {cell:?} {first:?} {second:?} round {round}");
            let (before, gone, bytes) = (opened(), removed(), carried());
            let mut path = None;
            if own {
                let text = format!("{},{}", nic.device, cell.words);
                path = Some(us.steer(|stack| stack.add_nic(&text.parse().expect("a path"))).expect("a path"));
            } else {
                let address = nic.address(second);
                kernels
                    .ns
                    .sh(&format!("ip mptcp endpoint add {address} dev {} id 77 {}", nic.device, cell.words));
            }
            until_more(opened, before + cell.joins, &what);
            if cell.carries {
                until_each(|| vec![carried()[1] - bytes[1]], MIB);
            }
            match path {
                Some(path) => {
                    assert!(us.steer(|stack| stack.remove_path(path)).expect("the stack runs"), "{what}")
                }
                None => drop(kernels.ns.sh("ip mptcp endpoint delete id 77")),
            }
            if own && (cell.told || cell.joins > 0) {
                until_more(removed, gone + 1, &format!("{what}: removal"));
            }
            until_idle(carried, 1, 2 * MIB);
        }
    });
    drop(pair);
    about_agree(&us, &kernels.ns);
    // What is under way to an address that has just been deleted is reset.
    Counters::read(&kernels.ns).assert_untroubled_but(&["MPRstTx", "MPRstRx"]);
}

macro_rules! endpoints {
    ($($name:ident: $whose:ident, $cell:expr, $first:ident, $second:ident;)*) => {
        $(
            #[test]
            fn $name() {
                within(LIMIT, || run(Whose::$whose, $cell, Family::$first, Family::$second));
            }
        )*
    };
}

endpoints! {
    our_clients_subflow: OurClients, SUBFLOW, V4, V4;
    our_clients_subflow_ipv6: OurClients, SUBFLOW, V6, V6;
    our_clients_backup: OurClients, Cell { words: "backup", carries: false, ..SUBFLOW }, V4, V4;
    our_clients_id: OurClients, Cell { words: "id=77,id6=78", ..SUBFLOW }, V4, V4;
    our_clients_fullmesh: OurClients, Cell { words: "fullmesh", joins: 2, other: true, ..SUBFLOW }, V4, V4;
    our_clients_fullmesh_mixed: OurClients, Cell { words: "fullmesh", joins: 2, other: true, ..SUBFLOW }, V4, V6;
    our_clients_signal: OurClients, SIGNAL, V4, V4;
    our_clients_signal_port: OurClients, Cell { words: "signal,port=4999,id=77", ..SIGNAL }, V4, V4;
    our_servers_signal: OurServers, SIGNAL, V4, V4;
    our_servers_signal_ipv6: OurServers, Cell { joins: 2, ..SIGNAL }, V6, V6;
    our_servers_signal_port: OurServers, Cell { words: "signal,port=4999,id=77", ..SIGNAL }, V4, V4;
    our_servers_signal_id: OurServers, Cell { words: "signal,id=77", ..SIGNAL }, V4, V4;
    kernel_clients_subflow: KernelClients, SUBFLOW, V4, V4;
    kernel_clients_subflow_ipv6: KernelClients, SUBFLOW, V6, V6;
    kernel_clients_backup: KernelClients, Cell { words: "subflow backup", carries: false, ..SUBFLOW }, V4, V4;
    kernel_clients_fullmesh: KernelClients, Cell { words: "subflow fullmesh", joins: 2, other: true, ..SUBFLOW }, V4, V4;
    kernel_servers_signal: KernelServers, SIGNAL, V4, V4;
    kernel_servers_signal_ipv6: KernelServers, SIGNAL, V6, V6;
    kernel_servers_signal_mixed: KernelServers, SIGNAL, V4, V6;
    kernel_servers_backup: KernelServers, Cell { words: "signal backup", carries: false, ..SIGNAL }, V4, V4;
    kernel_servers_signal_port: KernelServers, Cell { words: "signal port 4999", ..SIGNAL }, V4, V4;
}

/// A path of our client that is laminar carries nothing until the kernel tells of an address, twice, and that alone.
fn our_laminar_clients(second: Family) {
    let net = Routed::new(2, 2);
    for site in [&net.client, &net.server] {
        for nic in &site.nics {
            umptcp_testbed::netns::shape(&net.router, &nic.far_device, 60.0);
        }
    }
    net.server.use_kernel_mptcp();
    net.server.ns.sh("ip mptcp endpoint flush");
    let kernel = BothFamilies(net.server.ns.clone());
    let text = format!("{},laminar", net.client.nics[1].device);
    let paths = [spec(&net.client.nics[0], Mode::Nat), text.parse().expect("a path")];
    let us = with_nics(&net.client, &paths, ConnectionConfig::default());
    let pair = connected_over(&net, &us, &kernel, Family::V4);
    let on = |nic: &Nic| {
        let bytes = device_bytes(&net.router, &nic.far_device);
        bytes.sent + bytes.received
    };
    let carried = || vec![on(&net.client.nics[1]), on(&net.server.nics[1])];
    pair.exchange_while(4 * MIB, || {
        until_each(|| vec![on(&net.client.nics[0])], MIB);
        assert_eq!(us.counter("MPJoinSynTx"), 0, "no address has been told of: {}", us.counters());
        for round in 0..2 {
            let (opened, removed, bytes) = (us.counter("MPJoinSynAckRx"), us.counter("RmAddr"), carried());
            let nic = &net.server.nics[1];
            let address = nic.address(second);
            net.server.ns.sh(&format!("ip mptcp endpoint add {address} dev {} id 77 signal", nic.device));
            until_more(|| us.counter("MPJoinSynAckRx"), opened + 1, &format!("join, round {round}"));
            until_each(|| carried().iter().zip(&bytes).map(|(now, then)| now - then).collect(), MIB);
            net.server.ns.sh("ip mptcp endpoint delete id 77");
            until_more(|| us.counter("RmAddr"), removed + 1, &format!("removal, round {round}"));
        }
    });
    drop(pair);
    about_agree(&us, &net.server.ns);
}

#[test]
fn our_laminar_clients_reach_what_the_kernel_tells_of() {
    within(LIMIT, || our_laminar_clients(Family::V4));
}

#[test]
fn our_laminar_clients_reach_what_the_kernel_tells_of_over_ipv6() {
    within(LIMIT, || our_laminar_clients(Family::V6));
}

/// The link of the client's second NIC goes and comes back in mid-transfer: the other carries everything meanwhile.
fn link_down_and_up(ours: bool) {
    let net = shaped();
    let (kernels, own) = if ours { (&net.server, &net.client) } else { (&net.client, &net.server) };
    kernels.use_kernel_mptcp();
    let kernel = BothFamilies(kernels.ns.clone());
    let paths: Vec<PathSpec> = own.nics.iter().map(|nic| spec(nic, Mode::Nat)).collect();
    let us = with_nics(own, &paths, ConnectionConfig::default());
    let pair = if ours { connected(&net, &us, &kernel) } else { connected(&net, &kernel, &us) };
    let links =
        || net.client_link_bytes().iter().map(|link| link.to_client + link.to_server).collect::<Vec<u64>>();
    let far = &net.client.nics[1].far_device;
    pair.exchange_while(8 * MIB, || {
        for _ in 0..2 {
            let before = links();
            until_each(|| links().iter().zip(&before).map(|(now, then)| now - then).collect(), MIB);
            net.router.sh(&format!("ip link set {far} down"));
            until_idle(links, 1, 4 * MIB);
            net.router.sh(&format!("ip link set {far} up"));
        }
        let before = links();
        until_each(|| links().iter().zip(&before).map(|(now, then)| now - then).collect(), MIB);
    });
    drop(pair);
    about_agree(&us, &kernels.ns);
    kernel::wait_closed(&kernels.ns);
}

#[test]
fn our_clients_link_goes_and_comes_back() {
    within(LIMIT, || link_down_and_up(true));
}

#[test]
fn a_kernel_clients_link_goes_and_comes_back() {
    within(LIMIT, || link_down_and_up(false));
}

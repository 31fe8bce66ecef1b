//! The features of RFC 8684 besides data transfer, one at a time, with the kernel's MPTCP as the peer. After
//! each test, the kernel's counters must agree with ours.

mod addresses;
mod caps;
mod close;
mod endpoints;
mod fast_open;
mod joins;
mod middleboxes;
mod options;
mod path_mtu;
mod ports;
mod priority;

use crate::umptcp_host::{PORT, UmptcpHost};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};
use umptcp_testbed::Netns;
use umptcp_testbed::endpoint::{Endpoint, KernelHost, Listener, Pair, connect};
use umptcp_testbed::exchange::Conversation;
use umptcp_testbed::kernel::{Counters, Kind};
use umptcp_testbed::topology::{Family, Routed};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(90);

/// Pairs of counters of what one end sends and the other receives. Nothing is lost on the links, so they must
/// agree.
const SENT_AND_RECEIVED: &[(&str, &str)] = &[
    ("MPCapableSYNTX", "MPCapableSYNRX"),
    ("MPJoinSynTx", "MPJoinSynRx"),
    ("AddAddrTx", "AddAddr"),
    ("EchoAddTx", "EchoAdd"),
    ("RmAddrTx", "RmAddr"),
    ("MPPrioTx", "MPPrioRx"),
    ("MPFailTx", "MPFailRx"),
    ("InfiniteMapTx", "InfiniteMapRx"),
    ("MPRstTx", "MPRstRx"),
];

/// Asserts that sent and received counters agree in both directions within ten seconds (the last packets may
/// still be in flight).
fn same_story(ours: &UmptcpHost, kernel: &Netns) {
    agree(ours, kernel, SENT_AND_RECEIVED);
}

/// The same of these counters.
fn agree(ours: &UmptcpHost, kernel: &Netns, counters: &[(&str, &str)]) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let theirs = Counters::read(kernel);
        let differing: Vec<_> = counters
            .iter()
            .flat_map(|&(sent, received)| {
                [
                    (format!("our {sent}"), ours.counter(sent), theirs.mptcp(received)),
                    (format!("the kernel's {sent}"), theirs.mptcp(sent), ours.counter(received)),
                ]
            })
            .filter(|(_, sent, received)| sent != received)
            .map(|(name, sent, received)| format!("{name} is {sent}, the other end received {received}"))
            .collect();
        if differing.is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{}\nour counters: {}\nthe kernel's: {theirs}",
            differing.join("\n"),
            ours.counters()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Asserts that no more was received than sent, for tests in which packets may be lost or ignored: a RST that
/// overtakes lost data is not accepted, and the next one has no options (RFC 5961 section 3.2).
fn plausible_story(ours: &UmptcpHost, kernel: &Netns) {
    let theirs = Counters::read(kernel);
    for (sent, received) in SENT_AND_RECEIVED {
        let both =
            [(ours.counter(sent), theirs.mptcp(received)), (theirs.mptcp(sent), ours.counter(received))];
        assert!(
            both.iter().all(|(sent, received)| received <= sent),
            "{received} exceeds {sent}; ours: {}; the kernel's: {theirs}",
            ours.counters()
        );
    }
}

/// Waits up to ten seconds until our counter `name` is at least `value`.
fn wait_ours(ours: &UmptcpHost, name: &str, value: u64) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while ours.counter(name) < value {
        assert!(Instant::now() < deadline, "{name} stays below {value}; our counters: {}", ours.counters());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A kernel that listens on every address of both families, like a server with several addresses: it accepts
/// joins only where it listens. Sockets are IPv6, because IPv4 ones have no IPv6 subflows.
struct BothFamilies(Netns);

impl Endpoint for BothFamilies {
    fn listen(&self, local: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), local.port());
        KernelHost::new(&self.0, Kind::Mptcp).listen(any)
    }

    fn connect(&self, remote: SocketAddr) -> io::Result<Box<dyn Conversation>> {
        let address = match remote.ip() {
            IpAddr::V4(a) => a.to_ipv6_mapped(),
            IpAddr::V6(a) => a,
        };
        KernelHost::new(&self.0, Kind::Mptcp).connect(SocketAddr::new(address.into(), remote.port()))
    }
}

/// A client with two NICs of 100 Mbit/s.
fn shaped() -> Routed {
    let net = Routed::new(2, 1);
    net.shape_client(0, 100.0);
    net.shape_client(1, 100.0);
    net
}

/// The kernel of the server's namespace, set up to use every NIC.
fn kernel_server(net: &Routed) -> BothFamilies {
    net.server.use_kernel_mptcp();
    BothFamilies(net.server.ns.clone())
}

/// The kernel of the client's namespace, set up to use every NIC.
fn kernel_client(net: &Routed) -> KernelHost {
    net.client.use_kernel_mptcp();
    KernelHost::new(&net.client.ns, Kind::Mptcp)
}

/// The listening address on the server's first NIC.
fn server_address(net: &Routed, family: Family) -> SocketAddr {
    net.server.nics[0].socket_address(family, PORT)
}

/// Exchanges a byte in each direction. No subflow may be added before that (RFC 8684 §3.1): the DATA_ACK
/// shows that the peer has the keys.
fn hello(client: &dyn Conversation, server: &dyn Conversation) {
    for (from, to) in [(client, server), (server, client)] {
        let mut buffer = [0; 8];
        assert_eq!(from.send(b"!").expect("the connection stands"), 1);
        assert_eq!(to.receive(&mut buffer).expect("the connection stands"), 1);
    }
}

/// Connects over IPv4; see [`connected_over`].
fn connected(net: &Routed, client: &dyn Endpoint, server: &dyn Endpoint) -> Pair {
    connected_over(net, client, server, Family::V4)
}

/// Connects, and asserts that the connection is MPTCP at our end. Subflows can be added from then on.
fn connected_over(net: &Routed, client: &dyn Endpoint, server: &dyn Endpoint, family: Family) -> Pair {
    let pair = connect(client, server, server_address(net, family));
    hello(&*pair.client, &*pair.server);
    assert!(
        [&pair.client, &pair.server].iter().all(|end| end.is_mptcp() != Some(false)),
        "the connection is plain TCP"
    );
    pair
}

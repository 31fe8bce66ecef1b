//! Every combination of client, server, address family and path mode transfers 128 MiB of seeded random data
//! in each direction at the same time over two equal paths.

use crate::umptcp_host::{Mode, UmptcpHost};
use std::time::Duration;
use umptcp_testbed::endpoint::{Endpoint, KernelHost, connect};
use umptcp_testbed::host::Snapshot;
use umptcp_testbed::kernel::{self, Counters, Kind};
use umptcp_testbed::limit::within;
use umptcp_testbed::topology::{Family, Routed, Site, both_ways};
use umptcp_testbed::traffic::until_each;

const MIB: u64 = 1 << 20;
/// Takes about three seconds. With half of it, one path once carried only a fifth of one direction.
const LENGTH: u64 = 128 * MIB;

/// The stack of one side.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Kernel,
    Umptcp,
}

impl Side {
    fn host(self, site: &Site, mode: Mode) -> Box<dyn Endpoint> {
        match self {
            Side::Kernel => {
                site.use_kernel_mptcp();
                Box::new(KernelHost::new(&site.ns, Kind::Mptcp))
            }
            Side::Umptcp => Box::new(UmptcpHost::new(site, mode)),
        }
    }
}

fn cell(client_side: Side, server_side: Side, family: Family, mode: Mode) {
    let net = Routed::new(2, 1);
    net.shape_client(0, 200.0);
    net.shape_client(1, 200.0);
    let untouched = [&net.client.ns, &net.server.ns].map(Snapshot::take);

    let client = client_side.host(&net.client, mode);
    let server = server_side.host(&net.server, mode);
    let address = match (server_side, mode) {
        (Side::Umptcp, Mode::Routed) => {
            std::net::SocketAddr::new(net.server.nics[0].routed_address(family), 4000)
        }
        _ => net.server.nics[0].socket_address(family, 4000),
    };
    let pair = connect(&*client, &*server, address);
    pair.exchange_while(LENGTH, || until_each(|| both_ways(&net.client_link_bytes()), LENGTH / 4));
    for end in [&pair.client, &pair.server] {
        assert_ne!(end.is_mptcp(), Some(false), "the connection is not MPTCP at its end");
    }
    drop(pair);
    if client_side == Side::Kernel {
        kernel::wait_closed(&net.client.ns);
        let counters = Counters::read(&net.client.ns);
        counters.assert_untroubled();
        // Our server also advertises its IPv4 address, and a kernel's IPv6 socket (unlike an IPv4 one) joins
        // addresses of the other family.
        let joins = if (server_side, family) == (Side::Umptcp, Family::V6) { 2 } else { 1 };
        for (name, value) in [
            ("MPCapableSYNTX", 1),
            ("MPCapableSYNACKRX", 1),
            ("MPJoinSynTx", joins),
            ("MPJoinSynAckRx", joins),
        ] {
            assert_eq!(counters.mptcp(name), value, "{name}; all: {counters}");
        }
    }
    if server_side == Side::Kernel {
        kernel::wait_closed(&net.server.ns);
        let counters = Counters::read(&net.server.ns);
        counters.assert_untroubled();
        for (name, value) in
            [("MPCapableSYNRX", 1), ("MPCapableACKRX", 1), ("MPJoinSynRx", 1), ("MPJoinAckRx", 1)]
        {
            assert_eq!(counters.mptcp(name), value, "{name}; all: {counters}");
        }
    }
    drop((client, server));
    for (side, ns, before) in
        [(client_side, &net.client.ns, &untouched[0]), (server_side, &net.server.ns, &untouched[1])]
    {
        if side == Side::Umptcp {
            before.assert_restored(ns, Duration::from_secs(5));
        }
    }
}

macro_rules! matrix {
    ($($name:ident: $client:ident to $server:ident, $family:ident, $mode:ident;)*) => {
        $(
            #[test]
            fn $name() {
                within(Duration::from_secs(90), || cell(Side::$client, Side::$server, Family::$family, Mode::$mode));
            }
        )*
    };
}

matrix! {
    umptcp_to_kernel_ipv4_nat: Umptcp to Kernel, V4, Nat;
    umptcp_to_kernel_ipv4_routed: Umptcp to Kernel, V4, Routed;
    umptcp_to_kernel_ipv6_nat: Umptcp to Kernel, V6, Nat;
    umptcp_to_kernel_ipv6_routed: Umptcp to Kernel, V6, Routed;
    kernel_to_umptcp_ipv4_nat: Kernel to Umptcp, V4, Nat;
    kernel_to_umptcp_ipv4_routed: Kernel to Umptcp, V4, Routed;
    kernel_to_umptcp_ipv6_nat: Kernel to Umptcp, V6, Nat;
    kernel_to_umptcp_ipv6_routed: Kernel to Umptcp, V6, Routed;
    umptcp_to_umptcp_ipv4_nat: Umptcp to Umptcp, V4, Nat;
    umptcp_to_umptcp_ipv4_routed: Umptcp to Umptcp, V4, Routed;
    umptcp_to_umptcp_ipv6_nat: Umptcp to Umptcp, V6, Nat;
    umptcp_to_umptcp_ipv6_routed: Umptcp to Umptcp, V6, Routed;
}

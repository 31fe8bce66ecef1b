//! Peers without MPTCP and paths that strip it: the data arrives as plain TCP.

use crate::umptcp_host::{Mode, UmptcpHost};
use std::time::Duration;
use umptcp_testbed::endpoint::{Endpoint, KernelHost, Pair, connect};
use umptcp_testbed::kernel::{Counters, Kind};
use umptcp_testbed::limit::within;
use umptcp_testbed::topology::{Family, Routed};

const MIB: u64 = 1 << 20;
const LENGTH: u64 = 8 * MIB;
const LIMIT: Duration = Duration::from_secs(60);

fn is_plain(pair: &Pair) {
    for end in [&pair.client, &pair.server] {
        assert_ne!(end.is_mptcp(), Some(true), "one end believes that it uses MPTCP");
    }
}

fn exchange_plain(net: &Routed, client: &dyn Endpoint, server: &dyn Endpoint) {
    let pair = connect(client, server, net.server.nics[0].socket_address(Family::V4, 4000));
    pair.exchange(LENGTH);
    is_plain(&pair);
    // Plain TCP uses one path: the second carries only neighbour discovery and the like.
    let links = net.client_link_bytes();
    assert!(links[1].to_server < 10_000 && links[1].to_client < 10_000, "{links:?}");
}

#[test]
fn a_server_without_mptcp() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        let client = UmptcpHost::new(&net.client, Mode::Nat);
        exchange_plain(&net, &client, &KernelHost::new(&net.server.ns, Kind::Tcp));
        // The second path was asked whether it is the server that says so.
        assert_eq!(client.counter("MPCapableFallbackSYNACK"), 2);
    });
}

#[test]
fn a_client_without_mptcp() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        let server = UmptcpHost::new(&net.server, Mode::Nat);
        exchange_plain(&net, &KernelHost::new(&net.client.ns, Kind::Tcp), &server);
        assert_eq!(server.counter("MPCapableSYNRX"), 0);
    });
}

#[test]
fn paths_that_strip_the_option_from_our_syn() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        net.strip_mptcp_from_syn(0);
        net.strip_mptcp_from_syn(1);
        let client = UmptcpHost::new(&net.client, Mode::Nat);
        exchange_plain(&net, &client, &KernelHost::new(&net.server.ns, Kind::Mptcp));
        assert_eq!(client.counter("MPCapableFallbackSYNACK"), 2);
        assert_eq!(Counters::read(&net.server.ns).mptcp("MPCapableSYNRX"), 0);
    });
}

#[test]
fn a_path_that_strips_the_option_from_the_kernels_syn() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        net.client.use_kernel_mptcp();
        net.strip_mptcp_from_syn(0);
        let server = UmptcpHost::new(&net.server, Mode::Nat);
        exchange_plain(&net, &KernelHost::new(&net.client.ns, Kind::Mptcp), &server);
        assert_eq!(Counters::read(&net.client.ns).mptcp("MPCapableFallbackSYNACK"), 1);
    });
}

#[test]
fn a_second_path_that_strips_the_option_leaves_the_first() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        net.server.use_kernel_mptcp();
        net.strip_mptcp_from_syn(1);
        let client = UmptcpHost::new(&net.client, Mode::Nat);
        let server = KernelHost::new(&net.server.ns, Kind::Mptcp);
        let pair = connect(&client, &server, net.server.nics[0].socket_address(Family::V4, 4000));
        pair.exchange(LENGTH);
        assert_eq!(pair.client.is_mptcp(), Some(true));
        let links = net.client_link_bytes();
        assert!(links[1].to_server < 10_000, "{links:?}");
    });
}

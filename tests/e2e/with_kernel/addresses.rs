//! ADD_ADDR and REMOVE_ADDR in both roles (RFC 8684 §3.4).

use super::*;
use crate::umptcp_host::{Listening, Mode, Stream};
use umptcp::ConnectionConfig;
use umptcp_testbed::kernel;
use umptcp_testbed::limit::within;
use umptcp_testbed::netns::device_bytes;
use umptcp_testbed::topology::to_client;
use umptcp_testbed::traffic::{until_each, until_idle};

/// Bytes that have reached the server through its NIC `nic`.
fn to_server(net: &Routed, nic: usize) -> u64 {
    device_bytes(&net.router, &net.server.nics[nic].far_device).sent
}

fn both_to_server(net: &Routed) -> Vec<u64> {
    vec![to_server(net, 0), to_server(net, 1)]
}

/// A kernel server with two NICs advertises the second with `endpoint` (arguments of `ip mptcp endpoint
/// add`). Our client, connected to the first over `family`, joins it, and both carry data.
fn signalled(family: Family, endpoint: impl Fn(&Routed) -> String, port: u64) {
    let net = Routed::new(1, 2);
    let server = kernel_server(&net);
    for nic in &net.server.nics {
        umptcp_testbed::netns::shape(&net.router, &nic.far_device, 100.0);
    }
    if port == 1 && family == Family::V6 {
        // 30 bytes of ADD_ADDR and 12 of timestamps exceed the option space, in which case the kernel sends
        // no ADD_ADDR.
        net.server.ns.sysctl("net.ipv4.tcp_timestamps", "0");
    }
    net.server.ns.script(&format!("ip mptcp endpoint flush\nip mptcp endpoint add {}", endpoint(&net)));
    let client = UmptcpHost::new(&net.client, Mode::Nat);
    let pair = connected_over(&net, &client, &server, family);
    wait_ours(&client, "MPJoinSynAckRx", 1);
    pair.exchange_while(16 * MIB, || until_each(|| both_to_server(&net), 4 * MIB));
    let counters = Counters::read(&net.server.ns);
    counters.assert_untroubled();
    assert_eq!(client.counter("AddAddr"), 1, "{}", client.counters());
    assert_eq!(client.counter("PortAdd"), port, "{}", client.counters());
    assert_eq!(counters.mptcp("EchoAdd"), 1, "{counters}");
    assert_eq!(counters.mptcp("MPJoinPortAckRx"), port, "{counters}");
    same_story(&client, &net.server.ns);
}

#[test]
fn we_join_an_address_that_the_kernel_signals() {
    within(LIMIT, || signalled(Family::V4, |net| format!("{} dev s1 signal", net.server.nics[1].v4), 0));
}

#[test]
fn we_join_an_ipv6_address_that_the_kernel_signals() {
    within(LIMIT, || signalled(Family::V6, |net| format!("{} dev s1 signal", net.server.nics[1].v6), 0));
}

#[test]
fn we_join_the_port_that_the_kernel_signals() {
    within(LIMIT, || {
        signalled(Family::V4, |net| format!("{} dev s1 port 4999 signal", net.server.nics[1].v4), 1);
    });
}

#[test]
fn we_join_the_ipv6_port_that_the_kernel_signals() {
    within(LIMIT, || {
        signalled(Family::V6, |net| format!("{} dev s1 port 4999 signal", net.server.nics[1].v6), 1);
    });
}

#[test]
fn an_ipv6_subflow_joins_an_ipv4_connection() {
    within(LIMIT, || signalled(Family::V4, |net| format!("{} dev s1 signal", net.server.nics[1].v6), 0));
}

#[test]
fn an_ipv4_subflow_joins_an_ipv6_connection() {
    within(LIMIT, || signalled(Family::V6, |net| format!("{} dev s1 signal", net.server.nics[1].v4), 0));
}

#[test]
fn a_kernel_client_that_signals_gets_its_echo() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        let client = kernel_client(&net);
        net.client.ns.script(&format!(
            "ip mptcp endpoint flush
             ip mptcp endpoint add {} dev c1 signal
             ip mptcp endpoint add {} dev c1 signal",
            net.client.nics[1].v4, net.client.nics[1].v6
        ));
        let server = UmptcpHost::new(&net.server, Mode::Nat);
        let pair = connected(&net, &client, &server);
        wait_ours(&server, "EchoAddTx", 2);
        pair.exchange(4 * MIB);
        assert_eq!(Counters::read(&net.client.ns).mptcp("EchoAdd"), 2);
        same_story(&server, &net.client.ns);
    });
}

/// Our server advertises its other addresses, of both families; the kernel, which has one NIC, joins them.
#[test]
fn the_kernel_joins_the_addresses_that_we_advertise() {
    within(LIMIT, || {
        let net = Routed::new(1, 2);
        net.client.use_kernel_mptcp();
        let client = BothFamilies(net.client.ns.clone());
        for nic in &net.server.nics {
            umptcp_testbed::netns::shape(&net.router, &nic.far_device, 100.0);
        }
        let config = ConnectionConfig::default().with_advertise_addresses(true);
        let server = UmptcpHost::with(&net.server, Mode::Nat, config);
        let pair = connected(&net, &client, &server);
        // The second NIC's address of each family, and the first NIC's IPv6 address.
        wait_ours(&server, "MPJoinAckRx", 3);
        pair.exchange_while(16 * MIB, || until_each(|| both_to_server(&net), 4 * MIB));
        let counters = Counters::read(&net.client.ns);
        counters.assert_untroubled();
        // The kernel processes them one by one and drops those that arrive in the meantime, which we send
        // again.
        assert_eq!(server.counter("EchoAdd"), 3, "{}; {counters}", server.counters());
        same_story(&server, &net.client.ns);
    });
}

#[test]
fn the_kernel_server_removes_the_address_it_signalled() {
    within(LIMIT, || {
        let net = Routed::new(1, 2);
        let server = kernel_server(&net);
        for nic in &net.server.nics {
            umptcp_testbed::netns::shape(&net.router, &nic.far_device, 50.0);
        }
        net.server.ns.script(&format!(
            "ip mptcp endpoint flush
             ip mptcp endpoint add {} id 5 dev s1 signal",
            net.server.nics[1].v4
        ));
        let client = UmptcpHost::new(&net.client, Mode::Nat);
        let pair = connected(&net, &client, &server);
        wait_ours(&client, "MPJoinSynAckRx", 1);
        pair.exchange_while(32 * MIB, || {
            until_each(|| both_to_server(&net), 2 * MIB);
            net.server.ns.sh("ip mptcp endpoint delete id 5");
            wait_ours(&client, "RmAddr", 1);
            until_idle(|| both_to_server(&net), 1, 4 * MIB);
        });
        assert_eq!(client.counter("RmAddr"), 1, "{}", client.counters());
        assert_eq!(client.counter("MPJoinSynTx"), 1, "it joined again: {}", client.counters());
        assert_eq!(client.counter("RmAddrTx"), 0);
    });
}

#[test]
fn a_kernel_client_removes_an_address_in_use() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        net.shape_client(0, 50.0);
        net.shape_client(1, 50.0);
        let client = kernel_client(&net);
        net.client.ns.script(&format!(
            "ip mptcp endpoint flush
             ip mptcp endpoint add {} id 6 dev c1 subflow",
            net.client.nics[1].v4
        ));
        let server = UmptcpHost::new(&net.server, Mode::Nat);
        let pair = connected(&net, &client, &server);
        pair.exchange_while(32 * MIB, || {
            net.wait_client_link(1, 2 * MIB);
            net.client.ns.sh("ip mptcp endpoint delete id 6");
            wait_ours(&server, "RmAddr", 1);
            until_idle(|| to_client(&net.client_link_bytes()), 1, 4 * MIB);
            let before = net.client_link_bytes();
            // An endpoint that is added again is used again.
            net.client.ns.sh(&format!("ip mptcp endpoint add {} id 6 dev c1 subflow", net.client.nics[1].v4));
            net.wait_client_link(1, before[1].to_client + 2 * MIB);
        });
        assert_eq!(server.counter("RmAddr"), 1, "{}", server.counters());
        assert_eq!(server.counter("MPJoinAckRx"), 2, "{}", server.counters());
    });
}

/// Our server advertises an address with a port on which nothing listens: the token identifies the connection
/// to join. Then it withdraws the address.
#[test]
fn the_kernel_joins_the_port_that_we_advertise_until_we_withdraw_it() {
    within(LIMIT, || {
        let net = Routed::new(1, 2);
        net.client.use_kernel_mptcp();
        for nic in &net.server.nics {
            umptcp_testbed::netns::shape(&net.router, &nic.far_device, 50.0);
        }
        // In routed mode, no NAT has to know the port.
        let server = UmptcpHost::new(&net.server, Mode::Routed);
        let address = SocketAddr::new(net.server.nics[0].routed_address(Family::V4), PORT);
        let listener = server.listener(address).expect("the port is free");
        let client = KernelHost::new(&net.client.ns, Kind::Mptcp).connect(address).expect("we listen");
        let ours = listener.accept().expect("one is there").0;
        let pair =
            Pair { client, server: Box::new(Stream(ours.clone())), listener: Box::new(Listening(listener)) };
        hello(&*pair.client, &*pair.server);
        let second = net.server.nics[1].routed_address(Family::V4);
        let id = ours.advertise_address(second, Some(4999)).expect("an ID is free");
        pair.exchange_while(32 * MIB, || {
            let deadline = Instant::now() + Duration::from_secs(30);
            let joined = || {
                let subflows = ours.subflows().expect("the connection stands");
                subflows.iter().any(|s| s.local == SocketAddr::new(second, 4999))
            };
            while !joined() || to_server(&net, 1) < 2 * MIB {
                assert!(Instant::now() < deadline, "the second address is not used: {}", server.counters());
                std::thread::sleep(Duration::from_millis(5));
            }
            ours.withdraw_address(id).expect("the connection is MPTCP");
            kernel::wait_for(&net.client.ns, "told of the removal", |c| c.mptcp("RmAddr") >= 1);
            until_idle(|| both_to_server(&net), 1, 4 * MIB);
        });
        let counters = Counters::read(&net.client.ns);
        assert!(counters.mptcp("PortAdd") >= 1, "{counters}");
        // Listeners also advertise the other addresses. A removal is said four times, since nothing confirms
        // it.
        assert!(server.counter("EchoAdd") >= 1 && counters.mptcp("RmAddr") >= 1, "{counters}");
    });
}

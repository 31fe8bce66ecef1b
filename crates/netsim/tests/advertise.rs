//! Addresses that are advertised before the first data (RFC 8684 §3.1, §3.4.1).

use umptcp_netsim::{Duration, Link, Pair, Side};
use umptcp_stack_core::config::ConnectionConfig;
use umptcp_stack_core::observe::Counter;

/// One client interface, a server with two, over IPv6: ADD_ADDR and DATA_ACK do not fit on one ACK.
fn pair(paths: u8) -> Pair {
    let config = ConnectionConfig::default().with_advertise_addresses(true);
    let mut builder = Pair::builder().ipv6(true).multihomed(true).seed(5).server_config(config);
    for i in 0..paths {
        builder = builder.path(Link::mbit(50).delay_ms(10 + u64::from(i)));
    }
    builder.build()
}

fn counter(net: &Pair, side: Side, counter: Counter) -> u64 {
    net.stack(net.node(side)).unwrap().counters().get(counter)
}

#[test]
fn an_address_advertised_before_any_data_is_echoed_once() {
    let mut net = pair(2);
    let flow = net.connect().unwrap();
    let before = net.packet_events();
    net.run_for(Duration::from_secs(5)).unwrap();
    assert_eq!(counter(&net, Side::Server, Counter::AddAddrTx), 1);
    assert_eq!(counter(&net, Side::Client, Counter::AddAddr), 1);
    assert_eq!(counter(&net, Side::Client, Counter::EchoAddTx), 1);
    assert_eq!(counter(&net, Side::Server, Counter::EchoAdd), 1);
    // The advertisement, its echo, the joins: not an ACK for every poll.
    assert!(net.packet_events() - before < 60, "{} packet events", net.packet_events() - before);
    net.transfer(flow, Side::Client, 1000).unwrap();
    net.transfer(flow, Side::Server, 1000).unwrap();
}

#[test]
fn an_address_advertised_before_any_data_is_joined_after_it() {
    let mut net = pair(2);
    let flow = net.connect().unwrap();
    net.run_for(Duration::from_secs(1)).unwrap();
    net.transfer(flow, Side::Client, 1000).unwrap();
    net.await_subflows(flow, 2).unwrap();
    let remotes: std::collections::BTreeSet<_> = {
        let end = net.flow(flow).end(Side::Client);
        let stack = net.stack(end.node).unwrap();
        stack.subflows(end.connection.unwrap()).iter().map(|s| s.remote).collect()
    };
    assert_eq!(remotes.len(), 2, "{remotes:?}");
}

//! Handshakes over whole networks: joins from either side, paths that swallow SYNs, ports in great demand.

use umptcp_netsim::middlebox::DropIf;
use umptcp_netsim::{Direction, Duration, FlowId, Link, Packet, Pair, PairBuilder, Side};
use umptcp_stack_core::config::ConnectionConfig;
use umptcp_stack_core::error::FallbackReason;
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::types::PathId;

fn counter(net: &Pair, side: Side, counter: Counter) -> u64 {
    net.stack(net.node(side)).unwrap().counters().get(counter)
}

fn both_multihomed() -> PairBuilder {
    let config = ConnectionConfig::default().with_server_joins(true);
    Pair::builder()
        .path(Link::mbit(50).delay_ms(10))
        .path(Link::mbit(50).delay_ms(10))
        .multihomed(true)
        .server_config(config)
        .seed(11)
}

fn exchange(net: &mut Pair, flow: FlowId) {
    net.transfer(flow, Side::Client, 2_000_000).unwrap();
    net.transfer(flow, Side::Server, 2_000_000).unwrap();
    net.close(flow).unwrap();
    net.run_until_idle(Duration::from_secs(600)).unwrap();
    for side in [Side::Client, Side::Server] {
        assert_eq!(net.stack(net.node(side)).unwrap().poll_timeout(), None, "{side:?} has a timer left");
        assert_eq!(counter(net, side, Counter::MPCurrEstab), 0);
        assert_eq!(counter(net, side, Counter::DSSNotMatching), 0);
    }
}

/// RFC 8684 §3.2: either host may open subflows. Here the client has but one path and the server two.
#[test]
fn the_server_joins_the_client() {
    let mut net = both_multihomed().build();
    let mut spec = net.flow_spec();
    spec.paths = vec![PathId(0)];
    let flow = net.connect_with(spec).unwrap();
    net.run_for(Duration::from_secs(2)).unwrap();
    // Not before a DSS has come from the client (§3.1).
    assert_eq!(counter(&net, Side::Server, Counter::MPJoinSynTx), 0);
    net.transfer(flow, Side::Server, 1000).unwrap();
    net.await_subflows(flow, 2).unwrap();
    assert_eq!(counter(&net, Side::Server, Counter::MPJoinSynTx), 1);
    assert_eq!(counter(&net, Side::Client, Counter::MPJoinAckRx), 1);
    assert_eq!(counter(&net, Side::Client, Counter::MPJoinSynTx), 0);
    exchange(&mut net, flow);
}

/// Both open at the same moment.
#[test]
fn both_sides_join_at_once() {
    let mut net = both_multihomed().build();
    let flow = net.connect().unwrap();
    net.transfer(flow, Side::Client, 1000).unwrap();
    net.transfer(flow, Side::Server, 1000).unwrap();
    net.await_subflows(flow, 2).unwrap();
    assert_eq!(counter(&net, Side::Client, Counter::MPJoinSynTx), 1);
    exchange(&mut net, flow);
    for side in [Side::Client, Side::Server] {
        assert_eq!(counter(&net, side, Counter::MPJoinAckHMacFailure), 0);
        assert_eq!(counter(&net, side, Counter::MPJoinSynAckHMacFailure), 0);
    }
}

/// The client may forbid it (the C flag).
#[test]
fn a_server_does_not_join_a_client_that_forbids_it() {
    let config = ConnectionConfig::default().with_allow_join_initial(false);
    let mut net = both_multihomed().client_config(config).build();
    let mut spec = net.flow_spec();
    spec.paths = vec![PathId(0)];
    let flow = net.connect_with(spec).unwrap();
    net.transfer(flow, Side::Server, 1000).unwrap();
    net.run_for(Duration::from_secs(5)).unwrap();
    assert_eq!(counter(&net, Side::Server, Counter::MPJoinSynTx), 0);
    exchange(&mut net, flow);
}

/// A path that swallows SYNs with MPTCP options: seven seconds the first time, none after (RFC 8684 §3.9.3).
#[test]
fn a_path_that_swallows_the_option_is_slow_once() {
    let mut net = Pair::builder().path(Link::mbit(50).delay_ms(10)).seed(3).build();
    let swallow = |_, _: Direction, p: &Packet| {
        p.tcp().is_some_and(|t| t.flags().syn && t.mptcp_subtypes().next().is_some())
    };
    net.middlebox(0, DropIf::new(swallow));
    let start = net.now();
    let flow = net.connect().unwrap();
    let took = net.now() - start;
    assert!(took > Duration::from_secs(7) && took < Duration::from_secs(8), "{took:?}");
    assert_eq!(net.flow(flow).client.fell_back, Some(FallbackReason::SynsLost));
    exchange(&mut net, flow);
    let start = net.now();
    let flow = net.connect().unwrap();
    let took = net.now() - start;
    assert!(took < Duration::from_millis(50), "{took:?}");
    assert_eq!(counter(&net, Side::Client, Counter::MPCapableSYNTXDisabled), 1);
    assert_eq!(counter(&net, Side::Client, Counter::Blackhole), 1);
    exchange(&mut net, flow);
}

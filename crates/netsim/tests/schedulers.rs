//! Schedulers between real stacks, over paths that are not alike.

use umptcp_netsim::application::{Requests, Responder};
use umptcp_netsim::{Duration, Instant, Link, Pair, Side};
use umptcp_stack_core::config::{ConnectionConfig, StackConfig};
use umptcp_stack_core::observe::Counter;

fn with_scheduler(name: &str) -> ConnectionConfig {
    ConnectionConfig::default().with_scheduler(name).with_no_delay(true)
}

/// A fast path, a slow one with some loss, and one with another packet size.
#[test]
fn every_scheduler_delivers_everything_in_both_directions() {
    let schedulers = StackConfig::default().schedulers;
    for name in schedulers.names() {
        let mut net = Pair::builder()
            .path(Link::mbit(20).delay_ms(10))
            .path(Link::mbit(5).delay_ms(60).loss(0.01))
            .path(Link { mtu: 1280, ..Link::mbit(10).delay_ms(30) })
            .config(with_scheduler(name))
            .seed(5)
            .build();
        let flow = net.connect().unwrap();
        net.send(flow, Side::Server, 3_000_000);
        net.transfer(flow, Side::Client, 3_000_000).unwrap_or_else(|e| panic!("{name}: {e}"));
        net.close(flow).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(net.flow(flow).client.progress.received, 3_000_000, "{name}");
        net.run_until_idle(Duration::from_secs(600)).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

/// What is sent again without a mapping would be taken for new data.
#[test]
fn no_scheduler_repeats_anything_in_plain_tcp() {
    let schedulers = StackConfig::default().schedulers;
    for name in schedulers.names() {
        let config = with_scheduler(name).with_mptcp(false);
        let link = Link::mbit(5).delay_ms(10);
        let mut net = Pair::builder().path(link.clone()).path(link).config(config).seed(5).build();
        let flow = net.connect().unwrap();
        net.transfer(flow, Side::Client, 300_000).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(net.path_payload(Side::Client, 0), 300_000, "{name}");
    }
}

/// Requests and answers of one packet each, ten a second; a second after the start the faster path falls
/// silent for good. Returns the longest time that one took.
fn worst_latency(scheduler: &str) -> (Pair, Duration) {
    let mut net = Pair::builder()
        .path(Link::mbit(10).delay_ms(10))
        .path(Link::mbit(10).delay_ms(15))
        .config(with_scheduler(scheduler))
        .seed(2)
        .build();
    let spec = net.flow_spec().applications(
        Requests::new(50, 1_000, 1_000, Duration::from_millis(100)),
        Responder { request: 1_000, response: 1_000 },
    );
    net.cut_path_at(Instant::from_millis(1_000), 0);
    let flow = net.add_flow(spec).unwrap();
    net.run_for(Duration::from_secs(20)).unwrap();
    let requests: &Requests = net.flow(flow).client.application().unwrap();
    assert_eq!(requests.latencies().len(), 50);
    let worst = requests.latencies().iter().max().copied().unwrap();
    (net, worst)
}

#[test]
fn redundant_does_not_notice_that_a_path_dies() {
    let (net, worst) = worst_latency("redundant");
    // The round trip of the slower path is 30 ms, and each packet takes a millisecond.
    assert!(worst < Duration::from_millis(35), "{worst:?}");
    let repeated = net.stack(net.client()).unwrap().counters().get(Counter::MPTCPRepeat);
    assert!((8..=12).contains(&repeated), "{repeated}: the requests of the first second went on both");
    let (_, others) = worst_latency("min-rtt");
    assert!(others > Duration::from_millis(100), "{others:?}");
}

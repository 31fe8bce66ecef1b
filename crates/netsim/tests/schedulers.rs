//! Schedulers between real stacks, over paths that are not alike.

use umptcp_netsim::application::{Requests, Responder};
use umptcp_netsim::{Direction, Duration, Instant, Link, Pair, Side};
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

/// 4 Mbit/s over a path of 20 Mbit/s with 40 ms, beside one whose delay falls from 150 ms to 5 ms while it
/// carries nothing. Returns the bytes that each path carried in the last ten seconds.
fn after_recovery(scheduler: &str) -> ([u64; 2], u64) {
    let mut net = Pair::builder()
        .path(Link::mbit(20).delay_ms(40))
        .path(Link::mbit(20).delay_ms(150))
        .config(with_scheduler(scheduler))
        .seed(3)
        .build();
    let flow = net.connect().unwrap();
    net.transfer(flow, Side::Client, 1).unwrap();
    net.await_subflows(flow, 2).unwrap();
    let mut before = [0; 2];
    for tenth in 0..300 {
        if tenth == 100 {
            let cable = net.path_cable(1);
            for direction in Direction::BOTH {
                net.set_link(cable, direction, Link::mbit(20).delay_ms(5));
            }
        }
        if tenth == 200 {
            before = [0, 1].map(|path| net.path_payload(Side::Client, path));
        }
        net.send(flow, Side::Client, 50_000);
        net.run_for(Duration::from_millis(100)).unwrap();
    }
    let measured = net.stack(net.client()).unwrap().counters().get(Counter::SubflowMeasured);
    ([0, 1].map(|path| net.path_payload(Side::Client, path) - before[path]), measured)
}

#[test]
fn a_path_that_has_become_fast_is_found_although_nothing_is_sent_on_it() {
    let ([old, new], measured) = after_recovery("min-rtt");
    assert!(new > 9 * old, "{old} on the path that was faster once, {new} on the other");
    // One in five seconds, on whichever carries nothing.
    assert!((2..=6).contains(&measured), "{measured}");
}

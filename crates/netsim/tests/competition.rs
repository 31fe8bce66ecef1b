//! Flows come to one of two paths, compete for it, and leave: how soon the connection has it back.

use std::thread;
use umptcp_netsim::application::{Endless, Sink};
use umptcp_netsim::trace::TraceMode;
use umptcp_netsim::{Duration, FlowId, Instant, Link, Pair, Queue, Side};
use umptcp_stack_core::config::ConnectionConfig;

const PLENTY: usize = 16 << 20;

/// Two paths alike, and how many flows of plain TCP come to the first.
#[derive(Clone, Copy, Debug)]
struct Case {
    mbit: u64,
    delay_ms: u64,
    queue: usize,
    flows: u64,
    seed: u64,
}

fn received(net: &Pair, flow: FlowId) -> u64 {
    net.flow(flow).server.progress.received
}

impl Case {
    /// Seconds from when the others leave, after 30 s, until a second's rate is 90 % of what it was before
    /// they came; `None`: not within a minute.
    fn recovery(&self, congestion: &str) -> Option<u32> {
        let link = Link::mbit(self.mbit).delay_ms(self.delay_ms).queue(Queue::Packets(self.queue));
        let config = ConnectionConfig::default()
            .with_congestion(congestion)
            .with_send_buffer(PLENTY)
            .with_receive_buffer(PLENTY);
        let plain = config.clone().with_mptcp(false).with_congestion("reno");
        let builder = Pair::builder().path(link.clone()).path(link).config(config);
        let mut net = builder.seed(self.seed).trace(TraceMode::Off).build();
        let spec = net.flow_spec().applications(Endless, Sink);
        let flow = net.add_flow(spec).unwrap();
        net.run_until(Instant::from_millis(15_000)).unwrap();
        let start = received(&net, flow);
        net.run_until(Instant::from_millis(30_000)).unwrap();
        let before = (received(&net, flow) - start) / 15;
        let mut others = Vec::new();
        for _ in 0..self.flows {
            let spec = net.flow_spec().applications(Endless, Sink).config(plain.clone());
            others.push(net.add_flow(spec).unwrap());
            // Nothing else is left to chance.
            net.run_for(Duration::from_millis(100 + 37 * self.seed)).unwrap();
        }
        net.run_until(Instant::from_millis(60_000)).unwrap();
        others.into_iter().for_each(|other| net.abort(other, Side::Client));
        (1..=60).find(|_| {
            let start = received(&net, flow);
            net.run_for(Duration::from_secs(1)).unwrap();
            10 * (received(&net, flow) - start) >= 9 * before
        })
    }
}

/// Runs `check` for each case, on two threads.
fn for_each(cases: &[Case], check: impl Fn(&Case) + Sync) {
    thread::scope(|scope| {
        for half in cases.chunks(cases.len().div_ceil(2)) {
            let check = &check;
            scope.spawn(move || half.iter().for_each(check));
        }
    });
}

#[test]
fn a_path_that_others_have_left_is_taken_back_within_a_minute() {
    let case = |mbit, delay_ms, queue, flows, seed| Case { mbit, delay_ms, queue, flows, seed };
    let mut cases = vec![case(10, 20, 100, 8, 0), case(10, 10, 50, 4, 1)];
    cases.extend((0..2).map(|seed| case(5, 50, 50, 4, seed)));
    for_each(&cases, |case| {
        assert!(case.recovery("olia").is_some(), "{case:?}");
    });
}

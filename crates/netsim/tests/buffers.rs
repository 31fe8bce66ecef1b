//! Buffers that tune themselves (RFC 6182 §5.3), between real stacks.

use umptcp_netsim::application::{Endless, Sink};
use umptcp_netsim::trace::TraceMode;
use umptcp_netsim::{Duration, FlowId, Instant, Link, Pair, Queue, Side};
use umptcp_stack_core::config::{BufferSize, ConnectionConfig, ConnectionOption, StackConfig};
use umptcp_stack_core::info::ConnectionInfo;
use umptcp_stack_core::observe::Counter;
use umptcp_testkit::simulation::windows::Windows;

/// Bytes to which windows are rounded with the scale for 8 MiB (RFC 7323 §2.4).
const UNIT: usize = 256;

fn automatic() -> ConnectionConfig {
    ConnectionConfig::default().with_send_buffer(BufferSize::AUTO).with_receive_buffer(BufferSize::AUTO)
}

/// A path whose queue holds one bandwidth-delay product.
fn path(mbit: u64, delay_ms: u64) -> Link {
    queued(mbit, delay_ms, 2 * delay_ms)
}

fn queued(mbit: u64, delay_ms: u64, queue_ms: u64) -> Link {
    Link::mbit(mbit).delay_ms(delay_ms).queue(Queue::Time(Duration::from_millis(queue_ms)))
}

/// Between these, one connection that sends without end.
fn sending(paths: &[Link], config: ConnectionConfig) -> (Pair, FlowId) {
    let mut builder = Pair::builder().seed(1).trace(TraceMode::Off).config(config);
    for path in paths {
        builder = builder.path(path.clone());
    }
    let mut net = builder.build();
    let spec = net.flow_spec().applications(Endless, Sink);
    let flow = net.add_flow(spec).unwrap();
    (net, flow)
}

fn info(net: &Pair, flow: FlowId, side: Side) -> ConnectionInfo {
    let connection = net.flow(flow).end(side).connection.unwrap();
    net.stack(net.node(side)).unwrap().info(connection).unwrap()
}

/// Mbit/s in the eight seconds after the `warm_up`, and the sender's and the receiver's buffer after that.
fn goodput(paths: &[Link], config: ConnectionConfig, warm_up: Duration) -> (f64, [u64; 2]) {
    let (mut net, flow) = sending(paths, config);
    let received = |net: &Pair| net.flow(flow).end(Side::Server).progress.received;
    net.run_for(warm_up).unwrap();
    let before = received(&net);
    net.run_for(Duration::from_secs(8)).unwrap();
    let rate = (received(&net) - before) as f64 * 8.0 / 8e6;
    (rate, [info(&net, flow, Side::Client).send_buffer, info(&net, flow, Side::Server).receive_buffer])
}

/// At least 0.9 of the sum of plain TCP over each path alone.
fn aggregates(paths: [Link; 2], warm_up: u64) {
    let warm_up = Duration::from_secs(warm_up);
    let plain = automatic().with_mptcp(false).with_congestion("reno");
    let sum: f64 = [0, 1].map(|i| goodput(&paths[i..=i], plain.clone(), warm_up).0).iter().sum();
    let (both, buffers) = goodput(&paths, automatic(), warm_up);
    assert!(both >= 0.9 * sum, "{both:.2} of {sum:.2} Mbit/s, buffers {buffers:?}: {paths:?}");
    let limit = BufferSize::DEFAULT_LIMIT as u64;
    assert!(buffers.iter().all(|size| *size <= limit), "{buffers:?}: {paths:?}");
}

#[test]
fn paths_of_different_delay_give_their_sum() {
    aggregates([path(50, 10), path(50, 20)], 4);
    aggregates([path(50, 10), path(10, 100)], 4);
}

#[test]
fn a_path_of_very_long_delay_costs_nothing() {
    // Slow start takes its round trips.
    aggregates([path(50, 10), path(2, 300)], 12);
}

#[test]
fn a_path_whose_queue_holds_two_seconds_costs_nothing() {
    aggregates([path(50, 10), queued(10, 10, 2_000)], 4);
}

/// Both ends begin small, and what is not needed is not taken.
#[test]
fn buffers_grow_with_what_goes_through() {
    let sizes = |mbit| {
        let (mut net, flow) = sending(&[path(mbit, 10)], automatic());
        net.run_until(Instant::from_millis(1)).unwrap();
        let begun = net.flow(flow).end(Side::Client).connection.unwrap();
        let before = net.stack(net.client()).unwrap().info(begun).unwrap();
        assert_eq!([before.send_buffer, before.receive_buffer], [BufferSize::INITIAL as u64; 2]);
        net.run_until(Instant::from_millis(5_000)).unwrap();
        [info(&net, flow, Side::Client).send_buffer, info(&net, flow, Side::Server).receive_buffer]
    };
    // With a full queue 40 ms: 50 kB at 10 Mbit/s, 1 MB at 200. Twice that, up to six times in slow start, and
    // more after what a loss has held up.
    let (slow, fast) = (sizes(10), sizes(200));
    assert!(slow.iter().all(|size| (128 << 10..=800_000).contains(size)), "{slow:?}");
    assert!(fast.iter().all(|size| (2_000_000..=8 << 20).contains(size)), "{fast:?}");
}

/// A reader that stops holds what its buffer took at that moment, and no more; the buffer does not grow by it.
#[test]
fn a_reader_that_stops_holds_no_more_than_its_buffer() {
    for mptcp in [true, false] {
        let paths = [path(50, 10), path(10, 100)];
        let (mut net, flow) = sending(&paths, automatic().with_mptcp(mptcp));
        net.run_until(Instant::from_millis(3_000)).unwrap();
        net.pause_reading(flow, Side::Server, true);
        let before = info(&net, flow, Side::Server);
        assert!(before.receive_buffer > BufferSize::INITIAL as u64);
        net.run_until(Instant::from_millis(30_000)).unwrap();
        let after = info(&net, flow, Side::Server);
        assert_eq!(after.receive_buffer, before.receive_buffer);
        let held = after.readable as u64;
        assert!(
            held <= after.receive_buffer + UNIT as u64 && 10 * held >= 9 * after.receive_buffer,
            "{held} {after:?}"
        );
        let sender = info(&net, flow, Side::Client);
        assert!(sender.send_queue <= sender.send_buffer && sender.send_buffer <= 8 << 20, "{sender:?}");
        net.pause_reading(flow, Side::Server, false);
        net.run_until(Instant::from_millis(32_000)).unwrap();
        assert!(info(&net, flow, Side::Server).bytes_received > after.bytes_received + 4_000_000);
    }
}

/// RFC 8684 §3.3.4, RFC 9293 §3.8.6: the right edge never moves back, also where a reader pauses while its window
/// grows, and where the setting changes.
#[test]
fn a_window_that_grows_is_not_taken_back() {
    let config = automatic();
    let (mut net, flow) = sending(&[path(50, 10), path(10, 100).loss(0.001)], config);
    let windows = Windows::new(UNIT);
    net.set_tap(Some(Box::new(windows.clone())));
    for step in 0..40 {
        net.pause_reading(flow, Side::Server, step % 5 == 4);
        if step == 25 || step == 35 {
            let size = if step == 25 { BufferSize::Fixed(100_000) } else { BufferSize::AUTO };
            let (node, id) = (net.server(), net.flow(flow).end(Side::Server).connection.unwrap());
            let option = ConnectionOption::ReceiveBuffer(size);
            net.with_stack(node, |now, stack| stack.set_option(now, id, option)).unwrap().unwrap();
        }
        net.run_for(Duration::from_millis(100)).unwrap();
        assert_eq!(windows.shrunk(), None);
    }
    assert!(info(&net, flow, Side::Server).receive_buffer > 100_000);
}

/// What a path breaks off for a while must not look to the sender like a slow one at the start, when windows are
/// small: penalised, it would stay slow for long.
#[test]
fn a_second_path_is_not_held_back_by_a_window_that_has_yet_to_grow() {
    let (mut net, flow) = sending(&[Link::mbit(50).delay_ms(10), Link::mbit(50).delay_ms(20)], automatic());
    net.run_until(Instant::from_millis(1_000)).unwrap();
    let counters = net.stack(net.client()).unwrap().counters();
    assert_eq!(counters.get(Counter::SubflowPenalised), 0);
    assert!(info(&net, flow, Side::Server).bytes_received > 8_000_000);
}

/// The bytes that both stacks hold.
fn held(net: &Pair) -> [u64; 2] {
    [net.client(), net.server()].map(|node| net.stack(node).unwrap().memory().held)
}

/// Runs for so many tenths of a second; the most that was held meanwhile.
fn most_held(net: &mut Pair, tenths: u64, most: &mut [u64; 2]) {
    for _ in 0..tenths {
        net.run_for(Duration::from_millis(100)).unwrap();
        *most = [0, 1].map(|k| held(net)[k].max(most[k]));
    }
}

/// Half of the readers stop. Their connections may hold what was in them, and a few packets, and the others go on.
#[test]
fn all_connections_together_hold_no_more_than_they_may() {
    const BOUND: u64 = 3 << 20;
    const FLOWS: usize = 24;
    for config in [automatic(), ConnectionConfig::default().with_receive_buffer(1 << 20)] {
        let stack = StackConfig::default().with_buffer_memory(BOUND);
        let builder = Pair::builder().seed(4).trace(TraceMode::Off).stack_config(stack).config(config);
        let mut net = builder.path(path(50, 10)).path(path(20, 30)).build();
        let specs = std::iter::repeat_with(|| net.flow_spec().applications(Endless, Sink));
        let specs: Vec<_> = specs.take(FLOWS).collect();
        let flows: Vec<FlowId> = specs.into_iter().map(|spec| net.add_flow(spec).unwrap()).collect();
        let mut most = [0; 2];
        most_held(&mut net, 20, &mut most);
        flows.iter().step_by(2).for_each(|flow| net.pause_reading(*flow, Side::Server, true));
        most_held(&mut net, 100, &mut most);
        let received = |net: &Pair| {
            flows.iter().map(|f| net.flow(*f).end(Side::Server).progress.received).collect::<Vec<_>>()
        };
        let before = received(&net);
        most_held(&mut net, 100, &mut most);
        let after = received(&net);
        // Besides the bound, for each connection what it may always hold, and a segment.
        let bound = BOUND + FLOWS as u64 * ((16 << 10) + 65_536);
        assert!(most.iter().all(|most| *most <= bound), "{most:?} of {bound}");
        let pressures = net.stack(net.server()).unwrap().counters().get(Counter::TcpMemoryPressures);
        assert!(pressures > 0, "{most:?}");
        for (i, (before, after)) in before.iter().zip(&after).enumerate() {
            assert_eq!(before < after, i % 2 == 1, "{i}: {before} {after}");
        }
        // When they read again, everybody goes on, and in the end nothing is held.
        flows.iter().for_each(|flow| net.pause_reading(*flow, Side::Server, false));
        most_held(&mut net, 50, &mut most);
        let resumed = received(&net);
        assert!(after.iter().zip(&resumed).all(|(a, b)| a < b), "{after:?} {resumed:?}");
        flows.iter().for_each(|flow| net.abort(*flow, Side::Client));
        net.run_for(Duration::from_secs(5)).unwrap();
        assert_eq!(held(&net), [0, 0]);
    }
}

/// Flows between stacks that may hold so much; every second reader stops after two seconds.
fn scarce(bound: u64, flows: usize, config: ConnectionConfig) -> (Pair, Vec<FlowId>) {
    let stack = StackConfig::default().with_buffer_memory(bound);
    let builder = Pair::builder().seed(4).trace(TraceMode::Off).stack_config(stack).config(config);
    let mut net = builder.path(path(50, 10)).path(path(20, 30)).build();
    let specs: Vec<_> = (0..flows).map(|_| net.flow_spec().applications(Endless, Sink)).collect();
    let flows: Vec<FlowId> = specs.into_iter().map(|spec| net.add_flow(spec).unwrap()).collect();
    net.run_until(Instant::from_millis(2_000)).unwrap();
    flows.iter().step_by(2).for_each(|flow| net.pause_reading(*flow, Side::Server, true));
    (net, flows)
}

fn received(net: &Pair, flow: FlowId) -> u64 {
    net.flow(flow).end(Side::Server).progress.received
}

/// However long a reader has paused while memory was full: its peer, whose window was open, goes on at once.
#[test]
fn readers_that_go_on_need_not_wait_for_their_peers_timers() {
    let config = ConnectionConfig::default().with_receive_buffer(1 << 20);
    let (mut net, flows) = scarce(3 << 20, 12, config);
    flows.iter().for_each(|flow| net.pause_reading(*flow, Side::Server, true));
    net.run_for(Duration::from_secs(100)).unwrap();
    let counters = net.stack(net.server()).unwrap().counters();
    assert!(counters.get(Counter::TcpRcvQDrop) > 0);
    flows.iter().for_each(|flow| net.pause_reading(*flow, Side::Server, false));
    let held: Vec<u64> = flows.iter().map(|flow| received(&net, *flow)).collect();
    net.run_for(Duration::from_secs(1)).unwrap();
    for (flow, held) in flows.iter().zip(held) {
        assert!(received(&net, *flow) > held + 16_384, "{flow:?}: {held} {}", received(&net, *flow));
    }
}

/// Those that read go on while others fill the memory, behind what is refused as well: no second without data.
#[test]
fn those_that_read_make_progress_while_memory_is_full() {
    for buffer in [BufferSize::AUTO, BufferSize::Fixed(1 << 20)] {
        let (mut net, flows) = scarce(3 << 20, 12, ConnectionConfig::default().with_receive_buffer(buffer));
        let mut last = vec![(0, net.now()); flows.len()];
        let mut longest = Duration::ZERO;
        for _ in 0..200 {
            net.run_for(Duration::from_millis(100)).unwrap();
            for (flow, last) in flows.iter().zip(&mut last).skip(1).step_by(2) {
                let now = (received(&net, *flow), net.now());
                longest = longest.max(now.1 - last.1);
                if now.0 > last.0 {
                    *last = now;
                }
            }
        }
        assert!(net.stack(net.server()).unwrap().memory().full);
        assert!(longest <= Duration::from_millis(1_500), "{longest:?} with {buffer:?}");
    }
}

/// While memory is full, whoever comes is offered little.
#[test]
fn a_connection_that_begins_while_memory_is_full_is_offered_few_packets() {
    let (mut net, flows) = scarce(2 << 20, 12, ConnectionConfig::default().with_receive_buffer(1 << 20));
    flows.iter().for_each(|flow| net.pause_reading(*flow, Side::Server, true));
    net.run_for(Duration::from_secs(5)).unwrap();
    assert!(net.stack(net.server()).unwrap().memory().full);
    let spec = net.flow_spec().applications(Endless, Sink);
    let late = net.add_flow(spec).unwrap();
    net.run_for(Duration::from_millis(15)).unwrap();
    net.pause_reading(late, Side::Server, true);
    net.run_for(Duration::from_secs(5)).unwrap();
    let info = info(&net, late, Side::Server);
    assert!(info.bytes_received > 0 && info.bytes_received <= (16 << 10) + UNIT as u64, "{info:?}");
}

/// While buffers still grow, they stop every subflow now and then. Halving one that is in its slow start for that would
/// cost it its share for long.
#[test]
fn nobody_is_penalised_while_buffers_grow() {
    for (fast, slow) in [(1, 100), (5, 100)] {
        let (mut net, _) = sending(&[queued(100, fast, 50), queued(100, slow, 50)], automatic());
        net.run_for(Duration::from_secs(3)).unwrap();
        let penalised = net.stack(net.client()).unwrap().counters().get(Counter::SubflowPenalised);
        assert_eq!(penalised, 0, "{fast} and {slow} ms");
    }
}

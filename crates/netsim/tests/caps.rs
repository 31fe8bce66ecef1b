//! What a path may carry: all connections together, and each.

use umptcp_netsim::trace::TraceMode;
use umptcp_netsim::{Direction, Duration, FlowId, Link, Pair, PairBuilder, Queue, Side};
use umptcp_stack_core::config::{ConnectOptions, ConnectionConfig};
use umptcp_stack_core::error::ConnectError;
use umptcp_stack_core::event::Traffic;
use umptcp_stack_core::observe::Counter;

const MB: u64 = 1_000_000;
/// What may be on its way when the limit is reached: that counts, too.
const UNDER_WAY: u64 = 300_000;
const SIDES: [Side; 2] = [Side::Client, Side::Server];

fn link() -> Link {
    Link::mbit(10).delay_ms(20).queue(Queue::Time(Duration::from_millis(40)))
}

fn pair(seed: u64) -> PairBuilder {
    let config = ConnectionConfig::default().with_send_buffer(1 << 20).with_receive_buffer(1 << 20);
    Pair::builder().path(link()).path(link()).config(config).seed(seed).trace(TraceMode::Last(50))
}

fn connect_all(net: &mut Pair) -> FlowId {
    let flow = net.connect().unwrap();
    net.transfer(flow, Side::Client, 1).unwrap();
    net.await_subflows(flow, net.cables().len()).unwrap();
    flow
}

/// What has passed on a path of the client's.
fn carried(net: &Pair, path: usize) -> Traffic {
    let ids = net.paths(net.client());
    net.stack(net.client()).unwrap().path_traffic(ids[path]).unwrap()
}

fn total(net: &Pair, path: usize) -> u64 {
    let Traffic { sent, received, .. } = carried(net, path);
    sent + received
}

fn subflows_on(net: &Pair, flow: FlowId, path: usize) -> usize {
    let client = net.client();
    let id = net.flow(flow).end(Side::Client).connection.unwrap();
    let on = net.paths(client)[path];
    net.stack(client).unwrap().subflows(id).iter().filter(|s| s.path == on).count()
}

#[test]
fn what_is_counted_is_what_the_network_carries() {
    for ipv6 in [false, true] {
        for loss in [0.0, 0.02] {
            let link = || link().loss(loss);
            let mut net = Pair::builder().path(link()).path(link()).ipv6(ipv6).seed(3).build();
            let flow = connect_all(&mut net);
            for side in SIDES {
                net.transfer(flow, side, 2 * MB).unwrap();
            }
            net.close(flow).unwrap();
            net.run_for(Duration::from_secs(5)).unwrap();
            for path in 0..2 {
                let cable = net.path_cable(path);
                let sent = net.stats(cable, Direction::Forward).offered_bytes;
                let received = net.stats(cable, Direction::Reverse).delivered_bytes;
                assert_eq!(carried(&net, path), Traffic::new(sent, received), "{ipv6} {loss}");
                assert!(sent + received > MB, "both are used");
            }
        }
    }
}

#[test]
fn at_the_limit_of_a_path_connections_go_on_over_others() {
    for seed in 0..3 {
        for side in SIDES {
            let limit = 3 * MB;
            let mut net = pair(seed).path_options(1, |path| path.allowance = Some(3 * MB)).build();
            let flow = connect_all(&mut net);
            net.transfer(flow, side, 12 * MB).unwrap();
            let client = net.client();
            let case = format!("seed {seed}, from {side:?}: {}", total(&net, 1));
            assert!(total(&net, 1) > limit / 2, "it was used: {case}");
            let most = if side == Side::Client { limit } else { limit + UNDER_WAY };
            assert!(total(&net, 1) <= most, "and no more than it may: {case}");
            assert_eq!(subflows_on(&net, flow, 1), 0, "{case}");
            assert_eq!(net.stack(client).unwrap().counters().get(Counter::PathCapReached), 1, "{case}");
            // What is new takes another path from the beginning.
            let other = net.connect().unwrap();
            net.transfer(other, side, MB).unwrap();
            assert_eq!(subflows_on(&net, other, 1), 0, "{case}");
            net.close(flow).unwrap();
            net.close(other).unwrap();
            assert!(total(&net, 1) <= most, "not afterwards either: {case}");
        }
    }
}

#[test]
fn a_connection_without_another_path_waits_until_more_is_allowed() {
    for seed in 0..2 {
        for side in SIDES {
            for mptcp in [true, false] {
                let mut config = ConnectionConfig::default();
                config.mptcp = mptcp;
                let mut net = Pair::builder().path(link()).config(config).seed(seed);
                net = net.path_options(0, |path| path.allowance = Some(2 * MB));
                let mut net = net.build();
                let flow = net.connect().unwrap();
                net.send(flow, side, 5 * MB);
                net.run_for(Duration::from_secs(60)).unwrap();
                let stopped = total(&net, 0);
                let case = format!("seed {seed}, from {side:?}, mptcp {mptcp}: {stopped}");
                assert!(net.flow(flow).error().is_none(), "{case}");
                assert!(stopped > MB && stopped <= 2 * MB + UNDER_WAY, "{case}");
                let sent = carried(&net, 0).sent;
                net.run_for(Duration::from_secs(60)).unwrap();
                assert_eq!(carried(&net, 0).sent, sent, "nothing leaves any more: {case}");

                let (client, server) = (net.client(), net.addresses(net.server())[0]);
                let remote = (server, 9).into();
                let new =
                    net.with_stack(client, |now, stack| stack.connect(now, ConnectOptions::new(remote)));
                assert_eq!(new, Some(Err(ConnectError::Spent("client0".into()))), "{case}");

                let path = net.paths(client)[0];
                net.with_stack(client, |now, stack| stack.set_path_allowance(now, path, None));
                net.transfer(flow, side, 1).unwrap();
                net.close(flow).unwrap();
            }
        }
    }
}

/// A cap that is raised by a little is room for what waits, although less is left than the reserve before a large one.
#[test]
fn a_little_more_wakes_what_waits() {
    for seed in 0..2 {
        for side in SIDES {
            let mut net = Pair::builder().path(link()).seed(seed);
            net = net.path_options(0, |path| path.allowance = Some(2 * MB));
            let mut net = net.build();
            let flow = net.connect().unwrap();
            net.send(flow, side, 5 * MB);
            net.run_for(Duration::from_secs(60)).unwrap();
            let (client, path) = (net.client(), net.paths(net.client())[0]);
            for more in [200_000, 400_000] {
                let stopped = total(&net, 0);
                net.with_stack(client, |now, stack| stack.set_path_allowance(now, path, Some(more)));
                net.run_for(Duration::from_secs(60)).unwrap();
                let went = total(&net, 0) - stopped;
                let case = format!("seed {seed}, from {side:?}, {more} more: {went}");
                assert!(went >= more / 2 && went <= more + UNDER_WAY, "{case}");
                assert!(net.flow(flow).error().is_none(), "{case}");
            }
            net.with_stack(client, |now, stack| stack.set_path_allowance(now, path, None));
            net.transfer(flow, side, 1).unwrap();
            net.close(flow).unwrap();
        }
    }
}

/// What each connection may carry is changed while one waits: with another path, and without.
#[test]
fn a_changed_limit_of_connections_counts_for_those_that_there_are() {
    for side in SIDES {
        for paths in 1..=2 {
            let mut net = Pair::builder().seed(1);
            for _ in 0..paths {
                net = net.path(link());
            }
            let last = paths - 1;
            let mut net = net.path_options(last, |path| path.connection_cap = Some(MB)).build();
            let flow = connect_all(&mut net);
            net.send(flow, side, 40 * MB);
            net.run_for(Duration::from_secs(8)).unwrap();
            let (client, path) = (net.client(), net.paths(net.client())[last]);
            let case = format!("from {side:?}, {paths} paths");
            let first = total(&net, last);
            assert!(first > MB / 2 && first <= MB + UNDER_WAY, "{case}: {first}");
            let set = |net: &mut Pair, cap| {
                assert_eq!(
                    net.with_stack(client, |now, stack| stack.set_connection_cap(now, path, cap)),
                    Some(true)
                );
                net.run_for(Duration::from_secs(8)).unwrap();
                total(net, last)
            };
            let raised = set(&mut net, Some(3 * MB));
            assert!(raised > 2 * MB && raised <= 3 * MB + UNDER_WAY, "{case}: {raised}");
            let lowered = set(&mut net, Some(2 * MB));
            assert!(lowered <= raised + UNDER_WAY, "{case}: {raised}, then {lowered}");
            let free = set(&mut net, None);
            assert!(free > lowered + 2 * MB, "{case}: {lowered}, then {free}");
            assert!(net.flow(flow).error().is_none(), "{case}");
        }
    }
}

#[test]
fn each_connection_has_its_own_limit() {
    for seed in 0..3 {
        for side in SIDES {
            let limit = 2 * MB;
            let mut net = pair(seed).path_options(1, |path| path.connection_cap = Some(2 * MB)).build();
            let first = connect_all(&mut net);
            net.transfer(first, side, 10 * MB).unwrap();
            let used = total(&net, 1);
            let case = format!("seed {seed}, from {side:?}: {used}");
            assert!(used > limit / 2 && used <= limit + UNDER_WAY, "{case}");
            assert_eq!(subflows_on(&net, first, 1), 0, "{case}");
            let second = connect_all(&mut net);
            net.transfer(second, side, 10 * MB).unwrap();
            let more = total(&net, 1) - used;
            assert!(more > limit / 2 && more <= limit + UNDER_WAY, "{case}, then {more}");
            for flow in [first, second] {
                net.transfer(flow, side.peer(), MB).unwrap();
                net.close(flow).unwrap();
            }
        }
    }
}

#[test]
fn a_connection_whose_limit_is_reached_on_its_only_path_goes_on_over_one_that_comes() {
    for seed in 0..2 {
        for side in SIDES {
            let mut net = pair(seed).path_options(0, |path| path.connection_cap = Some(2 * MB)).build();
            let client = net.client();
            let second = net.paths(client)[1];
            let config = net.stack(client).unwrap().path(second).unwrap().clone();
            net.cut_path_at(net.now(), 1);
            let flow = net.connect().unwrap();
            net.send(flow, side, 8 * MB);
            net.run_for(Duration::from_secs(30)).unwrap();
            let used = total(&net, 0);
            let case = format!("seed {seed}, from {side:?}: {used}, {}", config.name);
            assert!(used > MB && used <= 2 * MB + UNDER_WAY, "{case}");
            net.restore_path_at(net.now(), 1);
            net.with_stack(client, |now, stack| stack.path_changed(now, second));
            net.transfer(flow, side, 1).unwrap();
            net.close(flow).unwrap();
            assert!(total(&net, 0) <= 2 * MB + UNDER_WAY, "{case}");
        }
    }
}

#[test]
fn what_others_use_of_the_limit_counts() {
    let mut net = pair(5).path_options(1, |path| path.allowance = Some(100 * MB)).build();
    let flow = connect_all(&mut net);
    net.transfer(flow, Side::Client, 4 * MB).unwrap();
    assert_eq!(subflows_on(&net, flow, 1), 1);
    let (client, before) = (net.client(), total(&net, 1));
    let path = net.paths(client)[1];
    net.with_stack(client, |now, stack| stack.spend_path_allowance(now, path, 99 * MB));
    net.transfer(flow, Side::Client, 4 * MB).unwrap();
    assert!(total(&net, 1) < before + UNDER_WAY, "{} after {before}", total(&net, 1));
    assert_eq!(total(&net, 1), carried(&net, 1).sent + carried(&net, 1).received);
    // A new month.
    net.with_stack(client, |now, stack| stack.set_path_allowance(now, path, Some(100 * MB)));
    net.await_subflows(flow, 2).unwrap();
    net.transfer(flow, Side::Client, 4 * MB).unwrap();
    assert!(total(&net, 1) > before + MB, "it is used again");
    // The NIC that goes down and up does not open what is shut.
    use umptcp_stack_core::device::Families;
    net.with_stack(client, |now, stack| {
        stack.set_path_allowance(now, path, Some(0));
        stack.path_down(now, path, Families::BOTH);
        stack.path_up(now, path, Families::BOTH);
        assert!(stack.is_path_spent(path));
    });
    let shut = carried(&net, 1).sent;
    net.transfer(flow, Side::Client, 4 * MB).unwrap();
    assert_eq!(carried(&net, 1).sent, shut);
}

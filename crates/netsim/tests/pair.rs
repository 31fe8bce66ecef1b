//! Two real stacks over simulated paths.

use umptcp_netsim::application::{Bulk, Requests, Responder, Sink};
use umptcp_netsim::middlebox::{DropIf, OneWay, StripMptcp, StripWhere};
use umptcp_netsim::{
    Direction, Duration, FlowId, Instant, Link, Network, Packet, Pair, PairBuilder, Queue, Side, SimError,
};
use umptcp_stack_core::config::ConnectionConfig;
use umptcp_stack_core::error::{ConnectionError, FallbackReason};
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::stack::MptcpStatus;
use umptcp_stack_core::wire::tcp::TcpFlags;

const MB: u64 = 1_000_000;
const SIDES: [Side; 2] = [Side::Client, Side::Server];

fn two_paths() -> PairBuilder {
    Pair::builder().path(Link::mbit(50).delay_ms(10)).path(Link::mbit(50).delay_ms(20)).seed(7)
}

/// Fails with the last packets when something went wrong.
trait OrTrace<T> {
    fn or_trace(self, net: &Network) -> T;
}

impl<T> OrTrace<T> for Result<T, SimError> {
    #[track_caller]
    fn or_trace(self, net: &Network) -> T {
        match self {
            Ok(v) => v,
            Err(e) => {
                let flows: Vec<_> = (0..net.flow_count()).map(|i| net.flow(FlowId(i))).collect();
                let sample = net.sample();
                panic!(
                    "{e}\nat {}\n{flows:#?}\n{:?}\nlast packets:\n{}",
                    net.now(),
                    sample.ends,
                    net.trace().join("\n")
                );
            }
        }
    }
}

#[track_caller]
fn run<T>(net: &mut Pair, f: impl FnOnce(&mut Pair) -> Result<T, SimError>) -> T {
    f(net).or_trace(net)
}

/// Connects, and lets data flow until every path has its subflow: no join may begin before the peer is known
/// to have the keys, which takes a byte of data and its DATA_ACK (RFC 8684 §3.1).
#[track_caller]
fn connect_all(net: &mut Pair) -> FlowId {
    let flow = run(net, |n| n.connect());
    run(net, |n| n.transfer(flow, Side::Client, 1));
    let paths = net.cables().len();
    run(net, |n| n.await_subflows(flow, paths));
    flow
}

fn mptcp(net: &Pair, flow: FlowId, side: Side) -> MptcpStatus {
    let end = net.flow(flow).end(side);
    net.stack(end.node).unwrap().info(end.connection.unwrap()).unwrap().mptcp
}

fn counter(net: &Pair, side: Side, counter: Counter) -> u64 {
    net.stack(net.node(side)).unwrap().counters().get(counter)
}

/// Closes, and runs until nothing at all is left to do.
#[track_caller]
fn close_and_rest(net: &mut Pair, flow: FlowId) {
    run(net, |n| n.close(flow));
    run(net, |n| n.run_until_idle(Duration::from_secs(600)));
    for side in SIDES {
        let stack = net.stack(net.node(side)).unwrap();
        assert_eq!(stack.poll_timeout(), None, "{side:?} has a timer left");
        assert_eq!(counter(net, side, Counter::MPCurrEstab), 0);
    }
}

#[test]
fn handshake_takes_a_round_trip_and_a_half() {
    let mut net = two_paths().build();
    let flow = run(&mut net, |n| n.connect());
    let f = net.flow(flow);
    // 10 ms each way, plus less than 100 µs for transmitting the short packets.
    let near = |t: Option<Instant>, ms| {
        let late = t.unwrap() - Instant::from_millis(ms);
        assert!(late < Duration::from_micros(100), "{late:?} after {ms} ms");
    };
    near(f.client.connected_at, 20);
    near(f.server.connected_at, 30);
    assert!(f.client.fell_back.is_none() && f.server.fell_back.is_none());
    assert!(matches!(mptcp(&net, flow, Side::Client), MptcpStatus::Active { .. }));
    assert!(matches!(mptcp(&net, flow, Side::Server), MptcpStatus::Active { .. }));
    close_and_rest(&mut net, flow);
}

#[test]
fn a_megabyte_each_way_over_two_paths() {
    let mut net = two_paths().build();
    let flow = run(&mut net, |n| n.connect());
    net.send(flow, Side::Client, MB);
    net.send(flow, Side::Server, MB);
    run(&mut net, |n| n.await_subflows(flow, 2));
    run(&mut net, |n| n.transfer(flow, Side::Client, 4 * MB));
    run(&mut net, |n| n.transfer(flow, Side::Server, 4 * MB));
    for side in SIDES {
        assert_eq!(net.flow(flow).end(side).progress.received, 5 * MB);
        let on = [net.path_payload(side, 0), net.path_payload(side, 1)];
        assert!(on[0] + on[1] >= 5 * MB, "{on:?}");
        assert!(on[0] > MB && on[1] > MB / 4, "from {side:?}: {on:?}");
    }
    close_and_rest(&mut net, flow);
    for side in SIDES {
        let end = net.flow(flow).end(side);
        assert_eq!(end.subflows.len(), 2);
        assert!(end.subflows.iter().all(|s| s.closed.is_none_or(|(_, e)| e.is_none())));
        for c in [
            Counter::DSSNotMatching,
            Counter::DSSNoMatchTCP,
            Counter::DSSCorruptionFallback,
            Counter::DSSCorruptionReset,
            Counter::DataCsumErr,
            Counter::MPJoinSynAckHMacFailure,
            Counter::MPJoinAckHMacFailure,
            Counter::MPTCPRetrans,
            Counter::TcpInCsumErrors,
            Counter::TcpInErrs,
            Counter::TcpOutRsts,
            Counter::TcpTimeouts,
        ] {
            assert_eq!(counter(&net, side, c), 0, "{side:?}: {c:?}");
        }
        // What comes twice is the end of a transfer, which went on the faster path as well.
        let other = if side == Side::Client { Side::Server } else { Side::Client };
        let copies = counter(&net, other, Counter::MPTCPOpportunistic);
        assert!(copies <= 2, "{side:?}: {copies}");
        assert!(copies > 0 || counter(&net, side, Counter::DuplicateData) == 0, "{side:?}");
    }
    assert_eq!(net.unroutable(), 0);
}

#[test]
fn two_paths_add_up() {
    let time = |paths: usize| {
        let mut builder = Pair::builder().seed(3);
        for _ in 0..paths {
            builder = builder.path(Link::mbit(20).delay_ms(10).queue(Queue::Packets(60)));
        }
        let mut net = builder.build();
        let flow = connect_all(&mut net);
        let time = run(&mut net, |n| n.transfer(flow, Side::Client, 20 * MB));
        close_and_rest(&mut net, flow);
        time.as_secs_f64()
    };
    let (one, two) = (time(1), time(2));
    // 20 MB at 20 Mbit/s are 8 s of payload alone; slow start and headers cost some more.
    assert!((8.2..9.5).contains(&one), "{one} s over one path");
    assert!((4.1..5.2).contains(&two), "{two} s over two paths");
}

#[test]
fn loss_costs_time_and_no_byte() {
    for loss in [0.01, 0.05] {
        for seed in 0..3 {
            let path = |delay| Link::mbit(20).delay_ms(delay).loss(loss);
            let mut net = Pair::builder().path(path(5)).path(path(15)).seed(seed).build();
            let flow = run(&mut net, |n| n.connect());
            net.send(flow, Side::Server, MB);
            run(&mut net, |n| n.transfer(flow, Side::Client, MB));
            run(&mut net, |n| n.transfer(flow, Side::Server, 1));
            let lost: u64 =
                (0..2).map(|i| net.stats(net.path_cable(i), Direction::Forward).dropped_loss).sum();
            assert!(lost > 0);
            close_and_rest(&mut net, flow);
        }
    }
}

#[test]
fn a_path_goes_silent_and_returns() {
    let mut net = two_paths().build();
    let flow = connect_all(&mut net);
    let start = net.now();
    net.cut_path_at(start + Duration::from_secs(1), 0);
    net.restore_path_at(start + Duration::from_secs(5), 0);
    net.send(flow, Side::Client, 60 * MB);
    run(&mut net, |n| n.run_until(start + Duration::from_secs(2)));
    let at = |net: &Pair| (net.flow(flow).server.progress.received, net.path_payload(Side::Client, 0));
    let (before, silent) = at(&net);
    run(&mut net, |n| n.run_until(start + Duration::from_secs(5)));
    let (after, still_silent) = at(&net);
    // Three seconds at 50 Mbit/s on the other path are 18 MB.
    assert!(after - before > 12 * MB, "{} bytes while one path was silent", after - before);
    assert_eq!(silent, still_silent);
    run(&mut net, |n| n.transfer(flow, Side::Client, 1));
    assert!(net.path_payload(Side::Client, 0) > still_silent + 2 * MB, "the path is used again");
    close_and_rest(&mut net, flow);
}

#[test]
fn every_path_silent_for_a_while() {
    let mut net = two_paths().build();
    let flow = connect_all(&mut net);
    let start = net.now();
    for path in 0..2 {
        net.cut_path_at(start + Duration::from_millis(500), path);
        net.restore_path_at(start + Duration::from_secs(10), path);
    }
    run(&mut net, |n| n.transfer(flow, Side::Client, 20 * MB));
    close_and_rest(&mut net, flow);
}

#[test]
fn a_peer_that_vanishes_is_given_up() {
    let config = ConnectionConfig::default().with_user_timeout(Duration::from_secs(20));
    let mut net = two_paths().config(config).build();
    let flow = connect_all(&mut net);
    for cable in net.cables().to_vec() {
        net.cut(cable);
    }
    let start = net.now();
    net.send(flow, Side::Client, MB);
    run(&mut net, |n| {
        n.run_until_true("the client to give up", Duration::from_secs(600), |n| {
            n.flow(flow).client.closed.is_some()
        })
    });
    let (at, error) = net.flow(flow).client.closed.unwrap();
    assert_eq!(error, Some(ConnectionError::TimedOut));
    let waited = (at - start).as_secs_f64();
    assert!((20.0..90.0).contains(&waited), "gave up after {waited} s");
}

#[test]
fn stripped_options_mean_plain_tcp() {
    use FallbackReason::*;
    // Which packets lose the option, from whom; what the client and the server say.
    let cases = [
        (StripWhere::InitialSyn, Direction::Forward, NoOptionInSynAck, Some(NoOptionInSyn)),
        (StripWhere::SynAck, Direction::Reverse, NoOptionInSynAck, Some(NoOptionInAck)),
        (StripWhere::Everything, Direction::Forward, NoOptionInSynAck, Some(NoOptionInSyn)),
        (StripWhere::Everything, Direction::Reverse, NoOptionInSynAck, None),
    ];
    for (which, direction, client, server) in cases {
        for overwrite in [true, false] {
            let mut net = two_paths().build();
            for cable in net.cables().to_vec() {
                let inner = StripMptcp { overwrite, ..StripMptcp::new(which) };
                net.add_middlebox(cable, OneWay { direction, inner });
            }
            let flow = run(&mut net, |n| n.connect());
            net.send(flow, Side::Server, MB);
            run(&mut net, |n| n.transfer(flow, Side::Client, MB));
            run(&mut net, |n| n.transfer(flow, Side::Server, 1));
            let reason = |side| match mptcp(&net, flow, side) {
                MptcpStatus::Plain { reason } => Some(reason),
                _ => None,
            };
            assert_eq!(reason(Side::Client), Some(client), "{which:?} {direction:?}");
            assert!(reason(Side::Server).is_some(), "{which:?} {direction:?}");
            if server.is_some() {
                assert_eq!(reason(Side::Server), server, "{which:?} {direction:?}");
            }
            assert_eq!(net.path_payload(Side::Client, 1), 0);
            close_and_rest(&mut net, flow);
        }
    }
}

#[test]
fn options_stripped_after_the_handshake() {
    for direction in Direction::BOTH {
        let mut net = Pair::builder().path(Link::mbit(20).delay_ms(5)).seed(2).build();
        let inner = StripMptcp::new(StripWhere::AfterSyn);
        net.middlebox(0, OneWay { direction, inner });
        let flow = run(&mut net, |n| n.connect());
        net.send(flow, Side::Server, MB);
        run(&mut net, |n| n.transfer(flow, Side::Client, MB));
        run(&mut net, |n| n.transfer(flow, Side::Server, 1));
        for side in SIDES {
            assert!(matches!(mptcp(&net, flow, side), MptcpStatus::Plain { .. }), "{direction:?} {side:?}");
        }
        close_and_rest(&mut net, flow);
    }
}

#[test]
fn either_side_without_mptcp() {
    let off = ConnectionConfig::default().with_mptcp(false);
    for which in 0..3 {
        let mut b = two_paths();
        if which != 1 {
            b = b.client_config(off.clone());
        }
        if which != 0 {
            b = b.server_config(off.clone());
        }
        let mut net = b.build();
        let flow = run(&mut net, |n| n.connect());
        run(&mut net, |n| n.transfer(flow, Side::Client, MB));
        run(&mut net, |n| n.transfer(flow, Side::Server, MB));
        assert!(matches!(mptcp(&net, flow, Side::Client), MptcpStatus::Plain { .. }));
        assert!(matches!(mptcp(&net, flow, Side::Server), MptcpStatus::Plain { .. }));
        close_and_rest(&mut net, flow);
    }
}

#[test]
fn lost_handshake_packets_are_repeated() {
    // The first packet of each kind is lost once on each path: SYN, SYN/ACK, third ACK.
    for (direction, bits) in [
        (Direction::Forward, TcpFlags::SYN),
        (Direction::Reverse, TcpFlags::SYN | TcpFlags::ACK),
        (Direction::Forward, TcpFlags::ACK),
    ] {
        let mut net = two_paths().build();
        for path in 0..2 {
            let mut lost = false;
            let unlucky = move |_, d, p: &Packet| {
                let hit = !lost && d == direction && p.tcp().is_some_and(|t| t.flags() == bits);
                lost |= hit;
                hit
            };
            net.middlebox(path, DropIf::new(unlucky));
        }
        // Nothing is sent before both sides are connected: the third ACK is a packet of its own.
        let flow = run(&mut net, |n| n.connect());
        run(&mut net, |n| n.transfer(flow, Side::Client, MB));
        run(&mut net, |n| n.await_subflows(flow, 2));
        assert!(matches!(mptcp(&net, flow, Side::Client), MptcpStatus::Active { .. }));
        assert!(matches!(mptcp(&net, flow, Side::Server), MptcpStatus::Active { .. }));
        close_and_rest(&mut net, flow);
    }
}

#[test]
fn a_lost_third_ack_before_a_bare_data_fin() {
    // The client shuts down at once: its first ACKs compete, one with the keys and one with the DATA_FIN.
    for lost in 1..4 {
        let mut net = two_paths().build();
        let mut count = 0;
        net.middlebox(
            0,
            DropIf::new(move |_, d, p: &Packet| {
                let ack = d == Direction::Forward && p.tcp().is_some_and(|t| t.flags() == TcpFlags::ACK);
                count += u32::from(ack);
                ack && count <= lost
            }),
        );
        let spec = net.flow_spec().applications(Bulk(0), Bulk(0));
        let flow = run(&mut net, |n| n.add_flow(spec));
        run(&mut net, |n| n.await_closed(flow));
        assert!(net.now() < Instant::from_millis(20_000), "took until {}", net.now());
    }
}

#[test]
fn data_acks_that_stop_coming_end_the_connection() {
    // From 1 s on a middlebox strips everything the server says. Its TCP acknowledgements still arrive, its
    // DATA_ACKs do not: there is no progress, and the user timeout applies to the connection, not to its
    // subflows.
    for paths in 1..3 {
        let config = ConnectionConfig::default().with_user_timeout(Duration::from_secs(20));
        let mut b = Pair::builder().seed(4).config(config);
        for _ in 0..paths {
            b = b.path(Link::mbit(10).delay_ms(10));
        }
        let mut net = b.build();
        let flow = connect_all(&mut net);
        net.send(flow, Side::Client, 20 * MB);
        run(&mut net, |n| n.run_until(Instant::from_millis(1_000)));
        for path in 0..paths {
            let inner = StripMptcp::new(StripWhere::Everything);
            net.middlebox(path, OneWay { direction: Direction::Reverse, inner });
        }
        run(&mut net, |n| {
            n.run_until_true("the client to give up", Duration::from_secs(120), |n| {
                n.flow(flow).client.closed.is_some()
            })
        });
        assert!(net.flow(flow).client.closed.unwrap().1.is_some());
    }
}

#[test]
fn the_first_data_may_be_lost_with_its_keys() {
    // Data sent at once carries MP_CAPABLE in place of a third ACK; without it the server learns no key from
    // what follows. Plain TCP is what RFC 8684 §3.1 then leaves; the bytes arrive in any case.
    let mut net = two_paths().build();
    let mut lost = false;
    let unlucky = move |_, d, p: &Packet| {
        let hit = !lost && d == Direction::Forward && !p.payload().is_empty();
        lost |= hit;
        hit
    };
    net.middlebox(0, DropIf::new(unlucky));
    let spec = net.flow_spec();
    let flow = run(&mut net, |n| n.add_flow(spec));
    run(&mut net, |n| n.transfer(flow, Side::Client, MB));
    close_and_rest(&mut net, flow);
}

#[test]
fn refused_where_nothing_listens() {
    let mut net = two_paths().build();
    let mut spec = net.flow_spec();
    spec.server_address = Some("10.2.0.1".parse().unwrap());
    // The middlebox turns the port into another one on the way there, and back.
    net.middlebox(0, PortShift);
    let e = net.connect_with(spec).unwrap_err();
    assert_eq!(
        e,
        SimError::Connection { flow: FlowId(0), side: Side::Client, error: ConnectionError::Refused }
    );
    assert!(net.now() < Instant::from_millis(21));
}

#[derive(Debug)]
struct PortShift;

impl umptcp_netsim::Middlebox for PortShift {
    fn process(
        &mut self,
        _now: Instant,
        direction: Direction,
        mut packet: Packet,
        out: &mut umptcp_netsim::middlebox::Output,
    ) {
        let shift = |a: Option<std::net::SocketAddr>, by: i16| {
            a.map(|a| std::net::SocketAddr::new(a.ip(), a.port().wrapping_add_signed(by)))
        };
        match direction {
            Direction::Forward => packet.rewrite(None, shift(packet.tcp_destination(), 1)),
            Direction::Reverse => packet.rewrite(shift(packet.tcp_source(), -1), None),
        }
        out.send(direction, packet);
    }
}

#[test]
fn requests_take_a_round_trip() {
    let mut net = two_paths().build();
    let spec = net.flow_spec().applications(
        Requests::new(20, 1, 1, Duration::from_millis(50)),
        Responder { request: 1, response: 1 },
    );
    let flow = run(&mut net, |n| n.connect_with(spec));
    run(&mut net, |n| n.await_closed(flow));
    let requests: &Requests = net.flow(flow).client.application().unwrap();
    assert_eq!(requests.latencies().len(), 20);
    for l in requests.latencies() {
        // The lower of the two round trips is 20 ms; no delayed ACK or Nagle may be in the way.
        assert!(*l >= Duration::from_millis(20) && *l < Duration::from_millis(22), "{l:?}");
    }
    run(&mut net, |n| n.run_until_idle(Duration::from_secs(600)));
}

#[test]
fn half_close_leaves_the_other_direction_open() {
    let mut net = two_paths().build();
    let spec = net.flow_spec().applications(Bulk(100), Sink);
    let flow = run(&mut net, |n| n.connect_with(spec));
    run(&mut net, |n| n.await_closed(flow));

    let flow = run(&mut net, |n| n.connect());
    net.finish(flow, Side::Client);
    run(&mut net, |n| n.run_for(Duration::from_secs(30)));
    assert!(net.flow(flow).server.progress.peer_finished);
    assert!(net.flow(flow).client.closed.is_none());
    run(&mut net, |n| n.transfer(flow, Side::Server, MB));
    net.finish(flow, Side::Server);
    run(&mut net, |n| n.await_closed(flow));
    run(&mut net, |n| n.run_until_idle(Duration::from_secs(600)));
}

#[test]
fn a_reader_that_pauses_stops_the_sender() {
    let config = ConnectionConfig::default().with_receive_buffer(200_000);
    let mut net = two_paths().config(config).build();
    let flow = run(&mut net, |n| n.connect());
    net.pause_reading(flow, Side::Server, true);
    net.send(flow, Side::Client, 20 * MB);
    run(&mut net, |n| n.run_for(Duration::from_secs(30)));
    let buffered = net.path_payload(Side::Client, 0) + net.path_payload(Side::Client, 1);
    // What arrived is what the buffer holds, and the odd window probe.
    assert!(buffered < 400_000, "{buffered} bytes arrived at a reader that does not read");
    net.pause_reading(flow, Side::Server, false);
    run(&mut net, |n| n.transfer(flow, Side::Client, 1));
    close_and_rest(&mut net, flow);
}

#[test]
fn abort_reaches_the_peer() {
    let mut net = two_paths().build();
    let flow = connect_all(&mut net);
    run(&mut net, |n| n.transfer(flow, Side::Client, 1000));
    net.abort(flow, Side::Client);
    run(&mut net, |n| {
        n.run_until_true("the reset", Duration::from_secs(5), |n| n.flow(flow).server.closed.is_some())
    });
    assert_eq!(net.flow(flow).server.closed.unwrap().1, Some(ConnectionError::Reset));
    run(&mut net, |n| n.run_until_idle(Duration::from_secs(600)));
}

#[test]
fn other_shapes() {
    let shapes: [(&str, PairBuilder); 7] = [
        ("IPv6", two_paths().ipv6(true)),
        ("multihomed", two_paths().multihomed(true)),
        ("no segmentation", two_paths().segmentation(false)),
        ("no offload", two_paths().segmentation(false).checksum_offload(false).gro(false)),
        ("segments and checksums", two_paths().checksum_offload(false)),
        ("DSS checksums", two_paths().config(ConnectionConfig::default().with_checksum(true))),
        (
            "small and unlike MTUs",
            Pair::builder()
                .path(Link::mbit(20).delay_ms(5).mtu(1280))
                .path(Link::mbit(20).delay_ms(5).mtu(9000))
                .path(Link::mbit(20).delay_ms(5).mtu(576)),
        ),
    ];
    for (name, builder) in shapes {
        let mut net = builder.build();
        let flow = connect_all(&mut net);
        let paths = net.cables().len();
        net.send(flow, Side::Server, 4 * MB);
        run(&mut net, |n| n.transfer(flow, Side::Client, 4 * MB));
        run(&mut net, |n| n.transfer(flow, Side::Server, 1));
        for side in SIDES {
            assert!(matches!(mptcp(&net, flow, side), MptcpStatus::Active { .. }), "{name}");
            assert_eq!(counter(&net, side, Counter::TcpInCsumErrors), 0, "{name}");
            for i in 0..paths {
                assert!(net.path_payload(side, i) > 0, "{name}: nothing from {side:?} on path {i}");
            }
        }
        for cable in net.cables() {
            for d in Direction::BOTH {
                assert_eq!(net.stats(*cable, d).dropped_too_big, 0, "{name}");
            }
        }
        close_and_rest(&mut net, flow);
    }
}

#[test]
fn a_path_comes_and_one_goes() {
    let mut net = two_paths().build();
    let flow = connect_all(&mut net);
    net.send(flow, Side::Client, 10 * MB);
    run(&mut net, |n| n.run_for(Duration::from_millis(300)));
    let first = net.paths(net.client())[0];
    let client = net.client();
    net.remove_path(client, first);
    run(&mut net, |n| n.transfer(flow, Side::Client, 1));
    close_and_rest(&mut net, flow);
}

#[test]
fn many_connections_at_once() {
    let mut net = two_paths().build();
    let flows: Vec<FlowId> = (0..20)
        .map(|i| {
            let start = Instant::from_millis(i * 7);
            let spec = net.flow_spec().applications(Bulk(50_000 * (i + 1)), Bulk(100_000)).start(start);
            run(&mut net, |n| n.add_flow(spec))
        })
        .collect();
    for (i, flow) in flows.into_iter().enumerate() {
        run(&mut net, |n| n.await_closed(flow));
        assert_eq!(net.flow(flow).server.progress.received, 50_000 * (i as u64 + 1));
        assert_eq!(net.flow(flow).client.progress.received, 100_000);
    }
    run(&mut net, |n| n.run_until_idle(Duration::from_secs(600)));
}

#[test]
fn same_seed_same_packets() {
    let hash = |seed| {
        let path = |d| Link::mbit(20).delay_ms(d).loss(0.02).duplicate(0.01).jitter(Duration::from_millis(2));
        let mut net = Pair::builder().path(path(5)).path(path(15)).seed(seed).build();
        let flow = run(&mut net, |n| n.connect());
        net.send(flow, Side::Server, MB);
        run(&mut net, |n| n.transfer(flow, Side::Client, MB));
        close_and_rest(&mut net, flow);
        (net.packet_hash(), net.packet_events(), net.now())
    };
    assert_eq!(hash(11), hash(11));
    assert_ne!(hash(11).0, hash(12).0);
}

#[test]
fn samples_tell_the_rates() {
    let mut net = two_paths().build();
    let flow = connect_all(&mut net);
    net.send(flow, Side::Client, 100 * MB);
    net.sample_every(Some(Duration::from_millis(100)));
    run(&mut net, |n| n.run_for(Duration::from_secs(4)));
    let samples = net.samples();
    assert_eq!(samples.len(), 41);
    let rate = samples[40].receive_rate(&samples[20], flow, Side::Server);
    assert!((80e6..100e6).contains(&rate), "{rate} bit/s over two paths of 50 Mbit/s");
    let last = samples[40].ends.iter().find(|e| e.side == Side::Client).unwrap();
    assert_eq!(last.subflows.len(), 2);
    assert!(last.subflows.iter().all(|s| s.srtt.is_some() && s.window > 0));
    let on_cable = samples[40].cable_rate(&samples[20], 0, Direction::Forward);
    assert!((40e6..50.1e6).contains(&on_cable), "{on_cable} bit/s on a cable of 50 Mbit/s");
    net.abort(flow, Side::Client);
    net.sample_every(None);
    run(&mut net, |n| n.run_until_idle(Duration::from_secs(600)));
}

#[test]
fn windows_are_kept_when_the_algorithm_changes() {
    let mut net =
        Pair::builder().path(Link::mbit(20).delay_ms(20)).path(Link::mbit(20).delay_ms(20)).seed(3).build();
    let flow = net.connect().unwrap();
    net.await_subflows(flow, 2).unwrap();
    net.send(flow, Side::Client, 60_000_000);
    net.run_for(Duration::from_secs(8)).unwrap();
    let windows = |net: &Pair| {
        let id = net.flow(flow).client.connection.unwrap();
        let infos = net.stack(net.client()).unwrap().subflows(id);
        infos.iter().map(|s| (s.window, s.ssthresh)).collect::<Vec<_>>()
    };
    let before = windows(&net);
    assert!(before.iter().all(|(w, _)| *w > 30_000), "{before:?}");
    assert!(!net.change_algorithms(flow, Side::Client, Some("magic"), None));
    assert!(net.change_algorithms(flow, Side::Client, Some("balia"), Some("round-robin")));
    assert_eq!(windows(&net), before);
    let id = net.flow(flow).client.connection.unwrap();
    let info = net.stack(net.client()).unwrap().info(id).unwrap();
    assert_eq!((info.congestion.as_str(), info.scheduler.as_str()), ("balia", "round-robin"));
    net.run_for(Duration::from_secs(30)).unwrap();
    assert_eq!(net.flow(flow).server.progress.received, 60_000_000);
}

//! Paths that carry smaller packets than their ends believe, with and without ICMP, and marks of congestion:
//! what the network says otherwise than by loss.

use bytes::Bytes;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use umptcp_netsim::middlebox::{Middlebox, Output};
use umptcp_netsim::{Direction, Duration, FlowId, Instant, Link, Packet, Pair, Side};
use umptcp_stack_core::config::{ConnectionConfig, Ecn};
use umptcp_stack_core::device::ChecksumState;
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::stack::SubflowInfo;
use umptcp_stack_core::types::SeqNumber;
use umptcp_stack_core::wire::header::IpView;
use umptcp_stack_core::wire::{checksum, ip};

const MB: u64 = 1_000_000;

/// A router in front of a link that is narrower for a while.
#[derive(Debug)]
struct Narrow {
    /// Largest packet that passes; larger ones are dropped.
    mtu: usize,
    /// Tells the sender so.
    icmp: bool,
    from: Instant,
    until: Instant,
    dropped: Arc<AtomicU64>,
}

impl Narrow {
    fn new(mtu: usize, icmp: bool) -> Narrow {
        Narrow { mtu, icmp, from: Instant::ZERO, until: Instant::MAX, dropped: Arc::default() }
    }
}

/// An ICMP error about `packet` that says how large a packet may be.
fn too_big(packet: &Packet, mtu: u16) -> Packet {
    let (source, destination) = (packet.source().unwrap(), packet.destination().unwrap());
    let quoted = packet.to_vec();
    let quoted = &quoted[..quoted.len().min(ip::ip_header_len(&source) + 40)];
    let (protocol, kind, router) = match source {
        IpAddr::V4(_) => (ip::PROTOCOL_ICMP, [3, 4], destination),
        IpAddr::V6(_) => (ip::PROTOCOL_ICMPV6, [2, 0], destination),
    };
    let mut message = kind.to_vec();
    message.extend([0; 2]);
    message.extend(u32::from(mtu).to_be_bytes());
    message.extend_from_slice(quoted);
    let initial = match source {
        IpAddr::V4(_) => 0,
        IpAddr::V6(_) => checksum::pseudo_header(router, source, protocol, message.len() as u32),
    };
    let sum = !checksum::fold(checksum::sum(&message, initial));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut whole = vec![0; ip::ip_header_len(&source)];
    ip::emit_ip_header_for(&mut whole, (router, source), protocol, message.len(), 0, 0).expect("one family");
    whole.extend(message);
    Packet::from_bytes(Bytes::from(whole), None, ChecksumState::Unverified)
}

impl Middlebox for Narrow {
    fn process(&mut self, now: Instant, direction: Direction, packet: Packet, out: &mut Output) {
        if packet.len() <= self.mtu || now < self.from || now >= self.until {
            out.send(direction, packet);
            return;
        }
        self.dropped.fetch_add(1, Relaxed);
        if self.icmp {
            out.send(direction.opposite(), too_big(&packet, self.mtu as u16));
        }
    }
}

/// Marks every packet of data that may be marked while `on`, and counts what it sees.
#[derive(Debug)]
struct Marker {
    from: Instant,
    until: Instant,
}

impl Middlebox for Marker {
    fn process(&mut self, now: Instant, direction: Direction, mut packet: Packet, out: &mut Output) {
        let capable = IpView::new(packet.header()).unwrap().ecn() == ip::ecn::ECT_0;
        if capable && now >= self.from && now < self.until {
            packet.mark_congestion();
        }
        out.send(direction, packet);
    }
}

fn link() -> Link {
    Link::mbit(20).delay_ms(10)
}

fn counter(net: &Pair, side: Side, counter: Counter) -> u64 {
    net.stack(net.node(side)).unwrap().counters().get(counter)
}

fn subflow(net: &Pair, flow: FlowId, side: Side) -> SubflowInfo {
    let end = net.flow(flow).end(side);
    net.stack(end.node).unwrap().subflows(end.connection.unwrap()).remove(0)
}

#[test]
fn icmp_lowers_the_packet_size_at_once() {
    // RFC 1191, RFC 8201: one round trip lost, and no window.
    for mptcp in [false, true] {
        for ipv6 in [false, true] {
            let config = ConnectionConfig::default().with_mptcp(mptcp);
            let mut net = Pair::builder().path(link()).ipv6(ipv6).config(config).build();
            net.middlebox(0, Narrow::new(1_400, true));
            let flow = net.connect().unwrap();
            let time = net.transfer(flow, Side::Client, 2 * MB).unwrap();
            let s = subflow(&net, flow, Side::Client);
            let headers = if ipv6 { 60 } else { 40 } + if mptcp { 40 } else { 12 };
            assert_eq!((s.mss, s.timeouts, s.recoveries), (1_400 - headers, 0, 0), "{mptcp} {ipv6} {s:?}");
            assert_eq!(counter(&net, Side::Client, Counter::TcpPmtuReduced), 1);
            assert!(time < Duration::from_millis(1_100), "{mptcp} {ipv6} {time:?}");
            // Both directions have such a path.
            net.transfer(flow, Side::Server, MB).unwrap();
            assert_eq!(subflow(&net, flow, Side::Server).mss, 1_400 - headers);
        }
    }
}

/// Of each kind: black holes found, probes that arrived, probes that did not.
fn probes(net: &Pair) -> [u64; 3] {
    [Counter::TcpPmtuBlackHole, Counter::TcpMTUPSuccess, Counter::TcpMTUPFail]
        .map(|c| counter(net, Side::Client, c))
}

/// Connections of several kinds, by the headers that a packet of their data has.
fn kinds() -> [(ConnectionConfig, bool, u32); 4] {
    let kind = |mptcp, checksum| ConnectionConfig::default().with_mptcp(mptcp).with_checksum(checksum);
    [
        (kind(false, false), false, 52),
        (kind(false, false), true, 72),
        (kind(true, false), true, 100),
        (kind(true, true), false, 80),
    ]
}

#[test]
fn a_path_that_swallows_large_packets_is_found_out_by_silence() {
    // RFC 4821 §7.7: no ICMP at all. Two timeouts, then everything flows, and probes find what passes.
    for (config, ipv6, headers) in kinds() {
        let mut net = Pair::builder().path(link()).ipv6(ipv6).config(config).build();
        net.middlebox(0, Narrow::new(1_400, false));
        let flow = net.connect().unwrap();
        let time = net.transfer(flow, Side::Client, 10 * MB).unwrap();
        let s = subflow(&net, flow, Side::Client);
        assert_eq!((s.mss, s.timeouts, s.recoveries), (1_400 - headers, 2, 0), "{s:?}");
        let [holes, larger, lost] = probes(&net);
        assert!(holes == 1 && larger >= 1 && (2..=4).contains(&lost), "{holes} {larger} {lost}");
        assert!(time < Duration::from_millis(6_500), "{headers} {time:?} {s:?}");
    }
}

#[test]
fn a_path_that_becomes_wider_again_is_used_in_full() {
    // RFC 8899 §5.1.1: larger packets are tried when the raise timer has expired.
    let interval = Duration::from_secs(20);
    for (config, ipv6, headers) in kinds() {
        for icmp in [true, false] {
            let config = config.clone().with_mtu_probe_interval(Some(interval));
            let mut net = Pair::builder().path(Link::mbit(4).delay_ms(10)).ipv6(ipv6).config(config).build();
            let until = Instant::from_millis(15_000);
            net.middlebox(0, Narrow { until, ..Narrow::new(1_400, icmp) });
            let flow = net.connect().unwrap();
            net.send(flow, Side::Client, 100 * MB);
            net.run_until(until).unwrap();
            let before = subflow(&net, flow, Side::Client);
            assert_eq!(before.mss, 1_400 - headers, "{icmp} {before:?}");
            let counted = probes(&net);
            net.run_until(until + interval).unwrap();
            let after = subflow(&net, flow, Side::Client);
            assert_eq!((after.mss, after.timeouts), (1_500 - headers, before.timeouts), "{icmp} {after:?}");
            assert_eq!(after.recoveries, before.recoveries, "{icmp}");
            let [holes, larger, lost] = counted;
            assert_eq!(probes(&net), [holes, larger + 1, lost], "one probe that arrives, and all is well");
        }
    }
}

#[test]
fn a_lost_probe_costs_no_window_and_one_packet() {
    // RFC 4821 §7.6.2: what ICMP made smaller stays so. Probes are the only packets that the router drops,
    // and each is a packet of its own although segments are large.
    for icmp in [true, false] {
        for (config, ipv6, headers) in kinds() {
            let interval = Some(Duration::from_secs(10));
            let receive_buffer = 40_000;
            let config = config.clone().with_mtu_probe_interval(interval).with_receive_buffer(receive_buffer);
            let mut net = Pair::builder().path(Link::mbit(4).delay_ms(10)).ipv6(ipv6).config(config).build();
            let first = Instant::from_millis(2_000);
            net.middlebox(0, Narrow { until: first, ..Narrow::new(1_400, true) });
            let dropped = Arc::new(AtomicU64::default());
            let later = Narrow { from: first, dropped: dropped.clone(), ..Narrow::new(1_400, icmp) };
            net.middlebox(0, later);
            let flow = net.connect().unwrap();
            net.send(flow, Side::Client, 100 * MB);
            net.run_until(Instant::from_millis(9_500)).unwrap();
            let before = subflow(&net, flow, Side::Client);
            assert_eq!((before.mss, dropped.load(Relaxed)), (1_400 - headers, 0));
            net.run_until(Instant::from_millis(20_500)).unwrap();
            let s = subflow(&net, flow, Side::Client);
            let [_, larger, lost] = probes(&net);
            assert_eq!((s.mss, larger), (1_400 - headers, 0), "{s:?}");
            // ICMP settles it at once, but the second search has begun by now.
            assert_eq!((lost, dropped.load(Relaxed)), if icmp { (2, 2) } else { (3, 3) }, "{icmp}");
            assert_eq!(s.timeouts, before.timeouts);
            let resent = s.bytes_retransmitted - before.bytes_retransmitted;
            assert_eq!(s.recoveries, before.recoveries);
            assert!(resent <= lost * u64::from(1_500 - headers), "{resent} {lost}");
            assert!(s.window >= before.window, "{} {}", before.window, s.window);
        }
    }
}

#[test]
fn a_path_that_becomes_narrower_under_way_and_wider_again() {
    for (config, ipv6, headers) in kinds() {
        for icmp in [true, false] {
            let interval = Some(Duration::from_secs(10));
            let config = config.clone().with_mtu_probe_interval(interval);
            let mut net = Pair::builder().path(link()).ipv6(ipv6).config(config).build();
            let flow = net.connect().unwrap();
            net.transfer(flow, Side::Client, MB).unwrap();
            assert_eq!(subflow(&net, flow, Side::Client).mss, 1_500 - headers);
            let until = net.now() + Duration::from_secs(8);
            net.middlebox(0, Narrow { until, ..Narrow::new(1_300, icmp) });
            let time = net.transfer(flow, Side::Client, MB).unwrap();
            let s = subflow(&net, flow, Side::Client);
            // Larger packets had arrived, so the message is kept until its segment times out (RFC 5927 §7.2).
            assert!(s.mss <= 1_300 - headers && s.timeouts > 0, "{s:?}");
            assert!(time < Duration::from_secs(if icmp { 3 } else { 6 }), "{icmp}: {time:?}");
            net.run_until(until + Duration::from_secs(12)).unwrap();
            net.transfer(flow, Side::Client, MB).unwrap();
            let after = subflow(&net, flow, Side::Client);
            // A search that was under way is content with less, until the next one.
            assert!(after.mss >= 1_492 - headers, "{icmp} {after:?}");
            assert_eq!(after.timeouts, s.timeouts, "{icmp} {after:?}");
        }
    }
}

/// Loses packets of data for a while, whatever their size, and those of more than so many bytes throughout.
#[derive(Debug)]
struct Lossy {
    large: usize,
    loses: Arc<AtomicU64>,
}

impl Middlebox for Lossy {
    fn process(&mut self, _: Instant, direction: Direction, packet: Packet, out: &mut Output) {
        if packet.len() > self.large {
            // The probe, and what follows it.
            self.loses.store(3, Relaxed);
        }
        let left = self.loses.load(Relaxed);
        if direction == Direction::Forward && left > 0 {
            self.loses.store(left - 1, Relaxed);
            return;
        }
        out.send(direction, packet);
    }
}

#[test]
fn a_probe_lost_along_with_other_packets_is_congestion() {
    // RFC 4821 §7.6.4: it says nothing of the size, and the window is reduced as for any loss.
    let config = ConnectionConfig::default().with_mtu_probe_interval(Some(Duration::from_secs(5)));
    let mut net = Pair::builder().path(link()).config(config).build();
    net.middlebox(0, Narrow { until: Instant::from_millis(2_000), ..Narrow::new(1_400, true) });
    net.middlebox(0, Lossy { large: 1_400, loses: Arc::default() });
    let flow = net.connect().unwrap();
    net.send(flow, Side::Client, 100 * MB);
    net.run_until(Instant::from_millis(4_900)).unwrap();
    let before = subflow(&net, flow, Side::Client);
    net.run_until(Instant::from_millis(9_900)).unwrap();
    let s = subflow(&net, flow, Side::Client);
    let [_, larger, lost] = probes(&net);
    assert_eq!((s.mss, larger, lost, s.timeouts), (before.mss, 0, 0, before.timeouts), "{s:?}");
    assert!(s.recoveries > before.recoveries + 2, "tried again after each: {s:?}");
}

#[test]
fn forged_icmp_messages_do_nothing() {
    // RFC 5927 §4.1 and §7.2: whatever they quote, while data arrive in full packets.
    #[derive(Debug)]
    struct Forger(u32);
    impl Middlebox for Forger {
        fn process(&mut self, _: Instant, direction: Direction, packet: Packet, out: &mut Output) {
            if direction == Direction::Forward && packet.len() > 1_000 {
                self.0 += 1;
                let mut quoted = packet.clone();
                if self.0.is_multiple_of(2) {
                    // A sequence number that is not outstanding.
                    let seq = quoted.tcp().map_or(0, |tcp| tcp.seq().0);
                    quoted.edit_tcp(|tcp| tcp.set_seq(SeqNumber(seq ^ 0x4000_0000)));
                }
                if self.0 > 40 {
                    out.send(direction.opposite(), too_big(&quoted, 600));
                }
            }
            out.send(direction, packet);
        }
    }
    let mut net = Pair::builder().path(link()).build();
    net.middlebox(0, Forger(0));
    let flow = net.connect().unwrap();
    net.transfer(flow, Side::Client, 2 * MB).unwrap();
    let s = subflow(&net, flow, Side::Client);
    assert_eq!((s.mss, s.timeouts, s.bytes_retransmitted), (1_420, 0, 0), "{s:?}");
    assert!(counter(&net, Side::Client, Counter::TcpOutOfWindowIcmps) > 100);
    assert_eq!(counter(&net, Side::Client, Counter::TcpPmtuReduced), 0);
}

#[test]
fn marks_reduce_the_window_once_per_round_trip_and_cost_no_retransmission() {
    // RFC 3168: the client asks for it, the server accepts.
    let config = |ecn| ConnectionConfig::default().with_mptcp(false).with_congestion("reno").with_ecn(ecn);
    let mut net = Pair::builder()
        .path(link())
        .client_config(config(Ecn::Request))
        .server_config(config(Ecn::Accept))
        .build();
    // A second of marks: 50 round trips at most, and fewer as the queue has made the first ones long.
    let (from, until) = (Instant::from_millis(600), Instant::from_millis(1_600));
    net.middlebox(0, Marker { from, until });
    let flow = net.connect().unwrap();
    net.send(flow, Side::Client, 6 * MB);
    net.run_until(from).unwrap();
    let before = subflow(&net, flow, Side::Client);
    net.run_until(until + Duration::from_millis(60)).unwrap();
    let after = subflow(&net, flow, Side::Client);
    let reductions = counter(&net, Side::Client, Counter::TcpECNReductions);
    let marked = counter(&net, Side::Server, Counter::TcpInCEPkts);
    assert!((5..=50).contains(&reductions) && marked > 4 * reductions, "{reductions} {marked}");
    assert!(after.window * 3 < before.window, "{} {}", before.window, after.window);
    net.run_until_true("all of it", Duration::from_secs(60), |net| {
        net.flow(flow).server.progress.received == 6 * MB
    })
    .unwrap();
    assert_eq!(subflow(&net, flow, Side::Client).bytes_retransmitted, 0);
    assert_eq!(counter(&net, Side::Client, Counter::TcpECNReductions), reductions, "CWR ended the echo");
    // The other direction has it as well.
    net.transfer(flow, Side::Server, MB).unwrap();
    assert_eq!(counter(&net, Side::Client, Counter::TcpInCEPkts), 0);
}

#[test]
fn without_agreement_no_packet_is_ecn_capable() {
    #[derive(Debug)]
    struct NotCapable;
    impl Middlebox for NotCapable {
        fn process(&mut self, _: Instant, direction: Direction, packet: Packet, out: &mut Output) {
            assert_eq!(IpView::new(packet.header()).unwrap().ecn(), ip::ecn::NOT_ECT);
            let flags = packet.tcp().map(|t| t.flags()).unwrap_or_default();
            assert!(flags.syn || !(flags.ece || flags.cwr));
            out.send(direction, packet);
        }
    }
    for (client, server) in [(Ecn::Request, Ecn::Off), (Ecn::Accept, Ecn::Request), (Ecn::Off, Ecn::Accept)] {
        let config = |ecn| ConnectionConfig::default().with_ecn(ecn);
        let mut net =
            Pair::builder().path(link()).client_config(config(client)).server_config(config(server)).build();
        net.middlebox(0, NotCapable);
        let flow = net.connect().unwrap();
        net.transfer(flow, Side::Client, 100_000).unwrap();
        net.transfer(flow, Side::Server, 100_000).unwrap();
    }
}

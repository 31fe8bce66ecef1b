//! Paths that carry smaller packets than their ends believe, with and without ICMP, and marks of congestion: what the network
//! says otherwise than by loss.

use bytes::Bytes;
use std::net::IpAddr;
use umptcp_netsim::middlebox::{Middlebox, Output};
use umptcp_netsim::packet::flags;
use umptcp_netsim::{Direction, Duration, FlowId, Instant, Link, Packet, Pair, Side};
use umptcp_stack_core::config::{ConnectionConfig, Ecn};
use umptcp_stack_core::interface::{ChecksumRequest, ChecksumState};
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::stack::SubflowInfo;
use umptcp_stack_core::wire::{checksum, ip};

const MB: u64 = 1_000_000;

/// A router in front of a narrower link.
#[derive(Debug)]
struct Narrow {
    /// Largest packet that passes; larger ones are dropped.
    mtu: usize,
    /// Tells the sender so.
    icmp: bool,
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
    ip::emit_ip_header_for(&mut whole, router, source, protocol, message.len(), 0, 0).expect("one family");
    whole.extend(message);
    Packet::from_bytes(Bytes::from(whole), None, ChecksumState::Unverified)
}

impl Middlebox for Narrow {
    fn process(&mut self, _: Instant, direction: Direction, packet: Packet, out: &mut Output) {
        if packet.len() <= self.mtu {
            out.send(direction, packet);
        } else if self.icmp {
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
    fn process(&mut self, now: Instant, direction: Direction, packet: Packet, out: &mut Output) {
        let capable = packet.header()[1] & 3 == ip::ecn::ECT_0;
        if !capable || now < self.from || now >= self.until {
            out.send(direction, packet);
            return;
        }
        let state = match packet.checksum() {
            ChecksumRequest::Complete => ChecksumState::Unverified,
            ChecksumRequest::Partial { .. } => ChecksumState::Verified,
        };
        let mut bytes = packet.to_vec();
        bytes[1] |= ip::ecn::CE;
        bytes[10..12].fill(0);
        let sum = !checksum::fold(checksum::sum(&bytes[..20], 0));
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        out.send(direction, Packet::from_bytes(Bytes::from(bytes), packet.gso_size(), state));
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
            let config = ConnectionConfig { mptcp, ..Default::default() };
            let mut net = Pair::builder().path(link()).ipv6(ipv6).config(config).build();
            net.middlebox(0, Narrow { mtu: 1_400, icmp: true });
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

#[test]
fn a_path_that_swallows_large_packets_is_found_out_by_silence() {
    // RFC 4821: no ICMP at all. Two timeouts, then everything flows.
    for mptcp in [false, true] {
        let config = ConnectionConfig { mptcp, ..Default::default() };
        let mut net = Pair::builder().path(link()).config(config).build();
        net.middlebox(0, Narrow { mtu: 1_400, icmp: false });
        let flow = net.connect().unwrap();
        let time = net.transfer(flow, Side::Client, 2 * MB).unwrap();
        let s = subflow(&net, flow, Side::Client);
        assert_eq!(s.mss, 1_220 - if mptcp { 40 } else { 12 }, "{s:?}");
        assert_eq!(counter(&net, Side::Client, Counter::TcpMTUPFail), 1);
        assert!(time < Duration::from_secs(4), "{mptcp} {time:?} {s:?}");
    }
}

#[test]
fn a_path_that_becomes_narrower_under_way() {
    for icmp in [true, false] {
        let mut net = Pair::builder().path(link()).build();
        let flow = net.connect().unwrap();
        net.transfer(flow, Side::Client, MB).unwrap();
        net.middlebox(0, Narrow { mtu: 1_300, icmp });
        let time = net.transfer(flow, Side::Client, MB).unwrap();
        let s = subflow(&net, flow, Side::Client);
        // Larger packets had arrived, so the message is kept until its segment times out (RFC 5927 §7.2).
        assert!(s.mss < 1_300 - 80 + 1 && s.timeouts > 0, "{s:?}");
        assert!(time < Duration::from_secs(if icmp { 3 } else { 6 }), "{icmp}: {time:?}");
    }
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
                    quoted.edit_tcp(|tcp| tcp[4] ^= 0x40);
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
    let config =
        |ecn| ConnectionConfig { mptcp: false, congestion: "reno".into(), ecn, ..Default::default() };
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
            assert_eq!(packet.header()[1] & 3, 0);
            let bits = packet.tcp().map_or(0, |t| t.flags());
            assert!(bits & flags::SYN != 0 || bits & (flags::ECE | flags::CWR) == 0);
            out.send(direction, packet);
        }
    }
    for (client, server) in [(Ecn::Request, Ecn::Off), (Ecn::Accept, Ecn::Request), (Ecn::Off, Ecn::Accept)] {
        let config = |ecn| ConnectionConfig { ecn, ..Default::default() };
        let mut net =
            Pair::builder().path(link()).client_config(config(client)).server_config(config(server)).build();
        net.middlebox(0, NotCapable);
        let flow = net.connect().unwrap();
        net.transfer(flow, Side::Client, 100_000).unwrap();
        net.transfer(flow, Side::Server, 100_000).unwrap();
    }
}

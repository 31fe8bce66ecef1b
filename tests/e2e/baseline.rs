//! Tests of the test bed itself, with the kernel at both ends: failures here are not umptcp's fault.

use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;
use umptcp_testbed::capture::Capture;
use umptcp_testbed::endpoint::{KernelHost, Pair, connect};
use umptcp_testbed::host::Snapshot;
use umptcp_testbed::inject::{self, Segment};
use umptcp_testbed::kernel::{self, Counters, Kind};
use umptcp_testbed::limit::within;
use umptcp_testbed::netns::Netns;
use umptcp_testbed::topology::{Family, Routed, Site, both_ways, bridged};
use umptcp_testbed::traffic::until_each;

const LIMIT: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// Connects two MPTCP kernels, one of which joins a second path, and waits until it has joined.
///
/// Linux 6.18 sometimes delivers data that arrives right after a join in the wrong place (docs/src/tests.md,
/// "A defect of Linux"), which must not fail these tests.
fn two_joined_kernels(client: &Netns, server: &Netns, address: SocketAddr) -> Pair {
    let [from, to] = [client, server].map(|ns| KernelHost::new(ns, Kind::Mptcp));
    let pair = connect(&from, &to, address);
    // A kernel joins once a DATA_ACK shows that its peer has the keys.
    pair.client.send(b"?").unwrap();
    assert_eq!(pair.server.receive(&mut [0; 2]).unwrap(), 1);
    kernel::wait_for(server, "joined", |counters| counters.mptcp("MPJoinAckRx") == 1);
    pair
}

fn two_kernels(family: Family) {
    let net = Routed::new(2, 1);
    net.client.use_kernel_mptcp();
    net.server.use_kernel_mptcp();
    net.shape_client(0, 400.0);
    net.shape_client(1, 400.0);
    let address = net.server.nics[0].socket_address(family, 4000);
    let pair = two_joined_kernels(&net.client.ns, &net.server.ns, address);
    pair.exchange(64 * MIB);
    drop(pair);
    kernel::wait_closed(&net.client.ns);
    kernel::wait_closed(&net.server.ns);
    for link in net.client_link_bytes() {
        assert!(link.to_server >= 16 * MIB && link.to_client >= 16 * MIB, "{:?}", net.client_link_bytes());
    }
    let client = Counters::read(&net.client.ns);
    let server = Counters::read(&net.server.ns);
    client.assert_untroubled();
    server.assert_untroubled();
    assert_eq!(client.mptcp("MPCapableSYNTX"), 1);
    assert_eq!(server.mptcp("MPCapableACKRX"), 1);
    assert_eq!(client.mptcp("MPJoinSynTx"), 1);
    assert_eq!(server.mptcp("MPJoinAckRx"), 1);
}

#[test]
fn kernels_use_two_paths_ipv4() {
    within(LIMIT, || two_kernels(Family::V4));
}

#[test]
fn kernels_use_two_paths_ipv6() {
    within(LIMIT, || two_kernels(Family::V6));
}

#[test]
fn a_router_that_strips_mptcp_makes_kernels_fall_back() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        net.client.use_kernel_mptcp();
        net.strip_mptcp_from_syn(0);
        let client = KernelHost::new(&net.client.ns, Kind::Mptcp);
        let server = KernelHost::new(&net.server.ns, Kind::Mptcp);
        connect(&client, &server, net.server.nics[0].socket_address(Family::V4, 4000)).exchange(MIB);
        let counters = Counters::read(&net.client.ns);
        assert_eq!(counters.mptcp("MPCapableFallbackSYNACK"), 1, "{counters}");
    });
}

#[test]
fn kernels_survive_a_silent_path() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        net.client.use_kernel_mptcp();
        net.server.use_kernel_mptcp();
        net.shape_client(0, 100.0);
        net.shape_client(1, 100.0);
        let address = net.server.nics[0].socket_address(Family::V4, 4000);
        let pair = two_joined_kernels(&net.client.ns, &net.server.ns, address);
        pair.exchange_while(32 * MIB, || {
            net.wait_client_link(0, 2 * MIB);
            net.silence(0, true);
            let before = net.client_link_bytes();
            net.wait_client_link(1, before[1].to_client + 4 * MIB);
            // Only what was in the router's own queue may still have been sent.
            assert!(net.client_link_bytes()[0].to_client - before[0].to_client < MIB);
            net.silence(0, false);
        });
    });
}

#[test]
fn kernels_use_two_nics_of_one_subnet() {
    within(LIMIT, || {
        let net = bridged();
        net.use_kernel_mptcp();
        net.shape(200.0);
        let address = net.server.nics[0].socket_address(Family::V4, 4000);
        let pair = two_joined_kernels(&net.client.ns, &net.server.ns, address);
        pair.exchange_while(16 * MIB, || until_each(|| both_ways(&net.client_link_bytes()), 4 * MIB));
    });
}

#[test]
fn tshark_finds_kernel_packets_well_formed() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        net.client.use_kernel_mptcp();
        net.server.use_kernel_mptcp();
        let address = net.server.nics[0].socket_address(Family::V4, 4000);
        let capture = Capture::start(&net.router, &["r-c0", "r-c1"]);
        let pair = two_joined_kernels(&net.client.ns, &net.server.ns, address);
        pair.exchange(4 * MIB);
        drop(pair);
        kernel::wait_closed(&net.client.ns);
        let packets = capture.stop();
        packets.assert_well_formed();
        assert!(packets.count("tcp.len > 0") > 20, "{}", packets.count("tcp"));
        let bare = "tcp && !mptcp";
        assert_eq!(packets.count(bare), 0, "without MPTCP:\n{}", packets.describe(bare));
    });
}

#[test]
fn a_snapshot_shows_what_was_changed() {
    within(LIMIT, || {
        let net = Routed::new(1, 1);
        let ns = &net.client.ns;
        let before = Snapshot::take(ns);
        before.assert_restored(ns, Duration::ZERO);
        net.client.use_kernel_mptcp();
        ns.sysctl("net.ipv4.conf.c0.rp_filter", "1");
        ns.nft("table ip t {\n chain c {\n counter\n }\n}");
        let difference = before.difference(&Snapshot::take(ns)).join("\n");
        for part in
            ["lookup 100", "default via 10.1.0.1 dev c0 table 100", "conf/c0/rp_filter: 1", "table ip t"]
        {
            assert!(difference.contains(part), "{part} is not in:\n{difference}");
        }
    });
}

#[test]
fn tshark_reports_what_is_malformed() {
    within(LIMIT, || {
        let net = Routed::new(1, 1);
        let address = |site: &Site| SocketAddrV4::new(site.nics[0].v4, 4000);
        let (from, to) = (address(&net.client), address(&net.server));
        let bad = [
            Segment { cut: Some(10), ..Segment::new(from, to) },
            // A DSS too short for its flags, an option that exceeds the header, one of length 0, an MSS of 3
            // bytes.
            Segment { options: vec![30, 5, 0x20, 0xff, 0xff], ..Segment::new(from, to) },
            Segment { options: vec![8, 40, 0, 0], ..Segment::new(from, to) },
            Segment { options: vec![30, 0], ..Segment::new(from, to) },
            Segment { flags: inject::SYN, options: vec![2, 3, 5], ..Segment::new(from, to) },
        ];
        for segment in bad {
            let capture = Capture::start(&net.client.ns, &["c0"]);
            inject::send(&net.client.ns, std::slice::from_ref(&segment));
            let packets = capture.stop();
            assert_eq!(packets.count("ip.src == 10.1.0.2"), 1, "captured:\n{}", packets.describe("frame"));
            let verdict = std::panic::catch_unwind(|| packets.assert_well_formed());
            assert!(verdict.is_err(), "tshark has nothing to say about {segment:?}");
        }
    });
}

#[test]
fn the_kernel_bears_malformed_segments() {
    within(LIMIT, || {
        let net = Routed::new(1, 1);
        let client = KernelHost::new(&net.client.ns, Kind::Mptcp);
        let server = KernelHost::new(&net.server.ns, Kind::Mptcp);
        let to = SocketAddrV4::new(net.server.nics[0].v4, 4000);
        let pair = connect(&client, &server, to.into());
        let segments = inject::malformed(SocketAddrV4::new(net.client.nics[0].v4, 5000), to, 1, 1);
        pair.exchange_while(16 * MIB, || inject::send(&net.client.ns, &segments));
    });
}

//! Our packets as decoded by tshark.

use crate::umptcp_host::{Mode, UmptcpHost};
use std::time::{Duration, Instant};
use umptcp::ConnectionConfig;
use umptcp_testbed::Netns;
use umptcp_testbed::capture::Capture;
use umptcp_testbed::endpoint::{Endpoint, KernelHost, connect};
use umptcp_testbed::kernel::{Counters, Kind};
use umptcp_testbed::limit::within;
use umptcp_testbed::topology::{Family, Routed};

const MIB: u64 = 1 << 20;

/// `joined` is the kernel counter that shows that the second subflow is established: the transfer may finish
/// before a kernel joins. Our client joins once the first data is acknowledged.
fn every_packet_decodes(
    net: &Routed,
    client: &dyn Endpoint,
    server: &dyn Endpoint,
    family: Family,
    joined: Option<(&Netns, &str)>,
) {
    let capture = Capture::start(&net.router, &["r-c0", "r-c1"]);
    let pair = connect(client, server, net.server.nics[0].socket_address(family, 4000));
    let deadline = Instant::now() + Duration::from_secs(20);
    while joined.is_some_and(|(ns, name)| Counters::read(ns).mptcp(name) == 0) {
        assert!(Instant::now() < deadline, "no second subflow");
        std::thread::sleep(Duration::from_millis(5));
    }
    pair.exchange(4 * MIB);
    drop(pair);
    let packets = capture.stop();
    packets.assert_well_formed();
    let tcp = packets.count("tcp.port == 4000");
    assert!(tcp > 20, "only {tcp} packets were captured");
    let bare = "tcp.port == 4000 && !mptcp";
    assert_eq!(packets.count(bare), 0, "without MPTCP:\n{}", packets.describe(bare));
    for (what, filter) in [
        ("MP_CAPABLE", "tcp.options.mptcp.subtype == 0"),
        ("MP_JOIN", "tcp.options.mptcp.subtype == 1"),
        ("DSS", "tcp.options.mptcp.subtype == 2"),
        ("DATA_FIN", "tcp.options.mptcp.datafin.flag == 1"),
    ] {
        assert!(packets.count(filter) > 0, "no {what} in the capture");
    }
}

#[test]
fn every_packet_of_a_client_decodes_ipv4() {
    within(Duration::from_secs(60), || {
        let net = Routed::new(2, 1);
        net.server.use_kernel_mptcp();
        let client = UmptcpHost::new(&net.client, Mode::Nat);
        every_packet_decodes(&net, &client, &KernelHost::new(&net.server.ns, Kind::Mptcp), Family::V4, None);
    });
}

#[test]
fn every_packet_of_a_client_decodes_ipv6() {
    within(Duration::from_secs(60), || {
        let net = Routed::new(2, 1);
        net.server.use_kernel_mptcp();
        let client = UmptcpHost::new(&net.client, Mode::Nat);
        every_packet_decodes(&net, &client, &KernelHost::new(&net.server.ns, Kind::Mptcp), Family::V6, None);
    });
}

#[test]
fn every_packet_of_a_server_decodes() {
    within(Duration::from_secs(60), || {
        let net = Routed::new(2, 1);
        net.client.use_kernel_mptcp();
        let server = UmptcpHost::new(&net.server, Mode::Nat);
        every_packet_decodes(
            &net,
            &KernelHost::new(&net.client.ns, Kind::Mptcp),
            &server,
            Family::V4,
            Some((&net.client.ns, "MPJoinSynAckRx")),
        );
    });
}

/// What is asked for with `traffic_class` arrives in the network, through address translation, too.
#[test]
fn every_packet_has_its_traffic_class_in_the_network() {
    within(Duration::from_secs(120), || {
        // Expedited forwarding (RFC 3246).
        let class = 46 << 2;
        let net = Routed::new(2, 1);
        net.server.use_kernel_mptcp();
        for (mptcp, kind) in [(true, Kind::Mptcp), (false, Kind::Tcp)] {
            let config = ConnectionConfig::default().with_mptcp(mptcp).with_traffic_class(class);
            let client = UmptcpHost::with(&net.client, Mode::Nat, config);
            let server = KernelHost::new(&net.server.ns, kind);
            for (family, field) in [(Family::V4, "ip.dsfield.dscp"), (Family::V6, "ipv6.tclass.dscp")] {
                let capture = Capture::start(&net.router, &["r-c0", "r-c1"]);
                let pair = connect(&client, &server, net.server.nics[0].socket_address(family, 4000));
                pair.exchange(MIB);
                drop(pair);
                let packets = capture.stop();
                let (ours, other) = ("tcp.dstport == 4000", format!("tcp.dstport == 4000 && {field} != 46"));
                assert!(packets.count(ours) > 10, "{family:?}, {kind:?}");
                assert_eq!(packets.count(&other), 0, "{family:?}, {kind:?}: {}", packets.describe(&other));
            }
        }
    });
}

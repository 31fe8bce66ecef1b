//! Plain TCP with the kernel over links with random loss: the data must arrive intact.

use crate::umptcp_host::{Mode, UmptcpHost};
use std::time::Duration;
use umptcp::ConnectionConfig;
use umptcp_netsim::Link;
use umptcp_testbed::emulated_link::EmulatedLink;
use umptcp_testbed::endpoint::{KernelHost, connect};
use umptcp_testbed::kernel::Kind;
use umptcp_testbed::limit::within;
use umptcp_testbed::topology::{Family, Routed, Site};

const LIMIT: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;

/// Each side connects once; seeded data is sent in both directions and compared by SHA-256.
fn both_roles(client: &Site, server: &Site, length: u64) {
    for congestion in ["cubic", "reno"] {
        let config = ConnectionConfig::default().with_mptcp(false).with_congestion(congestion);
        let ours = UmptcpHost::with(client, Mode::Nat, config);
        let kernel = KernelHost::new(&server.ns, Kind::Tcp);
        let pair = connect(&ours, &kernel, server.nics[0].socket_address(Family::V4, 4000));
        pair.exchange(length);
        drop(pair);
        let pair = connect(&kernel, &ours, client.nics[0].socket_address(Family::V4, 4000));
        pair.exchange(length);
    }
}

fn random_loss(share: f64) {
    within(LIMIT, move || {
        let net = Routed::new(1, 1);
        net.shape_client(0, 100.0);
        net.lose_at_random(share);
        both_roles(&net.client, &net.server, 8 * MIB);
        // 32 MiB are about 23,000 packets in each direction.
        let lost = net.lost_at_random();
        assert!(lost as f64 > 10_000.0 * share, "only {lost} packets were lost");
    });
}

#[test]
fn one_packet_in_a_thousand_lost() {
    random_loss(0.001);
}

#[test]
fn one_packet_in_a_hundred_lost() {
    random_loss(0.01);
}

#[test]
fn one_packet_in_twenty_lost() {
    random_loss(0.05);
}

#[test]
fn packets_out_of_order() {
    within(LIMIT, || {
        let link = || Link::mbit(50).delay_ms(10).reorder(0.02, Duration::from_millis(5));
        let net = EmulatedLink::new(link(), link(), 1);
        both_roles(&net.client, &net.server, 4 * MIB);
    });
}

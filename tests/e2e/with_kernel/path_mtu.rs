//! A route whose MTU changes under a connection: packets follow it down (RFC 1191, RFC 8201) and up again
//! (RFC 4821, RFC 8899).

use super::*;
use crate::umptcp_host::Mode;
use umptcp::ConnectionConfig;
use umptcp_testbed::capture::Capture;
use umptcp_testbed::limit::within;

/// Sets the MTU of the router's route to the server; `None` means that of the link.
fn set_route_mtu(net: &Routed, family: Family, mtu: Option<u32>) {
    let (ip, prefix) = match family {
        Family::V4 => ("ip", 32),
        Family::V6 => ("ip -6", 128),
    };
    let nic = &net.server.nics[0];
    let route = format!("{}/{prefix} dev {}", nic.address(family), nic.far_device);
    match mtu {
        Some(mtu) => net.router.sh(&format!("{ip} route replace {route} mtu lock {mtu}")),
        None => net.router.sh(&format!("{ip} route del {route}")),
    };
}

#[test]
fn packets_follow_the_mtu_of_a_route_down_and_up_again() {
    for family in [Family::V4, Family::V6] {
        within(LIMIT, move || {
            let net = Routed::new(1, 1);
            net.shape_client(0, 20.0);
            let server = kernel_server(&net);
            let config = ConnectionConfig::default().with_mtu_probe_interval(Some(Duration::from_secs(1)));
            let client = UmptcpHost::with(&net.client, Mode::Nat, config);
            set_route_mtu(&net, family, Some(1_400));
            // Makes the capture see packets, not segments of 64 kB.
            let nic = &net.server.nics[0];
            net.router.sh(&format!("ip link set {} gso_max_size 1500 gso_max_segs 1", nic.far_device));
            let pair = connect(&client, &server, nic.socket_address(family, PORT));
            pair.exchange_while(16 * MIB, || {
                wait_ours(&client, "TcpPmtuReduced", 1);
                // Probes that are still too large, which the router answers with ICMP.
                wait_ours(&client, "TcpMTUPFail", 1);
                let capture = Capture::start(&net.router, &[&nic.far_device]);
                set_route_mtu(&net, family, None);
                wait_ours(&client, "TcpMTUPSuccess", 1);
                std::thread::sleep(Duration::from_millis(500));
                let packets = capture.stop();
                let to_us = format!("tcp.dstport == {PORT} && frame.len");
                assert_eq!(packets.count(&format!("{to_us} > 1514")), 0);
                assert!(packets.count(&format!("{to_us} == 1514")) > 100, "{}", client.counters());
            });
            assert!(client.counter("TcpMTUPSuccess") >= 1, "{}", client.counters());
            same_story(&client, &net.server.ns);
        });
    }
}

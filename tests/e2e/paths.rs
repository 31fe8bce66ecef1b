//! Paths that fail silently, share a subnet, or are numerous.

use crate::umptcp_host::{Mode, UmptcpHost};
use std::time::{Duration, Instant};
use umptcp_testbed::capture::Capture;
use umptcp_testbed::endpoint::{Endpoint, KernelHost, connect};
use umptcp_testbed::exchange::{Seeded, receive_all, send_all};
use umptcp_testbed::kernel::{self, Kind};
use umptcp_testbed::limit::within;
use umptcp_testbed::topology::{Bridged, Family, Routed, both_ways, bridged};
use umptcp_testbed::traffic::until_each;

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(90);

/// One of two paths drops everything during the transfer and recovers when the other has carried 8 MiB alone.
fn silence_and_return(net: &Routed, client: &dyn Endpoint, server: &dyn Endpoint, path: usize) {
    net.shape_client(0, 100.0);
    net.shape_client(1, 100.0);
    let other = 1 - path;
    let pair = connect(client, server, net.server.nics[0].socket_address(Family::V4, 4000));
    pair.exchange_while(48 * MIB, || {
        net.wait_client_link(path, 2 * MIB);
        net.silence(path, true);
        let cut = net.client_link_bytes();
        net.wait_client_link(other, cut[other].to_client + 8 * MIB);
        let later = net.client_link_bytes();
        // Only what was in the router's queue may still have been sent.
        assert!(
            later[path].to_client - cut[path].to_client < MIB,
            "the silent path carried {cut:?} to {later:?}"
        );
        net.silence(path, false);
    });
}

#[test]
fn our_first_path_falls_silent_and_returns() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        net.server.use_kernel_mptcp();
        let client = UmptcpHost::new(&net.client, Mode::Nat);
        silence_and_return(&net, &client, &KernelHost::new(&net.server.ns, Kind::Mptcp), 0);
    });
}

#[test]
fn our_second_path_falls_silent_and_returns() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        net.server.use_kernel_mptcp();
        let client = UmptcpHost::new(&net.client, Mode::Nat);
        silence_and_return(&net, &client, &KernelHost::new(&net.server.ns, Kind::Mptcp), 1);
    });
}

#[test]
fn a_kernel_clients_path_falls_silent_and_returns() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        net.client.use_kernel_mptcp();
        let server = UmptcpHost::new(&net.server, Mode::Nat);
        silence_and_return(&net, &KernelHost::new(&net.client.ns, Kind::Mptcp), &server, 0);
    });
}

#[test]
fn between_umptcp_a_path_falls_silent_and_returns() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        let client = UmptcpHost::new(&net.client, Mode::Nat);
        let server = UmptcpHost::new(&net.server, Mode::Nat);
        silence_and_return(&net, &client, &server, 0);
    });
}

/// Both client NICs and the server in one subnet, no gateway, strict reverse-path filtering: each subflow
/// leaves through its own NIC.
fn one_subnet(net: &Bridged, family: Family) {
    kernel::set_limits(&net.server.ns, 8);
    net.shape(200.0);
    net.client.ns.sysctl("net.ipv4.conf.all.rp_filter", "1");
    let capture = Capture::start(&net.switch, &["b-c0", "b-c1"]);
    let client = UmptcpHost::new(&net.client, Mode::Nat);
    let server = KernelHost::new(&net.server.ns, Kind::Mptcp);
    let pair = connect(&client, &server, net.server.nics[0].socket_address(family, 4000));
    pair.exchange_while(16 * MIB, || until_each(|| both_ways(&net.client_link_bytes()), 4 * MIB));
    let packets = capture.stop();
    for nic in &net.client.nics {
        let address = nic.address(family);
        let field = if address.is_ipv4() { "ip.src" } else { "ipv6.src" };
        let strangers = format!(
            "tcp.dstport == 4000 && frame.interface_name == \"{}\" && {field} != {address}",
            nic.far_device
        );
        assert_eq!(packets.count(&strangers), 0, "from the wrong NIC:\n{}", packets.describe(&strangers));
    }
}

#[test]
fn two_nics_of_one_subnet_without_gateway_ipv4() {
    within(LIMIT, || one_subnet(&bridged(), Family::V4));
}

#[test]
fn two_nics_of_one_subnet_without_gateway_ipv6() {
    within(LIMIT, || one_subnet(&bridged(), Family::V6));
}

/// Bytes per second from us to the kernel over `nics` paths of 3 Mbit/s.
fn rate_over(nics: u8, length: u64) -> f64 {
    let net = Routed::new(nics, 1);
    net.server.use_kernel_mptcp();
    for nic in 0..nics {
        net.shape_client(usize::from(nic), 3.0);
    }
    let client = UmptcpHost::new(&net.client, Mode::Nat);
    let server = KernelHost::new(&net.server.ns, Kind::Mptcp);
    let pair = connect(&client, &server, net.server.nics[0].socket_address(Family::V4, 4000));
    let stream = Seeded { seed: 3, length };
    let start = Instant::now();
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| send_all(&*pair.client, stream));
        receive_all(&*pair.server, stream).expect("every byte arrives");
        sending.join().expect("no panic").expect("every byte is taken");
    });
    length as f64 / start.elapsed().as_secs_f64()
}

#[test]
fn three_slow_paths_add_up() {
    within(LIMIT, || {
        let one = rate_over(1, MIB);
        let three = rate_over(3, 3 * MIB);
        assert!(three > 2.0 * one, "one path {one:.0} B/s, three paths {three:.0} B/s");
    });
}

/// A NIC whose queue takes half a second of its rate: no more than some milliseconds of it are ours. Linux's own
/// sockets keep as little there.
#[test]
fn the_queue_of_a_nic_is_not_filled() {
    within(LIMIT, || {
        let net = Routed::new(1, 1);
        net.server.use_kernel_mptcp();
        net.client.ns.sh("tc qdisc add dev c0 root tbf rate 50mbit burst 20kb latency 500ms");
        let client = UmptcpHost::new(&net.client, Mode::Nat);
        let server = KernelHost::new(&net.server.ns, Kind::Mptcp);
        let pair = connect(&client, &server, net.server.nics[0].socket_address(Family::V4, 4000));
        let waiting = || {
            let shown = net.client.ns.sh("tc -j -s qdisc show dev c0");
            let queues: serde_json::Value = serde_json::from_str(&shown).expect("tc speaks JSON");
            queues[0]["backlog"].as_u64().expect("a queue has a backlog")
        };
        pair.exchange_while(2 * MIB, || {
            net.wait_server_bytes(2 * MIB);
            let samples: Vec<u64> = (0..30)
                .map(|_| {
                    std::thread::sleep(Duration::from_millis(20));
                    waiting()
                })
                .collect();
            let mut sorted = samples.clone();
            sorted.sort_unstable();
            // 4 ms are 25 kB, and what a sender that is woken late may add.
            assert!(sorted[15] < 200_000, "{samples:?}");
            assert!(sorted[29] > 0, "nothing ever waits: the transfer does not fill the path");
        });
    });
}

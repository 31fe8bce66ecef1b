//! What MP_CAPABLE negotiates: checksums, the C flag, and stateless servers (RFC 8684 §3.1).

use super::*;
use crate::umptcp_host::Mode;
use umptcp::ConnectionConfig;
use umptcp_testbed::capture::Capture;
use umptcp_testbed::limit::within;

/// Every mapping has a checksum, and all are correct.
fn with_checksums(
    net: &Routed,
    kernel: &Netns,
    client: &dyn Endpoint,
    server: &dyn Endpoint,
    ours: &UmptcpHost,
) {
    let capture = Capture::start(&net.router, &["r-c0", "r-c1"]);
    let pair = connected(net, client, server);
    pair.exchange(4 * MIB);
    let packets = capture.stop();
    packets.assert_well_formed();
    let mappings = "tcp.options.mptcp.dseqnpresent.flag == 1";
    assert!(packets.count(mappings) > 20, "only {} mappings", packets.count(mappings));
    // 4 bytes, 4 or 8 for each of two numbers, 4 and 2 for subflow sequence number and length; a checksum
    // makes it a multiple of four.
    let bare = format!("{mappings} && tcp.option_len in {{14, 18, 22, 26}}");
    assert_eq!(packets.count(&bare), 0, "mappings without checksum:\n{}", packets.describe(&bare));
    assert_eq!(Counters::read(kernel).mptcp("DataCsumErr"), 0);
    assert_eq!(ours.counter("DataCsumErr"), 0);
    Counters::read(kernel).assert_untroubled();
    same_story(ours, kernel);
}

fn checksums_of_a_server(kernel_requires: bool) {
    let net = Routed::new(2, 1);
    let server = kernel_server(&net);
    if kernel_requires {
        net.server.ns.sysctl("net.mptcp.checksum_enabled", "1");
    }
    let config = ConnectionConfig::default().with_checksum(!kernel_requires);
    let client = UmptcpHost::with(&net.client, Mode::Nat, config);
    with_checksums(&net, &net.server.ns, &client, &server, &client);
}

fn checksums_of_a_client(kernel_requires: bool) {
    let net = Routed::new(2, 1);
    let client = kernel_client(&net);
    if kernel_requires {
        net.client.ns.sysctl("net.mptcp.checksum_enabled", "1");
    }
    let config = ConnectionConfig::default().with_checksum(!kernel_requires);
    let server = UmptcpHost::with(&net.server, Mode::Nat, config);
    with_checksums(&net, &net.client.ns, &client, &server, &server);
}

#[test]
fn checksums_that_the_kernel_server_requires() {
    within(LIMIT, || checksums_of_a_server(true));
}

#[test]
fn checksums_that_we_require_of_a_kernel_server() {
    within(LIMIT, || checksums_of_a_server(false));
}

#[test]
fn checksums_that_the_kernel_client_requires() {
    within(LIMIT, || checksums_of_a_client(true));
}

#[test]
fn checksums_that_we_require_of_a_kernel_client() {
    within(LIMIT, || checksums_of_a_client(false));
}

#[test]
fn no_join_to_an_address_that_the_kernel_denies() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        let server = kernel_server(&net);
        net.server.ns.sysctl("net.mptcp.allow_join_initial_addr_port", "0");
        let client = UmptcpHost::new(&net.client, Mode::Nat);
        connected(&net, &client, &server).exchange(4 * MIB);
        assert_eq!(client.counter("MPJoinSynTx"), 0, "it joined: {}", client.counters());
        same_story(&client, &net.server.ns);
    });
}

#[test]
fn joins_go_to_the_address_signalled_instead_of_the_denied_one() {
    within(LIMIT, || {
        let net = Routed::new(1, 2);
        let server = kernel_server(&net);
        net.server.ns.sysctl("net.mptcp.allow_join_initial_addr_port", "0");
        net.server.ns.script(&format!(
            "ip mptcp endpoint flush
             ip mptcp endpoint add {} dev s1 signal",
            net.server.nics[1].v4
        ));
        let client = UmptcpHost::new(&net.client, Mode::Nat);
        let pair = connected(&net, &client, &server);
        wait_ours(&client, "MPJoinSynAckRx", 1);
        pair.exchange(4 * MIB);
        assert_eq!(client.counter("MPJoinSynTx"), 1, "{}", client.counters());
        same_story(&client, &net.server.ns);
    });
}

#[test]
fn the_kernel_does_not_join_an_address_that_we_deny() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        let client = kernel_client(&net);
        let config = ConnectionConfig::default().with_allow_join_initial(false);
        let server = UmptcpHost::with(&net.server, Mode::Nat, config);
        connected(&net, &client, &server).exchange(4 * MIB);
        assert_eq!(server.counter("MPJoinSynRx"), 0, "it joined: {}", server.counters());
        same_story(&server, &net.client.ns);
    });
}

#[test]
fn a_kernel_server_that_keeps_no_state() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        let server = kernel_server(&net);
        // 2 means a SYN cookie for every SYN.
        net.server.ns.sysctl("net.ipv4.tcp_syncookies", "2");
        let client = UmptcpHost::new(&net.client, Mode::Nat);
        let pair = connected(&net, &client, &server);
        pair.exchange(8 * MIB);
        assert_eq!(pair.client.is_mptcp(), Some(true));
        let counters = Counters::read(&net.server.ns);
        assert!(counters.get("TcpExtSyncookiesRecv") >= 1, "no cookie came back");
        counters.assert_untroubled();
        assert_eq!(counters.mptcp("MPJoinAckRx"), 1, "no join; {counters}; ours: {}", client.counters());
        same_story(&client, &net.server.ns);
    });
}

//! Joins to a port that is neither the first subflow's nor advertised are refused, and the connection
//! continues.

use super::*;
use crate::umptcp_host::{Mode, Stream};
use umptcp_testbed::kernel::wait_for;
use umptcp_testbed::limit::within;

/// The port that joins from the client's second NIC are diverted to.
const ASTRAY: u16 = PORT + 1;

/// Diverts packets from the client's second NIC to another port of the server's address.
fn lead_astray(net: &Routed, server: IpAddr) {
    net.router.nft(&format!(
        "table ip astray {{
           chain prerouting {{
             type nat hook prerouting priority dstnat;
             iifname r-c1 tcp dport {PORT} dnat to {server}:{ASTRAY}
           }}
         }}"
    ));
}

#[test]
fn a_kernel_client_that_joins_another_port_of_ours_is_refused() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        let client = kernel_client(&net);
        // In routed mode, packets to any port of the address reach the stack.
        let server = UmptcpHost::new(&net.server, Mode::Routed);
        let address = SocketAddr::new(net.server.nics[0].routed_address(Family::V4), PORT);
        lead_astray(&net, address.ip());
        // A listener on the port does not make it a port of this connection.
        let beside = server.listener(SocketAddr::new(address.ip(), ASTRAY)).expect("the port is free");
        let pair = connect(&client, &server, address);
        hello(&*pair.client, &*pair.server);
        wait_ours(&server, "MismatchPortSynRx", 1);
        pair.exchange(4 * MIB);
        assert_eq!(pair.server.is_mptcp(), Some(true));
        let theirs = Counters::read(&net.client.ns);
        let story = format!("ours: {}; the kernel's: {theirs}", server.counters());
        assert!(theirs.mptcp("MPJoinSynTx") >= 1 && theirs.mptcp("MPJoinSynAckRx") == 0, "{story}");
        assert_eq!(server.counter("MPJoinSynRx"), server.counter("MismatchPortSynRx"), "{story}");
        assert_eq!(server.counter("MPJoinAckRx") + theirs.mptcp("MPCapableFallbackSYNACK"), 0, "{story}");
        // A connection to the other listener succeeds.
        let other = KernelHost::new(&net.client.ns, Kind::Mptcp);
        let other = other.connect(SocketAddr::new(address.ip(), ASTRAY)).expect("somebody listens");
        let accepted = Stream(beside.accept().expect("one is there").0);
        hello(&*other, &accepted);
    });
}

#[test]
fn our_join_to_another_port_of_the_kernels_is_refused() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        let server = kernel_server(&net);
        let address = server_address(&net, Family::V4);
        lead_astray(&net, address.ip());
        let _beside = server.listen(SocketAddr::new(address.ip(), ASTRAY)).expect("the port is free");
        let client = UmptcpHost::new(&net.client, Mode::Nat);
        let pair = connected(&net, &client, &server);
        wait_for(&net.server.ns, "refused", |c| c.mptcp("MismatchPortSynRx") >= 1);
        pair.exchange(4 * MIB);
        assert_eq!(pair.client.is_mptcp(), Some(true));
        let theirs = Counters::read(&net.server.ns);
        let story = format!("ours: {}; the kernel's: {theirs}", client.counters());
        assert_eq!((client.counter("MPJoinSynAckRx"), theirs.mptcp("MPJoinAckRx")), (0, 0), "{story}");
        assert_eq!(client.counter("MPJoinSynTx"), theirs.mptcp("MismatchPortSynRx"), "{story}");
    });
}

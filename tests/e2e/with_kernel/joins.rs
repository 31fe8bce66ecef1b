//! What a join triggers in a kernel server.

use super::*;
use crate::umptcp_host::{Mode, Stream};
use std::thread;
use umptcp_testbed::exchange::{Seeded, receive_all, send_all, send_bytes};
use umptcp_testbed::kernel::KernelListener;
use umptcp_testbed::limit::within;

/// Linux answers the third ACK of a join immediately, but adds the subflow to its connection only when the
/// program releases the socket. A program that sends into a large buffer holds it for as long as copying
/// takes. See docs/src/tests.md, "A defect of Linux".
#[test]
fn data_behind_a_join_reach_a_busy_kernel_in_order() {
    const CONNECTIONS: u64 = 8;
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        // Slow enough that no data arrives on the first path while the second joins.
        net.shape_client_upwards(0, 1.0);
        net.server.use_kernel_mptcp();
        let client = UmptcpHost::new(&net.client, Mode::Nat);
        let address = server_address(&net, Family::V4);
        let listener =
            net.server.ns.run(|| KernelListener::bind(address, Kind::Mptcp)).expect("the port is free");
        for seed in 0..CONNECTIONS {
            let ours = Stream(client.stream(address).expect("the kernel listens"));
            let theirs = listener.accept().expect("one is there");
            theirs.socket().set_send_buffer_size(8 << 20).expect("SO_SNDBUF can be set");
            let upload = Seeded { seed, length: MIB / 4 };
            let download = Seeded { seed: 100 + seed, length: 8 * MIB };
            let whole = download.bytes();
            let verdicts = thread::scope(|scope| {
                let ends = [
                    scope.spawn(|| send_all(&ours, upload)),
                    scope.spawn(|| receive_all(&ours, download)),
                    scope.spawn(|| receive_all(&theirs, upload)),
                    // In a single call: with several, the socket would be released in between.
                    scope.spawn(|| send_bytes(&theirs, &whole)),
                ];
                ends.map(|end| end.join().expect("no panic"))
            });
            assert_eq!(verdicts, [const { Ok(()) }; 4], "connection {seed}; {}", client.counters());
        }
        assert_eq!(client.counter("MPJoinSynAckRx"), CONNECTIONS, "{}", client.counters());
    });
}

//! What a join sets going at a kernel's server.

use super::*;
use crate::umptcp_host::{Mode, Stream};
use std::thread;
use umptcp_tests::exchange::{Seeded, receive_all, send_all, send_bytes, within};
use umptcp_tests::kernel::KernelListener;

/// Linux answers the third ACK of a join at once, but the subflow belongs to its connection only when the program lets go of
/// the socket. A program that has much room to send into holds it for as long as it takes to copy that much. See
/// docs/src/tests.md, "A defect of Linux".
#[test]
fn data_behind_a_join_reach_a_busy_kernel_in_order() {
    const CONNECTIONS: u64 = 8;
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        // So slow that no data of the first path come while the second joins.
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
                    // In one go: piece by piece it would let go in between.
                    scope.spawn(|| send_bytes(&theirs, &whole)),
                ];
                ends.map(|end| end.join().expect("no panic"))
            });
            assert_eq!(verdicts, [const { Ok(()) }; 4], "connection {seed}; {}", client.counters());
        }
        assert_eq!(client.counter("MPJoinSynAckRx"), CONNECTIONS, "{}", client.counters());
    });
}

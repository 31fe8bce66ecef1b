//! A captive portal: a firewall on one of two ways redirects TCP to a server of its own, which speaks no MPTCP.

use crate::umptcp_host::{Mode, PORT, UmptcpHost};
use std::time::Duration;
use umptcp_testbed::endpoint::{Endpoint, KernelHost, Pair};
use umptcp_testbed::kernel::{Counters, Kind};
use umptcp_testbed::limit::within;
use umptcp_testbed::topology::{Family, Routed};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(90);

#[test]
fn a_portal_on_the_first_path_is_not_taken_for_the_server() {
    for family in [Family::V4, Family::V6] {
        within(LIMIT, move || {
            let net = Routed::new(2, 1);
            let device = &net.client.nics[0].far_device;
            net.router.nft(&format!(
                "table inet portal {{
                   chain redirected {{
                     type nat hook prerouting priority dstnat;
                     iifname {device} tcp dport {PORT} redirect to :{PORT}
                   }}
                 }}"
            ));
            net.server.use_kernel_mptcp();
            let address = net.server.nics[0].socket_address(family, PORT);
            let listener =
                KernelHost::new(&net.server.ns, Kind::Mptcp).listen(address).expect("the port is free");
            let any = match family {
                Family::V4 => ([0, 0, 0, 0], PORT).into(),
                Family::V6 => ([0_u16; 8], PORT).into(),
            };
            let _portal = KernelHost::new(&net.router, Kind::Tcp).listen(any).expect("the port is free");
            let client = UmptcpHost::new(&net.client, Mode::Nat);
            let ours = client.connect(address).expect("the server listens");
            assert_eq!(ours.is_mptcp(), Some(true), "{}", client.counters());
            assert_eq!(client.counter("MPCapableFallbackSYNACK"), 1, "the portal was asked first");
            let theirs = listener.accept().expect("one is there");
            let pair = Pair { client: ours, server: theirs, listener };
            pair.exchange(4 * MIB);
            assert_eq!(Counters::read(&net.server.ns).mptcp("MPCapableACKRX"), 1);
        });
    }
}

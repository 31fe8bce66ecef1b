//! Hosts behind this one.

use super::capture::by_mptcp;
use super::{Daemon, LIMIT, RESTORED_WITHIN, both, configuration, network, python, up, wait_for_port};
use std::io::Write as _;
use std::time::Duration;
use umptcp_testbed::Netns;
use umptcp_testbed::host::Snapshot;
use umptcp_testbed::kernel::Counters;
use umptcp_testbed::limit::within;
use umptcp_testbed::netns::veth;
use umptcp_testbed::program::{self, Background};
use umptcp_testbed::topology::Routed;

/// Both NICs lead outside.
const GATEWAY: &str = "[[path]]\ndevice = \"c0\"\n[[path]]\ndevice = \"c1\"\n[gateway]\nlan = [\"lan0\"]\n";

/// A host that has its network from the client, which translates what leaves, as home routers do.
fn behind(net: &Routed) -> Netns {
    let (ns, lan) = (&net.client.ns, Netns::new("lan"));
    veth(ns, "lan0", &lan, "e0");
    ns.script(
        "ip addr add 192.168.50.1/24 dev lan0
         ip addr add fd50::1/64 dev lan0 nodad",
    );
    lan.script(
        "ip addr add 192.168.50.2/24 dev e0
         ip addr add fd50::2/64 dev e0 nodad
         ip route add default via 192.168.50.1
         ip -6 route add default via fd50::1",
    );
    ns.sysctl("net.ipv4.ip_forward", "1");
    ns.sysctl("net.ipv6.conf.all.forwarding", "1");
    ns.nft(
        "table inet nat {
         chain post {
         type nat hook postrouting priority 100
         oifname \"c*\" masquerade
         }
         }",
    );
    lan
}

#[test]
fn connections_of_a_lan_go_over_both_nics_and_everything_else_as_before() {
    within(LIMIT, || {
        let net = network(2);
        let (ns, server) = (&net.client.ns, &net.server.nics[0]);
        let lan = behind(&net);
        ns.sysctl("net.ipv4.conf.all.rp_filter", "1");
        [0, 1].iter().for_each(|nic| net.shape_client(*nic, 40.0));
        let before = Snapshot::take(ns);
        let _server = Background::start(&net.server.ns, "bench server --stack kernel-mptcp [::]:8684");
        wait_for_port(&net.server.ns, 8684);
        let measure = |from: &Netns, to: &str, size: &str| {
            let line =
                format!("bench client --stack kernel-tcp {to} --bytes {size} --direction both --verify");
            let (said, code) = both(&program::run(from, &line));
            assert_eq!(code, Some(0), "{to}: {said}");
        };
        let (v4, v6) = (server.v4.to_string(), server.v6.to_string());
        measure(&lan, &v4, "64Ki");
        assert_eq!(by_mptcp(&net), 0);
        // One from before goes on.
        let mut old = listen(&net, &lan, &v4);
        assert_eq!(old.next_line(), "connected");
        let daemon = Daemon::start(ns, GATEWAY);
        let reserved = ns.read("/proc/sys/net/ipv4/ip_local_reserved_ports");
        assert!(reserved.trim().ends_with("-60999"), "the port of the connection from before: {reserved}");
        measure(&lan, &v4, "8Mi");
        measure(&lan, &v6, "8Mi");
        assert_eq!(by_mptcp(&net), 2);
        assert!(Counters::read(&net.server.ns).mptcp("MPJoinAckRx") >= 1);
        // The host's own connections, its servers, failures, and other protocols.
        measure(ns, &v4, "64Ki");
        assert_eq!(by_mptcp(&net), 2);
        let own = ns
            .spawn(|| std::net::TcpListener::bind("192.168.50.1:7"))
            .join()
            .expect("a thread")
            .expect("a port");
        let script = format!(
            "
import socket
print(socket.create_connection(('192.168.50.1', 7), 20).getpeername()[0])
try: socket.create_connection(('{v4}', 9), 20)
except OSError as e: print(e.errno)
"
        );
        let (code, said, errors) = python(&lan, &script).finish();
        assert_eq!(
            (code, String::from_utf8_lossy(&said).as_ref()),
            (Some(0), "192.168.50.1\n111\n"),
            "{errors}"
        );
        drop(own);
        assert!(lan.sh(&format!("ping -c 2 -i 0.2 -W 2 {v4}")).contains("2 received"));
        let (_, said, errors) = old.finish();
        assert_eq!(String::from_utf8_lossy(&said), "done\n", "the connection from before: {errors}");
        daemon.down(ns);
        measure(&lan, &v4, "64Ki");
        assert_eq!(by_mptcp(&net), 2);
        before.assert_restored(ns, RESTORED_WITHIN);
    });
}

/// A client behind the gateway that is told something by the other end for some seconds, and says nothing
/// itself: the first packet of the connection that passes comes from outside.
fn listen(net: &Routed, lan: &Netns, to: &str) -> Background {
    net.server.ns.spawn(|| {
        let listener = std::net::TcpListener::bind("0.0.0.0:7").expect("a port");
        let (mut stream, _) = listener.accept().expect("a client");
        // Until it ends.
        while stream.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    wait_for_port(&net.server.ns, 7);
    python(
        lan,
        &format!(
            "
import socket
s = socket.create_connection(('{to}', 7), 20, ('', 60900))
print('connected')
for _ in range(250): assert s.recv(1) == b'x'
print('done')
"
        ),
    )
}

#[test]
fn a_host_that_does_not_forward_is_no_gateway() {
    within(LIMIT, || {
        let net = network(1);
        let ns = &net.client.ns;
        let lan = Netns::new("lan");
        veth(ns, "lan0", &lan, "e0");
        let before = Snapshot::take(ns);
        let (_, folder) = configuration("[[path]]\ndevice = \"c0\"\n[gateway]\nlan = [\"lan0\"]\n");
        let (code, _, said) = Background::spawn(ns, up(&folder)).finish();
        assert!(code == Some(3) && said.contains("net.ipv4.ip_forward=1"), "{said}");
        before.assert_restored(ns, RESTORED_WITHIN);
    });
}

/// Masquerading keeps a client's port, also one that the stack has reserved.
#[test]
fn connections_that_the_host_translates_itself_keep_their_ports() {
    within(LIMIT, || {
        let net = network(2);
        let (ns, server) = (&net.client.ns, &net.server.nics[0]);
        let lan = behind(&net);
        let _server = Background::start(&net.server.ns, "bench server --stack kernel-mptcp [::]:8684");
        wait_for_port(&net.server.ns, 8684);
        let daemon = Daemon::start(ns, GATEWAY.split_once("[gateway]").expect("paths first").0);
        let reserved = ns.read("/proc/sys/net/ipv4/ip_local_reserved_ports");
        let first: u16 =
            reserved.split('-').next().and_then(|p| p.trim().parse().ok()).expect("ports are reserved");
        let script = format!(
            "
import socket
for n, host in enumerate(('{}', '{}')):
    s = socket.create_connection((host, 8684), 10, ('', {} + n))
    print(s.getpeername()[0])
    s.close()
",
            server.v4,
            server.v6,
            first + 10
        );
        let (code, said, errors) = python(&lan, &script).finish();
        let both = format!("{}\n{}\n", server.v4, server.v6);
        assert_eq!((code, String::from_utf8_lossy(&said).as_ref()), (Some(0), both.as_str()), "{errors}");
        daemon.down(ns);
    });
}

//! Peers that vanish, invalid segments, and closed ports.

use crate::umptcp_host::{Mode, PORT, UmptcpHost};
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;
use umptcp::ConnectionConfig;
use umptcp_testbed::endpoint::{Endpoint, KernelHost, connect};
use umptcp_testbed::exchange::Conversation;
use umptcp_testbed::host::Snapshot;
use umptcp_testbed::inject::{self, Segment};
use umptcp_testbed::kernel::{Counters, KernelStream, Kind};
use umptcp_testbed::limit::within;
use umptcp_testbed::topology::{Family, Routed};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(60);

/// Times out after 2 s without an answer.
fn impatient() -> ConnectionConfig {
    let short = Duration::from_secs(2);
    ConnectionConfig::default().with_user_timeout(short)
}

/// Sends until the connection reports an error.
fn send_until_error(end: &dyn Conversation) -> io::Error {
    let data = vec![0x5a; 1 << 16];
    loop {
        if let Err(e) = end.send(&data) {
            return e;
        }
    }
}

#[test]
fn a_peer_that_vanishes_ends_the_connection_after_the_user_timeout() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        net.server.use_kernel_mptcp();
        let untouched = Snapshot::take(&net.client.ns);
        let config = impatient();
        let client = UmptcpHost::with(&net.client, Mode::Nat, config);
        let server = KernelHost::new(&net.server.ns, Kind::Mptcp);
        let pair = connect(&client, &server, net.server.nics[0].socket_address(Family::V4, PORT));
        // The kernel's end does not notice and keeps waiting; its thread ends with the process.
        let server_end: Arc<dyn Conversation> = pair.server.into();
        std::thread::spawn(move || while server_end.receive(&mut [0; 1 << 16]).is_ok_and(|n| n > 0) {});
        let error = std::thread::scope(|scope| {
            let sending = scope.spawn(|| send_until_error(&*pair.client));
            net.wait_server_bytes(MIB);
            net.silence(0, true);
            net.silence(1, true);
            sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        drop(pair.client);
        drop(client);
        untouched.assert_restored(&net.client.ns, Duration::from_secs(5));
    });
}

#[test]
fn a_client_that_vanishes_ends_the_connection_after_the_user_timeout() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        net.client.use_kernel_mptcp();
        let config = impatient();
        let server = UmptcpHost::with(&net.server, Mode::Routed, config);
        let client = KernelHost::new(&net.client.ns, Kind::Mptcp);
        let address = SocketAddr::new(net.server.nics[0].routed_address(Family::V4), PORT);
        let pair = connect(&client, &server, address);
        net.silence(0, true);
        net.silence(1, true);
        let error = send_until_error(&*pair.server);
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    });
}

#[test]
fn malformed_segments_disturb_nobody() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        net.client.use_kernel_mptcp();
        net.shape_client(0, 100.0);
        net.shape_client(1, 100.0);
        // In routed mode, so that no connection tracking on the path drops them.
        let server = UmptcpHost::new(&net.server, Mode::Routed);
        let listener = {
            let any = SocketAddr::new(net.server.nics[0].routed_address(Family::V4), PORT);
            server.listen(any).expect("the port is free")
        };
        let to = SocketAddrV4::new(net.server.nics[0].routed_v4, PORT);
        let stream = net.client.ns.run(|| KernelStream::connect(to.into(), Kind::Mptcp)).expect("it listens");
        let local = stream.socket().local_addr().expect("connected").as_socket_ipv4().expect("over IPv4");
        let pair = umptcp_testbed::endpoint::Pair {
            client: Box::new(stream),
            server: listener.accept().expect("one is there"),
            listener,
        };
        // To the listener from an unknown source, and into the connection from one that cannot know its
        // sequence numbers.
        let stranger = SocketAddrV4::new(*local.ip(), 5000);
        let mut segments = inject::malformed(stranger, to, 1, 1);
        segments.extend(inject::malformed(local, to, 0x8000_0000, 0x8000_0000));
        pair.exchange_while(16 * MIB, || {
            for some in segments.chunks(50) {
                inject::send(&net.client.ns, some);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        assert!(server.counter("TcpInErrs") > 0, "no broken header was counted");
        assert!(server.counter("TcpInCsumErrors") > 0, "no wrong checksum was counted");
        Counters::read(&net.client.ns).assert_untroubled();
        // The next connection is served as usual.
        drop(pair);
        let client = KernelHost::new(&net.client.ns, Kind::Mptcp);
        connect(&client, &server, to.into()).exchange(MIB);
    });
}

#[test]
fn a_closed_port_answers_with_a_reset() {
    within(LIMIT, || {
        let net = Routed::new(1, 1);
        let server = UmptcpHost::new(&net.server, Mode::Routed);
        for family in [Family::V4, Family::V6] {
            let closed = SocketAddr::new(net.server.nics[0].routed_address(family), 4001);
            for kind in [Kind::Mptcp, Kind::Tcp] {
                let error =
                    net.client.ns.run(|| KernelStream::connect(closed, kind)).expect_err("nothing listens");
                assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{closed} by {kind:?}: {error}");
            }
        }
        assert_eq!(server.counter("TcpOutRsts"), 4);
        // RFC 9293 §3.10.7.1: a RST is never answered, an ACK by a RST with its number.
        let from = SocketAddrV4::new(net.client.nics[0].v4, 5000);
        let to = SocketAddrV4::new(net.server.nics[0].routed_v4, 4001);
        let reset = Segment { flags: inject::RST, ..Segment::new(from, to) };
        inject::send(&net.client.ns, &[reset, Segment::new(from, to)]);
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while server.counter("TcpOutRsts") < 5 {
            assert!(std::time::Instant::now() < deadline, "the ACK was not answered");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(server.counter("TcpOutRsts"), 5);
    });
}

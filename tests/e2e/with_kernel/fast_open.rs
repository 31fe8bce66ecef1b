//! TCP Fast Open with MPTCP (RFC 7413, RFC 8684 appendix B), and our server with SYN cookies (RFC 8684 §3.1).

use super::*;
use crate::umptcp_host::{Listening, Mode};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::thread;
use umptcp::{ConnectionConfig, SynCookiePolicy};
use umptcp_testbed::capture::{Capture, Packets, Temporary};
use umptcp_testbed::kernel::wait_for;
use umptcp_testbed::limit::within;
use umptcp_testbed::program::{self, Background};

/// The first data of each connection.
const FIRST: &[u8] = b"what goes with the SYN";
/// A SYN with data.
const SYN_DATA: &str = "tcp.flags.syn == 1 && tcp.flags.ack == 0 && tcp.len > 0";
/// Client and server.
type Ends = (Box<dyn Conversation>, Box<dyn Conversation>);

fn receive_exactly(end: &dyn Conversation, expected: &[u8]) {
    let mut got = Vec::new();
    let mut buffer = [0; 64];
    while got.len() < expected.len() {
        let room = buffer.len().min(expected.len() - got.len());
        match end.receive(&mut buffer[..room]).expect("the connection stands") {
            0 => panic!("the stream ends after {got:?}"),
            n => got.extend_from_slice(&buffer[..n]),
        }
    }
    assert_eq!(got, expected);
}

/// A connection on which the client has sent [`FIRST`] and the server has received it.
fn begun(client: &dyn Endpoint, listener: &dyn Listener, address: SocketAddr) -> Ends {
    thread::scope(|scope| {
        let accepting = scope.spawn(|| listener.accept());
        let client = client.connect(address).unwrap_or_else(|e| panic!("cannot connect to {address}: {e}"));
        assert_eq!(client.send(FIRST).expect("the connection stands"), FIRST.len());
        let server = accepting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let server = server.unwrap_or_else(|e| panic!("cannot accept on {address}: {e}"));
        receive_exactly(&*server, FIRST);
        (client, server)
    })
}

/// Both ends close, and see the end of the other's stream.
fn finished((client, server): Ends) {
    for end in [&client, &server] {
        end.finish().expect("the connection stands");
    }
    for end in [client, server] {
        assert_eq!(end.receive(&mut [0; 8]).expect("the connection stands"), 0);
    }
}

/// A kernel server that accepts Fast Open on every listener (0x400, which implies TCP_FASTOPEN on each).
fn fast_kernel_server(net: &Routed) -> BothFamilies {
    net.server.ns.sysctl("net.ipv4.tcp_fastopen", "1027");
    kernel_server(net)
}

fn fast_kernel_client(net: &Routed) -> KernelHost {
    net.client.ns.sysctl("net.ipv4.tcp_fastopen", "1");
    kernel_client(net).with_fast_open()
}

fn fast_client(net: &Routed, checksum: bool) -> UmptcpHost {
    let config = ConnectionConfig::default().with_fast_open(true).with_checksum(checksum);
    UmptcpHost::with(&net.client, Mode::Nat, config)
}

fn fast_listener(server: &UmptcpHost, address: SocketAddr) -> Box<dyn Listener> {
    let listener = server.listener_with(address, |builder| builder.fast_open(16)).expect("listen");
    Box::new(Listening(listener))
}

fn captured(net: &Routed) -> Capture {
    Capture::start(&net.router, &["r-c0", "r-c1"])
}

/// A connection that requests a cookie, and one that uses it for a transfer with joins. `joined` waits for
/// the join of the first, which would be refused once the connection has ended.
fn twice(client: &dyn Endpoint, listener: Box<dyn Listener>, address: SocketAddr, joined: impl Fn()) {
    let (first_client, first_server) = begun(client, &*listener, address);
    hello(&*first_client, &*first_server);
    joined();
    finished((first_client, first_server));
    let (client, server) = begun(client, &*listener, address);
    Pair { client, server, listener }.exchange(4 * MIB);
}

/// One SYN carried data, and no mapping of that connection covers it: the first mapping starts after the
/// SYN's data.
fn assert_outside_the_data_sequence_space(packets: &Packets) {
    packets.assert_well_formed();
    let syns = packets.select(SYN_DATA, &["tcp.stream", "tcp.srcport", "tcp.len"]);
    let [syn] = &syns[..] else { panic!("{}", packets.describe("tcp.flags.syn == 1")) };
    assert_eq!(syn[2], FIRST.len().to_string());
    let after =
        format!("tcp.stream == {} && tcp.srcport == {} && tcp.flags.syn == 0 && tcp.len > 0", syn[0], syn[1]);
    let covered = format!("{after} && tcp.seq <= {}", FIRST.len());
    assert_eq!(packets.count(&covered), 0, "{}", packets.describe(&covered));
    let next = packets
        .select(&format!("{after} && tcp.seq == {}", FIRST.len() + 1), &["tcp.options.mptcp.subflowseqno"]);
    // The first data may carry MP_CAPABLE, which has no subflow sequence number.
    assert!(next.first().is_some_and(|f| matches!(&f[0][..], "" | "1")), "{next:?}");
}

fn our_request(checksum: bool) {
    let net = Routed::new(2, 1);
    let server = fast_kernel_server(&net);
    let client = fast_client(&net, checksum);
    let address = server_address(&net, Family::V4);
    let capture = captured(&net);
    twice(&client, server.listen(address).expect("listen"), address, || {
        wait_for(&net.server.ns, "joined", |c| c.mptcp("MPJoinAckRx") == 1);
    });
    assert_outside_the_data_sequence_space(&capture.stop());
    let theirs = Counters::read(&net.server.ns);
    assert_eq!(theirs.get("TcpExtTCPFastOpenCookieReqd"), 1);
    assert_eq!(theirs.get("TcpExtTCPFastOpenPassive"), 1);
    assert_eq!(client.counter("TcpFastOpenActive"), 1, "{}", client.counters());
    assert_eq!(theirs.mptcp("MPCapableACKRX"), 2, "{theirs}; ours: {}", client.counters());
    assert!(theirs.mptcp("MPJoinAckRx") >= 2, "no join; {theirs}; ours: {}", client.counters());
    theirs.assert_untroubled();
    same_story(&client, &net.server.ns);
}

#[test]
fn our_request_goes_with_the_syn() {
    within(LIMIT, || our_request(false));
}

#[test]
fn our_request_goes_with_the_syn_and_checksums_cover_the_rest() {
    within(LIMIT, || our_request(true));
}

fn the_kernels_request(checksum: bool) {
    let net = Routed::new(2, 1);
    let client = fast_kernel_client(&net);
    let config = ConnectionConfig::default().with_checksum(checksum);
    let server = UmptcpHost::with(&net.server, Mode::Nat, config);
    let address = server_address(&net, Family::V4);
    let capture = captured(&net);
    twice(&client, fast_listener(&server, address), address, || wait_ours(&server, "MPJoinAckRx", 1));
    assert_outside_the_data_sequence_space(&capture.stop());
    let theirs = Counters::read(&net.client.ns);
    assert_eq!(theirs.get("TcpExtTCPFastOpenActive"), 1);
    assert_eq!(server.counter("TcpFastOpenCookieReqd"), 1, "{}", server.counters());
    assert_eq!(server.counter("TcpFastOpenPassive"), 1, "{}", server.counters());
    assert_eq!(theirs.mptcp("MPCapableSYNACKRX"), 2, "{theirs}; ours: {}", server.counters());
    assert!(theirs.mptcp("MPJoinSynAckRx") >= 2, "no join; {theirs}; ours: {}", server.counters());
    theirs.assert_untroubled();
    same_story(&server, &net.client.ns);
}

#[test]
fn the_kernels_request_goes_with_the_syn() {
    within(LIMIT, || the_kernels_request(false));
}

#[test]
fn the_kernels_request_goes_with_the_syn_and_checksums_cover_the_rest() {
    within(LIMIT, || the_kernels_request(true));
}

/// The server's key has changed: the data is sent again, now with a mapping, and the SYN/ACK carries a new
/// cookie.
#[test]
fn our_request_comes_again_when_the_kernel_does_not_take_it() {
    within(LIMIT, || {
        let net = Routed::new(1, 1);
        let server = fast_kernel_server(&net);
        let client = fast_client(&net, false);
        let address = server_address(&net, Family::V4);
        let listener = server.listen(address).expect("listen");
        finished(begun(&client, &*listener, address));
        net.server.ns.sysctl("net.ipv4.tcp_fastopen_key", "00000001-00000002-00000003-00000004");
        finished(begun(&client, &*listener, address));
        let theirs = Counters::read(&net.server.ns);
        assert_eq!(theirs.get("TcpExtTCPFastOpenPassiveFail"), 1);
        assert_eq!(client.counter("TcpFastOpenActiveFail"), 1);
        let (client_end, server) = begun(&client, &*listener, address);
        Pair { client: client_end, server, listener }.exchange(MIB);
        let theirs = Counters::read(&net.server.ns);
        assert_eq!(theirs.get("TcpExtTCPFastOpenPassive"), 1);
        assert_eq!(theirs.mptcp("MPCapableACKRX"), 3, "{theirs}; ours: {}", client.counters());
        theirs.assert_untroubled();
        same_story(&client, &net.server.ns);
    });
}

/// Linux 6.18 sends the data again without keys or mapping, so that this connection is plain TCP; the next
/// one is MPTCP.
#[test]
fn the_kernels_request_comes_again_when_we_do_not_take_it() {
    within(LIMIT, || {
        let net = Routed::new(1, 1);
        let client = fast_kernel_client(&net);
        let address = server_address(&net, Family::V4);
        let server = UmptcpHost::new(&net.server, Mode::Nat);
        finished(begun(&client, &*fast_listener(&server, address), address));
        drop(server);
        // Another stack has another key.
        let server = UmptcpHost::new(&net.server, Mode::Nat);
        let listener = fast_listener(&server, address);
        let plain = begun(&client, &*listener, address);
        assert_eq!(plain.1.is_mptcp(), Some(false));
        finished(plain);
        assert_eq!(server.counter("TcpFastOpenPassiveFail"), 1);
        assert_eq!(server.counter("MPCapableFallbackACK"), 1);
        assert_eq!(Counters::read(&net.client.ns).mptcp("MPCapableDataFallback"), 1);
        let (client, server_end) = begun(&client, &*listener, address);
        let pair = Pair { client, server: server_end, listener };
        pair.exchange(MIB);
        assert_eq!(pair.server.is_mptcp(), Some(true));
        assert_eq!(server.counter("TcpFastOpenPassive"), 1);
        assert_eq!(Counters::read(&net.client.ns).get("TcpExtTCPFastOpenActive"), 1);
    });
}

/// If the third ACKs are lost, the server has the request but its answer must wait; it arrives once the path
/// works again.
fn late_third_ack(net: &Routed, client: &dyn Endpoint, listener: &dyn Listener) {
    let address = server_address(net, Family::V4);
    finished(begun(client, listener, address));
    net.router.nft(
        "table inet lossy { chain forward { type filter hook forward priority 0;
         iifname \"r-c0\" tcp flags & syn == 0 drop; }; }",
    );
    let (client, server) = begun(client, listener, address);
    let answer = b"the answer";
    assert_eq!(server.send(answer).expect("the connection stands"), answer.len());
    net.router.sh("nft delete table inet lossy");
    receive_exactly(&*client, answer);
    hello(&*client, &*server);
    finished((client, server));
}

#[test]
fn our_answer_waits_for_the_kernels_third_ack() {
    within(LIMIT, || {
        let net = Routed::new(1, 1);
        let client = fast_kernel_client(&net);
        let server = UmptcpHost::new(&net.server, Mode::Nat);
        late_third_ack(&net, &client, &*fast_listener(&server, server_address(&net, Family::V4)));
        assert_eq!(server.counter("TcpFastOpenPassive"), 1);
        assert_eq!(server.counter("MPCapableACKRX"), 2, "{}", server.counters());
        Counters::read(&net.client.ns).assert_untroubled();
    });
}

/// Between two kernels it would not arrive: Linux 6.18 sends what was written before the third ACK only when
/// the application writes again or a DATA_ACK arrives, which is why we send one.
#[test]
fn the_kernels_answer_waits_for_our_third_ack() {
    within(LIMIT, || {
        let net = Routed::new(1, 1);
        let server = fast_kernel_server(&net);
        let client = fast_client(&net, false);
        late_third_ack(&net, &client, &*server.listen(server_address(&net, Family::V4)).expect("listen"));
        assert_eq!(client.counter("TcpFastOpenActive"), 1);
        let theirs = Counters::read(&net.server.ns);
        assert_eq!(theirs.mptcp("MPCapableACKRX"), 2, "{theirs}; ours: {}", client.counters());
        theirs.assert_untroubled();
    });
}

/// Plain TCP with a server that supports Fast Open but not MPTCP.
#[test]
fn our_request_goes_with_the_syn_to_a_server_without_mptcp() {
    within(LIMIT, || {
        let net = Routed::new(1, 1);
        net.server.ns.sysctl("net.ipv4.tcp_fastopen", "1027");
        let server = KernelHost::new(&net.server.ns, Kind::Tcp);
        let client = fast_client(&net, false);
        let address = server_address(&net, Family::V4);
        let listener = server.listen(address).expect("listen");
        finished(begun(&client, &*listener, address));
        let (client_end, server_end) = begun(&client, &*listener, address);
        assert_eq!(client_end.is_mptcp(), Some(false));
        Pair { client: client_end, server: server_end, listener }.exchange(MIB);
        assert_eq!(client.counter("TcpFastOpenActive"), 1, "{}", client.counters());
        assert_eq!(Counters::read(&net.server.ns).get("TcpExtTCPFastOpenPassive"), 1);
    });
}

/// `umptcp bench` at both ends: the first connection gets the cookie, and every other one sends data in its
/// SYN.
#[test]
fn the_bench_uses_fast_open_when_told_to() {
    within(LIMIT, || {
        const COUNT: usize = 20;
        let net = Routed::new(1, 1);
        let capture = Capture::start(&net.router, &["r-c0"]);
        let mut server =
            Background::start(&net.server.ns, &format!("bench server --path s0 --fast-open --once {PORT}"));
        assert!(server.next_line().contains("listening on"));
        let client = program::run(
            &net.client.ns,
            &format!(
                "bench client --path c0 --fast-open --json --mode connections --count {COUNT} 10.2.0.2 {PORT}"
            ),
        );
        let said = String::from_utf8_lossy(&client.stderr);
        assert!(client.status.success(), "{said}");
        let (code, _, errors) = server.finish();
        assert_eq!(code, Some(0), "{errors}");
        let result: serde_json::Value = serde_json::from_slice(&client.stdout).expect("JSON");
        assert_eq!(result["latency"]["count"], COUNT, "{result}");
        assert_eq!(result["mptcp"], true, "{result}");
        assert_eq!(result["fast_open"], serde_json::json!({ "taken": COUNT, "refused": 0 }), "{result}");
        let packets = capture.stop();
        packets.assert_well_formed();
        assert_eq!(packets.count(SYN_DATA), COUNT, "{}", packets.describe("tcp.flags.syn == 1"));
        assert_eq!(packets.count(&format!("{SYN_DATA} && tcp.options.mptcp.subtype == 0")), COUNT);
    });
}

/// `umptcp connect` makes one connection per run: from the second run on it sends its request with the SYN,
/// because the cookie is in a file.
#[test]
fn cookies_in_a_file_serve_the_next_run() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        let server = fast_kernel_server(&net);
        let address = server_address(&net, Family::V4);
        let listener = server.listen(address).expect("listen");
        let cookies = Temporary::new(".cookies");
        let file = cookies.path().display();
        let connect = format!("connect --fast-open-cookies {file} {} {}", address.ip(), address.port());
        let capture = captured(&net);
        for _ in 0..3 {
            let mut command = program::command(&connect);
            command.stdin(Stdio::piped());
            let mut client = net.client.ns.run(|| command.spawn()).expect("the program can be started");
            // Dropping it closes the input.
            client.stdin.take().expect("piped").write_all(FIRST).expect("the program reads");
            let end = listener.accept().expect("it connects");
            receive_exactly(&*end, FIRST);
            assert_eq!(end.receive(&mut [0; 8]).expect("the connection stands"), 0);
            end.finish().expect("the connection stands");
            let done = client.wait_with_output().expect("a child can be waited for");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
        let packets = capture.stop();
        packets.assert_well_formed();
        // The program may read its input too late (20 ms after it has started to wait for the answer), but
        // never its cookie.
        let with_data = packets.count(SYN_DATA);
        assert!((1..=2).contains(&with_data), "{}", packets.describe("tcp.flags.syn == 1"));
        let theirs = Counters::read(&net.server.ns);
        assert_eq!(theirs.get("TcpExtTCPFastOpenCookieReqd"), 1);
        assert_eq!(theirs.get("TcpExtTCPFastOpenPassive"), with_data as u64);
        assert_eq!(theirs.mptcp("MPCapableACKRX"), 3, "{theirs}");
        theirs.assert_untroubled();
        let mode = std::fs::metadata(cookies.path()).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    });
}

/// Every SYN is answered without state: the kernel's third ACK contains enough to keep MPTCP, and joins
/// follow.
#[test]
fn a_kernel_client_of_our_server_that_keeps_no_state() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        let client = kernel_client(&net);
        let server = UmptcpHost::new(&net.server, Mode::Nat);
        let address = server_address(&net, Family::V4);
        let listener =
            server.listener_with(address, |b| b.syn_cookies(SynCookiePolicy::Always)).expect("listen");
        let listener: Box<dyn Listener> = Box::new(Listening(listener));
        let (client_end, server_end) = begun(&client, &*listener, address);
        let pair = Pair { client: client_end, server: server_end, listener };
        pair.exchange(8 * MIB);
        assert_eq!(pair.server.is_mptcp(), Some(true));
        assert_eq!(server.counter("TcpSyncookiesRecv"), 1, "{}", server.counters());
        let theirs = Counters::read(&net.client.ns);
        theirs.assert_untroubled();
        assert_eq!(theirs.mptcp("MPJoinSynAckRx"), 1, "{theirs}; ours: {}", server.counters());
        assert_eq!(server.counter("MPJoinAckRx"), 1, "{}", server.counters());
        same_story(&server, &net.client.ns);
    });
}

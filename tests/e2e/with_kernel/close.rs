//! Closing without a DATA_FIN: MP_FASTCLOSE, and subflows closed by the peer (RFC 8684 §3.5, §3.6).

use super::*;
use crate::umptcp_host::{Mode, Stream};
use std::io;
use umptcp::MptcpStream;
use umptcp_testbed::exchange::Conversation;
use umptcp_testbed::kernel::{self, KernelListener, KernelStream};
use umptcp_testbed::limit::within;

/// Reads until the connection reports something other than data.
fn read_to_the_end(end: &dyn Conversation) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match end.receive(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(e) => return Err(e),
        }
    }
}

/// Closes immediately, whatever is outstanding, so that the kernel sends MP_FASTCLOSE.
fn kernel_abort(stream: KernelStream) {
    stream.socket().set_linger(Some(Duration::ZERO)).expect("SO_LINGER can be set");
}

/// A connection of our client to the kernel's server over both paths, with both ends, and the listener, which
/// the kernel needs for joins.
fn joined_to_kernel(net: &Routed, client: &UmptcpHost) -> (MptcpStream, KernelStream, KernelListener) {
    let address = server_address(net, Family::V4);
    let listener =
        net.server.ns.run(|| KernelListener::bind(address, Kind::Mptcp)).expect("the port is free");
    let ours = client.stream(address).expect("the kernel listens");
    let theirs = listener.accept().expect("one is there");
    hello(&Stream(ours.clone()), &theirs);
    wait_ours(client, "MPJoinSynAckRx", 1);
    (ours, theirs, listener)
}

#[test]
fn a_kernel_server_aborts_and_we_learn_of_it() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        net.server.use_kernel_mptcp();
        let client = UmptcpHost::new(&net.client, Mode::Nat);
        let (ours, theirs, _listener) = joined_to_kernel(&net, &client);
        kernel_abort(theirs);
        let error = read_to_the_end(&Stream(ours)).expect_err("the connection was aborted");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
        assert!(Counters::read(&net.server.ns).mptcp("MPFastcloseTx") >= 1);
        assert_eq!(client.counter("MPFastcloseRx"), 1, "{}", client.counters());
        kernel::wait_closed(&net.server.ns);
    });
}

#[test]
fn a_kernel_client_aborts_and_we_learn_of_it() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        net.client.use_kernel_mptcp();
        let server = UmptcpHost::new(&net.server, Mode::Nat);
        let address = server_address(&net, Family::V4);
        let listener = server.listen(address).expect("the port is free");
        let theirs = net.client.ns.run(|| KernelStream::connect(address, Kind::Mptcp)).expect("we listen");
        let ours = listener.accept().expect("one is there");
        hello(&theirs, &*ours);
        wait_ours(&server, "MPJoinAckRx", 1);
        kernel_abort(theirs);
        let error = read_to_the_end(&*ours).expect_err("the connection was aborted");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
        assert!(Counters::read(&net.client.ns).mptcp("MPFastcloseTx") >= 1);
        assert_eq!(server.counter("MPFastcloseRx"), 1, "{}", server.counters());
        kernel::wait_closed(&net.client.ns);
    });
}

#[test]
fn we_abort_and_the_kernel_learns_of_it() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        net.server.use_kernel_mptcp();
        let client = UmptcpHost::new(&net.client, Mode::Nat);
        let (ours, theirs, _listener) = joined_to_kernel(&net, &client);
        ours.abort();
        let error = read_to_the_end(&theirs).expect_err("the connection was aborted");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
        assert!(client.counter("MPFastcloseTx") >= 1, "{}", client.counters());
        assert!(Counters::read(&net.server.ns).mptcp("MPFastcloseRx") >= 1);
        kernel::wait_closed(&net.server.ns);
    });
}

/// If an administrator of the peer kills a subflow, the connection continues on the other.
fn killed_subflow(net: &Routed, kernel: &Netns, nic: usize, pair: &Pair, ours: &UmptcpHost) {
    pair.exchange_while(32 * MIB, || {
        net.wait_client_link(nic, 2 * MIB);
        kernel.sh(&format!("ss -K src {} or dst {}", net.client.nics[nic].v4, net.client.nics[nic].v4));
        let other = 1 - nic;
        net.wait_client_link(other, net.client_link_bytes()[other].to_client + 4 * MIB);
    });
    assert!(ours.counter("MPCapableSYNTX") + ours.counter("MPCapableSYNRX") == 1);
}

#[test]
fn a_kernel_client_kills_the_second_subflow() {
    within(LIMIT, || {
        let net = shaped();
        let client = kernel_client(&net);
        let server = UmptcpHost::new(&net.server, Mode::Nat);
        let pair = connected(&net, &client, &server);
        killed_subflow(&net, &net.client.ns, 1, &pair, &server);
    });
}

#[test]
fn a_kernel_server_kills_the_second_subflow() {
    within(LIMIT, || {
        let net = shaped();
        let server = kernel_server(&net);
        let client = UmptcpHost::new(&net.client, Mode::Nat);
        let pair = connected(&net, &client, &server);
        killed_subflow(&net, &net.server.ns, 1, &pair, &client);
    });
}

/// The subflows of the kernel's connection as shown by `ss`, and its token.
fn subflows_and_token(ns: &Netns) -> (Vec<(SocketAddr, SocketAddr)>, u32) {
    let mapped = |text: &str| -> Option<SocketAddr> {
        let address: SocketAddr = text.parse().ok()?;
        Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
    };
    let table = ns.sh("ss -tHn state established");
    let subflows = table.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        Some((mapped(words.get(2)?)?, mapped(words.get(3)?)?))
    });
    let connection = ns.sh("ss -MHni state established");
    let token = connection.split_once("token:").expect("a connection is listed").1;
    let token: String = token.chars().take_while(char::is_ascii_hexdigit).collect();
    (subflows.collect(), u32::from_str_radix(&token, 16).expect("a token is hexadecimal"))
}

#[test]
fn a_path_manager_of_the_kernel_server_destroys_a_subflow() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        net.shape_client(0, 50.0);
        net.shape_client(1, 50.0);
        net.server.use_kernel_mptcp();
        // An IPv4 socket, because the path manager looks up subflows by the family of the socket.
        let server = KernelHost::new(&net.server.ns, Kind::Mptcp);
        net.server.ns.sysctl("net.mptcp.path_manager", "userspace");
        // The kernel accepts subflows only while a user-space path manager listens to its events.
        let mut command = std::process::Command::new("ip");
        command.args(["mptcp", "monitor"]).stdout(std::process::Stdio::null());
        let listening = net.server.ns.run(|| command.spawn()).expect("`ip` can be started");
        let _listening = umptcp_testbed::command::Running::new(listening);
        std::thread::sleep(Duration::from_millis(300));
        let client = UmptcpHost::new(&net.client, Mode::Nat);
        let pair = connected(&net, &client, &server);
        wait_ours(&client, "MPJoinSynAckRx", 1);
        pair.exchange_while(32 * MIB, || {
            net.wait_client_link(1, 2 * MIB);
            let (subflows, token) = subflows_and_token(&net.server.ns);
            let second = net.client.nics[1].v4;
            let (local, remote) =
                *subflows.iter().find(|(_, r)| r.ip() == second).expect("a subflow from the second NIC");
            umptcp_testbed::path_manager::destroy_subflow(&net.server.ns, token, local, remote);
            net.wait_client_link(0, net.client_link_bytes()[0].to_client + 4 * MIB);
        });
        assert_eq!(pair.client.is_mptcp(), Some(true));
        assert!(Counters::read(&net.server.ns).mptcp("RmSubflow") >= 1);
    });
}

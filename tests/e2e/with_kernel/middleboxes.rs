//! Middleboxes that interfere after the handshake (RFC 8684 §3.7): they strip options or modify the payload.

use super::*;
use crate::umptcp_host::Mode;
use umptcp::ConnectionConfig;
use umptcp_testbed::exchange::Seeded;
use umptcp_testbed::limit::within;

/// Which end is ours.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ours {
    Client,
    Server,
}

/// The direction that a middlebox acts on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Towards {
    Server,
    Client,
}

impl Towards {
    /// The nftables expression for packets of that direction on the client's link `link`.
    fn on(self, link: usize) -> String {
        match self {
            Towards::Server => format!("iifname r-c{link} tcp dport {PORT}"),
            Towards::Client => format!("oifname r-c{link} tcp sport {PORT}"),
        }
    }
}

/// Makes the router apply `action` to packets on the client's link `link`.
fn middlebox(net: &Routed, link: usize, towards: &[Towards], action: &str) {
    let rules: Vec<_> = towards.iter().map(|t| format!("{} {action}", t.on(link))).collect();
    net.router.nft(&format!(
        "table inet middlebox {{\n chain forward {{\n type filter hook forward priority 0;\n {}\n }}\n}}",
        rules.join("\n ")
    ));
}

/// Replaces every MPTCP option by padding, except on SYNs and RSTs.
const STRIP: &str = "tcp flags & (syn | rst) == 0 reset tcp option mptcp";
/// Replaces only DSS.
const STRIP_DSS: &str = "tcp option mptcp subtype 2 reset tcp option mptcp";
/// Modifies one of every 200 packets with a large payload.
const CHANGE_NOW_AND_THEN: &str = "meta length > 1000 numgen inc mod 200 == 0 @th,800,16 set 0x6162";
/// Modifies two bytes of the payload of one packet: after at most 60 bytes of header and 40 of payload.
const CHANGE_ONCE: &str = "meta length > 1000 limit rate 1/day burst 1 packets @th,800,16 set 0x6162";

fn shaped(nics: u8, mbit: f64) -> Routed {
    let net = Routed::new(nics, 1);
    for nic in 0..usize::from(nics) {
        net.shape_client(nic, mbit);
    }
    net
}

/// The kernel and our stack, connected; `ours` is our end. Returns our stack, the kernel's namespace and the
/// connection.
fn pair(net: &Routed, ours: Ours, checksum: bool) -> (UmptcpHost, Netns, Pair) {
    pair_with(net, ours, ConnectionConfig::default().with_checksum(checksum))
}

/// The same with these settings at our end.
fn pair_with(net: &Routed, ours: Ours, config: ConnectionConfig) -> (UmptcpHost, Netns, Pair) {
    match ours {
        Ours::Client => {
            let server = kernel_server(net);
            let client = UmptcpHost::with(&net.client, Mode::Nat, config);
            let pair = connected(net, &client, &server);
            (client, net.server.ns.clone(), pair)
        }
        Ours::Server => {
            let client = kernel_client(net);
            let server = UmptcpHost::with(&net.server, Mode::Nat, config);
            let pair = connected(net, &client, &server);
            (server, net.client.ns.clone(), pair)
        }
    }
}

/// One of two paths starts to strip options during a transfer: the end that receives unmapped data on it
/// resets that subflow, and the other path delivers every byte.
fn one_path_loses_options(ours: Ours, towards: &[Towards], action: &str) {
    // Slow enough that the transfer is still running when nft has loaded its rules.
    let net = shaped(2, 30.0);
    let (host, kernel, pair) = pair(&net, ours, false);
    pair.exchange_while(32 * MIB, || {
        net.wait_client_link(1, 2 * MIB);
        middlebox(&net, 1, towards, action);
    });
    for end in [&pair.client, &pair.server] {
        assert_ne!(end.is_mptcp(), Some(false), "the connection fell back");
    }
    let theirs = Counters::read(&kernel);
    let resets = host.counter("MPRstTx") + theirs.mptcp("MPRstTx");
    assert!(resets >= 1, "nobody reset the subflow; ours: {}; the kernel's: {theirs}", host.counters());
}

#[test]
fn our_second_path_loses_its_options_both_ways() {
    within(LIMIT, || one_path_loses_options(Ours::Client, &[Towards::Server, Towards::Client], STRIP));
}

#[test]
fn our_second_path_loses_its_options_towards_us() {
    within(LIMIT, || one_path_loses_options(Ours::Client, &[Towards::Client], STRIP));
}

#[test]
fn our_second_path_loses_its_options_towards_the_kernel() {
    within(LIMIT, || one_path_loses_options(Ours::Client, &[Towards::Server], STRIP));
}

#[test]
fn our_second_path_loses_its_dss_options() {
    within(LIMIT, || one_path_loses_options(Ours::Client, &[Towards::Server, Towards::Client], STRIP_DSS));
}

#[test]
fn a_kernel_clients_second_path_loses_its_options_both_ways() {
    within(LIMIT, || one_path_loses_options(Ours::Server, &[Towards::Server, Towards::Client], STRIP));
}

#[test]
fn a_kernel_clients_second_path_loses_its_options_towards_us() {
    within(LIMIT, || one_path_loses_options(Ours::Server, &[Towards::Server], STRIP));
}

#[test]
fn a_kernel_clients_second_path_loses_its_options_towards_the_kernel() {
    within(LIMIT, || one_path_loses_options(Ours::Server, &[Towards::Client], STRIP));
}

/// One of two paths modifies payload once: the checksum detects it, that subflow is reset, and the other
/// delivers every byte.
fn one_path_changes_payload(ours: Ours, towards: Towards) {
    let net = shaped(2, 100.0);
    let (host, kernel, pair) = pair(&net, ours, true);
    let joined = if ours == Ours::Client { "MPJoinSynAckRx" } else { "MPJoinAckRx" };
    wait_ours(&host, joined, 1);
    middlebox(&net, 1, &[towards], CHANGE_ONCE);
    pair.exchange(16 * MIB);
    let theirs = Counters::read(&kernel);
    let we_receive = (ours == Ours::Client) == (towards == Towards::Client);
    let (errors, fails) = if we_receive {
        (host.counter("DataCsumErr"), host.counter("MPFailTx"))
    } else {
        (theirs.mptcp("DataCsumErr"), theirs.mptcp("MPFailTx"))
    };
    assert!(errors >= 1 && fails >= 1, "ours: {}; the kernel's: {theirs}", host.counters());
    for end in [&pair.client, &pair.server] {
        assert_ne!(end.is_mptcp(), Some(false), "the connection fell back");
    }
    plausible_story(&host, &kernel);
}

#[test]
fn a_change_on_our_second_path_towards_us_is_repaired() {
    within(LIMIT, || one_path_changes_payload(Ours::Client, Towards::Client));
}

#[test]
fn a_change_on_our_second_path_towards_the_kernel_is_repaired() {
    within(LIMIT, || one_path_changes_payload(Ours::Client, Towards::Server));
}

#[test]
fn a_change_on_a_kernel_clients_second_path_towards_us_is_repaired() {
    within(LIMIT, || one_path_changes_payload(Ours::Server, Towards::Server));
}

#[test]
fn a_change_on_a_kernel_clients_second_path_towards_the_kernel_is_repaired() {
    within(LIMIT, || one_path_changes_payload(Ours::Server, Towards::Client));
}

/// The bytes of `stream`.
fn bytes_of(stream: Seeded) -> Vec<u8> {
    let mut all = vec![0; stream.length as usize];
    assert_eq!(stream.generator().fill(&mut all), all.len());
    all
}

/// Sends `out` while receiving to the end. Returns the received data, and whether both succeeded.
fn converse(end: &dyn Conversation, out: &[u8]) -> (Vec<u8>, io::Result<()>) {
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut rest = out;
            while !rest.is_empty() {
                let n = end.send(rest)?;
                rest = &rest[n..];
            }
            end.finish()
        });
        let (mut came, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        let received = loop {
            match end.receive(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(n) => came.extend_from_slice(&buffer[..n]),
                Err(e) => break Err(e),
            }
        };
        let sent = sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (came, received.and(sent))
    })
}

/// Both ends send 16 MiB at the same time while `meanwhile` runs. Returns what was sent, what was received
/// and how it ended, for the client and the server.
fn converse_while(pair: &Pair, meanwhile: impl FnOnce()) -> [(Vec<u8>, Vec<u8>, io::Result<()>); 2] {
    let streams = [1, 2].map(|seed| bytes_of(Seeded { seed, length: 16 * MIB }));
    let [to_server, to_client] = &streams;
    let (client, server) = std::thread::scope(|scope| {
        let client = scope.spawn(|| converse(&*pair.client, to_server));
        let server = scope.spawn(|| converse(&*pair.server, to_client));
        meanwhile();
        let join = |t: std::thread::ScopedJoinHandle<'_, (Vec<u8>, io::Result<()>)>| {
            t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        (join(client), join(server))
    });
    let [to_server, to_client] = streams;
    [(to_client, client.0, client.1), (to_server, server.0, server.1)]
}

/// The only path starts to strip options during a transfer: too late for a fallback, so the connection ends
/// with an error at our end, and no wrong byte is delivered at either end.
fn the_only_path_loses_options(ours: Ours, towards: &[Towards]) {
    let net = shaped(1, 30.0);
    let (host, kernel, pair) = pair(&net, ours, false);
    // How long the kernel keeps a connection without a subflow.
    kernel.sysctl("net.mptcp.close_timeout", "1");
    let ends = converse_while(&pair, || {
        net.wait_client_link(0, 2 * MIB);
        middlebox(&net, 0, towards, STRIP);
    });
    let story = format!("ours: {}; the kernel's: {}", host.counters(), Counters::read(&kernel));
    for (sent, came, _) in &ends {
        assert!(sent.starts_with(came), "a wrong byte was delivered; {story}");
    }
    let our_end = if ours == Ours::Client { &ends[0] } else { &ends[1] };
    let whole = ends.iter().all(|(sent, came, end)| sent.len() == came.len() && end.is_ok());
    assert!(our_end.2.is_err() || whole, "neither an error nor every byte; {story}");
}

#[test]
fn our_only_path_loses_its_options_both_ways() {
    within(LIMIT, || the_only_path_loses_options(Ours::Client, &[Towards::Server, Towards::Client]));
}

#[test]
fn our_only_path_loses_its_options_towards_us() {
    within(LIMIT, || the_only_path_loses_options(Ours::Client, &[Towards::Client]));
}

#[test]
fn our_only_path_loses_its_options_towards_the_kernel() {
    within(LIMIT, || the_only_path_loses_options(Ours::Client, &[Towards::Server]));
}

#[test]
fn a_kernel_clients_only_path_loses_its_options_both_ways() {
    within(LIMIT, || the_only_path_loses_options(Ours::Server, &[Towards::Server, Towards::Client]));
}

/// The only path modifies payload once: MP_FAIL and its response, an infinite mapping, and plain TCP, which
/// delivers the modified data.
fn the_only_path_changes_payload(ours: Ours, towards: Towards) {
    let net = shaped(1, 100.0);
    // Once it has fallen back, Linux 6.18 reserves 28 bytes less for options, so that its infinite mapping
    // makes a full segment exceed the MTU, and it tries to send that forever (IpFragFails grows). Smaller
    // segments leave room.
    net.router.nft(
        "table inet mss {
           chain forward {
             type filter hook forward priority 0;
             tcp flags & syn == syn tcp option maxseg size set 1300
           }
         }",
    );
    let (host, kernel, pair) = pair(&net, ours, true);
    middlebox(&net, 0, &[towards], CHANGE_ONCE);
    let ends = converse_while(&pair, || {});
    let story = format!("ours: {}; the kernel's: {}", host.counters(), Counters::read(&kernel));
    for (to, (sent, came, end)) in [Towards::Client, Towards::Server].into_iter().zip(&ends) {
        assert!(end.is_ok(), "{end:?}; {story}");
        assert_eq!(sent.len(), came.len(), "{story}");
        let different = sent.iter().zip(came).filter(|(a, b)| a != b).count();
        if to == towards {
            assert!((1..=2).contains(&different), "{different} bytes differ; {story}");
        } else {
            assert_eq!(different, 0, "{story}");
        }
    }
    let our_end = if ours == Ours::Client { &pair.client } else { &pair.server };
    assert_eq!(our_end.is_mptcp(), Some(false), "{story}");
    let theirs = Counters::read(&kernel);
    assert!(host.counter("MPFailTx") >= 1 && host.counter("MPFailRx") >= 1, "{story}");
    // Of our two answers, MP_FAIL and the infinite mapping, one is enough: the ACK with the first may be lost in the
    // queue.
    let answered = theirs.mptcp("MPFailRx") >= 1 || theirs.mptcp("InfiniteMapRx") >= 1;
    assert!(theirs.mptcp("MPFailTx") >= 1 && answered, "{story}");
}

#[test]
fn a_change_on_our_only_path_towards_us_means_plain_tcp() {
    within(LIMIT, || the_only_path_changes_payload(Ours::Client, Towards::Client));
}

#[test]
fn a_change_on_our_only_path_towards_the_kernel_means_plain_tcp() {
    within(LIMIT, || the_only_path_changes_payload(Ours::Client, Towards::Server));
}

#[test]
fn a_change_on_a_kernel_clients_only_path_towards_us_means_plain_tcp() {
    within(LIMIT, || the_only_path_changes_payload(Ours::Server, Towards::Server));
}

#[test]
fn a_change_on_a_kernel_clients_only_path_towards_the_kernel_means_plain_tcp() {
    within(LIMIT, || the_only_path_changes_payload(Ours::Server, Towards::Client));
}

/// The only path keeps modifying payload, and our end has strict checksums: instead of falling back to plain
/// TCP (RFC 8684 §3.7) the connection ends with an error at both ends, and no modified data is delivered at
/// ours. (The kernel, which expects plain TCP, delivers data whose checksum failed.)
fn strict_checksums(ours: Ours, towards: Towards) {
    let net = shaped(1, 100.0);
    let config = ConnectionConfig::default()
        .with_checksum(true)
        .with_strict_checksums(true)
        .with_close_timeout(Duration::from_secs(1));
    let (host, kernel, pair) = pair_with(&net, ours, config);
    // How long it keeps a connection without a subflow.
    kernel.sysctl("net.mptcp.close_timeout", "1");
    middlebox(&net, 0, &[towards], CHANGE_NOW_AND_THEN);
    let ends = converse_while(&pair, || {});
    let story = format!("ours: {}; the kernel's: {}", host.counters(), Counters::read(&kernel));
    let (our_end, conversation) =
        if ours == Ours::Client { (&ends[0], &pair.client) } else { (&ends[1], &pair.server) };
    assert!(ends.iter().all(|(_, _, end)| end.is_err()), "no error; {story}");
    assert!(our_end.0.starts_with(&our_end.1), "a wrong byte was delivered; {story}");
    assert_ne!(conversation.is_mptcp(), Some(false), "it fell back; {story}");
    let we_receive = (ours == Ours::Client) == (towards == Towards::Client);
    let theirs = Counters::read(&kernel);
    if we_receive {
        assert!(host.counter("DataCsumErr") >= 1 && host.counter("MPFailTx") >= 1, "{story}");
        assert!(our_end.0.len() > our_end.1.len(), "what was changed came through; {story}");
    } else {
        assert!(theirs.mptcp("DataCsumErr") >= 1 && host.counter("MPFailRx") >= 1, "{story}");
        assert!(host.counter("FallbackFailed") >= 1, "{story}");
    }
    assert_eq!(theirs.mptcp("InfiniteMapRx") + host.counter("InfiniteMapTx"), 0, "{story}");
}

#[test]
fn strict_checksums_end_a_connection_changed_towards_us() {
    within(LIMIT, || strict_checksums(Ours::Client, Towards::Client));
}

#[test]
fn strict_checksums_end_a_connection_changed_towards_the_kernel() {
    within(LIMIT, || strict_checksums(Ours::Client, Towards::Server));
}

#[test]
fn strict_checksums_end_a_kernel_clients_connection_changed_towards_us() {
    within(LIMIT, || strict_checksums(Ours::Server, Towards::Server));
}

#[test]
fn strict_checksums_end_a_kernel_clients_connection_changed_towards_the_kernel() {
    within(LIMIT, || strict_checksums(Ours::Server, Towards::Client));
}

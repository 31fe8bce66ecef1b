//! Paths inside UDP: no privilege, no TUN device, nothing changed on the host.

use crate::run::{LIMIT, both};
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use umptcp_testbed::Netns;
use umptcp_testbed::capture::Capture;
use umptcp_testbed::command::Running;
use umptcp_testbed::host::Snapshot;
use umptcp_testbed::limit::within;
use umptcp_testbed::program::{self, Background, Folder};
use umptcp_testbed::topology::{Family, Routed};
use umptcp_testkit::tcp_in_udp::Datagram;

const PORT: u16 = 8803;
/// Bytes of each of the two files.
const LENGTH: usize = 12_000_000;

/// Without a capability, even for root.
pub(crate) const NO_CAPABILITY: &str = "setpriv --bounding-set=-all --inh-caps=-all";

/// The program, as `who` starts it, where there is a /dev/net/tun that nobody may open.
pub(crate) fn command(who: &str, arguments: &str) -> Command {
    let program = program::path();
    let hide = format!(
        "mount -t tmpfs none /dev/net && : > /dev/net/tun && chmod 0 /dev/net/tun && exec {who} {} {arguments}",
        program.display()
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &hide]).env_remove("RUST_BACKTRACE");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn listens_for_datagrams(ns: &Netns, port: u16) -> bool {
    let wanted = format!(":{port:04X}");
    ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"].iter().any(|table| {
        let lines = ns.read(table);
        lines.lines().any(|l| l.split_whitespace().nth(1).is_some_and(|local| local.ends_with(&wanted)))
    })
}

pub(crate) fn wait_for_datagrams(ns: &Netns, port: u16) {
    let end = Instant::now() + Duration::from_secs(20);
    while !listens_for_datagrams(ns, port) {
        assert!(Instant::now() < end, "no UDP socket has port {port}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a file each way between a client with a path inside UDP over each NIC, and a server. `meanwhile`
/// runs when the transfer has begun. Both files arrive whole.
pub(crate) fn exchange(net: &Routed, family: Family, who: &str, meanwhile: impl FnOnce(&Routed)) -> String {
    let folder = Folder::new("inside-udp");
    let (up, down) = (folder.path().join("up"), folder.path().join("down"));
    for (file, add) in [(&up, 0), (&down, 101)] {
        let bytes: Vec<u8> = (0..LENGTH).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 ^ add).collect();
        fs::write(file, bytes).expect("a file");
    }
    let mut server = command(who, &format!("listen --path s0,mode=udp {PORT}"));
    let (got_up, got_down) = (folder.path().join("got-up"), folder.path().join("got-down"));
    let create = |path| fs::File::create(path).expect("a file");
    server.stdin(fs::File::open(&down).expect("a file")).stdout(create(&got_up));
    let server = net.server.ns.run(|| server.spawn()).map(Running::new).expect("it starts");
    wait_for_datagrams(&net.server.ns, PORT);
    let paths: Vec<String> =
        net.client.nics.iter().map(|nic| format!("--path {},mode=udp", nic.device)).collect();
    let address = net.server.nics[0].address(family);
    let mut client = command(who, &format!("connect -v {} {address} {PORT}", paths.join(" ")));
    client.stdin(fs::File::open(&up).expect("a file")).stdout(create(&got_down));
    let client = net.client.ns.run(|| client.spawn()).map(Running::new).expect("it starts");
    net.wait_client_link(0, 1 << 20);
    meanwhile(net);
    let (said, code) = both(&client.wait());
    assert_eq!(code, Some(0), "{said}");
    let (server_said, code) = both(&server.wait());
    assert_eq!(code, Some(0), "{server_said}");
    for (sent, got) in [(&up, &got_up), (&down, &got_down)] {
        let [sent, got] = [sent, got].map(|file| fs::read(file).expect("a file"));
        assert!(sent == got, "{} bytes of {} arrived, or others", got.len(), sent.len());
    }
    assert!(said.contains("MPTCP, for"), "{said}");
    said
}

/// Nothing of the hosts is different after `work`.
pub(crate) fn unchanged<T>(net: &Routed, work: impl FnOnce() -> T) -> T {
    let before = [&net.client, &net.server].map(|site| Snapshot::take(&site.ns));
    let result = work();
    for (site, before) in [&net.client, &net.server].into_iter().zip(before) {
        before.assert_restored(&site.ns, Duration::ZERO);
    }
    result
}

#[test]
fn two_nics_without_a_capability() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        [0, 1].iter().for_each(|nic| net.shape_client(*nic, 60.0));
        let said = unchanged(&net, || exchange(&net, Family::V4, NO_CAPABILITY, |_| {}));
        for (i, link) in net.client_link_bytes().iter().enumerate() {
            let both = [link.to_server, link.to_client];
            assert!(both.iter().all(|bytes| *bytes > LENGTH as u64 / 8), "NIC {i}: {both:?}\n{said}");
        }
    });
}

#[test]
fn two_nics_with_ipv6() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        net.router.nft(
            "table inet f {
               chain c {
                 type filter hook forward priority 0;
                 meta nfproto ipv4 drop
               }
             }",
        );
        [0, 1].iter().for_each(|nic| net.shape_client(*nic, 60.0));
        let said = unchanged(&net, || exchange(&net, Family::V6, NO_CAPABILITY, |_| {}));
        assert!(said.contains("connected: [fd00:1:"), "{said}");
        for (i, link) in net.client_link_bytes().iter().enumerate() {
            assert!(link.to_server > LENGTH as u64 / 8, "NIC {i}: {}\n{said}", link.to_server);
        }
    });
}

#[test]
fn a_nic_dies_and_the_transfer_goes_on() {
    within(LIMIT, || {
        for (family, silent) in [(Family::V4, false), (Family::V6, true)] {
            let net = Routed::new(2, 1);
            [0, 1].iter().for_each(|nic| net.shape_client(*nic, 40.0));
            exchange(&net, family, NO_CAPABILITY, |net| {
                if silent {
                    net.silence(0, true);
                    let before = net.client_link_bytes()[1].to_client;
                    net.wait_client_link(1, before + (1 << 20));
                    // Without it, both ends would wait for the last words of the first subflow for a minute.
                    net.silence(0, false);
                } else {
                    net.client.ns.sh(&format!("ip link set {} down", net.client.nics[0].device));
                }
            });
        }
    });
}

/// Everything on the wire is a datagram as the layout has it, and nothing is TCP.
#[test]
fn every_datagram_is_one() {
    within(LIMIT, || {
        let net = Routed::new(1, 1);
        // Trains are cut before the device, as for one that cannot.
        for (ns, device) in [(&net.client.ns, "c0"), (&net.server.ns, "s0")] {
            ns.sh(&format!("ip link set {device} gso_max_segs 1"));
        }
        let capture = Capture::start_whole(&net.router, &net.client.nics[0].far_device);
        exchange(&net, Family::V4, NO_CAPABILITY, |_| {});
        let frames = capture.stop().frames();
        let (mut seen, mut payload, mut mptcp) = (0, [0; 2], 0);
        for frame in &frames {
            let packet = &frame[14..];
            let transport = match frame[12..14] {
                [8, 0] => packet[9],
                [0x86, 0xdd] => packet[6],
                _ => continue,
            };
            assert_ne!(transport, 6, "TCP beside UDP");
            if transport != 17 {
                continue;
            }
            // A device like this one leaves the checksum to that by which the packet leaves the host.
            let datagram =
                Datagram::of_packet(packet, false).unwrap_or_else(|e| panic!("{e}: {packet:02x?}"));
            assert!(datagram.source_port == PORT || datagram.destination_port == PORT);
            seen += 1;
            payload[usize::from(datagram.source_port == PORT)] += datagram.payload.len();
            mptcp += usize::from(datagram.option_kinds().contains(&30));
        }
        assert!(payload.iter().all(|bytes| *bytes >= LENGTH), "{payload:?} bytes in {seen} datagrams");
        assert!(mptcp * 2 > seen, "{mptcp} of {seen} datagrams have an option of MPTCP");
    });
}

/// The same port for both kinds of path, each with a client of its kind.
#[test]
fn a_listener_takes_both_kinds_on_one_port() {
    within(LIMIT, || {
        let net = Routed::new(1, 1);
        let address = net.server.nics[0].address(Family::V4);
        for mode in ["udp", "nat"] {
            let arguments = format!("listen --path s0 --path s0,mode=udp {PORT}");
            let server = Background::start(&net.server.ns, &arguments);
            wait_for_datagrams(&net.server.ns, PORT);
            let client =
                program::run(&net.client.ns, &format!("connect --path c0,mode={mode} -v {address} {PORT}"));
            let (said, code) = both(&client);
            assert!(code == Some(0) && said.contains("MPTCP, for"), "{mode}: {said}");
            let (code, _, said) = server.finish();
            assert_eq!(code, Some(0), "{mode}: {said}");
        }
    });
}

#[test]
fn what_does_not_work_is_said() {
    within(LIMIT, || {
        let net = Routed::new(1, 1);
        let taken = net.server.ns.spawn(|| std::net::UdpSocket::bind(("0.0.0.0", PORT))).join();
        let _taken = taken.expect("a thread").expect("a socket");
        let address = net.server.nics[0].address(Family::V4);
        for (ns, arguments, reason) in [
            (&net.server.ns, format!("listen --path s0,mode=udp {PORT}"), "already in use by UDP"),
            (&net.client.ns, format!("connect --path c0,mode=udp {address} 4"), "connection refused"),
            (&net.client.ns, format!("connect --path c9,mode=udp {address} 4"), "no network device"),
            (&net.client.ns, format!("connect --path lo,mode=udp {address} 4"), "loopback"),
            (
                &net.client.ns,
                format!("connect --path c0,mode=udp --path c0,mode=udp {address} 4"),
                "given twice",
            ),
        ] {
            let (said, code) = both(&program::run(ns, &arguments));
            assert!(code != Some(0) && said.contains(reason), "{arguments}: {said}");
        }
    });
}

/// A link on the way takes smaller packets: with what ICMP says of it, and without.
#[test]
fn a_narrow_link_on_the_way() {
    within(LIMIT, || {
        for (family, icmp) in [(Family::V4, true), (Family::V6, true), (Family::V4, false)] {
            let net = Routed::new(1, 1);
            net.router.sh("ip link set r-s0 mtu 1400");
            net.router.sh("ip link set r-c0 mtu 1400");
            if !icmp {
                net.router.nft(
                    "table inet mute {
                       chain out {
                         type filter hook output priority 0;
                         meta l4proto icmp drop
                       }
                     }",
                );
            }
            exchange(&net, family, NO_CAPABILITY, |_| {});
        }
    });
}

/// A program that listens, as `who` starts it, and one that connects; both read and write lines.
fn conversation(net: &Routed) -> (Background, Background) {
    let mut server = command(NO_CAPABILITY, &format!("listen --path s0,mode=udp {PORT}"));
    server.stdin(Stdio::piped());
    let server = Background::spawn(&net.server.ns, server);
    wait_for_datagrams(&net.server.ns, PORT);
    let address = net.server.nics[0].address(Family::V4);
    let mut client = command(NO_CAPABILITY, &format!("connect -v --path c0,mode=udp {address} {PORT}"));
    client.stdin(Stdio::piped());
    (Background::spawn(&net.client.ns, client), server)
}

/// The translator on the way forgets the flow in a pause, and gives it another port after that: the server
/// knows no such subflow, and the client opens another.
#[test]
fn another_port_after_a_pause() {
    within(LIMIT, || {
        let net = Routed::new(1, 1);
        net.router.nft(
            "table inet nat {
               chain out {
                 type nat hook postrouting priority 100;
                 oifname r-s0 meta l4proto udp masquerade random
               }
             }",
        );
        // Loaded with the rule.
        net.router.sysctl("net.netfilter.nf_conntrack_udp_timeout", "1");
        net.router.sysctl("net.netfilter.nf_conntrack_udp_timeout_stream", "1");
        let (mut client, mut server) = conversation(&net);
        client.write_line("one");
        assert_eq!(server.next_line(), "one");
        server.write_line("two");
        assert_eq!(client.next_line(), "two");
        for turn in ["three", "four"] {
            std::thread::sleep(Duration::from_millis(3500));
            client.write_line(turn);
            assert_eq!(server.next_line(), turn);
            server.write_line(turn);
            assert_eq!(client.next_line(), turn);
        }
    });
}

/// Nobody gets more than he has sent, whose address it may be: a SYN by hand, and everything that comes back.
#[test]
fn a_stranger_gets_less_than_he_sends() {
    within(LIMIT, || {
        let net = Routed::new(1, 1);
        let mut server = command(NO_CAPABILITY, &format!("listen --path s0,mode=udp {PORT}"));
        server.stdin(Stdio::piped());
        let _server = Background::spawn(&net.server.ns, server);
        wait_for_datagrams(&net.server.ns, PORT);
        let to = net.server.nics[0].socket_address(Family::V4, PORT);
        let answers = net.client.ns.spawn(move || {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
            socket.set_read_timeout(Some(Duration::from_secs(4))).expect("a limit");
            // 60 bytes of header, of which 40 are the end of the list of options.
            let long = [&[0xf0, 0x02, 0xff, 0xff, 1, 2, 3, 4, 0, 0, 0, 0][..], &[0; 40]].concat();
            socket.send_to(&long, to).expect("it is sent");
            let (mut got, mut buffer) = (Vec::new(), [0; 2000]);
            while let Ok(length) = socket.recv(&mut buffer) {
                got.push(length);
            }
            (long.len(), got)
        });
        let (sent, got) = answers.join().expect("a thread");
        assert!(
            !got.is_empty() && got.iter().sum::<usize>() <= sent,
            "{sent} bytes sent, answers of {got:?}"
        );
    });
}

//! Two NICs in one subnet with the server, and no gateway: an ordinary case.

use crate::network::{Flow, Ns, PATIENCE, QUIET, assert_unchanged, options, receive_raw};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// A client with two NICs and a server on one bridge.
struct Lan {
    client: Ns,
    server: Ns,
    _bridge: Ns,
}

impl Lan {
    fn new() -> Lan {
        let (client, server, bridge) = (Ns::new(), Ns::new(), Ns::new());
        bridge.ip("link add br0 type bridge forward_delay 0");
        bridge.ip("link set br0 up");
        for (ns, device, port) in [(&client, "eth0", "p0"), (&client, "eth1", "p1"), (&server, "eth0", "p2")]
        {
            ns.link(device, &bridge, port);
            bridge.ip(&format!("link set {port} master br0"));
        }
        for (ns, device, host) in [(&client, "eth0", 231), (&client, "eth1", 232), (&server, "eth0", 110)] {
            ns.address(device, &format!("192.168.140.{host}/24"));
            ns.address(device, &format!("2001:db8:140::{host}/64"));
        }
        Lan { client, server, _bridge: bridge }
    }

    fn mac(ns: &Ns, device: &str) -> String {
        let text = ns.ip(&format!("-br link show {device}"));
        text.split_whitespace().nth(2).unwrap().to_owned()
    }

    /// Whether the server has learnt that `address` is at the client's NIC `device`, and replies still reach
    /// it.
    fn server_knows(&self, address: &str, device: &str) -> bool {
        self.server
            .ip("neighbour")
            .lines()
            .any(|l| l.starts_with(&format!("{address} ")) && l.contains(&Self::mac(&self.client, device)))
    }
}

#[test]
fn each_path_has_its_own_nic_and_the_server_sends_to_it() {
    for strict in ["0", "1"] {
        for mode in ["nat", "routed"] {
            let lan = Lan::new();
            lan.client.sysctl("net/ipv4/conf/all/rp_filter", strict);
            lan.client.sysctl("net/ipv4/conf/default/rp_filter", strict);
            lan.server.echo_server("[::]:80");
            let before = lan.client.state();
            let specs = match mode {
                "nat" => ["eth0".to_owned(), "eth1".to_owned()],
                _ => [0, 1].map(|n| {
                    format!("eth{n},address=192.168.140.24{n},address=2001:db8:140::24{n},mode=routed")
                }),
            };
            let specs: Vec<&str> = specs.iter().map(String::as_str).collect();
            let options = options().listen_ports(vec![22]);
            let set = lan.client.set_up(&specs, &options).unwrap();
            let mut client_tap = lan.client.tap();
            client_tap.without = set.paths.iter().map(|p| p.tun.index() as usize).collect();
            for (n, path) in set.paths.iter().enumerate() {
                let seen: Vec<IpAddr> = match mode {
                    "nat" => path.config.advertise.clone(),
                    _ => path.config.addresses.clone(),
                };
                for (i, server) in ["192.168.140.110:80", "[2001:db8:140::110]:80"].into_iter().enumerate() {
                    client_tap.clear();
                    let own = path.config.addresses[i];
                    Flow::connect(&path.tun, (own, 40100), server).echo("one subnet");
                    // Out through this NIC, and back through it.
                    let nic = lan.client.index(&format!("eth{n}"));
                    let server: SocketAddr = server.parse().unwrap();
                    let (by, _) = client_tap
                        .find(PATIENCE, |s| s.destination == server && s.source.ip() == seen[i])
                        .unwrap();
                    assert_eq!(by, nic, "{mode}, strict {strict}: request to {server} by another NIC");
                    let (by, _) = client_tap
                        .find(PATIENCE, |s| s.source == server && s.destination.ip() == seen[i])
                        .unwrap();
                    assert_eq!(by, nic, "{mode}, strict {strict}: answer of {server} by another NIC");
                    // And the other direction: the server has to resolve the address again.
                    lan.server.ip("neighbour flush all");
                    let client =
                        crate::network::echo_client(&lan.server, &SocketAddr::new(seen[i], 22).to_string());
                    Flow::accept(&path.tun, 22).answer();
                    client.join().unwrap();
                    assert!(lan.server_knows(&seen[i].to_string(), &format!("eth{n}")));
                }
            }
            drop(set);
            assert_unchanged(&lan.client, &before);
        }
    }
}

#[test]
fn without_arp_settings_the_server_may_send_to_the_wrong_nic() {
    let lan = Lan::new();
    lan.server.echo_server("[::]:80");
    let _set = lan.client.set_up(&["eth0", "eth1"], &options()).unwrap();
    // How many NICs answer for .232.
    let answers = || {
        lan.server.ip("neighbour flush all");
        lan.server.run(|| {
            let fd = nix::sys::socket::socket(
                nix::sys::socket::AddressFamily::Packet,
                nix::sys::socket::SockType::Datagram,
                nix::sys::socket::SockFlag::SOCK_NONBLOCK | nix::sys::socket::SockFlag::SOCK_CLOEXEC,
                nix::sys::socket::SockProtocol::EthAll,
            )
            .unwrap();
            let _ = std::net::TcpStream::connect_timeout(&"192.168.140.232:9".parse().unwrap(), QUIET);
            std::thread::sleep(QUIET);
            let mut senders = std::collections::BTreeSet::new();
            let mut buffer = [0; 2048];
            use std::os::fd::AsRawFd;
            while let Ok(n) =
                nix::sys::socket::recv(fd.as_raw_fd(), &mut buffer, nix::sys::socket::MsgFlags::empty())
            {
                // ARP over Ethernet for IPv4, a reply.
                if n >= 28
                    && buffer[..8] == [0, 1, 8, 0, 6, 4, 0, 2]
                    && buffer[14..18] == [192, 168, 140, 232]
                {
                    senders.insert(buffer[8..14].to_vec());
                }
            }
            senders.len()
        })
    };
    assert_eq!(answers(), 1);
    for device in ["eth0", "eth1"] {
        lan.client.sysctl(&format!("net/ipv4/conf/{device}/arp_ignore"), "0");
    }
    assert_eq!(answers(), 2, "otherwise this test proves nothing");
}

#[test]
fn without_a_loose_reverse_path_filter_the_second_nic_is_deaf() {
    let lan = Lan::new();
    lan.client.sysctl("net/ipv4/conf/all/rp_filter", "1");
    lan.server.echo_server("[::]:80");
    let set = lan.client.set_up(&["eth0", "eth1"], &options()).unwrap();
    let path = &set.paths[1];
    let server = "192.168.140.110:80".parse().unwrap();
    let connects = |port: u16| {
        lan.server.ip("neighbour flush all");
        let local = SocketAddr::new(path.config.addresses[0], port);
        Flow::try_connect(&path.tun, local, server, std::time::Duration::from_secs(2)).is_some()
    };
    assert!(connects(40100));
    lan.client.sysctl("net/ipv4/conf/eth1/rp_filter", "1");
    assert!(!connects(40101), "otherwise this test proves nothing");
}

#[test]
fn the_host_s_own_connections_go_on_as_before() {
    let lan = Lan::new();
    lan.server.echo_server("[::]:80");
    let set = lan.client.set_up(&["eth0", "eth1"], &options()).unwrap();
    for server in ["192.168.140.110:80", "[2001:db8:140::110]:80"] {
        crate::network::echo_client(&lan.client, server).join().unwrap();
    }
    for path in &set.paths {
        let packet = receive_raw(&path.tun, Instant::now() + QUIET);
        assert_eq!(packet, None, "the host's packets are none of the stack's business");
    }
}

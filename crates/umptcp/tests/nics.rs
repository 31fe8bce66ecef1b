//! Paths that the library sets up itself, and the examples, in network namespaces.
#![cfg(all(target_os = "linux", not(umptcp_portable)))]

mod common;

use common::pattern;
use nix::sched::{CloneFlags, unshare};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use umptcp::{Counter, ListenScope, MptcpListener, MptcpStream, PathSpec, RefuseWith, Stack};

fn ip(arguments: &str) {
    let out = Command::new("ip").args(arguments.split_whitespace()).output().expect("ip is installed");
    assert!(out.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Runs `client` and `server` in separate namespaces. The client's NICs c0 and c1 (192.168.140.231 and .232)
/// and the server's s0 (.110) are in one subnet, on a bridge in a third namespace. So is the server's s1, which
/// is down and has no address.
fn two_hosts(client: impl FnOnce() + Send + 'static, server: impl FnOnce() + Send + 'static) {
    let host = |work: Box<dyn FnOnce() + Send>, nics: &'static [(&'static str, u8)]| {
        let (tid_tx, tid) = mpsc::channel();
        let (wired_tx, wired) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            if unshare(CloneFlags::CLONE_NEWNET).is_err() {
                return;
            }
            tid_tx.send(nix::unistd::gettid()).unwrap();
            wired.recv().unwrap();
            ip("link set lo up");
            for (name, last) in nics {
                ip(&format!("addr add 192.168.140.{last}/24 dev {name}"));
                ip(&format!("link set {name} up"));
            }
            work();
        });
        (thread, tid.recv(), wired_tx)
    };
    let (client, client_tid, client_wired) = host(Box::new(client), &[("c0", 231), ("c1", 232)]);
    let (server, server_tid, server_wired) = host(Box::new(server), &[("s0", 110)]);
    let (Ok(client_tid), Ok(server_tid)) = (client_tid, server_tid) else {
        eprintln!("skipped: cannot make a network namespace");
        return;
    };
    let (done, finished) = mpsc::channel::<()>();
    let bridge = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        ip("link add br0 type bridge");
        ip("link set br0 up");
        for (port, name, host) in [
            ("p0", "c0", client_tid),
            ("p1", "c1", client_tid),
            ("p2", "s0", server_tid),
            ("p3", "s1", server_tid),
        ] {
            ip(&format!("link add {port} type veth peer name {name} netns {host}"));
            ip(&format!("link set {port} master br0 up"));
        }
        client_wired.send(()).unwrap();
        server_wired.send(()).unwrap();
        // The bridge disappears with this thread.
        let _ = finished.recv();
    });
    // Join all, so that each has cleaned up.
    let results = [client.join(), server.join()];
    drop(done);
    for result in results.into_iter().chain([bridge.join()]) {
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    }
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "{what}: it did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How many subflows a connection has that are established.
fn established(stream: &MptcpStream) -> usize {
    stream.subflows().unwrap().iter().filter(|s| s.state == "ESTABLISHED").count()
}

/// Listens on all NICs and echoes until the flag is cleared.
fn echo_until(done: &mpsc::Receiver<()>, ready: &mpsc::Sender<()>) {
    echo_on("s0".into(), done, ready);
}

/// The same on a NIC as given.
fn echo_on(nic: PathSpec, done: &mpsc::Receiver<()>, ready: &mpsc::Sender<()>) {
    let stack = Stack::builder().nics([nic]).start().unwrap();
    let listener = stack.listen("0.0.0.0:7").unwrap();
    ready.send(()).unwrap();
    let (stream, _) = listener.accept_timeout(Duration::from_secs(20)).unwrap();
    std::io::copy(&mut &stream, &mut &stream).unwrap();
    drop(stream);
    done.recv().unwrap();
    drop(listener);
    drop(stack);
    nothing_left();
}

/// Asserts that nothing is left of what was set up in this namespace.
fn nothing_left() {
    let show = |arguments: &str| {
        let out = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    assert!(!show("-o link").contains("umptcp"), "{}", show("-o link"));
    assert_eq!(show("rule").lines().count(), 3, "{}", show("rule"));
    let nft = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&nft.stdout), "");
}

#[test]
fn nics_that_go_down_and_come_back_are_followed() {
    let (ready_tx, ready) = mpsc::channel();
    let (done_tx, done) = mpsc::channel();
    let client = move || {
        ready.recv().unwrap();
        // No NICs given: all usable ones.
        let stack = Stack::builder().nics([""; 0]).start().unwrap();
        let names = || {
            let mut names: Vec<String> = stack.paths().unwrap().into_iter().map(|p| p.name).collect();
            names.sort();
            names
        };
        assert_eq!(names(), ["c0", "c1"]);
        let stream = stack.connect("192.168.140.110:7").unwrap();
        let data = pattern(3 << 20, 9);
        let mut got = vec![0; data.len()];
        let mut there_and_back = || {
            std::thread::scope(|s| {
                s.spawn(|| (&stream).write_all(&data).unwrap());
                (&stream).read_exact(&mut got).unwrap();
            });
            assert!(got == data);
        };
        there_and_back();
        wait_for("two subflows", || established(&stream) == 2);
        ip("link set c0 down");
        wait_for("the path leaves", || names() == ["c1"]);
        there_and_back();
        ip("link set c0 up");
        wait_for("the path returns", || names() == ["c0", "c1"]);
        wait_for("two subflows again", || established(&stream) == 2);
        there_and_back();
        assert!(stream.protocol().unwrap().is_mptcp());
        drop(stream);
        drop(stack);
        nothing_left();
        done_tx.send(()).unwrap();
    };
    two_hosts(client, move || echo_until(&done, &ready_tx));
}

#[test]
fn the_choice_of_nics_changes_without_a_loss() {
    let (ready_tx, ready) = mpsc::channel();
    let (done_tx, done) = mpsc::channel();
    let client = move || {
        ready.recv().unwrap();
        let stack = Stack::builder().nics(["c0"]).start().unwrap();
        let paths = || {
            let mut paths: Vec<_> = stack.paths().unwrap().into_iter().map(|p| (p.name, p.id)).collect();
            paths.sort();
            paths
        };
        let stream = stack.connect("192.168.140.110:7").unwrap();
        let there_and_back = || {
            (&stream).write_all(b"ping").unwrap();
            (&stream).read_exact(&mut [0; 4]).unwrap();
        };
        let first = paths();
        there_and_back();
        stack.set_nics(["c0", "c1"]).unwrap();
        assert_eq!(paths()[0], first[0], "what is as it was stays");
        wait_for("two subflows", || established(&stream) == 2);
        there_and_back();
        // The one that carried everything so far goes, and the other is described anew.
        let backup: umptcp::PathSpec = "c1,backup".parse().unwrap();
        stack.set_nics([backup]).unwrap();
        assert_eq!(paths().iter().map(|p| p.0.as_str()).collect::<Vec<_>>(), ["c1"]);
        there_and_back();
        let error = stack.set_nics(["nosuch", "c0"]).unwrap_err();
        assert!(error.to_string().contains("nosuch"), "{error}");
        assert_eq!(
            paths().iter().map(|p| p.0.as_str()).collect::<Vec<_>>(),
            ["c0"],
            "the others are changed"
        );
        stack.set_nics([""; 0]).unwrap();
        assert_eq!(paths().iter().map(|p| p.0.as_str()).collect::<Vec<_>>(), ["c0", "c1"]);
        wait_for("two subflows", || established(&stream) == 2);
        there_and_back();
        drop(stream);
        drop(stack);
        nothing_left();
        done_tx.send(()).unwrap();
    };
    two_hosts(client, move || echo_until(&done, &ready_tx));
}

#[test]
fn connections_to_a_port_of_a_nic_wait_for_the_programs_word() {
    let (ready_tx, ready) = mpsc::channel();
    let (done_tx, done) = mpsc::channel::<()>();
    let server = move || {
        let stack = Stack::builder().nics(["s0"]).start().unwrap();
        let taken = std::net::TcpListener::bind("0.0.0.0:8").unwrap();
        let hold = |at: &str| MptcpListener::builder(&stack).hold(ListenScope::at(at.parse().unwrap()));
        assert_eq!(hold("[::]:8").unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(hold("192.168.140.111:7").unwrap_err().kind(), ErrorKind::AddrNotAvailable);
        let listener = hold("192.168.140.110:7").unwrap();
        ready_tx.send(()).unwrap();
        let limit = Duration::from_secs(20);
        let first = listener.next_timeout(limit).unwrap();
        assert!(first.is_mptcp());
        first.refuse(RefuseWith::Reset).unwrap();
        let mut stream = listener.next_timeout(limit).unwrap().accept().unwrap();
        stream.write_all(b"hello").unwrap();
        drop(stream);
        // Its port is free again.
        done.recv().unwrap();
        drop(listener);
        wait_for("the port is free", || std::net::TcpListener::bind("192.168.140.110:7").is_ok());
        drop((stack, taken));
        nothing_left();
    };
    let client = move || {
        ready.recv().unwrap();
        let stack = Stack::builder().nics(["c0"]).start().unwrap();
        let refused = stack.connect("192.168.140.110:7").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let mut stream = stack.connect("192.168.140.110:7").unwrap();
        let mut got = String::new();
        stream.read_to_string(&mut got).unwrap();
        assert_eq!(got, "hello");
        drop((stream, stack));
        done_tx.send(()).unwrap();
    };
    two_hosts(client, server);
}

/// As when a DHCP lease ends and another begins.
#[test]
fn a_nic_that_loses_its_only_address_for_a_while_is_used_again_by_a_client() {
    let (ready_tx, ready) = mpsc::channel();
    let (done_tx, done) = mpsc::channel();
    let client = move || {
        ready.recv().unwrap();
        let stack = Stack::builder().nics(["c0", "c1"]).start().unwrap();
        let paths = || stack.paths().unwrap().len();
        let stream = stack.connect("192.168.140.110:7").unwrap();
        let there_and_back = || {
            (&stream).write_all(b"ping").unwrap();
            (&stream).read_exact(&mut [0; 4]).unwrap();
        };
        there_and_back();
        wait_for("two subflows", || established(&stream) == 2);
        // The same address again, then another one.
        for (before, after) in [(232, 232), (232, 233)] {
            ip(&format!("addr del 192.168.140.{before}/24 dev c1"));
            wait_for("the path leaves", || paths() == 1);
            there_and_back();
            ip(&format!("addr add 192.168.140.{after}/24 dev c1"));
            wait_for("the path returns", || paths() == 2);
            wait_for("two subflows again", || established(&stream) == 2);
            there_and_back();
        }
        drop(stream);
        drop(stack);
        nothing_left();
        done_tx.send(()).unwrap();
    };
    two_hosts(client, move || echo_until(&done, &ready_tx));
}

/// As DHCP brings it: the address first, the route seconds later.
#[test]
fn a_route_that_comes_late_is_used_at_once_by_connections_that_live() {
    let (ready_tx, ready) = mpsc::channel();
    let (done_tx, done) = mpsc::channel();
    let client = move || {
        ready.recv().unwrap();
        ip("route add 10.9.9.9 via 192.168.140.110 dev c0");
        let late = "route add 10.9.9.9 via 192.168.140.110 dev c1 metric 2";
        ip(late);
        let stack = Stack::builder().nics(["c0", "c1"]).start().unwrap();
        let stream = stack.connect("10.9.9.9:7").unwrap();
        (&stream).write_all(b"ping").unwrap();
        (&stream).read_exact(&mut [0; 4]).unwrap();
        wait_for("two subflows", || established(&stream) == 2);
        ip("addr del 192.168.140.232/24 dev c1");
        wait_for("the path leaves", || stack.paths().unwrap().len() == 1);
        ip("addr add 192.168.140.232/24 dev c1");
        wait_for("the path returns", || stack.paths().unwrap().len() == 2);
        // Attempts without the route fail, with growing pauses: some seconds by now.
        let attempts = || stack.counters().unwrap().get(Counter::MPJoinSynTx);
        let before = attempts();
        wait_for("attempts", || attempts() >= before + 4);
        assert_eq!(established(&stream), 1, "no way leads there");
        ip(late);
        let soon = Instant::now() + Duration::from_secs(2);
        while established(&stream) != 2 {
            assert!(Instant::now() < soon, "the route is not used");
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(stream);
        drop(stack);
        nothing_left();
        done_tx.send(()).unwrap();
    };
    let server = move || {
        // Not the NIC's own address, which c1 reaches without the route.
        echo_on("s0,mode=routed,address=10.9.9.9".parse().unwrap(), &done, &ready_tx);
    };
    two_hosts(client, server);
}

/// As when a router's advertisement comes after the lease, or an IPv6 address expires.
#[test]
fn a_nic_whose_ipv6_address_comes_and_goes_keeps_its_subflows_of_ipv4() {
    let (ready_tx, ready) = mpsc::channel();
    let (done_tx, done) = mpsc::channel();
    let client = move || {
        ready.recv().unwrap();
        ip("addr add fd00:140::232/64 dev c1 nodad");
        let stack = Stack::builder().nics(["c0", "c1"]).start().unwrap();
        let seen = |v6: bool| {
            let paths = stack.paths().unwrap();
            let c1 = paths.iter().find(|p| p.name == "c1");
            c1.is_some_and(|p| p.public_addresses.iter().any(|a| a.is_ipv6()) == v6)
        };
        let stream = stack.connect("192.168.140.110:7").unwrap();
        wait_for("two subflows", || established(&stream) == 2);
        let ids = || stream.subflows().unwrap().iter().map(|s| s.id).collect::<Vec<_>>();
        let before = ids();
        ip("addr del fd00:140::232/64 dev c1");
        wait_for("the address leaves", || seen(false));
        ip("addr add fd00:140::233/64 dev c1 nodad");
        wait_for("the address returns", || seen(true));
        (&stream).write_all(b"ping").unwrap();
        (&stream).read_exact(&mut [0; 4]).unwrap();
        assert_eq!(ids(), before);
        drop(stream);
        drop(stack);
        nothing_left();
        done_tx.send(()).unwrap();
    };
    two_hosts(client, move || echo_until(&done, &ready_tx));
}

/// A host of both families whose only NIC loses its IPv4 address for a moment, as when a lease is renewed.
/// Connections over it wait for it, in both roles, also those that could not be opened anew.
#[test]
fn an_address_that_goes_for_a_moment_ends_no_connection_while_the_other_family_stays() {
    let (ready_tx, ready) = mpsc::channel();
    let (done_tx, done) = mpsc::channel::<()>();
    let renew = |nic: &str, last: u8, stack: &Stack| {
        let of_ipv4 = || {
            let paths = stack.paths().unwrap();
            paths[0].public_addresses.iter().any(|a| a.is_ipv4())
        };
        assert!(of_ipv4());
        ip(&format!("addr del 192.168.140.{last}/24 dev {nic}"));
        wait_for("the address leaves", || !of_ipv4());
        let refused = stack.connect("192.168.140.7:7").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NetworkUnreachable, "{refused}");
        ip(&format!("addr add 192.168.140.{last}/24 dev {nic}"));
        wait_for("the address returns", of_ipv4);
    };
    let client = move || {
        ip("addr add fd00:140::231/64 dev c0 nodad");
        ip("link set c1 down");
        ready.recv().unwrap();
        let stack = Stack::builder().nics(["c0"]).start().unwrap();
        let plain = MptcpStream::builder(&stack).mptcp(false).connect("192.168.140.110:7").unwrap();
        let streams = [stack.connect("192.168.140.110:7").unwrap(), plain];
        let there_and_back = || {
            for mut stream in &streams {
                stream.write_all(b"ping").unwrap();
                stream.read_exact(&mut [0; 4]).unwrap();
            }
        };
        there_and_back();
        renew("c0", 231, &stack);
        there_and_back();
        // Now the server's.
        done_tx.send(()).unwrap();
        ready.recv().unwrap();
        there_and_back();
        drop(streams);
        drop(stack);
        nothing_left();
    };
    let server = move || {
        ip("addr add fd00:140::110/64 dev s0 nodad");
        let stack = Stack::builder().nics(["s0"]).start().unwrap();
        let listener = stack.listen("0.0.0.0:7").unwrap();
        ready_tx.send(()).unwrap();
        let echo: Vec<_> = (0..2)
            .map(|_| {
                let (stream, _) = listener.accept_timeout(Duration::from_secs(20)).unwrap();
                std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream).unwrap())
            })
            .collect();
        done.recv().unwrap();
        renew("s0", 110, &stack);
        ready_tx.send(()).unwrap();
        for thread in echo {
            assert_eq!(thread.join().unwrap(), 12);
        }
        drop(listener);
        drop(stack);
        nothing_left();
    };
    two_hosts(client, server);
}

#[test]
fn a_nic_that_loses_its_only_address_for_a_while_is_used_again_by_a_server() {
    let (ready_tx, ready) = mpsc::channel();
    let (done_tx, done) = mpsc::channel::<()>();
    let client = move || {
        let stack = Stack::builder().nics(["c0"]).start().unwrap();
        for _ in 0..2 {
            let address: &str = ready.recv().unwrap();
            let stream = stack.connect(address).unwrap();
            (&stream).write_all(b"ping").unwrap();
            (&stream).read_exact(&mut [0; 4]).unwrap();
        }
        done_tx.send(()).unwrap();
    };
    let server = move || {
        let stack = Stack::builder().nics(["s0"]).start().unwrap();
        let listener = stack.listen("0.0.0.0:7").unwrap();
        let paths = || stack.paths().unwrap().len();
        for (before, after, address) in [(110, 110, "192.168.140.110:7"), (110, 111, "192.168.140.111:7")] {
            ip(&format!("addr del 192.168.140.{before}/24 dev s0"));
            wait_for("the path leaves", || paths() == 0);
            ip(&format!("addr add 192.168.140.{after}/24 dev s0"));
            wait_for("the path returns", || paths() == 1);
            ready_tx.send(address).unwrap();
            let (stream, _) = listener.accept_timeout(Duration::from_secs(20)).unwrap();
            let mut ping = [0; 4];
            (&stream).read_exact(&mut ping).unwrap();
            (&stream).write_all(&ping).unwrap();
        }
        done.recv().unwrap();
        drop(listener);
        drop(stack);
        nothing_left();
    };
    two_hosts(client, server);
}

#[test]
fn of_several_named_nics_one_that_is_down_is_used_once_it_is_up() {
    let (done_tx, done) = mpsc::channel::<()>();
    let client = move || {
        ip("link set c1 down");
        let e = Stack::builder().nics(["c1"]).start().unwrap_err();
        assert!(e.to_string().contains("ip link set c1 up"), "with no other it is an error: {e}");
        for named in [["c0", "c1"], ["c1", "c0"]] {
            ip("link set c1 down");
            let stack = Stack::builder().nics(named).start().unwrap();
            let names = || {
                let mut names: Vec<String> =
                    stack.paths().unwrap().into_iter().map(|path| path.name).collect();
                names.sort();
                names
            };
            assert_eq!(names(), ["c0"]);
            ip("link set c1 up");
            wait_for("the other NIC is used", || names() == ["c0", "c1"]);
        }
        let e = Stack::builder().nics(["c0", "nosuch0"]).start().unwrap_err();
        assert_eq!(e.kind(), std::io::ErrorKind::NotFound, "a name that nothing has is a mistake: {e}");
        nothing_left();
        drop(done_tx);
    };
    two_hosts(client, move || assert!(done.recv().is_err()));
}

#[test]
fn a_server_listens_on_one_address_of_a_nic_and_on_a_port_of_the_stack_s_choice() {
    let (ready_tx, ready) = mpsc::channel::<std::net::SocketAddr>();
    let (done_tx, done) = mpsc::channel::<()>();
    let client = move || {
        let stack = Stack::builder().nics(["c0"]).start().unwrap();
        for server in ready {
            let stream = stack.connect(server).unwrap();
            let public = stream.public_addr().unwrap();
            assert_eq!(public.ip().to_string(), "192.168.140.231");
            assert_ne!(stream.local_addr().unwrap().ip(), public.ip());
            (&stream).write_all(b"x").unwrap();
            assert_eq!((&stream).read(&mut [0; 9]).unwrap(), 1);
        }
        drop(done_tx);
    };
    let server = move || {
        // A second address of the same NIC.
        ip("addr add 192.168.140.111/24 dev s0");
        let stack = Stack::builder().nics(["s0"]).start().unwrap();
        let path = stack.paths().unwrap().remove(0);
        assert_eq!(path.public_addresses[0].to_string(), "192.168.140.110");
        let own = path.addresses[0];
        for address in ["192.168.140.110", "192.168.140.111", "0.0.0.0", &own.to_string()] {
            let listener = stack.listen((address, 0)).unwrap();
            let local = listener.local_addr().unwrap();
            assert_eq!(local.ip().to_string(), address);
            assert_ne!(local.port(), 0);
            let taken = std::net::TcpListener::bind(("0.0.0.0", local.port())).unwrap_err();
            assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
            let public = listener.public_addrs().unwrap();
            let expected = if address.ends_with("111") { address } else { "192.168.140.110" };
            assert_eq!(public, [std::net::SocketAddr::new(expected.parse().unwrap(), local.port())]);
            ready_tx.send(public[0]).unwrap();
            let (stream, from) = listener.accept_timeout(Duration::from_secs(20)).unwrap();
            assert_eq!(from.ip().to_string(), "192.168.140.231");
            assert_eq!(stream.public_addr().unwrap().port(), local.port());
            std::io::copy(&mut &stream, &mut &stream).unwrap();
        }
        let e = stack.listen("192.168.140.231:80").unwrap_err();
        assert_eq!(e.kind(), std::io::ErrorKind::AddrNotAvailable);
        assert!(e.to_string().contains("there are: 192.168.140.110"), "{e}");
        drop(ready_tx);
        assert!(done.recv().is_err());
        drop(stack);
        nothing_left();
    };
    two_hosts(client, server);
}

/// Ports that the host gives to the stack.
fn ports_of_the_stack() -> String {
    let set = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
    let text = String::from_utf8_lossy(&set.stdout).into_owned();
    let after = text.split("set listen {").nth(1).expect("a path has this set");
    let elements = after.split('}').next().unwrap_or_default().split("elements = {").nth(1);
    elements.unwrap_or_default().trim().to_owned()
}

/// Peers join to the port of a listener that is gone, and to one that was advertised, as long as there is the
/// connection.
#[test]
fn ports_stay_the_stacks_as_long_as_peers_may_join_to_them() {
    let (ready_tx, ready) = mpsc::channel();
    let (advertised_tx, advertised) = mpsc::channel();
    let (over_tx, over) = mpsc::channel();
    let client = move || {
        ready.recv().unwrap();
        ip("link set c1 down");
        let stack = Stack::builder().nics(["c0", "c1"]).start().unwrap();
        let mut stream = stack.connect("192.168.140.110:7").unwrap();
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        advertised.recv().unwrap();
        ip("link set c1 up");
        wait_for("two subflows", || established(&stream) == 2);
        let port = stream.subflows().unwrap()[1].remote.port();
        assert!(port == 7 || port == 4444, "{port}");
        drop(stream);
        over.recv().unwrap();
    };
    let server = move || {
        let stack = Stack::builder().nics(["s0"]).start().unwrap();
        let listener = stack.listen("0.0.0.0:7").unwrap();
        let own = std::net::IpAddr::from([192, 168, 140, 110]);
        let taken = std::net::TcpListener::bind((own, 0)).unwrap();
        ready_tx.send(()).unwrap();
        let (mut stream, _) = listener.accept_timeout(Duration::from_secs(20)).unwrap();
        drop(listener);
        stream.read_exact(&mut [0]).unwrap();
        assert_eq!(ports_of_the_stack(), "7");
        let in_use = stream.advertise_address(own, Some(taken.local_addr().unwrap().port()));
        assert_eq!(in_use.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
        stream.advertise_address(own, Some(4444)).unwrap();
        assert_eq!(ports_of_the_stack(), "7, 4444");
        stream.write_all(b"x").unwrap();
        advertised_tx.send(()).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        drop(stream);
        wait_for("both ports are the host's again", || ports_of_the_stack().is_empty());
        over_tx.send(()).unwrap();
    };
    two_hosts(client, server);
}

/// What is announced is open: the port is the stack's there, too, and the client's join succeeds.
#[test]
fn a_path_that_comes_after_the_listener_has_gone_is_announced_and_open() {
    let (ready_tx, ready) = mpsc::channel();
    let (over_tx, over) = mpsc::channel();
    let client = move || {
        ready.recv().unwrap();
        let stack = Stack::builder().nics(["c0"]).start().unwrap();
        let mut stream = stack.connect("192.168.140.110:7").unwrap();
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        let joined = || {
            let subflows = stream.subflows().unwrap();
            subflows.iter().any(|s| s.state == "ESTABLISHED" && s.remote.to_string() == "192.168.140.111:7")
        };
        wait_for("a subflow to the new address", joined);
        drop(stream);
        over.recv().unwrap();
    };
    let server = move || {
        let stack = Stack::builder().nics(["s0"]).start().unwrap();
        let listener = stack.listen("0.0.0.0:7").unwrap();
        ready_tx.send(()).unwrap();
        let (mut stream, _) = listener.accept_timeout(Duration::from_secs(20)).unwrap();
        drop(listener);
        ip("addr add 192.168.140.111/24 dev s1");
        ip("link set s1 up");
        stack.add_nic(&"s1".into()).unwrap();
        stream.read_exact(&mut [0]).unwrap();
        stream.write_all(b"x").unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        drop(stream);
        wait_for("the port is the host's again", || ports_of_the_stack().is_empty());
        over_tx.send(()).unwrap();
    };
    two_hosts(client, server);
}

#[test]
fn a_silent_first_nic_does_not_keep_the_second_from_connecting() {
    let (ready_tx, ready) = mpsc::channel();
    let (done_tx, done) = mpsc::channel::<()>();
    let client = move || {
        ready.recv().unwrap();
        let stack = Stack::builder().nics(["c0", "c1"]).start().unwrap();
        let nft = |script: &str| {
            assert!(Command::new("nft").arg(script).status().unwrap().success(), "nft {script}");
        };
        nft("add table ip silence; add chain ip silence forward { type filter hook forward priority 0; }; \
             add rule ip silence forward oifname c0 meta l4proto tcp drop");
        let stream = MptcpStream::builder(&stack)
            .connect_timeout(Duration::from_secs(15))
            .connect("192.168.140.110:7")
            .unwrap();
        assert_eq!(stream.public_addr().unwrap().ip().to_string(), "192.168.140.232");
        (&stream).write_all(b"x").unwrap();
        assert_eq!((&stream).read(&mut [0; 9]).unwrap(), 1);
        drop(stream);
        nft("delete table ip silence");
        drop(stack);
        nothing_left();
        drop(done_tx);
    };
    let server = move || {
        let stack = Stack::builder().nics(["s0"]).start().unwrap();
        let listener = stack.listen("0.0.0.0:7").unwrap();
        ready_tx.send(()).unwrap();
        let (stream, _) = listener.accept_timeout(Duration::from_secs(20)).unwrap();
        std::io::copy(&mut &stream, &mut &stream).unwrap();
        assert!(done.recv().is_err());
    };
    two_hosts(client, server);
}

/// A late instance on a host with few ports starts with few.
#[test]
fn a_stack_whose_ports_are_all_in_use_gets_more_as_long_as_there_are_any() {
    let (ready_tx, ready) = mpsc::channel();
    let (done_tx, done) = mpsc::channel::<()>();
    let client = move || {
        let sysctl = |name: &str, value: &str| std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value);
        sysctl("ip_local_port_range", "40000 40399").unwrap();
        ready.recv().unwrap();
        let stack = Stack::builder().nics(["c0"]).start().unwrap();
        let connect = || MptcpStream::builder(&stack).mptcp(false).connect("192.168.140.110:7777");
        let mut streams = Vec::new();
        let error = loop {
            match connect() {
                Ok(stream) => streams.push(stream),
                Err(error) => break error,
            }
            assert!(streams.len() < 400);
        };
        // 64 ports, of which 15 are for what conntrack translates; then as many again, and again; the host
        // keeps the rest.
        assert_eq!(streams.len(), 64 - 15 + 64 + 128);
        assert_eq!(error.kind(), std::io::ErrorKind::AddrNotAvailable);
        let text = error.to_string();
        assert!(
            text.contains("all local ports") && text.contains("no free part of at least 64 ports"),
            "{text}"
        );
        for mut stream in &streams {
            stream.write_all(b"x").unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            assert_eq!(stream.read(&mut [0; 9]).unwrap(), 1);
        }
        drop(streams);
        drop(stack);
        nothing_left();
        let reserved = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap();
        assert_eq!(reserved.trim(), "");
        done_tx.send(()).unwrap();
    };
    let server = move || {
        let listener = std::net::TcpListener::bind("0.0.0.0:7777").unwrap();
        ready_tx.send(()).unwrap();
        std::thread::spawn(move || {
            let mut streams = Vec::new();
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                streams.push(stream.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
        done.recv().unwrap();
    };
    two_hosts(client, server);
}

#[test]
fn errors_of_nics_are_said_plainly() {
    let (done_tx, done) = mpsc::channel::<()>();
    let client = move || {
        let e = Stack::builder().nics(["nosuch0"]).start().unwrap_err();
        assert_eq!(e.kind(), std::io::ErrorKind::NotFound);
        assert!(e.to_string().contains("nosuch0") && e.to_string().contains("c0"), "{e}");
        let stack = Stack::builder().nics(["c0"]).start().unwrap();
        // The host's own addresses, that of a NIC without a path included.
        for address in ["192.168.140.231:9", "192.168.140.232:9", "127.0.0.1:9"] {
            let e = stack.connect(address).unwrap_err();
            assert_eq!(e.kind(), std::io::ErrorKind::Unsupported, "{e}");
            assert!(e.to_string().contains("socket of the kernel"), "{e}");
        }
        // A kernel socket reaches a listener of the stack on the same host.
        let listener = stack.listen("192.168.140.231:0").unwrap();
        let mut local = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept_timeout(Duration::from_secs(20)).unwrap();
        (&stream).write_all(b"near").unwrap();
        let mut got = [0; 4];
        local.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"near");
        drop((local, stream, listener));
        // A kernel socket holds the port.
        let _held = std::net::TcpListener::bind("0.0.0.0:4000").unwrap();
        let e = stack.listen("0.0.0.0:4000").unwrap_err();
        assert_eq!(e.kind(), std::io::ErrorKind::AddrInUse, "{e}");
        let first = stack.listen("0.0.0.0:4001").unwrap();
        assert_eq!(
            std::net::TcpListener::bind("0.0.0.0:4001").unwrap_err().kind(),
            std::io::ErrorKind::AddrInUse
        );
        drop(first);
        // A child process of another test may hold a copy of the socket until it has called exec.
        wait_for("the port is free again", || std::net::TcpListener::bind("0.0.0.0:4001").is_ok());
        drop(stack);
        nothing_left();
        drop(done_tx);
    };
    two_hosts(client, move || assert!(done.recv().is_err()));
}

fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(|deps| deps.parent()).unwrap().join("examples").join(name);
    assert!(program.exists(), "{} is missing: `cargo test -p umptcp` builds it", program.display());
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

#[test]
fn a_program_that_opts_in_leaves_nothing_behind_when_a_signal_ends_it() {
    let (ready_tx, ready) = mpsc::channel();
    let (done_tx, done) = mpsc::channel::<()>();
    let client = move || {
        let stack = Stack::builder().nics(["c0"]).start().unwrap();
        for () in ready {
            let stream = stack.connect("192.168.140.110:7777").unwrap();
            (&stream).write_all(b"x").unwrap();
            assert_eq!((&stream).read(&mut [0; 9]).unwrap(), 1);
            done_tx.send(()).unwrap();
            // The end of the server, one way or the other, and not the silence of a host that has gone.
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            match (&stream).read(&mut [0]) {
                Ok(n) => assert_eq!(n, 0),
                Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset, "{e}"),
            }
        }
    };
    let server = move || {
        for signals in [&["-TERM", "-TERM", "-INT"][..], &["-USR1"], &["-QUIT", "-TERM"]] {
            let mut program = example("echo_server").args(["7777", "s0"]).spawn().unwrap();
            let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
            assert!(lines.next().unwrap().unwrap().starts_with("listening"));
            ready_tx.send(()).unwrap();
            done.recv().unwrap();
            for signal in signals {
                let sent = Command::new("kill").args([*signal, &program.id().to_string()]).status().unwrap();
                assert!(sent.success() || signal != &signals[0]);
            }
            assert!(!program.wait().unwrap().success());
            nothing_left();
        }
        drop(ready_tx);
    };
    two_hosts(client, server);
}

#[test]
fn the_examples_speak_mptcp_with_one_another() {
    let (ready_tx, ready) = mpsc::channel();
    let (done_tx, done) = mpsc::channel();
    let client = move || {
        ready.recv().unwrap();
        let out = example("echo_client").args(["192.168.140.110:7777", "c0", "c1"]).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        done_tx.send(()).unwrap();
        assert!(out.status.success(), "{text}");
        assert!(text.contains("connected to 192.168.140.110:7777: MPTCP, for"), "{text}");
        assert!(text.contains("intact, MPTCP"), "{text}");
    };
    let server = move || {
        let mut child = example("echo_server").args(["7777", "s0"]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert_eq!(lines.next().as_deref(), Some("listening on port 7777"));
        ready_tx.send(()).unwrap();
        done.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(lines.next().unwrap().contains(": MPTCP, for"));
        assert!(lines.next().unwrap().ends_with(": 1000000 bytes"));
        child.kill().unwrap();
        child.wait().unwrap();
        // It was killed and could not clean up; the next instance would.
        assert_eq!(umptcp_tun_driver::paths::clean_up_leftovers().unwrap().len(), 1);
        nothing_left();
    };
    two_hosts(client, server);
}

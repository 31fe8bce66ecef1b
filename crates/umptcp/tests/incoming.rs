//! Connections that wait for the program's word.
#![cfg(all(target_os = "linux", not(umptcp_portable)))]

mod common;

use common::{two_stacks, wait_for};
use std::io::{ErrorKind, Read, Write};
use std::time::Duration;
use umptcp::{ListenScope, MptcpListener, MptcpStream, RefuseWith, Stack, Unreachable};

const SERVER: &str = "10.0.0.2:80";
const LIMIT: Duration = Duration::from_secs(10);

fn dial(stack: &Stack, remote: &str) -> std::io::Result<MptcpStream> {
    MptcpStream::builder(stack).connect_timeout(LIMIT).connect(remote)
}

#[test]
fn a_connection_waits_until_it_is_accepted() {
    let (a, b) = two_stacks(1, |s| s);
    let listener = MptcpListener::builder(&b).hold(ListenScope::at(SERVER.parse().unwrap())).unwrap();
    std::thread::scope(|s| {
        let client = s.spawn(|| dial(&a, SERVER));
        let incoming = listener.next_timeout(LIMIT).unwrap();
        assert!(incoming.is_mptcp() && !incoming.is_gone());
        assert_eq!(incoming.local(), SERVER.parse().unwrap());
        std::thread::sleep(Duration::from_millis(50));
        assert!(!client.is_finished(), "nothing has been answered");
        let from = incoming.remote();
        let mut server = incoming.accept().unwrap();
        let mut client = client.join().unwrap().unwrap();
        assert_eq!(client.local_addr().unwrap(), from);
        client.write_all(b"hello").unwrap();
        let mut got = [0; 5];
        server.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
    });
}

#[test]
fn a_refusal_says_what_the_program_says() {
    let (a, b) = two_stacks(1, |s| s);
    let listener = MptcpListener::builder(&b).hold(ListenScope::every_port([])).unwrap();
    for (with, kind) in [
        (Some(RefuseWith::Reset), ErrorKind::ConnectionRefused),
        (Some(RefuseWith::Unreachable(Unreachable::Host)), ErrorKind::HostUnreachable),
        (Some(RefuseWith::Unreachable(Unreachable::Network)), ErrorKind::NetworkUnreachable),
        // Dropped.
        (None, ErrorKind::ConnectionRefused),
    ] {
        std::thread::scope(|s| {
            let client = s.spawn(|| dial(&a, "10.0.0.2:4321"));
            let incoming = listener.next_timeout(LIMIT).unwrap();
            assert_eq!(incoming.local().port(), 4321);
            match with {
                Some(with) => incoming.refuse(with).unwrap(),
                None => drop(incoming),
            }
            assert_eq!(client.join().unwrap().unwrap_err().kind(), kind, "{with:?}");
        });
    }
}

#[test]
fn one_that_is_gone_is_told_of_and_not_accepted() {
    let (a, b) = two_stacks(1, |s| s);
    let listener = MptcpListener::builder(&b).hold(ListenScope::at(SERVER.parse().unwrap())).unwrap();
    let path = b.paths().unwrap()[0].id;
    std::thread::scope(|s| {
        let brief = MptcpStream::builder(&a).connect_timeout(Duration::from_millis(500));
        s.spawn(move || assert_eq!(brief.connect(SERVER).unwrap_err().kind(), ErrorKind::TimedOut));
        let incoming = listener.next_timeout(LIMIT).unwrap();
        // Nobody can be answered by a path that has gone.
        b.remove_path(path).unwrap();
        wait_for(|| incoming.is_gone());
        assert_eq!(incoming.accept().unwrap_err().kind(), ErrorKind::NotConnected);
    });
}

#[test]
fn a_listener_that_is_dropped_refuses_what_waits_and_a_stopped_stack_ends_it() {
    let (a, b) = two_stacks(2, |s| s);
    let scope = ListenScope::at("0.0.0.0:80".parse().unwrap());
    let first = b.paths().unwrap()[0].id;
    let listener = MptcpListener::builder(&b).hold(scope.clone().by([first])).unwrap();
    let again = MptcpListener::builder(&b).hold(scope.clone());
    assert_eq!(again.unwrap_err().kind(), ErrorKind::AddrInUse);
    std::thread::scope(|s| {
        let client = s.spawn(|| dial(&a, SERVER));
        let incoming = listener.next_timeout(LIMIT).unwrap();
        // By the other path nobody listens.
        let other = MptcpStream::builder(&a).paths([a.paths().unwrap()[1].id]).connect_timeout(LIMIT);
        assert_eq!(other.connect("10.1.0.2:80").unwrap_err().kind(), ErrorKind::ConnectionRefused);
        drop(listener);
        assert_eq!(client.join().unwrap().unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert!(incoming.is_gone());
    });
    let listener = MptcpListener::builder(&b).hold(scope).unwrap();
    assert_eq!(listener.next_timeout(Duration::ZERO).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(b);
    assert!(listener.next().is_err());
}

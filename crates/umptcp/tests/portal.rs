//! A path on which something answers in the place of the server, without MPTCP, as captive portals do.
#![cfg(all(target_os = "linux", not(umptcp_portable)))]

mod common;

use common::{PipeDevice, captured_program, path};
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use umptcp::{ConnectionConfig, Counter, Forwarder, MptcpListener, MptcpStream, Stack, StackBuilder};

/// The server's address, which whoever is at the first link has, too.
const SERVER: &str = "10.9.0.2:80";

/// A client with two links, and who is at the end of each.
struct World {
    client: Stack,
    ends: Vec<Stack>,
    listeners: Vec<MptcpListener>,
    /// Where `true`, packets are lost.
    cut: Vec<Arc<AtomicBool>>,
}

impl World {
    /// `speaks`: whether the end of each link speaks MPTCP.
    fn new(mut client: StackBuilder, speaks: &[bool]) -> World {
        let (mut ends, mut listeners, mut cut) = (Vec::new(), Vec::new(), Vec::new());
        for (n, mptcp) in speaks.iter().enumerate() {
            let (x, y) = PipeDevice::pair();
            cut.push(x.cut.clone());
            client = client.path(path(&format!("out{n}"), &format!("10.{n}.0.1"), x));
            // The same cookies in each world.
            let end = Stack::builder().seed([n as u8; 32]).path(path("link", "10.9.0.2", y)).start().unwrap();
            listeners.push(MptcpListener::builder(&end).mptcp(*mptcp).fast_open(8).listen(SERVER).unwrap());
            ends.push(end);
        }
        World { client: client.start().unwrap(), ends, listeners, cut }
    }

    /// SYNs with MP_CAPABLE that the client has sent.
    fn asked(&self) -> u64 {
        self.client.counters().unwrap().get(Counter::MPCapableSYNTX)
    }
}

/// Whether a byte goes from one to the other.
fn talks(mut from: &MptcpStream, mut to: &MptcpStream) {
    from.write_all(b"!").unwrap();
    to.read_exact(&mut [0]).unwrap();
}

#[test]
fn a_portal_is_not_taken_for_the_server() {
    let world = World::new(Stack::builder(), &[false, true]);
    for _ in 0..2 {
        let ours = world.client.connect(SERVER).unwrap();
        assert!(ours.protocol().unwrap().is_mptcp());
        let (theirs, _) = world.listeners[1].accept().unwrap();
        talks(&ours, &theirs);
        talks(&theirs, &ours);
    }
}

#[test]
fn what_two_paths_say_is_believed() {
    let world = World::new(Stack::builder(), &[false, false]);
    let ours = world.client.connect(SERVER).unwrap();
    assert!(!ours.protocol().unwrap().is_mptcp());
    assert_eq!(world.asked(), 2, "another path was asked");
    let (theirs, _) = world.listeners[0].accept().unwrap();
    talks(&ours, &theirs);
    for n in 1..4 {
        let ours = world.client.connect(SERVER).unwrap();
        assert!(!ours.protocol().unwrap().is_mptcp());
        assert_eq!(world.asked(), 2 + n, "and not again");
    }
}

#[test]
fn a_path_is_believed_that_mptcp_has_come_through() {
    let world = World::new(Stack::builder(), &[true, true]);
    let plain = MptcpListener::builder(&world.ends[0]).mptcp(false).listen("10.9.0.2:81").unwrap();
    assert!(world.client.connect(SERVER).unwrap().protocol().unwrap().is_mptcp());
    let asked = world.asked();
    let ours = world.client.connect("10.9.0.2:81").unwrap();
    let (theirs, _) = plain.accept().unwrap();
    talks(&theirs, &ours);
    assert!(!ours.protocol().unwrap().is_mptcp());
    assert_eq!(world.asked(), asked + 1);
}

#[test]
fn without_another_answer_the_fallback_is_taken() {
    let world = World::new(Stack::builder(), &[false, true]);
    world.cut[1].store(true, Ordering::Relaxed);
    let ours = world.client.connect(SERVER).unwrap();
    let (theirs, _) = world.listeners[0].accept().unwrap();
    // What the server says first is not lost meanwhile.
    talks(&theirs, &ours);
    assert!(!ours.protocol().unwrap().is_mptcp());
    let asked = world.asked();
    let ours = world.client.connect(SERVER).unwrap();
    assert!(!ours.protocol().unwrap().is_mptcp());
    assert_eq!(world.asked(), asked + 1, "no other is asked for a while");
}

#[test]
fn where_others_refuse_or_there_are_none_the_fallback_is_taken() {
    let mut refusing = World::new(Stack::builder(), &[false, true]);
    refusing.listeners.pop();
    let only = World::new(Stack::builder(), &[false]);
    for world in [refusing, only] {
        let ours = world.client.connect(SERVER).unwrap();
        let (theirs, _) = world.listeners[0].accept().unwrap();
        talks(&ours, &theirs);
        assert!(!ours.protocol().unwrap().is_mptcp());
    }
}

#[test]
fn a_program_that_chooses_the_path_gets_its_answer() {
    let world = World::new(Stack::builder(), &[false, true]);
    let first = world.client.paths().unwrap()[0].id;
    let ours = MptcpStream::builder(&world.client).paths([first]).connect(SERVER).unwrap();
    assert!(!ours.protocol().unwrap().is_mptcp());
    assert_eq!(world.asked(), 1);
}

#[test]
fn captured_connections_do_not_end_at_a_portal_either() {
    for speaks in [[false, true], [false, false]] {
        let (program, captured) = captured_program("192.168.7.5");
        let world = World::new(Stack::builder().path(captured), &speaks);
        let paths = world.client.paths().unwrap();
        let capture = paths.iter().find(|p| p.captures).unwrap().id;
        let forwarder = Forwarder::outward(&world.client, capture, ConnectionConfig::default()).unwrap();
        let dialled = MptcpStream::builder(&program).mptcp(false).connect(SERVER).unwrap();
        // Of two that speak TCP only, the second confirms what the first says.
        let (theirs, _) = world.listeners[usize::from(speaks[1])].accept().unwrap();
        talks(&dialled, &theirs);
        talks(&theirs, &dialled);
        assert_eq!(world.asked(), 2, "{speaks:?}");
        drop(forwarder);
    }
}

#[test]
fn a_captured_connection_takes_the_fallback_when_nobody_else_answers() {
    let (program, captured) = captured_program("192.168.7.5");
    let world = World::new(Stack::builder().path(captured), &[false, true]);
    world.cut[1].store(true, Ordering::Relaxed);
    let paths = world.client.paths().unwrap();
    let capture = paths.iter().find(|p| p.captures).unwrap().id;
    let _forwarder = Forwarder::outward(&world.client, capture, ConnectionConfig::default()).unwrap();
    let dialled = MptcpStream::builder(&program).mptcp(false).connect(SERVER).unwrap();
    let (theirs, _) = world.listeners[0].accept().unwrap();
    talks(&theirs, &dialled);
    talks(&dialled, &theirs);
}

/// Fast Open hands a connection out before there is an answer: it goes on, and its end is heard of.
#[test]
fn fast_open_over_a_path_that_is_not_believed() {
    let file = std::env::temp_dir().join(format!("umptcp-portal-{}", std::process::id()));
    for round in 0..2 {
        let world = World::new(Stack::builder().fast_open_cookies(&file), &[false, false]);
        let mut ours = MptcpStream::builder(&world.client).fast_open(true).connect(SERVER).unwrap();
        ours.write_all(b"?").unwrap();
        let (mut theirs, _) = world.listeners[0].accept().unwrap();
        theirs.read_exact(&mut [0]).unwrap();
        theirs.write_all(b"!").unwrap();
        ours.read_exact(&mut [0]).unwrap();
        // Counted by what the SYN/ACK acknowledges: the server has the data before that reaches the client.
        assert_eq!(world.client.counters().unwrap().get(Counter::TcpFastOpenActive), round);
        theirs.set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(theirs);
        let ended = ours.read(&mut [0]);
        assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset, "the end is heard of");
        world.client.stop(std::time::Duration::ZERO).unwrap();
    }
    std::fs::remove_file(file).unwrap();
}

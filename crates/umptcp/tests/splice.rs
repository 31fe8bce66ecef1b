//! Connections joined by the worker: client, relay and server in one process.
#![cfg(all(target_os = "linux", not(umptcp_portable)))]

mod common;

use common::{PipeDevice, path, pattern, wait_for};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;
use umptcp::{ConnectionError, MptcpListener, MptcpStream, Splice, Stack, StreamBuilder, splice};

/// Three stacks, the middle one between the other two.
struct Chain {
    client: Stack,
    relay: Stack,
    server: Stack,
}

const RELAY: &str = "10.0.0.2:80";
const SERVER: &str = "10.1.0.2:80";

impl Chain {
    fn new() -> Chain {
        let ((a, b), (c, d)) = (PipeDevice::pair(), PipeDevice::pair());
        let relay = Stack::builder().path(path("in", "10.0.0.2", b)).path(path("out", "10.1.0.1", c));
        Chain {
            client: Stack::builder().path(path("client", "10.0.0.1", a)).start().unwrap(),
            relay: relay.start().unwrap(),
            server: Stack::builder().path(path("server", "10.1.0.2", d)).start().unwrap(),
        }
    }

    fn outward(&self) -> StreamBuilder {
        let paths = self.relay.paths().unwrap();
        let out = paths.iter().find(|p| p.name == "out").unwrap().id;
        MptcpStream::builder(&self.relay).paths([out]).mptcp(false)
    }

    /// A connection from client to relay, and one from relay to server.
    fn pairs(&self) -> [(MptcpStream, MptcpStream); 2] {
        let accepting = MptcpListener::builder(&self.relay).advertise_addresses(false).listen(RELAY).unwrap();
        let listening = self.server.listen(SERVER).unwrap();
        let client = MptcpStream::builder(&self.client).mptcp(false).connect(RELAY).unwrap();
        let inward = accepting.accept().unwrap().0;
        let outward = self.outward().connect(SERVER).unwrap();
        let server = listening.accept().unwrap().0;
        [(client, inward), (outward, server)]
    }

    /// The two ends of a splice.
    fn spliced(&self) -> (MptcpStream, MptcpStream, Splice) {
        let [(client, inward), (outward, server)] = self.pairs();
        (client, server, splice(inward, outward).unwrap())
    }
}

#[test]
fn both_directions_pass_with_their_ends() {
    let chain = Chain::new();
    let (client, server, joined) = chain.spliced();
    let (up, down) = (pattern(24 << 20, 1), pattern(16 << 20, 2));
    std::thread::scope(|s| {
        for (mut stream, data) in [(&client, &up), (&server, &down)] {
            s.spawn(move || {
                stream.write_all(data).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
            });
        }
        for (mut stream, data) in [(&client, &down), (&server, &up)] {
            s.spawn(move || {
                let mut got = Vec::new();
                stream.read_to_end(&mut got).unwrap();
                assert!(got == *data, "every byte, in order");
            });
        }
    });
    let result = joined.wait().unwrap();
    assert_eq!((result.from_first, result.from_second), (24 << 20, 16 << 20));
    assert_eq!(result.failed, None);
    wait_for(|| chain.relay.connections().unwrap().is_empty());
}

/// The request ends long before the response does.
#[test]
fn a_direction_that_is_closed_leaves_the_other_open() {
    let chain = Chain::new();
    let (mut client, mut server, joined) = chain.spliced();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    server.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"question");
    for part in [&b"an"[..], b"swer"] {
        std::thread::sleep(Duration::from_millis(50));
        server.write_all(part).unwrap();
    }
    drop(server);
    got.clear();
    client.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"answer");
    assert_eq!(joined.wait().unwrap().failed, None);
}

/// What was written before, and what had come and was not read.
#[test]
fn what_was_under_way_before_is_not_lost() {
    let chain = Chain::new();
    let [(mut client, mut inward), (mut outward, mut server)] = chain.pairs();
    client.write_all(b"head and tail").unwrap();
    let mut head = [0; 4];
    inward.read_exact(&mut head).unwrap();
    outward.write_all(b"CONNECT ").unwrap();
    server.write_all(b"ready").unwrap();
    let joined = splice(inward, outward).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    server.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"CONNECT  and tail");
    drop(server);
    got.clear();
    client.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"ready");
    assert_eq!(joined.wait().unwrap().from_first, 9, "what was read before is not counted");
}

#[test]
fn a_reset_passes_either_way_and_says_whose_it_was() {
    for by_server in [false, true] {
        let chain = Chain::new();
        let (client, server, joined) = chain.spliced();
        let (aborting, mut other) = if by_server { (server, client) } else { (client, server) };
        aborting.set_linger(Some(Duration::ZERO)).unwrap();
        drop(aborting);
        assert_eq!(other.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(joined.wait().unwrap().failed, Some((by_server, ConnectionError::Reset)));
        assert!(chain.relay.connections().unwrap().is_empty());
    }
}

/// A reader that stops is felt by the writer: the relay holds its buffers, and no more.
#[test]
fn a_reader_that_stops_stops_the_writer() {
    let chain = Chain::new();
    let (client, mut server, joined) = chain.spliced();
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let data = pattern(1 << 20, 3);
    let mut written = 0;
    while let Ok(n) = (&client).write(&data[written % data.len()..]) {
        written += n;
        assert!(written < 200 << 20, "it never stops");
    }
    let held: u64 = chain.relay.connections().unwrap().iter().map(|(_, info, _)| info.send_queue).sum();
    assert!(held > 0);
    let mut got = vec![0; written];
    server.read_exact(&mut got).unwrap();
    for (i, piece) in got.chunks(data.len()).enumerate() {
        assert!(piece == &data[..piece.len()], "piece {i}");
    }
    joined.abort().unwrap();
    assert_eq!(joined.wait().unwrap().failed.map(|(_, error)| error), Some(ConnectionError::Aborted));
    assert!(server.read(&mut [0]).is_err() && (&client).read(&mut [0]).is_err());
}

#[test]
fn what_cannot_be_joined_is_refused() {
    let chain = Chain::new();
    let [(client, inward), (outward, _server)] = chain.pairs();
    let twice = splice(inward.try_clone().unwrap(), inward.try_clone().unwrap()).unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::InvalidInput);
    let other_stack = splice(client, inward.try_clone().unwrap()).unwrap_err();
    assert_eq!(other_stack.kind(), ErrorKind::InvalidInput);
    outward.shutdown(Shutdown::Write).unwrap();
    assert_eq!(splice(inward, outward).unwrap_err().kind(), ErrorKind::NotConnected);
}

#[test]
fn a_stack_that_is_stopped_ends_its_splices() {
    let chain = Chain::new();
    let (mut client, mut server, joined) = chain.spliced();
    client.write_all(b"x").unwrap();
    server.read_exact(&mut [0]).unwrap();
    let Chain { relay, .. } = chain;
    let stopped = relay.stop(Duration::from_millis(200));
    assert!(stopped.is_ok(), "nothing was left: {stopped:?}");
    assert_eq!(joined.wait().unwrap().failed.map(|(_, error)| error), Some(ConnectionError::Aborted));
    assert!(client.read(&mut [0]).is_err());
}

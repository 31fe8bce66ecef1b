//! Connections by a relay: the client's end, with a relay that says what the test wants.
#![cfg(all(target_os = "linux", not(umptcp_portable)))]

mod common;

use common::{captured_program, pattern, two_stacks};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;
use umptcp::{
    ConnectionConfig, Counter, Credential, Error, Forwarder, Key, MptcpListener, MptcpStream, Stack, Via,
};
use umptcp_convert::{Connect, ConvertError, Message, Tlv};
use umptcp_relay::request::{Request, unique_time};
use umptcp_relay::{Challenge, Gate, Refusal};

const RELAY: &str = "10.0.0.2:8803";
const SERVER: &str = "192.0.2.80:80";

fn credential() -> Credential {
    Credential { client: "test".parse().unwrap(), key: Key::from([3; 32]) }
}

fn via() -> Via {
    Via::new(RELAY).unwrap().credential(credential())
}

/// A relay that lets one client in.
struct Relay {
    listener: MptcpListener,
    gate: Gate,
    /// How many it has asked to prove that their requests are new.
    challenges: u32,
    /// How many said that they take an answer before the third ACK.
    early: u64,
}

fn gate_since(since: u64) -> Gate {
    Gate::new([credential()], since)
}

impl Relay {
    fn new(stack: &Stack) -> Relay {
        let listener = MptcpListener::builder(stack).fast_open(16).listen(RELAY).unwrap();
        Relay { listener, gate: gate_since(unique_time() - 1_000_000_000_000), challenges: 0, early: 0 }
    }

    /// Accepts a connection, and reads to which server it wants; with what came after that.
    fn asked(&mut self) -> (MptcpStream, SocketAddr, Vec<u8>) {
        let (stream, request, rest) = self.request();
        let Request::Connect(connect) = request else { panic!("a connection is asked for") };
        (stream, connect.peer, rest)
    }

    /// The same, whatever it asks for.
    fn request(&mut self) -> (MptcpStream, Request, Vec<u8>) {
        let (mut stream, _) = self.listener.accept().unwrap();
        let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
        let mut challenge = None;
        loop {
            let n = stream.read(&mut buffer).unwrap();
            assert!(n > 0, "the request is cut short");
            bytes.extend(&buffer[..n]);
            let admitted = self.gate.admit_after(&bytes, challenge, unique_time());
            if let Ok(Some((asked, _))) = Message::decode(&bytes)
                && asked.tlvs.contains(&Tlv::EarlyAnswer)
            {
                stream.answer_early();
                self.early += 1;
            }
            if matches!(admitted, Err(Refusal::Unsure(_))) {
                challenge = Some(Challenge::generate().unwrap());
                self.challenges += 1;
                let answer = message(vec![Tlv::Cookie(challenge.unwrap().to_bytes())]);
                // In pieces, as a network may have it.
                stream.write_all(&answer[..5]).unwrap();
                stream.write_all(&answer[5..]).unwrap();
                bytes.clear();
                continue;
            }
            if let Some((admitted, length)) = admitted.unwrap() {
                assert_eq!(admitted.client.unwrap().as_str(), "test");
                return (stream, admitted.request, bytes.split_off(length));
            }
        }
    }

    /// Answers the next one.
    fn answer(&mut self, answer: &[u8]) -> MptcpStream {
        let (mut stream, server, _) = self.asked();
        assert_eq!(server.to_string(), SERVER);
        stream.write_all(answer).unwrap();
        stream
    }
}

fn message(tlvs: Vec<Tlv>) -> Vec<u8> {
    Message::new(tlvs).encode().unwrap()
}

fn error(error: ConvertError) -> Vec<u8> {
    message(vec![Tlv::Error(error)])
}

/// Two stacks with two links, where the first makes connections by a relay on the second.
fn world() -> (Stack, Relay, Stack) {
    let (client, stack) = two_stacks(2, |s| s);
    let relay = Relay::new(&stack);
    (client, relay, stack)
}

#[test]
fn a_stream_by_a_relay_is_one_with_the_server() {
    let (client, mut relay, _stack) = world();
    let (up, down) = (pattern(3_000_000, 1), pattern(2_000_000, 2));
    std::thread::scope(|s| {
        s.spawn(|| {
            // The first bytes of the server come with the answer.
            let mut stream = relay.answer(&[&message(vec![])[..], &down[..7]].concat());
            stream.write_all(&down[7..]).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            assert!(got == up, "every byte, in order");
        });
        let mut stream = MptcpStream::builder(&client).via(via()).connect(SERVER).unwrap();
        assert_eq!(stream.peer_addr().unwrap().to_string(), SERVER);
        assert!(stream.protocol().unwrap().is_mptcp());
        let reader = stream.clone();
        let read = s.spawn(move || {
            let mut got = Vec::new();
            (&reader).read_to_end(&mut got).unwrap();
            got
        });
        stream.write_all(&up).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(read.join().unwrap() == down, "every byte, in order");
    });
}

#[test]
fn a_relay_that_has_just_begun_challenges_and_is_answered() {
    let (client, mut relay, _stack) = world();
    for round in 1..=2 {
        relay.gate = gate_since(unique_time());
        std::thread::scope(|s| {
            s.spawn(|| drop(relay.answer(&[&message(vec![])[..], b"first"].concat())));
            let mut stream = MptcpStream::builder(&client).via(via()).connect(SERVER).unwrap();
            let mut got = [0; 5];
            stream.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"first");
        });
        assert_eq!(relay.challenges, round);
    }
    // One that does so again and again is none.
    let again = message(vec![Tlv::Cookie(vec![1; 16])]);
    for answer in [[&again[..], &again[..]].concat(), message(vec![Tlv::Cookie(vec![1; 8])])] {
        relay.gate = gate_since(unique_time() - 1_000_000_000_000);
        let failed = std::thread::scope(|s| {
            s.spawn(|| drop(relay.answer(&answer)));
            MptcpStream::builder(&client).via(via()).connect(SERVER).unwrap_err()
        });
        assert_eq!(failed.kind(), ErrorKind::InvalidData, "{failed}");
    }
}

#[test]
fn errors_are_those_of_the_server_and_the_network() {
    let (client, mut relay, _stack) = world();
    let code = |code| error(ConvertError::DestinationUnreachable { code });
    for (answer, kind) in [
        (error(ConvertError::ConnectionReset), ErrorKind::ConnectionRefused),
        (code(0), ErrorKind::NetworkUnreachable),
        (code(1), ErrorKind::HostUnreachable),
        (code(2), ErrorKind::Unsupported),
        (code(3), ErrorKind::ConnectionRefused),
        (code(13), ErrorKind::HostUnreachable),
        (error(ConvertError::NetworkFailure { delay: 0 }), ErrorKind::TimedOut),
    ] {
        let failed = std::thread::scope(|s| {
            s.spawn(|| drop(relay.answer(&answer)));
            MptcpStream::builder(&client).via(via()).connect(SERVER).unwrap_err()
        });
        assert_eq!(failed.kind(), kind, "{failed}");
        let Some(Error::Connection { remote, .. }) = failed.get_ref().and_then(|e| e.downcast_ref()) else {
            panic!("{failed:?}")
        };
        assert_eq!(remote.to_string(), SERVER, "{failed}");
    }
}

#[test]
fn what_a_relay_does_not_do_is_its_own_error() {
    let (client, mut relay, _stack) = world();
    for (answer, kind, says) in [
        (error(ConvertError::NotAuthorized), ErrorKind::PermissionDenied, "not authorized"),
        (error(ConvertError::ResourceExceeded { delay: 9 }), ErrorKind::QuotaExceeded, "exceeded"),
        (error(ConvertError::malformed(&[1; 8])), ErrorKind::Unsupported, "malformed"),
        (b"HTTP/1.1 400 Bad Request\r\n".to_vec(), ErrorKind::InvalidData, "none of a relay's"),
        (message(vec![Tlv::Info]), ErrorKind::InvalidData, "not to what was asked"),
        (vec![1], ErrorKind::ConnectionReset, "has not answered"),
    ] {
        let failed = std::thread::scope(|s| {
            s.spawn(|| drop(relay.answer(&answer)));
            MptcpStream::builder(&client).via(via()).connect(SERVER).unwrap_err()
        });
        assert_eq!(failed.kind(), kind, "{failed}");
        let text = failed.to_string();
        assert!(text.contains(says) && text.contains(RELAY) && text.contains(SERVER), "{text}");
    }
    // Nobody is there.
    drop(relay);
    let failed = MptcpStream::builder(&client).via(via()).connect(SERVER).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::ConnectionRefused);
    assert!(failed.to_string().contains(RELAY), "{failed}");
    let failed = MptcpStream::builder(&client).via(via()).connect("127.0.0.1:80").unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::InvalidInput, "{failed}");
}

#[test]
fn a_relay_is_asked_once_however_long_it_takes() {
    let (client, mut relay, _stack) = world();
    std::thread::scope(|s| {
        let serving = s.spawn(|| {
            let (mut stream, _, _) = relay.asked();
            // Longer than until another path is tried.
            let other = relay.listener.accept_timeout(Duration::from_millis(800));
            assert_eq!(other.unwrap_err().kind(), ErrorKind::WouldBlock, "nobody else comes");
            stream.write_all(&message(vec![])).unwrap();
            stream
        });
        let stream = MptcpStream::builder(&client).via(via()).connect(SERVER).unwrap();
        drop((stream, serving.join().unwrap()));
        // And a limit of the program's holds.
        let limit = Duration::from_millis(300);
        let failed =
            MptcpStream::builder(&client).via(via()).connect_timeout(limit).connect(SERVER).unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::TimedOut);
        assert!(failed.to_string().contains(SERVER), "{failed}");
    });
}

#[test]
fn the_request_comes_with_the_syn_once_there_is_a_cookie() {
    let (client, mut relay, stack) = world();
    for round in 0..3 {
        std::thread::scope(|s| {
            s.spawn(|| drop(relay.answer(&message(vec![]))));
            let stream = MptcpStream::builder(&client).via(via()).connect(SERVER).unwrap();
            assert!(stream.protocol().unwrap().is_mptcp());
        });
        assert_eq!(relay.early, round, "round {round}");
        let [sent, taken] = [(&client, Counter::TcpFastOpenActive), (&stack, Counter::TcpFastOpenPassive)]
            .map(|(stack, counter)| stack.counters().unwrap().get(counter));
        assert_eq!((sent, taken), (round, round), "round {round}");
    }
}

#[test]
fn the_relay_and_excepted_networks_are_reached_directly() {
    let (client, relay) = two_stacks(1, |s| s.via(via().except(["10.9.0.0/16".parse().unwrap()])));
    let listener = relay.listen("10.0.0.2:80").unwrap();
    let stream = client.connect("10.0.0.2:80").unwrap();
    assert!(listener.accept().is_ok());
    drop(stream);
    let direct = MptcpStream::builder(&client).via(None).connect_timeout(Duration::from_millis(50));
    assert_eq!(direct.connect("10.0.0.2:81").unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn captured_connections_go_by_the_relay() {
    let (program, captured) = captured_program("192.168.7.5");
    let (client, stack) = two_stacks(2, |s| s.via(via()));
    let mut relay = Relay::new(&stack);
    let path = client.add_path(captured).unwrap();
    let forwarder = Forwarder::outward(&client, path, ConnectionConfig::default()).unwrap();
    let dial = || MptcpStream::builder(&program).mptcp(false).connect(SERVER);
    for (answer, kind) in [
        (error(ConvertError::ConnectionReset), ErrorKind::ConnectionRefused),
        (error(ConvertError::DestinationUnreachable { code: 0 }), ErrorKind::NetworkUnreachable),
        (error(ConvertError::NotAuthorized), ErrorKind::HostUnreachable),
    ] {
        let failed = std::thread::scope(|s| {
            s.spawn(|| drop(relay.answer(&answer)));
            dial().unwrap_err()
        });
        assert_eq!(failed.kind(), kind, "{failed}");
    }
    let (up, down) = (pattern(500_000, 3), pattern(700_000, 4));
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut stream = relay.answer(&[&message(vec![])[..], &down[..]].concat());
            stream.shutdown(Shutdown::Write).unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            assert!(got == up, "every byte, in order");
        });
        let mut stream = dial().unwrap();
        stream.write_all(&up).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        assert!(got == down, "every byte, in order");
    });
    assert_eq!(forwarder.summary().joined, 1);
}

#[test]
fn names_go_to_a_relay_that_resolves_them() {
    let (client, mut relay, _stack) = world();
    let name = |host: &str| MptcpStream::builder(&client).via(via().resolve(true)).connect_name(host, 443);
    for (answer, kind) in [
        (message(vec![Tlv::Connect(Connect::new(SERVER.parse().unwrap()))]), None),
        (error(ConvertError::NoSuchName), Some(ErrorKind::Unsupported)),
        (error(ConvertError::NotAuthorized), Some(ErrorKind::PermissionDenied)),
        (error(ConvertError::ConnectionReset), Some(ErrorKind::ConnectionRefused)),
    ] {
        let connected = std::thread::scope(|s| {
            s.spawn(|| {
                let (mut stream, request, _) = relay.request();
                let Request::ConnectName(asked) = request else { panic!("{request:?}") };
                assert_eq!((asked.host.as_str(), asked.port), ("web.example", 443));
                stream.write_all(&answer).unwrap();
            });
            name("web.example")
        });
        match kind {
            None => assert_eq!(connected.unwrap().peer_addr().unwrap().to_string(), SERVER),
            Some(kind) => assert_eq!(connected.unwrap_err().kind(), kind),
        }
    }
    assert_eq!(name("no name").unwrap_err().kind(), ErrorKind::InvalidInput);
    // An address is none.
    std::thread::scope(|s| {
        s.spawn(|| assert_eq!(relay.asked().1.to_string(), "192.0.2.9:443"));
        assert!(name("192.0.2.9").is_err());
    });
    // The server is who was asked for, whatever a relay says.
    let other = message(vec![Tlv::Connect(Connect::new("192.0.2.9:1".parse().unwrap()))]);
    std::thread::scope(|s| {
        s.spawn(|| drop(relay.answer(&other)));
        let stream = MptcpStream::builder(&client).via(via()).connect(SERVER).unwrap();
        assert_eq!(stream.peer_addr().unwrap().to_string(), SERVER);
    });
}

#[test]
fn a_published_port_brings_who_comes_in() {
    let (client, mut relay, _stack) = world();
    let builder = || MptcpStream::builder(&client).via(via());
    let visitor = message(vec![Tlv::Connect(Connect::new("192.0.2.9:5000".parse().unwrap()))]);
    std::thread::scope(|s| {
        s.spawn(|| {
            let (mut stream, request, _) = relay.request();
            assert_eq!(request, Request::Publish(8080));
            stream.write_all(&message(vec![])).unwrap();
            stream.write_all(&[&visitor[..], b"hello"].concat()).unwrap();
        });
        let mut stream = builder().publish(8080).unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        assert_eq!(got, [&visitor[..], b"hello"].concat());
    });
    let failed = std::thread::scope(|s| {
        s.spawn(|| relay.request().0.write_all(&error(ConvertError::NotAuthorized)).unwrap());
        builder().publish(80).unwrap_err()
    });
    assert_eq!(failed.kind(), ErrorKind::PermissionDenied, "{failed}");
    let alone = MptcpStream::builder(&client).publish(80).unwrap_err();
    assert_eq!(alone.kind(), ErrorKind::InvalidInput);
}

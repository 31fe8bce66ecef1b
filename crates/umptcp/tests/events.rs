//! What programs are told that watch a stack.
#![cfg(all(target_os = "linux", not(umptcp_portable)))]

mod common;

use common::{PipeDevice, path, two_stacks, wait_for};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;
use umptcp::{
    AddressId, ConnectionError, Events, MonitorEvent, MonitoredConnection, MptcpListener, MptcpStream, Stack,
};

const SERVER: &str = "10.0.0.2:80";

const PATIENCE: Duration = Duration::from_secs(30);

/// The first event that `pick` takes, others are passed over.
fn wait<T>(events: &Events, pick: impl Fn(MonitorEvent) -> Option<T>) -> T {
    loop {
        if let Some(found) = pick(events.recv_timeout(PATIENCE).expect("an event").what) {
            return found;
        }
    }
}

/// The name of an event, and its connection.
fn name(event: &MonitorEvent) -> (&'static str, Option<MonitoredConnection>) {
    match event {
        MonitorEvent::PathAdded { .. } => ("path added", None),
        MonitorEvent::PathRemoved { .. } => ("path removed", None),
        MonitorEvent::ListenerCreated { .. } => ("listener created", None),
        MonitorEvent::ListenerClosed { .. } => ("listener closed", None),
        MonitorEvent::ConnectionCreated { connection } => ("created", Some(*connection)),
        MonitorEvent::ConnectionEstablished { connection } => ("established", Some(*connection)),
        MonitorEvent::FellBack { connection, .. } => ("fell back", Some(*connection)),
        MonitorEvent::ConnectionClosed { connection, .. } => ("closed", Some(*connection)),
        MonitorEvent::AddressAnnounced { connection, .. } => ("announced", Some(*connection)),
        MonitorEvent::AddressRemoved { connection, .. } => ("removed", Some(*connection)),
        MonitorEvent::SubflowEstablished { connection, .. } => ("subflow established", Some(*connection)),
        MonitorEvent::SubflowClosed { connection, .. } => ("subflow closed", Some(*connection)),
        MonitorEvent::JoinFailed { connection, .. } => ("join failed", Some(*connection)),
        MonitorEvent::PriorityChanged { connection, .. } => ("priority", Some(*connection)),
        other => panic!("{other:?}"),
    }
}

fn connected(a: &Stack, b: &Stack) -> (MptcpStream, MptcpStream) {
    let listener = b.listen(SERVER).unwrap();
    let client = a.connect(SERVER).unwrap();
    let server = listener.accept().unwrap().0;
    (&client).write_all(b"x").unwrap();
    (&server).read_exact(&mut [0]).unwrap();
    (client, server)
}

#[test]
fn the_life_of_a_connection_is_told_at_both_ends() {
    let (a, b) = two_stacks(2, |s| s);
    let (at_client, at_server) = (a.events().unwrap(), b.events().unwrap());
    let (mut client, mut server) = connected(&a, &b);
    for (events, stream, is_server) in [(&at_client, &client, false), (&at_server, &server, true)] {
        let created = wait(events, |event| match event {
            MonitorEvent::ConnectionCreated { connection } => Some(connection),
            _ => None,
        });
        let ends = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        assert_eq!((created.local, created.remote), ends);
        assert_eq!((created.id, created.server), (stream.id(), is_server));
        assert_eq!((created.token, created.token.is_some()), (stream.info().unwrap().token, true));
        let established = wait(events, |event| match event {
            MonitorEvent::ConnectionEstablished { connection } => Some(connection),
            _ => None,
        });
        assert_eq!(established, created);
        let subflow = |event| match event {
            MonitorEvent::SubflowEstablished { connection, subflow } => {
                assert_eq!(connection, created);
                Some(subflow)
            }
            _ => None,
        };
        let first = wait(events, subflow);
        assert_eq!((first.local, first.remote, first.initial, first.backup), (ends.0, ends.1, true, false));
        assert_eq!((first.local_id, first.remote_id), (AddressId(0), AddressId(0)));
        // One from the client's other path, and one to the server's other address.
        for joined in [wait(events, subflow), wait(events, subflow)] {
            assert!(!joined.initial && joined.id != first.id);
            let known = stream.subflows().unwrap().into_iter().find(|s| s.id == joined.id).unwrap();
            assert_eq!((joined.local, joined.remote), (known.local, known.remote));
            assert_eq!(joined.local_id == AddressId(0), joined.local.ip() == first.local.ip());
            assert_eq!(joined.remote_id == AddressId(0), joined.remote.ip() == first.remote.ip());
        }
    }
    let (ids, end) = ([client.id(), server.id()], std::net::Shutdown::Write);
    client.shutdown(end).unwrap();
    server.shutdown(end).unwrap();
    client.read_to_end(&mut Vec::new()).unwrap();
    server.read_to_end(&mut Vec::new()).unwrap();
    drop((client, server));
    for (events, id) in [(&at_client, ids[0]), (&at_server, ids[1])] {
        let mut names = Vec::new();
        while names.len() < 4 {
            let (name, connection) = name(&events.recv_timeout(PATIENCE).expect("an event").what);
            if let Some(connection) = connection.filter(|_| name != "announced") {
                assert_eq!(connection.id, id);
                names.push(name);
            }
        }
        // A connection ends when all data have been acknowledged, its subflows when their FINs have been.
        names.sort_unstable();
        assert_eq!(names, ["closed", "subflow closed", "subflow closed", "subflow closed"]);
    }
    // Once.
    drop((a, b));
    for events in [at_client, at_server] {
        let rest: Vec<_> = events.map(|event| name(&event.what).0).collect();
        assert_eq!(rest, Vec::<&str>::new());
    }
}

#[test]
fn signals_of_the_peer_and_of_ours_are_told() {
    let (a, b) = two_stacks(2, |s| s);
    let (client, server) = connected(&a, &b);
    wait_for(|| client.subflows().unwrap().len() >= 2 && server.subflows().unwrap().len() >= 2);
    let (at_client, at_server) = (a.events().unwrap(), b.events().unwrap());
    let changed = client.subflows().unwrap()[1].id;
    let priority = |event| match event {
        MonitorEvent::PriorityChanged { connection, subflow, by_peer } => {
            assert!(connection.token.is_some());
            Some((subflow.local, subflow.remote, subflow.backup, by_peer))
        }
        _ => None,
    };
    client.set_backup(changed, true).unwrap();
    let (local, remote, backup, by_peer) = wait(&at_client, priority);
    assert_eq!((backup, by_peer), (true, false));
    assert_eq!(wait(&at_server, priority), (remote, local, true, true));

    let address: SocketAddr = "10.0.0.99:99".parse().unwrap();
    let id = server.advertise_address(address.ip(), Some(address.port())).unwrap();
    let announced = |event| match event {
        MonitorEvent::AddressAnnounced { id, address, .. } => Some((id, address)),
        _ => None,
    };
    assert_eq!(wait(&at_client, announced), (id, address));
    server.withdraw_address(id).unwrap();
    let removed = |event| match event {
        MonitorEvent::AddressRemoved { id, .. } => Some(id),
        MonitorEvent::PriorityChanged { .. } => panic!("told twice"),
        _ => None,
    };
    assert_eq!(wait(&at_client, removed), id);
}

#[test]
fn what_ends_otherwise_is_told_with_its_reason() {
    let (a, b) = two_stacks(1, |s| s);
    let events = a.events().unwrap();
    a.connect("10.0.0.2:9").unwrap_err();
    let closed = |event| match event {
        MonitorEvent::ConnectionClosed { connection, error } => Some((connection, error)),
        _ => None,
    };
    assert_eq!(wait(&events, closed).1, Some(ConnectionError::Refused));
    let (client, server) = connected(&a, &b);
    server.abort();
    let (connection, error) = wait(&events, closed);
    assert_eq!((connection.id, error), (client.id(), Some(ConnectionError::Reset)));
    // Plain TCP has no token.
    let listener = MptcpListener::builder(&b).mptcp(false).listen(SERVER).unwrap();
    let client = a.connect(SERVER).unwrap();
    let (server, _) = listener.accept().unwrap();
    let established = wait(&events, |event| match event {
        MonitorEvent::ConnectionEstablished { connection } => Some(connection),
        _ => None,
    });
    assert_eq!((established.id, established.token), (client.id(), None));
    server.abort();
    let (error, reset) = wait(&events, |event| match event {
        MonitorEvent::SubflowClosed { error, reset, .. } => Some((error, reset)),
        _ => None,
    });
    assert_eq!(error, Some(ConnectionError::Reset));
    assert!(reset.unwrap().by_peer);
    // One that the application aborts.
    let client = a.connect(SERVER).unwrap();
    let id = client.id();
    client.abort();
    let ended = |event| closed(event).filter(|(connection, _)| connection.id == id);
    assert_eq!(wait(&events, ended).1, Some(ConnectionError::Aborted));
}

#[test]
fn paths_and_listeners_are_told() {
    let (a, _b) = two_stacks(1, |s| s);
    let events = a.events().unwrap();
    let (x, _y) = PipeDevice::pair();
    let added = a.add_path(path("more", "10.7.0.1", x)).unwrap();
    let found = wait(&events, |event| match event {
        MonitorEvent::PathAdded { path, name, addresses } => Some((path, name, addresses)),
        _ => None,
    });
    assert_eq!(found, (added, "more".to_owned(), vec!["10.7.0.1".parse().unwrap()]));
    let listener = a.listen("10.7.0.1:7").unwrap();
    let listening = |event| match event {
        MonitorEvent::ListenerCreated { listener, local }
        | MonitorEvent::ListenerClosed { listener, local } => Some((listener, local)),
        _ => None,
    };
    let opened = wait(&events, listening);
    assert_eq!(opened.1, listener.local_addr().unwrap());
    drop(listener);
    assert_eq!(wait(&events, listening), opened);
    assert!(a.remove_path(added).unwrap());
    let removed = |event| match event {
        MonitorEvent::PathRemoved { path, name } => Some((path, name)),
        _ => None,
    };
    assert_eq!(wait(&events, removed), (added, "more".to_owned()));
}

#[test]
fn a_slow_reader_is_told_how_much_it_has_missed() {
    let (a, _b) = two_stacks(1, |s| s);
    let (slow, quick) = (a.events_with_room(5).unwrap(), a.events().unwrap());
    for _ in 0..20 {
        a.listen("10.0.0.1:0").unwrap();
    }
    // It is closed after it was opened: all are there.
    drop(a);
    assert_eq!(quick.count(), 40);
    let told: Vec<_> = slow.map(|event| event.what).collect();
    assert_eq!(told.len(), 6);
    assert!(told[..5].iter().all(|what| name(what).1.is_none()));
    assert_eq!(told[5], MonitorEvent::Missed { events: 35 });
}

#[test]
fn readers_wait_by_thread_descriptor_or_task() {
    let (a, _b) = two_stacks(1, |s| s);
    let events = a.events().unwrap();
    assert_eq!(events.try_recv().unwrap_err().kind(), ErrorKind::WouldBlock);
    let readiness = events.readiness().unwrap();
    assert!(!readiness.is_readable() && !readiness.is_writable());
    let listener = a.listen("10.0.0.1:7").unwrap();
    let mut fds = [PollFd::new(readiness.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::from(30_000u16)).unwrap(), 1);
    assert!(events.recv().unwrap().at.elapsed().unwrap() < PATIENCE);
    assert!(!readiness.is_readable());

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut events = umptcp::tokio::Events::from(events);
        for n in 0..10 {
            // A future that is dropped loses nothing.
            let limit = Duration::from_millis(1);
            assert!(tokio::time::timeout(limit, events.recv()).await.is_err(), "{n}");
        }
        let mut told = tokio::spawn(async move {
            let first = events.recv().await.unwrap();
            (first, events.recv().await.unwrap_err(), events)
        });
        let limit = Duration::from_millis(10);
        assert!(tokio::time::timeout(limit, &mut told).await.is_err());
        drop(listener);
        tokio::task::spawn_blocking(move || drop(a)).await.unwrap();
        let (first, end, events) = told.await.unwrap();
        assert!(matches!(first.what, MonitorEvent::ListenerClosed { .. }));
        assert_eq!(end.kind(), ErrorKind::NotConnected);
        assert_eq!(Events::from(events).recv().unwrap_err().kind(), ErrorKind::NotConnected);
    });
}

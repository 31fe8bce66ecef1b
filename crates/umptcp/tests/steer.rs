//! Steering a stack from outside of the code that holds its connections.
#![cfg(all(target_os = "linux", not(umptcp_portable)))]

mod common;

use common::{two_stacks, wait_for};
use std::io::{ErrorKind, Read, Write};
use umptcp::{ConnectionId, ConnectionOption, PathId, PathSpec, SetError, SubflowError, SubflowId};

const SERVER: &str = "10.0.0.2:80";

#[test]
fn connections_are_steered_by_their_ids_while_data_flow() {
    let (a, b) = two_stacks(2, |s| s);
    let listener = b.listen(SERVER).unwrap();
    let client = a.connect(SERVER).unwrap();
    let mut server = listener.accept().unwrap().0;
    (&client).write_all(b"x").unwrap();
    server.read_exact(&mut [0]).unwrap();
    wait_for(|| client.subflows().unwrap().len() == 3);
    let id = client.id();
    let paths = a.paths().unwrap();
    assert!(paths.iter().all(|p| !p.backup && !p.captures));

    // Another, and one less: the client joined to the server's second address by one of its paths.
    let opened = a.open_subflow(id, paths[1].id, None).unwrap().expect("it is opened");
    let established = |wanted: SubflowId| {
        client.subflows().unwrap().iter().any(|s| s.id == wanted && s.state == "ESTABLISHED")
    };
    wait_for(|| established(opened));
    for subflow in client.subflows().unwrap().iter().filter(|s| !s.initial) {
        a.close_subflow(id, subflow.id).unwrap().expect("it is closed");
    }
    wait_for(|| client.subflows().unwrap().len() == 1);
    assert_eq!(a.close_subflow(id, SubflowId(0)).unwrap(), Err(SubflowError::Only));
    (&client).write_all(b"y").unwrap();
    server.read_exact(&mut [0]).unwrap();
    assert_eq!(a.open_subflow(ConnectionId(99), PathId(0), None).unwrap(), Err(SubflowError::NotFound));

    // A path's priority, at both ends.
    assert!(a.set_path_backup(paths[0].id, true).unwrap());
    wait_for(|| server.subflows().unwrap().iter().all(|s| s.backup));
    assert!(a.paths().unwrap()[0].backup && !a.set_path_backup(PathId(99), true).unwrap());

    a.set_scheduler(id, "round-robin").unwrap().unwrap();
    a.set_congestion(id, "olia").unwrap().unwrap();
    a.set_option(id, ConnectionOption::MaxSubflows(3)).unwrap().unwrap();
    let info = client.info().unwrap();
    assert_eq!((&*info.scheduler, &*info.congestion, info.max_subflows), ("round-robin", "olia", 3));
    assert!(matches!(a.set_scheduler(id, "none").unwrap(), Err(SetError::UnknownName { .. })));
}

#[test]
fn a_stack_without_nics_takes_none() {
    let (a, _b) = two_stacks(1, |s| s);
    assert_eq!(a.add_nic(&PathSpec::new("lo")).unwrap_err().kind(), ErrorKind::Unsupported);
}

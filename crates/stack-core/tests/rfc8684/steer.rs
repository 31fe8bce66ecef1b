//! Subflows, limits and priorities that the application steers while a connection runs.

use crate::peer::{Lab, Out, Seen, bytes, peer_address, stack_address};
use std::net::SocketAddr;
use umptcp_stack_core::config::{ConnectionConfig, ConnectionOption};
use umptcp_stack_core::device::{Families, PathConfig};
use umptcp_stack_core::error::SubflowError;
use umptcp_stack_core::types::{AddressId, ConnectionId, Duration, PathId, SubflowId};
use umptcp_stack_core::wire::mptcp::{MpJoin, MpPrio, MptcpOption};

fn is_join_syn(s: &Seen) -> bool {
    s.seg.flags.syn && s.has(|o| matches!(o, MptcpOption::Join(MpJoin::Syn { .. })))
}

/// A client with that many subflows, each over a path of its own.
fn client(paths: u8) -> Lab {
    let mut l = Lab::client(ConnectionConfig::default(), paths);
    l.write(100);
    l.ack(0);
    for _ in 1..paths {
        l.accept_join(0);
    }
    l.take_all();
    l
}

#[test]
fn a_subflow_is_opened_where_the_application_wants_it() {
    let mut l = client(1);
    let id = l.stack.open_subflow(l.now, l.conn, PathId(0), None).expect("it is opened");
    l.poll();
    let second = l.accept_join(0);
    let infos = l.subflows();
    assert_eq!((infos.len(), infos[1].id, infos[1].initial, infos[0].initial), (2, id, false, true));
    assert_eq!((infos[0].remote, infos[0].local.ip()), (infos[1].remote, infos[1].local.ip()));
    // It carries data.
    l.take_all();
    l.data(second, 1, 100);
    assert_eq!(l.received, bytes(1, 100));
    // To another address of the peer's.
    let other = SocketAddr::new(peer_address(9), 4000);
    l.stack.open_subflow(l.now, l.conn, PathId(0), Some(other)).expect("it is opened");
    l.poll();
    assert!(l.take(|s| is_join_syn(s) && s.to == other).is_some());
}

#[test]
fn a_subflow_that_cannot_be_is_an_error_and_sends_nothing() {
    let mut l = client(2);
    let v6: SocketAddr = "[2001:db8::1]:80".parse().expect("an address");
    for (connection, path, remote, error) in [
        (ConnectionId(99), PathId(0), None, SubflowError::NotFound),
        (l.conn, PathId(7), None, SubflowError::NoAddress),
        (l.conn, PathId(0), Some(v6), SubflowError::NoAddress),
    ] {
        assert_eq!(l.stack.open_subflow(l.now, connection, path, remote), Err(error));
    }
    l.stack.path_down(l.now, PathId(1), Families::BOTH);
    assert_eq!(l.stack.open_subflow(l.now, l.conn, PathId(1), None), Err(SubflowError::NoAddress));
    l.stack.set_option(l.now, l.conn, ConnectionOption::MaxSubflows(1)).expect("it is set");
    assert_eq!(l.stack.open_subflow(l.now, l.conn, PathId(0), None), Err(SubflowError::Limit));
    assert_eq!(l.stack.close_subflow(l.now, l.conn, SubflowId(99)), Err(SubflowError::NoSubflow));
    assert_eq!(l.stack.close_subflow(l.now, ConnectionId(99), SubflowId(0)), Err(SubflowError::NotFound));
    l.poll();
    assert!(l.take(is_join_syn).is_none());

    let mut early = Lab::client_unconfirmed(ConnectionConfig::default(), 1);
    let opened = early.stack.open_subflow(early.now, early.conn, PathId(0), None);
    assert_eq!(opened, Err(SubflowError::TooEarly));

    let mut plain = Lab::server(ConnectionConfig::default(), 1);
    plain.send(0, Out::default().payload(bytes(1, 10)));
    let opened = plain.stack.open_subflow(plain.now, plain.conn, PathId(0), None);
    assert_eq!(opened, Err(SubflowError::NotMptcp));
    let closed = plain.stack.close_subflow(plain.now, plain.conn, SubflowId(0));
    assert_eq!(closed, Err(SubflowError::NotMptcp));
}

#[test]
fn a_subflow_that_was_closed_stays_away_until_it_is_needed() {
    let mut l = client(2);
    let closed = l.subflows()[1].clone();
    l.stack.close_subflow(l.now, l.conn, closed.id).expect("it is closed");
    l.poll();
    let fin = l.take(|s| s.seg.flags.fin).expect("FIN");
    assert_eq!(fin.flow, Some(1));
    l.send(1, Out { fin: true, ..Out::default() });
    assert_eq!(l.stack.close_subflow(l.now, l.conn, SubflowId(0)), Err(SubflowError::Only));
    l.take_all();
    // Data goes on over the other.
    l.write(1000);
    let data = l.take(|s| !s.payload.is_empty()).expect("data");
    assert_eq!(data.flow, Some(0));
    l.ack(0);
    l.advance(Duration::from_secs(300));
    assert!(l.take(is_join_syn).is_none(), "the path manager opens none in its place");
    l.stack.path_removed(l.now, PathId(0));
    l.poll();
    let join = l.advance_until(Duration::from_secs(2), is_join_syn).expect("the path is needed");
    assert_eq!(join.from.ip(), closed.local.ip());
}

#[test]
fn subflows_of_a_path_become_backups_and_their_peers_are_told() {
    let mut l = client(2);
    for backup in [true, false] {
        assert!(l.stack.set_path_backup(l.now, PathId(1), backup));
        l.poll();
        let prio = MptcpOption::Prio(MpPrio { backup, address_id: None });
        let said = l.advance_until(Duration::from_millis(150), |s| s.has(|o| *o == prio)).expect("MP_PRIO");
        assert_eq!(said.flow, Some(1));
        let backups: Vec<bool> = l.subflows().iter().map(|s| s.backup).collect();
        assert_eq!(backups, [false, backup]);
    }
    // Later ones say it with their SYN.
    l.stack.set_path_backup(l.now, PathId(1), true);
    l.stack.open_subflow(l.now, l.conn, PathId(1), None).expect("it is opened");
    l.poll();
    let backup = |o: &MptcpOption| matches!(o, MptcpOption::Join(MpJoin::Syn { backup: true, .. }));
    assert!(l.take(|s| s.seg.flags.syn && s.has(backup)).is_some());
    assert!(!l.stack.set_path_backup(l.now, PathId(9), true));
}

#[test]
fn limits_hold_from_when_they_are_changed() {
    let mut l = client(1);
    l.stack.set_option(l.now, l.conn, ConnectionOption::MaxSubflows(1)).expect("it is set");
    l.stack.path_added(l.now, PathConfig::new("late", stack_address(1)));
    l.poll();
    assert!(l.take(is_join_syn).is_none());
    l.stack.set_option(l.now, l.conn, ConnectionOption::MaxSubflows(2)).expect("it is set");
    l.poll();
    assert!(l.take(is_join_syn).is_some(), "there is room now");
    let info = l.stack.info(l.conn).expect("info");
    assert_eq!((info.max_subflows, info.max_add_addr_accepted), (2, 8));

    let mut l = client(1);
    for (most, id, taken) in [(0, 1, false), (1, 2, true), (1, 3, false)] {
        l.stack.set_option(l.now, l.conn, ConnectionOption::MaxAddAddrAccepted(most)).expect("it is set");
        let address = SocketAddr::new(peer_address(id), 4000);
        let option = l.add_addr(id, address, false);
        l.send(0, Out::options([option.into()]));
        l.poll();
        assert_eq!(l.take(|s| is_join_syn(s) && s.to.ip() == address.ip()).is_some(), taken, "{id}");
    }
}

#[test]
fn the_state_shows_ids_and_sequence_numbers() {
    let mut l = client(2);
    let info = l.stack.info(l.conn).expect("info");
    let before = info.sequence.expect("it is MPTCP");
    assert!(info.remote_token.is_some());
    assert_eq!(before.write_next, before.send_unacknowledged, "the peer has acknowledged all");
    l.data(0, 1, 100);
    l.write(50);
    let after = l.stack.info(l.conn).expect("info").sequence.expect("it is MPTCP");
    assert_eq!(after.receive_next.wrapping_sub(before.receive_next), 100);
    assert_eq!(after.write_next.wrapping_sub(after.send_unacknowledged), 50);
    assert_eq!(l.subflows()[0].local_id, AddressId(0));
    assert_ne!(l.subflows()[1].local_id, AddressId(0));
}

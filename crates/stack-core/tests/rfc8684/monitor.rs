//! What those are told who watch the stack.

use super::peer::{Lab, Out, bytes, peer_address, stack_address};
use std::net::SocketAddr;
use umptcp_stack_core::config::{ConnectionConfig, ListenOptions};
use umptcp_stack_core::error::{ConnectionError, FallbackReason};
use umptcp_stack_core::event::SubflowReset;
use umptcp_stack_core::monitor::{MonitorEvent, Monitored, MonitoredConnection};
use umptcp_stack_core::types::{AddressId, Duration};
use umptcp_stack_core::wire::mptcp::{MpPrio, MpTcpRst, MptcpOption, RemoveAddr, ResetReason};

fn told(l: &mut Lab) -> Vec<Monitored> {
    std::iter::from_fn(|| l.stack.poll_monitor()).collect()
}

/// The one thing that was told.
fn one(l: &mut Lab) -> MonitorEvent {
    let mut all = told(l);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0).event
}

fn watched(mut l: Lab) -> Lab {
    assert!(l.stack.poll_monitor().is_none(), "nobody has watched");
    l.stack.watch(100);
    l
}

#[test]
fn a_reset_is_told_with_its_reason() {
    let mut l = watched(Lab::client(ConnectionConfig::default(), 2));
    let second = l.accept_join(5);
    let MonitorEvent::SubflowEstablished { connection, subflow } = one(&mut l) else { panic!("established") };
    let info = l.stack.info(l.conn).unwrap();
    assert_eq!((connection.id, connection.token, connection.server), (l.conn, info.token, false));
    assert_eq!((connection.local, connection.remote), (info.local, info.remote));
    assert_eq!((subflow.local, subflow.remote), (l.flows[second].stack, l.flows[second].peer));
    assert_eq!(subflow.remote_id, AddressId(5), "as the peer says");
    assert!(subflow.local_id != AddressId(0) && !subflow.initial);
    let reason = MpTcpRst { transient: true, reason: ResetReason::UnacceptablePerformance.into() };
    l.send(second, Out { rst: true, options: vec![MptcpOption::Reset(reason)], ..Out::default() });
    let reason = Some(ResetReason::UnacceptablePerformance);
    let closed = MonitorEvent::SubflowClosed {
        connection,
        subflow,
        error: Some(ConnectionError::Reset),
        reset: Some(SubflowReset::new(true, reason, true)),
    };
    assert_eq!(one(&mut l), closed);
}

#[test]
fn a_join_that_fails_is_told() {
    let mut l = watched(Lab::client(ConnectionConfig::default(), 2));
    l.take_all();
    l.advance(Duration::from_secs(600));
    let failed = told(&mut l).into_iter().find_map(|m| match m.event {
        MonitorEvent::JoinFailed { subflow, error, reset, .. } => Some((subflow, error, reset)),
        _ => None,
    });
    let (subflow, error, reset) = failed.expect("told");
    assert_eq!((subflow.local.ip(), error, reset), (stack_address(1), ConnectionError::TimedOut, None));
}

#[test]
fn what_the_peer_repeats_is_told_once() {
    let mut l = watched(Lab::server(ConnectionConfig::default(), 1));
    for backup in [true, true, true, false, false] {
        l.send(0, Out::options([MpPrio { backup, address_id: None }.into()]));
        l.advance(Duration::from_millis(300));
    }
    let told: Vec<_> = told(&mut l).into_iter().map(|m| m.event).collect();
    let [
        MonitorEvent::PriorityChanged { subflow: first, by_peer: true, .. },
        MonitorEvent::PriorityChanged { subflow: second, by_peer: true, .. },
    ] = told[..]
    else {
        panic!("{told:?}")
    };
    assert_eq!((first.backup, second.backup, first.initial), (true, false, true));
    let subflow = l.subflows()[0].id;
    l.stack.set_backup(l.now, l.conn, subflow, true).unwrap();
    let MonitorEvent::PriorityChanged { subflow, by_peer: false, .. } = one(&mut l) else { panic!("ours") };
    assert!(subflow.backup);
}

#[test]
fn addresses_are_told_if_they_are_genuine_and_known() {
    let mut l = watched(Lab::server(ConnectionConfig::default(), 1));
    let address = SocketAddr::new(peer_address(3), 7);
    let genuine = l.add_addr(4, address, true);
    let mut forged = genuine;
    forged.hmac = forged.hmac.map(|hmac| hmac ^ 1);
    l.send(0, Out::options([forged.into()]));
    assert_eq!(told(&mut l), []);
    l.send(0, Out::options([genuine.into()]));
    let MonitorEvent::AddressAnnounced { id, address: told, .. } = one(&mut l) else { panic!("announced") };
    assert_eq!((id, told), (AddressId(4), address));
    let ids = [4, 9].map(AddressId).into_iter().collect();
    l.send(0, Out::options([MptcpOption::RemoveAddr(RemoveAddr { ids })]));
    let MonitorEvent::AddressRemoved { id, .. } = one(&mut l) else { panic!("removed") };
    assert_eq!(id, AddressId(4));
}

#[test]
fn a_connection_that_falls_back_has_no_token_any_more() {
    let mut l = Lab::server(ConnectionConfig::default(), 1);
    l.stack.watch(100);
    l.send(0, Out::default().payload(bytes(1, 10)));
    let fell_back = told(&mut l).into_iter().find_map(|m| match m.event {
        MonitorEvent::FellBack { connection, reason } => Some((connection, reason)),
        _ => None,
    });
    let (MonitoredConnection { id, token, server, .. }, reason) = fell_back.expect("told");
    assert_eq!((id, token, server), (l.conn, None, true));
    assert_eq!(reason, FallbackReason::NoOptionInData);
}

#[test]
fn one_that_the_application_has_let_go_of_is_still_told_of() {
    let mut l = watched(Lab::server(ConnectionConfig::default(), 1));
    l.write(100);
    l.stack.close(l.now, l.conn);
    l.poll();
    assert_eq!(told(&mut l), [], "it still delivers");
    l.stack.abort(l.now, l.conn);
    l.poll();
    let told = told(&mut l);
    let ended = |m: &&Monitored| matches!(m.event, MonitorEvent::ConnectionClosed { .. });
    assert_eq!(told.iter().filter(ended).count(), 1, "{told:?}");
    assert!(told.iter().all(|m| m.at == l.now));
}

#[test]
fn nothing_is_kept_for_nobody() {
    let mut l = Lab::server(ConnectionConfig::default(), 1);
    let local = |port| SocketAddr::new(stack_address(0), port);
    let listen = |l: &mut Lab, port| l.stack.listen_at(l.now, ListenOptions::new(local(port), 1)).unwrap();
    listen(&mut l, 81);
    l.stack.watch(2);
    let last = (82..87).map(|port| listen(&mut l, port)).last().unwrap();
    let all = told(&mut l);
    assert_eq!(all.len(), 3);
    assert!(matches!(all[0].event, MonitorEvent::ListenerCreated { local: at, .. } if at == local(82)));
    assert_eq!(all[2].event, MonitorEvent::Missed { events: 3 });
    l.stack.unlisten(l.now, last);
    assert_eq!(one(&mut l), MonitorEvent::ListenerClosed { listener: last, local: local(86) });
    listen(&mut l, 88);
    l.stack.watch(0);
    assert_eq!(told(&mut l), []);
}

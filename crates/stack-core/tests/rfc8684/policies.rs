//! Path policies, chosen by name for a connection, and what the peer hears of their choices.

use crate::peer::{Lab, Seen, peer_address};
use std::net::SocketAddr;
use umptcp_stack_core::config::{ConnectOptions, ConnectionConfig};
use umptcp_stack_core::error::{ConnectError, SetError};
use umptcp_stack_core::types::{Duration, PathId};
use umptcp_stack_core::wire::mptcp::{MpJoin, MptcpOption};

fn client(policy: &str, paths: u8) -> Lab {
    Lab::client(ConnectionConfig::default().with_path_policy(policy), paths)
}

/// The B flags of joins.
fn joins(sent: &[Seen]) -> Vec<bool> {
    let backup = |o: &MptcpOption| match o {
        MptcpOption::Join(MpJoin::Syn { backup, .. }) => Some(*backup),
        _ => None,
    };
    sent.iter().filter_map(|s| s.seg.options.mptcp.iter().find_map(backup)).collect()
}

/// MP_PRIO: on which flow, and whether as a backup.
fn priorities(sent: &[Seen]) -> Vec<(Option<usize>, bool)> {
    let priority = |o: &MptcpOption| match o {
        MptcpOption::Prio(p) => Some(p.backup),
        _ => None,
    };
    sent.iter()
        .filter_map(|s| s.seg.options.mptcp.iter().find_map(priority).map(|backup| (s.flow, backup)))
        .collect()
}

#[test]
fn handover_keeps_the_other_paths_as_backups_until_they_are_needed() {
    let mut l = client("handover", 3);
    assert_eq!(joins(&l.take_all().into_iter().collect::<Vec<_>>()), [true, true]);
    let mut l = client("handover", 2);
    let second = l.accept_join(1);
    l.write(20_000);
    l.poll();
    let sent = l.take_all();
    assert!(sent.iter().filter(|s| !s.payload.is_empty()).all(|s| s.flow == Some(0)), "{sent:?}");
    // The first path goes: the second is no backup any more, and the peer is told.
    l.stack.path_removed(l.now, PathId(0));
    l.advance(Duration::from_millis(50));
    let sent = l.take_all();
    assert!(priorities(&sent).contains(&(Some(second), false)), "{sent:?}");
    assert!(sent.iter().any(|s| !s.payload.is_empty() && s.flow == Some(second)), "{sent:?}");
    assert!(l.subflows().iter().all(|s| !s.backup));
}

#[test]
fn handover_goes_back_to_the_first_path_when_it_works_again() {
    let mut l = client("handover", 2);
    let second = l.accept_join(1);
    l.stack.path_down(l.now, PathId(0), umptcp_stack_core::device::Families::BOTH);
    l.poll();
    assert!(priorities(&l.take_all()).contains(&(Some(second), false)));
    l.stack.path_up(l.now, PathId(0), umptcp_stack_core::device::Families::BOTH);
    l.poll();
    let first = l.accept_join(0);
    // Signals are paced: not more than two ACKs of their own in a row (RFC 8684 §3.4.1).
    l.advance(Duration::from_millis(200));
    let sent = l.take_all();
    assert!(priorities(&sent).contains(&(Some(second), true)), "the second steps back: {sent:?}");
    l.write(5_000);
    // Not for so long that the first would be missed.
    l.advance(Duration::from_millis(10));
    let data: Vec<_> = l.take_all().into_iter().filter(|s| !s.payload.is_empty()).collect();
    assert!(!data.is_empty() && data.iter().all(|s| s.flow == Some(first)), "{data:?}");
}

#[test]
fn ndiffports_opens_a_second_subflow_between_the_same_addresses() {
    let mut l = client("ndiffports", 2);
    l.accept_join(0);
    let subflows = l.subflows();
    let ends = |i: usize| (subflows[i].path, subflows[i].local.ip(), subflows[i].remote);
    assert_eq!(subflows.len(), 2);
    assert_eq!(ends(0), ends(1));
    assert_ne!(subflows[0].local.port(), subflows[1].local.port());
}

#[test]
fn a_policy_is_chosen_by_name_and_changed_on_the_way() {
    let unknown = ConnectionConfig::default().with_path_policy("none");
    let mut l = client("aggregate", 1);
    let mut options = ConnectOptions::new(SocketAddr::new(peer_address(0), 80));
    options.config = unknown;
    let refused = l.stack.connect(l.now, options);
    assert!(matches!(refused, Err(ConnectError::UnknownName { kind: "path policy", .. })), "{refused:?}");
    let name = |l: &Lab| l.stack.info(l.conn).expect("info").path_policy;
    assert_eq!((name(&l).as_str(), l.subflows().len()), ("aggregate", 1));
    let set = l.stack.set_path_policy(l.now, l.conn, "none");
    assert!(matches!(set, Err(SetError::UnknownName { .. })), "{set:?}");
    assert_eq!(l.stack.set_path_policy(l.now, l.conn, "ndiffports"), Ok(()));
    l.poll();
    l.accept_join(0);
    assert_eq!((name(&l).as_str(), l.subflows().len()), ("ndiffports", 2));
}

#[test]
fn interactive_sends_what_is_small_on_every_path() {
    let mut l = client("interactive", 2);
    let second = l.accept_join(1);
    l.advance(Duration::from_millis(100));
    l.take_all();
    assert_eq!(l.stack.info(l.conn).expect("info").scheduler, "interactive");
    l.write(1_000);
    l.advance(Duration::from_millis(20));
    let sent = l.take_all();
    let on =
        |flow: usize| sent.iter().filter(|s| s.flow == Some(flow)).map(|s| s.payload.len()).sum::<usize>();
    assert_eq!((on(0), on(second)), (1_000, 1_000), "{sent:?}");
    // Another policy, and its scheduler with it; but not in the place of one that was chosen.
    let scheduler = |l: &Lab| l.stack.info(l.conn).expect("info").scheduler;
    assert_eq!(l.stack.set_path_policy(l.now, l.conn, "aggregate"), Ok(()));
    assert_eq!(scheduler(&l), "min-rtt");
    assert_eq!(l.stack.set_scheduler(l.now, l.conn, "blest"), Ok(()));
    assert_eq!(l.stack.set_path_policy(l.now, l.conn, "interactive"), Ok(()));
    assert_eq!(scheduler(&l), "blest");
    let chosen = ConnectionConfig::default().with_path_policy("interactive").with_scheduler("ecf");
    let l = Lab::client(chosen, 1);
    assert_eq!(scheduler(&l), "ecf");
}

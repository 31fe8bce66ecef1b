//! What happens at the limits of a connection, and that each is counted.

use crate::peer::{KEY, Lab, Out, bytes, peer_address, stack_address};
use std::net::{IpAddr, SocketAddr};
use umptcp_stack_core::config::ConnectionConfig;
use umptcp_stack_core::device::PathConfig;
use umptcp_stack_core::error::{ConnectionError, SignalError};
use umptcp_stack_core::event::Event;
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::types::{AddressId, Duration, PathId, SubflowId};
use umptcp_stack_core::wire::mptcp::{CapableFlags, MpCapable, MpJoin, MptcpOption, VERSION};

#[test]
fn echoes_beyond_what_may_wait_are_left_out() {
    // RFC 8684 §3.4.1: the sender repeats an ADD_ADDR that was not echoed, so leaving one out is no loss. Two
    // ACKs that carry nothing else may leave at once (§3.4.1); the rest waits, and of that 32.
    let mut l = Lab::server(ConnectionConfig::default(), 1);
    l.ack(0);
    l.take_all();
    const ADVERTS: u64 = 50;
    for id in 1..=ADVERTS as u8 {
        let address = SocketAddr::new(peer_address(id), 4000);
        let option = l.add_addr(id, address, false);
        l.send(0, Out::options([option.into()]));
    }
    assert_eq!(l.counter(Counter::AddAddr), ADVERTS);
    assert_eq!(l.counter(Counter::EchoAddTx), 2);
    assert_eq!(l.counter(Counter::EchoAddTxDrop), ADVERTS - 34);
    l.advance(Duration::from_secs(10));
    assert_eq!(l.counter(Counter::EchoAddTx), 34, "what waited has gone out");
    let again = l.add_addr(ADVERTS as u8, SocketAddr::new(peer_address(ADVERTS as u8), 4000), false);
    l.send(0, Out::options([again.into()]));
    l.advance(Duration::ZERO);
    assert_eq!((l.counter(Counter::EchoAddTx), l.counter(Counter::EchoAddTxDrop)), (35, ADVERTS - 34));
}

#[test]
fn remove_addr_that_no_subflow_can_carry_is_counted() {
    let mut l = Lab::client(ConnectionConfig::default(), 1);
    l.write(100);
    l.ack(0);
    l.take_all();
    l.stack.path_removed(l.now, PathId(0));
    l.poll();
    assert_eq!(
        (l.subflows().len(), l.counter(Counter::RmAddrTxDrop), l.counter(Counter::RmAddrTx)),
        (0, 1, 0)
    );
    // With another subflow it is told.
    let mut l = Lab::client(ConnectionConfig::default(), 2);
    l.write(100);
    l.ack(0);
    let second = l.accept_join(0);
    l.take_all();
    l.stack.path_removed(l.now, PathId(0));
    l.poll();
    let told = l.take(|s| s.has(|o| matches!(o, MptcpOption::RemoveAddr(_)))).expect("REMOVE_ADDR");
    assert_eq!(told.flow, Some(second));
    assert_eq!((l.counter(Counter::RmAddrTxDrop), l.counter(Counter::RmAddrTx)), (0, 1));
}

#[test]
fn no_join_when_every_address_id_is_in_use() {
    let mut l = Lab::client(ConnectionConfig::default(), 1);
    l.ack(0);
    for n in 1..=255 {
        let address = IpAddr::from([192, 0, 2, n]);
        assert_eq!(l.stack.advertise_address(l.now, l.conn, address, None), Ok(AddressId(n)));
    }
    let one_more = l.stack.advertise_address(l.now, l.conn, [198, 51, 100, 1].into(), None);
    assert_eq!(one_more, Err(SignalError::NoAddressId));
    l.stack.path_added(l.now, PathConfig::new("late", stack_address(1)));
    l.poll();
    assert!(l.counter(Counter::MPJoinSynTxCreatSkErr) > 0);
    assert_eq!((l.counter(Counter::MPJoinSynTx), l.subflows().len()), (0, 1));
    // With an ID free again the join is made.
    l.stack.withdraw_addresses(l.now, l.conn, &[AddressId(7)]).expect("withdraw");
    l.stack.path_added(l.now, PathConfig::new("later", stack_address(2)));
    l.poll();
    assert_eq!(l.counter(Counter::MPJoinSynTx), 1);
    let syn = l.take(|s| s.seg.flags.syn).expect("a join");
    assert!(syn.has(|o| matches!(o, MptcpOption::Join(MpJoin::Syn { address_id: AddressId(7), .. }))));
}

#[test]
fn mp_capable_with_other_keys_maps_nothing() {
    let mut l = Lab::server(ConnectionConfig::default(), 1);
    let capable = |sender_key, receiver_key| {
        let flags = CapableFlags::sha256(false, false);
        let len = 100;
        let data = MpCapable::Data { version: VERSION, flags, sender_key, receiver_key, len, checksum: None };
        MptcpOption::from(data)
    };
    // On its first data, and twice more; the data wait.
    for (sender, receiver, len) in [(KEY, l.key ^ 1, 100), (KEY ^ 1, l.key, 0), (l.key, KEY, 0)] {
        l.send(0, Out::options([capable(sender, receiver)]).payload(bytes(1, len)));
    }
    assert_eq!((l.counter(Counter::MPCapableKeyMismatch), l.received.len()), (3, 0));
    let right = capable(KEY, l.key);
    l.send(0, Out::options([right]));
    assert_eq!((l.counter(Counter::MPCapableKeyMismatch), l.received.len()), (3, 100));
    assert!(l.is_mptcp());
}

#[test]
fn a_peer_that_stops_answering_is_given_up_and_counted() {
    let config = ConnectionConfig::default().with_user_timeout(Duration::from_secs(20));
    let mut l = Lab::client(config, 1);
    l.write(100);
    l.ack(0);
    l.write(100);
    l.advance(Duration::from_secs(19));
    assert!(l.subflows().iter().any(|s| s.id == SubflowId(0)));
    l.advance(Duration::from_secs(120));
    // The subflow, and the joins that were to take its place.
    let lost = l.stack.info(l.conn).expect("info").lost_subflows;
    assert!(lost.iter().any(|s| s.subflow == SubflowId(0) && s.error == ConnectionError::TimedOut));
    assert_eq!((l.counter(Counter::TcpAbortOnTimeout), l.subflows().len()), (lost.len() as u64, 0));
    let end = l.events.iter().find_map(|e| match e {
        Event::Closed { error, .. } => Some(*error),
        _ => None,
    });
    assert_eq!(end, Some(Some(ConnectionError::TimedOut)));
}

/// A client whose only subflow does not answer any more, and which joins beside it.
fn stale_client() -> Lab {
    let mut l = Lab::client(ConnectionConfig::default(), 1);
    l.write(100);
    l.ack(0);
    l.write(100);
    let mut frozen = l.flows[0];
    l.advance(Duration::from_secs(8));
    frozen.expected -= 100;
    l.flows[0] = frozen;
    assert!(l.subflows()[0].stale);
    assert_eq!(l.subflows().len(), 2, "{:?}", l.subflows());
    l
}

#[test]
fn another_subflow_takes_the_place_of_one_that_does_not_answer() {
    // A box on the way has forgotten the first one.
    let mut l = stale_client();
    l.flows[0].expected += 100;
    let f = l.accept_join(0);
    let rst = l.take(|s| s.seg.flags.rst).expect("a RST");
    assert_eq!(rst.flow, Some(0));
    l.advance(Duration::from_secs(1));
    l.ack(f);
    assert_eq!(l.subflows().len(), 1);
    assert_eq!(l.stack.info(l.conn).map(|i| i.bytes_acked), Some(200));
}

#[test]
fn a_subflow_that_answers_again_needs_no_other_in_its_place() {
    let mut l = stale_client();
    l.flows[0].expected += 100;
    l.ack(0);
    assert_eq!(l.subflows().len(), 1);
    assert_eq!(l.subflows()[0].id, SubflowId(0));
    l.advance(Duration::from_secs(30));
    assert_eq!(l.subflows().len(), 1);
}

#[test]
fn what_the_answer_to_a_join_says_is_counted() {
    // RFC 8684 §3.2: B asks for a backup, and §3.4.1: an advertisement may name another port.
    let mut l = Lab::client(ConnectionConfig::default(), 1);
    l.write(1);
    l.ack(0);
    let option = l.add_addr(2, SocketAddr::new(peer_address(2), 8080), true);
    l.send(0, Out::options([option.into()]));
    let f = l.accept_join_as_backup(2);
    assert_eq!(l.flows[f].peer.port(), 8080);
    assert_eq!((l.counter(Counter::MPJoinSynAckRx), l.counter(Counter::MPJoinSynAckBackupRx)), (1, 1));
    assert_eq!(l.counter(Counter::MPJoinPortSynAckRx), 1);
    assert!(l.subflows()[1].backup);
    // The ordinary case.
    let mut l = Lab::client(ConnectionConfig::default(), 2);
    l.write(1);
    l.ack(0);
    l.accept_join(0);
    assert_eq!((l.counter(Counter::MPJoinSynAckRx), l.counter(Counter::MPJoinSynAckBackupRx)), (1, 0));
    assert_eq!(l.counter(Counter::MPJoinPortSynAckRx), 0);
}

#[test]
fn data_that_wait_for_others_are_counted() {
    let mut l = Lab::server(ConnectionConfig::default(), 1);
    let queue = |l: &Lab| [Counter::OFOQueue, Counter::OFOQueueTail, Counter::OFOMerge].map(|c| l.counter(c));
    // At the end of what waits, before it, between, and at last what all wait for.
    for (data, expected) in [(301, [1, 1, 0]), (101, [2, 1, 0]), (201, [3, 1, 1]), (1, [3, 1, 2])] {
        l.data(0, data, 100);
        assert_eq!(queue(&l), expected, "{data}");
    }
    assert_eq!(l.received, bytes(1, 400));
    l.data(0, 401, 100);
    assert_eq!((queue(&l), l.received.len()), ([3, 1, 2], 500), "in order, nothing waits");
}

#[test]
fn a_subflow_goes_stale_and_recovers() {
    let mut l = Lab::client(ConnectionConfig::default(), 2);
    l.write(1);
    l.ack(0);
    let second = l.accept_join(0);
    l.write(1000);
    let lost = l.take(|s| !s.payload.is_empty()).and_then(|s| s.flow).expect("data");
    l.advance(Duration::from_millis(600));
    assert_eq!(l.counter(Counter::SubflowStale), 0, "one timeout, or two, are none of its faults");
    // The other one delivers meanwhile.
    let other = second - lost;
    l.ack(other);
    l.advance(Duration::from_secs(30));
    assert_eq!((l.counter(Counter::SubflowStale), l.counter(Counter::SubflowRecover)), (1, 0));
    l.ack(lost);
    assert_eq!((l.counter(Counter::SubflowStale), l.counter(Counter::SubflowRecover)), (1, 1));
}

/// RFC 8684 §3.3.6: an ICMP error fails a subflow, like timeouts. One that quotes nothing outstanding may be
/// forged (RFC 5927 §4.1), and without another subflow there is nothing to do but go on.
#[test]
fn an_icmp_error_has_other_subflows_take_over_at_once() {
    for code in [0, 1, 3, 13] {
        let mut l = Lab::client(ConnectionConfig::default(), 2);
        l.write(1);
        let alone = l.sent.iter().find(|s| !s.payload.is_empty()).expect("data").clone();
        l.unreachable(&alone, code);
        l.ack(0);
        let second = l.accept_join(0);
        l.unreachable(&alone, code);
        assert_eq!((l.counter(Counter::SubflowStale), l.counter(Counter::TcpOutOfWindowIcmps)), (0, 1));
        l.advance(Duration::from_millis(50));
        l.write(1000);
        let lost = l.take(|s| !s.payload.is_empty()).expect("data");
        let other = second - lost.flow.expect("a known subflow");
        l.unreachable(&lost, code);
        let again = l.take(|s| s.flow == Some(other) && !s.payload.is_empty()).expect("it goes by the other");
        assert_eq!(again.payload, lost.payload);
        assert_eq!(l.counter(Counter::SubflowStale), 1);
        l.ack(other);
        // It is probed, and comes back.
        let probe = l.advance_until(Duration::from_millis(1_100), |s| s.flow == lost.flow);
        assert!(probe.is_some_and(|p| !p.payload.is_empty()));
        l.ack(lost.flow.expect("a known subflow"));
        assert_eq!(l.counter(Counter::SubflowRecover), 1);
        assert!(l.subflows().iter().all(|s| !s.stale));
    }
}

#[test]
fn probes_of_a_closed_window_are_counted_and_timeouts_apart_from_them() {
    let mut l = Lab::client(ConnectionConfig::default(), 1);
    l.write(1000);
    l.window = 0;
    l.ack(0);
    // The window was open up to 60,000; what is beyond waits.
    l.write(70_000);
    l.advance(Duration::from_millis(100));
    l.ack(0);
    assert_eq!((l.counter(Counter::WinProbe), l.counter(Counter::MPTCPTimeouts)), (0, 0));
    let probe = l.advance_until(Duration::from_secs(3), |s| s.payload.is_empty()).expect("a probe");
    assert!(probe.seg.seq.0.wrapping_sub(l.flows[0].irs) < l.flows[0].expected as u32, "below the window");
    assert_eq!(l.counter(Counter::WinProbe), 1);
    // Open again and left unanswered, it is not the window.
    l.window = 60_000;
    l.ack(0);
    l.advance(Duration::from_secs(5));
    assert_eq!(l.counter(Counter::WinProbe), 1);
    assert!(l.counter(Counter::MPTCPTimeouts) > 0);
}

/// A peer with the keys and many subflows makes a connection hold two windows of what cannot be handed on,
/// not one for each subflow. What is refused is as if lost: nothing is missing in the end.
#[test]
fn subflows_together_hold_no_more_than_two_windows_out_of_order() {
    const SUBFLOWS: usize = 6;
    const STEP: u64 = 1_000;
    let config = ConnectionConfig::default().with_receive_buffer(60_000);
    let mut l = Lab::server(config, SUBFLOWS as u8);
    l.data(0, 1, 1);
    for n in 1..SUBFLOWS {
        let f = l.join(n as u8 + 1, n as u8);
        l.ack(f);
    }
    // Each subflow carries the same data, and of each the first segment is missing.
    let send = |l: &mut Lab, flow: usize, k: u64| {
        let first = if flow == 0 { 2 } else { 1 };
        let (data, at) = (2 + k * STEP, first + k * STEP);
        let mapping = l.map(data, at, STEP as u16);
        let option = l.dss(Some(mapping));
        l.send(flow, Out { at: Some(at), ..Out::options([option]).payload(bytes(data, STEP)) });
    };
    for flow in 0..SUBFLOWS {
        for k in 1..59 {
            send(&mut l, flow, k);
        }
    }
    let dropped = l.counter(Counter::TcpOFODrop);
    let sent = 58 * SUBFLOWS as u64;
    // Two windows of some 60 segments are held.
    assert!((110..=122).contains(&(sent - dropped)), "{dropped} of {sent} were dropped");
    // The missing ones, and then what was refused, come.
    for flow in 0..SUBFLOWS {
        for k in 0..59 {
            send(&mut l, flow, k);
        }
    }
    assert_eq!(l.received, bytes(1, 1 + 59 * STEP));
    assert_eq!(l.counter(Counter::TcpOFODrop), dropped);
}

//! RFC 8684 §3.3.3, §3.5 and §3.6: DATA_FIN, subflows that end, MP_FASTCLOSE, MP_TCPRST.

use crate::peer::{KEY, Lab, Out, Seen, bytes, stack_address};
use umptcp_stack_core::config::{ConnectionConfig, FastClose, StackConfig};
use umptcp_stack_core::device::{Families, PathConfig};
use umptcp_stack_core::error::ConnectionError;
use umptcp_stack_core::event::{Event, SubflowReset};
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::types::{AddressId, Duration, PathId};
use umptcp_stack_core::wire::mptcp::{Dss, DssMapping, MpFastClose, MpTcpRst, MptcpOption, ResetReason};

fn server() -> Lab {
    Lab::server(ConnectionConfig::default(), 1)
}

fn closed(l: &Lab) -> Option<Option<ConnectionError>> {
    l.events.iter().find_map(|e| match e {
        Event::Closed { error, .. } => Some(*error),
        _ => None,
    })
}

fn data_fin(l: &Lab, mapping: DssMapping) -> MptcpOption {
    match l.dss(Some(mapping)) {
        MptcpOption::Dss(dss) => MptcpOption::Dss(Dss { data_fin: true, ..dss }),
        other => other,
    }
}

fn is_fast_close(s: &Seen) -> bool {
    s.has(|o| matches!(o, MptcpOption::FastClose(f) if f.receiver_key == KEY))
}

fn fast_close(l: &Lab) -> MptcpOption {
    MptcpOption::FastClose(MpFastClose { receiver_key: l.key })
}

#[test]
fn data_fin_alone_and_with_data() {
    for checksum in [false, true] {
        let config = ConnectionConfig::default().with_checksum(checksum);
        // Alone: subflow sequence 0, length 1.
        let mut l = Lab::server(config.clone(), 1);
        l.data(0, 1, 100);
        let option = data_fin(&l, l.map_bytes(101, 0, 1, &[]));
        l.send(0, Out::options([option.clone()]));
        assert!(l.ended);
        assert_eq!(l.data_acked, 102);
        // Repeated, because its DATA_ACK was lost.
        l.take_all();
        l.send(0, Out::options([option]));
        assert!(l.take(|s| s.dss().is_some_and(|d| d.ack.is_some())).is_some());
        // With data: the length counts it.
        let mut l = Lab::server(config.clone(), 1);
        let option = data_fin(&l, l.map_bytes(1, 1, 101, &bytes(1, 100)));
        l.send(0, Out::options([option]).payload(bytes(1, 100)));
        assert_eq!((l.received.len(), l.ended, l.data_acked), (100, true, 102));
        // Before the data that precedes it.
        let mut l = Lab::server(config, 1);
        let option = data_fin(&l, l.map_bytes(101, 0, 1, &[]));
        l.send(0, Out::options([option]));
        assert!(!l.ended);
        l.data(0, 1, 100);
        assert!(l.ended);
    }
}

#[test]
fn a_data_fin_that_is_not_the_peers_is_ignored() {
    let mut l = Lab::server(ConnectionConfig::default().with_checksum(true), 1);
    l.data(0, 1, 100);
    // Its checksum covers the pseudo-header.
    let mapping = DssMapping { checksum: Some(0x4242), ..l.map_bytes(101, 0, 1, &[]) };
    l.send(0, Out::options([data_fin(&l, mapping)]));
    assert!(!l.ended);
    assert_eq!(l.counter(Counter::DataCsumErr), 1);
    // Injected outside the TCP window, where an attacker off the path would land.
    let mut l = server();
    l.data(0, 1, 100);
    let option = data_fin(&l, l.map_bytes(101, 0, 1, &[]));
    l.send(0, Out { at: Some(0x4000_0000), options: vec![option], ..Out::default() });
    assert!(!l.ended);
    // At a place that data received contradicts, and beyond the window.
    for at in [50, 0x4000_0000] {
        let option = data_fin(&l, l.map_bytes(at, 0, 1, &[]));
        l.send(0, Out::options([option]));
        assert!(!l.ended);
    }
    assert_eq!(l.counter(Counter::DSSNotMatching), 2);
    l.data(0, 101, 100);
    assert_eq!(l.received, bytes(1, 200));
}

#[test]
fn our_data_fin_is_repeated_until_acknowledged_and_then_every_subflow_closes() {
    let mut l = server();
    let second = l.join(1, 0);
    l.write(100);
    l.ack(0);
    l.take_all();
    l.stack.shutdown(l.now, l.conn).expect("shutdown");
    l.poll();
    let fin = l.take(|s| s.dss().is_some_and(|d| d.data_fin)).expect("a DATA_FIN");
    assert_eq!(fin.mapping().map(|m| (m.ssn, m.len)), Some((0, 1)));
    assert!(!fin.seg.flags.fin, "a DATA_FIN is not a FIN");
    l.take_all();
    assert!(l.advance_until(Duration::from_secs(5), |s| s.dss().is_some_and(|d| d.data_fin)).is_some());
    l.ack(0);
    // Half closed: the peer still sends.
    l.data(0, 1, 50);
    assert_eq!(l.received, bytes(1, 50));
    l.take_all();
    let option = data_fin(&l, l.map_bytes(51, 0, 1, &[]));
    l.send(0, Out::options([option]));
    assert_eq!(closed(&l), Some(None));
    let fins: Vec<_> = l.take_all().into_iter().filter(|s| s.seg.flags.fin).map(|s| s.flow).collect();
    assert!(fins.contains(&Some(0)) && fins.contains(&Some(second)), "{fins:?}");
}

#[test]
fn the_last_subflow_stays_open_for_what_is_left_to_send() {
    // The peer's FIN ends its direction of the subflow. RFC 8684 §3.3.3: a host does not close all subflows
    // while data is outstanding.
    let mut l = server();
    let nothing_yet = l.dss(None);
    l.write(1000);
    l.take_all();
    l.send(0, Out { fin: true, ..Out::options([nothing_yet]) });
    let early: Vec<_> = l.take_all().into_iter().filter(|s| s.seg.flags.fin).collect();
    assert!(early.is_empty(), "a FIN while data is outstanding");
    l.write(500);
    assert!(l.take(|s| s.payload.len() == 500).is_some(), "data still goes");
    l.stack.shutdown(l.now, l.conn).expect("shutdown");
    l.poll();
    l.ack(0);
    assert!(l.take(|s| s.seg.flags.fin).is_some(), "all is acknowledged");
}

/// The DATA_FIN ends one direction of the connection, and a FIN one of the subflow (RFC 8684 §3.3.3): a peer
/// may send both and wait for a response.
#[test]
fn a_response_follows_the_peers_data_fin_and_fin_in_as_many_parts_as_it_has() {
    for client in [false, true] {
        for fin in [false, true] {
            let config = ConnectionConfig::default();
            let mut l = if client { Lab::client(config, 1) } else { Lab::server(config, 1) };
            l.data(0, 1, 100);
            let option = data_fin(&l, l.map_bytes(101, 0, 1, &[]));
            l.send(0, Out { fin, ..Out::options([option]) });
            assert!(l.ended);
            l.advance(Duration::from_secs(1));
            if !fin {
                l.send(0, Out { fin: true, ..Out::options([l.dss(None)]) });
            }
            for part in [300, 0, 200] {
                l.take_all();
                l.write(part);
                if part > 0 {
                    assert!(l.take(|s| s.payload.len() == part).is_some(), "{part} bytes, client: {client}");
                }
                l.ack(0);
                l.advance(Duration::from_secs(30));
                let fins = l.take_all().into_iter().filter(|s| s.seg.flags.fin).count();
                assert_eq!(fins, 0, "the application may write more");
            }
            l.stack.shutdown(l.now, l.conn).expect("shutdown");
            l.poll();
            l.ack(0);
            assert_eq!(closed(&l), Some(None));
            assert!(l.take(|s| s.seg.flags.fin).is_some(), "client: {client}");
        }
    }
}

#[test]
fn break_before_make() {
    let config = ConnectionConfig::default().with_close_timeout(Duration::from_secs(30));
    // The server's last subflow ends by RST or by FIN; the client's next address joins.
    for rst in [true, false] {
        let mut l = Lab::server(config.clone(), 1);
        l.data(0, 1, 100);
        let end = Out { rst, fin: !rst, ..Out::default() };
        l.send(0, end);
        if !rst {
            l.send(0, Out::default());
        }
        assert!(l.subflows().is_empty(), "{:?}", l.subflows());
        assert_eq!(closed(&l), None);
        l.advance(Duration::from_secs(20));
        assert_eq!(closed(&l), None);
        l.take_all();
        let second = l.join(3, 0);
        l.data(second, 101, 100);
        assert_eq!(l.received, bytes(1, 200));
        l.advance(Duration::from_secs(60));
        assert_eq!(closed(&l), None);
        // And nobody comes back.
        l.send(second, Out { rst: true, ..Out::default() });
        l.advance(Duration::from_secs(29));
        assert_eq!(closed(&l), None);
        l.advance(Duration::from_secs(2));
        assert_eq!(closed(&l), Some(Some(ConnectionError::Reset)));
    }
}

/// The peer never closes its half of a subflow whose address we took back, and the other subflow's path goes:
/// nothing can be sent any more. That waits for another subflow no longer than if there were none. Found by
/// fuzzing.
#[test]
fn data_with_nothing_but_half_closed_subflows_wait_for_another() {
    let config = ConnectionConfig::default().with_close_timeout(Duration::from_secs(30));
    for (comes, detached) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut l = Lab::client(config.clone(), 2);
        let second = l.accept_join(1);
        l.stack.withdraw_addresses(l.now, l.conn, &[AddressId(0)]).expect("withdraw");
        l.poll();
        l.take(|s| s.seg.flags.fin && s.flow == Some(0)).expect("a FIN");
        l.send(0, Out::default());
        l.stack.path_removed(l.now, PathId(1));
        l.poll();
        // Time without data to send does not count.
        l.advance(Duration::from_secs(100));
        l.write(1000);
        if detached {
            l.stack.close(l.now, l.conn);
            l.poll();
        }
        l.advance(Duration::from_secs(29));
        assert!(l.take_all().iter().all(|s| s.payload.is_empty()));
        assert_eq!((closed(&l), l.stack.connection_count()), (None, 1));
        if !comes {
            l.advance(Duration::from_secs(2));
            assert_eq!(l.stack.connection_count(), usize::from(!detached));
            assert_eq!(closed(&l), (!detached).then_some(Some(ConnectionError::TimedOut)));
            assert_eq!(l.stack.poll_timeout(), None);
            continue;
        }
        l.stack.path_added(l.now, PathConfig::new("late", stack_address(2)));
        l.poll();
        let third = l.accept_join(1);
        assert_ne!(third, second);
        let data = l.advance_until(Duration::from_secs(1), |s| !s.payload.is_empty()).expect("data");
        assert_eq!((data.flow, data.payload.len()), (Some(third), 1000));
        l.ack(third);
        l.advance(Duration::from_secs(20));
        assert_eq!((closed(&l), l.stack.connection_count()), (None, 1));
    }
}

/// What the application has let go of is still delivered after a break: the subflow that follows ends the
/// wait for one.
#[test]
fn a_connection_let_go_of_goes_on_after_a_break() {
    let config = ConnectionConfig::default().with_close_timeout(Duration::from_secs(30));
    let mut l = Lab::server(config, 1);
    l.data(0, 1, 100);
    l.write(1000);
    l.stack.close(l.now, l.conn);
    l.poll();
    l.send(0, Out { rst: true, ..Out::default() });
    assert!(l.subflows().is_empty());
    l.advance(Duration::from_secs(20));
    l.take_all();
    l.data_expected = 1;
    let second = l.join(3, 0);
    let sent = |s: &Seen| s.flow == Some(second) && s.payload.len() == 1000;
    assert!(l.advance_until(Duration::from_secs(5), sent).is_some());
    l.advance(Duration::from_secs(20));
    assert_eq!(l.stack.connection_count(), 1);
    // DATA_ACKed with its DATA_FIN and answered by the peer's own, it ends.
    l.data_expected = 1002;
    l.ack(second);
    let option = data_fin(&l, l.map_bytes(101, 0, 1, &[]));
    l.send(second, Out::options([option]));
    assert!(l.take(|s| s.seg.flags.fin && s.flow == Some(second)).is_some());
}

/// The peer closes a subflow of ours by FIN: another is opened, but not at once, lest it go on like that for
/// ever.
#[test]
fn a_subflow_that_the_peer_closed_is_opened_again_after_a_while() {
    let mut l = Lab::client(ConnectionConfig::default(), 2);
    let second = l.accept_join(0);
    let address = l.flows[second].stack.ip();
    l.send(second, Out { fin: true, ..Out::default() });
    l.take(|s| s.seg.flags.fin && s.flow == Some(second)).expect("our FIN");
    l.send(second, Out::default());
    assert_eq!(l.subflows().len(), 1);
    let joins = |s: &Seen| s.seg.flags.syn && s.from.ip() == address;
    l.advance(Duration::from_millis(950));
    assert!(!l.take_all().iter().any(joins));
    l.advance(Duration::from_millis(100));
    assert!(l.take_all().iter().any(joins));
}

#[test]
fn the_client_joins_again_after_a_reset() {
    let mut l = Lab::client(ConnectionConfig::default(), 1);
    l.write(1000);
    l.take_all();
    l.send(0, Out { rst: true, ..Out::default() });
    assert_eq!(closed(&l), None);
    l.data_expected = 1;
    let second = l.accept_join(0);
    // What the peer has not DATA_ACKed goes out again.
    let data = l.advance_until(Duration::from_secs(3), |s| !s.payload.is_empty()).expect("data");
    assert_eq!((data.flow, data.payload.len()), (Some(second), 1000));
    // RFC 8684 §4: the application sees the first five-tuple, though its subflow has gone.
    let info = l.stack.info(l.conn).expect("info");
    assert_eq!((info.local, info.remote), (l.flows[0].stack, l.flows[0].peer));
    assert_ne!(l.flows[0].stack, l.flows[second].stack);
}

/// How the path of the first subflow goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Loss {
    Removed,
    Down,
    Reset,
    Unreachable,
    /// Nothing comes through, and nobody says so.
    Silence,
}

/// Each, and how many bytes are in flight then.
const LOSSES: [(Loss, usize); 8] = [
    (Loss::Removed, 0),
    (Loss::Removed, 700),
    (Loss::Down, 0),
    (Loss::Down, 700),
    (Loss::Reset, 0),
    (Loss::Reset, 700),
    (Loss::Unreachable, 700),
    (Loss::Silence, 700),
];

impl Loss {
    fn befalls(self, l: &mut Lab) {
        match self {
            Loss::Removed => l.stack.path_removed(l.now, PathId(0)),
            Loss::Down => l.stack.path_down(l.now, PathId(0), Families::BOTH),
            Loss::Reset => l.send(0, Out { rst: true, ..Out::default() }),
            Loss::Unreachable => {
                // About data: an error is about a segment that is in flight.
                let last = l.sent.iter().rfind(|s| s.flow == Some(0) && !s.payload.is_empty());
                let last = last.expect("data in flight").clone();
                l.unreachable(&last, 0);
            }
            Loss::Silence => {}
        }
        l.poll();
    }
}

/// The server has both keys as soon as the third ACK has arrived, and that it has sent one the client knows:
/// with another path up there is no reason to end.
#[test]
fn a_client_whose_first_path_goes_before_the_first_data_ack_goes_on_over_another() {
    for (loss, len) in LOSSES {
        if loss == Loss::Reset {
            // A server's refusal looks like this.
            continue;
        }
        let mut l = Lab::client_unconfirmed(ConnectionConfig::default(), 2);
        if len > 0 {
            l.write(len);
        }
        loss.befalls(&mut l);
        assert_eq!(closed(&l), None, "{loss:?}, {len}");
        if len == 0 {
            l.write(700);
        }
        l.data_expected = 1;
        let is_join = |s: &Seen| s.seg.flags.syn && s.from.ip() == stack_address(1);
        let join = l.advance_until(Duration::from_secs(30), is_join);
        l.sent.insert(0, join.unwrap_or_else(|| panic!("{loss:?}, {len}: no join over the other path")));
        let second = l.accept_join(0);
        let all = |s: &Seen| s.flow == Some(second) && s.payload.len() == 700;
        assert!(l.advance_until(Duration::from_secs(5), all).is_some(), "{loss:?}, {len}: the data");
        assert_eq!(closed(&l), None, "{loss:?}, {len}");
    }
}

/// The server, which may not join to a client behind a NAT, waits for the client's join.
#[test]
fn a_server_whose_first_path_goes_before_the_first_data_ack_goes_on_over_another() {
    for (loss, len) in LOSSES {
        let mut l = Lab::server(ConnectionConfig::default(), 2);
        l.ack(0);
        if len > 0 {
            l.write(len);
        }
        loss.befalls(&mut l);
        assert_eq!(closed(&l), None, "{loss:?}, {len}");
        if len == 0 {
            l.write(700);
        }
        l.data_expected = 1;
        l.take_all();
        let second = l.join(3, 1);
        l.ack(second);
        let all = |s: &Seen| s.flow == Some(second) && s.payload.len() == 700;
        assert!(l.advance_until(Duration::from_secs(5), all).is_some(), "{loss:?}, {len}: the data");
        assert_eq!(closed(&l), None, "{loss:?}, {len}");
    }
}

/// The RST of a host that does not know of the connection, without a reason: its firewall is being loaded
/// anew, or its translation is not yet back.
fn refuse_as_a_host(l: &mut Lab) {
    let syn = l.take(|s| s.seg.flags.syn).expect("a join");
    let mut rst = syn.seg.clone();
    (rst.src_port, rst.dst_port) = (syn.seg.dst_port, syn.seg.src_port);
    rst.ack = syn.seg.seq.wrapping_add(1);
    rst.flags = umptcp_stack_core::wire::tcp::TcpFlags { rst: true, ack: true, ..Default::default() };
    rst.options.mptcp.clear();
    l.inject(syn.from, syn.to, &rst, &[]);
}

#[test]
fn a_host_that_resets_everything_for_a_moment_does_not_end_the_connection() {
    let mut l = Lab::client(ConnectionConfig::default(), 1);
    l.take_all();
    l.send(0, Out { rst: true, ..Out::default() });
    refuse_as_a_host(&mut l);
    assert_eq!(closed(&l), None);
    l.advance(Duration::from_millis(600));
    let f = l.accept_join(0);
    l.advance(Duration::from_secs(30));
    l.ack(f);
    assert_eq!(closed(&l), None);
    l.write(100);
    assert!(l.take_all().iter().any(|s| s.flow == Some(f) && s.payload.len() == 100));
}

#[test]
fn a_host_that_goes_on_resetting_has_lost_the_connection() {
    let mut l = Lab::client(ConnectionConfig::default(), 1);
    l.take_all();
    l.send(0, Out { rst: true, ..Out::default() });
    refuse_as_a_host(&mut l);
    let mut asked = 0;
    for _ in 0..49 {
        assert_eq!(closed(&l), None);
        l.advance(Duration::from_millis(100));
        while l.sent.iter().any(|s| s.seg.flags.syn) {
            refuse_as_a_host(&mut l);
            asked += 1;
        }
    }
    assert!((8..=10).contains(&asked), "{asked}");
    l.advance(Duration::from_millis(200));
    assert_eq!(closed(&l), Some(Some(ConnectionError::Reset)));
}

#[test]
fn a_peer_that_refuses_the_join_has_forgotten_the_connection() {
    let mut l = Lab::client(ConnectionConfig::default(), 1);
    l.take_all();
    l.send(0, Out { rst: true, ..Out::default() });
    let syn = l.take(|s| s.seg.flags.syn).expect("a join");
    let mut rst = syn.seg.clone();
    (rst.src_port, rst.dst_port) = (syn.seg.dst_port, syn.seg.src_port);
    rst.ack = syn.seg.seq.wrapping_add(1);
    rst.flags = umptcp_stack_core::wire::tcp::TcpFlags { rst: true, ack: true, ..Default::default() };
    rst.options.mptcp = [reset(ResetReason::MptcpSpecific, false)].into_iter().collect();
    l.inject(syn.from, syn.to, &rst, &[]);
    assert_eq!(closed(&l), Some(Some(ConnectionError::Reset)));
    let told = l.events.iter().any(|e| {
        let by = SubflowReset::new(true, Some(ResetReason::MptcpSpecific), false);
        matches!(e, Event::JoinFailed { reset, .. } if *reset == Some(by))
    });
    assert!(told, "{:?}", l.events);
}

fn reset(reason: ResetReason, transient: bool) -> MptcpOption {
    MptcpOption::Reset(MpTcpRst { transient, reason: reason.into() })
}

#[test]
fn the_reason_of_a_reset_reaches_the_application() {
    let reasons = [
        ResetReason::Unspecified,
        ResetReason::MptcpSpecific,
        ResetReason::LackOfResources,
        ResetReason::Prohibited,
        ResetReason::TooMuchOutstandingData,
        ResetReason::UnacceptablePerformance,
        ResetReason::MiddleboxInterference,
        ResetReason::Unknown(99),
    ];
    for reason in reasons {
        for transient in [true, false] {
            let mut l = Lab::client(ConnectionConfig::default(), 2);
            let second = l.accept_join(0);
            l.take_all();
            let options = vec![reset(reason, transient)];
            l.send(second, Out { rst: true, options, ..Out::default() });
            let expected = SubflowReset::new(true, Some(reason), transient);
            assert!(
                l.events
                    .iter()
                    .any(|e| matches!(e, Event::SubflowClosed { reset, .. } if *reset == Some(expected)))
            );
            let lost = l.stack.info(l.conn).expect("info").lost_subflows;
            assert_eq!(lost.len(), 1);
            assert_eq!((lost[0].reset, lost[0].established), (Some(expected), true));
            assert!(expected.to_string().contains(&reason.to_string()));
            // RFC 8684 §3.6: only a transient condition invites another attempt, and the reason says when.
            let wait = match reason {
                ResetReason::LackOfResources => 30,
                ResetReason::TooMuchOutstandingData => 0,
                ResetReason::UnacceptablePerformance => 60,
                _ => 1,
            };
            let at = l.now + Duration::from_secs(wait);
            let again = l.advance_until(Duration::from_secs(100), |s| s.seg.flags.syn);
            assert_eq!(again.map(|_| l.now), transient.then_some(at), "{reason:?}");
            assert_eq!(l.counter(Counter::MPRstRx), 1);
        }
    }
}

/// The peer's last segments before a RST were lost or overtaken: its RST counts nonetheless, and so does its
/// reason.
#[test]
fn the_reason_of_a_reset_behind_a_hole_reaches_the_application() {
    let mut l = Lab::server(ConnectionConfig::default(), 1);
    let second = l.join(1, 0);
    let option = l.dss(Some(l.map(1001, 1001, 100)));
    l.send(second, Out { at: Some(1001), ..Out::options([option]).payload(bytes(1001, 100)) });
    let options = vec![reset(ResetReason::UnacceptablePerformance, true)];
    l.send(second, Out { at: Some(1101), rst: true, options, ..Out::default() });
    let reason = Some(ResetReason::UnacceptablePerformance);
    let expected = SubflowReset::new(true, reason, true);
    let told =
        l.events.iter().any(|e| matches!(e, Event::SubflowClosed { reset, .. } if *reset == Some(expected)));
    assert!(told, "{:?}", l.events);
    assert_eq!((l.counter(Counter::MPRstRx), l.counter(Counter::TcpChallengeAck)), (1, 0));
}

#[test]
fn a_subflow_that_is_reset_again_and_again_is_not_opened_for_ever() {
    let mut l = Lab::client(ConnectionConfig::default(), 2);
    let mut joins = 0;
    while l.sent.iter().any(|s| s.seg.flags.syn) {
        let f = l.accept_join(0);
        joins += 1;
        assert!(joins < 10);
        l.take_all();
        l.send(f, Out { rst: true, ..Out::default() });
        l.advance(Duration::from_secs(2));
    }
    assert_eq!(joins, 3);
}

#[test]
fn fast_close_in_rst_form() {
    let mut l = server();
    let second = l.join(1, 0);
    l.take_all();
    l.stack.abort(l.now, l.conn);
    l.poll();
    let rsts: Vec<_> = l.take_all().into_iter().filter(|s| s.seg.flags.rst).collect();
    assert_eq!(rsts.len(), 2);
    assert!(rsts.iter().all(is_fast_close));
    assert!(rsts.iter().any(|s| s.flow == Some(second)));
    assert_eq!(closed(&l), Some(Some(ConnectionError::Aborted)));
}

#[test]
fn fast_close_in_ack_form_is_repeated_and_answered() {
    let config = ConnectionConfig::default().with_fast_close(FastClose::Ack);
    // Answered with a RST, with an MP_FASTCLOSE of the peer's own, or not at all.
    for answer in 0..3 {
        let mut l = Lab::server(config.clone(), 1);
        let second = l.join(1, 0);
        l.take_all();
        l.stack.abort(l.now, l.conn);
        l.poll();
        let sent = l.take_all();
        let acks: Vec<_> = sent.iter().filter(|s| is_fast_close(s)).collect();
        assert!(acks.len() == 1 && !acks[0].seg.flags.rst);
        let on = acks[0].flow.expect("a subflow");
        let rsts: Vec<_> = sent.iter().filter(|s| s.seg.flags.rst).collect();
        assert_eq!(rsts.len(), 1);
        assert!(rsts[0].flow == Some(if on == 0 { second } else { 0 }) && !is_fast_close(rsts[0]));
        assert_eq!(closed(&l), Some(Some(ConnectionError::Aborted)));
        // Data is not accepted any more.
        l.data(on, 1, 100);
        assert!(l.received.is_empty() && l.data_acked == 1);
        l.take_all();
        match answer {
            0 => {
                l.send(on, Out { rst: true, ..Out::default() });
                assert!(l.take_all().is_empty());
            }
            1 => {
                let option = fast_close(&l);
                l.send(on, Out::options([option]));
                let rst = l.take(|s| s.seg.flags.rst).expect("a RST");
                assert!(!is_fast_close(&rst));
            }
            _ => {
                for _ in 0..3 {
                    let again = l.advance_until(Duration::from_secs(60), is_fast_close).expect("again");
                    assert!(!again.seg.flags.rst);
                }
                let last = l.advance_until(Duration::from_secs(60), is_fast_close).expect("the last");
                assert!(last.seg.flags.rst);
            }
        }
        l.take_all();
        l.stack.close(l.now, l.conn);
        l.advance(Duration::from_secs(600));
        assert!(l.take_all().is_empty());
        assert_eq!(l.stack.connection_count(), 0);
    }
}

#[test]
fn fast_close_received_in_either_form_ends_the_connection() {
    for rst in [true, false] {
        let mut l = server();
        let second = l.join(1, 0);
        l.take_all();
        let option = fast_close(&l);
        l.send(0, Out { rst, ..Out::options([option]) });
        assert_eq!(closed(&l), Some(Some(ConnectionError::Reset)));
        let rsts: Vec<_> = l.take_all().into_iter().filter(|s| s.seg.flags.rst).collect();
        assert!(rsts.iter().any(|s| s.flow == Some(second)));
        assert_eq!(rsts.len(), if rst { 1 } else { 2 });
        assert!(!rsts.iter().any(is_fast_close));
        assert_eq!(l.counter(Counter::MPFastcloseRx), 1);
    }
}

#[test]
fn fast_close_with_a_wrong_key_is_ignored() {
    let mut l = server();
    let wrong = MptcpOption::FastClose(MpFastClose { receiver_key: l.key ^ 1 });
    l.send(0, Out::options([wrong.clone()]));
    l.data(0, 1, 100);
    assert_eq!(l.received, bytes(1, 100));
    assert_eq!(l.counter(Counter::MPFastcloseKeyMismatch), 1);
    // On a RST it ends that subflow only.
    let second = l.join(1, 0);
    l.send(second, Out { rst: true, ..Out::options([wrong]) });
    assert_eq!((l.subflows().len(), l.counter(Counter::MPFastcloseKeyMismatch)), (1, 2));
    assert_eq!(closed(&l), None);
}

#[test]
fn a_subflow_stuck_with_data_that_others_delivered_is_reset_at_the_end() {
    let mut l = server();
    let second = l.join(1, 0);
    l.write(30_000);
    // Nothing that goes by the second subflow is acknowledged by it, until it counts as stale.
    let frozen = l.flows[second];
    for _ in 0..60 {
        l.ack(0);
        l.advance(Duration::from_millis(200));
        l.flows[second] = frozen;
    }
    assert!(l.subflows().iter().any(|s| s.stale), "{:?}", l.subflows());
    assert_eq!(l.stack.info(l.conn).map(|i| i.bytes_acked), Some(30_000));
    l.stack.shutdown(l.now, l.conn).expect("shutdown");
    l.poll();
    l.ack(0);
    l.take_all();
    let option = data_fin(&l, l.map_bytes(1, 0, 1, &[]));
    l.send(0, Out::options([option]));
    let sent = l.take_all();
    let rst = sent.iter().find(|s| s.seg.flags.rst).expect("a RST");
    assert_eq!(rst.flow, Some(second));
    assert!(rst.has(|o| *o == reset(ResetReason::TooMuchOutstandingData, false)));
    assert!(sent.iter().any(|s| s.seg.flags.fin && s.flow == Some(0)));
}

/// A server that has ended both directions, whose path went before the peer had its last DATA_ACK.
fn ended_and_cut_off() -> Lab {
    let mut l = Lab::server(ConnectionConfig::default(), 2);
    l.data(0, 1, 10);
    l.stack.shutdown(l.now, l.conn).expect("shutdown");
    l.poll();
    l.ack(0);
    let option = data_fin(&l, l.map_bytes(11, 0, 1, &[]));
    l.send(0, Out::options([option]));
    l.take_all();
    assert!(l.events.iter().any(|e| matches!(e, Event::Closed { error: None, .. })), "{:?}", l.events);
    l.stack.path_removed(l.now, PathId(0));
    l.poll();
    l.take_all();
    l
}

#[test]
fn a_peer_without_the_last_data_ack_may_join_and_get_it() {
    let mut l = ended_and_cut_off();
    l.advance(Duration::from_secs(20));
    let f = l.join(1, 1);
    let sent = l.take_all();
    let fin = sent.iter().find(|s| s.flow == Some(f) && s.seg.flags.fin).expect("a FIN");
    let acked = fin.seg.options.mptcp.iter().any(|o| matches!(o, MptcpOption::Dss(d) if d.ack.is_some()));
    assert!(acked, "{fin:?}");
    l.send(f, Out { fin: true, ..Out::default() });
    // Now it is over: nothing is waited for, and the token is unknown.
    l.advance(Duration::from_secs(120));
    l.take_all();
    l.join_syn(2, 1);
    assert!(l.take(|s| s.seg.flags.rst).is_some());
}

#[test]
fn the_wait_for_such_a_peer_ends() {
    let mut l = ended_and_cut_off();
    l.stack.close(l.now, l.conn);
    l.advance(Duration::from_secs(59));
    assert!(l.stack.info(l.conn).is_some());
    l.advance(Duration::from_secs(2));
    assert!(l.stack.info(l.conn).is_none());
    assert_eq!(l.stack.poll_timeout(), None);
}

#[test]
fn the_only_subflow_is_not_reset_at_the_end_for_being_silent() {
    let mut l = server();
    l.data(0, 1, 10);
    l.stack.shutdown(l.now, l.conn).expect("shutdown");
    l.poll();
    l.ack(0);
    let frozen = l.flows[0];
    let option = data_fin(&l, l.map_bytes(11, 0, 1, &[]));
    l.send(0, Out::options([option]));
    // Our FIN, with the last DATA_ACK, is lost again and again.
    for _ in 0..50 {
        l.advance(Duration::from_secs(1));
        l.flows[0].expected = frozen.expected;
        assert!(l.take(|s| s.seg.flags.rst).is_none());
    }
    assert!(l.subflows().iter().any(|s| s.stale), "{:?}", l.subflows());
}

#[test]
fn a_subflow_silent_for_the_user_timeout_is_reset() {
    let config = ConnectionConfig::default().with_user_timeout(Duration::from_secs(10));
    let mut l = Lab::server(config, 1);
    let second = l.join(1, 0);
    l.write(30_000);
    let frozen = l.flows[second];
    let mut rst = None;
    for _ in 0..100 {
        l.ack(0);
        l.advance(Duration::from_millis(200));
        l.flows[second] = frozen;
        rst = rst.or_else(|| l.take(|s| s.seg.flags.rst));
    }
    let rst = rst.expect("a RST");
    assert_eq!(rst.flow, Some(second));
    assert!(rst.has(|o| *o == reset(ResetReason::UnacceptablePerformance, true)));
    assert_eq!(closed(&l), None);
    assert_eq!(l.subflows().len(), 1);
}

/// RFC 9293 §3.6.1, SHLD-3, which for a whole connection is MP_FASTCLOSE (RFC 8684 §3.5).
#[test]
fn data_for_an_application_that_has_gone_end_the_connection() {
    for unread in [false, true] {
        let mut l = server();
        let second = l.join(3, 0);
        l.data(0, 1, 100);
        if unread {
            l.paused = true;
            l.data(0, 101, 50);
        }
        l.take_all();
        l.stack.close(l.now, l.conn);
        l.poll();
        if !unread {
            // What is no news changes nothing.
            l.data(0, 1, 100);
            l.advance(Duration::from_secs(1));
            assert!(l.take(|s| s.seg.flags.rst).is_none());
            l.data(1, 101, 50);
        }
        let told = l.take_all();
        for flow in [0, second] {
            let of_flow = |s: &&Seen| s.flow == Some(flow) && s.seg.flags.rst && is_fast_close(s);
            assert_eq!(told.iter().filter(of_flow).count(), 1, "unread: {unread}, subflow {flow}");
        }
    }
}

/// What was written before is still delivered to a peer that has nothing more to say.
#[test]
fn a_closed_connection_delivers_what_was_written() {
    let mut l = server();
    l.write(3000);
    l.stack.close(l.now, l.conn);
    l.poll();
    l.ack(0);
    let option = data_fin(&l, l.map_bytes(1, 0, 1, &[]));
    l.send(0, Out::options([option]));
    let told = l.take_all();
    assert!(told.iter().any(|s| s.seg.flags.fin) && told.iter().all(|s| !s.seg.flags.rst), "{told:?}");
}

/// Whoever answers probes of its closed window could hold the memory of connections for ever.
#[test]
fn an_orphan_behind_a_closed_window_is_given_up() {
    let config = ConnectionConfig::default().with_orphan_timeout(Duration::from_secs(50));
    let mut l = Lab::server(config, 1);
    l.window = 0;
    l.ack(0);
    l.write(5000);
    l.stack.close(l.now, l.conn);
    l.poll();
    for second in 1..55 {
        l.advance(Duration::from_secs(1));
        assert_eq!(l.stack.info(l.conn).is_none(), second >= 50, "after {second} s");
        l.ack(0);
    }
    assert!(l.take(|s| s.seg.flags.rst).is_some());
    assert_eq!(l.counter(Counter::TcpAbortOnTimeout), 1);
}

#[test]
fn an_orphan_that_delivers_something_now_and_then_is_kept() {
    let config = ConnectionConfig::default().with_orphan_timeout(Duration::from_secs(50));
    let mut l = Lab::server(config, 1);
    l.window = 500;
    l.ack(0);
    l.write(5000);
    l.stack.close(l.now, l.conn);
    l.poll();
    for _ in 0..9 {
        l.advance(Duration::from_secs(40));
        assert!(l.stack.info(l.conn).is_some());
        l.ack(0);
    }
    assert!(l.take(|s| s.seg.flags.rst).is_none());
}

#[test]
fn orphans_are_bounded_in_number() {
    let mut l = Lab::server_of(StackConfig::default().with_max_orphans(0), ConnectionConfig::default());
    l.write(5000);
    l.take_all();
    l.stack.close(l.now, l.conn);
    l.poll();
    assert!(l.take(|s| s.seg.flags.rst).is_some());
    assert_eq!(l.counter(Counter::TcpAbortOnMemory), 1);
}

#[test]
fn a_subflow_that_the_peer_closes_again_and_again_is_opened_ever_more_rarely() {
    let mut l = Lab::client(ConnectionConfig::default(), 2);
    l.write(1);
    l.ack(0);
    let mut opened = Vec::new();
    for _ in 0..600 {
        if l.sent.iter().any(|s| s.seg.flags.syn) {
            opened.push(l.now);
            let f = l.accept_join(0);
            l.send(f, Out { fin: true, ..Out::default() });
            l.ack(f);
        }
        l.sent.clear();
        l.advance(Duration::from_millis(500));
    }
    // In five minutes: at once, then after 1, 2, 4, 8, 16, 32, 60, 60, 60 s.
    assert!((5..=12).contains(&opened.len()), "{opened:?}");
}

#[test]
fn a_client_that_has_nothing_to_send_still_opens_paths_for_what_it_receives() {
    let mut l = Lab::client_unconfirmed(ConnectionConfig::default(), 2);
    l.stack.shutdown(l.now, l.conn).expect("shutdown");
    l.poll();
    l.sent.clear();
    l.ack(0);
    let f = l.accept_join(0);
    l.data(0, 1, 1000);
    l.data(f, 1001, 1000);
    assert_eq!(l.received.len(), 2000);
    // Over in both directions: not any more.
    let option = data_fin(&l, l.map_bytes(2001, 0, 1, &[]));
    l.send(0, Out::options([option]));
    l.sent.clear();
    l.stack.path_added(l.now, PathConfig::new("late", stack_address(9)));
    l.advance(Duration::from_secs(5));
    assert!(l.take(|s| s.seg.flags.syn).is_none());
}

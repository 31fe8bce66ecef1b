//! RFC 8684 §3.7.

use crate::peer::{Lab, Out, bytes};
use umptcp_stack_core::config::ConnectionConfig;
use umptcp_stack_core::error::{ConnectionError, FallbackReason};
use umptcp_stack_core::event::Event;
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::stack::MptcpStatus;
use umptcp_stack_core::types::Duration;
use umptcp_stack_core::wire::mptcp::{Dsn, Dss, DssMapping, MpFail, MptcpOption, ResetReason};

fn checksums() -> ConnectionConfig {
    ConnectionConfig::default().with_checksum(true).with_no_delay(true)
}

fn plain(l: &Lab) -> Option<FallbackReason> {
    match l.status() {
        MptcpStatus::Plain { reason } => Some(reason),
        _ => None,
    }
}

fn reset_reason(s: &crate::peer::Seen) -> Option<ResetReason> {
    s.seg.options.mptcp.iter().find_map(|o| match o {
        MptcpOption::Reset(r) => Some(r.reason.into()),
        _ => None,
    })
}

fn fail_dsn(s: &crate::peer::Seen) -> Option<u64> {
    s.seg.options.mptcp.iter().find_map(|o| match o {
        MptcpOption::Fail(f) => Some(f.dsn),
        _ => None,
    })
}

fn infinite(l: &Lab, data: u64, subflow: u64) -> MptcpOption {
    let dsn = l.keys().own_data(data);
    let checksum = l.checksum.then_some(0);
    let mapping = DssMapping { dsn: Dsn::Long(dsn), ssn: subflow as u32, len: 0, checksum };
    MptcpOption::Dss(Dss { data_fin: false, ack: None, mapping: Some(mapping) })
}

/// Data with its mapping, one byte of the payload changed after the checksum was made.
fn send_changed(l: &mut Lab, flow: usize, data: u64, len: u16) {
    let option = l.dss(Some(l.map(data, l.flows[flow].next, len)));
    let mut payload = bytes(data, u64::from(len));
    payload[usize::from(len) / 2] ^= 1;
    l.send(flow, Out::options([option]).payload(payload));
}

#[test]
fn first_data_without_an_option_is_plain_tcp_and_announced() {
    for client in [true, false] {
        let mut l = if client {
            Lab::client_unconfirmed(ConnectionConfig::default(), 1)
        } else {
            Lab::server(ConnectionConfig::default(), 1)
        };
        l.take_all();
        l.send(0, Out::default().payload(bytes(1, 100)));
        assert_eq!(plain(&l), Some(FallbackReason::NoOptionInData));
        assert_eq!(l.received, bytes(1, 100));
        // A DSS or the keys had been sent, so the peer may think that this is MPTCP: it is told (third rule
        // of §3.7).
        let said = l.take(|s| s.mapping().is_some_and(|m| m.len == 0)).expect("an infinite mapping");
        assert!(said.payload.is_empty());
        let first = Dsn::Long(l.keys().stack_data(1));
        assert_eq!(said.mapping().map(|m| (m.dsn, m.ssn)), Some((first, 1)));
        // The first data of ours carries it too, and so does its retransmission; nothing else any more.
        l.write(500);
        let data = l.take(|s| !s.payload.is_empty()).expect("data");
        assert_eq!(data.dss().map(|d| (d.ack, d.mapping.map(|m| m.len))), Some((None, Some(0))));
        l.send(0, Out::default());
        l.write(500);
        let later = l.take(|s| s.payload.len() == 500).expect("data");
        assert!(later.seg.options.mptcp.is_empty(), "{:?}", later.seg.options);
        // Only subflow ACKs count.
        assert_eq!(l.stack.info(l.conn).map(|i| i.bytes_acked), Some(500));
        l.send(0, Out::default());
        assert_eq!(l.stack.info(l.conn).map(|i| i.bytes_acked), Some(1000));
        assert!(l.counter(Counter::InfiniteMapTx) >= 2);
    }
}

#[test]
fn first_data_acknowledged_without_a_data_ack_is_plain_tcp() {
    let mut l = Lab::server(ConnectionConfig::default(), 1);
    l.write(1000);
    let data = l.take(|s| !s.payload.is_empty()).expect("data");
    assert!(data.mapping().is_some(), "every segment carries a mapping until the first DATA_ACK");
    l.send(0, Out::default());
    assert_eq!(plain(&l), Some(FallbackReason::NoDataAck));
    assert_eq!(l.counter(Counter::DssFallback), 1);
    l.write(1000);
    let next = l.take(|s| !s.payload.is_empty()).expect("data");
    assert_eq!(next.mapping().map(|m| (m.len, m.ssn)), Some((0, 1)), "retroactive from the last DATA_ACK");
}

#[test]
fn every_segment_carries_a_mapping_until_the_first_data_ack() {
    let mut l = Lab::server(ConnectionConfig::default(), 1);
    l.write(8000);
    let data: Vec<_> = l.take_all().into_iter().filter(|s| !s.payload.is_empty()).collect();
    assert!(data.len() > 1 && data.iter().all(|s| s.mapping().is_some()));
}

#[test]
fn options_lost_on_a_joined_subflow_reset_it() {
    // Second rule of §3.7: the ACK of data on it lacks a DATA_ACK.
    let mut l = Lab::client(ConnectionConfig::default(), 2);
    l.write(1);
    l.ack(0);
    let second = l.accept_join_stripped(0);
    l.window = 60_000;
    // No data go there right behind the third ACK.
    l.advance(Duration::from_millis(10));
    l.write(20_000);
    let on_second =
        l.take_all().into_iter().filter(|s| s.flow == Some(second) && !s.payload.is_empty()).count();
    assert!(on_second > 0, "data on the second subflow");
    l.send(second, Out::default());
    let rst = l.take(|s| s.seg.flags.rst).expect("a RST");
    assert_eq!((rst.flow, reset_reason(&rst)), (Some(second), Some(ResetReason::MiddleboxInterference)));
    assert!(l.is_mptcp());
    // What it carried goes out again on the first.
    assert!(
        l.advance_until(Duration::from_secs(2), |s| s.flow == Some(0) && !s.payload.is_empty()).is_some()
    );
}

#[test]
fn data_without_mapping_waits_a_while_and_then_resets_the_subflow() {
    let mut l = Lab::server(ConnectionConfig::default(), 1);
    l.data(0, 1, 100);
    assert_eq!(l.data_acked, 101);
    l.take_all();
    l.send(0, Out::default().payload(bytes(101, 100)));
    let ack = l.take(|s| s.flow == Some(0)).expect("an ACK");
    // RFC 8684 §3.3.1: acknowledged by the subflow, not at the data level.
    assert_eq!(ack.seg.ack.0.wrapping_sub(crate::peer::seq(201)), 0);
    assert_eq!(l.data_acked, 101);
    // Its mapping arrives after it, in time.
    l.advance(Duration::from_millis(500));
    let option = l.dss(Some(l.map(101, 101, 100)));
    l.send(0, Out::options([option]));
    assert_eq!(l.received, bytes(1, 200));
    // The next never gets one.
    l.send(0, Out::default().payload(bytes(201, 100)));
    l.take_all();
    let rst = l.advance_until(Duration::from_secs(5), |s| s.seg.flags.rst).expect("a RST");
    assert_eq!(reset_reason(&rst), Some(ResetReason::MiddleboxInterference));
    assert_eq!(l.counter(Counter::DSSNoMatchTCP), 1);
    assert_eq!(l.received, bytes(1, 200));
}

#[test]
fn data_without_mapping_fills_no_more_than_a_window() {
    let config = ConnectionConfig::default().with_receive_buffer(20_000);
    let mut l = Lab::server(config, 1);
    l.data(0, 1, 100);
    let mut sent = 101;
    for _ in 0..30 {
        l.send(0, Out::default().payload(bytes(sent, 1000)));
        sent += 1000;
    }
    let rst = l.take(|s| s.seg.flags.rst).expect("a RST before any time has passed");
    assert_eq!(reset_reason(&rst), Some(ResetReason::MiddleboxInterference));
}

#[test]
fn a_failed_checksum_on_the_only_subflow_leads_to_plain_tcp() {
    for client in [true, false] {
        let mut l = if client { Lab::client(checksums(), 1) } else { Lab::server(checksums(), 1) };
        l.data(0, 1, 1000);
        l.write(300);
        l.ack(0);
        l.take_all();
        send_changed(&mut l, 0, 1001, 1000);
        let fail = l.take(|s| fail_dsn(s).is_some()).expect("MP_FAIL");
        assert!(!fail.seg.flags.rst && fail.payload.is_empty());
        assert_eq!(fail_dsn(&fail), Some(l.keys().own_data(1001)));
        // Failed data is not DATA_ACKed, what follows neither, and nothing is delivered.
        l.data(0, 2001, 100);
        assert_eq!(l.data_acked, 1001);
        assert_eq!(l.received.len(), 1000);
        assert!(l.is_mptcp());
        // Unanswered, it is said again.
        assert!(l.advance_until(Duration::from_secs(3), |s| fail_dsn(s).is_some()).is_some());
        // The answer.
        let dsn = l.keys().stack_data(301);
        l.send(0, Out::options([MptcpOption::Fail(MpFail { dsn })]));
        assert_eq!(plain(&l), Some(FallbackReason::ChecksumFailure));
        // Plain TCP delivers what arrived, changed as it was.
        assert_eq!(l.received.len(), 2100);
        let wrong: Vec<usize> =
            (0..2100).filter(|i| l.received[*i] != crate::peer::byte(*i as u64 + 1)).collect();
        assert_eq!(wrong, vec![1500]);
        l.send(0, Out::default().payload(bytes(2101, 50)));
        assert_eq!(l.received.len(), 2150);
        // Our direction is announced as well.
        l.write(200);
        let data = l.take(|s| !s.payload.is_empty()).expect("data");
        assert_eq!(data.mapping().map(|m| (m.len, m.ssn, m.checksum)), Some((0, 301, Some(0))));
        assert_eq!(l.counter(Counter::MPFailRx), 1);
        assert_eq!(l.counter(Counter::DSSCorruptionFallback), 1);
        assert!(l.counter(Counter::MPFailTx) >= 2);
    }
}

#[test]
fn an_infinite_mapping_answers_mp_fail_as_well() {
    let mut l = Lab::server(checksums(), 1);
    l.data(0, 1, 1000);
    send_changed(&mut l, 0, 1001, 1000);
    assert!(l.take(|s| fail_dsn(s).is_some()).is_some());
    // On new data, retroactive to the last DATA_ACK.
    let option = infinite(&l, 1001, 1001);
    l.send(0, Out::options([option]).payload(bytes(2001, 500)));
    assert_eq!(plain(&l), Some(FallbackReason::InfiniteMapping));
    assert_eq!(l.received.len(), 2500);
    assert_eq!(l.counter(Counter::InfiniteMapRx), 1);
}

#[test]
fn mp_fail_that_nobody_answers_ends_in_a_reset() {
    let mut l = Lab::server(checksums(), 1);
    send_changed(&mut l, 0, 1, 1000);
    let rst = l.advance_until(Duration::from_secs(100), |s| s.seg.flags.rst).expect("a RST");
    assert_eq!(reset_reason(&rst), Some(ResetReason::MiddleboxInterference));
    assert_eq!(fail_dsn(&rst), Some(l.keys().own_data(1)));
    assert!(l.received.is_empty());
}

/// A sender that the window limits has filled it before its answer to MP_FAIL can come.
#[test]
fn a_window_of_data_behind_a_failed_checksum_waits_for_the_answer() {
    let mut l = Lab::server(checksums().with_receive_buffer(4000), 1);
    send_changed(&mut l, 0, 1, 1000);
    for data in [1001, 2001, 3001] {
        l.data(0, data, 1000);
    }
    let dsn = l.keys().stack_data(1);
    l.send(0, Out::options([MptcpOption::Fail(MpFail { dsn })]));
    assert_eq!(plain(&l), Some(FallbackReason::ChecksumFailure));
    assert_eq!((l.received.len(), l.counter(Counter::DSSNoMatchTCP)), (4000, 0));
}

#[test]
fn a_failed_checksum_on_one_of_several_subflows_resets_it() {
    let mut l = Lab::server(checksums(), 1);
    l.data(0, 1, 1000);
    let second = l.join(1, 0);
    l.take_all();
    send_changed(&mut l, second, 1001, 1000);
    let rst = l.take(|s| s.seg.flags.rst).expect("a RST");
    assert_eq!(rst.flow, Some(second));
    assert_eq!(fail_dsn(&rst), Some(l.keys().own_data(1001)));
    assert_eq!(reset_reason(&rst), Some(ResetReason::MiddleboxInterference));
    assert!(l.is_mptcp());
    // The data comes again, right, on the other.
    l.data(0, 1001, 1000);
    assert_eq!(l.received, bytes(1, 2000));
    assert_eq!(l.counter(Counter::DSSCorruptionReset), 1);
}

#[test]
fn a_failed_checksum_with_a_hole_in_the_data_resets_the_subflow() {
    // One subflow is left, but what it carries is not contiguous: a part was on the subflow that died.
    let mut l = Lab::server(checksums(), 1);
    l.data(0, 1, 100);
    let second = l.join(1, 0);
    l.data(0, 1101, 100);
    l.send(second, Out { rst: true, ..Out::default() });
    assert_eq!(l.subflows().len(), 1);
    l.take_all();
    send_changed(&mut l, 0, 1201, 100);
    let rst = l.take(|s| s.seg.flags.rst).expect("a RST");
    assert_eq!(fail_dsn(&rst), Some(l.keys().own_data(1201)));
    assert_eq!(l.received, bytes(1, 100));
}

#[test]
fn fallback_on_the_subflow_that_is_left_shifts_offsets() {
    // 500 bytes came on another subflow, so data offsets and subflow offsets differ from here on.
    let mut l = Lab::server(checksums(), 1);
    l.data(0, 1, 100);
    let second = l.join(1, 0);
    l.data(second, 101, 500);
    l.send(second, Out { rst: true, ..Out::default() });
    l.data(0, 601, 100);
    assert_eq!(l.received, bytes(1, 700));
    send_changed(&mut l, 0, 701, 10);
    let option = infinite(&l, 701, 201);
    l.send(0, Out::options([option]).payload(bytes(711, 20)));
    assert_eq!(plain(&l), Some(FallbackReason::InfiniteMapping));
    l.send(0, Out::default().payload(bytes(731, 20)));
    assert_eq!(l.received.len(), 750);
    assert_eq!(l.received[710..], bytes(711, 40));
}

#[test]
fn mp_fail_received_is_answered_with_mp_fail_and_an_infinite_mapping() {
    let mut l = Lab::client(checksums(), 1);
    l.write(1000);
    l.ack(0);
    l.write(2000);
    l.take_all();
    let dsn = l.keys().stack_data(1001);
    l.send(0, Out::options([MptcpOption::Fail(MpFail { dsn })]));
    assert_eq!(plain(&l), Some(FallbackReason::MpFail));
    let answer = l.take(|s| fail_dsn(s).is_some()).expect("MP_FAIL");
    assert_eq!(fail_dsn(&answer), Some(l.keys().own_data(1)));
    l.write(100);
    let data = l.take(|s| !s.payload.is_empty()).expect("data");
    let start = l.keys().stack_data(1001);
    let expected = DssMapping { dsn: Dsn::Long(start), ssn: 1001, len: 0, checksum: Some(0) };
    assert_eq!(data.mapping(), Some(expected), "from the last DATA_ACK on");
    // DATA_ACKs mean nothing any more; subflow ACKs free the send buffer.
    assert_eq!(l.stack.info(l.conn).map(|i| i.bytes_acked), Some(3000));
    l.send(0, Out::default());
    assert_eq!(l.stack.info(l.conn).map(|i| i.bytes_acked), Some(3100));
    assert!(l.events.iter().any(|e| matches!(e, Event::FellBack { reason: FallbackReason::MpFail, .. })));
}

#[test]
fn mp_fail_when_no_fallback_is_possible_resets_the_subflow() {
    let mut l = Lab::client(checksums(), 2);
    l.write(1);
    l.ack(0);
    let second = l.accept_join(0);
    l.ack(second);
    l.take_all();
    let dsn = l.keys().stack_data(2);
    l.send(second, Out::options([MptcpOption::Fail(MpFail { dsn })]));
    let rst = l.take(|s| s.seg.flags.rst).expect("a RST");
    assert_eq!(rst.flow, Some(second));
    assert!(fail_dsn(&rst).is_some());
    assert!(l.is_mptcp());
    assert_eq!(l.counter(Counter::FallbackFailed), 1);
}

#[test]
fn mp_fail_about_data_never_sent_is_ignored() {
    let mut l = Lab::client(checksums(), 1);
    l.write(100);
    l.ack(0);
    let dsn = l.keys().stack_data(5000);
    l.send(0, Out::options([MptcpOption::Fail(MpFail { dsn })]));
    assert!(l.is_mptcp());
}

#[test]
fn mp_fail_without_checksums_is_ignored() {
    // RFC 8684 §3.7: nothing could have failed, so it is no reason to give up the other subflows, or MPTCP.
    let mut l = Lab::client(ConnectionConfig::default(), 2);
    l.write(1000);
    l.ack(0);
    let second = l.accept_join(0);
    l.write(1000);
    l.take_all();
    let fail = |l: &Lab| MptcpOption::Fail(MpFail { dsn: l.keys().stack_data(1001) });
    for flow in [0, second] {
        let option = fail(&l);
        l.send(flow, Out::options([option]));
    }
    assert!(l.take(|s| s.seg.flags.rst || fail_dsn(s).is_some()).is_none(), "not answered");
    assert_eq!((l.counter(Counter::MPFailRx), l.counter(Counter::MPFailUnexpected)), (2, 2));
    // The same with one subflow, where it would have meant plain TCP.
    let mut single = Lab::server(ConnectionConfig::default(), 1);
    single.data(0, 1, 100);
    single.write(500);
    single.ack(0);
    let option = fail(&single);
    single.send(0, Out::options([option]));
    for l in [&mut l, &mut single] {
        assert!(l.is_mptcp());
        let next = l.received.len() as u64 + 1;
        l.data(0, next, 200);
        assert_eq!(l.received, bytes(1, next + 199));
        l.write(300);
        l.ack(0);
        assert_eq!(l.counter(Counter::FallbackFailed) + l.counter(Counter::MPFailTx), 0);
    }
}

#[test]
fn an_infinite_mapping_that_does_not_fit_resets_the_subflow() {
    let mut l = Lab::server(ConnectionConfig::default(), 1);
    l.data(0, 1, 100);
    l.take_all();
    // Off by one: some byte was lost or inserted before it.
    let option = infinite(&l, 102, 101);
    l.send(0, Out::options([option]).payload(bytes(102, 10)));
    let rst = l.take(|s| s.seg.flags.rst).expect("a RST");
    assert_eq!(reset_reason(&rst), Some(ResetReason::MiddleboxInterference));
    assert_eq!(l.received, bytes(1, 100));
}

#[test]
fn an_infinite_mapping_with_several_subflows_resets_the_one_that_carries_it() {
    let mut l = Lab::server(ConnectionConfig::default(), 1);
    l.data(0, 1, 100);
    let second = l.join(1, 0);
    l.take_all();
    let option = infinite(&l, 101, 1);
    l.send(second, Out::options([option]).payload(bytes(101, 10)));
    let rst = l.take(|s| s.seg.flags.rst).expect("a RST");
    assert_eq!(rst.flow, Some(second));
    assert!(l.is_mptcp());
}

/// `strict_checksums`: what would be plain TCP otherwise is a reset, and the end of a connection that finds
/// no other path.
#[test]
fn strict_checksums_never_lead_to_plain_tcp() {
    type Cause = fn(&mut Lab);
    let causes: [(&str, Option<u64>, Cause); 4] = [
        ("failed checksum", Some(1001), |l| send_changed(l, 0, 1001, 1000)),
        ("MP_FAIL", Some(1001), |l| {
            let dsn = l.keys().stack_data(1);
            l.send(0, Out::options([MptcpOption::Fail(MpFail { dsn })]));
        }),
        ("infinite mapping", None, |l| {
            let option = infinite(l, 1001, 1001);
            l.send(0, Out::options([option]).payload(bytes(1001, 10)));
        }),
        ("data without options", None, |l| l.send(0, Out::default().payload(bytes(1001, 10)))),
    ];
    for (name, fail, cause) in causes {
        let mut l = Lab::server(checksums().with_strict_checksums(true), 1);
        l.data(0, 1, 1000);
        l.take_all();
        cause(&mut l);
        let rst = l.advance_until(Duration::from_secs(5), |s| s.seg.flags.rst).expect(name);
        assert_eq!(reset_reason(&rst), Some(ResetReason::MiddleboxInterference), "{name}");
        let fail = fail.map(|at| l.keys().own_data(at));
        assert_eq!(fail_dsn(&rst), fail, "{name}");
        // Break before make: the peer may come back on another path, until the time for that is over.
        assert!(l.is_mptcp(), "{name}");
        let again = l.join(1, 0);
        l.data(again, 1001, 10);
        assert_eq!(l.received, bytes(1, 1010), "{name}");
        l.send(again, Out { rst: true, ..Out::default() });
        l.advance(Duration::from_secs(61));
        let ended = |e: &Event| matches!(e, Event::Closed { error: Some(_), .. });
        let fell_back = |e: &Event| matches!(e, Event::FellBack { .. });
        assert!(l.events.iter().any(ended) && !l.events.iter().any(fell_back), "{name}");
    }
}

/// The same before the first DATA_ACK, on both sides, and with the error at the end.
#[test]
fn strict_checksums_end_a_connection_that_loses_its_options_at_once() {
    let config = checksums().with_strict_checksums(true);
    let mut l = Lab::server(config.clone(), 1);
    l.send(0, Out::default().payload(bytes(1, 100)));
    l.advance(Duration::from_secs(70));
    let closed = |l: &Lab| {
        l.events.iter().any(|e| matches!(e, Event::Closed { error: Some(ConnectionError::Broken), .. }))
    };
    assert!(closed(&l) && l.received.is_empty(), "{:?}", l.events);
    let mut l = Lab::client_unconfirmed(config, 1);
    l.write(1000);
    l.send(0, Out::default());
    assert!(closed(&l), "{:?}", l.events);
    assert_eq!(l.counter(Counter::FallbackFailed), 1);
}

#[test]
fn a_connection_that_fell_back_admits_no_join_and_never_returns() {
    let mut l = Lab::server(ConnectionConfig::default(), 1);
    l.data(0, 1, 100);
    let option = infinite(&l, 101, 101);
    l.send(0, Out::options([option]).payload(bytes(101, 100)));
    assert_eq!(plain(&l), Some(FallbackReason::InfiniteMapping));
    l.take_all();
    l.join_syn(1, 0);
    let rst = l.take(|s| s.seg.flags.rst).expect("a RST");
    assert_eq!(reset_reason(&rst), Some(ResetReason::MptcpSpecific));
    // DSS options have lost their meaning.
    let option = l.dss(Some(l.map(9999, 201, 100)));
    l.send(0, Out::options([option]).payload(bytes(201, 100)));
    assert_eq!(l.received, bytes(1, 300));
    assert!(!l.is_mptcp());
}

#[test]
fn the_end_of_the_stream_after_a_fallback_is_the_fin() {
    let mut l = Lab::server(checksums(), 1);
    l.data(0, 1, 100);
    // A DATA_FIN that a middlebox has made wrong by inserting ten bytes before it.
    let fin = Dss { data_fin: true, ack: None, mapping: Some(l.map_bytes(201, 0, 1, &[])) };
    let option = l.dss(Some(l.map(101, 101, 100)));
    let mut longer = bytes(101, 100);
    longer.splice(50..50, [0; 10]);
    l.send(0, Out::options([option]).payload(longer));
    l.send(0, Out::options([MptcpOption::Dss(fin)]));
    assert!(!l.ended);
    let dsn = l.keys().stack_data(1);
    l.send(0, Out::options([MptcpOption::Fail(MpFail { dsn })]));
    assert_eq!(plain(&l), Some(FallbackReason::ChecksumFailure));
    assert_eq!(l.received.len(), 210);
    l.send(0, Out { fin: true, ..Out::default() });
    assert!(l.ended);
    // Our own end is a FIN too.
    l.stack.shutdown(l.now, l.conn).expect("shutdown");
    l.take_all();
    l.poll();
    let fin = l.take(|s| s.seg.flags.fin).expect("a FIN");
    assert!(fin.dss().is_none_or(|d| !d.data_fin));
}

/// RFC 8684 §3.7: after an infinite mapping only subflow ACKs count.
#[test]
fn after_a_fallback_a_data_ack_frees_nothing() {
    let mut l = Lab::client(checksums(), 1);
    l.data(0, 1, 100);
    l.send(0, Out::options([infinite(&l, 101, 101)]));
    assert_eq!(plain(&l), Some(FallbackReason::InfiniteMapping));
    let acked = |l: &Lab| l.stack.info(l.conn).expect("info").bytes_acked;
    let before = l.flows[0].expected;
    l.write(500);
    assert_eq!(l.data_expected, 1, "no mappings any more");
    // A peer, or a box on the way, that goes on with DATA_ACKs.
    let all = l.keys().data_ack(501);
    let option = MptcpOption::Dss(Dss { data_fin: false, ack: Some(all), mapping: None });
    let after = std::mem::replace(&mut l.flows[0].expected, before);
    l.send(0, Out::options([option]));
    assert_eq!(acked(&l), 0);
    l.flows[0].expected = after;
    l.send(0, Out::default());
    assert_eq!(acked(&l), 500);
}

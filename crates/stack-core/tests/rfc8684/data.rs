//! RFC 8684 §3.3: mappings, DATA_ACKs, windows.

use crate::peer::{Flow, KEY, Lab, Out, Seen, bytes, seq, stack_address};
use umptcp_stack_core::config::ConnectionConfig;
use umptcp_stack_core::device::PathConfig;
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::types::Duration;
use umptcp_stack_core::wire::mptcp::keys::token_and_idsn;
use umptcp_stack_core::wire::mptcp::{
    CapableFlags, DataAck, Dsn, Dss, DssMapping, MpCapable, MptcpOption, ResetReason, VERSION,
};

fn server() -> Lab {
    Lab::server(ConnectionConfig::default(), 1)
}

fn checksums() -> ConnectionConfig {
    ConnectionConfig::default().with_checksum(true)
}

fn reset_reason(l: &mut Lab) -> Option<ResetReason> {
    let rst = l.take(|s| s.seg.flags.rst)?;
    rst.seg.options.mptcp.iter().find_map(|o| match o {
        MptcpOption::Reset(r) => Some(r.reason.into()),
        _ => None,
    })
}

/// Payload at a subflow offset, without an option.
fn raw(l: &mut Lab, at: u64, data: u64, len: u64) {
    l.send(0, Out { at: Some(at), ..Out::default() }.payload(bytes(data, len)));
}

#[test]
fn one_mapping_spans_many_packets() {
    for spread in [false, true] {
        let mut l = server();
        let option = l.dss(Some(l.map(1, 1, 3000)));
        for k in 0..3 {
            // On the first packet alone, or on each, as segmentation by a device does it.
            let options = if spread || k == 0 { vec![option.clone()] } else { Vec::new() };
            l.send(0, Out { options, payload: bytes(1 + 1000 * k, 1000), ..Out::default() });
        }
        assert_eq!(l.received, bytes(1, 3000));
        assert_eq!(l.data_acked, 3001);
    }
}

#[test]
fn a_mapping_arrives_before_its_data_after_it_and_twice() {
    let mut l = server();
    // Before: on a packet that arrives out of order, and on a pure ACK.
    let option = l.dss(Some(l.map(1, 1, 200)));
    l.send(
        0,
        Out { at: Some(101), options: vec![option.clone()], payload: bytes(101, 100), ..Out::default() },
    );
    assert!(l.received.is_empty());
    raw(&mut l, 1, 1, 100);
    assert_eq!(l.received, bytes(1, 200));
    // After.
    raw(&mut l, 201, 201, 100);
    assert_eq!(l.data_acked, 201);
    let later = l.dss(Some(l.map(201, 201, 100)));
    l.flows[0].next = 301;
    l.send(0, Out::options([later.clone()]));
    assert_eq!(l.received, bytes(1, 300));
    // Twice, also when its data is long gone.
    l.send(0, Out::options([later, option]));
    assert_eq!(l.received, bytes(1, 300));
    assert!(l.is_mptcp() && l.subflows().len() == 1);
}

#[test]
fn mappings_that_disagree_reset_the_subflow() {
    let mut l = server();
    let first = l.dss(Some(l.map(101, 101, 100)));
    let second = l.dss(Some(l.map(151, 151, 100)));
    l.send(0, Out { at: Some(101), options: vec![first], payload: bytes(101, 100), ..Out::default() });
    // Overlapping and of one mind: the part that is new counts.
    l.send(0, Out { at: Some(201), options: vec![second], payload: bytes(201, 50), ..Out::default() });
    l.take_all();
    l.data(0, 1, 100);
    assert_eq!(l.received, bytes(1, 250));
    let ahead = l.dss(Some(l.map(351, 351, 100)));
    l.send(0, Out { at: Some(351), options: vec![ahead], payload: bytes(351, 100), ..Out::default() });
    l.take_all();
    let conflicting = l.dss(Some(l.map(352, 351, 100)));
    l.send(0, Out { at: Some(351), options: vec![conflicting], payload: bytes(351, 100), ..Out::default() });
    assert_eq!(reset_reason(&mut l), Some(ResetReason::MptcpSpecific));
    assert_eq!(l.counter(Counter::DSSNotMatching), 1);
}

#[test]
fn data_outside_the_window_is_dropped_and_not_acknowledged() {
    let config = ConnectionConfig::default().with_receive_buffer(10_000);
    let mut l = Lab::server(config, 1);
    l.data(0, 1, 100);
    // RFC 8684 §3.8.
    let option = l.dss(Some(l.map(50_000, 101, 100)));
    l.send(0, Out::options([option]).payload(bytes(50_000, 100)));
    assert_eq!(l.data_acked, 101);
    assert_eq!(l.counter(Counter::NoDSSInWindow), 1);
    // Before the beginning of the data.
    let dsn = token_and_idsn(KEY).1.0.wrapping_sub(1000);
    let mapping = DssMapping { dsn: Dsn::Long(dsn), ssn: 201, len: 100, checksum: None };
    l.send(0, Out::options([l.dss(Some(mapping))]).payload(bytes(1, 100)));
    assert_eq!(l.received, bytes(1, 100));
    assert_eq!(l.counter(Counter::NoDSSInWindow), 2);
}

#[test]
fn a_mapping_of_bytes_far_beyond_the_window_is_ignored() {
    let mut l = server();
    l.data(0, 1, 10);
    let option = l.dss(Some(l.map(11, 0x7000_0000, 100)));
    l.send(0, Out::options([option]));
    assert_eq!(l.counter(Counter::NoDSSInWindow), 1);
    l.data(0, 11, 10);
    assert_eq!(l.received, bytes(1, 20));
}

#[test]
fn data_sent_again_is_ignored_whatever_it_says() {
    // RFC 8684 §3.3.1: the first data received counts; RFC 6181: a replay changes nothing.
    let mut l = server();
    l.data(0, 1, 1000);
    let second = l.join(1, 0);
    let option = l.dss(Some(l.map(501, 1, 1000)));
    let mut payload = vec![0xee; 500];
    payload.extend(bytes(1001, 500));
    l.send(second, Out::options([option]).payload(payload));
    assert_eq!(l.received, bytes(1, 1500));
    assert_eq!(l.counter(Counter::DuplicateData), 1);
    // The same segment again, as an attacker would repeat it.
    let option = l.dss(Some(l.map(1, 1, 1000)));
    l.send(0, Out { at: Some(1), options: vec![option], payload: vec![0xee; 1000], ..Out::default() });
    assert_eq!(l.received, bytes(1, 1500));
}

#[test]
fn short_and_long_sequence_numbers_across_the_32_bit_wrap() {
    let idsn = token_and_idsn(KEY).1.0;
    let wrap = u64::from(u32::MAX - idsn as u32) + 1;
    assert!((200..900).contains(&wrap), "the key was chosen otherwise");
    let mut l = server();
    let short = |l: &Lab, data: u64, subflow: u64, len: u16| {
        let dsn = Dsn::Short(idsn.wrapping_add(data) as u32);
        let mapping = DssMapping { dsn, ..l.map(data, subflow, len) };
        l.dss(Some(mapping))
    };
    // Long numbers are owed long DATA_ACKs (RFC 8684 §3.3.2), and go on to be after a short one, since data
    // with 8-byte numbers may be unacknowledged still.
    l.data(0, 1, 100);
    let option = short(&l, 101, 101, 50);
    l.send(0, Out::options([option]).payload(bytes(101, 50)));
    for s in l.take_all() {
        assert!(s.dss().and_then(|d| d.ack).is_none_or(|a| matches!(a, DataAck::Long(_))));
    }
    // Out of order around the wrap: first what lies beyond it, then what lies before it and across it.
    let option = short(&l, wrap + 50, 151, 100);
    l.send(0, Out::options([option]).payload(bytes(wrap + 50, 100)));
    assert_eq!(l.received, bytes(1, 150));
    let option = short(&l, 151, 251, (wrap - 101) as u16);
    l.send(0, Out::options([option]).payload(bytes(151, wrap - 101)));
    assert_eq!(l.received, bytes(1, wrap + 149));
    assert_eq!(l.data_acked, wrap + 150);
    // An old number from before the wrap stays old.
    let at = l.flows[0].next;
    let option = short(&l, 101, at, 50);
    l.send(0, Out::options([option]).payload(bytes(101, 50)));
    assert_eq!((l.received.len() as u64, l.data_acked), (wrap + 149, wrap + 150));
    assert_eq!(l.counter(Counter::DuplicateData), 1);
}

#[test]
fn short_data_acks_are_understood() {
    let mut l = server();
    l.write(1000);
    let ack = l.keys().stack_data(1001) as u32;
    l.send(0, Out::options([MptcpOption::Dss(Dss { ack: Some(DataAck::Short(ack)), ..Dss::default() })]));
    assert_eq!(l.stack.info(l.conn).map(|i| i.bytes_acked), Some(1000));
    // One of data never sent is not (RFC 9293 §3.10.7.4).
    let ack = ack.wrapping_add(500);
    l.send(0, Out::options([MptcpOption::Dss(Dss { ack: Some(DataAck::Short(ack)), ..Dss::default() })]));
    assert_eq!(l.stack.info(l.conn).map(|i| i.bytes_acked), Some(1000));
    assert_eq!(l.counter(Counter::DataAckInvalid), 1);
    l.write(500);
    assert_eq!(l.stack.info(l.conn).map(|i| i.bytes_acked), Some(1000));
}

#[test]
fn short_numbers_only_are_answered_by_short_ones() {
    let mut l = server();
    let idsn = token_and_idsn(KEY).1.0;
    let dsn = Dsn::Short(idsn.wrapping_add(1) as u32);
    let mapping = DssMapping { dsn, ..l.map(1, 1, 100) };
    l.send(0, Out::options([l.dss(Some(mapping))]).payload(bytes(1, 100)));
    let ack = l.take(|s| s.dss().is_some()).and_then(|s| s.dss()).and_then(|d| d.ack);
    assert_eq!(ack, Some(DataAck::Short(idsn.wrapping_add(101) as u32)));
}

#[test]
fn checksums_are_used_as_negotiated_or_the_subflow_is_reset() {
    for negotiated in [true, false] {
        for on_capable in [true, false] {
            let config = ConnectionConfig::default().with_checksum(negotiated);
            let mut l = Lab::server(config, 1);
            l.take_all();
            let right = l.map(1, 1, 10).checksum;
            let checksum = if negotiated { None } else { right.or(Some(0x1234)) };
            let option = if on_capable {
                MptcpOption::Capable(MpCapable::Data {
                    version: VERSION,
                    flags: CapableFlags::sha256(negotiated, false),
                    sender_key: KEY,
                    receiver_key: l.key,
                    len: 10,
                    checksum,
                })
            } else {
                l.dss(Some(DssMapping { checksum, ..l.map(1, 1, 10) }))
            };
            l.send(0, Out::options([option]).payload(bytes(1, 10)));
            assert_eq!(reset_reason(&mut l), Some(ResetReason::MptcpSpecific), "{negotiated} {on_capable}");
            assert!(l.received.is_empty());
        }
    }
}

#[test]
fn a_checksummed_mapping_larger_than_the_buffer_is_refused() {
    let config = checksums().with_receive_buffer(10_000);
    let mut l = Lab::server(config, 1);
    let option = l.dss(Some(l.map(1, 1, 12_000)));
    l.send(0, Out::options([option]).payload(bytes(1, 1000)));
    assert_eq!(reset_reason(&mut l), Some(ResetReason::LackOfResources));
}

#[test]
fn a_checksummed_mapping_counts_only_when_whole() {
    let mut l = Lab::server(checksums(), 1);
    let option = l.dss(Some(l.map(1, 1, 300)));
    l.send(0, Out::options([option.clone()]).payload(bytes(1, 100)));
    l.send(0, Out::options([option.clone()]).payload(bytes(101, 100)));
    assert_eq!((l.data_acked, l.received.len()), (1, 0));
    l.send(0, Out::options([option]).payload(bytes(201, 100)));
    assert_eq!(l.received, bytes(1, 300));
}

#[test]
fn a_window_counts_only_with_a_data_ack() {
    let config = ConnectionConfig::default().with_no_delay(true);
    let mut l = Lab::server(config, 1);
    l.window = 1000;
    l.ack(0);
    l.window = 60_000;
    l.data_expected = 1;
    let seen = |l: &mut Lab| l.take_all().iter().map(|s| s.payload.len()).sum::<usize>();
    // The third ACK offered a whole window, which an advertisement never takes back.
    l.write(70_000);
    for _ in 0..40 {
        // Subflow ACKs with a large window, but the DATA_ACK stays where it is: nothing beyond the first
        // window goes.
        let ack = l.keys().stack_data(1);
        let option = MptcpOption::Dss(Dss { data_fin: false, ack: Some(DataAck::Long(ack)), mapping: None });
        l.send(0, Out::options([option]));
    }
    // In whole packets: the little that is left waits for the override timeout (RFC 9293 §3.8.6.2.1).
    let first = seen(&mut l);
    assert!((58_000..=60_000).contains(&first), "{first}");
    // A larger window without a DATA_ACK opens nothing, not even beside a mapping.
    l.window = 65_000;
    l.send(0, Out::default());
    assert_eq!(seen(&mut l), 0);
    let mapping = Dss { data_fin: false, ack: None, mapping: Some(l.map(1, 1, 100)) };
    l.send(0, Out::options([MptcpOption::Dss(mapping)]).payload(bytes(1, 100)));
    assert_eq!((seen(&mut l), l.received.len()), (0, 100));
    l.data_expected = 1;
    let ack = l.keys().stack_data(1);
    let option = MptcpOption::Dss(Dss { data_fin: false, ack: Some(DataAck::Long(ack)), mapping: None });
    l.send(0, Out::options([option]));
    // In whole packets.
    let opened = first + seen(&mut l);
    assert!((63_000..=65_000).contains(&opened), "{opened}");
}

/// RFC 8684 §3.3.5: what the data-level window admits still has to fit the window of the subflow that carries
/// it.
#[test]
fn each_subflow_obeys_its_own_window() {
    for window in [2_000, 6_000] {
        let config = ConnectionConfig::default().with_no_delay(true);
        let mut l = Lab::client(config, 2);
        l.write(1);
        l.ack(0);
        let second = l.accept_join(0);
        // No data go there right behind the third ACK.
        l.advance(Duration::from_millis(20));
        // Its window is small at its own level, and the right edge of the connection's does not move back.
        l.window = window;
        l.ack(second);
        l.take_all();
        // More than the congestion window of either, so that both are filled.
        l.write(55_000);
        let sent = l.take_all();
        let on = |flow| -> usize {
            sent.iter().filter(|s| s.flow == Some(flow)).map(|s| s.payload.len()).sum::<usize>()
        };
        // In whole packets of 1,460 bytes less options.
        let (first, second) = (on(0), on(second));
        assert!(
            second > usize::from(window) - 1_460 && second <= usize::from(window),
            "{second} of {window}"
        );
        assert!(first > 10_000, "{first}");
    }
}

#[test]
fn zero_window_probes_back_off() {
    // The data-level window is shut while the subflow's is open: every probe is answered with a window, but
    // no DATA_ACK.
    let mut l = server();
    l.write(60_000);
    // The window that the handshake offered is used up, and nothing is added to it.
    while l.window > 0 {
        l.window = (60_001 - l.data_expected) as u16;
        l.ack(0);
    }
    l.write(1000);
    l.take_all();
    let mut times = Vec::new();
    while times.len() < 6 {
        // A window, but no DATA_ACK: of use to the subflow only.
        l.window = 60_000;
        l.send(0, Out::default());
        l.take_all();
        let probe = l.advance_until(Duration::from_secs(300), |s| s.payload.is_empty() && s.flow == Some(0));
        assert!(probe.is_some(), "no probe after {times:?}");
        times.push(l.now);
    }
    let gaps: Vec<u128> = times.windows(2).map(|w| (w[1] - w[0]).as_millis()).collect();
    assert!(gaps.windows(2).all(|g| g[1] >= g[0]), "{gaps:?}");
    assert!(gaps[4] >= 8 * gaps[0], "{gaps:?}");
}

#[test]
fn urgent_data_is_delivered_in_line() {
    let mut l = server();
    let option = l.dss(Some(l.map(1, 1, 100)));
    l.send(0, Out { urgent: Some(50), ..Out::options([option]).payload(bytes(1, 100)) });
    assert_eq!(l.received, bytes(1, 100));
}

#[test]
fn unmapped_data_is_acknowledged_by_the_subflow_only() {
    let mut l = server();
    l.data(0, 1, 10);
    l.take_all();
    raw(&mut l, 11, 11, 100);
    let ack = l.take(|s| s.payload.is_empty()).expect("an ACK");
    assert_eq!(ack.seg.ack.0, seq(111));
    assert_eq!(l.data_acked, 11);
}

#[test]
fn what_a_middlebox_acknowledged_is_sent_again_on_a_timer() {
    // RFC 8684 §3.3.6: acknowledged at the subflow level and never at the data level.
    let mut l = Lab::client(ConnectionConfig::default(), 2);
    l.write(1);
    l.ack(0);
    l.accept_join(0);
    l.take_all();
    let before = l.data_expected;
    l.write(1000);
    let sent = l.take(|s| !s.payload.is_empty()).expect("data");
    l.data_expected = before;
    l.ack(sent.flow.expect("a subflow"));
    let again =
        l.advance_until(Duration::from_secs(10), |s| !s.payload.is_empty()).expect("the data once more");
    assert_eq!(again.mapping().map(|m| m.dsn), sent.mapping().map(|m| m.dsn));
    assert_eq!(l.counter(Counter::MPTCPRetrans), 1);
}

/// RFC 8684 §5: a peer that knows the keys gets no more memory than it is meant to, by mappings without data
/// or by data with gaps.
#[test]
fn state_that_a_hostile_peer_can_make_is_bounded() {
    let mut l = server();
    let most = 1024 + ConnectionConfig::default().receive_buffer.initial() as u64 / 512;
    for at in (1..=most).rev() {
        let option = l.dss(Some(l.map(3 * at, at, 1)));
        l.send(0, Out::options([option]));
    }
    assert_eq!((l.subflows().len(), l.counter(Counter::DSSTooMany)), (1, 0));
    let option = l.dss(Some(l.map(3 * most + 3, most + 1, 1)));
    l.send(0, Out::options([option]));
    assert_eq!(reset_reason(&mut l), Some(ResetReason::LackOfResources));
    assert_eq!(l.counter(Counter::DSSTooMany), 1);
    // Single bytes with gaps between them: so many pieces are held, and the rest counts as lost.
    let mut l = server();
    for k in 0..20_000 {
        raw(&mut l, 3 + 2 * k, 3 + 2 * k, 1);
        l.take_all();
    }
    assert_eq!(l.counter(Counter::TcpOFODrop), 20_000 - 16 * 1024);
    assert_eq!((l.subflows().len(), l.received.len()), (1, 0));
}

/// A segment below the peer's window: it makes the peer repeat its DATA_ACK.
fn asks_for_an_ack(f: &Flow, s: &Seen) -> bool {
    s.flow == Some(0) && s.payload.is_empty() && u64::from(s.seg.seq.0.wrapping_sub(f.irs)) + 1 == f.expected
}

#[test]
fn a_data_ack_that_was_lost_is_asked_for_on_an_only_subflow() {
    for fin in [false, true] {
        let mut l = Lab::client(ConnectionConfig::default(), 1);
        let old = l.dss(None);
        l.write(1000);
        if fin {
            l.stack.shutdown(l.now, l.conn).expect("shutdown");
            l.poll();
        }
        // The subflow acknowledges everything; the DATA_ACK stays behind.
        l.send(0, Out::options([old]));
        l.take_all();
        let flow = l.flows[0];
        for asked in 1..=3 {
            let probe = l.advance_until(Duration::from_secs(3), |s| asks_for_an_ack(&flow, s));
            assert!(probe.is_some(), "fin {fin}: the peer was not asked {asked} times");
            assert_eq!(l.counter(Counter::DataAckProbe), asked);
        }
        assert_eq!(l.counter(Counter::MPTCPRetrans), 0, "nothing is sent twice on an only subflow");
        // The answer frees the data; nobody is asked any more.
        l.ack(0);
        l.take_all();
        l.advance(Duration::from_secs(60));
        let probes = l.take_all().iter().filter(|s| asks_for_an_ack(&flow, s)).count();
        assert_eq!((probes, l.counter(Counter::DataAckProbe)), (0, 3), "fin {fin}");
    }
}

#[test]
fn a_probe_does_not_take_the_place_of_a_data_fin_that_is_repeated() {
    // The peer takes no option from a segment below its window: on one of these a DATA_FIN would never
    // arrive.
    let mut l = Lab::client(ConnectionConfig::default(), 1);
    l.stack.shutdown(l.now, l.conn).expect("shutdown");
    l.poll();
    l.take_all();
    l.advance(Duration::from_secs(10));
    let flow = l.flows[0];
    let sent = l.take_all();
    let (probes, acks): (Vec<_>, Vec<_>) = sent.iter().partition(|s| asks_for_an_ack(&flow, s));
    let data_fin = |s: &&&Seen| s.dss().is_some_and(|d| d.data_fin);
    assert!(probes.len() > 2 && probes.iter().filter(data_fin).count() == 0);
    assert!(acks.iter().filter(data_fin).count() > 2);
}

#[test]
fn a_full_send_buffer_behind_a_lost_data_ack_empties_again() {
    let config = ConnectionConfig::default().with_send_buffer(20_000).with_receive_buffer(20_000);
    let mut l = Lab::client(config, 1);
    let old = l.dss(None);
    l.write(20_000);
    for _ in 0..100 {
        l.send(0, Out::options([old.clone()]));
        l.advance(Duration::from_millis(1));
    }
    assert_eq!(l.data_expected, 20_001);
    l.take_all();
    assert_eq!(l.stack.send_slice(l.now, l.conn, b"more"), Ok(0), "the buffer is full");
    l.advance(Duration::from_secs(1));
    let flow = l.flows[0];
    assert!(l.take_all().iter().any(|s| asks_for_an_ack(&flow, s)));
    l.ack(0);
    l.write(10_000);
    assert!(l.take(|s| !s.payload.is_empty()).is_some(), "sending goes on");
}

#[test]
fn the_send_buffer_is_at_least_as_large_as_the_receive_buffer() {
    // RFC 8684 §3.3.5.
    let config = ConnectionConfig::default().with_send_buffer(20_000).with_receive_buffer(50_000);
    let mut l = Lab::client(config, 1);
    l.stack.send_slice(l.now, l.conn, &[0; 100_000]).expect("send");
    let info = l.stack.info(l.conn).expect("info");
    assert_eq!((info.send_queue, info.writable), (50_000, 0));
}

/// What a box on the regular path acknowledges and swallows goes over the backup, although that is not what
/// schedulers prefer: whoever's turn it is must be able to send.
#[test]
fn what_a_box_on_the_regular_path_swallows_goes_over_the_backup() {
    let mut l = Lab::client(ConnectionConfig::default(), 2);
    l.data(0, 1, 1);
    let backup = l.accept_join_as_backup(2);
    l.advance(Duration::from_millis(50));
    l.take_all();
    let old = l.dss(None);
    l.write(1000);
    l.take(|s| s.flow == Some(0) && !s.payload.is_empty()).expect("data on the regular path");
    let mut rescued = false;
    for _ in 0..200 {
        // The box answers whatever comes by.
        l.send(0, Out::options([old.clone()]));
        l.advance(Duration::from_millis(100));
        rescued |= l.take_all().iter().any(|s| s.flow == Some(backup) && s.payload.len() == 1000);
    }
    assert!(rescued, "20 s, and the data were never sent on the backup");
}

/// A path comes while the only one has been silent for long, and its timer is backed off: what was sent there
/// goes over the new one at once.
#[test]
fn a_subflow_that_joins_takes_over_from_a_silent_one() {
    let mut l = Lab::client(ConnectionConfig::default(), 1);
    l.data(0, 1, 1);
    l.write(1000);
    l.advance(Duration::from_secs(20));
    l.take_all();
    l.stack.path_added(l.now, PathConfig::new("late", stack_address(1)));
    l.poll();
    // They have not arrived.
    l.data_expected = 1;
    let late = l.accept_join(2);
    l.advance(Duration::from_millis(50));
    let carried: usize = l.take_all().iter().filter(|s| s.flow == Some(late)).map(|s| s.payload.len()).sum();
    assert_eq!(carried, 1000);
}

/// RFC 8684 §3.3, §3.3.1: each segment of data carries a mapping of all of it, with a 64-bit data sequence number
/// and a subflow sequence number that counts from the SYN, which is 0; no urgent pointer cuts it in two.
#[test]
fn each_mapping_covers_the_data_it_comes_with() {
    let mut l = Lab::client(ConnectionConfig::default(), 2);
    l.write(1);
    l.ack(0);
    l.accept_join(0);
    l.advance(Duration::from_millis(20));
    l.take_all();
    // What the application has written, from offset 1 on.
    let mut written = vec![0];
    for part in [1, 3_000, 40_000] {
        l.write(part);
        written.extend((0..part).map(|n| n as u8));
        for s in l.take_all().into_iter().filter(|s| !s.payload.is_empty()) {
            let m = s.mapping().unwrap_or_else(|| panic!("no mapping: {s:?}"));
            let irs = l.flows[s.flow.expect("a subflow")].irs;
            let at = s.seg.seq.0.wrapping_sub(irs);
            let (start, end) = (m.ssn, m.ssn + u32::from(m.len));
            assert!(start <= at && at + s.payload.len() as u32 <= end, "{m:?} for byte {at}");
            let Dsn::Long(dsn) = m.dsn else { panic!("{m:?}") };
            let offset = dsn.wrapping_sub(l.keys().stack_data(1)) as usize + (at - start) as usize;
            assert_eq!(s.payload[..], written[offset..offset + s.payload.len()], "{m:?} for byte {at}");
            assert!(!s.seg.flags.urg && s.seg.urgent == 0);
        }
        l.ack(0);
        l.ack(1);
    }
    assert!(l.flows.iter().all(|f| f.expected > 10_000), "both carried some: {:?}", l.flows);
}

/// RFC 8684 §3.3.2: a peer may send a DATA_ACK only when it has news.
#[test]
fn data_acks_may_be_left_out_where_they_say_nothing_new() {
    let mut l = Lab::client(ConnectionConfig::default(), 1);
    l.write(1000);
    l.ack(0);
    let acked = |l: &Lab| l.stack.info(l.conn).expect("info").bytes_acked;
    assert_eq!(acked(&l), 1000);
    // Data and ACKs without a DATA_ACK, as when something is missing at the data level.
    l.write(500);
    let mapping = l.map(1, l.flows[0].next, 100);
    let option = MptcpOption::Dss(Dss { data_fin: false, ack: None, mapping: Some(mapping) });
    l.send(0, Out::options([option]).payload(bytes(1, 100)));
    l.send(0, Out::default());
    assert_eq!((l.received.len(), acked(&l)), (100, 1000));
    assert!(l.is_mptcp() && l.subflows().len() == 1);
    l.ack(0);
    assert_eq!(acked(&l), 1500);
}

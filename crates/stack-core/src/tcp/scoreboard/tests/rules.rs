//! One test per rule, with its section.

use super::*;

const RTT: u64 = 100;

/// A board after the handshake, at una = nxt = 1, with an MSS of 1000, and its estimator (RTT 100 ms).
fn established() -> (Board, RttEstimator) {
    let mut b = Board::new();
    b.set_mss(1_000);
    b.push(at(0), Outgoing::syn(0));
    let out = ack(&mut b, at(RTT), 1, &[]);
    assert!(out.syn_acked && !out.fin_acked);
    assert_eq!((out.cumulative, out.delivered, out.rtt), (1, 1, Some(ms(RTT))));
    let e = estimator(ms(RTT));
    assert_eq!(b.detect_loss(at(RTT), &e), 0);
    (b, e)
}

/// Sends `n` segments of 1000 bytes, one per millisecond from `from` on.
fn send_train(b: &mut Board, from: u64, n: u64) {
    for i in 0..n {
        send(b, at(from + i), 1_000);
    }
}

/// Repeats the lowest lost chunk; returns its range.
fn repeat(b: &mut Board, now: u64) -> Option<Range<u64>> {
    let chunk = b.next_lost(1_000)?;
    let r = chunk.range.start.0..chunk.range.end.0;
    b.retransmitted(at(now), chunk.range);
    Some(r)
}

#[test]
fn what_was_late_and_not_sent_again_undoes_the_episode() {
    type Case = (&'static str, u64, &'static [Range<u64>], bool, Option<Evidence>);
    let cases: &[Case] = &[
        ("acknowledged", 6_001, &[], false, Some(Evidence::Late)),
        ("SACKed", 1, &[1..6_001], false, Some(Evidence::Late)),
        ("a part of it", 501, &[1_001..6_001], false, None),
        ("sent again", 6_001, &[], true, None),
    ];
    for (name, una, sacks, again, evidence) in cases {
        let (mut b, e) = established();
        send_train(&mut b, 200, 6);
        ack(&mut b, at(310), 1, &[1_001..6_001]);
        assert_eq!((b.detect_loss(at(310), &e), b.in_recovery()), (1_000, true), "{name}");
        if *again {
            repeat(&mut b, 311);
        }
        let out = ack(&mut b, at(312), *una, sacks);
        assert_eq!(out.spurious, *evidence, "{name}");
        assert!(b.reordering_seen() != *again, "{name}");
    }
    // A tail loss probe repeated it before it was judged lost for good: that may be what arrived.
    let (mut b, e) = established();
    send_train(&mut b, 200, 1);
    let probe = b.tail_probe(1_000).unwrap();
    b.retransmitted(at(400), probe.range);
    send_train(&mut b, 401, 4);
    ack(&mut b, at(510), 1, &[1_001..5_001]);
    assert_eq!((b.detect_loss(at(700), &e), b.in_recovery()), (1_000, true));
    assert_eq!(ack(&mut b, at(701), 5_001, &[]).spurious, None);
}

#[test]
fn a_probe_for_larger_packets_may_be_all_that_is_lost() {
    // RFC 4821 §7.5. Six segments; the third is the probe.
    let probe = range(2_001..3_001);
    type Case = (&'static str, &'static [Range<u64>], Fate);
    let cases: &[Case] = &[
        ("all that followed arrived", &[3_001..6_001], Fate::LostAlone),
        ("the middle of it arrived", &[2_301..2_501, 3_001..6_001], Fate::LostAlone),
        ("it arrived", &[2_001..3_001, 4_001..6_001], Fate::NotLost),
        ("what followed is lost, too", &[4_001..6_001], Fate::LostWithOthers),
        ("and what follows that", &[3_001..4_001, 5_001..6_001], Fate::LostWithOthers),
    ];
    for (name, sacks, fate) in cases {
        let (mut b, e) = established();
        send_train(&mut b, 200, 6);
        ack(&mut b, at(310), 2_001, sacks);
        b.detect_loss(at(400), &e);
        assert_eq!(b.fate(&probe), *fate, "{name}");
    }
    // What went before is lost, too.
    let (mut b, e) = established();
    send_train(&mut b, 200, 6);
    ack(&mut b, at(310), 1_001, &[3_001..6_001]);
    b.detect_loss(at(400), &e);
    assert_eq!(b.fate(&probe), Fate::LostWithOthers);

    // Forgiven, it is no recovery, until its retransmission is lost as well.
    let (mut b, e) = established();
    send_train(&mut b, 200, 6);
    ack(&mut b, at(310), 2_001, &[3_001..6_001]);
    assert!(b.detect_loss(at(400), &e) > 0 && b.in_recovery());
    b.forgive();
    assert!(!b.in_recovery());
    assert_eq!(repeat(&mut b, 401), Some(2_001..3_001));
    assert_eq!((b.detect_loss(at(402), &e), b.in_recovery(), b.fate(&probe)), (0, false, Fate::NotLost));
    send_train(&mut b, 403, 1);
    ack(&mut b, at(510), 2_001, &[3_001..7_001]);
    assert_eq!((b.detect_loss(at(600), &e), b.in_recovery()), (1_000, true));
    assert_eq!(b.fate(&probe), Fate::LostWithOthers);
}

#[test]
fn syn_and_fin_take_one_offset_each() {
    // RFC 9293 §3.4.
    let (mut b, _) = established();
    assert_eq!(
        b.push(
            at(101),
            Outgoing { payload: payload(1, 10), syn: false, fin: true, tag: 7, app_limited: false }
        ),
        range(1..12)
    );
    assert_eq!((b.in_flight(), b.nxt().0), (11, 12));
    let all = b.first_unacked(10).unwrap();
    assert_eq!(
        (all.range.clone(), all.fin, all.syn, all.payload.len(), all.tag),
        (range(1..12), true, false, 10, 7)
    );
    let part = b.first_unacked(4).unwrap();
    assert_eq!(
        (part.range.clone(), part.fin, part.payload.to_bytes()),
        (range(1..5), false, payload(1, 4).to_bytes())
    );
    let out = ack(&mut b, at(120), 11, &[]);
    assert!(!out.fin_acked);
    let fin = b.first_unacked(0).unwrap();
    assert_eq!((fin.range, fin.fin, fin.payload.len(), fin.tag), (range(11..12), true, 0, 7));
    let out = ack(&mut b, at(120), 12, &[]);
    assert!(out.fin_acked && b.is_empty());
    assert_eq!((b.first_unacked(10), b.tail_probe(10), b.next_lost(10)), (None, None, None));
}

#[test]
fn a_syn_with_data_can_be_acknowledged_in_part() {
    // RFC 7413 §4.2.2: the peer may acknowledge the SYN alone.
    let mut b = Board::new();
    b.push(at(0), Outgoing { payload: payload(1, 10), syn: true, fin: false, tag: 3, app_limited: false });
    let out = ack(&mut b, at(5), 1, &[]);
    assert!(out.syn_acked);
    let rest = b.first_unacked(100).unwrap();
    assert_eq!((rest.range, rest.syn, rest.payload.len()), (range(1..11), false, 10));
    assert!(!ack(&mut b, at(6), 5, &[]).syn_acked);
    assert_eq!(b.unacked_iter().collect::<Vec<_>>(), [(range(5..11), &3)]);
}

#[test]
fn an_empty_segment_is_not_recorded() {
    let (mut b, _) = established();
    assert_eq!(b.push(at(1), Outgoing::data(Payload::new(), 0, false)), range(1..1));
    assert!(b.is_empty() && b.oldest_sent().is_none());
}

#[test]
fn an_ack_in_the_middle_of_a_large_segment_leaves_the_rest() {
    let (mut b, _) = established();
    b.push(at(200), Outgoing::data(payload(1, 64_000), 42, true));
    let out = ack(&mut b, at(300), 20_001, &[30_001..40_001]);
    assert_eq!((out.cumulative, out.delivered), (20_000, 30_000));
    assert!(out.app_limited && !out.reordering);
    assert_eq!((b.in_flight(), b.sacked_bytes()), (34_000, 10_000));
    let c = b.first_unacked(usize::MAX).unwrap();
    // The mapping of the whole segment goes with the part (RFC 8684 §3.3.1: mappings never change).
    assert_eq!((c.range, c.tag, c.payload), (range(20_001..30_001), 42, payload(20_001, 10_000)));
    let c = b.tail_probe(1_000).unwrap();
    assert_eq!((c.range, c.payload), (range(63_001..64_001), payload(63_001, 1_000)));
}

#[test]
fn absurd_acknowledgements_do_no_harm() {
    let (mut b, e) = established();
    send_train(&mut b, 200, 3);
    let before = b.in_flight();
    for blocks in [
        &[5..5][..],
        &[900..20_000],
        &[u64::MAX - 1..u64::MAX],
        &[0..1],
        &[2_000..1_500],
        &[0..u64::MAX, 0..u64::MAX, 0..u64::MAX, 0..u64::MAX, 0..u64::MAX],
    ] {
        assert_eq!(ack(&mut b, at(250), 0, blocks).delivered, 0, "{blocks:?}");
        b.detect_loss(at(250), &e);
    }
    assert_eq!(b.in_flight(), before);
    b.retransmitted(at(260), range(0..0));
    b.retransmitted(at(260), range(7_000..90_000));
    b.retransmitted(at(260), range(500..u64::MAX));
    assert_eq!(b.in_flight(), before);
    assert_eq!(ack(&mut b, at(300), u64::MAX, &[]).cumulative, 3_000);
    assert!(b.is_empty() && b.in_flight() == 0);
}

#[test]
fn round_trip_time_comes_from_the_latest_range_sent_once() {
    // RFC 6298 §3 (Karn), RFC 7323 §4.1.
    let (mut b, _) = established();
    send_train(&mut b, 200, 4);
    assert_eq!(ack(&mut b, at(300), 2_001, &[]).rtt, Some(ms(99)));
    // Only a SACK: still a measurement.
    assert_eq!(ack(&mut b, at(310), 2_001, &[3_001..4_001]).rtt, Some(ms(107)));
    // Retransmitted: none, unless the timestamp gives one.
    b.retransmitted(at(350), range(2_001..3_001));
    let mut with_timestamp = b.clone();
    let out = ack(&mut b, at(450), 4_001, &[]);
    assert_eq!((out.rtt, out.retransmitted_acked, out.delivered), (None, true, 1_000));
    let out = with_timestamp.on_ack(at(450), SubflowOffset(4_001), &[], Some(ms(101)));
    assert_eq!(out.rtt, Some(ms(101)));
    // No advance: the echo is that of an older segment.
    let out = with_timestamp.on_ack(at(460), SubflowOffset(4_001), &[], Some(ms(500)));
    assert_eq!(out.rtt, None);
}

#[test]
fn data_held_behind_a_repaired_hole_give_no_round_trip_time() {
    // A peer without SACK acknowledges 2..4 only when 1 is repaired: their age is not a round-trip time.
    let (mut b, _) = established();
    send_train(&mut b, 200, 4);
    b.retransmitted(at(500), range(1..1_001));
    assert_eq!(ack(&mut b, at(600), 4_001, &[]).rtt, None);
}

#[test]
fn three_sacked_segments_mark_the_hole_at_once() {
    // RFC 8985 §6.2 step 4: without reordering seen, DupThresh makes the window 0. RTT is 100 ms, so it would
    // be 25 ms.
    let (mut b, e) = established();
    send_train(&mut b, 200, 6);
    let out = ack(&mut b, at(301), 1, &[1_001..2_001]);
    assert_eq!((out.delivered, b.detect_loss(at(301), &e)), (1_000, 0));
    // Sent 200, RACK.rtt 100, window 25.
    assert_eq!(b.reorder_deadline(), Some(at(325)));
    ack(&mut b, at(302), 1, &[1_001..3_001]);
    assert_eq!(b.detect_loss(at(302), &e), 0);
    assert!(!b.in_recovery());
    ack(&mut b, at(303), 1, &[1_001..4_001]);
    assert_eq!(b.detect_loss(at(303), &e), 1_000);
    assert_eq!((b.lost_bytes(), b.in_flight(), b.reorder_deadline()), (1_000, 2_000, None));
    assert!(b.in_recovery() && !b.in_rto_recovery());
    assert_eq!(b.recovery_point(), Some(SubflowOffset(6_001)));
    assert_eq!(repeat(&mut b, 303), Some(1..1_001));
    assert_eq!((b.lost_bytes(), b.in_flight(), b.next_lost(1_000)), (0, 3_000, None));
}

#[test]
fn three_small_segments_apart_count_as_three() {
    // RFC 6675 §4, IsLost: bytes alone would not do for segments far below the MSS.
    let (mut b, e) = established();
    for i in 0..8 {
        send(&mut b, at(200 + i), 10);
    }
    ack(&mut b, at(310), 1, &[11..21, 31..41]);
    assert_eq!(b.detect_loss(at(310), &e), 0);
    ack(&mut b, at(311), 1, &[51..61, 11..21, 31..41]);
    assert_eq!(b.detect_loss(at(311), &e), 30);
}

#[test]
fn the_reordering_timer_marks_what_no_further_ack_would() {
    // RFC 8985 §6.2 step 5.
    let (mut b, e) = established();
    send_train(&mut b, 200, 2);
    ack(&mut b, at(301), 1, &[1_001..2_001]);
    assert_eq!(b.detect_loss(at(301), &e), 0);
    let deadline = b.reorder_deadline().unwrap();
    assert_eq!(b.detect_loss(deadline - Duration::from_nanos(1), &e), 0);
    assert_eq!(b.reorder_deadline(), Some(deadline));
    assert_eq!(b.detect_loss(deadline, &e), 1_000);
    assert_eq!(b.reorder_deadline(), None);
}

#[test]
fn packets_of_one_large_segment_are_ordered_by_sequence() {
    // RFC 8985 §6.2 step 2: ties of time are broken by sequence. Here one send became many packets.
    let (mut b, e) = established();
    send(&mut b, at(200), 64_000);
    ack(&mut b, at(300), 10_001, &[11_001..20_001]);
    assert_eq!(b.detect_loss(at(300), &e), 1_000);
    assert_eq!(b.next_lost(usize::MAX).map(|c| c.range), Some(range(10_001..11_001)));
    // What lies above is merely still on its way.
    assert_eq!(b.in_flight(), 44_000);
}

#[test]
fn reordering_seen_makes_the_window_a_quarter_of_the_round_trip() {
    // RFC 8985 §6.2 steps 3 and 4: then DupThresh no longer counts, in recovery neither.
    let (mut b, e) = established();
    send_train(&mut b, 200, 8);
    ack(&mut b, at(301), 1, &[1_001..2_001]);
    b.detect_loss(at(301), &e);
    let out = ack(&mut b, at(302), 2_001, &[]);
    assert!(out.reordering && b.reordering_seen());
    assert_eq!(b.detect_loss(at(302), &e), 0);
    ack(&mut b, at(307), 2_001, &[3_001..8_001]);
    assert_eq!(b.detect_loss(at(307), &e), 0);
    // Segment 2 was sent at 202; RACK.rtt is that of the last, sent at 207.
    assert_eq!(b.reorder_deadline(), Some(at(202 + 100 + 25)));
    assert_eq!(b.detect_loss(at(327), &e), 1_000);
}

#[test]
fn each_round_with_a_dsack_widens_the_window_up_to_srtt() {
    // RFC 8985 §6.2 step 4.
    let (mut b, e) = established();
    let mut now = 1_000;
    for round in 1..6 {
        let sent = send(&mut b, at(now), 1_000);
        send(&mut b, at(now + 1), 1_000);
        ack(&mut b, at(now + 101), sent.start, &[sent.end..sent.end + 1_000]);
        b.detect_loss(at(now + 101), &e);
        let quarters = round.min(4);
        assert_eq!(b.reorder_deadline(), Some(at(now + 100 + 25 * quarters)), "round {round}");
        assert_eq!(b.detect_loss(at(now + 100 + 25 * quarters), &e), 1_000);
        assert_eq!(repeat(&mut b, now + 210), Some(sent.clone()));
        // Both copies arrive. The second report of the same round changes nothing.
        let end = b.nxt().0;
        assert!(!ack(&mut b, at(now + 215), end, &[]).dsack);
        let out = ack(&mut b, at(now + 310), end, core::slice::from_ref(&sent));
        assert_eq!((out.dsack, out.dsack_range), (true, Some(range(sent.clone()))));
        b.detect_loss(at(now + 310), &e);
        now += 1_000;
    }
}

#[test]
fn the_window_is_as_long_as_something_was_late() {
    // RFC 8985 §3.3.2: the measured duration of reordering. Segment 1 comes 60 ms after segment 8, which was
    // sent 7 ms after it: the next may be as late, and a quarter more.
    let (mut b, e) = established();
    send_train(&mut b, 200, 8);
    ack(&mut b, at(307), 1, &[7_001..8_001]);
    b.detect_loss(at(307), &e);
    assert!(ack(&mut b, at(367), 1, &[1..1_001]).reordering);
    b.detect_loss(at(367), &e);
    assert_eq!(b.rack.lateness(), ms(67));
    ack(&mut b, at(367), 8_001, &[]);
    let sent = send(&mut b, at(400), 1_000);
    send(&mut b, at(401), 1_000);
    ack(&mut b, at(501), sent.start, &[sent.end..sent.end + 1_000]);
    assert_eq!(b.detect_loss(at(501), &e), 0);
    let wait = Duration::from_micros(67_000 * 5 / 4);
    assert_eq!(b.reorder_deadline(), Some(at(400 + RTT) + wait));
    // What is due is judged by SRTT if the newest delivery was an early one.
    let early = send(&mut b, at(600), 1_000);
    send(&mut b, at(601), 1_000);
    ack(&mut b, at(611), early.start, &[early.end..early.end + 1_000]);
    b.detect_loss(at(611), &e);
    assert!(b.reorder_deadline().is_some_and(|at| at >= Instant::from_millis(400 + RTT)));
}

#[test]
fn the_measured_window_is_bounded_by_srtt_and_twice_its_variation() {
    // One sample of 100 ms: RTTVAR is 50 ms.
    let mut rack = rack::Rack::new();
    let e = estimator(ms(RTT));
    rack.begin_detection(e.min_rtt(), e.srtt());
    rack.on_late(at(1_000), at(0));
    assert_eq!(rack.lateness(), ms(1_000 - RTT));
    assert_eq!(rack.window(ms(RTT), e.rttvar()), ms(RTT + 2 * 50));
    assert_eq!(rack.window(ms(RTT), Duration::ZERO), ms(RTT));
}

#[test]
fn what_was_measured_lasts_sixteen_recoveries_without_its_like() {
    let mut rack = rack::Rack::new();
    rack.begin_detection(Some(ms(RTT)), Some(ms(RTT)));
    rack.on_late(at(150), at(0));
    let recoveries = |rack: &mut rack::Rack, n| {
        for _ in 0..n {
            rack.adapt_window(1_000, 1_000, false, true);
        }
        rack.lateness()
    };
    assert_eq!((recoveries(&mut rack, 15), rack.is_disordered()), (ms(50), true));
    rack.on_late(at(130), at(0));
    assert_eq!(recoveries(&mut rack, 15), ms(50), "that was late by more than half of it");
    rack.on_late(at(120), at(0));
    assert_eq!((recoveries(&mut rack, 1), rack.is_disordered()), (Duration::ZERO, false));
}

#[test]
fn the_echo_of_an_original_that_was_sent_again_tells_how_late_it_was() {
    let (mut b, e) = established();
    send_train(&mut b, 200, 6);
    ack(&mut b, at(304), 1, &[1_001..5_001]);
    b.detect_loss(at(304), &e);
    repeat(&mut b, 304);
    b.on_ack(at(360), SubflowOffset(5_001), &[], Some(ms(160)));
    assert_eq!(b.rack.lateness(), ms(160 - RTT));
}

#[test]
fn an_acknowledgement_that_was_overtaken_tells_what_has_arrived() {
    // Its blocks above SND.UNA are true, and one below is no D-SACK: it was above the acknowledgement then.
    let (mut b, e) = established();
    send_train(&mut b, 200, 8);
    ack(&mut b, at(303), 4_001, &[]);
    b.detect_loss(at(303), &e);
    let out = ack(&mut b, at(304), 1_001, &[2_001..3_001, 6_001..7_001]);
    assert_eq!((out.cumulative, out.delivered, out.dsack_range), (0, 1_000, None));
    assert_eq!((b.una(), b.sacked_bytes()), (SubflowOffset(4_001), 1_000));
    let out = ack(&mut b, at(305), 3_001, &[1..1_001]);
    assert_eq!(out.dsack_range, Some(range(1..1_001)), "that is one");
}

#[test]
fn an_inflated_window_lasts_sixteen_recoveries() {
    let mut rack = rack::Rack::new();
    rack.adapt_window(0, 100, true, false);
    rack.adapt_window(50, 200, true, false);
    assert_eq!(rack.multiplier(), 2, "one round counts once");
    rack.adapt_window(100, 200, true, false);
    assert_eq!(rack.multiplier(), 3);
    for _ in 0..15 {
        rack.adapt_window(1_000, 1_000, false, true);
    }
    assert_eq!(rack.multiplier(), 3);
    rack.adapt_window(1_000, 1_000, false, true);
    assert_eq!(rack.multiplier(), 1);
}

#[test]
fn duplicates_made_by_the_network_do_not_widen_the_window() {
    let (mut b, _) = established();
    send_train(&mut b, 200, 2);
    let out = ack(&mut b, at(300), 2_001, &[1..1_001]);
    assert_eq!((out.dsack, out.dsack_range), (false, Some(range(1..1_001))));
}

#[test]
fn dsack_is_the_first_block_below_the_ack_or_inside_the_second() {
    // RFC 2883 §4.1.1, §4.2.
    for (una, blocks, expected) in [
        (3_001, &[1_001..2_001][..], Some(1_001..2_001)),
        (1, &[2_001..2_501, 1_001..3_001], Some(2_001..2_501)),
        (1, &[1_001..3_001, 1_001..3_001], Some(1_001..3_001)),
        (1, &[1_001..2_001, 3_001..4_001], None),
        (1, &[1_001..3_001, 2_001..2_501], None),
        (1, &[3_001..4_001], None),
        (3_001, &[4_001..5_001, 1_001..2_001], None),
    ] {
        let (mut b, _) = established();
        send_train(&mut b, 200, 6);
        let out = ack(&mut b, at(300), una, blocks);
        assert_eq!(out.dsack_range, expected.map(range), "{una} {blocks:?}");
    }
}

#[test]
fn a_retransmission_lost_again_is_detected() {
    // RFC 8985 §3.4: any transmission, also a retransmission, serves to judge what was sent before it.
    let (mut b, e) = established();
    send_train(&mut b, 200, 5);
    ack(&mut b, at(304), 1, &[1_001..5_001]);
    assert_eq!(b.detect_loss(at(304), &e), 1_000);
    assert_eq!(repeat(&mut b, 304), Some(1..1_001));
    send(&mut b, at(305), 1_000);
    ack(&mut b, at(405), 1, &[1_001..6_001]);
    assert_eq!(b.detect_loss(at(405), &e), 1_000);
    assert_eq!(repeat(&mut b, 405), Some(1..1_001));
    let out = ack(&mut b, at(505), 6_001, &[]);
    assert!(out.recovery_ended && !b.in_recovery() && out.retransmitted_acked);
}

#[test]
fn an_ack_too_early_for_the_retransmission_is_ignored() {
    // RFC 8985 §6.2 step 2, second check: the ACK comes 1 ms after the retransmission, the least RTT is 100
    // ms.
    let (mut b, e) = established();
    send_train(&mut b, 200, 5);
    ack(&mut b, at(304), 1, &[1_001..4_001]);
    b.detect_loss(at(304), &e);
    assert_eq!(repeat(&mut b, 304), Some(1..1_001));
    let out = ack(&mut b, at(305), 4_001, &[]);
    assert!(out.retransmitted_acked);
    // Otherwise segment 4, sent at 204, would now seem older than something delivered.
    assert_eq!((b.detect_loss(at(305), &e), b.in_flight(), b.reorder_deadline()), (0, 1_000, None));
}

#[test]
fn timestamps_tell_that_the_original_arrived() {
    // RFC 8985 §6.2 step 2, first check; RFC 3522 §3.2 (Eifel). 5 of 6 segments are out when the first is
    // sent again. Cumulative acknowledgement, round trip by the echo, SACK blocks.
    type Ack<'a> = (u64, u64, &'a [Range<u64>]);
    let table: [(&str, Ack<'_>, Option<Evidence>); 5] = [
        ("echo of the original", (5_001, 110, &[]), Some(Evidence::Timestamp)),
        ("echo of the retransmission", (5_001, 6, &[]), None),
        ("step 5: a D-SACK is evidence of its own", (5_001, 110, &[1..1_001]), Some(Evidence::Duplicates)),
        ("step 5: everything, and D-SACK never seen", (6_001, 110, &[]), None),
        ("no advance", (1, 110, &[1_001..5_001]), None),
    ];
    for (name, (to, echo, blocks), spurious) in table {
        let (mut b, e) = established();
        send_train(&mut b, 200, 6);
        ack(&mut b, at(304), 1, &[1_001..5_001]);
        b.detect_loss(at(304), &e);
        repeat(&mut b, 304);
        let blocks: Vec<_> = blocks.iter().cloned().map(range).collect();
        let out = b.on_ack(at(310), SubflowOffset(to), &blocks, Some(ms(echo)));
        assert_eq!(out.spurious, spurious, "{name}");
        assert_eq!(b.reordering_seen(), spurious == Some(Evidence::Timestamp), "{name}");
    }
}

#[test]
fn duplicates_prove_nothing_while_something_lost_was_not_sent_again() {
    // RFC 3708: the rest may well be lost.
    let (mut b, _) = established();
    send_train(&mut b, 200, 7);
    b.mark_all_lost();
    assert_eq!(repeat(&mut b, 500), Some(1..1_001));
    let out = ack(&mut b, at(600), 3_001, &[1..1_001]);
    assert_eq!((out.duplicated, out.spurious), (true, None));
    // With nothing left to send again, they do.
    assert_eq!(repeat(&mut b, 600), Some(3_001..4_001));
    ack(&mut b, at(650), 7_001, &[]);
    assert_eq!(ack(&mut b, at(700), 7_001, &[3_001..4_001]).spurious, Some(Evidence::Duplicates));
}

#[test]
fn when_all_retransmissions_arrived_twice_they_were_needless() {
    // RFC 2883 §5, as RFC 3708 uses it.
    let (mut b, e) = established();
    send_train(&mut b, 200, 7);
    ack(&mut b, at(306), 1, &[2_001..7_001]);
    assert_eq!(b.detect_loss(at(306), &e), 2_000);
    assert_eq!(repeat(&mut b, 306), Some(1..1_001));
    assert_eq!(repeat(&mut b, 306), Some(1_001..2_001));
    assert!(ack(&mut b, at(310), 7_001, &[]).spurious.is_none());
    assert!(ack(&mut b, at(406), 7_001, &[1..1_001]).spurious.is_none());
    assert!(ack(&mut b, at(406), 7_001, &[1_001..2_001]).spurious.is_some());
    assert!(ack(&mut b, at(407), 7_001, &[1_001..2_001]).spurious.is_none(), "once only");
}

#[test]
fn recovery_ends_at_the_recovery_point_and_starts_anew_for_later_losses() {
    // RFC 6675 §5.
    let (mut b, e) = established();
    send_train(&mut b, 200, 5);
    ack(&mut b, at(304), 1, &[1_001..5_001]);
    b.detect_loss(at(304), &e);
    repeat(&mut b, 304);
    // 5001..6001 is lost, too, but was sent after the recovery point.
    send_train(&mut b, 305, 4);
    ack(&mut b, at(404), 1, &[1_001..5_001, 6_001..9_001]);
    assert!(!ack(&mut b, at(404), 4_001, &[6_001..9_001]).recovery_ended);
    let out = ack(&mut b, at(408), 5_001, &[6_001..9_001]);
    assert!(out.recovery_ended && !b.in_recovery());
    assert!(b.detect_loss(at(408), &e) > 0);
    assert_eq!((b.in_recovery(), b.recovery_point()), (true, Some(SubflowOffset(9_001))));
}

#[test]
fn recovery_flight_leaves_out_what_was_sacked_before() {
    // RFC 9937 §6: RecoverFS.
    let (mut b, e) = established();
    send_train(&mut b, 200, 10);
    ack(&mut b, at(301), 1, &[1_001..3_001]);
    b.detect_loss(at(301), &e);
    let out = ack(&mut b, at(303), 1, &[1_001..5_001]);
    assert_eq!(b.detect_loss(at(303), &e), 1_000);
    assert_eq!(b.recovery_flight(out.delivered), 8_000);
}

#[test]
fn on_time_out_everything_unsacked_is_lost() {
    // RFC 6675 §5.1.
    let (mut b, _) = established();
    send_train(&mut b, 200, 5);
    ack(&mut b, at(300), 1, &[2_001..3_001]);
    b.mark_all_lost();
    assert_eq!((b.lost_bytes(), b.in_flight(), b.sacked_bytes()), (4_000, 0, 1_000));
    assert!(b.in_rto_recovery() && b.oldest_sent().is_none() && b.reorder_deadline().is_none());
    let order: Vec<_> = core::iter::from_fn(|| repeat(&mut b, 500)).collect();
    assert_eq!(order, [1..1_001, 1_001..2_001, 3_001..4_001, 4_001..5_001]);
    assert_eq!((b.in_flight(), b.oldest_sent()), (4_000, Some(at(500))));
}

#[test]
fn on_time_out_what_was_just_sent_is_spared() {
    // RFC 8985 §6.3.
    let (mut b, e) = established();
    send_train(&mut b, 200, 3);
    send_train(&mut b, 595, 2);
    assert_eq!(b.mark_lost_on_rto(at(600), &e), 3_000);
    assert_eq!((b.lost_bytes(), b.in_flight(), b.oldest_sent()), (3_000, 2_000, Some(at(595))));
    assert!(b.in_rto_recovery());
    // The first range is lost in any case.
    let (mut b, e) = established();
    send_train(&mut b, 595, 2);
    assert_eq!(b.mark_lost_on_rto(at(600), &e), 1_000);
    assert_eq!(repeat(&mut b, 600), Some(1..1_001));
    assert_eq!(b.mark_lost_on_rto(at(900), &e), 2_000);
}

#[test]
fn a_sack_of_the_first_byte_at_time_out_is_reneging() {
    // RFC 2018 §8.
    for rfc_8985 in [false, true] {
        let (mut b, e) = established();
        send_train(&mut b, 200, 3);
        ack(&mut b, at(300), 1, &[1..1_001, 2_001..3_001]);
        assert_eq!(b.in_flight(), 1_000);
        if rfc_8985 {
            b.mark_lost_on_rto(at(900), &e);
        } else {
            b.mark_all_lost();
        }
        assert_eq!((b.sacked_bytes(), b.lost_bytes()), (0, 3_000));
        assert_eq!(b.next_lost(1_000).map(|c| c.range), Some(range(1..1_001)));
    }
}

#[test]
fn after_a_needless_time_out_the_rest_is_not_sent_twice() {
    // RFC 3522, RFC 4015 §3.
    let (mut b, e) = established();
    send_train(&mut b, 200, 10);
    b.mark_all_lost();
    repeat(&mut b, 500);
    let out = b.on_ack(at(520), SubflowOffset(1_001), &[], Some(ms(320)));
    assert!(out.spurious.is_some() && b.in_recovery());
    b.undo_losses();
    assert_eq!((b.lost_bytes(), b.in_flight(), b.in_recovery()), (0, 9_000, false));
    assert_eq!(b.oldest_sent(), Some(at(201)));
    assert_eq!(b.detect_loss(at(520), &e), 0);
    // What was really lost is still found.
    ack(&mut b, at(530), 1_001, &[2_001..6_001]);
    assert_eq!(b.detect_loss(at(530), &e), 1_000);
}

#[test]
fn the_tail_probe_repeats_the_end_of_the_last_segment_not_sacked() {
    // RFC 8985 §7.3.
    let (mut b, e) = established();
    send(&mut b, at(200), 64_000);
    let r = b.push(
        at(200),
        Outgoing { payload: payload(64_001, 500), syn: false, fin: true, tag: 9, app_limited: false },
    );
    let probe = b.tail_probe(1_000).unwrap();
    assert_eq!((probe.range.clone(), probe.fin, probe.payload.len(), probe.tag), (r, true, 500, 9));
    let end_of_it = b.tail_probe(200).unwrap();
    assert_eq!((end_of_it.range, end_of_it.fin, end_of_it.payload.len()), (range(64_301..64_502), true, 200));
    let in_flight = b.in_flight();
    b.retransmitted(at(400), probe.range);
    assert_eq!(b.in_flight(), in_flight, "counted once");
    // The probe's acknowledgement shows that what was sent before is lost (§7.4.1).
    ack(&mut b, at(500), 1, &[64_001..64_502]);
    b.detect_loss(at(500), &e);
    assert_eq!(b.reorder_deadline(), None);
    assert_eq!(b.lost_bytes(), 64_000);
    assert_eq!(b.tail_probe(1_000).map(|c| c.range), Some(range(63_001..64_001)));
}

#[test]
fn chunks_stay_within_a_segment_and_a_length() {
    let (mut b, _) = established();
    send(&mut b, at(200), 3_000);
    send(&mut b, at(200), 500);
    b.mark_all_lost();
    let mut seen = Vec::new();
    while let Some(c) = b.next_lost(1_400) {
        seen.push((c.range.start.0, c.payload.len(), c.tag));
        assert_eq!(c.payload, payload(c.range.start.0, c.payload.len()));
        b.retransmitted(at(300), c.range);
    }
    assert_eq!(seen, [(1, 1_400, 1), (1_401, 1_400, 1), (2_801, 200, 1), (3_001, 500, 3_001)]);
    assert_eq!(b.next_lost(0), None);
}

#[test]
fn sacked_islands_are_bounded() {
    // A peer that SACKs every second byte.
    let (mut b, _) = established();
    send(&mut b, at(200), 60_000);
    for i in 0..30_000 {
        ack(&mut b, at(300), 1, &[i * 2 + 2..i * 2 + 3]);
    }
    assert!(b.sacked_bytes() < 500, "{}", b.sacked_bytes());
    // Blocks that make no further island still count.
    assert!(ack(&mut b, at(300), 1, &[2..60_001]).delivered > 59_000);
    assert_eq!(ack(&mut b, at(300), 60_001, &[]).cumulative, 60_000);
}

#[test]
fn time_that_runs_backwards_is_harmless() {
    let (mut b, e) = established();
    send(&mut b, at(500), 1_000);
    send(&mut b, at(200), 1_000);
    assert_eq!(b.last_sent(), Some(at(500)));
    ack(&mut b, at(100), 1, &[1_001..2_001]);
    b.detect_loss(at(90), &e);
    b.detect_loss(at(900), &e);
    assert_eq!(b.lost_bytes(), 1_000);
}

#[test]
fn lost_sack_blocks_do_not_make_packets_late() {
    // Segments 2 to 7 are there, but of segment 3 no ACK told before the hole before it was repaired.
    let (mut b, e) = established();
    send_train(&mut b, 200, 7);
    ack(&mut b, at(306), 1, &[1_001..2_001, 3_001..7_001]);
    b.detect_loss(at(306), &e);
    assert_eq!(repeat(&mut b, 306), Some(1..1_001));
    ack(&mut b, at(406), 7_001, &[]);
    assert_eq!(b.rack.lateness(), Duration::ZERO);
}

use super::*;
use crate::testing::{Tcp, sized};
use std::num::NonZeroU16;

fn queue(link: Link) -> LinkQueue {
    LinkQueue::new(link, [7; 32])
}

/// Arrival times in microseconds of everything that comes out, by jumping from deadline to deadline.
fn drain(e: &mut LinkQueue) -> Vec<(u64, Packet)> {
    let mut out = Vec::new();
    let mut guard = 0;
    while let Some(at) = e.next_deadline() {
        while let Some(p) = e.poll(at) {
            out.push((at.as_micros(), p));
        }
        guard += 1;
        assert!(guard < 1_000_000, "deadlines without end");
    }
    assert!(e.is_empty());
    out
}

fn times(e: &mut LinkQueue) -> Vec<u64> {
    drain(e).into_iter().map(|(t, _)| t).collect()
}

const AT: fn(u64) -> Instant = Instant::from_micros;

#[test]
fn serialisation_and_propagation_add_up() {
    // 1,250 bytes at 10 Mbit/s: 1 ms each; 5 ms on the wire.
    let mut e = queue(Link::mbit(10).delay_ms(5));
    for _ in 0..3 {
        e.enqueue(AT(0), sized(1250));
    }
    assert_eq!(e.queued(), (2, 2500));
    assert_eq!(times(&mut e), [6_000, 7_000, 8_000]);
    // Idle again: starts at once, not when the last one ended.
    e.enqueue(AT(20_000), sized(625));
    assert_eq!(times(&mut e), [25_500]);
    // Framing counts on the wire: 1,212 + 38 bytes.
    let mut e = queue(Link::mbit(10).overhead(38));
    e.enqueue(AT(0), sized(1212));
    assert_eq!(times(&mut e), [1_000]);
}

#[test]
fn rounding_does_not_accumulate() {
    // 3 bit/µs: a 1,000-byte packet takes 2,666.67 µs; 300 of them exactly 800 ms.
    let mut e = queue(Link::bps(3_000_000).queue(Queue::Unlimited));
    for _ in 0..300 {
        e.enqueue(AT(0), sized(1000));
    }
    let t = times(&mut e);
    assert_eq!((t[0], t[1], t[2]), (2_666, 5_333, 8_000));
    assert_eq!(t[299], 800_000);
}

#[test]
fn without_rate_only_the_delay_counts() {
    let mut e = queue(Link::unlimited().delay_ms(2).queue(Queue::Packets(0)));
    for _ in 0..50 {
        e.enqueue(AT(10), sized(1500));
    }
    assert_eq!(times(&mut e), [2_010; 50]);
    let mut e = queue(Link::unlimited());
    e.enqueue(AT(10), sized(1500));
    assert_eq!(e.next_deadline(), Some(AT(10)));
    assert!(e.poll(AT(9)).is_none());
    assert!(e.poll(AT(10)).is_some());
}

#[test]
fn queues_drop_their_tail() {
    // Packets: one is transmitted, three wait, the rest is dropped.
    let mut e = queue(Link::mbit(10).queue(Queue::Packets(3)));
    for _ in 0..10 {
        e.enqueue(AT(0), sized(1250));
    }
    let s = e.stats();
    assert_eq!((s.offered_packets, s.dropped_queue, s.longest_queue), (10, 6, 3));
    assert_eq!(times(&mut e), [1_000, 2_000, 3_000, 4_000]);
    assert_eq!((e.stats().delivered_packets, e.stats().delivered_bytes), (4, 5_000));

    // At the very instant a transmission ends, its successor leaves the queue before the new packet comes.
    let mut e = queue(Link::mbit(10).queue(Queue::Packets(1)));
    e.enqueue(AT(0), sized(1250));
    e.enqueue(AT(0), sized(1250));
    e.enqueue(AT(999), sized(1250));
    e.enqueue(AT(1_000), sized(1250));
    assert_eq!(e.stats().dropped_queue, 1);
    assert_eq!(times(&mut e), [1_000, 2_000, 3_000]);

    // Bytes: 2,500 may wait; a smaller packet may fit where a larger one did not.
    let mut e = queue(Link::mbit(10).queue(Queue::Bytes(2_500)));
    for size in [1250, 1250, 1000, 1250, 250, 41] {
        e.enqueue(AT(0), sized(size));
    }
    assert_eq!(e.stats().dropped_queue, 2);
    assert_eq!(e.queued(), (3, 2_500));

    // Time: starting later than 2 ms from now is too late. Waits are 0 (transmitted), 1, 2 and then 3 ms.
    let mut e = queue(Link::mbit(10).queue(Queue::Time(Duration::from_millis(2))));
    for _ in 0..5 {
        e.enqueue(AT(0), sized(1250));
    }
    assert_eq!(e.stats().dropped_queue, 2);
    // Half a transmission later only 1.5 ms are left to wait.
    e.enqueue(AT(500), sized(1250));
    assert_eq!(e.stats().dropped_queue, 3);
    e.enqueue(AT(1_000), sized(1250));
    assert_eq!(e.stats().dropped_queue, 3);
    assert_eq!(times(&mut e), [1_000, 2_000, 3_000, 4_000]);
    // The same with framing.
    let mut e = queue(Link::mbit(10).overhead(50).queue(Queue::Time(Duration::from_millis(2))));
    for _ in 0..5 {
        e.enqueue(AT(0), sized(1200));
    }
    assert_eq!(e.stats().dropped_queue, 2);
}

#[test]
fn segments_are_cut_before_the_queue() {
    // 20 packets of 1,040 bytes against a queue of 4 and one being transmitted.
    let mut e = queue(Link::mbit(10).queue(Queue::Packets(4)));
    e.enqueue(AT(0), Tcp { payload_len: 20_000, gso_size: 1000, ..Tcp::default() }.packet());
    let s = e.stats();
    assert_eq!((s.offered_packets, s.offered_bytes, s.dropped_queue), (20, 20 * 1040, 15));
    let out = drain(&mut e);
    assert_eq!(out.len(), 5);
    for (i, (at, p)) in out.iter().enumerate() {
        assert_eq!((*at, p.len()), (832 * (i as u64 + 1), 1040));
        assert_eq!(p.tcp().unwrap().seq().0, 1 + i as u32 * 1000);
        assert!(p.checksum_ok());
    }
    assert_eq!(e.stats().delivered_payload, 5_000);
}

#[test]
fn packets_beyond_the_mtu_are_dropped() {
    let mut e = queue(Link::unlimited().mtu(1400));
    e.enqueue(AT(0), sized(1400));
    e.enqueue(AT(0), sized(1401));
    let mut wrong = Tcp { payload_len: 4000, gso_size: 1400, ..Tcp::default() }.packet();
    assert_eq!(wrong.gso_size(), NonZeroU16::new(1400));
    e.enqueue(AT(0), wrong.clone());
    // 1,440 twice; the rest of 1,200 bytes passes.
    assert_eq!(e.stats().dropped_too_big, 3);
    wrong.set_payload(Default::default());
    assert_eq!(times(&mut e).len(), 2);
}

#[test]
fn loss_duplication_and_bursts_have_their_rates() {
    let n = 200_000u64;
    let run = |link: Link| {
        let mut e = queue(link);
        let mut pattern = Vec::new();
        for i in 0..n {
            e.enqueue(AT(i), sized(41));
            let mut copies = 0;
            while e.poll(AT(i)).is_some() {
                copies += 1;
            }
            pattern.push(copies);
        }
        (pattern, e.stats())
    };
    let (_, s) = run(Link::unlimited().loss(0.05));
    // Standard deviation: √(n·p·(1−p)) = 97.
    assert!(s.dropped_loss.abs_diff(n / 20) < 500, "{}", s.dropped_loss);
    assert_eq!(s.delivered_packets + s.dropped_loss, n);

    let (pattern, s) = run(Link::unlimited().duplicate(0.1));
    assert!(s.duplicated.abs_diff(n / 10) < 700, "{}", s.duplicated);
    assert_eq!(pattern.iter().filter(|c| **c == 2).count() as u64, s.duplicated);

    let (pattern, s) = run(Link::unlimited().loss_model(Loss::bursts(0.05, 4.0)));
    assert!(s.dropped_loss.abs_diff(n / 20) < 1_200, "{}", s.dropped_loss);
    let bursts = pattern.windows(2).filter(|w| w[0] != 0 && w[1] == 0).count() as f64;
    let mean = s.dropped_loss as f64 / bursts;
    assert!((3.7..4.3).contains(&mean), "mean burst of {mean}");

    let (pattern, s) = run(Link::unlimited().loss_model(Loss::Exactly(vec![0, 3, 4])));
    assert_eq!((s.dropped_loss, &pattern[..6]), (3, &[0, 1, 1, 0, 0, 1][..]));
}

#[test]
fn lost_packets_have_used_the_link() {
    let mut e = queue(Link::mbit(10).loss_model(Loss::Exactly(vec![0])));
    e.keep_dropped(true);
    e.enqueue(AT(0), sized(1250));
    e.enqueue(AT(0), sized(1250));
    assert_eq!(times(&mut e), [2_000]);
    let dropped: Vec<_> = e.take_dropped().map(|(at, why, _)| (at, why)).collect();
    assert_eq!(dropped, [(AT(1_000), DropReason::Loss)]);
}

#[test]
fn jitter_keeps_order_and_reordering_does_not() {
    let send = |link: Link| {
        let mut e = queue(link);
        for i in 0..1000u32 {
            e.enqueue(AT(u64::from(i) * 10), Tcp { seq: i, ..Tcp::default() }.packet());
        }
        let out = drain(&mut e);
        let order: Vec<u32> = out.iter().map(|(_, p)| p.tcp().unwrap().seq().0).collect();
        let late: Vec<u64> = out.iter().map(|(t, p)| t - u64::from(p.tcp().unwrap().seq().0) * 10).collect();
        (order, late, e.stats())
    };
    let (order, late, _) = send(Link::unlimited().delay_ms(1).jitter(Duration::from_micros(500)));
    assert!(order.is_sorted());
    assert!(late.iter().all(|l| (1_000..1_500).contains(l)));
    assert!(late.iter().any(|l| *l > 1_300));

    let (order, late, s) = send(Link::unlimited().delay_ms(1).reorder(0.1, Duration::from_micros(105)));
    assert!((60..140).contains(&s.reordered), "{}", s.reordered);
    assert_eq!(late.iter().filter(|l| **l == 1_105).count() as u64, s.reordered);
    assert_eq!(late.iter().filter(|l| **l == 1_000).count() as u64, 1000 - s.reordered);
    // Each held back is overtaken by those sent in the next 105 µs.
    assert!(!order.is_sorted());
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
}

#[test]
fn a_cut_link_is_silent_and_forgets() {
    let mut e = queue(Link::mbit(10).delay_ms(5));
    for _ in 0..4 {
        e.enqueue(AT(0), sized(1250));
    }
    // At 2.5 ms two are on the wire, one is being transmitted, one waits.
    e.set_cut(AT(2_500), true);
    assert!(e.is_cut() && e.is_empty());
    assert_eq!(e.stats().dropped_cut, 4);
    e.enqueue(AT(3_000), sized(1250));
    assert_eq!((e.stats().dropped_cut, e.next_deadline()), (5, None));
    e.set_cut(AT(10_000), false);
    e.enqueue(AT(10_000), sized(1250));
    assert_eq!(times(&mut e), [16_000]);
}

#[test]
fn a_link_can_change_under_way() {
    let mut e = queue(Link::mbit(10).delay_ms(5));
    for _ in 0..3 {
        e.enqueue(AT(0), sized(1250));
    }
    // One has left, one is being transmitted and keeps its pace, the third goes at twice the rate. The
    // shorter delay does not let it overtake.
    e.set_link(AT(1_500), Link::mbit(20).delay_ms(1));
    assert_eq!(times(&mut e), [6_000, 6_000, 6_000]);
    for _ in 0..3 {
        e.enqueue(AT(10_000), sized(1250));
    }
    e.set_link(AT(10_000), Link::unlimited());
    assert_eq!(times(&mut e), [10_500; 3]);
}

#[test]
fn the_same_seed_gives_the_same_fate() {
    let run = |seed: u8| {
        let link = Link::mbit(5).delay_ms(3).jitter(Duration::from_millis(1)).loss(0.1).duplicate(0.1);
        let mut e = LinkQueue::new(link.reorder(0.1, Duration::from_millis(4)), [seed; 32]);
        for i in 0..500u32 {
            e.enqueue(AT(u64::from(i) * 100), Tcp { seq: i, payload_len: 50, ..Tcp::default() }.packet());
        }
        drain(&mut e).into_iter().map(|(t, p)| (t, p.tcp().unwrap().seq())).collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

//! Queues under overload: active queue management, ECN marks and recorded rates.

use std::time::Duration;
use umptcp_netsim::{Instant, Link, LinkQueue, LinkStats, Packet, Queue, RateTrace, Red};
use umptcp_stack_core::device::ChecksumState;

/// Packets of 1500 bytes offered to a link at twice its rate for ten seconds; what became of them.
fn overload(link: Link) -> (LinkStats, Vec<Duration>) {
    let packet = |i: u32| {
        let mut b = vec![0u8; 1500];
        // IPv4 with ECT(0) (RFC 3168), protocol 253 (for experiments), a number to know it by.
        b[..12].copy_from_slice(&[0x45, 2, 0x05, 0xdc, 0, 0, 0x40, 0, 64, 253, 0, 0]);
        b[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        b[20..24].copy_from_slice(&i.to_be_bytes());
        Packet::from_bytes(b.into(), None, ChecksumState::Verified)
    };
    let gap = Duration::from_nanos(12_000 * 1_000_000_000 / 2 / link.mean_rate().unwrap());
    let mut queue = LinkQueue::new(link, [7; 32]);
    let (mut now, mut sent, mut delays) = (Instant::ZERO, Vec::new(), Vec::new());
    while now < Instant::from_millis(10_000) {
        queue.enqueue(now, packet(sent.len() as u32));
        sent.push(now);
        now += gap;
        while let Some(p) = queue.poll(now) {
            let s = p.payload().slices().concat();
            let i = u32::from_be_bytes([s[0], s[1], s[2], s[3]]);
            delays.push(now - sent[i as usize]);
        }
    }
    (queue.stats(), delays)
}

#[test]
fn red_and_codel_keep_queues_short_and_mark_instead_where_they_may() {
    let link = Link::mbit(10).queue(Queue::Packets(1000));
    let worst = |delays: &[Duration]| delays[delays.len() / 2..].iter().max().copied().unwrap_or_default();
    // Twice the rate: half of the packets have to go, which RED's curve does between 50 and 100 packets of
    // 1.2 ms.
    let (stats, delays) = overload(link.clone().red(Red::khalili(10_000_000)));
    let share = stats.dropped_early as f64 / stats.offered_packets as f64;
    assert!((0.45..0.55).contains(&share) && stats.dropped_queue == 0, "{stats:?}");
    assert!((70..110).contains(&worst(&delays).as_millis()), "{:?}", worst(&delays));
    // CoDel drops too slowly for a sender that does not react, but it drops ever faster.
    let (stats, _) = overload(link.clone().codel());
    assert!(stats.dropped_early > 100, "{stats:?}");
    // With ECN nothing is dropped before the queue is full.
    let (stats, _) = overload(link.clone().codel().ecn(true));
    assert!(stats.dropped_early == 0 && stats.marked > 100 && stats.dropped_queue > 1000, "{stats:?}");
    let (stats, _) = overload(link.queue(Queue::Time(Duration::from_millis(30))));
    assert!(stats.dropped_early == 0 && stats.marked == 0 && stats.dropped_queue > 3000, "{stats:?}");
}

#[test]
fn a_recorded_rate_is_kept() {
    // 1504 bytes every millisecond in the first half of each second, then nothing.
    let text: String = (1..=500).map(|ms| format!("{ms}\n")).chain(["1000\n".to_string()]).collect();
    let trace = RateTrace::parse(&text).unwrap();
    let (stats, delays) = overload(Link::default().trace(trace).queue(Queue::Packets(50)));
    // 501 opportunities a second, each with 4 bytes to spare.
    assert!((4_990..=5_024).contains(&stats.delivered_packets), "{stats:?}");
    assert!(delays.iter().any(|d| *d > Duration::from_millis(490)));
}

//! What connections cost in memory, by a counting allocator.

mod common;

use common::{Wire, listen};
use umptcp_stack_core::config::ConnectOptions;
use umptcp_stack_core::types::{ConnectionId, Duration};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const PAIRS: usize = 50;

/// Bytes on the heap now.
fn held() -> usize {
    dhat::HeapStats::get().curr_bytes
}

#[test]
fn an_idle_connection_is_small_before_and_after_traffic() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let mut w = Wire::new(1);
    let remote = listen(&mut w);
    let before = held();
    let per_end = |w: &mut Wire| {
        w.run(Duration::from_secs(5));
        held().saturating_sub(before) / (2 * PAIRS)
    };
    let pairs: Vec<[ConnectionId; 2]> = (0..PAIRS)
        .map(|_| {
            let c = w.hosts[0].stack.connect(w.now, ConnectOptions::new(remote)).expect("connect");
            w.run(Duration::from_millis(20));
            [c, w.hosts[1].conn.take().expect("accepted")]
        })
        .collect();
    let fresh = per_end(&mut w);
    let mut arrived = 0;
    // What an application has read is its own.
    let mut read =
        |w: &mut Wire| w.hosts.iter_mut().for_each(|h| arrived += std::mem::take(&mut h.received).len());
    for round in 0..10 {
        let side = round % 2;
        for pair in &pairs {
            assert_eq!(w.hosts[side].stack.send_slice(w.now, pair[side], &[7; 100]), Ok(100));
        }
        w.run(Duration::from_millis(100));
        read(&mut w);
    }
    let small = per_end(&mut w);
    // Half a megabyte each, one after the other.
    for [c, _] in &pairs {
        w.write(0, *c, vec![7; 500_000], false);
        w.run(Duration::from_secs(1));
        read(&mut w);
    }
    let bulk = per_end(&mut w);
    assert_eq!(arrived, PAIRS * (10 * 100 + 500_000));
    assert!(w.hosts.iter().all(|h| !h.ended && h.closed.is_none()), "they go on");
    println!("bytes for each end: {fresh} fresh, {small} after small messages, {bulk} after a transfer");
    let bound = 8 << 10;
    assert!(fresh <= bound && small <= bound && bulk <= bound, "{fresh} {small} {bulk}");
}

//! Transfers of a few kilobytes to some megabytes over two paths of which one is slow: what the slow one still
//! carries at the end does not hold up what the fast one could bring sooner.

use std::thread;
use umptcp_netsim::application::{Bulk, Sink};
use umptcp_netsim::trace::TraceMode;
use umptcp_netsim::{Duration, Instant, Link, Pair, Queue};
use umptcp_stack_core::config::{BufferSize, ConnectionConfig};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// With a queue of one bandwidth-delay product.
fn link(mbit: u64, delay: u64) -> Link {
    Link::mbit(mbit).delay(ms(delay)).queue(Queue::Time(ms(2 * delay)))
}

fn fast() -> Link {
    link(10, 10)
}

fn slow() -> Link {
    link(1, 50)
}

/// From the connection's start to the last byte.
fn takes(paths: &[Link], bytes: u64, seed: u64) -> Duration {
    let config = ConnectionConfig::default()
        .with_send_buffer(BufferSize::AUTO)
        .with_receive_buffer(BufferSize::AUTO)
        .with_mptcp(paths.len() > 1);
    let mut builder = Pair::builder().seed(seed).trace(TraceMode::Off).config(config);
    for path in paths {
        builder = builder.path(path.clone());
    }
    let mut net = builder.build();
    let spec = net.flow_spec().applications(Bulk(bytes), Sink);
    let flow = net.add_flow(spec).unwrap();
    net.run_until_true("all of it", Duration::from_secs(60), |net| {
        net.flow(flow).server.progress.received == bytes
    })
    .unwrap();
    net.now() - Instant::ZERO
}

const KIB: u64 = 1024;

#[test]
fn small_transfers_are_as_fast_as_over_the_fast_path_alone() {
    let sizes = [16, 64, 256, 1024, 2048].map(|k| k * KIB);
    thread::scope(|scope| {
        for bytes in sizes {
            scope.spawn(move || {
                for seed in 1..4 {
                    let alone = takes(&[fast()], bytes, seed);
                    let first = takes(&[fast(), slow()], bytes, seed);
                    // A round trip of the fast path.
                    assert!(first <= alone + ms(20), "{bytes} bytes: {first:?}, alone {alone:?}");
                    let last = takes(&[slow(), fast()], bytes, seed);
                    // Two round trips of each.
                    assert!(last <= alone + ms(240), "{bytes} bytes: {last:?}, alone {alone:?}");
                }
            });
        }
    });
}

//! Uploads over a path that reorders, in both directions and in several degrees, over many seeds.

use umptcp_netsim::{Direction, Duration, Link, Pair, Queue, Side};
use umptcp_stack_core::config::ConnectionConfig;
use umptcp_stack_core::observe::Counter;

const BYTES: u64 = 1_500_000;
const SEEDS: u64 = 9;

/// A degree of disorder: 100 Mbit/s with this delay each way, and the share of packets that are late by so
/// much.
#[derive(Clone, Copy, Debug)]
struct Degree {
    delay: u64,
    share: f64,
    late: u64,
}

/// Nine packets of ten are late: the tenth overtakes all that were sent in 20 ms before it.
const EARLY: Degree = Degree { delay: 0, share: 0.9, late: 20 };

const DEGREES: [Degree; 7] = [
    Degree { delay: 20, share: 0.01, late: 5 },
    Degree { delay: 20, share: 0.1, late: 5 },
    Degree { delay: 20, share: 0.3, late: 5 },
    Degree { delay: 20, share: 0.01, late: 20 },
    Degree { delay: 20, share: 0.1, late: 20 },
    Degree { delay: 20, share: 0.3, late: 20 },
    EARLY,
];

/// What some uploads came to.
#[derive(Debug, Default)]
struct Sum {
    seconds: Vec<f64>,
    recoveries: u64,
    undone: u64,
    timeouts: u64,
    /// Segments that the sender's PAWS refused.
    refused: u64,
    /// ACKs that were late.
    late_acks: u64,
}

impl Sum {
    fn median(&self) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

/// Uploads with every seed.
fn upload(degree: Degree, algorithm: &str) -> Sum {
    upload_bytes(degree, algorithm, BYTES)
}

fn upload_bytes(degree: Degree, algorithm: &str, bytes: u64) -> Sum {
    let mut sum = Sum::default();
    for seed in 0..SEEDS {
        let link = Link::mbit(100)
            .delay_ms(degree.delay)
            .queue(Queue::Time(Duration::from_millis(80)))
            .reorder(degree.share, Duration::from_millis(degree.late));
        let config = ConnectionConfig::default().with_congestion(algorithm);
        let mut net =
            Pair::builder().path_both(link.clone(), link).config(config).seed(seed).gro(false).build();
        let flow = net.connect().unwrap();
        sum.seconds.push(net.transfer(flow, Side::Client, bytes).unwrap().as_secs_f64());
        let client = &net.flow(flow).client;
        let stack = net.stack(client.node).unwrap();
        let subflow = stack.subflows(client.connection.unwrap()).remove(0);
        sum.recoveries += subflow.recoveries;
        sum.undone += subflow.undone;
        sum.timeouts += subflow.timeouts;
        sum.refused += stack.counters().get(Counter::TcpPawsRejected);
        sum.late_acks += net.stats(net.path_cable(0), Direction::Reverse).reordered;
    }
    sum
}

#[test]
fn acknowledgements_that_others_have_overtaken_are_not_refused() {
    for degree in DEGREES {
        let sum = upload(degree, "lia");
        assert!(sum.late_acks > SEEDS, "{degree:?}: {sum:?}");
        assert_eq!(sum.refused, 0, "{degree:?}");
    }
}

#[test]
fn disorder_is_taken_for_loss_until_it_has_been_measured_and_no_longer() {
    // Three packets that overtake one are a loss at first (RFC 8985 §6.2), which is undone.
    for degree in DEGREES {
        let sum = upload(degree, "cubic");
        let most = if degree.delay == 0 { 5 * SEEDS } else { 2 * SEEDS };
        assert!(sum.recoveries <= most, "{degree:?}: {sum:?}");
        assert!(sum.recoveries - sum.undone <= SEEDS, "{degree:?}: {sum:?}");
        assert_eq!(sum.timeouts, 0, "{degree:?}: {sum:?}");
    }
}

#[test]
fn an_upload_takes_little_longer_than_in_order_with_any_algorithm() {
    // 0.35 s in order.
    for algorithm in ["lia", "olia", "balia", "wvegas", "cubic", "reno"] {
        for degree in DEGREES {
            let median = upload(degree, algorithm).median();
            assert!(median < 0.5, "{algorithm}, {degree:?}: {median:.2} s");
        }
    }
}

/// By the end of the round in which a queue begins, slow start would have filled it. What is retransmitted
/// then makes a peer refuse what is late (RFC 7323 §5.3), which is taken for the next congestion.
#[test]
fn wvegas_ends_slow_start_before_the_queue_overflows_where_packets_are_late_too() {
    let sum = upload_bytes(Degree { delay: 20, share: 0.1, late: 20 }, "wvegas", 10 * BYTES);
    // 1.5 s in order.
    assert!(sum.seconds.iter().all(|s| *s < 1.8), "{sum:?}");
    assert_eq!(sum.recoveries, sum.undone, "{sum:?}");
}

#[test]
fn what_comes_later_than_a_round_trip_is_waited_for_as_well() {
    // RFC 8985 §3.3.2 bounds the reordering window by SRTT, which would be too short for a packet that is
    // late on a path where half of them are, and so is its ACK.
    let sum = upload(Degree { delay: 0, share: 0.5, late: 20 }, "lia");
    assert!(sum.median() < 1.5 && sum.recoveries < 15 * SEEDS, "{sum:?}");
}

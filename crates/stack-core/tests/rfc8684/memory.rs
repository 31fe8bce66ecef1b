//! What a connection does when the buffers of all together hold what they may.

use crate::peer::{Lab, Out, bytes};
use umptcp_stack_core::config::{ConnectionConfig, StackConfig};
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::types::Duration;

/// What all buffers may hold.
const BOUND: u64 = 20_000;
/// What a connection may hold in any case, and the segment that came last.
const BEYOND: u64 = (16 << 10) + 1_000;
const STEP: u64 = 1_000;

fn server() -> Lab {
    let config = ConnectionConfig::default().with_receive_buffer(200_000);
    let mut l = Lab::server_of(StackConfig::default().with_buffer_memory(BOUND), config);
    l.ack(0);
    l
}

fn held(l: &Lab) -> u64 {
    l.stack.memory().held
}

/// Data `1001..` in steps, with the first step missing at the data level, until nothing more is taken.
fn fill_behind_a_hole(l: &mut Lab) {
    for k in 1..=BOUND / STEP {
        l.data(0, 1 + k * STEP, STEP as u16);
    }
    assert_eq!((held(l), l.received.len()), (BOUND, 0));
}

#[test]
fn data_whose_mapping_came_before_them_count_as_those_that_bring_their_own() {
    let mut l = server();
    fill_behind_a_hole(&mut l);
    let (data, at) = (1 + 40 * STEP, l.flows[0].next);
    let option = l.dss(Some(l.map(data, at, 60_000)));
    l.send(0, Out::options([option]));
    for k in 0..60 {
        l.send(0, Out { at: Some(at + k * STEP), ..Out::default() }.payload(bytes(data + k * STEP, STEP)));
    }
    assert!(held(&l) <= BOUND + BEYOND, "{}", held(&l));
    assert!(l.counter(Counter::TcpOFODrop) > 0);
}

#[test]
fn data_without_a_mapping_wait_as_well() {
    let mut l = server();
    fill_behind_a_hole(&mut l);
    let at = l.flows[0].next;
    for k in 0..60 {
        l.send(0, Out { at: Some(at + k * STEP), ..Out::default() }.payload(bytes(1, STEP)));
    }
    assert!(held(&l) <= BOUND + BEYOND, "{}", held(&l));
}

/// Data in order on their subflow that are missing at the data level need no room, wherever their mapping comes.
#[test]
fn what_is_missing_is_taken_whenever_its_mapping_came() {
    for before in [false, true] {
        let mut l = server();
        fill_behind_a_hole(&mut l);
        let option = l.dss(Some(l.map(1, l.flows[0].next, STEP as u16)));
        let mut missing = Out::default().payload(bytes(1, STEP));
        if before {
            l.send(0, Out::options([option]));
        } else {
            missing.options = vec![option];
        }
        l.send(0, missing);
        assert_eq!(l.received, bytes(1, BOUND + STEP));
        assert_eq!(held(&l), 0);
    }
}

/// The peer sent into a window that is open. What it repeats ever more seldom is not what it waits for: as soon as
/// there is room, an acknowledgement makes it go on.
#[test]
fn a_reader_that_goes_on_lets_its_peer_go_on() {
    let mut l = server();
    l.paused = true;
    for k in 0..40 {
        l.data(0, 1 + k * STEP, STEP as u16);
    }
    let taken = l.data_acked;
    assert!((BOUND..BOUND + BEYOND).contains(&taken), "{taken}");
    assert!(held(&l) <= BOUND + BEYOND, "{}", held(&l));
    // The first that was refused, as its timer would have it.
    let at = taken;
    let option = l.dss(Some(l.map(taken, at, STEP as u16)));
    l.send(0, Out { at: Some(at), ..Out::options([option]).payload(bytes(taken, STEP)) });
    l.advance(Duration::from_secs(60));
    assert_eq!(l.data_acked, taken);
    l.take_all();
    l.paused = false;
    l.read_all();
    l.poll();
    assert_eq!(l.data_acked, taken + STEP, "without another packet of the peer's");
    assert!(l.take(|s| s.seg.flags.ack).is_some_and(|s| s.seg.window > 0));
    l.read_all();
    assert_eq!(l.received, bytes(1, taken + STEP - 1));
    assert_eq!(held(&l), 0);
}

/// A peer that has fallen silent leaves nothing that others could use.
#[test]
fn what_waits_for_a_silent_peer_is_given_up() {
    let mut l = server();
    fill_behind_a_hole(&mut l);
    l.advance(Duration::from_secs(5));
    assert_eq!((held(&l), l.counter(Counter::TcpOfoPruned)), (0, 1));
    // It was not acknowledged, and comes again.
    for k in 0..=BOUND / STEP {
        l.data(0, 1 + k * STEP, STEP as u16);
    }
    assert_eq!(l.received, bytes(1, BOUND + STEP));
}

/// The same where the hole is in the subflow.
#[test]
fn what_waits_for_a_silent_subflow_is_given_up() {
    let mut l = server();
    let first = l.flows[0].next;
    let send = |l: &mut Lab, k: u64| {
        let option = l.dss(Some(l.map(1 + k * STEP, first + k * STEP, STEP as u16)));
        let payload = bytes(1 + k * STEP, STEP);
        l.send(0, Out { at: Some(first + k * STEP), ..Out::options([option]).payload(payload) });
    };
    (1..=BOUND / STEP).for_each(|k| send(&mut l, k));
    assert_eq!((held(&l), l.received.len()), (BOUND, 0));
    l.advance(Duration::from_secs(5));
    assert_eq!((held(&l), l.counter(Counter::TcpOfoPruned)), (0, 1));
    l.take_all();
    (0..=BOUND / STEP).for_each(|k| send(&mut l, k));
    assert_eq!(l.received, bytes(1, BOUND + STEP));
    assert!(l.take_all().iter().all(|s| s.seg.options.sack.is_empty()), "nothing is held out of order");
}

//! What a path's NIC has to do with what is sent: its queue, and its rate.

use crate::peer::{Lab, stack_address};
use std::cell::RefCell;
use umptcp_scheduler::{Decision, MinRtt, Scheduler, Snapshot};
use umptcp_stack_core::config::{ConnectionConfig, StackConfig};
use umptcp_stack_core::device::PathConfig;
use umptcp_stack_core::types::{Duration, PathId};

/// A client with one path to a device that cuts long segments.
fn client(config: StackConfig) -> Lab {
    let mut path = PathConfig::new("nic0", stack_address(0));
    path.max_packet = 65_535;
    let mut l = Lab::client_over(config, path, ConnectionConfig::default());
    // The window opens, with round trips of a millisecond.
    for _ in 0..12 {
        l.write(60_000);
        settle(&mut l);
    }
    l
}

/// Everything is acknowledged, a millisecond after it was sent.
fn settle(l: &mut Lab) {
    for _ in 0..40 {
        l.advance(Duration::from_millis(1));
        l.ack(0);
    }
    l.take_all();
}

/// Enough waits in the queue of the regular path's NIC, for some milliseconds: that is no reason to use a backup.
/// A device that takes nothing is.
#[test]
fn a_backup_stays_idle_while_a_path_is_only_busy() {
    for busy in [true, false] {
        let mut l = Lab::client(ConnectionConfig::default(), 2);
        l.data(0, 1, 1);
        let backup = l.accept_join_as_backup(2);
        // A join carries data after a moment only.
        l.advance(Duration::from_millis(50));
        l.take_all();
        if busy {
            l.stack.path_busy(l.now, PathId(0), true);
        } else {
            l.stack.path_blocked(l.now, PathId(0), true);
        }
        l.write(1000);
        let on_backup = l.take_all().iter().any(|s| s.flow == Some(backup) && !s.payload.is_empty());
        assert_eq!(on_backup, !busy);
        l.stack.path_busy(l.now, PathId(0), false);
        l.poll();
        let on_first = l.take_all().iter().any(|s| s.flow == Some(0) && !s.payload.is_empty());
        assert_eq!(on_first, busy, "it goes on when there is room");
    }
}

/// The peer's data depend on our ACKs, which add little to the queue: they do not wait for it, as those of Linux's
/// sockets do not.
#[test]
fn acknowledgements_pass_a_busy_path_and_data_do_not() {
    for busy in [true, false] {
        let mut l = Lab::client(ConnectionConfig::default(), 1);
        if busy {
            l.stack.path_busy(l.now, PathId(0), true);
        } else {
            l.stack.path_blocked(l.now, PathId(0), true);
        }
        l.write(1000);
        l.data(0, 1, 1000);
        l.data(0, 1001, 1000);
        let sent = l.take_all();
        assert!(sent.iter().all(|s| s.payload.is_empty()));
        assert_eq!(!sent.is_empty(), busy, "ACKs, where the device takes anything");
        assert_eq!(l.data_acked, if busy { 2001 } else { 1 });
        l.stack.path_busy(l.now, PathId(0), false);
        l.stack.path_blocked(l.now, PathId(0), false);
        l.poll();
        assert!(l.take_all().iter().any(|s| !s.payload.is_empty()));
    }
}

/// A millisecond of what the NIC sends at most.
#[test]
fn segments_are_no_longer_than_the_nic_is_fast() {
    let mut l = client(StackConfig::default());
    for (rate, least, most) in [
        (None, 20_000, 65_535),
        (Some(5_000_000), 2_500, 5_000),
        (Some(1_000), 500, 1_460),
        (None, 20_000, 65_535),
    ] {
        l.stack.path_rate(l.now, PathId(0), rate);
        l.write(60_000);
        l.advance(Duration::from_millis(1));
        let longest = l.take_all().iter().map(|s| s.payload.len()).max().unwrap_or(0);
        assert!((least..=most).contains(&longest), "{rate:?}: {longest} bytes");
        settle(&mut l);
    }
}

/// Windows and rates that [`Witness`] was told, of this test's thread.
type Told = Vec<(u64, u64)>;

thread_local! {
    static TOLD: RefCell<Told> = const { RefCell::new(Vec::new()) };
}

/// A scheduler that keeps what it is told.
#[derive(Debug)]
struct Witness;

impl Scheduler for Witness {
    fn name(&self) -> &'static str {
        "witness"
    }

    fn schedule(&mut self, snapshot: &Snapshot<'_>) -> Decision {
        let view = &snapshot.subflows[0];
        TOLD.with_borrow_mut(|told| told.push((view.window, view.pacing_rate)));
        MinRtt.schedule(snapshot)
    }
}

/// What the NIC holds back makes neither delay nor loss: the window grows beyond what the path can carry, and a scheduler
/// that believed in it would wait for the path instead of using another.
#[test]
fn schedulers_are_told_what_the_nic_can_send() {
    let mut schedulers = umptcp_scheduler::built_in();
    schedulers.register("min-rtt", || Box::new(Witness));
    let mut l = client(StackConfig::default().with_schedulers(schedulers));
    let views = |l: &mut Lab, rate| {
        TOLD.take();
        l.stack.path_rate(l.now, PathId(0), rate);
        l.write(10_000);
        l.advance(Duration::from_millis(1));
        l.ack(0);
        TOLD.take()
    };
    let of_the_window = views(&mut l, None);
    assert!(of_the_window.iter().all(|v| v.0 > 30_000 && v.1 > 20_000_000), "{of_the_window:?}");
    let of_the_nic = views(&mut l, Some(5_000_000));
    assert!(!of_the_nic.is_empty());
    assert!(of_the_nic.iter().all(|v| v.0 < 12_000 && v.1 <= 5_000_000), "{of_the_nic:?}");
}

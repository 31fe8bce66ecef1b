//! min-RTT: the fastest subflow first, the next one when its window is full.

use crate::eligible::{has_room, limit, may_send, preferred};
use crate::{Decision, Reinjection, Scheduler, Snapshot, SubflowView};
use umptcp_types::{Duration, SubflowId};

/// The subflow with the least smoothed round-trip time among those whose congestion window has room.
///
/// Subflows without a round-trip time sample count after those with one. Backups and stale subflows: see [`preferred`].
///
/// A subflow that has room but is held back by pacing is not available now, and the next one is taken in its place:
/// with enough backlog all windows are filled, as they would be if pacing happened below the scheduler. But bytes
/// that the faster subflow will have delivered sooner in spite of its pacing stay reserved for it: as many as its
/// window and rate allow in the time by which it is faster. Without that the end of every message, sent
/// while the fast subflow pauses for a fraction of a millisecond, would take the slow one.
#[derive(Clone, Copy, Debug, Default)]
pub struct MinRtt;

impl MinRtt {
    /// The name under which the registry knows it.
    pub const NAME: &'static str = "min-rtt";
}

/// Sorts by round-trip time, unknown last; equal ones by id, so that the order is total.
fn speed(s: &SubflowView) -> (Duration, SubflowId) {
    (s.srtt.unwrap_or(Duration::MAX), s.id)
}

/// The bytes that `fast`, though paced, delivers sooner than `slow` would if it sent them now.
fn reserved(snapshot: &Snapshot<'_>, fast: &SubflowView, slow: &SubflowView) -> u64 {
    let (Some(rtt_fast), Some(rtt_slow)) = (fast.srtt, slow.srtt) else { return 0 };
    let pause = fast.next_send - snapshot.now;
    // Sending takes half a round trip on either.
    let Some(head_start) = (rtt_slow / 2).checked_sub(rtt_fast / 2).and_then(|d| d.checked_sub(pause)) else {
        return 0;
    };
    let in_time = u128::from(fast.pacing_rate) * head_start.as_nanos() / 1_000_000_000;
    fast.room.min(u64::try_from(in_time).unwrap_or(u64::MAX))
}

impl Scheduler for MinRtt {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn schedule(&mut self, snapshot: &Snapshot<'_>) -> Decision {
        let wanted = snapshot.backlog.min(snapshot.send_window);
        if wanted == 0 {
            return Decision::Wait;
        }
        let Some(best) =
            preferred(snapshot).filter(|s| may_send(snapshot, s, wanted)).min_by_key(|s| speed(s))
        else {
            return Decision::Wait;
        };
        let kept = preferred(snapshot)
            .filter(|s| speed(s) < speed(best) && has_room(s, wanted))
            .fold(0u64, |sum, fast| sum.saturating_add(reserved(snapshot, fast, best)));
        let left = match wanted.saturating_sub(kept) {
            all if kept == 0 => all,
            // What stays behind follows at once, so that the cut is made between segments.
            some => some - some % u64::from(best.mss.max(1)),
        };
        if left == 0 {
            return Decision::Wait;
        }
        Decision::Send { subflow: best.id, limit: limit(best, left) }
    }

    fn reinject(&mut self, snapshot: &Snapshot<'_>, what: &Reinjection<'_>) -> Decision {
        let wanted = what.range.end - what.range.start;
        let best = preferred(snapshot)
            .filter(|s| wanted > 0 && !what.carried_by.contains(&s.id) && may_send(snapshot, s, wanted))
            .min_by_key(|s| speed(s));
        match best {
            Some(s) => Decision::Send { subflow: s.id, limit: limit(s, wanted) },
            None => Decision::Wait,
        }
    }
}

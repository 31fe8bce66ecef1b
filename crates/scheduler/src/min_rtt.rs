//! min-RTT: the fastest subflow first, the next one when its window is full.

use crate::eligible::{has_room, limit, may_send, preferred};
use crate::{Decision, Reinjection, Scheduler, Snapshot, SubflowView};
use umptcp_types::{Duration, SubflowId};

/// Chooses the subflow with the lowest smoothed round-trip time among those whose congestion window has room.
///
/// Subflows without an RTT sample come after those with one. [`preferred`] says how backups and stale
/// subflows are treated.
///
/// A subflow that has room but must wait for pacing is skipped for now, so that a large enough backlog fills
/// all windows, as it would if pacing happened below the scheduler. But bytes that the faster subflow would
/// still deliver sooner are reserved for it: as many as its window and rate allow in the time by which it is
/// faster. Otherwise the end of every message, sent while the fast subflow pauses for a fraction of a
/// millisecond, would go to the slow one.
#[derive(Clone, Copy, Debug, Default)]
pub struct MinRtt;

impl MinRtt {
    /// The name it is registered under.
    pub const NAME: &'static str = "min-rtt";
}

/// Sort key: by RTT, unknown last, then by id, so that the order is total.
fn speed(s: &SubflowView) -> (Duration, SubflowId) {
    (s.srtt.unwrap_or(Duration::MAX), s.id)
}

/// How many bytes `fast`, which must wait for pacing, delivers sooner than `slow` would if it sent them now.
fn reserved(snapshot: &Snapshot<'_>, fast: &SubflowView, slow: &SubflowView) -> u64 {
    let (Some(rtt_fast), Some(rtt_slow)) = (fast.srtt, slow.srtt) else { return 0 };
    let pause = fast.next_send - snapshot.now;
    // On either subflow, delivery takes half a round trip.
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
            // The reserved bytes follow soon, so cut at a segment boundary.
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

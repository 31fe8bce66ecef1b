//! min-RTT: the fastest subflow first, the next one when its window is full.

use crate::eligible::{has_room, may_send, preferred};
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

/// The [`preferred`] subflow with the lowest round-trip time, whether or not it has room.
pub fn fastest<'a>(snapshot: &Snapshot<'a>) -> Option<&'a SubflowView> {
    preferred(snapshot).min_by_key(|s| speed(s))
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

/// What min-RTT does with new data: the subflow that is to take some, and how many bytes there are for it,
/// which may be more than it has room for. `None`: wait.
///
/// Other schedulers start from this, and then ask whether waiting would be better.
pub fn fastest_with_room<'a>(snapshot: &Snapshot<'a>) -> Option<(&'a SubflowView, u64)> {
    let wanted = snapshot.sendable();
    let able = |s: &&SubflowView| wanted > 0 && may_send(snapshot, s, wanted);
    let best = preferred(snapshot).filter(able).min_by_key(|s| speed(s))?;
    let kept = preferred(snapshot)
        .filter(|s| speed(s) < speed(best) && has_room(s, wanted))
        .fold(0u64, |sum, fast| sum.saturating_add(reserved(snapshot, fast, best)));
    let left = match wanted.saturating_sub(kept) {
        all if kept == 0 => all,
        // The reserved bytes follow soon, so cut at a segment boundary.
        some => some - some % u64::from(best.mss.max(1)),
    };
    (left > 0).then_some((best, left))
}

/// What min-RTT does with data to be sent again: the fastest subflow that has room and does not carry it.
pub fn fastest_without(snapshot: &Snapshot<'_>, what: &Reinjection<'_>) -> Decision {
    let wanted = what.range.end - what.range.start;
    let best = preferred(snapshot)
        .filter(|s| wanted > 0 && !what.carried_by.contains(&s.id) && may_send(snapshot, s, wanted))
        .min_by_key(|s| speed(s));
    best.map_or(Decision::Wait, |s| Decision::send(s, wanted))
}

impl Scheduler for MinRtt {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn schedule(&mut self, snapshot: &Snapshot<'_>) -> Decision {
        fastest_with_room(snapshot).map_or(Decision::Wait, |(s, bytes)| Decision::send(s, bytes))
    }
}

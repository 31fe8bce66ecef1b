//! Which subflows a scheduler may choose from: the rules that all of them share.

use crate::{Health, Snapshot, SubflowView};

/// The subflows to choose from, whether or not they have room at the moment.
///
/// - Those that answer and are not backups, if there is one.
/// - Otherwise the backups that answer (RFC 8684 §3.3.8: a backup carries data only when no regular subflow is usable).
///   A regular subflow whose window is full is still usable, so a full window does not spill over to a backup.
/// - Only when none answers, the stale ones, all of them: whichever comes back first carries on.
pub fn preferred<'a>(snapshot: &Snapshot<'a>) -> impl Iterator<Item = &'a SubflowView> + use<'a> {
    let subflows = snapshot.subflows;
    let rank = |s: &SubflowView| match (s.health, s.backup) {
        (Health::Good, false) => 0,
        (Health::Good, true) => 1,
        (Health::Stale, _) => 2,
    };
    let best = subflows.iter().map(rank).min();
    subflows.iter().filter(move |s| Some(rank(s)) == best)
}

/// Window and pacing both let the subflow send now, `wanted` bytes being there to send.
///
/// Room for less than a segment does not count while something is in flight: a segment cut to fit it would be the
/// silly window of RFC 9293 §3.8.6.2, and the next ACK makes the room larger.
pub fn may_send(snapshot: &Snapshot<'_>, subflow: &SubflowView, wanted: u64) -> bool {
    has_room(subflow, wanted) && subflow.next_send <= snapshot.now
}

/// [`may_send`] without pacing.
pub(crate) fn has_room(subflow: &SubflowView, wanted: u64) -> bool {
    let least = if subflow.in_flight == 0 { 1 } else { u64::from(subflow.mss).min(wanted).max(1) };
    subflow.room >= least
}

/// How much of `wanted` to send on a subflow that may send: what fits, in whole segments unless it is the end of the data.
pub fn limit(subflow: &SubflowView, wanted: u64) -> u64 {
    let mss = u64::from(subflow.mss.max(1));
    if wanted <= subflow.room {
        wanted
    } else if subflow.room < mss {
        subflow.room
    } else {
        subflow.room - subflow.room % mss
    }
}

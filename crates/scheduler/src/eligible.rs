//! Which subflows a scheduler may choose from: the rules that all schedulers share.

use crate::{Health, Snapshot, SubflowView};

/// The subflows to choose from, whether or not they have room now.
///
/// - The regular subflows in good health, if there are any.
/// - Otherwise the backups in good health (RFC 8684 §3.3.8: a backup carries data only when no regular
///   subflow is usable). A regular subflow whose window is full is still usable, so a full window does not
///   move data to a backup.
/// - Otherwise those that are only suspected not to answer.
/// - Otherwise those in good health that are metered: to be late for a moment costs nobody money.
/// - Otherwise all subflows, which are then all stale: whichever recovers first continues.
pub fn preferred<'a>(snapshot: &Snapshot<'a>) -> impl Iterator<Item = &'a SubflowView> + use<'a> {
    let subflows = snapshot.subflows;
    let rank = |s: &SubflowView| match (s.health, s.metered, s.backup) {
        (Health::Good, false, false) => 0,
        (Health::Good, false, true) => 1,
        (Health::Suspect, false, _) => 2,
        (Health::Good, true, _) => 3,
        (Health::Suspect, true, _) => 4,
        (Health::Stale, ..) => 5,
    };
    let best = subflows.iter().map(rank).min();
    subflows.iter().filter(move |s| Some(rank(s)) == best)
}

/// Whether both the window and pacing allow the subflow to send now, when there are `wanted` bytes to send.
///
/// Room for less than a segment does not count while something is in flight. A segment cut to that size would
/// be silly window syndrome (RFC 9293 §3.8.6.2), and the next ACK makes more room.
pub fn may_send(snapshot: &Snapshot<'_>, subflow: &SubflowView, wanted: u64) -> bool {
    has_room(subflow, wanted) && subflow.next_send <= snapshot.now
}

/// Like [`may_send`], but ignores pacing.
pub(crate) fn has_room(subflow: &SubflowView, wanted: u64) -> bool {
    let least = if subflow.in_flight == 0 { 1 } else { u64::from(subflow.mss).min(wanted).max(1) };
    subflow.room >= least
}

/// How much of `wanted` bytes fits on a subflow that may send: whole segments, unless all of it or less than
/// a segment fits.
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

//! round-robin: each subflow in turn, as far as windows allow.

use crate::eligible::{limit, may_send, preferred};
use crate::{Decision, Reinjection, Scheduler, Snapshot, SubflowView};
use umptcp_types::SubflowId;

/// Bytes per turn, rounded down to whole segments, at least one. About the size of the largest offloaded
/// segment, so that taking turns needs no more packets than filling one subflow after the other.
const QUANTUM: u64 = 65_535;

/// Chooses each subflow in turn, in order of id. A subflow that cannot send because of its window or pacing
/// is skipped.
///
/// A turn is one large segment. Under load, windows determine the shares, because each turn is limited by the
/// room left; when the application is the limit, turns do. [`preferred`] says how backups and stale subflows
/// are treated.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundRobin {
    /// The subflow that had the last turn.
    last: Option<SubflowId>,
}

impl RoundRobin {
    /// The name it is registered under.
    pub const NAME: &'static str = "round-robin";

    /// Gives the turn to the first of `candidates` after the subflow that had the last one.
    fn turn<'a>(&mut self, candidates: impl Iterator<Item = &'a SubflowView>, wanted: u64) -> Decision {
        let Some(next) = candidates.min_by_key(|s| (Some(s.id) <= self.last, s.id)) else {
            return Decision::Wait;
        };
        self.last = Some(next.id);
        let mss = u64::from(next.mss.max(1));
        let quantum = (QUANTUM / mss).max(1) * mss;
        Decision::Send { subflow: next.id, limit: limit(next, wanted).min(quantum) }
    }
}

impl Scheduler for RoundRobin {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn schedule(&mut self, snapshot: &Snapshot<'_>) -> Decision {
        let wanted = snapshot.backlog.min(snapshot.send_window);
        self.turn(preferred(snapshot).filter(|s| wanted > 0 && may_send(snapshot, s, wanted)), wanted)
    }

    fn reinject(&mut self, snapshot: &Snapshot<'_>, what: &Reinjection<'_>) -> Decision {
        let wanted = what.range.end - what.range.start;
        let free = |s: &&SubflowView| !what.carried_by.contains(&s.id) && may_send(snapshot, s, wanted);
        self.turn(preferred(snapshot).filter(|s| wanted > 0 && free(s)), wanted)
    }
}

//! round-robin: every subflow in turn, as far as windows allow.

use crate::eligible::{limit, may_send, preferred};
use crate::{Decision, Reinjection, Scheduler, Snapshot, SubflowView};
use umptcp_types::SubflowId;

/// Bytes of a turn: as many whole segments as fit here, at least one. About the largest segment that offload takes, so
/// that taking turns costs no more packets than filling one subflow after the other.
const QUANTUM: u64 = 65_535;

/// Every subflow in turn, in the order of their ids; one whose window or pacing lets it send nothing misses its turn.
///
/// The quantum is one large segment. Windows decide the shares under load (each turn is limited by the room there is), turns
/// decide them when the application is the limit. Backups and stale subflows: see [`preferred`].
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundRobin {
    /// Whose turn was last.
    last: Option<SubflowId>,
}

impl RoundRobin {
    /// The name under which the registry knows it.
    pub const NAME: &'static str = "round-robin";

    /// Gives the turn to the first of `candidates` after the one that had it last.
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

//! redundant: every byte on every subflow; the first copy wins.

use crate::eligible::{limit, may_send, preferred};
use crate::{Decision, Scheduler, Snapshot, SubflowView};
use umptcp_types::Duration;

/// Sends every byte on every subflow that has room, so that it arrives when the first of them delivers it:
/// delay and loss are those of the best path at each moment, and the rate is that of one path.
///
/// Each subflow goes through the data on its own. What the peer acknowledges meanwhile is left out, so a slow
/// subflow skips ahead instead of falling behind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Redundant;

impl Redundant {
    /// The name it is registered under.
    pub const NAME: &'static str = "redundant";
}

impl Scheduler for Redundant {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn repeats(&self) -> bool {
        true
    }

    fn schedule(&mut self, snapshot: &Snapshot<'_>) -> Decision {
        // What others have sent comes before what nobody has: in the order of the data.
        let wanted = |s: &SubflowView| if s.behind > 0 { s.behind } else { snapshot.sendable() };
        let able = |s: &&SubflowView| wanted(s) > 0 && may_send(snapshot, s, wanted(s));
        let fastest =
            preferred(snapshot).filter(able).min_by_key(|s| (s.srtt.unwrap_or(Duration::MAX), s.id));
        let Some(s) = fastest else { return Decision::Wait };
        let (subflow, limit) = (s.id, limit(s, wanted(s)));
        if s.behind > 0 { Decision::Repeat { subflow, limit } } else { Decision::Send { subflow, limit } }
    }
}

//! linux: what Linux's MPTCP does by default, for comparison.

use crate::eligible::{may_send, preferred};
use crate::{Decision, Scheduler, Snapshot, SubflowView};
use umptcp_types::{Instant, SubflowId};

/// Bytes that a subflow gets before the next is chosen.
const BURST: u64 = 65_428;

/// Chooses the subflow on which data would linger least: on which what it holds already, at the rate at which
/// it sends, is gone soonest. It keeps its turn for a burst.
///
/// Linux fills the queue of a subflow beyond the congestion window, and counts what waits there. Here nothing
/// waits: data beyond the windows stay with the connection, where any subflow may take them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Linux {
    /// Whose turn it is, and how many bytes are left of it.
    turn: Option<(SubflowId, u64)>,
}

impl Linux {
    /// The name it is registered under.
    pub const NAME: &'static str = "linux";
}

/// Nanoseconds until what the subflow holds has left at its rate.
fn linger(s: &SubflowView) -> u128 {
    let held = u128::from(s.queued) + u128::from(s.in_flight);
    held * 1_000_000_000 / u128::from(s.pacing_rate.max(1))
}

impl Scheduler for Linux {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn schedule(&mut self, snapshot: &Snapshot<'_>) -> Decision {
        let wanted = snapshot.sendable();
        let able = |s: &&SubflowView| wanted > 0 && may_send(snapshot, s, wanted);
        let turn = self.turn.filter(|(_, left)| *left > 0);
        let same =
            turn.and_then(|(id, left)| Some((preferred(snapshot).filter(able).find(|s| s.id == id)?, left)));
        let next = || Some((preferred(snapshot).filter(able).min_by_key(|s| (linger(s), s.id))?, BURST));
        let Some((s, left)) = same.or_else(next) else { return Decision::Wait };
        self.turn = Some((s.id, left));
        Decision::send(s, wanted.min(left))
    }

    fn on_sent(&mut self, _now: Instant, subflow: SubflowId, bytes: u64) {
        if let Some((_, left)) = self.turn.as_mut().filter(|(id, _)| *id == subflow) {
            *left = left.saturating_sub(bytes);
        }
    }
}

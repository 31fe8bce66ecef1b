//! weighted: to each subflow its configured share, and less of it the more a byte costs.

use crate::eligible::{limit, may_send, preferred};
use crate::{Decision, Scheduler, Snapshot, SubflowView};
use alloc::collections::BTreeMap;
use umptcp_types::{Instant, SubflowId};

/// Most bytes before the next choice, so that shares are kept over short times, too: two large segments.
const TURN: u64 = 2 * 65_535;

/// Shares the data in proportion to the weights of the subflows (`weight=` of a path), divided by their cost
/// (`cost=`), as far as their windows allow: what a subflow has no room for goes to the others.
///
/// This is start-time fair queueing (Goyal et al., SIGCOMM 1996), with subflows in the place of flows. What
/// was sent on a subflow, by its weight and times its cost, is its virtual time, and the one that is furthest behind is
/// next. A subflow that could not send for a while continues at the others' time: it does not get everything
/// until it has caught up.
#[derive(Clone, Debug, Default)]
pub struct Weighted {
    /// Virtual time, and that of each subflow and its weight and cost when it was last chosen.
    now: u128,
    subflows: BTreeMap<SubflowId, (u128, u32, u32)>,
}

impl Weighted {
    /// The name it is registered under.
    pub const NAME: &'static str = "weighted";

    /// The virtual time at which the next bytes of `s` begin.
    fn start(&self, s: &SubflowView) -> u128 {
        self.subflows.get(&s.id).map_or(self.now, |(time, ..)| self.now.max(*time))
    }
}

impl Scheduler for Weighted {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn schedule(&mut self, snapshot: &Snapshot<'_>) -> Decision {
        let wanted = snapshot.sendable();
        let able = |s: &&SubflowView| wanted > 0 && may_send(snapshot, s, wanted);
        let next = preferred(snapshot).filter(able).min_by_key(|s| (self.start(s), s.id));
        let Some(s) = next else { return Decision::Wait };
        self.now = self.start(s);
        self.subflows.insert(s.id, (self.now, s.weight.max(1), s.cost.max(1)));
        Decision::Send { subflow: s.id, limit: limit(s, wanted.min(TURN)) }
    }

    fn on_sent(&mut self, _now: Instant, subflow: SubflowId, bytes: u64) {
        if let Some((time, weight, cost)) = self.subflows.get_mut(&subflow) {
            // In fractions of a byte.
            *time += (u128::from(bytes) << 32) * u128::from(*cost) / u128::from(*weight);
        }
    }

    fn subflow_removed(&mut self, subflow: SubflowId) {
        self.subflows.remove(&subflow);
    }
}

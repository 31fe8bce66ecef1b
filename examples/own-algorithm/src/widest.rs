//! The widest path first: of the subflows that may send now, the one with the highest rate (window per round
//! trip).

use umptcp_scheduler::{Decision, Reinjection, Scheduler, Snapshot, SubflowView};
use umptcp_scheduler::{limit, may_send, preferred};

/// The scheduler. It keeps nothing between decisions.
#[derive(Clone, Copy, Debug)]
pub struct Widest;

impl Widest {
    /// The name under which it is registered.
    pub const NAME: &'static str = "widest";
}

/// Bytes per second; a subflow without a round-trip time counts as the slowest.
fn rate(s: &SubflowView) -> u64 {
    s.srtt.map_or(0, |rtt| (s.window as f64 / rtt.as_secs_f64().max(1e-6)) as u64)
}

/// The best of the `allowed` subflows that can take some of `wanted` bytes.
fn choose(snapshot: &Snapshot<'_>, wanted: u64, allowed: impl Fn(&SubflowView) -> bool) -> Decision {
    let able = |s: &&SubflowView| wanted > 0 && allowed(s) && may_send(snapshot, s, wanted);
    match preferred(snapshot).filter(able).max_by_key(|s| (rate(s), std::cmp::Reverse(s.id))) {
        Some(s) => Decision::Send { subflow: s.id, limit: limit(s, wanted) },
        None => Decision::Wait,
    }
}

impl Scheduler for Widest {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn schedule(&mut self, snapshot: &Snapshot<'_>) -> Decision {
        choose(snapshot, snapshot.backlog.min(snapshot.send_window), |_| true)
    }

    fn reinject(&mut self, snapshot: &Snapshot<'_>, what: &Reinjection<'_>) -> Decision {
        choose(snapshot, what.range.end - what.range.start, |s| !what.carried_by.contains(&s.id))
    }
}

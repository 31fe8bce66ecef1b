//! interactive: as min-RTT, and what is small goes on every subflow.

use crate::min_rtt::fastest_with_room;
use crate::{Decision, Scheduler, Snapshot, SubflowView, limit, may_send, preferred};
use umptcp_types::Duration;

/// Bytes that a subflow may be behind and still be sent them: ten segments, the initial window of TCP (RFC
/// 6928). What is longer is not waited for key by key.
const SMALL: u64 = 14_600;

/// New data go where min-RTT has them. Once all are sent, those that are few go on the other subflows, too:
/// a key press, or a request, arrives by whichever path delivers it first, also when one of them loses it or
/// has just died. Long transfers use every path, without copies.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interactive;

impl Interactive {
    /// The name it is registered under.
    pub const NAME: &'static str = "interactive";
}

impl Scheduler for Interactive {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn repeats(&self) -> bool {
        true
    }

    fn schedule(&mut self, snapshot: &Snapshot<'_>) -> Decision {
        if snapshot.backlog > 0 {
            return fastest_with_room(snapshot).map_or(Decision::Wait, |(s, bytes)| Decision::send(s, bytes));
        }
        let small = |s: &&SubflowView| (1..=SMALL).contains(&s.behind) && may_send(snapshot, s, s.behind);
        let next = preferred(snapshot).filter(small).min_by_key(|s| (s.srtt.unwrap_or(Duration::MAX), s.id));
        next.map_or(Decision::Wait, |s| Decision::Repeat { subflow: s.id, limit: limit(s, s.behind) })
    }
}

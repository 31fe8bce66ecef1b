//! ECF: a slow subflow only for data that it delivers before the fast one would.

use crate::{Decision, Scheduler, Snapshot, fastest, fastest_with_room};

/// How much more it takes to stop waiting than to begin, so that it does not change its mind at once.
const BETA: f64 = 0.25;

/// ECF, earliest completion first (Lim et al., CoNEXT 2017). As min-RTT, but while the fastest subflow has no
/// room, it is compared when all that waits would be through: on the fast one after waiting for it, or with a
/// part of it on the slow one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ecf {
    /// It waits for the fast subflow.
    waiting: bool,
}

impl Ecf {
    /// The name it is registered under.
    pub const NAME: &'static str = "ecf";
}

impl Scheduler for Ecf {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn schedule(&mut self, snapshot: &Snapshot<'_>) -> Decision {
        let (Some(fast), Some((slow, bytes))) = (fastest(snapshot), fastest_with_room(snapshot)) else {
            return Decision::Wait;
        };
        let (Some(rtt_fast), Some(rtt_slow)) = (fast.srtt, slow.srtt) else {
            return Decision::send(slow, bytes);
        };
        // Nothing in flight on the fast one: no acknowledgement would end the waiting.
        if slow.id == fast.id || fast.in_flight == 0 {
            return Decision::send(slow, bytes);
        }
        let (rtt_fast, rtt_slow) = (rtt_fast.as_secs_f64(), rtt_slow.as_secs_f64());
        let delta = fast.rttvar.max(slow.rttvar).as_secs_f64();
        let rounds = |window: u64| snapshot.backlog as f64 / window.max(1) as f64;
        let threshold = if self.waiting { 1.0 + BETA } else { 1.0 };
        let sooner_on_fast = (1.0 + rounds(fast.window)) * rtt_fast < threshold * (rtt_slow + delta);
        if sooner_on_fast && rounds(slow.window) * rtt_slow >= 2.0 * rtt_fast + delta {
            self.waiting = true;
            return Decision::Wait;
        }
        self.waiting &= sooner_on_fast;
        Decision::send(slow, bytes)
    }
}

//! BLEST: no data on a slow subflow that would block the fast one.

use crate::{Decision, Scheduler, Snapshot, fastest, fastest_with_room};
use umptcp_types::{Duration, Instant};

/// The factor by which the estimate is corrected, in hundredths: its bounds, where it starts, and by how much
/// it moves per round trip of the fast subflow. The paper has 1.0 and ±δ; these are those of its deployed
/// variant, whose estimate rises fast and falls slowly.
const LAMBDA: core::ops::RangeInclusive<u64> = 100..=130;
const START: u64 = 120;
const UP: u64 = 4;
const DOWN: u64 = 1;

/// BLEST, blocking estimation (Ferlin et al., IFIP Networking 2016). As min-RTT, but while the fastest subflow
/// has no room, a slower one is used only if the shared window is large enough: for what the slow one then has
/// in flight, and beside it for all that the fast one could send meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Blest {
    lambda: u64,
    /// When it was last moved, and whether the window has blocked us since.
    moved: Option<Instant>,
    blocked: bool,
}

impl Default for Blest {
    fn default() -> Self {
        Blest { lambda: START, moved: None, blocked: false }
    }
}

impl Blest {
    /// The name it is registered under.
    pub const NAME: &'static str = "blest";

    fn adapt(&mut self, now: Instant, round_trip: Duration) {
        let moved = *self.moved.get_or_insert(now);
        if now - moved < round_trip.max(Duration::from_millis(1)) {
            return;
        }
        let lambda = if self.blocked { self.lambda + UP } else { self.lambda - DOWN };
        self.lambda = lambda.clamp(*LAMBDA.start(), *LAMBDA.end());
        (self.moved, self.blocked) = (Some(now), false);
    }
}

impl Scheduler for Blest {
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
        self.adapt(snapshot.now, rtt_fast);
        // Nothing in flight on the fast one: no acknowledgement would end the waiting.
        if slow.id == fast.id || fast.in_flight == 0 {
            return Decision::send(slow, bytes);
        }
        // X of the paper: what the fast one sends in a round trip of the slow one, growing by half a segment
        // per round trip of its own on average.
        let rounds = rtt_slow.as_secs_f64() / rtt_fast.as_secs_f64().max(1e-6);
        let meanwhile = (fast.window as f64 + f64::from(fast.mss) * (rounds - 1.0) / 2.0) * rounds;
        let on_slow = slow.in_flight + u64::from(slow.mss);
        let room = snapshot.whole_window.saturating_sub(on_slow) as f64;
        if meanwhile * self.lambda as f64 / 100.0 > room {
            return Decision::Wait;
        }
        Decision::send(slow, bytes)
    }

    fn on_blocked(&mut self, _now: Instant) {
        self.blocked = true;
    }
}

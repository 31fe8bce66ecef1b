//! Queues that drop, or mark, before they are full: RED and CoDel.

use crate::random::Random;
use std::sync::Arc;
use umptcp_types::{Duration, Instant};

/// Active queue management: which packets are dropped while the queue still has room.
#[derive(Clone, PartialEq, Debug, Default)]
pub enum Aqm {
    /// None: packets are dropped only when the queue is full.
    #[default]
    TailDrop,
    /// Random early detection (Floyd and Jacobson, ToN 1993), with a drop probability of any shape.
    Red(Red),
    /// CoDel (RFC 8289).
    CoDel(CoDel),
}

/// RED: an arriving packet is dropped with a probability that depends on how many packets wait.
#[derive(Clone, PartialEq, Debug)]
pub struct Red {
    /// Corners of the drop probability as a function of the queue's length: packets and probability, both
    /// rising. Straight lines join them; before the first it is 0, from the last on that of the last.
    pub curve: Arc<[(f64, f64)]>,
    /// Weight of the newest length in the moving average that the function is applied to. 1: the length
    /// itself.
    pub weight: f64,
}

impl Red {
    /// The queue of the OLIA paper (Khalili et al., CoNEXT 2012) for a link of `rate` bits per second: per 10
    /// Mbit/s the probability is 0 up to 25 packets, rises to 0.1 at 50 and to 1 at 100. The length is not
    /// averaged.
    pub fn khalili(rate: u64) -> Red {
        Red::scaled(&[(25.0, 0.0), (50.0, 0.1), (100.0, 1.0)], rate as f64 / 10e6, 1.0)
    }

    /// A curve whose packets are multiplied by `scale`.
    pub fn scaled(curve: &[(f64, f64)], scale: f64, weight: f64) -> Red {
        Red { curve: curve.iter().map(|(packets, p)| (packets * scale, *p)).collect(), weight }
    }

    /// The drop probability at an average length of `packets`.
    pub fn probability(&self, packets: f64) -> f64 {
        let mut before = (0.0, 0.0);
        for corner in self.curve.iter() {
            if packets < corner.0 {
                let (from, to) = (before, *corner);
                // Before the first corner nothing is dropped.
                if from == (0.0, 0.0) && to.1 == 0.0 {
                    return 0.0;
                }
                return from.1 + (to.1 - from.1) * (packets - from.0) / (to.0 - from.0);
            }
            before = *corner;
        }
        before.1
    }
}

/// CoDel: packets are dropped as they leave, at a growing rate, while all that leave have waited longer than
/// a target.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CoDel {
    /// The standing delay that is tolerated (RFC 8289 §4.2: 5 ms).
    pub target: Duration,
    /// How long it must stand before anything is dropped (RFC 8289 §4.2: 100 ms).
    pub interval: Duration,
}

impl Default for CoDel {
    fn default() -> Self {
        CoDel { target: Duration::from_millis(5), interval: Duration::from_millis(100) }
    }
}

/// State of RED.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RedState {
    average: f64,
    /// When the queue was last seen to be empty.
    idle_since: Option<Instant>,
}

impl RedState {
    /// A packet arrives at a queue of `waiting` packets: whether it is to be dropped. `slot` is a packet's
    /// transmission time: an idle link counts as so many arrivals at an empty queue.
    pub(crate) fn drops(
        &mut self,
        now: Instant,
        red: &Red,
        waiting: usize,
        slot: Duration,
        random: &mut Random,
    ) -> bool {
        if red.weight >= 1.0 {
            self.average = waiting as f64;
        } else {
            if let Some(since) = self.idle_since.take()
                && !slot.is_zero()
            {
                let slots = (now - since).as_secs_f64() / slot.as_secs_f64();
                self.average *= (1.0 - red.weight).powf(slots);
            }
            self.average += red.weight * (waiting as f64 - self.average);
        }
        random.chance(red.probability(self.average))
    }

    /// The queue ran empty.
    pub(crate) fn idle(&mut self, now: Instant) {
        self.idle_since = Some(now);
    }
}

/// State of CoDel: the variables of RFC 8289 §5.3.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CoDelState {
    first_above: Option<Instant>,
    drop_next: Instant,
    count: u32,
    last_count: u32,
    dropping: bool,
}

/// What to do with the packet at the head of the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It is transmitted.
    Send,
    /// It is dropped, and the next one is looked at; or it is marked and transmitted, where both ends can do
    /// so.
    Drop,
}

impl CoDelState {
    /// The packet at the head has waited for `sojourn`; `small`: no more than one packet's worth of bytes
    /// waits.
    pub(crate) fn judge(&mut self, now: Instant, codel: &CoDel, sojourn: Duration, small: bool) -> Verdict {
        let ok_to_drop = self.ok_to_drop(now, codel, sojourn, small);
        if self.dropping {
            if !ok_to_drop {
                self.dropping = false;
            } else if now >= self.drop_next {
                self.count += 1;
                self.drop_next = self.control_law(codel, self.drop_next);
                return Verdict::Drop;
            }
            return Verdict::Send;
        }
        if ok_to_drop {
            self.dropping = true;
            // RFC 8289 §5.4: resume near the last rate when the last episode was a short while ago.
            let delta = self.count.saturating_sub(self.last_count);
            let recent = now - self.drop_next < codel.interval * 16;
            self.count = if delta > 1 && recent { delta } else { 1 };
            self.drop_next = self.control_law(codel, now);
            self.last_count = self.count;
            return Verdict::Drop;
        }
        Verdict::Send
    }

    fn ok_to_drop(&mut self, now: Instant, codel: &CoDel, sojourn: Duration, small: bool) -> bool {
        if sojourn < codel.target || small {
            self.first_above = None;
            return false;
        }
        match self.first_above {
            None => {
                self.first_above = Some(now + codel.interval);
                false
            }
            Some(at) => now >= at,
        }
    }

    /// RFC 8289 §5.3: the interval to the next drop shrinks with the square root of their number.
    fn control_law(&self, codel: &CoDel, at: Instant) -> Instant {
        at + codel.interval.div_f64(f64::from(self.count.max(1)).sqrt())
    }

    /// The queue ran empty (RFC 8289 §5.5).
    pub(crate) fn empty(&mut self) {
        self.first_above = None;
        self.dropping = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_of_the_olia_paper_scales_with_capacity() {
        let red = Red::khalili(10_000_000);
        for (packets, p) in [
            (0.0, 0.0),
            (24.9, 0.0),
            (25.0, 0.0),
            (37.5, 0.05),
            (50.0, 0.1),
            (75.0, 0.55),
            (100.0, 1.0),
            (150.0, 1.0),
        ] {
            assert!((red.probability(packets) - p).abs() < 1e-12, "{packets}: {}", red.probability(packets));
        }
        let triple = Red::khalili(30_000_000);
        assert!((triple.probability(112.5) - 0.05).abs() < 1e-12);
    }

    #[test]
    fn codel_waits_an_interval_and_then_drops_ever_faster() {
        let codel = CoDel::default();
        let mut state = CoDelState::default();
        let ms = Instant::from_millis;
        let late = Duration::from_millis(20);
        let mut drops = Vec::new();
        for t in 0..600 {
            if state.judge(ms(t), &codel, late, false) != Verdict::Send {
                drops.push(t);
            }
        }
        // The first after one interval; then 100, 100/√2, 100/√3, … ms apart.
        assert_eq!(drops, [100, 200, 271, 329, 379, 424, 464, 502, 538, 571]);
        assert_eq!(state.judge(ms(600), &codel, Duration::from_millis(4), false), Verdict::Send);
        assert!(!state.dropping);
    }
}

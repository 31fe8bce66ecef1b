//! wVegas, weighted Vegas (draft-xu-mptcp-congestion-control-05; Cao et al., ICNP 2012): reacts to queueing
//! delay.

use crate::hystart::lower_third;
use crate::{AckSample, Algorithm, Flow};
use alloc::vec::Vec;

/// The number of segments the connection aims to keep queued in the network, over all its paths.
const TOTAL_ALPHA: f64 = 10.0;
/// The minimum of that target on one path.
const LEAST_ALPHA: f64 = 2.0;
/// The number of queued segments that ends slow start.
const GAMMA: f64 = 1.0;
/// The least queueing delay that ends slow start: this part of the round-trip time, within bounds in seconds.
///
/// At 100 Mbit/s a queued segment is a delay of a tenth of a millisecond, less than timers and schedulers of hosts
/// make of it by themselves. HyStart++ (RFC 9406 §4.3) asks for as much, and since slow start doubles the window
/// per round trip, a queue that is one reaches this in the round in which it begins.
const DELAY_DIVISOR: f64 = 8.0;
const MIN_DELAY: f64 = 0.001;
const MAX_DELAY: f64 = 0.016;
/// The minimum window in segments.
const LEAST_WINDOW: f64 = 2.0;
/// The number of RTT samples a round needs before the window is adjusted by delay.
const LEAST_SAMPLES: u32 = 3;
/// The number of samples of a round that are kept, at most.
const MOST_KEPT: usize = 256;
/// The number of samples whose lower third is that of the path. Of fewer, a third may well be early by chance, and
/// the least of all rounds would be one of these.
const STEADY_SAMPLES: usize = 64;

/// wVegas keeps a few segments queued on each path. The target of each path is weighted by its share of the
/// rate.
///
/// The window changes once per round, by one segment. wVegas yields to loss-based flows that fill the same
/// queue. Alone on a link it reaches about four fifths of the rate, because it drains its own queue.
///
/// Where packets overtake one another, a round's mean is mostly the delay of those that were late, and the least
/// round-trip time that of one that was early. Only what all packets take longer is a queue there, so the rounds'
/// lower thirds are compared instead: what two packets of three take at least.
#[derive(Debug, Default)]
pub struct WVegas;

/// State per subflow.
#[derive(Clone, Debug)]
pub struct WVegasState {
    /// RTT samples of this round: their number, and their sum in seconds.
    samples: u32,
    sum: f64,
    /// Samples of this round, and of earlier ones if these had too few.
    kept: Vec<f64>,
    /// The least of the lower thirds, in seconds.
    base: f64,
    /// Packets overtake one another.
    disordered: bool,
    /// The number of segments to keep queued on this path.
    alpha: f64,
    /// Minimum queueing delay since the last back-off, in seconds. Infinite if none was measured.
    least_delay: f64,
}

impl Default for WVegasState {
    fn default() -> Self {
        WVegasState {
            samples: 0,
            sum: 0.0,
            kept: Vec::new(),
            base: f64::INFINITY,
            disordered: false,
            alpha: LEAST_ALPHA,
            least_delay: f64::INFINITY,
        }
    }
}

impl WVegasState {
    /// The round is over: the round-trip time without a queue, and that of the round. `None`: there are too few
    /// samples. `min_rtt`: the least ever.
    fn end_round(&mut self, min_rtt: f64) -> Option<(f64, f64)> {
        let (samples, sum) = (self.samples, self.sum);
        self.samples = 0;
        self.sum = 0.0;
        let mut third = None;
        if self.kept.len() >= STEADY_SAMPLES {
            third = lower_third(&mut self.kept).map(|rtt| {
                self.base = self.base.min(rtt);
                (self.base, rtt)
            });
            self.kept.clear();
        }
        if self.disordered {
            return third;
        }
        // Rounding can put the average below the minimum.
        (samples >= LEAST_SAMPLES).then(|| (min_rtt, (sum / f64::from(samples)).max(min_rtt)))
    }
}

impl WVegas {
    /// Congestion avoidance with `diff` segments of this flow queued and a round-trip time of `rtt`, of which
    /// `base` without a queue.
    fn judge(flows: &mut [Flow<WVegasState>], i: usize, diff: f64, base: f64, rtt: f64) {
        let rate = flows[i].cwnd / rtt;
        let of_others =
            |(k, f): (usize, &Flow<_>)| if k == i { None } else { Some(f.window_in_use() / f.srtt?) };
        let total = rate + flows.iter().enumerate().filter_map(of_others).sum::<f64>();
        let flow = &mut flows[i];
        if diff >= flow.state.alpha {
            flow.state.alpha = (rate / total * TOTAL_ALPHA).max(LEAST_ALPHA);
        }
        if diff > flow.state.alpha {
            flow.grow(-flow.mss);
        } else if diff < flow.state.alpha && !flow.app_limited {
            flow.grow(flow.mss);
        }
        let delay = rtt - base;
        flow.state.least_delay = flow.state.least_delay.min(delay);
        // The queue is drained when the delay has doubled, so that the base RTT can be measured. A flow below
        // its target has nothing queued to drain: without that condition a path without any delay would back
        // off in every round.
        if diff >= flow.state.alpha && delay >= 2.0 * flow.state.least_delay {
            let back_off = base / (2.0 * rtt);
            flow.grow(flow.cwnd * (back_off - 1.0));
            flow.state.least_delay = f64::INFINITY;
        }
        if flow.segments() < LEAST_WINDOW {
            flow.grow(LEAST_WINDOW * flow.mss - flow.cwnd);
        }
    }
}

impl Algorithm for WVegas {
    const NAME: &'static str = "wvegas";
    const HYSTART: bool = false;
    type State = WVegasState;

    /// The window only changes at the end of a round.
    fn increase(&mut self, _flows: &mut [Flow<WVegasState>], _i: usize, _acked: f64) -> f64 {
        0.0
    }

    fn acked(&mut self, flows: &mut [Flow<WVegasState>], i: usize, ack: &AckSample) {
        let state = &mut flows[i].state;
        state.disordered = ack.disordered;
        if let Some(rtt) = ack.rtt {
            state.samples = state.samples.saturating_add(1);
            state.sum += rtt.as_secs_f64();
            if state.kept.len() < MOST_KEPT {
                state.kept.push(rtt.as_secs_f64());
            }
        }
    }

    fn round(&mut self, flows: &mut [Flow<WVegasState>], i: usize) {
        let flow = &mut flows[i];
        let measured = flow.state.end_round(flow.min_rtt);
        if flow.in_recovery {
            return;
        }
        let Some((base, rtt)) = measured else {
            if !flow.in_slow_start() && !flow.app_limited {
                flow.grow(flow.mss);
            }
            return;
        };
        let diff = flow.segments() * (1.0 - base / rtt);
        if !flow.in_slow_start() {
            Self::judge(flows, i, diff, base, rtt);
        } else if diff > GAMMA && rtt - base > (base / DELAY_DIVISOR).clamp(MIN_DELAY, MAX_DELAY) {
            flow.ssthresh = (flow.cwnd - flow.mss).max(LEAST_WINDOW * flow.mss);
        }
    }
}

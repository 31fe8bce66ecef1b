//! wVegas, weighted Vegas (draft-xu-mptcp-congestion-control-05; Cao et al., ICNP 2012): reacts to queueing
//! delay.

use crate::{AckSample, Algorithm, Flow};

/// The number of segments the connection aims to keep queued in the network, over all its paths.
const TOTAL_ALPHA: f64 = 10.0;
/// The minimum of that target on one path.
const LEAST_ALPHA: f64 = 2.0;
/// The number of queued segments that ends slow start.
const GAMMA: f64 = 1.0;
/// The minimum window in segments.
const LEAST_WINDOW: f64 = 2.0;
/// The number of RTT samples a round needs before the window is adjusted by delay.
const LEAST_SAMPLES: u32 = 3;

/// wVegas keeps a few segments queued on each path. The target of each path is weighted by its share of the
/// rate.
///
/// The window changes once per round, by one segment. wVegas yields to loss-based flows that fill the same
/// queue. Alone on a link it reaches about four fifths of the rate, because it drains its own queue.
#[derive(Debug, Default)]
pub struct WVegas;

/// State per subflow.
#[derive(Clone, Debug)]
pub struct WVegasState {
    /// RTT samples of this round: their number, and their sum in seconds.
    samples: u32,
    sum: f64,
    /// The number of segments to keep queued on this path.
    alpha: f64,
    /// Minimum queueing delay since the last back-off, in seconds. Infinite if none was measured.
    least_delay: f64,
}

impl Default for WVegasState {
    fn default() -> Self {
        WVegasState { samples: 0, sum: 0.0, alpha: LEAST_ALPHA, least_delay: f64::INFINITY }
    }
}

impl WVegas {
    /// Congestion avoidance with `diff` segments of this flow queued and a mean round-trip time of `rtt`.
    fn judge(flows: &mut [Flow<WVegasState>], i: usize, diff: f64, rtt: f64) {
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
        let delay = rtt - flow.min_rtt;
        flow.state.least_delay = flow.state.least_delay.min(delay);
        // The queue is drained when the delay has doubled, so that the base RTT can be measured. A flow below
        // its target has nothing queued to drain: without that condition a path without any delay would back
        // off in every round.
        if diff >= flow.state.alpha && delay >= 2.0 * flow.state.least_delay {
            let back_off = flow.min_rtt / (2.0 * rtt);
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
        if let Some(rtt) = ack.rtt {
            let state = &mut flows[i].state;
            state.samples = state.samples.saturating_add(1);
            state.sum += rtt.as_secs_f64();
        }
    }

    fn round(&mut self, flows: &mut [Flow<WVegasState>], i: usize) {
        let flow = &mut flows[i];
        let (samples, sum) = (flow.state.samples, flow.state.sum);
        flow.state.samples = 0;
        flow.state.sum = 0.0;
        if flow.in_recovery {
            return;
        }
        if samples < LEAST_SAMPLES {
            if !flow.in_slow_start() && !flow.app_limited {
                flow.grow(flow.mss);
            }
            return;
        }
        // Rounding can put the average below the minimum.
        let rtt = (sum / f64::from(samples)).max(flow.min_rtt);
        let diff = flow.segments() * (1.0 - flow.min_rtt / rtt);
        if !flow.in_slow_start() {
            Self::judge(flows, i, diff, rtt);
        } else if diff > GAMMA {
            flow.ssthresh = (flow.cwnd - flow.mss).max(LEAST_WINDOW * flow.mss);
        }
    }
}

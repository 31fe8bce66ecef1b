//! wVegas, weighted Vegas (draft-xu-mptcp-congestion-control-05; Cao et al., ICNP 2012): reacts to queueing
//! delay.

use crate::hystart::lower_third;
use crate::{AckSample, Algorithm, Congestion, Flow};
use alloc::vec::Vec;

/// The number of segments the connection aims to keep queued in the network, over all its paths.
const TOTAL_ALPHA: f64 = 10.0;
/// The minimum of that target on one path.
const LEAST_ALPHA: f64 = 2.0;
/// The number of queued segments that ends slow start.
const GAMMA: f64 = 1.0;
/// The least queueing delay that ends slow start: this part of the round-trip time, within bounds in seconds.
///
/// At 100 Mbit/s a queued segment is a delay of a tenth of a millisecond, less than timers and schedulers of
/// hosts make of it by themselves. HyStart++ (RFC 9406 §4.3) asks for as much, and since slow start doubles
/// the window per round trip, a queue that is one reaches this in the round in which it begins.
const DELAY_DIVISOR: f64 = 8.0;
const MIN_DELAY: f64 = 0.001;
const MAX_DELAY: f64 = 0.016;
/// The minimum window in segments.
const LEAST_WINDOW: f64 = 2.0;
/// The number of RTT samples a round needs before the window is adjusted by delay.
const LEAST_SAMPLES: u32 = 3;
/// The number of samples whose lower third is that of the path. Of fewer, a third may well be early by
/// chance, and the least of all would be one of these.
const STEADY_SAMPLES: usize = 64;

/// wVegas keeps a few segments queued on each path. The target of each path is weighted by its share of the
/// rate.
///
/// The window changes once per round, by one segment. wVegas yields to loss-based flows that fill the same
/// queue. Alone on a link it reaches about four fifths of the rate, because it drains its own queue.
///
/// Where packets overtake one another, a round's mean is mostly the delay of those that were late, and the
/// least round-trip time that of one that was early. Only what all packets take longer is a queue there, so
/// the lower thirds of some samples at a time are compared instead: what two packets of three take at least.
///
/// A queue ends slow start only when it outlasts a round in which the window has not grown: what hosts and
/// timers add at times passes, and after a slow start that ended too soon the window grows by a segment per
/// round. (Vegas itself lets the window grow in every other round only, to compare like with like.)
#[derive(Debug, Default)]
pub struct WVegas;

/// State per subflow.
#[derive(Clone, Debug)]
pub struct WVegasState {
    /// RTT samples of this round: their number, and their sum in seconds.
    samples: u32,
    sum: f64,
    /// Samples whose lower third is not known yet.
    kept: Vec<f64>,
    /// The lower thirds, in seconds: the least of all, the least of this round, and the last of it.
    base: f64,
    least: f64,
    third: Option<f64>,
    /// Slow start goes no further for a round or two, because there may be a queue.
    paused: Option<Pause>,
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
            least: f64::INFINITY,
            third: None,
            paused: None,
            disordered: false,
            alpha: LEAST_ALPHA,
            least_delay: f64::INFINITY,
        }
    }
}

/// A pause of slow start.
#[derive(Clone, Copy, Debug)]
struct Pause {
    /// The threshold before, and again if there is no queue.
    ssthresh: f64,
    /// The window was the same for the whole of the round that ends next.
    whole_round: bool,
}

/// Whether packets that take `rtt` wait in a queue that ends slow start, if they take `base` without one.
fn is_queue(segments: f64, base: f64, rtt: f64) -> bool {
    let diff = segments * (1.0 - base / rtt);
    diff > GAMMA && rtt - base > (base / DELAY_DIVISOR).clamp(MIN_DELAY, MAX_DELAY)
}

impl WVegasState {
    fn sample(&mut self, rtt: f64) {
        self.samples = self.samples.saturating_add(1);
        self.sum += rtt;
        self.kept.push(rtt);
        if self.kept.len() >= STEADY_SAMPLES {
            self.third = lower_third(&mut self.kept);
            self.least = self.least.min(self.third.unwrap_or(f64::INFINITY));
            self.base = self.base.min(self.least);
            self.kept.clear();
        }
    }

    /// The round is over: the round-trip time without a queue, that of the round, and the least of the round.
    /// `None`: there are too few samples. `min_rtt`: the least ever.
    fn end_round(&mut self, min_rtt: f64) -> Option<(f64, f64, f64)> {
        let (samples, sum, least, third) = (self.samples, self.sum, self.least, self.third);
        self.samples = 0;
        self.sum = 0.0;
        self.least = f64::INFINITY;
        self.third = None;
        if self.disordered {
            return third.map(|third| (self.base, third, least));
        }
        // Rounding can put the average below the minimum.
        let mean = (sum / f64::from(samples)).max(min_rtt);
        (samples >= LEAST_SAMPLES).then_some((min_rtt, mean, mean))
    }
}

impl WVegas {
    /// Ends slow start for now.
    fn pause(flow: &mut Flow<WVegasState>) {
        if flow.in_slow_start() {
            flow.state.paused = Some(Pause { ssthresh: flow.ssthresh, whole_round: false });
            flow.ssthresh = flow.cwnd;
        }
    }

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

    fn decrease(&mut self, flows: &mut [Flow<WVegasState>], i: usize, used: f64, _: Congestion) -> f64 {
        flows[i].state.paused = None;
        used / 2.0
    }

    fn penalised(&mut self, flows: &mut [Flow<WVegasState>], i: usize) {
        flows[i].state.paused = None;
    }

    fn acked(&mut self, flows: &mut [Flow<WVegasState>], i: usize, ack: &AckSample) {
        let flow = &mut flows[i];
        flow.state.disordered = ack.disordered;
        let Some(rtt) = ack.rtt else { return };
        flow.state.sample(rtt.as_secs_f64());
        // By the end of the round, the window would have doubled.
        if let Some(third) = flow.state.third.filter(|_| ack.disordered && flow.state.kept.is_empty())
            && is_queue(flow.segments(), flow.state.base, third)
        {
            Self::pause(flow);
        }
    }

    fn round(&mut self, flows: &mut [Flow<WVegasState>], i: usize) {
        let flow = &mut flows[i];
        let measured = flow.state.end_round(flow.min_rtt);
        if flow.in_recovery {
            return;
        }
        let Some((base, rtt, least)) = measured else {
            if !flow.in_slow_start() && flow.state.paused.is_none() && !flow.app_limited {
                flow.grow(flow.mss);
            }
            return;
        };
        match flow.state.paused {
            Some(Pause { whole_round: false, ssthresh }) => {
                flow.state.paused = Some(Pause { whole_round: true, ssthresh });
            }
            Some(Pause { ssthresh, .. }) => {
                flow.state.paused = None;
                flow.ssthresh = if is_queue(flow.segments(), base, least) {
                    (flow.cwnd - flow.mss).max(LEAST_WINDOW * flow.mss)
                } else {
                    ssthresh
                };
            }
            None if flow.in_slow_start() => {
                if is_queue(flow.segments(), base, rtt) {
                    Self::pause(flow);
                }
            }
            None => {
                let diff = flow.segments() * (1.0 - base / rtt);
                Self::judge(flows, i, diff, base, rtt);
            }
        }
    }
}

//! CUBIC (RFC 9438), independently on each subflow.

use crate::{Algorithm, Congestion, Flow};

/// The scaling constant of the cubic function, in segments per second cubed (RFC 9438 §5.1).
const C: f64 = 0.4;
/// The factor that reduces the window after congestion (RFC 9438 §4.6).
const BETA: f64 = 0.7;
/// The additive increase that gives Reno's throughput with this smaller decrease (RFC 9438 §4.3).
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// CUBIC. Uncoupled: n subflows through one bottleneck take n shares of it.
#[derive(Debug, Default)]
pub struct Cubic;

/// State per subflow. Names as in RFC 9438 §4.1.2, windows in bytes.
#[derive(Clone, Debug, Default)]
pub struct CubicState {
    /// The window before the last reduction, lower with fast convergence. `None` before the first reduction
    /// and after a timeout.
    w_max: Option<f64>,
    /// The window when ssthresh was last set.
    cwnd_prior: Option<f64>,
    /// The current stage of congestion avoidance.
    epoch: Option<Epoch>,
}

#[derive(Clone, Copy, Debug)]
struct Epoch {
    /// Start, in terms of [`Flow::growing`], so that application-limited time does not count (RFC 9438 §5.8).
    start: f64,
    k: f64,
    w_max: f64,
    w_est: f64,
}

impl Epoch {
    /// Starts a stage of congestion avoidance (RFC 9438 §4.2; §4.8 and §4.10 without a w_max).
    fn begin(flow: &Flow<CubicState>) -> Epoch {
        let w_max = flow.state.w_max.unwrap_or(flow.cwnd).max(flow.cwnd);
        let k = libm::cbrt((w_max - flow.cwnd) / (C * flow.mss));
        Epoch { start: flow.growing, k, w_max, w_est: flow.cwnd }
    }

    /// RFC 9438 §4.2 figure 1, in bytes.
    fn w_cubic(&self, t: f64, mss: f64) -> f64 {
        let d = t - self.k;
        C * mss * d * d * d + self.w_max
    }
}

impl Algorithm for Cubic {
    const NAME: &'static str = "cubic";
    type State = CubicState;

    fn increase(&mut self, flows: &mut [Flow<CubicState>], i: usize, acked: f64) -> f64 {
        let flow = &mut flows[i];
        let (cwnd, mss) = (flow.cwnd, flow.mss);
        let cwnd_prior = *flow.state.cwnd_prior.get_or_insert(cwnd);
        let mut epoch = flow.state.epoch.unwrap_or_else(|| Epoch::begin(flow));
        let t = flow.growing - epoch.start;

        // RFC 9438 §4.3 figure 4: as fast as Reno once the window before the last reduction is reached.
        let alpha = if epoch.w_est < cwnd_prior { ALPHA } else { 1.0 };
        epoch.w_est += alpha * mss * acked / cwnd;
        flow.state.epoch = Some(epoch);

        if epoch.w_cubic(t, mss) < epoch.w_est {
            // Reno-friendly region.
            (epoch.w_est - cwnd).max(0.0)
        } else {
            // Concave and convex regions (RFC 9438 §4.4, §4.5): the window never shrinks, and grows by at
            // most half of itself per round trip.
            let rtt = flow.srtt.unwrap_or(0.0);
            let target = epoch.w_cubic(t + rtt, mss).clamp(cwnd, 1.5 * cwnd);
            (target - cwnd) * acked / cwnd
        }
    }

    fn decrease(&mut self, flows: &mut [Flow<CubicState>], i: usize, used: f64, why: Congestion) -> f64 {
        let flow = &mut flows[i];
        flow.state.w_max = match (why, flow.state.w_max) {
            // RFC 9438 §4.8: the next stage sets w_max to the window it starts with.
            (Congestion::Timeout, _) => None,
            // RFC 9438 §4.7, fast convergence: less capacity than last time, so leave room for a new flow.
            (_, Some(w_max)) if flow.cwnd < w_max => Some(flow.cwnd * (1.0 + BETA) / 2.0),
            _ => Some(flow.cwnd),
        };
        flow.state.cwnd_prior = Some(flow.cwnd);
        flow.state.epoch = None;
        BETA * used
    }

    fn penalised(&mut self, flows: &mut [Flow<CubicState>], i: usize) {
        flows[i].state.epoch = None;
    }
}

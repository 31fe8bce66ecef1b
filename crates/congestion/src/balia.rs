//! BALIA, "Balanced Linked Adaptation" (draft-walid-mptcp-congestion-control-04; Peng et al., ToN 2016).

use crate::{Algorithm, Congestion, Flow};

/// BALIA couples both increase and decrease, to balance TCP friendliness against responsiveness.
#[derive(Debug, Default)]
pub struct Balia;

/// x of a subflow: bytes per second in use, 0 before the first RTT sample.
fn rate(flow: &Flow<()>) -> f64 {
    flow.srtt.map_or(0.0, |rtt| flow.window_in_use() / rtt)
}

/// alpha_r = max x / x_r, not rounded: as an integer it would be 1 for every path up to twice as slow.
fn alpha(flows: &[Flow<()>], own: f64) -> f64 {
    flows.iter().map(rate).fold(own, f64::max) / own
}

impl Algorithm for Balia {
    const NAME: &'static str = "balia";
    type State = ();

    fn increase(&mut self, flows: &mut [Flow<()>], i: usize, acked: f64) -> f64 {
        let flow = &flows[i];
        let Some(rtt) = flow.srtt else { return 0.0 };
        let x = flow.cwnd / rtt;
        let sum: f64 = flows.iter().map(rate).sum();
        let alpha = alpha(flows, x);
        flow.mss * acked * x / (rtt * sum * sum) * (1.0 + alpha) / 2.0 * (4.0 + alpha) / 5.0
    }

    fn decrease(&mut self, flows: &mut [Flow<()>], i: usize, used: f64, why: Congestion) -> f64 {
        let flow = &flows[i];
        let factor = match (why, flow.srtt) {
            // As TCP does after a timeout.
            (Congestion::Timeout, _) | (_, None) => 1.0,
            (_, Some(rtt)) => alpha(flows, flow.cwnd / rtt).min(1.5),
        };
        used - used / 2.0 * factor
    }

    fn least_ssthresh(&self, subflows: usize) -> f64 {
        if subflows > 1 { 1.0 } else { 2.0 }
    }
}

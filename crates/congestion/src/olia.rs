//! OLIA, "Opportunistic Linked Increases" (draft-khalili-mptcp-congestion-control-05; Khalili et al., CoNEXT
//! 2012).

use crate::{AckSample, Algorithm, Congestion, Flow};

/// OLIA moves traffic from the paths with the largest windows to better paths whose windows are still small.
#[derive(Debug, Default)]
pub struct Olia;

/// State per subflow: bytes between losses, from which the quality of the path is computed.
#[derive(Clone, Debug, Default)]
pub struct OliaState {
    /// Bytes acknowledged between the last two losses.
    l1: f64,
    /// Bytes acknowledged since the last loss.
    l2: f64,
}

/// The RTT of a subflow that carries data. An idle subflow neither gains nor loses window.
fn counts(flow: &Flow<OliaState>) -> Option<f64> {
    flow.srtt.filter(|_| flow.window_in_use() > 0.0)
}

/// The draft has `l²/rtt` in the formula but `l/rtt²` in the rationale, which is used here: the quality of a
/// path is the rate that TCP reaches at its loss rate, proportional to √l / rtt.
fn quality(flow: &Flow<OliaState>, rtt: f64) -> f64 {
    flow.state.l1.max(flow.state.l2) / (rtt * rtt)
}

/// alpha_r: positive on the best paths unless they have the largest window. If there are such paths, negative
/// on those with the largest window.
fn alpha(flows: &[Flow<OliaState>], i: usize) -> f64 {
    let (mut best, mut largest, mut n) = (0.0f64, 0.0f64, 0.0);
    for flow in flows {
        let Some(rtt) = counts(flow) else { continue };
        best = best.max(quality(flow, rtt));
        largest = largest.max(flow.window_in_use());
        n += 1.0;
    }
    let is_best = |f: &Flow<OliaState>| counts(f).is_some_and(|rtt| quality(f, rtt) >= best);
    let is_largest = |f: &Flow<OliaState>| counts(f).is_some() && f.window_in_use() >= largest;
    let is_collected = |f: &Flow<OliaState>| is_best(f) && !is_largest(f);
    let size = |member: &dyn Fn(&Flow<OliaState>) -> bool| flows.iter().filter(|f| member(f)).count() as f64;

    let collected = size(&is_collected);
    if collected == 0.0 {
        0.0
    } else if is_collected(&flows[i]) {
        1.0 / (n * collected)
    } else if is_largest(&flows[i]) {
        -1.0 / (n * size(&is_largest))
    } else {
        0.0
    }
}

impl Algorithm for Olia {
    const NAME: &'static str = "olia";
    type State = OliaState;

    fn increase(&mut self, flows: &mut [Flow<OliaState>], i: usize, acked: f64) -> f64 {
        let flow = &flows[i];
        let Some(rtt) = flow.srtt else { return 0.0 };
        let rate: f64 = flows.iter().filter_map(|f| Some(f.window_in_use() / counts(f)?)).sum();
        flow.mss * acked * (flow.cwnd / (rtt * rtt) / (rate * rate) + alpha(flows, i) / flow.cwnd)
    }

    fn decrease(&mut self, flows: &mut [Flow<OliaState>], i: usize, used: f64, _why: Congestion) -> f64 {
        let state = &mut flows[i].state;
        *state = OliaState { l1: state.l2, l2: 0.0 };
        used / 2.0
    }

    fn least_ssthresh(&self, subflows: usize) -> f64 {
        if subflows > 1 { 1.0 } else { 2.0 }
    }

    fn acked(&mut self, flows: &mut [Flow<OliaState>], i: usize, ack: &AckSample) {
        flows[i].state.l2 += ack.acked as f64;
    }
}

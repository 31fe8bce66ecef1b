//! OLIA, "Opportunistic Linked Increases" (draft-khalili-mptcp-congestion-control-05; Khalili et al., CoNEXT
//! 2012).

use crate::{AckSample, Algorithm, Congestion, Flow};

/// OLIA moves traffic from the paths with the largest windows to better paths whose windows are still small.
#[derive(Debug, Default)]
pub struct Olia;

/// Round trips without a loss after which a path is tried, although another is better by what is known.
///
/// The draft ranks paths by l, in bytes. A path that competition has left with a window of one segment needs
/// minutes to carry what another, with a window of a hundred, carries between two losses (and its round-trip
/// time, which counts squared, includes the delay of the ACK for that single segment). Until then it is not
/// among the best, its alpha is 0, and the other term adds 1/10,000 of a segment per round trip: it stays
/// where it is, however free the path has become.
///
/// Where losses are frequent enough to make the window of a TCP small, this changes little: of the paths that
/// lose one packet in a hundred, and carry one per round trip, one in seven gets as far. Where they are rare, the
/// path is tried with half of what a TCP would add, and the next loss ends that. Nothing is taken from the
/// paths with the largest windows for it, as is done for a path that is known to be better.
const TRIED_AFTER: f64 = 200.0;
/// The same for each segment of its window: longer than a path of its own takes from one loss to the next.
const TRIED_AFTER_PER_SEGMENT: f64 = 10.0;

/// State per subflow: bytes between losses, from which the quality of the path is computed.
#[derive(Clone, Debug, Default)]
pub struct OliaState {
    /// Bytes acknowledged between the last two losses.
    l1: f64,
    /// Bytes acknowledged since the last loss.
    l2: f64,
    /// Round trips since then.
    rounds: f64,
    /// Alpha finds out what the path is worth, until the next loss.
    tried: bool,
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

/// alpha_r: positive on the best paths unless they have the largest window, and on those that are tried. If
/// there are such that are the best, negative on those with the largest window.
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
    let gains =
        |f: &Flow<OliaState>| is_collected(f) || (f.state.tried && counts(f).is_some() && !is_largest(f));
    let size = |member: &dyn Fn(&Flow<OliaState>) -> bool| flows.iter().filter(|f| member(f)).count() as f64;

    let collected = size(&is_collected);
    if is_collected(&flows[i]) {
        1.0 / (n * collected)
    } else if gains(&flows[i]) {
        1.0 / (n * size(&gains))
    } else if collected > 0.0 && is_largest(&flows[i]) {
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

    fn decrease(&mut self, flows: &mut [Flow<OliaState>], i: usize, used: f64, why: Congestion) -> f64 {
        let flow = &mut flows[i];
        // A timeout in recovery is of the window whose loss has been counted already.
        if !(why == Congestion::Timeout && flow.in_recovery) {
            flow.state = OliaState { l1: flow.state.l2, ..OliaState::default() };
        }
        used / 2.0
    }

    fn least_ssthresh(&self, subflows: usize) -> f64 {
        if subflows > 1 { 1.0 } else { 2.0 }
    }

    fn acked(&mut self, flows: &mut [Flow<OliaState>], i: usize, ack: &AckSample) {
        flows[i].state.l2 += ack.acked as f64;
    }

    fn round(&mut self, flows: &mut [Flow<OliaState>], i: usize) {
        let segments = flows[i].segments();
        let state = &mut flows[i].state;
        state.rounds += 1.0;
        state.tried |= state.rounds >= TRIED_AFTER.max(TRIED_AFTER_PER_SEGMENT * segments);
    }
}

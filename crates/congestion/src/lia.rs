//! LIA, "Linked Increases" (RFC 6356): the default.
//!
//! Requirement by requirement: `docs/src/conformance-rfc6356.md`.

use crate::{Algorithm, Flow, reno};

/// LIA couples the increases so that all subflows together get the throughput of one TCP on the best path.
#[derive(Debug, Default)]
pub struct Lia {
    /// Aggressiveness. Recomputed after every loss and every round trip (RFC 6356 §4.1).
    alpha: Option<f64>,
}

fn total(flows: &[Flow<()>]) -> f64 {
    flows.iter().map(Flow::window_in_use).sum()
}

/// RFC 6356 §3 equation 2. Subflows without an RTT sample have had nothing acknowledged and do not count.
fn alpha(flows: &[Flow<()>]) -> f64 {
    let mut best = 0.0f64;
    let mut rate = 0.0;
    for flow in flows {
        let Some(rtt) = flow.srtt else { continue };
        let w = flow.window_in_use();
        best = best.max(w / (rtt * rtt));
        rate += w / rtt;
    }
    if rate > 0.0 { total(flows) * best / (rate * rate) } else { 1.0 }
}

impl Algorithm for Lia {
    const NAME: &'static str = "lia";
    type State = ();

    /// RFC 6356 §3 equation 1.
    fn increase(&mut self, flows: &mut [Flow<()>], i: usize, acked: f64) -> f64 {
        let alpha = *self.alpha.get_or_insert_with(|| alpha(flows));
        let flow = &flows[i];
        (alpha * acked * flow.mss / total(flows)).min(reno::increase(flow, acked))
    }

    fn refresh(&mut self) {
        self.alpha = None;
    }
}

//! Reno (RFC 5681): each subflow behaves like an independent TCP connection.

use crate::{Algorithm, Flow};

/// Reno. Uncoupled: n subflows through one bottleneck take n shares of it.
#[derive(Debug, Default)]
pub struct Reno;

/// One segment per round trip: RFC 5681 §3.1 equation 3, scaled by the bytes acknowledged.
pub(crate) fn increase<S>(flow: &Flow<S>, acked: f64) -> f64 {
    flow.mss * acked / flow.cwnd
}

impl Algorithm for Reno {
    const NAME: &'static str = "reno";
    type State = ();

    fn increase(&mut self, flows: &mut [Flow<()>], i: usize, acked: f64) -> f64 {
        increase(&flows[i], acked)
    }
}

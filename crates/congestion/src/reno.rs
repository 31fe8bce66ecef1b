//! Reno (RFC 5681): each subflow for itself, as a TCP connection of its own would.

use crate::{Algorithm, Flow};

/// Reno. Uncoupled: n subflows through one bottleneck take n shares.
#[derive(Debug, Default)]
pub struct Reno;

/// One segment per round-trip time: RFC 5681 §3.1 equation 3, for the bytes really acknowledged.
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

//! EWTCP, "equally weighted TCP" (after Honda et al., PFLDNeT 2009): every subflow is a TCP of weight 1/n.
//!
//! A TCP whose window grows by `a` segments per round trip and is halved on loss has a window proportional to
//! √a. With a = 1/n² each of n subflows gets the n-th part of what a TCP would: on a shared bottleneck all
//! together take one share. It needs to know nothing of its siblings but their number, and so does not move
//! traffic to better paths.

use umptcp_congestion::{Algorithm, Congestion, Flow};

/// The algorithm's own variables: none.
#[derive(Debug, Default)]
pub struct Ewtcp;

impl Algorithm for Ewtcp {
    const NAME: &'static str = "ewtcp";
    /// What it keeps per subflow: how often the window was reduced, to show how.
    type State = Reductions;

    /// Congestion avoidance: bytes by which the window of `flows[i]` grows when `acked` bytes were
    /// acknowledged.
    fn increase(&mut self, flows: &mut [Flow<Reductions>], i: usize, acked: f64) -> f64 {
        // Subflows that carry nothing do not compete.
        let n = flows.iter().filter(|f| f.window_in_use() > 0.0).count().max(1) as f64;
        let flow = &flows[i];
        // One segment per window acknowledged is Reno; this is 1/n² of it.
        flow.mss * (acked / flow.cwnd) / (n * n)
    }

    /// Congestion: the window that `flows[i]` is to have, of which `used` bytes were in use.
    fn decrease(&mut self, flows: &mut [Flow<Reductions>], i: usize, used: f64, _why: Congestion) -> f64 {
        flows[i].state.0 += 1;
        used / 2.0
    }
}

/// Reductions so far. State is cloned before a reduction, and restored when the reduction is undone.
#[derive(Clone, Debug, Default)]
pub struct Reductions(u64);

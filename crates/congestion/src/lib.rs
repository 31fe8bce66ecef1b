//! Congestion control for umptcp, coupled and single-path.
//!
//! One [`CongestionController`] belongs to a *connection* and sees all its sibling subflows: only so can it couple
//! them (RFC 6356). Loss recovery decides what was lost and when to send; the controller answers with windows and
//! pacing rates, in bytes.
//!
//! What all algorithms share — slow start with HyStart++, the reductions, undo, the bookkeeping per subflow — is in
//! [`Controller`]. An algorithm implements [`Algorithm`], which asks for the increase in congestion avoidance and, if
//! it is not a halving, for the decrease; every algorithm here is one such file. One that shares nothing of this
//! implements [`CongestionController`] directly.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod balia;
mod controller;
mod cubic;
mod flow;
mod hystart;
mod lia;
mod olia;
mod reno;
mod validation;
mod wvegas;

pub use balia::Balia;
pub use controller::{Algorithm, Controller};
pub use cubic::{Cubic, CubicState};
pub use flow::{Congestion, Flow};
pub use hystart::HyStart;
pub use lia::Lia;
pub use olia::{Olia, OliaState};
pub use reno::Reno;
pub use wvegas::{WVegas, WVegasState};

use alloc::boxed::Box;
use core::fmt;
use umptcp_types::{Duration, Instant, SubflowId};

/// Congestion control algorithms by name. A program adds its own with [`register`](umptcp_types::Registry::register),
/// an [`Algorithm`] as [`Controller::boxed`].
pub type Registry = umptcp_types::Registry<dyn CongestionController>;

/// The algorithm that a connection uses by default.
pub const DEFAULT_NAME: &str = Lia::NAME;

/// Every algorithm of this crate, the default first. `uncoupled` is Reno under the name that papers on coupled
/// congestion control use for their baseline.
pub fn built_in() -> Registry {
    let mut registry = Registry::empty();
    registry.register(Lia::NAME, Controller::<Lia>::boxed);
    registry.register(Reno::NAME, Controller::<Reno>::boxed);
    registry.register(Cubic::NAME, Controller::<Cubic>::boxed);
    registry.register(Olia::NAME, Controller::<Olia>::boxed);
    registry.register(Balia::NAME, Controller::<Balia>::boxed);
    registry.register(WVegas::NAME, Controller::<WVegas>::boxed);
    registry.register("uncoupled", || Box::new(Controller::<Reno>::named("uncoupled")));
    registry
}

/// What an acknowledgement said, at the level of one subflow.
#[derive(Clone, Copy, Debug)]
pub struct AckSample {
    /// Bytes newly acknowledged, cumulatively or by SACK.
    pub acked: u64,
    /// Round-trip time measured by this ACK, when it allowed a measurement (Karn's rule).
    pub rtt: Option<Duration>,
    /// Smoothed round-trip time (RFC 6298), this sample included.
    pub srtt: Duration,
    /// Least round-trip time seen.
    pub min_rtt: Duration,
    /// Bytes in flight after this ACK.
    pub in_flight: u64,
    /// The application or the peer's window, not the congestion window, limited what was sent (RFC 7661): the window must not grow.
    pub app_limited: bool,
    /// The subflow is in loss recovery: the window is governed by proportional rate reduction meanwhile.
    pub in_recovery: bool,
}

/// Constants of a subflow that the controller needs.
#[derive(Clone, Copy, Debug)]
pub struct SubflowParams {
    /// Sender maximum segment size in bytes, without options that every segment carries.
    pub mss: u32,
    /// Initial window in bytes (RFC 6928: ten segments).
    pub initial_window: u64,
}

/// The congestion control of one connection.
///
/// Windows are in bytes. A subflow the controller does not know has window 0; calls that name one are ignored.
pub trait CongestionController: fmt::Debug + Send {
    /// The name under which the registry knows it.
    fn name(&self) -> &'static str;
    /// A subflow was established and may carry data.
    fn subflow_added(&mut self, now: Instant, subflow: SubflowId, params: SubflowParams);
    /// A subflow has gone; it no longer counts in the coupling.
    fn subflow_removed(&mut self, now: Instant, subflow: SubflowId);
    /// The sender maximum segment size changed (path MTU).
    fn mss_changed(&mut self, subflow: SubflowId, mss: u32);
    /// `bytes` were sent; `in_flight` counts them.
    fn on_sent(&mut self, _now: Instant, _subflow: SubflowId, _bytes: u64, _in_flight: u64) {}
    /// Data were acknowledged.
    fn on_ack(&mut self, now: Instant, subflow: SubflowId, ack: &AckSample);
    /// A round trip has passed on `subflow`: the first byte sent after the last call was acknowledged.
    fn on_round(&mut self, _now: Instant, _subflow: SubflowId) {}
    /// Loss was detected and recovery begins: called once per episode (RFC 5681 §3.2, RFC 6675). Afterwards
    /// [`ssthresh`](Self::ssthresh) is what recovery aims at, and [`window`](Self::window) is the same.
    ///
    /// Here and below `in_flight` may be either FlightSize or what is left of it once losses are marked: reductions
    /// start from the most that was in flight during the last two rounds, if that is more, and never from more than the window.
    fn on_loss(&mut self, now: Instant, subflow: SubflowId, in_flight: u64);
    /// The recovery that [`on_loss`](Self::on_loss) began has ended, neither undone nor overtaken by a timeout; `retransmitted` bytes
    /// were sent again in it. Called before the `on_ack` of the ACK that ended it. [`ssthresh`](Self::ssthresh) and
    /// [`window`](Self::window) may be less than before (RFC 7661 §4.4.1).
    fn on_recovered(&mut self, _now: Instant, _subflow: SubflowId, _retransmitted: u64) {}
    /// The peer echoed congestion-experienced (RFC 3168): at most once per window.
    fn on_ecn(&mut self, now: Instant, subflow: SubflowId, in_flight: u64);
    /// The retransmission timer fired for the first time in an episode (RFC 5681 §3.1). The window is then one segment
    /// and grows by slow start, so acknowledgements that follow are not `in_recovery`.
    fn on_rto(&mut self, now: Instant, subflow: SubflowId, in_flight: u64);
    /// The last reduction was for nothing (spurious retransmission): restore what stood before it.
    fn undo(&mut self, now: Instant, subflow: SubflowId);
    /// The scheduler's penalty for a subflow that blocks the shared window (Raiciu et al., NSDI 2012): halve once.
    fn penalise(&mut self, now: Instant, subflow: SubflowId);
    /// Takes `subflow`, just added, over from another algorithm, which left it with this window and slow-start
    /// threshold in bytes. An algorithm that has no use for them starts as on a new path.
    fn resume(&mut self, _subflow: SubflowId, _window: u64, _ssthresh: u64) {}
    /// Congestion window in bytes.
    fn window(&self, subflow: SubflowId) -> u64;
    /// Slow-start threshold in bytes; `u64::MAX` before the first reduction.
    fn ssthresh(&self, subflow: SubflowId) -> u64;
    /// Pacing rate in bytes per second if the algorithm chooses one; otherwise the stack paces by window and RTT.
    fn pacing_rate(&self, _subflow: SubflowId) -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests;

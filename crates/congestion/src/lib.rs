//! Congestion control for umptcp, coupled and single-path.
//!
//! There is one [`CongestionController`] per *connection*. It sees all subflows of the connection, which it
//! needs to couple them (RFC 6356). Loss recovery decides what was lost and when to send; the controller sets
//! windows and pacing rates, in bytes.
//!
//! [`Controller`] implements what all algorithms share: slow start with HyStart++, reductions, undo and the
//! state per subflow. An algorithm implements [`Algorithm`]: the increase in congestion avoidance and, unless
//! it halves the window, the decrease. Each algorithm of this crate is one such file. An algorithm that
//! shares none of this implements [`CongestionController`] directly.
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
pub use lia::Lia;
pub use olia::{Olia, OliaState};
pub use reno::Reno;
pub use wvegas::{WVegas, WVegasState};

use alloc::boxed::Box;
use core::fmt;
use umptcp_types::{Duration, Instant, SubflowId};

/// Congestion control algorithms by name. A program adds its own with
/// [`register`](umptcp_types::Registry::register), an [`Algorithm`] as [`Controller::boxed`].
pub type Registry = umptcp_types::Registry<dyn CongestionController>;

/// The algorithm that a connection uses by default.
pub const DEFAULT_NAME: &str = Lia::NAME;

/// Every algorithm of this crate, the default first. `uncoupled` is Reno under the name that papers on
/// coupled congestion control use for their baseline.
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

/// What an ACK reports about one subflow.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct AckSample {
    /// Bytes newly acknowledged, cumulatively or by SACK.
    pub acked: u64,
    /// Round-trip time measured by this ACK; `None` if it allows no measurement (Karn's algorithm).
    pub rtt: Option<Duration>,
    /// By how much the ACK's way back was longer than at best, at least, as timestamps show (RFC 7323): what of `rtt` is
    /// no queue in the direction of the data.
    pub way_back: Duration,
    /// Smoothed round-trip time (RFC 6298), including this sample.
    pub srtt: Duration,
    /// Minimum round-trip time so far.
    pub min_rtt: Duration,
    /// Bytes in flight after this ACK.
    pub in_flight: u64,
    /// What was sent was limited by the application or the peer's window, not by the congestion window, so
    /// that the congestion window must not grow (RFC 7661).
    pub app_limited: bool,
    /// Packets of the subflow overtake one another by a good part of a round-trip time, so that single
    /// round-trip times say little about queues.
    pub disordered: bool,
    /// The subflow is in loss recovery, during which proportional rate reduction controls sending.
    pub in_recovery: bool,
}

impl AckSample {
    /// An ACK of `acked` bytes that measured no round-trip time, left nothing in flight and was neither
    /// application-limited nor in recovery. `srtt` is also the minimum round-trip time.
    #[inline]
    pub const fn new(acked: u64, srtt: Duration) -> Self {
        AckSample {
            acked,
            rtt: None,
            way_back: Duration::ZERO,
            srtt,
            min_rtt: srtt,
            in_flight: 0,
            app_limited: false,
            disordered: false,
            in_recovery: false,
        }
    }
}

/// Parameters of a new subflow.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SubflowParams {
    /// Sender maximum segment size in bytes, not counting the options that every segment carries.
    pub mss: u32,
    /// Initial window in bytes (RFC 6928: ten segments).
    pub initial_window: u64,
}

impl SubflowParams {
    /// Both values are in bytes.
    pub const fn new(mss: u32, initial_window: u64) -> Self {
        SubflowParams { mss, initial_window }
    }
}

/// The congestion control of one connection.
///
/// Windows are in bytes. The window of an unknown subflow is 0, and calls for it are ignored.
pub trait CongestionController: fmt::Debug + Send {
    /// The name it is registered under.
    fn name(&self) -> &'static str;
    /// A subflow was established and may carry data.
    fn subflow_added(&mut self, now: Instant, subflow: SubflowId, params: SubflowParams);
    /// A subflow no longer exists and must not count in the coupling.
    fn subflow_removed(&mut self, now: Instant, subflow: SubflowId);
    /// The sender maximum segment size changed (path MTU).
    fn mss_changed(&mut self, subflow: SubflowId, mss: u32);
    /// `bytes` were sent. `in_flight` includes them.
    fn on_sent(&mut self, _now: Instant, _subflow: SubflowId, _bytes: u64, _in_flight: u64) {}
    /// An ACK acknowledged new data.
    fn on_ack(&mut self, now: Instant, subflow: SubflowId, ack: &AckSample);
    /// A round trip has ended on `subflow`: the first byte sent after the last call was acknowledged.
    fn on_round(&mut self, _now: Instant, _subflow: SubflowId) {}
    /// Loss was detected and recovery begins. Called once per episode (RFC 5681 §3.2, RFC 6675). Afterwards
    /// both
    /// [`ssthresh`](Self::ssthresh) and [`window`](Self::window) are the target of the recovery.
    ///
    /// Here and below, `in_flight` may be FlightSize before or after lost segments are subtracted. Reductions
    /// start from the maximum in flight during the last two rounds if that is larger, but at most from the
    /// window.
    fn on_loss(&mut self, now: Instant, subflow: SubflowId, in_flight: u64);
    /// The recovery that [`on_loss`](Self::on_loss) started has ended normally: it was not undone and no
    /// timeout interrupted it. `retransmitted` bytes were retransmitted during it. Called before the `on_ack`
    /// of the ACK that ended it. It may lower [`ssthresh`](Self::ssthresh) and [`window`](Self::window) (RFC
    /// 7661 §4.4.1).
    fn on_recovered(&mut self, _now: Instant, _subflow: SubflowId, _retransmitted: u64) {}
    /// The peer echoed a congestion mark (RFC 3168). Called at most once per window.
    fn on_ecn(&mut self, now: Instant, subflow: SubflowId, in_flight: u64);
    /// The retransmission timer fired for the first time in an episode (RFC 5681 §3.1). The window becomes
    /// one segment and grows by slow start, so the ACKs that follow are not marked `in_recovery`.
    fn on_rto(&mut self, now: Instant, subflow: SubflowId, in_flight: u64);
    /// The last reduction was caused by a spurious retransmission. Restores the state before it.
    fn undo(&mut self, now: Instant, subflow: SubflowId);
    /// The timeout that [`on_rto`](Self::on_rto) told of was a silence of the path's: for a time nothing of a
    /// window got through, while other subflows delivered or none did for a second, and now something is acknowledged. An algorithm may
    /// raise [`ssthresh`](Self::ssthresh) towards what it knew of the path.
    fn on_silence_over(&mut self, _now: Instant, _subflow: SubflowId) {}
    /// Halves the window of a subflow that blocks the shared window (Raiciu et al., NSDI 2012).
    fn penalise(&mut self, now: Instant, subflow: SubflowId);
    /// Takes over `subflow`, which was just added, from another algorithm, with the window and slow-start
    /// threshold that it had there. An algorithm that cannot use them starts as on a new path.
    fn resume(&mut self, _subflow: SubflowId, _window: u64, _ssthresh: u64) {}
    /// Congestion window in bytes.
    fn window(&self, subflow: SubflowId) -> u64;
    /// Slow-start threshold in bytes; `u64::MAX` before the first reduction.
    fn ssthresh(&self, subflow: SubflowId) -> u64;
    /// Pacing rate in bytes per second. `None` lets the stack derive the rate from the window and RTT.
    fn pacing_rate(&self, _subflow: SubflowId) -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests;

//! Plain TCP around an algorithm.
//!
//! - Slow start by bytes acknowledged (RFC 5681 §3.1), the first one with HyStart++ (RFC 9406).
//! - Reductions: ssthresh from what was in flight, at least two segments; the window to ssthresh after loss, to one
//!   segment after a timeout (RFC 5681). How recovery gets there is its own business (RFC 6937).
//! - Nothing grows while something other than the window limits the subflow. Instead of restarting after an idle RTO
//!   (RFC 5681 §4.1) a window is kept, since sending is paced; but a loss while it stands unused is answered from what was used, and
//!   every five minutes of that cost half of it (RFC 7661).
//! - Undo of the last reduction (RFC 9438 §4.9); the penalty for blocking the shared window.

use crate::{AckSample, Congestion, CongestionController, Flow, SubflowParams};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use umptcp_types::{Instant, SubflowId};

/// What one algorithm does differently from another.
///
/// `flows` are all subflows of the connection and `i` is the one that is meant. Only [`increase`](Self::increase) is
/// required; without more the algorithm halves on congestion and keeps no state per subflow.
///
/// Scalable TCP, for instance, coupled by doing as if all subflows were one:
///
/// ```
/// use umptcp_congestion::{Algorithm, Congestion, Controller, Flow};
///
/// #[derive(Debug, Default)]
/// struct Scalable;
///
/// impl Algorithm for Scalable {
///     const NAME: &'static str = "scalable";
///     type State = ();
///
///     fn increase(&mut self, flows: &mut [Flow<()>], i: usize, acked: f64) -> f64 {
///         let total: f64 = flows.iter().map(Flow::window_in_use).sum();
///         0.01 * acked * flows[i].cwnd / total
///     }
///
///     fn decrease(&mut self, _: &mut [Flow<()>], _: usize, used: f64, why: Congestion) -> f64 {
///         if why == Congestion::Timeout { used / 2.0 } else { 0.875 * used }
///     }
/// }
///
/// let mut registry = umptcp_congestion::built_in();
/// registry.register(Scalable::NAME, Controller::<Scalable>::boxed);
/// assert_eq!(registry.create("scalable").unwrap().name(), "scalable");
/// ```
pub trait Algorithm: Default + fmt::Debug + Send + 'static {
    /// The name under which the registry knows it.
    const NAME: &'static str;
    /// Whether the first slow start uses HyStart++ (RFC 9406).
    const HYSTART: bool = true;
    /// What it keeps per subflow. A reduction that is undone takes this back, too.
    type State: Clone + Default + fmt::Debug + Send;

    /// Congestion avoidance: the bytes by which the window of `flows[i]` changes when `acked` bytes (at most a window)
    /// were acknowledged. Not called in slow start, in recovery, or when the subflow did not use its window.
    fn increase(&mut self, flows: &mut [Flow<Self::State>], i: usize, acked: f64) -> f64;

    /// Congestion: the window in bytes that `flows[i]` is to have, given that `used` bytes of it were in use. After a
    /// timeout it is the new threshold only, and not even that when recovery has already reduced the same window.
    fn decrease(&mut self, flows: &mut [Flow<Self::State>], i: usize, used: f64, why: Congestion) -> f64 {
        let _ = (flows, i, why);
        used / 2.0
    }

    /// The least slow-start threshold in segments, given the number of subflows (RFC 5681 §3.1: 2).
    fn least_ssthresh(&self, subflows: usize) -> f64 {
        let _ = subflows;
        2.0
    }

    /// `acked` bytes were acknowledged on `flows[i]`, in whatever state it is; comes before [`increase`](Self::increase).
    fn acked(&mut self, flows: &mut [Flow<Self::State>], i: usize, ack: &AckSample) {
        let _ = (flows, i, ack);
    }

    /// A round trip has ended on `flows[i]`.
    fn round(&mut self, flows: &mut [Flow<Self::State>], i: usize) {
        let _ = (flows, i);
    }

    /// The window of `flows[i]` was halved, not for congestion but because the subflow holds up the others.
    fn penalised(&mut self, flows: &mut [Flow<Self::State>], i: usize) {
        let _ = (flows, i);
    }

    /// Something other than an increase changed: a round ended, a window was reduced or restored, a subflow came or
    /// went. What was computed over all subflows is due to be computed again.
    fn refresh(&mut self) {}
}

/// The [`CongestionController`] made of an [`Algorithm`] and everything in which plain TCP and all algorithms agree.
#[derive(Debug)]
pub struct Controller<A: Algorithm> {
    name: &'static str,
    algorithm: A,
    /// Few, so that a search through them is quicker than any map.
    flows: Vec<Flow<A::State>>,
}

impl<A: Algorithm> Default for Controller<A> {
    fn default() -> Self {
        Controller::named(A::NAME)
    }
}

impl<A: Algorithm> Controller<A> {
    /// A controller that goes by another name than its algorithm's.
    pub fn named(name: &'static str) -> Self {
        Controller { name, algorithm: A::default(), flows: Vec::new() }
    }

    /// A controller to put into a [`Registry`](crate::Registry).
    pub fn boxed() -> Box<dyn CongestionController> {
        Box::new(Self::default())
    }

    fn index(&self, subflow: SubflowId) -> Option<usize> {
        self.flows.iter().position(|f| f.id == subflow)
    }

    fn flow(&self, subflow: SubflowId) -> Option<&Flow<A::State>> {
        self.flows.iter().find(|f| f.id == subflow)
    }

    fn reduce(&mut self, now: Instant, subflow: SubflowId, in_flight: u64, why: Congestion) {
        let Some(i) = self.index(subflow) else { return };
        let unused = match why {
            Congestion::Loss => self.flows[i].lost_unused(now, in_flight),
            Congestion::Ecn | Congestion::Timeout => {
                self.flows[i].congested();
                None
            }
        };
        let used = unused.unwrap_or_else(|| self.flows[i].used_window(in_flight));
        // A timeout in the midst of recovery is about the window that recovery answered already: equation 4 of RFC 5681
        // §3.1, applied to the same FlightSize, gives the same threshold.
        let answered = why == Congestion::Timeout && self.flows[i].in_recovery;
        self.flows[i].remember();
        if let Some(unused) = unused {
            // What was not used is not what congestion was found with, nor what to come back to.
            self.flows[i].cwnd = unused;
        }
        let mut target = self.algorithm.decrease(&mut self.flows, i, used, why);
        if answered {
            target = self.flows[i].ssthresh;
        }
        if let Some(unused) = unused {
            // RFC 7661 §4.4.1: half of it, whatever the algorithm would leave of a window that was in use.
            target = target.min(unused / 2.0);
        }
        let least = self.algorithm.least_ssthresh(self.flows.len());
        let flow = &mut self.flows[i];
        flow.in_recovery = why == Congestion::Loss;
        let ssthresh = target.max(least * flow.mss);
        let cwnd = match why {
            Congestion::Loss => ssthresh,
            // RFC 9438 §4.6, in the spirit of RFC 3168 §6.1.2: marks may bring the window down to one segment.
            Congestion::Ecn => target,
            // RFC 5681 §3.1: the loss window.
            Congestion::Timeout => flow.mss,
        };
        flow.reduced(cwnd, ssthresh);
        self.algorithm.refresh();
    }
}

impl<A: Algorithm> CongestionController for Controller<A> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn subflow_added(&mut self, now: Instant, subflow: SubflowId, params: SubflowParams) {
        self.subflow_removed(now, subflow);
        self.flows.push(Flow::new(now, subflow, params, A::HYSTART));
        self.algorithm.refresh();
    }

    fn subflow_removed(&mut self, _now: Instant, subflow: SubflowId) {
        self.flows.retain(|f| f.id != subflow);
        self.algorithm.refresh();
    }

    fn mss_changed(&mut self, subflow: SubflowId, mss: u32) {
        if let Some(i) = self.index(subflow) {
            self.flows[i].set_mss(mss);
            self.algorithm.refresh();
        }
    }

    fn on_sent(&mut self, now: Instant, subflow: SubflowId, bytes: u64, in_flight: u64) {
        if let Some(i) = self.index(subflow) {
            self.flows[i].note_sent(now, bytes, in_flight);
        }
    }

    fn on_ack(&mut self, now: Instant, subflow: SubflowId, ack: &AckSample) {
        let Some(i) = self.index(subflow) else { return };
        self.flows[i].note_ack(now, ack);
        self.algorithm.acked(&mut self.flows, i, ack);
        if ack.app_limited || ack.in_recovery || ack.acked == 0 {
            return;
        }
        let left = self.flows[i].slow_start(ack.acked as f64);
        if left > 0.0 {
            // No more than a window can be news of one round trip; without the bound an ACK that covers more would
            // raise the window by more than RFC 5681 §3.1 allows per round trip.
            let counted = left.min(self.flows[i].cwnd);
            let change = self.algorithm.increase(&mut self.flows, i, counted);
            self.flows[i].grow(change);
        }
    }

    fn on_round(&mut self, now: Instant, subflow: SubflowId) {
        self.flows.iter_mut().for_each(|f| f.note_silence(now));
        if let Some(i) = self.index(subflow) {
            self.flows[i].note_round(now);
            self.algorithm.round(&mut self.flows, i);
            self.algorithm.refresh();
        }
    }

    fn on_loss(&mut self, now: Instant, subflow: SubflowId, in_flight: u64) {
        self.reduce(now, subflow, in_flight, Congestion::Loss);
    }

    fn on_recovered(&mut self, _now: Instant, subflow: SubflowId, retransmitted: u64) {
        if let Some(i) = self.index(subflow)
            && self.flows[i].recovered(retransmitted)
        {
            self.algorithm.refresh();
        }
    }

    fn on_ecn(&mut self, now: Instant, subflow: SubflowId, in_flight: u64) {
        self.reduce(now, subflow, in_flight, Congestion::Ecn);
    }

    fn on_rto(&mut self, now: Instant, subflow: SubflowId, in_flight: u64) {
        self.reduce(now, subflow, in_flight, Congestion::Timeout);
    }

    fn undo(&mut self, _now: Instant, subflow: SubflowId) {
        if let Some(i) = self.index(subflow)
            && self.flows[i].restore()
        {
            self.algorithm.refresh();
        }
    }

    fn penalise(&mut self, now: Instant, subflow: SubflowId) {
        let Some(i) = self.index(subflow) else { return };
        if self.flows[i].penalise(now) {
            self.algorithm.penalised(&mut self.flows, i);
            self.algorithm.refresh();
        }
    }

    fn resume(&mut self, subflow: SubflowId, window: u64, ssthresh: u64) {
        if let Some(i) = self.index(subflow) {
            self.flows[i].resume(window, ssthresh);
            self.algorithm.refresh();
        }
    }

    fn window(&self, subflow: SubflowId) -> u64 {
        self.flow(subflow).map_or(0, |f| f.cwnd as u64)
    }

    fn ssthresh(&self, subflow: SubflowId) -> u64 {
        // The conversion saturates: infinity becomes u64::MAX.
        self.flow(subflow).map_or(u64::MAX, |f| f.ssthresh as u64)
    }
}

//! What plain TCP does around the algorithm.
//!
//! - Slow start by bytes acknowledged (RFC 5681 §3.1), the first one with HyStart++ (RFC 9406).
//! - Reductions (RFC 5681): ssthresh is set from the bytes in flight, at least two segments. The window
//!   becomes ssthresh after loss and one segment after a timeout. Proportional rate reduction is left to loss
//!   recovery (RFC 6937).
//! - The window does not grow while something else limits the subflow. It is kept after an idle period
//!   instead of being restarted (RFC 5681 §4.1), because sending is paced. After a loss, an unused window is
//!   reduced from the part that was used, and every five minutes without use halve it (RFC 7661).
//! - After a silence of a path slow start leads up to what the path carried before without a queue, not to
//!   half of its window.
//! - Undo of the last reduction (RFC 9438 §4.9), and the penalty for blocking the shared window.

use crate::{AckSample, Congestion, CongestionController, Flow, SubflowParams};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use umptcp_types::{Instant, SubflowId};

/// What distinguishes one algorithm from another.
///
/// `flows` are all subflows of the connection, and `i` is the index of the subflow concerned. Only
/// [`increase`](Self::increase) is required. By default the algorithm halves the window on congestion.
///
/// As an example, Scalable TCP, coupled by treating all subflows as one:
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
    /// The name it is registered under.
    const NAME: &'static str;
    /// Whether the first slow start uses HyStart++ (RFC 9406).
    const HYSTART: bool = true;
    /// State per subflow. Undoing a reduction also restores this.
    type State: Clone + Default + fmt::Debug + Send;

    /// Congestion avoidance: by how many bytes the window of `flows[i]` changes after `acked` bytes (at most
    /// a window) were acknowledged. Not called in slow start, in recovery, or when the subflow did not use
    /// its window.
    fn increase(&mut self, flows: &mut [Flow<Self::State>], i: usize, acked: f64) -> f64;

    /// Congestion: the new window of `flows[i]` in bytes, given that `used` bytes of it were in use. After a
    /// timeout the result only sets the threshold, and is ignored if recovery has already reduced the same
    /// window.
    fn decrease(&mut self, flows: &mut [Flow<Self::State>], i: usize, used: f64, why: Congestion) -> f64 {
        let _ = (flows, i, why);
        used / 2.0
    }

    /// The minimum slow-start threshold in segments, given the number of subflows (RFC 5681 §3.1: 2).
    fn least_ssthresh(&self, subflows: usize) -> f64 {
        let _ = subflows;
        2.0
    }

    /// An ACK arrived for `flows[i]`. Called in every state, before [`increase`](Self::increase).
    fn acked(&mut self, flows: &mut [Flow<Self::State>], i: usize, ack: &AckSample) {
        let _ = (flows, i, ack);
    }

    /// A round trip has ended on `flows[i]`.
    fn round(&mut self, flows: &mut [Flow<Self::State>], i: usize) {
        let _ = (flows, i);
    }

    /// The window of `flows[i]` was halved because the subflow holds up the others, not because of
    /// congestion.
    fn penalised(&mut self, flows: &mut [Flow<Self::State>], i: usize) {
        let _ = (flows, i);
    }

    /// A round ended, a window was reduced or restored, or a subflow was added or removed. Values cached over
    /// all subflows must be recomputed.
    fn refresh(&mut self) {}
}

/// A [`CongestionController`] made of an [`Algorithm`] and the parts that are the same for all algorithms.
#[derive(Debug)]
pub struct Controller<A: Algorithm> {
    name: &'static str,
    algorithm: A,
    /// A connection has few subflows, so a linear search is faster than a map.
    flows: Vec<Flow<A::State>>,
}

impl<A: Algorithm> Default for Controller<A> {
    fn default() -> Self {
        Controller::named(A::NAME)
    }
}

impl<A: Algorithm> Controller<A> {
    /// A controller with a name other than its algorithm's.
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
        // A timeout during recovery concerns the window that recovery has already reduced: equation 4 of RFC
        // 5681 §3.1, applied to the same FlightSize, gives the same threshold.
        let answered = why == Congestion::Timeout && self.flows[i].in_recovery;
        self.flows[i].remember();
        if let Some(unused) = unused {
            // The unused part did not cause the congestion, and an undo must not restore it.
            self.flows[i].cwnd = unused;
        }
        let mut target = self.algorithm.decrease(&mut self.flows, i, used, why);
        if answered {
            target = self.flows[i].ssthresh;
        }
        if let Some(unused) = unused {
            // RFC 7661 §4.4.1: at most half of what was used, even if the algorithm reduces used windows by
            // less.
            target = target.min(unused / 2.0);
        }
        let least = self.algorithm.least_ssthresh(self.flows.len());
        let flow = &mut self.flows[i];
        flow.in_recovery = why == Congestion::Loss;
        let ssthresh = target.max(least * flow.mss);
        let cwnd = match why {
            Congestion::Loss => ssthresh,
            // RFC 9438 §4.6, RFC 3168 §6.1.2: marks can reduce the window to one segment.
            Congestion::Ecn => target,
            // RFC 5681 §3.1: the loss window.
            Congestion::Timeout => flow.mss,
        };
        flow.reduced(cwnd, ssthresh);
        flow.note_timeout(now, (why == Congestion::Timeout && !answered).then_some(used));
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
            // Without this bound, an ACK for more than a window would raise the window by more than RFC 5681
            // §3.1 allows per round trip.
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

    fn on_silence_over(&mut self, now: Instant, subflow: SubflowId) {
        if let Some(i) = self.index(subflow)
            && self.flows[i].restore_threshold(now)
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
        // The cast saturates: infinity becomes u64::MAX.
        self.flow(subflow).map_or(u64::MAX, |f| f.ssthresh as u64)
    }
}

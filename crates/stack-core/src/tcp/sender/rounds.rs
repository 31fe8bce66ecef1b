//! Round trips, and whether the congestion window, not the application, limits what is sent (RFC 7661's
//! question).

use umptcp_congestion::CongestionController;
use umptcp_types::{SubflowId, SubflowOffset};

/// What is known of the present round.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rounds {
    /// The end of the current round, for the controller's `on_round`.
    end: SubflowOffset,
    /// Most bytes in flight in the round for which window use is looked at.
    max_in_flight: u64,
    /// The window was full at some moment of that round.
    full: bool,
    /// When that round ends.
    use_until: SubflowOffset,
}

impl Rounds {
    /// A round begins; it ends when `nxt`, SND.NXT, has been acknowledged.
    pub(super) fn begin(&mut self, nxt: SubflowOffset) {
        self.end = nxt;
    }

    /// The round is over when `ack` has been acknowledged.
    pub(super) fn is_over(&self, ack: SubflowOffset) -> bool {
        ack >= self.end
    }

    /// New data were sent from `start` up to `nxt`; `in_flight` and congestion `window` after that.
    pub(super) fn on_sent(
        &mut self,
        start: SubflowOffset,
        nxt: SubflowOffset,
        in_flight: u64,
        mss: u32,
        window: u64,
    ) {
        if start >= self.use_until {
            (self.max_in_flight, self.full, self.use_until) = (0, false, nxt);
        }
        self.max_in_flight = self.max_in_flight.max(in_flight);
        self.full |= in_flight + u64::from(mss) > window;
    }

    /// The congestion window limited us in this round. In slow start a window used by half may still grow,
    /// because growth per round doubles it.
    pub(super) fn window_limited(&self, cc: &dyn CongestionController, id: SubflowId) -> bool {
        let window = cc.window(id);
        self.full || (window < cc.ssthresh(id) && window < 2 * self.max_in_flight)
    }
}

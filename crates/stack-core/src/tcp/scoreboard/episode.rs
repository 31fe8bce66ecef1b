//! Recovery episodes: what was judged lost, and how far the sender's answer to it is.

use crate::types::SubflowOffset;

/// How far the sender's answer to losses is: its reduced window, and which algorithm sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(in crate::tcp) enum Phase {
    /// No loss is being answered.
    #[default]
    Open,
    /// Fast recovery until everything sent before it began is acknowledged.
    Fast {
        /// SND.NXT when it began.
        until: SubflowOffset,
    },
    /// After a retransmission timeout, until everything sent before it is acknowledged.
    Loss {
        /// SND.NXT when it began.
        until: SubflowOffset,
    },
}

/// Losses that were judged.
#[derive(Clone, Copy, Debug)]
struct Episode {
    /// SND.NXT when they were; the episode ends when that is acknowledged (RFC 6675 §5).
    point: u64,
    /// The retransmission timer expired in it.
    timeout: bool,
}

/// All that is known of recovery.
///
/// Episode and phase usually begin and end together, but not always: a loss found by the ACK that ends a
/// recovery is answered on the next ACK; after an undo, what is still to be sent again is an episode without
/// an answer yet; and a SYN that times out needs no answer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Recovery {
    episode: Option<Episode>,
    phase: Phase,
}

impl Recovery {
    /// Something was judged lost, and not all that had been sent by then is acknowledged.
    pub(super) fn is_on(&self) -> bool {
        self.episode.is_some()
    }

    /// The episode includes a retransmission timeout.
    pub(super) fn timed_out(&self) -> bool {
        self.episode.is_some_and(|e| e.timeout)
    }

    /// Where the episode ends.
    #[cfg(test)]
    pub(super) fn point(&self) -> Option<u64> {
        self.episode.map(|e| e.point)
    }

    /// How far the answer is.
    #[inline]
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// Losses were judged, with `nxt` as SND.NXT. False: the episode of an earlier timeout goes on (RFC 5681
    /// §3.1 reduces once).
    pub(super) fn begin(&mut self, nxt: u64, timeout: bool) -> bool {
        let anew = !self.timed_out();
        self.episode = Some(Episode { point: nxt, timeout });
        anew
    }

    /// Everything below `una` is acknowledged. True: the episode is over.
    pub(super) fn on_ack(&mut self, una: u64) -> bool {
        self.episode.take_if(|e| una >= e.point).is_some()
    }

    /// There is nothing to recover from. The phase stays.
    pub(super) fn forgive(&mut self) {
        self.episode = None;
    }

    /// What was done was needless; `all`: and nothing is left to be sent again.
    pub(super) fn undo(&mut self, all: bool) {
        self.phase = Phase::Open;
        if all {
            self.episode = None;
        }
    }

    /// The sender answers what was judged lost.
    pub(super) fn answer(&mut self, phase: Phase) {
        self.phase = phase;
    }

    /// Everything below `una` is acknowledged. The phase that is over by that.
    pub(super) fn end_phase(&mut self, una: SubflowOffset) -> Option<Phase> {
        match self.phase {
            Phase::Fast { until } | Phase::Loss { until } if una >= until => {
                Some(core::mem::take(&mut self.phase))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_episode_begins_anew_except_after_a_timeout() {
        let mut r = Recovery::default();
        assert!(r.begin(100, false) && r.begin(200, true), "a timeout in fast recovery is news");
        assert!(!r.begin(300, true) && r.timed_out() && r.point() == Some(300));
        assert!(!r.on_ack(299) && r.is_on());
        assert!(r.on_ack(300) && !r.is_on() && !r.on_ack(301));
        assert!(r.begin(400, false));
    }

    #[test]
    fn a_phase_ends_by_itself() {
        let until = SubflowOffset(100);
        let mut r = Recovery::default();
        assert_eq!(r.end_phase(SubflowOffset(500)), None);
        for phase in [Phase::Fast { until }, Phase::Loss { until }] {
            r.begin(100, false);
            r.answer(phase);
            assert_eq!((r.end_phase(SubflowOffset(99)), r.phase()), (None, phase));
            assert_eq!((r.end_phase(until), r.phase(), r.is_on()), (Some(phase), Phase::Open, true));
        }
        r.answer(Phase::Fast { until });
        r.undo(false);
        assert!(r.phase() == Phase::Open && r.is_on(), "something is still to be sent again");
        r.undo(true);
        assert!(!r.is_on());
    }
}

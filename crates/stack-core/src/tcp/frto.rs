//! Forward RTO recovery (RFC 5682 §3, the variant for SACK): whether a retransmission timeout was needless,
//! for a peer without timestamps.
//!
//! With timestamps the first acknowledgement after the timeout already decides this (Eifel, RFC 3522), and
//! nothing needs to be held back, so this runs only without timestamps.

use crate::types::SubflowOffset;

/// New segments sent in step 2b.
const NEW_SEGMENTS: u8 = 2;

/// Where the algorithm stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum Step {
    /// Not running: recovery is conventional.
    #[default]
    Off,
    /// Step 2: the first segment was sent again, and something new must be acknowledged.
    Repeated {
        /// SND.NXT at the timeout.
        point: SubflowOffset,
    },
    /// Step 3: new data are sent instead of what was marked lost, and the next acknowledgement decides.
    Forward {
        /// SND.NXT when step 3 began.
        point: SubflowOffset,
        /// New segments still to be sent.
        left: u8,
    },
}

/// What an acknowledgement decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing yet, or nothing any more.
    Undecided,
    /// What was in flight at the timeout arrives: the timeout was spurious.
    Spurious,
}

/// State of the algorithm for one subflow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Frto {
    step: Step,
}

impl Frto {
    /// Not running.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Step 1: the timer expired and the first segment is sent again. `nxt`: SND.NXT. Must not be called
    /// during loss recovery, unless that was caused by an earlier timeout for the same segment.
    pub(super) fn on_timeout(&mut self, nxt: SubflowOffset) {
        self.step = Step::Repeated { point: nxt };
    }

    /// Recovery goes on in the conventional way.
    pub(super) fn stop(&mut self) {
        self.step = Step::Off;
    }

    /// Step 2: only the first segment was sent again so far.
    pub(super) fn is_repeating(&self) -> bool {
        matches!(self.step, Step::Repeated { .. })
    }

    /// A new segment should be sent before anything else.
    pub(super) fn wants_new_data(&self) -> bool {
        matches!(self.step, Step::Forward { left: 1.., .. })
    }

    /// What was marked lost must not be sent again yet.
    pub(super) fn holds_back(&self) -> bool {
        matches!(self.step, Step::Forward { .. })
    }

    /// A new segment was sent.
    pub(super) fn new_data_sent(&mut self) {
        if let Step::Forward { left, .. } = &mut self.step {
            *left = left.saturating_sub(1);
        }
    }

    /// There is no new segment to be sent, or no window for one. Without any, step 3 cannot decide (RFC 5682
    /// §3.1 step 2b).
    pub(super) fn no_new_data(&mut self) {
        if let Step::Forward { left, .. } = &mut self.step {
            if *left == NEW_SEGMENTS {
                self.step = Step::Off;
            } else {
                *left = 0;
            }
        }
    }

    /// An acknowledgement arrived that was no window update. `ack`: its number; `advanced`: higher than the
    /// last; `highest`: the end of the highest data that it covers, SACK blocks included; `delivered`: bytes
    /// that it is the first to acknowledge; `nxt`: SND.NXT.
    pub(super) fn on_ack(
        &mut self,
        ack: SubflowOffset,
        advanced: bool,
        highest: SubflowOffset,
        delivered: u64,
        nxt: SubflowOffset,
    ) -> Verdict {
        match self.step {
            Step::Off => {}
            // Step 2: only a new cumulative acknowledgement counts, and one of everything decides nothing
            // (2a).
            Step::Repeated { point } if advanced => {
                self.step =
                    if ack >= point { Step::Off } else { Step::Forward { point: nxt, left: NEW_SEGMENTS } };
            }
            Step::Repeated { .. } => {}
            Step::Forward { point, .. } => {
                self.step = Step::Off;
                // Step 3b: sent before the timeout, not sent again since, and yet it arrives.
                if highest <= point && delivered > 0 {
                    return Verdict::Spurious;
                }
            }
        }
        Verdict::Undecided
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Acknowledgements after a timeout with 1..10_001 outstanding: cumulative, highest SACKed, bytes
    /// delivered.
    type Acks = &'static [(u64, u64, u64)];

    #[test]
    fn the_table_of_rfc_5682() {
        let table: [(&str, Acks, Verdict); 8] = [
            ("2: duplicate, then all", &[(1, 3_001, 1_000), (10_001, 10_001, 9_000)], Verdict::Undecided),
            ("2a: everything at once", &[(10_001, 10_001, 10_000)], Verdict::Undecided),
            ("2b, 3b: cumulative", &[(1_001, 1_001, 1_000), (2_001, 2_001, 1_000)], Verdict::Spurious),
            ("2b, 3b: SACK", &[(1_001, 1_001, 1_000), (1_001, 4_001, 1_000)], Verdict::Spurious),
            ("2b, 3a: new data SACKed", &[(1_001, 1_001, 1_000), (1_001, 11_001, 1_000)], Verdict::Undecided),
            ("2b, 3a: mere duplicate", &[(1_001, 1_001, 1_000), (1_001, 1_001, 0)], Verdict::Undecided),
            (
                "3a is final",
                &[(1_001, 1_001, 1_000), (1_001, 1_001, 0), (2_001, 2_001, 1_000)],
                Verdict::Undecided,
            ),
            ("3a: cumulative beyond", &[(1_001, 1_001, 1_000), (11_001, 11_001, 10_000)], Verdict::Undecided),
        ];
        for (name, acks, expected) in table {
            let mut f = Frto::new();
            f.on_timeout(SubflowOffset(10_001));
            let (mut una, mut nxt, mut last) = (1, 10_001, Verdict::Undecided);
            for &(ack, highest, delivered) in acks {
                last = f.on_ack(
                    SubflowOffset(ack),
                    ack > una,
                    SubflowOffset(highest),
                    delivered,
                    SubflowOffset(nxt),
                );
                una = ack;
                while f.wants_new_data() {
                    f.new_data_sent();
                    nxt += 1_000;
                }
            }
            assert_eq!(last, expected, "{name}");
        }
    }

    #[test]
    fn two_new_segments_go_out_and_nothing_lost_meanwhile() {
        // RFC 5682 §3.1 step 2b.
        let mut f = Frto::new();
        f.on_timeout(SubflowOffset(10_001));
        assert!(!f.wants_new_data() && !f.holds_back());
        let step_2 = |f: &mut Frto| {
            f.on_ack(SubflowOffset(1_001), true, SubflowOffset(1_001), 1_000, SubflowOffset(10_001))
        };
        step_2(&mut f);
        assert!(f.wants_new_data() && f.holds_back());
        f.new_data_sent();
        f.new_data_sent();
        assert!(!f.wants_new_data() && f.holds_back());
        // Without any new data: conventional recovery at once; with one segment it goes on.
        f.on_timeout(SubflowOffset(10_001));
        step_2(&mut f);
        f.no_new_data();
        assert!(!f.holds_back());
        f.on_timeout(SubflowOffset(10_001));
        step_2(&mut f);
        f.new_data_sent();
        f.no_new_data();
        assert!(f.holds_back() && !f.wants_new_data());
    }
}

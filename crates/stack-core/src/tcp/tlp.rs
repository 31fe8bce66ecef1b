//! The episode of a tail loss probe (RFC 8985 §7): whether one may be sent, and whether it repaired a loss.
//!
//! Requirement by requirement: `docs/src/conformance-rfc8985.md`.

use crate::types::SubflowOffset;
use core::ops::Range;

/// State of the tail loss probe of one subflow. `rtt::pto` says when it is due, the scoreboard's `tail_probe`
/// what it repeats.
#[derive(Clone, Debug)]
pub(super) struct TailProbe {
    /// TLP.end_seq: SND.NXT after the probe.
    outstanding: Option<SubflowOffset>,
    /// TLP.is_retrans.
    retransmission: bool,
    /// The timestamp that the probe carried.
    stamp: u32,
    /// There was a round-trip time sample since the last probe.
    sampled: bool,
}

impl Default for TailProbe {
    fn default() -> Self {
        Self::new()
    }
}

impl TailProbe {
    /// No probe outstanding; the first one is allowed.
    pub(super) fn new() -> Self {
        TailProbe { outstanding: None, retransmission: false, stamp: 0, sampled: true }
    }

    /// Whether a probe may be sent (RFC 8985 §7.3): none is outstanding, and the round-trip time was measured
    /// since the last, so that probes do not keep SRTT from following a path that became longer.
    pub(super) fn may_send(&self) -> bool {
        self.outstanding.is_none() && self.sampled
    }

    /// Whether a probe awaits its acknowledgement.
    #[cfg(test)]
    pub(super) fn is_outstanding(&self) -> bool {
        self.outstanding.is_some()
    }

    /// A probe was sent; `nxt` is SND.NXT after it. `retransmission`: it repeated old data. `stamp`: its
    /// timestamp.
    pub(super) fn sent(&mut self, nxt: SubflowOffset, retransmission: bool, stamp: u32) {
        self.outstanding = Some(nxt);
        self.retransmission = retransmission;
        self.stamp = stamp;
        self.sampled = false;
    }

    /// A round-trip time was measured.
    pub(super) fn on_rtt_sample(&mut self) {
        self.sampled = true;
    }

    /// Fast recovery or recovery from a timeout begins: the probe is no longer of interest (RFC 8985 §7.1).
    pub(super) fn reset(&mut self) {
        self.outstanding = None;
        self.retransmission = false;
    }

    /// An acknowledgement arrived. True when the probe repaired a loss that nothing else shows: the
    /// controller must then react as to any loss (RFC 8985 §7.4.2).
    ///
    /// `dsack`: its D-SACK block. `duplicate`: it is a duplicate ACK without any SACK block, from a peer that
    /// does without. `echo`: the timestamp it echoes. One from before the probe shows that the original
    /// arrived (RFC 3522 §3.2): where data flow both ways a peer's D-SACK may find no room beside them, and
    /// the RFC's rule would take each probe for a repair.
    pub(super) fn on_ack(
        &mut self,
        ack: SubflowOffset,
        dsack: Option<&Range<SubflowOffset>>,
        duplicate: bool,
        echo: Option<u32>,
    ) -> bool {
        let Some(end) = self.outstanding.filter(|&end| ack >= end) else { return false };
        // Original and probe both arrived when the peer says so; a probe of new data repeats nothing.
        let both_arrived = dsack.is_some_and(|d| d.end == end) || (duplicate && ack == end);
        let original = echo.is_some_and(|e| (e.wrapping_sub(self.stamp) as i32) < 0);
        if !self.retransmission || both_arrived || original {
            self.reset();
            return false;
        }
        // Only an acknowledgement of something later leaves no doubt that no duplicate is still to be
        // reported.
        let repaired = ack > end;
        if repaired {
            self.reset();
        }
        repaired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: SubflowOffset = SubflowOffset(1_000);
    const STAMP: u32 = 5;

    fn probe(retransmission: bool) -> TailProbe {
        let mut t = TailProbe::new();
        t.sent(END, retransmission, STAMP);
        t
    }

    #[test]
    fn one_probe_at_a_time_and_only_after_a_measurement() {
        // RFC 8985 §7.3.
        let mut t = TailProbe::new();
        assert!(t.may_send());
        t.sent(END, true, STAMP);
        assert!(!t.may_send() && t.is_outstanding());
        t.reset();
        assert!(!t.may_send() && !t.is_outstanding());
        t.on_rtt_sample();
        assert!(t.may_send());
    }

    #[test]
    fn what_an_acknowledgement_says_of_a_probe() {
        // RFC 8985 §7.4.2.
        let matching = SubflowOffset(500)..END;
        let other = SubflowOffset(100)..SubflowOffset(200);
        let later = SubflowOffset(1_001);
        for (name, retransmission, ack, dsack, duplicate, repaired, outstanding) in [
            ("below", true, SubflowOffset(999), None, false, false, true),
            ("first acknowledgement", true, END, None, false, false, true),
            ("case 1: reported twice", true, END, Some(&matching), false, false, false),
            ("another D-SACK", true, END, Some(&other), false, false, true),
            ("case 2: duplicate ACK", true, END, None, true, false, false),
            ("later data, no duplicate seen", true, later, None, false, true, false),
            ("later data and D-SACK", true, later, Some(&matching), false, false, false),
            ("probe of new data", false, END, None, false, false, false),
            ("probe of new data, later", false, later, None, false, false, false),
        ] {
            let mut t = probe(retransmission);
            assert_eq!(t.on_ack(ack, dsack, duplicate, None), repaired, "{name}");
            assert_eq!(t.is_outstanding(), outstanding, "{name}");
        }
        assert!(!TailProbe::new().on_ack(later, None, true, None));
    }

    #[test]
    fn an_echo_from_before_the_probe_shows_that_the_original_arrived() {
        let later = SubflowOffset(1_001);
        for (ack, echo, repaired, outstanding) in [
            (END, 4, false, false),
            (later, 4, false, false),
            (END, STAMP, false, true),
            (later, STAMP, true, false),
        ] {
            let mut t = probe(true);
            assert_eq!(t.on_ack(ack, None, false, Some(echo)), repaired, "{ack:?} {echo}");
            assert_eq!(t.is_outstanding(), outstanding, "{ack:?} {echo}");
        }
    }
}

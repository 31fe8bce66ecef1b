//! Proportional rate reduction (RFC 9937, which replaces RFC 6937): how much to send per ACK during recovery.
//!
//! The controller says where the window shall be after recovery (`ssthresh`); this spreads the reduction over
//! one round trip, so that the ACK clock neither stops nor bursts. All quantities are bytes.

/// State of one recovery episode.
#[derive(Clone, Debug, Default)]
pub(super) struct Prr {
    /// `None` outside recovery.
    episode: Option<Episode>,
}

#[derive(Clone, Debug)]
struct Episode {
    ssthresh: u64,
    /// RecoverFS: what could still be delivered when recovery began.
    recover_flight: u64,
    delivered: u64,
    out: u64,
}

impl Prr {
    /// Not in recovery.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Recovery begins.
    ///
    /// `flight` is RFC 9937's RecoverFS: bytes outstanding, lost ones included, without those that had been
    /// SACKed before the ACK that started recovery; the scoreboard's `recovery_flight` computes it.
    /// `ssthresh` is the window the controller wants at the end.
    pub(super) fn enter(&mut self, flight: u64, ssthresh: u64) {
        self.episode = Some(Episode { ssthresh, recover_flight: flight.max(1), delivered: 0, out: 0 });
    }

    /// Whether an episode is in progress.
    #[cfg(test)]
    pub(super) fn is_active(&self) -> bool {
        self.episode.is_some()
    }

    /// An ACK arrived; called for the one that started recovery too. Returns how many bytes may be sent now,
    /// so that the window is `in_flight` plus that.
    ///
    /// `delivered`: bytes newly acknowledged or SACKed. `in_flight`: after this ACK and its loss detection.
    /// `safe`: the cumulative acknowledgement advanced and no further loss was detected (RFC 9937's SafeACK).
    /// Outside recovery the answer is 0. An ACK that delivers nothing allows nothing new: the answer is what
    /// earlier ones left unused.
    ///
    /// The budget is not a whole number of segments; what is not used now is not lost, so waiting until it
    /// covers a full segment avoids sending small ones.
    pub(super) fn on_ack(&mut self, delivered: u64, in_flight: u64, safe: bool, mss: u32) -> u64 {
        let Some(e) = &mut self.episode else { return 0 };
        let mss = u64::from(mss);
        e.delivered = e.delivered.saturating_add(delivered);
        let budget = if in_flight > e.ssthresh {
            let target =
                (u128::from(e.delivered) * u128::from(e.ssthresh)).div_ceil(u128::from(e.recover_flight));
            u64::try_from(target).unwrap_or(u64::MAX).saturating_sub(e.out)
        } else {
            // Packet conservation; slow start only while recovery makes good progress.
            let mut limit = e.delivered.saturating_sub(e.out).max(delivered);
            if safe && delivered > 0 {
                limit = limit.saturating_add(mss);
            }
            limit.min(e.ssthresh - in_flight)
        };
        // RFC 9937: the fast retransmit itself is never held back, nor, counting in bytes, cut short.
        if e.out == 0 { budget.max(mss) } else { budget }
    }

    /// `bytes` were sent or retransmitted during recovery.
    pub(super) fn on_sent(&mut self, bytes: u64) {
        if let Some(e) = &mut self.episode {
            e.out = e.out.saturating_add(bytes);
        }
    }

    /// Recovery ends. Returns the window to continue with, which is `ssthresh`; `None` when there was no
    /// episode.
    pub(super) fn exit(&mut self) -> Option<u64> {
        self.episode.take().map(|e| e.ssthresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const MSS: u32 = 1_000;

    /// RFC 6937 §3.1, first example: one loss in a flight of 20, ssthresh 10. The pipe shrinks by one segment
    /// per two ACKs, and half as much as was delivered is sent.
    #[test]
    fn a_single_loss_halves_the_rate_over_one_round_trip() {
        let mut p = Prr::new();
        assert_eq!(p.on_ack(1_000, 5_000, true, MSS), 0);
        assert!(!p.is_active());
        // Segments 1 and 2 were SACKed before recovery began, which brought two new ones out.
        p.enter(20_000, 10_000);
        let mut in_flight = 18_000u64;
        let mut sent = Vec::new();
        for _ in 0..18 {
            let budget = p.on_ack(1_000, in_flight, false, MSS) / 1_000 * 1_000;
            sent.push(budget / 1_000);
            p.on_sent(budget);
            in_flight = in_flight + budget - 1_000;
        }
        // The retransmission leaves at once, then one segment for every two delivered.
        assert_eq!(&sent[..8], &[1, 0, 0, 1, 0, 1, 0, 1]);
        assert!((9_000..=10_000).contains(&in_flight), "{in_flight}");
        assert_eq!(p.exit(), Some(10_000));
        assert_eq!(p.exit(), None);
    }

    /// RFC 6937 §3.1, second example: 15 of 20 lost. In flight is below ssthresh, so slow start is allowed on
    /// safe ACKs.
    #[test]
    fn heavy_loss_conserves_packets_and_slow_starts_on_safe_acks() {
        let mut p = Prr::new();
        p.enter(20_000, 10_000);
        assert_eq!(p.on_ack(1_000, 4_000, false, MSS), 1_000);
        p.on_sent(1_000);
        assert_eq!(p.on_ack(1_000, 4_000, true, MSS), 2_000);
        p.on_sent(2_000);
        assert_eq!(p.on_ack(1_000, 5_000, true, MSS), 2_000);
        // Never beyond ssthresh.
        assert_eq!(p.on_ack(9_000, 9_500, true, MSS), 500);
        assert_eq!(p.on_ack(9_000, 10_000, true, MSS), 0);
    }

    #[test]
    fn the_first_retransmission_is_never_held_back() {
        let mut p = Prr::new();
        p.enter(20_000, 10_000);
        assert_eq!(p.on_ack(0, 19_000, false, MSS), 1_000);
        p.on_sent(1_000);
        assert_eq!(p.on_ack(0, 19_000, false, MSS), 0);
    }

    #[test]
    fn an_ack_that_delivers_nothing_neither_adds_nor_takes() {
        let mut p = Prr::new();
        p.enter(20_000, 10_000);
        p.on_sent(1_000);
        assert_eq!(p.on_ack(6_000, 14_000, false, MSS), 2_000);
        assert_eq!(p.on_ack(0, 14_000, true, MSS), 2_000);
        p.on_sent(2_000);
        assert_eq!(p.on_ack(0, 14_000, true, MSS), 0);
        // Below ssthresh likewise.
        assert_eq!(p.on_ack(1_000, 4_000, true, MSS), 5_000);
        assert_eq!(p.on_ack(0, 4_000, true, MSS), 4_000);
    }

    #[test]
    fn extreme_values_do_not_panic() {
        let mut p = Prr::new();
        p.enter(0, u64::MAX);
        for v in [0, 1, u64::MAX] {
            p.on_ack(v, v, true, u32::MAX);
            p.on_sent(v);
        }
        p.enter(u64::MAX, 0);
        p.on_ack(u64::MAX, u64::MAX, false, 0);
    }
}

//! Probes for larger packets (RFC 4821 §7.4 to §7.6): when one may go, and what becomes of one that is lost. Which size, and when to
//! search at all, is [`pmtu`](super::pmtu)'s to say.

use super::scoreboard::Fate;
use super::{Recovery, Tcp};
use core::fmt::Debug;
use core::ops::Range;
use umptcp_congestion::CongestionController;
use umptcp_types::{Duration, Instant, SubflowOffset};

/// Packets that must be able to follow a probe, so that its loss is seen without a timeout (RFC 4821 §7.4).
const FOLLOWERS: u64 = 3;
/// Least time after a lost probe until the next (RFC 8899 §5.1.1: PROBE_TIMER).
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// A probe that may be sent now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SizeProbe {
    /// Its size, as the MSS option counts.
    pub(crate) size: u32,
    /// Its payload.
    pub(crate) payload: u64,
}

impl<M: Copy + Debug> Tcp<M> {
    /// The probe that should be the next segment of new data (RFC 4821 §7.4), once the windows have room for it. `packet`: payload of an
    /// ordinary one; `enough`: how much the application and the connection's window have for it and for what follows.
    pub(crate) fn size_probe(
        &self,
        now: Instant,
        cc: &dyn CongestionController,
        packet: u32,
        enough: u64,
    ) -> Option<SizeProbe> {
        let size = self.pmtu.probe_due(now)?;
        let payload = u64::from(packet + (size - self.send_mss));
        let quiet = self.recovery == Recovery::Open
            && self.board.lost_bytes() == 0
            && self.board.sacked_bytes() == 0
            && !self.probe_wanted;
        // Without SACK a loss is not told from others.
        let may = self.sack && quiet;
        // A size that the path has carried before is not held back by a window too small for followers, as where losses are heavy it
        // may stay for ever.
        let followers = if self.pmtu.has_carried(size) { 0 } else { FOLLOWERS };
        let needed = payload + followers * u64::from(packet);
        // What follows may have to wait for acknowledgements of what went before.
        let window = (self.send_edge - self.board.una()).min(cc.window(self.id));
        (may && window.min(enough) >= needed).then_some(SizeProbe { size, payload })
    }

    /// The search for the largest packet that passes wants a probe now.
    pub(crate) fn size_probe_due(&self, now: Instant) -> bool {
        self.pmtu.probe_due(now).is_some()
    }

    /// How many probes have failed since the last call.
    pub(crate) fn take_failed_size_probes(&mut self) -> u32 {
        self.pmtu.take_failures()
    }

    /// The new data that follow offset `start` were sent as that probe.
    pub(crate) fn size_probe_sent(&mut self, now: Instant, start: SubflowOffset, probe: SizeProbe) {
        self.pmtu.on_probe_sent(now, start..start + probe.payload, probe.size);
    }

    /// What starts at `start` is a probe: it goes in a single packet.
    pub(crate) fn is_size_probe(&self, start: SubflowOffset) -> bool {
        self.pmtu.probe().is_some_and(|range: Range<SubflowOffset>| range.start == start)
    }

    /// Looks whether a probe is among what is lost now. True: nothing else is, which is no sign of congestion (RFC 4821 §7.6.2). It is
    /// sent again as soon as the window allows, and the recovery that the scoreboard has begun for it is none.
    pub(super) fn lost_only_size_probe(&mut self, now: Instant, cc: &dyn CongestionController) -> bool {
        let Some(range) = self.pmtu.probe() else { return false };
        match self.board.fate(&range) {
            Fate::NotLost => {
                // It was sent again, and something else is lost now.
                if self.pmtu.is_probe_lost() && self.board.lost_bytes() > 0 {
                    self.pmtu.on_probe_inconclusive(now);
                }
                false
            }
            Fate::LostAlone if self.recovery == Recovery::Open => {
                self.pmtu.on_probe_lost(self.size_probe_pause(cc));
                self.board.forgive();
                true
            }
            Fate::LostAlone | Fate::LostWithOthers => {
                self.pmtu.on_probe_inconclusive(now);
                false
            }
        }
    }

    /// How long no probe may be sent after one was lost: as long as it takes until congestion would show itself by a loss, for which
    /// RFC 4821 §7.6.2 takes as many round trips as the window has packets.
    pub(super) fn size_probe_pause(&self, cc: &dyn CongestionController) -> Duration {
        let packets = cc.window(self.id) / u64::from(self.send_mss.max(1));
        let packets = u32::try_from(packets).unwrap_or(u32::MAX);
        self.rtt.srtt().unwrap_or(LEAST_PAUSE).saturating_mul(packets).max(LEAST_PAUSE)
    }
}

//! The size of packets: probes for larger ones (RFC 4821 §7.4 to §7.6), and changes of the size.
//! [`pmtu`](crate::tcp::pmtu) decides which sizes to probe and when to search.

use super::half::{Moment, Sender};
use crate::tcp::pmtu::Claim;
use crate::tcp::scoreboard::Phase;
use crate::tcp::timers::{Timer, Timers};
use core::fmt::Debug;
use core::ops::Range;
use umptcp_congestion::CongestionController;
use umptcp_types::{Duration, Instant, SubflowOffset};

/// Packets that must be able to follow a probe, so that its loss is seen without a timeout (RFC 4821 §7.4).
const FOLLOWERS: u64 = 3;
/// Least time after a lost probe until the next (RFC 8899 §5.1.1: PROBE_TIMER).
const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// Bytes that the timestamps option takes of each packet.
const TIMESTAMPS_LEN: u32 = 12;

/// A probe that may be sent now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SizeProbe {
    /// Its size, as the MSS option counts.
    pub(crate) size: u32,
    /// Its payload.
    pub(crate) payload: u64,
}

/// An ICMP message that says that a packet was too big.
#[derive(Clone, Copy, Debug)]
pub(in crate::tcp) struct TooBig {
    /// The offset it quotes, which is outstanding.
    pub(in crate::tcp) at: SubflowOffset,
    /// Size of what it quotes.
    pub(in crate::tcp) quoted: u32,
    /// What would fit, if it says so. Both as the MSS option counts.
    pub(in crate::tcp) fits: Option<u32>,
}

impl<M: Copy + Debug> Sender<M> {
    /// The probe that should be the next segment of new data (RFC 4821 §7.4), once the windows have room for
    /// it. `packet`: payload of an ordinary one; `enough`: how much the application and the connection's
    /// window have for it and for what follows.
    pub(in crate::tcp) fn size_probe(
        &self,
        m: Moment,
        cc: &dyn CongestionController,
        packet: u32,
        enough: u64,
    ) -> Option<SizeProbe> {
        let size = self.pmtu.probe_due(m.now)?;
        let payload = u64::from(packet + (size - self.mss()));
        let quiet = self.board.phase() == Phase::Open
            && self.board.lost_bytes() == 0
            && self.board.sacked_bytes() == 0
            && !self.due.tail_probe;
        // Without SACK the loss of a probe cannot be told from other losses.
        let may = m.sack && quiet;
        // A size that the path has carried before needs no followers: with heavy losses the window may never
        // have room for them.
        let followers = if self.pmtu.has_carried(size) { 0 } else { FOLLOWERS };
        let needed = payload + followers * u64::from(packet);
        // What follows may have to wait for acknowledgements of what went before.
        let window = (self.window.edge() - self.board.una()).min(cc.window(self.id));
        (may && window.min(enough) >= needed).then_some(SizeProbe { size, payload })
    }

    /// The search for the largest packet that passes wants a probe now.
    pub(in crate::tcp) fn size_probe_due(&self, now: Instant) -> bool {
        self.pmtu.probe_due(now).is_some()
    }

    /// How many probes have failed since the last call.
    pub(in crate::tcp) fn take_failed_size_probes(&mut self) -> u32 {
        self.pmtu.take_failures()
    }

    /// Probes have failed since then.
    pub(in crate::tcp) fn has_failed_size_probes(&self) -> bool {
        self.pmtu.has_failures()
    }

    /// The new data that follow offset `start` were sent as that probe.
    pub(in crate::tcp) fn size_probe_sent(&mut self, now: Instant, start: SubflowOffset, probe: SizeProbe) {
        self.pmtu.on_probe_sent(now, start..start + probe.payload, probe.size);
    }

    /// What starts at `start` is a probe: it goes in a single packet.
    pub(in crate::tcp) fn is_size_probe(&self, start: SubflowOffset) -> bool {
        self.pmtu.probe().is_some_and(|range: Range<SubflowOffset>| range.start == start)
    }

    /// How long no probe may be sent after one was lost: as long as it takes until congestion would show
    /// itself by a loss, for which RFC 4821 §7.6.2 takes as many round trips as the window has packets.
    pub(super) fn size_probe_pause(&self, cc: &dyn CongestionController) -> Duration {
        let packets = cc.window(self.id) / u64::from(self.mss().max(1));
        let packets = u32::try_from(packets).unwrap_or(u32::MAX);
        self.rtt.srtt().unwrap_or(LEAST_PAUSE).saturating_mul(packets).max(LEAST_PAUSE)
    }

    /// Packets carry `mss` bytes of payload and options from now on.
    pub(super) fn packet_size_changed(&mut self, m: Moment, mss: u32, cc: &mut dyn CongestionController) {
        self.board.set_mss(mss);
        self.pacer.set_mss(mss);
        // The same payload as the controller was told of at first.
        let options = if m.timestamps { TIMESTAMPS_LEN } else { 0 };
        cc.mss_changed(self.id, mss.saturating_sub(options).max(1));
    }

    /// An ICMP message says that a packet was too big. True: packets are smaller from now on.
    pub(in crate::tcp) fn on_too_big(
        &mut self,
        m: Moment,
        icmp: TooBig,
        timers: &mut Timers,
        cc: &mut dyn CongestionController,
    ) -> bool {
        match self.pmtu.on_too_big(m.now, icmp.at, icmp.quoted, icmp.fits) {
            Claim::Obey(mss) => {
                self.packet_size_changed(m, mss, cc);
                self.resend_in_smaller_packets(timers);
                true
            }
            Claim::Doubt | Claim::Ignore => false,
        }
    }

    /// What is in flight is dropped by the path as too large. It is sent again at once; this is no sign of
    /// congestion (RFC 1191 §6.5, RFC 8201 §5.4).
    fn resend_in_smaller_packets(&mut self, timers: &mut Timers) {
        self.recovery.frto.stop();
        self.recovery.tail.reset();
        self.due.tail_probe = false;
        timers.stop(Timer::TailProbe);
        self.board.mark_all_lost();
        self.board.close_undo();
        if self.board.phase() == Phase::Open {
            self.board.begin_timeout_recovery();
        }
        self.due.first = true;
    }
}

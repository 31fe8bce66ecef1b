//! ICMP errors about a subflow's segments, believed as far as RFC 5927 advises.

use super::pmtu::Claim;
use super::{Recovery, State, Tcp};
use crate::wire::icmp::{IcmpCause, IcmpError};
use crate::wire::ip;
use core::fmt::Debug;
use umptcp_congestion::CongestionController;
use umptcp_types::{Instant, SubflowOffset};

/// What an ICMP error brought about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IcmpOutcome {
    /// It quotes nothing that is outstanding: perhaps forged (RFC 5927 §4.1).
    OutOfWindow,
    /// Noted, no more: an error in the midst of a connection may pass, or be forged (RFC 5927 §5.2).
    Noted,
    /// The handshake fails.
    Refused,
    /// Packets are smaller from now on.
    Smaller,
}

impl<M: Copy + Debug> Tcp<M> {
    /// An ICMP error about a segment of this subflow.
    pub(crate) fn on_icmp(
        &mut self,
        now: Instant,
        error: &IcmpError,
        cc: &mut dyn CongestionController,
    ) -> IcmpOutcome {
        let una = self.board.una();
        let at = SubflowOffset::from_wire(error.seq, self.config.isn, una);
        let Some(at) = at.filter(|at| una <= *at && *at < self.board.nxt()) else {
            return IcmpOutcome::OutOfWindow;
        };
        if let IcmpCause::PacketTooBig { mtu } = error.cause {
            if !self.is_synchronized() {
                return IcmpOutcome::Noted;
            }
            let headers = ip::ip_header_len(&self.tuple.local.ip()) as u32 + 20;
            let quoted = (error.quoted_len as u32).saturating_sub(headers);
            let fits = mtu.map(|m| m.saturating_sub(headers));
            return match self.pmtu.on_too_big(now, at, quoted, fits) {
                Claim::Obey(mss) => {
                    self.set_packet_size(mss, cc);
                    self.resend_in_smaller_packets();
                    IcmpOutcome::Smaller
                }
                Claim::Doubt | Claim::Ignore => IcmpOutcome::Noted,
            };
        }
        self.last_icmp = Some(error.cause);
        let unreachable = matches!(
            error.cause,
            IcmpCause::NetworkUnreachable
                | IcmpCause::HostUnreachable
                | IcmpCause::ProtocolUnreachable
                | IcmpCause::PortUnreachable
                | IcmpCause::Prohibited
        );
        // RFC 1122 §4.2.3.9 calls some of these soft even then; as RFC 5461 §4.1 describes of most systems, a connection that is only being
        // opened is given up for them, so that the next address can be tried.
        if self.state() == State::SynSent && unreachable { IcmpOutcome::Refused } else { IcmpOutcome::Noted }
    }

    /// Packets carry `mss` bytes of payload and options from now on.
    pub(super) fn set_packet_size(&mut self, mss: u32, cc: &mut dyn CongestionController) {
        self.send_mss = mss;
        self.board.set_mss(mss);
        self.pacer.set_mss(mss);
        // The same payload as the controller was told of at first.
        let payload = self.packet_payload(if self.timestamps { 12 } else { 0 });
        cc.mss_changed(self.id, payload);
    }

    /// What is in flight was too large for the path and is dropped there: it goes again at once, which is no sign of congestion
    /// (RFC 1191 §6.5, RFC 8201 §5.4).
    fn resend_in_smaller_packets(&mut self) {
        self.frto.stop();
        self.tail.reset();
        self.probe_wanted = false;
        self.timers.tail_probe = None;
        self.board.mark_all_lost();
        self.board.close_undo();
        if self.recovery == Recovery::Open {
            self.recovery = Recovery::Loss { until: self.board.nxt() };
        }
        self.resend_first = true;
    }
}

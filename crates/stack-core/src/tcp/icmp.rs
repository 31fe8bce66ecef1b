//! ICMP errors about a subflow's segments, trusted as far as RFC 5927 advises.

use super::control_block::Tcp;
use super::sender::packet_size::TooBig;
use super::state::State;
use crate::wire::icmp::{IcmpCause, IcmpError, Unreachable};
use crate::wire::ip;
use core::fmt::Debug;
use umptcp_congestion::CongestionController;
use umptcp_types::Instant;

/// Length of a TCP header without options.
const TCP_HEADER: u32 = 20;

/// What an ICMP error brought about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IcmpOutcome {
    /// It quotes nothing that is outstanding: perhaps forged (RFC 5927 §4.1).
    OutOfWindow,
    /// Ignored.
    Noted,
    /// What is outstanding does not get through now. During a connection that may be temporary, or forged
    /// (RFC 5927 §5.2), so the subflow lives on.
    Hindered,
    /// The handshake fails.
    Refused(Unreachable),
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
        let at = self.sender.offset_of(error.seq);
        let Some(at) = at.filter(|at| self.sender.una() <= *at && *at < self.sender.nxt()) else {
            return IcmpOutcome::OutOfWindow;
        };
        if let IcmpCause::PacketTooBig { mtu } = error.cause {
            if !self.is_synchronized() {
                return IcmpOutcome::Noted;
            }
            let headers = ip::ip_header_len(&self.tuple.local.ip()) as u32 + TCP_HEADER;
            let quoted = (error.quoted_len as u32).saturating_sub(headers);
            let fits = mtu.map(|m| m.saturating_sub(headers));
            let icmp = TooBig { at, quoted, fits };
            let believed = self.sender.on_too_big(self.moment(now), icmp, &mut self.timers, cc);
            return if believed { IcmpOutcome::Smaller } else { IcmpOutcome::Noted };
        }
        // RFC 1122 §4.2.3.9 calls some of these soft even then; as RFC 5461 §4.1 describes of most systems, a
        // connection that is only being opened is given up for them, so that the next address can be tried.
        match error.unreachable() {
            Some(why) if self.state() == State::SynSent => IcmpOutcome::Refused(why),
            Some(_) if self.is_synchronized() => IcmpOutcome::Hindered,
            _ => IcmpOutcome::Noted,
        }
    }
}

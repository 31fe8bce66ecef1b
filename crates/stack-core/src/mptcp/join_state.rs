//! How far a subflow's MPTCP handshake is (RFC 8684 §3.2).
//!
//! By example: `docs/src/by-example/join.md`.

use umptcp_types::{Duration, Instant};

/// From the third ACK of a join to the first data on its subflow.
///
/// RFC 8684 §3.2 has data wait for the answer to that ACK. Linux 6.18 as a server answers before the subflow
/// belongs to its connection; that follows when its program lets go of the socket, and data that have come by
/// then are delivered where the connection's stream stands, or dropped as duplicates. Few system calls hold a
/// socket for so long. Where the round-trip time is longer than this nothing waits.
const SETTLE: Duration = Duration::from_millis(10);
/// First interval between third ACKs that nobody answers; doubles.
const ACK_RESEND: Duration = Duration::from_millis(200);
/// Third ACKs sent before the subflow is given up.
const ACK_TRIES: u8 = 6;

/// The steps of the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Join {
    /// The subflow that began the connection: MP_CAPABLE, not MP_JOIN.
    Initial,
    /// We sent a SYN with MP_JOIN.
    SynSent { nonce: u32 },
    /// We sent the third ACK and wait for any answer (PRE_ESTABLISHED, RFC 8684 §3.2).
    AckSent {
        hmac: [u8; 20],
        /// When to send it again.
        resend: Instant,
        tries: u8,
    },
    /// We answered a SYN with MP_JOIN.
    SynReceived { nonce: u32, peer_nonce: u32 },
    /// Both HMACs are verified.
    Joined,
}

/// How far a subflow's MPTCP handshake is, and who began it.
#[derive(Debug)]
pub(crate) struct JoinState {
    step: Join,
    /// The peer opened it.
    incoming: bool,
    /// When data may go out on a subflow that we joined.
    data_from: Instant,
}

impl JoinState {
    pub(crate) fn new(step: Join) -> Self {
        let incoming = matches!(step, Join::SynReceived { .. });
        JoinState { step, incoming, data_from: Instant::ZERO }
    }

    pub(crate) fn step(&self) -> Join {
        self.step
    }

    /// It began the connection.
    pub(crate) fn is_initial(&self) -> bool {
        self.step == Join::Initial
    }

    /// It may carry data, as far as its handshake goes (RFC 8684 §3.2: none while PRE_ESTABLISHED).
    #[inline]
    pub(crate) fn is_joined(&self) -> bool {
        matches!(self.step, Join::Initial | Join::Joined)
    }

    /// The peer opened it with MP_JOIN.
    pub(crate) fn is_incoming(&self) -> bool {
        self.incoming
    }

    /// Our SYN with MP_JOIN has not been answered.
    pub(crate) fn is_syn_sent(&self) -> bool {
        matches!(self.step, Join::SynSent { .. })
    }

    /// We answered a SYN with MP_JOIN, and the third ACK is outstanding.
    pub(crate) fn is_half_open(&self) -> bool {
        matches!(self.step, Join::SynReceived { .. })
    }

    /// We sent the third ACK, and no answer has come.
    pub(crate) fn is_ack_sent(&self) -> bool {
        matches!(self.step, Join::AckSent { .. })
    }

    /// We opened it, and the handshake is not through.
    pub(crate) fn is_ours_and_open(&self) -> bool {
        self.is_syn_sent() || self.is_ack_sent()
    }

    /// When data may go out.
    #[inline]
    pub(crate) fn data_from(&self) -> Instant {
        self.data_from
    }

    /// The peer's SYN crossed ours (RFC 8684 §3.9.2): each end answers the other's.
    pub(crate) fn on_crossing_syn(&mut self, nonce: u32, peer_nonce: u32) {
        self.step = Join::SynReceived { nonce, peer_nonce };
    }

    /// The SYN/ACK is right: the third ACK goes out with `hmac`, and again while nobody answers.
    pub(crate) fn on_syn_ack(&mut self, now: Instant, hmac: [u8; 20], rto: Duration) {
        self.step = Join::AckSent { hmac, resend: now + ACK_RESEND.max(rto), tries: 1 };
        self.data_from = now + SETTLE;
    }

    /// The handshake is through.
    pub(crate) fn on_joined(&mut self) {
        self.step = Join::Joined;
    }

    /// When the third ACK is sent again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.step {
            Join::AckSent { resend, .. } => Some(resend),
            _ => None,
        }
    }

    /// The third ACK is sent again if its time has come: `Some(true)`. `Some(false)`: it has been sent often
    /// enough.
    pub(crate) fn on_time(&mut self, now: Instant) -> Option<bool> {
        let Join::AckSent { resend, tries, .. } = &mut self.step else { return None };
        if *resend > now {
            return None;
        }
        if *tries >= ACK_TRIES {
            return Some(false);
        }
        *resend = now + ACK_RESEND.saturating_mul(1 << *tries);
        *tries += 1;
        self.data_from = now + SETTLE;
        Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_ack_is_repeated_until_answered_or_given_up() {
        let mut now = Instant::ZERO;
        let mut j = JoinState::new(Join::SynSent { nonce: 1 });
        assert!(j.is_ours_and_open() && !j.is_incoming() && j.deadline().is_none());
        j.on_syn_ack(now, [7; 20], Duration::ZERO);
        assert!(j.is_ack_sent() && !j.is_joined());
        for tries in 1..ACK_TRIES {
            now = j.deadline().unwrap_or(now);
            assert_eq!(j.on_time(now), Some(true));
            assert_eq!(j.deadline(), Some(now + ACK_RESEND.saturating_mul(1 << tries)));
            assert_eq!(j.data_from(), now + SETTLE);
            assert_eq!(j.on_time(now), None);
        }
        assert_eq!(j.deadline().and_then(|t| j.on_time(t)), Some(false));
        j.on_joined();
        assert!(j.is_joined() && j.on_time(now).is_none());
    }

    #[test]
    fn a_crossing_syn_makes_it_half_open_but_not_the_peers() {
        let mut j = JoinState::new(Join::SynSent { nonce: 1 });
        j.on_crossing_syn(1, 2);
        assert!(j.is_half_open() && !j.is_incoming());
        assert!(JoinState::new(Join::SynReceived { nonce: 1, peer_nonce: 2 }).is_incoming());
    }
}

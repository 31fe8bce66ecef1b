//! Explicit congestion notification (RFC 3168 §6.1): what one subflow has negotiated, seen and owes.

use crate::config::Ecn;
use crate::types::SubflowOffset;
use crate::wire::tcp::TcpFlags;

/// State of one subflow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EcnState {
    /// Both ends agreed to it.
    enabled: bool,
    /// Our SYN asked for it.
    requested: bool,
    /// A packet was marked: ECE goes out on every ACK until the peer says CWR.
    echo: bool,
    /// Our window was reduced: CWR goes out with the next new data.
    reduced: bool,
    /// ECE in ACKs up to here is about the reduction that was made (RFC 3168 §6.1.2: once per window of
    /// data).
    answered: Option<SubflowOffset>,
}

impl EcnState {
    /// Both ends agreed to it.
    pub(super) fn enabled(&self) -> bool {
        self.enabled
    }

    /// Sets the flags of our SYN. A SYN that is retransmitted does not ask for ECN: some middleboxes drop
    /// such SYNs (RFC 3168 §6.1.1.1).
    pub(super) fn mark_syn(&mut self, config: Ecn, again: bool, flags: &mut TcpFlags) {
        self.requested = config == Ecn::Request && !again;
        flags.ece = self.requested;
        flags.cwr = self.requested;
    }

    /// The flags of our SYN/ACK.
    pub(super) fn mark_syn_ack(&self, flags: &mut TcpFlags) {
        flags.ece = self.enabled;
        flags.cwr = false;
    }

    /// The peer's SYN or SYN/ACK.
    pub(super) fn on_syn(&mut self, config: Ecn, flags: TcpFlags) {
        self.enabled = if flags.ack {
            // A peer that reflects reserved bits sets both.
            self.requested && flags.ece && !flags.cwr
        } else {
            config != Ecn::Off && flags.ece && flags.cwr
        };
    }

    /// A segment with payload arrived. `marked`: its packet carried CE. Returns true if the peer has not been
    /// told yet.
    pub(super) fn on_data(&mut self, marked: bool, flags: TcpFlags) -> bool {
        if !self.enabled {
            return false;
        }
        if flags.cwr {
            self.echo = false;
        }
        let news = marked && !self.echo;
        self.echo |= marked;
        news
    }

    /// An ACK arrived. Returns whether it calls for a reduction of the window now. `recovering`: the window
    /// was already reduced for a loss, and that recovery is in progress.
    pub(super) fn on_ack(
        &mut self,
        flags: TcpFlags,
        ack: SubflowOffset,
        nxt: SubflowOffset,
        recovering: bool,
    ) -> bool {
        if !self.enabled || !flags.ece {
            return false;
        }
        if recovering {
            self.reduced = true;
            return false;
        }
        if self.answered.is_some_and(|until| ack <= until) {
            return false;
        }
        self.answered = Some(nxt);
        self.reduced = true;
        true
    }

    /// The window was reduced for a loss: CWR is owed as well, and marks of the same window need no further
    /// reduction.
    pub(super) fn on_reduction(&mut self, nxt: SubflowOffset) {
        if self.enabled {
            self.reduced = true;
            self.answered = Some(nxt);
        }
    }

    /// CWR is owed: the next new data should be a single packet, so that the flag is not on a train of them.
    pub(super) fn owes_cwr(&self) -> bool {
        self.reduced
    }

    /// Sets the flags of a segment after the handshake; `fresh`: it carries new data. Whether its packets are
    /// to be sent as ECN-capable: new data only (RFC 3168 §6.1.4 to §6.1.6 exclude ACKs, retransmissions and
    /// window probes).
    pub(super) fn mark(&mut self, fresh: bool, flags: &mut TcpFlags) -> bool {
        if !self.enabled {
            return false;
        }
        flags.ece = self.echo;
        if fresh {
            flags.cwr = core::mem::take(&mut self.reduced);
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(ece: bool, cwr: bool, ack: bool) -> TcpFlags {
        TcpFlags { ece, cwr, ack, ..TcpFlags::default() }
    }

    fn enabled() -> EcnState {
        let mut e = EcnState::default();
        e.on_syn(Ecn::Accept, flags(true, true, false));
        assert!(e.enabled());
        e
    }

    #[test]
    fn negotiation() {
        // RFC 3168 §6.1.1: setting, SYN again, flags of the SYN/ACK, enabled.
        for (config, again, ece, cwr, expected) in [
            (Ecn::Request, false, true, false, true),
            (Ecn::Request, false, true, true, false),
            (Ecn::Request, false, false, false, false),
            (Ecn::Request, true, true, false, false),
            (Ecn::Accept, false, true, false, false),
            (Ecn::Off, false, true, false, false),
        ] {
            let mut e = EcnState::default();
            let mut syn = flags(false, false, false);
            e.mark_syn(config, again, &mut syn);
            let asks = config == Ecn::Request && !again;
            assert_eq!((syn.ece, syn.cwr), (asks, asks));
            e.on_syn(config, flags(ece, cwr, true));
            assert_eq!(e.enabled(), expected, "{config:?} {again} {ece} {cwr}");
        }
        for (config, ece, cwr, expected) in [
            (Ecn::Request, true, true, true),
            (Ecn::Accept, true, true, true),
            (Ecn::Accept, true, false, false),
            (Ecn::Accept, false, false, false),
            (Ecn::Off, true, true, false),
        ] {
            let mut e = EcnState::default();
            e.on_syn(config, flags(ece, cwr, false));
            let mut answer = flags(false, false, true);
            e.mark_syn_ack(&mut answer);
            assert_eq!((e.enabled(), answer.ece, answer.cwr), (expected, expected, false));
        }
    }

    #[test]
    fn a_mark_is_echoed_until_the_peer_has_reduced_its_window() {
        // RFC 3168 §6.1.3.
        let mut e = enabled();
        let echoes = |e: &mut EcnState| {
            let mut f = flags(false, false, true);
            e.mark(false, &mut f);
            f.ece
        };
        assert!(!e.on_data(false, flags(false, false, true)) && !echoes(&mut e));
        assert!(e.on_data(true, flags(false, false, true)) && echoes(&mut e));
        assert!(!e.on_data(true, flags(false, false, true)) && echoes(&mut e));
        assert!(!e.on_data(false, flags(false, true, true)) && !echoes(&mut e));
        assert!(
            e.on_data(true, flags(false, true, true)) && echoes(&mut e),
            "a new mark on the very CWR segment"
        );
    }

    #[test]
    fn one_reduction_per_window_of_data_and_cwr_with_the_next_data() {
        // RFC 3168 §6.1.2.
        let mut e = enabled();
        let ece = flags(true, false, true);
        assert!(!e.on_ack(flags(false, false, true), SubflowOffset(100), SubflowOffset(900), false));
        assert!(e.on_ack(ece, SubflowOffset(200), SubflowOffset(1_000), false));
        assert!(!e.on_ack(ece, SubflowOffset(1_000), SubflowOffset(1_500), false));
        let mut f = flags(false, false, true);
        assert!(!e.mark(false, &mut f) && !f.cwr, "not on an ACK or a retransmission");
        assert!(e.mark(true, &mut f) && f.cwr && !e.owes_cwr());
        assert!(e.on_ack(ece, SubflowOffset(1_001), SubflowOffset(2_000), false));
        // A loss was answered already.
        e.on_reduction(SubflowOffset(3_000));
        assert!(!e.on_ack(ece, SubflowOffset(2_500), SubflowOffset(3_000), true));
        assert!(!e.on_ack(ece, SubflowOffset(3_000), SubflowOffset(3_500), false));
        assert!(e.owes_cwr());
    }

    #[test]
    fn nothing_happens_where_it_was_not_negotiated() {
        let mut e = EcnState::default();
        assert!(!e.on_data(true, flags(true, true, true)));
        assert!(!e.on_ack(flags(true, false, true), SubflowOffset(9), SubflowOffset(99), false));
        e.on_reduction(SubflowOffset(99));
        let mut f = flags(false, false, true);
        assert!(!e.mark(true, &mut f) && !f.ece && !f.cwr);
    }
}

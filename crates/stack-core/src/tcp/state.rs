//! The states of RFC 9293 §3.3.2.

use core::fmt;

/// State of one subflow's TCP. LISTEN lives in the stack: a subflow exists from its first SYN on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum State {
    /// We sent a SYN.
    SynSent,
    /// A SYN came in and we answered it (or both ends sent one).
    SynReceived,
    /// Data flow both ways.
    Established,
    /// We sent a FIN.
    FinWait1,
    /// Our FIN is acknowledged; the peer may still send.
    FinWait2,
    /// The peer sent a FIN; we may still send.
    CloseWait,
    /// Both sent a FIN; ours is not acknowledged.
    Closing,
    /// The peer sent its FIN first; ours is not acknowledged.
    LastAck,
    /// Both directions are closed; late segments are still answered.
    TimeWait,
    /// No connection.
    Closed,
}

impl State {
    /// The RFC's name.
    pub const fn name(self) -> &'static str {
        match self {
            State::SynSent => "SYN-SENT",
            State::SynReceived => "SYN-RECEIVED",
            State::Established => "ESTABLISHED",
            State::FinWait1 => "FIN-WAIT-1",
            State::FinWait2 => "FIN-WAIT-2",
            State::CloseWait => "CLOSE-WAIT",
            State::Closing => "CLOSING",
            State::LastAck => "LAST-ACK",
            State::TimeWait => "TIME-WAIT",
            State::Closed => "CLOSED",
        }
    }

    /// After our FIN was sent.
    pub(crate) const fn on_fin_sent(self) -> State {
        match self {
            State::Established | State::SynReceived => State::FinWait1,
            State::CloseWait => State::LastAck,
            other => other,
        }
    }

    /// After our FIN was acknowledged.
    pub(crate) const fn on_fin_acked(self) -> State {
        match self {
            State::FinWait1 => State::FinWait2,
            State::Closing => State::TimeWait,
            State::LastAck => State::Closed,
            other => other,
        }
    }

    /// After the peer's FIN was received in order.
    pub(crate) const fn on_fin_received(self) -> State {
        match self {
            State::Established | State::SynReceived => State::CloseWait,
            State::FinWait1 => State::Closing,
            State::FinWait2 => State::TimeWait,
            other => other,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::State::{self, *};

    /// RFC 9293 figure 5, the closing half: event, state before, state after.
    #[test]
    fn closing_transitions_follow_figure_5() {
        type Event = fn(State) -> State;
        let table: [(&str, Event, State, State); 9] = [
            ("close", State::on_fin_sent, Established, FinWait1),
            ("close", State::on_fin_sent, CloseWait, LastAck),
            ("ack of FIN", State::on_fin_acked, FinWait1, FinWait2),
            ("ack of FIN", State::on_fin_acked, Closing, TimeWait),
            ("ack of FIN", State::on_fin_acked, LastAck, Closed),
            ("FIN", State::on_fin_received, Established, CloseWait),
            ("FIN", State::on_fin_received, FinWait1, Closing),
            ("FIN", State::on_fin_received, FinWait2, TimeWait),
            ("FIN", State::on_fin_received, TimeWait, TimeWait),
        ];
        for (event, apply, before, after) in table {
            assert_eq!(apply(before), after, "{event} in {before}");
        }
    }
}

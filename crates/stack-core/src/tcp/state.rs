//! The states of RFC 9293 §3.3.2.

use crate::wire::icmp::Unreachable;
use core::fmt;

/// State of one subflow's TCP. LISTEN lives in the stack: a subflow exists from its first SYN on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum State {
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
    pub(crate) const fn name(self) -> &'static str {
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

    /// Figure 5 of RFC 9293 §3.3.2 as a table: the state after `event`. What is not in it changes nothing.
    const fn after(self, event: Event) -> State {
        match (self, event) {
            (State::Closed, Event::Open) => State::SynSent,
            (State::SynSent, Event::Syn) => State::SynReceived,
            (State::SynSent, Event::SynAck) => State::Established,
            (State::SynReceived, Event::AckOfSyn) => State::Established,
            (State::SynReceived | State::Established, Event::FinSent) => State::FinWait1,
            (State::CloseWait, Event::FinSent) => State::LastAck,
            (State::Established, Event::Fin) => State::CloseWait,
            (State::FinWait1, Event::Fin) => State::Closing,
            (State::FinWait2, Event::Fin) => State::TimeWait,
            (State::FinWait1, Event::AckOfFin) => State::FinWait2,
            (State::Closing, Event::AckOfFin) => State::TimeWait,
            (State::LastAck, Event::AckOfFin) => State::Closed,
            (State::TimeWait, Event::TimeWaitOver) => State::Closed,
            (_, Event::Ended) => State::Closed,
            (unchanged, _) => unchanged,
        }
    }
}

/// What changes the state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// Active open.
    Open,
    /// A SYN came in, without an ACK of ours.
    Syn,
    /// A SYN came in that acknowledges ours.
    SynAck,
    /// Our SYN was acknowledged after the peer's had come.
    AckOfSyn,
    /// Our FIN was sent.
    FinSent,
    /// Our FIN was acknowledged.
    AckOfFin,
    /// The peer's FIN was received in order.
    Fin,
    /// Twice the maximum segment lifetime has passed.
    TimeWaitOver,
    /// A RST came or went, a timeout expired, or the connection gave up.
    Ended,
}

/// Why a subflow ended other than by FIN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CloseReason {
    /// RST in answer to our SYN.
    Refused,
    /// RST later.
    Reset,
    /// User timeout.
    TimedOut,
    /// We sent a RST.
    Aborted,
    /// ICMP said so while connecting.
    Unreachable(Unreachable),
}

/// The life of a subflow: its state, and why it ended. Only [`on`](Self::on) and [`end`](Self::end) change
/// it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifecycle {
    state: State,
    close_reason: Option<CloseReason>,
}

impl Lifecycle {
    /// An active open.
    pub(super) const fn open() -> Self {
        Lifecycle { state: State::Closed.after(Event::Open), close_reason: None }
    }

    /// Its state.
    #[inline]
    pub(super) const fn state(&self) -> State {
        self.state
    }

    /// Why it ended, if not by FIN.
    pub(super) const fn close_reason(&self) -> Option<CloseReason> {
        self.close_reason
    }

    /// `event` happened. Returns the state after it.
    pub(super) const fn on(&mut self, event: Event) -> State {
        self.state = self.state.after(event);
        self.state
    }

    /// It ends for `reason`, unless there was one already.
    pub(super) fn end(&mut self, reason: CloseReason) {
        self.close_reason.get_or_insert(reason);
        self.on(Event::Ended);
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::Event::{self, *};
    use super::State::{self, *};
    use super::{CloseReason, Lifecycle};

    const STATES: [State; 10] = [
        Closed,
        SynSent,
        SynReceived,
        Established,
        FinWait1,
        FinWait2,
        CloseWait,
        Closing,
        LastAck,
        TimeWait,
    ];
    const EVENTS: [Event; 9] = [Open, Syn, SynAck, AckOfSyn, FinSent, AckOfFin, Fin, TimeWaitOver, Ended];

    /// The arrows of figure 5, without those of LISTEN, which the stack has. "rcv FIN,ACK" of FIN-WAIT-1 is
    /// two events.
    const FIGURE_5: [(State, Event, State); 13] = [
        (Closed, Open, SynSent),
        (SynSent, Syn, SynReceived),
        (SynSent, SynAck, Established),
        (SynReceived, AckOfSyn, Established),
        (SynReceived, FinSent, FinWait1),
        (Established, FinSent, FinWait1),
        (Established, Fin, CloseWait),
        (FinWait1, AckOfFin, FinWait2),
        (FinWait1, Fin, Closing),
        (FinWait2, Fin, TimeWait),
        (Closing, AckOfFin, TimeWait),
        (CloseWait, FinSent, LastAck),
        (LastAck, AckOfFin, Closed),
    ];

    #[test]
    fn transitions_are_those_of_figure_5_and_no_others() {
        for before in STATES {
            for event in EVENTS {
                let arrow = FIGURE_5.iter().find(|(s, e, _)| (*s, *e) == (before, event));
                let expected = match (before, event) {
                    (_, Ended) | (TimeWait, TimeWaitOver) => Closed,
                    _ => arrow.map_or(before, |(_, _, after)| *after),
                };
                assert_eq!(before.after(event), expected, "{event:?} in {before}");
            }
        }
    }

    #[test]
    fn fin_and_its_ack_in_one_segment_end_in_time_wait() {
        for events in [[AckOfFin, Fin], [Fin, AckOfFin]] {
            assert_eq!(events.into_iter().fold(FinWait1, State::after), TimeWait);
        }
    }

    #[test]
    fn the_first_reason_stays() {
        let mut life = Lifecycle::open();
        assert_eq!((life.state(), life.close_reason()), (SynSent, None));
        life.end(CloseReason::Reset);
        life.end(CloseReason::TimedOut);
        assert_eq!((life.state(), life.close_reason()), (Closed, Some(CloseReason::Reset)));
    }
}

//! The life of a connection, from the first SYN to the end.
//!
//! | state | what moves it on | next state |
//! |---|---|---|
//! | connecting | a SYN that could carry data | awaiting data |
//! | awaiting data | data written, or the application says so | connecting |
//! | accepting | the SYN carried data that we took | accepting, early |
//! | awaiting data, connecting, accepting | the first handshake is complete | established |
//! | established | MP_FASTCLOSE sent on an ACK | FASTCLOSE_WAIT |
//! | FASTCLOSE_WAIT | MP_FASTCLOSE sent again | FASTCLOSE_WAIT |
//! | FASTCLOSE_WAIT | answered, or given up | ended |
//! | any but FASTCLOSE_WAIT and ended | the end | ended |
//! | ended, its SYN never sent | the application releases the SYN | ended |
//!
//! Everything else changes nothing.
//!
//! By example: `docs/src/by-example/data-fin.md`.

use crate::error::ConnectionError;
use umptcp_types::{Instant, ListenerId};

/// FASTCLOSE_WAIT (RFC 8684 §3.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FastCloseWait {
    /// When to send MP_FASTCLOSE again.
    pub(crate) resend: Instant,
    /// How often it has been sent.
    pub(crate) tries: u8,
}

/// The listeners that a connection counts against until its handshake is complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Admission {
    /// Its backlog has one place less; `None` if the handshake was complete before (SYN cookies).
    pub(crate) backlog: Option<ListenerId>,
    /// It has one pending Fast Open request more (RFC 7413 §4.2).
    pub(crate) fast_open: Option<ListenerId>,
}

/// Where a connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Client: the SYN waits for data that it can carry (RFC 7413).
    AwaitingData,
    /// Client: SYN sent, or about to be. `early`: it has waited for data, so the application has begun.
    Connecting { early: bool },
    /// Server: the third ACK is outstanding. `early`: the application has the data of the SYN already.
    Accepting { admission: Admission, early: bool },
    /// The handshake of the first subflow is complete.
    Established,
    /// MP_FASTCLOSE was sent on an ACK, and its answer is outstanding. For the application it has ended.
    FastCloseWait { wait: FastCloseWait, error: ConnectionError },
    /// It has ended: cleanly, or with an error.
    Ended {
        error: Option<ConnectionError>,
        /// Its SYN was still waiting for data.
        syn_held: bool,
    },
}

/// What moves a connection on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trigger {
    SynDelayed,
    SynReleased,
    SynDataTaken,
    HandshakeComplete,
    FastCloseSent(FastCloseWait, ConnectionError),
    FastCloseRepeated(FastCloseWait),
    FastCloseOver,
    End(Option<ConnectionError>),
}

impl State {
    /// The table at the head of this file.
    fn after(self, trigger: Trigger) -> State {
        match (self, trigger) {
            (State::Connecting { early: false }, Trigger::SynDelayed) => State::AwaitingData,
            (State::Ended { error, .. }, Trigger::SynReleased) => State::Ended { error, syn_held: false },
            (State::AwaitingData, Trigger::SynReleased) => State::Connecting { early: true },
            (State::Accepting { admission, .. }, Trigger::SynDataTaken) => {
                State::Accepting { admission, early: true }
            }
            (
                State::AwaitingData | State::Connecting { .. } | State::Accepting { .. },
                Trigger::HandshakeComplete,
            ) => State::Established,
            (State::Established, Trigger::FastCloseSent(wait, error)) => State::FastCloseWait { wait, error },
            (State::FastCloseWait { error, .. }, Trigger::FastCloseRepeated(wait)) => {
                State::FastCloseWait { wait, error }
            }
            (State::FastCloseWait { error, .. }, Trigger::FastCloseOver) => {
                State::Ended { error: Some(error), syn_held: false }
            }
            (State::FastCloseWait { .. } | State::Ended { .. }, Trigger::End(_)) => self,
            (_, Trigger::End(error)) => State::Ended { error, syn_held: self == State::AwaitingData },
            _ => self,
        }
    }
}

/// Whether the application still has the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owner {
    Application,
    /// The application has let go: what it wrote is still delivered.
    Nobody {
        /// When it was last looked at whether something is.
        since: Instant,
        /// Bytes that the peer had acknowledged then.
        acked: u64,
    },
}

/// The life of a connection, and what decides whether it goes on without subflows.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    state: State,
    owner: Owner,
    /// When a connection without subflow, or one that the peer does not close, is given up.
    give_up: Option<Instant>,
    /// Why the last subflow ended, should it have been the last.
    last_error: Option<ConnectionError>,
    /// A subflow was refused when there was no other: the peer does not know the connection any more.
    refused: bool,
    /// The peer has been seen to know that everything of its has arrived, or it is of no use any more to tell
    /// it.
    peer_knows_end: bool,
}

impl Lifecycle {
    /// A connection that we begin.
    pub(crate) fn connecting() -> Self {
        Lifecycle::new(State::Connecting { early: false })
    }

    /// A connection that the peer began.
    pub(crate) fn accepting(admission: Admission) -> Self {
        Lifecycle::new(State::Accepting { admission, early: false })
    }

    fn new(state: State) -> Self {
        Lifecycle {
            state,
            owner: Owner::Application,
            give_up: None,
            last_error: None,
            refused: false,
            peer_knows_end: false,
        }
    }

    fn on(&mut self, trigger: Trigger) {
        self.state = self.state.after(trigger);
    }

    // ---- the handshake ----

    /// Client: the SYN is to carry data, which it waits for.
    pub(crate) fn await_data(&mut self) {
        self.on(Trigger::SynDelayed);
    }

    /// The SYN waits for nothing any more.
    pub(crate) fn on_syn_released(&mut self) {
        self.on(Trigger::SynReleased);
    }

    /// Server: data of the SYN are the application's.
    pub(crate) fn on_syn_data_taken(&mut self) {
        self.on(Trigger::SynDataTaken);
    }

    /// The first subflow's handshake is complete. Returns the listeners that it counted against, and whether
    /// the application had it before.
    pub(crate) fn on_handshake_complete(&mut self) -> (Admission, bool) {
        let early = matches!(self.state, State::Accepting { early: true, .. });
        let admission = self.admission();
        self.on(Trigger::HandshakeComplete);
        (admission, early)
    }

    fn admission(&self) -> Admission {
        match self.state {
            State::Accepting { admission, .. } => admission,
            _ => Admission::default(),
        }
    }

    /// The SYN waits for data.
    pub(crate) fn is_awaiting_data(&self) -> bool {
        self.state == State::AwaitingData
    }

    /// The SYN has not been sent for want of data; so it stays when the connection ends.
    pub(crate) fn holds_syn(&self) -> bool {
        matches!(self.state, State::AwaitingData | State::Ended { syn_held: true, .. })
    }

    /// The first handshake is not through.
    pub(crate) fn is_connecting(&self) -> bool {
        matches!(self.state, State::AwaitingData | State::Connecting { .. } | State::Accepting { .. })
    }

    /// Server: the application has the data of the SYN, and the third ACK is outstanding.
    pub(crate) fn is_accepted_early(&self) -> bool {
        matches!(self.state, State::Accepting { early: true, .. })
    }

    /// The handshake is through, or the application had reason to begin before (Fast Open): closing delivers
    /// what it wrote.
    pub(crate) fn has_begun(&self) -> bool {
        match self.state {
            State::AwaitingData => false,
            State::Connecting { early } | State::Accepting { early, .. } => early,
            State::Established | State::FastCloseWait { .. } | State::Ended { .. } => true,
        }
    }

    /// The handshake is through, and the end has not come.
    #[inline]
    pub(crate) fn is_established(&self) -> bool {
        self.state == State::Established
    }

    // ---- the end ----

    /// It has ended. Returns the listeners that it still counted against.
    pub(crate) fn on_end(&mut self, error: Option<ConnectionError>) -> Admission {
        let admission = self.admission();
        self.on(Trigger::End(error));
        self.give_up = None;
        admission
    }

    /// It has ended, and MP_FASTCLOSE has gone out on an ACK.
    pub(crate) fn on_fast_close_sent(&mut self, resend: Instant, error: ConnectionError) {
        self.on(Trigger::FastCloseSent(FastCloseWait { resend, tries: 1 }, error));
        self.give_up = None;
    }

    /// MP_FASTCLOSE has gone out again.
    pub(crate) fn on_fast_close_repeated(&mut self, resend: Instant) {
        if let Some(wait) = self.fast_close() {
            let tries = wait.tries + 1;
            self.on(Trigger::FastCloseRepeated(FastCloseWait { resend, tries }));
        }
    }

    /// Nothing more is said about it.
    pub(crate) fn on_fast_close_over(&mut self) {
        self.on(Trigger::FastCloseOver);
    }

    /// FASTCLOSE_WAIT, if it is in that state.
    pub(crate) fn fast_close(&self) -> Option<FastCloseWait> {
        match self.state {
            State::FastCloseWait { wait, .. } => Some(wait),
            _ => None,
        }
    }

    /// The end, once it has come: cleanly, or with an error.
    pub(crate) fn end(&self) -> Option<Option<ConnectionError>> {
        match self.state {
            State::FastCloseWait { error, .. } => Some(Some(error)),
            State::Ended { error, .. } => Some(error),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, State::FastCloseWait { .. } | State::Ended { .. })
    }

    /// The peer has closed or reset a subflow after the end of both directions, or the wait for that is over.
    pub(crate) fn on_peer_knows_end(&mut self) {
        self.peer_knows_end = true;
    }

    /// It has ended cleanly, and the peer has not been seen to know it.
    pub(crate) fn is_end_unconfirmed(&self) -> bool {
        self.end() == Some(None) && !self.peer_knows_end
    }

    /// The application lets go of it; the peer has acknowledged `acked` bytes so far.
    pub(crate) fn on_let_go(&mut self, now: Instant, acked: u64) {
        self.owner = Owner::Nobody { since: now, acked };
    }

    /// The application has let go of it.
    pub(crate) fn is_orphan(&self) -> bool {
        self.orphan_since().is_some()
    }

    /// When the application let go of it, or progress was last seen since.
    pub(crate) fn orphan_since(&self) -> Option<Instant> {
        match self.owner {
            Owner::Application => None,
            Owner::Nobody { since, .. } => Some(since),
        }
    }

    /// Whether the peer has acknowledged more than when it was last looked at: `acked` bytes now.
    pub(crate) fn on_orphan_checked(&mut self, now: Instant, acked: u64) -> bool {
        let Owner::Nobody { acked: before, .. } = self.owner else { return true };
        self.owner = Owner::Nobody { since: now, acked };
        acked > before
    }

    // ---- with no subflow that could go on ----

    /// A subflow ended for `error`; `None`: by FIN. `counts`: it had been joined, so that this is why the
    /// connection would end. Otherwise it counts only if it was the `last`, and nothing ended before.
    pub(crate) fn on_subflow_ended(&mut self, error: Option<ConnectionError>, counts: bool, last: bool) {
        if counts || (last && self.last_error.is_none()) {
            self.last_error = error;
        }
    }

    /// A subflow was reset because the two ends do not understand each other.
    pub(crate) fn on_subflow_broken(&mut self) {
        self.last_error = Some(ConnectionError::Broken);
    }

    /// A subflow was refused when there was no other.
    pub(crate) fn on_refused(&mut self) {
        self.refused = true;
    }

    /// A subflow was refused when there was no other.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused
    }

    /// Why the last subflow ended.
    pub(crate) fn last_error(&self) -> Option<ConnectionError> {
        self.last_error
    }

    /// When it is given up.
    pub(crate) fn give_up_at(&self) -> Option<Instant> {
        self.give_up
    }

    /// It is given up at `at`, unless that has been settled before.
    pub(crate) fn give_up_by(&mut self, at: Instant) {
        self.give_up.get_or_insert(at);
    }

    /// It is given up at `at`, or sooner if that has been settled before.
    pub(crate) fn give_up_at_last(&mut self, at: Instant) {
        self.give_up = Some(self.give_up.map_or(at, |settled| settled.min(at)));
    }

    /// It is not given up after all.
    pub(crate) fn go_on(&mut self) {
        self.give_up = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: FastCloseWait = FastCloseWait { resend: Instant::ZERO, tries: 1 };
    const AGAIN: FastCloseWait = FastCloseWait { resend: Instant::ZERO, tries: 2 };
    const ERROR: ConnectionError = ConnectionError::Aborted;
    const ADMISSION: Admission = Admission { backlog: Some(ListenerId(1)), fast_open: None };
    const AWAITING: State = State::AwaitingData;
    const CONNECTING: State = State::Connecting { early: false };
    const CONNECTING_EARLY: State = State::Connecting { early: true };
    const ACCEPTING: State = State::Accepting { admission: ADMISSION, early: false };
    const ACCEPTING_EARLY: State = State::Accepting { admission: ADMISSION, early: true };
    const FAST_CLOSE: State = State::FastCloseWait { wait: WAIT, error: ERROR };
    const FAST_CLOSE_AGAIN: State = State::FastCloseWait { wait: AGAIN, error: ERROR };
    const CLEAN: State = State::Ended { error: None, syn_held: false };
    const CLEAN_UNSENT: State = State::Ended { error: None, syn_held: true };
    const ABORTED: State = State::Ended { error: Some(ERROR), syn_held: false };

    /// Every transition there is.
    const TABLE: &[(State, Trigger, State)] = &[
        (CONNECTING, Trigger::SynDelayed, AWAITING),
        (AWAITING, Trigger::SynReleased, CONNECTING_EARLY),
        (ACCEPTING, Trigger::SynDataTaken, ACCEPTING_EARLY),
        (AWAITING, Trigger::HandshakeComplete, State::Established),
        (CONNECTING, Trigger::HandshakeComplete, State::Established),
        (CONNECTING_EARLY, Trigger::HandshakeComplete, State::Established),
        (ACCEPTING, Trigger::HandshakeComplete, State::Established),
        (ACCEPTING_EARLY, Trigger::HandshakeComplete, State::Established),
        (State::Established, Trigger::FastCloseSent(WAIT, ERROR), FAST_CLOSE),
        (FAST_CLOSE, Trigger::FastCloseRepeated(AGAIN), FAST_CLOSE_AGAIN),
        (FAST_CLOSE, Trigger::FastCloseOver, ABORTED),
        (AWAITING, Trigger::End(None), CLEAN_UNSENT),
        (CLEAN_UNSENT, Trigger::SynReleased, CLEAN),
        (CONNECTING, Trigger::End(None), CLEAN),
        (CONNECTING_EARLY, Trigger::End(None), CLEAN),
        (ACCEPTING, Trigger::End(None), CLEAN),
        (ACCEPTING_EARLY, Trigger::End(None), CLEAN),
        (State::Established, Trigger::End(None), CLEAN),
    ];

    #[test]
    fn every_state_does_with_every_trigger_what_the_table_says() {
        let states = [
            AWAITING,
            CONNECTING,
            CONNECTING_EARLY,
            ACCEPTING,
            ACCEPTING_EARLY,
            State::Established,
            FAST_CLOSE,
            CLEAN,
            CLEAN_UNSENT,
            ABORTED,
        ];
        let triggers = [
            Trigger::SynDelayed,
            Trigger::SynReleased,
            Trigger::SynDataTaken,
            Trigger::HandshakeComplete,
            Trigger::FastCloseSent(WAIT, ERROR),
            Trigger::FastCloseRepeated(AGAIN),
            Trigger::FastCloseOver,
            Trigger::End(None),
        ];
        for state in states {
            for trigger in triggers {
                let row = TABLE.iter().find(|(s, t, _)| (*s, *t) == (state, trigger));
                assert_eq!(state.after(trigger), row.map_or(state, |r| r.2), "{state:?} on {trigger:?}");
            }
        }
    }

    #[test]
    fn an_end_is_final_and_stops_the_clock() {
        let mut life = Lifecycle::accepting(ADMISSION);
        life.give_up_by(Instant::ZERO);
        assert_eq!(life.on_end(Some(ERROR)), ADMISSION);
        assert!(life.has_ended() && life.give_up_at().is_none());
        assert_eq!(life.on_end(None), Admission::default());
        assert_eq!(life.end(), Some(Some(ERROR)));
        assert_eq!(life.on_handshake_complete(), (Admission::default(), false));
        assert!(!life.is_established());
    }

    #[test]
    fn the_reason_is_that_of_the_last_subflow_that_counted() {
        let mut life = Lifecycle::connecting();
        life.on_subflow_ended(Some(ConnectionError::Refused), false, false);
        assert_eq!(life.last_error(), None);
        life.on_subflow_ended(Some(ConnectionError::Reset), true, false);
        life.on_subflow_ended(Some(ConnectionError::Refused), false, true);
        assert_eq!(life.last_error(), Some(ConnectionError::Reset));
        life.on_subflow_ended(None, true, true);
        assert_eq!(life.last_error(), None);
    }
}

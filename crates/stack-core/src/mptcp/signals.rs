//! Options that go out on ACKs of their own: ADD_ADDR, REMOVE_ADDR, MP_PRIO, MP_FAIL, MP_FASTCLOSE.
//!
//! RFC 8684 §3.4.1: not more than two duplicate ACKs in a row, lest others take them for signs of congestion.
//!
//! By example: `docs/src/by-example/mp-prio.md`.

use crate::wire::mptcp::MptcpOption;
use alloc::collections::VecDeque;
use umptcp_types::{Duration, Instant};

/// ACKs that carry nothing but signals, in a row.
const IN_A_ROW: u8 = 2;
/// How long the next waits when the round-trip time is not known, and at least.
const PAUSE: Duration = Duration::from_millis(100);
const MIN_PAUSE: Duration = Duration::from_millis(1);

/// Signals that wait, beyond which echoes are left out: the peer repeats what was not echoed.
const QUEUED: usize = 32;

/// The signals that wait on one subflow.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    queue: VecDeque<MptcpOption>,
    /// ACKs sent for their sake alone, in a row.
    run: u8,
    /// When the next such ACK may follow.
    wait: Option<Instant>,
}

impl Signals {
    pub(crate) fn push(&mut self, signal: MptcpOption) {
        self.queue.push_back(signal);
    }

    /// `signal` takes the place of one of its kind that waits.
    pub(crate) fn replace(&mut self, signal: MptcpOption) {
        let kind = core::mem::discriminant(&signal);
        self.queue.retain(|s| core::mem::discriminant(s) != kind);
        self.queue.push_back(signal);
    }

    /// An echo, if not too many signals wait. False: it is left out.
    pub(crate) fn push_echo(&mut self, echo: MptcpOption) -> bool {
        let room = self.queue.len() < QUEUED;
        if room {
            self.queue.push_back(echo);
        }
        room
    }

    /// The next, for an ACK that leaves.
    pub(crate) fn pop(&mut self) -> Option<MptcpOption> {
        self.queue.pop_front()
    }

    pub(crate) fn clear(&mut self) {
        self.queue.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether an ACK may go out for the sake of a signal alone.
    pub(crate) fn may_send(&self) -> bool {
        self.run < IN_A_ROW
    }

    /// An ACK goes out for the sake of a signal alone.
    pub(crate) fn on_sent(&mut self, now: Instant, srtt: Option<Duration>) {
        self.run += 1;
        if self.run >= IN_A_ROW {
            self.wait = Some(now + srtt.unwrap_or(PAUSE).max(MIN_PAUSE));
        }
    }

    /// Something else passed between the ends, so that the next ACK is no duplicate of the last.
    pub(crate) fn on_interrupted(&mut self) {
        self.run = 0;
        self.wait = None;
    }

    /// The pause after the last of them may be over.
    pub(crate) fn on_time(&mut self, now: Instant) {
        if self.wait.is_some_and(|t| t <= now) {
            self.on_interrupted();
        }
    }

    /// When the next may go out that has to wait.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.wait.filter(|_| !self.queue.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::mptcp::{MpFail, MpPrio};

    fn prio(backup: bool) -> MptcpOption {
        MptcpOption::Prio(MpPrio { backup, address_id: None })
    }

    #[test]
    fn two_in_a_row_then_a_pause() {
        let (mut s, now) = (Signals::default(), Instant::ZERO);
        s.push(prio(true));
        s.on_sent(now, None);
        assert!(s.may_send() && s.deadline().is_none());
        s.on_sent(now, Some(Duration::ZERO));
        assert!(!s.may_send());
        assert_eq!(s.deadline(), Some(now + MIN_PAUSE));
        s.on_time(now);
        assert!(!s.may_send());
        s.on_time(now + MIN_PAUSE);
        assert!(s.may_send() && s.deadline().is_none());
    }

    #[test]
    fn a_newer_one_replaces_its_kind_and_echoes_are_bounded() {
        let mut s = Signals::default();
        s.replace(prio(true));
        s.replace(MptcpOption::Fail(MpFail { dsn: 1 }));
        s.replace(prio(false));
        assert_eq!(s.pop(), Some(MptcpOption::Fail(MpFail { dsn: 1 })));
        assert_eq!(s.pop(), Some(prio(false)));
        let taken = (0..100).filter(|_| s.push_echo(prio(true))).count();
        assert_eq!(taken, QUEUED);
        s.clear();
        assert!(s.is_empty());
    }
}

//! The timestamps option of a subflow (RFC 7323).
//!
//! Requirement by requirement: `docs/src/conformance-rfc7323.md`.

use crate::wire::tcp::{TcpRepr, Timestamps};
use umptcp_types::{Duration, Instant, SubflowOffset};

/// After so long without a segment TS.Recent is invalid (RFC 7323 §5.5).
const STALE_AFTER: Duration = Duration::from_secs(24 * 24 * 3600);

/// The timestamp clock that runs `offset` ahead: milliseconds.
#[inline]
pub(super) fn stamp(now: Instant, offset: u32) -> u32 {
    (now.as_millis() as u32).wrapping_add(offset)
}

/// Our clock, and what is known of the peer's.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimestampClock {
    /// Both ends use the option.
    enabled: bool,
    /// Added to the milliseconds of our clock (RFC 7323 §5.4: so that it does not reveal uptime).
    offset: u32,
    /// TS.Recent, and when it was taken.
    recent: u32,
    recent_at: Instant,
}

impl TimestampClock {
    /// A clock whose use is not agreed yet.
    pub(super) fn new(offset: u32, now: Instant) -> Self {
        TimestampClock { enabled: false, offset, recent: 0, recent_at: now }
    }

    /// The peer's SYN or SYN/ACK.
    pub(super) fn on_syn(&mut self, now: Instant, syn: &TcpRepr) {
        if let Some(ts) = syn.options.timestamps {
            self.enabled = true;
            self.recent = ts.value;
            self.recent_at = now;
        }
    }

    /// Timestamps are in use.
    pub(super) fn enabled(&self) -> bool {
        self.enabled
    }

    /// TS.Recent (RFC 7323 §4.3).
    pub(super) fn recent(&self) -> u32 {
        self.recent
    }

    /// What is added to our clock.
    pub(super) fn offset(&self) -> u32 {
        self.offset
    }

    /// Our clock: milliseconds.
    #[inline]
    pub(super) fn stamp(&self, now: Instant) -> u32 {
        stamp(now, self.offset)
    }

    /// The option of our first SYN.
    pub(super) fn first_option(&self, now: Instant) -> Timestamps {
        Timestamps { value: self.stamp(now), echo: 0 }
    }

    /// The option of a segment, if it is in use.
    pub(super) fn option(&self, now: Instant) -> Option<Timestamps> {
        self.enabled.then(|| Timestamps { value: self.stamp(now), echo: self.recent })
    }

    /// What `seg` echoes of our clock.
    pub(super) fn echo(&self, seg: &TcpRepr) -> Option<u32> {
        seg.options.timestamps.filter(|t| self.enabled && t.echo != 0).map(|t| t.echo)
    }

    /// By how many of the peer's ticks `seg` is older than TS.Recent, if it is: for PAWS an old duplicate
    /// (RFC 7323 §5.3).
    pub(super) fn outdated(&self, now: Instant, seg: &TcpRepr) -> Option<u32> {
        let ts = seg.options.timestamps.filter(|_| self.enabled && now - self.recent_at < STALE_AFTER)?;
        let age = self.recent.wrapping_sub(ts.value);
        (age as i32 > 0).then_some(age)
    }

    /// RFC 7323 §4.3: TS.Recent comes from segments that span Last.ACK.sent.
    pub(super) fn remember(
        &mut self,
        now: Instant,
        seg: &TcpRepr,
        start: SubflowOffset,
        last_ack_sent: SubflowOffset,
    ) {
        let (true, Some(ts)) = (self.enabled, seg.options.timestamps) else { return };
        if start <= last_ack_sent && (ts.value.wrapping_sub(self.recent) as i32) >= 0 {
            self.recent = ts.value;
            self.recent_at = now;
        }
    }
}

//! Round-trip times that nothing measures any more are measured again.
//!
//! A scheduler avoids a subflow for as long as its round-trip time is long, and while it is avoided nothing
//! is sent on it that could show that it has become short: a path that was congested once would stay unused
//! for the life of the connection. To let the estimate decay instead would be a guess in the place of a
//! measurement, and the scheduler would now and then trust such a subflow with data that all others wait for.
//! So now and then one packet goes on it whose data are under way on another subflow already: whatever that
//! path has become, nobody waits for it.

use super::connection::Connection;
use super::mapping::Segment;
use super::schedule::Candidates;
use crate::context::Context;
use crate::observe::Counter;
use umptcp_scheduler::{Health, SubflowView};
use umptcp_types::{Duration, Instant};

/// How old an estimate may become while the connection sends: long against round trips, short against the
/// time for which somebody would put up with half the rate. A packet in so long costs a path 2.4 kbit/s.
const STALE: Duration = Duration::from_secs(5);

impl Connection {
    /// Data are outstanding, and subflow `i` carries none, although it could: a measurement would tell
    /// whether it should. Backups are to carry nothing.
    fn is_unmeasured(&self, now: Instant, i: usize) -> bool {
        let m = &self.subflows[i];
        let idle = m.can_send_data() && !m.is_backup() && !m.priority().metered && m.tcp.in_flight() == 0;
        idle && m.tcp.rtt_age(now).is_some_and(|age| age >= STALE)
    }

    /// Some subflow is to be measured again. Not after a pause: then all estimates are old, and the first
    /// data show what has become of the path that they take.
    pub(super) fn is_measurement_due(&self, now: Instant) -> bool {
        let busy = self.is_mptcp() && self.subflows.len() > 1 && self.send.una() < self.send.next();
        let measured = || self.subflows.iter().any(|m| m.tcp.rtt_age(now).is_some_and(|age| age < STALE));
        busy && measured() && self.subflows.indices().any(|i| self.is_unmeasured(now, i))
    }

    /// A packet of the oldest data on a subflow whose round-trip time has not been measured for long.
    pub(super) fn poll_measurement(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        candidates: &Candidates,
    ) -> Option<(usize, Segment)> {
        let able =
            |v: &SubflowView| v.health == Health::Good && v.room >= u64::from(v.mss) && v.next_send <= now;
        let mut all = candidates.views.iter().zip(&candidates.places);
        let (view, i) = all.find(|(v, i)| able(v) && self.is_unmeasured(now, **i))?;
        let (range, by) = self.send.carriers().iter().next()?;
        if by.contains(&view.id) {
            return None;
        }
        let end = range.end.min(range.start + u64::from(view.mss));
        self.subflows[*i].tcp.renew_rtt();
        self.count(ctx, now, Some(view.id), Counter::SubflowMeasured);
        Some((*i, self.cut(now, *i, range.start..end)))
    }
}

//! The end of what there is to send.
//!
//! A slow subflow gets data when the windows of faster ones are full. Once everything has been sent, the faster ones
//! have room again, long before the slow one has delivered: a transfer, an answer or a message that ends there waits
//! for it. So what is acknowledged sooner by a faster subflow goes on that, too, from the end: the slow one delivers
//! the oldest of it meanwhile.

use super::blocking::LOOKED_AT;
use super::carriers::By;
use super::connection::Connection;
use super::mapping::Segment;
use super::schedule::Candidates;
use crate::context::Context;
use crate::observe::Counter;
use umptcp_scheduler::{Health, SubflowView};
use umptcp_types::{DataOffset, Duration, Instant, SubflowId};

/// How much longer another subflow must take for a copy on one with that round-trip time: paths that are nearly alike would
/// repeat the end of every message.
fn worth_it(srtt: Duration, rttvar: Duration) -> Duration {
    srtt + (rttvar * 2).max(srtt / 4)
}

impl Connection {
    /// Everything has been sent, and a subflow will take longer with its part than another one would.
    pub(super) fn is_tail_slow(&self, now: Instant) -> bool {
        if !self.config.opportunistic_retransmission
            || !self.is_mptcp()
            || self.subflows.len() < 2
            || self.send.backlog() > 0
            || self.send.una() >= self.send.next()
        {
            return false;
        }
        let able = self.subflows.iter().filter(|m| m.can_send_data());
        let least = able.filter_map(|m| Some(worth_it(m.tcp.srtt()?, m.tcp.rttvar()))).min();
        let Some(least) = least else { return false };
        self.subflows.iter().any(|m| m.tcp.in_flight() > 0 && m.time_left(now) > least)
    }

    /// Everything has been sent: the newest data that a slow subflow carries, on one that is faster and has room.
    pub(super) fn poll_tail(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        candidates: &Candidates,
    ) -> Option<(usize, Segment)> {
        // Not at a price: what is saved is time.
        let able = |v: &&SubflowView| v.health == Health::Good && v.room > 0 && !v.metered && !v.backup;
        let fast = candidates.views.iter().filter(able).min_by_key(|v| v.srtt.unwrap_or(Duration::MAX))?;
        let takes = worth_it(fast.srtt?, fast.rttvar);
        if fast.next_send > now {
            self.note_pacing(now, &candidates.views);
            return None;
        }
        let left = |id: &SubflowId| {
            let carrier = self.subflows.iter().find(|m| m.tcp.id() == *id);
            carrier.map_or(Duration::MAX, |m| m.time_left(now))
        };
        let is_late = |by: &By| !by.contains(&fast.id) && by.iter().all(|id| left(id) > takes);
        let (range, _) = self.send.carriers().iter().rev().take(LOOKED_AT).find(|(_, by)| is_late(by))?;
        let (i, view) = candidates.find(fast.id)?;
        let n = self.copy_size(i, view, range.end - range.start)?;
        self.count(ctx, now, Some(view.id), Counter::MPTCPOpportunistic);
        Some((i, self.cut(now, i, DataOffset(range.end.0 - n)..range.end)))
    }
}

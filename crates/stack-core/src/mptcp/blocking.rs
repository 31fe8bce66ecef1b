//! Subflows share one window. A slow one that holds the oldest data keeps the others from sending once the
//! window is full (head-of-line blocking): how that is avoided, and what is done when it happens.

use super::carriers::By;
use super::connection::Connection;
use super::mapping::Segment;
use super::schedule::Candidates;
use crate::context::Context;
use crate::observe::Counter;
use umptcp_scheduler::{Decision, Health, Reinjection, SubflowView};
use umptcp_types::{Duration, Instant, SubflowId};

/// Pieces of data that are considered, from the oldest. Those that have been sent again already come first.
pub(super) const LOOKED_AT: usize = 64;

/// Bytes per second that a subflow's window allows; 0: not measured yet.
fn rate(s: &SubflowView) -> f64 {
    s.srtt.map_or(0.0, |srtt| s.window as f64 / srtt.as_secs_f64().max(1e-6))
}

impl Connection {
    /// Bytes that may be outstanding at once: what the peer's window allows, or what our buffer holds.
    fn shared_window(&self) -> u64 {
        self.send.whole_window().min(self.send.capacity())
    }

    /// The send buffer is full and everything in it has been sent, but for less than a packet, which waits for more
    /// (Nagle): what holds the oldest data keeps the application from writing.
    pub(super) fn is_buffer_blocking(&self) -> bool {
        let shared = self.is_mptcp() && self.subflows.len() > 1;
        shared && self.send.is_full() && self.send.backlog() < u64::from(self.packet_payload(0))
    }

    /// The shared window, not a congestion window, keeps new data back: room for less than a packet does not
    /// count.
    fn is_window_blocking(&self, candidates: &Candidates) -> bool {
        let packet = candidates.views.iter().map(|v| u64::from(v.mss)).min().unwrap_or_default();
        let window = self.send.window();
        self.send.una() < self.send.next() && window < packet && window < self.send.backlog()
    }

    /// How long data sent now on a subflow keep their place in the window. Queues are in the direction of the
    /// data, and the fastest subflow tells of their arrival.
    fn holding_time(&self, i: usize, back: Duration) -> Option<Duration> {
        let tcp = &self.subflows[i].tcp;
        let (srtt, least) = (tcp.srtt()?, tcp.min_rtt()?);
        Some(srtt.saturating_sub(least / 2) + back / 2)
    }

    /// Takes the room from subflows on which new data would stop faster ones: those could send more, until
    /// the data have arrived, than the shared window allows. (BLEST's criterion, here for every scheduler.)
    pub(super) fn spare_window(&self, candidates: &mut Candidates) {
        if !self.config.spare_window || !self.is_mptcp() || candidates.views.len() < 2 {
            return;
        }
        let window = self.shared_window();
        let back = candidates.places.iter().filter_map(|i| self.subflows[*i].tcp.min_rtt()).min();
        let Some(back) = back else { return };
        for k in 0..candidates.views.len() {
            let slow = &candidates.views[k];
            let (Some(srtt), Some(time)) = (slow.srtt, self.holding_time(candidates.places[k], back)) else {
                continue;
            };
            if slow.room == 0 {
                continue;
            }
            // Only of those that send: what wakes them is an acknowledgement, or their silence.
            let faster = |f: &&SubflowView| {
                f.health == Health::Good && f.in_flight > 0 && f.srtt.is_some_and(|rtt| rtt < srtt)
            };
            let others: f64 = candidates.views.iter().filter(faster).map(rate).sum();
            // One that is itself most of what the connection has may hold up the others.
            if rate(slow) > others {
                continue;
            }
            let meanwhile = others * time.as_secs_f64();
            if meanwhile > 0.0 && meanwhile + (slow.in_flight + u64::from(slow.mss)) as f64 > window as f64 {
                candidates.views[k].room = 0;
            }
        }
    }

    /// The shared window is full: the oldest data that a faster subflow does not carry go on it, too, if it has room, and
    /// the window of the one that holds the others up is halved, at most once per round trip of
    /// it (Raiciu et al., NSDI 2012, section 4.2).
    pub(super) fn poll_opportunistic(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        candidates: &Candidates,
    ) -> Option<(usize, Segment)> {
        let blocked = self.is_buffer_blocking() || self.is_window_blocking(candidates);
        if !self.is_mptcp() || candidates.views.len() < 2 || !blocked {
            return None;
        }
        let snapshot = self.snapshot(now, candidates);
        let mut found = None;
        for (k, (range, by)) in self.send.carriers().iter().take(LOOKED_AT).enumerate() {
            let what = Reinjection::new(range.clone(), by);
            let Decision::Send { subflow, limit } = self.scheduler.reinject(&snapshot, &what) else {
                continue;
            };
            let Some((_, view)) = candidates.find(subflow) else { continue };
            let slower = |m: &super::subflow::Subflow| m.tcp.srtt().is_none_or(|srtt| Some(srtt) > view.srtt);
            let mut carriers = self.subflows.iter().filter(|m| by.contains(&m.tcp.id()));
            if view.srtt.is_some() && carriers.all(slower) {
                found = Some((k == 0, range, by.clone(), subflow, limit));
                break;
            }
        }
        let Some((is_oldest, range, by, subflow, limit)) = found else {
            self.note_pacing(now, &candidates.views);
            return None;
        };
        let (i, view) = candidates.find(subflow)?;
        let n = self.copy_size(i, view, limit.min(range.end - range.start))?;
        if self.config.penalisation && is_oldest {
            // Not the one that is most of what the connection has: halved, it would cost more than it holds up.
            let worse = |id: &&SubflowId| candidates.find(**id).is_none_or(|(_, s)| rate(s) < rate(view));
            // Buffers that have just grown go on growing: a subflow that is halved in its slow start would stay small for
            // long after them.
            let settled = |id: &&SubflowId| {
                let carrier = self.subflows.iter().find(|m| m.tcp.id() == **id);
                let srtt = carrier.and_then(|m| m.tcp.srtt()).unwrap_or_default();
                now - self.send.grew() >= srtt * 2
            };
            let halved: By = by.iter().filter(worse).filter(settled).copied().collect();
            for id in halved {
                let before = self.cc.window(id);
                self.cc.penalise(now, id);
                if self.cc.window(id) < before {
                    self.count(ctx, now, Some(id), Counter::SubflowPenalised);
                }
            }
        }
        if !self.config.opportunistic_retransmission {
            return None;
        }
        self.count(ctx, now, Some(subflow), Counter::MPTCPOpportunistic);
        Some((i, self.cut(now, i, range.start..range.start + n)))
    }
}

//! Paths on which a connection may carry so much and no more.

use super::connection::Connection;
use crate::context::{Context, Meter, Use};
use crate::observe::Counter;
use alloc::vec::Vec;
use smallvec::SmallVec;
use umptcp_types::{AddressId, Instant, PathId};

/// What a connection has carried on the paths that have a limit for each.
#[derive(Debug, Default)]
pub(crate) struct Meters(Vec<(PathId, Meter)>);

impl Meters {
    /// How far a path's limit is used up.
    #[inline]
    pub(crate) fn state(&self, path: PathId) -> Use {
        self.0.iter().find(|(p, _)| *p == path).map(|(_, meter)| meter.state()).unwrap_or_default()
    }

    /// So much has passed on a path with that limit. How far it is used up, if that is new.
    fn add(&mut self, path: PathId, bytes: u64, limit: u64) -> Option<Use> {
        if let Some((_, meter)) = self.0.iter_mut().find(|(p, _)| *p == path) {
            return meter.add(bytes);
        }
        let mut meter = Meter::new(Some(limit));
        let new = meter.add(bytes);
        self.0.push((path, meter));
        new
    }
}

impl Connection {
    /// Nothing new is to be begun on a path: what this connection, or all together, may carry there is used
    /// up, or nearly.
    pub(super) fn is_ending_on(&self, ctx: &Context, path: PathId) -> bool {
        self.use_of(ctx, path) > Use::Open
    }

    /// How far what may pass on a path is used up.
    pub(super) fn use_of(&self, ctx: &Context, path: PathId) -> Use {
        self.meters.state(path).max(ctx.spent_on(path))
    }

    /// So much of this connection has passed on a path with that limit for each (`PathConfig::connection_cap`).
    pub(crate) fn on_carried(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        path: PathId,
        bytes: u64,
        limit: u64,
    ) {
        match self.meters.add(path, bytes, limit) {
            Some(Use::Ending) => {
                self.count(ctx, now, None, Counter::PathCapReached);
                self.on_path_leaving(ctx, now, path);
            }
            Some(Use::Spent) => {
                for m in self.subflows.iter_mut().filter(|m| m.tcp.path() == path) {
                    m.on_spent();
                }
                self.on_path_down(ctx, now);
            }
            Some(Use::Open) | None => {}
        }
    }

    /// In mid-step: with a subflow elsewhere that can be used, those on paths on which nothing new is to be
    /// begun are closed.
    pub(super) fn leave_ending_paths(&mut self, ctx: &mut Context, now: Instant) {
        let ending = |path| self.use_of(ctx, path) == Use::Ending;
        let open = |path| self.use_of(ctx, path) == Use::Open;
        if !self.subflows.iter().any(|m| m.can_send_data() && open(m.tcp.path())) {
            return;
        }
        let leaving = self.subflows.iter().filter(|m| m.can_send_data() && ending(m.tcp.path()));
        let ids: SmallVec<[AddressId; 8]> = leaving.map(super::subflow::Subflow::local_id).collect();
        if !ids.is_empty() {
            // Without MPTCP there is no other subflow.
            let _ = self.withdraw_addresses(ctx, now, &ids);
        }
    }
}

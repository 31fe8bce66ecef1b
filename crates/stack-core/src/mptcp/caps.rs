//! What a connection does as what it may carry on a path is used up.

use super::connection::Connection;
use crate::context::{Context, Use};
use crate::device::Families;
use crate::observe::Counter;
use smallvec::SmallVec;
use umptcp_types::{AddressId, Instant, PathId};

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
        if let Some(new) = self.meters.add(path, bytes, limit) {
            self.on_cap_use(ctx, now, path, new);
        }
    }

    fn on_cap_use(&mut self, ctx: &mut Context, now: Instant, path: PathId, new: Use) {
        match new {
            Use::Ending => {
                self.count(ctx, now, None, Counter::PathCapReached);
                self.on_path_leaving(ctx, now, path);
            }
            Use::Spent => {
                for m in self.subflows.iter_mut().filter(|m| m.tcp.path() == path) {
                    m.set_spent(true);
                }
                self.on_path_down(ctx, now);
            }
            Use::Open => {}
        }
    }

    /// What each connection may carry on a path has changed: what this one has carried counts against it.
    pub(crate) fn on_connection_cap(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        path: PathId,
        limit: Option<u64>,
    ) {
        let (before, after) = self.meters.set_limit(path, limit);
        if after > before {
            self.on_cap_use(ctx, now, path, after);
        } else if after < before {
            for m in self.subflows.iter_mut().filter(|m| m.tcp.path() == path) {
                m.set_spent(after == Use::Spent);
            }
            if after == Use::Open {
                let local = ctx.path(path).map(|p| p.addresses.clone()).unwrap_or_default();
                self.on_path_added(&local);
                self.on_path_changed(ctx, now, path, Families::BOTH);
            }
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

//! Subflows that the application opens and closes itself.

use super::connection::Connection;
use super::failures::Pair;
use super::subflow::Subflow;
use crate::context::Context;
use crate::error::SubflowError;
use crate::path_manager::RemoteAddress;
use crate::wire::mptcp::ResetReason;
use alloc::vec::Vec;
use core::net::SocketAddr;
use umptcp_types::{AddressId, Duration, Instant, PathId, SubflowId};

/// How long the path manager opens no subflow in the place of one that the application has closed, while
/// there are others.
const LEFT_ALONE: Duration = Duration::from_secs(600);

impl Connection {
    /// Opens a subflow over `path`, to the peer's first address or to `remote`. Returns its id.
    pub(crate) fn open_subflow(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        path: PathId,
        remote: Option<SocketAddr>,
    ) -> Result<SubflowId, SubflowError> {
        self.check_steered()?;
        if !self.mptcp.is_fully_established() || (!self.client && !self.mptcp.is_dss_seen()) {
            return Err(SubflowError::TooEarly);
        }
        let address = remote.unwrap_or(self.initial_tuple.remote);
        if address == self.initial_tuple.remote && !self.mptcp.peer_allows_initial_join() {
            return Err(SubflowError::Unwelcome);
        }
        let known = self.addresses.remotes().iter().find(|r| r.address == address).copied();
        let remote = known.unwrap_or(RemoteAddress::new(AddressId(0), address));
        let mut locals = self.local_addresses(ctx).into_iter();
        let local = locals.find(|l| l.path == path && l.address.is_ipv4() == address.is_ipv4());
        let local = local.ok_or(SubflowError::NoAddress)?;
        if self.subflow_count() >= self.config.max_subflows {
            return Err(SubflowError::Limit);
        }
        // Whatever has failed before, the application wants it tried.
        self.addresses.failures.forget(|pair| pair.local == local.address && pair.remote == address);
        let next = self.subflows.opened();
        self.open_join(ctx, now, local, remote);
        if self.subflows.opened() == next { Err(SubflowError::Exhausted) } else { Ok(SubflowId(next)) }
    }

    /// Closes a subflow, by FIN if it works. None follows in its place for a while, unless it is needed.
    pub(crate) fn close_subflow(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        id: SubflowId,
    ) -> Result<(), SubflowError> {
        self.check_steered()?;
        let i = self.subflows.find(id).ok_or(SubflowError::NoSubflow)?;
        let works = |m: &Subflow| m.can_send_data() && !m.is_stale();
        if !self.subflows.iter().any(|m| m.tcp.id() != id && works(m)) {
            return Err(SubflowError::Only);
        }
        self.leave_alone(ctx, now, i);
        let m = &mut self.subflows[i];
        if m.can_acknowledge() && !m.is_stale() {
            m.tcp.close();
        } else {
            self.reset_subflow(ctx, now, i, ResetReason::Unspecified);
        }
        self.end_step(ctx, now);
        Ok(())
    }

    /// The path manager opens nothing in the place of subflow `i` for a while: neither from its address to
    /// another of the peer's, nor, if the peer has advertised the address that it leads to, from another of
    /// ours.
    fn leave_alone(&mut self, ctx: &Context, now: Instant, i: usize) {
        let Pair { local, remote } = self.subflows[i].pair();
        let mut pairs: Vec<Pair> =
            self.addresses.remotes().iter().map(|r| Pair { local, remote: r.address }).collect();
        if remote != self.initial_tuple.remote {
            let others = self.local_addresses(ctx).into_iter();
            pairs.extend(others.map(|l| Pair { local: l.address, remote }));
        }
        for pair in pairs {
            self.addresses.failures.leave_alone(pair, now + LEFT_ALONE);
        }
    }

    /// Its subflows on a path are wanted as backups, or not any more.
    pub(crate) fn on_path_backup(&mut self, ctx: &mut Context, now: Instant, path: PathId, backup: bool) {
        if self.check_steered().is_err() {
            return;
        }
        let on_it = self.subflows.iter().filter(|m| m.tcp.path() == path).map(|m| m.tcp.id());
        for id in on_it.collect::<Vec<_>>() {
            self.prefer(ctx, now, id, backup);
        }
    }

    /// A subflow is wanted as a backup, or not any more, and the peer is told if that is new.
    pub(super) fn prefer(&mut self, ctx: &mut Context, now: Instant, id: SubflowId, backup: bool) {
        let Some(i) = self.subflows.find(id).filter(|i| self.subflows[*i].own_backup() != backup) else {
            return;
        };
        self.subflows[i].prefer(backup);
        self.tell_priority(now, i);
        self.tell_watchers_of_priority(ctx, now, id);
    }

    fn check_steered(&self) -> Result<(), SubflowError> {
        if self.is_mptcp() && !self.life.has_ended() { Ok(()) } else { Err(SubflowError::NotMptcp) }
    }
}

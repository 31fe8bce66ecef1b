//! Which paths are taken at their word that a server does not speak MPTCP.
//!
//! A captive portal answers in the place of servers, without MPTCP. Its answer must not be taken for the server's while
//! another path may lead there. A path has shown that it is none when MPTCP has come through it, or when another path says
//! the same of a server: then it is believed for a while. So the question costs one connection more now and then, not one for
//! each server that speaks plain TCP only.

use super::context::Context;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;
use umptcp_stack_core::device::PathKind;
use umptcp_stack_core::error::FallbackReason;
use umptcp_stack_core::stack::MptcpStatus;
use umptcp_types::{ConnectionId, Instant, PathId};

/// How long a path is believed that has shown what it is.
const PROVEN: Duration = Duration::from_secs(600);
/// The same where no other path has said anything.
const UNOPPOSED: Duration = Duration::from_secs(60);
/// How long another path has to answer, while one has answered without MPTCP.
pub(crate) const HOLD: Duration = Duration::from_secs(1);

/// What is known of the paths.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// Until when each is believed.
    believed: HashMap<PathId, Instant>,
    /// Of which it was said that it answers in the place of servers, and until when that need not be said again.
    said: HashMap<PathId, Instant>,
}

impl Trust {
    /// The path of a connection that has just been established.
    pub(super) fn path(cx: &Context<'_>, id: ConnectionId) -> Option<PathId> {
        cx.stack.subflows(id).first().map(|subflow| subflow.path)
    }

    /// Whether a connection that has just been established may be with somebody who answers in the place of the server,
    /// so that another path should be asked.
    pub(super) fn doubts(&self, cx: &Context<'_>, id: ConnectionId) -> bool {
        let Some(info) = cx.stack.info(id) else { return false };
        let MptcpStatus::Plain { reason: FallbackReason::NoOptionInSynAck } = info.mptcp else {
            return false;
        };
        let Some(path) = Trust::path(cx, id) else { return false };
        let believed = self.believed.get(&path).is_some_and(|until| cx.now < *until);
        Trust::is_stripped(cx, id) || !believed && has_other(cx, path, info.remote)
    }

    /// Whether a connection that has just been established is plain TCP although its server speaks MPTCP, and a path
    /// inside UDP may do better.
    pub(super) fn is_stripped(cx: &Context<'_>, id: ConnectionId) -> bool {
        let remote = cx.stack.info(id).map(|info| info.remote);
        let speaks = remote.is_some_and(|remote| cx.stack.is_known_to_speak_mptcp(cx.now, remote));
        speaks && cx.stack.stand_in_to_ask(cx.now, id).is_some()
    }

    /// One of two connections is over the path inside UDP that stands in for that of the other.
    pub(super) fn are_of_one_nic(cx: &Context<'_>, ids: [ConnectionId; 2]) -> bool {
        let [Some(a), Some(b)] = ids.map(|id| Trust::path(cx, id)) else { return false };
        cx.stack.is_stand_in_of(a, b) || cx.stack.is_stand_in_of(b, a)
    }

    /// MPTCP has come through a path.
    pub(super) fn on_mptcp(&mut self, now: Instant, path: PathId) {
        self.believe(now, path, PROVEN);
        self.said.remove(&path);
    }

    /// Whether a connection is MPTCP.
    pub(super) fn is_mptcp(cx: &Context<'_>, id: ConnectionId) -> bool {
        cx.stack.info(id).is_some_and(|info| matches!(info.mptcp, MptcpStatus::Active { .. }))
    }

    /// A connection has just been established.
    pub(super) fn on_connected(&mut self, cx: &Context<'_>, id: ConnectionId) {
        if Trust::is_mptcp(cx, id)
            && let Some(path) = Trust::path(cx, id)
        {
            self.on_mptcp(cx.now, path);
        }
    }

    /// Two connections to a server, over different paths, are both plain TCP.
    pub(super) fn on_agreed(&mut self, cx: &Context<'_>, ids: [ConnectionId; 2]) {
        for path in ids.into_iter().filter_map(|id| Trust::path(cx, id)) {
            self.believe(cx.now, path, PROVEN);
        }
    }

    /// Another path has answered with MPTCP where that of this connection has answered without.
    pub(super) fn on_contradicted(&mut self, cx: &Context<'_>, id: ConnectionId) {
        let Some(path) = Trust::path(cx, id) else { return };
        self.believed.remove(&path);
        if self.said.get(&path).is_none_or(|until| cx.now >= *until) {
            self.said.insert(path, cx.now + PROVEN);
            let path = cx.stack.path(path).map(|p| p.name.clone()).unwrap_or_default();
            tracing::warn!(
                path,
                "something on this path answers in the place of servers, without MPTCP, or strips it (a captive portal?): \
                 connections that another path takes further do without it"
            );
        }
    }

    /// No other path has said anything about what that of this connection says. `stripped`: its server is known to
    /// speak MPTCP.
    pub(super) fn on_unopposed(&mut self, cx: &mut Context<'_>, id: ConnectionId, stripped: bool) {
        let asked_inside = cx.stack.stand_in_to_ask(cx.now, id).is_some();
        cx.stack.stand_in_silent(cx.now, id, stripped);
        let (Some(path), Some(info)) = (Trust::path(cx, id), cx.stack.info(id)) else { return };
        // Few servers listen to UDP: where that is all there is to ask, their silence says that this one speaks for itself.
        let only_inside = asked_inside && !has_other(cx, path, info.remote);
        self.believe(cx.now, path, if only_inside { PROVEN } else { UNOPPOSED });
    }

    /// The path may lead into another network now.
    pub(super) fn forget(&mut self, path: PathId) {
        self.believed.remove(&path);
        self.said.remove(&path);
    }

    fn believe(&mut self, now: Instant, path: PathId, time: Duration) {
        let until = self.believed.entry(path).or_insert(now);
        *until = (*until).max(now + time);
    }
}

/// Another path may lead to `remote`.
fn has_other(cx: &Context<'_>, path: PathId, remote: SocketAddr) -> bool {
    let outside = |id: &PathId| cx.stack.path(*id).is_some_and(|p| p.kind != PathKind::Capture);
    let all: Vec<PathId> = cx.paths().into_iter().filter(outside).collect();
    let addressed = |id: PathId| {
        cx.stack.path(id).is_some_and(|p| p.addresses.iter().any(|a| a.is_ipv4() == remote.is_ipv4()))
    };
    let ways = cx.stack.ways_to(cx.now, remote, &all);
    ways.into_iter()
        .any(|other| other != path && addressed(other) && !cx.stack.is_path_down(other, remote.ip()))
}

//! Of a NIC that has two paths, a native one and one inside UDP that stands in for it, a connection uses one: the
//! native one, unless the network on the way strips its options, swallows its SYNs, or changes what it carries.

use super::connection::Connection;
use super::failures::Pair;
use super::negotiation::Mode;
use super::subflow::Subflow;
use crate::context::Context;
use crate::error::{ConnectionError, FallbackReason};
use crate::info::NativeTrouble;
use crate::path_manager::LocalAddress;
use crate::tcp::{CloseReason, FourTuple, State};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use umptcp_types::{Duration, Instant, PathId};

/// How long a server whose subflow inside UDP has fallen silent is not asked that way: the whole network may have been
/// away.
const LOST_INSIDE: Duration = Duration::from_secs(10);

/// How far the subflows of a connection over one path have got.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Standing {
    /// There is none.
    None,
    /// There are some, and none answers any more, or not yet for longer than usual.
    Silent,
    /// One is being opened.
    Begun,
    /// One works.
    Works,
}

impl Connection {
    /// Removes from `locals` the addresses of those paths that are not to be used now because another one over the same
    /// NIC is.
    pub(super) fn retain_ways(&self, ctx: &Context, now: Instant, locals: &mut Vec<LocalAddress>) {
        if ctx.paths().all(|(_, p)| p.stands_in_for.is_none()) {
            return;
        }
        let all = locals.clone();
        let there = |path: PathId, v6: bool| all.iter().any(|l| l.path == path && l.address.is_ipv6() == v6);
        locals.retain(|l| {
            let v6 = l.address.is_ipv6();
            match ctx.native_of(l.path) {
                Some(native) if there(native, v6) => self.uses(ctx, now, native, l.path, v6)[1],
                Some(_) => true,
                None => match ctx.stand_in_of(l.path, v6).filter(|udp| there(*udp, v6)) {
                    Some(udp) => self.uses(ctx, now, l.path, udp, v6)[0],
                    None => true,
                },
            }
        });
    }

    /// Whether subflows may be opened now over a native path, and over the one that stands in for it.
    fn uses(&self, ctx: &Context, now: Instant, native: PathId, udp: PathId, v6: bool) -> [bool; 2] {
        let [on_native, on_udp] = [native, udp].map(|path| self.standing(path, v6));
        if on_udp == Standing::Works {
            return [false, true];
        }
        if on_native == Standing::Works {
            return [true, false];
        }
        let remote = self.initial_tuple.remote;
        let failed = |path| ctx.path(path).is_some_and(|p| self.has_failed_from(&p.addresses, v6));
        // Who was reached natively and does not answer so any more may have gone altogether: both are asked.
        let late = |standing: Standing, path| standing == Standing::Silent || failed(path);
        let silent = ctx.is_silent_inside(now, udp, remote);
        let inside_first = !silent && (ctx.prefers_stand_in(now, native, udp, remote) || failed(native));
        if inside_first {
            [late(on_udp, udp) || on_native >= Standing::Begun, true]
        } else {
            [true, !silent && (late(on_native, native) || on_udp >= Standing::Begun)]
        }
    }

    fn standing(&self, path: PathId, v6: bool) -> Standing {
        let of = |m: &Subflow| {
            let late = m.join.is_syn_sent() && m.tcp.timeouts_in_a_row() > 0;
            match m.can_send_data() {
                _ if m.is_stale() || late => Standing::Silent,
                true => Standing::Works,
                false => Standing::Begun,
            }
        };
        let on_it = |m: &&Subflow| m.tcp.path() == path && m.tcp.tuple().local.is_ipv6() == v6;
        self.subflows.iter().filter(on_it).map(of).max().unwrap_or(Standing::None)
    }

    /// Whether joins of this connection have failed, or subflows were lost, from addresses of a family.
    fn has_failed_from(&self, addresses: &[IpAddr], v6: bool) -> bool {
        let of_family = addresses.iter().filter(|a| a.is_ipv6() == v6);
        of_family.copied().any(|local| self.addresses.failures.has_failed_from(local))
    }

    /// A SYN was not answered in time: the other path over the same NIC may be tried beside it.
    pub(super) fn on_late_syn(&mut self, ctx: &Context, i: usize) {
        let m = &self.subflows[i];
        let v6 = m.tcp.tuple().local.is_ipv6();
        let path = m.tcp.path();
        if m.join.is_syn_sent() && (ctx.native_of(path).is_some() || ctx.stand_in_of(path, v6).is_some()) {
            self.addresses.on_change();
        }
    }

    /// Subflow `i` has been joined. If it stands in for a native one, that is in the way of this connection, and so of
    /// the next; in either case the other need not be opened any more.
    pub(super) fn on_way_works(&mut self, ctx: &mut Context, now: Instant, i: usize) {
        let m = &self.subflows[i];
        let (path, pair, v6) = (m.tcp.path(), m.pair(), m.tcp.tuple().local.is_ipv6());
        let native = ctx.native_of(path);
        let Some(other) = native.or_else(|| ctx.stand_in_of(path, v6)) else { return };
        if native.is_some() {
            ctx.answered_inside(now, path, pair.remote);
        }
        if let Some(native) = native
            && let Some(trouble) = self.trouble_on(ctx, native, pair)
        {
            ctx.native_failed(now, native, v6, trouble);
        }
        for j in self.subflows.indices().rev() {
            let begun = |m: &Subflow| {
                m.join.is_syn_sent() && m.tcp.path() == other && m.tcp.tuple().remote == pair.remote
            };
            if self.subflows.get(j).is_some_and(begun) {
                self.drop_subflow(ctx, now, j, CloseReason::Aborted);
            }
        }
    }

    /// What this connection has seen of a native path to the same address of the peer as `pair` leads to.
    fn trouble_on(&self, ctx: &Context, native: PathId, pair: Pair) -> Option<NativeTrouble> {
        let begun = |m: &&Subflow| {
            m.tcp.path() == native && m.join.is_syn_sent() && m.tcp.tuple().remote == pair.remote
        };
        if self.subflows.iter().any(|m| begun(&m) && m.tcp.timeouts_in_a_row() > 0) {
            return Some(NativeTrouble::Swallowed);
        }
        let addresses = &ctx.path(native)?.addresses;
        let lost = self.addresses.failures.lost();
        let last =
            lost.iter().rev().find(|l| addresses.contains(&l.local.ip()) && l.remote == pair.remote)?;
        // One that worked for a time and was lost says nothing about the next, unless options were missing.
        if last.established && last.reset.is_none_or(|reset| reset.reason.is_none_or(|r| !is_interference(r)))
        {
            return None;
        }
        match last.error {
            ConnectionError::TimedOut => Some(NativeTrouble::Swallowed),
            _ => Some(NativeTrouble::Stripped),
        }
    }

    /// Subflow `i` does not answer any more, or did not at all. Inside UDP, the server is not asked that way for a while.
    pub(super) fn on_way_silent(&mut self, ctx: &mut Context, now: Instant, i: usize) {
        let m = &self.subflows[i];
        let (path, remote) = (m.tcp.path(), m.tcp.tuple().remote);
        if ctx.native_of(path).is_none() {
            return;
        }
        let known = m.reset().is_some_and(|reset| reset.by_peer && reset.reason.is_some());
        if m.is_announced() {
            if m.tcp.close_reason().is_some_and(|why| why != CloseReason::TimedOut) {
                // It was reset, or its path has gone: that says nothing about datagrams.
                return;
            }
            ctx.silent_inside_for(now, path, remote, LOST_INSIDE);
        } else if m.join.is_ours_and_open() && m.tcp.close_reason() != Some(CloseReason::Aborted) && !known {
            ctx.silent_inside(now, path, remote);
        }
    }

    /// Subflow `i` answers again.
    pub(super) fn on_way_recovered(&self, ctx: &mut Context, now: Instant, i: usize) {
        let m = &self.subflows[i];
        if ctx.native_of(m.tcp.path()).is_some() {
            ctx.answered_inside(now, m.tcp.path(), m.tcp.tuple().remote);
        }
    }

    /// The first DATA_ACK has come, by subflow `i`.
    pub(super) fn on_options_pass(&self, ctx: &mut Context, i: usize) {
        let m = &self.subflows[i];
        if m.join.is_initial() {
            ctx.native_works(m.tcp.path(), m.tcp.tuple().local.is_ipv6());
        }
    }

    /// What goes with our SYN may be sent to the server again, by another connection.
    pub(crate) fn may_be_repeated(&mut self) {
        self.repeatable = true;
    }

    /// The first subflow's path and the server, where the answer to our SYN has made this plain TCP, and nothing went with
    /// the SYN that must not go again.
    pub(crate) fn came_plain(&self) -> Option<(PathId, SocketAddr)> {
        let Mode::Plain { reason } = self.mptcp.mode() else { return None };
        let by_answer = matches!(
            reason,
            FallbackReason::NoOptionInSynAck | FallbackReason::SynsLost | FallbackReason::BlackHole
        );
        let again = |m: &Subflow| self.repeatable || m.outgoing.syn_data() == 0;
        let m = self.subflows.first().filter(|m| by_answer && m.is_joined() && again(m))?;
        (self.client && m.tcp.is_synchronized()).then(|| (m.tcp.path(), self.initial_tuple.remote))
    }

    /// How long our first SYN has waited for an answer; `None`: it has one.
    pub(crate) fn waited_for_syn_ack(&self, now: Instant) -> Option<Duration> {
        self.subflows.first().filter(|m| self.client && m.tcp.state() == State::SynSent)?;
        self.began.map(|at| now - at)
    }

    /// The application allows a path.
    pub(crate) fn allows(&self, path: PathId) -> bool {
        self.addresses.allows(path)
    }

    /// It is plain TCP, and the way inside UDP leads nowhere either.
    pub(crate) fn say_no_way_inside(&mut self) {
        if let Mode::Plain { reason } = self.mptcp.mode() {
            self.mptcp.fall_back(reason.and_silent_inside());
        }
    }

    /// A SYN/ACK has come without MPTCP. Where the server is known to speak it, the native path of subflow `i` is in the
    /// way.
    pub(super) fn note_stripped(&self, ctx: &mut Context, now: Instant, i: usize, reason: FallbackReason) {
        let FourTuple { local, remote } = self.subflows[i].tcp.tuple();
        let path = self.subflows[i].tcp.path();
        let stripped = reason == FallbackReason::NoOptionInSynAck && ctx.is_known_to_speak(now, remote);
        if stripped && ctx.stand_in_of(path, local.is_ipv6()).is_some() {
            ctx.native_failed(now, path, local.is_ipv6(), NativeTrouble::Stripped);
        }
    }

    /// The connection, which was MPTCP, is plain TCP from now on: where the native path of its only subflow did that, the
    /// next one goes another way.
    pub(super) fn on_fallback_underway(&self, ctx: &mut Context, now: Instant, reason: FallbackReason) {
        let Some(m) =
            self.subflows.first().filter(|_| self.client && reason != FallbackReason::InfiniteMapping)
        else {
            return;
        };
        let (path, v6) = (m.tcp.path(), m.tcp.tuple().local.is_ipv6());
        if ctx.stand_in_of(path, v6).is_some() {
            ctx.native_failed(now, path, v6, NativeTrouble::Stripped);
        }
    }
}

/// Options were missing, or data were changed: where both ends speak MPTCP, something between them did that.
fn is_interference(reason: crate::wire::mptcp::ResetReason) -> bool {
    use crate::wire::mptcp::ResetReason as R;
    matches!(reason, R::MiddleboxInterference | R::MptcpSpecific)
}

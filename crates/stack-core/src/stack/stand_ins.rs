//! Connections over NICs with two paths: a native one, and one inside UDP that stands in for it.
//!
//! A connection is one attempt over one path. Who makes it asks [`Stack::ways_to`] which is first, and when the answer
//! is plain TCP, [`Stack::stand_in_to_ask`] whether another attempt inside UDP may get a better one, while it holds
//! what it has. What comes of it is told here, and remembered. Later subflows the stack opens by itself in either way.

use super::state::Stack;
use crate::device::PathConfig;
use crate::error::FallbackReason;
use crate::info::NativeTrouble;
use alloc::vec::Vec;
use core::net::SocketAddr;
use umptcp_types::{ConnectionId, Duration, Instant, PathId};

/// A SYN waits for so much longer than an answer inside UDP took, and twice that, before its loss is put down to the
/// network.
const GRACE: Duration = Duration::from_millis(200);

impl Stack {
    /// Paths by which to try to reach `remote`, the best first: of each NIC with two paths the native one, or the one
    /// inside UDP if the native one is known to be in the way, and after all of these the others. A path that is known
    /// not to be answered inside UDP is left out where there is the native one.
    pub fn ways_to(&self, now: Instant, remote: SocketAddr, paths: &[PathId]) -> Vec<PathId> {
        let v6 = remote.is_ipv6();
        let usable = |path: PathId| {
            let has = |p: &PathConfig| p.addresses.iter().any(|a| a.is_ipv6() == v6);
            paths.contains(&path) && self.ctx.path(path).is_some_and(has) && !self.ctx.down_on(path).has(v6)
        };
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for &path in paths {
            if self.ctx.native_of(path).is_some_and(usable) {
                continue;
            }
            match self.ctx.stand_in_of(path, v6).filter(|udp| usable(*udp)) {
                Some(udp) if self.ctx.prefers_stand_in(now, path, udp, remote) => {
                    first.push(udp);
                    second.push(path);
                }
                Some(udp) => {
                    first.push(path);
                    second.extend((!self.ctx.is_silent_inside(now, udp, remote)).then_some(udp));
                }
                None => first.push(path),
            }
        }
        first.append(&mut second);
        first
    }

    /// The path by which another attempt may get MPTCP, where that of `connection`, which is established, got plain TCP:
    /// the one inside UDP over the same NIC, unless the server has lately not answered there. `None` also when the server
    /// has taken data with the SYN, which it must not get twice ([`may_be_repeated`](Self::may_be_repeated)).
    pub fn stand_in_to_ask(&self, now: Instant, connection: ConnectionId) -> Option<PathId> {
        let c = self.connections.get(&connection)?;
        let (native, remote) = c.came_plain()?;
        let udp = self.ctx.stand_in_of(native, remote.is_ipv6())?;
        (c.allows(udp) && !self.ctx.is_silent_inside(now, udp, remote)).then_some(udp)
    }

    /// What `connection` sends with its SYN (Fast Open) may be sent to its server again, by another connection: a request
    /// that has no effect until its answer is used, as that to a relay.
    pub fn may_be_repeated(&mut self, connection: ConnectionId) {
        if let Some(c) = self.connections.get_mut(&connection) {
            c.may_be_repeated();
        }
    }

    /// Whether a path that stands in for another is one of these two.
    pub fn is_stand_in_of(&self, udp: PathId, native: PathId) -> bool {
        self.ctx.native_of(udp) == Some(native)
    }

    /// The path inside UDP that stands in for `native` towards `remote`, unless the server has lately not answered there.
    pub fn stand_in_for(&self, now: Instant, native: PathId, remote: SocketAddr) -> Option<PathId> {
        let udp = self.ctx.stand_in_of(native, remote.is_ipv6())?;
        (!self.ctx.is_silent_inside(now, udp, remote)).then_some(udp)
    }

    /// Whether this server has lately answered with MPTCP, by whatever path. Known only while some path stands in for
    /// another.
    pub fn is_known_to_speak_mptcp(&self, now: Instant, remote: SocketAddr) -> bool {
        self.ctx.is_known_to_speak(now, remote)
    }

    /// The network of a native path does not let MPTCP to `remote` through.
    pub fn native_failed(&mut self, now: Instant, native: PathId, remote: SocketAddr, what: NativeTrouble) {
        if self.ctx.stand_in_of(native, remote.is_ipv6()).is_some() {
            self.ctx.native_failed(now, native, remote.is_ipv6(), what);
        }
    }

    /// Attempt `inside` has got MPTCP inside UDP, while `native`, over the path that it stands in for, has got plain TCP or
    /// no answer: later connections go inside UDP at once, for a while.
    pub fn stand_in_answered(&mut self, now: Instant, inside: ConnectionId, native: ConnectionId) {
        let path_of = |c: ConnectionId| self.connections.get(&c).and_then(|c| c.ways_out().next());
        let (Some((udp, local)), Some((path, _))) = (path_of(inside), path_of(native)) else { return };
        if self.ctx.native_of(udp) != Some(path) {
            return;
        }
        let trip = self.subflows(inside).first().and_then(|m| m.srtt).unwrap_or_default();
        let trouble = match self.connections.get(&native) {
            Some(c) if c.came_plain().is_some() => NativeTrouble::Stripped,
            Some(c) if c.waited_for_syn_ack(now).is_some_and(|t| t > trip * 2 + GRACE) => {
                NativeTrouble::Swallowed
            }
            _ => return,
        };
        self.ctx.native_failed(now, path, local.is_ipv6(), trouble);
    }

    /// No attempt inside UDP has been answered in time beside `connection`, which is plain TCP over a native path. With
    /// `stripped`, its server is known to speak MPTCP: then the reason for plain TCP says both.
    pub fn stand_in_silent(&mut self, now: Instant, connection: ConnectionId, stripped: bool) {
        let Some((native, remote)) = self.connections.get(&connection).and_then(|c| c.came_plain()) else {
            return;
        };
        let Some(udp) = self.ctx.stand_in_of(native, remote.is_ipv6()) else { return };
        if !self.ctx.is_silent_inside(now, udp, remote) {
            self.ctx.silent_inside(now, udp, remote);
        }
        if stripped && let Some(c) = self.connections.get_mut(&connection) {
            c.say_no_way_inside();
        }
    }
}

impl FallbackReason {
    /// The same, where the path inside UDP was not answered either.
    pub(crate) fn and_silent_inside(self) -> FallbackReason {
        match self {
            FallbackReason::NoOptionInSynAck => FallbackReason::StrippedAndNoUdp,
            FallbackReason::SynsLost | FallbackReason::BlackHole => FallbackReason::SwallowedAndNoUdp,
            other => other,
        }
    }
}

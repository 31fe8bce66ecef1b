//! What is remembered of other hosts, and of listeners' Fast Open requests (RFC 7413).

use super::fast_open::{Advice, Cookie, FastOpenSyn};
use super::shared::Context;
use crate::info::{FastOpenServer, NativeTrouble};
use crate::tcp::FourTuple;
use crate::wire::tcp::TcpRepr;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::{IpAddr, SocketAddr};
use umptcp_types::{Duration, Instant, ListenerId, PathId};

impl Context {
    // ---- networks that lose SYNs with MP_CAPABLE (RFC 8684 §3.9.3) ----

    /// Whether MPTCP is not to be tried now towards `address`.
    pub(crate) fn avoids_mptcp(&self, now: Instant, address: IpAddr) -> bool {
        self.black_holes.avoid(now, address)
    }

    /// A SYN/ACK with MP_CAPABLE came from `address`.
    pub(crate) fn mptcp_works(&mut self, address: IpAddr) {
        self.black_holes.works(address);
    }

    /// SYNs with MP_CAPABLE to `address` were lost and one without was answered. True: this is new, and
    /// remembered.
    pub(crate) fn mptcp_swallowed(&mut self, now: Instant, address: IpAddr) -> bool {
        self.black_holes.found(now, address, self.config.blackhole_timeout)
    }

    // ---- native paths, and those inside UDP that stand in for them ----

    /// Some path stands in for another.
    fn has_stand_ins(&self) -> bool {
        self.paths().any(|(_, p)| p.stands_in_for.is_some())
    }

    /// A SYN/ACK with MP_CAPABLE came by `path`.
    pub(crate) fn speaks_mptcp(&mut self, now: Instant, path: PathId, remote: SocketAddr) {
        if self.has_stand_ins() {
            self.stand_ins.on_mptcp(now, remote);
            self.stand_ins.on_answered(path, remote);
        }
    }

    /// Whether a server has lately answered with MP_CAPABLE.
    pub(crate) fn is_known_to_speak(&self, now: Instant, remote: SocketAddr) -> bool {
        self.stand_ins.speaks(now, remote)
    }

    /// MPTCP has come through a path both ways.
    pub(crate) fn native_works(&mut self, path: PathId, v6: bool) {
        self.stand_ins.native_works(path, v6);
    }

    /// The network of a native path is in the way of MPTCP.
    pub(crate) fn native_failed(&mut self, now: Instant, native: PathId, v6: bool, what: NativeTrouble) {
        if self.stand_ins.native_failed(now, native, v6, what) {
            let name = self.path(native).map(|p| p.name.clone()).unwrap_or_default();
            let what = match what {
                NativeTrouble::Stripped => "strips options of MPTCP, or changes packets",
                NativeTrouble::Swallowed => "does not let SYNs with MPTCP through",
            };
            tracing::info!(
                path = name,
                "something on this path {what}: connections go inside UDP for a while"
            );
        }
    }

    /// A server has answered inside UDP.
    pub(crate) fn answered_inside(&mut self, now: Instant, udp: PathId, remote: SocketAddr) {
        self.stand_ins.on_answered(udp, remote);
        self.stand_ins.on_mptcp(now, remote);
    }

    /// A server has not answered inside UDP.
    pub(crate) fn silent_inside(&mut self, now: Instant, udp: PathId, remote: SocketAddr) {
        self.stand_ins.on_silent(now, udp, remote);
    }

    /// A server is not asked inside UDP for `time`.
    pub(crate) fn silent_inside_for(
        &mut self,
        now: Instant,
        udp: PathId,
        remote: SocketAddr,
        time: Duration,
    ) {
        self.stand_ins.leave_alone(now, udp, remote, time);
    }

    // ---- Fast Open, client ----

    /// What to do with a SYN from `local` to `remote`.
    pub(crate) fn fast_open_advice(&self, now: Instant, local: IpAddr, remote: SocketAddr) -> Advice {
        self.fast_open.advise(now, local, remote)
    }

    /// The server gave a cookie.
    pub(crate) fn fast_open_cookie_came(
        &mut self,
        now: Instant,
        local: IpAddr,
        remote: SocketAddr,
        cookie: &Cookie,
        mss: u16,
    ) {
        self.fast_open.remember(now, local, remote, cookie, mss);
    }

    /// The server took data.
    pub(crate) fn fast_open_works(&mut self, now: Instant, local: IpAddr, remote: SocketAddr) {
        self.fast_open.works(now, local, remote);
    }

    /// A SYN was lost, maybe because of the option or its data.
    pub(crate) fn fast_open_in_doubt(&mut self, now: Instant, local: IpAddr, remote: SocketAddr) {
        self.fast_open.doubt(now, local, remote);
    }

    /// The server does not take it.
    pub(crate) fn fast_open_refused(&mut self, now: Instant, local: IpAddr, remote: SocketAddr) {
        self.fast_open.disable(now, local, remote);
    }

    /// What was learned of servers here, those heard of least recently first.
    pub(crate) fn fast_open_servers(&self, now: Instant) -> Vec<FastOpenServer> {
        self.fast_open.learned(now)
    }

    /// Takes over what another stack had learned; false: it was not taken.
    pub(crate) fn take_over_fast_open(&mut self, now: Instant, server: &FastOpenServer) -> bool {
        self.fast_open.take_over(now, server)
    }

    // ---- Fast Open, server ----

    /// A listener takes up to `limit` requests at once.
    pub(crate) fn fast_open_listen(&mut self, listener: ListenerId, limit: usize) {
        self.fast_open.listen(listener, limit);
    }

    pub(crate) fn fast_open_unlisten(&mut self, listener: ListenerId) {
        self.fast_open.unlisten(listener);
    }

    /// What to do with a SYN's Fast Open option and data (RFC 7413 §4.2.2).
    pub(crate) fn on_fast_open_syn(
        &mut self,
        now: Instant,
        listener: ListenerId,
        tuple: &FourTuple,
        syn: &TcpRepr,
        payload: &Bytes,
    ) -> FastOpenSyn {
        let (result, happened) = self.fast_open.on_syn(now, listener, tuple, syn, payload);
        if let Some(what) = happened {
            self.observe(now, None, None, what);
        }
        result
    }

    /// A SYN will not be accepted.
    pub(crate) fn fast_open_syn_dropped(&mut self, now: Instant, listener: ListenerId, syn: &FastOpenSyn) {
        self.fast_open.failed(now, listener, syn);
    }

    /// A request's handshake is complete.
    pub(crate) fn fast_open_settled(&mut self, listener: ListenerId) {
        self.fast_open.settled(listener);
    }

    /// A request's handshake will not be completed.
    pub(crate) fn fast_open_abandoned(&mut self, now: Instant, listener: ListenerId) {
        self.fast_open.abandoned(now, listener);
    }
}

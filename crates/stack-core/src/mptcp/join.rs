//! MP_JOIN in both roles (RFC 8684 §3.2).
//!
//! By example: `docs/src/by-example/join.md`.

use super::connection::Connection;
use super::failures::Pair;
use super::join_state::Join;
use super::subflow::{EndIds, Subflow};
use crate::context::Context;
use crate::error::FallbackReason;
use crate::observe::Counter;
use crate::path_manager::{LocalAddress, RemoteAddress};
use crate::tcp::{CloseReason, FourTuple};
use crate::wire::mptcp::keys::{constant_time_eq, join_hmac, leftmost_64, leftmost_160};
use crate::wire::mptcp::{MpJoin, MptcpOption, ResetReason};
use crate::wire::tcp::TcpRepr;
use core::net::{IpAddr, SocketAddr};
use umptcp_types::{AddressId, Instant, PathId};

/// Joins of the peer at once whose third ACK has not come: who knows a token but not the keys gets no further
/// (RFC 7430 §2.2), so the oldest is dropped and established subflows are never affected.
const MAX_HALF_OPEN: usize = 8;
/// The MP_JOIN option of a segment.
pub(crate) fn join(seg: &TcpRepr) -> Option<&MpJoin> {
    seg.options.mptcp.iter().find_map(|o| match o {
        MptcpOption::Join(j) => Some(j),
        _ => None,
    })
}

/// Why a join is refused: what goes into the MP_TCPRST option (RFC 8684 §3.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: ResetReason,
    /// The same join may succeed later.
    pub(crate) transient: bool,
}

impl Refusal {
    /// RFC 8684 §3.2: an unknown token, a missing option, a wrong HMAC.
    pub(crate) const PROTOCOL: Refusal = Refusal { reason: ResetReason::MptcpSpecific, transient: false };
    /// The connection is not fully established.
    const EARLY: Refusal = Refusal { reason: ResetReason::MptcpSpecific, transient: true };
    /// We set the C flag, or never advertised the port.
    const PROHIBITED: Refusal = Refusal { reason: ResetReason::Prohibited, transient: false };
    /// The limit of subflows, which is a policy: there may be room later.
    const LIMIT: Refusal = Refusal { reason: ResetReason::Prohibited, transient: true };
    /// A resource has run out.
    const RESOURCES: Refusal = Refusal { reason: ResetReason::LackOfResources, transient: true };
}

impl Connection {
    /// Our Address ID for a local address.
    pub(crate) fn local_id(&mut self, ctx: &mut Context, now: Instant, address: IpAddr) -> Option<AddressId> {
        let used = |id| self.subflows.iter().any(|m| m.local_id() == id);
        let id = self.addresses.local_id(address, &ctx.chosen_ids(), used);
        self.check_ids(ctx, now, id)
    }

    /// If there was no ID: the peer is told of those that stand for nothing, so that there will be.
    pub(crate) fn check_ids(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        id: Option<AddressId>,
    ) -> Option<AddressId> {
        if id.is_none() {
            let idle = self.addresses.idle_ids(|id| self.subflows.iter().any(|m| m.local_id() == id));
            self.say_removed(ctx, now, &idle);
        }
        id
    }

    /// Opens a subflow from `local` to `remote`.
    pub(crate) fn open_join(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        local: LocalAddress,
        remote: RemoteAddress,
    ) {
        // RFC 8684 §3.9.1: the port of the first subflow, so that firewalls let it pass, if it is free. Not
        // that of a subflow that was lost: the peer, or something on the path, may still know it.
        let same = SocketAddr::new(local.address, self.initial_tuple.local.port());
        let tuple = FourTuple { local: same, remote: remote.address };
        let used = tuple == self.initial_tuple || self.addresses.failures.was_lost(tuple.local, tuple.remote);
        let port = if !used && ctx.is_free(now, &tuple) {
            Some(same.port())
        } else {
            ctx.free_port(now, local.address, remote.address)
        };
        let Some(port) = port else {
            self.count(ctx, now, None, Counter::MPJoinSynTxBindErr);
            let pair = Pair { local: local.address, remote: remote.address };
            self.addresses.failures.on_join_failed(now, pair);
            return;
        };
        let Some(local_id) = self.local_id(ctx, now, local.address) else {
            self.count(ctx, now, None, Counter::MPJoinSynTxCreatSkErr);
            return;
        };
        let tuple = FourTuple { local: SocketAddr::new(local.address, port), remote: remote.address };
        let tcp = self.new_tcp(ctx, now, local.path, tuple);
        let nonce = ctx.random_u32();
        let ids = EndIds { local: local_id, remote: remote.id };
        self.add_subflow(ctx, tcp, Join::SynSent { nonce }, ids, None).prefer(local.backup);
    }

    /// MP_JOIN for a segment of subflow `i`.
    pub(crate) fn join_option(&self, i: usize) -> Option<MptcpOption> {
        let m = &self.subflows[i];
        let (backup, address_id) = (m.own_backup(), m.local_id());
        let option = match m.join.step() {
            Join::SynSent { nonce } => {
                MpJoin::Syn { backup, address_id, token: self.mptcp.remote_token(), nonce }
            }
            Join::SynReceived { nonce, peer_nonce } => {
                let hmac = leftmost_64(&join_hmac(
                    self.mptcp.local_key(),
                    self.mptcp.remote_key(),
                    nonce,
                    peer_nonce,
                ));
                MpJoin::SynAck { backup, address_id, hmac, nonce }
            }
            Join::AckSent { hmac, .. } => MpJoin::Ack { hmac },
            Join::Initial | Join::Joined => return None,
        };
        Some(MptcpOption::Join(option))
    }

    /// Whether this side opens subflows. RFC 8684 §3.1: none before a DSS has come. A client is not fully
    /// established before; a server is by the third ACK, so it waits for more.
    ///
    /// When the first subflow has gone before, its path is down, or it has fallen silent, a client has nothing to
    /// lose: whether the server has its key the answer to a join will show, and without one the connection has
    /// ended.
    pub(crate) fn opens_subflows(&self, ctx: &Context) -> bool {
        if self.client {
            let cut_off =
                |m: &Subflow| m.is_stale() || ctx.is_path_down(m.tcp.path(), m.tcp.tuple().local.ip());
            self.mptcp.is_fully_established() || (self.is_mptcp() && self.subflows.iter().all(cut_off))
        } else {
            self.mptcp.is_fully_established() && self.config.server_joins && self.mptcp.is_dss_seen()
        }
    }

    /// Subflows that count against the limit: not those of the peer that lack the third ACK.
    pub(crate) fn subflow_count(&self) -> usize {
        let counts = |m: &&Subflow| !m.join.is_half_open() && !m.tcp.is_finished();
        self.subflows.iter().filter(counts).count()
    }

    /// Whether this connection takes one more subflow from its peer, to the address `to`.
    fn admits_join(&self, to: SocketAddr) -> Result<(), Refusal> {
        let over = self.life.has_ended() || (self.send.is_fin_acked() && self.recv.is_finished());
        if self.mptcp.is_plain() || (over && !self.is_in_time_wait()) {
            return Err(Refusal::PROTOCOL);
        }
        if !self.is_mptcp() || !self.mptcp.is_fully_established() {
            return Err(Refusal::EARLY);
        }
        if !self.config.allow_join_initial && to == self.initial_tuple.local {
            return Err(Refusal::PROHIBITED);
        }
        let idle = self.subflows.iter().filter(|m| m.gives_way()).count();
        if self.subflow_count() - idle >= self.config.max_subflows {
            return Err(Refusal::LIMIT);
        }
        Ok(())
    }

    /// A join of the peer's is about to succeed. At the limit it takes the place of a subflow that does not
    /// answer, or whose address the peer has taken back.
    fn make_room(&mut self, ctx: &mut Context, now: Instant) {
        if self.subflow_count() >= self.config.max_subflows
            && let Some(i) = self.subflows.position(Subflow::gives_way)
        {
            self.reset_subflow(ctx, now, i, ResetReason::LackOfResources);
        }
    }

    /// Whether the peer has reason to join to our `port`: it is the first subflow's, or was advertised. The
    /// token would do to find the connection (RFC 8684 §3.2), but it is no reason to answer on ports that the
    /// application never opened, past whatever guards them by their number. Linux refuses such joins too.
    pub(crate) fn offers_port(&self, port: u16) -> bool {
        port == self.initial_tuple.local.port() || self.addresses.adverts.offers_port(port)
    }

    /// A SYN with MP_JOIN and our token arrived. An error says with which RST to refuse it.
    pub(crate) fn on_join_syn(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        path: PathId,
        tuple: FourTuple,
        seg: &TcpRepr,
    ) -> Result<(), Refusal> {
        let Some(&MpJoin::Syn { backup, address_id, nonce: peer_nonce, .. }) = join(seg) else {
            return Err(Refusal::PROTOCOL);
        };
        self.count(ctx, now, None, Counter::MPJoinSynRx);
        if backup {
            self.count(ctx, now, None, Counter::MPJoinSynBackupRx);
        }
        let admitted = match self.is_ending_on(ctx, path) {
            true => Err(Refusal::LIMIT),
            false => self.admits_join(tuple.local),
        };
        if let Err(refusal) = admitted {
            self.count(ctx, now, None, Counter::MPJoinRejected);
            return Err(refusal);
        }
        let port = tuple.local.port();
        if !self.offers_port(port) {
            self.count(ctx, now, None, Counter::MismatchPortSynRx);
            return Err(Refusal::PROHIBITED);
        }
        if port != self.initial_tuple.local.port() {
            self.count(ctx, now, None, Counter::MPJoinPortSynRx);
        }
        // An advertised port may have an ID of its own, by which it is taken back later.
        let advertised = self.addresses.adverts.id_at(tuple.local.ip(), port);
        let Some(local_id) = advertised.or_else(|| self.local_id(ctx, now, tuple.local.ip())) else {
            self.count(ctx, now, None, Counter::MPJoinRejected);
            return Err(Refusal::RESOURCES);
        };
        if self.subflows.iter().filter(|m| m.join.is_half_open()).count() >= MAX_HALF_OPEN
            && let Some(oldest) = self.subflows.position(|m| m.join.is_half_open())
        {
            self.count(ctx, now, Some(self.subflows[oldest].tcp.id()), Counter::MPJoinHalfOpenDrop);
            self.drop_subflow(ctx, now, oldest, CloseReason::TimedOut);
        }
        let nonce = ctx.random_u32();
        let tcp = self.new_tcp(ctx, now, path, tuple).accept(now, seg);
        let (step, ids) =
            (Join::SynReceived { nonce, peer_nonce }, EndIds { local: local_id, remote: address_id });
        self.add_subflow(ctx, tcp, step, ids, None).on_prio(backup);
        self.subflows.sweep();
        Ok(())
    }

    /// Both ends sent a SYN (RFC 9293 §3.5). The first subflow falls back, since neither end knows the
    /// other's key. Joins with crossing SYNs become one subflow (RFC 8684 §3.9.2): each end answers the
    /// other's SYN and proves itself twice. False: the subflow has gone.
    pub(crate) fn on_simultaneous_open(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        i: usize,
        seg: &TcpRepr,
    ) -> bool {
        let Join::SynSent { nonce } = self.subflows[i].join.step() else {
            self.count(ctx, now, Some(self.subflows[i].tcp.id()), Counter::SimultConnectFallback);
            self.fall_back(ctx, now, FallbackReason::SimultaneousOpen);
            return true;
        };
        self.count(ctx, now, Some(self.subflows[i].tcp.id()), Counter::MPJoinSynRx);
        match join(seg) {
            Some(&MpJoin::Syn { backup, address_id, token, nonce: peer_nonce })
                if token == self.mptcp.local_token() =>
            {
                let m = &mut self.subflows[i];
                m.join.on_crossing_syn(nonce, peer_nonce);
                m.on_peer_join(address_id, backup);
                true
            }
            _ => {
                self.count(ctx, now, Some(self.subflows[i].tcp.id()), Counter::MPJoinRejected);
                self.refuse_subflow(ctx, now, i, Refusal::PROTOCOL);
                false
            }
        }
    }

    /// The SYN/ACK of a join arrived. An error: the subflow must be reset (RFC 8684 §3.2).
    pub(crate) fn on_join_syn_ack(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        i: usize,
        seg: &TcpRepr,
    ) -> Result<(), Refusal> {
        let nonce = match self.subflows[i].join.step() {
            Join::SynSent { nonce } | Join::SynReceived { nonce, .. } => nonce,
            _ => return Err(Refusal::PROTOCOL),
        };
        let id = Some(self.subflows[i].tcp.id());
        let Some(&MpJoin::SynAck { backup, address_id, hmac, nonce: peer_nonce }) = join(seg) else {
            self.count(ctx, now, id, Counter::MPJoinRejected);
            return Err(Refusal::PROTOCOL);
        };
        self.count(ctx, now, id, Counter::MPJoinSynAckRx);
        if backup {
            self.count(ctx, now, id, Counter::MPJoinSynAckBackupRx);
        }
        if self.subflows[i].tcp.tuple().remote.port() != self.initial_tuple.remote.port() {
            self.count(ctx, now, id, Counter::MPJoinPortSynAckRx);
        }
        let expected =
            leftmost_64(&join_hmac(self.mptcp.remote_key(), self.mptcp.local_key(), peer_nonce, nonce));
        if !constant_time_eq(&expected.to_be_bytes(), &hmac.to_be_bytes()) {
            self.count(ctx, now, id, Counter::MPJoinSynAckHMacFailure);
            return Err(Refusal::PROTOCOL);
        }
        self.mptcp.on_keys_proved();
        let hmac =
            leftmost_160(&join_hmac(self.mptcp.local_key(), self.mptcp.remote_key(), nonce, peer_nonce));
        let m = &mut self.subflows[i];
        m.on_peer_join(address_id, backup);
        m.join.on_syn_ack(now, hmac, m.tcp.rto());
        Ok(())
    }

    /// The third ACK of a join arrived. An error: the subflow must be reset.
    pub(crate) fn on_join_ack(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        i: usize,
        seg: &TcpRepr,
    ) -> Result<(), Refusal> {
        let Join::SynReceived { nonce, peer_nonce } = self.subflows[i].join.step() else { return Ok(()) };
        if seg.flags.syn {
            // The answer to our SYN of a simultaneous open.
            return self.on_join_syn_ack(ctx, now, i, seg);
        }
        let id = Some(self.subflows[i].tcp.id());
        let Some(&MpJoin::Ack { hmac }) = join(seg) else {
            self.count(ctx, now, id, Counter::MPJoinRejected);
            return Err(Refusal::PROTOCOL);
        };
        let expected =
            leftmost_160(&join_hmac(self.mptcp.remote_key(), self.mptcp.local_key(), peer_nonce, nonce));
        if !constant_time_eq(&expected, &hmac) {
            self.count(ctx, now, id, Counter::MPJoinAckHMacFailure);
            return Err(Refusal::PROTOCOL);
        }
        let port = self.subflows[i].tcp.tuple().local.port();
        if self.subflows[i].join.is_incoming() && !self.offers_port(port) {
            // The advertisement was taken back meanwhile.
            self.count(ctx, now, id, Counter::MismatchPortAckRx);
            return Err(Refusal::PROHIBITED);
        }
        if port != self.initial_tuple.local.port() {
            self.count(ctx, now, id, Counter::MPJoinPortAckRx);
        }
        // More joins may have been under way than there is room for.
        if let Err(refusal) = self.admits_join(self.subflows[i].tcp.tuple().local) {
            self.count(ctx, now, id, Counter::MPJoinRejected);
            return Err(refusal);
        }
        self.make_room(ctx, now);
        self.count(ctx, now, id, Counter::MPJoinAckRx);
        self.subflows[i].join.on_joined();
        // RFC 8684 §3.2: the third ACK must be answered, or the peer keeps sending it.
        self.subflows[i].tcp.ack_now();
        self.announce(ctx, now, i);
        Ok(())
    }

    /// Anything the peer sends after our third ACK shows that it arrived: ESTABLISHED (RFC 8684 §3.2).
    pub(crate) fn on_join_confirmed(&mut self, ctx: &mut Context, now: Instant, i: usize) {
        if self.subflows[i].join.is_ack_sent() {
            self.subflows[i].join.on_joined();
            self.announce(ctx, now, i);
        }
    }

    /// Sends third ACKs again that nobody answered.
    pub(crate) fn resend_join_acks(&mut self, ctx: &mut Context, now: Instant) {
        for i in self.subflows.indices().rev() {
            match self.subflows.get_mut(i).and_then(|m| m.join.on_time(now)) {
                None => {}
                Some(true) => self.subflows[i].tcp.ack_now(),
                Some(false) => self.reset_subflow(ctx, now, i, ResetReason::MiddleboxInterference),
            }
        }
    }
}

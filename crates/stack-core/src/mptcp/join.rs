//! MP_JOIN in both roles (RFC 8684 §3.2).

use super::connection::Connection;
use super::keys::{constant_time_eq, join_hmac, leftmost_64, leftmost_160};
use super::member::{Join, Member};
use crate::observe::Counter;
use crate::path_manager::{LocalAddress, RemoteAddress};
use crate::stack::env::Env;
use crate::tcp::FourTuple;
use crate::wire::mptcp::{MpJoin, MptcpOption, ResetReason};
use crate::wire::tcp::TcpRepr;
use core::net::{IpAddr, SocketAddr};
use umptcp_types::{AddressId, Duration, Instant, PathId};

/// First interval between third ACKs that nobody answers; doubles.
const ACK_RESEND: Duration = Duration::from_millis(200);
/// Third ACKs sent before the subflow is given up.
const ACK_TRIES: u8 = 6;

/// The MP_JOIN option of a segment.
pub(crate) fn join(seg: &TcpRepr) -> Option<&MpJoin> {
    seg.options.mptcp.iter().find_map(|o| match o {
        MptcpOption::Join(j) => Some(j),
        _ => None,
    })
}

impl Connection {
    /// Our Address ID for a local address: the same address always gets the same ID (RFC 8684 §3.2). When every number has been
    /// given out, one is used again whose address has neither subflow nor advertisement.
    pub(crate) fn local_id(&mut self, address: IpAddr) -> Option<AddressId> {
        if let Some((_, id)) = self.local_ids.iter().find(|(a, _)| *a == address) {
            return Some(*id);
        }
        let highest = self.local_ids.iter().map(|(_, id)| id.0).max()?;
        if let Some(next) = highest.checked_add(1) {
            self.local_ids.push((address, AddressId(next)));
            return Some(AddressId(next));
        }
        let (members, adverts) = (&self.members, &self.adverts);
        let free = |id: AddressId| {
            let used = members.iter().any(|m| m.local_id == id) || adverts.iter().any(|a| a.id == id);
            id != AddressId(0) && !used
        };
        let slot = self.local_ids.iter_mut().find(|(_, id)| free(*id))?;
        slot.0 = address;
        Some(slot.1)
    }

    /// Opens a subflow from `local` to `remote`.
    pub(crate) fn open_join(
        &mut self,
        env: &mut Env,
        now: Instant,
        local: LocalAddress,
        remote: RemoteAddress,
    ) {
        let Some(port) = env.free_port(now, local.address, remote.address) else {
            self.failed.push((local.address, remote.address));
            return;
        };
        let Some(local_id) = self.local_id(local.address) else { return };
        let tuple = FourTuple { local: SocketAddr::new(local.address, port), remote: remote.address };
        let tcp = self.new_subflow(env, now, local.path, tuple);
        let nonce = env.random_u32();
        self.add_member(env, Member::new(tcp, Join::SynSent { nonce }, local_id, remote.id));
    }

    /// The option for a SYN or SYN/ACK of member `i`.
    pub(crate) fn join_option(&self, i: usize) -> Option<MptcpOption> {
        let m = &self.members[i];
        let (backup, address_id) = (m.backup_local, m.local_id);
        let option = match m.join {
            Join::SynSent { nonce } => MpJoin::Syn { backup, address_id, token: self.remote_token, nonce },
            Join::SynReceived { nonce, peer_nonce } => {
                let hmac = leftmost_64(&join_hmac(self.local_key, self.remote_key, nonce, peer_nonce));
                MpJoin::SynAck { backup, address_id, hmac, nonce }
            }
            _ => return None,
        };
        Some(MptcpOption::Join(option))
    }

    /// Whether this connection takes one more subflow from its peer.
    fn admits_join(&self, to: SocketAddr) -> bool {
        let initial = to == self.first.local;
        self.is_mptcp()
            && self.fully_established
            && self.ended.is_none()
            && !(self.fin.acked && self.recv.finished())
            && self.members.len() < self.config.max_subflows
            && (self.config.allow_join_initial || !initial)
    }

    /// A SYN with MP_JOIN and our token arrived. False: it is to be refused with a RST.
    pub(crate) fn on_join_syn(
        &mut self,
        env: &mut Env,
        now: Instant,
        path: PathId,
        tuple: FourTuple,
        seg: &TcpRepr,
    ) -> bool {
        let Some(&MpJoin::Syn { backup, address_id, nonce: peer_nonce, .. }) = join(seg) else {
            return false;
        };
        self.count(env, now, None, Counter::MPJoinSynRx);
        if backup {
            self.count(env, now, None, Counter::MPJoinSynBackupRx);
        }
        if !self.admits_join(tuple.local) {
            self.count(env, now, None, Counter::MPJoinRejected);
            return false;
        }
        let Some(local_id) = self.local_id(tuple.local.ip()) else { return false };
        let nonce = env.random_u32();
        let tcp = self.new_subflow(env, now, path, tuple).accept(now, seg);
        let mut member = Member::new(tcp, Join::SynReceived { nonce, peer_nonce }, local_id, address_id);
        member.backup_remote = backup;
        self.add_member(env, member);
        true
    }

    /// The SYN/ACK of a join arrived. False: the subflow must be reset (RFC 8684 §3.2).
    pub(crate) fn on_join_syn_ack(&mut self, env: &mut Env, now: Instant, i: usize, seg: &TcpRepr) -> bool {
        let Join::SynSent { nonce } = self.members[i].join else { return false };
        let id = Some(self.members[i].tcp.id);
        let Some(&MpJoin::SynAck { backup, address_id, hmac, nonce: peer_nonce }) = join(seg) else {
            return false;
        };
        self.count(env, now, id, Counter::MPJoinSynAckRx);
        if backup {
            self.count(env, now, id, Counter::MPJoinSynAckBackupRx);
        }
        let expected = leftmost_64(&join_hmac(self.remote_key, self.local_key, peer_nonce, nonce));
        if !constant_time_eq(&expected.to_be_bytes(), &hmac.to_be_bytes()) {
            self.count(env, now, id, Counter::MPJoinSynAckHMacFailure);
            return false;
        }
        let hmac = leftmost_160(&join_hmac(self.local_key, self.remote_key, nonce, peer_nonce));
        let m = &mut self.members[i];
        m.backup_remote = backup;
        m.remote_id = address_id;
        m.join = Join::AckSent { hmac, resend: now + ACK_RESEND.max(m.tcp.rtt.rto()), tries: 1 };
        true
    }

    /// The third ACK of a join arrived. False: the subflow must be reset.
    pub(crate) fn on_join_ack(&mut self, env: &mut Env, now: Instant, i: usize, seg: &TcpRepr) -> bool {
        let Join::SynReceived { nonce, peer_nonce } = self.members[i].join else { return true };
        let id = Some(self.members[i].tcp.id);
        let Some(&MpJoin::Ack { hmac }) = join(seg) else { return false };
        let expected = leftmost_160(&join_hmac(self.remote_key, self.local_key, peer_nonce, nonce));
        if !constant_time_eq(&expected, &hmac) {
            self.count(env, now, id, Counter::MPJoinAckHMacFailure);
            return false;
        }
        self.count(env, now, id, Counter::MPJoinAckRx);
        self.members[i].join = Join::Joined;
        // RFC 8684 §3.2: the third ACK must be answered, or the peer keeps sending it.
        self.members[i].tcp.ack_now();
        self.announce(env, now, i);
        true
    }

    /// Anything the peer sends after our third ACK shows that it arrived: ESTABLISHED (RFC 8684 §3.2).
    pub(crate) fn on_join_confirmed(&mut self, env: &mut Env, now: Instant, i: usize) {
        if matches!(self.members[i].join, Join::AckSent { .. }) {
            self.members[i].join = Join::Joined;
            self.announce(env, now, i);
        }
    }

    /// Sends third ACKs again that nobody answered.
    pub(crate) fn resend_join_acks(&mut self, env: &mut Env, now: Instant) {
        // Backwards, because a reset removes the member.
        for i in (0..self.members.len()).rev() {
            let Some(&Join::AckSent { hmac, resend, tries }) = self.members.get(i).map(|m| &m.join) else {
                continue;
            };
            if resend > now {
                continue;
            }
            if tries >= ACK_TRIES {
                self.reset_member(env, now, i, ResetReason::MiddleboxInterference);
                continue;
            }
            let interval = ACK_RESEND.saturating_mul(1 << tries);
            self.members[i].join = Join::AckSent { hmac, resend: now + interval, tries: tries + 1 };
            self.members[i].tcp.ack_now();
        }
    }
}

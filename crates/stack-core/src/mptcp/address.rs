//! Addresses: ADD_ADDR, REMOVE_ADDR, MP_PRIO, and what the path manager decides (RFC 8684 §3.3.8, §3.4).

use super::connection::{Advert, Connection};
use super::keys::{add_addr_hmac, constant_time_eq};
use crate::observe::Counter;
use crate::path_manager::{Command, LocalAddress, RemoteAddress, SubflowEnds, View};
use crate::stack::env::Env;
use crate::wire::mptcp::{AddAddr, MpPrio, MptcpOption, RemoveAddr, ResetReason};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use smallvec::SmallVec;
use umptcp_types::{AddressId, Duration, Instant, PathId};

/// ADD_ADDRs sent before giving up on an echo.
const ADVERT_TRIES: u8 = 4;

impl Connection {
    /// Local addresses this connection may use, in order of path.
    fn local_addresses(&self, env: &Env) -> Vec<LocalAddress> {
        let mut out = Vec::new();
        for &path in &env.path_order {
            if !self.paths.is_empty() && !self.paths.contains(&path) {
                continue;
            }
            let Some(p) = env.paths.get(&path) else { continue };
            if p.config.kind == crate::interface::PathKind::Capture {
                continue;
            }
            for &address in &p.config.addresses {
                let family = |a: &&IpAddr| a.is_ipv4() == address.is_ipv4();
                let advertise = p.config.advertise.iter().find(family).copied().unwrap_or(address);
                out.push(LocalAddress { path, address, advertise, backup: p.config.backup });
            }
        }
        out
    }

    /// Asks the path manager what to do, and does it.
    pub(crate) fn manage_paths(&mut self, env: &mut Env, now: Instant) {
        if !self.is_mptcp() || !self.fully_established || self.ended.is_some() {
            return;
        }
        // Little is left to send after a DATA_FIN, so no subflow is worth it, unless there is none.
        if self.fin.sent && !self.members.is_empty() {
            return;
        }
        let local = self.local_addresses(env);
        // The C flag forbids joins to the initial address and port (RFC 8684 §3.1).
        let remote: Vec<RemoteAddress> = self
            .remotes
            .iter()
            .filter(|r| self.peer_allows_initial_join || r.address != self.first.remote)
            .copied()
            .collect();
        let subflows: Vec<SubflowEnds> = self
            .members
            .iter()
            .map(|m| SubflowEnds {
                path: m.tcp.path,
                local: m.tcp.tuple.local.ip(),
                remote: m.tcp.tuple.remote,
            })
            .collect();
        let advertised: Vec<IpAddr> = self.adverts.iter().map(|a| a.address).collect();
        let view = View {
            client: self.client,
            local: &local,
            remote: &remote,
            subflows: &subflows,
            failed: &self.failed,
            max_subflows: self.config.max_subflows,
            advertise: self.config.advertise_addresses,
            advertised: &advertised,
        };
        for command in self.policy.decide(&view) {
            match command {
                Command::Open { local: l, remote: r } => {
                    if let (Some(&l), Some(&r)) = (local.get(l), remote.get(r))
                        && self.members.len() < self.config.max_subflows
                    {
                        self.open_join(env, now, l, r);
                    }
                }
                Command::Advertise { local: l } => {
                    if let Some(&l) = local.get(l) {
                        self.advertise(env, now, l);
                    }
                }
            }
        }
    }

    fn advertise(&mut self, env: &mut Env, now: Instant, local: LocalAddress) {
        let Some(id) = self.local_id(local.address) else { return };
        let _ = env;
        self.adverts.push(Advert {
            id,
            address: local.advertise,
            echoed: false,
            resend: Some(now),
            tries: 0,
        });
        self.resend_adverts(now);
    }

    /// Sends ADD_ADDRs that are due: the first time, or because no echo came (RFC 8684 §3.4.1).
    pub(crate) fn resend_adverts(&mut self, now: Instant) {
        let rto = self.members.iter().map(|m| m.tcp.rtt.rto()).max().unwrap_or(Duration::from_secs(1));
        for a in &mut self.adverts {
            if a.resend.is_none_or(|t| t > now) {
                continue;
            }
            if a.echoed || a.tries >= ADVERT_TRIES {
                a.resend = None;
                continue;
            }
            a.resend = Some(now + rto.saturating_mul(1 << a.tries));
            a.tries += 1;
            let hmac = add_addr_hmac(self.local_key, self.remote_key, a.id, a.address, 0);
            let option = AddAddr { address_id: a.id, address: a.address, port: None, hmac: Some(hmac) };
            let member = self.members.iter_mut().find(|m| m.is_joined() && m.tcp.is_synchronized());
            if let Some(m) = member {
                m.signals.push_back(MptcpOption::AddAddr(option));
            }
        }
    }

    /// ADD_ADDR or its echo (RFC 8684 §3.4.1).
    pub(crate) fn on_add_addr(&mut self, env: &mut Env, now: Instant, i: usize, a: &AddAddr) {
        let id = Some(self.members[i].tcp.id);
        let Some(hmac) = a.hmac else {
            self.count(env, now, id, Counter::EchoAdd);
            for own in &mut self.adverts {
                if own.id == a.address_id && own.address == a.address {
                    own.echoed = true;
                    own.resend = None;
                }
            }
            return;
        };
        self.count(env, now, id, Counter::AddAddr);
        if a.port.is_some() {
            self.count(env, now, id, Counter::PortAdd);
        }
        let port = a.port.unwrap_or(0);
        let expected = add_addr_hmac(self.remote_key, self.local_key, a.address_id, a.address, port);
        if !constant_time_eq(&expected.to_be_bytes(), &hmac.to_be_bytes()) {
            self.count(env, now, id, Counter::AddAddrDrop);
            return;
        }
        // Nobody without both keys makes this HMAC. A peer that sends nothing but the advertisement (its DATA_ACK does not
        // fit beside an IPv6 address) would otherwise get MP_CAPABLE in place of the echo, for ever.
        self.peer_has_keys = true;
        // The echo says that it arrived; whether it is used is another matter.
        let echo = AddAddr { hmac: None, ..*a };
        self.members[i].signals.push_back(MptcpOption::AddAddr(echo));
        let address = SocketAddr::new(a.address, a.port.unwrap_or(self.first.remote.port()));
        let advertised = self.remotes.iter().filter(|r| r.id != AddressId(0)).count();
        match self.remotes.iter_mut().find(|r| r.id == a.address_id) {
            // RFC 8684 §3.4.1: an ID keeps its address until it is removed; a repetition changes nothing.
            Some(r) => {
                if r.address != address {
                    self.count(env, now, id, Counter::AddAddrDrop);
                }
                return;
            }
            None if advertised >= self.config.max_add_addr_accepted => {
                self.count(env, now, id, Counter::AddAddrDrop);
                return;
            }
            None => {
                self.failed.retain(|(_, r)| *r != address);
                self.remotes.push(RemoteAddress { id: a.address_id, address });
            }
        }
        self.manage_paths(env, now);
    }

    /// REMOVE_ADDR (RFC 8684 §3.4.2).
    pub(crate) fn on_remove_addr(&mut self, env: &mut Env, now: Instant, r: &RemoveAddr) {
        for &address_id in &r.ids {
            self.count(env, now, None, Counter::RmAddr);
            self.remotes.retain(|r| r.id != address_id);
            let mut found = false;
            // Backwards, because a reset removes the member.
            for i in (0..self.members.len()).rev() {
                if self.members.get(i).is_some_and(|m| m.remote_id == address_id) && self.members.len() > 1 {
                    found = true;
                    self.count(env, now, Some(self.members[i].tcp.id), Counter::RmSubflow);
                    self.reset_member(env, now, i, ResetReason::Unspecified);
                }
            }
            if !found {
                self.count(env, now, None, Counter::RmAddrDrop);
            }
        }
    }

    /// MP_PRIO (RFC 8684 §3.3.8): for the subflow that carries it.
    pub(crate) fn on_prio(&mut self, env: &mut Env, now: Instant, i: usize, p: &MpPrio) {
        self.count(env, now, Some(self.members[i].tcp.id), Counter::MPPrioRx);
        self.members[i].backup_remote = p.backup;
    }

    /// A path has gone: its subflows end, and the peer is told that the addresses have (RFC 8684 §3.4.2).
    pub(crate) fn on_path_removed(&mut self, env: &mut Env, now: Instant, path: PathId) {
        let mut ids: SmallVec<[AddressId; 8]> = SmallVec::new();
        for i in (0..self.members.len()).rev() {
            if self.members.get(i).is_some_and(|m| m.tcp.path == path) {
                let m = &self.members[i];
                if !ids.contains(&m.local_id) {
                    ids.push(m.local_id);
                }
                self.drop_member(env, now, i, crate::tcp::CloseReason::Aborted);
            }
        }
        if !ids.is_empty()
            && self.is_mptcp()
            && let Some(m) = self.members.iter_mut().find(|m| m.is_joined() && m.tcp.is_synchronized())
        {
            m.signals.push_back(MptcpOption::RemoveAddr(RemoveAddr { ids }));
        }
        self.after_progress(env, now);
    }

    /// Counts a signal that goes out.
    pub(crate) fn count_signal(&self, env: &mut Env, now: Instant, i: usize, signal: &MptcpOption) {
        let what = match signal {
            MptcpOption::AddAddr(AddAddr { hmac: Some(_), .. }) => Counter::AddAddrTx,
            MptcpOption::AddAddr(_) => Counter::EchoAddTx,
            MptcpOption::RemoveAddr(_) => Counter::RmAddrTx,
            MptcpOption::Prio(_) => Counter::MPPrioTx,
            MptcpOption::Fail(_) => Counter::MPFailTx,
            MptcpOption::FastClose(_) => Counter::MPFastcloseTx,
            _ => return,
        };
        self.count(env, now, Some(self.members[i].tcp.id), what);
    }
}

//! Addresses: ADD_ADDR, REMOVE_ADDR, MP_PRIO, and what the path manager decides (RFC 8684 §3.3.8, §3.4).

use super::addresses::JOINS_PERIOD;
use super::adverts::{Advertised, Due};
use super::connection::Connection;
use super::failures::Pair;
use super::notices::Notice;
use super::subflow::Subflow;
use crate::context::{Context, Use};
use crate::device::Families;
use crate::error::SignalError;
use crate::monitor::MonitorEvent;
use crate::observe::Counter;
use crate::path_manager::{Command, LocalAddress, RemoteAddress, SubflowEnds, Uses, View};
use crate::wire::ip::can_be_peer;
use crate::wire::mptcp::keys::{add_addr_hmac, constant_time_eq};
use crate::wire::mptcp::{AddAddr, MpPrio, MptcpOption, RemoveAddr, ResetReason};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use smallvec::SmallVec;
use umptcp_types::{AddressId, Duration, Instant, PathId, SubflowId};

/// IDs per REMOVE_ADDR: as many as fit beside timestamps.
const IDS_PER_OPTION: usize = 27;

/// Joins at once to addresses that the peer has advertised and nobody has answered from.
const TENTATIVE: usize = 2;

impl Connection {
    /// Local addresses this connection may use, in order of path.
    pub(super) fn local_addresses(&self, ctx: &Context) -> Vec<LocalAddress> {
        let mut out = Vec::new();
        for (path, p) in ctx.paths() {
            if !self.addresses.allows(path) || self.is_ending_on(ctx, path) {
                continue;
            }
            if p.kind == crate::device::PathKind::Capture {
                continue;
            }
            for &address in p.addresses.iter().filter(|a| !ctx.is_path_down(path, **a)) {
                let family = |a: &&IpAddr| a.is_ipv4() == address.is_ipv4();
                let advertise = p.advertise.iter().find(family).copied().unwrap_or(address);
                let mut local = LocalAddress::new(path, address);
                local.advertise = advertise;
                local.backup = p.backup;
                local.uses = p.uses;
                out.push(local);
                for port in p.signal_ports.iter().filter(|port| port.ipv6 == address.is_ipv6()) {
                    local.uses = Uses::of_words(true, false, false, false);
                    local.port = Some(port.port);
                    out.push(local);
                }
            }
        }
        out
    }

    /// Runs the path manager and carries out its commands.
    pub(crate) fn manage_paths(&mut self, ctx: &mut Context, now: Instant) {
        let early = !self.mptcp.is_fully_established() && !self.opens_subflows(ctx);
        if !self.is_mptcp() || early || self.life.has_ended() {
            return;
        }
        // With little left in either direction no subflow is worth it, unless there is none.
        if self.send.is_fin_sent() && self.recv.is_finished() && !self.subflows.is_empty() {
            return;
        }
        // A server that opens subflows runs the path manager again once it may.
        let again = self.config.server_joins && !self.client && !self.mptcp.is_dss_seen();
        self.addresses.on_look(again);
        let mut local = self.local_addresses(ctx);
        self.retain_ways(ctx, now, &mut local);
        local.retain(|l| !self.addresses.is_withdrawn(l.address));
        // The C flag forbids joins to the initial address and port (RFC 8684 §3.1).
        let remote: Vec<RemoteAddress> = self
            .addresses
            .remotes()
            .iter()
            .filter(|r| self.mptcp.peer_allows_initial_join() || r.address != self.initial_tuple.remote)
            // RFC 8684 §3.4: the peer has joined from it already, from whatever address a translator made of
            // it.
            .filter(|r| {
                r.id == AddressId(0)
                    || !self.subflows.iter().any(|m| m.join.is_incoming() && m.remote_id() == r.id)
            })
            .copied()
            .collect();
        let ends = |m: &Subflow| {
            let mut ends = SubflowEnds::new(m.tcp.path(), m.tcp.tuple().local.ip(), m.tcp.tuple().remote);
            ends.works = m.can_send_data();
            ends.backup = m.own_backup();
            ends.tentative = self.is_tentative(m);
            ends.stale = m.is_stale();
            ends
        };
        let (ids, subflows): (Vec<SubflowId>, Vec<SubflowEnds>) =
            self.subflows.iter().map(|m| (m.tcp.id(), ends(m))).unzip();
        let advertised = self.addresses.adverts.told();
        self.addresses.failures.end_waits(now);
        let mut barred = self.addresses.failures.barred(!self.subflows.is_empty());
        for r in remote.iter().filter(|r| r.id != AddressId(0)) {
            if self.addresses.failures.bars_remote(now, r.address) {
                barred.extend(local.iter().map(|l| (l.address, r.address)));
            }
        }
        let mut view = View::new(&local, &remote);
        view.client = self.client;
        view.opens = self.opens_subflows(ctx);
        view.subflows = &subflows;
        view.failed = &barred;
        view.max_subflows = self.config.max_subflows;
        view.advertise = self.config.advertise_addresses;
        view.advertised = &advertised;
        for command in self.addresses.decide(&view) {
            match command {
                Command::Open { local: l, remote: r, backup } => {
                    if let (Some(&(mut l)), Some(&r)) = (local.get(l), remote.get(r))
                        && l.address.is_ipv4() == r.address.is_ipv4()
                    {
                        l.backup = backup;
                        self.open_if_allowed(ctx, now, l, r);
                    }
                }
                Command::SetBackup { subflow, backup } => {
                    if let Some(&id) = ids.get(subflow) {
                        self.prefer(ctx, now, id, backup);
                    }
                }
                Command::Advertise { local: l } => {
                    if let Some(&l) = local.get(l) {
                        self.advertise(ctx, now, l);
                    }
                }
            }
        }
        self.resend_adverts(ctx, now);
    }

    /// Opens a subflow, as far as the limits allow.
    fn open_if_allowed(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        local: LocalAddress,
        remote: RemoteAddress,
    ) {
        let advertised = remote.id != AddressId(0);
        let tentative = |m: &Subflow| self.is_tentative(m);
        let unproved = advertised && !self.addresses.failures.is_reached(remote.address);
        if unproved && self.subflows.iter().filter(|m| tentative(m)).count() >= TENTATIVE {
            // Looked at again when one of them has been answered, or given up.
            return;
        }
        if self.subflow_count() >= self.config.max_subflows {
            // An address that may lead nowhere must not keep a path of ours from being used.
            let displaced = self.subflows.position(tentative).filter(|_| !advertised);
            let Some(i) = displaced else { return };
            self.drop_subflow(ctx, now, i, crate::tcp::CloseReason::Aborted);
        }
        if self.addresses.may_join(now) {
            self.open_join(ctx, now, local, remote);
        } else {
            self.count(ctx, now, None, Counter::MPJoinSynTxPutOff);
            let pair = Pair { local: local.address, remote: remote.address };
            self.addresses.failures.put_off(pair, now + JOINS_PERIOD);
        }
    }

    /// Our SYN to an address that the peer has advertised is unanswered, and so was every one before: it may
    /// lead nowhere.
    fn is_tentative(&self, m: &Subflow) -> bool {
        m.awaits_advertised() && !self.addresses.failures.is_reached(m.tcp.tuple().remote)
    }

    fn advertise(&mut self, ctx: &mut Context, now: Instant, local: LocalAddress) {
        let id = match local.port {
            None => self.advert_id(ctx, now, local.advertise, local.address),
            Some(port) => {
                let used = |id| self.subflows.iter().any(|m| m.local_id() == id);
                let id = self.addresses.port_id(&local, port, &ctx.chosen_ids(), used);
                self.check_ids(ctx, now, id)
            }
        };
        if let Some(id) = id {
            let what = Advertised { id, address: local.advertise, port: local.port };
            self.push_advert(now, what, Some(local.address));
        }
    }

    /// These ports are not advertised with these addresses of ours any more: the peer is told, and what it has
    /// opened to them ends if there are other subflows.
    pub(crate) fn on_ports_withdrawn(&mut self, ctx: &mut Context, now: Instant, gone: &[(IpAddr, u16)]) {
        let ids: SmallVec<[AddressId; 8]> =
            gone.iter().filter_map(|(local, port)| self.addresses.adverts.id_at(*local, *port)).collect();
        if !ids.is_empty() {
            // Without MPTCP nothing was advertised.
            let _ = self.handle_withdraw(ctx, now, &ids);
        }
    }

    /// The ID for an advertisement of `address`, which stands for our `local`.
    fn advert_id(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        address: IpAddr,
        local: IpAddr,
    ) -> Option<AddressId> {
        let used = |id| self.subflows.iter().any(|m| m.local_id() == id);
        let id = self.addresses.advert_id(address, local, &ctx.chosen_ids(), used);
        self.check_ids(ctx, now, id)
    }

    fn push_advert(&mut self, now: Instant, what: Advertised, local: Option<IpAddr>) {
        self.addresses.adverts.push(now, what, local);
    }

    /// The application advertises an address. Returns its ID.
    pub(crate) fn advertise_address(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        address: IpAddr,
        port: Option<u16>,
    ) -> Result<AddressId, SignalError> {
        self.check_signal()?;
        // If a path has this address, or is advertised by it, the ID is that of the path's own address, which
        // joins carry.
        let own = self.local_addresses(ctx);
        let local = own.iter().find(|l| l.advertise == address || l.address == address).map(|l| l.address);
        let id = self.advert_id(ctx, now, address, local.unwrap_or(address));
        let id = id.ok_or(SignalError::NoAddressId)?;
        self.addresses.on_advertised(address, local);
        self.push_advert(now, Advertised { id, address, port }, local);
        self.resend_adverts(ctx, now);
        Ok(id)
    }

    /// The application withdraws local addresses: their subflows are closed if there are others, no new ones
    /// are opened from them, and the peer is told (RFC 8684 §3.4.2).
    pub(crate) fn handle_withdraw(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        ids: &[AddressId],
    ) -> Result<(), SignalError> {
        self.withdraw_addresses(ctx, now, ids)?;
        self.end_step(ctx, now);
        Ok(())
    }

    /// The same in mid-step: indices stay as they are.
    pub(super) fn withdraw_addresses(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        ids: &[AddressId],
    ) -> Result<(), SignalError> {
        self.check_signal()?;
        let others = self.subflows.iter().any(|m| m.can_send_data() && !ids.contains(&m.local_id()));
        if others {
            for i in self.subflows.indices() {
                let Some(m) = self.subflows.get_mut(i).filter(|m| ids.contains(&m.local_id())) else {
                    continue;
                };
                if m.can_acknowledge() {
                    // A subflow that works is closed by FIN.
                    m.tcp.close();
                } else {
                    // A join in progress comes too late.
                    self.reset_subflow(ctx, now, i, ResetReason::Unspecified);
                }
            }
        }
        self.addresses.withdraw(ids);
        self.say_removed(ctx, now, ids);
        Ok(())
    }

    /// The application makes subflow `id` a backup, or a regular subflow again, and the peer is told (RFC
    /// 8684 §3.3.8), also when it was told so before: that may have been lost.
    pub(crate) fn set_backup(
        &mut self,
        now: Instant,
        id: SubflowId,
        backup: bool,
    ) -> Result<(), SignalError> {
        self.check_signal()?;
        let i = self.subflows.find(id).ok_or(SignalError::NoSubflow)?;
        self.subflows[i].prefer(backup);
        self.tell_priority(now, i);
        Ok(())
    }

    /// Tells the peer whether we want subflow `i` as a backup.
    pub(crate) fn tell_priority(&mut self, now: Instant, i: usize) {
        let m = &mut self.subflows[i];
        let (id, backup) = (m.tcp.id(), m.own_backup());
        m.say_priority(backup);
        let rto = self.longest_rto();
        self.addresses.notices.on_said(now, Notice::Priority(id, backup), rto);
    }

    /// MP_CAPABLE has no B bit as MP_JOIN has: a first subflow that is to be a backup says so by MP_PRIO.
    pub(super) fn tell_first_priority(&mut self, now: Instant) {
        if let Some(i) = self.subflows.position(|m| m.join.is_initial() && m.own_backup()) {
            self.tell_priority(now, i);
        }
    }

    fn check_signal(&self) -> Result<(), SignalError> {
        if self.is_mptcp() && !self.life.has_ended() { Ok(()) } else { Err(SignalError::NotMptcp) }
    }

    /// Tells the peer that addresses have gone.
    pub(super) fn say_removed(&mut self, ctx: &mut Context, now: Instant, ids: &[AddressId]) {
        self.addresses.adverts.remove(ids);
        self.addresses.on_removed(ids);
        let rto = self.longest_rto();
        for id in ids {
            self.addresses.notices.on_said(now, Notice::Removed(*id), rto);
        }
        self.send_removed(ctx, now, ids, 0);
    }

    /// Sends REMOVE_ADDR on a subflow that does not use the addresses if there is one; another each time.
    fn send_removed(&mut self, ctx: &mut Context, now: Instant, ids: &[AddressId], said: u8) {
        let Some(i) = self.signal_carrier(said, |m| ids.contains(&m.local_id())) else {
            ids.iter().for_each(|_| self.count(ctx, now, None, Counter::RmAddrTxDrop));
            return;
        };
        let m = &mut self.subflows[i];
        for ids in ids.chunks(IDS_PER_OPTION) {
            m.signals.push(MptcpOption::RemoveAddr(RemoveAddr { ids: SmallVec::from_slice(ids) }));
        }
    }

    /// Says again what has no answer in the protocol.
    pub(crate) fn repeat_notices(&mut self, ctx: &mut Context, now: Instant) {
        let rto = self.longest_rto();
        let mut removed: SmallVec<[AddressId; 8]> = SmallVec::new();
        let mut times = 0;
        for (notice, said) in self.addresses.notices.take_due(now, rto) {
            match notice {
                Notice::Removed(id) => {
                    removed.push(id);
                    times = said;
                }
                Notice::Priority(id, backup) => {
                    if let Some(i) = self.subflows.find(id) {
                        self.subflows[i].say_priority(backup);
                    }
                }
            }
        }
        if !removed.is_empty() {
            self.send_removed(ctx, now, &removed, times);
        }
    }

    /// How long an answer takes at most, whichever subflow carries the question.
    fn longest_rto(&self) -> Duration {
        self.subflows.iter().map(|m| m.tcp.base_rto()).max().unwrap_or(Duration::from_secs(1))
    }

    /// The subflow for a signal that has been sent `said` times: another each time, because the last may be
    /// the reason that nothing came of it. Those that answer come first, and those for which `avoid` holds
    /// last.
    fn signal_carrier(&self, said: u8, avoid: impl Fn(&Subflow) -> bool) -> Option<usize> {
        let mut able: SmallVec<[(bool, bool, usize); 8]> = self
            .subflows
            .enumerate()
            .filter(|(_, m)| m.can_acknowledge())
            .map(|(i, m)| (avoid(m), m.tcp.timeouts_in_a_row() > 0, i))
            .collect();
        able.sort_unstable();
        able.get(usize::from(said) % able.len().max(1)).map(|(.., i)| *i)
    }

    /// Sends the ADD_ADDR that is due: the first time, because no echo came, or because nobody has joined
    /// since (RFC 8684 §3.4.1).
    pub(crate) fn resend_adverts(&mut self, ctx: &mut Context, now: Instant) {
        let rto = self.longest_rto();
        let in_use: SmallVec<[(SocketAddr, AddressId); 8]> =
            self.subflows.iter().map(|m| (m.tcp.tuple().local, m.local_id())).collect();
        let joined = |what: &Advertised, local: Option<IpAddr>| {
            let own = local.unwrap_or(what.address);
            in_use.iter().any(|(at, id)| {
                (at.ip() == own || *id == what.id) && what.port.is_none_or(|port| port == at.port())
            })
        };
        while let Some((k, due)) = self.addresses.adverts.take_due(now, rto, joined) {
            let Due::Send(what, tries) = due else {
                self.count(ctx, now, None, Counter::AddAddrTxDrop);
                continue;
            };
            let Some(i) = self.signal_carrier(tries, |_| false) else { continue };
            let Advertised { id, address, port } = what;
            let (local, remote) = (self.mptcp.local_key(), self.mptcp.remote_key());
            let hmac = add_addr_hmac(local, remote, id, address, port.unwrap_or(0));
            let option = AddAddr { address_id: id, address, port, hmac: Some(hmac) };
            self.subflows[i].signals.push(MptcpOption::AddAddr(option));
            self.addresses.adverts.on_sent(now, k, self.subflows[i].tcp.tuple().local.port(), rto);
        }
    }

    /// ADD_ADDR or its echo (RFC 8684 §3.4.1).
    pub(crate) fn on_add_addr(&mut self, ctx: &mut Context, now: Instant, i: usize, a: &AddAddr) {
        let id = Some(self.subflows[i].tcp.id());
        let Some(hmac) = a.hmac else {
            self.count(ctx, now, id, Counter::EchoAdd);
            self.addresses
                .adverts
                .on_echo(now, Advertised { id: a.address_id, address: a.address, port: a.port });
            self.resend_adverts(ctx, now);
            return;
        };
        self.count(ctx, now, id, Counter::AddAddr);
        if a.port.is_some() {
            self.count(ctx, now, id, Counter::PortAdd);
        }
        let port = a.port.unwrap_or(0);
        let expected =
            add_addr_hmac(self.mptcp.remote_key(), self.mptcp.local_key(), a.address_id, a.address, port);
        if !constant_time_eq(&expected.to_be_bytes(), &hmac.to_be_bytes()) {
            self.count(ctx, now, id, Counter::AddAddrDrop);
            return;
        }
        // Only a peer with both keys can compute this HMAC. One that sends nothing but the advertisement (its
        // DATA_ACK does not fit beside an IPv6 address) would otherwise get MP_CAPABLE in place of the echo,
        // for ever.
        self.mptcp.on_keys_proved();
        // RFC 8684 §3.4.1: without a port, that of the subflow which carries the option.
        let port = a.port.unwrap_or(self.subflows[i].tcp.tuple().remote.port());
        let address = SocketAddr::new(a.address, port);
        // The echo says that it arrived; whether it is used is another matter.
        let echo = MptcpOption::AddAddr(AddAddr { hmac: None, ..*a });
        if !self.subflows[i].signals.push_echo(echo) {
            self.count(ctx, now, id, Counter::EchoAddTxDrop);
        }
        if !self.learn_remote(a.address_id, address) {
            self.count(ctx, now, id, Counter::AddAddrDrop);
            return;
        }
        self.tell_watchers(ctx, now, |connection| MonitorEvent::AddressAnnounced {
            connection,
            id: a.address_id,
            address,
        });
        // RFC 8684 §3.4.1: advertised anew, an address that failed may be tried again.
        self.addresses.failures.forget(|pair| pair.remote == address);
        self.manage_paths(ctx, now);
    }

    /// Stores an address of the peer. False if it is unusable or its ID already stands for another address.
    fn learn_remote(&mut self, id: AddressId, address: SocketAddr) -> bool {
        // A remote peer must not make us connect to this host itself.
        let elsewhere = address.ip().is_loopback() && !self.initial_tuple.remote.ip().is_loopback();
        can_be_peer(address)
            && !elsewhere
            && self.addresses.learn(id, address, self.config.max_add_addr_accepted)
    }

    /// REMOVE_ADDR (RFC 8684 §3.4.2): the addresses are forgotten, and their subflows asked whether they
    /// live. Until they answer, others carry what is on the way there.
    pub(crate) fn on_remove_addr(&mut self, ctx: &mut Context, now: Instant, carrier: usize, r: &RemoveAddr) {
        let mut in_doubt = SmallVec::<[usize; 4]>::new();
        for &address_id in &r.ids {
            self.count(ctx, now, None, Counter::RmAddr);
            let mut found = self.addresses.forget_remote(address_id);
            for (i, m) in self.subflows.enumerate_mut() {
                if m.remote_id() == address_id {
                    found = true;
                    // The subflow that carries the option is alive.
                    if i != carrier {
                        m.on_address_removed(now);
                        in_doubt.push(i);
                    }
                }
            }
            if found {
                self.tell_watchers(ctx, now, |connection| MonitorEvent::AddressRemoved {
                    connection,
                    id: address_id,
                });
            } else {
                self.count(ctx, now, None, Counter::RmAddrDrop);
            }
        }
        for i in in_doubt {
            if self.has_others(i) {
                self.reinject_from(i);
            }
        }
        self.check_removals(ctx, now);
    }

    /// Sends keep-alive probes on subflows whose address the peer has removed, and resets those that stay
    /// silent.
    pub(crate) fn check_removals(&mut self, ctx: &mut Context, now: Instant) {
        for i in self.subflows.indices().rev() {
            if self.subflows.get_mut(i).is_none_or(|m| m.probe_removed(now)) {
                continue;
            }
            self.count(ctx, now, Some(self.subflows[i].tcp.id()), Counter::RmSubflow);
            self.reset_subflow(ctx, now, i, ResetReason::Unspecified);
        }
    }

    /// MP_PRIO (RFC 8684 §3.3.8): for the subflow that carries it. RFC 6824's form, which could name another
    /// subflow by its Address ID, is no longer defined (appendix E).
    pub(crate) fn on_prio(&mut self, ctx: &mut Context, now: Instant, i: usize, p: &MpPrio) {
        if p.address_id.is_some() {
            return;
        }
        self.count(ctx, now, Some(self.subflows[i].tcp.id()), Counter::MPPrioRx);
        if self.subflows[i].on_prio(p.backup) {
            self.tell_watchers_of(ctx, now, i, |connection, subflow| MonitorEvent::PriorityChanged {
                connection,
                subflow,
                by_peer: true,
            });
        }
    }

    /// A path with these addresses came: what failed from them before may work now.
    pub(crate) fn on_path_added(&mut self, addresses: &[IpAddr]) {
        self.addresses.on_path_added(addresses);
    }

    /// There is no subflow: the connection waits for a path.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.subflows.is_empty()
    }

    /// A path has come or changed, and it is this connection's turn to use it.
    pub(crate) fn look_at_paths(&mut self, ctx: &mut Context, now: Instant) {
        self.manage_paths(ctx, now);
        self.subflows.sweep();
    }

    /// Something about a path has changed, for addresses of these families: what failed over it may work now,
    /// and subflows that have fallen silent look at once whether it does.
    pub(crate) fn on_path_changed(&mut self, ctx: &Context, now: Instant, path: PathId, families: Families) {
        let local = ctx.path(path).map(|p| p.addresses.clone()).unwrap_or_default();
        let concerned = |a: IpAddr| families.has(a.is_ipv6());
        self.addresses.failures.forget(|pair| local.contains(&pair.local) && concerned(pair.local));
        for m in self.subflows.iter_mut().filter(|m| m.tcp.path() == path && !m.is_ended()) {
            if concerned(m.tcp.tuple().local.ip()) {
                m.tcp.retransmit_by(now);
            }
        }
    }

    /// A path is to be removed and still works: its subflows end by FIN if there are others.
    pub(crate) fn on_path_leaving(&mut self, ctx: &mut Context, now: Instant, path: PathId) {
        let on_it = self.subflows.iter().filter(|m| m.tcp.path() == path && m.can_send_data());
        let ids: SmallVec<[AddressId; 8]> = on_it.map(Subflow::local_id).collect();
        let others = self.subflows.iter().any(|m| m.tcp.path() != path && m.can_send_data());
        // Without another it is lost with the path, and what ended has nothing to say.
        if !ids.is_empty() && others {
            // Without MPTCP there is no other subflow.
            let _ = self.handle_withdraw(ctx, now, &ids);
        }
    }

    /// Subflows on a path that are being closed.
    pub(crate) fn closing_on(&self, path: PathId) -> usize {
        self.subflows.iter().filter(|m| m.tcp.path() == path && m.tcp.is_closing()).count()
    }

    /// A path is down, or a family of addresses on it: its subflows end if there are others, and the peer is
    /// told.
    pub(crate) fn on_path_down(&mut self, ctx: &mut Context, now: Instant) {
        self.leave_down_paths(ctx, now);
        self.end_step(ctx, now);
    }

    /// With a subflow that can be used, those on paths that are down are needed no more.
    pub(super) fn leave_down_paths(&mut self, ctx: &mut Context, now: Instant) {
        let down_on = |path| match self.use_of(ctx, path) {
            Use::Spent => Families::BOTH,
            Use::Open | Use::Ending => ctx.down_on(path),
        };
        let down: SmallVec<[(PathId, Families); 4]> = ctx.paths().map(|(p, _)| (p, down_on(p))).collect();
        let is_down_on = |path: PathId, local: IpAddr| {
            down.iter().any(|(p, families)| *p == path && families.has(local.is_ipv6()))
        };
        let is_down = |m: &Subflow| is_down_on(m.tcp.path(), m.tcp.tuple().local.ip());
        let none = down.iter().all(|(_, families)| families.is_empty());
        if none || !self.subflows.iter().any(|m| !is_down(m) && m.can_send_data()) {
            return;
        }
        let gone = |local| ctx.path_of(local).is_none_or(|path| is_down_on(path, local));
        let ids = self.addresses.adverts.ids_of(gone);
        self.mark_ended(ctx, now, ids, is_down);
    }

    /// A path has gone: its subflows end, and its addresses are removed at the peer, also those that were
    /// only advertised (RFC 8684 §3.4.2).
    pub(crate) fn on_path_removed(&mut self, ctx: &mut Context, now: Instant, path: PathId) {
        let ids = self.addresses.adverts.ids_of(|local| ctx.path_of(local).is_none());
        self.end_subflows(ctx, now, ids, |m| m.tcp.path() == path);
    }

    /// The addresses of a family on a path have changed, or how the peer knows them.
    pub(crate) fn on_path_readdressed(&mut self, ctx: &mut Context, now: Instant, path: PathId, v6: bool) {
        let ids = self
            .addresses
            .adverts
            .ids_of(|local| local.is_ipv6() == v6 && ctx.path_of(local).is_none_or(|owner| owner == path));
        self.end_subflows(ctx, now, ids, |m| m.tcp.path() == path && m.tcp.tuple().local.is_ipv6() == v6);
    }

    /// Ends subflows of which `which` holds, and removes their addresses and those of `ids` at the peer.
    fn end_subflows(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        ids: SmallVec<[AddressId; 8]>,
        which: impl Fn(&Subflow) -> bool,
    ) {
        self.mark_ended(ctx, now, ids, which);
        self.end_step(ctx, now);
    }

    /// The same in mid-step: indices stay as they are.
    fn mark_ended(
        &mut self,
        ctx: &mut Context,
        now: Instant,
        mut ids: SmallVec<[AddressId; 8]>,
        which: impl Fn(&Subflow) -> bool,
    ) {
        for i in self.subflows.indices().rev() {
            if self.subflows.get(i).is_some_and(&which) {
                let id = self.subflows[i].local_id();
                if !ids.contains(&id) {
                    ids.push(id);
                }
                self.drop_subflow(ctx, now, i, crate::tcp::CloseReason::Aborted);
            }
        }
        if !ids.is_empty() && self.is_mptcp() {
            self.say_removed(ctx, now, &ids);
        }
    }

    /// Counts a signal that goes out; of REMOVE_ADDR each address, as its receiver does.
    pub(crate) fn count_signal(&self, ctx: &mut Context, now: Instant, i: usize, signal: &MptcpOption) {
        let what = match signal {
            MptcpOption::AddAddr(AddAddr { hmac: Some(_), .. }) => Counter::AddAddrTx,
            MptcpOption::AddAddr(_) => Counter::EchoAddTx,
            MptcpOption::RemoveAddr(r) => {
                let id = Some(self.subflows[i].tcp.id());
                r.ids.iter().for_each(|_| self.count(ctx, now, id, Counter::RmAddrTx));
                return;
            }
            MptcpOption::Prio(_) => Counter::MPPrioTx,
            MptcpOption::Fail(_) => Counter::MPFailTx,
            MptcpOption::FastClose(_) => Counter::MPFastcloseTx,
            _ => return,
        };
        self.count(ctx, now, Some(self.subflows[i].tcp.id()), what);
    }
}

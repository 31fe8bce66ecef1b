//! Local devices that come, go, and take nothing for a while.

use super::state::Stack;
use crate::device::{Families, PathConfig};
use crate::monitor::MonitorEvent;
use alloc::vec::Vec;
use core::net::IpAddr;
use umptcp_types::{Instant, PathId};

impl Stack {
    /// A local device appeared. Connections that may use every path open subflows on it.
    pub fn path_added(&mut self, now: Instant, mut config: PathConfig) -> PathId {
        config.backup |= config.metered;
        let addresses = config.addresses.clone();
        let name = config.name.clone();
        let id = self.ctx.add_path(config);
        let told = || MonitorEvent::PathAdded { path: id, name, addresses: addresses.clone() };
        self.ctx.tell_watchers(now, told);
        for c in self.sorted_connections() {
            if let Some(connection) = self.connections.get_mut(&c) {
                connection.on_path_added(&addresses);
                self.looks.push(c, connection.is_cut_off());
            }
        }
        self.look_at_paths(now);
        id
    }

    /// The path managers whose turn it is look what there is to open or to advertise.
    pub(super) fn look_at_paths(&mut self, now: Instant) {
        for id in self.looks.take(now) {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.look_at_paths(&mut self.ctx, now);
                self.touched(id);
            }
        }
    }

    /// Something about a local device has changed that may have kept packets from getting through: its link,
    /// a route, a rule. What failed over it before is tried again at once, and what is unanswered is sent
    /// again.
    pub fn path_changed(&mut self, now: Instant, path: PathId) {
        self.ctx.forget_network(path, Families::BOTH);
        self.try_again(now, path, Families::BOTH);
    }

    fn try_again(&mut self, now: Instant, path: PathId, families: Families) {
        for c in self.sorted_connections() {
            if let Some(connection) = self.connections.get_mut(&c) {
                connection.on_path_changed(&self.ctx, now, path, families);
                self.looks.push(c, connection.is_cut_off());
                self.touched(c);
            }
        }
        self.look_at_paths(now);
    }

    /// A local device that still works is to go: connections that have other subflows take leave of it, with
    /// REMOVE_ADDR and FIN (RFC 8684 §3.4.2). [`path_removed`](Self::path_removed) follows when
    /// [`subflows_closing`](Self::subflows_closing) says that they are done, or when that takes too long.
    pub fn path_leaving(&mut self, now: Instant, path: PathId) {
        for c in self.sorted_connections() {
            if let Some(connection) = self.connections.get_mut(&c) {
                connection.on_path_leaving(&mut self.ctx, now, path);
                self.touched(c);
            }
        }
    }

    /// How many subflows of a path are being closed.
    pub fn subflows_closing(&self, path: PathId) -> usize {
        self.connections.values().map(|c| c.closing_on(path)).sum()
    }

    /// A local device has other addresses, or the peer is to be told others (`PathConfig::addresses`,
    /// `PathConfig::advertise`). Subflows of a family of which something has changed end, and new ones are
    /// opened; the others go on. `moved`: families of which something has changed that the stack does not
    /// see, such as the address that its own is translated to.
    pub fn path_readdressed(
        &mut self,
        now: Instant,
        path: PathId,
        addresses: Vec<IpAddr>,
        advertise: Vec<IpAddr>,
        moved: Families,
    ) {
        let changed = self.ctx.readdress_path(path, addresses.clone(), advertise);
        self.ctx.forget_network(path, moved);
        if let Some(name) = self.ctx.path(path).map(|p| p.name.clone()) {
            let told = || MonitorEvent::PathReaddressed { path, name, addresses: addresses.clone() };
            self.ctx.tell_watchers(now, told);
        }
        for v6 in [false, true].into_iter().filter(|v6| changed.has(*v6) || moved.has(*v6)) {
            let there: Vec<IpAddr> = addresses.iter().copied().filter(|a| a.is_ipv6() == v6).collect();
            for c in self.sorted_connections() {
                if let Some(connection) = self.connections.get_mut(&c) {
                    connection.on_path_readdressed(&mut self.ctx, now, path, v6);
                    connection.on_path_added(&there);
                    self.looks.push(c, connection.is_cut_off());
                    self.touched(c);
                }
            }
        }
        self.look_at_paths(now);
    }

    /// Nothing gets through by a local device for now from addresses of these families: its link is down, or
    /// the NIC behind it has lost its address. Connections that have other subflows go on over those, and the
    /// peer is told that the address has gone (RFC 8684 §3.4.2). Those that have no other keep this one for
    /// when the families are [up](Self::path_up) again, as a kernel's connections do.
    pub fn path_down(&mut self, now: Instant, path: PathId, families: Families) {
        let before = self.ctx.link_down_on(path);
        let down = before.or(families);
        if down == before || self.ctx.set_path_down(path, down).is_none() {
            return;
        }
        for c in self.sorted_connections() {
            if let Some(connection) = self.connections.get_mut(&c) {
                connection.on_path_down(&mut self.ctx, now);
                self.touched(c);
            }
        }
    }

    /// The families are up again: what waits for them is sent at once, and connections may use the path as
    /// one that has come.
    pub fn path_up(&mut self, now: Instant, path: PathId, families: Families) {
        let before = self.ctx.link_down_on(path);
        let returned = before.and(families);
        if returned.is_empty() || self.ctx.set_path_down(path, before.and(families.others())).is_none() {
            return;
        }
        self.reopen(now, path, returned);
    }

    /// Nothing keeps packets of these families from a path any more, unless something else does, too.
    pub(super) fn reopen(&mut self, now: Instant, path: PathId, families: Families) {
        let returned = self.ctx.down_on(path).others().and(families);
        if returned.is_empty() {
            return;
        }
        for c in self.ready.release(path) {
            self.touched(c);
        }
        let all = self.ctx.path(path).map(|p| &p.addresses[..]).unwrap_or_default();
        let addresses: Vec<IpAddr> = all.iter().copied().filter(|a| returned.has(a.is_ipv6())).collect();
        for c in self.sorted_connections() {
            if let Some(connection) = self.connections.get_mut(&c) {
                connection.on_path_added(&addresses);
            }
        }
        self.try_again(now, path, returned);
    }

    /// A local device has gone: its subflows end, connections go on over others.
    pub fn path_removed(&mut self, now: Instant, path: PathId) {
        let name = self.ctx.path(path).map(|p| p.name.clone()).unwrap_or_default();
        if !self.ctx.remove_path(path) {
            return;
        }
        self.ctx.tell_watchers(now, || MonitorEvent::PathRemoved { path, name });
        self.ready.release(path);
        self.forget_incoming_by(now, path);
        for c in self.sorted_connections() {
            if let Some(connection) = self.connections.get_mut(&c) {
                connection.on_path_removed(&mut self.ctx, now, path);
                self.touched(c);
            }
        }
    }

    /// The device takes nothing (`blocked`) until told otherwise: nothing is offered for it meanwhile.
    pub fn path_blocked(&mut self, _now: Instant, path: PathId, blocked: bool) {
        if self.ctx.set_path_blocked(path, blocked) {
            self.release(path);
        }
    }

    /// Enough waits in the path's NIC's queue (`busy`), so that no data are offered for some milliseconds, until told
    /// otherwise; ACKs are. Unlike with a device that takes nothing, other paths do not take over: a backup stays idle.
    pub fn path_busy(&mut self, _now: Instant, path: PathId, busy: bool) {
        if self.ctx.set_path_busy(path, busy) {
            self.release(path);
        }
    }

    /// What the path's NIC sends in a second, in bytes, as measured; `None`: it is not known, or not limited. A segment
    /// that the device cuts into packets is no longer than a millisecond of it: shapers have no room for much more, and
    /// others' packets wait behind it. Schedulers see no larger windows and rates either.
    pub fn path_rate(&mut self, _now: Instant, path: PathId, rate: Option<u64>) {
        self.ctx.set_path_rate(path, rate);
    }

    /// The connections that waited for the path have their turn.
    fn release(&mut self, path: PathId) {
        for c in self.ready.release(path) {
            self.touched(c);
        }
    }
}

//! Listeners, and the connections that wait for the caller's word.

use crate::config::{ConnectionConfig, ListenOptions, SynCookiePolicy};
use crate::context::Seeded;
use crate::context::fast_open::FastOpenSyn;
use crate::error::ListenError;
use crate::event::{Event, IncomingId};
use crate::mptcp::handshake::capable;
use crate::tcp::FourTuple;
use crate::wire::tcp::TcpRepr;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::SocketAddr;
use hashbrown::HashMap;
use umptcp_types::{Duration, Instant, ListenerId, PathId, SeqNumber};

/// A SYN that nobody accepts or refuses is forgotten after this long. Linux gives up a connection after 127 s
/// (six repetitions).
const PENDING_TIMEOUT: Duration = Duration::from_secs(150);

/// A SYN that waits for the caller's word.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) path: PathId,
    pub(super) tuple: FourTuple,
    pub(super) syn: TcpRepr,
    pub(super) since: Instant,
    /// What it asks of Fast Open (RFC 7413).
    pub(super) fast_open: FastOpenSyn,
    /// The handshake is over already: it went without state here.
    pub(super) complete: Option<Complete>,
}

/// The third ACK of a handshake that went by SYN cookie, and what the cookie says.
#[derive(Clone, Debug)]
pub(super) struct Complete {
    pub(super) isn: SeqNumber,
    pub(super) key: u64,
    /// The window and its scale that the SYN/ACK offered.
    pub(super) window: u16,
    pub(super) window_scale: u8,
    pub(super) ack: TcpRepr,
    pub(super) payload: Bytes,
}

/// A listening address.
#[derive(Debug)]
pub(super) struct Listener {
    local: SocketAddr,
    /// The paths it is for; empty: all that lead outside.
    paths: Vec<PathId>,
    every_port: bool,
    backlog: usize,
    /// SYNs that wait for the caller's word.
    pending: usize,
    /// Complete handshakes that do.
    complete: usize,
    syn_cookies: SynCookiePolicy,
    /// What SYN/ACKs that go out before the caller's word are made from.
    config: Box<ConnectionConfig>,
}

impl Listener {
    fn is_for(&self, local: SocketAddr) -> bool {
        (self.every_port || self.local.port() == local.port())
            && (self.local.ip() == local.ip() || self.local.ip().is_unspecified())
    }

    /// `captures`: the path does not lead outside.
    fn is_for_path(&self, path: PathId, captures: bool) -> bool {
        if self.paths.is_empty() { !captures } else { self.paths.contains(&path) }
    }

    /// Some path is both this one's and one of `paths`.
    fn meets(&self, paths: &[PathId], captures: impl Fn(PathId) -> bool) -> bool {
        match (&self.paths[..], paths) {
            ([], []) => true,
            ([], some) | (some, []) => some.iter().any(|p| !captures(*p)),
            (own, others) => own.iter().any(|p| others.contains(p)),
        }
    }

    /// The backlog is full of handshakes that do not complete; `accepted`: of connections that were accepted.
    pub(super) fn is_full(&self, accepted: usize) -> bool {
        self.pending + accepted >= self.backlog
    }

    /// As many complete handshakes wait for the caller's word as may.
    pub(super) fn is_full_of_complete(&self) -> bool {
        self.complete >= self.backlog
    }

    /// Whether the next SYN is answered without state; `full`: there is no room to keep any.
    pub(super) fn answers_with_cookie(&self, full: bool) -> bool {
        match self.syn_cookies {
            SynCookiePolicy::Always => true,
            SynCookiePolicy::UnderPressure => full,
            SynCookiePolicy::Never => false,
        }
    }

    pub(super) fn config(&self) -> &ConnectionConfig {
        &self.config
    }
}

/// All listeners and all that waits at them.
#[derive(Debug)]
pub(super) struct Listeners {
    listeners: BTreeMap<ListenerId, Listener>,
    /// Those of a port, of which each has another address.
    by_port: BTreeMap<u16, Vec<ListenerId>>,
    /// Ids grow with time, so the oldest come first.
    incoming: BTreeMap<IncomingId, (ListenerId, Pending)>,
    tuples: HashMap<FourTuple, IncomingId, Seeded>,
    next_listener: u32,
    next_incoming: u64,
}

impl Listeners {
    pub(super) fn new(hasher: Seeded) -> Self {
        Listeners {
            listeners: BTreeMap::new(),
            by_port: BTreeMap::new(),
            incoming: BTreeMap::new(),
            tuples: HashMap::with_hasher(hasher),
            next_listener: 0,
            next_incoming: 0,
        }
    }

    /// Another listener; an error if one has that port on one of its paths, and that address or every one.
    /// `captures`: which paths do not lead outside.
    pub(super) fn add(
        &mut self,
        options: ListenOptions,
        captures: impl Fn(PathId) -> bool,
    ) -> Result<ListenerId, ListenError> {
        let ListenOptions { local, backlog, syn_cookies, config, fast_open: _, paths, every_port } = options;
        let same =
            |l: &Listener| l.meets(&paths, &captures) && (l.is_for(local) || local.ip().is_unspecified());
        if self.of_port(local.port()).any(|(_, l)| same(l)) {
            return Err(ListenError::InUse(local));
        }
        let id = ListenerId(self.next_listener);
        self.next_listener += 1;
        let (backlog, config) = (backlog.max(1), Box::new(config));
        self.by_port.entry(local.port()).or_default().push(id);
        let listener =
            Listener { local, paths, every_port, backlog, pending: 0, complete: 0, syn_cookies, config };
        self.listeners.insert(id, listener);
        Ok(id)
    }

    /// Where the listener was, which has gone, and what still waits there. `None`: there is no such listener.
    pub(super) fn remove(&mut self, listener: ListenerId) -> Option<(SocketAddr, Vec<IncomingId>)> {
        let local = self.listeners.remove(&listener)?.local;
        let port = local.port();
        if let Some(others) = self.by_port.get_mut(&port) {
            others.retain(|id| *id != listener);
            if others.is_empty() {
                self.by_port.remove(&port);
            }
        }
        let waiting = self.incoming.iter().filter(|(_, (l, _))| *l == listener);
        Some((local, waiting.map(|(id, _)| *id).collect()))
    }

    pub(super) fn get(&self, listener: ListenerId) -> Option<&Listener> {
        self.listeners.get(&listener)
    }

    /// The listener for what comes to a local address by a path: the exact one before one for every address,
    /// and either before one for every port. `captures`: the path does not lead outside.
    pub(super) fn find(&self, path: PathId, captures: bool, local: SocketAddr) -> Option<ListenerId> {
        let own = self.of_port(local.port()).filter(|(_, l)| !l.every_port);
        own.chain(self.of_port(0))
            .filter(|(_, l)| l.is_for(local) && l.is_for_path(path, captures))
            .min_by_key(|(_, l)| (l.every_port, l.local.ip().is_unspecified(), l.paths.is_empty()))
            .map(|(id, _)| id)
    }

    /// The listeners of a port.
    fn of_port(&self, port: u16) -> impl Iterator<Item = (ListenerId, &Listener)> {
        let ids = self.by_port.get(&port).into_iter().flatten();
        ids.filter_map(|id| self.listeners.get(id).map(|l| (*id, l)))
    }

    /// A connection from there waits for the caller's word already.
    pub(super) fn is_pending(&self, tuple: &FourTuple) -> bool {
        self.tuples.contains_key(tuple)
    }

    /// A connection waits for the caller's word: what the caller is to be told.
    pub(super) fn enlist(&mut self, listener: ListenerId, pending: Pending) -> Event {
        if let Some(l) = self.listeners.get_mut(&listener) {
            *l.count(&pending) += 1;
        }
        let incoming = IncomingId(self.next_incoming);
        self.next_incoming += 1;
        let event = Event::Incoming {
            listener,
            incoming,
            remote: pending.tuple.remote,
            local: pending.tuple.local,
            mptcp: capable(&pending.syn).is_some(),
            complete: pending.complete.is_some(),
        };
        self.tuples.insert(pending.tuple, incoming);
        self.incoming.insert(incoming, (listener, pending));
        event
    }

    /// It waits no longer.
    pub(super) fn take(&mut self, incoming: IncomingId) -> Option<(ListenerId, Pending)> {
        let (listener, pending) = self.incoming.remove(&incoming)?;
        self.tuples.remove(&pending.tuple);
        if let Some(l) = self.listeners.get_mut(&listener) {
            let count = l.count(&pending);
            *count = count.saturating_sub(1);
        }
        Some((listener, pending))
    }

    /// A RST for a SYN that waits for the caller's word: the peer has given up (RFC 9293 §3.10.7.4,
    /// SYN-RECEIVED). Only the exact sequence number counts (RFC 5961 §3.2).
    pub(super) fn reset_by(&self, tuple: &FourTuple, rst: &TcpRepr) -> Option<IncomingId> {
        let &incoming = self.tuples.get(tuple)?;
        let (_, pending) = self.incoming.get(&incoming)?;
        (pending.syn.seq.wrapping_add(1) == rst.seq).then_some(incoming)
    }

    /// One that has waited too long.
    pub(super) fn expired(&self, now: Instant) -> Option<IncomingId> {
        let (&id, (_, oldest)) = self.incoming.first_key_value()?;
        (now - oldest.since >= PENDING_TIMEOUT).then_some(id)
    }

    /// When the next has waited too long.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.incoming.first_key_value().map(|(_, (_, oldest))| oldest.since + PENDING_TIMEOUT)
    }

    /// One that came in by `path`.
    pub(super) fn by_path(&self, path: PathId) -> Option<IncomingId> {
        self.incoming.iter().find(|(_, (_, p))| p.path == path).map(|(id, _)| *id)
    }
}

impl Listener {
    /// What `pending` counts as one of.
    fn count(&mut self, pending: &Pending) -> &mut usize {
        if pending.complete.is_some() { &mut self.complete } else { &mut self.pending }
    }
}

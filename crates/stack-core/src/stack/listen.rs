//! Listeners, and connections offered to the caller.

use super::Stack;
use crate::config::{ConnectionConfig, ListenOptions};
use crate::error::{ConnectError, FallbackReason, ListenError};
use crate::event::{Event, IncomingId};
use crate::mptcp::Connection;
use crate::mptcp::connection::Mode;
use crate::mptcp::handshake::{acceptable, capable};
use crate::mptcp::member::{Join, Member};
use crate::observe::Counter;
use crate::tcp::FourTuple;
use crate::wire::mptcp::MpCapable;
use crate::wire::tcp::{TcpOptions, TcpRepr};
use core::net::SocketAddr;
use umptcp_types::{AddressId, ConnectionId, Duration, Instant, ListenerId, PathId};

/// A SYN that nobody accepts or refuses is forgotten after this long; the peer has given up by then.
const PENDING_TIMEOUT: Duration = Duration::from_secs(60);

/// A SYN that waits for the caller's word.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) path: PathId,
    pub(crate) tuple: FourTuple,
    pub(crate) syn: TcpRepr,
    pub(crate) since: Instant,
}

impl Pending {
    pub(crate) fn new(path: PathId, tuple: FourTuple, syn: TcpRepr, since: Instant) -> Self {
        Pending { path, tuple, syn, since }
    }
}

/// A listening address.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) local: SocketAddr,
    pub(crate) backlog: usize,
    pub(crate) pending: usize,
}

impl Stack {
    /// Listens on an address and port.
    ///
    /// # Errors
    /// When the port is 0 or taken by another listener, or the address belongs to no path.
    pub fn listen(&mut self, options: ListenOptions) -> Result<ListenerId, ListenError> {
        let local = options.local;
        if local.port() == 0 {
            return Err(ListenError::NoPort);
        }
        if !local.ip().is_unspecified() && self.env.path_of(local.ip()).is_none() {
            return Err(ListenError::NoAddress(local.ip()));
        }
        let clash = |l: &Listener| {
            l.local.port() == local.port()
                && (l.local.ip() == local.ip()
                    || l.local.ip().is_unspecified()
                    || local.ip().is_unspecified())
        };
        if self.listeners.values().any(clash) {
            return Err(ListenError::InUse(local));
        }
        let id = ListenerId(self.next_listener);
        self.next_listener += 1;
        self.listeners.insert(id, Listener { local, backlog: options.backlog.max(1), pending: 0 });
        Ok(id)
    }

    /// Stops listening. SYNs that wait for an answer are refused.
    pub fn unlisten(&mut self, now: Instant, listener: ListenerId) {
        if self.listeners.remove(&listener).is_none() {
            return;
        }
        let waiting: alloc::vec::Vec<IncomingId> =
            self.incoming.iter().filter(|(_, (l, _))| *l == listener).map(|(id, _)| *id).collect();
        for id in waiting {
            self.refuse(now, id);
        }
    }

    /// The listener for a local address: the exact one before one for every address.
    pub(crate) fn listener_for(&self, local: SocketAddr) -> Option<ListenerId> {
        let fits = |l: &Listener| {
            l.local.port() == local.port() && (l.local.ip() == local.ip() || l.local.ip().is_unspecified())
        };
        self.listeners
            .iter()
            .filter(|(_, l)| fits(l))
            .min_by_key(|(_, l)| l.local.ip().is_unspecified())
            .map(|(id, _)| *id)
    }

    /// Offers a SYN to the caller.
    pub(crate) fn offer(&mut self, now: Instant, listener: ListenerId, pending: Pending) {
        self.expire_pending(now);
        // A retransmitted SYN is not a second connection.
        if self.pending_tuples.contains_key(&pending.tuple) {
            return;
        }
        let Some(l) = self.listeners.get_mut(&listener) else { return };
        if l.pending >= l.backlog {
            self.env.observe(now, None, None, Counter::TcpListenOverflow);
            return;
        }
        l.pending += 1;
        let incoming = IncomingId(self.next_incoming);
        self.next_incoming += 1;
        let mptcp = capable(&pending.syn).is_some();
        if mptcp {
            self.env.observe(now, None, None, Counter::MPCapableSYNRX);
        }
        self.env.events.push_back(Event::Incoming {
            listener,
            incoming,
            remote: pending.tuple.remote,
            local: pending.tuple.local,
            mptcp,
        });
        self.pending_tuples.insert(pending.tuple, incoming);
        self.incoming.insert(incoming, (listener, pending));
    }

    fn take_pending(&mut self, incoming: IncomingId) -> Option<Pending> {
        let (listener, pending) = self.incoming.remove(&incoming)?;
        self.pending_tuples.remove(&pending.tuple);
        if let Some(l) = self.listeners.get_mut(&listener) {
            l.pending = l.pending.saturating_sub(1);
        }
        Some(pending)
    }

    /// Forgets SYNs that waited too long. Ids grow with time, so the oldest come first.
    fn expire_pending(&mut self, now: Instant) {
        while let Some((&id, (_, p))) = self.incoming.iter().next() {
            if now - p.since < PENDING_TIMEOUT {
                break;
            }
            self.take_pending(id);
        }
    }

    /// Answers a pending SYN; [`Event::Connected`] follows when the handshake is complete.
    ///
    /// # Errors
    /// When the SYN is no longer pending ([`ConnectError::Gone`]), the configuration names something unknown, or the
    /// stack is full.
    pub fn accept(
        &mut self,
        now: Instant,
        incoming: IncomingId,
        config: &ConnectionConfig,
    ) -> Result<ConnectionId, ConnectError> {
        let parts = self.parts(config)?;
        self.check_capacity()?;
        let Pending { path, tuple, syn, .. } = self.take_pending(incoming).ok_or(ConnectError::Gone)?;
        let id = self.next_id();
        let mut c = Connection::new(id, false, config.clone(), tuple, parts);
        if config.mptcp {
            match capable(&syn) {
                Some(&MpCapable::Syn { version, flags }) if acceptable(version, flags) => {
                    c.checksum |= flags.checksum_required;
                    c.peer_allows_initial_join = !flags.no_join_initial;
                    match self.env.unique_key() {
                        Some(key) => c.set_local_key(&mut self.env, key),
                        None => {
                            self.env.observe(now, Some(id), None, Counter::MPFallbackTokenInit);
                            c.mode = Mode::Plain { reason: FallbackReason::NoToken };
                        }
                    }
                }
                Some(_) => c.mode = Mode::Plain { reason: FallbackReason::Unacceptable },
                None => c.mode = Mode::Plain { reason: FallbackReason::NoOptionInSyn },
            }
        }
        let tcp = c.new_subflow(&mut self.env, now, path, tuple).accept(now, &syn);
        c.add_member(&self.env, Member::new(tcp, Join::Initial, AddressId(0), AddressId(0)));
        self.connections.insert(id, alloc::boxed::Box::new(c));
        self.touched(now, id);
        Ok(id)
    }

    /// Answers a pending SYN with RST.
    pub fn refuse(&mut self, now: Instant, incoming: IncomingId) {
        if let Some(p) = self.take_pending(incoming) {
            self.refuse_segment(now, p.path, &p.tuple, &p.syn, 0, TcpOptions::default());
        }
    }
}

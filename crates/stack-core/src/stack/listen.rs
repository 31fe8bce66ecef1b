//! Listeners, and connections offered to the caller.

use super::Stack;
use crate::config::{ConnectionConfig, ListenOptions, SynCookiePolicy};
use crate::context::fast_open::FastOpenSyn;
use crate::error::{ConnectError, ListenError};
use crate::event::{Event, IncomingId};
use crate::mptcp::Connection;
use crate::mptcp::connection::Role;
use crate::mptcp::handshake::capable;
use crate::mptcp::join_state::Join;
use crate::mptcp::lifecycle::Admission;
use crate::mptcp::subflow::EndIds;
use crate::observe::Counter;
use crate::tcp::{Arrival, FourTuple};
use crate::wire::tcp::{TcpOptions, TcpRepr};
use alloc::boxed::Box;
use bytes::Bytes;
use core::net::SocketAddr;
use umptcp_types::{ConnectionId, Duration, Instant, ListenerId, PathId, SeqNumber};

/// A SYN that nobody accepts or refuses is forgotten after this long; the peer has given up by then.
const PENDING_TIMEOUT: Duration = Duration::from_secs(60);

/// A SYN that waits for the caller's word.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) path: PathId,
    pub(crate) tuple: FourTuple,
    pub(crate) syn: TcpRepr,
    pub(crate) since: Instant,
    /// What it asks of Fast Open (RFC 7413).
    pub(crate) fast_open: FastOpenSyn,
    /// The handshake is over already: it went without state here.
    pub(crate) complete: Option<Complete>,
}

/// The third ACK of a handshake that went by SYN cookie, and what the cookie says.
#[derive(Clone, Debug)]
pub(crate) struct Complete {
    pub(crate) isn: SeqNumber,
    pub(crate) key: u64,
    /// The window and its scale that the SYN/ACK offered.
    pub(crate) window: u16,
    pub(crate) window_scale: u8,
    pub(crate) ack: TcpRepr,
    pub(crate) payload: Bytes,
}

impl Pending {
    pub(crate) fn new(path: PathId, tuple: FourTuple, syn: TcpRepr, since: Instant) -> Self {
        Pending { path, tuple, syn, since, fast_open: FastOpenSyn::default(), complete: None }
    }
}

/// A listening address.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) local: SocketAddr,
    pub(crate) backlog: usize,
    /// SYNs that wait for the caller's word.
    pub(crate) pending: usize,
    /// Complete handshakes that do.
    pub(crate) complete: usize,
    pub(crate) syn_cookies: SynCookiePolicy,
    /// What SYN/ACKs that go out before the caller's word are made from.
    pub(crate) config: Box<ConnectionConfig>,
}

impl Stack {
    /// Listens on an address and port.
    ///
    /// # Errors
    /// When the port is 0 or taken by another listener, or the address belongs to no path.
    pub fn listen(&mut self, options: ListenOptions) -> Result<ListenerId, ListenError> {
        let ListenOptions { local, backlog, syn_cookies, fast_open, config } = options;
        if local.port() == 0 {
            return Err(ListenError::NoPort);
        }
        if !local.ip().is_unspecified() && self.ctx.path_of(local.ip()).is_none() {
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
        let (backlog, config) = (backlog.max(1), Box::new(config));
        self.ctx.fast_open.listen(id, fast_open);
        self.listeners.insert(id, Listener { local, backlog, pending: 0, complete: 0, syn_cookies, config });
        Ok(id)
    }

    /// Stops listening. SYNs that wait for an answer are refused.
    pub fn unlisten(&mut self, now: Instant, listener: ListenerId) {
        if self.listeners.remove(&listener).is_none() {
            return;
        }
        self.ctx.fast_open.unlisten(listener);
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

    /// Offers a SYN to the caller. With the backlog full of handshakes that do not complete, the peer is answered without
    /// state instead: it may be a flood, and those who mean it come back with the third ACK.
    pub(crate) fn offer(
        &mut self,
        now: Instant,
        listener: ListenerId,
        mut pending: Pending,
        payload: &Bytes,
    ) {
        self.expire_pending(now);
        // A retransmitted SYN is not a second connection.
        if self.pending_tuples.contains_key(&pending.tuple) {
            return;
        }
        let Some(l) = self.listeners.get_mut(&listener) else { return };
        let half_open = l.pending + self.ctx.half_open.get(&listener).copied().unwrap_or(0);
        let full = half_open >= l.backlog;
        let mptcp = capable(&pending.syn).is_some();
        if l.syn_cookies == SynCookiePolicy::Always || (full && l.syn_cookies != SynCookiePolicy::Never) {
            let config = l.config.clone();
            if mptcp {
                self.ctx.observe(now, None, None, Counter::MPCapableSYNRX);
            }
            self.send_syn_cookie(now, pending.path, &pending.tuple, &pending.syn, &config);
            return;
        }
        if full {
            self.ctx.observe(now, None, None, Counter::TcpListenOverflow);
            return;
        }
        l.pending += 1;
        if mptcp {
            self.ctx.observe(now, None, None, Counter::MPCapableSYNRX);
        }
        pending.fast_open = self.ctx.on_fast_open_syn(now, listener, &pending.tuple, &pending.syn, payload);
        self.enlist(listener, pending);
    }

    /// Tells the caller of a connection that waits for its word.
    pub(crate) fn enlist(&mut self, listener: ListenerId, pending: Pending) {
        let incoming = IncomingId(self.next_incoming);
        self.next_incoming += 1;
        self.ctx.events.push_back(Event::Incoming {
            listener,
            incoming,
            remote: pending.tuple.remote,
            local: pending.tuple.local,
            mptcp: capable(&pending.syn).is_some(),
            complete: pending.complete.is_some(),
        });
        self.pending_tuples.insert(pending.tuple, incoming);
        self.incoming.insert(incoming, (listener, pending));
    }

    fn take_pending(&mut self, incoming: IncomingId) -> Option<(ListenerId, Pending)> {
        let (listener, pending) = self.incoming.remove(&incoming)?;
        self.pending_tuples.remove(&pending.tuple);
        if let Some(l) = self.listeners.get_mut(&listener) {
            let count = if pending.complete.is_some() { &mut l.complete } else { &mut l.pending };
            *count = count.saturating_sub(1);
        }
        Some((listener, pending))
    }

    /// A RST for a SYN that waits for the caller's word: the peer has given up (RFC 9293 §3.10.7.4, SYN-RECEIVED). Only the
    /// exact sequence number counts (RFC 5961 §3.2).
    pub(crate) fn withdraw(&mut self, now: Instant, tuple: &FourTuple, rst: &TcpRepr) {
        let Some(&incoming) = self.pending_tuples.get(tuple) else { return };
        let exact = self.incoming.get(&incoming).is_some_and(|(_, p)| p.syn.seq.wrapping_add(1) == rst.seq);
        if exact && let Some((listener, p)) = self.take_pending(incoming) {
            self.ctx.fast_open.failed(now, listener, &p.fast_open);
        }
    }

    /// Forgets SYNs that waited too long. Ids grow with time, so the oldest come first.
    fn expire_pending(&mut self, now: Instant) {
        while let Some((&id, (_, p))) = self.incoming.iter().next() {
            if now - p.since < PENDING_TIMEOUT {
                break;
            }
            if let Some((listener, p)) = self.take_pending(id) {
                self.ctx.fast_open.failed(now, listener, &p.fast_open);
            }
            self.ctx.observe(now, None, None, Counter::TcpListenDrops);
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
        let (listener, pending) = self.take_pending(incoming).ok_or(ConnectError::Gone)?;
        let Pending { path, tuple, syn, fast_open, complete, .. } = pending;
        if !self.ctx.paths.contains_key(&path) {
            self.ctx.fast_open.failed(now, listener, &fast_open);
            return Err(ConnectError::Gone);
        }
        let id = self.next_id();
        let admission = Admission {
            backlog: complete.is_none().then_some(listener),
            fast_open: (!fast_open.data.is_empty()).then_some(listener),
        };
        let mut c = Connection::new(id, Role::Server(admission), config.clone(), tuple, parts);
        c.on_syn(&mut self.ctx, now, &syn, complete.as_ref().map(|done| done.key));
        let mut tcp = c.new_tcp(&mut self.ctx, now, path, tuple);
        let subflow = tcp.id();
        if let Some(done) = &complete {
            tcp.offered_before(done.isn, done.window_scale);
        } else {
            *self.ctx.half_open.entry(listener).or_default() += 1;
        }
        let mut tcp = tcp.accept(now, &syn);
        if let Some(done) = &complete {
            tcp.syn_ack_sent_before(now, done.window);
        }
        c.add_subflow(&self.ctx, tcp, Join::Initial, EndIds::INITIAL, fast_open.answer);
        if !fast_open.data.is_empty() {
            c.take_syn_data(&mut self.ctx, now, fast_open.data);
        }
        if let Some(done) = complete {
            c.handle_segment(
                &mut self.ctx,
                now,
                subflow,
                Arrival { seg: &done.ack, payload: done.payload, marked: false },
            );
        }
        self.connections.insert(id, Box::new(c));
        self.touched(now, id);
        Ok(id)
    }

    /// Answers a pending SYN with RST.
    pub fn refuse(&mut self, now: Instant, incoming: IncomingId) {
        let Some((listener, p)) = self.take_pending(incoming) else { return };
        self.ctx.fast_open.failed(now, listener, &p.fast_open);
        let seg = p.complete.as_ref().map_or(&p.syn, |done| &done.ack);
        self.refuse_segment(now, p.path, &p.tuple, seg, 0, TcpOptions::default());
    }
}

//! Listening, and connections offered to the caller.

use super::listeners::Pending;
use super::segment::Stray;
use super::state::Stack;
use super::syn_cookies::send_syn_cookie;
use crate::config::{ConnectionConfig, ListenOptions};
use crate::context::Pressure;
use crate::context::challenges::Unasked;
use crate::error::{ConnectError, ListenError};
use crate::event::{Event, IncomingId, RefuseWith};
use crate::monitor::MonitorEvent;
use crate::mptcp::Connection;
use crate::mptcp::connection::Role;
use crate::mptcp::handshake::is_offer;
use crate::mptcp::join_state::Join;
use crate::mptcp::lifecycle::Admission;
use crate::mptcp::subflow::EndIds;
use crate::observe::Counter;
use crate::tcp::{Arrival, FourTuple};
use crate::wire::tcp::{TcpOptions, TcpRepr};
use alloc::boxed::Box;
use bytes::Bytes;
use umptcp_types::{ConnectionId, Instant, ListenerId, PathId};

impl Stack {
    /// Listens on an address and port.
    ///
    /// # Errors
    /// When the port is 0 (or, for every port, is not) or taken by another listener, or the address belongs
    /// to no path.
    pub fn listen(&mut self, options: ListenOptions) -> Result<ListenerId, ListenError> {
        let (local, fast_open) = (options.local, options.fast_open);
        if (local.port() == 0) != options.every_port {
            return Err(ListenError::NoPort);
        }
        if !local.ip().is_unspecified() && self.ctx.path_of(local.ip()).is_none() {
            return Err(ListenError::NoAddress(local.ip()));
        }
        let id = self.listeners.add(options, |path| self.ctx.captures(path))?;
        self.ctx.fast_open_listen(id, fast_open);
        Ok(id)
    }

    /// Listens, as [`listen`](Self::listen) does, and tells whoever watches ([`watch`](Self::watch)).
    ///
    /// # Errors
    /// As with [`listen`](Self::listen).
    pub fn listen_at(&mut self, now: Instant, options: ListenOptions) -> Result<ListenerId, ListenError> {
        let local = options.local;
        let listener = self.listen(options)?;
        self.ctx.tell_watchers(now, || MonitorEvent::ListenerCreated { listener, local });
        Ok(listener)
    }

    /// Stops listening. SYNs that wait for an answer are refused.
    pub fn unlisten(&mut self, now: Instant, listener: ListenerId) {
        let Some((local, waiting)) = self.listeners.remove(listener) else { return };
        self.ctx.tell_watchers(now, || MonitorEvent::ListenerClosed { listener, local });
        self.ctx.fast_open_unlisten(listener);
        for id in waiting {
            self.refuse(now, id, RefuseWith::Reset);
        }
    }

    /// Offers a SYN to the caller. With the backlog full of handshakes that do not complete, or a caller that
    /// does not take its events, the peer is answered without state instead: it may be a flood, and those who
    /// mean it come back with the third ACK.
    pub(super) fn offer(&mut self, now: Instant, listener: ListenerId, syn: Stray<'_>) {
        self.expire_pending(now);
        // A retransmitted SYN is not a second connection.
        if self.listeners.is_pending(&syn.tuple) {
            return;
        }
        let Some(l) = self.listeners.get(listener) else { return };
        let full = l.is_full(self.ctx.half_open(listener)) || self.ctx.events_full();
        let mptcp = is_offer(syn.seg);
        if l.answers_with_cookie(full) {
            if mptcp {
                self.ctx.observe(now, None, None, Counter::MPCapableSYNRX);
            }
            send_syn_cookie(&mut self.ctx, now, syn, l.config());
            return;
        }
        if full {
            self.ctx.observe(now, None, None, Counter::TcpListenOverflow);
            return;
        }
        if mptcp {
            self.ctx.observe(now, None, None, Counter::MPCapableSYNRX);
        }
        let fast_open = self.ctx.on_fast_open_syn(now, listener, &syn.tuple, syn.seg, syn.payload);
        let Stray { path, tuple, seg, .. } = syn;
        let pending = Pending { path, tuple, syn: seg.clone(), since: now, fast_open, complete: None };
        let event = self.listeners.enlist(listener, pending);
        self.ctx.push_event(event);
    }

    /// A RST may be for a SYN that waits for the caller's word.
    pub(super) fn withdraw(&mut self, now: Instant, tuple: &FourTuple, rst: &TcpRepr) {
        if let Some(incoming) = self.listeners.reset_by(tuple, rst) {
            self.forget_incoming(now, incoming);
        }
    }

    /// Forgets SYNs that waited too long.
    pub(super) fn expire_pending(&mut self, now: Instant) {
        while let Some(incoming) = self.listeners.expired(now) {
            self.forget_incoming(now, incoming);
            self.ctx.observe(now, None, None, Counter::TcpListenDrops);
        }
    }

    /// Forgets SYNs that came in by a path which has gone.
    pub(super) fn forget_incoming_by(&mut self, now: Instant, path: PathId) {
        while let Some(incoming) = self.listeners.by_path(path) {
            self.forget_incoming(now, incoming);
        }
    }

    fn forget_incoming(&mut self, now: Instant, incoming: IncomingId) {
        if let Some((listener, p)) = self.listeners.take(incoming) {
            self.ctx.fast_open_syn_dropped(now, listener, &p.fast_open);
            self.ctx.push_event(Event::IncomingGone { incoming });
        }
    }

    /// Answers a pending SYN; [`Event::Connected`](crate::event::Event::Connected) follows when the handshake
    /// is complete.
    ///
    /// # Errors
    /// When the SYN is no longer pending ([`ConnectError::Gone`]), the configuration names something unknown,
    /// or the stack is full.
    pub fn accept(
        &mut self,
        now: Instant,
        incoming: IncomingId,
        config: &ConnectionConfig,
    ) -> Result<ConnectionId, ConnectError> {
        let parts = self.parts(config)?;
        self.check_capacity()?;
        let (listener, pending) = self.listeners.take(incoming).ok_or(ConnectError::Gone)?;
        let Pending { path, tuple, syn, fast_open, complete, .. } = pending;
        if self.ctx.path(path).is_none() {
            self.ctx.fast_open_syn_dropped(now, listener, &fast_open);
            return Err(ConnectError::Gone);
        }
        let id = self.next_id();
        let admission = Admission {
            backlog: complete.is_none().then_some(listener),
            fast_open: (!fast_open.data.is_empty()).then_some(listener),
        };
        // What a SYN cookie has offered stays offered.
        let pressure = if complete.is_some() { Pressure::None } else { self.ctx.pressure() };
        let mut c = Connection::new(id, Role::Server(admission), config.clone(), tuple, parts, pressure);
        c.on_syn(&mut self.ctx, now, &syn, complete.as_ref().map(|done| done.key));
        c.tell_watchers(&mut self.ctx, now, |connection| MonitorEvent::ConnectionCreated { connection });
        let mut tcp = c.new_tcp(&mut self.ctx, now, path, tuple);
        let subflow = tcp.id();
        if let Some(done) = &complete {
            tcp.offered_before(done.isn, done.window_scale);
        } else {
            self.ctx.enter_half_open(listener);
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
                Arrival {
                    seg: &done.ack,
                    payload: done.payload,
                    marked: false,
                    signals: done.ack.options.has_signal(),
                },
            );
        }
        self.connections.insert(id, Box::new(c));
        self.touched(id);
        Ok(id)
    }

    /// Refuses a pending SYN. A handshake that is complete already can only be reset.
    pub fn refuse(&mut self, now: Instant, incoming: IncomingId, with: RefuseWith) {
        let Some((listener, p)) = self.listeners.take(incoming) else { return };
        self.ctx.fast_open_syn_dropped(now, listener, &p.fast_open);
        let (path, tuple, payload) = (p.path, p.tuple, &Bytes::new());
        match (with, &p.complete) {
            (RefuseWith::Silence, None) => {}
            (RefuseWith::Unreachable(why), None) => {
                if self.ctx.allows(now, Unasked::Reset) {
                    self.ctx.send_unreachable(now, path, &tuple, p.syn.seq, why);
                }
            }
            (_, complete) => {
                let seg = complete.as_ref().map_or(&p.syn, |done| &done.ack);
                self.refuse_segment(now, Stray { path, tuple, seg, payload }, TcpOptions::default());
            }
        }
    }
}

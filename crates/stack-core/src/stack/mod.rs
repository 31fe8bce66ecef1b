//! Many connections: demultiplexing, tokens, listeners, timers, the poll interface.
//!
//! # Order of calls
//!
//! The stack never blocks, reads no clock and owns no descriptor. After any call that hands it something
//! ([`Stack::handle_packet`], [`Stack::handle_timeout`], an application's call), its caller
//!
//! 1. calls [`Stack::poll_transmit`] until it returns `None`, and sends what it returns;
//! 2. calls [`Stack::poll_event`] until it returns `None`;
//! 3. calls [`Stack::handle_timeout`] when the time of [`Stack::poll_timeout`] has come.
//!
//! Batches are welcome: several packets may be handed in before the first poll.

mod change;
mod demux;
mod fast_open;

mod listen;
mod syn_cookies;
mod timers;

pub use crate::context::fast_open::FastOpenServer;
pub use crate::mptcp::failures::LOST_KEPT;
pub use crate::mptcp::info::{ConnectionInfo, ConnectionState, MptcpStatus, Received, SubflowInfo};

use crate::config::{ConnectOptions, ConnectionConfig, StackConfig};
use crate::context::{self, Context, Path};
use crate::error::{ConnectError, ConnectionError, SignalError};
use crate::event::{Event, IncomingId};
use crate::interface::{PathConfig, PathKind, Transmit};
use crate::mptcp::Connection;
use crate::mptcp::connection::{Parts, Role};
use crate::observe::{Counters, Observer};
use crate::tcp::FourTuple;
use crate::wire::ip::can_be_peer;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::{IpAddr, SocketAddr};
use hashbrown::HashMap;
use listen::{Listener, Pending};
use timers::TimerQueue;
use umptcp_types::{AddressId, ConnectionId, Instant, ListenerId, PathId, SubflowId};

/// Many MPTCP and TCP connections, without input, output or clock.
#[derive(Debug)]
pub struct Stack {
    ctx: Context,
    connections: HashMap<ConnectionId, Box<Connection>, context::Seeded>,
    listeners: BTreeMap<ListenerId, Listener>,
    incoming: BTreeMap<IncomingId, (ListenerId, Pending)>,
    pending_tuples: HashMap<FourTuple, IncomingId, context::Seeded>,
    /// Connections that may have something to send.
    ready: VecDeque<ConnectionId>,
    timers: TimerQueue,
    next_connection: u64,
    next_path: u32,
    next_listener: u32,
    next_incoming: u64,
}

impl Stack {
    /// A stack without paths. All its randomness (keys, nonces, ports, sequence numbers) comes from `seed`, which must be
    /// unpredictable outside tests.
    pub fn new(config: StackConfig, seed: [u8; 32]) -> Stack {
        let mut ctx = Context::new(config, seed);
        let (connections, pending) = (ctx.hasher(), ctx.hasher());
        Stack {
            ctx,
            connections: HashMap::with_hasher(connections),
            listeners: BTreeMap::new(),
            incoming: BTreeMap::new(),
            pending_tuples: HashMap::with_hasher(pending),
            ready: VecDeque::new(),
            timers: TimerQueue::default(),
            next_connection: 0,
            next_path: 0,
            next_listener: 0,
            next_incoming: 0,
        }
    }

    /// A local device appeared. Connections that may use every path open subflows on it.
    pub fn path_added(&mut self, now: Instant, config: PathConfig) -> PathId {
        let id = PathId(self.next_path);
        self.next_path += 1;
        let addresses = config.addresses.clone();
        self.ctx.paths.insert(id, Path { config, blocked: false });
        self.ctx.path_order.push(id);
        for c in self.sorted_connections() {
            if let Some(connection) = self.connections.get_mut(&c) {
                connection.on_path_added(&mut self.ctx, now, &addresses);
                self.touched(now, c);
            }
        }
        id
    }

    /// A local device has gone: its subflows end, connections go on over others.
    pub fn path_removed(&mut self, now: Instant, path: PathId) {
        if self.ctx.paths.remove(&path).is_none() {
            return;
        }
        self.ctx.path_order.retain(|p| *p != path);
        for c in self.sorted_connections() {
            if let Some(connection) = self.connections.get_mut(&c) {
                connection.on_path_removed(&mut self.ctx, now, path);
                self.touched(now, c);
            }
        }
    }

    /// Connections in order of id: hash order must not show in the packets.
    fn sorted_connections(&self) -> Vec<ConnectionId> {
        let mut ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// The device takes nothing (`blocked`) until told otherwise: nothing is offered for it meanwhile.
    pub fn path_blocked(&mut self, now: Instant, path: PathId, blocked: bool) {
        let Some(p) = self.ctx.paths.get_mut(&path) else { return };
        let was = core::mem::replace(&mut p.blocked, blocked);
        if was && !blocked {
            for c in self.sorted_connections() {
                self.touched(now, c);
            }
        }
    }

    /// Fires every timer that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.ctx.time_wait.expire(now);
        // Bounded: a connection that asks for the present again is served next time.
        let mut due = Vec::new();
        while let Some((at, id)) = self.timers.pop_due(now) {
            if let Some(c) = self.connections.get_mut(&id)
                && c.attention.on_timer(at)
            {
                due.push(id);
            }
        }
        for id in due {
            if let Some(c) = self.connections.get_mut(&id) {
                if c.next_deadline().is_some_and(|d| d <= now) {
                    c.handle_timeout(&mut self.ctx, now);
                }
                self.touched(now, id);
            }
        }
    }

    /// The next packet to send. Call until `None`.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        if let Some(t) = self.ctx.outbox.pop_front() {
            return Some(t);
        }
        while let Some(&id) = self.ready.front() {
            let Some(c) = self.connections.get_mut(&id) else {
                self.ready.pop_front();
                continue;
            };
            let transmit = c.poll_transmit(&mut self.ctx, now);
            self.ready.pop_front();
            if let Some(t) = transmit {
                // In turn with the others.
                self.ready.push_back(id);
                return Some(t);
            }
            c.attention.on_served();
            let opened = c.on_nothing_to_send(&mut self.ctx, now);
            self.settle(id);
            if opened {
                // Their SYNs wait, and have no timer yet.
                self.touched(now, id);
            }
            if let Some(t) = self.ctx.outbox.pop_front() {
                return Some(t);
            }
        }
        None
    }

    /// What the application should know. Call until `None`.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.ctx.events.pop_front()?;
        match event {
            Event::Readable { connection } => {
                if let Some(c) = self.connections.get_mut(&connection) {
                    c.notices.on_readable_taken();
                }
            }
            Event::Writable { connection } => {
                if let Some(c) = self.connections.get_mut(&connection) {
                    c.notices.on_writable_taken();
                }
            }
            _ => {}
        }
        Some(event)
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called; may be earlier than needed, never later.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.timers.next(), self.ctx.time_wait.next_deadline()].into_iter().flatten().min()
    }

    /// Something happened to a connection: it may have packets to send and other deadlines.
    fn touched(&mut self, _now: Instant, id: ConnectionId) {
        let Some(c) = self.connections.get_mut(&id) else { return };
        if c.attention.on_ready() {
            self.ready.push_back(id);
        }
    }

    /// Sets the deadline of a connection that has nothing to send, or frees it.
    fn settle(&mut self, id: ConnectionId) {
        let Some(c) = self.connections.get_mut(&id) else { return };
        if c.is_dead() {
            if let Some((port, remote)) = c.kept_port() {
                self.ctx.release_port(port, remote);
            }
            self.connections.remove(&id);
            return;
        }
        if let Some(deadline) = c.next_deadline()
            && c.attention.on_deadline(deadline)
        {
            self.timers.push(deadline, id);
        }
    }

    fn next_id(&mut self) -> ConnectionId {
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        id
    }

    fn check_capacity(&self) -> Result<(), ConnectError> {
        let max = self.ctx.config.max_connections;
        if self.connections.len() >= max { Err(ConnectError::TooMany(max)) } else { Ok(()) }
    }

    /// Makes what the names in `config` stand for.
    fn parts(&self, config: &ConnectionConfig) -> Result<Parts, ConnectError> {
        let cc = self.ctx.congestion(&config.congestion)?;
        let scheduler = self.ctx.scheduler(&config.scheduler)?;
        Ok(Parts { cc, scheduler })
    }

    /// Begins a connection. [`Event::Connected`] or [`Event::Closed`] follows, with Fast Open only after something was written
    /// (see [`awaits_data`](Self::awaits_data)).
    ///
    /// # Errors
    /// When it cannot even be tried: no path, no port, unknown names.
    pub fn connect(&mut self, now: Instant, options: ConnectOptions) -> Result<ConnectionId, ConnectError> {
        let ConnectOptions { remote, paths, local_address, local_port, config } = options;
        if !can_be_peer(remote) {
            return Err(ConnectError::BadRemote(remote));
        }
        self.check_capacity()?;
        let parts = self.parts(&config)?;
        let candidates: Vec<PathId> =
            if paths.is_empty() { self.ctx.path_order.clone() } else { paths.clone() };
        let (path, address) = match local_address {
            Some(a) if a.is_ipv4() != remote.is_ipv4() => {
                return Err(ConnectError::Families(a, remote.ip()));
            }
            Some(a) => {
                let owner = candidates.iter().copied().find(|p| {
                    self.ctx.paths.get(p).is_some_and(|p| {
                        p.config.kind == PathKind::Capture || p.config.addresses.contains(&a)
                    })
                });
                (owner.ok_or(ConnectError::LocalAddress(a))?, a)
            }
            None => candidates
                .iter()
                .find_map(|p| self.ctx.address_on(*p, remote.ip()).map(|a| (*p, a)))
                .ok_or(ConnectError::NoPath(remote.ip()))?,
        };
        let port = match local_port {
            0 => self.ctx.free_port(now, address, remote).ok_or(ConnectError::NoPort(remote))?,
            p => p,
        };
        let tuple = FourTuple { local: SocketAddr::new(address, port), remote };
        if !self.ctx.is_free(now, &tuple) {
            return Err(ConnectError::TupleInUse(tuple.local, remote));
        }
        let id = self.next_id();
        if config.mptcp {
            self.ctx.keep_port(port, remote);
        }
        let mut c = Connection::new(id, Role::Client, config, tuple, parts);
        c.open_first(&mut self.ctx, now, path, paths);
        self.connections.insert(id, Box::new(c));
        self.touched(now, id);
        Ok(id)
    }

    /// Whether a connection's SYN waits for data that it can carry ([`ConnectionConfig::fast_open`]).
    pub fn awaits_data(&self, connection: ConnectionId) -> bool {
        self.connections.get(&connection).is_some_and(|c| c.is_awaiting_data())
    }

    /// Sends the SYN of a connection that waits for data, without any.
    pub fn open(&mut self, now: Instant, connection: ConnectionId) {
        let Some(c) = self.connections.get_mut(&connection) else { return };
        c.release_syn();
        self.touched(now, connection);
    }

    /// Takes as much of `data` as fits the send buffer, without copying large pieces; returns how much. Less than all:
    /// [`Event::Writable`] follows when there is room.
    ///
    /// # Errors
    /// When the connection has ended or its sending direction is shut down.
    pub fn send(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        data: Bytes,
    ) -> Result<usize, ConnectionError> {
        let c = self.connections.get_mut(&connection).ok_or(ConnectionError::NotFound)?;
        let n = c.write(data)?;
        self.touched(now, connection);
        Ok(n)
    }

    /// [`send`](Self::send), copying.
    ///
    /// # Errors
    /// As `send`.
    pub fn send_slice(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        data: &[u8],
    ) -> Result<usize, ConnectionError> {
        let c = self.connections.get_mut(&connection).ok_or(ConnectionError::NotFound)?;
        let n = c.write_slice(data)?;
        self.touched(now, connection);
        Ok(n)
    }

    /// At most `max` received bytes, shared, not copied.
    ///
    /// # Errors
    /// When the connection ended with an error and everything received before has been read.
    pub fn receive(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        max: usize,
    ) -> Result<Received, ConnectionError> {
        let c = self.connections.get_mut(&connection).ok_or(ConnectionError::NotFound)?;
        let result = match c.read(max) {
            Ok(Some(bytes)) => Ok(Received::Data(bytes)),
            Ok(None) => Ok(Received::Empty),
            Err(None) => Ok(Received::End),
            Err(Some(e)) => Err(e),
        };
        if matches!(result, Ok(Received::Data(_))) && c.owes_ack() {
            self.touched(now, connection);
        }
        result
    }

    /// No more will be sent: DATA_FIN, or FIN in plain TCP, follows what is queued.
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn shutdown(&mut self, now: Instant, connection: ConnectionId) -> Result<(), ConnectionError> {
        let c = self.connections.get_mut(&connection).ok_or(ConnectionError::NotFound)?;
        if c.shutdown()? {
            self.touched(now, connection);
        }
        Ok(())
    }

    /// The application is done with it: what is queued is still delivered in the background, and the id is invalid from
    /// now on. Unread data make it an abort. Also frees a connection that has ended.
    pub fn close(&mut self, now: Instant, connection: ConnectionId) {
        let Some(c) = self.connections.get_mut(&connection) else { return };
        c.handle_close(&mut self.ctx, now);
        self.touched(now, connection);
    }

    /// Ends it at once: MP_FASTCLOSE and RST.
    pub fn abort(&mut self, now: Instant, connection: ConnectionId) {
        let Some(c) = self.connections.get_mut(&connection) else { return };
        c.handle_abort(&mut self.ctx, now);
        self.touched(now, connection);
    }

    /// Tells the peer of an address it may open subflows to (ADD_ADDR, RFC 8684 §3.4.1), and of a port if it is not the one in use.
    /// Repeated until the peer echoes it; call it again to have an address that failed tried once more. Joins are recognised by
    /// their token, so no listener is needed; that `address` and `port` lead to this stack is the caller's business.
    ///
    /// # Errors
    /// When the connection is not MPTCP or has no free Address ID.
    pub fn advertise_address(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        address: IpAddr,
        port: Option<u16>,
    ) -> Result<AddressId, SignalError> {
        let c = self.connections.get_mut(&connection).ok_or(SignalError::NotFound)?;
        let id = c.advertise_address(&mut self.ctx, now, address, port)?;
        self.touched(now, connection);
        Ok(id)
    }

    /// Tells the peer that addresses of ours are not to be used any more (REMOVE_ADDR, RFC 8684 §3.4.2). Subflows from them are
    /// closed as long as others remain, and none is opened from them until they are advertised anew or their path is added again.
    ///
    /// # Errors
    /// When the connection is not MPTCP.
    pub fn withdraw_addresses(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        ids: &[AddressId],
    ) -> Result<(), SignalError> {
        let c = self.connections.get_mut(&connection).ok_or(SignalError::NotFound)?;
        c.withdraw_addresses(&mut self.ctx, now, ids)?;
        self.touched(now, connection);
        Ok(())
    }

    /// Asks the peer to send on a subflow only if no other works, or to use it like the others again (MP_PRIO, RFC 8684 §3.3.8).
    /// Our own sending follows suit.
    ///
    /// # Errors
    /// When the connection is not MPTCP or has no such subflow.
    pub fn set_backup(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        subflow: SubflowId,
        backup: bool,
    ) -> Result<(), SignalError> {
        let c = self.connections.get_mut(&connection).ok_or(SignalError::NotFound)?;
        c.set_backup(subflow, backup)?;
        self.touched(now, connection);
        Ok(())
    }

    /// What there is to know about a connection.
    pub fn info(&self, connection: ConnectionId) -> Option<ConnectionInfo> {
        self.connections.get(&connection).map(|c| c.info())
    }

    /// Its subflows, in order of id.
    pub fn subflows(&self, connection: ConnectionId) -> Vec<SubflowInfo> {
        self.connections.get(&connection).map(|c| c.subflow_infos()).unwrap_or_default()
    }

    /// Counters of everything that happened, named as Linux names them.
    pub fn counters(&self) -> &Counters {
        &self.ctx.counters
    }

    /// Watches everything that happens, where it happens.
    pub fn set_observer(&mut self, observer: Box<dyn Observer>) {
        self.ctx.set_observer(observer);
    }

    /// Connections there are, those the application has let go of included.
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }
}

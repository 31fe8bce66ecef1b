//! What an application does with a connection.

use super::state::Stack;
use crate::config::{ConnectOptions, ConnectionConfig};
use crate::context::Use;
use crate::device::{PathConfig, PathKind};
use crate::error::{ConnectError, ConnectionError, SignalError};
use crate::info::{ApplicationQueues, Received};
use crate::monitor::MonitorEvent;
use crate::mptcp::Connection;
use crate::mptcp::connection::{Parts, Role};
use crate::observe::Counter;
use crate::tcp::FourTuple;
use crate::wire::ip::can_be_peer;
use alloc::boxed::Box;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::{IpAddr, SocketAddr};
use umptcp_types::{AddressId, ConnectionId, Instant, PathId, SubflowId};

impl Stack {
    pub(super) fn check_capacity(&self) -> Result<(), ConnectError> {
        let max = self.ctx.max_connections();
        if self.connections.len() >= max { Err(ConnectError::TooMany(max)) } else { Ok(()) }
    }

    /// Makes what the names in `config` stand for.
    pub(super) fn parts(&self, config: &ConnectionConfig) -> Result<Parts, ConnectError> {
        let cc = self.ctx.congestion(&config.congestion)?;
        let policy = self.ctx.path_policy(&config.path_policy)?;
        let scheduler = self.ctx.scheduler(config.scheduler_with(policy.as_ref()))?;
        Ok(Parts { cc, scheduler, policy })
    }

    /// Begins a connection. [`Event::Connected`](crate::event::Event::Connected) or
    /// [`Event::Closed`](crate::event::Event::Closed) follows, with Fast Open only after something was
    /// written (see [`awaits_data`](Self::awaits_data)).
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
        // What is captured does not lead outside, nor does what is down.
        let outside = |(id, p): (PathId, &PathConfig)| {
            (p.kind != PathKind::Capture && !self.ctx.is_path_down(id, remote.ip())).then_some(id)
        };
        let mut candidates: Vec<PathId> =
            if paths.is_empty() { self.ctx.paths().filter_map(outside).collect() } else { paths.clone() };
        let ours = |p: PathId| {
            let fits = |a: &IpAddr| a.is_ipv4() == remote.is_ipv4() && local_address.is_none_or(|l| l == *a);
            self.ctx.path(p).is_some_and(|path| path.addresses.iter().any(fits))
        };
        let all = if paths.is_empty() { self.ctx.paths().map(|(p, _)| p).collect() } else { paths.clone() };
        candidates.retain(|p| self.ctx.spent_on(*p) == Use::Open);
        if !candidates.iter().any(|p| ours(*p))
            && let Some(spent) = all.into_iter().find(|p| self.ctx.spent_on(*p) > Use::Open && ours(*p))
        {
            let name = self.ctx.path(spent).map(|p| p.name.clone()).unwrap_or_default();
            return Err(ConnectError::Spent(name));
        }
        let candidates = self.ways_to(now, remote, &candidates);
        let (path, address) = match local_address {
            Some(a) if a.is_ipv4() != remote.is_ipv4() => {
                return Err(ConnectError::Families(a, remote.ip()));
            }
            Some(a) => {
                let owner = candidates.iter().copied().find(|p| {
                    let path = self.ctx.path(*p);
                    path.is_some_and(|p| p.kind == PathKind::Capture || p.addresses.contains(&a))
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
        let mut c = Connection::new(id, Role::Client, config, tuple, parts, self.ctx.pressure());
        c.open_first(&mut self.ctx, now, path, paths);
        c.tell_watchers(&mut self.ctx, now, |connection| MonitorEvent::ConnectionCreated { connection });
        self.connections.insert(id, Box::new(c));
        self.touched(id);
        Ok(id)
    }

    /// Local ports are chosen from `range`, too, besides
    /// [`StackConfig::ephemeral_ports`](crate::config::StackConfig::ephemeral_ports): when there is none left
    /// ([`ConnectError::NoPort`]).
    pub fn add_ephemeral_ports(&mut self, range: core::ops::RangeInclusive<u16>) {
        self.ctx.add_ports(range);
    }

    /// Whether a connection's SYN waits for data that it can carry ([`ConnectionConfig::fast_open`]).
    pub fn awaits_data(&self, connection: ConnectionId) -> bool {
        self.connections.get(&connection).is_some_and(|c| c.is_awaiting_data())
    }

    /// Sends the SYN of a connection that waits for data, without any.
    pub fn open(&mut self, _now: Instant, connection: ConnectionId) {
        let Some(c) = self.connections.get_mut(&connection) else { return };
        c.release_syn();
        self.touched(connection);
    }

    /// Lets data follow the SYN/ACK at once, where the SYN brought data that were taken
    /// ([`ListenOptions::fast_open`](crate::config::ListenOptions::fast_open)): they have a mapping and no DATA_ACK, for
    /// which the client's key is missing. Otherwise they wait for the third ACK.
    ///
    /// Only for a client that is known to take them. This stack does; Linux (6.18) goes on as plain TCP. Means nothing
    /// once the handshake is complete, and in plain TCP, where data never wait.
    pub fn answer_early(&mut self, now: Instant, connection: ConnectionId) {
        let Some(c) = self.connections.get_mut(&connection) else { return };
        c.answer_early(&mut self.ctx, now);
        self.touched(connection);
    }

    /// Takes as much of `data` as fits the send buffer, without copying large pieces; returns how much. Less
    /// than all:
    /// [`Event::Writable`](crate::event::Event::Writable) follows when there is room.
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
        let n = c.write(&mut self.ctx, now, data)?;
        self.touched(connection);
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
        let n = c.write_slice(&mut self.ctx, now, data)?;
        self.touched(connection);
        Ok(n)
    }

    /// At most `max` received bytes, shared, not copied. With `max` 0, [`Received::Empty`] until everything
    /// has been read.
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
        let result = match c.read(&mut self.ctx, now, max) {
            Ok(Some(bytes)) => Ok(Received::Data(bytes)),
            Ok(None) => Ok(Received::Empty),
            Err(None) => Ok(Received::End),
            Err(Some(e)) => Err(e),
        };
        if matches!(result, Ok(Received::Data(_))) && c.owes_ack() {
            self.touched(connection);
        }
        result
    }

    /// What the caller keeps beside the stack for a connection's application. It counts in the account of all
    /// connections ([`StackConfig::buffer_memory`](crate::config::StackConfig::buffer_memory)), and a receive buffer
    /// that tunes itself grows by what the application has read, not by what was handed out: callers say what is
    /// unread before they [`receive`](Self::receive) more.
    ///
    /// # Errors
    /// When there is no such connection.
    pub fn set_application_queues(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        queues: ApplicationQueues,
    ) -> Result<(), ConnectionError> {
        let c = self.connections.get_mut(&connection).ok_or(ConnectionError::NotFound)?;
        c.set_application_queues(&mut self.ctx, now, queues);
        if c.owes_ack() {
            self.touched(connection);
        }
        Ok(())
    }

    /// What the caller keeps of connections that have been closed, such as what has been received and is not read. It
    /// counts in the account of all connections, as what it keeps of those that there are.
    pub fn set_kept_of_closed(&mut self, now: Instant, bytes: u64) {
        if self.ctx.charge_beside(now, bytes) {
            self.ctx.observe(now, None, None, Counter::TcpMemoryPressures);
        }
    }

    /// No more will be sent: DATA_FIN, or FIN in plain TCP, follows what is queued.
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn shutdown(&mut self, _now: Instant, connection: ConnectionId) -> Result<(), ConnectionError> {
        let c = self.connections.get_mut(&connection).ok_or(ConnectionError::NotFound)?;
        if c.shutdown()? {
            self.touched(connection);
        }
        Ok(())
    }

    /// The application is done with it: what is queued is still delivered in the background, and the id is
    /// invalid from now on. Unread data make it an abort. Also frees a connection that has ended.
    pub fn close(&mut self, now: Instant, connection: ConnectionId) {
        let Some(c) = self.connections.get_mut(&connection) else { return };
        c.handle_close(&mut self.ctx, now);
        if let Some(bytes) = c.left_to_deliver()
            && !self.orphans.admit(connection, bytes)
        {
            c.handle_abort(&mut self.ctx, now);
            self.ctx.observe(now, Some(connection), None, Counter::TcpAbortOnMemory);
        }
        self.touched(connection);
    }

    /// Ends it at once: MP_FASTCLOSE and RST.
    pub fn abort(&mut self, now: Instant, connection: ConnectionId) {
        let Some(c) = self.connections.get_mut(&connection) else { return };
        c.handle_abort(&mut self.ctx, now);
        self.touched(connection);
    }

    /// Tells the peer of an address it may open subflows to (ADD_ADDR, RFC 8684 §3.4.1), and of a port if it
    /// is not the one in use. Repeated until the peer echoes it; call it again to have an address that failed
    /// tried once more. Joins are recognised by their token, so no listener is needed; that `address` and
    /// `port` lead to this stack is the caller's business.
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
        self.touched(connection);
        Ok(id)
    }

    /// Tells the peer that addresses of ours are not to be used any more (REMOVE_ADDR, RFC 8684 §3.4.2).
    /// Subflows from them are closed as long as others remain, and none is opened from them until they are
    /// advertised anew or their path is added again.
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
        c.handle_withdraw(&mut self.ctx, now, ids)?;
        self.touched(connection);
        Ok(())
    }

    /// Asks the peer to send on a subflow only if no other works, or to use it like the others again
    /// (MP_PRIO, RFC 8684 §3.3.8). Our own sending follows suit.
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
        c.set_backup(now, subflow, backup)?;
        c.tell_watchers_of_priority(&mut self.ctx, now, subflow);
        self.touched(connection);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StackConfig;
    use crate::device::PathConfig;
    use crate::observe::Counter;
    use crate::wire::mptcp::keys::token_and_idsn;

    const SEED: [u8; 32] = [3; 32];

    fn stack() -> Stack {
        let mut stack = Stack::new(StackConfig::default(), SEED);
        stack.path_added(Instant::ZERO, PathConfig::new("nic", [10, 0, 0, 1].into()));
        stack
    }

    /// RFC 8684 §3.1: a key whose token another connection has is not used; without any other the connection
    /// is plain TCP.
    #[test]
    fn a_key_whose_token_is_taken_is_not_used() {
        // The same seed draws the same keys.
        let mut twin = stack();
        let keys: Vec<u64> = (0..8).filter_map(|_| twin.ctx.unique_key()).collect();
        assert_eq!(keys.len(), 8);
        for taken in [0, 1, 7, 8] {
            let mut stack = stack();
            for key in &keys[..taken] {
                stack.ctx.take_token(token_and_idsn(*key).0, ConnectionId(1_000));
            }
            let mut options = ConnectOptions::new(([10, 0, 0, 2], 80).into());
            options.local_port = 4_000;
            let id = stack.connect(Instant::ZERO, options).expect("connect");
            let owner = |key: u64| stack.ctx.owner_of_token(token_and_idsn(key).0);
            let own: Vec<u64> = keys.iter().copied().filter(|key| owner(*key) == Some(id)).collect();
            assert_eq!(own, keys.get(taken).copied().into_iter().collect::<Vec<_>>(), "{taken} taken");
            assert_eq!(stack.counters().get(Counter::MPFallbackTokenInit), u64::from(taken == 8));
            // 40 bytes of options at most: a SYN with MP_CAPABLE is 4 bytes longer.
            let syn = stack.poll_transmit(Instant::ZERO).expect("a SYN");
            let capable = syn.header.as_slice().windows(2).any(|w| w == [30, 4]);
            assert_eq!(capable, taken < 8, "{taken} taken");
        }
    }
}

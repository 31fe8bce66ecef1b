//! Capture: the connections of programs that know nothing of MPTCP, sent on by the stack.

use crate::error::Error;
use crate::handle::Handle;
use crate::shared::lock;
use crate::stack::Stack;
use crate::worker::{Onward, Rule};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use umptcp_stack_core::config::ConnectionConfig;
use umptcp_stack_core::error::{ConnectionError, FallbackReason};
use umptcp_stack_core::stack::MptcpStatus;
use umptcp_types::{ListenerId, PathId};

/// Connections that have ended of which a forwarder remembers what they were.
const REMEMBERED: usize = 1_024;

/// Receive and send buffer of the captured side. It bounds how far a program may be ahead of what has left this
/// host; on the host itself it is more than any bandwidth-delay product.
const CAPTURED_BUFFER: usize = 2 << 20;

/// Which way a captured connection goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Direction {
    /// A captured program opened it.
    Out,
    /// It came from outside, for a captured server.
    In,
}

/// A connection that was captured and sent on.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Forwarded {
    /// Which way it goes.
    pub direction: Direction,
    /// Who opened it.
    pub client: SocketAddr,
    /// Where the client wanted to go.
    pub server: SocketAddr,
    /// Whether the side outside is MPTCP, and why not. `None`: not known yet.
    pub mptcp: Option<Result<(), FallbackReason>>,
    /// Bytes from client to server.
    pub up: u64,
    /// Bytes from server to client.
    pub down: u64,
    /// How it failed, if its streams did not arrive in full.
    pub failed: Option<ConnectionError>,
}

/// What a forwarder has done so far.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ForwardSummary {
    /// SYNs captured.
    pub captured: u64,
    /// Connections that stood onward, and were joined.
    pub joined: u64,
    /// Why others could not be sent on, and how often.
    pub failed: BTreeMap<String, u64>,
    /// Connections that have ended.
    pub ended: u64,
    /// Of these, those that were MPTCP outside.
    pub mptcp: u64,
    /// Those that were not, and why.
    pub tcp: BTreeMap<String, u64>,
    /// Bytes from clients to servers, on connections that have ended.
    pub up: u64,
    /// Bytes from servers to clients.
    pub down: u64,
    /// The last connections that have ended, oldest first; at most 1,024.
    pub last: VecDeque<Forwarded>,
}

/// The part of a forwarder that its handle and the worker share.
#[derive(Debug, Default)]
pub(crate) struct ForwardShared(Mutex<ForwardSummary>);

impl ForwardShared {
    pub(crate) fn on_captured(&self) {
        lock(&self.0).captured += 1;
    }

    pub(crate) fn on_failed(&self, why: String) {
        *lock(&self.0).failed.entry(why).or_default() += 1;
    }

    pub(crate) fn on_joined(&self) {
        lock(&self.0).joined += 1;
    }

    pub(crate) fn on_ended(&self, about: Forwarded) {
        lock(&self.0).add(about);
    }
}

impl ForwardSummary {
    fn add(&mut self, about: Forwarded) {
        self.ended += 1;
        match &about.mptcp {
            Some(Ok(())) => self.mptcp += 1,
            Some(Err(why)) => *self.tcp.entry(why.to_string()).or_default() += 1,
            None => {}
        }
        self.up += about.up;
        self.down += about.down;
        if self.last.len() == REMEMBERED {
            self.last.pop_front();
        }
        self.last.push_back(about);
    }
}

/// Whether a connection is MPTCP, and why not.
pub(crate) fn spoken(status: &MptcpStatus) -> Option<Result<(), FallbackReason>> {
    match status {
        MptcpStatus::Negotiating => None,
        MptcpStatus::Active { .. } => Some(Ok(())),
        MptcpStatus::Plain { reason } => Some(Err(*reason)),
    }
}

/// Takes every connection that comes in by some paths, whatever its address and port, and sends it on: the SYN is
/// answered when the connection onward stands, and refused as that was refused; then the two are joined as by
/// [`splice`](crate::splice()). No thread is needed for it.
///
/// Dropping it ends capture. Connections that have been joined go on.
#[derive(Debug)]
pub struct Forwarder {
    handle: Handle,
    id: ListenerId,
    shared: Arc<ForwardShared>,
}

impl Forwarder {
    /// Sends what comes in by `captured` to where it wants to go, over every path of the stack that leads outside
    /// (all that are not [`PathKind::Capture`](crate::PathKind::Capture)). `config` is for the side outside.
    ///
    /// # Errors
    /// When the paths already have a listener for every port, or the stack has been stopped.
    pub fn outward(stack: &Stack, captured: PathId, config: ConnectionConfig) -> io::Result<Forwarder> {
        Self::start(stack, vec![captured], Onward::Out, captured_side(&config), config)
    }

    /// Sends what comes in by the paths `from` to the same port at one of `addresses`, by the path `captured` and
    /// in the client's own name: the server there sees the client's address and port. `config` is for the side
    /// outside.
    ///
    /// # Errors
    /// As for [`outward`](Self::outward).
    pub fn inward(
        stack: &Stack,
        from: impl IntoIterator<Item = PathId>,
        captured: PathId,
        addresses: impl IntoIterator<Item = IpAddr>,
        config: ConnectionConfig,
    ) -> io::Result<Forwarder> {
        let addresses = addresses.into_iter().map(|a| a.to_canonical()).collect();
        let connect = captured_side(&config).with_mptcp(false);
        let accept = config.with_advertise_addresses(true).with_no_delay(true);
        Self::start(
            stack,
            from.into_iter().collect(),
            Onward::In { path: captured, addresses },
            accept,
            connect,
        )
    }

    fn start(
        stack: &Stack,
        from: Vec<PathId>,
        onward: Onward,
        accept: ConnectionConfig,
        connect: ConnectionConfig,
    ) -> io::Result<Forwarder> {
        let handle = stack.handle().clone();
        let shared = Arc::new(ForwardShared::default());
        let connect = connect.with_no_delay(true);
        let rule = Rule { from, onward, accept, connect, shared: shared.clone() };
        let id = handle.commands.call(move |worker, cx| worker.add_forward(cx, rule))?;
        let id = id.map_err(|source| Error::Forward { source })?;
        Ok(Forwarder { handle, id, shared })
    }

    /// What it has done so far.
    pub fn summary(&self) -> ForwardSummary {
        lock(&self.shared.0).clone()
    }

    /// The connections that are joined now, with what has passed so far.
    ///
    /// # Errors
    /// When the stack has been stopped.
    pub fn connections(&self) -> io::Result<Vec<Forwarded>> {
        let id = self.id;
        Ok(self.handle.commands.call(move |worker, cx| worker.forwarded(cx, id))?)
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        let id = self.id;
        self.handle.commands.run(move |worker, cx| worker.remove_forward(cx, id));
    }
}

/// Settings of the side towards the captured program.
fn captured_side(outer: &ConnectionConfig) -> ConnectionConfig {
    // A program that asks for MPTCP gets it, with one subflow.
    let one = outer.clone().with_server_joins(false).with_advertise_addresses(false);
    one.with_receive_buffer(CAPTURED_BUFFER).with_send_buffer(CAPTURED_BUFFER).with_no_delay(true)
}

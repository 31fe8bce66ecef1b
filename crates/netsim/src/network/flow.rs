//! Connections and the applications at their ends.

use crate::application::{Application, Plan, Progress};
use crate::error::SimError;
use crate::id::{FlowId, NodeId, Side};
use crate::stream::ByteStream;
use bytes::Bytes;
use std::fmt;
use std::net::IpAddr;
use umptcp_stack_core::config::ConnectionConfig;
use umptcp_stack_core::error::{ConnectionError, FallbackReason};
use umptcp_stack_core::stack::{Received, Stack, SubflowInfo};
use umptcp_types::{ConnectionId, Instant, PathId, SubflowId};

/// Bytes generated at a time.
const CHUNK: u64 = 64 * 1024;
/// Bytes received at a time.
const RECEIVE: usize = 256 * 1024;

/// A connection to be made.
#[derive(Debug)]
#[non_exhaustive]
pub struct FlowSpec {
    /// Who connects.
    pub client: NodeId,
    /// Who listens.
    pub server: NodeId,
    /// Address to connect to; `None`: the server's first.
    pub server_address: Option<IpAddr>,
    /// Port to listen on and connect to; `None`: one of its own for each flow.
    pub port: Option<u16>,
    /// The client's paths; empty: all of them.
    pub paths: Vec<PathId>,
    /// The client's settings.
    pub client_config: ConnectionConfig,
    /// The server's settings.
    pub server_config: ConnectionConfig,
    /// The client's application; `None`: does what [`Network::send`](super::Network::send) and
    /// [`Network::finish`](super::Network::finish) say.
    pub client_application: Option<Box<dyn Application>>,
    /// The server's.
    pub server_application: Option<Box<dyn Application>>,
    /// The server knows that the client takes answers before its third ACK
    /// ([`Stack::answer_early`](umptcp_stack_core::stack::Stack::answer_early)).
    pub answers_early: bool,
    /// When to connect.
    pub start: Instant,
}

impl FlowSpec {
    /// A connection over all paths to the server's first address, at once, with default settings, steered by
    /// hand.
    pub fn new(client: NodeId, server: NodeId) -> FlowSpec {
        FlowSpec {
            client,
            server,
            server_address: None,
            port: None,
            paths: Vec::new(),
            client_config: ConnectionConfig::default(),
            server_config: ConnectionConfig::default(),
            client_application: None,
            server_application: None,
            answers_early: false,
            start: Instant::ZERO,
        }
    }

    /// With these applications.
    pub fn applications(mut self, client: impl Application, server: impl Application) -> FlowSpec {
        self.client_application = Some(Box::new(client));
        self.server_application = Some(Box::new(server));
        self
    }

    /// With the same settings on both sides.
    pub fn config(mut self, config: ConnectionConfig) -> FlowSpec {
        self.client_config = config.clone();
        self.server_config = config;
        self
    }

    /// With a server that knows that the client takes answers before its third ACK.
    pub fn answers_early(self) -> FlowSpec {
        FlowSpec { answers_early: true, ..self }
    }

    /// Starting at this time.
    pub fn start(self, start: Instant) -> FlowSpec {
        FlowSpec { start, ..self }
    }
}

/// What is known of a subflow, also after it has gone.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SubflowRecord {
    /// Which.
    pub id: SubflowId,
    /// The path it uses.
    pub path: PathId,
    /// When it was established.
    pub established_at: Instant,
    /// When it went, and why if it was not closed in the ordinary way.
    pub closed: Option<(Instant, Option<ConnectionError>)>,
    /// What the stack said of it when last asked.
    pub last: Option<SubflowInfo>,
}

/// One end of a connection.
#[non_exhaustive]
pub struct FlowEnd {
    /// The host.
    pub node: NodeId,
    /// The connection's id in that host's stack.
    pub connection: Option<ConnectionId>,
    /// When it was established.
    pub connected_at: Option<Instant>,
    /// How far the application has got.
    pub progress: Progress,
    /// When the last byte was received.
    pub last_received_at: Option<Instant>,
    /// Why it is plain TCP, if it fell back.
    pub fell_back: Option<FallbackReason>,
    /// When it ended, and with which error if not cleanly.
    pub closed: Option<(Instant, Option<ConnectionError>)>,
    /// Every subflow there ever was.
    pub subflows: Vec<SubflowRecord>,
    /// The application does not read.
    pub reading_paused: bool,
    pub(super) plan: Plan,
    pub(super) application: Option<Box<dyn Application>>,
    /// The application has shut its sending direction down.
    pub(super) shut: bool,
    /// The application writes before the connection is established.
    pub(super) writes_early: bool,
    pub(super) freed: bool,
    sending: ByteStream,
    receiving: ByteStream,
    /// Generated and not taken by the stack yet.
    pending: Bytes,
}

impl fmt::Debug for FlowEnd {
    /// In a few lines: tests print it when something goes wrong.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} {:?}: {:?} of {:?}, connected {:?}, shut {}, fell back {:?}, closed {:?}, subflows [",
            self.node,
            self.connection,
            self.progress,
            self.plan,
            self.connected_at,
            self.shut,
            self.fell_back,
            self.closed
        )?;
        for s in &self.subflows {
            write!(f, " {} on {} from {} to {:?};", s.id, s.path, s.established_at, s.closed)?;
        }
        write!(f, " ]")
    }
}

impl FlowEnd {
    pub(super) fn new(
        node: NodeId,
        application: Option<Box<dyn Application>>,
        sending: ByteStream,
        receiving: ByteStream,
    ) -> FlowEnd {
        FlowEnd {
            node,
            connection: None,
            connected_at: None,
            progress: Progress::default(),
            last_received_at: None,
            fell_back: None,
            closed: None,
            subflows: Vec::new(),
            reading_paused: false,
            plan: Plan::default(),
            application,
            shut: false,
            writes_early: false,
            freed: false,
            sending,
            receiving,
            pending: Bytes::new(),
        }
    }

    /// The application, if it is of this type.
    pub fn application<A: Application>(&self) -> Option<&A> {
        let application: &dyn std::any::Any = self.application.as_deref()?;
        application.downcast_ref()
    }

    /// What the application wants at present.
    pub fn plan(&self) -> Plan {
        self.plan
    }

    /// Whether the application has sent all it wants for now.
    pub fn all_sent(&self) -> bool {
        self.progress.sent >= self.plan.send
    }

    pub(super) fn established(&mut self, now: Instant, id: SubflowId, path: PathId) {
        self.subflows.push(SubflowRecord { id, path, established_at: now, closed: None, last: None });
    }

    pub(super) fn subflow_closed(&mut self, now: Instant, id: SubflowId, error: Option<ConnectionError>) {
        if let Some(record) = self.subflows.iter_mut().find(|s| s.id == id) {
            record.closed.get_or_insert((now, error));
        }
    }

    /// Asks the stack about the subflows it has.
    pub(super) fn refresh(&mut self, stack: &Stack) {
        let Some(connection) = self.connection.filter(|_| !self.freed) else { return };
        for info in stack.subflows(connection) {
            if let Some(record) = self.subflows.iter_mut().find(|s| s.id == info.id) {
                record.last = Some(info);
            }
        }
    }

    /// Reads, asks the application, writes, shuts down. `peer_sent` is what the other application has handed
    /// to its stack.
    pub(super) fn run(
        &mut self,
        now: Instant,
        stack: &mut Stack,
        flow: FlowId,
        side: Side,
        peer_sent: u64,
    ) -> Result<(), SimError> {
        let Some(connection) = self.connection.filter(|_| !self.freed) else { return Ok(()) };
        self.read(now, stack, connection, (flow, side), peer_sent)?;
        if (self.connected_at.is_none() && !self.writes_early) || self.closed.is_some() {
            return Ok(());
        }
        loop {
            if let Some(application) = &mut self.application {
                let plan = application.plan(now, &self.progress);
                self.plan = Plan { send: plan.send.max(self.plan.send), ..plan };
            }
            let before = self.progress.sent;
            self.write(now, stack, connection);
            // An application may want more because some was taken (it need not, and mostly does not).
            if self.progress.sent == before || !self.all_sent() || self.application.is_none() {
                break;
            }
        }
        if self.plan.finish && self.all_sent() && !self.shut && stack.shutdown(now, connection).is_ok() {
            self.shut = true;
        }
        Ok(())
    }

    fn read(
        &mut self,
        now: Instant,
        stack: &mut Stack,
        connection: ConnectionId,
        (flow, side): (FlowId, Side),
        peer_sent: u64,
    ) -> Result<(), SimError> {
        while !self.reading_paused && !self.progress.peer_finished {
            match stack.receive(now, connection, RECEIVE) {
                Ok(Received::Data(bytes)) => {
                    let offset = self.progress.received;
                    if let Some(offset) = self.receiving.first_difference(offset, &bytes) {
                        return Err(SimError::Corrupt { flow, side, offset });
                    }
                    self.progress.received += bytes.len() as u64;
                    self.last_received_at = Some(now);
                    if self.progress.received > peer_sent {
                        let received = self.progress.received;
                        return Err(SimError::Length { flow, side, sent: peer_sent, received });
                    }
                }
                Ok(Received::End) => {
                    self.progress.peer_finished = true;
                    if self.progress.received != peer_sent {
                        let received = self.progress.received;
                        return Err(SimError::Length { flow, side, sent: peer_sent, received });
                    }
                }
                // An error here comes with the Closed event too, which is what counts.
                Ok(Received::Empty) | Err(_) => break,
            }
        }
        Ok(())
    }

    fn write(&mut self, now: Instant, stack: &mut Stack, connection: ConnectionId) {
        while self.progress.sent < self.plan.send && !self.shut {
            if self.pending.is_empty() {
                let len = CHUNK.min(self.plan.send - self.progress.sent) as usize;
                self.pending = self.sending.bytes(self.progress.sent, len).into();
            }
            match stack.send(now, connection, self.pending.clone()) {
                Ok(0) | Err(_) => break,
                Ok(n) => {
                    self.progress.sent += n as u64;
                    self.pending = self.pending.split_off(n.min(self.pending.len()));
                }
            }
        }
    }
}

/// A connection with both its ends.
#[non_exhaustive]
pub struct Flow {
    /// The end that connects.
    pub client: FlowEnd,
    /// The end that listens.
    pub server: FlowEnd,
    /// Port it listens on.
    pub port: u16,
    pub(super) server_config: ConnectionConfig,
    pub(super) answers_early: bool,
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "client {:?}", self.client)?;
        write!(f, "server {:?}", self.server)
    }
}

impl Flow {
    /// One end.
    pub fn end(&self, side: Side) -> &FlowEnd {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    pub(super) fn end_mut(&mut self, side: Side) -> &mut FlowEnd {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// Whether both ends have ended.
    pub fn is_closed(&self) -> bool {
        self.client.closed.is_some() && self.server.closed.is_some()
    }

    /// The error that ended it, if one did, and on which side it was seen.
    pub fn error(&self) -> Option<(Side, ConnectionError)> {
        [Side::Client, Side::Server]
            .into_iter()
            .find_map(|side| self.end(side).closed.and_then(|(_, e)| e).map(|e| (side, e)))
    }
}
